//! What archives keep no longer (XEP-0313 3.2): a round through all of them looks for what is too
//! old or too much, a step at a time, and has it purged.
//!
//! One shard does it for all: what is purged is gone for whoever asks, wherever he is. Invariant:
//! no round takes for old what is so only by a clock that went ahead since the one before, or since
//! the start.

use crate::host::{Host, Timestamp};
use crate::port::{ArchiveId, Retention, StoreOp, StoreReply, SweepPlace, Swept};
use crate::settings::ArchivePolicy;
use crate::shard::{Shard, Timer, Waiting};
use crate::xep::archive::Pending;

/// Milliseconds from the start to the first round: a clock that was wrong at the start is set by
/// then.
pub const FIRST_ROUND_MS: u64 = 3_600_000;

/// Those between a round and the next one.
pub const ROUND_MS: u64 = 6 * 3_600_000;

/// Messages are counted in one round of so many: for that all rows are read.
pub const COUNTED_EVERY: u64 = 4;

/// Those between two steps: archives are read for their owners meanwhile.
pub const STEP_MS: u64 = 100;

/// Those from a step that failed to the next one.
pub const RETRY_MS: u64 = 600_000;

/// Microseconds by which a clock that is set right may go ahead between two rounds.
const AHEAD_US_MAX: i64 = 300_000_000;

/// A round through all archives, and what is known of the clock.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Where the next step begins.
    place: SweepPlace,
    /// What is looked for; none between two rounds.
    retention: Option<Retention>,
    /// How many rounds there were before.
    number: u64,
    /// Archives that have lost something in this one.
    purged: u64,
    /// By how much the system's clock was ahead of what has passed since the start.
    ahead_us: i64,
}

impl Round {
    /// Takes down how far the system's clock is ahead; whether it went there since the last time.
    fn has_jumped(&mut self, now: Timestamp, wall: Timestamp) -> bool {
        let ahead_us = wall.0 as i64 - now.0 as i64;
        let before = std::mem::replace(&mut self.ahead_us, ahead_us);
        ahead_us - before > AHEAD_US_MAX
    }

    /// What the next round is to look for, if anything.
    fn begin(
        &mut self,
        policy: ArchivePolicy,
        now: Timestamp,
        wall: Timestamp,
    ) -> Option<Retention> {
        let is_counted = self.number.is_multiple_of(COUNTED_EVERY);
        self.number += 1;
        self.purged = 0;
        let has_jumped = self.has_jumped(now, wall) && policy.keep_s > 0;
        if has_jumped {
            tracing::error!("the clock went ahead: nothing is too old for archives until it stays");
        }
        let first = match policy.keep_s {
            keep_s if keep_s > 0 && !has_jumped => ArchiveId::first_at(wall.minus_s(keep_s)),
            _ => ArchiveId(0),
        };
        let count_max = if is_counted { policy.messages_max } else { 0 };
        let is_due = first > ArchiveId(0) || count_max > 0;
        self.retention = is_due.then_some(Retention { first, count_max });
        self.retention
    }
}

impl Shard {
    /// The shard has come up.
    pub(crate) fn begin_retention(&mut self, host: &mut impl Host) {
        let is_bounded = self.settings.retention.is_bounded();
        if self.id.0 == 0 && self.settings.archives() && is_bounded {
            let round = &mut self.archive_requests.round;
            round.has_jumped(host.now(), host.wall());
            self.go_on_with_retention(host, FIRST_ROUND_MS);
        }
    }

    fn go_on_with_retention(&mut self, host: &mut impl Host, pause_ms: u64) {
        let at = host.now().plus_ms(pause_ms);
        self.arm(host, at, Timer::Retention);
    }

    /// The next step.
    pub(crate) fn on_retention(&mut self, host: &mut impl Host) {
        let policy = self.settings.retention;
        let round = &mut self.archive_requests.round;
        let retention = match round.retention {
            Some(retention) => Some(retention),
            None => round.begin(policy, host.now(), host.wall()),
        };
        let Some(retention) = retention else {
            return self.go_on_with_retention(host, ROUND_MS);
        };
        let place = round.place.clone();
        let ticket = self.ticket_for_itself(Waiting::Archive);
        let op = StoreOp::SweepArchives { place, retention };
        self.archive_requests
            .pending
            .insert(ticket.0, Pending::Sweep);
        host.store(ticket, op);
    }

    /// Storage has made a step.
    pub(crate) fn on_swept(&mut self, host: &mut impl Host, reply: StoreReply) {
        let Swept {
            excess,
            next,
            has_failed,
        } = match reply {
            StoreReply::Swept(swept) => *swept,
            reply => {
                tracing::error!(?reply, "archives were not searched for what is too old");
                return self.go_on_with_retention(host, RETRY_MS);
            }
        };
        let round = &mut self.archive_requests.round;
        round.purged += u64::from(excess.is_some());
        let pause = match &next {
            Some(_) if has_failed => RETRY_MS,
            Some(_) => STEP_MS,
            None => {
                round.retention = None;
                if round.purged > 0 {
                    let archives = round.purged;
                    tracing::info!(archives, "what was too old or too much was purged");
                }
                ROUND_MS
            }
        };
        round.place = next.unwrap_or_default();
        if let Some((account, up_to)) = excess {
            tracing::debug!(%account, %up_to, "an archive is purged");
            let ticket = self.ticket_for_itself(Waiting::Nothing);
            host.store(ticket, StoreOp::PurgeArchive { account, up_to });
        }
        self.go_on_with_retention(host, pause);
    }
}
