//! Archives in memory.

use super::{Account, Memory};
use stanza::jid::BareJid;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use xmpp::port::{
    ARCHIVE_PAGE_SIZE_MAX, ArchiveEntry, ArchiveId, ArchivePage, ArchiveQuery, Retention, StoreOp,
    StoreReply, SweepPlace, Swept,
};
use xmpp::xep::retraction::{Effect, effect_on};

type Entries = BTreeMap<ArchiveId, ArchiveEntry>;

impl Memory {
    /// The operations on archives.
    pub(super) fn apply_to_archive(&mut self, op: StoreOp) -> StoreReply {
        match op {
            StoreOp::Archive { entry, and } => {
                let reply = self.apply(*and);
                if reply == StoreReply::Done
                    && let Some(found) = self.accounts.get_mut(&entry.account)
                {
                    retract(&mut found.archive, &entry);
                    found.newest_archived = found.newest_archived.max(Some(entry.id));
                    found.archive.insert(entry.id, *entry);
                }
                reply
            }
            StoreOp::PurgeArchive { account, up_to } => {
                if let Some(found) = self.accounts.get_mut(&account) {
                    found.archive.retain(|id, _| *id > up_to);
                }
                StoreReply::Done
            }
            StoreOp::ArchivePage { account, query } => {
                let nothing = BTreeMap::new();
                let found = self.accounts.get(&account);
                page(found.map_or(&nothing, |found| &found.archive), &query)
            }
            StoreOp::ArchiveEnds { account } => {
                let archive = self.accounts.get(&account).map(|found| &found.archive);
                let first = archive.and_then(|archive| archive.keys().next().copied());
                let last = archive.and_then(|archive| archive.keys().next_back().copied());
                StoreReply::ArchiveEnds(first.zip(last))
            }
            StoreOp::SweepArchives { place, retention } => {
                let swept = sweep(&self.accounts, &place, retention);
                StoreReply::Swept(Box::new(swept))
            }
            other => self.apply_to_kept(other),
        }
    }
}

/// Replaces the message that another one retracts.
fn retract(archive: &mut Entries, entry: &ArchiveEntry) {
    let Some(retraction) = &entry.retracts else {
        return;
    };
    for (_, earlier) in archive.range_mut(..entry.id).rev() {
        if earlier.known_as != Some(retraction.known_as)
            || !entry.has_sender_of(earlier.is_sent, &earlier.peer)
        {
            continue;
        }
        match effect_on(retraction, &earlier.message, entry.id.time()) {
            Effect::None => {}
            Effect::Settled => return,
            Effect::Tombstone(tombstone) => {
                earlier.message = tombstone.into();
                return;
            }
        }
    }
}

/// The next archive of which something is to go.
fn sweep(accounts: &BTreeMap<BareJid, Account>, place: &SweepPlace, retention: Retention) -> Swept {
    let behind = place.account.as_ref().map_or(Unbounded, Excluded);
    for (account, found) in accounts.range::<BareJid, _>((behind, Unbounded)) {
        let archive = &found.archive;
        let old = archive.range(..retention.first).next_back();
        let surplus = match retention.count_max {
            0 => 0,
            count_max => archive.len().saturating_sub(count_max as usize),
        };
        let surplus = archive.keys().take(surplus).next_back();
        let up_to = old.map(|(id, _)| id).max(surplus);
        if let Some(up_to) = up_to {
            let next = SweepPlace {
                account: Some(account.clone()),
                ..SweepPlace::default()
            };
            return Swept {
                excess: Some((account.clone(), *up_to)),
                next: Some(next),
                has_failed: false,
            };
        }
    }
    Swept::default()
}

/// What a query asks for of an archive.
fn page(archive: &BTreeMap<ArchiveId, ArchiveEntry>, query: &ArchiveQuery) -> StoreReply {
    let ids = query.ids.as_deref().unwrap_or_default();
    let mut known = query.known.iter().chain(ids);
    if !known.all(|id| archive.contains_key(id)) {
        return StoreReply::Missing;
    }
    let is_wanted = |entry: &&ArchiveEntry| {
        let is_with = |with: &str| with == &*entry.peer || with == entry.peer_bare();
        (query.first..=query.last).contains(&entry.id)
            && query.with.as_deref().is_none_or(is_with)
            && query.ids.as_ref().is_none_or(|ids| ids.contains(&entry.id))
    };
    let mut wanted: Vec<&ArchiveEntry> = archive.values().filter(is_wanted).collect();
    if query.is_backward {
        wanted.reverse();
    }
    let mut page = ArchivePage {
        count: (query.count == 0).then_some(wanted.len()),
        ..ArchivePage::default()
    };
    let mut size = 0;
    for entry in wanted.iter().take(query.count) {
        if size >= ARCHIVE_PAGE_SIZE_MAX {
            break;
        }
        size += entry.message.len();
        page.messages.push((entry.id, entry.message.clone()));
    }
    page.is_complete = page.messages.len() == wanted.len();
    if query.is_backward {
        page.messages.reverse();
    }
    StoreReply::ArchivePage(Box::new(page))
}
