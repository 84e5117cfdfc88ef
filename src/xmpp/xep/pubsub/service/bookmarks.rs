//! Bookmarks, wherever they are kept (XEP-0402, XEP-0411).
//!
//! Invariant, where they are converted: a change takes away only what the place that it was made in
//! had before and has no longer. What any other place has is kept, and comes to all.

use super::{Outcome, Service};
use crate::error::StanzaError;
use crate::port::{Node, Space};
use crate::xep::bookmarks::{self, Bookmark, Difference, Storage};
use crate::xep::private::PRIVATE_SIZE_MAX;
use crate::xep::pubsub::action::{NewItem, Options};
use crate::xep::pubsub::convert::{Gathered, Place, find, is_list, is_single};
use crate::xep::pubsub::form::{private_options, single_options};
use crate::xep::pubsub::refusal::Refusal;
use std::collections::{HashMap, HashSet};

/// The id of the only item of a node that has one (XEP-0060 12.20).
const CURRENT: &str = "current";

/// How much one event has at most: bytes of items, and namespaces that are declared there. What is
/// sent is parsed again on its way, and clients may be as strict as streams are here.
const EVENT_SIZE_MAX: usize = 64 << 10;
const EVENT_NAMESPACES_MAX: usize = 100;

/// Bookmarks by where they are kept; `None` is what takes no part.
#[derive(Clone, Debug)]
struct Kept {
    document: Option<Storage>,
    item: Option<Storage>,
    list: Option<Storage>,
}

impl Kept {
    fn of(nodes: &[Node], document: Option<&[u8]>, gathered: &Gathered) -> Kept {
        let said = |node: &Node, number| gathered.payloads.get(&(node.name.clone(), number));
        let item = match find(nodes, bookmarks::STORAGE) {
            None => Some(Storage::default()),
            Some(node) if !is_single(node) => None,
            Some(node) => match node.items.last() {
                None => Some(Storage::default()),
                Some(item) => said(node, item.number).and_then(|it| Storage::in_item(it)),
            },
        };
        let list = match find(nodes, bookmarks::NODE) {
            None => Some(Storage::default()),
            Some(node) if !is_list(node) => None,
            Some(node) => {
                let all = bookmarks_of(node, gathered).into_iter();
                // Two items may name one room; the newer one says what it is.
                let mut named = HashSet::new();
                let mut list = Storage::default();
                for (_, bookmark) in all.rev() {
                    if named.insert(bookmark.jid.clone()) {
                        list.bookmarks.push(bookmark);
                    }
                }
                list.bookmarks.reverse();
                Some(list)
            }
        };
        Kept {
            document: document.map_or(Some(Storage::default()), Storage::parse),
            item,
            list,
        }
    }

    fn at(&self, place: Place) -> Option<&Storage> {
        match place {
            Place::Document => self.document.as_ref(),
            Place::Item => self.item.as_ref(),
            Place::List => self.list.as_ref(),
            Place::None => None,
        }
    }

    /// The same with something else everywhere.
    fn map(&self, other: impl Fn(&Storage) -> Storage) -> Kept {
        Kept {
            document: self.document.as_ref().map(&other),
            item: self.item.as_ref().map(&other),
            list: self.list.as_ref().map(&other),
        }
    }

    /// What is in any of them, by what each says of it; an item of its own is asked first.
    fn all(&self) -> Storage {
        let mut all = Storage::default();
        let kept = [&self.list, &self.document, &self.item];
        kept.into_iter().flatten().for_each(|kept| all.add(kept));
        all
    }
}

/// The bookmarks that have an item each, with its id.
fn bookmarks_of(node: &Node, gathered: &Gathered) -> Vec<(Box<str>, Bookmark)> {
    let all = node.items.iter().filter_map(|item| {
        let said = gathered.payloads.get(&(node.name.clone(), item.number))?;
        Some((item.id.clone(), Bookmark::in_item(&item.id, said)?))
    });
    all.collect()
}

/// What is to be kept.
struct Wanted {
    all: Storage,
    /// What was changed in one of the places.
    difference: Difference,
    /// Whether each room may stay where it is.
    may_stay: bool,
}

/// `None` where nothing is to be changed.
fn wanted(place: Place, before: &Kept, after: &Kept, takes_away: bool) -> Option<Wanted> {
    let mut all = before.all();
    if place == Place::None {
        return Some(Wanted {
            all,
            difference: Difference::default(),
            may_stay: false,
        });
    }
    // What was published there is no list of bookmarks: it stays what it is.
    let now = after.at(place)?;
    let is_list = place == Place::List;
    let then = match before.at(place) {
        Some(then) => then.clone(),
        // What becomes a list has all that it has.
        None if is_list => {
            let mut first = now.clone();
            first.add(&all);
            all = first;
            now.clone()
        }
        None => Storage::default(),
    };
    let mut difference = then.difference(now, is_list);
    if is_list && !takes_away {
        // It had to make room, or something else is called so now.
        difference.take_nothing();
    }
    let may_stay = !difference.adds_to(&all);
    all.remove(&difference);
    all.change(&difference);
    Some(Wanted {
        all,
        difference,
        may_stay,
    })
}

impl Service<'_> {
    pub(super) fn convert_bookmarks(
        &mut self,
        place: Place,
        gathered: &Gathered,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let document = gathered.document.as_deref();
        let before = Kept::of(&gathered.nodes, document, gathered);
        let put = outcome.document.as_ref().map(|(.., bytes)| &**bytes);
        let after = Kept::of(&self.nodes, put.or(document), gathered);
        let Some(wanted) = wanted(place, &before, &after, outcome.takes_away) else {
            return Ok(());
        };
        let (all, difference) = (&wanted.all, &wanted.difference);
        let everywhere = after.map(|_| all.clone());
        let refusal = match self.try_each(place, everywhere, &after, gathered, outcome) {
            Ok(()) => return Ok(()),
            Err(refusal) if !wanted.may_stay => return Err(refusal),
            Err(refusal) => refusal,
        };
        // Not all find room everywhere. Each stays where it is, and is changed there, if nothing is
        // said only where it had to make room.
        let each = after.map(|kept| kept.as_said_in(all));
        if each.all().has_all_of(all)
            && self
                .try_each(place, each, &after, gathered, outcome)
                .is_ok()
        {
            return Ok(());
        }
        // What is gone goes all the same.
        let each = after.map(|kept| {
            let mut left = kept.clone();
            left.remove(difference);
            left
        });
        match difference.only_removes() && each.all().has_all_of(all) {
            true => self.try_each(place, each, &after, gathered, outcome),
            false => Err(refusal),
        }
    }

    /// Has bookmarks where they are kept, or leaves everything as it is.
    fn try_each(
        &mut self,
        place: Place,
        each: Kept,
        after: &Kept,
        gathered: &Gathered,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let (nodes, document) = (self.nodes.clone(), outcome.document.clone());
        let counts = (outcome.changes.len(), outcome.events.len());
        let done = self.put_each(place, each, after, gathered, outcome);
        if done.is_err() {
            self.nodes = nodes;
            outcome.document = document;
            outcome.changes.truncate(counts.0);
            outcome.events.truncate(counts.1);
            return done;
        }
        let mut told = outcome.events[counts.1..].iter();
        if place == Place::Item && told.any(|event| *event.node.name == *bookmarks::STORAGE) {
            // What was published had not all that it has now: only that is told.
            let mut number = 0;
            outcome.events.retain(|event| {
                number += 1;
                number > counts.1 || *event.node.name != *bookmarks::STORAGE
            });
        }
        done
    }

    fn put_each(
        &mut self,
        place: Place,
        each: Kept,
        after: &Kept,
        gathered: &Gathered,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        // A list that was taken away is not made again by that.
        let is_gone = place == Place::List && self.find(bookmarks::NODE).is_none();
        let list = each.list.filter(|_| !is_gone);
        let listed = self.listed(list.as_ref(), after);
        let item = each.item.map(|it| it.without_extensions(&listed));
        let document = each.document.map(|it| it.without_extensions(&listed));
        if let (Some(document), Some(is)) = (&document, &after.document)
            && !is.is_same(document)
        {
            self.put_document(document, gathered, outcome)?;
        }
        if let (Some(item), Some(is)) = (&item, &after.item)
            && !is.is_same(item)
        {
            let item = (Some(CURRENT), written(item)?);
            let options = Options::Initial(single_options());
            self.publish_own(bookmarks::STORAGE, item, options, outcome)?;
        }
        match list {
            Some(list) => self.put_list(list, gathered, outcome),
            None => Ok(()),
        }
    }

    /// The rooms of which a list has extensions; what else is called so is not replaced by one.
    fn listed<'l>(&self, list: Option<&'l Storage>, after: &Kept) -> HashSet<&'l str> {
        let known = after.list.as_ref().map(Storage::by_jid).unwrap_or_default();
        let node = self.find(bookmarks::NODE);
        let ids = node.map_or(&[][..], |node| &node.items);
        let ids: HashSet<&str> = ids.iter().map(|item| &*item.id).collect();
        let rooms = list.map_or(&[][..], |list| &list.bookmarks);
        let rooms = rooms.iter().filter(|room| room.has_extensions());
        let rooms = rooms.map(|room| &*room.jid);
        let is_listed = |jid: &&str| known.contains_key(jid) || !ids.contains(jid);
        rooms.filter(is_listed).collect()
    }

    /// Writes the document that has all bookmarks.
    fn put_document(
        &self,
        storage: &Storage,
        gathered: &Gathered,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let bytes = written(storage)?;
        let before = gathered.document.as_ref().map_or(0, |before| before.len());
        let size_max = self.limits.item_size_max.min(PRIVATE_SIZE_MAX);
        if bytes.len() > size_max.max(before) {
            return Err(StanzaError::ResourceConstraint.into());
        }
        let key = bookmarks::KEY.into();
        outcome.document = Some((Space::Private, key, bytes.into()));
        Ok(())
    }

    /// XEP-0402 5.3.2: item by item. Those that are as they were are not published again.
    fn put_list(
        &mut self,
        list: Storage,
        gathered: &Gathered,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let all = list.bookmarks;
        let node = self.find(bookmarks::NODE);
        let ids = node.map_or(&[][..], |node| &node.items);
        let ids: HashSet<&str> = ids.iter().map(|item| &*item.id).collect();
        let known = node.map_or_else(Vec::new, |node| bookmarks_of(node, gathered));
        let by_jid = known.iter().map(|known| (&*known.1.jid, known));
        let mut gone: HashMap<&str, &(Box<str>, Bookmark)> = by_jid.collect();
        let changed = all.iter().filter_map(|bookmark| {
            let before = gone.remove(&*bookmark.jid);
            let payload = bookmark.as_item();
            let is_same = before.is_some_and(|(_, before)| before.as_item() == payload);
            let id = before.map_or(&bookmark.jid, |(id, _)| id);
            // What is called so and is no bookmark stays what it is.
            let is_taken = before.is_none() && ids.contains(&**id);
            (!is_same && !is_taken).then(|| NewItem {
                id: Some(id.clone()),
                payload: payload.into(),
            })
        });
        let changed: Vec<NewItem> = changed.collect();
        let gone: Vec<Box<str>> = known
            .iter()
            .filter(|(_, it)| gone.contains_key(&*it.jid))
            .map(|(id, _)| id.clone())
            .collect();
        let items_max = node.map_or(self.limits.node_items_max, |node| self.items_max(node));
        let is_new = |item: &&NewItem| item.id.as_deref().is_some_and(|id| !ids.contains(id));
        let count = ids.len() - gone.len() + changed.iter().filter(is_new).count();
        // None is to make room for another.
        if count > items_max.max(ids.len()) || changed.len() > items_max {
            return Err(StanzaError::ResourceConstraint.into());
        }
        if !gone.is_empty() {
            let more = self.retract(bookmarks::NODE, &gone, true)?;
            self.absorb(more, outcome)?;
        }
        for piece in pieces(changed) {
            let options = Options::Initial(private_options());
            self.publish_all(bookmarks::NODE, piece, options, outcome)?;
        }
        Ok(())
    }
}

/// All in one element, which can be read again.
fn written(storage: &Storage) -> Result<Vec<u8>, Refusal> {
    let bytes = storage.written();
    match Storage::parse(&bytes) {
        Some(_) => Ok(bytes),
        None => Err(StanzaError::ResourceConstraint.into()),
    }
}

/// Items by the event in which they are told.
fn pieces(items: Vec<NewItem>) -> Vec<Vec<NewItem>> {
    let mut pieces: Vec<Vec<NewItem>> = Vec::new();
    let (mut size, mut count) = (0, 0);
    for item in items {
        let declared = item.payload.windows(6).filter(|it| it == b" xmlns");
        let declared = declared.count();
        size += item.payload.len();
        count += declared;
        match pieces.last_mut() {
            Some(piece) if size <= EVENT_SIZE_MAX && count <= EVENT_NAMESPACES_MAX => {
                piece.push(item);
            }
            _ => {
                (size, count) = (item.payload.len(), declared);
                pieces.push(vec![item]);
            }
        }
    }
    pieces
}
