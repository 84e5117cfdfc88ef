//! The result of a run: everything that decides it and everything it found, as it goes into JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::fleet::Slice;
use crate::ledger::Verdict;
use crate::live::{Point, grouped, micros};
use crate::machine::Machine;
use crate::phases::PhaseResult;
use crate::search::Trial;
use crate::slo::Threshold;

/// Exit codes, as documented in `docs/LOADGEN.md`.
pub mod exit {
    /// Everything went well.
    pub const OK: u8 = 0;
    /// Bad usage, or clients could not log in.
    pub const FAILED: u8 = 1;
    /// A delivery or an acknowledgement was not as it should be.
    pub const UNVERIFIED: u8 = 2;
    /// The generator could not keep its schedule.
    pub const INVALID: u8 = 3;
    /// A threshold of `--slo` was missed.
    pub const MISSED: u8 = 4;
    /// `loadgen compare`: the second run is worse than the first.
    pub const REGRESSED: u8 = 5;
}

/// Times of one kind, in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    /// What was timed.
    pub name: String,
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// The shortest.
    pub min_us: f64,
    /// Percentiles.
    pub p50_us: f64,
    /// Ninetieth.
    pub p90_us: f64,
    /// Ninety-ninth.
    pub p99_us: f64,
    /// 99.9th.
    pub p999_us: f64,
    /// 99.99th.
    pub p9999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// (percentile, microseconds) along a logarithmic axis, for plots.
    pub curve: Vec<(f64, f64)>,
}

impl Times {
    /// What [`Times::columns`] are called.
    pub const HEADINGS: [&str; 6] = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];

    /// The times that tables show, in microseconds.
    pub fn columns(&self) -> [f64; 6] {
        [
            self.p50_us,
            self.p90_us,
            self.p99_us,
            self.p999_us,
            self.p9999_us,
            self.max_us,
        ]
    }

    /// What `seen` (in nanoseconds) comes to.
    pub fn of(name: &str, seen: &Histogram<u64>) -> Times {
        let at = |quantile: f64| seen.value_at_quantile(quantile) as f64 / 1e3;
        let mut curve = Vec::new();
        if !seen.is_empty() {
            let mut rest = 1.0f64;
            // Ten points for each further nine, down to where single values would show.
            while rest * seen.len() as f64 >= 1.0 && rest > 1e-6 {
                curve.push((100.0 * (1.0 - rest), at(1.0 - rest)));
                rest *= 10f64.powf(-0.1);
            }
            curve.push((100.0 * (1.0 - rest), seen.max() as f64 / 1e3));
        }
        Times {
            name: name.to_owned(),
            count: seen.len(),
            mean_us: seen.mean() / 1e3,
            min_us: seen.min() as f64 / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: seen.max() as f64 / 1e3,
            curve,
        }
    }
}

impl Load {
    /// How connections were secured, and what is in them beside the stream.
    pub fn transport(&self) -> String {
        let tls = match self.tls.as_str() {
            "" => "none",
            tls => tls,
        };
        let web = if self.websocket { ", WebSocket" } else { "" };
        format!("tls {tls}{web}")
    }
}

/// What the load was.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// The target, or `floor`.
    pub target: String,
    /// The XMPP domain.
    pub domain: String,
    /// How connections were secured.
    pub tls: String,
    /// Whether streams were in WebSocket frames.
    #[serde(default)]
    pub websocket: bool,
    /// The SASL mechanisms that clients chose.
    pub mechanism: String,
    /// What clients did.
    pub scenario: String,
    /// How many.
    pub clients: u32,
    /// Partners of each chatting client.
    pub partners: u32,
    /// Members of a clique.
    pub clique: u32,
    /// The domain of the rooms, where clients entered any.
    #[serde(default)]
    pub rooms: Option<String>,
    /// `closed loop, window 4` or `open loop, 5000/s poisson`.
    pub pace: String,
    /// What each phase of a mixed scenario asked for.
    #[serde(default)]
    pub phases: Vec<String>,
    /// Stanzas after which a client asked for acknowledgement, where streams were managed.
    #[serde(default)]
    pub ack_every: Option<u32>,
    /// Bytes of a stanza as the client wrote it.
    pub stanza_size: usize,
    /// Connections a second, where limited.
    pub connect_rate: Option<f64>,
    /// Seconds of warm-up.
    pub warmup: f64,
    /// Seconds of measuring.
    pub duration: f64,
    /// Ring threads.
    pub threads: usize,
    /// Core of the first, where pinned.
    pub core: Option<usize>,
    /// The seed.
    pub seed: u64,
}

impl Load {
    /// How large stanzas were: phases have sizes of their own.
    pub fn sizes(&self) -> String {
        match self.phases.is_empty() {
            true => format!("{} bytes", self.stanza_size),
            false => "sizes by phase".to_owned(),
        }
    }
}

/// What the server cost, where it runs on this machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Server {
    /// Its process.
    pub pid: u32,
    /// Its command line.
    pub command: String,
    /// Whether it has more processes than are counted: all that follows is of a part of them.
    #[serde(default)]
    pub is_partial: bool,
    /// CPU seconds per million deliveries.
    pub cpu_per_million: Option<f64>,
    /// The same for each kind of its threads: their names without numbers.
    #[serde(default)]
    pub cpu_per_million_by_thread: BTreeMap<String, f64>,
    /// CPU microseconds per login: in the login phase, or in the login scenario's measured part.
    pub cpu_us_per_login: Option<f64>,
    /// Share of one core while clients idled.
    pub idle_share: Option<f64>,
    /// Resident bytes before the first client.
    pub resident_before: u64,
    /// Resident bytes with all clients ready.
    pub resident_ready: u64,
    /// Resident bytes after the load.
    pub resident_after: u64,
    /// (ready - before) / clients.
    pub bytes_per_connection: f64,
}

impl Server {
    /// Below so many clients what the server warms up once outweighs a connection's bytes.
    pub const BYTES_CLIENTS_MIN: u32 = 5_000;

    /// What each kind of its threads had, the most first, where several had something.
    pub fn kinds(&self) -> Vec<(&str, f64)> {
        let all = self.cpu_per_million_by_thread.iter();
        let mut kinds: Vec<_> = all.map(|(kind, cpu)| (kind.as_str(), *cpu)).collect();
        // Less would be shown as nothing.
        kinds.retain(|(_, cpu)| *cpu >= 0.0005);
        kinds.sort_by(|one, other| other.1.total_cmp(&one.1));
        if kinds.len() < 2 {
            kinds.clear();
        }
        kinds
    }
}

/// What the floor measured in the same run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Floor {
    /// CPU seconds per million deliveries.
    pub cpu_per_million: f64,
    /// Deliveries a second.
    pub rate: f64,
    /// Its clients: fewer than the run's where one ring cannot hold them.
    pub clients: u32,
    /// Its times.
    pub latency: Times,
    /// How late the generator was for it.
    #[serde(default)]
    pub lag: Times,
    /// Its account.
    pub verdict: Verdict,
    /// Its stretches.
    pub slices: Vec<Slice>,
    /// Second by second.
    pub timeline: Vec<Point>,
    /// Server CPU per million over the floor's.
    pub ratio: Option<f64>,
}

/// What the same load cost without TLS or WebSocket, in the same run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plain {
    /// What these went without; nothing where that was TLS and the result is an old one.
    #[serde(default)]
    pub without: String,
    /// Server CPU seconds per million deliveries.
    pub cpu_per_million: f64,
    /// Deliveries a second.
    pub rate: f64,
    /// Its times.
    pub latency: Times,
    /// The SASL mechanism that its clients chose.
    #[serde(default)]
    pub mechanism: String,
    /// How late the generator was for it.
    #[serde(default)]
    pub lag: Times,
    /// Logins that were due while every client was still in one.
    #[serde(default)]
    pub waited: u64,
    /// Its account.
    pub verdict: Verdict,
    /// Its stretches.
    pub slices: Vec<Slice>,
    /// Second by second.
    #[serde(default)]
    pub timeline: Vec<Point>,
    /// What TLS added to each delivery, in microseconds of server CPU.
    pub surcharge_us: Option<f64>,
    /// The standard error of that, from the turns.
    #[serde(default)]
    pub surcharge_error_us: Option<f64>,
}

impl Plain {
    /// What these went without.
    pub fn layers(&self) -> &str {
        match self.without.as_str() {
            "" => "TLS",
            without => without,
        }
    }

    /// What that added, with its error: `0.52 ± 0.11 us` where the turns tell it.
    pub fn surcharge(&self) -> Option<String> {
        let more = self.surcharge_us?;
        Some(match self.surcharge_error_us {
            Some(error) => format!("{more:.2} \u{b1} {error:.2} us"),
            None => format!("{more:.2} us"),
        })
    }
}

/// How the generator itself fared.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Generator {
    /// Share of the time its busiest core was used.
    pub busy: f64,
    /// How late it wrote what the schedule asked for, or began a login that a client was there for.
    pub lag: Times,
    /// Logins that were due while every client was still in one, and what waited in a mix's phases.
    #[serde(default)]
    pub waited: u64,
    /// Whether it was the generator that limited a closed loop's throughput.
    pub is_limit: bool,
    /// Its resident bytes.
    pub resident: u64,
}

/// A worker that drove some of the clients.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkerResult {
    /// Where it was found.
    pub address: String,
    /// Its version.
    pub version: String,
    /// Its commit, where known.
    pub commit: Option<String>,
    /// Its machine.
    pub machine: Machine,
    /// What io_uring offered there.
    pub ring: String,
    /// How long a word took there and back at least: twice what its clock may be off.
    pub round_trip_us: f64,
    /// The number of its first client.
    pub first: u32,
    /// How many it had.
    pub clients: u32,
    /// Its ring threads.
    pub threads: usize,
    /// Core of the first, where pinned.
    pub core: Option<usize>,
    /// How it fared.
    pub generator: Generator,
    /// Latency of its clients from the intended time.
    pub latency: Times,
    /// The account of its deliveries.
    pub verdict: Verdict,
    /// Its stretches.
    pub slices: Vec<Slice>,
    /// Its part in the phases of a mixed scenario: what they are judged by.
    #[serde(skip)]
    pub scenario_phases: Vec<PhaseResult>,
}

impl WorkerResult {
    /// What it did, and how it fared, in a line.
    pub fn line(&self) -> String {
        let rings = match (self.threads, self.core) {
            (1, None) => "1 thread".to_owned(),
            (count, None) => format!("{count} threads"),
            (1, Some(core)) => format!("1 thread on core {core}"),
            (count, Some(core)) => format!("{count} threads from core {core} on"),
        };
        format!(
            "{}: {} clients, {:.0} % busy, lag p99 {}, {rings}, {}",
            self.address,
            grouped(self.clients.into()),
            self.generator.busy * 100.0,
            micros(self.generator.lag.p99_us),
            self.machine,
        )
    }
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunResult {
    /// Name of the run.
    pub name: String,
    /// Seconds since 1970 when it began.
    pub began: u64,
    /// The generator's version.
    pub version: String,
    /// The commit, where known.
    pub commit: Option<String>,
    /// The command line.
    pub command: Vec<String>,
    /// The machine.
    pub machine: Machine,
    /// What io_uring offered.
    pub ring: String,
    /// The load.
    pub load: Load,
    /// What the server ran with, as its operator wrote it.
    #[serde(default)]
    pub server_config: Option<String>,
    /// Which promise an acknowledgement of the server made: `[durability] mode` of this file.
    #[serde(default)]
    pub durability: Option<String>,
    /// Exit code.
    pub exit: u8,
    /// Why it is not 0.
    pub reasons: Vec<String>,
    /// Deliveries (or logins) a second.
    pub rate: f64,
    /// Latency from the intended time.
    pub latency: Times,
    /// Service time from the actual time; empty where the two are the same.
    pub service: Times,
    /// Acknowledgements, from asking to the answer that covers everything sent before.
    #[serde(default)]
    pub acks: Times,
    /// The parts of a login.
    pub phases: Vec<Times>,
    /// The phases of a mixed scenario, each apart.
    #[serde(default)]
    pub scenario_phases: Vec<PhaseResult>,
    /// The account of deliveries.
    pub verdict: Verdict,
    /// Why clients failed.
    pub failures: BTreeMap<String, u64>,
    /// The measured stretches.
    pub slices: Vec<Slice>,
    /// Second by second.
    pub timeline: Vec<Point>,
    /// The server's cost.
    pub server: Option<Server>,
    /// The floor.
    pub floor: Option<Floor>,
    /// The same without TLS.
    #[serde(default)]
    pub plain: Option<Plain>,
    /// The generator's own state; of several workers the busiest's share, and the sum of memory.
    pub generator: Generator,
    /// The workers that drove the clients, where it was not this process.
    #[serde(default)]
    pub workers: Vec<WorkerResult>,
    /// What the thresholds came to.
    #[serde(default)]
    pub thresholds: Vec<Threshold>,
    /// The rates that a search tried, in its order; this result is of the highest that met them.
    #[serde(default)]
    pub trials: Vec<Trial>,
}

impl RunResult {
    /// Everything that was timed, in the order that tables have it.
    pub fn times(&self) -> Vec<&Times> {
        let mut all: Vec<_> = self.phases.iter().collect();
        all.extend([&self.latency, &self.service, &self.acks]);
        all.push(&self.generator.lag);
        if let Some(plain) = &self.plain {
            all.extend([&plain.latency, &plain.lag]);
        }
        if let Some(floor) = &self.floor {
            all.extend([&floor.latency, &floor.lag]);
        }
        all.retain(|times| times.count > 0);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::histogram;

    #[test]
    fn a_curve_rises_to_the_maximum() {
        let mut seen = histogram();
        for value in 1..=100_000u64 {
            seen.record(value * 1000).unwrap();
        }
        let times = Times::of("x", &seen);
        assert!((times.p50_us - 50_000.0).abs() < 100.0);
        assert!((times.p9999_us - 99_990.0).abs() < 100.0);
        assert!(
            times
                .curve
                .windows(2)
                .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1)
        );
        assert_eq!(times.curve.last().unwrap().1, times.max_us);
        assert!(Times::of("none", &histogram()).curve.is_empty());
    }
}
