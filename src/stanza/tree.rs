//! One element as a tree in an arena, for whoever reads a payload.
//!
//! Invariant: [`Tree::parse`] accepts exactly what [`crate::view::StanzaView::parse`] accepts.

mod build;
mod node;

pub use node::Node;

use crate::error::XmlError;
use crate::lexis::Span;
use crate::ns::Ns;
use crate::scope::StreamScope;
use crate::simd;
use crate::view::is_content;
use crate::walk::Walk;

/// Namespace declarations in an element written anew ([`Node::write`]).
pub const DECLARATIONS_MAX: u16 = 256;
/// Bytes of all the namespaces declared in an element written anew. A name used with a prefix many
/// times would otherwise grow by the whole namespace each time.
pub const DECLARED_SIZE_MAX: usize = 32 << 10;

/// No item, no namespace, nowhere.
const NONE: u32 = u32::MAX;

/// An element with all its descendants. References and CDATA are resolved.
#[derive(Debug)]
pub struct Tree<'a> {
    source: &'a str,
    /// Resolved values that differ from their source.
    resolved: String,
    items: Vec<Item>,
    elements: Vec<Element>,
    attributes: Vec<Attribute>,
    /// Namespaces that are not interned, each once.
    uris: Vec<Box<str>>,
}

/// A value in the source or among the resolved ones.
#[derive(Clone, Copy, Debug)]
struct Text {
    span: Span,
    is_resolved: bool,
}

/// A child: an element or a piece of text, linked to its next sibling.
#[derive(Clone, Copy, Debug)]
struct Item {
    next: u32,
    content: Content,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Element(u32),
    Text(Text),
}

#[derive(Clone, Copy, Debug)]
struct Element {
    local: Span,
    raw: Span,
    ns: Namespace,
    /// Its attributes: the first, and how many.
    attributes: (u32, u32),
    first: u32,
    last: u32,
    text: Text,
}

#[derive(Clone, Copy, Debug)]
struct Attribute {
    /// The name as written.
    name: Span,
    prefix: u32,
    ns: Namespace,
    value: Text,
}

/// A namespace: interned, or (`Unknown`) the index of its text. Equal ones are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Namespace {
    ns: Ns,
    uri: u32,
}

impl<'a> Tree<'a> {
    /// Parses an element, which needs not be a stanza.
    pub fn parse(bytes: &'a [u8], scope: &StreamScope) -> Result<Tree<'a>, XmlError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(XmlError::TooBig);
        }
        let source = simd::check_characters(bytes)?;
        let mut builder = build::Builder::new(source);
        Walk::new(source, scope).run(&mut builder)?;
        Ok(builder.finish())
    }

    /// Puts what is of a content namespace, as is all around it, into that of the outermost
    /// element.
    pub(crate) fn unify_content(&mut self) {
        let own = self.elements[0].ns;
        let mut open = vec![0];
        while let Some(index) = open.pop() {
            let mut at = self.elements[index as usize].first;
            while let Some(item) = self.items.get(at as usize).copied() {
                at = item.next;
                if let Content::Element(child) = item.content
                    && is_content(self.elements[child as usize].ns.ns)
                {
                    self.elements[child as usize].ns = own;
                    open.push(child);
                }
            }
        }
    }

    /// The outermost element.
    pub fn root(&self) -> Node<'_> {
        Node::new(self, 0)
    }

    fn resolve(&self, text: Text) -> &str {
        text.span.of(if text.is_resolved {
            &self.resolved
        } else {
            self.source
        })
    }

    /// Bytes that the tree takes beside its source.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.resolved.len()
            + size_of_val(&*self.items)
            + size_of_val(&*self.elements)
            + size_of_val(&*self.attributes)
            + self.uris.iter().map(|uri| uri.len()).sum::<usize>()
            + size_of_val(&*self.uris)
    }

    fn uri(&self, namespace: Namespace) -> &str {
        #[cfg(test)]
        if let Some(uri) = self.uris.get(namespace.uri as usize) {
            crate::namespaces::tests::touch(uri.len());
        }
        match self.uris.get(namespace.uri as usize) {
            Some(uri) => uri,
            None => namespace.ns.as_str(),
        }
    }
}

#[cfg(test)]
mod tests;
