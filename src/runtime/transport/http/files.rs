//! Requests for files (XEP-0363): what is asked, and the heads of the answers.
//!
//! Invariant: a path on the disk is made of two numbers of 16 bytes; no text of a request is part
//! of it, and who was not told a file's numbers cannot guess them.

use super::{Answer, Asked, refusal, values};
use crate::uploads::slot::{FileId, Keys};
use std::fmt::Write as _;
use std::net::IpAddr;
use xmpp::xep::upload::{is_name, is_number, is_type};

/// What all paths of files begin with.
pub const FILES_PATH: &str = "/upload/";

/// What a page of another site may see of an answer.
const SHARED: &str = "Access-Control-Allow-Origin: *\r\n\
                      Access-Control-Expose-Headers: Content-Range, ETag\r\n";
/// What a page of another site may send (Fetch 3.2).
const PREFLIGHT: &str = "Access-Control-Allow-Methods: GET, HEAD, PUT, OPTIONS\r\n\
                         Access-Control-Allow-Headers: Authorization, Content-Type, Range\r\n\
                         Access-Control-Max-Age: 86400\r\n";
/// How a file is kept from being a page of ours: whatever it says, nothing of it is run.
const HARMLESS: &str = "X-Content-Type-Options: nosniff\r\n\
                        Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; \
                        sandbox\r\n\
                        Cross-Origin-Resource-Policy: cross-origin\r\n";
/// What a file is where its owner did not say.
const TYPE_UNKNOWN: &str = "application/octet-stream";
/// What browsers show and do not run; anything else they are to save.
const INLINE: &[&str] = &[
    "audio/aac",
    "audio/flac",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/opus",
    "audio/wav",
    "audio/webm",
    "image/avif",
    "image/gif",
    "image/heic",
    "image/jpeg",
    "image/png",
    "image/webp",
    "video/mp4",
    "video/ogg",
    "video/quicktime",
    "video/webm",
];

/// A request that a file answers.
#[derive(Debug, PartialEq, Eq)]
pub struct FileRequest {
    /// Bytes of the request's head.
    pub head_size: usize,
    /// Where the client is.
    pub peer: IpAddr,
    /// Whether it waits to be told to go on (RFC 9110 10.1.1).
    pub expects: bool,
    /// What it asks.
    pub ask: Ask,
}

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// To keep a file.
    Put(Put),
    /// To show one.
    Get(Get),
}

impl Ask {
    /// Bytes that come.
    pub fn size(&self) -> u64 {
        match self {
            Ask::Put(put) => put.size,
            Ask::Get(_) => 0,
        }
    }
}

/// A file that comes, by a token of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Put {
    /// Which.
    pub file: FileId,
    /// Its name.
    pub name: Box<str>,
    /// Its type, or nothing.
    pub content_type: Box<str>,
    /// The bytes that come.
    pub size: u64,
    /// Until when it may, in seconds since 1970.
    pub until_s: u64,
}

/// A file that is wanted.
#[derive(Debug, PartialEq, Eq)]
pub struct Get {
    /// Which.
    pub file: FileId,
    /// The name that it is to have.
    pub name: Box<str>,
    /// What stands for it where it is asked whether that is still so.
    pub tag: Box<str>,
    /// Whether the client has it.
    pub has_it: bool,
    /// The part that is wanted.
    pub span: Option<Span>,
    /// Whether only the head is wanted.
    pub is_head: bool,
}

/// A part of a file (RFC 9110 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// From a byte to a byte, or to the end.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

impl Span {
    /// The first byte and the one behind the last, in a file of so many; `None` if there is none.
    pub fn within(self, size: u64) -> Option<(u64, u64)> {
        let (start, end) = match self {
            Span::From(start, last) => (
                start,
                last.map_or(size, |last| size.min(last.saturating_add(1))),
            ),
            Span::Last(count) => (size.saturating_sub(count), size),
        };
        (start < end).then_some((start, end))
    }
}

impl Asked<'_> {
    /// Whether the request is one for files, and the key to them.
    pub(super) fn files(&self, path: &str) -> Option<&Keys> {
        let keys = self.site.uploads.as_deref();
        keys.filter(|_| path.starts_with(FILES_PATH))
    }

    pub(super) fn answer_for_file(&self, keys: &Keys, path: &str, head_size: usize) -> Answer {
        let (peer, is_clear) = self.client();
        let method = self.request.method.unwrap_or_default();
        let refuse = |status, more| {
            let page = refusal(status, more);
            Answer::Page(match method {
                "HEAD" => without_body(page),
                _ => page,
            })
        };
        if is_clear && self.site.must_secure {
            return refuse("403 Forbidden", SHARED);
        }
        if method == "OPTIONS" {
            return preflight();
        }
        if !matches!(method, "GET" | "HEAD" | "PUT") {
            let more = format!("Allow: GET, HEAD, PUT, OPTIONS\r\n{SHARED}");
            return refuse("405 Method Not Allowed", &more);
        }
        let rest = path.strip_prefix(FILES_PATH).unwrap_or_default();
        let named = rest
            .split_once('/')
            .and_then(|(address, name)| Some((address, keys.file(address)?, decoded(name)?)));
        let Some((address, file, name)) = named else {
            return refuse("404 Not Found", SHARED);
        };
        let ask = match method {
            "PUT" => match self.put(keys, file, &name) {
                Ok(put) => Ask::Put(put),
                Err(status) => return refuse(status, SHARED),
            },
            _ => {
                let tag = format!("\"{address}\"").into();
                Ask::Get(self.get(file, name, tag))
            }
        };
        // RFC 9110 10.1.1: only to who knows of it.
        let expects = self.request.version == Some(1) && self.lists("expect", "100-continue");
        Answer::File(Box::new(FileRequest {
            head_size,
            peer,
            expects,
            ask,
        }))
    }

    /// A file that may come.
    fn put(&self, keys: &Keys, file: FileId, name: &str) -> Result<Put, &'static str> {
        let said = self.header("authorization").unwrap_or_default();
        let token = said.split_at_checked(7).and_then(|(scheme, token)| {
            let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
            is_bearer.then(|| token.trim_ascii())
        });
        let permit = token.and_then(|token| keys.permit(&file, name, token));
        let permit = permit.ok_or("403 Forbidden")?;
        // RFC 9112 6.2: what says both is no one's idea of a size.
        if self.header("transfer-encoding").is_some() {
            return Err("411 Length Required");
        }
        let mut sizes = values(self.request.headers, "content-length");
        let size = sizes.next().ok_or("411 Length Required")?;
        let size = std::str::from_utf8(size).ok().and_then(number);
        if size != Some(permit.size) || sizes.next().is_some() {
            return Err("400 Bad Request");
        }
        // XEP-0363 7: of the type that was told, if one was.
        let told = self.header("content-type").unwrap_or_default();
        let is_other = |told: &[u8]| {
            let told = String::from_utf8_lossy(told);
            essence(&told) != essence(&permit.content_type)
        };
        if !told.is_empty() && !permit.content_type.is_empty() && is_other(told) {
            return Err("400 Bad Request");
        }
        Ok(Put {
            file,
            name: name.into(),
            content_type: permit.content_type,
            size: permit.size,
            until_s: permit.until_s,
        })
    }

    /// A file that is wanted.
    fn get(&self, file: FileId, name: Box<str>, tag: Box<str>) -> Get {
        let names = |list: &[u8]| {
            let mut all = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            all.any(|one| one == b"*" || one.strip_prefix(b"W/").unwrap_or(one) == tag.as_bytes())
        };
        let has_it = values(self.request.headers, "if-none-match").any(names);
        // RFC 9110 13.1.5: of another file the part is of no use.
        let is_same = |known: &[u8]| known.trim_ascii() == tag.as_bytes();
        let is_head = self.request.method == Some("HEAD");
        // RFC 9110 14.2: of a GET only.
        let range = self.header("range").filter(|_| !is_head);
        let span = range.and_then(parse_range);
        let span = span.filter(|_| self.header("if-range").is_none_or(is_same));
        Get {
            file,
            name,
            has_it,
            span,
            is_head,
            tag,
        }
    }
}

fn number(digits: &str) -> Option<u64> {
    is_number(digits).then(|| digits.parse().ok())?
}

/// RFC 9110 14.2: one part; what is more or no part of bytes is as if nothing was said.
fn parse_range(value: &[u8]) -> Option<Span> {
    let text = std::str::from_utf8(value).ok()?;
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    match (first, last) {
        ("", last) => number(last).map(Span::Last),
        (first, "") => number(first).map(|first| Span::From(first, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Span::From(first, Some(last)))
        }
    }
}

/// A name as it stands in a URL (RFC 3986 2.1).
pub fn encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let _infallible = match is_plain {
            true => write!(out, "{}", char::from(byte)),
            false => write!(out, "%{byte:02X}"),
        };
    }
    out
}

/// The name that stands in a URL so, if a file may have it.
fn decoded(text: &str) -> Option<Box<str>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        rest = behind;
    }
    let name = String::from_utf8(bytes).ok()?;
    is_name(&name).then(|| name.into())
}

/// A type without its parameters, as types are compared.
fn essence(content_type: &str) -> String {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// What a page of another site is told before it asks.
fn preflight() -> Answer {
    let head = format!(
        "HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, PUT, OPTIONS\r\n{SHARED}{PREFLIGHT}\
         Connection: close\r\n\r\n"
    );
    Answer::Page(head.into_bytes())
}

/// An answer that is no file.
pub(crate) fn page(status: &str, more: &str) -> Vec<u8> {
    refusal(status, &format!("{more}{SHARED}"))
}

/// The answer to a HEAD that a GET would have this answer to.
fn without_body(mut page: Vec<u8>) -> Vec<u8> {
    let end = page.windows(4).position(|four| four == b"\r\n\r\n");
    page.truncate(end.map_or(page.len(), |end| end + 4));
    page
}

/// What is said instead of a file.
pub(crate) fn instead(get: &Get, status: &str, more: &str) -> Vec<u8> {
    let page = page(status, more);
    match get.is_head {
        true => without_body(page),
        false => page,
    }
}

/// A file was taken.
pub(crate) fn created() -> Vec<u8> {
    format!("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n{SHARED}Connection: close\r\n\r\n")
        .into_bytes()
}

/// The head of what a file of this size and type is answered by, and the bytes of the file that
/// stand behind it.
pub(crate) fn head(get: &Get, size: u64, content_type: &str) -> (Vec<u8>, std::ops::Range<u64>) {
    let tag = &get.tag;
    let kept = format!("ETag: {tag}\r\nCache-Control: private, max-age=86400, immutable\r\n");
    if get.has_it {
        let head = format!("HTTP/1.1 304 Not Modified\r\n{kept}{SHARED}Connection: close\r\n\r\n");
        return (head.into_bytes(), 0..0);
    }
    let span = get.span.map(|span| span.within(size));
    let (status, range, place) = match span {
        None => ("200 OK", 0..size, String::new()),
        Some(Some((start, end))) => {
            let place = format!("Content-Range: bytes {start}-{}/{size}\r\n", end - 1);
            ("206 Partial Content", start..end, place)
        }
        // RFC 9110 15.5.17
        Some(None) => {
            let more = format!("Content-Range: bytes */{size}\r\n");
            return (instead(get, "416 Range Not Satisfiable", &more), 0..0);
        }
    };
    let content_type = match is_type(content_type) {
        true => content_type,
        false => TYPE_UNKNOWN,
    };
    let essence = essence(content_type);
    let is_shown = INLINE.contains(&&*essence);
    // What is shown is nothing but what we looked at.
    let content_type = if is_shown { &essence } else { content_type };
    let disposition = if is_shown { "inline" } else { "attachment" };
    let length = range.end - range.start;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{place}\
         Accept-Ranges: bytes\r\nContent-Disposition: {disposition}\r\n{kept}{HARMLESS}{SHARED}\
         Connection: close\r\n\r\n"
    );
    let range = if get.is_head { 0..0 } else { range };
    (head.into_bytes(), range)
}

#[cfg(test)]
mod tests;
