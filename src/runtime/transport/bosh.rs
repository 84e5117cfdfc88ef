//! BOSH (XEP-0124, XEP-0206): a stream over many requests of HTTP.
//!
//! Invariant: what a body says reaches the stream once and in the order of the request ids, and
//! what the stream says leaves in that order, however connections come and go.

pub mod body;
pub mod session;

/// The namespace of bodies.
pub(super) const HTTP_BIND: &str = "http://jabber.org/protocol/httpbind";

/// Why a session ends, or does not begin (XEP-0124 17.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// What came is no body, or none that makes sense.
    BadRequest,
    /// There is no such domain here.
    HostUnknown,
    /// It is not said which domain is meant.
    ImproperAddressing,
    /// There is no such session, or no such request of it.
    ItemNotFound,
    /// The client does more than it may.
    PolicyViolation,
    /// The stream ended by an error, which is told.
    RemoteStreamError,
    /// The server is going down.
    SystemShutdown,
    /// The session was ended for what it holds.
    RemoteConnectionFailed,
}

impl Condition {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::BadRequest => "bad-request",
            Condition::HostUnknown => "host-unknown",
            Condition::ImproperAddressing => "improper-addressing",
            Condition::ItemNotFound => "item-not-found",
            Condition::PolicyViolation => "policy-violation",
            Condition::RemoteStreamError => "remote-stream-error",
            Condition::SystemShutdown => "system-shutdown",
            Condition::RemoteConnectionFailed => "remote-connection-failed",
        }
    }
}

/// The body that ends a session.
pub fn terminated(condition: Option<Condition>) -> Vec<u8> {
    let mut out = Vec::new();
    stanza::writer::open(&mut out, "body")
        .attr("xmlns", HTTP_BIND)
        .attr("type", "terminate")
        .attr_if("condition", condition.map(Condition::as_str))
        .close_empty();
    out
}

/// The body that has a client send its requests again (XEP-0124 17.3).
fn recoverable() -> Vec<u8> {
    let mut out = Vec::new();
    stanza::writer::open(&mut out, "body")
        .attr("xmlns", HTTP_BIND)
        .attr("type", "error")
        .close_empty();
    out
}
