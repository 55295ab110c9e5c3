//! The exact search against brute force in float64, whatever kernel and instruction set.

use momos_core::motifs::SplitMix64;
use momos_core::nearest::{
    Expected, Isa, Kernel, MotifSearch, Options, Searchable, largest_block, nearest_motifs,
    nearest_motifs_with, plan,
};
use momos_core::{ErrorKind, Monitor};
use proptest::prelude::*;

/// The contract, word for word, except that the scale is that of the largest value.
fn by_definition<T: Searchable>(blocks: &[T], motifs: &[T], size: usize) -> Vec<u32> {
    let largest = blocks
        .iter()
        .chain(motifs)
        .map(|value| value.to_f64().abs())
        .fold(f64::MIN_POSITIVE, f64::max);
    let scale = 2f64.powi((50 - largest.log2().floor() as i32).clamp(-1000, 1000));
    let nearest = |block: &[T]| {
        let mut best = (f64::INFINITY, u32::MAX);
        for (index, motif) in motifs.chunks(size).enumerate() {
            let mut distance = 0.0;
            for (x, z) in block.iter().zip(motif) {
                let difference = x.to_f64() * scale - z.to_f64() * scale;
                distance += difference * difference;
            }
            if distance < best.0 {
                best = (distance, index as u32);
            }
        }
        best.1
    };
    blocks.chunks(size).map(nearest).collect()
}

/// Asserts that every kernel with every instruction set gives the answers of the definition.
fn check<T: Searchable>(blocks: &[T], motifs: &[T], size: usize, what: &str) {
    let expected = by_definition(blocks, motifs, size);
    for kernel in Kernel::ALL
        .into_iter()
        .filter(|kernel| kernel.supports(size))
    {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let options = Options {
                kernel: Some(kernel),
                isa: Some(isa),
            };
            let monitor = Monitor::new();
            let found = nearest_motifs_with(blocks, motifs, size, options, &monitor).unwrap();
            let name = (kernel.name(), isa.name());
            let wrong = found.iter().zip(&expected).position(|(a, b)| a != b);
            assert_eq!(wrong, None, "{what}, s={size}, {name:?}: first wrong block");
            assert_eq!(found.len(), expected.len());
            assert_eq!(
                monitor.done(),
                (blocks.len() / size) as u64,
                "{what} {name:?}"
            );
        }
    }
}

/// Asserts that motifs that were added are found wherever they are nearer, and only there.
fn check_added<T: Searchable>(blocks: &[T], motifs: &[T], size: usize, first: usize) {
    let monitor = Monitor::new();
    let before = by_definition(blocks, &motifs[..first * size], size);
    let expected = Expected {
        blocks: blocks.len() / size,
        largest: largest_block(blocks, size).unwrap(),
    };
    // The scale must be that of all motifs.
    let nearest = by_definition(blocks, motifs, size);
    for kernel in Kernel::ALL
        .into_iter()
        .filter(|kernel| kernel.supports(size))
    {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let options = Options {
                kernel: Some(kernel),
                isa: Some(isa),
            };
            let search =
                MotifSearch::of_added(motifs, size, first, expected, options, &monitor).unwrap();
            let (found, distances) = search
                .nearest_with_added(blocks, Some(&before), &monitor)
                .unwrap();
            assert_eq!(found, nearest, "s={size}, {} {}", kernel.name(), isa.name());
            assert_eq!(distances, search.distances(blocks, &found).unwrap());
        }
    }
}

#[test]
fn added_motifs_are_compared_with_the_nearest_before() {
    let mut random = Random::new(11);
    for size in [1, 3, 4, 7, 20] {
        let mut values = |count: usize, spread: f64| -> Vec<f32> {
            let value = |random: &mut Random| spread * random.normal();
            random.values(count * size, value)
        };
        let blocks = values(700, 1.0);
        let mut motifs = values(60, 1.0);
        // Some far from all blocks, some equal to earlier ones, some that are blocks.
        motifs.extend(values(30, 100.0));
        motifs.extend_from_within(..10 * size);
        motifs.extend_from_slice(&blocks[..40 * size]);
        for first in [1, 60, 90, 100, 130] {
            check_added(&blocks, &motifs, size, first);
        }
        let wide = |values: &[f32]| values.iter().map(|&x| 1e200 * f64::from(x)).collect();
        let (blocks, motifs): (Vec<f64>, Vec<f64>) = (wide(&blocks), wide(&motifs));
        check_added(&blocks, &motifs, size, 60);
        // None but equals of earlier ones.
        let equal = [&motifs[..10 * size], &motifs[..5 * size]].concat();
        check_added(&blocks, &equal, size, 10);
    }
}

struct Random(SplitMix64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    fn values<T: Searchable>(
        &mut self,
        count: usize,
        mut value: impl FnMut(&mut Self) -> f64,
    ) -> Vec<T> {
        (0..count).map(|_| T::from_f64(value(self))).collect()
    }
}

const SIZES: [usize; 13] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 17, 32, 300];

#[test]
fn gaussian_blocks() {
    let mut random = Random::new(1);
    for size in SIZES {
        let blocks: Vec<f32> = random.values(333 * size, Random::normal);
        let motifs: Vec<f32> = random.values(150 * size, Random::normal);
        check(&blocks, &motifs, size, "gaussian");
        let blocks: Vec<f64> = random.values(100 * size, Random::normal);
        let motifs: Vec<f64> = random.values(150 * size, Random::normal);
        check(&blocks, &motifs, size, "gaussian f64");
    }
}

#[test]
fn blocks_that_are_motifs_find_themselves_or_their_first_copy() {
    let mut random = Random::new(2);
    for size in SIZES {
        let motifs: Vec<f32> = random.values(200 * size, Random::normal);
        let twice = [&motifs[..], &motifs[..]].concat();
        check(&motifs, &twice, size, "copies");
        let found = nearest_motifs(&motifs, &twice, size, &Monitor::new()).unwrap();
        assert!(found.into_iter().eq(0..200));
    }
}

#[test]
fn ties_on_a_grid_go_to_the_lowest_index() {
    let mut random = Random::new(3);
    for size in SIZES {
        let grid = |random: &mut Random| (random.unit() * 4.0).floor() - 2.0;
        let blocks: Vec<f32> = random.values(200 * size, grid);
        let motifs: Vec<f32> = random.values(300 * size, grid);
        check(&blocks, &motifs, size, "grid");
        let blocks: Vec<f64> = random.values(100 * size, |random| grid(random) + 0.5);
        let motifs: Vec<f64> = random.values(300 * size, grid);
        check(&blocks, &motifs, size, "half grid f64");
    }
}

#[test]
fn blocks_far_beyond_the_motifs_and_far_within() {
    let mut random = Random::new(30);
    for size in SIZES {
        for factor in [1e-6, 1e-3, 50.0, 1e6] {
            let value = |random: &mut Random| factor * random.normal();
            let blocks: Vec<f32> = random.values(150 * size, value);
            let motifs: Vec<f32> = random.values(300 * size, Random::normal);
            check(&blocks, &motifs, size, "another scale");
        }
    }
}

#[test]
fn zeros_of_either_sign_and_many_equal_blocks() {
    let mut random = Random::new(4);
    for size in SIZES {
        let sparse = |random: &mut Random| match random.0.below(10) {
            0 => random.normal(),
            1..5 => -0.0,
            _ => 0.0,
        };
        let mut blocks: Vec<f32> = random.values(400 * size, sparse);
        blocks.resize(800 * size, 0.0);
        let mut motifs: Vec<f32> = random.values(100 * size, sparse);
        motifs.resize(300 * size, -0.0);
        check(&blocks, &motifs, size, "sparse");
        check(
            &vec![0.25f32; 70 * size],
            &vec![0.25; 90 * size],
            size,
            "all equal",
        );
        check(
            &vec![0.25f64; 70 * size],
            &vec![-0.0; 90 * size],
            size,
            "two values",
        );
    }
}

#[test]
fn equal_blocks_are_searched_once_where_that_pays() {
    let mut random = Random::new(5);
    let size = 16;
    let pool: Vec<f32> = random.values(50 * size, Random::normal);
    let blocks: Vec<f32> = (0..6000)
        .flat_map(|_| {
            let index = random.0.below(50) as usize;
            pool[index * size..][..size].to_vec()
        })
        .collect();
    let motifs: Vec<f32> = random.values(40 * size, Random::normal);
    check(&blocks, &motifs, size, "few distinct blocks");
}

#[test]
fn fifty_scales_at_once() {
    let mut random = Random::new(6);
    for size in SIZES {
        for (low, high) in [(-8.0, -1.0), (-60.0, 60.0)] {
            let mut layers = |count: usize| -> Vec<f32> {
                (0..50)
                    .flat_map(|layer| {
                        let scale = 2f64.powf(low + (high - low) * f64::from(layer) / 49.0);
                        random.values::<f32>(count * size, |random| scale * random.normal())
                    })
                    .collect()
            };
            let (blocks, motifs) = (layers(4), layers(6));
            check(&blocks, &motifs, size, "fifty scales");
        }
    }
}

#[test]
fn subnormal_and_huge_values() {
    let mut random = Random::new(7);
    for size in [1, 2, 4, 7, 16] {
        for scale in [1e-44, 1e-38, 1e30, 3e37] {
            let value = |random: &mut Random| scale * random.normal();
            let blocks: Vec<f32> = random.values(60 * size, value);
            let motifs: Vec<f32> = random.values(80 * size, value);
            check(&blocks, &motifs, size, "extreme f32");
        }
        for scale in [5e-323, 1e-310, 1e-160, 1e160, 2e307] {
            let value = |random: &mut Random| scale * random.normal();
            let blocks: Vec<f64> = random.values(60 * size, value);
            let motifs: Vec<f64> = random.values(80 * size, value);
            check(&blocks, &motifs, size, "extreme f64");
        }
        // One huge value pushes all others towards underflow.
        let mut blocks: Vec<f32> = random.values(60 * size, |random| 1e-30 * random.normal());
        blocks[3] = 1e38;
        let motifs: Vec<f32> = random.values(80 * size, |random| 1e-30 * random.normal());
        check(&blocks, &motifs, size, "one outlier");
    }
}

#[test]
fn float64_values_that_coincide_in_float32() {
    let mut random = Random::new(8);
    for size in [1, 2, 3, 4, 8, 9, 33] {
        let value = |random: &mut Random| 1.0 + 1e-12 * random.normal();
        let blocks: Vec<f64> = random.values(60 * size, value);
        let motifs: Vec<f64> = random.values(80 * size, value);
        check(&blocks, &motifs, size, "one float32");
        let value = |random: &mut Random| random.unit().round() + 1e-9 * random.normal();
        let blocks: Vec<f64> = random.values(60 * size, value);
        let motifs: Vec<f64> = random.values(80 * size, value);
        check(&blocks, &motifs, size, "two float32");
    }
}

#[test]
fn few_blocks_few_motifs() {
    let mut random = Random::new(9);
    for size in [1, 2, 4, 5, 16] {
        for m in [0, 1, 2, 15, 16, 17, 33] {
            for k in [1, 2, 3, 16, 17, 65] {
                let blocks: Vec<f32> = random.values(m * size, Random::normal);
                let motifs: Vec<f32> = random.values(k * size, Random::normal);
                check(&blocks, &motifs, size, "few");
            }
        }
    }
}

#[test]
fn long_blocks() {
    let mut random = Random::new(10);
    for size in [255, 256, 257, 1000, 4096] {
        let blocks: Vec<f32> = random.values(37 * size, Random::normal);
        let motifs: Vec<f32> = random.values(70 * size, Random::normal);
        check(&blocks, &motifs, size, "long");
    }
}

#[test]
fn enough_blocks_for_several_chunks_and_buckets() {
    let mut random = Random::new(11);
    for size in [1, 2, 4] {
        let blocks: Vec<f32> = random.values(150_000 * size, Random::normal);
        let motifs: Vec<f32> = random.values(3000 * size, Random::normal);
        let options = |isa| Options {
            kernel: Some(Kernel::GroupTree),
            isa: Some(isa),
        };
        let search = |isa| {
            nearest_motifs_with(&blocks, &motifs, size, options(isa), &Monitor::new()).unwrap()
        };
        let found = search(Isa::best());
        assert_eq!(found, search(Isa::Portable));
        let sample = 149_000 * size..;
        assert_eq!(
            found[149_000..],
            by_definition(&blocks[sample], &motifs, size)
        );
    }
}

#[test]
fn threads_do_not_matter() {
    let mut random = Random::new(12);
    for size in [2, 4, 12] {
        let blocks: Vec<f32> = random.values(40_000 * size, Random::normal);
        let motifs: Vec<f32> = random.values(300 * size, Random::normal);
        let search = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| nearest_motifs(&blocks, &motifs, size, &Monitor::new()).unwrap())
        };
        let one = search(1);
        assert_eq!(one, search(2));
        assert_eq!(one, search(5));
    }
}

#[test]
fn what_is_not_finite_is_refused_by_row() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut blocks = vec![0.5f32; 40];
        blocks[21] = bad;
        let motifs = vec![1.0f32; 8];
        let error = nearest_motifs(&blocks, &motifs, 4, &Monitor::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().starts_with("blocks") && error.message().contains("row 5"));
        let error = nearest_motifs(&motifs, &blocks, 4, &Monitor::new()).unwrap_err();
        assert!(error.message().starts_with("motifs") && error.message().contains("row 5"));
    }
}

#[test]
fn a_cancelled_search_ends_early() {
    let mut random = Random::new(13);
    for (size, kernel) in [(2, Kernel::GroupTree), (16, Kernel::Brute)] {
        let blocks: Vec<f32> = random.values(100_000 * size, Random::normal);
        let motifs: Vec<f32> = random.values(2000 * size, Random::normal);
        let monitor = Monitor::new();
        monitor.cancel();
        let options = Options {
            kernel: Some(kernel),
            isa: None,
        };
        let error = nearest_motifs_with(&blocks, &motifs, size, options, &monitor).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        assert_eq!(monitor.done(), 0);
    }
}

#[test]
fn plans_name_a_kernel_that_supports_the_block_size() {
    for s in [1, 4, 8, 9, 4096] {
        for k in [1, 100, 1_000_000] {
            assert!(plan(1_000_000, k, s).kernel.supports(s));
        }
    }
    assert_eq!(plan(1_000_000, 50_000, 4).kernel, Kernel::GroupTree);
    assert_eq!(plan(1_000_000, 50_000, 2000).kernel, Kernel::Brute);
    let unsupported = Options {
        kernel: Some(Kernel::GroupTree),
        isa: None,
    };
    let motifs: Vec<f32> = (0..18).map(|i| i as f32).collect();
    let search = nearest_motifs_with(&[1.0f32; 9], &motifs, 9, unsupported, &Monitor::new());
    assert_eq!(search.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

/// Values that collide, nearly collide, and differ by orders of magnitude.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-3i32..4).prop_map(f64::from),
        (-3i32..4, -40i32..40).prop_map(|(a, e)| f64::from(a) * 2f64.powi(e)),
        -1.0..1.0,
        (0u32..4).prop_map(|ulps| f64::from(f32::from_bits(1f32.to_bits() + ulps))),
        (0u64..4).prop_map(|ulps| f64::from_bits(1f64.to_bits() + ulps)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_values(
        size in 1usize..12,
        blocks in proptest::collection::vec(value(), 0..400),
        motifs in proptest::collection::vec(value(), 12..900),
    ) {
        let whole = |values: &[f64]| values.len() / size * size;
        let (blocks, motifs) = (&blocks[..whole(&blocks)], &motifs[..whole(&motifs)]);
        check(blocks, motifs, size, "any f64");
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<_>>();
        check(&narrow(blocks), &narrow(motifs), size, "any f32");
    }
}
