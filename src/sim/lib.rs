//! The simulated world: many shards, their clients, wires, disk and clock, driven by one seed.
//!
//! Invariant: the same seed gives the same trace. Nothing here reads a clock, a thread, a socket or
//! the order of a hash map.

pub mod actors;
pub mod asked;
pub mod client;
pub mod contacts;
pub mod direct;
pub mod element;
pub mod faults;
pub mod files;
mod host;
pub mod ledger;
pub mod managed;
pub mod play;
pub mod random;
pub mod scenario;
pub mod scram;
pub mod seeds;
pub mod steps;
pub mod token;
pub mod trace;
pub mod world;

pub use client::{Client, Login};
pub use element::Element;
pub use faults::Faults;
pub use random::Random;
pub use seeds::{for_every_seed, seeds};
pub use world::{ClientId, World};
