//! Sixteen lanes in four registers of aarch64.

use std::arch::aarch64::*;
use std::arch::asm;
use std::array::from_fn;

use super::isa::Isa;
use super::lanes::{LANES, Simd, Work, last_index};

/// Proof of NEON, which every aarch64 processor has, and of the dot products of bytes if `DOT`.
#[derive(Clone, Copy, Debug)]
pub struct Neon<const DOT: bool>(());

impl<const DOT: bool> Neon<DOT> {
    pub fn detect() -> Option<Self> {
        let isa = if DOT { Isa::NeonDot } else { Isa::Neon };
        isa.is_available().then_some(Self(()))
    }

    #[inline]
    pub fn vectorize<W: Work>(self, work: W) -> W::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn with_dot<W: Work>(simd: Neon<true>, work: W) -> W::Output {
            work.run(simd)
        }
        if DOT {
            // SAFETY: the token proves that the processor has these features.
            unsafe { with_dot(Neon(()), work) }
        } else {
            work.run(self)
        }
    }
}

/// Four registers as one vector.
type Four<R> = [R; 4];

/// Adds to four lanes the products of their four bytes, all signed.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // The intrinsic is not stable yet.
    // SAFETY: the function's features have the instruction, which touches only these registers.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// The same without the instruction.
#[inline(always)]
fn dot_of_halves(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: NEON is part of the target.
    unsafe {
        let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
        let high = vmull_high_s8(a, b);
        vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)))
    }
}

impl<const DOT: bool> Simd for Neon<DOT> {
    type Floats = Four<float32x4_t>;
    type Words = Four<uint32x4_t>;
    type Mask = Four<uint32x4_t>;

    // Products of signed bytes of magnitudes up to 127 add up in 16 bits, by pairs, in 32.
    const LARGEST_BYTE: i32 = 127;
    const ZERO_BYTE: i32 = 0;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        // SAFETY: NEON is part of the target.
        [unsafe { vdupq_n_f32(value) }; 4]
    }
    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Self::Floats {
        // SAFETY: NEON is part of the target; the array has four times four lanes.
        from_fn(|i| unsafe { vld1q_f32(values.as_ptr().add(4 * i)) })
    }
    #[inline(always)]
    fn to_array(self, a: Self::Floats) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        for (i, part) in a.into_iter().enumerate() {
            // SAFETY: NEON is part of the target; the array has four times four lanes.
            unsafe { vst1q_f32(values.as_mut_ptr().add(4 * i), part) };
        }
        values
    }
    #[inline(always)]
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vaddq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vsubq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vmulq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vminq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vmaxq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }
    #[inline(always)]
    fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vfmsq_f32(c[i], a[i], b[i]) })
    }
    #[inline(always)]
    fn le(self, a: Self::Floats, b: Self::Floats) -> Self::Mask {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vcleq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn lt(self, a: Self::Floats, b: Self::Floats) -> Self::Mask {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vcltq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn reduce_max(self, a: Self::Floats) -> f32 {
        // SAFETY: NEON is part of the target.
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(a[0], a[1]), vmaxq_f32(a[2], a[3]))) }
    }
    #[inline(always)]
    fn reduce_min(self, a: Self::Floats) -> f32 {
        // SAFETY: NEON is part of the target.
        unsafe { vminvq_f32(vminq_f32(vminq_f32(a[0], a[1]), vminq_f32(a[2], a[3]))) }
    }
    #[inline(always)]
    fn select(self, mask: Self::Mask, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vbslq_f32(mask[i], a[i], b[i]) })
    }
    #[inline(always)]
    fn bits(self, mask: Self::Mask) -> u32 {
        const WEIGHTS: [u32; 4] = [1, 2, 4, 8];
        let mut bits = 0;
        for (i, part) in mask.into_iter().enumerate() {
            // SAFETY: NEON is part of the target; the array has four lanes.
            bits |= unsafe { vaddvq_u32(vandq_u32(part, vld1q_u32(WEIGHTS.as_ptr()))) } << (4 * i);
        }
        bits
    }
    #[inline(always)]
    fn splat_words(self, value: u32) -> Self::Words {
        // SAFETY: NEON is part of the target.
        [unsafe { vdupq_n_u32(value) }; 4]
    }
    #[inline(always)]
    fn words_to_array(self, a: Self::Words) -> [u32; LANES] {
        let mut values = [0; LANES];
        for (i, part) in a.into_iter().enumerate() {
            // SAFETY: NEON is part of the target; the array has four times four lanes.
            unsafe { vst1q_u32(values.as_mut_ptr().add(4 * i), part) };
        }
        values
    }
    #[inline(always)]
    fn select_words(self, mask: Self::Mask, a: Self::Words, b: Self::Words) -> Self::Words {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vbslq_u32(mask[i], a[i], b[i]) })
    }
    #[inline(always)]
    fn double_plus(self, a: Self::Words, mask: Self::Mask) -> Self::Words {
        // A set mask is -1 in every lane, so subtracting it adds one.
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vsubq_u32(vaddq_u32(a[i], a[i]), mask[i]) })
    }
    #[inline(always)]
    fn low_bits_equal(self, a: Self::Words, low_bits: u32, value: u32) -> Self::Mask {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe {
            vceqq_u32(vandq_u32(a[i], vdupq_n_u32(low_bits)), vdupq_n_u32(value))
        })
    }
    #[inline(always)]
    fn lookup(self, table: &[u32], a: Self::Words) -> Self::Words {
        let last = last_index(table);
        let indices = self.words_to_array(a);
        self.load_words(&indices.map(|index| table[index.min(last) as usize]))
    }
    #[inline(always)]
    fn words_as_floats(self, a: Self::Words) -> Self::Floats {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vreinterpretq_f32_u32(a[i]) })
    }
    #[inline(always)]
    fn sqrt(self, a: Self::Floats) -> Self::Floats {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vsqrtq_f32(a[i]) })
    }
    #[inline(always)]
    fn load_words(self, values: &[u32; LANES]) -> Self::Words {
        // SAFETY: NEON is part of the target; the array has four times four lanes.
        from_fn(|i| unsafe { vld1q_u32(values.as_ptr().add(4 * i)) })
    }
    #[inline(always)]
    fn dot_bytes(self, sum: Self::Words, a: Self::Words, b: Self::Words) -> Self::Words {
        // SAFETY: NEON is part of the target, and the token proves the dot products where they
        // are used.
        from_fn(|i| unsafe {
            let (a, b) = (vreinterpretq_s8_u32(a[i]), vreinterpretq_s8_u32(b[i]));
            let sum = vreinterpretq_s32_u32(sum[i]);
            vreinterpretq_u32_s32(if DOT {
                dot(sum, a, b)
            } else {
                dot_of_halves(sum, a, b)
            })
        })
    }
    #[inline(always)]
    fn add_squared_gaps(
        self,
        sum: Self::Words,
        a: (Self::Words, Self::Words),
        b: (Self::Words, Self::Words),
    ) -> Self::Words {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe {
            let halves = |words: uint32x4_t| vreinterpretq_u16_u32(words);
            let gaps = vorrq_u16(
                vqsubq_u16(halves(a.0[i]), halves(b.1[i])),
                vqsubq_u16(halves(b.0[i]), halves(a.1[i])),
            );
            let low = vmull_u16(vget_low_u16(gaps), vget_low_u16(gaps));
            let high = vmull_high_u16(gaps, gaps);
            vaddq_u32(sum[i], vpaddq_u32(low, high))
        })
    }
    #[inline(always)]
    fn max_signed(self, a: Self::Words, b: Self::Words) -> Self::Words {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe {
            let larger = vmaxq_s32(vreinterpretq_s32_u32(a[i]), vreinterpretq_s32_u32(b[i]));
            vreinterpretq_u32_s32(larger)
        })
    }
    #[inline(always)]
    fn ge_signed(self, a: Self::Words, b: Self::Words) -> Self::Mask {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vcgeq_s32(vreinterpretq_s32_u32(a[i]), vreinterpretq_s32_u32(b[i])) })
    }
    #[inline(always)]
    fn round_to_signed(self, a: Self::Floats) -> Self::Words {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vreinterpretq_u32_s32(vcvtnq_s32_f32(a[i])) })
    }
    #[inline(always)]
    fn signed_to_floats(self, a: Self::Words) -> Self::Floats {
        // SAFETY: NEON is part of the target.
        from_fn(|i| unsafe { vcvtq_f32_s32(vreinterpretq_s32_u32(a[i])) })
    }
}
