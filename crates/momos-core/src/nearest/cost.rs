//! Which kernel is expected to be fastest.

use super::simd::Isa;
use super::{group_tree, narrow};

/// A way to search. All give the same answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// Every block against every motif, in float32.
    Brute,
    /// Every block against every motif of similar norm, in 8-bit integers; blocks of up to 1,024
    /// values.
    Narrow,
    /// Sixteen neighbouring blocks walk a k-d tree together; blocks of up to 8 values.
    GroupTree,
    /// Every block walks a k-d tree on its own, in integers; blocks of up to 8 values.
    BlockTree,
}

impl Kernel {
    /// Every kernel.
    pub const ALL: [Self; 4] = [Self::Brute, Self::Narrow, Self::GroupTree, Self::BlockTree];

    /// Its name in messages and plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brute => "brute",
            Self::Narrow => "narrow",
            Self::GroupTree => "group-tree",
            Self::BlockTree => "block-tree",
        }
    }

    /// Whether it is made for blocks of this size.
    pub fn supports(self, block_size: usize) -> bool {
        match self {
            Self::Brute => true,
            Self::Narrow => block_size <= narrow::MAX_BLOCK_SIZE,
            Self::GroupTree | Self::BlockTree => block_size <= group_tree::MAX_BLOCK_SIZE,
        }
    }

    /// Expected nanoseconds of processor time for `m` blocks and `k` different motifs of
    /// `block_size` values.
    ///
    /// Fitted to gaussian blocks, and at s = 8 to layers of mixed scale, on one core of a Zen 4
    /// processor; only ratios matter.
    pub fn cost(self, m: usize, k: usize, block_size: usize, isa: Isa) -> f64 {
        let (m, k, s) = (m as f64, k as f64, block_size as f64);
        match self {
            Self::Brute => {
                let pair = match isa {
                    Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 => 0.0175 * (s + 2.0),
                    Isa::Portable => 0.048 * (s + 2.0),
                };
                m * (25.0 + 4.0 * s + k * pair) + k * (30.0 + 4.0 * s)
            }
            Self::Narrow => {
                let pair = match isa {
                    Isa::Avx512Vnni => 0.05,
                    Isa::Avx512 | Isa::Avx2 => 0.1,
                    Isa::Portable => 1.0,
                };
                m * (200.0 + 4.0 * s + k * pair) + k * (60.0 + 4.0 * s)
            }
            Self::BlockTree => m * (400.0 + k.sqrt() * 3.0) + k * 200.0,
            Self::GroupTree => {
                // The walk costs `factor * k^power`: the longer the blocks, the less the boxes
                // rule out.
                const WALK: [(f64, f64); 8] = [
                    (10.0, 0.05),
                    (8.0, 0.14),
                    (16.0, 0.18),
                    (30.0, 0.15),
                    (10.0, 0.37),
                    (9.5, 0.45),
                    (5.9, 0.55),
                    (4.5, 0.66),
                ];
                let slower = match isa {
                    Isa::Avx512Vnni | Isa::Avx512 => 1.0,
                    Isa::Avx2 => 1.0 + 0.06 * s,
                    Isa::Portable => 2.6,
                };
                let (factor, power) = WALK[block_size.min(WALK.len()) - 1];
                let levels = k.log2();
                m * (20.0 + slower * factor * k.powf(power)) + k * (30.0 + 12.0 * levels)
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
