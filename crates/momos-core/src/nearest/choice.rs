//! Which kernel is expected to be fastest.

use super::kernel::Kernel;
use super::{block_tree, cost_table, group_tree, narrow};
use crate::simd::Isa;

impl Kernel {
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
        match self {
            Self::Brute => costs.brute.cost(m, k, block_size),
            Self::Narrow => costs.narrow.cost(m, k, block_size),
            Self::GroupTree => costs.group_tree.cost(m, k, block_size),
            Self::BlockTree => costs.block_tree.cost(m, k, block_size),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_blocks_motifs_and_values_cost_more() {
        for kernel in Kernel::ALL {
            for isa in [Isa::Avx512Vnni, Isa::Avx512, Isa::Avx2, Isa::Portable] {
                let cost = |m, k, s| kernel.cost(m, k, s, isa);
                assert!(cost(10_000, 1000, 4) < cost(20_000, 1000, 4));
                for s in 4..8 {
                    assert!(cost(1_000_000, 1000, s) < cost(1_000_000, 100_000, s));
                    assert!(cost(1_000_000, 10_000_000, s) < cost(1_000_000, 10_000_000, s + 4));
                }
            }
        }
    }
}
