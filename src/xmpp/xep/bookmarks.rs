//! XEP-0402: PEP Native Bookmarks, and what came before: all bookmarks in one element, in private
//! storage (XEP-0049) or in a node (XEP-0048). They are one list, see [`crate::xep::pubsub`].

use super::{Extension, Xep};
use crate::error::put;
use crate::settings::Settings;
use crate::xml::Attr;
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::{Node, Tree};
use std::collections::HashMap;

/// The node that has an item for each bookmark.
pub(crate) const NODE: &str = "urn:xmpp:bookmarks:1";
/// The node that has all in one item.
pub(crate) const STORAGE: &str = "storage:bookmarks";
/// The private document that has all.
pub(crate) const KEY: &str = "storage storage:bookmarks";

/// Bookmarks, one item each.
#[derive(Debug)]
pub struct Bookmarks;

impl Extension for Bookmarks {
    const XEP: Xep = Xep {
        number: 402,
        version: "1.2.0",
    };
    // XEP-0402 6
    const ACCOUNT_FEATURES: &'static [Ns] = &[Ns::BookmarksCompat, Ns::BookmarksCompatPep];

    fn is_offered(settings: &Settings) -> bool {
        settings.has_bookmarks_converted()
    }
}

/// XEP-0411: Bookmarks Conversion, between private storage and the node of XEP-0048.
#[derive(Debug)]
pub struct BookmarksConversion;

impl Extension for BookmarksConversion {
    const XEP: Xep = Xep {
        number: 411,
        version: "1.1.0",
    };
    const ACCOUNT_FEATURES: &'static [Ns] = &[Ns::BookmarksConversion];

    fn is_offered(settings: &Settings) -> bool {
        settings.has_bookmarks_converted()
    }
}

/// A room that somebody wants to find again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bookmark {
    /// Its address, prepared.
    pub jid: Box<str>,
    name: Option<Box<str>>,
    autojoin: bool,
    nick: Option<Box<str>>,
    password: Option<Box<str>>,
    /// What clients keep there besides, as an element that stands on its own.
    extensions: Vec<u8>,
    /// What older clients keep there besides; an item has no place for it.
    others: Vec<u8>,
}

impl Bookmark {
    /// That of an item of this id; `None` where it is none.
    pub(crate) fn in_item(id: &str, item: &[u8]) -> Option<Bookmark> {
        let scope = StreamScope::client();
        let tree = Tree::parse(item, &scope).ok()?;
        let conference = tree.root().child("conference", Ns::Bookmarks2)?;
        Bookmark::read(id, conference)
    }

    fn read(jid: &str, conference: Node<'_>) -> Option<Bookmark> {
        let jid = Jid::parse(jid).ok()?;
        let text = |name| conference.child(name, conference.ns());
        let text = |name| text(name).map(|it| it.text().into());
        let mut extensions = Vec::new();
        if let Some(element) = conference.child("extensions", Ns::Bookmarks2) {
            element.write(&mut extensions).ok()?;
        }
        let mut others = Vec::new();
        if conference.ns() == Ns::Bookmarks {
            let is_known = |it: &Node<'_>| {
                it.is("nick", Ns::Bookmarks)
                    || it.is("password", Ns::Bookmarks)
                    || it.is("extensions", Ns::Bookmarks2)
            };
            for child in conference.children().filter(|it| !is_known(it)) {
                // One that cannot be written is left out.
                let _left_out = child.write_within(STORAGE, &mut others);
            }
        }
        Some(Bookmark {
            jid: jid.as_str().into(),
            name: conference.attr("name").map(Box::from),
            autojoin: matches!(conference.attr("autojoin"), Some("true" | "1")),
            nick: text("nick"),
            password: text("password"),
            extensions,
            others,
        })
    }

    /// Has what clients keep of it besides from another, unless it says something itself.
    pub(crate) fn keep_extensions_of(&mut self, other: &Bookmark) {
        if self.extensions.is_empty() {
            self.extensions.clone_from(&other.extensions);
        }
    }

    /// Has what older clients keep of it from another, unless it says something itself.
    pub(crate) fn keep_others_of(&mut self, other: &Bookmark) {
        if self.others.is_empty() {
            self.others.clone_from(&other.others);
        }
    }

    /// Whether it is another but for extensions that one does not know of.
    fn says(&self, other: &Bookmark) -> bool {
        let mut whole = self.clone();
        whole.keep_extensions_of(other);
        whole == *other
    }

    /// As an item has it.
    pub(crate) fn as_item(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, format_args!("<conference xmlns='{NODE}'"));
        self.write_rest(&mut out);
        out.extend_from_slice(b"</conference>");
        out
    }

    /// What stands behind the beginning of the element's tag.
    fn write_rest(&self, out: &mut Vec<u8>) {
        if let Some(name) = &self.name {
            put(out, format_args!(" name='{}'", Attr(name)));
        }
        put(out, format_args!(" autojoin='{}'>", self.autojoin));
        for (name, value) in [("nick", &self.nick), ("password", &self.password)] {
            if let Some(value) = value {
                put(out, format_args!("<{name}>{}</{name}>", Attr(value)));
            }
        }
        out.extend_from_slice(&self.extensions);
    }
}

/// All bookmarks in one element (XEP-0048).
#[derive(Clone, Debug, Default)]
pub(crate) struct Storage {
    /// Rooms, each once.
    pub bookmarks: Vec<Bookmark>,
    /// What else stands there, element by element: pages, and what is no address of a room.
    pub others: Vec<Vec<u8>>,
}

/// What a change of one place does to bookmarks.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Those that are new or another.
    changed: Storage,
    /// Those that are there no longer.
    removed: Storage,
}

impl Difference {
    /// Whether nothing is new or another.
    pub(crate) fn only_removes(&self) -> bool {
        self.changed.bookmarks.is_empty() && self.changed.others.is_empty()
    }
}

impl Storage {
    /// That of a document; `None` where it is none.
    pub(crate) fn parse(document: &[u8]) -> Option<Storage> {
        let scope = StreamScope::client();
        let tree = Tree::parse(document, &scope).ok()?;
        let is_storage = tree.root().is("storage", Ns::Bookmarks);
        is_storage.then(|| Storage::read(tree.root()))
    }

    /// That of an item; `None` where it is none.
    pub(crate) fn in_item(item: &[u8]) -> Option<Storage> {
        let scope = StreamScope::client();
        let tree = Tree::parse(item, &scope).ok()?;
        tree.root()
            .child("storage", Ns::Bookmarks)
            .map(Storage::read)
    }

    fn read(element: Node<'_>) -> Storage {
        let mut storage = Storage::default();
        for child in element.children() {
            let jid = child.attr("jid").unwrap_or_default();
            let is_room = child.is("conference", Ns::Bookmarks);
            match Bookmark::read(jid, child).filter(|_| is_room) {
                Some(bookmark) => storage.bookmarks.push(bookmark),
                None => {
                    let mut other = Vec::new();
                    // One that cannot be written is left out.
                    if child.write_within(STORAGE, &mut other).is_ok() {
                        storage.others.push(other);
                    }
                }
            }
        }
        let mut once = Storage::default();
        once.add(&storage);
        once
    }

    fn by_jid(&self) -> HashMap<&str, &Bookmark> {
        let all = self.bookmarks.iter();
        all.map(|bookmark| (&*bookmark.jid, bookmark)).collect()
    }

    /// Adds what is not there yet, and of what is there what only the other knows.
    pub(crate) fn add(&mut self, more: &Storage) {
        let places = self.bookmarks.iter().enumerate();
        let places = places.map(|(place, known)| (known.jid.clone(), place));
        let mut places: HashMap<Box<str>, usize> = places.collect();
        for bookmark in &more.bookmarks {
            match places.get(&bookmark.jid) {
                Some(place) => {
                    let known = &mut self.bookmarks[*place];
                    known.keep_extensions_of(bookmark);
                    known.keep_others_of(bookmark);
                }
                None => {
                    places.insert(bookmark.jid.clone(), self.bookmarks.len());
                    self.bookmarks.push(bookmark.clone());
                }
            }
        }
        for other in &more.others {
            if !self.others.contains(other) {
                self.others.push(other.clone());
            }
        }
    }

    /// What becomes of this by a change after which it is `after`.
    pub(crate) fn difference(&self, after: &Storage) -> Difference {
        let (then, now) = (self.by_jid(), after.by_jid());
        let is_new = |it: &&Bookmark| then.get(&*it.jid).is_none_or(|before| before != it);
        let is_gone = |it: &&Bookmark| !now.contains_key(&*it.jid);
        let but = |all: &[Vec<u8>], without: &[Vec<u8>]| {
            let left = all.iter().filter(|it| !without.contains(it));
            left.cloned().collect()
        };
        Difference {
            changed: Storage {
                bookmarks: after.bookmarks.iter().filter(is_new).cloned().collect(),
                others: but(&after.others, &self.others),
            },
            removed: Storage {
                bookmarks: self.bookmarks.iter().filter(is_gone).cloned().collect(),
                others: but(&self.others, &after.others),
            },
        }
    }

    /// Has what is gone gone here, too.
    pub(crate) fn remove(&mut self, difference: &Difference) {
        let gone = difference.removed.by_jid();
        self.bookmarks.retain(|it| !gone.contains_key(&*it.jid));
        let gone = &difference.removed.others;
        self.others.retain(|it| !gone.contains(it));
    }

    /// Has what is new or another, too. Older clients do not know of extensions, nor items of what
    /// those keep.
    pub(crate) fn change(&mut self, difference: Difference, is_by_item: bool) {
        let known = std::mem::take(&mut self.bookmarks);
        let mut changed: HashMap<Box<str>, Bookmark> = HashMap::new();
        let mut order = Vec::new();
        for bookmark in difference.changed.bookmarks {
            order.push(bookmark.jid.clone());
            changed.insert(bookmark.jid.clone(), bookmark);
        }
        for before in known {
            self.bookmarks.push(match changed.remove(&before.jid) {
                None => before,
                Some(mut bookmark) => {
                    bookmark.keep_extensions_of(&before);
                    if is_by_item {
                        bookmark.keep_others_of(&before);
                    }
                    bookmark
                }
            });
        }
        let new = order.iter().filter_map(|jid| changed.remove(jid));
        self.bookmarks.extend(new);
        self.add(&Storage {
            bookmarks: Vec::new(),
            others: difference.changed.others,
        });
    }

    /// Whether it is another list, in whatever order, but for extensions that it does not know of.
    pub(crate) fn says(&self, other: &Storage) -> bool {
        let said = self.by_jid();
        let says = |it: &Bookmark| said.get(&*it.jid).is_some_and(|said| said.says(it));
        self.bookmarks.len() == other.bookmarks.len()
            && other.bookmarks.iter().all(says)
            && self.others.len() == other.others.len()
            && other.others.iter().all(|it| self.others.contains(it))
    }

    /// The element.
    pub(crate) fn written(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, format_args!("<storage xmlns='{STORAGE}'>"));
        for bookmark in &self.bookmarks {
            let jid = Attr(&bookmark.jid);
            put(&mut out, format_args!("<conference jid='{jid}'"));
            bookmark.write_rest(&mut out);
            out.extend_from_slice(&bookmark.others);
            out.extend_from_slice(b"</conference>");
        }
        for other in &self.others {
            out.extend_from_slice(other);
        }
        out.extend_from_slice(b"</storage>");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = "<item id='a@b'><conference xmlns='urn:xmpp:bookmarks:1' name='&lt;A&gt;' \
                        autojoin='1'><nick>x&amp;</nick><extensions><s xmlns='urn:x'/>\
                        </extensions></conference></item>";

    #[test]
    fn a_bookmark_is_the_same_in_an_item_and_among_all() {
        let bookmark = Bookmark::in_item("A@b", ITEM.as_bytes()).unwrap();
        assert_eq!((&*bookmark.jid, bookmark.autojoin), ("a@b", true));
        let mut storage = Storage::default();
        storage.add(&Storage {
            bookmarks: vec![bookmark.clone(), bookmark.clone()],
            others: Vec::new(),
        });
        let written = storage.written();
        let read = Storage::parse(&written).unwrap().bookmarks;
        assert_eq!(read, std::slice::from_ref(&bookmark));
        let item = [b"<item>", &bookmark.as_item()[..], b"</item>"].concat();
        assert_eq!(Bookmark::in_item("a@b", &item), Some(bookmark));
    }

    #[test]
    fn what_is_no_room_stays_where_it_is() {
        let text = "<storage xmlns='storage:bookmarks'><url name='x' url='http://a'/>\
                    <conference jid='@' name='y'/><conference jid='a@b'/></storage>";
        let storage = Storage::parse(text.as_bytes()).unwrap();
        assert_eq!(storage.bookmarks.len(), 1);
        let written = String::from_utf8(storage.written()).unwrap();
        let expected = "<storage xmlns='storage:bookmarks'>\
                        <conference jid='a@b' autojoin='false'></conference>\
                        <url name='x' url='http://a'/><conference jid='@' name='y'/></storage>";
        assert_eq!(written, expected);
        for none in ["<storage", "<item/>", ""] {
            assert!(Storage::in_item(none.as_bytes()).is_none(), "{none}");
            assert!(Storage::parse(none.as_bytes()).is_none(), "{none}");
        }
    }

    /// What an older client keeps of a room in its own words stays when the room is changed by an
    /// item, and is its to take away.
    #[test]
    fn a_change_is_made_to_what_all_places_have() {
        let storage = |rooms: &str| {
            let text = format!("<storage xmlns='storage:bookmarks'>{rooms}</storage>");
            Storage::parse(text.as_bytes()).unwrap()
        };
        let room = |jid: &str, more: &str| format!("<conference jid='{jid}'>{more}</conference>");
        let (a, b, c) = (
            room("a@r", "<m xmlns='urn:m'/>"),
            room("b@r", ""),
            room("c@r", ""),
        );
        let mut all = storage(&a);
        all.add(&storage(&format!("{}{b}", room("A@r", ""))));
        assert!(all.says(&storage(&format!("{b}{a}"))));
        let now = storage(&format!("{}{c}", room("a@r", "<nick>x</nick>")));
        for (is_by_item, more) in [(true, "<m xmlns='urn:m'/>"), (false, "")] {
            let difference = storage(&format!("{}{}", room("a@r", ""), room("z@r", "")));
            let difference = difference.difference(&now);
            assert!(!difference.only_removes());
            let mut changed = all.clone();
            changed.remove(&difference);
            changed.change(difference, is_by_item);
            let a = room("a@r", &format!("<nick>x</nick>{more}"));
            assert!(changed.says(&storage(&format!("{a}{b}{c}"))));
        }
        let gone = storage(&format!("{a}{b}")).difference(&storage(&a));
        assert!(gone.only_removes());
        all.remove(&gone);
        assert!(all.says(&storage(&a)));
    }

    #[test]
    fn an_older_client_takes_no_extensions_away() {
        let before = Bookmark::in_item("a@b", ITEM.as_bytes()).unwrap();
        let mut after = Bookmark {
            extensions: Vec::new(),
            ..before.clone()
        };
        after.keep_extensions_of(&before);
        assert_eq!(after, before);
    }
}
