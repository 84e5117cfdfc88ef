//! What crosses a ring between two shards.
//!
//! Invariant: a parcel's bytes are namespace-neutral: the stanza's own tag carries no default
//! namespace; the receiving stream's outlet adds it where its kind of stream needs it.

use crate::errand::{Errand, Giver, Told};
use crate::host::ShardId;
use crate::port::{Origin, StoreReply};
use crate::presence::Chosen;
use crate::session::SessionHandle;
use stanza::jid::BareJid;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// A pooled byte buffer. It goes home through [`crate::Host::recycle`].
pub type Buffer = Vec<u8>;

/// One message between shards. Order per pair of shards is kept.
#[derive(Debug)]
pub enum Parcel {
    /// One stanza for one address; `bytes` is the whole stanza as it will be written.
    Stanza {
        /// The stanza, stamped with `from` and `to`.
        bytes: Buffer,
        /// Who filled `bytes`.
        home: ShardId,
        /// The managed stanza that it came by, where what it does must happen once.
        origin: Option<Box<Origin>>,
    },
    /// The same, which asks the server for an answer. It is never a message, so that nothing of it
    /// must happen once.
    Request {
        /// As that of [`Parcel::Stanza`].
        bytes: Buffer,
        /// Who filled `bytes`.
        home: ShardId,
        /// The session that has this to wait for.
        asker: SessionHandle,
    },
    /// Requests have their answers, which the receiving shard had before.
    Answered {
        /// Who waits for them.
        asker: SessionHandle,
        /// How many they are.
        count: u16,
    },
    /// One presence for many: each target gets `head`, its own address, `tail`.
    Fanout(Box<Fanout>),
    /// Stanzas, requests among them, that the sending shard has settled: delivered, stored, or
    /// answered.
    Settled {
        /// How many of the sender's parcels, in order.
        count: u32,
    },
    /// Work that is no stanza.
    Control(Box<Control>),
}

impl Parcel {
    /// Bytes of stanzas and addresses that it brings: handling it takes as long as they are many.
    pub fn size(&self) -> usize {
        match self {
            Parcel::Stanza { bytes, .. } | Parcel::Request { bytes, .. } => bytes.len(),
            Parcel::Fanout(fanout) => fanout.bytes.len() + fanout.targets.len(),
            Parcel::Answered { .. } | Parcel::Settled { .. } | Parcel::Control(_) => 0,
        }
    }
}

/// One presence, encoded once around the place of its `to`.
#[derive(Debug)]
pub struct Fanout {
    /// Up to and including the quote that opens the value of `to`, then from the quote that closes
    /// it.
    pub bytes: Buffer,
    /// Where `head` ends and `tail` begins in `bytes`.
    pub split: u32,
    /// The bare JIDs to deliver to, all at home on the receiving shard, joined by newlines. Beside
    /// them, each behind a slash, full JIDs: resources that were told of the sender, and that get
    /// this only if they are not available, and so not reached by their bare JID. And, each behind
    /// an `@`, whoever is at a component that is at home there, by the JID that is told.
    pub targets: Buffer,
    /// Which resources of the targets get this by their bare JID.
    pub(crate) chosen: Chosen,
    /// What the stanza means.
    pub purpose: FanoutPurpose,
    /// The session that has answers to wait for, and as how many requests.
    pub asker: Option<(SessionHandle, u16)>,
    /// Who filled the buffers.
    pub home: ShardId,
}

/// What a fan-out asks of each target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FanoutPurpose {
    /// Deliver to every available resource of a target that is subscribed to the sender.
    Presence,
    /// Ask each target for the presence of its resources.
    Probe,
    /// The same, and who has none says so: the asker may believe otherwise.
    Refresh,
    /// Tell those resources of each target that are interested in a node, which the first line
    /// names (XEP-0163 4.3). Behind a slash stands who has subscribed to it.
    Event,
}

/// Work between shards that is no stanza.
#[derive(Debug)]
pub enum Control {
    /// In-band registration, travelling to the account's home; answered by `Registered`.
    Register {
        /// The request's ticket on the asking shard.
        ticket: u64,
        /// The account.
        account: BareJid,
        /// Its keys.
        credentials: Box<crate::port::Credentials>,
    },
    /// An administrator's command has something done here; answered by `Told`.
    Errand {
        /// Who is told.
        giver: Giver,
        /// What is to be done.
        errand: Errand,
    },
    /// What an errand came to.
    Told {
        /// Who gave it.
        giver: Giver,
        /// What it came to.
        told: Told,
    },
    /// An administrator deletes an account: it ends as if its client cancelled it.
    Delete {
        /// The account.
        account: BareJid,
        /// Gets `Done`, `Missing` or `Failed`, after which the account is as it was, but for the
        /// contacts who were told; nothing where the shard ends first.
        answer: Sender<StoreReply>,
    },
    /// A session wants the last items of an account's nodes (XEP-0163 4.3.4); answered by
    /// `LastItemsSent`.
    LastItems {
        /// The account.
        account: BareJid,
        /// The session, by its full JID.
        to: Box<str>,
        /// The names of the nodes.
        nodes: Arc<[Box<str>]>,
    },
    /// It has been sent all that it may have.
    LastItemsSent,
    /// An account has new keys in storage, or no user agents any more: what was begun with the old
    /// ones proves nothing, its sessions end, and storage forgets user agents noted since.
    NewKeys {
        /// The account.
        account: BareJid,
        /// Gets what storage says of those user agents when that is so; nothing where the shard
        /// ends first.
        answer: Sender<StoreReply>,
    },
    /// The answer to `Register`: whether the account was made; `None` is a storage failure.
    Registered {
        /// The request's ticket on the asking shard.
        ticket: u64,
        /// `Some(true)` made, `Some(false)` existed, `None` storage failed.
        made: Option<bool>,
    },
}

const _: () = assert!(
    size_of::<Parcel>() <= 40,
    "two parcels and more fit a pair of cache lines"
);
