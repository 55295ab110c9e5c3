//! Sixteen neighbouring blocks walk the k-d tree together.
//!
//! Blocks are first sorted by the bin of the tree they fall into, so that sixteen in a row are
//! close to each other: one walk with the box around them then serves all, and the leaf they fall
//! into gives a good limit at once. Sorting goes in two steps that each stay in cache: chunks of
//! blocks are partitioned into a few hundred buckets (subtrees), then every bucket is sorted by
//! the bins below it and searched at once.
#![expect(
    clippy::needless_range_loop,
    reason = "lanes and coordinates index several arrays at once"
)]

use std::ops::Range;

use rayon::prelude::*;

use super::element::Element;
use super::kdtree::{COORDINATE_BITS, KdTree, Node, Point, QUAD, Quad};
use super::leader::{ExactDistance, Leaders, Rivals};
use super::margin::Margin;
use super::problem::{MotifSet, Problem};
use super::search::Search;
use super::simd::{Isa, LANES, Simd, Work, dispatch};
use crate::error::Result;
use crate::monitor::Monitor;

/// Blocks sorted and searched at a time; bounds the memory for the sorted copy.
const BATCH_LEN: usize = 1 << 23;
/// Blocks partitioned at a time: the partitioned copy of a chunk fits a second-level cache.
const CHUNK_LEN: usize = 1 << 16;
/// Blocks aimed at in a bucket.
const BUCKET_LEN: usize = 1 << 13;
/// Deepest level whose nodes may be the buckets: so many streams can be written at once.
const MAX_BUCKET_DEPTH: u32 = 9;
/// Blocks of one bucket searched at a time; more than this only where blocks crowd together.
const TASK_LEN: usize = 1 << 14;
/// Motifs in a leaf, at most.
const LEAF_LEN: usize = 24;
/// Levels of sixteen-wide nodes above as many leaves as there are 32-bit indices.
const MAX_NODE_LEVELS: usize = 8;
/// Groups searched between two looks at the monitor.
const GROUPS_PER_CHECK: usize = 32;

/// Largest block size this search is compiled for.
pub const MAX_BLOCK_SIZE: usize = 1 << COORDINATE_BITS;

/// The motifs in a tree.
pub struct Tree<const S: usize> {
    tree: KdTree<S>,
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
        let points: Vec<Point<S>> = candidates
            .par_iter()
            .map(|&motif| Point {
                position: scaled(motifs.motif(motif), motifs.scale()),
                motif,
            })
            .collect();
        let largest_norm = points.iter().map(Point::squared_norm).fold(0.0, f64::max);
        monitor.check()?;
        Ok(Self {
            tree: KdTree::build(points, LEAF_LEN, monitor)?,
            margin: Margin::new(S, motifs.exact_in_f32()),
            largest_norm,
        })
    }
}

impl<T: Element, const S: usize> Search<T> for Tree<S> {
    fn search(
        &self,
        problem: &Problem<'_, T>,
        isa: Isa,
        monitor: &Monitor,
        nearest: &mut [u32],
    ) -> Result<()> {
        for (batch, nearest) in nearest.chunks_mut(BATCH_LEN).enumerate() {
            let first = batch * BATCH_LEN;
            search_batch(problem, self, first, isa, monitor, nearest)?;
        }
        Ok(())
    }
}

fn scaled<T: Element, const S: usize>(values: &[T], scale: f64) -> [f32; S] {
    let mut result = [0.0; S];
    for (result, value) in result.iter_mut().zip(values) {
        *result = value.scaled_to_f32(scale);
    }
    result
}

fn search_batch<T: Element, const S: usize>(
    problem: &Problem<'_, T>,
    tree: &Tree<S>,
    first: usize,
    isa: Isa,
    monitor: &Monitor,
    nearest: &mut [u32],
) -> Result<()> {
    let wanted_depth = (nearest.len() / BUCKET_LEN).max(1).ilog2();
    let bucket_depth = wanted_depth
        .min(MAX_BUCKET_DEPTH)
        .min(tree.tree.bin_depth());
    let blocks = &problem.blocks()[first * S..][..nearest.len() * S];
    let chunks = blocks
        .par_chunks(CHUNK_LEN * S)
        .map(|blocks| {
            monitor.check()?;
            let splits = tree.tree.splits();
            let scale = problem.scale();
            Ok(dispatch(
                isa,
                Partition {
                    blocks,
                    scale,
                    splits,
                    bucket_depth,
                },
            ))
        })
        .collect::<Result<Vec<Chunk<S>>>>()?;
    let mut found: Vec<Vec<u32>> = chunks
        .iter()
        .map(|chunk| vec![0; chunk.order.len()])
        .collect();
    tasks(&chunks, &mut found, bucket_depth)
        .into_par_iter()
        .try_for_each_init(Scratch::default, |scratch, task| {
            let exact = |block: usize, motif: u32| problem.distance(first + block, motif);
            dispatch(
                isa,
                BucketSearch {
                    tree,
                    bucket_depth,
                    task,
                    scratch,
                    exact: &exact,
                    monitor,
                },
            )
        })?;
    nearest
        .par_chunks_mut(CHUNK_LEN)
        .zip(chunks)
        .zip(found)
        .for_each(|((nearest, chunk), found)| {
            for (block, motif) in chunk.order.into_iter().zip(found) {
                nearest[block as usize] = motif;
            }
        });
    Ok(())
}

/// Consecutive blocks, sorted by bucket.
struct Chunk<const S: usize> {
    blocks: Vec<[f32; S]>,
    /// Each block's place before sorting.
    order: Vec<u32>,
    /// Where each bucket begins, and the end.
    starts: Vec<usize>,
}

struct Partition<'a, T, const S: usize> {
    blocks: &'a [T],
    scale: f64,
    splits: &'a [u32],
    bucket_depth: u32,
}

impl<T: Element, const S: usize> Partition<'_, T, S> {
    #[inline(always)]
    fn block(&self, index: usize) -> [f32; S] {
        let mut block = [0.0; S];
        let values = &self.blocks[index * S..][..S];
        for d in 0..S {
            block[d] = values[d].scaled_to_f32(self.scale);
        }
        block
    }
}

impl<T: Element, const S: usize> Work for Partition<'_, T, S> {
    type Output = Chunk<S>;

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) -> Chunk<S> {
        let count = self.blocks.len() / S;
        let bucket_count = 1 << self.bucket_depth;
        let mut buckets = vec![0u16; count];
        let mut starts = vec![0usize; bucket_count + 1];
        let mut index = 0;
        for group in buckets.chunks_mut(LANES) {
            let mut lanes = [[0.0; LANES]; S];
            for lane in 0..group.len() {
                let block = self.block(index + lane);
                for d in 0..S {
                    lanes[d][lane] = block[d];
                }
            }
            index += group.len();
            let x = load(simd, &lanes);
            let node = descend(
                simd,
                self.splits,
                &x,
                simd.splat_words(1),
                self.bucket_depth,
            );
            let nodes = simd.words_to_array(node);
            for (bucket, node) in group.iter_mut().zip(nodes) {
                let place = node as usize & (bucket_count - 1);
                *bucket = place as u16;
                starts[place + 1] += 1;
            }
        }
        accumulate(&mut starts);
        let mut blocks = vec![[0.0; S]; count];
        let mut order = vec![0; count];
        let mut next = starts.clone();
        for (index, &bucket) in buckets.iter().enumerate() {
            let place = next[bucket as usize];
            next[bucket as usize] += 1;
            blocks[place] = self.block(index);
            order[place] = index as u32;
        }
        Chunk {
            blocks,
            order,
            starts,
        }
    }
}

#[inline(always)]
fn load<V: Simd, const S: usize>(simd: V, lanes: &[[f32; LANES]; S]) -> [V::Floats; S] {
    let mut x = [simd.splat(0.0); S];
    for d in 0..S {
        x[d] = simd.load(&lanes[d]);
    }
    x
}

/// Goes down from the given nodes of the heap of splits.
#[inline(always)]
fn descend<V: Simd, const S: usize>(
    simd: V,
    splits: &[u32],
    x: &[V::Floats; S],
    mut node: V::Words,
    levels: u32,
) -> V::Words {
    for _ in 0..levels {
        let split = simd.lookup(splits, node);
        let mut value = x[0];
        for d in 1..S {
            let here = simd.low_bits_equal(split, (1 << COORDINATE_BITS) - 1, d as u32);
            value = simd.select(here, x[d], value);
        }
        let right = simd.le(simd.words_as_floats(split), value);
        node = simd.double_plus(node, right);
    }
    node
}

/// Turns counts, each one place after its own, into starts.
fn accumulate(starts: &mut [usize]) {
    let mut sum = 0;
    for start in starts {
        sum += *start;
        *start = sum;
    }
}

/// Some blocks of one bucket, from one chunk.
struct Piece<'a, const S: usize> {
    blocks: &'a [[f32; S]],
    /// Each block's index in the batch is this plus its entry in `order`.
    first: usize,
    order: &'a [u32],
    found: &'a mut [u32],
}

/// Blocks of one bucket that are searched together.
struct Task<'a, const S: usize> {
    bucket: usize,
    pieces: Vec<Piece<'a, S>>,
}

fn tasks<'a, const S: usize>(
    chunks: &'a [Chunk<S>],
    found: &'a mut [Vec<u32>],
    bucket_depth: u32,
) -> Vec<Task<'a, S>> {
    let mut rest: Vec<&mut [u32]> = found.iter_mut().map(Vec::as_mut_slice).collect();
    let mut tasks = Vec::new();
    for bucket in 0..1 << bucket_depth {
        let mut pieces = Vec::new();
        let mut len = 0;
        for (number, chunk) in chunks.iter().enumerate() {
            let Range { mut start, end } = chunk.starts[bucket]..chunk.starts[bucket + 1];
            while start < end {
                let taken = (end - start).min(TASK_LEN - len);
                let range = start..start + taken;
                let found = rest[number].split_off_mut(..taken).unwrap_or_default();
                pieces.push(Piece {
                    blocks: &chunk.blocks[range.clone()],
                    first: number * CHUNK_LEN,
                    order: &chunk.order[range],
                    found,
                });
                start += taken;
                len += taken;
                if len == TASK_LEN {
                    tasks.push(Task {
                        bucket,
                        pieces: std::mem::take(&mut pieces),
                    });
                    len = 0;
                }
            }
        }
        if !pieces.is_empty() {
            tasks.push(Task { bucket, pieces });
        }
    }
    tasks
}

/// Buffers that a thread uses again for its next task.
#[derive(Default)]
struct Scratch {
    bins: Vec<u32>,
    starts: Vec<usize>,
    /// Index in the batch, in the order of the pieces.
    blocks: Vec<usize>,
    /// Place in the order of the pieces, in sorted order.
    origins: Vec<u32>,
    /// Sixteen sorted blocks at a time, coordinate by coordinate.
    lanes: Vec<[f32; LANES]>,
    homes: Vec<u32>,
    found: Vec<u32>,
    rivals: Rivals,
}

struct BucketSearch<'a, 's, const S: usize> {
    tree: &'s Tree<S>,
    bucket_depth: u32,
    task: Task<'a, S>,
    scratch: &'s mut Scratch,
    exact: ExactDistance<'s>,
    monitor: &'s Monitor,
}

impl<const S: usize> Work for BucketSearch<'_, '_, S> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<V: Simd>(mut self, simd: V) -> Result<()> {
        let count = self
            .task
            .pieces
            .iter()
            .map(|piece| piece.blocks.len())
            .sum();
        self.sort(simd, count);
        let Scratch {
            blocks,
            origins,
            lanes,
            homes,
            found,
            rivals,
            ..
        } = &mut *self.scratch;
        let (groups, _) = lanes.as_chunks::<S>();
        for (number, (group, &home)) in groups.iter().zip(homes.iter()).enumerate() {
            if number % GROUPS_PER_CHECK == 0 {
                self.monitor.check()?;
            }
            rivals.clear();
            let mut walk = Walk::new(simd, self.tree, group, rivals);
            walk.all_leaves(home as usize);
            let (mut motifs, contested) = walk.leaders.finish(simd);
            let origins = &origins[number * LANES..];
            let origins = &origins[..origins.len().min(LANES)];
            if contested != 0 {
                for (lane, &origin) in origins.iter().enumerate() {
                    if contested >> lane & 1 == 1 {
                        let block = blocks[origin as usize];
                        motifs[lane] = rivals.settle(lane as u32, block, motifs[lane], self.exact);
                    }
                }
            }
            for (&origin, motif) in origins.iter().zip(motifs) {
                found[origin as usize] = motif;
            }
        }
        let mut found = found.as_slice();
        for piece in &mut self.task.pieces {
            let (here, rest) = found.split_at(piece.found.len());
            piece.found.copy_from_slice(here);
            found = rest;
        }
        self.monitor.advance(count as u64);
        Ok(())
    }
}

impl<const S: usize> BucketSearch<'_, '_, S> {
    /// Sorts the blocks of the task by bin into groups of sixteen lanes.
    #[inline(always)]
    fn sort<V: Simd>(&mut self, simd: V, count: usize) {
        let tree = &self.tree.tree;
        let levels = tree.bin_depth() - self.bucket_depth;
        let bin_count = 1usize << levels;
        let Scratch {
            bins,
            starts,
            blocks,
            origins,
            lanes,
            homes,
            found,
            ..
        } = &mut *self.scratch;
        bins.clear();
        blocks.clear();
        starts.clear();
        starts.resize(bin_count + 1, 0);
        let bucket_node = (1 << self.bucket_depth) + self.task.bucket as u32;
        for piece in &self.task.pieces {
            for group in piece.blocks.chunks(LANES) {
                let mut lanes = [[0.0; LANES]; S];
                for (lane, block) in group.iter().enumerate() {
                    for d in 0..S {
                        lanes[d][lane] = block[d];
                    }
                }
                let x = load(simd, &lanes);
                let node = simd.splat_words(bucket_node);
                let nodes = simd.words_to_array(descend(simd, tree.splits(), &x, node, levels));
                for &node in &nodes[..group.len()] {
                    let bin = node as usize & (bin_count - 1);
                    starts[bin + 1] += 1;
                    bins.push(bin as u32);
                }
            }
            blocks.extend(
                piece
                    .order
                    .iter()
                    .map(|&place| piece.first + place as usize),
            );
        }
        accumulate(starts);

        let group_count = count.div_ceil(LANES);
        origins.resize(count, 0);
        found.resize(count, 0);
        lanes.resize(group_count * S, [0.0; LANES]);
        homes.resize(group_count, 0);
        let first_bin = self.task.bucket << levels;
        let mut origin = 0;
        for piece in &self.task.pieces {
            for block in piece.blocks {
                let bin = bins[origin] as usize;
                let place = starts[bin];
                starts[bin] += 1;
                origins[place] = origin as u32;
                let (group, lane) = (place / LANES, place % LANES);
                for d in 0..S {
                    lanes[group * S + d][lane] = block[d];
                }
                // The leaf of the middle lane, or of the last if there is none.
                if lane == LANES / 2 || place == count - 1 && lane < LANES / 2 {
                    homes[group] = KdTree::<S>::leaf_of_bin(first_bin + bin) as u32;
                }
                origin += 1;
            }
        }
        // Unused lanes of the last group repeat its last block.
        let used = count - (group_count - 1) * LANES;
        for d in 0..S {
            let lanes = &mut lanes[(group_count - 1) * S + d];
            let last = lanes[used - 1];
            lanes[used..].fill(last);
        }
    }
}

/// Sixteen blocks on their way through the tree.
struct Walk<'a, V: Simd, const S: usize> {
    simd: V,
    tree: &'a KdTree<S>,
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
    fn new(simd: V, tree: &'a Tree<S>, group: &[[f32; LANES]; S], rivals: &'a mut Rivals) -> Self {
        let x = load(simd, group);
        let (mut low, mut high) = (x, x);
        let mut norm = simd.splat(0.0);
        for d in 0..S {
            low[d] = simd.splat(simd.reduce_min(x[d]));
            high[d] = simd.splat(simd.reduce_max(x[d]));
            norm = simd.mul_add(x[d], x[d], norm);
        }
        let (absolute, per_norm) = tree.margin.slack_terms(tree.largest_norm);
        let slack = simd.mul_add(norm, simd.splat(per_norm), simd.splat(absolute));
        let leaders = Leaders::new(simd);
        let relative = simd.splat(tree.margin.relative());
        Self {
            simd,
            tree: &tree.tree,
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

    /// Visits the home leaf, then every other leaf that may hold a nearest motif.
    #[inline(always)]
    fn all_leaves(&mut self, home: usize) {
        self.leaf(home);
        let last_level = match self.tree.node_levels() {
            0 => return,
            levels => levels - 1,
        };
        // Per level, the node and the children still to visit.
        let mut path = [(0usize, 0u32); MAX_NODE_LEVELS];
        let mut level = 0;
        path[0] = (0, self.near_children(self.tree.node(0, 0)));
        loop {
            let (place, children) = path[level % MAX_NODE_LEVELS];
            if children == 0 {
                if level == 0 {
                    return;
                }
                level -= 1;
                continue;
            }
            path[level % MAX_NODE_LEVELS].1 = children & (children - 1);
            let lane = children.trailing_zeros() as usize % LANES;
            let child = place * LANES + lane;
            if level < last_level {
                level += 1;
                let near = self.near_children(self.tree.node(level, child));
                path[level % MAX_NODE_LEVELS] = (child, near);
            } else if child != home && self.is_near(self.tree.node(level, place), lane) {
                self.leaf(child);
            }
        }
    }

    /// Which children's boxes are within reach of the box around the blocks.
    #[inline(always)]
    fn near_children(&self, node: &Node<S>) -> u32 {
        let simd = self.simd;
        let mut distance = simd.splat(0.0);
        for d in 0..S {
            let below = simd.sub(simd.load(&node.low[d]), self.high[d]);
            let above = simd.sub(self.low[d], simd.load(&node.high[d]));
            let gap = simd.max(simd.max(below, above), simd.splat(0.0));
            distance = simd.mul_add(gap, gap, distance);
        }
        simd.bits(simd.le(distance, simd.splat(self.reach)))
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
        let tree = self.tree;
        for quad in tree.leaf(leaf) {
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
