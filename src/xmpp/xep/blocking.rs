//! XEP-0191: Blocking Command. What comes from a blocked address is as if the account were not
//! there.
//!
//! Invariant: blocking comes before archive, carbons, offline storage and push.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::reporting::Report;
use super::{Extension, Xep};
use crate::account::AccountKey;
use crate::error::{StanzaError, put};
use crate::host::{Host, Ticket};
use crate::outbox::Keep;
use crate::port::{StoreOp, StoreReply};
use crate::presence::Chosen;
use crate::session::SessionKey;
use crate::shard::{Shard, Waiting};
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

impl Command {
    /// The list that it makes of `list`.
    fn apply(self, list: &BlockList, named: &[Box<str>]) -> Result<BlockList, StanzaError> {
        let jids = list.jids().iter();
        let jids: Vec<Box<str>> = match self {
            Command::List => return Ok(list.clone()),
            // XEP-0191 3.3: a block without items means nothing; an unblock without items means
            // all.
            Command::Block if named.is_empty() => return Err(StanzaError::BadRequest),
            Command::Block => {
                let new = named.iter().filter(|jid| !list.has(jid));
                jids.chain(new).cloned().collect()
            }
            Command::Unblock if named.is_empty() => Vec::new(),
            Command::Unblock => {
                let named: HashSet<&str> = named.iter().map(|jid| &**jid).collect();
                let left = jids.filter(|jid| !named.contains(&***jid));
                left.cloned().collect()
            }
        };
        Ok(BlockList::new(jids))
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
pub(crate) struct BlockRequest {
    account: AccountKey,
    session: SessionKey,
    full: Box<str>,
    iq: Box<str>,
    command: Command,
    /// The addresses named; for `unblock`, none means all.
    named: Vec<Box<str>>,
    reports: Vec<Report>,
    /// The list from the commit on.
    list: BlockList,
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
        let session = self.sessions.at(key);
        let account = session.account;
        let owner = self.accounts.at(account);
        let command = match (payload.name(), is_set) {
            ("blocklist", false) if owner.blocked_next.is_none() => {
                self.send_block_list(host, key, view.id());
                return Ok(());
            }
            ("blocklist", false) => Command::List,
            ("block", true) => Command::Block,
            ("unblock", true) => Command::Unblock,
            _ => return Err(StanzaError::BadRequest),
        };
        let (named, reports) = named_in(payload)?;
        let last = owner.blocked_next.as_ref().map(|(_, list)| list);
        let list = command.apply(last.unwrap_or(&owner.blocked), &named)?;
        let size = || list.jids().iter().map(|jid| jid.len()).sum::<usize>();
        let is_full = list.jids().len() > BLOCKED_MAX || size() > BLOCKED_SIZE_MAX;
        // One that came by an import may have more, and becomes shorter.
        if command == Command::Block && is_full {
            return Err(StanzaError::ResourceConstraint);
        }
        let request = BlockRequest {
            account,
            session: key,
            full: session.full().into(),
            iq: view.id().unwrap_or_default().as_ref().into(),
            command,
            named,
            reports,
            list: list.clone(),
        };
        self.accounts.at_mut(account).pins += 1;
        let ticket = self.ticket(Waiting::Blocking);
        self.block_requests.insert(ticket.0, request);
        let owner = self.accounts.at_mut(account);
        let jid = owner.jid.clone();
        let op = match command {
            // A read that is answered behind the writes before it; what it says is of no interest.
            Command::List => StoreOp::Credentials { account: jid },
            Command::Block | Command::Unblock => {
                owner.blocked_next = Some((ticket, list.clone()));
                StoreOp::SetBlocked {
                    account: jid,
                    blocked: list.jids().to_vec(),
                }
            }
        };
        host.store(ticket, op);
        Ok(())
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

    /// Storage answered a change of a block list.
    pub(crate) fn on_blocking_stored(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        reply: StoreReply,
    ) {
        let Some(request) = self.block_requests.remove(&ticket.0) else {
            return;
        };
        let account = request.account;
        let owner = self.accounts.at_mut(account);
        owner.blocked_next.take_if(|(last, _)| *last == ticket);
        let alive = owner.sessions.contains(&request.session);
        let alive = alive && self.sessions.at(request.session).full() == &*request.full;
        if request.command == Command::List {
            if alive {
                self.send_block_list(host, request.session, Some((&*request.iq).into()));
            }
            self.accounts.at_mut(account).pins -= 1;
            self.evict_if_idle(account);
            return;
        }
        let outcome = super::done(reply);
        if outcome.is_ok() {
            let before = std::mem::replace(
                &mut self.accounts.at_mut(account).blocked,
                request.list.clone(),
            );
            self.push_blocking(host, &request);
            if request.command == Command::Block {
                self.log_reports(host, account, &request.reports);
            }
            self.apply_blocking(host, account, &before);
        }
        if alive {
            let sessions = &mut self.sessions;
            sessions.write_to(host, request.session, Keep::Memory, |address, out| {
                let type_ = if outcome.is_ok() { "result" } else { "error" };
                let id = Some(request.iq.as_ref().into());
                write_reply_head(Kind::Iq, type_, address.bare(), address.full(), id, out);
                if let Err(error) = outcome {
                    error.write(out);
                }
                out.extend_from_slice(b"</iq>");
            });
        }
        self.accounts.at_mut(account).pins -= 1;
        self.evict_if_idle(account);
    }

    /// XEP-0191 3.3: every resource that asked for the list learns of changes.
    fn push_blocking(&mut self, host: &mut impl Host, request: &BlockRequest) {
        let name = match request.command {
            Command::Unblock => "unblock",
            _ => "block",
        };
        for &key in &self.accounts.at(request.account).sessions {
            if !self.sessions.at(key).blocking {
                continue;
            }
            let id = host.random();
            let sessions = &mut self.sessions;
            sessions.write_to(host, key, Keep::Memory, |address, out| {
                let to = Attr(address.full());
                put(
                    out,
                    format_args!("<iq type='set' id='block-{id:016x}' to='{to}'>"),
                );
                put(out, format_args!("<{name} xmlns='urn:xmpp:blocking'>"));
                write_items(&request.named, out);
                put(out, format_args!("</{name}></iq>"));
            });
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

fn write_items(list: &[Box<str>], out: &mut Vec<u8>) {
    for jid in list {
        put(out, format_args!("<item jid='{}'/>", Attr(jid)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::resources_barred;
    use stanza::scope::StreamScope;

    /// How many addresses a request names, where it names this many, and the first one twice.
    fn count_named(command: &str, count: usize) -> Result<usize, StanzaError> {
        let items: String = (0..count)
            .chain([0])
            .map(|index| format!("<item jid='{index}.example'/>"))
            .collect();
        let text = format!("<{command} xmlns='urn:xmpp:blocking'>{items}</{command}>");
        let scope = StreamScope::client();
        let tree = Tree::parse(text.as_bytes(), &scope).unwrap();
        named_in(tree.root()).map(|(named, _)| named.len())
    }

    #[test]
    fn a_request_names_so_many_addresses_and_no_more() {
        for command in ["block", "unblock"] {
            assert_eq!(count_named(command, BLOCKED_MAX), Ok(BLOCKED_MAX));
            let refused = Err(StanzaError::ResourceConstraint);
            assert_eq!(count_named(command, BLOCKED_MAX + 1), refused);
        }
    }

    #[test]
    fn a_block_means_the_address_and_what_lies_under_it() {
        let jids = ["a@x.example", "b@x.example/r", "y.example", "z.example/r"];
        let list = BlockList::new(jids.map(Box::from).to_vec());
        for blocked in [
            "a@x.example",
            "a@x.example/any",
            "b@x.example/r",
            "c@y.example/q",
            "c@z.example/r",
        ] {
            assert!(blocks(&list, &Jid::parse(blocked).unwrap()), "{blocked}");
        }
        for free in [
            "b@x.example",
            "b@x.example/s",
            "x.example",
            "c@z.example",
            "z.example/s",
        ] {
            assert!(!blocks(&list, &Jid::parse(free).unwrap()), "{free}");
        }
        for (contact, expected) in [
            ("b@x.example", &["r"][..]),
            ("c@z.example", &["r"]),
            ("z.example", &["r"]),
            ("a@x.example", &[]),
        ] {
            let barred: Vec<&str> = resources_barred(&list, contact).collect();
            assert_eq!(barred, expected);
        }
    }

    #[test]
    fn a_list_keeps_its_order_and_has_nobody_twice() {
        let named =
            |jids: &[&str]| -> Vec<Box<str>> { jids.iter().map(|jid| (*jid).into()).collect() };
        let change = |list: &BlockList, command: Command, jids: &[&str]| {
            command.apply(list, &named(jids)).unwrap()
        };
        let list = BlockList::default();
        let list = change(&list, Command::Block, &["z@y/r", "y", "z@y"]);
        let list = change(&list, Command::Block, &["y/r", "z@y", "a@y"]);
        assert_eq!(list.jids(), named(&["z@y/r", "y", "z@y", "y/r", "a@y"]));
        let list = change(&list, Command::Unblock, &["y", "z@y/r", "b@y"]);
        assert_eq!(list.jids(), named(&["z@y", "y/r", "a@y"]));
        assert!(change(&list, Command::Unblock, &[]).is_empty());
    }
}
