//! The entropy of counted blocks.

use std::f64::consts::LN_2;

/// Counts below this are remembered.
const REMEMBERED: usize = 1024;

/// Block entropy in bits, with what its bias correction needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockEntropy {
    /// Blocks counted.
    pub blocks: u64,
    /// Distinct blocks among them.
    pub distinct: u64,
    /// The plug-in estimate `-sum p log2 p`, as pybdm defines block entropy; 0 without blocks.
    pub plain: f64,
}

impl BlockEntropy {
    /// The entropy of the blocks with these counts, summed in their order.
    pub fn of(counts: &[u64]) -> Self {
        let blocks: u64 = counts.iter().sum();
        let distinct = counts.iter().filter(|&&count| count > 0).count() as u64;
        // Many blocks occur equally often; a logarithm takes longer than to remember its outcome.
        let mut known = [f64::NAN; REMEMBERED];
        let term = |count: u64| {
            let probability = count as f64 / blocks as f64;
            -probability * probability.log2()
        };
        let plain = counts
            .iter()
            .filter(|&&count| count > 0)
            .map(|&count| match known.get_mut(count as usize) {
                None => term(count),
                Some(known) => {
                    if known.is_nan() {
                        *known = term(count);
                    }
                    *known
                }
            })
            .sum::<f64>();
        Self {
            blocks,
            distinct,
            // Summing nothing or one certainty gives -0.0.
            plain: plain + 0.0,
        }
    }

    /// The estimate of Miller and Madow: the plain one underestimates by about
    /// `(distinct - 1) / (2 blocks)` nats.
    pub fn miller_madow(&self) -> f64 {
        if self.blocks == 0 {
            return 0.0;
        }
        self.plain + (self.distinct - 1) as f64 / (2.0 * self.blocks as f64 * LN_2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_counts() {
        let entropy = BlockEntropy::of(&[3, 0, 3, 3, 3]);
        assert_eq!((entropy.blocks, entropy.distinct), (12, 4));
        assert_eq!(entropy.plain, 2.0);
        assert!((entropy.miller_madow() - (2.0 + 3.0 / 24.0 / LN_2)).abs() < 1e-15);
    }

    #[test]
    fn nothing_and_one_kind_have_none() {
        for counts in [&[][..], &[0, 0], &[0, 7]] {
            let entropy = BlockEntropy::of(counts);
            assert_eq!(entropy.plain.to_bits(), 0.0f64.to_bits());
            assert_eq!(entropy.miller_madow(), 0.0);
        }
    }
}
