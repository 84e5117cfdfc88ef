//! What lies between a socket's bytes and a stream's: nothing, or TLS.
//!
//! Invariant: nothing in here does I/O or knows a stanza.

mod binding;
pub mod tls;
