//! What real clients wrote, byte for byte: framed wholly, whatever the packets.
//!
//! A recording goes from the first header through TLS and authentication, each with a header of its
//! own, to the end of the connection.

use stanza::frame::{Frame, Limits, Scanner};
use stanza::view::{StanzaView, StreamHeader};
use std::path::Path;

const CLIENTS: &[&str] = &["go-sendxmpp", "profanity", "slixmpp", "tokio-xmpp"];

/// Name and bytes of every recording.
fn recordings() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/streams");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .expect("the recordings are part of the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy();
            (
                name.into_owned(),
                std::fs::read(&path).expect("a readable file"),
            )
        })
        .collect();
    found.sort();
    for client in CLIENTS {
        assert!(
            found.iter().any(|(name, _)| name.starts_with(client)),
            "{client} was recorded"
        );
    }
    found
}

/// Whether the server starts the stream anew behind this element: it agreed to TLS, or the client
/// is authenticated, after which no client writes anything but a header.
fn is_before_restart(element: &[u8], rest: &[u8]) -> bool {
    let rest = rest.trim_ascii_start();
    let is_header = rest.starts_with(b"<?xml") || rest.starts_with(b"<stream:stream");
    let negotiates = [&b"<starttls"[..], b"<auth", b"<response"];
    is_header && negotiates.iter().any(|start| element.starts_with(start))
}

/// The frames other than white space, with their bytes; `size` bytes arrive at a time.
fn cut(mut scanner: Scanner, stream: &[u8], size: usize) -> Vec<(Frame, &[u8])> {
    let mut frames = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        let frame = scanner.next(&stream[start..end]).expect("well-formed");
        let n = match frame {
            Frame::Incomplete if end == stream.len() => break,
            Frame::Incomplete => {
                end = (end + size).min(stream.len());
                continue;
            }
            Frame::Whitespace(n) => n,
            Frame::StreamOpen(n) | Frame::Element(n) | Frame::StreamClose(n) => {
                frames.push((frame, &stream[start..start + n]));
                n
            }
        };
        let element = &stream[start..start + n];
        start += n;
        if matches!(frame, Frame::Element(_)) && is_before_restart(element, &stream[start..]) {
            // The client waits for the answer before its next header, so a packet ends here.
            end = start;
            scanner.restart();
        }
        if matches!(frame, Frame::StreamClose(_)) {
            break;
        }
    }
    assert_eq!(start, stream.len(), "nothing is left over");
    frames
}

#[test]
fn every_recording_is_framed_wholly_whatever_the_packets() {
    for (name, stream) in recordings() {
        let whole = cut(Scanner::new(Limits::default()), &stream, stream.len());
        let opens = whole
            .iter()
            .filter(|(frame, _)| matches!(frame, Frame::StreamOpen(_)))
            .count();
        assert_eq!(opens, 3, "{name}: in clear, over TLS, authenticated");
        for size in [1, 2, 3, 7, 16, 64, 100, 1_448] {
            let simd = cut(Scanner::new(Limits::default()), &stream, size);
            assert_eq!(simd, whole, "{name} by {size}");
            let scalar = Scanner::new(Limits::default()).without_simd();
            assert_eq!(cut(scalar, &stream, size), whole, "{name} by {size}");
        }
    }
}

#[test]
fn every_element_of_a_recording_is_read_within_its_own_stream() {
    for (name, stream) in recordings() {
        let mut scope = None;
        let mut elements = 0;
        for (frame, bytes) in cut(Scanner::new(Limits::default()), &stream, stream.len()) {
            match frame {
                Frame::StreamOpen(_) => {
                    let header = StreamHeader::parse(bytes).expect("a client's header");
                    assert_eq!(header.to.as_deref(), Some("vorpal.test"), "{name}");
                    scope = Some(header.scope);
                }
                Frame::Element(_) => {
                    let scope = scope.as_ref().expect("elements follow a header");
                    let view = StanzaView::parse(bytes, scope);
                    assert!(view.is_ok(), "{name}: {}", String::from_utf8_lossy(bytes));
                    elements += 1;
                }
                Frame::StreamClose(_) | Frame::Whitespace(_) | Frame::Incomplete => {}
            }
        }
        // STARTTLS, a login, the bind and a presence at least.
        assert!(elements >= 4, "{name}: {elements}");
    }
}
