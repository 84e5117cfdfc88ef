//! Which stanzas are settled: their stored effects durable, or their errors queued.
//!
//! A stanza of a managed session, and a sibling's parcel, are open as long as storage or a sibling
//! has not answered for something they caused. Invariant: what is said to be settled is a prefix of
//! what came.

use crate::account::{AccountKey, Queued, Residence};
use crate::host::{Host, ShardId};
use crate::parcel::Buffer;
use crate::port::Origin;
use crate::session::SessionKey;
use crate::shard::Shard;
use crate::stanza::Stanza;
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
    /// A sibling's parcel, by its number among that sibling's.
    Parcel { from: ShardId, number: u64 },
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
}

impl Held {
    /// Whether a full JID sent it.
    pub(crate) fn is_from(&self, full: &str) -> bool {
        *self.from == *full
    }
}

impl Shard {
    /// The stanza in hand waits for an effect from now on; [`Shard::close_effect`] ends that.
    pub(crate) fn open_effect(&mut self) -> Option<Cause> {
        if !self.settings.durability.settles_late() {
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
            Cause::Parcel { from, number } => {
                self.unsettled[usize::from(from.0)].open(number);
            }
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
                }
            }
            Some(Cause::Parcel { from, number }) => {
                self.unsettled[usize::from(from.0)].close(number);
            }
        }
    }

    /// Puts the stanza in hand aside.
    pub(crate) fn hold(&mut self, stanza: &Stanza<'_>) -> Held {
        let mut bytes = Vec::new();
        stanza.write(&mut bytes);
        Held {
            bytes,
            from: stanza.from.into(),
            cause: self.open_effect(),
            origin: self.origin,
        }
    }

    /// Takes a stanza up that was put aside: `handle` is done as if it had just come.
    pub(crate) fn take_up<H: Host>(
        &mut self,
        host: &mut H,
        held: Held,
        handle: impl FnOnce(&mut Shard, &mut H, &[u8]),
    ) {
        let before = (self.cause, self.origin);
        (self.cause, self.origin) = (held.cause, held.origin);
        handle(self, host, &held.bytes);
        (self.cause, self.origin) = before;
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
        account.pins += 1;
        for held in held {
            self.take_up(host, held, |shard, host, bytes| shard.receive(host, bytes));
        }
        self.accounts.at_mut(key).pins -= 1;
    }
}
