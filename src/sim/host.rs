//! One shard's side of the simulated world: [`xmpp::Host`] over virtual connections and rings.

use crate::faults::Faults;
use crate::random::Random;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use xmpp::parcel::{Buffer, Parcel};
use xmpp::port::StoreOp;
use xmpp::stream::StreamState;
use xmpp::stream::sasl::DeriveJob;
use xmpp::xep::upload::SlotRequest;
use xmpp::{ConnId, Host, ShardId, Ticket, Timestamp};

/// Derivations of one shard that wait; the next one is refused.
const DERIVATIONS_MAX: usize = 64;

/// Output of one turn from which a connection's input waits for the next.
const CHOKE_SIZE: usize = 128 << 10;

/// A connection as its shard sees it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub generation: u32,
    /// The wire under it; `None` while the slot is free.
    pub wire: Option<usize>,
    /// What the shard wrote in this turn.
    pub output: Vec<u8>,
    /// What arrived and was not consumed.
    pub input: Vec<u8>,
    /// Whether there is something to offer.
    pub ready: bool,
    pub paused: bool,
    /// The shard wants to know when nothing waits to be written any more.
    pub tells_written: bool,
    /// The peer sends no more.
    pub eof: bool,
    /// Between `<proceed/>` and the end of the handshake.
    pub handshaking: bool,
}

/// What a shard asked for in a turn, in order.
#[derive(Debug)]
pub(crate) enum Effect {
    Close(ConnId),
    StartTls(ConnId),
    Move(ConnId, ShardId, Box<StreamState>),
    Store(Ticket, StoreOp),
    Derive(Ticket, Box<DeriveJob>),
    Slot(Ticket, Box<SlotRequest>),
}

/// A ring to a sibling and what did not fit into it.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    pub queue: VecDeque<Parcel>,
    pub spill: VecDeque<Parcel>,
}

/// The world as one shard sees it.
pub(crate) struct Side {
    pub id: ShardId,
    pub now: u64,
    pub clock_ahead_us: i64,
    pub random: Random,
    pub slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots with output, in the order in which they got it.
    pub dirty: Vec<u32>,
    pub effects: Vec<Effect>,
    pub rings: Vec<Ring>,
    pub ring_capacity: usize,
    pub wake: Option<u64>,
    /// When a command has the server go down: the process's.
    pub end: Arc<OnceLock<Timestamp>>,
    /// Buffers taken and not given back.
    pub balance: i64,
    pool: Vec<Buffer>,
    /// Siblings' buffers, on their way home.
    pub returned: Vec<(ShardId, Buffer)>,
    pub derivations: usize,
    /// Requests that storage has not answered, and how many it takes.
    pub requests: usize,
    pub storage_capacity: usize,
    /// The most parcels that ever waited outside a full ring.
    pub spill_peak: usize,
    /// How many parcels were sent.
    pub parcels: usize,
    /// The most parcels that ever waited for one sibling, and the most bytes of one.
    pub parcels_peak: usize,
    pub parcel_size_peak: usize,
    scratch: Vec<u8>,
}

impl Side {
    pub(crate) fn new(
        id: ShardId,
        shards: u16,
        random: Random,
        faults: &Faults,
        end: Arc<OnceLock<Timestamp>>,
    ) -> Side {
        Side {
            id,
            now: 0,
            clock_ahead_us: 0,
            random,
            slots: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            effects: Vec::new(),
            rings: (0..shards).map(|_| Ring::default()).collect(),
            ring_capacity: faults.ring_capacity,
            wake: None,
            end,
            balance: 0,
            pool: Vec::new(),
            returned: Vec::new(),
            derivations: 0,
            requests: 0,
            storage_capacity: faults.storage_capacity,
            spill_peak: 0,
            parcels: 0,
            parcels_peak: 0,
            parcel_size_peak: 0,
            scratch: Vec::new(),
        }
    }

    /// Gives a wire a place on this shard.
    pub(crate) fn admit(&mut self, wire: usize) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        let generation = slot.generation + 1;
        *slot = Slot {
            generation,
            wire: Some(wire),
            ..Slot::default()
        };
        ConnId { index, generation }
    }

    /// Takes the wire away from a place that stays taken until its shard has heard of it.
    pub(crate) fn unplug(&mut self, conn: ConnId) {
        let slot = self.slot(conn).expect("a connection is cut once");
        *slot = Slot {
            generation: slot.generation,
            ..Slot::default()
        };
    }

    /// Frees a place whose wire is gone.
    pub(crate) fn free(&mut self, conn: ConnId) {
        self.free.push(conn.index);
    }

    /// Takes the place away again.
    pub(crate) fn release(&mut self, conn: ConnId) -> Slot {
        let slot = &mut self.slots[conn.index as usize];
        assert_eq!(
            slot.generation, conn.generation,
            "a connection is released once"
        );
        let empty = Slot {
            generation: slot.generation,
            ..Slot::default()
        };
        self.free.push(conn.index);
        self.dirty.retain(|index| *index != conn.index);
        std::mem::replace(slot, empty)
    }

    /// The place of a connection that is still here.
    pub(crate) fn slot(&mut self, conn: ConnId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(conn.index as usize)?;
        (slot.generation == conn.generation && slot.wire.is_some()).then_some(slot)
    }

    /// Whether requests wait outside what storage takes. Siblings' parcels wait then, too.
    pub(crate) fn waits_for_storage(&self) -> bool {
        self.requests > self.storage_capacity
    }

    /// Whether something waits outside what is full: then no bytes are offered.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.is_spilling() || self.waits_for_storage()
    }

    /// Whether parcels wait outside a full ring: then nothing new is admitted.
    pub(crate) fn is_spilling(&self) -> bool {
        self.rings.iter().any(|ring| !ring.spill.is_empty())
    }

    /// Moves spilled parcels into their rings as far as there is room.
    pub(crate) fn unspill(&mut self) {
        for ring in &mut self.rings {
            while ring.queue.len() < self.ring_capacity {
                let Some(parcel) = ring.spill.pop_front() else {
                    break;
                };
                ring.queue.push_back(parcel);
            }
        }
    }

    /// Takes a buffer back that was taken here.
    pub(crate) fn take_home(&mut self, mut buffer: Buffer) {
        self.balance -= 1;
        assert!(self.balance >= 0, "a buffer went home twice");
        buffer.clear();
        self.pool.push(buffer);
    }
}

impl Host for Side {
    fn now(&self) -> Timestamp {
        Timestamp(self.now)
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.now.saturating_add_signed(self.clock_ahead_us))
    }

    fn random(&mut self) -> u64 {
        self.random.bits()
    }

    fn output(&mut self, conn: ConnId) -> &mut Vec<u8> {
        let index = conn.index as usize;
        let alive = self
            .slots
            .get(index)
            .is_some_and(|slot| slot.generation == conn.generation && slot.wire.is_some());
        if !alive {
            self.scratch.clear();
            return &mut self.scratch;
        }
        let slot = &mut self.slots[index];
        if slot.output.is_empty() && !self.dirty.contains(&conn.index) {
            self.dirty.push(conn.index);
        }
        &mut slot.output
    }

    fn is_choked(&mut self, conn: ConnId) -> bool {
        let slot = self.slot(conn);
        slot.is_some_and(|slot| slot.output.len() > CHOKE_SIZE)
    }

    fn close(&mut self, conn: ConnId) {
        self.effects.push(Effect::Close(conn));
    }

    fn tell_written(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot(conn) {
            slot.tells_written = true;
        }
        // Nothing may have been output.
        let _touched = self.output(conn);
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot(conn) {
            slot.paused = true;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot(conn) {
            slot.paused = false;
            slot.ready = true;
        }
    }

    fn start_tls(&mut self, conn: ConnId) {
        self.effects.push(Effect::StartTls(conn));
    }

    fn move_to(&mut self, conn: ConnId, to: ShardId, state: Box<StreamState>) {
        assert_ne!(to, self.id, "a connection moves to another shard");
        self.effects.push(Effect::Move(conn, to, state));
    }

    fn forward(&mut self, to: ShardId, parcel: Parcel) {
        assert_ne!(to, self.id, "parcels go to siblings");
        let ring = &mut self.rings[usize::from(to.0)];
        let waiting = ring.queue.len() + ring.spill.len() + 1;
        self.parcels += 1;
        self.parcels_peak = self.parcels_peak.max(waiting);
        self.parcel_size_peak = self.parcel_size_peak.max(parcel.size());
        if ring.spill.is_empty() && ring.queue.len() < self.ring_capacity {
            ring.queue.push_back(parcel);
        } else {
            ring.spill.push_back(parcel);
            self.spill_peak = self.spill_peak.max(ring.spill.len());
        }
    }

    fn buffer(&mut self) -> Buffer {
        self.balance += 1;
        self.pool.pop().unwrap_or_default()
    }

    fn recycle(&mut self, home: ShardId, buffer: Buffer) {
        if home == self.id {
            self.take_home(buffer);
        } else {
            self.returned.push((home, buffer));
        }
    }

    fn store(&mut self, ticket: Ticket, op: StoreOp) {
        self.requests += 1;
        self.effects.push(Effect::Store(ticket, op));
    }

    fn derive(&mut self, ticket: Ticket, job: Box<DeriveJob>) -> bool {
        if self.derivations >= DERIVATIONS_MAX {
            return false;
        }
        self.derivations += 1;
        self.effects.push(Effect::Derive(ticket, job));
        true
    }

    fn slot(&mut self, ticket: Ticket, request: Box<SlotRequest>) {
        self.effects.push(Effect::Slot(ticket, request));
    }

    fn shut_down(&mut self, at: Timestamp) -> bool {
        self.end.set(at).is_ok()
    }

    fn is_going_down(&self) -> bool {
        self.end.get().is_some()
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(at.0);
    }
}
