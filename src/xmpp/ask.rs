//! XEP-0198 4: clients are asked to acknowledge the last messages that they were sent, too.
//!
//! Invariant: a session that has a connection, and was sent a message and not asked since, is in
//! [`Asking`] once.

use crate::host::{Host, Timestamp};
use crate::session::{Outlet, SessionKey, Sessions};
use crate::shard::{Shard, Timer};
use std::collections::VecDeque;

/// Milliseconds after which a client is asked for a message, unless others had it asked before.
const ASK_MS: u64 = 5_000;

/// Sessions whose clients are to be asked, each once: there are no more than sessions in
/// [`ASK_MS`].
#[derive(Debug, Default)]
pub(crate) struct Asking {
    /// When, whom, and its serial, in the order of time: all wait equally long.
    queue: VecDeque<(Timestamp, SessionKey, u32)>,
    /// Whether [`Timer::Asking`] is to come.
    is_armed: bool,
}

impl Sessions {
    /// A session may have been sent what would come again if nobody ever asked for it.
    #[inline]
    pub(crate) fn ask_later(&mut self, host: &impl Host, key: SessionKey) {
        let session = self.at_mut(key);
        if let (Some(_), Some(acks)) = (session.outlet.conn, &mut session.outlet.acks)
            && acks.begins_asking()
        {
            let due = host.now().plus_ms(ASK_MS);
            let serial = session.serial;
            self.asking.queue.push_back((due, key, serial));
        }
    }
}

impl Shard {
    /// One timer is enough: nobody is due before the first.
    pub(crate) fn arm_asking(&mut self, host: &mut impl Host) {
        let asking = &mut self.sessions.asking;
        if asking.is_armed {
            return;
        }
        if let Some(&(due, ..)) = asking.queue.front() {
            asking.is_armed = true;
            self.arm(host, due, Timer::Asking);
        }
    }

    /// The time to ask has come; some of the sessions may have ended.
    pub(crate) fn on_asking(&mut self, host: &mut impl Host) {
        self.sessions.asking.is_armed = false;
        let now = host.now();
        let is_due = |(due, ..): &mut (Timestamp, SessionKey, u32)| *due <= now;
        while let Some((_, key, serial)) = self.sessions.asking.queue.pop_front_if(is_due) {
            if let Some(session) = self.session_of(key, serial)
                && let Outlet { conn, acks } = &mut session.outlet
                && let Some(acks) = acks
            {
                acks.ask(host, *conn);
            }
        }
    }
}
