//! Publishing items and taking them back (XEP-0060 7).

use super::{Event, Outcome, Reply, Service, outline};
use crate::error::{StanzaError, put};
use crate::port::{Node, NodeChange, NodeItem};
use crate::xep::pubsub::action::{NewItem, Options, Publication};
use crate::xep::pubsub::convert::is_list;
use crate::xep::pubsub::form::{expect, prepare};
use crate::xep::pubsub::refusal::Refusal;
use crate::xml::Attr;
use std::collections::HashMap;

/// A node that is being published to.
struct Edition {
    node: Node,
    put: Vec<(u64, Box<[u8]>)>,
    remove: Vec<u64>,
    /// What the publisher is told of it.
    answer: Vec<u8>,
    /// What the others are.
    content: Vec<u8>,
}

impl Edition {
    /// Takes an item out of the node; one that this edition put there was never stored.
    fn take_out(&mut self, place: usize) {
        let number = self.node.items.remove(place).number;
        match self.put.iter().position(|(put, _)| *put == number) {
            Some(place) => drop(self.put.remove(place)),
            None => self.remove.push(number),
        }
    }
}

impl Service<'_> {
    pub(super) fn publish(&mut self, publication: Publication) -> Result<Outcome, Refusal> {
        let Publication {
            node,
            items,
            options,
        } = publication;
        let node = self.edited(&node, &options)?;
        let room = self.items_max(&node);
        if items.is_empty() && (node.config.persists || node.config.delivers_payloads) {
            return Err(Refusal::with(StanzaError::BadRequest, "item-required"));
        }
        if items.len() > room {
            return Err(Refusal::with(StanzaError::NotAllowed, "max-items-exceeded"));
        }
        let mut edition = Edition {
            node,
            put: Vec::new(),
            remove: Vec::new(),
            answer: Vec::new(),
            content: Vec::new(),
        };
        for item in items {
            self.add(&mut edition, item)?;
        }
        while edition.node.items.len() > room {
            edition.take_out(0);
        }
        Ok(self.finish(edition))
    }

    /// The node that is published to, made where it is not there.
    fn edited(&self, name: &str, options: &Options) -> Result<Node, Refusal> {
        if let Some(node) = self.find(name) {
            self.visitor.may_publish(node)?;
            if let Options::Expected(fields) = options {
                expect(&node.config, fields)?;
            }
            if matches!(options, Options::Private(_)) && !is_list(node) {
                return Err(Refusal::with(StanzaError::Conflict, "precondition-not-met"));
            }
            return Ok(node.clone());
        }
        // Only the account makes nodes; others hear what they hear of one that it does not have.
        if !self.visitor.is_account {
            return Err(StanzaError::ItemNotFound.into());
        }
        let mut node = self.fresh(name)?;
        if let Options::Expected(fields) | Options::Initial(fields) | Options::Private(fields) =
            options
        {
            prepare(&mut node.config, fields)?;
        }
        Ok(node)
    }

    fn add(&mut self, edition: &mut Edition, item: NewItem) -> Result<(), Refusal> {
        let config = &edition.node.config;
        // XEP-0060 7.1.3.6
        if item.payload.is_empty() && config.delivers_payloads {
            return Err(Refusal::with(StanzaError::BadRequest, "payload-required"));
        }
        if item.payload.len() > self.limits.item_size_max {
            return Err(Refusal::with(StanzaError::NotAcceptable, "payload-too-big"));
        }
        // XEP-0060 7.1.2: the service names what the publisher does not.
        let id = item.id.unwrap_or_else(|| {
            let (high, low) = ((self.random)(), (self.random)());
            format!("{high:016x}{low:016x}").into()
        });
        let mut bytes = Vec::with_capacity(item.payload.len() + id.len() + 64);
        put(&mut bytes, format_args!("<item id='{}'", Attr(&id)));
        if !self.visitor.is_account {
            let publisher = Attr(self.visitor.bare());
            put(&mut bytes, format_args!(" publisher='{publisher}'"));
        }
        let tag_size = bytes.len();
        bytes.push(b'>');
        bytes.extend_from_slice(&item.payload);
        bytes.extend_from_slice(b"</item>");
        put(
            &mut edition.answer,
            format_args!("<item id='{}'/>", Attr(&id)),
        );
        match config.delivers_payloads {
            true => edition.content.extend_from_slice(&bytes),
            false => {
                edition.content.extend_from_slice(&bytes[..tag_size]);
                edition.content.extend_from_slice(b"/>");
            }
        }
        if !config.persists {
            return Ok(());
        }
        // XEP-0060 12.8: it takes the place of one that is called so, and is the newest.
        let items = &edition.node.items;
        if let Some(place) = items.iter().position(|known| known.id == id) {
            edition.take_out(place);
        }
        edition.node.last += 1;
        let number = edition.node.last;
        edition.node.items.push(NodeItem {
            number,
            id,
            size: bytes.len() as u32,
            at: self.at,
        });
        edition.put.push((number, bytes.into()));
        Ok(())
    }

    fn finish(&self, edition: Edition) -> Outcome {
        let node = edition.node;
        let name = Attr(&node.name);
        let mut payload = Vec::new();
        put(
            &mut payload,
            format_args!(
                "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{name}'>"
            ),
        );
        payload.extend_from_slice(&edition.answer);
        payload.extend_from_slice(b"</publish></pubsub>");
        let event = of_items(&node, &edition.content);
        let change = NodeChange {
            name: node.name.clone(),
            node: Some(Box::new(node)),
            put: edition.put,
            remove: edition.remove,
        };
        // A node that keeps nothing and is there already stays as it is.
        let is_changed = !change.put.is_empty() || self.find(&change.name).is_none();
        Outcome {
            reply: Reply::Payload(payload),
            changes: if is_changed { vec![change] } else { Vec::new() },
            events: vec![event],
            ..Outcome::default()
        }
    }

    pub(super) fn retract(
        &self,
        name: &str,
        ids: &[Box<str>],
        tells: bool,
    ) -> Result<Outcome, Refusal> {
        let node = self.node(name)?;
        self.visitor.may_publish(node)?;
        // XEP-0060 7.2.3.5
        if !node.config.persists {
            return Err(Refusal::unsupported("persistent-items"));
        }
        let mut changed = node.clone();
        let (mut remove, mut content) = (Vec::new(), Vec::new());
        let items = node.items.iter().map(|item| (&*item.id, item.number));
        let mut known: HashMap<&str, u64> = items.collect();
        for id in ids {
            remove.push(known.remove(&**id).ok_or(StanzaError::ItemNotFound)?);
            put(&mut content, format_args!("<retract id='{}'/>", Attr(id)));
        }
        changed.items.retain(|item| known.contains_key(&*item.id));
        let tells = tells || node.config.notifies_retract;
        let events = match tells {
            true => vec![of_items(node, &content)],
            false => Vec::new(),
        };
        Ok(Outcome {
            events,
            changes: vec![NodeChange {
                name: name.into(),
                node: Some(Box::new(changed)),
                put: Vec::new(),
                remove,
            }],
            takes_away: true,
            ..Outcome::default()
        })
    }

    pub(super) fn purge(&self, name: &str) -> Result<Outcome, Refusal> {
        let node = self.owned(name)?;
        // XEP-0060 8.5.3.3
        if !node.config.persists {
            return Err(Refusal::unsupported("persistent-items"));
        }
        let mut changed = node.clone();
        let remove = changed.items.drain(..).map(|item| item.number).collect();
        let mut content = Vec::new();
        put(&mut content, format_args!("<purge node='{}'/>", Attr(name)));
        let event = Event {
            node: outline(node),
            content,
        };
        Ok(Outcome {
            events: node
                .config
                .notifies_retract
                .then_some(event)
                .into_iter()
                .collect(),
            changes: vec![NodeChange {
                name: name.into(),
                node: Some(Box::new(changed)),
                put: Vec::new(),
                remove,
            }],
            takes_away: true,
            ..Outcome::default()
        })
    }
}

/// What is told of items of a node.
fn of_items(node: &Node, items: &[u8]) -> Event {
    let mut content = Vec::with_capacity(items.len() + node.name.len() + 32);
    put(
        &mut content,
        format_args!("<items node='{}'>", Attr(&node.name)),
    );
    content.extend_from_slice(items);
    content.extend_from_slice(b"</items>");
    Event {
        node: outline(node),
        content,
    }
}
