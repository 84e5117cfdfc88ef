//! What a ring thread does with what comes where its clients do several things: the account of the
//! action, its times in the phase, and the way back of who logs in again.

use std::collections::VecDeque;

use crate::act::REQUEST;
use crate::body::Mark;
use crate::client::Step;
use crate::driver::Worker;
use crate::ledger::Arrival;
use crate::mix::{Contacts, Place};
use crate::plan::{Pace, Stage};
use crate::scan;
use crate::scenario::Action;

impl Worker {
    /// Enters a readable arrival into the account of its action.
    pub(crate) fn arrive_mixed(&mut self, index: u32, element: &[u8], mark: &Mark) {
        let action = match scan::local_name(element) {
            b"message" => Action::Chat,
            _ if mark.to == crate::body::BROADCAST => Action::Presence,
            _ => Action::Directed,
        };
        self.arrive_as(action, index, mark);
    }

    /// The same where the action is known.
    pub(crate) fn arrive_as(&mut self, action: Action, index: u32, mark: &Mark) {
        let mark = self.local(mark);
        let mix = self.mixed();
        if mix.ledger(action).arrive(index, &mark) != Arrival::Fresh {
            return;
        }
        mix.came(index);
        let round = (action, mark.from, mark.sequence);
        let is_whole = action.is_pairwise()
            || mix.rounds.get_mut(&round).is_none_or(|copies| {
                *copies = copies.saturating_sub(1);
                *copies == 0
            });
        if is_whole && action.is_broadcast() {
            mix.rounds.remove(&round);
        }
        self.record(action, mark.intended, mark.sent);
        if is_whole {
            self.finish_action(mark.from);
        }
    }

    /// Whether `element` answers a measured request; deals with it.
    pub(crate) fn on_answer(&mut self, index: u32, element: &[u8]) -> bool {
        if scan::local_name(element) != b"iq" {
            return false;
        }
        let type_ = scan::attribute(element, b"type");
        let is_error = type_ == Some(b"error");
        if !is_error && type_ != Some(b"result") {
            return false;
        }
        let id = scan::attribute(element, b"id").and_then(|id| std::str::from_utf8(id).ok());
        let number = id.and_then(|id| id.strip_prefix(REQUEST)?.parse::<u32>().ok());
        let Some(number) = number else {
            return false;
        };
        let mix = self.mixed();
        let asked = mix.asked.get_mut(&index);
        let asked = asked.and_then(|asked| {
            let at = asked.iter().position(|one| one.number == number)?;
            asked.remove(at)
        });
        let Some(asked) = asked else {
            self.ledger.verdict.duplicated += 1;
            return true;
        };
        if mix.asked.get(&index).is_some_and(VecDeque::is_empty) {
            mix.asked.remove(&index);
        }
        mix.open = mix.open.saturating_sub(1);
        if asked.action == Action::Resume {
            // A server that knows no ping answers just as late.
            mix.places[index as usize] = Place::Here;
        } else if is_error {
            self.ledger.verdict.bounced += 1;
        } else {
            // Nobody changes rosters here: each always has who was in it first.
            let contacts = Contacts::of(element);
            let known = *mix.contacts.entry(index).or_insert(contacts);
            let is_whole = scan::holds(element, b"jabber:iq:roster") && known == contacts;
            self.ledger.verdict.corrupted += u64::from(!is_whole);
        }
        // One that is wrong came, too: it is not lost besides.
        self.ledger.verdict.delivered += 1;
        self.record(asked.action, asked.intended, asked.sent);
        self.finish_action(index);
        true
    }

    /// Whether a client closed its stream and is not ready again.
    pub(crate) fn is_away(&self, index: u32) -> bool {
        let place = self.mix.as_ref().map(|mix| mix.places[index as usize]);
        place == Some(Place::Away)
    }

    /// The connection of who is away is closed: the next one begins.
    pub(crate) fn come_back(&mut self, index: u32) {
        if !self.is_away(index) || self.stage.0 == Stage::Finish {
            return;
        }
        self.expect_news(index);
        let due = self.lines[index as usize].due;
        if let Err(reason) = self.connect(index, due) {
            self.fail(index, reason);
        }
    }

    /// A client that logs in again is told what is new before it is ready: as soon as its presence
    /// is out.
    pub(crate) fn expect_news(&mut self, index: u32) {
        let ledger = self.mixed().ledger(Action::Presence);
        if !ledger.clique(index).is_empty() {
            ledger.renew(index);
        }
    }

    /// Whether a client that became ready had been away; if so it takes part again.
    pub(crate) fn is_back(&mut self, index: u32) -> bool {
        let mix = self.mixed();
        let place = &mut mix.places[index as usize];
        if *place != Place::Away {
            return false;
        }
        *place = Place::Here;
        mix.open = mix.open.saturating_sub(1);
        self.ledger.verdict.delivered += 1;
        let line = &self.lines[index as usize];
        let (due, began) = (line.due, line.idle_since);
        self.record(Action::Reconnect, due, began);
        self.finish_action(index);
        if !matches!(self.stage.0, Stage::Warm | Stage::Measure) {
            // Sending ended without it.
            self.ask_for_the_rest(index);
        }
        true
    }

    /// Notes how long an action took; returns are no deliveries, and stay out of the run's latency.
    fn record(&mut self, action: Action, intended: u64, began: u64) {
        if intended < self.record_from {
            return;
        }
        let latency = self.now.saturating_sub(intended);
        let service = self.now.saturating_sub(began);
        let phase = self.mixed().phase;
        self.meter.mixed(phase).record(action, latency, service);
        if action.is_return() {
            return;
        }
        self.record_second(latency);
        if began != intended {
            self.meter.service.saturating_record(service);
        }
    }

    /// An action of `client` is whole: in a closed loop there is room for another.
    fn finish_action(&mut self, client: u32) {
        let line = &mut self.lines[client as usize];
        line.inflight = line.inflight.saturating_sub(1);
        let (inflight, is_over) = (line.inflight, line.client.step == Step::Failed);
        let plan = self.job.plan.clone();
        let mix = self.mixed();
        let pace = plan.phases.get(mix.phase).and_then(|phase| phase.pace);
        // The phase before may have left more outstanding than this one's window.
        let has_room = matches!(pace, Some(Pace::Closed { window }) if inflight < window);
        if has_room && client < mix.active && !is_over {
            mix.free.push_back(client);
        }
    }
}
