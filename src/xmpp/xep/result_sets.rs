//! XEP-0059: Result Set Management. Which page of a result a client asks for, and which it got.

use super::{Extension, Xep};
use crate::error::{StanzaError, put};
use crate::xml::Attr;
use stanza::ns::Ns;
use stanza::tree::Node;

/// Result sets; extensions with long results read and write them.
#[derive(Debug)]
pub struct ResultSets;

impl Extension for ResultSets {
    const XEP: Xep = Xep {
        number: 59,
        version: "1.0.0",
    };
}

/// The page that a client asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PageRequest<'a> {
    /// At most so many items; none asks for their number only (XEP-0059 2.7).
    pub max: Option<usize>,
    /// Those behind this one.
    pub after: Option<&'a str>,
    /// Those before this one; an empty id stands for the end (2.5).
    pub before: Option<&'a str>,
}

impl<'a> PageRequest<'a> {
    /// Reads `<set/>`.
    ///
    /// # Errors
    /// What is no number, or a page by its index, which no extension here knows (2.6).
    pub(crate) fn read(set: Node<'a>) -> Result<PageRequest<'a>, StanzaError> {
        let mut page = PageRequest::default();
        for child in set.children().filter(|child| child.ns() == Ns::ResultSet) {
            match child.name() {
                "max" => {
                    let max = child.text().trim().parse();
                    page.max = Some(max.map_err(|_| StanzaError::BadRequest)?);
                }
                "after" => page.after = Some(child.text()),
                "before" => page.before = Some(child.text()),
                "index" => return Err(StanzaError::FeatureNotImplemented),
                _ => {}
            }
        }
        Ok(page)
    }
}

/// Writes `<set/>` of a page that begins and ends with these items.
pub(crate) fn write_set(ends: Option<(&str, &str)>, count: Option<usize>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<set xmlns='http://jabber.org/protocol/rsm'>");
    if let Some((first, last)) = ends {
        let (first, last) = (Attr(first), Attr(last));
        put(
            out,
            format_args!("<first>{first}</first><last>{last}</last>"),
        );
    }
    if let Some(count) = count {
        put(out, format_args!("<count>{count}</count>"));
    }
    out.extend_from_slice(b"</set>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use stanza::scope::StreamScope;
    use stanza::tree::Tree;

    #[test]
    fn a_page_is_read_as_far_as_it_is_known() {
        let read = |children: &str| {
            let set = format!("<set xmlns='http://jabber.org/protocol/rsm'>{children}</set>");
            let scope = StreamScope::client();
            let tree = Tree::parse(set.as_bytes(), &scope).unwrap();
            let page = PageRequest::read(tree.root())?;
            let own = |text: Option<&str>| text.map(str::to_owned);
            Ok((page.max, own(page.after), own(page.before)))
        };
        let id = Some("x".to_owned());
        assert_eq!(read(""), Ok((None, None, None)));
        assert_eq!(
            read("<max>7</max><after>x</after>"),
            Ok((Some(7), id.clone(), None))
        );
        assert_eq!(
            read("<before/><max>0</max>"),
            Ok((Some(0), None, Some(String::new())))
        );
        assert_eq!(read("<before>x</before>"), Ok((None, None, id)));
        assert_eq!(read("<max>-1</max>"), Err(StanzaError::BadRequest));
        assert_eq!(read("<max/>"), Err(StanzaError::BadRequest));
        assert_eq!(
            read("<index>3</index>"),
            Err(StanzaError::FeatureNotImplemented)
        );
        assert_eq!(read("<max xmlns='urn:x'>y</max>"), Ok((None, None, None)));
    }
}
