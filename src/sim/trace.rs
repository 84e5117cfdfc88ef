//! What happened, as one number: two runs are the same if their traces are. With `SIM_TRACE` set
//! every event is printed, too: beside `SIM_SEED`, to see what led to a failure.

/// A running hash of every event with its time and bytes.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    prints: bool,
}

impl Trace {
    /// Before anything happened.
    pub(crate) fn new() -> Trace {
        Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            prints: std::env::var_os("SIM_TRACE").is_some(),
        }
    }

    /// Notes an event.
    pub(crate) fn note(&mut self, what: &str, at: u64, who: u64, bytes: &[u8]) {
        self.events += 1;
        if self.prints {
            let text = String::from_utf8_lossy(bytes);
            eprintln!("{at} {what} {who} {text}");
        }
        self.mix(what.as_bytes());
        self.mix(&at.to_le_bytes());
        self.mix(&who.to_le_bytes());
        self.mix(bytes);
    }

    fn mix(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.hash ^= u64::from_le_bytes(word) ^ bytes.len() as u64;
            self.hash = self
                .hash
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(23);
        }
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }
}
