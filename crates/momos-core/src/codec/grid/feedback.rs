//! Error feedback: the errors of a matrix's first inputs are made up for by those that follow.
//!
//! A layer multiplies its weights with inputs `x`, so errors `e` of one row of weights cost
//! `e' H e` with the second moments `H = E[x x']`. With `H = M' D M` (M unit lower triangular, D
//! diagonal) that is a sum of squares, `sum_i D_i (e_i + sum_{j<i} M_ij e_j)^2`: input by input, a
//! weight is quantised after the errors before it have been added to it, each times its M_ij, and
//! only the rounding that is left counts, `D_i` times its square. This is LDLQ (Chee et al., QuIP,
//! 2023) or, computed otherwise, GPTQ (Frantar et al., 2022).

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::monitor::Monitor;

/// Inputs that are worked on together, so that what is read serves several of them.
const PANEL: usize = 16;
/// Outputs whose errors are kept together, and are worked on by one thread.
const TILE: usize = 128;
/// Least damping, as a share of the mean of the diagonal.
pub const LEAST_DAMPING: f64 = 0.01;

/// Second moments in factors, damped.
#[derive(Clone, Debug)]
pub struct Factors {
    width: usize,
    groups: Vec<Group>,
    damping: f64,
}

#[derive(Clone, Debug)]
struct Group {
    /// Row i of the strict lower triangle of M, one after another.
    lower: Vec<f64>,
    /// The diagonal of D.
    pivots: Vec<f64>,
}

#[inline]
fn row_start(row: usize) -> usize {
    row * row.saturating_sub(1) / 2
}

impl Factors {
    /// Factors of second moments, `groups` matrices of `width * width` values, row after row, that
    /// are sums over `count` inputs.
    ///
    /// The moments are drawn towards a multiple of the identity: by at least [`LEAST_DAMPING`], and
    /// by what the oracle approximating shrinkage of Chen et al. (2010, equation 23) says where
    /// there are few inputs.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if the sizes disagree, or the moments are not those of
    /// any inputs: not finite, or not positive semidefinite. [`crate::ErrorKind::Interrupted`] if
    /// cancelled.
    pub fn new(
        moments: &[f64],
        groups: usize,
        width: usize,
        count: u64,
        monitor: &Monitor,
    ) -> Result<Self> {
        let size = width.checked_mul(width);
        if width == 0
            || groups == 0
            || size.and_then(|s| s.checked_mul(groups)) != Some(moments.len())
        {
            return Err(Error::invalid_argument(
                "second moments must be square matrices, one for each group",
            ));
        }
        if count == 0 {
            return Err(Error::invalid_argument("second moments of no inputs"));
        }
        let mut damping = 0f64;
        let groups = moments
            .chunks(width * width)
            .map(|moments| {
                let share = shrinkage(moments, width, count);
                damping = damping.max(share);
                factorise(moments, width, count, share, monitor)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            width,
            groups,
            damping,
        })
    }

    /// Number of inputs.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of groups of outputs, each with inputs of its own.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The largest share by which a group's moments were drawn towards the identity.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    /// Whether no error of an input can be made up for by another.
    pub fn is_diagonal(&self) -> bool {
        self.groups
            .iter()
            .all(|group| group.lower.iter().all(|&each| each == 0.0))
    }

    /// By input, how much a squared error counts that is left after feedback, averaged over groups.
    pub fn importance(&self) -> Vec<f64> {
        (0..self.width)
            .map(|input| {
                let mut sum = 0.0;
                for group in &self.groups {
                    sum += group.pivots[input];
                }
                sum / self.groups.len() as f64
            })
            .collect()
    }

    /// How much a squared error left in an input counts in the group of an output.
    #[inline]
    pub fn pivot(&self, group: usize, input: usize) -> f64 {
        self.groups[group].pivots[input]
    }
}

/// The share of the identity, from the traces of the moments and of their square.
fn shrinkage(moments: &[f64], width: usize, count: u64) -> f64 {
    let n = count as f64;
    let p = width as f64;
    let (mut trace, mut squares) = (0.0, 0.0);
    for row in 0..width {
        trace += moments[row * width + row] / n;
    }
    for value in moments {
        let mean = value / n;
        squares += mean * mean;
    }
    let of_trace = trace * trace;
    let above = (1.0 - 2.0 / p) * squares + of_trace;
    let below = (n + 1.0 - 2.0 / p) * (squares - of_trace / p);
    if below > 0.0 && above > 0.0 && above < below {
        (above / below).max(LEAST_DAMPING)
    } else {
        // All that can be told apart from noise is the mean; or the moments are a multiple of the
        // identity, which shrinkage does not change.
        1.0
    }
}

fn factorise(
    moments: &[f64],
    width: usize,
    count: u64,
    share: f64,
    monitor: &Monitor,
) -> Result<Group> {
    let scale = 1.0 / count as f64;
    let mut trace = 0.0;
    for row in 0..width {
        trace += moments[row * width + row] * scale;
    }
    let mean = trace / width as f64;
    if !mean.is_finite() || mean < 0.0 {
        return Err(not_moments());
    }
    let mut lower = vec![0.0; row_start(width)];
    let mut pivots = vec![0.0; width];
    if mean == 0.0 {
        // Inputs that are always zero: no error matters.
        return Ok(Group { lower, pivots });
    }
    let keep = (1.0 - share) * scale;
    for row in 0..width {
        let start = row_start(row);
        for column in 0..row {
            lower[start + column] = moments[row * width + column] * keep;
        }
        pivots[row] = moments[row * width + row] * keep + share * mean;
    }
    if share >= 1.0 {
        return Ok(Group { lower, pivots });
    }
    // From the last input to the first: row i of M is what is left of row i of the moments after
    // all later ones, divided by its diagonal element.
    let least = share * mean * 1e-3;
    let mut end = width;
    while end > 0 {
        monitor.check()?;
        let start = end.saturating_sub(PANEL);
        let (panel, later) = lower.split_at_mut(row_start(end));
        for row in end..width {
            let factors = &later[row_start(row) - row_start(end)..][..row];
            for target in start..end {
                let factor = factors[target] * pivots[row];
                subtract(&mut panel[row_start(target)..][..target], factors, factor);
                pivots[target] -= factor * factors[target];
            }
        }
        for row in (start..end).rev() {
            let pivot = pivots[row];
            if pivot < least || pivot.is_nan() {
                return Err(not_moments());
            }
            let (before, here) = panel.split_at_mut(row_start(row));
            let factors = &mut here[..row];
            for factor in factors.iter_mut() {
                *factor /= pivot;
            }
            for target in start..row {
                let factor = factors[target] * pivot;
                subtract(&mut before[row_start(target)..][..target], factors, factor);
                pivots[target] -= factor * factors[target];
            }
        }
        end = start;
    }
    Ok(Group { lower, pivots })
}

fn not_moments() -> Error {
    Error::invalid_argument("second moments are not those of any inputs")
}

#[inline]
fn subtract(target: &mut [f64], values: &[f64], factor: f64) {
    for (target, value) in target.iter_mut().zip(values) {
        *target -= factor * value;
    }
}

#[inline]
fn add(target: &mut [f64], values: &[f64], factor: f64) {
    for (target, value) in target.iter_mut().zip(values) {
        *target += factor * value;
    }
}

/// The weights of a matrix on their way to being quantised, input after input.
#[derive(Debug)]
pub struct Feedback<'a> {
    factors: &'a Factors,
    tiles: Vec<Tile>,
    /// The next input.
    input: usize,
}

/// Neighbouring outputs of one group.
#[derive(Debug)]
struct Tile {
    group: usize,
    outputs: usize,
    /// The errors of the inputs so far, `outputs` each.
    errors: Vec<f64>,
    /// What is aimed at for the inputs of the panel, `outputs` each.
    targets: Vec<f64>,
}

impl<'a> Feedback<'a> {
    /// Feedback for a matrix of `outputs` outputs, which the groups share evenly.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if they cannot.
    pub fn new(factors: &'a Factors, outputs: usize) -> Result<Self> {
        let groups = factors.groups();
        if outputs == 0 || !outputs.is_multiple_of(groups) {
            return Err(Error::invalid_argument(format!(
                "{outputs} outputs cannot be shared by {groups} groups"
            )));
        }
        let each = outputs / groups;
        let mut tiles = Vec::new();
        for group in 0..groups {
            for start in (0..each).step_by(TILE) {
                tiles.push(Tile {
                    group,
                    outputs: TILE.min(each - start),
                    errors: Vec::new(),
                    targets: Vec::new(),
                });
            }
        }
        Ok(Self {
            factors,
            tiles,
            input: 0,
        })
    }

    /// What to aim at for the next input, one value for every output; `weight(input, output)` is
    /// the matrix.
    pub fn targets(&mut self, weight: impl Fn(usize, usize) -> f64 + Sync, out: &mut Vec<f64>) {
        let place = self.input % PANEL;
        if place == 0 {
            self.prepare_panel(weight);
        }
        out.clear();
        for tile in &self.tiles {
            out.extend_from_slice(&tile.targets[place * tile.outputs..][..tile.outputs]);
        }
    }

    /// Takes the errors of the input, what was aimed for at first minus what was chosen.
    pub fn take(&mut self, errors: &[f64]) {
        let place = self.input % PANEL;
        let panel = self.input - place;
        let width = self.factors.width;
        let mut rest = errors;
        for tile in &mut self.tiles {
            let (here, tail) = rest.split_at(tile.outputs);
            rest = tail;
            tile.errors.extend_from_slice(here);
            let group = &self.factors.groups[tile.group];
            for (later, targets) in tile
                .targets
                .chunks_mut(tile.outputs)
                .enumerate()
                .skip(place + 1)
            {
                let row = panel + later;
                if row < width {
                    add(targets, here, group.lower[row_start(row) + self.input]);
                }
            }
        }
        self.input += 1;
    }

    fn prepare_panel(&mut self, weight: impl Fn(usize, usize) -> f64 + Sync) {
        let start = self.input;
        let rows = PANEL.min(self.factors.width - start);
        let mut first = 0;
        let firsts: Vec<usize> = self
            .tiles
            .iter()
            .map(|tile| {
                first += tile.outputs;
                first - tile.outputs
            })
            .collect();
        let factors = self.factors;
        self.tiles
            .par_iter_mut()
            .zip(firsts)
            .for_each(|(tile, first)| {
                let group = &factors.groups[tile.group];
                tile.targets.clear();
                for row in start..start + rows {
                    tile.targets
                        .extend((first..first + tile.outputs).map(|output| weight(row, output)));
                }
                for (input, errors) in tile.errors.chunks(tile.outputs).enumerate() {
                    for (row, targets) in tile.targets.chunks_mut(tile.outputs).enumerate() {
                        add(targets, errors, group.lower[row_start(start + row) + input]);
                    }
                }
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of outer products of correlated vectors.
    pub(super) fn moments(width: usize, count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed | 1;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as f64 / u64::MAX as f64 - 0.5
        };
        let mut sums = vec![0.0; width * width];
        for _ in 0..count {
            let mut before = 0.0;
            let vector: Vec<f64> = (0..width)
                .map(|place| {
                    before = 0.8 * before + uniform() * (1.0 + place as f64 % 5.0);
                    before
                })
                .collect();
            for i in 0..width {
                for j in 0..width {
                    sums[i * width + j] += vector[i] * vector[j];
                }
            }
        }
        sums
    }

    /// `M' D M` of a group.
    fn product(factors: &Factors, group: usize) -> Vec<f64> {
        let width = factors.width();
        let group = &factors.groups[group];
        let entry = |row: usize, column: usize| match row.cmp(&column) {
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => 1.0,
            std::cmp::Ordering::Greater => group.lower[row_start(row) + column],
        };
        let mut product = vec![0.0; width * width];
        for i in 0..width {
            for j in 0..width {
                for k in 0..width {
                    product[i * width + j] += entry(k, i) * group.pivots[k] * entry(k, j);
                }
            }
        }
        product
    }

    #[test]
    fn factors_multiply_to_the_damped_moments() {
        for width in [1, 2, 15, 16, 17, 45] {
            let count = 400;
            let sums = moments(width, count, 3);
            let factors = Factors::new(&sums, 1, width, count as u64, &Monitor::new()).unwrap();
            let share = factors.damping();
            assert!(
                (LEAST_DAMPING..1.0).contains(&share) || width == 1,
                "{share}"
            );
            let mean =
                (0..width).map(|i| sums[i * width + i]).sum::<f64>() / (width * count) as f64;
            let product = product(&factors, 0);
            for i in 0..width {
                for j in 0..width {
                    let expected = sums[i * width + j] / count as f64 * (1.0 - share)
                        + if i == j { share * mean } else { 0.0 };
                    let error = (product[i * width + j] - expected).abs();
                    assert!(error < 1e-9 * mean, "{width} {i} {j} {error}");
                }
            }
        }
    }

    #[test]
    fn few_inputs_are_damped_more() {
        let damping = |count| {
            let sums = moments(60, count, 5);
            Factors::new(&sums, 1, 60, count as u64, &Monitor::new())
                .unwrap()
                .damping()
        };
        let (few, more, many) = (damping(8), damping(100), damping(5000));
        assert!(few > more && more > many, "{few} {more} {many}");
        assert!(few > 0.1 && many < 0.03, "{few} {many}");
    }

    #[test]
    fn a_multiple_of_the_identity_feeds_nothing_back() {
        let mut sums = vec![0.0; 49];
        for i in 0..7 {
            sums[i * 8] = 36.0;
        }
        let factors = Factors::new(&sums, 1, 7, 12, &Monitor::new()).unwrap();
        assert!(factors.is_diagonal());
        assert_eq!(factors.importance(), vec![3.0; 7]);
    }

    #[test]
    fn what_cannot_be_moments_is_refused() {
        let monitor = Monitor::new();
        let refused = |sums: &[f64], groups, width, count| {
            let error = Factors::new(sums, groups, width, count, &monitor).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument);
        };
        refused(&[1.0, 9.0, 9.0, 1.0], 1, 2, 1000);
        refused(&[f64::NAN, 0.0, 0.0, 1.0], 1, 2, 10);
        refused(&[-1.0, 0.0, 0.0, -2.0], 1, 2, 10);
        refused(&[1.0, 0.0, 0.0], 1, 2, 10);
        refused(&[1.0, 0.0, 0.0, 1.0], 1, 2, 0);
        refused(&[], 0, 0, 1);
        let factors = Factors::new(&[1.0; 8], 2, 2, 9, &monitor).unwrap();
        assert!(Feedback::new(&factors, 3).is_err());
    }

    /// Every target is the weight plus the errors before it, each times its factor.
    #[test]
    fn targets_make_up_for_errors() {
        let (width, outputs, groups) = (37, 2 * TILE + 6, 2);
        let sums: Vec<f64> = (0..groups)
            .flat_map(|group| moments(width, 300, 11 + group as u64))
            .collect();
        let factors = Factors::new(&sums, groups, width, 300, &Monitor::new()).unwrap();
        let weight = |input: usize, output: usize| ((input * 31 + output * 17) % 13) as f64;
        let error = |input: usize, output: usize| ((input * 7 + output * 5) % 11) as f64 - 5.0;
        let mut feedback = Feedback::new(&factors, outputs).unwrap();
        let mut targets = Vec::new();
        for input in 0..width {
            feedback.targets(weight, &mut targets);
            for (output, target) in targets.iter().enumerate() {
                let lower = &factors.groups[output / (outputs / groups)].lower;
                let mut expected = weight(input, output);
                for before in 0..input {
                    expected += lower[row_start(input) + before] * error(before, output);
                }
                assert!((target - expected).abs() < 1e-9 * (1.0 + expected.abs()));
            }
            let errors: Vec<f64> = (0..outputs).map(|output| error(input, output)).collect();
            feedback.take(&errors);
        }
    }
}
