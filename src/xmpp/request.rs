//! Requests under way: who has made many waits for their answers with the rest of its input.
//!
//! Invariant: what counts for a session is given back once, by whoever answers it.

use crate::host::{ConnId, Host, ShardId};
use crate::limit::ANSWER_AHEAD_MS;
use crate::parcel::Parcel;
use crate::session::{SessionHandle, SessionKey};
use crate::shard::{Shard, Timer};
use crate::stream::Flow;
use std::collections::HashMap;

/// Whose stanza asks for what is being done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    /// A session's.
    Session(SessionHandle),
    /// That of a sibling's session, by its number in [`SiblingRequests`].
    Sibling(u64),
}

/// What sessions of siblings ask for and do not have yet, at most so much as these count.
#[derive(Debug, Default)]
pub(crate) struct SiblingRequests {
    last: u64,
    under_way: HashMap<u64, SiblingRequest>,
}

#[derive(Debug)]
struct SiblingRequest {
    sibling: ShardId,
    asker: SessionHandle,
    /// How many things it waits for.
    open: u32,
}

impl SiblingRequests {
    /// One more came, and has one thing to wait for: that it is handled.
    fn begin(&mut self, sibling: ShardId, asker: SessionHandle) -> u64 {
        self.last += 1;
        let open = 1;
        let request = SiblingRequest {
            sibling,
            asker,
            open,
        };
        self.under_way.insert(self.last, request);
        self.last
    }

    /// One has a thing less to wait for; if it was the last one, whom to tell.
    fn close(&mut self, number: u64) -> Option<(ShardId, SessionHandle)> {
        let request = self.under_way.get_mut(&number)?;
        request.open -= 1;
        if request.open > 0 {
            return None;
        }
        let SiblingRequest { sibling, asker, .. } = self.under_way.remove(&number)?;
        Some((sibling, asker))
    }
}

impl Shard {
    /// Whoever is in hand has one more thing to wait for; [`Shard::end_request`] ends that.
    pub(crate) fn count_request(&mut self) -> Option<Asker> {
        match self.asker? {
            Asker::Session(_) => self.count_asked(1).map(Asker::Session),
            asker @ Asker::Sibling(number) => {
                self.sibling_requests.under_way.get_mut(&number)?.open += 1;
                Some(asker)
            }
        }
    }

    /// The same for a session in hand, which asks a sibling for so much: [`Parcel::Answered`] ends
    /// that.
    pub(crate) fn count_asked(&mut self, count: u16) -> Option<SessionHandle> {
        let Some(Asker::Session(handle)) = self.asker else {
            return None;
        };
        // It may have ended by what its stanza led to.
        self.session_of(handle.key, handle.serial)?.unanswered += count;
        Some(handle)
    }

    /// What was counted is there.
    pub(crate) fn end_request(&mut self, host: &mut impl Host, asker: Option<Asker>) {
        match asker {
            None => {}
            Some(Asker::Session(handle)) => self.on_answered(host, handle, 1),
            Some(Asker::Sibling(number)) => {
                if let Some((sibling, asker)) = self.sibling_requests.close(number) {
                    host.forward(sibling, Parcel::Answered { asker, count: 1 });
                }
            }
        }
    }

    /// A session has so much of what it waited for.
    pub(crate) fn on_answered(&mut self, host: &mut impl Host, handle: SessionHandle, count: u16) {
        if let Some(session) = self.session_of(handle.key, handle.serial) {
            let was_full = session.is_full();
            session.unanswered -= count;
            let may_go_on = !session.is_full() && !session.outlet.is_behind();
            if was_full
                && may_go_on
                && let Some(conn) = session.outlet.conn
            {
                host.resume(conn);
            }
            self.end_farewell(host, handle.key);
        }
    }

    /// A sibling's session asks for something by what `handle` does. It has that to wait for until
    /// all is answered that is asked of storage for it: not for what others sent before, as the
    /// stanza itself does before it is settled.
    pub(crate) fn on_sibling_request<H: Host>(
        &mut self,
        host: &mut H,
        sibling: ShardId,
        asker: SessionHandle,
        handle: impl FnOnce(&mut Shard, &mut H),
    ) {
        let number = self.sibling_requests.begin(sibling, asker);
        let asker = Some(Asker::Sibling(number));
        self.asker = asker;
        handle(self, host);
        self.asker = None;
        self.end_request(host, asker);
    }

    /// A stanza of a session is handled: its input waits where as many requests are unanswered as
    /// may be, or long answers are unwritten. An error would lose an answer that is expected.
    ///
    /// A client with stream management may go on to ask how far it is settled: its input waits when
    /// [`Shard::holds_back`] meets the next stanza.
    pub(crate) fn hold_back(&mut self, host: &mut impl Host, conn: ConnId, flow: Flow) -> Flow {
        let Some(Asker::Session(SessionHandle { key, serial })) = self.asker.take() else {
            return flow;
        };
        let Some(session) = self.session_of(key, serial) else {
            return flow;
        };
        if !session.outlet.is_behind() && (!session.is_full() || session.outlet.acks.is_some()) {
            return flow;
        }
        self.pause_input(host, conn, key);
        Flow::Stop
    }

    /// Whether the stanza that is next of a managed session waits, and what is behind it.
    pub(crate) fn holds_back(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        key: SessionKey,
    ) -> bool {
        let is_full = self.sessions.at(key).is_full();
        if is_full {
            self.pause_input(host, conn, key);
        }
        is_full
    }

    /// `<r/>` may be in what is not read meanwhile: its client is told how far it is settled now,
    /// and again and again.
    fn pause_input(&mut self, host: &mut impl Host, conn: ConnId, key: SessionKey) {
        host.pause(conn);
        if !self.answer_ahead(host, conn, key) {
            return;
        }
        if self.sessions.held_back.is_empty() {
            self.arm_held_back(host);
        }
        self.sessions.held_back.insert(key);
    }

    fn arm_held_back(&mut self, host: &mut impl Host) {
        let at = host.now().plus_ms(ANSWER_AHEAD_MS);
        self.arm(host, at, Timer::HeldBack);
    }

    /// Those whose input waits still are told again; some of the sessions may have ended.
    pub(crate) fn on_held_back(&mut self, host: &mut impl Host) {
        let mut held_back = std::mem::take(&mut self.sessions.held_back);
        held_back.retain(|key| {
            let session = self.sessions.get(*key);
            let session = session.filter(|it| it.is_full() || it.outlet.is_behind());
            let Some(conn) = session.and_then(|it| it.outlet.conn) else {
                return false;
            };
            // One that does not read what it is sent is told when it does.
            host.is_choked(conn) || self.answer_ahead(host, conn, *key)
        });
        if !held_back.is_empty() {
            self.arm_held_back(host);
        }
        self.sessions.held_back = held_back;
    }

    /// What its sessions, and those of siblings, ask for and do not have yet.
    pub fn request_count(&self) -> usize {
        let own = self.sessions.iter();
        let own = own.map(|session| usize::from(session.unanswered));
        own.sum::<usize>() + self.sibling_requests.under_way.len()
    }
}
