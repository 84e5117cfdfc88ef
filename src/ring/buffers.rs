//! The provided buffers of one ring: the kernel writes what it receives into them.
//!
//! With IOU_PBUF_RING_INC a buffer is filled piece by piece (16 x 256 KiB stays in cache: up to
//! 12 % less CPU than classic buffers); without it each piece takes a whole buffer.
//! Invariant: a buffer returns to the kernel only when the kernel is done with it and every
//! [`Chunk`] of it was given back.

use crate::engine::Ring;
use io_uring::types::BufRingEntry;
use std::io;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// Number and size of the buffers of one ring.
#[derive(Clone, Copy, Debug)]
pub struct BufferShape {
    /// How many; a power of two.
    pub count: u16,
    /// Bytes of each.
    pub size: u32,
}

impl BufferShape {
    /// Incremental buffers: few and large.
    pub const INCREMENTAL: BufferShape = BufferShape {
        count: 16,
        size: 256 << 10,
    };
    /// Classic buffers: each completion takes one, so many and smaller.
    pub const CLASSIC: BufferShape = BufferShape {
        count: 256,
        size: 16 << 10,
    };
    /// A ring that shares a processor has one of so many parts of the memory, or more.
    const PARTS_MAX: u32 = 8;

    /// The shape that suits the kernel.
    pub fn suiting(ring: &Ring) -> BufferShape {
        match ring.features().incremental_buffers {
            true => Self::INCREMENTAL,
            false => Self::CLASSIC,
        }
    }

    /// Of a ring that shares a processor with others, so many with it: together they have the
    /// memory that one alone has, down to an eighth each, since that is what stays in the
    /// processor's cache.
    pub fn shared(self, rings: u32) -> BufferShape {
        let share = rings.clamp(1, Self::PARTS_MAX).next_power_of_two();
        BufferShape {
            count: self.count,
            size: self.size / share,
        }
    }
}

/// A piece of a provided buffer that holds received bytes. Give it back to its [`Buffers`].
#[derive(Debug)]
#[must_use = "a chunk that is not given back starves the ring of buffers"]
pub struct Chunk {
    owner: u32,
    buffer: u16,
    offset: u32,
    len: u32,
}

impl Chunk {
    /// How many bytes were received.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing was received.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Where the kernel writes next.
    offset: u32,
    /// Chunks that are with the caller.
    out: u32,
    /// Whether the kernel is done with this buffer.
    done: bool,
}

/// The provided buffers of one ring.
#[derive(Debug)]
pub struct Buffers {
    id: u32,
    group: u16,
    incremental: bool,
    shape: BufferShape,
    entries: *mut BufRingEntry,
    data: *mut u8,
    states: Box<[State]>,
    tail: u16,
}

impl Buffers {
    /// Maps buffers and registers them with `ring` as `group`; without a shape they are of the one
    /// that suits the kernel.
    pub fn new(ring: &Ring, group: u16, shape: Option<BufferShape>) -> io::Result<Buffers> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let incremental = ring.features().incremental_buffers;
        let shape = shape.unwrap_or(BufferShape::suiting(ring));
        assert!(
            shape.count.is_power_of_two() && shape.size > 0,
            "the kernel asks for it"
        );
        let entries = map(usize::from(shape.count) * size_of::<BufRingEntry>())?;
        let data = map(usize::from(shape.count) * shape.size as usize)?;
        ring.register_buffers(entries as u64, shape.count, group, incremental)?;
        let mut buffers = Buffers {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            group,
            incremental,
            shape,
            entries: entries.cast(),
            data,
            states: vec![State::default(); usize::from(shape.count)].into(),
            tail: 0,
        };
        for buffer in 0..shape.count {
            buffers.provide(buffer);
        }
        Ok(buffers)
    }

    /// The group that receives name.
    pub fn group(&self) -> u16 {
        self.group
    }

    /// The received bytes.
    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        let start = self.start(chunk);
        // SAFETY: `start` checked that the range lies in our mapping. The kernel wrote it before
        // the completion and writes there again only after `give_back` consumed the chunk.
        unsafe { std::slice::from_raw_parts(self.data.add(start), chunk.len()) }
    }

    /// The received bytes, to be decrypted or unmasked in place.
    pub fn bytes_mut(&mut self, chunk: &mut Chunk) -> &mut [u8] {
        let start = self.start(chunk);
        // SAFETY: as in `bytes`; chunks are disjoint and not `Clone`, and both are borrowed
        // mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), chunk.len()) }
    }

    /// Says that the bytes were used; the buffer returns to the kernel when it is all used.
    pub fn give_back(&mut self, chunk: Chunk) {
        self.start(&chunk);
        let state = &mut self.states[usize::from(chunk.buffer)];
        state.out -= 1;
        if state.done && state.out == 0 {
            self.provide(chunk.buffer);
        }
    }

    /// Books what a completion put into `buffer`; called once per completion, in their order.
    pub(crate) fn book(&mut self, buffer: u16, len: u32, more: bool) -> Chunk {
        let state = &mut self.states[usize::from(buffer)];
        let offset = state.offset;
        state.offset += len;
        assert!(
            state.offset <= self.shape.size,
            "the kernel stays inside a buffer"
        );
        state.out += 1;
        state.done = !self.incremental || !more;
        Chunk {
            owner: self.id,
            buffer,
            offset,
            len,
        }
    }

    fn start(&self, chunk: &Chunk) -> usize {
        assert!(
            chunk.owner == self.id,
            "a chunk belongs to the buffers it came from"
        );
        usize::from(chunk.buffer) * self.shape.size as usize + chunk.offset as usize
    }

    fn provide(&mut self, buffer: u16) {
        self.states[usize::from(buffer)] = State::default();
        let index = usize::from(self.tail & (self.shape.count - 1));
        let start = usize::from(buffer) * self.shape.size as usize;
        // SAFETY: `index` and `start` lie inside the mappings, which are never unmapped. The entry
        // is behind the published tail, so the kernel does not read it yet; fields are written
        // through raw pointers because entry 0 shares its last two bytes with the tail.
        unsafe {
            let entry = &mut *self.entries.add(index);
            entry.set_addr(self.data.add(start) as u64);
            entry.set_len(self.shape.size);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Anonymous memory, deliberately never unmapped: the kernel may write into provided buffers for a
/// moment after a ring was closed, and rings live as long as the process.
pub(crate) fn map(size: usize) -> io::Result<*mut u8> {
    // SAFETY: a fresh anonymous mapping aliases nothing.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(address.cast())
}

#[cfg(test)]
mod tests {
    use super::BufferShape;

    #[test]
    fn rings_of_one_processor_share_the_memory_of_one() {
        let of = |rings| BufferShape::INCREMENTAL.shared(rings).size;
        assert_eq!((of(0), of(1), of(2)), (256 << 10, 256 << 10, 128 << 10));
        assert_eq!((of(3), of(6), of(60)), (64 << 10, 32 << 10, 32 << 10));
    }
}
