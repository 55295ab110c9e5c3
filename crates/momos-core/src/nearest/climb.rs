//! The order in which a tree's leaves are visited.
//!
//! From the leaf that a block falls into, the walk climbs to the root, and at every node on the
//! way looks into the subtrees beside the one it comes from. What is close in the tree most often
//! is near, so limits are tight before most of the tree is looked at. A walk from the root takes
//! 14 to 30% longer where groups of blocks have 4 values, 1 to 6% where blocks have 5 to 8.

use super::kdtree::KdTree;
use crate::simd::LANES;

/// Levels of sixteen-wide nodes above as many leaves as there are 32-bit indices.
const MAX_NODE_LEVELS: usize = 8;

/// What happens on the way.
pub trait Visitor {
    /// Visits the leaf that the walk begins at.
    fn home(&mut self, leaf: usize);

    /// Which children of a node may hold something near, by bits.
    fn near_children(&mut self, level: usize, place: usize) -> u32;

    /// Visits some of the sixteen leaves of a node of the last level.
    fn leaves(&mut self, place: usize, leaves: u32);
}

/// Visits the home leaf, then every other leaf that may hold something near.
#[inline(always)]
pub fn climb<const S: usize>(tree: &KdTree<S>, home: usize, visitor: &mut impl Visitor) {
    visitor.home(home);
    let (mut below, mut place) = (home % LANES, home / LANES);
    for level in (0..tree.node_levels()).rev() {
        let near = visitor.near_children(level, place) & !(1 << below);
        subtrees(tree, level, place, near, visitor);
        (below, place) = (place % LANES, place / LANES);
    }
}

/// Visits the leaves below some children of a node.
#[inline(always)]
fn subtrees<const S: usize>(
    tree: &KdTree<S>,
    top: usize,
    place: usize,
    children: u32,
    visitor: &mut impl Visitor,
) {
    let last_level = tree.node_levels() - 1;
    if top == last_level {
        return visitor.leaves(place, children);
    }
    // Per level, the node and the children still to visit.
    let mut path = [(0usize, 0u32); MAX_NODE_LEVELS];
    let mut level = top;
    path[level % MAX_NODE_LEVELS] = (place, children);
    loop {
        let (place, children) = path[level % MAX_NODE_LEVELS];
        if children == 0 {
            if level == top {
                return;
            }
            level -= 1;
            continue;
        }
        path[level % MAX_NODE_LEVELS].1 = children & (children - 1);
        let child = place * LANES + children.trailing_zeros() as usize % LANES;
        let near = visitor.near_children(level + 1, child);
        if level + 1 == last_level {
            visitor.leaves(child, near);
        } else {
            level += 1;
            path[level % MAX_NODE_LEVELS] = (child, near);
        }
    }
}
