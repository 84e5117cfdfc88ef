//! What the sessions of an account leave that is deleted: records that are nobody's any more.
//!
//! An account may have tens of thousands of them, and all others would wait for one commit of so
//! many. The commit that deletes the account takes its sessions, and without them nobody reaches
//! their queues and marks; a few of those go with each commit that follows. Invariant: in the
//! queues' table a record of a session that is not there is nobody's. Nothing is answered out of
//! it, whoever has the account's name by then, no backup has it, and an opening removes it.

use std::collections::BTreeMap;

use stanza::jid::BareJid;
use xmpp::port::{ArchiveId, SessionId};

use crate::archive;
use crate::backup::Table;
use crate::embedded::{Engine, Key, Staged, Trouble};
use crate::schema;
use crate::sessions::{Name, keys_below, marks_prefix, name_of, note_end, queue_prefix, saved_key};

/// Records that are looked at with one commit.
const PART: usize = if cfg!(test) { 4 } else { 256 };

/// What is to be removed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remains {
    ranges: Vec<Range>,
    /// Of accounts that the present call deletes: what it wrote before is not committed yet.
    fresh: Vec<Range>,
    /// Accounts of whose archives something was purged, and where the rest of that begins.
    archives: BTreeMap<BareJid, ArchiveId>,
    /// Of which the present call removes a part, and where that begins.
    begun: Option<(BareJid, ArchiveId)>,
}

/// What begins with a prefix.
#[derive(Clone, Debug)]
struct Range {
    account: BareJid,
    /// The session, where these are its marks; else they are an account's queues.
    marked_by: Option<SessionId>,
    prefix: Key,
    /// What is before it is removed.
    from: Key,
}

impl Remains {
    /// What a store that is opened still has of what was purged.
    pub(crate) fn of_archives(archives: Vec<BareJid>) -> Remains {
        Remains {
            archives: archives
                .into_iter()
                .map(|account| (account, ArchiveId(0)))
                .collect(),
            ..Remains::default()
        }
    }

    /// What a call works on. Archives, of which there may be many, are lent to it.
    pub(crate) fn lend(&mut self) -> Remains {
        let archives = std::mem::take(&mut self.archives);
        Remains {
            archives,
            ..self.clone()
        }
    }

    /// The call that these were lent to is not committed: what it removed is still there.
    pub(crate) fn take_back(&mut self, lent: Remains) {
        self.archives = lent.archives;
        self.archives.extend(lent.begun);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.is_without_sessions() && self.archives.is_empty()
    }

    /// Whether nothing is left that a backup must not have.
    pub(crate) fn is_without_sessions(&self) -> bool {
        self.ranges.is_empty() && self.fresh.is_empty()
    }

    /// Something of an account's archive was purged.
    pub(crate) fn add_archive(&mut self, account: &BareJid) {
        if !self.archives.contains_key(account) {
            self.archives.insert(account.clone(), ArchiveId(0));
        }
    }

    /// An account is deleted, with these sessions.
    pub(crate) fn add(&mut self, account: &BareJid, sessions: &[SessionId]) {
        // Of one that had the name before, the queues lie below the same prefix.
        for ranges in [&mut self.ranges, &mut self.fresh] {
            ranges.retain(|range| range.marked_by.is_some() || range.account != *account);
        }
        let range = |marked_by, prefix: Key| Range {
            account: account.clone(),
            marked_by,
            from: prefix.clone(),
            prefix,
        };
        let queues = range(None, schema::session_prefix(account));
        let marks = sessions
            .iter()
            .map(|session| range(Some(*session), marks_prefix(*session)));
        self.fresh.extend(std::iter::once(queues).chain(marks));
    }

    /// A session that went with its account has ended only now: what has been put into its queue
    /// since may lie where it was looked at already.
    pub(crate) fn add_late(&mut self, account: &BareJid, session: SessionId) {
        let prefix = queue_prefix(account, session);
        self.fresh.push(Range {
            account: account.clone(),
            marked_by: None,
            from: prefix.clone(),
            prefix,
        });
    }

    /// What the call deleted is committed.
    pub(crate) fn settled(mut self) -> Remains {
        self.ranges.append(&mut self.fresh);
        self.begun = None;
        self
    }

    fn forget_marks(&mut self, session: SessionId) {
        for ranges in [&mut self.ranges, &mut self.fresh] {
            ranges.retain(|range| range.marked_by != Some(session));
        }
    }

    fn has_of(&self, account: &BareJid) -> bool {
        let mut ranges = self.ranges.iter().chain(&self.fresh);
        ranges.any(|range| range.account == *account)
    }
}

/// What was found out about the owners of an account's records last.
#[derive(Default)]
pub(crate) struct Owners {
    session: Option<(u128, bool)>,
    has_any: Option<bool>,
}

impl Engine {
    fn is_saved(&self, staged: &Staged, account: &BareJid, secret: u128) -> Result<bool, Trouble> {
        let key = saved_key(account, secret);
        Ok(self.read_hot(Table::Sessions, staged, &key)?.is_some())
    }

    /// Whether a record below an account's prefix is of no session that is there. What ended
    /// sessions shared is noted for the others; a later account has groups of its own, and forgets
    /// such notes of an earlier one as it does its own.
    pub(crate) fn is_nobodys(
        &self,
        staged: &Staged,
        account: &BareJid,
        name: &Name,
        owners: &mut Owners,
    ) -> Result<bool, Trouble> {
        let is_owned = match (name, &owners) {
            (Name::Left { .. }, Owners { has_any, .. }) => match has_any {
                Some(has_any) => *has_any,
                None => {
                    let has_any = self.has_sessions(staged, account)?;
                    *owners.has_any.insert(has_any)
                }
            },
            (Name::Queued { secret, .. }, Owners { session, .. }) => match session {
                Some((known, is_saved)) if known == secret => *is_saved,
                _ => {
                    let is_saved = self.is_saved(staged, account, *secret)?;
                    owners.session.insert((*secret, is_saved)).1
                }
            },
        };
        Ok(!is_owned)
    }

    /// Whether a session went with its account, and what it had is still to be removed.
    pub(crate) fn went(
        &self,
        staged: &Staged,
        account: &BareJid,
        session: SessionId,
    ) -> Result<bool, Trouble> {
        Ok(staged.remains.has_of(account) && !self.is_saved(staged, account, session.secret)?)
    }

    /// Removes a few of the records that are nobody's. What cannot be read the next opening
    /// removes.
    pub(crate) fn remove_remains(&self, staged: &mut Staged) {
        let part = match staged.is_empty() {
            true => archive::PART,
            false => archive::PART_BESIDE_WRITES,
        };
        if let Some((account, from)) = staged.remains.archives.pop_first() {
            let removed = self.remove_purged(staged, &account, from, part);
            let next = removed.unwrap_or_else(|error| {
                tracing::warn!(%error, "what was purged of an archive stays in the store");
                None
            });
            let left = next.map(|next| (account.clone(), next));
            staged.remains.archives.extend(left);
            staged.remains.begun = Some((account, from));
        }
        let mut room = PART;
        while room > 0
            && let Some(range) = staged.remains.ranges.first()
        {
            let found = self.next_remains(staged, range, room);
            let (keys, next) = found.unwrap_or_else(|error| {
                tracing::warn!(%error, "what a deleted account left stays in the store");
                (Vec::new(), None)
            });
            match next {
                Some(from) => {
                    staged.remains.ranges[0].from = from;
                    room = 0;
                }
                None => {
                    staged.remains.ranges.remove(0);
                    room -= keys.len();
                }
            }
            for key in keys {
                staged.put_queue(key, None);
            }
        }
    }

    /// The next of a range's records that are nobody's, and from where on to look then, unless
    /// that was the last of them.
    fn next_remains(
        &self,
        staged: &Staged,
        range: &Range,
        count: usize,
    ) -> Result<(Vec<Key>, Option<Key>), Trouble> {
        let Range { prefix, from, .. } = range;
        let mut keys = self.next_hot(Table::Queue, prefix, from, count)?;
        let mut next = keys.last().filter(|_| keys.len() == count).cloned();
        if let Some(last) = &mut next {
            last.push(0);
        }
        let account = schema::session_prefix(&range.account);
        let (mut owners, mut trouble) = (Owners::default(), Ok(()));
        keys.retain(|key| {
            let name = name_of(&key[account.len()..]);
            let (None, Ok(name)) = (range.marked_by, name) else {
                return true;
            };
            let is_nobodys = self.is_nobodys(staged, &range.account, &name, &mut owners);
            is_nobodys.unwrap_or_else(|error| {
                trouble = Err(error);
                false
            })
        });
        trouble.map(|()| (keys, next))
    }

    /// A session is saved that went with its account before, or is new: it begins with nothing.
    pub(crate) fn clear_remains(
        &self,
        staged: &mut Staged,
        account: &BareJid,
        session: SessionId,
    ) -> Result<(), Trouble> {
        if !self.went(staged, account, session)? {
            return Ok(());
        }
        for prefix in [queue_prefix(account, session), marks_prefix(session)] {
            for key in keys_below(self, Table::Queue, staged, &prefix)? {
                staged.put_queue(key, None);
            }
        }
        staged.remains.forget_marks(session);
        Ok(())
    }

    /// Ends every session of an account that is deleted; what they had is removed later.
    pub(crate) fn end_sessions_of(
        &self,
        staged: &mut Staged,
        account: &BareJid,
    ) -> Result<(), Trouble> {
        let prefix = schema::session_prefix(account);
        let keys = keys_below(self, Table::Sessions, staged, &prefix)?;
        let home = stanza::jid::virtual_shard(account.as_str());
        let secrets = keys.iter().filter_map(|key| key.last_chunk());
        let secrets = secrets.map(|secret| u128::from_be_bytes(*secret));
        let mut sessions: Vec<SessionId> =
            secrets.map(|secret| SessionId { home, secret }).collect();
        sessions.sort_unstable();
        sessions.dedup();
        staged
            .sessions
            .extend(keys.into_iter().map(|key| (key, None)));
        for session in &sessions {
            note_end(staged, *session);
        }
        // Of what they shared nothing is known any more, either.
        staged.sharing.forget(&prefix);
        staged.remains.add(account, &sessions);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use xmpp::port::{OfflineQuota, Origin, Store, StoreOp, StoreReply};

    use super::*;
    use crate::Embedded;
    use crate::backup::Backup;
    use crate::conformance::sessions::{ARRIVED, queue, save, session, share, stored};
    use crate::conformance::{create, delete, jid, one, waiting};
    use crate::crash::Scratch;

    const ROMEO: &str = "romeo@a.example";
    const JULIET: &str = "juliet@a.example";

    fn open(scratch: &Scratch) -> Embedded {
        Embedded::open(&scratch.0).unwrap()
    }

    /// Records of the queues' table.
    fn records(store: &Embedded) -> usize {
        let engine = store.engine().unwrap();
        keys_below(engine, Table::Queue, &Staged::default(), &[])
            .unwrap()
            .len()
    }

    fn go_on(store: &mut Embedded) {
        store.perform(&mut std::iter::empty(), &mut Vec::new());
    }

    /// Two accounts; the sessions of one have queues, notes and a mark, also in the engine.
    fn filled(scratch: &Scratch) -> Embedded {
        let mut store = open(scratch);
        for name in [ROMEO, JULIET] {
            one(&mut store, create(name, 1));
            for secret in 1..=3 {
                one(&mut store, save(name, secret, "a"));
            }
        }
        one(&mut store, share(JULIET, &[1, 2], 1, "hers"));
        for place in 1..=20 {
            one(&mut store, share(ROMEO, &[1, 2, 3], place, "his"));
            // Some lie in the engine, some in the log.
            if place == 10 {
                store.snapshot().unwrap();
            }
        }
        one(&mut store, crate::conformance::sessions::end(ROMEO, 3));
        let StoreOp::Enqueue(mut sent) = share(JULIET, &[1], 2, "hers") else {
            unreachable!();
        };
        sent.origin = Some(Origin {
            session: session(ROMEO, 1),
            number: 1,
            hash: 0,
            is_late: false,
        });
        one(&mut store, StoreOp::Enqueue(sent));
        assert_eq!(records(&store), 3 + 2 * 20 + 20 + 1);
        store
    }

    fn hers(store: &mut Embedded) {
        assert_eq!(queue(store, JULIET, 1).len(), 2);
        assert_eq!(queue(store, JULIET, 2).len(), 1);
    }

    #[test]
    fn a_deletion_goes_on_in_parts_and_a_crash_between_them_leaves_nothing() {
        let scratch = Scratch::new();
        let mut store = filled(&scratch);
        let mut left = records(&store);
        assert_eq!(one(&mut store, delete(ROMEO)), StoreReply::Done);
        assert_eq!(one(&mut store, delete(ROMEO)), StoreReply::Missing);
        assert_eq!(records(&store), left, "it looks at none of them");
        let mut parts = 0;
        while store.is_behind() {
            let mut reopened = open(&scratch.killed());
            assert!(!reopened.is_behind());
            assert_eq!(records(&reopened), 3, "in part {parts}");
            hers(&mut reopened);
            match parts % 2 {
                0 => go_on(&mut store),
                _ => drop(one(&mut store, save(JULIET, 3, "b"))),
            }
            let now = records(&store);
            assert!(now <= left && left - now <= PART);
            (left, parts) = (now, parts + 1);
        }
        assert!(parts >= 61 / PART, "{parts}");
        assert_eq!(left, 3);
        hers(&mut store);
        assert_eq!(records(&open(&scratch.killed())), 3);
    }

    /// After each number of parts, and behind a crash there, too.
    #[test]
    fn who_has_a_deleted_name_next_has_nothing_of_it() {
        for parts in 0..17 {
            let scratch = Scratch::new();
            let mut store = filled(&scratch);
            one(&mut store, delete(ROMEO));
            (0..parts).for_each(|_| go_on(&mut store));
            let ops = [
                create(ROMEO, 2),
                save(ROMEO, 1, "the secret of another"),
                save(ROMEO, 9, "new"),
                share(ROMEO, &[1, 9], 105, "new"),
            ];
            store.perform(&mut ops.into_iter(), &mut Vec::new());
            let new = [(105, 105, "new".to_owned())];
            // Its shard has forgotten it only now.
            let late = StoreOp::EndSession {
                account: jid(ROMEO),
                session: session(ROMEO, 2),
                waiting: vec![(ARRIVED, b"his"[..].into())],
                quota: OfflineQuota::UNLIMITED,
            };
            assert_eq!(one(&mut store, late), StoreReply::Done);
            let mut reopened = open(&scratch.killed());
            let check = |store: &mut Embedded| {
                assert_eq!(waiting(store, ROMEO), [], "{parts}");
                assert_eq!(stored(store, ROMEO, 2), None);
                for secret in [1, 9] {
                    assert_eq!(queue(store, ROMEO, secret), new, "{parts}");
                    let found = stored(store, ROMEO, secret).unwrap();
                    let shared = found.queue[0].shared.unwrap();
                    assert_eq!((shared.holders, shared.members), (2, 2));
                    assert_eq!(found.marks, []);
                }
                hers(store);
            };
            check(&mut reopened);
            check(&mut store);
            // A backup has none of it.
            let file = scratch.0.join("backup");
            store.snapshot().unwrap().save(&file, &mut |_| {}).unwrap();
            assert!(!store.is_behind());
            check(&mut store);
            let mut texts = Vec::new();
            Backup::open(&file)
                .unwrap()
                .accounts(&mut |whole| {
                    texts.extend(whole.offline);
                    true
                })
                .unwrap();
            assert_eq!(texts.len(), 0, "what is no stanza is not left");
            // And once more, in the middle of nothing.
            one(&mut store, delete(ROMEO));
            while store.is_behind() {
                go_on(&mut store);
            }
            assert_eq!(records(&store), 3);
        }
    }

    #[test]
    fn what_a_call_removed_that_failed_is_removed_once_more() {
        let mut remains = Remains::of_archives(vec![jid(JULIET), jid(ROMEO)]);
        let all = remains.archives.clone();
        let mut lent = remains.lend();
        let (account, from) = lent.archives.pop_first().unwrap();
        lent.begun = Some((account, from));
        remains.take_back(lent);
        assert_eq!(remains.archives, all);
        let mut lent = remains.lend();
        let (account, from) = lent.archives.pop_first().unwrap();
        lent.archives.insert(account.clone(), ArchiveId(7));
        lent.begun = Some((account, from));
        assert!(remains.archives.is_empty());
        remains.take_back(lent);
        assert_eq!(remains.archives, all);
    }

    /// Its shard may write into its sessions' queues until it hears of the deletion.
    #[test]
    fn what_is_written_behind_a_deletion_goes_with_the_session() {
        for parts in 0..17 {
            let scratch = Scratch::new();
            let mut store = filled(&scratch);
            one(&mut store, delete(ROMEO));
            (0..parts).for_each(|_| go_on(&mut store));
            let behind = store.is_behind();
            one(&mut store, share(ROMEO, &[0, 1, 2], 105, "late"));
            for secret in [0, 1, 2] {
                let end = StoreOp::EndSession {
                    account: jid(ROMEO),
                    session: session(ROMEO, secret),
                    waiting: Vec::new(),
                    quota: OfflineQuota::UNLIMITED,
                };
                assert_eq!(one(&mut store, end), StoreReply::Done);
            }
            while store.is_behind() {
                go_on(&mut store);
            }
            assert!(behind || parts > 12, "{parts}");
            assert_eq!(records(&store), 3, "{parts}");
        }
    }

    #[test]
    fn a_name_that_is_deleted_twice_leaves_nothing_either() {
        for parts in 0..17 {
            let scratch = Scratch::new();
            let mut store = filled(&scratch);
            one(&mut store, delete(ROMEO));
            (0..parts).for_each(|_| go_on(&mut store));
            let ops = [
                create(ROMEO, 2),
                save(ROMEO, 0, "first"),
                share(ROMEO, &[0], 1, "new"),
                delete(ROMEO),
            ];
            store.perform(&mut ops.into_iter(), &mut Vec::new());
            while store.is_behind() {
                go_on(&mut store);
            }
            assert_eq!(records(&store), 3, "{parts}");
        }
    }
}
