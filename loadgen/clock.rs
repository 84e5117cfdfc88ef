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

    /// Nanoseconds since the start; fits the 48 bits of a mark for 78 hours.
    pub fn now(&self) -> u64 {
        self.zero.elapsed().as_nanos() as u64
    }
}
