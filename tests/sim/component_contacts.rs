//! Contacts at components: subscriptions, presence both ways, and whom users block.

use super::{GATEWAY, SECRET, WORLDS, seen, world};
use sim::steps::{errors, homes, message};
use sim::{ClientId, Element, World};
use xmpp::limit::REQUESTS_PER_SESSION_MAX;
use xmpp::port::Subscription;

/// Alice and a contact at a component ask each other and say yes (RFC 6121 3.1).
fn subscribe(world: &mut World, alice: ClientId, gateway: ClientId, contact: &str) {
    let (own, full) = ("alice@example.org", "alice@example.org/a");
    world.tell(
        alice,
        &format!("<presence to='{contact}' type='subscribe'/>"),
    );
    assert_eq!(
        seen(&world.received(gateway)),
        [["presence", own, contact, "subscribe"]]
    );
    world.tell(
        gateway,
        &format!(
            "<presence from='{contact}/x' to='{full}' type='subscribed'/>\
             <presence from='{contact}' to='{own}' type='subscribe'/>"
        ),
    );
    let received = world.received(alice);
    let presence = received.iter().filter(|it| it.name == "presence");
    let presence: Vec<_> = presence
        .map(|it| (it.attr("from"), it.attr("type")))
        .collect();
    assert_eq!(presence, [(contact, "subscribed"), (contact, "subscribe")]);
    assert_eq!(subscription(&received, contact), "to");
    world.tell(
        alice,
        &format!("<presence to='{contact}' type='subscribed'/>"),
    );
    assert_eq!(subscription(&world.received(alice), contact), "both");
    assert_eq!(
        seen(&world.received(gateway)),
        [
            ["presence", own, contact, "subscribed"],
            ["presence", full, contact, ""]
        ]
    );
}

/// Who both are, for each of some worlds and addresses: alice, the component, and a contact there.
fn with_contacts(play: impl Fn(&mut World, ClientId, ClientId, &str)) {
    for (seed, shards) in WORLDS {
        // Gateways themselves are contacts, too.
        for contact in ["nick@irc.example.org", GATEWAY] {
            let mut world = world(seed, shards);
            let gateway = world.attach(GATEWAY, SECRET);
            let alice = world.arrive("alice@example.org/a");
            world.tell(alice, ROSTER);
            world.received(alice);
            subscribe(&mut world, alice, gateway, contact);
            play(&mut world, alice, gateway, contact);
            world.check_rest();
        }
    }
}

const ROSTER: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";

#[test]
fn a_contact_at_a_component_hears_of_presence_and_is_heard() {
    with_contacts(|world, alice, gateway, contact| {
        let (own, full) = ("alice@example.org", "alice@example.org/a");
        let theirs = format!("{contact}/x");
        world.tell(gateway, &format!("<presence from='{theirs}' to='{own}'/>"));
        assert_eq!(
            seen(&world.received(alice)),
            [["presence", &*theirs, own, ""]]
        );
        let presence = |type_| [["presence", full, contact, type_]];
        world.tell(alice, "<presence><show>away</show></presence>");
        assert_eq!(seen(&world.received(gateway)), presence(""));
        let probe = format!("<presence from='{contact}' to='{own}' type='probe'/>");
        world.tell(gateway, &probe);
        assert_eq!(seen(&world.received(gateway)), presence(""));
        world.leave(alice);
        world.run();
        assert_eq!(seen(&world.received(gateway)), presence("unavailable"));
        // A login asks the other side.
        world.arrive(full);
        let heard = world.received(gateway);
        let mut heard = seen(&heard);
        heard.sort_unstable();
        assert_eq!(heard, [presence("")[0], presence("probe")[0]]);
    });
}

/// What one stanza leads to on the shard of a component is as bounded as what it leads to
/// elsewhere.
#[test]
fn who_tells_many_contacts_at_a_component_waits_until_they_are_told() {
    const CONTACTS: usize = 200;
    const ROUNDS: usize = 30;
    let mut world = world(2, 2);
    let gateway = world.attach(GATEWAY, SECRET);
    // One of them is at home on another shard than the component.
    let senders = [0, 1].map(|shard| {
        let name = homes(2, shard).next().expect("they do not end");
        world.add_account(&name, "secret");
        for number in 0..CONTACTS {
            let contact = format!("n{number}@irc.example.org");
            world.give_contact(&name, &contact, Subscription::From);
        }
        world.arrive(&format!("{name}/x"))
    });
    world.received(gateway);
    let status = "s".repeat(1_000);
    let presence = format!("<presence><status>{status}</status></presence>");
    for sender in senders {
        world.send(sender, &presence.repeat(ROUNDS));
    }
    let (mut most, start) = (0, world.now());
    for step in 1..5_000 {
        world.run_until(start + step * 20);
        let under_way = world.shards().map(|shard| shard.request_count());
        most = most.max(under_way.sum::<usize>());
    }
    world.run();
    // A few kilobytes of addresses are a few requests.
    let may_be = usize::from(REQUESTS_PER_SESSION_MAX) + 5;
    assert!((2..=may_be).contains(&most), "{most}");
    assert_eq!(world.received(gateway).len(), 2 * CONTACTS * ROUNDS);
    world.check_rest();
}

/// What is made for many is put right once, for each that gets it.
#[test]
fn a_broadcast_that_names_its_namespace_is_understood_by_all() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let gateway = world.attach(GATEWAY, SECRET);
        let contacts = ["a@irc.example.org", "b@irc.example.org"];
        for contact in &contacts {
            world.give_contact("alice@example.org", contact, Subscription::From);
        }
        let alice = world.arrive("alice@example.org/a");
        world.received(gateway);
        let status = "<status xmlns='jabber:client'>x</status>";
        world.tell(alice, &format!("<presence>{status}</presence>"));
        let received = world.received(gateway);
        let mut told: Vec<&str> = received.iter().map(|it| it.attr("to")).collect();
        told.sort_unstable();
        assert_eq!(told, contacts, "seed {seed}");
        for presence in &received {
            assert_eq!(presence.attr("from"), "alice@example.org/a");
            let status = presence.child("status").expect("a status");
            assert_eq!(status.ns, "jabber:component:accept");
        }
    }
}

#[test]
fn a_subscription_to_a_contact_at_a_component_ends_on_both_sides() {
    with_contacts(|world, alice, gateway, contact| {
        let (own, full) = ("alice@example.org", "alice@example.org/a");
        // RFC 6121 3.2, 3.3
        let text = format!("<presence to='{contact}' type='unsubscribed'/>");
        world.tell(alice, &text);
        assert_eq!(
            seen(&world.received(gateway)),
            [
                ["presence", full, contact, "unavailable"],
                ["presence", own, contact, "unsubscribed"]
            ]
        );
        let text = format!("<presence from='{contact}' to='{own}' type='unsubscribed'/>");
        world.tell(gateway, &text);
        world.tell(alice, ROSTER);
        assert_eq!(subscription(&world.received(alice), contact), "none");
        world.tell(alice, "<presence><show>away</show></presence>");
        assert_eq!(seen(&world.received(gateway)), [[""; 4]; 0]);
    });
}

/// What the last push or roster among these says of a contact.
fn subscription<'a>(received: &'a [Element], contact: &str) -> &'a str {
    let queries = received.iter().flat_map(|it| it.child("query"));
    let items = queries.flat_map(|query| &query.children);
    let mut of_contact = items.filter(|item| item.attr("jid") == contact);
    of_contact
        .next_back()
        .map_or("no item", |item| item.attr("subscription"))
}

#[test]
fn a_request_that_no_component_gets_is_none() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let alice = world.arrive("alice@example.org/a");
        world.tell(alice, ROSTER);
        world.received(alice);
        world.tell(
            alice,
            "<presence to='n@irc.example.org' type='subscribe' id='s'/>",
        );
        let received = world.received(alice);
        assert_eq!(errors(&received), [("s", "remote-server-timeout")]);
        let mut queries = received.iter().filter_map(|it| it.child("query"));
        let item = queries
            .next_back()
            .expect("a push")
            .child("item")
            .expect("an item");
        assert_eq!((item.attr("subscription"), item.attr("ask")), ("none", ""));
        world.check_rest();
    }
}

#[test]
fn who_was_told_directly_hears_of_the_end() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let gateway = world.attach(GATEWAY, SECRET);
        let alice = world.arrive("alice@example.org/a");
        // As occupants of a channel: they are no contacts.
        world.tell(alice, "<presence to='#one%net@irc.example.org/n'/>");
        world.tell(alice, "<presence to='#two%net@irc.example.org/n'/>");
        world.tell(
            alice,
            "<presence to='#two%net@irc.example.org/n' type='unavailable'/>",
        );
        assert_eq!(world.received(gateway).len(), 3);
        world.vanish(alice);
        world.run();
        assert_eq!(
            seen(&world.received(gateway)),
            [[
                "presence",
                "alice@example.org/a",
                "#one%net@irc.example.org/n",
                "unavailable"
            ]]
        );
        world.check_rest();
    }
}

#[test]
fn who_is_blocked_at_a_component_is_not_heard() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let gateway = world.attach(GATEWAY, SECRET);
        let alice = world.arrive("alice@example.org/a");
        world.tell(alice, "<presence to='n@irc.example.org'/>");
        let block = |jid: &str| {
            format!(
                "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'>\
                 <item jid='{jid}'/></block></iq>"
            )
        };
        world.received(gateway);
        world.tell(alice, &block(GATEWAY));
        // XEP-0191 3.3: it sees her go.
        assert_eq!(
            seen(&world.received(gateway)),
            [[
                "presence",
                "alice@example.org/a",
                "n@irc.example.org",
                "unavailable"
            ]]
        );
        world.received(alice);
        world.tell(
            gateway,
            "<message from='n@irc.example.org' to='alice@example.org' id='m' type='chat'>\
             <body>x</body></message>",
        );
        assert_eq!(seen(&world.received(alice)), [[""; 4]; 0]);
        assert_eq!(
            errors(&world.received(gateway)),
            [("m", "service-unavailable")]
        );
        world.tell(alice, &message("chat", "n@irc.example.org", "1"));
        assert_eq!(errors(&world.received(alice)), [("1", "not-acceptable")]);
        assert_eq!(seen(&world.received(gateway)), [[""; 4]; 0]);
    }
}

#[test]
fn who_has_subscribed_to_a_node_from_a_component_is_told_of_its_items() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let gateway = world.attach(GATEWAY, SECRET);
        let alice = world.arrive("alice@example.org/a");
        let pubsub = "<pubsub xmlns='http://jabber.org/protocol/pubsub'>";
        let publish = |id: &str| {
            format!(
                "<iq type='set' id='{id}'>{pubsub}<publish node='u:n'><item id='{id}'>\
                 <x xmlns='u:n'/></item></publish><publish-options>\
                 <x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>\
                 <value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
                 <field var='pubsub#access_model'><value>open</value></field></x>\
                 </publish-options></pubsub></iq>"
            )
        };
        world.tell(alice, &publish("1"));
        let subscribe = format!(
            "<iq type='set' id='s' from='n@irc.example.org' to='alice@example.org'>{pubsub}\
             <subscribe node='u:n' jid='n@irc.example.org'/></pubsub></iq>"
        );
        world.tell(gateway, &subscribe);
        let received = world.received(gateway);
        assert_eq!(received[0].attr("type"), "result", "{received:?}");
        world.received(gateway);
        world.tell(alice, &publish("2"));
        let received = world.received(gateway);
        let events: Vec<_> = received.iter().filter_map(|it| it.child("event")).collect();
        assert_eq!(events.len(), 1, "{received:?}");
        assert_eq!(received[0].attr("to"), "n@irc.example.org");
    }
}
