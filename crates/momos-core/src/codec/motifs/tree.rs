//! A balanced k-d tree over the motifs, in which a motif's index is a path.
//!
//! The tree follows from the table of motifs alone, so it costs no bytes. Motifs that are close
//! share the upper part of their paths, which makes single bits predictable: whether a block lies
//! left or right of a median depends on how large the weights around it are.

use crate::error::{Error, Result};
use crate::float::{FloatType, Working};
use crate::layout::check_block_size;
use crate::limits::MAX_MOTIFS;

/// Nodes over fewer motifs are built on the thread that meets them.
const MOTIFS_PER_TASK: usize = 1 << 13;

/// Energies, relative to their mean, are kept within 2^±[`MAX_ENERGY_LOG`].
const MAX_ENERGY_LOG: i32 = 60;

/// The tree; its leaves are the motifs, and a motif's *place* is the number of its leaf from left
/// to right.
///
/// A node over the places `low..high` splits them at `(low + high) / 2`, which is different for
/// every node and serves as its number.
#[derive(Clone, Debug)]
pub struct MotifTree {
    /// The row in the table of the motif at each place.
    rows: Vec<u32>,
    cuts: Vec<Cut>,
    slopes: Vec<Slope>,
    energies: Vec<f32>,
    values: Vec<f64>,
    block_size: usize,
}

/// Where a node splits its motifs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cut {
    /// The dimension.
    pub dimension: u16,
    /// The value in the middle between both parts.
    pub value: f64,
}

/// How the mean energy changes from the left part of a node to the right one: twice the
/// [`half_octaves`] of the difference, from [`Slope::FLATTEST`] on and within [`Slope::CLASSES`],
/// and one more if the right part has less energy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slope(u8);

impl Slope {
    /// Number of different slopes.
    pub const CLASSES: usize = 64;
    /// The half octaves of all differences that are as small or smaller.
    pub const FLATTEST: i16 = -22;

    fn new(difference: f64) -> Self {
        let steps = half_octaves(difference.abs() as f32) - Self::FLATTEST;
        let steps = steps.clamp(0, Self::CLASSES as i16 / 2 - 1) as u8;
        Self(steps * 2 + u8::from(difference < 0.0))
    }

    /// A number below [`CLASSES`](Self::CLASSES).
    #[inline]
    pub fn class(self) -> usize {
        usize::from(self.0) % Self::CLASSES
    }
}

/// Twice the binary logarithm of a positive number, rounded down to whole steps (towards the lower
/// end of the linear half of each octave): `2 * exponent + first bit of the mantissa`.
#[inline]
pub fn half_octaves(value: f32) -> i16 {
    (value.to_bits() >> 22) as i16 - 254
}

impl MotifTree {
    /// Builds the tree of a table: `motifs` rows of `block_size` little-endian values.
    ///
    /// The motifs of a node are split at their median in the dimension in which they extend widest
    /// (the first among equals), values in IEEE 754 total order, ties by their row.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if the bytes are not such a table.
    pub fn new(table: &[u8], block_size: usize, float: FloatType) -> Result<Self> {
        check_block_size(block_size)?;
        let motifs = float.count(table)? / block_size;
        if motifs > MAX_MOTIFS || motifs * block_size * float.size() != table.len() {
            return Err(Error::invalid_argument(format!(
                "{} bytes are not a table of motifs of {block_size} {float:?} values",
                table.len()
            )));
        }
        let mut values = vec![0f64; motifs * block_size];
        f64::read_bytes(&mut values, table, float);
        let builder = Builder {
            energies: relative_energies(&values, block_size),
            values,
            block_size,
        };
        let mut rows: Vec<u32> = (0..motifs as u32).collect();
        let mut cuts = vec![Cut::default(); motifs];
        let mut slopes = vec![Slope::default(); motifs];
        if motifs > 0 {
            builder.build(&mut rows, &mut cuts, &mut slopes);
        }
        let energies = rows
            .iter()
            .map(|&row| builder.energies[row as usize] as f32)
            .collect();
        Ok(Self {
            rows,
            cuts,
            slopes,
            energies,
            values: builder.values,
            block_size,
        })
    }

    /// Number of motifs.
    pub fn motifs(&self) -> usize {
        self.rows.len()
    }

    /// Values per motif.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// The table, row by row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The row in the table of the motif at each place.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Where each node splits; the first entry stands for no node.
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// How the energy changes at each node; the first entry stands for no node.
    pub fn slopes(&self) -> &[Slope] {
        &self.slopes
    }

    /// The sum of squares of the motif at each place, relative to the mean of all.
    pub fn energies(&self) -> &[f32] {
        &self.energies
    }

    /// Bits of the longest path.
    pub fn depth(&self) -> u32 {
        self.motifs().max(1).next_power_of_two().trailing_zeros()
    }
}

/// Sums of squares of the rows, relative to their mean and within the bounds of [`MAX_ENERGY_LOG`];
/// all 1 if the mean is 0 or not finite.
fn relative_energies(values: &[f64], block_size: usize) -> Vec<f64> {
    let bound = 2f64.powi(MAX_ENERGY_LOG);
    let sums: Vec<f64> = values
        .chunks_exact(block_size)
        .map(|row| row.iter().fold(0.0, |sum, value| sum + value * value))
        .collect();
    let mean = sums.iter().fold(0.0, |total, sum| total + sum) / sums.len().max(1) as f64;
    if !(mean > 0.0 && mean.is_finite()) {
        return vec![1.0; sums.len()];
    }
    sums.into_iter()
        .map(|sum| (sum / mean).clamp(1.0 / bound, bound))
        .collect()
}

struct Builder {
    values: Vec<f64>,
    energies: Vec<f64>,
    block_size: usize,
}

impl Builder {
    fn value(&self, row: u32, dimension: usize) -> f64 {
        self.values[row as usize * self.block_size + dimension]
    }

    /// Sorts `rows` into places and fills in their nodes, of which the first is another's.
    /// Returns the sum of their energies.
    fn build(&self, rows: &mut [u32], cuts: &mut [Cut], slopes: &mut [Slope]) -> f64 {
        if let [row] = *rows {
            return self.energies[row as usize];
        }
        let dimension = self.widest(rows);
        let middle = rows.len() / 2;
        rows.select_nth_unstable_by(middle, |&a, &b| {
            let (left, right) = (self.value(a, dimension), self.value(b, dimension));
            left.total_cmp(&right).then(a.cmp(&b))
        });
        let last_left = rows[..middle]
            .iter()
            .map(|&row| self.value(row, dimension))
            .max_by(f64::total_cmp)
            .expect("a node has two motifs");
        let cut = Cut {
            dimension: dimension as u16,
            value: 0.5 * last_left + 0.5 * self.value(rows[middle], dimension),
        };
        let (left_rows, right_rows) = rows.split_at_mut(middle);
        let (left_cuts, right_cuts) = cuts.split_at_mut(middle);
        let (left_slopes, right_slopes) = slopes.split_at_mut(middle);
        let mut left = || self.build(left_rows, left_cuts, left_slopes);
        let mut right = || self.build(right_rows, right_cuts, right_slopes);
        let (left, right) = if middle < MOTIFS_PER_TASK {
            (left(), right())
        } else {
            rayon::join(left, right)
        };
        let difference = right / right_rows.len() as f64 - left / left_rows.len() as f64;
        right_cuts[0] = cut;
        right_slopes[0] = Slope::new(difference);
        left + right
    }

    fn widest(&self, rows: &[u32]) -> usize {
        let mut lowest = vec![f64::INFINITY; self.block_size];
        let mut highest = vec![f64::NEG_INFINITY; self.block_size];
        for &row in rows {
            let start = row as usize * self.block_size;
            let values = &self.values[start..start + self.block_size];
            for ((low, high), &value) in lowest.iter_mut().zip(&mut highest).zip(values) {
                *low = if value < *low { value } else { *low };
                *high = if value > *high { value } else { *high };
            }
        }
        let mut widest = 0;
        for dimension in 1..self.block_size {
            if highest[dimension] - lowest[dimension] > highest[widest] - lowest[widest] {
                widest = dimension;
            }
        }
        widest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    proptest! {
        #[test]
        fn every_node_splits_its_motifs_in_halves(
            values in proptest::collection::vec(-4i8..4, 3..300),
        ) {
            let values: Vec<f32> = values.iter().map(|&v| f32::from(v)).collect();
            let motifs = values.len() / 3;
            let tree = MotifTree::new(&bytes(&values[..motifs * 3]), 3, FloatType::F32).unwrap();
            let mut sorted = tree.rows().to_vec();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..motifs as u32).collect::<Vec<_>>());
            let mut ranges = vec![(0, motifs)];
            while let Some((low, high)) = ranges.pop() {
                if high - low < 2 {
                    continue;
                }
                let middle = (low + high) / 2;
                let cut = tree.cuts()[middle];
                let key = |place: usize| {
                    let row = tree.rows()[place];
                    (values[row as usize * 3 + usize::from(cut.dimension)] as i8, row)
                };
                let left = (low..middle).map(key).max().unwrap();
                let right = (middle..high).map(key).min().unwrap();
                prop_assert!(left < right);
                prop_assert_eq!(cut.value, 0.5 * f64::from(left.0) + 0.5 * f64::from(right.0));
                ranges.push((low, middle));
                ranges.push((middle, high));
            }
        }

        /// Tables of damaged archives hold anything.
        #[test]
        fn any_table_has_a_tree(
            table in proptest::collection::vec(any::<u8>(), 0..400),
            float in prop_oneof![
                Just(FloatType::Bf16), Just(FloatType::F16), Just(FloatType::F32), Just(FloatType::F64)
            ],
            block_size in 1usize..4,
        ) {
            let row = block_size * float.size();
            let table = &table[..table.len() / row * row];
            let tree = MotifTree::new(table, block_size, float).unwrap();
            prop_assert_eq!(tree.motifs(), table.len() / row);
            prop_assert!(tree.energies().iter().all(|energy| energy.is_finite() && *energy > 0.0));
        }
    }

    #[test]
    fn half_octaves_are_logarithms() {
        let steps = [0.25, 0.4, 1.0, 1.4, 1.5, 2.0, 3.0, 1024.0].map(half_octaves);
        assert_eq!(steps, [-4, -3, 0, 0, 1, 2, 3, 20]);
    }

    #[test]
    fn many_threads_build_the_same_tree() {
        let values: Vec<f32> = (0..80_000u32)
            .map(|i| (i.wrapping_mul(2654435761) >> 20) as f32 - 2000.0)
            .collect();
        let table = bytes(&values);
        let one = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let build = || MotifTree::new(&table, 2, FloatType::F32).unwrap();
        let (single, several) = (one.install(build), build());
        assert_eq!(single.rows, several.rows);
        assert_eq!(single.cuts, several.cuts);
        assert_eq!(single.slopes, several.slopes);
    }

    #[test]
    fn partial_rows_are_refused() {
        assert!(MotifTree::new(&[0; 12], 2, FloatType::F32).is_err());
        assert!(MotifTree::new(&[0; 7], 1, FloatType::F32).is_err());
    }
}
