//! Runs a kernel with the lanes of an instruction set.

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
use super::isa::Isa;
use super::lanes::Work;
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::portable::Portable;

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

#[cfg(test)]
mod tests {
    use super::super::lanes::{LANES, Simd};
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
