//! A perfectly balanced k-d order of the motifs, with bounding boxes sixteen wide.
//!
//! The points are split at the median of their most varied coordinate, again and again, until the
//! leaves hold few; since the split is by rank, depth and leaf sizes depend only on the number of
//! points. The splits form a binary heap (root 1, children `2n` and `2n + 1`) that goes a few
//! levels below the leaves, so that blocks can be sorted finer than by leaf. Above the leaves, four
//! binary levels at a time become one node of sixteen boxes.
//!
//! Nothing here bears on which motif is found, only on how fast.

use std::ops::Range;

use rayon::prelude::*;

use super::problem::MotifSet;
use crate::element::Element;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::LANES;

/// Levels of splits below the leaves.
const FINE_LEVELS: u32 = 3;
/// Points below which a subtree is not worth another task.
const PARALLEL_POINTS: usize = 1 << 13;
/// Points looked at to choose the coordinate to split.
const SAMPLED_POINTS: usize = 1 << 10;
/// Bits of a split that hold its coordinate, in place of the lowest bits of its value.
pub const COORDINATE_BITS: u32 = 3;

/// A motif in scaled float32.
#[derive(Clone, Copy, Debug)]
pub struct Point<const S: usize> {
    /// Its coordinates.
    pub position: [f32; S],
    /// Its index.
    pub motif: u32,
}

impl<const S: usize> Point<S> {
    /// The given motifs.
    pub fn all<T: Element>(motifs: &MotifSet<'_, T>, candidates: &[u32]) -> Vec<Self> {
        let point = |&motif: &u32| {
            let mut position = [0.0; S];
            for (position, value) in position.iter_mut().zip(motifs.scaled(motif)) {
                *position = value;
            }
            Self { position, motif }
        };
        candidates.par_iter().map(point).collect()
    }

    /// The largest squared norm among points.
    pub fn largest_norm(points: &[Self]) -> f64 {
        points
            .par_iter()
            .map(Self::squared_norm)
            .reduce(|| 0.0, f64::max)
    }

    /// Its squared norm.
    fn squared_norm(&self) -> f64 {
        let values = self.position.iter();
        values.map(|&z| f64::from(z) * f64::from(z)).sum()
    }
}

/// Bounding boxes of sixteen children; unused ones are infinitely far from everything.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Node<const S: usize> {
    /// Lower corners, coordinate by coordinate.
    pub low: [[f32; LANES]; S],
    /// Upper corners, coordinate by coordinate.
    pub high: [[f32; LANES]; S],
}

/// The tree over motifs in k-d order.
#[derive(Debug)]
pub struct KdTree<const S: usize> {
    /// Binary levels above the leaves.
    leaf_depth: u32,
    /// Packed splits of all levels down to the finest bins, as a binary heap.
    splits: Vec<u32>,
    /// Index of the first node of each level, root first; empty if there is one leaf.
    levels: Vec<usize>,
    nodes: Vec<Node<S>>,
    /// Where the points of each leaf begin, and the end.
    starts: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Bounds<const S: usize> {
    low: [f32; S],
    high: [f32; S],
}

impl<const S: usize> Bounds<S> {
    const EMPTY: Self = Self {
        low: [f32::INFINITY; S],
        high: [f32::NEG_INFINITY; S],
    };

    fn of(points: &[Point<S>]) -> Self {
        points.iter().fold(Self::EMPTY, |bounds, point| {
            bounds.union(&Self {
                low: point.position,
                high: point.position,
            })
        })
    }

    fn union(self, other: &Self) -> Self {
        Self {
            low: std::array::from_fn(|d| self.low[d].min(other.low[d])),
            high: std::array::from_fn(|d| self.high[d].max(other.high[d])),
        }
    }
}

impl<const S: usize> KdTree<S> {
    /// Orders the points into leaves of at most `leaf_len`, and at least about half of that.
    ///
    /// # Errors
    /// `Interrupted`, if cancelled.
    ///
    /// # Panics
    /// If there are no points.
    pub fn build(points: &mut [Point<S>], leaf_len: usize, monitor: &Monitor) -> Result<Self> {
        assert!(!points.is_empty());
        let leaf_depth = points.len().div_ceil(leaf_len).next_power_of_two().ilog2();
        let splits = split_heap(points, leaf_depth + FINE_LEVELS, monitor)?;
        let mut starts = Vec::with_capacity((1 << leaf_depth) + 1);
        halve(0..points.len(), leaf_depth, &mut starts);
        starts.push(points.len());
        let leaves = starts
            .par_windows(2)
            .map(|edges| Bounds::of(&points[edges[0]..edges[1]]));
        let (levels, nodes) = box_nodes(leaves.collect());
        Ok(Self {
            leaf_depth,
            splits,
            levels,
            nodes,
            starts,
        })
    }

    /// Number of points.
    pub fn point_count(&self) -> usize {
        self.starts[self.leaf_count()]
    }

    /// Number of leaves.
    pub fn leaf_count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Points in the fullest leaf.
    pub fn largest_leaf(&self) -> usize {
        let lens = self.starts.windows(2).map(|edges| edges[1] - edges[0]);
        lens.max().unwrap_or(0)
    }

    /// The points of a leaf, as places in the order.
    pub fn leaf(&self, leaf: usize) -> Range<usize> {
        self.starts[leaf]..self.starts[leaf + 1]
    }

    /// Binary levels from the root to the finest bins.
    pub fn bin_depth(&self) -> u32 {
        self.leaf_depth + FINE_LEVELS
    }

    /// The leaf a finest bin is part of.
    #[inline(always)]
    pub fn leaf_of_bin(bin: usize) -> usize {
        bin >> FINE_LEVELS
    }

    /// Splits as a binary heap from index 1, to be read with [`COORDINATE_BITS`].
    pub fn splits(&self) -> &[u32] {
        &self.splits
    }

    /// Levels of nodes above the leaves.
    #[inline(always)]
    pub fn node_levels(&self) -> usize {
        self.levels.len()
    }

    /// All nodes, level by level.
    pub fn nodes(&self) -> &[Node<S>] {
        &self.nodes
    }

    /// Index among all nodes of one by level and place within it.
    #[inline(always)]
    pub fn node_index(&self, level: usize, place: usize) -> usize {
        self.levels[level] + place
    }

    /// A node by level and place within it; the children of place `p` are at `16 p` and on.
    #[inline(always)]
    pub fn node(&self, level: usize, place: usize) -> &Node<S> {
        &self.nodes[self.node_index(level, place)]
    }
}

/// Splits the points `levels` times, reordering them, and returns the heap of the splits.
fn split_heap<const S: usize>(
    points: &mut [Point<S>],
    levels: u32,
    monitor: &Monitor,
) -> Result<Vec<u32>> {
    monitor.check()?;
    let mut heap = vec![0; 1 << levels];
    if levels == 0 || points.len() < PARALLEL_POINTS {
        fill_heap(points, levels, 1, &mut heap);
        return Ok(heap);
    }
    let (split, middle) = split(points);
    heap[1] = split;
    let (left, right) = points.split_at_mut(middle);
    let (left, right) = rayon::join(
        || split_heap(left, levels - 1, monitor),
        || split_heap(right, levels - 1, monitor),
    );
    let (left, right) = (left?, right?);
    for level in 0..levels - 1 {
        let width = 1 << level;
        heap[2 * width..][..width].copy_from_slice(&left[width..2 * width]);
        heap[3 * width..][..width].copy_from_slice(&right[width..2 * width]);
    }
    Ok(heap)
}

fn fill_heap<const S: usize>(points: &mut [Point<S>], levels: u32, node: usize, heap: &mut [u32]) {
    if levels == 0 {
        return;
    }
    let (split, middle) = split(points);
    heap[node] = split;
    let (left, right) = points.split_at_mut(middle);
    fill_heap(left, levels - 1, 2 * node, heap);
    fill_heap(right, levels - 1, 2 * node + 1, heap);
}

/// Splits at the median of the most varied coordinate; returns the packed split and the rank.
fn split<const S: usize>(points: &mut [Point<S>]) -> (u32, usize) {
    let middle = points.len() / 2;
    if points.len() < 2 {
        // Bins below a single point: any split will do.
        return (f32::MAX.to_bits() & !low_bits(COORDINATE_BITS), middle);
    }
    let coordinate = most_varied(points);
    let (_, median, _) = points.select_nth_unstable_by(middle, |a, b| {
        a.position[coordinate].total_cmp(&b.position[coordinate])
    });
    let value = median.position[coordinate].to_bits() & !low_bits(COORDINATE_BITS);
    (value | coordinate as u32, middle)
}

fn low_bits(count: u32) -> u32 {
    (1 << count) - 1
}

fn most_varied<const S: usize>(points: &[Point<S>]) -> usize {
    let mut sums = [0.0f32; S];
    let mut squares = [0.0f32; S];
    let step = points.len().div_ceil(SAMPLED_POINTS);
    let mut count = 0.0f32;
    // Relative to some point, so that a common offset does not cancel the variance away.
    let origin = points[points.len() / 2].position;
    for point in points.iter().step_by(step) {
        for d in 0..S {
            let value = point.position[d] - origin[d];
            sums[d] += value;
            squares[d] += value * value;
        }
        count += 1.0;
    }
    let variance = |d: usize| squares[d] - sums[d] * (sums[d] / count);
    (1..S).fold(0, |best, d| {
        if variance(d) > variance(best) {
            d
        } else {
            best
        }
    })
}

/// The starts of the leaves of a range of points.
fn halve(points: Range<usize>, levels: u32, starts: &mut Vec<usize>) {
    if levels == 0 {
        starts.push(points.start);
        return;
    }
    let middle = points.start + points.len() / 2;
    halve(points.start..middle, levels - 1, starts);
    halve(middle..points.end, levels - 1, starts);
}

/// The nodes above the given leaves, level by level, and where each level begins.
fn box_nodes<const S: usize>(leaves: Vec<Bounds<S>>) -> (Vec<usize>, Vec<Node<S>>) {
    let mut bottom_up = Vec::new();
    let mut children = leaves;
    while children.len() > 1 {
        let groups = children.chunks(LANES);
        bottom_up.push(groups.clone().map(node).collect::<Vec<_>>());
        children = groups
            .map(|group| {
                group
                    .iter()
                    .fold(Bounds::EMPTY, |all, each| all.union(each))
            })
            .collect();
    }
    let mut levels = Vec::new();
    let mut nodes = Vec::new();
    for mut level in bottom_up.into_iter().rev() {
        levels.push(nodes.len());
        nodes.append(&mut level);
    }
    (levels, nodes)
}

fn node<const S: usize>(children: &[Bounds<S>]) -> Node<S> {
    let mut node = Node {
        low: [[f32::INFINITY; LANES]; S],
        high: [[f32::NEG_INFINITY; LANES]; S],
    };
    for (lane, child) in children.iter().enumerate() {
        for d in 0..S {
            node.low[d][lane] = child.low[d];
            node.high[d][lane] = child.high[d];
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(count: usize) -> Vec<Point<2>> {
        (0..count)
            .map(|i| Point {
                // Many equal coordinates.
                position: [((i * 37) % 11) as f32, ((i * 101) % 1009) as f32],
                motif: i as u32,
            })
            .collect()
    }

    #[test]
    fn every_motif_is_in_one_leaf_and_every_box_holds_its_leaves() {
        for count in [1, 2, 16, 17, 33, 1000, 20_000] {
            let mut points = points(count);
            let tree = KdTree::build(&mut points, 16, &Monitor::new()).unwrap();
            let mut seen = Vec::new();
            for leaf in 0..tree.leaf_count() {
                let held = &points[tree.leaf(leaf)];
                assert!(held.len() <= tree.largest_leaf() && tree.largest_leaf() <= 16);
                seen.extend(held.iter().map(|point| point.motif));
                let mut child = leaf;
                for level in (0..tree.node_levels()).rev() {
                    let node = tree.node(level, child / LANES);
                    for point in held {
                        for d in 0..2 {
                            assert!(node.low[d][child % LANES] <= point.position[d]);
                            assert!(node.high[d][child % LANES] >= point.position[d]);
                        }
                    }
                    child /= LANES;
                }
                assert_eq!(child, 0);
            }
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..count as u32));
        }
    }

    #[test]
    fn parallel_and_sequential_splits_agree() {
        let mut first = points(4 * PARALLEL_POINTS);
        let mut second = first.clone();
        let mut heap = vec![0; 1 << 9];
        fill_heap(&mut second, 9, 1, &mut heap);
        assert_eq!(split_heap(&mut first, 9, &Monitor::new()).unwrap(), heap);
        assert!(first.iter().zip(&second).all(|(a, b)| a.motif == b.motif));
    }
}
