//! XEP-0133: Service Administration, as commands for those whom the configuration names.
//!
//! Invariant: what a command does to accounts is what an operator's request does, in the same
//! order: storage has new keys before the account's home hears of them, and that before the asker.

mod outcome;

use self::outcome::late_outcome;
use super::catalogue::NO_MAXIMUM;
use super::form::values;
use super::{Fields, Refusal, open_command};
use crate::errand::{Errand, Told};
use crate::error::StanzaError;
use crate::host::{Host, ShardId, Ticket, Timestamp, random_bytes};
use crate::iq::IqRequest;
use crate::port::{Space, StoreOp, StoreReply};
use crate::settings::Settings;
use crate::shard::{Shard, Timer, Waiting};
use crate::stream::bind::may_be_guests;
use crate::stream::sasl::{DeriveJob, Derived, Password};
use crate::xep::{Extension, Xep};
use stanza::jid::{BareJid, Jid, check_new_local};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) use super::catalogue::COMMANDS;

/// Administration. It announces nothing: its commands are found as commands are.
#[derive(Debug)]
pub struct Administration;

impl Extension for Administration {
    const XEP: Xep = Xep {
        number: 133,
        version: "1.3.1",
    };
}

/// Accounts that one command is about.
pub(super) const SUBJECTS_MAX: usize = 20;

/// Commands under way on a shard whose askers wait for an answer.
pub const AWAITED_RUNS_MAX: usize = 8;

/// Commands under way on a shard, with those that go on after they were answered, for they took too
/// long.
pub const RUNS_MAX: usize = 64;

/// Names in a list without a maximum.
pub(super) const NAMES_MAX: usize = 1_000;

/// Bytes of an announcement.
pub(super) const ANNOUNCEMENT_SIZE_MAX: usize = 4_096;

/// Milliseconds after which one is answered in any case: one that changes something goes on, but
/// nobody is told what comes of it.
const RUN_MS_MAX: u64 = 100_000;

/// Questions to storage about when an account was used.
const LOGIN_QUESTIONS: u16 = 3;

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AddUser,
    DeleteUser,
    EndUserSession,
    ChangeUserPassword,
    GetUserLastlogin,
    GetUserStats,
    GetRegisteredUsersNum,
    GetRegisteredUsersList,
    GetOnlineUsersNum,
    GetOnlineUsersList,
    Announce,
    Shutdown,
}

impl Kind {
    fn names_users(self) -> bool {
        matches!(
            self,
            Kind::GetRegisteredUsersList | Kind::GetOnlineUsersList
        )
    }

    /// Whether it only reads.
    fn is_read(self) -> bool {
        use Kind::{GetOnlineUsersNum, GetRegisteredUsersNum, GetUserLastlogin, GetUserStats};
        self.names_users()
            || matches!(
                self,
                GetOnlineUsersNum | GetRegisteredUsersNum | GetUserLastlogin | GetUserStats
            )
    }
}

/// A command.
#[derive(Debug)]
pub(super) struct Command {
    pub kind: Kind,
    pub node: &'static str,
    pub name: &'static str,
    /// What it asks for, if anything.
    pub form: Option<super::Form>,
}

/// Whom a command is about: an account, or a session of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    account: BareJid,
    resource: Option<Box<str>>,
}

/// A command that is carried out.
#[derive(Debug)]
pub(crate) struct Run {
    /// Who is to be answered; nobody once it took too long.
    answer: Option<IqRequest>,
    command: &'static Command,
    /// The execution's id.
    id: Box<str>,
    subjects: Vec<Subject>,
    names_max: usize,
    /// Seconds after which the server goes down.
    delay_s: Option<u64>,
    /// What there is of it, by the places of its parts.
    told: BTreeMap<u16, Told>,
    /// Parts that are not answered.
    open: usize,
    /// Whether its second parts have begun.
    is_second: bool,
    /// When it is answered, whatever is missing.
    until: Timestamp,
}

/// A part of a command.
enum Part {
    Store(StoreOp),
    Errand(ShardId, Errand),
    Derive(Box<DeriveJob>),
}

/// What the form of a command says, understood.
struct Plan {
    subjects: Vec<Subject>,
    password: Option<Password>,
    names_max: usize,
    text: Option<Arc<str>>,
    delay_s: Option<u64>,
}

impl Plan {
    fn read(kind: Kind, said: &Fields, settings: &Settings) -> Result<Plan, Refusal> {
        let one = |var| values(said, var).first().map_or("", |value| &**value);
        let subjects = [values(said, "accountjid"), values(said, "accountjids")].concat();
        if subjects.len() > SUBJECTS_MAX {
            return Err(Refusal::BAD_PAYLOAD);
        }
        let named = subjects.iter().filter(|subject| !subject.is_empty());
        let mut subjects: Vec<Subject> = Vec::new();
        for text in named {
            let subject = Subject::read(text, kind, settings)?;
            if !subjects.contains(&subject) {
                subjects.push(subject);
            }
        }
        let password = one("password");
        if kind == Kind::AddUser && password != one("password-verify") {
            return Err(Refusal::BAD_PAYLOAD);
        }
        let text = values(said, "announcement").join("\n");
        if text.len() > ANNOUNCEMENT_SIZE_MAX {
            return Err(Refusal::BAD_PAYLOAD);
        }
        let names_max = match one("max_items") {
            "" | NO_MAXIMUM => NAMES_MAX,
            number => number.parse().map_err(|_| Refusal::BAD_PAYLOAD)?,
        };
        let names_max = if kind.names_users() { names_max } else { 0 };
        let delay_s = match one("delay") {
            _ if kind != Kind::Shutdown => None,
            "" => Some(0),
            number => Some(number.parse().map_err(|_| Refusal::BAD_PAYLOAD)?),
        };
        Ok(Plan {
            subjects,
            password: (!password.is_empty()).then(|| Password::new(password.to_owned())),
            names_max,
            text: (!text.trim().is_empty()).then(|| text.into()),
            delay_s,
        })
    }
}

impl Subject {
    fn read(text: &str, kind: Kind, settings: &Settings) -> Result<Subject, Refusal> {
        let jid = Jid::parse(text).map_err(|_| Refusal::BAD_PAYLOAD)?;
        let account = jid.to_bare();
        let local = account.local().ok_or(Refusal::BAD_PAYLOAD)?;
        // XEP-0133 4.1: a bare JID, except where a session may be meant.
        let is_bare = jid.is_bare() || kind == Kind::EndUserSession;
        if !is_bare || account.domain() != &*settings.domain {
            return Err(Refusal::BAD_PAYLOAD);
        }
        // As it was typed: two that are prepared alike may be two to others.
        let typed = text.split('@').next().unwrap_or(local);
        let is_unfit = check_new_local(typed).is_err() || may_be_guests(settings, &account);
        if kind == Kind::AddUser && is_unfit {
            return Err(Refusal::BAD_PAYLOAD);
        }
        let resource = jid.resource().map(Box::from);
        Ok(Subject { account, resource })
    }
}

impl Shard {
    /// Carries a command out.
    pub(super) fn run_command(
        &mut self,
        host: &mut impl Host,
        answer: IqRequest,
        command: &'static Command,
        id: Box<str>,
        said: &Fields,
    ) -> Result<(), (IqRequest, Refusal)> {
        let planned = Plan::read(command.kind, said, &self.settings);
        let planned = planned.and_then(|plan| {
            let parts = self.parts(host, command.kind, &plan)?;
            Ok((plan, parts))
        });
        let (plan, parts) = match planned {
            Ok(planned) => planned,
            Err(refusal) => return Err((answer, refusal)),
        };
        let runs = self.commands.runs.values();
        let awaited_count = runs.filter(|run| run.answer.is_some()).count();
        if awaited_count >= AWAITED_RUNS_MAX || self.commands.runs.len() >= RUNS_MAX {
            return Err((answer, StanzaError::ResourceConstraint.into()));
        }
        tracing::info!(
            administrator = answer.asker(),
            command = command.node,
            accounts = ?plan.subjects.iter().map(|it| it.account.as_str()).collect::<Vec<_>>(),
            "command"
        );
        // Its asker's input waits where there are many, and the answer is owed to a farewell.
        let Ticket(run) = self.ticket(Waiting::Nothing);
        let begun = Run {
            answer: Some(answer),
            command,
            id,
            subjects: plan.subjects,
            names_max: plan.names_max,
            delay_s: plan.delay_s,
            told: BTreeMap::new(),
            open: parts.len(),
            is_second: false,
            until: host.now().plus_ms(RUN_MS_MAX),
        };
        self.commands.runs.insert(run, begun);
        self.arm_runs(host);
        // It may end at once, and the asker's stanza has other effects.
        let cause = self.cause;
        if parts.is_empty() {
            self.go_on_with(host, run);
        }
        let begun = self.begin_parts(host, run, (0..).zip(parts));
        self.cause = cause;
        match begun {
            true => Ok(()),
            false => self.undo_run(host, run),
        }
    }

    /// The first part of a command could not be begun: it may be asked for again.
    fn undo_run(&mut self, host: &mut impl Host, run: u64) -> Result<(), (IqRequest, Refusal)> {
        self.forget(host, Ticket(run));
        let answer = self.commands.runs.remove(&run).and_then(|it| it.answer);
        answer.map_or(Ok(()), |answer| {
            Err((answer, StanzaError::ResourceConstraint.into()))
        })
    }

    /// What a command is made of.
    fn parts(&self, host: &mut impl Host, kind: Kind, plan: &Plan) -> Result<Vec<Part>, Refusal> {
        let shards = || (0..self.settings.shards).map(ShardId);
        let accounts = || plan.subjects.iter().map(|subject| subject.account.clone());
        let names_max = plan.names_max;
        Ok(match kind {
            Kind::AddUser | Kind::ChangeUserPassword => {
                let password = plan.password.as_ref().ok_or(Refusal::BAD_PAYLOAD)?;
                let salts = [random_bytes(host), random_bytes(host), random_bytes(host)];
                let rounds = self.settings.scram_iterations;
                let job = DeriveJob::new_credentials(password, salts, rounds);
                vec![Part::Derive(Box::new(
                    job.map_err(|_| Refusal::BAD_PAYLOAD)?,
                ))]
            }
            Kind::DeleteUser => {
                let deletion = |account: BareJid| {
                    let home = self.router.home(account.as_str());
                    Part::Errand(home, Errand::Delete { account })
                };
                accounts().map(deletion).collect()
            }
            // Whether they exist; behind it their sessions end, the asker's own maybe, which is in
            // nobody's hands then.
            Kind::EndUserSession => {
                let known = accounts().map(|account| StoreOp::Credentials { account });
                known.map(Part::Store).collect()
            }
            Kind::GetUserLastlogin => accounts().flat_map(login_questions).collect(),
            Kind::GetUserStats => {
                let account = accounts().next().ok_or(Refusal::BAD_PAYLOAD)?;
                vec![Part::Store(StoreOp::Account { account })]
            }
            Kind::GetRegisteredUsersNum | Kind::GetRegisteredUsersList => {
                vec![Part::Store(StoreOp::Accounts { names_max })]
            }
            Kind::GetOnlineUsersNum | Kind::GetOnlineUsersList => {
                let ask = |shard| Part::Errand(shard, Errand::Online { names_max });
                shards().map(ask).collect()
            }
            // Nobody is told of an end that another one comes before.
            Kind::Shutdown if host.is_going_down() => return Err(StanzaError::Conflict.into()),
            Kind::Announce | Kind::Shutdown => match &plan.text {
                None if kind == Kind::Announce => return Err(Refusal::BAD_PAYLOAD),
                None => Vec::new(),
                Some(text) => {
                    let announce = |shard| {
                        let text = text.clone();
                        Part::Errand(shard, Errand::Announce { text })
                    };
                    shards().map(announce).collect()
                }
            },
        })
    }

    /// Begins parts of a command, and says whether that was possible: a derivation, which is alone,
    /// is refused where too many wait.
    fn begin_parts(
        &mut self,
        host: &mut impl Host,
        run: u64,
        parts: impl Iterator<Item = (u16, Part)>,
    ) -> bool {
        for (place, part) in parts {
            match part {
                Part::Store(op) => {
                    let ticket = self.ticket(Waiting::Command { run, place });
                    host.store(ticket, op);
                }
                Part::Errand(shard, errand) => {
                    self.give_errand(host, shard, (run, place), errand);
                }
                Part::Derive(job) => {
                    let ticket = self.ticket(Waiting::Command { run, place });
                    if !host.derive(ticket, job) {
                        self.forget(host, ticket);
                        return false;
                    }
                }
            }
        }
        true
    }

    /// The keys of a password are there.
    pub(crate) fn on_command_derived(&mut self, host: &mut impl Host, run: u64, derived: Derived) {
        let Some(found) = self.commands.runs.get(&run) else {
            return;
        };
        let (Derived::Credentials(credentials), Some(subject)) = (derived, found.subjects.first())
        else {
            return;
        };
        let account = subject.account.clone();
        let op = match found.command.kind {
            Kind::AddUser => StoreOp::CreateAccount {
                account,
                credentials,
            },
            _ => StoreOp::SetCredentials {
                account,
                credentials,
                keeps: None,
            },
        };
        self.begin_parts(host, run, std::iter::once((0, Part::Store(op))));
    }

    /// A part of a command is there.
    pub(crate) fn on_told(&mut self, host: &mut impl Host, run: u64, place: u16, told: Told) {
        let Some(found) = self.commands.runs.get_mut(&run) else {
            return;
        };
        found.told.insert(place, told);
        found.open -= 1;
        if found.open == 0 {
            self.go_on_with(host, run);
        }
    }

    /// All parts of a command are there: what comes behind them, or its end.
    fn go_on_with(&mut self, host: &mut impl Host, run: u64) {
        let Some(found) = self.commands.runs.get_mut(&run) else {
            return;
        };
        let second = match std::mem::replace(&mut found.is_second, true) {
            false => found.second_parts(|bare| self.router.home(bare)),
            true => Vec::new(),
        };
        found.open = second.len();
        if !second.is_empty() {
            self.begin_parts(host, run, second.into_iter());
            return;
        }
        let outcome = found.outcome();
        self.finish_run(host, run, outcome);
    }

    /// The time of those is over that have taken too long: they make room for others. What changes
    /// something goes on to its last part.
    pub(crate) fn on_runs(&mut self, host: &mut impl Host) {
        self.commands.is_armed = false;
        let now = host.now();
        let runs = self.commands.runs.iter();
        let late = runs.filter(|(_, found)| found.answer.is_some() && found.until <= now);
        let mut late: Vec<u64> = late.map(|(run, _)| *run).collect();
        late.sort_unstable();
        for run in late {
            let Some(found) = self.commands.runs.get(&run) else {
                continue;
            };
            let command = found.command;
            tracing::warn!(command = command.node, "a command takes long");
            self.answer_run(host, run, late_outcome(command.kind));
            if command.kind.is_read() {
                self.commands.runs.remove(&run);
            }
        }
        self.arm_runs(host);
    }

    fn arm_runs(&mut self, host: &mut impl Host) {
        let runs = self.commands.runs.values();
        let awaited = runs.filter(|run| run.answer.is_some());
        let next = awaited.map(|run| run.until).min();
        if let Some(next) = next.filter(|_| !self.commands.is_armed) {
            self.commands.is_armed = true;
            self.arm(host, next, Timer::Runs);
        }
    }

    /// Does what is done last, and answers who asked: where something failed, the server stays up.
    fn finish_run(
        &mut self,
        host: &mut impl Host,
        run: u64,
        mut outcome: Result<Vec<u8>, Refusal>,
    ) {
        let delay_s = self.commands.runs.get(&run).and_then(|it| it.delay_s);
        if let Some(delay_s) = delay_s.filter(|_| outcome.is_ok()) {
            let at = host.now().plus_ms(delay_s * 1000);
            if !host.shut_down(at) {
                outcome = Err(StanzaError::Conflict.into());
            }
        }
        self.answer_run(host, run, outcome);
        self.commands.runs.remove(&run);
    }

    /// Answers who asked, once.
    fn answer_run(&mut self, host: &mut impl Host, run: u64, outcome: Result<Vec<u8>, Refusal>) {
        let Some(found) = self.commands.runs.get_mut(&run) else {
            return;
        };
        let (command, id) = (found.command, found.id.clone());
        let Some(answer) = found.answer.take() else {
            let (command, is_done) = (command.node, outcome.is_ok());
            return tracing::warn!(command, is_done, "a late command has ended");
        };
        self.complete(host, Ticket(run), |shard, host, _| match outcome {
            Ok(inner) => {
                let mut reply = Vec::new();
                open_command(command, &id, "completed", &mut reply);
                reply.extend_from_slice(&inner);
                reply.extend_from_slice(b"</command>");
                shard.reply(host, &answer, Ok(&reply));
            }
            Err(refusal) => {
                let named = [Some(command.node), Some(&*id)];
                shard.refuse_command(host, &answer, named, refusal);
            }
        });
    }
}

/// What storage knows of when an account was used: whether there is one, what has logged in to it,
/// and when it was available last.
fn login_questions(account: BareJid) -> [Part; LOGIN_QUESTIONS as usize] {
    let keys = StoreOp::Credentials {
        account: account.clone(),
    };
    let agents = StoreOp::UserAgents {
        account: account.clone(),
    };
    let (space, key) = (Space::Activity, "".into());
    let activity = StoreOp::Document {
        account,
        space,
        key,
    };
    [keys, agents, activity].map(Part::Store)
}

impl Run {
    /// What can be begun only when the first parts are there.
    fn second_parts(&self, home: impl Fn(&str) -> ShardId) -> Vec<(u16, Part)> {
        let errand = |place: u16, account: &BareJid, errand: Errand| {
            (place, Part::Errand(home(account.as_str()), errand))
        };
        let count = self.subjects.len() as u16;
        let subjects = (0..count).zip(&self.subjects);
        match self.command.kind {
            // Also where nobody knows whether storage has them.
            Kind::ChangeUserPassword if !self.is_missing() => subjects
                .map(|(place, Subject { account, .. })| {
                    let told = Errand::NewKeys {
                        account: account.clone(),
                    };
                    errand(count + place, account, told)
                })
                .collect(),
            // The first of them is there by now, and the asker's own stream is in its place again.
            Kind::GetUserStats => subjects
                .map(|(place, Subject { account, .. })| {
                    let sessions = Errand::Sessions {
                        account: account.clone(),
                    };
                    errand(count + place, account, sessions)
                })
                .collect(),
            // Also of those whom storage does not know: guests have sessions.
            Kind::EndUserSession => subjects
                .map(|(place, subject)| {
                    let end = Errand::End {
                        account: subject.account.clone(),
                        resource: subject.resource.clone(),
                    };
                    errand(count + place, &subject.account, end)
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn is_missing(&self) -> bool {
        matches!(self.told.get(&0), Some(Told::Stored(StoreReply::Missing)))
    }
}
