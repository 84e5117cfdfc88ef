//! The client's side of stream management (XEP-0198): what it sent, what the server answered for
//! and how long that took, and what the server sent.

use std::collections::VecDeque;

use crate::body::Mark;
use crate::scan;
use crate::scenario::Action;

/// The namespace of XEP-0198.
pub const XMLNS: &str = "urn:xmpp:sm:3";
/// Stanzas that a client keeps: with so many that are not acknowledged it begins nothing more.
pub const KEPT_MAX: usize = 1024;
/// Places for them that a client has ready while it keeps none.
const KEPT_READY: usize = 8;

/// What a client keeps of a stanza until it is acknowledged, to send it again if it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A measured one, of so many bytes: it is a function of its mark, and written anew.
    Marked {
        /// What it is.
        action: Action,
        /// Bytes in all.
        size: u32,
        /// What it carries.
        mark: Mark,
    },
    /// Any other, as it was written.
    Whole(Box<[u8]>),
}

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
    /// The server's name for the session (its SM-ID), where it is to be resumed.
    id: Option<Box<str>>,
    /// Where it is: the stanzas that are not acknowledged, in order.
    kept: VecDeque<Kept>,
}

impl Acks {
    /// Those of a session that will be resumed under this name.
    pub fn of_session(id: &str) -> Acks {
        Acks {
            id: Some(id.into()),
            ..Acks::default()
        }
    }

    /// What the server calls the session, where it is to be resumed.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Keeps the stanza that was counted last, where the session is to be resumed.
    pub fn keep(&mut self, stanza: impl FnOnce() -> Kept) {
        if self.id.is_some() {
            self.kept.push_back(stanza());
        }
    }

    /// What is sent again when the session is resumed, in order.
    pub fn kept(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter()
    }

    /// Whether one more can be kept.
    pub fn has_room(&self) -> bool {
        self.kept.len() < KEPT_MAX
    }

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

    /// Asks for the session on another connection.
    pub fn resume(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("<resume xmlns='{XMLNS}' previd='").as_bytes());
        scan::escape(self.id.as_deref().unwrap_or_default(), out);
        out.extend_from_slice(format!("' h='{}'/>", self.received).as_bytes());
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
        self.kept.drain(..self.kept.len().min(more as usize));
        if self.kept.is_empty() {
            self.kept.shrink_to(KEPT_READY);
        }
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
    fn what_is_not_acknowledged_is_kept_in_order_and_sent_again() {
        let whole = |text: &str| Kept::Whole(text.as_bytes().into());
        let mut acks = Acks::of_session("a'b");
        for number in 0..KEPT_MAX {
            assert!(acks.has_room(), "{number}");
            acks.send(1);
            acks.keep(|| whole(&number.to_string()));
        }
        assert!(!acks.has_room());
        acks.receive();
        acks.on_answer(KEPT_MAX as u32 - 2, |_| ()).unwrap();
        let left = [KEPT_MAX - 2, KEPT_MAX - 1].map(|number| whole(&number.to_string()));
        assert!(acks.kept().eq(&left) && acks.has_room());
        assert!(acks.on_answer(KEPT_MAX as u32 + 1, |_| ()).is_err());
        assert!(acks.kept().eq(&left), "a false answer takes nothing away");
        let mut out = Vec::new();
        acks.resume(&mut out);
        let asked = "<resume xmlns='urn:xmpp:sm:3' previd='a&apos;b' h='1'/>";
        assert_eq!(String::from_utf8(out).unwrap(), asked);
        acks.on_answer(KEPT_MAX as u32, |_| ()).unwrap();
        assert_eq!(acks.kept().count(), 0);
        assert!(acks.kept.capacity() < KEPT_MAX, "it gives memory back");
        assert!(
            size_of::<Kept>() <= 40,
            "docs/LOADGEN.md says what a client costs"
        );
        // Who is not to be resumed keeps nothing.
        let mut acks = Acks::default();
        acks.send(1);
        acks.keep(|| unreachable!("it is kept"));
        assert!(acks.has_room() && acks.id().is_none());
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
