//! How a shard learns that something waits for it in a lane, and how it is woken.
//!
//! Invariant: who publishes sets a bit and then looks whether the shard sleeps; the shard says
//! that it sleeps and then looks at the bits. Both in one total order, so no wake-up is lost.

use crossbeam::utils::CachePadded;
use ring::{Op, Ring, Token};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// One shard's bell.
pub(crate) struct Doorbell {
    descriptor: OnceLock<OwnedFd>,
    shards: usize,
    sleeping: CachePadded<AtomicBool>,
    posted: Box<[CachePadded<AtomicU64>]>,
}

/// Who rings besides the siblings, counted behind them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller {
    /// The storage thread.
    Storage = 0,
    /// The derivation threads.
    Derive = 1,
    /// The administrator, or the end of the process.
    Control = 2,
    /// The keeper of files.
    Uploads = 3,
}

impl Caller {
    const COUNT: usize = 4;

    /// The bit of this caller among `shards` siblings.
    pub(crate) fn bit(self, shards: usize) -> usize {
        shards + self as usize
    }
}

impl Doorbell {
    pub(crate) fn new(shards: usize) -> Doorbell {
        let words = (shards + Caller::COUNT).div_ceil(64);
        Doorbell {
            descriptor: OnceLock::new(),
            shards,
            sleeping: CachePadded::new(AtomicBool::new(false)),
            posted: (0..words)
                .map(|_| CachePadded::new(AtomicU64::new(0)))
                .collect(),
        }
    }

    /// The shard's ring is up.
    pub(crate) fn hang(&self, descriptor: OwnedFd) {
        assert!(
            self.descriptor.set(descriptor).is_ok(),
            "a shard has one ring"
        );
    }

    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.descriptor.get().map(AsRawFd::as_raw_fd)
    }

    /// Says that caller `bit` published something that is no reason to wake the shard.
    pub(crate) fn mark(&self, bit: usize) {
        self.posted[bit / 64].fetch_or(1 << (bit % 64), Ordering::SeqCst);
    }

    /// Says that caller `bit` published something; `true` where the shard has to be woken.
    pub(crate) fn post(&self, bit: usize) -> bool {
        let mask = 1 << (bit % 64);
        let word = &self.posted[bit / 64];
        // What was published must be visible before the bit is looked at: where it is set already,
        // the shard that is about to take it sees the news too.
        fence(Ordering::SeqCst);
        if word.load(Ordering::SeqCst) & mask == 0 {
            word.fetch_or(mask, Ordering::SeqCst);
        }
        self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst)
    }

    /// The same from a thread with a ring.
    pub(crate) fn post_from(&self, bit: usize, ring: &mut Ring) {
        if self.post(bit)
            && let Some(descriptor) = self.descriptor()
        {
            ring.ring_bell(descriptor, Token::new(Op::Bell, bit as u32, 0), 0);
        }
    }

    /// The same from a thread with nothing but a bell; where ringing fails the shard finds it at
    /// its next waking.
    pub(crate) fn post_with(&self, bit: usize, bell: &mut ring::Bell) {
        if self.post(bit)
            && let Some(descriptor) = self.descriptor()
            && let Err(error) = bell.ring(descriptor, Token::new(Op::Bell, bit as u32, 0))
        {
            tracing::warn!(%error, "a shard could not be woken");
        }
    }

    /// The shard takes the bits: whoever set one has something in its lane.
    pub(crate) fn take(&self, word: usize) -> u64 {
        match self.posted[word].load(Ordering::Relaxed) {
            0 => 0,
            _ => {
                let bits = self.posted[word].swap(0, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                bits
            }
        }
    }

    /// How many siblings have a bit of their own.
    pub(crate) fn shards(&self) -> usize {
        self.shards
    }

    pub(crate) fn words(&self) -> usize {
        self.posted.len()
    }

    /// The shard is about to sleep; `false` where something came, so that it must not.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        if self.is_posted() {
            self.wake_up();
            return false;
        }
        true
    }

    /// Whether something came that was not taken.
    pub(crate) fn is_posted(&self) -> bool {
        let mut words = self.posted.iter();
        words.any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// The shard is awake.
    pub(crate) fn wake_up(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sleeping_shard_is_rung_and_only_once() {
        let bell = Doorbell::new(70);
        assert!(!bell.post(3));
        assert!(!bell.fall_asleep(), "something is posted");
        assert_eq!((bell.take(0), bell.take(0)), (1 << 3, 0));
        assert!(bell.fall_asleep());
        assert!(bell.post(Caller::Control.bit(70)));
        assert!(!bell.post(69), "it was rung already");
        assert_eq!(bell.take(1), 1 << (72 - 64) | 1 << (69 - 64));
    }
}
