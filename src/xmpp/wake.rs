//! Sessions of the last process, as soon as anything reaches their account: they wait in memory
//! for their clients from then on, and take what is for them. Where their time is over they end.
//!
//! Invariant: nothing reaches an account before them.

use crate::account::{AccountKey, Queued, Residence};
use crate::error::StanzaError;
use crate::host::{Host, Ticket};
use crate::port::{SessionId, StoreOp, StoreReply, StoredSession};
use crate::session::SessionKey;
use crate::shard::{Shard, Waiting};
use stanza::jid::BareJid;

/// A session that storage is asked for.
#[derive(Debug)]
pub(crate) struct Waking {
    account: AccountKey,
    session: SessionId,
    /// Those that it is asked for afterwards, the next one last.
    rest: Vec<SessionId>,
}

impl Shard {
    /// Whether an account may have sessions of the last process that are not in memory.
    pub(crate) fn is_dormant(&self, bare: &str) -> bool {
        if self.dormant.is_empty() {
            return false;
        }
        let sessions = self.dormant.get(&BareJid::from_prepared(bare));
        sessions.is_some_and(|sessions| !sessions.is_empty())
    }

    /// An account is there; its sessions are to be, too, before it counts as loaded. One is read
    /// after another: what others ask for comes between them.
    pub(crate) fn wake_sessions(&mut self, host: &mut impl Host, key: AccountKey) {
        let account = &self.accounts.at(key).jid;
        let mut rest = self.dormant.get(account).cloned().unwrap_or_default();
        rest.reverse();
        self.wake_next(host, key, rest);
    }

    /// Asks for the next of an account's sessions; behind the last one the account is loaded.
    fn wake_next(&mut self, host: &mut impl Host, key: AccountKey, mut rest: Vec<SessionId>) {
        let Some(session) = rest.pop() else {
            return self.end_waking(host, key);
        };
        let ticket = self.ticket_for_itself(Waiting::Waking);
        let waking = Waking {
            account: key,
            session,
            rest,
        };
        self.wakings.insert(ticket.0, waking);
        let account = self.accounts.at(key).jid.clone();
        host.store(ticket, StoreOp::Session { account, session });
    }

    /// Storage has a session, or it has ended meanwhile. One that cannot be read now
    /// stays dormant.
    pub(crate) fn on_woken(&mut self, host: &mut impl Host, ticket: Ticket, reply: StoreReply) {
        let Some(waking) = self.wakings.remove(&ticket.0) else {
            return;
        };
        let Waking {
            account, session, ..
        } = waking;
        match reply {
            StoreReply::Session(Some(stored)) => self.wake(host, account, session, stored),
            StoreReply::Session(None) => {}
            reply => {
                let jid = self.accounts.at(account).jid.clone();
                self.note_unread(host, &jid, session, &reply);
            }
        }
        self.wake_next(host, account, waking.rest);
    }

    fn wake(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        id: SessionId,
        stored: Box<StoredSession>,
    ) {
        // A second one of a resource is what the end of the process left of an older session, or
        // the older one is here: the client will say which it means, while it may.
        let is_taken = self.holder(account, &stored.saved.resource).is_some();
        let is_taken = is_taken && !self.dormancy_over;
        let jid = self.accounts.at(account).jid.clone();
        if is_taken || !self.forget_dormant(&jid, id) {
            return;
        }
        if self.dormancy_over {
            return self.end_first(host, account, id, stored);
        }
        let key = self.revive(host, account, id, *stored);
        self.hibernate(host, key);
        self.fetch_after_crash(host, key);
    }

    /// What came while a session was dormant comes before what comes from now on. Where it is not
    /// available its presence may have gone with the last process, and comes again.
    pub(crate) fn fetch_after_crash(&mut self, host: &mut impl Host, key: SessionKey) {
        let session = self.sessions.at(key);
        if session.takes_bare() || !session.available {
            self.fetch_offline(host, key);
        }
    }

    /// All its sessions are here: an account is loaded.
    fn end_waking(&mut self, host: &mut impl Host, key: AccountKey) {
        let account = self.accounts.at_mut(key);
        let is_gone = account.is_gone;
        account.queued = Queued::default();
        let residence = std::mem::replace(&mut account.residence, Residence::Resident);
        let Residence::Loading(queue) = residence else {
            return;
        };
        account.pins += 1;
        self.withdraw_damaged(host, key);
        for waiter in queue {
            match is_gone {
                true => {
                    let error = StanzaError::ServiceUnavailable;
                    self.refuse_waiter(host, None, waiter, error);
                }
                false => self.serve_waiter(host, key, waiter),
            }
        }
        self.accounts.at_mut(key).pins -= 1;
        self.evict_if_idle(key);
    }

    /// Whether a session's client has not said how far it got before a crash.
    pub(crate) fn is_uncounted(&self, key: SessionKey) -> bool {
        let acks = self.sessions.at(key).outlet.acks.as_ref();
        acks.is_some_and(|acks| acks.is_uncounted())
    }
}
