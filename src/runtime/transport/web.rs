//! A connection of the web: a request of HTTP at first, then the messages of one stream.
//!
//! Invariant: behind the frame that closes nothing is written, and nothing is read behind the one
//! of the client. What waits here to be written goes before what the stream says.

use super::http::files::FileRequest;
use super::http::{self, Answer, Site};
use super::transfer::Transfer;
use super::websocket::{self, Code, Event, Reader};
use stanza::framing;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use xmpp::TlsFacts;

/// What a connection has come to.
#[derive(Debug)]
enum Stage {
    /// A request is awaited, or its end.
    Request(Request),
    /// Messages flow.
    Messages(Reader),
    /// A file comes or goes.
    Transfer(Transfer),
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

/// What the next bytes of a client have come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// All are used.
    Used,
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
        }
    }

    /// Its TLS handshake is done.
    pub fn on_secured(&mut self, facts: TlsFacts) {
        if let Stage::Request(request) = &mut self.stage {
            request.facts = Some(facts);
        }
    }

    /// Reads on and takes what it has used off the front of `bytes`; what is said goes to `stream`.
    /// `peer` is where the bytes come from, and a message may have `size_max` of them.
    pub fn read(
        &mut self,
        bytes: &mut &[u8],
        peer: IpAddr,
        size_max: usize,
        stream: &mut Vec<u8>,
    ) -> Step {
        match &mut self.stage {
            Stage::Over => {
                *bytes = &[];
                Step::Used
            }
            Stage::Request(_) => self.read_request(bytes, peer),
            Stage::Transfer(transfer) => transfer.take(bytes).map_or(Step::Used, Step::Chunk),
            Stage::Messages(reader) => {
                let step = loop {
                    match reader.next(bytes, size_max) {
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

    fn read_request(&mut self, bytes: &mut &[u8], peer: IpAddr) -> Step {
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
            Answer::Incomplete => {
                *bytes = &[];
                Step::Used
            }
            Answer::Page(page) => {
                *bytes = &[];
                self.first = page;
                self.stage = Stage::Over;
                Step::Spent
            }
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
                self.first = upgrade.response;
                self.code = Some(Code::NORMAL);
                self.stage = Stage::Messages(Reader::default());
                Step::Upgraded(facts, upgrade.peer)
            }
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
            Stage::Request(request) => request.head.len(),
            Stage::Messages(reader) => reader.held(),
            // How much that is does not depend on who sends it.
            Stage::Transfer(_) | Stage::Over => 0,
        }
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

    /// All steps but [`Step::Used`] that pieces of so many bytes lead to, and what is said.
    fn read(web: &mut Web, bytes: &[u8], size: usize) -> (Vec<Step>, String) {
        let (mut steps, mut stream, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
        for mut piece in bytes.chunks(size) {
            web.lend(&mut buffer);
            while !piece.is_empty() {
                match web.read(&mut piece, peer(), 100, &mut stream) {
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
}
