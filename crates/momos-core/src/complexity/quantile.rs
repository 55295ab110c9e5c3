//! Exact quantiles of weights, without sorting them.

use super::floats::Floats;
use super::tasks;
use crate::{Error, Monitor, Result};

/// Weights that one task widens and counts at a time.
const PIECE: usize = 1 << 16;

/// Values of half a pattern of 32 bits.
const HALF: usize = 1 << 16;

/// The quantiles of the weights as float32, interpolated linearly.
///
/// As `torch.quantile` of the weights as float32 (float64 ones are rounded), with its arithmetic:
/// the rank `q * (n - 1)` in float64, the interpolation in float32. There is no limit of size: two
/// passes count the upper, then the lower halves of the weights' bit patterns. NaN weights are beyond
/// the infinity of their sign. Reports weights to the monitor, each as often as it is read.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if there are no weights or a `q` is not between 0 and 1;
/// [`crate::ErrorKind::Interrupted`].
pub fn quantiles(weights: Floats<'_>, qs: &[f32], monitor: &Monitor) -> Result<Vec<f32>> {
    if let Some(q) = qs.iter().find(|q| !(0.0..=1.0).contains(*q)) {
        return Err(Error::invalid_argument(format!("{q} is no quantile")));
    }
    let Some(last) = weights.len().checked_sub(1) else {
        return Err(Error::invalid_argument("no weights have no quantiles"));
    };
    let ranks: Vec<f64> = qs.iter().map(|&q| f64::from(q) * last as f64).collect();
    let needed: Vec<u64> = ranks
        .iter()
        .flat_map(|rank| [rank.floor() as u64, rank.ceil() as u64])
        .collect();
    let values = order_statistics(weights, &needed, monitor)?;
    let pairs = values.as_chunks::<2>().0;
    Ok(ranks
        .iter()
        .zip(pairs)
        .map(|(rank, &[below, above])| {
            let weight = (rank - rank.floor()) as f32;
            // The two forms of torch's lerp, exact at both ends.
            if weight < 0.5 {
                below + weight * (above - below)
            } else {
                above - (above - below) * (1.0 - weight)
            }
        })
        .collect())
}

/// The weights at these places of the ascending order.
fn order_statistics(weights: Floats<'_>, places: &[u64], monitor: &Monitor) -> Result<Vec<f32>> {
    let upper = histogram(weights, monitor, |pattern| Some((pattern >> 16) as usize))?;
    let mut lower: Vec<(usize, Vec<u64>)> = Vec::new();
    places
        .iter()
        .map(|&place| {
            let (half, rest) = find(&upper, place);
            if !lower.iter().any(|&(known, _)| known == half) {
                let counts = histogram(weights, monitor, |pattern| {
                    ((pattern >> 16) as usize == half).then_some(pattern as usize % HALF)
                })?;
                lower.push((half, counts));
            }
            let (_, counts) = lower
                .iter()
                .find(|&&(known, _)| known == half)
                .expect("counted above");
            let (other, _) = find(counts, rest);
            Ok(f32::from_bits(unordered((half << 16 | other) as u32)))
        })
        .collect()
}

/// The entry of a histogram that the item at that place is in, and its place within.
fn find(counts: &[u64], place: u64) -> (usize, u64) {
    let mut rest = place;
    for (index, &count) in counts.iter().enumerate() {
        if rest < count {
            return (index, rest);
        }
        rest -= count;
    }
    unreachable!("places are below the number of weights")
}

/// Counts the weights by a part of their ordered patterns.
fn histogram(
    weights: Floats<'_>,
    monitor: &Monitor,
    part: impl Fn(u32) -> Option<usize> + Sync,
) -> Result<Vec<u64>> {
    let (counts, _) = tasks::fold(
        weights.len().div_ceil(PIECE),
        || (vec![0; HALF], vec![0f32; PIECE]),
        |(counts, wide), piece| {
            monitor.check()?;
            let start = piece * PIECE;
            let weights = weights.slice(start, weights.len().min(start + PIECE));
            weights.widen_to_f32(wide);
            for value in &wide[..weights.len()] {
                if let Some(index) = part(ordered(value.to_bits())) {
                    counts[index] += 1;
                }
            }
            monitor.advance(weights.len() as u64);
            Ok(())
        },
        |_| (),
        |(left, _), (right, _)| tasks::add(left, &right),
    )?;
    Ok(counts)
}

/// The pattern of a float32 as an integer of the same order.
fn ordered(pattern: u32) -> u32 {
    match pattern >> 31 {
        0 => pattern | 1 << 31,
        _ => !pattern,
    }
}

/// The inverse of [`ordered`].
fn unordered(integer: u32) -> u32 {
    match integer >> 31 {
        0 => !integer,
        _ => integer & !(1 << 31),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complexity::floats::WeightType;
    use proptest::prelude::*;

    fn of(values: &[f32], qs: &[f32]) -> Result<Vec<f32>> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let weights = Floats::new(&bytes, WeightType::F32).unwrap();
        quantiles(weights, qs, &Monitor::new())
    }

    #[test]
    fn the_ends_and_the_middle() {
        let values = [3.0, -1.0, 0.5, 2.0, -7.0];
        assert_eq!(of(&values, &[0.0, 0.5, 1.0]).unwrap(), [-7.0, 0.5, 3.0]);
        assert_eq!(of(&values, &[0.125]).unwrap(), [-4.0]);
        assert_eq!(of(&[4.0], &[0.3]).unwrap(), [4.0]);
        let infinite = [f32::NEG_INFINITY, 0.0, f32::INFINITY];
        assert_eq!(of(&infinite, &[0.5]).unwrap(), [0.0]);
    }

    #[test]
    fn what_has_no_quantile_is_refused() {
        assert!(of(&[], &[0.5]).is_err());
        assert!(of(&[1.0], &[1.5]).is_err());
        assert!(of(&[1.0], &[f32::NAN]).is_err());
    }

    proptest! {
        #[test]
        fn order_is_kept(left in any::<f32>(), right in any::<f32>()) {
            prop_assume!(!left.is_nan() && !right.is_nan());
            let (a, b) = (ordered(left.to_bits()), ordered(right.to_bits()));
            prop_assert_eq!(a.cmp(&b), left.total_cmp(&right));
            prop_assert_eq!(unordered(a), left.to_bits());
        }

        #[test]
        fn places_are_those_of_a_sort(
            values in prop::collection::vec(-1e3f32..1e3, 1..400),
            place in 0usize..400,
        ) {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let weights = Floats::new(&bytes, WeightType::F32).unwrap();
            let place = place % values.len();
            let found = order_statistics(weights, &[place as u64], &Monitor::new()).unwrap();
            let mut sorted = values;
            sorted.sort_by(f32::total_cmp);
            prop_assert_eq!(found[0], sorted[place]);
        }
    }
}
