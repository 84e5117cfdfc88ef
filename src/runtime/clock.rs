//! The time of a turn: read once at its beginning, never going back.

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use xmpp::Timestamp;

/// Wall-clock time at start, carried on by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base_us: u64,
    started: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Clock {
            base_us: since_epoch.as_micros() as u64,
            started: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.base_us + self.started.elapsed().as_micros() as u64)
    }
}
