//! The load generator as a library: everything but the command itself.
//!
//! It sees of Vorpal only the ring engine: it speaks plain XMPP to any server, and it reads what
//! arrives with code of its own, so that it cannot share the server's mistakes.

pub mod accounts;
pub mod acks;
mod act;
pub mod args;
pub mod body;
mod capacity;
pub mod client;
pub mod clock;
pub mod compare;
pub mod connection;
pub mod deliver;
pub mod derive;
mod draw;
pub mod driver;
pub mod figure;
pub mod files;
pub mod fleet;
mod hdr;
pub mod heed;
pub mod html;
mod judge;
pub mod ledger;
pub mod live;
pub mod machine;
mod mix;
pub mod muc;
pub mod phases;
mod plain;
pub mod plan;
pub mod plot;
pub mod random;
mod react;
pub mod relay;
pub mod result;
mod resume;
mod rooms;
pub mod run;
pub mod scan;
pub mod scenario;
pub mod schedule;
pub mod scram;
pub mod search;
pub mod send;
pub mod slo;
pub mod stats;
pub mod table;
pub mod tls;
pub mod web;
pub mod wire;
pub mod workers;
