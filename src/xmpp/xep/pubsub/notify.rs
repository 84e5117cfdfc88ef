//! Who is told of what happens to a node (XEP-0163 4).
//!
//! Invariant: somebody is told only of what he may read at that moment; and each of his resources
//! is told once.

use super::rights::{Visitor, bare_of};
use super::service::Event;
use crate::account::AccountKey;
use crate::error::put;
use crate::host::Host;
use crate::parcel::{Buffer, FanoutPurpose};
use crate::port::Node;
use crate::presence::{Chosen, write_target};
use crate::router::Route;
use crate::session::Presence;
use crate::shard::Shard;
use crate::xep::blocking::blocks;
use crate::xml::Attr;
use stanza::jid::{Jid, home_hash};
use stanza::writer::escape_attr;

/// What stands before somebody who has asked to be told; no JID begins with it.
const SUBSCRIBER_SIGN: u8 = b'/';

impl Shard {
    /// Tells those who follow a node of an account: its own resources, contacts who get its
    /// presence, and who has subscribed.
    pub(super) fn tell_of_node(&mut self, host: &mut impl Host, key: AccountKey, event: &Event) {
        let node = &event.node;
        if !node.config.notifies {
            return;
        }
        let message = message(self.accounts.at(key).jid.as_str(), &event.content);
        let (mut own, mut abroad) = (Buffer::new(), Vec::new());
        write_target(&node.name, &mut own);
        for target in self.audience(key, node) {
            let bare = bare_of(target.trim_start_matches('/'));
            match self.router.route(&Jid::from_prepared(bare)) {
                Route::Here(_) => write_target(&target, &mut own),
                // What resources there are interested in is not known; who asked for it is.
                Route::Component(id) => {
                    abroad.extend(target.strip_prefix('/').map(|to| (id, to.to_owned())));
                }
                Route::Shard(shard) => {
                    let slot = &mut self.fanout[usize::from(shard.0)];
                    let targets = slot.get_or_insert_with(|| {
                        let mut targets = host.buffer();
                        write_target(&node.name, &mut targets);
                        targets
                    });
                    write_target(&target, targets);
                }
                Route::Server | Route::Remote => {}
            }
        }
        for (id, to) in abroad {
            self.tell_component(host, id, &message, &to);
        }
        let chosen = Chosen::all_but(self.accounts.at(key).blocked.clone());
        self.flush_fanout(host, &message, FanoutPurpose::Event, &chosen);
        let own = String::from_utf8_lossy(&own);
        self.deliver_event(host, &own, &chosen, message.halves());
    }

    /// Those who may be told of a node: bare JIDs, whose resources say themselves whether they are
    /// interested; and, each behind a slash, who has subscribed.
    fn audience(&self, key: AccountKey, node: &Node) -> Vec<Box<str>> {
        let account = self.accounts.at(key);
        let is_told = |jid: &str| {
            let to = Jid::from_prepared(jid);
            let is_blocked = blocks(&account.blocked, &to);
            !is_blocked
                && !matches!(self.router.route(&to), Route::Remote)
                && Visitor::at(account, jid).may_read(node).is_ok()
        };
        let subscribers = node.subscriptions.iter().filter(|jid| is_told(jid));
        let mut audience: Vec<Box<str>> = subscribers.map(|jid| format!("/{jid}").into()).collect();
        let contacts = account.roster.iter();
        let contacts = contacts.filter(|item| item.subscription.is_from());
        let contacts = contacts.map(|item| item.contact.as_str());
        let own = std::iter::once(account.jid.as_str());
        // Who has subscribed by a bare JID is told by that.
        let has_asked = |jid: &str| node.subscriptions.iter().any(|known| **known == *jid);
        let others = own.chain(contacts);
        audience.extend(
            others
                .filter(|jid| !has_asked(jid) && is_told(jid))
                .map(Box::from),
        );
        audience
    }

    /// Tells the resources of those targets at home here that are interested, and the subscribers.
    /// The first line of the targets is the node's name.
    pub(crate) fn deliver_event(
        &mut self,
        host: &mut impl Host,
        targets: &str,
        chosen: &Chosen,
        (head, tail): (&[u8], &[u8]),
    ) {
        let mut lines = targets.lines();
        let node = lines.next().unwrap_or_default();
        let mut receivers: Vec<Box<str>> = Vec::new();
        for target in lines.clone() {
            let jid = target.trim_start_matches('/');
            let is_subscriber = target.as_bytes().first() == Some(&SUBSCRIBER_SIGN);
            let to = Jid::from_prepared(jid);
            let interested = self.interested(to.bare(), node, chosen);
            if !is_subscriber || to.is_bare() && !interested.is_empty() {
                receivers.extend(interested);
                continue;
            }
            // A resource that is told as one of a contact's is told once.
            let is_told = interested.iter().any(|full| **full == *jid)
                && lines.clone().any(|target| target == to.bare());
            if !is_told {
                receivers.push(jid.into());
            }
        }
        for to in receivers {
            let mut bytes = Vec::with_capacity(head.len() + to.len() + tail.len());
            bytes.extend_from_slice(head);
            escape_attr(&to, &mut bytes);
            bytes.extend_from_slice(tail);
            self.receive(host, &bytes);
        }
    }

    /// The available resources of an account at home here that are interested in a node.
    fn interested(&self, bare: &str, node: &str, chosen: &Chosen) -> Vec<Box<str>> {
        let Some(key) = self.accounts.find(home_hash(bare), bare) else {
            return Vec::new();
        };
        let sessions = self.accounts.at(key).sessions.iter();
        let interested = sessions.filter(|key| {
            let session = self.sessions.at(**key);
            session.available && self.sessions.interests.has(**key, node) && chosen.has(session)
        });
        interested
            .map(|key| self.sessions.at(*key).full().into())
            .collect()
    }
}

/// A notification, around the place of its `to`.
pub(super) fn message(from: &str, content: &[u8]) -> Presence {
    let mut bytes = Vec::with_capacity(content.len() + from.len() + 128);
    put(
        &mut bytes,
        format_args!("<message from='{}' to='", Attr(from)),
    );
    let split = bytes.len() as u32;
    bytes.extend_from_slice(
        b"' type='headline'><event xmlns='http://jabber.org/protocol/pubsub#event'>",
    );
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(b"</event></message>");
    Presence {
        bytes: bytes.into(),
        split,
    }
}
