//! Sessions that have ended: what is left of them is of no use, and goes.
//!
//! A client may send and end its session at once. Its own shard has the session forgotten, and the
//! shards of those who get what it sent write their marks behind that: nobody would ever remove
//! these. So the sessions that ended last are remembered, and leave no marks any more; what comes
//! later still, or is there from before, goes when the store is opened, as does what is left of an
//! account that was deleted.

use std::collections::{HashSet, VecDeque};

use xmpp::port::SessionId;

use crate::backup::Table;
use crate::embedded::{Engine, Key, Staged, Trouble};
use crate::remains::Owners;
use crate::schema;
use crate::sessions::{name_of, session_of_mark};
use crate::sharing::{Lesson, split};

/// Ended sessions that are remembered: what they sent is stored within some commits.
const ENDED_MAX: usize = 16_384;

/// Records that one commit of an opening removes.
const REMOVED_MAX: usize = 8_192;

/// The sessions that ended last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    sessions: HashSet<SessionId>,
    /// The oldest first; those included that were taken back.
    order: VecDeque<SessionId>,
}

impl Ended {
    pub(crate) fn contains(&self, session: SessionId) -> bool {
        !self.sessions.is_empty() && self.sessions.contains(&session)
    }

    pub(crate) fn insert(&mut self, session: SessionId) {
        if self.sessions.insert(session) {
            self.order.push_back(session);
        }
        if self.order.len() > ENDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.sessions.remove(&oldest);
        }
    }

    pub(crate) fn remove(&mut self, session: SessionId) {
        if !self.sessions.is_empty() {
            self.sessions.remove(&session);
        }
    }
}

impl Engine {
    /// Removes what is left of sessions that are not there, and says how many records that were;
    /// learns on the way what the others share. A session is stored before its client's first
    /// stanza has a number that a mark could name, and before anything is put into its queue.
    pub(crate) fn remove_what_ended_left(&self) -> Result<usize, Trouble> {
        let nothing = Staged::default();
        let there = self.sessions(&nothing)?;
        let there: HashSet<SessionId> = there.into_iter().map(|(_, session)| session).collect();
        let (mut gone, mut lesson) = (Vec::new(), Lesson::default());
        let (mut before, mut owners) = (Key::new(), Owners::default());
        self.each_hot(Table::Queue, &nothing, &[], |key, record| {
            let is_gone = match (session_of_mark(key), split(key)) {
                (Some(session), _) => !there.contains(&session),
                (None, Some((prefix, name))) => {
                    if before[..] != *prefix {
                        (before, owners) = (Key::from_slice(prefix), Owners::default());
                    }
                    let account = schema::account_of_key(&prefix[..prefix.len() - 1]);
                    match (account, name_of(name)) {
                        (Ok(account), Ok(name)) => {
                            self.is_nobodys(&nothing, &account, &name, &mut owners)?
                        }
                        _ => false,
                    }
                }
                (None, None) => false,
            };
            match is_gone {
                true => gone.push(Key::from_slice(key)),
                false => lesson.take(key, record),
            }
            Ok(())
        })?;
        // The engine has all of it, so what an account has came in one piece.
        if !self.hot(Table::Queue).has_pending() {
            self.sharing.replace(lesson.finish());
        }
        for part in gone.chunks(REMOVED_MAX) {
            let mut staged = Staged::default();
            staged.lacking = self.lacking.get();
            for key in part {
                staged.put_queue(key.clone(), None);
            }
            self.commit(staged)?;
        }
        Ok(gone.len())
    }
}

#[cfg(test)]
mod tests {
    use xmpp::port::{Enqueue, Origin, Store, StoreOp, StoreReply};

    use super::*;
    use crate::Embedded;
    use crate::conformance::sessions::{ARRIVED, end, save, session, stored};
    use crate::conformance::{create, jid, one};
    use crate::crash::Scratch;

    const ROMEO: &str = "romeo@a.example";
    const JULIET: &str = "juliet@a.example";

    #[test]
    fn the_oldest_is_forgotten_where_too_many_have_ended() {
        let mut ended = Ended::default();
        let each = |secret: usize| session(ROMEO, secret as u128);
        for secret in 0..=ENDED_MAX {
            ended.insert(each(secret));
            ended.insert(each(secret));
        }
        assert!(!ended.contains(each(0)) && ended.contains(each(1)));
        ended.remove(each(1));
        assert!(!ended.contains(each(1)) && ended.contains(each(ENDED_MAX)));
        assert_eq!(
            (ended.sessions.len(), ended.order.len()),
            (ENDED_MAX - 1, ENDED_MAX)
        );
    }

    fn sent(secret: u128, number: u64, to: &str) -> StoreOp {
        StoreOp::Enqueue(Enqueue {
            account: jid(to),
            copies: Vec::new(),
            stanza: b"<message/>"[..].into(),
            carbons: Vec::new(),
            shared: None,
            arrived: ARRIVED,
            origin: Some(Origin {
                session: session(ROMEO, secret),
                number,
                hash: 0,
                is_late: false,
            }),
        })
    }

    fn marks(store: &Embedded) -> usize {
        let mut count = 0;
        let engine = store.engine().unwrap();
        let each = |key: &[u8], _: &[u8]| {
            count += usize::from(session_of_mark(key).is_some());
            Ok(())
        };
        let all = Staged::default();
        engine.each_hot(Table::Queue, &all, &[], each).unwrap();
        count
    }

    #[test]
    fn what_a_client_sent_before_its_end_leaves_no_mark_behind_it() {
        let scratch = Scratch::new();
        let mut store = Embedded::open(&scratch.0).unwrap();
        let mut replies = Vec::new();
        let ops = [create(ROMEO, 1), create(JULIET, 1), save(ROMEO, 1, "a")];
        store.perform(&mut ops.into_iter(), &mut replies);
        let ops = [
            sent(1, 1, ROMEO),
            end(ROMEO, 1),
            sent(1, 2, JULIET), // in the same commit
        ];
        store.perform(&mut ops.into_iter(), &mut replies);
        one(&mut store, sent(1, 3, JULIET)); // and in a later one
        assert!(replies.iter().all(|reply| *reply == StoreReply::Done));
        assert_eq!(marks(&store), 0);
    }

    #[test]
    fn an_opening_removes_the_marks_of_sessions_that_are_not_there() {
        let scratch = Scratch::new();
        let mut store = Embedded::open(&scratch.0).unwrap();
        for name in [ROMEO, JULIET] {
            one(&mut store, create(name, 1));
        }
        one(&mut store, save(ROMEO, 1, "a"));
        one(&mut store, sent(1, 1, JULIET));
        // Some lie in the engine, some in the log.
        for secret in 2..500 {
            one(&mut store, sent(secret, 1, JULIET));
        }
        assert_eq!(marks(&store), 499);
        for _ in 0..2 {
            let mut reopened = Embedded::open(&scratch.killed().0).unwrap();
            assert_eq!(marks(&reopened), 1);
            let found = stored(&mut reopened, ROMEO, 1).expect("it is saved");
            assert_eq!(found.marks.len(), 1);
        }
        drop(store);
        let mut store = Embedded::open(&scratch.0).unwrap();
        one(&mut store, create("nurse@a.example", 1));
        assert_eq!(marks(&store), 1);
        let reopened = Embedded::open(&scratch.killed().0).unwrap();
        assert_eq!(marks(&reopened), 1);
    }
}
