//! Archives of messages (decision 0013): one row for each archive that a message is in, one more by
//! whom it is with, and one body for both archives.
//!
//! Rows lie below their account's prefix, so that a page is a range; the body lies below the
//! sender's virtual shard, a zero byte, with which no JID begins, and the id. Who has a body is
//! known from its rows: it goes with the last of them. Up to where an archive was purged stands by
//! itself, for that is looked for without knowing whose it is. Invariant: nothing is answered out
//! of what was purged, whoever has the account's name by then; and what is in an archive has a
//! body.

use std::ops::Bound::Included;

use fjall::{Keyspace, Readable, Slice, Snapshot};
use stanza::jid::{BareJid, Jid, bare_of};
use xmpp::port::{
    ARCHIVE_PAGE_SIZE_MAX, ARCHIVE_SCAN_MAX, ArchiveEntry, ArchiveId, ArchivePage, ArchiveQuery,
    StoreOp, StoreReply,
};

mod bodies;
mod retention;

use crate::backup::Table;
use crate::embedded::{Engine, Key, Staged, Trouble, Writes, damaged, engine};
use crate::kept;
use crate::records::exists;
use crate::schema;

/// A message by its id.
const ENTRY: u8 = 1;

/// The same by whom it is with.
const PEER: u8 = 2;

/// A tombstone that an archive has in the place of a body (XEP-0424), by id.
const TOMBSTONE: u8 = 3;

/// A bit of a row: the account sent it.
const SENT: u8 = 1;

/// The same: the archive has a tombstone of it.
const RETRACTED: u8 = 2;

/// Before an account whose archive was purged: no virtual shard has this number.
const PURGED: [u8; 2] = [0xff, 0xff];

const ID_SIZE: usize = 16;

/// Messages that one commit removes of what was purged, where nothing else waits for it.
pub(crate) const PART: usize = if cfg!(test) { 4 } else { 256 };

/// The same where something does: their bodies are read for that.
pub(crate) const PART_BESIDE_WRITES: usize = if cfg!(test) { 2 } else { 16 };

/// Before the id up to which an archive was purged, where nothing of that is on the disk any more.
const IS_REMOVED: u8 = 1;

fn entry_key(account: &BareJid, id: ArchiveId) -> Key {
    let mut key = schema::session_prefix(account);
    key.push(ENTRY);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

fn peer_key(account: &BareJid, peer: &str, id: ArchiveId) -> Key {
    let mut key = schema::session_prefix(account);
    key.push(PEER);
    key.extend_from_slice(peer.as_bytes());
    key.push(0);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

fn tombstone_key(account: &BareJid, id: ArchiveId) -> Key {
    let mut key = schema::session_prefix(account);
    key.push(TOMBSTONE);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

fn purged_key(account: &BareJid) -> Key {
    let mut key = Key::from_slice(&PURGED);
    key.extend_from_slice(&schema::account_key(account));
    key
}

fn purged_record(up_to: ArchiveId, is_removed: bool) -> Vec<u8> {
    let mut content = Vec::with_capacity(ID_SIZE + 1);
    content.extend(is_removed.then_some(IS_REMOVED));
    content.extend_from_slice(&up_to.0.to_be_bytes());
    kept::record(&content)
}

/// The id at the end of a row's key.
fn id_of(key: &[u8]) -> Result<ArchiveId, Trouble> {
    let id = key.last_chunk::<ID_SIZE>();
    let id = id.ok_or("a row of an archive has no id")?;
    Ok(ArchiveId(u128::from_be_bytes(*id)))
}

/// What a row says.
#[derive(Clone, Copy)]
struct Row<'a> {
    is_sent: bool,
    is_retracted: bool,
    /// Whom the message is to or from; its resource, where the key has the bare JID.
    address: &'a str,
}

impl<'a> Row<'a> {
    fn record(self) -> Vec<u8> {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.is_sent, SENT) | flag(self.is_retracted, RETRACTED);
        let mut record = Vec::with_capacity(self.address.len() + 2);
        record.extend_from_slice(&[kept::VERSION, flags]);
        record.extend_from_slice(self.address.as_bytes());
        record
    }

    fn read(record: &'a [u8]) -> Result<Row<'a>, Trouble> {
        let Some((&[kept::VERSION, flags], address)) = record.split_first_chunk() else {
            return Err("a row of an archive has an unknown record version".into());
        };
        let address = std::str::from_utf8(address);
        Ok(Row {
            is_sent: flags & SENT != 0,
            is_retracted: flags & RETRACTED != 0,
            address: address.map_err(|_| "a row of an archive names no address")?,
        })
    }
}

/// The rows of a message, by its id and by whom it is with.
fn rows(account: &BareJid, id: ArchiveId, row: Row<'_>) -> [(Key, Option<Vec<u8>>); 2] {
    let address = Jid::from_prepared(row.address);
    let resource = address.resource().unwrap_or_default();
    let by_peer = Row {
        address: resource,
        ..row
    };
    [
        (entry_key(account, id), Some(row.record())),
        (
            peer_key(account, address.bare(), id),
            Some(by_peer.record()),
        ),
    ]
}

/// Puts a message into an archive; where the other one has it already by this id, its body is
/// written over itself.
pub(crate) fn put(staged: &mut Staged, entry: &ArchiveEntry) {
    let ArchiveEntry {
        account,
        id,
        is_sent,
        peer,
        ..
    } = entry;
    let row = Row {
        is_sent: *is_sent,
        is_retracted: false,
        address: peer,
    };
    staged.archive.extend(rows(account, *id, row));
    let sender = sender_of(account, *is_sent, peer);
    bodies::put(staged, sender, entry);
}

/// The table as a call sees it: what it staged itself lies over what is committed.
pub(crate) struct View<'a> {
    snapshot: Snapshot,
    keyspace: &'a Keyspace,
    staged: &'a Writes,
}

/// What is called with a record; it says whether the next one is wanted, too.
type Each<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, Trouble> + 'a;

impl View<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>, Trouble> {
        match self.staged.get(key) {
            Some(value) => Ok(value.as_deref().map(Slice::from)),
            None => self.snapshot.get(self.keyspace, key).map_err(engine),
        }
    }

    fn has(&self, key: &[u8]) -> Result<bool, Trouble> {
        match self.staged.get(key) {
            Some(value) => Ok(value.is_some()),
            None => self
                .snapshot
                .contains_key(self.keyspace, key)
                .map_err(engine),
        }
    }

    /// Calls `each` with the records between two keys, in their order or in the opposite one.
    fn each(
        &self,
        (first, last): (&[u8], &[u8]),
        is_backward: bool,
        each: &mut Each<'_>,
    ) -> Result<(), Trouble> {
        let mut stored = self.snapshot.range(self.keyspace, first..=last);
        let range = (Included(first), Included(last));
        let mut staged = self.staged.range::<[u8], _>(range);
        let mut next_stored = || {
            let guard = if is_backward {
                stored.next_back()
            } else {
                stored.next()
            };
            guard
                .map(fjall::Guard::into_inner)
                .transpose()
                .map_err(engine)
        };
        let mut next_staged = || match is_backward {
            true => staged.next_back(),
            false => staged.next(),
        };
        let (mut old, mut new) = (next_stored()?, next_staged());
        loop {
            let (is_new, is_both) = match (&old, new) {
                (None, None) => return Ok(()),
                (Some(_), None) => (false, false),
                (None, Some(_)) => (true, false),
                (Some((old, _)), Some((new, _))) if old[..] == new[..] => (true, true),
                (Some((old, _)), Some((new, _))) => ((new[..] < old[..]) != is_backward, false),
            };
            let goes_on = match (is_new, new, &old) {
                (true, Some((key, Some(value))), _) => each(key, value)?,
                (false, _, Some((key, value))) => each(key, value)?,
                _ => true,
            };
            if !goes_on {
                return Ok(());
            }
            if !is_new || is_both {
                old = next_stored()?;
            }
            if is_new {
                new = next_staged();
            }
        }
    }

    /// Up to where an archive was purged.
    fn purged(&self, account: &BareJid) -> Result<Option<ArchiveId>, Trouble> {
        let Some(record) = self.get(&purged_key(account))? else {
            return Ok(None);
        };
        let id = kept::content(&record, "the end of a purge")?;
        id_of(id).map(Some)
    }

    /// The first id that is not purged.
    fn begin(&self, account: &BareJid) -> Result<ArchiveId, Trouble> {
        let purged = self.purged(account)?;
        Ok(purged.map_or(ArchiveId(0), |purged| ArchiveId(purged.0.saturating_add(1))))
    }

    /// The message at one end of what an archive has from an id on.
    fn end(
        &self,
        account: &BareJid,
        from: ArchiveId,
        is_backward: bool,
    ) -> Result<Option<ArchiveId>, Trouble> {
        self.end_between(account, (from, ArchiveId::MAX), is_backward)
    }

    /// The same of what it has between two ids.
    fn end_between(
        &self,
        account: &BareJid,
        (first, last): (ArchiveId, ArchiveId),
        is_backward: bool,
    ) -> Result<Option<ArchiveId>, Trouble> {
        let mut found = None;
        if first > last {
            return Ok(None);
        }
        let (first, last) = (entry_key(account, first), entry_key(account, last));
        self.each((&first, &last), is_backward, &mut |key, _| {
            found = Some(id_of(key)?);
            Ok(false)
        })?;
        Ok(found)
    }

    /// See [`StoreOp::ArchiveEnds`].
    fn ends(&self, account: &BareJid) -> Result<StoreReply, Trouble> {
        let from = self.begin(account)?;
        let first = self.end(account, from, false)?;
        let last = self.end(account, from, true)?;
        Ok(StoreReply::ArchiveEnds(first.zip(last)))
    }

    /// The newest id that an archive has or had.
    pub(crate) fn newest(&self, account: &BareJid) -> Result<Option<ArchiveId>, Trouble> {
        let newest = self.end(account, ArchiveId(0), true)?;
        Ok(newest.max(self.purged(account)?))
    }

    /// See [`StoreOp::ArchivePage`].
    fn page(&self, account: &BareJid, query: &ArchiveQuery) -> Result<StoreReply, Trouble> {
        let begin = self.begin(account)?;
        let ids = query.ids.as_deref().unwrap_or_default();
        for id in query.known.iter().chain(ids) {
            if *id < begin || !self.has(&entry_key(account, *id))? {
                return Ok(StoreReply::Missing);
            }
        }
        let mut finding = Finding {
            view: self,
            account,
            query,
            page: ArchivePage {
                is_complete: true,
                ..ArchivePage::default()
            },
            counted: 0,
            looked: 0,
            size: 0,
        };
        let first = query.first.max(begin);
        let with = query.with.as_deref().map(Jid::from_prepared);
        if query.ids.is_some() {
            finding.look_up(ids, first)?;
        } else if first <= query.last {
            let keys = match &with {
                None => [first, query.last].map(|id| entry_key(account, id)),
                Some(with) => [first, query.last].map(|id| peer_key(account, with.bare(), id)),
            };
            let keys = (&*keys[0], &*keys[1]);
            let mut each = |key: &[u8], record: &[u8]| {
                let row = Row::read(record)?;
                let id = id_of(key)?;
                let Some(with) = &with else {
                    return finding.take(id, row, row.address, true);
                };
                let wanted = with
                    .resource()
                    .is_none_or(|resource| resource == row.address);
                finding.take(id, row, with.bare(), wanted)
            };
            self.each(keys, query.is_backward, &mut each)?;
        }
        Ok(finding.finish())
    }
}

fn sender_of<'a>(account: &'a BareJid, is_sent: bool, peer: &'a str) -> &'a str {
    match is_sent {
        true => account.as_str(),
        false => bare_of(peer),
    }
}

/// A page in the making.
struct Finding<'a> {
    view: &'a View<'a>,
    account: &'a BareJid,
    query: &'a ArchiveQuery,
    page: ArchivePage,
    counted: usize,
    looked: usize,
    size: usize,
}

impl Finding<'_> {
    /// Takes the next message if it is wanted and has room; whether to go on.
    fn take(
        &mut self,
        id: ArchiveId,
        row: Row<'_>,
        peer: &str,
        is_wanted: bool,
    ) -> Result<bool, Trouble> {
        self.looked += 1;
        if self.looked > ARCHIVE_SCAN_MAX {
            self.page.is_complete = false;
            return Ok(false);
        }
        if !is_wanted {
            return Ok(true);
        }
        if self.query.count == 0 {
            self.counted += 1;
            return Ok(true);
        }
        let is_full = self.page.messages.len() >= self.query.count;
        if is_full || self.size >= ARCHIVE_PAGE_SIZE_MAX {
            self.page.is_complete = false;
            return Ok(false);
        }
        let sender = sender_of(self.account, row.is_sent, peer);
        let body = match row.is_retracted {
            true => self.view.tombstone(self.account, id)?,
            false => self.view.body(sender, id)?,
        };
        self.size += body.len();
        self.page.messages.push((id, body));
        Ok(true)
    }

    /// Takes those of some messages that are wanted.
    fn look_up(&mut self, ids: &[ArchiveId], first: ArchiveId) -> Result<(), Trouble> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        if self.query.is_backward {
            ids.reverse();
        }
        for id in ids {
            let Some(record) = self.view.get(&entry_key(self.account, id))? else {
                continue;
            };
            let row = Row::read(&record)?;
            let peer = Jid::from_prepared(row.address);
            let with = self.query.with.as_deref();
            let is_with = with.is_none_or(|with| with == row.address || with == peer.bare());
            let is_between = (first..=self.query.last).contains(&id);
            if !self.take(id, row, row.address, is_with && is_between)? {
                break;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> StoreReply {
        if self.query.is_backward {
            self.page.messages.reverse();
        }
        let is_all = self.looked <= ARCHIVE_SCAN_MAX;
        if self.query.count == 0 {
            self.page.count = is_all.then_some(self.counted);
            self.page.is_complete = is_all && self.counted == 0;
        } else if !is_all && self.page.messages.is_empty() {
            return StoreReply::Full;
        }
        StoreReply::ArchivePage(Box::new(self.page))
    }
}

/// Answers an operation that reads an archive.
fn answer(view: &View<'_>, op: &StoreOp) -> Result<StoreReply, Trouble> {
    match op {
        StoreOp::ArchivePage { account, query } => view.page(account, query),
        StoreOp::ArchiveEnds { account } => view.ends(account),
        StoreOp::SweepArchives { place, retention } => view.sweep(place, *retention),
        _ => Err("not a read of an archive".into()),
    }
}

impl Engine {
    pub(crate) fn archive<'a>(&'a self, staged: &'a Staged) -> View<'a> {
        View {
            snapshot: self.database.snapshot(),
            keyspace: self.keyspace(Table::Archive),
            staged: &staged.archive,
        }
    }

    /// The operations on archives.
    pub(crate) fn apply_to_archive(
        &self,
        staged: &mut Staged,
        op: StoreOp,
    ) -> Result<StoreReply, Trouble> {
        match op {
            StoreOp::Archive { entry, and } => {
                let reply = self.apply(staged, *and)?;
                if reply == StoreReply::Done {
                    // What was applied stays, so nothing fails from here on.
                    self.retract(staged, &entry);
                    put(staged, &entry);
                }
                Ok(reply)
            }
            StoreOp::PurgeArchive { account, up_to } => {
                self.purge(staged, &account, up_to)?;
                Ok(StoreReply::Done)
            }
            read => answer(&self.archive(staged), &read),
        }
    }

    /// See [`xmpp::port::Store::reading`]. It keeps the database open until it is used.
    pub(crate) fn reading(&self, op: &StoreOp) -> xmpp::port::Reading {
        if let StoreOp::Accounts { names_max } = op {
            return self.counting(*names_max);
        }
        let (snapshot, keyspace) = (self.database.snapshot(), self.keyspace(Table::Archive));
        let (keyspace, op, lent) = (keyspace.clone(), op.clone(), self.lend());
        Box::new(move || {
            let view = View {
                snapshot,
                keyspace: &keyspace,
                staged: &Writes::new(),
            };
            let reply = answer(&view, &op).unwrap_or_else(StoreReply::Failed);
            drop(lent);
            reply
        })
    }

    /// Nothing of an archive up to an id is there any more; from the disk it goes later.
    pub(crate) fn purge(
        &self,
        staged: &mut Staged,
        account: &BareJid,
        up_to: ArchiveId,
    ) -> Result<(), Trouble> {
        let view = self.archive(staged);
        let (purged, newest) = (view.purged(account)?, view.newest(account)?);
        let Some(newest) = newest else {
            return Ok(());
        };
        // What is purged already is so once more: the record goes with a deleted account.
        let up_to = newest.min(up_to).max(purged.unwrap_or_default());
        let record = purged_record(up_to, false);
        staged.archive.insert(purged_key(account), Some(record));
        staged.remains.add_archive(account);
        Ok(())
    }

    /// The accounts of which something was purged that may still be on the disk. Those that are
    /// empty since, of which there may be many, say so.
    pub(crate) fn purged_archives(&self) -> Result<Vec<BareJid>, Trouble> {
        let mut accounts = Vec::new();
        for entry in self.keyspace(Table::Archive).prefix(PURGED) {
            let (key, record) = entry.into_inner().map_err(engine)?;
            let content = kept::content(&record, "the end of a purge");
            if content.is_ok_and(|content| content.len() > ID_SIZE) {
                continue;
            }
            accounts.push(schema::account_of_key(&key[PURGED.len()..]).map_err(damaged)?);
        }
        Ok(accounts)
    }

    /// Removes so many of the messages that were purged of an archive, from an id on; where the
    /// next ones begin, unless those were the last.
    pub(crate) fn remove_purged(
        &self,
        staged: &mut Staged,
        account: &BareJid,
        from: ArchiveId,
        part: usize,
    ) -> Result<Option<ArchiveId>, Trouble> {
        let view = self.archive(staged);
        let mut gone: Vec<Key> = Vec::new();
        let (mut count, mut next) = (0, from);
        let purged = view.purged(account)?;
        if let Some(purged) = purged.filter(|purged| *purged >= from) {
            let (first, last) = (entry_key(account, from), entry_key(account, purged));
            view.each((&first, &last), false, &mut |key, record| {
                let (id, row) = (id_of(key)?, Row::read(record)?);
                gone.push(Key::from_slice(key));
                gone.push(peer_key(account, bare_of(row.address), id));
                let sender = sender_of(account, row.is_sent, row.address);
                let other = view.other_row(account, row.address, id)?;
                // What finds it goes with the last row, whether that has a body or a tombstone.
                if row.is_retracted {
                    let tombstone = view.tombstone_keys(account, sender, id, other.is_none())?;
                    gone.extend(tombstone);
                }
                if other.is_none_or(|other| other.is_retracted) {
                    gone.extend(view.body_keys(sender, id, other.is_none())?);
                }
                (count, next) = (count + 1, id);
                Ok(count < part)
            })?;
        }
        let is_last = count < part;
        // What comes next has a later id than what was there, as long as that is known.
        let known = self.keyspace(Table::Accounts);
        let is_there = exists(known, &staged.accounts, &schema::account_key(account))?;
        let is_over = is_last && (!is_there || view.end(account, ArchiveId(0), true)? > purged);
        let gone = gone.into_iter().map(|key| (key, None));
        staged.archive.extend(gone);
        if is_last {
            let left = purged.filter(|_| !is_over);
            let record = left.map(|purged| purged_record(purged, true));
            staged.archive.insert(purged_key(account), record);
        }
        Ok((!is_last).then_some(next))
    }
}

#[cfg(test)]
mod tests;
