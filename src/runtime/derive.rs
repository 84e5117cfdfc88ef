//! The derivation threads: PBKDF2 away from the shards, at low priority, with a queue that is
//! bounded by its work.

use crate::doorbell::{Caller, Doorbell};
use crossbeam::channel::{self, Receiver, Sender};
use ring::{Bell, Features};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use xmpp::Ticket;
use xmpp::limit::ITERATIONS_MAX;
use xmpp::stream::sasl::{DeriveJob, Derived};

/// Jobs that may wait, however short they are; one more is refused.
const JOBS_MAX: usize = 4096;

/// How long the end of the threads is waited for: some hundred times as long as an account of this
/// server takes.
const END_PATIENCE: Duration = Duration::from_millis(200);
/// How often it is looked for.
const END_POLL: Duration = Duration::from_millis(2);

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
    /// Iterations that wait or are under way. It goes with the last link, before the queue ends.
    load: Arc<AtomicU64>,
    jobs: Sender<Job>,
    derived: Receiver<(Ticket, Derived)>,
}

impl DeriveLink {
    /// Asks; `false` where too much waits already. A job that alone is too much is taken where
    /// nothing waits.
    pub(crate) fn push(&mut self, ticket: Ticket, job: Box<DeriveJob>) -> bool {
        let iterations = job.iterations();
        let add = |load: u64| {
            let sum = load.saturating_add(iterations);
            (load == 0 || sum <= ITERATIONS_MAX).then_some(sum)
        };
        let relaxed = Ordering::Relaxed;
        if self.load.fetch_update(relaxed, relaxed, add).is_err() {
            return false;
        }
        let job = Job {
            shard: self.shard,
            ticket,
            job,
        };
        let is_sent = self.jobs.try_send(job).is_ok();
        if !is_sent {
            self.load.fetch_sub(iterations, relaxed);
        }
        is_sent
    }

    /// The next answer.
    pub(crate) fn pop(&mut self) -> Option<(Ticket, Derived)> {
        self.derived.try_recv().ok()
    }
}

/// Starts `threads` threads; when every link is gone they end after the job in hand.
pub(crate) fn start(
    threads: usize,
    bells: &[Arc<Doorbell>],
    features: Features,
) -> io::Result<(Vec<DeriveLink>, Vec<JoinHandle<()>>)> {
    let shards = bells.len();
    let (links, waiting, answers) = connect(shards);
    let answers: Vec<_> = answers.into_iter().zip(bells.iter().cloned()).collect();
    let load = links
        .first()
        .map_or_else(Weak::new, |link| Arc::downgrade(&link.load));
    let mut handles = Vec::new();
    for index in 0..threads.max(1) {
        let (waiting, answers, load) = (waiting.clone(), answers.clone(), load.clone());
        let work = move || run(&waiting, &answers, &load, &features);
        handles.push(
            std::thread::Builder::new()
                .name(format!("derive-{index}"))
                .spawn(work)?,
        );
    }
    Ok((links, handles))
}

/// The links of so many shards, and the threads' ends of them.
fn connect(shards: usize) -> (Vec<DeriveLink>, Receiver<Job>, Vec<Answer>) {
    let (jobs, waiting) = channel::bounded::<Job>(JOBS_MAX);
    let load = Arc::new(AtomicU64::new(0));
    let (mut links, mut answers) = (Vec::new(), Vec::new());
    for shard in 0..shards {
        // Bounded by the jobs that may wait.
        let (answer, derived) = channel::unbounded();
        links.push(DeriveLink {
            shard,
            load: load.clone(),
            jobs: jobs.clone(),
            derived,
        });
        answers.push(answer);
    }
    (links, waiting, answers)
}

/// Waits for the threads whose links are gone. One that is still in the middle of a long derivation
/// is left alone: that cannot be interrupted, takes seconds with other servers' keys, and nobody is
/// left to be answered. The thread ends after it, or with the process.
pub(crate) fn end(threads: Vec<JoinHandle<()>>) {
    let until = Instant::now() + END_PATIENCE;
    for thread in threads {
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(END_POLL);
        }
        if thread.is_finished() && thread.join().is_err() {
            tracing::error!("a thread panicked");
        }
    }
}

fn run(
    waiting: &Receiver<Job>,
    answers: &[(Answer, Arc<Doorbell>)],
    load: &Weak<AtomicU64>,
    features: &Features,
) {
    ring::lower_thread_priority();
    let mut own = Bell::new(features).expect("rings were probed, and this one is small");
    while let Some(Job { shard, ticket, job }) = next(waiting, load) {
        let iterations = job.iterations();
        let derived = job.run();
        if let Some(load) = load.upgrade() {
            load.fetch_sub(iterations, Ordering::Relaxed);
        }
        let (answer, bell) = &answers[shard];
        if answer.send((ticket, derived)).is_ok() {
            bell.post_with(Caller::Derive.bit(bell.shards()), &mut own);
        }
    }
}

/// The next job. There is none when every link is gone, whatever is queued: nobody waits for it.
fn next(waiting: &Receiver<Job>, load: &Weak<AtomicU64>) -> Option<Job> {
    let job = waiting.recv().ok()?;
    (load.strong_count() > 0).then_some(job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmpp::stream::sasl::Password;

    fn job(iterations: u32) -> Box<DeriveJob> {
        let password = Password::new("secret".to_owned());
        Box::new(DeriveJob::verify_plain(password, None, iterations))
    }

    #[test]
    fn so_much_work_waits_and_so_many_jobs_and_a_larger_one_if_nothing_does() {
        let (mut links, waiting, _answers) = connect(2);
        let most = u32::try_from(ITERATIONS_MAX).unwrap();
        assert!(links[0].push(Ticket(1), job(most - 1)));
        assert!(links[1].push(Ticket(2), job(1)), "the last iteration");
        assert!(!links[1].push(Ticket(3), job(1)), "one more");
        assert_eq!(waiting.len(), 2);
        for larger in [most + 1, u32::MAX] {
            let (mut links, ..) = connect(2);
            assert!(
                !links[0].push(Ticket(1), job(larger)),
                "nobody would run it"
            );
            let (mut links, _waiting, _answers) = connect(2);
            assert!(links[0].push(Ticket(1), job(larger)));
            assert!(!links[1].push(Ticket(2), job(1)), "beside {larger}");
        }
        let (mut links, _waiting, _answers) = connect(1);
        for number in 0..JOBS_MAX {
            assert!(links[0].push(Ticket(number as u64), job(1)), "{number}");
        }
        assert!(!links[0].push(Ticket(0), job(1)));
        assert_eq!(links[0].load.load(Ordering::Relaxed), JOBS_MAX as u64);
    }

    #[test]
    fn what_waits_when_the_last_link_goes_is_left() {
        let (mut links, waiting, _answers) = connect(2);
        let load = Arc::downgrade(&links[0].load);
        for link in &mut links {
            assert!((0..3).all(|number| link.push(Ticket(number), job(1))));
        }
        links.pop();
        assert!(next(&waiting, &load).is_some(), "a link is left");
        links.pop();
        assert!(next(&waiting, &load).is_none());
    }
}
