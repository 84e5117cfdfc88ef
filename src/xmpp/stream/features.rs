//! Stream headers and stream features: what a client is told it may do next (RFC 6120 4.3).

use crate::error::put;
use crate::host::{ConnId, Host};
use crate::settings::Settings;
use crate::shard::Shard;
use crate::stream::sasl::Offer;
use crate::stream::{Phase, StreamState};
use crate::xep::{bind2, upgrade};
use crate::xml::Attr;
use stanza::framing;

impl Shard {
    /// Writes our stream header with a fresh id (RFC 6120 4.7.3: unpredictable).
    pub(crate) fn write_header(&self, host: &mut impl Host, conn: ConnId, to: Option<&str>) {
        let id = (host.random(), host.random());
        let domain = &self.settings.domain;
        let out = host.output(conn);
        out.extend_from_slice(framing::HEADER.as_bytes());
        put(
            out,
            format_args!(
                " id='{:016x}{:016x}' from='{}' version='1.0' xml:lang='en'",
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
        if stream.is_authenticated() {
            self.write_session_features(stream, out);
            size_max = settings.limits.stanza_size_max;
        } else {
            let must_secure = !stream.secure && settings.tls_required;
            if stream.may_start_tls(settings) {
                out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'>");
                if must_secure {
                    out.extend_from_slice(b"<required/>");
                }
                out.extend_from_slice(b"</starttls>");
            }
            if !must_secure {
                write_mechanisms(settings, stream, out);
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

    /// Writes what an authenticated client may do, and one that is bound already.
    fn write_session_features(&self, stream: &StreamState, out: &mut Vec<u8>) {
        let mut is_managed = false;
        match stream.phase {
            Phase::Bound(key) => is_managed = self.sessions.at(key).outlet.acks.is_some(),
            _ => out.extend_from_slice(
                b"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
                  <session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>",
            ),
        }
        out.extend_from_slice(
            b"<sub xmlns='urn:xmpp:features:pre-approval'/>\
              <ver xmlns='urn:xmpp:features:rosterver'/>",
        );
        if !is_managed {
            out.extend_from_slice(b"<sm xmlns='urn:xmpp:sm:3'/>");
        }
        out.extend_from_slice(b"<csi xmlns='urn:xmpp:csi:0'/>");
        out.extend_from_slice(self.capabilities.element());
    }
}

/// Writes the SASL mechanisms for both profiles, and with -PLUS among them the channel bindings
/// (XEP-0440 3).
fn write_mechanisms(settings: &Settings, stream: &StreamState, out: &mut Vec<u8>) {
    let offer = Offer::new(settings, stream.tls.as_deref());
    // There may be none before TLS.
    if offer.mechanisms().next().is_none() {
        return;
    }
    out.extend_from_slice(b"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>");
    write_names(offer, out);
    out.extend_from_slice(b"</mechanisms>");
    if stream.secure {
        // XEP-0388 3: only where there is TLS.
        out.extend_from_slice(b"<authentication xmlns='urn:xmpp:sasl:2'>");
        write_names(offer, out);
        out.extend_from_slice(b"<inline>");
        // XEP-0484 3.1
        if offer.tokens().next().is_some() {
            out.extend_from_slice(b"<fast xmlns='urn:xmpp:fast:0'>");
            for token in offer.tokens() {
                put(
                    out,
                    format_args!("<mechanism>{}</mechanism>", token.as_str()),
                );
            }
            out.extend_from_slice(b"</fast>");
        }
        // XEP-0198 9.1, 9.2, XEP-0386 3.1
        out.extend_from_slice(b"<sm xmlns='urn:xmpp:sm:3'/><bind xmlns='urn:xmpp:bind:0'><inline>");
        for feature in bind2::INLINE {
            put(out, format_args!("<feature var='{}'/>", feature.as_str()));
        }
        out.extend_from_slice(b"</inline></bind></inline>");
        upgrade::write_offer(settings, out);
        out.extend_from_slice(b"</authentication>");
    }
    if offer.offers_plus() {
        out.extend_from_slice(b"<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>");
        for binding in offer.bindings() {
            put(out, format_args!("<channel-binding type='{binding}'/>"));
        }
        out.extend_from_slice(b"</sasl-channel-binding>");
    }
}

fn write_names(offer: Offer<'_>, out: &mut Vec<u8>) {
    for mechanism in offer.mechanisms() {
        let name = mechanism.as_str();
        put(out, format_args!("<mechanism>{name}</mechanism>"));
    }
}
