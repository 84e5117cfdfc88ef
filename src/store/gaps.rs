//! Stanzas whose writes failed although later ones of the same session to the same account may
//! succeed: a mark names the last that took effect, and these below it did not. After a restart
//! they come again, and where they succeed now the mark still names the last. A session that has
//! ended sends nothing again: what comes late of it is neither marked nor remembered.

use std::collections::{HashMap, VecDeque};

use stanza::jid::BareJid;
use xmpp::port::{Enqueue, Mark, Origin, SessionId, StoreOp};

use crate::ended::Ended;

/// Failed stanzas remembered for one session, beyond those that are settled.
const GAPS_MAX: usize = 256;

/// What failed since the process began, and the marks of those sessions from before that were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps {
    failed: HashMap<SessionId, Failed>,
    ended: Ended,
}

/// What failed of one session.
#[derive(Clone, Debug, Default)]
struct Failed {
    /// Up to here something did that is not named any more.
    forgotten: u64,
    /// The numbers, and who did not get what.
    stanzas: VecDeque<(u64, BareJid)>,
    /// The marks from before the process began, until later stanzas leave theirs.
    before: HashMap<BareJid, Mark>,
}

impl Gaps {
    /// A stanza had no effect on its receiver.
    pub(crate) fn note(&mut self, origin: Origin, receiver: BareJid) {
        if self.ended.contains(origin.session) {
            return;
        }
        let failed = self.failed.entry(origin.session).or_default();
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
        | StoreOp::Enqueue(Enqueue {
            account,
            origin: Some(origin),
            ..
        })
        | StoreOp::PutOffline {
            account,
            origin: Some(origin),
            ..
        } = op.main()
        {
            self.note(*origin, account.clone());
        }
    }

    /// What took effect before the process began, as a session was read.
    pub(crate) fn recall(&mut self, session: SessionId, marks: &[Mark]) {
        for mark in marks {
            let before = &mut self.failed.entry(session).or_default().before;
            let known = before.entry(mark.receiver.clone());
            known.or_insert_with(|| mark.clone());
        }
    }

    /// Stanzas up to this number are settled, or their session is over: none will be sent again.
    pub(crate) fn settle(&mut self, session: SessionId, number: u64) {
        if let Some(failed) = self.failed.get_mut(&session) {
            failed.stanzas.retain(|(failed, _)| *failed > number);
            failed.before.retain(|_, mark| mark.last > number);
            let is_empty = failed.stanzas.is_empty() && failed.before.is_empty();
            if is_empty && failed.forgotten <= number {
                self.failed.remove(&session);
            }
        }
    }

    /// A session ends. The receivers' shards may not have handled all that it sent.
    pub(crate) fn end(&mut self, session: SessionId) {
        self.ended.insert(session);
    }

    /// A session is there, or its end failed.
    pub(crate) fn take_back_end(&mut self, session: SessionId) {
        self.ended.remove(session);
    }

    /// The mark that a stanza which takes effect leaves, unless its session has ended.
    pub(crate) fn mark(&mut self, origin: Origin, receiver: &BareJid) -> Option<Mark> {
        let is_over = self.ended.contains(origin.session);
        (!is_over).then(|| self.mark_of(origin, receiver))
    }

    fn mark_of(&mut self, origin: Origin, receiver: &BareJid) -> Mark {
        let mut mark = Mark {
            receiver: receiver.clone(),
            last: origin.number,
            hash: origin.hash,
            doubted: 0,
            failed: Vec::new(),
        };
        if self.failed.is_empty() {
            return mark;
        }
        let Some(failed) = self.failed.get_mut(&origin.session) else {
            return mark;
        };
        if !origin.is_late {
            failed.before.remove(receiver);
        } else if let Some(before) = failed.before.get_mut(receiver) {
            before.failed.retain(|number| *number != origin.number);
            mark = before.clone();
        }
        let below = |(number, of): &&(u64, BareJid)| *number < mark.last && of == receiver;
        let below = failed.stanzas.iter().filter(below);
        mark.failed.extend(below.map(|(number, _)| *number));
        mark.failed.sort_unstable();
        mark.failed.dedup();
        mark.doubted = mark.doubted.max(failed.forgotten);
        mark
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
            is_late: false,
        }
    }

    /// What failed before a restart and succeeds behind it uncovers nothing that came after it.
    #[test]
    fn a_late_stanza_is_taken_out_of_the_mark_that_names_a_later_one() {
        let mut gaps = Gaps::default();
        let juliet = jid("juliet@a.example");
        let before = Mark {
            receiver: juliet.clone(),
            last: 9,
            hash: 99,
            doubted: 2,
            failed: vec![4, 5, 6],
        };
        gaps.recall(session("romeo@a.example", 1), std::slice::from_ref(&before));
        let late = |number| Origin {
            is_late: true,
            ..origin(1, number)
        };
        gaps.note(late(4), juliet.clone());
        let expected = |failed: &[u64]| Mark {
            failed: failed.into(),
            ..before.clone()
        };
        assert_eq!(gaps.mark_of(late(5), &juliet), expected(&[4, 6]));
        assert_eq!(gaps.mark_of(late(6), &juliet), expected(&[4]));
        // One that is new has a mark of its own.
        let next = gaps.mark_of(origin(1, 10), &juliet);
        assert_eq!((next.last, next.hash, next.doubted), (10, 10, 0));
        assert_eq!(next.failed, [4]);
        assert_eq!(gaps.mark_of(origin(1, 3), &juliet).last, 3, "numbered anew");
    }

    #[test]
    fn a_mark_names_what_failed_below_it_for_its_own_session_and_receiver() {
        let mut gaps = Gaps::default();
        let (romeo, juliet) = (jid("romeo@a.example"), jid("juliet@a.example"));
        for (secret, number, receiver) in [(1, 5, &juliet), (1, 9, &juliet), (1, 6, &romeo)] {
            gaps.note(origin(secret, number), receiver.clone());
        }
        assert_eq!(gaps.mark_of(origin(1, 8), &juliet).failed, [5]);
        assert_eq!(gaps.mark_of(origin(1, 10), &juliet).failed, [5, 9]);
        assert_eq!(gaps.mark_of(origin(2, 10), &juliet).failed, [0; 0]);
        assert_eq!(gaps.mark_of(origin(2, 10), &juliet).hash, 10);
        gaps.settle(session("romeo@a.example", 1), 5);
        assert_eq!(gaps.mark_of(origin(1, 10), &juliet).failed, [9]);
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
        let mark = gaps.mark_of(origin(1, last + 1), &juliet);
        assert_eq!((mark.doubted, mark.failed.len()), (10, GAPS_MAX));
        assert_eq!(gaps.mark_of(origin(1, last + 1), &romeo).doubted, 10);
        gaps.settle(session("romeo@a.example", 1), last);
        assert_eq!(gaps.mark_of(origin(1, last + 1), &juliet).doubted, 0);
    }

    #[test]
    fn what_fails_of_a_session_that_has_ended_is_not_remembered() {
        let mut gaps = Gaps::default();
        let (romeo, juliet) = (session("romeo@a.example", 1), jid("juliet@a.example"));
        gaps.end(romeo);
        gaps.note(origin(1, 5), juliet.clone());
        assert!(gaps.failed.is_empty());
        assert_eq!(gaps.mark(origin(1, 6), &juliet), None);
        gaps.take_back_end(romeo);
        let mark = gaps.mark(origin(1, 6), &juliet).unwrap();
        assert_eq!((mark.last, mark.failed), (6, vec![]));
    }
}
