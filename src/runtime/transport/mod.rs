//! What lies between a socket's bytes and a stream's: nothing, TLS, WebSocket or
//! BOSH, or both.
//!
//! Invariant: nothing in here does I/O or knows a stanza.

mod binding;
pub mod bosh;
pub mod http;
pub mod tls;
pub mod transfer;
pub mod web;
pub mod websocket;
