//! The judgement of a run: whether it counts, what its exit code is, and why.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::Features;

use crate::args::LoadArgs;
use crate::clock::SECOND;
use crate::fleet::{Findings, Slice};
use crate::ledger::Verdict;
use crate::live::Live;
use crate::machine::{self, Machine, PROCESSES_MAX};
use crate::phases::{self, PhaseResult};
use crate::plan::{Pace, Plan, Scenario};
use crate::result::{Floor, Generator, Load, Plain, RunResult, Server, Times, WorkerResult, exit};
use crate::scenario;
use crate::schedule::Arrivals;
use crate::slo::Slo;
use crate::stats::{Meter, Phase};

/// An open loop is invalid whose generator is later than this in one of a hundred cases ..
const LAG_P99_MAX_US: f64 = 1000.0;
/// .. and later than this share of the latency it reports.
const LAG_SHARE_MAX: f64 = 0.1;
/// An open loop must have sent this share of what the schedule asked for.
const SENT_SHARE_MIN: f64 = 0.99;
/// A worker must begin within this share of a stretch of the time that was agreed on.
const START_SHARE_MAX: f64 = 0.02;
/// A generator busier than this limits a closed loop.
const BUSY_MAX: f64 = 0.95;

/// Why logins wait.
const ALL_LOG_IN: &str = "every client was still in a login; give more --clients or a lower --rate";
/// Why actions of a mix do.
const NOBODY_CAN: &str = "nobody asked could do it, being away or without somebody there to send \
                          to; let more clients act, fewer reconnect, or fewer be alone in a clique";

/// What a judgement is made from.
pub(crate) struct Parts<'a> {
    pub(crate) plan: Plan,
    pub(crate) load: &'a LoadArgs,
    pub(crate) server: Option<Server>,
    pub(crate) floor: Option<Floor>,
    pub(crate) plain: Option<Plain>,
    pub(crate) slices: Vec<Slice>,
    pub(crate) machine: Machine,
    /// The threads of all generators.
    pub(crate) threads: usize,
    pub(crate) workers: Vec<WorkerResult>,
}

impl Parts<'_> {
    pub(crate) fn judge(
        mut self,
        findings: &Findings,
        live: &Live,
        features: Features,
    ) -> RunResult {
        let meter = &findings.meter;
        if let (Some(floor), Some(server)) = (&mut self.floor, &self.server) {
            let ratio =
                |cost: f64| (floor.cpu_per_million > 0.0).then(|| cost / floor.cpu_per_million);
            floor.ratio = server.cpu_per_million.and_then(ratio);
        }
        let kind = match self.plan.scenario {
            Scenario::Login => "login",
            Scenario::Presence => "presence",
            Scenario::Mixed => "delivery",
            Scenario::Idle | Scenario::Chat | Scenario::Muc => "message",
        };
        let name = self.load.name.clone();
        let mut result = RunResult {
            name: name.unwrap_or_else(|| self.default_name()),
            began: unix_seconds().saturating_sub(self.plan.clock.now() / SECOND),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: machine::commit(),
            command: command_line(std::env::args()),
            ring: features.to_string(),
            load: Load {
                mechanism: meter.mechanism(),
                ..self.describe()
            },
            server_config: None,
            durability: None,
            exit: exit::OK,
            reasons: Vec::new(),
            rate: Slice::rate(&self.slices),
            latency: Times::of(kind, &meter.latency),
            service: Times::of("service", &meter.service),
            acks: Times::of("ack", &meter.acks),
            phases: Phase::ALL
                .iter()
                .filter(|phase| !meter.of(**phase).is_empty())
                .map(|phase| Times::of(phase.name(), meter.of(*phase)))
                .collect(),
            scenario_phases: phases::results(&self.plan, &self.slices, meter),
            verdict: findings.verdict,
            failures: findings.failures.clone(),
            timeline: live.points.clone(),
            generator: self.generator(meter),
            workers: self.workers,
            slices: self.slices,
            server: self.server,
            floor: self.floor,
            plain: self.plain,
            machine: self.machine,
            thresholds: Vec::new(),
            trials: Vec::new(),
        };
        let slo = self.load.slo.as_ref();
        result.thresholds = slo.map_or_else(Vec::new, |slo| slo.judge(&result));
        let of_phases = phases::thresholds(&self.plan, &result.scenario_phases);
        result.thresholds.extend(of_phases);
        (result.exit, result.reasons) = verdict(&self.plan, self.threads, &result, slo);
        result
    }

    fn generator(&self, meter: &Meter) -> Generator {
        let workers = self.workers.iter();
        let resident = match self.workers.is_empty() {
            true => machine::resident(std::process::id()).unwrap_or(0),
            false => workers.map(|worker| worker.generator.resident).sum(),
        };
        Generator {
            resident,
            ..generator(&self.plan, &self.slices, meter)
        }
    }

    fn default_name(&self) -> String {
        format!("{}-{}", self.scenario(), self.plan.clients)
    }

    /// What clients did.
    fn scenario(&self) -> String {
        match self.plan.scenario {
            Scenario::Mixed => self.load.scenario_name.clone(),
            scenario => format!("{scenario:?}").to_lowercase(),
        }
    }

    fn describe(&self) -> Load {
        let pace = match self.plan.pace {
            Pace::Closed { .. } if self.plan.scenario == Scenario::Idle => "idle".to_owned(),
            Pace::Closed { .. } if self.plan.scenario == Scenario::Login => {
                "closed loop".to_owned()
            }
            pace => match &self.plan.phases[..] {
                [] => pace.to_string(),
                [phase] => phase.pace_text(),
                phases => format!("{} phases", phases.len()),
            },
        };
        let directed = if self.plan.directed { ", directed" } else { "" };
        Load {
            scenario: format!("{}{directed}", self.scenario()),
            phases: self.plan.phases.iter().map(ToString::to_string).collect(),
            clients: self.plan.clients,
            partners: self.plan.partners,
            clique: self.plan.clique,
            pace,
            ack_every: self.plan.ack_every,
            stanza_size: self.plan.stanza_size,
            connect_rate: self.plan.connect_rate,
            warmup: self.load.warmup,
            duration: self.load.duration,
            threads: self.threads,
            core: self.plan.core,
            seed: self.plan.seed,
            ..Load::default()
        }
    }
}

/// How a generator fared, but for its memory.
pub(crate) fn generator(plan: &Plan, slices: &[Slice], meter: &Meter) -> Generator {
    let seconds: f64 = slices.iter().map(|slice| slice.seconds).sum();
    let busiest: f64 = slices.iter().map(|slice| slice.generator_busiest).sum();
    Generator {
        busy: busiest / seconds.max(0.001),
        is_limit: is_limit(plan, slices),
        lag: Times::of("schedule lag", &meter.lag),
        waited: meter.waited,
        resident: 0,
    }
}

/// Whether a closed loop, that of one phase at least, went only as fast as the generator.
fn is_limit(plan: &Plan, slices: &[Slice]) -> bool {
    let is_closed = |pace| matches!(pace, Some(Pace::Closed { .. }));
    let is_busy = |slices: &[Slice]| {
        let seconds: f64 = slices.iter().map(|slice| slice.seconds).sum();
        let busiest: f64 = slices.iter().map(|slice| slice.generator_busiest).sum();
        busiest > BUSY_MAX * seconds
    };
    if plan.phases.is_empty() {
        return is_closed(Some(plan.pace)) && is_busy(slices);
    }
    let mut phases = plan.phases.iter().zip(slices);
    phases.any(|(phase, slice)| is_closed(phase.pace) && is_busy(std::slice::from_ref(slice)))
}

/// One of those that were measured in the run, or one worker's part of it.
struct Measured<'a> {
    whose: String,
    /// What of the schedule was its to keep.
    share: f64,
    /// By how many threads.
    threads: usize,
    slices: &'a [Slice],
    latency: &'a Times,
    lag: &'a Times,
    waited: u64,
    verdict: &'a Verdict,
}

/// All of them, the subject first.
fn measured(threads: usize, result: &RunResult) -> Vec<Measured<'_>> {
    let share = 1.0;
    let mut all = vec![Measured {
        whose: String::new(),
        share,
        threads,
        slices: &result.slices,
        latency: &result.latency,
        lag: &result.generator.lag,
        waited: result.generator.waited,
        verdict: &result.verdict,
    }];
    all.extend(result.floor.iter().map(|floor| Measured {
        whose: "floor: ".into(),
        share,
        threads,
        slices: &floor.slices,
        latency: &floor.latency,
        lag: &floor.lag,
        waited: 0,
        verdict: &floor.verdict,
    }));
    all.extend(result.plain.iter().map(|plain| Measured {
        whose: "plain: ".into(),
        share,
        threads,
        slices: &plain.slices,
        latency: &plain.latency,
        lag: &plain.lag,
        waited: plain.waited,
        verdict: &plain.verdict,
    }));
    all
}

/// What each worker had of it: one that is late is not to hide among others that are not.
fn by_worker<'a>(plan: &Plan, result: &'a RunResult) -> Vec<Measured<'a>> {
    let senders = f64::from(plan.senders(plan.clients).max(1));
    let part = |worker: &'a WorkerResult| Measured {
        whose: format!("worker {}: ", worker.address),
        share: f64::from(plan.senders(worker.clients)) / senders,
        threads: worker.threads,
        slices: &worker.slices,
        latency: &worker.latency,
        lag: &worker.generator.lag,
        waited: worker.generator.waited,
        verdict: &worker.verdict,
    };
    result.workers.iter().map(part).collect()
}

impl Measured<'_> {
    /// In what the schedule of an open loop was not kept.
    /// What waited did so for a reason.
    fn schedule_faults(&self, wanted: f64, arrivals: Arrivals, why_waited: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let sent: u64 = self.slices.iter().map(|slice| slice.sent).sum();
        let wanted = (wanted * self.share).max(1.0);
        let slack = match arrivals {
            // Equal gaps: a stretch holds one more or one less, by where it begins.
            Arrivals::Fixed => (self.threads * self.slices.len()) as f64,
            // The number varies by its square root.
            Arrivals::Poisson => 4.0 * wanted.sqrt(),
        };
        if (sent as f64 + slack) < SENT_SHARE_MIN * wanted {
            let share = sent as f64 / wanted * 100.0;
            let why = match self.waited {
                0 => String::new(),
                _ => format!(": {why_waited}"),
            };
            faults.push(format!("only {share:.1} % of the schedule was sent{why}"));
        }
        if self.lag.p99_us > LAG_P99_MAX_US.max(self.latency.p99_us * LAG_SHARE_MAX) {
            let late = crate::live::micros(self.lag.p99_us);
            faults.push(format!("the generator was {late} late (p99)"));
        }
        faults
    }

    /// Whether nothing was delivered; to a part of a schedule that happens by chance.
    fn silence(&self, pace: Pace) -> Option<String> {
        let delivered: u64 = self.slices.iter().map(|slice| slice.delivered).sum();
        let is_chance = match pace {
            Pace::Open { .. } => self.share < 1.0,
            Pace::Closed { .. } => self.share == 0.0,
        };
        let text = "nothing was delivered while it was measured";
        (delivered == 0 && !is_chance).then(|| text.to_owned())
    }

    /// In what a phase says nothing about the server; who has no part in it is asked nothing.
    fn phase_faults(&self, phase: &scenario::Phase) -> Vec<String> {
        if self.share == 0.0 {
            return Vec::new();
        }
        let mut faults = match phase.pace {
            Some(Pace::Open { arrivals, .. }) => {
                let seconds: f64 = self.slices.iter().map(|slice| slice.seconds).sum();
                self.schedule_faults(phase.due(seconds), arrivals, NOBODY_CAN)
            }
            Some(Pace::Closed { .. }) | None => Vec::new(),
        };
        faults.extend(phase.pace.and_then(|pace| self.silence(pace)));
        let whose = &self.whose;
        faults
            .iter()
            .map(|fault| format!("{whose}{fault}"))
            .collect()
    }
}

/// The exit code and the reasons for it.
fn verdict(
    plan: &Plan,
    threads: usize,
    result: &RunResult,
    slo: Option<&Slo>,
) -> (u8, Vec<String>) {
    let mut reasons = Vec::new();
    let mut code = exit::OK;
    let missed = result.thresholds.iter().filter(|one| !one.is_met);
    for threshold in missed {
        reasons.push(threshold.reason());
        code = exit::MISSED;
    }
    if result.server.as_ref().is_some_and(|one| one.is_partial) {
        reasons.push(format!(
            "the server came to have more than {PROCESSES_MAX} processes, which are not all \
             counted: its CPU and memory are too low"
        ));
        code = exit::INVALID;
    }
    let all = measured(threads, result);
    for measured in all.iter().chain(&by_worker(plan, result)) {
        let whose = &measured.whose;
        let mut faults = match plan.pace {
            // Each phase has its own.
            _ if !plan.phases.is_empty() => Vec::new(),
            Pace::Open { rate, arrivals } => {
                let seconds: f64 = measured.slices.iter().map(|slice| slice.seconds).sum();
                measured.schedule_faults(rate * seconds, arrivals, ALL_LOG_IN)
            }
            Pace::Closed { .. } => Vec::new(),
        };
        let rests = plan.scenario == Scenario::Idle || !plan.phases.is_empty();
        if !rests {
            faults.extend(measured.silence(plan.pace));
        }
        if !faults.is_empty() {
            code = exit::INVALID;
        }
        reasons.extend(faults.iter().map(|fault| format!("{whose}{fault}")));
    }
    let mut others = phase_faults(plan, threads, result);
    others.extend(late_starts(result));
    if !others.is_empty() {
        code = exit::INVALID;
    }
    reasons.extend(others);
    for measured in &all {
        let mut faults = measured.verdict.faults().to_vec();
        // Its own threshold judges a fault where there is one.
        let is_subject = measured.whose.is_empty();
        faults.retain(|(name, _)| !(is_subject && slo.is_some_and(|slo| slo.allows(name))));
        for (name, count) in faults.iter().filter(|(_, count)| *count > 0) {
            reasons.push(format!("{}{count} {name}", measured.whose));
            code = exit::UNVERIFIED;
        }
    }
    for (why, count) in &result.failures {
        reasons.push(format!("{count} x {why}"));
        code = exit::UNVERIFIED;
    }
    (code, reasons)
}

/// Which workers did not begin with the others: the server's cost is of the common time.
fn late_starts(result: &RunResult) -> Vec<String> {
    let mut faults = Vec::new();
    for worker in &result.workers {
        let pairs = worker.slices.iter().zip(&result.slices);
        let mut late =
            pairs.filter(|(own, all)| (own.at - all.at).abs() > START_SHARE_MAX * all.seconds);
        if let Some((own, all)) = late.next() {
            let (address, off) = (&worker.address, (own.at - all.at).abs());
            let off = crate::live::micros(off * 1e6);
            faults.push(format!(
                "worker {address}: it began {off} off the common start"
            ));
        }
    }
    faults
}

/// In what the phases of a mixed scenario say nothing about the server, of all together and of
/// each worker.
fn phase_faults(plan: &Plan, threads: usize, result: &RunResult) -> Vec<String> {
    let mut all = Vec::new();
    for (index, phase) in plan.phases.iter().enumerate() {
        let acting = |first: u32, count: u32| {
            let all = phase.clients.unwrap_or(plan.clients).min(plan.clients);
            f64::from(all.saturating_sub(first).min(count)) / f64::from(all.max(1))
        };
        let measured = |whose, share, threads, found: &[PhaseResult], slices: &[Slice]| {
            let (found, slice) = (found.get(index)?, slices.get(index..=index)?);
            let measured = Measured {
                whose,
                share,
                threads,
                slices: slice,
                latency: &found.latency,
                lag: &found.lag,
                waited: found.waited,
                verdict: &result.verdict,
            };
            Some(measured.phase_faults(phase))
        };
        let (own, slices) = (&result.scenario_phases, &result.slices);
        let mut faults = measured(String::new(), 1.0, threads, own, slices).unwrap_or_default();
        for worker in &result.workers {
            let whose = format!("worker {}: ", worker.address);
            let share = acting(worker.first, worker.clients);
            let (own, slices) = (&worker.scenario_phases, &worker.slices);
            let of_worker = measured(whose, share, worker.threads, own, slices);
            faults.extend(of_worker.unwrap_or_default());
        }
        let name = &phase.name;
        all.extend(faults.iter().map(|fault| format!("phase {name}: {fault}")));
    }
    all
}

/// Seconds since 1970.
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// The command line for publication: results are published, passwords are not.
fn command_line(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut follows = false;
    arguments
        .map(|argument| {
            let hidden = std::mem::replace(&mut follows, argument == "--password");
            match (hidden, argument.starts_with("--password=")) {
                (true, _) => "***".to_owned(),
                (_, true) => "--password=***".to_owned(),
                _ => argument,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
