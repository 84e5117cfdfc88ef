//! When devices that are away are told of messages, how push services answer, and what becomes of
//! registrations by that.

use super::summary::{Last, Urgency, id_text, write_publication};
use super::targets::{Doubt, News, Step};
use super::{Registration, Unwanted};
use crate::account::{AccountKey, Residence, Waiter};
use crate::host::Host;
use crate::session::SessionKey;
use crate::shard::{Shard, Timer, is_resident};
use crate::stanza::{Stanza, Type};
use crate::xep::carbons::taken_out;
use smallvec::SmallVec;
use stanza::jid::{Jid, home_hash};
use stanza::ns::Ns;
use stanza::view::{Kind, StanzaView};
use std::rc::Rc;

/// Milliseconds that a client has to come back to what it lost its connection to, before its device
/// is told.
const GRACE_MS: u64 = 3_000;

/// Publications that go out in one step.
const PER_STEP_MAX: usize = 64;

/// Milliseconds between two steps.
const STEP_MS: u64 = 5;

/// What errors say that are of the moment, or of the way to a service, beside those of the type
/// `wait`.
const PASSING: [&str; 4] = [
    "internal-server-error",
    "remote-server-not-found",
    "remote-server-timeout",
    "resource-constraint",
];

/// Where a device is that is to be told something.
enum Place {
    /// Its client is there.
    There,
    /// It is not registered any more.
    Nowhere,
    Away,
}

impl Shard {
    /// A message went to sessions, and copies of it to others. Those devices are told of it that
    /// are away and will have it when they come: their sessions keep it, or an archive does.
    #[cold]
    pub(crate) fn push_given(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        (receivers, copied): (&[SessionKey], &[SessionKey]),
        message: &Stanza<'_>,
    ) {
        let urgency = self.settings.push.and_then(|_| Urgency::of(message));
        let Some(urgency) = urgency else {
            return;
        };
        let is_archived = self.archiving.is_some();
        for registration in self.registrations(account) {
            let all = receivers.iter().chain(copied).copied();
            let mut own = all.filter(|key| self.is_of(*key, &registration));
            if self.is_there(account, &registration) {
                let now = host.now();
                let doubts: SmallVec<[Doubt; 2]> = own.filter_map(|it| self.doubt_in(it)).collect();
                let jid = self.accounts.at(account).jid.clone();
                let notifications = &mut self.accounts.notifications;
                notifications.see_by(now, &jid, &registration);
                for doubt in doubts {
                    self.accounts.notifications.watch(now, doubt);
                    self.arm_push(host);
                }
            } else if is_archived || own.next().is_some() {
                self.note_push(host, account, &registration, (urgency, message), (0, None));
            }
        }
    }

    /// A message waits for an account: those devices are told of it that are not there.
    #[cold]
    pub(crate) fn push_stored(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        message: &[u8],
    ) {
        if self.settings.push.is_none() {
            return;
        }
        let scope = self.client_scope.clone();
        let Ok(view) = StanzaView::parse(message, &scope) else {
            return;
        };
        let (Some(from), Some(to)) = (view.from(), view.to()) else {
            return;
        };
        let to = Jid::from_prepared(&to);
        let message = Stanza::complete(&view, &from, &to);
        let Some(urgency) = Urgency::of(&message) else {
            return;
        };
        for registration in self.registrations(account) {
            if !self.is_there(account, &registration) {
                self.note_push(host, account, &registration, (urgency, &message), (0, None));
            }
        }
    }

    /// A session loses its connection: its device may not have what it has not acknowledged.
    pub(crate) fn push_unacked(&mut self, host: &mut impl Host, key: SessionKey) {
        self.note_unacked(host, key, (GRACE_MS, None));
    }

    fn note_unacked(&mut self, host: &mut impl Host, key: SessionKey, how: (u64, Option<Doubt>)) {
        let session = self.sessions.at(key);
        let account = session.account;
        let owner = self.accounts.at(account);
        let is_told = owner.push.is_some() && self.settings.push.is_some();
        if !is_told || owner.is_gone || self.is_stopping() {
            return;
        }
        let mut own = self.registrations(account);
        // Who is in doubt has been told already.
        own.retain(|one| self.is_of(key, one) && self.doubted(account, one) != Some(key));
        if own.is_empty() {
            return;
        }
        for registration in &own {
            self.end_doubt(host, account, registration);
        }
        let acks = self.sessions.at(key).outlet.acks.as_ref();
        let unacked: Vec<Box<[u8]>> = acks.map_or_else(Vec::new, |acks| acks.messages());
        let scope = self.client_scope.clone();
        for bytes in unacked {
            let bytes = match taken_out(&bytes) {
                None => bytes,
                Some(Some(original)) => original.into(),
                Some(None) => continue, // Another account has the message.
            };
            let Ok(view) = StanzaView::parse(&bytes, &scope) else {
                continue;
            };
            let (Some(from), Some(to)) = (view.from(), view.to()) else {
                continue;
            };
            let to = Jid::from_prepared(&to);
            let message = Stanza::complete(&view, &from, &to);
            if let Some(urgency) = Urgency::of(&message) {
                for registration in &own {
                    self.note_push(host, account, registration, (urgency, &message), how);
                }
            }
        }
    }

    /// A session's client is there: its device need not be told what it will see.
    pub(crate) fn push_seen(&mut self, host: &mut impl Host, key: SessionKey) {
        let account = self.accounts.at(self.sessions.at(key).account);
        if account.push.is_none() {
            return;
        }
        let (now, device) = (host.now(), self.device_of(key));
        let bare = account.jid.clone();
        let notifications = &mut self.accounts.notifications;
        notifications.see(now, bare.as_str(), |one| one.device.is(&device));
    }

    fn registrations(&self, account: AccountKey) -> Vec<Rc<Registration>> {
        let registrations = self.accounts.at(account).push.as_ref();
        registrations.map_or_else(Vec::new, |it| it.all.clone())
    }

    fn is_of(&self, key: SessionKey, registration: &Registration) -> bool {
        let agent = self.sessions.agents.get(&key).copied();
        let resource = self.sessions.at(key).resource();
        registration.device.has(agent, resource)
    }

    fn is_there(&self, account: AccountKey, registration: &Registration) -> bool {
        let doubted = self.doubted(account, registration);
        let mut sessions = self.accounts.at(account).sessions.iter();
        sessions.any(|key| {
            let session = self.sessions.at(*key);
            let is_on = session.available && session.outlet.conn.is_some();
            is_on && Some(*key) != doubted && self.is_of(*key, registration)
        })
    }

    /// The session of a device that seems to be there, but has not shown that it is since the
    /// device was told all the same.
    fn doubted(&self, account: AccountKey, registration: &Registration) -> Option<SessionKey> {
        let jid = &self.accounts.at(account).jid;
        let doubt = self.accounts.notifications.doubt(jid, registration)?;
        (self.doubt_in(doubt.key) == Some(doubt)).then_some(doubt.key)
    }

    /// Where a device that was told for its session's silence has acknowledged something since, it
    /// has seen what it was told of.
    fn end_doubt(&mut self, host: &impl Host, account: AccountKey, registration: &Registration) {
        let jid = self.accounts.at(account).jid.clone();
        let Some(doubt) = self.accounts.notifications.doubt(&jid, registration) else {
            return;
        };
        let session = self.sessions.get(doubt.key);
        let session = session.filter(|session| session.serial == doubt.serial);
        let acks = session.and_then(|session| session.outlet.acks.as_ref());
        if acks.is_some_and(|acks| acks.acked() != doubt.acked) {
            let notifications = &mut self.accounts.notifications;
            notifications.see_by(host.now(), &jid, registration);
        }
    }

    /// By what a session's client would show that it is there: it acknowledges (XEP-0198).
    fn doubt_in(&self, key: SessionKey) -> Option<Doubt> {
        let session = self.sessions.get(key)?;
        let acks = session.outlet.acks.as_ref()?;
        Some(Doubt {
            key,
            serial: session.serial,
            conn: session.outlet.conn?,
            acked: acks.acked(),
        })
    }

    /// A session has had its time to acknowledge what it was sent. Where its client has said
    /// nothing, its device is told; where it has, what is left has another time.
    fn on_watched(&mut self, host: &mut impl Host, doubt: Doubt) {
        let Some(current) = self.doubt_in(doubt.key) else {
            return;
        };
        if current == doubt {
            self.note_unacked(host, doubt.key, (0, Some(doubt)));
        } else if self.sessions.at(doubt.key).outlet.queued() > 0 {
            // Also where it is another session by now.
            self.accounts.notifications.watch(host.now(), current);
        }
    }

    fn note_push(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        registration: &Rc<Registration>,
        (urgency, message): (Urgency, &Stanza<'_>),
        (later_ms, doubt): (u64, Option<Doubt>),
    ) {
        self.end_doubt(host, account, registration);
        let policy = self.settings.push.unwrap_or_default();
        let news = News {
            doubt,
            urgency,
            last: Last::of(message, policy),
        };
        let jid = self.accounts.at(account).jid.clone();
        let from = host.now().plus_ms(later_ms);
        let notifications = &mut self.accounts.notifications;
        notifications.note(from, &jid, registration, news);
        self.arm_push(host);
    }

    /// Has the clock wake the shard for what is first. What goes out is no effect of the stanza in
    /// hand.
    fn arm_push(&mut self, host: &mut impl Host) {
        let notifications = &mut self.accounts.notifications;
        notifications.admit();
        let first = notifications.first_time();
        if let Some(at) = first.and_then(|first| notifications.arm(first)) {
            self.arm(host, at, Timer::Push);
        }
    }

    /// The time of the first has come.
    pub(crate) fn on_push(&mut self, host: &mut impl Host) {
        let now = host.now();
        self.accounts.notifications.disarm(now);
        for _ in 0..PER_STEP_MAX {
            if let Some(doubt) = self.accounts.notifications.next_watched(now) {
                self.on_watched(host, doubt);
                continue;
            }
            let first = self.accounts.notifications.first();
            let Some((_, number)) = first.filter(|(at, _)| *at <= now) else {
                return self.arm_push(host);
            };
            match self.accounts.notifications.at(number).step {
                Step::Asked { .. } => self.fail_push(host, number),
                Step::Due(_) | Step::Idle(_) | Step::Crowded { .. } => {
                    self.publish_push(host, number);
                }
            }
        }
        if let Some(next) = self.accounts.notifications.arm(now.plus_ms(STEP_MS)) {
            self.arm(host, next, Timer::Push);
        }
    }

    /// Tells a service what a device has not seen.
    fn publish_push(&mut self, host: &mut impl Host, number: u64) {
        let now = host.now();
        match self.place_of(number) {
            Place::There => return self.accounts.notifications.see_one(now, number),
            Place::Nowhere => return self.accounts.notifications.remove(number),
            Place::Away => {}
        }
        let target = self.accounts.notifications.at(number);
        let registration = target.registration.clone();
        // The configuration may not have it any more.
        let Ok(component) = self.push_component(&registration.service) else {
            return self.fail_push(host, number);
        };
        let id = host.random();
        let notifications = &mut self.accounts.notifications;
        if !notifications.send(now, number, (id, component)) {
            return;
        }
        let mut bytes = Vec::new();
        write_publication(id, notifications.at(number), &mut bytes);
        self.route_bytes(host, &Jid::from_prepared(&registration.service), bytes);
    }

    fn place_of(&self, number: u64) -> Place {
        let target = self.accounts.notifications.at(number);
        let bare = target.account.as_str();
        let found = self.accounts.find(home_hash(bare), bare);
        let Some(account) = found.filter(|key| is_resident(&self.accounts.at(*key).residence))
        else {
            return Place::Away;
        };
        let Registration { service, node, .. } = &*target.registration;
        let registrations = self.accounts.at(account).push.as_ref();
        let mut known = registrations.iter().flat_map(|it| &it.all);
        // By the device that it has now.
        match known.find(|one| one.is(service, node)) {
            None => Place::Nowhere,
            Some(one) if self.is_there(account, one) => Place::There,
            Some(_) => Place::Away,
        }
    }

    /// A publication failed for the moment.
    fn fail_push(&mut self, host: &mut impl Host, number: u64) {
        let target = self.accounts.notifications.at(number);
        let (account, service) = (target.account.clone(), target.registration.service.clone());
        let is_retried = self.accounts.notifications.fail(host.now(), number);
        if !is_retried {
            let account = account.as_str();
            tracing::debug!(account, %service, "a push service does not answer");
        }
    }

    /// An answer to an account, which may be that of a push service.
    pub(crate) fn on_push_answered(&mut self, host: &mut impl Host, answer: &Stanza<'_>) {
        debug_assert_eq!(answer.kind, Kind::Iq);
        let bare = answer.to.bare();
        let id = answer.id().unwrap_or_default();
        let is_it = |registration: &Registration, asked: u64| {
            *registration.service == *answer.from && id_text(asked) == *id
        };
        let Some(number) = self.accounts.notifications.asked(bare, is_it) else {
            return;
        };
        match answer.type_ {
            Type::Error if is_lasting(answer) => {
                let registration = self.accounts.notifications.at(number).registration.clone();
                let Registration { service, node, .. } = &*registration;
                tracing::debug!(account = bare, %service, "push disabled by its service");
                let unwanted = Unwanted::Node(service.clone(), node.clone());
                self.loaded_or_loading(host, bare);
                self.end_push(host, bare, unwanted);
            }
            Type::Error => self.fail_push(host, number),
            _ => self.accounts.notifications.take(host.now(), number),
        }
        self.arm_push(host);
    }

    /// Registrations of an account in memory end, or of one that is being loaded. Those of another
    /// storage has forgotten with what was trusted.
    pub(crate) fn end_push(&mut self, host: &mut impl Host, bare: &str, unwanted: Unwanted) {
        let notifications = &mut self.accounts.notifications;
        notifications.forget(bare, |one| unwanted.has(one));
        let Some(key) = self.accounts.find(home_hash(bare), bare) else {
            return;
        };
        match &mut self.accounts.at_mut(key).residence {
            Residence::Loading(queue) => queue.push(Waiter::Unpush(Box::new(unwanted))),
            Residence::Resident => self.disable_push(host, key, &unwanted),
        }
    }

    /// An account is gone: nothing is told of it.
    pub(crate) fn forget_push(&mut self, bare: &str) {
        self.accounts.notifications.forget_account(bare);
    }

    /// Devices that have not seen everything, and publications that are not answered.
    pub fn push_counts(&self) -> (usize, usize) {
        self.accounts.notifications.counts()
    }
}

/// Whether an error says that a node takes nothing any more (XEP-0357 7.1), rather than that
/// something fails for the moment.
fn is_lasting(answer: &Stanza<'_>) -> bool {
    let Some(tree) = answer.tree() else {
        return false;
    };
    let root = tree.root();
    let Some(error) = root.child("error", root.ns()) else {
        return true;
    };
    let mut conditions = error.children().filter(|it| it.ns() == Ns::StanzaErrors);
    let is_passing = conditions.any(|it| PASSING.contains(&it.name()));
    error.attr("type") != Some("wait") && !is_passing
}
