//! Drawing blocks at random, with probabilities in proportion to weights.

use rayon::prelude::*;

use super::random::SplitMix64;
use crate::error::{Error, Result};
use crate::monitor::Monitor;

/// Weights that one thread looks at at a time.
const PIECE_LEN: usize = 1 << 14;
/// Weights looked at between two selections.
const BATCH_LEN: usize = 1 << 18;

/// The square root of 1/2.
const SQRT_HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
/// `1 / (2 n + 1)` for n = 0, 1, ...: the series of the inverse hyperbolic tangent.
const SERIES: [f64; 9] = [
    1.0,
    1.0 / 3.0,
    1.0 / 5.0,
    1.0 / 7.0,
    1.0 / 9.0,
    1.0 / 11.0,
    1.0 / 13.0,
    1.0 / 15.0,
    1.0 / 17.0,
];

/// Items drawn without replacement, with probabilities in proportion to their weights.
///
/// Item i gets the key `-ln(u) / weight` with u uniform in (0, 1), and the smallest keys are drawn,
/// the lowest index among equals (Efraimidis and Spirakis, "Weighted random sampling with a
/// reservoir", 2006). The number u is the i-th of [`SplitMix64`] with a seed that is the
/// `round`-th number of the given seed. Its logarithm is computed by additions, multiplications and
/// one division in float64, so equal weights give the same draw on every platform, however the
/// items are divided into calls of [`add`](Self::add). Items without weight are never drawn.
///
/// Memory is proportional to the number of items to draw.
#[derive(Clone, Debug)]
pub struct WeightedDraw {
    wanted: usize,
    stream: u64,
    /// Key, as the bits of a positive float64, and index of those that may be drawn.
    kept: Vec<(u64, u64)>,
    /// What a key must be below, once enough are kept.
    limit: u64,
}

impl WeightedDraw {
    /// A draw of at most so many items, which differs from one `round` to another.
    pub fn new(wanted: usize, seed: u64, round: u64) -> Self {
        Self {
            wanted,
            stream: SplitMix64::nth(seed, round),
            kept: Vec::new(),
            limit: if wanted == 0 { 0 } else { u64::MAX },
        }
    }

    /// Adds items, given the index of the first and the weight of each.
    ///
    /// # Errors
    /// `InvalidArgument` if a weight is negative or NaN; `Interrupted`, if cancelled.
    pub fn add(&mut self, first: u64, weights: &[f64], monitor: &Monitor) -> Result<()> {
        let bad = |weight: &f64| weight.is_nan() || weight.is_sign_negative() && *weight != 0.0;
        for (batch, weights) in weights.chunks(BATCH_LEN).enumerate() {
            monitor.check()?;
            let first = first + (batch * BATCH_LEN) as u64;
            let (stream, limit) = (self.stream, self.limit);
            let pieces = weights
                .par_chunks(PIECE_LEN)
                .enumerate()
                .map(|(piece, weights)| {
                    if weights.iter().any(bad) {
                        return Err(Error::invalid_argument(
                            "weights of a draw must be at least 0",
                        ));
                    }
                    let first = first + (piece * PIECE_LEN) as u64;
                    let keys = (first..).zip(weights).filter(|&(_, &weight)| weight > 0.0);
                    Ok(keys
                        .map(|(index, &weight)| (key(stream, index, weight), index))
                        .filter(|&(key, _)| key <= limit)
                        .collect())
                })
                .collect::<Result<Vec<Vec<_>>>>()?;
            for piece in pieces {
                self.kept.extend(piece);
                self.select(2 * self.wanted);
            }
        }
        Ok(())
    }

    /// Keys and indices of the items drawn, ascending by key and then by index. The draw of several
    /// parts of all items is the same number of the smallest of theirs.
    pub fn finish(mut self) -> (Vec<f64>, Vec<u64>) {
        self.select(self.wanted);
        self.kept.sort_unstable();
        let keys = self.kept.iter();
        let keys = keys.map(|&(key, _)| f64::from_bits(key)).collect();
        (
            keys,
            self.kept.into_iter().map(|(_, index)| index).collect(),
        )
    }

    /// Keeps the smallest, if there are more than so many.
    fn select(&mut self, most: usize) {
        if self.kept.len() > most && self.wanted > 0 {
            let (_, last, _) = self.kept.select_nth_unstable(self.wanted - 1);
            self.limit = last.0;
            self.kept.truncate(self.wanted);
        }
    }
}

/// The bits of `-ln(u) / weight`, which order as the floats do.
#[inline(always)]
fn key(stream: u64, index: u64, weight: f64) -> u64 {
    (exponential(SplitMix64::nth(stream, index)) / weight).to_bits()
}

/// `-ln(u)` for the number u in (0, 1) that the upper 52 bits stand for; above 0.
#[inline(always)]
fn exponential(bits: u64) -> f64 {
    // Exact: 53 significant bits.
    let u = ((bits >> 12) as f64 + 0.5) * (1.0 / (1u64 << 52) as f64);
    let exponent = ((u.to_bits() >> 52) as i64) - 1022;
    let mantissa = f64::from_bits(u.to_bits() & ((1 << 52) - 1) | 1022 << 52);
    let low = mantissa < SQRT_HALF;
    let mantissa = if low { 2.0 * mantissa } else { mantissa };
    let exponent = (exponent - i64::from(low)) as f64;
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let series = SERIES.iter().rev();
    let sum = series.fold(0.0, |sum, coefficient| sum * square + coefficient);
    -(exponent * std::f64::consts::LN_2 + 2.0 * t * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(wanted: usize, seed: u64, weights: &[f64], step: usize) -> Vec<u64> {
        let mut draw = WeightedDraw::new(wanted, seed, 1);
        for (number, weights) in weights.chunks(step).enumerate() {
            let first = (number * step) as u64;
            draw.add(first, weights, &Monitor::new()).unwrap();
        }
        draw.finish().1
    }

    #[test]
    fn logarithms_are_near_the_library_s() {
        let mut random = SplitMix64::new(5);
        let bits = (0..100_000).map(|_| random.next_u64());
        for bits in bits.chain([0, 1 << 12, u64::MAX, u64::MAX >> 1, 1 << 63]) {
            let u = ((bits >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
            let found = exponential(bits);
            assert!(found > 0.0);
            assert!((found / -u.ln() - 1.0).abs() < 1e-13, "{u}: {found}");
        }
    }

    #[test]
    fn draws_do_not_depend_on_the_calls() {
        let mut random = SplitMix64::new(7);
        let weights: Vec<f64> = (0..700_000)
            .map(|_| (random.next_u64() >> 60) as f64)
            .collect();
        let whole = draw(1000, 3, &weights, weights.len());
        assert_eq!(whole.len(), 1000);
        for step in [1 << 16, 12_345, 700] {
            assert_eq!(draw(1000, 3, &weights, step), whole);
        }
        // All keys at once.
        let stream = SplitMix64::nth(3, 1);
        let mut keys: Vec<(u64, u64)> = (0..)
            .zip(&weights)
            .filter(|&(_, &weight)| weight > 0.0)
            .map(|(index, &weight)| (key(stream, index, weight), index))
            .collect();
        keys.sort_unstable();
        let expected: Vec<u64> = keys[..1000].iter().map(|&(_, index)| index).collect();
        assert_eq!(whole, expected);
        assert_ne!(draw(1000, 4, &weights, 700), whole);
    }

    #[test]
    fn weights_are_probabilities() {
        let mut counts = [0i32; 4];
        for seed in 0..40_000 {
            counts[draw(1, seed, &[1.0, 0.0, 2.0, 5.0], 4)[0] as usize] += 1;
        }
        for (count, expected) in counts.into_iter().zip([5_000, 0, 10_000, 25_000]) {
            assert!((count - expected).abs() < 500, "{counts:?}");
        }
        assert_eq!(counts[1], 0);
    }

    #[test]
    fn what_weighs_nothing_is_never_drawn() {
        assert_eq!(draw(5, 0, &[0.0, 3.0, 0.0, 1e-300, -0.0], 2).len(), 2);
        assert_eq!(draw(0, 0, &[1.0; 10], 3), [0u64; 0]);
        let mut all = draw(3, 0, &[f64::MAX, f64::MIN_POSITIVE, 5e-324], 1);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
        for bad in [-1.0, f64::NAN] {
            let mut draw = WeightedDraw::new(1, 0, 0);
            assert!(draw.add(0, &[1.0, bad], &Monitor::new()).is_err());
        }
    }
}
