//! What the suite says of archives.

use super::{account, create, delete, jid, keys, one, wait};
use stanza::jid::bare_of;
use xmpp::Timestamp;
use xmpp::port::{
    ARCHIVE_PAGE_SIZE_MAX, ArchiveEntry, ArchiveId, ArchivePage, ArchiveQuery, Enqueue, Retention,
    Retraction, Store, StoreOp, StoreReply, SweepPlace, Swept, known_as,
};

pub(crate) const PARTS: [fn(&mut dyn Store); 11] = [
    a_page_is_what_was_asked_for_in_its_order,
    who_is_asked_for_by_resource_is_one_of_those_of_the_bare_jid,
    an_id_that_is_not_there_is_missing,
    a_page_ends_with_the_message_that_fills_it,
    what_is_refused_is_not_archived,
    what_was_purged_is_gone_and_its_ids_are_over,
    a_deleted_account_leaves_nothing_to_the_next_of_its_name,
    what_is_retracted_is_replaced_in_both_archives,
    nobody_retracts_what_another_one_said,
    the_newest_of_an_id_is_retracted_and_a_retraction_is_not,
    what_is_too_old_or_too_much_is_found,
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
        known_as: None,
        retracts: None,
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

/// Archives for one side what a full JID said to another, by an id, perhaps of an earlier one that
/// it retracts.
pub(crate) fn said(
    (from, to): (&str, &str),
    is_sent: bool,
    number: u64,
    (own, retracted): (&str, Option<&str>),
) -> StoreOp {
    let (sender, receiver) = (bare_of(from), bare_of(to));
    let (of, peer) = if is_sent {
        (sender, to)
    } else {
        (receiver, from)
    };
    let content = match retracted {
        Some(id) => format!("<retract xmlns='urn:xmpp:message-retract:1' id='{id}'/>"),
        None => "<body>x</body>".to_owned(),
    };
    let text = format!("<message from='{from}' to='{to}' id='{own}'>{content}</message>");
    let mut op = with_entry(of, number, (is_sent, peer), &text);
    if let StoreOp::Archive { entry, .. } = &mut op {
        entry.known_as = Some(known_as(sender, receiver, own));
        entry.retracts = retracted.map(|id| {
            Box::new(Retraction {
                known_as: known_as(sender, receiver, id),
                id: id.into(),
                by: own.into(),
            })
        });
    }
    op
}

/// What is left of each message of an archive: its sender's id, and what it says.
pub(crate) fn left(store: &mut dyn Store, of: &str) -> String {
    let messages = page(store, of, all()).messages;
    let each = messages.iter().map(|(_, message)| {
        let text = String::from_utf8_lossy(message);
        let id = text
            .split(" id='")
            .nth(1)
            .and_then(|it| it.split('\'').next());
        let says = ["body", "retracted ", "retract "];
        let says = says.iter().find(|name| text.contains(&format!("<{name}")));
        format!(
            "{} {}",
            id.unwrap_or_default(),
            says.map_or("", |name| name.trim())
        )
    });
    each.collect::<Vec<_>>().join(", ")
}

const PHONE: &str = "romeo@a.example/phone";
const DESK: &str = "romeo@a.example/desk";
const BALCONY: &str = "juliet@a.example/balcony";

fn both_say(
    store: &mut dyn Store,
    way: (&str, &str),
    numbers: (u64, u64),
    says: (&str, Option<&str>),
) {
    for (is_sent, number) in [(true, numbers.0), (false, numbers.1)] {
        assert_eq!(
            one(store, said(way, is_sent, number, says)),
            StoreReply::Done
        );
    }
}

fn what_is_retracted_is_replaced_in_both_archives(store: &mut dyn Store) {
    for name in [ROMEO, JULIET] {
        one(store, create(name, 1));
    }
    both_say(store, (PHONE, BALCONY), (1, 1), ("a", None));
    // Her archive had something newer, and gave it an id of its own.
    both_say(store, (PHONE, JULIET), (2, 3), ("b", None));
    both_say(store, (PHONE, JULIET), (4, 4), ("c", None));
    // Whichever of his devices says so.
    both_say(store, (DESK, JULIET), (5, 5), ("r1", Some("a")));
    both_say(store, (DESK, BALCONY), (6, 6), ("r2", Some("b")));
    let expected = "a retracted, b retracted, c body, r1 retract, r2 retract";
    for name in [ROMEO, JULIET] {
        assert_eq!(left(store, name), expected);
        let tombstone = &page(store, name, all()).messages[0].1;
        let text = String::from_utf8_lossy(tombstone);
        assert_eq!(
            text,
            format!(
                "<message from='{PHONE}' to='{BALCONY}' id='a'><retracted \
                 xmlns='urn:xmpp:message-retract:1' id='r1' stamp='1970-01-01T00:00:00Z'/>\
                 </message>"
            )
        );
    }
    // What she does not hear of, her archive does not lose.
    one(store, said((DESK, JULIET), true, 7, ("r0", Some("c"))));
    assert!(left(store, ROMEO).starts_with("a retracted, b retracted, c retracted, r1 retract"));
    assert_eq!(left(store, JULIET), expected);
    // Once more, and what is gone.
    both_say(store, (DESK, JULIET), (8, 8), ("r3", Some("a")));
    one(store, purge(JULIET, 4));
    one(store, said((PHONE, JULIET), false, 9, ("r4", Some("c"))));
    assert_eq!(
        left(store, JULIET),
        "r1 retract, r2 retract, r3 retract, r4 retract"
    );
}

fn nobody_retracts_what_another_one_said(store: &mut dyn Store) {
    for name in [ROMEO, JULIET] {
        one(store, create(name, 1));
    }
    let (room, other) = ("room@rooms.example/a", "room@rooms.example/b");
    both_say(store, (PHONE, BALCONY), (1, 1), ("a", None));
    both_say(store, (BALCONY, PHONE), (2, 2), ("b", None));
    one(store, said((room, BALCONY), false, 3, ("c", None)));
    both_say(store, (BALCONY, PHONE), (4, 4), ("r1", Some("a")));
    one(
        store,
        said(("nurse@a.example/x", BALCONY), false, 5, ("r2", Some("a"))),
    );
    both_say(store, (PHONE, "nurse@a.example"), (6, 6), ("r3", Some("a")));
    // Who is in a room has its bare JID in common with all others who are (XEP-0424 5).
    one(store, said((other, BALCONY), false, 7, ("r4", Some("c"))));
    assert!(left(store, JULIET).starts_with("a body, b body, c body, "));
    assert!(left(store, ROMEO).starts_with("a body, b body, "));
    one(store, said((room, BALCONY), false, 8, ("r5", Some("c"))));
    assert!(left(store, JULIET).starts_with("a body, b body, c retracted, "));
}

fn the_newest_of_an_id_is_retracted_and_a_retraction_is_not(store: &mut dyn Store) {
    one(store, create(ROMEO, 1));
    let way = (PHONE, JULIET);
    for (number, says) in [
        (1, ("a", None)),
        (2, ("a", None)),
        (3, ("r1", Some("a"))),
        (4, ("r2", Some("a"))),
        (5, ("r3", Some("r1"))),
        (6, ("r4", Some("r4"))),
        (7, ("r5", Some("none"))),
    ] {
        one(store, said(way, true, number, says));
    }
    let expected =
        "a body, a retracted, r1 retract, r2 retract, r3 retract, r4 retract, r5 retract";
    assert_eq!(left(store, ROMEO), expected);
}

/// All that is found to go, with what is left of each archive.
fn sweep(store: &mut dyn Store, first: u64, count_max: u32) -> Vec<(String, ArchiveId)> {
    let (mut place, mut found) = (SweepPlace::default(), Vec::new());
    loop {
        let first = ArchiveId::first_at(Timestamp(first));
        let op = StoreOp::SweepArchives {
            place,
            retention: Retention { first, count_max },
        };
        let StoreReply::Swept(swept) = one(store, op) else {
            panic!("nothing was searched");
        };
        let Swept { excess, next, .. } = *swept;
        if let Some((account, up_to)) = excess {
            found.push((account.as_str().to_owned(), up_to));
            one(store, StoreOp::PurgeArchive { account, up_to });
        }
        match next {
            Some(next) => place = next,
            None => {
                found.sort();
                return found;
            }
        }
    }
}

fn what_is_too_old_or_too_much_is_found(store: &mut dyn Store) {
    fill(store);
    let found = |name: &str, number| (name.to_owned(), id(number));
    assert_eq!(sweep(store, 0, 0), []);
    assert_eq!(sweep(store, 1, 5), []);
    assert_eq!(sweep(store, 2, 4), [found(JULIET, 1), found(ROMEO, 1)]);
    assert_eq!(sweep(store, 2, 4), []);
    assert_eq!(sweep(store, 0, 3), [found(ROMEO, 2)]);
    assert_eq!(texts(store, ROMEO, all()).0, "c d e");
    assert_eq!(texts(store, JULIET, all()).0, "b e");
    assert_eq!(sweep(store, 9, 1), [found(JULIET, 5), found(ROMEO, 5)]);
    assert_eq!(texts(store, ROMEO, all()).0, "");
    assert_eq!(sweep(store, 9, 1), []);
}
