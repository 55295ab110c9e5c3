//! A uniform quantiser of weights.

use super::floats::WeightType;
use crate::simd::bit_planes::Levels;
use crate::{Error, Result};

/// Most bits per level.
pub const MAX_BITS: u32 = 16;

/// A range below this is taken for a constant, and all levels for 0.
const CONSTANT_BELOW: f64 = 1e-8;

/// A uniform quantiser: level `round((w - low) / step)`, ties to even, from 0 to `2^bits - 1`.
///
/// The arithmetic is that of the published definition on a tensor of the same type: float64 for
/// float64 weights, float32 for all others (narrower ones are widened first).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantiser {
    low: f64,
    step: f64,
    bits: u32,
}

impl Quantiser {
    /// The quantiser of weights of that type between two ends.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] unless `1 <= bits <= 16` and the ends are finite and
    /// in order.
    pub fn new(dtype: WeightType, low: f64, high: f64, bits: u32) -> Result<Self> {
        if !(1..=MAX_BITS).contains(&bits) {
            return Err(Error::invalid_argument(format!(
                "{bits} bits per weight are not between 1 and {MAX_BITS}"
            )));
        }
        let in_order = low <= high && low.is_finite() && high.is_finite();
        if !in_order {
            return Err(Error::invalid_argument(format!(
                "cannot quantise between {low} and {high}"
            )));
        }
        let levels = f64::from((1u32 << bits) - 1);
        let step = if dtype == WeightType::F64 {
            let range = high - low;
            if range < CONSTANT_BELOW {
                0.0
            } else {
                range / levels
            }
        } else {
            let range = high as f32 - low as f32;
            if range < CONSTANT_BELOW as f32 {
                0.0
            } else {
                (range / levels as f32).into()
            }
        };
        if !step.is_finite() {
            return Err(Error::invalid_argument(format!(
                "the range from {low} to {high} overflows"
            )));
        }
        Ok(Self { low, step, bits })
    }

    /// Bits per level.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Step between levels; 0 if the range is taken for a constant.
    pub fn step(&self) -> f64 {
        self.step
    }

    /// The lowest end, level 0.
    pub fn low(&self) -> f64 {
        self.low
    }

    /// The level of a float64 weight; 0 for NaN.
    #[inline]
    pub fn level_f64(&self, weight: f64) -> u16 {
        if self.step == 0.0 {
            return 0;
        }
        let highest = f64::from((1u32 << self.bits) - 1);
        let level = (weight - self.low) / self.step;
        // Written so that NaN ends at 0.
        let level = if level > 0.0 { level } else { 0.0 };
        const NO_FRACTION: f64 = 1.0 / f64::EPSILON;
        ((level.min(highest) + NO_FRACTION) - NO_FRACTION) as u16
    }

    /// The level of a float32 weight; 0 for NaN.
    #[inline]
    pub fn level_f32(&self, weight: f32) -> u16 {
        self.narrow().of(weight)
    }

    /// The levels of float32 weights.
    #[inline]
    pub fn narrow(&self) -> Levels {
        Levels {
            low: self.low as f32,
            step: self.step as f32,
            bits: self.bits,
        }
    }
}
