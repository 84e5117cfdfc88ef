//! JIDs that own their text: keys of tables and fields of sessions.

use super::{Jid, JidError, split};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// A prepared JID without a resource.
#[derive(Clone)]
pub struct BareJid {
    text: Box<str>,
    domain: u16,
}

/// A prepared JID with a resource.
#[derive(Clone)]
pub struct FullJid {
    text: Box<str>,
    domain: u16,
    end: u16,
}

impl BareJid {
    pub(super) fn from_parts(text: &str, domain: u16) -> BareJid {
        BareJid {
            text: text.into(),
            domain,
        }
    }

    /// Prepares a bare JID; a resource is an error.
    pub fn parse(text: &str) -> Result<BareJid, JidError> {
        let jid = Jid::parse(text)?;
        if jid.is_bare() {
            Ok(jid.to_bare())
        } else {
            Err(JidError::WrongKind)
        }
    }

    /// A bare JID from text that was prepared before, as in [`Jid::from_prepared`].
    pub fn from_prepared(text: &str) -> BareJid {
        let (domain, end) = split(text);
        BareJid {
            text: text[..end].into(),
            domain: domain as u16,
        }
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the `@`.
    pub fn local(&self) -> Option<&str> {
        (self.domain > 0).then(|| &self.text[..self.domain as usize - 1])
    }

    /// The domain.
    pub fn domain(&self) -> &str {
        &self.text[self.domain as usize..]
    }

    /// The same address, borrowed.
    pub fn as_jid(&self) -> Jid<'_> {
        Jid::from_prepared(&self.text)
    }

    /// This address with a resource, which is prepared here.
    pub fn with_resource(&self, resource: &str) -> Result<FullJid, JidError> {
        let resource = super::prepare_resource(resource)?;
        let text = format!("{}/{resource}", self.text);
        Ok(FullJid::from_parts(
            &text,
            self.domain,
            self.text.len() as u16,
        ))
    }
}

impl FullJid {
    pub(super) fn from_parts(text: &str, domain: u16, end: u16) -> FullJid {
        FullJid {
            text: text.into(),
            domain,
            end,
        }
    }

    /// Prepares a full JID; a missing resource is an error.
    pub fn parse(text: &str) -> Result<FullJid, JidError> {
        Jid::parse(text)?.to_full().ok_or(JidError::WrongKind)
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the `@`.
    pub fn local(&self) -> Option<&str> {
        (self.domain > 0).then(|| &self.text[..self.domain as usize - 1])
    }

    /// The domain.
    pub fn domain(&self) -> &str {
        &self.text[self.domain as usize..self.end as usize]
    }

    /// What stands behind the `/`.
    pub fn resource(&self) -> &str {
        &self.text[self.end as usize + 1..]
    }

    /// The address without its resource.
    pub fn bare(&self) -> &str {
        &self.text[..self.end as usize]
    }

    /// The bare JID, owned.
    pub fn to_bare(&self) -> BareJid {
        BareJid::from_parts(self.bare(), self.domain)
    }

    /// The same address, borrowed.
    pub fn as_jid(&self) -> Jid<'_> {
        Jid::from_prepared(&self.text)
    }
}

/// Equality, order and hash are those of the text: tables are searched by `&str`.
macro_rules! text_like {
    ($type:ty) => {
        impl PartialEq for $type {
            fn eq(&self, other: &$type) -> bool {
                self.text == other.text
            }
        }

        impl Eq for $type {}

        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &$type) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $type {
            fn cmp(&self, other: &$type) -> Ordering {
                self.text.cmp(&other.text)
            }
        }

        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.text.hash(state);
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.text
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.text
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.text, f)
            }
        }
    };
}

text_like!(BareJid);
text_like!(FullJid);
