//! Every block walks the k-d tree on its own, in integers.
//!
//! Boxes are whole multiples of a power of two in 16 bits, rounded outwards, so that sixteen of up
//! to eight dimensions take a dozen instructions; leaves hold up to 64 motifs in 8 bits (see
//! [`super::narrow_leaves`]). Only motifs that pass both are compared in float32. The blocks are
//! sorted by the tree's bins, so that what one needs is in cache from the one before.
#![expect(
    clippy::needless_range_loop,
    reason = "lanes and coordinates index several arrays at once"
)]

use std::ops::RangeInclusive;

use rayon::prelude::*;

use super::buckets::{Group, GroupSearch, load};
use super::climb::{Visitor, climb};
use super::kdtree::{KdTree, Node, Point};
use super::leader::{ExactDistance, Leader, Rivals};
use super::margin::Margin;
use super::narrow_leaves::{
    Integers, LEAF_LEN, MOST_VECTORS, NarrowLeaves, ROUNDING, largest_of, power_of_two, reaching,
};
use super::problem::MotifSet;
use crate::element::Element;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::{Isa, LANES, Simd};

/// Block sizes this search is compiled for: shorter ones are better off in groups.
pub const BLOCK_SIZES: RangeInclusive<usize> = 4..=8;
/// Pairs of coordinates of the longest block.
const MOST_PAIRS: usize = 4;
/// Scales at which the integers of a group are kept.
const KEPT_SCALES: usize = 4;
/// The integer of zero; all are below twice that, so that eight squares of gaps fit 31 bits.
const ZERO: i32 = 1 << 13;
/// Range of the exponents of units; data is scaled so that its largest magnitude is below `2^51`.
const UNIT_EXPONENTS: (i32, i32) = (-60, 51 - 13);
/// If more motifs than these pass, the most promising is looked at before the others.
const FEW: u32 = 2;

/// The motifs in a tree.
#[derive(Debug)]
pub struct Tree<const S: usize> {
    tree: KdTree<S>,
    /// Of each node, in the order of the tree's nodes.
    boxes: Vec<Boxes>,
    unit: Unit,
    leaves: NarrowLeaves<S>,
    points: Vec<Point<S>>,
    margin: Margin,
    largest_norm: f64,
}

/// The boxes of sixteen children, a pair of coordinates a word.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Boxes {
    low: [[u32; LANES]; MOST_PAIRS],
    high: [[u32; LANES]; MOST_PAIRS],
    /// Bits of the children that there are.
    used: u32,
}

impl Boxes {
    fn of<const S: usize>(node: &Node<S>, unit: Unit) -> Self {
        let mut boxes = Self {
            low: [[0; LANES]; MOST_PAIRS],
            high: [[0; LANES]; MOST_PAIRS],
            used: 0,
        };
        for lane in 0..LANES {
            if node.low[0][lane] > node.high[0][lane] {
                continue;
            }
            boxes.used |= 1 << lane;
            for d in 0..S {
                let shift = 16 * (d % 2);
                boxes.low[d / 2][lane] |= unit.rounded(node.low[d][lane], f32::floor) << shift;
                boxes.high[d / 2][lane] |= unit.rounded(node.high[d][lane], f32::ceil) << shift;
            }
        }
        boxes
    }
}

/// A power of two of which the largest motif's coordinates are at most `ZERO`.
#[derive(Clone, Copy, Debug)]
struct Unit {
    value: f32,
    inverse: f32,
}

impl Unit {
    fn of<const S: usize>(points: &[Point<S>]) -> Self {
        let coordinates = points.iter().flat_map(|point| point.position);
        let largest = coordinates.fold(0.0f32, |largest, value| largest.max(value.abs()));
        // The exponent above the value's own, less that of `ZERO`.
        let exponent = (largest.to_bits() >> 23) as i32 - 127 + 1 - ZERO.ilog2() as i32;
        let exponent = exponent.clamp(UNIT_EXPONENTS.0, UNIT_EXPONENTS.1);
        Self {
            value: power_of_two(exponent),
            inverse: power_of_two(-exponent),
        }
    }

    /// A value in units, from 0 to `2 * ZERO`; scaling by a power of two is exact. Blocks beyond
    /// the motifs are moved to the border, which only shortens gaps.
    #[inline(always)]
    fn rounded(self, value: f32, round: impl Fn(f32) -> f32) -> u32 {
        let units = round(value * self.inverse).clamp(-ZERO as f32, ZERO as f32);
        (units as i32 + ZERO).cast_unsigned()
    }
}

impl<const S: usize> Tree<S> {
    /// Builds the tree of the motifs to search, which are all different.
    ///
    /// # Errors
    /// `Interrupted`, if cancelled.
    pub fn build<T: Element>(
        motifs: &MotifSet<'_, T>,
        candidates: &[u32],
        isa: Isa,
        monitor: &Monitor,
    ) -> Result<Self> {
        const { assert!(S <= 2 * MOST_PAIRS) };
        let mut points = Point::all(motifs, candidates);
        monitor.check()?;
        let tree = KdTree::build(&mut points, LEAF_LEN, monitor)?;
        let unit = Unit::of(&points);
        Ok(Self {
            unit,
            boxes: tree
                .nodes()
                .par_iter()
                .map(|node| Boxes::of(node, unit))
                .collect(),
            leaves: NarrowLeaves::new(&points, &tree, isa),
            tree,
            margin: Margin::new(S, motifs.exact_in_f32()),
            largest_norm: Point::largest_norm(&points),
            points,
        })
    }
}

impl<const S: usize> GroupSearch<S> for Tree<S> {
    fn tree(&self) -> &KdTree<S> {
        &self.tree
    }

    #[inline(always)]
    fn nearest<V: Simd>(
        &self,
        simd: V,
        group: &Group<'_, S>,
        rivals: &mut Rivals,
        exact: ExactDistance<'_>,
    ) -> [u32; LANES] {
        let mut blocks = Blocks::new(simd, self, group);
        let slacks = blocks.slacks;
        // Squared distances of motifs: what was nearest to one block is near those after it.
        let mut within = simd.load(&group.within().unwrap_or([f32::MAX; LANES]));
        let mut motifs = [0; LANES];
        for lane in 0..group.len() {
            let mut walk = Walk {
                simd,
                tree: self,
                blocks: &mut blocks,
                rivals: &mut *rivals,
                lane,
                row: group.row(lane),
                leader: Leader::NONE,
                leading: None,
                margin: (self.margin.relative(), slacks[lane]),
                radius: f32::MAX.sqrt(),
                most_gap: i32::MAX,
            };
            let known = simd.to_array(within)[lane];
            if known < f32::MAX {
                let limit = known * walk.margin.0 + walk.margin.1;
                walk.leader = Leader::within(limit);
                walk.tighten();
            }
            climb(&self.tree, group.home_of(lane), &mut walk);
            let Walk {
                leader, leading, ..
            } = walk;
            if let Some(point) = leading {
                let distances = blocks.distances(simd, &self.points[point]);
                within = simd.min(within, distances);
            }
            motifs[lane] = leader.finish(lane as u32, group.block(lane), rivals, exact);
        }
        motifs
    }
}

/// Sixteen blocks as the boxes and the leaves take them.
struct Blocks<V: Simd, const S: usize> {
    x: [V::Floats; S],
    slacks: [f32; LANES],
    /// Coordinates in units, rounded up and down.
    up: [[u32; LANES]; MOST_PAIRS],
    down: [[u32; LANES]; MOST_PAIRS],
    kept: [Integers; KEPT_SCALES],
}

impl<V: Simd, const S: usize> Blocks<V, S> {
    #[inline(always)]
    fn new(simd: V, tree: &Tree<S>, group: &Group<'_, S>) -> Self {
        let x = load(simd, group.coordinates);
        let mut norm = simd.splat(0.0);
        for d in 0..S {
            norm = simd.mul_add(x[d], x[d], norm);
        }
        let (absolute, per_norm) = tree.margin.slack_terms(tree.largest_norm);
        let slack = simd.mul_add(norm, simd.splat(per_norm), simd.splat(absolute));
        let mut up = [[0u32; LANES]; MOST_PAIRS];
        let mut down = [[0u32; LANES]; MOST_PAIRS];
        for d in 0..S {
            let shift = 16 * (d % 2);
            for lane in 0..LANES {
                let value = group.coordinates[d][lane];
                up[d / 2][lane] |= tree.unit.rounded(value, f32::ceil) << shift;
                down[d / 2][lane] |= tree.unit.rounded(value, f32::floor) << shift;
            }
        }
        Self {
            x,
            slacks: simd.to_array(slack),
            up,
            down,
            kept: [Integers::NONE; KEPT_SCALES],
        }
    }

    /// Squared distances of the blocks to a motif.
    #[inline(always)]
    fn distances(&self, simd: V, point: &Point<S>) -> V::Floats {
        let mut sum = simd.splat(0.0);
        for d in 0..S {
            let difference = simd.sub(self.x[d], simd.splat(point.position[d]));
            sum = simd.mul_add(difference, difference, sum);
        }
        sum
    }

    /// Where the integers for leaves of a scale are kept.
    #[inline(always)]
    fn keep(&mut self, simd: V, exponent: i32) -> usize {
        let place = exponent.rem_euclid(KEPT_SCALES as i32) as usize;
        if self.kept[place].exponent != exponent {
            self.kept[place] = Integers::of(simd, &self.x, exponent);
        }
        place
    }
}

/// One block on its way through the tree.
struct Walk<'a, V: Simd, const S: usize> {
    simd: V,
    tree: &'a Tree<S>,
    blocks: &'a mut Blocks<V, S>,
    rivals: &'a mut Rivals,
    lane: usize,
    row: [f32; S],
    leader: Leader,
    /// Place of the motif that leads or is as near, once there is one.
    leading: Option<usize>,
    /// Limits are `distance * relative + slack`.
    margin: (f32, f32),
    /// Largest distance of a motif within the limit.
    radius: f32,
    /// The same for boxes: largest sum of squared gaps, in units.
    most_gap: i32,
}

impl<V: Simd, const S: usize> Walk<'_, V, S> {
    #[inline(always)]
    fn leaf(&mut self, leaf: usize) {
        let known = self.tree.leaves.leaf(leaf);
        let (simd, lane) = (self.simd, self.lane);
        let kept = self.blocks.keep(simd, known.exponent);
        let integers = &self.blocks.kept[kept];
        let residuals = integers.residuals[lane] + known.residual;
        let least = integers.threshold(lane, self.radius + residuals);
        let (close, products) = self.tree.leaves.products(simd, leaf, integers, lane, least);
        if close != 0 {
            let mut integers = [[0; LANES]; MOST_VECTORS];
            for (integers, &words) in integers.iter_mut().zip(&products) {
                *integers = simd.words_to_array(words);
            }
            self.compare(close, &integers, known.first, kept, residuals);
        }
    }

    /// Compares the motifs that passed, in float32. It is left out of the walk, which is a tenth
    /// slower with it.
    #[inline(never)]
    fn compare(
        &mut self,
        mut close: u64,
        products: &[[u32; LANES]; MOST_VECTORS],
        first: usize,
        kept: usize,
        residuals: f32,
    ) {
        let products = products.as_flattened();
        while close.count_ones() > FEW {
            let best = largest_of(products, close);
            close &= !(1 << best);
            self.offer(first + best);
            let integers = &self.blocks.kept[kept % KEPT_SCALES];
            let least = integers.threshold(self.lane, self.radius + residuals);
            close = reaching(products, close, least);
        }
        while close != 0 {
            let place = close.trailing_zeros() as usize;
            close &= close - 1;
            self.offer(first + place);
        }
    }

    #[inline(always)]
    fn offer(&mut self, place: usize) {
        let point = &self.tree.points[place];
        let mut differences = [0.0; S];
        for d in 0..S {
            let difference = self.row[d] - point.position[d];
            differences[d] = difference * difference;
        }
        let distance = differences.iter().sum();
        if distance > self.leader.limit() {
            return;
        }
        self.leading = Some(place);
        let lane = self.lane as u32;
        self.leader
            .offer(distance, point.motif, self.margin, lane, self.rivals);
        self.tighten();
    }

    /// Follows the leader's limit.
    #[inline(always)]
    fn tighten(&mut self) {
        // The true distance of a motif within the limit.
        let within = self.leader.limit() * self.margin.0 + self.margin.1;
        self.radius = within.sqrt() * ROUNDING;
        let gaps = self.radius * ROUNDING / self.tree.unit.value;
        // More than all gaps together where it does not fit.
        self.most_gap = (gaps * gaps * ROUNDING + 1.0) as i32;
    }
}

impl<V: Simd, const S: usize> Visitor for Walk<'_, V, S> {
    #[inline(always)]
    fn home(&mut self, leaf: usize) {
        self.leaf(leaf);
    }

    /// Those whose boxes are within the limit.
    #[inline(always)]
    fn near_children(&mut self, level: usize, place: usize) -> u32 {
        let (simd, blocks) = (self.simd, &*self.blocks);
        let boxes = &self.tree.boxes[self.tree.tree.node_index(level, place)];
        let mut sum = simd.splat_words(0);
        for pair in 0..S.div_ceil(2) {
            sum = simd.add_squared_gaps(
                sum,
                (
                    simd.load_words(&boxes.low[pair]),
                    simd.load_words(&boxes.high[pair]),
                ),
                (
                    simd.splat_words(blocks.down[pair][self.lane]),
                    simd.splat_words(blocks.up[pair][self.lane]),
                ),
            );
        }
        let most = simd.splat_words(self.most_gap.cast_unsigned());
        simd.bits(simd.ge_signed(most, sum)) & boxes.used
    }

    #[inline(always)]
    fn leaves(&mut self, place: usize, mut leaves: u32) {
        while leaves != 0 {
            let lane = leaves.trailing_zeros() as usize % LANES;
            leaves &= leaves - 1;
            self.leaf(place * LANES + lane);
        }
    }
}
