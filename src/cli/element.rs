//! Elements of an XML file that another server wrote, one at a time, and stanzas as they are kept.
//!
//! Prefixes are resolved while reading; what is written names its namespaces by `xmlns` alone, so
//! that the same element always becomes the same bytes.

use std::io::Read;

use stanza::writer;
use xml::attribute::OwnedAttribute;
use xml::common::{XmlVersion, is_xml10_char};
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
            XmlEvent::StartDocument { version, .. } if version != XmlVersion::Version10 => {
                return Err("it says that it is XML 1.1, and only 1.0 is read".into());
            }
            XmlEvent::StartDocument { .. }
            | XmlEvent::ProcessingInstruction { .. }
            | XmlEvent::Comment(_) => {}
            // The reader itself lets some of them through in places.
            event if !has_chars_of_xml(&event) => {
                return Err("it has a character that XML does not allow".into());
            }
            event => return Ok(event),
        }
    }
}

fn has_chars_of_xml(event: &XmlEvent) -> bool {
    let may_stand = |text: &str| text.chars().all(is_xml10_char);
    match event {
        XmlEvent::StartElement { attributes, .. } => attributes
            .iter()
            .all(|attribute| may_stand(&attribute.value)),
        XmlEvent::Characters(text) => may_stand(text),
        _ => true,
    }
}

/// A text without the characters that XML does not allow, where it has any.
pub(crate) fn without_forbidden(text: &str) -> Option<String> {
    let has_any = !text.chars().all(is_xml10_char);
    has_any.then(|| text.chars().filter(|c| is_xml10_char(*c)).collect())
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

    /// The same of what was not read: without the characters that XML does not allow, and without
    /// the elements below its own whose prefix is `xml`, which no reader of ours takes.
    pub(crate) fn of_mended(bytes: &[u8], within: &str) -> Result<Vec<Element>, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let text = without_forbidden(text).unwrap_or_else(|| text.to_owned());
        let renamed = renamed_reserved(&text);
        let mut whole =
            format!("<{PASSED_OVER}:whole xmlns:{PASSED_OVER}='{PASSED_OVER}'").into_bytes();
        attribute(&mut whole, "xmlns", within);
        whole.push(b'>');
        whole.extend_from_slice(renamed.as_bytes());
        whole.extend_from_slice(format!("</{PASSED_OVER}:whole>").as_bytes());
        let mut read = Element::of_fragment(&whole, "")?;
        let mut whole = read.pop().ok_or("it is no element")?;
        whole.pass_over_reserved();
        Ok(whole.into_children().collect())
    }

    fn pass_over_reserved(&mut self) {
        self.children.retain_mut(|child| match child {
            Child::Element(element) => {
                element.pass_over_reserved();
                element.ns != PASSED_OVER
            }
            Child::Text(_) => true,
        });
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

/// The prefix, and namespace, of what is passed over.
const PASSED_OVER: &str = "vorpal-passed-over";

/// A fragment in which elements have the prefix [`PASSED_OVER`] instead of `xml`.
fn renamed_reserved(fragment: &str) -> String {
    let mut out = String::with_capacity(fragment.len());
    let mut rest = fragment;
    while let Some(at) = rest.find('<') {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let begins = ["<xml:", "</xml:"]
            .into_iter()
            .find(|it| tag.starts_with(it));
        let taken = match begins {
            Some(begin) => {
                out.push_str(begin.trim_end_matches("xml:"));
                out.push_str(PASSED_OVER);
                out.push(':');
                begin.len()
            }
            None => {
                // Nothing in character data is a tag.
                let end = tag
                    .starts_with("<![CDATA[")
                    .then(|| tag.find("]]>"))
                    .flatten();
                let taken = end.unwrap_or(1);
                out.push_str(&tag[..taken]);
                taken
            }
        };
        rest = &tag[taken..];
    }
    out.push_str(rest);
    out
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
    fn what_no_reader_takes_is_passed_over_and_the_rest_is_read() {
        let text = "<m id='\u{2}1'><xml:y a='b'>t<c/><xml:z/></xml:y>\u{1}u<x xmlns='urn:x'>\
                    <![CDATA[<xml:k>]]><xml:y/></x></m>";
        assert!(Element::of_fragment(text.as_bytes(), "").is_err());
        let read = Element::of_mended(text.as_bytes(), "").unwrap();
        let bytes = read[0].bytes("");
        let expected = "<m id='1'>u<x xmlns='urn:x'>&lt;xml:k&gt;</x></m>";
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        assert!(Element::of_mended(b"<m><xml:y></m>", "").is_err());
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
        for text in [
            "<?xml version='1.1'?><a/>",
            "<?xml version='1.0'?><a>&#x1;</a>",
            "<a b='&#x2;'/>",
            "<a b='\u{1}'/>",
            "<a>\u{1}</a>",
            "<a><![CDATA[\u{1}]]></a>",
        ] {
            let mut reader = reader(text.as_bytes());
            let mut read = || match next(&mut reader)? {
                XmlEvent::StartElement {
                    name, attributes, ..
                } => Element::start(name, attributes).read(&mut reader),
                _ => Err("no element".into()),
            };
            assert!(read().is_err(), "{text:?}");
        }
        let typed = "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>";
        assert!(next(&mut reader(typed.as_bytes())).is_err());
    }
}
