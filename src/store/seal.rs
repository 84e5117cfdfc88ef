//! The seal: how far the store was durable when it last made sure of it, told beside the engine.
//!
//! The engine itself cannot tell a journal that lost its end from one that never had more. So
//! whenever it syncs, it gets a batch with a number last, and a file beside it says then which
//! number that was and in which journal; an opening looks for it before the engine cuts anything
//! off (`journal.rs`). What is written behind a seal, the log has. Where that ended is noted as
//! well, and at an orderly end once more. Invariant: the seal is not ahead of what is on the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use fjall::PersistMode;
use xxhash_rust::xxh3::xxh3_64;

use crate::commit::Keyspaces;
use crate::embedded::{Engine, Trouble, engine};
use crate::journal;
use crate::opening::{self, damage};

/// The key of the seal's number in the table that says what the store is. No key of another table
/// begins as it does: these have the number of a virtual shard first.
pub(crate) const KEY: &[u8] = b"seal";

const NAME: &str = "seal";
const NEW_NAME: &str = "seal.new";

/// How often the engine may go on to another journal while it is sealed.
const TRIES: usize = 8;

/// How far the store was durable. A store has none that an older version wrote, or that is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seal {
    /// It grows with each; 0 where there is none.
    pub(crate) number: u64,
    /// The journal that has its batch, unless that is not needed any more.
    pub(crate) journal: u64,
    /// Every sequence number up to that of its batch is less.
    pub(crate) sequence: u64,
    /// How many trees the engine had; 0 where they were not counted.
    pub(crate) trees: u64,
    /// Which file the log went to, and where its frames ended.
    pub(crate) log: Option<(u64, u64)>,
}

impl Seal {
    /// The seal of a store, if it has one.
    pub(crate) fn read(store: &Path) -> Result<Option<Seal>, Box<str>> {
        let path = store.join(NAME);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display()).into()),
            Ok(bytes) => bytes,
        };
        Seal::of_bytes(&bytes).map(Some).ok_or_else(|| {
            let what = format!(
                "{} is damaged, so it cannot be told whether the journals are whole",
                path.display()
            );
            damage(&what)
        })
    }

    fn of_bytes(bytes: &[u8]) -> Option<Seal> {
        let (fields, hash) = bytes.split_last_chunk::<8>()?;
        let (words, []) = fields.as_chunks::<8>() else {
            return None;
        };
        let words: Vec<u64> = words.iter().map(|word| u64::from_be_bytes(*word)).collect();
        let (number, journal, sequence, trees, file, place) = match words[..] {
            [number, journal, sequence, trees, file, place] => {
                (number, journal, sequence, trees, file, place)
            }
            // The first seals did not count the trees.
            [number, journal, sequence, file, place] => (number, journal, sequence, 0, file, place),
            _ => return None,
        };
        (u64::from_be_bytes(*hash) == xxh3_64(fields)).then_some(Seal {
            number,
            journal,
            sequence,
            trees,
            log: Some((file, place)),
        })
    }

    /// Puts it in the place of the one before.
    fn write(&self, store: &Path) -> io::Result<()> {
        let (file, place) = self.log.unwrap_or_default();
        let fields = [
            self.number,
            self.journal,
            self.sequence,
            self.trees,
            file,
            place,
        ];
        let mut bytes = fields.map(u64::to_be_bytes).concat();
        bytes.extend(xxh3_64(&bytes).to_be_bytes());
        let new = store.join(NEW_NAME);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        std::fs::rename(new, store.join(NAME))?;
        File::open(store)?.sync_all()
    }

    /// Whether the engine, as it opened, has what was sealed; gives the last number that it has.
    pub(crate) fn confirm(&self, keyspaces: &Keyspaces) -> Result<u64, Trouble> {
        let found = keyspaces.about.get(KEY).map_err(engine)?;
        let found = found.and_then(|number| <[u8; 8]>::try_from(&number[..]).ok());
        let found = found.map_or(0, u64::from_be_bytes);
        match found < self.number {
            true => Err(damage("the engine lacks writes that were durable")),
            false => Ok(found),
        }
    }
}

impl Engine {
    /// Makes all that was written durable, and seals it.
    pub(crate) fn sync(&self) -> Result<(), Trouble> {
        let log_end = self.logged.borrow().end();
        self.sync_with(log_end)
    }

    /// The same where the log ends there.
    pub(crate) fn sync_with(&self, log_end: (u64, u64)) -> Result<(), Trouble> {
        let cannot = |error: io::Error| Trouble::from(format!("it cannot be sealed: {error}"));
        let mut seal = self.seal.get();
        seal.log = Some(log_end);
        seal.trees = opening::count_trees(&self.path)?;
        for tried in 1.. {
            // Each try has its own: the journals may keep what failed.
            seal.number = self.numbered.get() + 1;
            self.numbered.set(seal.number);
            let before = journal::last(&self.path).map_err(cannot)?;
            let mut batch = self.database.batch().durability(None);
            batch.insert(&self.keyspaces.about, KEY, seal.number.to_be_bytes());
            self.apply_batch(batch)?;
            seal.sequence = self.database.seqno();
            let after = journal::last(&self.path).map_err(cannot)?;
            match after {
                Some(number) if before == after => {
                    seal.journal = number;
                    break;
                }
                _ if tried == TRIES => return Err("its journals do not come to rest".into()),
                _ => {}
            }
        }
        let done = self.database.persist(PersistMode::SyncData);
        #[cfg(test)]
        self.syncs.set(self.syncs.get() + 1);
        self.broken.set(self.broken.get() || done.is_err());
        done.map_err(engine)?;
        match seal.write(&self.path) {
            Ok(()) => self.seal.set(seal),
            // The one before still says what is true.
            Err(error) => tracing::warn!(%error, "the store is not sealed anew"),
        }
        Ok(())
    }
}

impl Drop for Engine {
    /// Notes where the log ends: one that is shorter at the next opening has lost something.
    fn drop(&mut self) {
        let mut seal = self.seal.get();
        let log_end = self.logged.borrow().end();
        if seal.number == 0 || log_end.1 == 0 {
            return;
        }
        seal.log = Some(log_end);
        if let Err(error) = seal.write(&self.path) {
            tracing::debug!(%error, "the end of the store's log is not noted");
        }
    }
}
