//! The world of one shard: what [`Host`]'s calls change. Nothing in here touches the ring; the
//! turn does that when it flushes.
//!
//! Invariant: what is read from (receive buffers, the TLS state being read, undigested bytes being
//! fed) is not in here while the protocol runs, so that everything in here can be written to.

use crate::bosh::Bosh;
use crate::clock::Clock;
use crate::connection::{Conns, Life};
use crate::derive::DeriveLink;
use crate::handoff::Leaving;
use crate::mesh::{Item, Mesh};
use crate::storage::StorageLink;
use crate::transport::tls::{ServerConfig, Tls};
use crate::uploads::UploadLink;
use ring::Pool;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use xmpp::parcel::{Buffer, Parcel};
use xmpp::port::StoreOp;
use xmpp::stream::StreamState;
use xmpp::stream::sasl::DeriveJob;
use xmpp::xep::upload::SlotRequest;
use xmpp::{ConnId, Host, ShardId, Ticket, Timestamp};

/// What an output buffer holds at first.
const OUTPUT_SIZE: usize = 512;
/// What a parcel's buffer holds at first.
const PARCEL_SIZE: usize = 512;

/// How long one send may take while more than the maximum waits behind it.
const STALLED_MS: u32 = 1_000;
/// The maximum times this is what a burst may always have.
pub(crate) const BURST_FACTOR: usize = 8;
/// What all bursts of a shard together may have, where that is more.
const BURSTS_SIZE_MAX: usize = 32 << 20;

/// Everything that the protocol's effects change.
pub(crate) struct World {
    pub(crate) conns: Conns,
    pub(crate) pool: Pool,
    pub(crate) mesh: Mesh,
    pub(crate) storage: StorageLink,
    pub(crate) derive: DeriveLink,
    /// Where files are kept, if they are.
    pub(crate) uploads: Option<UploadLink>,
    /// Sessions over many connections.
    pub(crate) bosh: Bosh,
    /// Transfers, and connections that carry bodies, that began in this turn, with when they are
    /// looked at.
    pub(crate) begun: Vec<(Timestamp, ConnId)>,
    pub(crate) starttls: Option<Arc<ServerConfig>>,
    /// Connections to look at in the flush.
    pub(crate) dirty: Vec<ConnId>,
    /// Connections with undigested input that may be fed.
    pub(crate) ready: VecDeque<ConnId>,
    /// Connections whose end is to be seen to.
    pub(crate) ending: VecDeque<ConnId>,
    /// When a command has the server go down.
    pub(crate) end: Arc<OnceLock<Timestamp>>,
    /// When the protocol wants its timer.
    pub(crate) wish: Option<Timestamp>,
    pub(crate) clock: Clock,
    pub(crate) now: Timestamp,
    pub(crate) wall: Timestamp,
    /// Bytes held undigested on this shard.
    pub(crate) held: usize,
    /// Bytes that may wait for one connection's peer.
    pub(crate) output_max: usize,
    /// Bytes that wait for the peers for which more than that waits.
    pub(crate) bursts: usize,
    /// Bytes from which on no more is read from it meanwhile.
    pub(crate) choke_size: usize,
    pub(crate) random: Random,
    /// Where output for a connection that is gone goes.
    pub(crate) scratch: Vec<u8>,
    /// Where messages of the web are put together, and where what they say goes.
    pub(crate) message: Vec<u8>,
    pub(crate) unframed: Vec<u8>,
}

impl World {
    /// The time of this turn in milliseconds that wrap.
    pub(crate) fn now_ms(&self) -> u32 {
        (self.now.0 / 1000) as u32
    }

    /// Whether something waits outside a full lane, to a sibling or to storage: then no bytes of
    /// clients are fed. Both drain without this shard's doing, so it ends.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.mesh.is_spilling() || self.storage.is_spilling()
    }

    /// Has the flush look at `id`.
    pub(crate) fn touch(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Has the next round feed `id`.
    pub(crate) fn enqueue(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.open_mut(id)
            && !conn.queued
        {
            conn.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Has the end of `id` be seen to in its turn.
    pub(crate) fn end_later(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.open_mut(id)
            && !conn.ending
        {
            conn.ending = true;
            self.ending.push_back(id);
        }
    }

    /// Feeds a connection again that has sent more than is handled at once. From now on it receives
    /// a piece at a time: by itself it would take all that the kernel has into memory, and the
    /// buffers from everybody else.
    pub(crate) fn enqueue_rest(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.open_mut(id) {
            conn.receives = 0;
        }
        self.enqueue(id);
    }

    /// Appends to the bytes that wait to be digested.
    pub(crate) fn hold(&mut self, id: ConnId, bytes: &[u8], encrypted: bool) {
        if bytes.is_empty() {
            return;
        }
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        let place = if encrypted {
            &mut conn.records
        } else {
            &mut conn.undigested
        };
        if place.capacity() == 0 {
            *place = self.pool.take(bytes.len());
        }
        place.extend_from_slice(bytes);
        self.held += bytes.len();
    }

    /// Takes the bytes out that wait to be digested, to feed them.
    pub(crate) fn unhold(&mut self, id: ConnId, encrypted: bool) -> Vec<u8> {
        let Some(conn) = self.conns.get_mut(id) else {
            return Vec::new();
        };
        let place = if encrypted {
            &mut conn.records
        } else {
            &mut conn.undigested
        };
        let bytes = std::mem::take(place);
        self.held -= bytes.len();
        bytes
    }

    /// Puts what remains of such bytes back in front of what came since.
    pub(crate) fn rehold(&mut self, id: ConnId, bytes: Vec<u8>, from: usize, encrypted: bool) {
        let Some(conn) = self.conns.get_mut(id) else {
            return self.pool.give(bytes);
        };
        let place = if encrypted {
            &mut conn.records
        } else {
            &mut conn.undigested
        };
        if from == bytes.len() {
            return self.pool.give(bytes);
        }
        let mut bytes = bytes;
        bytes.drain(..from);
        self.held += bytes.len();
        if !place.is_empty() {
            bytes.extend_from_slice(place);
        }
        let newer = std::mem::replace(place, bytes);
        self.pool.give(newer);
    }

    /// Counts what a session keeps of bodies whose turn has not come.
    pub(crate) fn count_kept(&mut self, id: ConnId) {
        let kept = self.bosh.session(id).map_or(0, |session| session.kept());
        if let Some(conn) = self.conns.get_mut(id) {
            self.held = self.held + kept - conn.kept as usize;
            conn.kept = kept as u32;
        }
    }

    /// Throws away what a connection holds undigested.
    pub(crate) fn drop_held(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        self.held -= conn.held();
        conn.kept = 0;
        if let Some(web) = &mut conn.web {
            web.give_up();
        }
        for buffer in [&mut conn.undigested, &mut conn.records] {
            self.pool.give(std::mem::take(buffer));
        }
    }

    /// Gives a connection's buffers back to the pool.
    pub(crate) fn strip(&mut self, id: ConnId) {
        self.drop_held(id);
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        self.bursts -= std::mem::take(&mut conn.burst) as usize;
        for buffer in [&mut conn.output, &mut conn.wire] {
            self.pool.give(std::mem::take(buffer));
        }
        if conn.transfer().is_some()
            && let Some(uploads) = &self.uploads
        {
            uploads.cancel(id);
        }
        conn.tls = None;
        let asked = conn.web.take().and_then(|mut web| web.asked());
        if let Some(sid) = asked {
            self.bosh.lose(id, sid);
        }
        conn.leaving = None;
    }
}

impl Host for World {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn wall(&self) -> Timestamp {
        self.wall
    }

    fn random(&mut self) -> u64 {
        self.random.next()
    }

    fn output(&mut self, conn: ConnId) -> &mut Vec<u8> {
        let now_ms = self.now_ms();
        let World {
            conns,
            dirty,
            pool,
            scratch,
            output_max,
            bursts,
            choke_size,
            ..
        } = self;
        scratch.clear();
        let Some(found) = conns.open_mut(conn) else {
            return scratch;
        };
        if !found.dirty {
            found.dirty = true;
            dirty.push(conn);
            // What the flush seals with comes while the stanza is written.
            if let Some(tls) = &found.tls {
                tls.prefetch();
                tls.prefetch_sealing();
            }
        }
        found.choke(*choke_size);
        let waiting = found.waiting();
        if waiting > *output_max {
            // A burst for a peer that reads is no reason to cut it; one that takes nothing is.
            let stalled = now_ms.wrapping_sub(found.sending_since_ms) > STALLED_MS;
            found.count_burst(*output_max, bursts);
            let left = BURSTS_SIZE_MAX.saturating_sub(*bursts - found.burst as usize);
            let burst_max = left.max(*output_max * BURST_FACTOR);
            if found.sending > 0 && stalled || waiting > burst_max {
                found.overflowed = true;
                return scratch;
            }
        }
        if found.output.capacity() == 0 {
            found.output = pool.take(OUTPUT_SIZE);
        }
        &mut found.output
    }

    fn is_choked(&mut self, conn: ConnId) -> bool {
        let size = self.choke_size;
        let found = self.conns.open_mut(conn);
        found.is_some_and(|found| found.choke(size))
    }

    fn close(&mut self, conn: ConnId) {
        self.touch(conn);
        if let Some(found) = self.conns.open_mut(conn) {
            found.life = Life::Closing;
        }
    }

    fn tell_written(&mut self, conn: ConnId) {
        if let Some(found) = self.conns.open_mut(conn) {
            found.tells_written = true;
            self.touch(conn);
        }
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(found) = self.conns.open_mut(conn) {
            found.paused = true;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(found) = self.conns.open_mut(conn) {
            found.paused = false;
        }
        self.enqueue(conn);
    }

    fn start_tls(&mut self, conn: ConnId) {
        self.touch(conn);
        let config = self
            .starttls
            .as_ref()
            .expect("STARTTLS is offered where there is TLS");
        if let Some(found) = self.conns.open_mut(conn) {
            assert!(found.tls.is_none(), "TLS starts once");
            let plain = std::mem::take(&mut found.output);
            found.wire.extend_from_slice(&plain);
            self.pool.give(plain);
            found.tls = Some(Box::new(Tls::accept(config)));
            found.upgraded = true;
        }
    }

    fn move_to(&mut self, conn: ConnId, to: ShardId, state: Box<StreamState>) {
        self.touch(conn);
        if let Some(found) = self.conns.open_mut(conn) {
            found.life = Life::Leaving;
            let is_timed = false;
            found.leaving = Some(Box::new(Leaving {
                to,
                state,
                is_timed,
            }));
        }
    }

    fn forward(&mut self, to: ShardId, parcel: Parcel) {
        self.mesh.push(to, Item::Parcel(parcel));
    }

    fn buffer(&mut self) -> Buffer {
        self.pool.take(PARCEL_SIZE)
    }

    fn recycle(&mut self, home: ShardId, buffer: Buffer) {
        if home == self.mesh.id() {
            self.pool.give(buffer);
        } else {
            self.mesh.recycle(home, buffer, &mut self.pool);
        }
    }

    fn store(&mut self, ticket: Ticket, op: StoreOp) {
        self.storage.push(ticket, op);
    }

    fn derive(&mut self, ticket: Ticket, job: Box<DeriveJob>) -> bool {
        self.derive.push(ticket, job)
    }

    fn slot(&mut self, ticket: Ticket, request: Box<SlotRequest>) {
        let uploads = self.uploads.as_ref();
        let uploads = uploads.expect("slots are given where files are kept");
        uploads.ask_slot(ticket, request);
    }

    fn shut_down(&mut self, at: Timestamp) -> bool {
        self.end.set(at).is_ok()
    }

    fn is_going_down(&self) -> bool {
        self.end.get().is_some()
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wish = Some(at);
    }
}

/// Unpredictable numbers, fetched from the system's generator in batches.
pub(crate) struct Random {
    bytes: [u8; Random::BATCH],
    used: usize,
}

impl Random {
    const BATCH: usize = 512;

    pub(crate) fn new() -> Random {
        Random {
            bytes: [0; Random::BATCH],
            used: Random::BATCH,
        }
    }

    fn next(&mut self) -> u64 {
        if self.used == Random::BATCH {
            aws_lc_rs::rand::fill(&mut self.bytes).expect("the system's generator never fails");
            self.used = 0;
        }
        let place = &mut self.bytes[self.used..self.used + 8];
        self.used += 8;
        let mut number = [0; 8];
        number.copy_from_slice(place);
        // What was handed out is not kept: nonces and salts are made of it.
        place.fill(0);
        u64::from_ne_bytes(number)
    }
}
