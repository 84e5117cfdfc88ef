//! The namespaces of one element: each is decoded, and looked for among the others, once, where it
//! is declared.
//!
//! Invariant: two [`NsRef`]s of one walk are equal if and only if their namespaces are. So whoever
//! compares, counts or keeps namespaces of names pays nothing for their size.

use crate::lexis::Span;
use crate::ns::Ns;
use crate::scope::{PREFIXES_MAX, StreamScope};
use crate::stack::Stack;
use std::borrow::Cow;

/// Namespaces that need no heap.
const NEAR: usize = 4;
/// Bytes up to which namespaces are compared without a hash.
const SHORT: usize = 64;

/// A namespace as the names of one element refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NsRef {
    /// There is no namespace.
    None,
    /// One of the table.
    Known(Ns),
    /// The default one of the stream header.
    Stream,
    /// That of a prefix of the stream header, the first prefix if several have it.
    StreamPrefix(u8),
    /// One that the element declares first.
    Here(u16),
}

impl NsRef {
    /// The namespace, interned.
    #[inline(always)]
    pub(crate) fn interned(self) -> Ns {
        match self {
            NsRef::Known(ns) => ns,
            _ => Ns::Unknown,
        }
    }

    /// A small number of its own for each namespace that is not interned.
    pub(crate) fn slot(self) -> Option<usize> {
        match self {
            NsRef::None | NsRef::Known(_) => None,
            NsRef::Stream => Some(0),
            NsRef::StreamPrefix(index) => Some(1 + usize::from(index)),
            NsRef::Here(index) => Some(1 + PREFIXES_MAX + usize::from(index)),
        }
    }
}

/// What long namespaces and prefixes are compared by first, for there may be many.
pub(crate) fn hash(text: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes()) as u32
}

/// The text of a namespace: in the element, or decoded.
#[derive(Clone, Copy, Debug)]
struct Uri {
    span: Span,
    /// 0 for short ones.
    hash: u32,
    is_decoded: bool,
}

/// The namespaces, neither interned nor the stream header's, that an element declares.
#[derive(Debug)]
pub(crate) struct Namespaces {
    uris: Stack<Uri, NEAR>,
    decoded: String,
}

impl Namespaces {
    #[inline(always)]
    pub(crate) fn new() -> Namespaces {
        Namespaces {
            uris: Stack::new(Uri {
                span: Span::default(),
                hash: 0,
                is_decoded: false,
            }),
            decoded: String::new(),
        }
    }

    /// Notes a namespace that is not interned: `uri` is what `value` says.
    pub(crate) fn declare(
        &mut self,
        value: Span,
        uri: Cow<'_, str>,
        text: &str,
        scope: &StreamScope,
    ) -> NsRef {
        if uri.is_empty() {
            return NsRef::None;
        }
        if let Some(ns) = scope.find(&uri) {
            return ns;
        }
        let hash = match uri.len() {
            0..=SHORT => 0,
            _ => hash(&uri),
        };
        let is_same = |known: &Uri| {
            let may_be = (known.hash, known.span.size) == (hash, uri.len() as u32);
            may_be && *self.text(*known, text) == *uri
        };
        if let Some(index) = self.uris.iter().position(is_same) {
            return NsRef::Here(index as u16);
        }
        let span = match uri {
            Cow::Borrowed(_) => value,
            Cow::Owned(_) => {
                let start = self.decoded.len();
                self.decoded.push_str(&uri);
                Span::new(start, self.decoded.len())
            }
        };
        let index = self.uris.len() as u16;
        self.uris.push(Uri {
            span,
            hash,
            is_decoded: matches!(uri, Cow::Owned(_)),
        });
        NsRef::Here(index)
    }

    /// The namespace as text.
    pub(crate) fn uri<'n>(&'n self, ns: NsRef, text: &'n str, scope: &'n StreamScope) -> &'n str {
        match ns {
            NsRef::None => "",
            NsRef::Known(ns) => ns.as_str(),
            NsRef::Stream => &scope.default,
            NsRef::StreamPrefix(index) => &scope.prefixes[usize::from(index)].uri,
            NsRef::Here(index) => self.text(self.uris.get(usize::from(index)), text),
        }
    }

    fn text<'n>(&'n self, uri: Uri, text: &'n str) -> &'n str {
        #[cfg(test)]
        tests::touch(uri.span.size as usize);
        uri.span
            .of(if uri.is_decoded { &self.decoded } else { text })
    }
}

#[cfg(test)]
pub(crate) mod tests;
