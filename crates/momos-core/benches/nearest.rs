//! The nearest-motif search on one thread, kernel by kernel, and a Lloyd update beside it.
//!
//! Every kernel's answers are compared before it is timed.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use momos_core::Monitor;
use momos_core::motifs::{SplitMix64, distinct, lloyd};
use momos_core::nearest::{Kernel, Options, nearest_motifs, nearest_motifs_with};

/// Sums of uniform numbers, near enough to a normal distribution.
fn gaussian(count: usize, seed: u64) -> Vec<f32> {
    let mut random = SplitMix64::new(seed);
    let mut unit = || (random.next_u64() >> 40) as f32 / (1u64 << 24) as f32;
    (0..count)
        .map(|_| (0..6).map(|_| unit()).sum::<f32>() - 3.0)
        .collect()
}

fn search(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nearest");
    group.sample_size(10);
    for (s, m, k) in [
        (2, 250_000, 12_500),
        (4, 250_000, 12_500),
        (8, 20_000, 12_500),
        (32, 10_000, 3_100),
    ] {
        let blocks = gaussian(m * s, 1);
        let motifs = &gaussian(k * s, 2);
        let expected = nearest_motifs(&blocks, motifs, s, &Monitor::new()).expect("a search");
        group.throughput(Throughput::Elements(m as u64));
        for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.supports(s)) {
            let options = Options {
                kernel: Some(kernel),
                isa: None,
            };
            let run = || nearest_motifs_with(&blocks, motifs, s, options, &Monitor::new());
            assert_eq!(run().expect("a search"), expected);
            let name = BenchmarkId::new(kernel.name(), format!("s={s} m={m} k={k}"));
            group.bench_function(name, |bencher| bencher.iter(|| black_box(run())));
        }
    }
    group.finish();
}

fn refine(criterion: &mut Criterion) {
    let (s, m, k) = (4, 250_000, 12_500);
    let blocks = gaussian(m * s, 1);
    let motifs = &blocks[..k * s];
    let mut group = criterion.benchmark_group("motifs");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(m as u64));
    // The difference to the search of the same size is the cost of the sums.
    group.bench_function("search and sums", |bencher| {
        bencher.iter(|| black_box(lloyd(&blocks, motifs, s, 0, false, &Monitor::new())));
    });
    let repeated: Vec<f32> = blocks[..4000].iter().copied().cycle().take(m * s).collect();
    let found = distinct(&repeated, s, 1000, &Monitor::new()).expect("a search");
    assert_eq!(found.expect("few blocks").first.len(), 1000);
    group.bench_function("distinct", |bencher| {
        bencher.iter(|| black_box(distinct(&repeated, s, 1000, &Monitor::new())));
    });
    group.finish();
}

fn one_thread(_: &mut Criterion) {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(1);
    builder.build_global().expect("the pool is not in use yet");
}

criterion_group!(benches, one_thread, search, refine);
criterion_main!(benches);
