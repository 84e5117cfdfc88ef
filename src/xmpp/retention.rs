//! What archives keep no longer (XEP-0313 3.2): a round through all of them looks for what is too
//! old or too much, a step at a time, and has it purged.
//!
//! One shard does it for all: what is purged is gone for whoever asks, wherever he is.

use crate::host::Host;
use crate::port::{ArchiveId, Retention, StoreOp, StoreReply, Swept};
use crate::shard::{Shard, Timer, Waiting};
use crate::xep::archive::Pending;

/// Milliseconds from the start to the first round.
pub const FIRST_ROUND_MS: u64 = 60_000;

/// Those between a round and the next one.
pub const ROUND_MS: u64 = 6 * 3_600_000;

/// Those between two steps: archives are read for their owners meanwhile.
pub const STEP_MS: u64 = 100;

impl Shard {
    /// The shard has come up.
    pub(crate) fn begin_retention(&mut self, host: &mut impl Host) {
        let is_bounded = self.settings.retention.is_bounded();
        if self.id.0 == 0 && self.settings.archives() && is_bounded {
            let at = host.now().plus_ms(FIRST_ROUND_MS);
            self.arm(host, at, Timer::Retention);
        }
    }

    /// The next step.
    pub(crate) fn on_retention(&mut self, host: &mut impl Host) {
        let policy = self.settings.retention;
        let first = match policy.keep_s {
            0 => ArchiveId(0),
            keep_s => ArchiveId::first_at(host.wall().minus_s(keep_s)),
        };
        let ticket = self.ticket_for_itself(Waiting::Archive);
        let op = StoreOp::SweepArchives {
            place: std::mem::take(&mut self.archive_requests.sweep),
            retention: Retention {
                first,
                count_max: policy.messages_max,
            },
        };
        self.archive_requests
            .pending
            .insert(ticket.0, Pending::Sweep);
        host.store(ticket, op);
    }

    /// Storage has made a step.
    pub(crate) fn on_swept(&mut self, host: &mut impl Host, reply: StoreReply) {
        let swept = match reply {
            StoreReply::Swept(swept) => *swept,
            reply => {
                tracing::error!(?reply, "archives were not searched for what is too old");
                Swept::default()
            }
        };
        if let Some((account, up_to)) = swept.excess {
            let ticket = self.ticket_for_itself(Waiting::Nothing);
            host.store(ticket, StoreOp::PurgeArchive { account, up_to });
        }
        let pause = match &swept.next {
            Some(_) => STEP_MS,
            None => ROUND_MS,
        };
        self.archive_requests.sweep = swept.next.unwrap_or_default();
        let at = host.now().plus_ms(pause);
        self.arm(host, at, Timer::Retention);
    }
}
