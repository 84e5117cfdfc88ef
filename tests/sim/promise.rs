//! The promise of stream management, over many seeds: what was acknowledged is not lost, nothing
//! comes twice where both ends resume, whatever happens to the network, the process and the disk.
//!
//! `SIM_SEED` plays one seed only, `SIM_SEEDS` as many as it says; a failure prints its seed.

use sim::managed::Managed;
use sim::play::{Play, Plot};
use sim::steps::{errors, homes, message, messages};
use sim::{ClientId, Element, Faults, Login, World, for_every_seed};
use xmpp::Settings;
use xmpp::limit::{ANSWER_AHEAD_MS, LOAD_QUEUE_MAX, REQUESTS_PER_SESSION_MAX};
use xmpp::settings::Durability;

/// How many seeds each property is tried with, unless the environment says otherwise.
const SEEDS: u64 = 200;

const REQUEST: &str = "<r xmlns='urn:xmpp:sm:3'/>";

#[test]
fn what_is_acknowledged_survives_lost_connections_exactly_once() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            losses: 60,
            ..Plot::default()
        };
        let play = Play::new(seed, plot);
        play.check();
        play.check_exactly_once();
    });
}

#[test]
fn what_is_acknowledged_survives_crashes_of_the_process() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            crashes: 1 + seed % 4,
            losses: 20,
            jumps: seed % 3,
            ..Plot::default()
        };
        let play = Play::new(seed, plot);
        play.check();
        let sessions = |managed: &Managed| managed.0.borrow().epoch;
        if play.people.iter().map(sessions).all(|epoch| epoch == 1) {
            play.check_exactly_once();
        }
    });
}

#[test]
fn sessions_survive_a_shutdown() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            restarts: 1 + seed % 3,
            losses: 20,
            ..Plot::default()
        };
        Play::new(seed, plot).check();
    });
}

#[test]
fn what_is_acknowledged_survives_everything_at_once() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            crashes: seed % 4,
            restarts: seed % 2,
            losses: 30,
            farewells: 30,
            disk_fails: seed % 3 == 0,
            jumps: seed % 5,
            ..Plot::default()
        };
        Play::new(seed, plot).check();
    });
}

#[test]
fn the_plays_are_rough_enough_to_prove_something() {
    let (mut resumed, mut new, mut heard, mut delayed) = (0, 0, 0, 0);
    for seed in 1..=40 {
        let plot = Plot {
            crashes: 2,
            restarts: 1,
            losses: 30,
            farewells: 10,
            ..Plot::default()
        };
        let play = Play::new(seed, plot);
        for managed in &play.people {
            let person = managed.0.borrow();
            resumed += person.resumptions;
            new += person.epoch;
            heard += person.heard.len();
            delayed += person.heard.iter().filter(|heard| heard.delayed).count();
        }
    }
    assert!(
        resumed > 100 && new > 100 && heard > 4_000 && delayed > 500,
        "{resumed} resumed, {new} new, {heard} heard, {delayed} of them late"
    );
}

#[test]
fn an_orderly_end_keeps_what_sessions_hold_that_live_in_memory() {
    let settings = Settings {
        durability: Durability::Archive,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(1, settings, Faults::calm());
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    let [alice, bob] = ["alice", "bob"].map(|name| {
        let id = world.connect(Login::new(&format!("{name}@example.org/x"), "secret"));
        world.run();
        let enable = "<enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>";
        world.send(id, enable);
        world.run();
        id
    });
    world.vanish(bob);
    world.run();
    world.send(
        alice,
        "<message to='bob@example.org' id='m'><body/></message>",
    );
    world.run();
    world.shut_down();
    world.run();
    world.crash();
    let bob = world.connect(Login::new("bob@example.org/y", "secret"));
    world.run();
    world.send(bob, "<presence/>");
    world.run();
    let got = world.received(bob);
    assert!(got.iter().any(|stanza| stanza.attr("id") == "m"), "{got:?}");
}

/// A managed client of alice's, who knows bob.
fn alice_and_bob() -> (World, ClientId) {
    let settings = Settings {
        shards: 2,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(3, settings, Faults::calm());
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    let alice = world.connect(Login::new("alice@example.org/x", "secret"));
    world.run();
    world.send(alice, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    world.run();
    world.received(alice);
    (world, alice)
}

/// The highest `h` that a client was told meanwhile.
fn h(world: &mut World, client: ClientId) -> u32 {
    world.send(client, REQUEST);
    world.run();
    let answers = world.received(client);
    let told = answers.iter().filter(|answer| answer.name == "a");
    told.map(|a| a.attr("h").parse().expect("a number"))
        .max()
        .expect("an answer")
}

#[test]
fn a_subscription_that_storage_refuses_is_not_acknowledged_before_it_is_there() {
    let (mut world, alice) = alice_and_bob();
    // So that his account is in memory.
    world.connect(Login::new("bob@example.org/x", "secret"));
    world.run();
    world.faults.disk_failures = 1_000;
    world.send(alice, "<presence to='bob@example.org' type='subscribe'/>");
    world.run();
    assert_eq!(h(&mut world, alice), 0);
    world.run_for(5_000);
    assert_eq!(
        h(&mut world, alice),
        0,
        "nor while the disk goes on failing"
    );
    world.faults.disk_failures = 0;
    world.run_for(5_000);
    assert_eq!(h(&mut world, alice), 1);
    world.crash();
    world.run();
    let alice = world.connect(Login::new("alice@example.org/y", "secret"));
    let bob = world.connect(Login::new("bob@example.org/y", "secret"));
    world.run();
    world.received(alice);
    world.send(
        alice,
        "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>",
    );
    world.send(bob, "<presence/>");
    world.run();
    let roster = world.received(alice);
    let item = &roster.last().expect("a result").children[0].children[0];
    assert_eq!(
        (item.attr("jid"), item.attr("ask")),
        ("bob@example.org", "subscribe")
    );
    let requests = world.received(bob);
    assert!(
        requests.iter().any(|it| it.attr("type") == "subscribe"),
        "{requests:?}"
    );
}

#[test]
fn what_storage_refused_is_acknowledged_unasked_when_it_is_there() {
    let message = "<message to='bob@example.org' type='chat'><body/></message>";
    // The number is refused, or the session that it would be of.
    for (sent, is_full) in [(message, false), ("<presence/>", true)] {
        let (mut world, alice) = alice_and_bob();
        world.faults.disk_full = is_full;
        world.send(alice, sent);
        world.run();
        world.faults.disk_full = true;
        assert_eq!(h(&mut world, alice), 0, "{sent}");
        world.run_for(5_000);
        let told = world.received(alice);
        assert!(told.is_empty(), "while the disk is full: {told:?}");
        world.faults.disk_full = false;
        world.run_for(5_000);
        let told = world.received(alice);
        let told: Vec<&str> = told.iter().map(|it| it.attr("h")).collect();
        assert_eq!(told, ["1"], "{sent}");
    }
}

#[test]
fn a_removal_that_storage_refuses_is_answered_when_it_is_there() {
    let (mut world, alice) = alice_and_bob();
    let bob = world.connect(Login::new("bob@example.org/x", "secret"));
    world.run();
    let roster = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
    world.send(bob, &format!("{roster}<presence/>"));
    world.send(alice, "<presence/>");
    world.send(alice, "<presence to='bob@example.org' type='subscribe'/>");
    world.run();
    world.send(bob, "<presence to='alice@example.org' type='subscribed'/>");
    world.run();
    for client in [alice, bob] {
        world.received(client);
    }
    let remove = "<iq type='set' id='r'><query xmlns='jabber:iq:roster'>\
                  <item jid='bob@example.org' subscription='remove'/></query></iq>";
    assert_eq!(h(&mut world, alice), 2);
    world.faults.disk_failures = 1_000;
    world.send(alice, remove);
    world.run();
    let answers = world.received(alice);
    assert!(answers.iter().all(|it| it.attr("id") != "r"), "{answers:?}");
    world.run_for(5_000);
    assert_eq!(h(&mut world, alice), 2, "nor is it acknowledged");
    // What follows it reaches the contact behind it.
    let subscribe = "<presence to='bob@example.org' type='subscribe'/>";
    world.send(alice, subscribe);
    world.faults.disk_failures = 0;
    world.run_for(5_000);
    assert_eq!(h(&mut world, alice), 4);
    let told = world.received(bob);
    let types = told.iter().map(|it| it.attr("type"));
    let types: Vec<&str> = types.filter(|it| it.contains("subscribe")).collect();
    assert_eq!(types, ["unsubscribe", "subscribe"]);
}

/// The numbers that a client was told.
fn told(received: &[Element]) -> Vec<usize> {
    let answers = received.iter().filter(|it| it.name == "a");
    let told = answers.map(|a| a.attr("h").parse().expect("a number"));
    told.collect()
}

/// As many messages as have a client's stanzas wait, and more, for a disk that hangs; and what was
/// acknowledged before.
fn held_back(more: usize) -> (World, [ClientId; 2], Vec<String>, usize) {
    let (mut world, alice) = alice_and_bob();
    let (bob, _) = world.log_in_managed("bob@example.org/x");
    world.tell(bob, "<presence/>");
    let before = h(&mut world, alice);
    world.faults.disk_us = (60_000_000, 60_000_000);
    let count = usize::from(REQUESTS_PER_SESSION_MAX) + more;
    let ids: Vec<String> = (0..count).map(|id| id.to_string()).collect();
    let all = ids.iter().map(|id| message("chat", "bob@example.org", id));
    world.send(alice, &all.collect::<String>());
    (world, [alice, bob], ids, before as usize)
}

fn check_comes(mut world: World, [alice, bob]: [ClientId; 2], ids: &[String], all: usize) {
    world.send(alice, REQUEST);
    world.run();
    assert_eq!(told(&world.received(alice)).pop(), Some(all));
    assert_eq!(messages(&world.received(bob)), ids);
    world.check_rest();
}

/// Nothing but a stanza waits behind those that have no answer.
#[test]
fn a_disk_that_hangs_does_not_keep_the_answer_from_who_only_asks_for_one() {
    let (mut world, clients, ids, before) = held_back(0);
    for _ in 0..20 {
        world.send(clients[0], REQUEST);
        world.run_for(500);
        assert_eq!(told(&world.received(clients[0])), [before]);
    }
    // What acknowledges is no stanza either.
    world.send(clients[0], "<a xmlns='urn:xmpp:sm:3' h='0'/> ");
    world.run_for(500);
    check_comes(world, clients, &ids, before + ids.len());
}

/// What is behind so many messages waits for storage; what asks for an acknowledgement is among it.
#[test]
fn who_is_held_back_by_a_disk_that_hangs_is_told_every_second() {
    let (mut world, clients, ids, before) = held_back(8);
    world.run_for(100);
    assert_eq!(told(&world.received(clients[0])), [before], "at once");
    for _ in 0..20 {
        world.send(clients[0], REQUEST);
        world.run_for(ANSWER_AHEAD_MS);
        assert_eq!(told(&world.received(clients[0])), [before]);
    }
    check_comes(world, clients, &ids, before + ids.len());
}

/// Nobody is told of a session whose client is gone.
#[test]
fn a_client_that_is_lost_while_it_is_held_back_is_told_nothing() {
    let (mut world, clients, ids, before) = held_back(8);
    world.run_for(100);
    world.vanish(clients[0]);
    world.run_for(10_000);
    world.faults.disk_us = (1, 1);
    world.run();
    assert_eq!(messages(&world.received(clients[1])).len(), ids.len() - 8);
    assert_eq!(before, 0);
    world.check_rest();
}

/// Some clients send only their messages again: what is new must not be taken for what was there.
#[test]
fn a_client_that_sends_only_its_messages_again_loses_none_that_are_new() {
    for answered in [0, 3] {
        let (mut world, alice) = alice_and_bob();
        let bob = world.connect(Login::new("bob@example.org/x", "secret"));
        world.run();
        world.send(
            bob,
            "<enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>",
        );
        world.run();
        world.received(bob);
        // Enabled again, so that the id is at hand.
        world.vanish(alice);
        let alice = world.connect(Login::new("alice@example.org/y", "secret"));
        world.run();
        world.send(alice, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        world.run();
        let id = world.received(alice)[0].attr("id").to_owned();
        let message = |number: u32| {
            format!("<message to='bob@example.org' id='m{number}' type='chat'><body/></message>")
        };
        world.send(alice, &message(0));
        world.run();
        // What the client was told is handled it does not send again, messages or not.
        for _ in 0..answered {
            world.send(alice, REQUEST);
            world.run();
        }
        let told = u32::from(answered > 0);
        world.send(alice, "<presence/><presence><show>away</show></presence>");
        for number in 1..=4 {
            world.send(alice, &message(number));
        }
        world.run();
        world.crash();
        world.run();
        let mut login = Login::new("alice@example.org/y", "secret");
        login.resume = Some((id, 0));
        let alice = world.connect(login);
        world.run();
        assert_eq!(world.client(alice).resumed, Some(told));
        for number in told..=9 {
            world.send(alice, &message(number));
        }
        world.run();
        assert_eq!(h(&mut world, alice), 10 - told + told);
        let bob = world.connect(Login::new("bob@example.org/z", "secret"));
        world.run();
        world.send(bob, "<presence/>");
        world.run_for(400_000);
        let got = world.received(bob);
        let mut ids: Vec<&str> = got.iter().map(|it| it.attr("id")).collect();
        ids.retain(|id| id.starts_with('m'));
        ids.sort_unstable();
        let all = ["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9"];
        assert_eq!(ids, all, "{told} were told");
    }
}

/// Nor is there always room to hold it, behind what waits for its sender.
#[test]
fn an_error_that_finds_no_place_among_what_is_held_comes_all_the_same() {
    let mut world = World::new(1, Settings::for_tests("example.org"), Faults::calm());
    world.add_account("alice@example.org", "secret");
    world.add_account("bob@example.org", "secret");
    let bob = world.log_in("bob@example.org/x");
    let (alice, _) = world.log_in_managed("alice@example.org/x");
    world.faults.disk_us = (1_000_000, 1_000_000);
    world.send(bob, &message("chat", "alice@example.org", "waits"));
    world.run_for(2);
    for id in 0..LOAD_QUEUE_MAX {
        let text = message("chat", "alice@example.org/x", &id.to_string());
        world.send(bob, &text);
    }
    world.run_for(2);
    let unwanted = message("normal", "bob@example.org/gone", "m");
    world.send(alice, &(unwanted + REQUEST));
    world.run();
    let errors = errors(&world.received(alice)).len();
    assert_eq!(errors, 1, "for the message that went nowhere");
}

/// Whatever it says of itself, an error for it is all that is left of a message.
#[test]
fn an_error_for_what_must_not_be_stored_is_not_lost_behind_its_number() {
    for to in ["bob@example.org/gone", "carol@remote.example"] {
        let mut world = World::new(1, Settings::for_tests("example.org"), Faults::calm());
        world.add_account("alice@example.org", "secret");
        let (alice, session) = world.log_in_managed("alice@example.org/x");
        world.set_reading(alice, false);
        let text = format!(
            "<message to='{to}' id='m'><body/><no-store xmlns='urn:xmpp:hints'/></message>"
        );
        world.send(alice, &(text.clone() + REQUEST));
        world.run();
        world.vanish(alice);
        world.crash();
        world.run();
        let alice = world.resume("alice@example.org/x", &session, 0);
        if world.client(alice).resumed == Some(0) {
            world.tell(alice, &text);
        }
        let errors = errors(&world.received(alice)).len();
        assert_eq!(errors, 1, "{to}");
    }
}

/// Three accounts on each of two shards.
fn two_shards() -> (World, [[String; 3]; 2]) {
    let settings = Settings {
        shards: 2,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(3, settings, Faults::calm());
    let names = [0, 1].map(|shard| {
        let mut names = homes(2, shard);
        [(); 3].map(|()| names.next().expect("they do not end"))
    });
    for name in names.iter().flatten() {
        world.add_account(name, "secret");
    }
    (world, names)
}

fn is_pong(it: &Element) -> bool {
    it.attr("id") == "ping"
}

/// A failing store freezes `h`, never an answer: neither those of other people nor what they send
/// behind them.
#[test]
fn a_refused_subscription_of_one_user_does_not_stop_anothers_input() {
    const CARDS: usize = REQUESTS_PER_SESSION_MAX as usize + 8;
    for is_managed in [false, true] {
        let (mut world, [here, there]) = two_shards();
        world.befriend(&here[0], &there[0]);
        let guilty = world.arrive(&format!("{}/x", here[0]));
        let full = format!("{}/x", here[1]);
        let victim = match is_managed {
            true => world.log_in_managed(&full).0,
            false => world.log_in(&full),
        };
        let friend = world.log_in(&format!("{}/x", here[2]));
        world.received(victim);
        world.faults.disk_full = true;
        let step = format!("<presence type='unsubscribe' to='{}'/>", there[0]);
        world.send(guilty, &step);
        world.run_for(3_000);
        let card = "<vCard xmlns='vcard-temp'/>";
        let card = format!("<iq type='get' id='card' to='{}'>{card}</iq>", there[1]);
        let ping = "<iq type='get' id='ping'><ping xmlns='urn:xmpp:ping'/></iq>";
        let headline = message("headline", &format!("{}/x", here[2]), "m");
        world.send(victim, &(card.repeat(CARDS) + ping + &headline + REQUEST));
        world.run_for(10_000);
        let received = world.received(victim);
        let cards = received.iter().filter(|it| it.attr("id") == "card");
        assert_eq!(cards.count(), CARDS, "managed {is_managed}");
        assert!(received.iter().any(is_pong), "managed {is_managed}");
        let is_told = received.iter().any(|it| it.name == "a");
        assert_eq!(is_told, is_managed);
        assert_eq!(messages(&world.received(friend)), ["m"]);
        world.faults.disk_full = false;
        world.run_for(2_000);
        world.run();
        world.check_rest();
    }
}

/// What is not stored does not wait for what is.
#[test]
fn requests_between_clients_do_not_wait_for_other_peoples_messages() {
    const REQUESTS: usize = REQUESTS_PER_SESSION_MAX as usize + 8;
    let (mut world, [here, there]) = two_shards();
    let writer = world.log_in(&format!("{}/x", here[0]));
    let (reader, _) = world.log_in_managed(&format!("{}/x", there[0]));
    world.tell(reader, "<presence/>");
    let asker = world.log_in(&format!("{}/x", here[1]));
    let friend = world.log_in(&format!("{}/x", there[1]));
    world.faults.disk_us = (2_000_000, 2_000_000);
    world.send(writer, &message("chat", &there[0], "stored"));
    world.run_for(10);
    let full = format!("{}/x", there[1]);
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    let ping = format!("<iq type='get' id='ping' to='{full}'>{ping}</iq>");
    let behind = message("headline", &full, "behind");
    world.send(asker, &(ping.repeat(REQUESTS) + &behind));
    world.run_for(1_000);
    let received = world.received(friend);
    let pings = received.iter().filter(|it| is_pong(it)).count();
    assert_eq!(
        (pings, &messages(&received)[..]),
        (REQUESTS, &["behind"][..])
    );
    world.run();
    world.check_rest();
}
