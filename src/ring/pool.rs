//! A pool of output buffers by class of capacity.
//!
//! Why: output `Vec`s that grow and free through the allocator made io_uring four times slower than
//! epoll. Invariant: below `held_max` bytes a buffer never goes back to the allocator.

/// Capacity of the smallest class; a smaller buffer is not kept.
const SMALLEST: usize = 256;
/// Classes: each twice the one before, so the largest begins at 512 KiB.
const CLASSES: usize = 12;

/// Empty buffers to take and give.
#[derive(Debug)]
pub struct Pool {
    classes: [Vec<Vec<u8>>; CLASSES],
    held: usize,
    held_max: usize,
}

impl Pool {
    /// A pool that keeps at most `held_max` bytes of unused capacity.
    pub fn new(held_max: usize) -> Pool {
        Pool {
            classes: [const { Vec::new() }; CLASSES],
            held: 0,
            held_max,
        }
    }

    /// An empty buffer with room for at least `size` bytes.
    pub fn take(&mut self, size: usize) -> Vec<u8> {
        let wanted = size.max(SMALLEST).next_power_of_two();
        let class = class_of(wanted);
        // One class up is a fair fit; more would hide large buffers behind small uses.
        for class in class..(class + 2).min(CLASSES) {
            if self.classes[class]
                .last()
                .is_some_and(|buffer| buffer.capacity() >= size)
            {
                let buffer = self.classes[class].pop().expect("it was looked at");
                self.held -= buffer.capacity();
                return buffer;
            }
        }
        Vec::with_capacity(wanted)
    }

    /// Gives a buffer back; its content is forgotten.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity < SMALLEST || self.held + capacity > self.held_max {
            return;
        }
        buffer.clear();
        self.held += capacity;
        self.classes[class_of(capacity)].push(buffer);
    }

    /// Bytes of capacity that lie unused in the pool.
    pub fn held(&self) -> usize {
        self.held
    }
}

fn class_of(capacity: usize) -> usize {
    ((capacity / SMALLEST).ilog2() as usize).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_capacity_and_without_its_content() {
        let mut pool = Pool::new(1 << 20);
        let mut buffer = pool.take(1000);
        buffer.extend_from_slice(b"secret");
        let (address, capacity) = (buffer.as_ptr(), buffer.capacity());
        pool.give(buffer);
        assert_eq!(pool.held(), capacity);
        let again = pool.take(1000);
        assert_eq!((again.as_ptr(), again.len(), pool.held()), (address, 0, 0));
    }

    #[test]
    fn a_large_buffer_is_not_spent_on_a_small_use() {
        let mut pool = Pool::new(1 << 20);
        pool.give(Vec::with_capacity(64 << 10));
        assert!(pool.take(10).capacity() < 1024);
        assert!(pool.take(50_000).capacity() >= 64 << 10);
    }

    #[test]
    fn the_pool_stops_keeping_at_its_maximum() {
        let mut pool = Pool::new(1024);
        pool.give(Vec::with_capacity(1024));
        pool.give(Vec::with_capacity(1024));
        assert_eq!(pool.held(), 1024);
        pool.give(Vec::new());
        assert_eq!(pool.held(), 1024);
    }
}
