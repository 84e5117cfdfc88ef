//! What must hold of rosters and subscriptions when all is said, whatever has happened.

use super::Play;
use crate::contacts::{Deed, Fate, Shown, Step};
use stanza::jid::BareJid;
use std::collections::BTreeMap;
use xmpp::port::{RosterItem, StoreOp, StoreReply, Subscription};

impl Play {
    /// What storage has of everybody's contacts, by owner and contact.
    fn rosters(&mut self) -> BTreeMap<(String, String), RosterItem> {
        let mut all = BTreeMap::new();
        for managed in self.people.clone() {
            let owner = managed.0.borrow().bare().to_owned();
            let account = BareJid::from_prepared(&owner);
            let StoreReply::Account(Some(data)) = self.world.perform(StoreOp::Account { account })
            else {
                panic!("{owner} is there");
            };
            for item in data.roster {
                all.insert((owner.clone(), item.contact.as_str().to_owned()), item);
            }
        }
        all
    }

    /// Everybody's roster is as they were told, both sides of each pair say the same, and what the
    /// server said to be done is done.
    pub fn check_rosters(&mut self) {
        let rosters = self.rosters();
        self.check_told(&rosters);
        let people: Vec<String> = self
            .people
            .iter()
            .map(|managed| managed.0.borrow().bare().to_owned())
            .collect();
        for owner in &people {
            for contact in people.iter().filter(|contact| *contact != owner) {
                let of = |owner: &String, contact: &String| {
                    let item = rosters.get(&(owner.clone(), contact.clone())).cloned();
                    item.unwrap_or_else(|| RosterItem::new(BareJid::from_prepared(contact)))
                };
                let (own, other) = (of(owner, contact), of(contact, owner));
                self.check_done(owner, contact, &own);
                self.check_pair(owner, contact, &own, &other);
            }
        }
    }

    /// What each client shows is what storage has. Decision 0009 leaves open what a client keeps of
    /// a step that storage refused, that nobody says again, and that a crash took.
    fn check_told(&self, rosters: &BTreeMap<(String, String), RosterItem>) {
        for managed in &self.people {
            let person = managed.0.borrow();
            let is_open = |contact: &str| {
                let refuses = self.plot.disk_fails || self.plot.full > 0;
                refuses && self.is_lost(person.bare(), contact)
            };
            let stored = rosters.iter().filter(|((owner, contact), item)| {
                owner == person.bare() && item.listed && !is_open(contact)
            });
            let stored: BTreeMap<String, Shown> = stored
                .map(|((_, contact), item)| (contact.clone(), shown(item)))
                .collect();
            let mut told = person.contacts.shown.clone();
            told.retain(|contact, _| !is_open(contact));
            assert_eq!(
                told, stored,
                "what {} was told, and what is stored, after {:#?}",
                person.full, person.contacts.steps
            );
        }
    }

    /// What two people did to each other, for a failure.
    fn between(&self, owner: &str, contact: &str) -> String {
        let steps = |of: &str, about: &str| {
            let about: Vec<Step> = self.person(of).contacts.about(about).cloned().collect();
            format!("{of} did {about:#?}")
        };
        let own = steps(owner, contact);
        format!("{own}\n{}", steps(contact, owner))
    }

    /// Whether a crash may have taken a step of one about another, since nobody says it again.
    fn is_lost(&self, of: &str, about: &str) -> bool {
        let person = self.person(of);
        let mut steps = person.contacts.about(about);
        let is_given_up =
            |step: &Step| step.fate == Fate::Unknown && !matches!(step.deed, Deed::Name(_));
        self.plot.crashes + self.plot.deaths > 0 && steps.any(is_given_up)
    }

    /// Both sides say the same of the subscription of one to the other. Of what the server has not
    /// acknowledged a crash may have left one side only, where it is not sent again.
    fn check_pair(&self, owner: &str, contact: &str, own: &RosterItem, other: &RosterItem) {
        if self.is_lost(owner, contact) || self.is_lost(contact, owner) {
            return;
        }
        let is_asked = other.pending_in.is_some();
        let opinions = [
            (own.subscription.is_to(), own.ask),
            (other.subscription.is_from(), own.ask && is_asked),
        ];
        let agreed = opinions[0] == opinions[1];
        let sane = !(own.ask && own.subscription.is_to() || is_asked && opinions[1].0);
        assert!(
            agreed && sane,
            "{owner} has {own:?}, {contact} has {other:?} after\n{}",
            self.between(owner, contact)
        );
    }

    /// What the server said to be done is done, or undone by what may have come later.
    fn check_done(&self, owner: &str, contact: &str, own: &RosterItem) {
        let (person, other) = (self.person(owner), self.person(contact));
        let last = |is_one: fn(&Deed) -> bool| person.contacts.last(contact, is_one);
        // A name that was refused is acknowledged like any other, and its error may be lost.
        let is_sure = |step: &&Step| match step.deed {
            Deed::Name(_) if self.plot.refuses() => step.fate == Fate::Answered,
            _ => step.is_done(),
        };
        let check = |holds: bool, step: &Step| {
            let steps = || self.between(owner, contact);
            assert!(holds, "{owner} has {own:?}\nof {step:?} in\n{}", steps());
        };
        let undone = |step: &Step, is_one: fn(&Deed) -> bool| {
            let mut theirs = other.contacts.about(owner);
            theirs.any(|it| is_one(&it.deed) && it.may_follow(step))
        };
        if let Some(step) = last(Deed::is_outward).filter(is_sure) {
            let asks = own.subscription.is_to() || own.ask;
            let ends = |deed: &Deed| matches!(deed, Deed::Unsubscribed | Deed::Remove);
            let wanted = step.deed == Deed::Subscribe;
            check(asks == wanted || wanted && undone(step, ends), step);
        }
        if let Some(step) = last(Deed::is_inward).filter(is_sure) {
            let lets = own.subscription.is_from() || own.approved;
            let ends = |deed: &Deed| matches!(deed, Deed::Unsubscribe | Deed::Remove);
            let wanted = step.deed == Deed::Subscribed;
            check(lets == wanted || wanted && undone(step, ends), step);
        }
        let lists = |deed: &Deed| !matches!(deed, Deed::Unsubscribe | Deed::Unsubscribed);
        if let Some(step) = last(lists).filter(is_sure) {
            check(own.listed == (step.deed != Deed::Remove), step);
        }
        let names = |deed: &Deed| matches!(deed, Deed::Name(_) | Deed::Remove);
        if let Some(step) = last(names).filter(is_sure)
            && let Deed::Name(name) = &step.deed
        {
            check(*own.name == **name, step);
        }
    }
}

/// An item as a client sees it (RFC 6121 2.1.2).
fn shown(item: &RosterItem) -> Shown {
    let is_open = matches!(item.subscription, Subscription::None | Subscription::To);
    Shown {
        subscription: item.subscription.as_str().into(),
        ask: item.ask,
        approved: item.approved && is_open,
        name: item.name.to_string(),
    }
}
