//! Files that users put on the server (XEP-0363): the way from the shards to the thread that keeps
//! them, and back.
//!
//! Invariant: no shard waits for a disk, and of each connection at most [`CHUNKS_AHEAD`] pieces are
//! between its shard and the disk. What an upload may do is written in its slot's token, so that no
//! shard has to remember slots.

mod depot;
mod keeper;
mod put;
pub mod slot;
mod take;

use crate::doorbell::Doorbell;
use crate::transport::http::files::Ask;
use keeper::Start;
use ring::{EventFd, Features};
use slot::Keys;
use stanza::jid::BareJid;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;
use xmpp::port::Store;
use xmpp::xep::upload::{SlotAnswer, SlotRequest};
use xmpp::{ConnId, Ticket};

pub(crate) use depot::LABEL_SIZE;
pub(crate) use keeper::Thread;

/// Bytes of a file that go to the disk, or come from it, at once.
pub(crate) const CHUNK_SIZE: usize = 64 << 10;
/// Pieces of one connection that are on their way to the disk, or from it, at most.
pub(crate) const CHUNKS_AHEAD: u32 = 2;
/// How long a slot may be used.
pub(crate) const SLOT_LIFETIME: Duration = Duration::from_secs(300);
/// Slots of one account that are not used yet.
const SLOTS_PER_USER_MAX: usize = 64;
/// Files that come at once, and files that go: with what is ahead of each, at most some 100 MB of
/// memory. Each has its own, as files go to whoever has a URL.
const TRANSFERS_MAX: usize = 128;
/// Those from and to one address, together; an IPv6 network of 64 bits is one.
const TRANSFERS_PER_ADDRESS_MAX: u32 = 64;
/// Plain descriptors of all those, and of what is done beside them.
pub(crate) const DESCRIPTORS: u64 = 2 * TRANSFERS_MAX as u64 + 32;
/// Files of one account that come at once.
const COMING_PER_USER_MAX: usize = 16;

/// What is kept of uploads, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadConfig {
    /// Where everything is kept.
    pub directory: PathBuf,
    /// Where the site is for all the world: `https://` and a host, perhaps with a port.
    pub url: Box<str>,
    /// Bytes of one file.
    pub size_max: u64,
    /// Bytes that are kept of one account.
    pub quota: u64,
    /// Bytes that one account may put in a day.
    pub daily: u64,
    /// How long files are kept; `None` is for ever.
    pub lifetime: Option<Duration>,
    /// Whether a file that was taken survives a crash of the machine.
    pub durable: bool,
}

/// What the keeper is asked.
pub(crate) enum Job {
    /// A slot is wanted; by a shard.
    Slot(u16, Ticket, Box<SlotRequest>),
    /// A transfer begins.
    Begin(Client, Box<Ask>, IpAddr),
    /// A piece of a file, behind those before it.
    Chunk(Client, Vec<u8>),
    /// So many pieces of a file are written to the client.
    More(Client, u32),
    /// The connection is gone.
    Cancel(Client),
    /// An account is no more.
    Remove(BareJid),
}

/// A connection, with the shard that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    pub(crate) shard: u16,
    pub(crate) conn: ConnId,
}

/// What the keeper says.
#[derive(Debug)]
pub(crate) enum Said {
    /// To the request for a slot.
    Slot(Ticket, SlotAnswer),
    /// A file may come.
    Ready(ConnId),
    /// A piece of it is with the disk.
    Taken(ConnId),
    /// Bytes for the client; whether they are the last ones.
    Bytes(ConnId, Vec<u8>, bool),
    /// What was promised to the client cannot be had.
    Broken(ConnId),
}

/// Wakes the keeper where it sleeps.
struct Waker {
    is_sleeping: AtomicBool,
    event: File,
}

impl Waker {
    fn wake(&self) {
        // What was sent must be visible before it is looked whether the keeper sleeps.
        fence(Ordering::SeqCst);
        if self.is_sleeping.swap(false, Ordering::SeqCst) {
            // A counter that is full is no zero, either.
            let _counted = (&self.event).write(&1_u64.to_ne_bytes());
        }
    }
}

/// The way to the keeper. When the last one is gone the keeper ends.
pub(crate) struct Jobs {
    jobs: Option<Sender<Job>>,
    waker: Arc<Waker>,
    marks: Arc<Marks>,
}

impl Jobs {
    pub(crate) fn push(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("it goes with this");
        // It takes jobs as long as anybody can send some, after a failure, too.
        let _sent = jobs.send(job);
        self.waker.wake();
    }

    /// Notes that an account is about to be deleted. It waits for the disk.
    pub(crate) fn mark_deleted(&self, account: &BareJid) {
        let Marks { directory, keys } = &*self.marks;
        if let Err(error) = depot::mark(directory, &keys.user(account.as_str())) {
            tracing::error!(%error, "files may outlive their account if the server crashes now");
        }
    }

    /// An account was deleted, or was not.
    pub(crate) fn end_deletion(&self, account: BareJid, is_deleted: bool) {
        if is_deleted {
            return self.push(Job::Remove(account));
        }
        let Marks { directory, keys } = &*self.marks;
        if let Err(error) = depot::unmark(directory, &keys.user(account.as_str())) {
            tracing::error!(%error, "a mark of a deletion stays until the next start");
        }
    }
}

impl Clone for Jobs {
    fn clone(&self) -> Jobs {
        Jobs {
            jobs: self.jobs.clone(),
            waker: self.waker.clone(),
            marks: self.marks.clone(),
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.jobs = None;
        self.waker.wake();
    }
}

/// A shard's way to the keeper and back.
pub(crate) struct UploadLink {
    shard: u16,
    jobs: Jobs,
    said: Receiver<Said>,
}

impl UploadLink {
    pub(crate) fn ask_slot(&self, ticket: Ticket, request: Box<SlotRequest>) {
        self.jobs.push(Job::Slot(self.shard, ticket, request));
    }

    pub(crate) fn begin(&self, conn: ConnId, ask: Box<Ask>, peer: IpAddr) {
        self.jobs.push(Job::Begin(self.client(conn), ask, peer));
    }

    pub(crate) fn chunk(&self, conn: ConnId, bytes: Vec<u8>) {
        self.jobs.push(Job::Chunk(self.client(conn), bytes));
    }

    pub(crate) fn more(&self, conn: ConnId, count: u32) {
        self.jobs.push(Job::More(self.client(conn), count));
    }

    pub(crate) fn cancel(&self, conn: ConnId) {
        self.jobs.push(Job::Cancel(self.client(conn)));
    }

    /// What was said next.
    pub(crate) fn pop(&self) -> Option<Said> {
        self.said.try_recv().ok()
    }

    fn client(&self, conn: ConnId) -> Client {
        let shard = self.shard;
        Client { shard, conn }
    }
}

/// The running keeper, as its starter has it.
pub(crate) struct Uploads {
    pub(crate) links: Vec<UploadLink>,
    pub(crate) jobs: Jobs,
    pub(crate) thread: Thread,
}

/// Where marks are made of accounts that are about to be deleted.
struct Marks {
    directory: PathBuf,
    keys: Arc<Keys>,
}

/// Starts the keeper. The files of accounts go that a crash has let `store` delete without them.
///
/// # Errors
/// What stood in the way, in one sentence.
pub(crate) fn start(
    config: UploadConfig,
    keys: Arc<Keys>,
    store: &mut dyn Store,
    bells: &[Arc<Doorbell>],
    features: Features,
) -> Result<Uploads, String> {
    let marks = Arc::new(Marks {
        directory: config.directory.clone(),
        keys: keys.clone(),
    });
    let directory = config.directory.clone();
    let depot = depot::Depot::open(config, keys).map_err(|error| {
        let directory = directory.display();
        format!(
            "{directory} ({error}): let the server's user write there and nobody else, or name \
             another directory in [upload]"
        )
    })?;
    let depot = depot.without_deleted(store)?;
    let event = EventFd::new().map_err(|error| error.to_string())?;
    let own = event.try_clone().map_err(|error| error.to_string())?;
    let waker = Arc::new(Waker {
        is_sleeping: AtomicBool::new(false),
        event: File::from(OwnedFd::from(event)),
    });
    // What waits is bounded by who asks: of a connection a beginning, what is ahead and an end; of
    // a session as many slots as it may have requests; and what is said is an answer to those.
    let (sender, jobs) = mpsc::channel();
    let sender = Jobs {
        jobs: Some(sender),
        waker: waker.clone(),
        marks,
    };
    let (mut links, mut ways) = (Vec::new(), Vec::new());
    for (shard, bell) in bells.iter().enumerate() {
        let (say, said) = mpsc::channel();
        links.push(UploadLink {
            shard: shard as u16,
            jobs: sender.clone(),
            said,
        });
        ways.push((say, bell.clone()));
    }
    let start = Start {
        depot,
        jobs,
        waker,
        event: own,
        ways,
        features,
    };
    let thread = keeper::spawn(start)?;
    Ok(Uploads {
        links,
        jobs: sender,
        thread,
    })
}

/// Notes that an account is about to be deleted, where no server runs.
///
/// # Errors
/// The directory's.
pub fn mark(directory: &Path, keys: &Keys, account: &BareJid) -> io::Result<()> {
    depot::mark(directory, &keys.user(account.as_str()))
}

/// Removes what an account has put, where no server runs.
///
/// # Errors
/// The directory's.
pub fn remove(directory: &Path, keys: &Keys, account: &BareJid) -> io::Result<()> {
    depot::remove(directory, &keys.user(account.as_str()))
}
