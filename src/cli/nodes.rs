//! Nodes of accounts in files of XEP-0227: how they are configured, and what is published to them.

use std::collections::HashSet;
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
    AFFILIATIONS_MAX, SUBSCRIPTIONS_MAX, configured, is_node_name, write_configuration,
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
        let Some((node, _)) = find(whole, &name) else {
            wrong = Err(format!("its node {name:?} is not configured"));
            continue;
        };
        let taken = match part.name.as_str() {
            "affiliations" => affiliations(part, node, &account),
            "subscriptions" => subscriptions(part, node),
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
    whole.nodes.push((Node::new(name, config), Vec::new()));
    Ok(())
}

fn address(part: &Element) -> Result<Jid<'_>, String> {
    let jid = part.attr("jid").unwrap_or_default();
    Jid::parse(jid).map_err(|_| format!("a node of it names {jid:?}, which is no JID"))
}

fn affiliations(element: &Element, node: &mut Node, account: &BareJid) -> Result<(), String> {
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
    }
    Ok(())
}

fn subscriptions(element: &Element, node: &mut Node) -> Result<(), String> {
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
    }
    Ok(())
}

/// Takes the items of nodes that are configured.
///
/// # Errors
/// The last of those that are left out.
pub(crate) fn items(
    element: &Element,
    whole: &mut WholeAccount,
    limits: &Limits,
) -> Result<(), String> {
    let mut wrong = Ok(());
    for part in element.children().filter(|part| part.name == "items") {
        let name = part.attr("node").unwrap_or_default().to_owned();
        let others = whole.nodes.iter().filter(|(node, _)| *node.name != *name);
        let room = others.map(|(node, _)| node.size()).sum::<u64>();
        let room = limits.items_size_max.saturating_sub(room);
        let taken = match find(whole, &name) {
            None => Err(format!("its node {name:?} has items and is not configured")),
            Some(node) => items_of(part, node, limits, room),
        };
        if taken.is_err() {
            wrong = taken;
        }
    }
    wrong
}

fn items_of(
    element: &Element,
    (node, payloads): &mut WholeNode,
    limits: &Limits,
    room: u64,
) -> Result<(), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let at = Timestamp(now.map_or(0, |now| now.as_micros() as u64));
    let items_max = (node.config.items_max as usize).min(limits.node_items_max);
    let name = node.name.clone();
    let left_out = |what: &str| Err(format!("an item of its node {name:?} {what}"));
    let mut ids: HashSet<Box<str>> = node.items.iter().map(|item| item.id.clone()).collect();
    let mut wrong = Ok(());
    for item in element.children().filter(|item| item.name == "item") {
        let id = item.attr("id").unwrap_or_default();
        let bytes = item.bytes(Ns::PubSub.as_str());
        wrong = match () {
            () if id.is_empty() || id.len() > DOCUMENT_NAME_SIZE_MAX => left_out("has no name"),
            () if item.children().count() > 1 => left_out("says more than one thing"),
            () if bytes.len() > limits.item_size_max => left_out("is too large"),
            () if node.items.len() >= items_max => left_out("is one more than it keeps"),
            () if !ids.insert(id.into()) => left_out("is called as another is"),
            () => {
                node.last += 1;
                node.items.push(NodeItem {
                    number: node.last,
                    id: id.into(),
                    size: bytes.len() as u32,
                    at,
                });
                if node.size() <= room {
                    payloads.push((node.last, bytes));
                    continue;
                }
                node.items.pop();
                left_out("finds no room among its account's nodes")
            }
        };
    }
    wrong
}
