//! One invocation from the plan to the result: log in, measure in slices (in turns with the floor),
//! close, judge.

use std::sync::Arc;
use std::time::Duration;

use ring::Features;
use rustls_pki_types::ServerName;

use crate::accounts::Accounts;
use crate::args::{LoadArgs, RunArgs};
use crate::client::{Script, TlsMode};
use crate::clock::Clock;
use crate::files;
use crate::fleet::{Findings, Fleet, Slice, TlsSetup, spent};
use crate::judge::Parts;
use crate::live::{Live, Whose};
use crate::machine::{self, Busy, Machine, PROCESSES_MAX};
use crate::plan::{CLIENTS_PER_RING_MAX, Dialect, Plan, Scenario};
use crate::relay::{self, Relay};
use crate::result::{Floor, Load, Plain, RunResult, Server, Times};
use crate::scenario::Action;
use crate::scram::KeyCache;
use crate::tls::Ca;
use crate::workers::coordinator;

/// Turns that those who are compared take in one run at least.
const TURNS_MIN: u32 = 3;
/// How long a turn is where there are more: what the machine does else changes within seconds.
const TURN: Duration = Duration::from_secs(2);
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
    if !args.workers.is_empty() {
        return coordinator::server(args, features);
    }
    let clock = Clock::start();
    let load = &args.load;
    let target = args.target()?;
    let plan = load.plan(target, Dialect::Xmpp, clock)?;
    let accounts = args.accounts()?;
    let config = args
        .server_config
        .as_deref()
        .map(files::config)
        .transpose()?;
    let is_web = args.websocket.is_some();
    let tls = tls(args.tls, is_web, args.domain(), ca(args)?.as_ref())?;
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
            Some(finish_plain(
                fleet,
                slices,
                &own,
                &mut live,
                beside_without(args),
            )?)
        }
        None => None,
    };
    live.label("close", Whose::Subject);
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
        threads: control.gauges.len(),
        workers: Vec::new(),
    };
    Ok(conclude(args, parts, findings, live, config, features))
}

/// The result of a server's run, with what was asked for and the server's configuration.
pub(crate) fn conclude(
    args: &RunArgs,
    parts: Parts<'_>,
    findings: Findings,
    live: Live,
    config: Option<String>,
    features: Features,
) -> Ran {
    let mut result = parts.judge(&findings, &live, features);
    describe(&mut result.load, args);
    result.durability = config.as_deref().and_then(files::durability);
    result.server_config = config;
    Ran {
        result,
        findings,
        live,
    }
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
    live.label("log in", Whose::Subject);
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
        charge_logins(server, plan.clients, before);
    }
    Ok(fleet)
}

/// What so many logins cost the server, which had spent that much `before` them.
pub(crate) fn charge_logins(server: &mut Server, clients: u32, before: Option<Busy>) {
    let clients = f64::from(clients);
    let spent = machine::process_busy(server.pid)
        .zip(before)
        .map(|(after, before)| spent(after, &before).into_values().sum::<f64>());
    server.cpu_us_per_login = spent.map(|spent| spent * 1e6 / clients);
    server.resident_ready = machine::resident(server.pid).unwrap_or(0);
    server.is_partial = machine::has_more_processes(server.pid);
    let more = server.resident_ready.saturating_sub(server.resident_before);
    server.bytes_per_connection = more as f64 / clients;
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
    if !fleet.plan.phases.is_empty() {
        return vec![take_phases(args, fleet, live)].into_iter();
    }
    let pid = args.server_pid;
    let cost = move || pid.and_then(machine::process_busy);
    let path = rival.map(|rival| rival.relay.busy_path.clone());
    let floor_cost = move || path.as_deref().and_then(relay_busy);
    let mut contestants = vec![Contestant {
        fleet,
        label: format!("{:?}", args.load.scenario).to_lowercase(),
        whose: Whose::Subject,
        cost: &cost,
    }];
    contestants.extend(rival.map(|rival| Contestant {
        fleet: &rival.fleet,
        label: "floor".to_owned(),
        whose: Whose::Floor,
        cost: &floor_cost,
    }));
    contestants.extend(beside.map(|fleet| Contestant {
        fleet,
        label: format!("without {}", beside_without(args)),
        whose: Whose::Plain,
        cost: &cost,
    }));
    measure(&args.load, &contestants, live).into_iter()
}

/// Measures the phases of a mixed scenario, in order.
fn take_phases(args: &RunArgs, fleet: &Fleet, live: &mut Live) -> Vec<Slice> {
    let pid = args.server_pid;
    let cost = move || pid.and_then(machine::process_busy);
    let mut slices = Vec::new();
    for (index, phase) in fleet.plan.phases.iter().enumerate() {
        fleet.control.begin_phase(index);
        live.label(&phase.name, Whose::Subject);
        let warmup = Duration::from_secs_f64(phase.warmup);
        let length = Duration::from_secs_f64(phase.duration);
        slices.push(fleet.slice(warmup, length, live, &cost));
    }
    slices
}

/// What was asked for, as the result says it.
pub(crate) fn describe(load: &mut Load, args: &RunArgs) {
    load.target = format!("{}:{}", args.host, args.port);
    args.domain().clone_into(&mut load.domain);
    load.rooms = args.rooms().map(|rooms| rooms.domain().to_owned());
    load.tls = format!("{:?}", args.tls).to_lowercase();
    load.websocket = args.websocket.is_some();
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
    let relayed = [Scenario::Chat, Scenario::Presence, Scenario::Muc];
    if !relayed.contains(&load.scenario) {
        return Err("the floor relays --scenario chat, presence or muc".into());
    }
    let mut live = Live::new(
        load.quiet,
        load.warmup() + load.duration(),
        load.hgrm.is_some(),
    );
    let rival = Rival::start(load, features, clock, &mut live)?;
    live.label("floor", Whose::Subject);
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
        threads: control.gauges.len(),
        workers: Vec::new(),
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
        live.label("floor joins", Whose::Floor);
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
        let script = Arc::new(Script::anonymous(""));
        let fleet = Fleet::start(plan, script, &None, features)?;
        match fleet.wait_ready(live) {
            Ok(()) => Ok(Rival { fleet, relay }),
            Err(reason) => Err(explain(&reason, &fleet.finish()?)),
        }
    }

    fn finish(self, slices: Vec<Slice>, live: &mut Live) -> Result<Floor, String> {
        let (clients, control) = (self.fleet.plan.clients, self.fleet.control.clone());
        let findings = self.fleet.finish()?;
        live.label("floor", Whose::Floor);
        live.take(&control, u64::MAX);
        Ok(Floor {
            cpu_per_million: Slice::cpu_per_million(&slices).unwrap_or(0.0),
            rate: Slice::rate(&slices),
            clients,
            latency: Times::of("floor", &findings.meter.latency),
            lag: Times::of("floor lag", &findings.meter.lag),
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
    whose: Whose,
    cost: &'a dyn Fn() -> Option<Busy>,
}

/// The measured part: in one piece, or all contestants in turns. Gives the slices of each.
fn measure(load: &LoadArgs, contestants: &[Contestant<'_>], live: &mut Live) -> Vec<Vec<Slice>> {
    let turns = match contestants.len() {
        1 => 1,
        _ => TURNS_MIN.max((load.duration().as_millis() / TURN.as_millis()) as u32),
    };
    let mut slices = vec![Vec::new(); contestants.len()];
    for turn in 0..turns {
        // The first turn warms everything up; later ones only bring the caches back.
        let warmup = match turn {
            0 => load.warmup(),
            _ => load.warmup().min(Duration::from_millis(300)),
        };
        let mut order: Vec<_> = contestants.iter().zip(&mut slices).collect();
        // Who is first in one turn is last in the next: a drift hits all alike.
        if turn % 2 == 1 {
            order.reverse();
        }
        for (contestant, slices) in order {
            live.label(&contestant.label, contestant.whose);
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

/// What the neighbours of these clients go without.
fn beside_without(args: &RunArgs) -> &'static str {
    match (args.websocket.is_some(), args.tls) {
        (false, _) => "TLS",
        (true, TlsMode::None) => "WebSocket",
        (true, _) => "TLS and WebSocket",
    }
}

/// The same clients' neighbours without TLS or WebSocket.
fn start_plain(
    args: &RunArgs,
    port: u16,
    plan: &Plan,
    features: Features,
    live: &mut Live,
) -> Result<Fleet, String> {
    live.label("plain joins", Whose::Plain);
    let mut plan = plan.clone();
    plan.target.set_port(port);
    let mut script = script(args, args.accounts()?);
    (script.tls, script.websocket) = (TlsMode::None, None);
    script.first_account = plan.clients;
    let fleet = Fleet::start(plan, Arc::new(script), &None, features)?;
    match fleet.wait_ready(live) {
        Ok(()) => Ok(fleet),
        Err(reason) => Err(explain(&reason, &fleet.finish()?)),
    }
}

fn finish_plain(
    fleet: Fleet,
    slices: Vec<Slice>,
    secure: &[Slice],
    live: &mut Live,
    without: &str,
) -> Result<Plain, String> {
    let control = fleet.control.clone();
    let findings = fleet.finish()?;
    live.label("beside it", Whose::Plain);
    live.take(&control, u64::MAX);
    let below = Slice::cpu_per_million(&slices);
    Ok(Plain {
        cpu_per_million: below.unwrap_or(0.0),
        rate: Slice::rate(&slices),
        latency: Times::of(&format!("without {without}"), &findings.meter.latency),
        without: without.to_owned(),
        lag: Times::of("lag beside", &findings.meter.lag),
        mechanism: findings.meter.mechanism(),
        waited: findings.meter.waited,
        timeline: live.plain_points.clone(),
        verdict: findings.verdict,
        // Seconds per million are microseconds each.
        surcharge_us: Slice::cpu_per_million(secure)
            .zip(below)
            .map(|(cpu, below)| cpu - below),
        surcharge_error_us: standard_error(secure, &slices),
        slices,
    })
}

/// The standard error of what `more` costs above `less`, turn by turn, in CPU seconds per million.
fn standard_error(more: &[Slice], less: &[Slice]) -> Option<f64> {
    let cost = |slice: &Slice| Slice::cpu_per_million(std::slice::from_ref(slice));
    let turns = more.iter().zip(less);
    let differences: Option<Vec<f64>> = turns
        .map(|(more, less)| Some(cost(more)? - cost(less)?))
        .collect();
    let differences = differences.filter(|differences| differences.len() > 1)?;
    let count = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / count;
    let squares: f64 = differences.iter().map(|one| (one - mean).powi(2)).sum();
    Some((squares / (count - 1.0) / count).sqrt())
}

/// What the measured part cost the server, which has just ended.
pub(crate) fn charge(server: &mut Server, scenario: Scenario, slices: &[Slice]) {
    server.resident_after = machine::resident(server.pid).unwrap_or(0);
    server.is_partial |= machine::has_more_processes(server.pid);
    match scenario {
        Scenario::Idle => {
            let cpu: Option<f64> = slices.iter().map(|slice| slice.server_cpu).sum();
            let seconds: f64 = slices.iter().map(|slice| slice.seconds).sum();
            server.idle_share = cpu.map(|cpu| cpu / seconds.max(0.001));
        }
        Scenario::Login => server.cpu_us_per_login = Slice::cpu_per_million(slices),
        Scenario::Chat | Scenario::Presence | Scenario::Muc | Scenario::Mixed => {
            server.cpu_per_million = Slice::cpu_per_million(slices);
            server.cpu_per_million_by_thread = Slice::threads_per_million(slices);
        }
    }
}

pub(crate) fn explain(reason: &str, findings: &Findings) -> String {
    let mut text = reason.to_owned();
    for (why, count) in &findings.failures {
        text.push_str(&format!("\n  {count} x {why}"));
    }
    text
}

pub(crate) fn watch(pid: u32) -> Result<Server, String> {
    let resident = machine::resident(pid).ok_or_else(|| format!("there is no process {pid}"))?;
    if machine::has_more_processes(pid) {
        return Err(format!(
            "--server-pid {pid}: it has more than {PROCESSES_MAX} processes, which would not all \
             be counted; give the one of them that serves"
        ));
    }
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Ok(Server {
        pid,
        command: command.trim_end_matches('\0').replace('\0', " "),
        resident_before: resident,
        ..Server::default()
    })
}

/// The certificates that a server is checked by; none where any will do.
pub(crate) fn ca(args: &RunArgs) -> Result<Option<Ca>, String> {
    if args.tls != TlsMode::None && args.ca.is_none() && !args.insecure {
        return Err(
            "say --ca FILE to check the server's certificate, or --insecure, or --tls none".into(),
        );
    }
    args.ca.as_deref().map(Ca::read).transpose()
}

/// How connections to `domain` are secured.
pub(crate) fn tls(
    mode: TlsMode,
    is_web: bool,
    domain: &str,
    ca: Option<&Ca>,
) -> Result<TlsSetup, String> {
    let alpn = match mode {
        TlsMode::None => return Ok(None),
        TlsMode::Starttls if is_web => {
            let why = "--websocket goes with --tls none or direct: no STARTTLS is inside it";
            return Err(why.into());
        }
        TlsMode::Starttls => None,
        TlsMode::Direct if is_web => Some("http/1.1"),
        // XEP-0368: the protocol's name for ALPN.
        TlsMode::Direct => Some("xmpp-client"),
    };
    let config = crate::tls::configure(ca, alpn)?;
    let name = ServerName::try_from(domain.to_owned())
        .map_err(|_| format!("{domain} is no name for a certificate"))?;
    Ok(Some((config, name)))
}

pub(crate) fn script(args: &RunArgs, accounts: Accounts) -> Script {
    // The login scenario ends with the bind result.
    let stays = args.load.scenario != Scenario::Login;
    let mut phases = args.load.phases.iter();
    Script {
        domain: args.domain().to_owned(),
        tls: args.tls,
        websocket: args.websocket.clone(),
        mechanism: args.mechanism,
        accounts,
        first_account: 0,
        register: args.register,
        roster: stays && !args.no_roster,
        presence: stays && !args.no_presence,
        rooms: args.rooms(),
        ack_every: args.load.stream_management.then_some(args.load.ack_every),
        resumes: phases.any(|phase| phase.has(Action::Resume)),
        keys: KeyCache::default(),
    }
}

pub(crate) fn expected(args: &RunArgs) -> Duration {
    let turns = 1 + u32::from(args.with_floor) + u32::from(args.with_plain.is_some());
    let login = Duration::from_secs_f64(args.load.ramp.unwrap_or(0.0));
    login + args.load.length() * turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_difference_is_that_of_its_turns() {
        let costing = |cpu: f64| Slice {
            delivered: 1_000_000,
            server_cpu: Some(cpu),
            ..Slice::default()
        };
        let less = [costing(5.0), costing(7.0), costing(6.0)];
        let more = [costing(5.5), costing(8.5), costing(7.0)];
        // Differences of 0.5, 1.5 and 1: a deviation of 0.5.
        let error = standard_error(&more, &less).expect("three turns");
        assert!((error - 0.5 / 3_f64.sqrt()).abs() < 1e-9, "{error}");
        assert_eq!(standard_error(&more[..1], &less[..1]), None);
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
