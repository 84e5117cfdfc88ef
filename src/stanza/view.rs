//! One borrowed stanza: checked to be well-formed once, with the facts that routing asks for.
//!
//! Invariant: whoever holds a [`StanzaView`] holds well-formed, restricted XML; nobody checks
//! again.

mod header;

pub use crate::error::XmlError;
pub use header::StreamHeader;

use crate::lexis::{self, Span};
use crate::ns::Ns;
use crate::scope::StreamScope;
use crate::simd;
use crate::walk::{Sink, Tag, Walk};
use std::borrow::Cow;

/// What a top-level element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `<message/>` in a content namespace.
    Message,
    /// `<presence/>` in a content namespace.
    Presence,
    /// `<iq/>` in a content namespace.
    Iq,
    /// Any other element.
    Other,
}

/// Attributes of the root that a new stamp replaces: `to`, `from` and the default namespace.
const CUTS: usize = 3;

/// A well-formed element of a stream, borrowed.
#[derive(Clone, Debug)]
pub struct StanzaView<'a> {
    text: &'a str,
    /// Bit by bit, the interned namespaces of the child elements.
    child_ns: u128,
    /// Bit by bit, the stream header's prefixes that are used anywhere inside.
    used: u64,
    /// The qualified name of the root.
    name: Span,
    to: Span,
    from: Span,
    id: Span,
    type_: Span,
    lang: Span,
    /// The local name of the first child.
    payload: Span,
    /// Attributes of the root with the white space before them, first to last: (from, end).
    cuts: [(u32, u32); CUTS],
    /// Where the attributes of the root end.
    attributes_end: u32,
    child_count: u32,
    /// The size of the root's prefix.
    prefix: u32,
    ns: Ns,
    payload_ns: Ns,
    kind: Kind,
    has_body: bool,
}

const _: () = assert!(
    size_of::<StanzaView<'_>>() <= 160,
    "made on the stack for every stanza"
);

impl<'a> StanzaView<'a> {
    /// Checks an `Element` frame and notes the facts. After this nobody checks again.
    pub fn parse(bytes: &'a [u8], scope: &StreamScope) -> Result<StanzaView<'a>, XmlError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(XmlError::TooBig);
        }
        let text = simd::check_characters(bytes)?;
        let mut walk = Walk::new(text, scope);
        let mut facts = Facts {
            view: StanzaView::blank(text),
            cuts: 0,
        };
        walk.run(&mut facts)?;
        facts.view.used = walk.used;
        Ok(facts.view)
    }

    fn blank(text: &'a str) -> StanzaView<'a> {
        StanzaView {
            text,
            child_ns: 0,
            used: 0,
            name: Span::NONE,
            to: Span::NONE,
            from: Span::NONE,
            id: Span::NONE,
            type_: Span::NONE,
            lang: Span::NONE,
            payload: Span::NONE,
            cuts: [(0, 0); CUTS],
            attributes_end: 0,
            child_count: 0,
            prefix: 0,
            ns: Ns::Unknown,
            payload_ns: Ns::Unknown,
            kind: Kind::Other,
            has_body: false,
        }
    }

    /// What the element is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The local name of the element.
    pub fn name(&self) -> &'a str {
        let name = self.name.of(self.text);
        if self.prefix == 0 {
            name
        } else {
            &name[self.prefix as usize + 1..]
        }
    }

    /// The namespace of the element.
    pub fn ns(&self) -> Ns {
        self.ns
    }

    /// `to`, references resolved.
    pub fn to(&self) -> Option<Cow<'a, str>> {
        self.value(self.to)
    }

    /// `from`, references resolved.
    pub fn from(&self) -> Option<Cow<'a, str>> {
        self.value(self.from)
    }

    /// `id`, references resolved.
    pub fn id(&self) -> Option<Cow<'a, str>> {
        self.value(self.id)
    }

    /// `type`, references resolved.
    pub fn type_(&self) -> Option<Cow<'a, str>> {
        self.value(self.type_)
    }

    /// The element's own `xml:lang`, references resolved.
    pub fn lang(&self) -> Option<Cow<'a, str>> {
        self.value(self.lang)
    }

    fn value(&self, span: Span) -> Option<Cow<'a, str>> {
        (!span.is_none()).then(|| lexis::attribute_value(span.of(self.text)))
    }

    /// Namespace and local name of the first child element.
    pub fn payload(&self) -> Option<(Ns, &'a str)> {
        (self.child_count > 0).then(|| (self.payload_ns, self.payload.of(self.text)))
    }

    /// How many child elements there are.
    pub fn child_count(&self) -> usize {
        self.child_count as usize
    }

    /// Whether a child element is in this namespace; never true of `Ns::Unknown`.
    pub fn has_child_ns(&self, ns: Ns) -> bool {
        ns != Ns::Unknown && self.child_ns & 1 << ns as u8 != 0
    }

    /// Whether a child element is in one of several namespaces, see [`Ns::set`].
    #[inline]
    pub fn has_child_in(&self, set: u128) -> bool {
        self.child_ns & set != 0
    }

    /// Whether there is a `<body/>` in the element's own namespace.
    pub fn has_body(&self) -> bool {
        self.has_body
    }

    /// A hash of all that the stanza says. It never changes: stores keep it.
    pub fn content_hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.bytes())
    }

    /// The element as it was received.
    pub fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// Whether the root says in its own name and default namespace that it is a stanza, so that it
    /// can be restamped by copying.
    pub fn is_plain(&self) -> bool {
        self.prefix == 0 && is_content(self.ns)
    }

    /// Where the root's name ends.
    pub(crate) fn name_end(&self) -> usize {
        self.name.end()
    }

    /// Where the root's attributes end.
    pub(crate) fn attributes_end(&self) -> usize {
        self.attributes_end as usize
    }

    /// The pieces of the root's tag that a new stamp replaces, in order; unused ones are empty.
    pub(crate) fn cuts(&self) -> impl Iterator<Item = (usize, usize)> {
        self.cuts
            .iter()
            .map(|&(from, end)| (from as usize, end as usize))
    }

    /// The stream header's prefixes in use, bit by bit.
    pub(crate) fn used_prefixes(&self) -> u64 {
        self.used
    }
}

/// Whether stanzas of this namespace are ours to route, whatever kind of stream they came by.
pub(crate) fn is_content(ns: Ns) -> bool {
    matches!(ns, Ns::Client | Ns::Server | Ns::ComponentAccept)
}

/// The sink that fills a view.
struct Facts<'a> {
    view: StanzaView<'a>,
    cuts: usize,
}

impl Facts<'_> {
    fn cut(&mut self, from: u32, end: u32) {
        // Each of the three names occurs once, or the tag was refused as a duplicate.
        self.view.cuts[self.cuts] = (from, end);
        self.cuts += 1;
    }

    #[inline(always)]
    fn root(&mut self, walk: &Walk<'_>, tag: &Tag) {
        let bytes = walk.text.as_bytes();
        let view = &mut self.view;
        view.name = tag.name;
        view.prefix = tag.prefix;
        view.attributes_end = tag.attributes_end;
        view.ns = tag.ns.interned();
        if is_content(view.ns) {
            view.kind = match tag.local().bytes(bytes) {
                b"message" => Kind::Message,
                b"presence" => Kind::Presence,
                b"iq" => Kind::Iq,
                _ => Kind::Other,
            };
        }
        for attribute in walk.attributes.iter() {
            match attribute.name.bytes(bytes) {
                b"to" => {
                    self.view.to = attribute.value;
                    self.cut(attribute.from, attribute.end());
                }
                b"from" => {
                    self.view.from = attribute.value;
                    self.cut(attribute.from, attribute.end());
                }
                b"xmlns" => self.cut(attribute.from, attribute.end()),
                b"id" => self.view.id = attribute.value,
                b"type" => self.view.type_ = attribute.value,
                b"xml:lang" => self.view.lang = attribute.value,
                _ => {}
            }
        }
    }

    #[inline(always)]
    fn child(&mut self, walk: &Walk<'_>, tag: &Tag) {
        let ns = tag.ns.interned();
        let view = &mut self.view;
        view.child_ns |= 1 << ns as u8;
        if view.child_count == 0 {
            view.payload = tag.local();
            view.payload_ns = ns;
        }
        view.child_count += 1;
        view.has_body |= ns == view.ns && tag.local().bytes(walk.text.as_bytes()) == b"body";
    }
}

impl Sink for Facts<'_> {
    #[inline(always)]
    fn open(&mut self, walk: &Walk<'_>, tag: &Tag) {
        match tag.depth {
            0 => self.root(walk, tag),
            1 => self.child(walk, tag),
            _ => {}
        }
    }

    #[inline(always)]
    fn text(&mut self, _raw: Span, _is_cdata: bool) {}

    #[inline(always)]
    fn close(&mut self, _end: usize) {}
}

#[cfg(test)]
mod tests;
