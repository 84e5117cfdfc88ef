//! XMPP in WebSocket frames (RFC 7395, RFC 6455), as a client speaks it: between the stream that
//! clients write and read, and the bytes of a connection.
//!
//! Like the generator's scanner it shares nothing with the server on purpose.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use memchr::memmem;

use crate::random::Random;
use crate::scan::{self, Piece};

/// Where servers have it, unless they are told otherwise.
pub const PATH: &str = "/xmpp-websocket";

/// A path as the command line has it.
///
/// # Errors
/// What is wrong with it, with the remedy.
pub fn path(path: &str) -> Result<String, String> {
    match path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(path.to_owned()),
        false => Err(format!("takes a path, such as {PATH}")),
    }
}

/// What a server puts behind the key that it answers (RFC 6455 1.3).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// An answer to the request that is longer is none.
const ANSWER_SIZE_MAX: usize = 16 << 10;

/// A frame that is longer is none of what clients here are sent.
const FRAME_SIZE_MAX: usize = 16 << 20;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const RESERVED: u8 = 0x70;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The end of a stream, as the rest of the generator reads it.
const STREAM_END: &[u8] = b"</stream:stream>";

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has been said.
    Fresh,
    /// The request is out.
    Asked,
    /// Frames go both ways.
    Open,
}

/// One connection.
#[derive(Debug)]
pub struct Web {
    state: State,
    key: String,
    /// That of all frames, as no browser has it: what a fresh one for each costs is the
    /// generator's.
    mask: [u8; 4],
    /// The beginning of what has not wholly come.
    tail: Vec<u8>,
    /// Answers that are to be sent.
    answers: Vec<u8>,
}

impl Web {
    /// One that has not begun.
    pub fn new(random: &mut Random) -> Web {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&random.bits().to_le_bytes());
        nonce[8..].copy_from_slice(&random.bits().to_le_bytes());
        Web {
            state: State::Fresh,
            key: BASE64.encode(nonce),
            mask: (random.bits() as u32).to_le_bytes(),
            tail: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Whether it has anything to send beside what its client says.
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Takes what the client says out of `xml` as far as it may be sent by now: appends frames to
    /// `out`, or the request for the connection at `path` first.
    pub fn write(&mut self, path: &str, domain: &str, xml: &mut Vec<u8>, out: &mut Vec<u8>) {
        out.append(&mut self.answers);
        match self.state {
            State::Fresh if !xml.is_empty() => {
                let key = &self.key;
                out.extend_from_slice(
                    format!(
                        "GET {path} HTTP/1.1\r\nHost: {domain}\r\nConnection: Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
                    )
                    .as_bytes(),
                );
                self.state = State::Asked;
            }
            State::Fresh | State::Asked => {}
            State::Open => {
                self.frame_all(domain, xml, out);
                xml.clear();
            }
        }
    }

    /// A frame for each element: RFC 7395 3.3.
    fn frame_all(&self, domain: &str, xml: &[u8], out: &mut Vec<u8>) {
        let mut rest = xml;
        loop {
            let size = match scan::next_piece(rest) {
                Piece::Space(size) => size,
                Piece::Header(size) => {
                    let framing = "urn:ietf:params:xml:ns:xmpp-framing";
                    let open = format!("<open xmlns='{framing}' to='{domain}' version='1.0'/>");
                    self.frame(TEXT, &[open.as_bytes()], out);
                    size
                }
                Piece::End(size) => {
                    let close = b"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";
                    self.frame(TEXT, &[close], out);
                    size
                }
                Piece::Element(size) => {
                    self.frame_element(&rest[..size], out);
                    size
                }
                Piece::Incomplete | Piece::Broken => {
                    debug_assert!(rest.is_empty(), "clients write whole elements");
                    return;
                }
            };
            rest = &rest[size..];
        }
    }

    /// RFC 7395 3.3.3: a stanza names its namespace, since no header does.
    fn frame_element(&self, element: &[u8], out: &mut Vec<u8>) {
        let name = scan::local_name(element);
        let is_stanza = matches!(name, b"message" | b"presence" | b"iq");
        if !is_stanza || scan::attribute(element, b"xmlns").is_some() {
            return self.frame(TEXT, &[element], out);
        }
        let (head, tail) = element.split_at(1 + name.len());
        self.frame(TEXT, &[head, b" xmlns='jabber:client'", tail], out);
    }

    fn frame(&self, kind: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        out.push(FINAL | kind);
        match size {
            0..=125 => out.push(MASKED | size as u8),
            126..=0xffff => {
                out.push(MASKED | 126);
                out.extend_from_slice(&(size as u16).to_be_bytes());
            }
            _ => {
                out.push(MASKED | 127);
                out.extend_from_slice(&(size as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&self.mask);
        let start = out.len();
        for part in parts {
            out.extend_from_slice(part);
        }
        for (index, byte) in out[start..].iter_mut().enumerate() {
            *byte ^= self.mask[index & 3];
        }
    }

    /// Takes what came: appends what servers say to `xml`, as a stream would have it. Says whether
    /// more may come.
    ///
    /// # Errors
    /// What is no WebSocket.
    pub fn read(&mut self, bytes: &[u8], xml: &mut Vec<u8>) -> Result<bool, String> {
        let mut held = std::mem::take(&mut self.tail);
        if held.is_empty() {
            let (used, goes_on) = self.digest(bytes, xml)?;
            self.tail.extend_from_slice(&bytes[used..]);
            return Ok(goes_on);
        }
        held.extend_from_slice(bytes);
        let (used, goes_on) = self.digest(&held, xml)?;
        held.drain(..used);
        if !held.is_empty() {
            self.tail = held;
        }
        Ok(goes_on)
    }

    /// How many of the bytes mean something by now.
    fn digest(&mut self, bytes: &[u8], xml: &mut Vec<u8>) -> Result<(usize, bool), String> {
        let mut used = 0;
        if self.state != State::Open {
            let Some(size) = self.read_answer(bytes)? else {
                return Ok((0, true));
            };
            used = size;
            self.state = State::Open;
        }
        while let Some(frame) = Frame::read(&bytes[used..])? {
            let size = frame.size;
            let goes_on = self.on_frame(&frame, xml)?;
            used += size;
            if !goes_on {
                return Ok((bytes.len(), false));
            }
        }
        Ok((used, true))
    }

    /// The size of the answer to the request, when it is there.
    fn read_answer(&self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            return match bytes.len() > ANSWER_SIZE_MAX {
                true => Err("an answer without an end instead of a WebSocket".to_owned()),
                false => Ok(None),
            };
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            return Err(format!("no WebSocket: the server says {status:?}"));
        }
        let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
        let is = |name: &str, value: &str| {
            let mut fields = fields.iter();
            fields.any(|(n, v)| n.eq_ignore_ascii_case(name) && v.trim() == value)
        };
        let key = format!("{}{KEY_SUFFIX}", self.key);
        let accepted = BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes()));
        if !is("sec-websocket-accept", &accepted) || !is("sec-websocket-protocol", "xmpp") {
            return Err("the server opens another WebSocket than one of XMPP".to_owned());
        }
        Ok(Some(end + 4))
    }

    fn on_frame(&mut self, frame: &Frame<'_>, xml: &mut Vec<u8>) -> Result<bool, String> {
        match frame.kind {
            TEXT if frame.payload.starts_with(b"<open") => {}
            TEXT if frame.payload.starts_with(b"<close") => xml.extend_from_slice(STREAM_END),
            TEXT | CONTINUATION => xml.extend_from_slice(frame.payload),
            PING => {
                let mut answers = std::mem::take(&mut self.answers);
                self.frame(PONG, &[frame.payload], &mut answers);
                self.answers = answers;
            }
            PONG => {}
            CLOSE => return Ok(false),
            kind => return Err(format!("a WebSocket frame of kind {kind}")),
        }
        Ok(true)
    }
}

/// A frame of a server.
struct Frame<'a> {
    kind: u8,
    payload: &'a [u8],
    /// With its head.
    size: usize,
}

impl<'a> Frame<'a> {
    /// The frame at the front, if it is there.
    fn read(bytes: &'a [u8]) -> Result<Option<Frame<'a>>, String> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & RESERVED != 0 || second & MASKED != 0 {
            return Err("a WebSocket frame that no server may send".to_owned());
        }
        let (head, size) = match second {
            126 => match rest.first_chunk() {
                Some(size) => (4, usize::from(u16::from_be_bytes(*size))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(size) => (10, u64::from_be_bytes(*size) as usize),
                None => return Ok(None),
            },
            size => (2, usize::from(size)),
        };
        if size > FRAME_SIZE_MAX {
            return Err(format!("a WebSocket frame of {size} bytes"));
        }
        let payload = bytes[head..].get(..size);
        Ok(payload.map(|payload| Frame {
            kind: first & !(FINAL | RESERVED),
            payload,
            size: head + size,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"<?xml version='1.0'?><stream:stream to='d' version='1.0' \
                            xmlns='jabber:client' xmlns:stream='s'>";

    fn answer(web: &Web) -> Vec<u8> {
        let key = format!("{}{KEY_SUFFIX}", web.key);
        let accepted = BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes()));
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {accepted}\r\n\
             Sec-WebSocket-Protocol: xmpp\r\n\r\n"
        )
        .into_bytes()
    }

    /// One that has been answered, and what it said then.
    fn open() -> (Web, Vec<u8>) {
        let mut web = Web::new(&mut Random::new(1));
        let (mut xml, mut out) = (HEADER.to_vec(), Vec::new());
        web.write(PATH, "d", &mut xml, &mut out);
        assert!(out.starts_with(b"GET /xmpp-websocket HTTP/1.1\r\nHost: d\r\n"));
        assert_eq!(xml, HEADER, "nothing is said before the answer");
        let answer = answer(&web);
        let mut said = Vec::new();
        for byte in &answer {
            assert_eq!(web.read(&[*byte], &mut said), Ok(true));
        }
        assert!(said.is_empty());
        out.clear();
        web.write(PATH, "d", &mut xml, &mut out);
        assert!(xml.is_empty());
        (web, out)
    }

    fn unmasked(mut bytes: &[u8]) -> Vec<(u8, String)> {
        let mut frames = Vec::new();
        while let [first, second, rest @ ..] = bytes {
            assert!(second & MASKED != 0, "a client masks");
            let (head, size) = match second & !MASKED {
                126 => (2, usize::from(u16::from_be_bytes([rest[0], rest[1]]))),
                127 => (8, u64::from_be_bytes(*rest.first_chunk().unwrap()) as usize),
                size => (0, usize::from(size)),
            };
            let (mask, rest) = rest[head..].split_at(4);
            let (payload, rest) = rest.split_at(size);
            let plain = payload.iter().enumerate();
            let plain = plain.map(|(at, byte)| byte ^ mask[at % 4]).collect();
            frames.push((first & !FINAL, String::from_utf8(plain).unwrap()));
            bytes = rest;
        }
        frames
    }

    #[test]
    fn each_element_has_a_frame_of_its_own_and_says_its_namespace() {
        let (mut web, out) = open();
        let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='d' version='1.0'/>";
        assert_eq!(unmasked(&out), [(TEXT, open.to_owned())]);
        let long = "x".repeat(70_000);
        let mut xml = format!(
            "<presence/><iq xmlns='jabber:client' id='a'/><r xmlns='urn:xmpp:sm:3'/>\
             <message to='a'><body>{long}</body></message></stream:stream>"
        )
        .into_bytes();
        let mut out = Vec::new();
        web.write(PATH, "d", &mut xml, &mut out);
        let frames = unmasked(&out);
        let texts: Vec<&str> = frames.iter().map(|(_, text)| &**text).collect();
        assert_eq!(texts[0], "<presence xmlns='jabber:client'/>");
        assert_eq!(texts[1], "<iq xmlns='jabber:client' id='a'/>");
        assert_eq!(texts[2], "<r xmlns='urn:xmpp:sm:3'/>");
        let message = "<message xmlns='jabber:client' to='a'><body>xxx";
        assert!(texts[3].starts_with(message) && texts[3].len() > 70_000);
        assert!(texts[4].starts_with("<close xmlns="));
    }

    #[test]
    fn what_comes_is_a_stream_however_it_is_cut() {
        let (web, _) = open();
        let frame = |kind: u8, text: &str| {
            let mut bytes = vec![FINAL | kind];
            match text.len() {
                0..=125 => bytes.push(text.len() as u8),
                size => {
                    bytes.push(126);
                    bytes.extend_from_slice(&(size as u16).to_be_bytes());
                }
            }
            bytes.extend_from_slice(text.as_bytes());
            bytes
        };
        let long = format!("<message>{}</message>", "y".repeat(300));
        let said = [
            frame(TEXT, "<open xmlns='f' from='d'/>"),
            frame(TEXT, "<features/>"),
            frame(PING, "there?"),
            frame(TEXT, &long),
            frame(TEXT, "<close xmlns='f'/>"),
            frame(CLOSE, ""),
        ]
        .concat();
        for cut in 0..said.len() {
            let mut web = Web {
                key: web.key.clone(),
                tail: Vec::new(),
                answers: Vec::new(),
                ..web
            };
            let mut xml = Vec::new();
            assert_eq!(web.read(&said[..cut], &mut xml), Ok(true), "cut at {cut}");
            assert_eq!(web.read(&said[cut..], &mut xml), Ok(false), "cut at {cut}");
            let all = format!("<features/>{long}</stream:stream>");
            assert_eq!(String::from_utf8(xml).unwrap(), all, "cut at {cut}");
            let mut out = Vec::new();
            assert!(web.has_answers());
            web.write(PATH, "d", &mut Vec::new(), &mut out);
            assert_eq!(unmasked(&out), [(PONG, "there?".to_owned())]);
        }
    }

    #[test]
    fn a_path_is_one_that_a_request_can_have() {
        assert_eq!(path("/ws?x=1"), Ok("/ws?x=1".to_owned()));
        for bad in ["", "ws", "/a b", "/a\r\nb", "/\u{e9}"] {
            assert!(path(bad).unwrap_err().contains(PATH), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_websocket_of_xmpp_is_refused() {
        let asked = || {
            let mut web = Web::new(&mut Random::new(1));
            web.write(PATH, "d", &mut HEADER.to_vec(), &mut Vec::new());
            web
        };
        let refusal = |answer: &[u8]| asked().read(answer, &mut Vec::new()).unwrap_err();
        let gone = refusal(b"HTTP/1.1 404 Not Found\r\n\r\n");
        assert!(gone.contains("404"), "{gone}");
        let other = refusal(b"HTTP/1.1 101 X\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n");
        assert!(other.contains("another"), "{other}");
        let endless = refusal(&vec![b'x'; ANSWER_SIZE_MAX + 1]);
        assert!(endless.contains("without an end"), "{endless}");
        let (mut web, _) = open();
        let endless = [&[FINAL | TEXT, 127][..], &[0xff; 8]].concat();
        assert!(web.read(&endless, &mut Vec::new()).is_err());
        let (mut web, _) = open();
        assert!(
            web.read(&[FINAL | TEXT, MASKED | 1], &mut Vec::new())
                .is_err()
        );
    }
}
