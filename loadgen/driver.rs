//! A ring thread: it owns one ring and a share of the clients, and does all their I/O.
//!
//! Invariant: everything written in a turn leaves in one send per connection at the turn's end,
//! as a server under test would like it and as the floor's relay does.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use hdrhistogram::Histogram;
use ring::{Buffers, Completion, ConnectPlan, Features, Op, Pool, Ring, RingConfig, Token};
use rustls_pki_types::ServerName;

use crate::client::{Client, Script, Step};
use crate::clock::SECOND;
use crate::derive::{Inbox, Request};
use crate::fleet::Findings;
use crate::ledger::Ledger;
use crate::mix::Mix;
use crate::plan::{Control, Pace, Plan, SLOTS_SPARE, Scenario, Stage};
use crate::random::Random;
use crate::rooms::Doors;
use crate::schedule::Schedule;
use crate::stats::{Gauge, Meter, histogram};
use crate::tls::Tls;
use crate::web::Web;
use crate::wire::Shape;

/// How long a thread sleeps at most before it looks at the stage again.
const TICK: u64 = 5_000_000;
/// A due time nearer than this is awaited awake: a timer would be later than that.
const SPIN: u64 = 80_000;
/// The shortest sleep of a generator that does not wait awake.
const NAP: u64 = 250_000;
/// Logins of the first round that one thread has under way at once, where no rate is asked for.
const LOGINS_MAX: u32 = 256;
/// Connections from one source address: beyond it the kernel's search for a port slows down.
const CONNECTIONS_PER_ADDRESS: u32 = 9_500;
/// Source addresses in 127.0.0.0/8 that are cycled through.
const ADDRESSES: u32 = 60_000;
/// Bytes of unused output buffers that a thread keeps.
const POOL_MAX: usize = 64 << 20;
/// How long closing streams may take at the end.
const CLOSING_MAX: u64 = 10 * SECOND;
/// Room for what a client says in a turn of its login.
pub(crate) const LOGIN_SIZE: usize = 512;
pub(crate) const GROUP: u16 = 0;

/// Everything a ring thread needs to begin.
pub struct Job {
    /// Which of the fleet's threads this is.
    pub thread: usize,
    /// Its first client.
    pub first: u32,
    /// How many clients it has.
    pub count: u32,
    /// The core it is pinned to, where it is.
    pub core: Option<usize>,
    /// Whether several of the fleet's threads run on one core.
    pub shares_core: bool,
    /// The fleet's plan.
    pub plan: Arc<Plan>,
    /// What the clients say to log in.
    pub script: Arc<Script>,
    /// TLS, where it is used.
    pub tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// Shared with the controller.
    pub control: Arc<Control>,
    /// What the kernel offers.
    pub features: Features,
    /// The derivation thread.
    pub derive: Sender<Request>,
}

/// One connection with its client.
#[derive(Default)]
pub(crate) struct Line {
    pub(crate) client: Client,
    pub(crate) secure: Option<Box<Secure>>,
    /// The frames between TLS and the stream, where there are any.
    pub(crate) web: Option<Box<Web>>,
    /// The beginning of a piece whose end has not arrived.
    pub(crate) held: Vec<u8>,
    pub(crate) out: Vec<u8>,
    pub(crate) generation: u32,
    /// Counts sends, to choose partners in turn.
    pub(crate) turn: u32,
    /// Stanzas (or broadcasts) sent and not yet wholly delivered.
    pub(crate) inflight: u16,
    pub(crate) open: bool,
    pub(crate) sending: bool,
    pub(crate) dirty: bool,
    pub(crate) receiving: bool,
    pub(crate) closing: bool,
    pub(crate) cancelled: bool,
    pub(crate) shut: bool,
    /// When a login was due, in the open loop.
    pub(crate) due: u64,
    /// Since when it can log in again.
    pub(crate) idle_since: u64,
}

pub(crate) struct Secure {
    pub(crate) tls: Tls,
    /// The beginning of a record.
    pub(crate) tail: Vec<u8>,
    /// Handshake bytes to be sent as they are.
    pub(crate) raw: Vec<u8>,
}

/// A running ring thread.
pub(crate) struct Worker {
    pub(crate) job: Job,
    pub(crate) ring: Ring,
    pub(crate) pool: Pool,
    pub(crate) lines: Vec<Line>,
    pub(crate) dirty: Vec<u32>,
    pub(crate) idle: VecDeque<u32>,
    pub(crate) stage: (Stage, u64),
    pub(crate) now: u64,
    pub(crate) shape: Shape,
    pub(crate) ledger: Ledger,
    pub(crate) jids: Vec<Box<str>>,
    /// Per sender and window place: copies of a broadcast still expected.
    pub(crate) rounds: Vec<u16>,
    pub(crate) meter: Meter,
    pub(crate) second: (u64, Histogram<u64>),
    pub(crate) record_from: u64,
    pub(crate) random: Random,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) connects: Option<Schedule>,
    pub(crate) logging_in: u32,
    pub(crate) begun: u32,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) plain: Vec<u8>,
    pub(crate) xml: Vec<u8>,
    pub(crate) cipher: Vec<u8>,
    pub(crate) timer_until: u64,
    pub(crate) reached: u64,
    /// Deliveries that what was sent should make.
    pub(crate) copies_sent: u64,
    pub(crate) busy_read: u64,
    /// Requests for acknowledgement that are not answered in full.
    pub(crate) acks_open: u64,
    /// What clients do where that is several things.
    pub(crate) mix: Option<Box<Mix>>,
    /// The rooms that clients enter, where they do.
    pub(crate) doors: Option<Box<Doors>>,
    /// Whether the first round of logins, which is not measured, is over.
    learned: bool,
}

/// Runs a ring thread to its end.
///
/// # Errors
/// What the kernel refused.
pub fn run(job: Job) -> Result<Findings, String> {
    if let Some(core) = job.core {
        ring::pin_thread(core)
            .map_err(|error| format!("cannot pin a thread to core {core}: {error}"))?;
    }
    let config = RingConfig {
        entries: 4096,
        completions: 16_384,
        slots: job.count + SLOTS_SPARE,
    };
    let ring = Ring::new(&config, &job.features).map_err(|error| {
        format!(
            "cannot set up a ring with {} descriptors: {error}",
            config.slots
        )
    })?;
    let buffers = Buffers::new(&ring, GROUP, None)
        .map_err(|error| format!("cannot set up receive buffers: {error}"))?;
    Worker::new(job, ring).run(buffers)
}

impl Worker {
    fn new(job: Job, ring: Ring) -> Worker {
        let plan = job.plan.clone();
        let seed = plan.seed_of(job.thread);
        let now = plan.clock.now();
        let share = f64::from(job.count) / f64::from(plan.clients);
        let window = match plan.pace {
            Pace::Closed { window } => window,
            Pace::Open { .. } => 0,
        };
        let rounds = match plan.is_pairwise() {
            true => 0,
            false => job.count as usize * window as usize,
        };
        let fixed = crate::schedule::Arrivals::Fixed;
        Worker {
            ring,
            pool: Pool::new(POOL_MAX),
            lines: (0..job.count).map(|_| Line::default()).collect(),
            dirty: Vec::new(),
            idle: (0..job.count).collect(),
            stage: (Stage::Connect, 0),
            now,
            shape: Shape::new(&plan),
            ledger: Ledger::new(job.count, plan.topology(job.count)),
            jids: vec![Box::default(); job.count as usize],
            rounds: vec![0; rounds],
            meter: Meter::default(),
            second: (0, histogram()),
            record_from: u64::MAX,
            random: Random::new(seed),
            schedule: None,
            connects: plan
                .connect_rate
                .map(|rate| Schedule::new(now, rate * share, fixed, seed)),
            logging_in: 0,
            begun: 0,
            failures: BTreeMap::new(),
            inbox: Arc::default(),
            plain: Vec::new(),
            xml: Vec::new(),
            cipher: Vec::new(),
            timer_until: u64::MAX,
            reached: 0,
            copies_sent: 0,
            busy_read: 0,
            acks_open: 0,
            learned: false,
            doors: Doors::of(&job).map(Box::new),
            mix: (plan.scenario == Scenario::Mixed).then(|| Box::new(Mix::new(&plan, job.count))),
            job,
        }
    }

    pub(crate) fn gauge(&self) -> &Gauge {
        &self.job.control.gauges[self.job.thread]
    }

    fn run(mut self, mut buffers: Buffers) -> Result<Findings, String> {
        let mut completions = Vec::with_capacity(4096);
        let clock = self.job.plan.clock;
        let mut finish_by = u64::MAX;
        loop {
            self.now = clock.now();
            self.look_at_stage();
            if self.stage.0 == Stage::Finish {
                if finish_by == u64::MAX {
                    finish_by = self.now + CLOSING_MAX;
                    self.close_all();
                }
                if self.now >= finish_by || self.lines.iter().all(|line| !line.open) {
                    break;
                }
            } else {
                self.begin_connections()?;
                self.take_keys();
                self.send_what_is_due();
            }
            self.flush();
            self.sleep()
                .map_err(|error| format!("the ring failed: {error}"))?;
            self.ring.reap(Some(&mut buffers), &mut completions);
            for completion in completions.drain(..) {
                self.on_completion(completion, &mut buffers);
            }
            self.update_gauge();
        }
        self.close_second();
        let verdict = self.settle();
        Ok(Findings {
            verdict,
            meter: self.meter,
            failures: self.failures,
        })
    }

    /// Waits for completions, at most until something is due.
    fn sleep(&mut self) -> std::io::Result<()> {
        let due = self.next_due().min(self.now + TICK);
        // Threads that share a core would only take it from each other.
        let spins = self.job.plan.spins && !self.job.shares_core;
        let spin = if spins { SPIN } else { 0 };
        if due <= self.now + spin {
            return self.ring.run_deferred();
        }
        // Who does not wait awake wakes for several stanzas at a time.
        let due = if self.job.plan.spins {
            due
        } else {
            due.max(self.now + NAP)
        };
        if due < self.timer_until {
            // A later timer may still be armed: its completion is an idle turn, no more.
            self.ring
                .timeout(0, 0, Duration::from_nanos(due - self.now - spin / 2))?;
            self.timer_until = due;
        }
        self.ring.submit_and_wait(1)
    }

    fn next_due(&self) -> u64 {
        let sending = match self.stage.0 {
            Stage::Warm | Stage::Measure => self.schedule.as_ref().map(Schedule::due),
            _ => None,
        };
        let connecting = match self.idle.is_empty() {
            false => self.connects.as_ref().map(Schedule::due),
            true => None,
        };
        let returning = self.mix.as_ref().and_then(|mix| mix.lost.first());
        // One that is due and not back waits for the end of its old connection.
        let returning = returning.map(|(at, _)| *at).filter(|at| *at > self.now);
        let all = [sending, connecting, returning];
        all.into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    fn look_at_stage(&mut self) {
        let stage = self.job.control.stage();
        if stage == self.stage {
            return;
        }
        let before = self.stage.0;
        self.stage = stage;
        let sends = |stage| matches!(stage, Stage::Warm | Stage::Measure);
        let phase = self.job.control.phase();
        let is_next = self.mix.as_ref().is_some_and(|mix| mix.phase != phase);
        if sends(stage.0) && (is_next || !sends(before)) {
            self.start_sending();
        }
        if sends(before) && !sends(stage.0) {
            self.stop_sending();
        }
        match stage.0 {
            Stage::Warm => self.record_from = u64::MAX,
            Stage::Measure => {
                self.record_from = stage.1;
                if self.job.plan.scenario == Scenario::Login && !self.learned {
                    // The first round learned the salts; only what follows is the measurement,
                    // all turns of it.
                    self.learned = true;
                    self.meter.start_over();
                }
            }
            Stage::Connect | Stage::Hold | Stage::Finish => {}
        }
    }

    fn begin_connections(&mut self) -> Result<(), String> {
        let login = self.job.plan.scenario == Scenario::Login;
        let first_round = self.begun < self.job.count;
        if login && !first_round {
            return self.begin_logins();
        }
        while !self.idle.is_empty() && self.begun < self.job.count {
            match &mut self.connects {
                Some(schedule) if schedule.due() > self.now => break,
                Some(schedule) => schedule.advance(),
                None if self.logging_in >= LOGINS_MAX => break,
                None => {}
            }
            let Some(index) = self.idle.pop_front() else {
                break;
            };
            self.connect(index, self.now)?;
        }
        Ok(())
    }

    /// The login scenario's repeated logins.
    fn begin_logins(&mut self) -> Result<(), String> {
        if !matches!(self.stage.0, Stage::Warm | Stage::Measure) {
            return Ok(());
        }
        loop {
            let due = match &self.schedule {
                Some(schedule) if schedule.due() > self.now => break,
                Some(schedule) => schedule.due(),
                None => self.now,
            };
            let Some(index) = self.idle.pop_front() else {
                break;
            };
            if let Some(schedule) = &mut self.schedule {
                schedule.advance();
            }
            // One that was due before the measured part and begins in it counts, too: a schedule
            // that is far behind has no others.
            if self.schedule.is_some() && self.stage.0 == Stage::Measure {
                self.record_login_lag(due, self.lines[index as usize].idle_since);
            }
            self.ledger.verdict.sent += 1;
            self.connect(index, due)?;
        }
        Ok(())
    }

    /// How late a login begins, by the generator's fault: before there was a client for it, it
    /// could not.
    fn record_login_lag(&mut self, due: u64, idle_since: u64) {
        let late = self.now.saturating_sub(due.max(idle_since));
        self.meter.lag.saturating_record(late);
        self.meter.waited += u64::from(idle_since > due);
    }

    pub(crate) fn connect(&mut self, index: u32, due: u64) -> Result<(), String> {
        let line = &mut self.lines[index as usize];
        line.generation = line.generation.wrapping_add(1) & Token::GENERATION_MASK;
        line.open = true;
        line.due = due;
        (line.closing, line.cancelled, line.receiving) = (false, false, false);
        line.client.on_connect(self.now);
        if self.job.script.websocket.is_some() {
            line.web = Some(Box::new(Web::new(&mut self.random)));
        }
        let source = match self.job.plan.target.ip() {
            IpAddr::V4(target) if target.is_loopback() => {
                // The fleet without TLS, whose accounts come behind the others', shares none
                // of their addresses beyond what one may have.
                let account = self.job.script.first_account + self.job.first + index;
                Some(source_of(account, line.generation))
            }
            _ => None,
        };
        let plan = ConnectPlan {
            source,
            target: self.job.plan.target,
        };
        // Who fails at once was logging in, too.
        self.logging_in += 1;
        self.begun += 1;
        self.ring
            .connect(index, line.generation, &plan)
            .map_err(|error| format!("cannot connect: {error}"))
    }

    fn on_completion(&mut self, completion: Completion, buffers: &mut Buffers) {
        let Token {
            op,
            slot,
            generation,
        } = completion.token;
        match op {
            Op::Timeout => self.timer_until = u64::MAX,
            Op::Connect | Op::Recv | Op::Send | Op::Close => {
                let known = self.lines.get(slot as usize).map(|line| line.generation);
                if known == Some(generation) {
                    self.on_line(op, slot, &completion, buffers);
                }
            }
            _ => {}
        }
        if let Some(chunk) = completion.chunk {
            buffers.give_back(chunk);
        }
        if let Some(buffer) = completion.buffer {
            self.pool.give(buffer);
        }
    }

    pub(crate) fn touch(&mut self, index: u32) {
        let line = &mut self.lines[index as usize];
        if !line.dirty {
            line.dirty = true;
            if !line.sending {
                self.dirty.push(index);
            }
        }
    }

    /// Gives `out` a buffer of the pool before something is written into it.
    pub(crate) fn prepare(&mut self, index: u32, size: usize) {
        let line = &mut self.lines[index as usize];
        if line.out.capacity() == 0 {
            line.out = self.pool.take(size);
        }
    }

    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let line = &mut self.lines[index as usize];
            if line.sending || !line.open || line.closing {
                continue;
            }
            line.dirty = false;
            let mut bytes = std::mem::take(&mut line.out);
            if let (Some(web), Some(path)) = (&mut line.web, &self.job.script.websocket) {
                let mut framed = self.pool.take(bytes.len() + LOGIN_SIZE);
                web.write(path, &self.job.script.domain, &mut bytes, &mut framed);
                match bytes.is_empty() {
                    true => self.pool.give(bytes),
                    // The server has to agree first.
                    false => line.out = bytes,
                }
                bytes = framed;
            }
            if let Some(secure) = &mut line.secure {
                let mut sealed = std::mem::take(&mut secure.raw);
                if !bytes.is_empty() {
                    if sealed.capacity() == 0 {
                        sealed = self.pool.take(bytes.len() + 64);
                    }
                    let result = secure.tls.seal(&mut secure.tail, &bytes, &mut sealed);
                    if let Err(reason) = result {
                        self.fail(index, format!("TLS: {reason}"));
                        continue;
                    }
                }
                self.pool.give(std::mem::replace(&mut bytes, sealed));
            }
            if bytes.is_empty() {
                self.pool.give(bytes);
            } else {
                let line = &mut self.lines[index as usize];
                line.sending = true;
                self.ring.send(index, line.generation, bytes, 0);
            }
        }
        // Failures above may have touched others; nothing new is dirty otherwise.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    fn take_keys(&mut self) {
        for ((index, generation), keys) in self.inbox.take() {
            let line = &self.lines[index as usize];
            if line.generation == generation && line.client.step == Step::Deriving {
                let turn = self.with_client(index, |client, cx| client.on_keys(cx, &keys));
                self.on_turn(index, turn);
            }
        }
    }
}

/// The source address of an account's connections, by the `generation` of the connection.
fn source_of(account: u32, generation: u32) -> IpAddr {
    let place = (account / CONNECTIONS_PER_ADDRESS + generation) % ADDRESSES;
    // 127.0.0.1 is left to others; 250 addresses of each 127.0.x are used.
    IpAddr::V4(Ipv4Addr::new(
        127,
        0,
        (place / 250) as u8,
        2 + (place % 250) as u8,
    ))
}

#[cfg(test)]
mod tests;
