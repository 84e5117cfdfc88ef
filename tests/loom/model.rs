//! The lane between shards under loom: every interleaving and every reordering that the memory
//! model allows, up to the bounds of the models below.

mod spsc {
    #![allow(dead_code, missing_docs)]
    include!(concat!(env!("OUT_DIR"), "/spsc.rs"));
}

/// The standard cell's interface over loom's, which notices when two threads touch it at once.
mod cell {
    pub(crate) struct UnsafeCell<T>(loom::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(loom::cell::UnsafeCell::new(value))
        }

        /// Every access counts as a write: the lane moves items in and out, it never shares one.
        pub(crate) fn get(&self) -> *mut T {
            self.0.with_mut(|pointer| pointer)
        }
    }
}

use loom::thread;

/// A sender that publishes each item, a receiver that spins for all of them.
fn items_arrive_once_and_in_order(capacity: usize, items: usize) {
    loom::model(move || {
        let (mut producer, mut consumer) = spsc::lane(capacity);
        let sender = thread::spawn(move || {
            for item in 0..items {
                // Boxed, so that a lost or doubled item is a leak or a double free.
                let mut item = Box::new(item);
                while let Err(back) = producer.push(item) {
                    item = back;
                    thread::yield_now();
                }
                producer.publish();
            }
        });
        let mut awaited = 0;
        while awaited < items {
            match consumer.pop() {
                Some(item) => {
                    assert_eq!(*item, awaited);
                    awaited += 1;
                }
                None => thread::yield_now(),
            }
        }
        sender.join().expect("the sender does not panic");
        assert!(consumer.pop().is_none());
    });
}

/// Items that were pushed together are seen together or not at all.
fn a_batch_becomes_visible_at_once() {
    loom::model(|| {
        let (mut producer, mut consumer) = spsc::lane(2);
        let sender = thread::spawn(move || {
            producer.push(1).expect("there is room");
            producer.push(2).expect("there is room");
            producer.publish();
        });
        if let Some(first) = consumer.pop() {
            assert_eq!((first, consumer.pop()), (1, Some(2)));
        }
        sender.join().expect("the sender does not panic");
    });
}

/// What nobody took is dropped once, whichever end goes last.
fn what_is_left_is_dropped_once() {
    loom::model(|| {
        let item = loom::sync::Arc::new(());
        let kept = item.clone();
        let (mut producer, consumer) = spsc::lane(2);
        let sender = thread::spawn(move || {
            producer.push(item).expect("there is room");
        });
        drop(consumer);
        sender.join().expect("the sender does not panic");
        assert_eq!(loom::sync::Arc::strong_count(&kept), 1);
    });
}

fn main() {
    items_arrive_once_and_in_order(1, 3);
    items_arrive_once_and_in_order(2, 3);
    a_batch_becomes_visible_at_once();
    what_is_left_is_dropped_once();
    println!("loom: every interleaving holds");
}
