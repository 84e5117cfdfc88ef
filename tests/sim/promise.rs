//! The promise of stream management, over many seeds: what was acknowledged is not lost, nothing
//! comes twice where both ends resume, whatever happens to the network, the process and the disk.
//!
//! `SIM_SEED` plays one seed only, `SIM_SEEDS` as many as it says; a failure prints its seed.

use sim::managed::{Managed, Person, Said};
use sim::{ClientId, Faults, Login, Random, World, for_every_seed};
use std::cell::RefCell;
use std::rc::Rc;
use xmpp::Settings;
use xmpp::settings::Durability;

/// How many seeds each property is tried with, unless the environment says otherwise.
const SEEDS: u64 = 200;

/// Milliseconds after which no session waits for its client any more.
const DORMANCY_MS: u64 = 310_000;

/// What may happen in a play.
#[derive(Clone, Copy, Debug, Default)]
struct Plot {
    /// How often the process dies.
    crashes: u64,
    /// How often it is told to go, and comes back.
    restarts: u64,
    /// How often in a thousand deeds somebody's network fails.
    losses: u64,
    /// How often in a thousand deeds somebody leaves for a new session.
    farewells: u64,
    /// Whether the disk fails for a while.
    disk_fails: bool,
    /// How often the clock jumps ahead.
    jumps: u64,
}

/// People who write to each other until all is said.
struct Play {
    world: World,
    people: Vec<Managed>,
    plot: Plot,
}

impl Play {
    fn new(seed: u64, plot: Plot) -> Play {
        let mut random = Random::new(seed ^ 0x0ddb);
        let settings = Settings {
            shards: *random.pick(&[1, 2, 3]),
            ..Settings::for_tests("example.org")
        };
        let mut world = World::new(seed, settings, Faults::rough(&mut random));
        let count = 2 + random.below(4);
        let names: Vec<String> = (0..count)
            .map(|index| format!("user{index}@example.org"))
            .collect();
        let mut town = names.clone();
        town.extend(names.iter().map(|name| format!("{name}/home")));
        let town = Rc::new(town);
        let mut people = Vec::new();
        for name in &names {
            world.add_account(name, "secret");
            let mut person = Person::new(&format!("{name}/home"), town.clone());
            person.deeds = 10 + random.below(60) as u32;
            person.pause_us = *random.pick(&[100, 10_000, 300_000]);
            person.silences = *random.pick(&[0, 300, 900]);
            (person.losses, person.farewells) = (plot.losses, plot.farewells);
            let managed = Managed(Rc::new(RefCell::new(person)));
            world.connect_actor(managed.login(), Some(Box::new(managed.clone())));
            people.push(managed);
        }
        let mut play = Play {
            world,
            people,
            plot,
        };
        play.happen(plot, &mut random);
        play.settle();
        play
    }

    /// Everything that goes wrong, at times that nobody chose.
    fn happen(&mut self, plot: Plot, random: &mut Random) {
        let pause = |play: &mut Play, random: &mut Random| {
            let longest = *random.pick(&[1_000, 30_000, 1_000_000, 3_000_000]);
            let pause = random.below(longest);
            play.world.run_until(play.world.now() + pause);
        };
        if plot.disk_fails {
            pause(self, random);
            self.world.faults.disk_failures = *random.pick(&[30, 300, 1000]);
        }
        for _ in 0..plot.crashes {
            pause(self, random);
            self.world.crash();
        }
        for _ in 0..plot.jumps {
            pause(self, random);
            self.world.jump(random.below(2 * DORMANCY_MS));
        }
        for _ in 0..plot.restarts {
            pause(self, random);
            self.world.shut_down();
            let patience = random.below(2_000_000);
            self.world.run_until(self.world.now() + patience);
            self.world.crash();
        }
        pause(self, random);
        self.world.faults.disk_failures = 0;
    }

    /// Nothing goes wrong any more: everybody comes back and waits for everything.
    fn settle(&mut self) {
        for managed in &self.people {
            let mut person = managed.0.borrow_mut();
            (person.losses, person.farewells, person.silences) = (0, 0, 0);
        }
        // Twice, for what old sessions leave behind is delivered to the new ones.
        for _ in 0..2 {
            self.world.run();
            self.world.run_for(DORMANCY_MS);
            for _ in 0..3 {
                self.ask_all();
                self.world.run();
            }
        }
        self.world.check_rest();
        for managed in &self.people {
            let person = managed.0.borrow();
            assert!(person.is_settled(), "{person:?}");
        }
    }

    fn ask_all(&mut self) {
        for managed in &self.people {
            let mut says = Vec::new();
            managed.settle(&mut says);
            let client = managed.0.borrow().client;
            self.world.send_bytes(ClientId(client), &says);
        }
    }

    /// Everything that was said, with who said it.
    fn all_said(&self) -> Vec<(String, Said)> {
        let mut all = Vec::new();
        for managed in &self.people {
            let person = managed.0.borrow();
            all.extend(
                person
                    .said
                    .iter()
                    .map(|(id, said)| (id.clone(), said.clone())),
            );
        }
        all
    }

    /// Who a message was for.
    fn receiver(&self, to: &str) -> std::cell::Ref<'_, Person> {
        let bare = to.split('/').next().expect("an address has a beginning");
        let receiver = self
            .people
            .iter()
            .find(|managed| managed.0.borrow().full.starts_with(&format!("{bare}/")));
        receiver.expect("everybody is somebody").0.borrow()
    }

    /// How often a message was heard, and how often of these in a session that was managed by then.
    fn heard(&self, id: &str, to: &str) -> (u32, u32) {
        let person = self.receiver(to);
        let copies = person.heard.iter().filter(|heard| heard.id == id);
        let managed = copies.clone().filter(|heard| heard.managed);
        (copies.count() as u32, managed.count() as u32)
    }

    /// What must hold whatever has happened.
    fn check(&self) {
        for (id, said) in self.all_said() {
            assert!(said.acked, "{id} {said:?} was never acknowledged");
            let (copies, managed) = self.heard(&id, &said.to);
            let receiver = self.receiver(&said.to);
            // What is sent to a session that is not managed has no promise. An error goes with the
            // session that it is for: whoever lost that never hears that the disk failed.
            let name = id.split('-').next().expect("ids begin with names");
            let sender = self.receiver(&format!("{name}@example.org"));
            let unheard = self.plot.disk_fails && sender.epoch > said.epoch;
            assert!(
                copies > 0 || said.errors > 0 || receiver.refusals > 0 || unheard,
                "{id} {said:?} was acknowledged and is lost"
            );
            // A receiver that has always resumed gets each once; a new session at least once. After
            // a crash behind a failing disk an error may have come for a try before the one that
            // did it, and what was numbered anew may come again.
            let once = receiver.epoch == 1 && !self.plot.disk_fails;
            assert!(
                !once || managed + said.errors <= said.sessions,
                "{id} {said:?} was heard {copies} times"
            );
        }
        for client in self.world.clients() {
            assert_ne!(
                client.stream_error.as_deref(),
                Some("undefined-condition"),
                "{} lost count",
                client.full
            );
        }
        // What a failing disk refused may come later, for a client that lost the server tries
        // again.
        if !self.plot.disk_fails {
            self.check_order();
        }
    }

    /// What one person said to an address in one session came in order to who always resumed. What
    /// was said to it before comes with its first presence, and what is said to its full address
    /// before that does not wait for it (RFC 6121 8.5.3.1).
    fn check_order(&self) {
        let number = |id: &str| -> u32 {
            let (_, number) = id.split_once('-').expect("ids have numbers");
            number.parse().expect("they are numbers")
        };
        for receiver in &self.people {
            let person = receiver.0.borrow();
            if person.epoch > 1 {
                continue;
            }
            for sender in &self.people {
                let sender = sender.0.borrow();
                let mut last = std::collections::BTreeMap::new();
                for heard in person.heard.iter().filter(|heard| heard.managed) {
                    let said = sender.said.get(&heard.id);
                    let is_told = |said: &&Said| said.sessions == 1 && said.at >= person.began;
                    let Some(said) = said.filter(is_told) else {
                        continue;
                    };
                    let way = (said.epoch, &heard.to);
                    let before = last.insert(way, number(&heard.id));
                    assert!(
                        before < Some(number(&heard.id)),
                        "{} came after {before:?} to {}",
                        heard.id,
                        person.full
                    );
                }
            }
        }
    }

    /// Both ends always resumed: then everything was heard exactly once.
    fn check_exactly_once(&self) {
        for (id, said) in self.all_said() {
            let (copies, managed) = self.heard(&id, &said.to);
            assert!(copies > 0 && managed <= 1, "{id} {said:?}: {copies} copies");
            assert_eq!(said.errors, 0, "{id} {said:?}");
        }
    }
}

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
            disk_fails: false,
            jumps: 0,
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
    world.send(client, "<r xmlns='urn:xmpp:sm:3'/>");
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
            world.send(alice, "<r xmlns='urn:xmpp:sm:3'/>");
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
