//! What registered devices are to be told, and when: one publication under way for each, with all
//! that came meanwhile behind it.
//!
//! Invariant: every number of the agenda, of the idle ones and of those that wait for a component
//! is that of a target.

use super::Registration;
use super::summary::{Last, Urgency};
use crate::host::{ConnId, Timestamp};
use crate::session::SessionKey;
use crate::xep::components::ComponentId;
use smallvec::SmallVec;
use stanza::jid::BareJid;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::rc::Rc;

/// Devices of one shard that are remembered for what they have not seen. For one more the one is
/// forgotten that has been told everything longest ago; where there is none, it is not told.
pub const TARGETS_MAX: usize = 16_384;

/// Publications of one shard that a component has not answered; further ones to it wait, those to
/// other components do not.
pub const REQUESTS_MAX: usize = 1_024;

/// Milliseconds that a service has for its answer.
pub const ANSWER_MS_MAX: u64 = 30_000;

/// Milliseconds between two publications for one device: what comes between is told at once.
pub const INTERVAL_MS: u64 = 5_000;

/// The same before one that tells of a call.
pub(super) const CALL_INTERVAL_MS: u64 = 1_000;

/// Milliseconds after which a publication is tried again that failed for the moment; then it is
/// given up until something else comes.
pub const RETRY_MS: [u64; 3] = [10_000, 60_000, 300_000];

/// Milliseconds that a client has to acknowledge something of what it was sent; then it may be gone
/// without a word.
pub const ACK_MS_MAX: u64 = 30_000;

/// A session whose client may not be there, by its connection and by how far it had acknowledged:
/// as long as that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    pub key: SessionKey,
    pub serial: u32,
    pub conn: ConnId,
    pub acked: u32,
}

/// Where a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It has been told everything, at that time.
    Idle(Timestamp),
    /// It is to be told then.
    Due(Timestamp),
    /// It was to be told then, and its component has enough to answer.
    Crowded {
        since: Timestamp,
        component: ComponentId,
    },
    /// The service has until then to answer the publication of this id.
    Asked {
        id: u64,
        until: Timestamp,
        component: ComponentId,
    },
}

/// What a component has to answer.
#[derive(Debug, Default)]
struct Slots {
    asked: usize,
    /// What is to be told when there is room, in the order in which it was due.
    crowded: BTreeSet<(Timestamp, u64)>,
}

/// A device that has not seen everything.
#[derive(Debug)]
pub(super) struct Target {
    pub account: BareJid,
    pub registration: Rc<Registration>,
    /// How many messages it has not seen.
    pub count: u32,
    /// The last of them.
    pub last: Option<Last>,
    pub step: Step,
    /// Whether something came that no publication tells of.
    has_news: bool,
    /// How much that matters.
    urgency: Urgency,
    /// How often the publication has failed.
    failures: usize,
    /// When the last publication went out.
    sent: Timestamp,
    /// Its session that seems to be there, where that has been told.
    doubt: Option<Doubt>,
}

impl Target {
    /// When it may be told what it has not been told, from a time on.
    fn due(&self, from: Timestamp) -> Timestamp {
        from.max(self.sent.plus_ms(self.urgency.interval_ms()))
    }
}

/// The targets of a shard, by numbers that are never used again.
#[derive(Debug, Default)]
pub(crate) struct Notifications {
    targets: HashMap<u64, Target>,
    by_account: HashMap<BareJid, SmallVec<[u64; 2]>>,
    /// What is due, or has to be answered, by when.
    agenda: BTreeSet<(Timestamp, u64)>,
    idle: BTreeSet<(Timestamp, u64)>,
    /// Publications that are not answered, and those that wait for that.
    slots: BTreeMap<ComponentId, Slots>,
    last: u64,
    /// Sessions that were sent something to be told of, each once, in the order of time.
    watched: VecDeque<(Timestamp, Doubt)>,
    watched_keys: HashSet<SessionKey>,
    /// When the timer is to come: each time is before the one that was armed earlier.
    armed: Vec<Timestamp>,
}

/// Something that a device is to know.
#[derive(Debug)]
pub(super) struct News {
    /// Whose session seems to be there.
    pub doubt: Option<Doubt>,
    pub urgency: Urgency,
    pub last: Option<Last>,
}

impl Notifications {
    /// A device is away, and there is something to know for it: it is told then or later.
    pub(super) fn note(
        &mut self,
        from: Timestamp,
        account: &BareJid,
        registration: &Rc<Registration>,
        news: News,
    ) {
        let found = self.find(account, registration);
        let Some(number) = found.or_else(|| self.add(from, account, registration)) else {
            tracing::debug!("too many devices wait for notifications");
            return;
        };
        let target = self.at_mut(number);
        target.registration = registration.clone();
        target.count = target.count.saturating_add(1);
        target.last = news.last.or(target.last.take());
        target.has_news = true;
        target.doubt = news.doubt.or(target.doubt);
        target.urgency = target.urgency.max(news.urgency);
        let due = target.due(from);
        match target.step {
            Step::Idle(_) => self.set(number, Step::Due(due)),
            Step::Due(at) if target.failures == 0 && due < at => self.set(number, Step::Due(due)),
            Step::Due(_) | Step::Crowded { .. } | Step::Asked { .. } => {}
        }
    }

    fn add(
        &mut self,
        now: Timestamp,
        account: &BareJid,
        registration: &Rc<Registration>,
    ) -> Option<u64> {
        if self.targets.len() >= TARGETS_MAX {
            let (_, oldest) = *self.idle.first()?;
            self.remove(oldest);
        }
        self.last += 1;
        let target = Target {
            account: account.clone(),
            registration: registration.clone(),
            count: 0,
            last: None,
            step: Step::Idle(now),
            has_news: false,
            urgency: Urgency::Message,
            failures: 0,
            sent: Timestamp::default(),
            doubt: None,
        };
        self.targets.insert(self.last, target);
        self.idle.insert((now, self.last));
        let numbers = self.by_account.entry(account.clone()).or_default();
        numbers.push(self.last);
        Some(self.last)
    }

    fn find(&self, account: &BareJid, registration: &Registration) -> Option<u64> {
        let mut numbers = self.by_account.get(account)?.iter().copied();
        numbers.find(|number| {
            let known = &self.at(*number).registration;
            known.is(&registration.service, &registration.node)
        })
    }

    /// The session that made a device be told although it seems to be there.
    pub(super) fn doubt(&self, account: &BareJid, registration: &Registration) -> Option<Doubt> {
        self.at(self.find(account, registration)?).doubt
    }

    /// A session was sent something that its device will be told of, unless it acknowledges.
    pub(super) fn watch(&mut self, now: Timestamp, doubt: Doubt) {
        if self.watched_keys.insert(doubt.key) {
            let at = now.plus_ms(ACK_MS_MAX);
            self.watched.push_back((at, doubt));
        }
    }

    /// The next session whose time to acknowledge is over.
    pub(super) fn next_watched(&mut self, now: Timestamp) -> Option<Doubt> {
        let (_, doubt) = self.watched.pop_front_if(|(at, _)| *at <= now)?;
        self.watched_keys.remove(&doubt.key);
        Some(doubt)
    }

    fn numbers(&self, account: &str) -> impl Iterator<Item = u64> + use<> {
        let account = BareJid::from_prepared(account);
        let numbers = self.by_account.get(&account).cloned();
        numbers.unwrap_or_default().into_iter()
    }

    /// A target, which is there as long as it has a number in the agenda.
    pub(super) fn at(&self, number: u64) -> &Target {
        &self.targets[&number]
    }

    fn at_mut(&mut self, number: u64) -> &mut Target {
        let target = self.targets.get_mut(&number);
        target.expect("a number is that of a target")
    }

    fn set(&mut self, number: u64, step: Step) {
        let old = std::mem::replace(&mut self.at_mut(number).step, step);
        self.unlist(number, old);
        match step {
            Step::Idle(since) => drop(self.idle.insert((since, number))),
            Step::Due(at) => drop(self.agenda.insert((at, number))),
            Step::Crowded { since, component } => {
                let slots = self.slots.entry(component).or_default();
                slots.crowded.insert((since, number));
            }
            Step::Asked {
                until, component, ..
            } => {
                self.agenda.insert((until, number));
                self.slots.entry(component).or_default().asked += 1;
            }
        }
    }

    fn unlist(&mut self, number: u64, step: Step) {
        match step {
            Step::Idle(since) => drop(self.idle.remove(&(since, number))),
            Step::Due(at) => drop(self.agenda.remove(&(at, number))),
            Step::Crowded { since, component } => {
                let slots = self.slots.entry(component).or_default();
                slots.crowded.remove(&(since, number));
            }
            Step::Asked {
                until, component, ..
            } => {
                self.agenda.remove(&(until, number));
                self.slots.entry(component).or_default().asked -= 1;
            }
        }
    }

    pub(super) fn remove(&mut self, number: u64) {
        let Some(target) = self.targets.remove(&number) else {
            return;
        };
        self.unlist(number, target.step);
        if let Some(numbers) = self.by_account.get_mut(&target.account) {
            numbers.retain(|known| *known != number);
            if numbers.is_empty() {
                self.by_account.remove(&target.account);
            }
        }
    }

    /// Nothing is told any more by some of an account's registrations.
    pub(crate) fn forget(&mut self, account: &str, is_it: impl Fn(&Registration) -> bool) {
        for number in self.numbers(account) {
            if is_it(&self.at(number).registration) {
                self.remove(number);
            }
        }
    }

    /// Nothing is told any more of an account, which is gone.
    pub(crate) fn forget_account(&mut self, account: &str) {
        self.forget(account, |_| true);
    }

    /// The same of one device.
    pub(super) fn see_by(
        &mut self,
        now: Timestamp,
        account: &BareJid,
        registration: &Registration,
    ) {
        if let Some(number) = self.find(account, registration) {
            self.see_one(now, number);
        }
    }

    /// A device is there and sees everything. What is under way may still be answered.
    pub(super) fn see(
        &mut self,
        now: Timestamp,
        account: &str,
        is_it: impl Fn(&Registration) -> bool,
    ) {
        for number in self.numbers(account) {
            if is_it(&self.at(number).registration) {
                self.see_one(now, number);
            }
        }
    }

    pub(super) fn see_one(&mut self, now: Timestamp, number: u64) {
        let target = self.at_mut(number);
        (target.count, target.last, target.has_news) = (0, None, false);
        (target.failures, target.doubt) = (0, None);
        if let Step::Due(_) | Step::Crowded { .. } = target.step {
            self.set(number, Step::Idle(now));
        }
    }

    /// The first that is due, or has not been answered in time.
    pub(super) fn first(&self) -> Option<(Timestamp, u64)> {
        self.agenda.first().copied()
    }

    /// When something has to be done next.
    pub(super) fn first_time(&self) -> Option<Timestamp> {
        let watched = self.watched.front().map(|(at, _)| *at);
        let due = self.first().map(|(at, _)| at);
        watched.into_iter().chain(due).min()
    }

    /// The time to have the timer come at, if it does not come before.
    pub(super) fn arm(&mut self, at: Timestamp) -> Option<Timestamp> {
        let is_first = self.armed.last().is_none_or(|armed| at < *armed);
        is_first.then(|| {
            self.armed.push(at);
            at
        })
    }

    /// The timer has come.
    pub(super) fn disarm(&mut self, now: Timestamp) {
        while self.armed.pop_if(|armed| *armed <= now).is_some() {}
    }

    /// Whatever waits for a component that has room by now is due.
    pub(super) fn admit(&mut self) {
        let mut admitted = Vec::new();
        for slots in self.slots.values() {
            let room = REQUESTS_MAX.saturating_sub(slots.asked);
            admitted.extend(slots.crowded.iter().take(room).copied());
        }
        for (since, number) in admitted {
            self.set(number, Step::Due(since));
        }
    }

    /// A publication goes out, with all that is known, if its component may be asked; else it waits
    /// for that.
    pub(super) fn send(
        &mut self,
        now: Timestamp,
        number: u64,
        (id, component): (u64, ComponentId),
    ) -> bool {
        let slots = self.slots.entry(component).or_default();
        if slots.asked >= REQUESTS_MAX {
            let since = match self.at(number).step {
                Step::Due(since) => since,
                Step::Idle(_) | Step::Crowded { .. } | Step::Asked { .. } => now,
            };
            self.set(number, Step::Crowded { since, component });
            return false;
        }
        let target = self.at_mut(number);
        (target.has_news, target.urgency) = (false, Urgency::Message);
        target.sent = now;
        let until = now.plus_ms(ANSWER_MS_MAX);
        let step = Step::Asked {
            id,
            until,
            component,
        };
        self.set(number, step);
        true
    }

    /// The target of an account whose publication is not answered and is the one that `is_it`.
    pub(super) fn asked(
        &self,
        account: &str,
        is_it: impl Fn(&Registration, u64) -> bool,
    ) -> Option<u64> {
        self.numbers(account).find(|number| {
            let target = self.at(*number);
            match target.step {
                Step::Asked { id, .. } => is_it(&target.registration, id),
                Step::Idle(_) | Step::Due(_) | Step::Crowded { .. } => false,
            }
        })
    }

    /// The service has taken a publication.
    pub(super) fn take(&mut self, now: Timestamp, number: u64) {
        let target = self.at_mut(number);
        target.failures = 0;
        let step = match target.has_news {
            true => Step::Due(target.due(now)),
            false => Step::Idle(now),
        };
        self.set(number, step);
    }

    /// A publication failed for the moment: whether it is tried again.
    pub(super) fn fail(&mut self, now: Timestamp, number: u64) -> bool {
        let target = self.at_mut(number);
        let retry = RETRY_MS.get(target.failures);
        // Whose device has been there meanwhile need not be woken.
        let retry = retry.filter(|_| target.count > 0);
        target.failures = retry.map_or(0, |_| target.failures + 1);
        let is_asked = matches!(target.step, Step::Asked { .. });
        let step = match retry {
            Some(ms) => Step::Due(now.plus_ms(*ms)),
            // What came meanwhile is the next message.
            None if target.has_news && is_asked => Step::Due(target.due(now)),
            None => Step::Idle(now),
        };
        target.has_news |= retry.is_some();
        self.set(number, step);
        !matches!(step, Step::Idle(_))
    }

    /// How many targets there are, and how many of their publications are not answered.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let asked = self.slots.values().map(|slots| slots.asked);
        (self.targets.len(), asked.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Device, Registration};
    use super::*;

    fn registration(node: &str) -> Rc<Registration> {
        Rc::new(Registration {
            service: "push.example.org".into(),
            node: node.into(),
            options: Box::default(),
            device: Device::default(),
        })
    }

    const PUSH: ComponentId = ComponentId(0);

    fn news() -> News {
        News {
            doubt: None,
            urgency: Urgency::Message,
            last: None,
        }
    }

    #[test]
    fn for_one_target_too_many_the_one_goes_that_was_told_longest_ago() {
        let mut all = Notifications::default();
        let registration = registration("n");
        let account = |index: usize| BareJid::from_prepared(&format!("a{index}@example.org"));
        let at = Timestamp(1_000_000_000);
        for index in 0..TARGETS_MAX {
            all.note(at, &account(index), &registration, news());
        }
        // All have something to be told: one more is not.
        all.note(at, &account(TARGETS_MAX), &registration, news());
        assert_eq!(all.counts(), (TARGETS_MAX, 0));
        assert_eq!(all.numbers(account(TARGETS_MAX).as_str()).count(), 0);
        for (index, id) in [(7, 1), (5, 2)] {
            let number = all.numbers(account(index).as_str()).next().expect("one");
            assert!(all.send(at.plus_ms(id), number, (id, PUSH)));
            assert_eq!(all.counts(), (TARGETS_MAX, 1));
            let found = all.asked(account(index).as_str(), |_, asked| asked == id);
            assert_eq!(found, Some(number));
            all.take(at.plus_ms(id), number);
        }
        all.note(at, &account(TARGETS_MAX), &registration, news());
        assert_eq!(all.counts(), (TARGETS_MAX, 0));
        for (index, count) in [(7, 0), (5, 1), (TARGETS_MAX, 1)] {
            let known = all.numbers(account(index).as_str()).count();
            assert_eq!(known, count, "{index}");
        }
    }

    #[test]
    fn what_is_forgotten_is_nowhere_any_more() {
        let mut all = Notifications::default();
        let account = BareJid::from_prepared("a@example.org");
        let at = Timestamp(1_000_000_000);
        for node in ["idle", "due", "asked"] {
            all.note(at, &account, &registration(node), news());
        }
        let numbers: Vec<u64> = all.numbers(account.as_str()).collect();
        all.see_one(at, numbers[0]);
        assert!(all.send(at, numbers[2], (1, PUSH)));
        assert_eq!(
            (all.counts(), all.first()),
            ((3, 1), Some((at, numbers[1])))
        );
        all.forget_account(account.as_str());
        assert_eq!((all.counts(), all.first()), ((0, 0), None));
        assert!(all.idle.is_empty() && all.by_account.is_empty());
    }

    #[test]
    fn what_comes_while_the_last_try_fails_is_the_next_message() {
        let mut all = Notifications::default();
        let account = BareJid::from_prepared("a@example.org");
        let mut at = Timestamp(1_000_000_000);
        all.note(at, &account, &registration("n"), news());
        let number = all.numbers(account.as_str()).next().expect("one");
        for is_last in [false, false, false, true] {
            assert!(all.send(at, number, (1, PUSH)));
            if is_last {
                all.note(at, &account, &registration("n"), news());
            }
            at = at.plus_ms(ANSWER_MS_MAX);
            assert!(all.fail(at, number));
            let Step::Due(due) = all.at(number).step else {
                panic!("it is tried again: {:?}", all.at(number));
            };
            assert_eq!(due == at, is_last);
            at = due;
        }
        // That is as good as the first, and then it is given up.
        for is_retried in [true, true, true, false] {
            assert!(all.send(at, number, (1, PUSH)));
            assert_eq!(all.fail(at, number), is_retried);
        }
    }

    #[test]
    fn what_waits_for_a_component_is_due_when_that_has_room() {
        let mut all = Notifications::default();
        let account = BareJid::from_prepared("a@example.org");
        let at = Timestamp(1_000_000_000);
        for index in 0..REQUESTS_MAX as u64 + 3 {
            let node = registration(&index.to_string());
            all.note(at.plus_ms(index), &account, &node, news());
        }
        let numbers: Vec<u64> = all.numbers(account.as_str()).collect();
        let later = at.plus_ms(ANSWER_MS_MAX);
        for (index, number) in numbers.iter().enumerate() {
            let is_sent = all.send(later, *number, (1, PUSH));
            assert_eq!(is_sent, index < REQUESTS_MAX);
        }
        all.admit();
        assert_eq!(
            all.first(),
            Some((later.plus_ms(ANSWER_MS_MAX), numbers[0]))
        );
        // Another component has room, and who is there need not wait any more.
        assert!(all.send(later, numbers[REQUESTS_MAX + 1], (1, ComponentId(1))));
        all.see_one(later, numbers[REQUESTS_MAX]);
        all.take(later, numbers[7]);
        all.take(later, numbers[8]);
        all.admit();
        let due = at.plus_ms(REQUESTS_MAX as u64 + 2);
        assert_eq!(all.first(), Some((due, numbers[REQUESTS_MAX + 2])));
        assert!(all.send(later, numbers[REQUESTS_MAX + 2], (1, PUSH)));
        assert_eq!(all.counts(), (REQUESTS_MAX + 3, REQUESTS_MAX));
    }

    #[test]
    fn the_timer_is_armed_for_what_comes_before_it() {
        let mut all = Notifications::default();
        let at = |ms| Timestamp(0).plus_ms(ms);
        for (ms, is_armed) in [(30, true), (40, false), (10, true), (10, false), (5, true)] {
            assert_eq!(all.arm(at(ms)), is_armed.then(|| at(ms)), "{ms}");
        }
        all.disarm(at(10));
        assert_eq!(all.arm(at(30)), None);
        all.disarm(at(30));
        assert_eq!(all.arm(at(30)), Some(at(30)));
    }
}
