//! What the phases of a mixed scenario came to, each apart: their figures, and how tables and pages
//! show them.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::fleet::Slice;
use crate::html::escaped;
use crate::live::{grouped, micros};
use crate::plan::Plan;
use crate::result::{RunResult, Server, Times};
use crate::scenario::{Action, Phase};
use crate::slo::Threshold;
use crate::stats::{Meter, PhaseMeter, histogram};

/// What one phase came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PhaseResult {
    /// Its name.
    pub name: String,
    /// `open loop, 500/s poisson`.
    pub pace: String,
    /// `chat 8, presence 1`.
    pub mix: String,
    /// Bytes of its stanzas.
    pub sizes: String,
    /// How many clients acted.
    pub clients: u32,
    /// When it began to be recorded, in seconds of the run.
    pub at: f64,
    /// For how long.
    pub seconds: f64,
    /// Actions begun.
    pub sent: u64,
    /// Verified deliveries, answers and returns.
    pub delivered: u64,
    /// The same a second.
    pub rate: f64,
    /// The server's CPU seconds per million of them.
    pub cpu_per_million: Option<f64>,
    /// Cores that the server had.
    pub server_cores: Option<f64>,
    /// All actions together, from when each was due.
    pub latency: Times,
    /// The same from when each was begun.
    pub service: Times,
    /// Each kind of action apart.
    pub actions: Vec<ActionTimes>,
    /// How late the generator was.
    pub lag: Times,
    /// Actions that had to wait for somebody who could do them.
    pub waited: u64,
}

/// The times of one kind of action.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ActionTimes {
    /// From when it was due; its name is the action's.
    pub latency: Times,
    /// From when it was begun.
    pub service: Times,
}

/// What all phases came to.
pub fn results(plan: &Plan, slices: &[Slice], meter: &Meter) -> Vec<PhaseResult> {
    let none = PhaseMeter::default();
    let measured = plan.phases.iter().zip(slices).enumerate();
    measured
        .map(|(index, (phase, slice))| {
            let seen = meter.mixed.get(index).unwrap_or(&none);
            PhaseResult {
                clients: phase.clients.unwrap_or(plan.clients),
                ..of(phase, slice, seen)
            }
        })
        .collect()
}

fn of(phase: &Phase, slice: &Slice, seen: &PhaseMeter) -> PhaseResult {
    let one = std::slice::from_ref(slice);
    let mut all = [histogram(), histogram()];
    let mut actions = Vec::new();
    for (action, times) in measured(seen) {
        for (all, times) in all.iter_mut().zip(times) {
            all.add(times).expect("all histograms have the same bounds");
        }
        actions.push(ActionTimes {
            latency: Times::of(action.name(), &times[0]),
            service: Times::of("service", &times[1]),
        });
    }
    PhaseResult {
        name: phase.name.clone(),
        pace: phase.pace_text(),
        mix: phase.mix_text(),
        sizes: match phase.is_marked() {
            true => phase.sizes.to_string(),
            false => String::new(),
        },
        clients: 0,
        at: slice.at,
        seconds: slice.seconds,
        sent: slice.sent,
        delivered: slice.delivered,
        rate: Slice::rate(one),
        cpu_per_million: Slice::cpu_per_million(one),
        server_cores: slice.server_cpu.map(|cpu| cpu / slice.seconds.max(0.001)),
        latency: Times::of(&phase.name, &all[0]),
        service: Times::of("service", &all[1]),
        actions,
        lag: Times::of("lag", &seen.lag),
        waited: seen.waited,
    }
}

/// The actions that a phase has times of.
pub fn measured(seen: &PhaseMeter) -> impl Iterator<Item = (Action, &[Histogram<u64>; 2])> {
    let all = Action::ALL.into_iter();
    all.filter_map(|action| Some((action, seen.of(action)?)))
}

/// What the phases' own thresholds came to.
pub fn thresholds(plan: &Plan, phases: &[PhaseResult]) -> Vec<Threshold> {
    let mut all = Vec::new();
    for (phase, found) in plan.phases.iter().zip(phases) {
        let Some(slo) = &phase.slo else { continue };
        // They are figures of a run, of which this is a part.
        let part = RunResult {
            rate: found.rate,
            latency: found.latency.clone(),
            service: found.service.clone(),
            server: Some(Server {
                cpu_per_million: found.cpu_per_million,
                ..Server::default()
            }),
            ..RunResult::default()
        };
        all.extend(slo.judge(&part).into_iter().map(|threshold| Threshold {
            term: format!("{}: {}", phase.name, threshold.term),
            ..threshold
        }));
    }
    all
}

/// The phase that a second of the run belongs to.
pub fn at(phases: &[PhaseResult], second: u64) -> Option<&str> {
    let middle = second as f64 + 0.5;
    let phase = phases
        .iter()
        .find(|phase| (phase.at..phase.at + phase.seconds).contains(&middle));
    phase.map(|phase| phase.name.as_str())
}

impl PhaseResult {
    /// What it did and what that came to, in a line.
    fn summary(&self) -> String {
        let mut text = format!("{:.1} s, {}", self.seconds, self.pace);
        for part in [&self.mix, &self.sizes] {
            if !part.is_empty() {
                text += &format!(", {part}");
            }
        }
        text += &format!(", {} clients", grouped(self.clients.into()));
        if self.sent > 0 {
            let (delivered, rate) = (grouped(self.delivered), grouped(self.rate.round() as u64));
            text += &format!("; {delivered} deliveries, {rate}/s");
        }
        if let Some(cores) = self.server_cores {
            text += &format!("; server {:.1} % of a core", cores * 100.0);
        }
        if let Some(cpu) = self.cpu_per_million {
            text += &format!(", {cpu:.3} s per million");
        }
        text
    }

    /// Each kind of action with its latency and service time; the latter where it differs.
    fn rows(&self) -> Vec<(String, &Times)> {
        let is_open = self.pace.starts_with("open");
        let returns = Action::ALL.iter().filter(|action| action.is_return());
        let returns: Vec<_> = returns.map(|action| action.name()).collect();
        let mut rows = Vec::new();
        for action in &self.actions {
            let name = &action.latency.name;
            rows.push((name.clone(), &action.latency));
            if is_open || returns.contains(&name.as_str()) {
                rows.push((format!("{name} service"), &action.service));
            }
        }
        if self.lag.count > 0 {
            rows.push(("schedule lag".to_owned(), &self.lag));
        }
        rows
    }
}

/// The phases as the final table has them.
pub fn table(phases: &[PhaseResult]) -> String {
    let mut text = String::new();
    for phase in phases {
        text += &format!("\n  phase {}: {}\n", phase.name, phase.summary());
        for (name, times) in phase.rows() {
            text += &format!("  {name:<18}{:>10}", grouped(times.count));
            for us in times.columns() {
                text += &format!("{:>11}", micros(us));
            }
            text.push('\n');
        }
    }
    text
}

/// The phases as pages have them: the inside of a card.
pub fn page(phases: &[PhaseResult]) -> String {
    let mut rows = String::from("<tr><th>phase</th><th></th><th>count</th>");
    for heading in Times::HEADINGS {
        rows += &format!("<th>{heading}</th>");
    }
    rows += "</tr>";
    for phase in phases {
        let columns = Times::HEADINGS.len() + 2;
        rows += &format!(
            "<tr><th>{}</th><td colspan='{columns}' style='text-align:left'>{}</td></tr>",
            escaped(&phase.name),
            escaped(&phase.summary())
        );
        for (name, times) in phase.rows() {
            let name = escaped(&name);
            rows += &format!(
                "<tr><th></th><td>{name}</td><td>{}</td>",
                grouped(times.count)
            );
            for us in times.columns() {
                rows += &format!("<td>{}</td>", micros(us));
            }
            rows += "</tr>";
        }
    }
    format!("<div class='wide'><table>{rows}</table></div>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Pace;
    use crate::scenario::Sizes;

    fn phase() -> Phase {
        Phase {
            name: "storm".into(),
            warmup: 0.0,
            duration: 2.0,
            clients: None,
            pace: Some(Pace::Open {
                rate: 5.0,
                arrivals: crate::schedule::Arrivals::Fixed,
            }),
            ramp: 0.0,
            rate_from: 0.0,
            mix: vec![(Action::Chat, 2), (Action::Reconnect, 1)],
            sizes: Sizes::Fixed(200),
            pause: 0.0,
            slo: None,
        }
    }

    #[test]
    fn a_phase_shows_each_action_with_both_times() {
        let mut seen = PhaseMeter::default();
        seen.record(Action::Chat, 4_000_000, 1_000_000);
        seen.record(Action::Reconnect, 9_000_000, 8_000_000);
        let slice = Slice {
            at: 3.0,
            seconds: 2.0,
            sent: 2,
            delivered: 2,
            server_cpu: Some(0.5),
            ..Slice::default()
        };
        let found = of(&phase(), &slice, &seen);
        assert_eq!((found.latency.count, found.service.count), (2, 2));
        assert_eq!(found.server_cores, Some(0.25));
        for text in [
            table(std::slice::from_ref(&found)),
            page(std::slice::from_ref(&found)),
        ] {
            for part in [
                "storm",
                "chat service",
                "reconnect service",
                "open loop, 5/s fixed",
                "chat 2, reconnect 1",
                "4.00 ms",
                "1.00 ms",
                "25.0 % of a core",
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        assert_eq!(at(std::slice::from_ref(&found), 3), Some("storm"));
        assert_eq!(at(&[found], 5), None);
    }
}
