//! From a received stanza to the sessions that get it (RFC 6120 8 and 10, RFC 6121 8).
//!
//! Invariant: a stanza is delivered, forwarded or answered by an error; what the RFC lets a server
//! drop is dropped in [`Shard::deliver`] and its callees only, with the rule beside it.

use crate::account::{AccountKey, Residence, Waiter};
use crate::archive::Stamp;
use crate::error::{StanzaError, StreamError};
use crate::host::{ConnId, Host, ShardId};
use crate::keep::Receivers;
use crate::limit::{LOAD_QUEUE_MAX, LOAD_QUEUE_SIZE_MAX};
use crate::outbox::{Acks, Keep};
use crate::parcel::Parcel;
use crate::port::StoreOp;
use crate::router::Route;
use crate::session::{Address, Modes, Session, SessionHandle, SessionKey};
use crate::settle::Cause;
use crate::shard::{Shard, Waiting};
use crate::stanza::{Stanza, Type, write_reply_head};
use crate::stream::{Flow, StreamState};
use crate::xep::carbons::is_copy;
use crate::xep::offline::may_wait;
use stanza::jid::{BareJid, Jid, home_hash};
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::view::{Kind, StanzaView};

impl Shard {
    /// A stanza of a bound client.
    pub(crate) fn on_stanza(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
    ) -> Flow {
        let kind = view.kind();
        if kind == Kind::Other {
            let error = StreamError::UnsupportedStanzaType;
            return self.stream_error(host, conn, stream, error, None);
        }
        if let Some(bytes) = self.without_claims(view, scope) {
            self.note_displayed(host, key, view, scope);
            return match StanzaView::parse(&bytes, scope) {
                Ok(view) => self.on_stanza(host, conn, stream, key, &view, scope),
                Err(error) => {
                    debug_assert!(false, "it has fewer children, else the same: {error}");
                    self.stream_error(host, conn, stream, error.into(), None)
                }
            };
        }
        if let Some(from) = view.from()
            && !self.is_own_address(key, &from)
        {
            // RFC 6120 8.1.2.1: `from` may be the bare or full JID of the client, nobody else's.
            return self.stream_error(host, conn, stream, StreamError::InvalidFrom, None);
        }
        let type_ = Type::parse(kind, view.type_().as_deref());
        let to_text = view.to();
        let to = match to_text.as_deref().map(Jid::parse) {
            None => None,
            Some(Ok(to)) => Some(to),
            Some(Err(_)) => {
                self.refuse(host, key, view, scope, type_, StanzaError::JidMalformed);
                return Flow::Next;
            }
        };
        if let Some(to) = &to
            && !self.may_send(host, key, view, type_, to)
        {
            return Flow::Next;
        }
        match kind {
            Kind::Message => self.on_message(host, key, view, scope, type_, to),
            Kind::Presence => self.on_presence_of_client(host, key, view, scope, type_, to),
            Kind::Iq | Kind::Other => self.on_iq(host, key, view, scope, type_, to),
        }
        Flow::Next
    }

    pub(crate) fn is_own_address(&self, key: SessionKey, from: &str) -> bool {
        let session = self.sessions.at(key);
        if from == session.full() || from == session.bare() {
            return true;
        }
        Jid::parse(from)
            .is_ok_and(|from| from.as_str() == session.full() || from.as_str() == session.bare())
    }

    fn on_message(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        to: Option<Jid<'_>>,
    ) {
        // RFC 6120 10.3.1: without `to` a message is for the sender's own bare JID.
        let own;
        let to = match to {
            Some(to) => to,
            None => {
                own = self.sessions.at(key).bare().to_owned();
                Jid::from_prepared(&own)
            }
        };
        match self.router.route(&to) {
            Route::Server => {
                self.refuse(
                    host,
                    key,
                    view,
                    scope,
                    type_,
                    StanzaError::ServiceUnavailable,
                );
            }
            Route::Remote => {
                self.refuse(
                    host,
                    key,
                    view,
                    scope,
                    type_,
                    StanzaError::RemoteServerNotFound,
                );
            }
            route => {
                if self.sessions.at(key).modes.has(Modes::IS_NOTED) {
                    return self.carry_noted(host, key, view, scope, type_, &to, route);
                }
                self.carry(host, key, view, scope, type_, &to, route, None);
            }
        }
    }

    /// Brings a client's stanza to an account of ours, wherever that is at home, with the id that
    /// the account's archive is to know it by, if it is; or to a component.
    #[inline]
    #[allow(clippy::too_many_arguments)] // a stanza, its stream, its sender and its way
    pub(crate) fn carry(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        to: &Jid<'_>,
        route: Route,
        stamp: Option<&Stamp<'_>>,
    ) {
        // Copied out, because sender and receiver lie in the same table.
        let mut sender = std::mem::take(&mut self.sender);
        sender.push_str(self.sessions.at(key).full());
        let stanza = Stanza::received(view, scope, type_, &sender, to).stamped(stamp);
        match route {
            _ if self.took_effect(key, stanza.kind, to.bare()) => {}
            Route::Here(hash) => self.deliver(host, hash, &stanza),
            Route::Shard(shard) => {
                let mut bytes = host.buffer();
                stanza.write(&mut bytes);
                let asker = match stanza.asks() {
                    true => self.count_asked(1),
                    false => None,
                };
                self.forward_stanza(host, shard, bytes, asker);
            }
            Route::Component(id) => self.carry_to_component(host, id, &stanza),
            Route::Server | Route::Remote => debug_assert!(false, "nobody there is carried to"),
        }
        sender.clear();
        self.sender = sender;
    }

    /// The session of a resource.
    pub(crate) fn holder(&self, account: AccountKey, resource: &str) -> Option<SessionKey> {
        let mut sessions = self.accounts.at(account).sessions.iter().copied();
        sessions.find(|key| self.sessions.at(*key).resource() == resource)
    }

    /// Delivers a message to sessions by the table of RFC 6121 8.5; `false` means nobody got it.
    fn deliver_message(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        stanza: &Stanza<'_>,
    ) -> bool {
        if let Some(resource) = stanza.to.resource() {
            if let Some(session) = self.holder(key, resource) {
                if stanza.type_ == Type::Headline && self.passes_over(session, stanza) {
                    return true;
                }
                self.give_and_copy(host, key, &[session], stanza);
                return true;
            }
            if is_copy(stanza) {
                return true;
            }
            // RFC 6121 8.5.3.2.1: only a chat message goes on as if it were to the bare JID.
            if stanza.type_ != Type::Chat {
                return false;
            }
        }
        // RFC 6121 8.5.2.1.1: groupchat and error are never delivered to a bare JID.
        if matches!(stanza.type_, Type::Groupchat | Type::Error) {
            return false;
        }
        let mut takers = self.takers(key, Session::takes_bare);
        let is_taken = !takers.is_empty();
        if stanza.type_ == Type::Headline {
            takers.retain(|session| !self.passes_over(*session, stanza));
        }
        if !takers.is_empty() {
            self.give_and_copy(host, key, &takers, stanza);
        }
        is_taken
    }

    /// Whether a session goes without an event (XEP-0163): its client acknowledges too little, and
    /// what contacts publish must not be what ends it.
    #[cold]
    fn passes_over(&self, key: SessionKey, stanza: &Stanza<'_>) -> bool {
        let acks = self.sessions.at(key).outlet.acks.as_ref();
        acks.is_some_and(|acks| acks.is_laden()) && stanza.view().has_child_ns(Ns::PubSubEvent)
    }

    /// Those sessions of an account that take a message.
    fn takers(&self, key: AccountKey, takes: impl Fn(&Session) -> bool) -> Receivers {
        let sessions = self.accounts.at(key).sessions.iter().copied();
        let takers = sessions.filter(|session| takes(self.sessions.at(*session)));
        takers.collect()
    }

    /// Whether what a message of a session that survived a crash leads to for an account was stored
    /// before that.
    pub(crate) fn took_effect(&mut self, key: SessionKey, kind: Kind, bare: &str) -> bool {
        let (Kind::Message, Some(origin)) = (kind, &mut self.origin) else {
            return false;
        };
        let acks = self.sessions.at_mut(key).outlet.acks.as_mut();
        acks.is_some_and(|acks| acks.took_effect(origin, bare))
    }

    /// Delivers to an account at home here, whatever the stanza is.
    pub(crate) fn deliver(&mut self, host: &mut impl Host, hash: u64, stanza: &Stanza<'_>) {
        let found = self.accounts.find(hash, stanza.to.bare());
        if let Some(key) = found
            && self.must_queue(key, stanza)
        {
            return self.queue(host, key, stanza);
        }
        if let Some(key) = found
            && self.is_blocked(host, key, stanza)
        {
            return;
        }
        match (stanza.kind, found) {
            (Kind::Message, Some(key)) if self.settings.archives() && stanza.may_be_stamped() => {
                self.deliver_stamped(host, key, stanza);
            }
            (Kind::Message, Some(key)) => self.deliver_known(host, key, stanza),
            (_, None) if self.asks_for_account(stanza) => {
                let key = self.load(host, stanza.to.to_bare());
                self.queue(host, key, stanza);
            }
            (Kind::Message, None) if matches!(stanza.type_, Type::Headline | Type::Error) => {}
            (Kind::Message, None) => self.bounce(host, stanza, StanzaError::ServiceUnavailable),
            (Kind::Presence, _) => self.deliver_presence(host, found, stanza),
            (Kind::Iq | Kind::Other, found) => self.deliver_iq(host, found, stanza),
        }
    }

    /// Delivers a message to an account, whatever it is.
    #[inline]
    pub(crate) fn deliver_known(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        stanza: &Stanza<'_>,
    ) {
        if !self.deliver_message(host, key, stanza) {
            self.on_undelivered(host, key, stanza);
        }
    }

    /// Whether what becomes of a stanza is known only when its account is loaded: whether it waits
    /// or bounces, whom the account blocks, who may see what. Whatever it is, a session of the last
    /// process may be whom it is for.
    fn asks_for_account(&self, stanza: &Stanza<'_>) -> bool {
        let asks = match stanza.kind {
            Kind::Message => may_wait(stanza.type_),
            Kind::Iq => stanza.asks(),
            Kind::Presence => return self.is_late_refusal(stanza),
            Kind::Other => return false,
        };
        asks || self.is_dormant(stanza.to.bare())
    }

    /// Whether a stanza for this account has to wait for what came before it: messages do while
    /// others are between here and storage, and whatever else their senders send then.
    fn must_queue(&self, key: AccountKey, stanza: &Stanza<'_>) -> bool {
        let account = self.accounts.at(key);
        let is_loading = matches!(account.residence, Residence::Loading(_));
        let is_message = stanza.kind == Kind::Message;
        is_loading
            || is_message && account.must_hold() && self.may_overtake(key, stanza)
            || account.held.iter().any(|held| held.is_from(stanza.from))
    }

    /// Whether a message could overtake those that are between here and storage. What nobody here
    /// takes goes to storage itself, and keeps its order on the way: it waits only behind others
    /// that wait, so that these have their turn.
    fn may_overtake(&self, key: AccountKey, message: &Stanza<'_>) -> bool {
        let account = self.accounts.at(key);
        let takes = |session: &SessionKey| {
            let session = self.sessions.at(*session);
            session.takes_bare() || message.to.resource() == Some(session.resource())
        };
        account.fetching || !account.held.is_empty() || account.sessions.iter().any(takes)
    }

    /// Has a stanza wait for the account's load, or for messages on their way from and to storage.
    pub(crate) fn queue(&mut self, host: &mut impl Host, key: AccountKey, stanza: &Stanza<'_>) {
        let queued = self.accounts.at(key).queued;
        if queued.count >= LOAD_QUEUE_MAX || queued.size >= LOAD_QUEUE_SIZE_MAX {
            return self.pass_by(host, key, stanza);
        }
        let held = self.hold(stanza);
        let account = self.accounts.at_mut(key);
        account.queued.count += 1;
        account.queued.size += held.bytes.len();
        match &mut account.residence {
            Residence::Loading(queue) => queue.push(Waiter::Stanza(held)),
            Residence::Resident => account.held.push(held),
        }
    }

    /// A stanza finds no place among those that wait, and bounces. An error cannot, and is all that
    /// is left of a stanza: it does not wait.
    fn pass_by(&mut self, host: &mut impl Host, key: AccountKey, stanza: &Stanza<'_>) {
        if self.is_blocked(host, key, stanza) {
            return;
        }
        let is_error = stanza.kind == Kind::Message && stanza.type_ == Type::Error;
        let resource = stanza.to.resource().filter(|_| is_error);
        match resource.and_then(|resource| self.holder(key, resource)) {
            Some(session) => {
                let mut bytes = Vec::new();
                stanza.write(&mut bytes);
                self.send_refusal(host, session, stanza.kind, &bytes);
            }
            None => self.bounce(host, stanza, StanzaError::ResourceConstraint),
        }
    }

    /// A message that no session took (RFC 6121 8.5.2.2, 8.5.3.2).
    fn on_undelivered(&mut self, host: &mut impl Host, key: AccountKey, stanza: &Stanza<'_>) {
        match stanza.type_ {
            Type::Headline | Type::Error => self.copy_untaken(host, key, stanza),
            // RFC 6121 8.5.3.2.1: a normal message to a resource that is gone is answered by an
            // error.
            Type::Normal if stanza.to.resource().is_some() => {
                self.bounce(host, stanza, StanzaError::ServiceUnavailable);
            }
            type_ if may_wait(type_) => {
                self.copy_untaken(host, key, stanza);
                self.keep_offline(host, key, stanza);
            }
            _ => self.bounce(host, stanza, StanzaError::ServiceUnavailable),
        }
    }

    /// Delivers a message, whose session went away, as if it were to the bare JID; where nobody
    /// takes it, it waits.
    pub(crate) fn deliver_undelivered(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        stanza: &Stanza<'_>,
    ) {
        if self.accounts.at(key).is_gone {
            return self.bounce(host, stanza, StanzaError::ServiceUnavailable);
        }
        if self.is_blocked(host, key, stanza) {
            return;
        }
        // While messages are between here and storage, this one lines up there.
        let waits = self.accounts.at(key).must_hold() || self.puts_back();
        // One that ends with this turn would pass it on, with all that it was left besides.
        let takes = |session: &Session| session.takes_bare() && !session.outlet.has_overflowed();
        let takers = match waits {
            true => Receivers::new(),
            false => self.takers(key, takes),
        };
        if !takers.is_empty() {
            return self.give(host, key, &takers, stanza);
        }
        match self.cause {
            Some(Cause::End { ticket }) => self.leave_waiting(host, ticket, stanza),
            _ => self.keep_offline(host, key, stanza),
        }
    }

    /// Handles a complete stanza from a sibling, from storage, or made here.
    pub(crate) fn receive(&mut self, host: &mut impl Host, bytes: &[u8]) {
        let scope = self.client_scope.clone();
        let Ok(view) = StanzaView::parse(bytes, &scope) else {
            debug_assert!(false, "a parcel holds a checked stanza");
            return;
        };
        let (Some(from), Some(to)) = (view.from(), view.to()) else {
            return;
        };
        let to = Jid::from_prepared(&to);
        if self.router.has_components()
            && let Route::Component(id) = self.router.route(&to)
        {
            return self.give_component(host, id, &Stanza::complete(&view, &from, &to));
        }
        let hash = home_hash(to.bare());
        debug_assert_eq!(
            self.router.shard_of(hash),
            self.id,
            "parcels go to the home shard"
        );
        self.deliver(host, hash, &Stanza::complete(&view, &from, &to));
    }

    /// Sends a complete stanza, made here, to wherever its `to` lives.
    pub(crate) fn route_bytes(&mut self, host: &mut impl Host, to: &Jid<'_>, bytes: Vec<u8>) {
        // It is no client's: nothing about it is marked. And no end of a session waits for it: an
        // account that holds it may wait for that end.
        let (cause, origin) = (self.cause, self.origin.take());
        self.cause = cause.filter(|cause| !matches!(cause, Cause::End { .. }));
        match self.router.route(to) {
            Route::Here(_) => self.receive(host, &bytes),
            Route::Shard(shard) => {
                let mut buffer = host.buffer();
                buffer.extend_from_slice(&bytes);
                self.forward_stanza(host, shard, buffer, None);
            }
            Route::Component(id) => self.route_to_component(host, id, &bytes),
            // An answer to the server itself, or to a domain that we cannot have heard from.
            Route::Server | Route::Remote => {}
        }
        (self.cause, self.origin) = (cause, origin);
    }

    /// Sends a stanza in a pooled buffer to a sibling, with the session that has its answer to wait
    /// for.
    pub(crate) fn forward_stanza(
        &mut self,
        host: &mut impl Host,
        shard: ShardId,
        bytes: Vec<u8>,
        asker: Option<SessionHandle>,
    ) {
        // No parcel waits for another, or two shards could wait for each other. What one leads to
        // is an answer, and that is with its receiver before the parcel is said to be settled.
        let cause = match self.cause {
            Some(Cause::Parcel { .. }) => None,
            _ => self.open_effect(),
        };
        self.in_flight[usize::from(shard.0)].push_back(cause);
        let home = self.id;
        let parcel = match asker {
            Some(asker) => Parcel::Request { bytes, home, asker },
            None => Parcel::Stanza {
                bytes,
                home,
                origin: self.origin.map(Box::new),
            },
        };
        host.forward(shard, parcel);
    }

    /// Answers a stanza by an error to its sender, if it may be answered.
    pub(crate) fn bounce(&mut self, host: &mut impl Host, stanza: &Stanza<'_>, error: StanzaError) {
        if !stanza.may_bounce() {
            return;
        }
        // XEP-0313 5: what is refused is in no archive.
        self.archiving = None;
        self.note_failed(host, stanza);
        let mut bytes = Vec::new();
        stanza.write_error(error, &mut bytes);
        let to = Jid::from_prepared(stanza.from);
        self.route_bytes(host, &to, bytes);
    }

    /// Where an account does not take a message storage hears of it: the mark of a later one must
    /// not cover this one, which may be sent again, for a crash may take its error.
    fn note_failed(&mut self, host: &mut impl Host, stanza: &Stanza<'_>) {
        if let Some(origin) = self.origin.filter(|_| stanza.kind == Kind::Message) {
            let account = BareJid::from_prepared(stanza.to.bare());
            let ticket = self.ticket_for_itself(Waiting::Nothing);
            host.store(ticket, StoreOp::NoteFailed { account, origin });
        }
    }

    /// Answers a complete stanza to an account that does not exist, or cannot be loaded.
    pub(crate) fn answer_without_account(
        &mut self,
        host: &mut impl Host,
        bytes: &[u8],
        error: StanzaError,
    ) {
        let scope = self.client_scope.clone();
        if error == StanzaError::ServiceUnavailable
            && let Ok(view) = StanzaView::parse(bytes, &scope)
            && view.kind() == Kind::Iq
            && let (Some(from), Some(to)) = (view.from(), view.to())
        {
            let to = Jid::from_prepared(&to);
            return self.deliver_iq(host, None, &Stanza::complete(&view, &from, &to));
        }
        self.bounce_bytes(host, bytes, error);
    }

    /// As [`Shard::bounce`], for a complete stanza.
    pub(crate) fn bounce_bytes(&mut self, host: &mut impl Host, bytes: &[u8], error: StanzaError) {
        let scope = self.client_scope.clone();
        let Ok(view) = StanzaView::parse(bytes, &scope) else {
            return;
        };
        let (Some(from), Some(to)) = (view.from(), view.to()) else {
            return;
        };
        let to = Jid::from_prepared(&to);
        let stanza = Stanza::complete(&view, &from, &to);
        // Of presence only a request that our own trouble stopped: who does not exist looks like
        // who does not answer.
        let is_ours = error != StanzaError::ServiceUnavailable;
        if stanza.kind != Kind::Presence || (is_ours && stanza.type_.is_subscription()) {
            self.bounce(host, &stanza, error);
        }
    }

    /// Answers a client's own stanza by an error, straight to its session.
    pub(crate) fn refuse(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        error: StanzaError,
    ) {
        if matches!(type_, Type::Error | Type::Result) {
            return;
        }
        let session = self.sessions.at(key);
        // The address may be malformed, so it is copied as it was, not as a JID.
        let claimed = view.to();
        let from = claimed
            .as_deref()
            .filter(|to| !to.is_empty())
            .unwrap_or(session.bare());
        let mut bytes = Vec::new();
        let (full, id) = (session.full(), view.id());
        write_reply_head(view.kind(), "error", from, full, id, &mut bytes);
        crate::stanza::write_content(view, scope, &mut bytes);
        error.write(&mut bytes);
        bytes.extend_from_slice(b"</");
        bytes.extend_from_slice(view.name().as_bytes());
        bytes.push(b'>');
        self.send_refusal(host, key, view.kind(), &bytes);
    }

    /// Sends a client the error that answers its own stanza, past what waits. It is all that is
    /// left of a message, which is not settled before storage has the error, or the client.
    pub(crate) fn send_refusal(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        kind: Kind,
        error: &[u8],
    ) {
        let is_message = kind == Kind::Message;
        let acks = self.sessions.at(key).outlet.acks.as_deref();
        // While what waits is on its way into the queue, nothing else gets a place there.
        let has_place = |acks: &Acks| acks.saved && acks.claiming.is_none();
        if is_message && acks.is_some_and(has_place) {
            return self.give_refusal(host, key, error);
        }
        let write = |_: &Address, out: &mut Vec<u8>| out.extend_from_slice(error);
        self.sessions.write_to(host, key, Keep::Memory, write);
        let acks = &mut self.sessions.at_mut(key).outlet.acks;
        if let Some(acks) = acks.as_mut().filter(|_| is_message) {
            acks.hold_for_last();
            self.sessions.ask_later(host, key);
        }
    }

    fn give_refusal(&mut self, host: &mut impl Host, key: SessionKey, error: &[u8]) {
        let scope = self.client_scope.clone();
        let Ok(view) = StanzaView::parse(error, &scope) else {
            debug_assert!(false, "an error has what the stanza had");
            return;
        };
        let session = self.sessions.at(key);
        let (account, full) = (session.account, session.full().to_owned());
        let (from, to) = (view.from().unwrap_or_default(), Jid::from_prepared(&full));
        // It is no client's: nothing about it is marked.
        let origin = self.origin.take();
        self.give(host, account, &[key], &Stanza::complete(&view, &from, &to));
        self.origin = origin;
    }

    /// Ends a session: contacts learn that it is unavailable, then it is gone.
    pub(crate) fn end_session(&mut self, host: &mut impl Host, key: SessionKey) {
        let was_available = self.sessions.at(key).available;
        if self.sessions.at(key).outlet.conn.is_some() {
            self.push_unacked(host, key);
        }
        if self.cause.is_some_and(|cause| cause.is_of(key)) {
            (self.cause, self.origin) = (None, None);
        }
        self.withdraw(host, key);
        self.end_hibernation(key);
        let Some(session) = self.sessions.remove(key) else {
            return;
        };
        let account = self.accounts.at_mut(session.account);
        account.sessions.retain(|other| *other != key);
        self.share_copies(session.account);
        if was_available {
            self.note_last(host, session.account, "");
        }
        tracing::debug!(jid = session.full(), "session ended");
        self.accounts.at_mut(session.account).pins += 1;
        let acks = session.outlet.acks.as_deref();
        self.take_back_untaken(host, session.account, key, acks);
        if let Some(acks) = session.outlet.acks {
            self.dispose_unacked(host, session.account, *acks);
        }
        self.accounts.at_mut(session.account).pins -= 1;
        self.release_held(host, session.account);
        self.evict_if_idle(session.account);
    }

    /// Ends every session of an account that is gone, and every stream on the way to one.
    pub(crate) fn end_account(&mut self, host: &mut impl Host, bare: &str, error: StreamError) {
        self.forget_push(bare);
        let Some(key) = self.accounts.find(stanza::jid::home_hash(bare), bare) else {
            return;
        };
        self.accounts.unlist(key);
        self.accounts.at_mut(key).pins += 1;
        let text = Some("the account was deleted");
        for session in self.accounts.at(key).sessions.clone() {
            let conn = self.sessions.at(session).outlet.conn;
            match conn.and_then(|conn| Some((conn, self.conns.take(conn)?))) {
                Some((conn, stream)) => {
                    self.stream_error(host, conn, &stream, error, text);
                }
                None => self.end_session(host, session),
            }
        }
        // A stream that waited for one of those sessions is without it by now.
        self.end_unbound(host, bare, error, text);
        self.outdate_proofs(bare);
        self.accounts.at_mut(key).pins -= 1;
        self.evict_if_idle(key);
    }

    /// The account of a bare JID of ours, loading it if it is not in memory.
    pub(crate) fn loaded_or_loading(&mut self, host: &mut impl Host, bare: &str) -> AccountKey {
        match self.accounts.find(home_hash(bare), bare) {
            Some(key) => key,
            None => self.load(host, BareJid::from_prepared(bare)),
        }
    }
}
