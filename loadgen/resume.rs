//! How a ring thread takes the network from a client and has its session go on over another
//! connection (XEP-0198 5).
//!
//! Invariant: what is sent to a client meanwhile is expected of the server, and of what the client
//! sent exactly that is sent again which the server does not count; so all accounts stay exact.

use crate::acks::Kept;
use crate::act::REQUEST;
use crate::client;
use crate::clock::SECOND;
use crate::driver::{LOGIN_SIZE, Worker};
use crate::mix::{Asked, Place};
use crate::scenario::Action;

impl Worker {
    /// A stanza is counted next that must be sent again where the server has not got it.
    pub(crate) fn keep(&mut self, index: u32, stanza: impl FnOnce() -> Kept) {
        if let Some(acks) = self.lines[index as usize].client.acks() {
            acks.keep(stanza);
        }
    }

    /// Drops the connection of a client as a lost network does: what is on its way is gone.
    pub(crate) fn cut(&mut self, client: u32, intended: u64) -> bool {
        let now = self.now;
        let phase = &self.job.plan.phases[self.mix.as_ref().map_or(0, |mix| mix.phase)];
        let until = now + (phase.pause * SECOND as f64) as u64;
        self.ledger.verdict.sent += 1;
        let line = &mut self.lines[client as usize];
        line.due = intended;
        line.idle_since = now;
        line.client.lose();
        let mix = self.mixed();
        mix.places[client as usize] = Place::Lost;
        mix.lost.insert((until, client));
        mix.open += 1;
        self.begin_close(client);
        true
    }

    /// Connects those again that have the network back.
    pub(crate) fn bring_back(&mut self) {
        let now = self.now;
        let is_due = |lost: &&(u64, u32)| lost.0 <= now;
        if self.mixed().lost.first().filter(is_due).is_none() {
            return;
        }
        let due: Vec<_> = self
            .mixed()
            .lost
            .iter()
            .take_while(is_due)
            .copied()
            .collect();
        for lost in due {
            let index = lost.1;
            let line = &self.lines[index as usize];
            // The old connection takes a moment to end.
            if line.open {
                continue;
            }
            let due = line.due;
            self.mixed().lost.remove(&lost);
            if let Err(reason) = self.connect(index, due) {
                self.fail(index, reason);
            }
        }
    }

    /// The session of a client goes on, and the server has `h` stanzas of it: the others are sent
    /// again, and behind them a ping whose answer comes behind all that the client has missed.
    pub(crate) fn on_resumed(&mut self, index: u32, h: u32) {
        self.logging_in -= 1;
        let (times, now) = ((self.record_from, self.now), self.now);
        let line = &mut self.lines[index as usize];
        let before = line.client.acks().map_or(0, |acks| acks.open());
        line.client.on_answer(Some(h), times, &mut self.meter);
        let kept: Vec<Kept> = line
            .client
            .acks()
            .map_or_else(Vec::new, |acks| acks.kept().cloned().collect());
        self.acks_open -= before - line.client.acks().map_or(0, |acks| acks.open());
        self.ledger.verdict.resent += kept.len() as u64;
        for stanza in kept {
            match stanza {
                Kept::Marked { action, size, mark } => {
                    self.write_mark(index, action, size as usize, &mark);
                }
                Kept::Whole(bytes) => {
                    self.prepare(index, LOGIN_SIZE);
                    self.lines[index as usize].out.extend_from_slice(&bytes);
                }
            }
        }
        let line = &self.lines[index as usize];
        let asked = Asked::new(Action::Resume, line.due, line.idle_since);
        let number = self.mixed().ask(index, asked);
        self.prepare(index, LOGIN_SIZE);
        let domain = &self.job.script.domain;
        let line = &mut self.lines[index as usize];
        let start = line.out.len();
        client::write_ping(&mut line.out, &format!("{REQUEST}{number}"), domain);
        line.client.sent(&line.out[start..]);
        if let Some(acks) = line.client.acks() {
            acks.ask(now, &mut line.out);
            self.acks_open += 1;
        }
        self.touch(index);
    }

    /// The server has no session any more: the client logs in anew, which is a return of another
    /// kind, and what only the session had is missed by its account.
    pub(crate) fn on_not_resumed(&mut self, index: u32) {
        let verdict = &mut self.ledger.verdict;
        verdict.not_resumed += 1;
        // The way back was answered, and another begins in its place.
        verdict.delivered += 1;
        verdict.sent += 1;
        let acks = self.lines[index as usize].client.forget();
        self.acks_open -= acks.map_or(0, |acks| acks.open());
        self.mixed().places[index as usize] = Place::Away;
        self.expect_news(index);
    }
}
