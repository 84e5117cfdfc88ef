//! XEP-0092: Software Version.

use super::{Answer, Context, Extension, Request, Target, Xep, only_get};
use crate::error::{StanzaError, put};
use crate::settings::SOFTWARE_NAME;
use crate::xml::Attr;
use stanza::ns::Ns;

/// Says which server this is.
#[derive(Debug)]
pub struct Version;

impl Extension for Version {
    const XEP: Xep = Xep {
        number: 92,
        version: "1.1",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::Version];
    const FEATURES: &'static [Ns] = &[Ns::Version];

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        if request.target != Target::Server {
            return Err(StanzaError::ServiceUnavailable);
        }
        only_get(request)?;
        let version = Attr(context.settings.software_version);
        put(
            payload,
            format_args!(
                "<query xmlns='jabber:iq:version'><name>{}</name><version>{version}</version>\
                 </query>",
                Attr(SOFTWARE_NAME)
            ),
        );
        Ok(Answer::Now)
    }
}
