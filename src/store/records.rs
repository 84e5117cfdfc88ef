//! Reading in the middle of a call: what it staged itself lies over what is committed.

use std::ops::Bound::{Included, Unbounded};
use std::ops::RangeInclusive;

use fjall::Keyspace;
use stanza::jid::PART_SIZE_MAX;
use xmpp::port::DOCUMENT_NAME_SIZE_MAX;

use crate::embedded::{Trouble, Writes, engine};

/// Bytes of a key: the engine panics where one has more, or none.
pub(crate) const KEY_SIZE_MAX: usize = u16::MAX as usize;

// Of all keys those are the longest that name an account and a contact or a document: what stands
// before and between the names has less than 64 bytes.
const _: () = assert!(4 * PART_SIZE_MAX + DOCUMENT_NAME_SIZE_MAX + 64 <= KEY_SIZE_MAX);

/// Whether the engine can have a key.
pub(crate) fn check_key(key: &[u8]) -> Result<(), Trouble> {
    match key.len() {
        1..=KEY_SIZE_MAX => Ok(()),
        size => Err(format!("a key cannot have {size} bytes").into()),
    }
}

/// Whether a document may have a name.
pub(crate) fn check_name(name: &str) -> Result<(), Trouble> {
    match name.len() {
        ..=DOCUMENT_NAME_SIZE_MAX => Ok(()),
        size => Err(format!("a document's name has {size} bytes").into()),
    }
}

/// A record as this call sees it: what it staged itself, else what is committed.
pub(crate) fn read(
    keyspace: &Keyspace,
    staged: &Writes,
    key: &[u8],
) -> Result<Option<fjall::Slice>, Trouble> {
    match staged.get(key) {
        Some(value) => Ok(value.as_deref().map(fjall::Slice::from)),
        None => keyspace.get(key).map_err(engine),
    }
}

pub(crate) fn exists(keyspace: &Keyspace, staged: &Writes, key: &[u8]) -> Result<bool, Trouble> {
    match staged.get(key) {
        Some(value) => Ok(value.is_some()),
        None => keyspace.contains_key(key).map_err(engine),
    }
}

/// Calls `each` with every record between two keys as this call sees it.
pub(crate) fn each_between(
    keyspace: &Keyspace,
    staged: &Writes,
    keys: RangeInclusive<Vec<u8>>,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    for entry in keyspace.range(keys.clone()) {
        let (key, value) = entry.into_inner().map_err(engine)?;
        if !staged.contains_key(&key[..]) {
            each(&key, &value)?;
        }
    }
    let (first, last) = (
        Included(keys.start().as_slice()),
        Included(keys.end().as_slice()),
    );
    for (key, value) in staged.range::<[u8], _>((first, last)) {
        if let Some(value) = value {
            each(key, value)?;
        }
    }
    Ok(())
}

/// Calls `each` with every record below `prefix` as this call sees it.
pub(crate) fn each_record(
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
        .range::<[u8], _>((Included(prefix), Unbounded))
        .take_while(|(key, _)| key.starts_with(prefix));
    for (key, value) in below {
        if let Some(value) = value {
            each(key, value)?;
        }
    }
    Ok(())
}
