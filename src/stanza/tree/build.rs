//! The sink that grows a tree.

use super::{Attribute, Content, Element, Item, NONE, Namespace, Text, Tree};
use crate::lexis::{self, Span};
use crate::namespaces::NsRef;
use crate::walk::{Sink, Tag, Walk};
use std::borrow::Cow;

/// A tree that is growing, and the elements that are open.
pub(super) struct Builder<'a> {
    tree: Tree<'a>,
    open: Vec<u32>,
    /// By [`NsRef::slot`], which text of the tree a namespace is, once one of its names was met.
    uris: Vec<u32>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(source: &'a str) -> Builder<'a> {
        let tree = Tree {
            source,
            resolved: String::new(),
            items: Vec::new(),
            elements: Vec::new(),
            attributes: Vec::new(),
            uris: Vec::new(),
        };
        Builder {
            tree,
            open: Vec::new(),
            uris: Vec::new(),
        }
    }

    /// Joins the pieces of text of every element.
    pub(super) fn finish(mut self) -> Tree<'a> {
        for i in 0..self.tree.elements.len() {
            self.tree.elements[i].text = self.joined(i);
        }
        self.tree
    }

    fn joined(&mut self, element: usize) -> Text {
        let tree = &mut self.tree;
        let mut joined = Text {
            span: Span::default(),
            is_resolved: false,
        };
        let mut pieces = 0;
        let mut at = tree.elements[element].first;
        while at != NONE {
            let Item { next, content } = tree.items[at as usize];
            at = next;
            let Content::Text(piece) = content else {
                continue;
            };
            pieces += 1;
            if pieces == 1 {
                joined = piece;
                continue;
            }
            // The second piece makes a copy of the first; further ones find it last and append.
            let start = if pieces == 2 {
                let start = tree.resolved.len();
                tree.append(joined);
                start
            } else {
                joined.span.start as usize
            };
            tree.append(piece);
            let span = Span::new(start, tree.resolved.len());
            joined = Text {
                span,
                is_resolved: true,
            };
        }
        joined
    }

    fn value(&mut self, span: Span, value: Cow<'_, str>) -> Text {
        match value {
            Cow::Borrowed(_) => Text {
                span,
                is_resolved: false,
            },
            Cow::Owned(value) => {
                let start = self.tree.resolved.len();
                self.tree.resolved.push_str(&value);
                Text {
                    span: Span::new(start, start + value.len()),
                    is_resolved: true,
                }
            }
        }
    }

    fn namespace(&mut self, walk: &Walk<'_>, ns: NsRef) -> Namespace {
        let interned = ns.interned();
        let Some(slot) = ns.slot() else {
            return Namespace {
                ns: interned,
                uri: NONE,
            };
        };
        if self.uris.len() <= slot {
            self.uris.resize(slot + 1, NONE);
        }
        if self.uris[slot] == NONE {
            self.uris[slot] = self.tree.uris.len() as u32;
            self.tree.uris.push(walk.uri(ns).into());
        }
        Namespace {
            ns: interned,
            uri: self.uris[slot],
        }
    }

    /// Appends a child to the innermost open element.
    fn append(&mut self, content: Content) {
        let Some(&parent) = self.open.last() else {
            return;
        };
        let index = self.tree.items.len() as u32;
        self.tree.items.push(Item {
            next: NONE,
            content,
        });
        let parent = &mut self.tree.elements[parent as usize];
        match parent.last {
            NONE => parent.first = index,
            last => self.tree.items[last as usize].next = index,
        }
        parent.last = index;
    }
}

impl Tree<'_> {
    fn append(&mut self, piece: Text) {
        if piece.is_resolved {
            let range = piece.span.start as usize..piece.span.end();
            self.resolved.extend_from_within(range);
        } else {
            self.resolved.push_str(piece.span.of(self.source));
        }
    }
}

impl Sink for Builder<'_> {
    fn open(&mut self, walk: &Walk<'_>, tag: &Tag) {
        let first = self.tree.attributes.len() as u32;
        for &attribute in walk.attributes.iter() {
            if attribute.is_declaration(walk.text.as_bytes()) {
                continue;
            }
            let ns = match attribute.prefix {
                0 => NsRef::None,
                _ => walk.attribute_ns(attribute),
            };
            let value = lexis::attribute_value(attribute.value.of(walk.text));
            let attribute = Attribute {
                name: attribute.name,
                prefix: attribute.prefix,
                ns: self.namespace(walk, ns),
                value: self.value(attribute.value, value),
            };
            self.tree.attributes.push(attribute);
        }
        let index = self.tree.elements.len() as u32;
        let ns = self.namespace(walk, tag.ns);
        self.append(Content::Element(index));
        self.tree.elements.push(Element {
            local: tag.local(),
            raw: Span {
                start: tag.start,
                size: 0,
            },
            ns,
            attributes: (first, self.tree.attributes.len() as u32 - first),
            first: NONE,
            last: NONE,
            text: Text {
                span: Span::default(),
                is_resolved: false,
            },
        });
        self.open.push(index);
    }

    fn text(&mut self, raw: Span, is_cdata: bool) {
        let source = self.tree.source;
        let value = self.value(raw, lexis::character_data(raw.of(source), is_cdata));
        self.append(Content::Text(value));
    }

    fn close(&mut self, end: usize) {
        if let Some(index) = self.open.pop() {
            let raw = &mut self.tree.elements[index as usize].raw;
            raw.size = end as u32 - raw.start;
        }
    }
}
