//! An XML element that owns its parts: what clients receive and scenarios expect.

use stanza::scope::StreamScope;
use stanza::tree::{Node, Tree};
use std::collections::BTreeMap;
use std::fmt;

/// One element. Mixed content does not occur in what is compared: text is joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The local name.
    pub name: String,
    /// The namespace.
    pub ns: String,
    /// The attributes by their names as written, declarations left out.
    pub attributes: BTreeMap<String, String>,
    /// The elements in it.
    pub children: Vec<Element>,
    /// The text in it.
    pub text: String,
    /// The bytes it came from.
    pub raw: Vec<u8>,
}

impl Element {
    /// Reads one element in the scope of its stream.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(bytes: &[u8], scope: &StreamScope) -> Result<Element, String> {
        let tree = Tree::parse(bytes, scope).map_err(|error| format!("{error:?}"))?;
        let mut element = Element::of(tree.root());
        element.raw = bytes.to_vec();
        Ok(element)
    }

    /// Reads one element that stands in `jabber:client`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse_client(text: &str) -> Result<Element, String> {
        Element::parse(text.as_bytes(), &StreamScope::client())
    }

    fn of(node: Node<'_>) -> Element {
        let declares = |name: &str| name == "xmlns" || name.starts_with("xmlns:");
        let attributes = node.attrs().filter(|(name, _)| !declares(name));
        Element {
            name: node.name().to_owned(),
            ns: node.ns_str().to_owned(),
            attributes: attributes
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            children: node.children().map(Element::of).collect(),
            text: node.text().to_owned(),
            raw: Vec::new(),
        }
    }

    /// The value of an attribute, empty where there is none.
    pub fn attr(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The first child of this name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Whether it is a stanza of this name and type.
    pub fn is(&self, name: &str, type_: &str) -> bool {
        self.name == name && self.attr("type") == type_
    }

    /// The condition of a stanza error, stream error or SASL failure; empty where there is none.
    pub fn condition(&self) -> &str {
        let error = match &*self.ns {
            "jabber:client" | "jabber:component:accept" => self.child("error"),
            _ => Some(self),
        };
        let first = error.and_then(|error| error.children.first());
        first.map_or("", |condition| condition.name.as_str())
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.raw))
    }
}
