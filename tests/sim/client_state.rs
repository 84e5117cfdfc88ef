//! What waits for a client that nobody looks at (XEP-0352), and when it comes.

use sim::steps::{counted, message};
use sim::{ClientId, Element, World};
use xmpp::xep::client_state::{HELD_MAX, HELD_SIZE_MAX};

const ACTIVE: &str = "<active xmlns='urn:xmpp:csi:0'/>";
const INACTIVE: &str = "<inactive xmlns='urn:xmpp:csi:0'/>";
const PING: &str = "<iq type='get' id='ping'><ping xmlns='urn:xmpp:ping'/></iq>";
const PHONE: &str = "alice@example.org/phone";
const EVENT: &str = "<event xmlns='http://jabber.org/protocol/pubsub#event'/>";
const STATE: &str = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";

fn show(show: &str) -> String {
    format!("<presence><show>{show}</show></presence>")
}

/// Something for the phone that is no more than what it holds.
fn light(type_: &str, id: &str, payload: &str) -> String {
    format!("<message type='{type_}' to='{PHONE}' id='{id}'>{payload}</message>")
}

/// What came, in short: ids, and of presence what it shows or its type.
fn brief(received: &[Element]) -> Vec<String> {
    let stanzas = received.iter().filter(|it| it.ns == "jabber:client");
    let each = stanzas.map(|it| match (it.name.as_str(), it.child("show")) {
        ("presence", Some(show)) => show.text.clone(),
        ("presence", None) => it.attr("type").to_owned(),
        _ => it.attr("id").to_owned(),
    });
    each.collect()
}

fn came(world: &mut World, client: ClientId) -> Vec<String> {
    brief(&world.received(client))
}

/// Alice's phone, available and inactive, and bob, who is a contact; her session's id and how many
/// stanzas it has had, where it is managed.
fn scene(is_managed: bool) -> (World, ClientId, ClientId, Option<(String, u32)>) {
    let mut world = World::of_three(3, 2);
    world.befriend("alice@example.org", "bob@example.org");
    let bob = world.arrive("bob@example.org/b");
    let (phone, id) = match is_managed {
        true => {
            let (phone, id) = world.log_in_managed(PHONE);
            (phone, Some(id))
        }
        false => (world.log_in(PHONE), None),
    };
    world.tell(phone, "<presence/>");
    world.tell(phone, INACTIVE);
    let had = counted(&world.received(phone));
    (world, phone, bob, id.map(|id| (id, had)))
}

#[test]
fn what_can_wait_comes_before_something_important_and_in_its_order() {
    let subscribe = format!("<presence to='{PHONE}' type='subscribe' id='s'/>");
    for is_managed in [false, true] {
        let (mut world, phone, bob, _) = scene(is_managed);
        for (what, last) in [
            (message("chat", PHONE, "m"), "m"),
            (
                light("chat", "r", "<received xmlns='urn:xmpp:receipts' id='x'/>"),
                "r",
            ),
            (light("groupchat", "g", "<subject/>"), "g"),
            (
                format!("<iq type='get' to='{PHONE}' id='i'><x xmlns='urn:x'/></iq>"),
                "i",
            ),
        ] {
            for first in [
                show("away"),
                light("headline", "e1", EVENT),
                light("chat", "c1", STATE),
                show("dnd"),
                light("headline", "e2", EVENT),
                light("chat", "c2", STATE),
            ] {
                world.tell(bob, &first);
            }
            assert_eq!(came(&mut world, phone), Vec::<String>::new(), "{what}");
            world.tell(bob, &what);
            // Of presence and of states only the newest.
            let expected = ["e1", "dnd", "e2", "c2", last];
            assert_eq!(came(&mut world, phone), expected, "{what}");
        }
        let carl = world.log_in("carl@example.org/c");
        world.tell(bob, &show("away"));
        world.tell(carl, &subscribe.replace(PHONE, "alice@example.org"));
        assert_eq!(came(&mut world, phone), ["away", "subscribe"]);
    }
}

/// XEP-0352 5.1.
#[test]
fn all_of_it_comes_when_the_client_is_active_and_before_what_it_asks_then() {
    for is_managed in [false, true] {
        let (mut world, phone, bob, _) = scene(is_managed);
        world.tell(bob, &show("away"));
        world.tell(bob, "<presence type='unavailable'/>");
        world.tell(phone, &format!("{INACTIVE}{ACTIVE}{PING}"));
        assert_eq!(came(&mut world, phone), ["unavailable", "ping"]);
        world.tell(bob, &show("dnd"));
        assert_eq!(came(&mut world, phone), ["dnd"]);
        // It asks something itself while it is inactive.
        world.tell(phone, INACTIVE);
        world.tell(bob, &show("xa"));
        world.tell(phone, PING);
        assert_eq!(came(&mut world, phone), ["xa", "ping"]);
    }
}

#[test]
fn copies_of_what_can_wait_wait_as_well() {
    let (mut world, phone, bob, _) = scene(false);
    world.tell(
        phone,
        "<iq type='set' id='e'><enable xmlns='urn:xmpp:carbons:2'/></iq>",
    );
    let desk = world.log_in("alice@example.org/desk");
    world.received(phone);
    world.tell(bob, &light("chat", "c", STATE).replace("phone", "desk"));
    assert_eq!(world.received(desk).len(), 1);
    assert_eq!(world.received(phone).len(), 0);
    world.tell(bob, &message("chat", "alice@example.org/desk", "m"));
    assert_eq!(world.received(phone).len(), 2);
}

#[test]
fn so_much_is_held_and_what_is_one_more_has_all_before_it_sent() {
    let long = format!("{EVENT}<x xmlns='urn:x'>{}</x>", "x".repeat(10_000));
    let fit = HELD_SIZE_MAX / light("headline", "0", &long).len();
    for (payload, max) in [(EVENT, HELD_MAX), (&*long, fit)] {
        let (mut world, phone, bob, _) = scene(true);
        let mut number = 0;
        let received = loop {
            world.tell(bob, &light("headline", &number.to_string(), payload));
            let received = came(&mut world, phone);
            if !received.is_empty() {
                break received;
            }
            number += 1;
            assert!(number <= max, "more than {max} are held");
        };
        assert!(received.len() + 1 >= max, "{} of {max}", received.len());
        world.tell(phone, ACTIVE);
        assert_eq!(came(&mut world, phone), [number.to_string()]);
    }
}

/// XEP-0352 5.2.
#[test]
fn a_session_that_is_resumed_is_active_and_has_what_was_held() {
    for is_lost in [false, true] {
        let (mut world, phone, bob, managed) = scene(true);
        let (id, had) = managed.expect("it is managed");
        world.tell(bob, &show("away"));
        if is_lost {
            world.vanish(phone);
            world.run();
        }
        world.tell(bob, &light("headline", "e", EVENT));
        assert_eq!(came(&mut world, phone), Vec::<String>::new());
        let phone = world.resume(PHONE, &id, had);
        assert!(world.client(phone).resumed.is_some());
        assert_eq!(came(&mut world, phone), ["away", "e"]);
        world.tell(bob, &show("dnd"));
        assert_eq!(came(&mut world, phone), ["dnd"]);
    }
}

#[test]
fn who_leaves_gets_it_before_the_end_and_nothing_of_it_is_left_for_others() {
    let (mut world, phone, bob, _) = scene(false);
    world.tell(bob, &show("away"));
    world.leave(phone);
    world.run();
    assert_eq!(came(&mut world, phone), ["away"]);
    let phone = world.log_in(PHONE);
    world.tell(phone, PING);
    assert_eq!(came(&mut world, phone), ["ping"]);
    world.tell(phone, "<other xmlns='urn:xmpp:csi:0'/>");
    let error = world.client(phone).stream_error.as_deref();
    assert_eq!(error, Some("unsupported-stanza-type"));
}

#[test]
fn a_shutdown_says_what_is_held() {
    for is_managed in [false, true] {
        let (mut world, phone, bob, _) = scene(is_managed);
        world.tell(bob, &light("headline", "e", EVENT));
        assert_eq!(came(&mut world, phone), Vec::<String>::new());
        world.shut_down();
        world.run();
        assert_eq!(came(&mut world, phone)[0], "e", "{is_managed}");
    }
}

#[test]
fn what_waits_in_storage_comes_behind_what_is_held() {
    let (mut world, phone, bob, _) = scene(true);
    world.tell(phone, "<presence><priority>-1</priority></presence>");
    world.tell(phone, INACTIVE);
    world.received(phone);
    world.tell(bob, &message("chat", "alice@example.org", "m"));
    world.tell(bob, &light("headline", "e", EVENT));
    assert_eq!(came(&mut world, phone), Vec::<String>::new());
    world.tell(phone, "<presence/>");
    let mut received = came(&mut world, phone);
    received.retain(|id| ["e", "m"].contains(&&**id));
    assert_eq!(received, ["e", "m"]);
}
