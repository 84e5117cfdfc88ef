//! The time of a turn, which is read once at its beginning and never goes back, and what the
//! system's clock shows then.

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use xmpp::Timestamp;

/// How long the system's clock is not looked at again.
const WALL_US: u64 = 1_000_000;

/// Wall-clock time at start, carried on by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base_us: u64,
    started: Instant,
    /// How far the system's clock is ahead of this one, in microseconds.
    ahead_us: i64,
    /// When that was seen.
    seen: Timestamp,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        let base_us = wall_us();
        Clock {
            base_us,
            started: Instant::now(),
            ahead_us: 0,
            seen: Timestamp(base_us),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.base_us + self.started.elapsed().as_micros() as u64)
    }

    /// What the system's clock shows at `now`: it may have been set since the start, and may have
    /// gone on while the machine was suspended.
    pub(crate) fn wall(&mut self, now: Timestamp) -> Timestamp {
        if now.0 - self.seen.0 >= WALL_US {
            self.ahead_us = wall_us() as i64 - now.0 as i64;
            self.seen = now;
        }
        Timestamp(now.0.saturating_add_signed(self.ahead_us))
    }
}

fn wall_us() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.unwrap_or_default().as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_shows_what_the_systems_clock_was_set_to() {
        const HOUR_US: u64 = 3_600_000_000;
        let mut clock = Clock::new();
        clock.base_us -= HOUR_US;
        let at = |us| Timestamp(clock.base_us + us);
        let (soon, later) = (at(HOUR_US + WALL_US / 2), at(2 * HOUR_US));
        let before = wall_us();
        let seen = clock.wall(soon);
        assert_eq!(seen, soon, "it was looked at a moment ago");
        let seen = clock.wall(later);
        assert!((before..=wall_us()).contains(&seen.0), "{seen:?}");
    }
}
