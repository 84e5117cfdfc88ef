//! `loadgen compare A.json B.json`: whether B is worse than A, by more than the machine's noise.
//!
//! Invariant: only runs of the same load are compared, and a gate that compared nothing is no pass.

use std::fmt::Write as _;

use crate::figure::{self, Figure, Unit};
use crate::result::{Load, RunResult, Server, exit};

/// What decides where `--only` does not say otherwise, so far as both runs have it.
const GATES: [&str; 8] = [
    "cpu",
    "floor",
    "login-cpu",
    "memory",
    "rate",
    "p50",
    "p99",
    "ack.p99",
];

/// One figure of both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: String,
    unit: Unit,
    before: f64,
    after: f64,
    /// By which share it is worse; less than nothing where it is better.
    pub worse: f64,
    /// Whether it decides.
    pub is_gate: bool,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// All figures of both, those that decide first.
    pub rows: Vec<Row>,
    noise: f64,
    /// What a reader must know: other machines, other commits.
    notes: Vec<String>,
}

/// Reads a share as `--noise` has it: `5%`.
///
/// # Errors
/// It is none.
pub fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|text| text.parse().ok());
    let number = number.filter(|number| (0.0..=1000.0).contains(number));
    number
        .map(|number: f64| number / 100.0)
        .ok_or_else(|| "takes a share, as in 5%".to_owned())
}

/// Reads the name of a figure as `--only` has it.
///
/// # Errors
/// There is none.
pub fn gate(text: &str) -> Result<String, String> {
    match figure::unit_of(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("takes names of figures, as in cpu,p99".to_owned()),
    }
}

/// Compares `after` with `before`; `only` are the figures that decide, if not the usual ones.
///
/// # Errors
/// They are no two good runs of the same load, or have no figure that decides.
pub fn compare(
    before: &RunResult,
    after: &RunResult,
    noise: f64,
    only: &[String],
) -> Result<Comparison, String> {
    for (which, result) in [("first", before), ("second", after)] {
        if !matches!(result.exit, exit::OK | exit::MISSED) {
            let why = result.reasons.join("; ");
            return Err(format!("the {which} run is no good one ({why}): repeat it"));
        }
    }
    if let Some((what, one, other)) = difference(before, after) {
        return Err(format!(
            "the runs are not of the same load: {what} is {one} in the first and {other} in the \
             second; repeat one of them"
        ));
    }
    let figures = figure::all(after);
    let has = |name: &str| figures.iter().any(|figure| figure.name == name);
    let has_floor = has("floor") && figure::all(before).iter().any(|one| one.name == "floor");
    let decides = |name: &str| match (only, name) {
        // In the same run as its floor, the ratio is the steadier of the two.
        ([], "cpu") => !has_floor,
        ([], "memory") => before.load.clients >= Server::BYTES_CLIENTS_MIN,
        // An open loop's rate is what was asked for.
        ([], "rate") => before.load.pace.starts_with("closed"),
        ([], name) => GATES.contains(&name),
        (only, name) => only.iter().any(|one| one == name),
    };
    let mut rows: Vec<Row> = figure::all(before)
        .into_iter()
        .filter_map(|old| row(&old, &figures, decides(&old.name)))
        .collect();
    rows.sort_by_key(|row| !row.is_gate);
    let gates: Vec<&str> = rows
        .iter()
        .filter(|row| row.is_gate)
        .map(|row| row.name.as_str())
        .collect();
    if let Some(missing) = only.iter().find(|name| !gates.contains(&name.as_str())) {
        return Err(format!("--only {missing}: not both runs have that figure"));
    }
    if gates.is_empty() {
        return Err("the runs have no figure in common that could decide".to_owned());
    }
    Ok(Comparison {
        rows,
        noise,
        notes: notes(before, after),
    })
}

fn row(before: &Figure, after: &[Figure], is_gate: bool) -> Option<Row> {
    let after = after.iter().find(|figure| figure.name == before.name)?;
    let change = match before.value {
        value if value == after.value => 0.0,
        0.0 => f64::INFINITY,
        value => (after.value - value) / value.abs(),
    };
    // Of a rate more is better, of everything else less.
    let worse = if before.name == "rate" {
        -change
    } else {
        change
    };
    Some(Row {
        name: before.name.clone(),
        unit: before.unit,
        before: before.value,
        after: after.value,
        worse,
        is_gate,
    })
}

/// In what two loads differ.
fn difference(before: &RunResult, after: &RunResult) -> Option<(&'static str, String, String)> {
    let parts = |result: &RunResult| {
        let load: &Load = &result.load;
        let none = || "none".to_owned();
        [
            ("the scenario", load.scenario.clone()),
            ("the number of clients", load.clients.to_string()),
            ("the number of partners", load.partners.to_string()),
            ("the clique", load.clique.to_string()),
            ("the pace", load.pace.clone()),
            ("a phase", load.phases.join("; ")),
            ("the stanza's size", load.stanza_size.to_string()),
            ("TLS", load.tls.clone()),
            ("WebSocket", load.websocket.to_string()),
            (
                "acknowledgement after",
                load.ack_every.map_or_else(none, |every| every.to_string()),
            ),
            ("durability", result.durability.clone().unwrap_or_else(none)),
        ]
    };
    let pairs = parts(before).into_iter().zip(parts(after));
    pairs
        .into_iter()
        .find(|((_, one), (_, other))| one != other)
        .map(|((what, one), (_, other))| (what, one, other))
}

fn notes(before: &RunResult, after: &RunResult) -> Vec<String> {
    let mut notes = Vec::new();
    let (one, other) = (&before.machine, &after.machine);
    if one.to_string() != other.to_string() || one.host != other.host {
        notes.push(format!("the machines differ: {one}; {other}"));
    }
    let workers = |result: &RunResult| {
        let all = result.workers.iter();
        let all: Vec<_> = all
            .map(|worker| format!("{} ({})", worker.machine, worker.machine.host))
            .collect();
        match all.is_empty() {
            true => "none".to_owned(),
            false => all.join(", "),
        }
    };
    let (one, other) = (workers(before), workers(after));
    if one != other {
        notes.push(format!("the workers differ: {one}; {other}"));
    }
    if before.load.mechanism != after.load.mechanism {
        notes.push(format!(
            "the mechanisms differ: {}; {}",
            before.load.mechanism, after.load.mechanism
        ));
    }
    notes
}

impl Comparison {
    /// The figures that decide and are worse by more than noise.
    pub fn regressions(&self) -> impl Iterator<Item = &Row> {
        let gates = self.rows.iter().filter(|row| row.is_gate);
        gates.filter(|row| row.worse > self.noise)
    }

    /// What it comes to.
    pub fn exit(&self) -> u8 {
        match self.regressions().next() {
            Some(_) => exit::REGRESSED,
            None => exit::OK,
        }
    }

    /// The table of it.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |content: String| {
            writeln!(text, "{content}").expect("a String takes everything");
        };
        for note in &self.notes {
            line(format!("  ! {note}"));
        }
        line(format!(
            "  {:<18}{:>14}{:>14}{:>10}",
            "figure", "before", "after", "change"
        ));
        for row in &self.rows {
            let change = match row.name.as_str() {
                "rate" => -row.worse,
                _ => row.worse,
            };
            let word = match row.is_gate {
                false => "",
                true if row.worse > self.noise => "  WORSE",
                true if row.worse < -self.noise => "  better",
                true => "  same",
            };
            line(format!(
                "  {:<18}{:>14}{:>14}{:>9.1}%{word}",
                row.name,
                figure::shown(row.unit, row.before),
                figure::shown(row.unit, row.after),
                change * 100.0,
            ));
        }
        let (worse, noise) = (self.regressions().count(), self.noise * 100.0);
        let decided = self.rows.iter().filter(|row| row.is_gate).count();
        line(format!(
            "  {worse} of {decided} that decide are worse by more than {noise}%"
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Floor, Times};

    fn run(cpu: f64, rate: f64, p99_us: f64) -> RunResult {
        RunResult {
            load: Load {
                pace: "closed loop, window 4".into(),
                clients: 100,
                ..Load::default()
            },
            latency: Times {
                count: 1,
                p50_us: 100.0,
                p99_us,
                ..Times::default()
            },
            rate,
            server: Some(Server {
                cpu_per_million: Some(cpu),
                resident_ready: 1,
                bytes_per_connection: cpu * 1e3,
                ..Server::default()
            }),
            ..RunResult::default()
        }
    }

    fn worse(before: &RunResult, after: &RunResult, only: &[&str]) -> Result<Vec<String>, String> {
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        let comparison = compare(before, after, 0.05, &only)?;
        let names: Vec<String> = comparison
            .regressions()
            .map(|row| row.name.clone())
            .collect();
        let code = if names.is_empty() {
            exit::OK
        } else {
            exit::REGRESSED
        };
        assert_eq!(comparison.exit(), code);
        assert_eq!(comparison.render().matches("WORSE").count(), names.len());
        Ok(names)
    }

    #[test]
    fn worse_is_more_than_the_noise_in_the_wrong_direction() {
        let before = run(4.0, 100_000.0, 900.0);
        let none = Vec::<String>::new();
        for (after, expected) in [
            (run(4.19, 96_000.0, 940.0), &none[..]),
            (run(2.0, 200_000.0, 100.0), &none[..]),
            (run(4.21, 100_000.0, 900.0), &["cpu".into()][..]),
            (run(4.0, 94_000.0, 900.0), &["rate".into()][..]),
            (run(4.0, 100_000.0, 950.0), &["p99".into()][..]),
        ] {
            assert_eq!(worse(&before, &after, &[]).unwrap(), expected);
        }
    }

    #[test]
    fn what_decides_is_what_the_load_can_tell() {
        let (mut before, mut after) = (run(4.0, 100.0, 900.0), run(9.0, 50.0, 900.0));
        // A hundred connections tell nothing of their bytes.
        assert_eq!(worse(&before, &after, &[]).unwrap(), ["rate", "cpu"]);
        for result in [&mut before, &mut after] {
            result.load.clients = Server::BYTES_CLIENTS_MIN;
            // An open loop's rate is what was asked for.
            result.load.pace = "open loop".into();
            // Its own floor says of the processor more than its seconds.
            result.floor = Some(Floor {
                ratio: Some(1.5),
                ..Floor::default()
            });
        }
        assert_eq!(worse(&before, &after, &[]).unwrap(), ["memory"]);
        assert_eq!(worse(&before, &after, &["p50"]).unwrap(), [""; 0]);
        assert_eq!(worse(&before, &after, &["cpu"]).unwrap(), ["cpu"]);
    }

    #[test]
    fn from_nothing_to_something_is_worse() {
        let (mut before, after) = (run(4.0, 1.0, 1.0), run(4.0, 1.0, 1.0));
        assert_eq!(worse(&before, &after, &["loss"]).unwrap(), [""; 0]);
        before.latency.p50_us = 0.0;
        assert_eq!(worse(&before, &after, &[]).unwrap(), ["p50"]);
    }

    #[test]
    fn runs_that_say_nothing_of_each_other_are_not_compared() {
        let good = run(4.0, 1.0, 1.0);
        let changed = |change: fn(&mut RunResult)| {
            let mut result = good.clone();
            change(&mut result);
            result
        };
        for (other, why) in [
            (
                changed(|result| result.load.clients = 7),
                "the number of clients is 100 in the first and 7 in the second",
            ),
            (
                changed(|result| result.durability = Some("full".into())),
                "durability is none in the first and full",
            ),
            (
                changed(|result| result.exit = exit::INVALID),
                "the second run is no good one",
            ),
        ] {
            let error = worse(&good, &other, &[]).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        let missed = changed(|result| result.exit = exit::MISSED);
        assert!(worse(&good, &missed, &[]).is_ok());
        let error = worse(&good, &good, &["floor"]).expect_err("there is no floor");
        assert!(error.starts_with("--only floor"), "{error}");
        let nothing = RunResult::default();
        let error = worse(&nothing, &nothing, &[]).expect_err("nothing to compare");
        assert!(error.contains("no figure in common"), "{error}");
    }

    #[test]
    fn other_workers_are_no_other_load_but_a_reader_is_told() {
        let alone = run(4.0, 1.0, 1.0);
        let mut shared = alone.clone();
        shared.workers.push(crate::result::WorkerResult::default());
        shared.workers[0].machine.host = "load-1".into();
        let told = |before: &RunResult, after: &RunResult| {
            let comparison = compare(before, after, 0.05, &[]).expect("it is the same load");
            comparison.render()
        };
        assert!(!told(&shared, &shared).contains("workers"));
        let text = told(&alone, &shared);
        assert!(text.contains("the workers differ: none; "), "{text}");
        assert!(text.contains("(load-1)"), "{text}");
    }

    #[test]
    fn a_share_has_its_sign() {
        assert_eq!(share("5%"), Ok(0.05));
        for wrong in ["5", "%", "-1%", "x%", "NaN%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        assert!(gate("cpu").is_ok() && gate("cpo").is_err());
    }
}
