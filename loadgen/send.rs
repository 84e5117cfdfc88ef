//! How a ring thread sends: a closed loop's windows, or an open loop's schedule.

use crate::body::{BROADCAST, Mark};
use crate::client::Step;
use crate::driver::Worker;
use crate::plan::{Pace, Scenario, Stage};
use crate::schedule::Schedule;

/// Stanzas that one turn sends at most by schedule, so that arrivals are read in between.
pub(crate) const DUE_PER_TURN_MAX: u32 = 1024;

impl Worker {
    /// Sending begins (again).
    pub(crate) fn start_sending(&mut self) {
        let plan = self.job.plan.clone();
        if plan.scenario == Scenario::Mixed {
            return self.begin_phase();
        }
        match plan.pace {
            Pace::Open { rate, arrivals } => {
                let senders = plan.senders(self.job.count);
                let share = f64::from(senders) / f64::from(plan.senders(plan.clients));
                let seed = self.random.bits();
                self.schedule = (senders > 0)
                    .then(|| Schedule::new(self.stage.1, rate * share, arrivals, seed));
            }
            Pace::Closed { window } => {
                if matches!(plan.scenario, Scenario::Login | Scenario::Idle) {
                    return;
                }
                for index in 0..self.job.count {
                    let line = &self.lines[index as usize];
                    for _ in line.inflight..window {
                        self.send_one(index, self.now);
                    }
                }
            }
        }
    }

    /// Sending ends (for now): what nobody asked acknowledgement for is asked for.
    pub(crate) fn stop_sending(&mut self) {
        if self.job.plan.ack_every.is_none() {
            return;
        }
        for index in 0..self.job.count {
            self.ask_for_the_rest(index);
        }
    }

    /// Asks acknowledgement for what a client has not asked it for.
    pub(crate) fn ask_for_the_rest(&mut self, index: u32) {
        let line = &mut self.lines[index as usize];
        let waits = line.client.step == Step::Ready;
        let acks = line.client.acks();
        if let Some(acks) = acks.filter(|acks| waits && acks.unasked() > 0) {
            acks.ask(self.now, &mut line.out);
            self.acks_open += 1;
            self.touch(index);
        }
    }

    /// Sends what the schedule says is due by now.
    pub(crate) fn send_what_is_due(&mut self) {
        if self.mix.is_some() {
            return self.act_what_is_due();
        }
        if !self.job.plan.talks() || !matches!(self.stage.0, Stage::Warm | Stage::Measure) {
            return;
        }
        let senders = self.job.plan.senders(self.job.count);
        for _ in 0..DUE_PER_TURN_MAX {
            let Some(schedule) = &mut self.schedule else {
                return;
            };
            let due = schedule.due();
            if due > self.now {
                return;
            }
            schedule.advance();
            let sender = self.random.below(senders);
            if due >= self.record_from {
                self.meter.lag.saturating_record(self.now - due);
            }
            self.send_one(sender, due);
        }
    }

    /// Writes the next stanza of `sender`, due at `intended`.
    pub(crate) fn send_one(&mut self, sender: u32, intended: u64) {
        let copies = self.ledger.copies(sender);
        if copies == 0 || self.lines[sender as usize].client.step != Step::Ready {
            return;
        }
        self.prepare(sender, self.job.plan.stanza_size + 128);
        let first = self.job.first;
        let line = &mut self.lines[sender as usize];
        let turn = line.turn;
        line.turn = turn.wrapping_add(1);
        line.inflight = line.inflight.saturating_add(1);
        let (to, sequence) = self.ledger.send(sender, turn);
        self.copies_sent += u64::from(copies);
        if to == BROADCAST && !self.rounds.is_empty() {
            let window = self.rounds.len() / self.lines.len();
            let place = sender as usize * window + sequence as usize % window;
            self.rounds[place] = copies as u16;
        }
        let mark = Mark {
            from: first + sender,
            to: if to == BROADCAST {
                BROADCAST
            } else {
                first + to
            },
            sequence,
            intended,
            sent: self.now,
        };
        let to = match &self.doors {
            Some(doors) if to == BROADCAST => doors.room(sender),
            _ => self.jids.get(to as usize).map_or("", |jid| jid),
        };
        let line = &mut self.lines[sender as usize];
        self.shape.write(&mark, to, &mut line.out);
        self.count_sent(sender);
    }

    /// A stanza was written for the server: it is counted, and now and then answered for.
    pub(crate) fn count_sent(&mut self, sender: u32) {
        let line = &mut self.lines[sender as usize];
        if let Some(acks) = line.client.acks() {
            acks.send(1);
            if acks.unasked() >= self.job.plan.ack_every.unwrap_or(1) {
                acks.ask(self.now, &mut line.out);
                self.acks_open += 1;
            }
        }
        self.touch(sender);
    }
}
