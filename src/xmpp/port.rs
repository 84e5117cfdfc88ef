//! The store port: what the server asks of storage, in the server's own words.
//!
//! Invariant: routing never reads the store. Shards hand a [`StoreOp`] to [`crate::Host::store`]
//! and get the [`StoreReply`] back as an event; only the storage thread touches a [`Store`].

use stanza::jid::BareJid;

/// One request to storage. Operations of one shard are performed in the order they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
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
    /// Replace an account's keys. Answered by `Done`, or `Missing`.
    SetCredentials {
        /// Whose.
        account: BareJid,
        /// The new keys.
        credentials: Box<Credentials>,
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
}

/// The answer to one [`StoreOp`]; writes are durable when it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreReply {
    /// The keys, or `None` where there is no such account.
    Credentials(Option<Box<Credentials>>),
    /// The account's data, or `None` where there is no such account.
    Account(Option<Box<AccountData>>),
    /// The write is durable.
    Done,
    /// The account to be created exists already; nothing was changed.
    Exists,
    /// There is no such account; nothing was changed.
    Missing,
    /// Storage failed; nothing is known to have been written. The text is for the log.
    Failed(Box<str>),
}

/// What stays in memory while an account is resident.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountData {
    /// The roster, in no particular order.
    pub roster: Vec<RosterItem>,
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
        }
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
}
