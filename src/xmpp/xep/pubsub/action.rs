//! What a request asks of an account's nodes.
//!
//! Invariant: an action owns all that it needs, and its texts are within their limits: it may wait
//! for storage, and for those before it.

use super::form::{self, Fields};
use super::refusal::Refusal;
use crate::error::StanzaError;
use crate::port::{Affiliation, Document};
use crate::xep::Request;
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::tree::Node as Element;

/// Bytes of a node's or an item's name.
pub(crate) const NAME_SIZE_MAX: usize = crate::port::DOCUMENT_NAME_SIZE_MAX;

/// Items or addresses that one request names.
pub(crate) const NAMED_MAX: usize = 1_000;

/// What is asked.
#[derive(Debug)]
pub(crate) enum Action {
    /// What a node is (XEP-0060 5.3, 5.4).
    Describe(Box<str>),
    /// Which nodes there are, or which items a node has (XEP-0060 5.2, 5.5).
    List(Option<Box<str>>),
    /// XEP-0060 8.1
    Create(Option<Box<str>>, Fields),
    /// XEP-0060 7.1
    Publish(Publication),
    /// XEP-0060 7.2; whether to tell of it whatever the node's configuration says.
    Retract(Box<str>, Vec<Box<str>>, bool),
    /// XEP-0060 6.5: these, or the newest of all.
    Read(Box<str>, Vec<Box<str>>, usize),
    /// XEP-0060 6.1
    Subscribe(Box<str>, Box<str>),
    /// XEP-0060 6.2
    Unsubscribe(Box<str>, Box<str>),
    /// XEP-0060 5.6: the asker's own.
    Subscriptions(Option<Box<str>>),
    /// XEP-0060 5.7: the asker's own.
    Affiliations(Option<Box<str>>),
    /// XEP-0060 8.3
    Default,
    /// XEP-0060 8.2
    Configuration(Box<str>),
    /// XEP-0060 8.2.4; without a form nothing changes.
    Configure(Box<str>, Option<Fields>),
    /// XEP-0060 8.4
    Delete(Box<str>),
    /// XEP-0060 8.5
    Purge(Box<str>),
    /// XEP-0060 8.8.1
    ListSubscriptions(Box<str>),
    /// XEP-0060 8.8.2: who is subscribed from now on and who is not.
    SetSubscriptions(Box<str>, Vec<(Box<str>, bool)>),
    /// XEP-0060 8.9.1
    ListAffiliations(Box<str>),
    /// XEP-0060 8.9.2
    SetAffiliations(Box<str>, Vec<(Box<str>, Option<Affiliation>)>),
    /// XEP-0163 7.1: what lies between the account and this bare JID has changed.
    Recalculate(Box<str>),
    /// Bookmarks are to be the same wherever they are kept.
    Adopt,
    /// A document is written of which nodes say the same.
    Put(Document),
}

/// Items to be published.
#[derive(Debug)]
pub(crate) struct Publication {
    pub node: Box<str>,
    pub items: Vec<NewItem>,
    pub options: Options,
}

/// What a publication has to do with the node's configuration.
#[derive(Debug)]
pub(crate) enum Options {
    /// Nothing.
    None,
    /// The node must be so, or is made so (XEP-0060 7.1.5).
    Expected(Fields),
    /// The node is made so; one that is there stays as it is.
    Initial(Fields),
    /// The same; one that is there must be a list of its owner's alone.
    Private(Fields),
}

/// One of them.
#[derive(Debug)]
pub(crate) struct NewItem {
    pub id: Option<Box<str>>,
    /// An element that stands on its own; empty where there is none.
    pub payload: Box<[u8]>,
}

/// Whether this service answers a request to an account, which has nodes or has none.
pub(crate) fn is_for_nodes(request: &Request<'_>, has_nodes: bool) -> bool {
    // What makes no sense is refused as where there is no account (XEP-0030 8).
    let node = request.payload.attr("node");
    let is_sound = has_nodes && !request.is_set && node.is_none_or(is_name);
    match request.payload.ns() {
        Ns::PubSub | Ns::PubSubOwner => true,
        Ns::DiscoItems => is_sound,
        Ns::DiscoInfo => is_sound && node.is_some(),
        _ => false,
    }
}

/// Whether a node may be called so: a line break would end its name among the targets of a fan-out.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_SIZE_MAX && !name.contains(char::is_control)
}

/// Reads a request.
///
/// # Errors
/// It makes no sense, or asks for what this service does not do.
pub(crate) fn read(request: &Request<'_>) -> Result<Action, Refusal> {
    let (payload, is_set) = (request.payload, request.is_set);
    match payload.ns() {
        Ns::DiscoInfo => Ok(Action::Describe(name_of(payload)?)),
        Ns::DiscoItems => Ok(Action::List(optional_name(payload)?)),
        ns if payload.name() == "pubsub" => {
            let mut children = payload.children().filter(|child| child.ns() == ns);
            let first = children.next().ok_or(StanzaError::BadRequest)?;
            match (ns, is_set) {
                (Ns::PubSub, false) => read_get(first),
                (Ns::PubSub, true) => read_set(first, children.next()),
                (_, false) => read_owners_get(first),
                (_, true) => read_owners_set(first),
            }
        }
        _ => Err(StanzaError::BadRequest.into()),
    }
}

fn read_get(asked: Element<'_>) -> Result<Action, Refusal> {
    match asked.name() {
        "items" => {
            let ids = named(asked, "item").map(|item| item.attr("id").unwrap_or_default().into());
            let count = asked.attr("max_items").map(str::parse);
            let count = count.transpose().map_err(|_| StanzaError::BadRequest)?;
            let node = name_of(asked)?;
            Ok(Action::Read(node, few(ids)?, count.unwrap_or(usize::MAX)))
        }
        "subscriptions" => Ok(Action::Subscriptions(optional_name(asked)?)),
        "affiliations" => Ok(Action::Affiliations(optional_name(asked)?)),
        "default" => Err(Refusal::unsupported("retrieve-default-sub")),
        "options" => Err(Refusal::unsupported("subscription-options")),
        _ => Err(StanzaError::BadRequest.into()),
    }
}

fn read_set(asked: Element<'_>, next: Option<Element<'_>>) -> Result<Action, Refusal> {
    match asked.name() {
        "create" => {
            let configure = next.filter(|next| next.name() == "configure");
            let fields = configure.and_then(|next| next.children().next());
            let fields = fields.map(|x| form_of(x, form::CONFIG)).transpose()?;
            let fields = fields.unwrap_or_default();
            Ok(Action::Create(optional_name(asked)?, fields))
        }
        "publish" => {
            let options = next.filter(|next| next.name() == "publish-options");
            let options = options.map(|next| {
                let x = next.children().next();
                let x = x.ok_or(StanzaError::BadRequest)?;
                form_of(x, form::OPTIONS)
            });
            Ok(Action::Publish(Publication {
                node: name_of(asked)?,
                items: named(asked, "item")
                    .map(new_item)
                    .collect::<Result<_, _>>()?,
                options: options
                    .transpose()?
                    .map_or(Options::None, Options::Expected),
            }))
        }
        "retract" => {
            let ids = named(asked, "item").map(|item| item.attr("id").unwrap_or_default().into());
            let ids: Vec<Box<str>> = few(ids)?;
            if ids.is_empty() || ids.iter().any(|id| id.is_empty()) {
                return Err(Refusal::with(StanzaError::BadRequest, "item-required"));
            }
            let tells = matches!(asked.attr("notify"), Some("true" | "1"));
            Ok(Action::Retract(name_of(asked)?, ids, tells))
        }
        "subscribe" => Ok(Action::Subscribe(name_of(asked)?, address_of(asked)?)),
        "unsubscribe" => Ok(Action::Unsubscribe(name_of(asked)?, address_of(asked)?)),
        "options" => Err(Refusal::unsupported("subscription-options")),
        _ => Err(StanzaError::BadRequest.into()),
    }
}

fn read_owners_get(asked: Element<'_>) -> Result<Action, Refusal> {
    match asked.name() {
        "default" => Ok(Action::Default),
        "configure" => Ok(Action::Configuration(name_of(asked)?)),
        "subscriptions" => Ok(Action::ListSubscriptions(name_of(asked)?)),
        "affiliations" => Ok(Action::ListAffiliations(name_of(asked)?)),
        _ => Err(StanzaError::BadRequest.into()),
    }
}

fn read_owners_set(asked: Element<'_>) -> Result<Action, Refusal> {
    let node = name_of(asked)?;
    match asked.name() {
        "configure" => {
            let x = asked.children().next().ok_or(StanzaError::BadRequest)?;
            let fields = match x.attr("type") {
                // XEP-0060 8.2.4: the owner has thought better of it.
                Some("cancel") => None,
                _ => Some(form_of(x, form::CONFIG)?),
            };
            Ok(Action::Configure(node, fields))
        }
        "delete" => Ok(Action::Delete(node)),
        "purge" => Ok(Action::Purge(node)),
        "subscriptions" => {
            let each = named(asked, "subscription").map(|one| {
                let is_subscribed = match one.attr("subscription") {
                    Some("subscribed") => true,
                    Some("none") => false,
                    _ => return Err(StanzaError::NotAcceptable.into()),
                };
                Ok((address_of(one)?, is_subscribed))
            });
            let each = each.collect::<Result<Vec<_>, Refusal>>()?;
            Ok(Action::SetSubscriptions(node, few(each.into_iter())?))
        }
        "affiliations" => {
            let each = named(asked, "affiliation").map(|one| {
                let affiliation = match one.attr("affiliation").unwrap_or_default() {
                    "none" => None,
                    text => Some(Affiliation::parse(text).ok_or(StanzaError::NotAcceptable)?),
                };
                let jid = address_of(one)?;
                Ok((Jid::from_prepared(&jid).bare().into(), affiliation))
            });
            let each = each.collect::<Result<Vec<_>, Refusal>>()?;
            Ok(Action::SetAffiliations(node, few(each.into_iter())?))
        }
        _ => Err(StanzaError::BadRequest.into()),
    }
}

fn named<'t>(parent: Element<'t>, name: &'t str) -> impl Iterator<Item = Element<'t>> {
    let ns = parent.ns();
    parent.children().filter(move |child| child.is(name, ns))
}

fn few<T>(all: impl Iterator<Item = T>) -> Result<Vec<T>, Refusal> {
    let all: Vec<T> = all.collect();
    match all.len() {
        ..=NAMED_MAX => Ok(all),
        _ => Err(StanzaError::PolicyViolation.into()),
    }
}

fn new_item(item: Element<'_>) -> Result<NewItem, Refusal> {
    let id = item.attr("id").filter(|id| !id.is_empty());
    if id.is_some_and(|id| id.len() > NAME_SIZE_MAX) {
        return Err(StanzaError::NotAcceptable.into());
    }
    let mut children = item.children();
    let mut payload = Vec::new();
    if let Some(child) = children.next() {
        // Only an element with too many namespaces cannot be written.
        let written = child.write(&mut payload);
        written.map_err(|_| StanzaError::NotAcceptable)?;
    }
    // XEP-0060 7.1.3.5
    if children.next().is_some() {
        return Err(Refusal::with(StanzaError::BadRequest, "invalid-payload"));
    }
    Ok(NewItem {
        id: id.map(Box::from),
        payload: payload.into(),
    })
}

fn form_of(x: Element<'_>, kind: &str) -> Result<Fields, Refusal> {
    form::read(x, kind).ok_or(StanzaError::BadRequest.into())
}

fn optional_name(asked: Element<'_>) -> Result<Option<Box<str>>, Refusal> {
    match asked.attr("node") {
        None | Some("") => Ok(None),
        Some(name) if !is_name(name) => Err(StanzaError::NotAcceptable.into()),
        Some(name) => Ok(Some(name.into())),
    }
}

fn name_of(asked: Element<'_>) -> Result<Box<str>, Refusal> {
    optional_name(asked)?.ok_or(Refusal::with(StanzaError::BadRequest, "nodeid-required"))
}

fn address_of(asked: Element<'_>) -> Result<Box<str>, Refusal> {
    let jid = asked.attr("jid");
    let jid = jid.ok_or(Refusal::with(StanzaError::BadRequest, "jid-required"))?;
    let jid = Jid::parse(jid).map_err(|_| Refusal::with(StanzaError::BadRequest, "invalid-jid"))?;
    Ok(jid.as_str().into())
}
