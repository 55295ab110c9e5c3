//! Motifs as a random choice among the blocks.

use super::random::SplitMix64;
use crate::error::{Error, Result};

/// Which blocks become motifs: different indices below `m`, uniformly without replacement,
/// ascending. The paper's choice of motifs (Mosaic-of-Motifs, arXiv 2602.14896).
///
/// With `force_zero`, motif 0 is the zero block and only the other `k - 1` are drawn.
///
/// The choice depends on `m`, the number drawn and the seed alone, and never changes: numbers
/// below `m` come from [`SplitMix64`] until as many different ones were seen as are wanted; if
/// more than half of all are wanted, the ones to leave out are drawn instead. Memory is
/// proportional to the number drawn.
///
/// # Errors
/// `InvalidArgument` if `k` is 0 or more indices are to be drawn than there are.
pub fn select(m: usize, k: usize, seed: u64, force_zero: bool) -> Result<Vec<u64>> {
    if k == 0 {
        return Err(Error::invalid_argument("there must be at least one motif"));
    }
    let wanted = k - usize::from(force_zero);
    if wanted > m {
        return Err(Error::invalid_argument(format!(
            "cannot draw {wanted} different motifs from {m} blocks"
        )));
    }
    let mut generator = SplitMix64::new(seed);
    if wanted <= m / 2 {
        return Ok(draw(m, wanted, &mut generator));
    }
    let mut left_out = draw(m, m - wanted, &mut generator).into_iter().peekable();
    Ok((0..m as u64)
        .filter(|index| left_out.next_if_eq(index).is_none())
        .collect())
}

fn draw(m: usize, wanted: usize, generator: &mut SplitMix64) -> Vec<u64> {
    let mut drawn = Vec::with_capacity(wanted);
    while drawn.len() < wanted {
        let missing = wanted - drawn.len();
        drawn.extend((0..missing).map(|_| generator.below(m as u64)));
        // The stable sort merges the runs that are in order already.
        drawn.sort();
        drawn.dedup();
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_never_change() {
        assert_eq!(select(1000, 5, 0, false).unwrap(), [26, 106, 431, 883, 970]);
        assert_eq!(
            select(1000, 6, 0, true).unwrap(),
            select(1000, 5, 0, false).unwrap()
        );
        assert_eq!(select(10, 7, 3, false).unwrap(), [0, 2, 3, 4, 5, 8, 9]);
    }

    #[test]
    fn indices_are_different_ascending_and_in_range() {
        for (m, k) in [
            (1, 1),
            (2, 1),
            (10, 10),
            (1000, 400),
            (1000, 501),
            (1000, 999),
        ] {
            for seed in 0..20 {
                let chosen = select(m, k, seed, false).unwrap();
                assert_eq!(chosen.len(), k);
                assert!(chosen.is_sorted_by(|a, b| a < b));
                assert!(chosen.iter().all(|&index| index < m as u64));
            }
        }
    }

    #[test]
    fn every_index_is_equally_likely() {
        for k in [3, 7] {
            let mut counts = [0i32; 10];
            for seed in 0..10_000 {
                for index in select(10, k, seed, false).unwrap() {
                    counts[index as usize] += 1;
                }
            }
            let expected = 1000 * k as i32;
            assert!(
                counts.iter().all(|count| (count - expected).abs() < 250),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn impossible_choices_are_refused() {
        assert!(select(5, 0, 0, false).is_err());
        assert!(select(5, 6, 0, false).is_err());
        assert_eq!(select(5, 6, 0, true).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(select(0, 1, 0, true).unwrap(), [0u64; 0]);
    }
}
