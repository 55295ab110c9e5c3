//! Which motif is nearest to each block, exactly.
//!
//! **Contract.** For every block, the motif with the smallest squared L2 distance, the lowest
//! index among ties. The distance that decides is evaluated in float64, `sum (x - z)^2` from the
//! first value to the last with separate multiplications and additions, after scaling all data
//! by one power of two that keeps squares from over- and underflowing (it brings the largest
//! magnitude to about `2^50`; for float32 data the scale never changes the result). So the answer
//! depends on neither threads, nor instruction set, nor kernel, nor platform.
//!
//! Kernels compute in float32 and rule out only what a rigorous margin allows; near-ties are
//! settled by the float64 distance.
//!
//! | module | what it holds |
//! |---|---|
//! | `problem` | the checked input, its scale, the exact distance |
//! | `kernel` | what every kernel is |
//! | `margin` | what float32 may rule out, and why |
//! | `leader` | the nearest so far, and its rivals |
//! | `brute`, `narrow` (over `shells`) | the kernels without a tree |
//! | `group_tree`, `block_tree` (over `kdtree`, `climb`, `buckets`, `narrow_leaves`) | and with one |
//! | `choice` (over `cost_model`, `cost_table`) | which kernel is expected to be fastest |
//! | `trial` | which one is, where that depends on the data |
//! | `search` | motifs made ready to be searched |

mod block_tree;
mod brute;
mod buckets;
mod choice;
mod climb;
mod cost_model;
mod cost_table;
mod group_tree;
mod kdtree;
mod kernel;
mod leader;
mod margin;
mod narrow;
mod narrow_leaves;
mod problem;
mod search;
mod shells;
mod trial;

pub use crate::element::Element;
pub use crate::simd::Isa;
pub use kernel::{Kernel, Plan};
pub use problem::largest_block;
pub use search::{Expected, MotifSearch, Options, Searchable};

use crate::error::Result;
use crate::monitor::Monitor;

/// The index of the nearest motif for every block; see the [module](self) for the contract.
///
/// `blocks` (m, s) and `motifs` (k, s) are row-major, with s = `block_size`. Work is measured in
/// blocks: the monitor advances by m in all.
///
/// # Errors
/// `InvalidArgument` if s is not within 1 to 4096, a length is not a multiple of s, there is no
/// motif, or a value is NaN or infinite; `Interrupted` if the monitor was cancelled.
pub fn nearest_motifs<T: Searchable>(
    blocks: &[T],
    motifs: &[T],
    block_size: usize,
    monitor: &Monitor,
) -> Result<Vec<u32>> {
    nearest_motifs_with(blocks, motifs, block_size, Options::default(), monitor)
}

/// [`nearest_motifs`] with a kernel or an instruction set of the caller's choice.
///
/// # Errors
/// As [`nearest_motifs`]; also `InvalidArgument` if the kernel is not made for the block size or
/// the processor lacks the instructions.
pub fn nearest_motifs_with<T: Searchable>(
    blocks: &[T],
    motifs: &[T],
    block_size: usize,
    options: Options,
    monitor: &Monitor,
) -> Result<Vec<u32>> {
    let expected = Expected {
        largest: largest_block(blocks, block_size)?,
        blocks: blocks.len() / block_size,
    };
    MotifSearch::new(motifs, block_size, expected, options, monitor)?.nearest(blocks, monitor)
}

/// What [`nearest_motifs`] would run for m blocks and k different motifs of s values.
pub fn plan(m: usize, k: usize, block_size: usize) -> Plan {
    let isa = Isa::best();
    Plan {
        kernel: choice::cheapest(m, k, block_size, isa),
        isa,
    }
}
