//! One bound resource: what the server knows of a connected client.

use crate::account::AccountKey;
use crate::host::ConnId;
use crate::limit::Limits;

/// A session's place in [`Sessions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey(pub u32);

/// One bound resource.
#[derive(Debug)]
pub struct Session {
    /// Its account.
    pub account: AccountKey,
    /// Its connection: the session's outlet.
    pub conn: ConnId,
    full: Box<str>,
    bare_size: u16,
    /// Requests to storage that its stanzas made and that are not answered. From
    /// [`STORE_REQUESTS_PER_SESSION_MAX`](crate::limit::STORE_REQUESTS_PER_SESSION_MAX) on its
    /// connection is paused.
    pub unanswered: u16,
    /// The priority of the last presence; meaningless while unavailable.
    pub priority: i8,
    /// Sent presence and no unavailable one since.
    pub available: bool,
    /// Asked for the roster, so it gets pushes (RFC 6121 2.1.6).
    pub interested: bool,
    /// The last available presence, as a stanza with an empty `to`.
    pub presence: Option<Box<Presence>>,
    /// Who got directed presence and does not get broadcasts (RFC 6121 4.6).
    pub directed: Option<Box<Vec<Box<str>>>>,
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
        Session {
            account,
            conn,
            full: format!("{bare}/{resource}").into(),
            bare_size: u16::try_from(bare.len()).expect("a bare JID has at most 2,047 bytes"),
            unanswered: 0,
            priority: 0,
            available: false,
            interested: false,
            presence: None,
            directed: None,
        }
    }

    /// The full JID.
    pub fn full(&self) -> &str {
        &self.full
    }

    /// The account's bare JID.
    pub fn bare(&self) -> &str {
        &self.full[..usize::from(self.bare_size)]
    }

    /// The resource.
    pub fn resource(&self) -> &str {
        &self.full[usize::from(self.bare_size) + 1..]
    }

    /// Whether messages to the bare JID reach it (RFC 6121 8.5.2.1.1).
    pub fn takes_bare(&self) -> bool {
        self.available && self.priority >= 0
    }

    /// Remembers that `to` knows this session is available; `false` where the limit is reached.
    pub fn remember_directed(&mut self, to: &str, limits: &Limits) -> bool {
        let directed = self.directed.get_or_insert_default();
        if directed.iter().any(|known| &**known == to) {
            return true;
        }
        if directed.len() >= limits.directed_max {
            return false;
        }
        directed.push(to.into());
        true
    }

    /// Forgets a target of directed presence.
    pub fn forget_directed(&mut self, to: &str) {
        if let Some(directed) = &mut self.directed {
            directed.retain(|known| &**known != to);
        }
    }
}

/// All sessions of a shard.
#[derive(Debug, Default)]
pub struct Sessions {
    slots: Vec<Option<Session>>,
    free: Vec<u32>,
}

impl Sessions {
    /// Adds a session.
    pub fn insert(&mut self, session: Session) -> SessionKey {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = Some(session);
            return SessionKey(index);
        }
        self.slots.push(Some(session));
        SessionKey(self.slots.len() as u32 - 1)
    }

    /// Takes a session out.
    pub fn remove(&mut self, key: SessionKey) -> Option<Session> {
        let session = self.slots.get_mut(key.0 as usize)?.take()?;
        self.free.push(key.0);
        Some(session)
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

    /// As [`Sessions::at`], to change.
    pub fn at_mut(&mut self, key: SessionKey) -> &mut Session {
        self.slots[key.0 as usize]
            .as_mut()
            .expect("a named session is in its slot")
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

const _: () = assert!(size_of::<Session>() <= 72, "100,000 idle sessions are 7 MB");
