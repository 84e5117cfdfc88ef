//! Rosters (RFC 6121 2): get, set, remove, and pushes to interested resources.
//!
//! Invariant: a result follows the pushes it caused, and both follow the commit.

use crate::account::{Account, AccountKey, Shown, item_size, shown_size};
use crate::error::{StanzaError, put};
use crate::host::{Host, Ticket};
use crate::limit::STORAGE_RETRY_MS;
use crate::outbox::Keep;
use crate::port::{RosterItem, StoreOp, StoreReply, Subscription};
use crate::removed::forgotten;
use crate::session::SessionKey;
use crate::shard::{Shard, Timer, Waiting};
use crate::stanza::write_reply_head;
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

/// Bytes of an item's markup as it is shown, at a guess.
const MARKUP_SIZE_MEAN: usize = 64;

/// A version that no roster has: it is told while a change is not stored, or not pushed. Who has
/// heard nothing newer by the time it asks gets the whole roster.
const NO_VERSION: &str = "0";

/// A roster write under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RosterWrite {
    pub account: AccountKey,
}

/// A client's roster set that is answered when its write is durable.
#[derive(Debug)]
pub(crate) struct RosterRequest {
    account: AccountKey,
    session: SessionKey,
    /// The session's full JID: the key may have a new user by then.
    full: Box<str>,
    iq: Box<str>,
    contact: BareJid,
    /// What to go back to if the write fails; a removal is tried until it succeeds.
    undo: Option<Undo>,
}

/// A client's change of an item that is not durable yet.
#[derive(Debug)]
struct Undo {
    /// What it changed, as it was before. What else the item says is not the client's.
    before: Fields,
    /// What [`RosterItem::changed`] is as long as no client saw a change since.
    changed: u64,
    /// Whether a step was written behind it, and the change with it.
    is_in_step: bool,
}

/// What a client's roster set changes.
#[derive(Debug)]
struct Fields {
    listed: bool,
    name: Box<str>,
    groups: Vec<Box<str>>,
    changed: u64,
    prior: u64,
}

impl Fields {
    fn of(item: &RosterItem) -> Fields {
        Fields {
            listed: item.listed,
            name: item.name.clone(),
            groups: item.groups.clone(),
            changed: item.changed,
            prior: item.prior,
        }
    }

    fn put_into(self, item: &mut RosterItem) {
        item.listed = self.listed;
        item.name = self.name;
        item.groups = self.groups;
        (item.changed, item.prior) = (self.changed, self.prior);
    }
}

/// What a client has to be told so that it knows the roster.
enum Lacks {
    Nothing,
    /// The items that changed since a version.
    Since(u64),
    Everything,
}

/// What is between an account and a contact, on its way to storage: others know of it, so there is
/// no way back.
#[derive(Clone, Debug)]
pub(crate) struct RosterStep {
    account: AccountKey,
    contact: BareJid,
    /// Whether storage has refused it: until it takes it, clients are told no version.
    refused: bool,
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
            self.note_interested(host, key);
            let queued = self.sessions.at(key).outlet.queued();
            self.send_roster(host, key, view, tree.root());
            self.sessions.at_mut(key).outlet.excuse_behind(queued);
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
        let owner = self.sessions.at(key).account;
        // Whoever asks is told what it lacks.
        self.sessions.at_mut(key).lacks_removals = false;
        let account = self.accounts.at_mut(owner);
        // RFC 6121 2.6.3: versions are named to who asked with one, and a client that has a version
        // that the roster remembers gets an empty result, and pushes of what changed since.
        let version = known.map(|_| certain_version(account));
        let lacks = known.map_or(Lacks::Everything, |known| lacks(account, known));
        let sessions = &mut self.sessions;
        sessions.write_to(host, key, Keep::Memory, |address, out| {
            write_reply_head(
                Kind::Iq,
                "result",
                address.bare(),
                address.full(),
                view.id(),
                out,
            );
            if let Lacks::Everything = lacks {
                match version {
                    Some(version) => {
                        put(
                            out,
                            format_args!("<query xmlns='jabber:iq:roster' ver='{version}'>"),
                        );
                    }
                    None => out.extend_from_slice(b"<query xmlns='jabber:iq:roster'>"),
                }
                let listed = account.roster.iter().filter(|item| item.listed);
                out.reserve(
                    listed
                        .clone()
                        .map(|item| item_size(item) + MARKUP_SIZE_MEAN)
                        .sum(),
                );
                for item in listed {
                    write_item(item, out);
                }
                out.extend_from_slice(b"</query>");
            }
            out.extend_from_slice(b"</iq>");
        });
        if let Lacks::Since(version) = lacks {
            self.push_since(host, owner, key, version);
        }
    }

    /// Pushes what changed since a version, removals too, so that its client knows the roster.
    fn push_since(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        key: SessionKey,
        since: u64,
    ) {
        let roster = &self.accounts.at(account).roster;
        let changed = roster.iter().filter(|item| item.changed > since);
        let mut changed: Vec<(u64, BareJid)> = changed
            .map(|item| (item.changed, item.contact.clone()))
            .collect();
        changed.sort_unstable();
        let last = changed.last().map(|(number, _)| *number);
        for (number, contact) in changed {
            let owner = self.accounts.at_mut(account);
            let version = match last == Some(number) || !owner.has_sure_roster() {
                true => certain_version(owner),
                // The client may be gone before the next one.
                false => write_version(number, 0),
            };
            self.push_item_to(host, account, &[key], &contact, &version);
        }
    }

    /// Pushes the whole roster, with what was removed of it.
    pub(crate) fn push_all(&mut self, host: &mut impl Host, account: AccountKey, key: SessionKey) {
        let roster = &self.accounts.at(account).roster;
        let old = roster
            .iter()
            .filter(|item| item.listed && item.changed == 0);
        let old: Vec<BareJid> = old.map(|item| item.contact.clone()).collect();
        for contact in old {
            self.push_item_to(host, account, &[key], &contact, NO_VERSION);
        }
        self.push_since(host, account, key, 0);
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
        let size = shown_size(&contact, &name, &groups);
        let owner = self.accounts.at_mut(account);
        if !owner.has_room(&contact, size, &self.settings.limits) {
            return Err(StanzaError::ResourceConstraint);
        }
        let item = owner.contact_mut(&contact);
        let before = Fields::of(item);
        let regroups = item.subscription.is_from() && item.groups != groups;
        item.name = name;
        item.groups = groups;
        item.listed = true;
        owner.renew(&contact, host.now());
        let item = owner.contact_mut(&contact).clone();
        let changed = item.changed;
        owner.change_before(&contact, |before| Fields::of(&item).put_into(before));
        let item = owner.item_to_write(&contact).cloned().unwrap_or(item);
        let full = self.sessions.at(key).full().into();
        let ticket = self.store_item(host, account, item);
        let request = RosterRequest {
            account,
            session: key,
            full,
            iq,
            contact: contact.clone(),
            undo: Some(Undo {
                before,
                changed,
                is_in_step: false,
            }),
        };
        self.accounts.at_mut(account).unsure_changes += 1;
        self.roster_requests.insert(ticket.0, request);
        if regroups {
            self.recalculate_access(host, account, &contact);
        }
        Ok(())
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
        let owner = self.accounts.at_mut(account);
        let known = owner.contact(contact.as_str());
        let Some(removed) = known.filter(|item| item.listed).cloned() else {
            return Err(StanzaError::ItemNotFound);
        };
        *owner.contact_mut(&contact) = RosterItem::new(contact.clone());
        owner.renew(&contact, host.now());
        owner.unsure_changes += 1;
        self.recalculate_access(host, account, &contact);
        let request = RosterRequest {
            account,
            session: key,
            full,
            iq,
            contact: contact.clone(),
            undo: None,
        };
        let before = removed.clone();
        self.tell_and_write(host, account, before, Some(request), |shard, host| {
            shard.part(host, account, &removed);
        });
        Ok(())
    }

    /// A contact is out of the roster: it learns what was between the two and is no more.
    pub(crate) fn part(&mut self, host: &mut impl Host, account: AccountKey, item: &RosterItem) {
        let bare = self.accounts.at(account).jid.as_str().to_owned();
        let contact = &item.contact;
        if item.subscription.is_to() || item.ask {
            self.say_subscription(host, "unsubscribe", &bare, contact);
        }
        if item.subscription.is_from() || item.pending_in.is_some() {
            // RFC 6121 3.2.2, in this order. Who only asked was told of no resource.
            if item.subscription.is_from() {
                self.withdraw_account(host, account, contact.as_str(), None);
            }
            self.say_subscription(host, "unsubscribed", &bare, contact);
        }
    }

    /// Writes what is between an account and a contact as it is now.
    pub(crate) fn store_step(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        contact: &BareJid,
    ) -> Ticket {
        self.note_in_step(account, contact);
        let item = self.accounts.at(account).item_to_write(contact).cloned();
        let ticket = match item {
            Some(item) => self.store_item(host, account, item),
            None => self.store_removal(host, account, contact),
        };
        let step = RosterStep {
            account,
            contact: contact.clone(),
            refused: false,
        };
        self.roster_steps.insert(ticket.0, step);
        ticket
    }

    /// A step is written as the item is: with what clients changed and storage has not taken yet.
    fn note_in_step(&mut self, account: AccountKey, contact: &BareJid) {
        if self.accounts.at(account).unsure_changes > 0 {
            let requests = self.roster_requests.values_mut();
            let same = requests.filter(|it| it.account == account && it.contact == *contact);
            for undo in same.filter_map(|it| it.undo.as_mut()) {
                undo.is_in_step = true;
            }
        }
    }

    /// Storage refused a request; answers whether it was a step, which is written again then. Until
    /// it is there it is unanswered: what caused it is not settled, and its session has so many
    /// requests less.
    pub(crate) fn put_off_step(&mut self, host: &mut impl Host, ticket: Ticket, why: &str) -> bool {
        let Some(step) = self.roster_steps.get_mut(&ticket.0) else {
            return false;
        };
        tracing::error!(%why, "a subscription was not stored");
        let was_refused = std::mem::replace(&mut step.refused, true);
        let (account, contact) = (step.account, step.contact.clone());
        self.roster_again.push(ticket);
        let at = host.now().plus_ms(STORAGE_RETRY_MS);
        self.arm(host, at, Timer::Roster);
        if !was_refused {
            // Clients know of it by a version that storage may never have.
            self.accounts.at_mut(account).unsure_changes += 1;
            self.push_item(host, account, &contact);
        }
        true
    }

    /// What storage refused is written again, as it is by now.
    pub(crate) fn store_steps_again(&mut self, host: &mut impl Host) {
        for ticket in std::mem::take(&mut self.roster_again) {
            let step = self.roster_steps[&ticket.0].clone();
            if self.accounts.at(step.account).is_gone {
                self.on_stored(host, ticket, StoreReply::Missing);
                continue;
            }
            self.note_in_step(step.account, &step.contact);
            let owner = self.accounts.at(step.account);
            let (account, contact) = (owner.jid.clone(), step.contact);
            let op = match owner.item_to_write(&contact).cloned() {
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
            StoreOp::PutRosterItem { item, .. } => note_shown(owner, &item.contact),
            StoreOp::RemoveRosterItem { contact, .. } => note_shown(owner, contact),
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
        let step = self.roster_steps.remove(&ticket.0);
        self.accounts.at_mut(account).pins -= 1;
        if let Some(step) = step.filter(|step| step.refused) {
            self.accounts.at_mut(account).unsure_changes -= 1;
            self.push_item(host, account, &step.contact);
        }
        let done = matches!(reply, StoreReply::Done);
        if !done {
            let jid = self.accounts.at(account).jid.as_str();
            tracing::error!(account = jid, ?reply, "roster item not stored");
        }
        if let Some(request) = self.roster_requests.remove(&ticket.0) {
            self.accounts.at_mut(account).unsure_changes -= 1;
            self.answer_roster_set(host, request, done);
        }
        self.evict_if_idle(account);
    }

    fn answer_roster_set(&mut self, host: &mut impl Host, request: RosterRequest, done: bool) {
        let RosterRequest {
            account,
            session,
            full,
            iq,
            contact,
            undo,
        } = request;
        if !done && let Some(undo) = undo {
            self.undo(host, account, &contact, undo);
        }
        // After a failure, too: somebody may have asked meanwhile.
        self.push_item(host, account, &contact);
        let alive = self.accounts.at(account).sessions.contains(&session);
        if !alive || self.sessions.at(session).full() != &*full {
            return;
        }
        let sessions = &mut self.sessions;
        sessions.write_to(host, session, Keep::Memory, |address, out| {
            let type_ = if done { "result" } else { "error" };
            let id = Some(iq.as_ref().into());
            write_reply_head(Kind::Iq, type_, address.bare(), address.full(), id, out);
            if !done {
                StanzaError::InternalServerError.write(out);
            }
            out.extend_from_slice(b"</iq>");
        });
    }

    /// Storage refused a change of an item: it is as it was, unless it was changed again.
    fn undo(&mut self, host: &mut impl Host, account: AccountKey, contact: &BareJid, undo: Undo) {
        let owner = self.accounts.at_mut(account);
        if owner.is_gone {
            return;
        }
        let now = owner.contact(contact.as_str());
        if now.is_some_and(|item| item.changed == undo.changed) {
            let item = owner.contact_mut(contact);
            undo.before.put_into(item);
            let item = item.clone();
            if item.is_blank() {
                owner.remove_contact(contact.as_str());
            }
            note_shown(owner, contact);
            owner.change_before(contact, |before| Fields::of(&item).put_into(before));
            if undo.is_in_step {
                self.store_step(host, account, contact);
            }
            return;
        }
        // What came behind it goes back to where this one would have.
        let requests = self.roster_requests.values_mut();
        let same = requests.filter(|it| it.account == account && it.contact == *contact);
        let mut later = same.filter_map(|it| it.undo.as_mut());
        let later = later.find(|later| later.before.changed == undo.changed);
        if let Some(later) = later {
            later.before = undo.before;
            // What a step has brought into storage of this one is taken back with that.
            later.is_in_step |= undo.is_in_step;
        }
    }

    /// Tells interested resources what an item is now (RFC 6121 2.1.6).
    pub(crate) fn push_item(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        contact: &BareJid,
    ) {
        let owner = self.accounts.at_mut(account);
        let sessions = owner.sessions.clone();
        let version = certain_version(owner);
        self.push_item_to(host, account, &sessions, contact, &version);
    }

    /// The same for some of them.
    fn push_item_to(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        sessions: &[SessionKey],
        contact: &BareJid,
        version: &str,
    ) {
        let account = self.accounts.at(account);
        let item = account.contact(contact.as_str()).filter(|item| item.listed);
        for &key in sessions {
            let session = self.sessions.at(key);
            if !session.interested {
                continue;
            }
            let version = match session.lacks_removals {
                true => NO_VERSION,
                false => version,
            };
            let id = host.random();
            let sessions = &mut self.sessions;
            sessions.write_to(host, key, Keep::Memory, |address, out| {
                let (from, to) = (Attr(address.bare()), Attr(address.full()));
                put(
                    out,
                    format_args!("<iq type='set' id='push-{id:016x}' from='{from}' to='{to}'>"),
                );
                put(
                    out,
                    format_args!("<query xmlns='jabber:iq:roster' ver='{version}'>"),
                );
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
        debug_assert!(item.is_none_or(|item| !item.is_blank()));
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

/// The version of a roster (RFC 6121 2.6), also after a restart: the number of its last change, and
/// a hash of what it shows, by which a change that a crash took with it is noticed.
fn version(account: &mut Account) -> String {
    let shown = account.shown.take().unwrap_or_else(|| {
        let mut shown = Box::<Shown>::default();
        for item in &account.roster {
            show(&mut shown, &item.contact, Some(item));
        }
        shown
    });
    let version = write_version(account.roster_version, shown.sum);
    account.shown = Some(shown);
    version
}

/// The version that clients may be told: none while changes are not stored, or not pushed yet, for
/// whoever had it would never hear of them.
fn certain_version(account: &mut Account) -> String {
    match account.has_sure_roster() {
        true => version(account),
        false => NO_VERSION.to_owned(),
    }
}

fn write_version(number: u64, sum: u64) -> String {
    format!("{number:x}-{sum:016x}")
}

/// What a client lacks that has a version of the roster.
///
/// A number is one of this roster's if some item was changed by it or right after it. Those that no
/// item names any more, because two later changes were of the same item, get everything; so does
/// what came from before numbers, or is not durable and was lost.
fn lacks(account: &mut Account, known: &str) -> Lacks {
    if !account.has_sure_roster() {
        return Lacks::Everything;
    }
    if known == version(account) {
        return Lacks::Nothing;
    }
    let number = known.split_once('-').map(|(number, _)| number);
    let number = number.and_then(|number| u64::from_str_radix(number, 16).ok());
    let Some(number) = number.filter(|number| (1..account.roster_version).contains(number)) else {
        return Lacks::Everything;
    };
    let is_known = |item: &RosterItem| item.changed == number || item.prior == number;
    match account.roster.iter().any(is_known) && forgotten(account) <= number {
        true => Lacks::Since(number),
        false => Lacks::Everything,
    }
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

/// What the roster shows of a contact has changed.
fn note_shown(account: &mut Account, contact: &BareJid) {
    if let Some(mut shown) = account.shown.take() {
        show(&mut shown, contact, account.contact(contact.as_str()));
        account.shown = Some(shown);
    }
}

/// Whether a client sees a difference between an item and what it was.
pub(crate) fn looks_different(item: &RosterItem, before: Option<&RosterItem>) -> bool {
    let seen = |item: &RosterItem| {
        let mut seen = Vec::new();
        if item.listed {
            write_item(item, &mut seen);
        }
        seen
    };
    seen(item) != before.map(seen).unwrap_or_default()
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
