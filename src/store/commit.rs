//! How the embedded store commits: everything to the log, what sessions write for every stanza to
//! memory, the rest on to the engine, which syncs only when a file of the log is given up.

use std::cell::{Ref, RefMut};
use std::io;
use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, OwnedWriteBatch};

use crate::backup::Table;
use crate::embedded::{Engine, Key, LACKING_KEY, Staged, Trouble, Writes, engine};
use crate::hot::Overlay;
use crate::log::{self, Frame, Log};
use crate::opening::damage;
use crate::records::check_key;

/// Where the log lies beside the engine's own files.
const DIRECTORY: &str = "log";

/// The key of the first generation that the engine may lack something of.
const GENERATION_KEY: &[u8] = b"log";

/// Bytes of a file of the log before the next is begun; there are two at most, and opening replays
/// them.
const LOG_SIZE_MAX: u64 = if cfg!(test) { 8 << 10 } else { 32 << 20 };

/// The number of the table that says what the store is.
const ABOUT: u8 = 0;

/// Records that are looked at with one commit while a file of the log is given up.
const STEP: usize = if cfg!(test) { 4 } else { 256 };

/// Writes of one batch while a log is replayed.
const REPLAY_BATCH: usize = 8_192;

/// The log and what lies in it only.
pub(crate) struct Logged {
    log: Log,
    frame: Frame,
    sessions: Overlay,
    queue: Overlay,
    /// The last generation that is to be given up, while one is.
    leaving: Option<u64>,
}

impl Logged {
    /// The generation of the file that is written, and where its frames end.
    pub(crate) fn end(&self) -> (u64, u64) {
        (self.log.generation(), self.log.size())
    }

    fn of(&mut self, table: Table) -> Option<&mut Overlay> {
        match table {
            Table::Sessions => Some(&mut self.sessions),
            Table::Queue => Some(&mut self.queue),
            Table::Accounts | Table::Roster | Table::Kept | Table::Archive => None,
        }
    }

    /// The next few records that the engine must have before the log's file can go.
    fn step(&mut self, leaving: u64) -> Option<(Table, Writes)> {
        for table in [Table::Sessions, Table::Queue] {
            let found = self.of(table).and_then(|hot| hot.older(leaving, STEP));
            if let Some(found) = found {
                return Some((table, found));
            }
        }
        None
    }
}

fn cannot(error: &io::Error) -> Trouble {
    format!("the log cannot be written: {error}").into()
}

/// The tables as the engine has them, the one that says what the store is first.
pub(crate) struct Keyspaces {
    pub(crate) about: Keyspace,
    pub(crate) tables: [(Table, Keyspace); Table::ALL.len()],
}

impl Keyspaces {
    pub(crate) fn of(&self, table: Table) -> &Keyspace {
        &self.tables[table as usize - 1].1
    }
}

pub(crate) fn insert(
    batch: &mut OwnedWriteBatch,
    keyspace: &Keyspace,
    key: &[u8],
    value: Option<&[u8]>,
) {
    match value {
        Some(value) => batch.insert(keyspace, key, value),
        None => batch.remove(keyspace, key),
    }
}

/// Opens the log of a store, which went to a file up to a place at least, has the engine write
/// what it lacks of the older tables, and begins a new file; the rest is to leave before anything
/// is written there.
pub(crate) fn open(
    database: &Database,
    keyspaces: &Keyspaces,
    store: &Path,
    sealed: Option<(u64, u64)>,
) -> Result<Logged, Trouble> {
    let directory = store.join(DIRECTORY);
    let made = match std::fs::create_dir(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    made.map_err(|error| cannot(&error))?;
    let from = keyspaces.about.get(GENERATION_KEY).map_err(engine)?;
    let from = match from.map(|number| <[u8; 8]>::try_from(&number[..])) {
        None => 0,
        Some(Ok(number)) => u64::from_be_bytes(number),
        Some(Err(_)) => return Err(damage("its log's number is damaged")),
    };
    let overlay = |table| Overlay::of(keyspaces.of(table)).map_err(engine);
    let mut overlays = [overlay(Table::Sessions)?, overlay(Table::Queue)?];
    let mut batch = database.batch().durability(None);
    let last = log::replay(&directory, from, sealed, &mut |(
        generation,
        number,
        key,
        value,
    )| {
        if let Err(error) = check_key(key) {
            tracing::error!(%error, "a record of the store's log is left out");
            return Ok(());
        }
        let table = Table::ALL.into_iter().find(|table| *table as u8 == number);
        let keyspace = match table {
            Some(table @ (Table::Sessions | Table::Queue)) => {
                let hot = &mut overlays[usize::from(table == Table::Queue)];
                hot.put(Key::from_slice(key), value.map(<[u8]>::to_vec), generation);
                return Ok(());
            }
            Some(table) => keyspaces.of(table),
            None if number == ABOUT => &keyspaces.about,
            None => return Err(damage("its log writes to an unknown table")),
        };
        insert(&mut batch, keyspace, key, value);
        if batch.len() < REPLAY_BATCH {
            return Ok(());
        }
        let full = std::mem::replace(&mut batch, database.batch().durability(None));
        full.commit().map_err(engine)
    })?;
    batch.commit().map_err(engine)?;
    let next = last.map_or(from, |last| last + 1);
    let [sessions, queue] = overlays;
    Ok(Logged {
        log: Log::create(&directory, next).map_err(|error| cannot(&error))?,
        frame: Frame::default(),
        sessions,
        queue,
        leaving: last,
    })
}

/// The files of the log of the store in a directory.
pub(crate) fn log_files(store: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(store.join(DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

impl Engine {
    /// What the log has of a table of sessions.
    pub(crate) fn hot(&self, table: Table) -> Ref<'_, Overlay> {
        Ref::map(self.logged.borrow(), |logged| match table {
            Table::Sessions => &logged.sessions,
            _ => &logged.queue,
        })
    }

    /// Makes what one call staged durable.
    pub(crate) fn commit(&self, staged: Staged) -> Result<(), Trouble> {
        let mut logged = self.logged.borrow_mut();
        let lacking = staged.lacking;
        let lacks_other = (lacking != self.lacking.get()).then(|| lacking.to_record());
        logged.frame.begin();
        for table in Table::ALL {
            for (key, value) in staged.of(table) {
                // What is in the log, the engine must take.
                check_key(key)?;
                logged.frame.put(table as u8, key, value.as_deref());
            }
        }
        if let Some(record) = &lacks_other {
            logged.frame.put(ABOUT, LACKING_KEY, Some(record));
        }
        let Logged { log, frame, .. } = &mut *logged;
        let before = log.size();
        log.append(frame).map_err(|error| cannot(&error))?;
        let mut batch = self.database.batch().durability(None);
        if let Some(record) = lacks_other {
            batch.insert(&self.keyspaces.about, LACKING_KEY, record);
        }
        let (hot, cold): (Vec<_>, Vec<_>) = staged
            .into_tables()
            .into_iter()
            .partition(|(table, _)| logged.of(*table).is_some());
        for (table, writes) in cold {
            for (key, value) in &writes {
                insert(&mut batch, self.keyspace(table), key, value.as_deref());
            }
        }
        if !batch.is_empty()
            && let Err(trouble) = self.apply_batch(batch)
        {
            // What is answered as failed must not come back with the log.
            if let Err(error) = logged.log.take_back(before) {
                tracing::error!(%error, "a commit that failed is still in the log");
            }
            return Err(trouble);
        }
        let generation = logged.log.generation();
        for (table, writes) in hot {
            if let Some(hot) = logged.of(table) {
                for (key, value) in writes {
                    hot.put(key, value, generation);
                }
            }
        }
        self.lacking.set(lacking);
        self.advance(logged);
        Ok(())
    }

    pub(crate) fn apply_batch(&self, batch: OwnedWriteBatch) -> Result<(), Trouble> {
        let done = batch.commit().map_err(engine);
        self.broken.set(self.broken.get() || done.is_err());
        done
    }

    /// Moves a little of what is old out of the log, and begins its next file when this one is
    /// full.
    fn advance(&self, mut logged: RefMut<'_, Logged>) {
        let is_full = logged.log.size() >= LOG_SIZE_MAX;
        let advanced = match logged.leaving {
            Some(_) if is_full => self.leave(&mut logged),
            Some(leaving) => self.step(&mut logged, leaving),
            None => Ok(()),
        };
        let advanced = advanced.and_then(|()| match is_full {
            true => begin_next(&mut logged),
            false => Ok(()),
        });
        if let Err(error) = advanced {
            // What was to be committed is; the next commit tries again.
            tracing::warn!(%error, "the store's log grows");
        }
    }

    /// Moves some records; gives the file up, and says so, where there are none left.
    fn step(&self, logged: &mut Logged, leaving: u64) -> Result<(), Trouble> {
        let mut batch = self.database.batch().durability(None);
        let Some((table, writes)) = logged.step(leaving) else {
            let about = &self.keyspaces.about;
            batch.insert(about, GENERATION_KEY, (leaving + 1).to_be_bytes());
            self.apply_batch(batch)?;
            self.sync_with(logged.end())?;
            logged.leaving = None;
            return logged.log.remove_older().map_err(|error| cannot(&error));
        };
        if !writes.is_empty() {
            for (key, value) in &writes {
                insert(&mut batch, self.keyspace(table), key, value.as_deref());
            }
            self.apply_batch(batch)?;
            if let Some(hot) = logged.of(table) {
                hot.settle(writes);
            }
        }
        Ok(())
    }

    /// Gives the log's older files up, if there are any.
    pub(crate) fn leave(&self, logged: &mut Logged) -> Result<(), Trouble> {
        while let Some(leaving) = logged.leaving {
            self.step(logged, leaving)?;
        }
        Ok(())
    }

    /// Has the engine write everything, so that the log is not needed any more.
    pub(crate) fn checkpoint(&self) -> Result<(), Trouble> {
        let logged = &mut *self.logged.borrow_mut();
        self.leave(logged)?;
        begin_next(logged)?;
        self.leave(logged)
    }
}

/// Begins the next file of the log; what is older is to leave.
fn begin_next(logged: &mut Logged) -> Result<(), Trouble> {
    let leaving = logged.log.generation();
    logged.log.rotate().map_err(|error| cannot(&error))?;
    logged.leaving = Some(leaving);
    Ok(())
}

#[cfg(test)]
impl Engine {
    /// Writes to the log what the engine is not asked about.
    pub(crate) fn put_raw_logged(&self, table: Table, key: &[u8], value: &[u8]) {
        let Logged { log, frame, .. } = &mut *self.logged.borrow_mut();
        frame.begin();
        frame.put(table as u8, key, Some(value));
        log.append(frame).unwrap();
    }
}
