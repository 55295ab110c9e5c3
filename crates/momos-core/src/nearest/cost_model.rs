//! What a search by one kernel is expected to take, from constants that were measured.

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
    /// Expected nanoseconds for m blocks of s values and k motifs.
    pub fn cost(&self, m: usize, k: usize, s: usize) -> f64 {
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
    /// Expected nanoseconds for m blocks of s values and k motifs.
    pub fn cost(&self, m: usize, k: usize, s: usize) -> f64 {
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
}
