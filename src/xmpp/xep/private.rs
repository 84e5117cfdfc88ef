//! XEP-0049: Private XML Storage. A client's own documents, one per element name and namespace.

use super::{Answer, Context, Extension, Request, Target, Xep, bookmarks};
use crate::error::StanzaError;
use crate::port::{DOCUMENT_NAME_SIZE_MAX, Space, StoreOp, StoreReply};
use stanza::ns::Ns;
use stanza::tree::Node;

/// Bytes of one document.
pub const PRIVATE_SIZE_MAX: usize = 64 << 10;

/// Stores and returns private documents.
#[derive(Debug)]
pub struct Private;

impl Extension for Private {
    const XEP: Xep = Xep {
        number: 49,
        version: "1.2",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::Private];
    const FEATURES: &'static [Ns] = &[Ns::Private];

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        match request.target {
            Target::Account => {}
            Target::Server => return Err(StanzaError::ServiceUnavailable),
            Target::Other => return Err(StanzaError::Forbidden),
        }
        let mut children = request.payload.children();
        let (Some(document), None) = (children.next(), children.next()) else {
            return Err(StanzaError::NotAcceptable);
        };
        // XEP-0049 4: the namespace is what tells documents apart, so it cannot be the query's own.
        let ns = document.ns_str();
        if ns.is_empty() || document.ns() == Ns::Private {
            return Err(StanzaError::BadRequest);
        }
        let key: Box<str> = format!("{} {ns}", document.name()).into();
        if key.len() > DOCUMENT_NAME_SIZE_MAX {
            return Err(StanzaError::NotAcceptable);
        }
        let account = context.account.clone();
        if !request.is_set {
            // Kept for the case that there is none yet: the request itself comes back.
            write_document(document, payload)?;
            return Ok(Answer::Ask(StoreOp::Document {
                account,
                space: Space::Private,
                key,
            }));
        }
        let mut bytes = Vec::new();
        write_document(document, &mut bytes)?;
        if bytes.len() > PRIVATE_SIZE_MAX {
            return Err(StanzaError::ResourceConstraint);
        }
        let bytes = bytes.into();
        if *key == *bookmarks::KEY && context.settings.has_bookmarks_converted() {
            return Ok(Answer::Change((Space::Private, key, bytes)));
        }
        Ok(Answer::Ask(StoreOp::PutDocument {
            account,
            space: Space::Private,
            key,
            bytes,
        }))
    }

    fn stored(reply: StoreReply, payload: &mut Vec<u8>) -> Result<(), StanzaError> {
        let asked = std::mem::take(payload);
        let document = match reply {
            StoreReply::Document(Some(bytes)) => bytes.into_vec(),
            StoreReply::Document(None) => asked,
            reply => return super::done(reply),
        };
        payload.extend_from_slice(b"<query xmlns='jabber:iq:private'>");
        payload.extend_from_slice(&document);
        payload.extend_from_slice(b"</query>");
        Ok(())
    }
}

fn write_document(document: Node<'_>, out: &mut Vec<u8>) -> Result<(), StanzaError> {
    // Only a document with too many namespaces cannot be written.
    document
        .write_within(Ns::Private.as_str(), out)
        .map_err(|_| StanzaError::NotAcceptable)
}
