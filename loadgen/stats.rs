//! What a ring thread measures: histograms per phase and for deliveries, and gauges that the live
//! line reads while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize};

use crate::client::Mechanism;
use crate::hdr::{self, Packed};
use crate::scenario::Action;

/// The longest time that is told apart, in nanoseconds; longer ones count as this.
const TIME_MAX: u64 = 100 * crate::clock::SECOND;

/// A histogram of nanoseconds, three significant digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, TIME_MAX, 3).expect("the bounds are constants")
}

/// The parts of a login, measured apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The TCP connection.
    Connect,
    /// From the first stream (or the connection, for direct TLS) to the end of the handshake.
    Tls,
    /// In-band registration.
    Register,
    /// From the stream header to SASL success.
    Auth,
    /// From SASL success to the bind result.
    Bind,
    /// Having the session of before go on (XEP-0198 5), from SASL success.
    Resume,
    /// Enabling stream management.
    Manage,
    /// Fetching the roster.
    Roster,
    /// Initial presence, up to the answer to a ping behind it.
    Presence,
    /// Entering a room, up to its subject.
    Join,
    /// All of it, connect to ready.
    Login,
}

impl Phase {
    /// All of them in order.
    pub const ALL: [Phase; 11] = [
        Phase::Connect,
        Phase::Tls,
        Phase::Register,
        Phase::Auth,
        Phase::Bind,
        Phase::Resume,
        Phase::Manage,
        Phase::Roster,
        Phase::Presence,
        Phase::Join,
        Phase::Login,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Connect => "connect",
            Phase::Tls => "tls",
            Phase::Register => "register",
            Phase::Auth => "auth",
            Phase::Bind => "bind",
            Phase::Resume => "resume",
            Phase::Manage => "manage",
            Phase::Roster => "roster",
            Phase::Presence => "presence",
            Phase::Join => "join",
            Phase::Login => "login in all",
        }
    }
}

/// What one phase of a mixed scenario measured.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "PhaseText", into = "PhaseText")]
pub struct PhaseMeter {
    /// By action: from the time it was due, and from the time it was begun.
    actions: [Option<Box<[Histogram<u64>; 2]>>; Action::ALL.len()],
    /// How late the generator itself was in acting.
    pub lag: Histogram<u64>,
    /// Actions that were due while nobody asked could do them, and those that waited behind one.
    pub waited: u64,
}

/// The same as messages have it.
#[derive(Serialize, Deserialize)]
struct PhaseText {
    actions: Vec<(Action, [Packed; 2])>,
    lag: Packed,
    waited: u64,
}

impl From<PhaseMeter> for PhaseText {
    fn from(meter: PhaseMeter) -> PhaseText {
        let all = Action::ALL.into_iter().zip(meter.actions);
        let actions = all.filter_map(|(action, times)| Some((action, times?.map(Packed))));
        PhaseText {
            actions: actions.collect(),
            lag: Packed(meter.lag),
            waited: meter.waited,
        }
    }
}

impl From<PhaseText> for PhaseMeter {
    fn from(text: PhaseText) -> PhaseMeter {
        let mut meter = PhaseMeter {
            lag: text.lag.0,
            waited: text.waited,
            ..PhaseMeter::default()
        };
        for (action, times) in text.actions {
            let times = times.map(|Packed(seen)| seen);
            meter.actions[action as usize] = Some(Box::new(times));
        }
        meter
    }
}

impl Default for PhaseMeter {
    fn default() -> PhaseMeter {
        PhaseMeter {
            actions: [const { None }; Action::ALL.len()],
            lag: histogram(),
            waited: 0,
        }
    }
}

impl PhaseMeter {
    /// Notes that an action took so long from when it was due, and from when it was begun.
    pub fn record(&mut self, action: Action, latency: u64, service: u64) {
        let empty = || Box::new([histogram(), histogram()]);
        let times = self.actions[action as usize].get_or_insert_with(empty);
        times[0].saturating_record(latency);
        times[1].saturating_record(service);
    }

    /// Latency and service time of an action, where there were any.
    pub fn of(&self, action: Action) -> Option<&[Histogram<u64>; 2]> {
        self.actions[action as usize].as_deref()
    }

    fn add(&mut self, other: &PhaseMeter) {
        const SAME: &str = "all histograms have the same bounds";
        for (mine, theirs) in self.actions.iter_mut().zip(&other.actions) {
            let Some(theirs) = theirs else { continue };
            let empty = || Box::new([histogram(), histogram()]);
            let mine = mine.get_or_insert_with(empty);
            for (mine, theirs) in mine.iter_mut().zip(theirs.iter()) {
                mine.add(theirs).expect(SAME);
            }
        }
        self.lag.add(&other.lag).expect(SAME);
        self.waited += other.waited;
    }
}

/// One thread's histograms.
#[derive(Serialize, Deserialize)]
pub struct Meter {
    #[serde(with = "hdr::list")]
    phases: Vec<Histogram<u64>>,
    /// The phases of a mixed scenario.
    pub mixed: Vec<PhaseMeter>,
    /// Deliveries, from the intended time.
    #[serde(with = "hdr")]
    pub latency: Histogram<u64>,
    /// Deliveries, from the actual time.
    #[serde(with = "hdr")]
    pub service: Histogram<u64>,
    /// Acknowledgements, from asking to the answer that covers everything sent before.
    #[serde(with = "hdr")]
    pub acks: Histogram<u64>,
    /// Acknowledgements of what was never sent, or unreadable ones.
    pub false_acks: u64,
    /// How late the generator itself was in writing.
    #[serde(with = "hdr")]
    pub lag: Histogram<u64>,
    /// Logins that were due while every client was still in one, and what waited in a mix's phases.
    pub waited: u64,
    /// The SASL mechanisms that clients chose.
    #[serde(deserialize_with = "mechanisms")]
    pub mechanisms: BTreeSet<&'static str>,
}

/// Reads the names of SASL mechanisms; there are no others than those that clients know.
fn mechanisms<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<&'static str>, D::Error> {
    let names = BTreeSet::<String>::deserialize(from)?;
    let known = Mechanism::value_variants().iter();
    let known = known.map(|mechanism| mechanism.name());
    Ok(known.filter(|name| names.contains(*name)).collect())
}

impl Default for Meter {
    fn default() -> Meter {
        Meter {
            phases: Phase::ALL.iter().map(|_| histogram()).collect(),
            mixed: Vec::new(),
            latency: histogram(),
            service: histogram(),
            acks: histogram(),
            false_acks: 0,
            lag: histogram(),
            waited: 0,
            mechanisms: BTreeSet::new(),
        }
    }
}

impl Meter {
    /// Forgets all times: what follows is the measurement. Faults stay.
    pub fn start_over(&mut self) {
        *self = Meter {
            false_acks: self.false_acks,
            mechanisms: std::mem::take(&mut self.mechanisms),
            ..Meter::default()
        };
    }

    /// The SASL mechanism that clients chose, or all of them.
    pub fn mechanism(&self) -> String {
        let names: Vec<_> = self.mechanisms.iter().copied().collect();
        names.join(", ")
    }

    /// Notes that a phase took so long.
    pub fn phase(&mut self, phase: Phase, nanoseconds: u64) {
        self.phases[phase as usize].saturating_record(nanoseconds);
    }

    /// What a phase of a mixed scenario measured, from now on.
    pub fn mixed(&mut self, phase: usize) -> &mut PhaseMeter {
        if self.mixed.len() <= phase {
            self.mixed.resize_with(phase + 1, PhaseMeter::default);
        }
        &mut self.mixed[phase]
    }

    /// The histogram of a phase.
    pub fn of(&self, phase: Phase) -> &Histogram<u64> {
        &self.phases[phase as usize]
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Meter) {
        const SAME: &str = "all histograms have the same bounds";
        for (mine, theirs) in self.phases.iter_mut().zip(&other.phases) {
            mine.add(theirs).expect(SAME);
        }
        for (phase, theirs) in other.mixed.iter().enumerate() {
            self.mixed(phase).add(theirs);
        }
        self.latency.add(&other.latency).expect(SAME);
        self.service.add(&other.service).expect(SAME);
        self.acks.add(&other.acks).expect(SAME);
        self.false_acks += other.false_acks;
        self.lag.add(&other.lag).expect(SAME);
        self.waited += other.waited;
        self.mechanisms.extend(&other.mechanisms);
    }
}

/// One thread's counts while it runs: written by it alone, read by the live line. They have cache
/// lines of their own.
#[derive(Default)]
#[repr(align(128))]
pub struct Gauge {
    /// Clients ready.
    pub ready: AtomicU64,
    /// Logins completed, repeated ones too.
    pub logins: AtomicU64,
    /// Clients that failed.
    pub failed: AtomicU64,
    /// Stanzas sent while sending was on.
    pub sent: AtomicU64,
    /// Verified deliveries.
    pub delivered: AtomicU64,
    /// Deliveries still expected.
    pub outstanding: AtomicU64,
    /// Bytes of the longest JID, escaped.
    pub jid_size: AtomicU64,
    /// Nanoseconds the thread has been on a core.
    pub busy: AtomicU64,
}

/// Sums a gauge over threads.
pub fn sum<'a>(
    gauges: impl IntoIterator<Item = &'a Gauge>,
    read: impl Fn(&Gauge) -> &AtomicU64,
) -> u64 {
    gauges
        .into_iter()
        .map(|gauge| read(gauge).load(Ordering::Relaxed))
        .sum()
}

/// Delivery times per second of the run, merged over threads until the live line takes them.
#[derive(Default)]
pub struct Timeline {
    seconds: Mutex<BTreeMap<u64, Histogram<u64>>>,
}

impl Timeline {
    /// Adds what a thread saw in one second.
    pub fn add(&self, second: u64, seen: &Histogram<u64>) {
        if seen.is_empty() {
            return;
        }
        let mut seconds = self.seconds.lock().expect("nobody panics while holding it");
        let merged = seconds.entry(second).or_insert_with(histogram);
        merged
            .add(seen)
            .expect("all histograms have the same bounds");
    }

    /// Takes the seconds before `second`.
    pub fn take_before(&self, second: u64) -> Vec<(u64, Histogram<u64>)> {
        let mut seconds = self.seconds.lock().expect("nobody panics while holding it");
        let later = seconds.split_off(&second);
        std::mem::replace(&mut *seconds, later)
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_of_several_threads_are_merged_and_taken_once() {
        let timeline = Timeline::default();
        let mut seen = histogram();
        seen.record(1000).unwrap();
        timeline.add(3, &seen);
        timeline.add(3, &seen);
        timeline.add(4, &seen);
        let taken = timeline.take_before(4);
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].0, taken[0].1.len()), (3, 2));
        assert!(timeline.take_before(4).is_empty());
        assert_eq!(timeline.take_before(u64::MAX).len(), 1);
    }

    #[test]
    fn a_time_beyond_the_bounds_counts_as_the_longest() {
        let mut meter = Meter::default();
        meter.phase(Phase::Bind, u64::MAX);
        let mut all = Meter::default();
        all.add(&meter);
        assert_eq!(all.of(Phase::Bind).len(), 1);
        assert!(all.of(Phase::Bind).max() >= TIME_MAX);
        assert!(all.of(Phase::Auth).is_empty());
    }

    #[test]
    fn what_a_worker_measured_arrives_whole() {
        let mut meter = Meter::default();
        for (at, phase) in Phase::ALL.into_iter().enumerate() {
            meter.phase(phase, 1000 * at as u64);
        }
        for seen in [&mut meter.latency, &mut meter.service, &mut meter.acks] {
            seen.record(5_000_000).unwrap();
        }
        meter.lag.record(7000).unwrap();
        (meter.false_acks, meter.waited) = (3, 4);
        meter.mechanisms.insert(Mechanism::ScramSha256.name());
        let phase = meter.mixed(1);
        phase.record(Action::Roster, 9_000_000, 8_000_000);
        phase.waited = 2;
        let text = serde_json::to_string(&meter).unwrap();
        let read: Meter = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(read.of(Phase::Login).len(), 1);
        assert_eq!((read.latency.len(), read.lag.len()), (1, 1));
        assert_eq!((read.false_acks, read.waited), (3, 4));
        assert_eq!(read.mechanism(), "SCRAM-SHA-256");
        assert_eq!(read.mixed.len(), 2);
        let roster = read.mixed[1].of(Action::Roster).unwrap();
        assert_eq!(roster.each_ref().map(Histogram::len), [1, 1]);
        assert!(read.mixed[1].of(Action::Chat).is_none());
    }
}
