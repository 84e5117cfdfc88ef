//! What a stream header declared: it is in force for every stanza of the stream.

use crate::namespaces::{self, NsRef};
use crate::ns::Ns;

/// Prefixes one stream header may declare; the view keeps the used ones in one word.
pub const PREFIXES_MAX: usize = 64;

/// Bytes of all that a stream header hands on to its stanzas: namespaces, prefixes and `xml:lang`.
/// Each stanza that goes on elsewhere may have to repeat them.
pub const SCOPE_SIZE_MAX: usize = 1 << 10;

/// A namespace prefix and what it stands for, character references resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix, without the colon.
    pub name: Box<str>,
    /// The namespace.
    pub uri: Box<str>,
    /// The same, as names refer to it.
    pub(crate) ns: NsRef,
    /// That of the name.
    pub(crate) hash: u32,
}

impl Prefix {
    pub(crate) fn new(name: &str, uri: &str) -> Prefix {
        Prefix {
            name: name.into(),
            uri: uri.into(),
            ns: NsRef::None,
            hash: namespaces::hash(name),
        }
    }
}

/// The declarations in force at the root of every stanza of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamScope {
    pub(crate) default: Box<str>,
    pub(crate) default_ns: Ns,
    /// The default namespace, as names refer to it.
    pub(crate) default_ref: NsRef,
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
            default_ref: match default {
                Ns::Unknown => NsRef::None,
                known => NsRef::Known(known),
            },
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

    /// Bytes of what is handed on to stanzas.
    pub(crate) fn size(&self) -> usize {
        let lang = self.lang.as_ref().map_or(0, |lang| lang.len());
        let prefixes = self.prefixes.iter().map(|p| p.name.len() + p.uri.len());
        self.default.len() + lang + prefixes.sum::<usize>()
    }

    /// Gives each namespace what names refer to it by: the same to those that are the same.
    pub(crate) fn identify(&mut self) {
        self.default_ref = match self.default_ns {
            Ns::Unknown if self.default.is_empty() => NsRef::None,
            Ns::Unknown => NsRef::Stream,
            known => NsRef::Known(known),
        };
        for i in 0..self.prefixes.len() {
            let uri = &self.prefixes[i].uri;
            let ns = match Ns::intern(uri.as_bytes()) {
                // The first of those that are the same is this one, if no other is.
                Ns::Unknown => self.find(uri).unwrap_or(NsRef::None),
                known => NsRef::Known(known),
            };
            self.prefixes[i].ns = ns;
        }
    }

    /// What a namespace that is not interned is referred to by, if the header declares it.
    pub(crate) fn find(&self, uri: &str) -> Option<NsRef> {
        if !uri.is_empty() && *self.default == *uri {
            return Some(NsRef::Stream);
        }
        let index = self.prefixes.iter().position(|p| *p.uri == *uri)?;
        Some(NsRef::StreamPrefix(index as u8))
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
