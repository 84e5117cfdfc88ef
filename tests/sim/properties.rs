//! What must hold in every simulated world, over many seeds. `SIM_SEED` plays one seed only,
//! `SIM_SEEDS` as many as it says; a failure prints its seed.

use sim::actors::{Chatter, Leave, Town};
use sim::ledger::Sent;
use sim::{ClientId, Faults, Login, Random, World, for_every_seed, seeds};
use std::cell::Cell;
use std::rc::Rc;
use xmpp::Settings;

/// How many seeds each property is tried with, unless the environment says otherwise.
const SEEDS: u64 = 200;
/// From so much on, talk proves something.
const TALK_MIN: usize = 1000;

fn settings(shards: u16) -> Settings {
    Settings {
        shards,
        ..Settings::for_tests("example.org")
    }
}

/// Who stays to the end.
struct Resident {
    id: ClientId,
    account: usize,
    full: String,
    priority: i8,
}

/// A town of people who chat: some stay, some come and go.
struct Play {
    world: World,
    residents: Vec<Resident>,
    visitors: Vec<ClientId>,
    town: Rc<Town>,
    /// Which accounts are contacts of each other.
    contacts: Vec<(usize, usize)>,
}

const ACCOUNTS: usize = 6;

fn account(index: usize) -> String {
    format!("user{index}@example.org")
}

/// Who may live where: the addresses, and the account of each home among them.
fn settle(random: &mut Random) -> (Rc<Town>, Vec<usize>) {
    let mut town = Town::default();
    let mut homes = Vec::new();
    for index in 0..ACCOUNTS {
        town.bare.push(account(index));
        for resource in 0..random.below(3) {
            homes.push(index);
            town.full.push(format!("{}/home{resource}", account(index)));
        }
        town.full.push(format!("{}/visit", account(index)));
    }
    let here = ["nobody@example.org", "nobody@example.org/x", "example.org"];
    let elsewhere = ["elsewhere.test", "nobody@elsewhere.test"];
    town.odd
        .extend(here.into_iter().chain(elsewhere).map(String::from));
    (Rc::new(town), homes)
}

impl Play {
    /// Residents log in and become available; nobody has said anything yet.
    fn prepare(seed: u64, disk_fails: bool) -> Play {
        let mut random = Random::new(seed ^ 0x5eed);
        let shards = *random.pick(&[1, 2, 2, 3, 4]);
        let mut world = World::new(seed, settings(shards), Faults::rough(&mut random));
        let mut contacts = Vec::new();
        for index in 0..ACCOUNTS {
            world.add_account(&account(index), "secret");
            for other in 0..index {
                if random.happens(400) {
                    contacts.push((index, other));
                }
            }
        }
        for &(a, b) in &contacts {
            world.befriend(&account(a), &account(b));
        }
        let (town, homes) = settle(&mut random);
        let mut residents = Vec::new();
        let full: Vec<String> = town
            .full
            .iter()
            .filter(|full| full.contains("/home"))
            .cloned()
            .collect();
        for (full, account) in full.into_iter().zip(homes) {
            let priority = *random.pick(&[0, 0, 5, -1]);
            let chatter = Chatter {
                town: town.clone(),
                deeds: 10 + random.below(40) as u32,
                priority: Some(priority),
                pause_us: *random.pick(&[10, 1_000, 30_000]),
                leaves: None,
                eager: false,
                moody: false,
                count: 0,
            };
            let id = world.connect_actor(Login::new(&full, "secret"), Some(Box::new(chatter)));
            residents.push(Resident {
                id,
                account,
                full,
                priority,
            });
        }
        world.run();
        for resident in &residents {
            assert!(
                world.client(resident.id).is_online(),
                "{:?}",
                world.client(resident.id)
            );
        }
        if disk_fails {
            world.faults.disk_failures = 100;
        }
        Play {
            world,
            residents,
            visitors: Vec::new(),
            town,
            contacts,
        }
    }

    /// Everybody chats while visitors come and go, until all is quiet.
    fn run(&mut self) {
        let mut random = Random::new(self.world.seed() ^ 0xcafe);
        for resident in &self.residents {
            self.world.rouse(resident.id);
        }
        for _ in 0..random.below(12) {
            let account = account(random.below(ACCOUNTS as u64) as usize);
            let mut login = Login::new(&format!("{account}/visit"), "secret");
            if random.happens(300) {
                login.proof = sim::client::Proof::Plain;
            }
            let goes = [Leave::Politely, Leave::HalfClosed, Leave::Vanishing];
            let chatter = Chatter {
                town: self.town.clone(),
                deeds: random.below(25) as u32,
                priority: *random.pick(&[Some(0), Some(1), Some(-5), None]),
                pause_us: *random.pick(&[10, 1_000, 30_000]),
                leaves: Some(*random.pick(&goes)),
                eager: true,
                moody: true,
                count: 0,
            };
            self.visitors
                .push(self.world.connect_actor(login, Some(Box::new(chatter))));
            let pause = random.below(20_000);
            self.world.run_until(self.world.now() + pause);
            self.world.check_homes();
        }
        self.world.run();
        if self.world.faults.disk_failures > 0 {
            // What failed is tried again after a second.
            self.world.faults.disk_failures = 0;
            self.world.run_for(2_000);
            self.world.run();
        }
        self.world.check_rest();
    }

    /// Everybody who is still there goes.
    fn end(&mut self) {
        for index in 0..self.residents.len() {
            let id = self.residents[index].id;
            if index % 2 == 0 {
                self.world.leave(id)
            } else {
                self.world.vanish(id)
            }
        }
        self.world.run();
        self.world.check_rest();
    }

    fn resident(&self, full: &str) -> Option<&Resident> {
        self.residents.iter().find(|resident| resident.full == full)
    }

    /// The residents that a message to a bare JID is for.
    fn takers(&self, bare: &str) -> Vec<&Resident> {
        let takes = |resident: &&Resident| {
            resident.full.split('/').next() == Some(bare) && resident.priority >= 0
        };
        self.residents.iter().filter(takes).collect()
    }

    fn sent_by_residents(&self) -> impl Iterator<Item = &Sent> {
        let stays = |sent: &&Sent| self.residents.iter().any(|resident| resident.id == sent.by);
        self.world.ledger.sent.iter().filter(stays)
    }
}

#[test]
fn nothing_between_connected_sessions_is_lost_doubled_or_reordered() {
    let (proofs, talk) = (Cell::new(0), Cell::new(0));
    for_every_seed(SEEDS, |seed| {
        let mut play = Play::prepare(seed, false);
        play.run();
        let ledger = &play.world.ledger;
        ledger.check_order().unwrap();
        let mut exact = 0;
        for sent in play
            .sent_by_residents()
            .filter(|sent| sent.name == "message")
        {
            let errors = ledger.answers(sent, &["error"]);
            if let Some(resident) = play.resident(&sent.to) {
                let copies = ledger.copies(resident.id, sent);
                assert_eq!((copies, errors), (1, 0), "{sent:?}");
                exact += 1;
            } else if play.town.bare.contains(&sent.to) {
                let takers = play.takers(&sent.to);
                for resident in &takers {
                    assert_eq!(ledger.copies(resident.id, sent), 1, "{sent:?}");
                    exact += 1;
                }
                assert!(
                    errors == 0 || takers.is_empty(),
                    "{sent:?} was delivered and bounced"
                );
            } else if play.town.odd.contains(&sent.to) {
                assert_eq!(errors, 1, "{sent:?}");
                exact += 1;
            } else {
                assert!(errors <= 1, "{sent:?}");
            }
        }
        proofs.set(proofs.get() + exact);
        talk.set(talk.get() + play.sent_by_residents().count());
    });
    // One seed alone may have talk only to those who come and go.
    let (proofs, talk) = (proofs.get(), talk.get());
    assert!(
        talk < TALK_MIN || proofs > talk / 4,
        "{talk} things prove {proofs}"
    );
}

#[test]
fn every_request_gets_exactly_one_answer() {
    for_every_seed(SEEDS, |seed| {
        let mut play = Play::prepare(seed, false);
        play.run();
        let ledger = &play.world.ledger;
        for sent in play.sent_by_residents().filter(|sent| sent.name == "iq") {
            let answers = ledger.answers(sent, &["result", "error"]);
            // A visitor may go between question and answer; the server keeps no account of it.
            let may_die = sent.to.ends_with("/visit");
            assert!(
                answers == 1 || (may_die && answers == 0),
                "{sent:?} got {answers} answers"
            );
        }
    });
}

#[test]
fn whoever_was_told_available_is_told_unavailable_after_any_kind_of_end() {
    for_every_seed(SEEDS, |seed| {
        let mut play = Play::prepare(seed, false);
        play.run();
        let ledger = &play.world.ledger;
        for resident in &play.residents {
            for ((viewer, full), available) in &ledger.views {
                if *viewer == resident.id && play.resident(full).is_none() {
                    assert!(!available, "{} still sees {full}", resident.full);
                }
            }
            for other in &play.residents {
                let friends = play.contacts.iter().any(|&(a, b)| {
                    (a, b) == (resident.account, other.account)
                        || (b, a) == (resident.account, other.account)
                });
                if friends || resident.account == other.account {
                    let view = ledger.views.get(&(resident.id, other.full.clone()));
                    let own = resident.id == other.id;
                    let pair = format!("{} sees {view:?} of {}", resident.full, other.full);
                    assert!(own || view == Some(&true), "{pair}");
                }
            }
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let trace = |seed| {
        let mut play = Play::prepare(seed, true);
        play.run();
        (play.world.trace.hash(), play.world.trace.events())
    };
    let mut before = None;
    for seed in seeds(SEEDS).take(20) {
        let first = trace(seed);
        assert_eq!(first, trace(seed), "seed {seed}");
        assert_ne!(before, Some(first), "seed {seed}");
        before = Some(first);
    }
}

#[test]
fn nothing_is_left_of_who_has_gone() {
    for_every_seed(SEEDS, |seed| {
        let mut play = Play::prepare(seed, false);
        play.run();
        play.end();
        for shard in play.world.shards() {
            assert_eq!((shard.stream_count(), shard.session_count()), (0, 0));
            assert_eq!(shard.account_jids().next(), None);
        }
    });
}

#[test]
fn the_worlds_are_rough_enough_to_prove_something() {
    let (mut tight, mut spilled, mut moved, mut conflicts) = (0, 0, 0, 0);
    for seed in 1..=60 {
        let mut play = Play::prepare(seed, false);
        play.run();
        tight += usize::from(play.world.faults.ring_capacity == 1);
        spilled += usize::from(play.world.spill_peak() > 0);
        moved += play.world.moves();
        let conflict = |client: &&sim::Client| client.stream_error.as_deref() == Some("conflict");
        conflicts += play.world.clients().filter(conflict).count();
    }
    assert!(tight > 5 && spilled > 5 && moved > 100 && conflicts > 5);
}

#[test]
fn a_failing_disk_loses_logins_but_neither_order_nor_buffers_nor_sessions() {
    for_every_seed(SEEDS, |seed| {
        let mut play = Play::prepare(seed, true);
        play.run();
        play.world.ledger.check_order().unwrap();
        for resident in &play.residents {
            assert!(
                play.world.client(resident.id).is_online(),
                "{} was lost",
                resident.full
            );
        }
    });
}
