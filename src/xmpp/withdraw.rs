//! The withdrawal of presence (RFC 6121 4.5, 4.6.3).
//!
//! Invariant: whoever was told that a session is available is told when it no longer is, once, on
//! any end of the session.

use crate::account::AccountKey;
use crate::host::Host;
use crate::session::{Presence, SessionKey};
use crate::shard::Shard;
use crate::stanza::simple_presence;
use crate::xep::blocking::blocks;
use stanza::jid::Jid;

impl Shard {
    /// Tells whoever was told that a session is available, once, that it no longer is.
    pub(crate) fn say_unavailable(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        presence: &Presence,
        was_available: bool,
    ) {
        let session = self.sessions.at_mut(key);
        let account = session.account;
        let directed = session.directed.take().map_or_else(Vec::new, |list| *list);
        // A resource of somebody who is subscribed gets the broadcast if it is available itself.
        let (resources, others) = directed.into_iter().partition::<Vec<_>, _>(|to| {
            let to = Jid::from_prepared(to);
            was_available && !to.is_bare() && self.gets_broadcasts(account, to.bare())
        });
        if was_available {
            self.announce(host, key, presence, &resources);
        }
        for to in others {
            let mut bytes = Vec::new();
            presence.write(&to, &mut bytes);
            self.route_bytes(host, &Jid::from_prepared(&to), bytes);
        }
    }

    /// Whether a contact gets the presence of an account.
    pub(crate) fn gets_broadcasts(&self, account: AccountKey, contact: &str) -> bool {
        let account = self.accounts.at(account);
        let item = account.contact(contact);
        item.is_some_and(|item| {
            item.subscription.is_from() && !blocks(&account.blocked, &item.contact.as_jid())
        })
    }

    /// Says that a session is unavailable because it ends (RFC 6121 4.5.1, 4.6.3).
    pub(crate) fn withdraw(&mut self, host: &mut impl Host, key: SessionKey) {
        let session = self.sessions.at(key);
        if !session.available && session.directed.is_none() {
            return;
        }
        let presence = Presence::of("unavailable", session.full());
        let session = self.sessions.at_mut(key);
        let was_available = std::mem::replace(&mut session.available, false);
        session.presence = None;
        self.say_unavailable(host, key, &presence, was_available);
    }

    /// Tells one contact that no resource of an account is available to it any longer.
    pub(crate) fn withdraw_account(&mut self, host: &mut impl Host, account: AccountKey, to: &str) {
        let mut answers = Vec::new();
        for &key in &self.accounts.at(account).sessions {
            let session = self.sessions.at(key);
            if session.available {
                answers.push(simple_presence("unavailable", session.full(), to));
            }
        }
        for bytes in answers {
            self.route_bytes(host, &Jid::from_prepared(to), bytes);
        }
    }
}
