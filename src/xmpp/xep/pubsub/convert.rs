//! Nodes that say what a document says, too: avatars (XEP-0398) and, where they are converted,
//! bookmarks (XEP-0402, XEP-0411).
//!
//! Invariant: whichever of them is changed, the others are changed in the same commit, or none is.

use super::action::Action;
use super::refusal::Refusal;
use super::rights::{Visitor, bare_of};
use super::service::{Outcome, Service};
use super::work::Step;
use crate::account::AccountKey;
use crate::host::Host;
use crate::port::{
    AVATAR_DATA, AVATAR_METADATA, AccessModel, Affiliation, Node, NodeChange, PhotoHash, Space,
    StoreOp, StoreReply, is_everybodys, shown_photo,
};
use crate::shard::Shard;
use crate::xep::bookmarks;
use std::collections::HashMap;

/// What is converted, by where it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    /// A card.
    Card,
    /// The nodes of avatars.
    Avatar,
    /// Bookmarks.
    Bookmarks(Place),
}

/// Where bookmarks are kept, and changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// All in a document.
    Document,
    /// All in one item.
    Item,
    /// An item for each.
    List,
    /// Nowhere is anything changed: what is in one of them is to be in all.
    None,
}

/// What it takes to convert.
#[derive(Debug)]
enum Want {
    Document(Space, Box<str>),
    /// What items of a node say, by their numbers.
    Items(Box<str>, Vec<u64>),
}

/// A conversion for which storage is asked one thing after another.
#[derive(Debug)]
pub(super) struct Gathering {
    conversion: Conversion,
    wants: Vec<Want>,
    /// Of which node items were asked for last.
    asked: Box<str>,
    outcome: Outcome,
    gathered: Gathered,
}

/// What storage had.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub document: Option<Box<[u8]>>,
    /// What items say, by node and number.
    pub payloads: HashMap<(Box<str>, u64), Box<[u8]>>,
    /// The nodes before the change.
    pub nodes: Vec<Node>,
    /// The picture that everybody saw before.
    pub photo: Option<PhotoHash>,
}

/// Whether a node of bookmarks is its owner's alone: no other is written to, nor read from.
fn is_private(node: &Node) -> bool {
    let config = &node.config;
    let mut others = node.affiliations.iter();
    config.access == AccessModel::Whitelist
        && config.persists
        && others.all(|(_, what)| *what == Affiliation::Outcast)
}

/// Whether it has all bookmarks in one item, and is its owner's alone.
pub(super) fn is_single(node: &Node) -> bool {
    is_private(node) && node.config.items_max == 1
}

/// Whether it is a list of bookmarks: more than one, and its owner's alone.
pub(super) fn is_list(node: &Node) -> bool {
    is_private(node) && node.config.items_max > 1
}

/// Whether anybody may see what a node of avatars has, as anybody may see a card.
pub(super) fn is_public(node: &Node) -> bool {
    is_everybodys(node) && node.config.persists
}

/// A node, in a list that is ordered by name.
pub(super) fn find<'n>(nodes: &'n [Node], name: &str) -> Option<&'n Node> {
    let place = nodes.binary_search_by(|node| (*node.name).cmp(name));
    place.ok().map(|place| &nodes[place])
}

/// Has a list of nodes as it is after a change.
pub(super) fn apply(nodes: &mut Vec<Node>, change: &NodeChange) {
    let place = nodes.binary_search_by(|node| node.name.cmp(&change.name));
    match (place, change.node.as_deref()) {
        (Ok(place), Some(node)) => nodes[place] = node.clone(),
        (Ok(place), None) => drop(nodes.remove(place)),
        (Err(place), Some(node)) => nodes.insert(place, node.clone()),
        (Err(_), None) => {}
    }
}

/// What is to be converted, and what it takes. `shown` is the picture that everybody sees;
/// bookmarks are converted or not.
fn plan(
    nodes: &[Node],
    outcome: &Outcome,
    shown: Option<PhotoHash>,
    converts_bookmarks: bool,
) -> Option<(Conversion, Vec<Want>)> {
    let bookmarks = |place| {
        if !converts_bookmarks {
            return None;
        }
        let mut wants = vec![Want::Document(Space::Private, bookmarks::KEY.into())];
        wants.extend(items_of(nodes, bookmarks::STORAGE));
        wants.extend(items_of(nodes, bookmarks::NODE));
        Some((Conversion::Bookmarks(place), wants))
    };
    if outcome.adopts {
        return bookmarks(Place::None);
    }
    match &outcome.document {
        Some((Space::Vcard, ..)) => {
            let mut wants = vec![Want::Document(Space::Vcard, "".into())];
            let nodes = [AVATAR_METADATA, AVATAR_DATA].map(|name| find(nodes, name));
            if let Some(photo) = shown_photo(nodes[0], nodes[1]) {
                wants.extend(nodes.into_iter().flatten().map(|it| of_photo(it, &photo)));
            }
            return Some((Conversion::Card, wants));
        }
        Some(_) => return bookmarks(Place::Document),
        None => {}
    }
    let changed = |name: &str| outcome.changes.iter().find(|change| *change.name == *name);
    if changed(AVATAR_DATA).or(changed(AVATAR_METADATA)).is_some() {
        return plan_avatar(nodes, outcome, shown);
    }
    if let Some(change) = changed(bookmarks::STORAGE) {
        // Only what is published counts: who takes the old node away keeps his bookmarks.
        let is_published = !change.put.is_empty() && change.node.as_deref().is_some_and(is_single);
        return bookmarks(Place::Item).filter(|_| is_published);
    }
    let change = changed(bookmarks::NODE)?;
    let node = change.node.as_deref().or(find(nodes, bookmarks::NODE));
    bookmarks(Place::List).filter(|_| node.is_some_and(is_list))
}

fn plan_avatar(
    nodes: &[Node],
    outcome: &Outcome,
    shown: Option<PhotoHash>,
) -> Option<(Conversion, Vec<Want>)> {
    let change_of = |name: &str| outcome.changes.iter().find(|it| *it.name == *name);
    let after = |name: &str| match change_of(name) {
        Some(change) => change.node.as_deref(),
        None => find(nodes, name),
    };
    let before = shown_photo(find(nodes, AVATAR_METADATA), find(nodes, AVATAR_DATA));
    let (metadata, data) = (after(AVATAR_METADATA), after(AVATAR_DATA));
    let photo = shown_photo(metadata, data);
    let is_published = |name| change_of(name).is_some_and(|it| !it.put.is_empty());
    let is_done = match photo {
        // The next picture is published: what is said of it comes then (XEP-0398 3.1).
        None if !is_published(AVATAR_METADATA) && is_published(AVATAR_DATA) => true,
        None => before.or(shown).is_none(),
        Some(_) => photo == before && (photo == shown || !is_published(AVATAR_METADATA)),
    };
    if is_done {
        return None;
    }
    let mut wants = vec![Want::Document(Space::Vcard, "".into())];
    if let Some(photo) = photo {
        let nodes = [metadata, data].into_iter().flatten();
        wants.extend(nodes.map(|node| of_photo(node, &photo)));
    }
    Some((Conversion::Avatar, wants))
}

/// The items of a node that are called like a picture.
fn of_photo(node: &Node, photo: &PhotoHash) -> Want {
    let items = node.items.iter().filter(|item| *item.id == *photo.as_str());
    let numbers = items.map(|item| item.number).collect();
    Want::Items(node.name.clone(), numbers)
}

/// All items of a node, if it is there.
fn items_of(nodes: &[Node], name: &str) -> Option<Want> {
    let node = find(nodes, name)?;
    let numbers = node.items.iter().map(|item| item.number).collect();
    Some(Want::Items(name.into(), numbers))
}

/// The node of bookmarks that an action is about.
fn bookmarks_in(action: &Action) -> Option<&str> {
    let node = match action {
        // Who publishes all at once, or retracts, where nothing is has read nothing: if others had
        // come there by then, he would take them away.
        Action::Publish(publication) if *publication.node == *bookmarks::STORAGE => return None,
        Action::Publish(publication) => &publication.node,
        Action::Create(Some(node), _) | Action::Describe(node) | Action::Read(node, ..) => node,
        _ => return None,
    };
    [bookmarks::NODE, bookmarks::STORAGE]
        .into_iter()
        .find(|name| *name == &**node)
}

/// Whether bookmarks are to be the same wherever they are kept first: the account reads some, or it
/// asks for a node of bookmarks that it has not.
pub(super) fn adopts_first(nodes: &[Node], account: &str, asker: &str, action: &Action) -> bool {
    let node = bookmarks_in(action).filter(|_| bare_of(asker) == account);
    let reads = matches!(action, Action::Read(..));
    node.is_some_and(|name| reads || find(nodes, name).is_none())
}

impl Shard {
    /// An action was performed on these nodes: what else has to change changes with them.
    pub(super) fn on_performed(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        nodes: Vec<Node>,
        outcome: Outcome,
    ) {
        let shown = self.accounts.at(key).photo.as_deref().copied();
        let settings = &self.settings;
        let planned = match settings.has_nodes() {
            true => plan(&nodes, &outcome, shown, settings.has_bookmarks_converted()),
            false => None,
        };
        let Some((conversion, wants)) = planned else {
            return self.commit_nodes(host, key, outcome);
        };
        let gathering = Gathering {
            conversion,
            wants,
            asked: "".into(),
            gathered: Gathered {
                photo: shown.or_else(|| {
                    shown_photo(find(&nodes, AVATAR_METADATA), find(&nodes, AVATAR_DATA))
                }),
                nodes,
                ..Gathered::default()
            },
            outcome,
        };
        self.gather(host, key, Box::new(gathering));
    }

    fn gather(&mut self, host: &mut impl Host, key: AccountKey, mut gathering: Box<Gathering>) {
        let account = self.accounts.at(key).jid.clone();
        let op = match gathering.wants.pop() {
            None => return self.convert(host, key, *gathering),
            Some(Want::Document(space, key)) => StoreOp::Document {
                account,
                space,
                key,
            },
            Some(Want::Items(node, numbers)) => {
                gathering.asked = node.clone();
                StoreOp::Items {
                    account,
                    node,
                    numbers,
                }
            }
        };
        self.ask_nodes(host, key, Step::Gathering(gathering), op);
    }

    /// Storage has one of the things that it takes to convert.
    pub(super) fn on_gathered(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        mut gathering: Box<Gathering>,
        reply: StoreReply,
    ) {
        let gathered = &mut gathering.gathered;
        match reply {
            StoreReply::Document(document) => gathered.document = document,
            StoreReply::Items(items) => {
                let items = items.into_iter();
                let node = &gathering.asked;
                let named = items.map(|(number, bytes)| ((node.clone(), number), bytes));
                gathered.payloads.extend(named);
            }
            _ => {}
        }
        self.gather(host, key, gathering);
    }

    fn convert(&mut self, host: &mut impl Host, key: AccountKey, gathering: Gathering) {
        let Gathering {
            conversion,
            mut outcome,
            mut gathered,
            ..
        } = gathering;
        let mut nodes = gathered.nodes.clone();
        for change in &outcome.changes {
            apply(&mut nodes, change);
            let put = change.put.iter();
            let named = put.map(|(number, bytes)| ((change.name.clone(), *number), bytes.clone()));
            gathered.payloads.extend(named);
        }
        let converted = self.convert_by(host, key, nodes, |service| {
            service.convert(conversion, &gathered, &mut outcome)
        });
        match converted {
            Ok(()) => self.commit_nodes(host, key, outcome),
            Err(refusal) => self.end_job(host, key, Err(refusal)),
        }
    }

    /// What an account does with its own nodes.
    fn convert_by(
        &self,
        host: &mut impl Host,
        key: AccountKey,
        nodes: Vec<Node>,
        convert: impl FnOnce(&mut Service<'_>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let account = self.accounts.at(key);
        let mut service = Service {
            account: &account.jid,
            nodes,
            resources: Vec::new(),
            visitor: Visitor::at(account, account.jid.as_str()),
            roster: &account.roster,
            limits: &self.settings.limits,
            at: host.wall(),
            random: &mut || host.random(),
        };
        convert(&mut service)
    }
}
