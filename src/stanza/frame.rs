//! Cutting a byte stream into elements, resumably.

use crate::error::XmlError;

/// What the scanner refuses.
pub type ScanError = XmlError;

/// The limits of one stream, enforced while scanning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one element, or of the stream header with its XML declaration.
    pub size_max: u32,
    /// Nested elements, the stanza itself being the first.
    pub depth_max: u16,
    /// Attributes of one element.
    pub attributes_max: u16,
    /// Namespace declarations of one stanza.
    pub namespaces_max: u16,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { size_max: 256 << 10, depth_max: 64, attributes_max: 256, namespaces_max: 128 }
    }
}

/// What stands at the front of the bytes; the number is how many of them to consume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Nothing complete: offer the same bytes again with more appended.
    Incomplete,
    /// White space between stanzas.
    Whitespace(usize),
    /// The XML declaration, if any, and the opening tag of the stream.
    StreamOpen(usize),
    /// One complete element.
    Element(usize),
    /// The closing tag of the stream.
    StreamClose(usize),
}

/// Finds the ends of elements.
#[derive(Clone, Debug)]
pub struct Scanner {
    limits: Limits,
}

impl Scanner {
    /// A scanner that expects a stream header.
    pub fn new(limits: Limits) -> Scanner {
        Scanner { limits }
    }

    /// A scanner that expects elements without a header around them, as WebSocket frames have.
    pub fn headless(limits: Limits) -> Scanner {
        Scanner { limits }
    }

    /// Changes the limits, from the next call on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Expects a new stream header.
    pub fn restart(&mut self) {}

    /// Scans on. `bytes` start at the first byte not consumed yet.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Frame, ScanError> {
        let _ = bytes;
        Ok(Frame::Incomplete)
    }
}
