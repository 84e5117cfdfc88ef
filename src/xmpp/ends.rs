//! The end of a session that storage has, and what such a one leaves there.
//!
//! Invariant: storage forgets a session in the commit in which what it leaves to nobody begins to
//! wait for its account.

use crate::account::AccountKey;
use crate::error::StanzaError;
use crate::host::{Host, Ticket, Timestamp};
use crate::limit::STORAGE_RETRY_MS;
use crate::outbox::{Acks, Sent};
use crate::pace::size_of_end;
use crate::port::{Arrived, OfflineQuota, SessionId, StoreOp, StoreReply};
use crate::settle::Cause;
use crate::shard::{Shard, Timer, Waiting};
use crate::stanza::Stanza;
use crate::xep::blocking::BlockList;

/// The end of a session in storage.
#[derive(Debug)]
pub(crate) struct SessionEnd {
    account: AccountKey,
    session: SessionId,
    /// What it costs storage, see [`crate::pace`].
    pub(crate) size: usize,
    /// What it leaves to nobody, oldest first, and what storage refused to put into the queues of
    /// those whom it left that to.
    waiting: Vec<Left>,
    /// Whether what it leaves now waited before: that waits on whatever the quota says.
    has_waited: bool,
    /// Whether any has: nothing that it leaves may overtake that.
    puts_back: bool,
    /// Whom the account blocked at the first try that may have been stored: what is left of others
    /// who are blocked by now is searched for when it is.
    blocked: Option<BlockList>,
    /// How many effects it waits for: what the session left to others is in its queue only.
    pub(crate) open: u32,
    /// What waits for it, see [`Shard::wait_for_end`].
    causes: Vec<Cause>,
}

impl SessionEnd {
    /// What waited for the account, and was on its way into the session's queue, waits on with the
    /// end, before all else.
    pub(crate) fn put_back(&mut self, claimed: impl Iterator<Item = Arrived>) {
        let has_waited = true;
        let claimed = claimed.map(|(arrived, stanza)| Left {
            arrived,
            stanza,
            has_waited,
        });
        self.waiting.splice(0..0, claimed);
    }

    /// Whether it is this session's.
    pub(crate) fn is_of(&self, session: SessionId) -> bool {
        self.session == session
    }
}

/// A message that a session leaves, and whether it waited before.
#[derive(Debug)]
struct Left {
    arrived: Timestamp,
    stanza: Box<[u8]>,
    has_waited: bool,
}

impl Shard {
    /// A session ends that storage has: the request that has storage forget it. Until
    /// [`Shard::finish_end`], and until what it is claiming is there, it may leave something.
    pub(crate) fn begin_end(&mut self, account: AccountKey, acks: &Acks) -> Ticket {
        self.accounts.at_mut(account).pins += 1;
        let ticket = self.ticket_for_itself(Waiting::SessionEnd);
        let end = SessionEnd {
            account,
            session: acks.id,
            size: size_of_end(acks.queued()),
            waiting: Vec::new(),
            has_waited: false,
            puts_back: false,
            blocked: None,
            open: 1 + u32::from(acks.claiming.is_some()),
            causes: Vec::new(),
        };
        self.session_ends.insert(ticket.0, end);
        ticket
    }

    /// All that a session leaves is on its way.
    pub(crate) fn finish_end(&mut self, host: &mut impl Host, ticket: Ticket) {
        if let Some(end) = self.session_ends.get(&ticket.0) {
            self.accounts.at_mut(end.account).storing += 1;
            self.close_end(host, ticket);
        }
    }

    /// One thing that the end of a session waited for is there. When all are, storage forgets the
    /// session, and what it leaves waits: they change places in one commit.
    pub(crate) fn close_end(&mut self, host: &mut impl Host, ticket: Ticket) {
        if let Some(end) = self.session_ends.get_mut(&ticket.0) {
            end.open -= 1;
            if end.open == 0 {
                self.store_end(host, ticket);
            }
        }
    }

    /// Tells storage of the end of a session.
    pub(crate) fn tell_end(&mut self, host: &mut impl Host, ticket: Ticket) {
        self.bounce_left(host, ticket);
        let Some(end) = self.session_ends.get(&ticket.0) else {
            return;
        };
        let quota = match end.waiting.iter().all(|left| left.has_waited) {
            true => OfflineQuota::UNLIMITED,
            false => self.offline_room(end.account),
        };
        let waiting = end
            .waiting
            .iter()
            .map(|left| (left.arrived, left.stanza.clone()));
        let op = StoreOp::EndSession {
            account: self.accounts.at(end.account).jid.clone(),
            session: end.session,
            waiting: waiting.collect(),
            quota,
        };
        host.store(ticket, op);
    }

    /// What a session that ends leaves of those who are blocked by now (XEP-0191) bounces, where it
    /// does not wait already: the search at their block may be over.
    fn bounce_left(&mut self, host: &mut impl Host, ticket: Ticket) {
        let Some(end) = self.session_ends.get_mut(&ticket.0) else {
            return;
        };
        let account = end.account;
        if end.blocked.is_some() {
            return;
        }
        end.blocked = Some(self.accounts.at(account).blocked.clone());
        let mut waiting = std::mem::take(&mut end.waiting);
        let nobody = BlockList::default();
        let is_blocked = |left: &mut Left| {
            let is_blocked = self.is_from_blocked(account, &left.stanza, &nobody);
            is_blocked.is_some()
        };
        let blocked: Vec<Left> = waiting.extract_if(.., is_blocked).collect();
        if let Some(end) = self.session_ends.get_mut(&ticket.0) {
            end.waiting = waiting;
        }
        let before = (self.cause.take(), self.origin.take());
        for left in blocked {
            self.bounce_bytes(host, &left.stanza, StanzaError::ServiceUnavailable);
        }
        (self.cause, self.origin) = before;
    }

    /// What a session has left waits: that of those whom the account has blocked meanwhile bounces.
    fn search_left(&mut self, host: &mut impl Host, end: &SessionEnd) {
        let before = end.blocked.clone().unwrap_or_default();
        let is_new = |left: &Left| {
            let is_blocked = self.is_from_blocked(end.account, &left.stanza, &before);
            is_blocked == Some(false)
        };
        if end.waiting.iter().any(is_new) {
            self.search_again(host, end.account, before);
        }
    }

    /// What a session that ends leaves to nobody waits with its end.
    pub(crate) fn leave_waiting(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        stanza: &Stanza<'_>,
    ) {
        let arrived = self.arrival(host);
        let waiting = self.as_waiting(host, stanza);
        if let Some(end) = self.session_ends.get_mut(&ticket.0) {
            if waiting.is_some() && self.accounts.at(end.account).is_ending {
                return self.bounce(host, stanza, StanzaError::ServiceUnavailable);
            }
            let has_waited = end.has_waited;
            let waiting = waiting.into_iter();
            (end.waiting).extend(waiting.map(|stanza| Left {
                arrived,
                stanza,
                has_waited,
            }));
        }
    }

    /// The next that a session leaves waited before, or did not.
    pub(crate) fn note_waited(&mut self, has_waited: bool) {
        if let Some(Cause::End { ticket }) = self.cause
            && let Some(end) = self.session_ends.get_mut(&ticket.0)
        {
            end.has_waited = has_waited;
            end.puts_back |= has_waited;
        }
    }

    /// Whether what a session leaves would overtake what it leaves to storage.
    pub(crate) fn puts_back(&self) -> bool {
        let Some(Cause::End { ticket }) = self.cause else {
            return false;
        };
        let end = self.session_ends.get(&ticket.0);
        end.is_some_and(|end| end.puts_back)
    }

    /// What a session that ends leaves is in memory only, where storage refuses the write that is
    /// under way: what that is for is not settled before the session's end is stored.
    pub(crate) fn wait_for_end(&mut self, sent: &Sent) {
        let (Some(Cause::End { ticket }), Some(write)) = (self.cause, sent.write) else {
            return;
        };
        let of_write = self.cause_of(write);
        let before = std::mem::replace(&mut self.cause, of_write);
        let cause = self.open_effect();
        self.cause = before;
        if let Some(end) = self.session_ends.get_mut(&ticket.0) {
            end.causes.extend(cause);
        }
    }

    /// Storage has refused to put a message into the queues of others. What a session that ends
    /// left to them is in its own queue still, and waits on with its end.
    pub(crate) fn take_refused(&mut self, host: &mut impl Host, (arrived, stanza): Arrived) {
        let end = match self.cause {
            Some(Cause::End { ticket }) => self.session_ends.get_mut(&ticket.0),
            _ => None,
        };
        match end {
            Some(end) => end.waiting.push(Left {
                arrived,
                stanza,
                has_waited: false,
            }),
            None => self.bounce_bytes(host, &stanza, StanzaError::InternalServerError),
        }
    }

    /// Storage has forgotten a session, or has no room for all that it leaves.
    pub(crate) fn on_session_ended(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        reply: &StoreReply,
    ) {
        let Some(mut end) = self.session_ends.remove(&ticket.0) else {
            return;
        };
        self.note_end_answered(end.size);
        if let StoreReply::Room(room) = reply {
            // First the senders hear of what finds no room, then the rest is tried.
            let excess = end.waiting.len().saturating_sub(*room as usize);
            let young = end.waiting.iter().filter(|left| !left.has_waited).count();
            let mut stay = young.saturating_sub(excess);
            let is_beyond = |left: &mut Left| {
                let is_beyond = !left.has_waited && stay == 0;
                stay -= usize::from(!left.has_waited && stay > 0);
                is_beyond
            };
            let beyond: Vec<Left> = end.waiting.extract_if(.., is_beyond).collect();
            for left in beyond {
                self.bounce_bytes(host, &left.stanza, StanzaError::ResourceConstraint);
            }
            end.blocked = None; // Nothing of it waits.
            let ticket = self.ticket_for_itself(Waiting::SessionEnd);
            self.session_ends.insert(ticket.0, end);
            return self.store_end_again(host, ticket);
        }
        debug_assert_eq!(*reply, StoreReply::Done, "a refused end is put off");
        if self.accounts.at(end.account).is_gone {
            // It went with its account, and storage has put nothing of what it leaves anywhere.
            for left in std::mem::take(&mut end.waiting) {
                self.bounce_bytes(host, &left.stanza, StanzaError::ServiceUnavailable);
            }
        }
        self.search_left(host, &end);
        for cause in end.causes {
            self.close_effect(host, Some(cause));
        }
        self.store_ends(host);
        self.on_stored_waiting(host, end.account, !end.waiting.is_empty());
    }

    /// Storage refused a request; answers whether it was the end of a session, which is tried again
    /// then. Nothing of it has changed in storage; the account stays until it has.
    pub(crate) fn put_off_end(&mut self, host: &mut impl Host, ticket: Ticket, why: &str) -> bool {
        let Some(end) = self.session_ends.get(&ticket.0) else {
            return false;
        };
        tracing::error!(%why, "the end of a session was not stored");
        let (account, size) = (end.account, end.size);
        self.note_end_answered(size);
        self.store_ends(host);
        self.ends_again.push(ticket);
        let at = host.now().plus_ms(STORAGE_RETRY_MS);
        self.arm(host, at, Timer::Ends);
        self.accounts.at_mut(account).pins += 1;
        // What comes meanwhile does not wait for that, unless another end follows this one.
        self.on_stored_waiting(host, account, false);
        true
    }

    /// Sessions that storage did not end are ended again.
    pub(crate) fn end_again(&mut self, host: &mut impl Host) {
        for ticket in std::mem::take(&mut self.ends_again) {
            if let Some(end) = self.session_ends.get(&ticket.0) {
                self.accounts.at_mut(end.account).storing += 1;
                self.store_end(host, ticket);
            }
        }
    }
}
