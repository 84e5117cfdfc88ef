//! What a connection remembers of the file that comes or goes over it.
//!
//! Invariant: it holds less than one piece; what is behind the file's last byte is not looked at.

use crate::uploads::{CHUNK_SIZE, CHUNKS_AHEAD};
use std::mem;
use xmpp::Timestamp;

/// How long nothing may move of a file that is not whole, in milliseconds.
const IDLE_MS_MAX: u64 = 60_000;
/// How slow a file may be, in bytes per millisecond; that long it may take, and [`IDLE_MS_MAX`].
const SLOWEST: u64 = 1;

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
            moved: Timestamp(0),
            until: Timestamp(0),
        }
    }

    /// It begins.
    pub fn begin(&mut self, size: u64, now: Timestamp) {
        self.moved = now;
        let longest_ms = (size / SLOWEST).saturating_add(IDLE_MS_MAX);
        // A century is as good as any time that is too long for a clock.
        self.until = now.plus_ms(longest_ms.min(100 * 365 * 86_400_000));
    }

    /// Something moved.
    pub fn note(&mut self, now: Timestamp) {
        self.moved = now;
    }

    /// When it has to be looked at again; it is too slow where that is over.
    pub fn deadline(&self) -> Timestamp {
        self.moved.plus_ms(IDLE_MS_MAX).min(self.until)
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
    pub fn relieve(&mut self) -> bool {
        self.ahead = self.ahead.saturating_sub(1);
        !self.is_full()
    }

    /// Whether its client is to be told to go on, once: not one that did not wait for it.
    pub fn may_be_told(&mut self) -> bool {
        mem::take(&mut self.expects) && !self.has_come
    }

    /// Another piece is for its client.
    pub fn owe(&mut self) {
        self.owed += 1;
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
        assert!(transfer.relieve());
        assert!(transfer.take(&mut &*piece).is_some());
        assert!(transfer.is_full());
        assert!(transfer.relieve() && transfer.relieve());
    }

    #[test]
    fn what_does_not_move_or_is_too_slow_has_an_end() {
        let mut transfer = Transfer::new(1_000, false);
        transfer.begin(1_000, Timestamp(0));
        assert_eq!(transfer.deadline(), Timestamp(0).plus_ms(IDLE_MS_MAX));
        transfer.note(Timestamp(0).plus_ms(50_000));
        assert_eq!(transfer.deadline(), Timestamp(0).plus_ms(61_000));
    }
}
