//! Every block against every motif, in registers.
//!
//! A tile of a few motifs times a few vectors of blocks (a block per lane) is kept in registers
//! while the coordinates stream by, one fused multiplication and addition each; only the minimum
//! over a chunk of motifs leaves the registers. Where it is below what the block's limit allows,
//! the chunk is looked at again, with direct distances and a motif per lane.
//!
//! Motifs are sorted by norm: the rounding error of an expanded distance grows with the norms, so
//! that a chunk of small motifs gets a small margin whatever the others are; and a chunk whose
//! norms differ from the blocks' by more than their limits is skipped (the triangle inequality).

use rayon::prelude::*;

use super::element::Element;
use super::leader::{ExactDistance, Leader, Rivals};
use super::margin::Margin;
use super::problem::Problem;
use super::simd::{Isa, LANES, Simd, Work, dispatch};
use crate::error::Result;
use crate::monitor::Monitor;

/// Vectors of motifs in a chunk.
const CHUNK_VECTORS: usize = 4;
/// Coordinates that stream by between two visits to memory; the blocks of a group then stay in
/// the first-level cache.
const PANEL_LEN: usize = 256;
/// Multiplications between two looks at the monitor, by one group of blocks; about a millisecond.
const WORK_PER_CHECK: usize = 1 << 25;
/// Coordinates of unused motifs: farther than any motif, yet with finite products.
const FAR: f32 = (1u64 << 60) as f32;

/// Finds the nearest motif of every block; `unique` are the motifs to search, without duplicates.
///
/// # Errors
/// `Interrupted`, if cancelled.
pub fn search<T: Element>(
    problem: &Problem<'_, T>,
    unique: &[u32],
    isa: Isa,
    monitor: &Monitor,
    nearest: &mut [u32],
) -> Result<()> {
    let motifs = Motifs::pack(problem, unique);
    match isa {
        Isa::Avx512 => search_tiled::<T, 2, 8>(problem, &motifs, isa, monitor, nearest),
        Isa::Avx2 => search_tiled::<T, 1, 4>(problem, &motifs, isa, monitor, nearest),
        Isa::Portable => search_tiled::<T, 1, 2>(problem, &motifs, isa, monitor, nearest),
    }
}

fn search_tiled<T: Element, const VECTORS: usize, const TILE: usize>(
    problem: &Problem<'_, T>,
    motifs: &Motifs,
    isa: Isa,
    monitor: &Monitor,
    nearest: &mut [u32],
) -> Result<()> {
    let group_len = VECTORS * LANES;
    let exact = |block: usize, motif: u32| problem.distance(block, motif as usize);
    nearest
        .par_chunks_mut(group_len)
        .enumerate()
        .try_for_each_init(
            || Group::<VECTORS>::new(problem.block_size()),
            |group, (number, nearest)| {
                let first = number * group_len;
                let len = nearest.len();
                group.load(problem, motifs, first, len);
                let search = GroupSearch::<VECTORS, TILE> {
                    motifs,
                    group,
                    first,
                    exact: &exact,
                    monitor,
                    nearest,
                };
                dispatch(isa, search)?;
                monitor.advance(len as u64);
                Ok(())
            },
        )
}

/// The motifs sorted by norm and laid out for the kernels.
#[derive(Debug)]
pub struct Motifs {
    block_size: usize,
    margin: Margin,
    /// Sixteen motifs at a time, coordinate by coordinate.
    coordinates: Vec<[f32; LANES]>,
    /// Half of their squared norms.
    half_norms: Vec<[f32; LANES]>,
    /// Their indices; `u32::MAX` where there is none.
    indices: Vec<[u32; LANES]>,
    chunks: Vec<Chunk>,
    largest_norm: f64,
}

/// What is known of [`CHUNK_VECTORS`] vectors of motifs together.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// Smallest and largest norm (not squared).
    norms: (f32, f32),
    /// Error of its expanded distances.
    error: f32,
}

impl Motifs {
    fn pack<T: Element>(problem: &Problem<'_, T>, unique: &[u32]) -> Self {
        let block_size = problem.block_size();
        let margin = Margin::new(block_size, problem.exact_in_f32());
        let scaled = |motif: u32| {
            let values = problem.motif(motif as usize).iter();
            values.map(|value| value.scaled_to_f32(problem.scale()))
        };
        let mut by_norm: Vec<(f64, u32)> = unique
            .par_iter()
            .map(|&motif| (squared_norm(scaled(motif)), motif))
            .collect();
        by_norm.par_sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));

        let chunk_count = by_norm.len().div_ceil(CHUNK_VECTORS * LANES);
        let vector_count = chunk_count * CHUNK_VECTORS;
        let mut coordinates = vec![[FAR; LANES]; vector_count * block_size];
        let mut half_norms = vec![[f32::INFINITY; LANES]; vector_count];
        let mut indices = vec![[u32::MAX; LANES]; vector_count];
        for (place, &(norm, motif)) in by_norm.iter().enumerate() {
            let (vector, lane) = (place / LANES, place % LANES);
            let rows = &mut coordinates[vector * block_size..][..block_size];
            for (row, value) in rows.iter_mut().zip(scaled(motif)) {
                row[lane] = value;
            }
            half_norms[vector][lane] = (0.5 * norm) as f32;
            indices[vector][lane] = motif;
        }
        let chunks = by_norm
            .chunks(CHUNK_VECTORS * LANES)
            .map(|motifs| {
                let (smallest, largest) = (motifs[0].0, motifs[motifs.len() - 1].0);
                Chunk {
                    norms: (smallest.sqrt() as f32, largest.sqrt() as f32),
                    error: margin.expanded(largest),
                }
            })
            .collect();
        let largest_norm = by_norm.last().map_or(0.0, |last| last.0);
        Self {
            block_size,
            margin,
            coordinates,
            half_norms,
            indices,
            chunks,
            largest_norm,
        }
    }
}

fn squared_norm(values: impl Iterator<Item = f32>) -> f64 {
    values
        .map(|value| f64::from(value) * f64::from(value))
        .sum()
}

/// Some blocks, a lane each, and how far their search is.
struct Group<const VECTORS: usize> {
    coordinates: Vec<[[f32; LANES]; VECTORS]>,
    leaders: Vec<Leader>,
    slacks: Vec<f32>,
    squared_norms: Vec<f64>,
    /// Expanded distances above it, after adding the chunk's error, are out.
    limits: [[f32; LANES]; VECTORS],
    /// Smallest and largest norm (not squared).
    norms: (f32, f32),
    rivals: Rivals,
    /// Partial sums of a chunk between panels.
    partial: Vec<[[f32; LANES]; VECTORS]>,
}

impl<const VECTORS: usize> Group<VECTORS> {
    fn new(block_size: usize) -> Self {
        let lanes = VECTORS * LANES;
        Self {
            coordinates: vec![[[0.0; LANES]; VECTORS]; block_size],
            leaders: vec![Leader::NONE; lanes],
            slacks: vec![0.0; lanes],
            squared_norms: vec![0.0; lanes],
            limits: [[0.0; LANES]; VECTORS],
            norms: (0.0, 0.0),
            rivals: Rivals::default(),
            partial: Vec::new(),
        }
    }

    fn load<T: Element>(
        &mut self,
        problem: &Problem<'_, T>,
        motifs: &Motifs,
        first: usize,
        len: usize,
    ) {
        let (fixed, per_norm) = motifs.margin.slack_terms(motifs.largest_norm);
        let (mut smallest, mut largest) = (f64::INFINITY, 0.0f64);
        for lane in 0..VECTORS * LANES {
            // Unused lanes repeat the last block.
            let block = problem.block(first + lane.min(len - 1));
            let (vector, place) = (lane / LANES, lane % LANES);
            let mut norm = 0.0;
            for (row, value) in self.coordinates.iter_mut().zip(block) {
                let value = value.scaled_to_f32(problem.scale());
                row[vector][place] = value;
                norm += f64::from(value) * f64::from(value);
            }
            smallest = smallest.min(norm);
            largest = largest.max(norm);
            self.squared_norms[lane] = norm;
            self.slacks[lane] = per_norm * norm as f32 + fixed;
            self.leaders[lane] = Leader::NONE;
            self.limits[vector][place] = f32::MAX;
        }
        self.norms = (smallest.sqrt() as f32, largest.sqrt() as f32);
        self.rivals.clear();
    }

    /// The block of a lane, coordinate by coordinate.
    #[inline(always)]
    fn coordinate(&self, lane: usize, d: usize) -> f32 {
        self.coordinates[d][lane / LANES % VECTORS][lane % LANES]
    }

    /// Motifs whose norms differ from the group's by more than this are out.
    fn reach(&self, margin: &Margin) -> f32 {
        let limit = self
            .leaders
            .iter()
            .fold(0.0f32, |limit, leader| limit.max(leader.limit()));
        margin.reach(limit, self.norms.1)
    }
}

struct GroupSearch<'a, const VECTORS: usize, const TILE: usize> {
    motifs: &'a Motifs,
    group: &'a mut Group<VECTORS>,
    first: usize,
    exact: ExactDistance<'a>,
    monitor: &'a Monitor,
    nearest: &'a mut [u32],
}

impl<const VECTORS: usize, const TILE: usize> Work for GroupSearch<'_, VECTORS, TILE> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<V: Simd>(mut self, simd: V) -> Result<()> {
        let chunks = self.motifs.chunks.len();
        let chunk_work = self.motifs.block_size * CHUNK_VECTORS * LANES * VECTORS * LANES;
        let chunks_per_check = (WORK_PER_CHECK / chunk_work).max(1);
        // Outwards from the chunk whose norms are the group's, so that limits fall early.
        let middle = 0.5 * (self.group.norms.0 + self.group.norms.1);
        let home = self
            .motifs
            .chunks
            .partition_point(|chunk| chunk.norms.1 < middle);
        let (mut below, mut above) = (home, home);
        let mut reach = f32::MAX;
        let mut seen = 0;
        while below > 0 || above < chunks {
            if seen % chunks_per_check == 0 {
                self.monitor.check()?;
            }
            seen += 1;
            if above < chunks {
                if self.motifs.chunks[above].norms.0 - self.group.norms.1 > reach {
                    above = chunks;
                } else {
                    reach = self.chunk(simd, above).unwrap_or(reach);
                    above += 1;
                }
            }
            if below > 0 {
                if self.group.norms.0 - self.motifs.chunks[below - 1].norms.1 > reach {
                    below = 0;
                } else {
                    below -= 1;
                    reach = self.chunk(simd, below).unwrap_or(reach);
                }
            }
        }
        for (lane, nearest) in self.nearest.iter_mut().enumerate() {
            let leader = &self.group.leaders[lane];
            *nearest = leader.finish(
                lane as u32,
                self.first + lane,
                &self.group.rivals,
                self.exact,
            );
        }
        Ok(())
    }
}

impl<const VECTORS: usize, const TILE: usize> GroupSearch<'_, VECTORS, TILE> {
    /// Compares the group with a chunk; returns the group's reach if it may have changed.
    #[inline(always)]
    fn chunk<V: Simd>(&mut self, simd: V, chunk: usize) -> Option<f32> {
        let minima = if self.motifs.block_size <= PANEL_LEN {
            self.minima(simd, chunk)
        } else {
            self.minima_by_panels(simd, chunk)
        };
        let error = simd.splat(-self.motifs.chunks[chunk].error);
        let mut changed = false;
        for vector in 0..VECTORS {
            let limit = simd.load(&self.group.limits[vector]);
            let mut lanes = simd.bits(simd.le(simd.add(minima[vector], error), limit));
            changed |= lanes != 0;
            while lanes != 0 {
                let lane = lanes.trailing_zeros() as usize;
                lanes &= lanes - 1;
                self.rescan(simd, chunk, vector * LANES + lane);
            }
        }
        changed.then(|| self.group.reach(&self.motifs.margin))
    }

    /// Smallest expanded distance to the chunk's motifs, for every block.
    #[inline(always)]
    fn minima<V: Simd>(&self, simd: V, chunk: usize) -> [V::Floats; VECTORS] {
        let size = self.motifs.block_size;
        let mut minima = [simd.splat(f32::INFINITY); VECTORS];
        for vector in chunk * CHUNK_VECTORS..(chunk + 1) * CHUNK_VECTORS {
            let rows = &self.motifs.coordinates[vector * size..][..size];
            let (half_norms, _) = self.motifs.half_norms[vector].as_chunks::<TILE>();
            for (part, half_norms) in half_norms.iter().enumerate() {
                let mut sums = [[simd.splat(0.0); VECTORS]; TILE];
                for i in 0..TILE {
                    sums[i] = [simd.splat(half_norms[i]); VECTORS];
                }
                tile(simd, &mut sums, rows, part, &self.group.coordinates);
                for i in 0..TILE {
                    for v in 0..VECTORS {
                        minima[v] = simd.min(minima[v], sums[i][v]);
                    }
                }
            }
        }
        minima
    }

    /// The same where the blocks are so long that the group would not stay in cache.
    #[inline(always)]
    fn minima_by_panels<V: Simd>(&mut self, simd: V, chunk: usize) -> [V::Floats; VECTORS] {
        let size = self.motifs.block_size;
        let vectors = chunk * CHUNK_VECTORS..(chunk + 1) * CHUNK_VECTORS;
        self.group.partial.clear();
        for vector in vectors.clone() {
            for half_norm in self.motifs.half_norms[vector] {
                self.group.partial.push([[half_norm; LANES]; VECTORS]);
            }
        }
        for start in (0..size).step_by(PANEL_LEN) {
            let end = (start + PANEL_LEN).min(size);
            let blocks = &self.group.coordinates[start..end];
            let (partial, _) = self.group.partial.as_chunks_mut::<TILE>();
            for (number, partial) in partial.iter_mut().enumerate() {
                let vector = vectors.start + number * TILE / LANES;
                let rows = &self.motifs.coordinates[vector * size + start..vector * size + end];
                let mut sums = [[simd.splat(0.0); VECTORS]; TILE];
                for i in 0..TILE {
                    for v in 0..VECTORS {
                        sums[i][v] = simd.load(&partial[i][v]);
                    }
                }
                tile(simd, &mut sums, rows, number % (LANES / TILE), blocks);
                for i in 0..TILE {
                    for v in 0..VECTORS {
                        partial[i][v] = simd.to_array(sums[i][v]);
                    }
                }
            }
        }
        let mut minima = [simd.splat(f32::INFINITY); VECTORS];
        for sums in &self.group.partial {
            for v in 0..VECTORS {
                minima[v] = simd.min(minima[v], simd.load(&sums[v]));
            }
        }
        minima
    }

    /// Shows a block the chunk's motifs, by direct distances.
    #[inline(always)]
    fn rescan<V: Simd>(&mut self, simd: V, chunk: usize, lane: usize) {
        let size = self.motifs.block_size;
        let mut distances = [[0.0f32; LANES]; CHUNK_VECTORS];
        let mut smallest = simd.splat(f32::INFINITY);
        for (i, distances) in distances.iter_mut().enumerate() {
            let rows = &self.motifs.coordinates[(chunk * CHUNK_VECTORS + i) * size..][..size];
            let mut sum = simd.splat(0.0);
            for (d, row) in rows.iter().enumerate() {
                let x = simd.splat(self.group.coordinate(lane, d));
                let difference = simd.sub(x, simd.load(row));
                sum = simd.mul_add(difference, difference, sum);
            }
            smallest = simd.min(smallest, sum);
            *distances = simd.to_array(sum);
        }
        let smallest = simd.reduce_min(smallest);
        let group = &mut *self.group;
        let leader = &mut group.leaders[lane];
        if smallest > leader.limit() {
            return;
        }
        let (relative, slack) = (self.motifs.margin.relative(), group.slacks[lane]);
        let limit = simd.splat(leader.limit().min(smallest * relative + slack));
        for (i, distances) in distances.iter().enumerate() {
            let mut lanes = simd.bits(simd.le(simd.load(distances), limit));
            while lanes != 0 {
                let place = lanes.trailing_zeros() as usize % LANES;
                lanes &= lanes - 1;
                let motif = self.motifs.indices[chunk * CHUNK_VECTORS + i][place];
                leader.offer(
                    distances[place],
                    motif,
                    (relative, slack),
                    lane as u32,
                    &mut group.rivals,
                );
            }
        }
        let norm = group.squared_norms[lane];
        let limit = self.motifs.margin.expanded_limit(leader.limit(), norm);
        group.limits[lane / LANES % VECTORS][lane % LANES] =
            limit + self.motifs.margin.expanded(norm);
    }
}

/// Subtracts the products of `TILE` motifs (a part of each row) with all blocks from `sums`.
#[inline(always)]
fn tile<V: Simd, const VECTORS: usize, const TILE: usize>(
    simd: V,
    sums: &mut [[V::Floats; VECTORS]; TILE],
    rows: &[[f32; LANES]],
    part: usize,
    blocks: &[[[f32; LANES]; VECTORS]],
) {
    let mut local = *sums;
    for (row, block) in rows.iter().zip(blocks) {
        let motifs = &row.as_chunks::<TILE>().0[part];
        let mut x = [simd.splat(0.0); VECTORS];
        for v in 0..VECTORS {
            x[v] = simd.load(&block[v]);
        }
        for i in 0..TILE {
            let z = simd.splat(motifs[i]);
            for v in 0..VECTORS {
                local[i][v] = simd.neg_mul_add(z, x[v], local[i][v]);
            }
        }
    }
    *sums = local;
}
