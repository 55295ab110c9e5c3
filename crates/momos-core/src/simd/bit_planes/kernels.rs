//! The kernels, each run with the best code for an instruction set.

use super::super::isa::{Available, Isa};
use super::scalar::{self, Levels, Patterns, WIDTH};
#[cfg(target_arch = "x86_64")]
use super::x86;

/// Packs whether elements have one of the patterns: element `i` at bit `i % 64` of word `i / 64`,
/// the rest of the last word 0.
///
/// # Panics
/// Unless the elements are whole and there is one word per 64 of them, including the last, partial one.
pub fn pack_patterns(isa: Available, bytes: &[u8], patterns: Patterns, words: &mut [u64]) {
    let size = patterns.size;
    assert!(bytes.len().is_multiple_of(size), "whole elements");
    let elements = bytes.len() / size;
    assert_eq!(words.len(), elements.div_ceil(64), "words for the bits");
    let whole = elements / 64;
    let (full, rest) = words.split_at_mut(whole);
    let (head, tail) = bytes.split_at(whole * 64 * size);
    match isa.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX-512F and BW.
        Isa::Avx512Vnni | Isa::Avx512 => unsafe {
            x86::pack_patterns_avx512(head, patterns, full);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX2.
        Isa::Avx2 if size == 4 => unsafe { x86::pack_patterns_avx2(head, patterns, full) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512Vnni | Isa::Avx512 => scalar::pack_patterns(head, patterns, full),
        Isa::Avx2 | Isa::NeonDot | Isa::Neon | Isa::Portable => {
            scalar::pack_patterns(head, patterns, full);
        }
    }
    scalar::pack_patterns(tail, patterns, rest);
}

/// Columns that [`plane_keys`] takes at a time: those of one AVX-512 register of float32.
pub const COLUMNS: usize = 16;

/// Quantises a strip of four rows of float32 weights (little-endian) and writes the key of each
/// 4x4 block of plane `p`, from left to right, from `keys[p * stride]` on.
///
/// # Panics
/// Unless the levels have 1 to 16 bits, the rows are equally long, a multiple of [`COLUMNS`], and
/// the keys of every plane fit.
pub fn plane_keys(
    isa: Available,
    rows: [&[[u8; 4]]; WIDTH],
    levels: Levels,
    stride: usize,
    keys: &mut [u16],
) {
    let columns = rows[0].len();
    assert!(
        rows.iter().all(|row| row.len() == columns),
        "rows of one length"
    );
    assert!(columns.is_multiple_of(COLUMNS), "whole vectors");
    let planes = levels.bits as usize;
    assert!((1..=16).contains(&planes), "1 to 16 bits");
    let needed = (planes - 1)
        .checked_mul(stride)
        .and_then(|before| before.checked_add(columns / WIDTH));
    assert!(
        needed.is_some_and(|needed| needed <= keys.len()),
        "room for the keys"
    );
    if levels.step == 0.0 {
        for plane in 0..planes {
            keys[plane * stride..][..columns / WIDTH].fill(0);
        }
        return;
    }
    match isa.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX-512F and BW; lengths are asserted above.
        Isa::Avx512Vnni | Isa::Avx512 => unsafe {
            x86::plane_keys_avx512(rows, levels, stride, keys);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX2; lengths are asserted above.
        Isa::Avx2 => unsafe { x86::plane_keys_avx2(rows, levels, stride, keys) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 => {
            scalar::plane_keys(rows, levels, stride, keys);
        }
        Isa::NeonDot | Isa::Neon | Isa::Portable => scalar::plane_keys(rows, levels, stride, keys),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn patterns() -> impl Strategy<Value = Vec<u32>> {
        // Ordinary values, and any bit pattern: NaNs, infinities, subnormals, both zeros.
        prop::collection::vec(
            prop_oneof![(-2f32..2.0).prop_map(f32::to_bits), any::<u32>()],
            4 * 48,
        )
    }

    /// Runs of patterns of every size: positive floats, and others.
    fn runs() -> impl Strategy<Value = Patterns> {
        let any_run = (0u32..4, any::<u64>(), any::<u64>()).prop_map(|(log_size, a, b)| {
            let unused = 64 - (8 << log_size);
            let (a, b) = (a >> unused, b >> unused);
            Patterns {
                size: 1 << log_size,
                first: a.min(b),
                last: a.max(b),
            }
        });
        let positive = [
            (8, 1, 0x7ff0_0000_0000_0000),
            (4, 1, 0x7f80_0000),
            (2, 1, 0x7c00),
            (2, 1, 0x7f80),
            (1, 1, 0x7e),
            (1, 0, 0xfe),
        ];
        let positive = positive.map(|(size, first, last)| Patterns { size, first, last });
        prop_oneof![prop::sample::select(positive.to_vec()), any_run]
    }

    proptest! {
        #[test]
        fn every_instruction_set_packs_alike(
            patterns in patterns(),
            cut in 0usize..64,
            run in runs(),
        ) {
            let bytes: Vec<u8> = patterns.iter().flat_map(|p| p.to_le_bytes()).collect();
            // Starting at odd bytes: nothing is aligned in a file.
            let bytes = &bytes[cut % 7..];
            let length = bytes.len() / run.size - cut;
            let bytes = &bytes[..length * run.size];
            let mut expected = vec![0; length.div_ceil(64)];
            scalar::pack_patterns(bytes, run, &mut expected);
            for &isa in Available::all() {
                let mut words = vec![u64::MAX; length.div_ceil(64)];
                pack_patterns(isa, bytes, run, &mut words);
                prop_assert_eq!(&words, &expected);
            }
        }

        #[test]
        fn every_instruction_set_quantises_alike(
            patterns in patterns(),
            bits in 1u32..=16,
            low in -1.5f32..0.0,
            range in 0.01f32..3.0,
            columns in prop::sample::select(vec![0usize, 16, 32, 48]),
        ) {
            let bytes: Vec<[u8; 4]> = patterns.iter().map(|p| p.to_le_bytes()).collect();
            let rows = std::array::from_fn(|row| &bytes[48 * row..][..columns]);
            let step = range / ((1u32 << bits) - 1) as f32;
            let levels = Levels { low, step, bits };
            let stride = columns / WIDTH + 3;
            let mut expected = vec![7; stride * bits as usize];
            scalar::plane_keys(rows, levels, stride, &mut expected);
            for &isa in Available::all() {
                let mut keys = vec![7; stride * bits as usize];
                plane_keys(isa, rows, levels, stride, &mut keys);
                prop_assert_eq!(&keys, &expected);
            }
        }
    }
}
