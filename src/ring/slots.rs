//! Direct descriptor slots, and the token that names an operation on one of them.
//!
//! Invariant: a token carries the generation of its slot's user, so that a completion which comes
//! after the slot changed hands is recognised as stale.

/// What kind of operation a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// A connection was accepted; the result is its slot.
    Accept = 1,
    /// Bytes came in, the peer closed (result 0), or the socket failed.
    Recv,
    /// A send ended; the result is the number of bytes taken.
    Send,
    /// A slot was freed.
    Close,
    /// A cancellation was tried.
    Cancel,
    /// A timeout ran out.
    Timeout,
    /// Another ring rang.
    Bell,
    /// A descriptor arrived from another ring; the result is its slot.
    Arrived,
    /// A descriptor left for another ring, or failed to (negative result).
    Sent,
    /// A connection attempt ended, at whatever step.
    Connect,
    /// The writing side was shut down.
    Shutdown,
    /// A descriptor became readable.
    Poll,
    /// The caller's own use.
    User,
}

impl Op {
    fn of(byte: u8) -> Option<Op> {
        const ALL: [Op; 13] = [
            Op::Accept,
            Op::Recv,
            Op::Send,
            Op::Close,
            Op::Cancel,
            Op::Timeout,
            Op::Bell,
            Op::Arrived,
            Op::Sent,
            Op::Connect,
            Op::Shutdown,
            Op::Poll,
            Op::User,
        ];
        ALL.get(usize::from(byte).wrapping_sub(1)).copied()
    }
}

/// Names one operation: its kind, its slot (or lane), and which user of the slot asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The kind.
    pub op: Op,
    /// The slot, or whatever index the caller chose for an operation without one.
    pub slot: u32,
    /// The user of the slot; 24 bits are kept.
    pub generation: u32,
}

impl Token {
    /// Bits of a generation that survive the way through the kernel.
    pub const GENERATION_MASK: u32 = 0xff_ffff;

    /// A token.
    pub fn new(op: Op, slot: u32, generation: u32) -> Token {
        Token {
            op,
            slot,
            generation: generation & Token::GENERATION_MASK,
        }
    }

    pub(crate) fn pack(self) -> u64 {
        (self.op as u64) << 56 | u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    pub(crate) fn unpack(data: u64) -> Option<Token> {
        let op = Op::of((data >> 56) as u8)?;
        let generation = (data >> 32) as u32 & Token::GENERATION_MASK;
        Some(Token {
            op,
            slot: data as u32,
            generation,
        })
    }
}

/// Chooses free slots of a ring whose owner names them itself (a client that connects). A ring
/// that accepts leaves the choice to the kernel; the two must not be mixed on one ring.
#[derive(Debug)]
pub struct Slots {
    free: Vec<u32>,
    next: u32,
    count: u32,
}

impl Slots {
    /// `count` slots, all free.
    pub fn new(count: u32) -> Slots {
        Slots {
            free: Vec::new(),
            next: 0,
            count,
        }
    }

    /// A free slot, or `None` where all are taken.
    pub fn take(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        if self.next == self.count {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// Gives a slot back, after its [`Op::Close`] completed.
    pub fn give(&mut self, slot: u32) {
        assert!(slot < self.next, "only a slot that was taken comes back");
        self.free.push(slot);
    }

    /// How many are taken.
    pub fn taken(&self) -> u32 {
        self.next - self.free.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_way_through_the_kernel() {
        for op in [Op::Accept, Op::Recv, Op::User] {
            let token = Token::new(op, 0xdead_beef, 0x12_34_56_78);
            assert_eq!(Token::unpack(token.pack()), Some(token));
            assert_eq!(token.generation, 0x34_56_78);
        }
        assert_eq!(Token::unpack(0), None);
        assert_eq!(Token::unpack(u64::MAX), None);
    }

    #[test]
    fn slots_run_out_and_come_back() {
        let mut slots = Slots::new(2);
        let (first, second) = (slots.take(), slots.take());
        assert_eq!((first, second, slots.take()), (Some(0), Some(1), None));
        slots.give(0);
        assert_eq!(
            (slots.taken(), slots.take(), slots.take()),
            (1, Some(0), None)
        );
    }
}
