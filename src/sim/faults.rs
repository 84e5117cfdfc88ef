//! How rough the simulated world is: delays, cuts, capacities, failures.

use crate::random::Random;
use stanza::jid::BareJid;

/// The roughness of one world. Ranges are inclusive; times are microseconds.
#[derive(Clone, Debug)]
pub struct Faults {
    /// How long a piece of bytes is on a wire.
    pub wire_us: (u64, u64),
    /// How many bytes a piece has.
    pub piece_bytes: (u64, u64),
    /// How long a shard sleeps before a turn.
    pub turn_us: (u64, u64),
    /// How far the system's clock is ahead of the time that passes.
    pub clock_ahead_us: i64,
    /// How long storage takes.
    pub disk_us: (u64, u64),
    /// How often in a thousand storage fails.
    pub disk_failures: u64,
    /// Whether the disk is full: then every write is refused, and every read is answered.
    pub disk_full: bool,
    /// Sessions whose records are damaged, by the ids that their clients know.
    pub damaged: Vec<String>,
    /// Sessions that storage fails to read, by these ids.
    pub unreadable: Vec<String>,
    /// Accounts that storage fails to load.
    pub unloadable: Vec<BareJid>,
    /// How often in a thousand the sync of a write fails. It is refused, and the next process may
    /// find it all the same, unless another write succeeds before: that is written over it.
    pub disk_doubts: u64,
    /// How long a derivation takes.
    pub derive_us: (u64, u64),
    /// How long a connection is between two shards.
    pub move_us: (u64, u64),
    /// Parcels that a ring holds; what is more spills.
    pub ring_capacity: usize,
    /// Requests of a shard that storage takes before it answers; with more nothing new is admitted.
    pub storage_capacity: usize,
    /// Bytes on their way to a client, or in its kernel, that it has not read.
    pub window_bytes: usize,
    /// Bytes that wait in the server for one client; with more it is cut.
    pub unsent_max: usize,
}

impl Faults {
    /// Short delays, large pieces, nothing fails.
    pub fn calm() -> Faults {
        Faults {
            wire_us: (10, 50),
            piece_bytes: (1400, 1400),
            turn_us: (1, 5),
            clock_ahead_us: 0,
            disk_us: (50, 200),
            disk_failures: 0,
            disk_full: false,
            damaged: Vec::new(),
            unreadable: Vec::new(),
            unloadable: Vec::new(),
            disk_doubts: 0,
            derive_us: (100, 500),
            move_us: (5, 20),
            ring_capacity: 1024,
            storage_capacity: 2048,
            window_bytes: 64 << 10,
            unsent_max: 1 << 20,
        }
    }

    /// Anything between calm and absurd, but nothing fails.
    pub fn rough(random: &mut Random) -> Faults {
        let delay = |random: &mut Random| {
            let low = random.below(100);
            (low, low + *random.pick(&[0, 50, 1_000, 20_000]))
        };
        Faults {
            wire_us: delay(random),
            piece_bytes: *random.pick(&[(1, 3), (1, 64), (1, 1400), (1400, 1400)]),
            turn_us: delay(random),
            clock_ahead_us: 0,
            disk_us: delay(random),
            disk_failures: 0,
            disk_full: false,
            damaged: Vec::new(),
            unreadable: Vec::new(),
            unloadable: Vec::new(),
            disk_doubts: 0,
            derive_us: delay(random),
            move_us: delay(random),
            ring_capacity: *random.pick(&[1, 1, 2, 3, 16, 1024]),
            window_bytes: *random.pick(&[256, 4 << 10, 64 << 10]),
            unsent_max: 4 << 20,
            storage_capacity: *random.pick(&[1, 2, 64, 2048]),
        }
    }
}
