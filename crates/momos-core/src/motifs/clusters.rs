//! The blocks of every motif, summed up.
//!
//! Every sum is taken in float64 in the order of the blocks, so that it does not depend on how the
//! work is divided.

use std::ops::RangeInclusive;

use rayon::prelude::*;

use super::aligned::{Aligned, LINE_BYTES};
use super::means::{Move, distortion_of};
use super::sums::Sums;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::limits::{MAX_BLOCK_SIZE, MAX_MOTIFS};
use crate::monitor::Monitor;
use crate::simd::{Isa, Simd, Work, dispatch};

/// Bytes of sums that stay in a second-level cache beside the blocks that are added to them.
const BUCKET_BYTES: usize = 1 << 18;
/// Most threads that each look at all indices; more share the blocks by sorting them.
const MOST_SCANNING: usize = 8;
/// Buckets that every thread has at least, if there are as many motifs.
const BUCKETS_PER_THREAD: usize = 8;
/// Longest blocks that are copied to where their sums are; beyond, the search takes so long that
/// nothing is gained.
const MAX_COPIED_BLOCK_SIZE: usize = 16;
/// Blocks sorted at a time by one thread; the copy stays in cache.
const CHUNK_LEN: usize = 1 << 15;
/// Fewest and most blocks sorted at a time by all threads; the copy takes memory.
const BATCH_LENS: RangeInclusive<usize> = 1 << 20..=1 << 23;
/// Blocks per motif sorted at a time, so that sums that are fetched from memory are used.
const BATCH_BLOCKS_PER_MOTIF: usize = 8;
/// Motifs at a time that a thread moves, or tells the distortion of.
const AT_A_TIME: usize = 1 << 10;

/// Sums over the blocks of each motif.
///
/// They do not depend on how the blocks are divided into calls of [`add`](Self::add).
#[derive(Clone, Debug)]
pub struct Clusters {
    block_size: usize,
    /// Power of two that keeps sums and squares of huge values finite.
    scale: f64,
    /// Per motif: the sums of its blocks' values, their number, and the sum of all their squares.
    rows: Aligned,
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
            rows: Aligned::zeros(motif_count * (block_size + 2)),
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

    /// Per motif: the sums of its blocks' values, their number, and the sum of all their squares;
    /// values are scaled by a power of two if they are huge.
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

    /// Adds blocks (m, s) to the motifs they belong to, given the index of each (m).
    ///
    /// # Errors
    /// `InvalidArgument` if the shapes do not fit or an index is out of range; `Interrupted`, if
    /// cancelled.
    pub fn add<T: Element>(
        &mut self,
        blocks: &[T],
        indices: &[u32],
        monitor: &Monitor,
    ) -> Result<()> {
        let (k, size) = (self.motif_count(), self.block_size);
        if blocks.len() != indices.len() * size {
            return Err(Error::invalid_argument(format!(
                "clusters of blocks of {size} values cannot take {} values by {} indices",
                blocks.len(),
                indices.len(),
            )));
        }
        let isa = Isa::best();
        let largest = indices
            .par_chunks(CHUNK_LEN)
            .map(|indices| dispatch(isa, Largest(indices)))
            .max();
        if let Some(index) = largest.filter(|&index| index as usize >= k) {
            return Err(Error::invalid_argument(format!(
                "the index {index} is none of {k} motifs"
            )));
        }
        // Sums of long blocks take so little beside their search that they are not worth a copy.
        let scanned = rayon::current_num_threads() <= MOST_SCANNING || size > MAX_COPIED_BLOCK_SIZE;
        let in_place = scanned && k <= Sums::MOST_MOTIFS;
        let wanted = BATCH_BLOCKS_PER_MOTIF * k;
        let batch_len = wanted.clamp(*BATCH_LENS.start(), *BATCH_LENS.end());
        let batches = blocks.chunks(batch_len * size);
        let mut chunks = Vec::new();
        for (blocks, indices) in batches.zip(indices.chunks(batch_len)) {
            monitor.check()?;
            if in_place {
                self.gather_in_place(blocks, indices);
            } else {
                self.gather_sorted(blocks, indices, &mut chunks);
            }
        }
        Ok(())
    }

    /// Every thread goes through all indices and takes care of some motifs.
    fn gather_in_place<T: Element>(&mut self, blocks: &[T], indices: &[u32]) {
        // Rows of different threads do not share a cache line.
        let share = self
            .motif_count()
            .div_ceil(rayon::current_num_threads())
            .next_multiple_of(LINE_BYTES / size_of::<f64>());
        let alone = share >= self.motif_count();
        self.sums_of(share).for_each(|(_, mut sums)| {
            if alone {
                sums.add_all(blocks, indices);
            } else {
                sums.add_own(blocks, indices);
            }
        });
    }

    /// Blocks are first sorted, keeping their order, into buckets of motifs whose sums fit the
    /// cache. `chunks` is where, and may be used again for the next blocks.
    fn gather_sorted<T: Element>(
        &mut self,
        blocks: &[T],
        indices: &[u32],
        chunks: &mut Vec<Chunk<T>>,
    ) {
        let (size, motif_count) = (self.block_size, self.motif_count());
        let cached = BUCKET_BYTES / ((size + 2) * size_of::<f64>());
        let shared = motif_count / (BUCKETS_PER_THREAD * rayon::current_num_threads());
        let shift = cached.min(shared).max(1).ilog2();
        let bucket_count = motif_count.div_ceil(1 << shift);
        chunks.resize_with(indices.len().div_ceil(CHUNK_LEN), Chunk::default);
        chunks
            .par_iter_mut()
            .zip(blocks.par_chunks(CHUNK_LEN * size))
            .zip(indices.par_chunks(CHUNK_LEN))
            .for_each(|((chunk, blocks), indices)| match size {
                2 => chunk.sort::<2>(blocks, size, indices, shift, bucket_count),
                4 => chunk.sort::<4>(blocks, size, indices, shift, bucket_count),
                8 => chunk.sort::<8>(blocks, size, indices, shift, bucket_count),
                _ => chunk.sort::<0>(blocks, size, indices, shift, bucket_count),
            });
        self.sums_of(1 << shift).for_each(|(bucket, mut sums)| {
            for chunk in &*chunks {
                let (blocks, indices) = chunk.of_bucket(bucket, size);
                sums.add_all(blocks, indices);
            }
        });
    }

    /// The sums of that many motifs at a time.
    fn sums_of(&mut self, share: usize) -> impl IndexedParallelIterator<Item = (usize, Sums<'_>)> {
        let (size, scale) = (self.block_size, self.scale);
        let rows = self.rows.par_chunks_mut(share * (size + 2));
        rows.enumerate().map(move |(number, rows)| {
            let sums = Sums {
                first: number * share,
                size,
                scale,
                rows,
            };
            (number, sums)
        })
    }

    /// Distortion of all blocks, given the motifs (k, s) they were added to.
    ///
    /// The sums alone tell it, as exactly as they are known: what their rounding may have made
    /// counts as none. That is less than `2^-51 * (n + s)` of the squares of a motif's n blocks, as
    /// if their values were off by `2^-25`, float32's own rounding, times the root of n.
    ///
    /// # Panics
    /// If there are not as many motifs as clusters.
    pub fn distortion<T: Element>(&self, motifs: &[T]) -> f64 {
        assert_eq!(motifs.len(), self.motif_count() * self.block_size);
        let (size, scale) = (self.block_size, self.scale);
        let rows = self.rows.par_chunks(AT_A_TIME * (size + 2));
        let pieces = rows.zip(motifs.par_chunks(AT_A_TIME * size));
        let shares: Vec<f64> = pieces
            .map(|(rows, motifs)| distortion_of(rows, motifs, size, scale))
            .collect();
        self.unscaled(&shares)
    }

    /// Moves motifs, except the first ones that are fixed, to the means of their blocks, and
    /// forgets these; tells which of the motifs changed, and the [`distortion`](Self::distortion)
    /// there was. A motif without blocks stays where it is.
    ///
    /// # Panics
    /// If there are not as many motifs as clusters.
    pub fn move_motifs<T: Element>(&mut self, motifs: &mut [T], fixed: usize) -> (Vec<bool>, f64) {
        let (size, scale, isa) = (self.block_size, self.scale, Isa::best());
        assert_eq!(motifs.len(), self.motif_count() * size);
        let mut moved = vec![false; self.motif_count()];
        let move_piece = |(number, ((moved, motifs), rows))| {
            let work = Move {
                rows,
                motifs,
                moved,
                fixed: fixed.saturating_sub(number * AT_A_TIME),
                size,
                scale,
            };
            dispatch(isa, work)
        };
        let pieces = moved
            .par_chunks_mut(AT_A_TIME)
            .zip(motifs.par_chunks_mut(AT_A_TIME * size))
            .zip(self.rows.par_chunks_mut(AT_A_TIME * (size + 2)));
        let shares: Vec<f64> = pieces.enumerate().map(move_piece).collect();
        (moved, self.unscaled(&shares))
    }

    /// The distortion, given those of some motifs at a time, which are scaled.
    fn unscaled(&self, shares: &[f64]) -> f64 {
        shares.iter().sum::<f64>() / self.scale / self.scale
    }
}

/// Consecutive blocks, sorted by bucket.
#[derive(Default)]
struct Chunk<T> {
    blocks: Vec<T>,
    indices: Vec<u32>,
    /// Where each bucket begins, and the end.
    starts: Vec<usize>,
    /// Where the next block of each bucket goes, while they are sorted.
    next: Vec<usize>,
}

impl<T: Element> Chunk<T> {
    /// Replaces what it holds. Blocks have `S` values or, if that is 0, `size`.
    fn sort<const S: usize>(
        &mut self,
        blocks: &[T],
        size: usize,
        indices: &[u32],
        shift: u32,
        bucket_count: usize,
    ) {
        let size = if S == 0 { size } else { S };
        self.starts.clear();
        self.starts.resize(bucket_count + 1, 0);
        for &index in indices {
            self.starts[(index as usize >> shift) + 1] += 1;
        }
        for bucket in 0..bucket_count {
            self.starts[bucket + 1] += self.starts[bucket];
        }
        self.next.clone_from(&self.starts);
        self.blocks.resize(blocks.len(), T::default());
        self.indices.resize(indices.len(), 0);
        let next = self.next.as_mut_slice();
        let (sorted, sorted_indices) = (self.blocks.as_mut_slice(), self.indices.as_mut_slice());
        for (block, &index) in blocks.chunks_exact(size).zip(indices) {
            let place = next[index as usize >> shift];
            next[index as usize >> shift] = place + 1;
            sorted[place * size..][..size].copy_from_slice(block);
            sorted_indices[place] = index;
        }
    }

    /// The blocks of a bucket and their indices.
    #[inline(always)]
    fn of_bucket(&self, bucket: usize, size: usize) -> (&[T], &[u32]) {
        let range = self.starts[bucket]..self.starts[bucket + 1];
        (
            &self.blocks[range.start * size..range.end * size],
            &self.indices[range],
        )
    }
}

/// The largest of some indices.
struct Largest<'a>(&'a [u32]);

impl Work for Largest<'_> {
    type Output = u32;

    #[inline(always)]
    fn run<V: Simd>(self, _: V) -> u32 {
        self.0.iter().copied().fold(0, u32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::motifs::SplitMix64;

    #[test]
    fn both_ways_to_gather_give_the_same_sums() {
        for size in [1, 2, 3, 4, 8] {
            let (m, k) = (3 * CHUNK_LEN + 17, 30_000);
            let mut random = SplitMix64::new(1);
            let mut value = || random.next_u64() as f32 / u64::MAX as f32 - 0.5;
            let blocks: Vec<f32> = (0..m * size).map(|_| value()).collect();
            let indices: Vec<u32> = (0..m).map(|_| random.below(k as u64) as u32).collect();
            let clusters = || Clusters::new(k, size, 0.5).unwrap();
            let mut plain = vec![0.0; k * (size + 2)];
            for (block, &index) in blocks.chunks_exact(size).zip(&indices) {
                let row = &mut plain[index as usize * (size + 2)..][..size + 2];
                let mut squares = 0.0;
                for (sum, &x) in row.iter_mut().zip(block) {
                    squares += f64::from(x) * f64::from(x);
                    *sum += f64::from(x);
                }
                row[size] += 1.0;
                row[size + 1] += squares;
            }
            let mut one = clusters();
            let mut chunks = Vec::new();
            one.gather_sorted(&blocks, &indices, &mut chunks);
            assert_eq!(*one.rows, plain);
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let mut other = clusters();
                pool.build()
                    .unwrap()
                    .install(|| other.gather_in_place(&blocks, &indices));
                assert_eq!(*other.rows, plain);
            }
            // The chunks may be used again, for fewer blocks.
            let half = m / 2;
            let mut again = clusters();
            for range in [0..half, half..m] {
                let blocks = &blocks[range.start * size..range.end * size];
                again.gather_sorted(blocks, &indices[range], &mut chunks);
            }
            assert_eq!(*again.rows, plain);
            let mut pieces = clusters();
            let cuts = [0, 1, 40_000, 40_001, m];
            for cut in cuts.windows(2) {
                let (start, end) = (cut[0], cut[1]);
                let blocks = &blocks[start * size..end * size];
                let indices = &indices[start..end];
                pieces.add(blocks, indices, &Monitor::new()).unwrap();
            }
            assert_eq!(*pieces.rows, plain);
        }
    }

    #[test]
    fn motifs_move_to_the_means_of_their_blocks() {
        let mut clusters = Clusters::new(4, 2, 4.0).unwrap();
        let mut motifs = [0.0f32, 0.0, 1.0, 1.0, 5.0, 5.0, 2.0, 3.0];
        let blocks = [0.5, 0.5, 1.0, 2.0, 3.0, 4.0, 2.0, 3.0];
        let monitor = Monitor::new();
        clusters.add(&blocks, &[0, 1, 1, 3], &monitor).unwrap();
        assert_eq!(clusters.distortion(&motifs), 0.5 + 1.0 + 4.0 + 9.0);
        assert_eq!(
            clusters.move_motifs(&mut motifs, 1),
            (vec![false, true, false, false], 0.5 + 1.0 + 4.0 + 9.0)
        );
        assert_eq!(motifs, [0.0, 0.0, 2.0, 3.0, 5.0, 5.0, 2.0, 3.0]);
        assert_eq!(*clusters.rows, [0.0; 16]);
        clusters.add(&blocks, &[0, 1, 1, 3], &monitor).unwrap();
        assert_ne!(*clusters.rows, [0.0; 16]);
        clusters.clear();
        assert_eq!(*clusters.rows, [0.0; 16]);
    }

    #[test]
    fn an_index_of_no_motif_is_refused_and_nothing_added() {
        let (blocks, m) = ([1.0f32; 5000], 5000);
        for (bad, place) in [(2, 0), (2, m - 1), (u32::MAX, m / 2)] {
            let mut indices = [1; 5000];
            indices[place] = bad;
            for threads in [1, 2, MOST_SCANNING + 1] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let mut clusters = Clusters::new(2, 1, 1.0).unwrap();
                let added = pool
                    .build()
                    .unwrap()
                    .install(|| clusters.add(&blocks, &indices, &Monitor::new()));
                assert_eq!(
                    added.unwrap_err().message(),
                    format!("the index {bad} is none of 2 motifs")
                );
                assert_eq!(*clusters.rows, [0.0; 6]);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Clusters::new(0, 2, 1.0).is_err());
        assert!(Clusters::new(1, 0, 1.0).is_err());
        let mut clusters = Clusters::new(2, 1, 1.0).unwrap();
        let mut add =
            |blocks: &[f32], indices: &[u32]| clusters.add(blocks, indices, &Monitor::new());
        assert!(add(&[1.0], &[0]).is_ok());
        assert!(add(&[1.0], &[0, 0]).is_err());
        assert!(add(&[1.0, 2.0], &[0]).is_err());
        assert_eq!(*clusters.rows, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    }
}
