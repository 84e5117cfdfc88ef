//! Errors that storage refused to keep: a client has them in its queue, and no number of it is
//! committed before storage has them, too. So storage is asked again until it does, whether or not
//! the client acknowledges them.
//!
//! Invariant: of a shard [`ERRORS_MAX`] are on their way at once, and [`ERRORS_SIZE_MAX`] bytes of
//! them; where one is refused the next go [`STORAGE_RETRY_MS`] later.

use crate::host::{Host, Ticket};
use crate::limit::STORAGE_RETRY_MS;
use crate::outbox::Later;
use crate::port::{Enqueue, StoreOp, StoreReply};
use crate::session::SessionKey;
use crate::shard::{Shard, Timer, Waiting};
use std::collections::{HashMap, VecDeque};

/// Errors of a shard on their way at once.
pub const ERRORS_MAX: usize = 64;

/// Their bytes; the error that reaches it is the last.
const ERRORS_SIZE_MAX: usize = 256 << 10;

/// The sessions that have such errors, and what is on its way.
#[derive(Debug, Default)]
pub(crate) struct Again {
    /// With their serials; each once: [`crate::outbox::Acks::has_deferred_errors`]. One that ends
    /// stays until it is its turn: storage that refuses errors takes no new session, either, so
    /// these are never more than there were when it began to.
    sessions: VecDeque<(SessionKey, u32)>,
    under_way: HashMap<u64, Error>,
    /// Whether one of those that were on their way was refused.
    has_failed: bool,
    is_armed: bool,
}

#[derive(Debug)]
struct Error {
    session: SessionKey,
    serial: u32,
    place: u64,
    /// Its number on the wire when it was sent to storage.
    number: u32,
}

impl Shard {
    /// Storage is to be asked again for errors of a session.
    pub(crate) fn store_errors_later(&mut self, host: &mut impl Host, key: SessionKey) {
        let session = self.sessions.at_mut(key);
        let acks = session.outlet.acks.as_mut();
        let Some(acks) = acks.filter(|acks| acks.saved && acks.vital > 0) else {
            return;
        };
        if !std::mem::replace(&mut acks.has_deferred_errors, true) {
            self.again.sessions.push_back((key, session.serial));
        }
        if self.again.under_way.is_empty() {
            self.arm_errors(host);
        }
    }

    fn arm_errors(&mut self, host: &mut impl Host) {
        if !std::mem::replace(&mut self.again.is_armed, true) {
            let at = host.now().plus_ms(STORAGE_RETRY_MS);
            self.arm(host, at, Timer::Errors);
        }
    }

    /// The time to ask again has come.
    pub(crate) fn on_errors(&mut self, host: &mut impl Host) {
        self.again.is_armed = false;
        if self.again.under_way.is_empty() {
            self.store_errors(host);
        }
    }

    /// Asks storage for as many as may be on their way.
    fn store_errors(&mut self, host: &mut impl Host) {
        self.again.has_failed = false;
        let (mut count, mut size) = (ERRORS_MAX, ERRORS_SIZE_MAX);
        while count > 0
            && size > 0
            && let Some((key, serial)) = self.again.sessions.pop_front()
        {
            let Some(acks) = self
                .session_of(key, serial)
                .and_then(|session| session.outlet.acks.as_mut())
            else {
                continue;
            };
            let (errors, has_more) = acks.take_later(&mut count, &mut size);
            acks.has_deferred_errors = has_more;
            if has_more {
                self.again.sessions.push_back((key, serial));
            }
            for error in errors {
                self.store_error(host, key, serial, error);
            }
        }
    }

    fn store_error(&mut self, host: &mut impl Host, key: SessionKey, serial: u32, later: Later) {
        let account = self.sessions.at(key).account;
        let ticket = self.ticket_for_itself(Waiting::Error);
        let error = Error {
            session: key,
            serial,
            place: later.place.place,
            number: later.number,
        };
        self.again.under_way.insert(ticket.0, error);
        let op = StoreOp::Enqueue(Enqueue {
            account: self.accounts.at(account).jid.clone(),
            copies: vec![later.place],
            stanza: later.bytes,
            carbons: Vec::new(),
            shared: None,
            arrived: later.arrived,
            origin: None,
        });
        host.store(ticket, op);
    }

    /// Storage has an error, or refuses it once more.
    pub(crate) fn on_error_stored(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        reply: &StoreReply,
    ) {
        let Some(error) = self.again.under_way.remove(&ticket.0) else {
            return;
        };
        let is_stored = *reply == StoreReply::Done;
        if !is_stored {
            // The log has it since it was refused first.
            tracing::debug!(?reply, "an error was not stored again");
            self.again.has_failed = true;
        }
        let (key, serial) = (error.session, error.serial);
        if let Some(session) = self.session_of(key, serial)
            && let Some(acks) = &mut session.outlet.acks
        {
            acks.answered_at(error.place, error.number, is_stored);
            let is_misnumbered = acks.misnumbered;
            match is_stored {
                true if is_misnumbered => self.renumber_all(host, key),
                true => {}
                false => self.store_errors_later(host, key),
            }
            self.acknowledge_settled(host, key);
        }
        if self.again.under_way.is_empty() && !self.again.sessions.is_empty() {
            match self.again.has_failed {
                true => self.arm_errors(host),
                false => self.store_errors(host),
            }
        }
    }
}
