//! XEP-0030: Service Discovery. What the server, and one's own account, can do.

use super::{Context, Extension, FEATURES, Request, Target, Xep, only_get};
use crate::error::{StanzaError, put};
use crate::settings::SOFTWARE_NAME;
use crate::xml::Attr;
use stanza::ns::Ns;

/// disco#info.
#[derive(Debug)]
pub struct Disco;

/// disco#items: nothing yet, neither services of the server nor nodes of an account.
#[derive(Debug)]
pub struct DiscoItems;

const XEP: Xep = Xep {
    number: 30,
    version: "2.5.0",
};

impl Extension for Disco {
    const XEP: Xep = XEP;
    const NAMESPACES: &'static [Ns] = &[Ns::DiscoInfo];
    const FEATURES: &'static [Ns] = &[Ns::DiscoInfo];

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<(), StanzaError> {
        only_get(request)?;
        // XEP-0030 7: a node that is not there is an item that is not found.
        if request.payload.attr("node").is_some() {
            return Err(StanzaError::ItemNotFound);
        }
        payload.extend_from_slice(b"<query xmlns='http://jabber.org/protocol/disco#info'>");
        let open = context.settings.registration_open;
        match request.target {
            Target::Server => {
                put(
                    payload,
                    format_args!("<identity category='server' type='im' name='"),
                );
                put(payload, format_args!("{}'/>", Attr(SOFTWARE_NAME)));
                let listed = FEATURES.iter().copied().flatten();
                for feature in listed.filter(|ns| open || **ns != Ns::Register) {
                    put(
                        payload,
                        format_args!("<feature var='{}'/>", feature.as_str()),
                    );
                }
            }
            Target::Account => {
                payload.extend_from_slice(b"<identity category='account' type='registered'/>");
                for feature in Self::FEATURES.iter().chain(DiscoItems::FEATURES) {
                    put(
                        payload,
                        format_args!("<feature var='{}'/>", feature.as_str()),
                    );
                }
            }
        }
        payload.extend_from_slice(b"</query>");
        Ok(())
    }
}

impl Extension for DiscoItems {
    const XEP: Xep = XEP;
    const NAMESPACES: &'static [Ns] = &[Ns::DiscoItems];
    const FEATURES: &'static [Ns] = &[Ns::DiscoItems];

    fn iq(
        _context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<(), StanzaError> {
        only_get(request)?;
        if request.payload.attr("node").is_some() {
            return Err(StanzaError::ItemNotFound);
        }
        payload.extend_from_slice(b"<query xmlns='http://jabber.org/protocol/disco#items'/>");
        Ok(())
    }
}
