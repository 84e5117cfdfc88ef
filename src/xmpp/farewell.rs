//! The end of a stream from its client's side: what was asked before it is answered first.
//!
//! Invariant: `</stream:stream>` is taken up when nothing is open that its session asked for, or
//! when that has lasted [`FAREWELL_MS`]. Until then the connection is paused, and no message to
//! the bare JID goes to the session.

use crate::error::StreamError;
use crate::host::{ConnId, Host};
use crate::session::{Session, SessionKey};
use crate::shard::{Shard, Timer};
use crate::stream::{Phase, StreamState};

/// How long the end of a stream waits for what its client asked for: storage may have a fault.
const FAREWELL_MS: u64 = 5_000;

impl Session {
    /// Whether something that its client sent may still be answered by storage or another shard, or
    /// is to be acknowledged.
    fn is_owed(&mut self) -> bool {
        let acks = self.outlet.acks.as_mut();
        self.unanswered > 0
            || self.unsettled > 0
            || acks.is_some_and(|acks| acks.settling.is_open() || acks.owed)
    }
}

impl Shard {
    /// The peer will send no more; everything it sent was handled.
    pub fn on_eof(&mut self, host: &mut impl Host, conn: ConnId) {
        let Some(mut stream) = self.conns.take(conn) else {
            return;
        };
        if let Phase::Bound(key) = stream.phase {
            // A client with stream management is answered when it resumes.
            let is_managed = self.sessions.at(key).outlet.acks.is_some();
            if !is_managed && self.owes_answers(host, conn, &mut stream) {
                self.conns.put(conn, stream);
                return;
            }
            // RFC 6120 4.4: without `</stream:stream>` this is a loss, not a farewell.
            self.lose_connection(host, key);
            stream.phase = Phase::ExpectAuth;
        }
        self.finish(host, conn, &stream);
    }

    /// A connection is gone: reset, cut for not reading, or its handshake failed.
    pub fn on_close(&mut self, host: &mut impl Host, conn: ConnId) {
        let Some(stream) = self.conns.take(conn) else {
            return;
        };
        self.count_unfinished(host, &stream);
        if let Phase::Bound(key) = stream.phase {
            match self.sessions.at(key).closing {
                true => self.end_session(host, key),
                false => self.lose_connection(host, key),
            }
        }
        if let Phase::Component(id) = stream.phase {
            self.end_component(host, conn, id);
        }
    }

    /// A connection holds more bytes that cannot be handled yet than there is room for. A session
    /// that can be resumed waits for its client.
    pub fn on_overload(&mut self, host: &mut impl Host, conn: ConnId) {
        let Some(mut stream) = self.conns.take(conn) else {
            return;
        };
        if let Phase::Bound(key) = stream.phase
            && !self.sessions.at(key).closing
        {
            self.lose_connection(host, key);
            stream.phase = Phase::ExpectAuth;
        }
        stream.excuse();
        let text = Some("too many bytes wait to be handled");
        self.stream_error(host, conn, &stream, StreamError::ResourceConstraint, text);
    }

    /// Whether a connection's stream has a session, or is that of a component that has proved who
    /// it is.
    pub fn is_established(&self, conn: ConnId) -> bool {
        let stream = self.conns.peek(conn);
        stream.is_some_and(|stream| matches!(stream.phase, Phase::Bound(_) | Phase::Component(_)))
    }

    /// Whether the end of a stream waits for what its session asked of storage and of siblings.
    pub(crate) fn owes_answers(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
    ) -> bool {
        let Phase::Bound(key) = stream.phase else {
            return false;
        };
        let session = self.sessions.at_mut(key);
        if !session.is_owed() {
            return false;
        }
        if !std::mem::replace(&mut session.closing, true) {
            stream.deadline = host.now().plus_ms(FAREWELL_MS);
            self.arm(host, stream.deadline, Timer::Bound(conn));
        } else if host.now() >= stream.deadline {
            return false;
        }
        host.pause(conn);
        true
    }

    /// A session has one thing less to wait for: if that was the last, its stream may end.
    pub(crate) fn end_farewell(&mut self, host: &mut impl Host, key: SessionKey) {
        let session = self.sessions.at_mut(key);
        if session.closing
            && !session.is_owed()
            && let Some(conn) = session.outlet.conn
        {
            host.resume(conn);
        }
    }

    /// The time of a farewell is over.
    pub(crate) fn check_farewell(&self, host: &mut impl Host, key: SessionKey) {
        let session = self.sessions.at(key);
        if session.closing
            && let Some(conn) = session.outlet.conn
        {
            host.resume(conn);
        }
    }
}
