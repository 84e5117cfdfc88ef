//! Bookmarks in places that were never in step, changed in any of them in any order: none, and
//! nothing that is said of one, is ever gone unless it was taken away from the place where that was
//! done; what is done is done everywhere, and what is refused nowhere.

use super::*;
use sim::{Random, for_every_seed};
use stanza::jid::BareJid;
use std::collections::{BTreeMap, BTreeSet};
use xmpp::port::{AccessModel, Node, Space, StoreOp, StoreReply};

const SEEDS: u64 = 50;
const STEPS: usize = 30;
const ROOMS: u64 = 6;

const LIST: &str = "urn:xmpp:bookmarks:1";
const ITEM: &str = "storage:bookmarks";

/// What can be said of a room in any of the places, and only in the older ones.
const FIELDS: [&str; 5] = ["name", "nick", "password", "autojoin", "extensions"];
const OLDER_FIELDS: [&str; 6] = [
    "name",
    "nick",
    "password",
    "autojoin",
    "extensions",
    "others",
];

type Said = BTreeMap<&'static str, String>;
type Rooms = BTreeMap<String, Said>;
type Names = BTreeSet<String>;

/// What is where, as storage has it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kept {
    document: Rooms,
    item: Rooms,
    list: Rooms,
    has_list: bool,
    /// Whether the nodes take part.
    is_item_converted: bool,
    is_list_converted: bool,
    /// Whether the list has room for all, and nothing but bookmarks.
    is_list_free: bool,
}

/// The rooms in an element, by their addresses.
fn rooms_in(element: &Element) -> Rooms {
    let rooms = element.children.iter();
    let rooms = rooms.filter(|it| it.name == "conference");
    rooms
        .map(|it| (it.attr("jid").to_lowercase(), said_in(it)))
        .collect()
}

fn said_in(conference: &Element) -> Said {
    let inner = |name: &str| conference.child(name);
    let mut said = Said::from([("autojoin", conference.attr("autojoin").to_owned())]);
    if let Some(name) = conference.attributes.get("name") {
        said.insert("name", name.clone());
    }
    for name in ["nick", "password"] {
        said.extend(inner(name).map(|it| (name, it.text.clone())));
    }
    let extension = inner("extensions").and_then(|it| it.child("x"));
    said.extend(extension.map(|it| ("extensions", it.attr("v").to_owned())));
    said.extend(inner("m").map(|it| ("others", it.attr("v").to_owned())));
    said
}

fn element(bytes: &[u8]) -> Element {
    let text = std::str::from_utf8(bytes).expect("it is text");
    Element::parse_client(text).expect("it is an element")
}

fn names(rooms: &Rooms) -> Names {
    rooms.keys().cloned().collect()
}

/// Those of the one that are not in the other.
fn without(rooms: &Rooms, others: &Rooms) -> Names {
    &names(rooms) - &names(others)
}

impl Kept {
    fn in_world(world: &mut World) -> Kept {
        let account = || BareJid::parse(ALICE).expect("it is an address");
        let mut kept = Kept {
            is_item_converted: true,
            is_list_converted: true,
            is_list_free: true,
            ..Kept::default()
        };
        let reply = world.perform(StoreOp::Document {
            account: account(),
            space: Space::Private,
            key: "storage storage:bookmarks".into(),
        });
        if let StoreReply::Document(Some(bytes)) = reply {
            kept.document = rooms_in(&element(&bytes));
        }
        let reply = world.perform(StoreOp::Nodes {
            account: account(),
            only: None,
        });
        let StoreReply::Nodes(nodes) = reply else {
            panic!("{reply:?}");
        };
        for node in nodes {
            let is_private = node.config.access == AccessModel::Whitelist;
            let mut said = payloads(world, &node);
            match &*node.name {
                ITEM => {
                    kept.is_item_converted = is_private && node.config.items_max == 1;
                    let last = said.pop();
                    let last = last.as_ref().and_then(|(_, item)| item.child("storage"));
                    kept.item = last.map(rooms_in).unwrap_or_default();
                }
                LIST => {
                    let count = said.len();
                    said.retain(|(_, item)| item.child("conference").is_some());
                    kept.has_list = true;
                    kept.is_list_converted = is_private && node.config.items_max > 1;
                    kept.is_list_free =
                        count == said.len() && u64::from(node.config.items_max) >= ROOMS;
                    let rooms = said.iter();
                    let rooms = rooms.map(|(id, item)| (id.clone(), said_in(&item.children[0])));
                    kept.list = rooms.collect();
                }
                _ => {}
            }
        }
        kept
    }

    fn all(&self) -> Names {
        let all = [&self.document, &self.item, &self.list];
        all.into_iter().flat_map(names).collect()
    }

    /// The places that take part.
    fn converted(&self) -> Vec<&Rooms> {
        let nodes = [
            (&self.item, self.is_item_converted),
            (&self.list, self.is_list_converted),
        ];
        let nodes = nodes.into_iter().filter(|(_, is_converted)| *is_converted);
        let nodes = nodes.map(|(rooms, _)| rooms);
        [&self.document].into_iter().chain(nodes).collect()
    }
}

/// The ids of a node's items with what these say, the oldest first.
fn payloads(world: &mut World, node: &Node) -> Vec<(String, Element)> {
    let reply = world.perform(StoreOp::Items {
        account: BareJid::parse(ALICE).expect("it is an address"),
        node: node.name.clone(),
        numbers: node.items.iter().map(|item| item.number).collect(),
    });
    let StoreReply::Items(said) = reply else {
        panic!("{reply:?}");
    };
    let ids = node.items.iter().map(|item| item.id.to_string());
    ids.zip(said.iter().map(|(_, bytes)| element(bytes)))
        .collect()
}

fn room(random: &mut Random) -> String {
    format!("r{}@b", random.below(ROOMS))
}

/// Another list than this, by one room or two.
fn edited(random: &mut Random, rooms: &Rooms) -> Rooms {
    let mut rooms = rooms.clone();
    if random.happens(700) {
        let said = rooms.entry(room(random)).or_default();
        *said = edited_room(random, said, &OLDER_FIELDS);
    }
    if random.happens(400) {
        rooms.remove(&room(random));
    }
    // Older clients know nothing of them.
    let forgets = random.happens(300);
    for said in rooms.values_mut().filter(|_| forgets) {
        said.remove("extensions");
    }
    rooms
}

fn edited_room(random: &mut Random, said: &Said, fields: &[&'static str]) -> Said {
    let mut said = said.clone();
    said.retain(|name, _| fields.contains(name));
    for _ in 0..random.below(3) {
        let field = *random.pick(fields);
        match (field, random.below(3)) {
            ("autojoin", value) => said.insert(field, (value == 0).to_string()),
            (_, 0) => said.remove(field),
            (_, value) => said.insert(field, format!("{field}{value}")),
        };
    }
    said.entry("autojoin").or_insert_with(|| "false".into());
    said
}

/// A bookmark behind the beginning of its tag.
fn rest(said: &Said) -> String {
    let mut rest = String::new();
    for name in ["name", "autojoin"] {
        rest.extend(said.get(name).map(|value| format!(" {name}='{value}'")));
    }
    rest.push('>');
    for name in ["nick", "password"] {
        rest.extend(
            said.get(name)
                .map(|value| format!("<{name}>{value}</{name}>")),
        );
    }
    rest.extend(said.get("extensions").map(|value| {
        format!("<extensions xmlns='{LIST}'><x xmlns='urn:x' v='{value}'/></extensions>")
    }));
    rest.extend(
        said.get("others")
            .map(|value| format!("<m xmlns='urn:m' v='{value}'/>")),
    );
    rest + "</conference>"
}

/// All in one element; addresses are not as they are prepared.
fn storage(rooms: &Rooms) -> String {
    let each = rooms.iter();
    let each = each.map(|(jid, said)| {
        let jid = jid.replacen('r', "R", 1);
        format!("<conference jid='{jid}'{}", rest(said))
    });
    let each: String = each.collect();
    format!("<storage xmlns='{ITEM}'>{each}</storage>")
}

fn form(random: &mut Random, kind: &str) -> String {
    let access = random.pick(&["whitelist", "whitelist", "whitelist", "open"]);
    let items_max = random.pick(&["max", "max", "3", "2", "1"]);
    format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>\
         http://jabber.org/protocol/pubsub#{kind}</value></field><field \
         var='pubsub#access_model'><value>{access}</value></field><field \
         var='pubsub#max_items'><value>{items_max}</value></field></x>"
    )
}

fn change(inner: &str) -> String {
    format!(
        "<iq type='set' id='c'><pubsub xmlns='http://jabber.org/protocol/pubsub'>{inner}</pubsub>\
         </iq>"
    )
}

/// A publication with options, or without.
fn published(random: &mut Random, node: &str, items: &[(&str, String)]) -> String {
    let options = match random.happens(500) {
        true => form(random, "publish-options"),
        false => String::new(),
    };
    let options = match options.is_empty() {
        true => options,
        false => format!("<publish-options>{options}</publish-options>"),
    };
    let items = items.iter();
    let items = items.map(|(id, payload)| format!("<item id='{id}'>{payload}</item>"));
    let items: String = items.collect();
    change(&format!(
        "<publish node='{node}'>{items}</publish>{options}"
    ))
}

/// What somebody does.
#[derive(Debug)]
enum Deed {
    /// Writes the document.
    Document(Rooms),
    /// Publishes all in one item.
    Item(Rooms),
    /// Publishes one or two in items of their own.
    Add(Rooms),
    /// Publishes something else that is called so.
    Other(String),
    Retract(String),
    /// Purges or deletes the list.
    EndList(&'static str),
    /// Purges or deletes the node of one item.
    EndItem(&'static str),
    Configure(&'static str),
    Read(&'static str),
}

impl Deed {
    /// What somebody does who has last seen these.
    fn any(random: &mut Random, seen: &Kept, now: &Kept) -> Deed {
        let known = match random.happens(700) {
            true => now,
            false => seen,
        };
        match random.below(13) {
            0 | 1 => Deed::Document(edited(random, &known.document)),
            2 | 3 => Deed::Item(edited(random, &known.item)),
            4..=6 => {
                let rooms = [room(random), room(random)].into_iter();
                let rooms = rooms.take(1 + random.below(2) as usize).map(|room| {
                    let said = known.list.get(&room).cloned().unwrap_or_default();
                    (room, edited_room(random, &said, &FIELDS))
                });
                Deed::Add(rooms.collect())
            }
            7 => Deed::Other(room(random)),
            8 => Deed::Retract(room(random)),
            9 if random.happens(300) => Deed::EndList(random.pick::<&str>(&["purge", "delete"])),
            10 if random.happens(500) => Deed::EndItem(random.pick::<&str>(&["purge", "delete"])),
            11 => Deed::Configure(random.pick::<&str>(&[LIST, ITEM])),
            _ => Deed::Read(random.pick::<&str>(&["", LIST, ITEM])),
        }
    }

    fn request(&self, random: &mut Random) -> String {
        match self {
            Deed::Document(rooms) => format!(
                "<iq type='set' id='d'><query xmlns='jabber:iq:private'>{}</query></iq>",
                storage(rooms)
            ),
            Deed::Item(rooms) => published(random, ITEM, &[("current", storage(rooms))]),
            Deed::Add(rooms) => {
                let items = rooms.iter().map(|(jid, said)| {
                    let payload = format!("<conference xmlns='{LIST}'{}", rest(said));
                    (jid.as_str(), payload)
                });
                published(random, LIST, &items.collect::<Vec<_>>())
            }
            Deed::Other(room) => {
                published(random, LIST, &[(room, "<other xmlns='urn:x'/>".into())])
            }
            Deed::Retract(room) => change(&format!(
                "<retract node='{LIST}'><item id='{room}'/></retract>"
            )),
            Deed::EndList(how) => owners(&format!("<{how} node='{LIST}'/>")),
            Deed::EndItem(how) => owners(&format!("<{how} node='{ITEM}'/>")),
            Deed::Configure(node) => {
                let form = form(random, "node_config");
                owners(&format!("<configure node='{node}'>{form}</configure>"))
            }
            Deed::Read("") => format!(
                "<iq type='get' id='k'><query xmlns='jabber:iq:private'>{}</query></iq>",
                storage(&Rooms::new())
            ),
            Deed::Read(node) => read(ALICE, node),
        }
    }

    /// The place where it is done, and what that says from now on of which rooms.
    fn there<'k>(&self, kept: &'k Kept) -> Option<(&'k Rooms, &Rooms)> {
        match self {
            Deed::Document(rooms) => Some((&kept.document, rooms)),
            Deed::Item(rooms) => Some((&kept.item, rooms)),
            Deed::Add(rooms) => Some((&kept.list, rooms)),
            _ => None,
        }
    }

    /// Which rooms are in its place no longer.
    fn gone(&self, before: &Kept, after: &Kept) -> Names {
        let left = || without(&before.list, &after.list);
        let is_converted = before.is_list_converted && after.is_list_converted;
        match self {
            Deed::Document(rooms) => without(&before.document, rooms),
            Deed::Item(rooms) => without(&before.item, rooms),
            Deed::Add(_) | Deed::Other(_) | Deed::Configure(LIST) if !is_converted => left(),
            // What is called so and is no bookmark takes none away.
            Deed::Retract(room) => &names(&before.list) & &[room.clone()].into(),
            Deed::EndList(_) => names(&before.list),
            Deed::EndItem(_) => names(&before.item),
            Deed::Add(_) | Deed::Other(_) | Deed::Configure(_) | Deed::Read(_) => Names::new(),
        }
    }

    /// Whether it is done in a place that takes part.
    fn is_converted(&self, before: &Kept, after: &Kept) -> bool {
        match self {
            Deed::Document(_) => true,
            Deed::Item(_) => before.is_item_converted && after.is_item_converted,
            Deed::Add(_) => before.is_list_converted && after.is_list_converted,
            Deed::Retract(_) | Deed::EndList(_) => before.is_list_converted,
            _ => false,
        }
    }

    /// Whether it may be refused where there is room for all.
    fn may_be(&self, answer: &str, before: &Kept) -> bool {
        match self {
            Deed::Document(_) => false,
            // Its options may not be those of the node.
            Deed::Item(_) => answer == "conflict",
            Deed::Add(rooms) if rooms.len() > 1 => matches!(answer, "conflict" | "not-allowed"),
            Deed::Add(_) => answer == "conflict",
            Deed::Retract(room) => !before.list.contains_key(room),
            Deed::EndList(_) => !before.has_list,
            _ => true,
        }
    }

    /// The places of which nothing may be lost that this does not say to be gone.
    fn keeps<'k>(&self, before: &'k Kept, after: &Kept) -> Vec<&'k Rooms> {
        let ends_list = match self {
            Deed::EndList(_) => true,
            Deed::Configure(LIST) => !after.is_list_converted,
            _ => false,
        };
        let ends_item = matches!(self, Deed::EndItem(_));
        let nodes = [
            (&before.item, before.is_item_converted && !ends_item),
            (&before.list, before.is_list_converted && !ends_list),
        ];
        let nodes = nodes.into_iter().filter(|(_, keeps)| *keeps);
        let nodes = nodes.map(|(rooms, _)| rooms);
        [&before.document].into_iter().chain(nodes).collect()
    }

    /// Whether this takes away what its place said of a room.
    fn takes(&self, room: &str, field: &str, before: &Kept) -> bool {
        let foreign = match self {
            Deed::Add(_) => "others",
            _ => "extensions",
        };
        let Some((then, now)) = self.there(before) else {
            return false;
        };
        let is_said = |rooms: &Rooms| rooms.get(room).is_some_and(|it| it.contains_key(field));
        // A list that is not there is made first, of all that there is.
        let is_made = matches!(self, Deed::Add(_)) && !before.has_list;
        let was_said = is_said(then) || is_made && before.converted().into_iter().any(is_said);
        field != foreign && now.contains_key(room) && was_said && !is_said(now)
    }
}

#[test]
fn no_bookmark_is_gone_that_was_not_taken_away_where_somebody_changed_something() {
    for_every_seed(SEEDS, play);
}

fn play(seed: u64) {
    let mut random = Random::new(seed ^ 0xb00c);
    let roomy = Limits::default();
    let limits = Limits {
        item_size_max: *random.pick(&[roomy.item_size_max, roomy.item_size_max, 300, 150]),
        nodes_max: *random.pick(&[roomy.nodes_max, roomy.nodes_max, 2, 1]),
        ..Limits::default()
    };
    let is_roomy =
        limits.item_size_max == roomy.item_size_max && limits.nodes_max == roomy.nodes_max;
    let mut world = of_alice(limits, false);
    let alice = world.log_in("alice@example.org/x");
    for _ in 0..random.below(12) {
        let kept = Kept::in_world(&mut world);
        let request = Deed::any(&mut random, &kept, &kept).request(&mut random);
        outcome(&mut world, alice, &request);
    }
    world.set(|settings| settings.converts_bookmarks = true);
    world.crash();
    world.run();
    let clients = ["alice@example.org/x", "alice@example.org/y"].map(|full| world.log_in(full));
    let mut now = Kept::in_world(&mut world);
    let mut seen = [now.clone(), now.clone()];
    for _ in 0..STEPS {
        let who = random.below(2) as usize;
        let deed = Deed::any(&mut random, &seen[who], &now);
        let request = deed.request(&mut random);
        let answer = outcome(&mut world, clients[who], &request);
        let after = Kept::in_world(&mut world);
        check(&deed, &answer, is_roomy, &now, &after);
        if matches!(deed, Deed::Read(_) | Deed::Document(_) | Deed::Item(_)) {
            seen[who] = after.clone();
        }
        now = after;
    }
    world.check_rest();
}

fn check(deed: &Deed, answer: &str, is_roomy: bool, before: &Kept, after: &Kept) {
    let said = format!("{deed:?} {answer}\n{before:#?}\n{after:#?}");
    let is_done = answer == "result";
    let gone = match is_done {
        true => deed.gone(before, after),
        false => Names::new(),
    };
    let lost = &(&before.all() - &gone) - &after.all();
    assert!(lost.is_empty(), "{lost:?} is lost: {said}");
    check_fields(deed, is_done, &gone, before, after, &said);
    let is_own = deed.is_converted(before, after);
    let is_free = |kept: &Kept| kept.is_list_free || !kept.is_list_converted;
    let has_room = is_roomy && is_free(before) && is_free(after);
    if has_room && is_own {
        assert!(is_done || deed.may_be(answer, before), "{said}");
    }
    // Who asks for a node that is not there has all put there first, whatever comes of it.
    let adopts = match deed {
        Deed::Read(_) => true,
        Deed::Add(_) | Deed::Other(_) => !before.has_list,
        _ => false,
    };
    assert!(is_done || adopts || before == after, "{said}");
    if !is_done {
        return;
    }
    if let Some((place, rooms)) = deed.there(after) {
        let missing = without(rooms, place);
        assert!(missing.is_empty(), "{said}");
        let is_everywhere = after
            .converted()
            .iter()
            .all(|place| without(rooms, place).is_empty());
        assert!(!is_own || !has_room || is_everywhere, "{said}");
    }
    // What was taken away from a place that takes part is in none that does.
    let left = after.converted().into_iter().flat_map(names).collect();
    let left = &gone & &left;
    assert!(
        !is_own || left.is_empty(),
        "{left:?} is still there: {said}"
    );
    // Who reads one of them reads all, where all have room; and all say the same.
    let is_converted = match deed {
        Deed::Read(LIST) => after.is_list_converted,
        Deed::Read(ITEM) => after.is_item_converted,
        Deed::Read(_) => true,
        _ => false,
    };
    if is_converted && has_room {
        let places = after.converted().into_iter().cloned().map(|mut rooms| {
            for said in rooms.values_mut() {
                said.retain(|name, _| !["extensions", "others"].contains(name));
            }
            rooms
        });
        let places: Vec<Rooms> = places.collect();
        assert!(places.iter().all(|place| *place == places[0]), "{said}");
    }
}

/// Nothing that is said of a room is gone, or another, unless that was done.
fn check_fields(deed: &Deed, is_done: bool, gone: &Names, before: &Kept, after: &Kept, said: &str) {
    let now = [&after.document, &after.item, &after.list];
    let is_said = |room: &str, field: &str| {
        let rooms = now.iter().filter_map(|rooms| rooms.get(room));
        rooms.into_iter().any(|said| said.contains_key(field))
    };
    for (room, fields) in deed.keeps(before, after).into_iter().flatten() {
        for field in fields.keys().filter(|_| !gone.contains(room)) {
            let takes = is_done && deed.takes(room, field, before);
            assert!(
                takes || is_said(room, field),
                "{room}'s {field} is lost: {said}"
            );
        }
    }
    let then = [&before.document, &before.item, &before.list];
    let told = deed.there(before).map(|(_, rooms)| rooms);
    let known: Vec<&Rooms> = then.into_iter().chain(told.filter(|_| is_done)).collect();
    for (room, fields) in now.into_iter().flatten() {
        for (field, value) in fields {
            let mut known = known.iter().filter_map(|rooms| rooms.get(room)?.get(field));
            assert!(
                known.any(|it| it == value),
                "{room}'s {field} is another: {said}"
            );
        }
    }
    // What was said there anew is said there.
    let there = deed.there(before).zip(deed.there(after));
    let Some(((then, _), (place, rooms))) = there.filter(|_| is_done) else {
        return;
    };
    let is_by_list = matches!(deed, Deed::Add(_));
    let is_new = |room: &str, fields: &Said| {
        let plain = |mut said: Said| {
            said.retain(|name, _| is_by_list || *name != "extensions");
            said
        };
        let before = then.get(room).cloned();
        before.is_none_or(|before| plain(before) != plain(fields.clone()))
    };
    for (room, fields) in rooms.iter().filter(|(room, fields)| is_new(room, fields)) {
        for (field, value) in fields {
            let now = place.get(room).and_then(|said| said.get(field));
            let is_elsewhere = *field == "extensions" && !is_by_list;
            assert!(
                is_elsewhere || now == Some(value),
                "{room}'s {field}: {said}"
            );
        }
    }
}
