//! XEP-0191: Blocking Command. What comes from a blocked address is as if the account were not
//! there.
//!
//! Invariant: blocking comes before archive, carbons, offline storage and push; and a change that
//! is answered by an error has not happened.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::reporting::Report;
use super::{Extension, Xep};
use crate::account::AccountKey;
use crate::error::{StanzaError, put};
use crate::host::Host;
use crate::limit::REQUESTS_PER_SESSION_MAX;
use crate::outbox::Keep;
use crate::port::{StoreOp, StoreReply};
use crate::presence::Chosen;
use crate::request::Asker;
use crate::session::{SessionHandle, SessionKey, Sessions};
use crate::settle::Cause;
use crate::shard::{Shard, Timer, Waiting};
use crate::stanza::{Stanza, Type, write_reply_head};
use crate::xml::Attr;
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::tree::{Node, Tree};
use stanza::view::{Kind, StanzaView};

/// Addresses that one account may block.
pub const BLOCKED_MAX: usize = 1_000;

/// Bytes of them: the list is stored whole at each change.
pub const BLOCKED_SIZE_MAX: usize = 256 << 10;

/// Bytes of one list that storage is given in a millisecond: it is written as a whole, as often as
/// a client changes it by one address.
const BLOCKED_SIZE_PER_MS: usize = 1 << 10;

/// The block list. It changes live state of the account, so its requests are answered by the shard.
#[derive(Debug)]
pub struct Blocking;

impl Extension for Blocking {
    const XEP: Xep = Xep {
        number: 191,
        version: "1.3",
    };
    const FEATURES: &'static [Ns] = &[Ns::Blocking];
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// The list, asked for behind changes that are not stored.
    List,
    Block,
    Unblock,
}

/// A block list while requests change it, one after another.
#[derive(Debug, Default)]
struct Draft<'a> {
    /// In the order in which they were blocked; who was unblocked leaves a gap.
    jids: Vec<Option<&'a str>>,
    places: HashMap<&'a str, usize>,
    size: usize,
}

impl<'a> Draft<'a> {
    fn of(list: &'a BlockList) -> Draft<'a> {
        let mut draft = Draft::default();
        for jid in list.jids() {
            draft.add(jid);
        }
        draft
    }

    fn add(&mut self, jid: &'a str) {
        self.places.insert(jid, self.jids.len());
        self.jids.push(Some(jid));
        self.size += jid.len();
    }

    fn remove(&mut self, jid: &str) {
        if let Some(place) = self.places.remove(jid) {
            self.jids[place] = None;
            self.size -= jid.len();
        }
    }

    /// Does what a request asks for, or says why not: then nothing has changed.
    fn apply(&mut self, command: Command, named: &'a [Box<str>]) -> Result<(), StanzaError> {
        match command {
            Command::List => {}
            Command::Block => {
                let named = named.iter().map(|jid| &**jid);
                let new: Vec<&str> = named.filter(|jid| !self.places.contains_key(jid)).collect();
                let count = self.places.len() + new.len();
                let size = self.size + new.iter().map(|jid| jid.len()).sum::<usize>();
                // One that came by an import may have more, and becomes shorter.
                if count > BLOCKED_MAX || size > BLOCKED_SIZE_MAX {
                    return Err(StanzaError::ResourceConstraint);
                }
                new.into_iter().for_each(|jid| self.add(jid));
            }
            // XEP-0191 3.3: an unblock without items means all.
            Command::Unblock if named.is_empty() => *self = Draft::default(),
            Command::Unblock => named.iter().for_each(|jid| self.remove(jid)),
        }
        Ok(())
    }

    fn finish(self) -> BlockList {
        let jids = self.jids.into_iter().flatten();
        BlockList::new(jids.map(Box::from).collect())
    }
}

/// What an account blocks: prepared JIDs of any form, in the order in which it blocked them. Most
/// accounts block nobody. Siblings read it along with a presence that not every resource gets.
#[derive(Clone, Debug, Default)]
pub struct BlockList(Option<Arc<Listed>>);

#[derive(Debug)]
struct Listed {
    jids: Vec<Box<str>>,
    /// The same by bare JID or domain: a stanza costs two look-ups, however many are blocked.
    by_bare: HashMap<Box<str>, Blocked>,
}

/// What is blocked of a bare JID or a domain.
#[derive(Debug, Default)]
struct Blocked {
    whole: bool,
    resources: BTreeSet<Box<str>>,
}

const _: () = assert!(
    size_of::<BlockList>() <= 8,
    "an account that blocks nobody pays for it"
);

impl BlockList {
    /// What storage has, or will have.
    pub(crate) fn new(jids: Vec<Box<str>>) -> BlockList {
        if jids.is_empty() {
            return BlockList::default();
        }
        let mut by_bare: HashMap<Box<str>, Blocked> = HashMap::new();
        for jid in &jids {
            let jid = Jid::from_prepared(jid);
            let blocked = by_bare.entry(jid.bare().into()).or_default();
            match jid.resource() {
                Some(resource) => blocked.resources.insert(resource.into()),
                None => std::mem::replace(&mut blocked.whole, true),
            };
        }
        BlockList(Some(Arc::new(Listed { jids, by_bare })))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// As clients and storage get it.
    pub(crate) fn jids(&self) -> &[Box<str>] {
        self.0.as_ref().map_or(&[], |listed| &listed.jids)
    }

    /// Bytes of them.
    fn size(&self) -> usize {
        self.jids().iter().map(|jid| jid.len()).sum()
    }

    /// Whether it has this very JID.
    pub(crate) fn has(&self, jid: &str) -> bool {
        let jid = Jid::from_prepared(jid);
        self.of(jid.bare())
            .is_some_and(|blocked| match jid.resource() {
                Some(resource) => blocked.resources.contains(resource),
                None => blocked.whole,
            })
    }

    fn of(&self, bare: &str) -> Option<&Blocked> {
        self.0.as_ref()?.by_bare.get(bare)
    }

    /// Whom both block.
    fn common(&self, other: &BlockList) -> BlockList {
        let of = |list: &BlockList, other: &BlockList| {
            let jids = list.jids().iter();
            let jids = jids.filter(|jid| blocks(other, &Jid::from_prepared(jid)));
            jids.cloned().collect::<Vec<Box<str>>>()
        };
        let mut jids = of(self, other);
        jids.extend(of(other, self));
        BlockList::new(jids)
    }

    /// The resources of whole domains that it has and another one has not.
    fn of_domains_beyond(&self, other: &BlockList) -> BlockList {
        let is_new = |jid: &str| {
            let address = Jid::from_prepared(jid);
            address.local().is_none() && !address.is_bare() && !other.has(jid)
        };
        let new = self.jids().iter().filter(|jid| is_new(jid));
        BlockList::new(new.cloned().collect())
    }

    /// The resources that are blocked of a bare JID, or of a domain.
    pub(crate) fn resources_of(&self, bare: &str) -> impl Iterator<Item = &str> + use<'_> {
        let blocked = self.of(bare).into_iter();
        blocked.flat_map(|blocked| blocked.resources.iter().map(|resource| &**resource))
    }
}

/// A request that waits for storage.
#[derive(Debug)]
struct BlockRequest {
    asker: Option<Asker>,
    cause: Option<Cause>,
    iq: Box<str>,
    command: Command,
    /// The addresses named; for `unblock`, none means all.
    named: Vec<Box<str>>,
    reports: Vec<Report>,
}

/// Changes of a block list that are under way. One write is at a time, and behind it the next one
/// comes as many milliseconds later as the list is long: requests that come meanwhile go with that.
#[derive(Debug, Default)]
pub(crate) struct BlockChanges {
    /// Those that the write is for, and what becomes of each if storage takes that.
    stored: Vec<(BlockRequest, Result<(), StanzaError>)>,
    /// The list from the commit on, where any of them changes it.
    next: Option<BlockList>,
    /// Those that came since. A session has no more of them than of any requests.
    waiting: Vec<BlockRequest>,
    /// What waits is still to be searched: the list of those of whom it has bounced already.
    before: Option<BlockList>,
    /// The same of a search that is under way.
    searched: Option<BlockList>,
}

impl BlockChanges {
    /// Whether nothing is under way: it only rests.
    fn is_over(&self) -> bool {
        self.stored.is_empty() && self.waiting.is_empty()
    }
}

/// The JIDs that a request names, each once, and what is reported of them.
fn named_in(payload: Node<'_>) -> Result<(Vec<Box<str>>, Vec<Report>), StanzaError> {
    let (mut named, mut reports): (Vec<Box<str>>, _) = (Vec::new(), Vec::new());
    let mut known = HashSet::new();
    for item in payload
        .children()
        .filter(|node| node.is("item", Ns::Blocking))
    {
        let jid = Jid::parse(item.attr("jid").ok_or(StanzaError::BadRequest)?);
        let jid: Box<str> = jid.map_err(|_| StanzaError::JidMalformed)?.as_str().into();
        let report = Report::of(item, &jid)?;
        if known.insert(jid.clone()) {
            // No list has more.
            if named.len() == BLOCKED_MAX {
                return Err(StanzaError::ResourceConstraint);
            }
            named.push(jid);
            reports.extend(report);
        }
    }
    Ok((named, reports))
}

/// Whether `list` blocks `jid`: by full JID, bare JID, domain with resource, or domain (XEP-0191
/// 3.1).
pub(crate) fn blocks(list: &BlockList, jid: &Jid<'_>) -> bool {
    let is_blocked = |blocked: &Blocked| {
        let resource = jid.resource();
        blocked.whole || resource.is_some_and(|resource| blocked.resources.contains(resource))
    };
    !list.is_empty()
        && [jid.bare(), jid.domain()]
            .into_iter()
            .any(|bare| list.of(bare).is_some_and(is_blocked))
}

impl Shard {
    /// Whether a stanza is dropped because its receiver blocks its sender. Such a one is answered
    /// here.
    pub(crate) fn is_blocked(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        stanza: &Stanza<'_>,
    ) -> bool {
        let list = &self.accounts.at(key).blocked;
        // As for most accounts: then the address is not looked at.
        if list.is_empty() {
            return false;
        }
        if !self.is_blocking(key, &Jid::from_prepared(stanza.from)) {
            return false;
        }
        // XEP-0191 3.3: presence is dropped; a groupchat message comes from a room that was joined.
        match (stanza.kind, stanza.type_) {
            // What is over for the sender is over for both, unseen: the name may get a new owner.
            (Kind::Presence, Type::Unsubscribe | Type::Unsubscribed) => return false,
            (Kind::Presence, _) | (_, Type::Error | Type::Result) => {}
            _ => self.bounce(host, stanza, StanzaError::ServiceUnavailable),
        }
        true
    }

    /// Whether an account blocks this address.
    pub(crate) fn is_blocking(&self, key: AccountKey, jid: &Jid<'_>) -> bool {
        blocks(&self.accounts.at(key).blocked, jid) && !self.is_beyond_block(key, jid)
    }

    /// Whether a client may send to `to`: not while it blocks it (XEP-0191 3.2). A refused stanza
    /// is answered here.
    pub(crate) fn may_send(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        type_: Type,
        to: &Jid<'_>,
    ) -> bool {
        let account = self.sessions.at(key).account;
        let list = &self.accounts.at(account).blocked;
        if list.is_empty() || !blocks(list, to) {
            return true;
        }
        if self.is_beyond_block(account, to) {
            return true;
        }
        if matches!(type_, Type::Error | Type::Result) {
            return false;
        }
        let mut error = Vec::new();
        let (from, full) = (to.as_str(), self.sessions.at(key).full());
        write_reply_head(view.kind(), "error", from, full, view.id(), &mut error);
        put(
            &mut error,
            format_args!(
                "<error type='cancel'><not-acceptable \
                 xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
                 <blocked xmlns='urn:xmpp:blocking:errors'/></error></{}>",
                view.name()
            ),
        );
        self.send_refusal(host, key, view.kind(), &error);
        false
    }

    /// Whether an account reaches this address whatever it blocks: its own resources, which must
    /// not be kept from one another (XEP-0191 5), and its server, which answers the unblock.
    pub(crate) fn is_beyond_block(&self, key: AccountKey, jid: &Jid<'_>) -> bool {
        let is_server = jid.local().is_none() && self.router.is_local(jid.domain());
        is_server || jid.bare() == self.accounts.at(key).jid.as_str()
    }

    /// A request about the sender's own block list.
    pub(crate) fn on_blocking(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        tree: &Tree<'_>,
        is_set: bool,
    ) -> Result<(), StanzaError> {
        let payload = tree
            .root()
            .children()
            .next()
            .ok_or(StanzaError::BadRequest)?;
        let account = self.sessions.at(key).account;
        let changes = self.accounts.at(account).block_changes.as_ref();
        let command = match (payload.name(), is_set) {
            ("blocklist", false) if changes.is_none_or(|it| it.is_over()) => {
                self.send_block_list(host, key, view.id());
                return Ok(());
            }
            ("blocklist", false) => Command::List,
            ("block", true) => Command::Block,
            ("unblock", true) => Command::Unblock,
            _ => return Err(StanzaError::BadRequest),
        };
        let (named, reports) = named_in(payload)?;
        // XEP-0191 3.3: a block without items means nothing.
        if command == Command::Block && named.is_empty() {
            return Err(StanzaError::BadRequest);
        }
        let request = BlockRequest {
            asker: self.count_request(),
            cause: self.open_effect(),
            iq: view.id().unwrap_or_default().as_ref().into(),
            command,
            named,
            reports,
        };
        let owner = self.accounts.at_mut(account);
        let is_first = owner.block_changes.is_none();
        let changes = owner.block_changes.get_or_insert_default();
        changes.waiting.push(request);
        if is_first {
            owner.pins += 1;
            self.store_blocking(host, account);
        }
        Ok(())
    }

    /// Has storage take what the requests that wait make of a list: all together, or as many of
    /// them as one session may have. Where none waits, the changes are over.
    pub(crate) fn store_blocking(&mut self, host: &mut impl Host, account: AccountKey) {
        let owner = self.accounts.at_mut(account);
        let Some(changes) = &mut owner.block_changes else {
            return;
        };
        debug_assert!(
            changes.stored.is_empty(),
            "one write is under way at a time"
        );
        if owner.is_gone && changes.before.take().is_some() {
            // What waits under its name is the next owner's.
            self.on_stored_waiting(host, account, false);
            return self.store_blocking(host, account);
        }
        if changes.waiting.is_empty() && changes.before.is_none() {
            owner.block_changes = None;
            owner.pins -= 1;
            return self.evict_if_idle(account);
        }
        if changes.before.is_some() {
            return self.search_waiting(host, account);
        }
        let count = changes.waiting.len().min(REQUESTS_PER_SESSION_MAX.into());
        let requests: Vec<BlockRequest> = changes.waiting.drain(..count).collect();
        let mut draft = Draft::of(&owner.blocked);
        let mut outcomes = Vec::with_capacity(count);
        let mut has_changed = false;
        for request in &requests {
            // Whoever has the name next has a list of his own.
            let outcome = match owner.is_gone {
                true => Err(StanzaError::ItemNotFound),
                false => draft.apply(request.command, &request.named),
            };
            has_changed |= outcome.is_ok() && request.command != Command::List;
            outcomes.push(outcome);
        }
        changes.next = has_changed.then(|| draft.finish());
        changes.stored = requests.into_iter().zip(outcomes).collect();
        let Some(next) = &changes.next else {
            return self.end_block_write(host, account, Ok(()));
        };
        let op = StoreOp::SetBlocked {
            account: owner.jid.clone(),
            blocked: next.jids().to_vec(),
        };
        let ticket = self.ticket_for_itself(Waiting::Blocking(account));
        host.store(ticket, op);
    }

    fn send_block_list(&mut self, host: &mut impl Host, key: SessionKey, id: Option<Cow<'_, str>>) {
        let session = self.sessions.at_mut(key);
        let was_asked_for = std::mem::replace(&mut session.blocking, true);
        let list = &self.accounts.at(session.account).blocked;
        let sessions = &mut self.sessions;
        sessions.write_to(host, key, Keep::Memory, |address, out| {
            write_reply_head(Kind::Iq, "result", address.bare(), address.full(), id, out);
            out.extend_from_slice(b"<blocklist xmlns='urn:xmpp:blocking'>");
            write_items(list.jids(), out);
            out.extend_from_slice(b"</blocklist></iq>");
        });
        sessions.at_mut(key).outlet.note_answer();
        if !was_asked_for {
            self.save_session(host, key);
        }
    }

    /// Storage answered a change of a block list, or says what waits for the account.
    pub(crate) fn on_blocking_stored(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        reply: StoreReply,
    ) {
        let changes = self.accounts.at(account).block_changes.as_ref();
        match changes.is_some_and(|changes| changes.searched.is_some()) {
            true => self.bounce_blocked(host, account, reply),
            false => self.end_block_write(host, account, super::done(reply)),
        }
    }

    /// The requests of a write are done, or none of them is; then come those behind them.
    fn end_block_write(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        written: Result<(), StanzaError>,
    ) {
        let owner = self.accounts.at_mut(account);
        let Some(changes) = &mut owner.block_changes else {
            return;
        };
        let requests = std::mem::take(&mut changes.stored);
        let mut size = 0;
        if let Some(next) = changes.next.take() {
            size = next.size();
            if written.is_ok() {
                let mut jids = next.jids().iter();
                let blocks_more = jids.any(|jid| !owner.blocked.has(jid));
                let waits = owner.has_waiting || owner.storing > 0;
                let before = std::mem::replace(&mut owner.blocked, next);
                if blocks_more && waits {
                    self.want_search(account, before.clone());
                }
                self.apply_blocking(host, account, &before);
            }
        }
        for (request, outcome) in requests {
            self.end_block_request(host, account, &request, outcome.and(written));
        }
        let changes = self.accounts.at(account).block_changes.as_ref();
        match changes.is_some_and(|changes| changes.before.is_some()) {
            true => self.search_waiting(host, account),
            false => self.rest_blocking(host, account, size),
        }
    }

    /// Storage has worked on so many bytes for a block list: it gets the next write later.
    fn rest_blocking(&mut self, host: &mut impl Host, account: AccountKey, size: usize) {
        match size / BLOCKED_SIZE_PER_MS {
            0 => self.store_blocking(host, account),
            ms => {
                let at = host.now().plus_ms(ms as u64);
                self.arm(host, at, Timer::Blocking(account));
            }
        }
    }

    /// Answers a request, and tells whoever is to know of what it did.
    fn end_block_request(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        request: &BlockRequest,
        outcome: Result<(), StanzaError>,
    ) {
        let asker = request.asker;
        let session = match asker {
            Some(Asker::Session(SessionHandle { key, serial })) => {
                self.session_of(key, serial).map(|_| key)
            }
            _ => None,
        };
        if request.command == Command::List {
            if let Some(key) = session {
                self.send_block_list(host, key, Some((&*request.iq).into()));
            }
        } else {
            if outcome.is_ok() {
                self.push_blocking(host, account, request);
                if request.command == Command::Block {
                    self.log_reports(host, account, &request.reports);
                }
            }
            if let Some(key) = session {
                self.answer_block_request(host, key, &request.iq, outcome);
            }
        }
        self.end_request(host, asker);
        self.close_effect(host, request.cause);
    }

    fn answer_block_request(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        iq: &str,
        outcome: Result<(), StanzaError>,
    ) {
        let sessions = &mut self.sessions;
        sessions.write_to(host, key, Keep::Memory, |address, out| {
            let type_ = if outcome.is_ok() { "result" } else { "error" };
            let id = Some(iq.into());
            write_reply_head(Kind::Iq, type_, address.bare(), address.full(), id, out);
            if let Err(error) = outcome {
                error.write(out);
            }
            out.extend_from_slice(b"</iq>");
        });
    }

    /// XEP-0191 3.3: every resource that asked for the list learns of changes.
    fn push_blocking(&mut self, host: &mut impl Host, account: AccountKey, request: &BlockRequest) {
        let name = match request.command {
            Command::Unblock => "unblock",
            _ => "block",
        };
        for &key in &self.accounts.at(account).sessions {
            if self.sessions.at(key).blocking {
                push(host, &mut self.sessions, key, name, &request.named);
            }
        }
    }

    /// A client that comes back after a crash knows an older list: which addresses are to be taken
    /// from that nobody knows, so all are, and the list comes behind (XEP-0191 3.3).
    pub(crate) fn refresh_blocking(&mut self, host: &mut impl Host, key: SessionKey) {
        let session = self.sessions.at(key);
        if !session.blocking {
            return;
        }
        let list = &self.accounts.at(session.account).blocked;
        push(host, &mut self.sessions, key, "unblock", &[]);
        if !list.is_empty() {
            push(host, &mut self.sessions, key, "block", list.jids());
        }
    }

    /// Who is newly blocked sees the account go; who no longer is sees it come (XEP-0191 3.3, 3.4).
    fn apply_blocking(&mut self, host: &mut impl Host, key: AccountKey, before: &BlockList) {
        let account = self.accounts.at(key);
        let after = account.blocked.clone();
        // Those are told at once, however many contacts have such resources.
        let (gone, come) = (
            after.of_domains_beyond(before),
            before.of_domains_beyond(&after),
        );
        let mut changed = Vec::new();
        for item in account
            .roster
            .iter()
            .filter(|item| item.subscription.is_from())
        {
            let contact = item.contact.as_jid();
            let (was, is) = (blocks(before, &contact), blocks(&after, &contact));
            if was != is {
                changed.push((contact.as_str().to_owned(), is));
            }
            if was || is {
                continue;
            }
            // Resources that are blocked by themselves.
            let named = [before, &after].map(|list| list.resources_of(contact.as_str()));
            let full = |resource| format!("{}/{resource}", contact.as_str());
            let full: BTreeSet<String> = named.into_iter().flatten().map(full).collect();
            for full in full {
                let jid = Jid::from_prepared(&full);
                let (was, is) = (blocks(before, &jid), blocks(&after, &jid));
                if was != is && !blocks(&gone, &jid) && !blocks(&come, &jid) {
                    changed.push((full, is));
                }
            }
        }
        for (contact, is_blocked) in changed {
            if is_blocked {
                self.withdraw_account(host, key, &contact, Some(before));
            } else {
                self.present_account(host, key, &contact);
            }
        }
        self.apply_to_domains(host, key, before, (gone, come));
        self.withdraw_from_blocked(host, key, before);
    }

    /// As [`Shard::apply_blocking`], for resources of whole domains.
    fn apply_to_domains(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        before: &BlockList,
        (gone, come): (BlockList, BlockList),
    ) {
        if !gone.is_empty() {
            let blocked = before.clone();
            let chosen = Chosen {
                blocked,
                only: gone,
            };
            self.withdraw_from_some(host, account, &chosen);
        }
        if !come.is_empty() {
            // Whoever was blocked as a whole is told as a whole.
            let whole = before.jids().iter();
            let whole = whole.filter(|jid| Jid::from_prepared(jid).is_bare());
            let after = self.accounts.at(account).blocked.jids().iter();
            let chosen = Chosen {
                blocked: BlockList::new(after.chain(whole).cloned().collect()),
                only: come,
            };
            self.present_to_some(host, account, &chosen);
        }
    }
}

/// Tells a client of a change of the list.
fn push(
    host: &mut impl Host,
    sessions: &mut Sessions,
    key: SessionKey,
    name: &str,
    named: &[Box<str>],
) {
    let id = host.random();
    sessions.write_to(host, key, Keep::Memory, |address, out| {
        let to = Attr(address.full());
        put(
            out,
            format_args!("<iq type='set' id='block-{id:016x}' to='{to}'>"),
        );
        put(out, format_args!("<{name} xmlns='urn:xmpp:blocking'>"));
        write_items(named, out);
        put(out, format_args!("</{name}></iq>"));
    });
}

fn write_items(list: &[Box<str>], out: &mut Vec<u8>) {
    for jid in list {
        put(out, format_args!("<item jid='{}'/>", Attr(jid)));
    }
}

mod search;
#[cfg(test)]
mod tests;
