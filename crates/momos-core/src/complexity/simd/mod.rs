//! The inner loops that depend on the processor, behind safe functions.
//!
//! Every function takes a [`Level`] and gives the same result at each; the scalar twin is the
//! definition, and tests compare the others to it.
#![allow(unsafe_code)]

mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::LazyLock;

use super::floats::Floats;
use super::planes::{Quantiser, WIDTH};

/// A set of instructions this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(Instructions);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Instructions {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// All levels of this processor, the fastest last. That a level exists is the proof that its
    /// instructions do.
    pub fn available() -> &'static [Self] {
        static AVAILABLE: LazyLock<Vec<Level>> = LazyLock::new(|| {
            #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
            let mut levels = vec![Level(Instructions::Scalar)];
            #[cfg(target_arch = "x86_64")]
            {
                if is_x86_feature_detected!("avx2") {
                    levels.push(Level(Instructions::Avx2));
                }
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                    levels.push(Level(Instructions::Avx512));
                }
            }
            levels
        });
        &AVAILABLE
    }

    /// The fastest level.
    pub fn best() -> Self {
        *Self::available().last().expect("scalar is always there")
    }
}

/// Packs the bits `w > 0`: weight `i` at bit `i % 64` of word `i / 64`, the rest of the last word 0.
///
/// # Panics
/// Unless there is one word per 64 weights, the last one begun.
pub fn pack_signs(level: Level, weights: Floats<'_>, words: &mut [u64]) {
    assert_eq!(
        words.len(),
        weights.len().div_ceil(64),
        "words for the bits"
    );
    let whole = weights.len() / 64;
    let (full, rest) = words.split_at_mut(whole);
    let head = weights.slice(0, whole * 64);
    match level.0 {
        Instructions::Scalar => scalar::pack_signs(head, full),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX-512F and BW.
        Instructions::Avx512 => unsafe { x86::pack_signs_avx512(head, full) },
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => match weights.dtype() {
            // SAFETY: the level proves AVX2.
            super::floats::WeightType::F32 => unsafe { x86::pack_signs_avx2(head, full) },
            _ => scalar::pack_signs(head, full),
        },
    }
    scalar::pack_signs(weights.slice(whole * 64, weights.len()), rest);
}

/// Columns that [`level_keys`] takes at a time: those of one AVX-512 register of float32.
pub const COLUMNS: usize = 16;

/// Quantises a strip of four rows of float32 weights (little-endian) and writes the key of each
/// 4x4 block of plane `p`, from left to right, from `keys[p * stride]` on.
///
/// # Panics
/// Unless the rows are equally long, a multiple of [`COLUMNS`], and the keys of every plane fit.
pub fn level_keys(
    level: Level,
    rows: [&[[u8; 4]]; WIDTH],
    quantiser: Quantiser,
    stride: usize,
    keys: &mut [u16],
) {
    let columns = rows[0].len();
    assert!(
        rows.iter().all(|row| row.len() == columns),
        "rows of one length"
    );
    assert!(columns.is_multiple_of(COLUMNS), "whole vectors");
    let planes = quantiser.bits() as usize;
    assert!(
        (planes - 1) * stride + columns / WIDTH <= keys.len(),
        "room for the keys"
    );
    if quantiser.step() == 0.0 {
        for plane in 0..planes {
            keys[plane * stride..][..columns / WIDTH].fill(0);
        }
        return;
    }
    match level.0 {
        Instructions::Scalar => scalar::level_keys(rows, quantiser, stride, keys),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX-512F and BW; lengths are asserted above.
        Instructions::Avx512 => unsafe { x86::level_keys_avx512(rows, quantiser, stride, keys) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level proves AVX2; lengths are asserted above.
        Instructions::Avx2 => unsafe { x86::level_keys_avx2(rows, quantiser, stride, keys) },
    }
}

#[cfg(test)]
mod tests {
    use super::super::floats::WeightType;
    use super::*;
    use proptest::prelude::*;

    fn patterns() -> impl Strategy<Value = Vec<u32>> {
        // Ordinary values, and any bit pattern: NaNs, infinities, subnormals, both zeros.
        prop::collection::vec(
            prop_oneof![(-2f32..2.0).prop_map(f32::to_bits), any::<u32>()],
            4 * 48,
        )
    }

    proptest! {
        #[test]
        fn every_level_packs_alike(patterns in patterns(), cut in 0usize..64) {
            let bytes: Vec<u8> = patterns.iter().flat_map(|p| p.to_le_bytes()).collect();
            for dtype in WeightType::ALL {
                // Starting at odd bytes: nothing is aligned in a file.
                let bytes = &bytes[cut % 7..];
                let length = bytes.len() / dtype.size() - cut;
                let weights = Floats::new(&bytes[..length * dtype.size()], dtype).unwrap();
                let mut expected = vec![0; length.div_ceil(64)];
                scalar::pack_signs(weights, &mut expected);
                for &level in Level::available() {
                    let mut words = vec![u64::MAX; length.div_ceil(64)];
                    pack_signs(level, weights, &mut words);
                    prop_assert_eq!(&words, &expected);
                }
            }
        }

        #[test]
        fn every_level_quantises_alike(
            patterns in patterns(),
            bits in 1u32..=16,
            low in -1.5f32..0.0,
            range in 0.01f32..3.0,
            columns in prop::sample::select(vec![0usize, 16, 32, 48]),
        ) {
            let bytes: Vec<[u8; 4]> = patterns.iter().map(|p| p.to_le_bytes()).collect();
            let rows = std::array::from_fn(|row| &bytes[48 * row..][..columns]);
            let high = low + range;
            let quantiser =
                Quantiser::new(WeightType::F32, low.into(), high.into(), bits).unwrap();
            let stride = columns / WIDTH + 3;
            let mut expected = vec![7; stride * bits as usize];
            scalar::level_keys(rows, quantiser, stride, &mut expected);
            for &level in Level::available() {
                let mut keys = vec![7; stride * bits as usize];
                level_keys(level, rows, quantiser, stride, &mut keys);
                prop_assert_eq!(&keys, &expected);
            }
        }
    }
}
