//! The adapters from the store port ([`xmpp::port`]) to storage engines.
//!
//! Invariant: every adapter passes [`conformance`]; a record that cannot be read becomes
//! `StoreReply::Failed`, never a panic and never an account that looks empty.

mod agents;
mod archive;
pub mod backup;
mod commit;
pub mod conformance;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
pub mod embedded;
mod ended;
pub mod faults;
mod gaps;
mod hot;
mod journal;
mod kept;
mod lacking;
mod load;
mod log;
pub mod memory;
mod nodes;
mod opening;
#[cfg(test)]
mod power;
mod records;
mod recover;
mod remains;
mod saved;
pub mod schema;
mod seal;
mod sessions;
mod sharing;

pub use embedded::DIRECTORY;
pub use lacking::Lacking;
pub use load::BulkLoaded;
pub use memory::Memory;
pub use opening::OpenError;
pub use recover::Embedded;

use stanza::jid::BareJid;
use xmpp::port::Store;

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
