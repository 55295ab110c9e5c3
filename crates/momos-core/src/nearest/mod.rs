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
//! | `margin` | what float32 may rule out, and why |
//! | `leader` | the nearest so far, and its rivals |
//! | `brute`, `group_tree` (over `kdtree`) | the kernels |
//! | `cost` | which kernel is expected to be fastest |
//! | `simd` | sixteen lanes for every instruction set |

mod brute;
mod cost;
mod element;
mod group_tree;
mod kdtree;
mod leader;
mod margin;
mod problem;
pub(crate) mod row_set;
mod simd;

use rayon::prelude::*;

pub use cost::{Kernel, Plan};
pub use element::Element;
pub use simd::Isa;

use crate::error::{Error, Result};
use crate::monitor::Monitor;
use problem::Problem;
use row_set::{Equality, RowSet};

/// Blocks looked at to find out whether many are equal.
const SAMPLED_BLOCKS: usize = 1 << 10;

/// Rows put into a hash table between two looks at the monitor.
const ROWS_PER_CHECK: usize = 1 << 14;

/// What to run instead of the cost model's choice; for tests and benchmarks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How to search.
    pub kernel: Option<Kernel>,
    /// With which instructions.
    pub isa: Option<Isa>,
}

/// The index of the nearest motif for every block; see the [module](self) for the contract.
///
/// `blocks` (m, s) and `motifs` (k, s) are row-major, with s = `block_size`. Work is measured in
/// blocks: the monitor advances by m in all.
///
/// # Errors
/// `InvalidArgument` if s is not within 1 to 4096, a length is no multiple of s, there is no
/// motif, or a value is NaN or infinite; `Interrupted` if the monitor was cancelled.
pub fn nearest_motifs<T: Element>(
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
pub fn nearest_motifs_with<T: Element>(
    blocks: &[T],
    motifs: &[T],
    block_size: usize,
    options: Options,
    monitor: &Monitor,
) -> Result<Vec<u32>> {
    let problem = Problem::new(blocks, motifs, block_size)?;
    let isa = checked_isa(options.isa)?;
    let unique = unique_motifs(&problem, monitor)?;
    let m = problem.block_count();
    if let [only] = unique[..] {
        monitor.advance(m as u64);
        return Ok(vec![only; m]);
    }
    let kernel = match options.kernel {
        None => cost::cheapest(m, unique.len(), block_size, isa),
        Some(kernel) if kernel.supports(block_size) => kernel,
        Some(kernel) => {
            return Err(Error::invalid_argument(format!(
                "kernel {} is not made for blocks of {block_size} values",
                kernel.name()
            )));
        }
    };
    if kernel == Kernel::Brute
        && has_many_equal_blocks(&problem)
        && let Some(nearest) = search_distinct(&problem, &unique, kernel, isa, monitor)?
    {
        return Ok(nearest);
    }
    let mut nearest = vec![0; m];
    search(&problem, &unique, kernel, isa, monitor, &mut nearest)?;
    Ok(nearest)
}

/// What [`nearest_motifs`] would run for m blocks and k different motifs of s values.
pub fn plan(m: usize, k: usize, block_size: usize) -> Plan {
    let isa = Isa::best();
    Plan {
        kernel: cost::cheapest(m, k, block_size, isa),
        isa,
    }
}

fn checked_isa(wanted: Option<Isa>) -> Result<Isa> {
    match wanted {
        None => Ok(Isa::best()),
        Some(isa) if isa.is_available() => Ok(isa),
        Some(isa) => Err(Error::invalid_argument(format!(
            "this processor does not have {}",
            isa.name()
        ))),
    }
}

/// Numbers the first `count` rows, or fewer if more than `limit` are different.
fn number_rows<T: Element>(
    set: &mut RowSet,
    rows: &[T],
    count: usize,
    limit: usize,
    monitor: &Monitor,
) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for start in (0..count).step_by(ROWS_PER_CHECK) {
        monitor.check()?;
        let end = (start + ROWS_PER_CHECK).min(count);
        set.insert(rows, start..end, limit, &mut numbers);
        if set.first().len() > limit {
            break;
        }
    }
    Ok(numbers)
}

/// The lowest index of every motif among its equals, ascending.
fn unique_motifs<T: Element>(problem: &Problem<'_, T>, monitor: &Monitor) -> Result<Vec<u32>> {
    let count = problem.motif_count();
    let mut set = RowSet::new(problem.block_size(), Equality::Numbers);
    number_rows(&mut set, problem.motifs(), count, count, monitor)?;
    Ok(set
        .into_first()
        .into_iter()
        .map(|motif| motif as u32)
        .collect())
}

fn search<T: Element>(
    problem: &Problem<'_, T>,
    unique: &[u32],
    kernel: Kernel,
    isa: Isa,
    monitor: &Monitor,
    nearest: &mut [u32],
) -> Result<()> {
    match (kernel, problem.block_size()) {
        (Kernel::GroupTree, 1) => {
            group_tree::search::<T, 1>(problem, unique, isa, monitor, nearest)
        }
        (Kernel::GroupTree, 2) => {
            group_tree::search::<T, 2>(problem, unique, isa, monitor, nearest)
        }
        (Kernel::GroupTree, 3) => {
            group_tree::search::<T, 3>(problem, unique, isa, monitor, nearest)
        }
        (Kernel::GroupTree, 4) => {
            group_tree::search::<T, 4>(problem, unique, isa, monitor, nearest)
        }
        (Kernel::GroupTree, 5) => {
            group_tree::search::<T, 5>(problem, unique, isa, monitor, nearest)
        }
        (Kernel::GroupTree, 6) => {
            group_tree::search::<T, 6>(problem, unique, isa, monitor, nearest)
        }
        (Kernel::GroupTree, 7) => {
            group_tree::search::<T, 7>(problem, unique, isa, monitor, nearest)
        }
        (Kernel::GroupTree, 8) => {
            group_tree::search::<T, 8>(problem, unique, isa, monitor, nearest)
        }
        _ => brute::search(problem, unique, isa, monitor, nearest),
    }
}

/// Whether a sample suggests that searching every distinct block once is worth finding them.
fn has_many_equal_blocks<T: Element>(problem: &Problem<'_, T>) -> bool {
    let m = problem.block_count();
    if m < 4 * SAMPLED_BLOCKS {
        return false;
    }
    let mut set = RowSet::new(problem.block_size(), Equality::Numbers);
    let mut numbers = Vec::new();
    for sample in 0..SAMPLED_BLOCKS {
        // Not evenly spaced: the blocks may be periodic.
        let offset = (sample * 0x9e37_79b9) % (m / SAMPLED_BLOCKS);
        let block = sample * (m / SAMPLED_BLOCKS) + offset;
        set.insert(problem.blocks(), block..block + 1, m, &mut numbers);
    }
    set.first().len() < SAMPLED_BLOCKS * 3 / 4
}

/// Searches every distinct block once, or gives up if there are too many.
fn search_distinct<T: Element>(
    problem: &Problem<'_, T>,
    unique: &[u32],
    kernel: Kernel,
    isa: Isa,
    monitor: &Monitor,
) -> Result<Option<Vec<u32>>> {
    let m = problem.block_count();
    let limit = (m / 4 * 3).min(u32::MAX as usize - 1);
    let mut set = RowSet::new(problem.block_size(), Equality::Numbers);
    let mut numbers = number_rows(&mut set, problem.blocks(), m, limit, monitor)?;
    if set.first().len() > limit {
        return Ok(None);
    }
    let distinct: Vec<T> = set
        .first()
        .iter()
        .flat_map(|&block| problem.block(block).iter().copied())
        .collect();
    // The same largest magnitude, so the same scale and the same decisions.
    let distinct_problem = Problem::new(&distinct, problem.motifs(), problem.block_size())?;
    let mut nearest = vec![0; set.first().len()];
    search(
        &distinct_problem,
        unique,
        kernel,
        isa,
        monitor,
        &mut nearest,
    )?;
    monitor.advance((m - nearest.len()) as u64);
    numbers
        .par_iter_mut()
        .for_each(|number| *number = nearest[*number as usize]);
    Ok(Some(numbers))
}
