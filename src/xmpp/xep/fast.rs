//! XEP-0484: Fast Authentication Streamlining Tokens. A user agent that has proved the password is
//! given a token, and from then on logs in with it, in one message and without any derivation.
//!
//! Invariant: a token is in storage before its client learns it, and what a login with one changes
//! there (that it was used, counted, made void) is before that login succeeds. A record is written
//! only where it is the one that was read: of two logins with the same count one fails (decision
//! 0015).

use super::bind2::stable_identifier;
use super::sasl2::Inline;
use super::{Extension, Xep};
use crate::error::put;
use crate::host::{ConnId, Host, Ticket, Timestamp};
use crate::port::{
    AgentId, StoreOp, StoreReply, Token, TokenBinding, USER_AGENT_TEXT_SIZE_MAX, UserAgent,
};
use crate::settings::{AgentPolicy, Settings};
use crate::shard::{Shard, Waiting};
use crate::stream::auth::Request;
use crate::stream::bind::may_be_guests;
use crate::stream::sasl::{Offer, SaslError, TokenProof, TokenText};
use crate::stream::{ExpectAgent, ExpectVerdict, Flow, Phase, StreamState};
use crate::xep::time::utc;
use stanza::jid::BareJid;
use stanza::ns::Ns;
use stanza::tree::Node;

/// Tokens.
#[derive(Debug)]
pub struct Fast;

impl Extension for Fast {
    const XEP: Xep = Xep {
        number: 484,
        version: "0.2.0",
    };
}

/// How often a login reads its user agent's record anew, because another one has written it
/// meanwhile.
const READS_MAX: u8 = 4;

/// How long a login is not noted after another one, in microseconds: who comes back every few
/// minutes writes nothing.
const SEEN_EVERY_US: u64 = 3_600_000_000;

/// What `<authenticate/>` says of tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// The mechanism that a token is asked for.
    pub wanted: Option<TokenBinding>,
    /// How one is used, if one is.
    used: Result<Option<Used>, SaslError>,
}

/// `<fast/>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Used {
    /// How often the token was, this time included.
    count: Option<u32>,
    /// Whether it is for the last time.
    invalidate: bool,
}

impl Default for Asked {
    fn default() -> Asked {
        Asked {
            wanted: None,
            used: Ok(None),
        }
    }
}

impl Asked {
    pub(crate) fn read(authenticate: Node<'_>) -> Asked {
        let request = authenticate.child("request-token", Ns::Fast);
        let mechanism = request.and_then(|request| request.attr("mechanism"));
        let used = authenticate.child("fast", Ns::Fast);
        Asked {
            wanted: mechanism.and_then(TokenBinding::parse),
            used: used.map(Used::read).transpose(),
        }
    }
}

impl Used {
    fn read(fast: Node<'_>) -> Result<Used, SaslError> {
        let count = fast.attr("count").map(|text| text.trim_ascii().parse());
        let count = count.transpose().map_err(|_| SaslError::MalformedRequest)?;
        let invalidate = fast.attr("invalidate").map(str::trim_ascii);
        Ok(Used {
            // XEP-0484 3.4: it is positive.
            count: match count {
                Some(0) => return Err(SaslError::MalformedRequest),
                count => count,
            },
            invalidate: match invalidate {
                None | Some("0" | "false") => false,
                Some("1" | "true") => true,
                Some(_) => return Err(SaslError::MalformedRequest),
            },
        })
    }
}

/// What a user agent calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    software: Box<str>,
    device: Box<str>,
}

impl Names {
    pub(crate) fn read(user_agent: Node<'_>) -> Names {
        let text = |name| {
            let child = user_agent.child(name, Ns::Sasl2);
            let text = child.map_or("", |child| child.text().trim_ascii());
            let size = text.floor_char_boundary(USER_AGENT_TEXT_SIZE_MAX);
            text[..size].into()
        };
        Names {
            software: text("software"),
            device: text("device"),
        }
    }
}

/// A token that `<success/>` tells.
#[derive(Debug)]
pub(crate) struct Issued {
    text: TokenText,
    expires: Timestamp,
}

impl Issued {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        // It is base64, so that nothing of it needs to be escaped.
        put(
            out,
            format_args!(
                "<token xmlns='urn:xmpp:fast:0' expiry='{}' token='{}'/>",
                utc(self.expires),
                self.text.as_str()
            ),
        );
    }
}

/// A login with a token.
#[derive(Debug)]
pub(crate) struct TokenLogin {
    pub proof: TokenProof,
    used: Used,
    visit: Visit,
    /// What the client is answered if the write succeeds.
    answer: Option<[u8; 32]>,
    /// Whether it fails where storage does not take the write.
    needs_write: bool,
}

impl TokenLogin {
    /// What is asked of storage.
    pub(crate) fn question(&self) -> StoreOp {
        self.visit.read(&self.proof.account)
    }
}

/// The record of a user agent that logs in: read, and written where that changes it.
#[derive(Debug)]
pub(crate) struct Visit {
    id: AgentId,
    reads: u8,
    /// The token in what is being written.
    token: Option<Token>,
}

impl Visit {
    fn new(id: AgentId) -> Visit {
        Visit {
            id,
            reads: 1,
            token: None,
        }
    }

    fn read(&self, account: &BareJid) -> StoreOp {
        StoreOp::UserAgent {
            account: account.clone(),
            id: self.id,
        }
    }

    /// Whether the record may be read once more.
    fn again(&mut self) -> bool {
        self.reads += 1;
        self.token = None;
        self.reads <= READS_MAX
    }
}

/// Writes what a login says of its user agent into the record; whether that is worth a write.
fn note(agent: &mut UserAgent, names: &Names, policy: &AgentPolicy, now: Timestamp) -> bool {
    let said = match policy.keeps_names {
        true => [&names.software, &names.device],
        false => [&"".into(), &"".into()],
    };
    let mut changes = now.0.saturating_sub(agent.last_seen.0) >= SEEN_EVERY_US;
    if changes {
        agent.last_seen = now;
    }
    for (known, said) in [&mut agent.software, &mut agent.device]
        .into_iter()
        .zip(said)
    {
        if known != said && !(policy.keeps_names && said.is_empty()) {
            known.clone_from(said);
            changes = true;
        }
    }
    changes
}

/// A token with nothing known of it but its seed.
fn issue(binding: TokenBinding, seed: u128, policy: &AgentPolicy, now: Timestamp) -> Token {
    Token {
        seed,
        binding,
        issued: now,
        expires: now.plus_ms(u64::from(policy.token_s) * 1000),
        count: 0,
    }
}

/// Where a token is in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Next,
    Current,
}

/// The token that a proof was made with. Who has none, and an account that is not there, take the
/// same steps as one that has two.
fn token_of(
    found: Option<&UserAgent>,
    proof: &TokenProof,
    secret: &[u8; 32],
    id: AgentId,
) -> Option<(Slot, Token, TokenText)> {
    let slots = [
        (Slot::Next, found.and_then(|found| found.next)),
        (Slot::Current, found.and_then(|found| found.current)),
    ];
    let nobody_s = issue(proof.binding, 0, &AgentPolicy::default(), Timestamp(0));
    let tried = slots.map(|(slot, token)| {
        let known = token.unwrap_or(nobody_s);
        let text = TokenText::new(secret, &proof.account, id, &known);
        let is_right = bool::from(proof.is_of(&text))
            // XEP-0484 3.4: it is good for its own mechanism only.
            & (known.binding == proof.binding)
            & token.is_some();
        (is_right, (slot, known, text))
    });
    let mut right = tried.into_iter().filter(|(is_right, _)| *is_right);
    right.next().map(|(_, found)| found)
}

/// Takes a use of a token down; whether storage must have that before the client is let in.
///
/// # Errors
/// Why the token is not good any more.
fn use_token(
    agent: &mut UserAgent,
    (slot, token): (Slot, &Token),
    used: Used,
    now: Timestamp,
) -> Result<bool, SaslError> {
    if token.expires <= now {
        return Err(SaslError::CredentialsExpired);
    }
    // XEP-0484 3.4: a count that has been processed is a replay.
    if used.count.is_some_and(|count| count <= token.count) {
        return Err(SaslError::NotAuthorized);
    }
    let mut token = *token;
    token.count = used.count.unwrap_or(token.count);
    // XEP-0484 3.5: what was given before is void from here on.
    if slot == Slot::Next {
        agent.next = None;
    }
    agent.current = Some(token);
    if used.invalidate {
        (agent.next, agent.current) = (None, None);
    }
    Ok(slot == Slot::Next || used.count.is_some() || used.invalidate)
}

impl Inline {
    /// Whether the token in use is to be replaced, and by which.
    fn wanted_after(
        &self,
        token: &Token,
        used: Used,
        policy: &AgentPolicy,
        now: Timestamp,
    ) -> Option<TokenBinding> {
        let rotation_us = u64::from(policy.rotation_s) * 1_000_000;
        let is_due = now.0.saturating_sub(token.issued.0) >= rotation_us;
        // XEP-0484 3.6: who gives one up gets another only if he asks.
        let rotated = (is_due && !used.invalidate).then_some(token.binding);
        self.tokens.wanted.or(rotated)
    }
}

impl Shard {
    /// `<authenticate/>` with one of the mechanisms for tokens.
    pub(crate) fn on_token_auth(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        binding: TokenBinding,
        initial: Result<Option<Vec<u8>>, SaslError>,
    ) -> Flow {
        let offer = Offer::new(&self.settings, stream.tls.as_deref());
        let login = read_login(stream, binding, initial, &offer, &self.settings);
        match login {
            Ok(login) => {
                let account = login.proof.account.clone();
                let request = Request::Token(Box::new(login));
                self.look_up(host, conn, stream, account, request)
            }
            Err(error) => self.auth_failed(host, conn, stream, error, None),
        }
    }

    /// Storage answered a login with a token.
    pub(crate) fn on_token_stored(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        mut login: Box<TokenLogin>,
        reply: StoreReply,
    ) -> Flow {
        match (login.answer, reply) {
            (None, StoreReply::UserAgent(found)) => {
                self.judge_token(host, conn, stream, login, found)
            }
            (Some(_), StoreReply::Done) => self.token_succeeded(host, conn, stream, &login),
            (Some(_), StoreReply::Outdated) if login.visit.again() => {
                login.answer = None;
                let op = login.question();
                self.ask_for_token(host, conn, stream, login, op)
            }
            // Somebody else writes all the time, or the account is gone.
            (Some(_), StoreReply::Outdated | StoreReply::Missing) => {
                let error = SaslError::TemporaryAuthFailure;
                self.auth_failed(host, conn, stream, error, None)
            }
            (Some(_), reply) if !login.needs_write => {
                tracing::warn!(?reply, "a token was not replaced");
                login.visit.token = None;
                self.token_succeeded(host, conn, stream, &login)
            }
            (_, reply) => {
                tracing::error!(?reply, "storage did not answer a login with a token");
                let error = SaslError::TemporaryAuthFailure;
                self.auth_failed(host, conn, stream, error, None)
            }
        }
    }

    fn ask_for_token(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        login: Box<TokenLogin>,
        op: StoreOp,
    ) -> Flow {
        let ticket = self.ticket(Waiting::Auth(conn));
        host.store(ticket, op);
        let request = Request::Token(login);
        stream.phase = Phase::ExpectVerdict(Box::new(ExpectVerdict::new(ticket, request)));
        Flow::Stop
    }

    fn judge_token(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        mut login: Box<TokenLogin>,
        found: Option<Box<UserAgent>>,
    ) -> Flow {
        let account = login.proof.account.clone();
        if self.is_throttled(host, stream, &account) {
            let error = SaslError::TemporaryAuthFailure;
            return self.auth_failed(host, conn, stream, error, None);
        }
        let secret = &self.settings.fake_salt_secret;
        let right = token_of(found.as_deref(), &login.proof, secret, login.visit.id);
        let (Some((slot, token, text)), Some(mut agent)) = (right, found) else {
            let error = SaslError::NotAuthorized;
            return self.auth_failed(host, conn, stream, error, Some(&account));
        };
        let (now, policy, used) = (host.wall(), self.settings.agents, login.used);
        let prior = agent.stamp;
        login.needs_write = match use_token(&mut agent, (slot, &token), used, now) {
            Ok(needs_write) => needs_write,
            Err(error) => return self.auth_failed(host, conn, stream, error, Some(&account)),
        };
        login.answer = Some(login.proof.answer(&text));
        let inline = stream.inline.get_or_insert_default();
        let changes = note(&mut agent, &inline.names, &policy, now);
        if let Some(binding) = inline.wanted_after(&token, used, &policy, now) {
            login.visit.token = Some(issue(binding, seed(host), &policy, now));
            agent.next = login.visit.token;
        }
        if !changes && !login.needs_write && login.visit.token.is_none() {
            return self.token_succeeded(host, conn, stream, &login);
        }
        let op = self.put_agent(host, account, agent, Some(prior));
        self.ask_for_token(host, conn, stream, login, op)
    }

    fn put_agent(
        &self,
        host: &mut impl Host,
        account: BareJid,
        mut agent: Box<UserAgent>,
        prior: Option<u64>,
    ) -> StoreOp {
        agent.stamp = host.random();
        let forget_us = u64::from(self.settings.agents.forget_s) * 1_000_000;
        StoreOp::PutUserAgent {
            account,
            agent,
            prior,
            forget_before: Timestamp(host.wall().0.saturating_sub(forget_us)),
        }
    }

    fn token_succeeded(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        login: &TokenLogin,
    ) -> Flow {
        let account = login.proof.account.clone();
        self.tell_token(stream, &account, &login.visit);
        let answer = login.answer.expect("who succeeds has an answer");
        self.auth_succeeded(host, conn, stream, account, Some(&answer))
    }

    /// From here on the stream is of that user agent, and `<success/>` tells of the new token.
    fn tell_token(&self, stream: &mut StreamState, account: &BareJid, visit: &Visit) {
        let secret = &self.settings.fake_salt_secret;
        stream.note_agent(visit.id);
        let inline = stream.inline.get_or_insert_default();
        inline.is_noted = true;
        inline.issued = visit.token.map(|token| Issued {
            text: TokenText::new(secret, account, visit.id, &token),
            expires: token.expires,
        });
    }

    /// A client has proved the password: whether its user agent is to be noted before it goes on.
    pub(crate) fn note_agent(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        account: &BareJid,
    ) -> bool {
        let inline = stream.inline.get_or_insert_default();
        let Some(user_agent) = inline.user_agent.filter(|_| !inline.is_noted) else {
            return false;
        };
        if may_be_guests(&self.settings, account) {
            return false;
        }
        let id = agent_id(&self.settings, account, user_agent);
        let visit = Visit::new(id);
        let op = visit.read(account);
        self.ask_for_agent(host, conn, stream, account.clone(), visit, op);
        host.pause(conn);
        true
    }

    fn ask_for_agent(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        account: BareJid,
        visit: Visit,
        op: StoreOp,
    ) {
        let ticket = self.ticket(Waiting::Auth(conn));
        host.store(ticket, op);
        stream.phase = Phase::ExpectAgent(Box::new(ExpectAgent {
            ticket,
            account,
            visit,
        }));
    }

    /// Storage answered a login by password with what it knows of its user agent, or has noted it.
    /// Where it fails, the client is let in, without a token.
    pub(crate) fn on_agent_stored(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        ticket: Ticket,
        reply: StoreReply,
    ) -> Flow {
        let expect = match std::mem::replace(&mut stream.phase, Phase::ExpectAuth) {
            Phase::ExpectAgent(expect) if expect.ticket == ticket => *expect,
            other => {
                stream.phase = other;
                return Flow::Stop;
            }
        };
        let ExpectAgent {
            account, mut visit, ..
        } = expect;
        match reply {
            StoreReply::UserAgent(found) => {
                let prior = found.as_ref().map(|found| found.stamp);
                if let Some(agent) = self.noted(host, stream, found, &mut visit) {
                    let op = self.put_agent(host, account.clone(), agent, prior);
                    self.ask_for_agent(host, conn, stream, account, visit, op);
                    return Flow::Stop;
                }
            }
            StoreReply::Outdated if visit.again() => {
                let op = visit.read(&account);
                self.ask_for_agent(host, conn, stream, account, visit, op);
                return Flow::Stop;
            }
            StoreReply::Done => {}
            reply => {
                tracing::warn!(?reply, account = account.as_str(), "user agent not noted");
                visit.token = None;
            }
        }
        self.tell_token(stream, &account, &visit);
        stream.phase = Phase::ExpectBind(account);
        self.go_on_proved(host, conn, stream)
    }

    /// The record after a login by password, where it is to be written.
    fn noted(
        &self,
        host: &mut impl Host,
        stream: &mut StreamState,
        found: Option<Box<UserAgent>>,
        visit: &mut Visit,
    ) -> Option<Box<UserAgent>> {
        let (now, policy) = (host.wall(), self.settings.agents);
        let inline = stream.inline.get_or_insert_default();
        let mut changes = found.is_none();
        let mut agent = found.unwrap_or_else(|| {
            Box::new(UserAgent {
                id: visit.id,
                stamp: 0,
                software: "".into(),
                device: "".into(),
                first_seen: now,
                last_seen: now,
                knows_password: false,
                next: None,
                current: None,
            })
        });
        changes |= note(&mut agent, &inline.names, &policy, now);
        changes |= !std::mem::replace(&mut agent.knows_password, true);
        if let Some(binding) = inline.tokens.wanted {
            visit.token = Some(issue(binding, seed(host), &policy, now));
            agent.next = visit.token;
            changes = true;
        }
        changes.then_some(agent)
    }
}

/// What a user agent is known by on an account.
fn agent_id(settings: &Settings, account: &BareJid, user_agent: u128) -> AgentId {
    stable_identifier(&settings.fake_salt_secret, account, user_agent)
}

fn seed(host: &mut impl Host) -> u128 {
    u128::from(host.random()) << 64 | u128::from(host.random())
}

/// What `<authenticate/>` says, taken apart.
fn read_login(
    stream: &StreamState,
    binding: TokenBinding,
    initial: Result<Option<Vec<u8>>, SaslError>,
    offer: &Offer<'_>,
    settings: &Settings,
) -> Result<TokenLogin, SaslError> {
    let inline = stream.inline.as_ref().ok_or(SaslError::MalformedRequest)?;
    // XEP-0484 3.1: there is one message, so that it is in `<authenticate/>`.
    let message = initial?.ok_or(SaslError::MalformedRequest)?;
    let proof = TokenProof::read(binding, &message, offer)?;
    // XEP-0484 3.4, 4.1: it says that this is a token, and whose.
    let used = inline.tokens.used?.ok_or(SaslError::MalformedRequest)?;
    let user_agent = inline.user_agent.ok_or(SaslError::MalformedRequest)?;
    let id = agent_id(settings, &proof.account, user_agent);
    Ok(TokenLogin {
        proof,
        used,
        visit: Visit::new(id),
        answer: None,
        needs_write: false,
    })
}
