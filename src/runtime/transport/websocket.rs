//! The frames of WebSocket (RFC 6455): a client's messages out of its bytes, and ours into frames.
//!
//! Invariant: a message is handed over once it is whole and UTF-8. After the first frame that
//! breaks a rule, or that closes, nothing is read.

use std::mem;

/// Bytes of a control frame's payload (RFC 6455 5.5).
const CONTROL_SIZE_MAX: usize = 125;
/// Bytes of a frame's header: two, a length of eight, a mask.
const HEADER_SIZE_MAX: usize = 14;

/// Bytes that the buffer of a message that is not whole may have beyond twice what is in it.
const LENT_SLACK_MAX: usize = 4 << 10;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// Lengths that stand for a longer one behind them.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// What a frame is (RFC 6455 5.2).
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Why a connection is closed (RFC 6455 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u16);

impl Code {
    /// The stream has ended.
    pub const NORMAL: Code = Code(1000);
    /// A frame breaks a rule.
    pub const PROTOCOL_ERROR: Code = Code(1002);
    /// Binary messages are no XMPP.
    pub const UNACCEPTABLE: Code = Code(1003);
    /// A text is no UTF-8.
    pub const INCONSISTENT: Code = Code(1007);
    /// A message is too big.
    pub const TOO_BIG: Code = Code(1009);

    /// Whether a peer may send it.
    fn is_for_peers(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// What stands next in a client's bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Nothing whole.
    Nothing,
    /// A message; [`Reader::next`] forgets it.
    Message(&'a [u8]),
    /// The client closes, or breaks a rule: answer with this and read no more.
    Closed(Code),
    /// A message is longer than it may be: the same.
    TooBig,
}

/// The reading side of one connection.
#[derive(Debug, Default)]
pub struct Reader {
    /// What came of a frame's header.
    header: [u8; HEADER_SIZE_MAX],
    header_size: u8,
    frame: Option<Frame>,
    /// Whether a message has begun that goes on in another frame.
    is_fragmented: bool,
    /// Whether `message` was handed over.
    is_done: bool,
    /// The message so far, unmasked.
    message: Vec<u8>,
    /// The control frame in hand, unmasked.
    control: Vec<u8>,
    /// What the last ping is to be answered with.
    ping: Option<Vec<u8>>,
}

/// A frame whose payload is being read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    is_final: bool,
    /// Bytes that have not come.
    left: u64,
    /// Begins with what masks the next one.
    mask: u32,
}

impl Reader {
    /// Reads on: takes what it has used off the front of `bytes`. A message may have `size_max`
    /// bytes.
    pub fn next(&mut self, bytes: &mut &[u8], size_max: usize) -> Event<'_> {
        if mem::take(&mut self.is_done) {
            self.message.clear();
        }
        loop {
            let frame = match self.frame {
                Some(frame) => frame,
                None => match self.read_header(bytes, size_max) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return Event::Nothing,
                    Err(event) => return event,
                },
            };
            let frame = self.read_payload(frame, bytes);
            if frame.left > 0 {
                self.frame = Some(frame);
                return Event::Nothing;
            }
            self.frame = None;
            match frame.opcode {
                CLOSE => return Event::Closed(close_code(&self.control)),
                PING => self.ping = Some(mem::take(&mut self.control)),
                PONG => self.control.clear(),
                _ if frame.is_final => {
                    self.is_fragmented = false;
                    self.is_done = true;
                    // RFC 6455 8.1
                    if std::str::from_utf8(&self.message).is_err() {
                        return Event::Closed(Code::INCONSISTENT);
                    }
                    return Event::Message(&self.message);
                }
                _ => {}
            }
        }
    }

    /// Reads a header, and the sum of what its message has so far; `None` where it is not whole.
    fn read_header(
        &mut self,
        bytes: &mut &[u8],
        size_max: usize,
    ) -> Result<Option<Frame>, Event<'static>> {
        let needed = |header: &[u8]| match header {
            [_, second, ..] => 2 + length_size(*second) + mem::size_of::<u32>(),
            _ => 2,
        };
        loop {
            let have = usize::from(self.header_size);
            let missing = needed(&self.header[..have]) - have;
            if missing == 0 {
                break;
            }
            let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
            self.header[have..have + taken.len()].copy_from_slice(taken);
            self.header_size += taken.len() as u8;
            *bytes = rest;
            if self.header_size >= 1 {
                self.check_first(self.header[0])?;
            }
            if self.header_size >= 2 && self.header[1] & MASKED == 0 {
                // RFC 6455 5.1: a client's frames are masked.
                return Err(Event::Closed(Code::PROTOCOL_ERROR));
            }
            if taken.len() < missing {
                return Ok(None);
            }
        }
        let header = &self.header[..usize::from(mem::take(&mut self.header_size))];
        let (opcode, is_final) = (header[0] & 0x0f, header[0] & FIN != 0);
        let left = length(&header[1..header.len() - 4]);
        let mask = u32::from_le_bytes(*header.last_chunk().expect("it ends in a mask"));
        let Some(left) = left else {
            return Err(Event::Closed(Code::PROTOCOL_ERROR));
        };
        if opcode >= CLOSE {
            // RFC 6455 5.5: not in pieces, and short.
            if !is_final || left > CONTROL_SIZE_MAX as u64 {
                return Err(Event::Closed(Code::PROTOCOL_ERROR));
            }
        } else {
            if left.saturating_add(self.message.len() as u64) > size_max as u64 {
                return Err(Event::TooBig);
            }
            self.is_fragmented = true;
        }
        Ok(Some(Frame {
            opcode,
            is_final,
            left,
            mask,
        }))
    }

    /// Whether a frame may begin so here.
    fn check_first(&self, first: u8) -> Result<(), Event<'static>> {
        let is_right = match first & 0x0f {
            CONTINUATION => self.is_fragmented,
            TEXT => !self.is_fragmented,
            BINARY => return Err(Event::Closed(Code::UNACCEPTABLE)),
            CLOSE | PING | PONG => true,
            _ => false,
        };
        // RFC 6455 5.2: no extension was agreed on that would give them a meaning.
        match is_right && first & RESERVED == 0 {
            true => Ok(()),
            false => Err(Event::Closed(Code::PROTOCOL_ERROR)),
        }
    }

    /// Takes what has come of a frame's payload; the frame with what is left.
    fn read_payload(&mut self, mut frame: Frame, bytes: &mut &[u8]) -> Frame {
        let place = match frame.opcode >= CLOSE {
            true => &mut self.control,
            false => &mut self.message,
        };
        let size = usize::try_from(frame.left).unwrap_or(usize::MAX);
        let (taken, rest) = bytes.split_at(size.min(bytes.len()));
        *bytes = rest;
        let start = place.len();
        place.extend_from_slice(taken);
        unmask(&mut place[start..], frame.mask);
        frame.left -= taken.len() as u64;
        frame.mask = frame.mask.rotate_right(8 * (taken.len() % 4) as u32);
        frame
    }

    /// The payload of the last ping that is not answered.
    pub fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    /// Bytes that wait for more.
    pub fn held(&self) -> usize {
        match self.is_done {
            true => 0,
            false => self.message.len(),
        }
    }

    /// Lends a buffer for the next message, where none has begun.
    pub fn lend(&mut self, buffer: &mut Vec<u8>) {
        if self.message.capacity() == 0 {
            mem::swap(&mut self.message, buffer);
        }
    }

    /// Takes it back where no message has begun: no connection has a buffer of its own then, and
    /// none is made for each message.
    pub fn take_back(&mut self, buffer: &mut Vec<u8>) {
        if mem::take(&mut self.is_done) {
            self.message.clear();
        }
        // What is held counts by its bytes, and a large buffer with a few would be more.
        if self.message.capacity() > 2 * self.message.len() + LENT_SLACK_MAX {
            let fitting = self.message.as_slice().into();
            let own = mem::replace(&mut self.message, fitting);
            if buffer.capacity() == 0 {
                *buffer = own;
                buffer.clear();
            }
        }
        if self.message.is_empty() {
            let own = mem::take(&mut self.message);
            if buffer.capacity() == 0 {
                *buffer = own;
            }
        }
    }
}

/// Bytes of the longer length behind the first one.
fn length_size(second: u8) -> usize {
    match second & !MASKED {
        LENGTH_16 => 2,
        LENGTH_64 => 8,
        _ => 0,
    }
}

/// RFC 6455 5.2: the length, if it is written as short as it can be.
fn length(bytes: &[u8]) -> Option<u64> {
    match *bytes {
        [first] => Some(u64::from(first & !MASKED)),
        [_, a, b] => Some(u64::from(u16::from_be_bytes([a, b]))).filter(|n| *n > 125),
        [_, ref long @ ..] => {
            let long = u64::from_be_bytes(long.try_into().ok()?);
            Some(long).filter(|n| (1 << 16..1 << 63).contains(n))
        }
        [] => None,
    }
}

/// Takes the mask off, eight bytes at a time.
fn unmask(bytes: &mut [u8], mask: u32) {
    let wide = u64::from(mask) << 32 | u64::from(mask);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let masked = u64::from_le_bytes((&*word).try_into().expect("a chunk is of eight"));
        word.copy_from_slice(&(masked ^ wide).to_le_bytes());
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(wide.to_le_bytes()) {
        *byte ^= mask;
    }
}

/// What a close is answered with: its own code, where it is good (RFC 6455 5.5.1).
fn close_code(payload: &[u8]) -> Code {
    match payload.split_first_chunk::<2>() {
        None if payload.is_empty() => Code::NORMAL,
        Some((code, reason)) => match Code(u16::from_be_bytes(*code)) {
            code if !code.is_for_peers() => Code::PROTOCOL_ERROR,
            _ if std::str::from_utf8(reason).is_err() => Code::INCONSISTENT,
            code => code,
        },
        None => Code::PROTOCOL_ERROR,
    }
}

/// Appends a text frame; its payload comes in pieces.
pub fn write_text(pieces: &[&[u8]], out: &mut Vec<u8>) {
    let size: usize = pieces.iter().map(|piece| piece.len()).sum();
    write_header(TEXT, size, out);
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

/// Appends the answer to a ping.
pub fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(payload.len() <= CONTROL_SIZE_MAX, "as long as a ping");
    write_header(PONG, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends the last frame.
pub fn write_close(code: Code, out: &mut Vec<u8>) {
    write_header(CLOSE, 2, out);
    out.extend_from_slice(&code.0.to_be_bytes());
}

fn write_header(opcode: u8, size: usize, out: &mut Vec<u8>) {
    out.push(FIN | opcode);
    match size {
        0..=125 => out.push(size as u8),
        126..=0xffff => {
            out.push(LENGTH_16);
            out.extend_from_slice(&(size as u16).to_be_bytes());
        }
        _ => {
            out.push(LENGTH_64);
            out.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
