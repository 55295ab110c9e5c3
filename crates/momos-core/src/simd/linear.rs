//! The inner loops of linear prediction.
//!
//! Every lane does what the scalar loop does, multiplication and addition rounded one after the
//! other, so the result is the same with each instruction set.

use super::isa::{Available, Isa};

/// Adds `factor * x` to `y`, element by element.
///
/// # Panics
/// If the lengths differ.
#[inline]
pub fn add_scaled(isa: Available, y: &mut [f32], x: &[f32], factor: f32) {
    assert_eq!(y.len(), x.len(), "vectors of one length");
    match isa.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX2, which comes with AVX-512.
        Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 => unsafe { add_scaled_avx2(y, x, factor) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 => add_scaled_body(y, x, factor),
        Isa::NeonDot | Isa::Neon | Isa::Portable => add_scaled_body(y, x, factor),
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
    fn every_instruction_set_gives_the_same_bits() {
        let x: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.7).sin() * 3.1).collect();
        for length in [0, 1, 7, 8, 33, 1003] {
            let run = |isa| {
                let mut y: Vec<f32> = (0..length).map(|i| 1.0 / (i as f32 + 0.3)).collect();
                for turn in 0..5 {
                    add_scaled(isa, &mut y, &x[..length], 0.1 + turn as f32 / 7.0);
                }
                y.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            for &isa in Available::all() {
                assert_eq!(run(isa), run(Available::PORTABLE));
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
