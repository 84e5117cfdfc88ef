//! What the scanner cuts, what it refuses, and that packets do not matter.

use super::*;

const HEADER: &str = "<?xml version='1.0'?><stream:stream to='a' xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";

/// All frames of a stream, and the error it ends with.
fn cut(scanner: &mut Scanner, bytes: &[u8]) -> (Vec<Frame>, Option<ScanError>) {
    let mut frames = Vec::new();
    let mut rest = bytes;
    loop {
        match scanner.next(rest) {
            Ok(Frame::Incomplete) => return (frames, None),
            Ok(frame) => {
                let size = match frame {
                    Frame::Whitespace(n) | Frame::StreamOpen(n) => n,
                    Frame::Element(n) | Frame::StreamClose(n) => n,
                    Frame::Incomplete => unreachable!("handled above"),
                };
                assert!(size > 0 && size <= rest.len());
                frames.push(frame);
                rest = &rest[size..];
            }
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// The same with the bytes arriving one by one; white space is joined again.
fn cut_by_bytes(scanner: &mut Scanner, bytes: &[u8]) -> (Vec<Frame>, Option<ScanError>) {
    let mut frames = Vec::new();
    let mut start = 0;
    for end in 1..=bytes.len() {
        match scanner.next(&bytes[start..end]) {
            Ok(Frame::Incomplete) => {}
            Ok(Frame::Whitespace(1)) => {
                match frames.last_mut() {
                    Some(Frame::Whitespace(n)) => *n += 1,
                    _ => frames.push(Frame::Whitespace(1)),
                }
                start = end;
            }
            Ok(frame) => {
                let n = end - start;
                let whole = [
                    Frame::StreamOpen(n),
                    Frame::Element(n),
                    Frame::StreamClose(n),
                ];
                assert!(whole.contains(&frame), "{frame:?} at {end}");
                frames.push(frame);
                start = end;
            }
            Err(error) => return (frames, Some(error)),
        }
    }
    (frames, None)
}

/// Longer streams are not cut byte by byte under Miri, where that would take minutes.
const BY_BYTES_MAX: usize = if cfg!(miri) { 100 } else { 1 << 20 };

/// The answer for these bytes, which must not depend on packets or on the processor.
fn answer(scanner: &Scanner, bytes: &[u8]) -> (Vec<Frame>, Option<ScanError>) {
    let expected = cut(&mut scanner.clone(), bytes);
    let slow = scanner.clone().without_simd();
    for mut other in [
        scanner.clone(),
        slow.clone(),
        Scanner {
            level: Level::detect(),
            ..slow
        },
    ] {
        assert_eq!(cut(&mut other.clone(), bytes), expected);
        if bytes.len() <= BY_BYTES_MAX {
            assert_eq!(cut_by_bytes(&mut other, bytes), expected);
        }
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        let mut other = Scanner {
            level: Level::Avx2,
            ..scanner.clone()
        };
        assert_eq!(cut(&mut other, bytes), expected);
    }
    expected
}

fn inside() -> Scanner {
    Scanner {
        expects: Expects::Elements,
        ..Scanner::new(Limits::default())
    }
}

fn refused(text: &str) -> Option<ScanError> {
    answer(&inside(), text.as_bytes()).1
}

#[test]
fn a_stream_is_cut_into_header_elements_space_and_end() {
    let stanza = "<message to='b'><body>1 > 0 'quoted' \"twice\"</body></message>";
    let iq = "<iq id=\"it's &gt; a > b\" type='get'><ping xmlns='urn:xmpp:ping'/></iq>";
    let stream = format!("{HEADER}{stanza} \r\n\t{iq}<r/>\n</stream:stream>");
    let expected = vec![
        Frame::StreamOpen(HEADER.len()),
        Frame::Element(stanza.len()),
        Frame::Whitespace(4),
        Frame::Element(iq.len()),
        Frame::Element(4),
        Frame::Whitespace(1),
        Frame::StreamClose(16),
    ];
    assert_eq!(
        answer(&Scanner::new(Limits::default()), stream.as_bytes()),
        (expected, None)
    );
}

#[test]
fn a_header_needs_no_declaration_and_may_follow_space() {
    for (before, space) in [
        ("", 0),
        ("<?xml version=\"1.0\" encoding='utf-8' ?>\n", 0),
        (" \n", 2),
    ] {
        let stream = format!("{before}<stream a='>'>");
        let mut expected = vec![Frame::StreamOpen(stream.len() - space)];
        if space > 0 {
            expected.insert(0, Frame::Whitespace(space));
        }
        let scanner = Scanner::new(Limits::default());
        assert_eq!(answer(&scanner, stream.as_bytes()), (expected, None));
    }
}

#[test]
fn after_a_restart_a_declaration_is_allowed_again() {
    let mut scanner = Scanner::new(Limits::default());
    for _ in 0..2 {
        assert_eq!(
            scanner.next(HEADER.as_bytes()),
            Ok(Frame::StreamOpen(HEADER.len()))
        );
        assert_eq!(scanner.next(b"<a/>"), Ok(Frame::Element(4)));
        scanner.restart();
    }
    assert_eq!(
        scanner.next(HEADER.as_bytes()),
        Ok(Frame::StreamOpen(HEADER.len()))
    );
    assert_eq!(
        scanner.next(b"<?xml version='1.0'?><a>"),
        Err(XmlError::Restricted)
    );
}

#[test]
fn without_a_header_elements_stand_alone_and_nothing_closes() {
    let mut scanner = Scanner::headless(Limits::default());
    assert_eq!(scanner.next(b"<open xmlns='x'/>"), Ok(Frame::Element(17)));
    assert_eq!(scanner.next(b"<a><b/></a>"), Ok(Frame::Element(11)));
    assert_eq!(scanner.next(b"</a>"), Err(XmlError::NotWellFormed));
}

#[test]
fn character_data_sections_hide_markup() {
    let stanza = "<a><![CDATA[<b> ]] > ]>]]]]><![CDATA[>]]></a>";
    let expected = (vec![Frame::Element(stanza.len())], None);
    assert_eq!(answer(&inside(), stanza.as_bytes()), expected);
}

#[test]
fn comments_instructions_and_declarations_are_refused_as_soon_as_seen() {
    let inside_stanza = [
        "<a><!-",
        "<a><!D",
        "<a><![CDATB",
        "<a><![I",
        "<a><?",
        "<a><?xml ",
    ];
    for text in inside_stanza.into_iter().chain(["<!-", "<!D", "<?x"]) {
        assert_eq!(refused(text), Some(XmlError::Restricted), "{text}");
        let cut_short = &text[..text.len() - 1];
        if !cut_short.ends_with('?') {
            assert!(
                refused(cut_short).is_none_or(|e| e == XmlError::Restricted),
                "{cut_short}"
            );
        }
    }
    for text in [
        "<!DOCTYPE",
        "<!--",
        "<?xml-stylesheet",
        "<?php",
        "<?xml version='1.0'?><?",
    ] {
        let found = answer(&Scanner::new(Limits::default()), text.as_bytes()).1;
        assert_eq!(found, Some(XmlError::Restricted), "{text}");
    }
}

#[test]
fn declarations_of_other_encodings_and_versions_are_refused() {
    let cases = [
        (
            "<?xml version='1.0' encoding='UTF-16'?>",
            XmlError::UnsupportedEncoding,
        ),
        (
            "<?xml version='1.0' encoding=\"iso-8859-1\"?>",
            XmlError::UnsupportedEncoding,
        ),
        ("<?xml version='2.0'?>", XmlError::NotWellFormed),
        ("<?xml encoding='utf-8'?>", XmlError::NotWellFormed),
        ("<?xml version='1.0' foo='bar'?>", XmlError::NotWellFormed),
        (
            "<?xml version='1.0' standalone='maybe'?>",
            XmlError::NotWellFormed,
        ),
        (
            "<?xml version='1.0'encoding='utf-8'?>",
            XmlError::NotWellFormed,
        ),
        ("<?xml version='1.0'>", XmlError::NotWellFormed),
        ("<?xml version='1.0'?>x", XmlError::NotWellFormed),
        ("\u{feff}<a>", XmlError::NotWellFormed),
    ];
    for (text, expected) in cases {
        let found = answer(&Scanner::new(Limits::default()), text.as_bytes()).1;
        assert_eq!(found, Some(expected), "{text}");
    }
    for bytes in [&b"\xff\xfe<\0"[..], b"\xfe\xff\0<", b"<\0?\0", b"\0<\0?"] {
        let found = answer(&Scanner::new(Limits::default()), bytes).1;
        assert_eq!(found, Some(XmlError::UnsupportedEncoding), "{bytes:?}");
    }
}

#[test]
fn what_cannot_become_an_element_is_refused_at_once() {
    let texts = [
        "<>", "< a>", "<a<", "<a b='<", "<a b=\"<", "<a></a<", "<a>< /a>", "<1", "\0",
    ];
    for text in texts {
        assert_eq!(refused(text), Some(XmlError::NotWellFormed), "{text}");
    }
    for text in ["x", "\u{e9}", "&amp;", "<![CDATA["] {
        assert_eq!(refused(text), Some(XmlError::StrayText), "{text}");
    }
    // What it is must not depend on the pieces in which it comes.
    assert_eq!(refused("<![CDATA"), None);
    assert_eq!(refused("<![CDAT#"), Some(XmlError::Restricted));
    for text in ["<a/>", "</a>"] {
        let found = answer(&Scanner::new(Limits::default()), text.as_bytes()).1;
        assert_eq!(found, Some(XmlError::NotWellFormed), "{text}");
    }
}

#[test]
fn a_frame_may_be_as_large_as_the_limit_and_no_larger() {
    let limits = Limits {
        size_max: 100,
        ..Limits::default()
    };
    let scanner = Scanner { limits, ..inside() };
    let sized = |size: usize| format!("<a>{}</a>", "x".repeat(size - 7));
    assert_eq!(
        answer(&scanner, sized(100).as_bytes()),
        (vec![Frame::Element(100)], None)
    );
    assert_eq!(
        answer(&scanner, sized(101).as_bytes()),
        (vec![], Some(XmlError::TooBig))
    );
    assert_eq!(
        answer(&scanner, sized(4_000).as_bytes()),
        (vec![], Some(XmlError::TooBig))
    );
}

#[test]
fn endless_headers_and_values_hit_the_limit_with_no_more_bytes_held_than_that() {
    let fill = "x".repeat(4 << 20);
    let texts = [
        format!("<stream:stream {fill}"),
        format!("<s a='{fill}"),
        format!("<?xml {fill}"),
    ];
    for text in texts {
        let mut scanner = Scanner::new(Limits {
            size_max: 64 << 10,
            ..Limits::default()
        });
        let mut held = 0;
        let found = loop {
            held += 1_000;
            if let Err(error) = scanner.next(&text.as_bytes()[..held]) {
                break error;
            }
        };
        assert_eq!(found, XmlError::TooBig);
        assert!(held < (64 << 10) + 1_000);
    }
}

#[test]
fn elements_nest_as_deep_as_the_limit_and_no_deeper() {
    let nested = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
    assert_eq!(
        answer(&inside(), nested(64).as_bytes()),
        (vec![Frame::Element(64 * 7)], None)
    );
    assert_eq!(refused(&nested(65)), Some(XmlError::TooDeep));
    let text = "<a>".repeat(64) + "<b/>";
    assert_eq!(refused(&text), Some(XmlError::TooDeep));
}

#[test]
fn an_element_has_as_many_attributes_as_the_limit_and_no_more() {
    let text = |count| {
        let attributes: String = (0..count).map(|i| format!(" a{i}='x'")).collect();
        format!("<m><a{attributes}/><b{attributes}/></m>")
    };
    assert_eq!(refused(&text(256)), None);
    assert_eq!(refused(&text(257)), Some(XmlError::TooManyAttributes));
}

#[test]
fn a_stanza_declares_as_many_namespaces_as_the_limit_and_no_more() {
    let text = |count| {
        let elements: String = (0..count)
            .map(|i| format!("<a x='y' xmlns:p{i} =\n'u' b='xmlns='/>"))
            .collect();
        format!("<m>{elements}</m><m>{elements}</m>")
    };
    assert_eq!(refused(&text(128)), None);
    assert_eq!(refused(&text(129)), Some(XmlError::TooManyNamespaces));
    let defaults = format!("<m>{}</m>", "<a xmlns='u'/>".repeat(129));
    assert_eq!(refused(&defaults), Some(XmlError::TooManyNamespaces));
}

#[test]
fn an_element_is_found_wherever_it_lies_in_a_block() {
    let step = if cfg!(miri) { 13 } else { 1 };
    for shift in (0..130).step_by(step) {
        let stanza = format!("<a>{}<b c='d'/></a>", "x".repeat(shift));
        let stream = format!("{stanza}<r/>");
        let expected = vec![Frame::Element(stanza.len()), Frame::Element(4)];
        assert_eq!(answer(&inside(), stream.as_bytes()), (expected, None));
    }
}

#[test]
fn limits_that_shrink_within_a_frame_end_it() {
    for text in [
        "<?xml version='1.0' ",
        "<stream:stream to='abc",
        "<",
        "<?xml version='1.0'?>\n ",
    ] {
        let mut scanner = Scanner::new(Limits::default());
        assert_eq!(scanner.next(text.as_bytes()), Ok(Frame::Incomplete));
        scanner.set_limits(Limits {
            size_max: 1,
            ..Limits::default()
        });
        assert_eq!(scanner.next(text.as_bytes()), Err(XmlError::TooBig));
    }
}
