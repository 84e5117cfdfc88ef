//! Cutting a byte stream into elements, resumably, 64 bytes at a time.
//!
//! Invariants: no byte is looked at twice, however the stream is cut into packets (except the few
//! of a markup's first characters, and once all of an element with more attributes than it may
//! declare namespaces); no limit can be passed by more than the bytes of one call; the answers do
//! not depend on how the stream is cut. That what lies between the tags is XML is for
//! [`crate::view`] to check.

mod declaration;
mod scan;

pub(crate) use declaration::size as declaration_size;

use crate::error::XmlError;
use crate::simd::Level;

/// What the scanner refuses.
pub type ScanError = XmlError;

/// Nested elements beyond which nothing in this crate goes.
pub const DEPTH_MAX: u16 = 64;
/// Attributes of one element beyond which nothing in this crate goes.
pub const ATTRIBUTES_MAX: u16 = 256;
/// Namespace declarations of one stanza beyond which nothing in this crate goes.
pub const NAMESPACES_MAX: u16 = 128;

/// The limits of one stream, enforced while scanning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one element, or of the stream header with its XML declaration.
    pub size_max: u32,
    /// Nested elements, the stanza itself being the first; at most [`DEPTH_MAX`].
    pub depth_max: u16,
    /// Attributes of one element; at most [`ATTRIBUTES_MAX`].
    pub attributes_max: u16,
    /// Namespace declarations of one stanza; at most [`NAMESPACES_MAX`].
    pub namespaces_max: u16,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            size_max: 256 << 10,
            depth_max: DEPTH_MAX,
            attributes_max: ATTRIBUTES_MAX,
            namespaces_max: NAMESPACES_MAX,
        }
    }
}

impl Limits {
    fn clamped(self) -> Limits {
        Limits {
            size_max: self.size_max,
            depth_max: self.depth_max.min(DEPTH_MAX),
            attributes_max: self.attributes_max.min(ATTRIBUTES_MAX),
            namespaces_max: self.namespaces_max.min(NAMESPACES_MAX),
        }
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

/// What may stand at depth zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    /// An XML declaration and a stream header.
    Header,
    /// Elements and the end of the stream.
    Elements,
    /// Elements only: there is no stream header around them.
    Headless,
}

/// Where the scan stands in the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the first byte of a frame.
    Start,
    /// In the XML declaration.
    Declaration,
    /// Between the XML declaration and the stream header.
    Prolog,
    /// In character data.
    Text,
    /// Behind a `<`.
    Angle,
    /// In an opening tag.
    Open,
    /// In an attribute value in apostrophes.
    Apostrophe,
    /// In an attribute value in quotes.
    Quote,
    /// In a closing tag.
    Close,
    /// In a CDATA section.
    Cdata,
}

/// Finds the ends of elements.
#[derive(Clone, Debug)]
pub struct Scanner {
    limits: Limits,
    /// Bytes of the current frame that were scanned.
    offset: u32,
    /// Attributes of the current frame.
    attributes_in_frame: u32,
    /// Attributes of the current element.
    attributes: u16,
    /// Namespace declarations of the current frame, if `counts_namespaces`.
    namespaces: u16,
    /// Elements open.
    depth: u16,
    state: State,
    expects: Expects,
    level: Level,
    /// Set once a frame has more attributes than it may declare namespaces: only then it matters
    /// which of them are declarations.
    counts_namespaces: bool,
}

const _: () = assert!(size_of::<Scanner>() <= 48, "one lies in every connection");

impl Scanner {
    /// A scanner that expects a stream header.
    pub fn new(limits: Limits) -> Scanner {
        Scanner {
            limits: limits.clamped(),
            offset: 0,
            attributes_in_frame: 0,
            attributes: 0,
            namespaces: 0,
            depth: 0,
            state: State::Start,
            expects: Expects::Header,
            level: Level::detect(),
            counts_namespaces: false,
        }
    }

    /// A scanner that expects elements without a header around them, as WebSocket frames have.
    pub fn headless(limits: Limits) -> Scanner {
        Scanner {
            expects: Expects::Headless,
            ..Scanner::new(limits)
        }
    }

    /// A scanner of single elements without limits, for what was bounded before.
    pub(crate) fn unlimited() -> Scanner {
        let limits = Limits {
            size_max: u32::MAX,
            depth_max: u16::MAX,
            attributes_max: u16::MAX,
            namespaces_max: u16::MAX,
        };
        Scanner {
            limits,
            ..Scanner::headless(limits)
        }
    }

    /// The same scanner without vector instructions: what the fast ones are compared with.
    pub fn without_simd(self) -> Scanner {
        Scanner {
            level: Level::Scalar,
            ..self
        }
    }

    /// Changes the limits, from the next call on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits.clamped();
    }

    /// Expects a new stream header. Call it between frames.
    pub fn restart(&mut self) {
        self.begin();
        self.expects = Expects::Header;
    }

    /// Whether a frame has begun and is not complete.
    pub fn is_within(&self) -> bool {
        self.state != State::Start
    }

    /// Scans on. `bytes` start at the first byte not consumed yet; after `Incomplete` they are the
    /// same again with more appended. After an error the scanner is of no further use.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Frame, ScanError> {
        let size_max = self.limits.size_max as usize;
        if self.state == State::Start
            && let Some(frame) = self.before_frame(bytes)?
        {
            return Ok(frame);
        }
        let window = &bytes[..bytes.len().min(size_max)];
        let frame = scan::scan(self, window)?;
        if frame != Frame::Incomplete {
            self.begin();
        } else if window.len() == size_max {
            return Err(XmlError::TooBig);
        }
        Ok(frame)
    }

    /// Readies the scanner for the next frame.
    fn begin(&mut self) {
        self.state = State::Start;
        self.offset = 0;
        self.depth = 0;
        self.attributes_in_frame = 0;
        self.namespaces = 0;
        self.counts_namespaces = false;
    }

    /// At the first byte of a frame: white space, nonsense, or (`None`) the start of markup.
    fn before_frame(&mut self, bytes: &[u8]) -> Result<Option<Frame>, ScanError> {
        match bytes.first() {
            None => Ok(Some(Frame::Incomplete)),
            Some(b'<') => {
                self.state = State::Angle;
                self.offset = 1;
                Ok(None)
            }
            Some(b' ' | b'\t' | b'\r' | b'\n') => Ok(Some(Frame::Whitespace(space_size(bytes)))),
            // The byte-order marks of UTF-16, and the zero byte of its characters without one.
            Some(0xfe | 0xff | 0) if self.expects == Expects::Header => {
                Err(XmlError::UnsupportedEncoding)
            }
            Some(b' '..) if self.expects == Expects::Elements => Err(XmlError::StrayText),
            Some(_) => Err(XmlError::NotWellFormed),
        }
    }
}

/// How much white space stands at the front.
pub(crate) fn space_size(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|&b| !is_space(b))
        .unwrap_or(bytes.len())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests;
