//! The server: all protocol logic, sans-IO, synchronous and deterministic.
//!
//! Invariant: every input enters through a `Shard::on_*` method, every effect leaves through
//! [`Host`]; there is no clock, randomness, socket, thread or lock in this crate.

pub mod host;
pub mod limit;
pub mod parcel;
pub mod port;

pub use host::{Close, ConnId, Host, ShardId, StreamKind, Ticket, Timestamp, TlsFacts};
