//! One monotonic clock for every thread of a run, in nanoseconds since the run began.

use std::time::Instant;

/// A nanosecond count of one second.
pub const SECOND: u64 = 1_000_000_000;

/// The run's clock (CLOCK_MONOTONIC); copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    zero: Instant,
}

impl Clock {
    /// Starts at 0 now.
    pub fn start() -> Clock {
        Clock {
            zero: Instant::now(),
        }
    }

    /// The same clock, as one that began so many nanoseconds earlier, or later where that is
    /// negative; nothing where the machine's own clock does not reach so far.
    pub fn shifted(self, earlier: i64) -> Option<Clock> {
        let by = std::time::Duration::from_nanos(earlier.unsigned_abs());
        let zero = match earlier >= 0 {
            true => self.zero.checked_sub(by),
            false => self.zero.checked_add(by),
        };
        zero.map(|zero| Clock { zero })
    }

    /// Nanoseconds since the start; fits the 48 bits of a mark for 78 hours.
    pub fn now(&self) -> u64 {
        self.zero.elapsed().as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_clock_is_ahead_or_behind_by_as_much() {
        let clock = Clock::start();
        let ahead = clock.shifted(5 * SECOND as i64).unwrap();
        assert!(ahead.now() >= 5 * SECOND);
        // What is behind is 0 until it begins.
        assert_eq!(clock.shifted(-3600 * SECOND as i64).unwrap().now(), 0);
        assert!(
            clock
                .shifted(i64::MAX)
                .is_none_or(|clock| clock.now() > SECOND)
        );
    }
}
