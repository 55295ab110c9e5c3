//! The motifs of a tree's leaves, compared with one block at a time in 8-bit integers.
//!
//! As in [`super::narrow`], with scales that are powers of two: `z = d q + r` for the motifs of a
//! leaf, `x = b t + e` for the blocks, `b` being `d` times a constant. A motif within the distance
//! `a` of the integers has `t.q - h(z) >= h(x) - a^2 / 2 b d`, where `h(z) = |q|^2 d / 2 b` and
//! `h(x) = |t|^2 b / 2 d`; all of these are small multiples of 1/4, so that only `a` is rounded.
//! Sixteen motifs of up to eight values take two instructions, and few pass.
#![expect(
    clippy::needless_range_loop,
    reason = "lanes and coordinates index several arrays at once"
)]

use super::kdtree::{KdTree, Point};
use crate::simd::{Isa, LANES, Simd, Work, dispatch};

/// Coordinates in a word.
const WORD_LEN: usize = 4;
/// Words of the longest motif.
const MOST_WORDS: usize = 2;
/// Vectors of motifs in the fullest leaf.
pub const MOST_VECTORS: usize = 4;
/// Most motifs in a leaf.
pub const LEAF_LEN: usize = MOST_VECTORS * LANES;
/// Largest magnitude of a motif's integers.
const LARGEST_SIGNED: f32 = 127.0;
/// Exponents of scales; data is scaled so that its largest magnitude is `2^50`.
const EXPONENTS: (i32, i32) = (-40, 60);
/// No product less its `h(z)` is below this, but for unused motifs.
const LEAST: f32 = -9e8;
const MOST: f32 = 1e9;
const UNUSED: i32 = -1_000_000_000;
/// Covers the roundings of `h(z)` and of the threshold to integers.
const ABSOLUTE: f32 = 1.5;
/// Factor that covers the rounding of a few operations.
pub const ROUNDING: f32 = 1.000_002;

/// The motifs of all leaves.
#[derive(Debug)]
pub struct NarrowLeaves<const S: usize> {
    vectors_per_leaf: usize,
    leaves: Vec<Leaf>,
    /// `-h(z)`, sixteen motifs at a time.
    starts: Vec<[u32; LANES]>,
    /// Integers, sixteen motifs at a time, word by word.
    words: Vec<[u32; LANES]>,
}

/// What is known of a leaf.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    /// Place of its first motif in the order of the tree.
    pub first: usize,
    /// Of its scale, `d = 2^exponent`.
    pub exponent: i32,
    /// Largest norm of a residual.
    pub residual: f32,
}

/// Blocks as integers of one scale.
#[derive(Clone, Copy, Debug)]
pub struct Integers {
    /// Of the scale of leaves they can be compared with.
    pub exponent: i32,
    words: [[u32; LANES]; MOST_WORDS],
    /// `h(x)`
    half_squares: [f32; LANES],
    /// Norms of the residuals.
    pub residuals: [f32; LANES],
    /// `1 / 2 b d`, rounded up.
    inverse: f32,
}

impl Integers {
    /// Of no scale.
    pub const NONE: Self = Self {
        exponent: i32::MIN,
        words: [[0; LANES]; MOST_WORDS],
        half_squares: [0.0; LANES],
        residuals: [0.0; LANES],
        inverse: 0.0,
    };

    /// Rounds sixteen blocks for leaves of a scale.
    #[inline(always)]
    pub fn of<V: Simd, const S: usize>(simd: V, x: &[V::Floats; S], exponent: i32) -> Self {
        let share = block_share::<V>();
        let scale = power_of_two(exponent) * share;
        let (factor, scale) = (simd.splat(1.0 / scale), simd.splat(scale));
        let largest = simd.splat(V::LARGEST_BYTE as f32);
        let smallest = simd.splat(-V::LARGEST_BYTE as f32);
        let mut words = [[0u32; LANES]; MOST_WORDS];
        let mut square = simd.splat(0.0);
        let mut residual = simd.splat(0.0);
        for d in 0..S {
            let value = simd.min(simd.max(simd.mul(x[d], factor), smallest), largest);
            let rounded = simd.round_to_signed(value);
            let integer = simd.signed_to_floats(rounded);
            square = simd.mul_add(integer, integer, square);
            // Exact, or as good as that where the value is out of range.
            let rest = simd.neg_mul_add(integer, scale, x[d]);
            residual = simd.mul_add(rest, rest, residual);
            let rounded = simd.words_to_array(rounded);
            for lane in 0..LANES {
                let shifted = rounded[lane].wrapping_add(V::ZERO_BYTE.cast_unsigned());
                words[d / WORD_LEN][lane] |= (shifted & 0xff) << (8 * (d % WORD_LEN));
            }
        }
        let half_squares = simd.mul(square, simd.splat(0.5 * share));
        let residuals = simd.mul(simd.sqrt(residual), simd.splat(ROUNDING));
        let unit = power_of_two(exponent);
        Self {
            exponent,
            words,
            half_squares: simd.to_array(half_squares),
            residuals: simd.to_array(residuals),
            inverse: 0.5 / (unit * unit * share) * ROUNDING,
        }
    }

    /// The least that a motif has whose integers are within a distance.
    #[inline(always)]
    pub fn threshold(&self, lane: usize, radius: f32) -> i32 {
        let least = self.half_squares[lane] - radius * radius * self.inverse - ABSOLUTE;
        least.clamp(LEAST, MOST) as i32
    }
}

/// `b / d`: how much coarser blocks are than motifs.
#[inline(always)]
fn block_share<V: Simd>() -> f32 {
    // 1 for magnitudes up to 127, 2 for magnitudes up to 63.
    128.0 / (V::LARGEST_BYTE + 1) as f32
}

/// `2^exponent` for the exponents of normal numbers.
#[inline(always)]
pub fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127).cast_unsigned()) << 23)
}

/// The smallest exponent at which a magnitude is an integer of at most 127.
fn exponent_for(largest: f32) -> i32 {
    let bits = (largest / LARGEST_SIGNED).to_bits();
    let floor = ((bits >> 23) as i32) - 127;
    let exponent = if bits & 0x7f_ffff == 0 {
        floor
    } else {
        floor + 1
    };
    exponent.clamp(EXPONENTS.0, EXPONENTS.1)
}

/// What an instruction set makes of blocks: `b / d`, and the byte of zero.
struct BlockBytes;

impl Work for BlockBytes {
    type Output = (f32, i32);

    #[inline(always)]
    fn run<V: Simd>(self, _simd: V) -> (f32, i32) {
        (block_share::<V>(), V::ZERO_BYTE)
    }
}

impl<const S: usize> NarrowLeaves<S> {
    /// Lays out points in the order of a tree whose leaves hold at most [`LEAF_LEN`].
    pub fn new(points: &[Point<S>], tree: &KdTree<S>, isa: Isa) -> Self {
        const { assert!(S <= MOST_WORDS * WORD_LEN) };
        let words_per_motif = S.div_ceil(WORD_LEN);
        let vectors_per_leaf = tree.largest_leaf().div_ceil(LANES);
        let vectors = tree.leaf_count() * vectors_per_leaf;
        let (share, zero_byte) = dispatch(isa, BlockBytes);
        let mut starts = vec![[UNUSED.cast_unsigned(); LANES]; vectors];
        let mut words = vec![[0u32; LANES]; vectors * words_per_motif];
        let leaves = (0..tree.leaf_count()).map(|leaf| {
            let range = tree.leaf(leaf);
            let first = range.start;
            let held = &points[range];
            let largest = held
                .iter()
                .flat_map(|point| point.position)
                .fold(0.0f32, |largest, value| largest.max(value.abs()));
            let exponent = exponent_for(largest);
            let scale = power_of_two(exponent);
            let mut residual = 0.0f64;
            for (place, point) in held.iter().enumerate() {
                let vector = leaf * vectors_per_leaf + place / LANES;
                let lane = place % LANES;
                let (mut square, mut error) = (0.0, 0.0);
                for (d, &value) in point.position.iter().enumerate() {
                    let integer = (value / scale)
                        .round_ties_even()
                        .clamp(-LARGEST_SIGNED, LARGEST_SIGNED);
                    let rest = f64::from(value) - f64::from(integer) * f64::from(scale);
                    error += rest * rest;
                    square += integer * integer;
                    let word = &mut words[vector * words_per_motif + d / WORD_LEN][lane];
                    *word |= u32::from(integer as i8 as u8) << (8 * (d % WORD_LEN));
                }
                residual = residual.max(error);
                // All bytes of the blocks are shifted by that of zero, which is undone here.
                let shift = point_sum(&words[vector * words_per_motif..][..words_per_motif], lane)
                    * zero_byte;
                let half = (square * 0.5 / share).floor() as i32;
                starts[vector][lane] = (-half - shift).cast_unsigned();
            }
            Leaf {
                first,
                exponent,
                residual: residual.sqrt() as f32 * ROUNDING,
            }
        });
        Self {
            leaves: leaves.collect(),
            vectors_per_leaf,
            starts,
            words,
        }
    }

    /// What is known of a leaf.
    #[inline(always)]
    pub fn leaf(&self, leaf: usize) -> Leaf {
        self.leaves[leaf]
    }

    /// A block's products with a leaf's motifs less their `h(z)`, and the bits of those that reach
    /// `least`.
    #[inline(always)]
    pub fn products<V: Simd>(
        &self,
        simd: V,
        leaf: usize,
        integers: &Integers,
        lane: usize,
        least: i32,
    ) -> (u64, [V::Words; MOST_VECTORS]) {
        let mut block = [simd.splat_words(0); MOST_WORDS];
        for word in 0..S.div_ceil(WORD_LEN) {
            block[word] = simd.splat_words(integers.words[word][lane]);
        }
        let least = simd.splat_words(least.cast_unsigned());
        let count = self.vectors_per_leaf;
        let words_per_motif = S.div_ceil(WORD_LEN);
        let starts = &self.starts[leaf * count..][..count];
        let words = &self.words[leaf * count * words_per_motif..][..count * words_per_motif];
        let mut products = [least; MOST_VECTORS];
        let mut close = 0u64;
        for vector in 0..count.min(MOST_VECTORS) {
            let mut sum = simd.load_words(&starts[vector]);
            for word in 0..words_per_motif {
                let motifs = simd.load_words(&words[vector * words_per_motif + word]);
                sum = simd.dot_bytes(sum, block[word], motifs);
            }
            products[vector] = sum;
            let bits = simd.bits(simd.ge_signed(sum, least));
            close |= u64::from(bits) << (vector * LANES);
        }
        (close, products)
    }
}

/// Sum of the signed bytes of a lane.
fn point_sum(words: &[[u32; LANES]], lane: usize) -> i32 {
    let bytes = words.iter().flat_map(|word| word[lane].to_le_bytes());
    bytes.map(|byte| i32::from(byte.cast_signed())).sum()
}

/// The place with the largest product among those whose bit is set.
pub fn largest_of(products: &[u32], mut places: u64) -> usize {
    let mut best = (i32::MIN, 0);
    while places != 0 {
        let place = places.trailing_zeros() as usize;
        places &= places - 1;
        let product = products[place].cast_signed();
        if product >= best.0 {
            best = (product, place);
        }
    }
    best.1
}

/// The places whose products are at least that.
pub fn reaching(products: &[u32], mut places: u64, least: i32) -> u64 {
    let mut reaching = 0;
    while places != 0 {
        let place = places.trailing_zeros() as usize;
        places &= places - 1;
        if products[place].cast_signed() >= least {
            reaching |= 1 << place;
        }
    }
    reaching
}
