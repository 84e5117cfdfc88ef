//! The ends of streams and of sessions: how many there are in one turn, and on their way to
//! storage. An end costs as much as the session has in its queue, and everybody else's requests
//! come between two of them.
//!
//! Invariant: of what storage is to forget, no more than [`ENDS_SIZE_MAX`] is on its way there, or
//! one session.

use crate::account::AccountKey;
use crate::host::{Host, Ticket, Timestamp};
use crate::outbox::Sent;
use crate::session::SessionKey;
use crate::shard::{Shard, Timer};
use crate::stream::{Phase, StreamState};
use std::collections::VecDeque;

/// Stanzas in the queues of the sessions that storage is to forget at once.
const ENDS_SIZE_MAX: usize = 2_048;

/// Stanzas in the queues of the sessions that end in one turn; the end that reaches it is the last.
const ENDS_PER_TURN_MAX: usize = 1_024;

/// Stanzas of sessions whose time is over that are seen to in a millisecond, on average: most of
/// the shard's time is for the others.
const ENDS_SIZE_PER_MS: usize = 32;

/// Stanzas of the sessions of deleted accounts that are seen to in one turn.
const LEGACY_PER_TURN_MAX: usize = 128;

/// Milliseconds until more of the sessions end that have overflowed, and more of a legacy is seen
/// to.
const TURN_MS: u64 = 1;

/// Milliseconds that a session must have left to be given what another of its account leaves: an
/// account's connections are lost within some time, and their sessions end within the same.
const HEIR_MS_MIN: u64 = 1_000;

/// What the end of a session with so many stanzas costs.
pub(crate) fn size_of_end(stanzas: usize) -> usize {
    1 + stanzas
}

/// The ends that storage has to be told of.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    waiting: VecDeque<Ticket>,
    /// What is on its way costs so much.
    size: usize,
    /// No session's time is over before.
    rests_until: Timestamp,
    legacies: VecDeque<Legacy>,
}

/// What a session leaves whose account is deleted: nobody has it next, and the senders hear of it.
#[derive(Debug)]
struct Legacy {
    account: AccountKey,
    /// Its end in storage, which waits for that.
    end: Option<Ticket>,
    unacked: VecDeque<Sent>,
}

impl Shard {
    /// A turn begins: bound streams end when they are let in.
    pub fn put_off_ends(&mut self) {
        self.bulk.ends_left = 0;
    }

    /// So many more may end in this turn. Each tells contacts and storage, and when a whole network
    /// is lost, they are thousands: whoever is left must not wait for all of them.
    pub fn admit_ends(&mut self, count: usize) {
        self.bulk.ends_left = count;
    }

    /// Whether a stream may end now; one that is not bound tells nobody.
    pub(crate) fn admits_end(&mut self, stream: &StreamState) -> bool {
        if !matches!(stream.phase, Phase::Bound(_)) {
            return true;
        }
        let is_admitted = self.bulk.ends_left > 0;
        self.bulk.ends_left = self.bulk.ends_left.saturating_sub(1);
        is_admitted
    }

    /// Storage is to forget a session, after those that came before.
    pub(crate) fn store_end(&mut self, host: &mut impl Host, ticket: Ticket) {
        self.ends.waiting.push_back(ticket);
        self.store_ends(host);
    }

    /// The same, before all others: it was its turn already.
    pub(crate) fn store_end_again(&mut self, host: &mut impl Host, ticket: Ticket) {
        self.ends.waiting.push_front(ticket);
        self.store_ends(host);
    }

    /// Storage has answered one of them that cost so much.
    pub(crate) fn note_end_answered(&mut self, size: usize) {
        self.ends.size -= size;
    }

    /// Tells storage of as many as may be on their way.
    pub(crate) fn store_ends(&mut self, host: &mut impl Host) {
        while let Some(&ticket) = self.ends.waiting.front() {
            let size = self.session_ends.get(&ticket.0).map_or(0, |end| end.size);
            let is_next = self.ends.size == 0 || self.ends.size + size <= ENDS_SIZE_MAX;
            if !is_next {
                return;
            }
            self.ends.waiting.pop_front();
            self.ends.size += size;
            self.tell_end(host, ticket);
        }
    }

    /// Sees to what a session of a deleted account leaves, after what others did.
    pub(crate) fn dispose_later(
        &mut self,
        account: AccountKey,
        end: Option<Ticket>,
        unacked: VecDeque<Sent>,
    ) {
        self.accounts.at_mut(account).pins += 1;
        self.ends.legacies.push_back(Legacy {
            account,
            end,
            unacked,
        });
    }

    /// Sees to more of the legacies; all sixteen sessions of an account may have left as much as
    /// they can.
    pub(crate) fn dispose_legacies(&mut self, host: &mut impl Host) {
        self.dispose_legacies_up_to(host, LEGACY_PER_TURN_MAX);
        if !self.ends.legacies.is_empty() {
            let at = host.now().plus_ms(TURN_MS);
            self.arm(host, at, Timer::Overflow);
        }
    }

    /// The same for so many stanzas.
    pub(crate) fn dispose_legacies_up_to(&mut self, host: &mut impl Host, count: usize) {
        let mut room = count;
        while room > 0
            && let Some(mut legacy) = self.ends.legacies.pop_front()
        {
            let (account, end) = (legacy.account, legacy.end);
            let next = legacy.unacked.drain(..room.min(legacy.unacked.len()));
            room -= next.len();
            self.dispose_all(host, account, end, next);
            if !legacy.unacked.is_empty() {
                return self.ends.legacies.push_front(legacy);
            }
            if let Some(ticket) = end {
                self.finish_end(host, ticket);
            }
            self.accounts.at_mut(account).pins -= 1;
            self.evict_if_idle(account);
        }
    }

    /// Clients did not come back in time.
    pub(crate) fn on_hibernation(&mut self, host: &mut impl Host) {
        self.hibernation_armed.pop();
        let now = host.now();
        let mut size = 0;
        while let Some(&(until, key)) = self.hibernating.first()
            && until.max(self.ends.rests_until) <= now
            && size < ENDS_PER_TURN_MAX
        {
            self.pass_over_late(host, key);
            size += size_of_end(self.sessions.at(key).outlet.queued());
            self.end_session(host, key);
        }
        if size > 0 {
            self.ends.rests_until = now.plus_ms((size / ENDS_SIZE_PER_MS) as u64);
        }
        self.arm_hibernation(host);
    }

    /// What a session leaves is not for those that end next: they would pass it on, each to all
    /// that are left. It waits in storage, also for one whose client comes back in that time.
    fn pass_over_late(&mut self, host: &impl Host, key: SessionKey) {
        let soon = host.now().plus_ms(HEIR_MS_MIN);
        let account = self.sessions.at(key).account;
        for other in &self.accounts.at(account).sessions {
            let session = self.sessions.at_mut(*other);
            let acks = session.outlet.acks.as_ref();
            let until = acks.and_then(|acks| acks.waits_until);
            session.expiring |= until.is_some_and(|until| until <= soon);
        }
    }

    /// Most wait equally long, and one timer is enough for them.
    pub(crate) fn arm_hibernation(&mut self, host: &mut impl Host) {
        let Some(&(until, _)) = self.hibernating.first() else {
            return;
        };
        let until = until.max(self.ends.rests_until);
        let next = self.hibernation_armed.last();
        if next.is_none_or(|next| until < *next) {
            self.hibernation_armed.push(until);
            self.arm(host, until, Timer::Hibernation);
        }
    }

    /// Ends the sessions whose clients let too much pile up: their messages wait elsewhere.
    pub(crate) fn end_overflowed(&mut self, host: &mut impl Host) {
        let mut size = 0;
        while size < ENDS_PER_TURN_MAX
            && let Some(key) = self.sessions.overflowed.pop()
        {
            let Some(session) = self.sessions.get(key) else {
                continue;
            };
            if !session.outlet.has_overflowed() && !self.sessions.has_full_gate(key) {
                continue;
            }
            size += size_of_end(session.outlet.queued());
            tracing::info!(jid = session.full(), "too much waits for its client");
            let conn = session.outlet.conn;
            match conn.and_then(|conn| Some((conn, self.conns.take(conn)?))) {
                Some((conn, stream)) => {
                    let error = crate::error::StreamError::ResourceConstraint;
                    let text = Some("too many stanzas are not acknowledged");
                    self.stream_error(host, conn, &stream, error, text);
                }
                None => self.end_session(host, key),
            }
        }
        if !self.sessions.overflowed.is_empty() {
            let at = host.now().plus_ms(TURN_MS);
            self.arm(host, at, Timer::Overflow);
        }
    }
}
