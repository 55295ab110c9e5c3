//! Sixteen lanes in one register.

use std::arch::x86_64::*;

use super::isa::Isa;
use super::lanes::{LANES, Simd, Work, last_index};

// Every unsafe block below either calls an intrinsic whose instructions the token `self`
// proves to be there, or reads and writes whole arrays of sixteen lanes, or gathers at
// indices that were clamped to the table.

/// Proof of AVX-512F and BW (and of the older extensions that come with them), and of VNNI if
/// that is true.
#[derive(Clone, Copy, Debug)]
pub struct Avx512<const VNNI: bool>(());

impl<const VNNI: bool> Avx512<VNNI> {
    pub fn detect() -> Option<Self> {
        let isa = if VNNI { Isa::Avx512Vnni } else { Isa::Avx512 };
        isa.is_available().then_some(Self(()))
    }

    #[inline]
    pub fn vectorize<W: Work>(self, work: W) -> W::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma,bmi1,bmi2")]
        fn with_vnni<W: Work>(simd: Avx512<true>, work: W) -> W::Output {
            work.run(simd)
        }
        #[target_feature(enable = "avx512f,avx512bw,avx2,fma,bmi1,bmi2")]
        fn without<W: Work>(simd: Avx512<false>, work: W) -> W::Output {
            work.run(simd)
        }
        if VNNI {
            // SAFETY: the token proves that the processor has these features.
            unsafe { with_vnni(Avx512(()), work) }
        } else {
            // SAFETY: the token proves that the processor has these features.
            unsafe { without(Avx512(()), work) }
        }
    }
}

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    type Floats = __m512;
    type Words = __m512i;
    type Mask = __mmask16;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> __m512 {
        // SAFETY: the token proves AVX-512F; the array has sixteen lanes.
        unsafe { _mm512_loadu_ps(values.as_ptr()) }
    }
    #[inline(always)]
    fn to_array(self, a: __m512) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        // SAFETY: the token proves AVX-512F; the array has sixteen lanes.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), a) };
        values
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn neg_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn le(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b) }
    }
    #[inline(always)]
    fn lt(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }
    #[inline(always)]
    fn reduce_max(self, a: __m512) -> f32 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    fn reduce_min(self, a: __m512) -> f32 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_reduce_min_ps(a) }
    }
    #[inline(always)]
    fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_mask_blend_ps(mask, b, a) }
    }
    #[inline(always)]
    fn bits(self, mask: __mmask16) -> u32 {
        u32::from(mask)
    }
    #[inline(always)]
    fn splat_words(self, value: u32) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_set1_epi32(value.cast_signed()) }
    }
    #[inline(always)]
    fn words_to_array(self, a: __m512i) -> [u32; LANES] {
        // No intrinsic, which stays a call in code that is rarely run.
        // SAFETY: both are as many bytes, and all bits are valid.
        unsafe { std::mem::transmute::<__m512i, [u32; LANES]>(a) }
    }
    #[inline(always)]
    fn select_words(self, mask: __mmask16, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_mask_blend_epi32(mask, b, a) }
    }
    #[inline(always)]
    fn double_plus(self, a: __m512i, mask: __mmask16) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe {
            let doubled = _mm512_add_epi32(a, a);
            _mm512_mask_add_epi32(doubled, mask, doubled, _mm512_set1_epi32(1))
        }
    }
    #[inline(always)]
    fn low_bits_equal(self, a: __m512i, low_bits: u32, value: u32) -> __mmask16 {
        // SAFETY: the token proves AVX-512F.
        unsafe {
            let low = _mm512_and_si512(a, _mm512_set1_epi32(low_bits.cast_signed()));
            _mm512_cmpeq_epi32_mask(low, _mm512_set1_epi32(value.cast_signed()))
        }
    }
    #[inline(always)]
    fn lookup(self, table: &[u32], a: __m512i) -> __m512i {
        let last = last_index(table);
        // SAFETY: the token proves AVX-512F; the indices are clamped to the table, whose
        // length fits the signed 32-bit indices of the gather.
        unsafe {
            let index = _mm512_min_epu32(a, _mm512_set1_epi32(last.cast_signed()));
            _mm512_i32gather_epi32::<4>(index, table.as_ptr().cast())
        }
    }
    #[inline(always)]
    fn words_as_floats(self, a: __m512i) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_castsi512_ps(a) }
    }

    // Without VNNI, two products are added in 16 bits, which must hold `2 * 127 * 127`.
    const LARGEST_BYTE: i32 = if VNNI { 127 } else { 63 };

    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    fn load_words(self, values: &[u32; LANES]) -> __m512i {
        // SAFETY: the token proves AVX-512F; the array has sixteen lanes.
        unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
    }
    #[inline(always)]
    fn dot_bytes(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        if VNNI {
            // SAFETY: the token proves AVX-512 VNNI.
            unsafe { _mm512_dpbusd_epi32(sum, a, b) }
        } else {
            // SAFETY: the token proves AVX-512BW.
            unsafe {
                let pairs = _mm512_maddubs_epi16(a, b);
                _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
            }
        }
    }
    #[inline(always)]
    fn add_squared_gaps(
        self,
        sum: __m512i,
        a: (__m512i, __m512i),
        b: (__m512i, __m512i),
    ) -> __m512i {
        // SAFETY: the token proves AVX-512BW, and VNNI where it is used.
        unsafe {
            let gaps = _mm512_or_si512(_mm512_subs_epu16(a.0, b.1), _mm512_subs_epu16(b.0, a.1));
            if VNNI {
                _mm512_dpwssd_epi32(sum, gaps, gaps)
            } else {
                _mm512_add_epi32(sum, _mm512_madd_epi16(gaps, gaps))
            }
        }
    }
    #[inline(always)]
    fn max_signed(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_max_epi32(a, b) }
    }
    #[inline(always)]
    fn ge_signed(self, a: __m512i, b: __m512i) -> __mmask16 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_cmpge_epi32_mask(a, b) }
    }
    #[inline(always)]
    fn round_to_signed(self, a: __m512) -> __m512i {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_cvtps_epi32(a) }
    }
    #[inline(always)]
    fn signed_to_floats(self, a: __m512i) -> __m512 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_cvtepi32_ps(a) }
    }
}
