//! Errors of the queue that storage does not have yet: it is asked for them again.
//!
//! Invariant: each has its place, and places ascend along the queue, so that it is in order in
//! storage whenever it gets there.

use super::{Acks, Keep, Sent};
use crate::host::{ConnId, Host, Timestamp};
use crate::port::QueuePlace;

/// An error on its way to its place.
#[derive(Debug)]
pub(crate) struct Later {
    pub place: QueuePlace,
    /// Its number on the wire.
    pub number: u32,
    pub arrived: Timestamp,
    pub bytes: Box<[u8]>,
}

impl Acks {
    /// Storage will not have what is at a place; the client gets it all the same. No number is
    /// committed before an error is stored, which [`Acks::take_later`] has tried again.
    pub(crate) fn unstored_at(&mut self, host: &mut impl Host, conn: Option<ConnId>, place: u64) {
        if let Some(index) = self.place_of(place) {
            let sent = &mut self.queue[index];
            sent.keep = match sent.is_vital {
                true => Keep::Later(place),
                false => Keep::Memory,
            };
            sent.write = None;
            self.flush(host, conn);
        }
    }

    /// What waited is in the queue: errors that came meanwhile get places behind it, which nothing
    /// else did.
    pub(super) fn place_behind(&mut self, index: usize) {
        for sent in self.queue.range_mut(index..) {
            if sent.is_vital && sent.keep == Keep::Memory {
                self.last_place += 1;
                sent.keep = Keep::Later(self.last_place);
            }
        }
    }

    /// Takes the oldest that storage is to have, until so many or so many bytes are taken: they are
    /// on their way from here on. Whether there are more.
    pub(crate) fn take_later(&mut self, count: &mut usize, size: &mut usize) -> (Vec<Later>, bool) {
        let mut taken = Vec::new();
        if self.vital == 0 {
            return (taken, false);
        }
        let (session, acked, is_uncounted) = (self.id, self.acked, self.is_uncounted());
        for (sent, index) in self.queue.iter_mut().zip(1_u32..) {
            let Keep::Later(place) = sent.keep else {
                continue;
            };
            if *count == 0 || *size == 0 {
                return (taken, true);
            }
            *count -= 1;
            *size = size.saturating_sub(sent.bytes.len());
            sent.keep = Keep::Queue(place);
            let number = acked.wrapping_add(index);
            taken.push(Later {
                place: QueuePlace {
                    session,
                    place,
                    number: (!is_uncounted).then_some(number),
                },
                number,
                arrived: sent.arrived,
                bytes: sent.bytes.clone(),
            });
        }
        (taken, false)
    }

    /// Storage has one of those, which had this number then, or refuses it once more.
    pub(crate) fn answered_at(&mut self, place: u64, number: u32, is_stored: bool) {
        let is_it = |sent: &Sent| sent.keep == Keep::Queue(place);
        // Mostly nothing before it was refused meanwhile.
        let index = number.wrapping_sub(self.acked).wrapping_sub(1) as usize;
        let index = match self.queue.get(index).is_some_and(is_it) {
            true => Some(index),
            false => self.queue.iter().position(is_it),
        };
        // Its client may have acknowledged it meanwhile.
        let Some(index) = index else { return };
        let sent = &mut self.queue[index];
        match is_stored {
            true => self.vital -= u32::from(std::mem::take(&mut sent.is_vital)),
            false => sent.keep = Keep::Later(place),
        }
    }
}
