//! An XMPP stream: the state of one connection between its bytes and its session, as typed phases.
//!
//! Invariant: what a stream may do next is what its [`Phase`] says; nothing else is remembered.

pub mod auth;
pub mod bind;
pub mod c2s;
mod component;
mod derivations;
pub mod features;
mod profile;
pub mod register;
pub mod sasl;
pub(crate) mod scopes;
mod web;

use crate::account::AccountKey;
use crate::bulk::Handled;
use crate::error::StreamError;
use crate::host::{ConnId, Host, StreamKind, Ticket, Timestamp, TlsFacts};
use crate::limit::{Limits, counted_address};
use crate::port::{AgentId, SessionId, StoredSession};
use crate::session::SessionKey;
use crate::settings::Settings;
use crate::shard::{Shard, Timer};
use crate::xep::components::ComponentId;
use crate::xep::fast::Visit;
use crate::xep::sasl2::Inline;
use crate::xep::upgrade::{self, ExpectUpgrade};
pub(crate) use derivations::Derivations;
pub(crate) use profile::Profile;
use sasl::{Exchange, Mechanism};
use stanza::frame::{Frame, ScanError, Scanner};
use stanza::jid::BareJid;
use stanza::scope::StreamScope;
use std::cmp::Reverse;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

/// What travels with a connection from shard to shard.
#[derive(Debug)]
pub struct StreamState {
    /// What is awaited.
    pub(crate) phase: Phase,
    /// Where framing stands.
    pub(crate) scanner: Scanner,
    /// Bytes of an element that is complete and waits for its turn; 0 where none does.
    pub(crate) complete: u32,
    /// Whether that is the end of the stream.
    pub(crate) is_closed: bool,
    pub(crate) handled: Handled,
    /// What the last header declared.
    pub(crate) scope: Option<Arc<StreamScope>>,
    /// What TLS said; `None` in clear. Kept until the stream is bound.
    pub(crate) tls: Option<Box<TlsFacts>>,
    /// The profile of SASL that the client speaks, once it has said something in it.
    pub(crate) profile: Option<Profile>,
    /// What `<success/>` of SASL2 is to tell. Kept until that is written.
    pub(crate) inline: Option<Box<Inline>>,
    /// The number of the user agent that somebody authenticated with.
    agent: Option<NonZeroU64>,
    /// Whether the bytes are protected by TLS.
    pub(crate) secure: bool,
    /// How it came in.
    pub(crate) kind: StreamKind,
    /// How many authentications failed.
    pub(crate) tries: u8,
    /// Registration requests since the last that made an account.
    pub(crate) asked: u8,
    /// Bytes of white space between elements so far, before authentication.
    pub(crate) whitespace: u16,
    /// When the stream must be bound.
    pub(crate) deadline: Timestamp,
    /// Where the client is.
    pub(crate) peer: IpAddr,
}

/// What a stream waits for.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The header of the first stream, or of one after STARTTLS or SASL.
    ExpectHeader(ExpectHeader),
    /// The TLS handshake after `<proceed/>` or on the direct TLS port, or that a connection of the
    /// web becomes a stream.
    ExpectTls,
    /// `<starttls/>`, `<auth/>`, or in-band registration.
    ExpectAuth,
    /// The client's first message after an empty challenge.
    ExpectInitial(Mechanism),
    /// SCRAM's last message.
    ExpectResponse(Box<ExpectResponse>),
    /// Storage or derivation; the connection is paused.
    ExpectVerdict(Box<ExpectVerdict>),
    /// That an authenticated client gives a key that its account lacks.
    ExpectUpgrade(Box<ExpectUpgrade>),
    /// What storage knows of the user agent of an authenticated client; the connection is paused.
    ExpectAgent(Box<ExpectAgent>),
    /// The bind request of an authenticated client.
    ExpectBind(BareJid),
    /// The account's data from storage; the connection is paused.
    ExpectAccount(Box<ExpectAccount>),
    /// A session from storage; the connection is paused.
    ExpectResume(Box<ExpectResume>),
    /// A bound session: stanzas flow.
    Bound(SessionKey),
    /// A component's proof that it knows its secret.
    ExpectHandshake(Box<component::ExpectHandshake>),
    /// A component that has proved it: stanzas flow.
    Component(ComponentId),
}

impl Phase {
    /// Who says that he is whom, and has not proved it yet.
    fn claimed(&self) -> Option<&BareJid> {
        match self {
            Phase::ExpectResponse(expect) => Some(&expect.account),
            Phase::ExpectVerdict(expect) => expect.request.claimed(),
            _ => None,
        }
    }

    /// Who has proved it, while there is no session. Whoever binds is not among them: his account
    /// loads, and one that loads is not deleted before he is bound.
    fn proved(&self) -> Option<&BareJid> {
        match self {
            Phase::ExpectHeader(expect) => expect.account.as_ref(),
            Phase::ExpectUpgrade(expect) => Some(&expect.account),
            Phase::ExpectAgent(expect) => Some(&expect.account),
            Phase::ExpectBind(account) => Some(account),
            Phase::ExpectResume(expect) => Some(&expect.account),
            _ => None,
        }
    }
}

fn is_of(account: Option<&BareJid>, bare: &str) -> bool {
    account.is_some_and(|account| account.as_str() == bare)
}

/// See [`Phase::ExpectHeader`].
#[derive(Debug)]
pub(crate) struct ExpectHeader {
    /// Who authenticated, if somebody has.
    pub account: Option<BareJid>,
}

/// See [`Phase::ExpectResponse`].
#[derive(Debug)]
pub(crate) struct ExpectResponse {
    pub account: BareJid,
    pub exchange: Exchange,
    /// The account has other keys by now, or is another one.
    pub outdated: bool,
}

/// See [`Phase::ExpectVerdict`].
#[derive(Debug)]
pub(crate) struct ExpectVerdict {
    pub ticket: Ticket,
    pub request: auth::Request,
    /// The account that is asked for has other keys by now, or is another one.
    pub outdated: bool,
}

impl ExpectVerdict {
    /// A request that has only just been made.
    pub(crate) fn new(ticket: Ticket, request: auth::Request) -> ExpectVerdict {
        ExpectVerdict {
            ticket,
            request,
            outdated: false,
        }
    }
}

/// See [`Phase::ExpectAgent`].
#[derive(Debug)]
pub(crate) struct ExpectAgent {
    pub ticket: Ticket,
    /// Who authenticated.
    pub account: BareJid,
    pub visit: Visit,
}

/// See [`Phase::ExpectAccount`].
#[derive(Debug)]
pub(crate) struct ExpectAccount {
    pub account: AccountKey,
    pub resource: Option<Box<str>>,
    /// The request's id; `None` where it came inside of SASL2.
    pub iq: Option<Box<str>>,
}

/// See [`Phase::ExpectResume`].
#[derive(Debug)]
pub(crate) struct ExpectResume {
    /// Who authenticated.
    pub account: BareJid,
    pub id: SessionId,
    /// How far the client has counted.
    pub h: u32,
    /// What storage has, until the account is there.
    pub stored: Option<Box<StoredSession>>,
}

/// What handling one frame means for the rest of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Consume it and go on.
    Next,
    /// Consume it and stop for now: paused, or bytes of another layer follow.
    Stop,
    /// Leave it, and stop until the connection is resumed.
    Later,
    /// Leave it for the shard that the connection has moved to.
    Moved,
    /// The stream is over; ignore the rest.
    Over,
}

impl StreamState {
    /// A stream nobody has said anything on.
    pub(crate) fn new(
        kind: StreamKind,
        limits: &Limits,
        deadline: Timestamp,
        peer: IpAddr,
    ) -> Self {
        let phase = match kind {
            StreamKind::C2s | StreamKind::Component => {
                Phase::ExpectHeader(ExpectHeader { account: None })
            }
            StreamKind::C2sDirectTls | StreamKind::C2sWeb => Phase::ExpectTls,
        };
        StreamState {
            phase,
            scanner: Scanner::new(limits.scanner(limits.stanza_size_before_auth_max)),
            complete: 0,
            is_closed: false,
            handled: Handled::default(),
            scope: None,
            tls: None,
            profile: None,
            inline: None,
            agent: None,
            secure: false,
            kind,
            tries: 0,
            asked: 0,
            whitespace: 0,
            deadline,
            peer,
        }
    }

    /// What stands at the front of the bytes; one that was put off is not looked for again.
    pub(crate) fn next_frame(&mut self, bytes: &[u8]) -> Result<Frame, ScanError> {
        match std::mem::take(&mut self.complete) {
            0 => self.scanner.next(bytes),
            size if self.is_closed => Ok(Frame::StreamClose(size as usize)),
            size => Ok(Frame::Element(size as usize)),
        }
    }

    /// The user agent that somebody authenticated with; none where its client does not say which
    /// it is.
    pub(crate) fn agent(&self) -> Option<AgentId> {
        self.agent.map(|number| AgentId(number.get()))
    }

    /// Somebody authenticated with a user agent.
    pub(crate) fn note_agent(&mut self, id: AgentId) {
        self.agent = NonZeroU64::new(id.0);
    }

    /// When its client must be bound.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Whether its client may ask for TLS.
    fn may_start_tls(&self, settings: &Settings) -> bool {
        // RFC 7395 3.9: there is no STARTTLS over the web.
        !self.secure && self.kind != StreamKind::C2sWeb && settings.tls_available
    }

    /// What its client's failures and registrations are counted by.
    fn counted_peer(&self) -> String {
        counted_address(self.peer).to_string()
    }

    /// Whether somebody authenticated on it.
    pub(crate) fn is_authenticated(&self) -> bool {
        match &self.phase {
            Phase::ExpectHeader(expect) => expect.account.is_some(),
            Phase::ExpectAgent(_)
            | Phase::ExpectBind(_)
            | Phase::ExpectAccount(_)
            | Phase::ExpectResume(_)
            | Phase::Bound(_)
            | Phase::Component(_) => true,
            _ => false,
        }
    }

    /// Whether its client is to go on with an exchange of SASL.
    pub(crate) fn is_proving(&self) -> bool {
        matches!(
            self.phase,
            Phase::ExpectInitial(_) | Phase::ExpectResponse(_)
        )
    }

    /// Whether an exchange is under way in which a client may say nothing else (XEP-0388 2.4).
    fn is_proving_alone(&self) -> bool {
        let has_more_to_do = matches!(self.phase, Phase::ExpectUpgrade(_));
        self.profile == Some(Profile::Sasl2) && (self.is_proving() || has_more_to_do)
    }

    /// Whether it waits for storage or a derivation, and no byte is looked at meanwhile.
    pub(crate) fn waits(&self) -> bool {
        match &self.phase {
            Phase::ExpectUpgrade(expect) => matches!(expect.step, upgrade::Step::Stored(_)),
            Phase::ExpectVerdict(_)
            | Phase::ExpectAgent(_)
            | Phase::ExpectAccount(_)
            | Phase::ExpectResume(_) => true,
            Phase::ExpectBind(_) => self.inline.as_ref().is_some_and(|it| it.archive.is_asked()),
            _ => false,
        }
    }

    /// The server ends the stream while it is its own turn to answer: that is no exchange which its
    /// client left.
    pub(crate) fn excuse(&mut self) {
        if let Phase::ExpectVerdict(_) = self.phase {
            self.phase = Phase::ExpectAuth;
        }
    }

    /// Whether a stream header of ours is already on the wire for the current stream.
    fn header_sent(&self) -> bool {
        !matches!(self.phase, Phase::ExpectHeader(_) | Phase::ExpectTls)
    }
}

impl Shard {
    /// An account has other keys or is gone: what was begun with the old keys proves nothing.
    pub(crate) fn outdate_proofs(&mut self, bare: &str) {
        for conn in self.unbound(|phase| is_of(phase.claimed(), bare)) {
            let Some(mut stream) = self.conns.take(conn) else {
                continue;
            };
            match &mut stream.phase {
                Phase::ExpectResponse(expect) => expect.outdated = true,
                Phase::ExpectVerdict(expect) => expect.outdated = true,
                _ => {}
            }
            self.conns.put(conn, stream);
        }
    }

    /// An account is gone: who has proved that it is his gets no session of its name's next owner.
    pub(crate) fn end_unbound(
        &mut self,
        host: &mut impl Host,
        bare: &str,
        error: StreamError,
        text: Option<&str>,
    ) {
        for conn in self.proved_streams(bare) {
            if let Some(stream) = self.conns.take(conn) {
                self.stream_error(host, conn, &stream, error, text);
            }
        }
    }

    /// The streams on which it was proved whose that account is, and that have no session.
    pub(crate) fn proved_streams(&self, bare: &str) -> Vec<ConnId> {
        self.unbound(|phase| is_of(phase.proved(), bare))
    }

    /// The streams that wait for an account to load, and bind then.
    pub(crate) fn binding_streams(&self, account: AccountKey) -> Vec<ConnId> {
        self.unbound(|phase| match phase {
            Phase::ExpectAccount(expect) => expect.account == account,
            _ => false,
        })
    }

    /// The streams without a session in such a phase. All of an account are here: a stream moves to
    /// its account's home before it proves anything. And all have a timer, which spares a look at
    /// every connection there is.
    fn unbound(&self, is_in: impl Fn(&Phase) -> bool) -> Vec<ConnId> {
        let timers = self.timers.iter();
        let unbound = timers.filter_map(|Reverse((_, timer))| match timer {
            Timer::Bound(conn) => Some(*conn),
            _ => None,
        });
        let is_it = |conn: &ConnId| {
            let stream = self.conns.peek(*conn);
            stream.is_some_and(|stream| is_in(&stream.phase))
        };
        unbound.filter(is_it).collect()
    }

    /// Ends a stream with an error; its session goes first, so that contacts learn of it.
    pub(crate) fn stream_error(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &StreamState,
        error: StreamError,
        text: Option<&str>,
    ) -> Flow {
        tracing::debug!(condition = error.condition(), text, peer = %stream.peer, "stream error");
        self.count_unfinished(host, stream);
        match stream.phase {
            Phase::Bound(key) => self.end_session(host, key),
            Phase::Component(id) => self.end_component(host, conn, id),
            _ => {}
        }
        if let Phase::ExpectTls = stream.phase {
            host.close(conn);
            return Flow::Over;
        }
        if !stream.header_sent() {
            // RFC 6120 4.9.1.1: the error needs a stream around it, so its header comes first.
            match stream.kind {
                StreamKind::Component => self.write_component_header(host, conn, None),
                _ => self.write_header(host, conn, None),
            }
        }
        error.write(text, host.output(conn));
        host.close(conn);
        Flow::Over
    }
}

pub(crate) fn frame_size(frame: &Frame) -> usize {
    match *frame {
        Frame::Incomplete => 0,
        Frame::Whitespace(size)
        | Frame::StreamOpen(size)
        | Frame::Element(size)
        | Frame::StreamClose(size) => size,
    }
}

const _: () = assert!(
    size_of::<Phase>() <= 32,
    "a bound stream pays for its largest phase"
);
const _: () = assert!(
    size_of::<StreamState>() <= 144,
    "100,000 idle streams are 14 MB"
);
