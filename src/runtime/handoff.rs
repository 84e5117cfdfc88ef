//! Moving a connection to the shard of its account: an envelope through the mesh, the socket
//! through MSG_RING.
//!
//! Invariant: a connection leaves only while nothing is in flight on it, and from the moment its
//! socket is sent this shard does not touch it. Bytes that come meanwhile wait in the socket. The
//! envelope and the socket may arrive in either order; they find each other by number. What cannot
//! leave or arrive by the deadline of its log-in is here again, and is told so here.

use crate::connection::{Conn, Life, Reading};
use crate::mesh::Item;
use crate::transport::tls::Tls;
use crate::transport::web::Web;
use crate::turn::Turn;
use ring::{Completion, Op, Token};
use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use xmpp::stream::StreamState;
use xmpp::{ConnId, ShardId, Timestamp};

/// Moves in flight per ring: the close of our slot lags behind, so the other tables need head-room.
pub(crate) const IN_FLIGHT_MAX: u32 = 64;
/// How long to wait after a move failed: mostly the other table is full.
const RETRY_MS: u64 = 5;
/// The error of a close whose move failed.
const ECANCELED: i32 = -125;

/// Where a connection goes, as long as it is still here.
pub(crate) struct Leaving {
    pub(crate) to: ShardId,
    pub(crate) state: Box<StreamState>,
    /// Whether its deadline is among the endings.
    pub(crate) is_timed: bool,
}

/// All of a connection but its socket.
#[derive(Debug)]
pub(crate) struct Envelope {
    number: u32,
    state: Box<StreamState>,
    tls: Option<Box<Tls>>,
    web: Option<Box<Web>>,
    undigested: Vec<u8>,
    records: Vec<u8>,
    peer: Option<IpAddr>,
    direct_tls: bool,
    eof: bool,
}

impl Envelope {
    /// Gives a connection what was sent; what remains is the protocol's.
    fn open(self, conn: &mut Conn) -> Box<StreamState> {
        conn.peer = self.peer;
        conn.direct_tls = self.direct_tls;
        conn.tls = self.tls;
        conn.web = self.web;
        conn.eof = self.eof;
        conn.undigested = self.undigested;
        conn.records = self.records;
        self.state
    }
}

/// A socket on its way.
#[derive(Clone, Copy, Debug)]
struct Departure {
    to: ShardId,
    number: u32,
    /// When its client must be bound.
    deadline: Timestamp,
}

/// A shard's moves.
#[derive(Default)]
pub(crate) struct Handoff {
    next: u32,
    flying: HashMap<ConnId, Departure>,
    /// Envelopes are pushed; their sockets are sent behind the publication.
    departing: Vec<ConnId>,
    waiting: VecDeque<ConnId>,
    retries: VecDeque<(Timestamp, ConnId)>,
    envelopes: HashMap<(u16, u32), Box<Envelope>>,
    sockets: HashMap<(u16, u32), u32>,
}

impl Handoff {
    /// When the next retry is due.
    pub(crate) fn next_retry(&self) -> Option<Timestamp> {
        self.retries.front().map(|(at, _)| *at)
    }
}

impl Turn {
    /// Sends a leaving connection off if nothing is in flight on it; else its next completion
    /// comes here again.
    pub(crate) fn try_depart(&mut self, id: ConnId) {
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        if conn.life != Life::Leaving {
            return;
        }
        if conn.unsent() > 0 {
            return self.time_departure(id);
        }
        match conn.reading {
            Reading::Idle => {}
            Reading::Cancelling => return,
            Reading::Once | Reading::Multi => {
                conn.reading = Reading::Cancelling;
                return self
                    .ring
                    .cancel(Token::new(Op::Recv, id.index, id.generation));
            }
        }
        if self.handoff.flying.len() >= IN_FLIGHT_MAX as usize {
            self.handoff.waiting.push_back(id);
            return self.time_departure(id);
        }
        let leaving = conn
            .leaving
            .take()
            .expect("a leaving connection has its state");
        let Leaving { to, state, .. } = *leaving;
        let deadline = state.deadline();
        conn.life = Life::Departed;
        self.handoff.next = self.handoff.next.wrapping_add(1);
        let number = self.handoff.next;
        self.world.held -= conn.held();
        let envelope = Envelope {
            number,
            state,
            tls: conn.tls.take(),
            web: conn.web.take(),
            undigested: std::mem::take(&mut conn.undigested),
            records: std::mem::take(&mut conn.records),
            peer: conn.peer.take(),
            direct_tls: conn.direct_tls,
            eof: conn.eof,
        };
        self.world.strip(id);
        self.world.mesh.push(to, Item::Envelope(Box::new(envelope)));
        let departure = Departure {
            to,
            number,
            deadline,
        };
        self.handoff.flying.insert(id, departure);
        self.handoff.departing.push(id);
        self.counters.moved += 1;
    }

    /// Has a connection that cannot leave yet stay here if that lasts until its deadline.
    fn time_departure(&mut self, id: ConnId) {
        let conn = self.world.conns.get_mut(id);
        if let Some(leaving) = conn.and_then(|conn| conn.leaving.as_mut())
            && !std::mem::replace(&mut leaving.is_timed, true)
        {
            self.endings.push(Reverse((leaving.state.deadline(), id)));
        }
    }

    /// A connection could not leave by its deadline: the protocol has it again, and ends it.
    pub(crate) fn stay(&mut self, id: ConnId) {
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        if let Some(leaving) = conn.leaving.take() {
            conn.life = Life::Open;
            self.shard.on_adopt(&mut self.world, id, leaving.state);
            self.world.touch(id);
            self.depart_instead();
        }
    }

    /// Sends the sockets whose envelopes are published.
    pub(crate) fn send_departing(&mut self) {
        while let Some(id) = self.handoff.departing.pop() {
            let Some(departure) = self.handoff.flying.get(&id) else {
                continue;
            };
            let bell = &self.bells[usize::from(departure.to.0)];
            let ring = bell
                .descriptor()
                .expect("shards listen when all rings are up");
            let own = u32::from(self.world.mesh.id().0);
            let arrival = Token::new(Op::Arrived, departure.number, own);
            self.ring.send_slot(id.index, id.generation, ring, arrival);
        }
    }

    /// Tries again what found a full table.
    pub(crate) fn retry_departures(&mut self) {
        while let Some(&(at, id)) = self.handoff.retries.front() {
            if at > self.world.now {
                break;
            }
            self.handoff.retries.pop_front();
            self.handoff.departing.push(id);
        }
    }

    /// A socket left, or could not.
    pub(crate) fn on_sent_slot(&mut self, completion: &Completion) {
        let id = crate::connection::id_of(completion.token);
        let Some(departure) = self.handoff.flying.get(&id).copied() else {
            return;
        };
        if completion.result >= 0 {
            return;
        }
        if self.stopping.is_none() {
            if self.world.now >= departure.deadline {
                let recall = Item::Recall(departure.number);
                return self.world.mesh.push(departure.to, recall);
            }
            let at = self.world.now.plus_ms(RETRY_MS);
            return self.handoff.retries.push_back((at, id));
        }
        // The sibling may be gone; so is the connection.
        self.handoff.flying.remove(&id);
        self.release(id);
    }

    /// A slot's close completed: ours is free, or a move failed and it is as it was.
    pub(crate) fn on_slot_closed(&mut self, completion: &Completion) {
        if completion.result == ECANCELED {
            return;
        }
        let id = crate::connection::id_of(completion.token);
        self.world.conns.free(id);
        if self.handoff.flying.remove(&id).is_some() {
            self.depart_next();
        }
        self.arm_accepts();
    }

    /// One move less is in flight. Who waits for that and has ended meanwhile does not leave.
    fn depart_next(&mut self) {
        while let Some(next) = self.handoff.waiting.pop_front() {
            let conn = self.world.conns.get_mut(next);
            if conn.is_some_and(|conn| conn.life == Life::Leaving) {
                return self.world.touch(next);
            }
        }
    }

    /// One that was to leave does not. It may have been its turn.
    pub(crate) fn depart_instead(&mut self) {
        if self.handoff.flying.len() < IN_FLIGHT_MAX as usize {
            self.depart_next();
        }
    }

    /// A sibling wants an envelope back whose socket found no room here.
    pub(crate) fn on_recall(&mut self, from: ShardId, number: u32) {
        if let Some(envelope) = self.handoff.envelopes.remove(&(from.0, number)) {
            self.world.mesh.push(from, Item::Returned(envelope));
        }
    }

    /// It is back: its connection never left, and its time is over.
    pub(crate) fn on_returned(&mut self, from: ShardId, envelope: Envelope) {
        let mut flying = self.handoff.flying.iter();
        let is_it =
            |departure: &Departure| (departure.to, departure.number) == (from, envelope.number);
        let Some((&id, _)) = flying.find(|(_, departure)| is_it(departure)) else {
            return;
        };
        self.handoff.flying.remove(&id);
        self.depart_next();
        self.take_in(id, envelope);
    }

    /// An envelope came through the mesh.
    pub(crate) fn on_envelope(&mut self, from: ShardId, envelope: Box<Envelope>) {
        let key = (from.0, envelope.number);
        match self.handoff.sockets.remove(&key) {
            Some(slot) => self.adopt(slot, *envelope),
            None => drop(self.handoff.envelopes.insert(key, envelope)),
        }
    }

    /// A socket came from another ring.
    pub(crate) fn on_arrived(&mut self, completion: &Completion) {
        let Ok(slot) = u32::try_from(completion.result) else {
            return;
        };
        let key = (completion.token.generation as u16, completion.token.slot);
        match self.handoff.envelopes.remove(&key) {
            Some(envelope) => self.adopt(slot, *envelope),
            None => drop(self.handoff.sockets.insert(key, slot)),
        }
    }

    fn adopt(&mut self, slot: u32, envelope: Envelope) {
        let id = self.world.conns.open(slot);
        self.yield_slots();
        self.counters.adopted += 1;
        self.take_in(id, envelope);
    }

    fn take_in(&mut self, id: ConnId, envelope: Envelope) {
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        conn.life = Life::Open;
        let state = envelope.open(conn);
        // It is at home: from now on it receives until it ends.
        conn.receives = u8::MAX;
        self.world.held += conn.held();
        self.shard.on_adopt(&mut self.world, id, state);
        self.world.enqueue(id);
        self.world.touch(id);
    }
}
