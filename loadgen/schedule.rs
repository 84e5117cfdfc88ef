//! The open loop's schedule: when each stanza is due, whatever the server does.
//!
//! Invariant: a due time never depends on when anything was really sent, so a slow server cannot
//! make the schedule omit what would have been slow.

use crate::clock::SECOND;
use crate::random::Random;

/// How the gaps between due times are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// Equal gaps.
    Fixed,
    /// Exponential gaps: independent users.
    Poisson,
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
        }
    }

    /// When the next one is due.
    pub fn due(&self) -> u64 {
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
