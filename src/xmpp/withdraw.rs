//! The withdrawal of presence (RFC 6121 4.5, 4.6.3).
//!
//! Invariant: whoever was told that a session is available is told when it no longer is, once, on
//! any end of the session.

use crate::account::AccountKey;
use crate::host::Host;
use crate::parcel::FanoutPurpose;
use crate::presence::{barred, write_target};
use crate::router::Route;
use crate::session::{Presence, SessionKey};
use crate::shard::Shard;
use crate::xep::blocking::{BlockList, blocks};
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

    /// Tells one contact, or one resource of it, that no resource of an account is available to it
    /// any longer. XEP-0191 3.3: who does not see them by the block list hears nothing, or would
    /// learn of those that came since; that is the account's own unless it was another one until now.
    pub(crate) fn withdraw_account(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        to: &str,
        blocked_before: Option<&BlockList>,
    ) {
        let owner = self.accounts.at(account);
        let list = blocked_before.unwrap_or(&owner.blocked);
        let jid = Jid::from_prepared(to);
        if blocks(list, &jid) {
            return;
        }
        let blind = match jid.is_bare() {
            true => barred(list, to),
            false => Vec::new(),
        };
        let sessions = owner.sessions.iter().map(|key| self.sessions.at(*key));
        let available = sessions.filter(|session| session.available);
        let absent = available.map(|session| Presence::of("unavailable", session.full()));
        for presence in absent.collect::<Vec<Presence>>() {
            self.present_to(host, &presence, &jid, &blind);
        }
    }

    /// Sends a presence to one address, but to those of its resources that are barred.
    fn present_to(
        &mut self,
        host: &mut impl Host,
        presence: &Presence,
        to: &Jid<'_>,
        barred: &[String],
    ) {
        if barred.is_empty() {
            let mut bytes = Vec::new();
            presence.write(to.as_str(), &mut bytes);
            return self.route_bytes(host, to, bytes);
        }
        let mut targets = host.buffer();
        write_target(to.as_str(), barred, &mut targets);
        match self.router.route_account(to.as_str()) {
            Route::Shard(shard) => {
                self.fanout[usize::from(shard.0)] = Some(targets);
                self.flush_fanout(host, presence, FanoutPurpose::Presence);
            }
            Route::Here(_) => {
                let text = std::str::from_utf8(&targets).expect("targets are JIDs");
                self.present_all(host, text, presence.halves());
                host.recycle(self.id, targets);
            }
            Route::Server | Route::Remote => host.recycle(self.id, targets),
        }
    }
}
