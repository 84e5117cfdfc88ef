//! The share of a turn that large input has, so that nobody else waits for it.
//!
//! Why: a connection's first bytes are handled as they come. Of what is behind them a turn handles
//! so much in all, in the order in which it came, however many connections have some.

use crate::limit::{BULK_PER_TURN_MAX, PROMPT_SIZE_MAX};
use crate::shard::Shard;

/// How much more this turn takes of what takes long.
#[derive(Debug)]
pub(crate) struct Bulk {
    /// Bytes of large input.
    left: usize,
    /// Bound streams that may end.
    pub ends_left: usize,
    turn: u32,
}

/// What of a connection's input was handled in a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Handled {
    bytes: u32,
    turn: u32,
}

impl Default for Bulk {
    fn default() -> Bulk {
        Bulk {
            left: BULK_PER_TURN_MAX,
            ends_left: usize::MAX,
            turn: 0,
        }
    }
}

impl Bulk {
    /// Whether an element of `size` bytes is handled now, behind what was of its connection.
    pub(crate) fn admits(&mut self, handled: &mut Handled, size: usize) -> bool {
        if handled.turn != self.turn {
            *handled = Handled {
                bytes: 0,
                turn: self.turn,
            };
        }
        let all = handled.bytes as usize + size;
        if all > PROMPT_SIZE_MAX {
            if self.left == 0 {
                return false;
            }
            self.left = self.left.saturating_sub(size);
        }
        // No element is so large that this is too little.
        handled.bytes = u32::try_from(all).unwrap_or(u32::MAX);
        true
    }
}

impl Shard {
    /// A turn begins: what comes now is others' first bytes, too, and large input waits until
    /// [`Shard::admit_bulk`].
    pub fn put_off_bulk(&mut self) {
        self.bulk.left = 0;
        self.bulk.turn = self.bulk.turn.wrapping_add(1);
    }

    /// Everybody's first bytes are handled: now so much large input is.
    pub fn admit_bulk(&mut self) {
        self.bulk.left = BULK_PER_TURN_MAX;
    }

    /// How many bytes of large input this turn still takes. It is less behind a connection that had
    /// some handled; whoever was put off goes before that one in the next turn.
    pub fn bulk_left(&self) -> usize {
        self.bulk.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_are_always_handled_and_so_much_of_others_in_a_turn() {
        let (mut bulk, mut one, mut other) = (Bulk::default(), <_>::default(), <_>::default());
        assert!(bulk.admits(&mut one, BULK_PER_TURN_MAX - 1));
        assert!(bulk.admits(&mut one, 200), "the last that fits begins");
        assert!(!bulk.admits(&mut one, 200));
        assert!(bulk.admits(&mut other, PROMPT_SIZE_MAX - 200));
        assert!(bulk.admits(&mut other, 200));
        assert!(!bulk.admits(&mut other, 1), "whatever they come in");
        bulk.turn += 1;
        assert!(bulk.admits(&mut one, PROMPT_SIZE_MAX));
        assert!(!bulk.admits(&mut one, 1));
    }
}
