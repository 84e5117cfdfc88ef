//! The default store: fjall, an embedded log-structured engine (decided in the design's storage
//! page: the fastest library at 64 or more writes per commit, atomic across keyspaces).
//!
//! Invariant: one [`xmpp::port::Store::perform`] call is one batch and one `fdatasync`, and no
//! write of it is answered before that. What a call has staged but not committed only its own later
//! reads see.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BinaryHeap};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(test)]
use fjall::PersistMode;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, Readable};
use smallvec::SmallVec;
use stanza::jid::BareJid;
use xmpp::port::{
    AccountData, AgentId, ArchiveId, Credentials, Origin, SessionId, Snapshot, Space, StoreOp,
    StoreReply, WholeAccount,
};

use crate::backup::{self, Table};
use crate::commit::{self, Keyspaces, Logged};
use crate::gaps::Gaps;
use crate::lacking::Lacking;
use crate::opening::{self, OpenError, cannot_open, check_schema, in_words};
use crate::records::{each_record, exists, read};
use crate::remains::Remains;
use crate::schema::{self, SCHEMA};
use crate::seal::Seal;
use crate::sharing::Sharing;
use crate::{agents, kept, nodes, sessions};

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

/// Records between two reports of a backup.
const PROGRESS_EVERY: u64 = 200_000;

/// Where [`Lacking`] stands; absent as long as every account has had every key.
pub(crate) const LACKING_KEY: &[u8] = b"lacking";

/// An open database. It is locked against every other process until it is dropped.
pub(crate) struct Engine {
    /// Where it lies.
    pub(crate) path: PathBuf,
    pub(crate) seal: Cell<Seal>,
    /// The last number that a seal had, or was to have.
    pub(crate) numbered: Cell<u64>,
    pub(crate) database: Database,
    pub(crate) keyspaces: Keyspaces,
    pub(crate) logged: RefCell<Logged>,
    /// Whether the database takes no more writes until it is opened anew.
    pub(crate) broken: Cell<bool>,
    /// How often the database was synced.
    #[cfg(test)]
    pub(crate) syncs: Cell<u64>,
    /// Held by every snapshot: the database stays open as long as one is.
    lent: Arc<()>,
    pub(crate) lacking: Cell<Lacking>,
    /// As the last call left it; a call has it while it runs.
    pub(crate) sharing: RefCell<Sharing>,
    /// How many records of sessions were looked at.
    #[cfg(test)]
    pub(crate) looked_at: Cell<u64>,
}

/// Staged writes of one keyspace: a value, or `None` for a removal.
pub(crate) type Writes = BTreeMap<Key, Option<Vec<u8>>>;

/// A key that is looked for more often than it is moved: most lie in the tree's nodes.
pub(crate) type Key = SmallVec<[u8; 56]>;

/// What one `perform` call will commit.
#[derive(Default)]
pub(crate) struct Staged {
    pub(crate) accounts: Writes,
    roster: Writes,
    pub(crate) kept: Writes,
    pub(crate) sessions: Writes,
    queue: Writes,
    pub(crate) archive: Writes,
    /// What accounts lack with all of it.
    pub(crate) lacking: Lacking,
    /// What is known of those who share what lies in queues.
    pub(crate) sharing: Sharing,
    /// What failed before.
    pub(crate) gaps: Gaps,
    /// What deleted accounts left.
    pub(crate) remains: Remains,
    /// The stanzas that are marked as having had their effect.
    pub(crate) marked: Vec<(Origin, BareJid)>,
    /// Up to which of their stanzas sessions will not send again.
    pub(crate) settled: Vec<(SessionId, u64)>,
}

impl Staged {
    pub(crate) fn is_empty(&self) -> bool {
        Table::ALL
            .into_iter()
            .all(|table| self.of(table).is_empty())
    }

    /// Writes a record of the queues' table.
    pub(crate) fn put_queue(&mut self, key: Key, value: Option<Vec<u8>>) {
        self.sharing.note(&key, value.as_deref());
        self.queue.insert(key, value);
    }

    pub(crate) fn of(&self, table: Table) -> &Writes {
        match table {
            Table::Accounts => &self.accounts,
            Table::Roster => &self.roster,
            Table::Kept => &self.kept,
            Table::Sessions => &self.sessions,
            Table::Queue => &self.queue,
            Table::Archive => &self.archive,
        }
    }

    pub(crate) fn of_mut(&mut self, table: Table) -> &mut Writes {
        match table {
            Table::Accounts => &mut self.accounts,
            Table::Roster => &mut self.roster,
            Table::Kept => &mut self.kept,
            Table::Sessions => &mut self.sessions,
            Table::Queue => &mut self.queue,
            Table::Archive => &mut self.archive,
        }
    }

    pub(crate) fn into_tables(self) -> [(Table, Writes); Table::ALL.len()] {
        [
            (Table::Accounts, self.accounts),
            (Table::Roster, self.roster),
            (Table::Kept, self.kept),
            (Table::Sessions, self.sessions),
            (Table::Queue, self.queue),
            (Table::Archive, self.archive),
        ]
    }
}

/// Trouble in the words of the log.
pub(crate) type Trouble = Box<str>;

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` calls")]
pub(crate) fn engine(error: fjall::Error) -> Trouble {
    in_words(&error)
}

pub(crate) fn damaged(error: schema::Unreadable) -> Trouble {
    error.0
}

fn open_database(path: &Path) -> Result<Database, OpenError> {
    let opened = Database::builder(path)
        .cache_size(CACHE_SIZE_MAX)
        .max_journaling_size(JOURNAL_SIZE_MAX)
        .worker_threads(WORKERS)
        .open();
    opened.map_err(|error| match error {
        fjall::Error::Locked => OpenError::locked(path),
        error => cannot_open(path, &in_words(&error)),
    })
}

/// Why an account gets other keys.
enum Change {
    /// Its password is another one; one of its user agents may stay.
    Password { keeps: Option<AgentId> },
    /// They are those of the same password, if it has these.
    Upgrade { prior: Box<Credentials> },
}

impl Engine {
    /// Opens the store in the server's data directory, creating both where they are missing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open(data: &Path) -> Result<Engine, OpenError> {
        let path = data.join(DIRECTORY);
        let refused = |what: String| cannot_open(&path, &what);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| refused(error.to_string()))?;
        let sealed = opening::examine(&path)?;
        let database = open_database(&path)?;
        let about = check_schema(&database, &path)?;
        let keyspace = |name: &str| {
            database
                .keyspace(name, || {
                    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_SIZE_MAX)
                })
                .map_err(|error| refused(in_words(&error).into()))
        };
        let tables = [
            (Table::Accounts, keyspace("accounts")?),
            (Table::Roster, keyspace("roster")?),
            (Table::Kept, keyspace("kept")?),
            (Table::Sessions, keyspace("sessions")?),
            (Table::Queue, keyspace("queue")?),
            (Table::Archive, keyspace("archive")?),
        ];
        let keyspaces = Keyspaces { about, tables };
        let told = |trouble: Trouble| refused(trouble.into());
        let seal = sealed.unwrap_or_default();
        let numbered = seal.confirm(&keyspaces).map_err(told)?;
        if sealed.is_none() && numbered > 0 {
            tracing::warn!("the store's seal is missing: its journals were not checked");
        }
        let logged = commit::open(&database, &keyspaces, &path, seal.log).map_err(told)?;
        tracing::debug!(path = %path.display(), schema = SCHEMA, "store open");
        let opened = Engine {
            path: path.clone(),
            seal: Cell::new(seal),
            numbered: Cell::new(numbered),
            database,
            keyspaces,
            logged: RefCell::new(logged),
            broken: Cell::new(false),
            #[cfg(test)]
            syncs: Cell::new(0),
            lent: Arc::new(()),
            lacking: Cell::default(),
            sharing: RefCell::default(),
            #[cfg(test)]
            looked_at: Cell::new(0),
        };
        opened
            .learn_lacking()
            .and_then(|()| opened.leave(&mut opened.logged.borrow_mut()))
            .and_then(|()| match opened.seal.get() == seal {
                // Nothing was to leave.
                true => opened.sync(),
                false => Ok(()),
            })
            .map_err(told)?;
        Ok(opened)
    }

    pub(crate) fn keyspace(&self, table: Table) -> &Keyspace {
        self.keyspaces.of(table)
    }

    /// A view of this moment, to be read on any thread.
    pub(crate) fn snapshot(&self) -> Result<Box<dyn Snapshot>, Trouble> {
        self.checkpoint()?;
        Ok(Box::new(View {
            snapshot: self.database.snapshot(),
            keyspaces: self.keyspaces.tables.clone(),
            _lent: Arc::clone(&self.lent),
        }))
    }

    /// Whether a snapshot of this database is still in use.
    pub(crate) fn is_lent(&self) -> bool {
        Arc::strong_count(&self.lent) > 1
    }

    /// What keeps the database open for as long as somebody has it.
    pub(crate) fn lend(&self) -> Arc<()> {
        Arc::clone(&self.lent)
    }

    pub(crate) fn apply(&self, staged: &mut Staged, op: StoreOp) -> Result<StoreReply, Trouble> {
        match op {
            StoreOp::Accounts { .. } => Ok(self.reading(&op)()),
            StoreOp::Credentials { account } => self.credentials(staged, &account),
            StoreOp::CreateAccount {
                account,
                credentials,
            } => self.create_whole(staged, WholeAccount::new(account, *credentials)),
            StoreOp::CreateWhole { whole } => self.create_whole(staged, *whole),
            StoreOp::SetCredentials { .. } | StoreOp::UpgradeCredentials { .. } => {
                self.set_credentials(staged, op)
            }
            StoreOp::DeleteAccount { account } => self.delete(staged, &account),
            StoreOp::Account { account } => self.account(staged, &account),
            StoreOp::PutRosterItem { account, item } => {
                let key = schema::account_key(&account);
                if !exists(self.keyspace(Table::Accounts), &staged.accounts, &key)? {
                    return Ok(StoreReply::Missing);
                }
                let key = schema::roster_key(&account, &item.contact);
                let record = schema::encode_roster_item(*item).map_err(damaged)?;
                staged.roster.insert(key.into(), Some(record));
                Ok(StoreReply::Done)
            }
            StoreOp::RemoveRosterItem { account, contact } => {
                let key = schema::roster_key(&account, &contact);
                if exists(self.keyspace(Table::Roster), &staged.roster, &key)? {
                    staged.roster.insert(key.into(), None);
                }
                Ok(StoreReply::Done)
            }
            StoreOp::Document {
                account,
                space,
                key,
            } => kept::document(self.keyspace(Table::Kept), staged, &account, space, &key),
            StoreOp::Nodes { .. } | StoreOp::Items { .. } => {
                nodes::read_op(self.keyspace(Table::Kept), staged, &op)
            }
            StoreOp::Offline { account } => {
                kept::waiting(self.keyspace(Table::Kept), staged, &account).map(StoreReply::Offline)
            }
            StoreOp::RemoveOffline { account, up_to } => {
                kept::remove_offline(self.keyspace(Table::Kept), staged, &account, up_to)
            }
            StoreOp::UserAgent { account, id } => {
                agents::one(self.keyspace(Table::Kept), staged, &account, id)
                    .map(|found| StoreReply::UserAgent(found.map(Box::new)))
            }
            StoreOp::UserAgents { account } => {
                agents::all(self.keyspace(Table::Kept), staged, &account)
                    .map(StoreReply::UserAgents)
            }
            StoreOp::SetBlocked { .. }
            | StoreOp::PutDocument { .. }
            | StoreOp::PutOffline { .. }
            | StoreOp::PutUserAgent { .. }
            | StoreOp::ChangeNodes { .. }
            | StoreOp::RemoveUserAgents { .. } => self.keep(staged, op),
            StoreOp::NoteFailed { .. } => {
                staged.gaps.note_op(&op);
                Ok(StoreReply::Done)
            }
            StoreOp::Archive { .. } | StoreOp::PurgeArchive { .. } => {
                self.apply_to_archive(staged, op)
            }
            op if op.reads_archive() => self.apply_to_archive(staged, op),
            on_sessions => self.apply_to_sessions(staged, on_sessions),
        }
    }

    fn credentials(&self, staged: &Staged, account: &BareJid) -> Result<StoreReply, Trouble> {
        let key = schema::account_key(account);
        let found = read(self.keyspace(Table::Accounts), &staged.accounts, &key)?;
        let credentials = found.map(|record| schema::decode_credentials(&record));
        let credentials = credentials.transpose().map_err(damaged)?;
        Ok(StoreReply::Credentials(credentials.map(Box::new)))
    }

    fn set_credentials(&self, staged: &mut Staged, op: StoreOp) -> Result<StoreReply, Trouble> {
        let (account, credentials, change) = match op {
            StoreOp::SetCredentials {
                account,
                credentials,
                keeps,
            } => (account, credentials, Change::Password { keeps }),
            StoreOp::UpgradeCredentials {
                account,
                prior,
                credentials,
            } => (account, credentials, Change::Upgrade { prior }),
            _ => return Ok(StoreReply::Failed("not a write of this kind".into())),
        };
        let key = schema::account_key(&account);
        let Some(before) = read(self.keyspace(Table::Accounts), &staged.accounts, &key)? else {
            return Ok(StoreReply::Missing);
        };
        if let Change::Upgrade { prior } = &change
            && schema::decode_credentials(&before).map_err(damaged)? != **prior
        {
            return Ok(StoreReply::Outdated);
        }
        let less = Lacking::of_account(&before);
        let lacking = staged.lacking.minus(less).plus(Lacking::of(&credentials));
        let record = schema::encode_credentials(*credentials).map_err(damaged)?;
        if let Change::Password { keeps } = change {
            agents::remove_but(self.keyspace(Table::Kept), staged, &account, keeps)?;
        }
        staged.accounts.insert(key.into(), Some(record));
        staged.lacking = lacking;
        Ok(StoreReply::Done)
    }

    fn account(&self, staged: &Staged, account: &BareJid) -> Result<StoreReply, Trouble> {
        let key = schema::account_key(account);
        if !exists(self.keyspace(Table::Accounts), &staged.accounts, &key)? {
            return Ok(StoreReply::Account(None));
        }
        let prefix = schema::roster_prefix(account);
        let mut roster = Vec::new();
        each_record(
            self.keyspace(Table::Roster),
            &staged.roster,
            &prefix,
            |key, record| {
                let item = schema::decode_roster_item(key, prefix.len(), record);
                roster.push(item.map_err(damaged)?);
                Ok(())
            },
        )?;
        let kept = self.keyspace(Table::Kept);
        let only = |space| kept::only_document(kept, staged, account, space);
        Ok(StoreReply::Account(Some(Box::new(AccountData {
            roster,
            blocked: kept::blocked(kept, staged, account)?,
            newest_waiting: kept::newest_waiting(kept, staged, account)?,
            newest_archived: self.archive(staged).newest(account)?,
            photo: nodes::photo(kept, staged, account)?,
            archiving: only(Space::Archiving)?,
            push: only(Space::Push)?,
        }))))
    }

    /// Writes of what an account keeps; they need the account.
    fn keep(&self, staged: &mut Staged, op: StoreOp) -> Result<StoreReply, Trouble> {
        let (StoreOp::SetBlocked { account, .. }
        | StoreOp::PutDocument { account, .. }
        | StoreOp::PutOffline { account, .. }
        | StoreOp::PutUserAgent { account, .. }
        | StoreOp::ChangeNodes { account, .. }
        | StoreOp::RemoveUserAgents { account, .. }) = &op
        else {
            return Ok(StoreReply::Failed("not a write of this kind".into()));
        };
        let owner = schema::account_key(account);
        if !exists(self.keyspace(Table::Accounts), &staged.accounts, &owner)? {
            staged.gaps.note_op(&op);
            return Ok(StoreReply::Missing);
        }
        let kept = self.keyspace(Table::Kept);
        match op {
            StoreOp::SetBlocked { account, blocked } => {
                kept::set_blocked(staged, &account, blocked)
            }
            StoreOp::PutDocument {
                account,
                space,
                key,
                bytes,
            } => kept::put_document(kept, staged, &account, space, &key, &bytes),
            StoreOp::PutUserAgent {
                account,
                agent,
                prior,
                forget_before,
            } => agents::put(kept, staged, &account, &agent, prior, forget_before),
            StoreOp::RemoveUserAgents { account, which } => {
                match which {
                    Some(id) => agents::remove(kept, staged, &account, id)?,
                    None => agents::remove_but(kept, staged, &account, None)?,
                }
                Ok(StoreReply::Done)
            }
            StoreOp::ChangeNodes {
                account,
                changes,
                document,
            } => nodes::change(kept, staged, &account, changes, document),
            StoreOp::PutOffline {
                account,
                arrived,
                stanza,
                quota,
                origin,
            } => {
                let reply = kept::put_offline(kept, staged, &account, (arrived, &stanza), quota)?;
                match origin {
                    // The mark of a later one must not cover what was refused.
                    Some(origin) if reply != StoreReply::Done => staged.gaps.note(origin, account),
                    origin => sessions::mark(staged, &account, origin),
                }
                Ok(reply)
            }
            _ => Ok(StoreReply::Failed("not a write of this kind".into())),
        }
    }

    fn delete(&self, staged: &mut Staged, account: &BareJid) -> Result<StoreReply, Trouble> {
        let key = schema::account_key(account);
        let Some(record) = read(self.keyspace(Table::Accounts), &staged.accounts, &key)? else {
            return Ok(StoreReply::Missing);
        };
        // Keys only: what cannot be read must still be deletable.
        let mut owned = Vec::new();
        each_record(
            self.keyspace(Table::Roster),
            &staged.roster,
            &schema::roster_prefix(account),
            |key, _| {
                owned.push(key.to_vec());
                Ok(())
            },
        )?;
        staged
            .roster
            .extend(owned.into_iter().map(|key| (key.into(), None)));
        let mut owned = Vec::new();
        let prefix = schema::roster_prefix(account);
        each_record(
            self.keyspace(Table::Kept),
            &staged.kept,
            &prefix,
            |key, _| {
                owned.push(key.to_vec());
                Ok(())
            },
        )?;
        staged
            .kept
            .extend(owned.into_iter().map(|key| (key.into(), None)));
        self.end_sessions_of(staged, account)?;
        self.purge(staged, account, ArchiveId::MAX)?;
        staged.accounts.insert(key.into(), None);
        staged.lacking = staged.lacking.minus(Lacking::of_account(&record));
        Ok(StoreReply::Done)
    }

    /// For how many accounts which hashes have no key.
    pub(crate) fn lacking(&self) -> Lacking {
        self.lacking.get()
    }

    /// An account of another domain, if there is one and none of this.
    pub(crate) fn foreign_account(&self, domain: &str) -> Result<Option<BareJid>, Trouble> {
        let mut foreign = None;
        for entry in self.keyspace(Table::Accounts).iter() {
            let account = schema::account_of_key(&entry.key().map_err(engine)?).map_err(damaged)?;
            if account.domain() == domain {
                return Ok(None);
            }
            foreign.get_or_insert(account);
        }
        Ok(foreign)
    }

    /// The first [`LISTING_PAGE`] accounts behind `after`, ordered by JID. The keys are ordered by
    /// virtual shard first, so every page looks at all of them.
    fn page_after(&self, after: Option<&BareJid>) -> Result<Vec<BareJid>, Trouble> {
        let mut first: BinaryHeap<BareJid> = BinaryHeap::new();
        for entry in self.keyspace(Table::Accounts).iter() {
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

    /// Counts the accounts, as [`xmpp::port::Store::reading`] does.
    pub(crate) fn counting(&self, names_max: usize) -> xmpp::port::Reading {
        let (snapshot, keyspace) = (self.database.snapshot(), self.keyspace(Table::Accounts));
        let (keyspace, lent) = (keyspace.clone(), self.lend());
        Box::new(move || {
            let (mut count, mut names) = (0, Vec::new());
            for entry in snapshot.iter(&keyspace) {
                let account = entry.key().map_err(engine).and_then(|key| {
                    let is_named = names.len() < names_max;
                    let account = is_named.then(|| schema::account_of_key(&key).map_err(damaged));
                    account.transpose()
                });
                match account {
                    Ok(name) => names.extend(name),
                    Err(why) => return StoreReply::Failed(why),
                }
                count += 1;
                if count == names_max as u64 {
                    break;
                }
            }
            drop(lent);
            StoreReply::Accounts { count, names }
        })
    }

    /// Performs one call; one that writes, or has no operations, removes some of the remains, too.
    pub(crate) fn perform(
        &self,
        gaps: &mut Gaps,
        remains: &mut Remains,
        ops: &mut dyn Iterator<Item = StoreOp>,
        replies: &mut Vec<StoreReply>,
    ) -> Performed {
        let mut staged = Staged {
            gaps: std::mem::take(gaps),
            lacking: self.lacking.get(),
            sharing: self.sharing.take(),
            remains: remains.lend(),
            ..Staged::default()
        };
        let mut uncertain_from = None;
        let first = replies.len();
        for op in ops {
            let reply = self
                .apply(&mut staged, op)
                .unwrap_or_else(StoreReply::Failed);
            if uncertain_from.is_none() && !staged.is_empty() {
                uncertain_from = Some(replies.len());
            }
            replies.push(reply);
        }
        if !staged.is_empty() || replies.len() == first {
            self.remove_remains(&mut staged);
        }
        *gaps = std::mem::take(&mut staged.gaps);
        let left = std::mem::take(&mut staged.remains);
        let marked = std::mem::take(&mut staged.marked);
        let settled = std::mem::take(&mut staged.settled);
        let sharing = std::mem::take(&mut staged.sharing);
        let is_read = staged.is_empty();
        let committed = if is_read { Ok(()) } else { self.commit(staged) };
        if let Err(trouble) = &committed {
            for (session, _) in settled.iter().filter(|(_, number)| *number == u64::MAX) {
                gaps.take_back_end(*session);
            }
            for (origin, receiver) in marked {
                gaps.note(origin, receiver);
            }
            // Reads behind the first write may have seen what is not there, so they fail as well.
            let from = uncertain_from.unwrap_or(replies.len());
            replies[from..].fill(StoreReply::Failed(trouble.clone()));
        }
        if committed.is_err() {
            remains.take_back(left);
            return Performed::Failed;
        }
        self.sharing.replace(sharing);
        *remains = left.settled();
        for (session, number) in settled {
            gaps.settle(session, number);
        }
        match is_read {
            true => Performed::Read,
            false => Performed::Written,
        }
    }

    /// See [`xmpp::port::Store::accounts`].
    pub(crate) fn list(&self, each: &mut dyn FnMut(BareJid) -> bool) -> Result<(), Trouble> {
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

/// How a call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Performed {
    /// There was nothing to commit.
    Read,
    /// What it wrote is durable.
    Written,
    /// Its commit failed.
    Failed,
}

/// What [`Engine::snapshot`] gives.
struct View {
    snapshot: fjall::Snapshot,
    keyspaces: [(Table, Keyspace); Table::ALL.len()],
    _lent: Arc<()>,
}

impl Snapshot for View {
    fn save(&self, file: &Path, progress: &mut dyn FnMut(u64)) -> Result<u64, Box<str>> {
        let mut writer = backup::Writer::create(file)?;
        for (table, keyspace) in &self.keyspaces {
            for entry in self.snapshot.iter(keyspace) {
                let (key, record) = entry.into_inner().map_err(engine)?;
                let count = writer.record(*table, &key, &record)?;
                if count.is_multiple_of(PROGRESS_EVERY) {
                    progress(count);
                }
            }
        }
        writer.finish()
    }
}

#[cfg(test)]
impl Engine {
    /// Replaces an account's record by `record`.
    pub(crate) fn put_raw_account(&self, account: &BareJid, record: &[u8]) {
        self.keyspace(Table::Accounts)
            .insert(schema::account_key(account), record)
            .unwrap();
    }

    /// Replaces a roster item's record by `record`.
    pub(crate) fn put_raw_item(&self, account: &BareJid, contact: &BareJid, record: &[u8]) {
        self.keyspace(Table::Roster)
            .insert(schema::roster_key(account, contact), record)
            .unwrap();
    }

    /// Says what accounts lack as it was said before it was counted.
    pub(crate) fn put_raw_lacking(&self, record: &[u8]) {
        self.keyspaces.about.insert(LACKING_KEY, record).unwrap();
        self.database.persist(PersistMode::SyncAll).unwrap();
    }

    /// Puts a record into a session's queue.
    pub(crate) fn put_raw_queued(
        &self,
        account: &BareJid,
        secret: u128,
        place: u64,
        record: &[u8],
    ) {
        let key = sessions::queue_key(account, secret, place);
        self.keyspace(Table::Queue)
            .insert(&key[..], record)
            .unwrap();
    }

    /// Says how many messages wait for an account, as it was said before schema 4, without bytes,
    /// or before schema 10, without the newest's time.
    pub(crate) fn put_raw_count(
        &self,
        account: &BareJid,
        last: u64,
        count: u32,
        size: Option<u64>,
    ) {
        let (key, record) = crate::kept::old_count(account, last, count, size);
        self.keyspace(Table::Kept).insert(key, record).unwrap();
    }

    /// Makes the store as one that never had these.
    pub(crate) fn drop_keyspaces(&self, names: &[&str]) {
        for name in names {
            let keyspace = self
                .database
                .keyspace(name, KeyspaceCreateOptions::default)
                .unwrap();
            self.database.delete_keyspace(keyspace).unwrap();
        }
        // Whoever had fewer sealed nothing.
        self.seal.set(Seal::default());
        std::fs::remove_file(self.path.join("seal")).unwrap();
    }

    /// The schema number as it lies there.
    pub(crate) fn raw_schema(&self) -> Vec<u8> {
        let about = self
            .database
            .keyspace("about", KeyspaceCreateOptions::default)
            .unwrap();
        about.get(opening::SCHEMA_KEY).unwrap().unwrap().to_vec()
    }

    /// Writes another schema number.
    pub(crate) fn put_raw_schema(&self, number: &[u8]) {
        let about = self
            .database
            .keyspace("about", KeyspaceCreateOptions::default)
            .unwrap();
        about.insert(opening::SCHEMA_KEY, number).unwrap();
        self.database.persist(PersistMode::SyncAll).unwrap();
    }
}
