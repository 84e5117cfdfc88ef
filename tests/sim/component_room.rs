//! What finds room on the way to a component and what does not, and what is made of what they say.

use super::{GATEWAY, SECRET, WORLDS, ended_by, seen, settings, world};
use sim::steps::{errors, message, messages};
use sim::{Element, Faults, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::limit::{
    COMPONENT_PRESENCE_MAX, COMPONENT_PRESENCE_SIZE_MEAN, COMPONENT_QUEUE_MAX,
    COMPONENT_SENDERS_MIN, COMPONENT_WINDOW_MAX,
};
use xmpp::port::{StoreOp, StoreReply, Subscription};
use xmpp::xep::components::handshake;

const CONTACT: &str = "n@irc.example.org";

/// Bytes of presence that one sender may have waiting.
const PRESENCE_SHARE: usize =
    COMPONENT_PRESENCE_MAX * COMPONENT_PRESENCE_SIZE_MEAN / COMPONENT_SENDERS_MIN;

/// Many more than what is under way to a component.
fn large_messages() -> String {
    let large = "x".repeat(COMPONENT_WINDOW_MAX / 2);
    let all = (0..10).map(|number| {
        format!("<message to='{CONTACT}' id='{number}'><body>{large}</body></message>")
    });
    all.collect()
}

#[test]
fn what_cannot_be_written_anew_ends_its_stream_and_nothing_else() {
    let mut world = world(2, 2);
    let alice = world.arrive("alice@example.org/a");
    world.received(alice);
    let say = |count: usize| {
        let children = "<p:a/>".repeat(count);
        format!(
            "<c:message xmlns:c='jabber:component:accept' xmlns:p='u:p' id='m' \
             from='irc.example.org' to='@x'>{children}</c:message>"
        )
    };
    let gateway = world.attach(GATEWAY, SECRET);
    world.tell(gateway, &say(1));
    assert_eq!(errors(&world.received(gateway)), [("m", "jid-malformed")]);
    world.tell(gateway, &say(300));
    assert_eq!(ended_by(&world, gateway), Some("policy-violation"));
    world.attach(GATEWAY, SECRET);
    world.check_rest();
}

#[test]
fn an_account_ends_although_a_contact_s_component_is_away() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        world.give_contact("alice@example.org", CONTACT, Subscription::Both);
        let alice = world.arrive("alice@example.org/a");
        world.received(alice);
        let remove = "<query xmlns='jabber:iq:register'><remove/></query>";
        world.tell(alice, &format!("<iq type='set' id='c'>{remove}</iq>"));
        let received = world.received(alice);
        let answer = received.iter().find(|it| it.attr("id") == "c");
        assert_eq!(answer.expect("an answer").attr("type"), "result");
        let account = BareJid::from_prepared("alice@example.org");
        let left = world.perform(StoreOp::Account { account });
        assert_eq!(left, StoreReply::Account(None), "seed {seed}");
        world.check_rest();
    }
}

#[test]
fn what_a_component_says_is_in_the_archives_of_whom_it_says_it_to() {
    for (seed, shards) in WORLDS {
        let settings = Settings {
            archive: true,
            ..settings(shards)
        };
        let mut world = World::new(seed, settings, Faults::calm());
        for name in ["alice", "bob"] {
            world.add_account(&format!("{name}@example.org"), "secret");
        }
        let gateway = world.attach(GATEWAY, SECRET);
        let alice = world.arrive("alice@example.org/a");
        world.received(alice);
        for to in ["alice@example.org/a", "bob@example.org"] {
            world.tell(
                gateway,
                &format!("<message from='{CONTACT}' to='{to}' id='1'><body>x</body></message>"),
            );
        }
        let bob = world.arrive("bob@example.org/b");
        for client in [alice, bob] {
            let received = world.received(client);
            let first = received.iter().find(|it| it.attr("id") == "1");
            let id = first.expect("a message").child("stanza-id");
            let id = id.expect("it is in the archive").attr("id").to_owned();
            let query = "<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>";
            world.tell(client, query);
            let received = world.received(client);
            let results = received.iter().filter_map(|it| it.child("result"));
            let ids: Vec<&str> = results.map(|it| it.attr("id")).collect();
            assert_eq!(ids, [&*id], "seed {seed}");
        }
        world.check_rest();
    }
}

#[test]
fn a_login_and_its_end_reach_as_many_contacts_as_there_are() {
    let count = 3_000;
    for shards in [1, 2] {
        let mut world = world(2, shards);
        for number in 0..count {
            let contact = format!("n{number}@irc.example.org");
            world.give_contact("alice@example.org", &contact, Subscription::Both);
        }
        let gateway = world.attach(GATEWAY, SECRET);
        world.set_reading(gateway, false);
        let alice = world.arrive("alice@example.org/a");
        world.vanish(alice);
        world.run();
        world.set_reading(gateway, true);
        world.run();
        let received = world.received(gateway);
        let of = |type_: &str| {
            received
                .iter()
                .filter(|it| it.attr("type") == type_)
                .count()
        };
        assert_eq!(["", "probe", "unavailable"].map(of), [count; 3]);
    }
}

#[test]
fn who_sends_a_lot_leaves_room_for_others() {
    let mut world = world(2, 2);
    let gateway = world.attach(GATEWAY, SECRET);
    let [alice, bob] = ["alice", "bob"].map(|name| {
        let client = world.arrive(&format!("{name}@example.org/x"));
        world.received(client);
        client
    });
    world.set_reading(gateway, false);
    let share = COMPONENT_QUEUE_MAX / COMPONENT_SENDERS_MIN;
    world.send(alice, &large_messages());
    for number in 0..share {
        world.send(alice, &message("chat", CONTACT, &format!("a{number}")));
    }
    world.run();
    let refused = world.received(alice);
    let refused = errors(&refused);
    assert!((1..20).contains(&refused.len()), "{}", refused.len());
    assert!(refused.iter().all(|it| it.1 == "resource-constraint"));
    world.tell(bob, &message("chat", CONTACT, "b"));
    assert_eq!(errors(&world.received(bob)), []);
    // Answers to what the component asked are not what fills it.
    world.tell(
        gateway,
        "<iq type='get' id='p' from='irc.example.org' to='example.org'>\
         <ping xmlns='urn:xmpp:ping'/></iq>",
    );
    world.set_reading(gateway, true);
    world.run();
    let received = world.received(gateway);
    assert!(messages(&received).contains(&"b"));
    assert!(received.iter().any(|it| it.attr("id") == "p"));
}

#[test]
fn presence_that_finds_no_room_is_dropped_unless_somebody_waits_for_its_answer() {
    let mut world = world(2, 2);
    let alice = world.arrive("alice@example.org/a");
    let gateway = world.attach(GATEWAY, SECRET);
    world.received(alice);
    world.set_reading(gateway, false);
    let status = "x".repeat(15_000);
    let fills = PRESENCE_SHARE / status.len() + 40;
    for number in 0..fills {
        // Each second one enters a channel.
        let resource = ["", "/x"][number % 2];
        world.send(
            alice,
            &format!(
                "<presence to='{CONTACT}{resource}' id='{number}'>\
                 <status>{status}</status></presence>"
            ),
        );
    }
    world.tell(
        alice,
        &format!("<presence to='{CONTACT}' type='subscribe' id='s'/>"),
    );
    let received = world.received(alice);
    let refused = errors(&received);
    assert!(!refused.is_empty());
    for (id, error) in &refused {
        assert_eq!(*error, "resource-constraint");
        let number: usize = id.parse().expect("a number");
        assert_eq!(number % 2, 1, "a broadcast is not answered");
    }
    world.set_reading(gateway, true);
    world.run();
    let received = world.received(gateway);
    let entered = received.iter().filter(|it| it.attr("to") != CONTACT);
    assert_eq!(entered.count() + refused.len(), fills / 2);
    let told = received.iter().filter(|it| it.attr("to") == CONTACT);
    assert!((2..fills.div_ceil(2)).contains(&told.count()));
    assert!(received.iter().any(|it| it.attr("id") == "s"));
}

#[test]
fn what_waits_for_a_component_goes_to_the_connection_that_takes_over() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let alice = world.arrive("alice@example.org/a");
        let old = world.attach(GATEWAY, SECRET);
        world.received(alice);
        world.set_reading(old, false);
        world.send(alice, &large_messages());
        world.run();
        assert_eq!(errors(&world.received(alice)), [], "seed {seed}");
        let (new, received) = world.open_component(GATEWAY);
        let proof = handshake(received[0].attr("id"), SECRET);
        world.tell(new, &format!("<handshake>{proof}</handshake>"));
        world.set_reading(old, true);
        world.run();
        assert_eq!(ended_by(&world, old), Some("conflict"), "seed {seed}");
        // The wire to the old one may have taken some before. What was under way to it comes back.
        let received = world.received(alice);
        let back: Vec<&str> = errors(&received).iter().map(|it| it.0).collect();
        let received = world.received(new);
        let rest = messages(&received);
        assert!(!back.is_empty() && !rest.is_empty(), "{back:?} {rest:?}");
        let all = [back, rest].concat();
        let expected: Vec<String> = (10 - all.len()..10).map(|it| it.to_string()).collect();
        assert_eq!(all, expected, "seed {seed}");
        world.check_rest();
    }
}

#[test]
fn a_component_that_loses_what_is_not_said_again_begins_anew() {
    let mut world = world(2, 1);
    let gateway = world.attach(GATEWAY, SECRET);
    world.set_reading(gateway, false);
    let status = "x".repeat(4_000);
    let gone =
        format!("<presence to='{CONTACT}' type='unavailable'><status>{status}</status></presence>");
    // Each has as much as one may, and the last one a bit more.
    let share = 2 * PRESENCE_SHARE / status.len();
    for number in 0..=COMPONENT_SENDERS_MIN {
        let name = format!("u{number}@example.org");
        world.add_account(&name, "secret");
        let client = world.arrive(&format!("{name}/x"));
        assert!(!world.client(gateway).ended, "{number}");
        for _ in 0..share {
            world.send(client, &gone);
        }
        world.run();
        assert!(!world.client(client).ended);
    }
    world.set_reading(gateway, true);
    world.run();
    assert_eq!(ended_by(&world, gateway), Some("resource-constraint"));
    world.attach(GATEWAY, SECRET);
}

#[test]
fn a_request_that_comes_back_late_is_none() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let alice = world.arrive("alice@example.org/a");
        let gateway = world.attach(GATEWAY, SECRET);
        let query = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
        world.tell(alice, query);
        world.received(alice);
        world.set_reading(gateway, false);
        world.send(alice, &large_messages());
        world.send(
            alice,
            &format!("<presence to='{CONTACT}' type='subscribe'/>"),
        );
        world.run_for(1_000);
        let asks = |received: &[Element]| {
            let mut queries = received.iter().filter_map(|it| it.child("query"));
            let item = queries.next_back().and_then(|query| query.child("item"));
            item.expect("an item").attr("ask").to_owned()
        };
        assert_eq!(asks(&world.received(alice)), "subscribe", "seed {seed}");
        // Whether or not she is there to see it.
        let is_there = seed % 2 == 0;
        if !is_there {
            world.leave(alice);
            world.run();
        }
        world.vanish(gateway);
        world.run();
        let alice = match is_there {
            true => alice,
            false => {
                let alice = world.arrive("alice@example.org/a");
                world.tell(alice, query);
                alice
            }
        };
        assert_eq!(asks(&world.received(alice)), "", "seed {seed}");
        world.check_rest();
    }
}

#[test]
fn what_waits_for_a_component_comes_back_before_the_server_goes() {
    for shards in [1, 2, 3] {
        let mut world = world(2, shards);
        let alice = world.arrive("alice@example.org/a");
        let gateway = world.attach(GATEWAY, SECRET);
        world.received(alice);
        world.set_reading(gateway, false);
        world.send(alice, &large_messages());
        world.run();
        assert_eq!(errors(&world.received(alice)), []);
        world.shut_down();
        world.run();
        let received = world.received(alice);
        let back: Vec<&str> = errors(&received).iter().map(|it| it.0).collect();
        for number in 4..10 {
            let id = number.to_string();
            assert!(back.contains(&&*id), "{shards} shards: {back:?}");
        }
    }
}

#[test]
fn who_asks_for_somebody_at_a_component_that_is_away_hears_that_he_is_not_there() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        world.give_contact("alice@example.org", CONTACT, Subscription::Both);
        let alice = world.arrive("alice@example.org/a");
        let received = world.received(alice);
        let gone = ["presence", CONTACT, "alice@example.org/a", "unavailable"];
        assert!(seen(&received).contains(&gone), "seed {seed}: {received:?}");
        world.check_rest();
    }
}

#[test]
fn a_component_finds_who_sleeps() {
    for (seed, shards) in [(1, 1), (2, 2)] {
        let mut world = world(seed, shards);
        world.give_contact("alice@example.org", CONTACT, Subscription::Both);
        let (alice, _) = world.log_in_managed("alice@example.org/a");
        world.tell(alice, "<presence><status>here</status></presence>");
        world.run_for(60_000);
        world.crash();
        world.run();
        let gateway = world.attach(GATEWAY, SECRET);
        world.tell(
            gateway,
            &format!("<presence from='{CONTACT}' to='alice@example.org' type='probe'/>"),
        );
        world.run_for(1_000);
        let received = world.received(gateway);
        let here = ["presence", "alice@example.org/a", CONTACT, ""];
        assert!(seen(&received).contains(&here), "seed {seed}: {received:?}");
    }
}

#[test]
fn who_names_its_own_namespace_is_understood_on_the_other_side() {
    let mut world = world(2, 2);
    let alice = world.arrive("alice@example.org/a");
    let gateway = world.attach(GATEWAY, SECRET);
    world.received(alice);
    let say = |addresses: &str, ns: &str| {
        format!(
            "<message {addresses} id='1'><body xmlns='{ns}'>x</body><forwarded xmlns='u:f'>\
             <message xmlns='jabber:client'/></forwarded></message>"
        )
    };
    let check = |received: &[Element], ns: &str| {
        let body = received[0].child("body").expect("a body");
        assert_eq!((&*body.ns, &*body.text), (ns, "x"));
        let forwarded = received[0].child("forwarded").expect("a child");
        assert_eq!(forwarded.children[0].ns, "jabber:client");
    };
    let (client, component) = ("jabber:client", "jabber:component:accept");
    world.tell(alice, &say(&format!("to='{CONTACT}'"), client));
    check(&world.received(gateway), component);
    let addresses = format!("from='{CONTACT}' to='alice@example.org/a'");
    world.tell(gateway, &say(&addresses, component));
    check(&world.received(alice), client);
}
