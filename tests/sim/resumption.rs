//! The way into stream management and back to a session, where something comes in between.

use sim::client::Phase;
use sim::steps::{counted, errors, message, messages};
use sim::{Element, Faults, World};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::limit::Limits;
use xmpp::port::{RosterItem, StoreOp};

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
const REQUEST: &str = "<r xmlns='urn:xmpp:sm:3'/>";
const ROSTER: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";

/// How long a slow disk takes, in microseconds.
const SLOW_US: (u64, u64) = (100_000, 100_000);

/// A world with alice and bob in it.
fn world() -> World {
    let mut world = World::new(3, Settings::for_tests("example.org"), Faults::calm());
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    world
}

fn has(received: &[Element], id: &str) -> bool {
    received.iter().any(|stanza| stanza.attr("id") == id)
}

/// Bob's session with the message `m` in it, after a crash of the process; how many stanzas he has
/// had before it.
fn bob_after_a_crash() -> (World, String, u32) {
    let mut world = world();
    let alice = world.log_in("alice@example.org/x");
    let (bob, id) = world.log_in_managed("bob@example.org/x");
    world.send(bob, &format!("{ROSTER}<presence/>"));
    world.run();
    let had = counted(&world.received(bob));
    world.vanish(bob);
    world.run();
    let message = "<message to='bob@example.org' id='m' type='chat'><body/></message>";
    world.send(alice, message);
    world.run();
    world.crash();
    world.run();
    (world, id, had)
}

#[test]
fn a_session_that_storage_does_not_give_back_at_once_is_given_back_later() {
    let (mut world, id, had) = bob_after_a_crash();
    world.faults.disk_full = true;
    for _ in 0..2 {
        let bob = world.resume("bob@example.org/x", &id, had);
        let error = world.client(bob).stream_error.as_deref();
        assert_eq!(error, Some("internal-server-error"));
    }
    world.faults.disk_full = false;
    let bob = world.resume("bob@example.org/x", &id, had);
    assert!(world.client(bob).resumed.is_some());
    let received = world.received(bob);
    assert!(has(&received, "m"), "{received:?}");
    let own = received.iter().filter(|it| it.name == "presence");
    assert_eq!(own.count(), 1, "presence is refreshed: {received:?}");
    // Storage has the numbers that the client counts by.
    world.crash();
    world.run();
    let had = had + counted(&received);
    let bob = world.resume("bob@example.org/x", &id, had);
    assert!(world.client(bob).resumed.is_some());
    assert!(!has(&world.received(bob), "m"), "it had the message");
}

#[test]
fn a_session_is_given_back_although_the_first_connection_was_lost_on_the_way() {
    for moment in (0..60).map(|step| step * 20_000) {
        let (mut world, id, had) = bob_after_a_crash();
        world.faults.disk_us = SLOW_US;
        let lost = world.ask_for("bob@example.org/x", &id, had);
        world.run_until(world.now() + moment);
        world.vanish(lost);
        let bob = world.resume("bob@example.org/x", &id, had);
        assert!(world.client(bob).resumed.is_some(), "after {moment} us");
        assert!(has(&world.received(bob), "m"), "after {moment} us");
    }
}

#[test]
fn the_newer_of_two_connections_gets_the_session_back_from_storage() {
    for moment in (0..60).map(|step| step * 20_000) {
        let (mut world, id, had) = bob_after_a_crash();
        world.faults.disk_us = SLOW_US;
        let older = world.ask_for("bob@example.org/x", &id, had);
        world.run_until(world.now() + moment);
        let newer = world.resume("bob@example.org/x", &id, had);
        let error = world.client(older).stream_error.as_deref();
        assert_eq!(error, Some("conflict"), "after {moment} us");
        assert!(world.client(newer).is_online(), "after {moment} us");
        assert!(has(&world.received(newer), "m"), "after {moment} us");
    }
}

/// Bob has as many sessions as he may, each with a message in it, and lost their connections one
/// after another; the ids of the sessions.
fn bob_away(resources_max: usize) -> (World, Vec<String>) {
    let limits = Limits {
        resources_max,
        ..Limits::default()
    };
    let settings = Settings {
        limits,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(3, settings, Faults::calm());
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    let alice = world.log_in("alice@example.org/x");
    let lose = |number: usize| {
        let full = format!("bob@example.org/{number}");
        let (bob, id) = world.log_in_managed(&full);
        world.vanish(bob);
        world.run_for(1_000);
        world.tell(alice, &message("chat", &full, &number.to_string()));
        id
    };
    let ids = (0..resources_max).map(lose).collect();
    (world, ids)
}

#[test]
fn a_new_client_gets_the_place_of_a_session_that_waits_and_what_is_in_it() {
    for (places, crashes) in [(1, false), (3, false), (1, true), (3, true)] {
        let (mut world, ids) = bob_away(places);
        if crashes {
            world.crash();
            world.run();
        }
        let new = world.arrive("bob@example.org/new");
        assert!(world.client(new).is_online(), "of {places}, {crashes}");
        let received = world.received(new);
        let [ended] = messages(&received)[..] else {
            panic!("of {places}, {crashes}: {received:?}");
        };
        // After a crash all wait equally long.
        assert!(crashes || ended == "0", "{ended} was not the oldest");
        for (number, id) in ids.iter().enumerate() {
            let number = number.to_string();
            if number != ended {
                let bob = world.resume(&format!("bob@example.org/{number}"), id, 0);
                assert!(world.client(bob).resumed.is_some(), "{number} of {places}");
                assert_eq!(messages(&world.received(bob)), [number]);
            }
        }
    }
}

#[test]
fn a_new_client_is_refused_where_none_of_the_sessions_waits() {
    let (mut world, ids) = bob_away(2);
    for (number, id) in ids.iter().enumerate() {
        let bob = world.resume(&format!("bob@example.org/{number}"), id, 0);
        assert!(world.client(bob).resumed.is_some());
    }
    let new = world.log_in("bob@example.org/new");
    let phase = &world.client(new).phase;
    assert!(
        matches!(phase, Phase::Refused(why) if why == "resource-constraint"),
        "{phase:?}"
    );
}

/// A client may ask for less time than there is, and for no more, whoever waits beside it.
#[test]
fn a_session_waits_as_long_as_its_client_asked_for_and_no_longer_than_any() {
    for (asked, waits_s) in [
        ("2", 2),
        ("300", 300),
        ("9999999999", 300),
        ("0", 300),
        ("x", 300),
    ] {
        for comes_after_ms in [waits_s * 1_000 - 500, waits_s * 1_000 + 500] {
            let mut world = world();
            let (alice, _) = world.log_in_managed("alice@example.org/x");
            world.vanish(alice);
            world.run();
            let bob = world.log_in("bob@example.org/x");
            let enable = format!("<enable xmlns='urn:xmpp:sm:3' resume='true' max='{asked}'/>");
            world.tell(bob, &enable);
            let enabled = world.received(bob).remove(0);
            assert_eq!(enabled.attr("max"), waits_s.to_string(), "{asked}");
            world.vanish(bob);
            world.run_for(comes_after_ms);
            let bob = world.resume("bob@example.org/x", enabled.attr("id"), 0);
            let is_back = world.client(bob).resumed.is_some();
            assert_eq!(is_back, comes_after_ms < waits_s * 1_000, "{asked}");
        }
    }
}

#[test]
fn a_request_that_comes_with_enable_is_answered() {
    let ping = "<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>";
    let headline = "<message to='bob@example.org' type='headline'><body/></message>";
    for (between, handled) in [("", "0"), (ping, "1"), (headline, "1")] {
        let mut world = world();
        let alice = world.log_in("alice@example.org/x");
        world.send(alice, &format!("{ENABLE}{between}{REQUEST}"));
        world.run();
        let received = world.received(alice);
        let place = |name: &str| received.iter().position(|it| it.name == name);
        assert!(place("enabled") < place("a"), "{received:?}");
        let told = received.iter().rev().find(|it| it.name == "a");
        let told = told.expect("an answer").attr("h");
        assert_eq!(told, handled, "{received:?}");
    }
}

/// Bob's roster in storage has so many contacts, each in so many groups with long names.
fn give_contacts(world: &mut World, contacts: u32, groups: usize) {
    let account = BareJid::parse("bob@example.org").expect("an address");
    for number in 0..contacts {
        let contact = BareJid::parse(&format!("contact{number}@example.org"));
        let mut item = RosterItem::new(contact.expect("an address"));
        item.listed = true;
        item.changed = u64::from(number) + 1;
        let group = |group: usize| format!("{group:01000}").into();
        item.groups = (0..groups).map(group).collect();
        let (account, item) = (account.clone(), Box::new(item));
        world.perform(StoreOp::PutRosterItem { account, item });
    }
}

/// After a crash a client gets its whole roster, which is as much as may be unacknowledged.
#[test]
fn a_long_roster_that_comes_after_a_crash_leaves_room_for_messages() {
    let limit = 4_000;
    // By count, and by size.
    for (contacts, groups) in [(limit, 0), (1_500, 4)] {
        let mut world = world();
        world.faults.unsent_max = 64 << 20;
        let (bob, id) = world.log_in_managed("bob@example.org/x");
        world.send(bob, &format!("{ROSTER}<presence/>"));
        world.run();
        let had = counted(&world.received(bob));
        world.crash();
        give_contacts(&mut world, contacts, groups);
        let alice = world.log_in("alice@example.org/x");
        let bob = world.resume("bob@example.org/x", &id, had);
        assert!(counted(&world.received(bob)) >= contacts);
        let message = "<message to='bob@example.org' id='m' type='chat'><body/></message>";
        for _ in 0..limit / 2 {
            world.send(alice, message);
        }
        world.run();
        assert!(world.client(bob).is_online(), "{contacts} contacts");
        assert!(has(&world.received(bob), "m"));
        for _ in 0..=limit / 2 {
            world.send(alice, message);
        }
        world.run();
        let error = world.client(bob).stream_error.as_deref();
        assert_eq!(error, Some("resource-constraint"), "there is a limit");
    }
}

/// A roster may be as much as may be unacknowledged, in one piece or in pushes.
#[test]
fn a_long_roster_that_is_asked_for_leaves_room_for_messages() {
    let versioned = "<iq type='get' id='r'><query xmlns='jabber:iq:roster' ver='1-0'/></iq>";
    for (asks, stanzas) in [(ROSTER, 1), (versioned, 1_500)] {
        let mut world = world();
        world.faults.unsent_max = 64 << 20;
        give_contacts(&mut world, 1_500, 4);
        let alice = world.log_in("alice@example.org/x");
        let (bob, _) = world.log_in_managed("bob@example.org/x");
        world.tell(bob, &format!("<presence/>{asks}"));
        let message = "<message to='bob@example.org' id='m' type='chat'><body/></message>";
        world.tell(alice, message);
        assert!(world.client(bob).is_online());
        let received = world.received(bob);
        assert!(has(&received, "m"));
        assert!(counted(&received) > stanzas);
        // Whoever has it may ask again; whoever does not say so may not ask for ever.
        let h = counted(&received);
        world.tell(bob, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>{asks}"));
        world.tell(alice, message);
        assert!(world.client(bob).is_online());
        world.tell(bob, asks);
        world.tell(alice, message);
        let error = world.client(bob).stream_error.as_deref();
        assert_eq!(error, Some("resource-constraint"));
    }
}

/// A client asks for all its contacts' cards at once, before it can acknowledge the first, and more
/// of them may wait behind a message to itself that is on its way to storage.
#[test]
fn who_asks_for_many_large_cards_at_once_gets_them_all() {
    const CARDS: usize = 100;
    let own = message("chat", "bob@example.org/x", "m");
    for (own, disk_us) in [("", (50, 200)), (own.as_str(), SLOW_US)] {
        let mut world = world();
        world.faults.unsent_max = 64 << 20;
        give_card(&mut world);
        let (bob, id) = world.log_in_managed("bob@example.org/x");
        let fast_us = std::mem::replace(&mut world.faults.disk_us, disk_us);
        world.send(bob, own);
        world.run_for(10);
        world.faults.disk_us = fast_us;
        world.tell(bob, &cards(CARDS));
        let received = world.received(bob);
        assert!(world.client(bob).is_online());
        assert_eq!(results(&received), CARDS);
        // Two MiB of them are kept; who has not had the others is told to ask again.
        world.vanish(bob);
        world.run();
        let bob = world.resume("bob@example.org/x", &id, 0);
        let again = world.received(bob);
        assert_eq!(counted(&again), counted(&received));
        let refused = errors(&again);
        let told = refused.iter().map(|(_, condition)| *condition);
        assert!(told.clone().all(|it| it == "resource-constraint"));
        let kept = results(&again);
        assert!((14..20).contains(&kept), "{kept} cards");
        assert_eq!(kept + refused.len(), CARDS);
        assert_eq!(has(&again, "m"), !own.is_empty());
        // Whoever has acknowledged has as much room as before.
        let h = counted(&again);
        let ack = format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>");
        world.tell(bob, &(ack + &cards(10)));
        world.received(bob);
        world.vanish(bob);
        world.run();
        let bob = world.resume("bob@example.org/x", &id, h);
        assert_eq!(results(&world.received(bob)), 10);
    }
}

/// Of what is answered when its client is away, too, two MiB are kept.
#[test]
fn who_asks_for_many_large_cards_and_goes_has_some_of_them_kept() {
    let mut world = world();
    give_card(&mut world);
    let (bob, id) = world.log_in_managed("bob@example.org/x");
    world.faults.disk_us = SLOW_US;
    world.send(bob, &cards(30));
    world.run_for(10);
    world.vanish(bob);
    world.run();
    world.faults.disk_us = (50, 200);
    let bob = world.resume("bob@example.org/x", &id, 0);
    let received = world.received(bob);
    assert_eq!((results(&received), errors(&received).len()), (16, 14));
}

/// Errors that are kept instead of answers count as any stanza does.
#[test]
fn who_acknowledges_no_card_may_not_ask_for_ever() {
    const PING: &str = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
    let mut world = world();
    world.faults.unsent_max = 64 << 20;
    give_card(&mut world);
    let (bob, _) = world.log_in_managed("bob@example.org/x");
    world.tell(bob, &(cards(40) + &PING.repeat(4_000 - 40)));
    assert!(world.client(bob).is_online());
    world.tell(bob, &cards(1));
    let error = world.client(bob).stream_error.as_deref();
    assert_eq!(error, Some("resource-constraint"));
}

/// Alice publishes a card that is nearly as large as may be.
fn give_card(world: &mut World) {
    let alice = world.log_in("alice@example.org/x");
    let photo = "A".repeat(125 << 10);
    let card = format!("<vCard xmlns='vcard-temp'><NOTE>{photo}</NOTE></vCard>");
    world.tell(alice, &format!("<iq type='set' id='v'>{card}</iq>"));
    assert_eq!(results(&world.received(alice)), 1);
}

/// So many requests for it.
fn cards(count: usize) -> String {
    let request = "<iq type='get' id='v' to='alice@example.org'><vCard xmlns='vcard-temp'/></iq>";
    request.repeat(count)
}

fn results(received: &[Element]) -> usize {
    let results = received.iter().filter(|it| it.attr("type") == "result");
    results.count()
}

/// A presence that is as large as may be.
fn large_presence() -> String {
    let status = "x".repeat(16_000);
    format!("<presence><status>{status}</status></presence>")
}

/// What comes with a login comes before anything can be acknowledged.
#[test]
fn no_contact_keeps_a_client_out_by_what_its_resources_say() {
    for contacts in [1, 2] {
        let mut world = world();
        world.faults.unsent_max = 64 << 20;
        for contact in ["carl", "dora"].into_iter().take(contacts) {
            world.add_account(&format!("{contact}@example.org"), "secret");
            world.befriend("bob@example.org", &format!("{contact}@example.org"));
            for number in 0..16 {
                let resource = format!("{number}{}", "r".repeat(900));
                let client = world.log_in(&format!("{contact}@example.org/{resource}"));
                world.tell(client, &large_presence());
            }
        }
        let (bob, _) = world.log_in_managed("bob@example.org/x");
        world.tell(bob, "<presence/>");
        assert!(world.client(bob).is_online());
    }
}

/// More presence than there may be messages; these have their room all the same.
#[test]
fn many_presences_leave_room_for_messages() {
    let mut world = world();
    let alice = world.log_in("alice@example.org/x");
    let (bob, _) = world.log_in_managed("bob@example.org/x");
    for _ in 0..5_000 {
        world.send(alice, "<presence to='bob@example.org/x'/>");
    }
    world.tell(alice, &message("chat", "bob@example.org/x", "m"));
    assert!(world.client(bob).is_online());
    assert!(has(&world.received(bob), "m"));
}

#[test]
fn a_session_whose_client_is_away_is_sent_so_much_presence_and_ends() {
    let mut world = world();
    world.befriend("bob@example.org", "alice@example.org");
    let alice = world.arrive("alice@example.org/x");
    let (bob, _) = world.log_in_managed("bob@example.org/x");
    world.tell(bob, "<presence/>");
    world.vanish(bob);
    world.run();
    world.received(alice);
    let is_gone = |world: &mut World| {
        world.tell(alice, &large_presence());
        let received = world.received(alice);
        received.iter().any(|it| it.attr("type") == "unavailable")
    };
    let ends = (0..1_000).position(|_| is_gone(&mut world));
    let fit = (8 << 20) / large_presence().len();
    let is_near = |ends: usize| (fit - 10..=fit).contains(&ends);
    assert!(
        ends.is_some_and(is_near),
        "8 MiB are {fit} of them: {ends:?}"
    );
}

#[test]
fn a_request_to_a_client_that_is_away_is_answered_before_the_server_ends() {
    let mut world = world();
    let (alice, _) = world.log_in_managed("alice@example.org/x");
    let (bob, _) = world.log_in_managed("bob@example.org/x");
    world.send(alice, REQUEST);
    world.vanish(bob);
    world.run();
    let request = |type_: &str| {
        format!("<iq type='{type_}' id='{type_}' to='bob@example.org/x'><a xmlns='b'/></iq>")
    };
    for type_ in ["get", "set", "result"] {
        world.send(alice, &request(type_));
    }
    world.run();
    world.received(alice);
    world.shut_down();
    world.run();
    let received = world.received(alice);
    let errors = received.iter().filter(|it| it.name == "iq");
    let errors: Vec<_> = errors.map(|it| (it.attr("id"), it.condition())).collect();
    let expected = ["get", "set"].map(|id| (id, "service-unavailable"));
    assert_eq!(errors, expected, "{received:?}");
}

/// A message that its sender forbids to be stored (XEP-0334 4.3).
fn unstored(type_: &str, to: &str, id: &str) -> String {
    format!(
        "<message type='{type_}' to='{to}' id='{id}'><body>x</body>\
         <no-store xmlns='urn:xmpp:hints'/></message>"
    )
}

#[test]
fn a_message_that_only_the_memory_of_a_session_has_bounces_before_the_server_ends() {
    for is_managed in [false, true] {
        let mut world = world();
        let alice = match is_managed {
            true => world.log_in_managed("alice@example.org/x").0,
            false => world.log_in("alice@example.org/x"),
        };
        let (bob, _) = world.log_in_managed("bob@example.org/x");
        world.vanish(bob);
        world.run();
        for type_ in ["chat", "normal", "headline", "groupchat", "error"] {
            world.send(alice, &unstored(type_, "bob@example.org/x", type_));
        }
        world.send(alice, &message("chat", "bob@example.org/x", "stored"));
        let state = "<message to='bob@example.org/x' type='chat' id='state'>\
                     <active xmlns='http://jabber.org/protocol/chatstates'/></message>";
        world.tell(alice, state);
        assert!(errors(&world.received(alice)).is_empty());
        world.shut_down();
        world.run();
        let received = world.received(alice);
        let expected = ["chat", "normal"].map(|id| (id, "service-unavailable"));
        assert_eq!(errors(&received), expected, "managed: {is_managed}");
    }
}

/// What another resource has, or will have when its client is back, did not get lost.
#[test]
fn of_sessions_that_lose_a_message_with_the_server_the_last_one_bounces_it() {
    for is_there in [false, true] {
        let mut world = world();
        let alice = world.log_in("alice@example.org/x");
        let bobs = ["x", "y"].map(|resource| {
            let bob = world.log_in_managed(&format!("bob@example.org/{resource}"));
            world.tell(bob.0, "<presence/>");
            bob.0
        });
        world.vanish(bobs[0]);
        if !is_there {
            world.vanish(bobs[1]);
        }
        world.run();
        world.tell(alice, &unstored("chat", "bob@example.org", "m"));
        world.shut_down();
        world.run();
        let expected = [("m", "service-unavailable")];
        let expected = &expected[usize::from(is_there)..];
        assert_eq!(errors(&world.received(alice)), expected);
    }
}

/// Wherever they are at home: no shard takes leave before all have said what they must.
#[test]
fn senders_of_all_shards_hear_what_is_lost_with_the_server() {
    const SENDERS: [&str; 6] = ["alice", "carol", "dave", "eve", "frank", "grace"];
    for seed in 1..=20 {
        let settings = Settings {
            shards: 3,
            ..Settings::for_tests("example.org")
        };
        let mut world = World::new(seed, settings, Faults::calm());
        for name in SENDERS.iter().chain(&["bob"]) {
            world.add_account(&format!("{name}@example.org"), "secret");
        }
        let senders = SENDERS.map(|name| world.log_in(&format!("{name}@example.org/x")));
        let (bob, _) = world.log_in_managed("bob@example.org/x");
        world.vanish(bob);
        world.run();
        for sender in senders {
            world.tell(sender, &unstored("chat", "bob@example.org/x", "message"));
            let request = "<iq type='get' id='request' to='bob@example.org/x'><a xmlns='b'/></iq>";
            world.tell(sender, request);
        }
        world.shut_down();
        world.run();
        for (name, sender) in SENDERS.iter().zip(senders) {
            let expected = ["message", "request"].map(|id| (id, "service-unavailable"));
            let received = world.received(sender);
            assert_eq!(errors(&received), expected, "seed {seed}: {name}");
        }
    }
}

/// A session is written as a whole, with everybody who has directed presence of it.
#[test]
fn a_session_that_changes_many_times_is_written_few_times() {
    let mut world = world();
    let (bob, _) = world.log_in_managed("bob@example.org/x");
    world.faults.disk_us = SLOW_US;
    let presence = |number: u32| format!("<presence><status>{number}</status></presence>");
    let directed = |number: u32| format!("<presence to='alice@example.org/{number}'/>");
    let both = |number| presence(number) + &directed(number);
    let writes = |world: &mut World, said: &str| {
        let before = world.session_writes();
        world.tell(bob, said);
        world.session_writes() - before
    };
    let many: String = (1..=500).map(both).collect();
    let count = writes(&mut world, &many);
    assert!((1..10).contains(&count), "{count} writes");
    // What storage has already is not written again.
    assert_eq!(writes(&mut world, &both(500)), 0);
    assert_eq!(writes(&mut world, ROSTER), 1);
    assert_eq!(writes(&mut world, ROSTER), 0);
    let gone = "<presence type='unavailable' to='alice@example.org/1'/>";
    assert_eq!(writes(&mut world, gone), 1);
    assert_eq!(writes(&mut world, gone), 0);
    assert_eq!(writes(&mut world, "<presence type='unavailable'/>"), 1);
    assert_eq!(writes(&mut world, "<presence type='unavailable'/>"), 0);
}

/// The number in the status of the last presence, and the last one that was acknowledged.
fn last_status_and_answer(received: &[Element]) -> (usize, usize) {
    let status = received.iter().rev().find_map(|it| it.child("status"));
    let told = received.iter().rev().find(|it| it.name == "a");
    (
        status.map_or(0, |it| it.text.parse().expect("a number")),
        told.map_or(0, |it| it.attr("h").parse().expect("a number")),
    )
}

/// However fast storage is: it has others to serve.
#[test]
fn a_large_session_that_changes_many_times_is_written_no_faster_than_its_size_allows() {
    let large = "x".repeat(15 << 10);
    for (directed, crashes) in [(false, false), (false, true), (true, false)] {
        let mut world = world();
        let (bob, id) = world.log_in_managed("bob@example.org/x");
        let presence = |number| {
            format!("<presence><status>{number}</status><x xmlns='x'>{large}</x></presence>")
        };
        world.tell(bob, &presence(0));
        let before = world.session_writes();
        for number in 1..300 {
            let change = match directed {
                true => format!("<presence to='alice@example.org/{number}'/>"),
                false => presence(number),
            };
            world.send(bob, &(change + REQUEST));
            world.run_for(1);
        }
        let writes = world.session_writes() - before;
        assert!((11..=21).contains(&writes), "{writes} writes in 300 ms");
        if !crashes {
            world.run_for(100);
            let (_, told) = last_status_and_answer(&world.received(bob));
            assert_eq!(told, 300, "it is acknowledged in time");
            continue;
        }
        let received = world.received(bob);
        let (_, told) = last_status_and_answer(&received);
        assert!(told > 100, "{told} were acknowledged meanwhile");
        world.crash();
        let bob = world.resume("bob@example.org/x", &id, counted(&received));
        let (status, _) = last_status_and_answer(&world.received(bob));
        // The first one has the number 0.
        assert!(
            status + 1 >= told,
            "{told} were acknowledged, {status} is known"
        );
    }
}

#[test]
fn what_a_session_was_when_that_was_acknowledged_survives_a_crash() {
    for moment in (0..60).map(|step| step * 20_000) {
        let mut world = world();
        let (bob, id) = world.log_in_managed("bob@example.org/x");
        world.faults.disk_us = SLOW_US;
        for number in 1..=20 {
            let presence = format!("<presence><status>{number}</status></presence>{REQUEST}");
            world.send(bob, &presence);
            world.run_for(30);
        }
        world.run_until(world.now() + moment);
        let received = world.received(bob);
        let (_, told) = last_status_and_answer(&received);
        world.crash();
        let bob = world.resume("bob@example.org/x", &id, counted(&received));
        let (status, _) = last_status_and_answer(&world.received(bob));
        assert!(
            status >= told,
            "{told} were acknowledged, {status} is known"
        );
    }
}

/// More than may wait for a connection at once: of it the client is given what it takes, and what
/// comes meanwhile comes behind it. One that takes nothing is ended as any.
#[test]
fn a_long_queue_is_written_as_fast_as_its_client_takes_it() {
    const MESSAGES: usize = 12;
    let (large, presence) = ("b".repeat(250_000), large_presence());
    let presence = presence.replace("<presence>", "<presence to='bob@example.org/x'>");
    for reads in [true, false] {
        let mut world = world();
        let alice = world.log_in("alice@example.org/x");
        let (bob, id) = world.log_in_managed("bob@example.org/x");
        world.vanish(bob);
        world.run();
        let tell = |world: &mut World, id: &str| {
            let to = "to='bob@example.org/x' type='chat'";
            let text = format!("<message {to} id='{id}'><body>{id}</body><x>{large}</x></message>");
            world.send(alice, &text);
            world.run_for(1_000);
        };
        for number in 0..MESSAGES {
            tell(&mut world, &number.to_string());
            world.tell(alice, &presence.repeat(2));
        }
        let bob = world.ask_for("bob@example.org/x", &id, 0);
        while world.client(bob).resumed.is_none() {
            world.run_until(world.now() + 100);
        }
        world.set_reading(bob, false);
        let more = if reads { 1 } else { 10 };
        for number in MESSAGES..MESSAGES + more {
            tell(&mut world, &number.to_string());
        }
        world.set_reading(bob, true);
        world.run();
        let received = world.received(bob);
        let expected: Vec<_> = (0..=MESSAGES).map(|number| number.to_string()).collect();
        assert_eq!(
            messages(&received) == expected,
            reads,
            "{:?}",
            messages(&received)
        );
        let error = world.client(bob).stream_error.as_deref();
        assert_eq!(error, (!reads).then_some("resource-constraint"));
        if !reads {
            continue;
        }
        assert!(world.output_peak() < 1 << 20, "{}", world.output_peak());
        // Each has its number.
        let h = counted(&received);
        assert_eq!(h as usize, 3 * MESSAGES + 1);
        world.tell(bob, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
        world.vanish(bob);
        world.run();
        let bob = world.resume("bob@example.org/x", &id, h);
        assert!(world.client(bob).resumed.is_some());
        assert_eq!(counted(&world.received(bob)), 0);
    }
}

/// What a client missed says when it came: what came while it was away, and what was written to a
/// connection on which it came no further.
#[test]
fn what_a_client_gets_late_says_when_it_came() {
    let mut world = world();
    let alice = world.log_in("alice@example.org/x");
    let (bob, id) = world.log_in_managed("bob@example.org/x");
    world.tell(bob, "<presence/>");
    let had = counted(&world.received(bob));
    world.faults.clock_ahead_us = 3_600_000_000;
    world.set_reading(bob, false);
    world.tell(alice, &message("chat", "bob@example.org", "written"));
    world.vanish(bob);
    world.run();
    world.run_for(100_000);
    world.tell(alice, &message("chat", "bob@example.org", "waited"));
    world.run_for(100_000);
    let bob = world.resume("bob@example.org/x", &id, had);
    // Whatever the clock shows by then.
    world.faults.clock_ahead_us = 0;
    world.tell(alice, &message("chat", "bob@example.org", "now"));
    let received = world.received(bob);
    let stamp = |id| {
        let message = received.iter().find(|it| it.attr("id") == id);
        let delay = message.expect("it came").child("delay");
        delay.map(|delay| delay.attr("stamp"))
    };
    let stamps = ["written", "waited", "now"].map(stamp);
    assert_eq!(
        stamps,
        [
            Some("2026-09-21T15:13:20Z"),
            Some("2026-09-21T15:15:00Z"),
            None
        ]
    );
}

/// What is under way for the numbers of a refused `<enable/>` must not settle those of another.
#[test]
fn who_was_refused_stream_management_is_refused_it_until_the_next_stream() {
    let mut world = world();
    let alice = world.log_in("alice@example.org/x");
    world.faults.disk_full = true;
    world.tell(alice, ENABLE);
    world.faults.disk_full = false;
    world.tell(alice, ENABLE);
    let received = world.received(alice);
    let answers = received.iter().map(|it| (it.name.as_str(), it.condition()));
    let failed = ("failed", "internal-server-error");
    assert_eq!(answers.collect::<Vec<_>>(), [failed; 2]);
    // It goes on without.
    let bob = world.arrive("bob@example.org/x");
    world.tell(alice, &message("chat", "bob@example.org", "m"));
    assert!(has(&world.received(bob), "m"));
    world.log_in_managed("alice@example.org/y");
}
