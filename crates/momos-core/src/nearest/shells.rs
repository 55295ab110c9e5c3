//! Motifs in norm shells: sorted by norm, sixty-four to a chunk.
//!
//! A block need only be compared with the chunks whose norms are near its own: by the triangle
//! inequality, two points are at least as far apart as their norms.

use rayon::prelude::*;

use super::leader::{Leader, Rivals};
use super::margin::Margin;
use super::problem::MotifSet;
use crate::element::Element;
use crate::simd::{LANES, Simd};

/// Vectors of motifs in a chunk.
pub const CHUNK_VECTORS: usize = 4;
/// Motifs in a chunk.
pub const CHUNK_LEN: usize = CHUNK_VECTORS * LANES;
/// Coordinates of unused motifs: farther than any motif, yet with finite products.
pub const FAR: f32 = (1u64 << 60) as f32;

/// The motifs sorted by norm, in scaled float32.
#[derive(Debug)]
pub struct Shells {
    pub block_size: usize,
    pub margin: Margin,
    /// Sixteen motifs at a time, coordinate by coordinate; [`FAR`] where there is none.
    pub coordinates: Vec<[f32; LANES]>,
    /// Their squared norms; infinite where there is none.
    pub squared_norms: Vec<[f64; LANES]>,
    /// Their indices; `u32::MAX` where there is none.
    indices: Vec<[u32; LANES]>,
    /// Smallest and largest norm (not squared) of every chunk.
    pub norms: Vec<(f32, f32)>,
    /// The largest squared norm.
    pub largest_norm: f64,
}

impl Shells {
    /// Sorts the motifs to search, which are all different.
    pub fn new<T: Element>(motifs: &MotifSet<'_, T>, candidates: &[u32]) -> Self {
        let block_size = motifs.block_size();
        let mut by_norm: Vec<(f64, u32)> = candidates
            .par_iter()
            .map(|&motif| (squared_norm(motifs.scaled(motif)), motif))
            .collect();
        by_norm.par_sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));

        let vector_count = by_norm.len().div_ceil(CHUNK_LEN) * CHUNK_VECTORS;
        let mut coordinates = vec![[FAR; LANES]; vector_count * block_size];
        let mut squared_norms = vec![[f64::INFINITY; LANES]; vector_count];
        let mut indices = vec![[u32::MAX; LANES]; vector_count];
        by_norm
            .par_chunks(LANES)
            .zip(coordinates.par_chunks_mut(block_size))
            .zip(&mut squared_norms)
            .zip(&mut indices)
            .for_each(|(((sorted, rows), norms), indices)| {
                for (lane, &(norm, motif)) in sorted.iter().enumerate() {
                    for (row, value) in rows.iter_mut().zip(motifs.scaled(motif)) {
                        row[lane] = value;
                    }
                    norms[lane] = norm;
                    indices[lane] = motif;
                }
            });
        let chunks = by_norm.chunks(CHUNK_LEN);
        let norms = chunks
            .map(|motifs| {
                let (smallest, largest) = (motifs[0].0, motifs[motifs.len() - 1].0);
                (smallest.sqrt() as f32, largest.sqrt() as f32)
            })
            .collect();
        Self {
            block_size,
            margin: Margin::new(block_size, motifs.exact_in_f32()),
            coordinates,
            squared_norms,
            indices,
            norms,
            largest_norm: by_norm.last().map_or(0.0, |last| last.0),
        }
    }

    /// Number of chunks.
    pub fn chunk_count(&self) -> usize {
        self.norms.len()
    }

    /// The chunk whose norms are nearest to a norm.
    pub fn home(&self, norm: f32) -> usize {
        let home = self.norms.partition_point(|norms| norms.1 < norm);
        home.min(self.norms.len() - 1)
    }

    /// Goes through the chunks outwards from the one whose norms are those of some blocks.
    pub fn outwards(&self, norms: (f32, f32)) -> Outwards<'_> {
        let home = self.home(0.5 * (norms.0 + norms.1));
        Outwards {
            chunks: &self.norms,
            norms,
            below: home,
            above: home,
            upwards: true,
        }
    }

    /// Shows a block the motifs of a chunk, by direct distances; `slack` is that of its limits.
    #[inline(always)]
    pub fn offer<V: Simd>(
        &self,
        simd: V,
        chunk: usize,
        block: impl Iterator<Item = f32>,
        slack: f32,
        leader: &mut Leader,
        rivals: &mut LaneRivals<'_>,
    ) {
        let size = self.block_size;
        let first = chunk * CHUNK_VECTORS;
        let rows = &self.coordinates[first * size..][..CHUNK_VECTORS * size];
        let mut sums = [simd.splat(0.0); CHUNK_VECTORS];
        for (d, x) in block.take(size).enumerate() {
            let x = simd.splat(x);
            for (i, sum) in sums.iter_mut().enumerate() {
                let difference = simd.sub(x, simd.load(&rows[i * size + d]));
                *sum = simd.mul_add(difference, difference, *sum);
            }
        }
        let mut smallest = sums[0];
        for sum in &sums[1..] {
            smallest = simd.min(smallest, *sum);
        }
        let smallest = simd.reduce_min(smallest);
        if smallest > leader.limit() {
            return;
        }
        let margin = (self.margin.relative(), slack);
        let limit = simd.splat(leader.limit().min(smallest * margin.0 + margin.1));
        for (sum, motifs) in sums.iter().zip(&self.indices[first..]) {
            let mut close = simd.bits(simd.le(*sum, limit));
            if close == 0 {
                continue;
            }
            let distances = simd.to_array(*sum);
            while close != 0 {
                let place = close.trailing_zeros() as usize % LANES;
                close &= close - 1;
                leader.offer(
                    distances[place],
                    motifs[place],
                    margin,
                    rivals.lane,
                    rivals.all,
                );
            }
        }
    }
}

/// The rivals of one of the blocks that share them.
#[derive(Debug)]
pub struct LaneRivals<'a> {
    pub lane: u32,
    pub all: &'a mut Rivals,
}

/// Chunks by the distance of their norms from those of some blocks.
#[derive(Debug)]
pub struct Outwards<'a> {
    chunks: &'a [(f32, f32)],
    norms: (f32, f32),
    /// Chunks before this one are still to be visited, and those from `above` on.
    below: usize,
    above: usize,
    upwards: bool,
}

impl Outwards<'_> {
    /// The next chunk whose norms differ from those of the blocks by no more than `reach`.
    #[inline(always)]
    pub fn next(&mut self, reach: f32) -> Option<usize> {
        if self.above < self.chunks.len() && self.chunks[self.above].0 - self.norms.1 > reach {
            self.above = self.chunks.len();
        }
        if self.below > 0 && self.norms.0 - self.chunks[self.below - 1].1 > reach {
            self.below = 0;
        }
        let can_rise = self.above < self.chunks.len();
        if !can_rise && self.below == 0 {
            return None;
        }
        let rises = can_rise && (self.upwards || self.below == 0);
        self.upwards = !rises;
        if rises {
            self.above += 1;
            Some(self.above - 1)
        } else {
            self.below -= 1;
            Some(self.below)
        }
    }
}

/// The squared norm of scaled values.
pub fn squared_norm(values: impl Iterator<Item = f32>) -> f64 {
    values
        .map(|value| f64::from(value) * f64::from(value))
        .sum()
}
