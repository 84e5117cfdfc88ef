//! A file that comes: written under another name, and visible when it is whole and safe.

use super::depot::{LABEL_SIZE, Label};
use super::keeper::{Keeper, Step};
use super::{Client, Said};
use crate::transport::http::files::Put;
use glommio::channels::local_channel::LocalReceiver;
use glommio::io::{BufferedFile, Directory, remove, rename};
use std::io;
use std::path::Path;

/// Takes a file; whether it is there then, or its client has gone.
///
/// # Errors
/// The file system's. Nothing of the file is left then.
pub(super) async fn put(
    keeper: &Keeper,
    client: Client,
    put: &Put,
    steps: &LocalReceiver<Step>,
) -> io::Result<bool> {
    let partial = keeper.depot.borrow().partial(&put.file);
    let came = match receive(keeper, client, put, steps, &partial).await {
        Ok(true) => publish(keeper, put, &partial).await,
        other => other,
    };
    if !matches!(came, Ok(true)) {
        let _it_may_not_be_there = remove(&partial).await;
    }
    came
}

/// The answer to a failure.
pub(super) fn status(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "507 Insufficient Storage"
        }
        // The account went meanwhile, and its directory with it.
        io::ErrorKind::NotFound => "403 Forbidden",
        _ => "500 Internal Server Error",
    }
}

/// Writes what comes; whether that is all.
async fn receive(
    keeper: &Keeper,
    client: Client,
    put: &Put,
    steps: &LocalReceiver<Step>,
    partial: &Path,
) -> io::Result<bool> {
    let file = BufferedFile::create(partial).await?;
    let written = write(keeper, client, put, steps, &file).await;
    file.close().await?;
    written
}

async fn write(
    keeper: &Keeper,
    client: Client,
    put: &Put,
    steps: &LocalReceiver<Step>,
    file: &BufferedFile,
) -> io::Result<bool> {
    let label = Label {
        name: put.name.clone(),
        content_type: put.content_type.clone(),
    };
    append(file, label.block(), 0).await?;
    let (mut at, end) = (LABEL_SIZE as u64, LABEL_SIZE as u64 + put.size);
    while at < end {
        let bytes = match steps.recv().await {
            Some(Step::Chunk(bytes)) => bytes,
            Some(Step::More(_)) => continue,
            None => return Ok(false),
        };
        let size = bytes.len() as u64;
        assert!(size <= end - at, "a connection hands on what was promised");
        append(file, bytes, at).await?;
        at += size;
        keeper.say(client.shard, Said::Taken(client.conn));
    }
    let is_durable = keeper.depot.borrow().is_durable();
    if is_durable {
        file.fdatasync().await?;
    }
    Ok(true)
}

async fn append(file: &BufferedFile, bytes: Vec<u8>, at: u64) -> io::Result<()> {
    let size = bytes.len();
    let written = file.write_at(bytes, at).await?;
    // Of a regular file less is taken only where the disk is full.
    match written == size {
        true => Ok(()),
        false => Err(io::ErrorKind::StorageFull.into()),
    }
}

/// Gives the file its own name.
async fn publish(keeper: &Keeper, put: &Put, partial: &Path) -> io::Result<bool> {
    let (place, directory, is_durable) = {
        let depot = keeper.depot.borrow();
        let directory = depot.directory(&put.file.user);
        (depot.place(&put.file), directory, depot.is_durable())
    };
    // What its account's deletion has overtaken must not be the next owner's of the name.
    let comes = || keeper.depot.borrow().is_coming(&put.file);
    if !comes() {
        return Err(io::ErrorKind::NotFound.into());
    }
    rename(partial, &place).await?;
    if !comes() {
        let _it_may_have_gone_already = remove(&place).await;
        return Err(io::ErrorKind::NotFound.into());
    }
    if is_durable && let Err(error) = sync(&directory).await {
        // What the client is told to have failed is not there.
        let _it_was_ours = remove(&place).await;
        return Err(error);
    }
    Ok(true)
}

async fn sync(directory: &Path) -> io::Result<()> {
    let directory = Directory::open(directory).await?;
    let synced = directory.sync().await;
    directory.close().await?;
    Ok(synced?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_told_from_other_failures() {
        let of = |number| status(&io::Error::from_raw_os_error(number));
        const ENOENT: i32 = 2;
        const EIO: i32 = 5;
        const EFBIG: i32 = 27;
        const ENOSPC: i32 = 28;
        const EDQUOT: i32 = 122;
        for full in [EFBIG, ENOSPC, EDQUOT] {
            assert_eq!(of(full), "507 Insufficient Storage");
        }
        assert_eq!(of(ENOENT), "403 Forbidden");
        assert_eq!(of(EIO), "500 Internal Server Error");
    }
}
