//! The open loop's schedule: when each stanza is due, whatever the server does.
//!
//! Invariant: a due time never depends on when anything was really sent, so a slow server cannot
//! make the schedule omit what would have been slow.

use crate::clock::SECOND;
use crate::random::Random;

/// How the gaps between due times are distributed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
pub enum Arrivals {
    /// Equal gaps.
    Fixed,
    /// Exponential gaps: independent users.
    Poisson,
}

/// A rate that grows (or falls) evenly from one to another, and stays there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// A second, at first.
    pub from: f64,
    /// A second, in the end.
    pub to: f64,
    /// How long it takes.
    pub seconds: f64,
}

impl Ramp {
    /// How many are due in the first so many seconds.
    pub fn count(&self, seconds: f64) -> f64 {
        let ramped = seconds.min(self.seconds);
        let slope = (self.to - self.from) / self.seconds;
        let rest = (seconds - ramped) * self.to;
        self.from * ramped + slope * ramped * ramped / 2.0 + rest
    }

    /// The seconds in which so many are due: what undoes [`Ramp::count`].
    fn seconds_of(&self, count: f64) -> f64 {
        let all = self.count(self.seconds);
        if count >= all {
            return self.seconds + (count - all) / self.to;
        }
        if count <= 0.0 {
            return 0.0;
        }
        // The root of a quadratic, in the form that keeps its digits.
        let slope = (self.to - self.from) / self.seconds;
        let root = (self.from * self.from + 2.0 * slope * count)
            .max(0.0)
            .sqrt();
        2.0 * count / (self.from + root)
    }
}

/// Due times at a mean rate from a start time on.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: u64,
    gap: f64,
    arrivals: Arrivals,
    elapsed: f64,
    count: u64,
    random: Random,
    ramp: Option<Ramp>,
}

impl Schedule {
    /// `rate` a second, the first due at `start`.
    pub fn new(start: u64, rate: f64, arrivals: Arrivals, seed: u64) -> Schedule {
        assert!(rate > 0.0, "a schedule needs a rate");
        let gap = SECOND as f64 / rate;
        Schedule {
            start,
            gap,
            arrivals,
            elapsed: 0.0,
            count: 0,
            random: Random::new(seed),
            ramp: None,
        }
    }

    /// The same, but for a rate that grows to its own.
    pub fn with_ramp(self, ramp: Ramp) -> Schedule {
        Schedule {
            ramp: Some(ramp),
            ..self
        }
    }

    /// When the next one is due.
    pub fn due(&self) -> u64 {
        if let Some(ramp) = &self.ramp {
            let count = match self.arrivals {
                Arrivals::Fixed => self.count as f64,
                Arrivals::Poisson => self.elapsed / self.gap,
            };
            return self.start + (ramp.seconds_of(count) * SECOND as f64) as u64;
        }
        match self.arrivals {
            // A product, not a sum: a sum of rounded gaps would drift.
            Arrivals::Fixed => self.start + (self.count as f64 * self.gap) as u64,
            Arrivals::Poisson => self.start + self.elapsed as u64,
        }
    }

    /// Moves on to the one after it.
    pub fn advance(&mut self) {
        self.count += 1;
        if self.arrivals == Arrivals::Poisson {
            self.elapsed -= self.gap * self.random.unit().ln();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(arrivals: Arrivals, rate: f64, count: usize) -> Vec<u64> {
        let mut schedule = Schedule::new(500, rate, arrivals, 3);
        (0..count)
            .map(|_| {
                let due = schedule.due();
                schedule.advance();
                due
            })
            .collect()
    }

    #[test]
    fn a_fixed_schedule_does_not_drift() {
        let dues = dues(Arrivals::Fixed, 3.0, 3_000_001);
        assert_eq!(dues[0], 500);
        assert_eq!(dues[3], 500 + SECOND);
        assert_eq!(dues[3_000_000], 500 + 1_000_000 * SECOND);
    }

    #[test]
    fn a_ramp_grows_evenly_and_then_keeps_its_rate() {
        for from in [0.0, 50.0, 100.0, 300.0] {
            let (to, seconds) = (100.0, 4.0);
            let ramp = Ramp { from, to, seconds };
            for arrivals in [Arrivals::Fixed, Arrivals::Poisson] {
                let mut schedule = Schedule::new(0, to, arrivals, 3).with_ramp(ramp);
                let mut within = [0u32; 3];
                let mut before = 0;
                while schedule.due() < 6 * SECOND {
                    assert!(schedule.due() >= before, "it goes back");
                    before = schedule.due();
                    within[(before / (2 * SECOND)) as usize] += 1;
                    schedule.advance();
                }
                // What the trapezoids below the ramp hold.
                let wanted = [1.5 * from + 0.5 * to, 0.5 * from + 1.5 * to, 2.0 * to];
                for (found, wanted) in within.into_iter().zip(wanted) {
                    let slack = match arrivals {
                        Arrivals::Fixed => 2.0,
                        Arrivals::Poisson => 5.0 * wanted.sqrt(),
                    };
                    let off = (f64::from(found) - wanted).abs();
                    assert!(off <= slack, "{found} of {wanted} from {from}");
                }
            }
        }
    }

    #[test]
    fn a_poisson_schedule_keeps_its_mean_and_never_goes_back() {
        let dues = dues(Arrivals::Poisson, 1000.0, 200_001);
        assert!(dues.windows(2).all(|pair| pair[0] <= pair[1]));
        let seconds = (dues[200_000] - 500) as f64 / SECOND as f64;
        assert!(
            (seconds - 200.0).abs() < 2.0,
            "200,000 arrivals took {seconds} s"
        );
        let gaps: Vec<f64> = dues
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64)
            .collect();
        let short = gaps.iter().filter(|gap| **gap < 1e6).count() as f64 / gaps.len() as f64;
        assert!(
            (short - 0.632).abs() < 0.01,
            "{short} of the gaps are below the mean"
        );
    }
}
