//! What every adapter must do, as one suite. It asserts; an adapter's test calls it.

use stanza::jid::{BareJid, LABEL_SIZE_MAX, PART_SIZE_MAX};
use xmpp::Timestamp;
use xmpp::port::{
    AccountData, Credentials, DOCUMENT_NAME_SIZE_MAX, DOCUMENTS_MAX, OfflineQuota, Origin,
    RosterItem, ScramKey, Space, Store, StoreOp, StoreReply, Subscription, WholeAccount,
};

pub(crate) mod agents;
pub(crate) mod archive;
pub(crate) mod nodes;
pub(crate) mod sessions;

/// Runs the whole suite; `make` gives an empty store each time.
///
/// # Panics
/// Where the store does not do what the port says.
pub fn conformance(make: impl Fn() -> Box<dyn Store>) {
    let parts: [fn(&mut dyn Store); 19] = [
        an_account_is_created_once,
        an_account_is_created_whole_or_not_at_all,
        keys_are_replaced_where_there_is_an_account,
        missing_hashes_stay_missing,
        nothing_is_known_of_a_missing_account,
        a_roster_item_is_replaced_as_a_whole,
        removing_an_absent_item_is_no_error,
        rosters_of_similar_names_stay_apart,
        deleting_takes_the_roster_along,
        a_call_sees_its_own_writes,
        replies_are_appended_in_order,
        accounts_are_listed_by_jid_until_told_to_stop,
        a_block_list_is_replaced_whole_and_read_with_the_account,
        documents_are_told_apart_by_kind_and_key,
        the_longest_names_have_room,
        a_document_with_a_longer_name_fails_alone,
        messages_wait_in_order_within_their_quota,
        when_the_newest_that_waits_came_is_known,
        what_is_kept_goes_with_its_account,
    ];
    let parts = parts.into_iter().chain(sessions::PARTS);
    let parts = parts.chain(nodes::PARTS).chain(agents::PARTS);
    for part in parts.chain(archive::PARTS) {
        part(&mut *make());
    }
}

/// A bare JID of the suite's own texts.
pub(crate) fn jid(text: &str) -> BareJid {
    BareJid::parse(text).expect("the suite's JIDs are valid")
}

/// Keys that differ in every byte from those of another `fill`.
pub(crate) fn keys(fill: u8) -> Box<Credentials> {
    let key = |size: usize| {
        Some(ScramKey {
            salt: vec![fill; 16].into(),
            iterations: 4096 + u32::from(fill),
            stored_key: vec![fill; size].into(),
            server_key: vec![!fill; size].into(),
        })
    };
    Box::new(Credentials {
        sha1: key(20),
        sha256: key(32),
        sha512: key(64),
    })
}

/// A roster item with nothing left at its default.
pub(crate) fn full_item(contact: &str) -> RosterItem {
    RosterItem {
        name: "Nurse \u{1f916}".into(),
        groups: vec!["Servants".into(), "Capulet & sons".into()],
        subscription: Subscription::Both,
        ask: true,
        approved: true,
        pending_in: Some(b"<presence type='subscribe'/>"[..].into()),
        listed: true,
        changed: 1_700_000_000_000_000,
        prior: 1_600_000_000_000_000,
        ..RosterItem::new(jid(contact))
    }
}

/// Performs one operation as a call of its own.
pub(crate) fn one(store: &mut dyn Store, op: StoreOp) -> StoreReply {
    let mut replies = Vec::new();
    store.perform(&mut std::iter::once(op), &mut replies);
    assert_eq!(replies.len(), 1, "one operation, one reply");
    replies.remove(0)
}

/// Creates an account with the keys of `fill`.
pub(crate) fn create(account: &str, fill: u8) -> StoreOp {
    StoreOp::CreateAccount {
        account: jid(account),
        credentials: keys(fill),
    }
}

/// Reads an account's keys.
pub(crate) fn credentials(account: &str) -> StoreOp {
    StoreOp::Credentials {
        account: jid(account),
    }
}

/// Reads an account's data.
pub(crate) fn account(account: &str) -> StoreOp {
    StoreOp::Account {
        account: jid(account),
    }
}

/// Room for so many messages of 32 bytes.
pub(crate) fn messages(count: u32) -> OfflineQuota {
    OfflineQuota {
        count,
        size: u64::from(count) * 32,
    }
}

/// Appends a waiting message.
pub(crate) fn wait(account: &str, stanza: &str, count: u32) -> StoreOp {
    StoreOp::PutOffline {
        account: jid(account),
        arrived: Timestamp::default(),
        stanza: stanza.as_bytes().into(),
        quota: messages(count),
        origin: None,
    }
}

/// What waits, as numbers and texts.
pub(crate) fn waiting(store: &mut dyn Store, of: &str) -> Vec<(u64, String)> {
    match one(store, StoreOp::Offline { account: jid(of) }) {
        StoreReply::Offline(found) => found
            .into_iter()
            .map(|(id, (_, stanza))| (id, String::from_utf8_lossy(&stanza).into_owned()))
            .collect(),
        other => panic!("{of} should have messages: {other:?}"),
    }
}

fn document(account: &str, space: Space, key: &str) -> StoreOp {
    StoreOp::Document {
        account: jid(account),
        space,
        key: key.into(),
    }
}

fn put_document(account: &str, space: Space, key: &str, text: &str) -> StoreOp {
    StoreOp::PutDocument {
        account: jid(account),
        space,
        key: key.into(),
        bytes: text.as_bytes().into(),
    }
}

fn block(account: &str, list: &[&str]) -> StoreOp {
    StoreOp::SetBlocked {
        account: jid(account),
        blocked: list.iter().map(|jid| Box::from(*jid)).collect(),
    }
}

/// Inserts or replaces a roster item.
pub(crate) fn put(account: &str, item: RosterItem) -> StoreOp {
    StoreOp::PutRosterItem {
        account: jid(account),
        item: Box::new(item),
    }
}

fn remove(account: &str, contact: &str) -> StoreOp {
    StoreOp::RemoveRosterItem {
        account: jid(account),
        contact: jid(contact),
    }
}

/// Removes an account.
pub(crate) fn delete(account: &str) -> StoreOp {
    StoreOp::DeleteAccount {
        account: jid(account),
    }
}

/// An account's roster by contact, which must exist.
pub(crate) fn roster(store: &mut dyn Store, of: &str) -> Vec<RosterItem> {
    match one(store, account(of)) {
        StoreReply::Account(Some(data)) => {
            let AccountData { mut roster, .. } = *data;
            roster.sort_by(|a, b| a.contact.cmp(&b.contact));
            roster
        }
        other => panic!("{of} should have a roster: {other:?}"),
    }
}

const ROMEO: &str = "romeo@montague.example";
const JULIET: &str = "juliet@capulet.example";

fn an_account_is_created_once(store: &mut dyn Store) {
    assert_eq!(one(store, create(ROMEO, 1)), StoreReply::Done);
    assert_eq!(one(store, create(ROMEO, 2)), StoreReply::Exists);
    assert_eq!(
        one(store, credentials(ROMEO)),
        StoreReply::Credentials(Some(keys(1)))
    );
    assert_eq!(roster(store, ROMEO), []);
}

fn an_account_is_created_whole_or_not_at_all(store: &mut dyn Store) {
    let mut whole = WholeAccount::new(jid(ROMEO), *keys(1));
    whole.data.roster = vec![full_item(JULIET), full_item("nurse@capulet.example")];
    whole.data.blocked = vec!["tybalt@capulet.example".into()];
    let text = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    let named = |number: usize| (Space::Private, format!("{number}").into(), text("x"));
    whole.documents = (0..DOCUMENTS_MAX).map(named).collect();
    whole
        .documents
        .push((Space::Vcard, "".into(), text("card")));
    whole.documents.push((Space::Activity, "".into(), text("")));
    whole.offline = vec![text("a"), text("b")];
    let make = |whole: &WholeAccount| StoreOp::CreateWhole {
        whole: Box::new(whole.clone()),
    };

    let mut overfull = whole.clone();
    overfull.documents.push(named(DOCUMENTS_MAX));
    assert_eq!(one(store, make(&overfull)), StoreReply::Full);
    assert_eq!(one(store, account(ROMEO)), StoreReply::Account(None));
    assert_eq!(one(store, make(&whole)), StoreReply::Done);
    assert_eq!(one(store, create(ROMEO, 2)), StoreReply::Exists);
    let other = WholeAccount::new(jid(ROMEO), *keys(3));
    assert_eq!(one(store, make(&other)), StoreReply::Exists);

    let found = StoreReply::Credentials(Some(keys(1)));
    assert_eq!(one(store, credentials(ROMEO)), found);
    assert_eq!(roster(store, ROMEO), whole.data.roster);
    assert_eq!(blocked(store, ROMEO), whole.data.blocked);
    let card = one(store, document(ROMEO, Space::Vcard, ""));
    assert_eq!(card, StoreReply::Document(Some(text("card"))));
    let activity = one(store, document(ROMEO, Space::Activity, ""));
    assert_eq!(activity, StoreReply::Document(None));
    // The quotas count what came with it.
    let more = put_document(ROMEO, Space::Private, "more", "x");
    assert_eq!(one(store, more), StoreReply::Full);
    assert_eq!(one(store, wait(ROMEO, "c", 2)), StoreReply::Full);
    assert_eq!(one(store, wait(ROMEO, "c", 3)), StoreReply::Done);
    let texts = (1..).zip(["a", "b", "c"].map(str::to_owned));
    assert_eq!(waiting(store, ROMEO), texts.collect::<Vec<_>>());
    // In one call with the end of one of the same name, nothing of which it has.
    let bare = WholeAccount::new(jid(ROMEO), *keys(4));
    let mut replies = Vec::new();
    store.perform(&mut [delete(ROMEO), make(&bare)].into_iter(), &mut replies);
    assert_eq!(replies, [StoreReply::Done, StoreReply::Done]);
    assert_eq!(
        (roster(store, ROMEO), waiting(store, ROMEO)),
        (vec![], vec![])
    );
    let card = one(store, document(ROMEO, Space::Vcard, ""));
    assert_eq!(card, StoreReply::Document(None));
}

fn keys_are_replaced_where_there_is_an_account(store: &mut dyn Store) {
    let set = |fill| StoreOp::SetCredentials {
        account: jid(ROMEO),
        credentials: keys(fill),
        keeps: None,
    };
    assert_eq!(one(store, set(1)), StoreReply::Missing);
    assert_eq!(
        one(store, credentials(ROMEO)),
        StoreReply::Credentials(None)
    );
    assert_eq!(one(store, create(ROMEO, 2)), StoreReply::Done);
    assert_eq!(one(store, put(ROMEO, full_item(JULIET))), StoreReply::Done);
    assert_eq!(one(store, set(3)), StoreReply::Done);
    assert_eq!(
        one(store, credentials(ROMEO)),
        StoreReply::Credentials(Some(keys(3)))
    );
    assert_eq!(
        roster(store, ROMEO),
        [full_item(JULIET)],
        "new keys leave the roster alone"
    );
}

fn missing_hashes_stay_missing(store: &mut dyn Store) {
    let partial = Box::new(Credentials {
        sha256: None,
        sha512: None,
        ..*keys(7)
    });
    let op = StoreOp::CreateAccount {
        account: jid(ROMEO),
        credentials: partial.clone(),
    };
    assert_eq!(one(store, op), StoreReply::Done);
    assert_eq!(
        one(store, credentials(ROMEO)),
        StoreReply::Credentials(Some(partial))
    );
}

fn nothing_is_known_of_a_missing_account(store: &mut dyn Store) {
    assert_eq!(
        one(store, credentials(ROMEO)),
        StoreReply::Credentials(None)
    );
    assert_eq!(one(store, account(ROMEO)), StoreReply::Account(None));
    assert_eq!(
        one(store, put(ROMEO, full_item(JULIET))),
        StoreReply::Missing
    );
    assert_eq!(one(store, remove(ROMEO, JULIET)), StoreReply::Done);
    assert_eq!(one(store, delete(ROMEO)), StoreReply::Missing);
    assert_eq!(one(store, create(ROMEO, 1)), StoreReply::Done);
    assert_eq!(
        roster(store, ROMEO),
        [],
        "a refused item must not appear later"
    );
}

fn a_roster_item_is_replaced_as_a_whole(store: &mut dyn Store) {
    one(store, create(ROMEO, 1));
    assert_eq!(one(store, put(ROMEO, full_item(JULIET))), StoreReply::Done);
    assert_eq!(roster(store, ROMEO), [full_item(JULIET)]);
    let bare = RosterItem::new(jid(JULIET));
    assert_eq!(one(store, put(ROMEO, bare.clone())), StoreReply::Done);
    assert_eq!(
        one(store, put(ROMEO, full_item("nurse@capulet.example"))),
        StoreReply::Done
    );
    assert_eq!(
        roster(store, ROMEO),
        [bare, full_item("nurse@capulet.example")]
    );
}

fn removing_an_absent_item_is_no_error(store: &mut dyn Store) {
    one(store, create(ROMEO, 1));
    one(store, put(ROMEO, full_item(JULIET)));
    assert_eq!(
        one(store, remove(ROMEO, "nurse@capulet.example")),
        StoreReply::Done
    );
    assert_eq!(roster(store, ROMEO), [full_item(JULIET)]);
    assert_eq!(one(store, remove(ROMEO, JULIET)), StoreReply::Done);
    assert_eq!(one(store, remove(ROMEO, JULIET)), StoreReply::Done);
    assert_eq!(roster(store, ROMEO), []);
}

fn rosters_of_similar_names_stay_apart(store: &mut dyn Store) {
    let names = [
        "a@b",
        "a@b.example",
        "a@b.example.net",
        "aa@b",
        "capulet.example",
    ];
    for (fill, name) in (1..).zip(names) {
        assert_eq!(one(store, create(name, fill)), StoreReply::Done);
        let item = RosterItem {
            name: name.into(),
            ..full_item(JULIET)
        };
        assert_eq!(one(store, put(name, item)), StoreReply::Done);
    }
    assert_eq!(one(store, delete("a@b.example")), StoreReply::Done);
    for name in ["a@b", "a@b.example.net", "aa@b", "capulet.example"] {
        let items = roster(store, name);
        assert_eq!(items.len(), 1, "{name} keeps its one contact");
        assert_eq!(&*items[0].name, name, "and sees nobody else's");
    }
}

fn deleting_takes_the_roster_along(store: &mut dyn Store) {
    one(store, create(ROMEO, 1));
    one(store, put(ROMEO, full_item(JULIET)));
    assert_eq!(one(store, delete(ROMEO)), StoreReply::Done);
    assert_eq!(one(store, account(ROMEO)), StoreReply::Account(None));
    assert_eq!(
        one(store, credentials(ROMEO)),
        StoreReply::Credentials(None)
    );
    assert_eq!(one(store, create(ROMEO, 2)), StoreReply::Done);
    assert_eq!(
        roster(store, ROMEO),
        [],
        "the next owner of the name inherits nothing"
    );
}

fn a_call_sees_its_own_writes(store: &mut dyn Store) {
    one(store, create(JULIET, 9));
    one(store, put(JULIET, full_item(ROMEO)));
    let nurse = "nurse@capulet.example";
    let ops = [
        create(ROMEO, 1),
        create(ROMEO, 2),
        credentials(ROMEO),
        put(ROMEO, full_item(JULIET)),
        put(JULIET, full_item(nurse)),
        remove(JULIET, ROMEO),
        account(JULIET),
        delete(ROMEO),
        account(ROMEO),
        put(ROMEO, full_item(JULIET)),
        create(ROMEO, 3),
        account(ROMEO),
    ];
    let mut replies = Vec::new();
    store.perform(&mut ops.into_iter(), &mut replies);
    let of = |roster| {
        StoreReply::Account(Some(Box::new(AccountData {
            roster,
            ..AccountData::default()
        })))
    };
    let expected = [
        StoreReply::Done,
        StoreReply::Exists,
        StoreReply::Credentials(Some(keys(1))),
        StoreReply::Done,
        StoreReply::Done,
        StoreReply::Done,
        of(vec![full_item(nurse)]),
        StoreReply::Done,
        StoreReply::Account(None),
        StoreReply::Missing,
        StoreReply::Done,
        of(vec![]),
    ];
    assert_eq!(replies, expected);
    assert_eq!(
        one(store, credentials(ROMEO)),
        StoreReply::Credentials(Some(keys(3)))
    );
    assert_eq!(
        roster(store, JULIET),
        [full_item(nurse)],
        "the next call sees the same"
    );
}

fn replies_are_appended_in_order(store: &mut dyn Store) {
    let mut replies = vec![StoreReply::Exists];
    let names: Vec<String> = (0..500)
        .map(|index| format!("u{index}@montague.example"))
        .collect();
    store.perform(&mut names.iter().map(|name| create(name, 1)), &mut replies);
    store.perform(&mut names.iter().map(|name| create(name, 2)), &mut replies);
    store.perform(&mut std::iter::empty(), &mut replies);
    assert_eq!(replies.len(), 1 + 2 * names.len());
    assert_eq!(
        replies[0],
        StoreReply::Exists,
        "what was in the vector stays"
    );
    assert!(
        replies[1..=500]
            .iter()
            .all(|reply| *reply == StoreReply::Done)
    );
    assert!(
        replies[501..]
            .iter()
            .all(|reply| *reply == StoreReply::Exists)
    );
}

fn accounts_are_listed_by_jid_until_told_to_stop(store: &mut dyn Store) {
    let mut names: Vec<BareJid> = (0..100)
        .map(|index| jid(&format!("u{}@montague.example", index * 7919 % 100)))
        .collect();
    for name in &names {
        one(store, create(name.as_str(), 1));
    }
    names.sort();
    let mut listed = Vec::new();
    let mut list = |store: &mut dyn Store, most: usize| {
        listed.clear();
        let listing = store.accounts(&mut |account| {
            listed.push(account);
            listed.len() < most
        });
        assert_eq!(listing, Ok(()));
        listed.clone()
    };
    assert_eq!(list(store, usize::MAX), names);
    assert_eq!(list(store, 3), names[..3]);
    one(store, delete(names[1].as_str()));
    assert_eq!(list(store, 2), [names[0].clone(), names[2].clone()]);
    // To name some takes no look at all.
    for (names_max, expected) in [(0, (99, 0)), (5, (5, 5)), (100, (99, 99))] {
        let op = StoreOp::Accounts { names_max };
        let reading = store.reading(&op).map(|reading| reading());
        let answer = one(store, op);
        assert!(reading.is_none_or(|read| read == answer));
        let StoreReply::Accounts { count, names: some } = answer else {
            panic!("{answer:?}");
        };
        assert_eq!((count, some.len()), expected);
        assert!(
            some.iter()
                .all(|name| names.contains(name) && *name != names[1])
        );
    }
}

fn blocked(store: &mut dyn Store, of: &str) -> Vec<Box<str>> {
    match one(store, account(of)) {
        StoreReply::Account(Some(data)) => data.blocked,
        other => panic!("{of} should have a block list: {other:?}"),
    }
}

fn a_block_list_is_replaced_whole_and_read_with_the_account(store: &mut dyn Store) {
    assert_eq!(one(store, block(ROMEO, &["a@b"])), StoreReply::Missing);
    one(store, create(ROMEO, 1));
    assert_eq!(blocked(store, ROMEO), []);
    assert_eq!(
        one(store, block(ROMEO, &["x.example", "a@b/c"])),
        StoreReply::Done
    );
    assert_eq!(blocked(store, ROMEO), ["x.example".into(), "a@b/c".into()]);
    assert_eq!(one(store, block(ROMEO, &[])), StoreReply::Done);
    assert_eq!(blocked(store, ROMEO), []);
}

fn documents_are_told_apart_by_kind_and_key(store: &mut dyn Store) {
    let none = StoreReply::Document(None);
    let some = |text: &str| StoreReply::Document(Some(text.as_bytes().into()));
    assert_eq!(
        one(store, put_document(ROMEO, Space::Vcard, "", "x")),
        StoreReply::Missing
    );
    one(store, create(ROMEO, 1));
    assert_eq!(one(store, document(ROMEO, Space::Private, "a")), none);
    // These are read with the account.
    for space in [Space::Archiving, Space::Push] {
        let put = put_document(ROMEO, space, "", "x");
        assert_eq!(one(store, put), StoreReply::Done);
    }
    let StoreReply::Account(Some(data)) = one(store, account(ROMEO)) else {
        panic!("the account is there");
    };
    let said = [&data.archiving, &data.push].map(|it| it.as_deref());
    assert_eq!(said, [Some(&b"x"[..]); 2]);
    for (space, key, text) in [
        (Space::Private, "a", "1"),
        (Space::Private, "ab", "2"),
        (Space::Vcard, "a", "3"),
    ] {
        assert_eq!(
            one(store, put_document(ROMEO, space, key, text)),
            StoreReply::Done
        );
    }
    assert_eq!(
        one(store, put_document(ROMEO, Space::Private, "a", "4")),
        StoreReply::Done
    );
    assert_eq!(one(store, document(ROMEO, Space::Private, "a")), some("4"));
    assert_eq!(one(store, document(ROMEO, Space::Private, "ab")), some("2"));
    assert_eq!(one(store, document(ROMEO, Space::Vcard, "a")), some("3"));
    assert_eq!(
        one(store, put_document(ROMEO, Space::Private, "a", "")),
        StoreReply::Done
    );
    assert_eq!(one(store, document(ROMEO, Space::Private, "a")), none);
    for index in 1..DOCUMENTS_MAX {
        let put = put_document(ROMEO, Space::Private, &format!("n{index}"), "x");
        assert_eq!(one(store, put), StoreReply::Done);
    }
    assert_eq!(
        one(store, put_document(ROMEO, Space::Private, "more", "x")),
        StoreReply::Full
    );
    assert_eq!(
        one(store, put_document(ROMEO, Space::Private, "ab", "x")),
        StoreReply::Done
    );
}

/// The longest JID with this local part's first letter.
pub(crate) fn longest(letter: &str) -> String {
    let label = letter.repeat(LABEL_SIZE_MAX);
    let labels = vec![label; (PART_SIZE_MAX + 1) / (LABEL_SIZE_MAX + 1)];
    format!("{}@{}", letter.repeat(PART_SIZE_MAX), labels.join("."))
}

fn the_longest_names_have_room(store: &mut dyn Store) {
    let (owner, contact) = (longest("a"), longest("b"));
    let name = "n".repeat(DOCUMENT_NAME_SIZE_MAX);
    let origin = Origin {
        session: sessions::session(&contact, 1),
        number: 1,
        hash: 1,
        is_late: false,
    };
    let message = StoreOp::PutOffline {
        account: jid(&owner),
        arrived: Timestamp::default(),
        stanza: b"<message/>"[..].into(),
        quota: messages(1),
        origin: Some(origin),
    };
    let ops = [
        create(&owner, 1),
        create(&contact, 2),
        put(&owner, full_item(&contact)),
        put_document(&owner, Space::Private, &name, "x"),
        sessions::save(&contact, 1, "orchard"),
        sessions::enqueue(&owner, 2, 1, "y"),
        message,
    ];
    let count = ops.len();
    let mut replies = Vec::new();
    store.perform(&mut ops.into_iter(), &mut replies);
    assert_eq!(replies, vec![StoreReply::Done; count]);
    assert_eq!(roster(store, &owner), [full_item(&contact)]);
    let found = one(store, document(&owner, Space::Private, &name));
    assert_eq!(found, StoreReply::Document(Some(b"x"[..].into())));
    let sender = sessions::stored(store, &contact, 1);
    assert_eq!(sender.map(|stored| stored.marks.len()), Some(1));
}

fn a_document_with_a_longer_name_fails_alone(store: &mut dyn Store) {
    one(store, create(ROMEO, 1));
    for size in [DOCUMENT_NAME_SIZE_MAX + 1, 1 << 16, 70_000, 300_000] {
        let name = "n".repeat(size);
        let mut whole = WholeAccount::new(jid(JULIET), *keys(2));
        whole.documents = vec![(Space::Private, name.clone().into(), b"x"[..].into())];
        let whole = StoreOp::CreateWhole {
            whole: Box::new(whole),
        };
        let ops = [
            wait(ROMEO, "before", 99),
            put_document(ROMEO, Space::Private, &name, "x"),
            document(ROMEO, Space::Private, &name),
            put_document(ROMEO, Space::Private, &name, ""),
            whole,
            put_document(ROMEO, Space::Private, "behind", "y"),
        ];
        let mut replies = Vec::new();
        store.perform(&mut ops.into_iter(), &mut replies);
        let is_failed = |reply: &StoreReply| matches!(reply, StoreReply::Failed(_));
        assert!(replies[1..5].iter().all(is_failed), "{size}: {replies:?}");
        assert_eq!([&replies[0], &replies[5]], [&StoreReply::Done; 2]);
        assert_eq!(one(store, account(JULIET)), StoreReply::Account(None));
    }
    assert_eq!(waiting(store, ROMEO).len(), 4);
}

fn messages_wait_in_order_within_their_quota(store: &mut dyn Store) {
    assert_eq!(one(store, wait(ROMEO, "x", 9)), StoreReply::Missing);
    one(store, create(ROMEO, 1));
    assert_eq!(waiting(store, ROMEO), []);
    let has_waiting = |store: &mut dyn Store| match one(store, account(ROMEO)) {
        StoreReply::Account(Some(data)) => data.newest_waiting.is_some(),
        other => panic!("the account is there: {other:?}"),
    };
    assert!(!has_waiting(store));
    for text in ["a", "b", "c"] {
        assert_eq!(one(store, wait(ROMEO, text, 3)), StoreReply::Done);
    }
    assert_eq!(one(store, wait(ROMEO, "d", 3)), StoreReply::Full);
    let long = "x".repeat(32 * 9);
    let refused = one(store, wait(ROMEO, &long, 9));
    assert_eq!(refused, StoreReply::Full, "its bytes are too many");
    let expected = [
        (1, "a".to_owned()),
        (2, "b".to_owned()),
        (3, "c".to_owned()),
    ];
    assert_eq!(waiting(store, ROMEO), expected);
    let removal = |up_to| StoreOp::RemoveOffline {
        account: jid(ROMEO),
        up_to,
    };
    assert_eq!(one(store, removal(2)), StoreReply::Done);
    assert_eq!(waiting(store, ROMEO), expected[2..]);
    assert!(has_waiting(store));
    assert_eq!(one(store, removal(9)), StoreReply::Done);
    assert_eq!(waiting(store, ROMEO), []);
    assert!(!has_waiting(store));
    // Numbers are never used again, within a call either.
    let mut replies = Vec::new();
    let ops = [
        wait(ROMEO, "e", 2),
        wait(ROMEO, "f", 2),
        wait(ROMEO, "g", 2),
        removal(4),
    ];
    store.perform(&mut ops.into_iter(), &mut replies);
    let done = StoreReply::Done;
    assert_eq!(
        replies,
        [done.clone(), done.clone(), StoreReply::Full, done]
    );
    assert_eq!(waiting(store, ROMEO), [(5, "f".to_owned())]);
    // What goes makes room for as many bytes, whether more of it goes or stays.
    one(store, removal(5));
    let third = "x".repeat(32 * 3);
    let mut last = 5;
    for gone in [1, 2] {
        while one(store, wait(ROMEO, &third, 9)) == StoreReply::Done {
            last += 1;
        }
        assert_eq!(waiting(store, ROMEO).len(), 3, "before {gone} go");
        let up_to = last - 3 + gone;
        assert_eq!(one(store, removal(up_to)), StoreReply::Done);
        for _ in 0..gone {
            assert_eq!(one(store, wait(ROMEO, &third, 9)), StoreReply::Done);
            last += 1;
        }
        assert_eq!(one(store, wait(ROMEO, &third, 9)), StoreReply::Full);
    }
}

fn when_the_newest_that_waits_came_is_known(store: &mut dyn Store) {
    one(store, create(ROMEO, 1));
    let newest = |store: &mut dyn Store| match one(store, account(ROMEO)) {
        StoreReply::Account(Some(data)) => data.newest_waiting.map(|arrived| arrived.0),
        other => panic!("the account is there: {other:?}"),
    };
    // The last one is what a session gives back: it came before the others.
    for (arrived, expected) in [(5, 5), (9, 9), (7, 9)] {
        let StoreOp::PutOffline {
            account,
            stanza,
            quota,
            origin,
            ..
        } = wait(ROMEO, "x", 9)
        else {
            unreachable!("it is one");
        };
        let put = StoreOp::PutOffline {
            account,
            arrived: Timestamp(arrived),
            stanza,
            quota,
            origin,
        };
        assert_eq!(one(store, put), StoreReply::Done);
        assert_eq!(newest(store), Some(expected));
    }
    let removal = |up_to| StoreOp::RemoveOffline {
        account: jid(ROMEO),
        up_to,
    };
    one(store, removal(1));
    assert_eq!(newest(store), Some(9));
    one(store, removal(3));
    assert_eq!(newest(store), None);
    one(store, wait(ROMEO, "x", 9));
    assert_eq!(newest(store), Some(0), "nothing stays of what is gone");
}

fn what_is_kept_goes_with_its_account(store: &mut dyn Store) {
    for account in [ROMEO, JULIET] {
        one(store, create(account, 1));
        one(store, wait(account, "x", 9));
        one(store, block(account, &["a@b"]));
        one(store, put_document(account, Space::Vcard, "", "card"));
    }
    assert_eq!(one(store, delete(ROMEO)), StoreReply::Done);
    one(store, create(ROMEO, 2));
    assert_eq!(
        (waiting(store, ROMEO), blocked(store, ROMEO)),
        (vec![], vec![])
    );
    assert_eq!(
        one(store, document(ROMEO, Space::Vcard, "")),
        StoreReply::Document(None)
    );
    assert_eq!(waiting(store, JULIET).len(), 1);
    assert_eq!(blocked(store, JULIET).len(), 1);
}
