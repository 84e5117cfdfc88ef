//! The io_uring engine without a word of XMPP: rings, direct descriptors, buffers, SPSC lanes.
//!
//! Invariant: memory that the kernel may touch belongs to this crate until the completion that
//! releases it, so that every interface here is safe; all `unsafe` of the I/O path is in this
//! crate, the cipher's in [`aead`] too. [`records`] is what TLS does with it.
//!
//! Shape of use: [`probe()`] once, then per thread one [`Ring`] with its [`Buffers`]; push
//! operations on slots, [`Ring::submit_and_wait`], [`Ring::reap`], look at each [`Completion`],
//! give chunks back to the [`Buffers`] and sent `Vec`s back to the [`Pool`].

pub mod aead;
mod buffers;
mod connect;
mod engine;
mod fd;
mod ops;
mod pool;
mod prefetch;
mod probe;
pub mod records;
mod slots;
pub mod spsc;

pub use buffers::{BufferShape, Buffers, Chunk};
pub use connect::ConnectPlan;
pub use engine::{Completion, Ring, RingConfig};
pub use fd::{
    EndSignals, EventFd, adopt, allowed_processors, bound_listener, descriptors_max, free_address,
    lower_thread_priority, pin_thread, resident_bytes, small_pages, thread_cpu,
};
pub use ops::Bell;
pub use pool::Pool;
pub use prefetch::{prefetch, prefetch_at};
pub use probe::{Features, Refused, probe};
pub use slots::{Op, Slots, Token};
