//! What the suite says of archives.

use super::{account, create, delete, jid, keys, one, wait};
use xmpp::Timestamp;
use xmpp::port::{
    ARCHIVE_PAGE_SIZE_MAX, ArchiveEntry, ArchiveId, ArchivePage, ArchiveQuery, Enqueue, Store,
    StoreOp, StoreReply,
};

pub(crate) const PARTS: [fn(&mut dyn Store); 7] = [
    a_page_is_what_was_asked_for_in_its_order,
    who_is_asked_for_by_resource_is_one_of_those_of_the_bare_jid,
    an_id_that_is_not_there_is_missing,
    a_page_ends_with_the_message_that_fills_it,
    what_is_refused_is_not_archived,
    what_was_purged_is_gone_and_its_ids_are_over,
    a_deleted_account_leaves_nothing_to_the_next_of_its_name,
];

pub(crate) const ROMEO: &str = "romeo@a.example";
pub(crate) const JULIET: &str = "juliet@a.example";

pub(crate) fn id(number: u64) -> ArchiveId {
    ArchiveId::new(Timestamp(number), number)
}

fn nothing(of: &str) -> StoreOp {
    StoreOp::Enqueue(Enqueue {
        account: jid(of),
        copies: Vec::new(),
        stanza: Box::default(),
        carbons: Vec::new(),
        shared: None,
        arrived: Timestamp(1),
        origin: None,
    })
}

fn with_entry(of: &str, number: u64, (is_sent, peer): (bool, &str), text: &str) -> StoreOp {
    let entry = ArchiveEntry {
        account: jid(of),
        id: id(number),
        is_sent,
        peer: peer.into(),
        message: text.as_bytes().into(),
    };
    StoreOp::Archive {
        entry: Box::new(entry),
        and: Box::new(nothing(of)),
    }
}

/// Archives what one account sent to a full JID, for the one.
pub(crate) fn sent(from: &str, to: &str, number: u64, text: &str) -> StoreOp {
    with_entry(from, number, (true, to), text)
}

/// The same for the other one.
pub(crate) fn got(to: &str, from: &str, number: u64, text: &str) -> StoreOp {
    with_entry(to, number, (false, from), text)
}

/// All that there is.
pub(crate) fn all() -> ArchiveQuery {
    ArchiveQuery::all(100)
}

pub(crate) fn ask(store: &mut dyn Store, of: &str, query: ArchiveQuery) -> StoreReply {
    let op = StoreOp::ArchivePage {
        account: jid(of),
        query: Box::new(query),
    };
    let read = store.reading(&op);
    let reply = one(store, op);
    if let Some(read) = read {
        assert_eq!(read(), reply, "on another thread it is the same");
    }
    reply
}

pub(crate) fn page(store: &mut dyn Store, of: &str, query: ArchiveQuery) -> ArchivePage {
    match ask(store, of, query) {
        StoreReply::ArchivePage(page) => *page,
        reply => panic!("no page: {reply:?}"),
    }
}

/// The texts of a page, and whether it is complete.
pub(crate) fn texts(store: &mut dyn Store, of: &str, query: ArchiveQuery) -> (String, bool) {
    let page = page(store, of, query);
    let texts = page
        .messages
        .iter()
        .map(|(_, text)| String::from_utf8_lossy(text));
    (texts.collect::<Vec<_>>().join(" "), page.is_complete)
}

pub(crate) fn ends(store: &mut dyn Store, of: &str) -> Option<(ArchiveId, ArchiveId)> {
    let op = StoreOp::ArchiveEnds { account: jid(of) };
    match one(store, op) {
        StoreReply::ArchiveEnds(ends) => ends,
        reply => panic!("no ends: {reply:?}"),
    }
}

pub(crate) fn purge(of: &str, number: u64) -> StoreOp {
    StoreOp::PurgeArchive {
        account: jid(of),
        up_to: id(number),
    }
}

fn newest(store: &mut dyn Store, of: &str) -> Option<ArchiveId> {
    match one(store, account(of)) {
        StoreReply::Account(Some(data)) => data.newest_archived,
        reply => panic!("no account: {reply:?}"),
    }
}

/// Two accounts that wrote to each other, and romeo to himself.
pub(crate) fn fill(store: &mut dyn Store) {
    let both = |from: &'static str, to: &'static str, number: u64, text: &'static str| {
        let (from_phone, to_phone) = (format!("{from}/phone"), format!("{to}/phone"));
        [
            sent(from, &to_phone, number, text),
            got(to, &from_phone, number, text),
        ]
    };
    let ops = [create(ROMEO, 1), create(JULIET, 2)]
        .into_iter()
        .chain(both(ROMEO, JULIET, 1, "a"))
        .chain(both(JULIET, ROMEO, 2, "b"))
        .chain([sent(ROMEO, ROMEO, 3, "c")])
        .chain([got(ROMEO, "nurse@a.example/desk", 4, "d")])
        .chain(both(ROMEO, JULIET, 5, "e"));
    let mut replies = Vec::new();
    let mut ops = ops.collect::<Vec<_>>().into_iter();
    store.perform(&mut ops, &mut replies);
    assert!(replies.iter().all(|reply| *reply == StoreReply::Done));
}

fn a_page_is_what_was_asked_for_in_its_order(store: &mut dyn Store) {
    fill(store);
    let is = |text: &str, is_complete| (text.to_owned(), is_complete);
    let first = |count| ArchiveQuery { count, ..all() };
    let last = |count| ArchiveQuery {
        is_backward: true,
        ..first(count)
    };
    let between = |first, last| ArchiveQuery {
        first: id(first),
        last: id(last),
        ..all()
    };
    let with = |with: &str| ArchiveQuery {
        with: Some(with.into()),
        ..all()
    };
    let ids = |numbers: &[u64]| ArchiveQuery {
        ids: Some(numbers.iter().map(|number| id(*number)).collect()),
        ..all()
    };
    for (query, expected) in [
        (all(), is("a b c d e", true)),
        (first(2), is("a b", false)),
        (first(5), is("a b c d e", true)),
        (last(2), is("d e", false)),
        (last(5), is("a b c d e", true)),
        (between(2, 4), is("b c d", true)),
        (between(4, 2), is("", true)),
        (between(6, 9), is("", true)),
        (with(JULIET), is("a b e", true)),
        (with(ROMEO), is("c", true)),
        (with("nobody@a.example"), is("", true)),
        (ids(&[4, 1, 1]), is("a d", true)),
        (ids(&[]), is("", true)),
    ] {
        assert_eq!(texts(store, ROMEO, query.clone()), expected, "{query:?}");
    }
    let with_last = ArchiveQuery {
        count: 1,
        is_backward: true,
        ..with(JULIET)
    };
    assert_eq!(texts(store, ROMEO, with_last), is("e", false));
    assert_eq!(texts(store, JULIET, all()), is("a b e", true));
    assert_eq!(texts(store, "nobody@a.example", all()), is("", true));
    assert_eq!(ends(store, ROMEO), Some((id(1), id(5))));
    assert_eq!(ends(store, "nobody@a.example"), None);
    assert_eq!(newest(store, JULIET), Some(id(5)));
    let count = page(
        store,
        ROMEO,
        ArchiveQuery {
            count: 0,
            ..with(JULIET)
        },
    );
    assert_eq!((count.count, count.is_complete), (Some(3), false));
    assert!(count.messages.is_empty());
}

fn who_is_asked_for_by_resource_is_one_of_those_of_the_bare_jid(store: &mut dyn Store) {
    fill(store);
    one(store, got(ROMEO, "juliet@a.example/desk", 6, "f"));
    one(store, got(ROMEO, "juliet@a.example.org/desk", 7, "g"));
    let mut with = |with: &str| {
        let query = ArchiveQuery {
            with: Some(with.into()),
            ..all()
        };
        texts(store, ROMEO, query).0
    };
    assert_eq!(with("juliet@a.example"), "a b e f");
    assert_eq!(with("juliet@a.example/desk"), "f");
    assert_eq!(with("juliet@a.example/phone"), "a b e");
    assert_eq!(with("juliet@a.example/x"), "");
}

fn an_id_that_is_not_there_is_missing(store: &mut dyn Store) {
    fill(store);
    for known in [id(6), ArchiveId(id(1).0 + 1), ArchiveId(0)] {
        let known = ArchiveQuery {
            known: vec![id(1), known],
            ..all()
        };
        assert_eq!(ask(store, ROMEO, known), StoreReply::Missing);
    }
    let ids = ArchiveQuery {
        ids: Some(vec![id(1), id(6)]),
        ..all()
    };
    assert_eq!(ask(store, ROMEO, ids), StoreReply::Missing);
    let anothers = ArchiveQuery {
        known: vec![id(4)],
        ..all()
    };
    assert_eq!(ask(store, JULIET, anothers), StoreReply::Missing);
}

fn a_page_ends_with_the_message_that_fills_it(store: &mut dyn Store) {
    let long = "x".repeat(ARCHIVE_PAGE_SIZE_MAX / 2);
    one(store, create(ROMEO, 1));
    for number in 1..=3 {
        one(store, sent(ROMEO, JULIET, number, &long));
    }
    for is_backward in [false, true] {
        let query = ArchiveQuery {
            is_backward,
            ..all()
        };
        let page = page(store, ROMEO, query);
        let ids: Vec<ArchiveId> = page.messages.iter().map(|(id, _)| *id).collect();
        let expected = if is_backward {
            [id(2), id(3)]
        } else {
            [id(1), id(2)]
        };
        assert_eq!((ids, page.is_complete), (expected.to_vec(), false));
    }
}

fn what_is_refused_is_not_archived(store: &mut dyn Store) {
    one(store, create(ROMEO, 1));
    let StoreOp::Archive { entry, .. } = got(ROMEO, JULIET, 1, "a") else {
        panic!("it is archived");
    };
    let mut archive = |and| {
        let (entry, and) = (entry.clone(), Box::new(and));
        one(store, StoreOp::Archive { entry, and })
    };
    assert_eq!(archive(wait(ROMEO, "a", 0)), StoreReply::Full);
    let exists = StoreOp::CreateAccount {
        account: jid(ROMEO),
        credentials: keys(2),
    };
    assert_eq!(archive(exists), StoreReply::Exists);
    assert_eq!(ends(store, ROMEO), None);
    let (entry, and) = (entry.clone(), Box::new(wait(ROMEO, "a", 1)));
    let reply = one(store, StoreOp::Archive { entry, and });
    assert_eq!(reply, StoreReply::Done);
    assert_eq!(ends(store, ROMEO), Some((id(1), id(1))));
}

fn what_was_purged_is_gone_and_its_ids_are_over(store: &mut dyn Store) {
    fill(store);
    assert_eq!(one(store, purge(ROMEO, 2)), StoreReply::Done);
    assert_eq!(texts(store, ROMEO, all()).0, "c d e");
    assert_eq!(texts(store, JULIET, all()).0, "a b e", "what is hers stays");
    assert_eq!(ends(store, ROMEO), Some((id(3), id(5))));
    let known = ArchiveQuery {
        known: vec![id(2)],
        ..all()
    };
    assert_eq!(ask(store, ROMEO, known), StoreReply::Missing);
    one(store, purge(ROMEO, 1));
    assert_eq!(texts(store, ROMEO, all()).0, "c d e");
    one(store, purge(ROMEO, 99));
    assert_eq!(texts(store, ROMEO, all()).0, "");
    assert_eq!(newest(store, ROMEO), Some(id(5)));
    one(store, sent(ROMEO, JULIET, 6, "f"));
    assert_eq!(texts(store, ROMEO, all()).0, "f");
}

fn a_deleted_account_leaves_nothing_to_the_next_of_its_name(store: &mut dyn Store) {
    fill(store);
    one(store, delete(ROMEO));
    one(store, create(ROMEO, 1));
    assert_eq!(
        (texts(store, ROMEO, all()).0, ends(store, ROMEO)),
        (String::new(), None)
    );
    assert_eq!(texts(store, JULIET, all()).0, "a b e");
    one(store, sent(ROMEO, JULIET, 7, "g"));
    for _ in 0..9 {
        store.perform(&mut std::iter::empty(), &mut Vec::new());
    }
    assert_eq!(texts(store, ROMEO, all()).0, "g");
    assert_eq!(texts(store, JULIET, all()).0, "a b e");
}
