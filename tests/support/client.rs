//! A blocking client: plain TCP, SASL PLAIN, and nothing that hides what the server sent.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::element::{Element, Piece, cut};
use super::{DOMAIN, PASSWORD, STREAM_ERRORS, Server};

/// Silence for this long fails the test that waits; it measures nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What a client receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The server's stream header.
    Header(Element),
    /// A complete element.
    Element(Element),
    /// `</stream:stream>`.
    Close,
    /// The end of the connection, in order or by a reset.
    End,
}

/// One connection.
pub(crate) struct Client {
    socket: TcpStream,
    received: Vec<u8>,
    marks: u32,
    /// The full JID after a log-in.
    pub(crate) jid: String,
}

impl Client {
    /// Connects and sends nothing.
    pub(crate) fn connect(server: &Server) -> Client {
        Client::connect_to(server.address())
    }

    /// The same to an address of the server.
    pub(crate) fn connect_to(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).expect("the server listens");
        socket
            .set_read_timeout(Some(SILENCE_MAX))
            .expect("a timeout can be set");
        socket
            .set_write_timeout(Some(SILENCE_MAX))
            .expect("a timeout can be set");
        socket.set_nodelay(true).expect("TCP has no delay");
        Client {
            socket,
            received: Vec::new(),
            marks: 0,
            jid: String::new(),
        }
    }

    /// Connects and opens a stream; gives the server's header and features.
    pub(crate) fn open(server: &Server) -> (Client, Element, Element) {
        let mut client = Client::connect(server);
        let (header, features) = client.open_stream();
        (client, header, features)
    }

    /// Logs in and binds that resource.
    pub(crate) fn log_in(server: &Server, user: &str, resource: &str) -> Client {
        let mut client = Client::authenticated(server, user);
        let answer = client.bind(resource);
        assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
        let jid = answer
            .child("bind")
            .expect("a bind result")
            .child_text("jid")
            .to_owned();
        assert_eq!(jid, format!("{user}@{DOMAIN}/{resource}"));
        client.jid = jid;
        client
    }

    /// Logs in and becomes available; its own presence has arrived.
    pub(crate) fn available(server: &Server, user: &str, resource: &str) -> Client {
        let mut client = Client::log_in(server, user, resource);
        client.send("<presence/>");
        client.settle();
        client
    }

    /// Authenticates and opens the stream behind it, but binds nothing.
    pub(crate) fn authenticated(server: &Server, user: &str) -> Client {
        let (mut client, _, _) = Client::open(server);
        client.send(&plain(user, PASSWORD));
        let answer = client.element();
        assert_eq!(
            answer.name, "success",
            "{user} could not log in: {answer:?}"
        );
        client.open_stream();
        client
    }

    /// Sends a stream header and awaits the server's and its features.
    pub(crate) fn open_stream(&mut self) -> (Element, Element) {
        self.send(&header());
        let header = match self.next() {
            Event::Header(header) => header,
            other => panic!("a stream header was awaited, {other:?} came"),
        };
        let features = self.element();
        assert_eq!(features.name, "features", "{features:?}");
        (header, features)
    }

    /// Asks for a resource; gives the answer. An empty one lets the server choose.
    pub(crate) fn bind(&mut self, resource: &str) -> Element {
        let inner = match resource {
            "" => String::new(),
            name => format!("<resource>{name}</resource>"),
        };
        self.send(&format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{inner}\
             </bind></iq>"
        ));
        self.element()
    }

    /// Sends text.
    pub(crate) fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    /// Sends bytes.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server reads");
    }

    /// Sends as much as the server takes; gives `false` once it has closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// A second handle on the connection, to write while this one reads.
    pub(crate) fn writer(&self) -> TcpStream {
        self.socket.try_clone().expect("a descriptor is free")
    }

    /// Says that nothing more is sent, and keeps reading.
    pub(crate) fn finish_sending(&self) {
        self.socket
            .shutdown(Shutdown::Write)
            .expect("the connection is open");
    }

    /// The next thing that arrives.
    pub(crate) fn next(&mut self) -> Event {
        match self.piece() {
            None => Event::End,
            Some(Piece::Close) => Event::Close,
            Some(Piece::Element(raw)) => Event::Element(Element::parse(&raw)),
            Some(Piece::Header(raw)) => {
                Event::Header(Element::parse(&format!("{raw}</stream:stream>")))
            }
        }
    }

    /// The next thing that arrives, as it came.
    fn piece(&mut self) -> Option<Piece> {
        loop {
            if let Some((piece, size)) = cut(&self.received) {
                self.received.drain(..size);
                return Some(piece);
            }
            let mut chunk = [0; 16 << 10];
            match self.socket.read(&mut chunk) {
                Ok(0) => return None,
                Ok(size) => self.received.extend_from_slice(&chunk[..size]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!(
                    "{}: {error}, after {:?}",
                    self.jid,
                    String::from_utf8_lossy(&self.received)
                ),
            }
        }
    }

    /// The next element.
    pub(crate) fn element(&mut self) -> Element {
        match self.next() {
            Event::Element(element) => element,
            other => panic!("{}: an element was awaited, {other:?} came", self.jid),
        }
    }

    /// The next element as it came, for one that would be too much for the parser.
    pub(crate) fn raw_element(&mut self) -> String {
        match self.piece() {
            Some(Piece::Element(raw)) => raw,
            _ => panic!("{}: an element was awaited", self.jid),
        }
    }

    /// The next element that fits; those before it are gone.
    pub(crate) fn until(&mut self, fits: impl Fn(&Element) -> bool) -> Element {
        loop {
            let element = self.element();
            if fits(&element) {
                return element;
            }
        }
    }

    /// Everything that arrives until the connection ends.
    pub(crate) fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            match self.next() {
                Event::End => return events,
                event => events.push(event),
            }
        }
    }

    /// Awaits a stream error with what belongs to it, and gives its condition.
    pub(crate) fn stream_error(&mut self) -> String {
        let events = self.rest();
        let error = events.iter().find_map(|event| match event {
            Event::Element(element) if element.name == "error" => Some(element),
            _ => None,
        });
        let Some(error) = error else {
            panic!("no stream error came: {events:?}")
        };
        assert_eq!(error.ns, "http://etherx.jabber.org/streams");
        assert_eq!(
            events.last(),
            Some(&Event::Close),
            "the stream was not closed: {events:?}"
        );
        error
            .condition(STREAM_ERRORS)
            .expect("an error has a condition")
            .to_owned()
    }

    /// Sends a request and gives its answer; what came before it is gone.
    pub(crate) fn ask(&mut self, to: &str, type_: &str, payload: &str) -> Element {
        self.marks += 1;
        let id = format!("ask-{}", self.marks);
        let to = match to {
            "" => String::new(),
            to => format!(" to='{to}'"),
        };
        self.send(&format!("<iq type='{type_}' id='{id}'{to}>{payload}</iq>"));
        self.until(|element| element.name == "iq" && element.attr("id") == Some(&id))
    }

    /// Everything that arrived before the server answered all that was sent so far.
    pub(crate) fn settle(&mut self) -> Vec<Element> {
        self.marks += 1;
        let id = format!("settle-{}", self.marks);
        self.send(&format!(
            "<iq type='get' id='{id}' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>"
        ));
        self.before(|element| element.attr("id") == Some(&id))
    }

    /// Everything that `self` got before a message that `sender` sends it now.
    ///
    /// A pair's stanzas keep their order: what was sent before has arrived, or never will.
    pub(crate) fn settle_with(&mut self, sender: &mut Client) -> Vec<Element> {
        sender.marks += 1;
        let id = format!("mark-{}", sender.marks);
        let to = &self.jid;
        sender.send(&format!(
            "<message type='chat' id='{id}' to='{to}'><body/></message>"
        ));
        self.before(|element| element.attr("id") == Some(&id))
    }

    /// Everything that arrived before an answer from where an account is at home, by which all that
    /// was sent to the account so far has been dealt with.
    pub(crate) fn settle_at(&mut self, user: &str) -> Vec<Element> {
        self.marks += 1;
        let id = format!("there-{}", self.marks);
        self.send(&format!(
            "<iq type='get' id='{id}' to='{user}@{DOMAIN}/nowhere'>\
             <ping xmlns='urn:xmpp:ping'/></iq>"
        ));
        self.before(|element| element.attr("id") == Some(&id))
    }

    fn before(&mut self, fits: impl Fn(&Element) -> bool) -> Vec<Element> {
        let mut earlier = Vec::new();
        loop {
            let element = self.element();
            if fits(&element) {
                return earlier;
            }
            earlier.push(element);
        }
    }

    /// Ends the connection by a TCP reset: closing a socket with unread bytes does that.
    pub(crate) fn reset(mut self) {
        self.marks += 1;
        let id = format!("reset-{}", self.marks);
        self.send(&format!(
            "<iq type='get' id='{id}' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>"
        ));
        let mut byte = [0];
        let count = self.socket.peek(&mut byte).expect("the server answers");
        assert_eq!(count, 1, "the connection ended before it was reset");
    }
}

/// A stream header for the domain under test.
pub(crate) fn header() -> String {
    format!(
        "<?xml version='1.0'?><stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    )
}

/// The `<auth/>` of a PLAIN log-in.
pub(crate) fn plain(user: &str, password: &str) -> String {
    auth("PLAIN", format!("\0{user}\0{password}").as_bytes())
}

/// An `<auth/>` with an initial response.
pub(crate) fn auth(mechanism: &str, initial: &[u8]) -> String {
    format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{}</auth>",
        base64(initial)
    )
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let value = |index: usize| u32::from(*group.get(index).unwrap_or(&0));
        let bits = value(0) << 16 | value(1) << 8 | value(2);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            let is_padding = digit > group.len();
            out.push(if is_padding {
                '='
            } else {
                char::from(DIGITS[index as usize])
            });
        }
    }
    out
}
