//! Removed contacts that a roster remembers, so that clients that were away hear of them.
//!
//! Invariant: a client that may lack the removal of a contact that is forgotten is told no version
//! until it asks for the roster.

use crate::account::{Account, AccountKey};
use crate::host::Host;
use crate::limit::ROSTER_ITEM_SIZE_MEAN;
use crate::session::SessionKey;
use crate::shard::Shard;

/// Removed contacts that a roster remembers, for clients that were away. Whoever has a version from
/// before one that it forgot gets the whole roster.
pub const REMOVED_MAX: usize = 64;

/// The same while there is a session that survives the process, and whose client may not have heard
/// of all of them: it may come back without asking for the roster. Their addresses have the mean of
/// a roster's items at most.
pub const REMOVED_UNHEARD_MAX: usize = 1_024;

/// How many removed contacts a roster forgets at once: more than one, so that it comes down to
/// [`REMOVED_MAX`] when all have heard.
const FORGOTTEN_AT_ONCE: usize = 2;

impl Shard {
    /// A contact was removed: where too many are remembered, the oldest are forgotten.
    pub(crate) fn forget_oldest_removed(&mut self, host: &mut impl Host, account: AccountKey) {
        let (count_max, size_max) = match self.may_lack_removals(account) {
            true => (
                REMOVED_UNHEARD_MAX,
                REMOVED_UNHEARD_MAX * ROSTER_ITEM_SIZE_MEAN,
            ),
            false => (REMOVED_MAX, usize::MAX),
        };
        for _ in 0..FORGOTTEN_AT_ONCE {
            let owner = self.accounts.at(account);
            let removed = owner.roster.iter().filter(|item| item.is_removed());
            let size: usize = removed
                .clone()
                .map(|item| item.contact.as_str().len())
                .sum();
            let count = removed.clone().count();
            let is_long = count > count_max || count > REMOVED_MAX && size > size_max;
            if !is_long {
                return;
            }
            // One that is being told may still have to be as it was.
            let is_told = |contact| owner.told_contacts().any(|told| told == contact);
            let settled = removed.filter(|item| !is_told(&item.contact));
            let oldest = settled.min_by_key(|item| item.changed);
            let Some(oldest) = oldest else {
                return;
            };
            let (contact, number) = (oldest.contact.clone(), oldest.changed);
            let owner = self.accounts.at_mut(account);
            owner.remove_contact(contact.as_str());
            let own = owner.jid.clone();
            let mark = owner.contact_mut(&own);
            mark.prior = mark.prior.max(number);
            let mark = mark.clone();
            self.store_item(host, account, mark);
            self.store_removal(host, account, &contact);
        }
    }

    /// Whether an account has a session whose client may come back after a crash, and may not have
    /// been told by then what its memory alone has.
    fn may_lack_removals(&self, account: AccountKey) -> bool {
        let owner = self.accounts.at(account);
        let may_lack = |key: &SessionKey| {
            let session = self.sessions.at(*key);
            let outlet = &session.outlet;
            let is_unheard = outlet.conn.is_none() || outlet.queued() > 0;
            session.interested && is_unheard && self.sessions.is_saved(*key)
        };
        owner.sessions.iter().any(may_lack) || self.is_dormant(owner.jid.as_str())
    }

    /// Pushes a session that comes back from storage the whole roster, with what was removed of it,
    /// which its client may know of or not.
    pub(crate) fn refresh_roster(
        &mut self,
        host: &mut impl Host,
        account: AccountKey,
        key: SessionKey,
    ) {
        let has_forgotten = forgotten(self.accounts.at(account)) > 0;
        self.sessions.at_mut(key).lacks_removals = has_forgotten;
        self.push_all(host, account, key);
    }
}

/// The number of the last removal that a roster does not remember.
pub(crate) fn forgotten(account: &Account) -> u64 {
    // Nobody has his own address in his roster: there it says what was forgotten.
    let mark = account.contact(account.jid.as_str());
    mark.map_or(0, |mark| mark.prior)
}
