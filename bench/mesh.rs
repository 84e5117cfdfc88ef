//! What it costs to hand parcels from one shard to another: per item, published in batches.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ring::spsc;
use std::hint::black_box;
use xmpp::ShardId;
use xmpp::parcel::Parcel;

/// Parcels of one turn.
const BATCH: usize = 64;
const CAPACITY: usize = 4096;
/// Parcels that cross threads in one iteration.
const CROSSING: u64 = 100_000;

fn parcel(bytes: Vec<u8>) -> Parcel {
    Parcel::Stanza {
        bytes,
        home: ShardId(0),
        origin: None,
    }
}

/// Push, publish and pop on one thread: the instructions alone.
fn push_and_pop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh");
    group.throughput(Throughput::Elements(BATCH as u64));
    let (mut producer, mut consumer) = spsc::lane(CAPACITY);
    group.bench_function("push_and_pop", |bencher| {
        bencher.iter(|| {
            for _ in 0..BATCH {
                let pushed = producer.push(parcel(black_box(Vec::new())));
                assert!(pushed.is_ok(), "the lane was drained");
            }
            producer.publish();
            while let Some(item) = consumer.pop() {
                black_box(item);
            }
        });
    });
    group.finish();
}

/// A producer and a consumer on two threads, both always busy.
fn cross(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh");
    group.throughput(Throughput::Elements(CROSSING));
    group.sample_size(20);
    group.bench_function("cross_threads", |bencher| {
        bencher.iter_batched(
            || spsc::lane(CAPACITY),
            |(mut producer, mut consumer)| {
                std::thread::scope(|scope| {
                    scope.spawn(move || {
                        for number in 0..CROSSING {
                            let mut item = parcel(Vec::new());
                            while let Err(back) = producer.push(item) {
                                item = back;
                                producer.publish();
                                std::thread::yield_now();
                            }
                            if number % BATCH as u64 == 0 {
                                producer.publish();
                            }
                        }
                    });
                    for _ in 0..CROSSING {
                        while consumer.pop().is_none() {
                            std::thread::yield_now();
                        }
                    }
                });
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, push_and_pop, cross);
criterion_main!(benches);
