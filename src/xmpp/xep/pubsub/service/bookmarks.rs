//! Bookmarks, wherever they are kept (XEP-0402, XEP-0411).
//!
//! Invariant: a change takes away only what the place that it was made in had before and has no
//! longer. What any other place has is kept, and comes to all.

use super::{Outcome, Service};
use crate::error::StanzaError;
use crate::port::{Node, Space};
use crate::xep::bookmarks::{self, Bookmark, Storage};
use crate::xep::private::PRIVATE_SIZE_MAX;
use crate::xep::pubsub::action::{NewItem, Options};
use crate::xep::pubsub::convert::{Gathered, Place, find, is_list, is_private};
use crate::xep::pubsub::form::{private_options, single_options};
use crate::xep::pubsub::refusal::Refusal;
use std::collections::HashMap;

/// The id of the only item of a node that has one (XEP-0060 12.20).
const CURRENT: &str = "current";

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
            Some(node) if !is_private(node) => None,
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
                let mut list = Storage::default();
                // Two items may name one room; the newer one says what it is.
                list.add(&Storage {
                    bookmarks: all.rev().map(|(_, bookmark)| bookmark).collect(),
                    others: Vec::new(),
                });
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

    /// What is in any of them. An item of its own says most.
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
        let mut all = before.all();
        let mut gone = None;
        if place != Place::None {
            // What was published there is no list of bookmarks: it stays what it is.
            let Some(now) = after.at(place) else {
                return Ok(());
            };
            let then = match (before.at(place), place) {
                (Some(then), _) => then.clone(),
                // What becomes a list has all that it has.
                (None, Place::List) => now.clone(),
                (None, _) => Storage::default(),
            };
            if before.at(place).is_none() && place == Place::List {
                let mut first = now.clone();
                first.add(&all);
                all = first;
            }
            let difference = then.difference(now);
            all.remove(&difference);
            if difference.only_removes() {
                gone = Some(difference);
            } else {
                all.change(difference, place == Place::List);
            }
        }
        let each = Kept {
            document: Some(all.clone()),
            item: Some(all.clone()),
            list: Some(all),
        };
        let (nodes, document) = (self.nodes.clone(), outcome.document.clone());
        let counts = (outcome.changes.len(), outcome.events.len());
        match self.put_each(place, each, &after, gathered, outcome) {
            Err(refusal) => {
                // Not all find room everywhere. What is gone goes all the same, and the rest stays
                // where it is.
                let gone = gone.ok_or(refusal)?;
                self.nodes = nodes;
                outcome.document = document;
                outcome.changes.truncate(counts.0);
                outcome.events.truncate(counts.1);
                let mut each = after.clone();
                let kept = [&mut each.document, &mut each.item, &mut each.list];
                let kept = kept.into_iter().flatten();
                kept.for_each(|kept| kept.remove(&gone));
                self.put_each(place, each, &after, gathered, outcome)
            }
            done => done,
        }
    }

    /// Has bookmarks where they are kept.
    fn put_each(
        &mut self,
        place: Place,
        each: Kept,
        after: &Kept,
        gathered: &Gathered,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        if let (Some(document), Some(is)) = (&each.document, &after.document)
            && !is.says(document)
        {
            self.put_document(document, gathered, outcome)?;
        }
        if let (Some(item), Some(is)) = (&each.item, &after.item)
            && !is.says(item)
        {
            let item = (Some(CURRENT), item.written());
            let options = Options::Initial(single_options());
            self.publish_own(bookmarks::STORAGE, item, options, outcome)?;
        }
        // A list that was taken away is not made again by that.
        let is_gone = place == Place::List && self.find(bookmarks::NODE).is_none();
        match (each.list, &after.list) {
            (Some(list), Some(_)) if !is_gone => self.put_list(list, gathered, outcome),
            _ => Ok(()),
        }
    }

    /// Writes the document that has all bookmarks.
    fn put_document(
        &self,
        storage: &Storage,
        gathered: &Gathered,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let bytes = storage.written();
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
        let known = node.map_or_else(Vec::new, |node| bookmarks_of(node, gathered));
        let by_jid = known.iter().map(|known| (&*known.1.jid, known));
        let mut gone: HashMap<&str, &(Box<str>, Bookmark)> = by_jid.collect();
        let changed = all.iter().filter_map(|bookmark| {
            let before = gone.remove(&*bookmark.jid);
            let payload = bookmark.as_item();
            let is_same = before.is_some_and(|(_, before)| before.as_item() == payload);
            let id = before.map_or(&bookmark.jid, |(id, _)| id);
            (!is_same).then(|| NewItem {
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
        let names = node.map_or(&[][..], |node| &node.items);
        let is_new = |item: &&NewItem| {
            !names
                .iter()
                .any(|known| item.id.as_deref() == Some(&*known.id))
        };
        let count = names.len() - gone.len() + changed.iter().filter(is_new).count();
        // None is to make room for another.
        if count > items_max.max(names.len()) || changed.len() > items_max {
            return Err(StanzaError::ResourceConstraint.into());
        }
        if !gone.is_empty() {
            let more = self.retract(bookmarks::NODE, &gone, true)?;
            self.absorb(more, outcome)?;
        }
        if changed.is_empty() {
            return Ok(());
        }
        let options = Options::Initial(private_options());
        self.publish_all(bookmarks::NODE, changed, options, outcome)
    }
}
