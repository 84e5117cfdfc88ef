//! The last items of nodes, for a resource that is available and interested, and for who subscribes
//! (XEP-0163 4.3.4).
//!
//! Invariant: whoever logs in asks for so many accounts' items at once with all others of his
//! shard, and one after another: who has thousands of contacts does not keep others waiting.

use super::rights::Visitor;
use super::service::outline;
use super::work::Job;
use crate::account::{AccountKey, Residence, Waiter};
use crate::error::put;
use crate::host::{Host, ShardId};
use crate::parcel::{Control, Parcel};
use crate::port::{Node, SendLast};
use crate::request::Asker;
use crate::router::Route;
use crate::session::{SessionHandle, SessionKey};
use crate::shard::Shard;
use crate::xep::blocking::blocks;
use crate::xep::time::utc;
use crate::xml::Attr;
use stanza::jid::{BareJid, Jid, home_hash};
use std::collections::VecDeque;
use std::sync::Arc;

/// Accounts whose last items the sessions of one shard ask for at once.
pub const LAST_ITEMS_UNDER_WAY_MAX: usize = 32;

/// Names of nodes that a resource is interested in, in order.
pub(crate) type NodeNames = Arc<[Box<str>]>;

/// Who wants the last items of which of an account's nodes.
#[derive(Debug)]
pub(crate) struct LastItems {
    pub(super) to: Box<str>,
    pub(super) wanted: Wanted,
    /// Which shard has a session that waits for them.
    asker: Option<ShardId>,
}

#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// That to which he has just subscribed.
    Subscribed(Box<str>),
    /// Those that his resource is interested in.
    Followed(NodeNames),
}

impl LastItems {
    pub(super) fn for_subscriber(to: Box<str>, node: Box<str>) -> LastItems {
        LastItems {
            to,
            wanted: Wanted::Subscribed(node),
            asker: None,
        }
    }
}

/// Sessions that are to have the last items of their contacts' nodes, those that ask next first.
#[derive(Debug, Default)]
pub(crate) struct CatchUps {
    /// Each is a request of its session, so that it has no more of them than of others.
    waiting: VecDeque<CatchUp>,
    under_way: usize,
}

#[derive(Debug)]
struct CatchUp {
    session: SessionHandle,
    nodes: NodeNames,
    /// Whom it asks next.
    next: Next,
    /// Whose input waits when it has begun many.
    asker: Option<Asker>,
}

#[derive(Debug)]
enum Next {
    /// Its own account.
    Own,
    /// The first contact behind this one.
    Behind(BareJid),
    /// The first contact.
    First,
    /// That contact and no other.
    Only(BareJid),
    /// Nobody.
    Nobody,
}

impl Shard {
    /// A session that is available is interested in these nodes of its account and its contacts.
    pub(crate) fn catch_up(&mut self, host: &mut impl Host, key: SessionKey, nodes: NodeNames) {
        self.begin_catch_up(host, key, nodes, Next::Own);
    }

    /// A contact begins to let an account's sessions know of him.
    pub(crate) fn catch_up_with(&mut self, host: &mut impl Host, key: AccountKey, of: &BareJid) {
        for session in self.accounts.at(key).sessions.clone() {
            let nodes = self.sessions.interests.of(session);
            if let Some(nodes) = nodes.filter(|_| self.sessions.at(session).available) {
                self.begin_catch_up(host, session, nodes, Next::Only(of.clone()));
            }
        }
    }

    fn begin_catch_up(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        nodes: NodeNames,
        next: Next,
    ) {
        let serial = self.sessions.at(key).serial;
        if nodes.is_empty() {
            return;
        }
        let asker = self.count_request();
        self.pubsub.catch_ups.waiting.push_back(CatchUp {
            session: SessionHandle { key, serial },
            nodes,
            next,
            asker,
        });
        self.go_on_catching_up(host);
    }

    /// Asks for whom there is room.
    fn go_on_catching_up(&mut self, host: &mut impl Host) {
        while self.pubsub.catch_ups.under_way < LAST_ITEMS_UNDER_WAY_MAX
            && let Some(mut catch_up) = self.pubsub.catch_ups.waiting.pop_front()
        {
            let Some(owner) = self.next_owner(&mut catch_up) else {
                self.end_request(host, catch_up.asker);
                continue;
            };
            let to = self.sessions.at(catch_up.session.key).full().into();
            let nodes = Arc::clone(&catch_up.nodes);
            self.pubsub.catch_ups.waiting.push_back(catch_up);
            self.pubsub.catch_ups.under_way += 1;
            match self.router.route_account(owner.as_str()) {
                Route::Shard(shard) => {
                    let account = owner;
                    let control = Control::LastItems { account, to, nodes };
                    host.forward(shard, Parcel::Control(Box::new(control)));
                }
                _ => self.on_last_items(host, self.id, &owner, to, nodes),
            }
        }
    }

    /// Whose last items a session asks for next.
    fn next_owner(&mut self, catch_up: &mut CatchUp) -> Option<BareJid> {
        let SessionHandle { key, serial } = catch_up.session;
        let session = self.session_of(key, serial)?;
        if !session.available || session.is_leaving() {
            return None;
        }
        let key = session.account;
        let account = self.accounts.at(key);
        let from = match std::mem::replace(&mut catch_up.next, Next::Nobody) {
            Next::Own if !account.has_no_nodes => {
                catch_up.next = Next::First;
                return Some(account.jid.clone());
            }
            Next::Only(contact) => return Some(contact),
            Next::Nobody => return None,
            Next::Own | Next::First => 0,
            Next::Behind(last) => account.roster.partition_point(|item| item.contact <= last),
        };
        let mut behind = account.roster[from..].iter();
        let is_followed = |contact: &BareJid| {
            let is_blocked = blocks(&account.blocked, &contact.as_jid());
            !is_blocked && self.router.is_local(contact.domain()) && !self.has_no_nodes(contact)
        };
        let next = behind.find(|item| item.subscription.is_to() && is_followed(&item.contact))?;
        catch_up.next = Next::Behind(next.contact.clone());
        Some(next.contact.clone())
    }

    /// Whether an account is known to have nothing to say.
    fn has_no_nodes(&self, contact: &BareJid) -> bool {
        match self.router.route_account(contact.as_str()) {
            Route::Here(hash) => {
                let found = self.accounts.find(hash, contact.as_str());
                found.is_some_and(|key| self.accounts.at(key).has_no_nodes)
            }
            _ => false,
        }
    }

    /// A session of this shard or a sibling wants the last items of an account at home here.
    pub(crate) fn on_last_items(
        &mut self,
        host: &mut impl Host,
        from: ShardId,
        account: &BareJid,
        to: Box<str>,
        nodes: NodeNames,
    ) {
        let wanted = LastItems {
            to,
            wanted: Wanted::Followed(nodes),
            asker: Some(from),
        };
        let found = self
            .accounts
            .find(home_hash(account.as_str()), account.as_str());
        let key = match found {
            Some(key) => key,
            None => self.load(host, account.clone()),
        };
        let account = self.accounts.at_mut(key);
        match &mut account.residence {
            Residence::Loading(queue) => queue.push(Waiter::LastItems(Box::new(wanted))),
            Residence::Resident if account.has_no_nodes || account.is_anonymous => {
                // Whoever is in the midst of asking goes on to the next account himself.
                match from == self.id {
                    true => self.pubsub.catch_ups.under_way -= 1,
                    false => self.tell_last_sent(host, &wanted),
                }
            }
            Residence::Resident => self.enqueue_job(host, key, Job::Last(wanted)),
        }
    }

    /// The same for an account that is in memory.
    pub(crate) fn begin_last_items(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        wanted: LastItems,
    ) {
        let account = self.accounts.at(key);
        match account.has_no_nodes || account.is_anonymous {
            true => self.tell_last_sent(host, &wanted),
            false => self.enqueue_job(host, key, Job::Last(wanted)),
        }
    }

    /// The last items that somebody gets, each with its number; the first comes last.
    pub(super) fn last_items_for(
        &self,
        key: AccountKey,
        nodes: Vec<Node>,
        to: &str,
        wanted: &Wanted,
    ) -> Vec<(Node, u64)> {
        let account = self.accounts.at(key);
        let jid = Jid::from_prepared(to);
        let visitor = Visitor::at(account, to);
        if blocks(&account.blocked, &jid) {
            return Vec::new();
        }
        let is_due = |node: &Node| match (wanted, node.config.send_last) {
            (_, SendLast::Never) => false,
            (Wanted::Subscribed(name), _) => *name == node.name,
            (_, SendLast::OnSubscription) => false,
            (Wanted::Followed(names), _) => {
                names.binary_search(&node.name).is_ok() && visitor.sees_presence()
            }
        };
        let due = nodes
            .into_iter()
            .rev()
            .filter(|node| node.config.notifies && is_due(node) && visitor.may_read(node).is_ok());
        due.filter_map(|node| {
            let last = node.items.last()?.clone();
            let number = last.number;
            let mut node = outline(&node);
            node.items.push(last);
            Some((node, number))
        })
        .collect()
    }

    /// Sends one of them.
    pub(super) fn send_last(
        &mut self,
        host: &mut impl Host,
        key: AccountKey,
        to: &str,
        node: &Node,
        item: &[u8],
    ) {
        let Some(last) = node.items.last() else {
            return;
        };
        let from = Attr(self.accounts.at(key).jid.as_str());
        let mut bytes = Vec::with_capacity(item.len() + 512);
        put(
            &mut bytes,
            format_args!(
                "<message from='{from}' to='{}' type='headline'>\
                 <event xmlns='http://jabber.org/protocol/pubsub#event'><items node='{}'>",
                Attr(to),
                Attr(&node.name)
            ),
        );
        match node.config.delivers_payloads {
            true => bytes.extend_from_slice(item),
            false => put(&mut bytes, format_args!("<item id='{}'/>", Attr(&last.id))),
        }
        put(
            &mut bytes,
            format_args!(
                "</items></event><delay xmlns='urn:xmpp:delay' stamp='{}'/></message>",
                utc(last.at)
            ),
        );
        self.route_bytes(host, &Jid::from_prepared(to), bytes);
    }

    /// Somebody has what he wanted of an account.
    pub(crate) fn tell_last_sent(&mut self, host: &mut impl Host, wanted: &LastItems) {
        match wanted.asker {
            None => {}
            Some(shard) if shard == self.id => self.on_last_sent(host),
            Some(shard) => {
                host.forward(shard, Parcel::Control(Box::new(Control::LastItemsSent)));
            }
        }
    }

    /// One of those whose last items were asked for has sent them.
    pub(crate) fn on_last_sent(&mut self, host: &mut impl Host) {
        debug_assert!(
            self.pubsub.catch_ups.under_way > 0,
            "nothing is sent unasked"
        );
        self.pubsub.catch_ups.under_way -= 1;
        self.go_on_catching_up(host);
    }

    /// Accounts whose last items are asked for.
    pub fn last_items_under_way(&self) -> usize {
        self.pubsub.catch_ups.under_way
    }
}
