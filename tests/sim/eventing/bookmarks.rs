//! What becomes of bookmarks where they are converted (XEP-0402, XEP-0411), and where not.

use super::*;

const LIST: &str = "urn:xmpp:bookmarks:1";
const STORAGE: &str = "storage:bookmarks";

/// The form of a list of its owner's alone.
fn form(kind: &str, items_max: &str) -> String {
    format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>\
         http://jabber.org/protocol/pubsub#{kind}</value></field><field \
         var='pubsub#max_items'><value>{items_max}</value></field><field \
         var='pubsub#access_model'><value>whitelist</value></field></x>"
    )
}

fn publish_room(room: &str, payload: &str, items_max: &str) -> String {
    let options = form("publish-options", items_max);
    format!(
        "<iq type='set' id='p'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <publish node='{LIST}'><item id='{room}'>{payload}</item></publish>\
         <publish-options>{options}</publish-options></pubsub></iq>"
    )
}

/// A client of an account with these rooms in its list.
fn at_list(rooms: &[&str], items_max: &str) -> (World, ClientId) {
    let mut world = of_alice(Limits::default(), true);
    let alice = world.log_in("alice@example.org/x");
    for room in rooms {
        let published = publish_room(room, CONFERENCE, items_max);
        assert_eq!(outcome(&mut world, alice, &published), "result");
    }
    (world, alice)
}

const CONFERENCE: &str = "<conference xmlns='urn:xmpp:bookmarks:1'/>";
const DOCUMENT: &str = "<iq type='get' id='k'><query xmlns='jabber:iq:private'>\
                        <storage xmlns='storage:bookmarks'/></query></iq>";

/// What private storage has.
fn document(world: &mut World, client: ClientId) -> Vec<Element> {
    rooms_of(&ask(world, client, DOCUMENT))
}

fn rooms_of(answers: &[Element]) -> Vec<Element> {
    let mut answers = answers.iter();
    let storage = answers.find_map(|it| it.child("query")?.child("storage"));
    storage.expect("an element is there").children.clone()
}

/// A document of these.
fn stored(rooms: &str) -> String {
    format!(
        "<iq type='set' id='s'><query xmlns='jabber:iq:private'><storage \
         xmlns='{STORAGE}'>{rooms}</storage></query></iq>"
    )
}

/// From now on all are one list.
fn converting(world: &mut World) -> ClientId {
    world.set(|settings| settings.converts_bookmarks = true);
    world.crash();
    world.run();
    world.log_in("alice@example.org/x")
}

fn rooms(world: &mut World, client: ClientId) -> Vec<String> {
    let rooms = document(world, client);
    let mut rooms: Vec<String> = rooms.iter().map(|it| it.attr("jid").to_owned()).collect();
    rooms.sort();
    rooms
}

fn list(world: &mut World, client: ClientId) -> Vec<String> {
    let mut list = items_of(world, client, ALICE, LIST);
    list.sort();
    list
}

#[test]
fn a_full_list_takes_no_further_bookmark_and_loses_none() {
    let (mut world, alice) = at_list(&["a@b", "c@d"], "2");
    let refused = outcome(&mut world, alice, &publish_room("e@f", CONFERENCE, "2"));
    assert_eq!(refused, "resource-constraint");
    assert_eq!(rooms(&mut world, alice), ["a@b", "c@d"]);
    assert_eq!(list(&mut world, alice), ["a@b", "c@d"]);
}

#[test]
fn a_list_that_is_to_be_shorter_takes_no_bookmark_away() {
    let (mut world, alice) = at_list(&["a@b", "c@d", "e@f"], "max");
    let form = form("node_config", "2");
    let shorter = owners(&format!("<configure node='{LIST}'>{form}</configure>"));
    assert_eq!(outcome(&mut world, alice, &shorter), "result");
    assert_eq!(rooms(&mut world, alice), ["a@b", "c@d", "e@f"]);
    assert_eq!(list(&mut world, alice), ["c@d", "e@f"]);
    // What is taken away by name is, and then there is room for the rest.
    let retracted = format!(
        "<iq type='set' id='r'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <retract node='{LIST}'><item id='c@d'/></retract></pubsub></iq>"
    );
    assert_eq!(outcome(&mut world, alice, &retracted), "result");
    assert_eq!(rooms(&mut world, alice), ["a@b", "e@f"]);
    assert_eq!(list(&mut world, alice), ["a@b", "e@f"]);
    let purged = owners(&format!("<purge node='{LIST}'/>"));
    assert_eq!(outcome(&mut world, alice, &purged), "result");
    assert_eq!(rooms(&mut world, alice), [""; 0]);
}

#[test]
fn what_is_called_like_a_room_and_is_no_bookmark_is_neither_taken_for_one_nor_replaced() {
    let (mut world, alice) = at_list(&["a@b", "c@d"], "max");
    let other = publish_room("a@b", "<other xmlns='urn:x'/>", "max");
    assert_eq!(outcome(&mut world, alice, &other), "result");
    assert_eq!(rooms(&mut world, alice), ["a@b", "c@d"]);
    let answers = ask(&mut world, alice, &read(ALICE, LIST));
    let items = answers
        .iter()
        .find_map(|it| it.child("pubsub")?.child("items"));
    let items = items.expect("items are there").children.iter();
    let mut said: Vec<_> = items
        .map(|item| (item.attr("id"), item.children[0].name.as_str()))
        .collect();
    said.sort();
    assert_eq!(said, [("a@b", "other"), ("c@d", "conference")]);
}

/// Older clients do not know of extensions: they are kept where they are of use, and only there.
#[test]
fn extensions_are_in_the_list_alone_and_go_with_an_item_that_has_none() {
    let whole = "<conference xmlns='urn:xmpp:bookmarks:1' name='A'><extensions>\
                 <x xmlns='urn:x'/></extensions></conference>";
    let (mut world, alice) = at_list(&[], "max");
    let rename = "<iq type='set' id='s'><query xmlns='jabber:iq:private'>\
                  <storage xmlns='storage:bookmarks'><conference jid='a@b' name='B'/></storage>\
                  </query></iq>";
    for (payload, count) in [(whole, 1), (CONFERENCE, 0)] {
        let published = publish_room("a@b", payload, "max");
        assert_eq!(outcome(&mut world, alice, &published), "result");
        for _ in 0..2 {
            let room = document(&mut world, alice).remove(0);
            assert_eq!(room.children.len(), 0, "{room:?}");
            let answers = ask(&mut world, alice, &read(ALICE, LIST));
            let found = answers
                .iter()
                .find_map(|it| it.child("pubsub")?.child("items"));
            let item = &found.expect("items are there").children[0];
            assert_eq!(item.children[0].children.len(), count, "{item:?}");
            assert_eq!(outcome(&mut world, alice, rename), "result");
        }
    }
}

/// What one place says of a room and another does not is not lost because that is read.
#[test]
fn what_only_one_place_says_of_a_room_is_said_in_all() {
    let mut world = of_alice(Limits::default(), false);
    let alice = world.log_in("alice@example.org/x");
    let whole = "<conference jid='A@b' name='A'><nick>x</nick><password>y</password></conference>";
    assert_eq!(outcome(&mut world, alice, &stored(whole)), "result");
    let published = publish_room("a@b", CONFERENCE, "max");
    assert_eq!(outcome(&mut world, alice, &published), "result");
    let alice = converting(&mut world);
    for _ in 0..2 {
        let room = document(&mut world, alice).remove(0);
        assert_eq!((room.attr("jid"), room.attr("name")), ("A@b", "A"));
        let said: Vec<&str> = room.children.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(said, ["x", "y"]);
        let answers = ask(&mut world, alice, &read(ALICE, LIST));
        let text = answers
            .iter()
            .map(|it| String::from_utf8_lossy(&it.raw).into_owned());
        assert!(text.collect::<String>().contains("name='A'"));
    }
}

/// Has a node, with what is published to it, where nothing is converted, and is told of it when
/// that has changed.
fn subscribed(published: &str, node: &str, stored: &str) -> (World, ClientId) {
    let mut world = of_alice(Limits::default(), false);
    let alice = world.log_in("alice@example.org/x");
    let subscribe = format!(
        "<iq type='set' id='u'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <subscribe node='{node}' jid='{ALICE}'/></pubsub></iq>"
    );
    for request in [published, &subscribe, stored] {
        assert_eq!(outcome(&mut world, alice, request), "result");
    }
    let alice = converting(&mut world);
    world.tell(alice, "<presence/>");
    world.received(alice);
    (world, alice)
}

/// A client is told of all of them, in as many events as can be read.
#[test]
fn many_bookmarks_that_come_at_once_are_told() {
    const COUNT: usize = 500;
    let rooms = (0..COUNT).map(|number| format!("<conference jid='r{number}@b'/>"));
    let stored = stored(&rooms.collect::<String>());
    let first = publish_room("a@b", CONFERENCE, "max");
    let (mut world, alice) = subscribed(&first, LIST, &stored);
    let answers = ask(&mut world, alice, DOCUMENT);
    let told = answers.iter().filter(|it| it.child("event").is_some());
    let told: Vec<usize> = told.map(|message| items(message).len()).collect();
    assert!(told.len() > 1, "{told:?}");
    assert_eq!(told.iter().sum::<usize>(), COUNT);
    assert_eq!(rooms_of(&answers).len(), COUNT + 1);
}

/// A client that follows bookmarks in one item hears once of what it publishes there, and of all.
#[test]
fn what_is_published_in_one_item_is_told_with_what_the_others_have() {
    let all = format!("<storage xmlns='{STORAGE}'><conference jid='c@d'/></storage>");
    let published = publish_room("current", &all, "1").replace(LIST, STORAGE);
    let stored = stored("<conference jid='a@b'/>");
    let (mut world, alice) = subscribed(&published, STORAGE, &stored);
    let answers = ask(&mut world, alice, &published);
    let told = answers.iter().filter(|it| it.child("event").is_some());
    let told: Vec<_> = told.map(|it| String::from_utf8_lossy(&it.raw)).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("a@b") && told[0].contains("c@d"),
        "{told:?}"
    );
}

/// A list that is longer than the older places may be is edited all the same.
#[test]
fn a_room_is_changed_where_not_all_places_have_room_and_a_new_one_is_not_put_there() {
    let limits = Limits {
        item_size_max: 1_024,
        ..Limits::default()
    };
    let mut world = of_alice(limits, false);
    let alice = world.log_in("alice@example.org/x");
    let name = "x".repeat(400);
    let named = |name: &str| format!("<conference xmlns='{LIST}' name='{name}'/>");
    for room in ["a@b", "c@d", "e@f", "g@h"] {
        let published = publish_room(room, &named(&name), "max");
        assert_eq!(outcome(&mut world, alice, &published), "result");
    }
    let set = stored("<conference jid='a@b' name='A'/>");
    assert_eq!(outcome(&mut world, alice, &set), "result");
    let alice = converting(&mut world);
    for (room, expected) in [
        ("a@b", "result"),
        ("c@d", "result"),
        ("i@j", "resource-constraint"),
    ] {
        let published = publish_room(room, &named("B"), "max");
        assert_eq!(outcome(&mut world, alice, &published), expected, "{room}");
        let found = document(&mut world, alice);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].attr("name"), "B");
    }
    assert_eq!(list(&mut world, alice), ["a@b", "c@d", "e@f", "g@h"]);
}

/// A node that has several items says nothing of what was taken away by its last one.
#[test]
fn several_items_where_one_has_all_take_no_part() {
    let (mut world, alice) = at_list(&[], "max");
    for (id, room) in [("a", "a@b"), ("b", "c@d")] {
        let all = format!("<storage xmlns='{STORAGE}'><conference jid='{room}'/></storage>");
        let published = publish_room(id, &all, "max").replace(LIST, STORAGE);
        assert_eq!(outcome(&mut world, alice, &published), "result");
        assert_eq!(rooms(&mut world, alice), [""; 0]);
    }
}

/// What was kept apart before is not taken away by a client that has not read it.
#[test]
fn all_in_one_item_that_nobody_had_read_takes_none_of_the_others_away() {
    let mut world = of_alice(Limits::default(), false);
    let alice = world.log_in("alice@example.org/x");
    let set = stored("<conference jid='a@b'/>");
    assert_eq!(outcome(&mut world, alice, &set), "result");
    let alice = converting(&mut world);
    let all = "<storage xmlns='storage:bookmarks'><conference jid='c@d'/></storage>";
    let published = publish_room("current", all, "1").replace(LIST, STORAGE);
    assert_eq!(outcome(&mut world, alice, &published), "result");
    assert_eq!(rooms(&mut world, alice), ["a@b", "c@d"]);
    assert_eq!(list(&mut world, alice), ["a@b", "c@d"]);
}

/// Who converts nothing has a document read and written as any other.
#[test]
fn a_document_of_bookmarks_waits_for_nodes_only_where_they_have_them() {
    for (mut world, waits) in [
        (of_alice(Limits::default(), true), true),
        (of_alice(Limits::default(), false), false),
    ] {
        let alice = world.log_in("alice@example.org/x");
        assert_eq!(
            outcome(&mut world, alice, &publish("n", "1", "x")),
            "result"
        );
        let set = DOCUMENT.replace("type='get' id='k'", "type='set' id='s'");
        for asked in [&set, DOCUMENT] {
            assert_eq!(job_peak(&mut world, alice, asked) > 0, waits, "{asked}");
        }
    }
}

#[test]
fn a_card_waits_for_nodes_only_where_there_are_some() {
    let none = Limits {
        nodes_max: 0,
        ..Limits::default()
    };
    for (limits, waits) in [(Limits::default(), true), (none, false)] {
        let mut world = world_with(limits, &["alice"]);
        let alice = world.log_in("alice@example.org/x");
        let card = "<iq type='set' id='v'><vCard xmlns='vcard-temp'/></iq>";
        assert_eq!(job_peak(&mut world, alice, card) > 0, waits);
    }
}

/// How many jobs an account's nodes have at most while a request is answered.
fn job_peak(world: &mut World, client: ClientId, text: &str) -> usize {
    world.received(client);
    world.faults.disk_us = (5_000, 5_000);
    world.send(client, text);
    let mut peak = 0;
    for _ in 0..20 {
        world.run_for(1);
        let count = world.shards().map(|shard| shard.node_request_count()).sum();
        peak = peak.max(count);
    }
    world.run();
    assert_eq!(world.received(client).len(), 1);
    peak
}
