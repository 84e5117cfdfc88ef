//! How much of its limits a queue has used.

use super::{Acks, UNACKED_MAX, UNACKED_PRESENCE_MAX, UNACKED_PRESENCE_SIZE_MAX, UNACKED_SIZE_MAX};

impl Acks {
    /// Whether the queue has outgrown its limits.
    pub(crate) fn has_overflowed(&self) -> bool {
        let (count, size) = self.counted();
        count > UNACKED_MAX
            || size > UNACKED_SIZE_MAX
            || self.presence.0 > UNACKED_PRESENCE_MAX
            || self.presence.1 > UNACKED_PRESENCE_SIZE_MAX
    }

    /// Whether it is on the way there: what nobody would miss is left out.
    pub(crate) fn is_laden(&self) -> bool {
        let (count, size) = self.counted();
        count > UNACKED_MAX / 2 || size > UNACKED_SIZE_MAX / 2
    }

    /// Stanzas and bytes that count towards the limits.
    fn counted(&self) -> (usize, usize) {
        let (excused, waited, presence) = (self.excused, self.waited, self.presence);
        let count = self.queue.len() - excused.0 - waited.0 - presence.0;
        let size = self.size - excused.1 - waited.1 - presence.1 - self.answers;
        (count, size)
    }
}
