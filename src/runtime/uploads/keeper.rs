//! The thread that keeps files: an executor of its own, on which every file that comes or goes is a
//! task.
//!
//! Invariant: whoever began has one last answer, unless his connection is gone: then his task ends
//! by itself, and what of a file had come is removed.

use super::depot::{Depot, Refusal, seconds};
use super::{CHUNKS_AHEAD, Client, Job, Said, Waker, put, take};
use crate::doorbell::{Caller, Doorbell};
use crate::park::PREEMPT;
use crate::transport::http::files::{Ask, Put, page};
use glommio::channels::local_channel::{LocalSender, new_unbounded};
use glommio::io::BufferedFile;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, timer};
use ring::{Bell, EventFd, Features};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, SystemTime};
use xmpp::Timestamp;

/// Memory of the executor's own I/O: files are read and written through the kernel's.
const EXECUTOR_MEMORY: usize = 64 << 10;
/// Depth of its rings.
const EXECUTOR_DEPTH: usize = 128;
/// How often old files are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(3600);
/// How long that rests after each account, so that files go on meanwhile.
const EXPIRY_REST: Duration = Duration::from_millis(1);

/// The running thread.
pub(crate) type Thread = ExecutorJoinHandle<()>;

/// What the thread starts with.
pub(super) struct Start {
    pub(super) depot: Depot,
    pub(super) jobs: Receiver<Job>,
    pub(super) waker: Arc<Waker>,
    pub(super) event: EventFd,
    pub(super) ways: Vec<(Sender<Said>, Arc<Doorbell>)>,
    pub(super) features: Features,
}

/// What a task is told.
pub(super) enum Step {
    /// The next piece of a file that comes.
    Chunk(Vec<u8>),
    /// So many pieces of one that goes are written.
    More(u32),
}

/// What all tasks share.
pub(super) struct Keeper {
    pub(super) depot: RefCell<Depot>,
    ways: Vec<(Sender<Said>, Arc<Doorbell>)>,
    bell: RefCell<Bell>,
    tasks: RefCell<HashMap<Client, LocalSender<Step>>>,
}

/// Starts the thread.
///
/// # Errors
/// Why it cannot be.
pub(super) fn spawn(start: Start) -> Result<Thread, String> {
    LocalExecutorBuilder::new(Placement::Unbound)
        .name("uploads")
        .io_memory(EXECUTOR_MEMORY)
        .ring_depth(EXECUTOR_DEPTH)
        .preempt_timer(PREEMPT)
        .spawn(move || run(start))
        .map_err(|error| error.to_string())
}

/// Does what it is asked until nobody can ask any more.
async fn run(start: Start) {
    let signalled: BufferedFile = ring::adopt(OwnedFd::from(start.event));
    let keeper = Rc::new(Keeper {
        depot: RefCell::new(start.depot),
        ways: start.ways,
        bell: RefCell::new(Bell::new(&start.features).expect("rings were probed")),
        tasks: RefCell::default(),
    });
    glommio::spawn_local(expire(keeper.clone())).detach();
    loop {
        while let Ok(job) = start.jobs.try_recv() {
            keeper.perform(job);
        }
        start.waker.is_sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        match start.jobs.try_recv() {
            Ok(job) => {
                start.waker.is_sleeping.store(false, Ordering::SeqCst);
                keeper.perform(job);
                continue;
            }
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {}
        }
        // The tasks run meanwhile.
        if let Err(error) = signalled.read_at(0, size_of::<u64>()).await {
            tracing::error!(%error, "files are kept no more");
            break;
        }
    }
    let _it_is_ours = signalled.close().await;
}

/// Removes what is too old, again and again.
async fn expire(keeper: Rc<Keeper>) {
    loop {
        let users = keeper.depot.borrow().users();
        for user in users {
            keeper.depot.borrow_mut().expire(&user, now_s());
            timer::sleep(EXPIRY_REST).await;
        }
        timer::sleep(EXPIRY_INTERVAL).await;
    }
}

/// Seconds since 1970.
pub(super) fn now_s() -> u64 {
    seconds(SystemTime::now())
}

impl Keeper {
    fn perform(self: &Rc<Keeper>, job: Job) {
        match job {
            Job::Slot(shard, ticket, request) => {
                let now = Timestamp(now_s() * 1_000_000);
                let answer = self.depot.borrow_mut().grant(&request, now);
                self.say(shard, Said::Slot(ticket, answer));
            }
            Job::Begin(client, ask, peer) => self.begin(client, *ask, peer),
            Job::Chunk(client, bytes) => self.tell(client, Step::Chunk(bytes)),
            Job::More(client, count) => self.tell(client, Step::More(count)),
            Job::Cancel(client) => {
                self.tasks.borrow_mut().remove(&client);
            }
            Job::Remove(account) => {
                let away = self.depot.borrow_mut().take_away(&account);
                if let Some(away) = away {
                    let removal = glommio::executor().spawn_blocking(move || {
                        // What stays is removed at the next start.
                        let _removed = std::fs::remove_dir_all(away);
                    });
                    glommio::spawn_local(removal).detach();
                }
            }
        }
    }

    /// A task may have ended, and its client have sent more.
    fn tell(&self, client: Client, step: Step) {
        if let Some(task) = self.tasks.borrow().get(&client) {
            let _it_may_end_now = task.try_send(step);
        }
    }

    fn begin(self: &Rc<Keeper>, client: Client, ask: Ask, peer: IpAddr) {
        if !self.depot.borrow_mut().enter(peer) {
            let busy = page("503 Service Unavailable", "Retry-After: 10\r\n");
            return self.say(client.shard, Said::Bytes(client.conn, busy, true));
        }
        let (sender, steps) = new_unbounded();
        self.tasks.borrow_mut().insert(client, sender);
        let keeper = self.clone();
        let task = async move {
            match ask {
                Ask::Put(put) => keeper.put(client, &put, &steps).await,
                Ask::Get(get) => take::take(&keeper, client, &get, &steps).await,
            }
            keeper.tasks.borrow_mut().remove(&client);
            keeper.depot.borrow_mut().leave(peer);
        };
        glommio::spawn_local(task).detach();
    }

    /// Takes a file, and says what became of it.
    async fn put(
        self: &Rc<Keeper>,
        client: Client,
        put: &Put,
        steps: &glommio::channels::local_channel::LocalReceiver<Step>,
    ) {
        let begun = self.depot.borrow_mut().begin(put, now_s());
        let answer = match begun {
            Err(Refusal::Over) => page("403 Forbidden", ""),
            Err(Refusal::There) => page("409 Conflict", ""),
            Err(Refusal::Full) => page("413 Content Too Large", ""),
            Ok(()) => {
                self.say(client.shard, Said::Ready(client.conn));
                let outcome = put::put(self, client, put, steps).await;
                let is_there = matches!(outcome, Ok(Some(_)));
                self.depot.borrow_mut().end(put, is_there, now_s());
                match outcome {
                    Ok(Some(answer)) => answer,
                    Ok(None) => return,
                    Err(error) => {
                        tracing::warn!(%error, "a file could not be kept");
                        page(put::status(&error), "")
                    }
                }
            }
        };
        self.say(client.shard, Said::Bytes(client.conn, answer, true));
    }

    /// Says something to a shard; one that has ended needs no answer.
    pub(super) fn say(&self, shard: u16, said: Said) {
        let (way, bell) = &self.ways[usize::from(shard)];
        if way.send(said).is_ok() {
            let bit = Caller::Uploads.bit(bell.shards());
            bell.post_with(bit, &mut self.bell.borrow_mut());
        }
    }
}

/// How many pieces a task may send before it is told of more.
pub(super) const CREDIT: u32 = CHUNKS_AHEAD;
