//! The withdrawal of presence (RFC 6121 4.5, 4.6.3).
//!
//! Invariant: whoever was told that a session is available is told when it no longer is, once, on
//! any end of the session.

use crate::account::AccountKey;
use crate::host::Host;
use crate::parcel::FanoutPurpose;
use crate::presence::{Audience, Chosen, bars, write_target};
use crate::router::Route;
use crate::session::{Presence, SessionKey};
use crate::shard::Shard;
use crate::stanza::simple_presence;
use crate::xep::blocking::{BlockList, blocks};
use stanza::jid::Jid;
use std::collections::HashSet;

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
        let directed = session.directed.take().map_or_else(Vec::new, |list| *list);
        let session = self.sessions.at(key);
        let (account, own) = (session.account, session.bare());
        // Who gets the broadcast is told by it; a resource, if it is available itself.
        let (mut resources, others) = directed.into_iter().partition::<Vec<_>, _>(|to| {
            let jid = Jid::from_prepared(to);
            let bare = jid.bare();
            was_available && (bare == own || self.gets_broadcasts(account, bare))
        });
        if was_available {
            resources.retain(|to| !Jid::from_prepared(to).is_bare() && **to != *session.full());
            self.announce(host, key, presence, &resources);
        }
        self.tell_directed(host, account, presence, others, None);
    }

    /// Tells those who have directed presence, each once: a resource by what its bare JID is told,
    /// if that has directed presence, too. Whom the block list keeps from it is not told.
    fn tell_directed(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        presence: &Presence,
        mut addresses: Vec<Box<str>>,
        blocked_before: Option<&BlockList>,
    ) {
        // A bare JID stands right before its resources then.
        addresses.sort_unstable_by(|one, other| {
            let [one, other] = [one, other].map(|jid| Jid::from_prepared(jid));
            (one.bare(), one.as_str()).cmp(&(other.bare(), other.as_str()))
        });
        addresses.dedup();
        let (mut last_bare, mut resources) = (None, Vec::new());
        for to in addresses {
            let jid = Jid::from_prepared(&to);
            let Some(blind) = self.blind(account, blocked_before, &jid) else {
                continue;
            };
            if !jid.is_bare() && last_bare.as_deref() == Some(jid.bare()) {
                resources.push(to);
                continue;
            }
            self.present_to(host, presence, &jid, &blind);
            if jid.is_bare() {
                last_bare = Some(to);
            }
        }
        self.tell_missed(host, presence, &resources);
    }

    /// Tells resources that what was sent to their bare JID did not reach.
    fn tell_missed(&mut self, host: &mut impl Host, presence: &Presence, resources: &[Box<str>]) {
        for bytes in self.address_resources(host, presence, resources) {
            self.receive(host, &bytes);
        }
        self.flush_fanout(host, presence, FanoutPurpose::Presence, &Chosen::default());
    }

    /// A block list where it keeps resources of an address from what is sent to that, else an empty
    /// one; `None` if it is the address itself. The list is the account's, unless that was another
    /// one until now.
    fn blind(
        &self,
        account: AccountKey,
        blocked_before: Option<&BlockList>,
        to: &Jid<'_>,
    ) -> Option<BlockList> {
        if self.is_beyond_block(account, to) {
            return Some(BlockList::default());
        }
        let list = blocked_before.unwrap_or(&self.accounts.at(account).blocked);
        if blocks(list, to) {
            return None;
        }
        Some(match to.is_bare() && bars(list, to.as_str()) {
            true => list.clone(),
            false => BlockList::default(),
        })
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
    /// any longer; they forget that they told it directly. XEP-0191 3.3: whom the block list keeps
    /// from it hears nothing, or would learn of resources that came since.
    pub(crate) fn withdraw_account(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        to: &str,
        blocked_before: Option<&BlockList>,
    ) {
        let jid = Jid::from_prepared(to);
        let Some(blind) = self.blind(account, blocked_before, &jid) else {
            return;
        };
        for key in self.accounts.at(account).sessions.clone() {
            let session = self.sessions.at_mut(key);
            if !session.available {
                continue;
            }
            let presence = Presence::of("unavailable", session.full());
            let mut directed = session.forget_directed_below(&jid);
            self.present_to(host, &presence, &jid, &blind);
            if !directed.is_empty() {
                directed.retain(|known| **known != *to);
                directed.retain(|known| !Jid::from_prepared(known).is_bare());
                self.tell_missed(host, &presence, &directed);
                self.save_session(host, key);
            }
        }
    }

    /// Tells some resources of contacts that no resource of an account is available to them any
    /// longer, as [`Shard::withdraw_account`] tells one: those that are blocked in a whole domain
    /// are as many as there are contacts.
    pub(crate) fn withdraw_from_some(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        chosen: &Chosen,
    ) {
        let is_chosen = |jid: &Jid<'_>| blocks(&chosen.only, jid) && !blocks(&chosen.blocked, jid);
        for key in self.accounts.at(account).sessions.clone() {
            let session = self.sessions.at(key);
            if !session.available {
                continue;
            }
            let presence = Presence::of("unavailable", session.full());
            let directed = session.directed.as_deref().map_or(&[][..], Vec::as_slice);
            let told = directed.iter().filter(|to| {
                let jid = Jid::from_prepared(to);
                !jid.is_bare() && is_chosen(&jid) && self.gets_broadcasts(account, jid.bare())
            });
            let told: Vec<Box<str>> = told.cloned().collect();
            let audience = Audience::Chosen(chosen);
            self.broadcast(host, key, &presence, FanoutPurpose::Presence, audience);
            if !told.is_empty() {
                for to in &told {
                    self.sessions.at_mut(key).forget_directed(to);
                }
                self.tell_missed(host, &presence, &told);
                self.save_session(host, key);
            }
        }
    }

    /// Who has directed presence and is blocked from now on sees the sessions go (XEP-0191 3.3).
    /// They forget that it had: their end, when it comes, is nothing that it may hear of.
    pub(crate) fn withdraw_from_blocked(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        before: &BlockList,
    ) {
        let list = self.accounts.at(account).blocked.jids().iter();
        let new = list.filter(|jid| !before.has(jid)).cloned();
        let new = BlockList::new(new.collect());
        if new.is_empty() {
            return;
        }
        for key in self.accounts.at(account).sessions.clone() {
            let session = self.sessions.at(key);
            let directed = session.directed.as_deref().map_or(&[][..], Vec::as_slice);
            let gone = directed.iter().filter(|to| {
                let jid = Jid::from_prepared(to);
                blocks(&new, &jid) && !self.is_beyond_block(account, &jid)
            });
            let gone: HashSet<Box<str>> = gone.cloned().collect();
            let known: HashSet<&str> = directed.iter().map(|to| &**to).collect();
            // Single resources of a bare JID that stays. Those that get broadcasts know already.
            let mut told: Vec<Box<str>> = new.jids().to_vec();
            told.retain(|full| {
                let jid = Jid::from_prepared(full);
                let is_reached = session.available && self.gets_broadcasts(account, jid.bare());
                !jid.is_bare()
                    && known.contains(jid.bare())
                    && !is_reached
                    && !self.is_beyond_block(account, &jid)
            });
            if gone.is_empty() && told.is_empty() {
                continue;
            }
            let presence = Presence::of("unavailable", session.full());
            let session = self.sessions.at_mut(key);
            if let Some(directed) = &mut session.directed {
                directed.retain(|to| !gone.contains(to));
            }
            told.extend(gone);
            self.tell_directed(host, account, &presence, told, Some(before));
            self.save_session(host, key);
        }
    }

    /// An account has no sessions left that a crash put to sleep. While it had, those whom it
    /// blocks heard nothing when they refreshed, and the crash may have taken what they were told
    /// at the block. Nothing else comes to them, so they hear of the whole account, whose resources
    /// they may not know.
    pub(crate) fn withdraw_again(&mut self, host: &mut impl Host, account: AccountKey) {
        let owner = self.accounts.at(account);
        if owner.blocked.is_empty() {
            return;
        }
        let mut told = Vec::new();
        let contacts = owner.roster.iter();
        for item in contacts.filter(|item| item.subscription.is_from()) {
            let contact = item.contact.as_jid();
            match blocks(&owner.blocked, &contact) {
                true => told.push(contact.as_str().to_owned()),
                false => {
                    let resources = owner.blocked.resources_of(contact.as_str());
                    told.extend(
                        resources.map(|resource| format!("{}/{resource}", contact.as_str())),
                    );
                }
            }
        }
        let own = owner.jid.clone();
        for to in told {
            let bytes = simple_presence("unavailable", own.as_str(), &to);
            self.route_bytes(host, &Jid::from_prepared(&to), bytes);
        }
    }

    /// Sends a presence to one address, but to those of its resources that are blocked.
    fn present_to(
        &mut self,
        host: &mut impl Host,
        presence: &Presence,
        to: &Jid<'_>,
        blocked: &BlockList,
    ) {
        if blocked.is_empty() {
            let mut bytes = Vec::new();
            presence.write(to.as_str(), &mut bytes);
            return self.route_bytes(host, to, bytes);
        }
        let chosen = &Chosen::all_but(blocked.clone());
        let mut targets = host.buffer();
        write_target(to.as_str(), &mut targets);
        match self.router.route(to) {
            // Whose resources are whose is the component's business.
            Route::Component(id) => {
                host.recycle(self.id, targets);
                self.tell_component(host, id, presence, to.as_str());
            }
            Route::Shard(shard) => {
                self.fanout[usize::from(shard.0)] = Some(targets);
                self.flush_fanout(host, presence, FanoutPurpose::Presence, chosen);
            }
            Route::Here(_) => {
                let text = std::str::from_utf8(&targets).expect("targets are JIDs");
                self.present_all(host, text, chosen, presence.halves());
                host.recycle(self.id, targets);
            }
            Route::Server | Route::Remote => host.recycle(self.id, targets),
        }
    }
}
