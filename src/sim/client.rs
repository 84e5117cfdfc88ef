//! A client: reads its stream, logs in by itself if told how, and collects what it receives.

use crate::element::Element;
use crate::random::Random;
use crate::scram::{self, Scram};
use stanza::frame::{Frame, Limits, Scanner};
use stanza::scope::StreamScope;
use stanza::view::StreamHeader;
use std::collections::{BTreeMap, VecDeque};

/// Bytes of one element of a server: a roster is longer than any stanza of a client.
const ELEMENT_SIZE_MAX: u32 = 32 << 20;

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// SASL PLAIN.
    Plain,
    /// SCRAM-SHA-256; the -PLUS variant where the stream has TLS.
    Scram,
    /// SASL ANONYMOUS.
    Anonymous,
}

/// When a client uses TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Never.
    Never,
    /// By STARTTLS.
    Start,
    /// From the first byte.
    Direct,
}

/// Who a client is, and how it gets in.
#[derive(Clone, Debug)]
pub struct Login {
    /// The account.
    pub user: String,
    /// Its domain.
    pub domain: String,
    /// Its password.
    pub password: String,
    /// The resource to ask for; `None` leaves it to the server.
    pub resource: Option<String>,
    /// The mechanism.
    pub proof: Proof,
    /// Whether and when the stream is protected.
    pub tls: Tls,
    /// The session (XEP-0198) to go on with, and how many stanzas of it have come.
    pub resume: Option<(String, u32)>,
}

impl Login {
    /// A login by SCRAM in clear.
    pub fn new(jid: &str, password: &str) -> Login {
        let (bare, resource) = match jid.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource.to_owned())),
            None => (jid, None),
        };
        let (user, domain) = bare.split_once('@').expect("an account has a local part");
        Login {
            user: user.into(),
            domain: domain.into(),
            password: password.into(),
            resource,
            proof: Proof::Scram,
            tls: Tls::Never,
            resume: None,
        }
    }
}

/// Where a client stands.
#[derive(Debug)]
pub enum Phase {
    /// A script speaks for it, every element is for the script.
    Raw,
    /// Waits for features.
    Negotiating,
    /// Waits for `<proceed/>`.
    Securing,
    /// Waits for a challenge or success.
    Proving,
    /// Waits for the bind result.
    Binding,
    /// Waits for its session.
    Resuming,
    /// Bound.
    Online,
    /// Login failed, for this reason.
    Refused(String),
}

/// One client on one wire.
#[derive(Debug)]
pub struct Client {
    /// How it logs in; `None` for a client that a script speaks for.
    pub login: Option<Login>,
    /// Where it stands.
    pub phase: Phase,
    /// Its full JID, once bound.
    pub full: String,
    /// What it received and nobody has looked at.
    pub inbox: VecDeque<Element>,
    /// The server closed its stream.
    pub stream_closed: bool,
    /// No more bytes will come.
    pub ended: bool,
    /// The condition of the stream error that it got.
    pub stream_error: Option<String>,
    /// How many of its stanzas the server has, if its session was resumed.
    pub resumed: Option<u32>,
    /// Whether its bytes are protected.
    pub secure: bool,
    /// What its TLS exports for channel binding.
    pub exporter: [u8; 32],
    scram: Option<Scram>,
    scanner: Scanner,
    scope: Option<StreamScope>,
    unread: Vec<u8>,
    ids: u64,
}

/// What the client found in its bytes.
enum Item {
    Header(Element),
    Element(Element),
    Close,
}

/// What a client wants after it has read.
#[derive(Debug, Default)]
pub(crate) struct Reaction {
    /// To be sent.
    pub bytes: Vec<u8>,
    /// The handshake is to be done before `bytes` are sent.
    pub handshake: bool,
    /// It has just come online.
    pub online: bool,
    /// Its login has just failed.
    pub refused: bool,
    /// Stanzas that came while it was online, for its actor.
    pub stanzas: Vec<Element>,
}

impl Client {
    pub(crate) fn new(login: Option<Login>, exporter: [u8; 32]) -> Client {
        Client {
            phase: if login.is_some() {
                Phase::Negotiating
            } else {
                Phase::Raw
            },
            login,
            full: String::new(),
            inbox: VecDeque::new(),
            stream_closed: false,
            ended: false,
            stream_error: None,
            resumed: None,
            secure: false,
            exporter,
            scram: None,
            scanner: Scanner::new(Limits {
                size_max: ELEMENT_SIZE_MAX,
                ..Limits::default()
            }),
            scope: None,
            unread: Vec::new(),
            ids: 0,
        }
    }

    /// Whether it is bound and its stream is open.
    pub fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online) && !self.stream_closed && !self.ended
    }

    /// Whether it was ever bound.
    pub fn was_online(&self) -> bool {
        !self.full.is_empty()
    }

    /// The bare JID, once bound.
    pub fn bare(&self) -> &str {
        self.full.split('/').next().unwrap_or_default()
    }

    /// What it says first.
    pub(crate) fn opening(&self) -> Vec<u8> {
        self.login
            .as_ref()
            .map(|login| header(&login.domain))
            .unwrap_or_default()
    }

    /// Reads bytes from the server.
    ///
    /// # Panics
    /// When the server sends what is not XML: no test survives that.
    pub(crate) fn on_bytes(&mut self, bytes: &[u8], random: &mut Random) -> Reaction {
        let mut reaction = Reaction::default();
        let was_refused = matches!(self.phase, Phase::Refused(_));
        self.unread.extend_from_slice(bytes);
        while let Some(item) = self.next_item() {
            match item {
                Item::Close => self.stream_closed = true,
                Item::Header(header) => {
                    if let Phase::Raw = self.phase {
                        self.inbox.push_back(header);
                    }
                }
                Item::Element(element) => self.on_element(element, random, &mut reaction),
            }
        }
        reaction.refused = !was_refused && matches!(self.phase, Phase::Refused(_));
        reaction
    }

    fn next_item(&mut self) -> Option<Item> {
        loop {
            let frame = match self.scanner.next(&self.unread) {
                Ok(frame) => frame,
                Err(error) => {
                    let text = String::from_utf8_lossy(&self.unread);
                    panic!("{}: the server sent {error:?} in {text}", self.full)
                }
            };
            let (size, kind) = match frame {
                Frame::Incomplete => return None,
                Frame::Whitespace(size) => (size, 0),
                Frame::StreamOpen(size) => (size, 1),
                Frame::Element(size) => (size, 2),
                Frame::StreamClose(size) => (size, 3),
            };
            let bytes: Vec<u8> = self.unread.drain(..size).collect();
            return Some(match kind {
                0 => continue,
                1 => Item::Header(self.read_header(bytes)),
                2 => Item::Element(self.read_element(&bytes)),
                _ => Item::Close,
            });
        }
    }

    fn read_header(&mut self, bytes: Vec<u8>) -> Element {
        let header = StreamHeader::parse(&bytes).expect("the server's header is well-formed");
        assert!(
            header.stream_ns_ok,
            "the server's header is in the namespace of streams"
        );
        let mut attributes = BTreeMap::new();
        let fields = [
            ("to", &header.to),
            ("from", &header.from),
            ("id", &header.id),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                attributes.insert(name.to_owned(), value.to_string());
            }
        }
        if let Some((major, minor)) = header.version {
            attributes.insert("version".into(), format!("{major}.{minor}"));
        }
        self.scope = Some(header.scope);
        Element {
            name: "stream".into(),
            ns: "http://etherx.jabber.org/streams".into(),
            attributes,
            children: Vec::new(),
            text: String::new(),
            raw: bytes,
        }
    }

    fn read_element(&mut self, bytes: &[u8]) -> Element {
        let scope = self.scope.as_ref().expect("a header comes before elements");
        let element = Element::parse(bytes, scope).unwrap_or_else(|error| {
            let text = String::from_utf8_lossy(bytes);
            panic!("{}: the server sent {error} in {text}", self.full)
        });
        let restarts = matches!(element.name.as_str(), "success" | "proceed");
        if restarts && !matches!(&*element.ns, "jabber:client" | "urn:xmpp:sasl:2") {
            self.scanner.restart();
        }
        element
    }

    fn on_element(&mut self, element: Element, random: &mut Random, reaction: &mut Reaction) {
        if element.name == "proceed" {
            self.secure = true;
            reaction.handshake = true;
        }
        if element.name == "error" && element.ns == "http://etherx.jabber.org/streams" {
            self.stream_error = Some(element.condition().to_owned());
            if !matches!(self.phase, Phase::Raw | Phase::Online) {
                self.phase = Phase::Refused(element.condition().to_owned());
            }
            return;
        }
        match self.phase {
            Phase::Raw | Phase::Refused(_) => self.inbox.push_back(element),
            Phase::Online => {
                reaction.stanzas.push(element.clone());
                self.inbox.push_back(element);
            }
            _ => {
                if let Err(reason) = self.negotiate(&element, random, reaction) {
                    self.phase = Phase::Refused(reason);
                    self.inbox.push_back(element);
                }
            }
        }
    }

    fn negotiate(
        &mut self,
        element: &Element,
        random: &mut Random,
        reaction: &mut Reaction,
    ) -> Result<(), String> {
        let login = self.login.clone().expect("who negotiates has a login");
        match (&self.phase, element.name.as_str()) {
            (Phase::Negotiating, "features") => self.on_features(element, &login, random, reaction),
            (Phase::Securing, "proceed") => {
                reaction.bytes.extend(header(&login.domain));
                self.phase = Phase::Negotiating;
                Ok(())
            }
            (Phase::Proving, "challenge") => {
                let scram = self.scram.as_mut().ok_or("a challenge to nothing")?;
                let response = scram.respond(&element.text)?;
                let open = "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>";
                reaction
                    .bytes
                    .extend(format!("{open}{response}</response>").into_bytes());
                Ok(())
            }
            (Phase::Proving, "success") => {
                if let Some(scram) = self.scram.take() {
                    scram.verify(&element.text)?;
                }
                reaction.bytes.extend(header(&login.domain));
                self.phase = Phase::Negotiating;
                Ok(())
            }
            (Phase::Binding, "iq") if element.attr("type") == "result" => {
                let bind = element.child("bind").and_then(|bind| bind.child("jid"));
                self.full = bind.ok_or("a bind result without an address")?.text.clone();
                self.phase = Phase::Online;
                reaction.online = true;
                Ok(())
            }
            (Phase::Resuming, "resumed") => {
                let h = element.attr("h").parse();
                self.resumed = Some(h.map_err(|_| "a session resumed without a number")?);
                let resource = login.resource.as_deref().unwrap_or_default();
                self.full = format!("{}@{}/{resource}", login.user, login.domain);
                self.phase = Phase::Online;
                reaction.online = true;
                Ok(())
            }
            (Phase::Resuming, "failed") => {
                self.bind(&login, &mut reaction.bytes);
                Ok(())
            }
            _ => Err(element.condition().to_owned()),
        }
    }

    fn bind(&mut self, login: &Login, out: &mut Vec<u8>) {
        let resource = login.resource.as_deref().map(|resource| {
            let mut escaped = Vec::new();
            stanza::writer::escape_text(resource, &mut escaped);
            format!("<resource>{}</resource>", String::from_utf8_lossy(&escaped))
        });
        out.extend(
            format!(
                "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{}\
                 </bind></iq>",
                resource.unwrap_or_default()
            )
            .into_bytes(),
        );
        self.phase = Phase::Binding;
    }

    fn on_features(
        &mut self,
        features: &Element,
        login: &Login,
        random: &mut Random,
        reaction: &mut Reaction,
    ) -> Result<(), String> {
        let out = &mut reaction.bytes;
        if features.child("bind").is_some() {
            match &login.resume {
                Some((session, h)) => {
                    let text =
                        format!("<resume xmlns='urn:xmpp:sm:3' previd='{session}' h='{h}'/>");
                    out.extend(text.into_bytes());
                    self.phase = Phase::Resuming;
                }
                None => self.bind(login, out),
            }
            return Ok(());
        }
        if login.tls == Tls::Start && !self.secure {
            out.extend(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            self.phase = Phase::Securing;
            return Ok(());
        }
        let (mechanism, initial) = match login.proof {
            Proof::Plain => ("PLAIN", scram::plain(&login.user, &login.password)),
            Proof::Anonymous => ("ANONYMOUS", "=".into()),
            Proof::Scram => {
                let nonce = format!("{:016x}", random.bits());
                let exporter = self.secure.then_some(&self.exporter[..]);
                let (scram, first) = Scram::start(&login.user, &login.password, &nonce, exporter);
                self.scram = Some(scram);
                (
                    if self.secure {
                        "SCRAM-SHA-256-PLUS"
                    } else {
                        "SCRAM-SHA-256"
                    },
                    first,
                )
            }
        };
        let offered = features
            .child("mechanisms")
            .ok_or("no mechanism is offered")?;
        if !offered.children.iter().any(|offer| offer.text == mechanism) {
            return Err(format!("{mechanism} is not offered"));
        }
        out.extend(
            format!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{initial}\
                 </auth>"
            )
            .into_bytes(),
        );
        self.phase = Phase::Proving;
        Ok(())
    }

    /// An id that this client has not used.
    pub fn fresh_id(&mut self) -> String {
        self.ids += 1;
        format!("i{}", self.ids)
    }
}

/// A client's stream header.
pub fn header(domain: &str) -> Vec<u8> {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams' to='{domain}' version='1.0'>"
    )
    .into_bytes()
}
