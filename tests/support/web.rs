//! A client of WebSocket (RFC 6455, RFC 7395) by hand: frames as it is told to make them, and what
//! comes as documents of their own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::client::plain;
use super::{DOMAIN, Element, PASSWORD, Server};

/// Silence for this long fails the test that waits; it measures nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);

const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Message(Element),
    Pong(Vec<u8>),
    /// The code of a close.
    Close(u16),
    /// The end of the connection.
    End,
}

/// One connection over `S`.
pub(crate) struct WebClient<S> {
    wire: S,
    received: Vec<u8>,
    marks: u32,
}

/// Connects in clear.
pub(crate) fn connect(port: u16) -> TcpStream {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server listens");
    let silence = Some(SILENCE_MAX);
    socket.set_read_timeout(silence).expect("it can be set");
    socket.set_write_timeout(silence).expect("it can be set");
    socket
}

/// Connects with TLS, as browsers do, and trusts the certificate that the server made itself.
pub(crate) fn connect_tls(server: &Server, port: u16) -> StreamOwned<ClientConnection, TcpStream> {
    let file = server.directory().join(format!("data/tls/{DOMAIN}.crt"));
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(file).expect("the server made it");
    roots.add(certificate).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(DOMAIN).expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    StreamOwned::new(connection, connect(port))
}

/// A request for a WebSocket, with more header lines.
pub(crate) fn upgrade(more: &str) -> String {
    format!(
        "GET /xmpp-websocket HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A masked frame.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x44, 0x88];
    let mut out = vec![first];
    match payload.len() {
        size @ 0..=125 => out.push(0x80 | size as u8),
        size @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(size as u16).to_be_bytes());
        }
        size => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    out.extend(masked.map(|(byte, mask)| byte ^ mask));
    out
}

/// What opens a stream.
pub(crate) fn open() -> String {
    format!("<open xmlns='{FRAMING}' to='{DOMAIN}' version='1.0'/>")
}

impl<S: Read + Write> WebClient<S> {
    /// Has the connection become a WebSocket.
    pub(crate) fn upgraded(wire: S) -> WebClient<S> {
        let mut client = WebClient {
            wire,
            received: Vec::new(),
            marks: 0,
        };
        client.send_bytes(upgrade("").as_bytes());
        let answer = client.head();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let proof = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        assert!(answer.contains(proof), "{answer}");
        client
    }

    /// Opens a stream behind that; gives the features.
    pub(crate) fn opened(wire: S) -> (WebClient<S>, Element) {
        let mut client = WebClient::upgraded(wire);
        let features = client.open();
        (client, features)
    }

    /// Logs in by PLAIN and binds that resource.
    pub(crate) fn log_in(wire: S, user: &str, resource: &str) -> WebClient<S> {
        let mut client = WebClient::authenticated(wire, user);
        client.send(&format!(
            "<iq xmlns='jabber:client' type='set' id='bind'>\
             <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind>\
             </iq>"
        ));
        let answer = client.message();
        assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
        client
    }

    /// Logs in by PLAIN, and opens the stream behind that.
    pub(crate) fn authenticated(wire: S, user: &str) -> WebClient<S> {
        let (mut client, _) = WebClient::opened(wire);
        client.send(&plain(user, PASSWORD));
        let answer = client.message();
        assert!(
            answer.is("success", "urn:ietf:params:xml:ns:xmpp-sasl"),
            "{answer:?}"
        );
        client.open();
        client
    }

    /// Opens a stream; gives the features.
    pub(crate) fn open(&mut self) -> Element {
        self.send(&open());
        let answer = self.message();
        assert!(answer.is("open", FRAMING), "{answer:?}");
        assert_eq!(answer.attr("from"), Some(DOMAIN), "{answer:?}");
        assert_eq!(answer.attr("version"), Some("1.0"), "{answer:?}");
        assert!(
            answer.attr("id").is_some_and(|id| !id.is_empty()),
            "{answer:?}"
        );
        let features = self.message();
        assert!(
            features.is("features", "http://etherx.jabber.org/streams"),
            "{features:?}"
        );
        features
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, text: &str) {
        self.send_bytes(&frame(TEXT, text.as_bytes()));
    }

    /// Sends bytes.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.wire.write_all(bytes).expect("the server reads");
        self.wire.flush().expect("the server reads");
    }

    /// The next message.
    pub(crate) fn message(&mut self) -> Element {
        match self.next() {
            Sent::Message(element) => element,
            other => panic!("a message was awaited, {other:?} came"),
        }
    }

    /// The next message that fits; those before it are gone.
    pub(crate) fn until(&mut self, fits: impl Fn(&Element) -> bool) -> Element {
        loop {
            let element = self.message();
            if fits(&element) {
                return element;
            }
        }
    }

    /// Sends a request to the server and gives its answer; what came before it is gone.
    pub(crate) fn ask(&mut self, payload: &str) -> Element {
        self.marks += 1;
        let id = format!("ask-{}", self.marks);
        self.send(&format!(
            "<iq xmlns='jabber:client' type='get' id='{id}' to='{DOMAIN}'>{payload}</iq>"
        ));
        self.until(|element| element.name == "iq" && element.attr("id") == Some(&id))
    }

    /// What comes to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        loop {
            match self.next() {
                Sent::End => return all,
                other => all.push(other),
            }
        }
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> Sent {
        loop {
            if let Some((first, payload)) = self.cut() {
                return match first {
                    TEXT => {
                        let text = String::from_utf8(payload).expect("UTF-8 is sent");
                        Sent::Message(Element::document(&text))
                    }
                    PONG => Sent::Pong(payload),
                    CLOSE => {
                        let code = payload.first_chunk().expect("a code is told");
                        Sent::Close(u16::from_be_bytes(*code))
                    }
                    other => panic!("a frame {other:#x}"),
                };
            }
            if !self.read() {
                assert!(
                    self.received.is_empty(),
                    "half a frame: {:?}",
                    self.received
                );
                return Sent::End;
            }
        }
    }

    /// A whole frame that has come: its first byte and its payload, which is not masked.
    fn cut(&mut self) -> Option<(u8, Vec<u8>)> {
        let bytes = &self.received;
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        let (start, size) = match second {
            126 => {
                let size: [u8; 2] = *bytes.get(2..)?.first_chunk()?;
                (4, usize::from(u16::from_be_bytes(size)))
            }
            127 => {
                let size: [u8; 8] = *bytes.get(2..)?.first_chunk()?;
                (10, u64::from_be_bytes(size) as usize)
            }
            size => (2, usize::from(size)),
        };
        assert!(second < 0x80, "a server does not mask");
        let payload = bytes.get(start..start + size)?.to_vec();
        self.received.drain(..start + size);
        Some((first, payload))
    }

    /// The head of a response.
    fn head(&mut self) -> String {
        loop {
            let end = self
                .received
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = self.received.drain(..end + 4).collect();
                return String::from_utf8(head).expect("a head is text");
            }
            assert!(self.read(), "the connection ended: {:?}", self.received);
        }
    }

    /// Reads more, if there is more.
    fn read(&mut self) -> bool {
        let mut chunk = [0; 16 << 10];
        match self.wire.read(&mut chunk) {
            Ok(size) => {
                self.received.extend_from_slice(&chunk[..size]);
                size > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}, after {:?}", self.received),
        }
    }

    /// The connection itself.
    pub(crate) fn wire(&self) -> &S {
        &self.wire
    }
}

/// Everything that a request is answered with, to the end of the connection.
pub(crate) fn fetch(mut wire: impl Read + Write, request: &str) -> String {
    wire.write_all(request.as_bytes())
        .expect("the server reads");
    wire.flush().expect("the server reads");
    let mut answer = String::new();
    wire.read_to_string(&mut answer).expect("an answer in text");
    answer
}
