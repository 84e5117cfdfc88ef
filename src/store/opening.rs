//! Why a store is not opened, in one sentence that names the file, what is wrong and the remedy;
//! and what is looked at before the engine opens its files, so that damage is left as it was found.

use std::fs::{OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use xxhash_rust::xxh3::xxh3_128;

use crate::journal;
use crate::schema::SCHEMA;
use crate::seal::Seal;

pub(crate) const SCHEMA_KEY: &[u8] = b"schema";

/// The engine's lock, which it waits for as long.
const LOCK_NAME: &str = "lock";
const LOCK_TRIES: usize = 3;
const LOCK_WAIT: Duration = Duration::from_millis(100);

/// The engine's trees, and the file of each that names its version and the checksum of that.
const TREES: &str = "keyspaces";
const CURRENT: &str = "current";

/// The file by which the engine knows a database.
const VERSION: &str = "version";

const CURRENT_SIZE: usize = 25;

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

impl OpenError {
    /// Another process has the store in a directory open.
    pub(crate) fn locked(path: &Path) -> OpenError {
        OpenError::Locked(
            format!(
                "The store in {} is in use by another process; stop that process first.",
                path.display()
            )
            .into(),
        )
    }
}

/// What is damaged, with the remedy.
pub(crate) fn damage(what: &str) -> Box<str> {
    format!("{what}; move the store away and restore a backup with `vorpal restore`").into()
}

/// What the engine says, without its names for it.
pub(crate) fn in_words(error: &fjall::Error) -> Box<str> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::NotFound => damage("a file of the engine is missing"),
                io::ErrorKind::UnexpectedEof => damage("a file of the engine ends too early"),
                // A place that no file has.
                io::ErrorKind::InvalidInput => damage("a file of the engine is damaged"),
                _ if error.raw_os_error().is_none() => damage("a file of the engine is damaged"),
                _ => format!("the engine cannot go on: {error}").into(),
            };
        }
        source = inner.source();
    }
    match error {
        fjall::Error::Poisoned => {
            "an earlier write failed, and the store takes no more until the disk does".into()
        }
        fjall::Error::InvalidVersion(_) => {
            damage("the engine's file `version` is damaged, or of another engine")
        }
        fjall::Error::JournalRecovery(_) => damage("a journal of the engine is damaged"),
        fjall::Error::KeyspaceDeleted => "a table of the engine was deleted".into(),
        fjall::Error::Locked => "another process has it open".into(),
        _ => damage("a file of the engine is damaged"),
    }
}

/// Why a store is not opened. One that was not closed is written to before it is read: what its
/// log has goes into the engine.
pub(crate) fn cannot_open(path: &Path, what: &str) -> OpenError {
    let path = path.display();
    let is_full = ["No space left", "quota exceeded"];
    let text = match is_full.iter().any(|full| what.contains(full)) {
        true => format!(
            "The disk is too full to open the store in {path}; nothing is lost: make room there, \
             100 MB or more, and start again."
        ),
        false => format!("Cannot open the store in {path}: {what}."),
    };
    OpenError::Engine(text.into())
}

/// Looks at the files of a store that nobody has open; gives its seal.
pub(crate) fn examine(path: &Path) -> Result<Option<Seal>, OpenError> {
    let refused = |what: Box<str>| cannot_open(path, &what);
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path.join(LOCK_NAME));
    let lock = match lock {
        // The engine makes it first.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error.to_string().into())),
        Ok(lock) => lock,
    };
    for tried in 1.. {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if tried < LOCK_TRIES => std::thread::sleep(LOCK_WAIT),
            Err(TryLockError::WouldBlock) => return Err(OpenError::locked(path)),
            Err(TryLockError::Error(error)) => return Err(refused(error.to_string().into())),
        }
    }
    let seal = Seal::read(path).map_err(refused)?;
    let trees = check_trees(path).map_err(refused)?;
    if let Some(seal) = &seal {
        // The engine would make anew what is not there.
        if trees < seal.trees {
            return Err(refused(damage("a table of the engine is missing")));
        }
        if !path.join(VERSION).exists() {
            return Err(refused(damage("the engine's file `version` is missing")));
        }
        journal::check(path, seal).map_err(refused)?;
    }
    Ok(seal)
}

fn cannot_read(path: &Path, error: io::Error) -> Box<str> {
    match error.kind() {
        io::ErrorKind::NotFound => damage(&format!("{} is missing", path.display())),
        _ => format!("{} cannot be read: {error}", path.display()).into(),
    }
}

/// How many trees the engine has. It may be at work on them.
pub(crate) fn count_trees(store: &Path) -> Result<u64, Box<str>> {
    Ok(trees(store)?.len() as u64)
}

/// The directories of the engine's trees. One without a list was cut off in the making, or is none.
fn trees(store: &Path) -> Result<Vec<PathBuf>, Box<str>> {
    let trees = store.join(TREES);
    let entries = match std::fs::read_dir(&trees) {
        // The engine was not there for long enough to make it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| cannot_read(&trees, error))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let tree = entry.map_err(|error| cannot_read(&trees, error))?.path();
        let current = tree.join(CURRENT);
        match std::fs::metadata(&current) {
            Err(error) if is_no_tree(error.kind()) => {}
            Err(error) => return Err(cannot_read(&current, error)),
            Ok(_) => found.push(tree),
        }
    }
    Ok(found)
}

/// Whether the list of each tree's tables is as it was written, for the engine does not look; gives
/// how many trees there are. Nobody may have the store open: the engine replaces these files.
pub(crate) fn check_trees(store: &Path) -> Result<u64, Box<str>> {
    let trees = trees(store)?;
    for tree in &trees {
        let current = tree.join(CURRENT);
        let bytes = std::fs::read(&current).map_err(|error| cannot_read(&current, error))?;
        let fields = <[u8; CURRENT_SIZE]>::try_from(bytes).ok();
        let fields = fields.as_ref().and_then(|bytes| {
            let (number, rest) = bytes.split_first_chunk()?;
            let (hash, kind) = rest.split_first_chunk()?;
            Some((
                u64::from_le_bytes(*number),
                u128::from_le_bytes(*hash),
                kind,
            ))
        });
        let Some((number, hash, [0])) = fields else {
            return Err(damage(&format!("{} is damaged", current.display())));
        };
        let version = tree.join(format!("v{number}"));
        let bytes = std::fs::read(&version).map_err(|error| cannot_read(&version, error))?;
        if xxh3_128(&bytes) != hash {
            return Err(damage(&format!("{} is damaged", version.display())));
        }
    }
    Ok(trees.len() as u64)
}

fn is_no_tree(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

pub(crate) fn check_schema(database: &Database, path: &Path) -> Result<Keyspace, OpenError> {
    let refused = |error: fjall::Error| cannot_open(path, &in_words(&error));
    let is_fresh = !database.keyspace_exists("accounts");
    let about = database
        .keyspace("about", KeyspaceCreateOptions::default)
        .map_err(refused)?;
    let foreign = |what: &str| {
        let what = damage(what);
        OpenError::Engine(format!("The store in {} {what}.", path.display()).into())
    };
    match about.get(SCHEMA_KEY).map_err(refused)? {
        Some(found) => {
            let found = <[u8; 4]>::try_from(&found[..]).map_or(0, u32::from_be_bytes);
            match found {
                SCHEMA => Ok(about),
                // Schema 2 added what accounts keep, 3 the sessions, 4 the log, 5 when a queued
                // stanza came, 6 the versions of rosters, 10 when the newest that waits offline
                // came, 11 the user agents, the nodes and the archives, 12 what finds archived
                // messages by their senders' ids; the records of all are read as they are.
                1..SCHEMA => {
                    tracing::info!(from = found, to = SCHEMA, "store schema upgraded");
                    about
                        .insert(SCHEMA_KEY, SCHEMA.to_be_bytes())
                        .map_err(refused)?;
                    database.persist(PersistMode::SyncAll).map_err(refused)?;
                    Ok(about)
                }
                newer if newer > SCHEMA => Err(OpenError::Newer(
                    format!(
                        "The store in {} has schema {newer} and this Vorpal knows {SCHEMA}; run \
                         the version that wrote it, or a later one.",
                        path.display()
                    )
                    .into(),
                )),
                _ => Err(foreign("has a damaged schema number")),
            }
        }
        None if is_fresh => {
            about
                .insert(SCHEMA_KEY, SCHEMA.to_be_bytes())
                .map_err(refused)?;
            database.persist(PersistMode::SyncAll).map_err(refused)?;
            Ok(about)
        }
        None => Err(foreign("is not Vorpal's, or has lost its first writes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 28 is ENOSPC, 122 EDQUOT, 5 EIO.
    #[test]
    fn a_full_disk_is_told_with_the_remedy() {
        for (number, remedy) in [(28, "make room"), (122, "make room"), (5, "Cannot open")] {
            let error = io::Error::from_raw_os_error(number);
            let plain = error.to_string();
            let wrapped = in_words(&fjall::Error::Io(error));
            for what in [&*plain, &*wrapped] {
                let told = cannot_open(Path::new("store"), what).to_string();
                assert!(told.contains(remedy), "{told}");
            }
        }
    }
}
