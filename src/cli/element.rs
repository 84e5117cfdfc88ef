//! Elements of an XML file that another server wrote, one at a time, and stanzas as they are kept.
//!
//! Prefixes are resolved while reading; what is written names its namespaces by `xmlns` alone, so
//! that the same element always becomes the same bytes.

use std::io::Read;

use stanza::writer;
use xml::attribute::OwnedAttribute;
use xml::name::OwnedName;
use xml::reader::{EventReader, ParserConfig, XmlEvent};

/// Elements within elements of one account's data.
const DEPTH_MAX: usize = 128;

/// An element with everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) ns: String,
    attributes: Vec<OwnedAttribute>,
    children: Vec<Child>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Child {
    Element(Element),
    Text(String),
}

/// A reader without comments; a document type is refused by who meets it.
pub(crate) fn reader<R: Read>(source: R) -> EventReader<R> {
    let config = ParserConfig::new()
        .whitespace_to_characters(true)
        .cdata_to_characters(true)
        .ignore_comments(true);
    EventReader::new_with_config(source, config)
}

/// The next event that means something here.
pub(crate) fn next<R: Read>(reader: &mut EventReader<R>) -> Result<XmlEvent, String> {
    loop {
        match reader.next().map_err(|error| error.to_string())? {
            XmlEvent::Doctype { .. } => {
                return Err("it has a document type, which is refused".into());
            }
            XmlEvent::StartDocument { .. }
            | XmlEvent::ProcessingInstruction { .. }
            | XmlEvent::Comment(_) => {}
            event => return Ok(event),
        }
    }
}

/// Passes over the rest of an element whose start was read.
pub(crate) fn skip<R: Read>(reader: &mut EventReader<R>) -> Result<(), String> {
    let mut depth = 1_u64;
    while depth > 0 {
        match next(reader)? {
            XmlEvent::StartElement { .. } => depth += 1,
            XmlEvent::EndElement { .. } => depth -= 1,
            XmlEvent::EndDocument => return Err("it ends too early".into()),
            _ => {}
        }
    }
    Ok(())
}

impl Element {
    /// An element whose start was read and that has nothing below it yet.
    pub(crate) fn start(name: OwnedName, attributes: Vec<OwnedAttribute>) -> Element {
        let ns = name.namespace.unwrap_or_default();
        Element {
            name: name.local_name,
            ns,
            attributes,
            children: Vec::new(),
        }
    }

    /// Reads the rest of an element whose start was read.
    pub(crate) fn read<R: Read>(self, reader: &mut EventReader<R>) -> Result<Element, String> {
        let mut open = vec![self];
        loop {
            match next(reader)? {
                XmlEvent::StartElement {
                    name, attributes, ..
                } => {
                    if open.len() >= DEPTH_MAX {
                        return Err(format!("elements are nested deeper than {DEPTH_MAX}"));
                    }
                    open.push(Element::start(name, attributes));
                }
                XmlEvent::EndElement { .. } => {
                    let ended = open.pop().ok_or("an element ends that was not begun")?;
                    match open.last_mut() {
                        Some(parent) => parent.children.push(Child::Element(ended)),
                        None => return Ok(ended),
                    }
                }
                XmlEvent::EndDocument => return Err("it ends too early".into()),
                XmlEvent::Characters(text) => {
                    if let Some(parent) = open.last_mut() {
                        parent.children.push(Child::Text(text));
                    }
                }
                _ => {}
            }
        }
    }

    /// The elements of a kept fragment, which stood in the namespace `within`.
    pub(crate) fn of_fragment(bytes: &[u8], within: &str) -> Result<Vec<Element>, String> {
        let mut whole = b"<fragment".to_vec();
        attribute(&mut whole, "xmlns", within);
        whole.push(b'>');
        whole.extend_from_slice(bytes);
        whole.extend_from_slice(b"</fragment>");
        let mut reader = reader(whole.as_slice());
        match next(&mut reader)? {
            XmlEvent::StartElement {
                name, attributes, ..
            } => {
                let fragment = Element::start(name, attributes).read(&mut reader)?;
                Ok(fragment.into_children().collect())
            }
            _ => Err("it is no element".into()),
        }
    }

    /// Whether it has this name in this namespace.
    pub(crate) fn is(&self, name: &str, ns: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// The value of an attribute without a prefix.
    pub(crate) fn attr(&self, name: &str) -> Option<&str> {
        let found = self
            .attributes
            .iter()
            .find(|attribute| attribute.name.prefix.is_none() && attribute.name.local_name == name);
        found.map(|attribute| attribute.value.as_str())
    }

    /// The elements right below it.
    pub(crate) fn children(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|child| match child {
            Child::Element(element) => Some(element),
            Child::Text(_) => None,
        })
    }

    fn into_children(self) -> impl Iterator<Item = Element> {
        self.children.into_iter().filter_map(|child| match child {
            Child::Element(element) => Some(element),
            Child::Text(_) => None,
        })
    }

    /// The text right below it.
    pub(crate) fn text(&self) -> String {
        self.children
            .iter()
            .filter_map(|child| match child {
                Child::Text(text) => Some(text.as_str()),
                Child::Element(_) => None,
            })
            .collect()
    }

    /// The same in the namespace `to`, with all below it that stands in `from` as it does itself.
    /// What is within an element of another namespace belongs to that.
    pub(crate) fn moved(mut self, from: &str, to: &str) -> Element {
        if self.ns != from {
            return self;
        }
        to.clone_into(&mut self.ns);
        self.children = std::mem::take(&mut self.children)
            .into_iter()
            .map(|child| match child {
                Child::Element(element) => Child::Element(element.moved(from, to)),
                text => text,
            })
            .collect();
        self
    }

    /// Gives it an attribute, in the place of the one that it has.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let name = OwnedName::local(name);
        match self.attributes.iter_mut().find(|it| it.name == name) {
            Some(attribute) => value.clone_into(&mut attribute.value),
            None => self.attributes.push(OwnedAttribute::new(name, value)),
        }
    }

    /// Its bytes where the default namespace is `within`.
    pub(crate) fn bytes(&self, within: &str) -> Box<[u8]> {
        let mut out = Vec::new();
        self.write(within, &mut out);
        out.into()
    }

    /// Writes it where the default namespace is `within`; as deep as [`DEPTH_MAX`] at most.
    pub(crate) fn write(&self, within: &str, out: &mut Vec<u8>) {
        out.push(b'<');
        out.extend_from_slice(self.name.as_bytes());
        if self.ns != within {
            attribute(out, "xmlns", &self.ns);
        }
        let mut declared: Vec<&str> = Vec::new();
        for OwnedAttribute { name, value } in &self.attributes {
            match (&name.prefix, &name.namespace) {
                (Some(prefix), Some(ns)) => {
                    if prefix != "xml" && !declared.contains(&prefix.as_str()) {
                        attribute(out, &format!("xmlns:{prefix}"), ns);
                        declared.push(prefix);
                    }
                    attribute(out, &format!("{prefix}:{}", name.local_name), value);
                }
                _ => attribute(out, &name.local_name, value),
            }
        }
        if self.children.is_empty() {
            out.extend_from_slice(b"/>");
            return;
        }
        out.push(b'>');
        for child in &self.children {
            match child {
                Child::Element(element) => element.write(&self.ns, out),
                Child::Text(text) => writer::escape_text(text, out),
            }
        }
        writer::close(out, &self.name);
    }
}

fn attribute(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    writer::escape_attr(value, out);
    out.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str, within: &str) -> String {
        let read = Element::of_fragment(text.as_bytes(), within).unwrap();
        let bytes = read
            .iter()
            .flat_map(|element| element.bytes(within).into_vec());
        String::from_utf8(bytes.collect()).unwrap()
    }

    #[test]
    fn what_is_kept_comes_back_byte_for_byte() {
        for text in [
            "<message from='a@b' xml:lang='en'><body>1 &lt; 2 &amp; \u{1f916}</body>\
             <x xmlns='urn:x'/></message>",
            "<a xmlns='urn:a' xmlns:p='urn:p' p:q='1' p:r='2'><b xmlns=''>t</b> <c/></a>",
        ] {
            assert_eq!(again(text, "jabber:client"), text);
        }
    }

    #[test]
    fn prefixes_are_resolved() {
        let text = "<p:a xmlns:p='urn:p'><p:b/><c/></p:a>";
        let same = "<a xmlns='urn:p'><b/><c xmlns='jabber:client'/></a>";
        assert_eq!(again(text, "jabber:client"), same);
    }

    #[test]
    fn what_is_moved_takes_nothing_of_another_namespace_along() {
        let moved = |text: &str, within: &str| {
            let read = Element::of_fragment(text.as_bytes(), within).unwrap();
            let bytes = read[0].clone().moved("urn:p", "urn:to").bytes("urn:to");
            String::from_utf8(bytes.into_vec()).unwrap()
        };
        let inner = "<x xmlns='urn:x'><c xmlns='urn:p'/></x>";
        let text = format!("<m><a><b/>{inner}</a></m>");
        assert_eq!(moved(&text, "urn:p"), text);
        let foreign = "<m xmlns='urn:x'><c xmlns='urn:p'/></m>";
        assert_eq!(moved(foreign, "urn:p"), foreign);
    }

    #[test]
    fn depth_document_types_and_unknown_entities_are_refused() {
        let deep = format!("{}{}", "<a>".repeat(200), "</a>".repeat(200));
        assert!(Element::of_fragment(deep.as_bytes(), "").is_err());
        for text in ["<a>&b;</a>", "<a></b>", "<!DOCTYPE a []><a/>", "<a>"] {
            assert!(Element::of_fragment(text.as_bytes(), "").is_err(), "{text}");
        }
        let typed = "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>";
        assert!(next(&mut reader(typed.as_bytes())).is_err());
    }
}
