//! What the bytes that come next will ask for, fetched while those before them are worked on.
//!
//! Why: among thousands of connections nothing of one is near when its turn comes, and each step on
//! the way from its stream to its account is a wait for memory. The steps are taken one at a time,
//! each for another of the connections that come, so that none waits for the one before it.

use crate::host::ConnId;
use crate::session::SessionKey;
use crate::shard::Shard;
use crate::stream::{Phase, StreamState};

/// Has values come from memory before they are read. It is a hint: nothing waits for it.
pub trait Fetch {
    /// Asks for all of a value.
    fn fetch<T>(&self, value: &T);
}

impl Shard {
    /// The first step: a connection's stream.
    pub fn fetch_stream(&self, conn: ConnId, fetch: &impl Fetch) {
        if let Some(stream) = self.conns.peek(conn) {
            fetch.fetch(stream);
        }
    }

    /// The second, with the stream at hand: what its header declared, and its session.
    pub fn fetch_session(&self, conn: ConnId, fetch: &impl Fetch) {
        let Some(stream) = self.conns.peek(conn) else {
            return;
        };
        if let Some(scope) = stream.scope.as_deref() {
            fetch.fetch(scope);
        }
        if let Some(session) = bound(stream).and_then(|key| self.sessions.get(key)) {
            fetch.fetch(session);
        }
    }

    /// The third, with the session at hand: its address and its account.
    pub fn fetch_account(&self, conn: ConnId, fetch: &impl Fetch) {
        let stream = self.conns.peek(conn);
        let Some(session) = stream
            .and_then(bound)
            .and_then(|key| self.sessions.get(key))
        else {
            return;
        };
        if let Some(first) = session.full().as_bytes().first() {
            fetch.fetch(first);
        }
        fetch.fetch(self.accounts.at(session.account));
    }
}

fn bound(stream: &StreamState) -> Option<SessionKey> {
    match stream.phase {
        Phase::Bound(key) => Some(key),
        _ => None,
    }
}
