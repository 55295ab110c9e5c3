//! Lloyd's iterations: motifs move to the mean of the blocks they represent.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::nearest::{Element, nearest_motifs};

/// What [`lloyd`] arrived at.
#[derive(Clone, Debug, PartialEq)]
pub struct Refined<T> {
    /// The motifs (k, s), row-major.
    pub motifs: Vec<T>,
    /// The nearest of these motifs for every block (m).
    pub indices: Vec<u32>,
    /// Sum of squared differences between blocks and motifs: with the motifs given, then after
    /// every iteration that moved a motif.
    pub distortions: Vec<f64>,
}

/// Refines motifs by at most `iterations` of Lloyd's algorithm with the exact search.
///
/// Every iteration moves each motif to the mean of its blocks, rounded to `T`, and searches again.
/// A motif without blocks stays as it is, and so does motif 0 if `fixed_zero` says that it is the
/// zero block. It ends early once no motif moves. Sums are taken in float64 in the order of the
/// blocks, so the result does not depend on threads.
///
/// `blocks` (m, s) and `motifs` (k, s) are row-major with s = `block_size`. The monitor advances
/// by m for every search; there is one before the first iteration and one in each.
///
/// # Errors
/// As [`nearest_motifs`]; also `InvalidArgument` if `fixed_zero` is set and motif 0 is not zero.
pub fn lloyd<T: Element>(
    blocks: &[T],
    motifs: &[T],
    block_size: usize,
    iterations: usize,
    fixed_zero: bool,
    monitor: &Monitor,
) -> Result<Refined<T>> {
    let mut indices = nearest_motifs(blocks, motifs, block_size, monitor)?;
    if fixed_zero
        && motifs[..block_size]
            .iter()
            .any(|value| value.to_f64() != 0.0)
    {
        return Err(Error::invalid_argument(
            "motif 0 must be the zero block if it is fixed",
        ));
    }
    let mut motifs = motifs.to_vec();
    let mut clusters = Clusters::new(motifs.len() / block_size, block_size, blocks);
    clusters.gather(blocks, &motifs, &indices);
    let mut distortions = vec![clusters.distortion()];
    for _ in 0..iterations {
        monitor.check()?;
        if !clusters.move_motifs(&mut motifs, fixed_zero) {
            break;
        }
        indices = nearest_motifs(blocks, &motifs, block_size, monitor)?;
        clusters.gather(blocks, &motifs, &indices);
        distortions.push(clusters.distortion());
    }
    Ok(Refined {
        motifs,
        indices,
        distortions,
    })
}

/// The blocks of every motif, summed up.
struct Clusters {
    block_size: usize,
    /// Power of two that keeps sums and squares of huge values finite.
    scale: f64,
    /// Per motif: the sums of its blocks' values, their number, and their distortion.
    rows: Vec<f64>,
}

impl Clusters {
    fn new<T: Element>(motif_count: usize, block_size: usize, blocks: &[T]) -> Self {
        // Blocks were searched already, hence are finite.
        let huge = T::largest_magnitude(blocks).is_none_or(|largest| largest > 2f64.powi(400));
        Self {
            block_size,
            scale: if huge { 2f64.powi(-600) } else { 1.0 },
            rows: vec![0.0; motif_count * (block_size + 2)],
        }
    }

    /// Sums up the blocks by motif.
    ///
    /// Every thread goes through all indices and takes care of some motifs, so that each sum is
    /// taken in the order of the blocks, whatever the number of threads.
    fn gather<T: Element>(&mut self, blocks: &[T], motifs: &[T], indices: &[u32]) {
        let row_len = self.block_size + 2;
        let (scale, size) = (self.scale, self.block_size);
        let motif_count = self.rows.len() / row_len;
        let share = motif_count.div_ceil(rayon::current_num_threads()).max(1);
        self.rows.fill(0.0);
        self.rows
            .par_chunks_mut(share * row_len)
            .zip(motifs.par_chunks(share * size))
            .enumerate()
            .for_each(|(number, (rows, motifs))| {
                let first = number * share;
                for (block, &index) in blocks.chunks_exact(size).zip(indices) {
                    let place = (index as usize).wrapping_sub(first);
                    if place < motifs.len() / size {
                        let row = &mut rows[place * row_len..][..row_len];
                        add_block(row, block, &motifs[place * size..][..size], scale);
                    }
                }
            });
    }

    /// Distortion of all blocks.
    fn distortion(&self) -> f64 {
        let scaled: f64 = self
            .rows
            .chunks_exact(self.block_size + 2)
            .map(|row| row[row.len() - 1])
            .sum();
        scaled / self.scale / self.scale
    }

    /// Moves motifs to the means; returns whether one changed.
    fn move_motifs<T: Element>(&self, motifs: &mut [T], fixed_zero: bool) -> bool {
        let mut moved = false;
        let rows = self.rows.chunks_exact(self.block_size + 2);
        let fixed = usize::from(fixed_zero);
        for (motif, row) in motifs
            .chunks_exact_mut(self.block_size)
            .zip(rows)
            .skip(fixed)
        {
            let count = row[self.block_size];
            if count == 0.0 {
                continue;
            }
            for (value, sum) in motif.iter_mut().zip(row) {
                let mean = T::from_f64(sum / count / self.scale);
                moved |= mean != *value;
                *value = mean;
            }
        }
        moved
    }
}

#[inline]
fn add_block<T: Element>(row: &mut [f64], block: &[T], motif: &[T], scale: f64) {
    let (sums, totals) = row.split_at_mut(block.len());
    let mut distortion = 0.0;
    for ((sum, x), z) in sums.iter_mut().zip(block).zip(motif) {
        let x = x.to_f64() * scale;
        let difference = x - z.to_f64() * scale;
        distortion += difference * difference;
        *sum += x;
    }
    totals[0] += 1.0;
    totals[1] += distortion;
}
