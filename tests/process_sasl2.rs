//! SASL2 with Bind 2 and stream management in it (XEP-0388, XEP-0386, XEP-0198 9), over TLS.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sim::scram::{Hash, Scram, plain, salted};
use support::client::header;
use support::element::{Piece, cut};
use support::{Client, DOMAIN, Element, Options, PASSWORD, Server};

/// Silence for this long fails the test that waits; it measures nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);

const USER_AGENT: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>";
const BIND: &str = "<bind xmlns='urn:xmpp:bind:0'><tag>Tester</tag>\
                    <enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";

/// A client behind STARTTLS.
struct Secure {
    wire: StreamOwned<ClientConnection, TcpStream>,
    received: Vec<u8>,
}

impl Secure {
    /// Connects, starts TLS, opens a stream; gives the features.
    fn open(server: &Server) -> (Secure, Element) {
        let mut client = Secure::connect(server);
        client.send(&header());
        let features = client.features();
        (client, features)
    }

    /// Connects and starts TLS.
    fn connect(server: &Server) -> Secure {
        let mut socket = TcpStream::connect(server.address()).expect("the server listens");
        socket
            .set_read_timeout(Some(SILENCE_MAX))
            .expect("a timeout can be set");
        let start = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
        let text = format!("{}{start}", header());
        socket.write_all(text.as_bytes()).expect("the server reads");
        let mut received = Vec::new();
        while !received.ends_with(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("the server answers");
            received.push(byte[0]);
        }
        let connection = ClientConnection::new(config(server), domain()).expect("a client");
        let mut wire = StreamOwned::new(connection, socket);
        wire.conn
            .complete_io(&mut wire.sock)
            .expect("the handshake succeeds");
        Secure {
            wire,
            received: Vec::new(),
        }
    }

    /// What comes first on a stream.
    fn features(&mut self) -> Element {
        let Some(Piece::Header(_)) = self.piece() else {
            panic!("a header comes first")
        };
        self.element()
    }

    /// What `tls-exporter` binds to (RFC 9266).
    fn exporter(&self) -> [u8; 32] {
        let (mut exporter, label) = ([0; 32], b"EXPORTER-Channel-Binding");
        self.wire
            .conn
            .export_keying_material(&mut exporter, label, Some(b""))
            .expect("the handshake is done");
        exporter
    }

    fn send(&mut self, text: &str) {
        self.wire.write_all(text.as_bytes()).expect("it is read");
    }

    fn piece(&mut self) -> Option<Piece> {
        loop {
            if let Some((piece, size)) = cut(&self.received) {
                self.received.drain(..size);
                return Some(piece);
            }
            let mut chunk = [0; 4 << 10];
            match self.wire.read(&mut chunk) {
                Ok(0) => return None,
                Ok(size) => self.received.extend_from_slice(&chunk[..size]),
                Err(error) => panic!(
                    "{error}, after {:?}",
                    String::from_utf8_lossy(&self.received)
                ),
            }
        }
    }

    fn element(&mut self) -> Element {
        match self.piece() {
            Some(Piece::Element(raw)) => Element::parse(&raw),
            _ => panic!("an element was awaited"),
        }
    }

    /// Authenticates `u0` by PLAIN, and asks for more.
    fn authenticate(&mut self, inner: &str) -> Element {
        let proof = plain("u0", PASSWORD);
        self.send(&format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
             <initial-response>{proof}</initial-response>{inner}</authenticate>"
        ));
        let answer = self.element();
        assert!(answer.is("success", "urn:xmpp:sasl:2"), "{answer:?}");
        answer
    }
}

fn domain() -> ServerName<'static> {
    ServerName::try_from(DOMAIN).expect("a name")
}

/// Trusts the certificate that the server made for itself.
fn config(server: &Server) -> Arc<ClientConfig> {
    let file = server.directory().join(format!("data/tls/{DOMAIN}.crt"));
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(file).expect("the server made it");
    roots.add(certificate).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[test]
fn a_client_is_authenticated_bound_and_managed_by_one_exchange() {
    let server = Server::start(&Options::default());
    let (mut client, features) = Secure::open(&server);
    let offer = features.child("authentication").expect("it is offered");
    let inline = offer.child("inline").expect("more is offered with it");
    assert!(inline.child("sm").is_some() && inline.child("bind").is_some());
    let exporter = client.exporter();
    let (mut scram, first) = Scram::start("u0", PASSWORD, "nonce", Some(&exporter));
    client.send(&format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-256-PLUS'>\
         <initial-response>{first}</initial-response>{USER_AGENT}{BIND}</authenticate>"
    ));
    let challenge = client.element();
    let response = scram.respond(&challenge.text).expect("a good challenge");
    // XEP-0474 6.2
    let mechanisms = offer.children.iter().filter(|it| it.name == "mechanism");
    let mechanisms: Vec<&str> = mechanisms.map(|it| &*it.text).collect();
    let bindings = features
        .child("sasl-channel-binding")
        .expect("it is offered");
    let bindings = bindings.children.iter().filter_map(|it| it.attr("type"));
    let bindings: Vec<&str> = bindings.collect();
    let advertised = sim::scram::advertised(&mechanisms, &bindings);
    assert_eq!(scram.advertised, Some(advertised));
    client.send(&format!(
        "<response xmlns='urn:xmpp:sasl:2'>{response}</response>"
    ));
    let success = client.element();
    scram
        .verify(success.child_text("additional-data"))
        .expect("the server knows the password");
    let full = success.child_text("authorization-identifier").to_owned();
    assert!(full.starts_with(&format!("u0@{DOMAIN}/Tester/")), "{full}");
    let bound = success.child("bound").expect("it is bound");
    assert!(bound.child("enabled").is_some(), "{success:?}");
    assert_eq!(client.element().name, "features");
    let mut other = Client::log_in(&server, "u1", "desk");
    other.send(&format!(
        "<message to='{full}' id='m'><body>hi</body></message>"
    ));
    assert_eq!(client.element().attr("id"), Some("m"));
}

#[test]
fn a_client_is_back_in_its_session_by_one_exchange_after_the_server_was_killed() {
    let mut server = Server::start(&Options {
        shards: 2,
        ..Options::default()
    });
    let (mut client, _) = Secure::open(&server);
    let success = client.authenticate(&format!("{USER_AGENT}{BIND}"));
    let full = success.child_text("authorization-identifier").to_owned();
    let enabled = success.child("bound").and_then(|it| it.child("enabled"));
    let id = enabled.and_then(|it| it.attr("id")).expect("it is managed");
    let mut other = Client::log_in(&server, "u1", "desk");
    other.send("<enable xmlns='urn:xmpp:sm:3'/>");
    other.until(|it| it.name == "enabled");
    other.send(&format!(
        "<message to='{full}' id='m' type='chat'><body>hi</body></message>"
    ));
    // Acknowledged is stored.
    other.send("<r xmlns='urn:xmpp:sm:3'/>");
    other.until(|it| it.name == "a" && it.attr("h") == Some("1"));
    server.kill();
    server.start_again();
    let (mut client, _) = Secure::open(&server);
    let inner = format!("{USER_AGENT}<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>{BIND}");
    let success = client.authenticate(&inner);
    let resumed = success.child("resumed").expect("the session goes on");
    assert_eq!(resumed.attr("previd"), Some(id));
    assert!(success.child("bound").is_none(), "{success:?}");
    // XEP-0198 9.2: no features come in between.
    let message = client.element();
    assert_eq!(message.attr("id"), Some("m"), "{message:?}");
    assert_eq!(message.attr("to"), Some(&*full));
}

/// XEP-0484: two round trips with that of the handshake, for a header and a proof are sent at once.
#[test]
fn a_token_logs_in_by_one_flight_behind_the_handshake_after_the_server_was_killed_too() {
    let mut server = Server::start(&Options {
        shards: 2,
        ..Options::default()
    });
    let (mut client, features) = Secure::open(&server);
    let inline = features
        .child("authentication")
        .and_then(|it| it.child("inline"));
    let fast = inline
        .and_then(|it| it.child("fast"))
        .expect("it is offered");
    let offered: Vec<&str> = fast.children.iter().map(|it| &*it.text).collect();
    assert_eq!(
        offered,
        ["HT-SHA-256-EXPR", "HT-SHA-256-ENDP", "HT-SHA-256-NONE"]
    );
    let request = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-EXPR'/>";
    let success = client.authenticate(&format!("{USER_AGENT}{request}"));
    let token = success.child("token").and_then(|it| it.attr("token"));
    let token = token.expect("a token was asked for").to_owned();
    server.kill();
    server.start_again();
    for _ in 0..2 {
        let mut client = Secure::connect(&server);
        let exporter = client.exporter();
        let proof = sim::token::proof("u0", &token, &exporter);
        client.send(&format!(
            "{}<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-EXPR'>\
             <initial-response>{proof}</initial-response>{USER_AGENT}\
             <fast xmlns='urn:xmpp:fast:0'/>{BIND}</authenticate>",
            header()
        ));
        client.features();
        let success = client.element();
        assert!(success.is("success", "urn:xmpp:sasl:2"), "{success:?}");
        let answer = sim::token::answer(&token, &exporter);
        assert_eq!(success.child_text("additional-data"), answer);
        let bound = success.child("bound").expect("it is bound");
        assert!(bound.child("enabled").is_some(), "{success:?}");
        assert!(success.child("token").is_none(), "it is good for a day");
    }
}

#[test]
fn a_client_has_its_resource_again_after_a_restart_and_without_tls_hears_nothing_of_this() {
    let mut server = Server::start(&Options::default());
    let ask = format!("{USER_AGENT}{BIND}");
    let full = |server: &Server| {
        let (mut client, _) = Secure::open(server);
        let success = client.authenticate(&ask);
        success.child_text("authorization-identifier").to_owned()
    };
    let before = full(&server);
    server.restart();
    assert_eq!(full(&server), before);
    let (_, _, features) = Client::open(&server);
    assert!(features.child("mechanisms").is_some(), "{features:?}");
    assert!(features.child("authentication").is_none(), "{features:?}");
}

/// The SASL mechanisms that a stream offers, and what an account that lacks some can give.
fn offered(features: &Element) -> (Vec<String>, Vec<String>) {
    let offer = features.child("authentication").expect("it is offered");
    let texts = |name: &str| {
        let named = offer.children.iter().filter(|it| it.name == name);
        named.map(|it| it.text.to_string()).collect()
    };
    (texts("mechanism"), texts("upgrade"))
}

impl Secure {
    /// Authenticates `old`, an account of SCRAM-SHA-1 at first, and asks for more; what comes
    /// behind the proof.
    fn authenticate_old(&mut self, (hash, mechanism): (Hash, &str), inner: &str) -> Element {
        let (mut scram, first) = Scram::start_with(hash, "old", "pencil", "nonce", None);
        self.send(&format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>\
             <initial-response>{first}</initial-response>{inner}</authenticate>"
        ));
        let response = scram.respond(&self.element().text).expect("a challenge");
        self.send(&format!(
            "<response xmlns='urn:xmpp:sasl:2'>{response}</response>"
        ));
        let answer = self.element();
        let data = answer.child_text("additional-data");
        scram.verify(data).expect("the server knows the password");
        answer
    }
}

/// XEP-0480 3
#[test]
fn an_imported_account_gives_the_keys_that_it_lacks_and_then_all_can_use_every_mechanism() {
    let mut server = Server::start(&Options::default());
    let (all, none) = offered(&Secure::open(&server).1);
    assert_eq!(none, Vec::<String>::new());
    // The example of RFC 5802 5.
    let line = "old:SCRAM-SHA-1$4096:QSXCR+Q6sek8bf92$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:\
                D+CSWLOshSulAsxiupA+qs2/fTE=";
    std::fs::write(server.directory().join("users"), line).expect("it is writable");
    let imported = std::process::Command::new(env!("CARGO_BIN_EXE_vorpal"))
        .current_dir(server.directory())
        .args(["user", "import", "users", "--config", "vorpal.toml"])
        .status();
    assert!(imported.expect("the binary was built").success());
    server.restart();
    let (mut client, features) = Secure::open(&server);
    let (fewer, upgrades) = offered(&features);
    assert_eq!(upgrades, ["UPGR-SCRAM-SHA-256", "UPGR-SCRAM-SHA-512"]);
    assert_eq!(fewer, ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"]);
    let wanted = upgrades
        .iter()
        .map(|task| format!("<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>{task}</upgrade>"));
    let inner: String = wanted.collect();
    let old = (Hash::Sha1, "SCRAM-SHA-1");
    let mut answer = client.authenticate_old(old, &inner);
    for hash in [Hash::Sha512, Hash::Sha256] {
        assert_eq!(answer.name, "continue", "{answer:?}");
        let task = &answer.child("tasks").expect("what to do").children[0].text;
        client.send(&format!("<next xmlns='urn:xmpp:sasl:2' task='{task}'/>"));
        let data = client.element();
        let salt = data.child("salt").expect("a salt");
        let rounds = salt.attr("iterations").expect("how often");
        let rounds = rounds.parse().expect("a number");
        let hash = salted(hash, "pencil", &salt.text, rounds).expect("a good salt");
        client.send(&format!(
            "<task-data xmlns='urn:xmpp:sasl:2'>\
             <hash xmlns='urn:xmpp:scram-upgrade:0'>{hash}</hash></task-data>"
        ));
        answer = client.element();
    }
    assert!(answer.is("success", "urn:xmpp:sasl:2"), "{answer:?}");
    server.kill();
    server.start_again();
    let (_, features) = Secure::open(&server);
    assert_eq!(offered(&features), (all, none));
    for way in [
        old,
        (Hash::Sha256, "SCRAM-SHA-256"),
        (Hash::Sha512, "SCRAM-SHA-512"),
    ] {
        let (mut client, _) = Secure::open(&server);
        let answer = client.authenticate_old(way, "");
        assert!(answer.is("success", "urn:xmpp:sasl:2"), "{answer:?}");
    }
}
