//! The scanner: the same frames by vectors, without them, and however the stream is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stanza::frame::{Frame, Limits, ScanError, Scanner};

/// Frames but white space, with where they end.
fn cut(
    mut scanner: Scanner,
    bytes: &[u8],
    packet: usize,
) -> (Vec<(Frame, usize)>, Option<ScanError>) {
    let (mut start, mut end) = (0, packet.min(bytes.len()));
    let mut frames = Vec::new();
    loop {
        let size = match scanner.next(&bytes[start..end]) {
            Err(error) => return (frames, Some(error)),
            Ok(Frame::Incomplete) if end == bytes.len() => return (frames, None),
            Ok(Frame::Incomplete) => {
                end = (end + packet).min(bytes.len());
                continue;
            }
            Ok(Frame::Whitespace(size)) => size,
            Ok(frame) => {
                let (Frame::StreamOpen(size) | Frame::Element(size) | Frame::StreamClose(size)) =
                    frame
                else {
                    unreachable!("handled above");
                };
                frames.push((frame, start + size));
                size
            }
        };
        assert!(size > 0 && start + size <= end);
        start += size;
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (packet, bytes) = input;
    let limits = Limits {
        size_max: 4_096,
        depth_max: 8,
        attributes_max: 8,
        namespaces_max: 4,
    };
    for scanner in [Scanner::new(limits), Scanner::headless(limits)] {
        let expected = cut(scanner.clone(), bytes, bytes.len().max(1));
        let packet = usize::from(packet).max(1);
        assert_eq!(cut(scanner.clone(), bytes, packet), expected);
        assert_eq!(cut(scanner.without_simd(), bytes, packet), expected);
    }
});
