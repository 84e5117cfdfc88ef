//! Managed sessions as storage has them, what is in their queues, and the marks of what was said.

use super::{BareJid, Timestamp, fmt};

/// A complete stanza and when it came; 0 where that is not known.
pub type Arrived = (Timestamp, Box<[u8]>);

/// A managed session (XEP-0198) for as long as it can be resumed, over restarts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// The virtual shard of its account.
    pub home: u16,
    /// What nobody can guess.
    pub secret: u128,
}

/// As its client knows it: where it is at home, and the secret.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03x}{:032x}", self.home, self.secret)
    }
}

/// A stanza of a managed session's client: by it a stanza that is sent again is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whose client sent it.
    pub session: SessionId,
    /// The how manieth of the session it is, from 1, never wrapped.
    pub number: u64,
    /// Of all that it says; 0 where nothing would tell it from another that says the same.
    pub hash: u64,
    /// Whether a later one took effect on its receiver before a crash, and this one did not: the
    /// mark goes on to name the later one.
    pub is_late: bool,
}

/// A stanza on its way into the queues of an account's sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueue {
    /// Whose.
    pub account: BareJid,
    /// Where.
    pub copies: Vec<QueuePlace>,
    /// The complete stanza.
    pub stanza: Box<[u8]>,
    /// Where it is, too, in a stanza for that session alone, which holds it (XEP-0280).
    pub carbons: Vec<(QueuePlace, Box<[u8]>)>,
    /// Where several sessions are given it.
    pub shared: Option<SharedStanza>,
    /// When it came.
    pub arrived: Timestamp,
    /// The managed stanza that it came by.
    pub origin: Option<Origin>,
}

/// Where a stanza waits for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueuePlace {
    /// In whose queue.
    pub session: SessionId,
    /// Ascending and without gaps, from 1; it stays for as long as the stanza waits.
    pub place: u64,
    /// What the client counts it as (XEP-0198 4: `h`); none where the session has survived a crash
    /// and its client has not said yet how far it got. It lacks such a stanza.
    pub number: Option<u32>,
}

/// What a session needs besides its queue to be taken up again.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SavedSession {
    /// Its resource.
    pub resource: Box<str>,
    /// Of its last presence.
    pub priority: i8,
    /// Whether it sent initial presence.
    pub available: bool,
    /// Whether it ever was.
    pub was_seen: bool,
    /// Whether it asked for the roster.
    pub interested: bool,
    /// Whether it asked for the block list.
    pub blocking: bool,
    /// Whether it asked for copies of the account's messages (XEP-0280).
    pub gets_copies: bool,
    /// Its last presence as it is sent to others, and after how many bytes of it `to` stands.
    pub presence: Option<(Box<[u8]>, u32)>,
    /// Those to whom it sent directed presence.
    pub directed: Vec<Box<str>>,
    /// Full JIDs whose directed presence it has, and whose broadcasts it does not get.
    pub strangers: Vec<Box<str>>,
}

impl SavedSession {
    /// Bytes of what may be long of it.
    pub(crate) fn size(&self) -> u64 {
        let presence = self.presence.as_ref().map_or(0, |(bytes, _)| bytes.len());
        let addresses = self.directed.iter().chain(&self.strangers);
        let addresses: usize = addresses.map(|jid| jid.len()).sum();
        (presence + addresses) as u64
    }
}

/// A stanza that waits for its acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedStanza {
    /// See [`QueuePlace::place`].
    pub place: u64,
    /// See [`QueuePlace::number`].
    pub number: Option<u32>,
    /// When it came; 0 where that is not known.
    pub arrived: Timestamp,
    /// Whether it waited for the account before; it says itself since when.
    pub has_waited: bool,
    /// The complete stanza.
    pub stanza: Box<[u8]>,
    /// Where several sessions were given it.
    pub shared: Option<SharedStanza>,
}

/// A stanza that several sessions of an account were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SharedStanza {
    /// By what it is known in each queue.
    pub group: u64,
    /// How many were given it, without those that have ended with it in their queues by the time
    /// that a session is read: where fewer queues have it than this says, a client took it.
    pub members: u32,
    /// How many queues have it now; storage fills this in where a session is read.
    pub holders: u32,
}

impl SharedStanza {
    /// So many sessions have ended with it in their queues.
    pub fn leave(&mut self, count: u64) {
        self.members = self
            .members
            .saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Whether a client has it.
    pub fn is_taken(self) -> bool {
        self.holders < self.members
    }
}

/// A session as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// What it is.
    pub saved: SavedSession,
    /// How many stanzas of its client are settled.
    pub handled: u64,
    /// What waits for its acknowledgement, by ascending place.
    pub queue: Vec<QueuedStanza>,
    /// Which of its stanzas took effect.
    pub marks: Vec<Mark>,
}

/// Which stanzas of a session took effect on one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whose account.
    pub receiver: BareJid,
    /// The number of the last one that did.
    pub last: u64,
    /// Its [`Origin::hash`]; 0 also where that is not known.
    pub hash: u64,
    /// Of those up to this number it is not known any more: more failed than is remembered.
    pub doubted: u64,
    /// Those between the two that did not, because their writes failed.
    pub failed: Vec<u64>,
}
