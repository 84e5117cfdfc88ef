//! The share of a turn that large input has, so that nobody else waits for it.
//!
//! Why: a connection's first bytes are handled as they come. Of what is behind them a turn handles
//! so much in all, in the order in which it came, however many connections have some.

use crate::limit::{BULK_PER_TURN_MAX, PROMPT_SIZE_MAX};
use crate::shard::Shard;

/// How much more large input this turn takes.
#[derive(Debug)]
pub(crate) struct Bulk {
    left: usize,
}

impl Default for Bulk {
    fn default() -> Bulk {
        Bulk {
            left: BULK_PER_TURN_MAX,
        }
    }
}

impl Bulk {
    /// Whether an element of `size` bytes is handled now, behind `before` bytes of its connection.
    pub(crate) fn admits(&mut self, before: usize, size: usize) -> bool {
        if before + size <= PROMPT_SIZE_MAX {
            return true;
        }
        let admits = self.left > 0;
        self.left = self.left.saturating_sub(size);
        admits
    }
}

impl Shard {
    /// A turn begins: what comes now is others' first bytes, too, and large input waits until
    /// [`Shard::admit_bulk`].
    pub fn put_off_bulk(&mut self) {
        self.bulk.left = 0;
    }

    /// Everybody's first bytes are handled: now so much large input is, those first that waited
    /// longest.
    pub fn admit_bulk(&mut self) {
        self.bulk.left = BULK_PER_TURN_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_are_always_handled_and_so_much_of_others_in_a_turn() {
        let mut bulk = Bulk::default();
        assert!(bulk.admits(0, BULK_PER_TURN_MAX - 1));
        assert!(
            bulk.admits(PROMPT_SIZE_MAX, 200),
            "the last that fits begins"
        );
        assert!(!bulk.admits(PROMPT_SIZE_MAX, 200));
        assert!(bulk.admits(PROMPT_SIZE_MAX - 200, 200));
        assert!(!bulk.admits(0, PROMPT_SIZE_MAX + 1));
    }
}
