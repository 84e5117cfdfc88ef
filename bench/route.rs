//! A message from one client to another: bytes in, bytes out, on one shard and across two.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sim::direct::{Direct, Seat};
use std::hint::black_box;

/// Bytes of the message.
const SIZE: usize = 200;

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
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                direct.say(alice, black_box(message.as_bytes()));
                let size = direct.output(bob).len();
                direct.end_turn();
                size
            });
        });
    }
    group.finish();
}

/// As many messages as fit a turn, in one piece: what a busy connection costs.
fn route_batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route 32 at once");
    group.throughput(Throughput::Elements(32));
    for (name, shards, shard) in [("one shard", 1, 0), ("two shards", 2, 1)] {
        let (mut direct, alice, bob, message) = pair(shards, shard);
        let messages = message.repeat(32);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                direct.say(alice, black_box(messages.as_bytes()));
                let size = direct.output(bob).len();
                direct.end_turn();
                size
            });
        });
    }
    group.finish();
}

criterion_group!(benches, route, route_batch);
criterion_main!(benches);
