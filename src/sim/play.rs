//! People who write to each other, and make friends and part, while things go wrong; and what must
//! hold of it when all is said.

mod archives;
mod friends;

use crate::managed::{Managed, Person, Said};
use crate::{ClientId, Faults, Random, World};
use std::cell::RefCell;
use std::rc::Rc;
use xmpp::Settings;

/// Milliseconds after which no session waits for its client any more.
const DORMANCY_MS: u64 = 310_000;

/// What may happen in a play.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plot {
    /// How often the process dies.
    pub crashes: u64,
    /// How often it is told to go, and comes back.
    pub restarts: u64,
    /// How often in a thousand deeds somebody's network fails.
    pub losses: u64,
    /// How often in a thousand deeds somebody leaves for a new session.
    pub farewells: u64,
    /// Whether the disk fails for a while.
    pub disk_fails: bool,
    /// How often the clock jumps ahead.
    pub jumps: u64,
    /// How often a shard panics, and the process with it.
    pub deaths: u64,
    /// How often the disk is full for a while.
    pub full: u64,
    /// Whether writes fail for a while that are there for all that.
    pub disk_doubts: bool,
    /// How often all lose their connections at once.
    pub storms: u64,
    /// Whether storage takes its time.
    pub slow_disk: bool,
    /// How often in a thousand times somebody comes back without the session.
    pub forgets: u64,
    /// How often in a thousand deeds somebody does something about a contact.
    pub steps: u64,
    /// How often in a thousand of these it is a name.
    pub names: u64,
    /// Whether nothing goes wrong before everybody's session is managed.
    pub gathers: bool,
}

impl Plot {
    /// Whether storage may refuse something.
    fn refuses(&self) -> bool {
        self.disk_fails || self.disk_doubts || self.full > 0
    }
}

/// People who write to each other until all is said.
pub struct Play {
    /// Where it happens.
    pub world: World,
    /// Who is in it.
    pub people: Vec<Managed>,
    plot: Plot,
}

impl Play {
    /// Plays it to the end.
    pub fn new(seed: u64, plot: Plot) -> Play {
        let mut random = Random::new(seed ^ 0x0ddb);
        let settings = Settings {
            shards: *random.pick(&[1, 2, 3]),
            archive: seed.is_multiple_of(2),
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
        let pairs = Rc::default();
        let mut people = Vec::new();
        for name in &names {
            world.add_account(name, "secret");
            let mut person = Person::new(&format!("{name}/home"), town.clone());
            person.deeds = 10 + random.below(60) as u32;
            person.pause_us = *random.pick(&[100, 10_000, 300_000]);
            person.silences = *random.pick(&[0, 300, 900]);
            (person.losses, person.farewells) = (plot.losses, plot.farewells);
            (person.forgets, person.contacts.steps_per_mille) = (plot.forgets, plot.steps);
            person.contacts.names_per_mille = plot.names;
            person.contacts.pairs = Rc::clone(&pairs);
            let managed = Managed(Rc::new(RefCell::new(person)));
            world.connect_actor(managed.login(), Some(Box::new(managed.clone())));
            people.push(managed);
        }
        let mut play = Play {
            world,
            people,
            plot,
        };
        if plot.gathers {
            play.gather();
        }
        play.happen(plot, &mut random);
        play.settle();
        if seed.is_multiple_of(2) {
            play.check_archives();
        }
        play
    }

    /// Waits for everybody's session; only then they begin.
    fn gather(&mut self) {
        let each = |managed: &Managed| std::mem::take(&mut managed.0.borrow_mut().deeds);
        let deeds: Vec<u32> = self.people.iter().map(each).collect();
        self.world.run();
        for (managed, deeds) in self.people.clone().into_iter().zip(deeds) {
            self.begin(&managed, deeds);
        }
    }

    fn begin(&mut self, managed: &Managed, deeds: u32) {
        let mut person = managed.0.borrow_mut();
        person.deeds = deeds;
        self.world.rouse(ClientId(person.client));
    }

    /// Everything that goes wrong, at times that nobody chose.
    fn happen(&mut self, plot: Plot, random: &mut Random) {
        if plot.slow_disk {
            self.world.faults.disk_us = *random.pick(&[(0, 50_000), (100_000, 300_000)]);
        }
        if plot.disk_fails {
            self.pause(random);
            self.world.faults.disk_failures = *random.pick(&[30, 300, 1000]);
        }
        if plot.disk_doubts {
            self.pause(random);
            self.world.faults.disk_doubts = *random.pick(&[30, 300, 1000]);
        }
        for _ in 0..plot.crashes {
            self.pause(random);
            self.world.crash();
        }
        for _ in 0..plot.jumps {
            self.pause(random);
            self.world.jump(random.below(2 * DORMANCY_MS));
        }
        for _ in 0..plot.restarts {
            self.pause(random);
            self.world.shut_down();
            let patience = random.below(2_000_000);
            self.world.run_until(self.world.now() + patience);
            self.world.crash();
        }
        for _ in 0..plot.deaths {
            self.pause(random);
            let steps = *random.pick(&[1, 4, 16, 64]);
            self.world.doom(random.bits() as usize, random.below(steps));
        }
        for _ in 0..plot.full {
            self.pause(random);
            self.fill_disk(random);
        }
        for _ in 0..plot.storms {
            self.pause(random);
            self.storm(random);
        }
        self.pause(random);
        self.world.spare();
        self.world.faults.disk_failures = 0;
        self.world.faults.disk_doubts = 0;
    }

    fn pause(&mut self, random: &mut Random) {
        let longest = *random.pick(&[1_000, 30_000, 1_000_000, 3_000_000]);
        let pause = random.below(longest);
        self.world.run_until(self.world.now() + pause);
    }

    /// The disk is full for a while, in which whatever else the plot has may happen.
    fn fill_disk(&mut self, random: &mut Random) {
        self.world.faults.disk_full = true;
        self.pause(random);
        if self.plot.crashes > 0 && random.happens(500) {
            self.world.crash();
            self.pause(random);
        }
        if random.happens(200) {
            self.world.run_for(30_000);
        }
        self.world.faults.disk_full = false;
    }

    /// All lose their connections and come back in a hurry, and lose them again before all are
    /// back; the disk is slow then, and the process may die in the midst of it.
    fn storm(&mut self, random: &mut Random) {
        let usual = self.world.faults.disk_us;
        for managed in &self.people {
            managed.0.borrow_mut().retry_us = (10, *random.pick(&[100, 20_000]));
        }
        for _ in 0..=random.below(4) {
            self.world.storm();
            self.world.faults.disk_us = *random.pick(&[usual, (1_000, 1_000), (10_000, 900_000)]);
            match random.below(4) {
                0 if self.plot.crashes > 0 => self.world.crash(),
                1 if self.plot.deaths > 0 => {
                    self.world.doom(random.bits() as usize, random.below(16));
                }
                _ => {}
            }
            let most = *random.pick(&[1_000, 50_000, 2_000_000]);
            self.world.run_until(self.world.now() + random.below(most));
        }
        self.world.faults.disk_us = usual;
    }

    /// Nothing goes wrong any more: everybody comes back and waits for everything.
    fn settle(&mut self) {
        for managed in &self.people {
            let mut person = managed.0.borrow_mut();
            (person.losses, person.farewells, person.silences) = (0, 0, 0);
            person.forgets = 0;
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

    /// Everybody says something more, and everybody hears it: nobody had to be helped.
    pub fn go_on(&mut self) {
        let before = self.all_said().len();
        for managed in self.people.clone() {
            managed.0.borrow_mut().contacts.steps_per_mille = 0;
            self.begin(&managed, 5);
        }
        self.settle();
        let (mut fresh, all) = (0, self.all_said());
        for managed in &self.people {
            let person = managed.0.borrow();
            let latest = person.said.len() - 5;
            let number = |id: &str| {
                id.split_once('-')
                    .and_then(|(_, it)| it.parse::<usize>().ok())
            };
            let is_fresh = |(id, _): &(&String, &Said)| number(id) > Some(latest);
            for (id, said) in person.said.iter().filter(is_fresh) {
                let (copies, _) = self.heard(id, &said.to);
                assert_eq!(
                    (copies, said.errors),
                    (1, 0),
                    "{id} {said:?} behind the fault"
                );
                fresh += 1;
            }
        }
        assert_eq!(all.len(), before + fresh);
    }

    /// Nobody lost a session, a connection or an answer: each message came once, or its error did.
    pub fn check_undisturbed(&self) {
        for managed in &self.people {
            let person = managed.0.borrow();
            let client = self.world.client(ClientId(person.client));
            let sessions = (person.epoch, person.resumptions, person.refusals);
            assert!(
                sessions == (1, 0, 0) && client.is_online(),
                "{person:?} was disturbed: {client:?}"
            );
        }
        for (id, said) in self.all_said() {
            let (copies, _) = self.heard(&id, &said.to);
            assert!(
                said.acked && copies + said.errors == 1,
                "{id} {said:?} was heard {copies} times"
            );
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

    /// Whose account this is.
    fn person(&self, bare: &str) -> std::cell::Ref<'_, Person> {
        let mut people = self.people.iter().map(|managed| managed.0.borrow());
        people
            .find(|person| person.bare() == bare)
            .expect("everybody is somebody")
    }

    /// Who a message was for.
    fn receiver(&self, to: &str) -> std::cell::Ref<'_, Person> {
        self.person(to.split('/').next().expect("an address has a beginning"))
    }

    /// How often a message was heard, and how often of these in a session that was managed by then.
    fn heard(&self, id: &str, to: &str) -> (u32, u32) {
        let person = self.receiver(to);
        let copies = person.heard.iter().filter(|heard| heard.id == id);
        let managed = copies.clone().filter(|heard| heard.managed);
        (copies.count() as u32, managed.count() as u32)
    }

    /// What must hold whatever has happened.
    pub fn check(&self) {
        for (id, said) in self.all_said() {
            assert!(said.acked, "{id} {said:?} was never acknowledged");
            let (copies, managed) = self.heard(&id, &said.to);
            let receiver = self.receiver(&said.to);
            // What is sent to a session that is not managed has no promise, and it may have waited
            // for the receiver to have one.
            let exposed = receiver.was_exposed((said.sent_at, u64::MAX));
            // An error goes with the session that it is for: whoever lost that never hears that the
            // disk failed.
            let name = id.split('-').next().expect("ids begin with names");
            let sender = self.receiver(&format!("{name}@example.org"));
            let may_fail = self.plot.refuses() || said.bounces;
            let unheard = may_fail && sender.epoch > said.epoch;
            assert!(
                copies > 0 || said.errors > 0 || exposed || unheard,
                "{id} {said:?} was acknowledged and is lost"
            );
            // A receiver that has always resumed gets each once; a new session at least once. After
            // a crash behind a failing disk an error may have come for a try before the one that
            // did it, and what was numbered anew may come again.
            let once = receiver.epoch == 1 && !self.plot.refuses();
            // One that found nobody may bounce again after a crash, and then find somebody.
            let errors = if said.bounces { 0 } else { said.errors };
            assert!(
                !once || managed + errors <= said.sessions,
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
        if !self.plot.refuses() {
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
                    let is_told = |said: &&Said| said.sessions == 1 && said.sent_at >= person.began;
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
    pub fn check_exactly_once(&self) {
        for (id, said) in self.all_said() {
            let (copies, managed) = self.heard(&id, &said.to);
            let span = (said.sent_at, said.acked_at);
            let receiver = self.receiver(&said.to);
            let too_early = said.bounces && said.sent_at < receiver.began && said.errors > 0;
            let came = copies > 0 || too_early || receiver.was_exposed(span);
            assert!(came && managed <= 1, "{id} {said:?}: {copies} copies");
            assert!(too_early || said.errors == 0, "{id} {said:?}");
        }
    }
}
