//! Kernels for x86-64.

use std::arch::x86_64::*;

use super::scalar::{Levels, Patterns, WIDTH};

/// As [`super::pack_patterns`], for whole words.
#[target_feature(enable = "avx512f,avx512bw")]
pub fn pack_patterns_avx512(bytes: &[u8], patterns: Patterns, words: &mut [u64]) {
    let Patterns { size, first, last } = patterns;
    assert_eq!(bytes.len(), 64 * size * words.len(), "words for the bits");
    let bytes = bytes.as_ptr();
    let load = |word: usize, part: usize| {
        // SAFETY: a word covers `64 * size` bytes, `size` registers; all of them are within the
        // weights by the assertion, and the load is an unaligned one.
        unsafe { _mm512_loadu_si512(bytes.add((word * size + part) * 64).cast()) }
    };
    let span = last - first;
    match size {
        8 => {
            let (first, span) = (
                _mm512_set1_epi64(first as i64),
                _mm512_set1_epi64(span as i64),
            );
            for (index, word) in words.iter_mut().enumerate() {
                *word = 0;
                for part in 0..8 {
                    let pattern = _mm512_sub_epi64(load(index, part), first);
                    *word |= u64::from(_mm512_cmple_epu64_mask(pattern, span)) << (8 * part);
                }
            }
        }
        4 => {
            let (first, span) = (
                _mm512_set1_epi32(first as i32),
                _mm512_set1_epi32(span as i32),
            );
            for (index, word) in words.iter_mut().enumerate() {
                *word = 0;
                for part in 0..4 {
                    let pattern = _mm512_sub_epi32(load(index, part), first);
                    *word |= u64::from(_mm512_cmple_epu32_mask(pattern, span)) << (16 * part);
                }
            }
        }
        2 => {
            let (first, span) = (
                _mm512_set1_epi16(first as i16),
                _mm512_set1_epi16(span as i16),
            );
            for (index, word) in words.iter_mut().enumerate() {
                *word = 0;
                for part in 0..2 {
                    let pattern = _mm512_sub_epi16(load(index, part), first);
                    *word |= u64::from(_mm512_cmple_epu16_mask(pattern, span)) << (32 * part);
                }
            }
        }
        _ => {
            let (first, span) = (_mm512_set1_epi8(first as i8), _mm512_set1_epi8(span as i8));
            for (index, word) in words.iter_mut().enumerate() {
                let pattern = _mm512_sub_epi8(load(index, 0), first);
                *word = _mm512_cmple_epu8_mask(pattern, span);
            }
        }
    }
}

/// As [`super::pack_patterns`], for whole words of four-byte elements.
#[target_feature(enable = "avx2")]
pub fn pack_patterns_avx2(bytes: &[u8], patterns: Patterns, words: &mut [u64]) {
    assert_eq!(patterns.size, 4, "four-byte elements");
    assert_eq!(bytes.len(), 256 * words.len(), "words for the bits");
    let (first, last) = (patterns.first as i32, patterns.last as i32);
    let bytes = bytes.as_ptr();
    // Moved so that the first pattern becomes the smallest signed integer: only signed integers
    // can be compared.
    let moved = _mm256_set1_epi32(first.wrapping_sub(i32::MIN));
    let highest = _mm256_set1_epi32(last.wrapping_sub(first).wrapping_add(i32::MIN));
    for (index, word) in words.iter_mut().enumerate() {
        *word = 0;
        for part in 0..8 {
            // SAFETY: bytes `256 * index + 32 * part ..` and 32 more are within the elements by
            // the assertion; the load is an unaligned one.
            let pattern = unsafe { _mm256_loadu_si256(bytes.add(256 * index + 32 * part).cast()) };
            let outside = _mm256_cmpgt_epi32(_mm256_sub_epi32(pattern, moved), highest);
            let mask = !_mm256_movemask_ps(_mm256_castsi256_ps(outside)) & 0xff;
            *word |= u64::from(mask as u32) << (8 * part);
        }
    }
}

/// Nearest, ties to even, whatever the thread's rounding mode.
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// As [`super::plane_keys`]; the step is not 0.
///
/// Each 128-bit lane holds one block: its rows are combined to a byte per weight, then shuffled
/// from column-major to row-major order. The highest bits of the bytes are the key of the highest
/// plane; doubling every byte brings up the next plane.
///
/// # Safety
/// The caller has checked what [`super::plane_keys`] asserts.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn plane_keys_avx512(
    rows: [&[[u8; 4]]; WIDTH],
    scale: Levels,
    stride: usize,
    keys: &mut [u16],
) {
    const COLUMNS: usize = 16;
    let low = _mm512_set1_ps(scale.low);
    let step = _mm512_set1_ps(scale.step);
    let bits = scale.bits as usize;
    let highest = _mm512_set1_ps(((1u32 << bits) - 1) as f32);
    let transpose = _mm512_broadcast_i32x4(transpose_block());
    let byte = _mm512_set1_epi32(0xff);
    for group in 0..rows[0].len() / COLUMNS {
        let levels = rows.map(|row| {
            // SAFETY: the rows are equally long and this group of 16 lies within the first.
            let weights = unsafe { _mm512_loadu_ps(row.as_ptr().add(group * COLUMNS).cast()) };
            let level = _mm512_div_ps(_mm512_sub_ps(weights, low), step);
            // In this order NaN becomes 0.
            let level = _mm512_max_ps(level, _mm512_setzero_ps());
            _mm512_cvt_roundps_epi32::<NEAREST>(_mm512_min_ps(level, highest))
        });
        for first_plane in (0..bits).step_by(8) {
            let shift = _mm_cvtsi32_si128(first_plane as i32);
            let [a, b, c, d] =
                levels.map(|level| _mm512_and_si512(_mm512_srl_epi32(level, shift), byte));
            let ab = _mm512_or_si512(a, _mm512_slli_epi32::<8>(b));
            let cd = _mm512_or_si512(_mm512_slli_epi32::<16>(c), _mm512_slli_epi32::<24>(d));
            let blocks = _mm512_shuffle_epi8(_mm512_or_si512(ab, cd), transpose);
            let planes = (bits - first_plane).min(8);
            let mut blocks = _mm512_sll_epi32(blocks, _mm_cvtsi32_si128(8 - planes as i32));
            for plane in (first_plane..first_plane + planes).rev() {
                let four_keys = _mm512_movepi8_mask(blocks);
                // SAFETY: four keys at `plane * stride + 4 * group`, within the keys since there
                // is room for every block of the last plane.
                unsafe {
                    let at = keys
                        .as_mut_ptr()
                        .add(plane * stride + group * COLUMNS / WIDTH);
                    at.cast::<u64>().write_unaligned(four_keys);
                }
                blocks = _mm512_add_epi8(blocks, blocks);
            }
        }
    }
}

/// As [`plane_keys_avx512`], two blocks at a time.
///
/// # Safety
/// The caller has checked what [`super::plane_keys`] asserts.
#[target_feature(enable = "avx2")]
pub unsafe fn plane_keys_avx2(
    rows: [&[[u8; 4]]; WIDTH],
    scale: Levels,
    stride: usize,
    keys: &mut [u16],
) {
    const COLUMNS: usize = 8;
    let low = _mm256_set1_ps(scale.low);
    let step = _mm256_set1_ps(scale.step);
    let bits = scale.bits as usize;
    let highest = _mm256_set1_ps(((1u32 << bits) - 1) as f32);
    let transpose = _mm256_broadcastsi128_si256(transpose_block());
    let byte = _mm256_set1_epi32(0xff);
    for group in 0..rows[0].len() / COLUMNS {
        let levels = rows.map(|row| {
            // SAFETY: the rows are equally long and this group of 8 lies within the first.
            let weights = unsafe { _mm256_loadu_ps(row.as_ptr().add(group * COLUMNS).cast()) };
            let level = _mm256_div_ps(_mm256_sub_ps(weights, low), step);
            let level = _mm256_min_ps(_mm256_max_ps(level, _mm256_setzero_ps()), highest);
            // Rounding first makes the conversion exact in every rounding mode.
            _mm256_cvtps_epi32(_mm256_round_ps::<NEAREST>(level))
        });
        for first_plane in (0..bits).step_by(8) {
            let shift = _mm_cvtsi32_si128(first_plane as i32);
            let [a, b, c, d] =
                levels.map(|level| _mm256_and_si256(_mm256_srl_epi32(level, shift), byte));
            let ab = _mm256_or_si256(a, _mm256_slli_epi32::<8>(b));
            let cd = _mm256_or_si256(_mm256_slli_epi32::<16>(c), _mm256_slli_epi32::<24>(d));
            let blocks = _mm256_shuffle_epi8(_mm256_or_si256(ab, cd), transpose);
            let planes = (bits - first_plane).min(8);
            let mut blocks = _mm256_sll_epi32(blocks, _mm_cvtsi32_si128(8 - planes as i32));
            for plane in (first_plane..first_plane + planes).rev() {
                let two_keys = _mm256_movemask_epi8(blocks) as u32;
                // SAFETY: two keys at `plane * stride + 2 * group`, within the keys since there
                // is room for every block of the last plane.
                unsafe {
                    let at = keys
                        .as_mut_ptr()
                        .add(plane * stride + group * COLUMNS / WIDTH);
                    at.cast::<u32>().write_unaligned(two_keys);
                }
                blocks = _mm256_add_epi8(blocks, blocks);
            }
        }
    }
}

/// Moves byte `4 * column + row` of a block to `4 * row + column`.
#[target_feature(enable = "sse2")]
fn transpose_block() -> __m128i {
    _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
}
