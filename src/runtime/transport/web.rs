//! A connection of the web: a request of HTTP at first, then the messages of one stream; or one
//! request after the other, each with a body of a session (XEP-0124).
//!
//! Invariant: behind the frame that closes nothing is written, and nothing is read behind the one
//! of the client. What waits here to be written goes before what the stream says.

use super::http::bodies::BodyRequest;
use super::http::files::FileRequest;
use super::http::{self, Answer, Site};
use super::transfer::Transfer;
use super::websocket::{self, Code, Event, Reader};
use stanza::framing;
use std::borrow::Cow;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use xmpp::{Timestamp, TlsFacts};

/// Bytes that a body may have beyond those that an element may have.
const BODY_SLACK: usize = 4 << 10;
/// Bytes of the next request that may come before the last one is answered.
const AHEAD_SIZE_MAX: usize = http::HEAD_SIZE_MAX;
/// How long after an answer the next request may take to be there, in milliseconds. Longer than
/// proxies keep connections, so that they end what they might use at the same time.
pub const IDLE_MS_MAX: u64 = 90_000;
/// What a client is told that waits for it (RFC 9110 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a connection has come to.
#[derive(Debug)]
enum Stage {
    /// A request is awaited, or its end.
    Request(Request),
    /// Messages flow.
    Messages(Reader),
    /// A file comes or goes.
    Transfer(Transfer),
    /// A body of a session comes, or is to be answered.
    Body(Box<Exchange>),
    /// Nothing is read any more.
    Over,
}

/// A request that is not whole.
#[derive(Debug)]
struct Request {
    site: Arc<Site>,
    head: Vec<u8>,
    /// What TLS said, where there is TLS.
    facts: Option<TlsFacts>,
}

/// A request with a body that is not answered.
#[derive(Debug)]
struct Exchange {
    asked: BodyRequest,
    /// What has come of the body, until all of it is handed on.
    body: Vec<u8>,
    is_whole: bool,
    /// The next request, which has not begun.
    next: Request,
}

/// A body that has come.
#[derive(Debug, PartialEq, Eq)]
pub struct Posted {
    /// The body.
    pub body: Vec<u8>,
    /// Where the client is.
    pub peer: IpAddr,
    /// Whether it comes by TLS.
    pub is_secured: bool,
}

/// Bytes that may come at once.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// In a message of WebSocket: an element of whoever speaks.
    pub message: usize,
    /// In an element of a body; who speaks is not known where it comes.
    pub body: usize,
}

/// What the next bytes of a client have come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// All are used.
    Used,
    /// A body of a session is there; there may be more bytes.
    Posted(Posted),
    /// A stream begins, of a client that is there; there may be more bytes.
    Upgraded(Option<TlsFacts>, IpAddr),
    /// A file is asked for, or to be taken; there may be more bytes.
    Asked(Box<FileRequest>),
    /// A piece of it; there may be more bytes.
    Chunk(Vec<u8>),
    /// A message is too big: the stream has to end.
    TooBig,
    /// The client has closed in order.
    Closed,
    /// The connection is of no more use once its last words are written.
    Spent,
}

/// One connection's state beside that of TLS and of its stream.
#[derive(Debug)]
pub struct Web {
    stage: Stage,
    /// To be written as it is, before anything else.
    first: Vec<u8>,
    /// Behind that, the answer to the last ping.
    pong: Vec<u8>,
    /// What the stream's end is told as; `None` once it is.
    code: Option<Code>,
    /// Where it has carried bodies, what is known of them.
    bodies: Option<Box<Bodies>>,
}

/// What a connection knows of the bodies that it has carried.
#[derive(Debug, Default)]
struct Bodies {
    /// The session that is asked and has not answered.
    asks: Option<Box<str>>,
    /// What came of the next request meanwhile.
    ahead: Vec<u8>,
    /// When the last one was answered.
    answered: Timestamp,
}

impl Web {
    /// Awaits a request.
    pub fn new(site: &Arc<Site>) -> Web {
        Web {
            stage: Stage::Request(Request {
                site: site.clone(),
                head: Vec::new(),
                facts: None,
            }),
            first: Vec::new(),
            pong: Vec::new(),
            code: None,
            bodies: None,
        }
    }

    /// Its TLS handshake is done.
    pub fn on_secured(&mut self, facts: TlsFacts) {
        if let Stage::Request(request) = &mut self.stage {
            request.facts = Some(facts);
        }
    }

    /// Reads on and takes what it has used off the front of `bytes`; what is said goes to `stream`.
    /// `peer` is where the bytes come from.
    pub fn read(
        &mut self,
        bytes: &mut &[u8],
        peer: IpAddr,
        sizes: Sizes,
        stream: &mut Vec<u8>,
    ) -> Step {
        match &mut self.stage {
            Stage::Over => {
                *bytes = &[];
                Step::Used
            }
            Stage::Request(_) => self.read_request(bytes, peer, sizes),
            Stage::Transfer(transfer) => transfer.take(bytes).map_or(Step::Used, Step::Chunk),
            Stage::Body(_) => self.read_body(bytes),
            Stage::Messages(reader) => {
                let step = loop {
                    match reader.next(bytes, sizes.message) {
                        Event::Nothing => break Step::Used,
                        Event::Message(message) => framing::unframe(message, stream),
                        Event::TooBig => {
                            self.code = Some(Code::TOO_BIG);
                            break Step::TooBig;
                        }
                        Event::Closed(code) => {
                            self.code = Some(code);
                            break match code {
                                Code::PROTOCOL_ERROR | Code::UNACCEPTABLE | Code::INCONSISTENT => {
                                    Step::Spent
                                }
                                _ => Step::Closed,
                            };
                        }
                    }
                };
                if let Some(ping) = reader.take_ping() {
                    // RFC 6455 5.5.3: of those that wait only the last is answered.
                    self.pong.clear();
                    websocket::write_pong(&ping, &mut self.pong);
                }
                if step != Step::Used {
                    self.stage = Stage::Over;
                }
                step
            }
        }
    }

    fn read_request(&mut self, bytes: &mut &[u8], peer: IpAddr, sizes: Sizes) -> Step {
        let Stage::Request(request) = &mut self.stage else {
            return Step::Used;
        };
        let before = request.head.len();
        if before == 0 {
            // RFC 9112 2.2: empty lines in front count for nothing, and each would be a line.
            let is_break = |byte: &&u8| matches!(byte, b'\r' | b'\n');
            let start = bytes.iter().take_while(is_break).count();
            *bytes = &bytes[start..];
            if bytes.is_empty() {
                return Step::Used;
            }
        }
        // One byte more than there may be tells that there are too many.
        let room = (http::HEAD_SIZE_MAX + 1).saturating_sub(before);
        request
            .head
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        // It is read at the end of a line only, which are few: its pieces may be bytes.
        let is_line = before == 0 || request.head[before..].contains(&b'\n');
        if !is_line && request.head.len() < http::HEAD_SIZE_MAX {
            *bytes = &[];
            return Step::Used;
        }
        let is_tls = request.facts.is_some();
        match http::answer(&request.head, &request.site, peer, is_tls) {
            Answer::Body(asked) if asked.size > sizes.body + BODY_SLACK => {
                self.end_by(asked.reply.refuse("413 Content Too Large"), bytes)
            }
            Answer::Body(asked) => {
                *bytes = &bytes[asked.head_size - before..];
                let next = Request {
                    site: request.site.clone(),
                    head: Vec::new(),
                    facts: request.facts.take(),
                };
                self.await_body(*asked, next, bytes)
            }
            Answer::Incomplete => {
                *bytes = &[];
                Step::Used
            }
            Answer::Page(page) => self.end_by(page, bytes),
            Answer::File(request) => {
                *bytes = &bytes[request.head_size - before..];
                let transfer = Transfer::new(request.ask.size(), request.expects);
                self.stage = Stage::Transfer(transfer);
                Step::Asked(request)
            }
            Answer::Upgrade(upgrade) => {
                *bytes = &bytes[upgrade.head_size - before..];
                let facts = match upgrade.is_proxied {
                    true => upgrade.is_secured.then(TlsFacts::default),
                    false => request.facts.take(),
                };
                self.say(upgrade.response);
                self.code = Some(Code::NORMAL);
                self.bodies = None;
                self.stage = Stage::Messages(Reader::default());
                Step::Upgraded(facts, upgrade.peer)
            }
        }
    }

    /// Says a last word.
    fn end_by(&mut self, page: Vec<u8>, bytes: &mut &[u8]) -> Step {
        *bytes = &[];
        self.say(page);
        self.stage = Stage::Over;
        Step::Spent
    }

    /// A body comes; the request behind it is `next`.
    fn await_body(&mut self, asked: BodyRequest, next: Request, bytes: &mut &[u8]) -> Step {
        if asked.expects && bytes.is_empty() {
            self.first.extend_from_slice(CONTINUE);
        }
        self.stage = Stage::Body(Box::new(Exchange {
            asked,
            body: Vec::new(),
            is_whole: false,
            next,
        }));
        self.read_body(bytes)
    }

    /// Reads on in a body. What stands behind it waits until it is answered, as far as it may.
    fn read_body(&mut self, bytes: &mut &[u8]) -> Step {
        let Stage::Body(exchange) = &mut self.stage else {
            return Step::Used;
        };
        let bodies = self.bodies.get_or_insert_default();
        if exchange.is_whole {
            if bodies.ahead.len() + bytes.len() > AHEAD_SIZE_MAX {
                self.stage = Stage::Over;
                return Step::Spent;
            }
            bodies.ahead.extend_from_slice(bytes);
            *bytes = &[];
            return Step::Used;
        }
        let left = exchange.asked.size - exchange.body.len();
        let (taken, rest) = bytes.split_at(left.min(bytes.len()));
        exchange.body.extend_from_slice(taken);
        *bytes = rest;
        if exchange.body.len() < exchange.asked.size {
            return Step::Used;
        }
        exchange.is_whole = true;
        Step::Posted(Posted {
            body: mem::take(&mut exchange.body),
            peer: exchange.asked.peer,
            is_secured: exchange.asked.is_secured,
        })
    }

    /// Whether it has carried bodies: there is no stream then.
    pub fn has_bodies(&self) -> bool {
        self.bodies.is_some()
    }

    /// It asks that session.
    pub fn asks(&mut self, sid: &str) {
        if let Some(bodies) = &mut self.bodies {
            bodies.asks = Some(sid.into());
        }
    }

    /// The session that waits for it to take an answer: it is lost.
    pub fn asked(&mut self) -> Option<Box<str>> {
        self.bodies.as_mut()?.asks.take()
    }

    /// Answers the body that waits for that; whether the connection is kept. `ends` where it is
    /// not, whatever its client wants.
    pub fn reply(&mut self, content: &str, body: &[u8], ends: bool, now: Timestamp) -> bool {
        if !matches!(&self.stage, Stage::Body(exchange) if exchange.is_whole) {
            return true;
        }
        let Stage::Body(mut exchange) = mem::replace(&mut self.stage, Stage::Over) else {
            return true;
        };
        let reply = &mut exchange.asked.reply;
        reply.keeps &= !ends;
        let answer = reply.write(content, body);
        let keeps = reply.keeps;
        self.say(answer);
        if let Some(bodies) = &mut self.bodies {
            (bodies.asks, bodies.answered) = (None, now);
        }
        if keeps {
            self.stage = Stage::Request(exchange.next);
        }
        keeps
    }

    /// What is to be read now that `bytes` have come: what came of the next request meanwhile
    /// stands in front of them.
    pub fn join<'b>(&mut self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        match (&self.stage, &mut self.bodies) {
            (Stage::Request(_), Some(bodies)) if !bodies.ahead.is_empty() => {
                let mut ahead = mem::take(&mut bodies.ahead);
                ahead.extend_from_slice(bytes);
                ahead.into()
            }
            _ => bytes.into(),
        }
    }

    /// Whether it awaits a request behind one that was answered, or the rest of it.
    pub fn is_spare(&self) -> bool {
        match &self.stage {
            Stage::Request(_) => self.has_bodies(),
            Stage::Body(exchange) => !exchange.is_whole,
            _ => false,
        }
    }

    /// When its next request is late, or when that is to be asked again; `None` where it carries
    /// no bodies any more.
    pub fn late_at(&self, now: Timestamp) -> Option<Timestamp> {
        let bodies = self.bodies.as_ref()?;
        match &self.stage {
            Stage::Body(exchange) if exchange.is_whole => Some(now.plus_ms(IDLE_MS_MAX)),
            Stage::Body(_) | Stage::Request(_) => Some(bodies.answered.plus_ms(IDLE_MS_MAX)),
            _ => None,
        }
    }

    /// See [`Reader::lend`].
    pub fn lend(&mut self, buffer: &mut Vec<u8>) {
        if let Stage::Messages(reader) = &mut self.stage {
            reader.lend(buffer);
        }
    }

    /// See [`Reader::take_back`].
    pub fn take_back(&mut self, buffer: &mut Vec<u8>) {
        if let Stage::Messages(reader) = &mut self.stage {
            reader.take_back(buffer);
        }
    }

    /// Bytes that are held until more come.
    pub fn held(&self) -> usize {
        match &self.stage {
            Stage::Request(request) => request.head.len() + self.ahead(),
            Stage::Messages(reader) => reader.held(),
            // How much that is does not depend on who sends it.
            Stage::Body(exchange) => exchange.body.len() + self.ahead(),
            Stage::Transfer(_) | Stage::Over => 0,
        }
    }

    fn ahead(&self) -> usize {
        self.bodies.as_ref().map_or(0, |bodies| bodies.ahead.len())
    }

    /// Forgets those; nothing is read any more.
    pub fn give_up(&mut self) {
        match &mut self.stage {
            Stage::Transfer(transfer) => transfer.stop(),
            stage => *stage = Stage::Over,
        }
    }

    /// The file that comes or goes.
    pub fn transfer(&mut self) -> Option<&mut Transfer> {
        match &mut self.stage {
            Stage::Transfer(transfer) => Some(transfer),
            _ => None,
        }
    }

    /// Has this written as it is, behind what waits to be.
    pub fn say(&mut self, mut bytes: Vec<u8>) {
        match self.first.is_empty() {
            true => self.first = bytes,
            false => self.first.append(&mut bytes),
        }
    }

    /// Bytes that wait to be written.
    pub fn waiting(&self) -> usize {
        self.first.len() + self.pong.len()
    }

    /// Whether the end is still to be told.
    pub fn owes_close(&self) -> bool {
        self.code.is_some()
    }

    /// Appends what is to be written of what the stream says; `ends` where that is its last.
    pub fn write(&mut self, stream: &[u8], ends: bool, out: &mut Vec<u8>) {
        out.append(&mut mem::take(&mut self.first));
        out.append(&mut mem::take(&mut self.pong));
        let Some(code) = self.code else {
            debug_assert!(stream.is_empty(), "no stream is there");
            return;
        };
        framing::frame(stream, |pieces| websocket::write_text(&pieces, out));
        if ends {
            websocket::write_close(code, out);
            self.code = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /xmpp-websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n";

    /// `<a/>`, a ping, and a close, with masks that change nothing.
    const FRAMES: &[u8] = b"\x81\x84\0\0\0\0<a/>\x89\x81\0\0\0\0!\x88\x82\0\0\0\0\x03\xe9";

    fn peer() -> IpAddr {
        [192, 0, 2, 1].into()
    }

    const SIZES: Sizes = Sizes {
        message: 100,
        body: 1_000,
    };

    /// All steps but [`Step::Used`] that pieces of so many bytes lead to, and what is said.
    fn read(web: &mut Web, bytes: &[u8], size: usize) -> (Vec<Step>, String) {
        let (mut steps, mut stream, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
        for mut piece in bytes.chunks(size) {
            web.lend(&mut buffer);
            while !piece.is_empty() {
                match web.read(&mut piece, peer(), SIZES, &mut stream) {
                    Step::Used => {}
                    step => steps.push(step),
                }
            }
            web.take_back(&mut buffer);
        }
        (steps, String::from_utf8(stream).expect("UTF-8"))
    }

    #[test]
    fn a_request_and_what_stands_behind_it_may_come_in_any_pieces() {
        let all = [REQUEST.as_bytes(), FRAMES].concat();
        for size in (1..50).chain([all.len()]) {
            let mut web = Web::new(&Arc::default());
            let (steps, said) = read(&mut web, &all, size);
            assert_eq!(steps, [Step::Upgraded(None, peer()), Step::Closed]);
            assert_eq!((&*said, web.held()), ("<a/>", 0));
            let mut out = Vec::new();
            web.write(b"<b/></stream:stream>", true, &mut out);
            let text = String::from_utf8_lossy(&out);
            assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
            // The pong, two messages, and the client's own code.
            let (_, frames) = text.split_once("\r\n\r\n").expect("frames");
            assert!(
                frames.starts_with("\u{fffd}\u{1}!\u{fffd}\u{1a}<b xmlns="),
                "{frames:?}"
            );
            assert!(
                out.ends_with(&[0x88, 2, 3, 0xe9]) && !web.owes_close(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_page_is_the_end() {
        let mut web = Web::new(&Arc::default());
        let (steps, said) = read(&mut web, b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /", 7);
        assert_eq!((steps, &*said), (vec![Step::Spent], ""));
        assert!(web.waiting() > 0 && !web.owes_close());
    }

    #[test]
    fn a_head_without_an_end_is_refused_where_it_is_too_long() {
        let mut web = Web::new(&Arc::default());
        let (steps, _) = read(&mut web, &[b'a'; http::HEAD_SIZE_MAX - 1], 1000);
        assert_eq!((steps.len(), web.held()), (0, http::HEAD_SIZE_MAX - 1));
        assert_eq!(read(&mut web, b"a", 1).0, [Step::Spent]);
    }

    #[test]
    fn a_head_in_pieces_is_read_at_the_end_of_a_line() {
        let mut web = Web::new(&Arc::default());
        assert!(read(&mut web, b"\r\nGET / HTTP/1.1\r\na", 99).0.is_empty());
        let space = read(&mut web, b" b", 1).0;
        assert!(space.is_empty(), "no name of a header has a space");
        assert_eq!(read(&mut web, b"\n", 1).0, [Step::Spent]);
    }

    #[test]
    fn a_message_that_is_too_big_is_told_to_the_stream() {
        let mut web = Web::new(&Arc::default());
        read(&mut web, REQUEST.as_bytes(), 999);
        let (steps, said) = read(&mut web, &[0x81, 0x80 | 101, 0, 0, 0, 0, b'<', b'a'], 999);
        assert_eq!((steps, &*said), (vec![Step::TooBig], ""));
        let mut out = Vec::new();
        web.write(b"", true, &mut out);
        assert!(out.ends_with(&[0x88, 2, 3, 0xf1]));
    }

    const POST: &str = "POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";

    #[test]
    fn bodies_come_one_behind_the_answer_to_the_other_in_any_pieces() {
        let all = [POST, "<a/>", POST, "<b/>"].concat();
        for size in (1..80).chain([all.len()]) {
            let mut web = Web::new(&Arc::default());
            let posted = |body: &str| {
                vec![Step::Posted(Posted {
                    body: body.into(),
                    peer: peer(),
                    is_secured: false,
                })]
            };
            assert_eq!(read(&mut web, all.as_bytes(), size).0, posted("<a/>"));
            assert_eq!(web.held(), POST.len() + 4, "what waits is counted");
            assert!(web.join(b"").is_empty() && web.has_bodies());
            assert!(web.reply("text/xml", b"<c/>", false, Timestamp(7)));
            let ahead = web.join(b"");
            assert_eq!(read(&mut web, &ahead, size).0, posted("<b/>"));
            assert!(!web.reply("text/xml", b"<d/>", true, Timestamp(8)));
            let mut out = Vec::new();
            web.write(b"", false, &mut out);
            let text = String::from_utf8(out).expect("text");
            let place = |what: &str| text.find(what).expect("both answers are there");
            assert!(place("<c/>") < place("<d/>"), "{text}");
            assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2);
        }
    }

    #[test]
    fn a_request_that_came_ahead_in_part_is_read_in_its_order() {
        let first = [POST, "<a/>"].concat();
        let second = [POST, "<b/>"].concat();
        for size in 1..second.len() {
            let mut web = Web::new(&Arc::default());
            let (ahead, rest) = second.split_at(size);
            read(&mut web, [&first, ahead].concat().as_bytes(), 999);
            web.reply("a", b"", false, Timestamp(7));
            let all = web.join(rest.as_bytes());
            let (steps, _) = read(&mut web, &all, 999);
            let is_whole = matches!(&steps[..], [Step::Posted(posted)] if posted.body == b"<b/>");
            assert!(is_whole, "{size}: {steps:?}");
        }
    }

    #[test]
    fn little_of_the_next_request_may_come_before_an_answer() {
        let mut web = Web::new(&Arc::default());
        let first = [POST, "<a/>"].concat();
        assert_eq!(read(&mut web, first.as_bytes(), 999).0.len(), 1);
        let much = vec![b'x'; AHEAD_SIZE_MAX];
        assert!(read(&mut web, &much, 999).0.is_empty());
        assert_eq!(read(&mut web, b"x", 1).0, [Step::Spent]);
    }

    #[test]
    fn a_body_that_is_too_large_is_refused_before_it_comes() {
        let large = POST.replace("h: 4", "h: 10000");
        let mut web = Web::new(&Arc::default());
        assert_eq!(read(&mut web, large.as_bytes(), 999).0, [Step::Spent]);
        let mut out = Vec::new();
        web.write(b"", false, &mut out);
        assert!(out.starts_with(b"HTTP/1.1 413 "));
    }

    #[test]
    fn a_connection_that_has_no_next_request_is_late() {
        let mut web = Web::new(&Arc::default());
        assert_eq!(web.late_at(Timestamp(5)), None);
        let first = [POST, "<a/>"].concat();
        read(&mut web, first.as_bytes(), 999);
        let idle = |at: u64| Some(Timestamp(at).plus_ms(IDLE_MS_MAX));
        assert_eq!(
            web.late_at(Timestamp(5)),
            idle(5),
            "its answer may take long"
        );
        assert!(!web.is_spare());
        web.reply("a", b"", false, Timestamp(7));
        assert_eq!(web.late_at(Timestamp(9)), idle(7));
        assert!(web.is_spare());
        read(&mut web, POST.as_bytes(), 999);
        assert_eq!(web.late_at(Timestamp(9)), idle(7), "half of one is none");
    }

    #[test]
    fn a_connection_that_carried_bodies_may_become_a_websocket() {
        let mut web = Web::new(&Arc::default());
        read(&mut web, [POST, "<a/>"].concat().as_bytes(), 999);
        web.reply("a", b"", false, Timestamp(7));
        let (steps, _) = read(&mut web, REQUEST.as_bytes(), 999);
        assert_eq!(steps, [Step::Upgraded(None, peer())]);
        assert!(!web.has_bodies() && web.late_at(Timestamp(9)).is_none());
    }
}
