//! The judgement of a run: whether it counts, what its exit code is, and why.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::Features;

use crate::args::LoadArgs;
use crate::clock::SECOND;
use crate::fleet::{Findings, Slice};
use crate::live::Live;
use crate::machine::{self, Machine};
use crate::plan::{Control, Pace, Plan, Scenario};
use crate::result::{Floor, Generator, Load, Plain, RunResult, Server, Times, exit};
use crate::stats::Phase;

/// An open loop is invalid whose generator is later than this in one of a hundred cases ..
const LAG_P99_MAX_US: f64 = 1000.0;
/// .. and later than this share of the latency it reports.
const LAG_SHARE_MAX: f64 = 0.1;
/// An open loop must have sent this share of what the schedule asked for.
const SENT_SHARE_MIN: f64 = 0.99;
/// A generator busier than this limits a closed loop.
const BUSY_MAX: f64 = 0.95;

/// What a judgement is made from.
pub(crate) struct Parts<'a> {
    pub(crate) plan: Plan,
    pub(crate) load: &'a LoadArgs,
    pub(crate) server: Option<Server>,
    pub(crate) floor: Option<Floor>,
    pub(crate) plain: Option<Plain>,
    pub(crate) slices: Vec<Slice>,
    pub(crate) machine: Machine,
    pub(crate) control: Arc<Control>,
}

impl Parts<'_> {
    pub(crate) fn judge(
        mut self,
        findings: &Findings,
        live: &Live,
        features: Features,
    ) -> RunResult {
        let meter = &findings.meter;
        let lag = Times::of("schedule lag", &meter.lag);
        let seconds: f64 = self.slices.iter().map(|slice| slice.seconds).sum();
        let cpu: f64 = self.slices.iter().map(|slice| slice.generator_cpu).sum();
        let threads = self.control.gauges.len();
        let cores = match self.plan.core {
            Some(core) => self.machine.cores.saturating_sub(core).clamp(1, threads),
            None => threads,
        };
        let busy = cpu / seconds.max(0.001) / cores as f64;
        let closed = matches!(self.plan.pace, Pace::Closed { .. });
        if let (Some(floor), Some(server)) = (&mut self.floor, &self.server) {
            let ratio =
                |cost: f64| (floor.cpu_per_million > 0.0).then(|| cost / floor.cpu_per_million);
            floor.ratio = server.cpu_per_million.and_then(ratio);
        }
        let generator = Generator {
            busy,
            is_limit: closed && busy > BUSY_MAX,
            lag,
            resident: machine::resident(std::process::id()).unwrap_or(0),
        };
        let (exit, reasons) = self.verdict(findings, &generator, seconds);
        let phases = Phase::ALL
            .iter()
            .filter(|phase| !meter.of(**phase).is_empty())
            .map(|phase| Times::of(phase.name(), meter.of(*phase)))
            .collect();
        let kind = match self.plan.scenario {
            Scenario::Login => "login",
            Scenario::Presence => "presence",
            Scenario::Idle | Scenario::Chat => "message",
        };
        RunResult {
            name: self
                .load
                .name
                .clone()
                .unwrap_or_else(|| self.default_name()),
            began: unix_seconds().saturating_sub(self.plan.clock.now() / SECOND),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: machine::commit(),
            command: command_line(std::env::args()),
            ring: features.to_string(),
            load: self.describe(),
            exit,
            reasons,
            rate: Slice::rate(&self.slices),
            latency: Times::of(kind, &meter.latency),
            service: Times::of("service", &meter.service),
            acks: Times::of("ack", &meter.acks),
            phases,
            verdict: findings.verdict,
            failures: findings.failures.clone(),
            timeline: live.points.clone(),
            slices: self.slices,
            server: self.server,
            floor: self.floor,
            plain: self.plain,
            generator,
            machine: self.machine,
        }
    }

    /// The exit code and the reasons for it.
    fn verdict(
        &self,
        findings: &Findings,
        generator: &Generator,
        seconds: f64,
    ) -> (u8, Vec<String>) {
        let mut reasons = Vec::new();
        let mut code = exit::OK;
        if let Pace::Open { rate, .. } = self.plan.pace {
            let sent: u64 = self.slices.iter().map(|slice| slice.sent).sum();
            let share = sent as f64 / (rate * seconds).max(1.0);
            // Poisson arrivals vary by the square root of their number.
            let slack = 4.0 / (rate * seconds).max(1.0).sqrt();
            if share + slack < SENT_SHARE_MIN {
                reasons.push(format!(
                    "only {:.1} % of the schedule was sent",
                    share * 100.0
                ));
            }
            let latency = findings.meter.latency.value_at_quantile(0.99) as f64 / 1e3;
            if generator.lag.p99_us > LAG_P99_MAX_US.max(latency * LAG_SHARE_MAX) {
                let late = crate::live::micros(generator.lag.p99_us);
                reasons.push(format!("the generator was {late} late (p99)"));
            }
            if !reasons.is_empty() {
                code = exit::INVALID;
            }
        }
        let measured = [
            ("", Some(&self.slices)),
            ("floor: ", self.floor.as_ref().map(|floor| &floor.slices)),
            ("plain: ", self.plain.as_ref().map(|plain| &plain.slices)),
        ];
        for (whose, slices) in measured {
            let delivered = |slices: &Vec<Slice>| slices.iter().map(|slice| slice.delivered).sum();
            if self.plan.scenario != Scenario::Idle && slices.map(delivered) == Some(0) {
                reasons.push(format!(
                    "{whose}nothing was delivered while it was measured"
                ));
                code = exit::INVALID;
            }
        }
        let floor = self.floor.as_ref().map(|floor| &floor.verdict);
        let plain = self.plain.as_ref().map(|plain| &plain.verdict);
        let accounts = [
            ("", Some(&findings.verdict)),
            ("floor: ", floor),
            ("plain: ", plain),
        ];
        for (whose, verdict) in accounts {
            let faults = verdict.map_or([("", 0); 9], |verdict| verdict.faults());
            for (name, count) in faults.iter().filter(|(_, count)| *count > 0) {
                reasons.push(format!("{whose}{count} {name}"));
                code = exit::UNVERIFIED;
            }
        }
        for (why, count) in &findings.failures {
            reasons.push(format!("{count} x {why}"));
            code = exit::UNVERIFIED;
        }
        (code, reasons)
    }

    fn default_name(&self) -> String {
        let scenario = format!("{:?}", self.plan.scenario).to_lowercase();
        format!("{scenario}-{}", self.plan.clients)
    }

    fn describe(&self) -> Load {
        let pace = match self.plan.pace {
            Pace::Closed { .. } if self.plan.scenario == Scenario::Idle => "idle".to_owned(),
            Pace::Closed { .. } if self.plan.scenario == Scenario::Login => {
                "closed loop".to_owned()
            }
            Pace::Closed { window } => format!("closed loop, window {window}"),
            Pace::Open { rate, arrivals } => {
                format!(
                    "open loop, {rate}/s {}",
                    format!("{arrivals:?}").to_lowercase()
                )
            }
        };
        let directed = if self.plan.directed { ", directed" } else { "" };
        Load {
            scenario: format!("{:?}{directed}", self.plan.scenario).to_lowercase(),
            clients: self.plan.clients,
            partners: self.plan.partners,
            clique: self.plan.clique,
            pace,
            ack_every: self.plan.ack_every,
            stanza_size: self.plan.stanza_size,
            connect_rate: self.plan.connect_rate,
            warmup: self.load.warmup,
            duration: self.load.duration,
            threads: self.control.gauges.len(),
            core: self.plan.core,
            seed: self.plan.seed,
            ..Load::default()
        }
    }
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
