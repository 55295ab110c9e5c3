//! Lloyd's iterations: what they promise, at any number of threads.

use momos_core::motifs::{SplitMix64, lloyd, select};
use momos_core::nearest::{
    Expected, MotifSearch, Options, Searchable, largest_block, nearest_motifs,
};
use momos_core::{ErrorKind, Monitor};
use proptest::prelude::*;

fn values<T: Searchable>(count: usize, seed: u64, scale: f64) -> Vec<T> {
    let mut random = SplitMix64::new(seed);
    let mut unit = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    (0..count)
        .map(|_| T::from_f64(scale * (unit() + unit() + unit() - 1.5)))
        .collect()
}

fn rows<T: Searchable>(blocks: &[T], size: usize, chosen: &[u64]) -> Vec<T> {
    chosen
        .iter()
        .flat_map(|&index| blocks[index as usize * size..][..size].to_vec())
        .collect()
}

fn distortion<T: Searchable>(blocks: &[T], motifs: &[T], indices: &[u32], size: usize) -> f64 {
    blocks
        .chunks(size)
        .zip(indices)
        .flat_map(|(block, &index)| block.iter().zip(&motifs[index as usize * size..][..size]))
        .map(|(x, z)| (x.to_f64() - z.to_f64()).powi(2))
        .sum()
}

#[test]
fn distortion_never_rises_and_is_that_of_the_result() {
    for size in [1, 2, 4, 11] {
        let blocks: Vec<f32> = values(5000 * size, 1, 0.1);
        let motifs = rows(&blocks, size, &select(5000, 100, 2, false).unwrap());
        let monitor = Monitor::new();
        let refined = lloyd(&blocks, &motifs, size, 10, false, &monitor).unwrap();
        assert_eq!(refined.distortions.len(), 11);
        assert_eq!(monitor.done(), 11 * 5000);
        // Rounding the means to float32 may cost a little.
        assert!(
            refined
                .distortions
                .is_sorted_by(|a, b| *b <= a * (1.0 + 1e-6))
        );
        assert!(refined.distortions[10] < 0.9 * refined.distortions[0]);
        let expected = distortion(&blocks, &refined.motifs, &refined.indices, size);
        assert!((refined.distortions[10] / expected - 1.0).abs() < 1e-9);
        let again = nearest_motifs(&blocks, &refined.motifs, size, &monitor).unwrap();
        assert_eq!(refined.indices, again);
    }
}

#[test]
fn threads_do_not_matter() {
    let blocks: Vec<f32> = values(60_000, 3, 1.0);
    let motifs = rows(&blocks, 3, &select(20_000, 700, 4, false).unwrap());
    let refine = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| lloyd(&blocks, &motifs, 3, 4, false, &Monitor::new()).unwrap())
    };
    let one = refine(1);
    assert_eq!(one, refine(2));
    assert_eq!(one, refine(7));
}

#[test]
fn no_iteration_is_a_search() {
    let blocks: Vec<f64> = values(300, 5, 1.0);
    let refined = lloyd(&blocks, &blocks[..30], 3, 0, false, &Monitor::new()).unwrap();
    assert_eq!(refined.motifs, blocks[..30]);
    assert_eq!(refined.distortions.len(), 1);
}

#[test]
fn it_ends_when_nothing_moves() {
    let blocks = [1.0f32, 1.0, 3.0, 3.0];
    let monitor = Monitor::new();
    let refined = lloyd(&blocks, &[0.0, 5.0], 1, 100, false, &monitor).unwrap();
    assert_eq!(refined.motifs, [1.0, 3.0]);
    assert_eq!(refined.indices, [0, 0, 1, 1]);
    assert_eq!(refined.distortions, [10.0, 0.0]);
    assert_eq!(monitor.done(), 8);
}

#[test]
fn motifs_without_blocks_stay() {
    let blocks = [1.0f32, 2.0];
    let motifs = [1.5, 100.0, 1.5];
    let refined = lloyd(&blocks, &motifs, 1, 5, false, &Monitor::new()).unwrap();
    assert_eq!(refined.motifs, motifs);
    assert_eq!(refined.indices, [0, 0]);
}

#[test]
fn a_fixed_zero_never_moves() {
    let blocks: Vec<f32> = values(4000, 6, 1.0);
    let mut motifs = vec![0.0; 4];
    motifs.extend(rows(&blocks, 4, &select(1000, 20, 7, true).unwrap()));
    let refined = lloyd(&blocks, &motifs, 4, 5, true, &Monitor::new()).unwrap();
    assert_eq!(refined.motifs[..4], [0.0; 4]);
    assert!(refined.indices.contains(&0));
    let moved = lloyd(&blocks, &motifs, 4, 5, false, &Monitor::new()).unwrap();
    assert_ne!(moved.motifs[..4], [0.0; 4]);
    let refused = lloyd(&blocks, &motifs[4..], 4, 5, true, &Monitor::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn huge_values_have_finite_means() {
    // Sizes whose sums have code of their own, and one without.
    for size in [1, 2, 4, 8] {
        let repeated = |values: &[f64]| -> Vec<f64> {
            let values = values.iter();
            values.flat_map(|&value| vec![value; size]).collect()
        };
        let blocks = repeated(&[1.6e308, 1.7e308, 1.8e307, -1.7e308]);
        let motifs = repeated(&[1.0e308, -1.0e308]);
        let refined = lloyd(&blocks, &motifs, size, 5, false, &Monitor::new()).unwrap();
        assert!(refined.motifs.iter().all(|value| value.is_finite()));
        assert_eq!(refined.motifs[size..], repeated(&[-1.7e308]));
    }
}

proptest! {
    #[test]
    fn means_are_means(seed in any::<u64>(), size in 1usize..6, k in 1usize..20) {
        let blocks: Vec<f64> = values(200 * size, seed, 1.0);
        let motifs = &blocks[..k * size];
        let first = nearest_motifs(&blocks, motifs, size, &Monitor::new()).unwrap();
        let refined = lloyd(&blocks, motifs, size, 1, false, &Monitor::new()).unwrap();
        for motif in 0..k {
            for d in 0..size {
                let members = || {
                    (0..200).filter(|&i| first[i] as usize == motif).map(|i| blocks[i * size + d])
                };
                // The sum in the order of the blocks, to the bit.
                let mean = members().sum::<f64>() / members().count() as f64;
                prop_assert_eq!(refined.motifs[motif * size + d], mean);
            }
        }
    }
}

/// A grid of few values has ties everywhere; half of the motifs move by a little or a lot.
fn moved_motifs<T: Searchable>(motifs: &[T], size: usize, one_in: usize) -> (Vec<T>, Vec<bool>) {
    let mut motifs = motifs.to_vec();
    let moved: Vec<bool> = (0..motifs.len() / size)
        .map(|motif| motif % one_in == 1)
        .collect();
    for (motif, &moved) in motifs.chunks_mut(size).zip(&moved) {
        if moved {
            for value in motif {
                *value = T::from_f64((value.to_f64() * 2.0).round() * 0.5 + 0.5);
            }
        }
    }
    (motifs, moved)
}

#[test]
fn searching_again_gives_what_a_new_search_does() {
    for size in [1, 2, 4, 8, 20] {
        let coarse = |values: Vec<f32>| -> Vec<f32> {
            values.into_iter().map(|x| (x * 8.0).round()).collect()
        };
        let blocks = coarse(values(3000 * size, 8, 1.0));
        let motifs = coarse(values(300 * size, 9, 1.0));
        let previous = nearest_motifs(&blocks, &motifs, size, &Monitor::new()).unwrap();
        for one_in in [2, 3, 50, usize::MAX] {
            let (motifs, moved) = moved_motifs(&motifs, size, one_in);
            let expected = Expected {
                blocks: 3000,
                largest: largest_block(&blocks, size).unwrap(),
            };
            let monitor = Monitor::new();
            let search =
                MotifSearch::new(&motifs, size, expected, Options::default(), &monitor).unwrap();
            let again = search
                .nearest_again(&blocks, &previous, &moved, &monitor)
                .unwrap();
            assert_eq!(monitor.done(), 3000);
            let anew = nearest_motifs(&blocks, &motifs, size, &Monitor::new()).unwrap();
            assert_eq!(again, anew, "s={size}, one in {one_in} moved");
            // In pieces.
            let pieces: Vec<u32> = blocks
                .chunks(701 * size)
                .flat_map(|blocks| search.nearest(blocks, &monitor).unwrap())
                .collect();
            assert_eq!(pieces, anew);
        }
    }
}

#[test]
fn a_search_refuses_blocks_that_were_not_announced() {
    let expected = Expected {
        blocks: 2,
        largest: 1.0,
    };
    let monitor = Monitor::new();
    let motifs = [0.0f32, 1.0];
    let search = MotifSearch::new(&motifs, 1, expected, Options::default(), &monitor).unwrap();
    assert_eq!(search.nearest(&[0.4, 0.6], &monitor).unwrap(), [0, 1]);
    let refused = |blocks: &[f32], previous: &[u32], moved: &[bool]| {
        let result = search.nearest_again(blocks, previous, moved, &Monitor::new());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidArgument);
    };
    refused(&[2.0], &[0], &[true, false]);
    refused(&[0.5], &[2], &[true, false]);
    refused(&[0.5], &[], &[true, false]);
    refused(&[0.5], &[0], &[true]);
}
