//! The storage thread: the only one that touches the [`Store`]; SPSC lanes to it and back.
//!
//! Group commit: while one commit runs the next batch collects, and everything that waits is
//! performed as one. A commit that follows another begins a little later than it could. Where
//! nothing waits the store does what it has to do for itself, a part at a time. Invariant: a
//! shard's operations are performed in their order.

use crate::doorbell::{Caller, Doorbell};
use crate::reader::{Asker, Reader};
use crate::uploads::Jobs;
use crossbeam::sync::{Parker, Unparker};
use ring::spsc::{self, Consumer, Producer};
use ring::{Bell, Features};
use stanza::jid::BareJid;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use xmpp::Ticket;
use xmpp::port::{Snapshot, Store, StoreOp, StoreReply};

/// Operations of one shard that fit its lane. What one more stanza asks for waits in the spill,
/// and while something does the shard takes neither bytes of clients nor parcels of siblings: the
/// spill holds what was under way. Sessions are held back long before, each by
/// [`xmpp::limit::REQUESTS_PER_SESSION_MAX`].
pub(crate) const LANE_CAPACITY: usize = 2048;
/// Operations of one commit.
const BATCH_MAX: usize = 4096;
/// The time between the beginnings of two commits, at least.
const COMMIT_INTERVAL: Duration = Duration::from_millis(1);
/// How long to wait before replies that did not fit are tried again.
const REPLY_RETRY: Duration = Duration::from_millis(1);

/// Wakes the storage thread where it sleeps.
pub(crate) struct Waker {
    sleeping: AtomicBool,
    unparker: Unparker,
}

impl Waker {
    pub(crate) fn new(unparker: Unparker) -> Waker {
        Waker {
            sleeping: AtomicBool::new(false),
            unparker,
        }
    }

    /// The thread is about to sleep: what comes from now on wakes it.
    pub(crate) fn expect_sleep(&self) {
        self.sleeping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn wake(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.unparker.unpark();
        }
    }
}

/// The accounts of a store, or why they could not be read.
pub(crate) type Listing = Result<Vec<BareJid>, Box<str>>;

/// A view of a store, or why there is none.
pub(crate) type Viewed = Result<Box<dyn Snapshot>, Box<str>>;

/// A request from outside the shards.
pub(crate) enum Request {
    /// Perform these as one commit.
    Perform(Vec<StoreOp>, Sender<Vec<StoreReply>>),
    /// List the accounts.
    Accounts(Sender<Listing>),
    /// Freeze this moment.
    Snapshot(Sender<Viewed>),
    /// End, once everything that waits is done.
    Stop,
}

/// A shard's end of its lanes.
pub(crate) struct StorageLink {
    ops: Producer<(Ticket, StoreOp)>,
    spill: VecDeque<(Ticket, StoreOp)>,
    replies: Consumer<(Ticket, StoreReply)>,
    waker: Arc<Waker>,
    /// Questions that are not answered.
    asked: usize,
}

impl StorageLink {
    /// Asks; the question leaves with the next [`StorageLink::publish`].
    pub(crate) fn push(&mut self, ticket: Ticket, op: StoreOp) {
        self.asked += 1;
        if !self.spill.is_empty() {
            self.spill.push_back((ticket, op));
        } else if let Err(item) = self.ops.push((ticket, op)) {
            self.spill.push_back(item);
        }
    }

    /// Shows the storage thread what was asked in this turn.
    pub(crate) fn publish(&mut self) {
        while let Some(item) = self.spill.pop_front() {
            if let Err(item) = self.ops.push(item) {
                self.spill.push_front(item);
                break;
            }
        }
        if self.ops.publish() {
            self.waker.wake();
        }
    }

    /// Whether questions wait that did not fit.
    pub(crate) fn is_spilling(&self) -> bool {
        !self.spill.is_empty()
    }

    /// Whether so few are asked that there is room for whoever comes.
    pub(crate) fn is_calm(&self) -> bool {
        self.asked < LANE_CAPACITY / 4
    }

    /// The next answer.
    pub(crate) fn pop(&mut self) -> Option<(Ticket, StoreReply)> {
        let answer = self.replies.pop();
        self.asked -= usize::from(answer.is_some());
        answer
    }
}

/// The storage thread's end of one shard's lanes.
struct Client {
    ops: Consumer<(Ticket, StoreOp)>,
    replies: Producer<(Ticket, StoreReply)>,
    spill: VecDeque<(Ticket, StoreReply)>,
    bell: Arc<Doorbell>,
}

/// What the thread works on.
struct Storage {
    store: Box<dyn Store>,
    /// Who is to hear of accounts that are no more.
    uploads: Option<Jobs>,
    clients: Vec<Client>,
    requests: Receiver<Request>,
    waker: Arc<Waker>,
    bell: Bell,
    batch: Vec<StoreOp>,
    askers: Vec<Asker>,
    reader: Reader,
    /// What is to be read when the batch is committed.
    readings: Vec<(Asker, StoreOp)>,
    replies: Vec<StoreReply>,
    stopping: bool,
    /// When the last commit began.
    begun: Option<Instant>,
}

/// The running thread, as its starter has it.
pub(crate) struct StorageThread {
    pub(crate) links: Vec<StorageLink>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) handle: JoinHandle<()>,
}

/// Starts the thread and makes each shard's end of its lanes, which hold `capacity` operations.
pub(crate) fn start(
    store: Box<dyn Store>,
    uploads: Option<Jobs>,
    bells: &[Arc<Doorbell>],
    requests: Receiver<Request>,
    features: Features,
    capacity: usize,
) -> io::Result<StorageThread> {
    let parker = Parker::new();
    let unparker = parker.unparker().clone();
    let waker = Arc::new(Waker::new(unparker));
    let reader = Reader::start(waker.clone())?;
    let (mut links, mut clients) = (Vec::new(), Vec::new());
    for bell in bells {
        let (to_thread, ops) = spsc::lane(capacity);
        let (replies, to_shard) = spsc::lane(LANE_CAPACITY);
        clients.push(Client {
            ops,
            replies,
            spill: VecDeque::new(),
            bell: bell.clone(),
        });
        links.push(StorageLink {
            ops: to_thread,
            spill: VecDeque::new(),
            replies: to_shard,
            waker: waker.clone(),
            asked: 0,
        });
    }
    let thread_waker = waker.clone();
    let handle = std::thread::Builder::new()
        .name("storage".into())
        .spawn(move || {
            let bell = Bell::new(&features).expect("rings were probed, and this one is small");
            let mut storage = Storage {
                store,
                uploads,
                clients,
                requests,
                waker: thread_waker,
                bell,
                batch: Vec::new(),
                askers: Vec::new(),
                reader,
                readings: Vec::new(),
                replies: Vec::new(),
                stopping: false,
                begun: None,
            };
            while storage.round(&parker) {}
        })?;
    Ok(StorageThread {
        links,
        waker,
        handle,
    })
}

impl Storage {
    /// One commit, or one sleep; `false` at the end.
    fn round(&mut self, parker: &Parker) -> bool {
        self.collect();
        let reads = !self.readings.is_empty();
        let is_behind = self.store.is_behind() && !self.stopping;
        let worked = !self.batch.is_empty() || reads || is_behind;
        if !self.batch.is_empty() || (is_behind && !reads) {
            self.gather();
            let deleted = mark_deletions(self.uploads.as_ref(), &self.batch);
            let mut ops = self.batch.drain(..);
            self.store.perform(&mut ops, &mut self.replies);
            drop(ops);
            assert_eq!(
                self.replies.len(),
                self.askers.len(),
                "a store answers every operation"
            );
            self.tell_deleted(deleted, &self.replies);
        }
        self.read();
        let waiting = self.answer();
        let asked = self.serve_request();
        if worked || asked {
            return true;
        }
        if waiting {
            std::thread::sleep(REPLY_RETRY);
            return true;
        }
        if self.stopping && !self.reader.is_busy() {
            return false;
        }
        self.waker.expect_sleep();
        let is_idle = self.clients.iter().all(|client| client.ops.is_empty());
        if is_idle && !self.take_read() && !self.serve_request() {
            parker.park();
        }
        self.waker.sleeping.store(false, Ordering::SeqCst);
        true
    }

    /// Waits for more where the last commit has only just begun: a commit costs the same whatever
    /// it holds, and a machine that is busy has better to do than many small ones.
    fn gather(&mut self) {
        if !self.batch.is_empty() && self.batch.iter().all(StoreOp::is_read) {
            return;
        }
        let begun = Instant::now();
        let early = self.begun.map_or(Duration::ZERO, |last| {
            COMMIT_INTERVAL.saturating_sub(begun.duration_since(last))
        });
        if !early.is_zero() {
            std::thread::sleep(early);
            self.collect();
        }
        self.begun = Some(begun + early);
    }

    /// Takes what waits, a fair share from each shard.
    fn collect(&mut self) {
        let share = (BATCH_MAX / self.clients.len()).max(1);
        for (index, client) in self.clients.iter_mut().enumerate() {
            for _ in 0..share {
                let Some((ticket, op)) = client.ops.pop() else {
                    break;
                };
                match op.reads_much() {
                    true => self.readings.push(((index, ticket), op)),
                    false => {
                        self.batch.push(op);
                        self.askers.push((index, ticket));
                    }
                }
            }
            client.ops.release();
        }
    }

    /// Has archives read as they are with all that was asked for before.
    fn read(&mut self) {
        for (asker, op) in std::mem::take(&mut self.readings) {
            if let Some(reading) = self.store.reading(&op) {
                self.reader.ask(asker, reading);
                continue;
            }
            self.store
                .perform(&mut std::iter::once(op), &mut self.replies);
            self.askers.push(asker);
        }
    }

    /// Takes what was read; whether something was.
    fn take_read(&mut self) -> bool {
        let mut took = false;
        while let Some(((index, ticket), reply)) = self.reader.answer() {
            self.clients[index].spill.push_back((ticket, reply));
            took = true;
        }
        took
    }

    /// Hands the replies out; says whether some did not fit.
    fn answer(&mut self) -> bool {
        for ((index, ticket), reply) in self.askers.drain(..).zip(self.replies.drain(..)) {
            self.clients[index].spill.push_back((ticket, reply));
        }
        self.take_read();
        let mut waiting = false;
        for client in &mut self.clients {
            while let Some(item) = client.spill.pop_front() {
                if let Err(item) = client.replies.push(item) {
                    client.spill.push_front(item);
                    waiting = true;
                    break;
                }
            }
            if client.replies.publish() {
                let bit = Caller::Storage.bit(client.bell.shards());
                client.bell.post_with(bit, &mut self.bell);
            }
        }
        waiting
    }

    /// Has the files of accounts removed that are no more.
    fn tell_deleted(&self, deleted: Vec<(usize, BareJid)>, replies: &[StoreReply]) {
        for (index, account) in deleted {
            if let Some(uploads) = &self.uploads {
                uploads.end_deletion(account, replies[index] == StoreReply::Done);
            }
        }
    }

    /// Answers one request from outside the shards, whose turn comes before the next; who asked may
    /// be gone, which changes nothing.
    fn serve_request(&mut self) -> bool {
        let Ok(request) = self.requests.try_recv() else {
            return false;
        };
        match request {
            Request::Perform(ops, answer) => {
                let mut replies = Vec::with_capacity(ops.len());
                let deleted = mark_deletions(self.uploads.as_ref(), &ops);
                self.store.perform(&mut ops.into_iter(), &mut replies);
                self.tell_deleted(deleted, &replies);
                let _ = answer.send(replies);
            }
            Request::Accounts(answer) => {
                let mut all = Vec::new();
                let mut each = |account| {
                    all.push(account);
                    true
                };
                let read = self.store.accounts(&mut each);
                let _ = answer.send(read.map(|()| all));
            }
            Request::Snapshot(answer) => {
                let _ = answer.send(self.store.snapshot());
            }
            Request::Stop => self.stopping = true,
        }
        true
    }
}

/// Marks the accounts that these operations delete where files are kept, which waits for that disk;
/// gives their places among the operations.
fn mark_deletions(uploads: Option<&Jobs>, ops: &[StoreOp]) -> Vec<(usize, BareJid)> {
    let Some(uploads) = uploads else {
        return Vec::new();
    };
    let deleted = ops.iter().enumerate().filter_map(|(index, op)| match op {
        StoreOp::DeleteAccount { account } => {
            uploads.mark_deleted(account);
            Some((index, account.clone()))
        }
        _ => None,
    });
    deleted.collect()
}
