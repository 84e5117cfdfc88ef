//! A file that goes: read as fast as its client takes it.

use super::depot::{LABEL_SIZE, Label};
use super::keeper::{Keeper, RETRY, Step, UNAVAILABLE};
use super::{CHUNK_SIZE, CHUNKS_AHEAD, Client, Said};
use crate::transport::http::files::{Get, head, instead};
use glommio::channels::local_channel::LocalReceiver;
use glommio::io::BufferedFile;
use std::io;

/// Sends a file, or says that it is not there.
pub(super) async fn take(keeper: &Keeper, client: Client, get: &Get, steps: &LocalReceiver<Step>) {
    let place = keeper.depot.borrow().place(&get.file);
    let file = match BufferedFile::open(&place).await.map_err(io::Error::from) {
        Ok(file) => file,
        Err(error) => {
            let answer = missing(get, &error);
            return keeper.say(client.shard, Said::Bytes(client.conn, answer, true));
        }
    };
    if let Err(error) = send(keeper, client, get, steps, &file).await {
        tracing::warn!(%error, "a file could not be read");
        keeper.say(client.shard, Said::Broken(client.conn));
    }
    let _it_was_read = file.close().await;
}

/// The answer where a file cannot be opened: what is wrong with us passes.
fn missing(get: &Get, error: &io::Error) -> Vec<u8> {
    if error.kind() == io::ErrorKind::NotFound {
        return instead(get, "404 Not Found", "");
    }
    tracing::warn!(%error, "a file could not be opened");
    instead(get, UNAVAILABLE, RETRY)
}

async fn send(
    keeper: &Keeper,
    client: Client,
    get: &Get,
    steps: &LocalReceiver<Step>,
    file: &BufferedFile,
) -> io::Result<()> {
    let say = |bytes, is_last| keeper.say(client.shard, Said::Bytes(client.conn, bytes, is_last));
    let label = file.read_at(0, LABEL_SIZE).await?;
    let label = Label::read(&label).filter(|label| label.name == get.name);
    let size = file.file_size().await?.checked_sub(LABEL_SIZE as u64);
    let (Some(label), Some(size)) = (label, size) else {
        say(instead(get, "404 Not Found", ""), true);
        return Ok(());
    };
    let (head, range) = head(get, size, &label.content_type);
    say(head, range.is_empty());
    let (mut at, mut credit) = (range.start, CHUNKS_AHEAD - 1);
    while at < range.end {
        if credit == 0 {
            match steps.recv().await {
                Some(Step::More(count)) => credit += count,
                Some(Step::Chunk(_)) => {}
                None => return Ok(()),
            }
            continue;
        }
        let wanted = (range.end - at).min(CHUNK_SIZE as u64) as usize;
        let bytes = file.read_at(LABEL_SIZE as u64 + at, wanted).await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at += bytes.len() as u64;
        credit -= 1;
        say(bytes.to_vec(), at == range.end);
    }
    Ok(())
}
