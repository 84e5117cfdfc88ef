//! Subscriptions (RFC 6121 3 and Appendix A): the state table of both sides, as two pure functions,
//! and their effects.

use crate::account::{AccountKey, Residence, Waiter};
use crate::error::StanzaError;
use crate::host::Host;
use crate::limit::LOAD_QUEUE_MAX;
use crate::port::{RosterItem, Subscription};
use crate::router::Route;
use crate::session::SessionKey;
use crate::shard::{Shard, is_resident};
use crate::stanza::{Stanza, Type, simple_presence};
use stanza::jid::{BareJid, Jid};
use stanza::scope::StreamScope;
use stanza::view::StanzaView;
use stanza::writer;

/// What a step of the table asks for beside the new state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The stanza goes on: to the contact (outbound), or to the account's resources (inbound).
    pub pass: bool,
    /// The roster as the client sees it has changed.
    pub push: bool,
    /// The server itself answers `subscribed`.
    pub auto_reply: bool,
    /// The other side gets to see the account's resources.
    pub reveal: bool,
    /// The other side must learn that the account's resources are unavailable to it.
    pub hide: bool,
}

/// The account sends a subscription stanza to a contact (RFC 6121 A.2). Changes the item.
pub fn outbound(item: &mut RosterItem, type_: Type) -> Step {
    let (to, from) = (item.subscription.is_to(), item.subscription.is_from());
    match type_ {
        // A.2.1: always routed; a request waits unless there is a subscription already.
        Type::Subscribe => {
            let push = !item.listed || (!to && !item.ask);
            item.listed = true;
            item.ask = !to;
            Step { pass: true, push, ..Step::default() }
        }
        // A.2.2
        Type::Unsubscribe => {
            let push = to || item.ask;
            item.ask = false;
            item.subscription = Subscription::of(false, from);
            Step { pass: true, push, ..Step::default() }
        }
        // A.2.3, and 3.4 for pre-approval.
        Type::Subscribed if item.pending_in.is_some() => {
            item.pending_in = None;
            item.approved = false;
            item.listed = true;
            item.subscription = Subscription::of(to, true);
            Step { pass: true, push: true, reveal: true, ..Step::default() }
        }
        Type::Subscribed if from => Step::default(),
        Type::Subscribed => {
            let push = !item.approved || !item.listed;
            item.approved = true;
            item.listed = true;
            Step { push, ..Step::default() }
        }
        // A.2.4
        Type::Unsubscribed => {
            let pass = from || item.pending_in.is_some();
            let push = from || item.approved;
            item.pending_in = None;
            item.approved = false;
            item.subscription = Subscription::of(to, false);
            Step { pass, push, hide: from, ..Step::default() }
        }
        _ => Step::default(),
    }
}

/// A contact's subscription stanza reaches the account (RFC 6121 A.3). Changes the item.
pub fn inbound(item: &mut RosterItem, type_: Type, request: &[u8]) -> Step {
    let (to, from) = (item.subscription.is_to(), item.subscription.is_from());
    match type_ {
        // A.3.1: who is subscribed already is told so again.
        Type::Subscribe if from => Step { auto_reply: true, ..Step::default() },
        Type::Subscribe if item.approved => {
            item.approved = false;
            item.subscription = Subscription::of(to, true);
            Step { auto_reply: true, push: true, reveal: true, ..Step::default() }
        }
        Type::Subscribe => {
            let pass = item.pending_in.is_none();
            item.pending_in = Some(request.into());
            Step { pass, ..Step::default() }
        }
        // A.3.2
        Type::Unsubscribe => {
            let pass = from || item.pending_in.is_some();
            item.pending_in = None;
            item.subscription = Subscription::of(to, false);
            Step { pass, push: from, hide: from, ..Step::default() }
        }
        // A.3.3
        Type::Subscribed if item.ask && !to => {
            item.ask = false;
            item.subscription = Subscription::of(true, from);
            Step { pass: true, push: true, ..Step::default() }
        }
        // A.3.4
        Type::Unsubscribed if to || item.ask => {
            item.ask = false;
            item.subscription = Subscription::of(false, from);
            Step { pass: true, push: true, ..Step::default() }
        }
        _ => Step::default(),
    }
}

/// Whether an item holds nothing and can be forgotten.
pub(crate) fn is_blank(item: &RosterItem) -> bool {
    !item.listed
        && item.subscription == Subscription::None
        && !item.ask
        && !item.approved
        && item.pending_in.is_none()
}

impl Shard {
    /// A client's subscription stanza to a contact's bare JID.
    pub(crate) fn on_outbound_subscription(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        contact: &BareJid,
    ) {
        let session = self.sessions.at(key);
        let (bare, account) = (session.bare().to_owned(), session.account);
        if contact.as_str() == bare {
            return;
        }
        if contact.local().is_none() {
            let error = StanzaError::ServiceUnavailable;
            return self.refuse(host, key, view, scope, type_, error);
        }
        let is_new = self.accounts.at(account).contact(contact.as_str()).is_none();
        let full = self.accounts.at(account).roster.len() >= self.settings.limits.roster_items_max;
        if is_new && full {
            let error = StanzaError::ResourceConstraint;
            return self.refuse(host, key, view, scope, type_, error);
        }
        let remote = !self.router.is_local(contact.domain());
        if remote && type_ == Type::Subscribe {
            // Nobody there would ever answer, so the roster does not say that somebody was asked.
            let error = StanzaError::RemoteServerNotFound;
            return self.refuse(host, key, view, scope, type_, error);
        }
        let step = self.step(host, account, contact, |item| outbound(item, type_));
        // Before the stanza goes on: where the contact is at home here its answer comes at once.
        if step.push {
            self.push_item(host, account, contact);
        }
        if step.pass && !remote {
            // RFC 6121 3.1.2: subscription stanzas carry bare addresses on both sides.
            let mut bytes = Vec::new();
            writer::restamp(view, scope, &bare, contact.as_str(), &mut bytes)
                .expect("a plain stanza is copied");
            self.route_bytes(host, &contact.as_jid(), bytes);
        }
        self.after_step(host, account, contact, Step { push: false, ..step });
    }

    /// A contact's subscription stanza to an account at home here.
    pub(crate) fn on_inbound_subscription(&mut self, host: &mut impl Host, stanza: &Stanza<'_>) {
        let bare = stanza.to.bare().to_owned();
        let account = self.loaded_or_loading(host, &bare);
        let mut bytes = Vec::new();
        stanza.write(&mut bytes);
        if let Residence::Loading(queue) = &mut self.accounts.at_mut(account).residence {
            // A full queue drops the request: the contact's client repeats it at its next login.
            if queue.len() < LOAD_QUEUE_MAX {
                queue.push(Waiter::Stanza(bytes));
            }
            return;
        }
        debug_assert!(is_resident(&self.accounts.at(account).residence));
        let contact = Jid::from_prepared(stanza.from).to_bare();
        let known = self.accounts.at(account).contact(contact.as_str()).is_some();
        let full = self.accounts.at(account).roster.len() >= self.settings.limits.roster_items_max;
        if !known && full {
            return self.bounce(host, stanza, StanzaError::ResourceConstraint);
        }
        let type_ = stanza.type_;
        let step = self.step(host, account, &contact, |item| inbound(item, type_, &bytes));
        if step.auto_reply {
            let reply = simple_presence("subscribed", &bare, contact.as_str());
            self.route_bytes(host, &contact.as_jid(), reply);
        }
        if step.pass {
            // RFC 6121 3.1.3, 3.1.6: a request goes to available, an answer to interested resources.
            for &key in &self.accounts.at(account).sessions {
                let session = self.sessions.at(key);
                let gets = if type_ == Type::Subscribe {
                    session.available
                } else {
                    session.interested
                };
                if gets {
                    self.send(host, key, stanza);
                }
            }
        }
        self.after_step(host, account, &contact, step);
        self.evict_if_idle(account);
    }

    /// Applies one step of the table and stores its result.
    fn step(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        contact: &BareJid,
        table: impl FnOnce(&mut RosterItem) -> Step,
    ) -> Step {
        let known = self.accounts.at(account).contact(contact.as_str()).cloned();
        let item = self.accounts.at_mut(account).contact_mut(contact);
        let step = table(item);
        let (item, blank) = (item.clone(), is_blank(item));
        if blank {
            self.accounts.at_mut(account).remove_contact(contact.as_str());
        }
        match known {
            Some(known) if known == item => {}
            None if blank => {}
            _ if blank => {
                self.store_removal(host, account, contact);
            }
            _ => {
                self.store_item(host, account, item);
            }
        }
        step
    }

    fn after_step(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        contact: &BareJid,
        step: Step,
    ) {
        if step.push {
            self.push_item(host, account, contact);
        }
        if step.reveal {
            self.present_account(host, account, contact.as_str());
        }
        if step.hide {
            self.withdraw_account(host, account, contact.as_str());
        }
    }

    /// Sends a subscription stanza that the server itself makes for an account.
    pub(crate) fn say_subscription(
        &mut self,
        host: &mut impl Host,
        type_: &str,
        from: &str,
        contact: &BareJid,
    ) {
        if let Route::Here(_) | Route::Shard(_) = self.router.route(&contact.as_jid()) {
            let bytes = simple_presence(type_, from, contact.as_str());
            self.route_bytes(host, &contact.as_jid(), bytes);
        }
    }
}
