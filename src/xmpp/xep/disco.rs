//! XEP-0030: Service Discovery. What the server, and one's own account, can do.

use super::{Answer, Context, Extension, Request, Target, Xep, features, only_get};
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
    ) -> Result<Answer, StanzaError> {
        // XEP-0030 8: what an account can do is its contacts' business.
        if request.target == Target::Other && !context.sees_presence {
            return Err(StanzaError::ServiceUnavailable);
        }
        only_get(request)?;
        // XEP-0030 7: a node that is not there is an item that is not found.
        if request.payload.attr("node").is_some() {
            return Err(StanzaError::ItemNotFound);
        }
        payload.extend_from_slice(b"<query xmlns='http://jabber.org/protocol/disco#info'>");
        match request.target {
            Target::Server => {
                put(
                    payload,
                    format_args!("<identity category='server' type='im' name='"),
                );
                put(payload, format_args!("{}'/>", Attr(SOFTWARE_NAME)));
                for feature in features(context.settings) {
                    put(
                        payload,
                        format_args!("<feature var='{}'/>", feature.as_str()),
                    );
                }
                write_contacts(&context.settings.contacts, payload);
            }
            Target::Account | Target::Other => {
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
        Ok(Answer::Now)
    }
}

impl Extension for DiscoItems {
    const XEP: Xep = XEP;
    const NAMESPACES: &'static [Ns] = &[Ns::DiscoItems];
    const FEATURES: &'static [Ns] = &[Ns::DiscoItems];

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        if request.target == Target::Other && !context.sees_presence {
            return Err(StanzaError::ServiceUnavailable);
        }
        only_get(request)?;
        if request.payload.attr("node").is_some() {
            return Err(StanzaError::ItemNotFound);
        }
        payload.extend_from_slice(b"<query xmlns='http://jabber.org/protocol/disco#items'/>");
        Ok(Answer::Now)
    }
}

/// XEP-0157: whom to turn to, as a form with one field per kind of contact.
fn write_contacts(contacts: &[(Box<str>, Vec<Box<str>>)], payload: &mut Vec<u8>) {
    if contacts.is_empty() {
        return;
    }
    payload.extend_from_slice(
        b"<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'>\
          <value>http://jabber.org/network/serverinfo</value></field>",
    );
    for (kind, addresses) in contacts {
        let kind = Attr(kind);
        put(
            payload,
            format_args!("<field var='{kind}-addresses' type='list-multi'>"),
        );
        for address in addresses {
            put(payload, format_args!("<value>{}</value>", Attr(address)));
        }
        payload.extend_from_slice(b"</field>");
    }
    payload.extend_from_slice(b"</x>");
}
