//! A message from one client to another: bytes in, bytes out, on one shard and across two.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sim::direct::{Direct, Seat};
use std::hint::black_box;

/// Bytes of the message.
const SIZE: usize = 200;

/// How many messages fit a turn.
const BATCH: usize = 32;

/// Two clients, both available, and a message of 200 bytes from the first to the second.
fn pair(shards: u16, shard: u16) -> (Direct, Seat, Seat, String) {
    let mut direct = Direct::new(shards);
    let (from, to) = (direct.name(0, 1), direct.name(shard, 2));
    direct.account(&from, &[]);
    direct.account(&to, &[]);
    let (alice, bob) = (direct.login(&from), direct.login(&to));
    for seat in [alice, bob] {
        direct.say(seat, b"<presence/>");
        direct.end_turn();
    }
    let head = format!("<message to='{to}@example.org/r' type='chat' id='m-1234567'><body>");
    let tail = "</body></message>";
    let body = "x".repeat(SIZE - head.len() - tail.len());
    (direct, alice, bob, format!("{head}{body}{tail}"))
}

fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    group.throughput(Throughput::Elements(1));
    for (name, shards, shard) in [("one shard", 1, 0), ("two shards", 2, 1)] {
        let (mut direct, alice, bob, message) = pair(shards, shard);
        let expected = arriving(&mut direct, alice, bob, &message, 1);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                direct.say(alice, black_box(message.as_bytes()));
                assert_eq!(direct.output(bob).len(), expected);
                direct.end_turn();
            });
        });
    }
    group.finish();
}

/// Bytes that so many messages in one piece come to at the other side, where all of them arrive.
fn arriving(direct: &mut Direct, alice: Seat, bob: Seat, messages: &str, count: usize) -> usize {
    direct.say(alice, messages.as_bytes());
    let output = direct.output(bob);
    let starts = output.windows(8).filter(|bytes| bytes == b"<message");
    assert_eq!(starts.count(), count, "each message arrives once");
    let size = output.len();
    direct.end_turn();
    size
}

/// As many messages as fit a turn, in one piece: what a busy connection costs.
fn route_batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("route {BATCH} at once"));
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, shards, shard) in [("one shard", 1, 0), ("two shards", 2, 1)] {
        let (mut direct, alice, bob, message) = pair(shards, shard);
        let messages = message.repeat(BATCH);
        let expected = arriving(&mut direct, alice, bob, &messages, BATCH);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                direct.say(alice, black_box(messages.as_bytes()));
                assert_eq!(direct.output(bob).len(), expected);
                direct.end_turn();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, route, route_batch);
criterion_main!(benches);
