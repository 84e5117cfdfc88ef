//! What a measured stanza carries: who sent it to whom, its place in order, when, and filler that
//! is a function of these; so that a receiver can check every byte.
//!
//! Invariant: a mark is plain ASCII without markup, so no server has a reason to alter it.

/// The destination of a broadcast: everyone in the sender's clique.
pub const BROADCAST: u32 = u32::MAX;

/// The bytes of a mark before its filler.
pub const MARK_SIZE_MIN: usize = 3 + 8 + 8 + 8 + 12 + 12 + 4;

const MAGIC: &[u8] = b"lg1";
const FILLER_SIZE: usize = 4096;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// The facts in one measured stanza; times are nanoseconds of [`crate::clock::Clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Index of the sending client.
    pub from: u32,
    /// Index of the receiving client, or [`BROADCAST`].
    pub to: u32,
    /// Counts from 0 for each (from, to) pair.
    pub sequence: u32,
    /// When the schedule wanted it sent.
    pub intended: u64,
    /// When it was written.
    pub sent: u64,
}

/// Pseudo-random text from which every filler is a slice.
pub struct Filler {
    text: Vec<u8>,
}

impl Filler {
    /// The same text for the same seed, with room for fillers of `size_max` bytes.
    pub fn new(seed: u64, size_max: usize) -> Filler {
        let mut random = crate::random::Random::new(seed ^ 0x6669_6c6c);
        let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";
        let text = (0..FILLER_SIZE + size_max)
            .map(|_| letters[(random.bits() >> 58) as usize])
            .collect();
        Filler { text }
    }

    fn slice(&self, mark: &Mark, size: usize) -> &[u8] {
        let times = mark.intended ^ mark.sent.rotate_left(32);
        let mixed = (u64::from(mark.from) << 32 | u64::from(mark.to))
            .wrapping_add(u64::from(mark.sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .wrapping_add(times.wrapping_mul(0xc4ce_b9fe_1a85_ec53))
            .wrapping_mul(0xff51_afd7_ed55_8ccd);
        let start = (mixed >> 52) as usize % FILLER_SIZE;
        &self.text[start..start + size]
    }

    /// Appends `mark`, filled up to `size` bytes in all (or the minimum, where that is more).
    pub fn write(&self, mark: &Mark, size: usize, out: &mut Vec<u8>) {
        let filler = size
            .saturating_sub(MARK_SIZE_MIN)
            .min(self.text.len() - FILLER_SIZE);
        let mut head = [0u8; MARK_SIZE_MIN];
        head[..3].copy_from_slice(MAGIC);
        put_hex(&mut head[3..11], u64::from(mark.from));
        put_hex(&mut head[11..19], u64::from(mark.to));
        put_hex(&mut head[19..27], u64::from(mark.sequence));
        put_hex(&mut head[27..39], mark.intended);
        put_hex(&mut head[39..51], mark.sent);
        put_hex(&mut head[51..55], filler as u64);
        out.extend_from_slice(&head);
        out.extend_from_slice(self.slice(mark, filler));
    }

    /// Reads a mark and compares its filler; `None` where any byte is not as it was written. `text`
    /// may be longer than the mark only where `padded`.
    pub fn read(&self, text: &[u8], padded: bool) -> Option<Mark> {
        if text.len() < MARK_SIZE_MIN || &text[..3] != MAGIC {
            return None;
        }
        let mark = Mark {
            from: take_hex(&text[3..11])? as u32,
            to: take_hex(&text[11..19])? as u32,
            sequence: take_hex(&text[19..27])? as u32,
            intended: take_hex(&text[27..39])?,
            sent: take_hex(&text[39..51])?,
        };
        let filler = take_hex(&text[51..55])? as usize;
        let end = MARK_SIZE_MIN + filler;
        if text.len() < end || (text.len() > end && !padded) {
            return None;
        }
        if filler > self.text.len() - FILLER_SIZE {
            return None;
        }
        (&text[MARK_SIZE_MIN..end] == self.slice(&mark, filler)).then_some(mark)
    }
}

fn put_hex(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = HEX[(value & 15) as usize];
        value >>= 4;
    }
}

fn take_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, &digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(nibble))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark {
        from: 7,
        to: 9,
        sequence: 3,
        intended: 1_000,
        sent: 1_050,
    };

    #[test]
    fn a_mark_reads_back_as_it_was_written() {
        let filler = Filler::new(1, 500);
        let mut text = Vec::new();
        filler.write(&MARK, 137, &mut text);
        assert_eq!(text.len(), 137);
        assert_eq!(filler.read(&text, false), Some(MARK));
    }

    #[test]
    fn any_altered_byte_is_noticed() {
        let filler = Filler::new(1, 500);
        let mut text = Vec::new();
        filler.write(&MARK, 137, &mut text);
        for at in 0..137 {
            let mut altered = text.clone();
            altered[at] = if altered[at] == b'1' { b'2' } else { b'1' };
            assert_eq!(filler.read(&altered, false), None, "byte {at}");
        }
        assert_eq!(filler.read(&text[..136], false), None);
        text.push(b' ');
        assert_eq!(filler.read(&text, false), None);
        assert_eq!(filler.read(&text, true), Some(MARK));
    }

    #[test]
    fn a_size_below_the_minimum_still_carries_the_facts() {
        let filler = Filler::new(1, 500);
        let mut text = Vec::new();
        filler.write(&MARK, 10, &mut text);
        assert_eq!(text.len(), MARK_SIZE_MIN);
        assert_eq!(filler.read(&text, false), Some(MARK));
    }
}
