//! Archives on disk: what lies there, and what a kill, a purge and an upgrade leave of it.

use super::*;
use crate::Embedded;
use crate::backup::Backup;
use crate::conformance::agents::{agent, put};
use crate::conformance::archive::{
    JULIET, ROMEO, all, ends, fill, got, id, page, purge, sent, texts,
};
use crate::conformance::nodes::{change, full_node};
use crate::conformance::{create, delete, jid, one};
use crate::crash::Scratch;
use xmpp::port::Store;

fn open(scratch: &Scratch) -> Embedded {
    Embedded::open(&scratch.0).unwrap()
}

/// How many records there are: of rows, and of bodies.
fn records(store: &Embedded) -> (usize, usize) {
    let engine = store.engine().unwrap();
    let (mut rows, mut bodies) = (0, 0);
    for entry in engine.keyspace(Table::Archive).iter() {
        let key = entry.key().unwrap();
        match key[..2] == PURGED {
            true => {}
            false if key[2] == 0 => bodies += 1,
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
