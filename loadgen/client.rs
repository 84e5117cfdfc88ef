//! One XMPP client up to the point where it is ready: a state machine fed with whole pieces of the
//! server's stream, writing into a buffer. It does no I/O and never blocks.

mod resume;

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::accounts::Accounts;
use crate::acks::{self, Acks, Kept};
use crate::muc::{self, Rooms};
use crate::random::Random;
use crate::scan::{self, Piece};
use crate::scram::{Exchange, Hash, KeyCache, Keys, Recipe};
use crate::stats::{Meter, Phase};

/// How a connection is secured.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Not at all.
    None,
    /// STARTTLS (RFC 6120 5).
    Starttls,
    /// TLS from the first byte (XEP-0368).
    Direct,
}

/// How a client proves who it is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
pub enum Mechanism {
    /// RFC 7677.
    #[value(name = "SCRAM-SHA-256", alias = "scram-sha-256")]
    ScramSha256,
    /// RFC 5802.
    #[value(name = "SCRAM-SHA-1", alias = "scram-sha-1")]
    ScramSha1,
    /// RFC 4616.
    #[value(name = "PLAIN", alias = "plain")]
    Plain,
    /// RFC 4505.
    #[value(name = "ANONYMOUS", alias = "anonymous")]
    Anonymous,
}

impl Mechanism {
    /// Its name in SASL.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
            Mechanism::Plain => "PLAIN",
            Mechanism::Anonymous => "ANONYMOUS",
        }
    }
}

/// What all clients of a run have in common.
pub struct Script {
    /// The server's domain.
    pub domain: String,
    /// How connections are secured.
    pub tls: TlsMode,
    /// The path at which streams are in WebSocket frames, where they are.
    pub websocket: Option<String>,
    /// The mechanism asked for; else the strongest of SCRAM-SHA-256, -1 and PLAIN on offer.
    pub mechanism: Option<Mechanism>,
    /// Names and passwords.
    pub accounts: Accounts,
    /// The account of the first client.
    pub first_account: u32,
    /// Whether accounts are registered first (XEP-0077).
    pub register: bool,
    /// Whether the roster is fetched.
    pub roster: bool,
    /// Whether initial presence is sent.
    pub presence: bool,
    /// The rooms that clients enter, where they do.
    pub rooms: Option<Rooms>,
    /// Stanzas after which a client asks for acknowledgement (XEP-0198); none: unmanaged streams.
    pub ack_every: Option<u32>,
    /// Whether sessions are to be resumed (XEP-0198 5).
    pub resumes: bool,
    /// Keys derived so far.
    pub keys: KeyCache,
}

impl Script {
    /// That of clients of the floor: they have no accounts, and say who they are.
    pub fn anonymous(domain: &str) -> Script {
        Script {
            domain: domain.to_owned(),
            tls: TlsMode::None,
            websocket: None,
            mechanism: None,
            accounts: Accounts::Anonymous,
            first_account: 0,
            register: false,
            roster: false,
            presence: false,
            rooms: None,
            ack_every: None,
            resumes: false,
            keys: KeyCache::default(),
        }
    }

    /// The name and password of client `index`; none for anonymous ones.
    fn account(&self, index: u32) -> Option<(String, Arc<str>)> {
        self.accounts.of(self.first_account + index)
    }

    /// The address of client `index` in its room, where it enters one.
    fn occupant(&self, index: u32) -> Option<String> {
        let rooms = self.rooms.as_ref()?;
        Some(rooms.occupant(self.first_account, index))
    }
}

/// Where a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// Not connected.
    #[default]
    Idle,
    /// TCP is on its way.
    Connecting,
    /// The stream header went out.
    Features,
    /// STARTTLS was asked for.
    Proceed,
    /// The TLS handshake runs.
    Handshake,
    /// Registration was asked for.
    Register,
    /// SASL began.
    Challenge,
    /// A helper thread derives keys.
    Deriving,
    /// SASL's last answer is out.
    Success,
    /// A resource was asked for.
    Bind,
    /// The old session request is out (RFC 3921).
    Session,
    /// The session of before was asked for.
    Resume,
    /// Stream management was asked for.
    Manage,
    /// The roster was asked for.
    Roster,
    /// Initial presence and a ping are out.
    Presence,
    /// A room is to be entered, or was asked to let it in.
    Join,
    /// Taking part.
    Ready,
    /// Its network is lost; its session is to be resumed.
    Lost,
    /// Our side of the stream is closed.
    Closing,
    /// Ended by failure; not tried again.
    Failed,
}

/// What the owner of the connection must do next.
#[derive(Debug)]
pub enum Turn {
    /// Nothing but to write what is in the output.
    Nothing,
    /// Begin the TLS handshake; everything received so far is used up.
    StartTls,
    /// Derive these keys, then call [`Client::on_keys`].
    Derive(Box<Recipe>),
    /// Call [`Client::join`] as soon as its room may be entered.
    Join,
    /// The client takes part from now on, under this JID.
    Ready(Box<str>),
    /// The session of before goes on; the server says how many stanzas it has of it.
    Resumed(u32),
    /// The session of before is no more; the client logs in anew.
    NotResumed,
    /// The server closed its side.
    End,
    /// This client cannot go on.
    Fail(String),
}

/// What a step may use.
pub struct Cx<'a> {
    /// The run's common part.
    pub script: &'a Script,
    /// This client's number among all.
    pub index: u32,
    /// The time of this turn.
    pub now: u64,
    /// For nonces.
    pub random: &'a mut Random,
    /// Where phases are recorded.
    pub meter: &'a mut Meter,
    /// What will be written.
    pub out: &'a mut Vec<u8>,
}

/// What only a login needs; dropped when it is done.
#[derive(Debug, Default)]
struct Login {
    began: u64,
    exchange: Option<Exchange>,
    secured: bool,
    registered: bool,
    authenticated: bool,
    old_session: bool,
    offers_management: bool,
    resumes: bool,
    features: Vec<u8>,
    jid: Option<Box<str>>,
    room: join::Progress,
}

/// One client: three words while it is ready, and its counters where its stream is managed.
#[derive(Debug, Default)]
pub struct Client {
    /// Where it is.
    pub step: Step,
    since: u64,
    login: Option<Box<Login>>,
    acks: Option<Box<Acks>>,
}

impl Client {
    /// The connection was asked for.
    pub fn on_connect(&mut self, now: u64) {
        let resumes = self.step == Step::Lost;
        if !resumes {
            self.acks = None;
        }
        self.step = Step::Connecting;
        self.since = now;
        self.login = Some(Box::new(Login {
            began: now,
            resumes,
            ..Login::default()
        }));
    }

    /// TCP is up.
    pub fn on_connected(&mut self, cx: &mut Cx<'_>) -> Turn {
        self.phase(cx, Phase::Connect);
        if cx.script.tls == TlsMode::Direct {
            self.step = Step::Handshake;
            return Turn::StartTls;
        }
        self.open_stream(cx);
        Turn::Nothing
    }

    /// The TLS handshake is done.
    pub fn on_secured(&mut self, cx: &mut Cx<'_>) -> Turn {
        self.phase(cx, Phase::Tls);
        self.login().secured = true;
        self.open_stream(cx);
        Turn::Nothing
    }

    /// The keys asked for by [`Turn::Derive`].
    pub fn on_keys(&mut self, cx: &mut Cx<'_>, keys: &Keys) -> Turn {
        let Some(exchange) = &mut self.login().exchange else {
            return Turn::Fail("keys without an exchange".into());
        };
        let answer = BASE64.encode(exchange.finish(keys));
        let xmlns = "urn:ietf:params:xml:ns:xmpp-sasl";
        write_out(
            cx.out,
            format_args!("<response xmlns='{xmlns}'>{answer}</response>"),
        );
        self.step = Step::Success;
        Turn::Nothing
    }

    /// Closes our side of the stream.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(acks) = &self.acks {
            // What is acknowledged is not kept for later.
            acks.answer(out);
        }
        out.extend_from_slice(b"</stream:stream>");
        self.step = Step::Closing;
    }

    /// A piece of the stream arrived while the client was not ready.
    pub fn on_piece(&mut self, cx: &mut Cx<'_>, piece: Piece, bytes: &[u8]) -> Turn {
        match piece {
            Piece::Incomplete | Piece::Space(_) | Piece::Header(_) => Turn::Nothing,
            Piece::Broken => Turn::Fail("the server sent broken XML".into()),
            Piece::End(_) => Turn::End,
            Piece::Element(_) => self.on_element(cx, bytes),
        }
    }

    fn on_element(&mut self, cx: &mut Cx<'_>, element: &[u8]) -> Turn {
        let name = scan::local_name(element);
        if name == b"error" {
            return Turn::Fail(format!("stream error: {}", condition(element)));
        }
        // Before its session goes on, nothing is of it.
        let resumes = self.login.as_ref().is_some_and(|login| login.resumes);
        if !resumes && self.manage(element, (0, cx.now), cx.meter, cx.out) {
            return Turn::Nothing;
        }
        match (self.step, name) {
            (Step::Features, b"features") => self.on_features(cx, element),
            (Step::Proceed, b"proceed") => {
                self.step = Step::Handshake;
                Turn::StartTls
            }
            (Step::Proceed, b"failure") => Turn::Fail("the server refused STARTTLS".into()),
            (Step::Challenge, b"challenge") => self.on_challenge(cx, element),
            (Step::Challenge | Step::Success, b"success") => self.on_success(cx, element),
            (Step::Challenge | Step::Success, b"failure") => {
                Turn::Fail(format!("login refused: {}", condition(element)))
            }
            (Step::Manage, b"enabled") => self.on_enabled(cx, element),
            (Step::Resume, b"resumed") => self.on_resumed(cx, element),
            (Step::Resume, b"failed") => self.on_not_resumed(cx),
            (Step::Manage, b"failed") => {
                Turn::Fail(format!("stream management refused: {}", condition(element)))
            }
            (_, b"iq") => self.on_iq(cx, element),
            (Step::Join, _) => self.on_room(cx, element),
            (Step::Presence | Step::Roster | Step::Ready | Step::Closing, _) => Turn::Nothing,
            // RFC 6121 8.5.3.1: who is bound gets what is for the full address, as when somebody
            // who sent directed presence to the session before goes.
            (Step::Session | Step::Manage, b"presence" | b"message") => Turn::Nothing,
            _ => Turn::Fail(format!(
                "unexpected <{}> in step {:?}",
                String::from_utf8_lossy(name),
                self.step
            )),
        }
    }

    fn on_features(&mut self, cx: &mut Cx<'_>, features: &[u8]) -> Turn {
        let script = cx.script;
        if script.tls == TlsMode::Starttls && !self.login().secured {
            if !scan::holds(features, b"urn:ietf:params:xml:ns:xmpp-tls") {
                return Turn::Fail("no STARTTLS on offer; ask for `--tls none` or direct".into());
            }
            cx.out
                .extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            self.step = Step::Proceed;
            return Turn::Nothing;
        }
        if self.login().authenticated {
            self.login().old_session =
                scan::holds(features, b"urn:ietf:params:xml:ns:xmpp-session")
                    && !scan::holds(features, b"<optional");
            self.login().offers_management = scan::holds(features, acks::XMLNS.as_bytes());
            return match self.login().resumes {
                true => self.ask_to_resume(cx),
                false => self.bind(cx),
            };
        }
        if script.register && !self.login().registered {
            self.login().features = features.to_vec();
            return self.register(cx);
        }
        self.authenticate(cx, features)
    }

    fn bind(&mut self, cx: &mut Cx<'_>) -> Turn {
        self.step = Step::Bind;
        let resource = match cx.script.accounts {
            Accounts::Anonymous => "",
            _ => "<resource>lg</resource>",
        };
        let xmlns = "urn:ietf:params:xml:ns:xmpp-bind";
        write_out(
            cx.out,
            format_args!("<iq type='set' id='b'><bind xmlns='{xmlns}'>{resource}</bind></iq>"),
        );
        Turn::Nothing
    }

    fn register(&mut self, cx: &mut Cx<'_>) -> Turn {
        let Some((user, password)) = cx.script.account(cx.index) else {
            return Turn::Fail("no account to register".into());
        };
        cx.out.extend_from_slice(
            b"<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>",
        );
        scan::escape(&user, cx.out);
        cx.out.extend_from_slice(b"</username><password>");
        scan::escape(&password, cx.out);
        cx.out.extend_from_slice(b"</password></query></iq>");
        self.step = Step::Register;
        Turn::Nothing
    }

    fn authenticate(&mut self, cx: &mut Cx<'_>, features: &[u8]) -> Turn {
        let offered = |mechanism: &Mechanism| {
            scan::holds_text(features, b"mechanism", mechanism.name().as_bytes())
        };
        let usable: &[Mechanism] = match cx.script.accounts {
            Accounts::Anonymous => &[Mechanism::Anonymous],
            _ => &[
                Mechanism::ScramSha256,
                Mechanism::ScramSha1,
                Mechanism::Plain,
            ],
        };
        let chosen = match cx.script.mechanism {
            Some(mechanism) => Some(mechanism).filter(|mechanism| offered(mechanism)),
            None => usable.iter().copied().find(|mechanism| offered(mechanism)),
        };
        let Some(mechanism) = chosen else {
            return Turn::Fail("the server does not offer the mechanism".into());
        };
        let (user, password) = match cx.script.account(cx.index) {
            Some(account) => account,
            None if mechanism == Mechanism::Anonymous => (String::new(), Arc::from("")),
            None => return Turn::Fail("there are fewer accounts than clients".into()),
        };
        let hash = match mechanism {
            Mechanism::ScramSha256 => Some(Hash::Sha256),
            Mechanism::ScramSha1 => Some(Hash::Sha1),
            Mechanism::Plain | Mechanism::Anonymous => None,
        };
        let initial = match hash {
            Some(hash) => {
                let nonce = format!("{:016x}{:016x}", cx.random.bits(), cx.random.bits());
                let exchange = Exchange::new(hash, &user, nonce);
                let first = exchange.first();
                self.login().exchange = Some(exchange);
                BASE64.encode(first)
            }
            None if mechanism == Mechanism::Anonymous => "=".to_owned(),
            None => BASE64.encode(format!("\0{user}\0{password}")),
        };
        let name = mechanism.name();
        cx.meter.mechanisms.insert(name);
        write_out(
            cx.out,
            format_args!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{name}'>{initial}</auth>"
            ),
        );
        self.step = Step::Challenge;
        Turn::Nothing
    }

    fn on_challenge(&mut self, cx: &mut Cx<'_>, element: &[u8]) -> Turn {
        let Some((_, password)) = cx.script.account(cx.index) else {
            return Turn::Fail("a challenge for an anonymous login".into());
        };
        let Some(text) = decoded(element) else {
            return Turn::Fail("an unreadable challenge".into());
        };
        let Some(exchange) = &mut self.login().exchange else {
            return Turn::Fail("a challenge where none belongs".into());
        };
        match exchange.challenge(&text, &password) {
            Err(reason) => Turn::Fail(format!("a bad challenge: {reason}")),
            Ok(recipe) => match cx.script.keys.find(&recipe) {
                Some(keys) => self.on_keys(cx, &keys),
                None => {
                    self.step = Step::Deriving;
                    Turn::Derive(Box::new(recipe))
                }
            },
        }
    }

    fn on_success(&mut self, cx: &mut Cx<'_>, element: &[u8]) -> Turn {
        if let Some(exchange) = &self.login().exchange {
            let proven = decoded(element).is_some_and(|text| exchange.verify(&text));
            if self.step != Step::Success || !proven {
                return Turn::Fail("the server did not prove that it knows the password".into());
            }
        }
        self.login().exchange = None;
        self.login().authenticated = true;
        self.phase(cx, Phase::Auth);
        self.open_stream(cx);
        Turn::Nothing
    }

    fn on_iq(&mut self, cx: &mut Cx<'_>, element: &[u8]) -> Turn {
        let kind = scan::attribute(element, b"type").unwrap_or(b"");
        let id = scan::attribute(element, b"id").unwrap_or(b"");
        if kind == b"get" || kind == b"set" {
            let start = cx.out.len();
            answer_request(element, kind, cx.out);
            self.sent(&cx.out[start..]);
            return Turn::Nothing;
        }
        let is_error = kind == b"error";
        match (self.step, id) {
            (Step::Register, b"r") => {
                // An account that exists already is as good as a new one.
                if is_error && !scan::holds(element, b"<conflict") {
                    return Turn::Fail(format!("registration refused: {}", condition(element)));
                }
                self.phase(cx, Phase::Register);
                self.login().registered = true;
                // The stream goes on, and so does what it offers.
                let features = std::mem::take(&mut self.login().features);
                self.authenticate(cx, &features)
            }
            (Step::Bind, b"b") => {
                let Some(jid) = scan::text_of(element, b"jid").filter(|_| !is_error) else {
                    return Turn::Fail(format!("bind refused: {}", condition(element)));
                };
                let jid = String::from_utf8_lossy(&scan::unescape(jid)).into_owned();
                self.login().jid = Some(jid.into());
                self.phase(cx, Phase::Bind);
                if self.login().old_session {
                    self.step = Step::Session;
                    let xmlns = "urn:ietf:params:xml:ns:xmpp-session";
                    write_out(
                        cx.out,
                        format_args!("<iq type='set' id='s'><session xmlns='{xmlns}'/></iq>"),
                    );
                    return Turn::Nothing;
                }
                self.after_bind(cx)
            }
            (Step::Session, b"s") => self.after_bind(cx),
            (Step::Roster, b"o") => {
                if is_error {
                    return Turn::Fail(format!("roster refused: {}", condition(element)));
                }
                self.phase(cx, Phase::Roster);
                self.announce(cx)
            }
            (Step::Presence, b"p") => {
                self.phase(cx, Phase::Presence);
                self.after_presence(cx)
            }
            (Step::Join, muc::ASKING) => self.on_asked(cx, element),
            (Step::Join, muc::OPENING) => self.on_opened(cx, element),
            _ => Turn::Nothing,
        }
    }

    fn after_bind(&mut self, cx: &mut Cx<'_>) -> Turn {
        if cx.script.ack_every.is_none() {
            return self.after_manage(cx);
        }
        if !self.login().offers_management {
            return Turn::Fail("the server does not offer stream management".into());
        }
        self.step = Step::Manage;
        let xmlns = acks::XMLNS;
        write_out(
            cx.out,
            format_args!("<enable xmlns='{xmlns}' resume='true'/>"),
        );
        Turn::Nothing
    }

    fn after_manage(&mut self, cx: &mut Cx<'_>) -> Turn {
        if !cx.script.roster {
            return self.announce(cx);
        }
        self.step = Step::Roster;
        let request = b"<iq type='get' id='o'><query xmlns='jabber:iq:roster'/></iq>";
        cx.out.extend_from_slice(request);
        self.sent(request);
        Turn::Nothing
    }

    fn announce(&mut self, cx: &mut Cx<'_>) -> Turn {
        if !cx.script.presence {
            return self.after_presence(cx);
        }
        self.step = Step::Presence;
        let presence = b"<presence/>";
        cx.out.extend_from_slice(presence);
        self.sent(presence);
        // Not every server returns our own presence; every server answers what comes behind it.
        let start = cx.out.len();
        write_ping(cx.out, "p", &cx.script.domain);
        self.sent(&cx.out[start..]);
        Turn::Nothing
    }

    fn ready(&mut self, cx: &mut Cx<'_>) -> Turn {
        self.step = Step::Ready;
        let login = self.login.take().expect("a login that ends has begun");
        cx.meter
            .phase(Phase::Login, cx.now.saturating_sub(login.began));
        login
            .jid
            .map_or_else(|| Turn::Fail("ready without a JID".into()), Turn::Ready)
    }

    /// This stanza was written; where it is empty, none was.
    pub fn sent(&mut self, stanza: &[u8]) {
        if let Some(acks) = self.acks.as_mut().filter(|_| !stanza.is_empty()) {
            acks.send(1);
            acks.keep(|| Kept::Whole(stanza.into()));
        }
    }

    /// The JID that a login under way has been bound to.
    pub fn bound(&self) -> Option<&str> {
        self.login.as_ref()?.jid.as_deref()
    }

    /// The counters of a managed stream.
    pub fn acks(&mut self) -> Option<&mut Acks> {
        self.acks.as_deref_mut()
    }

    /// Counts `element` where it is a stanza. Where it is a request or an answer of stream
    /// management instead, deals with it and says so; answers are timed from the first of
    /// `times` on, the second being now.
    pub fn manage(
        &mut self,
        element: &[u8],
        (record_from, now): (u64, u64),
        meter: &mut Meter,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(acks) = &mut self.acks else {
            return false;
        };
        match scan::local_name(element) {
            b"r" => acks.answer(out),
            b"a" => {
                let heard = count(element);
                self.on_answer(heard, (record_from, now), meter);
            }
            name => {
                if matches!(name, b"message" | b"presence" | b"iq") {
                    acks.receive();
                }
                return false;
            }
        }
        true
    }

    /// The server answers for its first `h` stanzas, if that is readable; timed as in
    /// [`Client::manage`].
    pub fn on_answer(&mut self, h: Option<u32>, times: (u64, u64), meter: &mut Meter) {
        let Some(acks) = &mut self.acks else { return };
        let (record_from, now) = times;
        let settled = |at: u64| {
            if at >= record_from {
                meter.acks.saturating_record(now.saturating_sub(at));
            }
        };
        if h.is_none_or(|h| acks.on_answer(h, settled).is_err()) {
            meter.false_acks += 1;
        }
    }

    fn open_stream(&mut self, cx: &mut Cx<'_>) {
        self.step = Step::Features;
        write_out(
            cx.out,
            format_args!(
                "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>",
                cx.script.domain
            ),
        );
    }

    fn login(&mut self) -> &mut Login {
        self.login.get_or_insert_default()
    }

    fn phase(&mut self, cx: &mut Cx<'_>, phase: Phase) {
        cx.meter.phase(phase, cx.now.saturating_sub(self.since));
        self.since = cx.now;
    }
}

/// Answers a ping, and says of everything else that we do not do it (RFC 6120 8.4).
pub fn answer_request(element: &[u8], kind: &[u8], out: &mut Vec<u8>) {
    let Some(id) = scan::attribute(element, b"id") else {
        return;
    };
    let to = scan::attribute(element, b"from");
    let known = kind == b"get" && scan::holds(element, b"urn:xmpp:ping")
        || kind == b"set" && scan::holds(element, b"jabber:iq:roster");
    out.extend_from_slice(if known {
        b"<iq type='result' id=\""
    } else {
        b"<iq type='error' id=\""
    });
    out.extend_from_slice(id);
    if let Some(to) = to {
        out.extend_from_slice(b"\" to=\"");
        out.extend_from_slice(to);
    }
    out.extend_from_slice(match known {
        true => b"\"/>".as_slice(),
        false => {
            b"\"><error type='cancel'><service-unavailable \
              xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        }
    });
}

/// Writes a ping to the server (XEP-0199).
pub fn write_ping(out: &mut Vec<u8>, id: &str, domain: &str) {
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    write_out(
        out,
        format_args!("<iq type='get' id='{id}' to='{domain}'>{ping}</iq>"),
    );
}

/// What an answer of stream management says that the server has.
fn count(element: &[u8]) -> Option<u32> {
    let text = scan::attribute(element, b"h").and_then(|h| std::str::from_utf8(h).ok());
    text.and_then(|h| h.parse().ok())
}

/// The name of the first child that is not a text: an error's condition.
fn condition(element: &[u8]) -> String {
    let names = element
        .split(|byte| *byte == b'<')
        .skip(2)
        .filter(|tag| !tag.starts_with(b"/"))
        .map(|tag| {
            let mut whole = vec![b'<'];
            whole.extend_from_slice(tag);
            String::from_utf8_lossy(scan::local_name(&whole)).into_owned()
        });
    const NOT_CONDITIONS: [&str; 9] = [
        "error", "text", "query", "username", "password", "bind", "resource", "x", "history",
    ];
    names
        .into_iter()
        .find(|name| !NOT_CONDITIONS.contains(&name.as_str()))
        .unwrap_or_else(|| "no condition given".to_owned())
}

fn decoded(element: &[u8]) -> Option<String> {
    let text = scan::text_of(element, scan::local_name(element))?;
    String::from_utf8(BASE64.decode(text.trim_ascii()).ok()?).ok()
}

fn write_out(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    struct Sink<'a>(&'a mut Vec<u8>);
    impl std::fmt::Write for Sink<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    Sink(out)
        .write_fmt(text)
        .expect("writing to a Vec cannot fail");
}

mod join;
#[cfg(test)]
mod tests;
