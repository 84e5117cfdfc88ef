//! The rooms of a ring thread's clients: who is in, who enters, and what is said there.
//!
//! Invariant: nobody enters a room that is being opened (XEP-0045 10.1.1: a new one is locked until
//! its creator has taken it), and nobody leaves one as the last while others are to come back: it
//! would close behind him, and who comes at this moment would meet a locked one, or none.

use std::ops::Range;

use crate::body::BROADCAST;
use crate::client::Step;
use crate::driver::{Job, Worker};
use crate::plan::Dialect;
use crate::scan;
use crate::scenario::Action;
use crate::wire::Reading;

/// Where a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seat {
    /// Outside.
    #[default]
    Out,
    /// Outside until its room is open.
    Waiting,
    /// Asking to be let in.
    Entering,
    /// Inside.
    In,
}

/// How many are where.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    entering: u32,
    inside: u32,
}

/// The rooms of one ring's clients, counted from 0.
pub(crate) struct Doors {
    size: u32,
    seats: Vec<Seat>,
    counts: Vec<Count>,
    /// The address of each client in its room.
    occupants: Vec<Box<str>>,
}

impl Doors {
    /// Those of a job whose clients enter any.
    pub(crate) fn of(job: &Job) -> Option<Doors> {
        let is_xmpp = job.plan.dialect == Dialect::Xmpp;
        let rooms = job.script.rooms.as_ref().filter(|_| is_xmpp)?;
        let first = job.script.first_account;
        let occupants = (job.first..job.first + job.count)
            .map(|index| rooms.occupant(first, index).into_boxed_str())
            .collect();
        Some(Doors::new(job.plan.clique, occupants))
    }

    fn new(size: u32, occupants: Vec<Box<str>>) -> Doors {
        let count = occupants.len();
        Doors {
            size,
            seats: vec![Seat::Out; count],
            counts: vec![Count::default(); count.div_ceil(size as usize)],
            occupants,
        }
    }

    /// The address of a client's room.
    pub(crate) fn room(&self, client: u32) -> &str {
        crate::muc::room_of(&self.occupants[client as usize])
    }

    /// Whether an address is that of a client in its room.
    fn is_occupant(&self, client: u32, address: &[u8]) -> bool {
        let occupant = self.occupants.get(client as usize);
        occupant.is_some_and(|occupant| occupant.as_bytes() == address)
    }

    fn members(&self, client: u32) -> Range<u32> {
        let first = client / self.size * self.size;
        first..(first + self.size).min(self.seats.len() as u32)
    }

    fn sit(&mut self, client: u32, seat: Seat) {
        let count = &mut self.counts[(client / self.size) as usize];
        match self.seats[client as usize] {
            Seat::Entering => count.entering -= 1,
            Seat::In => count.inside -= 1,
            Seat::Out | Seat::Waiting => {}
        }
        match seat {
            Seat::Entering => count.entering += 1,
            Seat::In => count.inside += 1,
            Seat::Out | Seat::Waiting => {}
        }
        self.seats[client as usize] = seat;
    }

    fn count(&self, client: u32) -> Count {
        self.counts[(client / self.size) as usize]
    }

    /// A client is about to enter: says whether it may at once.
    fn ask(&mut self, client: u32) -> bool {
        let count = self.count(client);
        let may = count.inside > 0 || count.entering == 0;
        self.sit(client, if may { Seat::Entering } else { Seat::Waiting });
        may
    }

    /// A client is inside: gives who waited for that, and enters now.
    fn enter(&mut self, client: u32) -> Vec<u32> {
        self.sit(client, Seat::In);
        self.let_in(client, u32::MAX)
    }

    /// A client is gone: gives who opens the room in its place, where somebody waits for it.
    fn leave(&mut self, client: u32) -> Vec<u32> {
        let was_entering = self.seats[client as usize] == Seat::Entering;
        self.sit(client, Seat::Out);
        let Count { entering, inside } = self.count(client);
        match was_entering && entering == 0 && inside == 0 {
            true => self.let_in(client, 1),
            false => Vec::new(),
        }
    }

    /// Lets at most so many of those who wait for a client's room enter it.
    fn let_in(&mut self, client: u32, most: u32) -> Vec<u32> {
        let members = self.members(client);
        let waiting = members.filter(|member| self.seats[*member as usize] == Seat::Waiting);
        let next: Vec<u32> = waiting.take(most as usize).collect();
        for member in &next {
            self.sit(*member, Seat::Entering);
        }
        next
    }

    /// Whether a client is the only one in a room that others enter, too.
    fn is_last(&self, client: u32) -> bool {
        self.count(client).inside == 1 && self.members(client).len() > 1
    }
}

impl Worker {
    /// A client that has logged in is about to enter its room.
    pub(crate) fn come_to_room(&mut self, index: u32) {
        let doors = self.doors.as_mut().expect("asked where there are rooms");
        if doors.ask(index) {
            self.enter_room(index);
        }
    }

    fn enter_room(&mut self, index: u32) {
        // At the end of the run everybody closes, also who waited.
        if self.lines[index as usize].client.step != Step::Join {
            return;
        }
        let doors = self.doors.as_ref();
        let is_first = doors.is_some_and(|doors| doors.count(index).inside == 0);
        let turn = self.with_client(index, |client, cx| client.join(cx, is_first));
        self.on_turn(index, turn);
    }

    /// A client became ready: it is in its room, and who waited for that may follow.
    pub(crate) fn is_in_room(&mut self, index: u32) {
        let followers = self.doors.as_mut().map(|doors| doors.enter(index));
        for follower in followers.unwrap_or_default() {
            self.enter_room(follower);
        }
    }

    /// A client closed its stream, or failed: it is in no room any more.
    pub(crate) fn leave_room(&mut self, index: u32) {
        let next = self.doors.as_mut().map(|doors| doors.leave(index));
        for client in next.unwrap_or_default() {
            self.enter_room(client);
        }
    }

    /// Whether a client would close its room to the others if it left.
    pub(crate) fn is_last_in_room(&self, index: u32) -> bool {
        self.doors
            .as_ref()
            .is_some_and(|doors| doors.is_last(index))
    }

    /// Whether `element` comes out of a room; deals with it.
    pub(crate) fn on_room(&mut self, index: u32, element: &[u8]) -> bool {
        let Some(rooms) = &self.job.script.rooms else {
            return false;
        };
        let name = scan::local_name(element);
        let from = scan::attribute(element, b"from").unwrap_or(b"");
        if !matches!(name, b"message" | b"presence") || !rooms.has(from) {
            return false;
        }
        match self.shape.read_groupchat(element) {
            Reading::Measured(mark, from, to) => {
                let sender = mark.from.wrapping_sub(self.job.first);
                let doors = self.doors.as_ref();
                let is_right = mark.to == BROADCAST
                    && self.is_address(index, to)
                    && doors.is_some_and(|doors| doors.is_occupant(sender, from));
                match &self.mix {
                    _ if !is_right => self.ledger.verdict.misrouted += 1,
                    None => self.arrive(index, &mark),
                    Some(_) => self.arrive_as(Action::Muc, index, &mark),
                }
            }
            // What the room itself says is nobody's message (XEP-0045 7.9).
            Reading::Corrupted if !from.contains(&b'/') => {}
            Reading::Corrupted => self.ledger.verdict.corrupted += 1,
            Reading::Bounced => self.ledger.verdict.bounced += 1,
            Reading::Other | Reading::Request | Reading::StreamError => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: [u32; 0] = [];

    fn doors(clients: u32, size: u32) -> Doors {
        let rooms = crate::muc::Rooms::new("conference.example", size);
        let occupants = (0..clients).map(|index| rooms.occupant(0, index).into());
        Doors::new(size, occupants.collect())
    }

    #[test]
    fn one_opens_a_room_and_the_others_follow() {
        let mut doors = doors(5, 3);
        assert!(doors.ask(0) && !doors.ask(1) && !doors.ask(2));
        assert!(doors.ask(4), "another room");
        assert_eq!(doors.enter(4), NOBODY);
        assert_eq!(doors.enter(0), [1, 2]);
        assert!(doors.is_last(0), "nobody else is in yet");
        assert_eq!((doors.enter(1), doors.enter(2)), (vec![], vec![]));
        assert!(!doors.is_last(0));
        // It is open as long as somebody is in.
        assert_eq!((doors.leave(0), doors.leave(1)), (vec![], vec![]));
        assert!(doors.ask(0) && doors.ask(1));
        assert_eq!((doors.enter(0), doors.enter(1)), (vec![], vec![]));
        for client in 0..3 {
            doors.leave(client);
        }
        assert!(doors.ask(1) && !doors.ask(0), "it has closed");
    }

    #[test]
    fn who_fails_to_open_a_room_is_followed_by_the_next() {
        let mut doors = doors(3, 3);
        assert!(doors.ask(0) && !doors.ask(1) && !doors.ask(2));
        assert_eq!(doors.leave(0), [1]);
        assert_eq!(doors.leave(2), NOBODY, "it only waited");
        assert_eq!(doors.leave(1), NOBODY);
        assert!(doors.ask(0));
    }
}
