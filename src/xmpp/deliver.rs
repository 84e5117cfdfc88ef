//! From a received stanza to the sessions that get it (RFC 6120 8 and 10, RFC 6121 8).
//!
//! Invariant: a stanza is delivered, forwarded or answered by an error; what the RFC lets a server
//! drop is dropped in [`Shard::deliver`] and its callees only, with the rule beside it.

use crate::account::{AccountKey, Residence, Waiter};
use crate::error::{StanzaError, StreamError};
use crate::host::{ConnId, Host, ShardId};
use crate::limit::LOAD_QUEUE_MAX;
use crate::parcel::Parcel;
use crate::router::Route;
use crate::session::SessionKey;
use crate::shard::Shard;
use crate::stanza::{Stanza, Type};
use crate::stream::{Flow, StreamState};
use stanza::jid::{BareJid, Jid, home_hash};
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
        match kind {
            Kind::Message => self.on_message(host, key, view, scope, type_, to),
            Kind::Presence => self.on_presence(host, key, view, scope, type_, to),
            Kind::Iq | Kind::Other => self.on_iq(host, key, view, scope, type_, to),
        }
        Flow::Next
    }

    fn is_own_address(&self, key: SessionKey, from: &str) -> bool {
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
        let session = self.sessions.at(key);
        // RFC 6120 10.3.1: without `to` a message is for the sender's own bare JID.
        let own;
        let to = match to {
            Some(to) => to,
            None => {
                own = session.bare().to_owned();
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
            route => self.carry(host, key, view, scope, type_, &to, route),
        }
    }

    /// Brings a client's stanza to an account of ours, wherever that is at home.
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
    ) {
        let stanza = Stanza::received(view, scope, type_, self.sessions.at(key).full(), to);
        match route {
            Route::Here(hash) => {
                if self.deliver_here(host, hash, &stanza) {
                    return;
                }
                let sender = self.sessions.at(key).full().to_owned();
                let stanza = Stanza::received(view, scope, type_, &sender, to);
                self.deliver(host, hash, &stanza);
            }
            Route::Shard(shard) => {
                let mut bytes = host.buffer();
                stanza.write(&mut bytes);
                self.forward_stanza(host, shard, bytes);
            }
            Route::Server | Route::Remote => debug_assert!(false, "only accounts are carried to"),
        }
    }

    /// The common case without any change of state, nor of memory: somebody here gets it.
    /// Answers whether somebody did.
    fn deliver_here(&self, host: &mut impl Host, hash: u64, stanza: &Stanza<'_>) -> bool {
        let Some(key) = self.accounts.find(hash, stanza.to.bare()) else {
            return false;
        };
        match (stanza.kind, stanza.type_) {
            (Kind::Message, _) => self.deliver_message(host, key, stanza),
            (Kind::Presence, Type::Available | Type::Unavailable | Type::Error) => {
                self.deliver_directed(host, key, stanza)
            }
            (Kind::Presence, _) => false,
            (Kind::Iq | Kind::Other, _) => self.deliver_request(host, key, stanza),
        }
    }

    /// Delivers a message to sessions by the table of RFC 6121 8.5; `false` means nobody got it.
    fn deliver_message(&self, host: &mut impl Host, key: AccountKey, stanza: &Stanza<'_>) -> bool {
        let account = self.accounts.at(key);
        if let Some(resource) = stanza.to.resource() {
            let matching = account
                .sessions
                .iter()
                .find(|key| self.sessions.at(**key).resource() == resource);
            if let Some(&session) = matching {
                self.send(host, session, stanza);
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
        let mut delivered = false;
        for &session in &account.sessions {
            if self.sessions.at(session).takes_bare() {
                self.send(host, session, stanza);
                delivered = true;
            }
        }
        delivered
    }

    /// Writes a stanza to a session's outlet.
    pub(crate) fn send(&self, host: &mut impl Host, session: SessionKey, stanza: &Stanza<'_>) {
        stanza.write(host.output(self.sessions.at(session).conn));
    }

    /// Delivers to an account at home here, whatever the stanza is.
    pub(crate) fn deliver(&mut self, host: &mut impl Host, hash: u64, stanza: &Stanza<'_>) {
        let found = self.accounts.find(hash, stanza.to.bare());
        if let Some(key) = found
            && let Residence::Loading(queue) = &mut self.accounts.at_mut(key).residence
        {
            if queue.len() >= LOAD_QUEUE_MAX {
                self.bounce(host, stanza, StanzaError::ResourceConstraint);
                return;
            }
            let mut bytes = Vec::new();
            stanza.write(&mut bytes);
            queue.push(Waiter::Stanza(bytes));
            return;
        }
        match (stanza.kind, found) {
            (Kind::Message, found) => {
                let delivered = found.is_some_and(|key| self.deliver_message(host, key, stanza));
                // RFC 6121 8.5.2.2: headlines and errors that reach nobody are dropped silently.
                let silent = matches!(stanza.type_, Type::Headline | Type::Error);
                if !delivered && !silent {
                    self.bounce(host, stanza, StanzaError::ServiceUnavailable);
                }
            }
            (Kind::Presence, _) => self.deliver_presence(host, found, stanza),
            (Kind::Iq | Kind::Other, found) => self.deliver_iq(host, found, stanza),
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
        match self.router.route(to) {
            Route::Here(_) => self.receive(host, &bytes),
            Route::Shard(shard) => {
                let mut buffer = host.buffer();
                buffer.extend_from_slice(&bytes);
                self.forward_stanza(host, shard, buffer);
            }
            // An answer to the server itself, or to a domain that we cannot have heard from.
            Route::Server | Route::Remote => {}
        }
    }

    /// Sends a stanza in a pooled buffer to a sibling.
    pub(crate) fn forward_stanza(&mut self, host: &mut impl Host, shard: ShardId, bytes: Vec<u8>) {
        self.in_flight[usize::from(shard.0)] += 1;
        host.forward(
            shard,
            Parcel::Stanza {
                bytes,
                home: self.id,
            },
        );
    }

    /// Answers a stanza by an error to its sender, if it may be answered.
    pub(crate) fn bounce(&mut self, host: &mut impl Host, stanza: &Stanza<'_>, error: StanzaError) {
        if !stanza.may_bounce() {
            return;
        }
        let mut bytes = Vec::new();
        stanza.write_error(error, &mut bytes);
        let to = Jid::from_prepared(stanza.from);
        self.route_bytes(host, &to, bytes);
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
        if stanza.kind != Kind::Presence {
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
        let out = host.output(session.conn);
        // The address may be malformed, so it is copied as it was, not as a JID.
        let claimed = view.to();
        let from = claimed
            .as_deref()
            .filter(|to| !to.is_empty())
            .unwrap_or(session.bare());
        crate::stanza::write_reply_head(view.kind(), "error", from, session.full(), view.id(), out);
        crate::stanza::write_content(view, scope, out);
        error.write(out);
        out.extend_from_slice(b"</");
        out.extend_from_slice(view.name().as_bytes());
        out.push(b'>');
    }

    /// Ends a session: contacts learn that it is unavailable, then it is gone.
    pub(crate) fn end_session(&mut self, host: &mut impl Host, key: SessionKey) {
        if self.asker == Some(key) {
            self.asker = None;
        }
        self.withdraw(host, key);
        let Some(session) = self.sessions.remove(key) else {
            return;
        };
        let account = self.accounts.at_mut(session.account);
        account.sessions.retain(|other| *other != key);
        tracing::debug!(jid = session.full(), "session ended");
        self.evict_if_idle(session.account);
    }

    /// The account of a bare JID of ours, loading it if it is not in memory.
    pub(crate) fn loaded_or_loading(&mut self, host: &mut impl Host, bare: &str) -> AccountKey {
        match self.accounts.find(home_hash(bare), bare) {
            Some(key) => key,
            None => self.load(host, BareJid::from_prepared(bare)),
        }
    }
}
