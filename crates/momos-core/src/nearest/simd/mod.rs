//! Sixteen `f32` lanes under one interface for every instruction set: the crate's unsafe code.
//!
//! Kernels are written once, generic over [`Simd`], and always see sixteen lanes: one register
//! with AVX-512, two with AVX2, four with NEON, an array that the compiler vectorises elsewhere.
//! A value of an implementing type is the proof that the processor has the instructions, since
//! only [`dispatch`] makes one, after asking the processor. That makes the methods safe.
//!
//! Results may differ between instruction sets in the last bits (fused or separate rounding);
//! the margins of [`super::margin`] cover either.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
use neon::Neon;
use portable::Portable;

/// Number of `f32` in a vector.
pub const LANES: usize = 16;

/// An instruction set the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// x86-64 with AVX-512F, BW and VNNI.
    Avx512Vnni,
    /// x86-64 with AVX-512F and BW.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// aarch64 with dot products of bytes (Armv8.4, and most of Armv8.2).
    NeonDot,
    /// aarch64.
    Neon,
    /// Whatever the compiler's target has.
    Portable,
}

impl Isa {
    /// Every instruction set, best first.
    pub const ALL: [Self; 6] = [
        Self::Avx512Vnni,
        Self::Avx512,
        Self::Avx2,
        Self::NeonDot,
        Self::Neon,
        Self::Portable,
    ];

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => Avx512::<true>::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::<false>::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512Vnni | Self::Avx512 | Self::Avx2 => false,
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => Neon::<true>::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Neon::<false>::detect().is_some(),
            #[cfg(not(target_arch = "aarch64"))]
            Self::NeonDot | Self::Neon => false,
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

    /// Its name in messages and plans: `avx512-vnni`, `avx512`, `avx2`, `neon-dot`, `neon` or
    /// `portable`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::NeonDot => "neon-dot",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }
}

/// A computation that is compiled once per instruction set.
///
/// [`run`](Self::run) and all it calls with the token must be `#[inline(always)]`, else it is
/// compiled without the instructions it is meant to use. That goes for closures, too: handed to a
/// function that is not inlined, such as `array::map`, they make every operation a call through
/// memory. `tests/inlining.rs` looks for them.
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
        Isa::Avx512Vnni => {
            if let Some(simd) = Avx512::<true>::detect() {
                return simd.vectorize(work);
            }
        }
        Isa::Avx512 => {
            if let Some(simd) = Avx512::<false>::detect() {
                return simd.vectorize(work);
            }
        }
        Isa::Avx2 => {
            if let Some(simd) = Avx2::detect() {
                return simd.vectorize(work);
            }
        }
        Isa::NeonDot | Isa::Neon | Isa::Portable => {}
    }
    #[cfg(target_arch = "aarch64")]
    match isa {
        Isa::NeonDot => {
            if let Some(simd) = Neon::<true>::detect() {
                return simd.vectorize(work);
            }
        }
        Isa::Neon => {
            if let Some(simd) = Neon::<false>::detect() {
                return simd.vectorize(work);
            }
        }
        Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 | Isa::Portable => {}
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = isa;
    work.run(Portable)
}

/// Asks for a value that will be needed soon, where the processor takes such hints.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has SSE, and a prefetch accesses nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Operations on sixteen lanes.
pub trait Simd: Copy + Send + Sync {
    /// Sixteen `f32`.
    type Floats: Copy;
    /// Sixteen `u32`, which some operations read as `i32` or as 64 bytes.
    type Words: Copy;
    /// Sixteen booleans.
    type Mask: Copy;

    /// Whether vectors are arrays, which the compiler need not keep in vector registers.
    const PLAIN_ARRAYS: bool = false;

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

    /// Largest magnitude of whole numbers that, with [`ZERO_BYTE`](Self::ZERO_BYTE) added, are the
    /// bytes of a first factor of [`dot_bytes`](Self::dot_bytes).
    const LARGEST_BYTE: i32;
    /// The byte that stands for zero in a first factor: 0 where it has signed bytes, else one that
    /// makes all of them positive.
    const ZERO_BYTE: i32 = Self::LARGEST_BYTE + 1;

    /// The square root; no lane is negative.
    fn sqrt(self, a: Self::Floats) -> Self::Floats;
    /// The words of an array.
    fn load_words(self, values: &[u32; LANES]) -> Self::Words;
    /// Adds to each lane of `sum` the products of its four bytes of `a`, signed or not as
    /// [`ZERO_BYTE`](Self::ZERO_BYTE) says, and of `b`, signed and not -128.
    fn dot_bytes(self, sum: Self::Words, a: Self::Words, b: Self::Words) -> Self::Words;
    /// Adds to each lane of `sum` the squares of the gaps between the intervals `a` and `b`, low
    /// and high, of which a lane holds two, of 16 bits without a sign. The gaps are below `2^14`.
    fn add_squared_gaps(
        self,
        sum: Self::Words,
        a: (Self::Words, Self::Words),
        b: (Self::Words, Self::Words),
    ) -> Self::Words;
    /// The larger of both, as `i32`.
    fn max_signed(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// Where `a >= b`, as `i32`.
    fn ge_signed(self, a: Self::Words, b: Self::Words) -> Self::Mask;
    /// The nearest `i32`; magnitudes are below `2^31`.
    fn round_to_signed(self, a: Self::Floats) -> Self::Words;
    /// The nearest float to an `i32`.
    fn signed_to_floats(self, a: Self::Words) -> Self::Floats;
}

fn last_index(table: &[u32]) -> u32 {
    assert!(!table.is_empty() && table.len() <= i32::MAX as usize);
    (table.len() - 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation on the given lanes, as comparable bits.
    struct EveryOperation<'a> {
        a: &'a [f32; LANES],
        b: &'a [f32; LANES],
        table: &'a [u32],
        bytes: [u32; LANES],
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
            seen.extend(simd.to_array(simd.sqrt(simd.mul(a, a))).map(f32::to_bits));
            let rounded = simd.round_to_signed(simd.mul(a, simd.splat(1.5)));
            seen.extend(simd.words_to_array(rounded));
            let other = simd.round_to_signed(b);
            let larger = simd.max_signed(rounded, other);
            seen.extend(simd.words_to_array(larger));
            seen.push(simd.bits(simd.ge_signed(rounded, other)));
            seen.extend(
                simd.to_array(simd.signed_to_floats(larger))
                    .map(f32::to_bits),
            );
            // Bytes as large as every instruction set takes them.
            let unsigned = self.bytes.map(|word| word & 0x7f7f_7f7f);
            let signed = self.bytes.map(|word| word.rotate_left(11) | 0x0101_0101);
            let mut sum = rounded;
            for _ in 0..2 {
                sum = simd.dot_bytes(sum, simd.load_words(&unsigned), simd.load_words(&signed));
            }
            seen.extend(simd.words_to_array(sum));
            let low = unsigned.map(|word| word & 0x0fff_0fff);
            let high = signed.map(|word| (word & 0x0fff_0fff) + 0x0fff_0fff);
            let (low, high) = (simd.load_words(&low), simd.load_words(&high));
            let shifted = simd.splat_words(0x2001_0003);
            for (a, b) in [
                ((low, high), (shifted, shifted)),
                ((shifted, shifted), (low, high)),
                (
                    (low, high),
                    (simd.splat_words(0), simd.splat_words(0x0001_0002)),
                ),
            ] {
                sum = simd.add_squared_gaps(sum, a, b);
                seen.extend(simd.words_to_array(sum));
            }
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
            bytes: std::array::from_fn(|lane| (lane as u32 + 1).wrapping_mul(0x9e37_79b9)),
        };
        let expected = work().run(Portable);
        for isa in Isa::ALL {
            assert_eq!(dispatch(isa, work()), expected, "{}", isa.name());
        }
    }

    struct LargestBytes;

    impl Work for LargestBytes {
        type Output = (i32, [u32; LANES]);

        #[inline(always)]
        fn run<V: Simd>(self, simd: V) -> Self::Output {
            let largest = V::ZERO_BYTE + V::LARGEST_BYTE;
            let unsigned = simd.splat_words(u32::from_le_bytes([largest as u8; 4]));
            let signed = simd.splat_words(u32::from_le_bytes([129, 127, 129, 129]));
            let sum = simd.dot_bytes(simd.splat_words(7), unsigned, signed);
            (largest, simd.words_to_array(sum))
        }
    }

    #[test]
    fn the_largest_products_do_not_saturate() {
        for isa in Isa::ALL {
            let (largest, sums) = dispatch(isa, LargestBytes);
            let expected = 7 - 2 * 127 * largest;
            assert_eq!(
                sums.map(u32::cast_signed),
                [expected; LANES],
                "{}",
                isa.name()
            );
        }
    }
}
