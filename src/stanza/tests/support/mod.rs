//! The corpus, and `xml-rs` as the oracle that stanzas are compared by.

use stanza::scope::StreamScope;
use stanza::tree::Node;
use stanza::view::StreamHeader;
use std::path::Path;
use xml::reader::{ParserConfig, XmlEvent};

/// The stream around the stanzas: what it declares is in force for all of them.
pub(crate) const HEADER: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:e='urn:e' version='1.0'>";
const FOOTER: &str = "</stream:stream>";

/// What [`HEADER`] declares.
pub(crate) fn scope() -> StreamScope {
    StreamHeader::parse(HEADER.as_bytes())
        .expect("a header")
        .scope
}

/// Every stanza of the corpus: the examples of the XEPs, and what real clients were seen to send
/// and to get.
pub(crate) fn corpus() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    let mut files: Vec<_> = [folder.clone(), folder.join("recorded")]
        .iter()
        .flat_map(|part| std::fs::read_dir(part).expect("the corpus is part of the repository"))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    let mut stanzas = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).expect("a readable file");
        stanzas.extend(
            text.trim_end_matches('\n')
                .split("\n%%\n")
                .map(str::to_owned),
        );
    }
    assert!(stanzas.len() > 1_000, "the corpus is there");
    stanzas
}

/// An element as any parser should read it; attributes are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) ns: String,
    pub(crate) name: String,
    pub(crate) attributes: Vec<(String, String, String)>,
    pub(crate) children: Vec<Child>,
}

/// What an element contains, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Child {
    Element(Element),
    Text(String),
}

impl Element {
    /// Sets an attribute that has no namespace.
    pub(crate) fn stamp(&mut self, name: &str, value: &str) {
        self.attributes
            .retain(|(ns, n, _)| !(ns.is_empty() && n == name));
        self.attributes
            .push((String::new(), name.to_owned(), value.to_owned()));
        self.attributes.sort();
    }

    fn push_text(&mut self, text: &str) {
        match self.children.last_mut() {
            Some(Child::Text(before)) => before.push_str(text),
            _ if text.is_empty() => {}
            _ => self.children.push(Child::Text(text.to_owned())),
        }
    }
}

/// What `xml-rs` makes of a stanza within the stream; `None` if it refuses it, or if it is no
/// single element, or no restricted XML.
pub(crate) fn oracle(stanza: &[u8]) -> Option<Element> {
    let document = [HEADER.as_bytes(), stanza, FOOTER.as_bytes()].concat();
    let config = ParserConfig::new()
        .trim_whitespace(false)
        .whitespace_to_characters(true)
        .cdata_to_characters(true)
        .ignore_comments(false)
        .coalesce_characters(true);
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    for event in config.create_reader(&document[..]) {
        match event.ok()? {
            XmlEvent::StartElement {
                name, attributes, ..
            } => {
                let mut attributes: Vec<_> = attributes
                    .into_iter()
                    .map(|a| {
                        (
                            a.name.namespace.unwrap_or_default(),
                            a.name.local_name,
                            a.value,
                        )
                    })
                    .collect();
                attributes.sort();
                open.push(Element {
                    ns: name.namespace.unwrap_or_default(),
                    name: name.local_name,
                    attributes,
                    children: Vec::new(),
                });
            }
            XmlEvent::Characters(text) | XmlEvent::CData(text) | XmlEvent::Whitespace(text) => {
                open.last_mut()?.push_text(&text);
            }
            XmlEvent::EndElement { .. } => {
                let element = open.pop()?;
                if let Some(parent) = open.last_mut() {
                    parent.children.push(Child::Element(element));
                    continue;
                }
                // Read on: what comes behind the stream's end is an error, too.
                root = Some(element);
            }
            XmlEvent::StartDocument { .. } | XmlEvent::EndDocument => {}
            XmlEvent::ProcessingInstruction { .. } | XmlEvent::Comment(_) => return None,
            XmlEvent::Doctype { .. } => return None,
        }
    }
    let mut children = root?.children.into_iter();
    match (children.next(), children.next()) {
        (Some(Child::Element(stanza)), None) => Some(stanza),
        _ => None,
    }
}

/// Compares what a tree says of an element with what the oracle says of it.
pub(crate) fn assert_same(node: Node<'_>, expected: &Element, context: &str) {
    assert_eq!(node.name(), expected.name, "{context}");
    assert_eq!(node.ns_str(), expected.ns, "{context}");
    for (ns, name, value) in &expected.attributes {
        let found = if ns.is_empty() {
            node.attr(name)
        } else {
            node.attr_ns(name, ns)
        };
        assert_eq!(found, Some(value.as_str()), "{name} in {context}");
    }
    assert_eq!(node.attrs().count(), expected.attributes.len(), "{context}");
    let text: String = expected
        .children
        .iter()
        .filter_map(|child| {
            if let Child::Text(text) = child {
                Some(text.as_str())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(node.text(), text, "{context}");
    let mut children = node.children();
    for child in &expected.children {
        if let Child::Element(child) = child {
            assert_same(children.next().expect("as many children"), child, context);
        }
    }
    assert!(children.next().is_none(), "{context}");
}
