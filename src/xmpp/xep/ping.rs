//! XEP-0199: XMPP Ping. Whether the server is still there.

use super::{Answer, Context, Extension, Request, Target, Xep, only_get};
use crate::error::StanzaError;
use stanza::ns::Ns;

/// Answers pings to the server and to one's own account.
#[derive(Debug)]
pub struct Ping;

impl Extension for Ping {
    const XEP: Xep = Xep {
        number: 199,
        version: "2.0.1",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::Ping];
    const FEATURES: &'static [Ns] = &[Ns::Ping];

    fn iq(
        _context: &Context<'_>,
        request: &Request<'_>,
        _payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        if request.target == Target::Other {
            return Err(StanzaError::ServiceUnavailable);
        }
        only_get(request)?;
        Ok(Answer::Now)
    }
}
