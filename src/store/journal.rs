//! The engine's journals as they lie on the disk, looked at before the engine opens them.
//!
//! The engine takes whatever it cannot read for the torn end that a crash leaves, and cuts it off
//! with all that follows. So this reads the journals first: up to the last seal (`seal.rs`) every
//! batch must be whole, and nothing is touched where one is not. What is torn behind the seal, the
//! log has, and it is cut off here. Invariant: the engine gets journals of whole batches only.
//!
//! ```text
//! 1, count of the items, sequence number                          u8, u32, u64
//! 2, kind, compression, keyspace, sizes of key, value, value      u8, u8, u8, u64, u16, u32, u32
//! key, value                                                      ..
//! 4, keyspace (it was emptied)                                    u8, u64
//! 3, XXH3 of the items, "FJL" 3                                   u8, u64, 4 bytes
//! ```
//!
//! Numbers are little-endian. Sequence numbers, which no checksum covers, grow from batch to batch.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::opening::damage;
use crate::seal::{KEY, Seal};

/// Sequence numbers that the engine passes over at most.
const STEP_MAX: u64 = 1 << 32;

const EXTENSION: &str = "jnl";
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";

/// The engine's journals by their numbers, in their order.
pub(crate) fn journals(store: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(store)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == EXTENSION) {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if let Some(number) = stem.and_then(|stem| stem.parse().ok()) {
                found.push((number, path));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The number of the journal that is written.
pub(crate) fn last(store: &Path) -> io::Result<Option<u64>> {
    Ok(journals(store)?.last().map(|(number, _)| *number))
}

/// Whether the journals have all that was sealed; what is torn behind that is cut off.
pub(crate) fn check(store: &Path, seal: &Seal) -> Result<(), Box<str>> {
    let cannot = |path: &Path, error: io::Error| -> Box<str> {
        format!("{} cannot be read: {error}", path.display()).into()
    };
    let journals = journals(store).map_err(|error| cannot(store, error))?;
    if journals
        .last()
        .is_none_or(|(number, _)| *number < seal.journal)
    {
        let name = format!("{}.{EXTENSION}", seal.journal);
        return Err(damage(&format!("its journal {name} is missing")));
    }
    let mut sequence = None;
    for (number, path) in journals {
        let bytes = std::fs::read(&path).map_err(|error| cannot(&path, error))?;
        let found = scan(&bytes, seal, &mut sequence);
        let rest = &bytes[found.end..];
        // One before the sealed one was synced whole; zeros are space that was taken ahead.
        let is_whole = match number {
            _ if number < seal.journal => rest.iter().all(|byte| *byte == 0),
            _ if number == seal.journal => found.has_seal,
            _ => true,
        };
        if !is_whole {
            let what = format!(
                "its journal {} is damaged at byte {}, before the end of what was durable",
                path.display(),
                found.end
            );
            return Err(damage(&what));
        }
        if number >= seal.journal && !rest.is_empty() {
            cut(&path, found.end).map_err(|error| {
                format!(
                    "the torn end of {} cannot be cut off: {error}",
                    path.display()
                )
            })?;
        }
    }
    Ok(())
}

fn cut(path: &Path, size: usize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(size as u64)?;
    file.sync_all()
}

struct Scanned {
    /// Where the whole batches end.
    end: usize,
    has_seal: bool,
}

fn scan(bytes: &[u8], seal: &Seal, sequence: &mut Option<u64>) -> Scanned {
    let mut scanned = Scanned {
        end: 0,
        has_seal: false,
    };
    while let Some(batch) = batch_at(&bytes[scanned.end..], seal.number) {
        let is_sealed = !scanned.has_seal && batch.is_seal;
        let is_behind = sequence.is_none_or(|before| before < batch.sequence);
        let before = sequence.unwrap_or(seal.sequence).max(seal.sequence);
        let is_near = batch.sequence < before.saturating_add(STEP_MAX);
        if !(is_behind && is_near) || is_sealed && batch.sequence >= seal.sequence {
            break;
        }
        *sequence = Some(batch.sequence);
        scanned.has_seal |= batch.is_seal;
        scanned.end += batch.size;
    }
    scanned
}

struct Batch {
    sequence: u64,
    size: usize,
    /// Whether it is that of the seal.
    is_seal: bool,
}

/// The batch that bytes begin with, if it is whole.
fn batch_at(bytes: &[u8], seal: u64) -> Option<Batch> {
    let mut rest = bytes;
    if take::<1>(&mut rest)? != [START] {
        return None;
    }
    let count = u32::from_le_bytes(take(&mut rest)?);
    let sequence = u64::from_le_bytes(take(&mut rest)?);
    let items = rest;
    let mut is_seal = false;
    for _ in 0..count {
        match take::<1>(&mut rest)? {
            [ITEM] => {
                // Kind, compression, keyspace.
                take::<10>(&mut rest)?;
                let key_size = u16::from_le_bytes(take(&mut rest)?);
                take::<4>(&mut rest)?;
                let value_size = u32::from_le_bytes(take(&mut rest)?);
                let (key, more) = rest.split_at_checked(key_size.into())?;
                let (value, more) = more.split_at_checked(value_size as usize)?;
                is_seal |= key == KEY && value == seal.to_be_bytes();
                rest = more;
            }
            [CLEAR] => {
                take::<8>(&mut rest)?;
            }
            _ => return None,
        }
    }
    let items = &items[..items.len() - rest.len()];
    let is_whole = take::<1>(&mut rest)? == [END]
        && u64::from_le_bytes(take(&mut rest)?) == xxh3_64(items)
        && take::<4>(&mut rest)? == TRAILER;
    is_whole.then_some(Batch {
        sequence,
        size: bytes.len() - rest.len(),
        is_seal,
    })
}

fn take<const SIZE: usize>(bytes: &mut &[u8]) -> Option<[u8; SIZE]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::Scratch;

    const SEAL: Seal = Seal {
        number: 9,
        journal: 5,
        sequence: 100,
        trees: 0,
        log: None,
    };

    fn batch(sequence: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut items = vec![ITEM, 0, 0];
        items.extend(7_u64.to_le_bytes());
        items.extend((key.len() as u16).to_le_bytes());
        items.extend((value.len() as u32).to_le_bytes());
        items.extend((value.len() as u32).to_le_bytes());
        items.extend(key);
        items.extend(value);
        let mut bytes = vec![START, 1, 0, 0, 0];
        bytes.extend(sequence.to_le_bytes());
        bytes.extend(&items);
        bytes.push(END);
        bytes.extend(xxh3_64(&items).to_le_bytes());
        bytes.extend(TRAILER);
        bytes
    }

    fn sealed(sequence: u64) -> Vec<u8> {
        batch(sequence, KEY, &SEAL.number.to_be_bytes())
    }

    /// What is left of journals with these numbers and bytes, or what is wrong with them.
    fn checked(journals: &[(u64, &[u8])]) -> Result<Vec<usize>, String> {
        let scratch = Scratch::new();
        let path = |number: u64| scratch.0.join(format!("{number}.jnl"));
        for (number, bytes) in journals {
            std::fs::write(path(*number), bytes).unwrap();
        }
        check(&scratch.0, &SEAL).map_err(String::from)?;
        let left = |(number, _): &(u64, &[u8])| std::fs::read(path(*number)).unwrap().len();
        Ok(journals.iter().map(left).collect())
    }

    #[test]
    fn up_to_the_seal_everything_must_be_whole_and_behind_it_the_end_may_be_torn() {
        let (one, seal, two) = (batch(1, b"a", b"1"), sealed(2), batch(3, b"b", b"2"));
        let bytes = [&one[..], &seal, &two].concat();
        let behind = one.len() + seal.len();
        assert_eq!(checked(&[(5, &bytes)]), Ok(vec![bytes.len()]));
        for place in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place] ^= 0x80;
            for damaged in [&flipped[..], &bytes[..place]] {
                match checked(&[(5, damaged)]) {
                    // A greater sequence number does no harm behind all others.
                    Ok(left) if left == [bytes.len()] => {
                        assert!((behind + 5..behind + 9).contains(&place), "{place}");
                    }
                    Ok(left) => assert!(place >= behind && left == [behind], "{place}"),
                    Err(told) => {
                        assert!(place < behind, "{place}: {told}");
                        assert!(told.contains("5.jnl is damaged at byte"), "{told}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_sequence_number_tells_a_batch_that_is_not_in_its_place() {
        let late = [batch(100, b"a", b"1"), sealed(101)].concat();
        assert!(checked(&[(5, &late)]).is_err());
        let early = [batch(3, b"a", b"1"), sealed(2)].concat();
        assert!(checked(&[(5, &early)]).is_err());
    }

    #[test]
    fn an_older_journal_must_be_whole_and_a_younger_one_may_be_torn() {
        let (old, seal, young) = (batch(1, b"a", b"1"), sealed(2), batch(3, b"b", b"2"));
        let zeros = [&old[..], &[0; 50]].concat();
        let torn = &young[..young.len() - 1];
        assert_eq!(
            checked(&[(4, &zeros), (5, &seal), (6, torn)]),
            Ok(vec![zeros.len(), seal.len(), 0])
        );
        let told = checked(&[(4, &old[..9]), (5, &seal)]).unwrap_err();
        assert!(told.contains("4.jnl is damaged at byte 0"), "{told}");
    }

    #[test]
    fn a_sealed_journal_may_be_given_up_for_younger_ones_and_is_missed_without() {
        let young = batch(3, b"b", b"2");
        assert_eq!(checked(&[(6, &young)]), Ok(vec![young.len()]));
        for journals in [&[(4, &young[..])][..], &[]] {
            let told = checked(journals).unwrap_err();
            assert!(told.contains("5.jnl is missing"), "{told}");
        }
    }
}
