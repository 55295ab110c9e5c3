//! How fast weights are counted, against a plain read of the same memory.
//!
//! One thread, 100 million float32 weights; `cargo bench --bench complexity`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use momos_core::Monitor;
use momos_core::complexity::floats::{Floats, WeightType};
use momos_core::complexity::signs::SignCounter;

const WEIGHTS: usize = 10_000 * 9_984;

/// Bytes of float32 noise, reproducible.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..WEIGHTS)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state as i32) as f32 * 1e-9).to_le_bytes()
        })
        .collect()
}

/// Exclusive or of everything: reads at the speed of memory, computes next to nothing.
fn read(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; 64];
    for chunk in bytes.as_chunks::<512>().0 {
        for (lane, word) in lanes.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *lane ^= u64::from_ne_bytes(*word);
        }
    }
    lanes.into_iter().fold(0, |all, lane| all ^ lane)
}

fn counting(criterion: &mut Criterion) {
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global()
        .expect("no pool yet");
    let bytes = noise();
    let weights = Floats::new(&bytes, WeightType::F32).expect("whole weights");
    let monitor = Monitor::new();
    let mut group = criterion.benchmark_group("count");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function(BenchmarkId::new("plain read", "f32"), |bencher| {
        bencher.iter(|| read(black_box(&bytes)));
    });
    group.bench_function(BenchmarkId::new("signs", "f32"), |bencher| {
        bencher.iter(|| {
            let mut counter = SignCounter::new();
            counter
                .update(black_box(weights), &monitor)
                .expect("not cancelled");
            counter.counts()[0]
        });
    });
    group.finish();
}

criterion_group!(benches, counting);
criterion_main!(benches);
