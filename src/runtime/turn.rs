//! The turn of a shard: everything that came is handled before anything is written.
//!
//! Completions, lanes, answers, left-over input, ends, timers; then one flush. Invariant: while a
//! spill of the mesh or of storage is non-empty no bytes of clients are fed; their completions wait
//! here with their chunks, until the ring itself runs out of buffers and the sockets fill. While
//! storage's is, siblings' lanes wait, too: what their clients say may ask storage here. Storage
//! itself waits for nobody, and its answers are always taken.

use crate::accept::Accept;
use crate::admission::Admission;
use crate::connection::id_of;
use crate::control::Command;
use crate::doorbell::{Caller, Doorbell};
use crate::handoff::Handoff;
use crate::host::World;
use crate::mesh::{Item, Share};
use ring::{Buffers, Completion, Op, Ring};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;
use xmpp::{ConnId, Shard, ShardId, Timestamp};

/// How far ahead of its use a connection's record is fetched, in connections: the time of handling
/// two or three is that of the way from memory.
pub(crate) const CONNS_AHEAD: usize = 6;
/// The same for the head of its TLS state, whose place the record tells.
pub(crate) const TLS_AHEAD: usize = 4;
/// The same for its keys, whose place the head tells.
pub(crate) const KEYS_AHEAD: usize = 2;
/// The same for its account, which its stream and its session lead to.
const ACCOUNT_AHEAD: usize = 1;
/// One tick of a busy shard that has a processor of its own.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// What a timeout in the ring is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Alarm {
    /// The tick of a busy shard.
    Tick = 0,
    /// The earliest deadline.
    Deadline = 1,
    /// Accepting goes on.
    Accept = 2,
}

/// What happened on a shard, for the log and later for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Turns that found something.
    pub turns: u64,
    /// Completions of the ring.
    pub completions: u64,
    /// Bytes received and sent.
    pub received: u64,
    /// See `received`.
    pub sent: u64,
    /// Sends; the fewer for the same bytes, the better.
    pub sends: u64,
    /// Parcels from siblings.
    pub parcels: u64,
    /// Connections let in and turned away.
    pub accepted: u64,
    /// See `accepted`.
    pub refused: u64,
    /// Connections that went to siblings and came from them.
    pub moved: u64,
    /// See `moved`.
    pub adopted: u64,
    /// Connections cut because their peer did not read.
    pub cut_slow: u64,
    /// Connections cut because the shard's budget for undigested bytes was used up.
    pub cut_undigested: u64,
    /// The most items that ever waited in the spills of the mesh.
    pub spilled_max: u64,
}

/// A shard with all that drives it.
pub(crate) struct Turn {
    pub(crate) ring: Ring,
    pub(crate) buffers: Buffers,
    pub(crate) shard: Shard,
    pub(crate) world: World,
    pub(crate) accept: Accept,
    pub(crate) handoff: Handoff,
    pub(crate) admission: Arc<Admission>,
    /// The bells of all shards, by number.
    pub(crate) bells: Vec<Arc<Doorbell>>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) counters: Counters,
    /// Closing and lingering connections, and those that cannot leave yet, with their deadlines.
    pub(crate) endings: BinaryHeap<Reverse<(Timestamp, ConnId)>>,
    /// Bytes that may be held undigested.
    pub(crate) held_max: usize,
    /// When it is looked who holds them; above the maximum where that was of no use.
    pub(crate) held_mark: usize,
    /// Whether anything but a tick happened since the last tick.
    pub(crate) worked: bool,
    pub(crate) ticked: bool,
    /// So long nothing must happen until a busy shard counts as idle.
    pub(crate) tick: Duration,
    /// Whoever waits until siblings have what this turn sends them, before all shards end.
    pub(crate) prepared: Option<Sender<()>>,
    /// When the shard ends at the latest, once it was told to.
    pub(crate) stopping: Option<Timestamp>,
    pub(crate) stop_ms_max: u64,
    pub(crate) completions: Vec<Completion>,
    /// Received bytes that wait for the spills to drain.
    pub(crate) withheld: VecDeque<Completion>,
    /// Whether a sibling's lane waits for storage's spill to drain.
    pub(crate) lanes_wait: bool,
    /// The deadline that is armed in the ring, and its number.
    pub(crate) armed: Option<Timestamp>,
    pub(crate) alarms: u32,
    /// How long the thread stays awake for what may come.
    pub(crate) idle_spin: Duration,
}

/// How the shard's own state is fetched ahead.
struct Prefetch;

impl xmpp::Fetch for Prefetch {
    fn fetch<T>(&self, value: &T) {
        ring::prefetch(value);
    }
}

impl Turn {
    /// This shard's own bell.
    pub(crate) fn bell(&self) -> &Arc<Doorbell> {
        &self.bells[usize::from(self.world.mesh.id().0)]
    }

    /// One turn over what the ring has already.
    pub(crate) fn run(&mut self) {
        self.world.now = self.world.clock.now();
        self.world.wall = self.world.clock.wall(self.world.now);
        self.ring
            .reap(Some(&mut self.buffers), &mut self.completions);
        self.shard.put_off_bulk();
        self.shard.put_off_ends();
        self.admit_withheld();
        let mut completions = std::mem::take(&mut self.completions);
        self.counters.completions += completions.len() as u64;
        self.look_at_first(&completions);
        let mut coming = completions.drain(..);
        while let Some(completion) = coming.next() {
            self.look_ahead(coming.as_slice());
            self.on_completion(completion);
        }
        drop(coming);
        self.completions = completions;
        self.drain_lanes();
        self.see_to_bodies();
        self.shard.admit_bulk();
        self.feed_ready();
        self.see_to_ends();
        self.run_deadlines();
        self.shard.on_turn_end(&mut self.world);
        self.flush();
        self.prepared = None;
        self.arm_deadline();
        if self.world.held <= self.held_max {
            self.held_mark = self.held_max;
        }
        self.counters.turns += 1;
    }

    /// Whether the next turn need not wait for anything.
    pub(crate) fn has_more(&self) -> bool {
        let bodies = self.world.bosh.has_posts();
        let input = bodies || !self.world.ready.is_empty() || !self.withheld.is_empty();
        let lanes = self.lanes_wait && !self.world.storage.is_spilling();
        let ends = !self.world.ending.is_empty() && self.world.storage.is_calm();
        lanes || (input || ends) && !self.world.is_backed_up()
    }

    /// Whether the shard must keep ticking though nothing happens.
    pub(crate) fn must_tick(&self) -> bool {
        self.world.is_backed_up() || self.stopping.is_some()
    }

    /// Whether the shard has ended.
    pub(crate) fn is_over(&self) -> bool {
        let conns = || self.world.conns.used() as usize + self.world.conns.floating();
        let quiet = || conns() == 0 && self.shard.unanswered_count() == 0;
        self.stopping
            .is_some_and(|deadline| self.world.now >= deadline || quiet())
    }

    /// Feeds what waited for the spills to drain.
    fn admit_withheld(&mut self) {
        while !self.world.is_backed_up() {
            let Some(completion) = self.withheld.pop_front() else {
                return;
            };
            self.on_recv(completion);
        }
    }

    /// Nobody looked ahead for the first completions of a turn, and of most turns they are all: has
    /// what they will need come side by side, which takes as long as for one.
    fn look_at_first(&self, coming: &[Completion]) {
        let first = |count: usize| {
            let first = coming.iter().take(count);
            first.filter(|next| next.token.op == Op::Recv)
        };
        for next in coming.iter().take(CONNS_AHEAD + 1) {
            self.world.conns.prefetch(next.token.slot);
        }
        for next in first(TLS_AHEAD + 1) {
            if let Some(tls) = self.world.conns.tls(next.token.slot) {
                tls.prefetch();
                tls.prefetch_opening();
            }
            self.shard.fetch_stream(id_of(next.token), &Prefetch);
        }
        for next in first(KEYS_AHEAD + 1) {
            self.shard.fetch_session(id_of(next.token), &Prefetch);
        }
    }

    /// Has what the completions behind this one will need come from memory meanwhile: first the
    /// connection, then what it points to. With thousands of connections nothing of them is near.
    fn look_ahead(&self, coming: &[Completion]) {
        let conn_at = |ahead: usize| {
            let token = coming.get(ahead)?.token;
            (token.op == Op::Recv).then(|| id_of(token))
        };
        if let Some(conn) = conn_at(CONNS_AHEAD) {
            self.world.conns.prefetch(conn.index);
        }
        if let Some(conn) = conn_at(TLS_AHEAD) {
            if let Some(tls) = self.world.conns.tls(conn.index) {
                tls.prefetch();
            }
            self.shard.fetch_stream(conn, &Prefetch);
        }
        if let Some(conn) = conn_at(KEYS_AHEAD) {
            if let Some(tls) = self.world.conns.tls(conn.index) {
                tls.prefetch_opening();
            }
            self.shard.fetch_session(conn, &Prefetch);
        }
        if let Some(conn) = conn_at(ACCOUNT_AHEAD) {
            self.shard.fetch_account(conn, &Prefetch);
        }
    }

    fn on_completion(&mut self, completion: Completion) {
        let token = completion.token;
        self.worked |= token.op != Op::Timeout;
        match token.op {
            Op::Recv if self.world.is_backed_up() || !self.withheld.is_empty() => {
                self.withheld.push_back(completion);
            }
            Op::Recv => self.on_recv(completion),
            Op::Send => self.on_send(completion),
            Op::Accept => self.on_accept(&completion),
            Op::Close => self.on_slot_closed(&completion),
            Op::Sent => self.on_sent_slot(&completion),
            Op::Arrived => self.on_arrived(&completion),
            Op::Timeout => match token.slot {
                slot if slot == Alarm::Tick as u32 => self.ticked = true,
                slot if slot == Alarm::Accept as u32 => self.on_accept_alarm(),
                _ if token.generation == self.alarms => self.armed = None,
                _ => {}
            },
            Op::Cancel if token.slot == u32::MAX => {
                tracing::warn!(error = completion.result, "a sibling could not be woken");
            }
            Op::Shutdown => self.on_shut(id_of(token)),
            Op::Cancel | Op::Bell | Op::Connect | Op::Poll | Op::User => {}
        }
    }

    /// Takes what siblings, storage, derivation and the administrator published.
    fn drain_lanes(&mut self) {
        let shards = self.bells.len();
        if self.lanes_wait && !self.world.storage.is_spilling() {
            self.lanes_wait = false;
            let own = usize::from(self.world.mesh.id().0);
            for sibling in (0..shards).filter(|sibling| *sibling != own) {
                self.bell().post(sibling);
            }
        }
        for word in 0..self.bell().words() {
            let mut bits = self.bell().take(word);
            while bits != 0 {
                let bit = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                self.worked = true;
                match bit.checked_sub(shards) {
                    None => self.drain_sibling(ShardId(bit as u16)),
                    Some(caller) if caller == Caller::Storage as usize => self.drain_storage(),
                    Some(caller) if caller == Caller::Derive as usize => self.drain_derived(),
                    Some(caller) if caller == Caller::Uploads as usize => self.drain_uploads(),
                    Some(_) => self.drain_commands(),
                }
            }
        }
    }

    fn drain_sibling(&mut self, from: ShardId) {
        self.world.mesh.collect(from, &mut self.world.pool);
        let mut share = Share::default();
        while !share.is_used() {
            if self.world.storage.is_spilling() {
                self.lanes_wait = true;
                self.world.mesh.release(from);
                return;
            }
            match self.world.mesh.pop(from) {
                None => return,
                Some(Item::Parcel(parcel)) => {
                    self.counters.parcels += 1;
                    share.take(parcel.size());
                    self.shard.on_parcel(&mut self.world, from, parcel);
                }
                Some(Item::Envelope(envelope)) => {
                    share.take(0);
                    self.on_envelope(from, envelope);
                }
                Some(Item::Recall(number)) => {
                    share.take(0);
                    self.on_recall(from, number);
                }
                Some(Item::Returned(envelope)) => {
                    share.take(0);
                    self.on_returned(from, *envelope);
                }
                Some(Item::Bosh(word)) => {
                    share.take(word.size());
                    self.on_word(*word);
                }
            }
        }
        if self.world.mesh.release(from) {
            // The rest has the next turn, which must come without sleeping.
            self.bell().post(usize::from(from.0));
        }
    }

    fn drain_storage(&mut self) {
        while let Some((ticket, reply)) = self.world.storage.pop() {
            self.shard.on_stored(&mut self.world, ticket, reply);
        }
    }

    fn drain_derived(&mut self) {
        while let Some((ticket, derived)) = self.world.derive.pop() {
            self.shard.on_derived(&mut self.world, ticket, derived);
        }
    }

    fn drain_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Parcel(parcel) => {
                    let own = self.world.mesh.id();
                    self.shard.on_parcel(&mut self.world, own, parcel);
                }
                Command::Listen => self.open_listeners(),
                Command::Prepare(done) => {
                    self.shard.on_shutdown_near(&mut self.world);
                    self.prepared = Some(done);
                }
                Command::Stop if self.stopping.is_none() => {
                    self.stopping = Some(self.world.now.plus_ms(self.stop_ms_max));
                    self.close_listeners();
                    self.shard.on_shutdown(&mut self.world);
                    self.end_transfers();
                    self.end_exchanges();
                }
                Command::Stop => {}
            }
        }
    }

    fn run_deadlines(&mut self) {
        self.time_transfers();
        if self.world.wish.is_some_and(|at| at <= self.world.now) {
            self.world.wish = None;
            self.shard.on_timer(&mut self.world);
        }
        self.run_endings();
        self.retry_departures();
    }

    /// Arms the earliest deadline, unless an earlier one is armed: that one comes here again.
    fn arm_deadline(&mut self) {
        let ending = self.endings.peek().map(|Reverse((at, _))| *at);
        let deadlines = [self.world.wish, ending, self.handoff.next_retry()];
        let Some(next) = deadlines.into_iter().flatten().min() else {
            return;
        };
        if self.armed.is_none_or(|armed| next < armed) {
            self.armed = Some(next);
            self.alarms = (self.alarms + 1) & ring::Token::GENERATION_MASK;
            let wait = next.0.saturating_sub(self.world.now.0);
            self.alarm(Alarm::Deadline, Duration::from_micros(wait));
        }
    }

    /// Arms a timeout in the ring.
    pub(crate) fn alarm(&mut self, alarm: Alarm, after: Duration) {
        if let Err(error) = self.ring.timeout(alarm as u32, self.alarms, after) {
            tracing::error!(%error, "a timer could not be set");
        }
    }
}
