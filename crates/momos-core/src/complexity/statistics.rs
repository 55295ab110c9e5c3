//! What one pass over a tensor tells about its values.

use super::floats::{Floats, WeightType};
use super::tasks;
use crate::{Monitor, Result};

/// Weights per piece: widened in the cache, and the unit of the fixed order of summation.
const PIECE: usize = 1 << 12;

/// Pieces per parallel task.
const PIECES_PER_TASK: usize = 64;

/// Counts, range and sums of the weights of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Number of weights.
    pub n: u64,
    /// Weights equal to zero, of either sign.
    pub zeros: u64,
    /// NaN weights.
    pub nans: u64,
    /// Infinite weights.
    pub infinities: u64,
    /// Smallest weight that is not NaN; infinity if there is none.
    pub min: f64,
    /// Largest weight that is not NaN; negative infinity if there is none.
    pub max: f64,
    /// Sum of the finite weights.
    pub sum: f64,
    /// Sum of the squares of the finite weights.
    pub sum_of_squares: f64,
}

impl Statistics {
    /// Of no weights.
    pub const EMPTY: Self = Self {
        n: 0,
        zeros: 0,
        nans: 0,
        infinities: 0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        sum: 0.0,
        sum_of_squares: 0.0,
    };

    /// The statistics of the weights, in float64, with sums in an order that depends neither on
    /// the threads nor on the processor. Reports weights to the monitor.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Interrupted`].
    pub fn of(weights: Floats<'_>, monitor: &Monitor) -> Result<Self> {
        Self::EMPTY.and(weights, monitor)
    }

    /// The statistics of the weights so far and further ones.
    ///
    /// Weights that come in pieces have the same sums as in one, if all pieces but the last are of
    /// a multiple of 2^18 weights.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn and(self, weights: Floats<'_>, monitor: &Monitor) -> Result<Self> {
        let task = PIECE * PIECES_PER_TASK;
        let parts = tasks::map(weights.len().div_ceil(task), |index| {
            monitor.check()?;
            let part = weights.slice(index * task, weights.len().min((index + 1) * task));
            monitor.advance(part.len() as u64);
            Ok(Self::of_task(part))
        })?;
        Ok(parts.iter().fold(self, Self::join))
    }

    fn of_task(weights: Floats<'_>) -> Self {
        let mut wide = [0f64; PIECE];
        let mut total = Self::EMPTY;
        let mut start = 0;
        while start < weights.len() {
            let end = weights.len().min(start + PIECE);
            let piece = weights.slice(start, end);
            piece.widen_to_f64(&mut wide);
            total = total.join(&Self::of_piece(&wide[..piece.len()]));
            start = end;
        }
        total
    }

    fn of_piece(values: &[f64]) -> Self {
        // Eight independent lanes: a fixed order of summation that any vector unit can follow.
        const LANES: usize = 8;
        let mut zeros = [0u64; LANES];
        let mut nans = [0u64; LANES];
        let mut infinities = [0u64; LANES];
        let mut min = [f64::INFINITY; LANES];
        let mut max = [f64::NEG_INFINITY; LANES];
        let mut sum = [0f64; LANES];
        let mut squares = [0f64; LANES];
        let mut take = |lane: usize, value: f64| {
            zeros[lane] += u64::from(value == 0.0);
            nans[lane] += u64::from(value.is_nan());
            infinities[lane] += u64::from(value.abs() == f64::INFINITY);
            // A comparison with NaN is false, so NaN never gets in.
            min[lane] = if value < min[lane] { value } else { min[lane] };
            max[lane] = if value > max[lane] { value } else { max[lane] };
            let finite = if value.abs() < f64::INFINITY {
                value
            } else {
                0.0
            };
            sum[lane] += finite;
            squares[lane] += finite * finite;
        };
        let (whole, rest) = values.as_chunks::<LANES>();
        for chunk in whole {
            for (lane, &value) in chunk.iter().enumerate() {
                take(lane, value);
            }
        }
        for (lane, &value) in rest.iter().enumerate() {
            take(lane, value);
        }
        Self {
            n: values.len() as u64,
            zeros: zeros.iter().sum(),
            nans: nans.iter().sum(),
            infinities: infinities.iter().sum(),
            min: min.into_iter().fold(f64::INFINITY, f64::min),
            max: max.into_iter().fold(f64::NEG_INFINITY, f64::max),
            sum: sum.iter().sum(),
            sum_of_squares: squares.iter().sum(),
        }
    }

    /// The statistics of these weights followed by the other ones.
    pub fn join(self, other: &Self) -> Self {
        Self {
            n: self.n + other.n,
            zeros: self.zeros + other.zeros,
            nans: self.nans + other.nans,
            infinities: self.infinities + other.infinities,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            sum: self.sum + other.sum,
            sum_of_squares: self.sum_of_squares + other.sum_of_squares,
        }
    }
}

/// The range of the weights, and whether all are finite: what a quantiser needs, at the speed of
/// memory where the type allows it.
pub fn finite_range(weights: Floats<'_>, monitor: &Monitor) -> Result<Option<(f64, f64)>> {
    let range = match weights.dtype() {
        WeightType::F64 => {
            let all = Statistics::of(weights, monitor)?;
            (all.nans == 0).then_some((all.min, all.max))
        }
        _ => range_f32(weights, monitor)?,
    };
    Ok(range.filter(|(min, max)| min.is_finite() && max.is_finite()))
}

fn range_f32(weights: Floats<'_>, monitor: &Monitor) -> Result<Option<(f64, f64)>> {
    let task = PIECE * PIECES_PER_TASK;
    let ranges = tasks::map(weights.len().div_ceil(task), |index| {
        monitor.check()?;
        let part = weights.slice(index * task, weights.len().min((index + 1) * task));
        let mut range = Some((f32::INFINITY, f32::NEG_INFINITY));
        let mut wide = [0f32; PIECE];
        let mut start = 0;
        while start < part.len() {
            let end = part.len().min(start + PIECE);
            let piece = part.slice(start, end);
            piece.widen_to_f32(&mut wide);
            range = union(range, range_of(&wide[..piece.len()]));
            start = end;
        }
        Ok(range)
    })?;
    Ok(ranges
        .into_iter()
        .fold(Some((f32::INFINITY, f32::NEG_INFINITY)), union)
        .map(|(min, max)| (min.into(), max.into())))
}

fn union(left: Option<(f32, f32)>, right: Option<(f32, f32)>) -> Option<(f32, f32)> {
    let ((a, b), (c, d)) = (left?, right?);
    Some((a.min(c), b.max(d)))
}

/// The range of the values, `None` if one is NaN.
fn range_of(values: &[f32]) -> Option<(f32, f32)> {
    const LANES: usize = 32;
    let mut min = [f32::INFINITY; LANES];
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut nan = [false; LANES];
    let mut take = |lane: usize, value: f32| {
        min[lane] = if value < min[lane] { value } else { min[lane] };
        max[lane] = if value > max[lane] { value } else { max[lane] };
        nan[lane] |= value.is_nan();
    };
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, &value) in chunk.iter().enumerate() {
            take(lane, value);
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        take(lane, value);
    }
    if nan.contains(&true) {
        return None;
    }
    Some((
        min.into_iter().fold(f32::INFINITY, f32::min),
        max.into_iter().fold(f32::NEG_INFINITY, f32::max),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    #[test]
    fn every_kind_of_value_is_told_apart() {
        let bytes = bytes(&[0.0, -0.0, f32::NAN, 2.0, -3.0, f32::INFINITY]);
        let all = Statistics::of(
            Floats::new(&bytes, WeightType::F32).unwrap(),
            &Monitor::new(),
        )
        .unwrap();
        assert_eq!(
            all,
            Statistics {
                n: 6,
                zeros: 2,
                nans: 1,
                infinities: 1,
                min: -3.0,
                max: f64::INFINITY,
                sum: -1.0,
                sum_of_squares: 13.0,
            }
        );
    }

    #[test]
    fn sums_do_not_depend_on_threads() {
        let values: Vec<f32> = (0..1_000_003).map(|i| ((i * 37) as f32).sin()).collect();
        let bytes = bytes(&values);
        let weights = Floats::new(&bytes, WeightType::F32).unwrap();
        let of = |threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap()
                .install(|| Statistics::of(weights, &Monitor::new()))
                .unwrap()
        };
        assert_eq!(of(1), of(3));
        let exact: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
        assert!((of(1).sum_of_squares / exact - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_range_is_finite_or_none() {
        let range = |values: &[f32]| {
            let bytes = bytes(values);
            finite_range(
                Floats::new(&bytes, WeightType::F32).unwrap(),
                &Monitor::new(),
            )
            .unwrap()
        };
        assert_eq!(range(&[1.0, -2.0, 0.5]), Some((-2.0, 1.0)));
        assert_eq!(range(&[1.0, f32::NAN]), None);
        assert_eq!(range(&[1.0, f32::NEG_INFINITY]), None);
        assert_eq!(range(&[]), None);
    }
}
