//! What the clients of a world said and saw, and what must be true of it.
//!
//! Ids carry who sent a stanza and as its how many-th: `m3-17` is the seventeenth of client 3.

use crate::element::Element;
use crate::world::ClientId;
use std::collections::{BTreeMap, BTreeSet};

/// What a client sent and may ask about later.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Who.
    pub by: ClientId,
    /// Its full JID.
    pub from: String,
    /// To whom.
    pub to: String,
    /// `message` or `iq`.
    pub name: &'static str,
    /// The stanza's type.
    pub type_: &'static str,
    /// Its id.
    pub id: String,
}

/// What a client received.
#[derive(Clone, Debug)]
pub struct Got {
    /// Who.
    pub by: ClientId,
    /// From whom.
    pub from: String,
    /// To whom, as it says.
    pub to: String,
    /// Whether it waited in storage.
    pub delayed: bool,
    /// The stanza's name.
    pub name: String,
    /// Its type, empty where there is none.
    pub type_: String,
    /// Its id, empty where there is none.
    pub id: String,
}

/// The record of a world.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Everything sent, in order.
    pub sent: Vec<Sent>,
    /// Everything received, in order.
    pub got: Vec<Got>,
    /// Whom each client believes to be available.
    pub views: BTreeMap<(ClientId, String), bool>,
}

impl Ledger {
    /// Notes what a client received.
    pub fn note(&mut self, by: ClientId, stanza: &Element) {
        let from = stanza.attr("from").to_owned();
        if stanza.name == "presence" {
            match stanza.attr("type") {
                "" => drop(self.views.insert((by, from.clone()), true)),
                "unavailable" => drop(self.views.insert((by, from.clone()), false)),
                _ => {}
            }
        }
        self.got.push(Got {
            by,
            from,
            to: stanza.attr("to").to_owned(),
            delayed: stanza.child("delay").is_some(),
            name: stanza.name.clone(),
            type_: stanza.attr("type").to_owned(),
            id: stanza.attr("id").to_owned(),
        });
    }

    /// How often a client received the stanza with this id, answers to it not counted.
    pub fn copies(&self, by: ClientId, sent: &Sent) -> usize {
        let is_it = |got: &&Got| {
            got.by == by && got.id == sent.id && got.name == sent.name && got.type_ == sent.type_
        };
        self.got.iter().filter(is_it).count()
    }

    /// How many answers of these types the sender of a stanza got.
    pub fn answers(&self, sent: &Sent, types: &[&str]) -> usize {
        let is_it = |got: &&Got| {
            got.by == sent.by && got.id == sent.id && types.contains(&got.type_.as_str())
        };
        self.got.iter().filter(is_it).count()
    }

    /// Checks that what one client sent to an address of another arrived in the order in which it
    /// was sent, and nothing twice. What waited in storage is in order within itself: it comes with
    /// the first presence, and what is sent to the full address before that does not wait for it.
    ///
    /// # Errors
    /// The first pair that is out of order.
    pub fn check_order(&self) -> Result<(), String> {
        let mut last: BTreeMap<(ClientId, usize, &str, bool), (usize, &Got)> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for got in &self.got {
            let answer = matches!(got.type_.as_str(), "error" | "result");
            let Some((sender, number)) = parse_id(&got.id).filter(|_| !answer) else {
                continue;
            };
            if !seen.insert((got.by, sender, number)) {
                return Err(format!("{got:?} came twice"));
            }
            let way = (got.by, sender, got.to.as_str(), got.delayed);
            if let Some((before, earlier)) = last.insert(way, (number, got))
                && before >= number
            {
                return Err(format!("{got:?} came after {earlier:?}"));
            }
        }
        Ok(())
    }
}

/// Who sent a stanza with this id, and as its how many-th.
pub fn parse_id(id: &str) -> Option<(usize, usize)> {
    let (sender, number) = id.strip_prefix('m')?.split_once('-')?;
    Some((sender.parse().ok()?, number.parse().ok()?))
}
