//! The normal distribution and the logarithm, from tables.
//!
//! Encoder and decoder must agree on every machine, so the tables are built of basic operations
//! only and looked up with basic operations in `f32`.

use std::sync::LazyLock;

use super::model::{exp, ln};

/// Where the table of the normal distribution begins: `-LIMIT` deviations.
const LIMIT: f32 = 8.0;
const STEPS_PER_DEVIATION: usize = 128;
const STEPS: usize = LIMIT as usize * STEPS_PER_DEVIATION;
const MANTISSA_BITS: u32 = 10;

struct Tables {
    /// The distribution function at `step / STEPS_PER_DEVIATION - LIMIT`, up to the middle.
    lower: [f32; STEPS + 2],
    /// The natural logarithm in the middle of each of equal parts of [1, 2).
    ln: [f32; 1 << MANTISSA_BITS],
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables {
    lower: std::array::from_fn(|step| {
        lower_tail((STEPS as f64 - step as f64) / STEPS_PER_DEVIATION as f64) as f32
    }),
    ln: std::array::from_fn(|part| {
        ln(1.0 + (part as f64 + 0.5) / f64::from(1u32 << MANTISSA_BITS)) as f32
    }),
});

/// The probability that a standard normal variable is below `-z`, to about 1e-13 of its value.
fn lower_tail(z: f64) -> f64 {
    let density = exp(-0.5 * z * z) / SQRT_TAU;
    if z < 3.0 {
        // 1/2 - density * (z + z^3 / 3 + z^5 / (3 * 5) + ...) (Marsaglia, 2004).
        let mut term = z;
        let mut sum = z;
        for n in 1..80 {
            term *= z * z / f64::from(2 * n + 1);
            sum += term;
        }
        0.5 - density * sum
    } else {
        // density / (z + 1 / (z + 2 / (z + ...))), Laplace's continued fraction.
        let mut fraction = z;
        for n in (1..=120).rev() {
            fraction = z + f64::from(n) / fraction;
        }
        density / fraction
    }
}

const SQRT_TAU: f64 = 2.506_628_274_631_000_5;

/// Borrows the tables.
#[derive(Clone, Copy)]
pub struct Normal {
    tables: &'static Tables,
}

impl std::fmt::Debug for Normal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Normal")
    }
}

impl Default for Normal {
    fn default() -> Self {
        Self::new()
    }
}

impl Normal {
    /// Borrows the tables, which are built once.
    pub fn new() -> Self {
        Self { tables: &TABLES }
    }

    /// The probability of being below `z` deviations; constant beyond 8.
    #[inline]
    pub fn below(self, z: f32) -> f32 {
        if z > 0.0 {
            1.0 - self.lower(z)
        } else {
            self.lower(-z)
        }
    }

    /// The probability of being above `z` deviations.
    #[inline]
    pub fn above(self, z: f32) -> f32 {
        self.below(-z)
    }

    /// The probability of lying between `low` and `high` deviations.
    ///
    /// Both are taken from the nearer tail, so that small probabilities keep their precision.
    #[inline]
    pub fn between(self, low: f32, high: f32) -> f32 {
        if low + high > 0.0 {
            self.below(-low) - self.below(-high)
        } else {
            self.below(high) - self.below(low)
        }
    }

    /// The probability of being below `-z`, for `z` of at least 0.
    #[inline]
    fn lower(self, z: f32) -> f32 {
        let place = (LIMIT - z).max(0.0) * STEPS_PER_DEVIATION as f32;
        let step = (place as usize).min(STEPS);
        let [left, right] = [self.tables.lower[step], self.tables.lower[step + 1]];
        left + (place - step as f32) * (right - left)
    }

    /// The natural logarithm of a positive normal number, to about 5e-4.
    #[inline]
    pub fn ln(self, x: f32) -> f32 {
        let bits = x.to_bits();
        let exponent = (bits >> 23) as i32 - 127;
        let part = bits >> (23 - MANTISSA_BITS) & ((1 << MANTISSA_BITS) - 1);
        exponent as f32 * std::f32::consts::LN_2 + self.tables.ln[part as usize]
    }

    /// The logit of an event by the probabilities (or weights) of it and of its opposite.
    ///
    /// Where both are next to nothing the answer is 0: there is nothing to say.
    #[inline]
    pub fn logit(self, event: f32, opposite: f32) -> f32 {
        const LEAST: f32 = 1e-12;
        self.ln(event.max(LEAST)) - self.ln(opposite.max(LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the distribution function to 15 digits (Abramowitz and Stegun, table 26.1 and
    /// 26.2).
    const KNOWN: [(f32, f64); 6] = [
        (0.0, 0.5),
        (0.5, 0.308_537_538_725_987),
        (1.0, 0.158_655_253_931_457),
        (2.0, 0.022_750_131_948_179),
        (4.0, 3.167_124_183_312e-5),
        (6.0, 9.865_876_450_377e-10),
    ];

    #[test]
    fn the_tables_hold_the_normal_distribution() {
        let normal = Normal::new();
        for (z, expected) in KNOWN {
            let below = f64::from(normal.below(-z));
            assert!((below / expected - 1.0).abs() < 1e-6, "{z}: {below}");
            assert!((f64::from(normal.above(z)) - below).abs() < 1e-9);
            assert!((f64::from(normal.below(z)) + below - 1.0).abs() < 1e-6);
        }
        for step in 0..3000 {
            let z = step as f32 / 200.0 - 7.0;
            assert!(normal.below(z) <= normal.below(z + 0.005), "{z}");
            assert!(normal.between(z, z + 0.3) >= 0.0);
        }
        assert!(normal.below(f32::NEG_INFINITY) < 1e-15 && normal.below(f32::INFINITY) == 1.0);
    }

    #[test]
    fn the_two_series_of_the_tail_agree_where_they_meet() {
        let (left, right) = (lower_tail(3.0 - 1e-9), lower_tail(3.0));
        assert!((left / right - 1.0).abs() < 1e-8);
    }

    #[test]
    fn the_logarithm_is_near() {
        let normal = Normal::new();
        for x in [1e-30f32, 1e-6, 0.1, 0.999, 1.0, 1.7, 2.0, 123.4, 1e20] {
            assert!((normal.ln(x) - x.ln()).abs() < 6e-4, "{x}");
        }
    }
}
