//! One turn of one shard: answers, then parcels, then events, then bytes, then the flush.

use super::wire::{Away, Place};
use super::{Event, Input, Node, World};
use crate::files;
use crate::host::Effect;
use stanza::jid::BareJid;
use std::sync::mpsc::{self, Receiver};
use xmpp::parcel::{Control, Parcel};
use xmpp::port::StoreReply;
use xmpp::{ConnId, StreamKind, TlsFacts};

/// Bound streams that may end in one turn: few, so that others wait for theirs.
const ENDS_PER_TURN: usize = 2;

impl World {
    /// An account's shard hears that storage has new keys. The receiver gets an answer when it has
    /// seen to that.
    pub fn tell_new_keys(&mut self, account: BareJid) -> Receiver<StoreReply> {
        let home = self.home(&account);
        let (answer, heard) = mpsc::channel();
        self.input(home, Input::NewKeys { account, answer });
        heard
    }

    pub(super) fn turn(&mut self, shard: usize) {
        self.trace.note("turn", self.now, shard as u64, &[]);
        let node = &mut self.nodes[shard];
        let steps = node.dies_in;
        node.awake = false;
        node.side.now = self.now;
        node.side.clock_ahead_us = self.faults.clock_ahead_us;
        node.side.unspill();
        while let Some(answer) = self.nodes[shard].answers.pop_front() {
            self.admit(shard, answer);
        }
        self.take_parcels(shard);
        while !self.nodes[shard].side.is_spilling() {
            let Some(input) = self.nodes[shard].inbox.pop_front() else {
                break;
            };
            self.admit(shard, input);
        }
        self.offer_bytes(shard);
        let node = &mut self.nodes[shard];
        let due = node.side.wake.is_some_and(|at| at <= self.now);
        if due && !node.side.is_spilling() {
            node.side.wake = None;
            node.shard.on_timer(&mut node.side);
            self.effects(shard);
        }
        let node = &mut self.nodes[shard];
        node.shard.on_turn_end(&mut node.side);
        self.effects(shard);
        let unanswered = self.nodes[shard].shard.unanswered_count();
        self.unanswered_peak = self.unanswered_peak.max(unanswered);
        if self.dies(shard, steps) {
            return;
        }
        self.flush(shard);
        self.wake_others(shard);
    }

    /// Inbound rings are drained whatever else waits, except for storage, which waits for nobody.
    fn take_parcels(&mut self, shard: usize) {
        let count = self.nodes.len();
        let first = self.random.below(count as u64) as usize;
        for sibling in (0..count).map(|offset| (first + offset) % count) {
            if self.nodes[shard].side.waits_for_storage() {
                return;
            }
            let parcels = std::mem::take(&mut self.nodes[sibling].side.rings[shard].queue);
            if parcels.is_empty() {
                continue;
            }
            let from = self.nodes[sibling].side.id;
            for parcel in parcels {
                self.trace
                    .note("parcel", self.now, shard as u64, &describe(&parcel));
                let node = &mut self.nodes[shard];
                node.shard.on_parcel(&mut node.side, from, parcel);
                self.effects(shard);
            }
            if !self.nodes[sibling].side.rings[shard].spill.is_empty() {
                self.wake(sibling);
            }
        }
    }

    fn admit(&mut self, shard: usize, input: Input) {
        match input {
            Input::Open { wire, kind } => self.open(shard, wire, kind),
            Input::Adopt { wire, state } => {
                self.trace.note("adopt", self.now, wire as u64, &[]);
                if let Some(conn) = self.seat(shard, wire) {
                    let Node {
                        shard: core, side, ..
                    } = &mut self.nodes[shard];
                    core.on_adopt(side, conn, state);
                    self.after_seat(shard, conn, wire);
                }
            }
            Input::Secured { conn, exporter } => {
                let Node { shard, side, .. } = &mut self.nodes[shard];
                shard.on_secured(side, conn, facts(exporter));
                if let Some(slot) = side.slot(conn) {
                    slot.ready = true;
                }
            }
            Input::Written { conn } => {
                let Node { shard, side, .. } = &mut self.nodes[shard];
                shard.on_written(side, conn);
            }
            Input::Closed { conn } => {
                let Node { shard, side, .. } = &mut self.nodes[shard];
                shard.on_close(side, conn);
                side.free(conn);
            }
            Input::Stored { ticket, reply } => {
                let text = format!("{reply:?}");
                self.asked.answered(shard, ticket);
                self.trace
                    .note("stored", self.now, ticket.0, text.as_bytes());
                let Node { shard, side, .. } = &mut self.nodes[shard];
                side.requests -= 1;
                shard.on_stored(side, ticket, reply);
            }
            Input::Derived { ticket, derived } => {
                let Node { shard, side, .. } = &mut self.nodes[shard];
                shard.on_derived(side, ticket, derived);
            }
            Input::Slot { ticket, answer } => {
                let Node { shard, side, .. } = &mut self.nodes[shard];
                shard.on_slot(side, ticket, answer);
            }
            Input::Delete { account, answer } => {
                self.control(shard, Control::Delete { account, answer });
            }
            Input::NewKeys { account, answer } => {
                self.control(shard, Control::NewKeys { account, answer });
            }
            Input::ShutdownNear => {
                let Node { shard, side, .. } = &mut self.nodes[shard];
                shard.on_shutdown_near(side);
                self.unprepared -= 1;
                if self.unprepared == 0 {
                    for shard in 0..self.nodes.len() {
                        self.input(shard, Input::Shutdown);
                    }
                }
            }
            Input::Shutdown => {
                let Node { shard, side, .. } = &mut self.nodes[shard];
                shard.on_shutdown(side);
            }
        }
        self.effects(shard);
    }

    /// Tells a shard what was decided outside.
    fn control(&mut self, shard: usize, news: Control) {
        let Node { shard, side, .. } = &mut self.nodes[shard];
        shard.on_parcel(side, side.id, Parcel::Control(Box::new(news)));
    }

    fn open(&mut self, shard: usize, wire: usize, kind: StreamKind) {
        self.trace.note("open", self.now, wire as u64, &[]);
        let Some(conn) = self.seat(shard, wire) else {
            return;
        };
        let exporter = self.clients[wire].exporter;
        let Node {
            shard: core, side, ..
        } = &mut self.nodes[shard];
        core.on_open(side, conn, kind, self.peer);
        if kind == StreamKind::C2sWeb {
            let facts = self.clients[wire].secure.then(|| facts(exporter));
            core.on_upgraded(conn, facts, self.peer);
        }
        if kind == StreamKind::C2sDirectTls {
            let slot = side.slot(conn).expect("a fresh connection has its slot");
            if std::mem::replace(&mut slot.handshaking, false) {
                core.on_secured(side, conn, facts(exporter));
            } else {
                slot.handshaking = true;
            }
        }
        self.after_seat(shard, conn, wire);
    }

    /// Gives a wire that is away its place on a shard, with what waits for it.
    fn seat(&mut self, shard: usize, wire: usize) -> Option<ConnId> {
        let Place::Away(away) = &mut self.wires[wire].place else {
            return None;
        };
        let reset = away.reset;
        let Away {
            input,
            eof,
            secured,
            ..
        } = std::mem::take(away);
        away.reset = reset;
        let conn = self.nodes[shard].side.admit(wire);
        let slot = self.nodes[shard]
            .side
            .slot(conn)
            .expect("a fresh connection has its slot");
        slot.ready = !input.is_empty() || eof;
        slot.input = input;
        slot.eof = eof;
        // For `open`, which knows what it means there.
        slot.handshaking = secured;
        Some(conn)
    }

    /// Notes the new place; a wire that was reset on the way is cut there.
    fn after_seat(&mut self, shard: usize, conn: ConnId, wire: usize) {
        let reset = matches!(&self.wires[wire].place, Place::Away(away) if away.reset);
        self.wires[wire].place = Place::At(shard, conn);
        if reset {
            self.cut(wire, "reset on the way");
        }
    }

    /// Offers everybody's first bytes, then what was left of all.
    fn offer_bytes(&mut self, shard: usize) {
        let count = self.nodes[shard].side.slots.len();
        if count == 0 {
            return;
        }
        let first = self.random.below(count as u64) as usize;
        self.nodes[shard].shard.put_off_bulk();
        self.nodes[shard].shard.put_off_ends();
        self.offer_all(shard, first);
        self.nodes[shard].shard.admit_bulk();
        self.nodes[shard].shard.admit_ends(ENDS_PER_TURN);
        self.offer_all(shard, first);
    }

    fn offer_all(&mut self, shard: usize, first: usize) {
        let count = self.nodes[shard].side.slots.len();
        for index in (0..count).map(|offset| (first + offset) % count) {
            if self.nodes[shard].side.is_backed_up() {
                return;
            }
            let slot = &self.nodes[shard].side.slots[index];
            let conn = ConnId {
                index: index as u32,
                generation: slot.generation,
            };
            if slot.wire.is_some() && slot.ready && !slot.paused && !slot.handshaking {
                self.offer(shard, conn);
            }
        }
    }

    /// Offers one connection's bytes, then its end.
    fn offer(&mut self, shard: usize, conn: ConnId) {
        let node = &mut self.nodes[shard];
        let slot = node
            .side
            .slot(conn)
            .expect("bytes are offered where they are");
        let input = std::mem::take(&mut slot.input);
        slot.ready = false;
        let mut again = false;
        let mut rest = input.clone();
        if !input.is_empty() {
            let progress = node.shard.on_bytes(&mut node.side, conn, &input);
            assert!(
                progress.consumed <= input.len(),
                "more was consumed than there was"
            );
            rest.drain(..progress.consumed);
            again = progress.again || progress.ends;
        }
        let moves = node
            .side
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Move(moved, _, _) if *moved == conn));
        let Some(slot) = node.side.slot(conn) else {
            return self.effects(shard);
        };
        slot.input.splice(..0, rest);
        let over = node
            .side
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Close(closed) if *closed == conn));
        let slot = node.side.slot(conn).expect("it was there");
        slot.ready |= again;
        let ended = slot.eof && !slot.paused && !slot.ready && !moves && !over;
        if ended {
            slot.eof = false;
            node.shard.on_eof(&mut node.side, conn);
            if let Some(slot) = node.side.slot(conn) {
                slot.eof = slot.paused;
            }
        }
        self.effects(shard);
    }

    /// Carries out what the shard asked for, in order.
    fn effects(&mut self, shard: usize) {
        while !self.nodes[shard].side.effects.is_empty() {
            let effects = std::mem::take(&mut self.nodes[shard].side.effects);
            for effect in effects {
                if self.outlives_step(shard) {
                    self.carry_out(shard, effect);
                }
            }
        }
        for (home, buffer) in std::mem::take(&mut self.nodes[shard].side.returned) {
            self.nodes[usize::from(home.0)].side.take_home(buffer);
        }
    }

    fn carry_out(&mut self, shard: usize, effect: Effect) {
        match effect {
            Effect::Close(conn) => {
                let slot = self.nodes[shard].side.slot(conn);
                let Some(wire) = slot.and_then(|slot| slot.wire) else {
                    return;
                };
                self.trace.note("close", self.now, wire as u64, b"");
                let slot = self.nodes[shard].side.release(conn);
                self.wires[wire].unsent.extend_from_slice(&slot.output);
                self.wires[wire].place = Place::Gone;
                self.wires[wire].closing = true;
                self.pump(wire);
            }
            Effect::StartTls(conn) => {
                let slot = self.nodes[shard]
                    .side
                    .slot(conn)
                    .expect("TLS starts on a live stream");
                slot.handshaking = true;
                slot.input.clear();
                let (wire, output) = (slot.wire, std::mem::take(&mut slot.output));
                let wire = wire.expect("a live stream has a wire");
                self.wires[wire].unsent.extend_from_slice(&output);
                self.pump(wire);
            }
            Effect::Move(conn, to, state) => self.start_move(shard, conn, to.0.into(), state),
            Effect::Store(ticket, op) => {
                let delay = self.random.within(self.faults.disk_us);
                let node = &mut self.nodes[shard];
                node.disk_at = node.disk_at.max(self.now + delay);
                let at = node.disk_at;
                self.asked.note(shard, ticket, &op);
                self.schedule(at, Event::Disk { shard, ticket, op });
            }
            Effect::Derive(ticket, job) => {
                let at = self.now + self.random.within(self.faults.derive_us);
                self.schedule(at, Event::Derive { shard, ticket, job });
            }
            Effect::Slot(ticket, request) => {
                let at = self.now + self.random.within(self.faults.disk_us);
                let answer = files::slot(&request);
                let input = Input::Slot { ticket, answer };
                self.schedule(at, Event::Input { shard, input });
            }
        }
    }

    /// What was written goes out first; what was not read goes along.
    fn start_move(
        &mut self,
        shard: usize,
        conn: ConnId,
        to: usize,
        state: Box<xmpp::stream::StreamState>,
    ) {
        let slot = self.nodes[shard].side.release(conn);
        let wire = slot.wire.expect("a stream that moves has a wire");
        self.trace.note("move", self.now, wire as u64, &[]);
        self.moves += 1;
        self.wires[wire].unsent.extend_from_slice(&slot.output);
        let away = Away {
            input: slot.input,
            eof: slot.eof,
            ..Away::default()
        };
        self.wires[wire].place = Place::Away(away);
        self.pump(wire);
        let at = self.now + self.random.within(self.faults.move_us);
        self.schedule(
            at,
            Event::Adopt {
                wire,
                shard: to,
                state,
            },
        );
    }

    /// Sends each connection's output; who does not take it is cut when too much waits.
    fn flush(&mut self, shard: usize) {
        for index in std::mem::take(&mut self.nodes[shard].side.dirty) {
            let slot = &mut self.nodes[shard].side.slots[index as usize];
            let Some(wire) = slot.wire else { continue };
            let output = std::mem::take(&mut slot.output);
            self.output_peak = self.output_peak.max(output.len());
            self.check_messages(wire, &output);
            self.wires[wire].unsent.extend_from_slice(&output);
            self.pump(wire);
            let unsent = self.wires[wire].unsent.len();
            self.unsent_peak = self.unsent_peak.max(unsent);
            if unsent > self.faults.unsent_max {
                self.cut(wire, "reads too slowly");
            }
        }
    }

    /// Whoever has something to do gets a turn: siblings with parcels, this shard with leftovers.
    fn wake_others(&mut self, shard: usize) {
        for sibling in 0..self.nodes.len() {
            // Who waits for storage takes no parcels, and is woken by its answer.
            let takes = !self.nodes[sibling].side.waits_for_storage();
            if takes && !self.nodes[shard].side.rings[sibling].queue.is_empty() {
                self.wake(sibling);
            }
        }
        let node = &self.nodes[shard];
        let waits = node
            .side
            .slots
            .iter()
            .any(|slot| slot.wire.is_some() && slot.ready && !slot.paused && !slot.handshaking);
        // A shard that is backed up is woken by whoever makes room in its ring, or by storage.
        let bytes = waits && !node.side.is_backed_up();
        let events = !node.inbox.is_empty() && !node.side.is_spilling();
        let mut rings = self.nodes.iter().map(|node| &node.side.rings[shard]);
        let parcels = rings.any(|ring| !ring.queue.is_empty()) && !node.side.waits_for_storage();
        if bytes || events || parcels {
            self.wake(shard);
        }
    }
}

/// Fake facts, which the simulated client knows too.
fn facts(exporter: [u8; 32]) -> TlsFacts {
    TlsFacts {
        exporter: Some(exporter),
        server_end_point: Some(Box::new([9; 32])),
    }
}

fn describe(parcel: &xmpp::parcel::Parcel) -> Vec<u8> {
    format!("{parcel:?}").into_bytes()
}
