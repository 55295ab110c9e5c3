//! Every block against every motif in 8-bit integers, shell by shell.
//!
//! Blocks and motifs are sorted by norm. A chunk of motifs shares one scale, and so does a group
//! of blocks: `x = dx t + e` and `z = dz q + r` with integers of 8 bits `t`, `q` and residuals
//! `e`, `r` whose norms are known. Hence
//!
//! ```text
//! |dx t - dz q| - |e| - |r|  <=  |x - z|  <=  |dx t - dz q| + |e| + |r|
//! |dx t - dz q|^2 = 2 dx dz (h(x) + h(z) - t.q)    h(x) = |t|^2 dx / 2 dz    h(z) = |q|^2 dz / 2 dx
//! ```
//!
//! and `t.q - h(z)`, with `h(z)` rounded to an integer, takes one instruction for four
//! coordinates. Its largest value over a chunk bounds the distance of the chunk's nearest motif
//! from both sides: the upper bounds limit what is worth another look, the lower bounds say which
//! chunks are. Those are looked at again with direct float32 distances, nearest first; most blocks
//! need two or three.
//!
//! Rounding: with `u = 2^-24`, `h(z)` is off by at most `1/2 + 4 u h(z)`, and `h(z)` is at most
//! `4 h(x) + 2 |t.q - h(z)|`, since `|dz q| <= |dx t| + |dx t - dz q|`. Everything else is computed
//! in float32 with a few roundings. [`RELATIVE`] and [`ABSOLUTE`] cover all of it.
#![expect(
    clippy::needless_range_loop,
    reason = "lanes and coordinates index several arrays at once"
)]

use rayon::prelude::*;

use super::kernel::Search;
use super::leader::{ExactDistance, Leader, Rivals};
use super::problem::{MotifSet, Problem};
use super::shells::{CHUNK_LEN, CHUNK_VECTORS, LaneRivals, Shells};
use crate::element::Element;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::{Isa, LANES, Simd, Work, dispatch};

/// Largest block size: `127^2` times this is below `2^24`, so that norms of integers are exact in
/// float32.
pub const MAX_BLOCK_SIZE: usize = 1024;
/// Blocks searched at a time; bounds the memory for the order.
const BATCH_LEN: usize = 1 << 20;
/// Most blocks sorted by norm at a time: they stay in cache.
const MOST_SORTED: usize = 1 << 16;
/// Fewest, if there are as many: those in a group are alike.
const LEAST_SORTED: usize = 1 << 14;
/// Bits of a norm that tell them apart there: by half a percent where norms span a million.
const SORTING_BITS: u32 = 13;
/// Coordinates in a word.
const WORD_LEN: usize = 4;
/// Motifs of a chunk that are in registers at a time.
const TILE: usize = 4;
/// Largest magnitude of a motif's integers.
const LARGEST_SIGNED: f32 = 127.0;
/// Chunks after which the norms of the motifs that are out may have changed for long.
const CHUNKS_PER_REACH: usize = 4;
/// Products of words between two looks at the monitor, by one group; about a millisecond.
const WORK_PER_CHECK: usize = 1 << 23;
/// The smallest scale, far below what matters for data whose largest magnitude is `2^50`; its
/// inverse square and what is multiplied by it stay finite.
const SMALLEST_SCALE: f32 = 1.0 / (1 << 30) as f32;
/// A group's scale is at least this part of its home chunk's, so that tiny blocks do not make
/// `h(z)` overflow; the residual that it costs is small beside the motifs' own.
const LEAST_SHARE: f32 = 1.0 / 64.0;
/// Largest `h(z)`; a motif that it is cut for only seems nearer.
const MOST_HALF_SQUARE: f32 = 1e9;
/// `t.q - h(z)` is never less, nor does a smaller value of it bound distances from above.
const LEAST: f32 = -1.2e9;
const LEAST_UNCUT: f32 = -9e8;
/// Stands for a squared distance that is not known: more than any, and finite with its margins.
const UNKNOWN: f32 = (1u128 << 120) as f32;
/// No product of integers reaches this.
const MOST: f32 = 2e9;
/// Relative and absolute error of the integers' distances, see above.
const RELATIVE: f32 = 2e-6;
const ABSOLUTE: f32 = 3.0;
/// Factor that covers the rounding of square roots, squares and sums of a few terms.
const ROUNDING: f32 = 1.000_002;

/// The motifs in norm shells, as float32 and as 8-bit integers.
#[derive(Debug)]
pub struct Motifs {
    shells: Shells,
    words_per_motif: usize,
    /// Four integers a word, motif after motif.
    words: Vec<u32>,
    /// Half the squared norms of the integers.
    half_squares: Vec<[f32; LANES]>,
    /// Sums of the integers.
    sums: Vec<[f32; LANES]>,
    chunks: Vec<Chunk>,
}

/// What is known of a chunk's integers.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    scale: f32,
    /// Largest norm of a residual.
    residual: f32,
}

impl Motifs {
    /// Lays out the motifs to search, which are all different.
    pub fn pack<T: Element>(motifs: &MotifSet<'_, T>, candidates: &[u32]) -> Self {
        let shells = Shells::new(motifs, candidates);
        let size = shells.block_size;
        let words_per_motif = size.div_ceil(WORD_LEN);
        let vectors = shells.chunk_count() * CHUNK_VECTORS;
        let mut words = vec![0u32; vectors * LANES * words_per_motif];
        let mut half_squares = vec![[f32::INFINITY; LANES]; vectors];
        let mut sums = vec![[0.0; LANES]; vectors];
        let chunks = words
            .par_chunks_mut(CHUNK_LEN * words_per_motif)
            .zip(half_squares.par_chunks_mut(CHUNK_VECTORS))
            .zip(sums.par_chunks_mut(CHUNK_VECTORS))
            .enumerate()
            .map(|(chunk, ((words, half_squares), sums))| {
                let first = chunk * CHUNK_VECTORS;
                let is_used = |place: usize| {
                    shells.squared_norms[first + place / LANES][place % LANES].is_finite()
                };
                let rows = |place: usize| {
                    let rows = &shells.coordinates[(first + place / LANES) * size..][..size];
                    rows.iter().map(move |row| row[place % LANES])
                };
                let used = (0..CHUNK_LEN).filter(|&place| is_used(place));
                let largest = used
                    .clone()
                    .flat_map(rows)
                    .fold(0.0f32, |largest, value| largest.max(value.abs()));
                let scale = (largest / LARGEST_SIGNED).max(SMALLEST_SCALE);
                let mut residual = 0.0f64;
                for place in used {
                    let (mut square, mut sum, mut error) = (0i32, 0i32, 0.0f64);
                    let words = &mut words[place * words_per_motif..][..words_per_motif];
                    for (d, value) in rows(place).enumerate() {
                        let integer = (value / scale)
                            .round_ties_even()
                            .clamp(-LARGEST_SIGNED, LARGEST_SIGNED);
                        let rest = f64::from(value) - f64::from(integer) * f64::from(scale);
                        error += rest * rest;
                        let integer = integer as i32;
                        square += integer * integer;
                        sum += integer;
                        words[d / WORD_LEN] |=
                            u32::from(integer as i8 as u8) << (8 * (d % WORD_LEN));
                    }
                    half_squares[place / LANES][place % LANES] = 0.5 * square as f32;
                    sums[place / LANES][place % LANES] = sum as f32;
                    residual = residual.max(error);
                }
                Chunk {
                    scale,
                    residual: residual.sqrt() as f32 * ROUNDING,
                }
            })
            .collect();
        Self {
            shells,
            words_per_motif,
            words,
            half_squares,
            sums,
            chunks,
        }
    }
}

impl<T: Element> Search<T> for Motifs {
    fn search(
        &self,
        problem: &Problem<'_, T>,
        isa: Isa,
        monitor: &Monitor,
        nearest: &mut [u32],
    ) -> Result<()> {
        for (batch, nearest) in nearest.chunks_mut(BATCH_LEN).enumerate() {
            let first = batch * BATCH_LEN;
            let order = order_by_norm(problem, first, nearest.len());
            monitor.check()?;
            let mut found = vec![0; nearest.len()];
            match isa {
                Isa::Avx512Vnni | Isa::Avx512 => {
                    self.search_order::<T, 4>(problem, isa, monitor, &order, &mut found)?;
                }
                Isa::Avx2 | Isa::NeonDot | Isa::Neon | Isa::Portable => {
                    self.search_order::<T, 1>(problem, isa, monitor, &order, &mut found)?;
                }
            }
            for (&block, motif) in order.iter().zip(found) {
                nearest[block - first] = motif;
            }
        }
        Ok(())
    }
}

/// Blocks of a batch by norm, some thousands at a time.
fn order_by_norm<T: Element>(problem: &Problem<'_, T>, first: usize, len: usize) -> Vec<usize> {
    let share = len.div_ceil(rayon::current_num_threads());
    let sorted_len = share.clamp(LEAST_SORTED, MOST_SORTED);
    let mut order = vec![0; len];
    order.par_chunks_mut(sorted_len).enumerate().for_each_init(
        Vec::new,
        |norms, (number, order)| {
            let first = first + number * sorted_len;
            norms.clear();
            norms.extend((first..first + order.len()).map(|block| {
                let values = problem.block(block).iter();
                let squares = values.map(|value| value.scaled_to_f32(problem.scale()).powi(2));
                // Patterns of positive floats order as the floats do.
                squares.sum::<f32>().to_bits()
            }));
            sort_about(norms, first, order);
        },
    );
    order
}

/// Writes the numbers of the keys, from `first` on, by key; ones that are almost equal come in no
/// particular order.
fn sort_about(keys: &[u32], first: usize, order: &mut [usize]) {
    let smallest = keys.iter().copied().min().unwrap_or(0);
    let range = keys.iter().map(|key| key - smallest).max().unwrap_or(0);
    let shift = (u32::BITS - range.leading_zeros()).saturating_sub(SORTING_BITS);
    let slot = |key: u32| ((key - smallest) >> shift) as usize;
    let mut starts = vec![0u32; slot(smallest + range) + 2];
    for &key in keys {
        starts[slot(key) + 1] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    for (number, &key) in keys.iter().enumerate() {
        let place = &mut starts[slot(key)];
        order[*place as usize] = first + number;
        *place += 1;
    }
}

impl Motifs {
    fn search_order<T: Element, const VECTORS: usize>(
        &self,
        problem: &Problem<'_, T>,
        isa: Isa,
        monitor: &Monitor,
        order: &[usize],
        found: &mut [u32],
    ) -> Result<()> {
        match self.words_per_motif {
            2 => self.search_words::<T, VECTORS, 2>(problem, isa, monitor, order, found),
            4 => self.search_words::<T, VECTORS, 4>(problem, isa, monitor, order, found),
            8 => self.search_words::<T, VECTORS, 8>(problem, isa, monitor, order, found),
            _ => self.search_words::<T, VECTORS, 0>(problem, isa, monitor, order, found),
        }
    }

    /// As above, for blocks of `WORDS` words or, if that is 0, of any size.
    fn search_words<T: Element, const VECTORS: usize, const WORDS: usize>(
        &self,
        problem: &Problem<'_, T>,
        isa: Isa,
        monitor: &Monitor,
        order: &[usize],
        found: &mut [u32],
    ) -> Result<()> {
        let group_len = VECTORS * LANES;
        let exact = |block: usize, motif: u32| problem.distance(block, motif);
        found
            .par_chunks_mut(group_len)
            .zip(order.par_chunks(group_len))
            .enumerate()
            .try_for_each_init(
                || Group::<VECTORS>::new(self),
                |group, (number, (found, blocks))| {
                    let next = order.iter().skip((number + 1) * group_len);
                    next.take(group_len)
                        .for_each(|&block| problem.ask_for(block));
                    group.load(problem, blocks);
                    let search = GroupSearch::<VECTORS, WORDS> {
                        motifs: self,
                        group,
                        order: blocks,
                        exact: &exact,
                        monitor,
                        found,
                    };
                    dispatch(isa, search)?;
                    monitor.advance(blocks.len() as u64);
                    Ok(())
                },
            )
    }
}

/// How far the integers of a motif within a limit may be, but for the motif's own residual.
#[inline(always)]
fn radius<V: Simd>(
    simd: V,
    motifs: &Motifs,
    limit: V::Floats,
    slack: V::Floats,
    residual: V::Floats,
) -> V::Floats {
    // True distances of motifs within the limit: its margin has room for the factor.
    let relative = simd.splat(motifs.shells.margin.relative());
    let within = simd.mul_add(limit, relative, slack);
    simd.mul_add(simd.sqrt(within), simd.splat(ROUNDING), residual)
}

/// Some chunks, and the largest `t.q - h(z)` of each for the blocks of a vector.
#[derive(Default)]
struct Seen {
    chunks: Vec<u32>,
    products: Vec<[u32; LANES]>,
}

impl Seen {
    #[inline(always)]
    fn push(&mut self, chunk: usize, products: [u32; LANES]) {
        self.chunks.push(chunk as u32);
        self.products.push(products);
    }

    fn clear(&mut self) {
        self.chunks.clear();
        self.products.clear();
    }
}

type Lanes<const VECTORS: usize> = [[f32; LANES]; VECTORS];

/// Some blocks of similar norms, a lane each.
struct Group<const VECTORS: usize> {
    coordinates: Vec<Lanes<VECTORS>>,
    /// Smallest and largest norm (not squared).
    norms: (f32, f32),
    squared_norms: Lanes<VECTORS>,
    /// Four integers a word, for the first factor of `dot_bytes`.
    words: Vec<[[u32; LANES]; VECTORS]>,
    scale: f32,
    /// Half the squared norms of the integers, times the scale.
    half_squares: Lanes<VECTORS>,
    /// Norms of the residuals.
    residuals: Lanes<VECTORS>,
    /// Slacks of the limits.
    slacks: Lanes<VECTORS>,
    /// Squared distances that some motif has.
    within: Lanes<VECTORS>,
    /// Squared distances above it are out.
    limits: Lanes<VECTORS>,
    /// Largest distances of the integers to a motif within the limit, less its residual.
    radii: Lanes<VECTORS>,
    /// Per vector, the chunks that were within the limit of one of its lanes when they were seen.
    seen: [Seen; VECTORS],
    /// Per lane, those that still are in the end, after their lower bounds.
    left: Vec<Vec<(f32, u32)>>,
    rivals: Rivals,
}

impl<const VECTORS: usize> Group<VECTORS> {
    fn new(motifs: &Motifs) -> Self {
        let none = [[0.0; LANES]; VECTORS];
        Self {
            coordinates: vec![none; motifs.words_per_motif * WORD_LEN],
            norms: (0.0, 0.0),
            squared_norms: none,
            words: vec![[[0; LANES]; VECTORS]; motifs.words_per_motif],
            scale: 1.0,
            half_squares: none,
            residuals: none,
            slacks: none,
            within: none,
            limits: none,
            radii: none,
            seen: std::array::from_fn(|_| Seen::default()),
            left: vec![Vec::new(); VECTORS * LANES],
            rivals: Rivals::default(),
        }
    }

    fn load<T: Element>(&mut self, problem: &Problem<'_, T>, order: &[usize]) {
        for lane in 0..VECTORS * LANES {
            // Unused lanes repeat the last block.
            let index = order[lane.min(order.len() - 1)];
            let block = problem.block(index);
            let (vector, place) = (lane / LANES, lane % LANES);
            let within = problem.distances();
            self.within[vector][place] = within.map_or(UNKNOWN, |within| within[index]);
            for (row, value) in self.coordinates.iter_mut().zip(block) {
                row[vector][place] = value.scaled_to_f32(problem.scale());
            }
        }
        self.seen.iter_mut().for_each(Seen::clear);
        self.left.iter_mut().for_each(Vec::clear);
        self.rivals.clear();
    }

    /// Chooses the scale and computes the integers and all that is known of the blocks.
    #[inline(always)]
    fn quantise<V: Simd>(&mut self, simd: V, motifs: &Motifs) {
        let size = motifs.shells.block_size;
        let zero = simd.splat(0.0);
        let mut norms = (f32::MAX, 0.0f32);
        let mut largest = zero;
        for vector in 0..VECTORS {
            let mut sum = zero;
            for row in &self.coordinates {
                let x = simd.load(&row[vector]);
                sum = simd.mul_add(x, x, sum);
                largest = simd.max(largest, simd.max(x, simd.sub(zero, x)));
            }
            self.squared_norms[vector] = simd.to_array(sum);
            norms.0 = norms.0.min(simd.reduce_min(sum));
            norms.1 = norms.1.max(simd.reduce_max(sum));
        }
        // The sums' rounding errors are relative to them.
        let rounding = (size + 8) as f32 * f32::EPSILON;
        self.norms = (
            (norms.0.sqrt() * (1.0 - rounding)).max(0.0),
            norms.1.sqrt() * (1.0 + rounding),
        );

        let home = motifs.chunks[motifs.shells.home(self.norms.1)];
        self.scale = (simd.reduce_max(largest) / V::LARGEST_BYTE as f32)
            .max(home.scale * LEAST_SHARE)
            .max(SMALLEST_SCALE);
        let inverse = simd.splat(1.0 / self.scale);
        let scale = simd.splat(self.scale);
        // Residuals are off by roundings of the values and their products.
        let error = simd.splat(self.norms.1 * 1e-6);
        let (fixed, per_norm) = motifs.shells.margin.slack_terms(motifs.shells.largest_norm);
        for vector in 0..VECTORS {
            let mut square = simd.splat(0.0);
            let mut residual = simd.splat(0.0);
            for (word, rows) in self
                .coordinates
                .as_chunks::<WORD_LEN>()
                .0
                .iter()
                .enumerate()
            {
                let mut bytes = [0u32; LANES];
                for (byte, row) in rows.iter().enumerate() {
                    let x = simd.load(&row[vector]);
                    let rounded = simd.round_to_signed(simd.mul(x, inverse));
                    let integer = simd.signed_to_floats(rounded);
                    square = simd.mul_add(integer, integer, square);
                    let rest = simd.neg_mul_add(integer, scale, x);
                    residual = simd.mul_add(rest, rest, residual);
                    let rounded = simd.words_to_array(rounded);
                    for lane in 0..LANES {
                        let shifted = rounded[lane].wrapping_add(V::ZERO_BYTE.cast_unsigned());
                        bytes[lane] |= (shifted & 0xff) << (8 * byte);
                    }
                }
                self.words[word][vector] = bytes;
            }
            let half = simd.mul(square, simd.splat(0.5 * self.scale));
            self.half_squares[vector] = simd.to_array(half);
            let residual = simd.mul_add(simd.sqrt(residual), simd.splat(1.0 + rounding), error);
            self.residuals[vector] = simd.to_array(residual);
            let norm = simd.load(&self.squared_norms[vector]);
            let slack = simd.mul_add(norm, simd.splat(per_norm), simd.splat(fixed));
            self.slacks[vector] = simd.to_array(slack);
            let within = simd.load(&self.within[vector]);
            let limit = simd.mul_add(within, simd.splat(motifs.shells.margin.relative()), slack);
            self.limits[vector] = simd.to_array(simd.min(limit, simd.splat(f32::MAX)));
            let radius = radius(simd, motifs, limit, slack, residual);
            self.radii[vector] = simd.to_array(radius);
        }
    }
}

/// What comparing a group with a chunk takes.
struct Pair {
    /// Largest norm of a residual of the chunk.
    residual: f32,
    /// Inverse of the chunk's scale.
    inverse: f32,
    /// Twice the product of both scales.
    unit: f32,
    /// No two of their points are farther apart.
    sum_of_norms: f32,
}

struct GroupSearch<'a, const VECTORS: usize, const WORDS: usize> {
    motifs: &'a Motifs,
    group: &'a mut Group<VECTORS>,
    order: &'a [usize],
    exact: ExactDistance<'a>,
    monitor: &'a Monitor,
    found: &'a mut [u32],
}

impl<const VECTORS: usize, const WORDS: usize> Work for GroupSearch<'_, VECTORS, WORDS> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<V: Simd>(mut self, simd: V) -> Result<()> {
        self.group.quantise(simd, self.motifs);
        self.see_chunks(simd)?;
        self.look_back(simd);
        for lane in 0..self.order.len() {
            self.found[lane] = self.confirm(simd, lane);
        }
        Ok(())
    }
}

impl<const VECTORS: usize, const WORDS: usize> GroupSearch<'_, VECTORS, WORDS> {
    /// Bounds the distances to all chunks within reach.
    #[inline(always)]
    fn see_chunks<V: Simd>(&mut self, simd: V) -> Result<()> {
        let motifs = self.motifs;
        let chunk_work = motifs.words_per_motif * CHUNK_LEN * VECTORS;
        let chunks_per_check = (WORK_PER_CHECK / chunk_work).max(1);
        let mut outwards = motifs.shells.outwards(self.group.norms);
        let (mut reach, mut changed) = (f32::MAX, false);
        let mut count = 0;
        while let Some(chunk) = outwards.next(reach) {
            if count % chunks_per_check == 0 {
                self.monitor.check()?;
            }
            count += 1;
            changed |= self.see(simd, chunk);
            if changed && (count < CHUNKS_PER_REACH || count % CHUNKS_PER_REACH == 0) {
                reach = self.reach(simd);
                changed = false;
            }
        }
        Ok(())
    }

    /// Compares the group with a chunk; returns whether a limit may have changed.
    #[inline(always)]
    fn see<V: Simd>(&mut self, simd: V, chunk: usize) -> bool {
        let largest = self.largest_products(simd, chunk);
        let pair = self.pair(chunk);
        let mut changed = false;
        for vector in 0..VECTORS {
            if self.near(simd, &pair, vector, largest[vector]) != 0 {
                let products = simd.words_to_array(largest[vector]);
                self.group.seen[vector].push(chunk, products);
                self.tighten(simd, &pair, vector, largest[vector]);
                changed = true;
            }
        }
        changed
    }

    #[inline(always)]
    fn pair(&self, chunk: usize) -> Pair {
        let Chunk { scale, residual } = self.motifs.chunks[chunk];
        Pair {
            residual,
            inverse: 1.0 / scale,
            unit: 2.0 * scale * self.group.scale,
            sum_of_norms: self.motifs.shells.norms[chunk].1 + self.group.norms.1,
        }
    }

    /// The lanes for which a chunk with these products may hold a motif within the limit.
    #[inline(always)]
    fn near<V: Simd>(&self, simd: V, pair: &Pair, vector: usize, product: V::Words) -> u32 {
        let factor = (1.0 + RELATIVE) / pair.unit;
        let residual = simd.splat(pair.residual);
        let radius = simd.add(simd.load(&self.group.radii[vector]), residual);
        let half = simd.load(&self.group.half_squares[vector]);
        let half = simd.mul(half, simd.splat(pair.inverse));
        // What a motif within the limit has at least.
        let least = simd.neg_mul_add(
            simd.mul(radius, radius),
            simd.splat(factor),
            simd.mul(half, simd.splat(1.0 - RELATIVE)),
        );
        let least = simd.sub(least, simd.splat(ABSOLUTE));
        let least = simd.min(simd.max(least, simd.splat(LEAST)), simd.splat(MOST));
        simd.bits(simd.ge_signed(product, simd.round_to_signed(least)))
    }

    /// The distances of the integers, less their error and more.
    #[inline(always)]
    fn integer_distances<V: Simd>(
        &self,
        simd: V,
        pair: &Pair,
        vector: usize,
        product: V::Floats,
    ) -> [V::Floats; 2] {
        let half = simd.load(&self.group.half_squares[vector]);
        let half = simd.mul(half, simd.splat(pair.inverse));
        // Half the squared distance, in units of both scales, and its error.
        let middle = simd.sub(half, product);
        let magnitude = simd.max(product, simd.sub(simd.splat(0.0), product));
        let error = simd.mul_add(
            simd.add(half, magnitude),
            simd.splat(RELATIVE),
            simd.splat(ABSOLUTE),
        );
        let (unit, zero) = (simd.splat(pair.unit), simd.splat(0.0));
        let low = simd.max(simd.sub(middle, error), zero);
        let high = simd.max(simd.add(middle, error), zero);
        [
            simd.sqrt(simd.mul(unit, low)),
            simd.sqrt(simd.mul(unit, high)),
        ]
    }

    /// Limits distances to the upper bounds of those to a chunk's nearest motif.
    #[inline(always)]
    fn tighten<V: Simd>(&mut self, simd: V, pair: &Pair, vector: usize, product: V::Words) {
        let product = simd.signed_to_floats(product);
        let [_, distance] = self.integer_distances(simd, pair, vector, product);
        let group = &mut *self.group;
        let margin = &self.motifs.shells.margin;
        let own = simd.load(&group.residuals[vector]);
        let residuals = simd.add(own, simd.splat(pair.residual));
        let upper = simd.mul_add(distance, simd.splat(ROUNDING), residuals);
        // Products that were cut say nothing, but no motif is farther than the sum of the norms.
        let uncut = simd.lt(simd.splat(LEAST_UNCUT), product);
        let sum_of_norms = simd.splat(pair.sum_of_norms);
        let upper = simd.select(uncut, simd.min(upper, sum_of_norms), sum_of_norms);
        let upper = simd.mul(simd.mul(upper, upper), simd.splat(ROUNDING));

        let slack = simd.load(&group.slacks[vector]);
        let limit = simd.mul_add(upper, simd.splat(margin.relative()), slack);
        let limit = simd.min(limit, simd.load(&group.limits[vector]));
        group.limits[vector] = simd.to_array(limit);
        let radius = radius(simd, self.motifs, limit, slack, own);
        group.radii[vector] = simd.to_array(radius);
    }

    /// Notes for every block the chunks that were seen and still are within its limit.
    #[inline(always)]
    fn look_back<V: Simd>(&mut self, simd: V) {
        for vector in 0..VECTORS {
            for number in 0..self.group.seen[vector].chunks.len() {
                let seen = &self.group.seen[vector];
                let chunk = seen.chunks[number] as usize;
                let product = simd.load_words(&seen.products[number]);
                let pair = self.pair(chunk);
                let mut near = self.near(simd, &pair, vector, product);
                if near == 0 {
                    continue;
                }
                let product = simd.signed_to_floats(product);
                let [distance, _] = self.integer_distances(simd, &pair, vector, product);
                let zero = simd.splat(0.0);
                let residual = simd.splat(pair.residual);
                let residuals = simd.add(simd.load(&self.group.residuals[vector]), residual);
                let lower = simd.mul_add(
                    distance,
                    simd.splat(1.0 / ROUNDING),
                    simd.sub(zero, residuals),
                );
                let lower = simd.max(lower, zero);
                let lower = simd.mul(simd.mul(lower, lower), simd.splat(1.0 / ROUNDING));
                let lower = simd.to_array(lower);
                while near != 0 {
                    let place = near.trailing_zeros() as usize % LANES;
                    near &= near - 1;
                    self.group.left[vector * LANES + place].push((lower[place], chunk as u32));
                }
            }
        }
    }

    /// Motifs whose norms differ from the group's by more than this are out.
    #[inline(always)]
    fn reach<V: Simd>(&self, simd: V) -> f32 {
        let mut limit = simd.splat(0.0);
        for vector in 0..VECTORS {
            limit = simd.max(limit, simd.load(&self.group.limits[vector]));
        }
        let margin = &self.motifs.shells.margin;
        margin.reach(simd.reduce_max(limit), self.group.norms.1)
    }

    /// The largest `t.q - h(z)` of the chunk's motifs for every block.
    #[inline(always)]
    fn largest_products<V: Simd>(&self, simd: V, chunk: usize) -> [V::Words; VECTORS] {
        let motifs = self.motifs;
        let words = if WORDS == 0 {
            motifs.words_per_motif
        } else {
            WORDS
        };
        let ratio = simd.splat(motifs.chunks[chunk].scale / self.group.scale);
        let zero_byte = simd.splat(V::ZERO_BYTE as f32);
        let mut starts = [[0u32; LANES]; CHUNK_VECTORS];
        for vector in 0..CHUNK_VECTORS {
            let place = chunk * CHUNK_VECTORS + vector;
            let half = simd.mul(simd.load(&motifs.half_squares[place]), ratio);
            let half = simd.min(half, simd.splat(MOST_HALF_SQUARE));
            // All bytes of the blocks are shifted by that of zero. Rounded once, after the sum;
            // below 2^24 nothing is lost, and above, the relative error covers it.
            let shift = simd.mul(simd.load(&motifs.sums[place]), zero_byte);
            let start = simd.sub(simd.sub(simd.splat(0.0), half), shift);
            starts[vector] = simd.words_to_array(simd.round_to_signed(start));
        }
        let starts = starts.as_flattened();
        let rows = &motifs.words[chunk * CHUNK_LEN * words..][..CHUNK_LEN * words];
        let mut largest = [simd.splat_words(i32::MIN.cast_unsigned()); VECTORS];
        for (rows, starts) in rows
            .chunks_exact(TILE * words)
            .zip(starts.as_chunks::<TILE>().0)
        {
            let mut sums = [[simd.splat_words(0); VECTORS]; TILE];
            for i in 0..TILE {
                sums[i] = [simd.splat_words(starts[i]); VECTORS];
            }
            for (word, block) in self.group.words[..words].iter().enumerate() {
                let mut x = [simd.splat_words(0); VECTORS];
                for v in 0..VECTORS {
                    x[v] = simd.load_words(&block[v]);
                }
                for i in 0..TILE {
                    let z = simd.splat_words(rows[i * words + word]);
                    for v in 0..VECTORS {
                        sums[i][v] = simd.dot_bytes(sums[i][v], x[v], z);
                    }
                }
            }
            for i in 0..TILE {
                for v in 0..VECTORS {
                    largest[v] = simd.max_signed(largest[v], sums[i][v]);
                }
            }
        }
        largest
    }

    /// The nearest motif of a block, by a direct look at the chunks that are left for it.
    #[inline(always)]
    fn confirm<V: Simd>(&mut self, simd: V, lane: usize) -> u32 {
        let group = &mut *self.group;
        let (vector, place) = (lane / LANES % VECTORS, lane % LANES);
        let left = &mut group.left[lane];
        left.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut leader = Leader::NONE;
        for &(lower, chunk) in left.iter() {
            if lower > leader.limit() {
                break;
            }
            self.motifs.shells.offer(
                simd,
                chunk as usize,
                group.coordinates.iter().map(|row| row[vector][place]),
                group.slacks[vector][place],
                &mut leader,
                &mut LaneRivals {
                    lane: lane as u32,
                    all: &mut group.rivals,
                },
            );
        }
        leader.finish(lane as u32, self.order[lane], &group.rivals, self.exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_up_to_those_that_are_almost_equal() {
        for spread in [0, 1, 1 << 10, 1 << 20, u32::MAX / 10] {
            let keys: Vec<u32> = (0..1000u32)
                .map(|i| 7 + i * 389 % 1000 / 111 * spread)
                .collect();
            let mut order = vec![0; keys.len()];
            sort_about(&keys, 50, &mut order);
            let sorted: Vec<u32> = order.iter().map(|&number| keys[number - 50]).collect();
            let step = (9 * spread) >> (SORTING_BITS - 1);
            assert!(sorted.windows(2).all(|pair| pair[0] <= pair[1] + step));
            order.sort_unstable();
            assert!(order.into_iter().eq(50..50 + keys.len()));
        }
    }
}
