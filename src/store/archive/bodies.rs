//! The bodies of archived messages, and what finds them by the ids that their senders gave them,
//! so that these can retract them (XEP-0424).
//!
//! What finds a body lies beside it, below the sender's virtual shard, and goes with it or with the
//! last tombstone; the record of either names it. Those of schema 11 have none, and are found by
//! nobody.

use super::{Row, View, entry_key, id_of, rows, sender_of, tombstone_key};
use crate::embedded::{Engine, Key, Staged, Trouble, Writes};
use crate::kept;
use stanza::jid::{BareJid, bare_of, virtual_shard};
use xmpp::port::{ArchiveEntry, ArchiveId, Retraction};
use xmpp::xep::retraction::{Effect, effect_on};

/// Behind the virtual shard, and no JID begins with it: a body.
const BODY: u8 = 0;

/// The same: what finds one.
const KNOWN: u8 = 1;

/// The version byte of a body that says what finds it, from schema 12 on.
const KNOWN_VERSION: u8 = 2;

/// Messages of one sender to one receiver with the same id that are looked at, the newest first.
pub(super) const CANDIDATES_MAX: usize = 16;

fn key_below(sender: &str, kind: u8) -> Key {
    let mut key = Key::from_slice(&virtual_shard(sender).to_be_bytes());
    key.push(kind);
    key
}

fn body_key(sender: &str, id: ArchiveId) -> Key {
    let mut key = key_below(sender, BODY);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

fn known_key(sender: &str, known_as: u64, id: ArchiveId) -> Key {
    let mut key = key_below(sender, KNOWN);
    // Others of its virtual shard may make ids with the same hash.
    key.extend_from_slice(sender.as_bytes());
    key.push(0);
    key.extend_from_slice(&known_as.to_be_bytes());
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

fn record(known_as: Option<u64>, message: &[u8]) -> Vec<u8> {
    let Some(known_as) = known_as else {
        return kept::record(message);
    };
    let mut record = Vec::with_capacity(message.len() + 1 + size_of::<u64>());
    record.push(KNOWN_VERSION);
    record.extend_from_slice(&known_as.to_be_bytes());
    record.extend_from_slice(message);
    record
}

fn read(record: &[u8]) -> Result<(Option<u64>, &[u8]), Trouble> {
    let Some(rest) = record.strip_prefix(&[KNOWN_VERSION]) else {
        return Ok((None, kept::content(record, "a body")?));
    };
    let (known_as, message) = rest.split_first_chunk().ok_or("a body is damaged")?;
    Ok((Some(u64::from_be_bytes(*known_as)), message))
}

/// Puts a message's body there, and what finds it; where it is there already, both are written over
/// themselves.
pub(super) fn put(staged: &mut Staged, sender: &str, entry: &ArchiveEntry) {
    let body = record(entry.known_as, &entry.message);
    staged
        .archive
        .insert(body_key(sender, entry.id), Some(body));
    if let Some(known_as) = entry.known_as {
        let found_by = known_key(sender, known_as, entry.id);
        staged.archive.insert(found_by, Some(kept::record(&[])));
    }
}

/// What the other archive has of a message.
#[derive(Clone, Copy)]
pub(super) struct OtherRow {
    /// A tombstone rather than need of the body.
    pub is_retracted: bool,
}

impl View<'_> {
    pub(super) fn body(&self, sender: &str, id: ArchiveId) -> Result<Box<[u8]>, Trouble> {
        let body = self.get(&body_key(sender, id))?;
        let body = body.ok_or("a message of an archive has no body")?;
        Ok(read(&body)?.1.into())
    }

    /// What an archive has of a message that was retracted there.
    pub(super) fn tombstone(&self, account: &BareJid, id: ArchiveId) -> Result<Box<[u8]>, Trouble> {
        let tombstone = self.get(&tombstone_key(account, id))?;
        let tombstone = tombstone.ok_or("a message of an archive has no tombstone")?;
        Ok(read(&tombstone)?.1.into())
    }

    /// What goes with the row of a message that was retracted, and what finds it, if the row is the
    /// last.
    pub(super) fn tombstone_keys(
        &self,
        account: &BareJid,
        sender: &str,
        id: ArchiveId,
        is_last: bool,
    ) -> Result<Vec<Key>, Trouble> {
        let key = tombstone_key(account, id);
        let known_as = match self.get(&key)? {
            Some(tombstone) if is_last => read(&tombstone)?.0,
            _ => None,
        };
        let found_by = known_as.map(|known_as| known_key(sender, known_as, id));
        Ok([key].into_iter().chain(found_by).collect())
    }

    /// What the archive of whoever a message is with has of it.
    pub(super) fn other_row(
        &self,
        account: &BareJid,
        peer: &str,
        id: ArchiveId,
    ) -> Result<Option<OtherRow>, Trouble> {
        let other = BareJid::from_prepared(bare_of(peer));
        if other == *account {
            return Ok(None);
        }
        let record = self.get(&entry_key(&other, id))?;
        let row = record.as_deref().map(Row::read).transpose()?;
        Ok(row.map(|Row { is_retracted, .. }| OtherRow { is_retracted }))
    }

    /// What goes with the last row of a message that has need of its body, and what finds it, if
    /// the row is the last of all.
    pub(super) fn body_keys(
        &self,
        sender: &str,
        id: ArchiveId,
        is_last: bool,
    ) -> Result<Vec<Key>, Trouble> {
        let key = body_key(sender, id);
        let body = if is_last { self.get(&key)? } else { None };
        let known_as = match body {
            Some(body) => read(&body)?.0,
            None => None,
        };
        let found_by = known_as.map(|known_as| known_key(sender, known_as, id));
        Ok([key].into_iter().chain(found_by).collect())
    }

    /// The newest message of an archive that a retraction is about, and what is written for that;
    /// nothing where it is gone already.
    fn retracted(&self, entry: &ArchiveEntry, retraction: &Retraction) -> Result<Writes, Trouble> {
        let (account, mut writes) = (&entry.account, Writes::new());
        let sender = sender_of(account, entry.is_sent, &entry.peer);
        let begin = self.begin(account)?;
        let before = ArchiveId(entry.id.0.saturating_sub(1));
        if begin > before {
            return Ok(writes);
        }
        let first = known_key(sender, retraction.known_as, begin);
        let last = known_key(sender, retraction.known_as, before);
        let mut looked = 0;
        self.each((&first, &last), true, &mut |key, _| {
            debug_assert_eq!(key.len(), first.len());
            looked += 1;
            let (id, goes_on) = (id_of(key)?, looked < CANDIDATES_MAX);
            // The other account may have it by an id of its own.
            let Some(found) = self.get(&entry_key(account, id))? else {
                return Ok(goes_on);
            };
            let row = Row::read(&found)?;
            if !entry.has_sender_of(row.is_sent, row.address) {
                return Ok(goes_on);
            }
            if row.is_retracted {
                return Ok(false);
            }
            let body = self.body(sender, id)?;
            let tombstone = match effect_on(retraction, &body, entry.id.time()) {
                Effect::None => return Ok(goes_on),
                Effect::Settled => return Ok(false),
                Effect::Tombstone(tombstone) => record(Some(retraction.known_as), &tombstone),
            };
            writes.insert(tombstone_key(account, id), Some(tombstone));
            let row = Row {
                is_retracted: true,
                ..row
            };
            writes.extend(rows(account, id, row));
            let other = self.other_row(account, row.address, id)?;
            if other.is_none_or(|other| other.is_retracted) {
                // What finds it stays: whoever retracts it once more means no other one.
                writes.insert(body_key(sender, id), None);
            }
            Ok(false)
        })?;
        Ok(writes)
    }
}

impl Engine {
    /// Leaves a tombstone of the message that another one retracts, in the archive which that goes
    /// to; the body goes with the last archive that has need of it. What cannot be read stays as it
    /// is.
    pub(super) fn retract(&self, staged: &mut Staged, entry: &ArchiveEntry) {
        let Some(retraction) = &entry.retracts else {
            return;
        };
        let found = self.archive(staged).retracted(entry, retraction);
        match found {
            Ok(writes) => staged.archive.extend(writes),
            Err(error) => {
                let account = &entry.account;
                tracing::error!(%error, %account, "a retraction left no tombstone");
            }
        }
    }
}
