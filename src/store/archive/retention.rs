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
                return Err("a key of archives is too short".into());
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
            return schema::jid_of(jid).map(Some).map_err(damaged);
        }
    }

    /// See [`xmpp::port::StoreOp::SweepArchives`].
    pub(super) fn sweep(
        &self,
        place: &SweepPlace,
        retention: Retention,
    ) -> Result<StoreReply, Trouble> {
        let (mut place, mut looked) = (place.clone(), 0);
        let swept = |excess, next| Ok(StoreReply::Swept(Box::new(Swept { excess, next })));
        loop {
            let (account, last, mut counted) = match (place.account, place.counted_to) {
                (Some(account), Some(ArchiveId(last))) => {
                    (account, ArchiveId(last.saturating_sub(1)), place.counted)
                }
                (account, _) => match self.archive_behind(account.as_ref())? {
                    Some(account) => (account, ArchiveId::MAX, 0),
                    None => return swept(None, None),
                },
            };
            looked += LOOKED_FOR_ACCOUNT;
            let begin = self.begin(&account)?;
            let old = ArchiveId(retention.first.0.saturating_sub(1));
            let mut up_to = self.end_between(&account, (begin, old), true)?;
            let mut counted_to = None;
            if retention.count_max > 0 && begin <= last {
                let keys = [begin, last].map(|id| entry_key(&account, id));
                self.each((&keys[0], &keys[1]), true, &mut |key, _| {
                    (counted, looked) = (counted + 1, looked + 1);
                    let id = id_of(key)?;
                    if counted > retention.count_max {
                        up_to = up_to.max(Some(id));
                        return Ok(false);
                    }
                    counted_to = (looked >= SWEEP_SCAN_MAX).then_some(id);
                    Ok(counted_to.is_none())
                })?;
            }
            let next = SweepPlace {
                account: Some(account.clone()),
                counted_to,
                counted,
            };
            if up_to.is_some() || looked >= SWEEP_SCAN_MAX {
                return swept(up_to.map(|up_to| (account, up_to)), Some(next));
            }
            place = next;
        }
    }
}
