//! Managed sessions in storage: how they get there, and how they come back after a restart.
//!
//! Invariant: a session is either in [`Shard::managed`], or dormant in storage until its client
//! resumes it, its account is loaded, or its time runs out. One whose record is damaged is neither:
//! it stays in storage, and nobody comes back to it.

use crate::account::{AccountKey, Residence, Waiter};
use crate::host::{Host, Ticket};
use crate::limit::{SESSION_SIZE_PER_MS, STORAGE_RETRY_MS};
use crate::outbox::{Acks, Shared};
use crate::port::{SavedSession, SessionId, SharedStanza, StoreOp, StoreReply, StoredSession};
use crate::session::{Modes, Presence, Session, SessionKey};
use crate::shard::{Shard, Timer, Waiting};
use crate::stanza::simple_presence;
use crate::strangers::Strangers;
use crate::xep::stream_management::RESUME_MS_MAX;
use stanza::jid::{BareJid, Jid, home_hash};
use std::collections::{HashMap, HashSet};

/// A session of the last process that is to end.
#[derive(Debug)]
pub(crate) struct Ending {
    account: BareJid,
    session: SessionId,
    /// Only if it is this resource's.
    resource: Option<Box<str>>,
}

/// How the sessions of the last process end that nobody has come back to: one is read after
/// another, and what cannot be read or loaded waits for the next round. One timer begins the next,
/// [`STORAGE_RETRY_MS`] after this one, and goes on with it, as long after a failure.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// The last one that was asked for in this round.
    behind: Option<(BareJid, SessionId)>,
    /// Whether one is being read.
    is_reading: bool,
    is_armed: bool,
    /// Those of which the log says that they cannot be read now.
    unread: HashSet<SessionId>,
    /// Those of which it says that their accounts cannot be loaded now.
    unloaded: HashSet<SessionId>,
    /// The accounts with sessions that are damaged: what their sessions share nobody can tell any
    /// more.
    damaged: HashSet<BareJid>,
    /// Those of them whose last session it was, and of whose blocked contacts none has heard that.
    unwithdrawn: HashSet<BareJid>,
}

impl Sweep {
    /// Whether all that wait for an account are sessions that it was asked for before, in vain.
    pub(crate) fn has_told(&self, waiters: &[Waiter]) -> bool {
        let is_told = |waiter: &Waiter| match waiter {
            Waiter::End(session, _) => self.unloaded.contains(session),
            _ => false,
        };
        waiters.iter().all(is_told)
    }

    /// A session is no more what the log says of it.
    fn forget_troubles(&mut self, session: SessionId) {
        self.unread.remove(&session);
        self.unloaded.remove(&session);
    }
}

/// What sessions of the last process share, by its group, for those of an account that are not in
/// memory yet, and how many these are.
pub(crate) type SharedDormant = HashMap<BareJid, HashMap<u64, (Shared, u32)>>;

/// What a session from storage shares with the others of its account that have the same.
fn share_again(dormant: &mut HashMap<u64, (Shared, u32)>, stanza: SharedStanza) -> Shared {
    let (shared, others) = dormant.remove(&stanza.group).unwrap_or_else(|| {
        let shared = Shared::default();
        if stanza.is_taken() {
            shared.note_taken();
        }
        (shared, stanza.holders)
    });
    let others = others.saturating_sub(1);
    if others > 0 {
        dormant.insert(stanza.group, (shared.clone(), others));
    }
    shared
}

impl Shard {
    /// The session behind a key, unless the key has a new user.
    pub(crate) fn session_of(&mut self, key: SessionKey, serial: u32) -> Option<&mut Session> {
        let session = self.sessions.get_mut(key)?;
        (session.serial == serial).then_some(session)
    }

    /// Writes a managed session down as it is now.
    pub(crate) fn put_session(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        waiting: impl FnOnce(u32) -> Waiting,
    ) {
        if !self.sessions.is_saved(key) {
            return;
        }
        let session = self.sessions.at_mut(key);
        let acks = session.outlet.acks.as_mut();
        let strangers = acks.and_then(|acks| acks.strangers.as_deref_mut());
        let strangers = strangers.map_or_else(Vec::new, Strangers::name_all);
        let presence = session.presence.as_ref();
        let saved = SavedSession {
            resource: session.resource().into(),
            priority: session.priority,
            available: session.available,
            was_seen: session.was_seen,
            interested: session.interested,
            blocking: session.blocking,
            gets_copies: session.modes.has(Modes::GETS_COPIES),
            presence: presence.map(|presence| (presence.bytes.clone(), presence.split)),
            directed: session.directed.as_deref().cloned().unwrap_or_default(),
            strangers,
        };
        let Some(acks) = &mut session.outlet.acks else {
            return;
        };
        debug_assert!(!acks.saving, "one write is enough");
        (acks.saving, acks.unsaved) = (true, false);
        acks.rests_until = host.now().plus_ms(saved.size() / SESSION_SIZE_PER_MS);
        let op = StoreOp::PutSession {
            account: self.accounts.at(session.account).jid.clone(),
            session: acks.id,
            saved: Box::new(saved),
        };
        let waiting = waiting(session.serial);
        let ticket = self.ticket_for_itself(waiting);
        host.store(ticket, op);
    }

    /// A managed session has changed. It is written as a whole, which may be a hundred thousand
    /// times what its client sent: what changes during a write, or too soon after it, goes with the
    /// next.
    pub(crate) fn save_session(&mut self, host: &mut impl Host, key: SessionKey) {
        let session = self.sessions.at_mut(key);
        let serial = session.serial;
        match &mut session.outlet.acks {
            Some(acks) if acks.saving => acks.unsaved = true,
            Some(acks) if host.now() < acks.rests_until => {
                (acks.saving, acks.unsaved) = (true, true);
                let at = acks.rests_until;
                self.arm(host, at, Timer::Save(key, serial));
            }
            _ => self.put_session(host, key, |serial| Waiting::Saved { key, serial }),
        }
    }

    /// A client has asked for the roster.
    pub(crate) fn note_interested(&mut self, host: &mut impl Host, key: SessionKey) {
        if !std::mem::replace(&mut self.sessions.at_mut(key).interested, true) {
            self.save_session(host, key);
        }
    }

    /// A session that has changed may be written again, unless it has ended.
    pub(crate) fn save_again(&mut self, host: &mut impl Host, key: SessionKey, serial: u32) {
        if self.session_of(key, serial).is_some() {
            self.note_saved(host, key);
        }
    }

    /// Storage knows what a session was when it was told.
    pub(crate) fn note_saved(&mut self, host: &mut impl Host, key: SessionKey) {
        let Some(acks) = &mut self.sessions.at_mut(key).outlet.acks else {
            return;
        };
        acks.saving = false;
        if acks.unsaved {
            self.save_session(host, key);
        }
    }

    /// Storage knows what a session is, or a later try has to tell it.
    pub(crate) fn on_saved(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        serial: u32,
        reply: &StoreReply,
    ) {
        let Some(session) = self.session_of(key, serial) else {
            return;
        };
        let Some(acks) = &mut session.outlet.acks else {
            return;
        };
        if *reply != StoreReply::Done {
            tracing::error!(?reply, "a session was not stored");
            (acks.saving, acks.unsaved) = (false, true);
            return self.acknowledge_later(host, key);
        }
        self.note_saved(host, key);
        self.acknowledge_settled(host, key);
        self.farewell_if_settled(host, key);
    }

    /// The shard's first event: asks for the sessions that the last process left.
    #[inline]
    pub(crate) fn start(&mut self, host: &mut impl Host) {
        if !self.has_begun {
            self.ask_for_sessions(host);
        }
    }

    #[cold]
    fn ask_for_sessions(&mut self, host: &mut impl Host) {
        self.has_begun = true;
        let ticket = self.ticket_for_itself(Waiting::Sessions);
        host.store(ticket, StoreOp::Sessions);
        self.begin_retention(host);
    }

    /// Storage named the sessions that it has.
    pub(crate) fn on_sessions_stored(&mut self, host: &mut impl Host, reply: StoreReply) {
        let StoreReply::Sessions(stored) = reply else {
            tracing::error!(?reply, "stored sessions not read");
            return self.retry_dormancy(host);
        };
        self.sessions_known = true;
        for (account, id) in stored {
            if self.is_home_of(account.as_str()) && !self.managed.contains_key(&id) {
                self.dormant.entry(account).or_default().push(id);
            }
        }
        if !self.dormant.is_empty() {
            let count = self.dormant.len();
            tracing::info!(count, shard = self.id.0, "accounts have sessions that wait");
            if self.settings.durability.saves_sessions() {
                self.arm_dormancy(host, RESUME_MS_MAX.into());
            } else {
                // They are of a process with another mode: what they hold must not wait in vain.
                self.on_dormancy(host);
            }
        }
        for (contact, prober) in std::mem::take(&mut self.early_refreshes) {
            self.answer_refresh(host, &contact, &prober);
        }
        self.arm_probes(host, 0);
    }

    fn retry_dormancy(&mut self, host: &mut impl Host) {
        self.arm_dormancy(host, STORAGE_RETRY_MS);
    }

    fn arm_dormancy(&mut self, host: &mut impl Host, ms: u64) {
        if !std::mem::replace(&mut self.sweep.is_armed, true) {
            let at = host.now().plus_ms(ms);
            self.arm(host, at, Timer::Dormancy);
        }
    }

    fn is_home_of(&self, bare: &str) -> bool {
        self.router.shard_of(home_hash(bare)) == self.id
    }

    /// The timer of the sessions of the last process.
    pub(crate) fn on_dormancy(&mut self, host: &mut impl Host) {
        self.sweep.is_armed = false;
        if self.sessions_known {
            self.dormancy_over = true;
            if !self.sweep.is_reading {
                self.end_dormancy(host);
            }
        } else {
            let ticket = self.ticket_for_itself(Waiting::Sessions);
            host.store(ticket, StoreOp::Sessions);
        }
    }

    /// Nobody came back to the sessions of the last process in time: they end one after another.
    fn end_dormancy(&mut self, host: &mut impl Host) {
        while let Some((account, session)) = self.next_dormant() {
            if !self.managed.contains_key(&session) {
                self.sweep.is_reading = true;
                return self.ask_dormant(host, account, session, None);
            }
            self.forget_dormant(&account, session);
        }
        self.sweep.behind = None;
        match self.dormant.is_empty() {
            true => self.shared_dormant.clear(),
            false => self.retry_dormancy(host),
        }
    }

    /// The next of the sessions of the last process in this round, by their accounts.
    fn next_dormant(&mut self) -> Option<(BareJid, SessionId)> {
        let next = match &self.sweep.behind {
            None => {
                let (account, ids) = self.dormant.iter().next()?;
                (account.clone(), *ids.iter().min()?)
            }
            Some((last, session)) => {
                let mut rest = self.dormant.range(last.clone()..);
                rest.find_map(|(account, ids)| {
                    let is_next = |id: &&SessionId| account != last || *id > session;
                    let next = ids.iter().filter(is_next).min()?;
                    Some((account.clone(), *next))
                })?
            }
        };
        self.sweep.behind = Some(next.clone());
        Some(next)
    }

    /// A session of the last process is one no more. Whether it was.
    pub(crate) fn forget_dormant(&mut self, account: &BareJid, session: SessionId) -> bool {
        let Some(ids) = self.dormant.get_mut(account) else {
            return false;
        };
        let before = ids.len();
        ids.retain(|id| *id != session);
        let was_one = ids.len() < before;
        if ids.is_empty() {
            self.dormant.remove(account);
        }
        was_one
    }

    /// A session was not read: it stays where it is. Where its record is damaged it does so for
    /// good, and counts as none from now on. The log has either once, not as often as it is tried.
    pub(crate) fn note_unread(
        &mut self,
        host: &mut impl Host,
        account: &BareJid,
        session: SessionId,
        reply: &StoreReply,
    ) {
        let jid = account.as_str();
        if let StoreReply::Damaged(why) = reply {
            return self.note_damaged(host, account, session, why);
        }
        let is_dormant = self.waits_in_storage(account, session);
        match is_dormant && !self.sweep.unread.insert(session) {
            true => tracing::debug!(account = jid, ?reply, "a session was not read again"),
            false => tracing::error!(account = jid, ?reply, "a session was not read"),
        }
    }

    /// A session is none, and what it shares with others is theirs alone.
    fn note_damaged(
        &mut self,
        host: &mut impl Host,
        account: &BareJid,
        session: SessionId,
        why: &str,
    ) {
        let jid = account.as_str();
        self.sweep.forget_troubles(session);
        if !self.forget_dormant(account, session) {
            return tracing::debug!(account = jid, why, "a session in storage is damaged");
        }
        tracing::error!(
            account = jid,
            why,
            "a session in storage is damaged and left as it is: its client logs in anew"
        );
        // Which of the shared stanzas it has cannot be read, so from now on the account's sessions
        // share none: at worst one comes twice, and none waits for a client that has no session.
        self.shared_dormant.remove(account);
        self.sweep.damaged.insert(account.clone());
        if !self.is_dormant(jid) {
            self.sweep.unwithdrawn.insert(account.clone());
            let key = self.loaded_or_loading(host, jid);
            if let Residence::Resident = self.accounts.at(key).residence {
                self.withdraw_damaged(host, key);
            }
        }
    }

    /// An account is there: it withdraws if its last session of the last process was damaged.
    pub(crate) fn withdraw_damaged(&mut self, host: &mut impl Host, account: AccountKey) {
        let unwithdrawn = &mut self.sweep.unwithdrawn;
        if unwithdrawn.remove(&self.accounts.at(account).jid) {
            self.withdraw_again(host, account);
        }
    }

    /// A client has bound a resource: the session of the last process that had it ends now.
    pub(crate) fn end_superseded(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        resource: &str,
    ) {
        let account = &self.accounts.at(account).jid;
        let Some(ids) = self.dormant.get(account).cloned() else {
            return;
        };
        let account = account.clone();
        for id in ids {
            self.ask_dormant(host, account.clone(), id, Some(resource.into()));
        }
    }

    fn ask_dormant(
        &mut self,
        host: &mut impl Host,
        account: BareJid,
        session: SessionId,
        resource: Option<Box<str>>,
    ) {
        let ticket = self.ticket_for_itself(Waiting::Dormant);
        let ending = Ending {
            account: account.clone(),
            session,
            resource,
        };
        self.endings.insert(ticket.0, ending);
        host.store(ticket, StoreOp::Session { account, session });
    }

    /// A session that is to end is there; its account may not be.
    pub(crate) fn on_dormant_stored(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        reply: StoreReply,
    ) {
        let Some(ending) = self.endings.remove(&ticket.0) else {
            return;
        };
        let is_swept = ending.resource.is_none();
        self.sweep.is_reading &= !is_swept;
        let stored = match reply {
            StoreReply::Session(stored) => stored,
            reply => {
                self.note_unread(host, &ending.account, ending.session, &reply);
                if is_swept {
                    match reply {
                        StoreReply::Damaged(_) => self.end_dormancy(host),
                        _ => self.retry_dormancy(host),
                    }
                }
                return;
            }
        };
        let other = |stored: &StoredSession| {
            let wanted = ending.resource.as_deref();
            wanted.is_some_and(|wanted| wanted != &*stored.saved.resource)
        };
        if stored.as_deref().is_some_and(other) {
            return;
        }
        let known = self.forget_dormant(&ending.account, ending.session);
        if let (Some(stored), true) = (stored, known) {
            let key = self.loaded_or_loading(host, ending.account.as_str());
            self.end_first(host, key, ending.session, stored);
        }
        if is_swept {
            self.end_dormancy(host);
        }
    }

    /// Ends a session that is in storage only as soon as its account is there: what it leaves comes
    /// before all that waits for that.
    pub(crate) fn end_first(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        id: SessionId,
        stored: Box<StoredSession>,
    ) {
        match &mut self.accounts.at_mut(account).residence {
            Residence::Resident => self.end_stored(host, account, id, *stored),
            Residence::Loading(queue) => queue.insert(0, Waiter::End(id, stored)),
        }
    }

    /// A session that is to end has to wait: its account cannot be loaded.
    pub(crate) fn end_later(&mut self, host: &mut impl Host, account: BareJid, session: SessionId) {
        self.sweep.unloaded.insert(session);
        self.dormant.entry(account).or_default().push(session);
        // One that is being read comes first: behind the round the timer is set.
        if self.dormancy_over && !self.sweep.is_reading {
            self.retry_dormancy(host);
        }
    }

    /// Ends a session that is in storage only: contacts hear of it, its messages wait elsewhere.
    pub(crate) fn end_stored(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        id: SessionId,
        stored: StoredSession,
    ) {
        if self.managed.contains_key(&id) {
            return;
        }
        let key = self.revive(host, account, id, stored);
        self.end_session(host, key);
    }

    /// Makes the session that storage has, without a connection.
    pub(crate) fn revive(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        id: SessionId,
        stored: StoredSession,
    ) -> SessionKey {
        self.sweep.forget_troubles(id);
        let jid = self.accounts.at(account).jid.clone();
        let mut session = Session::detached(account, jid.as_str(), &stored.saved.resource);
        let saved = &stored.saved;
        session.priority = saved.priority;
        session.available = saved.available;
        session.was_seen = saved.was_seen;
        session.interested = saved.interested;
        session.lacks_removals = saved.interested;
        session.blocking = saved.blocking;
        session.modes.set(Modes::GETS_COPIES, saved.gets_copies);
        let presence = saved.presence.clone();
        session.presence = presence.map(|(bytes, split)| Box::new(Presence { bytes, split }));
        let directed = &saved.directed;
        session.directed = (!directed.is_empty()).then(|| Box::new(directed.clone()));
        self.raise_arrival(stored.queue.iter().map(|queued| queued.arrived).max());
        let mut dormant = self.shared_dormant.remove(&jid).unwrap_or_default();
        let share = |stanza| share_again(&mut dormant, stanza);
        session.outlet.acks = Some(Box::new(Acks::stored(id, stored, share)));
        if !dormant.is_empty() && !self.sweep.damaged.contains(&jid) {
            self.shared_dormant.insert(jid.clone(), dormant);
        }
        let has_heir = self.has_heir(&session);
        if has_heir {
            session.available = false;
            session.presence = None;
            session.directed = None;
        }
        let absent = Presence::of("unavailable", session.full());
        let is_absent = !has_heir && !session.available && session.was_seen;
        let key = self.sessions.insert(session);
        self.managed.insert(id, key);
        self.accounts.at_mut(account).sessions.push(key);
        self.share_copies(account);
        if is_absent {
            // The crash may have taken its word, and who refreshed since then had no answer.
            self.announce(host, key, &absent, &[]);
        }
        if !self.is_dormant(jid.as_str()) {
            self.withdraw_again(host, account);
        }
        key
    }

    /// Whether what contacts see under the address of a session out of storage is a newer one's.
    fn has_heir(&self, stored: &Session) -> bool {
        let sessions = &self.accounts.at(stored.account).sessions;
        let mut sessions = sessions.iter().map(|key| self.sessions.at(*key));
        sessions.any(|other| {
            other.resource() == stored.resource() && (other.available || other.directed.is_some())
        })
    }

    /// Tells storage the numbers that a session's queue has on the wire.
    pub(crate) fn renumber(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        waiting: impl FnOnce(u32) -> Waiting,
    ) {
        let session = self.sessions.at_mut(key);
        let serial = session.serial;
        let account = self.accounts.at(session.account).jid.clone();
        // Before its client has counted there is nothing to tell.
        let acks = session.outlet.acks.as_mut();
        let Some(acks) = acks.filter(|acks| !acks.is_uncounted()) else {
            return;
        };
        // What storage is putting into the queue is numbered when it is there.
        acks.misnumbered = acks.claiming.is_some();
        let op = StoreOp::Renumber {
            account,
            session: acks.id,
            numbers: acks.numbers(),
            up_to: acks.last_place(),
        };
        let ticket = self.ticket_for_itself(waiting(serial));
        host.store(ticket, op);
    }

    /// Tells storage the numbers of all that it has in a session's queue.
    pub(crate) fn renumber_all(&mut self, host: &mut impl Host, key: SessionKey) {
        let acks = self.sessions.at(key).outlet.acks.as_ref();
        let up_to = acks.map_or(0, |acks| acks.last_place());
        self.renumber(host, key, |serial| Waiting::Renumbered {
            key,
            serial,
            up_to,
        });
    }

    /// Storage knows how a queue is numbered up to a place, and its client may count that. Where
    /// storage does not, a later success has it told again.
    pub(crate) fn on_renumbered(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        serial: u32,
        up_to: u64,
        reply: &StoreReply,
    ) {
        let Some(session) = self.session_of(key, serial) else {
            return;
        };
        let conn = session.outlet.conn;
        if let Some(acks) = &mut session.outlet.acks {
            acks.misnumbered |= *reply != StoreReply::Done;
            acks.numbered_to(host, conn, up_to);
        }
    }

    /// Answers who refreshes what it knows of an account: it may believe resources to be available
    /// that went in a crash. Of one that did not, it hears when that wakes, resumes or ends.
    /// A full JID is a stranger's, of whose directed presence the asker wants to know.
    pub(crate) fn answer_refresh(&mut self, host: &mut impl Host, asked: &str, prober: &str) {
        let limit = self.settings.limits.early_refreshes_max;
        if !self.sessions_known && self.early_refreshes.len() < limit {
            return self.early_refreshes.push((asked.into(), prober.into()));
        }
        let jid = Jid::from_prepared(asked);
        let account = self.accounts.find(home_hash(jid.bare()), jid.bare());
        let is_there = account.is_some_and(|account| match jid.resource() {
            None => self.answer_probe(host, account, prober, None),
            Some(resource) => self.is_told_by(account, resource, &Jid::from_prepared(prober)),
        });
        if !is_there && !self.is_dormant(jid.bare()) {
            let bytes = simple_presence("unavailable", asked, prober);
            self.route_bytes(host, &Jid::from_prepared(prober), bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::SavedSession;

    /// The one was said of a record, the other is of the account.
    #[test]
    fn that_a_session_is_not_read_is_told_apart_from_that_its_account_is_not_loaded() {
        let id = SessionId { home: 0, secret: 1 };
        let stored = StoredSession {
            saved: SavedSession::default(),
            handled: 0,
            queue: Vec::new(),
            marks: Vec::new(),
        };
        let waiters = [Waiter::End(id, Box::new(stored))];
        let mut sweep = Sweep::default();
        sweep.unread.insert(id);
        assert!(!sweep.has_told(&waiters), "the account is another matter");
        sweep.unloaded.insert(id);
        assert!(sweep.has_told(&waiters));
        sweep.forget_troubles(id);
        assert!(!sweep.has_told(&waiters));
        assert!(sweep.unread.is_empty());
    }
}
