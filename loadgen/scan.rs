//! The generator's own reading of a server's stream: where one top-level element ends, and simple
//! questions about it.
//!
//! It shares nothing with the server's scanner on purpose: a mistake there must not hide here.

use memchr::memmem;
use memchr::{memchr, memchr3};

/// What lies at the front of the received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Not yet a whole piece.
    Incomplete,
    /// White space or an XML declaration of so many bytes.
    Space(usize),
    /// The opening tag of the stream.
    Header(usize),
    /// A whole element.
    Element(usize),
    /// The closing tag of the stream.
    End(usize),
    /// Not XML as a stream may contain it.
    Broken,
}

/// Says what `bytes` begin with. It is told nothing about what came before: a call with more bytes
/// begins again, which costs little because a server's elements are short.
pub fn next_piece(bytes: &[u8]) -> Piece {
    let Some(&first) = bytes.first() else {
        return Piece::Incomplete;
    };
    if first.is_ascii_whitespace() {
        let count = bytes
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        return Piece::Space(count);
    }
    if first != b'<' {
        return Piece::Broken;
    }
    match bytes.get(1) {
        None => Piece::Incomplete,
        Some(b'?') => {
            memmem::find(bytes, b"?>").map_or(Piece::Incomplete, |at| Piece::Space(at + 2))
        }
        Some(b'/') => memchr(b'>', bytes).map_or(Piece::Incomplete, |at| Piece::End(at + 1)),
        Some(_) => element(bytes),
    }
}

/// Depth scan from an opening tag at the front to the tag that closes it.
fn element(bytes: &[u8]) -> Piece {
    let Some(end) = tag_end(bytes) else {
        return Piece::Incomplete;
    };
    if local_name(bytes) == b"stream" && bytes[end - 2] != b'/' {
        return Piece::Header(end);
    }
    if bytes[end - 2] == b'/' {
        return Piece::Element(end);
    }
    let mut depth = 1usize;
    let mut at = end;
    while let Some(step) = memchr(b'<', &bytes[at..]) {
        at += step;
        let rest = &bytes[at..];
        if rest.starts_with(b"<![CDATA[") {
            match memmem::find(rest, b"]]>") {
                Some(close) => at += close + 3,
                None => return Piece::Incomplete,
            }
            continue;
        }
        let Some(size) = tag_end(rest) else {
            return Piece::Incomplete;
        };
        match rest[1] {
            b'/' => depth -= 1,
            b'!' | b'?' => {
                // A CDATA section's opening may be cut in two; anything else is restricted XML.
                return match b"<![CDATA[".starts_with(rest) {
                    true => Piece::Incomplete,
                    false => Piece::Broken,
                };
            }
            _ if rest[size - 2] == b'/' => {}
            _ => depth += 1,
        }
        at += size;
        if depth == 0 {
            return Piece::Element(at);
        }
    }
    Piece::Incomplete
}

/// The size of the tag at the front of `bytes`, `>` included; quoted values may contain `>`.
fn tag_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr3(b'>', b'\'', b'"', &bytes[at..])?;
        match bytes[at] {
            b'>' => return Some(at + 1),
            quote => at += memchr(quote, &bytes[at + 1..])? + 2,
        }
    }
}

/// The name after `<` without its prefix.
pub fn local_name(element: &[u8]) -> &[u8] {
    let name = &element[1..];
    let end = name
        .iter()
        .position(|&byte| byte == b'>' || byte == b'/' || byte.is_ascii_whitespace())
        .unwrap_or(name.len());
    let name = &name[..end];
    memchr(b':', name).map_or(name, |colon| &name[colon + 1..])
}

/// The value of an unprefixed attribute of the outermost tag, as it stands on the wire.
pub fn attribute<'a>(element: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut at = 0;
    loop {
        at += memchr3(b'>', b'\'', b'"', &element[at..])?;
        let quote = element[at];
        if quote == b'>' {
            return None;
        }
        let value = at + 1;
        let size = memchr(quote, &element[value..])?;
        let before = element[..at].trim_ascii_end();
        let before = before.strip_suffix(b"=")?.trim_ascii_end();
        if let Some(head) = before.strip_suffix(name)
            && head.last().is_some_and(u8::is_ascii_whitespace)
        {
            return Some(&element[value..value + size]);
        }
        at = value + size + 1;
    }
}

/// The text of the first element called `name` in `element`; it must hold nothing but text.
pub fn text_of<'a>(element: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    text_and_rest(element, name).map(|(text, _)| text)
}

/// The same, and what follows it.
pub fn text_and_rest<'a>(element: &'a [u8], name: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut at = 0;
    while let Some(step) = memchr(b'<', &element[at..]) {
        at += step;
        let tag = &element[at..];
        let end = tag_end(tag)?;
        if tag[1] != b'/' && local_name(tag) == name {
            if tag[end - 2] == b'/' {
                return Some((b"", &tag[end..]));
            }
            let text = &tag[end..];
            return Some(text.split_at(memchr(b'<', text)?));
        }
        at += end;
    }
    None
}

/// Whether an element called `name` with exactly this text occurs (`<mechanism>PLAIN</mechanism>`).
pub fn holds_text(element: &[u8], name: &[u8], text: &[u8]) -> bool {
    let mut rest = element;
    while let Some(at) = memmem::find(rest, text) {
        let before = &rest[..at];
        if rest[at + text.len()..].starts_with(b"</")
            && before.ends_with(b">")
            && memchr::memrchr(b'<', before).is_some_and(|tag| local_name(&before[tag..]) == name)
        {
            return true;
        }
        rest = &rest[at + text.len()..];
    }
    false
}

/// Whether `needle` occurs anywhere in `element`.
pub fn holds(element: &[u8], needle: &[u8]) -> bool {
    memmem::find(element, needle).is_some()
}

/// Resolves the five predefined entities; JIDs and error texts need no more.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr(b'&', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let entities: [(&[u8], u8); 5] = [
            (b"&amp;", b'&'),
            (b"&lt;", b'<'),
            (b"&gt;", b'>'),
            (b"&apos;", b'\''),
            (b"&quot;", b'"'),
        ];
        let (size, byte) = entities
            .iter()
            .find(|(entity, _)| rest.starts_with(entity))
            .map_or((1, b'&'), |(entity, byte)| (entity.len(), *byte));
        out.push(byte);
        rest = &rest[size..];
    }
    out.extend_from_slice(rest);
    out
}

/// Writes text or an attribute value with what must be escaped in either.
pub fn escape(text: &str, out: &mut Vec<u8>) {
    for &byte in text.as_bytes() {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'\'' => out.extend_from_slice(b"&apos;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"<?xml version='1.0'?><stream:stream id=\"a>b\" from='x'>\
        <stream:features><mechanisms xmlns='s'><mechanism>PLAIN</mechanism></mechanisms>\
        <bind/></stream:features> <message from='a@b/c' to='d'><body>x &gt; <![CDATA[</body>]]>\
        </body>\
        </message><iq type='result'/></stream:stream>";

    fn pieces(mut bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        loop {
            let piece = next_piece(bytes);
            match piece {
                Piece::Space(n) | Piece::Header(n) | Piece::Element(n) | Piece::End(n) => {
                    bytes = &bytes[n..];
                }
                Piece::Incomplete | Piece::Broken => return pieces,
            }
            pieces.push(piece);
        }
    }

    #[test]
    fn a_stream_falls_into_its_pieces() {
        let kinds = pieces(STREAM);
        assert!(matches!(
            kinds[..],
            [
                Piece::Space(21),
                Piece::Header(33),
                Piece::Element(_),
                Piece::Space(1),
                Piece::Element(_),
                Piece::Element(19),
                Piece::End(16)
            ]
        ));
    }

    #[test]
    fn no_cut_makes_a_piece_out_of_half_of_one() {
        let whole = pieces(STREAM);
        for cut in 0..STREAM.len() {
            let part = pieces(&STREAM[..cut]);
            assert_eq!(part[..], whole[..part.len()], "cut at {cut}");
        }
    }

    #[test]
    fn restricted_xml_and_stray_text_are_broken() {
        assert_eq!(next_piece(b"text"), Piece::Broken);
        assert_eq!(next_piece(b"<a><!-- x --></a>"), Piece::Broken);
    }

    #[test]
    fn attributes_are_found_by_their_whole_name() {
        let element =
            b"<message xfrom='no' xml:from=\"no\" from = 'a@b/&lt;' type=\"chat\">from='x'";
        assert_eq!(attribute(element, b"from"), Some(&b"a@b/&lt;"[..]));
        assert_eq!(attribute(element, b"type"), Some(&b"chat"[..]));
        assert_eq!(attribute(element, b"id"), None);
        assert_eq!(unescape(b"a@b/&lt;&amp;&x"), b"a@b/<&&x");
    }

    #[test]
    fn texts_are_found_by_their_element() {
        let features = b"<features><mechanism>SCRAM-SHA-1</mechanism><b/><jid>x</jid></features>";
        assert_eq!(text_of(features, b"jid"), Some(&b"x"[..]));
        assert_eq!(text_of(features, b"none"), None);
        assert!(holds_text(features, b"mechanism", b"SCRAM-SHA-1"));
        assert!(!holds_text(features, b"mechanism", b"SCRAM-SHA"));
        assert!(!holds_text(features, b"jid", b"SCRAM-SHA-1"));
    }
}
