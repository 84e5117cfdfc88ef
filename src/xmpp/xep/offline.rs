//! XEP-0160: Best Practices for Handling Offline Messages, with the delays of XEP-0203.
//!
//! Invariant: a message that waits leaves storage only after a client has it: on its
//! acknowledgement with stream management, else on the write to its connection.

use super::blocking::BlockList;
use super::displayed::is_for_server;
use super::time::utc;
use super::{Extension, Xep};
use crate::account::AccountKey;
use crate::archive::with_entry;
use crate::error::{StanzaError, put};
use crate::host::{ConnId, Host, Ticket, Timestamp};
use crate::limit::STORAGE_RETRY_MS;
use crate::outbox::{Acks, Keep};
use crate::parcel::Buffer;
use crate::port::{Arrived, OfflineQuota, SessionId, StoreOp, StoreReply};
use crate::session::{Address, Session, SessionKey};
use crate::shard::{Shard, Timer, Waiting};
use crate::stanza::{Stanza, Type, append_child};
use crate::stream::Phase;
use crate::xml::Attr;
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::{Node, Tree};
use stanza::view::{Kind, StanzaView};

/// Offline storage; it works by itself, `msgoffline` announces it.
#[derive(Debug)]
pub struct Offline;

impl Extension for Offline {
    const XEP: Xep = Xep {
        number: 160,
        version: "1.0.1",
    };
    const FEATURES: &'static [Ns] = &[Ns::Offline];
}

/// Messages that wait, on their way to a session.
#[derive(Debug)]
pub(crate) struct OfflineRead {
    account: AccountKey,
    session: SessionKey,
    serial: u32,
    /// The session's queue that storage moves them to; else they stay until they are acknowledged.
    queue: Option<SessionId>,
    /// Whom the account blocked when it asked.
    blocked: BlockList,
}

/// A write of a message that waits; on failure it bounces.
#[derive(Debug)]
pub(crate) struct OfflineWrite {
    account: AccountKey,
    stanza: Buffer,
    /// Whether nobody was given it before.
    is_new: bool,
}

impl Shard {
    /// A message that no session takes: it waits in storage, or the sender hears of it.
    pub(crate) fn keep_offline(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        stanza: &Stanza<'_>,
    ) {
        let Some(waiting) = self.as_waiting(host, stanza) else {
            return;
        };
        if self.accounts.at(key).is_ending {
            return self.bounce(host, stanza, StanzaError::ServiceUnavailable);
        }
        let mut bytes = Vec::new();
        stanza.write(&mut bytes);
        let account = self.accounts.at_mut(key);
        account.pins += 1;
        account.storing += 1;
        let op = StoreOp::PutOffline {
            account: self.accounts.at(key).jid.clone(),
            arrived: self.arrival(host),
            stanza: waiting,
            quota: self.offline_room(key),
            origin: self.origin,
        };
        let entry = self.archiving.take().and_then(|archiving| archiving.entry);
        let op = with_entry(entry, op);
        let ticket = self.ticket(Waiting::OfflineWrite);
        let write = OfflineWrite {
            account: key,
            stanza: bytes,
            is_new: self.late_since.is_none(),
        };
        self.offline_writes.insert(ticket.0, write);
        host.store(ticket, op);
    }

    /// When the message in hand came: behind all before it, whatever the clock says, unless it
    /// comes late.
    pub(crate) fn arrival(&mut self, host: &impl Host) -> Timestamp {
        if let Some(arrived) = self.late_since {
            return arrived;
        }
        self.last_arrival = host.wall().max(Timestamp(self.last_arrival.0 + 1));
        self.last_arrival
    }

    /// What comes from now on came behind this, which waits already: the clock may have been set
    /// back since.
    pub(crate) fn raise_arrival(&mut self, waiting: Option<Timestamp>) {
        self.last_arrival = self.last_arrival.max(waiting.unwrap_or_default());
    }

    /// What else may wait for an account: what its sessions have of what waited may wait on.
    pub(crate) fn offline_room(&self, key: AccountKey) -> OfflineQuota {
        let sessions = self.accounts.at(key).sessions.iter();
        let acks = sessions.filter_map(|key| self.sessions.at(*key).outlet.acks.as_ref());
        let quota = self.settings.limits.offline();
        acks.fold(quota, |quota, acks| quota.without(acks.claimed()))
    }

    /// A message as it waits, with the time; `None` where it must not. Who says so hears that it
    /// did not arrive; of a chat state nobody does.
    pub(crate) fn as_waiting(
        &mut self,
        host: &mut impl Host,
        stanza: &Stanza<'_>,
    ) -> Option<Box<[u8]>> {
        debug_assert_eq!(stanza.kind, Kind::Message);
        if is_of_the_moment(stanza) {
            if stanza.view().has_body() {
                self.bounce(host, stanza, StanzaError::ServiceUnavailable);
            }
            return None;
        }
        Some(delayed(stanza, &self.settings.domain, host.wall()).into())
    }

    /// A client's stanza without what it says in the server's name: delays (XEP-0203 4) and ids
    /// (XEP-0359 5) are only worth what their origin is; nor what it says to the server alone
    /// (XEP-0490). `None` where it says nothing like that.
    pub(crate) fn without_claims(
        &self,
        view: &StanzaView<'_>,
        scope: &StreamScope,
    ) -> Option<Vec<u8>> {
        const CLAIMS: u128 = Ns::set(&[Ns::Delay, Ns::StanzaId, Ns::Displayed]);
        if !view.has_child_in(CLAIMS) {
            return None;
        }
        let tree = Tree::parse(view.bytes(), scope).ok()?;
        let mut bytes = Vec::with_capacity(view.bytes().len());
        let mut copied = 0;
        let domain = &self.settings.domain;
        let goes = |node: &Node<'_>| {
            is_delay_of(*node, domain) || is_id_of(*node, domain) || is_for_server(view, *node)
        };
        for node in tree.root().children().filter(goes) {
            let place = node.place();
            append_content(&view.bytes()[copied..place.start], &mut bytes);
            copied = place.end;
        }
        append_content(&view.bytes()[copied..], &mut bytes);
        (copied > 0).then_some(bytes)
    }

    /// One of the writes of what waits for an account is answered.
    pub(crate) fn on_stored_waiting(&mut self, host: &mut impl Host, key: AccountKey, waits: bool) {
        let account = self.accounts.at_mut(key);
        account.storing -= 1;
        account.has_waiting |= waits;
        if account.storing == 0 {
            self.deliver_late(host, key);
            self.release_held(host, key);
            self.read_leftovers(host, key);
        }
        self.accounts.at_mut(key).pins -= 1;
        self.evict_if_idle(key);
    }

    /// Storage answered for a message that is to wait.
    pub(crate) fn on_offline_written(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        reply: StoreReply,
    ) {
        let Some(write) = self.offline_writes.remove(&ticket.0) else {
            return;
        };
        let error = match reply {
            StoreReply::Done => None,
            // XEP-0160 2 names `service-unavailable`: decision 0003 says why not.
            StoreReply::Full => Some(StanzaError::ResourceConstraint),
            StoreReply::Missing => Some(StanzaError::ServiceUnavailable),
            reply => {
                tracing::error!(?reply, "offline message not stored");
                Some(StanzaError::InternalServerError)
            }
        };
        match error {
            Some(error) => self.bounce_bytes(host, &write.stanza, error),
            None if write.is_new && self.accounts.at(write.account).push.is_some() => {
                self.push_stored(host, write.account, &write.stanza);
            }
            None => {}
        }
        // Also after a failure: what was not answered may be there.
        self.on_stored_waiting(host, write.account, true);
    }

    /// A resource that takes messages may have come while one was being stored.
    pub(crate) fn deliver_late(&mut self, host: &mut impl Host, account: AccountKey) {
        let sessions = self.accounts.at(account).sessions.iter().copied();
        let takers = sessions.filter(|key| self.sessions.at(*key).takes_bare());
        // One whose client is away may keep them for minutes.
        let is_away = |key: &SessionKey| self.sessions.at(*key).outlet.conn.is_none();
        if let Some(key) = takers.min_by_key(is_away) {
            self.fetch_offline(host, key);
        }
    }

    /// A session that takes messages asks for those that wait (XEP-0160 2).
    pub(crate) fn fetch_offline(&mut self, host: &mut impl Host, key: SessionKey) {
        let session = self.sessions.at(key);
        let (account, serial) = (session.account, session.serial);
        let known = self.accounts.at(account);
        // While some are still being written, the last of them asks again.
        if !known.has_waiting || known.storing > 0 || known.fetching || known.is_ending {
            return;
        }
        self.accounts.at_mut(account).fetching = true;
        self.accounts.at_mut(account).pins += 1;
        // What waits is numbered from here on: what is held comes before it.
        self.sessions.release_held(host, key);
        let jid = self.accounts.at(account).jid.clone();
        let acks = self.sessions.at_mut(key).outlet.acks.as_mut();
        let (op, queue, waiting) = match acks {
            Some(acks) if acks.saved => {
                let (place, number) = acks.begin_claim();
                let op = StoreOp::ClaimOffline {
                    account: jid,
                    session: acks.id,
                    place,
                    number,
                };
                (op, Some(acks.id), Waiting::Claim)
            }
            _ => (
                StoreOp::Offline { account: jid },
                None,
                Waiting::OfflineRead,
            ),
        };
        let ticket = self.ticket(waiting);
        let read = OfflineRead {
            account,
            session: key,
            serial,
            queue,
            blocked: self.accounts.at(account).blocked.clone(),
        };
        self.offline_reads.insert(ticket.0, read);
        host.store(ticket, op);
    }

    /// Storage has moved what waits into a session's queue, or nothing has changed.
    pub(crate) fn on_claimed(&mut self, host: &mut impl Host, ticket: Ticket, reply: StoreReply) {
        let Some(read) = self.offline_reads.remove(&ticket.0) else {
            return;
        };
        let account = read.account;
        let (claimed, is_put_off) = match reply {
            StoreReply::Offline(claimed) => {
                let known = self.accounts.at_mut(account);
                known.has_waiting = false;
                known.handed.forget();
                let mut kept = Vec::with_capacity(claimed.len());
                for (place, message) in claimed {
                    let is_blocked = self.drops_blocked(host, &read, &message.1);
                    kept.push((place, (!is_blocked).then_some(message)));
                }
                (kept, false)
            }
            reply => {
                tracing::error!(?reply, "offline messages not read");
                (Vec::new(), true)
            }
        };
        let session = self.session_of(read.session, read.serial);
        let is_its = |session: &&mut Session| {
            let acks = session.outlet.acks.as_ref();
            acks.is_some_and(|acks| Some(acks.id) == read.queue)
        };
        if let Some(session) = session.filter(is_its) {
            let conn = session.outlet.conn;
            if let Some(acks) = &mut session.outlet.acks {
                acks.claim(claimed);
                // What has not been counted is told before its client gets anything.
                match acks.misnumbered && !acks.is_uncounted() {
                    true => self.renumber_all(host, read.session),
                    false => acks.numbered_to(host, conn, acks.last_place()),
                }
                self.store_errors_later(host, read.session);
                self.sessions.ask_later(host, read.session);
            }
        } else if let Some(queue) = read.queue {
            // The session has ended, or is not managed after all: they wait on with its end.
            let mut ends = self.session_ends.iter_mut();
            if let Some((&ticket, end)) = ends.find(|(_, end)| end.is_of(queue)) {
                end.put_back(claimed.into_iter().filter_map(|(_, message)| message));
                self.close_end(host, Ticket(ticket));
            }
        }
        match is_put_off {
            true => self.fetch_later(host, &read),
            false => self.end_fetch(host, account),
        }
    }

    /// What waited is on its way to a session, or nowhere: what came meanwhile follows.
    fn end_fetch(&mut self, host: &mut impl Host, account: AccountKey) {
        self.accounts.at_mut(account).fetching = false;
        self.release_held(host, account);
        self.accounts.at_mut(account).pins -= 1;
        self.evict_if_idle(account);
    }

    /// Whether what waits is dropped because its sender is blocked. It bounced at the block, unless
    /// that came while this was on its way from storage: then it does so now.
    fn drops_blocked(&mut self, host: &mut impl Host, read: &OfflineRead, bytes: &[u8]) -> bool {
        let is_blocked = self.is_from_blocked(read.account, bytes, &read.blocked);
        if is_blocked == Some(false) {
            self.bounce_bytes(host, bytes, StanzaError::ServiceUnavailable);
        }
        is_blocked.is_some()
    }

    /// What waits is there.
    pub(crate) fn on_offline_read(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        reply: StoreReply,
    ) {
        let Some(read) = self.offline_reads.remove(&ticket.0) else {
            return;
        };
        let (account, key) = (read.account, read.session);
        let alive = self.session_of(key, read.serial).is_some();
        match reply {
            // The session is managed by now: its queue in storage gets them first.
            StoreReply::Offline(_) if alive && self.sessions.is_saved(key) => {
                self.accounts.at_mut(account).fetching = false;
                self.fetch_offline(host, key);
                self.end_refetch(host, account);
            }
            StoreReply::Offline(waiting) if alive => {
                self.deliver_waiting(host, &read, waiting);
                self.end_fetch(host, account);
            }
            // Who asked has gone: another may take them.
            StoreReply::Offline(_) => self.fetch_again(host, account, key, read.serial),
            reply => {
                tracing::error!(?reply, "offline messages not read");
                self.fetch_later(host, &read);
            }
        }
    }

    /// Until storage has been asked again, nothing overtakes what waits there.
    fn fetch_later(&mut self, host: &mut impl Host, read: &OfflineRead) {
        let at = host.now().plus_ms(STORAGE_RETRY_MS);
        let timer = Timer::Fetch(read.account, read.session, read.serial);
        self.arm(host, at, timer);
    }

    /// Asks storage once more for what waits.
    pub(crate) fn fetch_again(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        key: SessionKey,
        serial: u32,
    ) {
        self.accounts.at_mut(account).fetching = false;
        // It may have become one that takes nothing, or have gone; one that is back from storage
        // takes it whatever it is.
        let wants = self.session_of(key, serial).is_some_and(|session| {
            let acks = session.outlet.acks.as_ref();
            session.takes_bare() || acks.is_some_and(|acks| !acks.opened)
        });
        match wants {
            true => self.fetch_offline(host, key),
            false => self.deliver_late(host, account),
        }
        self.end_refetch(host, account);
    }

    /// A fetch has made room for the next one, where there is one.
    fn end_refetch(&mut self, host: &mut impl Host, account: AccountKey) {
        self.release_held(host, account);
        self.accounts.at_mut(account).pins -= 1;
        self.evict_if_idle(account);
    }

    fn deliver_waiting(
        &mut self,
        host: &mut impl Host,
        read: &OfflineRead,
        waiting: Vec<(u64, Arrived)>,
    ) {
        let key = read.session;
        let Session {
            account, outlet, ..
        } = self.sessions.at(key);
        let (account, conn) = (*account, outlet.conn);
        let is_managed = outlet.acks.is_some();
        let known = self.accounts.at_mut(account);
        known.has_waiting = false;
        known.handed.begin(&waiting);
        let mut given = Vec::new();
        // All of it is still in storage, what another session was given or a client had, too.
        for (number, (_, bytes)) in waiting {
            if !self.accounts.at(account).handed.is_open(number) {
                continue;
            }
            if self.drops_blocked(host, read, &bytes) {
                self.accounts.at_mut(account).handed.pass_over(number);
                continue;
            }
            let write = |_: &Address, out: &mut Vec<u8>| out.extend_from_slice(&bytes);
            self.sessions
                .write_to(host, key, Keep::Offline(number), write);
            self.accounts.at_mut(account).handed.give(number);
            given.push(number);
        }
        self.sessions.ask_later(host, key);
        if let Some(conn) = conn.filter(|_| !is_managed && !given.is_empty()) {
            self.unwritten.entry(key).or_default().append(&mut given);
            host.tell_written(conn);
        }
        self.remove_done(host, account);
    }

    /// The socket has taken all that was output to a connection, as [`Host::tell_written`] asked.
    pub fn on_written(&mut self, host: &mut impl Host, conn: ConnId) {
        let Some(stream) = self.conns.take(conn) else {
            return;
        };
        if let Phase::Bound(key) = stream.phase {
            if let Some(written) = self.unwritten.remove(&key) {
                self.clear_offline(host, key, &written);
            }
            if let Some(acks) = &mut self.sessions.at_mut(key).outlet.acks {
                acks.on_written(host, conn);
                self.sessions.ask_later(host, key);
            }
        }
        if let Phase::Component(id) = stream.phase {
            self.on_component_written(host, id);
        }
        self.conns.put(conn, stream);
    }

    /// A session has lost its connection: what the socket had not taken waits on, and where it has
    /// ended, what its client had not acknowledged.
    pub(crate) fn take_back_untaken(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        key: SessionKey,
        ended: Option<&Acks>,
    ) {
        let mut untaken = self.unwritten.remove(&key).unwrap_or_default();
        untaken.extend(ended.into_iter().flat_map(Acks::offline));
        let handed = &mut self.accounts.at_mut(account).handed;
        untaken.retain(|number| handed.take_back(*number));
        if !untaken.is_empty() {
            self.accounts.at_mut(account).has_waiting = true;
            // What the session was given of somebody who is blocked by now has not bounced.
            self.search_again(host, account, BlockList::default());
            self.deliver_late(host, account);
        }
    }

    /// The client of a session has these of what waits for its account.
    pub(crate) fn clear_offline(&mut self, host: &mut impl Host, key: SessionKey, taken: &[u64]) {
        let account = self.sessions.at(key).account;
        let handed = &mut self.accounts.at_mut(account).handed;
        for number in taken {
            handed.take(*number);
        }
        self.remove_done(host, account);
    }

    /// What is done with leaves storage.
    pub(crate) fn remove_done(&mut self, host: &mut impl Host, key: AccountKey) {
        let account = self.accounts.at_mut(key);
        let Some(up_to) = account.handed.finish() else {
            return;
        };
        if account.is_gone {
            return; // What waits under its name is the next owner's.
        }
        let account = account.jid.clone();
        let ticket = self.ticket_for_itself(Waiting::Nothing);
        host.store(ticket, StoreOp::RemoveOffline { account, up_to });
    }
}

/// A stanza with the time when it came (XEP-0203), unless it says that already: it waited before,
/// then. The domain is the server's.
pub(crate) fn delayed(stanza: &Stanza<'_>, domain: &str, arrived: Timestamp) -> Vec<u8> {
    let mut bytes = Vec::new();
    stanza.write(&mut bytes);
    let has_any = stanza.view().has_child_ns(Ns::Delay);
    let tree = has_any.then(|| stanza.tree()).flatten();
    let has_own = |tree: Tree<'_>| (tree.root().children()).any(|node| is_delay_of(node, domain));
    if !tree.is_some_and(has_own) {
        stamp_delay(&mut bytes, domain, &utc(arrived));
    }
    bytes
}

/// Whether the server of a domain stamped this.
fn is_delay_of(node: Node<'_>, domain: &str) -> bool {
    let from = local_address(node.attr("from"), domain);
    node.is("delay", Ns::Delay) && from.is_some_and(|from| from.local().is_none())
}

/// Whether the server of a domain, or an account of it, gave this id.
fn is_id_of(node: Node<'_>, domain: &str) -> bool {
    node.is("stanza-id", Ns::StanzaId) && local_address(node.attr("by"), domain).is_some()
}

/// An address at a domain.
fn local_address<'a>(address: Option<&'a str>, domain: &str) -> Option<Jid<'a>> {
    let address = Jid::parse(address?).ok()?;
    (address.domain() == domain).then_some(address)
}

/// Whether nobody would miss a message later: XEP-0160 3 names those that are chat states and
/// nothing else, and hints (XEP-0334) may say so of anything.
pub(crate) fn is_of_the_moment(stanza: &Stanza<'_>) -> bool {
    let view = stanza.view();
    let may_be_state = !view.has_body() && view.has_child_ns(Ns::ChatStates);
    if !may_be_state && !view.has_child_ns(Ns::Hints) {
        return false;
    }
    let Some(tree) = stanza.tree() else {
        return false;
    };
    let root = tree.root();
    let says = |hint| root.child(hint, Ns::Hints).is_some();
    if says("no-store") || says("no-permanent-store") {
        return true;
    }
    !says("store") && is_chat_state(root)
}

/// Whether a message is a chat state (XEP-0085) and nothing else.
pub(crate) fn is_chat_state(message: Node<'_>) -> bool {
    let passing = [Ns::ChatStates, Ns::Hints];
    let is_passing = |node: Node<'_>| passing.contains(&node.ns()) || node.name() == "thread";
    let has_state = message.children().any(|node| node.ns() == Ns::ChatStates);
    has_state && message.children().all(is_passing)
}

/// Puts `<delay/>` at the end of a message's content.
fn stamp_delay(stanza: &mut Vec<u8>, from: &str, stamp: &str) {
    let mut delay = Vec::new();
    let from = Attr(from);
    put(
        &mut delay,
        format_args!("<delay xmlns='urn:xmpp:delay' from='{from}' stamp='{stamp}'/>"),
    );
    append_child(stanza, &delay);
}

/// Whether a message may wait for its receiver: only what a person would read later.
pub(crate) fn may_wait(type_: Type) -> bool {
    matches!(type_, Type::Normal | Type::Chat)
}

/// Appends what stood behind an element that is left out. What met only across the element must not
/// read `]]>`, which character data may not have (XML 1.0, 2.4): its `>` is escaped.
fn append_content(more: &[u8], content: &mut Vec<u8>) {
    for (before, behind) in [(&b"]]"[..], &b">"[..]), (b"]", b"]>")] {
        if content.ends_with(before) && more.starts_with(behind) {
            content.extend_from_slice(&behind[..behind.len() - 1]);
            content.extend_from_slice(b"&gt;");
            content.extend_from_slice(&more[behind.len()..]);
            return;
        }
    }
    content.extend_from_slice(more);
}
