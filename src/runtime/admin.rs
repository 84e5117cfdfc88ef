//! The local admin socket: how `vorpal user ..` reaches a running server.
//!
//! A Unix socket of mode 0600 in the data directory; who may open it may do everything. The
//! protocol is one JSON line per request and reply, described in [`protocol`]; lines may be sent
//! ahead of their answers, which keep the order. It runs on plain threads beside the shards and
//! reaches storage through [`AdminBackend`].

mod client;
pub mod protocol;

pub use client::{Answer, Client, ClientError};

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use stanza::jid::BareJid;
use xmpp::port::{Snapshot, StoreOp, StoreReply};

use protocol::{ACCOUNTS_PER_LINE, LINE_SIZE_MAX, OPS_MAX, Reply, Request};

/// The socket's name in the data directory.
pub const SOCKET_NAME: &str = "admin.sock";

/// The directory beside it in which the socket is made.
const FRESH_NAME: &str = "admin";

/// Connections served at once; one more is told so and closed.
const CLIENTS_MAX: usize = 8;

/// How long a connection may stay silent, or refuse to take its reply.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What the admin socket needs of the server. Calls block, and come from threads of their own.
pub trait AdminBackend: Send + Sync + 'static {
    /// The domain served: accounts of another are refused.
    fn domain(&self) -> &str;

    /// Performs `ops`, which delete no account, as one commit and answers each, in order.
    fn perform(&self, ops: Vec<StoreOp>) -> Vec<StoreReply>;

    /// Every account, ordered by JID.
    ///
    /// # Errors
    /// What the store says, in words.
    fn accounts(&self) -> Result<Vec<BareJid>, Box<str>>;

    /// A view of this moment.
    ///
    /// # Errors
    /// What the store says, in words.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Box<str>> {
        Err("there is nothing to be backed up".into())
    }

    /// Deletes an account when none of its contacts has a subscription with it any more. Then its
    /// streams end (`not-authorized`), its state is forgotten. Answered like
    /// [`StoreOp::DeleteAccount`], in bounded time.
    fn delete(&self, account: BareJid) -> StoreReply;
}

/// Where the socket of a data directory is, in a form that fits into a socket's address, however
/// long the directory's path is.
pub(crate) struct Place {
    /// Open as long as the path is used, which leads through it.
    _directory: File,
    path: PathBuf,
}

impl Place {
    pub(crate) fn of(data: &Path) -> io::Result<Place> {
        let directory = File::open(data)?;
        let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd());
        Ok(Place {
            _directory: directory,
            path: path.into(),
        })
    }

    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.path)
    }
}

/// The running socket; dropping it takes it away.
pub struct AdminSocket {
    place: Place,
    stop: Arc<AtomicBool>,
}

impl AdminSocket {
    /// Puts the socket into the directory `data` and serves it on a thread named `admin`.
    ///
    /// # Errors
    /// The directory refuses it, or another server answers.
    pub fn serve(data: &Path, backend: impl AdminBackend) -> io::Result<AdminSocket> {
        let place = Place::of(data)?;
        if place.connect().is_ok() {
            let path = data.join(SOCKET_NAME);
            let text = format!("another server answers on {}", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        let listener = bind(&place.path)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || accept(&listener, &stopped, &Arc::new(backend)))?;
        Ok(AdminSocket { place, stop })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // The listener sleeps in accept: this wakes it, and then nobody can connect any more.
        let _woken = self.place.connect();
        let _removed = std::fs::remove_file(&self.place.path);
    }
}

/// Binds in a directory that nobody else may look into, so that nobody can connect before the mode
/// is 0600: a socket listens as soon as it has a name.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let directory = path.with_file_name(FRESH_NAME);
    let fresh = directory.join("s");
    // What a killed server left.
    for left in [
        std::fs::remove_file(&fresh),
        std::fs::remove_dir(&directory),
    ] {
        match left {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    DirBuilder::new().mode(0o700).create(&directory)?;
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    std::fs::remove_dir(&directory)?;
    Ok(listener)
}

fn accept<B: AdminBackend>(listener: &UnixListener, stop: &AtomicBool, backend: &Arc<B>) {
    let serving = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = listener.accept();
        if stop.load(Ordering::Acquire) {
            return;
        }
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin socket cannot accept");
                // Out of descriptors, most likely: asking again at once would only burn a core.
                std::thread::sleep(Duration::from_secs(1));
                continue;
            }
        };
        if serving.fetch_add(1, Ordering::AcqRel) >= CLIENTS_MAX {
            serving.fetch_sub(1, Ordering::AcqRel);
            let busy = "The server's admin socket is busy; try again later.";
            let _gone = write_line(&mut &stream, &Reply::Error(busy.into()));
            continue;
        }
        let (backend, ended) = (Arc::clone(backend), Arc::clone(&serving));
        let spawned = std::thread::Builder::new()
            .name("admin-client".into())
            .spawn(move || {
                if let Err(error) = converse(&stream, &*backend) {
                    tracing::debug!(%error, "admin client gone");
                }
                ended.fetch_sub(1, Ordering::AcqRel);
            });
        if let Err(error) = spawned {
            serving.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(%error, "admin socket cannot start a thread");
        }
    }
}

/// A line as it was understood, or what is to be said to it.
type Asked = Result<Request, String>;

/// Serves one connection until it ends. This thread reads, another one answers: while a line is
/// performed the next is parsed, and no more than that.
fn converse(stream: &UnixStream, backend: &impl AdminBackend) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_MAX))?;
    stream.set_write_timeout(Some(IDLE_MAX))?;
    let (asking, asked) = mpsc::sync_channel(0);
    let owes = Owes::default();
    std::thread::scope(|scope| {
        let answering = std::thread::Builder::new()
            .name("admin-answer".into())
            .spawn_scoped(scope, || {
                let answered = answer_all(asked, stream, &owes, backend);
                // Nobody listens any more: the other thread need not wait for what they would say.
                let _gone = stream.shutdown(Shutdown::Both);
                answered
            })?;
        let read = read_all(stream, &owes, &asking);
        drop(asking);
        match answering.join() {
            Ok(answered) => read.and(answered),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What a client waits for.
#[derive(Default)]
struct Owes {
    answers: AtomicUsize,
    /// Whether it had one since this was asked last.
    has_answered: AtomicBool,
}

impl Owes {
    fn was_busy(&self) -> bool {
        self.answers.load(Ordering::Acquire) > 0 || self.has_answered.swap(false, Ordering::AcqRel)
    }

    fn answered(&self) {
        self.has_answered.store(true, Ordering::Release);
        self.answers.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Hands over what a client asks until it ends.
fn read_all(stream: &UnixStream, owes: &Owes, asking: &SyncSender<Asked>) -> io::Result<()> {
    // There may be megabytes to parse, and clients go first.
    ring::lower_thread_priority();
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        match reader.fill_buf() {
            // Who waits for an answer, or has just had one, has nothing to say.
            Err(error) if is_timeout(&error) && owes.was_busy() => continue,
            filled => filled?,
        };
        let (request, is_last) = match read_line(&mut reader, &mut line)? {
            Line::End => return Ok(()),
            Line::TooLong => {
                let text = format!("A request has at most {LINE_SIZE_MAX} bytes.");
                (Err(text), true)
            }
            Line::Whole => {
                let request = serde_json::from_slice(&line);
                let request = request.map_err(|error| format!("This is no request: {error}."));
                (request, false)
            }
        };
        owes.answers.fetch_add(1, Ordering::AcqRel);
        if asking.send(request).is_err() || is_last {
            return Ok(());
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Answers what is asked, in order.
fn answer_all(
    asked: Receiver<Asked>,
    stream: &UnixStream,
    owes: &Owes,
    backend: &impl AdminBackend,
) -> io::Result<()> {
    let mut writer = BufWriter::new(stream);
    for request in asked {
        match request {
            Ok(Request::Perform(ops)) => write_line(&mut writer, &perform(ops, backend))?,
            Ok(Request::List) => list(&mut writer, backend)?,
            Ok(Request::Backup(file)) => back_up(&mut writer, Path::new(&file), backend)?,
            Err(text) => write_line(&mut writer, &Reply::Error(text))?,
        }
        owes.answered();
    }
    Ok(())
}

fn perform(ops: Vec<protocol::Op>, backend: &impl AdminBackend) -> Reply {
    if ops.len() > OPS_MAX {
        return Reply::Error(format!("A request has at most {OPS_MAX} operations."));
    }
    let ops = ops.into_iter().map(|op| op.into_store_op(backend.domain()));
    let ops: Vec<StoreOp> = match ops.collect() {
        Ok(ops) => ops,
        Err(refusal) => return Reply::Error(refusal),
    };
    let replies = perform_in_order(ops, backend);
    Reply::Replies(replies.into_iter().map(protocol::Outcome::from).collect())
}

/// What lies between two deletions is one commit; these are more than storage's.
fn perform_in_order(ops: Vec<StoreOp>, backend: &impl AdminBackend) -> Vec<StoreReply> {
    let mut replies = Vec::with_capacity(ops.len());
    let mut writes = Vec::new();
    for op in ops {
        match op {
            StoreOp::DeleteAccount { account } => {
                if !writes.is_empty() {
                    replies.extend(backend.perform(std::mem::take(&mut writes)));
                }
                replies.push(backend.delete(account));
            }
            write => writes.push(write),
        }
    }
    if !writes.is_empty() {
        replies.extend(backend.perform(writes));
    }
    replies
}

fn list(writer: &mut impl Write, backend: &impl AdminBackend) -> io::Result<()> {
    let accounts = match backend.accounts() {
        Ok(accounts) => accounts,
        Err(error) => return write_line(writer, &Reply::Error(error.into())),
    };
    for page in accounts.chunks(ACCOUNTS_PER_LINE) {
        let page = page.iter().map(|account| account.as_str().into()).collect();
        write_line(writer, &Reply::Accounts(page))?;
    }
    write_line(writer, &Reply::Accounts(Vec::new()))
}

/// Writes a backup from this thread; the storage thread only freezes the moment.
fn back_up(writer: &mut impl Write, file: &Path, backend: &impl AdminBackend) -> io::Result<()> {
    if !file.is_absolute() {
        let text = "A backup's path must be absolute.";
        return write_line(writer, &Reply::Error(text.into()));
    }
    let mut told = Ok(());
    let mut progress = |count| {
        if told.is_ok() {
            told = write_line(writer, &Reply::Progress(count));
        }
    };
    let saved = backend
        .snapshot()
        .and_then(|snapshot| snapshot.save(file, &mut progress));
    told?;
    write_line(
        writer,
        &match saved {
            Ok(count) => Reply::Saved(count),
            Err(error) => Reply::Error(error.into()),
        },
    )
}

/// What [`read_line`] found.
enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads one line of at most [`LINE_SIZE_MAX`] bytes into `line`.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let size = reader
        .by_ref()
        .take(LINE_SIZE_MAX as u64 + 1)
        .read_until(b'\n', line)?;
    Ok(match line.last() {
        None => Line::End,
        Some(_) if size > LINE_SIZE_MAX => Line::TooLong,
        Some(b'\n') => Line::Whole,
        // Cut off in the middle: whoever wrote it is gone.
        Some(_) => Line::End,
    })
}

fn write_line(writer: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line)?;
    writer.flush()
}

#[cfg(test)]
mod tests;
