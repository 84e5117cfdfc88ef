//! The store port: what the server asks of storage, in the server's own words.
//!
//! Invariant: routing never reads the store. Shards hand a [`StoreOp`] to [`crate::Host::store`]
//! and get the [`StoreReply`] back as an event; only the storage thread touches a [`Store`].

mod agents;
mod nodes;
mod sessions;

pub use agents::{
    AgentId, Token, TokenBinding, USER_AGENT_TEXT_SIZE_MAX, USER_AGENTS_MAX, UserAgent,
};
pub use nodes::{
    AVATAR_DATA, AVATAR_METADATA, AccessModel, Affiliation, Node, NodeChange, NodeConfig, NodeItem,
    NumberedItems, PhotoHash, PublishModel, SendLast, WholeNode, is_everybodys, shown_photo,
};

use crate::host::Timestamp;
use stanza::jid::BareJid;
use std::fmt;

mod archive;

pub use archive::*;
pub use sessions::*;

/// One request to storage. Operations of one shard are performed in the order they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// Count the accounts, or name some. Answered by [`StoreReply::Accounts`].
    Accounts {
        /// How many to name; 0 to count all.
        names_max: usize,
    },
    /// Read an account's SCRAM keys. Answered by [`StoreReply::Credentials`].
    Credentials {
        /// Whose.
        account: BareJid,
    },
    /// Create an account. Answered by `Done`, or `Exists` (nothing is changed then).
    CreateAccount {
        /// The new account, already checked by the provisioning rule.
        account: BareJid,
        /// Its keys.
        credentials: Box<Credentials>,
    },
    /// Create an account with all it owns, in one piece. Answered by `Done`, `Exists`, or `Full`
    /// where it has more than [`DOCUMENTS_MAX`] of a kind (nothing is changed then); a document's
    /// name of more than [`DOCUMENT_NAME_SIZE_MAX`] is `Failed`.
    CreateWhole {
        /// The new account, as for `CreateAccount`; what may wait for it its maker has limited.
        whole: Box<WholeAccount>,
    },
    /// Replace an account's keys, and forget its user agents with their tokens; where none stays
    /// also where devices are woken ([`Space::Push`]). Answered by `Done`, or `Missing`.
    SetCredentials {
        /// Whose.
        account: BareJid,
        /// The new keys.
        credentials: Box<Credentials>,
        /// The user agent that stays, where it was that which made them.
        keeps: Option<AgentId>,
    },
    /// Replace an account's keys by those of the same password, where storage has the ones that
    /// were read. Its user agents and their tokens stay. Answered by `Done`, `Missing`, or
    /// `Outdated`.
    UpgradeCredentials {
        /// Whose.
        account: BareJid,
        /// The keys that were read.
        prior: Box<Credentials>,
        /// The keys from now on.
        credentials: Box<Credentials>,
    },
    /// Read a user agent of an account. Answered by [`StoreReply::UserAgent`].
    UserAgent {
        /// Whose.
        account: BareJid,
        /// Which.
        id: AgentId,
    },
    /// Read all of an account. Answered by [`StoreReply::UserAgents`].
    UserAgents {
        /// Whose.
        account: BareJid,
    },
    /// Write a user agent, where the record that storage has is the one that was read. Of more than
    /// [`USER_AGENTS_MAX`] the one that was seen longest ago goes. Answered by `Done`, `Missing`,
    /// or `Outdated`.
    PutUserAgent {
        /// Whose.
        account: BareJid,
        /// The user agent as it is from now on, with a stamp that no record had.
        agent: Box<UserAgent>,
        /// The stamp of the record that was read; `None` where there was none.
        prior: Option<u64>,
        /// Where it is a new one, those that were seen last before this are forgotten.
        forget_before: Timestamp,
    },
    /// Forget a user agent of an account, or all, with their tokens; with all also where devices
    /// are woken ([`Space::Push`]). Answered by `Done`, also where there is none, or `Missing`
    /// where there is no such account.
    RemoveUserAgents {
        /// Whose.
        account: BareJid,
        /// Which, if not all.
        which: Option<AgentId>,
    },
    /// Delete an account with everything it owns. Answered by `Done`, or `Missing`.
    DeleteAccount {
        /// Whose.
        account: BareJid,
    },
    /// Read all that an account needs in memory while it is resident. Answered by
    /// [`StoreReply::Account`]: `None` where there is no such account.
    Account {
        /// Whose.
        account: BareJid,
    },
    /// Insert or replace one roster item, keyed by its contact. Answered by `Done` or `Missing`.
    PutRosterItem {
        /// Whose roster.
        account: BareJid,
        /// The whole item as it is from now on.
        item: Box<RosterItem>,
    },
    /// Remove one roster item; removing an absent one is no error. Answered by `Done`.
    RemoveRosterItem {
        /// Whose roster.
        account: BareJid,
        /// Which contact.
        contact: BareJid,
    },
    /// Replace the block list. Answered by `Done` or `Missing`.
    SetBlocked {
        /// Whose.
        account: BareJid,
        /// Prepared JIDs.
        blocked: Vec<Box<str>>,
    },
    /// Read one document of an account. Answered by [`StoreReply::Document`]; a key of more than
    /// [`DOCUMENT_NAME_SIZE_MAX`] is `Failed`.
    Document {
        /// Whose.
        account: BareJid,
        /// Which kind.
        space: Space,
        /// Which of its kind.
        key: Box<str>,
    },
    /// Write one document; an empty one is removed. Answered by `Done`, `Missing`, or `Full` where
    /// the account would have more than [`DOCUMENTS_MAX`] of the kind; a key of more than
    /// [`DOCUMENT_NAME_SIZE_MAX`] is `Failed`.
    PutDocument {
        /// Whose.
        account: BareJid,
        /// Which kind.
        space: Space,
        /// Which of its kind.
        key: Box<str>,
        /// What it says.
        bytes: Box<[u8]>,
    },
    /// Read all nodes of an account (XEP-0060), ordered by name, or one. Answered by
    /// [`StoreReply::Nodes`], which has none where there is no such account or node.
    Nodes {
        /// Whose.
        account: BareJid,
        /// Its name, where only one is asked for; one of more than [`DOCUMENT_NAME_SIZE_MAX`] is
        /// `Failed`.
        only: Option<Box<str>>,
    },
    /// Read what items of a node say. Answered by [`StoreReply::Items`], without those that are not
    /// there; a name of more than [`DOCUMENT_NAME_SIZE_MAX`] is `Failed`.
    Items {
        /// Whose.
        account: BareJid,
        /// Of which node.
        node: Box<str>,
        /// Their numbers.
        numbers: Vec<u64>,
    },
    /// Change nodes. Nothing is compared with what was there: who asks has read it. Answered by
    /// `Done`, `Missing`, or `Full` for the document; a name of more than
    /// [`DOCUMENT_NAME_SIZE_MAX`] is `Failed`.
    ChangeNodes {
        /// Whose.
        account: BareJid,
        /// What becomes of which.
        changes: Vec<NodeChange>,
        /// A document that says the same as one of them, and is written as by
        /// [`StoreOp::PutDocument`] in the same commit: where it finds no room, nothing is changed.
        document: Option<Document>,
    },
    /// Put a message among what waits for an account. Answered by `Done`, `Missing`, or `Full`
    /// where the quota has no room for it.
    PutOffline {
        /// Whose.
        account: BareJid,
        /// When it came: what waits is in that order, whenever it was put there.
        arrived: Timestamp,
        /// The complete stanza.
        stanza: Box<[u8]>,
        /// What may wait for the account.
        quota: OfflineQuota,
        /// The managed stanza that it came by.
        origin: Option<Origin>,
    },
    /// Read what waits for an account, oldest first. Answered by [`StoreReply::Offline`].
    Offline {
        /// Whose.
        account: BareJid,
    },
    /// Remove what waits, up to and including a number. Answered by `Done`.
    RemoveOffline {
        /// Whose.
        account: BareJid,
        /// The last number to go.
        up_to: u64,
    },
    /// Insert or replace what a managed session is; its queue, its count and its marks stay as they
    /// are. Answered by `Done` or `Missing`.
    PutSession {
        /// Whose.
        account: BareJid,
        /// Which.
        session: SessionId,
        /// What is to be known of it.
        saved: Box<SavedSession>,
    },
    /// Set how many stanzas of a session's client are settled. Nothing is read for it. Answered by
    /// `Done`.
    PutHandled {
        /// Whose.
        account: BareJid,
        /// Which.
        session: SessionId,
        /// Counted from the session's beginning, never wrapped.
        handled: u64,
    },
    /// Append a stanza to the queues of an account's sessions and mark its origin, in one commit.
    /// Nothing is read for it. Answered by `Done`.
    Enqueue(Enqueue),
    /// Remove a range of places from a session's queue. Nothing is read for it. Answered by `Done`.
    Dequeue {
        /// Whose.
        account: BareJid,
        /// Which.
        session: SessionId,
        /// The first place to go.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// Give the stanzas of a session's queue new numbers, and remove those that get none. Answered
    /// by `Done`.
    Renumber {
        /// Whose.
        account: BareJid,
        /// Which.
        session: SessionId,
        /// Places with their numbers; those where nothing lies are passed over.
        numbers: Vec<(u64, u32)>,
        /// The last place that the session knows of: what lies behind it stays as it is.
        up_to: u64,
    },
    /// Read a session with all that belongs to it. Answered by [`StoreReply::Session`], or
    /// [`StoreReply::Damaged`].
    Session {
        /// Whose.
        account: BareJid,
        /// Which.
        session: SessionId,
    },
    /// Remove a session with its queue, its count and its marks, and put what it leaves among what
    /// waits for its account, in one commit. Answered by `Done`, also where there is none and
    /// nothing is done, or by [`StoreReply::Room`] where not all would fit.
    EndSession {
        /// Whose.
        account: BareJid,
        /// Which.
        session: SessionId,
        /// What its client had not acknowledged and goes nowhere else.
        waiting: Vec<Arrived>,
        /// What may wait for the account.
        quota: OfflineQuota,
    },
    /// Remember that a stanza had no effect on an account, without a write: the marks of later ones
    /// name it. Answered by `Done`.
    NoteFailed {
        /// Whose.
        account: BareJid,
        /// Which stanza.
        origin: Origin,
    },
    /// Name every session. Answered by [`StoreReply::Sessions`].
    Sessions,
    /// Move what waits for an account into a session's queue, oldest first, from a place and number
    /// on. Answered by [`StoreReply::Offline`] with the places.
    ClaimOffline {
        /// Whose.
        account: BareJid,
        /// Which.
        session: SessionId,
        /// The first place.
        place: u64,
        /// Its number, as [`QueuePlace::number`].
        number: Option<u32>,
    },
    /// Put a message into an account's archive, in the same commit as what else becomes of it.
    /// Answered as that is; where that is refused nothing is archived. Nothing is read for it.
    Archive {
        /// What goes into the archive.
        entry: Box<ArchiveEntry>,
        /// What else is done.
        and: Box<StoreOp>,
    },
    /// Read a page of an archive. Answered by [`StoreReply::ArchivePage`], or `Missing` where an
    /// id is not there that must be.
    ArchivePage {
        /// Whose.
        account: BareJid,
        /// Which messages.
        query: Box<ArchiveQuery>,
    },
    /// Read where an archive begins and ends. Answered by [`StoreReply::ArchiveEnds`].
    ArchiveEnds {
        /// Whose.
        account: BareJid,
    },
    /// Search archives for what is to go, one step. Answered by [`StoreReply::Swept`].
    SweepArchives {
        /// Where to begin.
        place: SweepPlace,
        /// What is to stay.
        retention: Retention,
    },
    /// Remove the messages of an archive up to an id. They are gone for whoever asks as soon as it
    /// is answered, and from the disk a little later. Answered by `Done`.
    PurgeArchive {
        /// Whose.
        account: BareJid,
        /// The last id to go.
        up_to: ArchiveId,
    },
}

/// What may wait for one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfflineQuota {
    /// Messages.
    pub count: u32,
    /// Bytes of them together.
    pub size: u64,
}

impl OfflineQuota {
    /// Whatever comes: for what is held against a quota before it is asked for.
    pub const UNLIMITED: OfflineQuota = OfflineQuota {
        count: u32::MAX,
        size: u64::MAX,
    };

    /// What is left of it where so many messages of so many bytes wait elsewhere.
    pub fn without(self, (count, size): (usize, usize)) -> OfflineQuota {
        OfflineQuota {
            count: self.count.saturating_sub(count as u32),
            size: self.size.saturating_sub(size as u64),
        }
    }

    /// Whether so many messages of so many bytes may wait.
    pub fn admits(self, count: u32, size: u64) -> bool {
        count <= self.count && size <= self.size
    }
}

/// Documents of one kind that an account may have.
pub const DOCUMENTS_MAX: usize = 200;

/// Bytes of a document's name within its kind. Engines have a limit for keys, and fail hard at it.
pub const DOCUMENT_NAME_SIZE_MAX: usize = 1023;

/// A kind of documents; the numbers are in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Space {
    /// Private XML (XEP-0049); the key is name and namespace.
    Private = 1,
    /// The vCard (XEP-0054); one, with an empty key.
    Vcard = 2,
    /// When the account was last available (XEP-0012), in decimal microseconds, and its last
    /// status.
    Activity = 3,
    /// Which messages are archived (XEP-0441), as [`crate::xep::preferences`] writes it; one, with
    /// an empty key.
    Archiving = 4,
    /// Where devices are woken (XEP-0357), as [`crate::xep::push`] writes it; one, with an empty
    /// key.
    Push = 5,
}

impl Space {
    /// All of them.
    pub const ALL: [Space; 5] = [
        Space::Private,
        Space::Vcard,
        Space::Activity,
        Space::Archiving,
        Space::Push,
    ];
}

impl StoreOp {
    /// Whether answering it may take so long that nobody is to wait for it meanwhile.
    pub fn reads_much(&self) -> bool {
        self.reads_archive() || matches!(self, StoreOp::Accounts { .. })
    }

    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            StoreOp::Credentials { .. }
                | StoreOp::Accounts { .. }
                | StoreOp::Account { .. }
                | StoreOp::Document { .. }
                | StoreOp::Nodes { .. }
                | StoreOp::Items { .. }
                | StoreOp::Offline { .. }
                | StoreOp::Session { .. }
                | StoreOp::Sessions
                | StoreOp::UserAgent { .. }
                | StoreOp::UserAgents { .. }
        ) || self.reads_archive()
    }
}

/// The answer to one [`StoreOp`]; writes are durable when it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreReply {
    /// The keys, or `None` where there is no such account.
    Credentials(Option<Box<Credentials>>),
    /// How many accounts there are, or so many of them in the engine's order.
    Accounts {
        /// All of them; where they are named, those that are.
        count: u64,
        /// The first.
        names: Vec<BareJid>,
    },
    /// The account's data, or `None` where there is no such account.
    Account(Option<Box<AccountData>>),
    /// The write is durable.
    Done,
    /// The account to be created exists already; nothing was changed.
    Exists,
    /// The document, or `None` where there is none, nor such an account.
    Document(Option<Box<[u8]>>),
    /// The nodes of the account.
    Nodes(Vec<Node>),
    /// What items say, in the order in which they were asked for.
    Items(NumberedItems),
    /// The session, or `None` where there is none.
    Session(Option<Box<StoredSession>>),
    /// Every session with its account.
    Sessions(Vec<(BareJid, SessionId)>),
    /// What waits for the account, in the order in which it came, each with its number.
    Offline(Vec<(u64, Arrived)>),
    /// What was asked for of an archive.
    ArchivePage(Box<ArchivePage>),
    /// The oldest and the newest message of an archive.
    ArchiveEnds(ArchiveEnds),
    /// What is to go of archives.
    Swept(Box<Swept>),
    /// A quota is used up; nothing was changed.
    Full,
    /// Only so many would have fitted a quota; nothing was changed.
    Room(u32),
    /// The user agent, or `None` where there is none, nor such an account.
    UserAgent(Option<Box<UserAgent>>),
    /// The account's user agents, in no particular order.
    UserAgents(Vec<UserAgent>),
    /// The record is not the one that was read any more; nothing was changed.
    Outdated,
    /// There is no such account; nothing was changed.
    Missing,
    /// The session is there and its records are damaged: every later try meets the same. The text
    /// is for the log.
    Damaged(Box<str>),
    /// Storage failed; nothing is known to have been written. The text is for the log.
    Failed(Box<str>),
}

/// What stays in memory while an account is resident.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountData {
    /// The roster, in no particular order.
    pub roster: Vec<RosterItem>,
    /// The block list (XEP-0191): prepared JIDs of any form.
    pub blocked: Vec<Box<str>>,
    /// When the newest of the messages that wait for it came, or later; `None` where none waits.
    pub newest_waiting: Option<Timestamp>,
    /// The id of the newest message of its archive, or a later one; none where there is none.
    pub newest_archived: Option<ArchiveId>,
    /// Which messages it wants archived, see [`Space::Archiving`].
    pub archiving: Option<Box<[u8]>>,
    /// Where its devices are woken, see [`Space::Push`].
    pub push: Option<Box<[u8]>>,
    /// The picture that it shows to everybody, see [`shown_photo`].
    pub photo: Option<PhotoHash>,
}

/// A document's kind, its name within that, and what it says.
pub type Document = (Space, Box<str>, Box<[u8]>);

/// An account with everything it owns, as it moves in from elsewhere or out to there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeAccount {
    /// Its JID.
    pub account: BareJid,
    /// Its keys.
    pub credentials: Credentials,
    /// Its roster and block list.
    pub data: AccountData,
    /// Its documents; no two have the same kind and name.
    pub documents: Vec<Document>,
    /// Its nodes; no two have the same name.
    pub nodes: Vec<WholeNode>,
    /// What waits for it, oldest first, with what its sessions had not acknowledged.
    pub offline: Vec<Box<[u8]>>,
}

impl WholeAccount {
    /// An account that owns nothing yet.
    pub fn new(account: BareJid, credentials: Credentials) -> WholeAccount {
        let (data, documents, offline) = (AccountData::default(), Vec::new(), Vec::new());
        WholeAccount {
            account,
            credentials,
            data,
            documents,
            nodes: Vec::new(),
            offline,
        }
    }

    /// Whether it has more documents of a kind than an account may have.
    pub fn is_overfull(&self) -> bool {
        Space::ALL.into_iter().any(|kind| {
            let of_kind = self.documents.iter().filter(|(of, ..)| *of == kind);
            of_kind.count() > DOCUMENTS_MAX
        })
    }
}

/// The keys of one SCRAM hash (RFC 5802 3): 20 bytes for SHA-1, 32 for SHA-256, 64 for SHA-512.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramKey {
    /// Random bytes that entered the derivation.
    pub salt: Box<[u8]>,
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// H(ClientKey).
    pub stored_key: Box<[u8]>,
    /// HMAC(SaltedPassword, "Server Key").
    pub server_key: Box<[u8]>,
}

/// An account's keys; never the password. A missing hash means that mechanism cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// For SCRAM-SHA-1.
    pub sha1: Option<ScramKey>,
    /// For SCRAM-SHA-256.
    pub sha256: Option<ScramKey>,
    /// For SCRAM-SHA-512.
    pub sha512: Option<ScramKey>,
}

impl Credentials {
    /// Whether anybody can log in with them.
    pub fn has_any(&self) -> bool {
        self.sha1.is_some() || self.sha256.is_some() || self.sha512.is_some()
    }
}

/// The subscription state of a roster item (RFC 6121 2.1.2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Subscription {
    /// Neither side gets presence.
    #[default]
    None = 0,
    /// The account gets the contact's presence.
    To = 1,
    /// The contact gets the account's presence.
    From = 2,
    /// Both.
    Both = 3,
}

impl Subscription {
    /// Whether the account gets the contact's presence.
    pub fn is_to(self) -> bool {
        self as u8 & 1 != 0
    }

    /// Whether the contact gets the account's presence.
    pub fn is_from(self) -> bool {
        self as u8 & 2 != 0
    }

    /// The state with these two directions.
    pub fn of(to: bool, from: bool) -> Subscription {
        match (to, from) {
            (false, false) => Subscription::None,
            (true, false) => Subscription::To,
            (false, true) => Subscription::From,
            (true, true) => Subscription::Both,
        }
    }

    /// Its value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Subscription::None => "none",
            Subscription::To => "to",
            Subscription::From => "from",
            Subscription::Both => "both",
        }
    }

    /// The state with this value on the wire.
    pub fn parse(text: &str) -> Option<Subscription> {
        let directions = [(false, false), (true, false), (false, true), (true, true)];
        let all = directions.map(|(to, from)| Subscription::of(to, from));
        all.into_iter().find(|state| state.as_str() == text)
    }
}

/// One contact of a roster, with what the wire shows and what only the server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterItem {
    /// The contact.
    pub contact: BareJid,
    /// The user's name for it, or empty.
    pub name: Box<str>,
    /// Group names, without duplicates.
    pub groups: Vec<Box<str>>,
    /// The subscription state.
    pub subscription: Subscription,
    /// An outbound request waits for the contact's answer (`ask='subscribe'`).
    pub ask: bool,
    /// The account pre-approved the contact's request (RFC 6121 3.4).
    pub approved: bool,
    /// The contact's waiting inbound request, as the whole presence stanza.
    pub pending_in: Option<Box<[u8]>>,
    /// Whether the item is in the roster as the client sees it; a mere pending inbound request is
    /// not.
    pub listed: bool,
    /// The number of the roster's version that its last change made, or of its removal while it is
    /// not listed; 0 where nothing of it was ever listed, or since before versions were numbered.
    pub changed: u64,
    /// The number of the version before that one.
    pub prior: u64,
}

impl RosterItem {
    /// A fresh item: no name, no groups, no subscription, not listed.
    pub fn new(contact: BareJid) -> RosterItem {
        RosterItem {
            contact,
            name: "".into(),
            groups: Vec::new(),
            subscription: Subscription::None,
            ask: false,
            approved: false,
            pending_in: None,
            listed: false,
            changed: 0,
            prior: 0,
        }
    }

    /// Whether it says nothing and can be forgotten.
    pub fn is_blank(&self) -> bool {
        self.is_unrelated() && self.changed == 0
    }

    /// Whether all that it says is that the contact was removed.
    pub fn is_removed(&self) -> bool {
        self.is_unrelated() && self.changed > 0
    }

    /// Whether nothing is between the account and the contact, and the client does not list it.
    fn is_unrelated(&self) -> bool {
        !self.listed
            && self.subscription == Subscription::None
            && !self.ask
            && !self.approved
            && self.pending_in.is_none()
    }
}

/// A storage engine behind the port. It runs on the storage thread; calls may block.
pub trait Store: Send {
    /// Performs `ops` in order and appends one reply each, in order. All writes of a call are one
    /// durable, atomic commit; a later operation of the same call sees the earlier ones.
    fn perform(&mut self, ops: &mut dyn Iterator<Item = StoreOp>, replies: &mut Vec<StoreReply>);

    /// Calls `each` with every account, ordered by JID, until it answers `false`.
    ///
    /// # Errors
    /// What the engine says, in words.
    fn accounts(&mut self, each: &mut dyn FnMut(BareJid) -> bool) -> Result<(), Box<str>>;

    /// Whether the store has something to do that nobody waits for. A call without operations does
    /// a part of it, as does one that writes.
    fn is_behind(&self) -> bool {
        false
    }

    /// A view of this moment, to be read on any thread.
    ///
    /// # Errors
    /// The engine keeps nothing that could be backed up, or failed.
    fn snapshot(&mut self) -> Result<Box<dyn Snapshot>, Box<str>> {
        Err("accounts are kept in memory only".into())
    }

    /// What it takes to answer an operation that [reads much](StoreOp::reads_much) on any thread,
    /// with all that was committed before; `None` where the store does that by [`Store::perform`]
    /// only.
    fn reading(&mut self, op: &StoreOp) -> Option<Reading> {
        let _ = op;
        None
    }
}

/// Gives the answer to an operation that reads much.
pub type Reading = Box<dyn FnOnce() -> StoreReply + Send>;

/// A frozen view of a store.
pub trait Snapshot: Send {
    /// Writes all of it to `file`, which appears whole or not at all, and calls `progress` with the
    /// number of records now and then. Gives their number.
    ///
    /// # Errors
    /// What the engine or the file system says, in words.
    fn save(&self, file: &std::path::Path, progress: &mut dyn FnMut(u64)) -> Result<u64, Box<str>>;
}
