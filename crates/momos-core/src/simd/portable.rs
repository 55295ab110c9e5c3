//! Plain arrays, which the compiler vectorises as far as it can.

use super::lanes::{LANES, Simd, last_index};

/// Plain arrays; also the reference that tests compare the others to.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

#[inline(always)]
fn map2<A: Copy, B: Copy, C: Copy + Default>(
    a: [A; LANES],
    b: [B; LANES],
    f: impl Fn(A, B) -> C,
) -> [C; LANES] {
    let mut result = [C::default(); LANES];
    for lane in 0..LANES {
        result[lane] = f(a[lane], b[lane]);
    }
    result
}

impl Simd for Portable {
    const PLAIN_ARRAYS: bool = true;

    type Floats = [f32; LANES];
    type Words = [u32; LANES];
    type Mask = [bool; LANES];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        [value; LANES]
    }
    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Self::Floats {
        *values
    }
    #[inline(always)]
    fn to_array(self, a: Self::Floats) -> [f32; LANES] {
        a
    }
    #[inline(always)]
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        map2(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        map2(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        map2(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // Not `f32::mul_add`: without hardware support that is a slow library call.
        map2(map2(a, b, |a, b| a * b), c, |ab, c| ab + c)
    }
    #[inline(always)]
    fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        map2(map2(a, b, |a, b| a * b), c, |ab, c| c - ab)
    }
    #[inline(always)]
    fn le(self, a: Self::Floats, b: Self::Floats) -> Self::Mask {
        map2(a, b, |a, b| a <= b)
    }
    #[inline(always)]
    fn lt(self, a: Self::Floats, b: Self::Floats) -> Self::Mask {
        map2(a, b, |a, b| a < b)
    }
    #[inline(always)]
    fn reduce_max(self, a: Self::Floats) -> f32 {
        a.into_iter()
            .fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }
    #[inline(always)]
    fn reduce_min(self, a: Self::Floats) -> f32 {
        a.into_iter()
            .fold(f32::INFINITY, |a, b| if b < a { b } else { a })
    }
    #[inline(always)]
    fn select(self, mask: Self::Mask, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        let mut result = b;
        for lane in 0..LANES {
            result[lane] = if mask[lane] { a[lane] } else { b[lane] };
        }
        result
    }
    #[inline(always)]
    fn bits(self, mask: Self::Mask) -> u32 {
        mask.iter()
            .enumerate()
            .fold(0, |bits, (lane, &set)| bits | u32::from(set) << lane)
    }
    #[inline(always)]
    fn splat_words(self, value: u32) -> Self::Words {
        [value; LANES]
    }
    #[inline(always)]
    fn words_to_array(self, a: Self::Words) -> [u32; LANES] {
        a
    }
    #[inline(always)]
    fn select_words(self, mask: Self::Mask, a: Self::Words, b: Self::Words) -> Self::Words {
        let mut result = b;
        for lane in 0..LANES {
            result[lane] = if mask[lane] { a[lane] } else { b[lane] };
        }
        result
    }
    #[inline(always)]
    fn double_plus(self, a: Self::Words, mask: Self::Mask) -> Self::Words {
        map2(a, mask, |a, set| (a << 1) | u32::from(set))
    }
    #[inline(always)]
    fn low_bits_equal(self, a: Self::Words, low_bits: u32, value: u32) -> Self::Mask {
        a.map(|a| a & low_bits == value)
    }
    #[inline(always)]
    fn lookup(self, table: &[u32], a: Self::Words) -> Self::Words {
        let last = last_index(table);
        a.map(|a| table[a.min(last) as usize])
    }
    #[inline(always)]
    fn words_as_floats(self, a: Self::Words) -> Self::Floats {
        a.map(f32::from_bits)
    }

    const LARGEST_BYTE: i32 = 127;

    #[inline(always)]
    fn sqrt(self, a: Self::Floats) -> Self::Floats {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn load_words(self, values: &[u32; LANES]) -> Self::Words {
        *values
    }
    #[inline(always)]
    fn dot_bytes(self, mut sum: Self::Words, a: Self::Words, b: Self::Words) -> Self::Words {
        for lane in 0..LANES {
            let (a, b) = (a[lane].to_le_bytes(), b[lane].to_le_bytes());
            let mut dot = 0;
            for byte in 0..4 {
                dot += i32::from(a[byte]) * i32::from(b[byte].cast_signed());
            }
            sum[lane] = sum[lane].wrapping_add(dot.cast_unsigned());
        }
        sum
    }
    #[inline(always)]
    fn add_squared_gaps(
        self,
        mut sum: Self::Words,
        a: (Self::Words, Self::Words),
        b: (Self::Words, Self::Words),
    ) -> Self::Words {
        for lane in 0..LANES {
            for shift in [0, 16] {
                let half = |words: Self::Words| words[lane] >> shift & 0xffff;
                let gap = half(a.0).saturating_sub(half(b.1)) | half(b.0).saturating_sub(half(a.1));
                sum[lane] = sum[lane].wrapping_add(gap * gap);
            }
        }
        sum
    }
    #[inline(always)]
    fn max_signed(self, a: Self::Words, b: Self::Words) -> Self::Words {
        map2(a, b, |a, b| {
            a.cast_signed().max(b.cast_signed()).cast_unsigned()
        })
    }
    #[inline(always)]
    fn ge_signed(self, a: Self::Words, b: Self::Words) -> Self::Mask {
        map2(a, b, |a, b| a.cast_signed() >= b.cast_signed())
    }
    #[inline(always)]
    fn round_to_signed(self, a: Self::Floats) -> Self::Words {
        // Adding and taking away 1.5 * 2^23 rounds what is smaller; the rest is whole already.
        const WHOLE: f32 = 12_582_912.0;
        a.map(|a| {
            let rounded = if a.abs() < 4_194_304.0 {
                (a + WHOLE) - WHOLE
            } else {
                a.round_ties_even()
            };
            (rounded as i32).cast_unsigned()
        })
    }
    #[inline(always)]
    fn signed_to_floats(self, a: Self::Words) -> Self::Floats {
        a.map(|a| a.cast_signed() as f32)
    }
}
