//! What a stream header declared: it is in force for every stanza of the stream.

use crate::ns::Ns;

/// Prefixes one stream header may declare; the view keeps the used ones in one word.
pub const PREFIXES_MAX: usize = 64;

/// A namespace prefix and what it stands for, character references resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix, without the colon.
    pub name: Box<str>,
    /// The namespace.
    pub uri: Box<str>,
}

/// The declarations in force at the root of every stanza of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamScope {
    pub(crate) default: Box<str>,
    pub(crate) default_ns: Ns,
    pub(crate) prefixes: Box<[Prefix]>,
    pub(crate) lang: Option<Box<str>>,
    pub(crate) name: Box<str>,
}

impl StreamScope {
    /// The scope of a stanza that stands on its own in `jabber:client`: what parcels and stores
    /// hold.
    pub fn client() -> StreamScope {
        StreamScope::of(Ns::Client)
    }

    /// The scope of a stream that declares nothing but this default namespace.
    pub fn of(default: Ns) -> StreamScope {
        StreamScope {
            default: default.as_str().into(),
            default_ns: default,
            prefixes: Box::default(),
            lang: None,
            name: "stream:stream".into(),
        }
    }

    /// The default namespace, interned.
    pub fn default_ns(&self) -> Ns {
        self.default_ns
    }

    /// The default namespace as declared; empty if none is.
    pub fn default_str(&self) -> &str {
        &self.default
    }

    /// The prefixes, in the order of the header.
    pub fn prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }

    /// The stream's `xml:lang`.
    pub fn lang(&self) -> Option<&str> {
        self.lang.as_deref()
    }

    /// Whether these bytes, a `StreamClose` frame, close the stream that the header opened.
    pub fn closes(&self, bytes: &[u8]) -> bool {
        let Some(rest) = bytes.strip_prefix(b"</") else {
            return false;
        };
        let Some(rest) = rest.strip_prefix(self.name.as_bytes()) else {
            return false;
        };
        let Some(space) = rest.strip_suffix(b">") else {
            return false;
        };
        space
            .iter()
            .all(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
    }
}
