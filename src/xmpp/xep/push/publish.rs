//! When devices that are away are told of messages, how push services answer, and what becomes of
//! registrations by that.

use super::summary::{Last, Urgency, id_text, write_publication};
use super::targets::{CROWDED_MS, Doubt, News, Step};
use super::{Registration, Unwanted};
use crate::account::{AccountKey, Residence, Waiter};
use crate::host::Host;
use crate::session::SessionKey;
use crate::shard::{Shard, Timer, is_resident};
use crate::stanza::{Stanza, Type};
use crate::xep::carbons::taken_out;
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
        let Some(urgency) = Urgency::of(message) else {
            return;
        };
        let is_archived = self.archiving.is_some();
        for registration in self.registrations(account) {
            let mut all = receivers.iter().chain(copied).copied();
            let has_it = all.find(|key| self.is_of(*key, &registration));
            if self.is_there(account, &registration) {
                let now = host.now();
                let doubt = has_it.and_then(|key| self.doubt_in(key));
                let jid = self.accounts.at(account).jid.clone();
                let notifications = &mut self.accounts.notifications;
                notifications.see_by(now, &jid, &registration);
                if let Some(doubt) = doubt {
                    notifications.watch(now, doubt);
                    self.arm_push(host);
                }
            } else if is_archived || has_it.is_some() {
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
        if owner.push.is_none() || owner.is_gone || self.is_stopping() {
            return;
        }
        let acks = session.outlet.acks.as_ref();
        let unacked: Vec<Box<[u8]>> = acks.map_or_else(Vec::new, |acks| acks.messages());
        let mut own = self.registrations(account);
        // Who is in doubt has been told already.
        own.retain(|one| self.is_of(key, one) && !self.is_doubted(account, one));
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
        registrations.map_or_else(Vec::new, |all| all.0.clone())
    }

    fn is_of(&self, key: SessionKey, registration: &Registration) -> bool {
        registration.device.is(&self.device_of(key))
    }

    fn is_there(&self, account: AccountKey, registration: &Registration) -> bool {
        let mut sessions = self.accounts.at(account).sessions.iter();
        let is_there = sessions.any(|key| {
            let session = self.sessions.at(*key);
            let is_on = session.available && session.outlet.conn.is_some();
            is_on && self.is_of(*key, registration)
        });
        is_there && !self.is_doubted(account, registration)
    }

    /// Whether a device has been told although it seems to be there, and has not shown since that
    /// it is.
    fn is_doubted(&self, account: AccountKey, registration: &Registration) -> bool {
        let jid = &self.accounts.at(account).jid;
        let doubt = self.accounts.notifications.doubt(jid, registration);
        doubt.is_some_and(|doubt| self.doubt_in(doubt.key) == Some(doubt))
    }

    /// By what a session's client would show that it is there: it acknowledges (XEP-0198).
    fn doubt_in(&self, key: SessionKey) -> Option<Doubt> {
        let session = self.sessions.get(key)?;
        let acks = session.outlet.conn.and(session.outlet.acks.as_ref())?;
        Some(Doubt {
            key,
            serial: session.serial,
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
        let Some(first) = notifications.first_time() else {
            return;
        };
        if notifications.armed.is_none_or(|armed| first < armed) {
            notifications.armed = Some(first);
            self.arm(host, first, Timer::Push);
        }
    }

    /// The time of the first has come.
    pub(crate) fn on_push(&mut self, host: &mut impl Host) {
        let now = host.now();
        let armed = &mut self.accounts.notifications.armed;
        if armed.is_some_and(|armed| armed <= now) {
            *armed = None;
        }
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
                Step::Due(_) | Step::Idle(_) => self.publish_push(host, number),
            }
        }
        if self.accounts.notifications.armed.is_none() {
            let next = now.plus_ms(STEP_MS);
            self.accounts.notifications.armed = Some(next);
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
        let notifications = &mut self.accounts.notifications;
        if notifications.is_crowded() {
            return notifications.postpone(number, now.plus_ms(CROWDED_MS));
        }
        let id = host.random();
        notifications.send(now, number, id);
        let target = notifications.at(number);
        let mut bytes = Vec::new();
        write_publication(id, target, &mut bytes);
        let registration = target.registration.clone();
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
        let registration = &target.registration;
        let registrations = self.accounts.at(account).push.as_ref();
        let mut known = registrations.iter().flat_map(|all| &all.0);
        match known.any(|one| one.is(&registration.service, &registration.node)) {
            false => Place::Nowhere,
            true if self.is_there(account, registration) => Place::There,
            true => Place::Away,
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
                tracing::info!(account = bare, %service, "push disabled by its service");
                let unwanted = Unwanted::Node(service.clone(), node.clone());
                self.end_push(host, bare, unwanted);
            }
            Type::Error => self.fail_push(host, number),
            _ => self.accounts.notifications.take(host.now(), number),
        }
        self.arm_push(host);
    }

    /// Registrations of an account end, wherever that is.
    pub(crate) fn end_push(&mut self, host: &mut impl Host, bare: &str, unwanted: Unwanted) {
        if self.settings.push.is_none() {
            return;
        }
        let notifications = &mut self.accounts.notifications;
        notifications.forget(bare, |one| unwanted.has(one));
        let key = self.loaded_or_loading(host, bare);
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
