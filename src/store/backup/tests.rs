//! Backups hold one moment, come back whole, and are refused where a byte is wrong.

use super::*;
use crate::Embedded;
use crate::conformance::nodes::full_node;
use crate::conformance::sessions::{
    ARRIVED, dequeue, enqueue, save as save_session, session, share, stored,
};
use crate::conformance::{create, credentials, full_item, jid, keys, one, wait, waiting};
use crate::crash::Scratch;
use xmpp::Timestamp;
use xmpp::port::{OfflineQuota, Space, Store, StoreOp, StoreReply};
use xmpp::xep::time::utc;

fn whole(name: &str, fill: u8) -> WholeAccount {
    let mut whole = WholeAccount::new(jid(name), *keys(fill));
    whole.data.roster = vec![full_item("juliet@c.example"), full_item("nurse@c.example")];
    whole.data.blocked = vec!["tybalt@c.example".into(), "c.example".into()];
    whole.documents = vec![
        (
            Space::Private,
            "a urn:a".into(),
            b"<a xmlns='urn:a'/>"[..].into(),
        ),
        (Space::Vcard, "".into(), b"<vCard/>"[..].into()),
    ];
    whole.offline = (0..300)
        .map(|number| format!("<message id='{number}'/>").into_bytes().into())
        .collect();
    let items = vec![(3, b"old!"[..].into()), (9, b"new!"[..].into())];
    whole.nodes = vec![(full_node("n"), items)];
    whole
}

/// Names that share beginnings, so that one account's records could be taken for another's.
fn household() -> Vec<WholeAccount> {
    let mut all: Vec<_> = (0..40)
        .map(|number| whole(&format!("u{number}@a.example"), number))
        .chain([
            whole("u1@a.example.net", 41),
            WholeAccount::new(jid("bare@a.example"), *keys(9)),
        ])
        .collect();
    all.sort_by(|a, b| a.account.cmp(&b.account));
    all
}

fn accounts(backup: &Backup) -> Vec<WholeAccount> {
    let mut all = Vec::new();
    backup
        .accounts(&mut |account| {
            all.push(account);
            true
        })
        .unwrap();
    all.sort_by(|a, b| a.account.cmp(&b.account));
    all
}

fn save(store: &mut Embedded, file: &Path) -> u64 {
    store.snapshot().unwrap().save(file, &mut |_| {}).unwrap()
}

#[test]
fn a_backup_holds_the_moment_of_its_snapshot_and_comes_back_whole() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let mut store = Embedded::open(&scratch.0).unwrap();
    store
        .bulk_load(household().into_iter(), |_| panic!("all are new"))
        .unwrap();
    let snapshot = store.snapshot().unwrap();
    one(&mut store, create("later@a.example", 1));
    one(
        &mut store,
        StoreOp::DeleteAccount {
            account: jid("u1@a.example"),
        },
    );

    let file = scratch.0.join("backup");
    let count = snapshot.save(&file, &mut |_| {}).unwrap();
    let backup = Backup::open(&file).unwrap();
    assert_eq!(accounts(&backup), household());

    let restored = backup.restore(&other.0).unwrap();
    let expected = Restored {
        records: count,
        sessions: 0,
        messages: 0,
    };
    assert_eq!(restored, expected);
    let mut restored = Embedded::open(&other.0).unwrap();
    let found = one(&mut restored, credentials("later@a.example"));
    assert_eq!(found, StoreReply::Credentials(None));
    assert_eq!(
        one(&mut restored, wait("u1@a.example", "x", 301)),
        StoreReply::Done
    );
    assert_eq!(
        waiting(&mut restored, "u1@a.example").last().unwrap().0,
        301
    );
    assert_eq!(
        one(&mut restored, wait("u1@a.example", "x", 301)),
        StoreReply::Full
    );
    let again = other.0.join("backup");
    save(&mut restored, &again);
    assert_eq!(
        accounts(&Backup::open(&again).unwrap()).len(),
        household().len()
    );
}

fn message(type_: &str, id: &str) -> String {
    format!("<message from='c@d/e' to='a@b' type='{type_}' id='{id}'><body/></message>")
}

/// A backup of accounts with sessions that have not acknowledged everything.
fn with_sessions(scratch: &Scratch) -> Backup {
    let mut store = Embedded::open(&scratch.0).unwrap();
    for name in ["a@b.example", "a@b"] {
        one(&mut store, create(name, 1));
        one(&mut store, wait(name, "<message id='1'/>", 9));
        for secret in [1, 2] {
            one(&mut store, save_session(name, secret, "orchard"));
        }
        one(&mut store, share(name, &[1, 2], 1, &message("chat", "2")));
        // Two are the same, and were sent twice.
        for place in [2, 3] {
            one(&mut store, enqueue(name, 2, place, &message("chat", "3")));
        }
        // Nobody gets these when the session ends.
        one(&mut store, enqueue(name, 2, 4, &message("error", "4")));
        one(&mut store, enqueue(name, 2, 5, &message("groupchat", "5")));
        // A client has this.
        one(&mut store, share(name, &[1, 2], 6, &message("chat", "6")));
        one(&mut store, dequeue(name, 1, 6, 6));
    }
    // Sessions of the last process may have no record of their own left, but a queue.
    one(&mut store, enqueue("a@b", 3, 1, &message("chat", "7")));
    let handled = StoreOp::PutHandled {
        account: jid("a@b"),
        session: session("a@b", 1),
        handled: 8,
    };
    one(&mut store, handled);
    let file = scratch.0.join("backup");
    save(&mut store, &file);
    Backup::open(&file).unwrap()
}

#[test]
fn what_sessions_did_not_acknowledge_is_in_a_backup_once() {
    let scratch = Scratch::new();
    for whole in accounts(&with_sessions(&scratch)) {
        // Each says when it came.
        let (domain, came) = (whole.account.domain(), utc(ARRIVED));
        let delay = format!("<delay xmlns='urn:xmpp:delay' from='{domain}' stamp='{came}'/>");
        let delayed =
            |id: &&str| message("chat", id).replace("</message>", &(delay.clone() + "</message>"));
        let ids: &[&str] = match whole.account.as_str() {
            "a@b" => &["2", "3", "3", "7"],
            _ => &["2", "3", "3"],
        };
        let expected = ["<message id='1'/>".to_owned()].into_iter();
        let expected: Vec<Box<[u8]>> = expected
            .chain(ids.iter().map(delayed))
            .map(|stanza| stanza.into_bytes().into())
            .collect();
        assert_eq!(whole.offline, expected, "{:?}", whole.account);
    }
}

/// Before schema 5 a record had no time, before 8 no group, and what came in one turn had one time.
#[test]
fn what_several_sessions_had_before_groups_is_in_a_backup_once() {
    for (schema, head) in [(3_u32, &[1][..]), (7, &[2][..])] {
        let scratch = Scratch::new();
        let mut store = Embedded::open(&scratch.0).unwrap();
        one(&mut store, create("a@b", 1));
        drop(store);
        let mut store = Embedded::open(&scratch.0).unwrap();
        // The first client has none, the second one, the third all; one of them was sent twice.
        for (secret, first) in [(1, 0), (2, 1), (3, 3)] {
            for (place, id) in (0..).zip(["1", "2", "2", "3"]).skip(first) {
                let time: &[u8] = match schema {
                    3 => &[],
                    _ => &7_000_000_u64.to_be_bytes(),
                };
                let number = (place as u32).to_be_bytes();
                let text = message("chat", id);
                let record = [head, &number, time, text.as_bytes()].concat();
                let engine = store.engine().unwrap();
                engine.put_raw_queued(&jid("a@b"), secret, place, &record);
            }
        }
        let file = scratch.0.join("backup");
        save(&mut store, &file);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[12..16].copy_from_slice(&schema.to_be_bytes());
        let end = bytes.len() - 8;
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_be_bytes());
        std::fs::write(&file, &bytes).unwrap();
        let backup = Backup::open(&file).unwrap();
        let other = Scratch::new();
        assert_eq!(backup.restore(&other.0).unwrap().messages, 4, "{schema}");
        let mut restored = Embedded::open(&other.0).unwrap();
        let there = waiting(&mut restored, "a@b");
        let ids = ["1", "2", "2", "3"].map(|id| format!("id='{id}'"));
        assert_eq!(there.len(), 4);
        for ((_, text), id) in there.iter().zip(ids) {
            assert!(text.contains(&id), "{schema}: {there:?}");
        }
        assert_eq!(accounts(&backup)[0].offline.len(), 4);
    }
}

#[test]
fn sessions_have_ended_in_a_restored_store_and_what_they_held_waits() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let backup = with_sessions(&scratch);
    let restored = backup.restore(&other.0).unwrap();
    assert_eq!((restored.sessions, restored.messages), (4, 7));
    let mut restored = Embedded::open(&other.0).unwrap();
    assert_eq!(
        one(&mut restored, StoreOp::Sessions),
        StoreReply::Sessions(vec![])
    );
    assert_eq!(stored(&mut restored, "a@b", 2), None);
    let again = other.0.join("backup");
    save(&mut restored, &again);
    assert_eq!(accounts(&Backup::open(&again).unwrap()), accounts(&backup));
    // Their count and their bytes are known, as where the server had them wait.
    let there = waiting(&mut restored, "a@b");
    assert_eq!(there.last().map(|(id, _)| *id), Some(5));
    let size = there.iter().map(|(_, text)| text.len() as u64).sum::<u64>();
    for (count, size, reply) in [
        (5, size + 1, StoreReply::Full),
        (6, size, StoreReply::Full),
        (6, size + 1, StoreReply::Done),
    ] {
        let more = StoreOp::PutOffline {
            account: jid("a@b"),
            arrived: Timestamp::default(),
            stanza: b"x"[..].into(),
            quota: OfflineQuota { count, size },
            origin: None,
        };
        assert_eq!(one(&mut restored, more), reply);
    }
}

#[test]
fn a_restore_leaves_a_store_that_is_there_alone() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let file = scratch.0.join("backup");
    save(&mut Embedded::open(&scratch.0).unwrap(), &file);
    let mut there = Embedded::open(&other.0).unwrap();
    one(&mut there, create("a@b.example", 1));
    let refusal = Backup::open(&file).unwrap().restore(&other.0).unwrap_err();
    assert!(refusal.contains("already"), "{refusal}");
    let found = one(&mut there, credentials("a@b.example"));
    assert_eq!(found, StoreReply::Credentials(Some(keys(1))));
}

#[test]
fn a_backup_with_any_wrong_byte_is_refused() {
    let scratch = Scratch::new();
    let mut store = Embedded::open(&scratch.0).unwrap();
    one(&mut store, create("a@b.example", 1));
    one(&mut store, wait("a@b.example", "<message/>", 9));
    let file = scratch.0.join("backup");
    save(&mut store, &file);
    let good = std::fs::read(&file).unwrap();
    for index in 0..good.len() {
        let mut wrong = good.clone();
        wrong[index] ^= 4;
        std::fs::write(&file, wrong).unwrap();
        assert!(Backup::open(&file).is_err(), "byte {index} was not missed");
        std::fs::write(&file, &good[..index]).unwrap();
        assert!(Backup::open(&file).is_err(), "{index} bytes were enough");
    }
    std::fs::write(&file, [&good[..], b"\0"].concat()).unwrap();
    assert!(Backup::open(&file).is_err(), "a byte too much was not seen");
    std::fs::write(&file, good).unwrap();
    assert_eq!(accounts(&Backup::open(&file).unwrap()).len(), 1);
}

#[test]
fn a_backup_with_what_no_key_can_be_is_refused() {
    for (size, is_read) in [(0, false), (1, true), (65_535, true), (65_536, false)] {
        let mut record = vec![Table::Kept as u8];
        record.extend_from_slice(&u32::to_be_bytes(size));
        record.extend_from_slice(&u32::to_be_bytes(1));
        record.resize(record.len() + size as usize + 1, 7);
        let read = read_record(&mut &record[..], |_| {});
        assert_eq!(read.is_ok(), is_read, "{size}");
    }
}

#[test]
fn a_backup_that_cannot_be_written_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let mut store = Embedded::open(&scratch.0).unwrap();
    let target = scratch.0.join("a-directory");
    std::fs::create_dir_all(target.join("in-the-way")).unwrap();
    let snapshot = store.snapshot().unwrap();
    snapshot.save(&target, &mut |_| {}).unwrap_err();
    snapshot
        .save(&scratch.0.join("missing/backup"), &mut |_| {})
        .unwrap_err();
    let left = std::fs::read_dir(&scratch.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left
        .filter(|name| name.to_string_lossy().ends_with(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
