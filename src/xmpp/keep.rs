//! Messages that storage has before a client does: the queues of managed sessions.
//!
//! Invariant: a message that is kept is written to a client only after its commit, and every one
//! that storage refuses is answered by an error.

use crate::account::AccountKey;
use crate::archive::{Archiving, Stamp, with_entry};
use crate::host::{Host, Ticket, Timestamp};
use crate::outbox::{Keep, Shared};
use crate::port::{ArchiveId, Arrived, Enqueue, QueuePlace, SharedStanza, StoreOp, StoreReply};
use crate::session::{Address, Session, SessionKey, Sessions};
use crate::shard::{Shard, Waiting};
use crate::stanza::{Stanza, Type};
use crate::xep::carbons::{Copies, Direction, taken_out, write_copy};
use crate::xep::offline::is_of_the_moment;
use smallvec::SmallVec;
use stanza::jid::BareJid;
use stanza::view::Kind;

/// The sessions that get one message.
pub(crate) type Receivers = SmallVec<[SessionKey; 4]>;

/// Sessions with their serials, and the places of a message in their queues.
type Kept = SmallVec<[(SessionKey, u32, u64); 2]>;

/// Sessions with their serials that have no queue in storage and wait for an archive all the same.
type WaitingFor = SmallVec<[(SessionKey, u32); 2]>;

/// What keeps a message, when it came, and where; and those who wait, if an archive gets it.
type KeptBy<'a> = (
    (Ticket, Timestamp, &'a mut Kept),
    &'a mut Option<WaitingFor>,
);

/// A message on its way into the queues of sessions.
#[derive(Debug)]
pub(crate) struct Enqueued {
    account: AccountKey,
    /// Those that have only a copy of it come first.
    copies: Kept,
    /// Whether a refusal would leave nobody who knows of it: an error is delivered unstored then.
    is_error: bool,
    /// Whether a session that nothing is stored for has it already: the others get it unstored,
    /// for the sender may not be told that nobody has it.
    is_delivered: bool,
    /// Where it goes into an archive, too: those who wait for that and have no queue in storage.
    archived: Option<Box<Archived>>,
}

/// A message on its way into an archive, and those that get it then.
#[derive(Debug)]
struct Archived {
    id: ArchiveId,
    waiting: WaitingFor,
    /// When it came, and the complete stanza, where its sender is to hear of a failure.
    message: Option<Arrived>,
}

impl Archived {
    fn new(of: &Archiving, waiting: WaitingFor, message: Option<Arrived>) -> Box<Archived> {
        Box::new(Archived {
            id: of.id,
            waiting,
            message,
        })
    }
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
        self.give_with(host, account, receivers, &Copies::default(), stanza);
    }

    /// The same, and copies of it to others (XEP-0280): storage has all or none.
    pub(crate) fn give_with(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        receivers: &[SessionKey],
        copies: &Copies,
        stanza: &Stanza<'_>,
    ) {
        let shared = self.shared_by(receivers, copies);
        if self.archiving.is_none() && !self.keeps(receivers, copies, stanza) {
            return self.give_at_once(host, (receivers, copies), stanza, shared.as_ref());
        }
        let archiving = self.archiving.take();
        let mut bytes = Vec::new();
        stanza.write(&mut bytes);
        let (is_error, arrived) = (stanza.type_ == Type::Error, self.arrival(host));
        let mut places: Vec<QueuePlace> = Vec::with_capacity(receivers.len());
        let ticket = self.ticket(Waiting::Enqueue);
        let (mut kept, mut waiting) = (Kept::new(), archiving.as_ref().map(|_| SmallVec::new()));
        let (message, kept_by) = ((&*bytes, stanza.type_), (ticket, arrived, &mut kept));
        let kept_by = (kept_by, &mut waiting);
        let carbons = self.keep_copies(host, copies, message, shared.as_ref(), kept_by);
        for &key in receivers {
            self.sessions.release_held(host, key);
            let is_saved = self.sessions.is_saved(key);
            if !is_saved && waiting.is_none() && !self.sessions.send(host, key, stanza) {
                continue;
            }
            let session = self.sessions.at_mut(key);
            match &mut session.outlet.acks {
                Some(acks) if is_saved => {
                    let place = acks.send_kept(&bytes, arrived, is_error, ticket);
                    places.push(place);
                    kept.push((key, session.serial, place.place));
                }
                _ => {
                    if let Some(waiting) = &mut waiting {
                        waiting.push((key, session.serial));
                        self.sessions.send_after(host, key, &bytes, ticket);
                    }
                }
            }
            self.sessions.share(key, shared.as_ref());
            self.note_overflow(key);
        }
        let all = kept.len() + waiting.as_ref().map_or(0, |waiting| waiting.len());
        let archived = archiving.as_ref().zip(waiting).map(|(of, waiting)| {
            let message = (!receivers.is_empty()).then(|| (arrived, bytes.clone().into()));
            Archived::new(of, waiting, message)
        });
        let enqueued = Enqueued {
            account,
            is_error,
            is_delivered: receivers.is_empty() || all < receivers.len() + copies.to.len(),
            copies: kept,
            archived,
        };
        self.enqueued.insert(ticket.0, enqueued);
        self.accounts.at_mut(account).pins += 1;
        let op = StoreOp::Enqueue(Enqueue {
            account: self.accounts.at(account).jid.clone(),
            shared: self.shared_in_storage(host, shared, receivers, copies),
            copies: places,
            stanza: bytes.into(),
            carbons,
            arrived,
            origin: self.origin,
        });
        host.store(ticket, with_entry(archiving.and_then(|it| it.entry), op));
    }

    /// Whether one of those who get a message has a queue in storage that keeps it.
    fn keeps(&self, receivers: &[SessionKey], copies: &Copies, stanza: &Stanza<'_>) -> bool {
        let saves = self.settings.durability.saves_sessions();
        let mut all = receivers.iter().chain(&copies.to);
        saves && all.any(|key| self.sessions.is_saved(*key)) && is_kept(stanza)
    }

    /// The same of what nothing waits for.
    #[inline(always)]
    fn give_at_once(
        &mut self,
        host: &mut impl Host,
        (receivers, copies): (&[SessionKey], &Copies),
        stanza: &Stanza<'_>,
        shared: Option<&Shared>,
    ) {
        for &key in receivers {
            if self.sessions.send(host, key, stanza) {
                self.sessions.share(key, shared);
            }
        }
        if !copies.to.is_empty() {
            self.send_copies(host, copies, stanza, shared);
        }
    }

    /// What managed sessions know a message by that others are given, too.
    fn shared_by(&self, receivers: &[SessionKey], copies: &Copies) -> Option<Shared> {
        let count = receivers.len() + copies.to.len();
        let is_elsewhere = match receivers.len() {
            // It is for somebody else, and nobody has to pass copies on.
            0 if copies.direction == Direction::Sent && !copies.is_own => return None,
            // It waits in storage.
            0 => true,
            _ => false,
        };
        if count + usize::from(is_elsewhere) < 2 || count == 0 {
            return None;
        }
        let unmanaged = self.unmanaged_among(receivers, copies);
        if unmanaged == count {
            return None;
        }
        let shared = Shared::default();
        if unmanaged > 0 || is_elsewhere {
            shared.note_taken();
        }
        Some(shared)
    }

    /// What storage knows a message by that sessions share.
    fn shared_in_storage(
        &self,
        host: &mut impl Host,
        shared: Option<Shared>,
        receivers: &[SessionKey],
        copies: &Copies,
    ) -> Option<SharedStanza> {
        shared?;
        let members = receivers.len().max(1) + copies.to.len();
        Some(SharedStanza {
            group: host.random(),
            members: members as u32,
            holders: 0,
        })
    }

    /// How many have what they are sent, for all that is known.
    fn unmanaged_among(&self, receivers: &[SessionKey], copies: &Copies) -> usize {
        let is_unmanaged = |key: &&SessionKey| self.sessions.at(**key).outlet.acks.is_none();
        let all = receivers.iter().chain(&copies.to);
        all.filter(is_unmanaged).count()
    }

    /// Sends copies of a message that is not kept.
    fn send_copies(
        &mut self,
        host: &mut impl Host,
        copies: &Copies,
        stanza: &Stanza<'_>,
        shared: Option<&Shared>,
    ) {
        let mut message = Vec::new();
        stanza.write(&mut message);
        for &key in &copies.to {
            if self.send_copy(host, key, copies.direction, (&message, stanza.type_)) {
                self.sessions.share(key, shared);
            }
        }
    }

    fn send_copy(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        direction: Direction,
        (message, type_): (&[u8], Type),
    ) -> bool {
        let write = |address: &Address, out: &mut Vec<u8>| {
            let addresses = (address.bare(), address.full());
            write_copy(direction, message, type_, addresses, out);
        };
        let was_sent = self.sessions.write_to(host, key, Keep::Memory, write);
        self.sessions.ask_later(host, key);
        was_sent
    }

    /// Puts copies of a message that is kept into queues, until storage has them, and sends them to
    /// those who have no such queue.
    fn keep_copies(
        &mut self,
        host: &mut impl Host,
        copies: &Copies,
        (message, type_): (&[u8], Type),
        shared: Option<&Shared>,
        ((ticket, arrived, kept), waiting): KeptBy<'_>,
    ) -> Vec<(QueuePlace, Box<[u8]>)> {
        let mut carbons = Vec::with_capacity(copies.to.len());
        for &key in &copies.to {
            self.sessions.release_held(host, key);
            let is_saved = self.sessions.is_saved(key);
            let is_at_once = !is_saved && waiting.is_none();
            if is_at_once && !self.send_copy(host, key, copies.direction, (message, type_)) {
                continue;
            }
            let Session {
                outlet,
                address,
                serial,
                ..
            } = self.sessions.at_mut(key);
            match &mut outlet.acks {
                Some(acks) if is_saved => {
                    let mut copy = Vec::new();
                    let addresses = (address.bare(), address.full());
                    write_copy(copies.direction, message, type_, addresses, &mut copy);
                    let place = acks.send_kept(&copy, arrived, false, ticket);
                    kept.push((key, *serial, place.place));
                    carbons.push((place, copy.into()));
                }
                _ => {
                    if let Some(waiting) = waiting {
                        let mut copy = Vec::new();
                        let addresses = (address.bare(), address.full());
                        write_copy(copies.direction, message, type_, addresses, &mut copy);
                        waiting.push((key, *serial));
                        self.sessions.send_after(host, key, &copy, ticket);
                    }
                }
            }
            self.sessions.share(key, shared);
            self.note_overflow(key);
        }
        carbons
    }

    /// Storage has a message, or refuses it.
    pub(crate) fn on_enqueued(&mut self, host: &mut impl Host, ticket: Ticket, reply: StoreReply) {
        let Some(enqueued) = self.enqueued.remove(&ticket.0) else {
            return;
        };
        let Enqueued {
            account,
            copies,
            archived,
            is_delivered,
            ..
        } = enqueued;
        let (mut refused, has_places) = (None, !copies.is_empty());
        let by = archived
            .as_ref()
            .map(|_| self.accounts.at(account).jid.clone());
        let stamp = archived
            .as_ref()
            .zip(by.as_ref())
            .map(|(archived, by)| Stamp {
                by: by.as_str(),
                id: archived.id,
            });
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
            } else if enqueued.is_error || is_delivered {
                if let Some(stamp) = stamp {
                    acks.change_at(place, |stanza| stamp.take_out(stanza));
                }
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
        let is_stored = reply == StoreReply::Done;
        let settled = archived.zip(by).map(|(archived, by)| {
            self.settle_archived(host, ticket, (*archived, &by), (is_stored, is_delivered))
        });
        let (is_taken, message) = settled.unwrap_or_default();
        if !is_stored {
            tracing::error!(?reply, "a message was not stored");
            refused = message.filter(|_| !is_delivered).or(refused);
        } else if let Some(message) = message.filter(|_| !is_taken && !has_places) {
            self.pass_on(host, account, message);
        }
        if let Some(refused) = refused {
            self.give_back(host, refused);
        }
        self.accounts.at_mut(account).pins -= 1;
        self.evict_if_idle(account);
    }

    /// Lets those go on who waited for an archive; whether any of them is there, and the message.
    fn settle_archived(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        (archived, by): (Archived, &BareJid),
        (is_stored, is_delivered): (bool, bool),
    ) -> (bool, Option<Arrived>) {
        let stamp = Stamp {
            by: by.as_str(),
            id: archived.id,
        };
        let is_taken = self.open_gates(host, ticket, &archived, |stanza| match is_stored {
            true => Some(stanza.to_vec()),
            false => is_delivered.then(|| stamp.take_out(stanza)),
        });
        (is_taken, archived.message)
    }

    /// Nobody has what storage refused. Of a copy its message is left.
    fn give_back(&mut self, host: &mut impl Host, (arrived, stanza): Arrived) {
        match taken_out(&stanza) {
            None => self.take_refused(host, (arrived, stanza)),
            Some(Some(message)) => self.take_refused(host, (arrived, message.into())),
            Some(None) => {}
        }
    }

    /// Lets those go on who waited for an archive, with what `change` makes of the message; whether
    /// any of them is still there.
    fn open_gates(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        archived: &Archived,
        change: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> bool {
        let mut is_taken = false;
        for &(key, serial) in &archived.waiting {
            if self.session_of(key, serial).is_none() {
                continue;
            }
            is_taken = true;
            self.sessions.open_gate(host, key, ticket, &change);
            self.sessions.ask_later(host, key);
        }
        is_taken
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

    /// Sends a stanza to a session's client; whether it was, as [`Sessions::write_to`] says.
    pub(crate) fn send(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        stanza: &Stanza<'_>,
    ) -> bool {
        let was_sent = self.write_to(host, key, Keep::Memory, |_, out| stanza.write(out));
        self.ask_later(host, key);
        was_sent
    }
}
