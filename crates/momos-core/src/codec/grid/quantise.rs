//! Choosing the points of the grid: distance weighed against the bits it will take.

use super::geometry::Geometry;
use super::row_model::{Expert, Outlook, RowModel, Source};
use super::trellis::{MAX_STATE_BITS, Trellis};
use crate::codec::entropy::normal::Normal;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::Available;

/// The trade-off between squared error and bits that a fine quantiser followed by an ideal code
/// strikes: `d(error)/d(bits) = 2 ln 2 * spacing^2 / 12`, in units of the squared spacing.
const ERROR_PER_BIT: f32 = 2.0 * std::f32::consts::LN_2 / 12.0;

/// What a quantiser knows of the values it quantises.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// In units of the spacing, in coded order.
    pub values: &'a [f32],
    /// How much the squared error of each value counts, 1 by default.
    pub weights: Option<&'a [f32]>,
    /// How much bits count, as a multiple of the best trade-off at high rates.
    pub economy: f32,
    /// Instructions to use; the result does not depend on them.
    pub isa: Available,
}

/// Records what the model expects, fed with the values before quantisation.
struct Observer<'a> {
    values: std::slice::Iter<'a, f32>,
    experts: Vec<Expert>,
}

impl Source for Observer<'_> {
    fn next(&mut self, outlook: &Outlook) -> f32 {
        self.experts.push(if outlook.ready {
            outlook.predicted
        } else {
            outlook.scaled
        });
        *self
            .values
            .next()
            .expect("there is a value for every outlook")
    }
}

/// The multiples of half the spacing (of the spacing itself, for the plain grid) that stand for the
/// values.
///
/// # Errors
/// [`crate::ErrorKind::Interrupted`] if cancelled.
pub fn quantise(
    job: &Job<'_>,
    geometry: &Geometry,
    first_scale: f32,
    trellis: &Trellis,
    monitor: &Monitor,
) -> Result<Vec<i32>> {
    let experts = observe(job, geometry, first_scale, monitor)?;
    let (chosen, _) = choose(job, &experts, trellis, 0, monitor)?;
    Ok(chosen)
}

/// The multiples that stand for values of which something is expected, and the trellis's state after
/// them when it is `state` before.
fn choose(
    job: &Job<'_>,
    experts: &[Expert],
    trellis: &Trellis,
    state: u8,
    monitor: &Monitor,
) -> Result<(Vec<i32>, u8)> {
    if trellis.is_plain() {
        Ok((plain(job, experts, monitor)?, 0))
    } else {
        along_trellis(job, experts, trellis, state, monitor)
    }
}

/// Quantises row after row, each known only when those before it are quantised.
#[derive(Debug)]
pub struct RowByRow<'a> {
    trellis: &'a Trellis,
    model: RowModel,
    past: Vec<f32>,
    state: u8,
}

impl<'a> RowByRow<'a> {
    /// Ready for the first row of a chunk.
    pub fn new(
        geometry: &Geometry,
        first_scale: f32,
        trellis: &'a Trellis,
        isa: Available,
    ) -> Self {
        Self {
            trellis,
            model: RowModel::new(geometry, first_scale, isa),
            past: Vec::new(),
            state: 0,
        }
    }

    /// The multiples that stand for the next row, as in [`quantise()`].
    ///
    /// # Errors
    /// [`crate::ErrorKind::Interrupted`] if cancelled.
    pub fn row(&mut self, job: &Job<'_>, monitor: &Monitor) -> Result<Vec<i32>> {
        let mut observer = Observer {
            values: job.values.iter(),
            experts: Vec::with_capacity(job.values.len()),
        };
        self.model
            .row(&mut self.past, job.values.len(), &mut observer);
        let (chosen, state) = choose(job, &observer.experts, self.trellis, self.state, monitor)?;
        self.state = state;
        Ok(chosen)
    }
}

fn observe(
    job: &Job<'_>,
    geometry: &Geometry,
    first_scale: f32,
    monitor: &Monitor,
) -> Result<Vec<Expert>> {
    let values = job.values;
    let mut model = RowModel::new(geometry, first_scale, job.isa);
    let mut past = Vec::with_capacity(values.len());
    let mut observer = Observer {
        values: values.iter(),
        experts: Vec::with_capacity(values.len()),
    };
    for row in values.chunks(geometry.columns) {
        monitor.check()?;
        model.row(&mut past, row.len(), &mut observer);
    }
    Ok(observer.experts)
}

/// About the bits that values (as in [`Job`]) take in an order, without choosing or coding any.
///
/// # Errors
/// [`crate::ErrorKind::Interrupted`] if cancelled.
pub fn estimate(
    values: &[f32],
    geometry: &Geometry,
    first_scale: f32,
    monitor: &Monitor,
) -> Result<f64> {
    let job = Job {
        values,
        weights: None,
        economy: 1.0,
        isa: Available::best(),
    };
    let experts = observe(&job, geometry, first_scale, monitor)?;
    let normal = Normal::new();
    let mut total = 0.0;
    for (&value, &expert) in values.iter().zip(&experts) {
        total += f64::from(bits(normal, value, expert, 1.0 / expert.deviation));
    }
    Ok(total)
}

/// Bits of a value in a bin of width 1 around `x`.
#[inline]
fn bits(normal: Normal, x: f32, expert: Expert, inverse: f32) -> f32 {
    const LEAST: f32 = 1e-7;
    let centre = (x - expert.mean) * inverse;
    let half = 0.5 * inverse;
    let probability = normal.between(centre - half, centre + half);
    if probability > LEAST {
        -normal.ln(probability) * std::f32::consts::LOG2_E
    } else {
        bits_far_out(normal, x, expert)
    }
}

/// Bits of values in bins of width 1 around `first`, `first + 1/2`, `first + 1`, ...
#[inline]
fn bits_of_bins<const BINS: usize>(normal: Normal, first: f32, expert: Expert) -> [f32; BINS] {
    const LEAST: f32 = 1e-7;
    let inverse = 1.0 / expert.deviation;
    let middle = first + 0.25 * (BINS - 1) as f32;
    // The tail on the far side of the mean keeps the precision of small probabilities.
    let side = if middle > expert.mean { -1.0 } else { 1.0 };
    let tail = |edge: f32| normal.below((edge - expert.mean) * inverse * side);
    let mut tails = [tail(first - 0.5), tail(first)];
    std::array::from_fn(|bin| {
        let x = first + 0.5 * bin as f32;
        let beyond = tail(x + 0.5);
        let probability = (tails[0] - beyond).abs();
        tails = [tails[1], beyond];
        if probability > LEAST {
            -normal.ln(probability) * std::f32::consts::LOG2_E
        } else {
            bits_far_out(normal, x, expert)
        }
    })
}

/// Bits of a value far from the mean, where the density decides.
#[cold]
fn bits_far_out(normal: Normal, x: f32, expert: Expert) -> f32 {
    let z = (x - expert.mean) / expert.deviation;
    (0.5 * z * z + HALF_LN_TAU + normal.ln(expert.deviation)) * std::f32::consts::LOG2_E
}

const HALF_LN_TAU: f32 = 0.918_938_5;

fn plain(job: &Job<'_>, experts: &[Expert], monitor: &Monitor) -> Result<Vec<i32>> {
    let normal = Normal::new();
    let per_bit = job.economy * ERROR_PER_BIT;
    let mut chosen = Vec::with_capacity(job.values.len());
    for (index, (&value, &expert)) in job.values.iter().zip(experts).enumerate() {
        if index % (1 << 16) == 0 {
            monitor.check()?;
        }
        let inverse = 1.0 / expert.deviation;
        let weight = job.weights.map_or(1.0, |weights| weights[index]);
        let floor = value.floor() as i32;
        let mut best = (f32::INFINITY, floor);
        for candidate in floor - 1..=floor + 2 {
            let error = value - candidate as f32;
            let cost =
                weight * error * error + per_bit * bits(normal, candidate as f32, expert, inverse);
            if cost < best.0 {
                best = (cost, candidate);
            }
        }
        chosen.push(best.1);
    }
    Ok(chosen)
}

/// Candidates around a value; two for each branch, four multiples apart.
const CANDIDATES: usize = 8;

/// The cheapest candidate of each branch (twice the half plus the parity of the position).
///
/// Values in units of the spacing lie on multiples of one half; the branch of multiple `h` is
/// `2 * (h mod 2) + (h div 2) mod 2`.
struct Candidates {
    /// The lowest multiple considered.
    first: i32,
    costs: [f32; 4],
    /// By branch: whether the upper of its two candidates is cheaper.
    upper: u8,
}

impl Candidates {
    #[inline]
    fn new(normal: Normal, value: f32, expert: Expert, weight: f32, per_bit: f32) -> Self {
        let first = (2.0 * value).floor() as i32 - 3;
        let bits = bits_of_bins::<CANDIDATES>(normal, 0.5 * first as f32, expert);
        let cost = |candidate: usize| {
            let error = value - 0.5 * (first + candidate as i32) as f32;
            weight * error * error + per_bit * bits[candidate]
        };
        let mut best = Self {
            first,
            costs: [0.0; 4],
            upper: 0,
        };
        for candidate in 0..4 {
            let branch = branch_of(first + candidate as i32);
            let (lower, upper) = (cost(candidate), cost(candidate + 4));
            best.upper |= u8::from(upper < lower) << branch;
            best.costs[branch] = lower.min(upper);
        }
        best
    }
}

#[inline]
fn branch_of(multiple: i32) -> usize {
    const BRANCHES: [usize; 4] = [0, 2, 1, 3];
    BRANCHES[(multiple & 3) as usize]
}

/// The multiple that a branch's cheapest candidate was.
fn multiple_of(first: i32, upper: u8, branch: u8) -> i32 {
    let offset = (0..4)
        .find(|&offset| branch_of(first + offset) == usize::from(branch))
        .expect("four multiples in a row have all branches");
    first + offset + 4 * i32::from(upper >> branch & 1)
}

const MOST_STATES: usize = 1 << MAX_STATE_BITS;
/// Values between two subtractions of the least cost, which keep costs small and so precise.
const VALUES_PER_RESET: usize = 64;

/// The cheapest path through the trellis (Viterbi, 1967).
fn along_trellis(
    job: &Job<'_>,
    experts: &[Expert],
    trellis: &Trellis,
    start: u8,
    monitor: &Monitor,
) -> Result<(Vec<i32>, u8)> {
    let normal = Normal::new();
    let per_bit = job.economy * ERROR_PER_BIT;
    let states = trellis.states();
    let words = states.div_ceil(64);
    // Where in `paths` the two ways into a state are.
    let ways: Vec<[u16; 2]> = trellis
        .arrivals()
        .iter()
        .map(|ways| {
            ways.map(|way| u16::from(way.from) + MOST_STATES as u16 * u16::from(way.branch & 1))
        })
        .collect();

    // Cost of the cheapest path to each state, and one step further, by parity and state.
    let mut costs = [f32::INFINITY; MOST_STATES];
    costs[usize::from(start)] = 0.0;
    let mut paths = [0f32; 2 * MOST_STATES];
    // One bit per value and state: which of the two ways into the state is cheaper.
    let mut choices = vec![0u64; job.values.len() * words];
    let mut options = Vec::with_capacity(job.values.len());
    for (index, (&value, &expert)) in job.values.iter().zip(experts).enumerate() {
        if index % (1 << 14) == 0 {
            monitor.check()?;
        }
        let weight = job.weights.map_or(1.0, |weights| weights[index]);
        let candidates = Candidates::new(normal, value, expert, weight, per_bit);
        options.push((candidates.first, candidates.upper));
        let (even, odd) = paths.split_at_mut(MOST_STATES);
        // The lower half of the states takes even multiples, the upper half odd ones.
        for (parity, paths) in [even, odd].into_iter().enumerate() {
            let half = states / 2;
            for (path, cost) in paths[..half].iter_mut().zip(&costs[..half]) {
                *path = cost + candidates.costs[parity];
            }
            for (path, cost) in paths[half..states].iter_mut().zip(&costs[half..states]) {
                *path = cost + candidates.costs[2 + parity];
            }
        }
        let choice = &mut choices[index * words..][..words];
        for (word, (costs, ways)) in choice
            .iter_mut()
            .zip(costs[..states].chunks_mut(64).zip(ways.chunks(64)))
        {
            let mut bits = 0;
            for (state, (cost, way)) in costs.iter_mut().zip(ways).enumerate() {
                let [a, b] =
                    [way[0], way[1]].map(|place| paths[usize::from(place) & (2 * MOST_STATES - 1)]);
                bits |= u64::from(b < a) << state;
                *cost = if b < a { b } else { a };
            }
            *word = bits;
        }
        if index % VALUES_PER_RESET == 0 {
            let least = costs[..states]
                .iter()
                .copied()
                .fold(f32::INFINITY, f32::min);
            for cost in &mut costs[..states] {
                *cost -= least;
            }
        }
    }

    let mut state = 0;
    for (candidate, cost) in costs[..states].iter().enumerate() {
        if *cost < costs[state] {
            state = candidate;
        }
    }
    let end = state as u8;
    let mut chosen = vec![0; job.values.len()];
    for (index, slot) in chosen.iter_mut().enumerate().rev() {
        let way = choices[index * words + state / 64] >> (state % 64) & 1;
        let arrival = trellis.arrivals()[state][way as usize];
        let (first, upper) = options[index];
        *slot = multiple_of(first, upper, arrival.branch);
        state = usize::from(arrival.from);
    }
    debug_assert_eq!(state, usize::from(start));
    Ok((chosen, end))
}
