//! A client of HTTP by hand, as far as files need it: it sends what it is told to, byte by byte if
//! need be, and gives what comes.

use std::io::{Read, Write};

use super::{Client, DOMAIN, Element};

/// Where a file may be put, and where it is then.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The path, with the name at its end.
    pub(crate) path: String,
    pub(crate) authorization: String,
}

/// What a request is answered with.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value)
    }
}

/// Asks for a slot; gives the answer.
pub(crate) fn ask_slot(client: &mut Client, name: &str, size: u64, kind: &str) -> Element {
    let kind = match kind {
        "" => String::new(),
        kind => format!(" content-type='{kind}'"),
    };
    let request =
        format!("<request xmlns='urn:xmpp:http:upload:0' filename='{name}' size='{size}'{kind}/>");
    client.ask(DOMAIN, "get", &request)
}

/// A slot that is granted for a file below `url`.
pub(crate) fn slot(client: &mut Client, url: &str, name: &str, size: u64, kind: &str) -> Slot {
    let answer = ask_slot(client, name, size, kind);
    let slot = answer.child("slot");
    let slot = slot.unwrap_or_else(|| panic!("{name}: {answer:?}"));
    let put = slot.child("put").expect("a place to put it");
    let get = slot.child("get").and_then(|get| get.attr("url"));
    let put_url = put.attr("url").expect("a URL");
    assert_eq!(get, Some(put_url));
    let header = put.child("header").expect("a token");
    assert_eq!(header.attr("name"), Some("Authorization"));
    Slot {
        path: put_url.strip_prefix(url).expect("the site's").to_owned(),
        authorization: put.child_text("header").to_owned(),
    }
}

/// The head of a PUT of so many bytes, with more header lines.
pub(crate) fn put_head(slot: &Slot, size: u64, more: &str) -> String {
    format!(
        "PUT {} HTTP/1.1\r\nHost: {DOMAIN}\r\nAuthorization: {}\r\nContent-Length: {size}\r\n\
         {more}\r\n",
        slot.path, slot.authorization
    )
}

/// Puts a file.
pub(crate) fn put(mut wire: impl Read + Write, slot: &Slot, file: &[u8]) -> Response {
    let head = put_head(slot, file.len() as u64, "");
    wire.write_all(head.as_bytes()).expect("the server reads");
    // One that is refused may be closed before all is written.
    let _refused = wire.write_all(file).and_then(|()| wire.flush());
    response(&mut wire)
}

/// Sends a request without a body, with more header lines.
pub(crate) fn request(
    mut wire: impl Read + Write,
    method: &str,
    path: &str,
    more: &str,
) -> Response {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {DOMAIN}\r\n{more}\r\n");
    wire.write_all(head.as_bytes()).expect("the server reads");
    wire.flush().expect("the server reads");
    response(&mut wire)
}

/// What comes to the end of the connection.
pub(crate) fn response(wire: &mut impl Read) -> Response {
    let mut bytes = Vec::new();
    // What is not read of a body that was refused may reset the connection behind the answer.
    if let Err(error) = wire.read_to_end(&mut bytes) {
        assert!(!bytes.is_empty(), "no answer came: {error}");
    }
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(&bytes)));
    let body = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes).expect("a head is text");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Response {
        status: status.expect("a status"),
        head,
        body,
    }
}
