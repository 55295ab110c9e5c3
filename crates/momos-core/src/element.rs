//! The two float types blocks and motifs come in.

use std::fmt::Debug;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A float type of blocks and motifs: `f32` or `f64`.
pub trait Element:
    Copy + Debug + Default + PartialEq + Send + Sync + sealed::Sealed + 'static
{
    /// Whether a value survives the way through `f32` unchanged.
    const FITS_F32: bool;
    /// Range of the exponent `e` by which values may be scaled with `2^e` without losing bits of
    /// the largest of them.
    const SCALE_EXPONENTS: (i32, i32);

    /// The same value.
    fn to_f64(self) -> f64;
    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;
    /// The value times a power of two within [`SCALE_EXPONENTS`](Self::SCALE_EXPONENTS), rounded
    /// to `f32`.
    fn scaled_to_f32(self, scale: f64) -> f32;
    /// The bit pattern; differs for 0 and -0.
    fn bits(self) -> u64;
    /// Largest magnitude among the values (0 if there are none), or `None` if one is not finite.
    fn largest_magnitude(values: &[Self]) -> Option<f64>;
    /// Whether it is neither NaN nor infinite.
    fn is_finite(self) -> bool;
}

macro_rules! element {
    ($float:ty, fits: $fits:expr, exponents: $exponents:expr, scaled: $scaled:expr) => {
        impl Element for $float {
            const FITS_F32: bool = $fits;
            const SCALE_EXPONENTS: (i32, i32) = $exponents;

            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.into()
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn scaled_to_f32(self, scale: f64) -> f32 {
                $scaled(self, scale)
            }
            #[inline(always)]
            fn bits(self) -> u64 {
                self.to_bits().into()
            }
            fn largest_magnitude(values: &[Self]) -> Option<f64> {
                // Without the sign bit, patterns order as magnitudes do, and those of infinities
                // and NaN come last. Integers, because their maximum is vectorised.
                let largest = values
                    .iter()
                    .fold(0, |largest, value| value.abs().to_bits().max(largest));
                let largest = <$float>::from_bits(largest);
                largest.is_finite().then(|| largest.into())
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                <$float>::is_finite(self)
            }
        }
    };
}

element!(f32, fits: true, exponents: (-100, 100), scaled: |value: f32, scale: f64| value * scale as f32);
element!(f64, fits: false, exponents: (-1000, 1000), scaled: |value: f64, scale: f64| (value * scale) as f32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_magnitude_sees_signs_subnormals_and_what_is_not_finite() {
        assert_eq!(f32::largest_magnitude(&[]), Some(0.0));
        assert_eq!(f32::largest_magnitude(&[1.0, -3.0, 2.0]), Some(3.0));
        assert_eq!(f64::largest_magnitude(&[-5e-324, 0.0]), Some(5e-324));
        assert_eq!(f32::largest_magnitude(&[1.0, f32::NAN]), None);
        assert_eq!(f64::largest_magnitude(&[f64::NEG_INFINITY, 1.0]), None);
        assert_eq!(f64::largest_magnitude(&[f64::NAN.copysign(-1.0)]), None);
    }
}
