//! The inner loops of linear prediction, behind safe functions.
//!
//! Every lane does what the scalar loop does, multiplication and addition rounded one after the
//! other, so the result is the same at each level.
#![allow(unsafe_code)]

use std::sync::LazyLock;

/// A set of instructions this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(Instructions);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Level {
    /// All levels of this processor, the fastest last. That a level exists is the proof that its
    /// instructions do.
    pub fn available() -> &'static [Self] {
        static AVAILABLE: LazyLock<Vec<Level>> = LazyLock::new(|| {
            #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
            let mut levels = vec![Level(Instructions::Baseline)];
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                levels.push(Level(Instructions::Avx2));
            }
            levels
        });
        &AVAILABLE
    }

    /// The fastest level.
    pub fn best() -> Self {
        *Self::available()
            .last()
            .expect("the baseline is always there")
    }
}

/// Adds `factor * x` to `y`, element by element.
///
/// # Panics
/// If the lengths differ.
#[inline]
pub fn add_scaled(level: Level, y: &mut [f32], x: &[f32], factor: f32) {
    assert_eq!(y.len(), x.len(), "vectors of one length");
    match level.0 {
        Instructions::Baseline => add_scaled_body(y, x, factor),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2.
        Instructions::Avx2 => unsafe { add_scaled_avx2(y, x, factor) },
    }
}

#[inline(always)]
fn add_scaled_body(y: &mut [f32], x: &[f32], factor: f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_scaled_avx2(y: &mut [f32], x: &[f32], factor: f32) {
    add_scaled_body(y, x, factor);
}

/// The scalar product, summed in eight interleaved parts that are added up in order.
///
/// # Panics
/// If the lengths differ.
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len(), "vectors of one length");
    let mut sums = [0f32; 8];
    let (x_parts, x_rest) = x.as_chunks::<8>();
    let (y_parts, y_rest) = y.as_chunks::<8>();
    for (x, y) in x_parts.iter().zip(y_parts) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    for (lane, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
        sums[lane] += x * y;
    }
    let mut total = 0.0;
    for sum in sums {
        total += sum;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_gives_the_same_bits() {
        let x: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.7).sin() * 3.1).collect();
        for length in [0, 1, 7, 8, 33, 1003] {
            let run = |level| {
                let mut y: Vec<f32> = (0..length).map(|i| 1.0 / (i as f32 + 0.3)).collect();
                for turn in 0..5 {
                    add_scaled(level, &mut y, &x[..length], 0.1 + turn as f32 / 7.0);
                }
                y.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            for &level in Level::available() {
                assert_eq!(run(level), run(Level::available()[0]));
            }
        }
    }

    #[test]
    fn the_scalar_product_sums_everything() {
        for length in 0..40 {
            let x: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let expected: f32 = x.iter().map(|v| v * v).sum();
            assert_eq!(dot(&x, &x), expected);
        }
    }
}
