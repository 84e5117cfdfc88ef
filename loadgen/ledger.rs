//! The account of every measured stanza: what was sent on each lane from a sender to a receiver,
//! and what of it arrived, once, in order.
//!
//! Invariant: `sent = arrived in order + arrived late + still missing` on every lane, so loss,
//! duplicates and reordering are told apart exactly, not sampled.

use std::collections::HashMap;
use std::ops::Range;

use crate::body::{BROADCAST, Mark};
use crate::random::Random;

/// The most partners a chatting client has; each costs eight bytes per client.
pub const PARTNERS_MAX: u32 = 16;

/// The most members of a clique; each costs four bytes per client.
pub const CLIQUE_MAX: u32 = 1000;

/// Presences that are sent to who came back before he is told the newest: a server may look it up
/// when later ones are on their way already, and then tells the last of them twice. So many are
/// what a busy sender sends in a few turns of the server.
const OVERTAKING_MAX: u32 = 64;

/// Who talks to whom among the clients of one ring, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Each client sends to those `offsets` further on.
    Partners(Vec<u32>),
    /// Each broadcast goes to the sender's group of so many.
    Cliques(u32),
    /// The same, and back to the sender: rooms of so many (XEP-0045 7.4).
    Rooms(u32),
}

impl Topology {
    /// `wanted` distinct partners (or as many as there are) for each client, chosen by `seed`.
    pub fn partners(clients: u32, wanted: u32, seed: u64) -> Topology {
        assert!(clients >= 2, "nobody to talk to");
        let mut random = Random::new(seed ^ 0x7061_6972);
        let wanted = wanted.min(clients - 1);
        let mut offsets = Vec::new();
        while offsets.len() < wanted as usize {
            let offset = 1 + random.below(clients - 1);
            if !offsets.contains(&offset) {
                offsets.push(offset);
            }
        }
        Topology::Partners(offsets)
    }

    fn lanes_in(&self) -> u32 {
        match self {
            Topology::Partners(offsets) => offsets.len() as u32,
            Topology::Cliques(size) | Topology::Rooms(size) => *size,
        }
    }
}

/// What a run's checks came to; everything from `lost` on must be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// Stanzas written by clients.
    pub sent: u64,
    /// Deliveries that should have followed.
    pub expected: u64,
    /// Deliveries that did, each counted once.
    pub delivered: u64,
    /// Copies of a broadcast that came back to the sender, as servers may do; not expected.
    pub own_copies: u64,
    /// Presences that a server told to who was not there when they were sent, or once more to who
    /// came back; not expected.
    #[serde(default)]
    pub retold: u64,
    /// Stanzas that clients sent when their sessions went on: those that the server had not, and
    /// those that were written without a network.
    #[serde(default)]
    pub resent: u64,
    /// Expected and never seen.
    pub lost: u64,
    /// Seen more than once.
    pub duplicated: u64,
    /// Seen after a later one of the same lane.
    pub reordered: u64,
    /// Seen with bytes that nobody sent.
    pub corrupted: u64,
    /// Seen by the wrong client, or with the wrong `from`.
    pub misrouted: u64,
    /// Came back as errors.
    pub bounced: u64,
    /// Connections that ended while they were needed.
    pub disconnected: u64,
    /// Stanzas of managed streams that the server did not acknowledge in the end.
    #[serde(default)]
    pub unacked: u64,
    /// Acknowledgements of what was not sent, or unreadable ones.
    #[serde(default)]
    pub false_acks: u64,
    /// Sessions that the server did not let go on over another connection, so that their clients
    /// logged in anew.
    #[serde(default)]
    pub not_resumed: u64,
}

impl Verdict {
    /// Whether every delivery was as it should be.
    pub fn is_clean(&self) -> bool {
        self.faults().iter().all(|(_, count)| *count == 0)
    }

    /// The counts that must be zero, with their names.
    pub fn faults(&self) -> [(&'static str, u64); 10] {
        [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("corrupted", self.corrupted),
            ("misrouted", self.misrouted),
            ("bounced", self.bounced),
            ("disconnected", self.disconnected),
            ("unacked", self.unacked),
            ("false acks", self.false_acks),
            ("not resumed", self.not_resumed),
        ]
    }

    /// Adds another thread's counts.
    pub fn add(&mut self, other: &Verdict) {
        self.sent += other.sent;
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.own_copies += other.own_copies;
        self.retold += other.retold;
        self.resent += other.resent;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.misrouted += other.misrouted;
        self.bounced += other.bounced;
        self.disconnected += other.disconnected;
        self.unacked += other.unacked;
        self.false_acks += other.false_acks;
        self.not_resumed += other.not_resumed;
    }
}

/// What one arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Expected, and the first of its number: it counts, and it frees its sender's window.
    Fresh,
    /// The sender's own copy of a broadcast.
    Own,
    /// A presence for who was not there, or told once more to who came back.
    Retold,
    /// A fault that has been counted.
    Fault,
}

/// The lanes of one ring's clients.
pub struct Ledger {
    clients: u32,
    topology: Topology,
    /// Per sender and outgoing lane: how many were sent.
    sent: Vec<u32>,
    /// Per receiver and incoming lane: the next sequence.
    next: Vec<u32>,
    /// Per incoming lane: the holes in what came. Each is a fault, or will be filled and was one of
    /// order: a run that is right has none, and any other at most one for each stanza that came.
    missing: HashMap<usize, Vec<Range<u32>>>,
    /// Per incoming lane: what its receiver was not there for, in order. It may come or not. All
    /// that was sent during one absence is one range, so there are at most as many as returns.
    excused: HashMap<usize, Vec<Range<u32>>>,
    /// Incoming lanes whose newest presence may be told once more, with how many later ones may
    /// come before.
    retells: HashMap<usize, u32>,
    /// The counts so far; `expected` and `lost` are filled in by [`Ledger::settle`].
    pub verdict: Verdict,
}

impl Ledger {
    /// An empty account for clients `0..clients`.
    pub fn new(clients: u32, topology: Topology) -> Ledger {
        let lanes_out = match &topology {
            Topology::Partners(offsets) => offsets.len() as u32,
            Topology::Cliques(_) | Topology::Rooms(_) => 1,
        };
        Ledger {
            clients,
            sent: vec![0; (clients * lanes_out) as usize],
            next: vec![0; clients as usize * topology.lanes_in() as usize],
            topology,
            missing: HashMap::new(),
            excused: HashMap::new(),
            retells: HashMap::new(),
            verdict: Verdict::default(),
        }
    }

    /// How many deliveries one stanza of `sender` is expected to make.
    pub fn copies(&self, sender: u32) -> u32 {
        match self.topology {
            Topology::Partners(_) => 1,
            Topology::Cliques(size) => self.clique_of(sender, size).len() as u32 - 1,
            Topology::Rooms(size) => self.clique_of(sender, size).len() as u32,
        }
    }

    /// The clique that a broadcast of `sender` goes to.
    pub fn clique(&self, sender: u32) -> Range<u32> {
        match self.topology {
            Topology::Partners(_) => sender..sender + 1,
            Topology::Cliques(size) | Topology::Rooms(size) => self.clique_of(sender, size),
        }
    }

    /// How many partners each client has.
    pub fn partners(&self) -> u32 {
        match &self.topology {
            Topology::Partners(offsets) => offsets.len() as u32,
            Topology::Cliques(_) | Topology::Rooms(_) => 0,
        }
    }

    /// Whom the `turn` of `sender` would go to.
    pub fn partner(&self, sender: u32, turn: u32) -> u32 {
        match &self.topology {
            Topology::Partners(offsets) => {
                (sender + offsets[turn as usize % offsets.len()]) % self.clients
            }
            Topology::Cliques(_) | Topology::Rooms(_) => sender,
        }
    }

    /// What `sender` sent under `sequence` need not come to `receiver`, who is not there.
    pub fn excuse(&mut self, sender: u32, receiver: u32, sequence: u32) {
        let (_, lane) = self
            .lanes(sender, receiver)
            .expect("they are of one clique");
        let excused = self.excused.entry(lane).or_default();
        match excused.last_mut() {
            Some(last) if last.end == sequence => last.end += 1,
            _ => excused.push(sequence..sequence + 1),
        }
    }

    /// `receiver` came back: of each that he knows, the newest presence may be told once more
    /// (RFC 6121 4.3.2).
    pub fn renew(&mut self, receiver: u32) {
        let size = self.topology.lanes_in() as usize;
        let first = receiver as usize * size;
        let lanes = first..first + size;
        self.retells
            .extend(lanes.map(|lane| (lane, OVERTAKING_MAX)));
    }

    /// Whether this presence of a lane is the newest, told once more as it may be; once.
    fn is_retold(&mut self, lane: usize, sequence: u32) -> bool {
        sequence + 1 == self.next[lane] && self.retells.remove(&lane).is_some()
    }

    /// A presence that was expected came to who may be told an older one yet.
    fn overtake(&mut self, lane: usize) {
        match self.retells.get_mut(&lane) {
            Some(0) => {
                self.retells.remove(&lane);
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }

    fn is_excused(&self, lane: usize, sequence: u32) -> bool {
        self.excused.get(&lane).is_some_and(|excused| {
            let at = excused.partition_point(|range| range.end <= sequence);
            excused
                .get(at)
                .is_some_and(|range| range.contains(&sequence))
        })
    }

    fn clique_of(&self, client: u32, size: u32) -> Range<u32> {
        let first = client / size * size;
        first..(first + size).min(self.clients)
    }

    /// Takes the next sequence of `sender`, whose `turn` picks the lane; gives (receiver or
    /// [`BROADCAST`], sequence).
    pub fn send(&mut self, sender: u32, turn: u32) -> (u32, u32) {
        self.verdict.sent += 1;
        let (to, lane) = match &self.topology {
            Topology::Partners(offsets) => {
                let lane = turn as usize % offsets.len();
                let to = (sender + offsets[lane]) % self.clients;
                (to, sender as usize * offsets.len() + lane)
            }
            Topology::Cliques(_) | Topology::Rooms(_) => (BROADCAST, sender as usize),
        };
        let sequence = self.sent[lane];
        self.sent[lane] += 1;
        (to, sequence)
    }

    /// The (outgoing, incoming) lane from `sender` to `receiver`, where there is one.
    fn lanes(&self, sender: u32, receiver: u32) -> Option<(usize, usize)> {
        match &self.topology {
            Topology::Partners(offsets) => {
                let offset = (receiver + self.clients - sender) % self.clients;
                let lane = offsets.iter().position(|known| *known == offset)?;
                let count = offsets.len();
                Some((
                    sender as usize * count + lane,
                    receiver as usize * count + lane,
                ))
            }
            Topology::Cliques(size) | Topology::Rooms(size) => {
                if sender / size != receiver / size {
                    return None;
                }
                let lane = (sender % size) as usize;
                Some((sender as usize, receiver as usize * *size as usize + lane))
            }
        }
    }

    /// Enters the arrival of `mark`, whose indices count from this ring's first client.
    pub fn arrive(&mut self, receiver: u32, mark: &Mark) -> Arrival {
        let addressed = match self.topology {
            Topology::Partners(_) => mark.to == receiver,
            Topology::Cliques(_) | Topology::Rooms(_) => mark.to == BROADCAST,
        };
        let lanes = match mark.from < self.clients && addressed {
            true => self.lanes(mark.from, receiver),
            false => None,
        };
        let Some((out, lane)) = lanes else {
            self.verdict.misrouted += 1;
            return Arrival::Fault;
        };
        if mark.sequence >= self.sent[out] {
            self.verdict.corrupted += 1;
            return Arrival::Fault;
        }
        let is_room = matches!(self.topology, Topology::Rooms(_));
        let own = mark.from == receiver && !is_room;
        let next = self.next[lane];
        let is_excused = self.is_excused(lane, mark.sequence);
        if mark.sequence < next {
            let late = self.missing.get_mut(&lane).filter(|_| !own);
            if !late.is_some_and(|late| take(late, mark.sequence)) {
                if self.is_retold(lane, mark.sequence) {
                    self.verdict.retold += 1;
                    return Arrival::Retold;
                }
                self.verdict.duplicated += 1;
                return Arrival::Fault;
            }
            self.verdict.reordered += u64::from(!is_excused);
        } else {
            if mark.sequence > next && !own {
                self.missing
                    .entry(lane)
                    .or_default()
                    .push(next..mark.sequence);
            }
            self.next[lane] = mark.sequence + 1;
        }
        if own {
            self.verdict.own_copies += 1;
            return Arrival::Own;
        }
        if is_excused {
            self.verdict.retold += 1;
            return Arrival::Retold;
        }
        self.overtake(lane);
        self.verdict.delivered += 1;
        Arrival::Fresh
    }

    /// The final counts: what is missing now is lost.
    pub fn settle(&self) -> Verdict {
        let mut verdict = self.verdict;
        for receiver in 0..self.clients {
            let senders: Vec<u32> = match &self.topology {
                Topology::Partners(offsets) => offsets
                    .iter()
                    .map(|offset| (receiver + self.clients - offset) % self.clients)
                    .collect(),
                Topology::Cliques(size) => self
                    .clique_of(receiver, *size)
                    .filter(|sender| *sender != receiver)
                    .collect(),
                Topology::Rooms(size) => self.clique_of(receiver, *size).collect(),
            };
            for sender in senders {
                let (out, lane) = self.lanes(sender, receiver).expect("a partner has a lane");
                let (sent, next) = (self.sent[out], self.next[lane]);
                let holes = self.missing.get(&lane).into_iter().flatten().cloned();
                let none = Vec::new();
                let excused = self.excused.get(&lane).unwrap_or(&none);
                let lost: u64 = holes
                    .chain(std::iter::once(next..sent))
                    .map(|hole| size(&hole) - overlap(excused, &hole))
                    .sum();
                verdict.expected += u64::from(sent) - excused.iter().map(size).sum::<u64>();
                verdict.lost += lost;
            }
        }
        verdict
    }
}

fn size(range: &Range<u32>) -> u64 {
    u64::from(range.end - range.start)
}

/// How much of `hole` is in these ranges.
fn overlap(ranges: &[Range<u32>], hole: &Range<u32>) -> u64 {
    let within = |range: &Range<u32>| {
        let (start, end) = (range.start.max(hole.start), range.end.min(hole.end));
        u64::from(end.saturating_sub(start))
    };
    ranges.iter().map(within).sum()
}

/// Removes `sequence` from the holes; says whether it was in one.
fn take(holes: &mut Vec<Range<u32>>, sequence: u32) -> bool {
    let Some(at) = holes.iter().position(|hole| hole.contains(&sequence)) else {
        return false;
    };
    let hole = holes.swap_remove(at);
    for part in [hole.start..sequence, sequence + 1..hole.end] {
        if !part.is_empty() {
            holes.push(part);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(from: u32, to: u32, sequence: u32) -> Mark {
        Mark {
            from,
            to,
            sequence,
            intended: 0,
            sent: 0,
        }
    }

    fn chat() -> (Ledger, Vec<Mark>) {
        let mut ledger = Ledger::new(5, Topology::Partners(vec![1, 3]));
        let marks = (0..40)
            .map(|round| {
                let sender = round % 5;
                let (to, sequence) = ledger.send(sender, round / 5);
                mark(sender, to, sequence)
            })
            .collect();
        (ledger, marks)
    }

    #[test]
    fn everything_delivered_once_in_order_is_clean() {
        let (mut ledger, marks) = chat();
        for mark in &marks {
            assert_eq!(ledger.arrive(mark.to, mark), Arrival::Fresh);
        }
        let verdict = ledger.settle();
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(
            (verdict.sent, verdict.expected, verdict.delivered),
            (40, 40, 40)
        );
    }

    #[test]
    fn a_room_returns_what_is_said_to_who_said_it() {
        // Two rooms of three and one of one.
        let mut ledger = Ledger::new(7, Topology::Rooms(3));
        assert_eq!((ledger.copies(1), ledger.copies(6)), (3, 1));
        let (to, sequence) = ledger.send(1, 0);
        let said = mark(1, to, sequence);
        for receiver in [0, 1] {
            assert_eq!(ledger.arrive(receiver, &said), Arrival::Fresh);
        }
        assert_eq!(ledger.arrive(1, &said), Arrival::Fault, "once");
        assert_eq!(ledger.arrive(3, &said), Arrival::Fault, "another room");
        ledger.send(6, 0);
        let verdict = ledger.settle();
        assert_eq!(
            (verdict.expected, verdict.delivered, verdict.lost),
            (4, 2, 2)
        );
        assert_eq!((verdict.duplicated, verdict.misrouted), (1, 1));
        assert_eq!(verdict.own_copies, 0);
    }

    #[test]
    fn injected_loss_is_counted_in_the_middle_and_at_the_end() {
        let (mut ledger, marks) = chat();
        for (at, mark) in marks.iter().enumerate() {
            if at != 3 && at < 35 {
                ledger.arrive(mark.to, mark);
            }
        }
        let verdict = ledger.settle();
        assert_eq!(
            (verdict.lost, verdict.delivered, verdict.duplicated),
            (6, 34, 0)
        );
        assert_eq!(verdict.reordered, 0);
    }

    #[test]
    fn an_injected_duplicate_is_not_a_delivery() {
        let (mut ledger, marks) = chat();
        for mark in &marks {
            ledger.arrive(mark.to, mark);
        }
        assert_eq!(ledger.arrive(marks[7].to, &marks[7]), Arrival::Fault);
        let verdict = ledger.settle();
        assert_eq!(
            (verdict.duplicated, verdict.delivered, verdict.lost),
            (1, 40, 0)
        );
    }

    #[test]
    fn a_swap_is_reordering_and_nothing_else() {
        let (mut ledger, mut marks) = chat();
        // The same lane recurs every ten sends.
        marks.swap(4, 14);
        for mark in &marks {
            ledger.arrive(mark.to, mark);
        }
        let verdict = ledger.settle();
        assert_eq!(
            (verdict.reordered, verdict.lost, verdict.duplicated),
            (1, 0, 0)
        );
        assert_eq!(verdict.delivered, 40);
    }

    #[test]
    fn a_wrong_receiver_and_an_invented_sequence_are_faults() {
        let (mut ledger, marks) = chat();
        assert_eq!(
            ledger.arrive((marks[0].to + 1) % 5, &marks[0]),
            Arrival::Fault
        );
        assert_eq!(
            ledger.arrive(marks[0].to, &mark(marks[0].from, marks[0].to, 99)),
            Arrival::Fault
        );
        assert_eq!(ledger.arrive(1, &mark(77, 1, 0)), Arrival::Fault);
        assert_eq!((ledger.verdict.misrouted, ledger.verdict.corrupted), (2, 1));
    }

    #[test]
    fn a_broadcast_is_expected_by_all_of_the_clique_but_its_sender() {
        let mut ledger = Ledger::new(7, Topology::Cliques(3));
        assert_eq!((ledger.copies(0), ledger.copies(6)), (2, 0));
        let (to, sequence) = ledger.send(1, 0);
        let mark = mark(1, to, sequence);
        assert_eq!(ledger.arrive(0, &mark), Arrival::Fresh);
        assert_eq!(ledger.arrive(1, &mark), Arrival::Own);
        assert_eq!(ledger.settle().lost, 1);
        assert_eq!(ledger.arrive(2, &mark), Arrival::Fresh);
        assert_eq!(ledger.arrive(3, &mark), Arrival::Fault);
        let verdict = ledger.settle();
        assert_eq!(
            (verdict.expected, verdict.delivered, verdict.lost),
            (2, 2, 0)
        );
        assert_eq!((verdict.own_copies, verdict.misrouted), (1, 1));
    }

    #[test]
    fn who_was_not_there_may_be_told_later_but_nothing_twice() {
        let mut ledger = Ledger::new(3, Topology::Cliques(3));
        let send = |ledger: &mut Ledger| {
            let (to, sequence) = ledger.send(0, 0);
            mark(0, to, sequence)
        };
        let seen = send(&mut ledger);
        for receiver in [1, 2] {
            assert_eq!(ledger.arrive(receiver, &seen), Arrival::Fresh);
        }
        let away = [send(&mut ledger), send(&mut ledger)];
        for one in &away {
            ledger.excuse(0, 2, one.sequence);
            assert_eq!(ledger.arrive(1, one), Arrival::Fresh);
        }
        let verdict = ledger.settle();
        assert_eq!(
            (verdict.expected, verdict.lost),
            (4, 0),
            "nobody waits for it"
        );
        ledger.renew(2);
        // The newest is told, and what follows is expected again.
        assert_eq!(ledger.arrive(2, &away[1]), Arrival::Retold);
        assert_eq!(ledger.arrive(2, &away[1]), Arrival::Retold, "once more");
        assert_eq!(ledger.arrive(2, &away[1]), Arrival::Fault, "and no more");
        ledger.renew(2);
        assert_eq!(ledger.arrive(2, &seen), Arrival::Fault, "not the newest");
        let last = send(&mut ledger);
        assert_eq!(ledger.settle().lost, 2);
        assert_eq!(ledger.arrive(2, &last), Arrival::Fresh);
        assert_eq!(
            ledger.arrive(1, &seen),
            Arrival::Fault,
            "who stayed is told once"
        );
        let verdict = ledger.settle();
        assert_eq!(
            (verdict.expected, verdict.delivered, verdict.lost),
            (6, 5, 1)
        );
        assert_eq!((verdict.retold, verdict.duplicated), (2, 3));
        assert_eq!(verdict.reordered, 0);
    }

    #[test]
    fn an_absence_is_one_range_and_a_loss_one_hole_however_much_was_sent() {
        let mut ledger = Ledger::new(2, Topology::Cliques(2));
        let (_, lane) = ledger.lanes(0, 1).unwrap();
        for absence in 1..=3 {
            for _ in 0..1000 {
                let (_, sequence) = ledger.send(0, 0);
                ledger.excuse(0, 1, sequence);
            }
            assert_eq!(ledger.excused[&lane].len(), absence);
            let mut last = mark(0, BROADCAST, 0);
            for _ in 0..1000 {
                (last.to, last.sequence) = ledger.send(0, 0);
            }
            assert_eq!(ledger.arrive(1, &last), Arrival::Fresh);
            assert_eq!(ledger.missing[&lane].len(), absence);
        }
        assert_eq!(ledger.settle().lost, 3 * 999);
    }

    #[test]
    fn who_came_back_is_told_the_newest_soon_or_not_at_all() {
        for (later, told) in [
            (0, Arrival::Retold),
            (OVERTAKING_MAX, Arrival::Retold),
            (OVERTAKING_MAX + 1, Arrival::Fault),
        ] {
            let mut ledger = Ledger::new(2, Topology::Cliques(2));
            let mut newest = mark(0, BROADCAST, 0);
            for round in 0..=later {
                (newest.to, newest.sequence) = ledger.send(0, 0);
                assert_eq!(ledger.arrive(1, &newest), Arrival::Fresh);
                if round == 0 {
                    ledger.renew(1);
                }
            }
            assert_eq!(ledger.arrive(1, &newest), told, "{later} later");
            assert_eq!(ledger.arrive(1, &newest), Arrival::Fault);
        }
    }

    #[test]
    fn partners_are_distinct_and_never_oneself() {
        for clients in [2, 3, 17, 5000] {
            let Topology::Partners(mut offsets) = Topology::partners(clients, PARTNERS_MAX, 9)
            else {
                panic!()
            };
            assert_eq!(offsets.len() as u32, PARTNERS_MAX.min(clients - 1));
            assert!(offsets.iter().all(|offset| (1..clients).contains(offset)));
            offsets.sort_unstable();
            offsets.dedup();
            assert_eq!(offsets.len() as u32, PARTNERS_MAX.min(clients - 1));
        }
    }
}
