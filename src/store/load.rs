//! Accounts that come in whole: their records, and many of them without a commit for each.
//!
//! Invariant: all records of an account are one atomic batch, with what it changes in the counts.

use std::collections::HashSet;

use fjall::OwnedWriteBatch;
use stanza::jid::BareJid;
use xmpp::port::{Arrived, OfflineQuota, StoreReply, WholeAccount};

use crate::backup::{Record, Table};
use crate::commit::insert;
use crate::embedded::{Engine, LACKING_KEY, Staged, Trouble, damaged, engine};
use crate::lacking::Lacking;
use crate::records::exists;
use crate::{kept, nodes, schema};

/// Records of one bulk batch.
const RECORDS_MAX: usize = 8_192;

/// What [`crate::Embedded::bulk_load`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkLoaded {
    /// Accounts that are new.
    pub created: u64,
    /// Accounts that existed already; nothing of theirs was changed.
    pub existed: u64,
}

/// The records of a new account.
fn records_of(whole: WholeAccount) -> Result<Vec<Record>, Trouble> {
    let account = whole.account;
    let mut records = Vec::new();
    for item in whole.data.roster {
        let key = schema::roster_key(&account, &item.contact);
        let record = schema::encode_roster_item(item).map_err(damaged)?;
        records.push((Table::Roster, key, record));
    }
    let kept = kept::of_new(&account, whole.data.blocked, whole.documents, whole.offline)?;
    records.extend(
        kept.into_iter()
            .map(|(key, record)| (Table::Kept, key, record)),
    );
    let nodes = nodes::of_new(&account, whole.nodes)?;
    records.extend(
        nodes
            .into_iter()
            .map(|(key, record)| (Table::Kept, key, record)),
    );
    let record = schema::encode_credentials(whole.credentials).map_err(damaged)?;
    records.push((Table::Accounts, schema::account_key(&account), record));
    Ok(records)
}

impl Engine {
    /// See [`xmpp::port::StoreOp::CreateWhole`].
    pub(crate) fn create_whole(
        &self,
        staged: &mut Staged,
        whole: WholeAccount,
    ) -> Result<StoreReply, Trouble> {
        let key = schema::account_key(&whole.account);
        if exists(self.keyspace(Table::Accounts), &staged.accounts, &key)? {
            return Ok(StoreReply::Exists);
        }
        if whole.is_overfull() {
            return Ok(StoreReply::Full);
        }
        let lacking = staged.lacking.plus(Lacking::of(&whole.credentials));
        for (table, key, record) in records_of(whole)? {
            staged.of_mut(table).insert(key.into(), Some(record));
        }
        staged.lacking = lacking;
        Ok(StoreReply::Done)
    }

    /// See [`crate::Embedded::bulk_load`].
    pub(crate) fn bulk_load(
        &self,
        accounts: impl Iterator<Item = WholeAccount>,
        mut existed: impl FnMut(&BareJid),
    ) -> Result<BulkLoaded, Trouble> {
        // The log must not have the last word on what is written past it.
        self.checkpoint()?;
        let mut loaded = BulkLoaded::default();
        let mut batch = self.database.batch().durability(None);
        let mut batched = HashSet::new();
        let mut lacking = self.lacking.get();
        for whole in accounts {
            let key = schema::account_key(&whole.account);
            let known = self.keyspace(Table::Accounts);
            if batched.contains(&key) || known.contains_key(&key).map_err(engine)? {
                loaded.existed += 1;
                existed(&whole.account);
                continue;
            }
            lacking = lacking.plus(Lacking::of(&whole.credentials));
            for (table, key, record) in records_of(whole)? {
                batch.insert(self.keyspace(table), key, record);
            }
            batched.insert(key);
            loaded.created += 1;
            if batch.len() >= RECORDS_MAX {
                self.commit_loaded(&mut batch, lacking)?;
                batched.clear();
            }
        }
        self.commit_loaded(&mut batch, lacking)?;
        self.sync()?;
        Ok(loaded)
    }

    /// Writes records as another store had them, without a commit for each: [`Engine::sync`] ends
    /// it.
    pub(crate) fn load_records(
        &self,
        records: &mut dyn Iterator<Item = Record>,
    ) -> Result<(), Trouble> {
        let mut batch = self.database.batch().durability(None);
        let mut lacking = self.lacking.get();
        for (table, key, record) in records {
            if table == Table::Accounts {
                let credentials = schema::decode_credentials(&record).map_err(damaged)?;
                lacking = lacking.plus(Lacking::of(&credentials));
            }
            batch.insert(self.keyspace(table), key, record);
            if batch.len() >= RECORDS_MAX {
                self.commit_loaded(&mut batch, lacking)?;
            }
        }
        self.commit_loaded(&mut batch, lacking)
    }

    /// Appends to what waits for an account, whatever its quota says, and gives how many these are;
    /// [`Engine::sync`] ends it.
    pub(crate) fn load_waiting(
        &self,
        account: &BareJid,
        messages: impl Iterator<Item = Arrived>,
    ) -> Result<u64, Trouble> {
        let kept = self.keyspace(Table::Kept);
        let (mut staged, mut count) = (Staged::default(), 0);
        for (arrived, message) in messages {
            kept::put_offline(
                kept,
                &mut staged,
                account,
                (arrived, &message),
                OfflineQuota::UNLIMITED,
            )?;
            count += 1;
        }
        let mut batch = self.database.batch().durability(None);
        for (key, record) in &staged.kept {
            insert(&mut batch, kept, key, record.as_deref());
        }
        batch.commit().map_err(engine)?;
        Ok(count)
    }

    /// Commits a batch together with what accounts lack from then on, and begins another.
    fn commit_loaded(&self, batch: &mut OwnedWriteBatch, lacking: Lacking) -> Result<(), Trouble> {
        let mut full = std::mem::replace(batch, self.database.batch().durability(None));
        if lacking != self.lacking.get() {
            full.insert(&self.keyspaces.about, LACKING_KEY, lacking.to_record());
        }
        full.commit().map_err(engine)?;
        self.lacking.set(lacking);
        Ok(())
    }
}
