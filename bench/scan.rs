//! Framing: one message of 241 bytes cut from a stream, against general XML readers as baselines.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stanza::frame::{Frame, Limits, Scanner};
use std::hint::black_box;

/// A message as a client sends it: 241 bytes.
const MESSAGE: &str = "<message to='juliet@capulet.example/balcony' type='chat' \
    id='7f3c9a52' xml:lang='en'><body>Art thou not Romeo, and a Montague? It is I, \
    0123456789 0123456789.</body>\
    <active xmlns='http://jabber.org/protocol/chatstates'/><request /></message>";

fn scan(c: &mut Criterion) {
    assert_eq!(MESSAGE.len(), 241);
    let bytes = MESSAGE.as_bytes();
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let mut scanner = Scanner::headless(Limits::default());
    group.bench_function("scanner", |b| {
        b.iter(|| {
            let frame = scanner.next(black_box(bytes));
            assert!(matches!(frame, Ok(Frame::Element(241))));
        });
    });
    let mut scalar = Scanner::headless(Limits::default()).without_simd();
    group.bench_function("scanner without simd", |b| {
        b.iter(|| scalar.next(black_box(bytes)))
    });
    let mut cut = Scanner::headless(Limits::default());
    group.bench_function("scanner in two packets", |b| {
        b.iter(|| {
            let first = cut.next(black_box(&bytes[..120]));
            let second = cut.next(black_box(bytes));
            (first, second)
        });
    });
    group.bench_function("quick-xml", |b| {
        b.iter(|| {
            let mut reader = quick_xml::Reader::from_reader(black_box(bytes));
            let mut count = 0;
            loop {
                match reader.read_event().expect("well-formed") {
                    quick_xml::events::Event::Eof => break count,
                    _ => count += 1,
                }
            }
        });
    });
    group.bench_function("xml-rs", |b| {
        b.iter(|| xml::EventReader::new(black_box(bytes)).into_iter().count());
    });
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
