//! One presence for twenty contacts, on one shard and across two.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sim::direct::{Direct, Seat};
use std::hint::black_box;

/// How many contacts are told.
const CONTACTS: usize = 20;

/// One client whose twenty contacts are available, spread over the shards.
fn clique(shards: u16) -> (Direct, Vec<Seat>) {
    let mut direct = Direct::new(shards);
    let names: Vec<String> = (0..=CONTACTS)
        .map(|number| direct.name(number as u16 % shards, number))
        .collect();
    direct.account(&names[0], &names[1..]);
    for name in &names[1..] {
        direct.account(name, &names[..1]);
    }
    let seats: Vec<Seat> = names.iter().map(|name| direct.login(name)).collect();
    for seat in &seats {
        direct.say(*seat, b"<presence/>");
        direct.end_turn();
    }
    (direct, seats)
}

/// Bytes that the last contact has of this presence, where every contact has it once.
fn arriving(direct: &mut Direct, seats: &[Seat], presence: &str) -> usize {
    direct.say(seats[0], presence.as_bytes());
    for contact in &seats[1..] {
        let output = direct.output(*contact);
        let starts = output.windows(9).filter(|bytes| bytes == b"<presence");
        assert_eq!(starts.count(), 1, "each contact is told once");
    }
    let size = direct.output(seats[CONTACTS]).len();
    direct.end_turn();
    size
}

fn fanout(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("presence to 20");
    group.throughput(Throughput::Elements(CONTACTS as u64));
    let presence = "<presence><show>away</show><status>back in a few minutes</status></presence>";
    for (name, shards) in [("one shard", 1), ("two shards", 2)] {
        let (mut direct, seats) = clique(shards);
        let expected = arriving(&mut direct, &seats, presence);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                direct.say(seats[0], black_box(presence.as_bytes()));
                assert_eq!(direct.output(seats[CONTACTS]).len(), expected);
                direct.end_turn();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, fanout);
criterion_main!(benches);
