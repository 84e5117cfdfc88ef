//! Messages that storage has before a client does: the queues of managed sessions.
//!
//! Invariant: a message that is kept is written to a client only after its commit, and every one
//! that storage refuses is answered by an error.

use crate::account::AccountKey;
use crate::host::{Host, Ticket};
use crate::outbox::{Keep, Shared};
use crate::port::{Enqueue, QueuePlace, SharedStanza, StoreOp, StoreReply};
use crate::session::{SessionKey, Sessions};
use crate::shard::{Shard, Waiting};
use crate::stanza::{Stanza, Type};
use crate::xep::offline::is_of_the_moment;
use smallvec::SmallVec;
use stanza::view::Kind;

/// The sessions that get one message.
pub(crate) type Receivers = SmallVec<[SessionKey; 4]>;

/// A message on its way into the queues of sessions.
#[derive(Debug)]
pub(crate) struct Enqueued {
    account: AccountKey,
    /// Each session, its serial, and the message's place in its queue.
    copies: SmallVec<[(SessionKey, u32, u64); 2]>,
    /// Whether a refusal would leave nobody who knows of it: an error is delivered unstored then.
    is_error: bool,
    /// Whether a session that nothing is stored for has it already: the others get it unstored,
    /// for the sender may not be told that nobody has it.
    is_delivered: bool,
}

/// Whether managed sessions keep a stanza in storage: what a person would miss, and errors, which
/// have all that their stanza had and are all that is left of it.
fn is_kept(stanza: &Stanza<'_>) -> bool {
    let is_kept = match stanza.type_ {
        Type::Normal | Type::Chat => !is_of_the_moment(stanza),
        type_ => type_ == Type::Error,
    };
    stanza.kind == Kind::Message && is_kept
}

impl Shard {
    /// Gives a message to sessions of one account; where it is kept, storage has it first.
    pub(crate) fn give(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        receivers: &[SessionKey],
        stanza: &Stanza<'_>,
    ) {
        let shared = self.shared_by(receivers);
        let saves = self.settings.durability.saves_sessions();
        if !saves || !receivers.iter().any(|key| self.sessions.is_saved(*key)) || !is_kept(stanza) {
            for &key in receivers {
                self.sessions.send(host, key, stanza);
                self.sessions.share(key, shared.as_ref());
            }
            return;
        }
        let mut bytes = Vec::new();
        stanza.write(&mut bytes);
        let is_error = stanza.type_ == Type::Error;
        let arrived = self.arrival(host);
        let mut places: Vec<QueuePlace> = Vec::with_capacity(receivers.len());
        let mut copies = SmallVec::new();
        let ticket = self.ticket(Waiting::Enqueue);
        for &key in receivers {
            let session = self.sessions.at_mut(key);
            match &mut session.outlet.acks {
                Some(acks) if acks.saved => {
                    let place = acks.send_kept(&bytes, arrived, is_error, ticket);
                    places.push(place);
                    copies.push((key, session.serial, place.place));
                }
                _ => self.sessions.send(host, key, stanza),
            }
            self.sessions.share(key, shared.as_ref());
            self.note_overflow(key);
        }
        let shared = shared.map(|_| SharedStanza {
            group: host.random(),
            members: (places.len() + self.unmanaged_among(receivers)) as u32,
            holders: 0,
        });
        let enqueued = Enqueued {
            account,
            copies,
            is_error,
            is_delivered: places.len() < receivers.len(),
        };
        self.enqueued.insert(ticket.0, enqueued);
        self.accounts.at_mut(account).pins += 1;
        let op = StoreOp::Enqueue(Enqueue {
            account: self.accounts.at(account).jid.clone(),
            copies: places,
            stanza: bytes.into(),
            shared,
            arrived,
            origin: self.origin,
        });
        host.store(ticket, op);
    }

    /// What managed sessions know a message by that others are given, too.
    fn shared_by(&self, receivers: &[SessionKey]) -> Option<Shared> {
        let unmanaged = match receivers.len() {
            0 | 1 => return None,
            _ => self.unmanaged_among(receivers),
        };
        if unmanaged == receivers.len() {
            return None;
        }
        let shared = Shared::default();
        if unmanaged > 0 {
            shared.note_taken();
        }
        Some(shared)
    }

    /// How many have what they are sent, for all that is known.
    fn unmanaged_among(&self, receivers: &[SessionKey]) -> usize {
        let is_unmanaged = |key: &&SessionKey| self.sessions.at(**key).outlet.acks.is_none();
        receivers.iter().filter(is_unmanaged).count()
    }

    /// Storage has a message, or refuses it.
    pub(crate) fn on_enqueued(&mut self, host: &mut impl Host, ticket: Ticket, reply: StoreReply) {
        let Some(enqueued) = self.enqueued.remove(&ticket.0) else {
            return;
        };
        let Enqueued {
            account, copies, ..
        } = enqueued;
        let mut refused = None;
        for (key, serial, place) in copies {
            let Some(session) = self.session_of(key, serial) else {
                continue; // Its end has seen to that, see `Shard::wait_for_end`.
            };
            let conn = session.outlet.conn;
            let Some(acks) = &mut session.outlet.acks else {
                continue;
            };
            if reply == StoreReply::Done {
                acks.stored_at(host, conn, place);
                if acks.misnumbered {
                    self.renumber_all(host, key);
                }
                if enqueued.is_error {
                    self.acknowledge_settled(host, key);
                }
            } else if enqueued.is_error || enqueued.is_delivered {
                acks.unstored_at(host, conn, place);
                if enqueued.is_error {
                    self.store_errors_later(host, key);
                }
            } else {
                refused = acks.refused_at(place).or(refused);
                acks.flush(host, conn);
            }
            self.sessions.ask_later(host, key);
        }
        if reply != StoreReply::Done {
            tracing::error!(?reply, "a message was not stored");
        }
        if let Some(message) = refused {
            self.take_refused(host, message);
        }
        self.accounts.at_mut(account).pins -= 1;
        self.evict_if_idle(account);
    }

    /// Remembers that a session's queue may have outgrown its limits: the turn's end looks.
    pub(crate) fn note_overflow(&mut self, key: SessionKey) {
        if self.sessions.at(key).outlet.has_overflowed() {
            self.sessions.overflowed.push(key);
        }
    }
}

impl Sessions {
    /// Whether storage keeps what the session is sent.
    pub(crate) fn is_saved(&self, key: SessionKey) -> bool {
        let acks = self.at(key).outlet.acks.as_ref();
        acks.is_some_and(|acks| acks.saved)
    }

    /// Others were given the message that a session was sent last.
    fn share(&mut self, key: SessionKey, shared: Option<&Shared>) {
        if let (Some(acks), Some(shared)) = (&mut self.at_mut(key).outlet.acks, shared) {
            acks.share_last(shared);
        }
    }

    /// Sends a stanza to a session's client.
    pub(crate) fn send(&mut self, host: &mut impl Host, key: SessionKey, stanza: &Stanza<'_>) {
        self.write_to(host, key, Keep::Memory, |_, out| stanza.write(out));
        self.ask_later(host, key);
    }
}
