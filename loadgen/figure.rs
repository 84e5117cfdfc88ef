//! The figures of a result by name: what thresholds are set on, and what a comparison compares.

use crate::live::{grouped, micros};
use crate::result::{RunResult, Times};
use crate::stats::Phase;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds.
    Time,
    /// Deliveries with one kind of fault, of all that were expected.
    Faults,
    /// A plain number.
    Number,
}

/// One figure of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name, as `--slo` has it.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// How much.
    pub value: f64,
}

/// The mean's name; the other columns of times have those of [`Times::HEADINGS`].
const MEAN: &str = "mean";

/// What stands before a column, with a dot, of times that are neither the run's latency nor a
/// phase's.
const PREFIXES: [&str; 2] = ["service", "ack"];

/// Figures that are no times, and what they count.
const OTHERS: [(&str, Unit); 16] = [
    ("loss", Unit::Faults),
    ("duplicated", Unit::Faults),
    ("reordered", Unit::Faults),
    ("corrupted", Unit::Faults),
    ("misrouted", Unit::Faults),
    ("bounced", Unit::Faults),
    ("disconnected", Unit::Faults),
    ("unacked", Unit::Faults),
    ("false-acks", Unit::Faults),
    ("not-resumed", Unit::Faults),
    ("rate", Unit::Number),
    ("cpu", Unit::Number),
    ("login-cpu", Unit::Time),
    ("tls-cpu", Unit::Time),
    ("memory", Unit::Number),
    ("floor", Unit::Number),
];

/// What the figure with this name counts, if there is one.
pub fn unit_of(name: &str) -> Option<Unit> {
    if let Some((_, unit)) = OTHERS.iter().find(|(other, _)| *other == name) {
        return Some(*unit);
    }
    let is_prefix = |name: &str| {
        let phases = Phase::ALL.iter().map(|phase| prefix_of(phase.name()));
        phases.chain(PREFIXES).any(|prefix| prefix == name)
    };
    let column = match name.split_once('.') {
        Some((prefix, column)) if is_prefix(prefix) => column,
        _ => name,
    };
    is_column(column).then_some(Unit::Time)
}

/// Whether times of any kind have a column with this name.
pub fn is_column(name: &str) -> bool {
    name == MEAN || Times::HEADINGS.contains(&name)
}

/// What stands before the columns of a phase.
fn prefix_of(phase: &str) -> &str {
    match phase {
        "login in all" => "login",
        phase => phase,
    }
}

/// All figures that a result has.
pub fn all(result: &RunResult) -> Vec<Figure> {
    let mut all = Vec::new();
    times(&mut all, "", &result.latency);
    for (prefix, found) in PREFIXES.iter().zip([&result.service, &result.acks]) {
        times(&mut all, &format!("{prefix}."), found);
    }
    for phase in &result.phases {
        times(&mut all, &format!("{}.", prefix_of(&phase.name)), phase);
    }
    for (name, count) in result.verdict.faults() {
        all.push(Figure {
            name: fault(name),
            unit: Unit::Faults,
            value: count as f64,
        });
    }
    let server = result.server.as_ref();
    let others = [
        ("rate", (result.latency.count > 0).then_some(result.rate)),
        ("cpu", server.and_then(|server| server.cpu_per_million)),
        (
            "login-cpu",
            server.and_then(|server| server.cpu_us_per_login),
        ),
        (
            "tls-cpu",
            result.plain.as_ref().and_then(|plain| plain.surcharge_us),
        ),
        (
            "memory",
            server
                .filter(|server| server.resident_ready > 0)
                .map(|server| server.bytes_per_connection),
        ),
        ("floor", result.floor.as_ref().and_then(|floor| floor.ratio)),
    ];
    all.extend(others.into_iter().filter_map(|(name, value)| {
        Some(Figure {
            name: name.to_owned(),
            unit: unit_of(name)?,
            value: value?,
        })
    }));
    all
}

/// The name of the figure that counts a fault of a verdict.
pub fn fault(name: &str) -> String {
    match name {
        "lost" => "loss".to_owned(),
        _ => name.replace(' ', "-"),
    }
}

/// A value as tables show it.
pub fn shown(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Time => micros(value),
        Unit::Number if value.abs() < 100.0 => format!("{value:.3}"),
        Unit::Number | Unit::Faults => grouped(value.round() as u64),
    }
}

fn times(all: &mut Vec<Figure>, prefix: &str, times: &Times) {
    if times.count == 0 {
        return;
    }
    let values = std::iter::once(times.mean_us).chain(times.columns());
    let names = std::iter::once(MEAN).chain(Times::HEADINGS);
    all.extend(names.zip(values).map(|(column, value)| Figure {
        name: format!("{prefix}{column}"),
        unit: Unit::Time,
        value,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Floor, Plain, Server};
    use crate::stats::{Phase, histogram};

    #[test]
    fn every_figure_of_a_full_result_has_its_unit_and_every_unit_its_figure() {
        let mut seen = histogram();
        seen.record(5_000).unwrap();
        let result = RunResult {
            latency: Times::of("message", &seen),
            service: Times::of("service", &seen),
            acks: Times::of("ack", &seen),
            phases: Phase::ALL
                .iter()
                .map(|phase| Times::of(phase.name(), &seen))
                .collect(),
            server: Some(Server {
                cpu_per_million: Some(4.0),
                cpu_us_per_login: Some(90.0),
                resident_ready: 1,
                ..Server::default()
            }),
            floor: Some(Floor {
                ratio: Some(1.5),
                ..Floor::default()
            }),
            plain: Some(Plain {
                surcharge_us: Some(0.5),
                ..Plain::default()
            }),
            ..RunResult::default()
        };
        let all = all(&result);
        for figure in &all {
            assert_eq!(unit_of(&figure.name), Some(figure.unit), "{}", figure.name);
        }
        // The run's own latency, and what has a prefix.
        let times = (1 + Times::HEADINGS.len()) * (1 + PREFIXES.len() + Phase::ALL.len());
        assert_eq!(all.len(), times + OTHERS.len());
        for wrong in ["p42", "ack", "ack.", ".p99", "floor.p99", "lost", ""] {
            assert_eq!(unit_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_was_not_measured_is_no_figure() {
        let names: Vec<String> = all(&RunResult::default())
            .into_iter()
            .map(|figure| figure.name)
            .collect();
        assert_eq!(names.len(), 10, "faults alone: {names:?}");
    }
}
