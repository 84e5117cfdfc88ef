//! One element of a tree: reading it, and writing it out on its own.

use std::borrow::Cow;
use std::ops::Range;

use super::{Attribute, Content, DECLARATIONS_MAX, DECLARED_SIZE_MAX, Element, NONE};
use super::{Namespace, Tree};
use crate::error::XmlError;
use crate::ns::Ns;
use crate::writer::{self, Open};

/// One element of a [`Tree`].
#[derive(Clone, Copy, Debug)]
pub struct Node<'t> {
    tree: &'t Tree<'t>,
    index: u32,
}

/// A step of writing: an item and its later siblings inside a default namespace, or an element's
/// end. Where that namespace is not told, every element declares its own.
enum Step<'t> {
    Item(u32, Option<Namespace>),
    End(Node<'t>),
}

/// What is left to write, and what was declared so far.
#[derive(Default)]
struct Writing<'t> {
    steps: Vec<Step<'t>>,
    declarations: u16,
    declared_size: usize,
}

impl Writing<'_> {
    fn declare<'w>(&mut self, tag: Open<'w>, name: &str, uri: &str) -> Result<Open<'w>, XmlError> {
        self.declarations += 1;
        self.declared_size += uri.len();
        if self.declarations > DECLARATIONS_MAX || self.declared_size > DECLARED_SIZE_MAX {
            return Err(XmlError::TooManyNamespaces);
        }
        Ok(tag.attr(name, uri))
    }
}

impl<'t> Node<'t> {
    pub(super) fn new(tree: &'t Tree<'t>, index: u32) -> Node<'t> {
        Node { tree, index }
    }

    fn element(self) -> &'t Element {
        &self.tree.elements[self.index as usize]
    }

    /// The local name.
    pub fn name(&self) -> &'t str {
        self.element().local.of(self.tree.source)
    }

    /// The namespace, interned.
    pub fn ns(&self) -> Ns {
        self.element().ns.ns
    }

    /// The namespace as text; empty if there is none.
    pub fn ns_str(&self) -> &'t str {
        self.tree.uri(self.element().ns)
    }

    /// Whether the element has this name and namespace.
    pub fn is(&self, name: &str, ns: Ns) -> bool {
        self.name() == name && self.ns() == ns
    }

    /// The value of an attribute; prefixed ones by their name as written, `xml:lang` for instance.
    pub fn attr(&self, name: &str) -> Option<&'t str> {
        self.attrs()
            .find(|&(n, _)| n == name)
            .map(|(_, value)| value)
    }

    /// Names as written and values of all attributes, namespace declarations left out.
    pub fn attrs(&self) -> impl Iterator<Item = (&'t str, &'t str)> + use<'t> {
        let tree = self.tree;
        self.attributes()
            .iter()
            .map(|a| (a.name.of(tree.source), tree.resolve(a.value)))
    }

    /// The value of an attribute in a namespace, whatever its prefix.
    pub fn attr_ns(&self, name: &str, ns: &str) -> Option<&'t str> {
        let tree = self.tree;
        self.attributes()
            .iter()
            .find(|a| a.prefix > 0 && a.local(tree) == name && tree.uri(a.ns) == ns)
            .map(|a| tree.resolve(a.value))
    }

    fn attributes(&self) -> &'t [Attribute] {
        let (first, count) = self.element().attributes;
        &self.tree.attributes[first as usize..(first + count) as usize]
    }

    /// The child elements.
    pub fn children(&self) -> impl Iterator<Item = Node<'t>> + use<'t> {
        let tree = self.tree;
        let mut at = self.element().first;
        std::iter::from_fn(move || {
            while at != NONE {
                let item = tree.items[at as usize];
                at = item.next;
                if let Content::Element(index) = item.content {
                    return Some(Node { tree, index });
                }
            }
            None
        })
    }

    /// The first child element of this name and namespace.
    pub fn child(&self, name: &str, ns: Ns) -> Option<Node<'t>> {
        self.children().find(|child| child.is(name, ns))
    }

    /// The text directly inside the element, pieces between child elements joined.
    pub fn text(&self) -> &'t str {
        self.tree.resolve(self.element().text)
    }

    /// The element as it was received; prefixes and the default namespace may be declared outside
    /// of it. [`Node::write`] makes one that stands on its own.
    pub fn raw(&self) -> &'t [u8] {
        self.element().raw.bytes(self.tree.source.as_bytes())
    }

    /// Where the element stands in the bytes that were parsed.
    pub fn place(&self) -> Range<usize> {
        let raw = self.element().raw;
        raw.start as usize..raw.end()
    }

    /// Appends the element so that it means the same wherever it stands: no prefixes but those of
    /// attributes, every change of namespace declared. `TooManyNamespaces` if it would declare more
    /// than [`DECLARATIONS_MAX`] or [`DECLARED_SIZE_MAX`]; then nothing is appended.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), XmlError> {
        self.write_stamped(None, &[], out)
    }

    /// As [`Node::write`], for a place whose default namespace is `outside`.
    pub fn write_within(&self, outside: &str, out: &mut Vec<u8>) -> Result<(), XmlError> {
        self.write_stamped(Some(outside), &[], out)
    }

    /// As [`Node::write_within`], with these attributes put first in the tag, in place of its own
    /// of the same names; an empty value only removes. Without `outside` its namespace is declared.
    pub(crate) fn write_stamped(
        &self,
        outside: Option<&str>,
        stamps: &[(&str, &str)],
        out: &mut Vec<u8>,
    ) -> Result<(), XmlError> {
        let before = out.len();
        let mut writing = Writing::default();
        let written = self
            .write_tag(outside == Some(self.ns_str()), stamps, out, &mut writing)
            .and_then(|()| self.write_content(out, &mut writing));
        if written.is_err() {
            out.truncate(before);
        }
        written
    }

    fn write_content(&self, out: &mut Vec<u8>, writing: &mut Writing<'t>) -> Result<(), XmlError> {
        while let Some(step) = writing.steps.pop() {
            let (at, ns) = match step {
                Step::End(node) => {
                    writer::close(out, &node.tag_name());
                    continue;
                }
                Step::Item(at, ns) => (at, ns),
            };
            let Some(item) = self.tree.items.get(at as usize) else {
                continue;
            };
            writing.steps.push(Step::Item(item.next, ns));
            match item.content {
                Content::Text(text) => writer::escape_text(self.tree.resolve(text), out),
                Content::Element(index) => {
                    let node = Node::new(self.tree, index);
                    node.write_tag(ns == Some(node.element().ns), &[], out, writing)?;
                }
            }
        }
        Ok(())
    }

    /// The name as it is written: local, but for those that `xml:` belongs to.
    fn tag_name(self) -> Cow<'t, str> {
        match self.ns() {
            Ns::Xml => format!("xml:{}", self.name()).into(),
            _ => self.name().into(),
        }
    }

    /// Appends the opening tag and leaves the steps for what is inside. `is_declared` says that its
    /// namespace is the default one outside.
    fn write_tag(
        self,
        is_declared: bool,
        stamps: &[(&str, &str)],
        out: &mut Vec<u8>,
        writing: &mut Writing<'t>,
    ) -> Result<(), XmlError> {
        let tree = self.tree;
        // The namespace of `xml:` is never a default one; what is inside declares its own.
        let ns = (self.ns() != Ns::Xml).then(|| self.element().ns);
        let name = self.tag_name();
        let mut tag = writer::open(out, &name);
        if ns.is_some() && !is_declared {
            tag = writing.declare(tag, "xmlns", self.ns_str())?;
        }
        for &(name, value) in stamps.iter().filter(|(_, value)| !value.is_empty()) {
            tag = tag.attr(name, value);
        }
        let attributes = self.attributes();
        for (i, attribute) in attributes.iter().enumerate() {
            let name = attribute.name.of(tree.source);
            if stamps.iter().any(|&(stamp, _)| stamp == name) {
                continue;
            }
            let prefix = attribute.prefix_of(tree);
            let is_declared = prefix.is_empty()
                || attribute.ns.ns == Ns::Xml
                || attributes[..i].iter().any(|a| a.prefix_of(tree) == prefix);
            if !is_declared {
                let name = format!("xmlns:{prefix}");
                tag = writing.declare(tag, &name, tree.uri(attribute.ns))?;
            }
            tag = tag.attr(name, tree.resolve(attribute.value));
        }
        let first = self.element().first;
        if first == NONE {
            tag.close_empty();
        } else {
            tag.start();
            writing.steps.push(Step::End(self));
            writing.steps.push(Step::Item(first, ns));
        }
        Ok(())
    }
}

impl Attribute {
    fn prefix_of<'t>(&self, tree: &'t Tree<'_>) -> &'t str {
        &self.name.of(tree.source)[..self.prefix as usize]
    }

    fn local<'t>(&self, tree: &'t Tree<'_>) -> &'t str {
        let name = self.name.of(tree.source);
        if self.prefix == 0 {
            name
        } else {
            &name[self.prefix as usize + 1..]
        }
    }
}
