//! The client's side of stream management (XEP-0198): what it sent, what the server answered for
//! and how long that took, and what the server sent.

use std::collections::VecDeque;

/// The namespace of XEP-0198.
pub const XMLNS: &str = "urn:xmpp:sm:3";

/// The counters of one managed stream; all wrap as the specification says.
#[derive(Debug, Default)]
pub struct Acks {
    /// Stanzas sent since `<enable/>`.
    sent: u32,
    /// Of these, what the server acknowledged.
    acked: u32,
    /// Stanzas received since `<enabled/>`.
    received: u32,
    /// What was sent when acknowledgement was last asked for.
    asked: u32,
    /// The open requests: what was sent up to each, and when it was asked for.
    open: VecDeque<(u32, u64)>,
}

impl Acks {
    /// So many stanzas went out.
    pub fn send(&mut self, stanzas: u32) {
        self.sent = self.sent.wrapping_add(stanzas);
    }

    /// A stanza came in.
    pub fn receive(&mut self) {
        self.received = self.received.wrapping_add(1);
    }

    /// Stanzas sent since acknowledgement was last asked for.
    pub fn unasked(&self) -> u32 {
        self.sent.wrapping_sub(self.asked)
    }

    /// Stanzas sent and not acknowledged.
    pub fn unacked(&self) -> u32 {
        self.sent.wrapping_sub(self.acked)
    }

    /// Requests that are not answered in full.
    pub fn open(&self) -> u64 {
        self.open.len() as u64
    }

    /// Asks for acknowledgement of everything sent.
    pub fn ask(&mut self, now: u64, out: &mut Vec<u8>) {
        self.asked = self.sent;
        self.open.push_back((self.sent, now));
        out.extend_from_slice(b"<r xmlns='");
        out.extend_from_slice(XMLNS.as_bytes());
        out.extend_from_slice(b"'/>");
    }

    /// Says what came in.
    pub fn answer(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("<a xmlns='{XMLNS}' h='{}'/>", self.received).as_bytes());
    }

    /// The server answers for its first `h` stanzas; calls `settled` with the time of each request
    /// that this fulfils.
    ///
    /// # Errors
    /// It answers for more than was sent, or for less than before.
    pub fn on_answer(&mut self, h: u32, mut settled: impl FnMut(u64)) -> Result<(), String> {
        let more = h.wrapping_sub(self.acked);
        if more > self.unacked() {
            return Err(format!(
                "the server acknowledged {h} of {} stanzas, after {}",
                self.sent, self.acked
            ));
        }
        self.acked = h;
        while let Some((upto, at)) = self.open.front().copied() {
            if upto.wrapping_sub(h) as i32 > 0 {
                break;
            }
            settled(at);
            self.open.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_settled_by_the_answer_that_covers_it() {
        let mut acks = Acks::default();
        let mut out = Vec::new();
        acks.send(3);
        acks.ask(10, &mut out);
        acks.send(2);
        acks.ask(20, &mut out);
        let mut times = Vec::new();
        acks.on_answer(2, |at| times.push(at)).unwrap();
        assert_eq!((times.len(), acks.open(), acks.unacked()), (0, 2, 3));
        acks.on_answer(4, |at| times.push(at)).unwrap();
        assert_eq!(times, [10]);
        acks.on_answer(5, |at| times.push(at)).unwrap();
        assert_eq!((times, acks.open(), acks.unacked()), (vec![10, 20], 0, 0));
        assert!(acks.on_answer(6, |_| ()).is_err(), "more than was sent");
        assert!(acks.on_answer(4, |_| ()).is_err(), "less than before");
    }

    #[test]
    fn the_counters_wrap() {
        let mut acks = Acks {
            sent: u32::MAX,
            acked: u32::MAX,
            asked: u32::MAX,
            received: u32::MAX,
            ..Acks::default()
        };
        let mut out = Vec::new();
        acks.receive();
        acks.answer(&mut out);
        assert_eq!(out, b"<a xmlns='urn:xmpp:sm:3' h='0'/>");
        acks.send(2);
        out.clear();
        acks.ask(7, &mut out);
        assert_eq!(out, b"<r xmlns='urn:xmpp:sm:3'/>");
        assert_eq!((acks.unasked(), acks.unacked()), (0, 2));
        acks.on_answer(1, |at| assert_eq!(at, 7)).unwrap();
        assert_eq!((acks.unacked(), acks.open()), (0, 0));
    }
}
