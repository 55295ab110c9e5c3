//! Which kernel is expected to be fastest.

use super::group_tree;
use super::simd::Isa;

/// A way to search. All give the same answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// Every block against every motif.
    Brute,
    /// Sixteen neighbouring blocks walk a k-d tree together; blocks of up to 8 values.
    GroupTree,
}

impl Kernel {
    /// Every kernel.
    pub const ALL: [Self; 2] = [Self::Brute, Self::GroupTree];

    /// Its name in messages and plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brute => "brute",
            Self::GroupTree => "group-tree",
        }
    }

    /// Whether it is made for blocks of this size.
    pub fn supports(self, block_size: usize) -> bool {
        match self {
            Self::Brute => true,
            Self::GroupTree => block_size <= group_tree::MAX_BLOCK_SIZE,
        }
    }

    /// Expected nanoseconds of processor time for `m` blocks and `k` different motifs of
    /// `block_size` values.
    ///
    /// The figures are fitted to a processor of 2023 at 3.7 GHz; only their ratios matter.
    pub fn cost(self, m: usize, k: usize, block_size: usize, isa: Isa) -> f64 {
        let (m, k, s) = (m as f64, k as f64, block_size as f64);
        match self {
            Self::Brute => {
                let pair = match isa {
                    Isa::Avx512 => 0.018,
                    Isa::Avx2 => 0.025,
                    Isa::Portable => 0.1,
                };
                m * (10.0 + 4.0 * s + k * (s + 2.0) * pair) + k * s * 4.0
            }
            Self::GroupTree => {
                let slower = match isa {
                    Isa::Avx512 => 1.0,
                    Isa::Avx2 => 1.5,
                    Isa::Portable => 4.0,
                };
                let levels = (k / 12.0).max(1.0).log2();
                let walk = [6.0, 8.0, 20.0, 45.0, 110.0, 250.0, 550.0, 1200.0];
                let walk = walk[(block_size - 1).min(7)];
                m * slower * (10.0 + 2.0 * levels + walk * (1.0 + 0.15 * levels))
                    + k * 12.0 * levels
            }
        }
    }
}

/// What a search will run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How it searches.
    pub kernel: Kernel,
    /// With which instructions.
    pub isa: Isa,
}

/// The kernel with the lowest expected cost.
pub fn cheapest(m: usize, k: usize, block_size: usize, isa: Isa) -> Kernel {
    Kernel::ALL
        .into_iter()
        .filter(|kernel| kernel.supports(block_size))
        .min_by(|a, b| {
            let cost = |kernel: &Kernel| kernel.cost(m, k, block_size, isa);
            cost(a).total_cmp(&cost(b))
        })
        .unwrap_or(Kernel::Brute)
}
