//! Sixteen neighbouring blocks walk the k-d tree together.
//!
//! One walk with the box around the blocks serves all sixteen, and the leaf they fall into gives a
//! good limit at once. Every motif of a leaf is compared with all of them, in float32.
#![expect(
    clippy::needless_range_loop,
    reason = "lanes and coordinates index several arrays at once"
)]

use rayon::prelude::*;

use super::buckets::{Group, GroupSearch, load};
use super::climb::{Visitor, climb};
use super::kdtree::{COORDINATE_BITS, KdTree, Node, Point};
use super::leader::{ExactDistance, Leaders, Rivals};
use super::margin::Margin;
use super::problem::MotifSet;
use crate::element::Element;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::{LANES, Simd};

/// Most motifs in a leaf.
const LEAF_LEN: usize = 24;

/// Largest block size this search is compiled for.
pub const MAX_BLOCK_SIZE: usize = 1 << COORDINATE_BITS;

/// Motifs that are compared at a time.
const QUAD: usize = 4;

/// Four motifs, coordinate by coordinate; unused ones are infinitely far from everything.
#[derive(Clone, Copy, Debug)]
struct Quad<const S: usize> {
    position: [[f32; QUAD]; S],
    motif: [u32; QUAD],
}

impl<const S: usize> Quad<S> {
    fn of(points: &[Point<S>]) -> Self {
        let mut quad = Self {
            position: [[f32::INFINITY; QUAD]; S],
            motif: [u32::MAX; QUAD],
        };
        for (slot, point) in points.iter().enumerate() {
            quad.motif[slot] = point.motif;
            for d in 0..S {
                quad.position[d][slot] = point.position[d];
            }
        }
        quad
    }
}

/// The motifs in a tree.
#[derive(Debug)]
pub struct Tree<const S: usize> {
    tree: KdTree<S>,
    quads_per_leaf: usize,
    quads: Vec<Quad<S>>,
    margin: Margin,
    largest_norm: f64,
}

impl<const S: usize> Tree<S> {
    /// Builds the tree of the motifs to search, which are all different.
    ///
    /// # Errors
    /// `Interrupted`, if cancelled.
    pub fn build<T: Element>(
        motifs: &MotifSet<'_, T>,
        candidates: &[u32],
        monitor: &Monitor,
    ) -> Result<Self> {
        const { assert!(S <= MAX_BLOCK_SIZE) };
        let mut points = Point::all(motifs, candidates);
        monitor.check()?;
        let tree = KdTree::build(&mut points, LEAF_LEN, monitor)?;
        let quads_per_leaf = tree.largest_leaf().div_ceil(QUAD);
        let mut quads = vec![Quad::of(&[]); tree.leaf_count() * quads_per_leaf];
        quads
            .par_chunks_mut(quads_per_leaf)
            .enumerate()
            .for_each(|(leaf, quads)| {
                let slots = points[tree.leaf(leaf)].chunks(QUAD);
                for (quad, slots) in quads.iter_mut().zip(slots) {
                    *quad = Quad::of(slots);
                }
            });
        Ok(Self {
            tree,
            quads_per_leaf,
            quads,
            margin: Margin::new(S, motifs.exact_in_f32()),
            largest_norm: Point::largest_norm(&points),
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
        let mut walk = Walk::new(simd, self, group, rivals);
        climb(&self.tree, group.home, &mut walk);
        let (mut motifs, contested) = walk.leaders.finish(simd);
        if contested != 0 {
            for lane in 0..group.len() {
                if contested >> lane & 1 == 1 {
                    let block = group.block(lane);
                    motifs[lane] = rivals.settle(lane as u32, block, motifs[lane], exact);
                }
            }
        }
        motifs
    }
}

/// Sixteen blocks on their way through the tree.
struct Walk<'a, V: Simd, const S: usize> {
    simd: V,
    tree: &'a Tree<S>,
    x: [V::Floats; S],
    /// The box around the blocks.
    low: [V::Floats; S],
    high: [V::Floats; S],
    leaders: Leaders<V>,
    /// Limits are `distance * relative + slack`.
    relative: V::Floats,
    slack: V::Floats,
    /// The largest limit of the blocks.
    reach: f32,
    rivals: &'a mut Rivals,
}

impl<'a, V: Simd, const S: usize> Walk<'a, V, S> {
    #[inline(always)]
    fn new(simd: V, tree: &'a Tree<S>, group: &Group<'_, S>, rivals: &'a mut Rivals) -> Self {
        let x = load(simd, group.coordinates);
        let (mut low, mut high) = (x, x);
        let mut norm = simd.splat(0.0);
        for d in 0..S {
            low[d] = simd.splat(simd.reduce_min(x[d]));
            high[d] = simd.splat(simd.reduce_max(x[d]));
            norm = simd.mul_add(x[d], x[d], norm);
        }
        let (absolute, per_norm) = tree.margin.slack_terms(tree.largest_norm);
        let slack = simd.mul_add(norm, simd.splat(per_norm), simd.splat(absolute));
        let relative = simd.splat(tree.margin.relative());
        let leaders = match group.within() {
            None => Leaders::new(simd),
            Some(distances) => {
                let limits = simd.mul_add(simd.load(&distances), relative, slack);
                Leaders::within(simd, limits)
            }
        };
        Self {
            simd,
            tree,
            x,
            low,
            high,
            leaders,
            relative,
            slack,
            reach: f32::MAX,
            rivals,
        }
    }

    /// Whether a child's box is within some block's own limit.
    #[inline(always)]
    fn is_near(&self, node: &Node<S>, lane: usize) -> bool {
        let simd = self.simd;
        let mut distance = simd.splat(0.0);
        for d in 0..S {
            let below = simd.sub(simd.splat(node.low[d][lane]), self.x[d]);
            let above = simd.sub(self.x[d], simd.splat(node.high[d][lane]));
            let gap = simd.max(simd.max(below, above), simd.splat(0.0));
            distance = simd.mul_add(gap, gap, distance);
        }
        self.leaders.concerns(simd, distance)
    }

    #[inline(always)]
    fn leaf(&mut self, leaf: usize) {
        let count = self.tree.quads_per_leaf;
        for quad in &self.tree.quads[leaf * count..][..count] {
            self.quad(quad);
        }
        self.reach = self.simd.reduce_max(self.leaders.limit());
    }

    #[inline(always)]
    fn quad(&mut self, quad: &Quad<S>) {
        let simd = self.simd;
        let mut distances = [simd.splat(0.0); QUAD];
        for slot in 0..QUAD {
            let difference = simd.sub(self.x[0], simd.splat(quad.position[0][slot]));
            distances[slot] = simd.mul(difference, difference);
            for d in 1..S {
                let difference = simd.sub(self.x[d], simd.splat(quad.position[d][slot]));
                distances[slot] = simd.mul_add(difference, difference, distances[slot]);
            }
        }
        let nearest = simd.min(
            simd.min(distances[0], distances[1]),
            simd.min(distances[2], distances[3]),
        );
        if self.leaders.concerns(simd, nearest) {
            for slot in 0..QUAD {
                let limit = simd.mul_add(distances[slot], self.relative, self.slack);
                let motif = quad.motif[slot];
                self.leaders
                    .offer(simd, distances[slot], limit, motif, 0, self.rivals);
            }
        }
    }
}

impl<V: Simd, const S: usize> Visitor for Walk<'_, V, S> {
    #[inline(always)]
    fn home(&mut self, leaf: usize) {
        self.leaf(leaf);
    }

    /// Those whose boxes are within reach of the box around the blocks.
    #[inline(always)]
    fn near_children(&mut self, level: usize, place: usize) -> u32 {
        let simd = self.simd;
        let node = self.tree.tree.node(level, place);
        let mut distance = simd.splat(0.0);
        for d in 0..S {
            let below = simd.sub(simd.load(&node.low[d]), self.high[d]);
            let above = simd.sub(self.low[d], simd.load(&node.high[d]));
            let gap = simd.max(simd.max(below, above), simd.splat(0.0));
            distance = simd.mul_add(gap, gap, distance);
        }
        simd.bits(simd.le(distance, simd.splat(self.reach)))
    }

    /// Those within some block's own limit.
    #[inline(always)]
    fn leaves(&mut self, place: usize, mut leaves: u32) {
        let tree = &self.tree.tree;
        let node = tree.node(tree.node_levels() - 1, place);
        while leaves != 0 {
            let lane = leaves.trailing_zeros() as usize % LANES;
            leaves &= leaves - 1;
            if self.is_near(node, lane) {
                self.leaf(place * LANES + lane);
            }
        }
    }
}
