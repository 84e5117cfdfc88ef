//! Requests under way: who has made many waits for their answers with the rest of its input.
//!
//! Invariant: what counts for a session is given back once, by whoever answers it.

use crate::host::{ConnId, Host, ShardId};
use crate::limit::REQUESTS_PER_SESSION_MAX;
use crate::parcel::Parcel;
use crate::session::{Session, SessionHandle};
use crate::shard::Shard;
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
            let is_full = |count: u16| count >= REQUESTS_PER_SESSION_MAX;
            let was_full = is_full(session.unanswered);
            session.unanswered -= count;
            let may_go_on = !is_full(session.unanswered) && !session.outlet.is_behind();
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
    pub(crate) fn hold_back(&mut self, host: &mut impl Host, conn: ConnId, flow: Flow) -> Flow {
        let Some(Asker::Session(SessionHandle { key, serial })) = self.asker.take() else {
            return flow;
        };
        let may_go_on = |session: &mut Session| {
            session.unanswered < REQUESTS_PER_SESSION_MAX && !session.outlet.is_behind()
        };
        if self.session_of(key, serial).is_none_or(may_go_on) {
            return flow;
        }
        host.pause(conn);
        self.answer_ahead(host, conn, key);
        Flow::Stop
    }

    /// What its sessions, and those of siblings, ask for and do not have yet.
    pub fn request_count(&self) -> usize {
        let own = self.sessions.iter();
        let own = own.map(|session| usize::from(session.unanswered));
        own.sum::<usize>() + self.sibling_requests.under_way.len()
    }
}
