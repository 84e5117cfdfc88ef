//! The end of what an account's user agents have once they are not trusted any more: their
//! sessions, and their streams on the way to one. By a new password, by the account's owner, by an
//! operator.
//!
//! Invariant: storage has it before anybody is told: who comes back at once meets it there.

use crate::account::AccountKey;
use crate::errand::Administrator;
use crate::error::StreamError;
use crate::host::Host;
use crate::port::{AgentId, StoreOp, StoreReply};
use crate::session::SessionKey;
use crate::shard::{Shard, Waiting};
use crate::stream::StreamState;
use crate::xep::push::{Device, Unwanted};
use crate::xep::register::AccountChange;
use stanza::jid::{BareJid, home_hash};

/// Whose sessions end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    /// All, but for one that made the change.
    All { but: Option<SessionKey> },
    /// Those of a user agent.
    Agent(AgentId),
    /// One.
    Session(SessionKey),
}

impl Revoked {
    fn has(self, shard: &Shard, key: SessionKey) -> bool {
        match self {
            Revoked::All { but } => but != Some(key),
            Revoked::Agent(id) => shard.sessions.agents.get(&key) == Some(&id),
            Revoked::Session(one) => one == key,
        }
    }

    /// Whether a stream is that of somebody who gets no session.
    fn has_stream(self, stream: &StreamState) -> bool {
        match self {
            Revoked::All { .. } => true,
            Revoked::Agent(id) => stream.agent() == Some(id),
            Revoked::Session(_) => false,
        }
    }
}

impl Shard {
    /// An account has new keys, or none of its tokens is good any more, by an operator's word. Who
    /// has proved the old ones meanwhile may have had a user agent noted, and been given a token,
    /// after storage forgot those: so it forgets them once more, after which none of them can come.
    pub(crate) fn on_new_keys(
        &mut self,
        host: &mut impl Host,
        account: BareJid,
        by: Administrator,
    ) {
        self.end_what_was_let_in(host, &account);
        let ticket = self.ticket(Waiting::AccountChange);
        let op = StoreOp::RemoveUserAgents {
            account: account.clone(),
            which: None,
        };
        let change = AccountChange::NewKeys { account, by };
        self.account_changes.insert(ticket.0, change);
        host.store(ticket, op);
    }

    /// Storage has forgotten them, or not: what one of them let in before that ends, too.
    pub(crate) fn on_agents_forgotten(
        &mut self,
        host: &mut impl Host,
        account: &BareJid,
        by: Administrator,
        reply: StoreReply,
    ) {
        if matches!(reply, StoreReply::Failed(_)) {
            let account = account.as_str();
            tracing::error!(?reply, account, "tokens of old keys may be left");
        }
        self.end_what_was_let_in(host, account);
        self.tell_administrator(host, by, reply);
    }

    fn end_what_was_let_in(&mut self, host: &mut impl Host, account: &BareJid) {
        let bare = account.as_str();
        self.outdate_proofs(bare);
        self.revoke_access(host, bare, Revoked::All { but: None }, "access was revoked");
    }

    /// The same as [`Shard::revoke`] where the devices are not trusted any more: they are not told
    /// either what comes while they are away.
    pub(crate) fn revoke_access(
        &mut self,
        host: &mut impl Host,
        bare: &str,
        whose: Revoked,
        text: &'static str,
    ) {
        let unwanted = match whose {
            Revoked::All { but } => Unwanted::All {
                // A resource is anybody's: who does not say which client it is enables again.
                but: but.and_then(|key| self.sessions.agents.get(&key).copied()),
            },
            Revoked::Agent(id) => Unwanted::Of(Device::of_agent(id)),
            Revoked::Session(key) => Unwanted::Of(self.device_of(key)),
        };
        self.end_push(host, bare, unwanted);
        self.revoke(host, bare, whose, text);
    }

    /// Ends sessions of an account, and streams that somebody has authenticated on and that have
    /// none. Their clients may come back if they know the password.
    pub(crate) fn revoke(
        &mut self,
        host: &mut impl Host,
        bare: &str,
        whose: Revoked,
        text: &'static str,
    ) {
        if let Some(account) = self.accounts.find(home_hash(bare), bare) {
            self.revoke_sessions(host, account, whose, text);
        }
        let mut streams = self.proved_streams(bare);
        // Who waits for the account to load has proved it, too.
        if let Some(account) = self.accounts.find(home_hash(bare), bare) {
            streams.extend(self.binding_streams(account));
        }
        for conn in streams {
            let stream = self.conns.peek(conn);
            if stream.is_some_and(|stream| whose.has_stream(stream))
                && let Some(stream) = self.conns.take(conn)
            {
                // RFC 6120 4.9.3.16: what it was let in by is revoked.
                self.stream_error(host, conn, &stream, StreamError::Reset, Some(text));
            }
        }
    }

    fn revoke_sessions(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        whose: Revoked,
        text: &'static str,
    ) {
        self.accounts.at_mut(account).pins += 1;
        for key in self.accounts.at(account).sessions.clone() {
            if !whose.has(self, key) {
                continue;
            }
            let conn = self.sessions.at(key).outlet.conn;
            match conn.and_then(|conn| Some((conn, self.conns.take(conn)?))) {
                Some((conn, stream)) => {
                    self.stream_error(host, conn, &stream, StreamError::Reset, Some(text));
                }
                None => self.end_session(host, key),
            }
        }
        self.accounts.at_mut(account).pins -= 1;
        self.evict_if_idle(account);
    }
}
