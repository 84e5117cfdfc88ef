//! One side of a pair of contacts: its state by RFC 6121 A.1, the item that its client sees, and
//! accounts that are made with both, whatever the contact's own roster says.

use super::{DOMAIN, Element};

/// A state of RFC 6121 A.1, by its own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) subscription: &'static str,
    pub(crate) pending_out: bool,
    pub(crate) pending_in: bool,
}

const fn state(subscription: &'static str, pending_out: bool, pending_in: bool) -> State {
    State {
        subscription,
        pending_out,
        pending_in,
    }
}

pub(crate) const NONE: State = state("none", false, false);
pub(crate) const NONE_OUT: State = state("none", true, false);
pub(crate) const NONE_IN: State = state("none", false, true);
pub(crate) const NONE_OUT_IN: State = state("none", true, true);
pub(crate) const TO: State = state("to", false, false);
pub(crate) const TO_IN: State = state("to", false, true);
pub(crate) const FROM: State = state("from", false, false);
pub(crate) const FROM_OUT: State = state("from", true, false);
pub(crate) const BOTH: State = state("both", false, false);

pub(crate) const STATES: [State; 9] = [
    NONE,
    NONE_OUT,
    NONE_IN,
    NONE_OUT_IN,
    TO,
    TO_IN,
    FROM,
    FROM_OUT,
    BOTH,
];

impl State {
    /// What the other side is in where both agree.
    pub(crate) fn mirrored(self) -> State {
        let subscription = match self.subscription {
            "to" => "from",
            "from" => "to",
            other => other,
        };
        state(subscription, self.pending_in, self.pending_out)
    }

    /// Whether the contact is subscribed.
    pub(crate) fn is_from(self) -> bool {
        matches!(self.subscription, "from" | "both")
    }
}

/// What an account holds of a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) state: State,
    /// Whether the contact is in the roster: who only asked is not.
    pub(crate) listed: bool,
    /// RFC 6121 3.4.
    pub(crate) approved: bool,
}

/// A roster item as a client sees it (RFC 6121 2.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) subscription: String,
    pub(crate) ask: bool,
    pub(crate) approved: bool,
}

impl Item {
    /// The item of a contact in a roster or a push.
    pub(crate) fn find(iq: &Element, contact: &str) -> Option<Item> {
        let mut items = iq.child("query")?.children.iter();
        let item = items.find(|item| item.attr("jid") == Some(contact))?;
        Some(Item {
            subscription: item.attr("subscription").unwrap_or("none").to_owned(),
            ask: item.attr("ask") == Some("subscribe"),
            approved: matches!(item.attr("approved"), Some("true" | "1")),
        })
    }
}

impl Entry {
    /// In the roster, and not approved in advance.
    pub(crate) fn listed(state: State) -> Entry {
        Entry {
            state,
            listed: true,
            approved: false,
        }
    }

    /// What the account's own client sees; a request is no part of it.
    pub(crate) fn item(self) -> Option<Item> {
        self.listed.then(|| Item {
            subscription: self.state.subscription.to_owned(),
            ask: self.state.pending_out,
            approved: self.approved,
        })
    }

    /// An account that holds it, as [`account`] makes one of more.
    pub(crate) fn account(self, name: &str, contact: &str) -> String {
        account(name, &[(self, contact)])
    }

    fn write(self, contact: &str) -> String {
        let item = self.item().map(|item| {
            let ask = if item.ask { " ask='subscribe'" } else { "" };
            let (subscription, approved) = (item.subscription, item.approved);
            format!(
                "<item jid='{contact}@{DOMAIN}' subscription='{subscription}'{ask} \
                 approved='{approved}'/>"
            )
        });
        item.unwrap_or_default()
    }
}

/// An account with what it holds of others, as a `<user/>` of XEP-0227 for
/// [`super::Server::import`].
pub(crate) fn account(name: &str, contacts: &[(Entry, &str)]) -> String {
    // The keys of the password of all accounts, of one round: a test may log in thousands.
    const KEYS: &str = "<scram-credentials xmlns='urn:xmpp:pie:0#scram' \
         mechanism='SCRAM-SHA-1'><iter-count>1</iter-count>\
         <salt>c2FsdCBvZiB0ZXN0cw==</salt>\
         <stored-key>1sBVACP05NabiwCXFJYLfl6+ZWk=</stored-key>\
         <server-key>IAbQmvzwMzqwMZWlpHWop6sMc5U=</server-key></scram-credentials>";
    let items: String = contacts
        .iter()
        .map(|(entry, contact)| entry.write(contact))
        .collect();
    let asks = contacts.iter().filter(|(entry, _)| entry.state.pending_in);
    let requests: String = asks
        .map(|(_, contact)| {
            format!("<presence xmlns='jabber:client' type='subscribe' from='{contact}@{DOMAIN}'/>")
        })
        .collect();
    format!(
        "<user name='{name}'>{KEYS}<query xmlns='jabber:iq:roster'>{items}</query>{requests}</user>"
    )
}
