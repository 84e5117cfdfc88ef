//! Which stanzas are settled: their stored effects durable, or their errors queued.
//!
//! A stanza of a managed session, and a sibling's parcel, are open as long as storage or a sibling
//! has not answered for something they caused. Invariant: what is said to be settled is a prefix of
//! what came.

use crate::account::{Account, AccountKey, Queued, Residence};
use crate::host::{Host, ShardId, Ticket};
use crate::parcel::Buffer;
use crate::port::{Origin, RosterItem};
use crate::request::Asker;
use crate::roster::RosterRequest;
use crate::session::{SessionHandle, SessionKey};
use crate::shard::Shard;
use crate::stanza::{Stanza, Type};
use stanza::jid::BareJid;
use std::collections::VecDeque;

/// What an effect under way is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A stanza of a managed session.
    Stanza {
        session: SessionKey,
        /// The session's; its key may have a new user by the time the effect is there.
        serial: u32,
        number: u64,
    },
    /// A stanza of a session without stream management. Its stream does not end before.
    Unnumbered(SessionHandle),
    /// A sibling's parcel, by its number among that sibling's.
    Parcel { from: ShardId, number: u64 },
    /// What a contact is told, before its account's own side of it is written.
    Telling { account: AccountKey, number: u64 },
    /// What contacts are told before an account is cancelled, by that request.
    Cancellation { ticket: Ticket },
    /// What a session that ends passes on, before storage forgets the session, by that request.
    End { ticket: Ticket },
}

impl Cause {
    /// Whether it is a stanza of this session.
    pub(crate) fn is_of(self, key: SessionKey) -> bool {
        match self {
            Cause::Stanza { session, .. } => session == key,
            Cause::Unnumbered(of) => of.key == key,
            _ => false,
        }
    }
}

/// A step between an account and a contact of which the contact is being told. Its side of it is
/// settled before the account's own is written: what a crash tears in between is whole again when
/// the client says it again, for the own side still wants it and the other takes it twice.
#[derive(Debug)]
pub(crate) struct Telling {
    /// Ascending among those of an account.
    number: u64,
    /// The item as it was before the step, and with whatever else has changed since: what else is
    /// written meanwhile must not bring the step along.
    before: RosterItem,
    /// How many effects it waits for.
    open: u32,
    /// The stanza that leads to all this, and whose it is.
    cause: Option<Cause>,
    asker: Option<Asker>,
    /// The client's removal of the contact, to be answered when it is written.
    removal: Option<RosterRequest>,
}

/// Things that came in an order, each with the effects that it still waits for.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    /// The number of the last one that is settled with all before it.
    settled: u64,
    /// How many effects each one behind that still waits for.
    open: VecDeque<u32>,
}

impl Settling {
    /// Nothing is open, and the next to come has the number behind `settled`.
    pub(crate) fn after(settled: u64) -> Settling {
        Settling {
            settled,
            open: VecDeque::new(),
        }
    }

    /// One more came, and is open until [`Settling::close`] says that it is handled; its number.
    pub(crate) fn begin(&mut self) -> u64 {
        self.open.push_back(1);
        self.settled + self.open.len() as u64
    }

    fn at(&mut self, number: u64) -> Option<&mut u32> {
        let index = number.checked_sub(self.settled + 1)?;
        self.open.get_mut(usize::try_from(index).ok()?)
    }

    /// It waits for one more effect.
    pub(crate) fn open(&mut self, number: u64) {
        if let Some(count) = self.at(number) {
            *count += 1;
        }
    }

    /// One of its effects is there.
    pub(crate) fn close(&mut self, number: u64) {
        let count = self.at(number);
        debug_assert!(
            count.as_ref().is_some_and(|count| **count > 0),
            "an effect is opened before it is closed"
        );
        if let Some(count) = count {
            *count = count.saturating_sub(1);
        }
    }

    /// Whether one still waits for something.
    pub(crate) fn is_open(&self) -> bool {
        self.open.iter().any(|count| *count > 0)
    }

    /// The number up to which all are settled.
    pub(crate) fn settled(&mut self) -> u64 {
        while self.open.front() == Some(&0) {
            self.open.pop_front();
            self.settled += 1;
        }
        self.settled
    }
}

/// A stanza that waits for something here, with what waits for it.
#[derive(Debug)]
pub(crate) struct Held {
    pub bytes: Buffer,
    from: Box<str>,
    cause: Option<Cause>,
    origin: Option<Origin>,
    /// Who has its answer to wait for.
    asker: Option<Asker>,
    /// Whether it is an error, which is all that is left of another stanza.
    is_error: bool,
}

impl Held {
    /// Whether no number of its receiver's is committed before it is in the queue.
    pub(crate) fn is_vital(&self) -> bool {
        self.is_error
    }

    /// Whether a full JID sent it.
    pub(crate) fn is_from(&self, full: &str) -> bool {
        *self.from == *full
    }
}

/// What a roster has of a contact while that is being told of steps.
impl Account {
    fn telling_mut(&mut self, number: u64) -> Option<&mut Telling> {
        self.tellings.iter_mut().find(|it| it.number == number)
    }

    /// Takes the first step about a contact out, if it waits for nothing any more.
    fn take_told(&mut self, contact: &BareJid) -> Option<Telling> {
        let first = |it: &Telling| it.before.contact == *contact;
        let index = self.tellings.iter().position(first)?;
        (self.tellings[index].open == 0).then(|| self.tellings.remove(index))
    }

    /// Whether a contact is being told of a request, which it then may send back.
    pub(crate) fn is_telling_request(&self, contact: &BareJid) -> bool {
        let mut own = self.tellings.iter();
        own.any(|it| it.before.contact == *contact && !it.before.ask && it.removal.is_none())
    }

    /// Whom something is being told.
    pub(crate) fn told_contacts(&self) -> impl Iterator<Item = &BareJid> {
        self.tellings.iter().map(|it| &it.before.contact)
    }

    /// What was between the account and a contact before the step that this leads to.
    pub(crate) fn before_step(&self, contact: &BareJid, cause: Cause) -> Option<&RosterItem> {
        let mut tellings = self.tellings.iter().map(|it| (&it.before, it.cause));
        let found = tellings.find(|it| it.0.contact == *contact && it.1 == Some(cause));
        found.map(|(before, _)| before)
    }

    /// Changes an item as it was before steps that its contact is being told of.
    pub(crate) fn change_before(
        &mut self,
        contact: &BareJid,
        mut change: impl FnMut(&mut RosterItem),
    ) {
        let tellings = self.tellings.iter_mut();
        for telling in tellings.filter(|it| it.before.contact == *contact) {
            change(&mut telling.before);
        }
    }

    /// The item that storage is to have of a contact, if any: no step is in it that the contact is
    /// still being told of.
    pub(crate) fn item_to_write(&self, contact: &BareJid) -> Option<&RosterItem> {
        let mut tellings = self.tellings.iter();
        match tellings.find(|it| it.before.contact == *contact) {
            Some(telling) => Some(&telling.before).filter(|item| !item.is_blank()),
            None => self.contact(contact.as_str()),
        }
    }
}

impl Shard {
    /// The stanza in hand waits for an effect from now on; [`Shard::close_effect`] ends that.
    pub(crate) fn open_effect(&mut self) -> Option<Cause> {
        let is_unnumbered = matches!(self.cause, Some(Cause::Unnumbered(_)));
        if !self.settings.durability.settles_late() && !is_unnumbered {
            return None;
        }
        match self.cause? {
            Cause::Stanza {
                session,
                serial,
                number,
            } => {
                // It may have ended while storage worked for its stanza.
                let session = self.session_of(session, serial)?;
                session.outlet.acks.as_mut()?.settling.open(number);
            }
            Cause::Unnumbered(of) => self.session_of(of.key, of.serial)?.unsettled += 1,
            Cause::Parcel { from, number } => {
                self.unsettled[usize::from(from.0)].open(number);
            }
            Cause::Telling { account, number } => {
                self.accounts.at_mut(account).telling_mut(number)?.open += 1;
            }
            Cause::Cancellation { ticket } => self.cancellation(ticket)?.open += 1,
            Cause::End { ticket } => self.session_ends.get_mut(&ticket.0)?.open += 1,
        }
        self.cause
    }

    /// An effect is there, or its error is queued.
    pub(crate) fn close_effect(&mut self, host: &mut impl Host, cause: Option<Cause>) {
        match cause {
            None => {}
            Some(Cause::Stanza {
                session,
                serial,
                number,
            }) => {
                if let Some(of) = self.sessions.get_mut(session)
                    && of.serial == serial
                    && let Some(acks) = &mut of.outlet.acks
                {
                    acks.settling.close(number);
                    self.acknowledge_settled(host, session);
                    self.end_farewell(host, session);
                }
            }
            Some(Cause::Unnumbered(of)) => {
                if let Some(session) = self.session_of(of.key, of.serial) {
                    session.unsettled -= 1;
                    self.end_farewell(host, of.key);
                }
            }
            Some(Cause::Parcel { from, number }) => {
                self.unsettled[usize::from(from.0)].close(number);
            }
            Some(Cause::Telling { account, number }) => {
                let telling = self.accounts.at_mut(account).telling_mut(number);
                if let Some(telling) = telling {
                    telling.open -= 1;
                    if telling.open == 0 {
                        let contact = telling.before.contact.clone();
                        self.write_told(host, account, &contact);
                    }
                }
            }
            Some(Cause::Cancellation { ticket }) => self.close_cancellation(host, ticket),
            Some(Cause::End { ticket }) => self.close_end(host, ticket),
        }
    }

    /// Tells a contact of a step by what `tell` sends, and writes the account's own side when that
    /// is settled.
    pub(crate) fn tell_and_write<H: Host>(
        &mut self,
        host: &mut H,
        account: AccountKey,
        before: RosterItem,
        removal: Option<RosterRequest>,
        tell: impl FnOnce(&mut Shard, &mut H),
    ) {
        self.last_telling += 1;
        let number = self.last_telling;
        let telling = Telling {
            number,
            before,
            open: 1,
            cause: self.open_effect(),
            asker: self.count_request(),
            removal,
        };
        let owner = self.accounts.at_mut(account);
        owner.pins += 1;
        owner.tellings.push(telling);
        let here = Cause::Telling { account, number };
        let before = self.cause.replace(here);
        tell(self, host);
        self.cause = before;
        self.close_effect(host, Some(here));
    }

    /// Writes the steps that a contact has been told of, in their order: none before an earlier one
    /// that still waits for something.
    fn write_told(&mut self, host: &mut impl Host, account: AccountKey, contact: &BareJid) {
        while let Some(telling) = self.accounts.at_mut(account).take_told(contact) {
            let Telling {
                cause,
                asker,
                removal,
                ..
            } = telling;
            let before = (self.cause, self.asker);
            (self.cause, self.asker) = (cause, asker);
            if !self.accounts.at(account).is_gone {
                let ticket = self.store_step(host, account, contact);
                if let Some(request) = removal {
                    self.roster_requests.insert(ticket.0, request);
                    self.forget_oldest_removed(host, account);
                }
            }
            (self.cause, self.asker) = before;
            self.end_request(host, asker);
            self.close_effect(host, cause);
            self.accounts.at_mut(account).pins -= 1;
        }
        self.evict_if_idle(account);
    }

    /// Puts the stanza in hand aside.
    pub(crate) fn hold(&mut self, stanza: &Stanza<'_>) -> Held {
        let mut bytes = Vec::new();
        stanza.write(&mut bytes);
        let asker = match stanza.asks() {
            true => self.count_request(),
            false => None,
        };
        Held {
            bytes,
            from: stanza.from.into(),
            cause: self.open_effect(),
            origin: self.origin,
            asker,
            is_error: stanza.type_ == Type::Error,
        }
    }

    /// Takes a stanza up that was put aside: `handle` is done as if it had just come.
    pub(crate) fn take_up<H: Host>(
        &mut self,
        host: &mut H,
        held: Held,
        handle: impl FnOnce(&mut Shard, &mut H, &[u8]),
    ) {
        let before = (self.cause, self.origin, self.asker);
        (self.cause, self.origin, self.asker) = (held.cause, held.origin, held.asker);
        handle(self, host, &held.bytes);
        (self.cause, self.origin, self.asker) = before;
        self.end_request(host, held.asker);
        self.close_effect(host, held.cause);
    }

    /// Delivers what was held for an account, in order, as far as nothing holds it up again.
    pub(crate) fn release_held(&mut self, host: &mut impl Host, key: AccountKey) {
        if self.accounts.at(key).must_hold() {
            return;
        }
        let account = self.accounts.at_mut(key);
        if matches!(account.residence, Residence::Loading(_)) {
            return;
        }
        account.queued = Queued::default();
        let held = std::mem::take(&mut account.held);
        let had_error = held.iter().any(|held| held.is_error);
        account.pins += 1;
        for held in held {
            self.take_up(host, held, |shard, host, bytes| shard.receive(host, bytes));
        }
        if had_error {
            for session in self.accounts.at(key).sessions.clone() {
                self.acknowledge_settled(host, session);
            }
        }
        self.accounts.at_mut(key).pins -= 1;
    }
}
