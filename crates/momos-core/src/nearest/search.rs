//! Motifs made ready to be searched, and what a search runs.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use rayon::prelude::*;

use super::buckets::Sorted;
use super::choice::cheapest;
use super::kernel::{Kernel, Plan, Search};
use super::problem::{MotifSet, Problem};
use super::trial::{Challenger, Chosen, Contest, challenger_of, scattered};
use super::{block_tree, brute, group_tree, narrow};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::row_set::{Equality, RowSet};
use crate::simd::Isa;

/// Blocks looked at to find out whether many are equal.
const SAMPLED_BLOCKS: usize = 1 << 10;

/// Rows put into a hash table between two looks at the monitor.
const ROWS_PER_CHECK: usize = 1 << 14;

/// If more of the motifs have moved, all are searched.
const FEW_MOVED: f64 = 0.5;

/// Blocks per task where only distances are computed.
const BLOCKS_PER_PIECE: usize = 1 << 14;

/// From this block size on, the distance of a block's last motif saves more than it costs.
const LEAST_SIZE_FOR_DISTANCES: usize = 5;

/// What to run instead of the cost model's choice; for tests and benchmarks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How to search.
    pub kernel: Option<Kernel>,
    /// With which instructions.
    pub isa: Option<Isa>,
}

/// What is known of the blocks before they are searched.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// How many there are in all; the cost model's guide.
    pub blocks: usize,
    /// No value has a larger magnitude.
    pub largest: f64,
}

/// Motifs made ready to be searched, any number of times.
pub struct MotifSearch<'a, T: Searchable> {
    motifs: MotifSet<'a, T>,
    isa: Isa,
    prepared: Prepared<T>,
}

enum Prepared<T: Element> {
    /// All motifs are equal to this one; the kernel is what would search different ones.
    Constant(u32, Kernel),
    Kernel(Contest<T>),
}

impl<T: Searchable> fmt::Debug for MotifSearch<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MotifSearch")
            .field("motifs", &self.motifs.len())
            .field("block_size", &self.motifs.block_size())
            .field("plan", &self.plan())
            .finish_non_exhaustive()
    }
}

impl<'a, T: Searchable> MotifSearch<'a, T> {
    /// Prepares motifs (k, s), row-major with s = `block_size`.
    ///
    /// # Errors
    /// `InvalidArgument` if s is not within 1 to 4096, the length is not a multiple of s, there is
    /// no motif, a value is NaN or infinite, the kernel is not made for the block size or the
    /// processor lacks the instructions; `Interrupted` if the monitor was cancelled.
    pub fn new(
        motifs: impl Into<Cow<'a, [T]>>,
        block_size: usize,
        expected: Expected,
        options: Options,
        monitor: &Monitor,
    ) -> Result<Self> {
        let motifs = MotifSet::new(motifs.into(), block_size, expected.largest)?;
        let candidates = different_motifs(&motifs, monitor)?;
        Self::of_candidates(motifs, &candidates, expected.blocks, options, monitor)
    }

    /// Prepares the motifs from number `first` on, to be compared with what is known to be the
    /// nearest of those before them, by [`nearest_with_added`](Self::nearest_with_added).
    ///
    /// # Errors
    /// As [`new`](Self::new); also `InvalidArgument` if `first` is no motif's number.
    pub fn of_added(
        motifs: impl Into<Cow<'a, [T]>>,
        block_size: usize,
        first: usize,
        expected: Expected,
        options: Options,
        monitor: &Monitor,
    ) -> Result<Self> {
        let motifs = MotifSet::new(motifs.into(), block_size, expected.largest)?;
        if first >= motifs.len() {
            return Err(Error::invalid_argument(format!(
                "motifs from number {first} on are none of {}",
                motifs.len()
            )));
        }
        let mut candidates = different_motifs(&motifs, monitor)?;
        candidates.retain(|&motif| motif as usize >= first);
        if candidates.is_empty() {
            // All equal earlier ones, and lose against them.
            candidates.push(first as u32);
        }
        Self::of_candidates(motifs, &candidates, expected.blocks, options, monitor)
    }

    fn of_candidates(
        motifs: MotifSet<'a, T>,
        candidates: &[u32],
        blocks: usize,
        options: Options,
        monitor: &Monitor,
    ) -> Result<Self> {
        let isa = checked_isa(options.isa)?;
        let block_size = motifs.block_size();
        let k = candidates.len();
        let mut challenger = None;
        let kernel = match options.kernel {
            None => {
                let kernel = cheapest(blocks, k, block_size, isa);
                challenger = challenger_of(kernel, blocks, k, block_size, isa);
                kernel
            }
            Some(kernel) if kernel.supports(block_size) => kernel,
            Some(kernel) => {
                return Err(Error::invalid_argument(format!(
                    "kernel {} is not made for blocks of {block_size} values",
                    kernel.name()
                )));
            }
        };
        let prepared = match candidates {
            [only] => Prepared::Constant(*only, kernel),
            _ => Prepared::Kernel(Contest::new(
                Chosen {
                    kernel,
                    search: T::prepare(kernel, &motifs, candidates, isa, monitor)?,
                },
                challenger.map(|kernel| Challenger {
                    kernel,
                    candidates: candidates.to_vec(),
                }),
            )),
        };
        Ok(Self {
            motifs,
            isa,
            prepared,
        })
    }

    /// What a search runs: the cost model's choice, or what was found to be faster on a sample of
    /// the first blocks that were searched.
    pub fn plan(&self) -> Plan {
        let kernel = match &self.prepared {
            Prepared::Constant(_, kernel) => *kernel,
            Prepared::Kernel(contest) => contest.chosen().kernel,
        };
        Plan {
            kernel,
            isa: self.isa,
        }
    }

    /// Values per motif.
    pub fn block_size(&self) -> usize {
        self.motifs.block_size()
    }

    /// Number of motifs.
    pub fn motif_count(&self) -> usize {
        self.motifs.len()
    }

    /// The index of the nearest motif for every block; see the [module](super) for the contract.
    ///
    /// `blocks` (m, s) are row-major. The monitor advances by m in all.
    ///
    /// # Errors
    /// `InvalidArgument` if the length is not a multiple of s, or a value is NaN, infinite or larger
    /// than was announced; `Interrupted` if the monitor was cancelled.
    pub fn nearest(&self, blocks: &[T], monitor: &Monitor) -> Result<Vec<u32>> {
        let problem = Problem::new(blocks, &self.motifs)?;
        let mut nearest = vec![0; problem.block_count()];
        self.find(&problem, monitor, &mut nearest)?;
        Ok(nearest)
    }

    /// As [`nearest`](Self::nearest), but a block whose motif has not moved is compared only with
    /// motifs that have.
    ///
    /// `previous` (m) are the nearest motifs before some of them moved, those with `moved` (k) set.
    ///
    /// # Errors
    /// As [`nearest`](Self::nearest); also `InvalidArgument` if the lengths differ or a previous
    /// index is out of range.
    pub fn nearest_again(
        &self,
        blocks: &[T],
        previous: &[u32],
        moved: &[bool],
        monitor: &Monitor,
    ) -> Result<Vec<u32>> {
        let problem = Problem::new(blocks, &self.motifs)?;
        self.check_previous(&problem, previous, moved)?;
        let moved_motifs: Vec<u32> = (0..moved.len() as u32)
            .filter(|&motif| moved[motif as usize])
            .collect();
        if moved_motifs.is_empty() {
            monitor.advance(previous.len() as u64);
            return Ok(previous.to_vec());
        }
        if moved_motifs.len() as f64 > FEW_MOVED * moved.len() as f64 {
            let mut nearest = vec![0; previous.len()];
            if problem.block_size() < LEAST_SIZE_FOR_DISTANCES {
                self.find(&problem, monitor, &mut nearest)?;
            } else {
                let distances: Vec<f32> = previous
                    .par_iter()
                    .enumerate()
                    .map(|(block, &motif)| problem.float_distance(block, motif))
                    .collect();
                self.find(&problem.with_distances(&distances), monitor, &mut nearest)?;
            }
            return Ok(nearest);
        }
        let (stayed, left): (Vec<usize>, Vec<usize>) =
            (0..previous.len()).partition(|&block| !moved[previous[block] as usize]);
        let mut nearest = previous.to_vec();

        let mut found = vec![0; left.len()];
        let rows = rows_of(&problem, &left);
        self.find(&problem.with_blocks(&rows), monitor, &mut found)?;
        for (block, motif) in left.into_iter().zip(found) {
            nearest[block] = motif;
        }

        let rows = rows_of(&problem, &stayed);
        let some = Self::of_candidates(
            self.motifs.clone(),
            &moved_motifs,
            stayed.len(),
            Options {
                kernel: None,
                isa: Some(self.isa),
            },
            monitor,
        )?;
        let mut found = vec![0; stayed.len()];
        some.find(&problem.with_blocks(&rows), monitor, &mut found)?;
        for (block, motif) in stayed.into_iter().zip(found) {
            let rival = (problem.distance(block, motif), motif);
            let old = nearest[block];
            if rival < (problem.distance(block, old), old) {
                nearest[block] = motif;
            }
        }
        Ok(nearest)
    }

    /// The index of the nearest motif for every block, and the squared distance that decided,
    /// which is scaled by a power of two that depends on the largest magnitude alone.
    ///
    /// `previous` (m) are the nearest of the motifs before those this search was prepared for by
    /// [`of_added`](Self::of_added); none if there are no others.
    ///
    /// # Errors
    /// As [`nearest`](Self::nearest); also `InvalidArgument` if the lengths differ or a previous
    /// index is out of range.
    pub fn nearest_with_added(
        &self,
        blocks: &[T],
        previous: Option<&[u32]>,
        monitor: &Monitor,
    ) -> Result<(Vec<u32>, Vec<f64>)> {
        let problem = Problem::new(blocks, &self.motifs)?;
        let mut nearest = vec![0; problem.block_count()];
        let Some(previous) = previous else {
            self.find(&problem, monitor, &mut nearest)?;
            let distances = distances_of(&problem, &nearest);
            return Ok((nearest, distances));
        };
        self.check_indices(&problem, previous)?;
        let known: Vec<f32> = previous
            .par_iter()
            .with_min_len(BLOCKS_PER_PIECE)
            .enumerate()
            .map(|(block, &motif)| problem.float_distance(block, motif))
            .collect();
        self.find(&problem.with_distances(&known), monitor, &mut nearest)?;
        drop(known);
        let mut distances = distances_of(&problem, previous);
        nearest
            .par_iter_mut()
            .with_min_len(BLOCKS_PER_PIECE)
            .zip(&mut distances)
            .enumerate()
            .for_each(|(block, (nearest, distance))| {
                // There is none if all are farther than what is known.
                let added = match *nearest {
                    u32::MAX => f64::INFINITY,
                    motif => problem.distance(block, motif),
                };
                if (added, *nearest) < (*distance, previous[block]) {
                    *distance = added;
                } else {
                    *nearest = previous[block];
                }
            });
        Ok((nearest, distances))
    }

    /// Squared distances of blocks (m, s) to the motifs of the given indices (m), scaled as those
    /// of [`nearest_with_added`](Self::nearest_with_added).
    ///
    /// # Errors
    /// As [`nearest`](Self::nearest); also `InvalidArgument` if the lengths differ or an index is
    /// out of range.
    pub fn distances(&self, blocks: &[T], indices: &[u32]) -> Result<Vec<f64>> {
        let problem = Problem::new(blocks, &self.motifs)?;
        self.check_indices(&problem, indices)?;
        Ok(distances_of(&problem, indices))
    }

    fn check_indices(&self, problem: &Problem<'_, T>, indices: &[u32]) -> Result<()> {
        let (m, k) = (problem.block_count(), self.motifs.len());
        if indices.len() != m || indices.iter().any(|&motif| motif as usize >= k) {
            return Err(Error::invalid_argument(format!(
                "{m} blocks need as many indices below {k}"
            )));
        }
        Ok(())
    }

    fn check_previous(
        &self,
        problem: &Problem<'_, T>,
        previous: &[u32],
        moved: &[bool],
    ) -> Result<()> {
        let (m, k) = (problem.block_count(), self.motifs.len());
        if previous.len() != m || moved.len() != k {
            return Err(Error::invalid_argument(format!(
                "{m} blocks and {k} motifs need as many previous indices and marks of what moved, \
                 not {} and {}",
                previous.len(),
                moved.len()
            )));
        }
        match previous.iter().find(|&&motif| motif as usize >= k) {
            Some(motif) => Err(Error::invalid_argument(format!(
                "the previous index {motif} is none of {k} motifs"
            ))),
            None => Ok(()),
        }
    }

    fn find(&self, problem: &Problem<'_, T>, monitor: &Monitor, nearest: &mut [u32]) -> Result<()> {
        match &self.prepared {
            Prepared::Constant(only, _) => {
                monitor.advance(nearest.len() as u64);
                nearest.fill(*only);
                Ok(())
            }
            Prepared::Kernel(contest) => {
                contest.decide(problem, self.isa, monitor, |challenger| {
                    let Challenger { kernel, candidates } = challenger;
                    T::prepare(*kernel, &self.motifs, candidates, self.isa, monitor)
                })?;
                let Chosen { kernel, search } = contest.chosen();
                if matches!(kernel, Kernel::Brute | Kernel::Narrow)
                    && has_many_equal_blocks(problem)
                    && self.find_distinct(search.as_ref(), problem, monitor, nearest)?
                {
                    return Ok(());
                }
                search.search(problem, self.isa, monitor, nearest)
            }
        }
    }

    /// Searches every distinct block once, or gives up if there are too many.
    fn find_distinct(
        &self,
        kernel: &dyn Search<T>,
        problem: &Problem<'_, T>,
        monitor: &Monitor,
        nearest: &mut [u32],
    ) -> Result<bool> {
        let m = problem.block_count();
        let limit = (m / 4 * 3).min(u32::MAX as usize - 1);
        let mut set = RowSet::new(problem.block_size(), Equality::Numbers);
        let numbers = number_rows(&mut set, problem.blocks(), m, limit, monitor)?;
        if set.first().len() > limit {
            return Ok(false);
        }
        let distinct = rows_of(problem, set.first());
        let mut found = vec![0; set.first().len()];
        let smaller = problem.with_blocks(&distinct);
        kernel.search(&smaller, self.isa, monitor, &mut found)?;
        monitor.advance((m - found.len()) as u64);
        nearest
            .par_iter_mut()
            .zip(numbers)
            .for_each(|(nearest, number)| *nearest = found[number as usize]);
        Ok(true)
    }
}

/// An element type whose kernels are compiled in this crate, once: a caller's crate, a test or a
/// benchmark links them instead of compiling every block size for every instruction set again.
pub trait Searchable: Element {
    /// Makes motifs ready for a kernel.
    ///
    /// # Errors
    ///
    /// If the work is interrupted.
    #[doc(hidden)]
    fn prepare(
        kernel: Kernel,
        motifs: &MotifSet<'_, Self>,
        candidates: &[u32],
        isa: Isa,
        monitor: &Monitor,
    ) -> Result<Arc<dyn Search<Self>>>;
}

macro_rules! searchable {
    ($float:ty) => {
        impl Searchable for $float {
            fn prepare(
                kernel: Kernel,
                motifs: &MotifSet<'_, Self>,
                candidates: &[u32],
                isa: Isa,
                monitor: &Monitor,
            ) -> Result<Arc<dyn Search<Self>>> {
                prepare(kernel, motifs, candidates, isa, monitor)
            }
        }
    };
}

searchable!(f32);
searchable!(f64);

/// Squared distances of the blocks to the motifs of the given indices, in float64.
fn distances_of<T: Element>(problem: &Problem<'_, T>, indices: &[u32]) -> Vec<f64> {
    let blocks = indices.par_iter().with_min_len(BLOCKS_PER_PIECE);
    let distances = blocks.enumerate();
    distances
        .map(|(block, &motif)| problem.distance(block, motif))
        .collect()
}

fn prepare<T: Element>(
    kernel: Kernel,
    motifs: &MotifSet<'_, T>,
    candidates: &[u32],
    isa: Isa,
    monitor: &Monitor,
) -> Result<Arc<dyn Search<T>>> {
    macro_rules! tree {
        ($tree:ident, $size:literal $(, $isa:expr)?) => {{
            let tree = $tree::Tree::<$size>::build(motifs, candidates $(, $isa)?, monitor)?;
            Ok(Arc::new(Sorted(tree)))
        }};
    }
    match (kernel, motifs.block_size()) {
        (Kernel::GroupTree, 1) => tree!(group_tree, 1),
        (Kernel::GroupTree, 2) => tree!(group_tree, 2),
        (Kernel::GroupTree, 3) => tree!(group_tree, 3),
        (Kernel::GroupTree, 4) => tree!(group_tree, 4),
        (Kernel::GroupTree, 5) => tree!(group_tree, 5),
        (Kernel::GroupTree, 6) => tree!(group_tree, 6),
        (Kernel::GroupTree, 7) => tree!(group_tree, 7),
        (Kernel::GroupTree, 8) => tree!(group_tree, 8),
        (Kernel::BlockTree, 4) => tree!(block_tree, 4, isa),
        (Kernel::BlockTree, 5) => tree!(block_tree, 5, isa),
        (Kernel::BlockTree, 6) => tree!(block_tree, 6, isa),
        (Kernel::BlockTree, 7) => tree!(block_tree, 7, isa),
        (Kernel::BlockTree, 8) => tree!(block_tree, 8, isa),
        (Kernel::Narrow, _) => Ok(Arc::new(narrow::Motifs::pack(motifs, candidates))),
        _ => Ok(Arc::new(brute::Motifs::pack(motifs, candidates))),
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

fn rows_of<T: Element>(problem: &Problem<'_, T>, blocks: &[usize]) -> Vec<T> {
    let mut rows = Vec::with_capacity(blocks.len() * problem.block_size());
    for &block in blocks {
        rows.extend_from_slice(problem.block(block));
    }
    rows
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
fn different_motifs<T: Element>(motifs: &MotifSet<'_, T>, monitor: &Monitor) -> Result<Vec<u32>> {
    let (values, size) = (motifs.values(), motifs.block_size());
    // Equal motifs are in the same share, so shares need not know of each other.
    let shares: Vec<u8> = values
        .par_chunks_exact(size)
        .map(|motif| RowSet::share_of(motif, Equality::Numbers))
        .collect();
    let mut motifs_of_share = vec![Vec::new(); RowSet::SHARES];
    for (motif, &share) in shares.iter().enumerate() {
        motifs_of_share[share as usize].push(motif);
    }
    let firsts = motifs_of_share
        .into_par_iter()
        .map(|motifs| {
            let mut set = RowSet::new(size, Equality::Numbers);
            let mut numbers = Vec::new();
            for some in motifs.chunks(ROWS_PER_CHECK) {
                monitor.check()?;
                for &motif in some {
                    set.insert(values, motif..motif + 1, motifs.len(), &mut numbers);
                }
            }
            Ok(set.into_first())
        })
        .collect::<Result<Vec<_>>>()?;
    let mut is_first = vec![false; shares.len()];
    for motif in firsts.into_iter().flatten() {
        is_first[motif] = true;
    }
    Ok((0..shares.len() as u32)
        .filter(|&motif| is_first[motif as usize])
        .collect())
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
        let block = scattered(sample, SAMPLED_BLOCKS, m);
        set.insert(problem.blocks(), block..block + 1, m, &mut numbers);
    }
    set.first().len() < SAMPLED_BLOCKS * 3 / 4
}
