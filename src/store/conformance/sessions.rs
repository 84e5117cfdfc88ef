//! What every adapter must do with managed sessions.

use stanza::jid::virtual_shard;
use xmpp::Timestamp;
use xmpp::port::{
    Arrived, Enqueue, OfflineQuota, Origin, QueuePlace, QueuedStanza, SavedSession, SessionId,
    SharedStanza, Store, StoreOp, StoreReply, StoredSession,
};

use super::{JULIET, ROMEO, create, delete, jid, messages, one, wait, waiting};

/// The parts of the suite.
pub(super) const PARTS: [fn(&mut dyn Store); 10] = [
    a_session_is_read_as_it_was_written,
    nothing_is_known_of_a_missing_session,
    what_is_acknowledged_goes_and_the_rest_keeps_its_places,
    what_is_shared_says_who_has_it_and_whether_one_took_it,
    renumbering_keeps_what_it_names_and_nothing_else,
    marks_say_what_took_effect_and_go_with_their_session,
    what_a_session_leaves_waits_before_what_came_later,
    what_waits_is_claimed_by_one_session_in_one_commit,
    sessions_are_named_with_their_accounts,
    sessions_go_with_their_account,
];

/// A session of an account.
pub(crate) fn session(account: &str, secret: u128) -> SessionId {
    SessionId {
        home: virtual_shard(account),
        secret,
    }
}

/// A session's saved state with nothing left at its default.
pub(crate) fn saved(resource: &str) -> SavedSession {
    SavedSession {
        resource: resource.into(),
        priority: -7,
        available: true,
        was_seen: true,
        interested: true,
        blocking: true,
        gets_copies: true,
        presence: Some((b"<presence/>"[..].into(), 10)),
        directed: vec!["room@muc.example/nick".into(), JULIET.into()],
        strangers: vec!["paris@b.example/hall".into()],
    }
}

/// Inserts or replaces a session.
pub(crate) fn save(account: &str, secret: u128, resource: &str) -> StoreOp {
    StoreOp::PutSession {
        account: jid(account),
        session: session(account, secret),
        saved: Box::new(saved(resource)),
    }
}

/// Appends to the queue of one session; places and numbers are the same.
pub(crate) fn enqueue(account: &str, secret: u128, place: u64, stanza: &str) -> StoreOp {
    StoreOp::Enqueue(Enqueue {
        account: jid(account),
        copies: vec![QueuePlace {
            session: session(account, secret),
            place,
            number: Some(place as u32),
        }],
        stanza: stanza.as_bytes().into(),
        carbons: Vec::new(),
        shared: None,
        arrived: ARRIVED,
        origin: None,
    })
}

/// Removes what lies between two places of a session's queue.
pub(crate) fn dequeue(account: &str, secret: u128, from: u64, to: u64) -> StoreOp {
    StoreOp::Dequeue {
        account: jid(account),
        session: session(account, secret),
        from,
        to,
    }
}

/// Gives new numbers to what a session's queue has up to a place.
pub(crate) fn renumber(
    account: &str,
    secret: u128,
    numbers: Vec<(u64, u32)>,
    up_to: u64,
) -> StoreOp {
    StoreOp::Renumber {
        account: jid(account),
        session: session(account, secret),
        numbers,
        up_to,
    }
}

/// Ends a session that leaves nothing.
pub(crate) fn end(account: &str, secret: u128) -> StoreOp {
    StoreOp::EndSession {
        account: jid(account),
        session: session(account, secret),
        waiting: Vec::new(),
        quota: messages(0),
    }
}

/// When the stanzas of these tests came.
pub(crate) const ARRIVED: Timestamp = Timestamp(1_700_000_000_000_000);

/// Reads a session.
pub(crate) fn stored(store: &mut dyn Store, account: &str, secret: u128) -> Option<StoredSession> {
    let op = StoreOp::Session {
        account: jid(account),
        session: session(account, secret),
    };
    match one(store, op) {
        StoreReply::Session(found) => found.map(|found| *found),
        other => panic!("{account} should have sessions: {other:?}"),
    }
}

/// A session's queue as places, numbers and texts.
pub(crate) fn queue(store: &mut dyn Store, account: &str, secret: u128) -> Vec<(u64, u32, String)> {
    let found = stored(store, account, secret).expect("there is such a session");
    let text = |stanza: Box<[u8]>| String::from_utf8_lossy(&stanza).into_owned();
    found
        .queue
        .into_iter()
        .map(
            |QueuedStanza {
                 place,
                 number,
                 stanza,
                 ..
             }| (place, number.expect("it has one"), text(stanza)),
        )
        .collect()
}

fn done(store: &mut dyn Store, op: StoreOp) {
    assert_eq!(one(store, op.clone()), StoreReply::Done, "{op:?}");
}

fn a_session_is_read_as_it_was_written(store: &mut dyn Store) {
    assert_eq!(one(store, save(ROMEO, 1, "orchard")), StoreReply::Missing);
    done(store, create(ROMEO, 1));
    done(store, save(ROMEO, 1, "orchard"));
    let fresh = StoredSession {
        saved: saved("orchard"),
        handled: 0,
        queue: Vec::new(),
        marks: Vec::new(),
    };
    assert_eq!(stored(store, ROMEO, 1), Some(fresh));
    let handled = |handled| StoreOp::PutHandled {
        account: jid(ROMEO),
        session: session(ROMEO, 1),
        handled,
    };
    done(store, handled(3));
    done(store, handled(u64::from(u32::MAX) + 9));
    done(store, enqueue(ROMEO, 1, 1, "<message/>"));
    // Saving it again changes nothing of these.
    done(store, save(ROMEO, 1, "balcony"));
    let found = stored(store, ROMEO, 1).expect("it was saved");
    assert_eq!(found.saved, saved("balcony"));
    assert_eq!(found.handled, u64::from(u32::MAX) + 9);
    assert_eq!(found.queue.len(), 1);
}

fn nothing_is_known_of_a_missing_session(store: &mut dyn Store) {
    assert_eq!(stored(store, ROMEO, 1), None);
    done(store, create(ROMEO, 1));
    assert_eq!(stored(store, ROMEO, 1), None);
    done(store, end(ROMEO, 1));
    done(store, dequeue(ROMEO, 1, 1, 9));
    assert_eq!(stored(store, ROMEO, 1), None);
    assert_eq!(one(store, StoreOp::Sessions), StoreReply::Sessions(vec![]));
}

fn what_is_acknowledged_goes_and_the_rest_keeps_its_places(store: &mut dyn Store) {
    done(store, create(ROMEO, 1));
    done(store, save(ROMEO, 1, "a"));
    done(store, save(ROMEO, 2, "b"));
    let places = [(1, 1, 10), (2, 1, 20), (2, 2, 21)];
    let [one_copy, another, wrapped] = places.map(|(secret, place, number)| QueuePlace {
        session: session(ROMEO, secret),
        place,
        number: Some(number),
    });
    done(
        store,
        StoreOp::Enqueue(Enqueue {
            account: jid(ROMEO),
            copies: vec![one_copy, another],
            stanza: b"both"[..].into(),
            carbons: vec![(wrapped, b"wrapped"[..].into())],
            shared: None,
            arrived: ARRIVED,
            origin: None,
        }),
    );
    for place in 2..=300 {
        done(store, enqueue(ROMEO, 1, place, &place.to_string()));
    }
    let both = [(1, 20, "both".to_owned()), (2, 21, "wrapped".to_owned())];
    assert_eq!(queue(store, ROMEO, 2), both);
    let all = queue(store, ROMEO, 1);
    assert_eq!(all[0], (1, 10, "both".to_owned()));
    assert!(all.is_sorted() && all.len() == 300);
    // Within one call, behind what it appends itself.
    let mut replies = Vec::new();
    let ops = [
        enqueue(ROMEO, 1, 301, "301"),
        dequeue(ROMEO, 1, 1, 298),
        enqueue(ROMEO, 1, 302, "302"),
        dequeue(ROMEO, 1, 301, 301),
    ];
    store.perform(&mut ops.into_iter(), &mut replies);
    assert_eq!(replies, [const { StoreReply::Done }; 4]);
    let left = [299, 300, 302].map(|place| (u64::from(place), place, place.to_string()));
    assert_eq!(queue(store, ROMEO, 1), left);
    assert_eq!(queue(store, ROMEO, 2).len(), 2, "the other's queue stays");
    done(store, end(ROMEO, 1));
    assert_eq!(stored(store, ROMEO, 1), None);
    done(store, save(ROMEO, 1, "a"));
    assert_eq!(queue(store, ROMEO, 1), [], "its queue went with it");
}

/// Appends to the queues of several sessions, where it has this place.
pub(crate) fn share(account: &str, secrets: &[u128], place: u64, stanza: &str) -> StoreOp {
    let copies = secrets.iter().map(|secret| QueuePlace {
        session: session(account, *secret),
        place,
        number: Some(place as u32),
    });
    StoreOp::Enqueue(Enqueue {
        account: jid(account),
        copies: copies.collect(),
        stanza: stanza.as_bytes().into(),
        carbons: Vec::new(),
        shared: Some(SharedStanza {
            group: place,
            members: secrets.len() as u32,
            holders: 0,
        }),
        arrived: ARRIVED,
        origin: None,
    })
}

/// What a session's queue shares, as places, members and holders.
fn shared(store: &mut dyn Store, account: &str, secret: u128) -> Vec<(u64, u32, u32)> {
    let found = stored(store, account, secret).expect("there is such a session");
    let shared = found.queue.iter().filter_map(|queued| {
        let shared = queued.shared?;
        assert_eq!(shared.group, queued.place);
        Some((queued.place, shared.members, shared.holders))
    });
    shared.collect()
}

fn what_is_shared_says_who_has_it_and_whether_one_took_it(store: &mut dyn Store) {
    done(store, create(ROMEO, 1));
    for (secret, resource) in [(1, "a"), (2, "b"), (3, "c")] {
        done(store, save(ROMEO, secret, resource));
    }
    done(store, share(ROMEO, &[1, 2, 3], 1, "<message id='1'/>"));
    done(store, enqueue(ROMEO, 1, 2, "<message id='2'/>"));
    done(store, share(ROMEO, &[1, 3], 3, "<message id='3'/>"));
    assert_eq!(shared(store, ROMEO, 1), [(1, 3, 3), (3, 2, 2)]);
    assert_eq!(shared(store, ROMEO, 2), [(1, 3, 3)]);
    // Its client took it.
    done(store, dequeue(ROMEO, 2, 1, 1));
    done(store, end(ROMEO, 2));
    assert_eq!(shared(store, ROMEO, 1), [(1, 3, 2), (3, 2, 2)]);
    // Its client took none.
    done(store, end(ROMEO, 3));
    assert_eq!(shared(store, ROMEO, 1), [(1, 2, 1), (3, 1, 1)]);
    let numbers = vec![(1, 7), (3, 8)];
    done(store, renumber(ROMEO, 1, numbers, 5));
    assert_eq!(shared(store, ROMEO, 1), [(1, 2, 1), (3, 1, 1)]);
}

fn renumbering_keeps_what_it_names_and_nothing_else(store: &mut dyn Store) {
    done(store, create(ROMEO, 1));
    done(store, save(ROMEO, 1, "a"));
    for (place, text) in [(1, "a"), (2, "b"), (3, "c")] {
        done(store, enqueue(ROMEO, 1, place, text));
    }
    let copy = QueuePlace {
        session: session(ROMEO, 1),
        place: 4,
        number: None,
    };
    let unnumbered = StoreOp::Enqueue(Enqueue {
        account: jid(ROMEO),
        copies: vec![copy],
        stanza: b"d"[..].into(),
        carbons: Vec::new(),
        shared: None,
        arrived: ARRIVED,
        origin: None,
    });
    done(store, unnumbered);
    let before = stored(store, ROMEO, 1).expect("it is saved").queue;
    let before: Vec<_> = before.iter().map(|queued| queued.number).collect();
    assert_eq!(before, [Some(1), Some(2), Some(3), None]);
    // What lies behind all that the session knows of stays.
    done(store, enqueue(ROMEO, 1, 6, "f"));
    let numbers = vec![(2, 7), (4, 8), (5, 9)];
    done(store, renumber(ROMEO, 1, numbers, 5));
    let expected = [(2, 7, "b"), (4, 8, "d"), (6, 6, "f")];
    let expected = expected.map(|(place, number, text)| (place, number, text.to_owned()));
    assert_eq!(queue(store, ROMEO, 1), expected);
}

fn marks_say_what_took_effect_and_go_with_their_session(store: &mut dyn Store) {
    for account in [ROMEO, JULIET] {
        done(store, create(account, 1));
    }
    done(store, save(ROMEO, 1, "a"));
    done(store, save(ROMEO, 2, "b"));
    let from = |secret, number| {
        Some(Origin {
            session: session(ROMEO, secret),
            number,
            hash: 100 + number,
            is_late: false,
        })
    };
    let queued = |account: &str, origin| {
        StoreOp::Enqueue(Enqueue {
            account: jid(account),
            copies: Vec::new(),
            stanza: b"<message/>"[..].into(),
            carbons: Vec::new(),
            shared: None,
            arrived: ARRIVED,
            origin,
        })
    };
    let kept = |account: &str, count, origin| StoreOp::PutOffline {
        account: jid(account),
        arrived: ARRIVED,
        stanza: b"<message/>"[..].into(),
        quota: messages(count),
        origin,
    };
    done(store, queued(JULIET, from(1, 5)));
    done(store, queued(JULIET, from(1, 7)));
    done(store, queued(ROMEO, from(1, 6)));
    done(store, kept(JULIET, 1, from(2, 9)));
    assert_eq!(
        one(store, kept(JULIET, 1, from(2, 10))),
        StoreReply::Full,
        "what is refused marks nothing"
    );
    done(store, queued(JULIET, from(2, 11)));
    let marks = |store: &mut dyn Store, secret| {
        let mut marks = stored(store, ROMEO, secret).expect("it is saved").marks;
        marks.sort_by(|a, b| a.receiver.cmp(&b.receiver));
        assert!(marks.iter().all(|mark| mark.hash == 100 + mark.last));
        let of = marks.into_iter().map(|mark| (mark.receiver, mark.last));
        of.collect::<Vec<_>>()
    };
    assert_eq!(marks(store, 1), [(jid(JULIET), 7), (jid(ROMEO), 6)]);
    assert_eq!(marks(store, 2), [(jid(JULIET), 11)]);
    let failed = &stored(store, ROMEO, 2).expect("it is saved").marks[0].failed;
    assert_eq!(*failed, [10], "nor does a later mark cover it");
    // What it sent last may be handled behind its end.
    let mut replies = Vec::new();
    let ops = [end(ROMEO, 1), queued(JULIET, from(1, 8))];
    store.perform(&mut ops.into_iter(), &mut replies);
    assert_eq!(replies, [StoreReply::Done, StoreReply::Done]);
    done(store, kept(ROMEO, 1, from(1, 9)));
    done(store, save(ROMEO, 1, "a"));
    assert_eq!(marks(store, 1), []);
    assert_eq!(marks(store, 2).len(), 1);
    done(store, queued(JULIET, from(1, 1)));
    assert_eq!(marks(store, 1), [(jid(JULIET), 1)]);
}

fn what_a_session_leaves_waits_before_what_came_later(store: &mut dyn Store) {
    done(store, create(ROMEO, 1));
    let put = |time, text: &str| StoreOp::PutOffline {
        account: jid(ROMEO),
        arrived: Timestamp(time),
        stanza: text.as_bytes().into(),
        quota: messages(9),
        origin: None,
    };
    let claim = |secret| StoreOp::ClaimOffline {
        account: jid(ROMEO),
        session: session(ROMEO, secret),
        place: 1,
        number: Some(1),
    };
    let leave = |secret, messages: &[Arrived]| StoreOp::EndSession {
        account: jid(ROMEO),
        session: session(ROMEO, secret),
        waiting: messages.to_vec(),
        quota: OfflineQuota::UNLIMITED,
    };
    let message = |time, text: &str| (Timestamp(time), text.as_bytes().into());
    for secret in [1, 2] {
        done(store, save(ROMEO, secret, "a"));
    }
    done(store, put(10, "a"));
    let claimed = StoreReply::Offline(vec![(1, message(10, "a"))]);
    assert_eq!(one(store, claim(1)), claimed);
    let queued = &stored(store, ROMEO, 1).expect("it is saved").queue[0];
    assert!(queued.has_waited && queued.arrived == Timestamp(10));
    done(store, put(30, "c"));
    done(store, put(40, "d"));
    done(store, leave(1, &[message(10, "a"), message(20, "b")]));
    let texts = |found: Vec<(u64, String)>| found.into_iter().map(|(_, text)| text);
    let texts = |store: &mut dyn Store| texts(waiting(store, ROMEO)).collect::<Vec<_>>();
    assert_eq!(texts(store), ["a", "b", "c", "d"]);
    // Who reads them gets them so, and all of them.
    let StoreReply::Offline(claimed) = one(store, claim(2)) else {
        panic!("they are claimed")
    };
    let order: Vec<_> = claimed
        .iter()
        .map(|(place, (time, _))| (*place, time.0))
        .collect();
    assert_eq!(order, [(1, 10), (2, 20), (3, 30), (4, 40)]);
    assert_eq!(texts(store), [""; 0]);
}

fn what_waits_is_claimed_by_one_session_in_one_commit(store: &mut dyn Store) {
    done(store, create(ROMEO, 1));
    done(store, save(ROMEO, 1, "a"));
    for text in ["x", "y", "z"] {
        done(store, wait(ROMEO, text, 3));
    }
    done(store, enqueue(ROMEO, 1, 1, "live"));
    let live = &stored(store, ROMEO, 1).expect("it is saved").queue[0];
    assert_eq!(live.arrived, ARRIVED, "the time is kept");
    let claim = |place, number| StoreOp::ClaimOffline {
        account: jid(ROMEO),
        session: session(ROMEO, 1),
        place,
        number: Some(number),
    };
    let claimed = [(2, "x"), (3, "y"), (4, "z")]
        .map(|(place, text)| (place, (Timestamp::default(), text.as_bytes().into())));
    assert_eq!(
        one(store, claim(2, u32::MAX)),
        StoreReply::Offline(claimed.to_vec())
    );
    assert_eq!(waiting(store, ROMEO), []);
    let expected = [(1, 1, "live"), (2, u32::MAX, "x"), (3, 0, "y"), (4, 1, "z")];
    let expected = expected.map(|(place, number, text)| (place, number, text.to_owned()));
    assert_eq!(queue(store, ROMEO, 1), expected);
    assert_eq!(one(store, claim(5, 2)), StoreReply::Offline(vec![]));
    // A session that ends and leaves more than the account has room for stays as it is.
    let leaving = |most, count| StoreOp::EndSession {
        account: jid(ROMEO),
        session: session(ROMEO, 1),
        waiting: vec![(ARRIVED, b"left"[..].into()); count],
        quota: messages(most),
    };
    assert_eq!(one(store, leaving(2, 3)), StoreReply::Room(2));
    assert!(stored(store, ROMEO, 1).is_some());
    assert_eq!(waiting(store, ROMEO), []);
    // One that ends leaves what it was sent to its account, in the same commit.
    done(store, leaving(1, 1));
    assert_eq!(stored(store, ROMEO, 1), None);
    assert_eq!(waiting(store, ROMEO), [(4, "left".to_owned())]);
    done(store, leaving(9, 1));
    assert_eq!(waiting(store, ROMEO).len(), 1, "once");
    // So does one that was never saved and has a queue; once, too.
    done(store, enqueue(ROMEO, 1, 1, "live"));
    for _ in 0..2 {
        done(store, leaving(9, 1));
        assert_eq!(waiting(store, ROMEO).len(), 2);
    }
    done(
        store,
        StoreOp::RemoveOffline {
            account: jid(ROMEO),
            up_to: 5,
        },
    );
    // The quota is free again, and numbers are not used twice.
    for text in ["x", "y", "z"] {
        done(store, wait(ROMEO, text, 3));
    }
    assert_eq!(waiting(store, ROMEO)[0].0, 6);
}

fn sessions_are_named_with_their_accounts(store: &mut dyn Store) {
    let names = ["a@b", "a@b.example", "aa@b", ROMEO, JULIET];
    let mut expected = Vec::new();
    for (fill, name) in (1..).zip(names) {
        done(store, create(name, fill));
        for secret in [u128::from(fill), u128::MAX - u128::from(fill)] {
            done(store, save(name, secret, "a"));
            done(store, enqueue(name, secret, 1, "<message/>"));
            expected.push((jid(name), session(name, secret)));
        }
    }
    // A count alone is no session.
    done(
        store,
        StoreOp::PutHandled {
            account: jid(ROMEO),
            session: session(ROMEO, 99),
            handled: 1,
        },
    );
    let StoreReply::Sessions(mut found) = one(store, StoreOp::Sessions) else {
        panic!("sessions were asked for");
    };
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

fn sessions_go_with_their_account(store: &mut dyn Store) {
    for account in [ROMEO, JULIET] {
        done(store, create(account, 1));
        done(store, save(account, 1, "a"));
        done(store, enqueue(account, 1, 1, "<message/>"));
    }
    // One that lost its own record.
    done(store, enqueue(ROMEO, 2, 1, "<message/>"));
    done(
        store,
        StoreOp::Enqueue(Enqueue {
            account: jid(JULIET),
            copies: Vec::new(),
            stanza: b"<message/>"[..].into(),
            carbons: Vec::new(),
            shared: None,
            arrived: ARRIVED,
            origin: Some(Origin {
                session: session(ROMEO, 1),
                number: 1,
                hash: 0,
                is_late: false,
            }),
        }),
    );
    done(store, delete(ROMEO));
    assert_eq!(stored(store, ROMEO, 1), None);
    done(store, create(ROMEO, 2));
    // Its shard has forgotten it only now; it leaves nothing to who has the name.
    let late = StoreOp::EndSession {
        account: jid(ROMEO),
        session: session(ROMEO, 1),
        waiting: vec![(ARRIVED, b"left"[..].into())],
        quota: messages(9),
    };
    done(store, late);
    assert_eq!(waiting(store, ROMEO), []);
    for secret in [1, 2] {
        done(store, save(ROMEO, secret, "a"));
        let found = stored(store, ROMEO, secret).expect("it was saved");
        assert_eq!((found.queue.len(), found.marks.len()), (0, 0));
    }
    assert_eq!(queue(store, JULIET, 1).len(), 1);
}
