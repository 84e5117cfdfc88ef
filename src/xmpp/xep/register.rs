//! XEP-0077: In-Band Registration, where it is open. Registration itself comes before
//! authentication, see `stream::register`; here is what a logged-in client may ask.

use super::{Context, Extension, Request, Target, Xep};
use crate::error::{StanzaError, put};
use crate::xml::Attr;
use stanza::ns::Ns;

/// Tells a client that it is registered. Changing the password and cancelling are not offered.
#[derive(Debug)]
pub struct Register;

impl Extension for Register {
    const XEP: Xep = Xep {
        number: 77,
        version: "2.4",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::Register];
    const FEATURES: &'static [Ns] = &[Ns::Register];

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<(), StanzaError> {
        if !context.settings.registration_open || request.target == Target::Account {
            return Err(StanzaError::ServiceUnavailable);
        }
        if request.is_set {
            return Err(StanzaError::FeatureNotImplemented);
        }
        let local = context.session.bare().split('@').next().unwrap_or_default();
        put(
            payload,
            format_args!(
                "<query xmlns='jabber:iq:register'><registered/><username>{}</username></query>",
                Attr(local)
            ),
        );
        Ok(())
    }
}
