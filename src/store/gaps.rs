//! Stanzas whose writes failed although later ones of the same session to the same account may
//! succeed: a mark names the last that took effect, and these below it did not.

use std::collections::{HashMap, VecDeque};

use stanza::jid::BareJid;
use xmpp::port::{Mark, Origin, SessionId, StoreOp};

/// Failed stanzas remembered for one session, beyond those that are settled.
const GAPS_MAX: usize = 256;

/// What failed since the process began. What came before that was sent again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps(HashMap<SessionId, Failed>);

/// What failed of one session.
#[derive(Clone, Debug, Default)]
struct Failed {
    /// Up to here something did that is not named any more.
    forgotten: u64,
    /// The numbers, and who did not get what.
    stanzas: VecDeque<(u64, BareJid)>,
}

impl Gaps {
    /// A stanza had no effect on its receiver.
    pub(crate) fn note(&mut self, origin: Origin, receiver: BareJid) {
        let failed = self.0.entry(origin.session).or_default();
        failed.stanzas.push_back((origin.number, receiver));
        if failed.stanzas.len() > GAPS_MAX
            && let Some((number, _)) = failed.stanzas.pop_front()
        {
            failed.forgotten = failed.forgotten.max(number);
        }
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

    /// Stanzas up to this number are settled, or their session is over: none will be sent again.
    pub(crate) fn settle(&mut self, session: SessionId, number: u64) {
        if let Some(failed) = self.0.get_mut(&session) {
            failed.stanzas.retain(|(failed, _)| *failed > number);
            if failed.stanzas.is_empty() && failed.forgotten <= number {
                self.0.remove(&session);
            }
        }
    }

    /// The mark that a stanza which takes effect leaves.
    pub(crate) fn mark(&self, origin: Origin, receiver: &BareJid) -> Mark {
        let failed = match self.0.is_empty() {
            true => None,
            false => self.0.get(&origin.session),
        };
        let stanzas = failed.iter().flat_map(|failed| &failed.stanzas);
        let below = stanzas.filter(|(number, of)| *number < origin.number && of == receiver);
        Mark {
            receiver: receiver.clone(),
            last: origin.number,
            hash: origin.hash,
            doubted: failed.map_or(0, |failed| failed.forgotten),
            failed: below.map(|(number, _)| *number).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::jid;
    use crate::conformance::sessions::session;

    fn origin(secret: u128, number: u64) -> Origin {
        Origin {
            session: session("romeo@a.example", secret),
            number,
            hash: number,
        }
    }

    #[test]
    fn a_mark_names_what_failed_below_it_for_its_own_session_and_receiver() {
        let mut gaps = Gaps::default();
        let (romeo, juliet) = (jid("romeo@a.example"), jid("juliet@a.example"));
        for (secret, number, receiver) in [(1, 5, &juliet), (1, 9, &juliet), (1, 6, &romeo)] {
            gaps.note(origin(secret, number), receiver.clone());
        }
        assert_eq!(gaps.mark(origin(1, 8), &juliet).failed, [5]);
        assert_eq!(gaps.mark(origin(1, 10), &juliet).failed, [5, 9]);
        assert_eq!(gaps.mark(origin(2, 10), &juliet).failed, [0; 0]);
        assert_eq!(gaps.mark(origin(2, 10), &juliet).hash, 10);
        gaps.settle(session("romeo@a.example", 1), 5);
        assert_eq!(gaps.mark(origin(1, 10), &juliet).failed, [9]);
    }

    /// Where more fails than is remembered, a stanza may come twice rather than not at all.
    #[test]
    fn a_mark_says_up_to_where_it_knows_nothing() {
        let mut gaps = Gaps::default();
        let (romeo, juliet) = (jid("romeo@a.example"), jid("juliet@a.example"));
        let last = 10 + GAPS_MAX as u64;
        for number in 10..=last {
            gaps.note(origin(1, number), juliet.clone());
        }
        let mark = gaps.mark(origin(1, last + 1), &juliet);
        assert_eq!((mark.doubted, mark.failed.len()), (10, GAPS_MAX));
        assert_eq!(gaps.mark(origin(1, last + 1), &romeo).doubted, 10);
        gaps.settle(session("romeo@a.example", 1), last);
        assert_eq!(gaps.mark(origin(1, last + 1), &juliet).doubted, 0);
    }
}
