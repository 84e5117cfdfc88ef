//! What owners do with their nodes (XEP-0060 8).

use super::{AFFILIATIONS_MAX, Event, Outcome, SUBSCRIPTIONS_MAX, Service};
use super::{outline, write_subscription};
use crate::error::{StanzaError, put};
use crate::port::{Affiliation, Node, NodeChange, NodeConfig};
use crate::xep::pubsub::form::{Fields, apply, write_config};
use crate::xep::pubsub::refusal::Refusal;
use crate::xml::Attr;

impl Service<'_> {
    /// A node of the account that is not there yet.
    pub(super) fn fresh(&self, name: &str) -> Result<Node, Refusal> {
        if self.nodes.len() >= self.limits.nodes_max {
            return Err(Refusal::with(
                StanzaError::ResourceConstraint,
                "max-nodes-exceeded",
            ));
        }
        Ok(Node::new(name, NodeConfig::default()))
    }

    pub(super) fn create(
        &mut self,
        name: Option<Box<str>>,
        fields: &Fields,
    ) -> Result<Outcome, Refusal> {
        if !self.visitor.is_account {
            return Err(StanzaError::Forbidden.into());
        }
        // XEP-0060 8.1.2: an instant node is told its name.
        let is_instant = name.is_none();
        let name = name.unwrap_or_else(|| {
            let (high, low) = ((self.random)(), (self.random)());
            format!("{high:016x}{low:016x}").into()
        });
        if self.find(&name).is_some() {
            return Err(StanzaError::Conflict.into());
        }
        let mut node = self.fresh(&name)?;
        apply(&mut node.config, fields)?;
        let outcome = Outcome::change(node);
        if !is_instant {
            return Ok(outcome);
        }
        let mut payload = Vec::new();
        put(
            &mut payload,
            format_args!(
                "<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='{}'/></pubsub>",
                Attr(&name)
            ),
        );
        Ok(Outcome {
            changes: outcome.changes,
            ..Outcome::payload(payload)
        })
    }

    pub(super) fn default_configuration(&self) -> Result<Outcome, Refusal> {
        let mut payload = begin("default", None);
        write_config(&NodeConfig::default(), &mut payload);
        payload.extend_from_slice(b"</default></pubsub>");
        Ok(Outcome::payload(payload))
    }

    pub(super) fn configuration(&self, name: &str) -> Result<Outcome, Refusal> {
        let node = self.owned(name)?;
        let mut payload = begin("configure", Some(name));
        write_config(&node.config, &mut payload);
        payload.extend_from_slice(b"</configure></pubsub>");
        Ok(Outcome::payload(payload))
    }

    pub(super) fn configure(
        &self,
        name: &str,
        fields: Option<&Fields>,
    ) -> Result<Outcome, Refusal> {
        let node = self.owned(name)?;
        let Some(fields) = fields else {
            return Ok(Outcome::default());
        };
        let mut changed = node.clone();
        apply(&mut changed.config, fields)?;
        let access = |node: &Node| (node.config.access, node.config.groups.clone());
        if access(node) != access(&changed) {
            self.cancel_lost(&mut changed);
        }
        let kept = match changed.config.persists {
            true => self.items_max(&changed),
            false => 0,
        };
        let surplus = changed.items.len().saturating_sub(kept);
        let remove = changed.items.drain(..surplus).map(|item| item.number);
        let remove = remove.collect();
        let mut content = Vec::new();
        put(
            &mut content,
            format_args!("<configuration node='{}'/>", Attr(name)),
        );
        let event = Event {
            node: outline(&changed),
            content,
        };
        let tells = changed.config.notifies_config;
        Ok(Outcome {
            events: tells.then_some(event).into_iter().collect(),
            changes: vec![NodeChange {
                name: name.into(),
                node: Some(Box::new(changed)),
                put: Vec::new(),
                remove,
            }],
            ..Outcome::default()
        })
    }

    pub(super) fn delete(&self, name: &str) -> Result<Outcome, Refusal> {
        let node = self.owned(name)?;
        let mut content = Vec::new();
        put(
            &mut content,
            format_args!("<delete node='{}'/>", Attr(name)),
        );
        let event = Event {
            node: outline(node),
            content,
        };
        Ok(Outcome {
            events: node
                .config
                .notifies_delete
                .then_some(event)
                .into_iter()
                .collect(),
            changes: vec![NodeChange {
                name: name.into(),
                node: None,
                put: Vec::new(),
                remove: Vec::new(),
            }],
            takes_away: true,
            ..Outcome::default()
        })
    }

    pub(super) fn list_subscriptions(&self, name: &str) -> Result<Outcome, Refusal> {
        let node = self.owned(name)?;
        let mut payload = begin("subscriptions", Some(name));
        for jid in &node.subscriptions {
            write_subscription(None, jid, &mut payload);
        }
        payload.extend_from_slice(b"</subscriptions></pubsub>");
        Ok(Outcome::payload(payload))
    }

    pub(super) fn set_subscriptions(
        &self,
        name: &str,
        all: Vec<(Box<str>, bool)>,
    ) -> Result<Outcome, Refusal> {
        let mut changed = self.owned(name)?.clone();
        for (jid, is_subscribed) in all {
            changed.subscriptions.retain(|known| *known != jid);
            if is_subscribed {
                changed.subscriptions.push(jid);
            }
        }
        match changed.subscriptions.len() <= SUBSCRIPTIONS_MAX {
            true => Ok(Outcome::change(changed)),
            false => Err(Refusal::with(
                StanzaError::PolicyViolation,
                "too-many-subscriptions",
            )),
        }
    }

    pub(super) fn list_affiliations(&self, name: &str) -> Result<Outcome, Refusal> {
        let node = self.owned(name)?;
        let mut payload = begin("affiliations", Some(name));
        let account = (self.account.as_str(), Affiliation::Owner);
        let all = node.affiliations.iter().map(|(jid, what)| (&**jid, *what));
        for (jid, affiliation) in std::iter::once(account).chain(all) {
            let (jid, affiliation) = (Attr(jid), affiliation.as_str());
            put(
                &mut payload,
                format_args!("<affiliation jid='{jid}' affiliation='{affiliation}'/>"),
            );
        }
        payload.extend_from_slice(b"</affiliations></pubsub>");
        Ok(Outcome::payload(payload))
    }

    pub(super) fn set_affiliations(
        &self,
        name: &str,
        all: Vec<(Box<str>, Option<Affiliation>)>,
    ) -> Result<Outcome, Refusal> {
        let mut changed = self.owned(name)?.clone();
        for (jid, affiliation) in all {
            // XEP-0060 8.9.2.4: a node does not lose its owner.
            if *jid == *self.account.as_str() {
                if affiliation != Some(Affiliation::Owner) {
                    return Err(StanzaError::NotAcceptable.into());
                }
                continue;
            }
            changed.affiliations.retain(|(known, _)| *known != jid);
            if let Some(affiliation) = affiliation {
                changed.affiliations.push((jid, affiliation));
            }
        }
        self.cancel_lost(&mut changed);
        match changed.affiliations.len() <= AFFILIATIONS_MAX {
            true => Ok(Outcome::change(changed)),
            false => Err(StanzaError::ResourceConstraint.into()),
        }
    }
}

/// The beginning of an answer to an owner.
fn begin(name: &str, node: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    put(
        &mut out,
        format_args!("<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><{name}"),
    );
    if let Some(node) = node {
        put(&mut out, format_args!(" node='{}'", Attr(node)));
    }
    out.push(b'>');
    out
}
