//! XEP-0050: Ad-Hoc Commands of the server. What there is to do is in [`administration`]; here is
//! how it is found, and how its form is filled in. No command has more than one.
//!
//! Invariant: an execution belongs to the full JID that began it, and nobody else can guess its id.
//! Whether the asker may run the command is asked at every step.

pub mod administration;
mod catalogue;
mod form;

use self::administration::{COMMANDS, Command, Run};
use self::form::Form;
use super::disco::{Identity, Info, open_query};
use super::pubsub::form::{Fields, fields};
use super::{Answer, Context, Extension, Request, Target, Xep};
use crate::errand::Walks;
use crate::error::{StanzaError, put};
use crate::host::{Host, Timestamp};
use crate::iq::IqRequest;
use crate::session::SessionKey;
use crate::settings::Settings;
use crate::shard::Shard;
use crate::xml::Attr;
use stanza::ns::Ns;
use stanza::tree::{Node, Tree};
use stanza::view::StanzaView;
use std::collections::{HashMap, VecDeque};

/// Ad-hoc commands. They need more than an extension sees: see [`Shard::on_command`].
#[derive(Debug)]
pub struct AdHocCommands;

impl Extension for AdHocCommands {
    const XEP: Xep = Xep {
        number: 50,
        version: "1.3.0",
    };
    const FEATURES: &'static [Ns] = &[Ns::Commands];

    fn is_offered(settings: &Settings) -> bool {
        !settings.admins.is_empty()
    }
}

/// Executions that are remembered of one asker; the oldest makes room, of those that have ended
/// first.
const EXECUTIONS_PER_ASKER_MAX: usize = 8;

/// Those of a shard; likewise.
const EXECUTIONS_MAX: usize = 128;

/// How long a form may take to be filled in, in microseconds.
const STEP_US_MAX: u64 = 600_000_000;

/// Bytes of a language tag (RFC 5646 2.1): longer ones are none that anybody uses.
const LANGUAGE_SIZE_MAX: usize = 35;

/// The executions of a shard's askers.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    /// Oldest first, those that have ended among them: who comes back to one is told so.
    executions: VecDeque<Execution>,
    /// The commands that wait for what they do, by their tickets.
    runs: HashMap<u64, Run>,
    /// Whether [`Timer::Runs`](crate::timer::Timer::Runs) is to come.
    is_armed: bool,
    /// What they have this shard do along all its sessions.
    pub walks: Walks,
}

/// One execution of a command.
#[derive(Debug)]
struct Execution {
    id: Box<str>,
    /// The full JID of who began it.
    asker: Box<str>,
    command: &'static Command,
    /// Whether its form is awaited.
    is_open: bool,
    /// When it began.
    since: Timestamp,
}

/// What a request wants (XEP-0050 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Execute,
    Next,
    Prev,
    Complete,
    Cancel,
}

impl Action {
    fn parse(text: Option<&str>) -> Option<Action> {
        Some(match text.unwrap_or("execute") {
            "execute" => Action::Execute,
            "next" => Action::Next,
            "prev" => Action::Prev,
            "complete" => Action::Complete,
            "cancel" => Action::Cancel,
            _ => return None,
        })
    }
}

/// Why a request is refused: a condition of stanza errors, and mostly one of commands (XEP-0050
/// 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal(StanzaError, Option<&'static str>);

impl From<StanzaError> for Refusal {
    fn from(condition: StanzaError) -> Refusal {
        Refusal(condition, None)
    }
}

impl Refusal {
    const MALFORMED_ACTION: Refusal = Refusal::bad("malformed-action");
    const BAD_ACTION: Refusal = Refusal::bad("bad-action");
    const BAD_LOCALE: Refusal = Refusal::bad("bad-locale");
    pub(super) const BAD_PAYLOAD: Refusal = Refusal::bad("bad-payload");
    const BAD_SESSION: Refusal = Refusal::bad("bad-sessionid");
    const EXPIRED: Refusal = Refusal(StanzaError::NotAllowed, Some("session-expired"));

    const fn bad(detail: &'static str) -> Refusal {
        Refusal(StanzaError::BadRequest, Some(detail))
    }

    fn write(self, out: &mut Vec<u8>) {
        let Refusal(condition, Some(detail)) = self else {
            return self.0.write(out);
        };
        let (type_, condition) = (condition.error_type(), condition.condition());
        put(
            out,
            format_args!(
                "<error type='{type_}'><{condition} \
                 xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><{detail} \
                 xmlns='http://jabber.org/protocol/commands'/></error>"
            ),
        );
    }
}

fn find(node: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.node == node)
}

/// Whether a request of discovery is for the list of commands, or for one of them.
pub(super) fn has_node(context: &Context<'_>, request: &Request<'_>, node: &str) -> bool {
    request.target == Target::Server
        && AdHocCommands::is_offered(context.settings)
        && (node == Ns::Commands.as_str() || find(node).is_some())
}

/// Answers disco#info for one of these nodes (XEP-0050 2.2).
pub(super) fn info(
    context: &Context<'_>,
    node: &str,
    payload: &mut Vec<u8>,
) -> Result<Answer, StanzaError> {
    let (kind, name) = match find(node) {
        None => ("command-list", "Commands"),
        Some(command) if context.settings.is_admin(context.account) => {
            ("command-node", command.name)
        }
        Some(_) => return Err(StanzaError::Forbidden),
    };
    open_query(Ns::DiscoInfo, Some(node), payload);
    let info = Info {
        identities: vec![Identity {
            category: "automation",
            kind,
            lang: "",
            name,
        }],
        features: vec![Ns::Commands.as_str(), Ns::DataForms.as_str()],
        forms: Vec::new(),
    };
    info.write(payload);
    payload.extend_from_slice(b"</query>");
    Ok(Answer::Now)
}

/// Answers disco#items for one of these nodes: whoever may run nothing sees nothing.
pub(super) fn items(context: &Context<'_>, node: &str, payload: &mut Vec<u8>) {
    open_query(Ns::DiscoItems, Some(node), payload);
    if find(node).is_none() && context.settings.is_admin(context.account) {
        for command in COMMANDS {
            let (jid, node) = (Attr(&context.settings.domain), Attr(command.node));
            let name = Attr(command.name);
            put(
                payload,
                format_args!("<item jid='{jid}' node='{node}' name='{name}'/>"),
            );
        }
    }
    payload.extend_from_slice(b"</query>");
}

/// Opens `<command/>` in an answer.
fn open_command(command: &Command, id: &str, status: &str, out: &mut Vec<u8>) {
    let (node, id) = (Attr(command.node), Attr(id));
    put(
        out,
        format_args!(
            "<command xmlns='http://jabber.org/protocol/commands' node='{node}' \
             sessionid='{id}' status='{status}' xml:lang='en'>"
        ),
    );
}

/// What a form says.
///
/// # Errors
/// It does not answer the one that was shown.
fn submitted(form: &Form, payload: Node<'_>) -> Result<Fields, Refusal> {
    let x = payload.child("x", Ns::DataForms);
    // XEP-0050 3.5.1: `cancel` is to be taken for `submit`.
    let x = x.filter(|x| matches!(x.attr("type"), Some("submit" | "cancel")));
    let x = x.ok_or(Refusal::BAD_PAYLOAD)?;
    form.accept(fields(x)).ok_or(Refusal::BAD_PAYLOAD)
}

impl Execution {
    fn has_expired(&self, now: Timestamp) -> bool {
        now.0 >= self.since.0 + STEP_US_MAX
    }
}

impl Commands {
    /// Whether an asker may go on with an execution.
    fn check(
        &self,
        id: &str,
        asker: &str,
        command: &Command,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let mut all = self.executions.iter();
        let is_it = |one: &&Execution| {
            *one.id == *id && *one.asker == *asker && one.command.node == command.node
        };
        let found = all.find(is_it).ok_or(Refusal::BAD_SESSION)?;
        match found.is_open && !found.has_expired(now) {
            true => Ok(()),
            false => Err(Refusal::EXPIRED),
        }
    }

    fn insert(&mut self, execution: Execution) {
        let of_asker = |one: &Execution| one.asker == execution.asker;
        let count = self.executions.iter().filter(|one| of_asker(one)).count();
        if count >= EXECUTIONS_PER_ASKER_MAX {
            self.remove_oldest(of_asker);
        }
        if self.executions.len() >= EXECUTIONS_MAX {
            self.remove_oldest(|_| true);
        }
        self.executions.push_back(execution);
    }

    /// Removes one of some executions: one that has ended, if there is one.
    fn remove_oldest(&mut self, is_one: impl Fn(&Execution) -> bool) {
        let all = || self.executions.iter();
        let ended = all().position(|one| is_one(one) && !one.is_open);
        let oldest = ended.or_else(|| all().position(&is_one));
        oldest.and_then(|place| self.executions.remove(place));
    }

    /// An execution has ended.
    fn end(&mut self, id: &str) {
        if let Some(found) = self.executions.iter_mut().find(|one| *one.id == *id) {
            found.is_open = false;
        }
    }
}

impl Shard {
    /// A client's request to execute a command of the server.
    pub(crate) fn on_command(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        tree: &Tree<'_>,
    ) -> Result<(), StanzaError> {
        let payload = tree.root().children().next();
        let payload = payload.ok_or(StanzaError::BadRequest)?;
        let answer = self.iq_request(key, view, Target::Server);
        if let Err((answer, refusal)) = self.execute(host, key, answer, payload) {
            let named = ["node", "sessionid"].map(|name| payload.attr(name));
            self.refuse_command(host, &answer, named, refusal);
        }
        Ok(())
    }

    /// Refuses a command by an error that says which it was of which execution: clients find their
    /// place by that. What the form said, a password maybe, is not repeated.
    fn refuse_command(
        &mut self,
        host: &mut impl Host,
        answer: &IqRequest,
        named: [Option<&str>; 2],
        refusal: Refusal,
    ) {
        let mut error = b"<command xmlns='http://jabber.org/protocol/commands'".to_vec();
        for (name, value) in ["node", "sessionid"].into_iter().zip(named) {
            if let Some(value) = value {
                put(&mut error, format_args!(" {name}='{}'", Attr(value)));
            }
        }
        error.extend_from_slice(b"/>");
        refusal.write(&mut error);
        self.reply_by(host, answer, "error", &error);
    }

    fn execute(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        answer: IqRequest,
        payload: Node<'_>,
    ) -> Result<(), (IqRequest, Refusal)> {
        let (command, action) = match self.permit(key, payload) {
            Ok(permitted) => permitted,
            Err(refusal) => return Err((answer, refusal)),
        };
        if let Some(id) = payload.attr("sessionid") {
            return self.go_on(host, answer, (command, id), action, payload);
        }
        // XEP-0050 3.3: what is not begun is begun by `execute` only.
        if action != Action::Execute {
            return Err((answer, Refusal::BAD_ACTION));
        }
        let id = self.begin_execution(host, answer.asker(), command);
        match &command.form {
            None => self.run_command(host, answer, command, id, &Fields::new()),
            Some(form) => {
                self.show_form(host, &answer, (command, &id), form);
                Ok(())
            }
        }
    }

    /// What is to be done, if the asker may.
    fn permit(
        &self,
        key: SessionKey,
        payload: Node<'_>,
    ) -> Result<(&'static Command, Action), Refusal> {
        if payload.name() != "command" {
            return Err(StanzaError::BadRequest.into());
        }
        let node = payload.attr("node").ok_or(StanzaError::BadRequest)?;
        let command = find(node).ok_or(StanzaError::ItemNotFound)?;
        let account = self.sessions.at(key).account;
        if !self.settings.is_admin(&self.accounts.at(account).jid) {
            return Err(StanzaError::Forbidden.into());
        }
        // XEP-0050 3.7: there is English for everybody, but a language it must be.
        let language = payload.attr_ns("lang", Ns::Xml.as_str()).unwrap_or("en");
        let is_tag = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if language.len() > LANGUAGE_SIZE_MAX || !language.bytes().all(is_tag) {
            return Err(Refusal::BAD_LOCALE);
        }
        let action = Action::parse(payload.attr("action")).ok_or(Refusal::MALFORMED_ACTION)?;
        Ok((command, action))
    }

    fn begin_execution(
        &mut self,
        host: &mut impl Host,
        asker: &str,
        command: &'static Command,
    ) -> Box<str> {
        let id = format!("{:016x}{:016x}", host.random(), host.random());
        let id: Box<str> = id.into();
        self.commands.insert(Execution {
            id: id.clone(),
            asker: asker.into(),
            command,
            is_open: command.form.is_some(),
            since: host.now(),
        });
        id
    }

    fn go_on(
        &mut self,
        host: &mut impl Host,
        answer: IqRequest,
        (command, id): (&'static Command, &str),
        action: Action,
        payload: Node<'_>,
    ) -> Result<(), (IqRequest, Refusal)> {
        let checked = self.commands.check(id, answer.asker(), command, host.now());
        // One without a form is never open.
        let form = checked.and(command.form.as_ref().ok_or(Refusal::EXPIRED));
        let form = match form {
            Ok(form) => form,
            Err(refusal) => return Err((answer, refusal)),
        };
        match action {
            Action::Next | Action::Prev => return Err((answer, Refusal::BAD_ACTION)),
            Action::Cancel => {
                let mut reply = Vec::new();
                open_command(command, id, "canceled", &mut reply);
                reply.extend_from_slice(b"</command>");
                self.reply(host, &answer, Ok(&reply));
            }
            // XEP-0050 3.4: `execute` is the default action, which is `complete` here.
            Action::Execute | Action::Complete => match submitted(form, payload) {
                Ok(said) => self.run_command(host, answer, command, id.into(), &said)?,
                Err(refusal) => return Err((answer, refusal)),
            },
        }
        // One that was refused may be asked for again.
        self.commands.end(id);
        Ok(())
    }

    fn show_form(
        &mut self,
        host: &mut impl Host,
        answer: &IqRequest,
        (command, id): (&Command, &str),
        form: &Form,
    ) {
        let mut reply = Vec::new();
        open_command(command, id, "executing", &mut reply);
        // `cancel` is allowed always.
        reply.extend_from_slice(b"<actions execute='complete'><complete/></actions>");
        form.write(&mut reply);
        reply.extend_from_slice(b"</command>");
        self.reply(host, answer, Ok(&reply));
    }
}

#[cfg(test)]
mod tests;
