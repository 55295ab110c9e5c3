//! The definition of every kernel, in portable code.

/// Rows and columns of a block.
pub const WIDTH: usize = 4;

/// The bit patterns `first..=last` of little-endian elements of `size` bytes (1, 2, 4 or 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patterns {
    /// Bytes of an element.
    pub size: usize,
    /// The first pattern, as an unsigned integer.
    pub first: u64,
    /// The last one, not below the first.
    pub last: u64,
}

/// The levels of float32 weights: `round((w - low) / step)`, ties to even, from 0 to
/// `2^bits - 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// The weight of level 0.
    pub low: f32,
    /// Step between levels; 0 if all levels are 0.
    pub step: f32,
    /// Bits of a level, from 1 to 16.
    pub bits: u32,
}

impl Levels {
    /// The level of a weight; 0 for NaN.
    #[inline]
    pub fn of(self, weight: f32) -> u16 {
        if self.step == 0.0 {
            return 0;
        }
        let highest = ((1u32 << self.bits) - 1) as f32;
        let level = (weight - self.low) / self.step;
        // Written so that NaN ends at 0.
        let level = if level > 0.0 { level } else { 0.0 };
        let level = level.min(highest);
        // Adding what leaves no room for a fraction rounds to nearest, ties to even, without the
        // library call that the portable instruction set would take.
        const NO_FRACTION: f32 = 1.0 / f32::EPSILON;
        ((level + NO_FRACTION) - NO_FRACTION) as u16
    }
}

/// As [`super::pack_patterns`], for any number of elements.
pub fn pack_patterns(bytes: &[u8], patterns: Patterns, words: &mut [u64]) {
    let first = patterns.first;
    let span = patterns.last - first;
    match patterns.size {
        8 => pack_elements(bytes, words, |bytes| {
            u64::from_le_bytes(bytes).wrapping_sub(first) <= span
        }),
        4 => pack_elements(bytes, words, |bytes| {
            u32::from_le_bytes(bytes).wrapping_sub(first as u32) <= span as u32
        }),
        2 => pack_elements(bytes, words, |bytes| {
            u16::from_le_bytes(bytes).wrapping_sub(first as u16) <= span as u16
        }),
        _ => pack_elements(bytes, words, |[byte]: [u8; 1]| {
            byte.wrapping_sub(first as u8) <= span as u8
        }),
    }
}

#[inline]
fn pack_elements<const SIZE: usize>(
    bytes: &[u8],
    words: &mut [u64],
    is_set: impl Fn([u8; SIZE]) -> bool,
) {
    for (word, weights) in words.iter_mut().zip(bytes.chunks(64 * SIZE)) {
        // Flags first, bits later: the first loop vectorises.
        let mut flags = [0u8; 64];
        for (flag, pattern) in flags.iter_mut().zip(weights.as_chunks::<SIZE>().0) {
            *flag = u8::from(is_set(*pattern));
        }
        *word = 0;
        for (index, eight) in flags.as_chunks::<8>().0.iter().enumerate() {
            // Multiplying gathers the lowest bits of eight bytes in the highest byte.
            let gathered = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            *word |= gathered << (8 * index);
        }
    }
}

/// As [`super::plane_keys`].
pub fn plane_keys(rows: [&[[u8; 4]]; WIDTH], levels: Levels, stride: usize, keys: &mut [u16]) {
    for block in 0..rows[0].len() / WIDTH {
        let block_levels = std::array::from_fn(|element| {
            let (row, column) = (element / WIDTH, element % WIDTH);
            levels.of(f32::from_le_bytes(rows[row][block * WIDTH + column]))
        });
        for (plane, key) in keys_of_levels(&block_levels, levels.bits).enumerate() {
            keys[plane * stride + block] = key;
        }
    }
}

/// The key of each plane of a block of levels.
pub fn keys_of_levels(levels: &[u16; WIDTH * WIDTH], bits: u32) -> impl Iterator<Item = u16> {
    (0..bits).map(|plane| {
        levels
            .iter()
            .enumerate()
            .map(|(element, level)| (level >> plane & 1) << element)
            .sum()
    })
}
