//! Stream headers and stream features: what a client is told it may do next (RFC 6120 4.3).

use crate::error::put;
use crate::host::{ConnId, Host};
use crate::shard::Shard;
use crate::stream::sasl::Offer;
use crate::stream::{Phase, StreamState};
use crate::xml::Attr;

impl Shard {
    /// Writes our stream header with a fresh id (RFC 6120 4.7.3: unpredictable).
    pub(crate) fn write_header(&self, host: &mut impl Host, conn: ConnId, to: Option<&str>) {
        let id = (host.random(), host.random());
        let domain = &self.settings.domain;
        let out = host.output(conn);
        put(
            out,
            format_args!(
                "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                 xmlns:stream='http://etherx.jabber.org/streams' id='{:016x}{:016x}' \
                 from='{}' version='1.0' xml:lang='en'",
                id.0,
                id.1,
                Attr(domain)
            ),
        );
        if let Some(to) = to {
            put(out, format_args!(" to='{}'", Attr(to)));
        }
        out.push(b'>');
    }

    /// Writes the features of the phase that `stream` has entered.
    pub(crate) fn write_features(&self, host: &mut impl Host, conn: ConnId, stream: &StreamState) {
        let settings = &self.settings;
        let out = host.output(conn);
        out.extend_from_slice(b"<stream:features>");
        let mut size_max = settings.limits.stanza_size_before_auth_max;
        if let Phase::ExpectBind(_) = stream.phase {
            out.extend_from_slice(
                b"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
                  <session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>\
                  <sub xmlns='urn:xmpp:features:pre-approval'/>\
                  <ver xmlns='urn:xmpp:features:rosterver'/>\
                  <sm xmlns='urn:xmpp:sm:3'/>",
            );
            size_max = settings.limits.stanza_size_max;
        } else {
            let must_secure = !stream.secure && settings.tls_required;
            if !stream.secure && settings.tls_available {
                out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'>");
                if must_secure {
                    out.extend_from_slice(b"<required/>");
                }
                out.extend_from_slice(b"</starttls>");
            }
            if !must_secure {
                write_mechanisms(Offer::new(settings, stream.tls.as_deref()), out);
                if settings.registration_open {
                    out.extend_from_slice(
                        b"<register xmlns='http://jabber.org/features/iq-register'/>",
                    );
                }
            }
        }
        // XEP-0478 2: what applies from here on.
        out.extend_from_slice(b"<limits xmlns='urn:xmpp:stream-limits:0'>");
        put(
            out,
            format_args!("<max-bytes>{size_max}</max-bytes></limits>"),
        );
        out.extend_from_slice(b"</stream:features>");
    }
}

/// Writes the SASL mechanisms, and with -PLUS among them the channel bindings (XEP-0440 3).
fn write_mechanisms(offer: Offer<'_>, out: &mut Vec<u8>) {
    // There may be none before TLS.
    if offer.mechanisms().next().is_none() {
        return;
    }
    out.extend_from_slice(b"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>");
    for mechanism in offer.mechanisms() {
        put(
            out,
            format_args!("<mechanism>{}</mechanism>", mechanism.as_str()),
        );
    }
    out.extend_from_slice(b"</mechanisms>");
    if offer.offers_plus() {
        out.extend_from_slice(b"<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>");
        for binding in offer.bindings() {
            put(out, format_args!("<channel-binding type='{binding}'/>"));
        }
        out.extend_from_slice(b"</sasl-channel-binding>");
    }
}
