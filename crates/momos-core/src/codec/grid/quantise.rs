//! Choosing the points of the grid: distance weighed against the bits it will take.

use super::geometry::Geometry;
use super::normal::Normal;
use super::row_model::{Expert, Outlook, RowModel, Source};
use super::simd::Level;
use super::trellis::Trellis;
use crate::error::Result;
use crate::monitor::Monitor;

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
    let experts = observe(job.values, geometry, first_scale, monitor)?;
    if trellis.is_plain() {
        plain(job, &experts, monitor)
    } else {
        along_trellis(job, &experts, trellis, monitor)
    }
}

fn observe(
    values: &[f32],
    geometry: &Geometry,
    first_scale: f32,
    monitor: &Monitor,
) -> Result<Vec<Expert>> {
    let mut model = RowModel::new(geometry, first_scale, Level::best());
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
        // Far out the density decides.
        (0.5 * centre * centre + 0.9189 + normal.ln(expert.deviation)) * std::f32::consts::LOG2_E
    }
}

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

/// The cheapest points by branch (twice the half plus the parity of the position), with their
/// costs.
struct Candidates {
    costs: [f32; 4],
    multiples: [i32; 4],
}

/// Values in units of the spacing lie on multiples of one half; the branch of multiple `h` is
/// `2 * (h mod 2) + (h div 2) mod 2`.
#[inline]
fn candidates(normal: Normal, value: f32, expert: Expert, weight: f32, per_bit: f32) -> Candidates {
    const BRANCHES: [usize; 4] = [0, 2, 1, 3];
    let inverse = 1.0 / expert.deviation;
    let floor = (2.0 * value).floor() as i32;
    let mut best = Candidates {
        costs: [f32::INFINITY; 4],
        multiples: [0; 4],
    };
    for multiple in floor - 3..=floor + 4 {
        let x = 0.5 * multiple as f32;
        let error = value - x;
        let cost = weight * error * error + per_bit * bits(normal, x, expert, inverse);
        let branch = BRANCHES[(multiple & 3) as usize];
        if cost < best.costs[branch] {
            best.costs[branch] = cost;
            best.multiples[branch] = multiple;
        }
    }
    best
}

/// The cheapest path through the trellis (Viterbi, 1967).
fn along_trellis(
    job: &Job<'_>,
    experts: &[Expert],
    trellis: &Trellis,
    monitor: &Monitor,
) -> Result<Vec<i32>> {
    let normal = Normal::new();
    let per_bit = job.economy * ERROR_PER_BIT;
    let states = trellis.states();
    let arrivals = trellis.arrivals();
    let words = states.div_ceil(64);
    let weight = |index: usize| job.weights.map_or(1.0, |weights| weights[index]);

    let mut costs = vec![f32::INFINITY; states];
    costs[0] = 0.0;
    let mut next = costs.clone();
    // One bit per value and state: which of the two ways into the state is cheaper.
    let mut choices = vec![0u64; job.values.len() * words];
    let mut options = Vec::with_capacity(job.values.len());
    for (index, (&value, &expert)) in job.values.iter().zip(experts).enumerate() {
        if index % (1 << 14) == 0 {
            monitor.check()?;
        }
        let Candidates {
            costs: branches,
            multiples,
        } = candidates(normal, value, expert, weight(index), per_bit);
        options.push(multiples);
        let choice = &mut choices[index * words..][..words];
        let mut least = f32::INFINITY;
        for (state, [first, second]) in arrivals.iter().enumerate() {
            let a = costs[usize::from(first.from)] + branches[usize::from(first.branch)];
            let b = costs[usize::from(second.from)] + branches[usize::from(second.branch)];
            choice[state / 64] |= u64::from(b < a) << (state % 64);
            next[state] = if b < a { b } else { a };
            least = least.min(next[state]);
        }
        for (cost, next) in costs.iter_mut().zip(&next) {
            *cost = next - least;
        }
    }

    let mut state = 0;
    for (candidate, cost) in costs.iter().enumerate() {
        if *cost < costs[state] {
            state = candidate;
        }
    }
    let mut chosen = vec![0; job.values.len()];
    for (index, slot) in chosen.iter_mut().enumerate().rev() {
        let way = choices[index * words + state / 64] >> (state % 64) & 1;
        let arrival = arrivals[state][way as usize];
        *slot = options[index][usize::from(arrival.branch)];
        state = usize::from(arrival.from);
    }
    debug_assert_eq!(state, 0);
    Ok(chosen)
}
