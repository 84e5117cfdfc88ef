//! Requests of BOSH (XEP-0124): the heads of what comes, and of what it is answered with.
//!
//! Invariant: no text of a client stands in the head of an answer but a type of content that has
//! no line breaks, and an origin that the operator named.

use super::{Answer, Asked, page, refusal, refuse, values};
use std::net::IpAddr;

/// Where BOSH is.
pub const BOSH_PATH: &str = "/http-bind";

/// What a page of another site may send (Fetch 3.2).
const PREFLIGHT: &str = "Access-Control-Allow-Methods: POST, OPTIONS\r\n\
                         Access-Control-Allow-Headers: Content-Type\r\n\
                         Access-Control-Max-Age: 86400\r\n";
/// How an answer is kept from being a page of ours: clients choose the type of its content.
const HARMLESS: &str = "X-Content-Type-Options: nosniff\r\n\
                        Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; \
                        sandbox\r\nCache-Control: no-store\r\n";
/// What is told to who looks what is there.
const SENTENCE: &str = "Clients of XMPP speak BOSH (XEP-0124) here, by POST.\n";

/// A request whose body is a session's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyRequest {
    /// Bytes of the request's head.
    pub head_size: usize,
    /// Bytes of its body.
    pub size: usize,
    /// Where the client is.
    pub peer: IpAddr,
    /// Whether the client comes by TLS, if need be by a proxy's word.
    pub is_secured: bool,
    /// Whether it waits to be told to go on (RFC 9110 10.1.1).
    pub expects: bool,
    /// How it is answered.
    pub reply: Reply,
}

/// How a request is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Whether the connection is kept for another request.
    pub keeps: bool,
    /// The page that may read the answer, where not all may.
    origin: Option<Box<str>>,
}

impl Reply {
    /// Header lines that let a page read it.
    fn shared(&self) -> String {
        match &self.origin {
            None => "Access-Control-Allow-Origin: *\r\n".to_owned(),
            Some(origin) => format!("Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n"),
        }
    }

    /// The answer with this content.
    pub fn write(&self, content: &str, body: &[u8]) -> Vec<u8> {
        let size = body.len();
        let end = if self.keeps {
            ""
        } else {
            "Connection: close\r\n"
        };
        let shared = self.shared();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {content}\r\nContent-Length: {size}\r\n\
             {shared}{HARMLESS}{end}\r\n"
        );
        let mut out = Vec::with_capacity(head.len() + size);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body);
        out
    }

    /// A refusal that a page may read.
    pub fn refuse(&self, status: &str) -> Vec<u8> {
        refusal(status, &self.shared())
    }
}

impl Asked<'_> {
    /// RFC 9110 9.3.3, of a body of XEP-0124 6.
    pub(super) fn answer_for_body(&self, method: &str, head_size: usize) -> Answer {
        let (peer, is_clear) = self.client();
        if !self.allows_origin() || is_clear && self.site.must_secure {
            return refuse("403 Forbidden", "");
        }
        if !self.names_host() {
            return refuse("400 Bad Request", "");
        }
        let named = self.site.origins.as_ref().and(self.header("origin"));
        let origin = named.map(|origin| String::from_utf8_lossy(origin).into());
        let reply = Reply {
            keeps: self.request.version == Some(1) && !self.lists("connection", "close"),
            origin,
        };
        match method {
            "POST" => {}
            "GET" | "HEAD" => return page("text/plain", SENTENCE, method == "HEAD"),
            "OPTIONS" => return Answer::Page(preflight(&reply)),
            _ => {
                let more = format!("Allow: GET, HEAD, POST, OPTIONS\r\n{}", reply.shared());
                return refuse("405 Method Not Allowed", &more);
            }
        }
        let size = match self.body_size() {
            Ok(size) => size,
            Err(status) => return Answer::Page(reply.refuse(status)),
        };
        Answer::Body(Box::new(BodyRequest {
            head_size,
            size,
            peer,
            is_secured: !is_clear,
            expects: self.request.version == Some(1) && self.lists("expect", "100-continue"),
            reply,
        }))
    }

    fn body_size(&self) -> Result<usize, &'static str> {
        let encoding = self.header("content-encoding");
        if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
            return Err("415 Unsupported Media Type");
        }
        // RFC 9112 6.2: what says both is no one's idea of a size.
        if self.header("transfer-encoding").is_some() {
            return Err("411 Length Required");
        }
        let mut sizes = values(self.request.headers, "content-length");
        let size = sizes.next().ok_or("411 Length Required")?;
        let is_digits = !size.is_empty() && size.iter().all(u8::is_ascii_digit);
        let size = std::str::from_utf8(size).ok().filter(|_| is_digits);
        let size = size.ok_or("400 Bad Request")?.parse();
        match sizes.next() {
            Some(_) => Err("400 Bad Request"),
            None => size.map_err(|_| "413 Content Too Large"),
        }
    }
}

/// What a browser asks before it lets a page of another site post.
fn preflight(reply: &Reply) -> Vec<u8> {
    let shared = reply.shared();
    format!("HTTP/1.1 204 No Content\r\n{shared}{PREFLIGHT}Connection: close\r\n\r\n").into_bytes()
}
