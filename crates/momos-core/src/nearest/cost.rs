//! Which kernel is expected to be fastest.

use super::simd::Isa;
use super::{block_tree, cost_table, group_tree, narrow};

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
    /// Every block walks a k-d tree on its own, in integers; blocks of 4 to 8 values.
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
            Self::GroupTree => block_size <= group_tree::MAX_BLOCK_SIZE,
            Self::BlockTree => block_tree::BLOCK_SIZES.contains(&block_size),
        }
    }

    /// Expected nanoseconds of processor time for `m` blocks and `k` different motifs of
    /// `block_size` values, which the kernel must support; only ratios matter.
    pub fn cost(self, m: usize, k: usize, block_size: usize, isa: Isa) -> f64 {
        let costs = match isa {
            Isa::Avx512Vnni => &cost_table::AVX512_VNNI,
            Isa::Avx512 => &cost_table::AVX512,
            // Registers are half as long, but there are twice as many.
            Isa::Avx2 | Isa::NeonDot => &cost_table::AVX2,
            Isa::Neon | Isa::Portable => &cost_table::PORTABLE,
        };
        let walk = |walks: &[Walk], shortest: usize| {
            let place = block_size.saturating_sub(shortest).min(walks.len() - 1);
            walks[place].cost(m, k)
        };
        match self {
            Self::Brute => costs.brute.cost(m, k, block_size),
            // Whole words of four values.
            Self::Narrow => costs.narrow.cost(m, k, block_size.next_multiple_of(4)),
            Self::GroupTree => walk(&costs.group_tree, 1),
            Self::BlockTree => walk(&costs.block_tree, *block_tree::BLOCK_SIZES.start()),
        }
    }
}

/// The constants of an instruction set, fitted to the geometric mean of what gaussian blocks and
/// layers of mixed scale take.
#[derive(Debug)]
pub struct Costs {
    pub brute: Linear,
    pub narrow: Linear,
    /// By block size.
    pub group_tree: [Walk; group_tree::MAX_BLOCK_SIZE],
    pub block_tree: [Walk; 5],
}

/// Every block is compared with every motif.
#[derive(Debug)]
pub struct Linear {
    pub block: f64,
    pub value: f64,
    pub pair: f64,
    pub product: f64,
    pub motif: f64,
    pub coordinate: f64,
}

impl Linear {
    fn cost(&self, m: usize, k: usize, s: usize) -> f64 {
        let (m, k, s) = (m as f64, k as f64, s as f64);
        m * (self.block + self.value * s + k * (self.pair + self.product * s))
            + k * (self.motif + self.coordinate * s)
    }
}

/// Blocks walk a tree; the longer they are, the less its boxes rule out.
#[derive(Debug)]
pub struct Walk {
    pub block: f64,
    pub factor: f64,
    pub power: f64,
    pub motif: f64,
}

impl Walk {
    fn cost(&self, m: usize, k: usize) -> f64 {
        let (m, k) = (m as f64, k as f64);
        m * (self.block + self.factor * k.powf(self.power)) + k * self.motif * k.log2()
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
