//! XMPP's framing over WebSocket (RFC 7395 3.3): a stream's bytes as messages that each stand
//! alone, and such messages as a stream.
//!
//! Invariant: a message adds one element, an opening or the end to the stream, or something that no
//! stream may hold, so that whoever reads the stream refuses it in its turn.

use crate::frame::{Frame, Scanner};
use crate::ns::Ns;
use crate::scope::StreamScope;
use crate::tree::{Node, Tree};
use crate::writer::Open;

/// How the server's stream headers begin: the same for all.
pub const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                          xmlns:stream='http://etherx.jabber.org/streams'";

/// The end of a stream.
pub const END: &str = "</stream:stream>";

const OPEN: &[u8] = b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'";
const CLOSE: &[u8] = b"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";

/// What a stanza inherits from the header of a stream, and the elements of the stream itself.
const CLIENT: &[u8] = b" xmlns='jabber:client'";
const STREAMS: &[u8] = b" xmlns:stream='http://etherx.jabber.org/streams'";

/// What every scanner refuses as not well-formed, and what as restricted, at the front of a frame.
const MALFORMED: &[u8] = b"<<";
const RESTRICTED: &[u8] = b"<!--";

/// Appends to a stream what a client says in one message.
///
/// `<open/>` becomes an XML declaration and a header: where none is awaited, a stream may not hold
/// the former.
pub fn unframe(message: &[u8], stream: &mut Vec<u8>) {
    match Scanner::unlimited().next(message) {
        Ok(Frame::Element(size)) if size == message.len() => {}
        Err(crate::XmlError::Restricted) => return stream.extend_from_slice(RESTRICTED),
        // In pieces, more than one, or beginning with anything but `<`.
        _ => return stream.extend_from_slice(MALFORMED),
    }
    let name = &message[1..name_end(message)];
    let local = name.rsplit(|byte| *byte == b':').next();
    if !matches!(local, Some(b"open" | b"close" | b"stream")) {
        return stream.extend_from_slice(message);
    }
    // What is no XML goes on as it is, and is refused as such.
    let scope = StreamScope::client();
    let tree = Tree::parse(message, &scope);
    let root = tree.as_ref().map(Tree::root);
    match root.as_ref().map(|root| (root.ns(), root.name())) {
        Ok((Ns::Framing, "open")) => open(root.expect("it was looked at"), stream),
        Ok((Ns::Framing, "close")) => stream.extend_from_slice(END.as_bytes()),
        // Headers are for other transports.
        Ok((Ns::Streams, "stream")) => stream.extend_from_slice(MALFORMED),
        _ => stream.extend_from_slice(message),
    }
}

/// Appends the header that an `<open/>` stands for.
fn open(root: Node<'_>, stream: &mut Vec<u8>) {
    let names = ["to", "from", "version", "xml:lang"];
    header(&names.map(|name| (name, root.attr(name))), stream);
}

/// Appends a stream's header behind an XML declaration, with those of these attributes that are
/// there.
pub fn header(attributes: &[(&str, Option<&str>)], stream: &mut Vec<u8>) {
    stream.extend_from_slice(HEADER.as_bytes());
    let mut tag = Open { out: stream };
    for (name, value) in attributes {
        tag = tag.attr_if(name, *value);
    }
    tag.start();
}

/// What stands next in what the server writes to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A header, by its attributes behind those that all have.
    Header(&'a [u8]),
    /// An element, by its name with the `<` before it, and what is behind that.
    Element(&'a [u8], &'a [u8]),
    /// The end.
    End,
}

impl<'a> Piece<'a> {
    /// What an element has to declare, where nothing around it does.
    pub fn declaration(self) -> &'static [u8] {
        match self {
            Piece::Element(name, after) => declaration(name, after),
            Piece::Header(_) | Piece::End => &[],
        }
    }

    /// Whether it is an element of the stream itself: its features, or an error.
    pub fn is_of_stream(self) -> bool {
        matches!(self, Piece::Element(name, _) if name.starts_with(b"<stream:"))
    }
}

/// Cuts what the server writes to a stream, whole elements, into pieces.
#[derive(Debug)]
pub struct Pieces<'a> {
    scanner: Scanner,
    rest: &'a [u8],
}

impl<'a> Pieces<'a> {
    /// Of these bytes.
    pub fn of(stream: &'a [u8]) -> Pieces<'a> {
        Pieces {
            scanner: Scanner::unlimited(),
            rest: stream,
        }
    }

    /// Bytes that are not cut yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        while !self.rest.is_empty() {
            if let Some(behind) = self.rest.strip_prefix(HEADER.as_bytes()) {
                // Nothing in an attribute of ours is a `>`: they are escaped.
                let end = behind.iter().position(|byte| *byte == b'>');
                let end = end.unwrap_or(behind.len() - 1);
                self.rest = &behind[end + 1..];
                return Some(Piece::Header(&behind[..end]));
            }
            if let Some(behind) = self.rest.strip_prefix(END.as_bytes()) {
                self.rest = behind;
                return Some(Piece::End);
            }
            let size = match self.scanner.next(self.rest) {
                Ok(Frame::Element(size)) => size,
                Ok(Frame::Whitespace(size)) => {
                    self.rest = &self.rest[size..];
                    continue;
                }
                other => {
                    debug_assert!(false, "the server writes whole elements: {other:?}");
                    self.rest.len()
                }
            };
            let (element, behind) = self.rest.split_at(size);
            let (name, after) = element.split_at(name_end(element));
            self.rest = behind;
            return Some(Piece::Element(name, after));
        }
        None
    }
}

/// Cuts what the server writes to a stream, whole elements, into messages; each comes in three
/// pieces, and they alone declare what it uses (RFC 7395 3.3).
pub fn frame(stream: &[u8], mut each: impl FnMut([&[u8]; 3])) {
    for piece in Pieces::of(stream) {
        match piece {
            Piece::Header(attributes) => each([OPEN, attributes, b"/>"]),
            Piece::Element(name, after) => each([name, piece.declaration(), after]),
            Piece::End => each([CLOSE, &[], &[]]),
        }
    }
}

/// What an element that begins so has to declare to stand alone.
fn declaration(name: &[u8], after: &[u8]) -> &'static [u8] {
    match name.starts_with(b"<stream:") {
        true => STREAMS,
        false if declares_default(after) => &[],
        false => CLIENT,
    }
}

/// Whether the attributes of a tag, with what follows it, declare the default namespace.
fn declares_default(after_name: &[u8]) -> bool {
    let mut rest = after_name;
    loop {
        rest = rest.trim_ascii_start();
        if rest.starts_with(b"xmlns=") {
            return true;
        }
        // A `>` before the next quote ends the tag.
        let end = |byte: &u8| matches!(byte, b'\'' | b'"' | b'>');
        let Some(at) = rest.iter().position(end).filter(|at| rest[*at] != b'>') else {
            return false;
        };
        let quote = rest[at];
        rest = &rest[at + 1..];
        let Some(at) = rest.iter().position(|byte| *byte == quote) else {
            return false;
        };
        rest = &rest[at + 1..];
    }
}

/// Where the name of an element ends that begins here.
fn name_end(element: &[u8]) -> usize {
    let ends = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>');
    element.iter().position(ends).unwrap_or(element.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::XmlError;
    use crate::frame::Limits;
    use crate::view::{StanzaView, StreamHeader};

    fn streamed(message: &str) -> String {
        let mut out = Vec::new();
        unframe(message.as_bytes(), &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    fn messages(stream: &str) -> Vec<String> {
        let mut all = Vec::new();
        let whole = |parts: [&[u8]; 3]| String::from_utf8(parts.concat()).expect("UTF-8");
        frame(stream.as_bytes(), |parts| all.push(whole(parts)));
        all
    }

    /// What a stream makes of a message, at its front and behind a header.
    fn refusals(message: &str) -> [Option<XmlError>; 2] {
        let header = format!("{HEADER}>");
        ["", &header].map(|before| {
            let stream = before.to_owned() + &streamed(message);
            let mut scanner = Scanner::new(Limits::default());
            let mut rest = stream.as_bytes();
            loop {
                match scanner.next(rest) {
                    Ok(Frame::Incomplete) => return None,
                    Ok(Frame::StreamOpen(size) | Frame::Element(size)) => rest = &rest[size..],
                    Ok(Frame::StreamClose(_)) => return None,
                    Ok(Frame::Whitespace(_)) => panic!("there is none"),
                    Err(error) => return Some(error),
                }
            }
        })
    }

    #[test]
    fn an_opening_is_a_header_with_the_same_attributes() {
        let open = "<open xmlns=\"urn:ietf:params:xml:ns:xmpp-framing\" version=\"1.0\" \
                    to=\"example.org\" from='a&apos;&gt;@example.org' xml:lang='de' x='y'/>";
        let header = StreamHeader::parse(streamed(open).as_bytes()).expect("a header");
        assert_eq!(header.to.as_deref(), Some("example.org"));
        assert_eq!(header.from.as_deref(), Some("a'>@example.org"));
        assert_eq!(
            (header.version, header.lang.as_deref()),
            (Some((1, 0)), Some("de"))
        );
        assert!(header.name_ok && header.stream_ns_ok && header.content == Ns::Client);
        let prefixed = "<f:open xmlns:f='urn:ietf:params:xml:ns:xmpp-framing'></f:open>";
        let header = StreamHeader::parse(streamed(prefixed).as_bytes()).expect("a header");
        assert_eq!((header.to, header.version), (None, None));
    }

    #[test]
    fn a_closing_is_the_end_and_others_of_these_names_are_stanzas() {
        let close = "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing' see-other-uri='wss://a'/>";
        assert_eq!(streamed(close), END);
        for other in [
            "<open/>",
            "<close xmlns='urn:xmpp:jingle:1'/>",
            "<message><a/></message>",
        ] {
            assert_eq!(streamed(other), other);
        }
    }

    #[test]
    fn what_is_not_one_element_is_refused_wherever_it_comes() {
        let open = format!("<open xmlns='{}'/>", Ns::Framing.as_str());
        let twice = open.clone() + &open;
        for message in [
            "",
            " ",
            " <a/>",
            "<a/> ",
            "<a/><b/>",
            "<a>",
            "<a><![CDATA[",
            "<a b='",
            "</a>",
            "text",
            "<stream:stream xmlns='jabber:client'>",
            END,
            "<a></a></a>",
            &twice,
            "<s:stream xmlns:s='http://etherx.jabber.org/streams'></s:stream>",
        ] {
            assert_eq!(
                refusals(message),
                [Some(XmlError::NotWellFormed); 2],
                "{message:?}"
            );
        }
        for message in [
            "<?xml version='1.0'?>",
            "<?xml version='1.0'?><a/>",
            "<!-- --><a/>",
        ] {
            assert_eq!(
                refusals(message),
                [Some(XmlError::Restricted); 2],
                "{message:?}"
            );
        }
        // A second opening is refused by the declaration in front of it.
        assert_eq!(refusals(&open), [None, Some(XmlError::Restricted)]);
    }

    #[test]
    fn what_the_server_writes_comes_apart_into_documents() {
        let stream = format!(
            "{HEADER} id='1' from='a&gt;b'><stream:features><bind xmlns='b'/></stream:features>\n\
             <success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>x</success>\
             <message from='a' id=\" xmlns='b' \"><body>&lt;</body></message><iq/><r a='>' \
             xmlns='urn:xmpp:sm:3'/><stream:error><x xmlns='y'/></stream:error>{END}"
        );
        let expected = [
            "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' id='1' from='a&gt;b'/>",
            "<stream:features xmlns:stream='http://etherx.jabber.org/streams'><bind xmlns='b'/>\
             </stream:features>",
            "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>x</success>",
            "<message xmlns='jabber:client' from='a' id=\" xmlns='b' \"><body>&lt;</body>\
             </message>",
            "<iq xmlns='jabber:client'/>",
            "<r a='>' xmlns='urn:xmpp:sm:3'/>",
            "<stream:error xmlns:stream='http://etherx.jabber.org/streams'><x xmlns='y'/>\
             </stream:error>",
            "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
        ];
        assert_eq!(messages(&stream), expected);
        let nothing = StreamScope::of(Ns::Unknown);
        for message in expected {
            StanzaView::parse(message.as_bytes(), &nothing).expect("a document");
        }
    }

    #[test]
    fn what_is_forwarded_may_be_deeper_than_what_is_received() {
        let depth = usize::from(crate::frame::DEPTH_MAX) + 5;
        let deep = "<a>".repeat(depth) + &"</a>".repeat(depth);
        assert_eq!(
            messages(&format!("<message>{deep}</message><r xmlns='s'/>")).len(),
            2
        );
    }
}
