//! The check for well-formedness with the facts of routing, the stamp, and trees, of one message of
//! 241 bytes; namespace-aware readers as baselines.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stanza::jid::Jid;
use stanza::scope::StreamScope;
use stanza::tree::Tree;
use stanza::view::StanzaView;
use stanza::writer;
use std::hint::black_box;

/// A message as a client sends it: 241 bytes.
const MESSAGE: &str = "<message to='juliet@capulet.example/balcony' type='chat' \
    id='7f3c9a52' xml:lang='en'><body>Art thou not Romeo, and a Montague? It is I, \
    0123456789 0123456789.</body>\
    <active xmlns='http://jabber.org/protocol/chatstates'/><request /></message>";

fn view(c: &mut Criterion) {
    assert_eq!(MESSAGE.len(), 241);
    let bytes = MESSAGE.as_bytes();
    let scope = StreamScope::client();
    let mut group = c.benchmark_group("view");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("view", |b| {
        b.iter(|| StanzaView::parse(black_box(bytes), &scope).expect("well-formed"));
    });
    let foreign = MESSAGE.replace("Montague", "Montagü").into_bytes();
    group.bench_function("view above ascii", |b| {
        b.iter(|| StanzaView::parse(black_box(&foreign), &scope).expect("well-formed"));
    });
    group.bench_function("jid", |b| {
        b.iter(|| Jid::parse(black_box("juliet@capulet.example/balcony")).expect("a JID"));
    });
    let view = StanzaView::parse(bytes, &scope).expect("well-formed");
    let mut out = Vec::with_capacity(1_024);
    group.bench_function("restamp", |b| {
        b.iter(|| {
            out.clear();
            let (from, to) = (
                "romeo@montague.example/orchard",
                "juliet@capulet.example/balcony",
            );
            writer::restamp(black_box(&view), &scope, from, to, &mut out).expect("plain");
            out.len()
        });
    });
    group.bench_function("tree", |b| {
        b.iter(|| Tree::parse(black_box(bytes), &scope).expect("well-formed"));
    });
    group.bench_function("quick-xml with namespaces", |b| {
        b.iter(|| {
            let mut reader = quick_xml::NsReader::from_reader(black_box(bytes));
            let mut count = 0;
            loop {
                match reader.read_resolved_event().expect("well-formed").1 {
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

criterion_group!(benches, view);
criterion_main!(benches);
