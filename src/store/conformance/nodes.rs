//! What every adapter must do with the nodes of accounts and their items.

use xmpp::Timestamp;
use xmpp::port::{
    AVATAR_DATA, AVATAR_METADATA, AccessModel, Affiliation, DOCUMENT_NAME_SIZE_MAX, DOCUMENTS_MAX,
    Node, NodeChange, NodeConfig, NodeItem, PhotoHash, PublishModel, SendLast, Space, Store,
    StoreOp, StoreReply, WholeAccount,
};

use super::{account, create, delete, document, jid, keys, longest, one, put_document};

pub(super) const PARTS: [fn(&mut dyn Store); 8] = [
    a_node_is_replaced_as_a_whole_and_its_items_one_by_one,
    a_node_ends_with_its_items_and_no_other_does,
    nodes_of_no_account_are_not_written,
    a_document_is_written_with_nodes_or_neither_is,
    the_picture_that_everybody_sees_comes_with_the_account,
    an_account_comes_with_its_nodes_and_goes_with_them,
    a_call_sees_the_nodes_that_it_writes,
    the_longest_name_of_a_node_has_room_and_a_longer_one_fails_alone,
];

const ROMEO: &str = "romeo@montague.example";
const JULIET: &str = "juliet@capulet.example";

/// A node with nothing left at its default, and items 3 and 9.
pub(crate) fn full_node(name: &str) -> Node {
    let config = NodeConfig {
        title: "Verses & \u{1f916}".into(),
        kind: "urn:example:verse".into(),
        access: AccessModel::Roster,
        groups: vec!["Servants".into(), "Capulet & sons".into()],
        publish: PublishModel::Open,
        items_max: u32::MAX,
        persists: true,
        send_last: SendLast::Never,
        notifies: false,
        delivers_payloads: true,
        notifies_retract: false,
        notifies_delete: false,
        notifies_config: true,
    };
    let item = |number, id: &str| NodeItem {
        number,
        id: id.into(),
        size: 4,
        at: Timestamp(1_700_000_000_000_000 + number),
    };
    let affiliations = Affiliation::ALL.iter().enumerate();
    Node {
        affiliations: affiliations
            .map(|(index, what)| (format!("a{index}@b.example").into(), *what))
            .collect(),
        subscriptions: vec!["nurse@capulet.example/orchard".into()],
        items: vec![item(3, "\u{e4}"), item(9, "current")],
        last: 9,
        ..Node::new(name, config)
    }
}

fn nodes(store: &mut dyn Store, of: &str) -> Vec<Node> {
    match one(
        store,
        StoreOp::Nodes {
            account: jid(of),
            only: None,
        },
    ) {
        StoreReply::Nodes(nodes) => nodes,
        other => panic!("{of} should have nodes: {other:?}"),
    }
}

fn items_op(of: &str, node: &str, numbers: &[u64]) -> StoreOp {
    StoreOp::Items {
        account: jid(of),
        node: node.into(),
        numbers: numbers.into(),
    }
}

/// What those items say that are there.
pub(crate) fn items(
    store: &mut dyn Store,
    of: &str,
    node: &str,
    numbers: &[u64],
) -> Vec<(u64, String)> {
    match one(store, items_op(of, node, numbers)) {
        StoreReply::Items(items) => items
            .into_iter()
            .map(|(number, bytes)| (number, String::from_utf8_lossy(&bytes).into_owned()))
            .collect(),
        other => panic!("{node} of {of} should have items: {other:?}"),
    }
}

/// Writes a node with these items, and removes those.
pub(crate) fn change(of: &str, node: Node, put: &[(u64, &str)], remove: &[u64]) -> StoreOp {
    let put = put.iter();
    let change = NodeChange {
        name: node.name.clone(),
        node: Some(Box::new(node)),
        put: put
            .map(|(number, text)| (*number, text.as_bytes().into()))
            .collect(),
        remove: remove.into(),
    };
    StoreOp::ChangeNodes {
        account: jid(of),
        changes: vec![change],
        document: None,
    }
}

fn end(of: &str, name: &str) -> StoreOp {
    let change = NodeChange {
        name: name.into(),
        node: None,
        put: Vec::new(),
        remove: Vec::new(),
    };
    StoreOp::ChangeNodes {
        account: jid(of),
        changes: vec![change],
        document: None,
    }
}

fn said(items: &[(u64, &str)]) -> Vec<(u64, String)> {
    let items = items.iter();
    items
        .map(|(number, text)| (*number, (*text).to_owned()))
        .collect()
}

/// Has a document in the same commit.
fn with_document(op: StoreOp, key: &str, text: &str) -> StoreOp {
    match op {
        StoreOp::ChangeNodes {
            account, changes, ..
        } => StoreOp::ChangeNodes {
            account,
            changes,
            document: Some((Space::Private, key.into(), text.as_bytes().into())),
        },
        other => other,
    }
}

fn a_document_is_written_with_nodes_or_neither_is(store: &mut dyn Store) {
    one(store, create(ROMEO, 1));
    let node = Node::new("n", NodeConfig::default());
    let put = with_document(change(ROMEO, node.clone(), &[(1, "x")], &[]), "a", "1");
    assert_eq!(one(store, put), StoreReply::Done);
    let read = |key| document(ROMEO, Space::Private, key);
    let found = |text: &str| StoreReply::Document(Some(text.as_bytes().into()));
    assert_eq!(one(store, read("a")), found("1"));
    assert_eq!(nodes(store, ROMEO), std::slice::from_ref(&node));
    for number in 1..DOCUMENTS_MAX {
        one(
            store,
            put_document(ROMEO, Space::Private, &format!("d{number}"), "x"),
        );
    }
    let other = Node::new("o", NodeConfig::default());
    let put = with_document(change(ROMEO, other.clone(), &[], &[]), "b", "1");
    assert_eq!(one(store, put), StoreReply::Full);
    assert_eq!(nodes(store, ROMEO), std::slice::from_ref(&node));
    // One that is there is written anew.
    let put = with_document(change(ROMEO, other.clone(), &[], &[]), "a", "2");
    assert_eq!(one(store, put), StoreReply::Done);
    assert_eq!(one(store, read("a")), found("2"));
    assert_eq!(nodes(store, ROMEO), [node, other]);
    let put = with_document(change(JULIET, full_node("n"), &[], &[]), "a", "1");
    assert_eq!(one(store, put), StoreReply::Missing);
}

fn the_picture_that_everybody_sees_comes_with_the_account(store: &mut dyn Store) {
    const HASH: &str = "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d";
    one(store, create(ROMEO, 1));
    let node = |name: &str, id: &str, access| {
        let config = NodeConfig {
            access,
            ..NodeConfig::default()
        };
        let mut node = Node::new(name, config);
        node.items.push(NodeItem {
            number: 1,
            id: id.into(),
            size: 1,
            at: Timestamp(1),
        });
        node
    };
    let mut shown = |name: &str, id: &str, access| {
        let put = change(ROMEO, node(name, id, access), &[(1, "x")], &[]);
        assert_eq!(one(store, put), StoreReply::Done);
        match one(store, account(ROMEO)) {
            StoreReply::Account(Some(data)) => data.photo,
            other => panic!("the account is there: {other:?}"),
        }
    };
    let open = AccessModel::Open;
    assert_eq!(shown(AVATAR_METADATA, HASH, open), None);
    assert_eq!(shown(AVATAR_DATA, HASH, AccessModel::Presence), None);
    assert_eq!(shown(AVATAR_DATA, HASH, open), PhotoHash::parse(HASH));
    assert_eq!(shown(AVATAR_METADATA, "none", open), None);
    assert_eq!(shown(AVATAR_DATA, "none", open), None);
}

fn a_node_is_replaced_as_a_whole_and_its_items_one_by_one(store: &mut dyn Store) {
    one(store, create(ROMEO, 1));
    assert_eq!(nodes(store, ROMEO), []);
    let put = change(ROMEO, full_node("n"), &[(3, "old"), (9, "new")], &[]);
    assert_eq!(one(store, put), StoreReply::Done);
    assert_eq!(nodes(store, ROMEO), [full_node("n")]);
    let all = [9, 4, 3];
    assert_eq!(
        items(store, ROMEO, "n", &all),
        said(&[(9, "new"), (3, "old")])
    );
    let bare = Node::new("n", NodeConfig::default());
    let only = |name: &str| StoreOp::Nodes {
        account: jid(ROMEO),
        only: Some(name.into()),
    };
    let found = StoreReply::Nodes(vec![full_node("n")]);
    assert_eq!(one(store, only("n")), found);
    assert_eq!(one(store, only("m")), StoreReply::Nodes(Vec::new()));
    let too_long = "n".repeat(DOCUMENT_NAME_SIZE_MAX + 1);
    assert!(matches!(one(store, only(&too_long)), StoreReply::Failed(_)));
    let put = change(ROMEO, bare.clone(), &[(4, "newer")], &[3]);
    assert_eq!(one(store, put), StoreReply::Done);
    let first = Node::new("a", NodeConfig::default());
    let put = change(ROMEO, first.clone(), &[], &[]);
    assert_eq!(one(store, put), StoreReply::Done);
    assert_eq!(nodes(store, ROMEO), [first, bare], "ordered by name");
    assert_eq!(
        items(store, ROMEO, "n", &all),
        said(&[(9, "new"), (4, "newer")])
    );
}

fn a_node_ends_with_its_items_and_no_other_does(store: &mut dyn Store) {
    let names = ["n", "nn", "n\u{1}", "\u{ff}", ""];
    one(store, create(ROMEO, 1));
    for name in names {
        let put = change(ROMEO, full_node(name), &[(3, "x"), (256, "y")], &[]);
        assert_eq!(one(store, put), StoreReply::Done);
    }
    assert_eq!(one(store, end(ROMEO, "n")), StoreReply::Done);
    assert_eq!(one(store, end(ROMEO, "never")), StoreReply::Done);
    assert_eq!(nodes(store, ROMEO).len(), names.len() - 1);
    assert_eq!(items(store, ROMEO, "n", &[3, 256]), []);
    for name in &names[1..] {
        assert_eq!(
            items(store, ROMEO, name, &[3, 256]),
            said(&[(3, "x"), (256, "y")])
        );
    }
    let put = change(ROMEO, Node::new("n", NodeConfig::default()), &[], &[]);
    assert_eq!(one(store, put), StoreReply::Done);
    assert_eq!(
        items(store, ROMEO, "n", &[3, 256]),
        [],
        "made anew, it has none"
    );
}

fn nodes_of_no_account_are_not_written(store: &mut dyn Store) {
    let put = change(ROMEO, full_node("n"), &[(3, "x")], &[]);
    assert_eq!(one(store, put), StoreReply::Missing);
    assert_eq!(nodes(store, ROMEO), []);
    one(store, create(ROMEO, 1));
    assert_eq!(nodes(store, ROMEO), []);
    assert_eq!(items(store, ROMEO, "n", &[3]), []);
}

fn an_account_comes_with_its_nodes_and_goes_with_them(store: &mut dyn Store) {
    let mut whole = WholeAccount::new(jid(ROMEO), *keys(1));
    let said_by = |text: &str| (3, text.as_bytes().into());
    whole.nodes = vec![
        (full_node("m"), vec![said_by("of m")]),
        (full_node("n"), vec![said_by("of n")]),
    ];
    let whole = StoreOp::CreateWhole {
        whole: Box::new(whole),
    };
    assert_eq!(one(store, whole), StoreReply::Done);
    one(store, create(JULIET, 2));
    one(store, change(JULIET, full_node("n"), &[(3, "hers")], &[]));
    assert_eq!(nodes(store, ROMEO), [full_node("m"), full_node("n")]);
    assert_eq!(items(store, ROMEO, "n", &[3]), said(&[(3, "of n")]));
    assert_eq!(one(store, delete(ROMEO)), StoreReply::Done);
    assert_eq!(nodes(store, ROMEO), []);
    one(store, create(ROMEO, 1));
    assert_eq!(nodes(store, ROMEO), []);
    assert_eq!(items(store, ROMEO, "n", &[3]), []);
    assert_eq!(items(store, JULIET, "n", &[3]), said(&[(3, "hers")]));
}

fn a_call_sees_the_nodes_that_it_writes(store: &mut dyn Store) {
    one(store, create(ROMEO, 1));
    one(store, change(ROMEO, full_node("z"), &[(3, "x")], &[]));
    let ops = [
        change(ROMEO, full_node("n"), &[(3, "y")], &[]),
        StoreOp::Nodes {
            account: jid(ROMEO),
            only: None,
        },
        items_op(ROMEO, "n", &[3]),
        end(ROMEO, "n"),
        end(ROMEO, "z"),
        items_op(ROMEO, "n", &[3]),
        StoreOp::Nodes {
            account: jid(ROMEO),
            only: None,
        },
    ];
    let mut replies = Vec::new();
    store.perform(&mut ops.into_iter(), &mut replies);
    let there = StoreReply::Items(vec![(3, b"y"[..].into())]);
    let both = StoreReply::Nodes(vec![full_node("n"), full_node("z")]);
    let expected = [
        StoreReply::Done,
        both,
        there,
        StoreReply::Done,
        StoreReply::Done,
        StoreReply::Items(Vec::new()),
        StoreReply::Nodes(Vec::new()),
    ];
    assert_eq!(replies, expected);
}

fn the_longest_name_of_a_node_has_room_and_a_longer_one_fails_alone(store: &mut dyn Store) {
    let owner = longest("a");
    one(store, create(&owner, 1));
    let name = "n".repeat(DOCUMENT_NAME_SIZE_MAX);
    let put = change(&owner, full_node(&name), &[(u64::MAX, "x")], &[]);
    assert_eq!(one(store, put), StoreReply::Done);
    assert_eq!(
        items(store, &owner, &name, &[u64::MAX]),
        said(&[(u64::MAX, "x")])
    );
    let longer = name + "n";
    let mut whole = WholeAccount::new(jid(JULIET), *keys(2));
    whole.nodes = vec![(full_node(&longer), Vec::new())];
    let ops = [
        change(&owner, full_node("m"), &[], &[]),
        change(&owner, full_node(&longer), &[(3, "x")], &[]),
        items_op(&owner, &longer, &[3]),
        StoreOp::CreateWhole {
            whole: Box::new(whole),
        },
        end(&owner, "m"),
    ];
    let mut replies = Vec::new();
    store.perform(&mut ops.into_iter(), &mut replies);
    let is_failed = |reply: &StoreReply| matches!(reply, StoreReply::Failed(_));
    assert!(replies[1..4].iter().all(is_failed), "{replies:?}");
    assert_eq!([&replies[0], &replies[4]], [&StoreReply::Done; 2]);
    assert_eq!(nodes(store, &owner).len(), 1);
    assert_eq!(one(store, account(JULIET)), StoreReply::Account(None));
}
