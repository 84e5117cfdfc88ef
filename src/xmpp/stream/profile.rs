//! The two profiles of SASL: the exchange is the same, its elements on the wire differ.

use super::sasl::{self, SaslError};
use crate::error::put;
use stanza::ns::Ns;

/// The profile that a stream's client speaks, for as long as the stream lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// RFC 6120 6: behind success a new stream begins.
    Rfc6120,
    /// XEP-0388: the stream goes on.
    Sasl2,
}

impl Profile {
    /// The profile whose elements are in this namespace.
    pub(crate) fn of(ns: Ns) -> Option<Profile> {
        match ns {
            Ns::Sasl => Some(Profile::Rfc6120),
            Ns::Sasl2 => Some(Profile::Sasl2),
            _ => None,
        }
    }

    fn ns(self) -> &'static str {
        match self {
            Profile::Rfc6120 => Ns::Sasl.as_str(),
            Profile::Sasl2 => Ns::Sasl2.as_str(),
        }
    }

    pub(super) fn write_challenge(self, message: &[u8], out: &mut Vec<u8>) {
        let (ns, message) = (self.ns(), sasl::encode(message));
        put(
            out,
            format_args!("<challenge xmlns='{ns}'>{message}</challenge>"),
        );
    }

    pub(crate) fn write_failure(self, error: SaslError, out: &mut Vec<u8>) {
        let (ns, condition) = (self.ns(), error.condition());
        put(out, format_args!("<failure xmlns='{ns}'><{condition}"));
        // XEP-0388 2.6.2: the conditions are those of RFC 6120 6.5, in its namespace.
        if self == Profile::Sasl2 {
            put(out, format_args!(" xmlns='{}'", Ns::Sasl.as_str()));
        }
        out.extend_from_slice(b"/></failure>");
    }
}
