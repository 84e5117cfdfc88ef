//! What arrives on a stream, cut into top-level pieces by hand and parsed by xml-rs.

use xml::reader::{EventReader, ParserConfig, XmlEvent};

use super::CLIENT;

const STREAMS: &str = "http://etherx.jabber.org/streams";

/// One parsed element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    /// The local name.
    pub(crate) name: String,
    /// The namespace.
    pub(crate) ns: String,
    /// Attributes by name, those of a namespace with their usual prefix.
    pub(crate) attributes: Vec<(String, String)>,
    /// Child elements.
    pub(crate) children: Vec<Element>,
    /// The text directly inside.
    pub(crate) text: String,
}

impl Element {
    /// Parses one complete element as it stands in a client stream.
    pub(crate) fn parse(raw: &str) -> Element {
        let wrapped = format!("<w xmlns='{CLIENT}' xmlns:stream='{STREAMS}'>{raw}</w>");
        let mut root = tree(&wrapped).unwrap_or_else(|e| panic!("{e} in what was sent: {raw}"));
        assert_eq!(root.children.len(), 1, "not one element: {raw}");
        root.children.remove(0)
    }

    /// Parses one element that declares itself all that it uses.
    pub(crate) fn document(raw: &str) -> Element {
        tree(raw).unwrap_or_else(|e| panic!("{e} in what was sent: {raw}"))
    }

    /// The value of an attribute.
    pub(crate) fn attr(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| &**value)
    }

    /// The first child of that name, in any namespace.
    pub(crate) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of the child of that name, or nothing.
    pub(crate) fn child_text(&self, name: &str) -> &str {
        self.child(name).map_or("", |child| &child.text)
    }

    /// Whether it has that name and namespace.
    pub(crate) fn is(&self, name: &str, ns: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// The defined condition of a stanza or stream error, with the namespace of conditions.
    pub(crate) fn condition(&self, ns: &str) -> Option<&str> {
        let holder = self.child("error").unwrap_or(self);
        let found = holder
            .children
            .iter()
            .find(|child| child.ns == ns && child.name != "text");
        found.map(|child| &*child.name)
    }
}

/// A top-level piece of a stream.
pub(crate) enum Piece {
    /// `<stream:stream ..>`.
    Header(String),
    /// A complete element.
    Element(String),
    /// `</stream:stream>`.
    Close,
}

/// Cuts the first complete piece off `bytes`: the piece and its size with what went before.
pub(crate) fn cut(bytes: &[u8]) -> Option<(Piece, usize)> {
    let mut start = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_whitespace())
        .count();
    if bytes[start..].starts_with(b"<?xml") {
        start += find(&bytes[start..], b"?>")? + 2;
        start += bytes[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
    }
    let text = |end: usize| String::from_utf8(bytes[start..end].to_vec()).expect("UTF-8 is sent");
    let mut at = start;
    let mut depth = 0_usize;
    loop {
        at += find(bytes.get(at..)?, b"<")?;
        if bytes[at..].starts_with(b"<![CDATA[") {
            at += find(&bytes[at..], b"]]>")? + 3;
            continue;
        }
        let end = at + tag_size(&bytes[at..])?;
        let tag = &bytes[at..end];
        at = end;
        if tag.starts_with(b"</") {
            if depth == 0 {
                return Some((Piece::Close, end));
            }
            depth -= 1;
        } else if depth == 0 && tag.starts_with(b"<stream:stream") {
            return Some((Piece::Header(text(end)), end));
        } else if !tag.ends_with(b"/>") {
            depth += 1;
        }
        if depth == 0 {
            return Some((Piece::Element(text(end)), end));
        }
    }
}

/// The size of the tag that `bytes` begin with, quotes respected.
fn tag_size(bytes: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (index, &byte) in bytes.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(index + 1),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn tree(document: &str) -> Result<Element, String> {
    let config = ParserConfig::new()
        .cdata_to_characters(true)
        .whitespace_to_characters(true);
    let mut open: Vec<Element> = Vec::new();
    for event in EventReader::new_with_config(document.as_bytes(), config) {
        match event.map_err(|error| error.to_string())? {
            XmlEvent::StartElement {
                name, attributes, ..
            } => {
                let attribute = |a: xml::attribute::OwnedAttribute| {
                    let prefix = a.name.prefix.map(|p| p + ":").unwrap_or_default();
                    (prefix + &a.name.local_name, a.value)
                };
                open.push(Element {
                    name: name.local_name,
                    ns: name.namespace.unwrap_or_default(),
                    attributes: attributes.into_iter().map(attribute).collect(),
                    ..Element::default()
                });
            }
            XmlEvent::Characters(text) => {
                open.last_mut().expect("text stands inside the root").text += &text;
            }
            XmlEvent::EndElement { .. } => {
                let done = open.pop().expect("ends match starts");
                match open.last_mut() {
                    Some(parent) => parent.children.push(done),
                    None => return Ok(done),
                }
            }
            _ => {}
        }
    }
    Err("the document ended early".to_owned())
}
