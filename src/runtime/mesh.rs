//! The N x (N-1) lanes between shards, with the spill rule.
//!
//! Invariant: a full lane never drops and never blocks. What does not fit waits in the
//! destination's spill, in order; while any spill is non-empty the turn admits no new client
//! bytes, so a spill holds at most what the shard's inbound lanes could make it answer. Lanes in
//! are drained whatever spills here; they wait only for storage, which waits for no shard.

use crate::bosh::Word;
use crate::doorbell::Doorbell;
use crate::handoff::Envelope;
use ring::spsc::{self, Consumer, Producer};
use ring::{Pool, Ring};
use std::collections::VecDeque;
use std::sync::Arc;
use xmpp::ShardId;
use xmpp::parcel::{Buffer, Parcel};

/// Items of all lanes into one shard together, shared out among its siblings.
const ITEMS_PER_SHARD: usize = 16 << 10;
/// Items of one lane at least and at most.
const LANE_MIN: usize = 64;
/// See [`LANE_MIN`].
const LANE_MAX: usize = 4096;

/// Items taken from one sibling in one turn; the rest has the next.
const ITEMS_PER_TURN_MAX: usize = 4096;
/// Bytes of them; the one that reaches it is the last.
const SIZE_PER_TURN_MAX: usize = 256 << 10;

/// What one turn has taken from one sibling.
#[derive(Debug, Default)]
pub(crate) struct Share {
    items: usize,
    size: usize,
}

impl Share {
    /// Whether the rest is the next turn's.
    pub(crate) fn is_used(&self) -> bool {
        self.items >= ITEMS_PER_TURN_MAX || self.size >= SIZE_PER_TURN_MAX
    }

    /// One more is taken: a parcel of so many bytes, or a connection.
    pub(crate) fn take(&mut self, size: usize) {
        self.items += 1;
        self.size += size;
    }
}

/// What crosses a lane.
#[derive(Debug)]
pub(crate) enum Item {
    /// Work for the protocol.
    Parcel(Parcel),
    /// A connection whose socket is on its way.
    Envelope(Box<Envelope>),
    /// The envelope of that number is wanted back: its socket did not get through.
    Recall(u32),
    /// The envelope that was wanted back.
    Returned(Box<Envelope>),
    /// Of a session of BOSH.
    Bosh(Box<Word>),
}

/// How many items one lane holds among `shards`.
pub(crate) fn lane_capacity(shards: usize) -> usize {
    (ITEMS_PER_SHARD / shards.max(1)).clamp(LANE_MIN, LANE_MAX)
}

/// Both directions between this shard and one sibling.
struct Peer {
    out: Producer<Item>,
    spill: VecDeque<Item>,
    inbound: Consumer<Item>,
    /// Their buffers, on the way home.
    theirs: Producer<Buffer>,
    /// Our buffers, coming home.
    ours: Consumer<Buffer>,
    bell: Arc<Doorbell>,
    dirty: bool,
}

/// One shard's ends of all its lanes.
pub(crate) struct Mesh {
    id: ShardId,
    peers: Vec<Option<Peer>>,
    spilled: usize,
    spilled_max: usize,
}

/// Makes the lanes of as many shards as there are bells.
pub(crate) fn weave(bells: &[Arc<Doorbell>], capacity: usize) -> Vec<Mesh> {
    let count = bells.len();
    let mut meshes: Vec<Vec<Option<Peer>>> = Vec::new();
    meshes.resize_with(count, || (0..count).map(|_| None).collect());
    for a in 0..count {
        for b in a + 1..count {
            let (a_out, b_in) = spsc::lane(capacity);
            let (b_out, a_in) = spsc::lane(capacity);
            // Buffers that a sends return from b, and the other way round.
            let (b_theirs, a_ours) = spsc::lane(capacity);
            let (a_theirs, b_ours) = spsc::lane(capacity);
            meshes[a][b] = Some(Peer::new(a_out, a_in, a_theirs, a_ours, &bells[b]));
            meshes[b][a] = Some(Peer::new(b_out, b_in, b_theirs, b_ours, &bells[a]));
        }
    }
    let number = |(index, peers)| Mesh {
        id: ShardId(index as u16),
        peers,
        spilled: 0,
        spilled_max: 0,
    };
    meshes.into_iter().enumerate().map(number).collect()
}

impl Peer {
    fn new(
        out: Producer<Item>,
        inbound: Consumer<Item>,
        theirs: Producer<Buffer>,
        ours: Consumer<Buffer>,
        bell: &Arc<Doorbell>,
    ) -> Peer {
        let bell = bell.clone();
        Peer {
            out,
            spill: VecDeque::new(),
            inbound,
            theirs,
            ours,
            bell,
            dirty: false,
        }
    }

    /// Moves what was spilled into the lane, as far as it goes; says how many items that was.
    fn drain_spill(&mut self) -> usize {
        let before = self.spill.len();
        while let Some(item) = self.spill.pop_front() {
            if let Err(item) = self.out.push(item) {
                self.spill.push_front(item);
                break;
            }
        }
        before - self.spill.len()
    }
}

impl Mesh {
    /// This shard.
    pub(crate) fn id(&self) -> ShardId {
        self.id
    }

    fn peer(&mut self, shard: ShardId) -> &mut Peer {
        self.peers[usize::from(shard.0)]
            .as_mut()
            .expect("a sibling, not the shard itself")
    }

    /// Sends an item; it leaves with the next [`Mesh::publish`].
    pub(crate) fn push(&mut self, to: ShardId, item: Item) {
        let peer = self.peer(to);
        peer.dirty = true;
        let item = if peer.spill.is_empty() {
            match peer.out.push(item) {
                Ok(()) => return,
                Err(item) => item,
            }
        } else {
            item
        };
        peer.spill.push_back(item);
        self.spilled += 1;
        self.spilled_max = self.spilled_max.max(self.spilled);
    }

    /// The next item from a sibling. After the last one its slots are the sibling's again.
    pub(crate) fn pop(&mut self, from: ShardId) -> Option<Item> {
        self.peer(from).inbound.pop()
    }

    /// Gives the slots of popped items back, where a turn stops before the lane is empty.
    pub(crate) fn release(&mut self, from: ShardId) -> bool {
        let peer = self.peer(from);
        peer.inbound.release();
        !peer.inbound.is_empty()
    }

    /// Sends a buffer home; where its lane is full it is ours from now on.
    pub(crate) fn recycle(&mut self, home: ShardId, buffer: Buffer, pool: &mut Pool) {
        let peer = self.peer(home);
        match peer.theirs.push(buffer) {
            Ok(()) => peer.dirty = true,
            Err(buffer) => pool.give(buffer),
        }
    }

    /// Takes our buffers back into the pool.
    pub(crate) fn collect(&mut self, from: ShardId, pool: &mut Pool) {
        while let Some(buffer) = self.peer(from).ours.pop() {
            pool.give(buffer);
        }
    }

    /// Whether anything waits in a spill.
    pub(crate) fn is_spilling(&self) -> bool {
        self.spilled > 0
    }

    /// The most that ever waited in all spills together.
    pub(crate) fn spilled_max(&self) -> usize {
        self.spilled_max
    }

    /// Shows the siblings what was pushed in this turn, and rings those that sleep.
    pub(crate) fn publish(&mut self, ring: &mut Ring) {
        let own_bit = usize::from(self.id.0);
        for peer in self.peers.iter_mut().flatten() {
            if !peer.dirty {
                continue;
            }
            self.spilled -= peer.drain_spill();
            let news = peer.out.publish();
            let homecoming = peer.theirs.publish();
            peer.dirty = !peer.spill.is_empty();
            // Buffers that come home are no reason to wake anybody: they are collected with the
            // next item, or found by the sender's own bit once it is awake.
            if news {
                peer.bell.post_from(own_bit, ring);
            } else if homecoming {
                peer.bell.mark(own_bit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(count: u32) -> Item {
        Item::Parcel(Parcel::Settled { count })
    }

    fn number(item: Option<Item>) -> Option<u32> {
        match item {
            Some(Item::Parcel(Parcel::Settled { count })) => Some(count),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    fn ring() -> Ring {
        let config = ring::RingConfig {
            entries: 8,
            completions: 16,
            slots: 1,
        };
        Ring::new(&config, &ring::probe().unwrap()).unwrap()
    }

    fn two(capacity: usize) -> (Mesh, Mesh) {
        let bells: Vec<_> = (0..2).map(|_| Arc::new(Doorbell::new(2))).collect();
        let mut meshes = weave(&bells, capacity);
        let second = meshes.pop().unwrap();
        (meshes.pop().unwrap(), second)
    }

    #[test]
    fn with_room_for_one_item_nothing_is_lost_and_order_holds() {
        let (mut a, mut b) = two(1);
        let mut ring = ring();
        for count in 0..5 {
            a.push(ShardId(1), parcel(count));
        }
        assert!(a.is_spilling());
        let mut got = Vec::new();
        for round in 0.. {
            a.publish(&mut ring);
            got.extend(number(b.pop(ShardId(0))));
            b.release(ShardId(0));
            if round == 2 {
                // Behind what is spilled, though the lane has room right now.
                a.push(ShardId(1), parcel(5));
            }
            if got.len() == 6 {
                break;
            }
        }
        assert_eq!(got, [0, 1, 2, 3, 4, 5]);
        a.publish(&mut ring);
        assert!(!a.is_spilling());
        assert_eq!((a.spilled_max(), number(b.pop(ShardId(0)))), (4, None));
    }

    #[test]
    fn a_turn_takes_so_many_items_and_so_many_bytes_of_them_and_no_more() {
        for (size, expected) in [
            (0, ITEMS_PER_TURN_MAX),
            (1 << 10, SIZE_PER_TURN_MAX >> 10),
            (SIZE_PER_TURN_MAX, 1),
        ] {
            let mut share = Share::default();
            let takes = |_: &i32| {
                let is_used = share.is_used();
                share.take(size);
                !is_used
            };
            assert_eq!((0..).take_while(takes).count(), expected, "{size}");
        }
    }

    #[test]
    fn a_buffer_goes_home_to_the_pool_it_came_from() {
        let (mut a, mut b) = two(4);
        let (mut ring, mut pool, mut other) = (ring(), Pool::new(1 << 20), Pool::new(1 << 20));
        let bytes = pool.take(1000);
        let address = bytes.as_ptr();
        a.push(
            ShardId(1),
            Item::Parcel(Parcel::Stanza {
                bytes,
                home: ShardId(0),
                origin: None,
            }),
        );
        a.publish(&mut ring);
        let Some(Item::Parcel(Parcel::Stanza { bytes, home, .. })) = b.pop(ShardId(0)) else {
            panic!("the stanza is there");
        };
        b.recycle(home, bytes, &mut other);
        b.publish(&mut ring);
        a.collect(ShardId(1), &mut pool);
        let again = pool.take(1000);
        assert_eq!(again.as_ptr(), address);
    }
}
