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
            Scenario::Idle | Scenario::Chat => "message",
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
    let of_phases = phase_faults(plan, threads, result);
    if !of_phases.is_empty() {
        code = exit::INVALID;
    }
    reasons.extend(of_phases);
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
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::plan::Dialect;
    use clap::Parser;

    const POISSON: Pace = open(Arrivals::Poisson);
    const FIXED: Pace = open(Arrivals::Fixed);

    const fn open(arrivals: Arrivals) -> Pace {
        let rate = 100.0;
        Pace::Open { rate, arrivals }
    }

    /// What a run says of which so many of a thousand stanzas were sent to each measured.
    fn judged(pace: Pace, sent: [u64; 3], change: impl FnOnce(&mut RunResult)) -> (u8, String) {
        judged_by(&[], pace, sent, change)
    }

    /// The same where a run has these options, too.
    fn judged_by(
        options: &[&str],
        pace: Pace,
        sent: [u64; 3],
        change: impl FnOnce(&mut RunResult),
    ) -> (u8, String) {
        let line = ["loadgen", "--closed", "--clients", "2"];
        let cli = crate::args::Cli::parse_from(line.iter().chain(options));
        let address = "127.0.0.1:1".parse().unwrap();
        let load = &cli.run.load;
        let mut plan = load.plan(address, Dialect::Xmpp, Clock::start()).unwrap();
        plan.pace = pace;
        let slices = |sent| {
            vec![Slice {
                seconds: 10.0,
                sent,
                delivered: 1,
                ..Slice::default()
            }]
        };
        let mut result = RunResult {
            slices: slices(sent[0]),
            floor: Some(Floor {
                slices: slices(sent[1]),
                ..Floor::default()
            }),
            plain: Some(Plain {
                slices: slices(sent[2]),
                ..Plain::default()
            }),
            ..RunResult::default()
        };
        change(&mut result);
        let slo = load.slo.as_ref();
        result.thresholds = slo.map_or_else(Vec::new, |slo| slo.judge(&result));
        let (code, reasons) = verdict(&plan, 1, &result, slo);
        (code, reasons.join("; "))
    }

    #[test]
    fn each_phase_is_held_to_its_own_schedule() {
        let line = "loadgen --scenario mixed --duration 5 --rate 100";
        let cli = crate::heed::read(line.split(' ')).expect("a line");
        let address = "127.0.0.1:1".parse().unwrap();
        let plan = cli.run.load.plan(address, Dialect::Xmpp, Clock::start());
        let plan = plan.unwrap();
        let judge_waiting = |sent: [u64; 3], delivered: [u64; 3], waited| {
            let all = sent.into_iter().zip(delivered);
            let slices: Vec<Slice> = all
                .map(|(sent, delivered)| Slice {
                    seconds: 5.0,
                    sent,
                    delivered,
                    ..Slice::default()
                })
                .collect();
            let mut result = RunResult {
                scenario_phases: phases::results(&plan, &slices, &Meter::default()),
                slices,
                ..RunResult::default()
            };
            for phase in &mut result.scenario_phases {
                phase.waited = waited;
            }
            let (code, reasons) = verdict(&plan, 1, &result, None);
            (code, reasons.join("; "))
        };
        let judge = |sent, delivered| judge_waiting(sent, delivered, 0);
        // The morning's rate grows from nothing behind two seconds of warm-up; the night rests.
        assert_eq!(judge([430, 500, 0], [9, 9, 0]), (exit::OK, String::new()));
        let (code, reasons) = judge([250, 500, 0], [9, 9, 0]);
        assert_eq!(code, exit::INVALID);
        assert!(reasons.starts_with("phase morning: only "), "{reasons}");
        let (code, reasons) = judge([430, 500, 0], [9, 0, 0]);
        assert_eq!(code, exit::INVALID);
        let expected = "phase day: nothing was delivered while it was measured";
        assert_eq!(reasons, expected);
        // It is not said of a mix that all its clients were in a login: one may be alone.
        let (_, reasons) = judge_waiting([430, 250, 0], [9, 9, 0], 7);
        let expected = "phase day: only 50.0 % of the schedule was sent: nobody asked could do it";
        assert!(reasons.starts_with(expected), "{reasons}");
    }

    #[test]
    fn a_worker_that_is_late_does_not_hide_among_others() {
        let worker = |address: &str, sent| WorkerResult {
            address: address.into(),
            clients: 1,
            threads: 1,
            slices: vec![Slice {
                seconds: 10.0,
                sent,
                delivered: 1,
                ..Slice::default()
            }],
            ..WorkerResult::default()
        };
        // Half of 100 a second for ten seconds is each one's.
        let both = |sent: [u64; 2]| [worker("a:1", sent[0]), worker("b:1", sent[1])].to_vec();
        let judge = |workers| judged(FIXED, [1000; 3], |result| result.workers = workers);
        assert_eq!(judge(both([500, 500])), (exit::OK, String::new()));
        let (code, reasons) = judge(both([500, 490]));
        assert_eq!(code, exit::INVALID);
        assert_eq!(reasons, "worker b:1: only 98.0 % of the schedule was sent");
        let mut late = both([500, 500]);
        late[1].generator.lag.p99_us = 2.0 * LAG_P99_MAX_US;
        let (code, reasons) = judge(late);
        assert_eq!(code, exit::INVALID);
        assert_eq!(reasons, "worker b:1: the generator was 2.00 ms late (p99)");
        // One that was due nowhere but there may be missing by chance; a closed loop's may not.
        let mut idle = both([500, 500]);
        idle[0].slices[0].delivered = 0;
        assert_eq!(judge(idle.clone()).0, exit::OK);
        let closed = Pace::Closed { window: 1 };
        let (code, reasons) = judged(closed, [1000; 3], |result| result.workers = idle);
        assert_eq!(code, exit::INVALID);
        assert_eq!(
            reasons,
            "worker a:1: nothing was delivered while it was measured"
        );
        // What it found is in the sum already.
        let mut lossy = both([500, 500]);
        lossy[0].verdict.lost = 1;
        assert_eq!(judge(lossy).0, exit::OK);
    }

    #[test]
    fn each_worker_is_held_to_its_part_of_a_phase() {
        let line = "loadgen --scenario mixed --duration 5 --rate 100 --clients 60";
        let cli = crate::heed::read(line.split(' ')).expect("a line");
        let address = "127.0.0.1:1".parse().unwrap();
        let mut plan = cli
            .run
            .load
            .plan_anywhere(address, Dialect::Xmpp, Clock::start());
        plan.phases[1].clients = Some(20);
        let slices = |sent: [u64; 3]| {
            sent.map(|sent| Slice {
                seconds: 5.0,
                sent,
                delivered: sent,
                ..Slice::default()
            })
        };
        let workers = |sent: [[u64; 3]; 3]| {
            (0..).zip(sent).map(|(at, sent)| WorkerResult {
                address: format!("{at}:1"),
                first: 20 * at,
                clients: 20,
                scenario_phases: phases::results(&plan, &slices(sent), &Meter::default()),
                slices: slices(sent).to_vec(),
                ..WorkerResult::default()
            })
        };
        let judge = |sent| {
            let all = slices([430, 500, 0]).to_vec();
            let result = RunResult {
                scenario_phases: phases::results(&plan, &all, &Meter::default()),
                slices: all,
                workers: workers(sent).collect(),
                ..RunResult::default()
            };
            verdict(&plan, 3, &result, None)
        };
        // By day only the first twenty act: those of the first worker.
        let good = [[143, 500, 0], [143, 0, 0], [143, 0, 0]];
        assert_eq!(judge(good), (exit::OK, Vec::new()));
        let (code, reasons) = judge([[143, 200, 0], [143, 0, 0], [40, 0, 0]]);
        assert_eq!((code, reasons.len()), (exit::INVALID, 2), "{reasons:?}");
        assert!(
            reasons[0].starts_with("phase morning: worker 2:1: only "),
            "{reasons:?}"
        );
        assert!(
            reasons[1].starts_with("phase day: worker 0:1: only 40.0 %"),
            "{reasons:?}"
        );
    }

    #[test]
    fn a_busy_generator_limits_a_closed_loop_of_any_phase() {
        let is_limit = |line: &str, busiest: &[f64]| {
            let cli = crate::heed::read(line.split(' ')).expect("a line");
            let address = "127.0.0.1:1".parse().unwrap();
            let plan = cli.run.load.plan(address, Dialect::Xmpp, Clock::start());
            let slices: Vec<Slice> = busiest
                .iter()
                .map(|busiest| Slice {
                    seconds: 2.0,
                    generator_busiest: *busiest,
                    ..Slice::default()
                })
                .collect();
            super::is_limit(&plan.unwrap(), &slices)
        };
        // One phase, in turns with another: all its stretches together.
        assert!(is_limit("loadgen --closed", &[1.8, 2.0, 2.0]));
        assert!(!is_limit("loadgen --closed", &[1.7, 2.0, 1.9]));
        assert!(!is_limit("loadgen --rate 5", &[2.0]));
        // Several phases: the last one rests.
        let mixed = "loadgen --scenario mixed --closed --window 2";
        assert!(is_limit(mixed, &[0.1, 1.95, 0.0]));
        assert!(!is_limit(mixed, &[1.9, 1.9, 0.0]));
        assert!(!is_limit(mixed, &[0.1, 0.1, 2.0]), "a rest");
        assert!(!is_limit("loadgen --scenario mixed", &[2.0, 2.0, 0.0]));
    }

    #[test]
    fn all_that_is_measured_is_held_to_the_schedule() {
        let good = (exit::OK, String::new());
        assert_eq!(judged(POISSON, [1000; 3], |_| ()), good);
        for (at, whose) in ["", "floor: ", "plain: "].into_iter().enumerate() {
            let mut sent = [1000; 3];
            sent[at] = 800;
            let expected = format!("{whose}only 80.0 % of the schedule was sent");
            assert_eq!(judged(POISSON, sent, |_| ()), (exit::INVALID, expected));
            let closed = Pace::Closed { window: 1 };
            assert_eq!(judged(closed, sent, |_| ()), good);
            let late = judged(POISSON, [1000; 3], |result| {
                let lag = match (at, &mut result.floor, &mut result.plain) {
                    (1, Some(floor), _) => &mut floor.lag,
                    (2, _, Some(plain)) => &mut plain.lag,
                    _ => &mut result.generator.lag,
                };
                lag.p99_us = 1100.0;
            });
            let expected = format!("{whose}the generator was 1.10 ms late (p99)");
            assert_eq!(late, (exit::INVALID, expected));
        }
    }

    #[test]
    fn only_random_arrivals_may_vary() {
        // 99 % of a thousand, less four times the square root of it, or one stanza.
        for (pace, least) in [(POISSON, 864), (FIXED, 989)] {
            assert_eq!(judged(pace, [least, 1000, 1000], |_| ()).0, exit::OK);
            let (code, reason) = judged(pace, [least - 1, 1000, 1000], |_| ());
            assert_eq!(code, exit::INVALID, "{reason}");
        }
    }

    #[test]
    fn a_schedule_without_clients_for_it_says_so() {
        let (code, reason) = judged(POISSON, [650, 1000, 1000], |result| {
            result.generator.waited = 3;
        });
        assert_eq!(code, exit::INVALID);
        assert!(reason.contains("65.0 %") && reason.contains("more --clients"));
        assert!(!reason.contains("generator"), "{reason}");
    }

    #[test]
    fn a_fault_of_the_server_outweighs_one_of_the_generator() {
        let (code, reason) = judged(POISSON, [800, 1000, 1000], |result| {
            result.plain.as_mut().unwrap().verdict.lost = 2;
        });
        assert_eq!(code, exit::UNVERIFIED);
        assert!(reason.ends_with("; plain: 2 lost"), "{reason}");
    }

    #[test]
    fn a_threshold_that_is_missed_has_a_code_of_its_own_behind_all_others() {
        let slow = |result: &mut RunResult| {
            result.latency = Times {
                count: 1,
                p99_us: 6_000.0,
                ..Times::default()
            };
        };
        let slo = ["--slo", "p99<5ms"];
        let (code, reason) = judged_by(&slo, FIXED, [1000; 3], slow);
        assert_eq!(
            (code, &*reason),
            (exit::MISSED, "p99<5ms was missed: 6.00 ms")
        );
        let (code, _) = judged_by(&["--slo", "p99<7ms"], FIXED, [1000; 3], slow);
        assert_eq!(code, exit::OK);
        let (code, reason) = judged_by(&slo, FIXED, [800, 1000, 1000], slow);
        assert_eq!((code, reason.matches(';').count()), (exit::INVALID, 1));
        let lost = |result: &mut RunResult| result.verdict.lost = 1;
        let (code, _) = judged_by(&slo, FIXED, [1000; 3], lost);
        assert_eq!(code, exit::UNVERIFIED);
    }

    #[test]
    fn a_threshold_says_how_many_faults_there_may_be() {
        let slo = ["--slo", "loss<0.1%"];
        let losing = |count| {
            move |result: &mut RunResult| {
                result.verdict.expected = 10_000;
                result.verdict.lost = count;
            }
        };
        let judged = |count| judged_by(&slo, FIXED, [1000; 3], losing(count));
        assert_eq!(judged(9), (exit::OK, String::new()));
        let (code, reason) = judged(10);
        assert_eq!((code, &*reason), (exit::MISSED, "loss<0.1% was missed: 10"));
        // Those of the floor beside it are no server's.
        let (code, _) = judged_by(&slo, FIXED, [1000; 3], |result| {
            result.verdict.expected = 10_000;
            result.floor.as_mut().unwrap().verdict.lost = 1;
        });
        assert_eq!(code, exit::UNVERIFIED);
    }

    #[test]
    fn a_server_of_which_a_part_is_counted_makes_the_run_invalid() {
        for (is_partial, expected) in [(false, exit::OK), (true, exit::INVALID)] {
            let (code, reason) = judged(POISSON, [1000; 3], |result| {
                result.server = Some(Server {
                    is_partial,
                    ..Server::default()
                });
            });
            assert_eq!(code, expected);
            assert_eq!(reason.contains("more than 64 processes"), is_partial);
        }
    }

    #[test]
    fn passwords_are_not_published() {
        let words = [
            "loadgen",
            "--password",
            "secret",
            "--password=secret",
            "--user",
            "u",
        ];
        let line = command_line(words.iter().map(|word| (*word).to_owned()));
        assert_eq!(
            line.join(" "),
            "loadgen --password *** --password=*** --user u"
        );
    }
}
