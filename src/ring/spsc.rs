//! A bounded single-producer single-consumer lane with published batches.
//!
//! Pushing costs no shared write: items become visible together with [`Producer::publish`], once
//! per turn. Invariant: slots between `head` and `tail` hold an item and belong to the consumer,
//! the others to the producer. There are none until the first item is pushed: of the lanes between
//! many shards, as many as the square of their number, most stay empty.

use crossbeam::utils::CachePadded;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the items lie.
struct Slots<T>(Box<[UnsafeCell<MaybeUninit<T>>]>);

struct Shared<T> {
    head: CachePadded<AtomicUsize>,
    tail: CachePadded<AtomicUsize>,
    mask: usize,
    /// Written once, by the producer before it publishes the first item; both ends keep what is in
    /// it.
    slots: UnsafeCell<Option<Arc<Slots<T>>>>,
}

// SAFETY: the producer writes only free slots and the consumer reads only published ones; `head`
// and `tail` hand them over with release and acquire. Items cross threads, hence `T: Send`.
unsafe impl<T: Send> Sync for Slots<T> {}
// SAFETY: as above; the slots own their items.
unsafe impl<T: Send> Send for Slots<T> {}
// SAFETY: `slots` is written before the first release of `tail` and read behind its acquire.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as for the slots, which it owns.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    /// Makes the slots, for the first item.
    #[cold]
    fn furnish(&self) -> Arc<Slots<T>> {
        let empty = |_| UnsafeCell::new(MaybeUninit::uninit());
        let slots = Arc::new(Slots((0..=self.mask).map(empty).collect()));
        // SAFETY: nothing was published yet, so the consumer does not look, and only the producer
        // calls this.
        unsafe { *self.slots.get() = Some(slots.clone()) };
        slots
    }

    /// The slots, for the consumer when it has seen that an item was published.
    #[cold]
    fn furnished(&self) -> Arc<Slots<T>> {
        // SAFETY: the tail that was acquired was released after the slots were made, and they are
        // made once.
        let slots = unsafe { (*self.slots.get()).clone() };
        slots.expect("what was published lies in a slot")
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (head, tail) = (
            self.head.load(Ordering::Relaxed),
            self.tail.load(Ordering::Relaxed),
        );
        // SAFETY: nobody else is left.
        let Some(slots) = (unsafe { (*self.slots.get()).take() }) else {
            return;
        };
        let mut index = head;
        while index != tail {
            // SAFETY: slots from head to tail hold items, and nobody else is left.
            unsafe { (*slots.0[index & self.mask].get()).assume_init_drop() };
            index = index.wrapping_add(1);
        }
    }
}

/// The writing end.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    slots: Option<Arc<Slots<T>>>,
    /// Our tail, published or not.
    tail: usize,
    published: usize,
    /// The last head that was seen.
    head: usize,
}

/// The reading end.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    slots: Option<Arc<Slots<T>>>,
    head: usize,
    released: usize,
    /// The last tail that was seen.
    tail: usize,
}

/// A lane for at least `capacity` items (rounded up to a power of two).
pub fn lane<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1).next_power_of_two();
    let shared = Arc::new(Shared {
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        mask: capacity - 1,
        slots: UnsafeCell::new(None),
    });
    let producer = Producer {
        shared: shared.clone(),
        slots: None,
        tail: 0,
        published: 0,
        head: 0,
    };
    (
        producer,
        Consumer {
            shared,
            slots: None,
            head: 0,
            released: 0,
            tail: 0,
        },
    )
}

impl<T> Producer<T> {
    /// Appends an item that the consumer sees after the next [`Producer::publish`]; gives it back
    /// where the lane is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.head) > self.shared.mask {
            self.head = self.shared.head.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head) > self.shared.mask {
                return Err(item);
            }
        }
        let slots = match &self.slots {
            Some(slots) => slots,
            None => self.slots.insert(self.shared.furnish()),
        };
        let slot = &slots.0[self.tail & self.shared.mask];
        // SAFETY: the slot is free (checked above) and only this producer writes slots.
        unsafe { (*slot.get()).write(item) };
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Shows the consumer all that was pushed; says whether there was anything new.
    pub fn publish(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        self.published = self.tail;
        self.shared.tail.store(self.tail, Ordering::Release);
        true
    }

    /// Whether the consumer took everything that was published.
    pub fn is_drained(&self) -> bool {
        self.shared.head.load(Ordering::Acquire) == self.tail
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        // What was pushed is owned by the lane only once it is published.
        self.publish();
    }
}

impl<T> Consumer<T> {
    /// The next published item.
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail {
            self.release();
            self.tail = self.shared.tail.load(Ordering::Acquire);
            if self.head == self.tail {
                return None;
            }
        }
        let slots = match &self.slots {
            Some(slots) => slots,
            None => self.slots.insert(self.shared.furnished()),
        };
        let slot = &slots.0[self.head & self.shared.mask];
        // SAFETY: the slot lies before the published tail, so it holds an item, and moving `head`
        // past it makes sure that it is read once.
        let item = unsafe { (*slot.get()).assume_init_read() };
        self.head = self.head.wrapping_add(1);
        Some(item)
    }

    /// Hands the slots of what was popped back to the producer. An empty `pop` does it too.
    pub fn release(&mut self) {
        if self.released != self.head {
            self.released = self.head;
            self.shared.head.store(self.head, Ordering::Release);
        }
    }

    /// Whether a `pop` would find something.
    pub fn is_empty(&self) -> bool {
        self.head == self.tail && self.head == self.shared.tail.load(Ordering::Acquire)
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_seen_only_after_they_are_published() {
        let (mut producer, mut consumer) = lane(4);
        producer.push(1).unwrap();
        assert!(consumer.is_empty());
        assert_eq!(consumer.pop(), None);
        assert!(producer.publish());
        assert!(!producer.publish());
        assert_eq!((consumer.pop(), consumer.pop()), (Some(1), None));
    }

    #[test]
    fn a_lane_has_no_slots_before_its_first_item() {
        let (mut producer, mut consumer) = lane(4096);
        producer.publish();
        assert_eq!(consumer.pop(), None);
        assert!(producer.slots.is_none() && consumer.slots.is_none());
        producer.push(1).unwrap();
        assert_eq!(
            producer.slots.as_ref().map(|slots| slots.0.len()),
            Some(4096)
        );
        producer.publish();
        assert_eq!(consumer.pop(), Some(1));
        // A lane that nothing went through ends with nothing to look at.
        drop(lane::<Box<u8>>(4096));
    }

    #[test]
    fn a_full_lane_gives_the_item_back_and_loses_nothing() {
        let (mut producer, mut consumer) = lane(2);
        assert!(producer.push('a').is_ok() && producer.push('b').is_ok());
        assert_eq!(producer.push('c'), Err('c'));
        producer.publish();
        assert_eq!(consumer.pop(), Some('a'));
        assert_eq!(producer.push('c'), Err('c'), "the slot is not released yet");
        consumer.release();
        assert_eq!(producer.push('c'), Ok(()));
        producer.publish();
        assert_eq!(
            [consumer.pop(), consumer.pop(), consumer.pop()],
            [Some('b'), Some('c'), None]
        );
        assert!(producer.is_drained());
    }

    #[test]
    fn what_lies_in_a_lane_is_dropped_with_it() {
        let item = Arc::new(());
        let (mut producer, mut consumer) = lane(8);
        for _ in 0..5 {
            producer.push(item.clone()).unwrap();
        }
        producer.publish();
        drop(consumer.pop());
        assert_eq!(Arc::strong_count(&item), 5);
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&item), 1);
    }

    #[test]
    fn two_threads_keep_order_and_number_at_every_capacity() {
        const ITEMS: u64 = if cfg!(miri) { 200 } else { 100_000 };
        for capacity in [1, 2, 64] {
            let (mut producer, mut consumer) = lane(capacity);
            let sender = std::thread::spawn(move || {
                for item in 0..ITEMS {
                    let mut item = Box::new(item);
                    while let Err(back) = producer.push(item) {
                        item = back;
                        producer.publish();
                        std::thread::yield_now();
                    }
                    if item_batch_ends(&producer) {
                        producer.publish();
                    }
                }
            });
            for expected in 0..ITEMS {
                let item = loop {
                    match consumer.pop() {
                        Some(item) => break item,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(*item, expected);
            }
            sender.join().unwrap();
            assert!(consumer.pop().is_none());
        }
    }

    fn item_batch_ends<T>(producer: &Producer<T>) -> bool {
        producer.tail.wrapping_sub(producer.published) >= 3
    }
}
