//! Subscriptions (RFC 6121 3 and Appendix A): the state table of both sides, as two pure functions,
//! and their effects.

use crate::account::{AccountKey, Residence};
use crate::error::StanzaError;
use crate::host::{Host, Timestamp};
use crate::port::{RosterItem, Subscription};
use crate::roster::looks_different;
use crate::router::Route;
use crate::session::SessionKey;
use crate::shard::{Shard, is_resident};
use crate::stanza::{Stanza, Type, simple_presence};
use stanza::jid::{BareJid, Jid};
use stanza::scope::StreamScope;
use stanza::view::StanzaView;
use stanza::writer;

/// Bytes of all requests that wait for one account; further ones bounce. They are shown in one
/// burst at a login.
pub const REQUESTS_SIZE_MAX: usize = 1 << 20;

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
    /// The account gets to see the other side, and the last items of its nodes (XEP-0163 4.3.4).
    pub begins: bool,
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
            Step {
                pass: true,
                push,
                ..Step::default()
            }
        }
        // A.2.2
        Type::Unsubscribe => {
            let push = to || item.ask;
            item.ask = false;
            item.subscription = Subscription::of(false, from);
            Step {
                pass: true,
                push,
                ..Step::default()
            }
        }
        // A.2.3, and 3.4 for pre-approval.
        Type::Subscribed if item.pending_in.is_some() => {
            item.pending_in = None;
            item.approved = false;
            item.listed = true;
            item.subscription = Subscription::of(to, true);
            Step {
                pass: true,
                push: true,
                reveal: true,
                ..Step::default()
            }
        }
        Type::Subscribed if from => Step::default(),
        Type::Subscribed => {
            let push = !item.approved || !item.listed;
            item.approved = true;
            item.listed = true;
            Step {
                push,
                ..Step::default()
            }
        }
        // A.2.4
        Type::Unsubscribed => {
            let pass = from || item.pending_in.is_some();
            let push = from || item.approved;
            item.pending_in = None;
            item.approved = false;
            item.subscription = Subscription::of(to, false);
            Step {
                pass,
                push,
                hide: from,
                ..Step::default()
            }
        }
        _ => Step::default(),
    }
}

/// A contact's subscription stanza reaches the account (RFC 6121 A.3). Changes the item.
pub fn inbound(item: &mut RosterItem, type_: Type, request: &[u8]) -> Step {
    let (to, from) = (item.subscription.is_to(), item.subscription.is_from());
    match type_ {
        // A.3.1: who is subscribed already is told so again.
        Type::Subscribe if from => Step {
            auto_reply: true,
            ..Step::default()
        },
        Type::Subscribe if item.approved => {
            item.approved = false;
            item.subscription = Subscription::of(to, true);
            Step {
                auto_reply: true,
                push: true,
                reveal: true,
                ..Step::default()
            }
        }
        Type::Subscribe => {
            let pass = item.pending_in.is_none();
            item.pending_in = Some(request.into());
            Step {
                pass,
                ..Step::default()
            }
        }
        // A.3.2
        Type::Unsubscribe => {
            let pass = from || item.pending_in.is_some();
            item.pending_in = None;
            item.subscription = Subscription::of(to, false);
            Step {
                pass,
                push: from,
                hide: from,
                ..Step::default()
            }
        }
        // A.3.3
        Type::Subscribed if item.ask && !to => {
            item.ask = false;
            item.subscription = Subscription::of(true, from);
            Step {
                pass: true,
                push: true,
                begins: true,
                ..Step::default()
            }
        }
        // A.3.4
        Type::Unsubscribed if to || item.ask => {
            item.ask = false;
            item.subscription = Subscription::of(false, from);
            Step {
                pass: true,
                push: true,
                ..Step::default()
            }
        }
        _ => Step::default(),
    }
}

/// The item that a roster of this version has of a contact whose account is gone (XEP-0077 3.2), if
/// that is another one.
pub fn parted(item: &RosterItem, version: u64, now: Timestamp) -> Option<RosterItem> {
    let mut left = item.clone();
    for type_ in [Type::Unsubscribe, Type::Unsubscribed] {
        inbound(&mut left, type_, b"");
    }
    if looks_different(&left, Some(item)) {
        (left.changed, left.prior) = (now.0.max(version + 1), version);
    }
    (left != *item).then_some(left)
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
        if self.is_anonymous(key) {
            let error = StanzaError::NotAllowed;
            return self.refuse(host, key, view, scope, type_, error);
        }
        let route = self.router.route(&contact.as_jid());
        // A component's own address may be a contact: gateways are.
        if contact.local().is_none() && !matches!(route, Route::Component(_)) {
            let error = StanzaError::ServiceUnavailable;
            return self.refuse(host, key, view, scope, type_, error);
        }
        // Only these two put a contact into the roster.
        let lists = matches!(type_, Type::Subscribe | Type::Subscribed);
        if lists && let Err(error) = self.may_begin(account, contact) {
            return self.refuse(host, key, view, scope, type_, error);
        }
        let remote = matches!(route, Route::Remote);
        if remote && type_ == Type::Subscribe {
            // Nobody there would ever answer, so the roster does not say that somebody was asked.
            let error = StanzaError::RemoteServerNotFound;
            return self.refuse(host, key, view, scope, type_, error);
        }
        let (step, before) = self.step(host, account, contact, |item| outbound(item, type_));
        // Before the stanza goes on: where the contact is at home here its answer comes at once.
        if step.push {
            self.push_item(host, account, contact);
        }
        // RFC 6121 3.2.2: who will not see the account any more sees it go first.
        if step.hide {
            self.withdraw_account(host, account, contact.as_str(), None);
        }
        if step.pass && !remote {
            // RFC 6121 3.1.2: subscription stanzas carry bare addresses on both sides.
            let mut bytes = Vec::new();
            writer::restamp(view, scope, &bare, contact.as_str(), &mut bytes)
                .expect("a plain stanza is copied");
            let to = contact.as_jid();
            match before {
                Some(before) => self.tell_and_write(host, account, before, None, |shard, host| {
                    shard.route_bytes(host, &to, bytes);
                }),
                None => self.route_bytes(host, &to, bytes),
            }
        } else if let Some(before) = before {
            self.tell_and_write(host, account, before, None, |_, _| {});
        }
        self.after_step(
            host,
            account,
            contact,
            Step {
                push: false,
                hide: false,
                ..step
            },
        );
    }

    /// Whether there may be something between an account and a contact that was not before.
    fn may_begin(&self, account: AccountKey, contact: &BareJid) -> Result<(), StanzaError> {
        let owner = self.accounts.at(account);
        if owner.leaving.is_some() {
            return Err(StanzaError::UnexpectedRequest);
        }
        match owner.has_room(contact, contact.as_str().len(), &self.settings.limits) {
            true => Ok(()),
            false => Err(StanzaError::ResourceConstraint),
        }
    }

    /// A contact's subscription stanza to an account at home here.
    pub(crate) fn on_inbound_subscription(&mut self, host: &mut impl Host, stanza: &Stanza<'_>) {
        let bare = stanza.to.bare().to_owned();
        let account = self.loaded_or_loading(host, &bare);
        if let Residence::Loading(_) = self.accounts.at(account).residence {
            return self.queue(host, account, stanza);
        }
        debug_assert!(is_resident(&self.accounts.at(account).residence));
        let mut bytes = Vec::new();
        stanza.write(&mut bytes);
        let contact = Jid::from_prepared(stanza.from).to_bare();
        let owner = self.accounts.at(account);
        let is_new = owner
            .contact(contact.as_str())
            .is_none_or(RosterItem::is_removed);
        let roster = &owner.roster;
        let unlisted = roster.iter().filter(|it| !it.listed && !it.is_removed());
        let full = unlisted.count() >= self.settings.limits.roster_items_max;
        let type_ = stanza.type_;
        // Nothing else begins with a stranger.
        if type_ == Type::Subscribe {
            if is_new && full {
                return self.bounce(host, stanza, StanzaError::ResourceConstraint);
            }
            let others = roster.iter().filter(|item| item.contact != contact);
            let waiting = others.flat_map(|item| &item.pending_in).map(|it| it.len());
            if waiting.sum::<usize>() + bytes.len() > REQUESTS_SIZE_MAX {
                let known = owner.contact(contact.as_str());
                if known.is_some_and(|item| item.pending_in.is_some()) {
                    return; // The one that waits already stays.
                }
                return self.bounce(host, stanza, StanzaError::ResourceConstraint);
            }
        }
        let table = |item: &mut RosterItem| inbound(item, type_, &bytes);
        let (mut step, before) = self.step(host, account, &contact, table);
        if self.is_blocking(account, &contact.as_jid()) {
            // Neither hears of the other: only the roster says that it is over.
            (step.pass, step.hide) = (false, false);
        }
        if before.is_some() {
            let owner = self.accounts.at_mut(account);
            owner.change_before(&contact, |item| {
                inbound(item, type_, &bytes);
            });
            self.store_step(host, account, &contact);
        }
        if step.auto_reply {
            let reply = simple_presence("subscribed", &bare, contact.as_str());
            self.route_bytes(host, &contact.as_jid(), reply);
        }
        if step.pass {
            // RFC 6121 3.1.3, 3.1.6: a request goes to available, an answer to interested
            // resources.
            for &key in &self.accounts.at(account).sessions {
                let session = self.sessions.at(key);
                let gets = if type_ == Type::Subscribe {
                    session.available
                } else {
                    session.interested
                };
                if gets {
                    self.sessions.send(host, key, stanza);
                }
            }
        }
        self.after_step(host, account, &contact, step);
        self.evict_if_idle(account);
    }

    /// What was sent in an account's name came back as an error: if that was a request, nobody has
    /// it.
    pub(crate) fn on_request_bounced(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        from: &str,
    ) {
        let from = Jid::from_prepared(from);
        let is_local = self.router.is_local(from.domain());
        // A component keeps nothing of ours that an account would have to stay for.
        if is_local {
            self.on_farewell_bounced(host, account, &from);
        }
        let owner = self.accounts.at_mut(account);
        let item = owner.contact(from.bare()).filter(|item| item.ask);
        // A component's errors come late; with nothing else between the two there is nothing but
        // the request that they answer.
        let is_late = item.is_some_and(|it| !is_local && it.subscription == Subscription::None);
        let (asked, contact) = (item.is_some(), from.to_bare());
        // An earlier request may be there although another one came back.
        let is_settled = is_late || owner.is_telling_request(&contact);
        if !asked || !from.is_bare() || !is_settled {
            return;
        }
        owner.contact_mut(&contact).ask = false;
        owner.renew(&contact, host.now());
        owner.change_before(&contact, |before| before.ask = false);
        self.store_step(host, account, &contact);
        self.push_item(host, account, &contact);
    }

    /// Whether a request may have come back from a component when who made it has gone.
    pub(crate) fn is_late_refusal(&self, stanza: &Stanza<'_>) -> bool {
        let is_refusal = stanza.type_ == Type::Error && stanza.to.is_bare();
        let from = Jid::from_prepared(stanza.from);
        is_refusal && from.is_bare() && !self.router.is_local(from.domain())
    }

    /// Applies one step of the table; answers what the item was before, if it has to be stored.
    pub(crate) fn step(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        contact: &BareJid,
        table: impl FnOnce(&mut RosterItem) -> Step,
    ) -> (Step, Option<RosterItem>) {
        let known = self.accounts.at(account).contact(contact.as_str()).cloned();
        let new = || RosterItem::new(contact.clone());
        let before = known.clone().unwrap_or_else(new);
        let item = self.accounts.at_mut(account).contact_mut(contact);
        let step = table(item);
        let (item, blank) = (item.clone(), item.is_blank());
        if blank {
            self.accounts
                .at_mut(account)
                .remove_contact(contact.as_str());
        }
        if before.subscription.is_from() && !item.subscription.is_from() {
            self.recalculate_access(host, account, contact);
        }
        match known {
            Some(known) if known == item => return (step, None),
            None if blank => return (step, None),
            known => {
                if looks_different(&item, known.as_ref()) {
                    self.accounts.at_mut(account).renew(contact, host.now());
                }
            }
        }
        (step, Some(before))
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
            self.withdraw_account(host, account, contact.as_str(), None);
        }
        if step.begins && self.router.is_local(contact.domain()) {
            self.catch_up_with(host, account, contact);
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
        if !matches!(
            self.router.route(&contact.as_jid()),
            Route::Server | Route::Remote
        ) {
            let bytes = simple_presence(type_, from, contact.as_str());
            self.route_bytes(host, &contact.as_jid(), bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The states of RFC 6121 A.1: subscription, then `o` for pending out, `i` for pending in.
    const STATES: [&str; 9] = [
        "none", "none o", "none i", "none oi", "to", "to i", "from", "from o", "both",
    ];

    /// Per state: whether the stanza goes on, and the state behind it.
    type Table = [(bool, &'static str); 9];

    fn item(state: &str) -> RosterItem {
        let (subscription, pending) = state.split_once(' ').unwrap_or((state, ""));
        let mut item = RosterItem::new(BareJid::parse("contact@example.org").unwrap());
        item.subscription = match subscription {
            "none" => Subscription::None,
            "to" => Subscription::To,
            "from" => Subscription::From,
            _ => Subscription::Both,
        };
        item.ask = pending.contains('o');
        item.pending_in = pending.contains('i').then(|| b"<presence/>"[..].into());
        item.listed = true;
        item
    }

    fn state(item: &RosterItem) -> String {
        let (out, inward) = (item.ask, item.pending_in.is_some());
        let pending = [(out, "o"), (inward, "i")].map(|(is, sign)| if is { sign } else { "" });
        format!("{} {}", item.subscription.as_str(), pending.concat())
            .trim_end()
            .to_owned()
    }

    /// Compares every row of a table; a change that the client sees must be pushed, no other.
    fn check(name: &str, table: Table, step: impl Fn(&mut RosterItem) -> Step) {
        for (before, (passes, after)) in STATES.into_iter().zip(table) {
            let mut changed = item(before);
            let done = step(&mut changed);
            assert_eq!(
                done.pass, passes,
                "{name}: whether it goes on from {before}"
            );
            assert_eq!(
                state(&changed),
                after,
                "{name}: where it leads from {before}"
            );
            let seen = |item: &RosterItem| (item.subscription, item.ask);
            let visible = seen(&item(before)) != seen(&changed);
            assert!(!visible || done.push, "{name}: no push from {before}");
            let approves = item(before).approved != changed.approved;
            assert!(
                !done.push || visible || approves,
                "{name}: a push of nothing from {before}"
            );
        }
    }

    #[test]
    fn outbound_stanzas_obey_appendix_a_2() {
        let table = [
            (true, "none o"),
            (true, "none o"),
            (true, "none oi"),
            (true, "none oi"),
            (true, "to"),
            (true, "to i"),
            (true, "from o"),
            (true, "from o"),
            (true, "both"),
        ];
        check("A.2.1 subscribe", table, |item| {
            outbound(item, Type::Subscribe)
        });
        let table = [
            (true, "none"),
            (true, "none"),
            (true, "none i"),
            (true, "none i"),
            (true, "none"),
            (true, "none i"),
            (true, "from"),
            (true, "from"),
            (true, "from"),
        ];
        check("A.2.2 unsubscribe", table, |item| {
            outbound(item, Type::Unsubscribe)
        });
        let table = [
            (false, "none"),
            (false, "none o"),
            (true, "from"),
            (true, "from o"),
            (false, "to"),
            (true, "both"),
            (false, "from"),
            (false, "from o"),
            (false, "both"),
        ];
        check("A.2.3 subscribed", table, |item| {
            outbound(item, Type::Subscribed)
        });
        let table = [
            (false, "none"),
            (false, "none o"),
            (true, "none"),
            (true, "none o"),
            (false, "to"),
            (true, "to"),
            (true, "none"),
            (true, "none o"),
            (true, "to"),
        ];
        check("A.2.4 unsubscribed", table, |item| {
            outbound(item, Type::Unsubscribed)
        });
    }

    #[test]
    fn inbound_stanzas_obey_appendix_a_3() {
        let table = [
            (true, "none i"),
            (true, "none oi"),
            (false, "none i"),
            (false, "none oi"),
            (true, "to i"),
            (false, "to i"),
            (false, "from"),
            (false, "from o"),
            (false, "both"),
        ];
        check("A.3.1 subscribe", table, |item| {
            inbound(item, Type::Subscribe, b"<presence/>")
        });
        let table = [
            (false, "none"),
            (false, "none o"),
            (true, "none"),
            (true, "none o"),
            (false, "to"),
            (true, "to"),
            (true, "none"),
            (true, "none o"),
            (true, "to"),
        ];
        check("A.3.2 unsubscribe", table, |item| {
            inbound(item, Type::Unsubscribe, b"")
        });
        let table = [
            (false, "none"),
            (true, "to"),
            (false, "none i"),
            (true, "to i"),
            (false, "to"),
            (false, "to i"),
            (false, "from"),
            (true, "both"),
            (false, "both"),
        ];
        check("A.3.3 subscribed", table, |item| {
            inbound(item, Type::Subscribed, b"")
        });
        let table = [
            (false, "none"),
            (true, "none"),
            (false, "none i"),
            (true, "none i"),
            (true, "none"),
            (true, "none i"),
            (false, "from"),
            (true, "from"),
            (true, "from"),
        ];
        check("A.3.4 unsubscribed", table, |item| {
            inbound(item, Type::Unsubscribed, b"")
        });
    }

    #[test]
    fn the_server_answers_for_who_is_subscribed_or_was_approved_in_advance() {
        for before in STATES {
            let step = inbound(&mut item(before), Type::Subscribe, b"");
            let is_subscribed = matches!(before, "from" | "from o" | "both");
            assert_eq!(step.auto_reply, is_subscribed, "{before}");
            let mut approved = item(before);
            approved.approved = true;
            if !is_subscribed && approved.pending_in.is_none() {
                let step = inbound(&mut approved, Type::Subscribe, b"");
                assert!(
                    step.auto_reply && step.reveal && step.push && !step.pass,
                    "{before}"
                );
                assert!(approved.subscription.is_from() && approved.pending_in.is_none());
                assert!(
                    !approved.approved,
                    "{before}: an approval is good for one request"
                );
            }
        }
    }

    #[test]
    fn an_approval_is_remembered_only_where_nothing_waits_and_nobody_is_subscribed() {
        for before in STATES {
            let mut item = item(before);
            let step = outbound(&mut item, Type::Subscribed);
            let in_advance = matches!(before, "none" | "none o" | "to");
            assert_eq!(item.approved, in_advance, "{before}");
            assert_eq!(
                step.reveal, step.pass,
                "{before}: whom it is told of may see"
            );
            let step = outbound(&mut item, Type::Unsubscribed);
            assert!(!item.approved, "{before}: an approval can be taken back");
            assert!(step.push, "{before}");
        }
    }

    #[test]
    fn who_may_no_longer_see_is_shown_that_nobody_is_there() {
        for before in STATES {
            let saw = item(before).subscription.is_from();
            assert_eq!(
                outbound(&mut item(before), Type::Unsubscribed).hide,
                saw,
                "{before}"
            );
            assert_eq!(
                inbound(&mut item(before), Type::Unsubscribe, b"").hide,
                saw,
                "{before}"
            );
        }
    }
}
