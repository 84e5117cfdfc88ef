//! What the server asks of storage about archives of messages (XEP-0313).

use super::StoreOp;
use crate::host::Timestamp;
use stanza::jid::{BareJid, Jid, bare_of, home_hash};
use std::fmt;

/// A message's id in an archive: when it came there in microseconds, then 64 random bits, so that
/// ids are in the order of the archive and nobody guesses one (XEP-0313 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArchiveId(pub u128);

/// Characters of an id as clients see it.
pub const ARCHIVE_ID_SIZE: usize = 32;

impl ArchiveId {
    /// None is greater.
    pub const MAX: ArchiveId = ArchiveId(u128::MAX);

    /// The id of what came at a time.
    pub fn new(at: Timestamp, random: u64) -> ArchiveId {
        ArchiveId(u128::from(at.0) << 64 | u128::from(random))
    }

    /// The first that something of this time may have.
    pub fn first_at(at: Timestamp) -> ArchiveId {
        ArchiveId::new(at, 0)
    }

    /// The last one.
    pub fn last_at(at: Timestamp) -> ArchiveId {
        ArchiveId::new(at, u64::MAX)
    }

    /// When it came.
    pub fn time(self) -> Timestamp {
        Timestamp((self.0 >> 64) as u64)
    }

    /// The id that a client names; `None` where no archive has such a one.
    pub fn parse(text: &str) -> Option<ArchiveId> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_id = text.len() == ARCHIVE_ID_SIZE && text.bytes().all(is_digit);
        let number = u128::from_str_radix(text, 16).ok();
        number.filter(|_| is_id).map(ArchiveId)
    }
}

/// As clients see it: digits of one length.
impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A message on its way into an account's archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// Whose archive.
    pub account: BareJid,
    /// Its id there. The other account that has the message may know it by the same id: storage
    /// keeps one body of both.
    pub id: ArchiveId,
    /// Whether the account sent it; what it sent to itself, it did.
    pub is_sent: bool,
    /// The other one's address: whom it is to, or from.
    pub peer: Box<str>,
    /// The complete stanza, without an id.
    pub message: Box<[u8]>,
    /// What it is found by where its sender gave it an id: see [`known_as`].
    pub known_as: Option<u64>,
    /// What it says of an earlier message of its sender.
    pub retracts: Option<Box<Retraction>>,
}

impl ArchiveEntry {
    /// The bare JID of the other one.
    pub fn peer_bare(&self) -> &str {
        bare_of(&self.peer)
    }

    /// Whether an earlier message of the archive, which went this way and to or from this address,
    /// has the sender of this one. Who is at another domain may share a bare JID with others
    /// (XEP-0424 5).
    pub fn has_sender_of(&self, is_sent: bool, peer: &str) -> bool {
        let is_here = Jid::from_prepared(peer).domain() == self.account.domain();
        self.is_sent == is_sent
            && self.peer_bare() == bare_of(peer)
            && (is_sent || is_here || peer == &*self.peer)
    }
}

/// A retraction (XEP-0424): the message that it is about is replaced by what says so, in the commit
/// that archives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retraction {
    /// What that message is found by.
    pub known_as: u64,
    /// The id that its sender gave it.
    pub id: Box<str>,
    /// The id of the retraction itself.
    pub by: Box<str>,
}

/// What a message is found by in storage: which bare JID sent it to which, and the id that it gave
/// it. Others may have the same; whoever finds one looks at it.
pub fn known_as(sender: &str, receiver: &str, id: &str) -> u64 {
    home_hash(sender).rotate_left(21) ^ home_hash(receiver).rotate_left(42) ^ home_hash(id)
}

/// Which messages of an archive are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveQuery {
    /// Ids that must be there, or the answer is `Missing`.
    pub known: Vec<ArchiveId>,
    /// None before this one.
    pub first: ArchiveId,
    /// None behind this one.
    pub last: ArchiveId,
    /// Only what is to or from this JID: of all its resources where it is bare.
    pub with: Option<Box<str>>,
    /// Only these, all of which must be there, too.
    pub ids: Option<Vec<ArchiveId>>,
    /// The page at the end rather than at the beginning of them.
    pub is_backward: bool,
    /// So many messages; none asks how many there are.
    pub count: usize,
}

impl ArchiveQuery {
    /// The first so many of all.
    pub fn all(count: usize) -> ArchiveQuery {
        ArchiveQuery {
            known: Vec::new(),
            first: ArchiveId(0),
            last: ArchiveId::MAX,
            with: None,
            ids: None,
            is_backward: false,
            count,
        }
    }
}

/// Messages of one page, and bytes of them: the one that reaches it is the last. A page goes to its
/// client in one turn.
pub const ARCHIVE_PAGE_SIZE_MAX: usize = 256 << 10;

/// Records that one query looks at. Only one for a full JID, or for many ids, looks at more than it
/// finds: a page ends where it has found something by then.
pub const ARCHIVE_SCAN_MAX: usize = 20_000;

/// What was asked for of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchivePage {
    /// The messages, oldest first.
    pub messages: Vec<(ArchiveId, Box<[u8]>)>,
    /// Whether no more of them are in the direction that was asked for.
    pub is_complete: bool,
    /// How many there are, where that was asked for and is known.
    pub count: Option<usize>,
}

/// The oldest and the newest message of an archive; `None` where there is none.
pub type ArchiveEnds = Option<(ArchiveId, ArchiveId)>;

/// What of archives has stayed too long, or is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What came before this id is to go.
    pub first: ArchiveId,
    /// Messages that an archive may have; the oldest go first. None is no limit.
    pub count_max: u32,
}

/// How far a search for what is to go has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepPlace {
    /// The account in whose archive it is, or behind whose; none at the beginning.
    pub account: Option<BareJid>,
    /// Its message that was counted last, where some are still to be.
    pub counted_to: Option<ArchiveId>,
    /// How many were.
    pub counted: u32,
}

/// What such a search has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// An archive, and up to which id it is to be purged.
    pub excess: Option<(BareJid, ArchiveId)>,
    /// Where to go on; none where it was all.
    pub next: Option<SweepPlace>,
    /// Whether an archive could not be read: it was passed over.
    pub has_failed: bool,
}

/// Records of archives that one step of such a search looks at.
pub const SWEEP_SCAN_MAX: usize = 2_000;

impl StoreOp {
    /// The operation itself, without what is archived along with it.
    pub fn main(&self) -> &StoreOp {
        match self {
            StoreOp::Archive { and, .. } => and.main(),
            op => op,
        }
    }

    /// Whether it reads an archive: nothing waits for the order of such answers, so it need not
    /// hold up commits.
    pub fn reads_archive(&self) -> bool {
        matches!(
            self,
            StoreOp::ArchivePage { .. }
                | StoreOp::ArchiveEnds { .. }
                | StoreOp::SweepArchives { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_in_no_other_way() {
        let id = ArchiveId::new(Timestamp(1_700_000_000_000_000), 0xab);
        let text = id.to_string();
        assert_eq!(text.len(), ARCHIVE_ID_SIZE);
        assert_eq!(ArchiveId::parse(&text), Some(id));
        assert_eq!(id.time(), Timestamp(1_700_000_000_000_000));
        let upper = text.to_uppercase();
        let signed = format!("+{}", &text[1..]);
        for other in ["", "0", &text[1..], &format!("0{text}"), &upper, &signed] {
            assert_eq!(ArchiveId::parse(other), None, "{other}");
        }
    }
}
