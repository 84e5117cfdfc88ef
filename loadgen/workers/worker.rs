//! `loadgen worker`: waits for coordinators, and drives the clients that they bring, one job after
//! another.
//!
//! Invariant: it reads no file that a coordinator names, and writes none; when the coordinator goes
//! away, the clients do.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use ring::Features;

use super::protocol::{Build, Fault, Found, Job, Link, Order, Progress, Report, Rings, Stretch};
use crate::args::{SECONDS_MAX, WorkerArgs};
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::hdr::Packed;
use crate::live::{Watch, published};
use crate::machine;
use crate::plain::plain;
use crate::plan::{Control, Plan};
use crate::run;
use crate::stats::sum;

/// How often a worker says how far its clients are.
const REPORT_EVERY: Duration = Duration::from_millis(200);
/// Connections at once: that of the coordinator, and of those who are told that it is there.
pub const CONNECTIONS_MAX: usize = 16;
/// How long a coordinator may be silent before it has brought its job: it greets all workers first.
const JOB_MAX: Duration = Duration::from_secs(60);
/// How long a coordinator may say nothing while clients log in and send; where it is gone, the
/// connection ends.
const ORDER_MAX: Duration = Duration::from_secs(2 * SECONDS_MAX as u64);

/// Orders that wait to be carried out: a coordinator awaits the answer to each.
const ORDERS_MAX: usize = 4;

/// What the connections of a worker share.
struct Shared {
    args: WorkerArgs,
    features: Features,
    /// Whether a coordinator has the worker.
    taken: AtomicBool,
    connections: AtomicUsize,
}

/// Listens where it is asked to, and says so in a line.
///
/// # Errors
/// It cannot listen there.
pub fn run(args: &WorkerArgs, features: Features) -> Result<(), String> {
    let address = &args.listen;
    let listener = TcpListener::bind(address.as_str())
        .map_err(|error| format!("--listen {address}: {error}; give HOST:PORT of this machine"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    println!("loadgen worker: listening on {address}");
    serve(&listener, args, features);
    Ok(())
}

/// Serves coordinators for as long as the listener listens.
pub fn serve(listener: &TcpListener, args: &WorkerArgs, features: Features) {
    let shared = Arc::new(Shared {
        args: args.clone(),
        features,
        taken: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
    });
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors, or somebody gave up: neither lasts.
            std::thread::sleep(REPORT_EVERY);
            continue;
        };
        if shared.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let attending = shared.clone();
        let started = std::thread::Builder::new()
            .name("attend".into())
            .spawn(move || {
                attending.attend(stream);
                attending.connections.fetch_sub(1, Ordering::Relaxed);
            });
        if let Err(error) = started {
            // The connection was closed with what was to attend to it.
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            shared.say(&format!("a connection is refused: no thread ({error})"));
        }
    }
}

/// The one place that a coordinator can have; it is free again when this is dropped.
struct Seat<'a>(&'a AtomicBool);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Shared {
    fn say(&self, text: &str) {
        if !self.args.quiet {
            // It may have a name that the coordinator gave.
            eprintln!("loadgen worker: {}", plain(text));
        }
    }

    fn take_seat(&self) -> Option<Seat<'_>> {
        let was_taken = self.taken.swap(true, Ordering::AcqRel);
        // Made only where it was free: to drop one frees the place.
        (!was_taken).then(|| Seat(&self.taken))
    }

    fn attend(&self, stream: TcpStream) {
        let peer = stream.peer_addr();
        let name = peer.map_or_else(|_| "somebody".to_owned(), |peer| peer.to_string());
        let done = Link::new(stream)
            .map_err(|_| Fault::Gone)
            .and_then(|link| self.coordinate(link, &name));
        if let Err(fault) = done {
            self.say(&format!("{name} {fault}"));
        }
    }

    /// One coordinator, from its greeting to the end of its job.
    fn coordinate(&self, mut link: Link, name: &str) -> Result<(), Fault> {
        let clock = Clock::start();
        let Order::Hello(theirs) = link.receive_greeting()? else {
            return Err(Fault::Garbled("it did not greet".into()));
        };
        let Some(seat) = self.take_seat() else {
            return link.send(&Report::Busy);
        };
        let own = Build::own(self.features.to_string());
        let difference = own.difference(&theirs);
        link.send(&Report::Welcome(Box::new(own)))?;
        if difference.is_some() {
            // Whatever it says next may mean something else here.
            return Ok(());
        }
        let job = loop {
            match link.receive(JOB_MAX)? {
                Order::Time => link.send(&Report::Time(clock.now()))?,
                Order::Job(job) => break job,
                _ => return Err(Fault::Garbled("it brought no job".into())),
            }
        };
        self.say(&format!("{name} brings a job: {}", describe(&job.plan)));
        let (report, mut link) = self.carry_out(*job, clock, link);
        // Who hears of the end may come again at once.
        drop(seat);
        let (word, report) = match report {
            Ok(found) => ("done".to_owned(), Report::Findings(Box::new(found))),
            Err(reason) => (reason.clone(), Report::Failed(reason)),
        };
        self.say(&format!("the job of {name}: {word}"));
        let sent = link.send(&report);
        link.close();
        sent
    }

    /// Does a job, or says why it could not.
    fn carry_out(&self, job: Job, clock: Clock, link: Link) -> (Result<Found, String>, Link) {
        match self.start(job, clock) {
            Ok(fleet) => match Reporter::new(link, &fleet) {
                Ok(mut reporter) => {
                    let found = lead(fleet, &mut reporter);
                    (found, reporter.link)
                }
                // The clients go with the fleet.
                Err((reason, link)) => (Err(reason), link),
            },
            Err(reason) => (Err(reason), link),
        }
    }

    fn start(&self, job: Job, clock: Clock) -> Result<Fleet, String> {
        job.check()?;
        let mut plan = job.plan;
        plan.clock = clock
            .shifted(job.ahead)
            .ok_or("the coordinator's clock is further ahead than this machine's can be")?;
        plan.core = self.args.core;
        let plan = plan.fit(self.args.threads)?;
        let login = &job.login;
        let is_web = login.websocket.is_some();
        let tls = run::tls(login.tls, is_web, &login.domain, login.ca.as_ref())?;
        let script = job.login.script(&plan)?;
        Fleet::start(plan, Arc::new(script), &tls, self.features)
    }
}

/// What is to be done, in a line.
fn describe(plan: &Plan) -> String {
    let scenario = format!("{:?}", plan.scenario).to_lowercase();
    let (count, first) = (plan.part.count, plan.part.first);
    let target = plan.target;
    format!("{scenario} with {count} clients, from number {first} on, against {target}")
}

/// Leads the clients through all stages, as the coordinator orders.
fn lead(fleet: Fleet, reporter: &mut Reporter) -> Result<Found, String> {
    let ready = fleet.wait_ready(reporter);
    let led = ready.and_then(|()| {
        let threads = fleet.control.gauges.len();
        let core = fleet.plan.core;
        reporter.say(&Report::Ready(Rings { threads, core }));
        follow(&fleet, reporter)
    });
    // Whatever happened, the streams are closed and the threads end.
    let findings = fleet.finish();
    led.map_err(|reason| match &findings {
        Ok(findings) => run::explain(&reason, findings),
        Err(_) => reason,
    })?;
    reporter.report(u64::MAX);
    Ok(Found {
        findings: findings?,
        resident: machine::resident(std::process::id()).unwrap_or(0),
    })
}

/// Carries out orders until the last.
fn follow(fleet: &Fleet, reporter: &mut Reporter) -> Result<(), String> {
    loop {
        match reporter.next(fleet)? {
            Order::Stretch(stretch) => {
                check(&stretch, &fleet.plan)?;
                if let Some(phase) = stretch.phase {
                    fleet.control.begin_phase(phase);
                }
                fleet.pass(stretch.at, reporter);
                let cost = || None;
                let slice = fleet.slice(stretch.warmup, stretch.length, reporter, &cost);
                reporter.say(&Report::Slice(slice));
            }
            Order::Finish => return Ok(()),
            _ => return Err("the coordinator ordered what is no part of a job".into()),
        }
    }
}

/// Whether a stretch is one of the plan, and no longer than any may be.
fn check(stretch: &Stretch, plan: &Plan) -> Result<(), String> {
    let longest = Duration::from_secs_f64(SECONDS_MAX);
    let is_short = stretch.warmup <= longest && stretch.length <= longest;
    let is_known = match stretch.phase {
        Some(phase) => phase < plan.phases.len(),
        None => plan.phases.is_empty(),
    };
    match is_short && is_known {
        true => Ok(()),
        false => Err("the coordinator ordered a stretch that the plan does not have".into()),
    }
}

/// Tells the coordinator how far the clients are, and listens to it meanwhile.
struct Reporter {
    link: Link,
    control: Arc<Control>,
    orders: Receiver<Order>,
    /// Whether nobody listens any more.
    is_gone: Arc<AtomicBool>,
    said: Instant,
}

impl Reporter {
    /// Starts the thread that listens; it ends with the connection.
    fn new(link: Link, fleet: &Fleet) -> Result<Reporter, (String, Link)> {
        let mut ear = match link.split() {
            Ok(ear) => ear,
            Err(error) => return Err((format!("cannot listen: {error}"), link)),
        };
        let (sender, orders) = sync_channel(ORDERS_MAX);
        let is_gone = Arc::new(AtomicBool::new(false));
        let gone = is_gone.clone();
        let listen = move || {
            while let Ok(order) = ear.receive(ORDER_MAX) {
                if sender.send(order).is_err() {
                    return;
                }
            }
            gone.store(true, Ordering::Release);
        };
        let listener = std::thread::Builder::new().name("listen".into());
        if let Err(error) = listener.spawn(listen) {
            return Err((format!("cannot start a thread: {error}"), link));
        }
        Ok(Reporter {
            link,
            control: fleet.control.clone(),
            orders,
            is_gone,
            said: Instant::now(),
        })
    }

    /// The next order, however long it takes.
    fn next(&mut self, fleet: &Fleet) -> Result<Order, String> {
        loop {
            match self.orders.recv_timeout(REPORT_EVERY) {
                Ok(order) => return Ok(order),
                Err(RecvTimeoutError::Timeout) if !self.is_over() => {
                    self.report(published(fleet.plan.clock.now()));
                }
                Err(_) => return Err("the coordinator went away".into()),
            }
        }
    }

    fn say(&mut self, report: &Report) {
        if self.link.send(report).is_err() {
            self.is_gone.store(true, Ordering::Release);
        }
    }

    /// Says how far the clients are, with the seconds before `second`.
    fn report(&mut self, second: u64) {
        self.said = Instant::now();
        let seconds = self.control.timeline.take_before(second);
        let gauges = &self.control.gauges;
        let progress = Progress {
            ready: sum(gauges, |gauge| &gauge.ready),
            failed: sum(gauges, |gauge| &gauge.failed),
            sent: sum(gauges, |gauge| &gauge.sent),
            delivered: sum(gauges, |gauge| &gauge.delivered),
            outstanding: sum(gauges, |gauge| &gauge.outstanding),
            seconds: seconds
                .into_iter()
                .map(|(second, seen)| (second, Packed(seen)))
                .collect(),
        };
        self.say(&Report::Progress(progress));
    }
}

impl Watch for Reporter {
    fn login(&mut self, ready: u64, failed: u64, total: u64) {
        if self.said.elapsed() >= REPORT_EVERY || ready + failed >= total {
            self.report(0);
        }
    }

    fn run(&mut self, _: &Control, now: u64) {
        if self.said.elapsed() >= REPORT_EVERY {
            self.report(published(now));
        }
    }

    fn is_over(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }
}
