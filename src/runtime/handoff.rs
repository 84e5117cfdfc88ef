//! Moving a connection to the shard of its account: an envelope through the mesh, the socket
//! through MSG_RING.
//!
//! Invariant: a connection leaves only while nothing is in flight on it, and from the moment its
//! socket is sent this shard does not touch it. Bytes that come meanwhile wait in the socket. The
//! envelope and the socket may arrive in either order; they find each other by number.

use crate::connection::{Life, Reading};
use crate::mesh::Item;
use crate::transport::tls::Tls;
use crate::turn::Turn;
use ring::{Completion, Op, Token};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use xmpp::stream::StreamState;
use xmpp::{ConnId, ShardId, Timestamp};

/// Moves in flight per ring: the close of our slot lags behind, so the other tables need head-room.
pub(crate) const IN_FLIGHT_MAX: u32 = 64;
/// How long to wait after the other table was full.
const RETRY_MS: u64 = 5;
/// The error of a full table.
const ENFILE: i32 = -23;
/// The error of a close whose move failed.
const ECANCELED: i32 = -125;

/// Where a connection goes, as long as it is still here.
pub(crate) struct Leaving {
    pub(crate) to: ShardId,
    pub(crate) state: Box<StreamState>,
}

/// All of a connection but its socket.
#[derive(Debug)]
pub(crate) struct Envelope {
    number: u32,
    state: Box<StreamState>,
    tls: Option<Box<Tls>>,
    undigested: Vec<u8>,
    records: Vec<u8>,
    peer: Option<IpAddr>,
    direct_tls: bool,
    eof: bool,
}

/// A socket on its way.
#[derive(Clone, Copy, Debug)]
struct Departure {
    to: ShardId,
    number: u32,
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
        if conn.life != Life::Leaving || conn.unsent() > 0 {
            return;
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
            return self.handoff.waiting.push_back(id);
        }
        let leaving = conn
            .leaving
            .take()
            .expect("a leaving connection has its state");
        let Leaving { to, state } = *leaving;
        conn.life = Life::Departed;
        self.handoff.next = self.handoff.next.wrapping_add(1);
        let number = self.handoff.next;
        self.world.held -= conn.held();
        let envelope = Envelope {
            number,
            state,
            tls: conn.tls.take(),
            undigested: std::mem::take(&mut conn.undigested),
            records: std::mem::take(&mut conn.records),
            peer: conn.peer.take(),
            direct_tls: conn.direct_tls,
            eof: conn.eof,
        };
        self.world.strip(id);
        self.world.mesh.push(to, Item::Envelope(Box::new(envelope)));
        self.handoff.flying.insert(id, Departure { to, number });
        self.handoff.departing.push(id);
        self.counters.moved += 1;
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
        if completion.result >= 0 || !self.handoff.flying.contains_key(&id) {
            return;
        }
        if completion.result == ENFILE && self.stopping.is_none() {
            let at = self.world.now.plus_ms(RETRY_MS);
            return self.handoff.retries.push_back((at, id));
        }
        // The sibling is gone; so is the connection.
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
        if self.handoff.flying.remove(&id).is_some()
            && let Some(next) = self.handoff.waiting.pop_front()
        {
            self.world.touch(next);
        }
        self.arm_accepts();
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
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        conn.peer = envelope.peer;
        conn.direct_tls = envelope.direct_tls;
        conn.tls = envelope.tls;
        conn.eof = envelope.eof;
        conn.undigested = envelope.undigested;
        conn.records = envelope.records;
        // It is at home: from now on it receives until it ends.
        conn.receives = u8::MAX;
        self.world.held += conn.held();
        self.counters.adopted += 1;
        self.shard.on_adopt(&mut self.world, id, envelope.state);
        self.world.enqueue(id);
        self.world.touch(id);
    }
}
