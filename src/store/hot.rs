//! What managed sessions write for every stanza: it goes to the log, and mostly is gone before the
//! engine would ever see it.
//!
//! A write of the tables of sessions lies in memory, over what the engine has, until the log's file
//! that holds it is given up; then what still stands moves into the engine, a few records with each
//! commit. Invariant: a record that is not in the engine is in a file of the log that the next
//! opening replays.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound::{Included, Unbounded};

use fjall::Keyspace;
use xxhash_rust::xxh3::xxh3_64;

use crate::backup::Table;
use crate::embedded::{Engine, Key, Staged, Trouble, Writes, engine};

/// A write that the engine does not have.
#[derive(Debug)]
struct Pending {
    /// The log's generation that holds it.
    generation: u64,
    value: Option<Vec<u8>>,
}

/// The writes of one table over what the engine has.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    pending: BTreeMap<Key, Pending>,
    /// Hashes of the keys that the engine has; what is not there needs no removal.
    settled: HashSet<u64>,
    /// Behind what the present search for old writes has seen.
    cursor: Key,
}

impl Overlay {
    /// What the engine has already.
    pub(crate) fn of(keyspace: &Keyspace) -> Result<Overlay, fjall::Error> {
        let mut overlay = Overlay::default();
        for entry in keyspace.iter() {
            overlay.settled.insert(xxh3_64(&entry.key()?));
        }
        Ok(overlay)
    }

    /// Enters a write that the log holds.
    pub(crate) fn put(&mut self, key: Key, value: Option<Vec<u8>>, generation: u64) {
        if value.is_none() && !self.settled.contains(&xxh3_64(&key)) {
            self.pending.remove(&key);
        } else {
            self.pending.insert(key, Pending { generation, value });
        }
    }

    /// Of the next `count` writes, from where the last search ended, those up to `generation`;
    /// `None` at the end.
    pub(crate) fn older(&mut self, generation: u64, count: usize) -> Option<Writes> {
        let mut found = Writes::new();
        let mut last = None;
        for (key, pending) in self.pending.range(self.cursor.clone()..).take(count) {
            if pending.generation <= generation {
                found.insert(key.clone(), pending.value.clone());
            }
            last = Some(key);
        }
        match last {
            Some(last) => {
                self.cursor.clone_from(last);
                self.cursor.push(0);
                Some(found)
            }
            None => {
                self.cursor.clear();
                None
            }
        }
    }

    /// Whether something lies over what the engine has.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The engine has these now.
    pub(crate) fn settle(&mut self, writes: Writes) {
        for (key, value) in writes {
            let hash = xxh3_64(&key);
            match value {
                Some(_) => self.settled.insert(hash),
                None => self.settled.remove(&hash),
            };
            self.pending.remove(&key);
        }
    }
}

impl Engine {
    /// A record of a table of sessions as this call sees it.
    pub(crate) fn read_hot(
        &self,
        table: Table,
        staged: &Staged,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, Trouble> {
        self.note_look();
        if let Some(value) = staged.of(table).get(key) {
            return Ok(value.clone());
        }
        let hot = self.hot(table);
        if let Some(pending) = hot.pending.get(key) {
            return Ok(pending.value.clone());
        }
        if !hot.settled.contains(&xxh3_64(key)) {
            return Ok(None);
        }
        let found = self.keyspace(table).get(key).map_err(engine)?;
        Ok(found.map(|record| record.to_vec()))
    }

    /// Counts the records that reading takes, for tests.
    #[cfg(test)]
    fn note_look(&self) {
        self.looked_at.set(self.looked_at.get() + 1);
    }

    #[cfg(not(test))]
    fn note_look(&self) {}

    /// The next `count` keys of a table of sessions below `prefix`, in their order, those included
    /// that a call removed; what the present one staged is not looked at.
    pub(crate) fn next_hot(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        count: usize,
    ) -> Result<Vec<Key>, Trouble> {
        let hot = self.hot(table);
        let is_below = |key: &&Key| key.starts_with(prefix);
        let written = hot.pending.range::<[u8], _>((Included(from), Unbounded));
        let written = written.map(|(key, _)| key).take_while(is_below);
        let mut keys: Vec<Key> = written.take(count).cloned().collect();
        if !hot.settled.is_empty() {
            for entry in self.keyspace(table).range(from..).take(count) {
                let key = Key::from_slice(&entry.key().map_err(engine)?);
                if !is_below(&&key) {
                    break;
                }
                keys.push(key);
            }
        }
        keys.sort_unstable();
        keys.dedup();
        keys.truncate(count);
        Ok(keys)
    }

    /// Calls `each` with every record of a table of sessions below `prefix` as this call sees it.
    pub(crate) fn each_hot(
        &self,
        table: Table,
        staged: &Staged,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let (hot, staged) = (self.hot(table), staged.of(table));
        let from = (Included(prefix), Unbounded);
        let is_below = |key: &[u8]| key.starts_with(prefix);
        let written = || {
            hot.pending
                .range::<[u8], _>(from)
                .take_while(|(key, _)| is_below(key))
        };
        let covering = || {
            staged
                .range::<[u8], _>(from)
                .take_while(|(key, _)| is_below(key))
        };
        // Mostly nothing lies over what is there, and then nothing is looked for.
        let is_covered = covering().next().is_some();
        let is_old = written().next().is_none();
        if !hot.settled.is_empty() {
            for entry in self.keyspace(table).prefix(prefix) {
                let (key, value) = entry.into_inner().map_err(engine)?;
                self.note_look();
                let is_rewritten = is_covered && staged.contains_key(&key[..]);
                if !is_rewritten && (is_old || !hot.pending.contains_key(&key[..])) {
                    each(&key, &value)?;
                }
            }
        }
        for (key, pending) in written() {
            self.note_look();
            let is_rewritten = is_covered && staged.contains_key(key);
            if let (Some(value), false) = (&pending.value, is_rewritten) {
                each(key, value)?;
            }
        }
        for (key, value) in covering() {
            self.note_look();
            if let Some(value) = value {
                each(key, value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_went_leaves_nothing() {
        let mut overlay = Overlay::default();
        overlay.put(b"a".to_vec().into(), Some(b"1".to_vec()), 1);
        overlay.put(b"a".to_vec().into(), None, 1);
        assert!(overlay.pending.is_empty());
    }

    #[test]
    fn what_the_engine_has_is_removed_there() {
        let mut overlay = Overlay::default();
        overlay.put(b"a".to_vec().into(), Some(b"1".to_vec()), 1);
        let moved = overlay.older(1, 10).unwrap();
        assert_eq!(moved.len(), 1);
        overlay.settle(moved);
        assert!(overlay.pending.is_empty());
        overlay.put(b"a".to_vec().into(), None, 2);
        let expected = Writes::from([(b"a".to_vec().into(), None)]);
        assert_eq!(
            overlay.older(2, 10),
            None,
            "one search ends before the next"
        );
        let moved = overlay.older(2, 10).unwrap();
        assert_eq!(moved, expected);
        overlay.settle(moved);
        assert!(overlay.pending.is_empty() && overlay.settled.is_empty());
    }

    #[test]
    fn only_what_is_old_moves_and_all_of_it() {
        let mut overlay = Overlay::default();
        for number in 0..100_u8 {
            overlay.put(vec![number].into(), Some(Vec::new()), u64::from(number % 2));
        }
        let mut count = 0;
        while let Some(moved) = overlay.older(0, 7) {
            count += moved.len();
            overlay.settle(moved);
        }
        assert_eq!((count, overlay.pending.len()), (50, 50));
        assert!(overlay.pending.keys().all(|key| key[0] % 2 == 1));
    }
}
