//! Presence (RFC 6121 4): broadcast, probes and directed presence.

mod encoded;

use crate::account::{Account, AccountKey};
use crate::error::StanzaError;
use crate::host::{Host, ShardId};
use crate::limit::{PRESENCE_SIZE_MAX, REQUESTS_PER_SESSION_MAX, TARGETS_SIZE_PER_REQUEST};
use crate::outbox::Keep;
use crate::parcel::{Buffer, Fanout, FanoutPurpose, Parcel};
use crate::port::RosterItem;
use crate::router::Route;
use crate::session::{Address, Presence, Session, SessionHandle, SessionKey, Sessions};
use crate::shard::Shard;
use crate::stanza::{Stanza, Type};
use crate::xep::blocking::{BlockList, blocks};
use crate::xep::interest::Caps;
use encoded::encode;
pub(crate) use encoded::write_addressed;
use smallvec::SmallVec;
use stanza::jid::{Jid, home_hash};
use stanza::ns::Ns;
use stanza::scope::StreamScope;
use stanza::tree::Tree;
use stanza::view::StanzaView;
use std::slice;

/// What stands before a full JID among the targets of a fan-out; no JID begins with it.
const RESOURCE_SIGN: char = '/';

/// What stands before the JID of somebody at a component; no JID begins with it, either.
pub(crate) const COMPONENT_SIGN: char = '@';

/// Whom a presence is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Audience<'a> {
    /// Every contact; and these resources of contacts, where they are not available and so not
    /// among them.
    All(&'a [Box<str>]),
    /// One contact.
    Contact(&'a str),
    /// Some resources of every contact.
    Chosen(&'a Chosen),
}

impl Audience<'_> {
    /// The contacts that it is of.
    fn items<'a>(&self, account: &'a Account) -> &'a [RosterItem] {
        match self {
            Audience::All(_) | Audience::Chosen(_) => &account.roster[..],
            Audience::Contact(contact) => account.contact(contact).map_or(&[][..], slice::from_ref),
        }
    }
}

/// Which available resources of a target get a presence that is for its bare JID.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chosen {
    /// What the sender blocks: these do not.
    pub blocked: BlockList,
    /// Where it names any, only these do, each by its full JID.
    pub only: BlockList,
}

impl Chosen {
    pub(crate) fn all_but(blocked: BlockList) -> Chosen {
        let only = BlockList::default();
        Chosen { blocked, only }
    }

    /// Whether a bare JID stands for all of its resources.
    fn has_all_of(&self, bare: &str) -> bool {
        self.only.is_empty() && !bars(&self.blocked, bare)
    }

    /// Where somebody is told whose resources are not known here.
    pub(crate) fn addresses(&self, bare: &str) -> Vec<String> {
        if self.only.is_empty() {
            return vec![bare.to_owned()];
        }
        let only = resources_barred(&self.only, bare);
        let only = only.map(|resource| format!("{bare}/{resource}"));
        only.filter(|full| !blocks(&self.blocked, &Jid::from_prepared(full)))
            .collect()
    }

    #[inline]
    pub(crate) fn has(&self, session: &Session) -> bool {
        if self.blocked.is_empty() && self.only.is_empty() {
            return true;
        }
        let full = Jid::from_prepared(session.full());
        !blocks(&self.blocked, &full) && (self.only.is_empty() || blocks(&self.only, &full))
    }
}

impl Shard {
    /// A presence of a bound client.
    pub(crate) fn on_presence(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        to: Option<Jid<'_>>,
    ) {
        match (type_, to) {
            (Type::Invalid, _) => {
                self.refuse(host, key, view, scope, type_, StanzaError::BadRequest)
            }
            (Type::Available | Type::Unavailable, None) => {
                let presence = encode(view, scope, self.sessions.at(key).full());
                if presence.bytes.len() > PRESENCE_SIZE_MAX {
                    // The session stays what it was.
                    let error = StanzaError::PolicyViolation;
                    return self.refuse(host, key, view, scope, type_, error);
                }
                match type_ {
                    Type::Available => self.on_available(host, key, view, scope, presence),
                    _ => self.on_unavailable(host, key, &presence),
                }
            }
            (Type::Error, None) => {}
            (_, None) => self.refuse(host, key, view, scope, type_, StanzaError::BadRequest),
            (type_, Some(to)) if type_.is_subscription() => {
                self.on_outbound_subscription(host, key, view, scope, type_, &to.to_bare());
            }
            (type_, Some(to)) => {
                let told = self.sessions.at(key).directed_count();
                self.on_directed(host, key, view, scope, type_, &to);
                // It adds one, takes one away, or changes nothing.
                if self.sessions.at(key).directed_count() != told {
                    self.save_session(host, key);
                }
            }
        }
    }

    /// RFC 6121 4.2 and 4.4: initial presence and what follows it.
    fn on_available(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        presence: Presence,
    ) {
        let (priority, caps) = match parse_available(view, scope) {
            Ok(said) => said,
            Err(error) => return self.refuse(host, key, view, scope, Type::Available, error),
        };
        let session = self.sessions.at_mut(key);
        let is_initial = !session.available;
        let took_bare = session.takes_bare();
        let is_repeated = session.presence.as_deref() == Some(&presence);
        (session.available, session.was_seen) = (true, true);
        session.priority = priority;
        session.presence = Some(Box::new(presence.clone()));
        self.announce(host, key, &presence, &[]);
        if is_initial {
            self.greet(host, key, FanoutPurpose::Probe);
            self.push_seen(host, key);
        }
        // XEP-0160 2: what waits goes to the first resource that takes messages.
        if !took_bare && self.sessions.at(key).takes_bare() {
            self.fetch_offline(host, key);
        }
        if !is_repeated {
            self.save_session(host, key);
        }
        self.note_caps(host, key, caps, is_initial);
    }

    /// Initial presence brings what others last said: own resources, contacts, waiting requests.
    pub(crate) fn greet(&mut self, host: &mut impl Host, key: SessionKey, probe: FanoutPurpose) {
        let account = self.accounts.at(self.sessions.at(key).account);
        for &other in account.sessions.iter().filter(|other| **other != key) {
            // Taken out for the moment, so that one session is read while the other is written to.
            let Some(presence) = self.sessions.at_mut(other).presence.take() else {
                continue;
            };
            let sessions = &mut self.sessions;
            sessions.write_to(host, key, Keep::Memory, |address, out| {
                presence.write(address.full(), out)
            });
            self.sessions.at_mut(other).presence = Some(presence);
        }
        // RFC 6121 3.1.3: a waiting request is shown at each login until it is answered.
        for item in &account.roster {
            if let Some(request) = &item.pending_in
                && !blocks(&account.blocked, &item.contact.as_jid())
            {
                let write = |_: &Address, out: &mut Vec<u8>| out.extend_from_slice(request);
                self.sessions.write_to(host, key, Keep::Memory, write);
            }
        }
        let presence = Presence::of("probe", self.sessions.at(key).full());
        self.broadcast(host, key, &presence, probe, Audience::All(&[]));
    }

    /// Tells contacts, these resources of contacts, and the account's own of a session's presence.
    pub(crate) fn announce(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        presence: &Presence,
        resources: &[Box<str>],
    ) {
        let audience = Audience::All(resources);
        self.broadcast(host, key, presence, FanoutPurpose::Presence, audience);
        let account = self.sessions.at(key).account;
        self.tell_own_resources(host, account, presence);
    }

    /// RFC 6121 4.5: the session stays connected but is no longer available.
    fn on_unavailable(&mut self, host: &mut impl Host, key: SessionKey, presence: &Presence) {
        let session = self.sessions.at_mut(key);
        let was_available = std::mem::replace(&mut session.available, false);
        session.presence = None;
        let account = session.account;
        let was_seen = was_available || session.directed.is_some();
        self.say_unavailable(host, key, presence, was_available);
        if was_seen {
            self.save_session(host, key);
        }
        if was_available {
            let scope = self.client_scope.clone();
            let tree = Tree::parse(&presence.bytes, &scope);
            let status = tree.ok().and_then(|tree| {
                let status = tree.root().child("status", Ns::Client)?;
                Some(status.text().to_owned())
            });
            self.note_last(host, account, &status.unwrap_or_default());
            // RFC 6121 4.5.2: the resource itself gets its unavailable presence too.
            let sessions = &mut self.sessions;
            sessions.write_to(host, key, Keep::Memory, |address, out| {
                presence.write(address.full(), out)
            });
        }
    }

    /// RFC 6121 4.6 and probes that a client sends itself.
    fn on_directed(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        scope: &StreamScope,
        type_: Type,
        to: &Jid<'_>,
    ) {
        let session = self.sessions.at(key);
        let subscribed = self.gets_broadcasts(session.account, to.bare());
        let is_own = session.bare() == to.bare();
        let limits = &self.settings.limits;
        let session = self.sessions.at_mut(key);
        match type_ {
            // Who gets the broadcasts of an available session gets the broadcast withdrawal, too. A
            // resource gets them only while it is available itself, so it is always remembered.
            Type::Available
                if (!(subscribed || is_own) || !session.available || !to.is_bare())
                    && !session.remember_directed(to.as_str(), limits) =>
            {
                let error = StanzaError::ResourceConstraint;
                return self.refuse(host, key, view, scope, type_, error);
            }
            Type::Unavailable => session.forget_directed(to.as_str()),
            _ => {}
        }
        match self.router.route(to) {
            Route::Server => {}
            Route::Remote if type_ == Type::Error => {}
            Route::Remote => {
                self.sessions.at_mut(key).forget_directed(to.as_str());
                self.refuse(
                    host,
                    key,
                    view,
                    scope,
                    type_,
                    StanzaError::RemoteServerNotFound,
                );
            }
            route => self.carry(host, key, view, scope, type_, to, route, None),
        }
    }

    /// A presence for an account at home here (RFC 6121 8.5).
    pub(crate) fn deliver_presence(
        &mut self,
        host: &mut impl Host,
        account: Option<AccountKey>,
        stanza: &Stanza<'_>,
    ) {
        if stanza.type_.is_subscription() {
            return self.on_inbound_subscription(host, stanza);
        }
        // An account that is not resident has no resource to tell and none to tell of.
        let Some(account) = account else { return };
        if stanza.type_ == Type::Error && stanza.to.is_bare() {
            self.on_request_bounced(host, account, stanza.from);
        }
        if stanza.type_ == Type::Probe {
            self.answer_probe(host, account, stanza.from, stanza.to.resource());
            return;
        }
        self.deliver_directed(host, account, stanza);
    }

    /// Delivers to the resource that matches, or to all available ones; answers whether any is.
    pub(crate) fn deliver_directed(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        stanza: &Stanza<'_>,
    ) -> bool {
        let resource = stanza.to.resource();
        let mut delivered = false;
        let mut noted = SmallVec::<[SessionKey; 2]>::new();
        for &key in &self.accounts.at(account).sessions {
            let session = self.sessions.at(key);
            let wanted = match resource {
                // RFC 6121 8.5.3.1: a matching resource gets it, available or not.
                Some(resource) => session.resource() == resource,
                None => session.available,
            };
            if wanted {
                self.sessions.send(host, key, stanza);
                delivered = true;
                if self.sessions.notes_strangers(key) {
                    noted.push(key);
                }
            }
        }
        for key in noted {
            self.note_stranger(host, key, stanza);
        }
        delivered
    }

    /// Sends a presence, or a probe, to every contact of an audience that it concerns: once per
    /// shard.
    pub(crate) fn broadcast(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        presence: &Presence,
        purpose: FanoutPurpose,
        audience: Audience<'_>,
    ) {
        let mut late = match audience {
            Audience::All(resources) => self.address_resources(host, presence, resources),
            Audience::Contact(_) | Audience::Chosen(_) => Vec::new(),
        };
        let account = self.accounts.at(self.sessions.at(key).account);
        let items = audience.items(account);
        self.sessions.addressed += items.len();
        let chosen = match (audience, purpose) {
            (Audience::Chosen(chosen), _) => chosen.clone(),
            (_, FanoutPurpose::Presence | FanoutPurpose::Event) => {
                Chosen::all_but(account.blocked.clone())
            }
            (_, FanoutPurpose::Probe | FanoutPurpose::Refresh) => Chosen::default(),
        };
        let (mut asked, mut abroad) = (Vec::new(), Vec::new());
        for item in items {
            if !concerns(account, item, purpose) {
                continue;
            }
            let contact = item.contact.as_str();
            match self.router.route_contact(&item.contact) {
                Route::Here(hash) if purpose == FanoutPurpose::Presence => {
                    let found = self.accounts.find(hash, contact);
                    let found = found.map(|key| self.accounts.at(key));
                    let (to, halves) = ((contact, &chosen), presence.halves());
                    present(host, &mut self.sessions, found, to, halves, &mut late);
                }
                Route::Here(hash) => {
                    if purpose == FanoutPurpose::Refresh || self.may_answer(hash, contact) {
                        asked.push((hash, item.contact.clone()));
                    }
                }
                Route::Shard(shard) => {
                    let slot = &mut self.fanout[usize::from(shard.0)];
                    write_target(contact, slot.get_or_insert_with(|| host.buffer()));
                }
                Route::Component(id) => {
                    let addresses = chosen.addresses(contact).into_iter();
                    abroad.extend(addresses.map(|to| (id, to)));
                }
                Route::Server | Route::Remote => {}
            }
        }
        for bytes in late {
            self.receive(host, &bytes);
        }
        let prober = (!asked.is_empty()).then(|| self.sessions.at(key).full().to_owned());
        let prober = prober.unwrap_or_default();
        for (hash, contact) in asked {
            match purpose {
                FanoutPurpose::Refresh => self.answer_refresh(host, contact.as_str(), &prober),
                _ => self.on_probe(host, hash, contact.as_str(), &prober),
            }
        }
        for (id, to) in abroad {
            self.address_abroad(host, id, &to);
        }
        self.flush_fanout(host, presence, purpose, &chosen);
    }

    /// Names resources as targets of a fan-out; for those at home here answers what they get.
    pub(crate) fn address_resources(
        &mut self,
        host: &mut impl Host,
        presence: &Presence,
        resources: &[Box<str>],
    ) -> Vec<Buffer> {
        let mut late = Vec::new();
        for to in resources {
            match self.router.route(&Jid::from_prepared(to)) {
                Route::Component(id) => self.address_abroad(host, id, to),
                Route::Here(_) => late.extend(self.missed(to, presence.halves())),
                Route::Shard(shard) => self.fanout[usize::from(shard.0)]
                    .get_or_insert_with(|| host.buffer())
                    .extend_from_slice(format!("{RESOURCE_SIGN}{to}\n").as_bytes()),
                Route::Server | Route::Remote => {}
            }
        }
        late
    }

    /// The presence for a resource that is there but not available, whole: a broadcast to its
    /// account does not reach it.
    fn missed(&self, to: &str, halves: (&[u8], &[u8])) -> Option<Buffer> {
        let jid = Jid::from_prepared(to);
        let account = self.accounts.find(home_hash(jid.bare()), jid.bare())?;
        let mut sessions = self.accounts.at(account).sessions.iter();
        let session =
            sessions.find(|key| Some(self.sessions.at(**key).resource()) == jid.resource())?;
        let mut bytes = Vec::new();
        write_addressed(halves, to, &mut bytes);
        (!self.sessions.at(*session).available).then_some(bytes)
    }

    /// Sends each sibling its targets, of whose resources these get the presence; and gives it to
    /// those at components that are at home here.
    pub(crate) fn flush_fanout(
        &mut self,
        host: &mut impl Host,
        presence: &Presence,
        purpose: FanoutPurpose,
        chosen: &Chosen,
    ) {
        let own = self.fanout[usize::from(self.id.0)].take();
        for index in 0..self.fanout.len() {
            let Some(targets) = self.fanout[index].take() else {
                continue;
            };
            let mut bytes = host.buffer();
            bytes.extend_from_slice(&presence.bytes);
            let split = presence.split;
            let asker = self.charge(purpose, &targets, presence.bytes.len());
            let fanout = Fanout {
                bytes,
                split,
                targets,
                chosen: chosen.clone(),
                purpose,
                asker,
                home: self.id,
            };
            host.forward(ShardId(index as u16), Parcel::Fanout(Box::new(fanout)));
        }
        if let Some(targets) = own {
            let text = std::str::from_utf8(&targets).expect("targets are JIDs");
            self.tell_abroad(host, text, (&presence.bytes, presence.split as usize));
            host.recycle(self.id, targets);
        }
    }

    /// As how many requests a fan-out of `size` bytes counts for its session: of a probe each
    /// contact is one, else so many bytes of addresses, and so often as a presence would have to be
    /// longer; at most as many as hold the session's input back.
    fn charge(
        &mut self,
        purpose: FanoutPurpose,
        targets: &[u8],
        size: usize,
    ) -> Option<(SessionHandle, u16)> {
        let count = match purpose {
            FanoutPurpose::Presence | FanoutPurpose::Event => {
                targets.len() * size.div_ceil(PRESENCE_SIZE_MAX) / TARGETS_SIZE_PER_REQUEST
            }
            FanoutPurpose::Probe | FanoutPurpose::Refresh => {
                targets.iter().filter(|byte| **byte == b'\n').count()
            }
        };
        let count = count.min(REQUESTS_PER_SESSION_MAX.into()) as u16;
        if count == 0 {
            return None;
        }
        Some((self.count_asked(count)?, count))
    }

    /// A sibling's broadcast or probes.
    pub(crate) fn on_fanout(&mut self, host: &mut impl Host, fanout: Fanout) {
        let Fanout {
            bytes,
            split,
            targets,
            chosen,
            purpose,
            asker,
            home,
        } = fanout;
        let split = split as usize;
        let text = std::str::from_utf8(&targets).expect("targets are JIDs");
        if self.router.has_components() && purpose != FanoutPurpose::Event {
            self.tell_abroad(host, text, (&bytes, split));
        }
        match purpose {
            FanoutPurpose::Presence => {
                self.present_all(host, text, &chosen, bytes.split_at(split));
            }
            FanoutPurpose::Event => {
                self.deliver_event(host, text, &chosen, bytes.split_at(split));
            }
            FanoutPurpose::Probe | FanoutPurpose::Refresh => {
                let scope = self.client_scope.clone();
                let prober = StanzaView::parse(&bytes, &scope)
                    .ok()
                    .and_then(|view| view.from().map(|from| from.into_owned()));
                let prober = prober.unwrap_or_default();
                for bare in text.lines().filter(|to| !to.starts_with(COMPONENT_SIGN)) {
                    if purpose == FanoutPurpose::Refresh {
                        self.answer_refresh(host, bare, &prober);
                    } else {
                        self.on_probe(host, home_hash(bare), bare, &prober);
                    }
                }
            }
        }
        if let Some((asker, count)) = asker {
            host.forward(home, Parcel::Answered { asker, count });
        }
        host.recycle(home, bytes);
        host.recycle(home, targets);
    }

    /// Presents a sibling's session to the targets of a fan-out.
    pub(crate) fn present_all(
        &mut self,
        host: &mut impl Host,
        targets: &str,
        chosen: &Chosen,
        halves: (&[u8], &[u8]),
    ) {
        let mut late = Vec::new();
        for to in targets.lines() {
            if to.starts_with(COMPONENT_SIGN) {
                continue;
            }
            match to.strip_prefix(RESOURCE_SIGN) {
                None => {
                    let found = self.accounts.find(home_hash(to), to);
                    let found = found.map(|key| self.accounts.at(key));
                    let to = (to, chosen);
                    present(host, &mut self.sessions, found, to, halves, &mut late);
                }
                Some(full) => late.extend(self.missed(full, halves)),
            }
            if !late.is_empty() {
                for late in late.drain(..) {
                    self.receive(host, &late);
                }
            }
        }
    }

    /// The other resources of an account see each other's presence (RFC 6121 4.2.2, 4.4.2).
    pub(crate) fn tell_own_resources(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        presence: &Presence,
    ) {
        let owner = self.accounts.at(account);
        let waits = !owner.held.is_empty();
        let mut late = Vec::new();
        for &key in &owner.sessions {
            let session = self.sessions.at(key);
            if !session.available {
                continue;
            }
            if waits {
                let mut bytes = Vec::new();
                presence.write(session.full(), &mut bytes);
                late.push(bytes);
                continue;
            }
            let sessions = &mut self.sessions;
            sessions.write_to(host, key, Keep::Memory, |address, out| {
                presence.write(address.full(), out)
            });
        }
        // What the same client sent before it may wait behind messages.
        for bytes in late {
            self.receive(host, &bytes);
        }
    }

    /// Tells some resources of contacts of every available resource of an account.
    pub(crate) fn present_to_some(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        chosen: &Chosen,
    ) {
        for key in self.accounts.at(account).sessions.clone() {
            if let Some(presence) = self.sessions.at(key).presence.clone() {
                let audience = Audience::Chosen(chosen);
                self.broadcast(host, key, &presence, FanoutPurpose::Presence, audience);
            }
        }
    }

    /// Tells one contact, or one resource of it, of every available resource of an account (RFC
    /// 6121 3.1.5).
    pub(crate) fn present_account(&mut self, host: &mut impl Host, account: AccountKey, to: &str) {
        let to = Jid::from_prepared(to);
        for key in self.accounts.at(account).sessions.clone() {
            let Some(presence) = self.sessions.at(key).presence.clone() else {
                continue;
            };
            if to.is_bare() {
                let audience = Audience::Contact(to.as_str());
                self.broadcast(host, key, &presence, FanoutPurpose::Presence, audience);
            } else {
                let mut bytes = Vec::new();
                presence.write(to.as_str(), &mut bytes);
                self.route_bytes(host, &to, bytes);
            }
        }
    }
}

/// Whether a presence, or a probe, of an account is for a contact.
#[inline]
fn concerns(account: &Account, item: &RosterItem, purpose: FanoutPurpose) -> bool {
    let concerned = match purpose {
        FanoutPurpose::Presence | FanoutPurpose::Event => item.subscription.is_from(),
        FanoutPurpose::Probe | FanoutPurpose::Refresh => item.subscription.is_to(),
    };
    // XEP-0191 3.3: who is blocked gets no presence; probes of it would go unanswered.
    let blocked = &account.blocked;
    concerned && (blocked.is_empty() || !blocks(blocked, &item.contact.as_jid()))
}

/// Adds a bare JID to the targets of a fan-out.
#[inline]
pub(crate) fn write_target(bare: &str, targets: &mut Buffer) {
    targets.extend_from_slice(bare.as_bytes());
    targets.push(b'\n');
}

/// Whether an account blocks any resource of a contact that it does not block itself.
pub(crate) fn bars(blocked: &BlockList, contact: &str) -> bool {
    !blocked.is_empty() && resources_barred(blocked, contact).next().is_some()
}

/// Those resources. A block may name the contact with the resource, or its domain with it.
pub(crate) fn resources_barred<'a>(
    blocked: &'a BlockList,
    contact: &str,
) -> impl Iterator<Item = &'a str> {
    let domain = contact.split_once('@').map(|(_, domain)| domain);
    let names = [Some(contact), domain].into_iter().flatten();
    names.flat_map(|name| blocked.resources_of(name))
}

/// Sends a presence to a contact's available resources, as far as they are chosen. Where it may
/// have to wait behind messages, or be blocked, it goes to `late` whole.
fn present(
    host: &mut impl Host,
    sessions: &mut Sessions,
    contact: Option<&Account>,
    (bare, chosen): (&str, &Chosen),
    halves: (&[u8], &[u8]),
    late: &mut Vec<Buffer>,
) {
    let Some(contact) = contact else { return };
    let is_late = !contact.held.is_empty() || !contact.blocked.is_empty();
    if is_late && chosen.has_all_of(bare) {
        let mut bytes = Vec::new();
        write_addressed(halves, bare, &mut bytes);
        return late.push(bytes);
    }
    for &key in &contact.sessions {
        let session = sessions.at(key);
        if !session.available || !chosen.has(session) {
            continue;
        }
        if is_late {
            let mut bytes = Vec::new();
            write_addressed(halves, session.full(), &mut bytes);
            late.push(bytes);
            continue;
        }
        let is_for_all = chosen.only.is_empty();
        sessions.write_to(host, key, Keep::Memory, |address, out| {
            let to = if is_for_all { bare } else { address.full() };
            write_addressed(halves, to, out);
        });
    }
}

/// The priority of a presence, 0 if it says none (RFC 6121 4.7.2.3), and what its client can do.
fn parse_available(
    view: &StanzaView<'_>,
    scope: &StreamScope,
) -> Result<(i8, Option<Caps>), StanzaError> {
    if view.child_count() == 0 {
        return Ok((0, None));
    }
    let tree = Tree::parse(view.bytes(), scope).map_err(|_| StanzaError::BadRequest)?;
    let root = tree.root();
    let priority = match root
        .child("priority", root.ns())
        .or_else(|| root.child("priority", Ns::Client))
    {
        None => 0,
        Some(node) => node
            .text()
            .trim()
            .parse()
            .map_err(|_| StanzaError::BadRequest)?,
    };
    Ok((priority, Caps::of(root)))
}
