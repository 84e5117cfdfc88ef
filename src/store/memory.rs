//! The store that forgets: for tests and `--ephemeral`. It obeys the same suite as the others,
//! durability apart.

use std::collections::BTreeMap;

use stanza::jid::BareJid;
use xmpp::port::{AccountData, Credentials, RosterItem, Store, StoreOp, StoreReply};

/// Accounts in a map. It is as large as what is put into it.
#[derive(Debug, Default)]
pub struct Memory {
    accounts: BTreeMap<BareJid, Account>,
}

#[derive(Debug, Default)]
struct Account {
    credentials: Credentials,
    roster: BTreeMap<BareJid, RosterItem>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Memory {
        Memory::default()
    }

    fn apply(&mut self, op: StoreOp) -> StoreReply {
        match op {
            StoreOp::Credentials { account } => {
                let found = self.accounts.get(&account);
                StoreReply::Credentials(found.map(|found| Box::new(found.credentials.clone())))
            }
            StoreOp::CreateAccount {
                account,
                credentials,
            } => {
                if self.accounts.contains_key(&account) {
                    return StoreReply::Exists;
                }
                let fresh = Account {
                    credentials: *credentials,
                    roster: BTreeMap::new(),
                };
                self.accounts.insert(account, fresh);
                StoreReply::Done
            }
            StoreOp::SetCredentials {
                account,
                credentials,
            } => self.change(&account, |found| found.credentials = *credentials),
            StoreOp::DeleteAccount { account } => match self.accounts.remove(&account) {
                Some(_) => StoreReply::Done,
                None => StoreReply::Missing,
            },
            StoreOp::Account { account } => {
                let found = self.accounts.get(&account);
                StoreReply::Account(found.map(|found| {
                    Box::new(AccountData {
                        roster: found.roster.values().cloned().collect(),
                    })
                }))
            }
            StoreOp::PutRosterItem { account, item } => self.change(&account, |found| {
                found.roster.insert(item.contact.clone(), *item);
            }),
            StoreOp::RemoveRosterItem { account, contact } => {
                if let Some(found) = self.accounts.get_mut(&account) {
                    found.roster.remove(&contact);
                }
                StoreReply::Done
            }
        }
    }

    fn change(&mut self, account: &BareJid, change: impl FnOnce(&mut Account)) -> StoreReply {
        match self.accounts.get_mut(account) {
            Some(found) => {
                change(found);
                StoreReply::Done
            }
            None => StoreReply::Missing,
        }
    }
}

impl Store for Memory {
    fn perform(&mut self, ops: &mut dyn Iterator<Item = StoreOp>, replies: &mut Vec<StoreReply>) {
        replies.extend(ops.map(|op| self.apply(op)));
    }

    fn accounts(&mut self, each: &mut dyn FnMut(BareJid) -> bool) -> Result<(), Box<str>> {
        let _stopped_early = self.accounts.keys().all(|account| each(account.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_store_conforms() {
        crate::conformance::conformance(|| Box::new(Memory::new()));
    }
}
