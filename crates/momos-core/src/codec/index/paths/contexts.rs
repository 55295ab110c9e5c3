//! Paths by few shared contexts: fast, and quick to learn.
//!
//! Whether a block goes right at a node depends above all on whether the motifs there have more
//! energy than those on the left, and on the energy of the weights around the block. So a bit's
//! context is its level, how steeply the energy rises or falls at its node, and the energy of the
//! last blocks. Where single motifs stand out (the zero block of a pruned model), nodes that were
//! visited often have probabilities of their own.
//!
//! A bit cannot be decoded before the one above it in its path. So a chunk is cut in [`LANES`] parts,
//! each with its own range coder and all with one model, whose paths are decoded level by level side
//! by side: a processor works on one lane while it waits for another.

use std::array;
use std::hint::select_unpredictable;

use crate::codec::entropy::model::AdaptiveBit;
use crate::codec::entropy::range_coder::{BitCoder, CostCounter, RangeDecoder, RangeEncoder};
use crate::codec::index::chunks::{self, BLOCKS_PER_CHECK};
use crate::codec::motifs::tree::{MotifTree, Slope, half_octaves};
use crate::error::Result;
use crate::monitor::Monitor;

/// Parts of a chunk that are coded side by side.
pub const LANES: usize = 4;

/// Chunks of fewer blocks are not cut: they are fast anyway, and every lane costs some bytes.
const LEAST_BLOCKS_FOR_LANES: usize = 1 << 14;

/// Steps of half an octave of the energy around, relative to the mean of all motifs.
const ENERGIES: usize = 16;
const LOWEST_ENERGY: i16 = -10;

const CONTEXTS_PER_LEVEL: usize = Slope::CLASSES * ENERGIES;

/// Shared contexts and nodes forget at this rate.
const LIMIT: u16 = 1023;
const NODE_LIMIT: u16 = 255;

/// Blocks by which the encoder judges its choices; those before the last half only train the model.
pub const TRIAL_BLOCKS: usize = 1 << 16;

/// Share of the bits that may be lost where levels are not modelled, for speed.
const TOLERATED_LOSS: f64 = 0.003;

/// Visits after which a node may have a probability of its own, for the encoder to choose from.
const OWN_AFTER: u8 = 20;

/// Motifs under a node below the modelled levels: one value of the range coder.
const MOST_UNMODELLED: usize = 1 << 16;

/// What the encoder chooses for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Upper levels of the tree that are modelled; below, all motifs are equally probable.
    pub levels: u8,
    /// Visits after which a node has a probability of its own; 0 for never.
    pub own_after: u8,
}

impl Choice {
    /// Whether a decoder can follow it.
    pub fn is_possible(self, motifs: usize) -> bool {
        let unmodelled = motifs.checked_shr(self.levels.into()).unwrap_or(0);
        self.levels <= 32 && unmodelled < MOST_UNMODELLED
    }

    /// A good choice for some blocks.
    pub fn for_blocks(places: &[u32], tree: &MotifTree) -> Self {
        let deepest = tree.depth() as u8;
        let (mut best, mut best_cost) = (None, f64::INFINITY);
        for own_after in [0, OWN_AFTER] {
            let choice = Self {
                levels: deepest,
                own_after,
            };
            let costs = costs_by_level(places, tree, choice);
            let total: f64 = costs.iter().map(|(coded, _)| coded).sum();
            if total < best_cost {
                best_cost = total;
                best = Some((own_after, costs));
            }
        }
        let (own_after, costs) = best.expect("costs are finite");
        let mut levels = deepest;
        let mut loss = 0.0;
        while levels > 0 {
            let (coded, plain) = costs[usize::from(levels) - 1];
            loss += plain - coded;
            let fewer = Self {
                levels: levels - 1,
                own_after,
            };
            if loss > TOLERATED_LOSS * best_cost || !fewer.is_possible(tree.motifs()) {
                break;
            }
            levels -= 1;
        }
        Self { levels, own_after }
    }
}

/// Bits that the bits of each level take in the last half of the blocks, and their number.
fn costs_by_level(places: &[u32], tree: &MotifTree, choice: Choice) -> Vec<(f64, f64)> {
    /// Attributes costs to levels.
    struct ByLevel {
        counter: CostCounter,
        costs: Vec<(f64, f64)>,
        level: usize,
    }
    impl BitCoder for ByLevel {
        fn code(&mut self, bit: bool, one: u16) -> bool {
            self.counter.bits = 0.0;
            self.counter.code(bit, one);
            self.costs[self.level].0 += self.counter.bits;
            self.costs[self.level].1 += 1.0;
            self.level += 1;
            bit
        }
        fn code_below(&mut self, value: u32, _count: u32) -> u32 {
            value
        }
    }
    let mut coder = ByLevel {
        counter: CostCounter::new(),
        costs: vec![(0.0, 0.0); usize::from(choice.levels)],
        level: 0,
    };
    let mut model = ContextModel::new(tree, choice);
    let mut around = Surroundings::new();
    for (position, &place) in places.iter().enumerate() {
        if position == places.len() / 2 {
            coder.costs.fill((0.0, 0.0));
        }
        coder.level = 0;
        model.code_one(&mut coder, &mut around, place);
    }
    coder.costs
}

/// The energy of the last blocks: a mean of two running means.
#[derive(Clone, Copy, Debug)]
struct Surroundings {
    fast: f32,
    slow: f32,
    seen: usize,
}

impl Surroundings {
    const FAST: usize = 14;
    const SLOW: usize = 62;

    fn new() -> Self {
        Self {
            fast: 1.0,
            slow: 1.0,
            seen: 0,
        }
    }

    #[inline]
    fn energy(self) -> f32 {
        (self.fast + self.slow) * 0.5
    }

    #[inline]
    fn update(&mut self, energy: f32) {
        self.fast += (energy - self.fast) * RATES[self.seen.min(Self::FAST)];
        self.slow += (energy - self.slow) * RATES[self.seen.min(Self::SLOW)];
        self.seen = (self.seen + 1).min(Self::SLOW);
    }
}

/// `1 / (n + 2)`.
static RATES: [f32; Surroundings::SLOW + 1] = {
    let mut rates = [0.0; Surroundings::SLOW + 1];
    let mut seen = 0;
    while seen < rates.len() {
        rates[seen] = 1.0 / (seen + 2) as f32;
        seen += 1;
    }
    rates
};

/// Encodes the places of one chunk.
///
/// # Errors
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by blocks.
pub fn encode_chunk(
    places: &[u32],
    tree: &MotifTree,
    choice: Choice,
    monitor: &Monitor,
) -> Result<Vec<u8>> {
    if places.len() < LEAST_BLOCKS_FOR_LANES {
        encode_lanes::<1>(places, tree, choice, monitor)
    } else {
        encode_lanes::<LANES>(places, tree, choice, monitor)
    }
}

/// Decodes the places of one chunk.
///
/// # Errors
/// [`crate::ErrorKind::InsufficientData`] if the bytes end early,
/// [`crate::ErrorKind::Corruption`] if some are left over,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by blocks.
pub fn decode_chunk(
    bytes: &[u8],
    places: &mut [u32],
    tree: &MotifTree,
    choice: Choice,
    monitor: &Monitor,
) -> Result<()> {
    if places.len() < LEAST_BLOCKS_FOR_LANES {
        decode_lanes::<1>(bytes, places, tree, choice, monitor)
    } else {
        decode_lanes::<LANES>(bytes, places, tree, choice, monitor)
    }
}

fn encode_lanes<const N: usize>(
    places: &[u32],
    tree: &MotifTree,
    choice: Choice,
    monitor: &Monitor,
) -> Result<Vec<u8>> {
    let mut encoders: [RangeEncoder; N] = array::from_fn(|_| RangeEncoder::new());
    let model = ContextModel::new(tree, choice);
    code_lanes(&mut encoders, model, &mut places.to_vec(), monitor, |_| {
        Ok(())
    })?;
    let mut bytes = Vec::new();
    chunks::join(&mut bytes, &encoders.map(RangeEncoder::finish));
    Ok(bytes)
}

fn decode_lanes<const N: usize>(
    bytes: &[u8],
    places: &mut [u32],
    tree: &MotifTree,
    choice: Choice,
    monitor: &Monitor,
) -> Result<()> {
    let lanes = chunks::split(bytes, N)?;
    let mut decoders: [RangeDecoder<'_>; N] = array::from_fn(|lane| RangeDecoder::new(lanes[lane]));
    let model = ContextModel::new(tree, choice);
    code_lanes(&mut decoders, model, places, monitor, |decoders| {
        if decoders.iter().any(RangeDecoder::overrun) {
            return Err(chunks::ends_early());
        }
        Ok(())
    })?;
    decoders.iter().try_for_each(RangeDecoder::finish)
}

/// Codes the places of one chunk, lane beside lane: encoders leave them as they are, decoders fill
/// them in. `check` is asked every so often whether to go on.
fn code_lanes<C: BitCoder, const N: usize>(
    coders: &mut [C; N],
    mut model: ContextModel<'_>,
    places: &mut [u32],
    monitor: &Monitor,
    check: impl Fn(&[C; N]) -> Result<()>,
) -> Result<()> {
    let mut around = [Surroundings::new(); N];
    let per_lane = places.len() / N;
    for start in (0..per_lane).step_by(BLOCKS_PER_CHECK) {
        monitor.check()?;
        let steps = start..per_lane.min(start + BLOCKS_PER_CHECK);
        monitor.advance((steps.len() * N) as u64);
        for step in steps {
            let given = array::from_fn(|lane| places[lane * per_lane + step]);
            let coded = model.code(coders, &mut around, given);
            for (lane, place) in coded.into_iter().enumerate() {
                places[lane * per_lane + step] = place;
            }
        }
        check(coders)?;
    }
    let rest = &mut places[N * per_lane..];
    for place in rest.iter_mut() {
        *place = model.code_one(&mut coders[N - 1], &mut around[N - 1], *place);
    }
    monitor.advance(rest.len() as u64);
    Ok(())
}

/// The model of the paths of one chunk.
#[derive(Debug)]
struct ContextModel<'a> {
    tree: &'a MotifTree,
    own_after: u16,
    shared: Vec<AdaptiveBit>,
    /// Probabilities of single nodes; empty if there are none.
    own: Vec<AdaptiveBit>,
}

impl<'a> ContextModel<'a> {
    /// A model that has learnt nothing.
    fn new(tree: &'a MotifTree, choice: Choice) -> Self {
        let levels = usize::from(choice.levels);
        let own = if choice.own_after == 0 {
            0
        } else {
            tree.motifs()
        };
        Self {
            tree,
            own_after: choice.own_after.into(),
            shared: vec![AdaptiveBit::new(); levels * CONTEXTS_PER_LEVEL],
            own: vec![AdaptiveBit::new(); own],
        }
    }

    /// Codes one place.
    fn code_one<C: BitCoder>(
        &mut self,
        coder: &mut C,
        around: &mut Surroundings,
        place: u32,
    ) -> u32 {
        self.code(array::from_mut(coder), array::from_mut(around), [place])[0]
    }

    /// Codes one place in each lane; an encoder gives them, a decoder gets them.
    #[inline]
    fn code<C: BitCoder, const N: usize>(
        &mut self,
        coders: &mut [C; N],
        around: &mut [Surroundings; N],
        places: [u32; N],
    ) -> [u32; N] {
        if self.own.is_empty() {
            self.code_paths::<C, N, false>(coders, around, places)
        } else {
            self.code_paths::<C, N, true>(coders, around, places)
        }
    }

    #[inline]
    fn code_paths<C: BitCoder, const N: usize, const OWN: bool>(
        &mut self,
        coders: &mut [C; N],
        around: &mut [Surroundings; N],
        places: [u32; N],
    ) -> [u32; N] {
        let slopes = self.tree.slopes();
        let energies = around.map(|around| {
            let energy = half_octaves(around.energy()) - LOWEST_ENERGY;
            energy.clamp(0, ENERGIES as i16 - 1) as usize
        });
        let mut low = [0; N];
        let mut high = [slopes.len(); N];
        // A node at this level or above has two motifs or more.
        let full_levels = self.tree.motifs().max(1).ilog2() as usize;
        let levels = self.shared.as_chunks_mut::<CONTEXTS_PER_LEVEL>().0;
        for (number, level) in levels.iter_mut().enumerate() {
            for lane in 0..N {
                if number >= full_levels && high[lane] - low[lane] < 2 {
                    continue;
                }
                let middle = (low[lane] + high[lane]) / 2;
                let context = slopes[middle].class() * ENERGIES + energies[lane];
                let shared = &mut level[context % CONTEXTS_PER_LEVEL];
                let mut one = shared.one();
                let mut right = places[lane] as usize >= middle;
                if OWN {
                    let own = &mut self.own[middle];
                    if own.seen() >= self.own_after {
                        one = own.one();
                    }
                    right = coders[lane].code(right, one);
                    own.update(right, NODE_LIMIT);
                } else {
                    right = coders[lane].code(right, one);
                }
                shared.update(right, LIMIT);
                low[lane] = select_unpredictable(right, middle, low[lane]);
                high[lane] = select_unpredictable(right, high[lane], middle);
            }
        }
        array::from_fn(|lane| {
            let (low, high) = (low[lane] as u32, high[lane] as u32);
            let place = low + coders[lane].code_below(places[lane].wrapping_sub(low), high - low);
            around[lane].update(self.tree.energies()[place as usize]);
            place
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_energy_around_is_a_mean_at_first_and_then_follows() {
        let mut around = Surroundings::new();
        for energy in [3.0, 5.0] {
            around.update(energy);
        }
        assert!((around.energy() - 3.0).abs() < 1e-6);
        for _ in 0..500 {
            around.update(7.0);
        }
        assert!((around.energy() - 7.0).abs() < 0.01);
    }

    #[test]
    fn impossible_choices_are_seen() {
        let choice = |levels| Choice {
            levels,
            own_after: 0,
        };
        assert!(choice(0).is_possible(65_535));
        assert!(!choice(0).is_possible(1 << 17));
        assert!(choice(3).is_possible(1 << 18));
        assert!(!choice(33).is_possible(10));
    }
}
