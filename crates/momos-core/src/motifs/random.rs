//! The generator behind every seeded choice.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
///
/// The state starts as the seed. Every step adds `0x9e3779b97f4a7c15` to it and returns the sum
/// mixed by two xor-shift-multiplications. All arithmetic is modulo 2^64, so the sequence of a
/// seed is the same everywhere and for ever.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The generator of that seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// The `index`-th number of a seed, counted from 0.
    #[inline(always)]
    pub fn nth(seed: u64, index: u64) -> u64 {
        mix(seed.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN)))
    }

    /// A number in `0..bound`, every one equally likely.
    ///
    /// The high word of `bits * bound`; bits are drawn again while the low word is below
    /// `2^64 mod bound` (Lemire, "Fast random integer generation in an interval", 2019).
    ///
    /// # Panics
    /// If the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let rejected = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= rejected {
                return (product >> 64) as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut generator = SplitMix64::new(1_234_567);
        let first: [u64; 5] = std::array::from_fn(|_| generator.next_u64());
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821,
            ]
        );
        for (index, number) in (0..).zip(first) {
            assert_eq!(SplitMix64::nth(1_234_567, index), number);
        }
    }

    #[test]
    fn numbers_below_a_bound_are_evenly_spread() {
        let mut generator = SplitMix64::new(1);
        let mut counts = [0; 6];
        for _ in 0..60_000 {
            counts[generator.below(6) as usize] += 1;
        }
        // Five standard deviations of a binomial count.
        assert!(
            counts
                .iter()
                .all(|&count: &i32| (count - 10_000).abs() < 460),
            "{counts:?}"
        );
    }
}
