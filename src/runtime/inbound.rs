//! From received bytes to the protocol: fed in place where they are in clear, copied where cut.
//!
//! Invariant: bytes reach the protocol in their order. What may not be fed now (paused, its share
//! of the turn used, leaving) is held behind what is held already, and reading stops until it is
//! fed.

use crate::connection::{Life, Reading, id_of};
use crate::host::World;
use crate::transfer;
use crate::transport::web::{IDLE_MS_MAX, Posted, Sizes, Step};
use crate::turn::Turn;
use ring::{Completion, Op, Token};
use std::cmp::Reverse;
use std::net::IpAddr;
use xmpp::{ConnId, Progress, Shard, StreamKind, TlsFacts};

/// Single receives until a connection that did not move receives by itself: a login takes fewer.
/// Who sends more than is handled at once begins anew.
const RECEIVES_SINGLE_MAX: u8 = 16;

/// Bytes that connections whose input was left over are answered in one turn; the connection that
/// reaches it is the last. A few bytes may ask for megabytes, and others wait for the turn's end.
const ANSWERS_PER_TURN_MAX: usize = 256 << 10;
/// Connections whose end is seen to in one turn. What each costs, contacts and storage included, is
/// some 20 us, and everybody who is left waits for the turn's end.
const ENDS_PER_TURN_MAX: usize = 16;
/// Room for what a handshake answers: the server's certificate, and some 300 bytes.
const HANDSHAKE_SIZE: usize = 1 << 10;
/// Bytes of one single receive.
const RECEIVE_SIZE: u32 = 16 << 10;
/// A connection that holds no more than this is not cut when the shard's budget is used up.
const HELD_SMALL: usize = 4 << 10;

const ENOBUFS: i32 = -105;
const ECANCELED: i32 = -125;

impl Turn {
    /// Bytes, the end, or an error on a connection's reading side.
    pub(crate) fn on_recv(&mut self, mut completion: Completion) {
        let id = id_of(completion.token);
        let chunk = completion.chunk.take();
        if let Some(conn) = self.world.conns.get_mut(id) {
            if !completion.more {
                conn.reading = Reading::Idle;
            }
            match (completion.result, chunk) {
                (1.., Some(mut chunk)) => {
                    self.counters.received += chunk.len() as u64;
                    let bytes = self.buffers.bytes_mut(&mut chunk);
                    on_input(&mut self.shard, &mut self.world, id, bytes);
                    self.buffers.give_back(chunk);
                }
                (0, chunk) => {
                    conn.eof = true;
                    if let Some(chunk) = chunk {
                        self.buffers.give_back(chunk);
                    }
                }
                (ENOBUFS | ECANCELED, _) => {}
                (_, chunk) => {
                    if let Some(chunk) = chunk {
                        self.buffers.give_back(chunk);
                    }
                    match conn.life {
                        Life::Open => {
                            (conn.eof, conn.lost) = (true, true);
                            self.world.end_later(id);
                        }
                        _ => self.lose(id),
                    }
                }
            }
        } else if let Some(chunk) = chunk {
            // Of an earlier user of the slot.
            self.buffers.give_back(chunk);
        }
        self.after_input(id);
    }

    /// Tells the protocol of the end once all is fed, keeps the budget, and looks after reading.
    fn after_input(&mut self, id: ConnId) {
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        let conn = match self.world.held > self.held_mark {
            true => {
                self.relieve_held();
                match self.world.conns.get_mut(id) {
                    Some(conn) => conn,
                    None => return,
                }
            }
            false => conn,
        };
        if conn.eof && !conn.is_blocked() {
            self.world.end_later(id);
        }
        if let Some(conn) = self.world.conns.get_mut(id)
            && (conn.reading != Reading::Multi || conn.is_blocked())
        {
            self.world.touch(id);
        }
    }

    /// Sees to the next connections that end: to a few in a turn, as long as storage keeps up with
    /// what their ends ask of it; else to one.
    pub(crate) fn see_to_ends(&mut self) {
        let count = match self.world.storage.is_calm() {
            true => ENDS_PER_TURN_MAX,
            false => 1,
        };
        for _ in 0..count {
            if self.world.is_backed_up() {
                return;
            }
            let Some(id) = self.world.ending.pop_front() else {
                return;
            };
            self.worked = true;
            self.shard.admit_ends(1);
            self.see_to_end(id);
        }
        self.shard.put_off_ends();
    }

    fn see_to_end(&mut self, id: ConnId) {
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        conn.ending = false;
        if conn.lost {
            return self.lose(id);
        }
        // Its stream may end before its connection does.
        self.digest(id);
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        if conn.eof && !conn.is_blocked() {
            self.shard.on_eof(&mut self.world, id);
            // What the protocol neither closed nor has wait has no stream any more.
            let open = self.world.conns.open_mut(id);
            if open.is_some_and(|conn| !conn.paused) {
                return self.lose(id);
            }
        }
        self.world.touch(id);
    }

    /// The shard holds more undigested bytes than it may: whoever has most of them pays, first
    /// among those who have not said who they are, so that they cut nobody else's stanza.
    fn relieve_held(&mut self) {
        let mut holders = self.world.conns.holders(HELD_SMALL);
        let is_established = |conn| self.shard.is_established(conn);
        let rank = |(held, conn): &(usize, ConnId)| (is_established(*conn), Reverse(*held));
        holders.sort_by_cached_key(rank);
        let enough = self.held_max - self.held_max / 4;
        for (_, conn) in holders {
            if self.world.held <= enough {
                break;
            }
            self.counters.cut_undigested += 1;
            self.shard.on_overload(&mut self.world, conn);
            let found = self.world.conns.open_mut(conn);
            let has_no_stream = found.is_some_and(|conn| conn.has_no_stream());
            self.world.drop_held(conn);
            // No stream of its has an end to tell.
            if has_no_stream {
                self.lose(conn);
            }
        }
        // Where all hold little nobody is cut, and it is not looked at each time.
        self.held_mark = self.held_max.max(self.world.held + self.held_max / 8);
    }

    /// Feeds connections whose input was left over, each once, until their answers are large.
    pub(crate) fn feed_ready(&mut self) {
        let (mut answered, mut served) = (0, Vec::new());
        for _ in 0..self.world.ready.len() {
            if self.world.is_backed_up() || answered >= ANSWERS_PER_TURN_MAX {
                break;
            }
            let Some(id) = self.world.ready.pop_front() else {
                break;
            };
            let (before, left) = (self.output_of(id), self.shard.bulk_left());
            self.digest_more(id);
            answered += self.output_of(id).saturating_sub(before);
            self.worked = true;
            // Who had of what the turn takes goes behind those who were put off for it.
            if self.shard.bulk_left() < left && self.world.ready.back() == Some(&id) {
                served.extend(self.world.ready.pop_back());
            }
        }
        self.world.ready.extend(served);
    }

    fn output_of(&mut self, id: ConnId) -> usize {
        let conn = self.world.conns.get_mut(id);
        conn.map_or(0, |conn| conn.output.len())
    }

    fn digest_more(&mut self, id: ConnId) {
        if let Some(conn) = self.world.conns.get_mut(id) {
            conn.queued = false;
            self.digest(id);
            self.after_input(id);
        }
    }

    /// Feeds what a connection holds.
    fn digest(&mut self, id: ConnId) {
        let Turn { shard, world, .. } = self;
        let Some(conn) = world.conns.get_mut(id) else {
            return;
        };
        if !conn.is_blocked() && !conn.undigested.is_empty() {
            let bytes = world.unhold(id, false);
            feed_held(shard, world, id, bytes);
        }
        let Some(conn) = world.conns.get_mut(id) else {
            return;
        };
        if !conn.is_blocked() && !conn.records.is_empty() {
            let mut records = world.unhold(id, true);
            let used = open_records(shard, world, id, &mut records);
            world.rehold(id, records, used, true);
        }
        let Some(conn) = world.conns.get_mut(id) else {
            return;
        };
        if conn.web.as_ref().is_some_and(|web| web.has_bodies()) {
            // What came of a request before the last one was answered.
            if !conn.is_blocked() {
                feed_web(shard, world, id, &[]);
            }
        } else if world.conns.is_floating(id) {
            take_bodies(shard, world, id);
        }
    }

    /// Arms, keeps or stops receiving, as the connection's state asks.
    pub(crate) fn settle_reading(&mut self, id: ConnId) {
        let group = self.buffers.group();
        let Some(conn) = self.world.conns.get_mut(id) else {
            return;
        };
        let wanted = match conn.life {
            Life::Open => !conn.is_blocked() && !conn.eof,
            Life::Lingering => !conn.eof,
            _ => false,
        };
        match (wanted, conn.reading) {
            (true, Reading::Idle) if conn.receives < RECEIVES_SINGLE_MAX || conn.holds_much() => {
                conn.receives = conn.receives.saturating_add(1);
                conn.reading = Reading::Once;
                self.ring
                    .recv_once(id.index, id.generation, group, RECEIVE_SIZE);
            }
            (true, Reading::Idle) => {
                conn.reading = Reading::Multi;
                self.ring.recv_multi(id.index, id.generation, group);
            }
            (false, Reading::Multi) => {
                conn.reading = Reading::Cancelling;
                self.ring
                    .cancel(Token::new(Op::Recv, id.index, id.generation));
            }
            _ => {}
        }
    }
}

/// Bytes from the socket: records where there is TLS, else plain ones.
fn on_input(shard: &mut Shard, world: &mut World, id: ConnId, bytes: &mut [u8]) {
    let Some(conn) = world.conns.get_mut(id) else {
        return;
    };
    if !matches!(conn.life, Life::Open | Life::Leaving) {
        return;
    }
    if conn.tls.is_none() {
        return feed_plain(shard, world, id, bytes);
    }
    if conn.is_blocked() {
        return world.hold(id, bytes, true);
    }
    if conn.records.is_empty() {
        let used = open_records(shard, world, id, bytes);
        return world.hold(id, &bytes[used..], true);
    }
    let mut records = world.unhold(id, true);
    records.extend_from_slice(bytes);
    let used = open_records(shard, world, id, &mut records);
    world.rehold(id, records, used, true);
}

/// Decrypts and feeds; answers how many bytes are done with. The rest stays as it is now.
fn open_records(shard: &mut Shard, world: &mut World, id: ConnId, bytes: &mut [u8]) -> usize {
    let Some(conn) = world.conns.get_mut(id) else {
        return bytes.len();
    };
    let Some(mut tls) = conn.tls.take() else {
        return bytes.len();
    };
    let mut wire = std::mem::take(&mut conn.wire);
    // One that the allocator made for each handshake would stay in the pool for each.
    if wire.capacity() == 0 && tls.is_handshaking() {
        wire = world.pool.take(HANDSHAKE_SIZE);
    }
    let mut used = 0;
    let mut failed = None;
    loop {
        let mut plain = |plain: &[u8]| feed_plain(shard, world, id, plain);
        match tls.open(&mut bytes[used..], &mut plain, &mut wire) {
            Ok(opened) => {
                used += opened.consumed;
                if !opened.secured {
                    break;
                }
                on_secured(shard, world, id, tls.facts());
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let ended = tls.peer_closed();
    let Some(conn) = world.conns.get_mut(id) else {
        return bytes.len();
    };
    conn.tls = Some(tls);
    conn.eof |= ended;
    let open = matches!(conn.life, Life::Open | Life::Leaving);
    match wire.is_empty() {
        true => world.pool.give(wire),
        false => {
            conn.wire = wire;
            world.touch(id);
        }
    }
    if let Some(error) = failed {
        tracing::debug!(%error, "TLS failed");
        if open {
            shard.on_close(world, id);
            if let Some(conn) = world.conns.get_mut(id) {
                conn.life = Life::Closing;
            }
            world.touch(id);
        }
        return bytes.len();
    }
    if open { used } else { bytes.len() }
}

/// A handshake is done: the stream is told, where it is there already.
fn on_secured(shard: &mut Shard, world: &mut World, id: ConnId, facts: TlsFacts) {
    match world.conns.get_mut(id).and_then(|conn| conn.web.as_mut()) {
        Some(web) => web.on_secured(facts),
        None => shard.on_secured(world, id, facts),
    }
}

/// Plain bytes: the stream's, or those of the web around it.
fn feed_plain(shard: &mut Shard, world: &mut World, id: ConnId, bytes: &[u8]) {
    let conn = world.conns.get_mut(id);
    match conn.is_some_and(|conn| conn.web.is_some()) {
        true => feed_web(shard, world, id, bytes),
        false => feed(shard, world, id, bytes),
    }
}

/// Bytes of HTTP or WebSocket: what they say is the stream's.
fn feed_web(shard: &mut Shard, world: &mut World, id: ConnId, bytes: &[u8]) {
    let Some(conn) = world.conns.get_mut(id) else {
        return;
    };
    let is_live = matches!(conn.life, Life::Open | Life::Leaving);
    let (Some(peer), Some(web)) = (conn.peer.filter(|_| is_live), &mut conn.web) else {
        return;
    };
    let held = web.held();
    let mut stream = std::mem::take(&mut world.unframed);
    let joined = web.join(bytes);
    let mut rest = &*joined;
    let (mut asked, mut posted, mut upgraded, mut pieces) = (None, None, None, Vec::new());
    let had_bodies = web.has_bodies();
    let sizes = Sizes {
        message: shard.element_size_max(id),
        body: shard.stanza_size_max(),
    };
    let step = loop {
        web.lend(&mut world.message);
        match web.read(&mut rest, peer, sizes, &mut stream) {
            Step::Upgraded(facts, peer) if had_bodies => upgraded = Some((facts, peer)),
            Step::Upgraded(facts, peer) => shard.on_upgraded(id, facts, peer),
            Step::Posted(body) => posted = Some(body),
            Step::Asked(request) => asked = Some(request),
            Step::Chunk(piece) => pieces.push(piece),
            step => break step,
        }
    };
    let is_transfer = web.transfer().is_some();
    web.take_back(&mut world.message);
    world.held = world.held + web.held() - held;
    let answers = web.waiting() > 0;
    if answers {
        world.touch(id);
    }
    if let Some((facts, peer)) = upgraded {
        upgrade_late(shard, world, id, facts, peer);
    }
    if let Some(posted) = posted {
        post(shard, world, id, posted, !had_bodies);
    }
    if let Some(request) = asked {
        transfer::begin(shard, world, id, *request);
    }
    if is_transfer {
        transfer::hand_on(world, id, pieces);
    }
    if !stream.is_empty() {
        feed(shard, world, id, &stream);
        stream.clear();
    }
    world.unframed = stream;
    if step == Step::TooBig {
        shard.on_oversized(world, id);
    }
    let Some(conn) = world.conns.get_mut(id) else {
        return;
    };
    conn.eof |= step == Step::Closed;
    let is_spent = matches!(step, Step::TooBig | Step::Spent);
    if is_spent && matches!(conn.life, Life::Open | Life::Leaving) {
        shard.on_close(world, id);
        if let Some(conn) = world.conns.get_mut(id) {
            conn.life = Life::Closing;
        }
        world.touch(id);
    }
}

/// A body has come over a connection: whoever carries one has no stream of its own.
fn post(shard: &mut Shard, world: &mut World, id: ConnId, posted: Posted, is_first: bool) {
    if is_first {
        shard.on_close(world, id);
        world.begun.push((world.now.plus_ms(IDLE_MS_MAX), id));
    }
    world.bosh.post(id, posted);
}

/// A connection that carried bodies becomes a WebSocket: its stream ended with the first of them.
fn upgrade_late(
    shard: &mut Shard,
    world: &mut World,
    id: ConnId,
    facts: Option<TlsFacts>,
    peer: IpAddr,
) {
    shard.on_open(world, id, StreamKind::C2sWeb, peer);
    shard.on_upgraded(id, facts, peer);
}

/// Has a session's bodies be said to its stream, as far as that is fed now.
pub(crate) fn take_bodies(shard: &mut Shard, world: &mut World, id: ConnId) {
    loop {
        let Some(conn) = world.conns.get_mut(id) else {
            return;
        };
        // What comes behind the stream's end is not said to anybody.
        let is_over = matches!(conn.life, Life::Closing);
        let waits = !is_over && (conn.is_blocked() || !conn.undigested.is_empty());
        let now = world.now;
        let Some(session) = world.bosh.session(id) else {
            return;
        };
        // One is taken though nothing is fed now: it may be what its client gets its words by, for
        // which all waits.
        if waits && session.is_held() {
            return;
        }
        let Some(said) = session.take(now) else {
            return;
        };
        world.count_kept(id);
        if !is_over && !said.is_empty() {
            feed(shard, world, id, &said);
        }
    }
}

/// Bytes of a stream for the protocol, behind those that are held.
fn feed(shard: &mut Shard, world: &mut World, id: ConnId, bytes: &[u8]) {
    let Some(conn) = world.conns.get_mut(id) else {
        return;
    };
    if !matches!(conn.life, Life::Open | Life::Leaving) {
        return;
    }
    if conn.is_blocked() {
        return world.hold(id, bytes, false);
    }
    if !conn.undigested.is_empty() {
        let mut held = world.unhold(id, false);
        held.extend_from_slice(bytes);
        return feed_held(shard, world, id, held);
    }
    let progress = shard.on_bytes(world, id, bytes);
    if keeps_rest(world, id) {
        world.hold(id, &bytes[progress.consumed..], false);
    }
    queue_rest(world, id, progress);
}

fn feed_held(shard: &mut Shard, world: &mut World, id: ConnId, held: Vec<u8>) {
    let progress = shard.on_bytes(world, id, &held);
    let used = if keeps_rest(world, id) {
        progress.consumed
    } else {
        held.len()
    };
    world.rehold(id, held, used, false);
    queue_rest(world, id, progress);
}

/// What was not consumed has its turn later.
fn queue_rest(world: &mut World, id: ConnId, progress: Progress) {
    if progress.again {
        world.enqueue_rest(id);
    }
    if progress.ends {
        world.end_later(id);
    }
}

/// Whether what was not consumed will be offered again.
fn keeps_rest(world: &mut World, id: ConnId) -> bool {
    let Some(conn) = world.conns.get_mut(id) else {
        return false;
    };
    let upgraded = std::mem::take(&mut conn.upgraded);
    !upgraded && matches!(conn.life, Life::Open | Life::Leaving)
}
