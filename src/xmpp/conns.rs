//! The streams of the connections that are on one shard, by the slots of their connections.
//!
//! Invariant: a slot has one user; a stream that is worked on is out of its slot.

use crate::host::ConnId;
use crate::stream::StreamState;

/// The streams of the connections that are on this shard.
#[derive(Debug, Default)]
pub(crate) struct Conns {
    slots: Vec<(u32, Option<Box<StreamState>>)>,
    count: usize,
}

impl Conns {
    /// Has room for so many.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.slots.reserve_exact(count);
    }

    /// Takes a stream out to work on it; [`Conns::put`] brings it back.
    pub(crate) fn take(&mut self, conn: ConnId) -> Option<Box<StreamState>> {
        let (generation, stream) = self.slots.get_mut(conn.index as usize)?;
        if *generation != conn.generation {
            return None;
        }
        let stream = stream.take()?;
        self.count -= 1;
        Some(stream)
    }

    /// A stream that nobody works on.
    pub(crate) fn peek(&self, conn: ConnId) -> Option<&StreamState> {
        let (generation, stream) = self.slots.get(conn.index as usize)?;
        stream.as_deref().filter(|_| *generation == conn.generation)
    }

    pub(crate) fn put(&mut self, conn: ConnId, stream: Box<StreamState>) {
        let index = conn.index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || (0, None));
        }
        debug_assert!(self.slots[index].1.is_none(), "a slot has one user");
        self.slots[index] = (conn.generation, Some(stream));
        self.count += 1;
    }

    /// How many streams there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The connections of all streams.
    pub(crate) fn all(&self) -> Vec<ConnId> {
        let live = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.1.is_some());
        live.map(|(index, slot)| ConnId {
            index: index as u32,
            generation: slot.0,
        })
        .collect()
    }
}
