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
        match self {
            Self::Brute => costs.brute.cost(m, k, block_size),
            Self::Narrow => costs.narrow.cost(m, k, block_size),
            Self::GroupTree => costs.group_tree.cost(m, k, block_size),
            Self::BlockTree => costs.block_tree.cost(m, k, block_size),
        }
    }
}

/// The constants of an instruction set: the geometric means of what gaussian blocks and layers of
/// mixed scale take.
#[derive(Debug)]
pub struct Costs {
    pub brute: Linear,
    pub narrow: Grid<7>,
    pub group_tree: Grid<8>,
    pub block_tree: Grid<5>,
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

/// Numbers of motifs of the columns of a [`Grid`].
pub const COUNTS: [usize; 4] = [32, 512, 8192, 131_072];

/// What was measured, and between and beyond it straight lines through the logarithms.
#[derive(Debug)]
pub struct Grid<const SIZES: usize> {
    /// Block sizes of the rows.
    pub sizes: [usize; SIZES],
    /// For a block, by number of motifs.
    pub block: [[f64; COUNTS.len()]; SIZES],
    /// For a motif, times the logarithm to base 2 of their number.
    pub motif: [f64; SIZES],
}

impl<const SIZES: usize> Grid<SIZES> {
    fn cost(&self, m: usize, k: usize, s: usize) -> f64 {
        let (below, share) = between(&self.sizes, s);
        let mix = |value: &dyn Fn(usize) -> f64| {
            interpolate(value(below).ln(), value(below + 1).ln(), share).exp()
        };
        let (column, along) = between(&COUNTS, k);
        let block = mix(&|row| {
            let costs = &self.block[row];
            interpolate(costs[column].ln(), costs[column + 1].ln(), along).exp()
        });
        let motif = mix(&|row| self.motif[row]);
        m as f64 * block + k as f64 * motif * (k as f64).log2()
    }
}

/// The place before a value among ascending ones, but not the last one, and how far it is from
/// there to the next, on a logarithmic scale; below 0 or above 1 beyond the ends.
fn between(places: &[usize], value: usize) -> (usize, f64) {
    let above = places.partition_point(|&place| place <= value);
    let below = above.clamp(1, places.len() - 1) - 1;
    let logarithm = |value: usize| (value as f64).ln();
    let (low, high) = (logarithm(places[below]), logarithm(places[below + 1]));
    (below, (logarithm(value) - low) / (high - low))
}

fn interpolate(low: f64, high: f64, share: f64) -> f64 {
    low + (high - low) * share
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_gives_what_was_measured_and_lines_between() {
        let row = [100.0, 200.0, 400.0, 800.0];
        let grid = Grid::<2> {
            sizes: [4, 16],
            block: [row, row.map(|cost| 9.0 * cost)],
            motif: [1.0, 1.0],
        };
        let per_block = |k: usize, s: usize| {
            let (one, two) = (grid.cost(1, k, s), grid.cost(2, k, s));
            two - one
        };
        let is = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-9);
        is(per_block(32, 4), 100.0);
        is(per_block(131_072, 16), 7200.0);
        is(per_block(128, 4), 100.0 * 2f64.sqrt());
        is(per_block(32, 8), 300.0);
        is(per_block(2, 4), 50.0);
        is(per_block(131_072 * 16, 64), 9.0 * 9.0 * 1600.0);
        is(grid.cost(0, 8, 4), 24.0);
    }

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
