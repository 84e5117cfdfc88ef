//! Why a request is refused: a condition of stanza errors and, mostly, one of the extension's own
//! (XEP-0060 15).

use crate::error::{StanzaError, put};

/// A refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    condition: StanzaError,
    /// What the extension adds: the name of an element.
    detail: Option<&'static str>,
    /// The feature that it names.
    feature: Option<&'static str>,
}

impl From<StanzaError> for Refusal {
    fn from(condition: StanzaError) -> Refusal {
        Refusal {
            condition,
            detail: None,
            feature: None,
        }
    }
}

impl Refusal {
    /// One with a condition of the extension.
    pub(crate) const fn with(condition: StanzaError, detail: &'static str) -> Refusal {
        Refusal {
            condition,
            detail: Some(detail),
            feature: None,
        }
    }

    /// Of something that this service does not do.
    pub(crate) const fn unsupported(feature: &'static str) -> Refusal {
        Refusal {
            condition: StanzaError::FeatureNotImplemented,
            detail: Some("unsupported"),
            feature: Some(feature),
        }
    }

    /// Its condition among those of all stanzas.
    #[cfg(test)]
    pub(crate) fn condition(self) -> StanzaError {
        self.condition
    }

    /// Writes the `<error/>` element.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let Some(detail) = self.detail else {
            return self.condition.write(out);
        };
        let (type_, condition) = (self.condition.error_type(), self.condition.condition());
        put(
            out,
            format_args!(
                "<error type='{type_}'><{condition} \
                 xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><{detail} \
                 xmlns='http://jabber.org/protocol/pubsub#errors'"
            ),
        );
        if let Some(feature) = self.feature {
            put(out, format_args!(" feature='{feature}'"));
        }
        out.extend_from_slice(b"/></error>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_extension_has_to_add() {
        let written = |refusal: Refusal| {
            let mut out = Vec::new();
            refusal.write(&mut out);
            String::from_utf8_lossy(&out).into_owned()
        };
        let plain = written(StanzaError::Forbidden.into());
        assert!(plain.ends_with("xmpp-stanzas'/></error>"), "{plain}");
        let closed = written(Refusal::with(StanzaError::NotAllowed, "closed-node"));
        let detail = "<closed-node xmlns='http://jabber.org/protocol/pubsub#errors'/></error>";
        assert!(closed.ends_with(detail), "{closed}");
        let unsupported = written(Refusal::unsupported("get-pending"));
        assert!(
            unsupported.contains(" feature='get-pending'/>"),
            "{unsupported}"
        );
    }
}
