//! The definition of every kernel, in portable code.

use crate::complexity::floats::Floats;
use crate::complexity::planes::{Quantiser, WIDTH, keys_of_levels};

/// As [`super::pack_signs`], for any number of weights.
pub fn pack_signs(weights: Floats<'_>, words: &mut [u64]) {
    let (first, last) = weights.dtype().positive_patterns();
    let span = last - first;
    match weights.dtype().size() {
        8 => pack_patterns(weights.bytes(), words, |bytes| {
            u64::from_le_bytes(bytes).wrapping_sub(first) <= span
        }),
        4 => pack_patterns(weights.bytes(), words, |bytes| {
            u32::from_le_bytes(bytes).wrapping_sub(first as u32) <= span as u32
        }),
        2 => pack_patterns(weights.bytes(), words, |bytes| {
            u16::from_le_bytes(bytes).wrapping_sub(first as u16) <= span as u16
        }),
        _ => pack_patterns(weights.bytes(), words, |[byte]: [u8; 1]| {
            byte.wrapping_sub(first as u8) <= span as u8
        }),
    }
}

#[inline]
fn pack_patterns<const SIZE: usize>(
    bytes: &[u8],
    words: &mut [u64],
    is_positive: impl Fn([u8; SIZE]) -> bool,
) {
    for (word, weights) in words.iter_mut().zip(bytes.chunks(64 * SIZE)) {
        // Flags first, bits later: the first loop vectorises.
        let mut flags = [0u8; 64];
        for (flag, pattern) in flags.iter_mut().zip(weights.as_chunks::<SIZE>().0) {
            *flag = u8::from(is_positive(*pattern));
        }
        *word = 0;
        for (index, eight) in flags.as_chunks::<8>().0.iter().enumerate() {
            // Multiplying gathers the lowest bits of eight bytes in the highest byte.
            let gathered = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            *word |= gathered << (8 * index);
        }
    }
}

/// As [`super::level_keys`].
pub fn level_keys(
    rows: [&[[u8; 4]]; WIDTH],
    quantiser: Quantiser,
    stride: usize,
    keys: &mut [u16],
) {
    for block in 0..rows[0].len() / WIDTH {
        let levels = std::array::from_fn(|element| {
            let (row, column) = (element / WIDTH, element % WIDTH);
            quantiser.level_f32(f32::from_le_bytes(rows[row][block * WIDTH + column]))
        });
        for (plane, key) in keys_of_levels(&levels, quantiser.bits()).enumerate() {
            keys[plane * stride + block] = key;
        }
    }
}
