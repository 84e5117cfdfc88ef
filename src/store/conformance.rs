//! What every adapter must do, as one suite. It asserts; an adapter's test calls it.

use stanza::jid::BareJid;
use xmpp::port::{
    AccountData, Credentials, RosterItem, ScramKey, Store, StoreOp, StoreReply, Subscription,
};

/// Runs the whole suite; `make` gives an empty store each time.
///
/// # Panics
/// Where the store does not do what the port says.
pub fn conformance(make: impl Fn() -> Box<dyn Store>) {
    let parts: [fn(&mut dyn Store); 11] = [
        an_account_is_created_once,
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
    ];
    for part in parts {
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

fn delete(account: &str) -> StoreOp {
    StoreOp::DeleteAccount {
        account: jid(account),
    }
}

/// An account's roster by contact, which must exist.
pub(crate) fn roster(store: &mut dyn Store, of: &str) -> Vec<RosterItem> {
    match one(store, account(of)) {
        StoreReply::Account(Some(data)) => {
            let AccountData { mut roster } = *data;
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

fn keys_are_replaced_where_there_is_an_account(store: &mut dyn Store) {
    let set = |fill| StoreOp::SetCredentials {
        account: jid(ROMEO),
        credentials: keys(fill),
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
    let of = |roster| StoreReply::Account(Some(Box::new(AccountData { roster })));
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
}
