//! Blocks sorted by the bin of a tree they fall into, so that sixteen in a row are neighbours.
//!
//! Sorting goes in two steps that each stay in cache: chunks of blocks are partitioned into a few
//! hundred buckets (subtrees), then every bucket is sorted by the bins below it and searched at
//! once.
#![expect(
    clippy::needless_range_loop,
    reason = "lanes and coordinates index several arrays at once"
)]

use std::ops::Range;

use rayon::prelude::*;

use super::kdtree::{COORDINATE_BITS, KdTree};
use super::kernel::Search;
use super::leader::{ExactDistance, Rivals};
use super::problem::Problem;
use crate::element::Element;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::{Isa, LANES, Simd, Work, dispatch};

/// Blocks sorted and searched at a time, at least; this bounds the memory for the sorted copy.
const BATCH_LEN: usize = 1 << 23;
/// Blocks per motif sorted and searched at a time: with fewer, neighbours are farther apart than
/// motifs are, and every group of them has more leaves to visit.
const BATCH_BLOCKS_PER_MOTIF: usize = 8;
/// Blocks partitioned at a time: the partitioned copy of a chunk fits a second-level cache.
const CHUNK_LEN: usize = 1 << 16;
/// Blocks aimed at in a bucket.
const BUCKET_LEN: usize = 1 << 13;
/// Buckets for each thread, so that all are busy to the end, if they get no shorter than that.
const BUCKETS_PER_THREAD: usize = 32;
const LEAST_BUCKET_LEN: usize = 1 << 10;
/// Deepest level whose nodes may be the buckets: that many streams can be written at once.
const MAX_BUCKET_DEPTH: u32 = 9;
/// Most blocks of one bucket sorted and searched at a time.
const TASK_LEN: usize = 1 << 17;
/// Groups searched between two looks at the monitor.
const GROUPS_PER_CHECK: usize = 32;

/// A search of sixteen neighbouring blocks at a time.
pub trait GroupSearch<const S: usize>: Send + Sync {
    /// The tree to sort the blocks by.
    fn tree(&self) -> &KdTree<S>;

    /// The nearest motif of each block of a group; what unused lanes get does not matter.
    fn nearest<V: Simd>(
        &self,
        simd: V,
        group: &Group<'_, S>,
        rivals: &mut Rivals,
        exact: ExactDistance<'_>,
    ) -> [u32; LANES];
}

/// Sixteen neighbouring blocks; unused lanes repeat the last one.
#[derive(Debug)]
pub struct Group<'a, const S: usize> {
    /// Scaled to float32, coordinate by coordinate.
    pub coordinates: &'a [[f32; LANES]; S],
    /// The leaf that a block in the middle falls into.
    pub home: usize,
    /// Index in the problem of each block in use, by origin.
    blocks: &'a [usize],
    origins: &'a [u32],
    bins: &'a [u32],
    first_bin: usize,
    /// Added to the indices of blocks.
    first: usize,
    within: Option<&'a [f32]>,
}

impl<const S: usize> Group<'_, S> {
    /// Number of lanes in use.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// Index in the problem of a lane's block.
    #[inline(always)]
    pub fn block(&self, lane: usize) -> usize {
        self.first + self.blocks[self.origins[lane] as usize]
    }

    /// The leaf that a lane's block falls into.
    #[inline(always)]
    pub fn home_of(&self, lane: usize) -> usize {
        let bin = self.bins[self.origins[lane] as usize] as usize;
        KdTree::<S>::leaf_of_bin(self.first_bin + bin)
    }

    /// For each lane a squared distance that some motif has, if they are known.
    #[inline(always)]
    pub fn within(&self) -> Option<[f32; LANES]> {
        let within = self.within?;
        let mut distances = [0.0; LANES];
        for lane in 0..LANES {
            distances[lane] = within[self.block(lane.min(self.len() - 1))];
        }
        Some(distances)
    }

    /// A lane's block.
    #[inline(always)]
    pub fn row(&self, lane: usize) -> [f32; S] {
        std::array::from_fn(|d| self.coordinates[d][lane])
    }
}

/// A search of blocks that are sorted into groups.
#[derive(Debug)]
pub struct Sorted<G, const S: usize>(pub G);

impl<T: Element, G: GroupSearch<S>, const S: usize> Search<T> for Sorted<G, S> {
    fn search(
        &self,
        problem: &Problem<'_, T>,
        isa: Isa,
        monitor: &Monitor,
        nearest: &mut [u32],
    ) -> Result<()> {
        let motifs = self.0.tree().point_count();
        let batch_len = BATCH_LEN.max(BATCH_BLOCKS_PER_MOTIF * motifs);
        for (batch, nearest) in nearest.chunks_mut(batch_len).enumerate() {
            search_batch(problem, &self.0, batch * batch_len, isa, monitor, nearest)?;
        }
        Ok(())
    }
}

fn search_batch<T: Element, G: GroupSearch<S>, const S: usize>(
    problem: &Problem<'_, T>,
    search: &G,
    first: usize,
    isa: Isa,
    monitor: &Monitor,
    nearest: &mut [u32],
) -> Result<()> {
    let wanted = nearest.len() / BUCKET_LEN;
    let shared = BUCKETS_PER_THREAD * rayon::current_num_threads();
    let bucket_depth = wanted
        .max(shared.min(nearest.len() / LEAST_BUCKET_LEN))
        .max(1)
        .ilog2()
        .min(MAX_BUCKET_DEPTH)
        .min(search.tree().bin_depth());
    let blocks = &problem.blocks()[first * S..][..nearest.len() * S];
    let chunks = blocks
        .par_chunks(CHUNK_LEN * S)
        .map(|blocks| {
            monitor.check()?;
            let splits = search.tree().splits();
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
            let exact = |block: usize, motif: u32| problem.distance(block, motif);
            dispatch(
                isa,
                BucketSearch {
                    search,
                    first,
                    within: problem.distances(),
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

/// Sixteen blocks, coordinate by coordinate.
#[inline(always)]
pub fn load<V: Simd, const S: usize>(simd: V, lanes: &[[f32; LANES]; S]) -> [V::Floats; S] {
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

struct BucketSearch<'a, 's, G, const S: usize> {
    search: &'s G,
    /// First block of the batch.
    first: usize,
    within: Option<&'s [f32]>,
    bucket_depth: u32,
    task: Task<'a, S>,
    scratch: &'s mut Scratch,
    exact: ExactDistance<'s>,
    monitor: &'s Monitor,
}

impl<G: GroupSearch<S>, const S: usize> Work for BucketSearch<'_, '_, G, S> {
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
        let first_bin = self.task.bucket << self.levels();
        let Scratch {
            bins,
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
            let origins = &origins[number * LANES..];
            let origins = &origins[..origins.len().min(LANES)];
            let group = Group {
                coordinates: group,
                home: home as usize,
                blocks: blocks.as_slice(),
                origins,
                bins: bins.as_slice(),
                first_bin,
                first: self.first,
                within: self.within,
            };
            let motifs = self.search.nearest(simd, &group, rivals, self.exact);
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

impl<G: GroupSearch<S>, const S: usize> BucketSearch<'_, '_, G, S> {
    /// Sorts the blocks of the task by bin into groups of sixteen lanes.
    #[inline(always)]
    fn sort<V: Simd>(&mut self, simd: V, count: usize) {
        self.count_bins(simd);
        accumulate(&mut self.scratch.starts);
        self.place_blocks(count);
    }

    /// Levels of the tree below the bucket.
    #[inline(always)]
    fn levels(&self) -> u32 {
        self.search.tree().bin_depth() - self.bucket_depth
    }

    /// Finds the bin of every block, and counts the blocks of each, one place after its own.
    #[inline(always)]
    fn count_bins<V: Simd>(&mut self, simd: V) {
        let tree = self.search.tree();
        let levels = self.levels();
        let bin_count = 1usize << levels;
        let Scratch {
            bins,
            starts,
            blocks,
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
    }

    /// Copies the blocks, in the order of their bins, to the lanes of groups.
    #[inline(always)]
    fn place_blocks(&mut self, count: usize) {
        let first_bin = self.task.bucket << self.levels();
        let Scratch {
            bins,
            starts,
            origins,
            lanes,
            homes,
            found,
            ..
        } = &mut *self.scratch;
        let group_count = count.div_ceil(LANES);
        origins.resize(count, 0);
        found.resize(count, 0);
        lanes.resize(group_count * S, [0.0; LANES]);
        homes.resize(group_count, 0);
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
