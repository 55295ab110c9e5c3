//! The blocks of every motif, summed up.
//!
//! Every sum is taken in float64 in the order of the blocks, so that it does not depend on how the
//! work is divided.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::limits::{MAX_BLOCK_SIZE, MAX_MOTIFS};
use crate::monitor::Monitor;
use crate::nearest::Element;

/// Bytes of sums that stay in a second-level cache.
const CACHED_BYTES: usize = 1 << 19;
/// Bytes of sums that stay in a first-level cache, roughly.
const BUCKET_BYTES: usize = 1 << 16;
/// Longest blocks that are copied to where their sums are; beyond, the search takes so long that
/// nothing is gained.
const MAX_COPIED_BLOCK_SIZE: usize = 16;
/// Blocks sorted at a time by one thread; the copy stays in cache.
const CHUNK_LEN: usize = 1 << 15;
/// Blocks sorted at a time by all threads; bounds the memory for the copy.
const BATCH_LEN: usize = 1 << 20;

/// Sums over the blocks of each motif.
///
/// They do not depend on how the blocks are divided into calls of [`add`](Self::add).
#[derive(Clone, Debug)]
pub struct Clusters {
    block_size: usize,
    /// Power of two that keeps sums and squares of huge values finite.
    scale: f64,
    /// Per motif: the sums of its blocks' values, their number, and their distortion.
    rows: Vec<f64>,
}

impl Clusters {
    /// Empty clusters, for blocks of values of at most that magnitude.
    ///
    /// # Errors
    /// `InvalidArgument` if the block size is not within 1 to 4096 or there are no motifs.
    pub fn new(motif_count: usize, block_size: usize, largest: f64) -> Result<Self> {
        if !(1..=MAX_BLOCK_SIZE).contains(&block_size) || !(1..=MAX_MOTIFS).contains(&motif_count) {
            return Err(Error::invalid_argument(format!(
                "there can be no clusters of {motif_count} motifs of {block_size} values"
            )));
        }
        let huge = largest > 2f64.powi(400);
        Ok(Self {
            block_size,
            scale: if huge { 2f64.powi(-600) } else { 1.0 },
            rows: vec![0.0; motif_count * (block_size + 2)],
        })
    }

    /// Number of motifs.
    pub fn motif_count(&self) -> usize {
        self.rows.len() / (self.block_size + 2)
    }

    /// Values per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Per motif: the sums of its blocks' values, their number, and their distortion; the first
    /// and the last are scaled by a power of two if the blocks are huge.
    pub fn rows(&self) -> &[f64] {
        &self.rows
    }

    /// The rows, to be replaced by those of another that was made alike.
    pub fn rows_mut(&mut self) -> &mut [f64] {
        &mut self.rows
    }

    /// Forgets all blocks.
    pub fn clear(&mut self) {
        self.rows.fill(0.0);
    }

    /// Adds blocks (m, s) to the motifs (k, s) they belong to, given the index of each (m).
    ///
    /// # Errors
    /// `InvalidArgument` if the shapes do not fit or an index is out of range; `Interrupted`, if
    /// cancelled.
    pub fn add<T: Element>(
        &mut self,
        blocks: &[T],
        motifs: &[T],
        indices: &[u32],
        monitor: &Monitor,
    ) -> Result<()> {
        let (k, size) = (self.motif_count(), self.block_size);
        if motifs.len() != k * size || blocks.len() != indices.len() * size {
            return Err(Error::invalid_argument(format!(
                "clusters of {k} motifs of {size} values cannot take {} values of {} blocks by \
                 motifs of {} values",
                blocks.len(),
                indices.len(),
                motifs.len()
            )));
        }
        if let Some(index) = indices.par_iter().find_any(|&&index| index as usize >= k) {
            return Err(Error::invalid_argument(format!(
                "the index {index} is none of {k} motifs"
            )));
        }
        match self.block_size {
            2 => self.gather_sized::<T, 2>(blocks, motifs, indices, monitor),
            4 => self.gather_sized::<T, 4>(blocks, motifs, indices, monitor),
            8 => self.gather_sized::<T, 8>(blocks, motifs, indices, monitor),
            _ => self.gather_sized::<T, 0>(blocks, motifs, indices, monitor),
        }
    }

    /// As [`add`](Self::add), for blocks of `S` values or, if that is 0, of any size.
    fn gather_sized<T: Element, const S: usize>(
        &mut self,
        blocks: &[T],
        motifs: &[T],
        indices: &[u32],
        monitor: &Monitor,
    ) -> Result<()> {
        let small = self.rows.len() * size_of::<f64>() <= CACHED_BYTES;
        let batches = blocks.chunks(BATCH_LEN * self.block_size);
        for (blocks, indices) in batches.zip(indices.chunks(BATCH_LEN)) {
            monitor.check()?;
            if small || self.block_size > MAX_COPIED_BLOCK_SIZE {
                self.gather_in_place::<T, S>(blocks, motifs, indices);
            } else {
                self.gather_sorted::<T, S>(blocks, motifs, indices);
            }
        }
        Ok(())
    }

    /// Every thread goes through all indices and takes care of some motifs.
    fn gather_in_place<T: Element, const S: usize>(
        &mut self,
        blocks: &[T],
        motifs: &[T],
        indices: &[u32],
    ) {
        let (block_size, scale) = (self.block_size, self.scale);
        let motif_count = motifs.len() / block_size;
        let share = motif_count.div_ceil(rayon::current_num_threads()).max(1);
        let shares = self
            .rows
            .par_chunks_mut(share * (block_size + 2))
            .enumerate();
        shares.for_each(|(number, rows)| {
            let size = known::<S>(block_size);
            let row_len = size + 2;
            let first = number * share;
            let count = rows.len() / row_len;
            for (block, &index) in blocks.chunks_exact(size).zip(indices) {
                let place = (index as usize).wrapping_sub(first);
                if place < count {
                    let motif = &motifs[index as usize * size..][..size];
                    add_block(&mut rows[place * row_len..][..row_len], block, motif, scale);
                }
            }
        });
    }

    /// Blocks are first sorted, keeping their order, into buckets of motifs whose sums fit the
    /// cache.
    fn gather_sorted<T: Element, const S: usize>(
        &mut self,
        blocks: &[T],
        motifs: &[T],
        indices: &[u32],
    ) {
        let (block_size, scale) = (self.block_size, self.scale);
        let row_len = block_size + 2;
        let shift = (BUCKET_BYTES / (row_len * size_of::<f64>())).ilog2();
        let bucket_count = (motifs.len() / block_size).div_ceil(1 << shift);
        let chunks: Vec<Chunk<T>> = blocks
            .par_chunks(CHUNK_LEN * block_size)
            .zip(indices.par_chunks(CHUNK_LEN))
            .map(|(blocks, indices)| {
                Chunk::sorted(blocks, known::<S>(block_size), indices, shift, bucket_count)
            })
            .collect();
        let buckets = self.rows.par_chunks_mut(row_len << shift).enumerate();
        buckets.for_each(|(bucket, rows)| {
            let size = known::<S>(block_size);
            let row_len = size + 2;
            let first = bucket << shift;
            for chunk in &chunks {
                let range = chunk.starts[bucket]..chunk.starts[bucket + 1];
                let blocks = chunk.blocks[range.start * size..range.end * size].chunks_exact(size);
                for (block, &index) in blocks.zip(&chunk.indices[range]) {
                    let motif = &motifs[index as usize * size..][..size];
                    let row = &mut rows[(index as usize - first) * row_len..][..row_len];
                    add_block(row, block, motif, scale);
                }
            }
        });
    }

    /// Distortion of all blocks.
    pub fn distortion(&self) -> f64 {
        let rows = self.rows.chunks_exact(self.block_size + 2);
        let scaled: f64 = rows.map(|row| row[self.block_size + 1]).sum();
        scaled / self.scale / self.scale
    }

    /// Moves motifs, except the first ones that are fixed, to the means of their blocks; returns
    /// which of them changed. One without blocks stays where it is.
    ///
    /// # Panics
    /// If there are not as many motifs as clusters.
    pub fn move_motifs<T: Element>(&self, motifs: &mut [T], fixed: usize) -> Vec<bool> {
        assert_eq!(motifs.len(), self.motif_count() * self.block_size);
        let rows = self.rows.par_chunks_exact(self.block_size + 2);
        motifs
            .par_chunks_exact_mut(self.block_size)
            .zip(rows)
            .enumerate()
            .map(|(number, (motif, row))| {
                let count = row[self.block_size];
                if number < fixed || count == 0.0 {
                    return false;
                }
                let mut moved = false;
                for (value, sum) in motif.iter_mut().zip(row) {
                    let mean = T::from_f64(sum / count / self.scale);
                    moved |= mean != *value;
                    *value = mean;
                }
                moved
            })
            .collect()
    }
}

/// Consecutive blocks, sorted by bucket.
struct Chunk<T> {
    blocks: Vec<T>,
    indices: Vec<u32>,
    /// Where each bucket begins, and the end.
    starts: Vec<usize>,
}

impl<T: Element> Chunk<T> {
    #[inline(always)]
    fn sorted(blocks: &[T], size: usize, indices: &[u32], shift: u32, bucket_count: usize) -> Self {
        let mut starts = vec![0; bucket_count + 1];
        for &index in indices {
            starts[(index as usize >> shift) + 1] += 1;
        }
        for bucket in 0..bucket_count {
            starts[bucket + 1] += starts[bucket];
        }
        let mut next = starts.clone();
        let mut sorted = Self {
            blocks: vec![T::default(); blocks.len()],
            indices: vec![0; indices.len()],
            starts,
        };
        for (block, &index) in blocks.chunks_exact(size).zip(indices) {
            let place = &mut next[index as usize >> shift];
            sorted.blocks[*place * size..][..size].copy_from_slice(block);
            sorted.indices[*place] = index;
            *place += 1;
        }
        sorted
    }
}

/// The size, known to the compiler if `S` is not 0, so that loops over blocks are unrolled.
#[inline(always)]
fn known<const S: usize>(size: usize) -> usize {
    if S == 0 { size } else { S }
}

#[inline(always)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::motifs::SplitMix64;

    #[test]
    fn both_ways_to_gather_give_the_same_sums() {
        let (m, k, size) = (3 * CHUNK_LEN + 17, 30_000, 3);
        let mut random = SplitMix64::new(1);
        let mut value = || random.next_u64() as f32 / u64::MAX as f32 - 0.5;
        let blocks: Vec<f32> = (0..m * size).map(|_| value()).collect();
        let motifs: Vec<f32> = (0..k * size).map(|_| value()).collect();
        let indices: Vec<u32> = (0..m).map(|_| random.below(k as u64) as u32).collect();
        let clusters = || Clusters::new(k, size, 0.5).unwrap();
        let mut one = clusters();
        one.add(&blocks, &motifs, &indices, &Monitor::new())
            .unwrap();
        let mut other = clusters();
        other.gather_in_place::<f32, 0>(&blocks, &motifs, &indices);
        assert!(one.rows.len() * size_of::<f64>() > CACHED_BYTES);
        assert_eq!(one.rows, other.rows);
        let mut pieces = clusters();
        let cuts = [0, 1, 40_000, 40_001, m];
        for cut in cuts.windows(2) {
            let (start, end) = (cut[0], cut[1]);
            let blocks = &blocks[start * size..end * size];
            let indices = &indices[start..end];
            pieces
                .add(blocks, &motifs, indices, &Monitor::new())
                .unwrap();
        }
        assert_eq!(one.rows, pieces.rows);
    }

    #[test]
    fn motifs_move_to_the_means_of_their_blocks() {
        let mut clusters = Clusters::new(4, 2, 4.0).unwrap();
        let mut motifs = [0.0f32, 0.0, 1.0, 1.0, 5.0, 5.0, 2.0, 3.0];
        let blocks = [0.5, 0.5, 1.0, 2.0, 3.0, 4.0, 2.0, 3.0];
        let monitor = Monitor::new();
        clusters
            .add(&blocks, &motifs, &[0, 1, 1, 3], &monitor)
            .unwrap();
        assert_eq!(clusters.distortion(), 0.5 + 1.0 + 4.0 + 9.0);
        assert_eq!(
            clusters.move_motifs(&mut motifs, 1),
            [false, true, false, false]
        );
        assert_eq!(motifs, [0.0, 0.0, 2.0, 3.0, 5.0, 5.0, 2.0, 3.0]);
        clusters.clear();
        assert_eq!(clusters.distortion(), 0.0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Clusters::new(0, 2, 1.0).is_err());
        assert!(Clusters::new(1, 0, 1.0).is_err());
        let mut clusters = Clusters::new(2, 1, 1.0).unwrap();
        let mut add = |blocks: &[f32], motifs: &[f32], indices: &[u32]| {
            clusters.add(blocks, motifs, indices, &Monitor::new())
        };
        assert!(add(&[1.0], &[1.0, 2.0], &[0]).is_ok());
        assert!(add(&[1.0], &[1.0, 2.0], &[2]).is_err());
        assert!(add(&[1.0], &[1.0], &[0]).is_err());
        assert!(add(&[1.0], &[1.0, 2.0], &[0, 0]).is_err());
    }
}
