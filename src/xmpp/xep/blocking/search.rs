//! What waits for an account of those whom it blocks (XEP-0191) bounces at the block: an error that
//! came when the account's owner is there would tell them that he is.
//!
//! Invariant: while a search is to come nobody takes what waits, as while that is being written. So
//! what storage gives later of somebody who was blocked before it was asked has bounced.

use super::{BlockChanges, BlockList, blocks};
use crate::account::AccountKey;
use crate::error::StanzaError;
use crate::host::Host;
use crate::limit::STORAGE_RETRY_MS;
use crate::port::{StoreOp, StoreReply};
use crate::shard::{Shard, Timer, Waiting};
use stanza::jid::Jid;
use stanza::view::StanzaView;

impl BlockChanges {
    /// What waits of those whom this list does not block is to bounce, too.
    fn want(&mut self, before: BlockList) {
        self.before = Some(match self.before.take() {
            Some(wanted) => wanted.common(&before),
            None => before,
        });
    }
}

impl Shard {
    /// What waits of those who are blocked by now, and were not by this list, may have come behind
    /// the search at their block: it is searched again.
    pub(crate) fn search_again(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        before: BlockList,
    ) {
        let owner = self.accounts.at_mut(account);
        if owner.is_gone || owner.blocked.is_empty() {
            return;
        }
        let is_first = owner.block_changes.is_none();
        owner.block_changes.get_or_insert_default();
        owner.pins += u32::from(is_first);
        self.want_search(account, before);
        if is_first {
            self.store_blocking(host, account);
        }
    }

    /// What waits is to be searched, as soon as no change is under way.
    pub(super) fn want_search(&mut self, account: AccountKey, before: BlockList) {
        let owner = self.accounts.at_mut(account);
        let Some(changes) = &mut owner.block_changes else {
            return;
        };
        if changes.before.is_none() && changes.searched.is_none() {
            owner.storing += 1;
            owner.pins += 1;
        }
        changes.want(before);
    }

    /// Asks for what waits for an account that has blocked somebody.
    pub(super) fn search_waiting(&mut self, host: &mut impl Host, account: AccountKey) {
        let owner = self.accounts.at_mut(account);
        if let Some(changes) = &mut owner.block_changes {
            changes.searched = changes.before.take();
        }
        let jid = owner.jid.clone();
        let ticket = self.ticket_for_itself(Waiting::Blocking(account));
        host.store(ticket, StoreOp::Offline { account: jid });
    }

    /// What waits of those who are newly blocked bounces now.
    pub(super) fn bounce_blocked(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        reply: StoreReply,
    ) {
        let changes = self.accounts.at_mut(account).block_changes.as_mut();
        let before = changes.and_then(|changes| changes.searched.take());
        let before = before.unwrap_or_default();
        let StoreReply::Offline(waiting) = reply else {
            tracing::error!(?reply, "offline messages not read");
            if let Some(changes) = &mut self.accounts.at_mut(account).block_changes {
                changes.want(before);
            }
            let at = host.now().plus_ms(STORAGE_RETRY_MS);
            return self.arm(host, at, Timer::Blocking(account));
        };
        let owner = self.accounts.at_mut(account);
        owner.handed.begin(&waiting);
        let mut size = owner.blocked.size();
        for (number, (_, bytes)) in waiting {
            size += bytes.len();
            let is_open = self.accounts.at(account).handed.is_open(number);
            if is_open && self.is_from_blocked(account, &bytes, &before) == Some(false) {
                self.accounts.at_mut(account).handed.pass_over(number);
                self.bounce_bytes(host, &bytes, StanzaError::ServiceUnavailable);
            }
        }
        self.remove_done(host, account);
        let changes = self.accounts.at(account).block_changes.as_ref();
        if changes.is_none_or(|changes| changes.before.is_none()) {
            self.on_stored_waiting(host, account, false);
        }
        self.rest_blocking(host, account, size);
    }

    /// Whether a message that waits is of somebody whom the account blocks by now (XEP-0191 3.2),
    /// and then whether the list before blocked him, too.
    pub(crate) fn is_from_blocked(
        &self,
        account: AccountKey,
        bytes: &[u8],
        before: &BlockList,
    ) -> Option<bool> {
        if self.accounts.at(account).blocked.is_empty() {
            return None;
        }
        let view = StanzaView::parse(bytes, &self.client_scope).ok()?;
        let from = view.from()?;
        let from = Jid::from_prepared(&from);
        self.is_blocking(account, &from)
            .then(|| blocks(before, &from))
    }

    /// Whether a message that waits has bounced already, for the account blocks its sender, and no
    /// search for what waits of him is to come.
    pub(crate) fn has_bounced(&self, account: AccountKey, bytes: &[u8]) -> bool {
        let owner = self.accounts.at(account);
        let changes = owner.block_changes.as_ref();
        let lists = changes.map(|changes| [&changes.before, &changes.searched]);
        let lists = lists.into_iter().flatten().flatten();
        let has_bounced =
            |before: &BlockList| self.is_from_blocked(account, bytes, before) == Some(true);
        has_bounced(&owner.blocked) && lists.into_iter().all(has_bounced)
    }
}
