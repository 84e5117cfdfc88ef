//! Streams of clients that came over the web: HTTP stands before them, and messages around what is
//! said (RFC 7395). The host sees to both; here such a stream is like any other, without STARTTLS.

use super::{ExpectHeader, Phase};
use crate::error::StreamError;
use crate::host::{ConnId, Host, StreamKind, TlsFacts};
use crate::shard::Shard;
use std::net::IpAddr;

impl Shard {
    /// A connection of the web has become a stream of a client at `peer`. It is protected, and by
    /// what `facts` tell of, or in clear for good.
    pub fn on_upgraded(&mut self, conn: ConnId, facts: Option<TlsFacts>, peer: IpAddr) {
        let Some(mut stream) = self.conns.take(conn) else {
            return;
        };
        debug_assert!(stream.kind == StreamKind::C2sWeb);
        debug_assert!(matches!(stream.phase, Phase::ExpectTls));
        stream.secure = facts.is_some();
        stream.tls = facts.map(Box::new);
        stream.peer = peer;
        stream.phase = Phase::ExpectHeader(ExpectHeader { account: None });
        self.conns.put(conn, stream);
    }

    /// Bytes that a connection's client may say in one element.
    pub fn element_size_max(&self, conn: ConnId) -> usize {
        let limits = &self.settings.limits;
        match self.conns.peek(conn) {
            Some(stream) if !stream.is_authenticated() => limits.stanza_size_before_auth_max,
            _ => limits.stanza_size_max,
        }
    }

    /// Bytes that any client may say in one element.
    pub fn stanza_size_max(&self) -> usize {
        self.settings.limits.stanza_size_max
    }

    /// A connection's client says more in one element than it may, which is not looked at.
    pub fn on_oversized(&mut self, host: &mut impl Host, conn: ConnId) {
        let Some(mut stream) = self.conns.take(conn) else {
            return;
        };
        stream.excuse();
        let error = StreamError::from(stanza::XmlError::TooBig);
        self.stream_error(host, conn, &stream, error, None);
    }
}
