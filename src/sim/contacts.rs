//! What a person asked the server to do about contacts, what came of it, and the roster as the
//! server told it.

use crate::element::Element;
use crate::random::Random;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const ROSTER: &str = "jabber:iq:roster";

/// What a person can do about a contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Asks to see the contact.
    Subscribe,
    /// Does not want to see it any more.
    Unsubscribe,
    /// Lets the contact see the person.
    Subscribed,
    /// Does not let it any more, or never did.
    Unsubscribed,
    /// Puts it into the roster under this name.
    Name(String),
    /// Takes it out of the roster.
    Remove,
}

impl Deed {
    fn type_(&self) -> &'static str {
        match self {
            Deed::Subscribe => "subscribe",
            Deed::Unsubscribe => "unsubscribe",
            Deed::Subscribed => "subscribed",
            Deed::Unsubscribed => "unsubscribed",
            Deed::Name(_) | Deed::Remove => "set",
        }
    }

    /// Whether it changes if the person sees the contact.
    pub fn is_outward(&self) -> bool {
        matches!(self, Deed::Subscribe | Deed::Unsubscribe | Deed::Remove)
    }

    /// Whether it changes if the contact sees the person.
    pub fn is_inward(&self) -> bool {
        matches!(self, Deed::Subscribed | Deed::Unsubscribed | Deed::Remove)
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server has not said anything, or never will.
    Unknown,
    /// It took responsibility.
    Acked,
    /// It said that it is done.
    Answered,
    /// It said that it could not.
    Refused,
}

/// Something that a person did about a contact.
#[derive(Clone, Debug)]
pub struct Step {
    /// Whom it is about: a bare JID.
    pub contact: String,
    /// What.
    pub deed: Deed,
    /// What came of it.
    pub fate: Fate,
    /// When it was sent, and when the server said that it is done: it took effect in between.
    pub sent_at: u64,
    /// See `sent_at`.
    pub done_at: Option<u64>,
}

impl Step {
    /// Whether the server has told its sender that it took effect.
    pub fn is_done(&self) -> bool {
        matches!(self.fate, Fate::Acked | Fate::Answered)
    }

    /// Whether it may have taken effect after another had begun.
    pub fn may_follow(&self, other: &Step) -> bool {
        self.done_at.is_none_or(|at| at >= other.sent_at)
    }
}

/// Which two people have something between them that is not settled yet. What two do to each other
/// at the same time may cross on the way, and RFC 6121 A then leaves them with different opinions;
/// so one of them waits.
#[derive(Debug, Default)]
pub struct Pairs(RefCell<BTreeMap<(String, String), u64>>);

/// How long nothing happens between two after one of them lost a session with a step under way,
/// in microseconds: it may still take effect.
const LOST_US: u64 = 5_000_000;

impl Pairs {
    fn key(one: &str, other: &str) -> (String, String) {
        let (first, last) = (one.min(other), one.max(other));
        (first.into(), last.into())
    }

    fn is_free(&self, one: &str, other: &str, now: u64) -> bool {
        let until = self.0.borrow().get(&Pairs::key(one, other)).copied();
        until.is_none_or(|until| until <= now)
    }

    fn occupy(&self, one: &str, other: &str, until: u64) {
        self.0.borrow_mut().insert(Pairs::key(one, other), until);
    }
}

/// A contact as the server told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// `none`, `to`, `from` or `both`.
    pub subscription: String,
    /// Whether the contact was asked.
    pub ask: bool,
    /// Whether it may see the person as soon as it asks.
    pub approved: bool,
    /// Its name.
    pub name: String,
}

/// All contacts of a person.
#[derive(Clone, Debug, Default)]
pub struct Contacts {
    /// How many in a thousand of the person's deeds are about contacts.
    pub steps_per_mille: u64,
    /// How many in a thousand of these give a contact a name, which is nobody else's business.
    pub names_per_mille: u64,
    /// What everybody has under way.
    pub pairs: Rc<Pairs>,
    /// What the person did, in order.
    pub steps: Vec<Step>,
    /// What the server said last of each contact that is in the roster.
    pub shown: BTreeMap<String, Shown>,
}

impl Contacts {
    /// Does something about one of these people, unless there is something under way with each of
    /// them; gives its number and the stanza.
    pub(crate) fn act(
        &mut self,
        random: &mut Random,
        own: &str,
        others: &[&String],
        now: u64,
    ) -> Option<(usize, String)> {
        let number = self.steps.len();
        let (contact, deed) = if random.happens(self.names_per_mille) {
            let contact = (*random.pick(others)).clone();
            (contact, Deed::Name(format!("name{number}")))
        } else {
            let is_free = |other: &&&String| self.pairs.is_free(own, other, now);
            let free: Vec<&&String> = others.iter().filter(is_free).collect();
            if free.is_empty() {
                return None;
            }
            let contact = (**random.pick(&free)).clone();
            self.pairs.occupy(own, &contact, u64::MAX);
            // What people do most: ask, and answer those who ask.
            let deed = match random.below(10) {
                0..3 => Deed::Subscribe,
                3..6 => Deed::Subscribed,
                6 | 7 => Deed::Unsubscribe,
                8 => Deed::Unsubscribed,
                _ => Deed::Remove,
            };
            (contact, deed)
        };
        let user = own.split('@').next().unwrap_or_default();
        let id = format!("{user}-s{number}");
        let item = match &deed {
            Deed::Name(name) => Some(format!("name='{name}'")),
            Deed::Remove => Some("subscription='remove'".into()),
            _ => None,
        };
        let type_ = deed.type_();
        let text = match item {
            Some(item) => format!(
                "<iq type='{type_}' id='{id}'><query xmlns='{ROSTER}'>\
                 <item jid='{contact}' {item}/></query></iq>"
            ),
            None => format!("<presence to='{contact}' type='{type_}' id='{id}'/>"),
        };
        self.steps.push(Step {
            contact,
            deed,
            fate: Fate::Unknown,
            sent_at: now,
            done_at: None,
        });
        Some((number, text))
    }

    /// The server took responsibility for a step.
    pub(crate) fn acknowledge(&mut self, own: &str, number: usize, now: u64) {
        let step = &mut self.steps[number];
        if !matches!(step.deed, Deed::Name(_)) {
            self.pairs.occupy(own, &step.contact, now);
        }
        step.done_at.get_or_insert(now);
        if step.fate == Fate::Unknown {
            step.fate = Fate::Acked;
        }
    }

    /// The session that a step was sent in is gone before the server said anything.
    pub(crate) fn lose(&mut self, own: &str, number: usize, now: u64) {
        let step = &self.steps[number];
        if !matches!(step.deed, Deed::Name(_)) {
            self.pairs.occupy(own, &step.contact, now + LOST_US);
        }
    }

    /// Takes what is about contacts from what the server sent.
    pub(crate) fn on_element(&mut self, element: &Element, now: u64) {
        if element.name == "message" {
            return;
        }
        let number = element.attr("id").split_once("-s");
        let number = number.and_then(|(_, number)| number.parse::<usize>().ok());
        if let Some(step) = number.and_then(|number| self.steps.get_mut(number)) {
            let fate = match element.attr("type") {
                "result" => Fate::Answered,
                // Nothing was left to be done: a removal that is sent again after a crash.
                "error" if element.condition() == "item-not-found" => Fate::Answered,
                "error" => Fate::Refused,
                _ => return,
            };
            step.fate = fate;
            step.done_at = Some(now);
            return;
        }
        let query = element.child("query").filter(|query| query.ns == ROSTER);
        let Some(query) = query else { return };
        if element.attr("type") == "result" {
            self.shown.clear();
        }
        for item in &query.children {
            let jid = item.attr("jid").to_owned();
            let shown = Shown {
                subscription: item.attr("subscription").into(),
                ask: item.attr("ask") == "subscribe",
                approved: item.attr("approved") == "true",
                name: item.attr("name").into(),
            };
            match item.attr("subscription") {
                "remove" => drop(self.shown.remove(&jid)),
                _ => drop(self.shown.insert(jid, shown)),
            }
        }
    }

    /// The last of some steps about a contact.
    pub fn last(&self, contact: &str, is_one: impl Fn(&Deed) -> bool) -> Option<&Step> {
        let mut about = self.about(contact).rev();
        about.find(|step| is_one(&step.deed))
    }

    /// All steps about a contact.
    pub fn about(&self, contact: &str) -> impl DoubleEndedIterator<Item = &Step> {
        self.steps
            .iter()
            .filter(move |step| step.contact == contact)
    }
}
