//! Stanza errors (RFC 6120 8.3) and stream errors (RFC 6120 4.9): their conditions, types and
//! shapes.

use crate::xml::Attr;
use stanza::XmlError;
use std::io::Write;

/// The defined conditions of stanza errors that this server sends (RFC 6120 8.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the RFC's
pub enum StanzaError {
    BadRequest,
    Conflict,
    FeatureNotImplemented,
    Forbidden,
    InternalServerError,
    ItemNotFound,
    JidMalformed,
    NotAcceptable,
    NotAllowed,
    NotAuthorized,
    PolicyViolation,
    RemoteServerNotFound,
    RemoteServerTimeout,
    ResourceConstraint,
    ServiceUnavailable,
    SubscriptionRequired,
    UndefinedCondition,
    UnexpectedRequest,
}

impl StanzaError {
    /// The condition's element name.
    pub fn condition(self) -> &'static str {
        self.row().0
    }

    /// The error type that RFC 6120 8.3.3 gives the condition.
    pub fn error_type(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (&'static str, &'static str) {
        match self {
            StanzaError::BadRequest => ("bad-request", "modify"),
            StanzaError::Conflict => ("conflict", "cancel"),
            StanzaError::FeatureNotImplemented => ("feature-not-implemented", "cancel"),
            StanzaError::Forbidden => ("forbidden", "auth"),
            StanzaError::InternalServerError => ("internal-server-error", "cancel"),
            StanzaError::ItemNotFound => ("item-not-found", "cancel"),
            StanzaError::JidMalformed => ("jid-malformed", "modify"),
            StanzaError::NotAcceptable => ("not-acceptable", "modify"),
            StanzaError::NotAllowed => ("not-allowed", "cancel"),
            StanzaError::NotAuthorized => ("not-authorized", "auth"),
            StanzaError::PolicyViolation => ("policy-violation", "modify"),
            StanzaError::RemoteServerNotFound => ("remote-server-not-found", "cancel"),
            StanzaError::RemoteServerTimeout => ("remote-server-timeout", "wait"),
            StanzaError::ResourceConstraint => ("resource-constraint", "wait"),
            StanzaError::ServiceUnavailable => ("service-unavailable", "cancel"),
            StanzaError::SubscriptionRequired => ("subscription-required", "auth"),
            StanzaError::UndefinedCondition => ("undefined-condition", "cancel"),
            StanzaError::UnexpectedRequest => ("unexpected-request", "wait"),
        }
    }

    /// Writes the `<error/>` element.
    pub fn write(self, out: &mut Vec<u8>) {
        let (condition, error_type) = self.row();
        put(
            out,
            format_args!(
                "<error type='{error_type}'><{condition} \
                 xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
            ),
        );
    }
}

/// The conditions of stream errors that this server sends (RFC 6120 4.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the RFC's
pub enum StreamError {
    BadFormat,
    Conflict,
    ConnectionTimeout,
    HostUnknown,
    ImproperAddressing,
    InternalServerError,
    InvalidFrom,
    InvalidNamespace,
    InvalidXml,
    NotAuthorized,
    NotWellFormed,
    PolicyViolation,
    Reset,
    ResourceConstraint,
    RestrictedXml,
    SystemShutdown,
    UnsupportedEncoding,
    UnsupportedStanzaType,
    UnsupportedVersion,
}

impl StreamError {
    /// The condition's element name.
    pub fn condition(self) -> &'static str {
        match self {
            StreamError::BadFormat => "bad-format",
            StreamError::Conflict => "conflict",
            StreamError::ConnectionTimeout => "connection-timeout",
            StreamError::HostUnknown => "host-unknown",
            StreamError::ImproperAddressing => "improper-addressing",
            StreamError::InternalServerError => "internal-server-error",
            StreamError::InvalidFrom => "invalid-from",
            StreamError::InvalidNamespace => "invalid-namespace",
            StreamError::InvalidXml => "invalid-xml",
            StreamError::NotAuthorized => "not-authorized",
            StreamError::NotWellFormed => "not-well-formed",
            StreamError::PolicyViolation => "policy-violation",
            StreamError::Reset => "reset",
            StreamError::ResourceConstraint => "resource-constraint",
            StreamError::RestrictedXml => "restricted-xml",
            StreamError::SystemShutdown => "system-shutdown",
            StreamError::UnsupportedEncoding => "unsupported-encoding",
            StreamError::UnsupportedStanzaType => "unsupported-stanza-type",
            StreamError::UnsupportedVersion => "unsupported-version",
        }
    }

    /// Writes the error and the closing tag of the stream.
    pub fn write(self, text: Option<&str>, out: &mut Vec<u8>) {
        put(
            out,
            format_args!(
                "<stream:error><{} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>",
                self.condition()
            ),
        );
        if let Some(text) = text {
            put(
                out,
                format_args!(
                    "<text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>{}</text>",
                    Attr(text)
                ),
            );
        }
        out.extend_from_slice(b"</stream:error></stream:stream>");
    }
}

impl From<XmlError> for StreamError {
    fn from(error: XmlError) -> StreamError {
        match error {
            XmlError::Restricted => StreamError::RestrictedXml,
            XmlError::NotWellFormed | XmlError::BadEncoding => StreamError::NotWellFormed,
            // RFC 6120 4.9.3.1: it is XML, but none that can be processed.
            XmlError::StrayText => StreamError::BadFormat,
            XmlError::UnsupportedEncoding => StreamError::UnsupportedEncoding,
            XmlError::TooBig
            | XmlError::TooDeep
            | XmlError::TooManyAttributes
            | XmlError::TooManyNamespaces => StreamError::PolicyViolation,
        }
    }
}

/// Appends formatted text. For what is rare; stanzas in flight are copied, not formatted.
pub(crate) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing into a Vec never fails");
}
