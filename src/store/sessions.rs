//! Managed sessions (XEP-0198) as they outlive the process: what each is, how much of its client's
//! stream is settled, what waits for its acknowledgement, and which of its stanzas took effect.
//!
//! Sessions lie below their account's prefix in one keyspace, their queues below the same prefix in
//! another, so that all sessions are found without reading what waits for them. The marks, which
//! the receivers' shards write, lie beside the queues below the home shard, a zero byte, with which
//! no JID begins, and the session's secret. So does, below the account's prefix and by its group,
//! how many sessions ended with a stanza that others were given, too. Values begin with a version
//! byte. Everything that is written for every stanza is written blindly: nothing is read for it.

use std::collections::HashMap;

use stanza::jid::BareJid;
use xmpp::Timestamp;
use xmpp::port::{
    Arrived, Enqueue, Mark, OfflineQuota, Origin, QueuePlace, QueuedStanza, SavedSession,
    SessionId, SharedStanza, StoreOp, StoreReply, StoredSession,
};

use crate::backup::Table;
use crate::embedded::{Engine, Key, Staged, Trouble, Writes};
use crate::records::exists;
use crate::saved::{read_saved, saved_record};
use crate::{kept, schema};

/// Stanzas of a queue that are collected in one piece: if a whole queue grew in one, each step of
/// its growth would take memory that the kernel has to clear.
const PIECE_LENGTH: usize = 64;

const SAVED: u8 = 1;
const HANDLED: u8 = 2;
const QUEUED: u8 = 3;
const LEFT: u8 = 4;

/// The version byte of every record here but two.
const VERSION: u8 = 1;

/// That of a mark.
const MARK_VERSION: u8 = 3;

/// That of a mark before schema 7.
const UNDOUBTED_VERSION: u8 = 2;

/// That of a queued stanza.
const QUEUED_VERSION: u8 = 2;

/// That of one without a number, from schema 7 on.
const UNNUMBERED_VERSION: u8 = 3;

/// That of one which several sessions were given, with its number and without, from schema 8 on.
const SHARED_VERSION: u8 = 4;
const SHARED_UNNUMBERED_VERSION: u8 = 5;

/// That of one that waited for the account before, with its number and without, from schema 9 on.
const WAITED_VERSION: u8 = 6;
const WAITED_UNNUMBERED_VERSION: u8 = 7;

/// Bytes of a session's secret in a key.
const SECRET_SIZE: usize = 16;

/// Bytes of a place in a key.
const PLACE_SIZE: usize = 8;

fn key(account: &BareJid, kind: u8, secret: u128) -> Key {
    let mut key = kind_prefix(account, kind);
    key.extend_from_slice(&secret.to_be_bytes());
    key
}

/// Of all records of a kind that an account's sessions have.
fn kind_prefix(account: &BareJid, kind: u8) -> Key {
    let mut key = schema::session_prefix(account);
    key.push(kind);
    key
}

/// The key of what says what a session is.
pub(crate) fn saved_key(account: &BareJid, secret: u128) -> Key {
    key(account, SAVED, secret)
}

/// Of all that is in a session's queue.
pub(crate) fn queue_prefix(account: &BareJid, session: SessionId) -> Key {
    key(account, QUEUED, session.secret)
}

pub(crate) fn left_key(account: &BareJid, group: u64) -> Key {
    let mut key = kind_prefix(account, LEFT);
    key.extend_from_slice(&group.to_be_bytes());
    key
}

pub(crate) fn queue_key(account: &BareJid, secret: u128, place: u64) -> Key {
    let mut key = key(account, QUEUED, secret);
    key.extend_from_slice(&place.to_be_bytes());
    key
}

pub(crate) fn marks_prefix(session: SessionId) -> Key {
    let mut key = Key::new();
    key.extend_from_slice(&session.home.to_be_bytes());
    key.push(0);
    key.extend_from_slice(&session.secret.to_be_bytes());
    key
}

/// Whose mark a record of the queues' table is, if it is one.
pub(crate) fn session_of_mark(key: &[u8]) -> Option<SessionId> {
    let (home, rest) = key.split_first_chunk()?;
    let (0, rest) = rest.split_first()? else {
        return None;
    };
    let (secret, _) = rest.split_first_chunk::<SECRET_SIZE>()?;
    Some(SessionId {
        home: u16::from_be_bytes(*home),
        secret: u128::from_be_bytes(*secret),
    })
}

/// The last number and its hash, the number up to which all are doubted, then those that failed.
fn mark_record(mark: &Mark) -> Vec<u8> {
    let mut record = number_record(mark.last);
    record[0] = MARK_VERSION;
    record.extend_from_slice(&mark.hash.to_be_bytes());
    record.extend_from_slice(&mark.doubted.to_be_bytes());
    for number in &mark.failed {
        record.extend_from_slice(&number.to_be_bytes());
    }
    record
}

fn read_mark(receiver: BareJid, record: &[u8]) -> Result<Mark, Trouble> {
    let damaged = || Trouble::from("a mark is damaged");
    let (version, numbers) = record.split_first().ok_or_else(damaged)?;
    let (numbers, []) = numbers.as_chunks::<8>() else {
        return Err(damaged());
    };
    let mut numbers = numbers.iter().map(|number| u64::from_be_bytes(*number));
    let last = numbers.next().ok_or_else(damaged)?;
    let mut next = || numbers.next().ok_or_else(damaged);
    let (hash, doubted) = match *version {
        MARK_VERSION => (next()?, next()?),
        UNDOUBTED_VERSION => (next()?, 0),
        // Before schema 6 no hash was kept.
        VERSION => (0, 0),
        _ => return Err("a mark has an unknown record version".into()),
    };
    Ok(Mark {
        receiver,
        last,
        hash,
        doubted,
        failed: numbers.collect(),
    })
}

fn number_record(number: u64) -> Vec<u8> {
    let mut record = vec![VERSION];
    record.extend_from_slice(&number.to_be_bytes());
    record
}

pub(crate) fn read_number(record: &[u8]) -> Result<u64, Trouble> {
    match record.split_first_chunk() {
        Some(([VERSION], number)) => <[u8; 8]>::try_from(number)
            .map(u64::from_be_bytes)
            .map_err(|_| "a session's count is damaged".into()),
        _ => Err("a session's count has an unknown record version".into()),
    }
}

/// What the record of a queued stanza says.
#[derive(Clone, Copy)]
pub(crate) struct Queued<'a> {
    number: Option<u32>,
    pub(crate) arrived: Timestamp,
    has_waited: bool,
    /// Its holders are not counted.
    pub(crate) shared: Option<SharedStanza>,
    pub(crate) stanza: &'a [u8],
}

impl<'a> Queued<'a> {
    fn of(enqueue: &'a Enqueue, stanza: &'a [u8]) -> Queued<'a> {
        Queued {
            number: None,
            arrived: enqueue.arrived,
            has_waited: false,
            shared: enqueue.shared,
            stanza,
        }
    }
}

/// The number, the microseconds of the arrival, the group and its members if there is one, the
/// stanza.
fn queued_record(queued: &Queued<'_>) -> Vec<u8> {
    let mut record = Vec::with_capacity(queued.stanza.len() + 25);
    debug_assert!(
        !(queued.has_waited && queued.shared.is_some()),
        "one session claims it"
    );
    record.push(match (queued.shared, queued.number) {
        (None, Some(_)) if queued.has_waited => WAITED_VERSION,
        (None, None) if queued.has_waited => WAITED_UNNUMBERED_VERSION,
        (None, Some(_)) => QUEUED_VERSION,
        (None, None) => UNNUMBERED_VERSION,
        (Some(_), Some(_)) => SHARED_VERSION,
        (Some(_), None) => SHARED_UNNUMBERED_VERSION,
    });
    record.extend_from_slice(&queued.number.unwrap_or(0).to_be_bytes());
    record.extend_from_slice(&queued.arrived.0.to_be_bytes());
    if let Some(shared) = queued.shared {
        record.extend_from_slice(&shared.group.to_be_bytes());
        record.extend_from_slice(&shared.members.to_be_bytes());
    }
    record.extend_from_slice(queued.stanza);
    record
}

fn read_queued(record: &[u8]) -> Result<Queued<'_>, Trouble> {
    let damaged = || Trouble::from("a queued stanza is damaged");
    let (version, rest) = record.split_first().ok_or_else(damaged)?;
    let (number, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
    let number = Some(u32::from_be_bytes(*number));
    let (is_numbered, is_shared) = match *version {
        // Before schema 5 the time was not kept.
        VERSION => {
            return Ok(Queued {
                number,
                arrived: Timestamp::default(),
                has_waited: true,
                shared: None,
                stanza: rest,
            });
        }
        QUEUED_VERSION | WAITED_VERSION => (true, false),
        UNNUMBERED_VERSION | WAITED_UNNUMBERED_VERSION => (false, false),
        SHARED_VERSION => (true, true),
        SHARED_UNNUMBERED_VERSION => (false, true),
        _ => return Err("a queued stanza has an unknown record version".into()),
    };
    let (arrived, mut stanza) = rest.split_first_chunk().ok_or_else(damaged)?;
    let mut shared = None;
    if is_shared {
        let (group, rest) = stanza.split_first_chunk().ok_or_else(damaged)?;
        let (members, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        stanza = rest;
        shared = Some(SharedStanza {
            group: u64::from_be_bytes(*group),
            members: u32::from_be_bytes(*members),
            holders: 0,
        });
    }
    let arrived = Timestamp(u64::from_be_bytes(*arrived));
    let is_waited = matches!(*version, WAITED_VERSION | WAITED_UNNUMBERED_VERSION);
    Ok(Queued {
        number: number.filter(|_| is_numbered),
        arrived,
        // Before schema 9 it had no time where it had waited.
        has_waited: is_waited || arrived == Timestamp::default(),
        shared,
        stanza,
    })
}

/// The group of a queued stanza that several sessions were given.
pub(crate) fn group_of(record: &[u8]) -> Result<Option<u64>, Trouble> {
    let shared = read_queued(record)?.shared;
    Ok(shared.map(|shared| shared.group))
}

/// What a record beside an account's queues is of.
pub(crate) enum Name {
    Queued { secret: u128, place: u64 },
    Left { group: u64 },
}

/// Reads what is behind the account's prefix of a key of the queues' table.
pub(crate) fn name_of(name: &[u8]) -> Result<Name, Trouble> {
    let damaged = || Trouble::from("the key of a record beside the queues is damaged");
    let number = |bytes| u64::from_be_bytes(bytes);
    let (kind, name) = name.split_first().ok_or_else(damaged)?;
    let (before, last) = name.split_last_chunk().ok_or_else(damaged)?;
    match (*kind, <[u8; SECRET_SIZE]>::try_from(before)) {
        (QUEUED, Ok(secret)) => Ok(Name::Queued {
            secret: u128::from_be_bytes(secret),
            place: number(*last),
        }),
        (LEFT, Err(_)) if before.is_empty() => Ok(Name::Left {
            group: number(*last),
        }),
        _ => Err(damaged()),
    }
}

/// The number at the end of a queue's key, behind `prefix`.
fn place_of(key: &[u8], prefix: &[u8]) -> Result<u64, Trouble> {
    key.get(prefix.len()..)
        .and_then(|place| <[u8; PLACE_SIZE]>::try_from(place).ok())
        .map(u64::from_be_bytes)
        .ok_or_else(|| "a queued stanza has no place".into())
}

/// Notes in the same commit as a stanza's effect that it took effect, unless its session has ended.
pub(crate) fn mark(staged: &mut Staged, receiver: &BareJid, origin: Option<Origin>) {
    if let Some(origin) = origin
        && let Some(mark) = staged.gaps.mark(origin, receiver)
    {
        let mut key = marks_prefix(origin.session);
        key.extend_from_slice(receiver.as_str().as_bytes());
        staged.put_queue(key, Some(mark_record(&mark)));
        staged.marked.push((origin, receiver.clone()));
    }
}

/// Puts a stanza where it waits, whatever it says of its number.
fn put_queued(staged: &mut Staged, account: &BareJid, copy: QueuePlace, queued: Queued<'_>) {
    let key = queue_key(account, copy.session.secret, copy.place);
    let number = copy.number;
    let record = queued_record(&Queued { number, ..queued });
    staged.put_queue(key, Some(record));
}

/// What goes with a session.
#[derive(Default)]
struct Records {
    /// Of the queues' table.
    queue: Vec<Key>,
    sessions: Vec<Key>,
    /// What of it others have, too.
    shared: Vec<SharedStanza>,
    /// Whether the session was saved, or has a queue.
    is_there: bool,
}

impl Records {
    fn remove(self, staged: &mut Staged) {
        for key in self.queue {
            staged.put_queue(key, None);
        }
        let sessions = self.sessions.into_iter();
        staged.sessions.extend(sessions.map(|key| (key, None)));
    }
}

/// Removes the records of a session.
fn end_session(staged: &mut Staged, session: SessionId, records: Records) {
    records.remove(staged);
    note_end(staged, session);
}

/// It will not send anything again.
pub(crate) fn note_end(staged: &mut Staged, session: SessionId) {
    staged.settled.push((session, u64::MAX));
    staged.gaps.end(session);
}

/// The keys below a prefix as this call sees them.
pub(crate) fn keys_below(
    engine: &Engine,
    table: Table,
    staged: &Staged,
    prefix: &[u8],
) -> Result<Vec<Key>, Trouble> {
    let mut keys = Vec::new();
    engine.each_hot(table, staged, prefix, |key, _| {
        keys.push(Key::from_slice(key));
        Ok(())
    })?;
    Ok(keys)
}

impl Engine {
    /// The operations on managed sessions.
    pub(crate) fn apply_to_sessions(
        &self,
        staged: &mut Staged,
        op: StoreOp,
    ) -> Result<StoreReply, Trouble> {
        match op {
            StoreOp::Enqueue(enqueue) => {
                let carbons = enqueue.carbons.iter();
                let carbons = carbons.map(|(copy, stanza)| (copy, &**stanza));
                let copies = enqueue.copies.iter().map(|copy| (copy, &*enqueue.stanza));
                for (copy, stanza) in copies.chain(carbons) {
                    put_queued(
                        staged,
                        &enqueue.account,
                        *copy,
                        Queued::of(&enqueue, stanza),
                    );
                }
                mark(staged, &enqueue.account, enqueue.origin);
            }
            StoreOp::PutHandled {
                account,
                session,
                handled,
            } => {
                let key = key(&account, HANDLED, session.secret);
                staged.sessions.insert(key, Some(number_record(handled)));
                staged.settled.push((session, handled));
            }
            StoreOp::Dequeue {
                account,
                session,
                from,
                to,
            } => {
                for place in from..=to {
                    staged.put_queue(queue_key(&account, session.secret, place), None);
                }
            }
            StoreOp::PutSession {
                account,
                session,
                saved,
            } => return self.save_session(staged, &account, session, *saved),
            StoreOp::Renumber {
                account,
                session,
                numbers,
                up_to,
            } => self.renumber(staged, &account, session, numbers, up_to)?,
            StoreOp::EndSession {
                account,
                session,
                waiting,
                quota,
            } => return self.leave_session(staged, &account, session, waiting, quota),
            StoreOp::ClaimOffline {
                account,
                session,
                place,
                number,
            } => return self.claim_offline(staged, &account, session, place, number),
            StoreOp::Session { account, session } => {
                return self.session(staged, &account, session);
            }
            StoreOp::Sessions => return self.sessions(staged).map(StoreReply::Sessions),
            _ => return Ok(StoreReply::Failed("not an operation of this kind".into())),
        }
        Ok(StoreReply::Done)
    }

    /// Writes what a session is, if its account is there.
    fn save_session(
        &self,
        staged: &mut Staged,
        account: &BareJid,
        session: SessionId,
        saved: SavedSession,
    ) -> Result<StoreReply, Trouble> {
        let owner = schema::account_key(account);
        if !exists(self.keyspace(Table::Accounts), &staged.accounts, &owner)? {
            return Ok(StoreReply::Missing);
        }
        let record = saved_record(saved)?;
        self.clear_remains(staged, account, session)?;
        let key = saved_key(account, session.secret);
        staged.sessions.insert(key, Some(record));
        staged.gaps.take_back_end(session);
        Ok(StoreReply::Done)
    }

    /// Ends a session that leaves something, if there is one and there is room. What can fail is
    /// done before anything is staged: an end that fails is tried again.
    fn leave_session(
        &self,
        staged: &mut Staged,
        account: &BareJid,
        session: SessionId,
        waiting: Vec<Arrived>,
        quota: OfflineQuota,
    ) -> Result<StoreReply, Trouble> {
        if self.went(staged, account, session)? {
            // What was written of it behind the deletion goes as all the rest does.
            let handled = key(account, HANDLED, session.secret);
            staged.sessions.insert(handled, None);
            staged.remains.add_late(account, session);
            note_end(staged, session);
            return Ok(StoreReply::Done);
        }
        let gone = self.records_of_session(staged, account, session)?;
        let left = self.leave_groups(staged, account, &gone.shared)?;
        // A try whose answer was lost did all of it. One that was never saved may have a queue.
        if gone.is_there
            && let Some(room) = self.put_waiting(staged, account, waiting, quota)?
        {
            return Ok(StoreReply::Room(room));
        }
        for (key, record) in left {
            staged.put_queue(key, record);
        }
        end_session(staged, session, gone);
        // It stages nothing where it fails, and the next end does it as well.
        if let Err(error) = self.forget_groups(staged, account) {
            tracing::warn!(%error, %account, "it stays noted what ended sessions shared");
        }
        Ok(StoreReply::Done)
    }

    /// Adds to what waits for an account, if there is one; where not all fit, gives how many
    /// would, and does nothing.
    fn put_waiting(
        &self,
        staged: &mut Staged,
        account: &BareJid,
        waiting: Vec<Arrived>,
        quota: OfflineQuota,
    ) -> Result<Option<u32>, Trouble> {
        if waiting.is_empty() {
            return Ok(None);
        }
        let owner = schema::account_key(account);
        if !exists(self.keyspace(Table::Accounts), &staged.accounts, &owner)? {
            return Ok(None);
        }
        let kept = self.keyspace(Table::Kept);
        let room = kept::room_for(kept, staged, account, &waiting, quota)?;
        if waiting.len() > room as usize {
            return Ok(Some(room));
        }
        for (arrived, stanza) in waiting {
            kept::put_offline(kept, staged, account, (arrived, &stanza), quota)?;
        }
        Ok(None)
    }

    fn renumber(
        &self,
        staged: &mut Staged,
        account: &BareJid,
        session: SessionId,
        numbers: Vec<(u64, u32)>,
        up_to: u64,
    ) -> Result<(), Trouble> {
        let prefix = queue_prefix(account, session);
        let numbers: HashMap<u64, u32> = numbers.into_iter().collect();
        let mut changes = Vec::with_capacity(numbers.len());
        self.each_hot(Table::Queue, staged, &prefix, |key, record| {
            let place = place_of(key, &prefix)?;
            let change = match numbers.get(&place) {
                Some(number) => {
                    let number = Some(*number);
                    let queued = read_queued(record)?;
                    // Mostly its client counts as it did before.
                    if queued.number == number {
                        return Ok(());
                    }
                    Some(queued_record(&Queued { number, ..queued }))
                }
                None if place > up_to => return Ok(()),
                None => None,
            };
            changes.push((Key::from_slice(key), change));
            Ok(())
        })?;
        for (key, change) in changes {
            staged.put_queue(key, change);
        }
        Ok(())
    }

    /// What goes with a session: its queue, its marks, and what says what it is.
    fn records_of_session(
        &self,
        staged: &Staged,
        account: &BareJid,
        session: SessionId,
    ) -> Result<Records, Trouble> {
        let mut records = Records::default();
        let queued = queue_prefix(account, session);
        self.each_hot(Table::Queue, staged, &queued, |key, record| {
            records.queue.push(Key::from_slice(key));
            records.shared.extend(read_queued(record)?.shared);
            Ok(())
        })?;
        for kind in [SAVED, HANDLED] {
            let key = key(account, kind, session.secret);
            if self.read_hot(Table::Sessions, staged, &key)?.is_some() {
                records.is_there |= kind == SAVED;
                records.sessions.push(key);
            }
        }
        records.is_there |= !records.queue.is_empty();
        let marks = keys_below(self, Table::Queue, staged, &marks_prefix(session))?;
        records.queue.extend(marks);
        Ok(records)
    }

    fn claim_offline(
        &self,
        staged: &mut Staged,
        account: &BareJid,
        session: SessionId,
        place: u64,
        number: Option<u32>,
    ) -> Result<StoreReply, Trouble> {
        let waiting = kept::waiting(self.keyspace(Table::Kept), staged, account)?;
        let Some(last) = waiting.iter().map(|(number, _)| *number).max() else {
            return Ok(StoreReply::Offline(waiting));
        };
        kept::remove_offline(self.keyspace(Table::Kept), staged, account, last)?;
        let mut claimed = Vec::with_capacity(waiting.len());
        for (index, (_, (arrived, stanza))) in waiting.into_iter().enumerate() {
            let copy = QueuePlace {
                session,
                place: place + index as u64,
                number: number.map(|number| number.wrapping_add(index as u32)),
            };
            let queued = Queued {
                number: None,
                arrived,
                has_waited: true,
                shared: None,
                stanza: &stanza,
            };
            put_queued(staged, account, copy, queued);
            claimed.push((copy.place, (arrived, stanza)));
        }
        Ok(StoreReply::Offline(claimed))
    }

    fn session(
        &self,
        staged: &mut Staged,
        account: &BareJid,
        session: SessionId,
    ) -> Result<StoreReply, Trouble> {
        let mut is_read = true;
        match self.read_session(staged, account, session, &mut is_read) {
            // The engine has given the record, and no later try makes sense of it.
            Err(why) if !is_read => Ok(StoreReply::Damaged(why)),
            read => read,
        }
    }

    /// Where a record is there and cannot be read, `is_read` says so.
    fn read_session(
        &self,
        staged: &mut Staged,
        account: &BareJid,
        session: SessionId,
        is_read: &mut bool,
    ) -> Result<StoreReply, Trouble> {
        let record = |kind| {
            let key = key(account, kind, session.secret);
            self.read_hot(Table::Sessions, staged, &key)
        };
        let Some(saved) = record(SAVED)? else {
            return Ok(StoreReply::Session(None));
        };
        let handled = record(HANDLED)?;
        *is_read = false;
        let mut stored = StoredSession {
            saved: read_saved(&saved)?,
            handled: handled.as_deref().map_or(Ok(0), read_number)?,
            queue: Vec::new(),
            marks: Vec::new(),
        };
        *is_read = true;
        let prefix = queue_prefix(account, session);
        let mut pieces: Vec<Vec<QueuedStanza>> = Vec::new();
        self.each_hot(Table::Queue, staged, &prefix, |key, record| {
            *is_read = false;
            let queued = read_queued(record)?;
            let place = place_of(key, &prefix)?;
            *is_read = true;
            let has_room = |piece: &&mut Vec<_>| piece.len() < PIECE_LENGTH;
            let piece = match pieces.last_mut().filter(has_room) {
                Some(piece) => piece,
                None => pieces.push_mut(Vec::with_capacity(PIECE_LENGTH)),
            };
            piece.push(QueuedStanza {
                place,
                number: queued.number,
                arrived: queued.arrived,
                has_waited: queued.has_waited,
                stanza: queued.stanza.into(),
                shared: queued.shared,
            });
            Ok(())
        })?;
        stored
            .queue
            .reserve_exact(pieces.iter().map(Vec::len).sum());
        stored.queue.extend(pieces.into_iter().flatten());
        self.count_holders(staged, account, &mut stored.queue)?;
        // What this call staged comes behind what is committed.
        stored.queue.sort_unstable_by_key(|queued| queued.place);
        let prefix = marks_prefix(session);
        self.each_hot(Table::Queue, staged, &prefix, |key, record| {
            *is_read = false;
            let receiver = schema::jid_of(&key[prefix.len()..]).map_err(|error| error.0)?;
            stored.marks.push(read_mark(receiver, record)?);
            *is_read = true;
            Ok(())
        })?;
        staged.gaps.recall(session, &stored.marks);
        Ok(StoreReply::Session(Some(Box::new(stored))))
    }

    /// What to note where a session ends that shares these: it is a member no more.
    fn leave_groups(
        &self,
        staged: &Staged,
        account: &BareJid,
        shared: &[SharedStanza],
    ) -> Result<Writes, Trouble> {
        let note = |shared: &SharedStanza| {
            let left = 1 + self.left(staged, account, shared.group)?;
            let record = (left < u64::from(shared.members)).then(|| number_record(left));
            Ok((left_key(account, shared.group), record))
        };
        shared.iter().map(note).collect()
    }

    /// Of how many groups it is noted that sessions left them.
    pub(crate) fn count_left(&self, staged: &Staged, account: &BareJid) -> Result<usize, Trouble> {
        let mut count = 0;
        self.each_hot(Table::Queue, staged, &kind_prefix(account, LEFT), |_, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    pub(crate) fn has_sessions(&self, staged: &Staged, account: &BareJid) -> Result<bool, Trouble> {
        let saved = kind_prefix(account, SAVED);
        let sessions = keys_below(self, Table::Sessions, staged, &saved)?;
        Ok(!sessions.is_empty())
    }

    pub(crate) fn sessions(&self, staged: &Staged) -> Result<Vec<(BareJid, SessionId)>, Trouble> {
        let mut sessions = Vec::new();
        self.each_hot(Table::Sessions, staged, &[], |key, _| {
            sessions.extend(session_of_key(key)?);
            Ok(())
        })?;
        Ok(sessions)
    }
}

/// Which session a record of their table is, if it is no session's count.
pub(crate) fn session_of_key(key: &[u8]) -> Result<Option<(BareJid, SessionId)>, Trouble> {
    let damaged = || Trouble::from("a session's key is damaged");
    let (name, secret) = key.split_last_chunk::<SECRET_SIZE>().ok_or_else(damaged)?;
    let Some((name, [0, kind])) = name.split_last_chunk() else {
        return Err(damaged());
    };
    if *kind != SAVED {
        return Ok(None);
    }
    let account = schema::account_of_key(name).map_err(|error| error.0)?;
    let home = stanza::jid::virtual_shard(account.as_str());
    let secret = u128::from_be_bytes(*secret);
    Ok(Some((account, SessionId { home, secret })))
}

/// What an account has beside its queues' places: the stanzas, and how many sessions left a group.
pub(crate) enum Unacked<'a> {
    Queued(Queued<'a>),
    Left { group: u64, count: u64 },
}

/// A record of what an account's sessions had not acknowledged; `name` is its key behind the
/// account's prefix. What was left comes after all that waits.
pub(crate) fn unacked<'a>(name: &[u8], record: &'a [u8]) -> Result<Unacked<'a>, Trouble> {
    match name.split_first() {
        Some((&QUEUED, _)) => read_queued(record).map(Unacked::Queued),
        Some((&LEFT, group)) => {
            let group = <[u8; 8]>::try_from(group);
            let group = group.map_err(|_| Trouble::from("a group's key is damaged"))?;
            Ok(Unacked::Left {
                group: u64::from_be_bytes(group),
                count: read_number(record)?,
            })
        }
        _ => Err("a record is of an unknown kind".into()),
    }
}

#[cfg(test)]
mod tests;
