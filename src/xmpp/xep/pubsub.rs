//! XEP-0060: Publish-Subscribe, as far as accounts need it that are services of their own.
//!
//! Invariant: the nodes of an account are read, changed and told of by one request at a time, and
//! a change is answered and told when storage has it.

mod action;
mod convert;
pub(super) mod form;
mod last;
mod notify;
mod refusal;
mod rights;
mod service;
mod work;

pub(crate) use action::{Action, NAME_SIZE_MAX, NewItem, Options, Publication, is_for_nodes};
pub(crate) use form::private_options;
pub(crate) use last::{LastItems, NodeNames};
pub(crate) use work::PubSub;

pub use last::LAST_ITEMS_UNDER_WAY_MAX;
pub use service::{
    AFFILIATIONS_MAX, ANSWER_SIZE_MAX, SUBSCRIPTIONS_MAX, SUBSCRIPTIONS_PER_JID_MAX,
    SUBSCRIPTIONS_SIZE_MAX,
};
pub use work::{JOBS_PER_ACCOUNT_MAX, STRANGERS_JOBS_MAX};

use super::{Extension, Xep};
use crate::port::NodeConfig;
use stanza::ns::Ns;

/// The values of a form's fields, by their names.
pub type FormFields = Vec<(Box<str>, Vec<Box<str>>)>;

/// The configuration that a form's fields ask for (XEP-0060 16.4.4), at its default where they say
/// nothing; fields that no node has are passed over. `None` where no node here can be so.
pub fn configured(fields: &FormFields) -> Option<NodeConfig> {
    let mut config = NodeConfig::default();
    form::apply(&mut config, fields).ok()?;
    Some(config)
}

/// Appends the form by which a node is configured, filled in.
pub fn write_configuration(config: &NodeConfig, out: &mut Vec<u8>) {
    form::write_config(config, out);
}

/// Whether a node may be called so.
pub fn is_node_name(name: &str) -> bool {
    action::is_name(name)
}

/// What accounts do of it. The server itself is no such service, and announces nothing.
#[derive(Debug)]
pub struct PubSubCore;

impl Extension for PubSubCore {
    const XEP: Xep = Xep {
        number: 60,
        version: "1.30.0",
    };
    /// The shard answers for accounts; what is asked of the server is refused.
    const NAMESPACES: &'static [Ns] = &[Ns::PubSub, Ns::PubSubOwner];
}

/// XEP-0163: Personal Eventing Protocol. What an account says that it does.
#[derive(Debug)]
pub struct PersonalEventing;

impl Extension for PersonalEventing {
    const XEP: Xep = Xep {
        number: 163,
        version: "1.2.2",
    };
}

/// XEP-0222: Persistent Storage of Public Data via PubSub. It needs nothing of its own: nodes keep
/// what is published to them, and publish-options say that they are open.
#[derive(Debug)]
pub struct PublicData;

impl Extension for PublicData {
    const XEP: Xep = Xep {
        number: 222,
        version: "1.0",
    };
}

/// XEP-0223: Persistent Storage of Private Data via PubSub. The same, by a whitelist of nobody.
#[derive(Debug)]
pub struct PrivateData;

impl Extension for PrivateData {
    const XEP: Xep = Xep {
        number: 223,
        version: "1.1.1",
    };
}

/// What an account announces (XEP-0060 10, XEP-0163 6.1).
pub(super) const FEATURES: &[&str] = &[
    "http://jabber.org/protocol/pubsub",
    "http://jabber.org/protocol/pubsub#access-presence",
    "http://jabber.org/protocol/pubsub#auto-create",
    "http://jabber.org/protocol/pubsub#auto-subscribe",
    "http://jabber.org/protocol/pubsub#config-node",
    "http://jabber.org/protocol/pubsub#config-node-max",
    "http://jabber.org/protocol/pubsub#create-and-configure",
    "http://jabber.org/protocol/pubsub#create-nodes",
    "http://jabber.org/protocol/pubsub#delete-items",
    "http://jabber.org/protocol/pubsub#delete-nodes",
    "http://jabber.org/protocol/pubsub#filtered-notifications",
    "http://jabber.org/protocol/pubsub#instant-nodes",
    "http://jabber.org/protocol/pubsub#item-ids",
    "http://jabber.org/protocol/pubsub#last-published",
    "http://jabber.org/protocol/pubsub#manage-subscriptions",
    "http://jabber.org/protocol/pubsub#member-affiliation",
    "http://jabber.org/protocol/pubsub#meta-data",
    "http://jabber.org/protocol/pubsub#modify-affiliations",
    "http://jabber.org/protocol/pubsub#multi-items",
    "http://jabber.org/protocol/pubsub#outcast-affiliation",
    "http://jabber.org/protocol/pubsub#persistent-items",
    "http://jabber.org/protocol/pubsub#presence-subscribe",
    "http://jabber.org/protocol/pubsub#publish",
    "http://jabber.org/protocol/pubsub#publish-options",
    "http://jabber.org/protocol/pubsub#publisher-affiliation",
    "http://jabber.org/protocol/pubsub#purge-nodes",
    "http://jabber.org/protocol/pubsub#retract-items",
    "http://jabber.org/protocol/pubsub#retrieve-affiliations",
    "http://jabber.org/protocol/pubsub#retrieve-default",
    "http://jabber.org/protocol/pubsub#retrieve-items",
    "http://jabber.org/protocol/pubsub#retrieve-subscriptions",
    "http://jabber.org/protocol/pubsub#subscribe",
];
