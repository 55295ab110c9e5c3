//! Statistical models of single bits: adaptive probabilities, and mixing of several predictions.
//!
//! Encoder and decoder must compute the same probabilities on every machine, so everything here is
//! integers, or f32 and f64 with nothing but `+ - * /` and `sqrt` in a fixed order; functions that
//! a mathematics library might round differently come from tables built the same way.

use std::sync::LazyLock;

/// Probabilities stay this far from 0 and 65536, in units of 2^-16.
const MARGIN: i32 = 24;

/// The probability that a bit is set, learnt from the bits seen so far.
///
/// It moves towards each bit by `1 / (n + 1.5)` after `n` bits, so it is near the mean of the first
/// bits, and forgets old ones once `n` has reached its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveBit {
    one: u16,
    seen: u16,
}

impl Default for AdaptiveBit {
    fn default() -> Self {
        Self::new()
    }
}

impl AdaptiveBit {
    /// Largest limit of [`update`](Self::update).
    pub const MAX_LIMIT: u16 = 1023;

    /// A bit of which nothing is known: probability one half.
    pub const fn new() -> Self {
        Self {
            one: 1 << 15,
            seen: 0,
        }
    }

    /// A bit of a probability (in units of 2^-16) that counts as much as `seen` bits.
    pub fn primed(one: u16, seen: u16) -> Self {
        Self {
            one: i32::from(one).clamp(MARGIN, 65536 - MARGIN) as u16,
            seen: seen.min(Self::MAX_LIMIT),
        }
    }

    /// Probability that the next bit is set, in units of 2^-16; for
    /// [`BitCoder::code`](super::range_coder::BitCoder::code).
    #[inline]
    pub fn one(self) -> u16 {
        self.one
    }

    /// Number of bits seen, up to the limit.
    #[inline]
    pub fn seen(self) -> u16 {
        self.seen
    }

    /// Learns from a bit; from `limit` bits on (at most [`MAX_LIMIT`](Self::MAX_LIMIT)) old bits
    /// are forgotten at that rate.
    #[inline]
    pub fn update(&mut self, bit: bool, limit: u16) {
        debug_assert!(limit <= Self::MAX_LIMIT);
        let one = i32::from(self.one);
        // Both targets are within the margin, so the probability stays there without a check.
        let target = if bit { 65536 - MARGIN } else { MARGIN };
        // |target - one| < 2^16 and the step is below 2^15: the product fits 31 bits.
        let step = STEPS[usize::from(self.seen) % STEPS.len()];
        self.one = (one + (((target - one) * step) >> 15)) as u16;
        self.seen = (self.seen + 1).min(limit);
    }
}

/// `2^15 / (n + 1.5)`.
static STEPS: [i32; AdaptiveBit::MAX_LIMIT as usize + 1] = {
    let mut steps = [0; AdaptiveBit::MAX_LIMIT as usize + 1];
    let mut seen = 0;
    while seen < steps.len() {
        steps[seen] = (2 << 15) / (2 * seen as i32 + 3);
        seen += 1;
    }
    steps
};

/// Logits stay within this bound: the probabilities of the coder say no more.
pub const MAX_LOGIT: f32 = 11.0;

const SQUASH_STEPS_PER_UNIT: usize = 64;
const SQUASH_STEPS: usize = 2 * MAX_LOGIT as usize * SQUASH_STEPS_PER_UNIT;
const STRETCH_STEPS: usize = 4096;

struct Tables {
    /// The logistic function at equal steps from `-MAX_LOGIT` to `MAX_LOGIT`.
    squash: [f32; SQUASH_STEPS + 2],
    /// The logit in the middle of each of equal steps of probability.
    stretch: [f32; STRETCH_STEPS],
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables {
    squash: std::array::from_fn(|step| {
        let x = step as f64 / SQUASH_STEPS_PER_UNIT as f64 - f64::from(MAX_LOGIT);
        (1.0 / (1.0 + exp(-x))) as f32
    }),
    stretch: std::array::from_fn(|step| {
        let one = (step as f64 + 0.5) / STRETCH_STEPS as f64;
        ln(one / (1.0 - one)) as f32
    }),
});

/// The exponential function, of basic operations only; for |x| up to 700, to about 1e-13.
pub fn exp(x: f64) -> f64 {
    // e^x = (e^(x / 1024))^1024, the inner one by its Taylor series.
    let small = x / 1024.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    for n in 1..16 {
        term *= small / f64::from(n);
        sum += term;
    }
    for _ in 0..10 {
        sum *= sum;
    }
    sum
}

/// The natural logarithm of a positive number, of basic operations only, to about 1e-13.
pub fn ln(x: f64) -> f64 {
    const LN_2: f64 = std::f64::consts::LN_2;
    let (mut scaled, mut doublings) = (x, 0);
    while scaled > 1.5 {
        scaled /= 2.0;
        doublings += 1;
    }
    while scaled < 0.75 {
        scaled *= 2.0;
        doublings -= 1;
    }
    // ln x = 2 artanh((x - 1) / (x + 1)).
    let ratio = (scaled - 1.0) / (scaled + 1.0);
    let square = ratio * ratio;
    let mut power = ratio;
    let mut sum = 0.0;
    for n in 0..24 {
        sum += power / f64::from(2 * n + 1);
        power *= square;
    }
    2.0 * sum + f64::from(doublings) * LN_2
}

/// Turns predictions into logits and back; looks up tables that are built once.
#[derive(Clone, Copy)]
pub struct Logistic {
    tables: &'static Tables,
}

impl std::fmt::Debug for Logistic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Logistic")
    }
}

impl Default for Logistic {
    fn default() -> Self {
        Self::new()
    }
}

impl Logistic {
    /// Borrows the tables.
    pub fn new() -> Self {
        Self { tables: &TABLES }
    }

    /// The logit `ln(p / (1 - p))` of a probability in units of 2^-16.
    #[inline]
    pub fn stretch(self, one: u16) -> f32 {
        self.tables.stretch[usize::from(one) >> 4]
    }

    /// The logit of a probability between 0 and 1; anything else counts as the nearer of them.
    #[inline]
    pub fn stretch_f32(self, one: f32) -> f32 {
        // A cast saturates, and takes NaN to 0.
        let step = (one * STRETCH_STEPS as f32) as usize;
        self.tables.stretch[step.min(STRETCH_STEPS - 1)]
    }

    /// The probability `1 / (1 + e^-x)` of a logit.
    #[inline]
    pub fn squash(self, x: f32) -> f32 {
        let x = x.clamp(-MAX_LOGIT, MAX_LOGIT);
        let place = (x + MAX_LOGIT) * SQUASH_STEPS_PER_UNIT as f32;
        let step = (place as usize).min(SQUASH_STEPS);
        let [left, right] = [self.tables.squash[step], self.tables.squash[step + 1]];
        left + (place - step as f32) * (right - left)
    }
}

/// A probability between 0 and 1 in the coder's units of 2^-16.
#[inline]
pub fn to_units(one: f32) -> u16 {
    ((one * 65536.0) as i32).clamp(MARGIN, 65536 - MARGIN) as u16
}

/// A weighted sum of the logits of `N` predictions, whose weights learn from every bit (logistic
/// mixing: Mahoney, 2005).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixer<const N: usize> {
    weights: [f32; N],
}

impl<const N: usize> Mixer<N> {
    /// A mixer with the given weights.
    pub const fn new(weights: [f32; N]) -> Self {
        Self { weights }
    }

    /// The mixed logit.
    #[inline]
    pub fn mix(&self, logits: &[f32; N]) -> f32 {
        let mut sum = 0.0;
        for (weight, logit) in self.weights.iter().zip(logits) {
            sum += weight * logit;
        }
        sum
    }

    /// Moves the weights against the error of the mixed probability `one`, down the slope of the
    /// coding cost.
    #[inline]
    pub fn update(&mut self, logits: &[f32; N], one: f32, bit: bool, rate: f32) {
        let error = (f32::from(u8::from(bit)) - one) * rate;
        for (weight, logit) in self.weights.iter_mut().zip(logits) {
            *weight += error * logit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adaptive_bit_learns_the_mean_and_then_follows() {
        let mut bit = AdaptiveBit::new();
        assert_eq!(bit.one(), 1 << 15);
        for i in 0..900 {
            bit.update(i % 4 == 0, 1000);
        }
        assert!((f64::from(bit.one()) / 65536.0 - 0.25).abs() < 0.01);
        for _ in 0..200 {
            bit.update(true, 20);
        }
        assert!(bit.one() > 60_000);
        for limit in [0, 1, 5, AdaptiveBit::MAX_LIMIT] {
            for _ in 0..5000 {
                bit.update(limit % 2 == 0, limit);
            }
            assert!(bit.one() >= MARGIN as u16, "{bit:?}");
        }
    }

    #[test]
    fn tables_agree_with_the_mathematics_library() {
        for x in [-30.0, -8.5, -1.0, -1e-3, 0.0, 0.3, 2.0, 11.0] {
            assert!((exp(x) / f64::exp(x) - 1.0).abs() < 1e-12, "{x}");
        }
        for x in [1e-9, 0.3, 0.75, 1.0, 1.5, 7.0, 1e12] {
            assert!(
                (ln(x) - f64::ln(x)).abs() < 1e-12 * (1.0 + f64::ln(x).abs()),
                "{x}"
            );
        }
        let logistic = Logistic::new();
        for i in -1100..1100 {
            let x = i as f32 / 100.0;
            let expected = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!(
                (f64::from(logistic.squash(x)) - expected).abs() < 1e-5,
                "{x}"
            );
        }
        assert!(logistic.squash(-1e30) > 0.0 && logistic.squash(1e30) < 1.0);
        assert!(logistic.squash(f32::NAN) >= 0.0 || logistic.squash(f32::NAN).is_nan());
        for one in [20u16, 1000, 32768, 60000, 65500] {
            let p = f64::from(one) / 65536.0;
            let error = f64::from(logistic.stretch(one)) - (p / (1.0 - p)).ln();
            assert!(error.abs() < 0.6, "{one}: {error}");
        }
    }

    #[test]
    fn a_mixer_learns_whom_to_trust() {
        let logistic = Logistic::new();
        let mut mixer = Mixer::new([0.3f32; 2]);
        let mut cost = 0.0;
        for i in 0..4000u32 {
            let bit = i.wrapping_mul(2654435761) >> 31 == 1;
            let informed = if bit { 2.0 } else { -2.0 };
            let misled = if i % 3 == 0 { 1.0 } else { -1.0 };
            let logits = [informed, misled];
            let one = logistic.squash(mixer.mix(&logits));
            if i >= 3000 {
                cost -= if bit { one } else { 1.0 - one }.log2();
            }
            mixer.update(&logits, one, bit, 0.02);
        }
        assert!(cost / 1000.0 < 0.05, "{cost}");
    }

    #[test]
    fn units_stay_within_the_coder() {
        for one in [-1.0, 0.0, 1e-9, 0.5, 1.0, 2.0, f32::NAN] {
            assert!(to_units(one) > 0);
        }
        assert_eq!(to_units(0.5), 1 << 15);
    }
}
