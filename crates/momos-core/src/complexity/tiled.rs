//! The tiled manifold of a quantised matrix: its bit-planes interleaved to one binary matrix.
//!
//! Every weight becomes a tile that holds the bits of its level, so that a 4x4 block sees bits of
//! different significance together. Tiles of 8 bits are 4x2, of 4 bits 2x2, of others a column.

use super::floats::{Floats, WeightType};
use super::matrix::Matrix;
use super::planes::KEYS;
use super::quantiser::Quantiser;
use super::tasks;
use crate::simd::bit_planes::WIDTH;
use crate::{Monitor, Result};

/// Rows of blocks that one task counts.
const ROWS_PER_TASK: usize = 16;

/// Rows and columns of the tile of a level of that many bits.
pub fn tile(bits: u32) -> (usize, usize) {
    match bits {
        4 => (2, 2),
        8 => (4, 2),
        bits => (bits as usize, 1),
    }
}

/// Counts the 4x4 blocks of the tiled manifold of a matrix of `columns` columns, by key, in the
/// partition that ignores what is not covered by a whole block. Bit `p` of a level, `p` counted along the
/// rows of its tile, is at row `p / c` and column `p % c` of a tile of `c` columns. Reports rows of
/// blocks to the monitor.
///
/// # Errors
/// As [`super::planes::count`].
pub fn count(
    weights: Floats<'_>,
    columns: usize,
    quantiser: Quantiser,
    monitor: &Monitor,
) -> Result<Vec<u64>> {
    let matrix = Matrix::new(weights, columns)?;
    let (tile_rows, tile_columns) = tile(quantiser.bits());
    let down = matrix.rows() * tile_rows / WIDTH;
    let across = columns * tile_columns / WIDTH;
    tasks::fold(
        down.div_ceil(ROWS_PER_TASK),
        || vec![0; KEYS],
        |counts, task| {
            let mut rows = Levels::new(&matrix, quantiser);
            let mut keys = vec![0u16; across];
            for block_row in task * ROWS_PER_TASK..down.min((task + 1) * ROWS_PER_TASK) {
                monitor.check()?;
                keys.fill(0);
                for line in 0..WIDTH {
                    let row = block_row * WIDTH + line;
                    let levels = rows.get(row / tile_rows);
                    let plane = row % tile_rows * tile_columns;
                    add_line(&mut keys, levels, tile_columns, plane, line);
                }
                for &key in &keys {
                    counts[key as usize] += 1;
                }
                monitor.advance(1);
            }
            Ok(())
        },
        |_| (),
        |left, right| tasks::add(left, &right),
    )
}

/// Adds one line of the manifold to the keys of the blocks that it crosses.
fn add_line(keys: &mut [u16], levels: &[u16], tile_columns: usize, plane: usize, line: usize) {
    let shift = line * WIDTH;
    if tile_columns == 1 {
        for (key, four) in keys.iter_mut().zip(levels.as_chunks::<4>().0) {
            for (column, level) in four.iter().enumerate() {
                *key |= (level >> plane & 1) << (shift + column);
            }
        }
    } else {
        for (key, two) in keys.iter_mut().zip(levels.as_chunks::<2>().0) {
            for (tile, level) in two.iter().enumerate() {
                *key |= (level >> plane & 3) << (shift + 2 * tile);
            }
        }
    }
}

/// The levels of a matrix's rows; the last row asked for is kept, since several lines share it.
struct Levels<'a> {
    matrix: &'a Matrix<'a>,
    quantiser: Quantiser,
    row: Option<usize>,
    levels: Vec<u16>,
    narrow: Vec<f32>,
    wide: Vec<f64>,
}

impl<'a> Levels<'a> {
    fn new(matrix: &'a Matrix<'a>, quantiser: Quantiser) -> Self {
        Self {
            matrix,
            quantiser,
            row: None,
            levels: vec![0; matrix.columns()],
            narrow: Vec::new(),
            wide: Vec::new(),
        }
    }

    fn get(&mut self, row: usize) -> &[u16] {
        if self.row != Some(row) {
            let weights = self.matrix.row(row);
            if weights.dtype() == WeightType::F64 {
                self.wide.resize(weights.len(), 0.0);
                weights.widen_to_f64(&mut self.wide);
                for (level, &weight) in self.levels.iter_mut().zip(&self.wide) {
                    *level = self.quantiser.level_f64(weight);
                }
            } else {
                self.narrow.resize(weights.len(), 0.0);
                weights.widen_to_f32(&mut self.narrow);
                for (level, &weight) in self.levels.iter_mut().zip(&self.narrow) {
                    *level = self.quantiser.level_f32(weight);
                }
            }
            self.row = Some(row);
        }
        &self.levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_are_those_of_the_manifold_written_out(
            rows in 1usize..12,
            columns in 1usize..20,
            bits in 1u32..=16,
            wide in any::<bool>(),
            seed in any::<u32>(),
        ) {
            let values: Vec<f32> = (0..rows * columns)
                .map(|index| {
                    let mixed = (index as u32 ^ seed).wrapping_mul(0x9e37_79b9);
                    (mixed >> 16) as f32 / 65536.0
                })
                .collect();
            let (dtype, bytes): (_, Vec<u8>) = if wide {
                let bytes = values.iter().flat_map(|&v| f64::from(v).to_le_bytes());
                (WeightType::F64, bytes.collect())
            } else {
                (WeightType::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
            };
            let quantiser = Quantiser::new(dtype, 0.0, 1.0, bits).unwrap();
            let (tile_rows, tile_columns) = tile(bits);
            prop_assert_eq!(tile_rows * tile_columns, bits as usize);
            let bit = |row: usize, column: usize| {
                let weight = values[row / tile_rows * columns + column / tile_columns];
                let level = match dtype {
                    WeightType::F64 => quantiser.level_f64(weight.into()),
                    _ => quantiser.level_f32(weight),
                };
                level >> (row % tile_rows * tile_columns + column % tile_columns) & 1
            };
            let mut expected = vec![0; KEYS];
            for row in 0..rows * tile_rows / 4 {
                for column in 0..columns * tile_columns / 4 {
                    let key: u16 = (0..16)
                        .map(|e| bit(4 * row + e / 4, 4 * column + e % 4) << e)
                        .sum();
                    expected[key as usize] += 1;
                }
            }
            let weights = Floats::new(&bytes, dtype).unwrap();
            let counts = count(weights, columns, quantiser, &Monitor::new()).unwrap();
            prop_assert_eq!(counts, expected);
        }
    }
}
