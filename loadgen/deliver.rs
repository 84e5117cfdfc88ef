//! What a ring thread does with what arrives: cut it, check it, enter it into the account, and let
//! its sender go on.

use std::sync::atomic::Ordering::Relaxed;

use crate::body::{BROADCAST, Mark};
use crate::client::{self, Client, Step, Turn};
use crate::clock::SECOND;
use crate::driver::{LOGIN_SIZE, Worker};
use crate::ledger::{Arrival, Verdict};
use crate::plan::{Dialect, Pace, Scenario, Stage};
use crate::scan::{self, Piece};
use crate::stats::histogram;
use crate::wire::{HELLO, Reading};

/// How often a thread reads its own CPU time: a system call.
const BUSY_EVERY: u64 = 10_000_000;

impl Worker {
    /// Handles all whole pieces in `bytes`; gives how many bytes they were.
    pub(crate) fn digest(&mut self, index: u32, bytes: &[u8]) -> usize {
        if self.job.plan.dialect == Dialect::Floor {
            return self.digest_frames(index, bytes);
        }
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let piece = scan::next_piece(rest);
            let size = match piece {
                Piece::Incomplete => return used,
                Piece::Broken => 0,
                Piece::Space(size) | Piece::Header(size) => size,
                Piece::Element(size) | Piece::End(size) => size,
            };
            used += size;
            if piece == Piece::Broken || !self.on_piece(index, piece, &rest[..size]) {
                if piece == Piece::Broken {
                    self.fail(index, "the server sent broken XML".to_owned());
                }
                return bytes.len();
            }
        }
    }

    /// Says whether the bytes behind this piece still mean anything.
    fn on_piece(&mut self, index: u32, piece: Piece, bytes: &[u8]) -> bool {
        let step = self.lines[index as usize].client.step;
        if matches!(piece, Piece::Element(_)) {
            // Whatever comes until the very end counts; only who logs in and out has no account.
            let counts = match step {
                Step::Ready => true,
                Step::Closing => self.job.plan.talks(),
                _ => false,
            };
            if counts {
                self.on_stanza(index, bytes);
                return true;
            }
        }
        if step == Step::Failed {
            return false;
        }
        let turn = self.with_client(index, |client, cx| client.on_piece(cx, piece, bytes));
        let goes_on = matches!(
            turn,
            Turn::Nothing
                | Turn::Join
                | Turn::Ready(_)
                | Turn::Resumed(_)
                | Turn::NotResumed
                | Turn::Derive(_)
        );
        let is_stanza = matches!(piece, Piece::Element(_))
            && matches!(scan::local_name(bytes), b"message" | b"presence");
        if matches!(turn, Turn::Nothing) && is_stanza && self.is_away(index) {
            // Who is on the way back is told things as soon as it is bound, under its new address.
            if let Some(jid) = self.lines[index as usize].client.bound() {
                self.jids[index as usize] = jid.into();
            }
            self.on_measured(index, bytes);
            return true;
        }
        self.on_turn(index, turn);
        goes_on
    }

    fn on_stanza(&mut self, index: u32, element: &[u8]) {
        // Behind the end of our stream nothing may be said.
        let is_open = self.lines[index as usize].client.step == Step::Ready;
        if !is_open && scan::local_name(element) == b"r" {
            return;
        }
        if self.job.plan.ack_every.is_some() && self.on_managed(index, element) {
            return;
        }
        if self.mix.is_some() && self.on_answer(index, element) {
            return;
        }
        self.on_measured(index, element);
    }

    /// Checks a stanza that carries a mark, and answers a request.
    fn on_measured(&mut self, index: u32, element: &[u8]) {
        if self.on_room(index, element) {
            return;
        }
        let is_open = self.lines[index as usize].client.step == Step::Ready;
        match self.shape.read(element) {
            Reading::Other => {}
            Reading::Measured(mark, from, to) => {
                let sender = mark.from.wrapping_sub(self.job.first);
                // A broadcast comes to the bare or to the full address, as the server likes, or to
                // none, as Prosody returns it to its sender: then it is whoever's stream it is on.
                let is_right = self.is_address(index, to)
                    || mark.to == BROADCAST && (to.is_empty() || self.is_bare_address(index, to));
                if is_right && self.is_address(sender, from) {
                    match self.mix {
                        None => self.arrive(index, &mark),
                        Some(_) => self.arrive_mixed(index, element, &mark),
                    }
                } else {
                    self.ledger.verdict.misrouted += 1;
                }
            }
            Reading::Corrupted => self.ledger.verdict.corrupted += 1,
            Reading::Bounced => self.ledger.verdict.bounced += 1,
            Reading::StreamError => self.fail(index, "stream error while ready".to_owned()),
            Reading::Request if !is_open => {}
            Reading::Request => {
                self.prepare(index, 256);
                let kind = scan::attribute(element, b"type").unwrap_or(b"get");
                let line = &mut self.lines[index as usize];
                let start = line.out.len();
                client::answer_request(element, kind, &mut line.out);
                line.client.sent(&line.out[start..]);
                self.touch(index);
            }
        }
    }

    /// Whether these bytes of an attribute are the full JID of a client.
    pub(crate) fn is_address(&self, index: u32, bytes: &[u8]) -> bool {
        self.jids
            .get(index as usize)
            .is_some_and(|jid| jid.as_bytes() == bytes || jid.as_bytes() == scan::unescape(bytes))
    }

    /// Whether they are the bare JID of a client.
    fn is_bare_address(&self, index: u32, bytes: &[u8]) -> bool {
        let bare = |jid: &str| jid.split('/').next().unwrap_or("").to_owned();
        self.jids
            .get(index as usize)
            .is_some_and(|jid| bare(jid).as_bytes() == scan::unescape(bytes))
    }

    /// Says whether `element` is a request or an answer of stream management; deals with it.
    fn on_managed(&mut self, index: u32, element: &[u8]) -> bool {
        if scan::local_name(element) == b"r" {
            self.prepare(index, LOGIN_SIZE);
        }
        let line = &mut self.lines[index as usize];
        let open = |client: &mut Client| client.acks().map_or(0, |acks| acks.open());
        let before = open(&mut line.client);
        let times = (self.record_from, self.now);
        let handled = line
            .client
            .manage(element, times, &mut self.meter, &mut line.out);
        self.acks_open -= before - open(&mut line.client);
        if !line.out.is_empty() {
            self.touch(index);
        }
        handled
    }

    fn digest_frames(&mut self, index: u32, bytes: &[u8]) -> usize {
        let size = self.job.plan.stanza_size;
        let mut used = 0;
        for frame in bytes.chunks_exact(size) {
            used += size;
            if frame[..4] == HELLO.to_le_bytes() {
                let line = &mut self.lines[index as usize];
                line.client.step = Step::Ready;
                self.on_turn(index, Turn::Ready(Box::default()));
                continue;
            }
            match self.shape.read_frame(frame) {
                Some(mark) => self.arrive(index, &mark),
                None => self.ledger.verdict.corrupted += 1,
            }
        }
        used
    }

    /// Enters a readable arrival into the account.
    pub(crate) fn arrive(&mut self, index: u32, mark: &Mark) {
        let local = self.local(mark);
        if self.ledger.arrive(index, &local) != Arrival::Fresh {
            return;
        }
        if mark.intended >= self.record_from {
            let latency = self.now.saturating_sub(mark.intended);
            self.record_second(latency);
            if mark.sent != mark.intended {
                self.meter
                    .service
                    .saturating_record(self.now.saturating_sub(mark.sent));
            }
        }
        self.release(&local);
    }

    /// A mark whose clients are counted from this thread's first.
    pub(crate) fn local(&self, mark: &Mark) -> Mark {
        let first = self.job.first;
        Mark {
            from: mark.from.wrapping_sub(first),
            to: if mark.to == BROADCAST {
                BROADCAST
            } else {
                mark.to.wrapping_sub(first)
            },
            ..*mark
        }
    }

    /// One copy less is outstanding; its sender may go on when that was the last of its stanza.
    fn release(&mut self, mark: &Mark) {
        let sender = mark.from;
        if mark.to == BROADCAST && !self.rounds.is_empty() {
            let window = self.rounds.len() / self.lines.len();
            let place = sender as usize * window + mark.sequence as usize % window;
            self.rounds[place] = self.rounds[place].saturating_sub(1);
            if self.rounds[place] > 0 {
                return;
            }
        }
        let line = &mut self.lines[sender as usize];
        line.inflight = line.inflight.saturating_sub(1);
        let closed = matches!(self.job.plan.pace, Pace::Closed { .. });
        if closed && matches!(self.stage.0, Stage::Warm | Stage::Measure) {
            self.send_one(sender, self.now);
        }
    }

    /// Notes a delivery in the histogram of this second.
    pub(crate) fn record_second(&mut self, latency: u64) {
        let second = self.now / SECOND;
        if second != self.second.0 {
            self.close_second();
            self.second.0 = second;
        }
        self.second.1.saturating_record(latency);
    }

    /// Adds this second's histogram to the whole and to the timeline.
    pub(crate) fn close_second(&mut self) {
        if self.second.1.is_empty() {
            return;
        }
        let seen = std::mem::replace(&mut self.second.1, histogram());
        if self.job.plan.scenario != Scenario::Login {
            self.meter
                .latency
                .add(&seen)
                .expect("all histograms have the same bounds");
        }
        self.job.control.timeline.add(self.second.0, &seen);
    }

    pub(crate) fn update_gauge(&mut self) {
        if self.now / SECOND > self.second.0 {
            self.close_second();
        }
        let outstanding = self.outstanding();
        if self.now >= self.busy_read + BUSY_EVERY {
            self.busy_read = self.now;
            self.gauge()
                .busy
                .store(ring::thread_cpu().as_nanos() as u64, Relaxed);
        }
        let mut verdict = self.ledger.verdict;
        for ledger in self.mix.iter().flat_map(|mix| &mix.ledgers) {
            verdict.add(&ledger.verdict);
        }
        let gauge = self.gauge();
        gauge.sent.store(verdict.sent, Relaxed);
        gauge.delivered.store(verdict.delivered, Relaxed);
        gauge.outstanding.store(outstanding, Relaxed);
    }

    fn outstanding(&self) -> u64 {
        if let Some(mix) = &self.mix {
            return mix.open + self.acks_open;
        }
        let verdict = &self.ledger.verdict;
        let expected = match self.job.plan.is_pairwise() {
            true => verdict.sent,
            false => self.copies_sent,
        };
        expected.saturating_sub(verdict.delivered) + self.acks_open
    }

    /// The final account.
    pub(crate) fn settle(&mut self) -> Verdict {
        self.ledger.verdict.false_acks = self.meter.false_acks;
        for line in &mut self.lines {
            let failed = line.client.step == Step::Failed;
            let acks = line.client.acks().filter(|_| !failed);
            self.ledger.verdict.unacked += acks.map_or(0, |acks| acks.unacked().into());
        }
        let mut verdict = self.ledger.verdict;
        match self.job.plan.scenario {
            Scenario::Login => {
                verdict.expected = verdict.sent;
                verdict.lost = verdict.sent.saturating_sub(verdict.delivered);
                verdict
            }
            _ => match &self.mix {
                Some(mix) => mix.settle(self.ledger.verdict),
                None => self.ledger.settle(),
            },
        }
    }
}
