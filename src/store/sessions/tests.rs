//! What a damaged record of a session is told from.

use xmpp::port::{Store, StoreOp, StoreReply};

use super::*;
use crate::Embedded;
use crate::conformance::sessions::{save, session, stored};
use crate::conformance::{create, jid, one};
use crate::crash::Scratch;

const NAME: &str = "a@b.example";

/// A session of the account, and what a record of it is damaged by.
fn damages() -> Vec<(Table, Key)> {
    let mut mark = marks_prefix(session(NAME, 1));
    mark.extend_from_slice(NAME.as_bytes());
    vec![
        (Table::Sessions, key(&jid(NAME), HANDLED, 1)),
        (Table::Queue, queue_key(&jid(NAME), 1, 1)),
        (Table::Queue, mark),
    ]
}

/// A later try would meet the same, and whoever asks is to know that.
#[test]
fn a_session_is_damaged_where_a_record_of_it_is_and_the_others_are_not() {
    for (table, key) in damages() {
        let scratch = Scratch::new();
        let mut store = Embedded::open(&scratch.0).unwrap();
        one(&mut store, create(NAME, 1));
        one(&mut store, save(NAME, 1, "orchard"));
        one(&mut store, save(NAME, 2, "balcony"));
        drop(store);
        let store = Embedded::open(&scratch.0).unwrap();
        let keyspace = store.engine().unwrap().keyspace(table).clone();
        keyspace.insert(&key[..], b"\x63future record").unwrap();
        let mut store: Box<dyn Store> = Box::new(Embedded::open(&scratch.killed().0).unwrap());
        let read = StoreOp::Session {
            account: jid(NAME),
            session: session(NAME, 1),
        };
        for _ in 0..2 {
            let reply = one(&mut *store, read.clone());
            assert!(matches!(reply, StoreReply::Damaged(_)), "{reply:?}");
        }
        assert!(stored(&mut *store, NAME, 2).is_some());
    }
}
