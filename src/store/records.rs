//! Reading in the middle of a call: what it staged itself lies over what is committed.

use std::ops::Bound::{Included, Unbounded};
use std::ops::RangeInclusive;

use fjall::Keyspace;

use crate::embedded::{Trouble, Writes, engine};

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
