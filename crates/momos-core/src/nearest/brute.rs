//! Every block against every motif, in registers.
//!
//! A tile of a few motifs times a few vectors of blocks (a block per lane) is kept in registers
//! while the coordinates stream by, one fused multiplication and addition each; only the minimum
//! over a chunk of motifs leaves the registers. At the end, the chunk with the smallest minimum,
//! and any that float32 cannot tell from it, is looked at again, with direct distances and a
//! motif per lane.
//!
//! The rounding error of an expanded distance grows with the norms, so that in norm shells (see
//! [`super::shells`]) a chunk of small motifs gets a small margin whatever the others are.
#![expect(
    clippy::needless_range_loop,
    reason = "lanes and coordinates index several arrays at once"
)]

use rayon::prelude::*;

use super::kernel::Search;
use super::leader::{ExactDistance, Leader, Leaders, Rivals};
use super::problem::{MotifSet, Problem};
use super::shells::{CHUNK_LEN, CHUNK_VECTORS, LaneRivals, Shells};
use crate::element::Element;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::{Isa, LANES, Simd, Work, dispatch};

/// Coordinates that stream by between two visits to memory; the blocks of a group then stay in
/// the first-level cache.
const PANEL_LEN: usize = 256;
/// Multiplications between two looks at the monitor, by one group of blocks; about a millisecond.
const WORK_PER_CHECK: usize = 1 << 25;

impl<T: Element> Search<T> for Motifs {
    fn search(
        &self,
        problem: &Problem<'_, T>,
        isa: Isa,
        monitor: &Monitor,
        nearest: &mut [u32],
    ) -> Result<()> {
        match isa {
            Isa::Avx512Vnni | Isa::Avx512 => {
                search_tiled::<T, 2, 8>(problem, self, isa, monitor, nearest)
            }
            Isa::Avx2 => search_tiled::<T, 1, 4>(problem, self, isa, monitor, nearest),
            Isa::NeonDot | Isa::Neon | Isa::Portable => {
                search_tiled::<T, 1, 2>(problem, self, isa, monitor, nearest)
            }
        }
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
    let exact = |block: usize, motif: u32| problem.distance(block, motif);
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

/// The motifs in norm shells, and what expanded distances need.
#[derive(Debug)]
pub struct Motifs {
    shells: Shells,
    /// Half of the squared norms.
    half_norms: Vec<[f32; LANES]>,
    /// Errors of the expanded distances of every chunk.
    errors: Vec<f32>,
}

impl Motifs {
    /// Lays out the motifs to search, which are all different.
    pub fn pack<T: Element>(motifs: &MotifSet<'_, T>, candidates: &[u32]) -> Self {
        let shells = Shells::new(motifs, candidates);
        let norms = shells.squared_norms.iter();
        let half_norms = norms
            .map(|norms| norms.map(|norm| (0.5 * norm) as f32))
            .collect();
        let errors = shells
            .squared_norms
            .chunks(CHUNK_VECTORS)
            .map(|norms| {
                let norms = norms.as_flattened().iter();
                let largest = norms.filter(|norm| norm.is_finite());
                shells.margin.expanded(largest.copied().fold(0.0, f64::max))
            })
            .collect();
        Self {
            shells,
            half_norms,
            errors,
        }
    }
}

/// Some blocks, a lane each.
struct Group<const VECTORS: usize> {
    coordinates: Vec<[[f32; LANES]; VECTORS]>,
    squared_norms: [[f32; LANES]; VECTORS],
    /// Slacks of the limits of direct and of expanded distances.
    slacks: [[f32; LANES]; VECTORS],
    expanded_slacks: [[f32; LANES]; VECTORS],
    /// Smallest and largest norm (not squared).
    norms: (f32, f32),
    /// Chunks that may hold a motif as near as the leading chunk does.
    rival_chunks: Rivals,
    /// Motifs that may be as near as the leading motif.
    rivals: Rivals,
    /// Partial sums of a chunk between panels.
    partial: Vec<[[f32; LANES]; VECTORS]>,
}

impl<const VECTORS: usize> Group<VECTORS> {
    fn new(block_size: usize) -> Self {
        Self {
            coordinates: vec![[[0.0; LANES]; VECTORS]; block_size],
            squared_norms: [[0.0; LANES]; VECTORS],
            slacks: [[0.0; LANES]; VECTORS],
            expanded_slacks: [[0.0; LANES]; VECTORS],
            norms: (0.0, 0.0),
            rival_chunks: Rivals::default(),
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
        let (fixed, per_norm) = motifs.shells.margin.slack_terms(motifs.shells.largest_norm);
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
            let slack = per_norm * norm as f32 + fixed;
            self.squared_norms[vector][place] = norm as f32;
            self.slacks[vector][place] = slack;
            self.expanded_slacks[vector][place] = motifs.shells.margin.expanded_slack(norm, slack);
        }
        self.norms = (smallest.sqrt() as f32, largest.sqrt() as f32);
        self.rival_chunks.clear();
        self.rivals.clear();
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
        let leaders = self.leading_chunks(simd)?;
        for vector in 0..VECTORS {
            let (chunks, contested) = leaders[vector].finish(simd);
            for place in 0..LANES {
                let lane = vector * LANES + place;
                if lane >= self.nearest.len() {
                    break;
                }
                let mut leader = Leader::NONE;
                self.offer_chunk(simd, &mut leader, chunks[place], lane);
                if contested >> place & 1 == 1 {
                    let mut rivals: Vec<u32> = self.group.rival_chunks.of(lane as u32).collect();
                    rivals.sort_unstable();
                    rivals.dedup();
                    for chunk in rivals.into_iter().filter(|&chunk| chunk != chunks[place]) {
                        self.offer_chunk(simd, &mut leader, chunk, lane);
                    }
                }
                let block = self.first + lane;
                self.nearest[lane] =
                    leader.finish(lane as u32, block, &self.group.rivals, self.exact);
            }
        }
        Ok(())
    }
}

impl<const VECTORS: usize, const TILE: usize> GroupSearch<'_, VECTORS, TILE> {
    /// Goes through the chunks, outwards from the one whose norms are the group's, until their
    /// norms are out of reach.
    #[inline(always)]
    fn leading_chunks<V: Simd>(&mut self, simd: V) -> Result<[Leaders<V>; VECTORS]> {
        let motifs = self.motifs;
        let chunk_work = motifs.shells.block_size * CHUNK_LEN * VECTORS * LANES;
        let chunks_per_check = (WORK_PER_CHECK / chunk_work).max(1);
        let mut outwards = motifs.shells.outwards(self.group.norms);
        let mut leaders = [Leaders::new(simd); VECTORS];
        let mut reach = f32::MAX;
        let mut count = 0;
        while let Some(chunk) = outwards.next(reach) {
            if count % chunks_per_check == 0 {
                self.monitor.check()?;
            }
            count += 1;
            if self.chunk(simd, chunk, &mut leaders) {
                reach = self.reach(simd, &leaders);
            }
        }
        Ok(leaders)
    }

    /// Compares the group with a chunk; returns whether any leader may have changed.
    #[inline(always)]
    fn chunk<V: Simd>(
        &mut self,
        simd: V,
        chunk: usize,
        leaders: &mut [Leaders<V>; VECTORS],
    ) -> bool {
        let minima = if self.motifs.shells.block_size <= PANEL_LEN {
            self.minima(simd, chunk)
        } else {
            self.minima_by_panels(simd, chunk)
        };
        let error = simd.splat(self.motifs.errors[chunk]);
        let relative = simd.splat(self.motifs.shells.margin.relative());
        let mut changed = false;
        for vector in 0..VECTORS {
            let least = simd.sub(minima[vector], error);
            if leaders[vector].concerns(simd, least) {
                let most = simd.add(minima[vector], error);
                let slack = simd.load(&self.group.expanded_slacks[vector]);
                let limit = simd.mul_add(most, relative, slack);
                let first_lane = (vector * LANES) as u32;
                let rivals = &mut self.group.rival_chunks;
                leaders[vector].offer(simd, least, limit, chunk as u32, first_lane, rivals);
                changed = true;
            }
        }
        changed
    }

    /// Motifs whose norms differ from the group's by more than this are out.
    #[inline(always)]
    fn reach<V: Simd>(&self, simd: V, leaders: &[Leaders<V>; VECTORS]) -> f32 {
        let mut limit = simd.splat(0.0);
        for vector in 0..VECTORS {
            let norm = simd.load(&self.group.squared_norms[vector]);
            let direct = simd.mul_add(leaders[vector].limit(), simd.splat(2.0), norm);
            limit = simd.max(limit, direct);
        }
        self.motifs
            .shells
            .margin
            .reach(simd.reduce_max(limit), self.group.norms.1)
    }

    /// Smallest expanded distance to the chunk's motifs, for every block.
    #[inline(always)]
    fn minima<V: Simd>(&self, simd: V, chunk: usize) -> [V::Floats; VECTORS] {
        let size = self.motifs.shells.block_size;
        let mut minima = [simd.splat(f32::INFINITY); VECTORS];
        for vector in chunk * CHUNK_VECTORS..(chunk + 1) * CHUNK_VECTORS {
            let rows = &self.motifs.shells.coordinates[vector * size..][..size];
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
        let size = self.motifs.shells.block_size;
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
                let rows =
                    &self.motifs.shells.coordinates[vector * size + start..vector * size + end];
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
    fn offer_chunk<V: Simd>(&mut self, simd: V, leader: &mut Leader, chunk: u32, lane: usize) {
        let (vector, place) = (lane / LANES % VECTORS, lane % LANES);
        let group = &mut *self.group;
        self.motifs.shells.offer(
            simd,
            chunk as usize,
            group.coordinates.iter().map(|row| row[vector][place]),
            group.slacks[vector][place],
            leader,
            &mut LaneRivals {
                lane: lane as u32,
                all: &mut group.rivals,
            },
        );
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
