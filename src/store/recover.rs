//! The embedded store as the server has it: it goes on by itself when the disk does.
//!
//! The engine takes no more writes after one that failed. Invariant: from then on writes are
//! answered `Failed` and reads come from what is committed, until a probe says that the disk takes
//! writes again; then the database is opened anew, and what it has is written once more.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stanza::jid::BareJid;
use xmpp::port::{Reading, Snapshot, Store, StoreOp, StoreReply, WholeAccount};

use crate::commit::log_files;
use crate::embedded::{DIRECTORY, Engine, Performed};
use crate::gaps::Gaps;
use crate::journal;
use crate::lacking::Lacking;
use crate::load::BulkLoaded;
use crate::log::RESERVE_SIZE;
use crate::opening::OpenError;
use crate::remains::Remains;

/// How long a failing disk is left alone before it is tried again.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// What must fit before the database is opened again: a file of the log, and what the engine
/// writes.
const PROBE_SIZE: usize = RESERVE_SIZE as usize + (1 << 20);

/// Why nothing is done while the database is not open.
const CLOSED: &str = "the store could not be opened again";

/// The probe's name beside the journals.
const PROBE_NAME: &str = "probe";

/// A store on disk. It is locked against every other process until it is dropped.
pub struct Embedded {
    data: PathBuf,
    /// Absent where it could not be opened again.
    engine: Option<Engine>,
    gaps: Gaps,
    remains: Remains,
    /// When the disk was last seen to fail.
    failed_at: Option<Instant>,
}

impl Embedded {
    /// Opens the store in the server's data directory, creating both where they are missing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(data: &Path) -> Result<Embedded, OpenError> {
        let engine = Engine::open(data)?;
        match engine.remove_what_ended_left() {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "records of ended sessions removed"),
            Err(error) => tracing::warn!(%error, "records of ended sessions stay in the store"),
        }
        let purged = engine.purged_archives().unwrap_or_else(|error| {
            tracing::warn!(%error, "what was purged of archives stays in the store");
            Vec::new()
        });
        Ok(Embedded {
            data: data.to_owned(),
            engine: Some(engine),
            gaps: Gaps::default(),
            remains: Remains::of_archives(purged),
            failed_at: None,
        })
    }

    /// Creates many accounts without a commit for each, then makes all of them durable at once.
    /// An account that exists already is left as it is, with all it owns, and given to `existed`.
    ///
    /// # Errors
    /// What the engine says, in words; the accounts before the failing one may have been created.
    pub fn bulk_load(
        &mut self,
        accounts: impl Iterator<Item = WholeAccount>,
        existed: impl FnMut(&BareJid),
    ) -> Result<BulkLoaded, Box<str>> {
        self.engine()?.bulk_load(accounts, existed)
    }

    /// For how many accounts which hashes have no key.
    pub fn lacking(&self) -> Lacking {
        self.engine
            .as_ref()
            .map_or_else(Lacking::default, Engine::lacking)
    }

    /// An account of another domain, if there is one and none of this.
    ///
    /// # Errors
    /// What the engine says, in words.
    pub fn foreign_account(&self, domain: &str) -> Result<Option<BareJid>, Box<str>> {
        self.engine()?.foreign_account(domain)
    }

    /// Has an operation count as failed.
    #[cfg(test)]
    pub(crate) fn note_failure(&mut self, op: &StoreOp) {
        self.gaps.note_op(op);
    }

    pub(crate) fn engine(&self) -> Result<&Engine, Box<str>> {
        self.engine.as_ref().ok_or_else(|| CLOSED.into())
    }

    /// Goes on where the disk does.
    fn recover(&mut self) {
        let is_broken = self
            .engine
            .as_ref()
            .is_none_or(|engine| engine.broken.get());
        if !is_broken || self.failed_at.is_none_or(|at| at.elapsed() < RETRY_WAIT) {
            return;
        }
        self.failed_at = Some(Instant::now());
        if self.engine.as_ref().is_some_and(Engine::is_lent) {
            return; // A backup reads the old one, which thus cannot be closed.
        }
        let directory = self.data.join(DIRECTORY);
        if let Err(error) = probe(&directory) {
            tracing::warn!(%error, "the store's disk still takes no writes");
            return;
        }
        self.engine = None;
        if let Err(error) = rewrite_journals(&directory) {
            tracing::warn!(%error, "the store's journal cannot be written");
        } else {
            match Engine::open(&self.data) {
                Ok(engine) => {
                    self.engine = Some(engine);
                    self.failed_at = None;
                    tracing::info!("the store takes writes again");
                }
                Err(error) => tracing::error!(%error, "the store cannot be opened again"),
            }
        }
    }
}

impl Store for Embedded {
    fn perform(&mut self, ops: &mut dyn Iterator<Item = StoreOp>, replies: &mut Vec<StoreReply>) {
        self.recover();
        match &self.engine {
            Some(engine) => match engine.perform(&mut self.gaps, &mut self.remains, ops, replies) {
                Performed::Read => {}
                Performed::Written if engine.broken.get() => {
                    self.failed_at.get_or_insert_with(Instant::now);
                }
                Performed::Written => {
                    if self.failed_at.take().is_some() {
                        tracing::info!("the store takes writes again");
                    }
                }
                Performed::Failed => {
                    if self.failed_at.is_none() {
                        tracing::error!("the store takes no writes");
                    }
                    self.failed_at.get_or_insert_with(Instant::now);
                }
            },
            None => replies.extend(ops.map(|op| {
                self.gaps.note_op(&op);
                StoreReply::Failed(CLOSED.into())
            })),
        }
    }

    fn accounts(&mut self, each: &mut dyn FnMut(BareJid) -> bool) -> Result<(), Box<str>> {
        self.engine()?.list(each)
    }

    fn is_behind(&self) -> bool {
        self.failed_at.is_none() && !self.remains.is_empty()
    }

    fn snapshot(&mut self) -> Result<Box<dyn Snapshot>, Box<str>> {
        while self.failed_at.is_none() && !self.remains.is_without_sessions() {
            self.perform(&mut std::iter::empty(), &mut Vec::new());
        }
        if !self.remains.is_without_sessions() {
            return Err("the store takes no writes, and has to remove something first".into());
        }
        self.engine()?.snapshot()
    }

    fn reading(&mut self, op: &StoreOp) -> Option<Reading> {
        // While the engine is to be opened anew nobody borrows it beside the storage thread.
        let engine = self.engine.as_ref().filter(|_| self.failed_at.is_none());
        engine.map(|engine| engine.reading(op))
    }
}

/// Whether the disk takes writes.
fn probe(directory: &Path) -> io::Result<()> {
    let path = directory.join(PROBE_NAME);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![1; PROBE_SIZE])?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}

/// Writes the journals' bytes over themselves. After a failed sync the kernel may hold pages that
/// it believes to be on the disk and that are not: what is read from them must not be trusted until
/// it was written again.
fn rewrite_journals(directory: &Path) -> io::Result<()> {
    let mut paths = log_files(directory)?;
    let journals = journal::journals(directory)?;
    paths.extend(journals.into_iter().map(|(_, path)| path));
    for path in paths {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // The zeros behind the last record are space that the engine took ahead.
        let size = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes[..size])?;
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
