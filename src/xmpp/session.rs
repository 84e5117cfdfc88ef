//! One bound resource: what the server knows of a connected client.

use crate::account::AccountKey;
use crate::ask::Asking;
use crate::gate::Gate;
use crate::host::{ConnId, Host};
use crate::limit::{Limits, REQUESTS_PER_SESSION_MAX, TARGETS_PER_TURN_MAX};
use crate::outbox::{Acks, Keep};
use crate::port::AgentId;
use crate::xep::client_state::Held;
use crate::xep::interest::Interests;
use stanza::jid::Jid;
use std::collections::{BTreeSet, HashMap};

/// Bytes of an address that a session has told of its presence, on average.
const DIRECTED_SIZE_MEAN: usize = 100;

/// A session's place in [`Sessions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u32);

/// A session, told from later users of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionHandle {
    pub(crate) key: SessionKey,
    pub(crate) serial: u32,
}

/// One bound resource.
#[derive(Debug)]
pub struct Session {
    /// Its account.
    pub account: AccountKey,
    /// The way to its client.
    pub(crate) outlet: Outlet,
    /// Its full JID.
    pub(crate) address: Address,
    /// Requests to storage and other shards that its stanzas made and that are not answered. From
    /// [`REQUESTS_PER_SESSION_MAX`] on its stanzas wait.
    pub unanswered: u16,
    /// What its stanzas still wait for, where it has no stream management.
    pub unsettled: u32,
    /// Its client has said its last; what it asked for is answered before the stream ends.
    pub closing: bool,
    /// Its client is away and has hardly any time left to come back.
    pub(crate) expiring: bool,
    /// Which of its key's users it is; given by [`Sessions::insert`], wraps.
    pub serial: u32,
    /// The priority of the last presence; meaningless while unavailable.
    pub priority: i8,
    /// Sent presence and no unavailable one since.
    pub available: bool,
    /// Was available at some time.
    pub was_seen: bool,
    /// Asked for the roster, so it gets pushes (RFC 6121 2.1.6).
    pub interested: bool,
    /// Its client may have contacts that are removed: it is told no version of the roster.
    pub(crate) lacks_removals: bool,
    /// Asked for the block list, so it gets its pushes (XEP-0191 3.3).
    pub blocking: bool,
    /// What else is to be known of it wherever a stanza is sent.
    pub(crate) modes: Modes,
    /// Storage refused `<enable/>`: effects of that numbering may be under way, and must not be
    /// taken for those of another.
    pub is_unmanageable: bool,
    /// The last available presence, as a stanza with an empty `to`.
    pub presence: Option<Box<Presence>>,
    /// Who got directed presence and does not get broadcasts (RFC 6121 4.6).
    pub directed: Option<Box<Vec<Box<str>>>>,
}

/// What is to be known of a session wherever a stanza is sent, bit by bit: a session is small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modes(u8);

impl Modes {
    /// Its client asked for copies of the account's messages (XEP-0280).
    pub(crate) const GETS_COPIES: Modes = Modes(1);

    /// Another session of its account gets copies of what its client sends.
    pub(crate) const IS_COPIED: Modes = Modes(2);

    /// Nobody looks at its client (XEP-0352).
    pub(crate) const IS_INACTIVE: Modes = Modes(4);

    /// Its client said what it is capable of (XEP-0115).
    pub(crate) const HAS_CAPS: Modes = Modes(8);

    /// What its client sends may go into archives.
    pub(crate) const IS_ARCHIVED: Modes = Modes(32);

    /// Something for its client waits for storage, and what is behind that: see [`crate::gate`].
    pub(crate) const IS_GATED: Modes = Modes(64);

    /// Somebody besides the receiver has something of what its client sends.
    pub(crate) const IS_NOTED: Modes = Modes(Modes::IS_COPIED.0 | Modes::IS_ARCHIVED.0);

    /// What it is sent does not go out at once.
    pub(crate) const IS_HELD_UP: Modes = Modes(Modes::IS_INACTIVE.0 | Modes::IS_GATED.0);

    /// Whether this is so, or one of several.
    #[inline]
    pub(crate) fn has(self, mode: Modes) -> bool {
        self.0 & mode.0 != 0
    }

    /// Says whether this is so.
    pub(crate) fn set(&mut self, mode: Modes, is_so: bool) {
        match is_so {
            true => self.0 |= mode.0,
            false => self.0 &= !mode.0,
        }
    }
}

/// A full JID that knows where its resource begins.
#[derive(Debug)]
pub(crate) struct Address {
    full: Box<str>,
    bare_size: u16,
}

impl Address {
    pub(crate) fn full(&self) -> &str {
        &self.full
    }

    pub(crate) fn bare(&self) -> &str {
        &self.full[..usize::from(self.bare_size)]
    }

    pub(crate) fn resource(&self) -> &str {
        &self.full[usize::from(self.bare_size) + 1..]
    }
}

/// The way from a session to its client: a connection, an acknowledged queue, or both.
#[derive(Debug)]
pub(crate) struct Outlet {
    /// The connection; `None` while the session hibernates.
    pub conn: Option<ConnId>,
    /// What stream management keeps, where it is enabled.
    pub acks: Option<Box<Acks>>,
}

impl Outlet {
    /// Sends one stanza; whether more waits for acknowledgement now than may.
    #[inline]
    fn send(&mut self, host: &mut impl Host, keep: Keep, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        match (&mut self.acks, self.conn) {
            (None, Some(conn)) => write(host.output(conn)),
            (Some(acks), conn) => {
                acks.send(host, conn, keep, write);
                return acks.has_overflowed();
            }
            (None, None) => debug_assert!(false, "only a managed session has no connection"),
        }
        false
    }

    /// Sends a stanza that waited in front of all that comes now. Where stream management was
    /// enabled meanwhile it is not counted before `<enabled/>`.
    pub(crate) fn send_past(&mut self, host: &mut impl Host, stanza: &[u8]) {
        match (&mut self.acks, self.conn) {
            (Some(acks), conn) if acks.opened => {
                acks.send(host, conn, Keep::Memory, |out| {
                    out.extend_from_slice(stanza)
                });
            }
            (_, Some(conn)) => host.output(conn).extend_from_slice(stanza),
            (_, None) => {}
        }
    }

    /// How many stanzas wait for acknowledgement.
    pub(crate) fn queued(&self) -> usize {
        self.acks.as_ref().map_or(0, |acks| acks.queued())
    }

    /// What waits behind so many is a roster, which may be longer than what may wait.
    pub(crate) fn excuse_behind(&mut self, count: usize) {
        if let Some(acks) = &mut self.acks {
            acks.excuse_behind(count);
        }
    }

    /// What was sent last is a result that the client asked for, which may be long.
    pub(crate) fn note_answer(&mut self) {
        if let Some(acks) = &mut self.acks {
            acks.note_answer(self.conn.is_some());
        }
    }

    /// Whether its client's input is to wait until more is written.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.acks.as_ref().is_some_and(|acks| acks.is_behind())
    }

    /// Whether more waits for acknowledgement than may.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.acks.as_ref().is_some_and(|acks| acks.has_overflowed())
    }
}

/// A presence encoded around the place of its `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The stanza with an empty `to`.
    pub bytes: Box<[u8]>,
    /// Where the value of `to` belongs.
    pub split: u32,
}

impl Session {
    /// A session just bound: connected, not available.
    pub fn new(account: AccountKey, conn: ConnId, bare: &str, resource: &str) -> Session {
        let mut session = Session::detached(account, bare, resource);
        session.outlet.conn = Some(conn);
        session
    }

    /// A session without a connection; somebody sees to it that it is managed.
    pub(crate) fn detached(account: AccountKey, bare: &str, resource: &str) -> Session {
        Session {
            account,
            outlet: Outlet {
                conn: None,
                acks: None,
            },
            address: Address {
                full: format!("{bare}/{resource}").into(),
                bare_size: u16::try_from(bare.len()).expect("a bare JID has at most 2,047 bytes"),
            },
            unanswered: 0,
            unsettled: 0,
            closing: false,
            expiring: false,
            serial: 0,
            priority: 0,
            available: false,
            was_seen: false,
            interested: false,
            lacks_removals: false,
            blocking: false,
            modes: Modes::default(),
            is_unmanageable: false,
            presence: None,
            directed: None,
        }
    }

    /// The full JID.
    pub fn full(&self) -> &str {
        self.address.full()
    }

    /// The account's bare JID.
    pub fn bare(&self) -> &str {
        self.address.bare()
    }

    /// The resource.
    pub fn resource(&self) -> &str {
        self.address.resource()
    }

    /// Whether it has as many requests under way as it may.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.unanswered >= REQUESTS_PER_SESSION_MAX
    }

    /// Whether messages to the bare JID reach it (RFC 6121 8.5.2.1.1).
    pub fn takes_bare(&self) -> bool {
        self.available && self.priority >= 0 && !self.is_leaving()
    }

    /// Whether it is about to end, so that messages had better go elsewhere.
    pub(crate) fn is_leaving(&self) -> bool {
        self.closing || self.expiring
    }

    /// Remembers that `to` knows this session is available; `false` where the limit is reached, or
    /// the addresses are long enough for it: whenever one changes, all may have to be written.
    pub fn remember_directed(&mut self, to: &str, limits: &Limits) -> bool {
        let directed = self.directed.get_or_insert_default();
        if directed.iter().any(|known| &**known == to) {
            return true;
        }
        let size: usize = directed.iter().map(|known| known.len()).sum();
        let size_max = limits.directed_max * DIRECTED_SIZE_MEAN;
        if directed.len() >= limits.directed_max || size + to.len() > size_max {
            return false;
        }
        directed.push(to.into());
        true
    }

    /// Whether `to` has directed presence of it.
    pub(crate) fn has_directed(&self, to: &str) -> bool {
        let directed = self.directed.as_deref();
        directed.is_some_and(|list| list.iter().any(|known| **known == *to))
    }

    /// How many have directed presence of it.
    pub(crate) fn directed_count(&self) -> usize {
        self.directed.as_ref().map_or(0, |directed| directed.len())
    }

    /// Forgets a target of directed presence.
    pub fn forget_directed(&mut self, to: &str) {
        if let Some(directed) = &mut self.directed {
            directed.retain(|known| &**known != to);
        }
    }

    /// Forgets an address and, if it is bare, its resources; answers which had directed presence.
    pub(crate) fn forget_directed_below(&mut self, to: &Jid<'_>) -> Vec<Box<str>> {
        let is_below = |known: &mut Box<str>| {
            let known = Jid::from_prepared(known);
            known.as_str() == to.as_str() || to.is_bare() && known.bare() == to.as_str()
        };
        let directed = self.directed.as_deref_mut();
        directed.map_or_else(Vec::new, |list| list.extract_if(.., is_below).collect())
    }
}

/// All sessions of a shard.
#[derive(Debug, Default)]
pub struct Sessions {
    slots: Vec<Option<Session>>,
    free: Vec<u32>,
    last_serial: u32,
    /// Those whose queues outgrew their limits in this turn; some may have ended.
    pub(crate) overflowed: Vec<SessionKey>,
    /// How many contacts the broadcasts of the connection in hand were for in this turn.
    pub(crate) addressed: usize,
    /// Those whose clients wait for a number that storage refused; some may have ended.
    pub(crate) owing: BTreeSet<SessionKey>,
    /// Managed ones whose input waits, or did in the last second; some may have ended.
    pub(crate) held_back: BTreeSet<SessionKey>,
    pub(crate) asking: Asking,
    /// The user agents that they are of, where their clients say which they are.
    pub(crate) agents: HashMap<SessionKey, AgentId>,
    /// What is held for those whose clients are inactive.
    pub(crate) held: HashMap<SessionKey, Held>,
    /// What their clients are interested in.
    pub(crate) interests: Interests,
    /// What waits for storage on its way to those without stream management.
    pub(crate) gates: HashMap<SessionKey, Gate>,
    /// Whether there are archives.
    archives: bool,
}

impl Sessions {
    /// None yet; what their clients send may go into archives, or there are none.
    pub(crate) fn new(archives: bool) -> Sessions {
        Sessions {
            archives,
            ..Sessions::default()
        }
    }

    /// Has room for so many.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.slots.reserve_exact(count);
    }

    /// Adds a session.
    pub fn insert(&mut self, mut session: Session) -> SessionKey {
        self.last_serial = self.last_serial.wrapping_add(1);
        session.serial = self.last_serial;
        session.modes.set(Modes::IS_ARCHIVED, self.archives);
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = Some(session);
            return SessionKey(index);
        }
        self.slots.push(Some(session));
        SessionKey(self.slots.len() as u32 - 1)
    }

    /// A session's client is this user agent, or does not say which it is.
    pub(crate) fn note_agent(&mut self, key: SessionKey, agent: Option<AgentId>) {
        match agent {
            Some(agent) => drop(self.agents.insert(key, agent)),
            None => drop(self.agents.remove(&key)),
        }
    }

    /// Takes a session out.
    pub fn remove(&mut self, key: SessionKey) -> Option<Session> {
        let session = self.slots.get_mut(key.0 as usize)?.take()?;
        if session.modes.has(Modes::IS_INACTIVE) {
            self.held.remove(&key);
        }
        self.agents.remove(&key);
        if session.modes.has(Modes::HAS_CAPS) {
            self.interests.forget(key);
        }
        if session.modes.has(Modes::IS_GATED) {
            self.gates.remove(&key);
        }
        self.free.push(key.0);
        Some(session)
    }

    /// Whether the turn of the connection in hand is to end, however little its client has said.
    #[inline]
    pub(crate) fn have_done_much(&self) -> bool {
        !self.overflowed.is_empty() || self.addressed >= TARGETS_PER_TURN_MAX
    }

    /// Sends a session's client a stanza that is written for its address. Where more waits for
    /// acknowledgement than may, the turn's end ends the session. Whether it was sent: it may be
    /// held, see [`crate::xep::client_state`].
    #[inline]
    pub(crate) fn write_to(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        keep: Keep,
        write: impl FnOnce(&Address, &mut Vec<u8>),
    ) -> bool {
        let modes = self.at(key).modes;
        if modes.has(Modes::IS_HELD_UP) {
            if modes.has(Modes::IS_INACTIVE) {
                return self.write_to_inactive(host, key, keep, write);
            }
            self.write_now(host, key, keep, write);
            return true;
        }
        self.write_out(host, key, keep, write);
        true
    }

    /// The same whatever state its client is in: behind what waits for storage.
    pub(crate) fn write_now(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        keep: Keep,
        write: impl FnOnce(&Address, &mut Vec<u8>),
    ) {
        if !self.is_gated(key) {
            return self.write_out(host, key, keep, write);
        }
        let mut stanza = Vec::new();
        write(&self.at(key).address, &mut stanza);
        self.push_gated(key, stanza);
    }

    #[inline]
    fn write_out(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        keep: Keep,
        write: impl FnOnce(&Address, &mut Vec<u8>),
    ) {
        let Session {
            outlet, address, ..
        } = self.at_mut(key);
        if outlet.send(host, keep, |out| write(address, out)) {
            self.overflowed.push(key);
        }
    }

    /// Whether a session is to know who sends it directed presence: it may survive a crash that
    /// takes those.
    pub(crate) fn notes_strangers(&self, key: SessionKey) -> bool {
        let acks = self.at(key).outlet.acks.as_ref();
        acks.is_some_and(|acks| acks.saved && acks.resumable)
    }

    /// The session, which exists as long as its stream or account names it.
    pub fn at(&self, key: SessionKey) -> &Session {
        self.slots[key.0 as usize]
            .as_ref()
            .expect("a named session is in its slot")
    }

    /// The session, where it may have ended.
    pub fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.slots.get_mut(key.0 as usize)?.as_mut()
    }

    /// The session, if the slot has one.
    pub fn get(&self, key: SessionKey) -> Option<&Session> {
        self.slots.get(key.0 as usize)?.as_ref()
    }

    /// As [`Sessions::at`], to change.
    pub fn at_mut(&mut self, key: SessionKey) -> &mut Session {
        self.slots[key.0 as usize]
            .as_mut()
            .expect("a named session is in its slot")
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().flatten()
    }

    /// How many places there are, taken or not: keys are below this.
    pub(crate) fn places(&self) -> usize {
        self.slots.len()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

const _: () = assert!(size_of::<Session>() <= 88, "100,000 idle sessions are 7 MB");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_addresses_are_remembered_and_so_many_bytes_of_them() {
        let limits = Limits {
            directed_max: 3,
            ..Limits::default()
        };
        let remembered = |names: &[&str]| {
            let mut session = Session::detached(AccountKey(0), "a@b", "c");
            let known = names
                .iter()
                .map(|name| session.remember_directed(name, &limits));
            known.collect::<Vec<bool>>()
        };
        let (short, long) = ("d@e", "f".repeat(150) + "@g");
        assert_eq!(
            remembered(&["1", "2", "3", "4", "1"]),
            [true, true, true, false, true]
        );
        assert_eq!(
            remembered(&[&long, short, &("x".to_owned() + &long)]),
            [true, true, false]
        );
    }
}
