//! Thresholds: what a result must show, as `--slo "p99<5ms,loss=0"` says it.
//!
//! Invariant: a term that the result has no figure for is missed.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::figure::{self, Figure, Unit};
use crate::result::RunResult;

/// All terms; each must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo(Vec<Term>);

/// One of them.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    /// As it was written.
    text: String,
    name: String,
    relation: Relation,
    bound: f64,
    /// The bound is a share of all expected deliveries.
    is_share: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
}

/// What a term came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// The term, as it was written.
    pub term: String,
    /// The figure as tables show it; nothing where the result has none.
    pub found: Option<String>,
    /// Whether it holds.
    pub is_met: bool,
}

impl Threshold {
    /// Why it is missed.
    pub fn reason(&self) -> String {
        match &self.found {
            Some(found) => format!("{} was missed: {found}", self.term),
            None => format!("{} was missed: the run has no such figure", self.term),
        }
    }
}

impl Relation {
    /// The longer ones first, for they begin as the shorter ones do.
    const ALL: [(&'static str, Relation); 5] = [
        ("<=", Relation::AtMost),
        (">=", Relation::AtLeast),
        ("<", Relation::Less),
        (">", Relation::More),
        ("=", Relation::Equal),
    ];

    #[expect(clippy::float_cmp, reason = "`=` is meant for counts, which are whole")]
    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Relation::Less => value < bound,
            Relation::AtMost => value <= bound,
            Relation::More => value > bound,
            Relation::AtLeast => value >= bound,
            Relation::Equal => value == bound,
        }
    }
}

impl Slo {
    /// The figures that are asked about.
    pub fn figures(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|term| term.name.as_str())
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Slo, String> {
        let terms = text.split(',').map(|term| term.trim().parse());
        Ok(Slo(terms.collect::<Result<_, _>>()?))
    }
}

impl FromStr for Term {
    type Err = String;

    fn from_str(text: &str) -> Result<Term, String> {
        let wrong = |why: String| format!("`{text}`: {why}, as in p99<5ms or loss=0");
        let at = text.find(['<', '>', '=']);
        let at = at.ok_or_else(|| wrong("a term is FIGURE<VALUE, or >, <=, >=, =".into()))?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let (sign, relation) = Relation::ALL
            .into_iter()
            .find(|(sign, _)| rest.starts_with(sign))
            .expect("one of the three that was found");
        let unit = figure::unit_of(name);
        let unit = unit.ok_or_else(|| wrong(format!("there is no figure `{name}`")))?;
        let value = rest[sign.len()..].trim();
        let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
        let factor = match (unit, &value[number.len()..]) {
            (Unit::Time, "us") => 1.0,
            (Unit::Time, "ms") => 1e3,
            (Unit::Time, "s") => 1e6,
            (Unit::Time, _) => return Err(wrong("a time has its unit, us, ms or s".into())),
            (Unit::Faults, "%") => 0.01,
            (Unit::Faults | Unit::Number, "") => 1.0,
            _ => return Err(wrong(format!("`{name}` is a number without a unit"))),
        };
        let bound = number.trim().parse::<f64>().ok();
        let bound = bound.filter(|bound| bound.is_finite() && *bound >= 0.0);
        let bound = bound.ok_or_else(|| wrong(format!("`{value}` is no value")))?;
        Ok(Term {
            text: text.to_owned(),
            name: name.to_owned(),
            relation,
            bound: bound * factor,
            is_share: value.ends_with('%'),
        })
    }
}

impl Term {
    fn judge(&self, figures: &[Figure], expected: u64) -> Threshold {
        let figure = figures.iter().find(|figure| figure.name == self.name);
        let value = figure.map(|figure| match self.is_share {
            true => figure.value / expected.max(1) as f64,
            false => figure.value,
        });
        Threshold {
            term: self.text.clone(),
            found: figure.map(|figure| figure::shown(figure.unit, figure.value)),
            is_met: value.is_some_and(|value| self.relation.holds(value, self.bound)),
        }
    }
}

impl Slo {
    /// What each term came to.
    pub fn judge(&self, result: &RunResult) -> Vec<Threshold> {
        let figures = figure::all(result);
        let expected = result.verdict.expected;
        let terms = self.0.iter();
        terms.map(|term| term.judge(&figures, expected)).collect()
    }

    /// Whether it says itself how many of such faults there may be.
    pub fn allows(&self, fault: &str) -> bool {
        let name = figure::fault(fault);
        self.0.iter().any(|term| term.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Verdict;
    use crate::result::Times;

    fn result() -> RunResult {
        RunResult {
            latency: Times {
                count: 9,
                p50_us: 900.0,
                p99_us: 5_000.0,
                ..Times::default()
            },
            rate: 60_000.0,
            verdict: Verdict {
                expected: 2_000,
                lost: 2,
                ..Verdict::default()
            },
            ..RunResult::default()
        }
    }

    #[test]
    fn a_term_holds_or_does_not() {
        for (term, is_met) in [
            ("p99<5ms", false),
            ("p99<=5ms", true),
            ("p99 < 5001us", true),
            ("p99>0.004s", true),
            ("p50>=900us", true),
            ("p50>900us", false),
            ("loss=0", false),
            ("loss=2", true),
            ("loss<=0.1%", true),
            ("loss<0.1%", false),
            ("duplicated=0", true),
            ("rate>=60000", true),
            ("rate>60000", false),
        ] {
            let slo: Slo = term.parse().expect(term);
            assert_eq!(slo.judge(&result())[0].is_met, is_met, "{term}");
        }
    }

    #[test]
    fn a_figure_that_was_not_measured_meets_nothing() {
        for term in ["cpu<100", "cpu>=0", "ack.p99<1s", "memory<9999999"] {
            let slo: Slo = term.parse().expect(term);
            let judged = &slo.judge(&result())[0];
            assert!(!judged.is_met && judged.found.is_none(), "{term}");
            assert!(judged.reason().contains("no such figure"));
        }
    }

    #[test]
    fn all_terms_are_judged_in_their_order() {
        let slo: Slo = "p99<4ms, loss=2,rate>1".parse().unwrap();
        let judged = slo.judge(&result());
        let met: Vec<bool> = judged.iter().map(|one| one.is_met).collect();
        assert_eq!(met, [false, true, true]);
        assert_eq!(judged[0].reason(), "p99<4ms was missed: 5.00 ms");
        assert!(slo.allows("lost") && !slo.allows("duplicated"));
    }

    #[test]
    fn what_is_no_term_is_refused_with_what_would_be_one() {
        for wrong in [
            "",
            "p99",
            "p99<",
            "p99<5",
            "p98<5ms",
            "p99<5min",
            "loss=x",
            "loss=-1",
            "rate>5ms",
            "rate>50%",
            "p99<5ms,",
            "<5ms",
            "p99<NaNms",
            "p99<inf",
            "p99=>5ms",
        ] {
            let error = wrong.parse::<Slo>().expect_err(wrong);
            assert!(error.ends_with("as in p99<5ms or loss=0"), "{error}");
        }
    }
}
