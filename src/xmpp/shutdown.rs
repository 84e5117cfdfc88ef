//! The end of the server: streams end, and with some managed sessions the next process goes on.
//!
//! Invariant: what they hold is in storage then, or its sender has heard of it.

use crate::error::{StanzaError, StreamError};
use crate::host::Host;
use crate::session::{Session, SessionKey};
use crate::shard::Shard;
use crate::stanza::Type;
use crate::stream::Phase;
use crate::xep::offline::may_wait;
use crate::xep::stream_management::write_answer;
use stanza::scope::StreamScope;
use stanza::view::{Kind, StanzaView};

impl Shard {
    /// The server goes down: every stream ends with `system-shutdown`.
    pub fn on_shutdown(&mut self, host: &mut impl Host) {
        self.stopping = true;
        // What came since; first, so that all others are still there to hear of it.
        self.on_shutdown_near(host);
        let mut leaving = Vec::new();
        for conn in self.conns.all() {
            let Some(stream) = self.conns.take(conn) else {
                continue;
            };
            if let Phase::Bound(key) = stream.phase {
                // What is held would be lost with the process.
                self.sessions.activate(host, key);
            }
            match stream.phase {
                Phase::ExpectTls => host.close(conn),
                Phase::Bound(key) if self.can_leave(key) => {
                    self.conns.put(conn, stream);
                    leaving.push(key);
                }
                _ => {
                    self.stream_error(host, conn, &stream, StreamError::SystemShutdown, None);
                }
            }
        }
        self.end_unsaved(host);
        // Last, so that they get what the end of the others means to them.
        for key in leaving {
            self.say_farewell(host, key);
        }
    }

    /// Whether the server goes down.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

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
        host.close(conn);
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

    /// The server will go down as soon as all shards have heard of it: what sessions that wait for
    /// their clients have in memory only does not outlive it, and who sent it hears of that now.
    pub fn on_shutdown_near(&mut self, host: &mut impl Host) {
        self.end_components(host);
        self.dispose_legacies_up_to(host, usize::MAX);
        let mut lost = Vec::new();
        for &(_, key) in &self.hibernating {
            let acks = self.sessions.at_mut(key).outlet.acks.as_mut();
            let unstored = acks.filter(|acks| acks.saved).into_iter();
            for sent in unstored.flat_map(|acks| acks.unstored()) {
                if !sent.is_elsewhere() {
                    lost.push(sent.bytes.clone());
                }
                // The last of several sessions that have it sees to it.
                sent.let_go();
            }
        }
        for bytes in lost {
            if is_missed(&bytes, &self.client_scope) {
                self.bounce_bytes(host, &bytes, StanzaError::ServiceUnavailable);
            }
        }
    }
}

/// Whether somebody would miss a stanza that a session loses with the process. The session goes on,
/// so no room is told that its occupant is gone.
fn is_missed(stanza: &[u8], scope: &StreamScope) -> bool {
    let Ok(view) = StanzaView::parse(stanza, scope) else {
        return false;
    };
    let type_ = Type::parse(view.kind(), view.type_().as_deref());
    match view.kind() {
        Kind::Message => may_wait(type_) && view.has_body(),
        Kind::Iq => matches!(type_, Type::Get | Type::Set),
        Kind::Presence | Kind::Other => false,
    }
}
