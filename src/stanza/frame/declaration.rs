//! The XML declaration and what may follow it: seen once per stream, so byte by byte.

use super::{State, is_space};
use crate::error::XmlError;

/// Scans on from `at` in the declaration or behind it. Answers where it stopped and in which state:
/// `Angle` behind the `<` of the stream header, or the state in which more bytes are awaited.
#[cold]
pub(super) fn scan(state: State, bytes: &[u8], at: usize) -> Result<(usize, State), XmlError> {
    let mut at = at.min(bytes.len());
    if state == State::Declaration {
        match bytes[at..].iter().position(|&b| b == b'>') {
            None => return Ok((bytes.len(), State::Declaration)),
            Some(greater) => {
                at += greater + 1;
                check(&bytes[..at])?;
            }
        }
    }
    at += bytes[at..].iter().take_while(|&&b| is_space(b)).count();
    match bytes.get(at) {
        None => Ok((at, State::Prolog)),
        Some(b'<') => Ok((at + 1, State::Angle)),
        Some(_) => Err(XmlError::NotWellFormed),
    }
}

/// The size of the declaration at the front of a complete stream header; 0 without one.
pub(crate) fn size(header: &[u8]) -> usize {
    if !header.starts_with(b"<?") {
        return 0;
    }
    header
        .iter()
        .position(|&b| b == b'>')
        .map_or(0, |at| at + 1)
}

/// XML 1.0 2.8: version, then perhaps encoding, then perhaps standalone.
fn check(declaration: &[u8]) -> Result<(), XmlError> {
    let mut rest = declaration
        .strip_prefix(b"<?xml")
        .and_then(|rest| rest.strip_suffix(b"?>"))
        .ok_or(XmlError::NotWellFormed)?;
    let version = pseudo_attribute(&mut rest, b"version")?.ok_or(XmlError::NotWellFormed)?;
    let minor = version.strip_prefix(b"1.").ok_or(XmlError::NotWellFormed)?;
    if minor.is_empty() || !minor.iter().all(u8::is_ascii_digit) {
        return Err(XmlError::NotWellFormed);
    }
    if let Some(encoding) = pseudo_attribute(&mut rest, b"encoding")? {
        // RFC 6120 11.6: UTF-8 only.
        if !encoding.eq_ignore_ascii_case(b"utf-8") {
            return Err(XmlError::UnsupportedEncoding);
        }
    }
    let standalone = pseudo_attribute(&mut rest, b"standalone")?;
    if !matches!(standalone, None | Some(b"yes" | b"no")) {
        return Err(XmlError::NotWellFormed);
    }
    if rest.iter().all(|&b| is_space(b)) {
        Ok(())
    } else {
        Err(XmlError::NotWellFormed)
    }
}

/// Takes ` name = 'value'` off the front, if that name stands there.
fn pseudo_attribute<'b>(rest: &mut &'b [u8], name: &[u8]) -> Result<Option<&'b [u8]>, XmlError> {
    let Some(after) = rest.trim_ascii_start().strip_prefix(name) else {
        return Ok(None);
    };
    if !rest.first().is_some_and(|&b| is_space(b)) {
        return Err(XmlError::NotWellFormed);
    }
    let value = after
        .trim_ascii_start()
        .strip_prefix(b"=")
        .ok_or(XmlError::NotWellFormed)?;
    let value = value.trim_ascii_start();
    let (&quote, value) = value.split_first().ok_or(XmlError::NotWellFormed)?;
    if quote != b'\'' && quote != b'"' {
        return Err(XmlError::NotWellFormed);
    }
    let end = value
        .iter()
        .position(|&b| b == quote)
        .ok_or(XmlError::NotWellFormed)?;
    *rest = &value[end + 1..];
    Ok(Some(&value[..end]))
}
