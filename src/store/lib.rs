//! The adapters from the store port ([`xmpp::port`]) to storage engines.
//!
//! Invariant: every adapter passes [`conformance`]; a record that cannot be read becomes
//! `StoreReply::Failed`, never a panic and never an account that looks empty.

pub mod backup;
mod commit;
pub mod conformance;
#[cfg(test)]
mod crash;
pub mod embedded;
pub mod faults;
mod gaps;
mod hot;
mod kept;
mod lacking;
mod load;
mod log;
pub mod memory;
#[cfg(test)]
mod power;
mod records;
mod recover;
pub mod schema;
mod sessions;

pub use embedded::{DIRECTORY, OpenError};
pub use lacking::Lacking;
pub use load::BulkLoaded;
pub use memory::Memory;
pub use recover::Embedded;

use stanza::jid::BareJid;
use xmpp::port::{AccountData, Credentials, Space, Store};

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
            offline,
        }
    }
}

/// Every account of `store`, ordered by JID: about 40 bytes each, for an operator's listing.
///
/// # Errors
/// What the engine says, in words.
pub fn list(store: &mut dyn Store) -> Result<Vec<BareJid>, Box<str>> {
    let mut all = Vec::new();
    store.accounts(&mut |account| {
        all.push(account);
        true
    })?;
    Ok(all)
}
