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
    let mut search = QuantileSearch::new(weights.len(), qs)?;
    search.add(weights, monitor)?;
    search.turn()?;
    search.add(weights, monitor)?;
    search.finish()
}

/// The search for quantiles of weights that come in pieces, twice.
///
/// Give all of them to [`add`](Self::add), [`turn`](Self::turn), and give them again.
#[derive(Clone, Debug)]
pub struct QuantileSearch {
    n: u64,
    ranks: Vec<f64>,
    upper: Vec<u64>,
    /// Where the lower halves of an upper one are counted; empty in the first pass.
    slots: Vec<u8>,
    lower: Vec<Vec<u64>>,
}

/// The slot of upper halves that are not counted.
const NO_SLOT: u8 = u8::MAX;

impl QuantileSearch {
    /// A search among `n` weights.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if there are no weights, a `q` is not between 0 and 1,
    /// or there are more than 100 of them.
    pub fn new(n: usize, qs: &[f32]) -> Result<Self> {
        if let Some(q) = qs.iter().find(|q| !(0.0..=1.0).contains(*q)) {
            return Err(Error::invalid_argument(format!("{q} is not a quantile")));
        }
        let Some(last) = n.checked_sub(1) else {
            return Err(Error::invalid_argument("no weights have no quantiles"));
        };
        if qs.len() > 100 {
            return Err(Error::invalid_argument(format!(
                "{} quantiles are more than 100",
                qs.len()
            )));
        }
        Ok(Self {
            n: n as u64,
            ranks: qs.iter().map(|&q| f64::from(q) * last as f64).collect(),
            upper: vec![0; HALF],
            slots: Vec::new(),
            lower: Vec::new(),
        })
    }

    /// Takes some weights in.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Interrupted`].
    pub fn add(&mut self, weights: Floats<'_>, monitor: &Monitor) -> Result<()> {
        if self.slots.is_empty() {
            let counts = histogram(weights, HALF, monitor, |pattern| {
                Some((pattern >> 16) as usize)
            })?;
            tasks::add(&mut self.upper, &counts);
            return Ok(());
        }
        let slots = &self.slots;
        let counts = histogram(weights, self.lower.len() * HALF, monitor, |pattern| {
            let slot = slots[(pattern >> 16) as usize];
            (slot != NO_SLOT).then(|| usize::from(slot) * HALF + pattern as usize % HALF)
        })?;
        for (total, counts) in self.lower.iter_mut().zip(counts.chunks_exact(HALF)) {
            tasks::add(total, counts);
        }
        Ok(())
    }

    /// Ends the first pass: all weights have been given once.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if they have not.
    pub fn turn(&mut self) -> Result<()> {
        self.check(&self.upper)?;
        self.slots = vec![NO_SLOT; HALF];
        for place in self.places() {
            let (half, _) = find(&self.upper, place);
            if self.slots[half] == NO_SLOT {
                self.slots[half] = self.lower.len() as u8;
                self.lower.push(vec![0; HALF]);
            }
        }
        Ok(())
    }

    /// Checks that a pass has given as many weights as it should.
    fn check(&self, counts: &[u64]) -> Result<()> {
        let given: u64 = counts.iter().sum();
        if given != self.n {
            return Err(Error::invalid_argument(format!(
                "{given} weights were given, and there are {}",
                self.n
            )));
        }
        Ok(())
    }

    /// The quantiles, once all weights have been given twice.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if they have not.
    pub fn finish(&self) -> Result<Vec<f32>> {
        let mut counts = vec![0; HALF];
        for (half, count) in counts.iter_mut().enumerate() {
            *count = match self.slots.get(half) {
                None => 0,
                Some(&NO_SLOT) => self.upper[half],
                Some(&slot) => self.lower[usize::from(slot)].iter().sum(),
            };
        }
        self.check(&counts)?;
        Ok(self
            .ranks
            .iter()
            .map(|rank| {
                let [below, above] = [rank.floor(), rank.ceil()].map(|place| self.at(place as u64));
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

    fn places(&self) -> Vec<u64> {
        self.ranks
            .iter()
            .flat_map(|rank| [rank.floor() as u64, rank.ceil() as u64])
            .collect()
    }

    /// The weight at that place of the ascending order.
    fn at(&self, place: u64) -> f32 {
        let (half, rest) = find(&self.upper, place);
        let slot = usize::from(self.slots[half]);
        let (other, _) = find(&self.lower[slot], rest);
        f32::from_bits(unordered((half << 16 | other) as u32))
    }
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
    counters: usize,
    monitor: &Monitor,
    part: impl Fn(u32) -> Option<usize> + Sync,
) -> Result<Vec<u64>> {
    let (counts, _) = tasks::fold(
        weights.len().div_ceil(PIECE),
        || (vec![0; counters], vec![0f32; PIECE]),
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

    #[test]
    fn a_search_that_was_not_given_all_weights_twice_is_refused() {
        let bytes: Vec<u8> = [1f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let weights = Floats::new(&bytes, WeightType::F32).unwrap();
        let mut search = QuantileSearch::new(2, &[0.5]).unwrap();
        assert!(search.turn().is_err());
        assert!(search.finish().is_err());
        search.add(weights, &Monitor::new()).unwrap();
        search.turn().unwrap();
        assert!(search.finish().is_err());
        search.add(weights, &Monitor::new()).unwrap();
        assert_eq!(search.finish().unwrap(), [1.5]);
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
            let q = place as f32 / values.len().max(2) as f32;
            let mut search = QuantileSearch::new(values.len(), &[q, 1.0 - q]).unwrap();
            for turn in [true, false] {
                for start in (0..values.len()).step_by(7) {
                    let end = values.len().min(start + 7);
                    search.add(weights.slice(start, end), &Monitor::new()).unwrap();
                }
                if turn {
                    search.turn().unwrap();
                }
            }
            prop_assert_eq!(search.finish().unwrap(), of(&values, &[q, 1.0 - q]).unwrap());
            let mut sorted = values.clone();
            sorted.sort_by(f32::total_cmp);
            let mut search = QuantileSearch::new(sorted.len(), &[0.0]).unwrap();
            search.ranks = vec![place as f64];
            search.add(weights, &Monitor::new()).unwrap();
            search.turn().unwrap();
            search.add(weights, &Monitor::new()).unwrap();
            prop_assert_eq!(search.finish().unwrap(), vec![sorted[place]]);
        }
    }
}
