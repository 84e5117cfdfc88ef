//! The thread that keeps files: an executor of its own, on which every file that comes or goes is a
//! task.
//!
//! Invariant: whoever began has one last answer, unless his connection is gone: then his task ends
//! by itself, and what of a file had come is removed.

use super::depot::{Depot, Refusal, seconds};
use super::slot::User;
use super::{Client, Job, Said, Waker, put, take};
use crate::doorbell::{Caller, Doorbell};
use crate::park::PREEMPT;
use crate::transport::http::files::{Ask, Put, created, instead, page};
use glommio::channels::local_channel::{LocalSender, new_unbounded};
use glommio::io::BufferedFile;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement, timer};
use ring::{Bell, EventFd, Features};
use stanza::jid::BareJid;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::{Duration, SystemTime};
use xmpp::Timestamp;
use xmpp::xep::upload::SlotAnswer;

/// Memory of the executor's own I/O: files are read and written through the kernel's.
const EXECUTOR_MEMORY: usize = 64 << 10;
/// Depth of its rings.
const EXECUTOR_DEPTH: usize = 128;
/// How often old files are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(3600);
/// How long that rests after each account, so that files go on meanwhile.
const EXPIRY_REST: Duration = Duration::from_millis(1);

/// Threads that do for the executor what its rings cannot.
const BLOCKING_THREADS: usize = 4;
/// What who is refused for a while is told.
pub(super) const UNAVAILABLE: &str = "503 Service Unavailable";
/// What he is told besides.
pub(super) const RETRY: &str = "Retry-After: 10\r\n";

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

/// A transfer that goes on.
struct Task {
    steps: LocalSender<Step>,
    user: User,
}

/// What all tasks share.
pub(super) struct Keeper {
    pub(super) depot: RefCell<Depot>,
    ways: Vec<(Sender<Said>, Arc<Doorbell>)>,
    bell: RefCell<Bell>,
    tasks: RefCell<HashMap<Client, Task>>,
}

/// Starts the thread.
///
/// # Errors
/// Why it cannot be.
pub(super) fn spawn(start: Start) -> Result<Thread, String> {
    let (up, ready) = mpsc::channel();
    let thread = LocalExecutorBuilder::new(Placement::Unbound)
        .name("uploads")
        .io_memory(EXECUTOR_MEMORY)
        .ring_depth(EXECUTOR_DEPTH)
        .preempt_timer(PREEMPT)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
        .spawn(move || run(start, up))
        .map_err(|error| error.to_string())?;
    match ready.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        // Its executor was not made; why that is it says at its end.
        Err(_) => Err(thread.join().map_or_else(
            |error| error.to_string(),
            |()| "its thread did not start".to_owned(),
        )),
    }
}

/// Does what it is asked until nobody can ask any more; says before that it does, or why not.
async fn run(start: Start, up: Sender<Result<(), String>>) {
    let bell = match Bell::new(&start.features) {
        Ok(bell) => bell,
        Err(error) => {
            let _told = up.send(Err(error.to_string()));
            return;
        }
    };
    let _told = up.send(Ok(()));
    drop(up);
    let signalled: BufferedFile = ring::adopt(OwnedFd::from(start.event));
    let keeper = Rc::new(Keeper {
        depot: RefCell::new(start.depot),
        ways: start.ways,
        bell: RefCell::new(bell),
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
            keeper.give_up();
            refuse_all(&start.jobs, |shard, said| keeper.say(shard, said));
            break;
        }
    }
    let _it_is_ours = signalled.close().await;
}

/// Answers whoever asks that nothing is kept any more, until nobody can ask. It blocks.
fn refuse_all(jobs: &Receiver<Job>, say: impl Fn(u16, Said)) {
    for job in jobs {
        match job {
            Job::Slot(shard, ticket, _) => say(shard, Said::Slot(ticket, SlotAnswer::Failed)),
            Job::Begin(client, ask, _) => {
                say(client.shard, Said::Bytes(client.conn, busy(&ask), true));
            }
            // What a deletion has marked goes at the next start.
            Job::Remove(_) | Job::Chunk(..) | Job::More(..) | Job::Cancel(_) => {}
        }
    }
}

/// The answer to what cannot be done now.
fn busy(ask: &Ask) -> Vec<u8> {
    match ask {
        Ask::Put(_) => page(UNAVAILABLE, RETRY),
        Ask::Get(get) => instead(get, UNAVAILABLE, RETRY),
    }
}

/// Removes what is too old, again and again.
async fn expire(keeper: Rc<Keeper>) {
    loop {
        let users = keeper.depot.borrow().users();
        for user in users {
            let removal = keeper.depot.borrow().removal_of_old(&user, now_s());
            let freed = match removal {
                Some(removal) => glommio::executor().spawn_blocking(removal).await,
                None => 0,
            };
            keeper.depot.borrow_mut().forget(&user, freed, now_s());
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
                self.end_tasks(&account);
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

    /// Ends all that goes on for an account that is no more.
    fn end_tasks(&self, account: &BareJid) {
        let user = self.depot.borrow().user(account);
        let ended = self
            .tasks
            .borrow_mut()
            .extract_if(|_, task| task.user == user)
            .collect();
        self.break_off(ended);
    }

    /// Ends all that goes on.
    fn give_up(&self) {
        let ended = self.tasks.borrow_mut().drain().collect();
        self.break_off(ended);
    }

    /// Who waits for what these would do waits for nothing.
    fn break_off(&self, tasks: Vec<(Client, Task)>) {
        for (client, _it_ends_without_its_steps) in tasks {
            self.say(client.shard, Said::Broken(client.conn));
        }
    }

    /// A task may have ended, and its client have sent more.
    fn tell(&self, client: Client, step: Step) {
        if let Some(task) = self.tasks.borrow().get(&client) {
            let _it_may_end_now = task.steps.try_send(step);
        }
    }

    fn begin(self: &Rc<Keeper>, client: Client, ask: Ask, peer: IpAddr) {
        let (user, comes) = match &ask {
            Ask::Put(put) => (put.file.user, true),
            Ask::Get(get) => (get.file.user, false),
        };
        if !self.depot.borrow_mut().enter(peer, comes) {
            return self.say(client.shard, Said::Bytes(client.conn, busy(&ask), true));
        }
        let (sender, steps) = new_unbounded();
        let task = Task {
            steps: sender,
            user,
        };
        self.tasks.borrow_mut().insert(client, task);
        let keeper = self.clone();
        let task = async move {
            match ask {
                Ask::Put(put) => keeper.put(client, &put, &steps).await,
                Ask::Get(get) => take::take(&keeper, client, &get, &steps).await,
            }
            keeper.tasks.borrow_mut().remove(&client);
            keeper.depot.borrow_mut().leave(peer, comes);
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
            Err(Refusal::Busy) => page(UNAVAILABLE, RETRY),
            Err(Refusal::Full) => page("413 Content Too Large", ""),
            Ok(()) => {
                self.say(client.shard, Said::Ready(client.conn));
                let outcome = put::put(self, client, put, steps).await;
                let is_there = matches!(outcome, Ok(true));
                self.depot.borrow_mut().end(put, is_there, now_s());
                match outcome {
                    Ok(true) => created(),
                    Ok(false) => return,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::http::files::Get;
    use crate::uploads::slot::FileId;
    use xmpp::xep::upload::SlotRequest;
    use xmpp::{ConnId, Ticket};

    #[test]
    fn a_keeper_that_has_failed_answers_whoever_asks() {
        let (sender, jobs) = mpsc::channel();
        let client = Client {
            shard: 2,
            conn: ConnId {
                index: 3,
                generation: 4,
            },
        };
        let get = Get {
            file: FileId {
                user: [1; 16],
                number: [2; 16],
            },
            name: "a".into(),
            tag: "".into(),
            has_it: false,
            span: None,
            is_head: true,
        };
        let request = SlotRequest {
            account: BareJid::from_prepared("a@b.c"),
            name: "a".into(),
            content_type: "".into(),
            size: 1,
        };
        for job in [
            Job::Begin(client, Box::new(Ask::Get(get)), [192, 0, 2, 1].into()),
            Job::More(client, 1),
            Job::Slot(1, Ticket(5), Box::new(request)),
        ] {
            sender.send(job).expect("it is there");
        }
        drop(sender);
        let said = RefCell::new(Vec::new());
        refuse_all(&jobs, |shard, what| said.borrow_mut().push((shard, what)));
        let said = said.into_inner();
        let [(2, Said::Bytes(conn, page, true)), (1, slot)] = &said[..] else {
            panic!("{said:?}");
        };
        assert!(*conn == client.conn && page.starts_with(b"HTTP/1.1 503 "));
        assert!(page.ends_with(b"\r\n\r\n"), "a HEAD is answered by a head");
        assert!(matches!(slot, Said::Slot(Ticket(5), SlotAnswer::Failed)));
    }
}
