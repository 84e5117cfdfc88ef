//! The derivation threads: PBKDF2 away from the shards, at low priority, with a bounded queue.

use crate::doorbell::{Caller, Doorbell};
use crossbeam::channel::{self, Receiver, Sender};
use ring::{Bell, Features};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use xmpp::Ticket;
use xmpp::stream::sasl::{DeriveJob, Derived};

/// Jobs that may wait; one more is refused. At about 2 ms each this is a quarter of the time that a
/// client has to authenticate.
const JOBS_MAX: usize = 4096;

struct Job {
    shard: usize,
    ticket: Ticket,
    job: Box<DeriveJob>,
}

/// The way of the answers to one shard.
type Answer = Sender<(Ticket, Derived)>;

/// A shard's way to the threads and back.
pub(crate) struct DeriveLink {
    shard: usize,
    jobs: Sender<Job>,
    derived: Receiver<(Ticket, Derived)>,
}

impl DeriveLink {
    /// Asks; `false` where too many wait already.
    pub(crate) fn push(&mut self, ticket: Ticket, job: Box<DeriveJob>) -> bool {
        self.jobs
            .try_send(Job {
                shard: self.shard,
                ticket,
                job,
            })
            .is_ok()
    }

    /// The next answer.
    pub(crate) fn pop(&mut self) -> Option<(Ticket, Derived)> {
        self.derived.try_recv().ok()
    }
}

/// Starts `threads` threads; they end when every link is gone.
pub(crate) fn start(
    threads: usize,
    bells: &[Arc<Doorbell>],
    features: Features,
) -> io::Result<(Vec<DeriveLink>, Vec<JoinHandle<()>>)> {
    let (jobs, waiting) = channel::bounded::<Job>(JOBS_MAX);
    let (mut links, mut answers) = (Vec::new(), Vec::new());
    for (shard, bell) in bells.iter().enumerate() {
        // Bounded by the jobs that may wait.
        let (answer, derived) = channel::unbounded();
        links.push(DeriveLink {
            shard,
            jobs: jobs.clone(),
            derived,
        });
        answers.push((answer, bell.clone()));
    }
    let mut handles = Vec::new();
    for index in 0..threads.max(1) {
        let (waiting, answers) = (waiting.clone(), answers.clone());
        let work = move || run(&waiting, &answers, &features);
        handles.push(
            std::thread::Builder::new()
                .name(format!("derive-{index}"))
                .spawn(work)?,
        );
    }
    Ok((links, handles))
}

fn run(waiting: &Receiver<Job>, answers: &[(Answer, Arc<Doorbell>)], features: &Features) {
    ring::lower_thread_priority();
    let mut own = Bell::new(features).expect("rings were probed, and this one is small");
    while let Ok(Job { shard, ticket, job }) = waiting.recv() {
        let derived = job.run();
        let (answer, bell) = &answers[shard];
        if answer.send((ticket, derived)).is_ok() {
            bell.post_with(Caller::Derive.bit(bell.shards()), &mut own);
        }
    }
}
