//! The real world: one pinned thread per shard with glommio and a raw ring, TLS, storage, start and
//! end of the process.
//!
//! Invariant: this crate moves bytes and knows no stanza. A [`Server`] is N shards that share
//! nothing but lanes and bells; the storage thread alone touches the store. Where each thing is: a
//! shard's loop is in `park`, what it does each time in `turn`, what the protocol may do to the
//! world in `host`.

mod accept;
pub mod admin;
mod admission;
mod bosh;
pub mod certificate;
mod clock;
pub mod config;
mod connection;
mod control;
mod derive;
mod doorbell;
mod handoff;
mod host;
mod inbound;
pub mod logging;
mod mesh;
mod output;
mod park;
mod plan;
mod reader;
mod server;
mod storage;
mod transfer;
pub mod transport;
mod turn;
pub mod uploads;

pub use config::RuntimeConfig;
pub use control::Control;
pub use plan::Plan;
pub use ring::{EndSignals, small_pages};
pub use server::{ServeError, Server, Tuning, serve};
pub use turn::Counters;
