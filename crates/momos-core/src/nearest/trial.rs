//! Trying two kernels on a sample of the blocks.
//!
//! What `narrow` and `block-tree` take depends on the data as much as on its size: norms rule out
//! most motifs where layers have different scales, and few where all have one. So where either
//! may be faster, both search a few blocks of a large problem, and the faster one searches all. So do
//! `narrow` and `brute` where they are close: which is faster is up to the processor. Answers do not
//! depend on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use super::kernel::{Kernel, Search};
use super::problem::Problem;
use crate::element::Element;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::Isa;

/// Blocks that are searched.
const SAMPLE_LEN: usize = 1 << 12;
/// How often by each kernel; the fastest counts.
const RUNS: usize = 2;
/// Most that a trial may be expected to take, as a share of the search.
const MOST_COST: f64 = 1.0 / 32.0;
/// By how much what the cost model says of `brute` beside `narrow` may be off: processors differ by
/// 2.2 in that.
const MOST_DIFFERENCE: f64 = 3.0;
/// How much longer a tree takes for a block of a sample than for one among all, which share more
/// of their way with the one before: 1.1 to 1.5 was measured.
const TREE_IN_SAMPLE: f64 = 1.3;

/// The kernel that searches, until a trial shows that another is faster.
pub struct Contest<T: Element> {
    chosen: RwLock<Chosen<T>>,
    challenger: Mutex<Option<Challenger>>,
}

/// A kernel, and motifs laid out for it.
pub struct Chosen<T: Element> {
    pub kernel: Kernel,
    pub search: Arc<dyn Search<T>>,
}

impl<T: Element> Clone for Chosen<T> {
    fn clone(&self) -> Self {
        Self {
            kernel: self.kernel,
            search: Arc::clone(&self.search),
        }
    }
}

/// A kernel that may be faster.
pub struct Challenger {
    pub kernel: Kernel,
    /// The motifs to lay out for it.
    pub candidates: Vec<u32>,
}

impl<T: Element> Contest<T> {
    pub fn new(chosen: Chosen<T>, challenger: Option<Challenger>) -> Self {
        Self {
            chosen: RwLock::new(chosen),
            challenger: Mutex::new(challenger),
        }
    }

    /// What to search with.
    pub fn chosen(&self) -> Chosen<T> {
        let chosen = self.chosen.read();
        chosen.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Holds the trial, if there is one to be held and these blocks are enough for it.
    ///
    /// `prepare` lays out the motifs for the challenger.
    ///
    /// # Errors
    /// `Interrupted`, if cancelled.
    pub fn decide(
        &self,
        problem: &Problem<'_, T>,
        isa: Isa,
        monitor: &Monitor,
        prepare: impl FnOnce(&Challenger) -> Result<Arc<dyn Search<T>>>,
    ) -> Result<()> {
        let m = problem.block_count();
        if m < SAMPLE_LEN {
            return Ok(());
        }
        let Some(challenger) = self.challenger().take() else {
            return Ok(());
        };
        let rows: Vec<T> = (0..SAMPLE_LEN)
            .flat_map(|number| problem.block(scattered(number, SAMPLE_LEN, m)))
            .copied()
            .collect();
        let sample = problem.with_blocks(&rows);
        let rivals = [
            self.chosen(),
            Chosen {
                kernel: challenger.kernel,
                search: prepare(&challenger)?,
            },
        ];
        let mut seconds = [f64::INFINITY; 2];
        let mut found = vec![0; SAMPLE_LEN];
        for _ in 0..RUNS {
            for (seconds, rival) in seconds.iter_mut().zip(&rivals) {
                monitor.check()?;
                let start = Instant::now();
                rival
                    .search
                    .search(&sample, isa, &Monitor::new(), &mut found)?;
                *seconds = seconds.min(start.elapsed().as_secs_f64());
            }
        }
        let expected = |rival: usize| seconds[rival] / slowed_by_sampling(rivals[rival].kernel);
        if expected(1) < expected(0) {
            let [_, winner] = rivals;
            let mut chosen = self.chosen.write().unwrap_or_else(PoisonError::into_inner);
            *chosen = winner;
        }
        Ok(())
    }

    fn challenger(&self) -> MutexGuard<'_, Option<Challenger>> {
        self.challenger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kernel worth trying beside the one that is expected to be fastest, for m blocks among k
/// different motifs.
pub fn challenger_of(
    kernel: Kernel,
    m: usize,
    k: usize,
    block_size: usize,
    isa: Isa,
) -> Option<Kernel> {
    let cost = |kernel: Kernel, blocks: usize| kernel.cost(blocks, k, block_size, isa);
    // A sample does not measure a group tree, whose groups are narrower the more blocks there are.
    let others: &[Kernel] = match kernel {
        Kernel::Brute => &[Kernel::Narrow],
        Kernel::Narrow => &[Kernel::Brute, Kernel::BlockTree],
        Kernel::BlockTree => &[Kernel::Narrow],
        Kernel::GroupTree => &[],
    };
    let other = others
        .iter()
        .copied()
        .filter(|other| other.supports(block_size))
        .filter(|&other| {
            let depends_on_data = kernel != Kernel::Brute && other != Kernel::Brute;
            depends_on_data || cost(other, m) <= MOST_DIFFERENCE * cost(kernel, m)
        })
        .min_by(|&a, &b| cost(a, m).total_cmp(&cost(b, m)))?;
    let tried = RUNS * SAMPLE_LEN;
    // The motifs are laid out for the one in any case.
    let trial = cost(kernel, tried) - cost(kernel, 0) + cost(other, tried);
    (trial <= MOST_COST * cost(kernel, m)).then_some(other)
}

/// One of `count` places in `0..m`, all over it but not evenly spaced: the blocks may be periodic.
pub fn scattered(number: usize, count: usize, m: usize) -> usize {
    let space = m / count;
    number * space + number.wrapping_mul(0x9e37_79b9) % space
}

fn slowed_by_sampling(kernel: Kernel) -> f64 {
    match kernel {
        Kernel::BlockTree => TREE_IN_SAMPLE,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;
    use crate::nearest::problem::MotifSet;

    /// Takes its time and finds nothing.
    struct Taking(Duration);

    impl Search<f32> for Taking {
        fn search(&self, _: &Problem<'_, f32>, _: Isa, _: &Monitor, _: &mut [u32]) -> Result<()> {
            sleep(self.0);
            Ok(())
        }
    }

    /// The kernel chosen after a trial, and after another of the same contest.
    fn winners(tree: u64, narrow: u64, blocks: usize) -> [Kernel; 2] {
        let motifs = MotifSet::new(Cow::from(vec![0.0f32; 8]), 8, 1.0).unwrap();
        let values = vec![1.0f32; 8 * blocks];
        let problem = Problem::new(&values, &motifs).unwrap();
        let after = |milliseconds| -> Arc<dyn Search<f32>> {
            Arc::new(Taking(Duration::from_millis(milliseconds)))
        };
        let chosen = Chosen {
            kernel: Kernel::BlockTree,
            search: after(tree),
        };
        let challenger = Challenger {
            kernel: Kernel::Narrow,
            candidates: vec![0],
        };
        let contest = Contest::new(chosen, Some(challenger));
        [narrow, 0].map(|narrow| {
            let prepare = |_: &Challenger| Ok(after(narrow));
            let monitor = Monitor::new();
            contest
                .decide(&problem, Isa::Portable, &monitor, prepare)
                .unwrap();
            assert_eq!(monitor.done(), 0);
            contest.chosen().kernel
        })
    }

    #[test]
    fn the_faster_kernel_wins_and_the_trial_is_held_once() {
        let (narrow, tree) = (Kernel::Narrow, Kernel::BlockTree);
        assert_eq!(winners(40, 2, SAMPLE_LEN), [narrow; 2]);
        assert_eq!(winners(2, 40, SAMPLE_LEN), [tree; 2]);
        // Too few blocks for the first search: the trial is held with more.
        assert_eq!(winners(2, 0, SAMPLE_LEN - 1), [tree; 2]);
    }

    #[test]
    fn what_pays_is_tried() {
        let isa = Isa::Avx512Vnni;
        let of = |kernel, m, k, s| challenger_of(kernel, m, k, s, isa);
        let (narrow, tree) = (Kernel::Narrow, Kernel::BlockTree);
        assert_eq!(of(tree, 1_350_000, 67_500, 8), Some(narrow));
        assert_eq!(of(narrow, 4_000_000, 20_000, 8), Some(tree));
        assert_eq!(of(tree, 100_000, 67_500, 8), None);
        assert_eq!(of(narrow, 10_000_000, 20_000, 16), None);
        assert_eq!(of(Kernel::GroupTree, 10_000_000, 67_500, 4), None);
        // Few motifs, for which brute force may be faster.
        for s in [8, 16, 64] {
            assert_eq!(of(narrow, 10_000_000, 512, s), Some(Kernel::Brute));
            assert_eq!(of(Kernel::Brute, 10_000_000, 512, s), Some(narrow));
            assert_eq!(of(Kernel::Brute, 100_000, 512, s), None);
        }
        assert_eq!(of(narrow, 10_000_000, 67_500, 16), None);
    }

    #[test]
    fn places_are_all_over() {
        for (count, m) in [(10, 10), (10, 19), (4096, 1_000_003)] {
            let places: Vec<usize> = (0..count).map(|n| scattered(n, count, m)).collect();
            assert!(places.is_sorted_by(|a, b| a < b));
            assert!(places[0] < m / count && places[count - 1] < m);
            assert!(places[count - 1] >= (count - 1) * (m / count));
        }
    }
}
