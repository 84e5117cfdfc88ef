//! Resource binding (RFC 6120 7): from an authenticated stream to a session.
//!
//! Invariant: of two streams that want the same resource the newer one wins; the older gets
//! `conflict`, and its unavailable presence goes out before anything of the newer.

use super::auth::ANONYMOUS_PREFIX;
use super::{ExpectAccount, Flow, Phase, StreamState};
use crate::account::{AccountKey, Queued, Residence, Waiter};
use crate::error::{StanzaError, StreamError, put};
use crate::host::{ConnId, Host, Ticket};
use crate::limit::{LOAD_STREAMS_MAX, LOADS_MAX, RESOURCE_SIZE_MAX, STORAGE_RETRY_MS};
use crate::port::{AccountData, OfflineQuota, StoreOp, StoreReply};
use crate::session::{Session, SessionKey};
use crate::settings::Settings;
use crate::shard::{Shard, Timer, Waiting};
use crate::stanza::Type;
use crate::xep::blocking::BlockList;
use crate::xep::preferences::Preferences;
use crate::xep::push::Registrations;
use crate::xml::Attr;
use stanza::jid::{BareJid, home_hash, prepare_resource};
use stanza::ns::Ns;
use stanza::tree::Tree;
use stanza::view::{Kind, StanzaView};

impl Shard {
    /// The first stanza of an authenticated stream: it must be the bind request.
    pub(crate) fn on_bind(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        view: &StanzaView<'_>,
    ) -> Flow {
        let is_set = view.kind() == Kind::Iq && view.type_().as_deref() == Some("set");
        let is_bind = view
            .payload()
            .is_some_and(|(ns, name)| ns == Ns::Bind && name == "bind");
        let iq = view.id();
        let (true, true, Some(iq)) = (is_set, is_bind, iq) else {
            // RFC 6120 7.1: nothing is exchanged before the resource is bound.
            let text = Some("bind a resource first");
            return self.stream_error(host, conn, stream, StreamError::NotAuthorized, text);
        };
        let resource = match requested_resource(stream, view) {
            Ok(resource) => resource,
            Err(error) => {
                write_bind_error(host.output(conn), &iq, error);
                return Flow::Next;
            }
        };
        let iq = Some(iq.as_ref().into());
        self.bind_when_loaded(host, conn, stream, resource, iq)
    }

    /// Binds as soon as the account is there; the request has this id, or came inside of SASL2.
    pub(crate) fn bind_when_loaded(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        resource: Option<Box<str>>,
        iq: Option<Box<str>>,
    ) -> Flow {
        let Phase::ExpectBind(jid) = &stream.phase else {
            return Flow::Next;
        };
        let jid = jid.clone();
        let hash = home_hash(jid.as_str());
        let found = self.accounts.find(hash, jid.as_str());
        let account = found.unwrap_or_else(|| self.load(host, jid));
        stream.phase = Phase::ExpectAccount(Box::new(ExpectAccount {
            account,
            resource,
            iq,
        }));
        let owner = self.accounts.at_mut(account);
        let streams = owner.waiting_streams();
        match &mut owner.residence {
            Residence::Resident => self.bind(host, conn, stream),
            Residence::Loading(queue) if streams < LOAD_STREAMS_MAX => {
                queue.push(Waiter::Bind(conn));
                host.pause(conn);
                Flow::Stop
            }
            Residence::Loading(_) => {
                let error = StreamError::ResourceConstraint;
                self.stream_error(host, conn, stream, error, None)
            }
        }
    }

    /// Starts to load an account that is not in memory.
    pub(crate) fn load(&mut self, host: &mut impl Host, jid: BareJid) -> AccountKey {
        let key = self.accounts.insert(jid.clone());
        let ticket = self.ticket(Waiting::Account(key));
        host.store(ticket, StoreOp::Account { account: jid });
        key
    }

    /// Storage sent an account's data.
    pub(crate) fn on_account_stored(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        reply: StoreReply,
    ) {
        let account = self.accounts.at_mut(key);
        let residence = std::mem::replace(&mut account.residence, Residence::Resident);
        let Residence::Loading(queue) = residence else {
            return;
        };
        let may_be_guests = may_be_guests(&self.settings, &account.jid);
        let data = match reply {
            _ if account.is_gone => Err(StanzaError::ServiceUnavailable),
            StoreReply::Account(Some(data)) => Ok(*data),
            StoreReply::Account(None) if may_be_guests => {
                account.is_anonymous = true;
                Ok(AccountData::default())
            }
            StoreReply::Account(None) => Err(StanzaError::ServiceUnavailable),
            reply => {
                let jid = account.jid.as_str();
                match self.sweep.has_told(&queue) {
                    true => tracing::debug!(account = jid, ?reply, "account not loaded again"),
                    false => tracing::error!(account = jid, ?reply, "account not loaded"),
                }
                Err(StanzaError::InternalServerError)
            }
        };
        match data {
            Ok(data) => {
                account.roster = data.roster;
                account.roster.sort_by(|a, b| a.contact.cmp(&b.contact));
                let changes = account.roster.iter().map(|item| item.changed);
                account.roster_version = changes.max().unwrap_or(0);
                account.blocked = BlockList::new(data.blocked);
                account.has_waiting = data.newest_waiting.is_some();
                account.photo = (data.photo.filter(|_| self.settings.has_nodes())).map(Box::new);
                account.newest_archived = data.newest_archived.unwrap_or_default().time();
                account.archiving = data.archiving.map(|wishes| Preferences::read(&wishes));
                account.push = data.push.and_then(|it| Registrations::read(&it));
                account.residence = Residence::Loading(queue);
                // What comes now came later, whatever the clock says.
                let newest = data.newest_waiting.max(Some(account.newest_archived));
                self.raise_arrival(newest);
                self.wake_sessions(host, key);
            }
            Err(error) => {
                let account = self.accounts.at_mut(key);
                account.load_failures += 1;
                account.queued = Queued::default();
                let ours =
                    error == StanzaError::InternalServerError && account.load_failures < LOADS_MAX;
                let (stay, go): (Vec<_>, Vec<_>) = queue
                    .into_iter()
                    .partition(|waiter| ours && self.is_subscription(waiter));
                let account = match stay.is_empty() {
                    true => self.accounts.remove(key).map(|account| account.jid),
                    false => {
                        let account = self.accounts.at(key).jid.clone();
                        self.load_again(host, key, stay);
                        Some(account)
                    }
                };
                for waiter in go {
                    self.refuse_waiter(host, account.as_ref(), waiter, error);
                }
            }
        }
    }

    /// Whether a subscription stanza waits. The sender's side of it is agreed on, so it is no way
    /// out to bounce it: it waits until the account can be loaded.
    fn is_subscription(&self, waiter: &Waiter) -> bool {
        let Waiter::Stanza(held) = waiter else {
            return false;
        };
        StanzaView::parse(&held.bytes, &self.client_scope).is_ok_and(|view| {
            let type_ = Type::parse(view.kind(), view.type_().as_deref());
            view.kind() == Kind::Presence && type_.is_subscription()
        })
    }

    fn load_again(&mut self, host: &mut impl Host, key: AccountKey, waiters: Vec<Waiter>) {
        let account = self.accounts.at_mut(key);
        for waiter in &waiters {
            if let Waiter::Stanza(held) = waiter {
                account.queued.count += 1;
                account.queued.size += held.bytes.len();
            }
        }
        account.residence = Residence::Loading(waiters);
        let at = host.now().plus_ms(STORAGE_RETRY_MS);
        self.arm(host, at, Timer::Load(key));
    }

    /// Storage failed to load an account that is wanted all the same.
    pub(crate) fn on_load_again(&mut self, host: &mut impl Host, key: AccountKey) {
        let account = self.accounts.at(key).jid.clone();
        let ticket = self.ticket_for_itself(Waiting::Account(key));
        host.store(ticket, StoreOp::Account { account });
    }

    pub(crate) fn serve_waiter(&mut self, host: &mut impl Host, key: AccountKey, waiter: Waiter) {
        match waiter {
            Waiter::Bind(conn) => {
                let Some(mut stream) = self.conns.take(conn) else {
                    return;
                };
                let flow = self.bind(host, conn, &mut stream);
                self.settle_stream(host, conn, stream, flow);
            }
            Waiter::Resume(conn) => self.resume_loaded(host, conn, None),
            Waiter::End(id, stored) => {
                self.end_stored(host, key, id, *stored);
            }
            Waiter::Stanza(held) => {
                self.take_up(host, held, |shard, host, bytes| shard.receive(host, bytes));
            }
            Waiter::LastItems(wanted) => self.begin_last_items(host, key, *wanted),
            Waiter::Deletion(by) => self.delete(host, key, by),
            Waiter::Unpush(unwanted) => self.disable_push(host, key, &unwanted),
        }
    }

    pub(crate) fn refuse_waiter(
        &mut self,
        host: &mut impl Host,
        account: Option<&BareJid>,
        waiter: Waiter,
        error: StanzaError,
    ) {
        match waiter {
            Waiter::Bind(conn) => {
                let Some(stream) = self.conns.take(conn) else {
                    return;
                };
                // The account was deleted between authentication and bind, or storage fails.
                let condition = match error {
                    StanzaError::InternalServerError => StreamError::InternalServerError,
                    _ => StreamError::NotAuthorized,
                };
                self.stream_error(host, conn, &stream, condition, None);
            }
            Waiter::Resume(conn) => self.resume_loaded(host, conn, Some(error)),
            Waiter::End(session, _) => {
                let Some(account) = account.cloned() else {
                    return;
                };
                if error == StanzaError::InternalServerError {
                    return self.end_later(host, account, session);
                }
                let ticket = self.ticket_for_itself(Waiting::Nothing);
                host.store(
                    ticket,
                    StoreOp::EndSession {
                        account,
                        session,
                        waiting: Vec::new(),
                        quota: OfflineQuota::UNLIMITED,
                    },
                );
            }
            Waiter::Stanza(held) => self.take_up(host, held, |shard, host, bytes| {
                shard.answer_without_account(host, bytes, error);
            }),
            Waiter::LastItems(wanted) => self.tell_last_sent(host, &wanted),
            Waiter::Unpush(_) => tracing::debug!(?error, "registrations for push may stay"),
            Waiter::Deletion(by) => {
                let reply = match error {
                    StanzaError::InternalServerError => {
                        StoreReply::Failed("storage failed to read it".into())
                    }
                    _ => StoreReply::Missing,
                };
                self.tell_administrator(host, by, reply);
            }
        }
    }

    /// Makes the session; the account is resident.
    fn bind(&mut self, host: &mut impl Host, conn: ConnId, stream: &mut StreamState) -> Flow {
        let expect = match std::mem::replace(&mut stream.phase, Phase::ExpectAuth) {
            Phase::ExpectAccount(expect) => *expect,
            other => {
                stream.phase = other;
                return Flow::Next;
            }
        };
        let jid = self.accounts.at(expect.account).jid.clone();
        let resource = match expect.resource {
            Some(resource) => resource,
            None => format!("{:016x}", host.random()).into(),
        };
        // Ending its only other session must not evict the account that is being bound to.
        self.accounts.at_mut(expect.account).pins += 1;
        if let Some(holder) = self.holder(expect.account, &resource) {
            // RFC 6120 7.7.2.2
            self.replace_session(host, holder);
        }
        self.end_earlier(host, expect.account, stream, &resource);
        let has_room = self.make_room(host, expect.account);
        self.accounts.at_mut(expect.account).pins -= 1;
        if !has_room {
            // RFC 6120 7.6.2.1: the client may try again on this stream when another one has gone.
            stream.phase = Phase::ExpectBind(jid);
            match &expect.iq {
                Some(iq) => {
                    write_bind_error(host.output(conn), iq, StanzaError::ResourceConstraint);
                }
                None => self.succeed_unbound(host, conn, stream),
            }
            return Flow::Next;
        }
        let mut session = Session::new(expect.account, conn, jid.as_str(), &resource);
        session.modes = Self::modes_of(stream);
        tracing::debug!(jid = session.full(), peer = %stream.peer, "session bound");
        let key = self.sessions.insert(session);
        self.sessions.note_agent(key, stream.agent());
        self.accounts.at_mut(expect.account).sessions.push(key);
        self.share_copies(expect.account);
        stream.phase = Phase::Bound(key);
        let flow = match &expect.iq {
            Some(iq) => {
                write_bind_result(host.output(conn), iq, self.sessions.at(key).full());
                Flow::Next
            }
            None => self.enable_inline(host, conn, stream, key),
        };
        self.end_superseded(host, expect.account, &resource);
        flow
    }

    /// Ends a session whose place a newer one takes.
    pub(crate) fn replace_session(&mut self, host: &mut impl Host, key: SessionKey) {
        let conn = self.sessions.at(key).outlet.conn;
        match conn.and_then(|conn| Some((conn, self.conns.take(conn)?))) {
            Some((conn, stream)) => {
                self.stream_error(host, conn, &stream, StreamError::Conflict, None);
            }
            None => self.end_session(host, key),
        }
    }

    /// Whether an account has room for one more session, when those that only wait for their
    /// clients have made way: a client that is here comes before one that may come back.
    fn make_room(&mut self, host: &mut impl Host, account: AccountKey) -> bool {
        loop {
            let sessions = &self.accounts.at(account).sessions;
            if sessions.len() < self.settings.limits.resources_max {
                return true;
            }
            let waiting = sessions.iter().filter_map(|key| {
                let acks = self.sessions.at(*key).outlet.acks.as_ref()?;
                Some((acks.waits_until?, *key))
            });
            let Some((_, first)) = waiting.min() else {
                return false;
            };
            self.end_session(host, first);
        }
    }

    /// Whether a session's account is nowhere in storage.
    pub(crate) fn is_anonymous(&self, key: SessionKey) -> bool {
        self.accounts.at(self.sessions.at(key).account).is_anonymous
    }

    /// Drops an account from memory when nobody needs it.
    pub(crate) fn evict_if_idle(&mut self, key: AccountKey) {
        let account = self.accounts.at(key);
        let resident = matches!(account.residence, Residence::Resident);
        if resident && account.sessions.is_empty() && account.pins == 0 {
            self.accounts.remove(key);
        }
    }

    /// Storage answered the registration that a sibling asked for.
    pub(crate) fn on_registration_stored(
        &mut self,
        host: &mut impl Host,
        shard: crate::host::ShardId,
        asker: Ticket,
        reply: StoreReply,
    ) {
        let made = match reply {
            StoreReply::Done => Some(true),
            StoreReply::Exists => Some(false),
            _ => None,
        };
        let control = crate::parcel::Control::Registered {
            ticket: asker.0,
            made,
        };
        host.forward(shard, crate::parcel::Parcel::Control(Box::new(control)));
    }
}

/// Whether an account may be one that the server has made for a client without a name.
pub(crate) fn may_be_guests(settings: &Settings, account: &BareJid) -> bool {
    let local = account.local();
    settings.anonymous && local.is_some_and(|local| local.starts_with(ANONYMOUS_PREFIX))
}

/// The prepared resource that the client wants; `None` leaves the choice to the server.
fn requested_resource(
    stream: &StreamState,
    view: &StanzaView<'_>,
) -> Result<Option<Box<str>>, StanzaError> {
    // RFC 6120 8.2.3: a request has one child.
    if view.child_count() != 1 {
        return Err(StanzaError::BadRequest);
    }
    let scope = stream.scope.as_deref().ok_or(StanzaError::BadRequest)?;
    let tree = Tree::parse(view.bytes(), scope).map_err(|_| StanzaError::BadRequest)?;
    let bind = tree
        .root()
        .child("bind", Ns::Bind)
        .ok_or(StanzaError::BadRequest)?;
    let Some(resource) = bind.child("resource", Ns::Bind) else {
        return Ok(None);
    };
    let text = resource.text();
    if text.is_empty() {
        return Ok(None);
    }
    let prepared = prepare_resource(text).map_err(|_| StanzaError::BadRequest)?;
    if prepared.len() > RESOURCE_SIZE_MAX {
        return Err(StanzaError::BadRequest);
    }
    Ok(Some(prepared.as_ref().into()))
}

fn write_bind_result(out: &mut Vec<u8>, iq: &str, full: &str) {
    let (iq, full) = (Attr(iq), Attr(full));
    put(
        out,
        format_args!(
            "<iq type='result' id='{iq}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <jid>{full}</jid></bind></iq>"
        ),
    );
}

fn write_bind_error(out: &mut Vec<u8>, iq: &str, error: StanzaError) {
    put(out, format_args!("<iq type='error' id='{}'>", Attr(iq)));
    error.write(out);
    out.extend_from_slice(b"</iq>");
}
