//! Sixteen lanes in two registers.

use std::arch::x86_64::*;

use super::isa::Isa;
use super::lanes::{LANES, Simd, Work, last_index};

/// Proof of AVX2 and FMA; sixteen lanes are two registers.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    pub fn detect() -> Option<Self> {
        Isa::Avx2.is_available().then_some(Self(()))
    }

    #[inline]
    pub fn vectorize<W: Work>(self, work: W) -> W::Output {
        #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
        fn enabled<W: Work>(simd: Avx2, work: W) -> W::Output {
            work.run(simd)
        }
        // SAFETY: the token proves that the processor has these features.
        unsafe { enabled(self, work) }
    }
}

/// Two registers as one vector.
#[derive(Clone, Copy)]
pub struct Pair<R>(R, R);

impl Simd for Avx2 {
    type Floats = Pair<__m256>;
    type Words = Pair<__m256i>;
    type Mask = Pair<__m256>;

    #[inline(always)]
    fn splat(self, value: f32) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        let register = unsafe { _mm256_set1_ps(value) };
        Pair(register, register)
    }
    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA; the array has sixteen lanes.
        unsafe {
            Pair(
                _mm256_loadu_ps(values.as_ptr()),
                _mm256_loadu_ps(values.as_ptr().add(8)),
            )
        }
    }
    #[inline(always)]
    fn to_array(self, a: Pair<__m256>) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        // SAFETY: the token proves AVX2 and FMA; the array has sixteen lanes.
        unsafe {
            _mm256_storeu_ps(values.as_mut_ptr(), a.0);
            _mm256_storeu_ps(values.as_mut_ptr().add(8), a.1);
        }
        values
    }
    #[inline(always)]
    fn add(self, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { Pair(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn sub(self, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { Pair(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn mul(self, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { Pair(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn min(self, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { Pair(_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn max(self, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { Pair(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn mul_add(self, a: Pair<__m256>, b: Pair<__m256>, c: Pair<__m256>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            Pair(
                _mm256_fmadd_ps(a.0, b.0, c.0),
                _mm256_fmadd_ps(a.1, b.1, c.1),
            )
        }
    }
    #[inline(always)]
    fn neg_mul_add(self, a: Pair<__m256>, b: Pair<__m256>, c: Pair<__m256>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            Pair(
                _mm256_fnmadd_ps(a.0, b.0, c.0),
                _mm256_fnmadd_ps(a.1, b.1, c.1),
            )
        }
    }
    #[inline(always)]
    fn le(self, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            Pair(
                _mm256_cmp_ps::<_CMP_LE_OQ>(a.0, b.0),
                _mm256_cmp_ps::<_CMP_LE_OQ>(a.1, b.1),
            )
        }
    }
    #[inline(always)]
    fn lt(self, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            Pair(
                _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0),
                _mm256_cmp_ps::<_CMP_LT_OQ>(a.1, b.1),
            )
        }
    }
    #[inline(always)]
    fn reduce_max(self, a: Pair<__m256>) -> f32 {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            let eight = _mm256_max_ps(a.0, a.1);
            let four = _mm_max_ps(
                _mm256_castps256_ps128(eight),
                _mm256_extractf128_ps::<1>(eight),
            );
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn reduce_min(self, a: Pair<__m256>) -> f32 {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            let eight = _mm256_min_ps(a.0, a.1);
            let four = _mm_min_ps(
                _mm256_castps256_ps128(eight),
                _mm256_extractf128_ps::<1>(eight),
            );
            let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_min_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn select(self, mask: Pair<__m256>, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            Pair(
                _mm256_blendv_ps(b.0, a.0, mask.0),
                _mm256_blendv_ps(b.1, a.1, mask.1),
            )
        }
    }
    #[inline(always)]
    fn bits(self, mask: Pair<__m256>) -> u32 {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            let low = _mm256_movemask_ps(mask.0).cast_unsigned();
            let high = _mm256_movemask_ps(mask.1).cast_unsigned();
            low | high << 8
        }
    }
    #[inline(always)]
    fn splat_words(self, value: u32) -> Pair<__m256i> {
        // SAFETY: the token proves AVX2 and FMA.
        let register = unsafe { _mm256_set1_epi32(value.cast_signed()) };
        Pair(register, register)
    }
    #[inline(always)]
    fn words_to_array(self, a: Pair<__m256i>) -> [u32; LANES] {
        // No intrinsic, which stays a call in code that is rarely run.
        // SAFETY: both are as many bytes, and all bits are valid.
        unsafe { std::mem::transmute::<[__m256i; 2], [u32; LANES]>([a.0, a.1]) }
    }
    #[inline(always)]
    fn select_words(self, mask: Pair<__m256>, a: Pair<__m256i>, b: Pair<__m256i>) -> Pair<__m256i> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            Pair(
                _mm256_blendv_epi8(b.0, a.0, _mm256_castps_si256(mask.0)),
                _mm256_blendv_epi8(b.1, a.1, _mm256_castps_si256(mask.1)),
            )
        }
    }
    #[inline(always)]
    fn double_plus(self, a: Pair<__m256i>, mask: Pair<__m256>) -> Pair<__m256i> {
        // A set mask is -1 in every lane, so subtracting it adds one.
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            Pair(
                _mm256_sub_epi32(_mm256_add_epi32(a.0, a.0), _mm256_castps_si256(mask.0)),
                _mm256_sub_epi32(_mm256_add_epi32(a.1, a.1), _mm256_castps_si256(mask.1)),
            )
        }
    }
    #[inline(always)]
    fn low_bits_equal(self, a: Pair<__m256i>, low_bits: u32, value: u32) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            let low_bits = _mm256_set1_epi32(low_bits.cast_signed());
            let value = _mm256_set1_epi32(value.cast_signed());
            let low = _mm256_cmpeq_epi32(_mm256_and_si256(a.0, low_bits), value);
            let high = _mm256_cmpeq_epi32(_mm256_and_si256(a.1, low_bits), value);
            Pair(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }
    #[inline(always)]
    fn lookup(self, table: &[u32], a: Pair<__m256i>) -> Pair<__m256i> {
        let last = last_index(table);
        // SAFETY: the token proves AVX2 and FMA; the indices are clamped to the table, whose
        // length fits the signed 32-bit indices of the gather.
        unsafe {
            let last = _mm256_set1_epi32(last.cast_signed());
            let pointer = table.as_ptr().cast();
            Pair(
                _mm256_i32gather_epi32::<4>(pointer, _mm256_min_epu32(a.0, last)),
                _mm256_i32gather_epi32::<4>(pointer, _mm256_min_epu32(a.1, last)),
            )
        }
    }
    #[inline(always)]
    fn words_as_floats(self, a: Pair<__m256i>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { Pair(_mm256_castsi256_ps(a.0), _mm256_castsi256_ps(a.1)) }
    }

    // Two products are added in 16 bits, which must hold `2 * 127 * 127`.
    const LARGEST_BYTE: i32 = 63;

    #[inline(always)]
    fn sqrt(self, a: Pair<__m256>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { Pair(_mm256_sqrt_ps(a.0), _mm256_sqrt_ps(a.1)) }
    }
    #[inline(always)]
    fn load_words(self, values: &[u32; LANES]) -> Pair<__m256i> {
        // SAFETY: the token proves AVX2 and FMA; the array has sixteen lanes.
        unsafe {
            Pair(
                _mm256_loadu_si256(values.as_ptr().cast()),
                _mm256_loadu_si256(values.as_ptr().add(8).cast()),
            )
        }
    }
    #[inline(always)]
    fn dot_bytes(self, sum: Pair<__m256i>, a: Pair<__m256i>, b: Pair<__m256i>) -> Pair<__m256i> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let low = _mm256_madd_epi16(_mm256_maddubs_epi16(a.0, b.0), ones);
            let high = _mm256_madd_epi16(_mm256_maddubs_epi16(a.1, b.1), ones);
            Pair(_mm256_add_epi32(sum.0, low), _mm256_add_epi32(sum.1, high))
        }
    }
    #[inline(always)]
    fn add_squared_gaps(
        self,
        sum: Pair<__m256i>,
        a: (Pair<__m256i>, Pair<__m256i>),
        b: (Pair<__m256i>, Pair<__m256i>),
    ) -> Pair<__m256i> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            let below = _mm256_subs_epu16(a.0.0, b.1.0);
            let low = _mm256_or_si256(below, _mm256_subs_epu16(b.0.0, a.1.0));
            let below = _mm256_subs_epu16(a.0.1, b.1.1);
            let high = _mm256_or_si256(below, _mm256_subs_epu16(b.0.1, a.1.1));
            Pair(
                _mm256_add_epi32(sum.0, _mm256_madd_epi16(low, low)),
                _mm256_add_epi32(sum.1, _mm256_madd_epi16(high, high)),
            )
        }
    }
    #[inline(always)]
    fn max_signed(self, a: Pair<__m256i>, b: Pair<__m256i>) -> Pair<__m256i> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { Pair(_mm256_max_epi32(a.0, b.0), _mm256_max_epi32(a.1, b.1)) }
    }
    #[inline(always)]
    fn ge_signed(self, a: Pair<__m256i>, b: Pair<__m256i>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            let low = _mm256_cmpeq_epi32(_mm256_max_epi32(a.0, b.0), a.0);
            let high = _mm256_cmpeq_epi32(_mm256_max_epi32(a.1, b.1), a.1);
            Pair(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }
    #[inline(always)]
    fn round_to_signed(self, a: Pair<__m256>) -> Pair<__m256i> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { Pair(_mm256_cvtps_epi32(a.0), _mm256_cvtps_epi32(a.1)) }
    }
    #[inline(always)]
    fn signed_to_floats(self, a: Pair<__m256i>) -> Pair<__m256> {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe { Pair(_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1)) }
    }
}
