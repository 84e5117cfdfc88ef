//! The end of the server, as managed sessions see it: the next process goes on with some of them.
//!
//! Invariant: what they hold is in storage then, or its sender has heard of it.

use crate::error::StanzaError;
use crate::host::{Close, Host};
use crate::session::{Session, SessionKey};
use crate::shard::Shard;
use crate::xep::stream_management::write_answer;

impl Shard {
    /// Whether the next process can go on with a session.
    pub(crate) fn can_leave(&self, key: SessionKey) -> bool {
        let acks = self.sessions.at(key).outlet.acks.as_ref();
        acks.is_some_and(|acks| acks.saved && acks.resumable && acks.opened)
    }

    /// The server goes down: a session that the next process can go on with is settled and
    /// acknowledged, then its connection is closed without the end of its stream.
    pub(crate) fn say_farewell(&mut self, host: &mut impl Host, key: SessionKey) {
        let Session { outlet, .. } = self.sessions.at_mut(key);
        let (Some(acks), Some(conn)) = (&mut outlet.acks, outlet.conn) else {
            return;
        };
        acks.leaving = true;
        acks.owed = true;
        host.pause(conn);
        self.acknowledge_settled(host, key);
        self.farewell_if_settled(host, key);
    }

    pub(crate) fn farewell_if_settled(&mut self, host: &mut impl Host, key: SessionKey) {
        let Session { outlet, .. } = self.sessions.at_mut(key);
        let (Some(acks), Some(conn)) = (&mut outlet.acks, outlet.conn) else {
            return;
        };
        if !acks.leaving || acks.committing || acks.committed < acks.seen {
            return;
        }
        if acks.owed && acks.opened {
            acks.owed = false;
            write_answer(acks.h(), host.output(conn));
        }
        outlet.conn = None;
        self.conns.take(conn);
        host.close(conn, Close::Shutdown);
    }

    /// The server goes down: sessions that wait for their clients in memory only end, so that what
    /// they hold waits in storage.
    pub(crate) fn end_unsaved(&mut self, host: &mut impl Host) {
        let is_lost = |key: &SessionKey| {
            let outlet = &self.sessions.at(*key).outlet;
            outlet.conn.is_none() && outlet.acks.as_ref().is_some_and(|acks| !acks.saved)
        };
        let lost: Vec<SessionKey> = self.managed.values().copied().filter(is_lost).collect();
        for key in lost {
            self.end_session(host, key);
        }
    }

    /// The server goes down: requests to sessions that wait for their clients do not outlive it,
    /// and who sent them hears of that now.
    pub(crate) fn bounce_requests(&mut self, host: &mut impl Host) {
        let mut requests = Vec::new();
        for &(_, key) in &self.hibernating {
            let acks = self.sessions.at(key).outlet.acks.as_ref();
            requests.extend(acks.into_iter().flat_map(|acks| acks.iqs()).cloned());
        }
        for request in requests {
            self.bounce_bytes(host, &request, StanzaError::ServiceUnavailable);
        }
    }
}
