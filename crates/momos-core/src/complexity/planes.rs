//! The bit-planes of a uniformly quantised matrix, counted in 4x4 blocks.
//!
//! Quantised bit-plane BDM (QuBD, arXiv 2605.15551) rounds every weight to one of `2^bits` levels
//! between a low and a high end, and measures each bit of the level as a binary matrix of its own.
//! No plane is ever written out: a strip of four rows is quantised in registers and cut into the
//! keys of its blocks, a batch of keys is counted plane by plane.

use super::floats::{Floats, WeightType};
use super::matrix::Matrix;
use super::quantiser::Quantiser;
use super::signs;
use super::tasks;
use crate::simd::Available;
pub use crate::simd::bit_planes::WIDTH;
use crate::simd::bit_planes::{self, keys_of_levels};
use crate::{Error, Monitor, Result};

/// Number of distinct blocks.
pub const KEYS: usize = 1 << (WIDTH * WIDTH);

/// Blocks whose keys are collected before they are counted, so that the counters of one plane
/// stay in the second-level cache.
const BATCH: usize = 1 << 15;

/// Blocks quantised at a time: their rows, widened to float32, stay in the first-level cache.
const SEGMENT: usize = 128;

/// Blocks whose signs are packed at a time: more, since a sign is a bit.
const SIGN_SEGMENT: usize = 1024;

/// What becomes a binary matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Planes {
    /// One plane: `w > 0`.
    Signs,
    /// The planes of the level, least significant first.
    Levels(Quantiser),
}

impl Planes {
    fn count(self) -> usize {
        match self {
            Self::Signs => 1,
            Self::Levels(quantiser) => quantiser.bits() as usize,
        }
    }
}

/// Counts the 4x4 blocks of every plane of a matrix of `columns` columns, rows one after another,
/// in the partition that ignores what is not covered by a whole block. Returns the counters of each
/// plane by key. Reports weights to the monitor, counted by the rows they are in.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if the rows are not whole;
/// [`crate::ErrorKind::Interrupted`].
pub fn count(
    weights: Floats<'_>,
    columns: usize,
    planes: Planes,
    monitor: &Monitor,
) -> Result<Vec<Vec<u32>>> {
    let matrix = Matrix::new(weights, columns)?;
    let (down, across) = (matrix.rows() / WIDTH, columns / WIDTH);
    let blocks = down * across;
    if u32::try_from(blocks).is_err() {
        return Err(Error::invalid_argument(format!(
            "{blocks} blocks are more than the 2^32 that a matrix can be counted in"
        )));
    }
    let counted = tasks::fold(
        blocks.div_ceil(BATCH),
        || Counters::new(planes.count()),
        |counters, batch| {
            let range = batch * BATCH..blocks.min((batch + 1) * BATCH);
            counters.count(&matrix, across, range.clone(), planes, monitor)?;
            monitor.advance((range.len() * WIDTH * WIDTH) as u64);
            Ok(())
        },
        Counters::finish,
        Counters::join,
    )?;
    monitor.advance((weights.len() - blocks * WIDTH * WIDTH) as u64);
    Ok(counted.totals)
}

/// The counters of one thread, and its scratch space.
struct Counters {
    totals: Vec<Vec<u32>>,
    /// What is not in the totals yet: a quarter of their size, so that twice as many increments
    /// meet the first-level cache.
    small: Vec<Vec<u8>>,
    keys: Vec<u16>,
}

/// What a small counter hands over when it overflows.
const OVERFLOW: u32 = 1 << u8::BITS;

/// Room for one more vector of keys after the last.
const SLACK: usize = bit_planes::COLUMNS / WIDTH;

impl Counters {
    fn new(planes: usize) -> Self {
        Self {
            totals: vec![vec![0; KEYS]; planes],
            small: vec![vec![0; KEYS]; planes],
            keys: Vec::new(),
        }
    }

    /// Completes the totals.
    fn finish(&mut self) {
        for (totals, small) in self.totals.iter_mut().zip(&mut self.small) {
            tasks::add(totals, small);
            small.fill(0);
        }
    }

    fn join(&mut self, other: Self) {
        for (left, right) in self.totals.iter_mut().zip(&other.totals) {
            tasks::add(left, right);
        }
    }

    /// Counts blocks numbered along strips, `across` to a strip; at most [`BATCH`] of them.
    fn count(
        &mut self,
        matrix: &Matrix<'_>,
        across: usize,
        blocks: std::ops::Range<usize>,
        planes: Planes,
        monitor: &Monitor,
    ) -> Result<()> {
        let stride = blocks.len() + SLACK;
        self.keys.resize(stride * planes.count(), 0);
        let segment = match planes {
            Planes::Signs => SIGN_SEGMENT,
            Planes::Levels(_) => SEGMENT,
        };
        let mut block = blocks.start;
        while block < blocks.end {
            monitor.check()?;
            let (strip, first) = (block / across, block % across);
            let last = across.min(first + blocks.end - block).min(first + segment);
            let rows = matrix.strip(strip * WIDTH, first * WIDTH, last * WIDTH);
            let at = &mut self.keys[block - blocks.start..];
            match planes {
                Planes::Signs => sign_keys(rows, at),
                Planes::Levels(quantiser) => level_keys(rows, quantiser, stride, at),
            }
            block += last - first;
        }
        let counters = self.totals.iter_mut().zip(&mut self.small);
        for (plane, (totals, small)) in counters.enumerate() {
            let small: &mut [u8; KEYS] = small.as_mut_slice().try_into().expect("one per key");
            for &key in &self.keys[plane * stride..][..blocks.len()] {
                let counter = &mut small[key as usize];
                *counter = counter.wrapping_add(1);
                if *counter == 0 {
                    totals[key as usize] += OVERFLOW;
                }
            }
        }
        Ok(())
    }
}

/// Writes the keys of the sign plane of a strip.
fn sign_keys(rows: [Floats<'_>; WIDTH], keys: &mut [u16]) {
    let columns = rows[0].len();
    let mut words = [[0u64; SIGN_SEGMENT * WIDTH / 64]; WIDTH];
    for (row, words) in rows.iter().zip(&mut words) {
        signs::pack(*row, &mut words[..columns.div_ceil(64)]);
    }
    for (word, keys) in keys[..columns / WIDTH].chunks_mut(64 / WIDTH).enumerate() {
        let sixteen = keys_of_words(words.each_ref().map(|row| row[word]));
        keys.copy_from_slice(&sixteen[..keys.len()]);
    }
}

/// The keys of the sixteen blocks of four rows of 64 bits.
#[inline]
fn keys_of_words(rows: [u64; WIDTH]) -> [u16; 64 / WIDTH] {
    const LOW: u64 = 0x0F0F_0F0F_0F0F_0F0F;
    // Each byte of a row holds four columns of an even block and four of the odd one after it.
    let even = rows.map(|row| row & LOW);
    let odd = rows.map(|row| row >> 4 & LOW);
    let halves = [even, odd].map(|[first, second, third, fourth]| {
        [first | second << 4, third | fourth << 4].map(u64::to_le_bytes)
    });
    let mut keys = [0; 64 / WIDTH];
    for (pair, keys) in keys.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *keys = halves.map(|[low, high]| u16::from_le_bytes([low[pair], high[pair]]));
    }
    keys
}

/// Writes the keys of every plane of a strip, plane `p` from `p * stride` on; may overwrite up to
/// [`SLACK`] keys behind each.
fn level_keys(rows: [Floats<'_>; WIDTH], quantiser: Quantiser, stride: usize, keys: &mut [u16]) {
    let columns = rows[0].len();
    match rows[0].dtype() {
        WeightType::F64 => level_keys_f64(rows, quantiser, stride, keys),
        WeightType::F32 => {
            // Straight from the weights, but for the last columns, which no vector fills.
            let whole = columns / bit_planes::COLUMNS * bit_planes::COLUMNS;
            let head = rows.map(|row| row.slice(0, whole).bytes().as_chunks().0);
            bit_planes::plane_keys(Available::best(), head, quantiser.narrow(), stride, keys);
            if whole < columns {
                let rest = rows.map(|row| row.slice(whole, columns));
                level_keys_widened::<{ bit_planes::COLUMNS }>(
                    rest,
                    quantiser,
                    stride,
                    &mut keys[whole / WIDTH..],
                );
            }
        }
        _ => level_keys_widened::<{ SEGMENT * WIDTH }>(rows, quantiser, stride, keys),
    }
}

/// As [`level_keys`] by way of float32 copies, for at most `ROOM` columns.
fn level_keys_widened<const ROOM: usize>(
    rows: [Floats<'_>; WIDTH],
    quantiser: Quantiser,
    stride: usize,
    keys: &mut [u16],
) {
    let columns = rows[0].len().next_multiple_of(bit_planes::COLUMNS);
    let mut values = [0f32; ROOM];
    let mut wide = [[[0u8; 4]; ROOM]; WIDTH];
    for (row, wide) in rows.iter().zip(&mut wide) {
        row.widen_to_f32(&mut values);
        for (pattern, value) in wide.iter_mut().zip(values) {
            *pattern = value.to_le_bytes();
        }
    }
    let strip = wide.each_ref().map(|row| &row[..columns]);
    bit_planes::plane_keys(Available::best(), strip, quantiser.narrow(), stride, keys);
}

fn level_keys_f64(
    rows: [Floats<'_>; WIDTH],
    quantiser: Quantiser,
    stride: usize,
    keys: &mut [u16],
) {
    let columns = rows[0].len();
    let mut wide = [[0f64; SEGMENT * WIDTH]; WIDTH];
    for (row, wide) in rows.iter().zip(&mut wide) {
        row.widen_to_f64(wide);
    }
    for block in 0..columns / WIDTH {
        let levels = std::array::from_fn(|element| {
            let (row, column) = (element / WIDTH, element % WIDTH);
            quantiser.level_f64(wide[row][block * WIDTH + column])
        });
        for (plane, key) in keys_of_levels(&levels, quantiser.bits()).enumerate() {
            keys[plane * stride + block] = key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::quantiser::MAX_BITS;
    use super::*;
    use proptest::prelude::*;

    fn reference(values: &[f32], columns: usize, bit: impl Fn(f32) -> bool) -> Vec<u32> {
        let mut counts = vec![0; KEYS];
        let rows = values.len().checked_div(columns).unwrap_or(0);
        for row in (0..rows / 4 * 4).step_by(4) {
            for column in (0..columns / 4 * 4).step_by(4) {
                let key: usize = (0..16)
                    .map(|e| {
                        let value = values[(row + e / 4) * columns + column + e % 4];
                        usize::from(bit(value)) << e
                    })
                    .sum();
                counts[key] += 1;
            }
        }
        counts
    }

    fn bytes(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    fn noise(length: usize) -> Vec<f32> {
        let mut state = 88_172_645_463_325_252u64;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state as i32) as f32 * 1e-9
            })
            .collect()
    }

    #[test]
    fn more_than_one_batch_on_any_number_of_threads() {
        let columns = 4 * (BATCH / 3) + 3;
        let values = noise(columns * 17);
        let bytes = bytes(&values);
        let weights = Floats::new(&bytes, WeightType::F32).unwrap();
        let quantiser = Quantiser::new(WeightType::F32, -2.0, 2.0, 3).unwrap();
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let monitor = Monitor::new();
            let counts = pool
                .install(|| count(weights, columns, Planes::Levels(quantiser), &monitor))
                .unwrap();
            for (plane, counts) in counts.iter().enumerate() {
                let expected = reference(&values, columns, |value| {
                    quantiser.level_f32(value) >> plane & 1 == 1
                });
                assert_eq!(*counts, expected);
            }
            assert_eq!(monitor.done(), values.len() as u64);
        }
    }

    #[test]
    fn frequent_blocks_overflow_small_counters() {
        // Blocks of ones, then of zeros: far more of each than eight bits count.
        let (columns, strips) = (400, 90);
        let ones = 70 * WIDTH * columns;
        let values: Vec<f32> = (0..strips * WIDTH * columns)
            .map(|index| if index < ones { 1.0 } else { -1.0 })
            .collect();
        let data = bytes(&values);
        let weights = Floats::new(&data, WeightType::F32).unwrap();
        let counts = count(weights, columns, Planes::Signs, &Monitor::new()).unwrap();
        assert_eq!(counts[0][KEYS - 1], 70 * 100);
        assert_eq!(counts[0][0], 20 * 100);
        assert_eq!(counts[0].iter().sum::<u32>(), 90 * 100);
    }

    #[test]
    fn ends_are_the_lowest_and_the_highest_level() {
        for bits in 1..=MAX_BITS {
            let quantiser = Quantiser::new(WeightType::F32, -1.5, 2.5, bits).unwrap();
            let highest = ((1u32 << bits) - 1) as u16;
            assert_eq!(quantiser.level_f32(-1.5), 0);
            assert_eq!(quantiser.level_f32(2.5), highest);
            assert_eq!(quantiser.level_f32(-1e30), 0);
            assert_eq!(quantiser.level_f32(f32::INFINITY), highest);
            assert_eq!(quantiser.level_f32(f32::NAN), 0);
        }
    }

    #[test]
    fn ties_go_to_even_levels() {
        let quantiser = Quantiser::new(WeightType::F32, 0.0, 255.0, 8).unwrap();
        let wide = Quantiser::new(WeightType::F64, 0.0, 255.0, 8).unwrap();
        for (weight, level) in [(0.5, 0), (1.5, 2), (2.5, 2), (253.5, 254), (0.75, 1)] {
            assert_eq!(quantiser.level_f32(weight), level);
            assert_eq!(wide.level_f64(weight.into()), level);
        }
    }

    #[test]
    fn a_constant_has_one_level() {
        let quantiser = Quantiser::new(WeightType::F32, 0.5, 0.5 + 1e-9, 8).unwrap();
        assert_eq!(quantiser.step(), 0.0);
        assert_eq!(quantiser.level_f32(0.5), 0);
    }

    #[test]
    fn what_cannot_be_quantised_is_refused() {
        for (low, high, bits) in [
            (0.0, 1.0, 0),
            (0.0, 1.0, 17),
            (1.0, 0.0, 8),
            (f64::NAN, 1.0, 8),
            (0.0, f64::INFINITY, 8),
            (-3e38, 3e38, 8),
        ] {
            assert!(Quantiser::new(WeightType::F32, low, high, bits).is_err());
        }
        let weights = Floats::new(&[0; 40], WeightType::F32).unwrap();
        assert!(count(weights, 3, Planes::Signs, &Monitor::new()).is_err());
        assert!(count(weights, 0, Planes::Signs, &Monitor::new()).is_err());
    }

    proptest! {
        #[test]
        fn every_shape_and_depth(
            rows in 0usize..14,
            columns in 1usize..80,
            bits in 1u32..=16,
            which in 0usize..3,
        ) {
            let values: Vec<f32> = noise(rows * columns)
                .into_iter()
                // Exact in every type, so that the same definition holds for all.
                .map(|value| (value * 64.0).round() / 64.0)
                .collect();
            let (dtype, bytes) = match which {
                0 => (WeightType::F32, bytes(&values)),
                1 => (
                    WeightType::F16,
                    values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
                ),
                _ => (
                    WeightType::F64,
                    values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
                ),
            };
            let weights = Floats::new(&bytes, dtype).unwrap();
            let quantiser = Quantiser::new(dtype, -1.7, 2.0, bits).unwrap();
            let counts =
                count(weights, columns, Planes::Levels(quantiser), &Monitor::new()).unwrap();
            prop_assert_eq!(counts.len(), bits as usize);
            for (plane, counts) in counts.iter().enumerate() {
                let expected = reference(&values, columns, |value| {
                    let level = match dtype {
                        WeightType::F64 => quantiser.level_f64(value.into()),
                        _ => quantiser.level_f32(value),
                    };
                    level >> plane & 1 == 1
                });
                prop_assert_eq!(counts, &expected);
            }
            let signs = count(weights, columns, Planes::Signs, &Monitor::new()).unwrap();
            prop_assert_eq!(&signs[0], &reference(&values, columns, |value| value > 0.0));
        }
    }
}
