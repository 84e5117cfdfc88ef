//! IQ stanzas: every request gets exactly one answer (RFC 6120 8.2.3, RFC 6121 8.5).

use crate::account::AccountKey;
use crate::error::StanzaError;
use crate::host::{Host, Ticket};
use crate::outbox::Keep;
use crate::port::{Document, StoreOp, StoreReply};
use crate::router::Route;
use crate::session::SessionKey;
use crate::shard::{Shard, Waiting};
use crate::stanza::{Stanza, Type, write_reply_head};
use crate::xep::pubsub::is_for_nodes;
use crate::xep::upload::{self, SlotAnswer};
use crate::xep::{self, Answer, Available, Context, Target};
use stanza::jid::{BareJid, Jid};
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::{Node, Tree};
use stanza::view::{Kind, StanzaView};

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct IqRequest {
    /// The asker's session, where its own server or account was asked.
    session: Option<SessionKey>,
    /// The asker's full JID: the session's key may have a new user by then.
    full: Box<str>,
    iq: Box<str>,
    /// Who was asked.
    from: Box<str>,
    ns: Ns,
    /// What the extension wants to find again.
    payload: Vec<u8>,
}

/// Whom an extension answers for, and what it may know of it.
struct Asked {
    target: Target,
    account: BareJid,
    /// The account, if it is in memory.
    known: Option<AccountKey>,
    /// Whether the asker gets the account's presence.
    sees_presence: bool,
}

/// RFC 6120 8.2.3: an id always; one child in a request, at most one in a result.
pub(crate) fn is_shapely(view: &StanzaView<'_>, type_: Type) -> bool {
    let children = view.child_count();
    let may_have = match type_ {
        Type::Get | Type::Set => children == 1,
        Type::Result => children <= 1,
        type_ => type_ == Type::Error,
    };
    may_have && view.id().is_some()
}

/// The namespace of what an iq asks or says.
pub(crate) fn payload_ns(view: &StanzaView<'_>) -> Ns {
    view.payload().map_or(Ns::Unknown, |(ns, _)| ns)
}

/// Whether it tells a client of a change to its roster or its block list, as only its own server
/// does (RFC 6121 2.1.6, XEP-0191 3.3).
pub(crate) fn is_push(type_: Type, ns: Ns) -> bool {
    type_ == Type::Set && matches!(ns, Ns::Roster | Ns::Blocking)
}

/// Whether it asks a client how long its user has been idle, which is for those who see the
/// presence (XEP-0012 4).
pub(crate) fn asks_client_activity(type_: Type, ns: Ns, to: &Jid<'_>) -> bool {
    type_ == Type::Get && ns == Ns::Last && !to.is_bare()
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
        if !is_shapely(view, type_) {
            return self.refuse(host, key, view, scope, type_, StanzaError::BadRequest);
        }
        let session = self.sessions.at(key);
        let own = to.as_ref().is_none_or(|to| to.as_str() == session.bare());
        if own {
            return self.answer(host, key, view, scope, type_, Target::Account);
        }
        let to = to.expect("an iq without an address is for the sender's account");
        let (ns, is_request) = (payload_ns(view), matches!(type_, Type::Get | Type::Set));
        match self.router.route(&to) {
            Route::Server if to.is_bare() => {
                self.answer(host, key, view, scope, type_, Target::Server);
            }
            Route::Server => {
                let error = StanzaError::ServiceUnavailable;
                self.refuse(host, key, view, scope, type_, error);
            }
            Route::Remote => self.refuse(
                host,
                key,
                view,
                scope,
                type_,
                StanzaError::RemoteServerNotFound,
            ),
            route @ Route::Component(_) => {
                self.carry(host, key, view, scope, type_, &to, route, None);
            }
            // RFC 6121 2.1.5: nobody reads or writes another account's roster, nor pushes it.
            _ if ns == Ns::Roster && to.is_bare() || is_push(type_, ns) => {
                self.refuse(host, key, view, scope, type_, StanzaError::Forbidden);
            }
            // Nor does who may not see the presence ask a resource.
            _ if asks_client_activity(type_, ns, &to) && !self.sees(key, to.bare()) => {
                self.refuse(host, key, view, scope, type_, StanzaError::Forbidden);
            }
            // What nobody answers for an account need not go to its home.
            _ if to.is_bare() && is_request && !xep::is_owned(ns) => {
                let error = StanzaError::ServiceUnavailable;
                self.refuse(host, key, view, scope, type_, error);
            }
            route => self.carry(host, key, view, scope, type_, &to, route, None),
        }
    }

    /// Whether a session's account gets the presence of a contact.
    fn sees(&self, key: SessionKey, bare: &str) -> bool {
        let own = self.accounts.at(self.sessions.at(key).account);
        let item = own.contact(bare);
        own.jid.as_str() == bare || item.is_some_and(|item| item.subscription.is_to())
    }

    /// An iq for an account at home here (RFC 6121 8.5).
    pub(crate) fn deliver_iq(
        &mut self,
        host: &mut impl Host,
        account: Option<AccountKey>,
        stanza: &Stanza<'_>,
    ) {
        if stanza.to.is_bare() {
            return self.answer_for(host, account, stanza);
        }
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
        let Some(session) = self.holder(account, resource) else {
            return false;
        };
        self.sessions.send(host, session, stanza);
        // Only a server sends for an account, and ours sends no result that nobody asked for.
        let from = Jid::from_prepared(stanza.from);
        let is_ours = from.is_bare() && self.router.is_local(from.domain());
        if stanza.type_ == Type::Result && is_ours {
            self.sessions.at_mut(session).outlet.note_answer();
        }
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
        let Ok(tree) = Tree::parse(view.bytes(), scope) else {
            return;
        };
        let (ns, name) = view.payload().unwrap_or((Ns::Unknown, ""));
        // RFC 6120 8.2.3: an answer to what the server never asked, or a push's, ends here.
        let is_set = match type_ {
            Type::Get => false,
            Type::Set => true,
            type_ => {
                let query = tree.root().children().next();
                let id = view.id().unwrap_or_default();
                return self.on_caps_told(host, key, &id, type_, query);
            }
        };
        let outcome = match (ns, target) {
            (Ns::Roster, Target::Account) => self.on_roster(host, key, view, &tree, is_set),
            (Ns::Blocking, Target::Account) => self.on_blocking(host, key, view, &tree, is_set),
            (Ns::ClientAccess, Target::Account) => {
                self.on_client_access(host, key, view, &tree, is_set)
            }
            (Ns::Mam, Target::Account) if self.settings.archives() => {
                self.on_archive_request(host, key, view, &tree, is_set)
            }
            (Ns::Push, Target::Account) if is_set => self.on_push_request(host, key, view, &tree),
            (Ns::Commands, Target::Server) if is_set && !self.settings.admins.is_empty() => {
                self.on_command(host, key, view, &tree)
            }
            (Ns::Carbons, Target::Account) if is_set => self.on_carbons(host, key, view, name),
            // XEP-0077 3.2 shows it without an address, 3.3 with the server's.
            (Ns::Register, Target::Server | Target::Account) if is_set => {
                self.on_account_change(host, key, view, &tree, target)
            }
            // RFC 6121 1.4: a session is there as soon as the resource is bound.
            (Ns::Session, _) if is_set && name == "session" => {
                let answered = self.iq_request(key, view, target);
                self.reply(host, &answered, Ok(&[]));
                Ok(())
            }
            _ => self.ask_for_client(host, key, view, &tree, is_set, target),
        };
        if let Err(error) = outcome {
            self.refuse(host, key, view, scope, type_, error);
        }
    }

    /// Has an extension answer a client's request to the server, or to its own account.
    fn ask_for_client(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        tree: &Tree<'_>,
        is_set: bool,
        target: Target,
    ) -> Result<(), StanzaError> {
        let answered = self.iq_request(key, view, target);
        let own = self.sessions.at(key).account;
        let asked = Asked {
            target,
            account: self.accounts.at(own).jid.clone(),
            known: Some(own),
            sees_presence: true,
        };
        self.ask_extension(host, &asked, tree, is_set, answered)
    }

    /// RFC 6121 8.5.1: the server answers for an account, the same whether it exists or not.
    pub(crate) fn answer_for(
        &mut self,
        host: &mut impl Host,
        account: Option<AccountKey>,
        stanza: &Stanza<'_>,
    ) {
        let is_set = match stanza.type_ {
            Type::Get => false,
            Type::Set => true,
            _ => return self.on_push_answered(host, stanza),
        };
        let Some(tree) = stanza.tree() else { return };
        let known = account.map(|account| self.accounts.at(account));
        let asker = Jid::from_prepared(stanza.from);
        let contact = known.and_then(|known| known.contact(asker.bare()));
        let asked = Asked {
            target: Target::Other,
            account: stanza.to.to_bare(),
            known: account,
            sees_presence: asker.bare() == stanza.to.bare()
                || contact.is_some_and(|contact| contact.subscription.is_from()),
        };
        let answered = IqRequest::of_stranger(stanza);
        if let Err(error) = self.ask_extension(host, &asked, &tree, is_set, answered) {
            self.bounce(host, stanza, error);
        }
    }

    /// Answers a request of somebody who is no user here to the server: what it tells anybody.
    pub(crate) fn answer_stranger(
        &mut self,
        host: &mut impl Host,
        stanza: &Stanza<'_>,
    ) -> Result<(), StanzaError> {
        let (Some(tree), Some((ns, _))) = (stanza.tree(), stanza.view().payload()) else {
            return Err(StanzaError::BadRequest);
        };
        let is_public = matches!(
            ns,
            Ns::DiscoInfo | Ns::DiscoItems | Ns::Last | Ns::Ping | Ns::Time | Ns::Version
        );
        if !is_public || !stanza.to.is_bare() {
            return Err(StanzaError::ServiceUnavailable);
        }
        let asked = Asked {
            target: Target::Server,
            account: stanza.to.to_bare(),
            known: None,
            sees_presence: false,
        };
        let answered = IqRequest::of_stranger(stanza);
        self.ask_extension(host, &asked, &tree, stanza.type_ == Type::Set, answered)
    }

    /// Has the owner of the payload's namespace answer, at once or when storage has.
    fn ask_extension(
        &mut self,
        host: &mut impl Host,
        asked: &Asked,
        tree: &Tree<'_>,
        is_set: bool,
        answered: IqRequest,
    ) -> Result<(), StanzaError> {
        let payload = tree.root().children().next();
        let request = xep::Request {
            target: asked.target,
            is_set,
            payload: payload.ok_or(StanzaError::BadRequest)?,
        };
        let bound = asked.known.map(|account| self.accounts.at(account));
        let is_leaving = bound.is_some_and(|account| account.leaving.is_some());
        let has_nodes = bound.is_some_and(|account| !account.is_anonymous);
        if asked.target != Target::Server && is_for_nodes(&request, has_nodes) {
            let (account, known) = (&asked.account, asked.known);
            return self.on_nodes_asked(host, account, known, &request, answered);
        }
        let context = Context {
            settings: &self.settings,
            capabilities: &self.capabilities,
            account: &asked.account,
            is_anonymous: bound.is_some_and(|account| account.is_anonymous),
            available: Available {
                sessions: &self.sessions,
                keys: bound.map_or(&[], |account| &account.sessions),
            },
            sees_presence: asked.sees_presence,
            has_nodes,
            now: host.now(),
            wall: host.wall(),
            started: self.started,
        };
        let ns = request.payload.ns();
        let mut payload = Vec::new();
        let answer = xep::iq(ns, &context, &request, &mut payload)?;
        let converts = has_nodes && self.settings.has_nodes();
        let answer = match (answer, asked.known.filter(|_| converts)) {
            (Answer::Change(document), Some(key)) => {
                return self.on_document(host, key, document, answered);
            }
            (Answer::Change(document), None) => Answer::Ask(put_document(&asked.account, document)),
            (answer, _) => answer,
        };
        match answer {
            Answer::Change(_) | Answer::Now => self.reply(host, &answered, Ok(&payload)),
            Answer::Refuse => self.reply_by(host, &answered, "error", &payload),
            Answer::Ask(op) => {
                let waits = |key: &AccountKey| self.waits_for_nodes(*key, answered.asker(), &op);
                let known = asked.known.filter(waits);
                let ticket = self.keep_request(ns, payload, answered);
                match known {
                    Some(key) => self.enqueue_read(host, key, ticket, op),
                    None => host.store(ticket, op),
                }
            }
            // Who is leaving would have a file that nobody takes along.
            Answer::Slot(_) if is_leaving => return Err(StanzaError::UnexpectedRequest),
            Answer::Slot(request) => {
                let ticket = self.keep_request(ns, payload, answered);
                host.slot(ticket, request);
            }
        }
        Ok(())
    }

    /// Keeps an extension's request until an event of this ticket answers it.
    pub(crate) fn keep_request(&mut self, ns: Ns, payload: Vec<u8>, answered: IqRequest) -> Ticket {
        let ticket = self.ticket(Waiting::Iq);
        let request = IqRequest {
            ns,
            payload,
            ..answered
        };
        self.iq_requests.insert(ticket.0, request);
        ticket
    }

    /// The keeper of files answered a request for a slot (XEP-0363).
    pub fn on_slot(&mut self, host: &mut impl Host, ticket: Ticket, answer: SlotAnswer) {
        self.complete(host, ticket, |shard, host, _| {
            let Some(request) = shard.iq_requests.remove(&ticket.0) else {
                return;
            };
            let mut payload = Vec::new();
            let type_ = upload::answer(answer, &mut payload);
            shard.reply_by(host, &request, type_, &payload);
        });
    }

    /// Storage answered an extension's question.
    pub(crate) fn on_iq_stored(&mut self, host: &mut impl Host, ticket: Ticket, reply: StoreReply) {
        let Some(mut request) = self.iq_requests.remove(&ticket.0) else {
            return;
        };
        let mut payload = std::mem::take(&mut request.payload);
        match xep::stored(request.ns, reply, &mut payload) {
            Ok(()) => {
                if request.ns == Ns::Push {
                    self.on_push_request_stored(&request.full);
                }
                self.reply(host, &request, Ok(&payload));
            }
            Err(error) => self.reply(host, &request, Err(error)),
        }
    }

    /// What it takes to answer a client's request later.
    pub(crate) fn iq_request(
        &self,
        key: SessionKey,
        view: &StanzaView<'_>,
        target: Target,
    ) -> IqRequest {
        let session = self.sessions.at(key);
        let from = match target {
            Target::Server => &self.settings.domain,
            Target::Account | Target::Other => session.bare(),
        };
        IqRequest {
            session: Some(key),
            full: session.full().into(),
            iq: view.id().unwrap_or_default().as_ref().into(),
            from: from.into(),
            ns: Ns::Unknown,
            payload: Vec::new(),
        }
    }

    /// The session of a client that asked, if it is still there.
    pub(crate) fn asker_of(&self, request: &IqRequest) -> Option<SessionKey> {
        let session = self.sessions.get(request.session?)?;
        request.session.filter(|_| session.full() == &*request.full)
    }

    /// Writes the answer to a request, if its session is still there.
    pub(crate) fn reply(
        &mut self,
        host: &mut impl Host,
        request: &IqRequest,
        outcome: Result<&[u8], StanzaError>,
    ) {
        match outcome {
            Ok(payload) => self.reply_by(host, request, "result", payload),
            Err(error) => {
                let mut payload = Vec::new();
                error.write(&mut payload);
                self.reply_by(host, request, "error", &payload);
            }
        }
    }

    /// The same by a stanza of that type.
    pub(crate) fn reply_by(
        &mut self,
        host: &mut impl Host,
        request: &IqRequest,
        type_: &str,
        payload: &[u8],
    ) {
        let write = |out: &mut Vec<u8>| {
            let id = Some(request.iq.as_ref().into());
            write_reply_head(Kind::Iq, type_, &request.from, &request.full, id, out);
            out.extend_from_slice(payload);
            out.extend_from_slice(b"</iq>");
        };
        let Some(key) = request.session else {
            let mut bytes = Vec::new();
            write(&mut bytes);
            return self.route_bytes(host, &Jid::from_prepared(&request.full), bytes);
        };
        if self.asker_of(request).is_some() {
            let sessions = &mut self.sessions;
            sessions.write_to(host, key, Keep::Memory, |_, out| write(out));
            if type_ == "result" {
                sessions.at_mut(key).outlet.note_answer();
            }
        }
    }
}

/// The write of a document that nothing else goes with.
fn put_document(account: &BareJid, (space, key, bytes): Document) -> StoreOp {
    StoreOp::PutDocument {
        account: account.clone(),
        space,
        key,
        bytes,
    }
}

impl IqRequest {
    /// A request that came with nothing but its addresses.
    fn of_stranger(stanza: &Stanza<'_>) -> IqRequest {
        IqRequest {
            session: None,
            full: stanza.from.into(),
            iq: stanza.id().unwrap_or_default().as_ref().into(),
            from: stanza.to.bare().into(),
            ns: Ns::Unknown,
            payload: Vec::new(),
        }
    }

    /// Who asked, by his full JID.
    pub(crate) fn asker(&self) -> &str {
        &self.full
    }

    /// Keeps what was asked, for the error that may answer it.
    pub(crate) fn keep_question(&mut self, question: Node<'_>) {
        self.payload.clear();
        // One that cannot be written is left out of the error, as it may be (RFC 6120 8.3.1).
        let _left_out = question.write(&mut self.payload);
    }

    /// What was kept.
    pub(crate) fn question(&self) -> &[u8] {
        &self.payload
    }
}
