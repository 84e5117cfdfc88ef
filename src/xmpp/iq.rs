//! IQ stanzas: every request gets exactly one answer (RFC 6120 8.2.3, RFC 6121 8.5).

use crate::account::AccountKey;
use crate::error::StanzaError;
use crate::host::{Host, Ticket};
use crate::outbox::Keep;
use crate::port::StoreReply;
use crate::router::Route;
use crate::session::{Session, SessionKey};
use crate::shard::{Shard, Waiting};
use crate::stanza::{Stanza, Type, write_reply_head};
use crate::xep::{self, Answer, Context, Target};
use stanza::jid::{BareJid, Jid};
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::Tree;
use stanza::view::{Kind, StanzaView};

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct IqRequest {
    session: SessionKey,
    /// The session's full JID: the key may have a new user by then.
    full: Box<str>,
    iq: Box<str>,
    target: Target,
    /// The account that was asked for, if it is not the asker's own.
    other: Option<BareJid>,
    ns: Ns,
    /// What the extension wants to find again.
    payload: Vec<u8>,
}

impl Shard {
    /// An iq of a bound client.
    pub(crate) fn on_iq(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        to: Option<Jid<'_>>,
    ) {
        let is_request = matches!(type_, Type::Get | Type::Set);
        let is_answer = matches!(type_, Type::Result | Type::Error);
        // RFC 6120 8.2.3: an id always; one child in a request, at most one in a result.
        let shapely = match type_ {
            Type::Get | Type::Set => view.child_count() == 1,
            Type::Result => view.child_count() <= 1,
            _ => true,
        };
        if view.id().is_none() || !shapely || !(is_request || is_answer) {
            return self.refuse(host, key, view, scope, type_, StanzaError::BadRequest);
        }
        let session = self.sessions.at(key);
        let own = to.as_ref().is_none_or(|to| to.as_str() == session.bare());
        if own {
            return self.answer(host, key, view, scope, type_, Target::Account);
        }
        let to = to.expect("an iq without an address is for the sender's account");
        match self.router.route(&to) {
            Route::Server if to.is_bare() => {
                self.answer(host, key, view, scope, type_, Target::Server);
            }
            Route::Server => self.refuse(
                host,
                key,
                view,
                scope,
                type_,
                StanzaError::ServiceUnavailable,
            ),
            Route::Remote => self.refuse(
                host,
                key,
                view,
                scope,
                type_,
                StanzaError::RemoteServerNotFound,
            ),
            // RFC 6121 2.1.5: nobody reads or writes another account's roster, nor pushes it.
            _ if (to.is_bare() || type_ == Type::Set)
                && view.payload().is_some_and(|(ns, _)| ns == Ns::Roster) =>
            {
                self.refuse(host, key, view, scope, type_, StanzaError::Forbidden);
            }
            // XEP-0012 4: who may not see the presence may not ask a resource, either.
            _ if type_ == Type::Get
                && view.payload().is_some_and(|(ns, _)| ns == Ns::Last)
                && !self.sees(key, to.bare()) =>
            {
                self.refuse(host, key, view, scope, type_, StanzaError::Forbidden);
            }
            // RFC 6121 8.5.1: the server answers for an account, the same whether it exists or not.
            _ if to.is_bare() => {
                self.ask_extension(host, key, view, scope, type_, Target::Other, Some(&to));
            }
            route => self.carry(host, key, view, scope, type_, &to, route),
        }
    }

    /// Whether a session's account gets the presence of a contact.
    fn sees(&self, key: SessionKey, bare: &str) -> bool {
        let own = self.accounts.at(self.sessions.at(key).account);
        let item = own.contact(bare);
        own.jid.as_str() == bare || item.is_some_and(|item| item.subscription.is_to())
    }

    /// An iq for a full JID of an account at home here (RFC 6121 8.5.3).
    pub(crate) fn deliver_iq(
        &mut self,
        host: &mut impl Host,
        account: Option<AccountKey>,
        stanza: &Stanza<'_>,
    ) {
        let delivered = account.is_some_and(|account| self.deliver_request(host, account, stanza));
        if !delivered {
            self.bounce(host, stanza, StanzaError::ServiceUnavailable);
        }
    }

    /// Delivers to the resource that matches; answers whether there is one.
    pub(crate) fn deliver_request(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        stanza: &Stanza<'_>,
    ) -> bool {
        let Some(resource) = stanza.to.resource() else {
            return false;
        };
        let sessions = &self.accounts.at(account).sessions;
        let matching = sessions
            .iter()
            .find(|key| self.sessions.at(**key).resource() == resource);
        let Some(&session) = matching else {
            return false;
        };
        self.sessions.send(host, session, stanza);
        true
    }

    /// Answers a request to the server, or to the sender's own account.
    fn answer(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        target: Target,
    ) {
        let (Some((ns, name)), Ok(tree)) = (view.payload(), Tree::parse(view.bytes(), scope))
        else {
            return;
        };
        // RFC 6120 8.2.3: an answer to what the server never asked, or a push's, ends here.
        let is_set = match type_ {
            Type::Get => false,
            Type::Set => true,
            _ => return,
        };
        let outcome = match (ns, target) {
            (Ns::Roster, Target::Account) => self.on_roster(host, key, view, &tree, is_set),
            (Ns::Blocking, Target::Account) => self.on_blocking(host, key, view, &tree, is_set),
            // XEP-0077 3.2 shows it without an address, 3.3 with the server's.
            (Ns::Register, Target::Server | Target::Account) if is_set => {
                self.on_account_change(host, key, view, &tree, target)
            }
            // RFC 6121 1.4: a session is there as soon as the resource is bound.
            (Ns::Session, _) if is_set && name == "session" => {
                let answered = self.iq_request(key, view, target, None);
                self.reply(host, &answered, Ok(&[]));
                Ok(())
            }
            _ => return self.ask_extension(host, key, view, scope, type_, target, None),
        };
        if let Err(error) = outcome {
            self.refuse(host, key, view, scope, type_, error);
        }
    }

    /// Has the owner of the payload's namespace answer, at once or when storage has.
    fn ask_extension(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        target: Target,
        other: Option<&Jid<'_>>,
    ) {
        let is_set = match type_ {
            Type::Get => false,
            Type::Set => true,
            _ => return,
        };
        let (Some((ns, _)), Ok(tree)) = (view.payload(), Tree::parse(view.bytes(), scope)) else {
            return;
        };
        let request = xep::Request {
            target,
            is_set,
            payload: tree
                .root()
                .children()
                .next()
                .expect("a request has one child"),
            bytes: view.bytes(),
        };
        let session = self.sessions.at(key);
        let own = &self.accounts.at(session.account);
        let other_jid = other.map(Jid::to_bare);
        let asked = other_jid.as_ref().unwrap_or(&own.jid);
        let sees_presence = other_jid.is_none() || self.sees(key, asked.as_str());
        let context = Context {
            settings: &self.settings,
            session,
            account: asked,
            sees_presence,
            now: host.now(),
            started: self.started.unwrap_or_default(),
        };
        let mut payload = Vec::new();
        let outcome = xep::iq(ns, &context, &request, &mut payload);
        let answered = self.iq_request(key, view, target, other_jid);
        match outcome {
            Ok(Answer::Now) => self.reply(host, &answered, Ok(&payload)),
            Ok(Answer::Ask(op)) => {
                let ticket = self.ticket(Waiting::Iq);
                self.iq_requests.insert(
                    ticket.0,
                    IqRequest {
                        ns,
                        payload,
                        ..answered
                    },
                );
                host.store(ticket, op);
            }
            Err(error) => self.refuse(host, key, view, scope, type_, error),
        }
    }

    /// Storage answered an extension's question.
    pub(crate) fn on_iq_stored(&mut self, host: &mut impl Host, ticket: Ticket, reply: StoreReply) {
        let Some(mut request) = self.iq_requests.remove(&ticket.0) else {
            return;
        };
        let mut payload = std::mem::take(&mut request.payload);
        match xep::stored(request.ns, reply, &mut payload) {
            Ok(()) => self.reply(host, &request, Ok(&payload)),
            Err(error) => self.reply(host, &request, Err(error)),
        }
    }

    /// What it takes to answer a request later.
    pub(crate) fn iq_request(
        &self,
        key: SessionKey,
        view: &StanzaView<'_>,
        target: Target,
        other: Option<BareJid>,
    ) -> IqRequest {
        IqRequest {
            session: key,
            full: self.sessions.at(key).full().into(),
            iq: view.id().unwrap_or_default().as_ref().into(),
            target,
            other,
            ns: Ns::Unknown,
            payload: Vec::new(),
        }
    }

    /// Writes the answer to a request, if its session is still there.
    pub(crate) fn reply(
        &mut self,
        host: &mut impl Host,
        request: &IqRequest,
        outcome: Result<&[u8], StanzaError>,
    ) {
        let alive = self.sessions.get(request.session);
        if alive.is_none_or(|session| session.full() != &*request.full) {
            return;
        }
        let Session {
            outlet, address, ..
        } = self.sessions.at_mut(request.session);
        let from = match (request.target, &request.other) {
            (Target::Server, _) => &self.settings.domain,
            (_, Some(other)) => other.as_str(),
            (_, None) => address.bare(),
        };
        let type_ = if outcome.is_ok() { "result" } else { "error" };
        outlet.send(host, Keep::Memory, |out| {
            let id = Some(request.iq.as_ref().into());
            write_reply_head(Kind::Iq, type_, from, address.full(), id, out);
            match outcome {
                Ok(payload) => out.extend_from_slice(payload),
                Err(error) => error.write(out),
            }
            out.extend_from_slice(b"</iq>");
        });
    }
}
