//! Backups: a store in one file, and a store made from one.
//!
//! ```text
//! "VORPALBK"                                          8 bytes
//! version of this format, schema of the records       two u32
//! table, sizes of key and record (u32 each), key, record   ..
//! 0, number of records                                u8, u64
//! XXH3 (64 bits) of everything before it              u64
//! ```
//!
//! Numbers are big-endian; keys and records are those of [`crate::schema`], table by table
//! ([`Table`]), in ascending order of their keys. Invariant: the file appears under its name only
//! when it is whole and on the disk, and nothing of one is used before its checksum was seen to be
//! right.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use stanza::jid::BareJid;
use xmpp::Timestamp;
use xmpp::leave::as_left;
use xmpp::port::{Arrived, SharedStanza, WholeAccount};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::embedded::{DIRECTORY, Engine};
use crate::kept;
use crate::records::{KEY_SIZE_MAX, check_key};
use crate::schema::{self, Entry, SCHEMA};
use crate::sessions;

const MAGIC: &[u8; 8] = b"VORPALBK";
const VERSION: u32 = 1;

/// From this schema on what several sessions were given has a group.
const GROUPS_SCHEMA: u32 = 8;

const HEAD_SIZE: u64 = 16;

/// Bytes of a record: more than any that the server writes.
const RECORD_SIZE_MAX: u32 = 1 << 28;

/// The buffer of a file that is read or written once.
const BUFFER_SIZE: usize = 1 << 18;

/// One of the store's keyspaces; the numbers are in backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Table {
    /// Credentials by account.
    Accounts = 1,
    /// Roster items by account and contact.
    Roster = 2,
    /// What else an account keeps.
    Kept = 3,
    /// Managed sessions, since schema 3.
    Sessions = 4,
    /// What waits for the acknowledgement of sessions, since schema 3.
    Queue = 5,
    /// Archives, since schema 11.
    Archive = 6,
}

impl Table {
    /// All of them, in the order of a backup.
    pub const ALL: [Table; 6] = [
        Table::Accounts,
        Table::Roster,
        Table::Kept,
        Table::Sessions,
        Table::Queue,
        Table::Archive,
    ];

    /// Whether it is of sessions, and not of what accounts own without one.
    fn is_of_sessions(self) -> bool {
        matches!(self, Table::Sessions | Table::Queue)
    }
}

/// Where the records of each table begin.
type Starts = [u64; Table::ALL.len()];

/// A record with where it lies.
pub(crate) type Record = (Table, Vec<u8>, Vec<u8>);

/// A backup in the making; it is removed where it is not finished.
pub(crate) struct Writer {
    out: BufWriter<File>,
    hash: Xxh3,
    count: u64,
    target: PathBuf,
    fresh: Fresh,
}

/// A file under a passing name, removed with the value.
struct Fresh(Option<PathBuf>);

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _best_effort = std::fs::remove_file(path);
        }
    }
}

/// Where a file is to be written that may replace one of this name: where a link leads, and nothing
/// that is no file, for renaming would put a file in the place of a device.
///
/// # Errors
/// One sentence that names what is there.
pub fn place_of(file: &Path) -> Result<PathBuf, Box<str>> {
    let place = match std::fs::canonicalize(file) {
        Ok(place) => place,
        // Nothing is there yet, or a link that leads nowhere.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !file.is_symlink() => {
            return Ok(file.to_owned());
        }
        Err(error) => return Err(cannot("write", file, &error)),
    };
    if !place.is_file() {
        let file = file.display();
        let text = format!("Cannot write {file}: it is no file; give the name of a new one.");
        return Err(text.into());
    }
    Ok(place)
}

impl Writer {
    pub(crate) fn create(target: &Path) -> Result<Writer, Box<str>> {
        let target = place_of(target)?;
        let mut name = target.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = PathBuf::from(name);
        // It holds the keys of every account: for its owner only.
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path);
        let file = made.map_err(|error| cannot("create", &path, &error))?;
        let mut writer = Writer {
            out: BufWriter::with_capacity(BUFFER_SIZE, file),
            hash: Xxh3::new(),
            count: 0,
            target,
            fresh: Fresh(Some(path)),
        };
        let head = [&MAGIC[..], &VERSION.to_be_bytes(), &SCHEMA.to_be_bytes()].concat();
        writer.put(&head)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Box<str>> {
        self.hash.update(bytes);
        self.out
            .write_all(bytes)
            .map_err(|error| cannot("write", &self.target, &error))
    }

    /// Appends a record and gives the number of all so far.
    pub(crate) fn record(
        &mut self,
        table: Table,
        key: &[u8],
        record: &[u8],
    ) -> Result<u64, Box<str>> {
        let mut head = [0; 9];
        head[0] = table as u8;
        head[1..5].copy_from_slice(&size_of_part(key, KEY_SIZE_MAX as u32)?.to_be_bytes());
        head[5..].copy_from_slice(&size_of_part(record, RECORD_SIZE_MAX)?.to_be_bytes());
        self.put(&head)?;
        self.put(key)?;
        self.put(record)?;
        self.count += 1;
        Ok(self.count)
    }

    /// Puts the file in its place and gives the number of records.
    pub(crate) fn finish(mut self) -> Result<u64, Box<str>> {
        self.put(&[0])?;
        self.put(&self.count.to_be_bytes())?;
        let checksum = self.hash.digest();
        let target = std::mem::take(&mut self.target);
        let cannot_write = |error: io::Error| cannot("write", &target, &error);
        self.out
            .write_all(&checksum.to_be_bytes())
            .map_err(cannot_write)?;
        self.out.flush().map_err(cannot_write)?;
        self.out.get_ref().sync_all().map_err(cannot_write)?;
        if let Some(path) = &self.fresh.0 {
            std::fs::rename(path, &target).map_err(cannot_write)?;
        }
        self.fresh.0 = None;
        sync_directory_of(&target).map_err(cannot_write)?;
        Ok(self.count)
    }
}

fn size_of_part(part: &[u8], size_max: u32) -> Result<u32, Box<str>> {
    let size = u32::try_from(part.len())
        .ok()
        .filter(|size| *size <= size_max);
    size.ok_or_else(|| format!("A record of {} bytes does not fit a backup.", part.len()).into())
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Box<str> {
    format!("Cannot {what} {}: {error}.", path.display()).into()
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// What [`Backup::restore`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Records that the store has as the backup had them.
    pub records: u64,
    /// Managed sessions that ended.
    pub sessions: u64,
    /// Messages that wait offline since these did.
    pub messages: u64,
}

/// A backup whose checksum was right when it was opened.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    starts: Starts,
    /// Of its records, though some may be older.
    schema: u32,
}

impl Backup {
    /// Opens a backup and reads all of it once.
    ///
    /// # Errors
    /// A sentence: it cannot be read, is no backup, of a newer version, or damaged.
    pub fn open(path: &Path) -> Result<Backup, Box<str>> {
        let (schema, starts) = scan(path)?;
        Ok(Backup {
            path: path.to_owned(),
            starts,
            schema,
        })
    }

    fn records(&self, from: Table) -> Result<Records, Box<str>> {
        let file = File::open(&self.path).map_err(|error| cannot("read", &self.path, &error))?;
        let mut input = BufReader::with_capacity(BUFFER_SIZE, file);
        let start = self.starts[from as usize - 1];
        let found = input.seek(SeekFrom::Start(start));
        found.map_err(|error| cannot("read", &self.path, &error))?;
        Ok(Records {
            input,
            failure: None,
        })
    }

    /// Calls `each` with every account until it answers `false`.
    ///
    /// # Errors
    /// A record cannot be read, or the file cannot any more.
    pub fn accounts(&self, each: &mut dyn FnMut(WholeAccount) -> bool) -> Result<(), Box<str>> {
        let mut rosters = Ahead::of(Table::Roster, self.records(Table::Roster)?);
        let mut kept = Ahead::of(Table::Kept, self.records(Table::Kept)?);
        let mut queues = Ahead::of(Table::Queue, self.records(Table::Queue)?);
        let mut accounts = self.records(Table::Accounts)?;
        for (table, key, record) in &mut accounts {
            if table != Table::Accounts {
                break;
            }
            let account = schema::account_of_key(&key).map_err(|error| error.0)?;
            let credentials = schema::decode_credentials(&record).map_err(|error| error.0)?;
            let prefix = schema::roster_prefix(&account);
            let mut whole = WholeAccount::new(account, credentials);
            while let Some((key, record)) = rosters.next_below(&prefix)? {
                let item = schema::decode_roster_item(&key, prefix.len(), &record);
                whole.data.roster.push(item.map_err(|error| error.0)?);
            }
            let mut waiting = Vec::new();
            while let Some((key, record)) = kept.next_below(&prefix)? {
                kept::gather(&mut whole, &mut waiting, &key[prefix.len()..], &record)?;
            }
            let unacked = self.unacked(&whole.account, &mut queues)?;
            waiting.extend(unacked.left(whole.account.domain()));
            waiting.sort_by_key(|(arrived, _)| *arrived);
            whole.offline = waiting.into_iter().map(|(_, stanza)| stanza).collect();
            if !each(whole) {
                return Ok(());
            }
        }
        accounts.failure.map_or(Ok(()), Err)
    }

    /// Makes a store of it in the server's data directory, which must have none. The sessions have
    /// ended in it: their clients were told of more than the backup has. One that resumed would
    /// count what it sends anew below its own marks, and it would be taken for sent again.
    ///
    /// # Errors
    /// A sentence: there is a store, or the disk refused; then there is none.
    pub fn restore(&self, data: &Path) -> Result<Restored, Box<str>> {
        let target = data.join(DIRECTORY);
        if std::fs::read_dir(&target).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(format!(
                "There is a store in {} already; restore into an empty data directory.",
                target.display()
            )
            .into());
        }
        let passing = data.join("restoring");
        let remove = || match std::fs::remove_dir_all(&passing) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(cannot("remove", &passing, &error))
            }
            _ => Ok(()),
        };
        remove()?;
        let restored = self.load(&passing).and_then(|restored| {
            let moved = std::fs::rename(passing.join(DIRECTORY), &target);
            let moved = moved.and_then(|()| sync_directory_of(&target));
            moved.map_err(|error| cannot("put the store into", &target, &error))?;
            Ok(restored)
        });
        let removed = remove();
        restored.and_then(|restored| removed.map(|()| restored))
    }

    fn load(&self, data: &Path) -> Result<Restored, Box<str>> {
        let engine = Engine::open(data).map_err(|error| error.to_string())?;
        let mut restored = Restored::default();
        let mut records = self.records(Table::Accounts)?;
        let owned = records
            .by_ref()
            .filter(|(table, ..)| !table.is_of_sessions());
        engine.load_records(&mut owned.inspect(|_| restored.records += 1))?;
        records.failure.map_or(Ok(()), Err)?;
        let mut sessions = self.records(Table::Sessions)?;
        for (_, key, _) in sessions
            .by_ref()
            .take_while(|(table, ..)| *table == Table::Sessions)
        {
            restored.sessions += u64::from(sessions::session_of_key(&key)?.is_some());
        }
        sessions.failure.map_or(Ok(()), Err)?;
        restored.messages = self.load_left(&engine)?;
        engine.sync()?;
        Ok(restored)
    }

    /// Has what the sessions of each account leave wait for it, whatever its quota says, and gives
    /// how many messages these are.
    fn load_left(&self, engine: &Engine) -> Result<u64, Box<str>> {
        let mut count = 0;
        let mut queues = Ahead::of(Table::Queue, self.records(Table::Queue)?);
        let mut accounts = self.records(Table::Accounts)?;
        for (_, key, _) in accounts
            .by_ref()
            .take_while(|(table, ..)| *table == Table::Accounts)
        {
            let account = schema::account_of_key(&key).map_err(|error| error.0)?;
            let left = self.unacked(&account, &mut queues)?.left(account.domain());
            count += engine.load_waiting(&account, left)?;
        }
        accounts.failure.map_or(Ok(count), Err)
    }

    fn unacked(&self, account: &BareJid, queues: &mut Ahead) -> Result<Unacked, Box<str>> {
        let prefix = schema::roster_prefix(account);
        let mut unacked = Unacked::default();
        let has_groups = self.schema >= GROUPS_SCHEMA;
        while let Some((key, record)) = queues.next_below(&prefix)? {
            let name = &key[prefix.len()..];
            match sessions::unacked(name, &record)? {
                sessions::Unacked::Queued(queued) => {
                    // Behind it is the place.
                    let session = name.split_last_chunk::<8>().map_or(name, |(it, _)| it);
                    unacked.add(session, &queued, has_groups);
                }
                sessions::Unacked::Left { group, count } => unacked.leave(group, count),
            }
        }
        Ok(unacked)
    }
}

/// The records of a file from some place on; ends at the last one.
struct Records {
    input: BufReader<File>,
    failure: Option<Box<str>>,
}

impl Iterator for Records {
    type Item = Record;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failure.is_some() {
            return None;
        }
        read_record(&mut self.input, |_| {}).unwrap_or_else(|error| {
            self.failure = Some(format!("The backup cannot be read: {error}.").into());
            None
        })
    }
}

/// Reads one record and shows every byte to `seen`; `None` at the end of the records.
fn read_record(input: &mut impl Read, mut seen: impl FnMut(&[u8])) -> io::Result<Option<Record>> {
    let mut table = [0];
    input.read_exact(&mut table)?;
    seen(&table);
    if table == [0] {
        return Ok(None);
    }
    let known = Table::ALL.into_iter().find(|known| [*known as u8] == table);
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let known = known.ok_or_else(|| damaged("a record is of an unknown table"))?;
    let mut sizes = [[0; 4]; 2];
    let mut parts = [Vec::new(), Vec::new()];
    for size in &mut sizes {
        input.read_exact(size)?;
        seen(size);
    }
    for ((part, size), size_max) in parts
        .iter_mut()
        .zip(sizes)
        .zip([KEY_SIZE_MAX as u32, RECORD_SIZE_MAX])
    {
        let size = u32::from_be_bytes(size);
        if size > size_max {
            return Err(damaged("a record is too large"));
        }
        *part = vec![0; size as usize];
        input.read_exact(part)?;
        seen(part);
    }
    let [key, record] = parts;
    check_key(&key).map_err(|what| damaged(&what))?;
    Ok(Some((known, key, record)))
}

/// What the sessions of one account had not acknowledged.
#[derive(Default)]
struct Unacked {
    stanzas: Vec<(Timestamp, Box<[u8]>)>,
    /// By group, what several sessions were given.
    shared: HashMap<u64, (SharedStanza, usize)>,
    /// The same by time and bytes, where it was written before there were groups.
    copies: HashMap<(Timestamp, u128), Copies>,
}

/// What is the same in the queues of several sessions; these come one after the other.
#[derive(Default)]
struct Copies {
    /// The last of them.
    session: Vec<u8>,
    /// How often it has it: what one of them has twice was sent twice.
    count: usize,
    /// How often any before had it.
    taken: usize,
}

impl Unacked {
    /// Takes a stanza of a session, once for all that have it: a message to the bare JID waits in
    /// the queues of several.
    fn add(&mut self, session: &[u8], queued: &sessions::Queued<'_>, has_groups: bool) {
        let index = self.stanzas.len();
        if let Some(shared) = queued.shared {
            let (shared, at) = self.shared.entry(shared.group).or_insert((shared, index));
            shared.holders += 1;
            if *at != index {
                return;
            }
        } else if !has_groups || queued.arrived != Timestamp::default() {
            // Since there are groups no two came at the same time.
            let same = (queued.arrived, xxh3_128(queued.stanza));
            let copies = self.copies.entry(same).or_default();
            if copies.session != session {
                (copies.session, copies.count) = (session.into(), 0);
            }
            copies.count += 1;
            if copies.count <= copies.taken {
                return;
            }
            copies.taken = copies.count;
        }
        self.stanzas.push((queued.arrived, queued.stanza.into()));
    }

    /// So many sessions ended with what has this group in their queues.
    fn leave(&mut self, group: u64, count: u64) {
        if let Some((shared, _)) = self.shared.get_mut(&group) {
            shared.leave(count);
        }
    }

    /// What waits of them when the sessions end, the oldest first (XEP-0227).
    fn left(self, domain: &str) -> impl Iterator<Item = Arrived> {
        let shared = self.shared.values();
        let taken = shared.filter(|(shared, _)| shared.is_taken());
        let taken: HashSet<usize> = taken.map(|(_, index)| *index).collect();
        let stanzas = self.stanzas.into_iter().enumerate();
        let stanzas = stanzas.filter(|(index, _)| !taken.contains(index));
        let mut stanzas: Vec<_> = stanzas.map(|(_, stanza)| stanza).collect();
        stanzas.sort_by_key(|(arrived, _)| *arrived);
        let stanzas = stanzas.into_iter();
        stanzas.filter_map(move |(arrived, stanza)| {
            let left = as_left(&stanza, arrived, domain)?;
            Some((arrived, left))
        })
    }
}

/// The records of one table, of which the next is known.
struct Ahead {
    table: Table,
    records: Records,
    next: Option<Entry>,
}

impl Ahead {
    fn of(table: Table, records: Records) -> Ahead {
        let mut ahead = Ahead {
            table,
            records,
            next: None,
        };
        ahead.advance();
        ahead
    }

    fn advance(&mut self) {
        let next = self
            .records
            .next()
            .filter(|(table, ..)| *table == self.table);
        self.next = next.map(|(_, key, record)| (key, record));
    }

    /// The next record, if its key begins with `prefix`; what lies before that belongs to no
    /// account and is passed over.
    fn next_below(&mut self, prefix: &[u8]) -> Result<Option<Entry>, Box<str>> {
        while self
            .next
            .as_ref()
            .is_some_and(|(key, _)| !key.starts_with(prefix) && key.as_slice() < prefix)
        {
            self.advance();
        }
        let found = match &self.next {
            Some((key, _)) if key.starts_with(prefix) => self.next.take(),
            _ => None,
        };
        if found.is_some() {
            self.advance();
        }
        self.records.failure.take().map_or(Ok(found), Err)
    }
}

/// Behind the last table.
const END: u8 = Table::ALL.len() as u8 + 1;

/// Reads a whole file: the schema of its records, and where its tables begin.
fn scan(path: &Path) -> Result<(u32, Starts), Box<str>> {
    let no_backup = |what: &str| -> Box<str> {
        format!("{} is no usable backup: {what}.", path.display()).into()
    };
    let file = File::open(path).map_err(|error| cannot("read", path, &error))?;
    let mut input = BufReader::with_capacity(BUFFER_SIZE, file);
    let mut head = [0; HEAD_SIZE as usize];
    input
        .read_exact(&mut head)
        .map_err(|_| no_backup("it is too short"))?;
    let number =
        |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if &head[..8] != MAGIC {
        return Err(no_backup("it does not begin as one"));
    }
    let (version, schema) = (number(8), number(12));
    if version != VERSION || schema == 0 || schema > SCHEMA {
        return Err(no_backup(&format!(
            "it has version {version} and schema {schema}, and this Vorpal knows {VERSION} and up \
             to {SCHEMA}"
        )));
    }
    let mut hash = Xxh3::new();
    hash.update(&head);
    let (mut starts, mut at, mut count, mut last) =
        ([HEAD_SIZE; Table::ALL.len()], HEAD_SIZE, 0_u64, 0);
    loop {
        let start = at;
        let record = read_record(&mut input, |bytes| {
            hash.update(bytes);
            at += bytes.len() as u64;
        });
        let table = match record.map_err(|error| no_backup(&error.to_string()))? {
            Some((table, ..)) => table as u8,
            None => END,
        };
        if table < last {
            return Err(no_backup("its tables are out of order"));
        }
        // Tables that are empty begin where the next one does.
        for begun in last + 1..=table.min(END - 1) {
            starts[usize::from(begun) - 1] = start;
        }
        last = table;
        if table == END {
            break;
        }
        count += 1;
    }
    let mut end = [0; 16];
    input
        .read_exact(&mut end)
        .map_err(|_| no_backup("its end is missing"))?;
    hash.update(&end[..8]);
    let expected = [count.to_be_bytes(), hash.digest().to_be_bytes()].concat();
    if end[..] != expected[..] || input.read(&mut [0]).map_or(true, |more| more != 0) {
        return Err(no_backup("its checksum is wrong"));
    }
    Ok((schema, starts))
}

#[cfg(test)]
mod tests;
