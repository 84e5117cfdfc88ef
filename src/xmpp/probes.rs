//! Probes of contacts whose sessions sleep in storage: who logs in sees them when they are awake.
//!
//! Invariant: however many log in, so many accounts are woken for that in a second, and no more.

use crate::account::{AccountKey, Residence};
use crate::host::{Host, Timestamp};
use crate::limit::{LOAD_QUEUE_MAX, LOAD_QUEUE_SIZE_MAX};
use crate::session::Presence;
use crate::shard::{Shard, Timer};
use crate::xep::blocking::blocks;
use stanza::jid::{Jid, home_hash};
use std::collections::{HashSet, VecDeque};

/// Milliseconds between two accounts of a shard that are woken because somebody logs in: a hundred
/// a second, where as many clients as that resume as well.
pub const PROBE_WAKE_MS: u64 = 10;

/// Milliseconds that the next one waits for an account that is still being read.
const PROBE_WAKE_MS_MAX: u64 = 1_000;

/// Probes that are answered without an account being woken, at once.
const ANSWERED_AT_ONCE_MAX: usize = 64;

/// A contact, and who wants to know of him.
type Probe = (Box<str>, Box<str>);

/// Those that wait.
#[derive(Debug, Default)]
pub(crate) struct LateProbes {
    waiting: VecDeque<Probe>,
    /// The same: who comes and goes does not ask again.
    known: HashSet<Probe>,
    /// The account that was woken last, and until when the next one waits for it.
    woken: Option<(Box<str>, Timestamp)>,
    /// Whether [`Timer::Probes`] is to come.
    is_armed: bool,
}

impl Shard {
    /// Somebody logs in. A contact who is not here has nothing to say, unless he sleeps.
    pub(crate) fn on_probe(&mut self, host: &mut impl Host, hash: u64, bare: &str, prober: &str) {
        match self.accounts.find(hash, bare) {
            Some(account) if self.is_awake(account) => {
                self.answer_probe(host, account, prober, None);
            }
            found => self.put_off_probe(host, found, bare, prober),
        }
    }

    /// Whether a contact who is at home here may have something to say to who logs in.
    pub(crate) fn may_answer(&self, hash: u64, bare: &str) -> bool {
        self.accounts.find(hash, bare).is_some() || !self.sessions_known || self.is_dormant(bare)
    }

    /// RFC 6121 4.3.2: only who is subscribed, or the account itself, learns anything. Others are
    /// not told `unsubscribed`, as they SHOULD be: that takes every contact of whoever logs in out
    /// of storage, and told for those in memory alone it would say who is there.
    ///
    /// RFC 6121 4.6.6: who has directed presence may ask whether it still holds, as a room does
    /// that looks for occupants who are gone. The answer says that and nothing else: what is
    /// broadcast is said to subscribers only, and what was said to the asker he has.
    pub(crate) fn answer_probe(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        prober: &str,
        resource: Option<&str>,
    ) -> bool {
        let prober = Jid::from_prepared(prober);
        let probed = self.accounts.at(account);
        let is_own = probed.jid.as_str() == prober.bare();
        if !is_own && blocks(&probed.blocked, &prober) {
            return false;
        }
        let item = probed.contact(prober.bare());
        let sees_all = is_own || item.is_some_and(|item| item.subscription.is_from());
        let mut answers = Vec::new();
        for &key in &probed.sessions {
            let session = self.sessions.at(key);
            if resource.is_some_and(|resource| session.resource() != resource) {
                continue;
            }
            let bare;
            let answer = match &session.presence {
                Some(presence) if sees_all => presence,
                // A subscriber's probe comes with his login, and this is less than he was told.
                _ if !sees_all && session.has_directed(prober.as_str()) => {
                    bare = Presence::available(session.full());
                    &bare
                }
                _ => continue,
            };
            let mut bytes = Vec::new();
            answer.write(prober.as_str(), &mut bytes);
            answers.push(bytes);
        }
        let is_answered = !answers.is_empty();
        for bytes in answers {
            self.route_bytes(host, &prober, bytes);
        }
        is_answered
    }

    fn is_awake(&self, account: AccountKey) -> bool {
        matches!(self.accounts.at(account).residence, Residence::Resident)
    }

    fn put_off_probe(
        &mut self,
        host: &mut impl Host,
        found: Option<AccountKey>,
        bare: &str,
        prober: &str,
    ) {
        let is_waking = found.is_some_and(|key| !self.accounts.at(key).sessions.is_empty());
        let may_sleep = !self.sessions_known || is_waking || self.is_dormant(bare);
        let count_max = self.settings.limits.early_refreshes_max;
        let probes = &mut self.late_probes;
        if !may_sleep || probes.waiting.len() >= count_max {
            return;
        }
        let probe: Probe = (bare.into(), prober.into());
        if probes.known.insert(probe.clone()) {
            probes.waiting.push_back(probe);
            self.arm_probes(host, 0);
        }
    }

    /// Has those that wait be looked at, once the shard knows who sleeps.
    pub(crate) fn arm_probes(&mut self, host: &mut impl Host, ms: u64) {
        let probes = &mut self.late_probes;
        if self.sessions_known && !probes.is_armed && !probes.waiting.is_empty() {
            probes.is_armed = true;
            let at = host.now().plus_ms(ms);
            self.arm(host, at, Timer::Probes);
        }
    }

    /// Answers some of those that wait, or has the next account woken: it answers then.
    pub(crate) fn on_probes(&mut self, host: &mut impl Host) {
        self.late_probes.is_armed = false;
        if self.is_waking_for_probe(host.now()) {
            return self.arm_probes(host, PROBE_WAKE_MS);
        }
        for _ in 0..ANSWERED_AT_ONCE_MAX {
            let Some(probe) = self.late_probes.waiting.pop_front() else {
                return;
            };
            self.late_probes.known.remove(&probe);
            let (bare, prober) = probe;
            match self.accounts.find(home_hash(&bare), &bare) {
                None if !self.is_dormant(&bare) => {}
                Some(account) if self.is_awake(account) => {
                    self.answer_probe(host, account, &prober, None);
                }
                _ => {
                    self.wake_for_probe(host, &bare, &prober);
                    break;
                }
            }
        }
        self.arm_probes(host, PROBE_WAKE_MS);
    }

    /// Whether the account that was woken last is still being read.
    fn is_waking_for_probe(&self, now: Timestamp) -> bool {
        let woken = self.late_probes.woken.as_ref();
        let woken = woken.filter(|(_, until)| now < *until);
        let found = woken.and_then(|(bare, _)| self.accounts.find(home_hash(bare), bare));
        found.is_some_and(|account| !self.is_awake(account))
    }

    /// Has a probe wait for the sessions of an account, which are read for it.
    fn wake_for_probe(&mut self, host: &mut impl Host, bare: &str, prober: &str) {
        let account = self.loaded_or_loading(host, bare);
        let until = host.now().plus_ms(PROBE_WAKE_MS_MAX);
        self.late_probes.woken = Some((bare.into(), until));
        let queued = self.accounts.at(account).queued;
        // One that finds no place goes unanswered: no client's stanza is behind it.
        if queued.count < LOAD_QUEUE_MAX && queued.size < LOAD_QUEUE_SIZE_MAX {
            let mut bytes = Vec::new();
            Presence::of("probe", prober).write(bare, &mut bytes);
            self.receive(host, &bytes);
        }
    }
}
