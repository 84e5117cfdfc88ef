//! What waits for storage in the queue of a session that storage does not have.

use super::{Acks, Keep, Sent};
use crate::host::{ConnId, Host, Ticket, Timestamp};

impl Acks {
    /// Queues a stanza until storage has what it says.
    pub(crate) fn send_after(&mut self, bytes: &[u8], arrived: Timestamp, until: Ticket) {
        // Behind all before it, whatever the clock says.
        let last = self.queue.back().map(|sent| sent.arrived);
        let arrived = arrived.max(last.unwrap_or_default());
        self.push(Sent {
            write: Some(until),
            ..Sent::new(bytes.into(), Keep::Memory, arrived)
        });
    }

    /// Storage has answered: what waited for that may be written as `change` says, or is left out.
    pub(crate) fn settle_after(
        &mut self,
        host: &mut impl Host,
        conn: Option<ConnId>,
        until: Ticket,
        change: &impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) {
        let waits = |sent: &Sent| sent.write == Some(until) && sent.keep == Keep::Memory;
        if let Some(behind) = self.queue.range(self.written..).position(waits) {
            let index = self.written + behind;
            let sent = &mut self.queue[index];
            sent.write = None;
            self.size -= sent.bytes.len();
            match change(&sent.bytes) {
                Some(bytes) => {
                    self.size += bytes.len();
                    sent.bytes = bytes.into();
                }
                None => drop(self.queue.remove(index)),
            }
        }
        self.flush(host, conn);
    }

    /// Storage will not have the copy at a place of the queue, nor the id that it shows: changes
    /// what it says.
    pub(crate) fn change_at(&mut self, place: u64, change: impl Fn(&[u8]) -> Vec<u8>) {
        let index = self.place_of(place);
        if let Some(sent) = index.and_then(|index| self.queue.get_mut(index)) {
            self.size -= sent.bytes.len();
            sent.bytes = change(&sent.bytes).into();
            self.size += sent.bytes.len();
        }
    }
}
