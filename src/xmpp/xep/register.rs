//! XEP-0077: In-Band Registration. What a logged-in client may do with its account: look, change
//! its password, cancel; an administrator cancels it in the same way. Creating one comes before
//! authentication, see `stream::register`.
//!
//! Invariant: an account is cancelled when none of its contacts has a subscription with it any
//! more, in storage, and whoever sent what waits for it has heard that it does not arrive. Nobody
//! could say either again afterwards, and the name may have a new owner.

use super::client_access::AccessRequest;
use super::{Answer, Context, Extension, Request, Target, Xep};
use crate::account::{AccountKey, Residence, Waiter};
use crate::errand::Administrator;
use crate::error::{StanzaError, StreamError, put};
use crate::host::{Host, Ticket, random_bytes};
use crate::port::{RosterItem, StoreOp, StoreReply, Subscription};
use crate::revoke::Revoked;
use crate::session::SessionKey;
use crate::settle::Cause;
use crate::shard::{Shard, Waiting};
use crate::stanza::Type;
use crate::stream::sasl::{DeriveJob, Derived, Password, Salts};
use crate::subscription::{Step, outbound};
use crate::xml::Attr;
use stanza::jid::{BareJid, Jid};
use stanza::ns::Ns;
use stanza::tree::{Node, Tree};
use stanza::view::StanzaView;
use std::collections::VecDeque;

/// Contacts that are told at a time of an account's end. Each takes a few requests to storage.
pub const CONTACTS_TOLD_MAX: usize = 32;

/// Messages that wait for an account and bounce at a time at its end.
pub const LEFTOVERS_BOUNCED_MAX: usize = 32;

/// Registration as a logged-in client sees it.
#[derive(Debug)]
pub struct Register;

impl Extension for Register {
    const XEP: Xep = Xep {
        number: 77,
        version: "2.4",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::Register];
    const FEATURES: &'static [Ns] = &[Ns::Register];

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        if request.target == Target::Other || request.is_set {
            return Err(StanzaError::ServiceUnavailable);
        }
        let local = context.account.local().unwrap_or_default();
        put(
            payload,
            format_args!(
                "<query xmlns='jabber:iq:register'><registered/><username>{}</username>\
                 <password/></query>",
                Attr(local)
            ),
        );
        Ok(Answer::Now)
    }
}

/// A change of an account that waits for its keys or for storage.
#[derive(Debug)]
pub(crate) enum AccountChange {
    /// The new password's keys, then their commit.
    Password {
        account: AccountKey,
        answer: crate::iq::IqRequest,
    },
    /// The account's end.
    Cancellation(Cancellation),
    /// What has access to it, to be listed or to be taken back.
    Access(AccessRequest),
    /// The end of what its old keys let in.
    NewKeys { account: BareJid, by: Administrator },
}

/// The end of an account: of its subscriptions first, on both sides, then of what waits for it, and
/// then of itself.
#[derive(Debug)]
pub(crate) struct Cancellation {
    account: AccountKey,
    by: Canceller,
    /// Those who are not told yet.
    contacts: Vec<BareJid>,
    /// How many effects it waits for.
    pub open: u32,
    /// Whether a contact could not be told: the account stays.
    refused: bool,
    /// What waits for the account, oldest first, as far as it has not bounced.
    leftovers: VecDeque<(u64, Box<[u8]>)>,
    /// Whether that is not read yet, for more is on its way to storage.
    reads_later: bool,
}

/// Who ends an account, and hears what became of that.
#[derive(Debug)]
enum Canceller {
    /// Its client.
    Client(crate::iq::IqRequest),
    /// An administrator.
    Administrator(Administrator),
}

impl Shard {
    /// A set of a logged-in client: a new password, or the end of the account.
    pub(crate) fn on_account_change(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        tree: &Tree<'_>,
        target: Target,
    ) -> Result<(), StanzaError> {
        let query = tree
            .root()
            .child("query", Ns::Register)
            .ok_or(StanzaError::BadRequest)?;
        let account = self.sessions.at(key).account;
        let answer = self.iq_request(key, view, target);
        if self.accounts.at(account).leaving.is_some() {
            return Err(StanzaError::UnexpectedRequest);
        }
        if query.child("remove", Ns::Register).is_some() {
            // XEP-0077 3.2: `<remove/>` stands alone.
            if query.children().count() != 1 {
                return Err(StanzaError::BadRequest);
            }
            self.cancel(host, account, Canceller::Client(answer));
            return Ok(());
        }
        let owner = self.accounts.at(account);
        let password = new_password(query, &owner.jid)?;
        // All logins by PLAIN wait behind the derivations of who asks for many at a time.
        if owner.changes_password {
            return Err(StanzaError::ResourceConstraint);
        }
        let salts: Salts = [random_bytes(host), random_bytes(host), random_bytes(host)];
        let rounds = self.settings.scram_iterations;
        let job = DeriveJob::new_credentials(&password, salts, rounds)
            .map_err(|_| StanzaError::NotAcceptable)?;
        let ticket = self.change(account, AccountChange::Password { account, answer });
        if !host.derive(ticket, Box::new(job)) {
            self.forget(host, ticket);
            self.account_changes.remove(&ticket.0);
            self.accounts.at_mut(account).pins -= 1;
            return Err(StanzaError::ResourceConstraint);
        }
        self.accounts.at_mut(account).changes_password = true;
        Ok(())
    }

    pub(super) fn change(&mut self, account: AccountKey, change: AccountChange) -> Ticket {
        self.accounts.at_mut(account).pins += 1;
        let ticket = self.ticket(Waiting::AccountChange);
        self.account_changes.insert(ticket.0, change);
        ticket
    }

    /// The keys of a new password are there.
    pub(crate) fn on_password_derived(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        derived: Derived,
    ) {
        let Derived::Credentials(credentials) = derived else {
            return;
        };
        let Some(change) = self.account_changes.remove(&ticket.0) else {
            return;
        };
        let AccountChange::Password { account, answer } = change else {
            return;
        };
        let owner = self.accounts.at(account);
        // The account's end may be behind this write, or before it: then it is the password of
        // whoever has the name next.
        if owner.is_gone || owner.leaving.is_some() {
            let error = StanzaError::UnexpectedRequest;
            return self.password_changed(host, account, &answer, Err(error));
        }
        let asker = self.asker_of(&answer);
        // Its own client knows the new one; what else was let in by the old one is not again.
        let keeps = asker.and_then(|key| self.sessions.agents.get(&key).copied());
        let op = StoreOp::SetCredentials {
            account: self.accounts.at(account).jid.clone(),
            credentials,
            keeps,
        };
        let ticket = self.ticket(Waiting::AccountChange);
        let change = AccountChange::Password { account, answer };
        self.account_changes.insert(ticket.0, change);
        host.store(ticket, op);
    }

    /// A password is changed, or it is not.
    fn password_changed(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        answer: &crate::iq::IqRequest,
        outcome: Result<(), StanzaError>,
    ) {
        self.reply(host, answer, outcome.map(|()| &[][..]));
        let owner = self.accounts.at_mut(account);
        owner.changes_password = false;
        owner.pins -= 1;
        self.evict_if_idle(account);
    }

    /// Storage answered a change of an account.
    pub(crate) fn on_account_changed(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        reply: StoreReply,
    ) {
        let Some(change) = self.account_changes.remove(&ticket.0) else {
            return;
        };
        match change {
            AccountChange::Password { account, answer } => {
                // Also where nobody knows whether storage has it.
                let jid = self.accounts.at(account).jid.clone();
                self.outdate_proofs(jid.as_str());
                let is_done = reply == StoreReply::Done;
                let but = self.asker_of(&answer);
                self.password_changed(host, account, &answer, super::done(reply));
                if is_done {
                    let whose = Revoked::All { but };
                    self.revoke_access(host, jid.as_str(), whose, "the password was changed");
                }
            }
            AccountChange::Access(request) => self.on_access_stored(host, request, reply),
            AccountChange::NewKeys { account, by } => {
                self.on_agents_forgotten(host, &account, by, reply);
            }
            AccountChange::Cancellation(Cancellation { account, by, .. }) => {
                let owner = self.accounts.at_mut(account);
                (owner.leaving, owner.is_ending) = (None, false);
                let is_done = reply == StoreReply::Done;
                match by {
                    Canceller::Client(answer) => {
                        let outcome = super::done(reply);
                        self.reply(host, &answer, outcome.map(|()| &[][..]));
                    }
                    Canceller::Administrator(by) => self.tell_administrator(host, by, reply),
                }
                if is_done {
                    let jid = self.accounts.at(account).jid.clone();
                    tracing::info!(account = jid.as_str(), "account cancelled");
                    self.end_account(host, jid.as_str(), StreamError::NotAuthorized);
                } else {
                    self.deliver_late(host, account);
                }
                self.accounts.at_mut(account).pins -= 1;
                self.evict_if_idle(account);
            }
        }
    }

    /// An administrator deletes an account at home here.
    pub(crate) fn on_deletion(
        &mut self,
        host: &mut impl Host,
        account: &BareJid,
        by: Administrator,
    ) {
        let key = self.loaded_or_loading(host, account.as_str());
        match &mut self.accounts.at_mut(key).residence {
            Residence::Loading(queue) => queue.push(Waiter::Deletion(by)),
            Residence::Resident => self.delete(host, key, by),
        }
    }

    /// The same once it is loaded: it ends as if its client cancelled it.
    pub(crate) fn delete(&mut self, host: &mut impl Host, account: AccountKey, by: Administrator) {
        if self.accounts.at(account).leaving.is_some() {
            let why = "its end is under way already".into();
            return self.tell_administrator(host, by, StoreReply::Failed(why));
        }
        // Whatever led to the load has nothing to do with it.
        let before = (self.cause.take(), self.asker.take());
        self.cancel(host, account, Canceller::Administrator(by));
        (self.cause, self.asker) = before;
    }

    fn cancel(&mut self, host: &mut impl Host, account: AccountKey, by: Canceller) {
        let owner = self.accounts.at(account);
        let related = owner.roster.iter().filter(|item| is_related(item));
        // Of those whom something is being told the roster may say nothing already.
        let contacts = related.map(|item| &item.contact);
        let mut contacts: Vec<BareJid> = contacts.chain(owner.told_contacts()).cloned().collect();
        contacts.sort_unstable();
        contacts.dedup();
        let cancellation = Cancellation {
            account,
            by,
            contacts,
            open: 0,
            refused: false,
            leftovers: VecDeque::new(),
            reads_later: false,
        };
        let ticket = self.change(account, AccountChange::Cancellation(cancellation));
        self.accounts.at_mut(account).leaving = Some(ticket);
        self.leave_contacts(host, ticket);
    }

    /// A cancellation that waits for what contacts are told.
    pub(crate) fn cancellation(&mut self, ticket: Ticket) -> Option<&mut Cancellation> {
        match self.account_changes.get_mut(&ticket.0) {
            Some(AccountChange::Cancellation(cancellation)) => Some(cancellation),
            _ => None,
        }
    }

    /// Contacts of an account that ends see its subscriptions end (XEP-0077 3.2): the next of them.
    fn leave_contacts(&mut self, host: &mut impl Host, ticket: Ticket) {
        let Some(cancellation) = self.cancellation(ticket) else {
            return;
        };
        cancellation.open += 1;
        let account = cancellation.account;
        let rest = cancellation.contacts.len();
        let rest = rest.saturating_sub(CONTACTS_TOLD_MAX);
        let contacts = cancellation.contacts.split_off(rest);
        let cause = Cause::Cancellation { ticket };
        // The request counts once for its session, however many contacts there are.
        let before = (self.cause.replace(cause), self.asker.take());
        for contact in contacts {
            self.leave_contact(host, account, &contact);
        }
        (self.cause, self.asker) = before;
        self.close_effect(host, Some(cause));
    }

    /// Both sides are as if the client had ended the two subscriptions: if the account stays after
    /// all, its roster is right.
    fn leave_contact(&mut self, host: &mut impl Host, account: AccountKey, contact: &BareJid) {
        let known = self.accounts.at(account).contact(contact.as_str());
        let known = known.cloned();
        let before = known.unwrap_or_else(|| RosterItem::new(contact.clone()));
        let (step, _) = self.step(host, account, contact, |item| {
            let ended = [Type::Unsubscribe, Type::Unsubscribed].map(|type_| outbound(item, type_));
            Step {
                push: ended.iter().any(|step| step.push),
                ..Step::default()
            }
        });
        if step.push {
            self.push_item(host, account, contact);
        }
        // Where nothing was between the two, what is being told of an earlier step comes first.
        self.tell_and_write(host, account, before.clone(), None, |shard, host| {
            shard.part(host, account, &before);
        });
    }

    /// One of the effects of a cancellation is there: after the last one more contacts are told, or
    /// the account goes.
    pub(crate) fn close_cancellation(&mut self, host: &mut impl Host, ticket: Ticket) {
        let Some(cancellation) = self.cancellation(ticket) else {
            return;
        };
        cancellation.open -= 1;
        if cancellation.open > 0 {
            return;
        }
        let all_told = cancellation.contacts.is_empty();
        match () {
            () if cancellation.refused => {
                let reply = StoreReply::Failed("a contact could not be told".into());
                let before = self.cause;
                self.on_stored(host, ticket, reply);
                self.cause = before;
            }
            () if !all_told => self.leave_contacts(host, ticket),
            () => self.end_leftovers(host, ticket),
        }
    }

    /// What waits for an account that ends bounces, some at a time; their senders' shards have the
    /// errors before the next do. What would wait from now on bounces by itself, so that there is
    /// an end of it, and when nothing is left the account goes.
    fn end_leftovers(&mut self, host: &mut impl Host, ticket: Ticket) {
        loop {
            let Some(cancellation) = self.cancellation(ticket) else {
                return;
            };
            if cancellation.leftovers.is_empty() {
                break;
            }
            cancellation.open += 1;
            self.bounce_leftovers(host, ticket);
            let Some(cancellation) = self.cancellation(ticket) else {
                return;
            };
            cancellation.open -= 1;
            if cancellation.open > 0 {
                return;
            }
        }
        let Some(cancellation) = self.cancellation(ticket) else {
            return;
        };
        let account = cancellation.account;
        let owner = self.accounts.at_mut(account);
        owner.is_ending = true;
        let (reads_later, has_waiting) = (owner.storing > 0, owner.has_waiting);
        if reads_later {
            if let Some(cancellation) = self.cancellation(ticket) {
                cancellation.reads_later = true;
            }
            return;
        }
        let jid = owner.jid.clone();
        if has_waiting {
            owner.has_waiting = false;
            let ticket = self.ticket_for_itself(Waiting::Leftovers(ticket));
            return host.store(ticket, StoreOp::Offline { account: jid });
        }
        host.store(ticket, StoreOp::DeleteAccount { account: jid });
    }

    fn bounce_leftovers(&mut self, host: &mut impl Host, ticket: Ticket) {
        let Some(cancellation) = self.cancellation(ticket) else {
            return;
        };
        let account = cancellation.account;
        let count = cancellation.leftovers.len().min(LEFTOVERS_BOUNCED_MAX);
        let next: Vec<(u64, Box<[u8]>)> = cancellation.leftovers.drain(..count).collect();
        let cause = Some(Cause::Cancellation { ticket });
        let before = (
            std::mem::replace(&mut self.cause, cause),
            self.origin.take(),
            self.asker.take(),
        );
        for (number, bytes) in next {
            // A client was given it, or nobody is to be.
            if !self.accounts.at(account).handed.is_open(number) {
                continue;
            }
            self.accounts.at_mut(account).handed.pass_over(number);
            if !self.has_bounced(account, &bytes) {
                self.bounce_bytes(host, &bytes, StanzaError::ServiceUnavailable);
            }
        }
        (self.cause, self.origin, self.asker) = before;
        // Where the account stays after all, what bounced does not come.
        self.remove_done(host, account);
    }

    /// What waits for an account that ends is there.
    pub(crate) fn on_leftovers(&mut self, host: &mut impl Host, ticket: Ticket, reply: StoreReply) {
        let Some(cancellation) = self.cancellation(ticket) else {
            return;
        };
        let account = cancellation.account;
        let StoreReply::Offline(waiting) = reply else {
            tracing::error!(?reply, "offline messages not read");
            self.accounts.at_mut(account).has_waiting = true;
            let reply = StoreReply::Failed("what waits for it could not be read".into());
            return self.on_stored(host, ticket, reply);
        };
        self.accounts.at_mut(account).handed.begin(&waiting);
        let Some(cancellation) = self.cancellation(ticket) else {
            return;
        };
        let messages = waiting.into_iter();
        cancellation.leftovers = messages
            .map(|(number, (_, bytes))| (number, bytes))
            .collect();
        self.end_leftovers(host, ticket);
    }

    /// All that was on its way to what waits for an account is there. If it ends, that is read now.
    pub(crate) fn read_leftovers(&mut self, host: &mut impl Host, account: AccountKey) {
        let Some(ticket) = self.accounts.at(account).leaving else {
            return;
        };
        let cancellation = self.cancellation(ticket);
        if cancellation.is_some_and(|it| std::mem::take(&mut it.reads_later)) {
            self.end_leftovers(host, ticket);
        }
    }

    /// What was sent in an account's name came back as an error. If that was its farewell to a
    /// contact, that one's side is what it was, and so the own one is, too.
    pub(crate) fn on_farewell_bounced(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        from: &Jid<'_>,
    ) {
        let owner = self.accounts.at_mut(account);
        let Some(ticket) = owner.leaving.filter(|_| from.is_bare()) else {
            return;
        };
        let contact = from.to_bare();
        let cause = Cause::Cancellation { ticket };
        let Some(before) = owner.before_step(&contact, cause).cloned() else {
            return;
        };
        let item = owner.contact_mut(&contact);
        (item.subscription, item.ask) = (before.subscription, before.ask);
        (item.approved, item.pending_in) = (before.approved, before.pending_in);
        if item.listed {
            owner.renew(&contact, host.now());
            self.push_item(host, account, &contact);
        }
        if let Some(cancellation) = self.cancellation(ticket) {
            cancellation.refused = true;
        }
    }
}

/// Whether something is between an account and a contact, or will be when that asks.
fn is_related(item: &RosterItem) -> bool {
    item.subscription != Subscription::None
        || item.ask
        || item.approved
        || item.pending_in.is_some()
}

/// The new password of a request that names its own account (XEP-0077 3.3).
fn new_password(query: Node<'_>, account: &BareJid) -> Result<Password, StanzaError> {
    let text = |name| {
        query
            .child(name, Ns::Register)
            .map(|node| node.text().to_owned())
    };
    let (Some(username), Some(password)) = (text("username"), text("password")) else {
        return Err(StanzaError::BadRequest);
    };
    let named = BareJid::parse(&format!("{username}@{}", account.domain()));
    if named.as_ref() != Ok(account) {
        return Err(StanzaError::NotAllowed);
    }
    if password.is_empty() {
        return Err(StanzaError::NotAcceptable);
    }
    Ok(Password::new(password))
}
