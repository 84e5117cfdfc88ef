//! What a connection remembers of the file that comes or goes over it.
//!
//! Invariant: it holds less than one piece; what is behind the file's last byte is not looked at.

use crate::uploads::{CHUNK_SIZE, CHUNKS_AHEAD};
use std::mem;
use xmpp::Timestamp;

/// How long nothing may move of a file that comes, in milliseconds.
const IDLE_MS_MAX: u64 = 60_000;
/// How long nothing may move of one that goes: the kernel takes more only when a third of what it
/// holds is with the client, which may be more than a megabyte.
const IDLE_AWAY_MS_MAX: u64 = 300_000;
/// How slow a file may be, in bytes per millisecond; that long it may take, and as long as nothing
/// may move. What waits for the disk is not slow.
const SLOWEST: u64 = 1;
/// How long the disk may take for a piece.
const DISK_MS_MAX: u64 = 600_000;

/// A file that comes or goes.
#[derive(Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes that are still to come.
    left: u64,
    /// What came and is not handed on.
    chunk: Vec<u8>,
    /// Whether its client waits to be told to go on.
    expects: bool,
    /// Whether some of it came.
    has_come: bool,
    /// Pieces on their way to the disk; that it may begin counts as one.
    ahead: u32,
    /// Pieces on their way to the client.
    owed: u32,
    /// Whether the last of those is among them, or written.
    is_answered: bool,
    /// Whether it comes, or goes.
    comes: bool,
    /// When something moved, and when all has to be over.
    moved: Timestamp,
    until: Timestamp,
}

impl Transfer {
    /// One of which so many bytes will come.
    pub fn new(left: u64, expects: bool) -> Transfer {
        Transfer {
            left,
            chunk: Vec::new(),
            expects,
            has_come: false,
            ahead: u32::from(left > 0),
            owed: 0,
            is_answered: false,
            comes: left > 0,
            moved: Timestamp(0),
            until: Timestamp(0),
        }
    }

    /// How long nothing may move.
    fn idle_ms(&self) -> u64 {
        match self.comes {
            true => IDLE_MS_MAX,
            false => IDLE_AWAY_MS_MAX,
        }
    }

    /// It begins; so much comes.
    pub fn begin(&mut self, size: u64, now: Timestamp) {
        self.moved = now;
        let longest_ms = (size / SLOWEST).saturating_add(self.idle_ms());
        // A century is as good as any time that is too long for a clock.
        self.until = now.plus_ms(longest_ms.min(100 * 365 * 86_400_000));
    }

    /// Something moved. The time that the disk took is not the client's.
    pub fn note(&mut self, now: Timestamp) {
        if self.waits_for_disk() {
            let waited_us = now.0.saturating_sub(self.moved.0);
            self.until = Timestamp(self.until.0.saturating_add(waited_us));
        }
        self.moved = now;
    }

    /// So much of a file that goes was taken: its client has earned the time for that.
    pub fn note_sent(&mut self, size: u64, now: Timestamp) {
        self.moved = now;
        if !self.comes {
            self.until = self.until.plus_ms(size / SLOWEST);
        }
    }

    /// Whether the next step is the keeper's, not the client's.
    fn waits_for_disk(&self) -> bool {
        !self.is_answered && self.owed == 0 && self.is_full()
    }

    /// When it is too slow.
    pub fn deadline(&self) -> Timestamp {
        match self.waits_for_disk() {
            true => self.moved.plus_ms(DISK_MS_MAX),
            false => self.moved.plus_ms(self.idle_ms()).min(self.until),
        }
    }

    /// When it has to be looked at again: no later than it could be too slow after its next step.
    pub fn look_at(&self, now: Timestamp) -> Timestamp {
        self.deadline().min(now.plus_ms(self.idle_ms()))
    }

    /// Takes what is the file's off the front of `bytes`; gives a piece that is full, or the last.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Option<Vec<u8>> {
        let room = CHUNK_SIZE - self.chunk.len();
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let (taken, rest) = bytes.split_at(bytes.len().min(room).min(left));
        if self.chunk.capacity() == 0 && !taken.is_empty() {
            self.chunk.reserve_exact(CHUNK_SIZE.min(left));
        }
        self.has_come |= !taken.is_empty();
        self.chunk.extend_from_slice(taken);
        self.left -= taken.len() as u64;
        *bytes = rest;
        if self.left == 0 {
            *bytes = &[];
        }
        let is_due = self.chunk.len() == CHUNK_SIZE || self.left == 0;
        if !is_due || self.chunk.is_empty() {
            return None;
        }
        self.ahead += 1;
        Some(mem::take(&mut self.chunk))
    }

    /// Whether nothing more is to be read from its client now.
    pub fn is_full(&self) -> bool {
        self.left == 0 || self.ahead >= CHUNKS_AHEAD
    }

    /// The keeper has one piece less before it; whether its client may go on.
    pub fn relieve(&mut self, now: Timestamp) -> bool {
        self.note(now);
        self.ahead = self.ahead.saturating_sub(1);
        !self.is_full()
    }

    /// Whether its client is to be told to go on, once: not one that did not wait for it.
    pub fn may_be_told(&mut self) -> bool {
        mem::take(&mut self.expects) && !self.has_come
    }

    /// Another piece is for its client, and perhaps the last.
    pub fn owe(&mut self, is_last: bool, now: Timestamp) {
        self.note(now);
        self.owed += 1;
        if is_last {
            self.is_answered = true;
            self.stop();
        }
    }

    /// Whether all that its client gets was said.
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// All pieces are written: how many.
    pub fn settle(&mut self) -> u32 {
        mem::take(&mut self.owed)
    }

    /// Nothing more is read or handed on.
    pub fn stop(&mut self) {
        (self.left, self.chunk) = (0, Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_into_full_pieces_and_a_last_one_however_it_comes() {
        let size = 2 * CHUNK_SIZE + 10;
        let file: Vec<u8> = (0..size + 5).map(|index| index as u8).collect();
        for step in [1000, CHUNK_SIZE - 1, CHUNK_SIZE + 1, size + 5] {
            let mut transfer = Transfer::new(size as u64, false);
            let mut pieces = Vec::new();
            for mut bytes in file.chunks(step) {
                while !bytes.is_empty() {
                    pieces.extend(transfer.take(&mut bytes));
                }
            }
            let sizes: Vec<usize> = pieces.iter().map(Vec::len).collect();
            assert_eq!(sizes, [CHUNK_SIZE, CHUNK_SIZE, 10], "{step}");
            assert_eq!(pieces.concat(), file[..size]);
            assert!(transfer.is_full());
        }
    }

    #[test]
    fn reading_rests_while_the_disk_is_behind() {
        let mut transfer = Transfer::new(10 * CHUNK_SIZE as u64, false);
        let piece = vec![0; CHUNK_SIZE];
        assert!(!transfer.is_full());
        assert!(transfer.take(&mut &*piece).is_some());
        assert!(transfer.is_full(), "it may not have begun");
        let now = Timestamp(0);
        assert!(transfer.relieve(now));
        assert!(transfer.take(&mut &*piece).is_some());
        assert!(transfer.is_full());
        assert!(transfer.relieve(now) && transfer.relieve(now));
    }

    #[test]
    fn what_does_not_move_or_is_too_slow_has_an_end() {
        let mut transfer = Transfer::new(1_000, false);
        transfer.begin(1_000, Timestamp(0));
        assert_eq!(transfer.deadline(), Timestamp(0).plus_ms(IDLE_MS_MAX));
        transfer.note(Timestamp(0).plus_ms(50_000));
        assert_eq!(transfer.deadline(), Timestamp(0).plus_ms(61_000));
    }

    #[test]
    fn what_waits_for_the_disk_is_not_slow() {
        let at = |ms| Timestamp(0).plus_ms(ms);
        let mut transfer = Transfer::new(10, false);
        transfer.begin(10, at(0));
        assert!(transfer.take(&mut &[0; 10][..]).is_some());
        transfer.note(at(10));
        assert_eq!(transfer.deadline(), at(10 + DISK_MS_MAX));
        assert_eq!(transfer.look_at(at(10)), at(10 + IDLE_MS_MAX));
        transfer.owe(true, at(100_000));
        // What is left to do is its client's, who has his own time for it.
        assert_eq!(transfer.deadline(), at(100_000 + IDLE_MS_MAX));
    }

    #[test]
    fn who_takes_a_file_slowly_and_steadily_gets_it() {
        let mut transfer = Transfer::new(0, false);
        let at = |ms| Timestamp(0).plus_ms(ms);
        transfer.begin(0, at(0));
        transfer.owe(false, at(0));
        for step in 1..100 {
            transfer.note_sent(2 * 60_000, at(step * 60_000));
            assert!(transfer.deadline() > at((step + 1) * 60_000), "{step}");
        }
        // One that takes a byte now and then does not.
        for step in 100..1_000 {
            transfer.note_sent(1, at(step * 60_000));
        }
        assert!(transfer.deadline() < at(1_000 * 60_000));
    }
}
