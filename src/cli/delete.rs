//! What the end of an account means to its contacts where no server runs that would tell them.

use stanza::jid::BareJid;
use xmpp::Timestamp;
use xmpp::port::{RosterItem, Store, StoreOp, StoreReply};
use xmpp::subscription::parted;

/// The writes by which no contact of an account has a subscription with it any more; `domain` is
/// the store's. To be committed with the account's deletion, by whoever alone has the store.
pub(crate) fn partings(
    store: &mut dyn Store,
    account: &BareJid,
    domain: &str,
    now: Timestamp,
) -> Vec<StoreOp> {
    let mut ops = Vec::new();
    for item in roster(store, account) {
        if item.contact.domain() != domain || item.contact == *account {
            continue;
        }
        let others = roster(store, &item.contact);
        let version = others.iter().map(|item| item.changed).max().unwrap_or(0);
        let of_it = others.iter().find(|item| item.contact == *account);
        let Some(left) = of_it.and_then(|item| parted(item, version, now)) else {
            continue;
        };
        let owner = item.contact;
        ops.push(match left.is_blank() {
            true => StoreOp::RemoveRosterItem {
                account: owner,
                contact: account.clone(),
            },
            false => StoreOp::PutRosterItem {
                account: owner,
                item: Box::new(left),
            },
        });
    }
    ops
}

/// The roster of an account. What cannot be read does not keep an account from being deleted.
fn roster(store: &mut dyn Store, account: &BareJid) -> Vec<RosterItem> {
    let mut replies = Vec::new();
    let op = StoreOp::Account {
        account: account.clone(),
    };
    store.perform(&mut std::iter::once(op), &mut replies);
    match replies.pop() {
        Some(StoreReply::Account(data)) => data.map(|data| data.roster).unwrap_or_default(),
        Some(StoreReply::Failed(text)) => {
            let name = account.as_str();
            eprintln!("vorpal: The roster of {name} cannot be read; subscriptions stay: {text}.");
            Vec::new()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Memory;
    use xmpp::port::{Credentials, Subscription};

    const GONE: &str = "bob@a.example";

    fn jid(text: &str) -> BareJid {
        BareJid::from_prepared(text)
    }

    fn perform(store: &mut Memory, ops: Vec<StoreOp>) {
        let mut replies = Vec::new();
        store.perform(&mut ops.into_iter(), &mut replies);
        let failed = replies.iter().find(|reply| **reply != StoreReply::Done);
        assert_eq!(failed, None);
    }

    fn item(contact: &str, subscription: Subscription) -> RosterItem {
        let mut item = RosterItem::new(jid(contact));
        (item.subscription, item.listed) = (subscription, true);
        item
    }

    /// A store with an account that has these contacts, each of whom has it as given.
    fn store(contacts: &[(&str, RosterItem)]) -> Memory {
        let mut store = Memory::new();
        let names = contacts.iter().map(|(name, _)| *name);
        for account in names.chain([GONE]) {
            let op = StoreOp::CreateAccount {
                account: jid(account),
                credentials: Box::new(Credentials::default()),
            };
            perform(&mut store, vec![op]);
        }
        for (name, of_it) in contacts {
            let put = |account: &str, item| StoreOp::PutRosterItem {
                account: jid(account),
                item: Box::new(item),
            };
            let ops = [
                put(GONE, item(name, Subscription::Both)),
                put(name, of_it.clone()),
            ];
            perform(&mut store, ops.into());
        }
        store
    }

    #[test]
    fn a_contact_keeps_the_item_without_what_was_between_the_two() {
        let mut both = item(GONE, Subscription::Both);
        (both.changed, both.prior, both.name) = (40, 30, "Bob".into());
        let mut asked = item(GONE, Subscription::None);
        asked.ask = true;
        let mut asks = RosterItem::new(jid(GONE));
        asks.pending_in = Some(b"<presence/>".as_slice().into());
        let strangers = item(GONE, Subscription::None);
        let mut store = store(&[
            ("alice@a.example", both.clone()),
            ("asked@a.example", asked.clone()),
            ("asks@a.example", asks),
            ("stranger@a.example", strangers.clone()),
        ]);
        let mut other = item("eve@a.example", Subscription::None);
        (other.changed, other.prior) = (90, 40);
        let put = StoreOp::PutRosterItem {
            account: jid("alice@a.example"),
            item: Box::new(other.clone()),
        };
        // One at home elsewhere, and one whose account is gone, change nothing.
        let elsewhere = StoreOp::PutRosterItem {
            account: jid(GONE),
            item: Box::new(item("eve@b.example", Subscription::Both)),
        };
        let nobody = StoreOp::PutRosterItem {
            account: jid(GONE),
            item: Box::new(item("eve@a.example", Subscription::Both)),
        };
        perform(&mut store, vec![put, elsewhere, nobody]);
        // The clock is behind what one roster has already.
        let ops = partings(&mut store, &jid(GONE), "a.example", Timestamp(50));
        assert_eq!(ops.len(), 3, "{ops:?}");
        perform(&mut store, ops);

        both.subscription = Subscription::None;
        (both.changed, both.prior) = (91, 90);
        (asked.ask, asked.changed, asked.prior) = (false, 50, 0);
        let expected = [
            ("alice@a.example", vec![both, other]),
            ("asked@a.example", vec![asked]),
            ("asks@a.example", Vec::new()),
            ("stranger@a.example", vec![strangers]),
        ];
        for (name, items) in expected {
            assert_eq!(roster(&mut store, &jid(name)), items, "{name}");
        }
    }
}
