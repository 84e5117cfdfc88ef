//! The command line, and how it becomes a plan.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::accounts::Accounts;
use crate::client::{Mechanism, TlsMode};
use crate::clock::Clock;
use crate::compare;
use crate::muc::{self, Rooms};
use crate::plan::{Dialect, Pace, Part, Plan, Scenario};
use crate::scenario::{Action, Phase};
use crate::schedule::Arrivals;
use crate::slo::Slo;
use crate::web;
use crate::workers;

/// Stanzas a second where no rate is given, at most: what one core generates with room to spare.
const RATE_DEFAULT_MAX: f64 = 10_000.0;

/// Drives an XMPP server with many clients, verifies every delivery, and shows what it cost.
///
/// Exit status: 0 all went well; 1 bad usage, or clients could not log in; 2 a delivery was lost,
/// duplicated, reordered or altered, or an acknowledgement was missing or false; 3 the generator
/// could not keep its own schedule, so the result is invalid; 4 a threshold of `--slo` was missed;
/// 5 `compare` found a regression.
#[derive(Parser, Debug)]
#[command(name = "loadgen", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What else it can do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A run against a server.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What it can do beside driving a server.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// The same traffic through a relay that parses nothing: what TCP alone costs on this machine.
    Floor(Box<LoadArgs>),
    /// Drives clients for a run that another machine coordinates (--workers), one after another,
    /// until it is ended. It does so for whoever connects: let it listen in a trusted network only.
    Worker(WorkerArgs),
    /// One page of several runs' JSON files.
    Report {
        /// What `--json` wrote.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The page to write.
        #[arg(long, value_name = "FILE", default_value = "report.html")]
        out: PathBuf,
    },
    /// Whether the second of two runs is worse than the first, by more than noise.
    Compare {
        /// What `--json` wrote of the run before.
        before: PathBuf,
        /// What it wrote of the run after.
        after: PathBuf,
        /// How much worse a figure may be.
        #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = compare::share)]
        noise: f64,
        /// The figures that decide, as `--slo` names them (default: CPU, its ratio to the floor,
        /// memory, a closed loop's rate, p50, p99 and ack.p99, so far as both runs tell them).
        #[arg(long, value_name = "FIGURES", value_delimiter = ',', value_parser = compare::gate)]
        only: Vec<String>,
    },
}

/// A worker: everything else the coordinator says.
#[derive(Args, Debug, Clone)]
pub struct WorkerArgs {
    /// Where coordinators connect to; port 0 is any that is free.
    #[arg(long, value_name = "HOST:PORT", default_value = workers::LISTEN)]
    pub listen: String,
    /// Ring threads (default: as few as the limit of descriptors allows).
    #[arg(long)]
    pub threads: Option<u32>,
    /// First core of the generator's threads (default: 1, where the target is this machine and has
    /// two).
    #[arg(long)]
    pub core: Option<usize>,
    /// Say nothing of the jobs.
    #[arg(long)]
    pub quiet: bool,
}

/// Against a server.
#[derive(Args, Debug, Clone)]
pub struct RunArgs {
    /// Server to connect to.
    #[arg(long, default_value = "127.0.0.1", help_heading = "Target")]
    pub host: String,
    /// Its port.
    #[arg(long, default_value_t = 5222, help_heading = "Target")]
    pub port: u16,
    /// XMPP domain (default: the host).
    #[arg(long, help_heading = "Target")]
    pub domain: Option<String>,
    /// How connections are secured.
    #[arg(long, value_enum, default_value = "starttls", help_heading = "Target")]
    pub tls: TlsMode,
    /// Speak XMPP in WebSocket frames (RFC 7395), at this path of the port.
    #[arg(
        long,
        value_name = "PATH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = web::PATH,
        value_parser = web::path,
        help_heading = "Target"
    )]
    pub websocket: Option<String>,
    /// Accept any certificate.
    #[arg(long, help_heading = "Target")]
    pub insecure: bool,
    /// Certificates to trust, PEM.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub ca: Option<PathBuf>,
    /// Process of the server, where it runs here: its CPU time and memory, and those of what it has
    /// started, join the result.
    #[arg(long, value_name = "PID", help_heading = "Target")]
    pub server_pid: Option<u32>,
    /// What the server was configured with: its text joins the result, and so does the durability
    /// that it asks for where it is Vorpal's.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub server_config: Option<PathBuf>,

    /// Account names; %d is the client's number, from 0.
    #[arg(long, default_value = "u%d", help_heading = "Accounts")]
    pub user: String,
    /// Password of all accounts; may contain %d.
    #[arg(long, help_heading = "Accounts")]
    pub password: Option<String>,
    /// Lines of user:password.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "password",
        help_heading = "Accounts"
    )]
    pub accounts: Option<PathBuf>,
    /// Log in without accounts (SASL ANONYMOUS).
    #[arg(long, conflicts_with_all = ["password", "accounts"], help_heading = "Accounts")]
    pub anonymous: bool,
    /// Register the accounts first (XEP-0077).
    #[arg(long, conflicts_with = "anonymous", help_heading = "Accounts")]
    pub register: bool,
    /// SASL mechanism (default: the strongest of SCRAM-SHA-256, -1 and PLAIN on offer).
    #[arg(long, value_enum, help_heading = "Accounts")]
    pub mechanism: Option<Mechanism>,
    /// Do not fetch the roster.
    #[arg(long, help_heading = "Accounts")]
    pub no_roster: bool,
    /// Do not send initial presence.
    #[arg(long, help_heading = "Accounts")]
    pub no_presence: bool,

    /// Measure the floor in the same run, in turns, and report the ratio.
    #[arg(long, help_heading = "Load")]
    pub with_floor: bool,
    /// Run the same load without TLS and WebSocket beside it, in turns, at this port, with the
    /// accounts behind the first ones: what these add to each stanza.
    #[arg(
        long,
        value_name = "PORT",
        requires = "server_pid",
        help_heading = "Load"
    )]
    pub with_plain: Option<u16>,
    /// Let these workers (`loadgen worker`) drive the clients, a share each, and generate no load
    /// here.
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        value_parser = workers::address,
        help_heading = "Load"
    )]
    pub workers: Vec<String>,
    /// Search the highest rate that meets the thresholds: each is a whole run, from --rate on.
    #[arg(
        long,
        requires = "slo",
        conflicts_with_all = ["closed", "with_floor", "with_plain"],
        help_heading = "Load"
    )]
    pub find_max: bool,
    /// The rest.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// The load itself.
#[derive(Args, Debug, Clone)]
pub struct LoadArgs {
    /// How many clients.
    #[arg(long, default_value_t = 100, help_heading = "Load")]
    pub clients: u32,
    /// What they do: chat, presence, muc, idle, login, another built-in scenario of
    /// docs/LOADGEN.md, or one from a FILE.toml; other options stand in place of what it says.
    #[arg(
        long,
        value_name = "NAME|FILE",
        default_value = "chat",
        help_heading = "Load"
    )]
    pub scenario: Scenario,
    /// What the scenario is called.
    #[arg(skip)]
    pub scenario_name: String,
    /// Its phases, where it has several, or clients do several things.
    #[arg(skip)]
    pub phases: Vec<Phase>,
    /// Presence goes to one partner at a time instead of the clique.
    #[arg(long, help_heading = "Load")]
    pub directed: bool,
    /// Partners of each chatting client, addressed in turn.
    #[arg(long, value_name = "P", default_value_t = 1, help_heading = "Load")]
    pub partners: u32,
    /// Members of a clique of mutual contacts (u0..u19, u20..u39, ...), or occupants of a room;
    /// 1000 at most.
    #[arg(long, value_name = "K", default_value_t = 20, help_heading = "Load")]
    pub clique: u32,
    /// Domain of the rooms that clients enter (default: conference.DOMAIN).
    #[arg(long, value_name = "DOMAIN", value_parser = muc::domain, help_heading = "Load")]
    pub rooms: Option<String>,
    /// Open loop: stanzas (or logins) a second, all clients together, whatever the server does.
    /// Default: one a second for each client, 10,000 at most
    #[arg(
        long,
        value_name = "R",
        value_parser = rate,
        conflicts_with = "closed",
        help_heading = "Load"
    )]
    pub rate: Option<f64>,
    /// Distribution of the open loop's gaps.
    #[arg(long, value_enum, default_value = "poisson", help_heading = "Load")]
    pub arrivals: Arrivals,
    /// Closed loop: each client keeps a window of stanzas outstanding.
    #[arg(long, help_heading = "Load")]
    pub closed: bool,
    /// The closed loop's window.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub window: u16,
    /// Manage the streams (XEP-0198), with resumption, which clients do in a scenario with `resume`
    /// in its mix; the result tells how long acknowledgements took.
    #[arg(long, help_heading = "Load")]
    pub stream_management: bool,
    /// Stanzas after which a client asks for acknowledgement; so it does when it stops sending.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Load"
    )]
    pub ack_every: u32,
    /// Bytes of a stanza as the client writes it.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 200,
        help_heading = "Load"
    )]
    pub stanza_size: usize,
    /// Connections begun a second, all clients together.
    #[arg(long, value_name = "R", value_parser = rate, help_heading = "Load")]
    pub connect_rate: Option<f64>,
    /// Spread the connections over so many seconds.
    #[arg(
        long,
        value_name = "S",
        value_parser = seconds,
        conflicts_with = "connect_rate",
        help_heading = "Load"
    )]
    pub ramp: Option<f64>,
    /// Seconds of unrecorded load at first.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 2.0,
        value_parser = seconds,
        help_heading = "Load"
    )]
    pub warmup: f64,
    /// Seconds of measured load.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 10.0,
        value_parser = some_seconds,
        help_heading = "Load"
    )]
    pub duration: f64,
    /// Decides everything random.
    #[arg(long, default_value_t = 1, help_heading = "Load")]
    pub seed: u64,
    /// Thresholds that the result must meet, as in "p99<5ms,loss=0"; exit status 4 where it does
    /// not.
    #[arg(long, value_name = "TERMS", help_heading = "Load")]
    pub slo: Option<Slo>,

    /// Ring threads (default: as few as the limit of descriptors allows).
    #[arg(long, help_heading = "Generator")]
    pub threads: Option<u32>,
    /// Sleep until a stanza is due, instead of awaiting it awake: the schedule is met less exactly,
    /// and a server on the same cores has them.
    #[arg(long, help_heading = "Generator")]
    pub no_spin: bool,
    /// First core of the generator's threads (default: 1, where the target is this machine and has
    /// two); the floor's relay is on core 0.
    #[arg(long, help_heading = "Generator")]
    pub core: Option<usize>,

    /// Write everything as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,
    /// Write a page with plots.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,
    /// Write percentile files (.hgrm) and an HDR log (.hlog).
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub hgrm: Option<PathBuf>,
    /// Write what was delivered second by second, and how fast, as CSV.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub csv: Option<PathBuf>,
    /// Append the run's main figures as one line of JSON.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub history: Option<PathBuf>,
    /// Name of the run in reports.
    #[arg(long, help_heading = "Output")]
    pub name: Option<String>,
    /// Say nothing while it runs.
    #[arg(long, help_heading = "Output")]
    pub quiet: bool,
}

/// The highest rate that is taken for one: one in ten nanoseconds.
pub(crate) const RATE_MAX: f64 = 100_000_000.0;

/// The longest time that is taken for one: a week.
pub(crate) const SECONDS_MAX: f64 = 604_800.0;

/// Bytes that a stanza may have; more at least where addresses are long.
pub(crate) fn stanza_sizes() -> std::ops::RangeInclusive<usize> {
    crate::body::MARK_SIZE_MIN + crate::wire::FRAME_HEAD_SIZE..=60_000
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|s| (0.0..=SECONDS_MAX).contains(s));
    seconds.ok_or_else(|| format!("takes seconds, 0 to {SECONDS_MAX}"))
}

fn some_seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|s| (0.1..=SECONDS_MAX).contains(s));
    seconds.ok_or_else(|| format!("takes seconds, 0.1 to {SECONDS_MAX}"))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok();
    let rate = rate.filter(|rate| *rate > 0.0 && *rate <= RATE_MAX);
    rate.ok_or_else(|| format!("takes a positive number up to {RATE_MAX}"))
}

impl LoadArgs {
    /// The plan of this load against `target`.
    ///
    /// # Errors
    /// What does not fit together, with the remedy.
    pub fn plan(&self, target: SocketAddr, dialect: Dialect, clock: Clock) -> Result<Plan, String> {
        let plan = self.plan_anywhere(target, dialect, clock);
        plan.check()?;
        plan.fit(self.threads)
    }

    /// The same for whatever machines will carry it out.
    pub fn plan_anywhere(&self, target: SocketAddr, dialect: Dialect, clock: Clock) -> Plan {
        let pair = match self.scenario {
            Scenario::Chat | Scenario::Presence | Scenario::Muc => true,
            Scenario::Login | Scenario::Idle => false,
            Scenario::Mixed => self.has(Action::is_marked),
        };
        let pace = self.pace(pair);
        let connect_rate = self.connect_rate.or(self
            .ramp
            .map(|ramp| f64::from(self.clients) / ramp.max(0.001)));
        Plan {
            target,
            dialect,
            clients: self.clients,
            part: Part::whole(self.clients),
            scenario: self.scenario,
            phases: self.phases.clone(),
            directed: self.directed,
            partners: self.partners,
            clique: self.clique,
            pace,
            ack_every: self.stream_management.then_some(self.ack_every),
            stanza_size: self.stanza_size_max(),
            connect_rate,
            core: self.core,
            seed: self.seed,
            spins: !self.no_spin,
            threads: self.threads.unwrap_or(1),
            clock,
        }
    }

    /// When stanzas are sent; of several phases in the first that sends any.
    fn pace(&self, pair: bool) -> Pace {
        let open = |rate| Pace::Open {
            rate,
            arrivals: self.arrivals,
        };
        let closed = Pace::Closed {
            window: self.window,
        };
        match (self.rate, self.closed || !pair) {
            _ if self.scenario == Scenario::Mixed => {
                let mut paces = self.phases.iter().filter_map(|phase| phase.pace);
                paces.next().unwrap_or(closed)
            }
            (Some(rate), _) => open(rate),
            (None, true) => closed,
            (None, false) => open(self.rate_default()),
        }
    }

    /// Whether any phase has an action that `fits`.
    pub fn has(&self, fits: fn(Action) -> bool) -> bool {
        let mut actions = self.phases.iter().flat_map(|phase| &phase.mix);
        actions.any(|(action, _)| fits(*action))
    }

    /// Whether clients enter rooms.
    pub fn has_rooms(&self) -> bool {
        self.scenario == Scenario::Muc || self.has(|action| action == Action::Muc)
    }

    /// The largest stanza of any phase.
    fn stanza_size_max(&self) -> usize {
        let marked = self.phases.iter().filter(|phase| phase.is_marked());
        let sizes = marked.map(|phase| phase.sizes.range().1);
        sizes.max().unwrap_or(self.stanza_size)
    }

    /// Asks for another rate, in every phase that has one.
    pub fn set_rate(&mut self, rate: f64) {
        self.rate = Some(rate);
        for phase in &mut self.phases {
            if let Some(Pace::Open { rate: asked, .. }) = &mut phase.pace {
                *asked = rate;
            }
        }
    }

    /// Seconds of all that is measured, with what is not recorded before.
    pub fn length(&self) -> Duration {
        match self.phases.is_empty() {
            true => self.warmup() + self.duration(),
            false => {
                let phases = self.phases.iter();
                Duration::from_secs_f64(phases.map(|phase| phase.warmup + phase.duration).sum())
            }
        }
    }

    /// The rate that was asked for, or the one of a run that asks for none.
    pub fn rate_default(&self) -> f64 {
        let usual = f64::from(self.clients).min(RATE_DEFAULT_MAX);
        self.rate.unwrap_or(usual)
    }

    /// The warm-up.
    pub fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    /// The measured time.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.duration)
    }
}

impl RunArgs {
    /// Where to connect.
    ///
    /// # Errors
    /// The name has no address.
    pub fn target(&self) -> Result<SocketAddr, String> {
        (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|error| format!("{}: {error}", self.host))?
            .next()
            .ok_or_else(|| format!("{} has no address", self.host))
    }

    /// The server's domain.
    pub fn domain(&self) -> &str {
        self.domain.as_deref().unwrap_or(&self.host)
    }

    /// The rooms that clients enter, where they do.
    pub fn rooms(&self) -> Option<Rooms> {
        let named = self.load.rooms.clone();
        let domain = named.unwrap_or_else(|| muc::domain_default(self.domain()));
        let has_rooms = self.load.has_rooms();
        has_rooms.then(|| Rooms::new(&domain, self.load.clique))
    }

    /// Whose accounts are used.
    ///
    /// # Errors
    /// What is missing.
    pub fn accounts(&self) -> Result<Accounts, String> {
        let accounts = match (&self.accounts, &self.password) {
            _ if self.anonymous => Accounts::Anonymous,
            (Some(path), _) => Accounts::read(path)?,
            (None, Some(password)) => Accounts::Pattern {
                user: self.user.clone(),
                password: password.as_str().into(),
            },
            (None, None) => {
                return Err("say --password P, --accounts FILE or --anonymous".into());
            }
        };
        // Those without TLS beside the first ones have accounts of their own.
        let needed = self
            .load
            .clients
            .saturating_mul(1 + u32::from(self.with_plain.is_some()));
        match accounts.count() {
            Some(count) if count < needed => {
                Err(format!("{needed} clients, but only {count} accounts"))
            }
            _ => Ok(accounts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::CLIENTS_PER_RING_MAX;

    fn load(line: &[&str]) -> Result<Plan, String> {
        let words = ["loadgen"].iter().chain(line);
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        cli.run.load.plan(
            "127.0.0.1:1".parse().unwrap(),
            Dialect::Xmpp,
            Clock::start(),
        )
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_loop_is_open_unless_told_otherwise_and_never_both() {
        let rate_of = |clients: &str| match load(&["--clients", clients]).unwrap().pace {
            Pace::Open { rate, .. } => rate,
            other => panic!("{other:?}"),
        };
        assert_eq!((rate_of("10"), rate_of("100000")), (10.0, RATE_DEFAULT_MAX));
        assert!(load(&["--rate", "5", "--closed"]).is_err());
        assert_eq!(
            load(&["--closed", "--window", "4"]).unwrap().pace,
            Pace::Closed { window: 4 }
        );
        assert!(matches!(
            load(&["--rate", "5"]).unwrap().pace,
            Pace::Open { rate: 5.0, .. }
        ));
        assert!(load(&["--scenario", "idle", "--clients", "1"]).is_ok());
    }

    #[test]
    fn times_and_rates_that_mean_nothing_are_refused() {
        for bad in [
            "--duration=inf",
            "--duration=nan",
            "--duration=0",
            "--duration=-1",
            "--warmup=-1",
            "--warmup=nan",
            "--ramp=-1",
            "--connect-rate=0",
            "--connect-rate=nan",
        ] {
            assert!(load(&["--closed", bad]).is_err(), "{bad}");
        }
        for bad in ["inf", "1e12", "0", "-1", "x"] {
            assert!(load(&[&format!("--rate={bad}")]).is_err(), "{bad}");
        }
        assert!(load(&["--closed", "--warmup=0", "--duration=0.5", "--ramp=0"]).is_ok());
    }

    #[test]
    fn a_ramp_is_a_rate_of_connections() {
        let plan = load(&["--closed", "--clients", "100", "--ramp", "4"]).unwrap();
        assert_eq!(plan.connect_rate, Some(25.0));
    }

    #[test]
    fn many_clients_get_as_many_rings_as_they_need() {
        let plan = load(&["--closed", "--clients", "100000"]).unwrap();
        assert!(plan.threads >= 6);
        assert!(
            plan.shares()
                .iter()
                .all(|(_, count)| *count <= CLIENTS_PER_RING_MAX)
        );
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        let error = load(&["--closed", "--core", "999"]).unwrap_err();
        assert!(error.starts_with("--core 999: there are "), "{error}");
    }

    #[test]
    fn threads_that_would_not_be_had_are_refused() {
        let few = load(&["--clients", "100000", "--threads", "2"]).unwrap_err();
        assert!(few.contains("at least"), "{few}");
        let many = load(&["--clients", "10", "--threads", "6"]).unwrap_err();
        assert!(many.contains("5 is the most"), "{many}");
        assert_eq!(
            load(&["--clients", "10", "--threads", "5"])
                .unwrap()
                .threads,
            5
        );
    }

    #[test]
    fn the_clients_without_tls_need_accounts_too() {
        let path = std::env::temp_dir().join(format!("loadgen-accounts-{}", std::process::id()));
        std::fs::write(&path, "a:p\nb:p\nc:p\n").unwrap();
        let file = path.to_str().unwrap();
        let line = [
            "loadgen",
            "--clients",
            "2",
            "--accounts",
            file,
            "--server-pid",
            "1",
        ];
        let accounts = |more: &[&str]| {
            let cli = Cli::try_parse_from(line.iter().chain(more)).unwrap();
            cli.run.accounts().map(|_| ())
        };
        let result = (accounts(&[]), accounts(&["--with-plain", "5222"]));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(result.0, Ok(()));
        assert_eq!(result.1.unwrap_err(), "4 clients, but only 3 accounts");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let clique = |members: &str| load(&["--scenario", "presence", "--clique", members]);
        assert!(clique("1000").is_ok());
        for bad in ["1", "1001", "4294967295"] {
            assert_eq!(clique(bad).unwrap_err(), "--clique takes 2 to 1000");
        }
        assert!(
            load(&["--closed", "--stanza-size", "10"])
                .unwrap_err()
                .contains("stanza-size")
        );
        assert!(
            load(&["--closed", "--clients", "1"])
                .unwrap_err()
                .contains("two")
        );
    }
}
