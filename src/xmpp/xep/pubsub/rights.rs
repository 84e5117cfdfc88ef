//! Who may do what with a node (XEP-0060 4).

use super::refusal::Refusal;
use crate::account::Account;
use crate::error::StanzaError;
use crate::port::{AccessModel, Affiliation, Node, PublishModel, RosterItem};
use stanza::jid::BareJid;
pub(super) use stanza::jid::bare_of;

/// Somebody, as an account knows him.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor<'a> {
    /// His address, with the resource that he speaks by or without.
    pub jid: &'a str,
    /// Whether he is the account itself.
    pub is_account: bool,
    /// What its roster says of him.
    pub item: Option<&'a RosterItem>,
}

impl<'a> Visitor<'a> {
    /// Somebody at an account in memory.
    pub(super) fn at(account: &'a Account, jid: &'a str) -> Visitor<'a> {
        Visitor::of(&account.jid, &account.roster, jid)
    }

    /// Somebody at an account with this roster, which is sorted by contact.
    pub(super) fn of(account: &BareJid, roster: &'a [RosterItem], jid: &'a str) -> Visitor<'a> {
        let bare = bare_of(jid);
        let place = roster.binary_search_by(|item| item.contact.as_str().cmp(bare));
        Visitor {
            jid,
            is_account: bare == account.as_str(),
            item: place.ok().map(|place| &roster[place]),
        }
    }

    pub(super) fn bare(&self) -> &str {
        bare_of(self.jid)
    }

    /// Whether he gets the account's presence.
    pub(super) fn sees_presence(&self) -> bool {
        self.is_account || self.item.is_some_and(|item| item.subscription.is_from())
    }

    /// What he is to a node.
    pub(super) fn affiliation(&self, node: &Node) -> Option<Affiliation> {
        if self.is_account {
            return Some(Affiliation::Owner);
        }
        let bare = self.bare();
        let mut all = node.affiliations.iter();
        let found = all.find(|(jid, _)| **jid == *bare);
        found.map(|(_, affiliation)| *affiliation)
    }

    /// Whether he may subscribe to a node and read it.
    ///
    /// # Errors
    /// Why not (XEP-0060 6.1.3, 6.5.9).
    pub(super) fn may_read(&self, node: &Node) -> Result<(), Refusal> {
        match self.affiliation(node) {
            Some(Affiliation::Outcast) => return Err(StanzaError::Forbidden.into()),
            Some(_) => return Ok(()),
            None => {}
        }
        match node.config.access {
            AccessModel::Open => Ok(()),
            AccessModel::Presence | AccessModel::Roster if !self.sees_presence() => Err(
                Refusal::with(StanzaError::NotAuthorized, "presence-subscription-required"),
            ),
            AccessModel::Presence => Ok(()),
            AccessModel::Roster => {
                let mut groups = self.item.iter().flat_map(|item| &item.groups);
                match groups.any(|group| node.config.groups.contains(group)) {
                    true => Ok(()),
                    false => Err(Refusal::with(
                        StanzaError::NotAuthorized,
                        "not-in-roster-group",
                    )),
                }
            }
            AccessModel::Whitelist => Err(Refusal::with(StanzaError::NotAllowed, "closed-node")),
        }
    }

    /// Whether he may publish to a node.
    ///
    /// # Errors
    /// He may not (XEP-0060 7.1.3.1).
    pub(super) fn may_publish(&self, node: &Node) -> Result<(), Refusal> {
        let may = match self.affiliation(node) {
            Some(Affiliation::Owner | Affiliation::Publisher) => true,
            Some(Affiliation::Outcast) => false,
            Some(Affiliation::Member) | None => match node.config.publish {
                PublishModel::Publishers => false,
                PublishModel::Subscribers => self.is_subscribed(node),
                PublishModel::Open => self.may_read(node).is_ok(),
            },
        };
        match may {
            true => Ok(()),
            false => Err(StanzaError::Forbidden.into()),
        }
    }

    fn is_subscribed(&self, node: &Node) -> bool {
        let bare = self.bare();
        let mut all = node.subscriptions.iter();
        self.may_read(node).is_ok() && all.any(|jid| bare_of(jid) == bare)
    }

    /// Whether he does with a node whatever can be done.
    ///
    /// # Errors
    /// He does not.
    pub(super) fn owns(&self, node: &Node) -> Result<(), Refusal> {
        match self.affiliation(node) {
            Some(Affiliation::Owner) => Ok(()),
            _ => Err(StanzaError::Forbidden.into()),
        }
    }
}
