//! What stands in a body of a client: its attributes, and what it says to the stream.
//!
//! Invariant: what it says is whole elements that mean the same without the body around them.

use super::{Condition, HTTP_BIND};
use stanza::framing;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::{Node, Tree};

/// XEP-0124 14.1: the largest number that all clients can count to.
const RID_MAX: u64 = (1 << 53) - 1;
/// The namespace of what XMPP adds to a body's attributes (XEP-0206).
const XBOSH: &str = "urn:xmpp:xbosh";
/// What the elements of a body may grow by when they are made to stand alone, beyond their size
/// again: a namespace that is declared once may be used by each.
const GROWTH_MAX: usize = 32 << 10;
/// Bytes of a key (XEP-0124 15.3), of an id, and of a type of content.
const TEXT_SIZE_MAX: usize = 128;

/// A body of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// The number of its request.
    pub rid: u64,
    /// The session; a new one is asked for where there is none.
    pub sid: Option<Box<str>>,
    /// What is said to the stream.
    pub stream: Vec<u8>,
    /// Whether it says nothing and asks for nothing.
    pub is_empty: bool,
    /// Whether the client ends the session.
    pub terminates: bool,
    /// How long the client will be away, in seconds.
    pub pause: Option<u64>,
    /// See XEP-0124 15.4.
    pub key: Option<Box<str>>,
    /// See `key`.
    pub new_key: Option<Box<str>>,
    /// What a new session is to be.
    pub opening: Option<Box<Opening>>,
}

/// What the first body of a session asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Whether it says which domain is meant.
    pub is_addressed: bool,
    /// The highest version that the client knows.
    pub version: Option<(u32, u32)>,
    /// Seconds that a request may wait at most.
    pub wait: Option<u64>,
    /// Requests that may wait at most.
    pub hold: Option<u64>,
    /// The type of content that answers are to have.
    pub content: Option<Box<str>>,
    /// Whether the client looks at acknowledgements.
    pub acknowledges: bool,
}

impl Body {
    /// Reads one.
    pub fn parse(bytes: &[u8]) -> Result<Body, Condition> {
        let bytes = without_declaration(bytes.trim_ascii());
        let scope = StreamScope::client();
        let tree = Tree::parse(bytes, &scope).map_err(|_| Condition::BadRequest)?;
        let root = tree.root();
        if root.name() != "body" || root.ns_str() != HTTP_BIND {
            return Err(Condition::BadRequest);
        }
        let number = |name| match root.attr(name) {
            None => Ok(None),
            Some(text) => match text.parse::<u64>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(Condition::BadRequest),
            },
        };
        let text = |name| match root.attr(name) {
            Some(text) if text.len() > TEXT_SIZE_MAX => Err(Condition::BadRequest),
            text => Ok(text.map(Box::<str>::from)),
        };
        let rid = number("rid")?.filter(|rid| (1..=RID_MAX).contains(rid));
        let restarts = matches!(root.attr_ns("restart", XBOSH), Some("true" | "1"));
        let mut body = Body {
            rid: rid.ok_or(Condition::BadRequest)?,
            sid: text("sid")?,
            terminates: root.attr("type") == Some("terminate"),
            pause: number("pause")?,
            key: text("key")?,
            new_key: text("newkey")?,
            ..Body::default()
        };
        if body.sid.is_none() {
            body.opening = Some(Box::new(Opening {
                is_addressed: root.attr("to").is_some_and(|to| !to.is_empty()),
                version: root.attr("ver").and_then(version),
                wait: number("wait")?,
                hold: number("hold")?,
                content: text("content")?.filter(|content| is_type(content)),
                acknowledges: root.attr("ack") == Some("1"),
            }));
        }
        if restarts || body.opening.is_some() {
            open(root, &mut body.stream);
        }
        // XEP-0206 5: what stands in a request to restart is ignored.
        if !restarts {
            say(root, bytes.len(), &mut body.stream)?;
        }
        body.is_empty = body.stream.is_empty() && !body.terminates && body.pause.is_none();
        if body.terminates {
            body.stream.extend_from_slice(framing::END.as_bytes());
        }
        Ok(body)
    }
}

/// Has a stream begin, or begin anew.
fn open(root: Node<'_>, stream: &mut Vec<u8>) {
    // XEP-0206 3: who does not say which version of XMPP it speaks means the only one there is.
    let version = root.attr_ns("version", XBOSH).unwrap_or("1.0");
    let attributes = [
        ("to", root.attr("to")),
        ("from", root.attr("from")),
        ("version", Some(version)),
        ("xml:lang", root.attr("xml:lang")),
    ];
    framing::header(&attributes, stream);
}

/// Says to a stream what stands in a body of that size.
fn say(root: Node<'_>, size: usize, stream: &mut Vec<u8>) -> Result<(), Condition> {
    let size_max = stream.len() + 2 * size + GROWTH_MAX;
    for child in root.children() {
        // XEP-0206 2: many do not say that their stanzas are of `jabber:client`.
        let outside = match child.ns() {
            Ns::HttpBind => HTTP_BIND,
            _ => Ns::Client.as_str(),
        };
        child
            .write_within(outside, stream)
            .map_err(|_| Condition::BadRequest)?;
        if stream.len() > size_max {
            return Err(Condition::BadRequest);
        }
    }
    Ok(())
}

/// What stands behind an XML declaration.
fn without_declaration(bytes: &[u8]) -> &[u8] {
    if !bytes.starts_with(b"<?xml ") {
        return bytes;
    }
    let end = bytes.windows(2).position(|two| two == b"?>");
    end.map_or(bytes, |end| bytes[end + 2..].trim_ascii_start())
}

/// XEP-0124 7.1: both parts are numbers of their own.
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether a text may stand in a header of HTTP as a type of content.
fn is_type(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" /;=.+-_\"".contains(&byte);
    !text.is_empty() && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(attributes: &str, content: &str) -> Result<Body, Condition> {
        let text = format!("<body xmlns='{HTTP_BIND}' {attributes}>{content}</body>");
        Body::parse(text.as_bytes())
    }

    fn said(content: &str) -> String {
        let body = parsed("rid='5' sid='a'", content).expect("a body");
        String::from_utf8(body.stream).expect("UTF-8")
    }

    #[test]
    fn a_new_session_is_a_header_with_what_the_body_says() {
        let body = parsed(
            "rid='1573741820' to='example.org' from='a@example.org' xml:lang='de' ver='1.6' \
             wait='60' hold='1' ack='1' content='text/html; charset=utf-8' \
             xmlns:xmpp='urn:xmpp:xbosh' xmpp:version='1.0' newkey='abc' route='xmpp:a:1'",
            "",
        )
        .expect("a body");
        let expected = Opening {
            is_addressed: true,
            version: Some((1, 6)),
            wait: Some(60),
            hold: Some(1),
            content: Some("text/html; charset=utf-8".into()),
            acknowledges: true,
        };
        assert_eq!(body.opening.as_deref(), Some(&expected));
        assert_eq!(
            (body.rid, body.new_key.as_deref()),
            (1_573_741_820, Some("abc"))
        );
        let header = format!(
            "{} to='example.org' from='a@example.org' version='1.0' xml:lang='de'>",
            framing::HEADER
        );
        assert_eq!(String::from_utf8(body.stream), Ok(header));
    }

    #[test]
    fn what_a_body_says_means_the_same_without_it() {
        for (content, expected) in [
            (
                "<message xmlns='jabber:client' to='a'/>",
                "<message to='a'/>",
            ),
            // XEP-0206 2
            (
                "<message to='a'><body>x</body></message>",
                "<message to='a'><body>x</body></message>",
            ),
            (
                "\n<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='X'>=</auth> ",
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='X'>=</auth>",
            ),
            (
                "<iq xmlns='jabber:client'/><presence xmlns='jabber:client'/>",
                "<iq/><presence/>",
            ),
        ] {
            assert_eq!(said(content), expected);
        }
        for content in ["<c:message><x:y/></c:message>", "<message><x:y/></message>"] {
            let prefixes = "rid='5' sid='a' xmlns:c='jabber:client' xmlns:x='urn:x'";
            let prefixed = parsed(prefixes, content);
            assert_eq!(
                String::from_utf8(prefixed.expect("a body").stream).as_deref(),
                Ok("<message><y xmlns='urn:x'/></message>")
            );
        }
        let text = format!(
            "<b:body xmlns:b='{HTTP_BIND}' rid='5' sid='a'><b:message><b:body>x</b:body>\
             </b:message></b:body>"
        );
        let named = Body::parse(text.as_bytes()).expect("a body");
        assert_eq!(named.stream, b"<message><body>x</body></message>");
    }

    #[test]
    fn an_end_is_said_behind_the_rest_and_a_restart_instead_of_it() {
        let body = parsed(
            "rid='5' sid='a' type='terminate'",
            "<presence type='unavailable'/>",
        );
        let body = body.expect("a body");
        assert!(body.terminates && !body.is_empty);
        assert_eq!(
            body.stream,
            b"<presence type='unavailable'/></stream:stream>"
        );
        let body = parsed(
            "rid='5' sid='a' to='b' xmlns:x='urn:xmpp:xbosh' x:restart='true'",
            "<presence/>",
        );
        let text = String::from_utf8(body.expect("a body").stream).expect("UTF-8");
        assert_eq!(text, format!("{} to='b' version='1.0'>", framing::HEADER));
    }

    #[test]
    fn what_is_no_body_is_refused() {
        for text in [
            "",
            "x",
            "<body rid='1'/>",
            "<body xmlns='http://jabber.org/protocol/httpbind'/>",
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='0'/>",
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='-1'/>",
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='9007199254740992'/>",
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' wait='x'/>",
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='1'><!-- --></body>",
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='1'><a></body>",
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='1'/><a/>",
            "<other xmlns='http://jabber.org/protocol/httpbind' rid='1'/>",
        ] {
            assert_eq!(
                Body::parse(text.as_bytes()),
                Err(Condition::BadRequest),
                "{text}"
            );
        }
        let whole = b"<?xml version='1.0'?>\n<body xmlns='http://jabber.org/protocol/httpbind' \
                      rid='9007199254740991' sid='x'/>\n";
        assert!(Body::parse(whole).expect("a body").is_empty);
    }

    #[test]
    fn a_long_namespace_is_not_multiplied() {
        let uri = "u".repeat(10_000);
        let attributes = format!("rid='5' sid='a' xmlns:x='{uri}'");
        assert!(parsed(&attributes, &"<x:a/>".repeat(3)).is_ok());
        assert_eq!(
            parsed(&attributes, &"<x:a/>".repeat(100)),
            Err(Condition::BadRequest)
        );
    }

    #[test]
    fn a_type_of_content_adds_no_line_to_a_head() {
        for content in ["text/html&#13;&#10;X: y", "", "text/html\u{e9}"] {
            let body = parsed(&format!("rid='5' to='a' content='{content}'"), "").expect("a body");
            assert_eq!(body.opening.expect("a new session").content, None);
        }
    }
}
