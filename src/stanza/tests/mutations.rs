//! The fuzz harness of every build: damaged stanzas, judged alike by us and by `xml-rs`.
//!
//! The damage is drawn from a fixed seed, so a failure repeats; `tests/fuzz` looks further.

mod support;

use stanza::XmlError;
use stanza::frame::{Frame, Limits, NAMESPACES_MAX, Scanner};
use stanza::scope::StreamScope;
use stanza::tree::{DECLARATIONS_MAX, Tree};
use stanza::view::StanzaView;
use stanza::writer;
use support::{assert_same, corpus, oracle, scope};

const MUTATIONS: usize = 200_000;
/// Larger stanzas would only slow the oracle down.
const SIZE_MAX: usize = 1_000;

/// Pieces that matter to a parser.
const TOKENS: &[&str] = &[
    "<",
    ">",
    "/",
    "'",
    "\"",
    "=",
    "&",
    ";",
    " ",
    "\n",
    "\r",
    "\t",
    ":",
    "]]>",
    "<![CDATA[",
    "<!--",
    "-->",
    "<?",
    "?>",
    "&amp;",
    "&lt;",
    "&#10;",
    "&#x0;",
    "&#xD800;",
    "&#65;",
    "&foo;",
    "<a>",
    "</a>",
    "<a/>",
    " a='1'",
    " a='2'",
    " xmlns='urn:a'",
    " xmlns=''",
    " xmlns:e='urn:b'",
    "e:",
    " e:a='1'",
    " xmlns:f='urn:e'",
    " f:a='1'",
    " xmlns:g='urn:&#101;'",
    " g:a='1'",
    "xmlns:",
    " xml:lang='de'",
    "\0",
    "\u{1}",
    "\u{7f}",
    "\u{e9}",
    "\u{b7}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{1f916}",
    "\u{85}",
    "\u{2028}",
    "-",
    ".",
    "1",
    "<!DOCTYPE a>",
    "<stream:x/>",
    "</stream:stream>",
    "xmlns:xml='u'",
    "xmlns:xmlns='u'",
];

/// A generator of the same numbers every time (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % bound as u64) as usize
    }
}

/// Damages a stanza once.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(bytes.len() + 1);
    let end = (at + 1 + random.below(8)).min(bytes.len());
    match random.below(10) {
        0 | 1 => drop(bytes.drain(at..end)),
        2 => {
            let copy = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        4 => {
            let from = random.below(other.len());
            let piece = &other[from..(from + random.below(40)).min(other.len())];
            bytes.splice(at..end, piece.iter().copied());
        }
        _ => {
            let token = TOKENS[random.below(TOKENS.len())];
            // Half of the time at a border between markup and text, where it matters most.
            let border = bytes[at..].iter().position(|b| b"<>'\" =:".contains(b));
            let at = at + border.filter(|_| random.below(2) == 0).unwrap_or(0);
            bytes.splice(at..at, token.bytes());
        }
    }
}

/// The damaged stanzas.
fn mutations(seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut corpus = corpus();
    corpus.retain(|stanza| stanza.len() <= SIZE_MAX);
    let mut random = Random(seed);
    (0..MUTATIONS).map(move |_| {
        let mut bytes = corpus[random.below(corpus.len())].clone().into_bytes();
        for _ in 0..1 + random.below(3) {
            let other = random.below(corpus.len());
            mutate(&mut random, &mut bytes, corpus[other].as_bytes());
        }
        bytes
    })
}

/// What `xml-rs` accepts although XML 1.0 does not: `<` in an attribute value (3.1, AttValue), the
/// default namespace declared twice in a tag (3.1, unique attributes), and behind a prefix a name
/// that starts with what may only continue one (Namespaces in XML, 3).
fn xml_rs_is_lenient(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(less) = rest.iter().position(|&b| b == b'<') {
        rest = &rest[less + 1..];
        let mut defaults = 0;
        let mut quote = None;
        for (i, &byte) in rest.iter().enumerate() {
            match quote {
                Some(_) if byte == b'<' => return true,
                Some(open) if byte == open => quote = None,
                Some(_) => {}
                None if byte == b'\'' || byte == b'"' => quote = Some(byte),
                None if byte == b'>' || byte == b'<' => break,
                None if byte == b':' => {
                    let next = rest.get(i + 1).copied().unwrap_or_default();
                    if matches!(next, b'-' | b'.' | b'0'..=b'9' | 0x80..) {
                        return true;
                    }
                }
                None if rest[i..].starts_with(b"xmlns") => {
                    let after = rest[i + 5..].trim_ascii_start();
                    defaults += usize::from(after.starts_with(b"="));
                }
                None => {}
            }
        }
        if defaults > 1 {
            return true;
        }
    }
    false
}

#[test]
fn damaged_stanzas_are_judged_and_read_as_xml_rs_does() {
    let scope = scope();
    let (mut accepted, mut refused, mut lenient) = (0, 0, 0);
    let mut disagreements = Vec::new();
    for bytes in mutations(1) {
        let context = String::from_utf8_lossy(&bytes);
        let view = StanzaView::parse(&bytes, &scope);
        let tree = Tree::parse(&bytes, &scope);
        assert_eq!(view.as_ref().err(), tree.as_ref().err(), "{context}");
        let expected = oracle(&bytes);
        match (&view, &tree, expected) {
            (Ok(view), Ok(tree), Some(expected)) => {
                accepted += 1;
                assert_same(tree.root(), &expected, &context);
                let mut out = Vec::new();
                writer::restamp(view, &scope, "a@b", "c@d", &mut out).expect("few declarations");
                let again = StanzaView::parse(&out, &StreamScope::client());
                assert!(again.is_ok(), "{context}");
                let mut anew = Vec::new();
                tree.root().write(&mut anew).expect("few declarations");
                assert_eq!(oracle(&anew), Some(expected), "{context}");
            }
            (Err(_), Err(_), None) => refused += 1,
            (Err(XmlError::NotWellFormed), Err(_), Some(_)) if xml_rs_is_lenient(&bytes) => {
                lenient += 1;
            }
            (ours, _, theirs) => {
                let ours = ours.as_ref().err();
                disagreements.push(format!("{ours:?} against {}: {context}", theirs.is_some()));
            }
        }
    }
    disagreements.truncate(20);
    assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
    assert!(lenient < MUTATIONS / 50, "{lenient}");
    // The harness is worth something only if it sees both.
    assert!(
        accepted > MUTATIONS / 20 && refused > MUTATIONS / 20,
        "{accepted} {refused}"
    );
}

#[test]
fn damaged_streams_are_cut_the_same_by_every_scanner_and_in_every_packet() {
    let mut random = Random(3);
    for bytes in mutations(2) {
        let mut scanner = Scanner::headless(Limits::default());
        let expected = scanner.clone().next(&bytes);
        let mut scalar = scanner.clone().without_simd();
        let cut = random.below(bytes.len() + 1);
        for scanner in [&mut scanner, &mut scalar] {
            let found = match scanner.next(&bytes[..cut]) {
                Ok(Frame::Incomplete) => scanner.next(&bytes),
                // White space is reported as far as it was seen.
                Ok(Frame::Whitespace(_)) => continue,
                found => found,
            };
            assert_eq!(found, expected, "{cut} {}", String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn what_the_view_accepts_the_scanner_cuts_whole() {
    let scope = scope();
    let mut accepted = 0;
    for bytes in mutations(4) {
        let mut scanner = Scanner::headless(Limits::default());
        let found = scanner.next(&bytes);
        match StanzaView::parse(&bytes, &scope) {
            Ok(_) => {
                accepted += 1;
                assert_eq!(found, Ok(Frame::Element(bytes.len())));
            }
            // Restricted for the scanner is never plain malformed for the view of the same bytes,
            // unless something else is wrong before it.
            Err(XmlError::TooBig | XmlError::UnsupportedEncoding) => panic!("not in so few bytes"),
            Err(_) => {}
        }
    }
    assert!(accepted > MUTATIONS / 20);
}

/// A stanza whose own tag has a prefix, with exactly so many declarations on it and inside: some
/// hide others or the stream header's, some undo the default namespace, and the prefixes are used
/// by elements and attributes, `uses` times beyond that.
fn prefixed(declarations: usize, uses: usize, random: &mut Random) -> String {
    let mut text = "<c:message xmlns:c='jabber:client' to='q' id='1'".to_owned();
    let mut left = declarations - 1;
    // What is in force inside each open element: its tag's name, and the prefixes.
    let mut open = vec![("c:message".to_owned(), vec!["c".to_owned(), "e".to_owned()])];
    let on_root = random.below(left + 1);
    for number in 0..on_root {
        text += &format!(" xmlns:p{number}='urn:p{number}'");
        open[0].1.push(format!("p{number}"));
    }
    left -= on_root;
    let mut uses = uses;
    text += ">";
    while left > 0 || uses > 0 {
        let mut prefixes = open[open.len() - 1].1.clone();
        let mut declared = String::new();
        for turn in 0..random.below(4).min(left) {
            left -= 1;
            // Each once in a tag: the prefixes of `turn` differ from those of other turns.
            match (turn, random.below(3)) {
                (0, 0) => declared += " xmlns=''",
                (0, _) => declared += &format!(" xmlns='urn:d{}'", random.below(3)),
                (1, _) => declared += [" xmlns:c='urn:c'", " xmlns:e='jabber:client'"][left % 2],
                (_, pick) => {
                    declared += &format!(" xmlns:p{pick}='urn:o{left}'");
                    prefixes.push(format!("p{pick}"));
                }
            }
        }
        uses = uses.saturating_sub(1);
        let name = match random.below(4) {
            0 => "x".to_owned(),
            _ => format!("{}:x", prefixes[random.below(prefixes.len())]),
        };
        let attribute = &prefixes[random.below(prefixes.len())];
        text += &format!("<{name}{declared} {attribute}:a='&lt;' b='{left}'>&amp;");
        open.push((name, prefixes));
        while open.len() > 1 + random.below(12) && open.len() > 1 {
            text += &format!("</{}>", open.pop().expect("more than one").0);
        }
    }
    for (name, _) in open.into_iter().rev() {
        text += &format!("</{name}>");
    }
    text
}

#[test]
fn prefixed_stanzas_up_to_the_limit_of_declarations_are_written_anew_as_xml_rs_reads_them() {
    let scope = scope();
    let mut random = Random(5);
    let (mut written, mut refused) = (0, 0);
    for round in 0..2_000 {
        let declarations = 1 + round % usize::from(NAMESPACES_MAX);
        let uses = random.below(200);
        let stanza = prefixed(declarations, uses, &mut random);
        let bytes = stanza.as_bytes();
        let whole = Ok(Frame::Element(bytes.len()));
        let found = Scanner::headless(Limits::default()).next(bytes);
        assert_eq!(found, whole, "{declarations}: {stanza}");
        let view = StanzaView::parse(bytes, &scope).expect(&stanza);
        assert!(!view.is_plain());
        let mut expected = oracle(bytes).expect(&stanza);
        expected.stamp("from", "a@b/c");
        expected.stamp("to", "d@e");
        let mut out = b"before".to_vec();
        match writer::restamp(&view, &scope, "a@b/c", "d@e", &mut out) {
            Ok(()) => {
                written += 1;
                let out = &out["before".len()..];
                assert_eq!(oracle(out), Some(expected), "{stanza}");
                // It stands on its own: without the header whose prefix it may have used.
                let plain = StanzaView::parse(out, &StreamScope::client()).expect(&stanza);
                assert!(plain.is_plain(), "{stanza}");
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error, XmlError::TooManyNamespaces);
                assert_eq!(out, b"before", "nothing half is left");
                // Each element and each attribute with a prefix declares one at most.
                let most = 2 * stanza.matches("<").count();
                assert!(most > usize::from(DECLARATIONS_MAX), "{stanza}");
            }
        }
    }
    assert!(written > 500 && refused > 100, "{written} {refused}");
    for _ in 0..100 {
        let uses = random.below(200);
        let stanza = prefixed(usize::from(NAMESPACES_MAX) + 1, uses, &mut random);
        let found = Scanner::headless(Limits::default()).next(stanza.as_bytes());
        assert_eq!(found, Err(XmlError::TooManyNamespaces), "{stanza}");
    }
}
