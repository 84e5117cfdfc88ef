//! What an account keeps besides keys and roster: block list, documents, waiting messages; and its
//! user agents, see [`crate::agents`].
//!
//! All lie in one keyspace below the account's prefix, told apart by a kind byte, so that an
//! account's end is one range. Values begin with a version byte. The numbers of waiting messages
//! only ever grow, over removals and restarts too, for a client may still acknowledge an old one.

use crate::embedded::{Staged, Trouble, damaged};
use crate::records::{check_name, each_between, each_record, read};
use crate::{nodes, schema};
use fjall::Keyspace;
use rkyv::rancor::Error as RkyvError;
use stanza::jid::BareJid;
use std::ops::RangeInclusive;
use xmpp::Timestamp;
use xmpp::port::{Arrived, DOCUMENTS_MAX, Document, OfflineQuota, Space, StoreReply, WholeAccount};

const BLOCKED: u8 = 1;
const DOCUMENT: u8 = 2;
const OFFLINE: u8 = 3;
const OFFLINE_COUNT: u8 = 4;
/// A node of publish-subscribe, from schema 11 on as what its items say; an export has it before
/// these.
pub(crate) const NODE: u8 = 5;
pub(crate) const ITEM: u8 = 6;

/// User agents, from schema 11 on.
pub(crate) const AGENT: u8 = 8;

/// The version byte of every record here but one.
pub(crate) const VERSION: u8 = 1;

/// That of a message with the time when it came, from schema 9 on.
const TIMED_VERSION: u8 = 2;

/// A message that waits, with its number.
pub(crate) type Message = (u64, Arrived);

pub(crate) fn key(account: &BareJid, kind: u8) -> Vec<u8> {
    let mut key = schema::roster_prefix(account);
    key.push(kind);
    key
}

fn document_key(account: &BareJid, space: Space, name: &str) -> Result<Vec<u8>, Trouble> {
    check_name(name)?;
    let mut key = key(account, DOCUMENT);
    key.push(space as u8);
    key.extend_from_slice(name.as_bytes());
    Ok(key)
}

fn offline_key(account: &BareJid, id: u64) -> Vec<u8> {
    let mut key = key(account, OFFLINE);
    key.extend_from_slice(&id.to_be_bytes());
    key
}

pub(crate) fn record(content: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(content.len() + 1);
    record.push(VERSION);
    record.extend_from_slice(content);
    record
}

pub(crate) fn content<'a>(record: &'a [u8], what: &str) -> Result<&'a [u8], Trouble> {
    match record.split_first() {
        Some((&VERSION, content)) => Ok(content),
        _ => Err(format!("{what} has an unknown record version").into()),
    }
}

/// The microseconds of the arrival, the stanza.
fn message_record(arrived: Timestamp, stanza: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(stanza.len() + 9);
    record.push(TIMED_VERSION);
    record.extend_from_slice(&arrived.0.to_be_bytes());
    record.extend_from_slice(stanza);
    record
}

fn read_message(record: &[u8]) -> Result<(Timestamp, &[u8]), Trouble> {
    match record.split_first() {
        Some((&TIMED_VERSION, timed)) => {
            let damaged = || Trouble::from("a message is damaged");
            let (arrived, stanza) = timed.split_first_chunk().ok_or_else(damaged)?;
            Ok((Timestamp(u64::from_be_bytes(*arrived)), stanza))
        }
        // It came before all that have a time.
        _ => Ok((Timestamp::default(), content(record, "a message")?)),
    }
}

/// The block list.
pub(crate) fn blocked(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
) -> Result<Vec<Box<str>>, Trouble> {
    let Some(found) = read(kept, &staged.kept, &key(account, BLOCKED))? else {
        return Ok(Vec::new());
    };
    read_block_list(&found)
}

fn read_block_list(found: &[u8]) -> Result<Vec<Box<str>>, Trouble> {
    let archive = content(found, "a block list")?;
    rkyv::from_bytes::<Vec<Box<str>>, RkyvError>(archive)
        .map_err(|error| format!("a block list is damaged: {error}").into())
}

fn block_list(list: &Vec<Box<str>>) -> Result<Vec<u8>, Trouble> {
    rkyv::api::high::to_bytes_in::<_, RkyvError>(list, vec![VERSION])
        .map_err(|error| format!("cannot archive a block list: {error}").into())
}

/// Replaces the block list.
pub(crate) fn set_blocked(
    staged: &mut Staged,
    account: &BareJid,
    list: Vec<Box<str>>,
) -> Result<StoreReply, Trouble> {
    let archive = block_list(&list)?;
    let value = (!list.is_empty()).then_some(archive);
    staged.kept.insert(key(account, BLOCKED).into(), value);
    Ok(StoreReply::Done)
}

/// Reads a document.
pub(crate) fn document(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
    space: Space,
    name: &str,
) -> Result<StoreReply, Trouble> {
    let found = read(kept, &staged.kept, &document_key(account, space, name)?)?;
    let found = found
        .as_deref()
        .map(|found| content(found, "a document"))
        .transpose()?;
    Ok(StoreReply::Document(found.map(Box::from)))
}

/// The document of a kind of which an account has one only.
pub(crate) fn only_document(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
    space: Space,
) -> Result<Option<Box<[u8]>>, Trouble> {
    match document(kept, staged, account, space, "")? {
        StoreReply::Document(found) => Ok(found),
        _ => Ok(None),
    }
}

/// Writes a document, or removes it where `bytes` are empty.
pub(crate) fn put_document(
    kept: &Keyspace,
    staged: &mut Staged,
    account: &BareJid,
    space: Space,
    name: &str,
    bytes: &[u8],
) -> Result<StoreReply, Trouble> {
    let key = document_key(account, space, name)?;
    let known = read(kept, &staged.kept, &key)?.is_some();
    if bytes.is_empty() {
        if known {
            staged.kept.insert(key.into(), None);
        }
        return Ok(StoreReply::Done);
    }
    if !known {
        let mut count = 0;
        let prefix = document_key(account, space, "")?;
        each_record(kept, &staged.kept, &prefix, |_, _| {
            count += 1;
            Ok(())
        })?;
        if count >= DOCUMENTS_MAX {
            return Ok(StoreReply::Full);
        }
    }
    staged.kept.insert(key.into(), Some(record(bytes)));
    Ok(StoreReply::Done)
}

/// The last number given to a waiting message, how many wait, their bytes, and when the newest of
/// them came.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    last: u64,
    count: u32,
    size: u64,
    /// None that waits came later.
    newest: Timestamp,
}

impl Counters {
    fn numbers(self) -> RangeInclusive<u64> {
        self.last.saturating_sub(self.count.into()) + 1..=self.last
    }

    fn record(self) -> Vec<u8> {
        let mut numbers = self.last.to_be_bytes().to_vec();
        numbers.extend_from_slice(&self.count.to_be_bytes());
        numbers.extend_from_slice(&self.size.to_be_bytes());
        numbers.extend_from_slice(&self.newest.0.to_be_bytes());
        record(&numbers)
    }
}

fn counters(kept: &Keyspace, staged: &Staged, account: &BareJid) -> Result<Counters, Trouble> {
    let Some(found) = read(kept, &staged.kept, &key(account, OFFLINE_COUNT))? else {
        return Ok(Counters::default());
    };
    let damaged = || Trouble::from("a message count is damaged");
    let counters = content(&found, "a message count")?;
    let (last, rest) = counters.split_first_chunk().ok_or_else(damaged)?;
    let (count, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
    let mut counters = Counters {
        last: u64::from_be_bytes(*last),
        count: u32::from_be_bytes(*count),
        ..Counters::default()
    };
    (counters.size, counters.newest) = match rest.split_first_chunk() {
        Some((size, newest)) if newest.len() == 8 => {
            let newest = newest.try_into().map_err(|_| damaged())?;
            (
                u64::from_be_bytes(*size),
                Timestamp(u64::from_be_bytes(newest)),
            )
        }
        // Before schema 4 the size was not kept, before schema 10 when the newest came.
        Some((_, [])) => measure(kept, staged, account, counters.numbers())?,
        None if rest.is_empty() => measure(kept, staged, account, counters.numbers())?,
        _ => return Err(damaged()),
    };
    Ok(counters)
}

/// The key and the record of schemas 2 and 3, or, with a size, of those from 4 to 9.
#[cfg(test)]
pub(crate) fn old_count(
    account: &BareJid,
    last: u64,
    count: u32,
    size: Option<u64>,
) -> schema::Entry {
    let mut numbers = last.to_be_bytes().to_vec();
    numbers.extend_from_slice(&count.to_be_bytes());
    numbers.extend(size.into_iter().flat_map(u64::to_be_bytes));
    (key(account, OFFLINE_COUNT), record(&numbers))
}

fn set_counters(staged: &mut Staged, account: &BareJid, counters: Counters) {
    staged
        .kept
        .insert(key(account, OFFLINE_COUNT).into(), Some(counters.record()));
}

/// The bytes of some of what waits, and when the newest of it came.
fn measure(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
    numbers: RangeInclusive<u64>,
) -> Result<(u64, Timestamp), Trouble> {
    let (mut size, mut newest) = (0, Timestamp::default());
    if !numbers.is_empty() {
        let ends = [numbers.start(), numbers.end()].map(|number| offline_key(account, *number));
        let [first, last] = ends;
        each_between(kept, &staged.kept, first..=last, |_, found| {
            let (arrived, stanza) = read_message(found)?;
            size += stanza.len() as u64;
            newest = newest.max(arrived);
            Ok(())
        })?;
    }
    Ok((size, newest))
}

/// Takes a message that waits.
pub(crate) fn put_offline(
    kept: &Keyspace,
    staged: &mut Staged,
    account: &BareJid,
    (arrived, stanza): (Timestamp, &[u8]),
    quota: OfflineQuota,
) -> Result<StoreReply, Trouble> {
    let mut counters = counters(kept, staged, account)?;
    counters.last += 1;
    counters.count += 1;
    counters.size += stanza.len() as u64;
    counters.newest = counters.newest.max(arrived);
    if !quota.admits(counters.count, counters.size) {
        return Ok(StoreReply::Full);
    }
    let key = offline_key(account, counters.last);
    let record = message_record(arrived, stanza);
    staged.kept.insert(key.into(), Some(record));
    set_counters(staged, account, counters);
    Ok(StoreReply::Done)
}

/// How many of these messages may wait beside those that do.
pub(crate) fn room_for(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
    messages: &[Arrived],
    quota: OfflineQuota,
) -> Result<u32, Trouble> {
    let mut counters = counters(kept, staged, account)?;
    let mut room = 0;
    for (_, message) in messages {
        counters.count += 1;
        counters.size += message.len() as u64;
        if !quota.admits(counters.count, counters.size) {
            break;
        }
        room += 1;
    }
    Ok(room)
}

/// When the newest message that waits came; `None` where none does. An older count is measured for
/// that: where what it counts is damaged it is not known, and no reason to keep its owner out.
pub(crate) fn newest_waiting(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
) -> Result<Option<Timestamp>, Trouble> {
    match counters(kept, staged, account) {
        Ok(counters) => Ok((counters.count > 0).then_some(counters.newest)),
        Err(error) => {
            let account = account.as_str();
            tracing::warn!(account, %error, "what waits cannot be measured");
            Ok(Some(Timestamp::default()))
        }
    }
}

/// Reads what waits, oldest first, whenever it was put there: what a session leaves came before
/// what was put there meanwhile. What was removed before it is not looked at: the engine would
/// have to pass over every removal that it has not compacted.
pub(crate) fn waiting(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
) -> Result<Vec<Message>, Trouble> {
    // Without gaps: messages are appended at one end and removed from the other.
    let numbers = counters(kept, staged, account)?.numbers();
    let mut waiting = Vec::new();
    if numbers.is_empty() {
        return Ok(waiting);
    }
    let prefix = key(account, OFFLINE);
    let ends = [numbers.start(), numbers.end()].map(|number| offline_key(account, *number));
    let [first, last] = ends;
    each_between(kept, &staged.kept, first..=last, |key, found| {
        let (arrived, stanza) = read_message(found)?;
        waiting.push((offline_id(key, &prefix)?, (arrived, stanza.into())));
        Ok(())
    })?;
    waiting.sort_unstable_by_key(|(id, (arrived, _)): &Message| (*arrived, *id));
    Ok(waiting)
}

/// Removes what waits, up to and including a number.
pub(crate) fn remove_offline(
    kept: &Keyspace,
    staged: &mut Staged,
    account: &BareJid,
    up_to: u64,
) -> Result<StoreReply, Trouble> {
    let mut counters = counters(kept, staged, account)?;
    let gone = *counters.numbers().start()..=up_to.min(counters.last);
    if gone.is_empty() {
        return Ok(StoreReply::Done);
    }
    let rest = gone.end() + 1..=counters.last;
    counters.count = (counters.last - gone.end()) as u32;
    // What is less of the two is read.
    counters.size = match u64::from(counters.count) <= gone.end() - gone.start() {
        true => measure(kept, staged, account, rest)?.0,
        false => counters
            .size
            .saturating_sub(measure(kept, staged, account, gone.clone())?.0),
    };
    if counters.count == 0 {
        counters.newest = Timestamp::default();
    }
    set_counters(staged, account, counters);
    let gone = gone.map(|number| (offline_key(account, number).into(), None));
    staged.kept.extend(gone);
    Ok(StoreReply::Done)
}

/// The records of a new account.
pub(crate) fn of_new(
    account: &BareJid,
    blocked: Vec<Box<str>>,
    documents: Vec<Document>,
    offline: Vec<Box<[u8]>>,
) -> Result<Vec<schema::Entry>, Trouble> {
    let mut records = Vec::new();
    if !blocked.is_empty() {
        records.push((key(account, BLOCKED), block_list(&blocked)?));
    }
    for (space, name, bytes) in documents {
        if bytes.is_empty() {
            continue; // As if it had been removed.
        }
        records.push((document_key(account, space, &name)?, record(&bytes)));
    }
    if !offline.is_empty() {
        let count = offline.len() as u32;
        let counters = Counters {
            last: count.into(),
            count,
            size: offline.iter().map(|stanza| stanza.len() as u64).sum(),
            newest: Timestamp::default(),
        };
        records.push((key(account, OFFLINE_COUNT), counters.record()));
    }
    for (id, stanza) in (1..).zip(offline) {
        records.push((offline_key(account, id), record(&stanza)));
    }
    Ok(records)
}

/// Adds one record to what its account owns, or to what waits for it; `name` is its key behind the
/// account's prefix.
pub(crate) fn gather(
    whole: &mut WholeAccount,
    waiting: &mut Vec<Arrived>,
    name: &[u8],
    found: &[u8],
) -> Result<(), Trouble> {
    match name.split_first() {
        Some((&BLOCKED, [])) => whole.data.blocked = read_block_list(found)?,
        Some((&DOCUMENT, [space, name @ ..])) => {
            let space = Space::ALL
                .into_iter()
                .find(|known| *known as u8 == *space)
                .ok_or("a document is of an unknown kind")?;
            let name = std::str::from_utf8(name).map_err(|_| "a document's name is not UTF-8")?;
            let bytes = content(found, "a document")?.into();
            whole.documents.push((space, name.into(), bytes));
        }
        // The keys end in big-endian numbers: they come by number.
        Some((&OFFLINE, _)) => {
            let (arrived, stanza) = read_message(found)?;
            waiting.push((arrived, stanza.into()));
        }
        Some((&OFFLINE_COUNT, [])) => {}
        // Their tokens are good here only.
        Some((&AGENT, _)) => {}
        Some((&NODE, name)) => nodes::gather_node(&mut whole.nodes, name, found)?,
        Some((&ITEM, key)) => nodes::gather_item(&mut whole.nodes, key, found)?,
        _ => return Err("a record is of an unknown kind".into()),
    }
    Ok(())
}

fn offline_id(key: &[u8], prefix: &[u8]) -> Result<u64, Trouble> {
    let id = key
        .get(prefix.len()..)
        .and_then(|id| <[u8; 8]>::try_from(id).ok());
    id.map(u64::from_be_bytes)
        .ok_or_else(|| damaged(schema::unreadable("a message has no number")))
}

#[cfg(test)]
mod tests {
    use xmpp::Timestamp;
    use xmpp::port::{Store, StoreOp, StoreReply};

    use crate::conformance::{create, jid, one, wait, waiting};
    use crate::crash::Scratch;
    use crate::{Embedded, schema};

    const ROMEO: &str = "romeo@a.example";

    #[test]
    fn a_store_of_schema_9_finds_when_the_newest_that_waits_came() {
        let scratch = Scratch::new();
        let mut store = Embedded::open(&scratch.0).unwrap();
        let mut ops = vec![create(ROMEO, 1)];
        for time in [7, 9, 8] {
            let mut op = wait(ROMEO, "<message/>", 9);
            if let StoreOp::PutOffline { arrived, .. } = &mut op {
                *arrived = Timestamp(time);
            }
            ops.push(op);
        }
        store.perform(&mut ops.into_iter(), &mut Vec::new());
        drop(store);
        // Opened again, all of it is in the engine.
        let store = Embedded::open(&scratch.0).unwrap();
        let engine = store.engine().unwrap();
        engine.put_raw_count(&jid(ROMEO), 3, 3, Some(30));
        engine.put_raw_schema(&9_u32.to_be_bytes());
        drop(store);
        let mut store = Embedded::open(&scratch.0).unwrap();
        let raw = store.engine().unwrap().raw_schema();
        assert_eq!(raw, schema::SCHEMA.to_be_bytes());
        let account = StoreOp::Account {
            account: jid(ROMEO),
        };
        let StoreReply::Account(Some(data)) = one(&mut store, account) else {
            panic!("the account is there");
        };
        assert_eq!(data.newest_waiting, Some(Timestamp(9)));
        one(&mut store, wait(ROMEO, "<message/>", 9));
        assert_eq!(waiting(&mut store, ROMEO).len(), 4);
    }
}
