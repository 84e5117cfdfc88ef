//! Every maximum of the protocol is reached here, and what happens then is what was promised.

use sim::client::Phase;
use sim::{ClientId, Element, Faults, Login, Random, World};
use xmpp::Settings;
use xmpp::limit::{CONFLICTS_PER_REGISTRATION, Limits, REQUESTS_PER_SESSION_MAX};

/// A world of two shards with these limits, and some accounts.
fn world(limits: Limits, names: &[&str]) -> World {
    let settings = Settings {
        shards: 2,
        limits,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(11, settings, Faults::rough(&mut Random::new(11)));
    for name in names {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

fn login(world: &mut World, jid: &str) -> ClientId {
    let id = world.connect(Login::new(jid, "secret"));
    world.run();
    assert!(
        world.client(id).is_online(),
        "{jid}: {:?}",
        world.client(id).phase
    );
    id
}

/// What a client receives in answer to what it sends.
fn ask(world: &mut World, id: ClientId, text: &str) -> Vec<Element> {
    world.send(id, text);
    world.run();
    world.received(id)
}

fn header() -> String {
    String::from_utf8_lossy(&sim::client::header("example.org")).into_owned()
}

fn stream_error(world: &World, id: ClientId) -> Option<&str> {
    assert!(world.client(id).ended, "the stream is open");
    world.client(id).stream_error.as_deref()
}

#[test]
fn an_element_before_authentication_may_be_as_large_as_its_limit() {
    let limits = Limits {
        stanza_size_before_auth_max: 1000,
        ..Limits::default()
    };
    for (extra, refused) in [(0, false), (1, true)] {
        let mut world = world(limits.clone(), &[]);
        let client = world.connect_raw();
        let (head, tail) = (
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='GSSAPI'>",
            "</auth>",
        );
        let padding = "=".repeat(1000 - head.len() - tail.len() + extra);
        world.send(client, &format!("{}{head}{padding}{tail}", header()));
        world.run();
        if refused {
            assert_eq!(stream_error(&world, client), Some("policy-violation"));
        } else {
            assert!(!world.client(client).ended);
        }
    }
}

#[test]
fn a_stanza_may_be_as_large_as_its_limit_and_the_refusal_comes_before_its_end() {
    let limits = Limits {
        stanza_size_max: 2000,
        ..Limits::default()
    };
    for (extra, refused) in [(0, false), (1, true)] {
        let mut world = world(limits.clone(), &["alice"]);
        let alice = login(&mut world, "alice@example.org/x");
        let (head, tail) = (
            "<message to='alice@example.org/x'><body>",
            "</body></message>",
        );
        let padding = "x".repeat(2000 - head.len() - tail.len() + extra);
        let answers = ask(&mut world, alice, &format!("{head}{padding}{tail}"));
        assert_eq!(answers.len(), usize::from(!refused));
        if refused {
            assert_eq!(stream_error(&world, alice), Some("policy-violation"));
        }
    }
    // What never ends is refused, too, as soon as it is too large.
    let mut world = world(limits, &["alice"]);
    let alice = login(&mut world, "alice@example.org/x");
    world.send(alice, &format!("<message to='{}", "x".repeat(2000)));
    world.run();
    assert_eq!(stream_error(&world, alice), Some("policy-violation"));
}

#[test]
fn depth_attributes_and_namespaces_have_their_limits() {
    let limits = Limits {
        depth_max: 8,
        attributes_max: 8,
        namespaces_max: 8,
        ..Limits::default()
    };
    let nested = |depth: usize| {
        let (open, close) = (
            "<a xmlns='urn:a'>".to_owned() + &"<a>".repeat(depth - 2),
            "</a>",
        );
        format!("<message>{open}{}</message>", close.repeat(depth - 1))
    };
    let attributes = |count: usize| {
        let list: String = (0..count).map(|index| format!(" a{index}=''")).collect();
        format!("<message><x xmlns='urn:x'><y{list}/></x></message>")
    };
    let namespaces = |count: usize| {
        let list: String = (1..count)
            .map(|index| format!("<x xmlns='urn:{index}'/>"))
            .collect();
        format!("<message><y xmlns='urn:y'/>{list}</message>")
    };
    let shapes: [(&str, &dyn Fn(usize) -> String); 3] = [
        ("depth", &nested),
        ("attributes", &attributes),
        ("namespaces", &namespaces),
    ];
    for (name, shape) in shapes {
        let mut world = world(limits.clone(), &["alice"]);
        let alice = login(&mut world, "alice@example.org/x");
        ask(&mut world, alice, "<presence/>");
        assert_eq!(
            ask(&mut world, alice, &shape(8)).len(),
            1,
            "{name}: {}",
            shape(8)
        );
        ask(&mut world, alice, &shape(9));
        assert_eq!(
            stream_error(&world, alice),
            Some("policy-violation"),
            "{name}"
        );
    }
}

/// Declarations on a stanza's own tag, and the elements inside that use them.
type Shape<'a> = &'a dyn Fn(usize) -> (String, String);

#[test]
fn a_prefixed_stanza_arrives_with_its_namespaces_or_is_refused_with_all_it_declares() {
    // The limit of what a stanza declares, and of what it would when its prefixes are written out.
    let declared = |count: usize| {
        let list: String = (1..count)
            .map(|i| format!(" xmlns:p{i}='urn:{i}'"))
            .collect();
        let uses: String = (1..count).map(|i| format!("<p{i}:x/>")).collect();
        (list, uses)
    };
    let alternating = |count: usize| {
        let uses = "<p:x/>".repeat(count);
        (" xmlns:p='urn:p'".to_owned(), uses)
    };
    // The simulated client takes no more than 128 declarations of the 256 that it might get.
    let shapes: [(Shape<'_>, usize, usize); 2] = [(&declared, 128, 129), (&alternating, 127, 257)];
    for (shape, most, over) in shapes {
        let mut world = world(Limits::default(), &["alice", "bob"]);
        let alice = login(&mut world, "alice@example.org/x");
        let bob = login(&mut world, "bob@example.org/x");
        let stanza = |count: usize| {
            let (list, uses) = shape(count);
            format!(
                "<c:message xmlns:c='jabber:client'{list} to='bob@example.org/x' id='{count}'>\
                 {uses}<c:body>hi</c:body></c:message>"
            )
        };
        world.send(alice, &stanza(most));
        world.run();
        let got = world.received(bob);
        assert_eq!(got.len(), 1, "{most}");
        let (body, children) = got[0].children.split_last().unwrap();
        assert_eq!(
            (&*got[0].ns, &*body.ns, &*body.text),
            ("jabber:client", "jabber:client", "hi")
        );
        for (index, child) in children.iter().enumerate() {
            let ns = if most == 128 {
                format!("urn:{}", index + 1)
            } else {
                "urn:p".to_owned()
            };
            assert_eq!((&*child.name, &*child.ns), ("x", &*ns));
        }
        world.send(alice, &stanza(over));
        world.run();
        assert_eq!(
            stream_error(&world, alice),
            Some("policy-violation"),
            "{most}"
        );
        assert_eq!(world.received(bob), [], "{most}");
        assert!(world.client(bob).is_online());
    }
}

#[test]
fn white_space_before_authentication_is_limited_and_afterwards_is_not() {
    let limits = Limits {
        whitespace_before_auth_max: 100,
        ..Limits::default()
    };
    let mut world = world(limits, &["alice"]);
    let client = world.connect_raw();
    world.send(client, &format!("{}{}", header(), " ".repeat(100)));
    world.run();
    assert!(!world.client(client).ended);
    world.send(client, " ");
    world.run();
    assert_eq!(stream_error(&world, client), Some("policy-violation"));
    let alice = login(&mut world, "alice@example.org/x");
    world.send(alice, &" \n".repeat(10_000));
    world.run();
    assert!(world.client(alice).is_online());
}

#[test]
fn one_account_has_so_many_resources_and_no_more_until_one_goes() {
    let limits = Limits {
        resources_max: 3,
        ..Limits::default()
    };
    let mut world = world(limits, &["alice"]);
    let ids: Vec<ClientId> = (0..3)
        .map(|index| login(&mut world, &format!("alice@example.org/r{index}")))
        .collect();
    let fourth = world.connect(Login::new("alice@example.org/r3", "secret"));
    world.run();
    assert!(
        matches!(&world.client(fourth).phase, Phase::Refused(why) if why == "resource-constraint")
    );
    // Taking over a resource needs no further place.
    login(&mut world, "alice@example.org/r1");
    world.leave(ids[0]);
    world.run();
    let bind = "<iq type='set' id='again'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    world.received(fourth);
    let answers = ask(&mut world, fourth, bind);
    assert_eq!(
        answers[0].attr("type"),
        "result",
        "the same stream may bind when there is room"
    );
}

#[test]
fn a_roster_has_so_many_items_and_no_more() {
    let limits = Limits {
        roster_items_max: 3,
        ..Limits::default()
    };
    let mut world = world(limits, &["alice"]);
    let alice = login(&mut world, "alice@example.org/x");
    let set = |name: &str| {
        format!(
            "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
             <item jid='{name}@example.org'/></query></iq>"
        )
    };
    for name in ["a", "b", "c", "a"] {
        assert_eq!(
            ask(&mut world, alice, &set(name))[0].attr("type"),
            "result",
            "{name}"
        );
    }
    assert_eq!(
        ask(&mut world, alice, &set("d"))[0].condition(),
        "resource-constraint"
    );
    let request = "<presence to='d@example.org' type='subscribe'/>";
    assert_eq!(
        ask(&mut world, alice, request)[0].condition(),
        "resource-constraint"
    );
}

#[test]
fn directed_presence_is_remembered_for_so_many_and_refused_for_more() {
    let limits = Limits {
        directed_max: 3,
        ..Limits::default()
    };
    let mut world = world(limits, &["alice"]);
    let alice = login(&mut world, "alice@example.org/x");
    for name in ["a", "b", "c", "a"] {
        let text = format!("<presence to='{name}@example.org'/>");
        assert_eq!(ask(&mut world, alice, &text), [], "{name}");
    }
    let answers = ask(&mut world, alice, "<presence to='d@example.org'/>");
    assert_eq!(answers[0].condition(), "resource-constraint");
    let text = "<presence to='a@example.org' type='unavailable'/><presence to='d@example.org'/>";
    assert_eq!(
        ask(&mut world, alice, text),
        [],
        "who was told otherwise makes room"
    );
}

#[test]
fn guessing_one_accounts_password_is_refused_unexamined_after_a_while() {
    let limits = Limits {
        auth_failures_per_minute_max: 3,
        ..Limits::default()
    };
    let mut world = world(limits, &["alice", "bob"]);
    let refusal = |world: &mut World, password: &str| {
        let id = world.connect(Login::new("alice@example.org/x", password));
        world.run();
        match &world.client(id).phase {
            Phase::Refused(why) => why.clone(),
            _ => "none".to_owned(),
        }
    };
    for _ in 0..3 {
        assert_eq!(refusal(&mut world, "guess"), "not-authorized");
    }
    assert_eq!(refusal(&mut world, "guess"), "temporary-auth-failure");
    assert_eq!(refusal(&mut world, "secret"), "temporary-auth-failure");
    login(&mut world, "bob@example.org/x");
    world.run_for(61_000);
    assert_eq!(refusal(&mut world, "secret"), "none");
}

/// Asks for an account over a connection of its own; the type of the answer and its condition.
fn register(world: &mut World, name: &str) -> String {
    let client = world.connect_raw();
    let text = format!(
        "{}<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>{name}</username>\
         <password>secret</password></query></iq>",
        header()
    );
    let answers = ask(world, client, &text);
    let last = answers.last().expect("an answer");
    format!("{} {}", last.attr("type"), last.condition())
}

#[test]
fn whoever_finds_a_name_taken_may_choose_another_but_not_try_every_name() {
    let world = |registrations_per_hour_max| {
        let limits = Limits {
            registrations_per_hour_max,
            ..Limits::default()
        };
        let settings = Settings {
            limits,
            ..Settings::for_tests("example.org")
        };
        let mut world = World::new(5, settings, Faults::calm());
        world.add_account("taken@example.org", "secret");
        world
    };
    // All but one of the attempts that count as much as an account are at names that are taken.
    let mut one = world(1);
    for _ in 1..CONFLICTS_PER_REGISTRATION {
        assert_eq!(register(&mut one, "taken"), "error conflict");
    }
    assert_eq!(register(&mut one, "a").trim(), "result");
    assert_eq!(register(&mut one, "b"), "error resource-constraint");
    assert_eq!(register(&mut one, "taken"), "error resource-constraint");

    // Whoever makes no account does not learn of more names for it.
    let mut two = world(2);
    for _ in 0..2 * CONFLICTS_PER_REGISTRATION {
        assert_eq!(register(&mut two, "taken"), "error conflict");
    }
    assert_eq!(register(&mut two, "taken"), "error resource-constraint");
    assert_eq!(register(&mut two, "a"), "error resource-constraint");
    two.run_for(3_600_001);
    assert_eq!(register(&mut two, "taken"), "error conflict");
    // Taken names do not make the accounts more.
    assert_eq!(register(&mut two, "a").trim(), "result");
    assert_eq!(register(&mut two, "b").trim(), "result");
    assert_eq!(register(&mut two, "c"), "error resource-constraint");
}

#[test]
fn so_many_accounts_are_made_from_one_address_in_an_hour() {
    let limits = Limits {
        registrations_per_hour_max: 2,
        ..Limits::default()
    };
    // However many shards its connections come to.
    for shards in [1, 3, 7] {
        let settings = Settings {
            shards,
            limits: limits.clone(),
            ..Settings::for_tests("example.org")
        };
        let mut world = World::new(5, settings, Faults::calm());
        let at = |world: &mut World, peer: &str, name: &str| {
            world.peer = peer.parse().unwrap();
            register(world, name)
        };
        // However many addresses of its network its client has.
        assert_eq!(at(&mut world, "2001:db8::1", "a").trim(), "result");
        assert_eq!(at(&mut world, "2001:db8::2", "b").trim(), "result");
        for peer in ["2001:db8::1", "2001:db8::2", "2001:db8::3"] {
            let refused = at(&mut world, peer, "c");
            assert_eq!(refused, "error resource-constraint");
        }
        assert_eq!(at(&mut world, "2001:db8:1::1", "d").trim(), "result");
        world.peer = "2001:db8::4".parse().unwrap();
        world.run_for(3_600_001);
        assert_eq!(register(&mut world, "c").trim(), "result");
    }
    // Nobody registers where nobody may.
    let limits = Limits {
        registrations_per_hour_max: 0,
        ..Limits::default()
    };
    let settings = Settings {
        limits,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(5, settings, Faults::calm());
    assert_eq!(register(&mut world, "a"), "error resource-constraint");
}

#[test]
fn a_session_that_asks_more_of_storage_than_it_may_waits_and_is_answered_in_order() {
    const SETS: usize = 3_000;
    let settings = Settings {
        shards: 2,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(3, settings, Faults::calm());
    for name in ["alice", "bob", "carol"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    let [alice, bob, carol] =
        ["alice", "bob", "carol"].map(|name| login(&mut world, &format!("{name}@example.org/x")));
    world.faults.disk_us = (50_000, 50_000);
    for index in 0..SETS {
        let contact = index % 50;
        world.send(
            alice,
            &format!(
                "<iq type='set' id='{index}'><query xmlns='jabber:iq:roster'>\
                 <item jid='c{contact}@example.org' name='{index}'/></query></iq>"
            ),
        );
    }
    let mut answers = Vec::new();
    let mut chats = 0;
    while answers.len() < SETS {
        let message = format!("<message to='carol@example.org/x' type='chat' id='{chats}'/>");
        world.send(bob, &message);
        world.run_for(10);
        let got = world.received(carol);
        assert_eq!(got.len(), 1, "who asks nothing of storage waits for nobody");
        assert_eq!(got[0].attr("id"), chats.to_string());
        chats += 1;
        assert!(chats < SETS, "the answers stopped at {}", answers.len());
        answers.extend(world.received(alice));
    }
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(answer.attr("id"), index.to_string());
        assert_eq!(answer.attr("type"), "result");
    }
    let max = usize::from(REQUESTS_PER_SESSION_MAX);
    assert_eq!(world.unanswered_peak(), max, "so many, and no more");
    world.run();
    world.check_rest();
}

#[test]
fn a_shard_whose_storage_lags_takes_no_more_from_clients_and_siblings_and_loses_nothing() {
    const STRANGERS: usize = 1_000;
    let faults = Faults {
        storage_capacity: 1,
        ring_capacity: 2,
        disk_us: (20_000, 20_000),
        ..Faults::calm()
    };
    let settings = Settings {
        shards: 3,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(8, settings, faults);
    let names: Vec<String> = (0..6)
        .map(|index| format!("u{index}@example.org"))
        .collect();
    for name in &names {
        world.add_account(name, "secret");
    }
    let ids: Vec<ClientId> = names
        .iter()
        .map(|name| login(&mut world, &format!("{name}/x")))
        .collect();
    // Every stranger has storage asked on whichever shard would be its home, in the name of nobody
    // there.
    for (index, id) in ids.iter().enumerate() {
        for stranger in 0..STRANGERS / ids.len() {
            let to = format!("s{index}-{stranger}@example.org");
            world.send(*id, &format!("<presence to='{to}' type='unsubscribe'/>"));
        }
        let to = &names[(index + 1) % names.len()];
        world.send(
            *id,
            &format!("<message to='{to}/x' type='chat' id='{index}'/>"),
        );
    }
    world.run();
    for (index, id) in ids.iter().enumerate() {
        let got = world.received(*id);
        let sender = (index + ids.len() - 1) % ids.len();
        assert_eq!(got.len(), 1, "{got:?}");
        assert_eq!(got[0].attr("id"), sender.to_string());
    }
    // One connection's bytes, and what lies in two rings, are handled before anybody looks again.
    let max = usize::from(REQUESTS_PER_SESSION_MAX) + 2 * 2 + 1;
    let peak = world.unanswered_peak();
    assert!(peak <= max, "{peak} requests waited, {max} may");
    world.check_rest();
}

#[test]
fn stanzas_for_an_account_that_loads_queue_up_to_a_limit_and_none_is_lost_silently() {
    let mut world = world(Limits::default(), &["alice", "bob"]);
    let alice = login(&mut world, "alice@example.org/x");
    // Bob's load takes a while, and everything for him waits for it.
    world.faults.disk_us = (3_000_000, 3_000_000);
    world.faults.wire_us = (1, 1);
    world.send(alice, "<presence to='bob@example.org' type='subscribe'/>");
    let count = xmpp::limit::LOAD_QUEUE_MAX + 10;
    for index in 0..count {
        world.send(
            alice,
            &format!("<message to='bob@example.org' id='{index}'/>"),
        );
    }
    world.run();
    let answers = world.received(alice);
    let by = |condition: &str| {
        answers
            .iter()
            .filter(|answer| answer.condition() == condition)
            .count()
    };
    let full = by("resource-constraint");
    assert!(full > 0 && full < count, "{full} of {count} found no room");
    // The others wait for bob, in their order.
    let bob = login(&mut world, "bob@example.org/x");
    world.send(bob, "<presence/>");
    world.run();
    let got = world.received(bob);
    let waited = got.iter().filter(|stanza| stanza.name == "message").count();
    assert_eq!(
        waited + full,
        count,
        "what found no room was answered, the rest is here"
    );
    world.check_rest();
}

#[test]
fn what_a_session_leaves_says_when_it_came_not_when_the_session_ended() {
    let mut world = world(Limits::default(), &["alice", "bob"]);
    let alice = login(&mut world, "alice@example.org/x");
    let bob = login(&mut world, "bob@example.org/x");
    world.send(
        bob,
        "<presence/><enable xmlns='urn:xmpp:sm:3' resume='true'/>",
    );
    world.run_for(1_000);
    world.vanish(bob);
    world.send(
        alice,
        "<message to='bob@example.org' type='chat' id='m'><body>x</body></message>",
    );
    world.run_for(1_000);
    let sent = world.now();
    // Longer than the session may be taken up again.
    world.run_for(1_000_000);
    let bob = login(&mut world, "bob@example.org/x");
    world.send(bob, "<presence/>");
    world.run();
    let got = world.received(bob);
    let message = got.iter().find(|stanza| stanza.name == "message");
    let message = message.expect("it waited");
    let delay = message.children.iter().find(|child| child.name == "delay");
    let stamp = delay.expect("it came late").attr("stamp");
    let at = |us: u64| xmpp::xep::time::utc(xmpp::Timestamp(us));
    assert!(
        *at(sent - 3_000_000) <= *stamp && *stamp <= *at(sent),
        "{stamp} against {}",
        at(sent)
    );
}

#[test]
fn requests_wait_with_all_they_say_until_they_are_too_many_bytes() {
    let names = ["alice", "bob", "eve", "mallory", "oscar", "trudy", "victor"];
    let mut world = world(Limits::default(), &names);
    let status = "x".repeat(200_000);
    let mut refused = Vec::new();
    for name in &names[1..] {
        let client = login(&mut world, &format!("{name}@example.org/x"));
        let text = format!(
            "<presence/><presence to='alice@example.org' type='subscribe'>\
             <status>{status}</status></presence>"
        );
        let answers = ask(&mut world, client, &text);
        refused.push(
            answers
                .iter()
                .any(|answer| answer.condition() == "resource-constraint"),
        );
    }
    assert_eq!(refused, [false, false, false, false, false, true]);
    let alice = login(&mut world, "alice@example.org/x");
    let shown = ask(&mut world, alice, "<presence/>");
    let requests = shown
        .iter()
        .filter(|stanza| stanza.attr("type") == "subscribe");
    let sizes = requests.map(|request| request.children[0].text.len());
    assert_eq!(sizes.collect::<Vec<_>>(), [status.len(); 5]);
}

#[test]
fn large_stanzas_for_an_account_that_loads_queue_up_to_a_limit_of_bytes() {
    let mut world = world(Limits::default(), &["alice", "bob"]);
    let alice = login(&mut world, "alice@example.org/x");
    world.faults.disk_us = (60_000_000, 60_000_000);
    world.faults.wire_us = (1, 1);
    world.faults.piece_bytes = (60_000, 60_000);
    let body = "x".repeat(60_000);
    let count = 100;
    for index in 0..count {
        let text =
            format!("<message to='bob@example.org' id='{index}'><body>{body}</body></message>");
        world.send(alice, &text);
    }
    // Bob is still being loaded.
    world.run_for(30_000);
    let answers = world.received(alice);
    let full = answers
        .iter()
        .filter(|answer| answer.condition() == "resource-constraint");
    let fits = xmpp::limit::LOAD_QUEUE_SIZE_MAX / 60_100;
    let full = full.count();
    assert!(
        (count - full).abs_diff(fits) <= 2,
        "{full} of {count} found no room"
    );
    world.run();
}

#[test]
fn what_a_session_leaves_waits_as_far_as_there_is_room_and_the_rest_bounces() {
    let limits = Limits {
        offline_max: 3,
        ..Limits::default()
    };
    let mut world = world(limits, &["alice", "bob"]);
    let alice = login(&mut world, "alice@example.org/x");
    world.send(alice, "<presence/>");
    for round in 0..2 {
        let bob = login(&mut world, "bob@example.org/x");
        world.send(
            bob,
            "<enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>",
        );
        world.run();
        world.received(alice);
        for index in 0..10 {
            world.send(
                alice,
                &format!("<message to='bob@example.org' id='{round}-{index}'/>"),
            );
        }
        world.run();
        world.vanish(bob);
        world.run_for(400_000);
        let bounced: Vec<_> = world
            .received(alice)
            .iter()
            .filter(|answer| answer.condition() == "resource-constraint")
            .map(|answer| answer.attr("id").to_owned())
            .collect();
        // In the second round the three that waited before come back first.
        let first = if round == 0 { 3 } else { 0 };
        let expected: Vec<_> = (first..10)
            .map(|index| format!("{round}-{index}"))
            .collect();
        assert_eq!(bounced, expected);
    }
    let bob = login(&mut world, "bob@example.org/y");
    world.send(bob, "<presence/>");
    world.run();
    let ids: Vec<_> = world
        .received(bob)
        .iter()
        .filter(|stanza| stanza.name == "message")
        .map(|stanza| stanza.attr("id").to_owned())
        .collect();
    assert_eq!(ids, ["0-0", "0-1", "0-2"]);
    world.check_rest();
}

#[test]
fn the_bytes_that_wait_for_an_account_have_a_limit_too() {
    let mut world = world(Limits::default(), &["alice", "bob"]);
    let alice = login(&mut world, "alice@example.org/x");
    world.faults.piece_bytes = (20_000, 60_000);
    let body = "x".repeat(60_000);
    let count = 60;
    for index in 0..count {
        world.send(
            alice,
            &format!("<message to='bob@example.org' id='{index}'><body>{body}</body></message>"),
        );
    }
    world.run();
    let bounced = world.received(alice);
    let bounced = bounced
        .iter()
        .filter(|answer| answer.condition() == "resource-constraint")
        .count();
    let fits = (xmpp::limit::OFFLINE_SIZE_MAX / 60_200) as usize;
    assert!((count - bounced).abs_diff(fits) <= 1, "{bounced} bounced");
    // What waits is delivered whole, in one go.
    let bob = login(&mut world, "bob@example.org/x");
    world.send(bob, "<presence/>");
    world.run();
    let got = world.received(bob);
    let got = got.iter().filter(|stanza| stanza.name == "message").count();
    assert_eq!(got + bounced, count);
}

#[test]
fn whoever_has_an_account_is_not_anonymous_whatever_its_name() {
    let mut world = world(Limits::default(), &["anon-bob"]);
    let bob = login(&mut world, "anon-bob@example.org/x");
    let enable = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
    assert_eq!(ask(&mut world, bob, enable)[0].attr("resume"), "true");
    let set = "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
               <item jid='a@example.org'/></query></iq>";
    assert_eq!(ask(&mut world, bob, set)[0].attr("type"), "result");
    // Nobody gets such a name any more: it might be a guest's.
    assert_eq!(register(&mut world, "Anon-carl"), "error not-acceptable");
}
