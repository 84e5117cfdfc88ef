//! The server: all protocol logic, sans-IO, synchronous and deterministic.
//!
//! Invariant: every input enters through a `Shard::on_*` method, every effect leaves through
//! [`Host`]; there is no clock, randomness, socket, thread or lock in this crate.

pub mod account;
pub mod again;
mod ahead;
mod archive;
mod ask;
mod bulk;
mod conns;
mod deliver;
mod dispose;
mod ends;
pub mod errand;
pub mod error;
mod farewell;
pub mod gate;
mod handed;
pub mod host;
mod iq;
mod keep;
pub mod leave;
pub mod limit;
mod outbox;
mod pace;
pub mod parcel;
pub mod port;
mod presence;
pub mod probes;
pub mod removed;
mod request;
mod resume;
pub mod retention;
mod revive;
mod revoke;
pub mod roster;
pub mod router;
pub mod session;
pub mod settings;
mod settle;
pub mod shard;
mod shutdown;
pub mod stanza;
pub mod strangers;
pub mod stream;
pub mod subscription;
mod timer;
mod wake;
mod withdraw;
pub mod xep;
mod xml;

pub use ahead::Fetch;
pub use host::{ConnId, Host, ShardId, StreamKind, Ticket, Timestamp, TlsFacts};
pub use settings::Settings;
pub use shard::{Progress, Shard};
