//! What this stream offers: the mechanisms, and the channel bindings behind -PLUS (XEP-0440).
//!
//! Invariant: the offer is a function of the settings and the TLS facts, so what was advertised and
//! what is accepted cannot differ.

use super::{Mechanism, SaslError};
use crate::host::TlsFacts;
use crate::settings::Settings;

/// `tls-exporter` (RFC 9266).
pub(super) const EXPORTER: &str = "tls-exporter";

/// `tls-server-end-point` (RFC 5929 4).
pub(super) const SERVER_END_POINT: &str = "tls-server-end-point";

/// The offer of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    settings: &'a Settings,
    facts: Option<&'a TlsFacts>,
}

impl<'a> Offer<'a> {
    /// The offer under these settings; `facts` is `None` where the stream is in clear.
    pub fn new(settings: &'a Settings, facts: Option<&'a TlsFacts>) -> Offer<'a> {
        Offer { settings, facts }
    }

    /// The domain that names are completed with.
    pub fn domain(&self) -> &'a str {
        &self.settings.domain
    }

    /// The mechanisms to advertise, the one to prefer first; none before TLS where it is required.
    pub fn mechanisms(self) -> impl Iterator<Item = Mechanism> + 'a {
        Mechanism::ALL
            .into_iter()
            .filter(move |mechanism| self.permit(*mechanism).is_ok())
    }

    /// The channel binding types to advertise: together with the -PLUS mechanisms or not at all.
    pub fn bindings(self) -> impl Iterator<Item = &'static str> + 'a {
        let any = self.offers_plus();
        [EXPORTER, SERVER_END_POINT]
            .into_iter()
            .filter(move |name| any && self.binding(name).is_some())
    }

    /// Whether tokens are given here at all.
    pub(super) fn gives_tokens(&self) -> bool {
        self.facts.is_some() && self.settings.agents.token_s > 0
    }

    /// Mechanisms and channel bindings as a hash of them is made (XEP-0474 6.1). Both profiles
    /// have the same.
    pub(super) fn advertised(&self) -> String {
        let mut mechanisms: Vec<&str> = self.mechanisms().map(Mechanism::as_str).collect();
        let mut bindings: Vec<&str> = self.bindings().collect();
        mechanisms.sort_unstable();
        bindings.sort_unstable();
        let mut text = mechanisms.join("\x1e");
        if !bindings.is_empty() {
            text.push('\x1f');
            text.push_str(&bindings.join("\x1e"));
        }
        text
    }

    /// Whether a -PLUS mechanism is among the advertised ones.
    pub fn offers_plus(&self) -> bool {
        self.mechanisms().any(Mechanism::is_plus)
    }

    /// The bytes of the channel binding of this name.
    pub(super) fn binding(&self, name: &str) -> Option<&'a [u8]> {
        let facts = self.facts?;
        match name {
            EXPORTER => facts.exporter.as_ref().map(<[u8; 32]>::as_slice),
            SERVER_END_POINT => facts.server_end_point.as_deref(),
            _ => None,
        }
    }

    /// Refuses what is not offered here.
    pub(super) fn permit(&self, mechanism: Mechanism) -> Result<(), SaslError> {
        let settings = self.settings;
        let configured = match mechanism {
            Mechanism::Anonymous => settings.anonymous,
            _ => settings.mechanisms.contains(&mechanism),
        };
        if !configured {
            return Err(SaslError::InvalidMechanism);
        }
        if self.facts.is_none() {
            let clear = mechanism == Mechanism::Plain && !settings.plain_without_tls;
            if settings.tls_required || clear {
                return Err(SaslError::EncryptionRequired);
            }
        }
        let bound = [EXPORTER, SERVER_END_POINT]
            .iter()
            .any(|name| self.binding(name).is_some());
        if mechanism.is_plus() && !bound {
            return Err(SaslError::InvalidMechanism);
        }
        Ok(())
    }
}
