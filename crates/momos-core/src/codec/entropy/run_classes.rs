//! Runs of symbols sorted into classes, each of which has symbols of a distribution of its own.
//!
//! Lloyd's method, with the bits that a run takes by the distribution of a class as the distance.
//! Everything is integers, or made of basic operations, so the choice is the same everywhere.

use std::sync::LazyLock;

use super::model::ln;

/// Most classes that are tried.
const MOST_CLASSES: usize = 8;
/// Rounds of assigning runs.
const ROUNDS: usize = 3;
/// Runs that decide where the classes are; more are only assigned.
const RUNS_TO_LEARN_FROM: usize = 1024;

/// Costs are in units of 1/64 bit.
const COST_BITS: u32 = 6;
/// A symbol of a class that has not seen it.
const UNSEEN: i16 = 13 << COST_BITS;

/// The classes of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// The class of each run.
    pub of_runs: Vec<u8>,
    /// How many there are.
    pub count: usize,
}

/// Classes for runs of `run` symbols (the last one may be shorter), so that the tables of all
/// classes, of about `table_bits` each, and the symbols take few bits.
///
/// `key` maps a symbol to what decides the class, a number below `keys`.
pub fn choose(
    symbols: &[u16],
    run: usize,
    keys: usize,
    table_bits: u64,
    key: impl Fn(u16) -> u8,
) -> Classes {
    let runs = symbols.len().div_ceil(run);
    let alone = Classes {
        of_runs: vec![0; runs],
        count: 1,
    };
    if runs < 8 || keys < 2 {
        return alone;
    }
    let mut counts = vec![0i16; runs * keys];
    for (symbols, counts) in symbols.chunks(run).zip(counts.chunks_exact_mut(keys)) {
        for &symbol in symbols {
            counts[usize::from(key(symbol))] += 1;
        }
    }
    let runs = Runs { counts, keys };
    let mut best = (runs.bits(&alone) + table_bits, alone);
    let mut most = MOST_CLASSES;
    while most > 1 {
        let classes = runs.classes(most);
        let bits = runs.bits(&classes) + classes.count as u64 * table_bits;
        if bits < best.0 {
            best = (bits, classes);
        } else if most < MOST_CLASSES {
            break;
        }
        most /= 2;
    }
    best.1
}

/// How often each run has each key.
struct Runs {
    counts: Vec<i16>,
    keys: usize,
}

impl Runs {
    fn all(&self) -> impl Iterator<Item = &[i16]> {
        self.counts.chunks_exact(self.keys)
    }

    fn len(&self) -> usize {
        self.counts.len() / self.keys
    }

    fn classes(&self, most: usize) -> Classes {
        let step = self.len().div_ceil(RUNS_TO_LEARN_FROM);
        let sample = Self {
            counts: self.all().step_by(step).flatten().copied().collect(),
            keys: self.keys,
        };
        let mut learnt = sample.by_mean(most);
        for _ in 1..ROUNDS {
            learnt = sample.assign(&sample.costs(&learnt, most));
        }
        let mut of_runs = self.assign(&sample.costs(&learnt, most));
        let mut numbers = vec![None; most];
        let mut count = 0;
        for class in &mut of_runs {
            let number = *numbers[usize::from(*class)].get_or_insert_with(|| {
                count += 1;
                count - 1
            });
            *class = number as u8;
        }
        Classes { of_runs, count }
    }

    /// As many runs in each class, sorted by their mean key.
    fn by_mean(&self, classes: usize) -> Vec<u8> {
        let mean = |counts: &[i16]| {
            let sum: u64 = (0u64..).zip(counts).map(|(key, &n)| key * n as u64).sum();
            let total: u64 = counts.iter().map(|&n| n as u64).sum();
            (sum << 16) / total.max(1)
        };
        let means: Vec<u64> = self.all().map(mean).collect();
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by_key(|&run| means[run as usize]);
        let mut of_runs = vec![0; self.len()];
        for (place, run) in order.into_iter().enumerate() {
            of_runs[run as usize] = (place * classes / self.len()) as u8;
        }
        of_runs
    }

    /// What each key costs in each class.
    fn costs(&self, of_runs: &[u8], classes: usize) -> Vec<i16> {
        let mut costs = Vec::with_capacity(classes * self.keys);
        for counts in self.totals(of_runs, classes).chunks_exact(self.keys) {
            let total: u64 = counts.iter().sum();
            costs.extend(counts.iter().map(|&count| cost(count, total)));
        }
        costs
    }

    fn totals(&self, of_runs: &[u8], classes: usize) -> Vec<u64> {
        let mut totals = vec![0u64; classes * self.keys];
        for (counts, &class) in self.all().zip(of_runs) {
            let totals = &mut totals[usize::from(class) * self.keys..][..self.keys];
            for (total, &count) in totals.iter_mut().zip(counts) {
                *total += count as u64;
            }
        }
        totals
    }

    fn assign(&self, costs: &[i16]) -> Vec<u8> {
        let cheapest = |counts: &[i16]| {
            let bits = costs.chunks_exact(self.keys).map(|costs| {
                let products = counts.iter().zip(costs);
                products.map(|(&n, &c)| i32::from(n) * i32::from(c)).sum()
            });
            let classes = bits.zip(0u8..);
            classes.min().map_or(0, |(_bits, class): (i32, u8)| class)
        };
        self.all().map(cheapest).collect()
    }

    /// Bits of the keys and the classes.
    fn bits(&self, classes: &Classes) -> u64 {
        let bits = |counts: &[u64]| {
            let total = counts.iter().sum();
            let all = counts.iter().map(|&n| n * cost(n, total) as u64);
            all.sum::<u64>() >> COST_BITS
        };
        let totals = self.totals(&classes.of_runs, classes.count);
        let mut runs = vec![0u64; classes.count];
        for &class in &classes.of_runs {
            runs[usize::from(class)] += 1;
        }
        totals.chunks_exact(self.keys).map(bits).sum::<u64>() + bits(&runs)
    }
}

fn cost(count: u64, total: u64) -> i16 {
    COSTS[((count << 12) / total.max(1)) as usize]
}

/// The cost of a symbol that has so many of 4096 parts.
static COSTS: LazyLock<[i16; 4097]> = LazyLock::new(|| {
    std::array::from_fn(|parts| {
        if parts == 0 {
            return UNSEEN;
        }
        let bits = -ln(parts as f64 / 4096.0) / std::f64::consts::LN_2;
        (bits * f64::from(1 << COST_BITS) + 0.5) as i16
    })
});

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u32) -> u32 {
        (seed.wrapping_mul(2_654_435_761) ^ seed >> 7).wrapping_mul(0x9E37_79B9) >> 16
    }

    #[test]
    fn runs_of_two_kinds_are_told_apart() {
        let symbols: Vec<u16> = (0..64 * 128)
            .map(|i| {
                let kind = u32::from(i / 128 % 3 == 0);
                (20 * kind + noise(i) % 8) as u16
            })
            .collect();
        let classes = choose(&symbols, 128, 28, 200, |symbol| symbol as u8);
        assert_eq!(classes.count, 2);
        for (run, &class) in classes.of_runs.iter().enumerate() {
            assert_eq!(class == classes.of_runs[0], run % 3 == 0);
        }
    }

    #[test]
    fn runs_of_one_kind_share_a_class() {
        let symbols: Vec<u16> = (0..40_000).map(|i| (noise(i) % 8) as u16).collect();
        let classes = choose(&symbols, 128, 8, 200, |symbol| symbol as u8);
        assert_eq!((classes.count, classes.of_runs.len()), (1, 313));
    }
}
