//! Frames as clients send them, good ones and bad ones, whole and in pieces.

use super::*;

const SIZE_MAX: usize = 1000;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        size @ 0..=125 => out.push(MASKED | size as u8),
        size => {
            out.push(MASKED | LENGTH_16);
            out.extend_from_slice(&(size as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    out
}

fn text(payload: &str) -> Vec<u8> {
    frame(FIN | TEXT, payload.as_bytes())
}

/// What comes of bytes that arrive in pieces of `size`: messages, pings, and how it ended.
fn read(bytes: &[u8], size: usize) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, Option<Code>) {
    let (mut reader, mut buffer) = (Reader::default(), Vec::new());
    let (mut messages, mut pings) = (Vec::new(), Vec::new());
    for mut piece in bytes.chunks(size) {
        reader.lend(&mut buffer);
        loop {
            let end = match reader.next(&mut piece, SIZE_MAX) {
                Event::Nothing => break,
                Event::Message(message) => {
                    messages.push(message.to_vec());
                    None
                }
                Event::Closed(code) => Some(code),
                Event::TooBig => Some(Code::TOO_BIG),
            };
            pings.extend(reader.take_ping());
            if end.is_some() {
                return (messages, pings, end);
            }
        }
        pings.extend(reader.take_ping());
        reader.take_back(&mut buffer);
    }
    (messages, pings, None)
}

#[test]
fn messages_come_out_however_their_bytes_are_cut() {
    let long = "x".repeat(700);
    let mut bytes = text("<a/>");
    bytes.extend(text(""));
    bytes.extend(frame(TEXT, b"<b>"));
    bytes.extend(frame(FIN | PING, b"there?"));
    bytes.extend(frame(CONTINUATION, "ä".as_bytes().split_at(1).0));
    bytes.extend(frame(FIN | PONG, b"here"));
    bytes.extend(frame(FIN | CONTINUATION, "ä".as_bytes().split_at(1).1));
    bytes.extend(text(&long));
    for size in (1..40).chain([bytes.len()]) {
        let (messages, pings, end) = read(&bytes, size);
        let expected = ["<a/>", "", "<b>ä", &long].map(|text| text.as_bytes().to_vec());
        assert_eq!(messages, expected, "in pieces of {size}");
        assert_eq!((pings, end), (vec![b"there?".to_vec()], None));
    }
}

#[test]
fn what_breaks_a_rule_ends_the_connection_with_its_code() {
    let unmasked = [vec![FIN | TEXT, 4], b"<a/>".to_vec()].concat();
    let long =
        |first: u8, second: u8, length: &[u8]| [&[first, MASKED | second], length, &MASK].concat();
    let after = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
    let close =
        |code: u16, reason: &[u8]| frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat());
    for (bytes, code) in [
        (unmasked, 1002),
        (frame(FIN | 0x40 | TEXT, b"<a/>"), 1002),
        (frame(FIN | 0x20 | TEXT, b"<a/>"), 1002),
        (frame(FIN | 0x10 | PING, b""), 1002),
        (frame(FIN | 3, b""), 1002),
        (frame(FIN | 7, b""), 1002),
        (frame(FIN | 11, b""), 1002),
        (frame(FIN | 15, b""), 1002),
        (frame(FIN | CONTINUATION, b"<a/>"), 1002),
        (after(frame(TEXT, b"<a"), text("/>")), 1002),
        (frame(PING, b"in pieces"), 1002),
        (frame(FIN | PING, &[b'x'; 126]), 1002),
        (long(FIN | TEXT, LENGTH_16, &[0, 125]), 1002),
        (
            long(FIN | TEXT, LENGTH_64, &[0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            1002,
        ),
        (
            long(FIN | TEXT, LENGTH_64, &[0x80, 0, 0, 0, 0, 0, 0, 0]),
            1002,
        ),
        (frame(FIN | BINARY, b"<a/>"), 1003),
        (frame(FIN | TEXT, &[b'<', 0xff]), 1007),
        (frame(FIN | TEXT, &[0xed, 0xa0, 0x80]), 1007),
        (frame(FIN | TEXT, &[b'x'; SIZE_MAX + 1]), 1009),
        (
            long(FIN | TEXT, LENGTH_64, &[0x7f, 0, 0, 0, 0, 0, 0, 0]),
            1009,
        ),
        (
            after(frame(TEXT, &[b'x'; SIZE_MAX]), frame(FIN, b"x")),
            1009,
        ),
        (frame(FIN | CLOSE, b""), 1000),
        (frame(FIN | CLOSE, b"x"), 1002),
        (close(1001, b"going"), 1001),
        (close(4321, b""), 4321),
        (close(1000, &[0xff]), 1007),
        (close(999, b""), 1002),
        (close(1005, b""), 1002),
        (close(1006, b""), 1002),
        (close(2000, b""), 1002),
        (close(5000, b""), 1002),
    ] {
        let whole = after(text("<ok/>"), bytes);
        for size in [1, 3, whole.len()] {
            let (messages, _, end) = read(&whole, size);
            assert_eq!(messages, [b"<ok/>".to_vec()], "{whole:?}");
            assert_eq!(end, Some(Code(code)), "{whole:?} in pieces of {size}");
        }
    }
}

#[test]
fn what_comes_of_any_bytes_does_not_depend_on_how_they_are_cut() {
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    let (mut messages, mut ends) = (0, std::collections::BTreeSet::new());
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..random(6) {
            let first =
                [TEXT, FIN | TEXT, CONTINUATION, FIN, FIN | PING, FIN | CLOSE][random(6) as usize];
            bytes.extend(frame(
                first,
                &vec![b'0' + random(10) as u8; random(130) as usize],
            ));
        }
        // Mostly it is as a client would have it, and sometimes one byte is not.
        if !bytes.is_empty() && random(4) == 0 {
            let at = random(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random(8);
        }
        let whole = read(&bytes, bytes.len().max(1));
        let size = 1 + random(50) as usize;
        let (cut, _, end) = read(&bytes, size);
        assert_eq!(
            (&cut, end),
            (&whole.0, whole.2),
            "{bytes:?} in pieces of {size}"
        );
        messages += cut.len();
        ends.extend(end.map(|code| code.0));
    }
    assert!(messages > 4_000, "only {messages} messages");
    // Too big (1009) needs more bytes than these are.
    assert_eq!(ends, [1000, 1002, 1003, 1007].into());
}

#[test]
fn a_message_may_be_as_long_as_it_may() {
    let bytes = frame(FIN | TEXT, &[b'x'; SIZE_MAX]);
    assert_eq!(
        read(&bytes, 100),
        (vec![vec![b'x'; SIZE_MAX]], vec![], None)
    );
}

#[test]
fn only_the_last_of_many_pings_is_answered() {
    let (mut reader, mut pings) = (Reader::default(), Vec::new());
    for number in 0..1000_u32 {
        pings.extend(frame(FIN | PING, &number.to_be_bytes()));
    }
    assert_eq!(reader.next(&mut &*pings, SIZE_MAX), Event::Nothing);
    assert_eq!(reader.take_ping(), Some(999_u32.to_be_bytes().to_vec()));
    assert_eq!(reader.take_ping(), None);
}

#[test]
fn a_connection_between_messages_has_no_buffer() {
    let (mut reader, mut buffer) = (Reader::default(), Vec::with_capacity(100));
    let bytes = [text("<a/>"), frame(TEXT, b"<b>")].concat();
    let (whole, cut) = bytes.split_at(bytes.len() - 9);
    for round in 0..2 {
        reader.lend(&mut buffer);
        assert_eq!(reader.next(&mut &*whole, SIZE_MAX), Event::Message(b"<a/>"));
        reader.take_back(&mut buffer);
        let capacities = (reader.message.capacity(), buffer.capacity());
        assert_eq!(
            (capacities, reader.held()),
            ((0, 100), 0),
            "in round {round}"
        );
    }
    reader.lend(&mut buffer);
    assert_eq!(reader.next(&mut &*cut, SIZE_MAX), Event::Nothing);
    reader.take_back(&mut buffer);
    assert_eq!((reader.held(), buffer.capacity()), (3, 0));
    // Meanwhile others had one made, and both would be one too many.
    buffer.reserve_exact(50);
    let end = frame(FIN | CONTINUATION, b"</b>");
    assert_eq!(
        reader.next(&mut &*end, SIZE_MAX),
        Event::Message(b"<b></b>")
    );
    reader.take_back(&mut buffer);
    assert_eq!((reader.message.capacity(), buffer.capacity()), (0, 50));
}

#[test]
fn our_frames_say_how_long_they_are() {
    for (size, header) in [
        (4, vec![0x81, 4]),
        (125, vec![0x81, 125]),
        (126, vec![0x81, 126, 0, 126]),
        (0xffff, vec![0x81, 126, 0xff, 0xff]),
        (0x1_0000, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut out = Vec::new();
        write_text(&[&vec![b'x'; size - 1], b"y"], &mut out);
        assert_eq!(
            (&out[..header.len()], out.len()),
            (&*header, header.len() + size)
        );
    }
    let mut out = Vec::new();
    write_close(Code::NORMAL, &mut out);
    write_pong(b"ab", &mut out);
    assert_eq!(out, [0x88, 2, 3, 0xe8, 0x8a, 2, b'a', b'b']);
}

/// What is held is counted by its bytes.
#[test]
fn a_large_buffer_is_not_kept_for_a_few_bytes() {
    let (mut reader, mut buffer) = (Reader::default(), Vec::with_capacity(100_000));
    let bytes = frame(TEXT, b"<a>");
    reader.lend(&mut buffer);
    assert!(matches!(
        reader.next(&mut &bytes[..], SIZE_MAX),
        Event::Nothing
    ));
    reader.take_back(&mut buffer);
    assert_eq!(reader.held(), 3);
    assert!(reader.message.capacity() < 100);
    assert!(buffer.capacity() >= 100_000 && buffer.is_empty());
}
