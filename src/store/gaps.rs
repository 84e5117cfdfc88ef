//! Stanzas whose writes failed although later ones of the same session to the same account may
//! succeed: a mark names the last that took effect, and these below it did not.

use std::collections::HashMap;

use stanza::jid::BareJid;
use xmpp::port::{Mark, Origin, SessionId, StoreOp};

/// Failed stanzas remembered for one session and receiver; the oldest go first.
const GAPS_MAX: usize = 64;

/// Pairs of session and receiver with such stanzas; when there are more, all are forgotten.
const PAIRS_MAX: usize = 10_000;

/// What failed since the process began. What came before that was sent again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps(HashMap<(SessionId, BareJid), Vec<u64>>);

impl Gaps {
    /// A stanza had no effect on its receiver.
    pub(crate) fn note(&mut self, origin: Origin, receiver: BareJid) {
        if self.0.len() >= PAIRS_MAX {
            self.0.clear();
        }
        let failed = self.0.entry((origin.session, receiver)).or_default();
        if failed.len() >= GAPS_MAX {
            failed.remove(0);
        }
        failed.push(origin.number);
    }

    /// The same for an operation that failed.
    pub(crate) fn note_op(&mut self, op: &StoreOp) {
        if let StoreOp::NoteFailed { account, origin }
        | StoreOp::Enqueue {
            account,
            origin: Some(origin),
            ..
        }
        | StoreOp::PutOffline {
            account,
            origin: Some(origin),
            ..
        } = op
        {
            self.note(*origin, account.clone());
        }
    }

    /// The mark that a stanza which takes effect leaves.
    pub(crate) fn mark(&self, origin: Origin, receiver: &BareJid) -> Mark {
        let failed = match self.0.is_empty() {
            true => None,
            false => self.0.get(&(origin.session, receiver.clone())),
        };
        let below = failed.into_iter().flatten().copied();
        Mark {
            receiver: receiver.clone(),
            last: origin.number,
            hash: origin.hash,
            failed: below.filter(|number| *number < origin.number).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::jid;
    use crate::conformance::sessions::session;

    #[test]
    fn a_mark_names_what_failed_below_it_for_its_own_session_and_receiver() {
        let mut gaps = Gaps::default();
        let (romeo, juliet) = (jid("romeo@a.example"), jid("juliet@a.example"));
        let origin = |secret, number| Origin {
            session: session("romeo@a.example", secret),
            number,
            hash: number,
        };
        for (secret, number, receiver) in [(1, 5, &juliet), (1, 9, &juliet), (1, 6, &romeo)] {
            gaps.note(origin(secret, number), receiver.clone());
        }
        assert_eq!(gaps.mark(origin(1, 8), &juliet).failed, [5]);
        assert_eq!(gaps.mark(origin(1, 10), &juliet).failed, [5, 9]);
        assert_eq!(gaps.mark(origin(2, 10), &juliet).failed, [0; 0]);
        assert_eq!(gaps.mark(origin(2, 10), &juliet).hash, 10);
        for number in 100..300 {
            gaps.note(origin(1, number), juliet.clone());
        }
        let failed = gaps.mark(origin(1, 300), &juliet).failed;
        assert_eq!((failed.len(), failed[GAPS_MAX - 1]), (GAPS_MAX, 299));
    }
}
