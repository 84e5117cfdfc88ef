//! `--workers`: shares the clients of a run out, leads the workers through its stages together, and
//! adds up what they found.
//!
//! Invariant: every stage begins for all workers at one time of the coordinator's clock, to which
//! theirs are set; and where one worker is lost, the run is.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use ring::Features;

use super::WORKERS_MAX;
use super::protocol::{
    ANSWER_MAX, Build, Fault, Found, Job, Link, Login, Order, Progress, Report, Rings, SILENCE_MAX,
    Stretch,
};
use crate::args::RunArgs;
use crate::client::Script;
use crate::clock::{Clock, SECOND};
use crate::files;
use crate::fleet::{Findings, Slice, spent};
use crate::hdr::Packed;
use crate::judge::{self, Parts};
use crate::live::{Live, Watch, Whose};
use crate::machine::{self, Busy, Machine};
use crate::phases;
use crate::plan::{Control, Dialect, Plan};
use crate::result::{Generator, Times, WorkerResult};
use crate::run::{self, Ran};
use crate::stats::sum;
use crate::tls::Ca;

/// How long a worker's machine may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Times that a worker's clock is asked for: the quickest answer tells most.
const CLOCK_READINGS: u32 = 16;
/// Reports that wait to be read: more wait in the workers' connections.
const REPORTS_MAX: usize = 1024;
/// How long before a stretch begins workers are told of it.
const LEAD: u64 = SECOND / 5;
/// Two clocks may part by one in so many: each may be slewed by 500 ppm (adjtimex).
const DRIFT_SHARE: u64 = 1000;
/// How old the newest second is that is shown: later ones are not reported by all workers.
const SHOWN_AGE: u64 = SECOND / 2;
const STEP: Duration = Duration::from_millis(20);

/// Measures a server with workers.
///
/// # Errors
/// Why nothing could be measured.
pub fn server(args: &RunArgs, features: Features) -> Result<Ran, String> {
    let load = &args.load;
    let config = args.server_config.as_deref().map(files::config);
    let config = config.transpose()?;
    let mut live = Live::new(load.quiet, run::expected(args), load.hgrm.is_some());
    let ran = measure(args, features, &mut live);
    live.end();
    let (parts, findings) = ran?;
    Ok(run::conclude(args, parts, findings, live, config, features))
}

fn measure<'a>(
    args: &'a RunArgs,
    features: Features,
    live: &mut Live,
) -> Result<(Parts<'a>, Findings), String> {
    let load = &args.load;
    let plan = load.plan_anywhere(args.target()?, Dialect::Xmpp, Clock::start());
    plan.check()?;
    let ca = run::ca(args)?;
    // What is wrong with the certificates is told before anybody connects.
    let is_web = args.websocket.is_some();
    run::tls(args.tls, is_web, args.domain(), ca.as_ref())?;
    let script = run::script(args, args.accounts()?);
    let mut server = args.server_pid.map(run::watch).transpose()?;
    live.label("workers", Whose::Subject);
    let mut crew = Crew::gather(args, plan, &Build::own(features.to_string()))?;
    live.label("log in", Whose::Subject);
    let pid = args.server_pid;
    let cost = move || pid.and_then(machine::process_busy);
    let before = cost();
    crew.log_in(&script, ca.as_ref())?;
    crew.wait_ready(live)?;
    if let Some(server) = &mut server {
        run::charge_logins(server, crew.plan.clients, before);
    }
    let slices = crew.stretches(args, live, &cost)?;
    if let Some(server) = &mut server {
        run::charge(server, load.scenario, &slices);
    }
    live.label("close", Whose::Subject);
    let (findings, workers) = crew.finish(live)?;
    let parts = Parts {
        plan: crew.plan.clone(),
        load,
        server,
        floor: None,
        plain: None,
        slices,
        machine: Machine::read(),
        threads: workers.iter().map(|worker| worker.threads).sum(),
        workers,
    };
    Ok((parts, findings))
}

/// One worker, as the coordinator knows it.
struct Hand {
    address: String,
    link: Link,
    /// The whole plan, but for the part.
    plan: Plan,
    build: Build,
    /// Nanoseconds that the coordinator's clock is ahead of the worker's.
    ahead: i64,
    round_trip: Duration,
    rings: Rings,
    slices: Vec<Slice>,
    /// What it answered to the last order, and when that came, by the run's clock.
    answer: Option<Report>,
    answered: u64,
}

impl Drop for Hand {
    /// Whatever ended the run: who is still at it stops.
    fn drop(&mut self) {
        self.link.close();
    }
}

/// All workers of a run.
struct Crew {
    plan: Plan,
    /// One gauge for each worker, and the seconds of all.
    control: Control,
    hands: Vec<Hand>,
    inbox: Receiver<(usize, Result<Report, Fault>)>,
    sender: SyncSender<(usize, Result<Report, Fault>)>,
}

impl Crew {
    /// Greets all workers, and compares clocks.
    fn gather(args: &RunArgs, plan: Plan, own: &Build) -> Result<Crew, String> {
        let addresses = &args.workers;
        if addresses.len() > WORKERS_MAX {
            return Err(format!("--workers: {WORKERS_MAX} are the most"));
        }
        for (at, address) in addresses.iter().enumerate() {
            if addresses[..at].contains(address) {
                return Err(format!("--workers: {address} is there twice; name it once"));
            }
        }
        let parts = plan.parts(addresses.len() as u32);
        if parts.len() < addresses.len() {
            return Err(format!(
                "--workers: who talks to each other shares one, so {} is the most here; name \
                 fewer, or give more --clients",
                parts.len()
            ));
        }
        let mut hands = Vec::new();
        for (address, part) in addresses.iter().zip(parts) {
            let mut plan = plan.clone();
            plan.part = part;
            let hand = Hand::greet(address, plan, own);
            hands.push(hand.map_err(|why| format!("worker {address} {why}"))?);
        }
        let (sender, inbox) = sync_channel(REPORTS_MAX);
        Ok(Crew {
            control: Control::new(hands.len()),
            plan,
            hands,
            inbox,
            sender,
        })
    }

    /// Brings every worker its job.
    fn log_in(&mut self, script: &Script, ca: Option<&Ca>) -> Result<(), String> {
        for (index, hand) in self.hands.iter_mut().enumerate() {
            let job = Job {
                plan: hand.plan.clone(),
                login: Login::of(script, ca.cloned(), hand.plan.part),
                ahead: hand.ahead,
            };
            hand.order(&Order::Job(Box::new(job)))?;
            let mut ear = hand.link.split().map_err(|error| error.to_string())?;
            let sender = self.sender.clone();
            let listen = move || {
                loop {
                    let report = ear.receive(SILENCE_MAX);
                    let is_last = report.is_err();
                    if sender.send((index, report)).is_err() || is_last {
                        return;
                    }
                }
            };
            std::thread::Builder::new()
                .name(format!("hear {index}"))
                .spawn(listen)
                .map_err(|error| format!("cannot start a thread: {error}"))?;
        }
        Ok(())
    }

    fn wait_ready(&mut self, live: &mut Live) -> Result<(), String> {
        let total = u64::from(self.plan.clients);
        let rings = self.answers(
            live,
            |live, control, _| {
                let ready = sum(&control.gauges, |gauge| &gauge.ready);
                live.login(ready, sum(&control.gauges, |gauge| &gauge.failed), total);
            },
            |report| match report {
                Report::Ready(rings) => Some(rings),
                _ => None,
            },
        )?;
        for (hand, rings) in self.hands.iter_mut().zip(rings) {
            hand.rings = rings;
        }
        Ok(())
    }

    /// The measured part, in one piece or phase by phase.
    fn stretches(
        &mut self,
        args: &RunArgs,
        live: &mut Live,
        cost: &dyn Fn() -> Option<Busy>,
    ) -> Result<Vec<Slice>, String> {
        if self.plan.phases.is_empty() {
            live.label(
                &format!("{:?}", args.load.scenario).to_lowercase(),
                Whose::Subject,
            );
            let stretch = (None, args.load.warmup(), args.load.duration());
            return Ok(vec![self.stretch(stretch, live, cost)?]);
        }
        let mut slices = Vec::new();
        for (index, phase) in self.plan.phases.clone().into_iter().enumerate() {
            live.label(&phase.name, Whose::Subject);
            let warmup = Duration::from_secs_f64(phase.warmup);
            let length = Duration::from_secs_f64(phase.duration);
            slices.push(self.stretch((Some(index), warmup, length), live, cost)?);
        }
        Ok(slices)
    }

    /// Lets all begin at once; reads the server's cost when they do.
    fn stretch(
        &mut self,
        (phase, warmup, length): (Option<usize>, Duration, Duration),
        live: &mut Live,
        cost: &dyn Fn() -> Option<Busy>,
    ) -> Result<Slice, String> {
        let at = self.plan.clock.now() + LEAD;
        for hand in &mut self.hands {
            hand.order(&Order::Stretch(Stretch {
                phase,
                at,
                warmup,
                length,
            }))?;
        }
        let begin = at + warmup.as_nanos() as u64;
        self.pass(begin, live)?;
        let before = cost();
        let end = begin + length.as_nanos() as u64;
        self.pass(end, live)?;
        let after = cost();
        let slices = self.answers(live, show, |report| match report {
            Report::Slice(slice) => Some(slice),
            _ => None,
        })?;
        for hand in &self.hands {
            hand.check_clock(end)?;
        }
        let threads = after
            .zip(before)
            .map(|(after, before)| spent(after, &before));
        let mut all = added(&slices);
        all.at = begin as f64 / SECOND as f64;
        all.server_cpu = threads.as_ref().map(|threads| threads.values().sum());
        all.server_threads = threads.unwrap_or_default();
        for (hand, slice) in self.hands.iter_mut().zip(slices) {
            hand.slices.push(slice);
        }
        Ok(all)
    }

    /// Lets everybody close, and adds up what they found.
    fn finish(&mut self, live: &mut Live) -> Result<(Findings, Vec<WorkerResult>), String> {
        for hand in &mut self.hands {
            hand.order(&Order::Finish)?;
        }
        let found = self.answers(live, show, |report| match report {
            Report::Findings(found) => Some(*found),
            _ => None,
        })?;
        live.take(&self.control, u64::MAX);
        let mut findings = Findings::default();
        let mut workers = Vec::new();
        for (hand, found) in self.hands.iter().zip(found) {
            findings.add(&found.findings);
            workers.push(hand.result(&found));
        }
        Ok((findings, workers))
    }

    /// Waits until `end`, by the run's clock.
    fn pass(&mut self, end: u64, live: &mut Live) -> Result<(), String> {
        loop {
            let now = self.plan.clock.now();
            if now >= end {
                return Ok(());
            }
            show(live, &self.control, now);
            self.listen(STEP.min(Duration::from_nanos(end - now)))?;
        }
    }

    /// Waits for the answer of every worker: what `read` makes of it.
    fn answers<T>(
        &mut self,
        live: &mut Live,
        show: impl Fn(&mut Live, &Control, u64),
        read: impl Fn(Report) -> Option<T>,
    ) -> Result<Vec<T>, String> {
        while self.hands.iter().any(|hand| hand.answer.is_none()) {
            self.listen(STEP)?;
            show(live, &self.control, self.plan.clock.now());
        }
        let answers = self.hands.iter_mut().map(|hand| {
            let answer = hand.answer.take().and_then(&read);
            let other = "it answered another question";
            answer.ok_or_else(|| hand.sentence(&Fault::Garbled(other.into())))
        });
        answers.collect()
    }

    /// Takes what workers say within the next `time`.
    fn listen(&mut self, time: Duration) -> Result<(), String> {
        let (index, report) = match self.inbox.recv_timeout(time) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => unreachable!("the crew has a sender, too"),
        };
        let hand = &mut self.hands[index];
        match report {
            Ok(Report::Progress(progress)) => note(&self.control, index, progress),
            Ok(Report::Failed(reason)) => {
                return Err(format!("worker {}: {reason}", hand.address));
            }
            Ok(report) => {
                hand.answered = self.plan.clock.now();
                hand.answer = Some(report);
            }
            // It has nothing more to say.
            Err(_) if matches!(hand.answer, Some(Report::Findings(_))) => {}
            Err(fault) => return Err(hand.sentence(&fault)),
        }
        Ok(())
    }
}

/// Shows what all workers do.
fn show(live: &mut Live, control: &Control, now: u64) {
    live.run(control, now.saturating_sub(SHOWN_AGE));
}

/// Keeps how far a worker's clients are.
fn note(control: &Control, index: usize, progress: Progress) {
    let gauge = &control.gauges[index];
    gauge.ready.store(progress.ready, Relaxed);
    gauge.failed.store(progress.failed, Relaxed);
    gauge.sent.store(progress.sent, Relaxed);
    gauge.delivered.store(progress.delivered, Relaxed);
    gauge.outstanding.store(progress.outstanding, Relaxed);
    for (second, Packed(seen)) in progress.seconds {
        control.timeline.add(second, &seen);
    }
}

/// What the workers of a stretch did together; its busiest core is that of any of them.
fn added(slices: &[Slice]) -> Slice {
    let mut all = Slice::default();
    for slice in slices {
        all.sent += slice.sent;
        all.delivered += slice.delivered;
        all.generator_cpu += slice.generator_cpu;
        all.generator_busiest = all.generator_busiest.max(slice.generator_busiest);
    }
    let count = slices.len().max(1) as f64;
    all.seconds = slices.iter().map(|slice| slice.seconds).sum::<f64>() / count;
    all
}

impl Hand {
    /// Connects, finds out which build it is, and how its clock stands to ours.
    fn greet(address: &str, plan: Plan, own: &Build) -> Result<Hand, String> {
        let stream = connect(address).map_err(|error| {
            format!("does not answer ({error}); start `loadgen worker --listen HOST:PORT` there")
        })?;
        let peer = stream.peer_addr().map_err(|error| error.to_string())?;
        check_target(&plan, peer)?;
        let link = Link::new(stream).map_err(|error| error.to_string())?;
        let mut hand = Hand {
            address: address.to_owned(),
            link,
            plan,
            build: Build::default(),
            ahead: 0,
            round_trip: Duration::MAX,
            rings: Rings::default(),
            slices: Vec::new(),
            answer: None,
            answered: 0,
        };
        let failed = |fault: Fault| format!("{fault}; is it a `loadgen worker`?");
        hand.link
            .send(&Order::Hello(Box::new(own.clone())))
            .map_err(failed)?;
        match hand.link.receive_greeting().map_err(failed)? {
            Report::Welcome(build) => hand.build = *build,
            Report::Busy => {
                return Err("is busy with another coordinator; wait, or leave it out".into());
            }
            _ => return Err("did not greet; is it a `loadgen worker`?".into()),
        }
        if let Some(difference) = own.difference(&hand.build) {
            return Err(format!("{difference}; start both from the same build"));
        }
        hand.compare_clocks().map_err(|fault| fault.to_string())?;
        Ok(hand)
    }

    /// Asks for the time; what an answer was under way is half before and half behind the reading.
    fn compare_clocks(&mut self) -> Result<(), Fault> {
        for _ in 0..CLOCK_READINGS {
            let asked = self.plan.clock.now();
            self.link.send(&Order::Time)?;
            let Report::Time(theirs) = self.link.receive(ANSWER_MAX)? else {
                return Err(Fault::Garbled("it does not tell the time".into()));
            };
            let trip = self.plan.clock.now() - asked;
            if Duration::from_nanos(trip) < self.round_trip {
                self.round_trip = Duration::from_nanos(trip);
                // Both are what an `i64` can tell, and neither is negative.
                let theirs = i64::try_from(theirs)
                    .map_err(|_| Fault::Garbled("its clock is beyond all time".into()))?;
                self.ahead = (asked + trip / 2) as i64 - theirs;
            }
        }
        Ok(())
    }

    /// Whether its last answer came when the stretch that it tells of was over.
    fn check_clock(&self, end: u64) -> Result<(), String> {
        let trip = self.round_trip.as_nanos() as u64;
        let early = end.saturating_sub(self.answered);
        match early > trip + end / DRIFT_SHARE {
            true => Err(format!(
                "worker {} ended a stretch {:.3} s before the coordinator's clock did, so its \
                 clock is another than it was at first; see to the clock of its machine",
                self.address,
                early as f64 / SECOND as f64
            )),
            false => Ok(()),
        }
    }

    fn order(&mut self, order: &Order) -> Result<(), String> {
        self.link.send(order).map_err(|fault| self.sentence(&fault))
    }

    /// Why the run ended.
    fn sentence(&self, fault: &Fault) -> String {
        format!(
            "worker {} {fault}; the run is over, and the others stop their clients",
            self.address
        )
    }

    fn result(&self, found: &Found) -> WorkerResult {
        let meter = &found.findings.meter;
        let plan = &self.plan;
        WorkerResult {
            address: self.address.clone(),
            version: self.build.version.clone(),
            commit: self.build.commit.clone(),
            machine: self.build.machine.clone(),
            ring: self.build.ring.clone(),
            round_trip_us: self.round_trip.as_nanos() as f64 / 1e3,
            first: plan.part.first,
            clients: plan.part.count,
            threads: self.rings.threads,
            core: self.rings.core,
            generator: Generator {
                resident: found.resident,
                ..judge::generator(plan, &self.slices, meter)
            },
            latency: Times::of("latency", &meter.latency),
            verdict: found.findings.verdict,
            slices: self.slices.clone(),
            scenario_phases: phases::results(plan, &self.slices, meter),
        }
    }
}

/// Connects to the first address of a name that accepts.
fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// To another machine `127.0.0.1` is another.
fn check_target(plan: &Plan, worker: SocketAddr) -> Result<(), String> {
    let target = plan.target.ip();
    match target.is_loopback() && !worker.ip().is_loopback() {
        true => Err(format!(
            "would look for the server on its own machine ({target}); give a --host that it can \
             reach"
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;
    use std::net::TcpListener;

    fn plan(clients: &str) -> (RunArgs, Plan) {
        let cli = Cli::parse_from(["loadgen", "--clients", clients]);
        let target = "127.0.0.1:5222".parse().expect("an address");
        let plan = cli
            .run
            .load
            .plan_anywhere(target, Dialect::Xmpp, Clock::start());
        (cli.run, plan)
    }

    #[test]
    fn a_server_at_localhost_is_not_that_of_another_machine() {
        let (_, mut plan) = plan("4");
        let (near, far) = ("127.0.0.1:1", "192.0.2.7:1");
        let check = |plan: &Plan, worker: &str| check_target(plan, worker.parse().unwrap());
        assert_eq!(check(&plan, near), Ok(()));
        let error = check(&plan, far).unwrap_err();
        assert!(error.contains("on its own machine (127.0.0.1)"), "{error}");
        plan.target = "192.0.2.1:5222".parse().unwrap();
        assert_eq!((check(&plan, near), check(&plan, far)), (Ok(()), Ok(())));
    }

    #[test]
    fn workers_that_could_have_no_clients_or_are_too_many_are_refused() {
        let refused = |clients, addresses: Vec<String>| {
            let (mut args, plan) = plan(clients);
            args.workers = addresses;
            match Crew::gather(&args, plan, &Build::default()) {
                Ok(_) => panic!("nobody listens there"),
                Err(reason) => reason,
            }
        };
        let some = |count: usize| (0..count).map(|at| format!("host{at}:1")).collect();
        let reason = refused("1000", some(WORKERS_MAX + 1));
        assert_eq!(reason, "--workers: 256 are the most");
        let reason = refused("4", some(3));
        assert!(reason.contains("so 2 is the most here"), "{reason}");
        let reason = refused("4", vec!["one:1".into(), "one:1".into()]);
        assert_eq!(reason, "--workers: one:1 is there twice; name it once");
    }

    #[test]
    fn slices_add_up_and_the_busiest_core_is_one_workers() {
        let slice = |sent, busiest, seconds| Slice {
            sent,
            delivered: sent - 1,
            generator_cpu: 1.0,
            generator_busiest: busiest,
            seconds,
            ..Slice::default()
        };
        let all = added(&[slice(10, 0.2, 1.0), slice(20, 0.9, 3.0)]);
        assert_eq!((all.sent, all.delivered), (30, 28));
        let times = [all.generator_cpu, all.generator_busiest, all.seconds];
        assert!(
            [2.0, 0.9, 2.0]
                .iter()
                .zip(times)
                .all(|(one, other)| (one - other).abs() < 1e-9)
        );
    }

    /// A worker of this build whose answers are made up; it ends with the connection.
    fn fake(answer: impl Fn(Order) -> Option<Report> + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let mut link = Link::new(listener.accept().unwrap().0).unwrap();
            while let Ok(order) = link.receive(ANSWER_MAX) {
                if let Some(report) = answer(order) {
                    link.send(&report).unwrap();
                }
            }
        });
        address
    }

    fn own() -> Build {
        Build::own(String::new())
    }

    /// Greets as this build does, and tells this time.
    fn greet(order: &Order, time: u64) -> Option<Report> {
        match order {
            Order::Hello(_) => Some(Report::Welcome(Box::new(own()))),
            Order::Time => Some(Report::Time(time)),
            _ => None,
        }
    }

    #[test]
    fn a_clock_that_is_seconds_off_is_known_to_half_the_round_trip() {
        // Both began long ago, so that neither can be before its zero.
        let zero = Clock::start();
        for (own_age, their_age) in [(20, 20), (20, 13), (20, 27)] {
            let clock = |age: i64| zero.shifted(age * SECOND as i64).unwrap();
            let (own_clock, their_clock) = (clock(own_age), clock(their_age));
            let worker = fake(move |order| greet(&order, their_clock.now()));
            let (_, mut plan) = plan("4");
            plan.clock = own_clock;
            let hand = Hand::greet(&worker, plan, &own()).unwrap();
            let off = hand.ahead - (own_age - their_age) * SECOND as i64;
            // One more: half of an odd trip is rounded.
            let half = hand.round_trip.as_nanos() as u64 / 2 + 1;
            assert!(off.unsigned_abs() <= half, "{off} of {half} ns");
        }
    }

    #[test]
    fn a_clock_that_no_machine_has_is_refused() {
        let worker = fake(|order| greet(&order, u64::MAX));
        let refused = Hand::greet(&worker, plan("4").1, &own());
        let reason = refused.err().expect("it is refused");
        assert!(reason.contains("beyond all time"), "{reason}");
    }

    #[test]
    fn a_worker_that_ends_a_stretch_before_it_is_over_is_named() {
        let worker = fake(|order| match order {
            Order::Stretch(_) => Some(Report::Slice(Slice::default())),
            order => greet(&order, 0),
        });
        let (mut args, plan) = plan("4");
        args.workers = vec![worker.clone()];
        let mut crew = Crew::gather(&args, plan, &own()).unwrap();
        let script = Script::anonymous("localhost");
        crew.log_in(&script, None).unwrap();
        let mut live = Live::new(true, Duration::ZERO, false);
        let stretch = (None, Duration::ZERO, Duration::from_secs(1));
        let reason = crew.stretch(stretch, &mut live, &|| None).unwrap_err();
        let begin = format!("worker {worker} ended a stretch ");
        assert!(reason.starts_with(&begin), "{reason}");
        let hand = &mut crew.hands[0];
        // In 1,000 s the clocks may part by one.
        hand.round_trip = Duration::from_millis(1);
        let end = 1000 * SECOND;
        for (early, is_well) in [(0, true), (SECOND, true), (SECOND + SECOND / 100, false)] {
            hand.answered = end - early;
            assert_eq!(hand.check_clock(end).is_ok(), is_well, "{early}");
        }
    }
}
