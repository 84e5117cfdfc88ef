//! Writing XML: escapes, small elements, and the one copy of a stanza on its way through.

mod restamp;

pub use restamp::{restamp, unify};

use crate::ns::Ns;

/// Bytes that must not stand as they are, and what stands for each.
type Escapes<const N: usize> = [(u8, &'static [u8]); N];

const IN_ATTRIBUTES: Escapes<8> = [
    (b'&', b"&amp;"),
    (b'<', b"&lt;"),
    (b'>', b"&gt;"),
    (b'\'', b"&apos;"),
    (b'"', b"&quot;"),
    (b'\t', b"&#9;"),
    (b'\n', b"&#10;"),
    (b'\r', b"&#13;"),
];

const IN_TEXT: Escapes<4> = [
    (b'&', b"&amp;"),
    (b'<', b"&lt;"),
    (b'>', b"&gt;"),
    (b'\r', b"&#13;"),
];

/// Bytes that are looked at together: mostly none of them is to be replaced.
const PIECE_SIZE: usize = 32;

/// Appends a text with what must not stand in an attribute value escaped. Line breaks and tabs
/// become character references: literally, the next parser would read them as spaces.
pub fn escape_attr(value: &str, out: &mut Vec<u8>) {
    escape(value, out, &IN_ATTRIBUTES);
}

/// Appends a text with what must not stand in character data escaped. A carriage return becomes a
/// reference, because literally the next parser would read a line feed.
pub fn escape_text(text: &str, out: &mut Vec<u8>) {
    escape(text, out, &IN_TEXT);
}

#[inline]
fn escape<const N: usize>(text: &str, out: &mut Vec<u8>, escapes: &Escapes<N>) {
    let bytes = text.as_bytes();
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        let piece = bytes[at..].first_chunk::<PIECE_SIZE>();
        let end = bytes.len().min(at + PIECE_SIZE);
        if piece.is_none_or(|piece| has_any(piece, escapes)) {
            for (i, byte) in (at..end).zip(&bytes[at..end]) {
                if let Some((_, escaped)) = escapes.iter().find(|(of, _)| of == byte) {
                    out.extend_from_slice(&bytes[copied..i]);
                    out.extend_from_slice(escaped);
                    copied = i + 1;
                }
            }
        }
        at = end;
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// Without a branch for each byte: the processor compares them all at once.
#[inline]
fn has_any<const N: usize>(piece: &[u8; PIECE_SIZE], escapes: &Escapes<N>) -> bool {
    let escaped: [u8; N] = std::array::from_fn(|i| escapes[i].0);
    let is_escaped = |byte: u8| {
        let each = escaped.iter();
        each.fold(0, |found, of| found | u8::from(byte == *of))
    };
    piece
        .iter()
        .fold(0, |found, byte| found | is_escaped(*byte))
        != 0
}

/// Starts an element; [`Open::close_empty`] or [`Open::start`] must end its tag.
pub fn open<'w>(out: &'w mut Vec<u8>, name: &str) -> Open<'w> {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    Open { out }
}

/// Ends an element that was started.
pub fn close(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

/// Appends `<name xmlns='..'/>`.
pub fn empty(out: &mut Vec<u8>, name: &str, ns: Ns) {
    open(out, name).ns(ns).close_empty();
}

/// Appends `<name>text</name>`.
pub fn text(out: &mut Vec<u8>, name: &str, text: &str) {
    open(out, name).start();
    escape_text(text, out);
    close(out, name);
}

/// An opening tag being written.
#[must_use = "the tag is not closed yet"]
#[derive(Debug)]
pub struct Open<'w> {
    pub(crate) out: &'w mut Vec<u8>,
}

impl Open<'_> {
    /// Adds an attribute; its value is escaped.
    pub fn attr(self, name: &str, value: &str) -> Self {
        self.out.push(b' ');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"='");
        escape_attr(value, self.out);
        self.out.push(b'\'');
        self
    }

    /// Adds an attribute if there is a value.
    pub fn attr_if(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.attr(name, value),
            None => self,
        }
    }

    /// Declares the default namespace.
    pub fn ns(self, ns: Ns) -> Self {
        self.attr("xmlns", ns.as_str())
    }

    /// Ends the tag and the element.
    pub fn close_empty(self) {
        self.out.extend_from_slice(b"/>");
    }

    /// Ends the tag; [`close`] must end the element.
    pub fn start(self) {
        self.out.push(b'>');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_values_survive_another_parser() {
        let mut out = Vec::new();
        open(&mut out, "a")
            .attr("b", "1<2 & '\"\r\n\t>")
            .close_empty();
        let expected = "<a b='1&lt;2 &amp; &apos;&quot;&#13;&#10;&#9;&gt;'/>";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn what_must_not_stand_is_escaped_wherever_it_is() {
        for length in 1..3 * PIECE_SIZE {
            for at in 0..length {
                let mut value = vec![b'a'; length];
                value[at] = b'<';
                let mut out = Vec::new();
                escape_attr(std::str::from_utf8(&value).unwrap(), &mut out);
                let (before, behind) = (&value[..at], &value[at + 1..]);
                assert_eq!(out, [before, b"&lt;", behind].concat());
            }
        }
    }

    #[test]
    fn text_keeps_line_feeds_and_quotes_as_they_are() {
        let mut out = Vec::new();
        text(&mut out, "body", "a\n'b' ]]> \r & c");
        let expected = "<body>a\n'b' ]]&gt; &#13; &amp; c</body>";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn elements_are_written_in_order() {
        let mut out = Vec::new();
        open(&mut out, "iq")
            .attr("type", "result")
            .attr_if("id", None)
            .start();
        empty(&mut out, "ping", Ns::Ping);
        close(&mut out, "iq");
        let expected = "<iq type='result'><ping xmlns='urn:xmpp:ping'/></iq>";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
