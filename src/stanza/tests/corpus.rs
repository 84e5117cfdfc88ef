//! The example stanzas of the XEPs: framed however they are cut, accepted, and read as by `xml-rs`.

mod support;

use stanza::frame::{Frame, Limits, Scanner};
use stanza::scope::StreamScope;
use stanza::tree::Tree;
use stanza::view::StanzaView;
use stanza::writer;
use support::{HEADER, assert_same, corpus, oracle, scope};

#[test]
fn every_stanza_is_framed_the_same_wherever_it_is_cut() {
    for stanza in corpus() {
        let bytes = stanza.as_bytes();
        let whole = Frame::Element(bytes.len());
        for cut in 0..=bytes.len() {
            let mut scanner = Scanner::headless(Limits::default());
            let mut scalar = scanner.clone().without_simd();
            for scanner in [&mut scanner, &mut scalar] {
                let first = scanner.next(&bytes[..cut]);
                if cut < bytes.len() {
                    assert_eq!(first, Ok(Frame::Incomplete), "{cut} {stanza}");
                    assert_eq!(scanner.next(bytes), Ok(whole), "{cut} {stanza}");
                } else {
                    assert_eq!(first, Ok(whole), "{stanza}");
                }
            }
        }
    }
}

#[test]
fn a_stream_of_all_stanzas_is_cut_into_them_whatever_the_packets() {
    let corpus: Vec<_> = corpus()
        .into_iter()
        .filter(|s| !s.contains("stream:stream"))
        .collect();
    let stream = format!("{HEADER}{}</stream:stream>", corpus.join("\n"));
    for size in [1, 7, 64, 1_000, 1_448, 65_536] {
        let mut scanner = Scanner::new(Limits::default());
        let mut stanzas = corpus.iter();
        let (mut start, mut end) = (0, 0);
        let mut is_closed = false;
        while !is_closed {
            let bytes = &stream.as_bytes()[start..end];
            let consumed = match scanner.next(bytes).expect("a well-formed stream") {
                Frame::Incomplete => {
                    assert!(end < stream.len(), "the stream ends with its end");
                    end = (end + size).min(stream.len());
                    0
                }
                Frame::Whitespace(n) => n,
                Frame::StreamOpen(n) => {
                    assert_eq!(&bytes[..n], HEADER.as_bytes());
                    n
                }
                Frame::Element(n) => {
                    let expected = stanzas.next().expect("as many frames as stanzas");
                    assert_eq!(&bytes[..n], expected.as_bytes());
                    n
                }
                Frame::StreamClose(n) => {
                    is_closed = true;
                    n
                }
            };
            start += consumed;
        }
        assert!(stanzas.next().is_none(), "as many stanzas as frames");
    }
}

#[test]
fn every_stanza_is_read_as_xml_rs_reads_it() {
    let scope = scope();
    for stanza in corpus() {
        let expected = oracle(stanza.as_bytes()).unwrap_or_else(|| panic!("refused: {stanza}"));
        let view = StanzaView::parse(stanza.as_bytes(), &scope).expect(&stanza);
        assert_eq!(view.name(), expected.name);
        let tree = Tree::parse(stanza.as_bytes(), &scope).expect(&stanza);
        assert_same(tree.root(), &expected, &stanza);
    }
}

#[test]
fn every_stanza_means_the_same_when_it_is_written_anew() {
    let scope = scope();
    for stanza in corpus() {
        let tree = Tree::parse(stanza.as_bytes(), &scope).expect(&stanza);
        let mut out = Vec::new();
        tree.root().write(&mut out).expect("few declarations");
        assert_eq!(oracle(&out), oracle(stanza.as_bytes()), "{stanza}");
    }
}

#[test]
fn every_stanza_differs_only_in_its_stamp_when_it_is_restamped() {
    let scope = scope();
    for stanza in corpus() {
        let view = StanzaView::parse(stanza.as_bytes(), &scope).expect(&stanza);
        let mut out = Vec::new();
        writer::restamp(&view, &scope, "a&b@x/'", "c@y", &mut out).expect("few declarations");
        let mut expected = oracle(stanza.as_bytes()).expect("well-formed");
        expected.stamp("from", "a&b@x/'");
        expected.stamp("to", "c@y");
        if view.ns().as_str() == "jabber:client" {
            assert_eq!(oracle(&out), Some(expected), "{stanza}");
        }
        let again = StanzaView::parse(&out, &StreamScope::client()).expect("still a stanza");
        assert_eq!(again.to().as_deref(), Some("c@y"));
    }
}
