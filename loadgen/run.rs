//! One invocation from the plan to the result: log in, measure in slices (in turns with the floor),
//! close, judge.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::Features;
use rustls_pki_types::ServerName;

use crate::accounts::Accounts;
use crate::args::{LoadArgs, RunArgs};
use crate::client::{Script, TlsMode};
use crate::clock::{Clock, SECOND};
use crate::fleet::{Findings, Fleet, Slice, TlsSetup};
use crate::live::Live;
use crate::machine::{self, Busy, Machine};
use crate::plan::{CLIENTS_PER_RING_MAX, Control, Dialect, Pace, Plan, Scenario};
use crate::relay::{self, Relay};
use crate::result::{Floor, Generator, Load, Plain, RunResult, Server, Times, exit};
use crate::scram::KeyCache;
use crate::stats::Phase;

/// Turns that server and floor take in one run.
const SLICES: u32 = 3;
/// An open loop is invalid whose generator is later than this in one of a hundred cases ..
const LAG_P99_MAX_US: f64 = 1000.0;
/// .. and later than this share of the latency it reports.
const LAG_SHARE_MAX: f64 = 0.1;
/// An open loop must have sent this share of what the schedule asked for.
const SENT_SHARE_MIN: f64 = 0.99;
/// A generator busier than this limits a closed loop.
const BUSY_MAX: f64 = 0.95;
/// The core of the floor's relay.
const FLOOR_CORE: usize = 0;

/// A result, with the histograms that files are written from.
pub struct Ran {
    /// What goes into JSON.
    pub result: RunResult,
    /// All histograms of the server's (or the floor's) fleet.
    pub findings: Findings,
    /// Second by second.
    pub live: Live,
}

/// Measures a server.
///
/// # Errors
/// Why nothing could be measured.
pub fn server(args: &RunArgs, features: Features) -> Result<Ran, String> {
    let clock = Clock::start();
    let load = &args.load;
    let target = args.target()?;
    let plan = load.plan(target, Dialect::Xmpp, clock)?;
    let accounts = args.accounts()?;
    let tls = tls(args)?;
    let script = Arc::new(script(args, accounts));
    let mut live = Live::new(load.quiet, expected(args), load.hgrm.is_some());
    let machine = Machine::read();
    let mut server = args.server_pid.map(watch).transpose()?;
    let fleet = log_in(&plan, script, &tls, features, server.as_mut(), &mut live)?;
    let rival = match args.with_floor {
        true => Some(Rival::start(load, features, clock, &mut live)?),
        false => None,
    };
    let beside = match args.with_plain {
        Some(port) => Some(start_plain(args, port, &plan, features, &mut live)?),
        None => None,
    };
    let mut slices = take_turns(args, &fleet, rival.as_ref(), beside.as_ref(), &mut live);
    let own = slices.next().unwrap_or_default();
    if let Some(server) = &mut server {
        server.resident_after = machine::resident(server.pid).unwrap_or(0);
        charge(server, load.scenario, &own);
    }
    let control = fleet.control.clone();
    let floor = match rival {
        Some(rival) => Some(rival.finish(slices.next().unwrap_or_default(), &mut live)?),
        None => None,
    };
    let plain = match beside {
        Some(fleet) => {
            let slices = slices.next().unwrap_or_default();
            Some(finish_plain(fleet, slices, Slice::cpu_per_million(&own))?)
        }
        None => None,
    };
    live.label("close", true);
    let findings = fleet.finish()?;
    live.take(&control, u64::MAX);
    live.end();
    let parts = Parts {
        plan,
        load,
        server,
        floor,
        plain,
        slices: own,
        machine,
        control,
    };
    let mut result = parts.judge(&findings, &live, features);
    describe(&mut result.load, args);
    Ok(Ran {
        result,
        findings,
        live,
    })
}

/// Starts the clients and awaits the last of them; says what a log-in cost the server.
fn log_in(
    plan: &Plan,
    script: Arc<Script>,
    tls: &TlsSetup,
    features: Features,
    server: Option<&mut Server>,
    live: &mut Live,
) -> Result<Fleet, String> {
    live.label("log in", true);
    let before = server
        .as_ref()
        .and_then(|server| machine::process_busy(server.pid));
    let fleet = Fleet::start(plan.clone(), script, tls, features)?;
    if let Err(reason) = fleet.wait_ready(live) {
        live.end();
        let findings = fleet.finish()?;
        return Err(explain(&reason, &findings));
    }
    if let Some(server) = server {
        let clients = f64::from(plan.clients);
        let spent = machine::process_busy(server.pid)
            .zip(before)
            .map(|(after, before)| after.values().sum::<u64>() - before.values().sum::<u64>());
        server.cpu_us_per_login = spent.map(|spent| spent as f64 / 1e3 / clients);
        server.resident_ready = machine::resident(server.pid).unwrap_or(0);
        let more = server.resident_ready.saturating_sub(server.resident_before);
        server.bytes_per_connection = more as f64 / clients;
    }
    Ok(fleet)
}

/// Measures the server, and in turns with it the floor and the neighbours without TLS where there
/// are any. Gives the slices of each, in this order.
fn take_turns(
    args: &RunArgs,
    fleet: &Fleet,
    rival: Option<&Rival>,
    beside: Option<&Fleet>,
    live: &mut Live,
) -> std::vec::IntoIter<Vec<Slice>> {
    let pid = args.server_pid;
    let cost = move || pid.and_then(machine::process_busy);
    let path = rival.map(|rival| rival.relay.busy_path.clone());
    let floor_cost = move || path.as_deref().and_then(relay_busy);
    let mut contestants = vec![Contestant {
        fleet,
        label: format!("{:?}", args.load.scenario).to_lowercase(),
        is_subject: true,
        cost: &cost,
    }];
    contestants.extend(rival.map(|rival| Contestant {
        fleet: &rival.fleet,
        label: "floor".to_owned(),
        is_subject: false,
        cost: &floor_cost,
    }));
    contestants.extend(beside.map(|fleet| Contestant {
        fleet,
        label: "without TLS".to_owned(),
        is_subject: false,
        cost: &cost,
    }));
    measure(&args.load, &contestants, live).into_iter()
}

/// What was asked for, as the result says it.
fn describe(load: &mut Load, args: &RunArgs) {
    load.target = format!("{}:{}", args.host, args.port);
    args.domain().clone_into(&mut load.domain);
    load.tls = format!("{:?}", args.tls).to_lowercase();
    load.mechanism = match (args.mechanism, args.anonymous) {
        (Some(mechanism), _) => mechanism.name().to_owned(),
        (None, true) => "ANONYMOUS".to_owned(),
        (None, false) => "strongest on offer".to_owned(),
    };
}

/// Measures the floor alone.
///
/// # Errors
/// Why nothing could be measured.
pub fn floor(load: &LoadArgs, features: Features) -> Result<Ran, String> {
    let clock = Clock::start();
    if load.clients > CLIENTS_PER_RING_MAX {
        return Err(format!(
            "the floor is one ring: --clients up to {CLIENTS_PER_RING_MAX}"
        ));
    }
    if !matches!(load.scenario, Scenario::Chat | Scenario::Presence) {
        return Err("the floor relays --scenario chat or presence".into());
    }
    let mut live = Live::new(
        load.quiet,
        load.warmup() + load.duration(),
        load.hgrm.is_some(),
    );
    let rival = Rival::start(load, features, clock, &mut live)?;
    live.label("floor", true);
    let path = rival.relay.busy_path.clone();
    let cost = move || relay_busy(&path);
    let slice = rival
        .fleet
        .slice(load.warmup(), load.duration(), &mut live, &cost);
    let plan = (*rival.fleet.plan).clone();
    let control = rival.fleet.control.clone();
    let findings = rival.fleet.finish()?;
    live.take(&control, u64::MAX);
    live.end();
    let slices = vec![slice];
    let server = Server {
        pid: std::process::id(),
        command: "the floor's relay".into(),
        cpu_per_million: Slice::cpu_per_million(&slices),
        ..Server::default()
    };
    let machine = Machine::read();
    let parts = Parts {
        plan,
        load,
        server: Some(server),
        floor: None,
        plain: None,
        slices,
        machine,
        control,
    };
    let mut result = parts.judge(&findings, &live, features);
    result.load.target = "floor".into();
    Ok(Ran {
        result,
        findings,
        live,
    })
}

/// Nanoseconds on a core of the relay's thread.
fn relay_busy(path: &str) -> Option<Busy> {
    Some(Busy::from([("relay".to_owned(), machine::busy_at(path)?)]))
}

/// The floor while it runs beside a server.
struct Rival {
    fleet: Fleet,
    relay: Relay,
}

impl Rival {
    fn start(
        load: &LoadArgs,
        features: Features,
        clock: Clock,
        live: &mut Live,
    ) -> Result<Rival, String> {
        live.label("floor joins", false);
        let mut load = load.clone();
        load.clients = load.clients.min(CLIENTS_PER_RING_MAX);
        load.connect_rate = None;
        load.ramp = None;
        let shape = relay::Shape {
            clients: load.clients,
            frame_size: load.stanza_size,
            // A pairwise run has no broadcasts.
            clique: load.clique,
            core: FLOOR_CORE,
        };
        let relay = Relay::start(shape, features)?;
        let plan = load.plan(relay.address, Dialect::Floor, clock)?;
        let script = Arc::new(Script {
            domain: String::new(),
            tls: TlsMode::None,
            mechanism: None,
            accounts: Accounts::Anonymous,
            first_account: 0,
            register: false,
            roster: false,
            presence: false,
            ack_every: None,
            keys: KeyCache::default(),
        });
        let fleet = Fleet::start(plan, script, &None, features)?;
        match fleet.wait_ready(live) {
            Ok(()) => Ok(Rival { fleet, relay }),
            Err(reason) => Err(explain(&reason, &fleet.finish()?)),
        }
    }

    fn finish(self, slices: Vec<Slice>, live: &mut Live) -> Result<Floor, String> {
        let (clients, control) = (self.fleet.plan.clients, self.fleet.control.clone());
        let findings = self.fleet.finish()?;
        live.label("floor", false);
        live.take(&control, u64::MAX);
        Ok(Floor {
            cpu_per_million: Slice::cpu_per_million(&slices).unwrap_or(0.0),
            rate: Slice::rate(&slices),
            clients,
            latency: Times::of("floor", &findings.meter.latency),
            verdict: findings.verdict,
            slices,
            timeline: live.floor_points.clone(),
            ratio: None,
        })
    }
}

/// One of those that are measured in turns.
struct Contestant<'a> {
    fleet: &'a Fleet,
    label: String,
    is_subject: bool,
    cost: &'a dyn Fn() -> Option<Busy>,
}

/// The measured part: in one piece, or all contestants in turns. Gives the slices of each.
fn measure(load: &LoadArgs, contestants: &[Contestant<'_>], live: &mut Live) -> Vec<Vec<Slice>> {
    let turns = if contestants.len() > 1 { SLICES } else { 1 };
    let mut slices = vec![Vec::new(); contestants.len()];
    for turn in 0..turns {
        // The first turn warms everything up; later ones only bring the caches back.
        let warmup = match turn {
            0 => load.warmup(),
            _ => load.warmup().min(Duration::from_millis(300)),
        };
        for (contestant, slices) in contestants.iter().zip(&mut slices) {
            live.label(&contestant.label, contestant.is_subject);
            let length = load.duration() / turns;
            slices.push(
                contestant
                    .fleet
                    .slice(warmup, length, live, contestant.cost),
            );
        }
    }
    slices
}

/// The same clients' neighbours without TLS.
fn start_plain(
    args: &RunArgs,
    port: u16,
    plan: &Plan,
    features: Features,
    live: &mut Live,
) -> Result<Fleet, String> {
    live.label("plain joins", false);
    let mut plan = plan.clone();
    plan.target.set_port(port);
    let mut script = script(args, args.accounts()?);
    (script.tls, script.first_account) = (TlsMode::None, plan.clients);
    let fleet = Fleet::start(plan, Arc::new(script), &None, features)?;
    match fleet.wait_ready(live) {
        Ok(()) => Ok(fleet),
        Err(reason) => Err(explain(&reason, &fleet.finish()?)),
    }
}

fn finish_plain(fleet: Fleet, slices: Vec<Slice>, cpu: Option<f64>) -> Result<Plain, String> {
    let findings = fleet.finish()?;
    let below = Slice::cpu_per_million(&slices);
    Ok(Plain {
        cpu_per_million: below.unwrap_or(0.0),
        rate: Slice::rate(&slices),
        latency: Times::of("without TLS", &findings.meter.latency),
        verdict: findings.verdict,
        slices,
        // Seconds per million are microseconds each.
        surcharge_us: cpu.zip(below).map(|(cpu, below)| cpu - below),
    })
}

/// What the measured part cost the server.
fn charge(server: &mut Server, scenario: Scenario, slices: &[Slice]) {
    match scenario {
        Scenario::Idle => {
            let cpu: Option<f64> = slices.iter().map(|slice| slice.server_cpu).sum();
            let seconds: f64 = slices.iter().map(|slice| slice.seconds).sum();
            server.idle_share = cpu.map(|cpu| cpu / seconds.max(0.001));
        }
        Scenario::Login => server.cpu_us_per_login = Slice::cpu_per_million(slices),
        Scenario::Chat | Scenario::Presence => {
            server.cpu_per_million = Slice::cpu_per_million(slices);
            server.cpu_per_million_by_thread = Slice::threads_per_million(slices);
        }
    }
}

fn explain(reason: &str, findings: &Findings) -> String {
    let mut text = reason.to_owned();
    for (why, count) in &findings.failures {
        text.push_str(&format!("\n  {count} x {why}"));
    }
    text
}

fn watch(pid: u32) -> Result<Server, String> {
    let resident = machine::resident(pid).ok_or_else(|| format!("there is no process {pid}"))?;
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Ok(Server {
        pid,
        command: command.trim_end_matches('\0').replace('\0', " "),
        resident_before: resident,
        ..Server::default()
    })
}

fn tls(args: &RunArgs) -> Result<TlsSetup, String> {
    if args.tls == TlsMode::None {
        return Ok(None);
    }
    if args.ca.is_none() && !args.insecure {
        return Err(
            "say --ca FILE to check the server's certificate, or --insecure, or --tls none".into(),
        );
    }
    let config = crate::tls::configure(args.ca.as_deref(), args.tls == TlsMode::Direct)?;
    let name = ServerName::try_from(args.domain().to_owned())
        .map_err(|_| format!("{} is no name for a certificate", args.domain()))?;
    Ok(Some((config, name)))
}

fn script(args: &RunArgs, accounts: Accounts) -> Script {
    // The login scenario ends with the bind result.
    let stays = args.load.scenario != Scenario::Login;
    Script {
        domain: args.domain().to_owned(),
        tls: args.tls,
        mechanism: args.mechanism,
        accounts,
        first_account: 0,
        register: args.register,
        roster: stays && !args.no_roster,
        presence: stays && !args.no_presence,
        ack_every: args.load.stream_management.then_some(args.load.ack_every),
        keys: KeyCache::default(),
    }
}

fn expected(args: &RunArgs) -> Duration {
    let turns = 1 + u32::from(args.with_floor) + u32::from(args.with_plain.is_some());
    let login = Duration::from_secs_f64(args.load.ramp.unwrap_or(0.0));
    login + (args.load.warmup() + args.load.duration()) * turns
}

/// What a judgement is made from.
struct Parts<'a> {
    plan: Plan,
    load: &'a LoadArgs,
    server: Option<Server>,
    floor: Option<Floor>,
    plain: Option<Plain>,
    slices: Vec<Slice>,
    machine: Machine,
    control: Arc<Control>,
}

impl Parts<'_> {
    fn judge(mut self, findings: &Findings, live: &Live, features: Features) -> RunResult {
        let meter = &findings.meter;
        let lag = Times::of("schedule lag", &meter.lag);
        let seconds: f64 = self.slices.iter().map(|slice| slice.seconds).sum();
        let cpu: f64 = self.slices.iter().map(|slice| slice.generator_cpu).sum();
        let threads = self.control.gauges.len();
        let cores = match self.plan.core {
            Some(core) => self.machine.cores.saturating_sub(core).clamp(1, threads),
            None => threads,
        };
        let busy = cpu / seconds.max(0.001) / cores as f64;
        let closed = matches!(self.plan.pace, Pace::Closed { .. });
        if let (Some(floor), Some(server)) = (&mut self.floor, &self.server) {
            let ratio =
                |cost: f64| (floor.cpu_per_million > 0.0).then(|| cost / floor.cpu_per_million);
            floor.ratio = server.cpu_per_million.and_then(ratio);
        }
        let generator = Generator {
            busy,
            is_limit: closed && busy > BUSY_MAX,
            lag,
            resident: machine::resident(std::process::id()).unwrap_or(0),
        };
        let (exit, reasons) = self.verdict(findings, &generator, seconds);
        let phases = Phase::ALL
            .iter()
            .filter(|phase| !meter.of(**phase).is_empty())
            .map(|phase| Times::of(phase.name(), meter.of(*phase)))
            .collect();
        let kind = match self.plan.scenario {
            Scenario::Login => "login",
            Scenario::Presence => "presence",
            Scenario::Idle | Scenario::Chat => "message",
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        RunResult {
            name: self
                .load
                .name
                .clone()
                .unwrap_or_else(|| self.default_name()),
            began: now.saturating_sub(self.plan.clock.now() / SECOND),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: machine::commit(),
            command: command_line(std::env::args()),
            ring: features.to_string(),
            load: self.describe(),
            exit,
            reasons,
            rate: Slice::rate(&self.slices),
            latency: Times::of(kind, &meter.latency),
            service: Times::of("service", &meter.service),
            acks: Times::of("ack", &meter.acks),
            phases,
            verdict: findings.verdict,
            failures: findings.failures.clone(),
            timeline: live.points.clone(),
            slices: self.slices,
            server: self.server,
            floor: self.floor,
            plain: self.plain,
            generator,
            machine: self.machine,
        }
    }

    /// The exit code and the reasons for it.
    fn verdict(
        &self,
        findings: &Findings,
        generator: &Generator,
        seconds: f64,
    ) -> (u8, Vec<String>) {
        let mut reasons = Vec::new();
        let mut code = exit::OK;
        if let Pace::Open { rate, .. } = self.plan.pace {
            let sent: u64 = self.slices.iter().map(|slice| slice.sent).sum();
            let share = sent as f64 / (rate * seconds).max(1.0);
            // Poisson arrivals vary by the square root of their number.
            let slack = 4.0 / (rate * seconds).max(1.0).sqrt();
            if share + slack < SENT_SHARE_MIN {
                reasons.push(format!(
                    "only {:.1} % of the schedule was sent",
                    share * 100.0
                ));
            }
            let latency = findings.meter.latency.value_at_quantile(0.99) as f64 / 1e3;
            if generator.lag.p99_us > LAG_P99_MAX_US.max(latency * LAG_SHARE_MAX) {
                let late = crate::live::micros(generator.lag.p99_us);
                reasons.push(format!("the generator was {late} late (p99)"));
            }
            if !reasons.is_empty() {
                code = exit::INVALID;
            }
        }
        let measured = [
            ("", Some(&self.slices)),
            ("floor: ", self.floor.as_ref().map(|floor| &floor.slices)),
            ("plain: ", self.plain.as_ref().map(|plain| &plain.slices)),
        ];
        for (whose, slices) in measured {
            let delivered = |slices: &Vec<Slice>| slices.iter().map(|slice| slice.delivered).sum();
            if self.plan.scenario != Scenario::Idle && slices.map(delivered) == Some(0) {
                reasons.push(format!(
                    "{whose}nothing was delivered while it was measured"
                ));
                code = exit::INVALID;
            }
        }
        let floor = self.floor.as_ref().map(|floor| &floor.verdict);
        let plain = self.plain.as_ref().map(|plain| &plain.verdict);
        let accounts = [
            ("", Some(&findings.verdict)),
            ("floor: ", floor),
            ("plain: ", plain),
        ];
        for (whose, verdict) in accounts {
            let faults = verdict.map_or([("", 0); 9], |verdict| verdict.faults());
            for (name, count) in faults.iter().filter(|(_, count)| *count > 0) {
                reasons.push(format!("{whose}{count} {name}"));
                code = exit::UNVERIFIED;
            }
        }
        for (why, count) in &findings.failures {
            reasons.push(format!("{count} x {why}"));
            code = exit::UNVERIFIED;
        }
        (code, reasons)
    }

    fn default_name(&self) -> String {
        let scenario = format!("{:?}", self.plan.scenario).to_lowercase();
        format!("{scenario}-{}", self.plan.clients)
    }

    fn describe(&self) -> Load {
        let pace = match self.plan.pace {
            Pace::Closed { .. } if self.plan.scenario == Scenario::Idle => "idle".to_owned(),
            Pace::Closed { .. } if self.plan.scenario == Scenario::Login => {
                "closed loop".to_owned()
            }
            Pace::Closed { window } => format!("closed loop, window {window}"),
            Pace::Open { rate, arrivals } => {
                format!(
                    "open loop, {rate}/s {}",
                    format!("{arrivals:?}").to_lowercase()
                )
            }
        };
        let directed = if self.plan.directed { ", directed" } else { "" };
        Load {
            scenario: format!("{:?}{directed}", self.plan.scenario).to_lowercase(),
            clients: self.plan.clients,
            partners: self.plan.partners,
            clique: self.plan.clique,
            pace,
            ack_every: self.plan.ack_every,
            stanza_size: self.plan.stanza_size,
            connect_rate: self.plan.connect_rate,
            warmup: self.load.warmup,
            duration: self.load.duration,
            threads: self.control.gauges.len(),
            core: self.plan.core,
            seed: self.plan.seed,
            ..Load::default()
        }
    }
}

/// The command line for publication: results are published, passwords are not.
fn command_line(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut follows = false;
    arguments
        .map(|argument| {
            let hidden = std::mem::replace(&mut follows, argument == "--password");
            match (hidden, argument.starts_with("--password=")) {
                (true, _) => "***".to_owned(),
                (_, true) => "--password=***".to_owned(),
                _ => argument,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_published() {
        let words = [
            "loadgen",
            "--password",
            "secret",
            "--password=secret",
            "--user",
            "u",
        ];
        let line = command_line(words.iter().map(|word| (*word).to_owned()));
        assert_eq!(
            line.join(" "),
            "loadgen --password *** --password=*** --user u"
        );
    }

    #[test]
    fn cost_per_million_needs_every_stretch_to_be_read() {
        let slice = Slice {
            delivered: 500_000,
            server_cpu: Some(1.0),
            ..Slice::default()
        };
        assert_eq!(
            Slice::cpu_per_million(&[slice.clone(), slice.clone()]),
            Some(2.0)
        );
        let blind = Slice {
            server_cpu: None,
            ..slice.clone()
        };
        assert_eq!(Slice::cpu_per_million(&[slice.clone(), blind]), None);
        assert_eq!(
            Slice::cpu_per_million(&[Slice {
                delivered: 0,
                ..slice
            }]),
            None
        );
    }
}
