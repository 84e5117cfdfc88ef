//! The nodes of an account's publish-subscribe service, in the keyspace of what it keeps.
//!
//! A node is one record, under its name; what an item says is another, under the node's name, a
//! zero byte, which no name has, and the item's number. Invariant: a commit that writes a node
//! writes the items that it names, and removes those that it names no more.

use crate::embedded::{Staged, Trouble};
use crate::kept;
use crate::records::{check_name, each_record, read};
use crate::schema::Entry;
use fjall::Keyspace;
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};
use stanza::jid::BareJid;
use xmpp::Timestamp;
use xmpp::port::{
    AVATAR_DATA, AVATAR_METADATA, AccessModel, Affiliation, Document, Node, NodeChange, NodeConfig,
    NodeItem, PhotoHash, PublishModel, SendLast, StoreOp, StoreReply, WholeNode, shown_photo,
};

/// Bytes of an item's number behind its node's name and the zero byte.
const NUMBER_SIZE: usize = size_of::<u64>();

const PERSISTS: u8 = 1;
const NOTIFIES: u8 = 2;
const DELIVERS_PAYLOADS: u8 = 4;
const NOTIFIES_RETRACT: u8 = 8;
const NOTIFIES_DELETE: u8 = 16;
const NOTIFIES_CONFIG: u8 = 32;

#[derive(Archive, Serialize, Deserialize)]
struct NodeV1 {
    title: Box<str>,
    kind: Box<str>,
    access: u8,
    groups: Vec<Box<str>>,
    publish: u8,
    items_max: u32,
    send_last: u8,
    flags: u8,
    affiliations: Vec<(Box<str>, u8)>,
    subscriptions: Vec<Box<str>>,
    items: Vec<ItemV1>,
    last: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct ItemV1 {
    number: u64,
    id: Box<str>,
    size: u32,
    at: u64,
}

fn node_key(account: &BareJid, name: &str) -> Result<Vec<u8>, Trouble> {
    check_name(name)?;
    let mut key = kept::key(account, kept::NODE);
    key.extend_from_slice(name.as_bytes());
    Ok(key)
}

/// What the keys of a node's items begin with.
fn items_prefix(account: &BareJid, name: &str) -> Result<Vec<u8>, Trouble> {
    check_name(name)?;
    let mut key = kept::key(account, kept::ITEM);
    key.extend_from_slice(name.as_bytes());
    key.push(0);
    Ok(key)
}

fn item_key(account: &BareJid, name: &str, number: u64) -> Result<Vec<u8>, Trouble> {
    let mut key = items_prefix(account, name)?;
    key.extend_from_slice(&number.to_be_bytes());
    Ok(key)
}

fn encode(node: Node) -> Result<Vec<u8>, Trouble> {
    let config = node.config;
    let flags = [
        (config.persists, PERSISTS),
        (config.notifies, NOTIFIES),
        (config.delivers_payloads, DELIVERS_PAYLOADS),
        (config.notifies_retract, NOTIFIES_RETRACT),
        (config.notifies_delete, NOTIFIES_DELETE),
        (config.notifies_config, NOTIFIES_CONFIG),
    ];
    let set = flags.into_iter().filter(|(is_set, _)| *is_set);
    let affiliations = node.affiliations.into_iter();
    let items = node.items.into_iter();
    let record = NodeV1 {
        title: config.title,
        kind: config.kind,
        access: config.access as u8,
        groups: config.groups,
        publish: config.publish as u8,
        items_max: config.items_max,
        send_last: config.send_last as u8,
        flags: set.fold(0, |flags, (_, flag)| flags | flag),
        affiliations: affiliations.map(|(jid, what)| (jid, what as u8)).collect(),
        subscriptions: node.subscriptions,
        items: items
            .map(|item| ItemV1 {
                number: item.number,
                id: item.id,
                size: item.size,
                at: item.at.0,
            })
            .collect(),
        last: node.last,
    };
    rkyv::api::high::to_bytes_in::<_, RkyvError>(&record, vec![kept::VERSION])
        .map_err(|error| format!("cannot archive a node: {error}").into())
}

fn decode(name: &[u8], record: &[u8]) -> Result<Node, Trouble> {
    let damaged = |what: &str| Trouble::from(format!("a node is damaged: {what}"));
    let name = std::str::from_utf8(name).map_err(|_| damaged("its name is not UTF-8"))?;
    let archive = kept::content(record, "a node")?;
    let read = rkyv::from_bytes::<NodeV1, RkyvError>(archive)
        .map_err(|error| damaged(&error.to_string()))?;
    let flag = |flag: u8| read.flags & flag != 0;
    let config = NodeConfig {
        persists: flag(PERSISTS),
        notifies: flag(NOTIFIES),
        delivers_payloads: flag(DELIVERS_PAYLOADS),
        notifies_retract: flag(NOTIFIES_RETRACT),
        notifies_delete: flag(NOTIFIES_DELETE),
        notifies_config: flag(NOTIFIES_CONFIG),
        title: read.title,
        kind: read.kind,
        access: known(AccessModel::ALL, |it| it as u8, read.access)
            .ok_or_else(|| damaged("its access model is unknown"))?,
        groups: read.groups,
        publish: known(PublishModel::ALL, |it| it as u8, read.publish)
            .ok_or_else(|| damaged("its publish model is unknown"))?,
        items_max: read.items_max,
        send_last: known(SendLast::ALL, |it| it as u8, read.send_last)
            .ok_or_else(|| damaged("when it sends its last item is unknown"))?,
    };
    let mut affiliations = Vec::with_capacity(read.affiliations.len());
    for (jid, number) in read.affiliations {
        let affiliation = known(Affiliation::ALL, |it| it as u8, number);
        affiliations.push((
            jid,
            affiliation.ok_or_else(|| damaged("an affiliation is unknown"))?,
        ));
    }
    let items = read.items.into_iter().map(|item| NodeItem {
        number: item.number,
        id: item.id,
        size: item.size,
        at: Timestamp(item.at),
    });
    Ok(Node {
        name: name.into(),
        config,
        affiliations,
        subscriptions: read.subscriptions,
        items: items.collect(),
        last: read.last,
    })
}

fn known<T: Copy>(all: &[T], number_of: impl Fn(T) -> u8, number: u8) -> Option<T> {
    all.iter().copied().find(|one| number_of(*one) == number)
}

/// Answers what reads nodes or their items.
pub(crate) fn read_op(
    kept: &Keyspace,
    staged: &Staged,
    op: &StoreOp,
) -> Result<StoreReply, Trouble> {
    match op {
        StoreOp::Nodes {
            account,
            only: None,
        } => nodes(kept, staged, account),
        StoreOp::Nodes {
            account,
            only: Some(name),
        } => {
            let node = node(kept, staged, account, name)?;
            Ok(StoreReply::Nodes(node.into_iter().collect()))
        }
        StoreOp::Items {
            account,
            node,
            numbers,
        } => items(kept, staged, account, node, numbers),
        _ => Err("not a read of this kind".into()),
    }
}

/// All nodes of an account, by name.
fn nodes(kept: &Keyspace, staged: &Staged, account: &BareJid) -> Result<StoreReply, Trouble> {
    let prefix = node_key(account, "")?;
    let mut nodes = Vec::new();
    each_record(kept, &staged.kept, &prefix, |key, record| {
        nodes.push(decode(&key[prefix.len()..], record)?);
        Ok(())
    })?;
    // What this call has staged came behind what is committed.
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(StoreReply::Nodes(nodes))
}

/// What items of a node say.
fn items(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
    node: &str,
    numbers: &[u64],
) -> Result<StoreReply, Trouble> {
    let mut found = Vec::with_capacity(numbers.len());
    for &number in numbers {
        let key = item_key(account, node, number)?;
        if let Some(record) = read(kept, &staged.kept, &key)? {
            found.push((number, kept::content(&record, "an item")?.into()));
        }
    }
    Ok(StoreReply::Items(found))
}

/// The picture that an account shows to everybody.
pub(crate) fn photo(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
) -> Result<Option<PhotoHash>, Trouble> {
    let Some(metadata) = node(kept, staged, account, AVATAR_METADATA)? else {
        return Ok(None);
    };
    let data = node(kept, staged, account, AVATAR_DATA)?;
    Ok(shown_photo(Some(&metadata), data.as_ref()))
}

/// The node of a name.
fn node(
    kept: &Keyspace,
    staged: &Staged,
    account: &BareJid,
    name: &str,
) -> Result<Option<Node>, Trouble> {
    let found = read(kept, &staged.kept, &node_key(account, name)?)?;
    let found = found.as_deref();
    found.map(|it| decode(name.as_bytes(), it)).transpose()
}

/// Writes and removes nodes with their items, and a document along with them; all or none.
pub(crate) fn change(
    kept: &Keyspace,
    staged: &mut Staged,
    account: &BareJid,
    changes: Vec<NodeChange>,
    document: Option<Document>,
) -> Result<StoreReply, Trouble> {
    let mut writes = Vec::new();
    for change in changes {
        let name = &*change.name;
        let key = node_key(account, name)?;
        match change.node {
            Some(node) => writes.push((key, Some(encode(*node)?))),
            None => {
                writes.push((key, None));
                let prefix = items_prefix(account, name)?;
                each_record(kept, &staged.kept, &prefix, |key, _| {
                    writes.push((key.to_vec(), None));
                    Ok(())
                })?;
            }
        }
        for number in change.remove {
            writes.push((item_key(account, name, number)?, None));
        }
        for (number, bytes) in change.put {
            let key = item_key(account, name, number)?;
            writes.push((key, Some(kept::record(&bytes))));
        }
    }
    if let Some((space, name, bytes)) = document {
        let reply = kept::put_document(kept, staged, account, space, &name, &bytes)?;
        if reply != StoreReply::Done {
            return Ok(reply);
        }
    }
    let writes = writes.into_iter();
    staged
        .kept
        .extend(writes.map(|(key, value)| (key.into(), value)));
    Ok(StoreReply::Done)
}

/// The records of a new account's nodes.
pub(crate) fn of_new(account: &BareJid, nodes: Vec<WholeNode>) -> Result<Vec<Entry>, Trouble> {
    let mut records = Vec::new();
    for (node, items) in nodes {
        for (number, bytes) in items {
            let key = item_key(account, &node.name, number)?;
            records.push((key, kept::record(&bytes)));
        }
        records.push((node_key(account, &node.name)?, encode(node)?));
    }
    Ok(records)
}

/// Adds a node to those of an account.
pub(crate) fn gather_node(
    nodes: &mut Vec<WholeNode>,
    name: &[u8],
    record: &[u8],
) -> Result<(), Trouble> {
    nodes.push((decode(name, record)?, Vec::new()));
    Ok(())
}

/// Adds what an item says to its node, which comes before it.
pub(crate) fn gather_item(
    nodes: &mut [WholeNode],
    key: &[u8],
    record: &[u8],
) -> Result<(), Trouble> {
    let place = key.len().checked_sub(NUMBER_SIZE + 1);
    let (name, number) = place
        .and_then(|place| key.split_at_checked(place))
        .ok_or("an item has no number")?;
    let number = number
        .strip_prefix(&[0])
        .and_then(|number| <[u8; NUMBER_SIZE]>::try_from(number).ok())
        .ok_or("an item has no number")?;
    let mut of_name = nodes
        .iter_mut()
        .filter(|(node, _)| node.name.as_bytes() == name);
    let (_, items) = of_name.next().ok_or("an item is of no node")?;
    let bytes = kept::content(record, "an item")?.into();
    items.push((u64::from_be_bytes(number), bytes));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Embedded;
    use crate::conformance::nodes::{change, full_node, items};
    use crate::conformance::{create, one};
    use crate::crash::{Scratch, cut, written_size};

    const ROMEO: &str = "romeo@a.example";

    #[test]
    fn a_node_and_its_items_are_there_after_a_kill_whole_or_not_at_all() {
        let scratch = Scratch::new();
        let mut store = Embedded::open(&scratch.0).unwrap();
        one(&mut store, create(ROMEO, 1));
        one(&mut store, change_of(&[(3, "old")], &[]));
        let before = scratch.killed();
        one(&mut store, change_of(&[(9, "new")], &[3]));
        let there =
            |copy: &Scratch| items(&mut Embedded::open(&copy.0).unwrap(), ROMEO, "n", &[3, 9]);
        assert_eq!(there(&scratch.killed()), [(9, "new".to_owned())]);
        let whole = written_size(&scratch);
        for missing in [1, 9, 60] {
            let copy = cut(&before, &scratch, whole - missing);
            assert_eq!(there(&copy), [(3, "old".to_owned())], "{missing} bytes cut");
        }
    }

    fn change_of(put: &[(u64, &str)], remove: &[u64]) -> StoreOp {
        change(ROMEO, full_node("n"), put, remove)
    }

    #[test]
    fn a_node_is_read_as_it_was_written() {
        let node = full_node("urn:example:node");
        let record = encode(node.clone()).unwrap();
        assert_eq!(decode(node.name.as_bytes(), &record), Ok(node));
    }

    #[test]
    fn every_torn_or_flipped_node_is_an_answer_and_no_panic() {
        let record = encode(full_node("n")).unwrap();
        for size in 0..record.len() {
            let _any_answer = decode(b"n", &record[..size]);
        }
        for (index, bit) in (0..record.len()).flat_map(|index| (0..8).map(move |bit| (index, bit)))
        {
            let mut flipped = record.clone();
            flipped[index] ^= 1 << bit;
            let _any_answer = decode(b"n", &flipped);
        }
        assert!(
            decode(b"n", &[2, 0]).is_err(),
            "an unknown version was read"
        );
    }

    #[test]
    fn an_item_without_its_node_is_refused() {
        let mut nodes = vec![(full_node("n"), Vec::new())];
        let key = |name: &str| [name.as_bytes(), &[0], &7_u64.to_be_bytes()].concat();
        let record = kept::record(b"<item/>");
        assert_eq!(gather_item(&mut nodes, &key("n"), &record), Ok(()));
        assert_eq!(nodes[0].1, [(7, b"<item/>"[..].into())]);
        assert!(gather_item(&mut nodes, &key("m"), &record).is_err());
        assert!(gather_item(&mut nodes, b"short", &record).is_err());
    }
}
