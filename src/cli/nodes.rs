//! Nodes of accounts in files of XEP-0227: how they are configured, and what is published to them.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use stanza::jid::{BareJid, Jid};
use stanza::ns::Ns;
use stanza::writer;
use xmpp::Timestamp;
use xmpp::limit::Limits;
use xmpp::port::{
    Affiliation, DOCUMENT_NAME_SIZE_MAX, Node, NodeConfig, NodeItem, WholeAccount, WholeNode,
};
use xmpp::xep::pubsub::{
    AFFILIATIONS_MAX, SUBSCRIPTIONS_MAX, SUBSCRIPTIONS_SIZE_MAX, configured, is_node_name,
    write_configuration,
};

use super::element::Element;

/// Writes an account's nodes, if it has any; `copy` writes an item.
pub(crate) fn write(
    nodes: &[WholeNode],
    out: &mut Vec<u8>,
    copy: impl FnMut(&str, &[u8], &mut Vec<u8>),
) {
    if !nodes.is_empty() {
        write_configurations(nodes, out);
        write_items(nodes, out, copy);
    }
}

fn write_configurations(nodes: &[WholeNode], out: &mut Vec<u8>) {
    writer::open(out, "pubsub").ns(Ns::PubSubOwner).start();
    for (node, _) in nodes {
        let named = |name: &'static str, out: &mut Vec<u8>| {
            writer::open(out, name).attr("node", &node.name).start();
        };
        named("configure", out);
        write_configuration(&node.config, out);
        writer::close(out, "configure");
        if !node.affiliations.is_empty() {
            named("affiliations", out);
            for (jid, affiliation) in &node.affiliations {
                writer::open(out, "affiliation")
                    .attr("jid", jid)
                    .attr("affiliation", affiliation.as_str())
                    .close_empty();
            }
            writer::close(out, "affiliations");
        }
        if !node.subscriptions.is_empty() {
            named("subscriptions", out);
            for jid in &node.subscriptions {
                writer::open(out, "subscription")
                    .attr("jid", jid)
                    .attr("subscription", "subscribed")
                    .close_empty();
            }
            writer::close(out, "subscriptions");
        }
    }
    writer::close(out, "pubsub");
}

/// Writes the items of nodes, of each the oldest first.
fn write_items(
    nodes: &[WholeNode],
    out: &mut Vec<u8>,
    mut copy: impl FnMut(&str, &[u8], &mut Vec<u8>),
) {
    writer::open(out, "pubsub").ns(Ns::PubSub).start();
    for (node, items) in nodes {
        let open = writer::open(out, "items").attr("node", &node.name);
        if node.items.is_empty() {
            open.close_empty();
            continue;
        }
        open.start();
        for known in &node.items {
            let said = items.iter().find(|(number, _)| *number == known.number);
            if let Some((_, bytes)) = said {
                let what = format!("the item {} of the node {}", known.id, node.name);
                copy(&what, bytes, out);
            }
        }
        writer::close(out, "items");
    }
    writer::close(out, "pubsub");
}

fn find<'a>(whole: &'a mut WholeAccount, name: &str) -> Option<&'a mut WholeNode> {
    whole.nodes.iter_mut().find(|(node, _)| *node.name == *name)
}

/// How large one of an account's nodes may become beside its others.
struct Room {
    /// Of [`Node::size`].
    size: u64,
    /// Of [`Node::subscriptions_size`].
    subscriptions_size: u64,
}

impl Room {
    fn beside(whole: &WholeAccount, name: &str, limits: &Limits) -> Room {
        let others = whole.nodes.iter().map(|(node, _)| node);
        let others: Vec<&Node> = others.filter(|node| *node.name != *name).collect();
        let left = |all: u64, of: fn(&Node) -> u64| {
            all.saturating_sub(others.iter().map(|node| of(node)).sum())
        };
        Room {
            size: left(limits.items_size_max, Node::size),
            subscriptions_size: left(SUBSCRIPTIONS_SIZE_MAX, Node::subscriptions_size),
        }
    }
}

/// Takes nodes as they are configured, without their items.
///
/// # Errors
/// The last of those that are left out, or of their parts.
pub(crate) fn configurations(
    element: &Element,
    whole: &mut WholeAccount,
    limits: &Limits,
) -> Result<(), String> {
    let mut wrong = Ok(());
    let (configures, others): (Vec<&Element>, Vec<&Element>) = element
        .children()
        .partition(|part| part.name == "configure");
    for part in configures {
        if let Err(what) = configuration(part, whole, limits) {
            wrong = Err(what);
        }
    }
    for part in others {
        let name = part.attr("node").unwrap_or_default().to_owned();
        let account = whole.account.clone();
        let room = Room::beside(whole, &name, limits);
        let Some((node, _)) = find(whole, &name) else {
            wrong = Err(format!("its node {name:?} is not configured"));
            continue;
        };
        let taken = match part.name.as_str() {
            "affiliations" => affiliations(part, node, &account, &room),
            "subscriptions" => subscriptions(part, node, &room),
            other => Err(format!(
                "its node {name:?} has a <{other}/>, which is unknown"
            )),
        };
        if taken.is_err() {
            wrong = taken;
        }
    }
    wrong
}

fn configuration(
    element: &Element,
    whole: &mut WholeAccount,
    limits: &Limits,
) -> Result<(), String> {
    let name = element.attr("node").unwrap_or_default();
    if !is_node_name(name) {
        return Err(format!("its node {name:?} has a name that none may have"));
    }
    if find(whole, name).is_some() {
        return Err(format!("its node {name:?} is configured twice"));
    }
    if whole.nodes.len() >= limits.nodes_max {
        return Err(format!("it has more than {} nodes", limits.nodes_max));
    }
    let fields = element.children().flat_map(Element::children);
    let fields = fields.filter(|field| field.name == "field").map(|field| {
        let values = field.children().filter(|value| value.name == "value");
        let values = values.map(|value| value.text().into()).collect();
        (field.attr("var").unwrap_or_default().into(), values)
    });
    // XEP-0227 4.9.1: what is not known is passed over, but nobody may read what he may not.
    let config: NodeConfig = configured(&fields.collect())
        .ok_or_else(|| format!("its node {name:?} is configured as none here can be"))?;
    let node = Node::new(name, config);
    if node.size() > Room::beside(whole, name, limits).size {
        return Err(format!(
            "its node {name:?} finds no room among its account's nodes"
        ));
    }
    whole.nodes.push((node, Vec::new()));
    Ok(())
}

fn address(part: &Element) -> Result<Jid<'_>, String> {
    let jid = part.attr("jid").unwrap_or_default();
    Jid::parse(jid).map_err(|_| format!("a node of it names {jid:?}, which is no JID"))
}

fn affiliations(
    element: &Element,
    node: &mut Node,
    account: &BareJid,
    room: &Room,
) -> Result<(), String> {
    for part in element.children() {
        let jid: Box<str> = address(part)?.bare().into();
        let text = part.attr("affiliation").unwrap_or_default();
        let affiliation = match (Affiliation::parse(text), text) {
            (Some(affiliation), _) => affiliation,
            (None, "none") => continue,
            (None, other) => return Err(format!("a node of it has the affiliation {other:?}")),
        };
        // The account itself is its owner, and not said to be.
        if *jid == *account.as_str() || node.affiliations.iter().any(|(known, _)| *known == jid) {
            continue;
        }
        if node.affiliations.len() >= AFFILIATIONS_MAX {
            return Err(format!(
                "a node of it has more than {AFFILIATIONS_MAX} affiliations"
            ));
        }
        node.affiliations.push((jid, affiliation));
        if node.size() > room.size {
            node.affiliations.pop();
            return Err("the affiliations of a node of it find no room".into());
        }
    }
    Ok(())
}

fn subscriptions(element: &Element, node: &mut Node, room: &Room) -> Result<(), String> {
    for part in element.children() {
        let jid: Box<str> = address(part)?.as_str().into();
        if part.attr("subscription") != Some("subscribed") || node.subscriptions.contains(&jid) {
            continue;
        }
        if node.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(format!(
                "a node of it has more than {SUBSCRIPTIONS_MAX} subscriptions"
            ));
        }
        node.subscriptions.push(jid);
        if node.subscriptions_size() > room.subscriptions_size {
            node.subscriptions.pop();
            return Err("the subscriptions to a node of it find no room".into());
        }
    }
    Ok(())
}

/// Takes the items of nodes that are configured, wherever a file has them; each of these elements
/// comes with its place there.
///
/// The answer says what is left out, of each node the last, and where.
pub(crate) fn items(
    elements: &[(Element, String)],
    whole: &mut WholeAccount,
    limits: &Limits,
) -> Vec<(String, String)> {
    let mut nodes: Vec<(&str, &str, Vec<&Element>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (element, at) in elements {
        for part in element.children().filter(|part| part.name == "items") {
            let name = part.attr("node").unwrap_or_default();
            let place = *places.entry(name).or_insert(nodes.len());
            if place == nodes.len() {
                nodes.push((name, at.as_str(), Vec::new()));
            }
            let items = part.children().filter(|item| item.name == "item");
            nodes[place].1 = at;
            nodes[place].2.extend(items);
        }
    }
    let taken = nodes.into_iter().filter_map(|(name, at, items)| {
        let room = Room::beside(whole, name, limits);
        let taken = match find(whole, name) {
            None => Err(format!("its node {name:?} has items and is not configured")),
            Some(node) => items_of(items, node, limits, &room),
        };
        taken.err().map(|what| (at.to_owned(), what))
    });
    taken.collect()
}

/// The newest stand last, and are those that stay where not all may.
fn items_of(
    items: Vec<&Element>,
    (node, payloads): &mut WholeNode,
    limits: &Limits,
    room: &Room,
) -> Result<(), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let at = Timestamp(now.map_or(0, |now| now.as_micros() as u64));
    let items_max = match node.config.persists {
        true => (node.config.items_max as usize).min(limits.node_items_max),
        false => 0,
    };
    let name = node.name.clone();
    let left_out = |what: &str| Err(format!("an item of its node {name:?} {what}"));
    let mut ids: HashSet<Box<str>> = node.items.iter().map(|item| item.id.clone()).collect();
    let mut wrong = Ok(());
    let known = node.items.len();
    let mut said = Vec::new();
    for item in items.into_iter().rev() {
        let id = item.attr("id").unwrap_or_default();
        let bytes = item.bytes(Ns::PubSub.as_str());
        wrong = match () {
            () if id.is_empty() || id.len() > DOCUMENT_NAME_SIZE_MAX => left_out("has no name"),
            () if item.children().count() > 1 => left_out("says more than one thing"),
            () if payload_size(&bytes) > limits.item_size_max => left_out("is too large"),
            () if node.items.len() >= items_max => left_out("is one more than it keeps"),
            () if !ids.insert(id.into()) => left_out("is called as another is"),
            () => {
                node.items.push(NodeItem {
                    number: 0,
                    id: id.into(),
                    size: bytes.len() as u32,
                    at,
                });
                if node.size() <= room.size {
                    said.push(bytes);
                    continue;
                }
                node.items.pop();
                left_out("finds no room among its account's nodes")
            }
        };
    }
    node.items[known..].reverse();
    for (item, bytes) in node.items[known..].iter_mut().zip(said.into_iter().rev()) {
        node.last += 1;
        item.number = node.last;
        payloads.push((node.last, bytes));
    }
    wrong
}

/// Bytes of what an item says, without the item around it.
fn payload_size(item: &[u8]) -> usize {
    let tag = item.iter().position(|byte| *byte == b'>');
    let tag_size = tag.map_or(0, |place| place + 1);
    item.len().saturating_sub(tag_size + "</item>".len())
}
