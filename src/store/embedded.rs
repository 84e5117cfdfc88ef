//! The default store: fjall, an embedded log-structured engine (decided in the design's storage
//! page: the fastest library at 64 or more writes per commit, atomic across keyspaces).
//!
//! Invariant: one [`Store::perform`] call is one batch and one `fdatasync`, and no write of it is
//! answered before that. What a call has staged but not committed only its own later reads see.

use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use stanza::jid::BareJid;
use xmpp::port::{AccountData, Credentials, RosterItem, Store, StoreOp, StoreReply};

use crate::schema::{self, SCHEMA};

/// Where the database lies in the server's data directory.
pub const DIRECTORY: &str = "store";

/// Journals are kept below this by flushing what they still protect, so that reopening after a kill
/// replays at most so much. It is the least that the engine allows.
const JOURNAL_SIZE_MAX: u64 = 64 * 1024 * 1024;

/// Writes that a keyspace keeps in memory before it sorts them into a table.
const MEMTABLE_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// Blocks kept for reading; the engine counts it for all keyspaces together.
const CACHE_SIZE_MAX: u64 = 64 * 1024 * 1024;

/// Threads that flush and compact.
const WORKERS: usize = 2;

/// Accounts that one pass of a listing holds; larger stores are listed in several passes.
const LISTING_PAGE: usize = 1 << 20;

/// Records of one bulk batch.
const BULK_RECORDS_MAX: usize = 8_192;

const SCHEMA_KEY: &[u8] = b"schema";

/// Where [`Lacking`] stands; absent while every account has every key.
const LACKING_KEY: &[u8] = b"lacking";

/// An open database. It is locked against every other process until it is dropped.
pub struct Embedded {
    database: Database,
    about: Keyspace,
    accounts: Keyspace,
    roster: Keyspace,
    lacking: Lacking,
}

/// Hashes for which at least one account has no key: their SCRAM mechanisms cannot be offered to
/// all. Once said it stays, also when those accounts go or get passwords.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// SHA-1.
    pub sha1: bool,
    /// SHA-256.
    pub sha256: bool,
    /// SHA-512.
    pub sha512: bool,
}

impl Lacking {
    fn of(credentials: &Credentials) -> Lacking {
        Lacking {
            sha1: credentials.sha1.is_none(),
            sha256: credentials.sha256.is_none(),
            sha512: credentials.sha512.is_none(),
        }
    }

    fn or(self, other: Lacking) -> Lacking {
        Lacking {
            sha1: self.sha1 || other.sha1,
            sha256: self.sha256 || other.sha256,
            sha512: self.sha512 || other.sha512,
        }
    }

    fn to_record(self) -> [u8; 1] {
        [u8::from(self.sha1) | u8::from(self.sha256) << 1 | u8::from(self.sha512) << 2]
    }

    fn from_record(record: &[u8]) -> Lacking {
        let bits = record.first().copied().unwrap_or_default();
        Lacking {
            sha1: bits & 1 != 0,
            sha256: bits & 2 != 0,
            sha512: bits & 4 != 0,
        }
    }
}

/// Why a store cannot be opened, in one sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another process has it open.
    Locked(Box<str>),
    /// A newer Vorpal wrote it.
    Newer(Box<str>),
    /// It is damaged, foreign, or the disk refused.
    Engine(Box<str>),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Locked(text) | OpenError::Newer(text) | OpenError::Engine(text) => {
                f.write_str(text)
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// What [`Embedded::bulk_load`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkLoaded {
    /// Accounts that are new.
    pub created: u64,
    /// Accounts that existed already; nothing of theirs was changed.
    pub existed: u64,
}

/// Staged writes of one keyspace: a value, or `None` for a removal.
type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What one `perform` call will commit.
#[derive(Default)]
struct Staged {
    accounts: Writes,
    roster: Writes,
    lacking: Lacking,
}

impl Staged {
    fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.roster.is_empty()
    }
}

/// Trouble in the words of the log.
type Trouble = Box<str>;

fn engine(error: fjall::Error) -> Trouble {
    match error {
        fjall::Error::Poisoned => {
            "an earlier write failed, so the store takes no more until the server restarts".into()
        }
        other => format!("the storage engine failed: {other:?}").into(),
    }
}

fn damaged(error: schema::Unreadable) -> Trouble {
    error.0
}

impl Embedded {
    /// Opens the store in the server's data directory, creating both where they are missing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(data: &Path) -> Result<Embedded, OpenError> {
        let path = data.join(DIRECTORY);
        let refused = |what: String| {
            OpenError::Engine(
                format!("Cannot open the store in {}: {what}.", path.display()).into(),
            )
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| refused(error.to_string()))?;
        let opened = Database::builder(&path)
            .cache_size(CACHE_SIZE_MAX)
            .max_journaling_size(JOURNAL_SIZE_MAX)
            .worker_threads(WORKERS)
            .open();
        let database = match opened {
            Ok(database) => database,
            Err(fjall::Error::Locked) => {
                return Err(OpenError::Locked(
                    format!(
                        "The store in {} is in use by another process; stop that process first.",
                        path.display()
                    )
                    .into(),
                ));
            }
            Err(error) => return Err(refused(format!("{error:?}"))),
        };
        let about = check_schema(&database, &path)?;
        let lacking = about
            .get(LACKING_KEY)
            .map_err(|error| refused(format!("{error:?}")))?
            .map_or_else(Lacking::default, |record| Lacking::from_record(&record));
        let keyspace = |name: &str| {
            database
                .keyspace(name, || {
                    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_SIZE_MAX)
                })
                .map_err(|error| refused(format!("{error:?}")))
        };
        let (accounts, roster) = (keyspace("accounts")?, keyspace("roster")?);
        tracing::debug!(path = %path.display(), schema = SCHEMA, "store open");
        Ok(Embedded {
            database,
            about,
            accounts,
            roster,
            lacking,
        })
    }

    /// Creates many accounts without a commit for each, then makes all of them durable at once.
    /// An account that exists already is left as it is, its roster too, and given to `existed`.
    ///
    /// # Errors
    /// What the engine says, in words; the accounts before the failing one may have been created.
    pub fn bulk_load(
        &mut self,
        accounts: impl Iterator<Item = (BareJid, Credentials, Vec<RosterItem>)>,
        mut existed: impl FnMut(&BareJid),
    ) -> Result<BulkLoaded, Box<str>> {
        let mut loaded = BulkLoaded::default();
        let mut batch = self.database.batch().durability(None);
        let mut batched = HashSet::new();
        for (account, credentials, roster) in accounts {
            let key = schema::account_key(&account);
            if batched.contains(&key) || self.accounts.contains_key(&key).map_err(engine)? {
                loaded.existed += 1;
                existed(&account);
                continue;
            }
            for item in roster {
                let item_key = schema::roster_key(&account, &item.contact);
                let record = schema::encode_roster_item(item).map_err(damaged)?;
                batch.insert(&self.roster, item_key, record);
            }
            self.lacking = self.lacking.or(Lacking::of(&credentials));
            let record = schema::encode_credentials(credentials).map_err(damaged)?;
            batch.insert(&self.accounts, key.clone(), record);
            batched.insert(key);
            loaded.created += 1;
            if batch.len() >= BULK_RECORDS_MAX {
                let full = std::mem::replace(&mut batch, self.database.batch().durability(None));
                full.commit().map_err(engine)?;
                batched.clear();
            }
        }
        if self.lacking != Lacking::default() {
            batch.insert(&self.about, LACKING_KEY, self.lacking.to_record());
        }
        batch.commit().map_err(engine)?;
        self.database
            .persist(PersistMode::SyncData)
            .map_err(engine)?;
        Ok(loaded)
    }

    fn apply(&self, staged: &mut Staged, op: StoreOp) -> Result<StoreReply, Trouble> {
        match op {
            StoreOp::Credentials { account } => {
                let key = schema::account_key(&account);
                let Some(record) = read(&self.accounts, &staged.accounts, &key)? else {
                    return Ok(StoreReply::Credentials(None));
                };
                let credentials = schema::decode_credentials(&record).map_err(damaged)?;
                Ok(StoreReply::Credentials(Some(Box::new(credentials))))
            }
            StoreOp::CreateAccount {
                account,
                credentials,
            } => {
                let key = schema::account_key(&account);
                if exists(&self.accounts, &staged.accounts, &key)? {
                    return Ok(StoreReply::Exists);
                }
                staged.lacking = staged.lacking.or(Lacking::of(&credentials));
                let record = schema::encode_credentials(*credentials).map_err(damaged)?;
                staged.accounts.insert(key, Some(record));
                Ok(StoreReply::Done)
            }
            StoreOp::SetCredentials {
                account,
                credentials,
            } => {
                let key = schema::account_key(&account);
                if !exists(&self.accounts, &staged.accounts, &key)? {
                    return Ok(StoreReply::Missing);
                }
                staged.lacking = staged.lacking.or(Lacking::of(&credentials));
                let record = schema::encode_credentials(*credentials).map_err(damaged)?;
                staged.accounts.insert(key, Some(record));
                Ok(StoreReply::Done)
            }
            StoreOp::DeleteAccount { account } => self.delete(staged, &account),
            StoreOp::Account { account } => {
                let key = schema::account_key(&account);
                if !exists(&self.accounts, &staged.accounts, &key)? {
                    return Ok(StoreReply::Account(None));
                }
                let prefix = schema::roster_prefix(&account);
                let mut roster = Vec::new();
                each_record(&self.roster, &staged.roster, &prefix, |key, record| {
                    let item = schema::decode_roster_item(key, prefix.len(), record);
                    roster.push(item.map_err(damaged)?);
                    Ok(())
                })?;
                Ok(StoreReply::Account(Some(Box::new(AccountData { roster }))))
            }
            StoreOp::PutRosterItem { account, item } => {
                let key = schema::account_key(&account);
                if !exists(&self.accounts, &staged.accounts, &key)? {
                    return Ok(StoreReply::Missing);
                }
                let key = schema::roster_key(&account, &item.contact);
                let record = schema::encode_roster_item(*item).map_err(damaged)?;
                staged.roster.insert(key, Some(record));
                Ok(StoreReply::Done)
            }
            StoreOp::RemoveRosterItem { account, contact } => {
                let key = schema::roster_key(&account, &contact);
                if exists(&self.roster, &staged.roster, &key)? {
                    staged.roster.insert(key, None);
                }
                Ok(StoreReply::Done)
            }
        }
    }

    fn delete(&self, staged: &mut Staged, account: &BareJid) -> Result<StoreReply, Trouble> {
        let key = schema::account_key(account);
        if !exists(&self.accounts, &staged.accounts, &key)? {
            return Ok(StoreReply::Missing);
        }
        // Keys only: what cannot be read must still be deletable.
        let mut owned = Vec::new();
        each_record(
            &self.roster,
            &staged.roster,
            &schema::roster_prefix(account),
            |key, _| {
                owned.push(key.to_vec());
                Ok(())
            },
        )?;
        staged
            .roster
            .extend(owned.into_iter().map(|key| (key, None)));
        staged.accounts.insert(key, None);
        Ok(StoreReply::Done)
    }

    /// The hashes for which some account has no key.
    pub fn lacking(&self) -> Lacking {
        self.lacking
    }

    fn commit(&mut self, staged: Staged) -> Result<(), Trouble> {
        if staged.is_empty() {
            return Ok(());
        }
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        let keyspaces = [
            (&self.accounts, staged.accounts),
            (&self.roster, staged.roster),
        ];
        for (keyspace, writes) in keyspaces {
            for (key, value) in writes {
                match value {
                    Some(value) => batch.insert(keyspace, key, value),
                    None => batch.remove(keyspace, key),
                }
            }
        }
        let lacking = self.lacking.or(staged.lacking);
        if lacking != self.lacking {
            batch.insert(&self.about, LACKING_KEY, lacking.to_record());
        }
        batch.commit().map_err(engine)?;
        self.lacking = lacking;
        Ok(())
    }

    /// The first [`LISTING_PAGE`] accounts behind `after`, ordered by JID. The keys are ordered by
    /// virtual shard first, so every page looks at all of them.
    fn page_after(&self, after: Option<&BareJid>) -> Result<Vec<BareJid>, Trouble> {
        let mut first: BinaryHeap<BareJid> = BinaryHeap::new();
        for entry in self.accounts.iter() {
            let account = schema::account_of_key(&entry.key().map_err(engine)?).map_err(damaged)?;
            if after.is_some_and(|after| account <= *after) {
                continue;
            }
            if first.len() == LISTING_PAGE {
                if first.peek().is_some_and(|last| *last <= account) {
                    continue;
                }
                first.pop();
            }
            first.push(account);
        }
        Ok(first.into_sorted_vec())
    }
}

impl Store for Embedded {
    fn perform(&mut self, ops: &mut dyn Iterator<Item = StoreOp>, replies: &mut Vec<StoreReply>) {
        let mut staged = Staged::default();
        let mut uncertain_from = None;
        for op in ops {
            let reply = self
                .apply(&mut staged, op)
                .unwrap_or_else(StoreReply::Failed);
            if uncertain_from.is_none() && !staged.is_empty() {
                uncertain_from = Some(replies.len());
            }
            replies.push(reply);
        }
        if let Err(trouble) = self.commit(staged) {
            // Reads behind the first write may have seen what is not there, so they fail as well.
            let from = uncertain_from.unwrap_or(replies.len());
            replies[from..].fill(StoreReply::Failed(trouble));
        }
    }

    fn accounts(&mut self, each: &mut dyn FnMut(BareJid) -> bool) -> Result<(), Box<str>> {
        let mut after = None;
        loop {
            let page = self.page_after(after.as_ref())?;
            let is_last = page.len() < LISTING_PAGE;
            after = page.last().cloned();
            if !page.into_iter().all(&mut *each) || is_last {
                return Ok(());
            }
        }
    }
}

fn check_schema(database: &Database, path: &Path) -> Result<Keyspace, OpenError> {
    let refused = |error: fjall::Error| {
        OpenError::Engine(format!("Cannot open the store in {}: {error:?}.", path.display()).into())
    };
    let is_fresh = !database.keyspace_exists("accounts");
    let about = database
        .keyspace("about", KeyspaceCreateOptions::default)
        .map_err(refused)?;
    match about.get(SCHEMA_KEY).map_err(refused)? {
        Some(found) => {
            let found = <[u8; 4]>::try_from(&found[..]).map_or(0, u32::from_be_bytes);
            match found {
                SCHEMA => Ok(about),
                newer if newer > SCHEMA => Err(OpenError::Newer(
                    format!(
                        "The store in {} has schema {newer} and this Vorpal knows {SCHEMA}; run \
                         the version that wrote it, or a later one.",
                        path.display()
                    )
                    .into(),
                )),
                _ => Err(OpenError::Engine(
                    format!(
                        "The store in {} has a damaged schema number.",
                        path.display()
                    )
                    .into(),
                )),
            }
        }
        None if is_fresh => {
            about
                .insert(SCHEMA_KEY, SCHEMA.to_be_bytes())
                .map_err(refused)?;
            database.persist(PersistMode::SyncAll).map_err(refused)?;
            Ok(about)
        }
        None => Err(OpenError::Engine(
            format!("The database in {} is not Vorpal's.", path.display()).into(),
        )),
    }
}

/// A record as this call sees it: what it staged itself, else what is committed.
fn read(keyspace: &Keyspace, staged: &Writes, key: &[u8]) -> Result<Option<fjall::Slice>, Trouble> {
    match staged.get(key) {
        Some(value) => Ok(value.as_deref().map(fjall::Slice::from)),
        None => keyspace.get(key).map_err(engine),
    }
}

fn exists(keyspace: &Keyspace, staged: &Writes, key: &[u8]) -> Result<bool, Trouble> {
    match staged.get(key) {
        Some(value) => Ok(value.is_some()),
        None => keyspace.contains_key(key).map_err(engine),
    }
}

/// Calls `each` with every record below `prefix` as this call sees it.
fn each_record(
    keyspace: &Keyspace,
    staged: &Writes,
    prefix: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    for entry in keyspace.prefix(prefix) {
        let (key, value) = entry.into_inner().map_err(engine)?;
        if !staged.contains_key(&key[..]) {
            each(&key, &value)?;
        }
    }
    let below = staged
        .range(prefix.to_vec()..)
        .take_while(|(key, _)| key.starts_with(prefix));
    for (key, value) in below {
        if let Some(value) = value {
            each(key, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
impl Embedded {
    /// Replaces an account's record by `record`.
    pub(crate) fn put_raw_account(&self, account: &BareJid, record: &[u8]) {
        self.accounts
            .insert(schema::account_key(account), record)
            .unwrap();
    }

    /// Replaces a roster item's record by `record`.
    pub(crate) fn put_raw_item(&self, account: &BareJid, contact: &BareJid, record: &[u8]) {
        self.roster
            .insert(schema::roster_key(account, contact), record)
            .unwrap();
    }

    /// Writes another schema number.
    pub(crate) fn put_raw_schema(&self, number: &[u8]) {
        let about = self
            .database
            .keyspace("about", KeyspaceCreateOptions::default)
            .unwrap();
        about.insert(SCHEMA_KEY, number).unwrap();
        self.database.persist(PersistMode::SyncAll).unwrap();
    }
}
