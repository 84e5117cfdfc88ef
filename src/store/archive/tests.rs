//! Archives on disk: what lies there, and what a kill, a purge and an upgrade leave of it.

use super::*;
use crate::Embedded;
use crate::backup::Backup;
use crate::conformance::agents::{agent, put};
use crate::conformance::archive::{
    JULIET, ROMEO, all, ends, fill, got, id, left, page, purge, said, sent, texts,
};
use crate::conformance::nodes::{change, full_node};
use crate::conformance::{create, delete, jid, one};
use crate::crash::Scratch;
use xmpp::port::{Retention, SWEEP_SCAN_MAX, Store, SweepPlace};

fn open(scratch: &Scratch) -> Embedded {
    Embedded::open(&scratch.0).unwrap()
}

/// How many records there are: of rows, and of bodies with what finds them.
fn records(store: &Embedded) -> (usize, usize) {
    let engine = store.engine().unwrap();
    let (mut rows, mut bodies) = (0, 0);
    for entry in engine.keyspace(Table::Archive).iter() {
        let key = entry.key().unwrap();
        match key[..2] == PURGED {
            true => {}
            false if key[2] < 2 => bodies += 1,
            false => rows += 1,
        }
    }
    (rows, bodies)
}

fn settle(store: &mut Embedded) {
    while store.is_behind() {
        store.perform(&mut std::iter::empty(), &mut Vec::new());
    }
}

#[test]
fn a_body_is_there_once_and_goes_with_the_last_archive_that_has_it() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    fill(&mut store);
    // Of romeo five messages, of juliet three, which are among those.
    assert_eq!(records(&store), (2 * (5 + 3), 5));
    one(&mut store, purge(ROMEO, 99));
    settle(&mut store);
    assert_eq!(records(&store), (2 * 3, 3));
    assert_eq!(texts(&mut store, JULIET, all()).0, "a b e");
    one(&mut store, delete(JULIET));
    settle(&mut store);
    assert_eq!(records(&store), (0, 0));
}

#[test]
fn what_a_kill_left_of_a_purge_goes_with_the_next_opening() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    fill(&mut store);
    for number in 10..40 {
        one(&mut store, sent(ROMEO, JULIET, number, "x"));
    }
    one(&mut store, delete(ROMEO));
    one(&mut store, create(ROMEO, 1));
    let killed = scratch.killed();
    drop(store);
    let mut store = open(&killed);
    assert!(store.is_behind());
    assert_eq!(texts(&mut store, ROMEO, all()).0, "");
    settle(&mut store);
    assert_eq!(records(&store), (2 * 3, 3));
    drop(store);
    let mut store = open(&killed);
    settle(&mut store);
    assert_eq!(texts(&mut store, JULIET, all()).0, "a b e");
}

#[test]
fn what_was_answered_is_there_after_a_kill() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    fill(&mut store);
    // The log's file is given up several times meanwhile.
    for number in 10..200 {
        one(&mut store, sent(ROMEO, JULIET, number, &"x".repeat(200)));
    }
    let mut killed = open(&scratch.killed());
    assert_eq!(ends(&mut killed, ROMEO), Some((id(1), id(199))));
    let query = ArchiveQuery {
        first: id(6),
        count: 1_000,
        ..all()
    };
    assert_eq!(page(&mut killed, ROMEO, query).messages.len(), 190);
}

#[test]
fn a_backup_has_the_archives_and_what_was_purged_stays_gone() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    fill(&mut store);
    one(&mut store, purge(ROMEO, 2));
    let file = scratch.0.join("backup");
    let count = store.snapshot().unwrap().save(&file, &mut |_| {}).unwrap();
    let restored = Scratch::new();
    let told = Backup::open(&file).unwrap().restore(&restored.0).unwrap();
    assert_eq!(told.records, count);
    let mut store = open(&restored);
    settle(&mut store);
    assert_eq!(texts(&mut store, ROMEO, all()).0, "c d e");
    assert_eq!(texts(&mut store, JULIET, all()).0, "a b e");
}

#[test]
fn a_store_of_schema_10_gets_user_agents_nodes_and_archives() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create(ROMEO, 1));
    drop(store);
    let store = open(&scratch);
    let engine = store.engine().unwrap();
    engine.drop_keyspaces(&["archive"]);
    engine.put_raw_schema(&10_u32.to_be_bytes());
    drop(store);
    let mut store = open(&scratch);
    let raw = store.engine().unwrap().raw_schema();
    assert_eq!(raw, schema::SCHEMA.to_be_bytes());
    assert_eq!(ends(&mut store, ROMEO), None);
    let account = || jid(ROMEO);
    let agents = StoreOp::UserAgents { account: account() };
    let none = StoreReply::UserAgents(Vec::new());
    assert_eq!(one(&mut store, agents), none);
    let nodes = StoreOp::Nodes {
        account: account(),
        only: None,
    };
    assert_eq!(one(&mut store, nodes), StoreReply::Nodes(vec![]));
    let node = change(ROMEO, full_node("n"), &[(3, "x")], &[]);
    let agent = put(agent(1, 1), None, 0);
    for op in [got(ROMEO, JULIET, 1, "a"), node, agent] {
        assert_eq!(one(&mut store, op), StoreReply::Done);
    }
    assert_eq!(texts(&mut store, ROMEO, all()).0, "a");
}

#[test]
fn a_search_ends_after_so_many_records() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create(ROMEO, 1));
    let mut ops = (1..=ARCHIVE_SCAN_MAX as u64 + 1).map(|number| {
        let peer = if number == 2 {
            "juliet@a.example/b"
        } else {
            "juliet@a.example/a"
        };
        got(ROMEO, peer, number, "x")
    });
    store.perform(&mut ops, &mut Vec::new());
    let mut with = |resource: &str, first| {
        let query = ArchiveQuery {
            with: Some(format!("{JULIET}/{resource}").into()),
            first: id(first),
            ..all()
        };
        let op = StoreOp::ArchivePage {
            account: jid(ROMEO),
            query: Box::new(query),
        };
        one(&mut store, op)
    };
    let StoreReply::ArchivePage(page) = with("b", 1) else {
        panic!("it was found early enough");
    };
    assert_eq!((page.messages.len(), page.is_complete), (1, false));
    assert_eq!(with("c", 1), StoreReply::Full);
    let StoreReply::ArchivePage(page) = with("c", 2) else {
        panic!("it is not that many");
    };
    assert_eq!((page.messages.len(), page.is_complete), (0, true));
    let count = ArchiveQuery { count: 0, ..all() };
    let count = crate::conformance::archive::page(&mut store, ROMEO, count);
    assert_eq!((count.count, count.is_complete), (None, false));
}

#[test]
fn what_was_retracted_goes_with_the_last_archive_that_has_it() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    for name in [ROMEO, JULIET] {
        one(&mut store, create(name, 1));
    }
    for (number, says) in [(1, ("a", None)), (2, ("b", None)), (3, ("r", Some("a")))] {
        for is_sent in [true, false] {
            one(&mut store, said((ROMEO, JULIET), is_sent, number, says));
        }
    }
    let killed = scratch.killed();
    // In each archive two rows of each message, and a tombstone; and what finds that.
    assert_eq!(records(&store), (2 * (2 * 3 + 1), 2 * 2 + 1));
    one(&mut store, said((ROMEO, JULIET), true, 4, ("s", Some("b"))));
    assert_eq!(
        left(&mut store, ROMEO),
        "a retracted, b retracted, r retract, s retract"
    );
    assert_eq!(records(&store), (2 * (2 * 3 + 1) + 3, 2 * 3 + 1));
    one(&mut store, purge(ROMEO, 99));
    settle(&mut store);
    assert_eq!(records(&store), (2 * 3 + 1, 2 * 2 + 1));
    assert_eq!(left(&mut store, JULIET), "a retracted, b body, r retract");
    one(&mut store, delete(JULIET));
    settle(&mut store);
    assert_eq!(records(&store), (0, 0));
    let mut killed = open(&killed);
    for name in [ROMEO, JULIET] {
        assert_eq!(left(&mut killed, name), "a retracted, b body, r retract");
    }
}

/// Of what schema 11 archived nothing is found by its sender's id.
#[test]
fn a_store_of_schema_11_keeps_its_archives_and_what_comes_can_be_retracted() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create(ROMEO, 1));
    let mut old = said((ROMEO, JULIET), true, 1, ("a", None));
    if let StoreOp::Archive { entry, .. } = &mut old {
        entry.known_as = None;
    }
    one(&mut store, old);
    let engine = store.engine().unwrap();
    engine.put_raw_schema(&11_u32.to_be_bytes());
    drop(store);
    let mut store = open(&scratch);
    let raw = store.engine().unwrap().raw_schema();
    assert_eq!(raw, schema::SCHEMA.to_be_bytes());
    for (number, says) in [
        (2, ("b", None)),
        (3, ("r1", Some("a"))),
        (4, ("r2", Some("b"))),
    ] {
        one(&mut store, said((ROMEO, JULIET), true, number, says));
    }
    let expected = "a body, b retracted, r1 retract, r2 retract";
    assert_eq!(left(&mut store, ROMEO), expected);
    one(&mut store, purge(ROMEO, 99));
    settle(&mut store);
    assert_eq!(records(&store), (0, 0));
}

#[test]
fn a_step_of_a_sweep_ends_in_the_midst_of_an_archive_and_the_next_goes_on_there() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create(ROMEO, 1));
    let count = SWEEP_SCAN_MAX as u64 + 100;
    let mut ops = (1..=count).map(|number| got(ROMEO, JULIET, number, "x"));
    store.perform(&mut ops, &mut Vec::new());
    let mut sweep = |place, count_max| {
        let retention = Retention {
            first: ArchiveId(0),
            count_max,
        };
        let op = StoreOp::SweepArchives { place, retention };
        let read = store.reading(&op);
        let reply = one(&mut store, op);
        assert_eq!(read.map(|read| read()).as_ref(), Some(&reply));
        match reply {
            StoreReply::Swept(swept) => *swept,
            reply => panic!("{reply:?}"),
        }
    };
    let first = sweep(SweepPlace::default(), count as u32 - 10);
    assert_eq!(first.excess, None);
    let place = first.next.unwrap();
    assert!(place.counted_to.is_some());
    let second = sweep(place, count as u32 - 10);
    assert_eq!(second.excess, Some((jid(ROMEO), id(10))));
    assert_eq!(sweep(second.next.unwrap(), 1).next, None);
}

/// The others are found, and a purge of the damaged one fails without harm.
#[test]
fn an_archive_that_cannot_be_searched_is_passed_over() {
    let names = [ROMEO, JULIET, "nurse@a.example"];
    for damaged in names {
        let scratch = Scratch::new();
        let mut store = open(&scratch);
        for name in names {
            one(&mut store, create(name, 1));
            one(&mut store, got(name, "x@b.example", 1, "x"));
        }
        let archives = store.engine().unwrap().keyspace(Table::Archive);
        archives
            .insert(&purged_key(&jid(damaged))[..], [9])
            .unwrap();
        let shard = &entry_key(&jid(damaged), id(1))[..2];
        archives
            .insert([shard, &b"\xff\0\x01"[..]].concat(), [9])
            .unwrap();
        archives.insert(&shard[..1], [9]).unwrap();
        let (mut place, mut found, mut failed) = (SweepPlace::default(), Vec::new(), 0);
        loop {
            let retention = Retention {
                first: id(2),
                count_max: 0,
            };
            let op = StoreOp::SweepArchives { place, retention };
            let StoreReply::Swept(swept) = one(&mut store, op) else {
                panic!("nothing was searched");
            };
            failed += usize::from(swept.has_failed);
            found.extend(swept.excess.map(|(account, _)| account));
            match swept.next {
                Some(next) => place = next,
                None => break,
            }
        }
        let mut others = names.map(jid).to_vec();
        others.retain(|name| *name != jid(damaged));
        found.sort();
        others.sort();
        assert_eq!((found, failed), (others, 1));
    }
}

#[test]
fn what_cannot_be_read_keeps_no_retraction_from_being_archived() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    one(&mut store, create(ROMEO, 1));
    let way = (ROMEO, JULIET);
    one(&mut store, said(way, true, 1, ("a", None)));
    let archives = store.engine().unwrap().keyspace(Table::Archive);
    let mut bodies = archives.iter().map(|entry| entry.key().unwrap());
    let body = bodies.rfind(|key| key[2] == 0).unwrap();
    archives.insert(&body[..], [9]).unwrap();
    let retraction = said(way, true, 2, ("r", Some("a")));
    assert_eq!(one(&mut store, retraction), StoreReply::Done);
    assert_eq!(ends(&mut store, ROMEO), Some((id(1), id(2))));
    let query = ArchiveQuery {
        first: id(2),
        ..all()
    };
    assert_eq!(page(&mut store, ROMEO, query).messages.len(), 1);
}

/// An idle account's archive may be empty for years.
#[test]
fn an_archive_that_a_purge_emptied_is_no_work_for_the_next_opening() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    fill(&mut store);
    one(&mut store, purge(ROMEO, 99));
    assert!(open(&scratch.killed()).is_behind());
    settle(&mut store);
    drop(store);
    let mut store = open(&scratch);
    assert!(!store.is_behind());
    assert_eq!(texts(&mut store, ROMEO, all()).0, "");
    let account = crate::conformance::account(ROMEO);
    let StoreReply::Account(Some(data)) = one(&mut store, account) else {
        panic!("it is there");
    };
    assert_eq!(data.newest_archived, Some(id(5)), "its ids are over");
    // What comes is purged as ever.
    for number in 6..6 + 2 * PART as u64 {
        one(&mut store, sent(ROMEO, JULIET, number, "f"));
    }
    one(&mut store, purge(ROMEO, 99));
    let killed = scratch.killed();
    assert!(open(&killed).is_behind());
    settle(&mut store);
    assert_eq!(records(&store), (2 * 3, 3));
    // Nothing is left of who goes.
    one(&mut store, delete(ROMEO));
    settle(&mut store);
    let archives = store.engine().unwrap().keyspace(Table::Archive);
    assert_eq!(archives.prefix(PURGED).count(), 0);
}

/// Whoever has a tombstone finds it when all others have lost the message.
#[test]
fn what_finds_a_tombstone_stays_where_the_body_goes_first() {
    let scratch = Scratch::new();
    let mut store = open(&scratch);
    for name in [ROMEO, JULIET] {
        one(&mut store, create(name, 1));
    }
    let way = (ROMEO, JULIET);
    for number in [1, 2] {
        for is_sent in [true, false] {
            one(&mut store, said(way, is_sent, number, ("a", None)));
        }
    }
    // She does not hear of it.
    one(&mut store, said(way, true, 3, ("r", Some("a"))));
    one(&mut store, purge(JULIET, 99));
    settle(&mut store);
    one(&mut store, said(way, true, 4, ("s", Some("a"))));
    assert_eq!(
        left(&mut store, ROMEO),
        "a body, a retracted, r retract, s retract"
    );
    one(&mut store, purge(ROMEO, 99));
    settle(&mut store);
    assert_eq!(records(&store), (0, 0));
}

#[test]
fn a_retraction_looks_at_so_many_messages_of_its_id() {
    for (others, expected) in [
        (bodies::CANDIDATES_MAX - 1, "a retracted, r retract"),
        (bodies::CANDIDATES_MAX, "a body, r retract"),
    ] {
        let scratch = Scratch::new();
        let mut store = open(&scratch);
        for name in [ROMEO, JULIET] {
            one(&mut store, create(name, 1));
        }
        let way = (ROMEO, JULIET);
        one(&mut store, said(way, false, 1, ("a", None)));
        // What she did not get.
        for number in 2..2 + others as u64 {
            one(&mut store, said(way, true, number, ("a", None)));
        }
        one(&mut store, said(way, false, 99, ("r", Some("a"))));
        assert_eq!(left(&mut store, JULIET), expected);
    }
}
