//! A fleet: all ring threads of one target, and the stages they are led through.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use ring::Features;
use rustls_pki_types::ServerName;

use crate::client::Script;
use crate::derive;
use crate::driver::{self, Job};
use crate::ledger::Verdict;
use crate::live::Watch;
use crate::machine::Busy;
use crate::plain;
use crate::plan::{Control, Dialect, Plan, Scenario, Stage};
use crate::scenario::Action;
use crate::stats::{Meter, sum};
use crate::wire::Shape;

/// How long what is outstanding may take to arrive after sending stopped.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long after everything expected has arrived the fleet stays to see what else comes.
const SETTLE: Duration = Duration::from_millis(200);
/// How long a fleet may make no progress while it logs in.
const STUCK_MAX: Duration = Duration::from_secs(60);
/// What keeps clients from becoming ready whom nobody waits for.
const OVER: &str = "nobody waits for the clients any more";
const STEP: Duration = Duration::from_millis(20);

/// TLS as a fleet uses it.
pub type TlsSetup = Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>;

/// Running ring threads.
pub struct Fleet {
    /// What they do.
    pub plan: Arc<Plan>,
    /// How far they are.
    pub control: Arc<Control>,
    /// The machine's.
    cores: usize,
    /// Bytes of the longest room's address; none where there are no rooms.
    room_size: usize,
    threads: Vec<JoinHandle<Result<Findings, String>>>,
}

/// What a fleet found in all.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub struct Findings {
    /// The account of all deliveries.
    pub verdict: Verdict,
    /// All histograms.
    pub meter: Meter,
    /// Why clients failed.
    #[serde(deserialize_with = "plain::names")]
    pub failures: BTreeMap<String, u64>,
}

impl Findings {
    /// Adds what others found.
    pub fn add(&mut self, other: &Findings) {
        self.verdict.add(&other.verdict);
        self.meter.add(&other.meter);
        for (reason, count) in &other.failures {
            *self.failures.entry(reason.clone()).or_default() += count;
        }
    }
}

/// One measured stretch of a run.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Slice {
    /// When it began, in seconds of the run.
    pub at: f64,
    /// How long it was.
    pub seconds: f64,
    /// Stanzas sent.
    pub sent: u64,
    /// Verified deliveries, or logins.
    pub delivered: u64,
    /// CPU seconds of the other side.
    pub server_cpu: Option<f64>,
    /// The same, by kind of thread.
    #[serde(default)]
    pub server_threads: BTreeMap<String, f64>,
    /// CPU seconds of the generator's ring threads.
    pub generator_cpu: f64,
    /// The same of those on its busiest core.
    #[serde(default)]
    pub generator_busiest: f64,
}

impl Slice {
    /// CPU seconds of the other side per million deliveries.
    pub fn cpu_per_million(slices: &[Slice]) -> Option<f64> {
        let cpu: Option<f64> = slices.iter().map(|slice| slice.server_cpu).sum();
        let delivered: u64 = slices.iter().map(|slice| slice.delivered).sum();
        cpu.filter(|_| delivered > 0)
            .map(|cpu| cpu * 1e6 / delivered as f64)
    }

    /// CPU seconds of each kind of the other side's threads per million deliveries.
    pub fn threads_per_million(slices: &[Slice]) -> BTreeMap<String, f64> {
        let delivered: u64 = slices.iter().map(|slice| slice.delivered).sum();
        let mut all = BTreeMap::new();
        for (kind, seconds) in slices.iter().flat_map(|slice| &slice.server_threads) {
            *all.entry(kind.clone()).or_default() += seconds * 1e6 / delivered.max(1) as f64;
        }
        all
    }

    /// Deliveries a second.
    pub fn rate(slices: &[Slice]) -> f64 {
        let seconds: f64 = slices.iter().map(|slice| slice.seconds).sum();
        let delivered: u64 = slices.iter().map(|slice| slice.delivered).sum();
        if seconds > 0.0 {
            delivered as f64 / seconds
        } else {
            0.0
        }
    }
}

impl Fleet {
    /// Starts the threads; clients begin to log in.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(
        plan: Plan,
        script: Arc<Script>,
        tls: &TlsSetup,
        features: Features,
    ) -> Result<Fleet, String> {
        let shares = plan.shares();
        // A pinned thread would be told of its own core alone.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let own_cores = cores.saturating_sub(plan.core.unwrap_or(0)).max(1);
        let shares_core = shares.len() > own_cores;
        let last = plan.clients.saturating_sub(1);
        let rooms = script.rooms.as_ref();
        let room_size = rooms.map_or(0, |rooms| rooms.room(script.first_account, last).len());
        let plan = Arc::new(plan);
        let control = Arc::new(Control::new(shares.len()));
        let derive = derive::start(script.clone()).map_err(|error| error.to_string())?;
        let mut fleet = Fleet {
            plan: plan.clone(),
            control: control.clone(),
            cores,
            room_size,
            // Where one cannot be started, those before it end with the fleet.
            threads: Vec::new(),
        };
        for (thread, (first, count)) in shares.into_iter().enumerate() {
            let job = Job {
                thread,
                first,
                count,
                core: plan.core_of(thread, cores),
                shares_core,
                plan: plan.clone(),
                script: script.clone(),
                tls: tls.clone(),
                control: control.clone(),
                features,
                derive: derive.clone(),
            };
            let handle = std::thread::Builder::new()
                .name(format!("ring {thread}"))
                .spawn(move || driver::run(job))
                .map_err(|error| format!("cannot start a thread: {error}"))?;
            fleet.threads.push(handle);
        }
        Ok(fleet)
    }

    /// Waits until all clients are ready.
    ///
    /// # Errors
    /// `Err` where some failed; [`Fleet::finish`] tells why.
    pub fn wait_ready(&self, live: &mut dyn Watch) -> Result<(), String> {
        let total = u64::from(self.plan.part.count);
        let mut best = (0, self.plan.clock.now());
        loop {
            let ready = sum(&self.control.gauges, |gauge| &gauge.ready);
            let failed = sum(&self.control.gauges, |gauge| &gauge.failed);
            live.login(ready, failed, total);
            if ready == total {
                return self.check_size();
            }
            if ready + failed >= total || self.threads.iter().any(JoinHandle::is_finished) {
                return Err(format!("{failed} of {total} clients failed to log in"));
            }
            if live.is_over() {
                return Err(OVER.to_owned());
            }
            let now = self.plan.clock.now();
            if ready + failed > best.0 {
                best = (ready + failed, now);
            } else if Duration::from_nanos(now - best.1) > STUCK_MAX {
                return Err(format!(
                    "{ready} of {total} clients are ready and no more become so"
                ));
            }
            std::thread::sleep(STEP);
        }
    }

    /// A stanza that cannot have the size asked for would make the run another one.
    fn check_size(&self) -> Result<(), String> {
        let plan = &self.plan;
        if plan.dialect == Dialect::Floor || !plan.talks() {
            return Ok(());
        }
        let sizes = self.control.gauges.iter().map(|gauge| &gauge.jid_size);
        let jid_size = sizes.map(|size| size.load(Relaxed)).max().unwrap_or(0);
        self.check_phases(jid_size as usize)?;
        if !plan.phases.is_empty() {
            return Ok(());
        }
        let size = match plan.scenario {
            Scenario::Muc => self.room_size,
            _ => jid_size as usize,
        };
        let least = Shape::size_min(plan.scenario, plan.directed, size);
        if plan.stanza_size < least {
            return Err(format!(
                "--stanza-size {}: with these addresses a stanza takes {least} bytes at least; \
                 give {least} or more",
                plan.stanza_size
            ));
        }
        Ok(())
    }

    /// The same for the sizes of phases.
    fn check_phases(&self, jid_size: usize) -> Result<(), String> {
        for phase in &self.plan.phases {
            let least = |action: &Action| {
                let size = match action {
                    Action::Muc => self.room_size,
                    _ => jid_size,
                };
                Shape::size_min(action.scenario(), action.is_pairwise(), size)
            };
            let actions = phase.mix.iter().map(|(action, _)| action);
            let least = actions.filter(|action| action.is_marked()).map(least).max();
            let size = phase.sizes.range().0;
            if let Some(least) = least.filter(|least| size < *least) {
                return Err(format!(
                    "phase {}: stanzas of {size} bytes: with these addresses one takes {least} \
                     bytes at least; give {least} or more",
                    phase.name
                ));
            }
        }
        Ok(())
    }

    /// One measured stretch, with `warmup` before it; `cost` reads the other side's CPU time.
    pub fn slice(
        &self,
        warmup: Duration,
        length: Duration,
        live: &mut dyn Watch,
        cost: &dyn Fn() -> Option<Busy>,
    ) -> Slice {
        let clock = self.plan.clock;
        if !warmup.is_zero() {
            self.control.enter(Stage::Warm, clock.now());
            self.pass(clock.now() + warmup.as_nanos() as u64, live);
        }
        let before = self.sample(cost);
        self.control.enter(Stage::Measure, before.at);
        self.pass(before.at + length.as_nanos() as u64, live);
        let after = self.sample(cost);
        self.control.enter(Stage::Hold, after.at);
        let threads = after
            .cost
            .zip(before.cost)
            .map(|(after, before)| spent(after, &before));
        let busy: Vec<f64> = after
            .busy
            .iter()
            .zip(&before.busy)
            .map(|(after, before)| after.saturating_sub(*before) as f64 / 1e9)
            .collect();
        let place: Vec<_> = (0..busy.len())
            .map(|thread| self.plan.core_of(thread, self.cores))
            .collect();
        let slice = Slice {
            at: before.at as f64 / 1e9,
            seconds: (after.at - before.at) as f64 / 1e9,
            sent: after.sent - before.sent,
            delivered: after.delivered - before.delivered,
            server_cpu: threads.as_ref().map(|threads| threads.values().sum()),
            server_threads: threads.unwrap_or_default(),
            generator_cpu: busy.iter().sum(),
            generator_busiest: busiest(&busy, &place, self.cores),
        };
        self.drain(live);
        slice
    }

    /// Lets the time go by until `end`.
    pub(crate) fn pass(&self, end: u64, live: &mut dyn Watch) {
        loop {
            let now = self.plan.clock.now();
            if now >= end || live.is_over() {
                return;
            }
            live.run(&self.control, now);
            std::thread::sleep(STEP.min(Duration::from_nanos(end - now)));
        }
    }

    fn drain(&self, live: &mut dyn Watch) {
        let end = self.plan.clock.now() + DRAIN_MAX.as_nanos() as u64;
        // The threads need a tick to see the stage and to publish what is outstanding.
        std::thread::sleep(STEP);
        while sum(&self.control.gauges, |gauge| &gauge.outstanding) > 0 {
            let now = self.plan.clock.now();
            if now >= end || live.is_over() {
                return;
            }
            live.run(&self.control, now);
            std::thread::sleep(STEP);
        }
    }

    fn sample(&self, cost: &dyn Fn() -> Option<Busy>) -> Sample {
        Sample {
            sent: sum(&self.control.gauges, |gauge| &gauge.sent),
            delivered: sum(&self.control.gauges, |gauge| &gauge.delivered),
            busy: self
                .control
                .gauges
                .iter()
                .map(|gauge| gauge.busy.load(Relaxed))
                .collect(),
            cost: cost(),
            at: self.plan.clock.now(),
        }
    }

    /// Waits for copies that nobody expects: they would come right behind the last expected ones.
    fn settle(&self) {
        if self.plan.talks() && sum(&self.control.gauges, |gauge| &gauge.sent) > 0 {
            std::thread::sleep(SETTLE);
        }
    }

    /// Closes everything and collects what the threads found.
    ///
    /// # Errors
    /// What a thread died of.
    pub fn finish(mut self) -> Result<Findings, String> {
        self.settle();
        self.end()
    }

    fn end(&mut self) -> Result<Findings, String> {
        self.control.enter(Stage::Finish, self.plan.clock.now());
        let mut findings = Findings::default();
        let mut error = None;
        for thread in std::mem::take(&mut self.threads) {
            match thread.join() {
                Ok(Ok(outcome)) => findings.add(&outcome),
                Ok(Err(reason)) => error = Some(reason),
                Err(_) => error = Some("a ring thread panicked".to_owned()),
            }
        }
        error.map_or(Ok(findings), Err)
    }
}

impl Drop for Fleet {
    /// Whoever lets go of it before it is finished: the streams are closed, and the threads end.
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            // Nobody asks any more what they found.
            let _ = self.end();
        }
    }
}

/// Seconds on a core between two readings; a thread that ended in between counts for nothing.
pub(crate) fn spent(after: Busy, before: &Busy) -> BTreeMap<String, f64> {
    let since = |kind: &str, now: u64| now.saturating_sub(before.get(kind).copied().unwrap_or(0));
    after
        .into_iter()
        .map(|(kind, now)| {
            let seconds = since(&kind, now) as f64 / 1e9;
            (kind, seconds)
        })
        .collect()
}

struct Sample {
    at: u64,
    sent: u64,
    delivered: u64,
    /// Of each thread.
    busy: Vec<u64>,
    cost: Option<Busy>,
}

/// Seconds on the core that had most of what threads spent, each on its place where it has one.
/// Of others it is the least that it can have been: that of the busiest thread, or an even share.
fn busiest(spent: &[f64], places: &[Option<usize>], cores: usize) -> f64 {
    let mut pinned = BTreeMap::new();
    let mut free = Vec::new();
    for (spent, place) in spent.iter().zip(places) {
        match place {
            Some(core) => *pinned.entry(core).or_default() += spent,
            None => free.push(*spent),
        }
    }
    let even = free.iter().sum::<f64>() / free.len().clamp(1, cores.max(1)) as f64;
    free.into_iter()
        .chain(pinned.into_values())
        .fold(even, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use clap::Parser;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn the_busiest_core_is_found_whether_threads_are_pinned_or_not() {
        let free = [None; 6];
        let full = [2.0 / 6.0; 6];
        assert!(
            (busiest(&full, &free, 2) - 1.0).abs() < 1e-9,
            "two full cores"
        );
        assert!((busiest(&[0.9, 0.1], &[None; 2], 2) - 0.9).abs() < 1e-9);
        let pinned = [Some(1), Some(2), Some(1)];
        assert!((busiest(&[0.4, 0.5, 0.4], &pinned, 3) - 0.8).abs() < 1e-9);
        assert!(busiest(&[], &[], 2).abs() < 1e-9);
    }

    /// A fleet one of whose threads could not be started, or for which nobody waits.
    #[test]
    fn a_fleet_that_is_let_go_of_ends_its_threads() {
        let cli = crate::args::Cli::parse_from(["loadgen", "--clients", "4"]);
        let target = "127.0.0.1:1".parse().unwrap();
        let plan = cli
            .run
            .load
            .plan_anywhere(target, Dialect::Xmpp, Clock::start());
        let control = Arc::new(Control::new(1));
        let ended = Arc::new(AtomicBool::new(false));
        let (seen, end) = (control.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            while seen.stage().0 != Stage::Finish {
                std::thread::sleep(STEP);
            }
            end.store(true, Relaxed);
            Ok(Findings::default())
        });
        let fleet = Fleet {
            plan: Arc::new(plan),
            control,
            cores: 1,
            room_size: 0,
            threads: vec![thread],
        };
        drop(fleet);
        assert!(ended.load(Relaxed), "it was waited for");
    }
}
