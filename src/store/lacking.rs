//! How many accounts have no key for a SCRAM hash: while there is one, it is offered to nobody.
//!
//! The record is a byte with a bit for each hash that some account lacks, which is all that there
//! was in the beginning, and then the counts, as three big-endian u64.

use xmpp::port::Credentials;

use crate::backup::Table;
use crate::embedded::{Engine, LACKING_KEY, Trouble, engine};
use crate::schema;

/// How many accounts have no key for a hash: as long as there are any, its SCRAM mechanisms cannot
/// be offered to all. An account without any key counts nowhere, for nobody logs in to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// SHA-1.
    pub sha1: u64,
    /// SHA-256.
    pub sha256: u64,
    /// SHA-512.
    pub sha512: u64,
}

impl Lacking {
    /// One account with these keys.
    pub(crate) fn of(credentials: &Credentials) -> Lacking {
        if !credentials.has_any() {
            return Lacking::default();
        }
        Lacking {
            sha1: credentials.sha1.is_none().into(),
            sha256: credentials.sha256.is_none().into(),
            sha512: credentials.sha512.is_none().into(),
        }
    }

    /// One account with this record; one that cannot be read lets nobody in.
    pub(crate) fn of_account(record: &[u8]) -> Lacking {
        schema::decode_credentials(record).map_or_else(|_| Lacking::default(), |it| Self::of(&it))
    }

    pub(crate) fn plus(self, more: Lacking) -> Lacking {
        Lacking {
            sha1: self.sha1.saturating_add(more.sha1),
            sha256: self.sha256.saturating_add(more.sha256),
            sha512: self.sha512.saturating_add(more.sha512),
        }
    }

    pub(crate) fn minus(self, less: Lacking) -> Lacking {
        Lacking {
            sha1: self.sha1.saturating_sub(less.sha1),
            sha256: self.sha256.saturating_sub(less.sha256),
            sha512: self.sha512.saturating_sub(less.sha512),
        }
    }

    pub(crate) fn to_record(self) -> Vec<u8> {
        let counts = [self.sha1, self.sha256, self.sha512];
        let bits = (0..)
            .zip(counts)
            .map(|(bit, count)| u8::from(count > 0) << bit);
        let mut record = vec![bits.sum()];
        record.extend(counts.into_iter().flat_map(u64::to_be_bytes));
        record
    }

    /// `None` where the record has no counts.
    pub(crate) fn from_record(record: &[u8]) -> Option<Lacking> {
        let (counts, []) = record.get(1..)?.as_chunks() else {
            return None;
        };
        let [sha1, sha256, sha512] = <[[u8; 8]; 3]>::try_from(counts).ok()?;
        Some(Lacking {
            sha1: u64::from_be_bytes(sha1),
            sha256: u64::from_be_bytes(sha256),
            sha512: u64::from_be_bytes(sha512),
        })
    }
}

impl Engine {
    /// Reads what accounts lack. Where an older build wrote only which hashes, they are counted;
    /// should that be lost with the power, they are counted again.
    pub(crate) fn learn_lacking(&self) -> Result<(), Trouble> {
        let about = &self.keyspaces.about;
        let Some(record) = about.get(LACKING_KEY).map_err(engine)? else {
            return Ok(());
        };
        let lacking = match Lacking::from_record(&record) {
            Some(lacking) => lacking,
            None => {
                let mut counted = Lacking::default();
                for entry in self.keyspace(Table::Accounts).iter() {
                    let record = entry.value().map_err(engine)?;
                    counted = counted.plus(Lacking::of_account(&record));
                }
                about
                    .insert(LACKING_KEY, counted.to_record())
                    .map_err(engine)?;
                counted
            }
        };
        self.lacking.set(lacking);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Embedded;
    use crate::backup::Backup;
    use crate::conformance::{create, jid, keys, one};
    use crate::crash::Scratch;
    use xmpp::port::{Store, StoreOp, StoreReply, WholeAccount};

    /// Keys as another server had them.
    fn sha1_only() -> Box<Credentials> {
        Box::new(Credentials {
            sha1: keys(1).sha1,
            ..Credentials::default()
        })
    }

    fn create_with(account: &str, credentials: Box<Credentials>) -> StoreOp {
        StoreOp::CreateAccount {
            account: jid(account),
            credentials,
        }
    }

    fn set(account: &str, credentials: Box<Credentials>) -> StoreOp {
        StoreOp::SetCredentials {
            account: jid(account),
            credentials,
            keeps: None,
        }
    }

    fn delete(account: &str) -> StoreOp {
        StoreOp::DeleteAccount {
            account: jid(account),
        }
    }

    /// So many accounts have a key for SHA-1 only.
    fn lack(count: u64) -> Lacking {
        Lacking {
            sha1: 0,
            sha256: count,
            sha512: count,
        }
    }

    fn open(scratch: &Scratch) -> Embedded {
        Embedded::open(&scratch.0).unwrap()
    }

    #[test]
    fn what_accounts_lack_is_counted_with_every_write() {
        let scratch = Scratch::new();
        let mut store = open(&scratch);
        let (all, none) = (keys(2), Box::<Credentials>::default());
        let steps = [
            (create("whole@b.example", 1), 0),
            (create_with("a@b.example", sha1_only()), 1),
            (create_with("a@b.example", all.clone()), 1),
            (create_with("b@b.example", sha1_only()), 2),
            (create_with("bare@b.example", none.clone()), 2),
            (set("bare@b.example", sha1_only()), 3),
            (set("missing@b.example", sha1_only()), 3),
            (set("a@b.example", all.clone()), 2),
            (set("a@b.example", sha1_only()), 3),
            (set("a@b.example", none), 2),
            (delete("a@b.example"), 2),
            (delete("b@b.example"), 1),
            (delete("b@b.example"), 1),
            (delete("whole@b.example"), 1),
            (set("bare@b.example", all), 0),
        ];
        for (op, count) in steps {
            let told = format!("{op:?}");
            one(&mut store, op);
            assert_eq!(store.lacking(), lack(count), "{told}");
            let killed = open(&scratch.killed());
            assert_eq!(killed.lacking(), lack(count), "after a kill: {told}");
        }
        drop(store);
        assert_eq!(open(&scratch).lacking(), lack(0));
    }

    #[test]
    fn one_call_counts_what_it_staged_itself() {
        let scratch = Scratch::new();
        let mut store = open(&scratch);
        let ops = [
            create_with("a@b.example", sha1_only()),
            delete("a@b.example"),
            create_with("a@b.example", sha1_only()),
            set("a@b.example", keys(3)),
            create_with("b@b.example", sha1_only()),
        ];
        store.perform(&mut ops.into_iter(), &mut Vec::new());
        assert_eq!(store.lacking(), lack(1));
    }

    #[test]
    fn what_cannot_be_read_lacks_nothing_and_can_still_go() {
        let scratch = Scratch::new();
        let mut store = open(&scratch);
        one(&mut store, create("a@b.example", 1));
        let engine = store.engine().unwrap();
        engine.put_raw_account(&jid("a@b.example"), b"?");
        assert_eq!(one(&mut store, delete("a@b.example")), StoreReply::Done);
        assert_eq!(store.lacking(), lack(0));
    }

    #[test]
    fn bulk_loads_and_restores_count_too() {
        let (scratch, other) = (Scratch::new(), Scratch::new());
        let mut store = open(&scratch);
        // More than one batch; each third account can do everything, and each third nothing.
        let whole = |number: u64| {
            let keys = [sha1_only(), keys(1), Box::default()];
            let keys = keys[(number % 3) as usize].clone();
            WholeAccount::new(jid(&format!("u{number}@b.example")), *keys)
        };
        let accounts = (0..30_000).chain(0..3).map(whole);
        let loaded = store.bulk_load(accounts, |_| {}).unwrap();
        assert_eq!((loaded.created, loaded.existed), (30_000, 3));
        assert_eq!(store.lacking(), lack(10_000));
        assert_eq!(open(&scratch.killed()).lacking(), lack(10_000));
        one(&mut store, delete("u0@b.example"));

        let file = scratch.0.join("backup");
        let view = store.snapshot().unwrap();
        view.save(&file, &mut |_| {}).unwrap();
        Backup::open(&file).unwrap().restore(&other.0).unwrap();
        assert_eq!(open(&other).lacking(), lack(9_999));
    }

    #[test]
    fn a_store_that_says_only_which_hashes_is_counted_when_it_is_opened() {
        let scratch = Scratch::new();
        let mut store = open(&scratch);
        for account in ["a@b.example", "b@b.example"] {
            one(&mut store, create_with(account, sha1_only()));
        }
        one(&mut store, create_with("bare@b.example", Box::default()));
        drop(store);
        // SHA-1 as well: somebody had no key at all, or is gone.
        for bits in [7, 0] {
            let store = open(&scratch);
            store.engine().unwrap().put_raw_lacking(&[bits]);
            drop(store);
            let mut store = open(&scratch);
            assert_eq!(store.lacking(), lack(2));
            one(&mut store, set("a@b.example", keys(1)));
            assert_eq!(open(&scratch.killed()).lacking(), lack(1));
            one(&mut store, set("a@b.example", sha1_only()));
        }
    }

    #[test]
    fn counts_are_read_as_they_were_written_and_bits_alone_are_not() {
        for lacking in [
            Lacking::default(),
            Lacking {
                sha1: 1,
                sha256: 256,
                sha512: u64::MAX,
            },
        ] {
            assert_eq!(Lacking::from_record(&lacking.to_record()), Some(lacking));
        }
        let some = Lacking {
            sha512: 3,
            ..Lacking::default()
        };
        assert_eq!(some.to_record()[0], 4);
        for old in [&[][..], &[7], &[7; 24], &[7; 26]] {
            assert_eq!(Lacking::from_record(old), None, "{old:?}");
        }
    }
}
