//! The complexity of counted blocks.

use std::sync::LazyLock;

use crate::{Error, Result};

/// Counts below this have their logarithm tabulated: most blocks of most objects do.
const TABULATED: usize = 4096;

static LOGARITHMS: LazyLock<Vec<f64>> =
    LazyLock::new(|| (0..TABULATED).map(|count| (count as f64).log2()).collect());

/// `log2(count)` of a count of at least 1.
pub fn log2_count(count: u64) -> f64 {
    log2_by(&LOGARITHMS, count)
}

/// [`log2_count`] for loops, which get the table once.
#[inline]
fn log2_by(logarithms: &[f64], count: u64) -> f64 {
    match logarithms.get(count as usize) {
        Some(&logarithm) => logarithm,
        None => (count as f64).log2(),
    }
}

/// `sum of CTM(block) + log2(count)` over the blocks that occur (Zenil et al. 2018, equation 4),
/// in bits, summed in ascending order of the keys.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if there is not one complexity per counter.
pub fn bdm<T: Copy + Into<u64>>(counts: &[T], complexities: &[f64]) -> Result<f64> {
    if counts.len() != complexities.len() {
        return Err(Error::invalid_argument(format!(
            "{} counters for a table of {} blocks",
            counts.len(),
            complexities.len()
        )));
    }
    let logarithms = LOGARITHMS.as_slice();
    Ok(counts
        .iter()
        .zip(complexities)
        .map(|(&count, complexity)| (count.into(), complexity))
        .filter(|&(count, _)| count > 0)
        .map(|(count, complexity)| complexity + log2_by(logarithms, count))
        .sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complexity::ctm;

    #[test]
    fn documented_examples_of_pybdm() {
        let table = ctm::strings(12).unwrap();
        let mut counts = vec![0u64; 4096];
        counts[0] = 2;
        assert!((bdm(&counts, table).unwrap() - 26.610413747641715).abs() < 1e-12);
        counts[0] = 1;
        counts[4095] = 1;
        assert!((bdm(&counts, table).unwrap() - 51.22082749528343).abs() < 1e-12);
    }

    #[test]
    fn logarithms_agree_with_the_library_on_both_sides_of_the_table() {
        for count in [1, 2, 3, 4095, 4096, 4097, 1 << 40] {
            assert_eq!(log2_count(count), (count as f64).log2());
        }
    }

    #[test]
    fn a_table_of_another_shape_is_refused() {
        assert!(bdm(&[1u64], ctm::strings(12).unwrap()).is_err());
    }
}
