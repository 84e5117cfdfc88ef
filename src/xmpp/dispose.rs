//! What a session leaves that its client never acknowledged: to another resource, to those who come
//! later, or back to its sender.
//!
//! Invariant: storage forgets it afterwards, and by then the session is not among its account's.

use crate::account::AccountKey;
use crate::archive::is_archived_result;
use crate::error::StanzaError;
use crate::host::{Host, Ticket, Timestamp};
use crate::outbox::{Acks, Keep, Sent};
use crate::port::Arrived;
use crate::settle::Cause;
use crate::shard::Shard;
use crate::stanza::{Stanza, Type};
use crate::xep::carbons::taken_out;
use crate::xep::offline::delayed;
use stanza::jid::Jid;
use stanza::view::{Kind, StanzaView};

impl Shard {
    /// What a session that ends has not been acknowledged goes where the table of the design sends
    /// it; by now the session is no longer among its account's. Storage forgets it afterwards.
    pub(crate) fn dispose_unacked(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        acks: Acks,
    ) {
        self.managed.remove(&acks.id);
        if let Some(conn) = acks.resuming {
            self.fail_resuming(host, conn);
        }
        let end = acks.saved.then(|| self.begin_end(account, &acks));
        let unacked = acks.into_unacked();
        if self.accounts.at(account).is_gone {
            return self.dispose_later(account, end, unacked);
        }
        self.dispose_all(host, account, end, unacked.into_iter());
        if let Some(ticket) = end {
            self.finish_end(host, ticket);
        }
    }

    /// Sees to what a session leaves whose end waits for that.
    pub(crate) fn dispose_all(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        end: Option<Ticket>,
        unacked: impl Iterator<Item = Sent>,
    ) {
        let before = (self.cause, self.origin);
        if let Some(ticket) = end {
            (self.cause, self.origin) = (Some(Cause::End { ticket }), None);
        }
        for sent in unacked {
            self.dispose_sent(host, account, &sent);
        }
        (self.cause, self.origin) = before;
    }

    fn dispose_sent(&mut self, host: &mut impl Host, account: AccountKey, sent: &Sent) {
        // What waits in storage anyway waits on, and what another session has is its.
        let waits_on = matches!(sent.keep, Keep::Offline(_)) && !self.accounts.at(account).is_gone;
        if waits_on || sent.is_elsewhere() {
            return;
        }
        self.wait_for_end(sent);
        self.note_waited(sent.has_waited());
        if is_result(&sent.bytes) {
            return;
        }
        let scope = self.client_scope.clone();
        let original = match taken_out(&sent.bytes) {
            Some(None) => return, // Another account has the message.
            original => original.flatten(),
        };
        let bytes = original.as_deref().unwrap_or(&sent.bytes);
        if let Ok(view) = StanzaView::parse(bytes, &scope)
            && let (Some(from), Some(to)) = (view.from(), view.to())
        {
            if is_archived_result(&view, &self.accounts.at(account).jid) {
                return;
            }
            let to = Jid::from_prepared(&to);
            let stanza = Stanza::complete(&view, &from, &to);
            self.dispose(host, account, &stanza, sent.arrived);
        }
    }

    /// All who were to get a message without stream management have gone before storage had it.
    pub(crate) fn pass_on(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        (arrived, message): Arrived,
    ) {
        let scope = self.client_scope.clone();
        if let Ok(view) = StanzaView::parse(&message, &scope)
            && let (Some(from), Some(to)) = (view.from(), view.to())
        {
            let to = Jid::from_prepared(&to);
            let stanza = Stanza::complete(&view, &from, &to);
            self.dispose(host, account, &stanza, arrived);
        }
    }

    fn dispose(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        stanza: &Stanza<'_>,
        arrived: Timestamp,
    ) {
        match (stanza.kind, stanza.type_) {
            (Kind::Message, Type::Normal | Type::Chat) => {
                // Another resource if there is one, else offline, else an error; in any case it
                // comes late (XEP-0198 4, XEP-0203 3).
                let stamp = if arrived.0 == 0 { host.wall() } else { arrived };
                let bytes = delayed(stanza, &self.settings.domain, stamp);
                let scope = self.client_scope.clone();
                let view = StanzaView::parse(&bytes, &scope);
                let view = view.expect("it has a child more, else the same");
                let stanza = Stanza::complete(&view, stanza.from, stanza.to);
                let before = self.late_since.replace(arrived);
                self.deliver_undelivered(host, account, &stanza);
                self.late_since = before;
            }
            (Kind::Message, Type::Groupchat) | (Kind::Iq, Type::Get | Type::Set) => {
                self.bounce(host, stanza, StanzaError::ServiceUnavailable);
            }
            // Headlines, errors, other answers; a subscription request is pending already.
            _ => {}
        }
    }
}

/// Whether a stanza is an answer of the server's own, which quotes with apostrophes: who is gone
/// does not miss it. It may be a roster of megabytes, and only its head is looked at.
fn is_result(stanza: &[u8]) -> bool {
    let head = stanza
        .split(|byte| *byte == b'>')
        .next()
        .unwrap_or_default();
    let type_ = b" type='result'";
    let is_own = head.starts_with(b"<iq ") && !head.contains(&b'"');
    is_own && head.windows(type_.len()).any(|window| window == type_)
}
