//! What an action does to the nodes of an account: a pure function of what storage has.
//!
//! Invariant: nothing is changed by an action that is refused, and what is changed is told only
//! when storage has it.

mod bookmarks;
mod conversion;
mod discovery;
mod owner;
mod publish;

use super::action::Action;
use super::convert::find;
use super::refusal::Refusal;
use super::rights::{Visitor, bare_of};
use crate::error::{StanzaError, put};
use crate::host::Timestamp;
use crate::limit::Limits;
use crate::port::{Affiliation, Document, Node, NodeChange, PhotoHash, RosterItem, SendLast};
use crate::xml::Attr;
use stanza::jid::BareJid;
use std::collections::HashSet;

/// Who may be subscribed to one node.
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Bytes of the subscriptions to all nodes of an account: every request reads them.
pub const SUBSCRIPTIONS_SIZE_MAX: u64 = 256 << 10;
/// How often one bare JID may be, by itself and by its resources.
pub const SUBSCRIPTIONS_PER_JID_MAX: usize = 4;
/// Who may have an affiliation with one node.
pub const AFFILIATIONS_MAX: usize = 256;
/// Bytes of payloads in one answer; older items are left out of it. The newest is always there.
pub const ANSWER_SIZE_MAX: u64 = 1 << 20;

/// The nodes of an account, and who asks.
pub(super) struct Service<'a> {
    pub account: &'a BareJid,
    /// Ordered by name.
    pub nodes: Vec<Node>,
    pub visitor: Visitor<'a>,
    /// The account's roster.
    pub roster: &'a [RosterItem],
    /// The account's available resources, by their full JIDs.
    pub resources: Vec<&'a str>,
    pub limits: &'a Limits,
    /// What the clock on the wall shows.
    pub at: Timestamp,
    /// Gives what nobody can guess.
    pub random: &'a mut dyn FnMut() -> u64,
}

/// What becomes of an action.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub reply: Reply,
    pub changes: Vec<NodeChange>,
    pub events: Vec<Event>,
    /// Who is to have the last item of which node.
    pub last_for: Option<(Box<str>, Box<str>)>,
    /// A document that is written with the changes.
    pub document: Option<Document>,
    /// Items that are gone were taken away; else they made room, or were published anew.
    pub takes_away: bool,
    /// Nothing yet: bookmarks are to be the same wherever they are kept.
    pub adopts: bool,
    /// The picture that everybody sees from now on, where it is another one.
    pub photo: Option<Option<PhotoHash>>,
}

/// How it is answered.
#[derive(Debug, Default)]
pub(super) enum Reply {
    #[default]
    Empty,
    Payload(Vec<u8>),
    /// By what these items of a node say.
    Items(Box<str>, Vec<u64>),
}

/// What is told of a node.
#[derive(Debug)]
pub(super) struct Event {
    /// As it is told, without its items.
    pub node: Node,
    /// What stands inside `<event/>`.
    pub content: Vec<u8>,
}

impl Outcome {
    fn payload(payload: Vec<u8>) -> Outcome {
        Outcome {
            reply: Reply::Payload(payload),
            ..Outcome::default()
        }
    }

    /// A node is from now on as it is here.
    fn change(node: Node) -> Outcome {
        Outcome {
            changes: vec![NodeChange {
                name: node.name.clone(),
                node: Some(Box::new(node)),
                put: Vec::new(),
                remove: Vec::new(),
            }],
            ..Outcome::default()
        }
    }
}

/// A node as events have it.
pub(super) fn outline(node: &Node) -> Node {
    Node {
        affiliations: node.affiliations.clone(),
        subscriptions: node.subscriptions.clone(),
        ..Node::new(&node.name, node.config.clone())
    }
}

impl Service<'_> {
    /// Does what is asked.
    pub(super) fn perform(&mut self, action: Action) -> Result<Outcome, Refusal> {
        let outcome = self.outcome_of(action)?;
        let changed = outcome.changes.iter();
        for node in changed.filter_map(|change| change.node.as_deref()) {
            self.check_size(node)?;
        }
        Ok(outcome)
    }

    /// Whether the account may have a node that grows to this, beside its others.
    fn check_size(&self, node: &Node) -> Result<(), Refusal> {
        let before = self.find(&node.name).map_or(0, Node::size);
        let all: u64 = self.nodes.iter().map(Node::size).sum();
        let is_room_left =
            |before: u64, all: u64, now: u64, max: u64| now <= before || all - before + now <= max;
        let known = self.find(&node.name);
        let subscribed = known.map_or(0, Node::subscriptions_size);
        let all_subscribed = self.nodes.iter().map(Node::subscriptions_size).sum();
        let now = node.subscriptions_size();
        match is_room_left(before, all, node.size(), self.limits.items_size_max)
            && is_room_left(subscribed, all_subscribed, now, SUBSCRIPTIONS_SIZE_MAX)
        {
            true => Ok(()),
            false => Err(StanzaError::ResourceConstraint.into()),
        }
    }

    fn outcome_of(&mut self, action: Action) -> Result<Outcome, Refusal> {
        match action {
            Action::Describe(node) => self.describe(&node),
            Action::List(node) => self.list(node.as_deref()),
            Action::Create(node, fields) => self.create(node, &fields),
            Action::Publish(publication) => self.publish(publication),
            Action::Retract(node, ids, tells) => self.retract(&node, &ids, tells),
            Action::Read(node, ids, count) => self.read(&node, &ids, count),
            Action::Subscribe(node, jid) => self.subscribe(&node, jid),
            Action::Unsubscribe(node, jid) => self.unsubscribe(&node, &jid),
            Action::Subscriptions(node) => self.subscriptions(node.as_deref()),
            Action::Affiliations(node) => self.affiliations(node.as_deref()),
            Action::Default => self.default_configuration(),
            Action::Configuration(node) => self.configuration(&node),
            Action::Configure(node, fields) => self.configure(&node, fields.as_ref()),
            Action::Delete(node) => self.delete(&node),
            Action::Purge(node) => self.purge(&node),
            Action::ListSubscriptions(node) => self.list_subscriptions(&node),
            Action::SetSubscriptions(node, all) => self.set_subscriptions(&node, all),
            Action::ListAffiliations(node) => self.list_affiliations(&node),
            Action::SetAffiliations(node, all) => self.set_affiliations(&node, all),
            Action::Recalculate(jid) => Ok(self.recalculate(&jid)),
            Action::Adopt => Ok(Outcome {
                adopts: true,
                ..Outcome::default()
            }),
            Action::Put(document) => Ok(Outcome {
                document: Some(document),
                ..Outcome::default()
            }),
        }
    }

    fn find(&self, name: &str) -> Option<&Node> {
        find(&self.nodes, name)
    }

    fn node(&self, name: &str) -> Result<&Node, Refusal> {
        self.find(name).ok_or(StanzaError::ItemNotFound.into())
    }

    /// A node that the visitor owns.
    fn owned(&self, name: &str) -> Result<&Node, Refusal> {
        let node = self.node(name)?;
        self.visitor.owns(node)?;
        Ok(node)
    }

    /// How many items a node keeps.
    fn items_max(&self, node: &Node) -> usize {
        (node.config.items_max as usize).min(self.limits.node_items_max)
    }

    /// Those items that were asked for by name, else the newest; newest first.
    fn read(&self, name: &str, ids: &[Box<str>], count_max: usize) -> Result<Outcome, Refusal> {
        let node = self.node(name)?;
        self.visitor.may_read(node)?;
        let mut size = 0;
        let asked = node.items.iter().rev();
        let named: HashSet<&str> = ids.iter().map(|id| &**id).collect();
        let asked = asked.filter(|item| named.is_empty() || named.contains(&*item.id));
        let fitting = asked
            .take(count_max)
            .enumerate()
            .take_while(|(place, item)| {
                size += u64::from(item.size);
                *place == 0 || size <= ANSWER_SIZE_MAX
            });
        let numbers = fitting.map(|(_, item)| item.number).collect();
        Ok(Outcome {
            reply: Reply::Items(name.into(), numbers),
            ..Outcome::default()
        })
    }

    fn subscribe(&self, name: &str, jid: Box<str>) -> Result<Outcome, Refusal> {
        // XEP-0060 6.1.3.1
        if bare_of(&jid) != self.visitor.bare() {
            return Err(Refusal::with(StanzaError::BadRequest, "invalid-jid"));
        }
        let node = self.node(name)?;
        self.visitor.may_read(node)?;
        let mut changed = node.clone();
        let is_new = !changed.subscriptions.contains(&jid);
        let all = changed.subscriptions.iter();
        let own = all.filter(|known| bare_of(known) == self.visitor.bare());
        // XEP-0060 6.1.3.9
        if is_new
            && (own.count() >= SUBSCRIPTIONS_PER_JID_MAX
                || changed.subscriptions.len() >= SUBSCRIPTIONS_MAX)
        {
            return Err(Refusal::with(
                StanzaError::PolicyViolation,
                "too-many-subscriptions",
            ));
        }
        let sends_last = node.config.notifies && node.config.send_last != SendLast::Never;
        let mut payload = b"<pubsub xmlns='http://jabber.org/protocol/pubsub'>".to_vec();
        write_subscription(Some(name), &jid, &mut payload);
        payload.extend_from_slice(b"</pubsub>");
        let reply = Reply::Payload(payload);
        let last_for = sends_last.then(|| (jid.clone(), name.into()));
        if !is_new {
            return Ok(Outcome {
                reply,
                last_for,
                ..Outcome::default()
            });
        }
        changed.subscriptions.push(jid);
        Ok(Outcome {
            reply,
            last_for,
            ..Outcome::change(changed)
        })
    }

    fn unsubscribe(&self, name: &str, jid: &str) -> Result<Outcome, Refusal> {
        let node = self.node(name)?;
        // XEP-0060 6.2.3.3
        if bare_of(jid) != self.visitor.bare() {
            return Err(StanzaError::Forbidden.into());
        }
        let mut changed = node.clone();
        changed.subscriptions.retain(|known| **known != *jid);
        // XEP-0060 6.2.3.2
        if changed.subscriptions.len() == node.subscriptions.len() {
            return Err(Refusal::with(
                StanzaError::UnexpectedRequest,
                "not-subscribed",
            ));
        }
        Ok(Outcome::change(changed))
    }

    /// XEP-0163 7.1: who may not read a node any more is not subscribed to it.
    fn recalculate(&self, bare: &str) -> Outcome {
        let mut outcome = Outcome::default();
        for node in &self.nodes {
            let mut changed = node.clone();
            let is_his = |jid: &str| bare_of(jid) == bare;
            let may_stay = |jid: &str| !is_his(jid) || self.may_read(jid, node);
            changed.subscriptions.retain(|jid| may_stay(jid));
            if changed.subscriptions.len() < node.subscriptions.len() {
                outcome.changes.extend(Outcome::change(changed).changes);
            }
        }
        outcome
    }

    /// Whether somebody may read a node.
    fn may_read(&self, jid: &str, node: &Node) -> bool {
        let somebody = Visitor::of(self.account, self.roster, jid);
        somebody.may_read(node).is_ok()
    }

    /// Cancels the subscriptions of those who may not read a node as it is from now on.
    fn cancel_lost(&self, node: &mut Node) {
        let mut subscriptions = std::mem::take(&mut node.subscriptions);
        subscriptions.retain(|jid| self.may_read(jid, node));
        node.subscriptions = subscriptions;
    }

    fn subscriptions(&self, of: Option<&str>) -> Result<Outcome, Refusal> {
        let bare = self.visitor.bare();
        let mut payload = open("subscriptions", of);
        for node in self.those(of)? {
            let all = node.subscriptions.iter();
            let own = all.filter(|jid| bare_of(jid) == bare);
            for jid in own {
                let name = of.is_none().then_some(&*node.name);
                write_subscription(name, jid, &mut payload);
            }
        }
        payload.extend_from_slice(b"</subscriptions></pubsub>");
        Ok(Outcome::payload(payload))
    }

    fn affiliations(&self, of: Option<&str>) -> Result<Outcome, Refusal> {
        let mut payload = open("affiliations", of);
        for node in self.those(of)? {
            if let Some(affiliation) = self.visitor.affiliation(node) {
                let (name, affiliation) = (Attr(&node.name), affiliation.as_str());
                put(
                    &mut payload,
                    format_args!("<affiliation node='{name}' affiliation='{affiliation}'/>"),
                );
            }
        }
        payload.extend_from_slice(b"</affiliations></pubsub>");
        Ok(Outcome::payload(payload))
    }

    /// One node, or all.
    fn those(&self, of: Option<&str>) -> Result<&[Node], Refusal> {
        match of {
            None => Ok(&self.nodes),
            Some(name) => {
                let node = self.node(name)?;
                if self.visitor.affiliation(node) != Some(Affiliation::Outcast) {
                    self.visitor.may_read(node)?;
                }
                Ok(std::slice::from_ref(node))
            }
        }
    }
}

/// Appends a subscription of somebody to a node.
fn write_subscription(node: Option<&str>, jid: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<subscription");
    if let Some(node) = node {
        put(out, format_args!(" node='{}'", Attr(node)));
    }
    let jid = Attr(jid);
    put(
        out,
        format_args!(" jid='{jid}' subscription='subscribed'/>"),
    );
}

/// The beginning of an answer to somebody who asks for what is his.
fn open(name: &str, node: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    put(
        &mut out,
        format_args!("<pubsub xmlns='http://jabber.org/protocol/pubsub'><{name}"),
    );
    if let Some(node) = node {
        put(&mut out, format_args!(" node='{}'", Attr(node)));
    }
    out.push(b'>');
    out
}
