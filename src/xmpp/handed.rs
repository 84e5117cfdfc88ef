//! What became of the messages that wait for an account, by their numbers in storage.
//!
//! Invariant: storage removes them from the oldest on, and they have no gaps. So one leaves it only
//! when all before it may, too.

use crate::port::Arrived;
use std::collections::BTreeMap;

/// What became of a message that storage still has.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// A session was given it, and its client may not have it.
    Given,
    /// A client has it, or nobody gets it.
    Taken,
}

/// What became of the messages that wait for one account. There are no more than wait.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    /// Those up to this number are done with, whether or not storage could remove them.
    done: u64,
    fates: BTreeMap<u64, Fate>,
}

impl Handed {
    /// Storage was read: it has these, in the order in which they came.
    pub(crate) fn begin(&mut self, waiting: &[(u64, Arrived)]) {
        if let Some(first) = waiting.iter().map(|(number, _)| *number).min() {
            self.begin_at(first);
        }
    }

    fn begin_at(&mut self, first: u64) {
        self.done = self.done.max(first.saturating_sub(1));
        self.fates = self.fates.split_off(&(self.done + 1));
    }

    /// Whether nobody has or had it.
    pub(crate) fn is_open(&self, number: u64) -> bool {
        number > self.done && !self.fates.contains_key(&number)
    }

    /// A session is given it.
    pub(crate) fn give(&mut self, number: u64) {
        debug_assert!(self.is_open(number));
        self.fates.insert(number, Fate::Given);
    }

    /// Nobody is given it, for its sender is blocked and has heard of that.
    pub(crate) fn pass_over(&mut self, number: u64) {
        debug_assert!(self.is_open(number));
        self.fates.insert(number, Fate::Taken);
    }

    /// The client of the session that was given it has it.
    pub(crate) fn take(&mut self, number: u64) {
        if let Some(fate) = self.fates.get_mut(&number) {
            *fate = Fate::Taken;
        }
    }

    /// The session that was given it has ended: whether it waits on.
    pub(crate) fn take_back(&mut self, number: u64) -> bool {
        let is_given = self.fates.get(&number) == Some(&Fate::Given);
        is_given && self.fates.remove(&number).is_some()
    }

    /// All have left storage on another way.
    pub(crate) fn forget(&mut self) {
        self.fates.clear();
    }

    /// The number up to which all may leave storage, where that is more than before.
    pub(crate) fn finish(&mut self) -> Option<u64> {
        let before = self.done;
        while let Some(next) = self.fates.first_entry()
            && *next.key() == self.done + 1
            && *next.get() != Fate::Given
        {
            self.done += 1;
            next.remove();
        }
        (self.done > before).then_some(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_leaves_storage_behind_those_before_it() {
        let mut handed = Handed::default();
        handed.begin_at(4);
        handed.give(4);
        handed.pass_over(5);
        handed.give(6);
        handed.take(6);
        assert_eq!(handed.finish(), None);
        handed.take(4);
        assert_eq!(handed.finish(), Some(6));
        assert!(!handed.is_open(6) && handed.is_open(7));
    }

    #[test]
    fn what_comes_back_may_be_given_again_and_what_a_client_has_does_not_come_back() {
        let mut handed = Handed::default();
        handed.begin_at(1);
        for number in 1..=3 {
            handed.give(number);
        }
        handed.take(2);
        assert!(handed.take_back(1) && !handed.take_back(2) && handed.take_back(3));
        let open = (1..=3).filter(|number| handed.is_open(*number));
        assert_eq!(open.collect::<Vec<_>>(), [1, 3]);
        assert_eq!(handed.finish(), None);
        // Storage has removed the first two meanwhile, whoever asked it to.
        handed.begin_at(3);
        assert!(handed.is_open(3) && !handed.is_open(2));
    }
}
