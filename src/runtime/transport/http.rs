//! HTTP/1.1 as far as XMPP needs it: a request, whose answer is an upgrade to WebSocket, a body of
//! BOSH (XEP-0124), a page that says where XMPP is (XEP-0156), a file that comes or goes
//! (XEP-0363), or a refusal.
//!
//! Invariant: behind its answer a connection is a WebSocket, or closed, or awaits another request
//! where a body was answered; so what stands behind any other request is never taken for one.

pub mod bodies;
pub mod files;
mod forwarded;

use crate::uploads::slot::Keys;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bodies::{BOSH_PATH, BodyRequest};
use files::FileRequest;
use httparse::{EMPTY_HEADER, Header, Request, Status};
use std::net::IpAddr;
use std::sync::Arc;

/// Bytes of a request's head; what browsers send with all their cookies is a quarter of it.
pub const HEAD_SIZE_MAX: usize = 16 << 10;
/// Header lines of a request.
pub const HEADERS_MAX: usize = 64;

/// Where WebSocket is.
pub const WEBSOCKET_PATH: &str = "/xmpp-websocket";
/// XEP-0156 2.2
const HOST_META: &str = "/.well-known/host-meta";
/// XEP-0156 2.2
const HOST_META_JSON: &str = "/.well-known/host-meta.json";

/// What an upgrade's key is hashed with (RFC 6455 1.3).
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of such a key, and of the hash that it is answered with, in Base64.
const KEY_SIZE: usize = 16;

/// What is served on the ports for the web.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// The pages that may connect; `None` is all of them, as no cookie makes one of them another
    /// user's.
    pub origins: Option<Vec<Box<str>>>,
    /// The proxies whose word is taken for who their client is, and that it comes by TLS.
    pub trusted_proxies: Vec<IpAddr>,
    /// Whether nobody may connect in clear.
    pub must_secure: bool,
    /// The host, perhaps with a port, where all of it is by HTTPS for all the world, if anywhere.
    pub authority: Option<Box<str>>,
    /// What files are found by, where there are some.
    pub uploads: Option<Arc<Keys>>,
}

impl Site {
    /// Where WebSocket is for all the world, if anywhere.
    pub fn websocket_url(&self) -> Option<String> {
        let authority = self.authority.as_deref()?;
        Some(format!("wss://{authority}{WEBSOCKET_PATH}"))
    }

    /// The same of BOSH.
    pub fn bosh_url(&self) -> Option<String> {
        let authority = self.authority.as_deref()?;
        Some(format!("https://{authority}{BOSH_PATH}"))
    }

    /// Where both are, by the relation that says what is there (XEP-0156 2.3).
    fn links(&self) -> Option<[(&'static str, String); 2]> {
        Some([
            ("urn:xmpp:alt-connections:websocket", self.websocket_url()?),
            ("urn:xmpp:alt-connections:xbosh", self.bosh_url()?),
        ])
    }
}

/// What a request's head is answered with.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is not whole.
    Incomplete,
    /// The connection is a WebSocket behind this.
    Upgrade(Upgrade),
    /// A body of a session comes behind this.
    Body(Box<BodyRequest>),
    /// A file comes or goes behind this, and then the connection ends.
    File(Box<FileRequest>),
    /// This, and then the connection ends.
    Page(Vec<u8>),
}

/// A connection that becomes a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Bytes of the request's head.
    pub head_size: usize,
    /// What is answered.
    pub response: Vec<u8>,
    /// Where the client is.
    pub peer: IpAddr,
    /// Whether it comes by a proxy that is trusted: the connection's own TLS says nothing then.
    pub is_proxied: bool,
    /// Whether the client comes by TLS, if need be by that proxy's word.
    pub is_secured: bool,
}

/// Answers what has come of a request from `peer`, which came by TLS or not.
pub fn answer(bytes: &[u8], site: &Site, peer: IpAddr, is_tls: bool) -> Answer {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Partial) if bytes.len() < HEAD_SIZE_MAX => Answer::Incomplete,
        Ok(Status::Complete(size)) if size <= HEAD_SIZE_MAX => {
            let asked = Asked {
                request: &request,
                site,
                peer,
                is_tls,
            };
            asked.answer(size)
        }
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            refuse("431 Request Header Fields Too Large", "")
        }
        Err(httparse::Error::Version) => refuse("505 HTTP Version Not Supported", ""),
        Err(_) => refuse("400 Bad Request", ""),
    }
}

/// A whole request.
struct Asked<'a> {
    request: &'a Request<'a, 'a>,
    site: &'a Site,
    peer: IpAddr,
    is_tls: bool,
}

impl Asked<'_> {
    fn answer(&self, head_size: usize) -> Answer {
        let target = self.request.path.unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let method = self.request.method.unwrap_or_default();
        let links = self.site.links();
        if let Some(keys) = self.files(path) {
            return self.answer_for_file(keys, path, head_size);
        }
        match (path, method, &links) {
            (BOSH_PATH, _, _) => self.answer_for_body(method, head_size),
            (WEBSOCKET_PATH, "GET", _) => self.upgrade(head_size),
            (HOST_META | HOST_META_JSON, "GET" | "HEAD", None) => refuse("404 Not Found", ""),
            (HOST_META, "GET" | "HEAD", Some(links)) => {
                page("application/xrd+xml", &host_meta(links), method == "HEAD")
            }
            (HOST_META_JSON, "GET" | "HEAD", Some(links)) => {
                page("application/json", &host_meta_json(links), method == "HEAD")
            }
            (WEBSOCKET_PATH, _, _) => refuse("405 Method Not Allowed", "Allow: GET\r\n"),
            (HOST_META | HOST_META_JSON, _, _) => {
                refuse("405 Method Not Allowed", "Allow: GET, HEAD\r\n")
            }
            _ => refuse("404 Not Found", ""),
        }
    }

    /// RFC 6455 4.2
    fn upgrade(&self, head_size: usize) -> Answer {
        let upgrades = self.lists("connection", "upgrade") && self.lists("upgrade", "websocket");
        let is_good = self.request.version == Some(1) && self.names_host();
        let is_known = self.header("sec-websocket-version") == Some(b"13");
        if !upgrades || !is_good || !is_known {
            let more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
            return refuse("426 Upgrade Required", more);
        }
        let key = self.header("sec-websocket-key").unwrap_or_default();
        let is_key = STANDARD.decode(key).is_ok_and(|key| key.len() == KEY_SIZE);
        // RFC 7395 3.1
        if !is_key || !self.lists("sec-websocket-protocol", "xmpp") {
            return refuse("400 Bad Request", "");
        }
        let (peer, is_clear) = self.client();
        if !self.allows_origin() || is_clear && self.site.must_secure {
            return refuse("403 Forbidden", "");
        }
        let accept = accept(key);
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
        );
        Answer::Upgrade(Upgrade {
            head_size,
            response: response.into_bytes(),
            peer,
            is_proxied: self.is_proxied(),
            is_secured: !is_clear,
        })
    }

    /// RFC 9112 3.2: a request of this version says whom it asks.
    fn names_host(&self) -> bool {
        self.request.version != Some(1) || self.header("host").is_some()
    }

    /// Where the client is, and whether it comes in clear.
    fn client(&self) -> (IpAddr, bool) {
        let peer = forwarded::client(self.request.headers, self.site, self.peer);
        let is_clear = match self.is_proxied() {
            true => !peer.is_secured,
            false => !self.is_tls,
        };
        (peer.address, is_clear)
    }

    /// TLS up to a proxy is the proxy's, not its client's.
    fn is_proxied(&self) -> bool {
        self.site.trusted_proxies.contains(&self.peer)
    }

    /// Whether the page that connects may; who names none is no page.
    fn allows_origin(&self) -> bool {
        let (Some(allowed), Some(origin)) = (&self.site.origins, self.header("origin")) else {
            return true;
        };
        let mut allowed = allowed.iter();
        allowed.any(|one| one.as_bytes().eq_ignore_ascii_case(origin))
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        values(self.request.headers, name).next()
    }

    /// Whether a list in a header has this item.
    fn lists(&self, name: &str, item: &str) -> bool {
        values(self.request.headers, name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|one| one.trim_ascii().eq_ignore_ascii_case(item.as_bytes()))
    }
}

/// The values of a header, one for each of its lines.
fn values<'h>(headers: &'h [Header<'h>], name: &str) -> impl Iterator<Item = &'h [u8]> {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value)
}

/// What proves that an upgrade was understood (RFC 6455 4.2.2).
fn accept(key: &[u8]) -> String {
    let proof = [key, WEBSOCKET_GUID.as_bytes()].concat();
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &proof))
}

/// XEP-0156 2.3
fn host_meta(links: &[(&str, String)]) -> String {
    let mut out = Vec::new();
    out.extend_from_slice(b"<?xml version='1.0' encoding='utf-8'?>\n");
    stanza::writer::open(&mut out, "XRD")
        .attr("xmlns", "http://docs.oasis-open.org/ns/xri/xrd-1.0")
        .start();
    for (relation, url) in links {
        stanza::writer::open(&mut out, "Link")
            .attr("rel", relation)
            .attr("href", url)
            .close_empty();
    }
    stanza::writer::close(&mut out, "XRD");
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

/// XEP-0156 2.3
fn host_meta_json(links: &[(&str, String)]) -> String {
    let link = |(relation, url): &(&str, String)| serde_json::json!({"rel": relation, "href": url});
    let links: Vec<_> = links.iter().map(link).collect();
    serde_json::json!({"links": links}).to_string() + "\n"
}

/// A page for everybody, from wherever he asks.
fn page(kind: &str, body: &str, is_head: bool) -> Answer {
    let size = body.len();
    let body = if is_head { "" } else { body };
    Answer::Page(
        // XEP-0156 3: a page of another site may read it.
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\
             Access-Control-Allow-Origin: *\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\r\n{body}"
        )
        .into_bytes(),
    )
}

/// `more` are header lines.
fn refuse(status: &str, more: &str) -> Answer {
    Answer::Page(refusal(status, more))
}

fn refusal(status: &str, more: &str) -> Vec<u8> {
    let size = status.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\
         Connection: close\r\n{more}\r\n{status}\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests;
