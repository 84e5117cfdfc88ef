//! The fifty newest messages of one archive, out of as many as `ARCHIVE` says: a million, unless it
//! says otherwise.

use criterion::{Criterion, criterion_group, criterion_main};
use stanza::jid::{BareJid, bare_of};
use std::hint::black_box;
use store::Embedded;
use xmpp::Timestamp;
use xmpp::port::{
    ArchiveEntry, ArchiveId, ArchiveQuery, Credentials, Enqueue, Store, StoreOp, StoreReply,
    known_as,
};

/// Messages of one commit.
const BATCH: u64 = 1_024;

/// Whom they are with.
const PEERS: u64 = 50;

fn owner() -> BareJid {
    BareJid::parse("owner@bench.localhost").expect("a bench's names are good")
}

fn message(number: u64) -> StoreOp {
    let peer = format!("peer{}@bench.localhost/phone", number % PEERS);
    let body = "x".repeat(120);
    let text = format!(
        "<message from='{peer}' to='owner@bench.localhost' type='chat' id='m{number}'>\
         <body>{body}</body></message>"
    );
    let entry = ArchiveEntry {
        account: owner(),
        // A minute apart, and as random as ids are.
        id: ArchiveId::new(
            Timestamp(number * 60_000_000),
            number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ),
        is_sent: false,
        message: text.into_bytes().into(),
        known_as: Some(known_as(
            bare_of(&peer),
            "owner@bench.localhost",
            &format!("m{number}"),
        )),
        retracts: None,
        peer: peer.into(),
    };
    let nothing = Enqueue {
        account: owner(),
        copies: Vec::new(),
        stanza: Box::default(),
        carbons: Vec::new(),
        shared: None,
        arrived: Timestamp(0),
        origin: None,
    };
    StoreOp::Archive {
        entry: Box::new(entry),
        and: Box::new(StoreOp::Enqueue(nothing)),
    }
}

fn page(with: Option<&str>) -> StoreOp {
    StoreOp::ArchivePage {
        account: owner(),
        query: Box::new(ArchiveQuery {
            with: with.map(Box::from),
            is_backward: true,
            ..ArchiveQuery::all(50)
        }),
    }
}

fn archive(criterion: &mut Criterion) {
    let count = std::env::var("ARCHIVE").map_or(Ok(1_000_000), |count| count.parse());
    let count: u64 = count.expect("ARCHIVE is a number of messages");
    let directory = std::env::temp_dir().join(format!("vorpal-archive-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
    let mut store = Embedded::open(&directory).expect("a new store opens");
    let create = StoreOp::CreateAccount {
        account: owner(),
        credentials: Box::new(Credentials::default()),
    };
    store.perform(&mut std::iter::once(create), &mut Vec::new());
    for first in (0..count).step_by(BATCH as usize) {
        let mut ops = (first..count.min(first + BATCH)).map(message);
        store.perform(&mut ops, &mut Vec::new());
    }
    let mut group = criterion.benchmark_group("archive");
    for (name, with) in [
        ("fifty newest", None),
        ("fifty newest with one", Some("peer7@bench.localhost")),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let read = store.reading(&page(with)).expect("it reads beside commits");
                let StoreReply::ArchivePage(page) = black_box(read()) else {
                    panic!("a page is there");
                };
                assert_eq!(page.messages.len(), 50.min(count as usize));
            });
        });
    }
    group.finish();
    drop(store);
    let _best_effort = std::fs::remove_dir_all(&directory);
}

criterion_group!(benches, archive);
criterion_main!(benches);
