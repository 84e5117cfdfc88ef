//! What a coordinator and a worker say to each other: JSON behind its length, over TCP.
//!
//! A coordinator says hello, compares clocks, and brings a job; the worker reports all the while,
//! and answers each order. Whoever goes away ends the run.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::WORKERS_MAX;
use crate::accounts::Accounts;
use crate::args::{RATE_MAX, SECONDS_MAX, stanza_sizes};
use crate::client::{Mechanism, Script, TlsMode};
use crate::fleet::{Findings, Slice};
use crate::hdr::Packed;
use crate::machine::{self, Machine};
use crate::muc::{self, Rooms};
use crate::plain::{self, plain};
use crate::plan::{Dialect, Part, Plan, Scenario};
use crate::scenario::{Action, PAUSE_MAX, PHASES_MAX, Phase, Sizes, WEIGHT_MAX};
use crate::scram::KeyCache;
use crate::tls::Ca;

/// Bytes of a message: the accounts of a million clients, or the histograms of all phases, are
/// less.
pub const MESSAGE_SIZE_MAX: usize = 64 << 20;
/// Bytes of a greeting: who has not greeted takes no more memory.
pub const GREETING_SIZE_MAX: usize = 64 << 10;
/// How long the answer to a greeting may take.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long nothing may be heard of a worker that has a job: the last it does is to close all
/// streams, which may take ten seconds.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Which build speaks, and where it runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Build {
    /// Its version.
    #[serde(deserialize_with = "plain::text")]
    pub version: String,
    /// Its commit, where known: for the result, since it is that of a directory.
    #[serde(default, deserialize_with = "plain::maybe")]
    pub commit: Option<String>,
    /// The SHA-256 of its executable, which tells builds apart; nothing where it cannot be read.
    #[serde(default, deserialize_with = "plain::maybe")]
    pub executable: Option<String>,
    /// The machine.
    pub machine: Machine,
    /// What io_uring offers there.
    #[serde(deserialize_with = "plain::text")]
    pub ring: String,
}

impl Build {
    /// This one.
    pub fn own(ring: String) -> Build {
        Build {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: machine::commit(),
            executable: machine::executable().map(str::to_owned),
            machine: Machine::read(),
            ring,
        }
    }

    /// In what `other` differs, so that its figures are not those of this build.
    pub fn difference(&self, other: &Build) -> Option<String> {
        if self.version != other.version {
            let (own, other) = (&self.version, &other.version);
            return Some(format!("has version {other}, and the coordinator {own}"));
        }
        let (Some(own), Some(other)) = (&self.executable, &other.executable) else {
            let whose = match self.executable {
                Some(_) => "its executable",
                None => "the coordinator's executable",
            };
            return Some(format!("may be another build: {whose} cannot be read"));
        };
        let differ = own != other;
        differ.then(|| format!("has executable {other}, and the coordinator {own} (SHA-256)"))
    }
}

/// What a coordinator says.
#[derive(Serialize, Deserialize)]
pub enum Order {
    /// At first: who it is.
    Hello(Box<Build>),
    /// What does your clock say?
    Time,
    /// Let these clients log in.
    Job(Box<Job>),
    /// Let them send for a stretch.
    Stretch(Stretch),
    /// Close everything, and say what was found.
    Finish,
}

/// What a worker says.
#[derive(Serialize, Deserialize)]
pub enum Report {
    /// It has no job, and takes one.
    Welcome(Box<Build>),
    /// It has a job of somebody else.
    Busy,
    /// Nanoseconds since the connection.
    Time(u64),
    /// How far the clients are.
    Progress(Progress),
    /// All are logged in.
    Ready(Rings),
    /// What a stretch came to.
    Slice(Slice),
    /// All that was found.
    Findings(Box<Found>),
    /// It could not do its job, or clients could not log in.
    Failed(#[serde(deserialize_with = "plain::text")] String),
}

/// A share of a run.
#[derive(Serialize, Deserialize)]
pub struct Job {
    /// What is done, and by which clients.
    pub plan: Plan,
    /// How they log in.
    pub login: Login,
    /// Nanoseconds that the coordinator's clock is ahead of the worker's.
    pub ahead: i64,
}

/// How clients log in: a [`Script`] as messages have it.
#[derive(Serialize, Deserialize)]
pub struct Login {
    /// The server's domain.
    pub domain: String,
    /// How connections are secured.
    pub tls: TlsMode,
    /// The path at which streams are in WebSocket frames, where they are.
    pub websocket: Option<String>,
    /// Certificates to trust; any, where there are none.
    pub ca: Option<Ca>,
    /// The mechanism asked for.
    pub mechanism: Option<Mechanism>,
    /// Names and passwords.
    pub names: Names,
    /// Whether accounts are registered first.
    pub register: bool,
    /// Whether the roster is fetched.
    pub roster: bool,
    /// Whether initial presence is sent.
    pub presence: bool,
    /// The domain of the rooms that clients enter, where they do.
    pub rooms: Option<String>,
}

/// Names and passwords: [`Accounts`] as messages have them.
#[derive(Serialize, Deserialize)]
pub enum Names {
    /// A pattern, and a password.
    Pattern {
        /// Such as `u%d`.
        user: String,
        /// May contain `%d` too.
        password: String,
    },
    /// Lines of `user:password`.
    Lines(String),
    /// None.
    Anonymous,
}

/// A stretch in which clients send, first unrecorded and then recorded.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Stretch {
    /// Which phase of a mixed scenario.
    pub phase: Option<usize>,
    /// When it begins, by the coordinator's clock.
    pub at: u64,
    /// What is not recorded.
    pub warmup: Duration,
    /// What is.
    pub length: Duration,
}

/// How far a worker's clients are.
#[derive(Default, Serialize, Deserialize)]
pub struct Progress {
    /// Ready.
    pub ready: u64,
    /// Failed.
    pub failed: u64,
    /// Stanzas sent.
    pub sent: u64,
    /// Verified deliveries.
    pub delivered: u64,
    /// Deliveries still expected.
    pub outstanding: u64,
    /// Seconds of the run that are over, as far as they were not told before.
    pub seconds: Vec<(u64, Packed)>,
}

/// How a worker drives its clients.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Rings {
    /// Ring threads.
    pub threads: usize,
    /// The core of the first, where they are pinned.
    pub core: Option<usize>,
}

/// All that a worker found.
#[derive(Serialize, Deserialize)]
pub struct Found {
    /// By its clients.
    pub findings: Findings,
    /// Its resident bytes.
    pub resident: u64,
}

impl Job {
    /// Whether it can be carried out: a worker looks at what it is told as at what a user says.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn check(&self) -> Result<(), String> {
        let plan = &self.plan;
        plan.check()?;
        let is_known = plan.parts(WORKERS_MAX as u32).len() as u32 > plan.part.number
            && plan.part.count > 0
            && u64::from(plan.part.first) + u64::from(plan.part.count) <= plan.clients.into();
        let is_mixed = plan.scenario == Scenario::Mixed;
        let is_whole = plan.part.first.is_multiple_of(plan.unit())
            && (plan.part.count > 1 || !plan.is_pairwise() || plan.clients == 1);
        let rates = plan.connect_rate.is_none_or(|rate| rate > 0.0);
        let phases = plan.phases.len() <= PHASES_MAX && plan.phases.iter().all(is_sound);
        let is_sound = is_known
            && is_whole
            && rates
            && phases
            && is_mixed != plan.phases.is_empty()
            && plan.has_rooms() == self.login.rooms.is_some()
            && plan.dialect == Dialect::Xmpp
            && (plan.ack_every.is_some() || !plan.has(Action::Resume))
            && plan.ack_every != Some(0);
        match is_sound {
            true => Ok(()),
            false => Err("the job makes no sense; it is no coordinator's of this version".into()),
        }
    }
}

/// Whether a phase is one that a file can describe.
fn is_sound(phase: &Phase) -> bool {
    let times = [phase.warmup, phase.duration, phase.ramp];
    let (min, max) = phase.sizes.range();
    let mean = match phase.sizes {
        Sizes::Exponential(_, mean, _) => mean,
        Sizes::Fixed(_) | Sizes::Uniform(..) => min,
    };
    let weights = phase.mix.iter().map(|(_, weight)| weight);
    times.iter().all(|time| (0.0..=SECONDS_MAX).contains(time))
        && (0.0..=RATE_MAX).contains(&phase.rate_from)
        && (0.0..=PAUSE_MAX).contains(&phase.pause)
        && min <= mean
        && mean <= max
        && stanza_sizes().contains(&min)
        && stanza_sizes().contains(&max)
        && phase.mix.len() <= Action::ALL.len()
        && weights.into_iter().all(|weight| *weight <= WEIGHT_MAX)
}

impl Login {
    /// That of the clients of `part`: of a file of accounts, only theirs.
    pub fn of(script: &Script, ca: Option<Ca>, part: Part) -> Login {
        let lines = || {
            let all = part.first..part.first + part.count;
            let all = all.filter_map(|index| script.accounts.of(index));
            all.map(|(user, password)| format!("{user}:{password}\n"))
                .collect()
        };
        Login {
            domain: script.domain.clone(),
            tls: script.tls,
            websocket: script.websocket.clone(),
            ca,
            mechanism: script.mechanism,
            names: match &script.accounts {
                Accounts::Pattern { user, password } => Names::Pattern {
                    user: user.clone(),
                    password: password.to_string(),
                },
                Accounts::File { .. } => Names::Lines(lines()),
                Accounts::Anonymous => Names::Anonymous,
            },
            register: script.register,
            roster: script.roster,
            presence: script.presence,
            rooms: script.rooms.as_ref().map(|rooms| rooms.domain().to_owned()),
        }
    }

    /// What the clients of `plan` say.
    ///
    /// # Errors
    /// The accounts make no sense.
    pub fn script(self, plan: &Plan) -> Result<Script, String> {
        let accounts = match self.names {
            Names::Pattern { user, password } => Accounts::Pattern {
                user,
                password: password.into(),
            },
            Names::Lines(text) => Accounts::parse("accounts", plan.part.first, &text)?,
            Names::Anonymous => Accounts::Anonymous,
        };
        let rooms = self.rooms.as_deref().map(muc::domain).transpose();
        let rooms = rooms.map_err(|why| format!("the job's domain of rooms {why}"))?;
        Ok(Script {
            domain: self.domain,
            tls: self.tls,
            websocket: self.websocket,
            mechanism: self.mechanism,
            accounts,
            first_account: 0,
            register: self.register,
            roster: self.roster,
            presence: self.presence,
            rooms: rooms.map(|domain| Rooms::new(&domain, plan.clique)),
            ack_every: plan.ack_every,
            resumes: plan.has(Action::Resume),
            keys: KeyCache::default(),
        })
    }
}

/// Why nothing more is heard of the other side; a sentence whose subject is its name.
#[derive(Debug)]
pub enum Fault {
    /// The connection ended.
    Gone,
    /// Nothing came for so long.
    Silent(Duration),
    /// What came is no message.
    Garbled(String),
    /// A message of so many bytes.
    TooLarge(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Gone => write!(f, "went away"),
            Fault::Silent(time) => write!(f, "said nothing for {} s", time.as_secs()),
            Fault::Garbled(why) => write!(f, "sent what is no message of this version ({why})"),
            Fault::TooLarge(size) => write!(
                f,
                "has a message of {size} bytes, and {MESSAGE_SIZE_MAX} are the most; let more \
                 workers share the clients"
            ),
        }
    }
}

/// One side of a connection.
pub struct Link(TcpStream);

impl Link {
    /// What is said at once is sent at once.
    ///
    /// # Errors
    /// The socket is no more.
    pub fn new(stream: TcpStream) -> io::Result<Link> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Link(stream))
    }

    /// The other end of the same connection, for a thread of its own.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn split(&self) -> io::Result<Link> {
        self.0.try_clone().map(Link)
    }

    /// Ends the connection, for all threads.
    pub fn close(&self) {
        // It may have ended already.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The other side is gone or takes nothing, or the message is too large.
    pub fn send(&mut self, message: &impl Serialize) -> Result<(), Fault> {
        let mut bytes = vec![0; 4];
        serde_json::to_writer(&mut bytes, message)
            .map_err(|error| Fault::Garbled(error.to_string()))?;
        let size = bytes.len() - 4;
        if size > MESSAGE_SIZE_MAX {
            return Err(Fault::TooLarge(size));
        }
        bytes[..4].copy_from_slice(&(size as u32).to_be_bytes());
        self.0
            .write_all(&bytes)
            .map_err(|error| fault(&error, ANSWER_MAX))
    }

    /// Receives one message, waiting for `patience` at most where nothing comes.
    ///
    /// # Errors
    /// The other side is gone or says nothing, or not what was expected.
    pub fn receive<T: DeserializeOwned>(&mut self, patience: Duration) -> Result<T, Fault> {
        self.receive_up_to(MESSAGE_SIZE_MAX, patience)
    }

    /// Receives the first message of the other side, of [`GREETING_SIZE_MAX`] bytes at most.
    ///
    /// # Errors
    /// As [`Link::receive`].
    pub fn receive_greeting<T: DeserializeOwned>(&mut self) -> Result<T, Fault> {
        let greeting = self.receive_up_to(GREETING_SIZE_MAX, ANSWER_MAX);
        greeting.map_err(|fault| match fault {
            Fault::TooLarge(size) => Fault::Garbled(format!(
                "a greeting of {size} bytes, and {GREETING_SIZE_MAX} are the most"
            )),
            other => other,
        })
    }

    fn receive_up_to<T: DeserializeOwned>(
        &mut self,
        size_max: usize,
        patience: Duration,
    ) -> Result<T, Fault> {
        let failed = |error: io::Error| fault(&error, patience);
        self.0.set_read_timeout(Some(patience)).map_err(failed)?;
        let mut size = [0; 4];
        self.0.read_exact(&mut size).map_err(failed)?;
        let size = u32::from_be_bytes(size) as usize;
        if size > size_max {
            return Err(Fault::TooLarge(size));
        }
        // It grows by what comes, not by what is announced.
        let mut bytes = Vec::new();
        let mut rest = (&mut self.0).take(size as u64);
        rest.read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() < size {
            return Err(Fault::Gone);
        }
        // The error may quote what came.
        let garbled = |error: serde_json::Error| Fault::Garbled(plain(&error.to_string()));
        serde_json::from_slice(&bytes).map_err(garbled)
    }
}

fn fault(error: &io::Error, patience: Duration) -> Fault {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Fault::Silent(patience),
        _ => Fault::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::net::TcpListener;
    use std::sync::Arc;

    fn job(line: &str) -> Job {
        let words = ["loadgen"].into_iter().chain(line.split_whitespace());
        let load = crate::heed::read(words).expect("a line").run.load;
        let target = "127.0.0.1:1".parse().unwrap();
        let rooms = load.has_rooms();
        let script = Script {
            rooms: rooms.then(|| Rooms::new("conference.localhost", load.clique)),
            ..Script::anonymous("localhost")
        };
        let plan = load.plan_anywhere(target, Dialect::Xmpp, Clock::start());
        Job {
            login: Login::of(&script, None, plan.part),
            plan,
            ahead: 0,
        }
    }

    fn links() -> (TcpStream, Link) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, Link::new(listener.accept().unwrap().0).unwrap())
    }

    #[test]
    fn a_job_arrives_as_it_was_sent() {
        for line in [
            "--rate 7 --clients 40",
            "--scenario mixed",
            "--scenario muc --clients 41",
            "--closed --window 3",
        ] {
            let job = job(line);
            let text = serde_json::to_string(&job).unwrap();
            let read: Job = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
            assert_eq!(read.check(), Ok(()), "{line}");
            for part in read.plan.parts(4) {
                let mut job = self::job(line);
                job.plan.part = part;
                assert_eq!(job.check(), Ok(()), "{line}: {part:?}");
            }
        }
    }

    #[test]
    fn a_job_that_nobody_could_do_is_refused() {
        let wrong: [fn(&mut Plan); 18] = [
            |plan| plan.clique = 0,
            |plan| plan.partners = 0,
            |plan| plan.clients = 0,
            |plan| plan.stanza_size = usize::MAX,
            |plan| plan.part.count = 0,
            |plan| plan.part.count = 1,
            |plan| plan.part.count = plan.clients + 1,
            |plan| plan.part.first = u32::MAX,
            |plan| plan.part.first = 1,
            |plan| plan.part.number = u32::MAX,
            |plan| plan.dialect = Dialect::Floor,
            |plan| plan.connect_rate = Some(0.0),
            |plan| plan.ack_every = Some(0),
            |plan| plan.phases.clear(),
            |plan| plan.phases[0].mix[0].1 = u32::MAX,
            |plan| plan.phases[0].sizes = Sizes::Uniform(300, 200),
            |plan| plan.phases[0].mix[0].0 = Action::Resume,
            |plan| plan.phases[0].pause = PAUSE_MAX + 1.0,
        ];
        for (index, change) in wrong.into_iter().enumerate() {
            let mut job = job("--scenario mixed --clients 40");
            change(&mut job.plan);
            assert!(job.check().is_err(), "{index}");
        }
    }

    #[test]
    fn a_worker_enters_the_same_rooms_and_is_told_where_they_are() {
        let mut job = job("--scenario muc --clients 41 --clique 5");
        let rooms = job.login.rooms.take();
        assert!(job.check().is_err(), "nobody knows where they are");
        job.login.rooms = rooms;
        let script = job.login.script(&job.plan).unwrap();
        let expected = Rooms::new("conference.localhost", 5);
        assert_eq!(script.rooms, Some(expected));
        let mut evil = self::job("--scenario muc");
        evil.login.rooms = Some("x'><y".into());
        assert!(evil.login.script(&evil.plan).is_err());
    }

    #[test]
    fn a_worker_has_the_accounts_of_its_clients_and_no_others() {
        let lines = (0..6).map(|at| (format!("user{at}"), Arc::from("p:1")));
        let script = Script {
            accounts: Accounts::File {
                first: 0,
                lines: lines.collect(),
            },
            ..Script::anonymous("localhost")
        };
        let mut plan = job("--clients 6").plan;
        plan.part = plan.parts(2)[1];
        let login = Login::of(&script, None, plan.part);
        let text = serde_json::to_string(&login).unwrap();
        let login: Login = serde_json::from_str(&text).unwrap();
        let accounts = login.script(&plan).unwrap().accounts;
        for index in 0..6 {
            let own = index >= plan.part.first;
            let expected = script.accounts.of(index).filter(|_| own);
            assert_eq!(accounts.of(index), expected, "{index}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused_before_memory_is_taken_for_it() {
        for (bytes, refusal) in [
            (
                &(MESSAGE_SIZE_MAX as u32 + 1).to_be_bytes()[..],
                "67108864 are the most",
            ),
            (b"\0\0\0\x02{}", "no message of this version"),
            (b"\0\0\0\x09{}", "went away"),
            (b"\0\0", "went away"),
            (b"", "went away"),
        ] {
            let (mut near, mut link) = links();
            near.write_all(bytes).unwrap();
            drop(near);
            let Err(fault) = link.receive::<Order>(ANSWER_MAX) else {
                panic!("{bytes:?} is no order")
            };
            assert!(fault.to_string().contains(refusal), "{bytes:?} {fault}");
        }
        let (_near, mut link) = links();
        let patience = Duration::from_millis(1);
        let silent = link.receive::<Order>(patience);
        assert!(matches!(silent, Err(Fault::Silent(time)) if time == patience));
        let (mut near, mut link) = links();
        near.write_all(&(GREETING_SIZE_MAX as u32 + 1).to_be_bytes())
            .unwrap();
        // Nothing follows: what is too large is refused by its size.
        let large = link.receive_greeting::<Order>();
        let Err(fault) = large else {
            panic!("it is too large")
        };
        assert!(fault.to_string().contains("65536 are the most"), "{fault}");
        let large = "x".repeat(MESSAGE_SIZE_MAX);
        assert!(matches!(link.send(&large), Err(Fault::TooLarge(_))));
    }

    #[test]
    fn what_would_steer_the_terminal_is_taken_out_where_it_is_received() {
        let evil = "a\u{1b}[2J\u{9b}b\rc\nd";
        let good = "a\u{fffd}[2J\u{fffd}b\u{fffd}c\nd";
        let (near, mut link) = links();
        let mut near = Link::new(near).unwrap();
        near.send(&Report::Failed(evil.into())).unwrap();
        let Ok(Report::Failed(reason)) = link.receive(ANSWER_MAX) else {
            panic!("it is what was sent")
        };
        assert_eq!(reason, good);
        let build = Build {
            version: evil.into(),
            commit: Some(evil.into()),
            executable: Some(evil.into()),
            machine: Machine {
                host: evil.into(),
                kernel: evil.into(),
                cpu: evil.into(),
                clock_source: evil.into(),
                ..Machine::default()
            },
            ring: evil.into(),
        };
        near.send(&Report::Welcome(Box::new(build))).unwrap();
        let Ok(Report::Welcome(build)) = link.receive_greeting() else {
            panic!("it is what was sent")
        };
        let text = format!("{build:?}");
        assert_eq!(
            text.matches("a\u{fffd}[2J\u{fffd}b\u{fffd}c").count(),
            8,
            "{text}"
        );
        let mut findings = Findings::default();
        findings.failures.insert(evil.into(), 3);
        findings.failures.insert(good.into(), 4);
        let found = Found {
            findings,
            resident: 0,
        };
        near.send(&Report::Findings(Box::new(found))).unwrap();
        let Ok(Report::Findings(found)) = link.receive(ANSWER_MAX) else {
            panic!("it is what was sent")
        };
        assert_eq!(found.findings.failures, [(good.to_owned(), 7)].into());
        near.send(&evil).unwrap();
        let Err(fault) = link.receive::<Order>(ANSWER_MAX) else {
            panic!("it is no order")
        };
        let sentence = fault.to_string();
        assert!(sentence.contains("a\u{fffd}[2J"), "{sentence}");
        assert!(!sentence.contains('\u{1b}'), "{sentence:?}");
    }

    #[test]
    fn builds_differ_by_version_and_by_executable_but_not_by_where_they_run() {
        let build = |version: &str, executable: Option<&str>, commit: &str| Build {
            version: version.into(),
            executable: executable.map(str::to_owned),
            commit: Some(commit.to_owned()),
            ..Build::default()
        };
        let own = build("1", Some("a"), "here");
        assert_eq!(own.difference(&build("1", Some("a"), "there")), None);
        let unknown = build("1", None, "here");
        for (one, other, why) in [
            (&own, build("2", Some("a"), "here"), "has version 2"),
            (&own, build("1", Some("b"), "here"), "has executable b"),
            (&own, build("1", None, "here"), "its executable cannot"),
            (&unknown, own.clone(), "the coordinator's executable cannot"),
        ] {
            let difference = one.difference(&other).expect(why);
            assert!(difference.contains(why), "{difference}");
        }
    }
}
