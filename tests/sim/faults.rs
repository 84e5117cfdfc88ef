//! What was promised, and what people agreed on, over faults: shards that panic, disks that are
//! full for a while, connections that all break at once.
//!
//! `SIM_SEED` plays one seed only, `SIM_SEEDS` as many as it says; a failure prints its seed.

use sim::managed::Managed;
use sim::play::{Play, Plot};
use sim::steps::{errors, message, messages};
use sim::{ClientId, Element, Faults, Login, World, for_every_seed};
use stanza::jid::BareJid;
use xmpp::Settings;
use xmpp::port::{RosterItem, StoreOp, StoreReply, Subscription};

/// How many seeds each property is tried with, unless the environment says otherwise.
const SEEDS: u64 = 200;

/// How many in a thousand deeds are about contacts, where some are.
const STEPS: u64 = 400;

/// How many in a thousand of these give a name.
const NAMES: u64 = 300;

fn always_resumed(play: &Play) -> bool {
    let sessions = |managed: &Managed| managed.0.borrow().epoch;
    play.people.iter().map(sessions).all(|epoch| epoch == 1)
}

/// A shard that panics ends the process (`panic = "abort"`), in the midst of a turn and with
/// parcels in the rings.
#[test]
fn what_is_acknowledged_survives_the_panic_of_a_shard() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            deaths: 1 + seed % 5,
            losses: 20,
            ..Plot::default()
        };
        let play = Play::new(seed, plot);
        play.check();
        if always_resumed(&play) {
            play.check_exactly_once();
        }
    });
}

#[test]
fn a_disk_that_is_full_for_a_while_disturbs_nobody_and_loses_nothing() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            full: 1 + seed % 4,
            steps: STEPS * (seed % 2),
            gathers: true,
            ..Plot::default()
        };
        let mut play = Play::new(seed, plot);
        play.check_undisturbed();
        play.go_on();
        play.check_rosters();
    });
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_nothing_that_people_come_back_for() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            full: 1 + seed % 4,
            crashes: seed % 3,
            deaths: seed % 2,
            losses: 40,
            farewells: 10 * (seed % 2),
            ..Plot::default()
        };
        let mut play = Play::new(seed, plot);
        play.check();
        play.go_on();
    });
}

#[test]
fn writes_whose_sync_fails_lose_nothing_though_a_crash_may_find_them() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            disk_doubts: true,
            crashes: seed % 3,
            deaths: seed % 2,
            losses: 20 * (seed % 2),
            steps: STEPS * (seed % 2),
            gathers: true,
            ..Plot::default()
        };
        let mut play = Play::new(seed, plot);
        play.check();
        play.go_on();
        if plot.crashes + plot.deaths == 0 {
            play.check_rosters();
        }
    });
}

#[test]
fn what_is_acknowledged_survives_storms_of_reconnections() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            storms: 1 + seed % 4,
            crashes: seed % 2,
            deaths: seed % 3,
            forgets: *[0, 300].get((seed % 2) as usize).expect("one of two"),
            ..Plot::default()
        };
        let mut play = Play::new(seed, plot);
        play.check();
        if always_resumed(&play) {
            play.check_exactly_once();
        }
        play.go_on();
    });
}

#[test]
fn rosters_agree_where_only_connections_are_lost() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            losses: 60,
            storms: seed % 2,
            steps: STEPS,
            names: NAMES,
            ..Plot::default()
        };
        Play::new(seed, plot).check_rosters();
    });
}

/// Everybody resumes: what was under way is sent again.
#[test]
fn rosters_agree_over_crashes() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            crashes: seed % 3,
            deaths: 1 + seed % 2,
            steps: STEPS,
            names: NAMES,
            gathers: true,
            ..Plot::default()
        };
        let mut play = Play::new(seed, plot);
        play.check();
        play.check_rosters();
    });
}

#[test]
fn rosters_agree_over_crashes_where_sessions_are_given_up() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            crashes: seed % 3,
            deaths: 1 + seed % 2,
            forgets: 300,
            steps: STEPS,
            names: NAMES,
            ..Plot::default()
        };
        let mut play = Play::new(seed, plot);
        play.check();
        play.check_rosters();
    });
}

#[test]
fn subscriptions_agree_over_a_failing_disk() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            disk_fails: seed % 3 > 0,
            full: 1 + seed % 2,
            steps: STEPS,
            gathers: true,
            ..Plot::default()
        };
        Play::new(seed, plot).check_rosters();
    });
}

#[test]
fn names_that_are_refused_change_nothing() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            disk_fails: seed % 3 > 0,
            full: 1 + seed % 2,
            steps: STEPS,
            names: NAMES,
            gathers: true,
            ..Plot::default()
        };
        Play::new(seed, plot).check_rosters();
    });
}

#[test]
fn rosters_agree_over_everything_at_once() {
    for_every_seed(SEEDS, |seed| {
        let plot = Plot {
            crashes: seed % 3,
            deaths: seed % 2,
            losses: 30,
            farewells: 10,
            disk_fails: seed % 3 == 0,
            full: seed % 2,
            storms: u64::from(seed % 4 == 0),
            forgets: 200,
            slow_disk: seed % 5 == 0,
            steps: STEPS,
            names: NAMES,
            ..Plot::default()
        };
        let mut play = Play::new(seed, plot);
        play.check();
        play.check_rosters();
    });
}

#[test]
fn the_faults_are_rough_enough_to_prove_something() {
    let (mut deaths, mut torn, mut parcels) = (0, 0, 0);
    let (mut bounced, mut resumed, mut new, mut done) = (0, 0, 0, 0);
    for seed in 1..=60 {
        let plot = Plot {
            deaths: 3,
            full: 2,
            storms: 1,
            forgets: 200,
            steps: STEPS,
            gathers: true,
            ..Plot::default()
        };
        let play = Play::new(seed, plot);
        let died = play.world.deaths();
        (deaths, torn) = (deaths + died.count, torn + died.torn);
        parcels += died.parcels;
        for managed in &play.people {
            let person = managed.0.borrow();
            let errors = person.said.values().map(|said| said.errors);
            bounced += errors.sum::<u32>();
            (resumed, new) = (resumed + person.resumptions, new + person.epoch - 1);
            let steps = person.contacts.steps.iter();
            done += steps.filter(|step| step.is_done()).count();
        }
    }
    assert!(
        deaths > 60 && torn > 30 && parcels > 10,
        "{deaths} shards died, {torn} in the midst of a turn, over {parcels} parcels"
    );
    assert!(
        bounced > 100 && resumed > 150 && new > 100 && done > 500,
        "{bounced} bounced, {resumed} resumed, {new} new, {done} steps"
    );
}

const REQUEST: &str = "<r xmlns='urn:xmpp:sm:3'/>";

/// The last number that a client was told.
fn told(received: &[Element]) -> &str {
    let mut answers = received.iter().rev();
    let last = answers.find(|it| it.name == "a");
    last.map_or("", |it| it.attr("h"))
}

const ROSTER: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";

fn set(id: &str, item: &str) -> String {
    format!(
        "<iq type='set' id='{id}'><query xmlns='jabber:iq:roster'>\
         <item jid='bob@example.org' {item}/></query></iq>"
    )
}

/// A world with a managed client of alice's, and one of bob's.
fn alice_and_bob(seed: u64) -> (World, [ClientId; 2], [String; 2]) {
    let settings = Settings {
        shards: 2,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(seed, settings, Faults::calm());
    let clients = ["alice", "bob"].map(|name| {
        world.add_account(&format!("{name}@example.org"), "secret");
        let login = Login::new(&format!("{name}@example.org/x"), "secret");
        world.connect(login)
    });
    world.run();
    let sessions = clients.map(|client| {
        world.send(client, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        world.run();
        let enabled = world.received(client).pop().expect("an answer");
        enabled.attr("id").to_owned()
    });
    (world, clients, sessions)
}

fn stored(world: &mut World, owner: &str, contact: &str) -> RosterItem {
    let [account, contact] =
        [owner, contact].map(|name| BareJid::from_prepared(&format!("{name}@example.org")));
    let StoreReply::Account(Some(data)) = world.perform(StoreOp::Account { account }) else {
        panic!("{owner} is there");
    };
    let mut items = data.roster.into_iter();
    let found = items.find(|item| item.contact == contact);
    found.unwrap_or_else(|| RosterItem::new(contact))
}

#[test]
fn of_two_names_that_a_full_disk_refuses_neither_is_there() {
    let (mut world, [alice, _], _) = alice_and_bob(1);
    world.faults.disk_full = true;
    world.send(alice, &(set("1", "name='one'") + &set("2", "name='two'")));
    world.run();
    let answers = world.received(alice);
    let types: Vec<&str> = answers.iter().map(|answer| answer.attr("type")).collect();
    assert_eq!(types, ["error", "error"]);
    world.faults.disk_full = false;
    world.send(alice, ROSTER);
    world.run();
    let roster = world.received(alice).pop().expect("a roster");
    assert!(roster.children[0].children.is_empty(), "{roster}");
}

/// Storage takes some of a request, which brings the names along that are there by then, and two
/// names: what it has is what the client is shown, in any case.
#[test]
fn names_that_are_refused_around_a_step_are_taken_back_with_it() {
    for seed in 1..=300 {
        let (mut world, [alice, _], _) = alice_and_bob(seed);
        world.faults.disk_failures = 300;
        world.faults.disk_us = (1_000, 10_000);
        world.send(alice, "<presence to='bob@example.org' type='subscribe'/>");
        for name in ["one", "two"] {
            world.send(alice, &set(name, &format!("name='{name}'")));
            world.run_until(world.now() + 9_000);
        }
        world.run();
        world.faults.disk_failures = 0;
        world.run_for(5_000);
        world.received(alice);
        world.send(alice, ROSTER);
        world.run();
        let roster = world.received(alice).pop().expect("a roster");
        let items = &roster.children[0].children;
        let shown = items.first().map_or("", |item| item.attr("name"));
        let item = stored(&mut world, "alice", "bob");
        assert_eq!(shown, &*item.name, "seed {seed}");
    }
}

#[test]
fn a_step_behind_a_name_that_a_full_disk_refuses_is_done_when_it_is_acknowledged() {
    let steps = [
        (
            "<presence to='bob@example.org' type='subscribe'/>".into(),
            true,
        ),
        (set("2", "subscription='remove'"), false),
    ];
    for (step, asks) in steps {
        let (mut world, [alice, _], _) = alice_and_bob(1);
        world.send(alice, &set("0", "name='zero'"));
        world.run();
        world.faults.disk_full = true;
        world.send(alice, &(set("1", "name='one'") + &step));
        world.run();
        world.faults.disk_full = false;
        world.run_for(5_000);
        world.received(alice);
        world.send(alice, "<r xmlns='urn:xmpp:sm:3'/>");
        world.run();
        let acknowledged = world.received(alice).pop().expect("an answer");
        assert_eq!(acknowledged.attr("h"), "3");
        let item = stored(&mut world, "alice", "bob");
        assert_eq!(
            (item.listed, item.ask),
            (asks, asks),
            "{step} left {item:?}"
        );
    }
}

#[test]
fn a_request_that_bounces_off_a_failing_disk_is_on_both_sides_or_on_none() {
    let (mut world, [alice, bob], _) = alice_and_bob(1);
    world.leave(bob);
    world.run_for(400_000);
    world.faults.disk_failures = 1_000;
    world.send(alice, "<presence to='bob@example.org' type='subscribe'/>");
    world.run_for(5_000);
    world.faults.disk_failures = 0;
    world.run_for(5_000);
    let (own, other) = (
        stored(&mut world, "alice", "bob"),
        stored(&mut world, "bob", "alice"),
    );
    assert_eq!(own.ask, other.pending_in.is_some(), "{own:?} and {other:?}");
}

#[test]
fn what_waited_comes_although_the_write_that_fetches_it_fails_at_first() {
    let (mut world, [alice, bob], _) = alice_and_bob(1);
    world.leave(bob);
    world.run_for(400_000);
    let text = "<message to='bob@example.org' id='m' type='chat'><body>hi</body></message>";
    world.send(alice, text);
    world.run();
    let mut got = Vec::new();
    for (resource, failures) in [("y", 1_000), ("z", 0)] {
        let login = Login::new(&format!("bob@example.org/{resource}"), "secret");
        let bob = world.connect(login);
        world.run();
        world.send(bob, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        world.run();
        world.faults.disk_failures = failures;
        world.send(bob, "<presence/>");
        world.run();
        world.faults.disk_failures = 0;
        world.run_for(5_000);
        got.extend(world.received(bob));
        world.leave(bob);
        world.run();
    }
    assert!(got.iter().any(|stanza| stanza.attr("id") == "m"), "{got:?}");
}

/// A resource ends and leaves a message to another one, which the disk does not take: it has it in
/// the queue of the one that ends.
#[test]
fn what_a_session_leaves_to_another_while_the_disk_is_full_waits_for_room() {
    let (mut world, [alice, bob], _) = alice_and_bob(1);
    let (other, _) = world.log_in_managed("bob@example.org/other");
    world.tell(other, "<presence/>");
    let to = world.client(bob).full.clone();
    let text = format!("<message to='{to}' type='chat' id='m'><body>m</body></message>");
    world.tell(alice, &text);
    assert_eq!(messages(&world.received(bob)), ["m"]);
    world.received(alice);
    world.received(other);
    world.faults.disk_full = true;
    world.leave(bob);
    world.run_for(5_000);
    assert_eq!(messages(&world.received(other)), [""; 0]);
    world.faults.disk_full = false;
    world.run_for(5_000);
    assert_eq!(messages(&world.received(other)), ["m"]);
    assert_eq!(errors(&world.received(alice)), []);
}

/// Where it takes some of it, too: also where who sent it is gone and would not hear of an error.
#[test]
fn what_a_session_leaves_to_another_on_a_failing_disk_arrives() {
    for (seed, stays) in (1..=40).flat_map(|seed| [(seed, true), (seed, false)]) {
        let (mut world, [alice, bob], _) = alice_and_bob(seed);
        let (other, _) = world.log_in_managed("bob@example.org/other");
        world.tell(other, "<presence/>");
        let to = world.client(bob).full.clone();
        world.tell(alice, &(message("chat", &to, "m") + REQUEST));
        assert_eq!(told(&world.received(alice)), "1");
        world.received(other);
        if !stays {
            world.leave(alice);
            world.run();
        }
        world.faults.disk_failures = 500;
        world.leave(bob);
        world.run_for(5_000);
        world.faults.disk_failures = 0;
        world.run_for(5_000);
        assert_eq!(messages(&world.received(other)), ["m"], "seed {seed}");
        if stays {
            assert_eq!(errors(&world.received(alice)), [], "seed {seed}");
        }
    }
}

/// A resource ends, and so does the one that it leaves a message to, whatever the disk takes of it.
#[test]
fn what_is_left_and_left_again_on_a_failing_disk_survives_a_crash_at_any_moment() {
    for seed in 1..=200 {
        let (mut world, [alice, bob], _) = alice_and_bob(seed);
        let (other, _) = world.log_in_managed("bob@example.org/other");
        world.tell(other, "<presence/>");
        let to = world.client(bob).full.clone();
        world.tell(alice, &(message("chat", &to, "m") + REQUEST));
        assert_eq!(told(&world.received(alice)), "1");
        world.faults.disk_failures = 500;
        world.faults.disk_us = (1_000, 5_000);
        world.leave(bob);
        world.run_until(world.now() + 1_000);
        world.leave(other);
        world.run_until(world.now() + seed * 100);
        world.crash();
        world.faults.disk_failures = 0;
        let bob = world.log_in("bob@example.org/z");
        world.tell(bob, "<presence/>");
        world.run_for(400_000); // what sessions out of storage hold comes when their time is over
        let got = messages(&world.received(bob)).len();
        assert!((1..=2).contains(&got), "seed {seed}: {got}");
    }
}

/// What becomes of the server when the disk has room again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    GoesOn,
    GoesDown,
    Dies,
}

/// The receiver's session ends while the write of a message is under way, and the disk takes
/// neither: only memory has the message.
#[test]
fn what_is_refused_while_its_session_ends_is_not_acknowledged_before_its_end_is_stored() {
    for fate in [Fate::GoesOn, Fate::GoesDown, Fate::Dies] {
        let (mut world, [alice, bob], [session, _]) = alice_and_bob(1);
        world.tell(bob, "<presence/>");
        world.received(alice);
        world.faults.disk_full = true;
        world.faults.disk_us = (50_000, 50_000);
        let text = message("chat", "bob@example.org", "m");
        world.send(alice, &text);
        world.run_for(10);
        world.leave(bob);
        world.run();
        world.faults.disk_full = false;
        world.faults.disk_us = (50, 50);
        world.tell(alice, REQUEST);
        let received = world.received(alice);
        assert_eq!((told(&received), errors(&received)), ("0", vec![]));
        if fate == Fate::GoesDown {
            world.shut_down();
        }
        if fate != Fate::Dies {
            world.run_for(5_000);
            assert_eq!(told(&world.received(alice)), "1", "{fate:?}");
        }
        world.crash();
        world.run();
        if fate == Fate::Dies {
            let alice = world.resume("alice@example.org/x", &session, 0);
            assert_eq!(world.client(alice).resumed, Some(0));
            world.tell(alice, &text);
        }
        world.run_for(400_000);
        let bob = world.log_in("bob@example.org/y");
        world.tell(bob, "<presence/>");
        assert_eq!(messages(&world.received(bob)), ["m"], "{fate:?}");
    }
}

#[test]
fn a_request_that_comes_while_a_name_is_refused_waits() {
    for seed in 1..=20 {
        let (mut world, [alice, bob], _) = alice_and_bob(seed);
        world.faults.disk_full = true;
        let name = set("1", "name='a'").replace("bob@", "alice@");
        world.send(bob, &name);
        world.send(alice, "<presence to='bob@example.org' type='subscribe'/>");
        world.run();
        world.faults.disk_full = false;
        world.run_for(5_000);
        let (own, other) = (
            stored(&mut world, "alice", "bob"),
            stored(&mut world, "bob", "alice"),
        );
        let asked = (own.ask, other.pending_in.is_some());
        assert_eq!(asked, (true, true), "seed {seed}: {own:?} and {other:?}");
    }
}

/// Bob, whom alice asked or who sees her, says something about that, and the process dies at any
/// moment; he resumes and says it again.
fn said_at_any_crash(says: &str, before: Subscription, after: Subscription) {
    for (seed, moment) in (1..=4).flat_map(|seed| (0..80).map(move |it| (seed, it * 10))) {
        let (mut world, [alice, bob], [_, session]) = alice_and_bob(seed);
        world.send(alice, "<presence to='bob@example.org' type='subscribe'/>");
        world.run();
        if before.is_from() {
            world.send(bob, "<presence to='alice@example.org' type='subscribed'/>");
            world.run();
        }
        let text = format!("{says}<r xmlns='urn:xmpp:sm:3'/>");
        world.send(bob, &text);
        world.run_until(world.now() + moment);
        world.crash();
        world.run();
        let mut login = Login::new("bob@example.org/x", "secret");
        let received = world.received(bob).into_iter();
        let count = received.filter(|it| it.ns == "jabber:client").count() as u32;
        login.resume = Some((session, count));
        let bob = world.connect(login);
        world.run();
        let resumed = world.client(bob).resumed.expect("his session is there");
        if resumed < 1 + u32::from(before.is_from()) {
            world.send(bob, &text);
        }
        world.run();
        let sides = [("alice", "bob"), ("bob", "alice")].map(|(a, b)| stored(&mut world, a, b));
        let place = format!("seed {seed}, {moment} us after {says}: {sides:#?}");
        assert_eq!(sides[1].subscription, after, "{place}");
        assert_eq!(sides[0].subscription.is_to(), after.is_from(), "{place}");
    }
}

#[test]
fn an_approval_that_a_crash_tears_is_whole_when_it_is_said_again() {
    let says = "<presence to='alice@example.org' type='subscribed'/>";
    said_at_any_crash(says, Subscription::None, Subscription::From);
}

#[test]
fn a_refusal_that_a_crash_tears_is_whole_when_it_is_said_again() {
    let says = "<presence to='alice@example.org' type='unsubscribed'/>";
    said_at_any_crash(says, Subscription::From, Subscription::None);
}

#[test]
fn a_removal_that_a_crash_tears_is_whole_when_it_is_said_again() {
    let says = "<iq type='set' id='1'><query xmlns='jabber:iq:roster'>\
                <item jid='alice@example.org' subscription='remove'/></query></iq>";
    said_at_any_crash(says, Subscription::From, Subscription::None);
}

/// Two steps about one contact in one write, and nobody says them again: what was answered stays.
#[test]
fn a_removal_behind_another_step_is_stored_when_it_is_answered() {
    for (seed, moment) in (1..=4).flat_map(|seed| (0..80).map(move |it| (seed, it * 10))) {
        let (mut world, [alice, bob], _) = alice_and_bob(seed);
        world.send(alice, "<presence to='bob@example.org' type='subscribe'/>");
        world.run();
        world.send(bob, "<presence to='alice@example.org' type='subscribed'/>");
        world.run();
        let desk = world.connect(Login::new("alice@example.org/desk", "secret"));
        world.run();
        let leave = "<presence to='bob@example.org' type='unsubscribe'/>";
        world.send(
            desk,
            &format!("{leave}{}", set("1", "subscription='remove'")),
        );
        world.run_until(world.now() + moment);
        let answers = world.received(desk);
        let answered = answers.iter().any(|it| it.attr("type") == "result");
        world.crash();
        world.run();
        let item = stored(&mut world, "alice", "bob");
        let other = stored(&mut world, "bob", "alice");
        assert!(
            !answered || !item.listed && !other.subscription.is_from(),
            "seed {seed}, {moment} us: {item:?} and {other:?}"
        );
    }
}
