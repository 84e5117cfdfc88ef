//! What of archives has stayed too long or is too much, found a step at a time (decision 0013).
//!
//! Invariant: a step looks at so many records at most, and the next one goes on where it ended.

use super::{PURGED, View, entry_key, id_of};
use crate::embedded::{Trouble, damaged, engine};
use crate::schema;
use fjall::Readable;
use stanza::jid::BareJid;
use xmpp::port::{ArchiveId, Retention, SWEEP_SCAN_MAX, StoreReply, SweepPlace, Swept};

/// What finding an account counts for among the records that a step looks at.
const LOOKED_FOR_ACCOUNT: usize = 32;

/// Behind a virtual shard, the first byte that a JID may begin with: what is before is nobody's.
const JID_MIN: u8 = 2;

/// Behind an account's prefix: its archive is before that.
const BEHIND_ROWS: u8 = 0xff;

/// What comes behind the zero byte that ends a name.
const BEHIND_ZERO: &[u8] = &[1];

/// What was found of one archive.
struct Found {
    /// Up to where it is to be purged.
    up_to: Option<ArchiveId>,
    /// Where the next step goes on counting, unless it was counted.
    counted_to: Option<ArchiveId>,
    counted: u32,
}

impl View<'_> {
    /// The first archive that lies behind that of an account.
    fn archive_behind(&self, account: Option<&BareJid>) -> Result<Option<BareJid>, Trouble> {
        let mut from = Vec::new();
        if let Some(account) = account {
            from.extend_from_slice(&schema::session_prefix(account));
            from.push(BEHIND_ROWS);
        }
        loop {
            let found = self.snapshot.range(self.keyspace, &from[..]..).next();
            let Some(found) = found else {
                return Ok(None);
            };
            let key = found.key().map_err(engine)?;
            let Some((shard, rest)) = key.split_first_chunk::<2>() else {
                tracing::error!(?key, "a key of archives is too short");
                from = key.to_vec();
                from.push(0);
                continue;
            };
            if *shard == PURGED {
                return Ok(None);
            }
            if rest.first().is_none_or(|byte| *byte < JID_MIN) {
                from = shard.to_vec();
                from.push(JID_MIN);
                continue;
            }
            let jid = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            match schema::jid_of(jid).map_err(damaged) {
                Ok(account) => return Ok(Some(account)),
                Err(error) => tracing::error!(%error, "whose an archive is cannot be read"),
            }
            from = [shard, jid, BEHIND_ZERO].concat();
        }
    }

    /// Looks for what is to go of one archive, of which so many messages were counted down to this
    /// id.
    fn look_at(
        &self,
        account: &BareJid,
        (last, counted): (ArchiveId, u32),
        retention: Retention,
        looked: &mut usize,
    ) -> Result<Found, Trouble> {
        let begin = self.begin(account)?;
        let old = ArchiveId(retention.first.0.saturating_sub(1));
        let mut found = Found {
            up_to: self.end_between(account, (begin, old), true)?,
            counted_to: None,
            counted,
        };
        if retention.count_max > 0 && begin <= last {
            let keys = [begin, last].map(|id| entry_key(account, id));
            self.each((&keys[0], &keys[1]), true, &mut |key, _| {
                (found.counted, *looked) = (found.counted + 1, *looked + 1);
                let id = id_of(key)?;
                if found.counted > retention.count_max {
                    found.up_to = found.up_to.max(Some(id));
                    return Ok(false);
                }
                found.counted_to = (*looked >= SWEEP_SCAN_MAX).then_some(id);
                Ok(found.counted_to.is_none())
            })?;
        }
        Ok(found)
    }

    /// See [`xmpp::port::StoreOp::SweepArchives`].
    pub(super) fn sweep(
        &self,
        place: &SweepPlace,
        retention: Retention,
    ) -> Result<StoreReply, Trouble> {
        let (mut place, mut looked) = (place.clone(), 0);
        let swept = |swept| Ok(StoreReply::Swept(Box::new(swept)));
        loop {
            let (account, last, counted) = match (place.account, place.counted_to) {
                (Some(account), Some(ArchiveId(last))) => {
                    (account, ArchiveId(last.saturating_sub(1)), place.counted)
                }
                (account, _) => match self.archive_behind(account.as_ref())? {
                    Some(account) => (account, ArchiveId::MAX, 0),
                    None => return swept(Swept::default()),
                },
            };
            looked += LOOKED_FOR_ACCOUNT;
            let found = self.look_at(&account, (last, counted), retention, &mut looked);
            let behind = |counted_to, counted| SweepPlace {
                account: Some(account.clone()),
                counted_to,
                counted,
            };
            let (up_to, next) = match found {
                Ok(found) => (found.up_to, behind(found.counted_to, found.counted)),
                // What is damaged in one archive is no reason to leave all others as they are.
                Err(error) => {
                    tracing::error!(%error, %account, "an archive was not searched");
                    return swept(Swept {
                        next: Some(behind(None, 0)),
                        has_failed: true,
                        ..Swept::default()
                    });
                }
            };
            if up_to.is_some() || looked >= SWEEP_SCAN_MAX {
                return swept(Swept {
                    excess: up_to.map(|up_to| (account, up_to)),
                    next: Some(next),
                    has_failed: false,
                });
            }
            place = next;
        }
    }
}
