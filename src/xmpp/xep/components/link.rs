//! What waits for one component, and how much of it may: so much of each kind, and so much of each
//! sender, who leaves room for others.

use crate::host::ConnId;
use crate::limit::{
    COMPONENT_PRESENCE_MAX, COMPONENT_PRESENCE_SIZE_MEAN, COMPONENT_QUEUE_MAX,
    COMPONENT_QUEUE_SIZE_MAX, COMPONENT_SENDERS_MIN,
};
use crate::stanza::{Stanza, Type};
use stanza::view::Kind;
use std::collections::{HashMap, VecDeque};

/// The way to a component.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub conn: Option<ConnId>,
    /// It lost what it has to know: its stream ends.
    pub has_overflowed: bool,
    /// What was output and may not be with the component yet: its socket has not taken all of it.
    given: Vec<Vec<u8>>,
    given_size: usize,
    /// What waits behind that.
    queue: VecDeque<Waiting>,
    used: Usage,
    used_by: HashMap<Box<str>, Usage>,
}

#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    class: Class,
    sender: Box<str>,
}

/// What becomes of a stanza that does not find room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Its sender is told.
    Asked,
    /// It answers what the component asked, and has room of its own for that.
    Answer,
    /// It is said again, sooner or later.
    Presence,
    /// It is not said again: what the component believes without it stays wrong.
    Parting,
}

/// How much waits, by kind of room.
type Usage = [Used; 3];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    count: usize,
    size: usize,
}

/// Why a stanza does not find room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Too much waits of its sender.
    OfSender,
    /// Too much waits of all.
    OfAll,
}

impl Class {
    pub(super) fn of(stanza: &Stanza<'_>) -> Class {
        match (stanza.kind, stanza.type_) {
            (Kind::Presence, Type::Subscribe) => Class::Asked,
            (Kind::Presence, Type::Available | Type::Probe | Type::Error) => Class::Presence,
            (Kind::Presence, _) => Class::Parting,
            (_, Type::Result | Type::Error) => Class::Answer,
            _ => Class::Asked,
        }
    }

    fn room(self) -> usize {
        match self {
            Class::Asked => 0,
            Class::Answer => 1,
            Class::Presence | Class::Parting => 2,
        }
    }

    /// How much may be in its room, where rosters have so many items.
    fn max(self, roster_items_max: usize) -> Used {
        // A login tells and asks every contact, and one sender has a part of the room.
        let count = COMPONENT_PRESENCE_MAX.max(2 * COMPONENT_SENDERS_MIN * roster_items_max);
        let presence = Used {
            count,
            size: count * COMPONENT_PRESENCE_SIZE_MEAN,
        };
        let asked = Used {
            count: COMPONENT_QUEUE_MAX,
            size: COMPONENT_QUEUE_SIZE_MAX,
        };
        match self {
            Class::Asked => asked,
            Class::Answer => asked.times(2),
            Class::Presence => presence,
            Class::Parting => presence.times(2),
        }
    }
}

impl Used {
    fn times(self, factor: usize) -> Used {
        Used {
            count: self.count * factor,
            size: self.size * factor,
        }
    }

    /// Whether there is room for one more. Where nothing waits there is, however large it is.
    fn has_room(self, size: usize, max: Used, parts: usize) -> bool {
        let fits = self.count < max.count / parts && self.size + size <= max.size / parts;
        self.count == 0 || fits
    }

    fn add(&mut self, size: usize) {
        self.count += 1;
        self.size += size;
    }

    fn take(&mut self, size: usize) {
        self.count -= 1;
        self.size -= size;
    }
}

impl Link {
    /// Whether a stanza finds room.
    pub(super) fn check(
        &self,
        (class, sender): (Class, &str),
        size: usize,
        roster_items_max: usize,
    ) -> Result<(), Full> {
        let (room, max) = (class.room(), class.max(roster_items_max));
        if !self.used[room].has_room(size, max, 1) {
            return Err(Full::OfAll);
        }
        let of_sender = self.used_by.get(sender).map(|usage| usage[room]);
        match of_sender
            .unwrap_or_default()
            .has_room(size, max, COMPONENT_SENDERS_MIN)
        {
            true => Ok(()),
            false => Err(Full::OfSender),
        }
    }

    pub(super) fn push(&mut self, bytes: Vec<u8>, (class, sender): (Class, &str)) {
        let (room, size) = (class.room(), bytes.len());
        self.used[room].add(size);
        match self.used_by.get_mut(sender) {
            Some(usage) => usage[room].add(size),
            None => self.used_by.entry(sender.into()).or_default()[room].add(size),
        }
        self.queue.push_back(Waiting {
            bytes,
            class,
            sender: sender.into(),
        });
    }

    /// Whether one more would be written at once.
    pub(super) fn is_free(&self, size: usize, window: usize) -> bool {
        self.queue.is_empty() && (self.given.is_empty() || self.given_size + size <= window)
    }

    /// The next one to be written, where so much may be under way.
    pub(super) fn next(&mut self, window: usize) -> Option<&[u8]> {
        let size = self.queue.front()?.bytes.len();
        if !self.given.is_empty() && self.given_size + size > window {
            return None;
        }
        let waiting = self.queue.pop_front()?;
        self.release(&waiting);
        self.given_size += size;
        self.given.push(waiting.bytes);
        self.given.last().map(Vec::as_slice)
    }

    fn release(&mut self, waiting: &Waiting) {
        let (room, size) = (waiting.class.room(), waiting.bytes.len());
        self.used[room].take(size);
        if let Some(usage) = self.used_by.get_mut(&waiting.sender) {
            usage[room].take(size);
            if *usage == Usage::default() {
                self.used_by.remove(&waiting.sender);
            }
        }
    }

    /// What may not be with the component.
    pub(super) fn take_given(&mut self) -> Vec<Vec<u8>> {
        self.given_size = 0;
        std::mem::take(&mut self.given)
    }

    /// What waits behind that.
    pub(super) fn take_queue(&mut self) -> Vec<Vec<u8>> {
        (self.used, self.used_by) = Default::default();
        let queue = std::mem::take(&mut self.queue).into_iter();
        queue.map(|waiting| waiting.bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: (Class, &str) = (Class::Asked, "a@b.example");

    #[test]
    fn so_much_is_under_way_and_the_rest_waits() {
        let mut link = Link::default();
        let mut written = 0;
        for _ in 0..5 {
            link.push(vec![b'x'; 40], ASKED);
        }
        while link.next(100).is_some() {
            written += 1;
        }
        let waiting = Used {
            count: 3,
            size: 120,
        };
        assert_eq!((written, link.used[0]), (2, waiting));
        assert!(!link.is_free(1, 100));
        assert_eq!((link.take_given().len(), link.take_queue().len()), (2, 3));
        assert!(link.used_by.is_empty() && link.is_free(500, 100));
        link.push(vec![b'x'; 500], ASKED);
        link.push(vec![b'x'], ASKED);
        assert!(link.next(100).is_some(), "one goes out, however large");
        assert!(link.next(100).is_none());
        link.take_given();
        assert!(link.next(100).is_some());
        assert!(link.used_by.is_empty());
    }

    /// How many of a size find room, of as many senders as there are names.
    fn fill(link: &mut Link, class: Class, senders: &[&str], size: usize) -> usize {
        let mut count = 0;
        for sender in senders {
            while link.check((class, sender), size, 10).is_ok() {
                link.push(vec![b'x'; size], (class, sender));
                count += 1;
            }
        }
        count
    }

    #[test]
    fn one_sender_leaves_room_and_each_kind_has_its_own() {
        let senders = ["a@b.example", "b@b.example", "c@b.example", "d@b.example"];
        let mut link = Link::default();
        let share = COMPONENT_QUEUE_MAX / COMPONENT_SENDERS_MIN;
        assert_eq!(fill(&mut link, Class::Asked, &senders[..1], 1), share);
        assert_eq!(link.check(ASKED, 1, 10), Err(Full::OfSender));
        assert_eq!(fill(&mut link, Class::Asked, &senders[1..], 1), 3 * share);
        assert_eq!(
            link.check((Class::Asked, "e@b.example"), 1, 10),
            Err(Full::OfAll)
        );
        assert_eq!(fill(&mut link, Class::Answer, &senders[..1], 1), 2 * share);
        let presence = COMPONENT_PRESENCE_MAX / COMPONENT_SENDERS_MIN;
        assert_eq!(fill(&mut link, Class::Presence, &senders, 1), 4 * presence);
        assert_eq!(fill(&mut link, Class::Parting, &senders, 1), 4 * presence);
        let mut large = Link::default();
        let size = COMPONENT_QUEUE_SIZE_MAX / COMPONENT_SENDERS_MIN;
        assert_eq!(fill(&mut large, Class::Asked, &senders, size), 4);
        let mut one = Link::default();
        assert_eq!(fill(&mut one, Class::Asked, &senders[..1], 2 * size), 1);
    }

    #[test]
    fn a_login_with_the_largest_roster_is_within_the_room_of_one_sender() {
        for roster_items_max in [10, 4_000, 20_000] {
            let (mut link, login) = (Link::default(), 2 * roster_items_max);
            let of = (Class::Presence, "a@b.example");
            for _ in 0..login {
                let found = link.check(of, COMPONENT_PRESENCE_SIZE_MEAN, roster_items_max);
                assert_eq!(found, Ok(()), "{roster_items_max}");
                link.push(vec![b'x'; COMPONENT_PRESENCE_SIZE_MEAN], of);
            }
        }
    }
}
