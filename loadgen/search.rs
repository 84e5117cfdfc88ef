//! `--find-max`: the highest rate of an open loop that meets its thresholds.
//!
//! Each rate is a whole run with its own log-in, tried once: doubled until one misses, halved
//! until one meets, and then the middle of the two.
//!
//! Invariant: the rate that is named was run, and met every threshold.

use ring::Features;
use serde::{Deserialize, Serialize};

use crate::args::RunArgs;
use crate::live::{grouped, micros};
use crate::result::{RunResult, exit};
use crate::run::{self, Ran};

/// The search ends when the lowest rate that missed is so little above the highest that met.
const PRECISION: f64 = 0.05;
/// Rates that are tried at most: from one a second to a million and back takes fewer.
const TRIALS_MAX: usize = 32;
/// The lowest rate that is tried.
const RATE_MIN: f64 = 1.0;

/// One rate that was tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Stanzas (or logins) a second that were asked for.
    pub rate: f64,
    /// The exit code of its run.
    pub exit: u8,
    /// Its 99th percentile.
    pub p99_us: f64,
    /// Why it does not count.
    pub reasons: Vec<String>,
}

/// Where a search is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bounds {
    /// The highest rate that met everything.
    met: Option<f64>,
    /// The lowest that did not.
    missed: Option<f64>,
}

impl Bounds {
    /// What to try after `rate`; nothing where the two are close enough.
    fn next(self, rate: f64) -> Option<f64> {
        match (self.met, self.missed) {
            (Some(met), Some(missed)) if missed <= met * (1.0 + PRECISION) => None,
            (Some(met), Some(missed)) => Some(f64::midpoint(met, missed).round()),
            (_, None) => Some(rate * 2.0),
            (None, Some(_)) if rate <= RATE_MIN => None,
            (None, Some(_)) => Some((rate / 2.0).max(RATE_MIN)),
        }
        .filter(|next| *next != rate)
    }
}

/// Searches, and gives the best run with all trials in its result.
///
/// # Errors
/// Nothing could be measured, or no rate meets the thresholds.
pub fn find_max(args: &RunArgs, features: Features) -> Result<Ran, String> {
    let mut bounds = Bounds {
        met: None,
        missed: None,
    };
    let (mut best, mut trials) = (None, Vec::new());
    let mut next = Some(args.load.rate_default());
    while let Some(rate) = next.filter(|_| trials.len() < TRIALS_MAX) {
        let mut args = args.clone();
        args.load.set_rate(rate);
        let ran = run::server(&args, features)?;
        let trial = Trial::of(rate, &ran.result);
        if !args.load.quiet {
            eprintln!("{}", trial.line());
        }
        match trial.exit {
            exit::OK => {
                bounds.met = Some(rate);
                best = Some(ran);
            }
            _ => bounds.missed = Some(rate),
        }
        trials.push(trial);
        next = bounds.next(rate);
    }
    let mut best = best.ok_or_else(|| {
        let last = trials.last().map(Trial::line).unwrap_or_default();
        format!("--find-max: no rate meets the thresholds; the lowest was {last}")
    })?;
    conclude(&mut best.result, trials, bounds.missed);
    Ok(best)
}

/// What the search says of its best run.
fn conclude(result: &mut RunResult, trials: Vec<Trial>, missed: Option<f64>) {
    let limit = trials.iter().find(|trial| Some(trial.rate) == missed);
    // It is the server's limit only where the generator could have gone on.
    if limit.is_none_or(|trial| trial.exit == exit::INVALID) {
        let why = limit.map_or_else(String::new, Trial::line);
        let reason = format!("more than this rate was not the generator's to offer: {why}");
        result.reasons.push(reason);
        result.exit = exit::INVALID;
    }
    result.trials = trials;
}

impl Trial {
    fn of(rate: f64, result: &RunResult) -> Trial {
        Trial {
            rate,
            exit: result.exit,
            p99_us: result.latency.p99_us,
            reasons: result.reasons.clone(),
        }
    }

    /// It on one line.
    pub fn line(&self) -> String {
        let word = match self.exit {
            exit::OK => "met",
            exit::INVALID => "invalid",
            _ => "missed",
        };
        let (rate, p99) = (grouped(self.rate.round() as u64), micros(self.p99_us));
        let why = match self.reasons.is_empty() {
            true => String::new(),
            false => format!(" ({})", self.reasons.join("; ")),
        };
        format!("{rate}/s: {word}, p99 {p99}{why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates that are tried where all up to `limit` meet the thresholds, and what is found.
    fn search(first: f64, limit: f64) -> (Vec<f64>, Option<f64>) {
        let mut bounds = Bounds {
            met: None,
            missed: None,
        };
        let (mut tried, mut next) = (Vec::new(), Some(first));
        while let Some(rate) = next {
            tried.push(rate);
            assert!(tried.len() <= TRIALS_MAX, "{tried:?}");
            match rate <= limit {
                true => bounds.met = Some(rate),
                false => bounds.missed = Some(rate),
            }
            next = bounds.next(rate);
        }
        (tried, bounds.met)
    }

    #[test]
    fn the_limit_is_found_from_below_and_from_above() {
        for limit in [1.0, 7.0, 900.0, 61_234.0, 1_000_000.0] {
            for first in [1.0, 100.0, 10_000.0, 5_000_000.0] {
                let (tried, found) = search(first, limit);
                let found = found.unwrap_or_else(|| panic!("{limit} from {first}: {tried:?}"));
                assert!(found <= limit);
                // Whole rates are tried, so that low ones are a step of one apart.
                let room = (limit * PRECISION).max(1.0);
                assert!(limit - found <= room, "{limit} from {first}: {tried:?}");
            }
        }
    }

    #[test]
    fn where_nothing_meets_the_search_ends_at_one_a_second() {
        let (tried, found) = search(100.0, 0.5);
        assert_eq!((tried.last(), found), (Some(&RATE_MIN), None));
    }

    #[test]
    fn a_limit_of_the_generator_is_not_the_servers() {
        let trial = |rate, exit| Trial {
            rate,
            exit,
            ..Trial::default()
        };
        for (exit, expected) in [
            (exit::MISSED, exit::OK),
            (exit::UNVERIFIED, exit::OK),
            (exit::INVALID, exit::INVALID),
        ] {
            let mut result = RunResult::default();
            let trials = vec![trial(100.0, exit::OK), trial(200.0, exit)];
            conclude(&mut result, trials, Some(200.0));
            assert_eq!(result.exit, expected);
            assert_eq!(result.trials.len(), 2);
        }
    }
}
