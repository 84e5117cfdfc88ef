//! How a ring thread acts where its clients do several things: by a phase's schedule or windows it
//! picks an action by weight and somebody who can do it.

use std::sync::Arc;

use crate::acks::Kept;
use crate::body::{BROADCAST, Mark};
use crate::client::Step;
use crate::driver::{LOGIN_SIZE, Worker};
use crate::mix::{Asked, Mix, Place};
use crate::plan::{Pace, Plan, Stage};
use crate::scenario::Action;
use crate::schedule::{Ramp, Schedule};
use crate::send::DUE_PER_TURN_MAX;

/// Clients that are asked whether they can do what is due before it waits for the next turn.
const TRIES_MAX: u32 = 16;
/// The first letter of the `id` of a measured request; those of a login have no number.
pub(crate) const REQUEST: &str = "m";

impl Worker {
    pub(crate) fn mixed(&mut self) -> &mut Mix {
        self.mix.as_mut().expect("asked in a mixed scenario only")
    }

    /// A phase begins to send.
    pub(crate) fn begin_phase(&mut self) {
        let plan: Arc<Plan> = self.job.plan.clone();
        let index = self.job.control.phase();
        let phase = &plan.phases[index];
        let all = phase.clients.unwrap_or(plan.clients).min(plan.clients);
        let active = all.saturating_sub(self.job.first).min(self.job.count);
        self.meter.mixed(index);
        self.schedule = None;
        let mix = self.mixed();
        (mix.phase, mix.active, mix.picked) = (index, active, None);
        mix.held_until = 0;
        mix.free.clear();
        match phase.pace {
            Some(Pace::Open { rate, arrivals }) if active > 0 => {
                let share = f64::from(active) / f64::from(all);
                let seed = self.random.bits();
                let mut schedule = Schedule::new(self.stage.1, rate * share, arrivals, seed);
                if phase.ramp > 0.0 {
                    schedule = schedule.with_ramp(Ramp {
                        from: phase.rate_from * share,
                        to: rate * share,
                        seconds: phase.ramp,
                    });
                }
                self.schedule = Some(schedule);
            }
            Some(Pace::Closed { window }) => {
                for index in 0..active {
                    let inflight = self.lines[index as usize].inflight;
                    let places = usize::from(window.saturating_sub(inflight));
                    let free = &mut self.mixed().free;
                    free.extend(std::iter::repeat_n(index, places));
                }
            }
            Some(Pace::Open { .. }) | None => {}
        }
    }

    /// Does what is due by now, and sees off who is leaving.
    pub(crate) fn act_what_is_due(&mut self) {
        self.see_off();
        self.bring_back();
        if !matches!(self.stage.0, Stage::Warm | Stage::Measure) {
            return;
        }
        let plan = self.job.plan.clone();
        let index = self.mixed().phase;
        match self.schedule {
            Some(_) => self.act_by_schedule(&plan, index),
            None => self.act_freely(&plan, index),
        }
    }

    fn act_by_schedule(&mut self, plan: &Plan, index: usize) {
        for _ in 0..DUE_PER_TURN_MAX {
            let Some(due) = self.schedule.as_ref().map(Schedule::due) else {
                return;
            };
            if due > self.now {
                return;
            }
            let waited = self.mixed().picked;
            let picked = waited.or_else(|| plan.phases[index].pick(&mut self.random));
            let Some(action) = picked else { return };
            if !self.somebody(action, due) {
                // It stays due, and its wait is in its latency.
                self.mixed().picked = Some(action);
                return;
            }
            let now = self.now;
            let mix = self.mixed();
            mix.picked = None;
            if waited.is_some() {
                mix.held_until = now;
            }
            let is_held = due < mix.held_until;
            if let Some(schedule) = &mut self.schedule {
                schedule.advance();
            }
            if due < self.record_from {
                continue;
            }
            let late = now - due;
            if is_held {
                self.meter.waited += 1;
                self.meter.mixed(index).waited += 1;
            } else {
                self.meter.lag.saturating_record(late);
                self.meter.mixed(index).lag.saturating_record(late);
            }
        }
    }

    /// Has one of the active clients do it; says whether any of those asked could.
    fn somebody(&mut self, action: Action, due: u64) -> bool {
        let active = self.mixed().active;
        (0..TRIES_MAX).any(|_| {
            let sender = self.random.below(active);
            self.act(sender, action, due)
        })
    }

    /// The closed loop: whoever has room in the window does something.
    fn act_freely(&mut self, plan: &Plan, index: usize) {
        for _ in 0..self.mixed().free.len() {
            let Some(client) = self.mixed().free.pop_front() else {
                return;
            };
            let Some(action) = plan.phases[index].pick(&mut self.random) else {
                return;
            };
            let is_done = self.act(client, action, self.now);
            let is_over = self.lines[client as usize].client.step == Step::Failed;
            if !is_done && !is_over {
                self.mixed().free.push_back(client);
            }
        }
    }

    /// Whether a client takes part and stays, so that what is sent to it is expected.
    fn is_here(&self, index: u32) -> bool {
        let step = self.lines[index as usize].client.step;
        match self.mix.as_ref().map(|mix| mix.places[index as usize]) {
            Some(Place::Here) => step == Step::Ready,
            // The server keeps it for later.
            Some(Place::Lost) => step != Step::Failed,
            Some(Place::Leaving | Place::Away) | None => false,
        }
    }

    /// Whether a client can begin `action`. Without a network people go on writing messages.
    fn can(&mut self, index: u32, action: Action) -> bool {
        let place = self.mixed().places[index as usize];
        let acks = self.lines[index as usize].client.acks();
        let has_room = acks.is_none_or(|acks| acks.has_room());
        let is_able = place == Place::Here || action.is_pairwise();
        self.is_here(index) && is_able && has_room
    }

    /// Has `client` do something that was due at `intended`; says whether it can.
    pub(crate) fn act(&mut self, client: u32, action: Action, intended: u64) -> bool {
        if !self.can(client, action) {
            return false;
        }
        let is_done = match action {
            Action::Chat | Action::Directed => self.say(client, action, intended),
            Action::Presence | Action::Muc => self.broadcast(client, action, intended),
            Action::Roster => self.ask_roster(client, intended),
            Action::Reconnect => self.leave(client, intended),
            Action::Resume => self.cut(client, intended),
        };
        if is_done {
            let line = &mut self.lines[client as usize];
            line.inflight = line.inflight.saturating_add(1);
        }
        is_done
    }

    /// A stanza to the next partner who is there.
    fn say(&mut self, sender: u32, action: Action, intended: u64) -> bool {
        let turn = self.lines[sender as usize].turn;
        let partners = self.mixed().ledger(action).partners();
        let mut turns = (0..partners).map(|more| turn.wrapping_add(more));
        let there = turns.find(|turn| {
            let ledger = self.mix.as_ref().map(|mix| &mix.ledgers[action as usize]);
            ledger.is_some_and(|ledger| self.is_here(ledger.partner(sender, *turn)))
        });
        let Some(turn) = there else { return false };
        self.lines[sender as usize].turn = turn.wrapping_add(1);
        let mix = self.mixed();
        let (to, sequence) = mix.ledger(action).send(sender, turn);
        mix.expect(to);
        self.write_marked(sender, action, to, sequence, intended);
        true
    }

    /// Presence to the clique, or a message to its room, which returns to the sender, too. Who is
    /// not there is told when he comes back, or not.
    fn broadcast(&mut self, sender: u32, action: Action, intended: u64) -> bool {
        let clique = self.mixed().ledger(action).clique(sender);
        let returns = action == Action::Muc;
        let (here, away): (Vec<u32>, Vec<u32>) = clique
            .filter(|member| returns || *member != sender)
            .partition(|member| self.is_here(*member));
        if here.is_empty() {
            return false;
        }
        let mix = self.mixed();
        let (to, sequence) = mix.ledger(action).send(sender, 0);
        for member in &here {
            mix.expect(*member);
        }
        for member in away {
            mix.ledger(action).excuse(sender, member, sequence);
        }
        let round = (action, sender, sequence);
        mix.rounds.insert(round, here.len() as u32);
        self.write_marked(sender, action, to, sequence, intended);
        true
    }

    fn write_marked(&mut self, from: u32, action: Action, to: u32, sequence: u32, intended: u64) {
        let first = self.job.first;
        let plan = self.job.plan.clone();
        let size = plan.phases[self.mixed().phase].sizes.draw(&mut self.random);
        let is_broadcast = to == BROADCAST;
        let mark = Mark {
            from: first + from,
            to: if is_broadcast { to } else { first + to },
            sequence,
            intended,
            sent: self.now,
        };
        self.keep(from, || Kept::Marked {
            action,
            size: size as u32,
            mark,
        });
        // Without a network it waits for the next connection.
        if self.lines[from as usize].client.step == Step::Ready {
            self.write_mark(from, action, size, &mark);
            self.count_sent(from);
        } else if let Some(acks) = self.lines[from as usize].client.acks() {
            acks.send(1);
        }
    }

    /// Writes a measured stanza, for the first time or once more.
    pub(crate) fn write_mark(&mut self, from: u32, action: Action, size: usize, mark: &Mark) {
        self.prepare(from, size + 128);
        let to = mark.to.wrapping_sub(self.job.first) as usize;
        let to = match &self.doors {
            Some(doors) if action == Action::Muc => doors.room(from),
            _ => self.jids.get(to).map_or("", |jid| jid),
        };
        let out = &mut self.lines[from as usize].out;
        self.shape
            .write_sized(action.scenario(), size, mark, to, out);
    }

    fn ask_roster(&mut self, client: u32, intended: u64) -> bool {
        let sent = self.now;
        let mix = self.mixed();
        mix.open += 1;
        let number = mix.ask(client, Asked::new(Action::Roster, intended, sent));
        self.ledger.verdict.sent += 1;
        self.prepare(client, LOGIN_SIZE);
        let request =
            format!("<iq type='get' id='{REQUEST}{number}'><query xmlns='jabber:iq:roster'/></iq>");
        let out = &mut self.lines[client as usize].out;
        out.extend_from_slice(request.as_bytes());
        self.keep(client, || Kept::Whole(request.into_bytes().into()));
        self.count_sent(client);
        true
    }

    fn leave(&mut self, client: u32, intended: u64) -> bool {
        self.ledger.verdict.sent += 1;
        self.lines[client as usize].due = intended;
        let mix = self.mixed();
        mix.places[client as usize] = Place::Leaving;
        mix.leaving.push(client);
        mix.open += 1;
        true
    }

    /// Closes the streams of those that are leaving and have got everything.
    fn see_off(&mut self) {
        let mut leaving = std::mem::take(&mut self.mixed().leaving);
        leaving.retain(|client| !self.has_left(*client));
        self.mixed().leaving = leaving;
    }

    /// Whether a client that was leaving no longer is.
    fn has_left(&mut self, client: u32) -> bool {
        if self.lines[client as usize].client.step != Step::Ready {
            return true;
        }
        // Leaving is under way, too.
        let has_sent = self.lines[client as usize].inflight > 1;
        if has_sent || !self.mixed().is_quiet(client) || self.is_last_in_room(client) {
            return false;
        }
        self.prepare(client, LOGIN_SIZE);
        let now = self.now;
        let line = &mut self.lines[client as usize];
        if let Some(acks) = line.client.acks() {
            if acks.unasked() > 0 {
                acks.ask(now, &mut line.out);
                self.acks_open += 1;
                self.touch(client);
                return false;
            }
            // What was sent must be answered for: another session has another count.
            if acks.unacked() > 0 || acks.open() > 0 {
                return false;
            }
        }
        line.idle_since = now;
        line.client.close(&mut line.out);
        self.touch(client);
        self.leave_room(client);
        self.mixed().places[client as usize] = Place::Away;
        true
    }
}
