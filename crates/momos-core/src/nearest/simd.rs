//! Sixteen `f32` lanes under one interface for every instruction set: the crate's unsafe code.
//!
//! Kernels are written once, generic over [`Simd`], and always see sixteen lanes: one register
//! with AVX-512, two with AVX2, an array that the compiler vectorises elsewhere (NEON on aarch64).
//! A value of an implementing type is the proof that the processor has the instructions, since
//! only [`dispatch`] makes one, after asking the processor. That makes the methods safe.
//!
//! Results may differ between instruction sets in the last bits (fused or separate rounding);
//! the margins of [`super::margin`] cover either.
#![allow(unsafe_code)]

/// Number of `f32` in a vector.
pub const LANES: usize = 16;

/// An instruction set the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// x86-64 with AVX-512F.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// Whatever the compiler's target has: SSE2 on x86-64, NEON on aarch64.
    Portable,
}

impl Isa {
    /// Every instruction set, best first.
    pub const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Portable];

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::Avx512::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::Avx2::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable => true,
        }
    }

    /// The best instruction set of this processor.
    pub fn best() -> Self {
        Self::ALL
            .into_iter()
            .find(|isa| isa.is_available())
            .unwrap_or(Self::Portable)
    }

    /// Its name in messages and plans: `avx512`, `avx2` or `portable`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
}

/// A computation that is compiled once per instruction set.
///
/// [`run`](Self::run) and all it calls with the token must be `#[inline(always)]`, else it is
/// compiled without the instructions it is meant to use.
pub trait Work {
    /// What it returns.
    type Output;

    /// Computes it with the given vectors.
    fn run<V: Simd>(self, simd: V) -> Self::Output;
}

/// Runs `work` with the given instruction set, or with [`Isa::Portable`] if this processor does
/// not have it.
pub fn dispatch<W: Work>(isa: Isa, work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    match isa {
        Isa::Avx512 => {
            if let Some(simd) = x86::Avx512::detect() {
                return simd.vectorize(work);
            }
        }
        Isa::Avx2 => {
            if let Some(simd) = x86::Avx2::detect() {
                return simd.vectorize(work);
            }
        }
        Isa::Portable => {}
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    work.run(Portable)
}

/// Operations on sixteen lanes.
pub trait Simd: Copy + Send + Sync {
    /// Sixteen `f32`.
    type Floats: Copy;
    /// Sixteen `u32`.
    type Words: Copy;
    /// Sixteen booleans.
    type Mask: Copy;

    /// The same value in every lane.
    fn splat(self, value: f32) -> Self::Floats;
    /// The lanes of an array.
    fn load(self, values: &[f32; LANES]) -> Self::Floats;
    /// The lanes as an array.
    fn to_array(self, a: Self::Floats) -> [f32; LANES];
    /// `a + b`.
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a - b`.
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b`.
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The smaller of both; no operand is NaN.
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The larger of both; no operand is NaN.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once or twice.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a * b`, rounded once or twice.
    fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Where `a <= b`.
    fn le(self, a: Self::Floats, b: Self::Floats) -> Self::Mask;
    /// Where `a < b`.
    fn lt(self, a: Self::Floats, b: Self::Floats) -> Self::Mask;
    /// The largest lane; no lane is NaN.
    fn reduce_max(self, a: Self::Floats) -> f32;
    /// The smallest lane; no lane is NaN.
    fn reduce_min(self, a: Self::Floats) -> f32;
    /// `a` where the mask is set, `b` elsewhere.
    fn select(self, mask: Self::Mask, a: Self::Floats, b: Self::Floats) -> Self::Floats;

    /// The mask as bits, lane 0 lowest.
    fn bits(self, mask: Self::Mask) -> u32;

    /// The same word in every lane.
    fn splat_words(self, value: u32) -> Self::Words;
    /// The words as an array.
    fn words_to_array(self, a: Self::Words) -> [u32; LANES];
    /// `a` where the mask is set, `b` elsewhere.
    fn select_words(self, mask: Self::Mask, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `2 * a`, plus one where the mask is set.
    fn double_plus(self, a: Self::Words, mask: Self::Mask) -> Self::Words;
    /// Where the given low bits of `a` equal `value`.
    fn low_bits_equal(self, a: Self::Words, low_bits: u32, value: u32) -> Self::Mask;
    /// `table[a]` per lane; an index past the end reads the last entry.
    ///
    /// # Panics
    /// If the table is empty or has more than `i32::MAX` entries.
    fn lookup(self, table: &[u32], a: Self::Words) -> Self::Words;
    /// The same bits read as floats.
    fn words_as_floats(self, a: Self::Words) -> Self::Floats;
}

fn last_index(table: &[u32]) -> u32 {
    assert!(!table.is_empty() && table.len() <= i32::MAX as usize);
    (table.len() - 1) as u32
}

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
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Simd, Work, last_index};

    // Every unsafe block below either calls an intrinsic whose instructions the token `self`
    // proves to be there, or reads and writes whole arrays of sixteen lanes, or gathers at
    // indices that were clamped to the table.

    /// Proof of AVX-512F (and of the older extensions that come with it).
    #[derive(Clone, Copy, Debug)]
    pub struct Avx512(());

    impl Avx512 {
        pub fn detect() -> Option<Self> {
            let found = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2");
            found.then_some(Self(()))
        }

        #[inline]
        pub fn vectorize<W: Work>(self, work: W) -> W::Output {
            #[target_feature(enable = "avx512f,avx2,fma,bmi1,bmi2")]
            fn enabled<W: Work>(simd: Avx512, work: W) -> W::Output {
                work.run(simd)
            }
            // SAFETY: the token proves that the processor has these features.
            unsafe { enabled(self, work) }
        }
    }

    impl Simd for Avx512 {
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
            let mut values = [0u32; LANES];
            // SAFETY: the token proves AVX-512F; the array has sixteen lanes.
            unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), a) };
            values
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
    }

    /// Proof of AVX2 and FMA; sixteen lanes are two registers.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx2(());

    impl Avx2 {
        pub fn detect() -> Option<Self> {
            let found = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2");
            found.then_some(Self(()))
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
            let mut values = [0u32; LANES];
            // SAFETY: the token proves AVX2 and FMA; the array has sixteen lanes.
            unsafe {
                _mm256_storeu_si256(values.as_mut_ptr().cast(), a.0);
                _mm256_storeu_si256(values.as_mut_ptr().add(8).cast(), a.1);
            }
            values
        }
        #[inline(always)]
        fn select_words(
            self,
            mask: Pair<__m256>,
            a: Pair<__m256i>,
            b: Pair<__m256i>,
        ) -> Pair<__m256i> {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation on the given lanes, as comparable bits.
    struct EveryOperation<'a> {
        a: &'a [f32; LANES],
        b: &'a [f32; LANES],
        table: &'a [u32],
    }

    impl Work for EveryOperation<'_> {
        type Output = Vec<u32>;

        #[inline(always)]
        fn run<V: Simd>(self, simd: V) -> Vec<u32> {
            let (a, b) = (simd.load(self.a), simd.load(self.b));
            let mut seen = Vec::new();
            let two = simd.splat(2.0);
            for floats in [
                simd.add(a, b),
                simd.sub(a, b),
                simd.mul(a, b),
                simd.min(a, b),
                simd.max(a, b),
                // Small integers, so that one rounding and two agree.
                simd.mul_add(a, two, b),
                simd.neg_mul_add(a, two, b),
                simd.select(simd.lt(a, b), a, b),
            ] {
                seen.extend(simd.to_array(floats).map(f32::to_bits));
            }
            seen.push(simd.bits(simd.le(a, b)));
            seen.push(simd.bits(simd.lt(a, b)));
            seen.push(simd.reduce_max(a).to_bits());
            seen.push(simd.reduce_min(a).to_bits());
            let mut words = simd.splat_words(1);
            for _ in 0..3 {
                words = simd.double_plus(words, simd.lt(a, b));
                words = simd.double_plus(words, simd.le(b, a));
            }
            seen.extend(simd.words_to_array(words));
            let found = simd.lookup(self.table, words);
            seen.extend(simd.words_to_array(found));
            let chosen = simd.select_words(simd.low_bits_equal(found, 3, 2), words, found);
            seen.extend(simd.words_to_array(chosen));
            seen.extend(
                simd.to_array(simd.words_as_floats(chosen))
                    .map(f32::to_bits),
            );
            seen
        }
    }

    #[test]
    fn every_instruction_set_computes_what_the_portable_one_does() {
        let a: [f32; LANES] = std::array::from_fn(|lane| (lane as f32 * 7.0) % 5.0 - 2.0);
        let b: [f32; LANES] = std::array::from_fn(|lane| (lane as f32 * 3.0) % 4.0 - 1.0);
        // Shorter than the indices that are looked up: those are clamped.
        let table: Vec<u32> = (0..90).map(|index| index * 37 % 101).collect();
        let work = || EveryOperation {
            a: &a,
            b: &b,
            table: &table,
        };
        let expected = work().run(Portable);
        for isa in Isa::ALL {
            assert_eq!(dispatch(isa, work()), expected, "{}", isa.name());
        }
    }
}
