//! What an account keeps besides keys and roster: block list, documents, waiting messages.
//!
//! All lie in one keyspace below the account's prefix, told apart by a kind byte, so that an
//! account's end is one range. Values begin with a version byte. The numbers of waiting messages
//! only ever grow, over removals and restarts too, for a client may still acknowledge an old one.

use super::embedded::{Staged, Trouble, damaged, each_record, read};
use crate::schema;
use crate::{Document, WholeAccount};
use fjall::Keyspace;
use rkyv::rancor::Error as RkyvError;
use stanza::jid::BareJid;
use xmpp::port::{DOCUMENTS_MAX, Space, StoreReply};

const BLOCKED: u8 = 1;
const DOCUMENT: u8 = 2;
const OFFLINE: u8 = 3;
const OFFLINE_COUNT: u8 = 4;

/// The version byte of every record here.
const VERSION: u8 = 1;

/// A message that waits, with its number.
pub(crate) type Message = (u64, Box<[u8]>);

fn key(account: &BareJid, kind: u8) -> Vec<u8> {
    let mut key = schema::roster_prefix(account);
    key.push(kind);
    key
}

fn document_key(account: &BareJid, space: Space, name: &str) -> Vec<u8> {
    let mut key = key(account, DOCUMENT);
    key.push(space as u8);
    key.extend_from_slice(name.as_bytes());
    key
}

fn offline_key(account: &BareJid, id: u64) -> Vec<u8> {
    let mut key = key(account, OFFLINE);
    key.extend_from_slice(&id.to_be_bytes());
    key
}

fn record(content: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(content.len() + 1);
    record.push(VERSION);
    record.extend_from_slice(content);
    record
}

fn content<'a>(record: &'a [u8], what: &str) -> Result<&'a [u8], Trouble> {
    match record.split_first() {
        Some((&VERSION, content)) => Ok(content),
        _ => Err(format!("{what} has an unknown record version").into()),
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
    staged.kept.insert(key(account, BLOCKED), value);
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
    let found = read(kept, &staged.kept, &document_key(account, space, name))?;
    let found = found
        .as_deref()
        .map(|found| content(found, "a document"))
        .transpose()?;
    Ok(StoreReply::Document(found.map(Box::from)))
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
    let key = document_key(account, space, name);
    let known = read(kept, &staged.kept, &key)?.is_some();
    if bytes.is_empty() {
        if known {
            staged.kept.insert(key, None);
        }
        return Ok(StoreReply::Done);
    }
    if !known {
        let mut count = 0;
        let prefix = document_key(account, space, "");
        each_record(kept, &staged.kept, &prefix, |_, _| {
            count += 1;
            Ok(())
        })?;
        if count >= DOCUMENTS_MAX {
            return Ok(StoreReply::Full);
        }
    }
    staged.kept.insert(key, Some(record(bytes)));
    Ok(StoreReply::Done)
}

/// The last number given to a waiting message, and how many wait.
fn counters(kept: &Keyspace, staged: &Staged, account: &BareJid) -> Result<(u64, u32), Trouble> {
    let Some(found) = read(kept, &staged.kept, &key(account, OFFLINE_COUNT))? else {
        return Ok((0, 0));
    };
    let counters = content(&found, "a message count")?;
    match (counters.first_chunk::<8>(), counters.last_chunk::<4>()) {
        (Some(last), Some(count)) if counters.len() == 12 => {
            Ok((u64::from_be_bytes(*last), u32::from_be_bytes(*count)))
        }
        _ => Err("a message count is damaged".into()),
    }
}

fn set_counters(staged: &mut Staged, account: &BareJid, last: u64, count: u32) {
    let counters = record(&numbers(last, count));
    staged
        .kept
        .insert(key(account, OFFLINE_COUNT), Some(counters));
}

fn numbers(last: u64, count: u32) -> Vec<u8> {
    let mut numbers = last.to_be_bytes().to_vec();
    numbers.extend_from_slice(&count.to_be_bytes());
    numbers
}

/// Appends a waiting message.
pub(crate) fn put_offline(
    kept: &Keyspace,
    staged: &mut Staged,
    account: &BareJid,
    stanza: &[u8],
    count_max: u32,
) -> Result<StoreReply, Trouble> {
    let (last, count) = counters(kept, staged, account)?;
    if count >= count_max {
        return Ok(StoreReply::Full);
    }
    staged
        .kept
        .insert(offline_key(account, last + 1), Some(record(stanza)));
    set_counters(staged, account, last + 1, count + 1);
    Ok(StoreReply::Done)
}

/// Whether anything waits.
pub(crate) fn has_waiting(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
) -> Result<bool, Trouble> {
    counters(kept, staged, account).map(|(_, count)| count > 0)
}

/// Reads what waits, oldest first.
pub(crate) fn waiting(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
) -> Result<Vec<Message>, Trouble> {
    let prefix = key(account, OFFLINE);
    let mut waiting = Vec::new();
    each_record(kept, &staged.kept, &prefix, |key, found| {
        waiting.push((
            offline_id(key, &prefix)?,
            content(found, "a message")?.into(),
        ));
        Ok(())
    })?;
    waiting.sort_unstable_by_key(|(id, _): &Message| *id);
    Ok(waiting)
}

/// Removes what waits, up to and including a number.
pub(crate) fn remove_offline(
    kept: &Keyspace,
    staged: &mut Staged,
    account: &BareJid,
    up_to: u64,
) -> Result<StoreReply, Trouble> {
    let prefix = key(account, OFFLINE);
    let mut gone = Vec::new();
    each_record(kept, &staged.kept, &prefix, |key, _| {
        if offline_id(key, &prefix)? <= up_to {
            gone.push(key.to_vec());
        }
        Ok(())
    })?;
    if !gone.is_empty() {
        let (last, count) = counters(kept, staged, account)?;
        set_counters(
            staged,
            account,
            last,
            count.saturating_sub(gone.len() as u32),
        );
        staged.kept.extend(gone.into_iter().map(|key| (key, None)));
    }
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
        records.push((document_key(account, space, &name), record(&bytes)));
    }
    if !offline.is_empty() {
        let count = offline.len() as u32;
        records.push((
            key(account, OFFLINE_COUNT),
            record(&numbers(count.into(), count)),
        ));
    }
    for (id, stanza) in (1..).zip(offline) {
        records.push((offline_key(account, id), record(&stanza)));
    }
    Ok(records)
}

/// Adds one record to what its account owns; `name` is its key behind the account's prefix.
pub(crate) fn gather(whole: &mut WholeAccount, name: &[u8], found: &[u8]) -> Result<(), Trouble> {
    match name.split_first() {
        Some((&BLOCKED, [])) => whole.data.blocked = read_block_list(found)?,
        Some((&DOCUMENT, [space, name @ ..])) => {
            let space = [Space::Private, Space::Vcard, Space::Activity]
                .into_iter()
                .find(|known| *known as u8 == *space)
                .ok_or("a document is of an unknown kind")?;
            let name = std::str::from_utf8(name).map_err(|_| "a document's name is not UTF-8")?;
            let bytes = content(found, "a document")?.into();
            whole.documents.push((space, name.into(), bytes));
        }
        // The keys end in big-endian numbers: they come in order.
        Some((&OFFLINE, _)) => whole.offline.push(content(found, "a message")?.into()),
        Some((&OFFLINE_COUNT, [])) => {}
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
