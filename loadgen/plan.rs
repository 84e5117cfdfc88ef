//! What a run will do, decided once from the command line; nothing below reads arguments.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::args::{RATE_MAX, stanza_sizes};
use crate::clock::Clock;
use crate::ledger::{CLIQUE_MAX, PARTNERS_MAX, Topology};
use crate::scenario::{Action, Phase};
use crate::schedule::Arrivals;
use crate::stats::{Gauge, Timeline};

/// The clients of one ring where the limit of descriptors allows it.
pub const CLIENTS_PER_RING_MAX: u32 = 18_000;
/// Slots that a ring keeps beside its clients.
pub const SLOTS_SPARE: u32 = 64;

/// What ready clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scenario {
    /// Log in, close, again.
    Login,
    /// Nothing.
    Idle,
    /// One-to-one messages.
    Chat,
    /// Presence to the online contacts of one's clique, or directed.
    Presence,
    /// Messages to the room of one's clique.
    Muc,
    /// Several things, or in several phases: what [`Plan::phases`] say.
    Mixed,
}

impl std::str::FromStr for Scenario {
    type Err = std::convert::Infallible;

    /// What a name stands for; of one that is not among these its file tells more.
    fn from_str(name: &str) -> Result<Scenario, Self::Err> {
        Ok(match name {
            "login" => Scenario::Login,
            "idle" => Scenario::Idle,
            "chat" => Scenario::Chat,
            "presence" => Scenario::Presence,
            "muc" => Scenario::Muc,
            _ => Scenario::Mixed,
        })
    }
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// XMPP, to a server.
    Xmpp,
    /// Frames of a fixed size, to the floor's relay.
    Floor,
}

/// When stanzas are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Pace {
    /// Each client keeps so many outstanding.
    Closed {
        /// How many.
        window: u16,
    },
    /// By a schedule, whatever the server does.
    Open {
        /// Stanzas (or logins) a second, all clients together.
        rate: f64,
        /// How the gaps are distributed.
        arrivals: Arrivals,
    },
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pace::Closed { window } => write!(f, "closed loop, window {window}"),
            Pace::Open { rate, arrivals } => {
                let arrivals = format!("{arrivals:?}").to_lowercase();
                write!(f, "open loop, {rate}/s {arrivals}")
            }
        }
    }
}

/// The clients of a plan that one process drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which of the processes, from 0.
    pub number: u32,
    /// The first client.
    pub first: u32,
    /// How many clients.
    pub count: u32,
}

impl Part {
    /// All that there are.
    pub fn whole(clients: u32) -> Part {
        Part {
            number: 0,
            first: 0,
            count: clients,
        }
    }
}

/// The decisions that all ring threads of one fleet share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where to connect.
    pub target: SocketAddr,
    /// What is spoken there.
    pub dialect: Dialect,
    /// How many clients, of all processes together.
    pub clients: u32,
    /// Those of this process.
    pub part: Part,
    /// What they do.
    pub scenario: Scenario,
    /// The phases of a mixed scenario; others have none.
    pub phases: Vec<Phase>,
    /// Presence goes to one partner at a time.
    pub directed: bool,
    /// Partners of each chatting client, addressed in turn.
    pub partners: u32,
    /// Size of a clique of mutual contacts.
    pub clique: u32,
    /// When stanzas are sent.
    pub pace: Pace,
    /// Whether what is due soon is awaited awake.
    pub spins: bool,
    /// Stanzas after which a client asks for acknowledgement (XEP-0198), where streams are managed.
    pub ack_every: Option<u32>,
    /// Bytes of a stanza as the client writes it.
    pub stanza_size: usize,
    /// Connections a second, all clients together; unlimited (but never too many at once) without.
    pub connect_rate: Option<f64>,
    /// The first core of the generator's threads, where they are pinned.
    pub core: Option<usize>,
    /// Decides everything random.
    pub seed: u64,
    /// Ring threads.
    pub threads: u32,
    /// The run's clock; each process has its own.
    #[serde(skip, default = "Clock::start")]
    pub clock: Clock,
}

impl Plan {
    /// Whether ready clients send to each other.
    pub fn talks(&self) -> bool {
        matches!(
            self.scenario,
            Scenario::Chat | Scenario::Presence | Scenario::Muc | Scenario::Mixed
        )
    }

    /// Whether any stanza goes to a whole clique.
    pub fn broadcasts(&self) -> bool {
        let in_a_phase = self.has(Action::Presence) || self.has(Action::Muc);
        !self.is_pairwise() || in_a_phase
    }

    /// Whether clients enter rooms.
    pub fn has_rooms(&self) -> bool {
        self.scenario == Scenario::Muc || self.has(Action::Muc)
    }

    /// Whether `action` is among what clients do in any phase.
    pub fn has(&self, action: Action) -> bool {
        self.phases.iter().any(|phase| phase.has(action))
    }

    /// How many of `count` clients, counted from the first of a clique, have somebody to send to: a
    /// last one may be a clique by itself, and in a room it has itself.
    pub fn senders(&self, count: u32) -> u32 {
        match self.is_pairwise() {
            false if count % self.clique == 1 && !self.has_rooms() => count - 1,
            _ => count,
        }
    }

    /// Whether a stanza is one copy to one partner.
    pub fn is_pairwise(&self) -> bool {
        match self.scenario {
            Scenario::Presence => self.directed,
            Scenario::Muc => false,
            Scenario::Login | Scenario::Idle | Scenario::Chat | Scenario::Mixed => true,
        }
    }

    /// The share of clients of each thread: (first, count). Cliques are never cut, and everyone has
    /// a partner in the same ring, so that a delivery is checked by the thread that sent it.
    pub fn shares(&self) -> Vec<(u32, u32)> {
        self.cut(self.part, self.threads)
    }

    /// The parts of so many processes, or of as many as there can be: cut as the shares of threads
    /// are, so that both ends of a stanza are in one process.
    pub fn parts(&self, processes: u32) -> Vec<Part> {
        let shares = self.cut(Part::whole(self.clients), processes);
        let parts = (0..).zip(shares);
        parts
            .map(|(number, (first, count))| Part {
                number,
                first,
                count,
            })
            .collect()
    }

    /// The clients who must stay together: a clique, or two partners.
    pub fn unit(&self) -> u32 {
        if self.broadcasts() { self.clique } else { 2 }
    }

    fn cut(&self, part: Part, pieces: u32) -> Vec<(u32, u32)> {
        let unit = self.unit();
        let units = part.count.div_ceil(unit);
        let pieces = pieces.min(units).max(1);
        let mut shares = Vec::new();
        let mut first = 0;
        for piece in 0..pieces {
            let end_unit = u64::from(units) * u64::from(piece + 1) / u64::from(pieces);
            let mut end = (end_unit as u32).saturating_mul(unit).min(part.count);
            if part.count - end == 1 && self.is_pairwise() {
                end = part.count;
            }
            if end > first {
                shares.push((part.first + first, end - first));
            }
            first = end;
        }
        shares
    }

    /// What decides everything random of a thread: the same in every run, and another in each.
    pub fn seed_of(&self, thread: usize) -> u64 {
        self.seed ^ u64::from(self.part.number) << 48 ^ (thread as u64) << 32
    }

    /// Whether it can be carried out by anybody.
    ///
    /// # Errors
    /// What does not fit together, with the remedy.
    pub fn check(&self) -> Result<(), String> {
        let pair = match self.scenario {
            Scenario::Chat | Scenario::Presence | Scenario::Muc => true,
            Scenario::Login | Scenario::Idle => false,
            Scenario::Mixed => self.phases.iter().any(Phase::is_marked),
        };
        if self.clients < if pair { 2 } else { 1 } {
            return Err("--clients: at least two are needed to talk to each other".into());
        }
        if !(2..=CLIQUE_MAX).contains(&self.clique) {
            return Err(format!("--clique takes 2 to {CLIQUE_MAX}"));
        }
        if !(1..=PARTNERS_MAX).contains(&self.partners) {
            return Err(format!("--partners takes 1 to {PARTNERS_MAX}"));
        }
        // What the addresses add to that is known once clients have theirs.
        let sizes = stanza_sizes();
        if !sizes.contains(&self.stanza_size) {
            return Err(format!("--stanza-size takes {sizes:?} bytes"));
        }
        let phases = self.phases.iter().filter_map(|phase| phase.pace);
        for pace in phases.chain([self.pace]) {
            match pace {
                Pace::Closed { window: 0 } => return Err("--window takes 1 or more".into()),
                Pace::Open { rate, .. } if !(rate > 0.0 && rate <= RATE_MAX) => {
                    return Err(format!("--rate takes a positive number up to {RATE_MAX}"));
                }
                Pace::Closed { .. } | Pace::Open { .. } => {}
            }
        }
        Ok(())
    }

    /// The core that a thread is pinned to, on a machine with so many.
    pub fn core_of(&self, thread: usize, cores: usize) -> Option<usize> {
        let first = self.core?;
        Some(first + thread % cores.saturating_sub(first).max(1))
    }

    /// Who talks to whom among `count` clients.
    pub fn topology(&self, count: u32) -> Topology {
        if self.scenario == Scenario::Muc {
            return Topology::Rooms(self.clique);
        }
        if !self.is_pairwise() {
            return Topology::Cliques(self.clique);
        }
        if self.scenario == Scenario::Mixed {
            // Each action has an account of its own.
            return Topology::Cliques(1);
        }
        match count {
            // A single client only idles or logs in.
            1 => Topology::Cliques(1),
            _ => Topology::partners(count, self.partners, self.seed),
        }
    }
}

/// How far a fleet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Clients log in, then wait.
    Connect,
    /// Sending, unrecorded.
    Warm,
    /// Sending, recorded.
    Measure,
    /// Nothing new is sent; what is outstanding arrives.
    Hold,
    /// Everything is closed.
    Finish,
}

/// What the controller and the ring threads of one fleet tell each other.
pub struct Control {
    stage: AtomicU8,
    since: AtomicU64,
    phase: AtomicU64,
    /// One for each thread.
    pub gauges: Vec<Gauge>,
    /// Deliveries per second.
    pub timeline: Timeline,
}

impl Control {
    /// For so many threads.
    pub fn new(threads: usize) -> Control {
        Control {
            stage: AtomicU8::new(Stage::Connect as u8),
            since: AtomicU64::new(0),
            phase: AtomicU64::new(0),
            gauges: (0..threads).map(|_| Gauge::default()).collect(),
            timeline: Timeline::default(),
        }
    }

    /// Moves the fleet on; `now` is when the stage begins.
    pub fn enter(&self, stage: Stage, now: u64) {
        self.since.store(now, Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Says in which phase the next stages will be.
    pub fn begin_phase(&self, index: usize) {
        self.phase.store(index as u64, Ordering::Release);
    }

    /// The phase of a mixed scenario.
    pub fn phase(&self) -> usize {
        self.phase.load(Ordering::Acquire) as usize
    }

    /// The stage, and since when.
    pub fn stage(&self) -> (Stage, u64) {
        let stage = match self.stage.load(Ordering::Acquire) {
            0 => Stage::Connect,
            1 => Stage::Warm,
            2 => Stage::Measure,
            3 => Stage::Hold,
            _ => Stage::Finish,
        };
        (stage, self.since.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(clients: u32, threads: u32, scenario: Scenario) -> Plan {
        Plan {
            target: "127.0.0.1:5222".parse().unwrap(),
            dialect: Dialect::Xmpp,
            clients,
            part: Part::whole(clients),
            phases: Vec::new(),
            scenario,
            directed: false,
            partners: 1,
            clique: 20,
            pace: Pace::Closed { window: 1 },
            spins: true,
            ack_every: None,
            stanza_size: 200,
            connect_rate: None,
            core: None,
            seed: 1,
            threads,
            clock: Clock::start(),
        }
    }

    #[test]
    fn shares_cover_all_clients_and_leave_nobody_alone() {
        for clients in [2, 3, 99, 100, 101, 100_000] {
            for threads in 1..7 {
                for scenario in [Scenario::Chat, Scenario::Presence] {
                    let plan = plan(clients, threads, scenario);
                    let shares = plan.shares();
                    let mut next = 0;
                    for (first, count) in shares {
                        assert_eq!(first, next);
                        assert!(scenario == Scenario::Presence || count >= 2);
                        assert!(scenario == Scenario::Chat || first % 20 == 0);
                        next = first + count;
                    }
                    assert_eq!(next, clients);
                }
            }
        }
    }

    #[test]
    fn a_mix_with_broadcasts_keeps_cliques_whole_and_gives_everyone_a_partner() {
        for clients in [21, 41, 60, 100] {
            let line = format!("loadgen --scenario mixed --clients {clients}");
            let cli = crate::heed::read(line.split(' ')).expect("a line");
            let address = "127.0.0.1:1".parse().unwrap();
            let load = cli.run.load;
            let mut plan = load.plan(address, Dialect::Xmpp, Clock::start()).unwrap();
            plan.threads = 3;
            let shares = plan.shares();
            let cut = shares.iter().find(|(first, _)| first % 20 != 0);
            assert_eq!(cut, None, "{clients}: {shares:?}");
            assert!(shares.iter().all(|(_, count)| *count > 1), "{shares:?}");
            assert_eq!(shares.iter().map(|(_, count)| count).sum::<u32>(), clients);
        }
    }

    #[test]
    fn the_threads_of_all_processes_share_the_clients_as_one_would() {
        for clients in [21, 99, 100, 41_000] {
            for processes in [1, 2, 3, 7] {
                for scenario in [Scenario::Chat, Scenario::Presence, Scenario::Muc] {
                    let mut plan = plan(clients, 3, scenario);
                    let (mut next, mut seeds) = (0, std::collections::BTreeSet::new());
                    let parts = plan.parts(processes);
                    assert!(parts.len() as u32 <= processes);
                    for part in parts {
                        plan.part = part;
                        assert_eq!(part.first, next);
                        for (thread, (first, count)) in plan.shares().into_iter().enumerate() {
                            assert_eq!(first, next);
                            assert!(scenario != Scenario::Chat || count >= 2);
                            assert!(scenario == Scenario::Chat || first % 20 == 0);
                            assert!(seeds.insert(plan.seed_of(thread)), "two do the same");
                            next = first + count;
                        }
                    }
                    assert_eq!(next, clients);
                }
            }
        }
    }

    #[test]
    fn who_is_a_clique_alone_does_not_send() {
        let broadcasts = plan(41, 1, Scenario::Presence);
        let senders = [1, 2, 20, 21, 40, 41].map(|count| broadcasts.senders(count));
        assert_eq!(senders, [0, 2, 20, 20, 40, 40]);
        assert_eq!(plan(41, 1, Scenario::Chat).senders(21), 21);
        // He hears himself.
        assert_eq!(plan(41, 1, Scenario::Muc).senders(41), 41);
    }

    #[test]
    fn threads_are_pinned_from_the_first_core_on() {
        let mut plan = plan(100, 6, Scenario::Chat);
        assert_eq!(plan.core_of(3, 4), None);
        plan.core = Some(1);
        let cores: Vec<_> = (0..6)
            .filter_map(|thread| plan.core_of(thread, 4))
            .collect();
        assert_eq!(cores, [1, 2, 3, 1, 2, 3]);
        assert_eq!((plan.core_of(5, 2), plan.core_of(5, 1)), (Some(1), Some(1)));
    }

    #[test]
    fn the_controller_and_its_threads_agree_on_the_stage() {
        let control = Control::new(2);
        assert_eq!(control.stage(), (Stage::Connect, 0));
        for stage in [Stage::Warm, Stage::Measure, Stage::Hold, Stage::Finish] {
            control.enter(stage, 7);
            assert_eq!(control.stage(), (stage, 7));
        }
        assert_eq!(control.gauges.len(), 2);
    }
}
