//! What is for a client without stream management and waits for storage: a message whose id its
//! archive does not have yet, and all that comes behind it.
//!
//! Invariant: the first in a gate waits for storage; an open gate is none.

use crate::host::{Host, Ticket};
use crate::session::{Modes, SessionKey, Sessions};
use std::collections::VecDeque;

/// Stanzas in one gate; a session with more ends.
pub const GATED_MAX: usize = 4_000;

/// Their bytes.
pub const GATED_SIZE_MAX: usize = 4 << 20;

/// What waits for one session, in order.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    waiting: VecDeque<(Option<Ticket>, Vec<u8>)>,
    size: usize,
}

impl Gate {
    fn push(&mut self, until: Option<Ticket>, stanza: Vec<u8>) {
        self.size += stanza.len();
        self.waiting.push_back((until, stanza));
    }

    fn has_overflowed(&self) -> bool {
        self.waiting.len() > GATED_MAX || self.size > GATED_SIZE_MAX
    }

    /// What one write was waited for with: goes on, changed by `change`, or is left out.
    fn settle(&mut self, until: Ticket, change: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        let mut waiting = self.waiting.iter_mut();
        if let Some((waits, stanza)) = waiting.find(|(waits, _)| *waits == Some(until)) {
            *waits = None;
            self.size -= stanza.len();
            *stanza = change(stanza).unwrap_or_default();
            self.size += stanza.len();
        }
    }

    /// The next that waits for nothing any more.
    fn pop(&mut self) -> Option<Vec<u8>> {
        let (_, stanza) = self.waiting.pop_front_if(|(until, _)| until.is_none())?;
        self.size -= stanza.len();
        Some(stanza)
    }
}

impl Sessions {
    /// Has a stanza wait for storage on its way to a session that has no queue there.
    pub(crate) fn send_after(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        stanza: &[u8],
        until: Ticket,
    ) {
        self.release_held(host, key);
        let wall = host.wall();
        let session = self.at_mut(key);
        if let Some(acks) = &mut session.outlet.acks {
            acks.send_after(stanza, wall, until);
            return;
        }
        session.modes.set(Modes::IS_GATED, true);
        self.gates
            .entry(key)
            .or_default()
            .push(Some(until), stanza.to_vec());
        self.note_full_gate(key);
    }

    /// Whether what a session is sent waits behind something. What comes since stream management
    /// was enabled waits in its queue.
    pub(crate) fn is_gated(&self, key: SessionKey) -> bool {
        let session = self.at(key);
        session.modes.has(Modes::IS_GATED) && session.outlet.acks.is_none()
    }

    /// Puts a stanza behind those that wait.
    pub(crate) fn push_gated(&mut self, key: SessionKey, stanza: Vec<u8>) {
        if let Some(gate) = self.gates.get_mut(&key) {
            gate.push(None, stanza);
        }
        self.note_full_gate(key);
    }

    fn note_full_gate(&mut self, key: SessionKey) {
        if self.has_full_gate(key) {
            self.overflowed.push(key);
        }
    }

    /// Whether more waits for storage on its way to a session than may.
    pub(crate) fn has_full_gate(&self, key: SessionKey) -> bool {
        self.gates.get(&key).is_some_and(Gate::has_overflowed)
    }

    /// Storage has answered: what waited for that goes to its client as `change` says, and what is
    /// behind it.
    pub(crate) fn open_gate(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        until: Ticket,
        change: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) {
        let session = self.at_mut(key);
        let conn = session.outlet.conn;
        if let Some(acks) = &mut session.outlet.acks {
            acks.settle_after(host, conn, until, &change);
        }
        let Some(gate) = self.gates.get_mut(&key) else {
            return;
        };
        gate.settle(until, &change);
        let mut free = Vec::new();
        while let Some(stanza) = gate.pop() {
            free.push(stanza);
        }
        if gate.waiting.is_empty() {
            self.gates.remove(&key);
            self.at_mut(key).modes.set(Modes::IS_GATED, false);
        }
        for stanza in free {
            self.at_mut(key).outlet.send_past(host, &stanza);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_one_that_waits_waits_and_comes_in_its_order() {
        let mut gate = Gate::default();
        gate.push(Some(Ticket(1)), b"a".to_vec());
        gate.push(None, b"b".to_vec());
        gate.push(Some(Ticket(2)), b"c".to_vec());
        assert_eq!(gate.pop(), None);
        gate.settle(Ticket(2), |stanza| Some(stanza.to_vec()));
        assert_eq!(gate.pop(), None);
        gate.settle(Ticket(1), |_| None);
        let all: Vec<_> = std::iter::from_fn(|| gate.pop()).collect();
        assert_eq!(all, [b"".to_vec(), b"b".to_vec(), b"c".to_vec()]);
        assert_eq!(gate.size, 0);
    }

    #[test]
    fn a_gate_has_room_for_so_many_stanzas_and_so_many_bytes() {
        let mut gate = Gate::default();
        for _ in 0..GATED_MAX {
            gate.push(Some(Ticket(1)), vec![0]);
        }
        assert!(!gate.has_overflowed());
        gate.push(None, vec![0]);
        assert!(gate.has_overflowed());
        let mut gate = Gate::default();
        gate.push(Some(Ticket(1)), vec![0; GATED_SIZE_MAX]);
        assert!(!gate.has_overflowed());
        gate.push(None, vec![0]);
        assert!(gate.has_overflowed());
    }
}
