//! Bytes and addresses: the stream scanner, borrowed stanza views, JIDs, namespaces, the writer.
//!
//! Nothing here knows a socket, a clock or a session. Bytes go through three gates: [`frame`] cuts
//! a stream into elements and enforces the limits while it scans; [`view`] checks that one element
//! is well-formed, restricted XML and notes what routing asks for; [`tree`] serves whoever reads a
//! payload. Both of the latter run the same walk, so they accept the same language.

pub mod error;
pub mod frame;
pub mod framing;
pub mod jid;
mod lexis;
mod namespaces;
pub mod ns;
pub mod scope;
mod simd;
mod stack;
pub mod tree;
pub mod view;
mod walk;
pub mod writer;

pub use error::XmlError;
