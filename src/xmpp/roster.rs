//! Rosters (RFC 6121 2): get, set, remove, and pushes to interested resources.
//!
//! Invariant: a result follows the pushes it caused, and both follow the commit.

use crate::account::{Account, AccountKey, Shown};
use crate::error::{StanzaError, put};
use crate::host::{Host, Ticket};
use crate::limit::STORAGE_RETRY_MS;
use crate::outbox::Keep;
use crate::port::{RosterItem, StoreOp, StoreReply, Subscription};
use crate::session::{Session, SessionKey};
use crate::shard::{Shard, Timer, Waiting};
use crate::stanza::write_reply_head;
use crate::subscription::is_blank;
use crate::xml::Attr;
use stanza::jid::{BareJid, Jid, home_hash};
use stanza::ns::Ns;
use stanza::tree::{Node, Tree};
use stanza::view::{Kind, StanzaView};
use stanza::writer;

/// Bytes of an item's name, and of a group's.
pub const NAME_SIZE_MAX: usize = 1023;

/// Groups of one item.
pub const GROUPS_MAX: usize = 64;

/// Bytes of an item's name and groups together.
pub const ITEM_SIZE_MAX: usize = 4_096;

/// A roster write under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RosterWrite {
    pub account: AccountKey,
}

/// A client's roster set that is answered when its write is durable.
#[derive(Debug)]
pub(crate) struct RosterRequest {
    session: SessionKey,
    /// The session's full JID: the key may have a new user by then.
    full: Box<str>,
    iq: Box<str>,
    contact: BareJid,
    /// The item before the write, to go back to if it fails.
    before: Option<RosterItem>,
}

/// What is between an account and a contact, on its way to storage: others know of it, so there is
/// no way back.
#[derive(Clone, Debug)]
pub(crate) struct RosterStep {
    account: AccountKey,
    contact: BareJid,
}

/// A parsed roster set.
struct Change {
    contact: BareJid,
    /// `None` removes the contact.
    fields: Option<(Box<str>, Vec<Box<str>>)>,
}

impl Shard {
    /// A roster request of a client to its own account.
    pub(crate) fn on_roster(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        tree: &Tree<'_>,
        is_set: bool,
    ) -> Result<(), StanzaError> {
        if !is_set {
            self.send_roster(host, key, view, tree.root());
            self.save_session(host, key);
            return Ok(());
        }
        if self.is_anonymous(key) {
            return Err(StanzaError::NotAllowed);
        }
        let query = tree
            .root()
            .child("query", Ns::Roster)
            .ok_or(StanzaError::BadRequest)?;
        let change = parse_change(query)?;
        let session = self.sessions.at(key);
        // RFC 6121 2.1.2.1 leaves one's own address in one's roster undefined; nobody has it.
        if change.contact.as_str() == session.bare() {
            return Err(StanzaError::NotAllowed);
        }
        let iq = view.id().unwrap_or_default().as_ref().into();
        match change.fields {
            Some((name, groups)) => self.set_item(host, key, iq, change.contact, name, groups),
            None => self.remove_item(host, key, iq, change.contact),
        }
    }

    fn send_roster(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        root: Node<'_>,
    ) {
        let known = root
            .child("query", Ns::Roster)
            .and_then(|query| query.attr("ver"));
        let Session {
            outlet,
            address,
            account,
            interested,
            ..
        } = self.sessions.at_mut(key);
        *interested = true;
        let account = self.accounts.at_mut(*account);
        // RFC 6121 2.6.3: versions are named to who asked with one, and a client that has the
        // current one gets an empty result.
        let version = known.map(|_| version(account));
        outlet.send(host, Keep::Memory, |out| {
            write_reply_head(
                Kind::Iq,
                "result",
                address.bare(),
                address.full(),
                view.id(),
                out,
            );
            if known.is_none() || known != version.as_deref() {
                match version {
                    Some(version) => {
                        put(
                            out,
                            format_args!("<query xmlns='jabber:iq:roster' ver='{version}'>"),
                        );
                    }
                    None => out.extend_from_slice(b"<query xmlns='jabber:iq:roster'>"),
                }
                for item in account.roster.iter().filter(|item| item.listed) {
                    write_item(item, out);
                }
                out.extend_from_slice(b"</query>");
            }
            out.extend_from_slice(b"</iq>");
        });
    }

    fn set_item(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        iq: Box<str>,
        contact: BareJid,
        name: Box<str>,
        groups: Vec<Box<str>>,
    ) -> Result<(), StanzaError> {
        let account = self.sessions.at(key).account;
        let before = self.accounts.at(account).contact(contact.as_str()).cloned();
        if self.is_beyond_roster(account, &contact) {
            return Err(StanzaError::ResourceConstraint);
        }
        let item = self.accounts.at_mut(account).contact_mut(&contact);
        item.name = name;
        item.groups = groups;
        item.listed = true;
        let item = item.clone();
        let full = self.sessions.at(key).full().into();
        let ticket = self.store_item(host, account, item);
        let request = RosterRequest {
            session: key,
            full,
            iq,
            contact,
            before,
        };
        self.accounts.at_mut(account).roster_sets += 1;
        self.roster_requests.insert(ticket.0, request);
        Ok(())
    }

    /// Whether a contact is not in the roster, and the roster has as many as it may. Requests of
    /// strangers are none of the account's own contacts.
    pub(crate) fn is_beyond_roster(&self, account: AccountKey, contact: &BareJid) -> bool {
        let account = self.accounts.at(account);
        let known = account.contact(contact.as_str());
        let listed = account.roster.iter().filter(|item| item.listed);
        !known.is_some_and(|item| item.listed)
            && listed.count() >= self.settings.limits.roster_items_max
    }

    /// RFC 6121 2.5: the subscriptions go with the item, and the contact learns of it: before what
    /// the client sends it next.
    fn remove_item(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        iq: Box<str>,
        contact: BareJid,
    ) -> Result<(), StanzaError> {
        let session = self.sessions.at(key);
        let account = session.account;
        let full = session.full().into();
        let listed = self.accounts.at(account).contact(contact.as_str());
        if !listed.is_some_and(|item| item.listed) {
            return Err(StanzaError::ItemNotFound);
        }
        let removed = self
            .accounts
            .at_mut(account)
            .remove_contact(contact.as_str());
        let ticket = self.store_step(host, account, &contact);
        if let Some(item) = removed {
            self.part(host, account, &item);
        }
        let request = RosterRequest {
            session: key,
            full,
            iq,
            contact,
            before: None,
        };
        self.accounts.at_mut(account).roster_sets += 1;
        self.roster_requests.insert(ticket.0, request);
        Ok(())
    }

    /// A contact is out of the roster: it learns what was between the two and is no more.
    fn part(&mut self, host: &mut impl Host, account: AccountKey, item: &RosterItem) {
        let bare = self.accounts.at(account).jid.as_str().to_owned();
        let contact = &item.contact;
        if item.subscription.is_to() || item.ask {
            self.say_subscription(host, "unsubscribe", &bare, contact);
        }
        if item.subscription.is_from() || item.pending_in.is_some() {
            self.say_subscription(host, "unsubscribed", &bare, contact);
            self.withdraw_account(host, account, contact.as_str());
        }
    }

    /// Writes what is between an account and a contact as it is now.
    pub(crate) fn store_step(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        contact: &BareJid,
    ) -> Ticket {
        let item = self.accounts.at(account).contact(contact.as_str()).cloned();
        let ticket = match item {
            Some(item) => self.store_item(host, account, item),
            None => self.store_removal(host, account, contact),
        };
        let contact = contact.clone();
        let step = RosterStep { account, contact };
        self.roster_steps.insert(ticket.0, step);
        ticket
    }

    /// Storage refused a request; answers whether it was a step, which is written again then. Until
    /// it is there it is unanswered: what caused it is not settled, and its session has so many
    /// requests less.
    pub(crate) fn put_off_step(&mut self, host: &mut impl Host, ticket: Ticket) -> bool {
        let is_step = self.roster_steps.contains_key(&ticket.0);
        if is_step {
            self.roster_again.push(ticket);
            let at = host.now().plus_ms(STORAGE_RETRY_MS);
            self.arm(host, at, Timer::Roster);
        }
        is_step
    }

    /// What storage refused is written again, as it is by now.
    pub(crate) fn store_steps_again(&mut self, host: &mut impl Host) {
        for ticket in std::mem::take(&mut self.roster_again) {
            let step = self.roster_steps[&ticket.0].clone();
            let owner = self.accounts.at(step.account);
            let (account, contact) = (owner.jid.clone(), step.contact);
            let op = match owner.contact(contact.as_str()).cloned() {
                Some(item) => StoreOp::PutRosterItem {
                    account,
                    item: Box::new(item),
                },
                None => StoreOp::RemoveRosterItem { account, contact },
            };
            host.store(ticket, op);
        }
    }

    /// Writes an item as it is from now on.
    pub(crate) fn store_item(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        item: RosterItem,
    ) -> Ticket {
        let op = StoreOp::PutRosterItem {
            account: self.accounts.at(account).jid.clone(),
            item: Box::new(item),
        };
        self.write_roster(host, account, op)
    }

    /// Removes an item.
    pub(crate) fn store_removal(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        contact: &BareJid,
    ) -> Ticket {
        let op = StoreOp::RemoveRosterItem {
            account: self.accounts.at(account).jid.clone(),
            contact: contact.clone(),
        };
        self.write_roster(host, account, op)
    }

    fn write_roster(&mut self, host: &mut impl Host, account: AccountKey, op: StoreOp) -> Ticket {
        let owner = self.accounts.at_mut(account);
        owner.pins += 1;
        match &op {
            StoreOp::PutRosterItem { item, .. } => note_change(owner, &item.contact),
            StoreOp::RemoveRosterItem { contact, .. } => note_change(owner, contact),
            _ => {}
        }
        let ticket = self.ticket(Waiting::Roster(RosterWrite { account }));
        host.store(ticket, op);
        ticket
    }

    /// Storage answered a roster write.
    pub(crate) fn on_roster_stored(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        write: RosterWrite,
        reply: StoreReply,
    ) {
        let account = write.account;
        self.roster_steps.remove(&ticket.0);
        self.accounts.at_mut(account).pins -= 1;
        let done = matches!(reply, StoreReply::Done);
        if !done {
            let jid = self.accounts.at(account).jid.as_str();
            tracing::error!(account = jid, ?reply, "roster item not stored");
        }
        if let Some(request) = self.roster_requests.remove(&ticket.0) {
            self.accounts.at_mut(account).roster_sets -= 1;
            self.answer_roster_set(host, account, request, done);
        }
        self.evict_if_idle(account);
    }

    fn answer_roster_set(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        request: RosterRequest,
        done: bool,
    ) {
        let RosterRequest {
            session,
            full,
            iq,
            contact,
            before,
        } = request;
        if done {
            self.push_item(host, account, &contact);
        } else {
            let account = self.accounts.at_mut(account);
            account.remove_contact(contact.as_str());
            if let Some(before) = before {
                *account.contact_mut(&contact) = before;
            }
            note_change(account, &contact);
        }
        let alive = self.accounts.at(account).sessions.contains(&session);
        if !alive || self.sessions.at(session).full() != &*full {
            return;
        }
        let Session {
            outlet, address, ..
        } = self.sessions.at_mut(session);
        outlet.send(host, Keep::Memory, |out| {
            let type_ = if done { "result" } else { "error" };
            let id = Some(iq.as_ref().into());
            write_reply_head(Kind::Iq, type_, address.bare(), address.full(), id, out);
            if !done {
                StanzaError::InternalServerError.write(out);
            }
            out.extend_from_slice(b"</iq>");
        });
    }

    /// Tells interested resources what an item is now (RFC 6121 2.1.6).
    pub(crate) fn push_item(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        contact: &BareJid,
    ) {
        let sessions = self.accounts.at(account).sessions.clone();
        self.push_item_to(host, account, &sessions, contact);
    }

    /// The same for some of them.
    pub(crate) fn push_item_to(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        sessions: &[SessionKey],
        contact: &BareJid,
    ) {
        let account = self.accounts.at_mut(account);
        // The roster has changes that are not pushed yet: whoever had only this push and its
        // version would never hear of them.
        let version = (account.roster_sets == 0).then(|| version(account));
        let item = account.contact(contact.as_str()).filter(|item| item.listed);
        for &key in sessions {
            let Session {
                outlet,
                address,
                interested,
                ..
            } = self.sessions.at_mut(key);
            if !*interested {
                continue;
            }
            let id = host.random();
            outlet.send(host, Keep::Memory, |out| {
                let to = Attr(address.full());
                put(
                    out,
                    format_args!("<iq type='set' id='push-{id:016x}' to='{to}'>"),
                );
                match &version {
                    Some(version) => put(
                        out,
                        format_args!("<query xmlns='jabber:iq:roster' ver='{version}'>"),
                    ),
                    None => out.extend_from_slice(b"<query xmlns='jabber:iq:roster'>"),
                }
                match item {
                    Some(item) => write_item(item, out),
                    None => {
                        let jid = Attr(contact.as_str());
                        put(
                            out,
                            format_args!("<item jid='{jid}' subscription='remove'/>"),
                        );
                    }
                }
                out.extend_from_slice(b"</query></iq>");
            });
        }
        debug_assert!(item.is_none_or(|item| !is_blank(item)));
    }
}

/// Reads a roster set (RFC 6121 2.1.5, 2.3.3, 2.5.3).
fn parse_change(query: Node<'_>) -> Result<Change, StanzaError> {
    let mut items = query.children();
    let (Some(item), None) = (items.next(), items.next()) else {
        return Err(StanzaError::BadRequest);
    };
    if !item.is("item", Ns::Roster) {
        return Err(StanzaError::BadRequest);
    }
    let jid = Jid::parse(item.attr("jid").ok_or(StanzaError::BadRequest)?);
    let contact = jid.map_err(|_| StanzaError::JidMalformed)?.to_bare();
    // RFC 6121 2.1.2.5: of `subscription` a server heeds nothing but `remove`, of `ask` nothing.
    if item.attr("subscription") == Some("remove") {
        return Ok(Change {
            contact,
            fields: None,
        });
    }
    let name = item.attr("name").unwrap_or_default();
    if name.len() > NAME_SIZE_MAX {
        return Err(StanzaError::NotAcceptable);
    }
    let mut groups: Vec<Box<str>> = Vec::new();
    for node in item.children().filter(|node| node.is("group", Ns::Roster)) {
        let group = node.text();
        if group.is_empty() || group.len() > NAME_SIZE_MAX || groups.len() >= GROUPS_MAX {
            return Err(StanzaError::NotAcceptable);
        }
        if groups.iter().any(|known| **known == *group) {
            return Err(StanzaError::BadRequest);
        }
        groups.push(group.into());
    }
    let size: usize = groups.iter().map(|group| group.len()).sum();
    if name.len() + size > ITEM_SIZE_MAX {
        return Err(StanzaError::NotAcceptable);
    }
    Ok(Change {
        contact,
        fields: Some((name.into(), groups)),
    })
}

/// The version of a roster (RFC 6121 2.6): the same for the same items, also after a restart.
fn version(account: &mut Account) -> String {
    let shown = account.shown.take().unwrap_or_else(|| {
        let mut shown = Box::<Shown>::default();
        for item in &account.roster {
            show(&mut shown, &item.contact, Some(item));
        }
        shown
    });
    let version = format!("{:016x}", shown.sum);
    account.shown = Some(shown);
    version
}

/// Enters an item, or that it is gone, into what the version is made from.
fn show(shown: &mut Shown, contact: &BareJid, item: Option<&RosterItem>) {
    let hash = item.filter(|item| item.listed).map(|item| {
        let mut seen = Vec::new();
        write_item(item, &mut seen);
        home_hash(std::str::from_utf8(&seen).expect("items are written as UTF-8"))
    });
    let before = match hash {
        Some(hash) => shown.items.insert(contact.clone(), hash),
        None => shown.items.remove(contact),
    };
    shown.sum ^= hash.unwrap_or(0) ^ before.unwrap_or(0);
}

/// The item of a contact has changed.
fn note_change(account: &mut Account, contact: &BareJid) {
    if let Some(mut shown) = account.shown.take() {
        show(&mut shown, contact, account.contact(contact.as_str()));
        account.shown = Some(shown);
    }
}

/// Appends an item as a client sees it (RFC 6121 2.1.2).
fn write_item(item: &RosterItem, out: &mut Vec<u8>) {
    let mut open = writer::open(out, "item").attr("jid", item.contact.as_str());
    if !item.name.is_empty() {
        open = open.attr("name", &item.name);
    }
    open = open.attr("subscription", item.subscription.as_str());
    if item.ask {
        open = open.attr("ask", "subscribe");
    }
    // RFC 6121 2.1.2.1: shown only while the contact is not subscribed.
    if item.approved && matches!(item.subscription, Subscription::None | Subscription::To) {
        open = open.attr("approved", "true");
    }
    if item.groups.is_empty() {
        open.close_empty();
        return;
    }
    open.start();
    for group in &item.groups {
        writer::text(out, "group", group);
    }
    writer::close(out, "item");
}
