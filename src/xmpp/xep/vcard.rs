//! XEP-0054: vcard-temp. An account's card, which everybody may read and only its owner writes.

use super::{Answer, Context, Extension, Request, Target, Xep};
use crate::error::StanzaError;
use crate::port::{Space, StoreOp, StoreReply};
use stanza::ns::Ns;

/// Bytes of a card, its photo included.
pub const VCARD_SIZE_MAX: usize = 128 << 10;

/// Stores and returns cards.
#[derive(Debug)]
pub struct Vcard;

impl Extension for Vcard {
    const XEP: Xep = Xep {
        number: 54,
        version: "1.3",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::VcardTemp];
    const FEATURES: &'static [Ns] = &[Ns::VcardTemp];

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        if !request.payload.is("vCard", Ns::VcardTemp) {
            return Err(StanzaError::BadRequest);
        }
        let account = context.account.clone();
        let (space, key) = (Space::Vcard, "".into());
        match (request.target, request.is_set) {
            (Target::Server, false) => {
                payload.extend_from_slice(b"<vCard xmlns='vcard-temp'><FN>");
                payload.extend_from_slice(crate::settings::SOFTWARE_NAME.as_bytes());
                payload.extend_from_slice(b"</FN></vCard>");
                Ok(Answer::Now)
            }
            (Target::Server | Target::Other, true) => Err(StanzaError::Forbidden),
            (_, false) => Ok(Answer::Ask(StoreOp::Document {
                account,
                space,
                key,
            })),
            (Target::Account, true) => {
                let mut bytes = Vec::new();
                let written = request.payload.write(&mut bytes);
                written.map_err(|_| StanzaError::NotAcceptable)?;
                if bytes.len() > VCARD_SIZE_MAX {
                    return Err(StanzaError::ResourceConstraint);
                }
                Ok(Answer::Change((space, key, bytes.into())))
            }
        }
    }

    fn stored(reply: StoreReply, payload: &mut Vec<u8>) -> Result<(), StanzaError> {
        match reply {
            StoreReply::Document(Some(bytes)) => payload.extend_from_slice(&bytes),
            // XEP-0054 3.1: the same whether the account has no card or does not exist.
            StoreReply::Document(None) => payload.extend_from_slice(b"<vCard xmlns='vcard-temp'/>"),
            reply => return super::done(reply),
        }
        Ok(())
    }
}
