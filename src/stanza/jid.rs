//! JIDs in prepared form: what is compared, hashed, stored and stamped.
//!
//! Invariant: the text of a [`Jid`], [`BareJid`] or [`FullJid`] is a fixed point of preparation, so
//! two addresses are the same if and only if their bytes are. Lower-case ASCII is prepared already
//! and is borrowed from the wire; everything else takes the slow path of [`prepare`].

mod owned;
mod prepare;

pub use owned::{BareJid, FullJid};
pub use prepare::{check_new_local, prepare_password, prepare_resource};

use std::borrow::Cow;
use std::fmt;

/// Bytes of each part of a JID (RFC 7622 3).
pub const PART_SIZE_MAX: usize = 1023;

/// Bytes of one label of a domain, as in DNS.
pub const LABEL_SIZE_MAX: usize = 63;

/// Virtual shards that accounts hash to; the table from these to real shards is the cluster's.
pub const VIRTUAL_SHARDS: u16 = 4096;

/// Why a text is no JID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JidError {
    /// A part is empty, before or after preparation.
    Empty,
    /// A part is longer than 1023 bytes.
    TooLong,
    /// The localpart contains what it must not.
    Local,
    /// The domainpart is neither a domain nor an address.
    Domain,
    /// The resourcepart contains what it must not.
    Resource,
    /// The password contains what it must not.
    Password,
    /// The address has a resource where none may be, or none where one must be.
    WrongKind,
    /// The name is not the same under nodeprep and PRECIS, so it cannot be an account here.
    Ambiguous,
}

impl fmt::Display for JidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JidError::Empty => "a part is empty",
            JidError::TooLong => "a part is longer than 1023 bytes",
            JidError::Local => "the localpart has a forbidden character",
            JidError::Domain => "the domainpart is no domain",
            JidError::Resource => "the resourcepart has a forbidden character",
            JidError::Password => "the password has a forbidden character",
            JidError::WrongKind => "a bare JID was given for a full one, or the reverse",
            JidError::Ambiguous => "the localpart differs between nodeprep and PRECIS",
        })
    }
}

impl std::error::Error for JidError {}

/// A prepared JID, bare or full, borrowed from the wire where possible.
#[derive(Clone, Debug)]
pub struct Jid<'a> {
    text: Cow<'a, str>,
    /// Where the domain starts: 0 without a localpart, else one past the `@`.
    domain: u16,
    /// Where the bare JID ends: the place of the `/`, or the length of the text.
    end: u16,
}

impl<'a> Jid<'a> {
    /// Prepares a JID. Lower-case ASCII is borrowed, all else is copied.
    pub fn parse(text: &'a str) -> Result<Jid<'a>, JidError> {
        if let Some((domain, end)) = split_prepared(text.as_bytes()) {
            return Ok(Jid {
                text: Cow::Borrowed(text),
                domain,
                end,
            });
        }
        Jid::parse_slow(text)
    }

    /// A JID from text that was prepared before: another JID's `as_str`, or what a store returned.
    ///
    /// Text that never was prepared makes a JID that equals no other; it breaks nothing else.
    pub fn from_prepared(text: &'a str) -> Jid<'a> {
        let (domain, end) = split(text);
        Jid {
            text: Cow::Borrowed(text),
            domain: domain as u16,
            end: end as u16,
        }
    }

    fn parse_slow(text: &str) -> Result<Jid<'a>, JidError> {
        let (domain_at, end) = split(text);
        let mut out = String::with_capacity(text.len() + 16);
        if domain_at > 0 {
            out.push_str(&prepare::local(&text[..domain_at - 1])?);
            out.push('@');
        }
        let domain = out.len() as u16;
        out.push_str(&prepare::domain(&text[domain_at..end])?);
        let bare_end = out.len() as u16;
        if end < text.len() {
            out.push('/');
            out.push_str(&prepare_resource(&text[end + 1..])?);
        }
        Ok(Jid {
            text: Cow::Owned(out),
            domain,
            end: bare_end,
        })
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the `@`.
    pub fn local(&self) -> Option<&str> {
        (self.domain > 0).then(|| &self.text[..self.domain as usize - 1])
    }

    /// The domain, internationalised labels as A-labels.
    pub fn domain(&self) -> &str {
        &self.text[self.domain as usize..self.end as usize]
    }

    /// What stands behind the `/`.
    pub fn resource(&self) -> Option<&str> {
        self.text.get(self.end as usize + 1..)
    }

    /// The address without its resource.
    pub fn bare(&self) -> &str {
        &self.text[..self.end as usize]
    }

    /// Whether there is no resource.
    pub fn is_bare(&self) -> bool {
        self.end as usize == self.text.len()
    }

    /// The bare JID, owned.
    pub fn to_bare(&self) -> BareJid {
        BareJid::from_parts(self.bare(), self.domain)
    }

    /// The full JID, owned; `None` without a resource.
    pub fn to_full(&self) -> Option<FullJid> {
        (!self.is_bare()).then(|| FullJid::from_parts(&self.text, self.domain, self.end))
    }
}

impl PartialEq for Jid<'_> {
    fn eq(&self, other: &Jid<'_>) -> bool {
        self.text == other.text
    }
}

impl Eq for Jid<'_> {}

impl fmt::Display for Jid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The hash by which accounts are spread. It never changes: stores and clusters rely on it.
pub fn home_hash(bare: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bare.as_bytes())
}

/// The virtual shard of an account, below [`VIRTUAL_SHARDS`].
pub fn virtual_shard(bare: &str) -> u16 {
    (home_hash(bare) >> 52) as u16
}

/// Where the domain starts and where it ends, in any text (RFC 7622 3.1).
fn split(text: &str) -> (usize, usize) {
    // Of so few bytes a search for several at a time would take longer.
    let place = |bytes: &[u8], sign: u8| bytes.iter().position(|byte| *byte == sign);
    let bytes = text.as_bytes();
    let end = place(bytes, b'/').unwrap_or(bytes.len());
    (place(&bytes[..end], b'@').map_or(0, |at| at + 1), end)
}

/// A prepared JID without its resource.
pub fn bare_of(prepared: &str) -> &str {
    &prepared[..split(prepared).1]
}

/// May stand in a localpart and needs no mapping.
const LOCAL: u8 = 1;
/// May stand in a domain and needs no mapping.
const DOMAIN: u8 = 2;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        let b = byte as u8;
        if !matches!(
            b,
            b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@' | b'A'..=b'Z'
        ) {
            class[byte] |= LOCAL;
        }
        if matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_') {
            class[byte] |= DOMAIN;
        }
        byte += 1;
    }
    class
};

/// Splits a JID whose bytes are all prepared already; `None` sends it to the slow path.
#[inline]
fn split_prepared(bytes: &[u8]) -> Option<(u16, u16)> {
    let run = bytes
        .iter()
        .position(|&b| CLASS[b as usize] & LOCAL == 0)
        .unwrap_or(bytes.len());
    let domain = match bytes.get(run) {
        Some(b'@') if run > 0 && run <= PART_SIZE_MAX => run + 1,
        Some(b'/') | None => 0,
        _ => return None,
    };
    let mut before = b'.';
    let mut end = domain;
    let mut label = domain;
    while let Some(&byte) = bytes.get(end) {
        if CLASS[byte as usize] & DOMAIN == 0 {
            break;
        }
        // Empty and long labels and labels that end in a hyphen are errors; two hyphens may be an
        // A-label, and a trailing dot is dropped: all of them are for the slow path to judge.
        match byte {
            b'.' | b'-' if matches!(before, b'.' | b'-') => return None,
            b'.' if before == b'-' || end - label > LABEL_SIZE_MAX => return None,
            b'.' => label = end + 1,
            _ => {}
        }
        before = byte;
        end += 1;
    }
    let is_long = end - label > LABEL_SIZE_MAX || end - domain > PART_SIZE_MAX;
    if matches!(before, b'.' | b'-') || is_long {
        return None;
    }
    match bytes.get(end) {
        None => {}
        Some(b'/') => {
            let resource = &bytes[end + 1..];
            let printable = resource
                .iter()
                .fold(true, |ok, &b| ok & (b.wrapping_sub(0x20) < 0x5f));
            if !printable || resource.is_empty() || resource.len() > PART_SIZE_MAX {
                return None;
            }
        }
        Some(_) => return None,
    }
    Some((domain as u16, end as u16))
}

#[cfg(test)]
mod tests;
