//! The one walk over an element: checks everything RFC 6120 11 demands and reports to a sink.
//!
//! Invariants: nothing recurses; nothing is allocated for ordinary stanzas; what the walk accepts
//! is well-formed with regard to namespaces under the scope it was given; nothing but a declaration
//! costs its namespace's size, however many names are in it ([`crate::namespaces`]). Views, trees
//! and stream headers are sinks of this walk, so they accept the same language.

use crate::error::XmlError;
use crate::frame::{ATTRIBUTES_MAX, DEPTH_MAX, NAMESPACES_MAX};
use crate::lexis::{self, CLASS, SPACE, Span};
use crate::namespaces::{self, Namespaces, NsRef};
use crate::ns::Ns;
use crate::scope::{PREFIXES_MAX, Prefix, StreamScope};
use crate::simd;
use crate::stack::Stack;

const XMLNS_URI: &str = "http://www.w3.org/2000/xmlns/";

/// What a stamp may add to a root that came with all the attributes the scanner allows: `from`,
/// `to`, `xml:lang` and the prefixes of the stream header. The walk must let it pass, for shards
/// read each other's stamped stanzas.
const STAMPED_ATTRIBUTES_MAX: usize = ATTRIBUTES_MAX as usize + PREFIXES_MAX + 3;
/// The same for declarations; a stanza that is written anew declares where it had prefixes.
const STAMPED_NAMESPACES_MAX: u16 =
    NAMESPACES_MAX + PREFIXES_MAX as u16 + crate::tree::DECLARATIONS_MAX + FORWARDING_DEPTH;

/// Elements around a stanza in a copy of it (XEP-0280, XEP-0297): `message`, `sent` or `received`,
/// `forwarded`. The walk must let them pass, so that a copy of the deepest stanza can be read.
const FORWARDING_DEPTH: u16 = 3;

/// Depth, attributes and declarations that need no heap.
const NEAR_DEPTH: usize = 8;
const NEAR_ATTRIBUTES: usize = 8;
const NEAR_DECLARATIONS: usize = 4;

/// Attributes up to which duplicates are looked for pair by pair.
const PAIRS_MAX: usize = 16;

/// One attribute of an opening tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute {
    /// Where the white space before it starts.
    pub(crate) from: u32,
    /// Its qualified name.
    pub(crate) name: Span,
    /// The size of its prefix.
    pub(crate) prefix: u32,
    /// What stands between the quotes.
    pub(crate) value: Span,
}

impl Attribute {
    /// Past the closing quote.
    pub(crate) fn end(self) -> u32 {
        self.value.end() as u32 + 1
    }

    pub(crate) fn is_declaration(self, bytes: &[u8]) -> bool {
        let name = self.name.bytes(bytes);
        name == b"xmlns" || (self.prefix == 5 && name.starts_with(b"xmlns"))
    }
}

/// An opening tag, complete.
#[derive(Debug)]
pub(crate) struct Tag {
    /// Where its `<` stands.
    pub(crate) start: u32,
    /// Its qualified name.
    pub(crate) name: Span,
    /// The size of its prefix.
    pub(crate) prefix: u32,
    /// Its namespace.
    pub(crate) ns: NsRef,
    /// Where its attributes end.
    pub(crate) attributes_end: u32,
    /// Elements around it.
    pub(crate) depth: u16,
    /// Whether it ends in `/>`.
    pub(crate) is_empty: bool,
}

impl Tag {
    /// The name without its prefix.
    pub(crate) fn local(&self) -> Span {
        let skip = if self.prefix == 0 { 0 } else { self.prefix + 1 };
        Span {
            start: self.name.start + skip,
            size: self.name.size - skip,
        }
    }
}

/// Who listens to a walk.
pub(crate) trait Sink {
    /// An element starts. Its attributes are in `walk`.
    fn open(&mut self, walk: &Walk<'_>, tag: &Tag);
    /// Character data, raw, or the inside of a CDATA section.
    fn text(&mut self, raw: Span, is_cdata: bool);
    /// The innermost element ends before this byte.
    fn close(&mut self, end: usize);
}

#[derive(Clone, Copy, Debug)]
struct Element {
    name: Span,
    /// The default namespace outside.
    default: NsRef,
    /// Declarations in force outside.
    declarations: u16,
}

#[derive(Clone, Copy, Debug)]
struct Declaration {
    prefix: Span,
    hash: u32,
    ns: NsRef,
}

/// The state of a walk.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    pub(crate) text: &'a str,
    pub(crate) scope: &'a StreamScope,
    /// Bit by bit, which of the stream header's prefixes are used.
    pub(crate) used: u64,
    pub(crate) attributes: Stack<Attribute, NEAR_ATTRIBUTES>,
    elements: Stack<Element, NEAR_DEPTH>,
    declarations: Stack<Declaration, NEAR_DECLARATIONS>,
    /// All declarations so far, closed elements' included.
    declared: u16,
    /// The default namespace in force.
    default: NsRef,
    /// What the element declares, closed elements' declarations included.
    namespaces: Namespaces,
}

impl<'a> Walk<'a> {
    /// Readies a walk over bytes whose characters are checked.
    #[inline(always)]
    pub(crate) fn new(text: &'a str, scope: &'a StreamScope) -> Walk<'a> {
        let none = Span::default();
        Walk {
            text,
            scope,
            used: 0,
            attributes: Stack::new(Attribute {
                from: 0,
                name: none,
                prefix: 0,
                value: none,
            }),
            elements: Stack::new(Element {
                name: none,
                default: NsRef::None,
                declarations: 0,
            }),
            declarations: Stack::new(Declaration {
                prefix: none,
                hash: 0,
                ns: NsRef::None,
            }),
            declared: 0,
            default: scope.default_ref,
            namespaces: Namespaces::new(),
        }
    }

    /// Walks one whole element, from the first byte to the last.
    #[inline(always)]
    pub(crate) fn run(&mut self, sink: &mut impl Sink) -> Result<(), XmlError> {
        let bytes = self.text.as_bytes();
        if bytes.first() != Some(&b'<') {
            return Err(XmlError::NotWellFormed);
        }
        let mut at = 0;
        loop {
            at = match bytes.get(at + 1) {
                Some(b'/') => self.close(at, sink)?,
                Some(b'!') => self.cdata(at, sink)?,
                Some(b'?') => return Err(XmlError::Restricted),
                Some(_) => self.open(at, sink)?,
                None => return Err(XmlError::NotWellFormed),
            };
            if self.elements.len() == 0 {
                break;
            }
            if bytes.get(at) != Some(&b'<') {
                at = self.character_data(at, sink)?;
            }
        }
        if at == bytes.len() {
            Ok(())
        } else {
            Err(XmlError::NotWellFormed)
        }
    }

    /// An opening tag whose `<` stands at `at`; answers where it ends.
    #[inline(always)]
    fn open(&mut self, at: usize, sink: &mut impl Sink) -> Result<usize, XmlError> {
        let (tag, end) = self.tag(at)?;
        sink.open(self, &tag);
        if tag.is_empty {
            sink.close(end);
            self.leave();
        }
        Ok(end)
    }

    /// Reads an opening tag and enters its element.
    #[inline(always)]
    pub(crate) fn tag(&mut self, start: usize) -> Result<(Tag, usize), XmlError> {
        let depth = self.elements.len() as u16;
        if depth >= DEPTH_MAX + FORWARDING_DEPTH {
            return Err(XmlError::TooDeep);
        }
        let (mut at, prefix) = lexis::name(self.text, start + 1)?;
        let name = Span::new(start + 1, at);
        self.elements.push(Element {
            name,
            default: self.default,
            declarations: self.declarations.len() as u16,
        });
        let is_empty = self.attributes(&mut at)?;
        let ns = match prefix {
            0 => self.default,
            _ => self.resolve(Span::new(start + 1, start + 1 + prefix))?,
        };
        let attributes_end = self
            .attributes
            .last()
            .map_or(name.end() as u32, Attribute::end);
        let (start, prefix) = (start as u32, prefix as u32);
        let tag = Tag {
            start,
            name,
            prefix,
            ns,
            attributes_end,
            depth,
            is_empty,
        };
        Ok((tag, at + 1 + is_empty as usize))
    }

    /// Reads the attributes of a tag whose name ends at `at`, up to what closes the tag; answers
    /// whether that is `/>`.
    #[inline(always)]
    fn attributes(&mut self, at: &mut usize) -> Result<bool, XmlError> {
        let bytes = self.text.as_bytes();
        self.attributes.truncate(0);
        let mut seen = 0_u64;
        let mut is_suspect = false;
        let mut prefixed = 0;
        let is_empty = loop {
            let from = *at;
            let byte = self.skip_space(at)?;
            if byte == b'>' {
                break false;
            }
            if byte == b'/' {
                if bytes.get(*at + 1) != Some(&b'>') {
                    return Err(XmlError::NotWellFormed);
                }
                break true;
            }
            if *at == from {
                return Err(XmlError::NotWellFormed);
            }
            let attribute = self.attribute(from, at)?;
            let name = attribute.name.bytes(bytes);
            // One bit per rough shape of a name: two names that differ in it need no comparison.
            let shape = name.len() ^ usize::from(name[0]) ^ usize::from(name[name.len() - 1]) << 2;
            is_suspect |= seen & 1 << (shape & 63) != 0;
            seen |= 1 << (shape & 63);
            if attribute.prefix != 0 || name == b"xmlns" {
                prefixed += self.declare(attribute.name, attribute.value)? as usize;
            }
            self.attributes.push(attribute);
            if self.attributes.len() > STAMPED_ATTRIBUTES_MAX {
                return Err(XmlError::TooManyAttributes);
            }
        };
        if is_suspect {
            self.refuse_duplicates()?;
        }
        if prefixed > 0 {
            self.resolve_attributes(prefixed)?;
        }
        Ok(is_empty)
    }

    /// Reads an attribute at `at`, before which white space started at `from`.
    #[inline(always)]
    fn attribute(&mut self, from: usize, at: &mut usize) -> Result<Attribute, XmlError> {
        let bytes = self.text.as_bytes();
        let start = *at;
        let (end, prefix) = lexis::name(self.text, start)?;
        *at = end;
        if self.skip_space(at)? != b'=' {
            return Err(XmlError::NotWellFormed);
        }
        *at += 1;
        let quote = self.skip_space(at)?;
        if quote != b'\'' && quote != b'"' {
            return Err(XmlError::NotWellFormed);
        }
        let value = *at + 1;
        let mut stop = simd::find(bytes, value, [quote, b'<', b'&']);
        while bytes.get(stop) == Some(&b'&') {
            stop = lexis::reference(self.text, stop)?;
            stop = simd::find(bytes, stop, [quote, b'<', b'&']);
        }
        if bytes.get(stop) != Some(&quote) {
            return Err(XmlError::NotWellFormed);
        }
        *at = stop + 1;
        Ok(Attribute {
            from: from as u32,
            name: Span::new(start, end),
            prefix: prefix as u32,
            value: Span::new(value, stop),
        })
    }

    /// Notes the attribute if it declares a namespace; else it is prefixed, and the answer is true.
    fn declare(&mut self, name: Span, value: Span) -> Result<bool, XmlError> {
        let (prefix, is_default) = match name.of(self.text).strip_prefix("xmlns") {
            Some("") => (Span::default(), true),
            Some(rest) if rest.starts_with(':') => {
                let start = name.start as usize + "xmlns:".len();
                (Span::new(start, name.end()), false)
            }
            _ => return Ok(true),
        };
        self.declared += 1;
        if self.declared > STAMPED_NAMESPACES_MAX {
            return Err(XmlError::TooManyNamespaces);
        }
        // Namespaces in XML 1.0, 3 and 2.2.
        let uri = lexis::attribute_value(value.of(self.text));
        let ns = Ns::intern(uri.as_bytes());
        let is_xml = ns == Ns::Xml;
        let allowed = match prefix.of(self.text) {
            "" => !is_xml,
            "xml" => is_xml,
            "xmlns" => false,
            _ => !is_xml && !uri.is_empty(),
        };
        if !allowed || uri == XMLNS_URI {
            return Err(XmlError::NotWellFormed);
        }
        let ns = match ns {
            Ns::Unknown => self.namespaces.declare(value, uri, self.text, self.scope),
            known => NsRef::Known(known),
        };
        if is_default {
            self.default = ns;
        } else {
            let hash = namespaces::hash(prefix.of(self.text));
            self.declarations.push(Declaration { prefix, hash, ns });
        }
        Ok(false)
    }

    /// A closing tag whose `<` stands at `at`; answers where it ends.
    #[inline(always)]
    fn close(&mut self, at: usize, sink: &mut impl Sink) -> Result<usize, XmlError> {
        let bytes = self.text.as_bytes();
        let element = self.elements.last().ok_or(XmlError::NotWellFormed)?;
        let name = element.name.bytes(bytes);
        let mut end = at + 2 + name.len();
        if bytes.get(at + 2..end) != Some(name) || self.skip_space(&mut end)? != b'>' {
            return Err(XmlError::NotWellFormed);
        }
        end += 1;
        sink.close(end);
        self.leave();
        Ok(end)
    }

    /// Leaves the innermost element: its declarations are no longer in force.
    #[inline(always)]
    fn leave(&mut self) {
        if let Some(element) = self.elements.last() {
            self.default = element.default;
            self.declarations
                .truncate(usize::from(element.declarations));
            self.elements.truncate(self.elements.len() - 1);
        }
    }

    /// Character data up to the next `<`; answers where that stands.
    #[inline(always)]
    fn character_data(&mut self, start: usize, sink: &mut impl Sink) -> Result<usize, XmlError> {
        let bytes = self.text.as_bytes();
        let mut at = start;
        loop {
            at = simd::find(bytes, at, *b"<&>");
            match bytes.get(at) {
                Some(b'<') => break,
                Some(b'&') => at = lexis::reference(self.text, at)?,
                Some(_) if bytes[start..at].ends_with(b"]]") => {
                    return Err(XmlError::NotWellFormed);
                }
                Some(_) => at += 1,
                None => return Err(XmlError::NotWellFormed),
            }
        }
        sink.text(Span::new(start, at), false);
        Ok(at)
    }

    /// A CDATA section whose `<` stands at `at`; answers where it ends.
    #[cold]
    fn cdata(&mut self, at: usize, sink: &mut impl Sink) -> Result<usize, XmlError> {
        const START: &str = "<![CDATA[";
        if !self.text[at..].starts_with(START) || self.elements.len() == 0 {
            return Err(XmlError::Restricted);
        }
        let start = at + START.len();
        let size = self.text[start..]
            .find("]]>")
            .ok_or(XmlError::NotWellFormed)?;
        sink.text(Span::new(start, start + size), true);
        Ok(start + size + "]]>".len())
    }

    /// Steps over white space; answers the byte behind it.
    #[inline(always)]
    fn skip_space(&self, at: &mut usize) -> Result<u8, XmlError> {
        let bytes = self.text.as_bytes();
        loop {
            let byte = *bytes.get(*at).ok_or(XmlError::NotWellFormed)?;
            if CLASS[byte as usize] != SPACE {
                return Ok(byte);
            }
            *at += 1;
        }
    }

    /// The namespace of a prefix, which must be declared; the stream header's are noted as used.
    fn resolve(&mut self, prefix: Span) -> Result<NsRef, XmlError> {
        let (ns, index) = self.look_up(prefix).ok_or(XmlError::NotWellFormed)?;
        if let Some(index) = index {
            self.used |= 1 << index;
        }
        Ok(ns)
    }

    /// The namespace of a prefix, and which prefix of the stream header it is, if it is one.
    fn look_up(&self, prefix: Span) -> Option<(NsRef, Option<usize>)> {
        let prefix = prefix.of(self.text);
        if prefix == "xml" {
            return Some((NsRef::Known(Ns::Xml), None));
        }
        let hash = namespaces::hash(prefix);
        let here = self
            .declarations
            .iter()
            .rev()
            .find(|d| d.hash == hash && d.prefix.of(self.text) == prefix);
        if let Some(declaration) = here {
            return Some((declaration.ns, None));
        }
        let prefixes = &self.scope.prefixes;
        let is_it = |p: &Prefix| p.hash == hash && *p.name == *prefix;
        let index = prefixes.iter().position(is_it)?;
        Some((prefixes[index].ns, Some(index)))
    }

    /// The namespace as text.
    pub(crate) fn uri(&self, ns: NsRef) -> &str {
        self.namespaces.uri(ns, self.text, self.scope)
    }

    /// The namespace of a prefixed attribute of the current tag, whose prefix was resolved before.
    pub(crate) fn attribute_ns(&self, attribute: Attribute) -> NsRef {
        let prefix = Span {
            start: attribute.name.start,
            size: attribute.prefix,
        };
        self.look_up(prefix).map_or(NsRef::None, |(ns, _)| ns)
    }

    /// XML 1.0 3.1: no attribute twice in a tag.
    #[cold]
    fn refuse_duplicates(&self) -> Result<(), XmlError> {
        let bytes = self.text.as_bytes();
        let count = self.attributes.len();
        if count <= PAIRS_MAX {
            let name = |i| self.attributes.get(i).name.bytes(bytes);
            let is_twice = (1..count).any(|i| (0..i).any(|j| name(i) == name(j)));
            return if is_twice {
                Err(XmlError::NotWellFormed)
            } else {
                Ok(())
            };
        }
        refuse_equal(
            self.attributes
                .iter()
                .map(|a| a.name.bytes(bytes))
                .collect(),
        )
    }

    /// Namespaces in XML 6.3: prefixes are declared, and no two attributes mean the same name.
    fn resolve_attributes(&mut self, prefixed: usize) -> Result<(), XmlError> {
        let mut names = Vec::new();
        for i in 0..self.attributes.len() {
            let attribute = self.attributes.get(i);
            if attribute.prefix == 0 || attribute.is_declaration(self.text.as_bytes()) {
                continue;
            }
            let prefix = Span {
                start: attribute.name.start,
                size: attribute.prefix,
            };
            let ns = self.resolve(prefix)?;
            if prefixed > 1 {
                let name = attribute.name.of(self.text);
                names.push((ns, &name[attribute.prefix as usize + 1..]));
            }
        }
        refuse_equal(names)
    }
}

fn refuse_equal<T: Ord>(mut names: Vec<T>) -> Result<(), XmlError> {
    names.sort_unstable();
    let is_twice = names.windows(2).any(|pair| pair[0] == pair[1]);
    if is_twice {
        Err(XmlError::NotWellFormed)
    } else {
        Ok(())
    }
}
