//! Copies of messages for a user's other devices (XEP-0280): of what, for whom, and what becomes of
//! them where a session is lost or ends.

use sim::steps::{counted, errors, message};
use sim::{ClientId, Element, Faults, World};
use stanza::frame::DEPTH_MAX;
use xmpp::Settings;
use xmpp::limit::LOAD_QUEUE_MAX;
use xmpp::xep::carbons::ANSWERABLE_MAX;

const ENABLE: &str = "<iq type='set' id='e'><enable xmlns='urn:xmpp:carbons:2'/></iq>";
const DISABLE: &str = "<iq type='set' id='d'><disable xmlns='urn:xmpp:carbons:2'/></iq>";
const LOW: &str = "<presence><priority>-1</priority></presence>";
const DESK: &str = "alice@example.org/desk";
const PHONE: &str = "alice@example.org/phone";

/// A client that has bound `full` and asked for copies.
fn copied(world: &mut World, full: &str) -> ClientId {
    let client = world.log_in(full);
    world.tell(client, ENABLE);
    world.received(client);
    client
}

/// The same, managed, and the session's id; how many stanzas it has had.
fn copied_managed(world: &mut World, full: &str) -> (ClientId, String, u32) {
    let (client, id) = world.log_in_managed(full);
    world.tell(client, ENABLE);
    let had = counted(&world.received(client));
    (client, id, had)
}

/// The message that a copy holds, and whether it was sent or received.
fn inside(copy: &Element) -> Option<(&str, &Element)> {
    let wrapper = copy
        .children
        .iter()
        .find(|it| it.ns == "urn:xmpp:carbons:2");
    let wrapper = wrapper.filter(|_| !copy.attr("from").contains('/'))?;
    let forwarded = wrapper.child("forwarded")?;
    assert_eq!(forwarded.ns, "urn:xmpp:forward:0");
    Some((&wrapper.name, forwarded.child("message")?))
}

/// Messages as they came, in short: `id` for one, `sent id` and `received id` for copies.
fn brief(received: &[Element]) -> Vec<String> {
    let messages = received.iter().filter(|it| it.name == "message");
    let each = messages.map(|it| match inside(it) {
        Some((direction, message)) => format!("{direction} {}", message.attr("id")),
        None => it.attr("id").to_owned(),
    });
    each.collect()
}

fn came(world: &mut World, client: ClientId) -> Vec<String> {
    brief(&world.received(client))
}

fn nothing() -> Vec<String> {
    Vec::new()
}

/// Alice's desk and phone, which asked for copies, and bob.
fn scene(shards: u16) -> (World, ClientId, ClientId, ClientId) {
    let mut world = World::of_three(3, shards);
    let desk = world.arrive(DESK);
    let phone = copied(&mut world, PHONE);
    let bob = copied(&mut world, "bob@example.org/b");
    world.received(desk);
    (world, desk, phone, bob)
}

/// What may be said, and whether it is copied where it is sent and where it is received.
#[rustfmt::skip]
const RULES: &[(&str, &str, bool, bool)] = &[
    ("chat", "<body>x</body>", true, true),
    ("chat", "<x xmlns='urn:x'/>", true, true),
    ("", "<body>x</body>", true, true),
    ("", "<x xmlns='urn:x'/>", false, false),
    ("unheard-of", "<body>x</body>", true, true),
    ("headline", "<body>x</body>", false, false),
    ("groupchat", "<body>x</body>", false, false),
    ("groupchat", "<received xmlns='urn:xmpp:receipts' id='1'/>", false, false),
    ("", "<received xmlns='urn:xmpp:receipts' id='1'/>", true, true),
    ("", "<composing xmlns='http://jabber.org/protocol/chatstates'/>", true, true),
    ("", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>", true, true),
    ("headline", "<active xmlns='http://jabber.org/protocol/chatstates'/>", true, true),
    ("", "<x xmlns='jabber:x:conference' jid='r@example.org'/>", true, true),
    ("", "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='a@b'/></x>", true, true),
    ("chat", "<body>x</body><x xmlns='http://jabber.org/protocol/muc#user'/>", true, false),
    ("chat", "<body>x</body><private xmlns='urn:xmpp:carbons:2'/>", false, false),
    ("chat", "<body>x</body><no-copy xmlns='urn:xmpp:hints'/>", false, false),
    ("chat", "<body>x</body><no-store xmlns='urn:xmpp:hints'/>", true, true),
    ("error", "<body>x</body><error type='cancel'><gone \
        xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>", false, false),
];

/// XEP-0280 6.1.
#[test]
fn what_is_copied_is_what_the_rules_say() {
    for shards in [1, 2] {
        let (mut world, desk, phone, bob) = scene(shards);
        let other = copied(&mut world, "bob@example.org/other");
        for (number, (type_, payload, is_sent, is_received)) in RULES.iter().enumerate() {
            let to = "bob@example.org/b";
            let text =
                format!("<message to='{to}' type='{type_}' id='{number}'>{payload}</message>");
            let text = text.replace("type='' ", "");
            world.tell(desk, &text);
            assert_eq!(came(&mut world, bob), [number.to_string()], "{text}");
            let sent = world.received(phone);
            let expected = is_sent.then(|| format!("sent {number}"));
            assert_eq!(brief(&sent), Vec::from_iter(expected), "{text}");
            let received = world.received(other);
            let expected = is_received.then(|| format!("received {number}"));
            assert_eq!(brief(&received), Vec::from_iter(expected), "{text}");
            for (copy, own) in [(&sent, "alice"), (&received, "bob")] {
                let Some(copy) = copy.first() else { continue };
                assert_eq!(copy.attr("from"), format!("{own}@example.org"));
                let kept = if *type_ == "unheard-of" { "" } else { type_ };
                assert_eq!(copy.attr("type"), kept);
            }
        }
        assert!(came(&mut world, desk).is_empty());
    }
}

#[test]
fn every_resource_gets_a_message_once_whatever_its_presence_is() {
    let mut world = World::of_three(3, 2);
    let alice = world.arrive(DESK);
    let names = ["high", "zero", "low", "silent", "without"];
    let bob: Vec<ClientId> = names
        .iter()
        .map(|name| world.log_in(&format!("bob@example.org/{name}")))
        .collect();
    let presences = ["<presence/>", "<presence/>", LOW, "", "<presence/>"];
    for (client, presence) in bob.iter().zip(presences) {
        world.tell(*client, presence);
    }
    for client in &bob[..4] {
        world.tell(*client, ENABLE);
    }
    for client in &bob {
        world.received(*client);
    }
    for (to, takers) in [
        ("bob@example.org", &[0, 1, 4][..]),
        ("bob@example.org/zero", &[1]),
        ("bob@example.org/low", &[2]),
        ("bob@example.org/silent", &[3]),
        ("bob@example.org/without", &[4]),
        // As to the bare JID (RFC 6121 8.5.3.2.1).
        ("bob@example.org/gone", &[0, 1, 4]),
    ] {
        world.tell(alice, &message("chat", to, "m"));
        for (index, client) in bob.iter().enumerate() {
            let expected = match (takers.contains(&index), index < 4) {
                (true, _) => vec!["m"],
                (false, true) => vec!["received m"],
                (false, false) => vec![],
            };
            let came = came(&mut world, *client);
            assert_eq!(came, expected, "{} of {to}", names[index]);
        }
    }
}

#[test]
fn what_waits_offline_waits_as_ever_and_who_takes_nothing_has_a_copy() {
    let mut world = World::of_three(3, 2);
    let alice = world.arrive(DESK);
    let low = copied(&mut world, "bob@example.org/low");
    world.tell(low, LOW);
    world.received(low);
    world.tell(alice, &message("chat", "bob@example.org", "1"));
    assert_eq!(came(&mut world, low), ["received 1"]);
    // What must not wait bounces, and then nobody has it.
    let hint = "<no-store xmlns='urn:xmpp:hints'/></message>";
    let moment = message("chat", "bob@example.org", "2").replace("</message>", hint);
    world.tell(alice, &moment);
    let received = world.received(alice);
    assert_eq!(errors(&received), [("2", "service-unavailable")]);
    // As what is for a resource that is gone, where it is no chat.
    world.tell(alice, &message("normal", "bob@example.org/gone", "3"));
    let received = world.received(alice);
    assert_eq!(errors(&received), [("3", "service-unavailable")]);
    assert_eq!(came(&mut world, low), nothing());
    let other = world.arrive("bob@example.org/other");
    assert_eq!(came(&mut world, other), ["1"]);
}

#[test]
fn what_is_for_oneself_comes_once_to_each_device() {
    let mut world = World::of_three(3, 2);
    let desk = copied(&mut world, DESK);
    let phone = copied(&mut world, PHONE);
    let tablet = copied(&mut world, "alice@example.org/tablet");
    for client in [desk, phone] {
        world.tell(client, "<presence/>");
    }
    for client in [desk, phone, tablet] {
        world.received(client);
    }
    world.tell(desk, &message("chat", "alice@example.org", "1"));
    world.tell(desk, &message("chat", PHONE, "2"));
    assert_eq!(came(&mut world, desk), ["1"]);
    assert_eq!(came(&mut world, phone), ["1", "2"]);
    assert_eq!(came(&mut world, tablet), ["sent 1", "sent 2"]);
}

/// The message that it answers was copied, so that the others know that it failed.
#[test]
fn an_error_is_copied_where_the_message_was_and_as_long_as_that_is_remembered() {
    let (mut world, desk, phone, _) = scene(2);
    let say = |world: &mut World, type_: &str, id: &str| {
        world.tell(desk, &message(type_, "nobody@example.org", id));
        let received = world.received(desk);
        assert_eq!(errors(&received), [(id, "service-unavailable")]);
        came(world, phone)
    };
    assert_eq!(say(&mut world, "chat", "1"), ["sent 1", "received 1"]);
    assert_eq!(say(&mut world, "groupchat", "2"), nothing());
    let bob = world.log_in("bob@example.org/c");
    let error = |id: &str| {
        let gone = "<gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>";
        let error = format!("<error type='cancel'>{gone}</error>");
        format!("<message to='{DESK}' type='error' id='{id}'>{error}</message>")
    };
    for id in 0..=ANSWERABLE_MAX {
        let id = id.to_string();
        world.tell(desk, &message("chat", "bob@example.org/c", &id));
        assert_eq!(came(&mut world, phone), [format!("sent {id}")]);
    }
    for (id, is_copied) in [(0, false), (1, true), (ANSWERABLE_MAX, true)] {
        world.tell(bob, &error(&id.to_string()));
        assert_eq!(came(&mut world, desk), [id.to_string()]);
        let copy = is_copied.then(|| format!("received {id}"));
        assert_eq!(came(&mut world, phone), Vec::from_iter(copy));
    }
    // The one that said it is gone; the others hear of it all the same.
    world.leave(desk);
    world.run();
    world.tell(bob, &error("1"));
    assert_eq!(came(&mut world, phone), ["received 1"]);
}

#[test]
fn what_the_server_refuses_at_once_is_not_copied() {
    let (mut world, desk, phone, _) = scene(1);
    let block = "<block xmlns='urn:xmpp:blocking'><item jid='carl@example.org'/></block>";
    world.tell(desk, &format!("<iq type='set' id='b'>{block}</iq>"));
    world.received(desk);
    for to in [
        "a@remote.example",
        "example.org",
        "a@@b",
        "carl@example.org",
    ] {
        world.tell(desk, &message("chat", to, "m"));
        assert_eq!(errors(&world.received(desk)).len(), 1, "{to}");
        assert_eq!(came(&mut world, phone), nothing(), "{to}");
    }
}

#[test]
fn what_a_blocked_sender_says_is_not_copied() {
    let (mut world, desk, phone, bob) = scene(2);
    let block = "<block xmlns='urn:xmpp:blocking'><item jid='bob@example.org'/></block>";
    world.tell(desk, &format!("<iq type='set' id='b'>{block}</iq>"));
    world.tell(bob, &message("chat", DESK, "m"));
    assert_eq!(came(&mut world, phone), nothing());
}

#[test]
fn who_logs_in_anew_has_to_ask_anew() {
    let (mut world, desk, phone, _) = scene(1);
    world.leave(phone);
    world.run();
    let phone = world.log_in(PHONE);
    world.tell(desk, &message("chat", "bob@example.org/b", "m"));
    assert_eq!(came(&mut world, phone), nothing());
}

#[test]
fn a_session_gets_copies_after_its_client_was_away_and_of_what_came_meanwhile() {
    for crashes in [false, true] {
        let mut world = World::of_three(3, 2);
        let (desk, ..) = copied_managed(&mut world, DESK);
        let (phone, session, had) = copied_managed(&mut world, PHONE);
        let bob = world.arrive("bob@example.org/b");
        world.vanish(phone);
        world.run();
        world.tell(desk, &message("chat", "bob@example.org/b", "1"));
        world.tell(bob, &message("chat", DESK, "2"));
        assert_eq!(came(&mut world, desk), ["2"]);
        let (mut desk, mut bob) = (desk, bob);
        if crashes {
            world.crash();
            world.run();
            desk = world.log_in(DESK);
            bob = world.arrive("bob@example.org/b");
        }
        let phone = world.resume(PHONE, &session, had);
        let received = world.received(phone);
        assert_eq!(brief(&received), ["sent 1", "received 2"], "{crashes}");
        // XEP-0203 3: it says since when.
        let late = received.iter().filter(|it| it.child("delay").is_some());
        assert_eq!(late.count(), 2);
        world.tell(desk, &message("chat", "bob@example.org/b", "3"));
        world.tell(bob, &message("chat", DESK, "4"));
        assert_eq!(came(&mut world, phone), ["sent 3", "received 4"]);
        // Nor is it forgotten that it wants no more.
        world.tell(phone, DISABLE);
        let had = had + 5;
        world.crash();
        world.run();
        world.received(phone);
        let phone = world.resume(PHONE, &session, had);
        world.received(phone);
        let bob = world.log_in("bob@example.org/c");
        world.tell(bob, &message("chat", DESK, "5"));
        assert_eq!(came(&mut world, phone), nothing());
    }
}

/// Its client may not have heard that the server has it.
#[test]
fn a_message_that_comes_again_after_a_crash_is_not_copied_again() {
    let mut world = World::of_three(3, 2);
    let (desk, id) = world.log_in_managed(DESK);
    let (phone, session, had) = copied_managed(&mut world, PHONE);
    let (bob, of_bob) = world.log_in_managed("bob@example.org/b");
    let text = message("chat", "bob@example.org/b", "1");
    world.tell(desk, &text);
    for client in [phone, bob, desk] {
        world.received(client);
    }
    world.crash();
    world.run();
    let desk = world.resume(DESK, &id, 0);
    assert_eq!(world.client(desk).resumed, Some(0));
    let phone = world.resume(PHONE, &session, had);
    let bob = world.resume("bob@example.org/b", &of_bob, 0);
    assert_eq!(
        came(&mut world, phone),
        ["sent 1"],
        "it did not say that it has it"
    );
    assert_eq!(came(&mut world, bob), ["1"]);
    world.tell(desk, &text);
    world.tell(desk, &message("chat", "bob@example.org/b", "2"));
    assert_eq!(came(&mut world, phone), ["sent 2"]);
    assert_eq!(came(&mut world, bob), ["2"]);
}

/// What the desk was given, and did not take, is with the phone.
#[test]
fn a_message_is_not_passed_on_by_a_session_that_ends_while_another_has_a_copy() {
    for crashes in [false, true] {
        let mut world = World::of_three(3, 1);
        let bob = world.arrive("bob@example.org/b");
        let (desk, _) = world.log_in_managed(DESK);
        world.tell(desk, "<presence/>");
        let (phone, session, had) = copied_managed(&mut world, PHONE);
        world.vanish(desk);
        world.run();
        world.tell(bob, &message("chat", DESK, "1"));
        let came_first = came(&mut world, phone);
        assert_eq!(came_first, ["received 1"]);
        let had = had + 1;
        let mut phone = phone;
        if crashes {
            world.crash();
            world.run();
            phone = world.resume(PHONE, &session, had);
        }
        world.tell(phone, "<presence/>");
        // So much later nobody has come back to the desk.
        world.run_for(400_000);
        assert_eq!(came(&mut world, phone), nothing());
        let tablet = world.arrive("alice@example.org/tablet");
        assert_eq!(came(&mut world, tablet), nothing(), "nor does it wait");
    }
}

#[test]
fn a_message_that_only_copies_are_left_of_is_not_lost() {
    for crashes in [false, true] {
        let mut world = World::of_three(3, 1);
        let bob = world.arrive("bob@example.org/b");
        let (desk, _) = world.log_in_managed(DESK);
        let (phone, ..) = copied_managed(&mut world, PHONE);
        for client in [desk, phone] {
            world.vanish(client);
        }
        world.run();
        world.tell(bob, &message("chat", DESK, "1"));
        // What is for others only is dropped.
        let tablet = world.log_in("alice@example.org/tablet");
        world.tell(tablet, &message("chat", "bob@example.org/b", "2"));
        world.leave(tablet);
        world.run();
        if crashes {
            world.crash();
            world.run();
            world.arrive("bob@example.org/b");
        }
        world.run_for(400_000);
        let late = world.arrive("alice@example.org/late");
        let received = world.received(late);
        assert_eq!(brief(&received), ["1"], "{crashes}");
        let one = received.iter().find(|it| it.name == "message").unwrap();
        assert_eq!(
            (one.attr("to"), &*one.child("body").unwrap().text),
            (DESK, "1")
        );
        assert!(one.child("delay").is_some());
    }
}

/// What a new client of alice's finds when nobody has come back to her sessions for so long.
fn left(world: &mut World, crashes: bool) -> Vec<String> {
    if crashes {
        world.crash();
        world.run();
        world.arrive("bob@example.org/b");
    }
    world.run_for(400_000);
    let late = world.arrive("alice@example.org/late");
    came(world, late)
}

/// It waits once, whatever becomes of the session that has a copy.
#[test]
fn what_is_said_to_oneself_and_waits_is_told_once() {
    for crashes in [false, true] {
        let mut world = World::of_three(3, 1);
        let desk = world.log_in(DESK);
        let (phone, ..) = copied_managed(&mut world, PHONE);
        world.vanish(phone);
        world.run();
        world.tell(desk, &message("chat", "alice@example.org", "1"));
        world.leave(desk);
        world.run();
        assert_eq!(left(&mut world, crashes), ["1"], "{crashes}");
    }
}

/// A copy has the message three levels further down.
#[test]
fn the_deepest_message_is_copied_and_left_as_any_other() {
    let deepest = |id: &str| {
        let levels = usize::from(DEPTH_MAX) - 1;
        let (open, close) = ("<x xmlns='urn:x'>".repeat(levels), "</x>".repeat(levels));
        format!("<message type='chat' to='{DESK}' id='{id}'>{open}{close}</message>")
    };
    for crashes in [false, true] {
        let mut world = World::of_three(3, 1);
        let bob = world.arrive("bob@example.org/b");
        let (desk, _) = world.log_in_managed(DESK);
        let (phone, ..) = copied_managed(&mut world, PHONE);
        for client in [desk, phone] {
            world.vanish(client);
        }
        world.run();
        world.tell(bob, &deepest("1"));
        assert_eq!(left(&mut world, crashes), ["1"], "{crashes}");
    }
}

#[test]
fn copies_that_storage_refuses_come_all_the_same_and_nobody_hears_of_it() {
    let mut world = World::of_three(3, 1);
    let desk = world.log_in(DESK);
    let (phone, ..) = copied_managed(&mut world, PHONE);
    let bob = world.arrive("bob@example.org/b");
    world.faults.disk_full = true;
    world.tell(desk, &message("chat", "bob@example.org/b", "1"));
    assert_eq!(came(&mut world, phone), ["sent 1"]);
    assert_eq!(came(&mut world, desk), nothing());
    assert_eq!(came(&mut world, bob), ["1"]);
    world.tell(bob, &message("chat", DESK, "2"));
    assert_eq!(came(&mut world, phone), ["received 2"]);
    assert_eq!(came(&mut world, desk), ["2"]);
    assert_eq!(came(&mut world, bob), nothing());
}

/// Its sender hears that nobody has it, and nobody does.
#[test]
fn a_message_that_storage_refuses_is_not_copied() {
    let mut world = World::of_three(3, 1);
    let (desk, _) = world.log_in_managed(DESK);
    let (phone, ..) = copied_managed(&mut world, PHONE);
    let bob = world.arrive("bob@example.org/b");
    world.received(bob);
    world.faults.disk_full = true;
    world.tell(bob, &message("chat", DESK, "1"));
    let received = world.received(bob);
    assert_eq!(errors(&received), [("1", "internal-server-error")]);
    assert_eq!(errors(&received).len(), counted(&received) as usize);
    for client in [desk, phone] {
        assert_eq!(came(&mut world, client), nothing());
    }
}

/// They line up behind what waits, of which there may be so much.
#[test]
fn copies_do_not_overtake_what_is_on_its_way_from_storage_and_have_a_limit() {
    let mut world = World::of_three(3, 1);
    let (bob, carl) = (
        world.arrive("bob@example.org/b"),
        world.log_in("carl@example.org/c"),
    );
    world.tell(carl, &message("chat", "alice@example.org", "0"));
    let desk = world.log_in(DESK);
    let (phone, ..) = copied_managed(&mut world, PHONE);
    world.faults.disk_us = (1_000_000, 1_000_000);
    world.send(phone, "<presence/>");
    world.run_for(100);
    for number in 0..=LOAD_QUEUE_MAX {
        world.send(
            desk,
            &message("chat", "bob@example.org/b", &number.to_string()),
        );
    }
    world.run();
    let received = came(&mut world, phone);
    assert_eq!(received[0], "0");
    let copies = (0..LOAD_QUEUE_MAX).map(|number| format!("sent {number}"));
    assert_eq!(received[1..], copies.collect::<Vec<String>>());
    assert_eq!(came(&mut world, bob).len(), LOAD_QUEUE_MAX + 1);
    assert_eq!(came(&mut world, desk), nothing(), "nobody hears of copies");
}

/// As of any other stanza.
#[test]
fn a_session_that_acknowledges_no_copies_ends_and_the_others_go_on() {
    let mut world = World::new(3, Settings::for_tests("example.org"), Faults::calm());
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    let desk = world.log_in(DESK);
    let (phone, ..) = copied_managed(&mut world, PHONE);
    let bob = world.arrive("bob@example.org/b");
    let body = "x".repeat(100_000);
    for number in 0..50 {
        let text = message("chat", "bob@example.org/b", &number.to_string());
        world.tell(desk, &text.replace("<body>", &format!("<body>{body}")));
    }
    assert!(!world.client(phone).is_online());
    assert!(world.client(desk).is_online());
    assert_eq!(came(&mut world, bob).len(), 50);
}
