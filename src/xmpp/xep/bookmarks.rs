//! XEP-0402: PEP Native Bookmarks, and what came before: all bookmarks in one element, in private
//! storage (XEP-0049) or in a node (XEP-0048). They are one list where they are converted, see
//! [`crate::xep::pubsub`] and [`Settings::converts_bookmarks`].

use super::{Extension, Xep};
use crate::error::put;
use crate::settings::Settings;
use crate::xml::Attr;
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::{Node, Tree};
use std::collections::{HashMap, HashSet};

/// The node that has an item for each bookmark.
pub(crate) const NODE: &str = "urn:xmpp:bookmarks:1";
/// The node that has all in one item.
pub(crate) const STORAGE: &str = "storage:bookmarks";
/// The private document that has all.
pub(crate) const KEY: &str = "storage storage:bookmarks";

/// What may stand beside rooms in one element; one with more is no list of bookmarks.
pub(crate) const OTHERS_MAX: usize = 1_000;

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

    /// Whether clients keep something of it besides.
    pub(crate) fn has_extensions(&self) -> bool {
        !self.extensions.is_empty()
    }

    /// Has what clients keep of it besides from another, unless it says something itself.
    fn keep_extensions_of(&mut self, other: &Bookmark) {
        if self.extensions.is_empty() {
            self.extensions.clone_from(&other.extensions);
        }
    }

    /// Has from another what it does not say, but for what it said `then` and says no longer. Older
    /// clients do not know of extensions, nor does an item of what those keep.
    fn keep_unsaid_of(&mut self, other: &Bookmark, then: Option<&Bookmark>, is_by_list: bool) {
        let keep = |mine: &mut Option<Box<str>>, then: Option<&Option<_>>, other: &Option<_>| {
            if mine.is_none() && then.is_none_or(Option::is_none) {
                mine.clone_from(other);
            }
        };
        keep(&mut self.name, then.map(|it| &it.name), &other.name);
        keep(&mut self.nick, then.map(|it| &it.nick), &other.nick);
        let before = then.map(|it| &it.password);
        keep(&mut self.password, before, &other.password);
        if !is_by_list || then.is_none_or(|it| it.extensions.is_empty()) {
            self.keep_extensions_of(other);
        }
        let keeps_others = is_by_list || then.is_none_or(|it| it.others.is_empty());
        if keeps_others && self.others.is_empty() {
            self.others.clone_from(&other.others);
        }
    }

    /// Whether it is the same but for extensions that it does not know of.
    fn says(&self, other: &Bookmark) -> bool {
        let mut whole = self.clone();
        whole.keep_extensions_of(other);
        whole == *other
    }

    /// Whether nothing is said of it but here.
    fn has_all_of(&self, other: &Bookmark) -> bool {
        (self.name.is_some() || other.name.is_none())
            && (self.nick.is_some() || other.nick.is_none())
            && (self.password.is_some() || other.password.is_none())
            && (!self.extensions.is_empty() || other.extensions.is_empty())
            && (!self.others.is_empty() || other.others.is_empty())
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
    /// What was said of those before.
    then: Storage,
    /// Those that are there no longer.
    removed: Storage,
    /// Whether it is a change of a list of items.
    is_by_list: bool,
}

impl Difference {
    /// Has nothing gone.
    pub(crate) fn take_nothing(&mut self) {
        self.removed = Storage::default();
    }

    /// Whether nothing is new or another.
    pub(crate) fn only_removes(&self) -> bool {
        self.changed.bookmarks.is_empty() && self.changed.others.is_empty()
    }

    /// Whether something is new that is not among these.
    pub(crate) fn adds_to(&self, all: &Storage) -> bool {
        let (rooms, others) = (all.by_jid(), set_of(&all.others));
        let (mut new, mut more) = (self.changed.bookmarks.iter(), self.changed.others.iter());
        new.any(|it| !rooms.contains_key(&*it.jid)) || more.any(|it| !others.contains(&**it))
    }
}

fn set_of(all: &[Vec<u8>]) -> HashSet<&[u8]> {
    all.iter().map(Vec::as_slice).collect()
}

impl Storage {
    /// That of a document; `None` where it is none.
    pub(crate) fn parse(document: &[u8]) -> Option<Storage> {
        let scope = StreamScope::client();
        let tree = Tree::parse(document, &scope).ok()?;
        let is_storage = tree.root().is("storage", Ns::Bookmarks);
        is_storage.then(|| Storage::read(tree.root())).flatten()
    }

    /// That of an item; `None` where it is none.
    pub(crate) fn in_item(item: &[u8]) -> Option<Storage> {
        let scope = StreamScope::client();
        let tree = Tree::parse(item, &scope).ok()?;
        tree.root()
            .child("storage", Ns::Bookmarks)
            .and_then(Storage::read)
    }

    fn read(element: Node<'_>) -> Option<Storage> {
        let mut storage = Storage::default();
        for child in element.children() {
            let jid = child.attr("jid").unwrap_or_default();
            let is_room = child.is("conference", Ns::Bookmarks);
            match Bookmark::read(jid, child).filter(|_| is_room) {
                Some(bookmark) => storage.bookmarks.push(bookmark),
                None if storage.others.len() >= OTHERS_MAX => return None,
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
        Some(once)
    }

    pub(crate) fn by_jid(&self) -> HashMap<&str, &Bookmark> {
        let all = self.bookmarks.iter();
        all.map(|bookmark| (&*bookmark.jid, bookmark)).collect()
    }

    /// Whether nothing is said in another but here, however it is said.
    pub(crate) fn has_all_of(&self, other: &Storage) -> bool {
        let (known, others) = (self.by_jid(), set_of(&self.others));
        let has = |it: &Bookmark| {
            let known = known.get(&*it.jid);
            known.is_some_and(|known| known.has_all_of(it))
        };
        other.bookmarks.iter().all(has) && other.others.iter().all(|it| others.contains(&**it))
    }

    /// Adds what is not there yet, and of what is there what only the other says.
    pub(crate) fn add(&mut self, more: &Storage) {
        let places = self.bookmarks.iter().enumerate();
        let places = places.map(|(place, known)| (known.jid.clone(), place));
        let mut places: HashMap<Box<str>, usize> = places.collect();
        for bookmark in &more.bookmarks {
            match places.get(&bookmark.jid) {
                Some(place) => self.bookmarks[*place].keep_unsaid_of(bookmark, None, false),
                None => {
                    places.insert(bookmark.jid.clone(), self.bookmarks.len());
                    self.bookmarks.push(bookmark.clone());
                }
            }
        }
        let mut known = set_of(&self.others);
        let new = more.others.iter().filter(|it| known.insert(it));
        let new: Vec<Vec<u8>> = new.cloned().collect();
        self.others.extend(new);
    }

    /// What becomes of this by a change after which it is `after`; by that of a list, what it does
    /// not say of a room any more is gone, too.
    pub(crate) fn difference(&self, after: &Storage, is_by_list: bool) -> Difference {
        let (then, now) = (self.by_jid(), after.by_jid());
        let is_new = |it: &&Bookmark| match then.get(&*it.jid) {
            None => true,
            Some(before) if is_by_list => before != it,
            Some(before) => !it.says(before),
        };
        let is_gone = |it: &&Bookmark| !now.contains_key(&*it.jid);
        let but = |all: &[Vec<u8>], without: &[Vec<u8>]| {
            let without = set_of(without);
            let left = all.iter().filter(|it| !without.contains(&***it));
            left.cloned().collect()
        };
        let changed: Vec<Bookmark> = after.bookmarks.iter().filter(is_new).cloned().collect();
        let before = changed.iter().filter_map(|it| then.get(&*it.jid));
        Difference {
            then: Storage {
                bookmarks: before.map(|it| (*it).clone()).collect(),
                others: Vec::new(),
            },
            changed: Storage {
                bookmarks: changed,
                others: but(&after.others, &self.others),
            },
            removed: Storage {
                bookmarks: self.bookmarks.iter().filter(is_gone).cloned().collect(),
                others: but(&self.others, &after.others),
            },
            is_by_list,
        }
    }

    /// Has what is gone gone here, too.
    pub(crate) fn remove(&mut self, difference: &Difference) {
        let gone = difference.removed.by_jid();
        self.bookmarks.retain(|it| !gone.contains_key(&*it.jid));
        let gone = set_of(&difference.removed.others);
        self.others.retain(|it| !gone.contains(&**it));
    }

    /// Has what is new or another, too.
    pub(crate) fn change(&mut self, difference: &Difference) {
        let (changed, then) = (difference.changed.by_jid(), difference.then.by_jid());
        for known in &mut self.bookmarks {
            if let Some(now) = changed.get(&*known.jid) {
                let before = then.get(&*known.jid).copied();
                let mut now = (*now).clone();
                now.keep_unsaid_of(known, before, difference.is_by_list);
                *known = now;
            }
        }
        self.add(&difference.changed);
    }

    /// What is here and in another, as that says it.
    pub(crate) fn as_said_in(&self, all: &Storage) -> Storage {
        let (said, others) = (all.by_jid(), set_of(&all.others));
        let bookmarks = self.bookmarks.iter();
        let bookmarks = bookmarks.filter_map(|it| said.get(&*it.jid));
        let kept = self.others.iter().filter(|it| others.contains(&***it));
        Storage {
            bookmarks: bookmarks.map(|it| (*it).clone()).collect(),
            others: kept.cloned().collect(),
        }
    }

    /// Without the extensions of these rooms.
    pub(crate) fn without_extensions(&self, of: &HashSet<&str>) -> Storage {
        let mut plain = self.clone();
        let rooms = plain.bookmarks.iter_mut();
        let rooms = rooms.filter(|it| of.contains(&*it.jid));
        rooms.for_each(|it| it.extensions.clear());
        plain
    }

    /// Whether it is the same, in whatever order.
    pub(crate) fn is_same(&self, other: &Storage) -> bool {
        let (rooms, others) = (self.by_jid(), set_of(&self.others));
        let is_here = |it: &Bookmark| rooms.get(&*it.jid).is_some_and(|known| *known == it);
        self.bookmarks.len() == other.bookmarks.len()
            && other.bookmarks.iter().all(is_here)
            && self.others.len() == other.others.len()
            && other.others.iter().all(|it| others.contains(&**it))
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
        assert!(all.is_same(&storage(&format!("{b}{a}"))));
        let now = storage(&format!("{}{c}", room("a@r", "<nick>x</nick>")));
        for (is_by_list, more) in [(true, "<m xmlns='urn:m'/>"), (false, "")] {
            let difference = storage(&format!("{a}{}", room("z@r", "")));
            let difference = difference.difference(&now, is_by_list);
            assert!(!difference.only_removes());
            let mut changed = all.clone();
            changed.remove(&difference);
            changed.change(&difference);
            let a = room("a@r", &format!("<nick>x</nick>{more}"));
            assert!(changed.is_same(&storage(&format!("{a}{b}{c}"))));
        }
        let gone = storage(&format!("{a}{b}")).difference(&storage(&a), false);
        assert!(gone.only_removes());
        all.remove(&gone);
        assert!(all.is_same(&storage(&a)));
    }

    #[test]
    fn only_an_item_of_its_own_takes_extensions_away() {
        let storage = |bookmark| Storage {
            bookmarks: vec![bookmark],
            others: Vec::new(),
        };
        let whole = Bookmark::in_item("a@b", ITEM.as_bytes()).unwrap();
        let plain = Bookmark {
            name: None,
            extensions: Vec::new(),
            ..whole.clone()
        };
        for (is_by_list, extensions) in [(true, &[][..]), (false, &whole.extensions)] {
            let mut all = storage(whole.clone());
            let difference = all.difference(&storage(plain.clone()), is_by_list);
            all.change(&difference);
            assert_eq!(all.bookmarks[0].extensions, extensions);
            assert_eq!(all.bookmarks[0].name, None);
        }
    }

    /// Who drops what he does not know of changes nothing by that.
    #[test]
    fn extensions_that_an_older_client_leaves_out_are_no_change() {
        let whole = Bookmark::in_item("a@b", ITEM.as_bytes()).unwrap();
        let storage = |bookmark| Storage {
            bookmarks: vec![bookmark],
            others: Vec::new(),
        };
        let plain = Bookmark {
            extensions: Vec::new(),
            ..whole.clone()
        };
        for (is_by_list, is_change) in [(true, true), (false, false)] {
            let before = storage(whole.clone());
            let difference = before.difference(&storage(plain.clone()), is_by_list);
            assert_ne!(difference.only_removes(), is_change);
        }
    }

    #[test]
    fn what_only_one_place_says_of_a_room_is_said_in_all_unless_it_is_taken_away_there() {
        let storage = |more: &str| {
            let text = format!("<storage xmlns='storage:bookmarks'><conference {more}</storage>");
            Storage::parse(text.as_bytes()).unwrap()
        };
        let bare = storage("jid='a@b'/>");
        let said = storage("jid='A@b' name='A'><nick>x</nick><password>y</password></conference>");
        let mut all = bare.clone();
        all.add(&said);
        assert!(all.is_same(&said) && all.has_all_of(&said) && !bare.has_all_of(&said));
        let mut kept = all.clone();
        kept.change(&Storage::default().difference(&bare, true));
        assert!(kept.is_same(&said));
        all.change(&said.difference(&bare, true));
        assert!(all.is_same(&bare));
    }

    #[test]
    fn an_element_has_so_many_others_and_no_more() {
        for (count, is_list) in [(OTHERS_MAX, true), (OTHERS_MAX + 1, false)] {
            let others: String = (0..count).map(|it| format!("<x{it}/>")).collect();
            let text = format!("<storage xmlns='storage:bookmarks'>{others}</storage>");
            let storage = Storage::parse(text.as_bytes());
            assert_eq!(storage.map(|it| it.others.len()), is_list.then_some(count));
        }
    }
}
