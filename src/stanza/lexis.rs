//! The small words of XML: names, references, white space, and what they stand for.

use crate::error::XmlError;
use std::borrow::Cow;

/// May start a name.
pub(crate) const NAME_START: u8 = 1;
/// May continue a name.
pub(crate) const NAME: u8 = 2;
/// White space.
pub(crate) const SPACE: u8 = 4;

/// What each ASCII byte may be; the colon and bytes above ASCII are dealt with apart.
pub(crate) const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        if b.is_ascii_alphabetic() || b == b'_' {
            class[byte] = NAME_START | NAME;
        } else if b.is_ascii_digit() || b == b'-' || b == b'.' {
            class[byte] = NAME;
        } else if matches!(b, b' ' | b'\t' | b'\r' | b'\n') {
            class[byte] = SPACE;
        }
        byte += 1;
    }
    class
};

/// A piece of the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) size: u32,
}

impl Span {
    /// No piece at all.
    pub(crate) const NONE: Span = Span {
        start: u32::MAX,
        size: 0,
    };

    #[inline(always)]
    pub(crate) fn new(start: usize, end: usize) -> Span {
        Span {
            start: start as u32,
            size: (end - start) as u32,
        }
    }

    #[inline(always)]
    pub(crate) fn end(self) -> usize {
        self.start as usize + self.size as usize
    }

    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        self.start == u32::MAX
    }

    #[inline(always)]
    pub(crate) fn of(self, text: &str) -> &str {
        &text[self.start as usize..self.end()]
    }

    #[inline(always)]
    pub(crate) fn bytes(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end()]
    }
}

/// Reads a qualified name: where it ends, and the size of its prefix (0 without one).
#[inline(always)]
pub(crate) fn name(text: &str, start: usize) -> Result<(usize, usize), XmlError> {
    let bytes = text.as_bytes();
    let mut at = start;
    let mut prefix = 0;
    loop {
        let byte = *bytes.get(at).ok_or(XmlError::NotWellFormed)?;
        let class = CLASS[byte as usize];
        if class & NAME != 0 {
            at += 1;
        } else if byte == b':' && prefix == 0 && at > start {
            prefix = at - start;
            at += 1;
            if CLASS[*bytes.get(at).ok_or(XmlError::NotWellFormed)? as usize] & NAME_START == 0 {
                return foreign_name(text, start);
            }
        } else if byte >= 0x80 {
            return foreign_name(text, start);
        } else {
            break;
        }
    }
    if at == start || CLASS[bytes[start] as usize] & NAME_START == 0 || bytes[at] == b':' {
        return Err(XmlError::NotWellFormed);
    }
    Ok((at, prefix))
}

/// The same for names with characters above ASCII.
#[cold]
fn foreign_name(text: &str, start: usize) -> Result<(usize, usize), XmlError> {
    let mut prefix = 0;
    let mut part = start;
    let mut end = text.len();
    for (i, c) in text[start..].char_indices() {
        let at = start + i;
        if c == ':' && prefix == 0 && at > part {
            prefix = at - start;
            part = at + 1;
        } else if at == part && !starts_name(c) {
            return Err(XmlError::NotWellFormed);
        } else if !continues_name(c) {
            end = at;
            break;
        }
    }
    if end == part || text.as_bytes().get(end) == Some(&b':') {
        return Err(XmlError::NotWellFormed);
    }
    Ok((end, prefix))
}

/// XML 1.0 2.3 without the colon.
fn starts_name(c: char) -> bool {
    matches!(c,
        'A'..='Z' | '_' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}'
        | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}'
        | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}'
        | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
        | '\u{10000}'..='\u{effff}')
}

fn continues_name(c: char) -> bool {
    starts_name(c)
        || matches!(c, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}'
            | '\u{203f}'..='\u{2040}')
}

/// Checks the reference whose `&` stands at `at`; answers where it ends.
#[cold]
pub(crate) fn reference(text: &str, at: usize) -> Result<usize, XmlError> {
    let rest = &text[at + 1..];
    let end = rest.find(';').ok_or(XmlError::NotWellFormed)?;
    let body = &rest[..end];
    if body.starts_with('#') {
        character(body).ok_or(XmlError::NotWellFormed)?;
    } else if predefined(body).is_none() {
        // RFC 6120 11.1: an entity beyond the five is restricted, what is no entity is malformed.
        let mut chars = body.chars();
        let is_name = chars.next().is_some_and(|c| starts_name(c) || c == ':')
            && chars.all(|c| continues_name(c) || c == ':');
        return Err(if is_name {
            XmlError::Restricted
        } else {
            XmlError::NotWellFormed
        });
    }
    Ok(at + 1 + end + 1)
}

fn predefined(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => None,
    }
}

/// The character of `#65` or `#x41`, if XML allows it.
fn character(body: &str) -> Option<char> {
    let digits = body.strip_prefix('#')?;
    let (digits, radix) = match digits.strip_prefix('x') {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    if digits.is_empty() {
        return None;
    }
    let mut code = 0_u32;
    for digit in digits.chars() {
        code = code
            .saturating_mul(radix)
            .saturating_add(digit.to_digit(radix)?);
    }
    let c = char::from_u32(code)?;
    let allowed = matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    allowed.then_some(c)
}

/// The value of an attribute: references resolved, literal white space as spaces (XML 1.0 3.3.3).
#[inline]
pub(crate) fn attribute_value(raw: &str) -> Cow<'_, str> {
    #[cfg(test)]
    crate::namespaces::tests::touch(raw.len());
    if !raw
        .bytes()
        .fold(false, |found, b| found | (b == b'&') | (b < b' '))
    {
        Cow::Borrowed(raw)
    } else {
        resolve(raw, true)
    }
}

/// Character data: references resolved, line ends as line feeds (XML 1.0 2.11).
#[inline]
pub(crate) fn character_data(raw: &str, is_cdata: bool) -> Cow<'_, str> {
    if is_cdata {
        if !raw.contains('\r') {
            return Cow::Borrowed(raw);
        }
        return Cow::Owned(raw.replace("\r\n", "\n").replace('\r', "\n"));
    }
    if raw.bytes().all(|b| b != b'&' && b != b'\r') {
        return Cow::Borrowed(raw);
    }
    resolve(raw, false)
}

/// Resolves what was checked before ([`reference`]).
#[cold]
fn resolve(raw: &str, is_attribute: bool) -> Cow<'_, str> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(['&', '\r', '\n', '\t']) {
        out.push_str(&rest[..at]);
        let found = rest.as_bytes()[at];
        rest = &rest[at + 1..];
        if found == b'&' {
            let (body, after) = rest.split_once(';').unwrap_or((rest, ""));
            out.extend(predefined(body).or_else(|| character(body)));
            rest = after;
            continue;
        }
        if found == b'\r' {
            rest = rest.strip_prefix('\n').unwrap_or(rest);
        }
        out.push(match found {
            _ if is_attribute => ' ',
            b'\t' => '\t',
            _ => '\n',
        });
    }
    out.push_str(rest);
    Cow::Owned(out)
}
