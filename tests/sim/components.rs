//! External components (XEP-0114): how they get in, what they and users say to each other, and what
//! becomes of what they do not get.

mod component_contacts;
mod component_room;

use sim::steps::{errors, homes, message, messages};
use sim::{ClientId, Element, Faults, Random, World};
use xmpp::Settings;
use xmpp::limit::{COMPONENT_QUEUE_MAX, COMPONENT_WINDOW_MAX};
use xmpp::xep::components::{Component, handshake};

const GATEWAY: &str = "irc.example.org";
const OTHER: &str = "sms.example.org";
const SECRET: &str = "north by northwest";

/// Seeds and shards; a seed above 2 is that of a rough world.
const WORLDS: [(u64, u16); 5] = [(1, 1), (2, 2), (3, 3), (4, 2), (5, 1)];

fn settings(shards: u16) -> Settings {
    let component = |domain: &str| Component {
        domain: domain.into(),
        secret: SECRET.into(),
    };
    Settings {
        shards,
        components: vec![component(GATEWAY), component(OTHER)],
        ..Settings::for_tests("example.org")
    }
}

/// A world with accounts for alice and bob.
fn world(seed: u64, shards: u16) -> World {
    let faults = match seed {
        0..=2 => Faults::calm(),
        seed => Faults::rough(&mut Random::new(seed)),
    };
    let mut world = World::new(seed, settings(shards), faults);
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

/// What somebody received, in short: name, from, to, type.
fn seen(received: &[Element]) -> Vec<[&str; 4]> {
    let all = received.iter();
    let short = all.map(|it| [&*it.name, it.attr("from"), it.attr("to"), it.attr("type")]);
    short.collect()
}

fn ended_by(world: &World, id: ClientId) -> Option<&str> {
    let client = world.client(id);
    assert!(client.ended, "the stream is open");
    client.stream_error.as_deref()
}

#[test]
fn who_knows_the_secret_gets_in_and_nobody_else() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        // XEP-0114 3: the header's answer is from the component, without a version or features.
        let (component, received) = world.open_component("IRC.Example.org.");
        assert_eq!(received.len(), 1, "{received:?}");
        assert_eq!(received[0].attr("from"), GATEWAY);
        assert_eq!(received[0].attr("version"), "");
        let proof = handshake(received[0].attr("id"), SECRET);
        world.tell(component, &format!("<handshake>{proof}</handshake>"));
        let received = world.received(component);
        assert_eq!(received.len(), 1, "{received:?}");
        assert_eq!(
            (&*received[0].name, &*received[0].ns),
            ("handshake", "jabber:component:accept")
        );
        for proof in ["", &*proof, &*handshake("", SECRET)] {
            let (component, _) = world.open_component(OTHER);
            world.tell(component, &format!("<handshake>{proof}</handshake>"));
            assert_eq!(ended_by(&world, component), Some("not-authorized"));
        }
        let (component, _) = world.open_component(OTHER);
        world.tell(
            component,
            "<message from='a@sms.example.org' to='alice@example.org'/>",
        );
        assert_eq!(ended_by(&world, component), Some("not-authorized"));
        let (component, _) = world.open_component(OTHER);
        world.tell(
            component,
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
        );
        assert_eq!(ended_by(&world, component), Some("unsupported-stanza-type"));
        world.check_rest();
    }
}

#[test]
fn a_header_that_names_no_component_is_refused_with_the_reason() {
    for (header, error) in [
        (
            "to='example.org' xmlns='jabber:component:accept'",
            "host-unknown",
        ),
        (
            "to='a@irc.example.org' xmlns='jabber:component:accept'",
            "host-unknown",
        ),
        (
            "to='mud.example.org' xmlns='jabber:component:accept'",
            "host-unknown",
        ),
        ("xmlns='jabber:component:accept'", "improper-addressing"),
        (
            "to='irc.example.org' xmlns='jabber:client'",
            "invalid-namespace",
        ),
        (
            "to='irc.example.org' xmlns='jabber:component:connect'",
            "invalid-namespace",
        ),
    ] {
        let mut world = world(1, 2);
        let component = world.connect_raw_as_component();
        let stream = "<s:stream xmlns:s='http://etherx.jabber.org/streams'";
        world.tell(component, &format!("{stream} {header}>"));
        assert_eq!(ended_by(&world, component), Some(error), "{header}");
        // XEP-0114 3: the error has a header of its own around it.
        assert_eq!(world.received(component)[0].name, "stream", "{header}");
    }
    // Nor is a component served where clients are.
    let mut world = world(1, 1);
    let client = world.connect_raw();
    world.tell(
        client,
        "<s:stream xmlns:s='http://etherx.jabber.org/streams' to='irc.example.org' \
         version='1.0' xmlns='jabber:component:accept'>",
    );
    assert_eq!(ended_by(&world, client), Some("invalid-namespace"));
}

#[test]
fn whoever_guesses_keeps_nobody_out_and_who_says_nothing_has_to_go() {
    let mut world = world(1, 2);
    let tries = settings(2).limits.auth_failures_per_minute_max;
    for _ in 0..=tries {
        let (component, _) = world.open_component(GATEWAY);
        world.tell(component, "<handshake>x</handshake>");
        assert_eq!(ended_by(&world, component), Some("not-authorized"));
    }
    // At the same address.
    let served = world.attach(GATEWAY, SECRET);
    let (silent, _) = world.open_component(OTHER);
    world.run_for(settings(2).limits.auth_ms_max + 1);
    assert_eq!(ended_by(&world, silent), Some("connection-timeout"));
    assert!(!world.client(served).ended);
}

#[test]
fn users_and_components_reach_each_other_in_order() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let alice = world.arrive("alice@example.org/a");
        let gateway = world.attach(GATEWAY, SECRET);
        world.received(alice);
        for number in 0..20 {
            let id = number.to_string();
            world.send(alice, &message("chat", "nick%net@irc.example.org/x", &id));
            world.send(
                gateway,
                &format!(
                    "<message from='nick%net@irc.example.org/x' to='alice@example.org' id='{id}' \
                     type='chat'><body>{id}</body></message>"
                ),
            );
        }
        world.run();
        let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        let received = world.received(gateway);
        assert_eq!(messages(&received), expected, "seed {seed}");
        let first = &received[0];
        assert_eq!(first.attr("from"), "alice@example.org/a");
        assert_eq!(first.attr("to"), "nick%net@irc.example.org/x");
        // It is of the namespace of its stream, and so is what it says.
        assert_eq!(first.ns, "jabber:component:accept");
        assert_eq!(first.children[0].ns, "jabber:component:accept");
        let received = world.received(alice);
        assert_eq!(messages(&received), expected, "seed {seed}");
        assert_eq!(received[0].children[0].ns, "jabber:client");
        assert_eq!(received[0].child("body").expect("a body").text, "0");
        world.check_rest();
    }
}

#[test]
fn requests_are_answered_and_what_is_for_the_absent_waits() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let alice = world.arrive("alice@example.org/a");
        let gateway = world.attach(GATEWAY, SECRET);
        let other = world.attach(OTHER, SECRET);
        world.received(alice);
        // To the domain itself, and from one component to the other.
        world.tell(
            alice,
            "<iq type='get' id='q' to='irc.example.org'><x xmlns='u:x'/></iq>",
        );
        assert_eq!(
            seen(&world.received(gateway)),
            [["iq", "alice@example.org/a", GATEWAY, "get"]]
        );
        world.tell(
            gateway,
            "<iq type='result' id='q' from='irc.example.org' to='alice@example.org/a'/>\
             <iq type='get' id='r' from='irc.example.org' to='sms.example.org'>\
             <x xmlns='u:x'/></iq>",
        );
        assert_eq!(
            seen(&world.received(alice)),
            [["iq", GATEWAY, "alice@example.org/a", "result"]]
        );
        assert_eq!(
            seen(&world.received(other)),
            [["iq", GATEWAY, OTHER, "get"]]
        );
        // What is for somebody who is not there waits for him.
        world.tell(
            gateway,
            "<message from='n@irc.example.org' to='bob@example.org' id='w'>\
             <body>w</body></message>",
        );
        let bob = world.arrive("bob@example.org/b");
        assert_eq!(messages(&world.received(bob)), ["w"]);
        world.check_rest();
    }
}

/// What a component asks of whom, and the error that answers it.
const REFUSED: [(&str, &str, &str, &str); 13] = [
    ("example.org", "get", "", "bad-request"),
    ("example.org", "shout", "<x xmlns='u:x'/>", "bad-request"),
    (
        "example.org/r",
        "get",
        "<ping xmlns='urn:xmpp:ping'/>",
        "service-unavailable",
    ),
    (
        "example.org",
        "get",
        "<query xmlns='jabber:iq:register'/>",
        "service-unavailable",
    ),
    (
        "example.org",
        "get",
        "<services xmlns='urn:xmpp:extdisco:2'/>",
        "service-unavailable",
    ),
    (
        "alice@example.org",
        "get",
        "<query xmlns='jabber:iq:roster'/>",
        "service-unavailable",
    ),
    ("alice@example.org", "get", "INFO", "service-unavailable"),
    (
        "alice@example.org/a",
        "set",
        "<query xmlns='jabber:iq:roster'/>",
        "forbidden",
    ),
    (
        "alice@example.org/a",
        "set",
        "<block xmlns='urn:xmpp:blocking'/>",
        "forbidden",
    ),
    (
        "alice@example.org/a",
        "get",
        "<query xmlns='jabber:iq:last'/>",
        "forbidden",
    ),
    (
        "nobody@example.org/a",
        "get",
        "<x xmlns='u:x'/>",
        "service-unavailable",
    ),
    (
        "elsewhere.example",
        "get",
        "<x xmlns='u:x'/>",
        "remote-server-not-found",
    ),
    ("@example.org", "get", "<x xmlns='u:x'/>", "jid-malformed"),
];

#[test]
fn a_component_is_a_stranger_to_the_server_and_to_accounts() {
    let mut world = world(2, 2);
    let alice = world.arrive("alice@example.org/a");
    let gateway = world.attach(GATEWAY, SECRET);
    world.received(alice);
    let mut ask = |to: &str, type_: &str, payload: &str| {
        let request =
            format!("<iq from='irc.example.org' to='{to}' type='{type_}' id='1'>{payload}</iq>");
        world.tell(gateway, &request);
        let received = world.received(gateway);
        assert_eq!(received.len(), 1, "{received:?}");
        assert_eq!(received[0].attr("from"), to);
        match received[0].attr("type") {
            "result" => received[0]
                .children
                .first()
                .map_or(String::new(), |it| it.ns.clone()),
            _ => received[0].condition().to_owned(),
        }
    };
    let info = "http://jabber.org/protocol/disco#info";
    let query = |ns: &str| format!("<query xmlns='{ns}'/>");
    assert_eq!(ask("example.org", "get", &query(info)), info);
    assert_eq!(
        ask("example.org", "get", &query("jabber:iq:version")),
        "jabber:iq:version"
    );
    assert_eq!(
        ask("example.org", "get", &query("jabber:iq:last")),
        "jabber:iq:last"
    );
    assert_eq!(
        ask("example.org", "get", "<ping xmlns='urn:xmpp:ping'/>"),
        ""
    );
    for (to, type_, payload, error) in REFUSED {
        let payload = &payload.replace("INFO", &query(info));
        assert_eq!(ask(to, type_, payload), error, "{to} {type_} {payload}");
    }
    assert_eq!(seen(&world.received(alice)), [[""; 4]; 0]);
}

#[test]
fn a_stanza_that_is_not_from_the_component_ends_its_stream() {
    for (addresses, error) in [
        ("to='alice@example.org'", "improper-addressing"),
        ("from='irc.example.org'", "improper-addressing"),
        (
            "from='alice@example.org' to='bob@example.org'",
            "invalid-from",
        ),
        (
            "from='a@sms.example.org' to='bob@example.org'",
            "invalid-from",
        ),
        (
            "from='a@sub.irc.example.org' to='bob@example.org'",
            "invalid-from",
        ),
        (
            "from='@irc.example.org' to='bob@example.org'",
            "invalid-from",
        ),
    ] {
        let mut world = world(2, 2);
        let bob = world.arrive("bob@example.org/b");
        world.received(bob);
        let gateway = world.attach(GATEWAY, SECRET);
        world.tell(
            gateway,
            &format!("<message {addresses}><body>x</body></message>"),
        );
        assert_eq!(ended_by(&world, gateway), Some(error), "{addresses}");
        assert_eq!(seen(&world.received(bob)), [[""; 4]; 0]);
        world.check_rest();
    }
}

#[test]
fn the_server_lists_its_components() {
    let mut world = world(1, 1);
    let alice = world.log_in("alice@example.org/a");
    world.tell(
        alice,
        "<iq type='get' id='1' to='example.org'>\
         <query xmlns='http://jabber.org/protocol/disco#items'/></iq>",
    );
    let received = world.received(alice);
    let items = received[0].children[0].children.iter();
    let items: Vec<&str> = items.map(|item| item.attr("jid")).collect();
    assert_eq!(items, [GATEWAY, OTHER]);
}

#[test]
fn what_is_for_a_component_that_is_not_connected_comes_back() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let alice = world.arrive("alice@example.org/a");
        world.received(alice);
        world.tell(
            alice,
            "<message to='n@irc.example.org' id='m'><body>x</body></message>\
             <iq to='irc.example.org' type='get' id='q'><x xmlns='u:x'/></iq>\
             <iq to='irc.example.org' type='result' id='r'/>\
             <message to='n@irc.example.org' id='e' type='error'/>\
             <presence to='n@irc.example.org'/>\
             <presence to='#c@irc.example.org/n' id='p'/>",
        );
        let received = world.received(alice);
        // Who enters a channel hears of it, too.
        let expected = ["m", "q", "p"].map(|id| (id, "remote-server-timeout"));
        assert_eq!(errors(&received), expected, "seed {seed}");
        assert_eq!(received.len(), 3);
        assert_eq!(received[0].attr("from"), "n@irc.example.org");
        world.check_rest();
    }
}

#[test]
fn what_a_component_has_not_taken_comes_back_when_it_goes() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let alice = world.arrive("alice@example.org/a");
        let gateway = world.attach(GATEWAY, SECRET);
        world.received(alice);
        world.set_reading(gateway, false);
        // More than its connection and the wire take.
        let large = "x".repeat(COMPONENT_WINDOW_MAX / 2);
        let count = 10;
        for number in 0..count {
            let text = format!(
                "<message to='n@irc.example.org' id='{number}'><body>{large}</body></message>"
            );
            world.send(alice, &text);
        }
        world.send(alice, "<presence to='n@irc.example.org'/>");
        world.run();
        assert_eq!(messages(&world.received(alice)), [""; 0], "seed {seed}");
        world.vanish(gateway);
        world.run();
        // Some may have arrived, all behind them come back in order.
        let received = world.received(alice);
        let back: Vec<u32> = errors(&received)
            .iter()
            .map(|it| it.0.parse().unwrap())
            .collect();
        assert!(back.len() > 5, "seed {seed}: {back:?}");
        assert_eq!(
            back,
            Vec::from_iter(count - back.len() as u32..count),
            "seed {seed}"
        );
        assert!(
            errors(&received)
                .iter()
                .all(|it| it.1 == "remote-server-timeout")
        );
        assert_eq!(received.len(), back.len());
        world.check_rest();
    }
}

#[test]
fn a_component_that_does_not_read_has_so_much_waiting_and_no_more() {
    let mut world = world(2, 2);
    let alice = world.arrive("alice@example.org/a");
    let gateway = world.attach(GATEWAY, SECRET);
    world.received(alice);
    world.set_reading(gateway, false);
    let fills = COMPONENT_QUEUE_MAX + 4 * COMPONENT_WINDOW_MAX / 200;
    let body = "x".repeat(120);
    for number in 0..fills {
        world.send(
            alice,
            &format!("<message to='n@irc.example.org' id='{number}'><body>{body}</body></message>"),
        );
        world.send(alice, "<presence to='n@irc.example.org/x'/>");
    }
    world.run();
    let received = world.received(alice);
    let refused = errors(&received);
    assert!(!refused.is_empty());
    assert!(
        refused.iter().all(|it| it.1 == "resource-constraint"),
        "{refused:?}"
    );
    let is_message = |it: &Element| it.name == "message";
    assert!(received.iter().all(is_message), "presence has its own room");
    assert!(
        world.output_peak() <= 2 * COMPONENT_WINDOW_MAX,
        "{}",
        world.output_peak()
    );
    // It goes on where it was.
    world.set_reading(gateway, true);
    world.run();
    let received = world.received(gateway);
    assert_eq!(messages(&received).len() + refused.len(), fills);
    world.tell(alice, &message("chat", "n@irc.example.org", "last"));
    assert_eq!(messages(&world.received(gateway)), ["last"]);
}

#[test]
fn a_component_that_comes_again_takes_the_place_of_its_connection_before() {
    for (seed, shards) in WORLDS {
        let mut world = world(seed, shards);
        let alice = world.arrive("alice@example.org/a");
        let old = world.attach(GATEWAY, SECRET);
        world.received(alice);
        let new = world.attach(GATEWAY, SECRET);
        assert_eq!(ended_by(&world, old), Some("conflict"), "seed {seed}");
        world.tell(alice, &message("chat", "n@irc.example.org", "1"));
        assert_eq!(messages(&world.received(new)), ["1"], "seed {seed}");
        // The end of the old one is nothing to the new one.
        world.vanish(old);
        world.tell(alice, &message("chat", "n@irc.example.org", "2"));
        assert_eq!(messages(&world.received(new)), ["2"], "seed {seed}");
        assert_eq!(errors(&world.received(alice)), []);
        world.leave(new);
        world.run();
        assert!(world.client(new).stream_closed);
        world.tell(alice, &message("chat", "n@irc.example.org", "3"));
        assert_eq!(
            errors(&world.received(alice)),
            [("3", "remote-server-timeout")]
        );
        world.check_rest();
    }
}

#[test]
fn components_of_all_shards_reach_accounts_of_all_shards() {
    let shards = 3;
    let mut world = World::new(7, settings(shards), Faults::calm());
    let gateway = world.attach(GATEWAY, SECRET);
    let other = world.attach(OTHER, SECRET);
    for shard in 0..shards {
        let name = homes(shards, shard).next().expect("there are some");
        world.add_account(&name, "secret");
        let client = world.arrive(&format!("{name}/r"));
        world.received(client);
        for (component, domain) in [(gateway, GATEWAY), (other, OTHER)] {
            let text = format!("<message from='{domain}' to='{name}/r' id='{domain}'/>");
            world.tell(component, &text);
            world.tell(client, &message("", domain, "1"));
            assert_eq!(messages(&world.received(component)), ["1"]);
        }
        assert_eq!(messages(&world.received(client)), [GATEWAY, OTHER]);
    }
}

#[test]
fn a_session_that_outlives_a_crash_asks_components_again() {
    for (seed, shards) in [(1, 1), (2, 2)] {
        let mut world = world(seed, shards);
        let gateway = world.attach(GATEWAY, SECRET);
        let (alice, session) = world.log_in_managed("alice@example.org/a");
        world.tell(alice, "<presence/>");
        world.tell(
            gateway,
            "<presence from='n@irc.example.org/x' to='alice@example.org/a'/>",
        );
        world.run_for(60_000);
        let had = world.received(alice);
        world.crash();
        world.run();
        let gateway = world.attach(GATEWAY, SECRET);
        let alice = world.resume("alice@example.org/a", &session, sim::steps::counted(&had));
        assert!(world.client(alice).resumed.is_some());
        world.run();
        assert_eq!(
            seen(&world.received(gateway)),
            [[
                "presence",
                "alice@example.org/a",
                "n@irc.example.org/x",
                "probe"
            ]]
        );
    }
}

#[test]
fn messages_to_components_are_copied_and_archived_and_have_no_id_of_an_archive_there() {
    for (seed, shards) in WORLDS {
        let settings = Settings {
            archive: true,
            ..settings(shards)
        };
        let mut world = World::new(seed, settings, Faults::calm());
        world.add_account("alice@example.org", "secret");
        let gateway = world.attach(GATEWAY, SECRET);
        let [desk, phone] = ["d", "p"].map(|resource| {
            let client = world.arrive(&format!("alice@example.org/{resource}"));
            let carbons = "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>";
            world.tell(client, carbons);
            client
        });
        for client in [desk, phone] {
            world.received(client);
        }
        world.tell(desk, &message("chat", "n@irc.example.org", "1"));
        let received = world.received(gateway);
        assert_eq!(messages(&received), ["1"]);
        assert!(received[0].child("stanza-id").is_none(), "{}", received[0]);
        assert!(world.received(phone)[0].child("sent").is_some());
        let query = "<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>";
        world.tell(phone, query);
        let received = world.received(phone);
        assert!(received[0].child("result").is_some(), "{received:?}");
    }
}
