//! Coding a position on the grid, given an outlook.
//!
//! A position is coded by its distance from the expected one: zero or not, the sign, and the size
//! one by one. Every such bit is predicted by the two experts (the share of their distributions
//! that lies on either side) and by two adaptive bits in different contexts; a mixer weighs them.
//! Where the deviation is many positions wide, the distance is coded in groups of 2^shift
//! positions first, and the position within the group bit by bit after that.

use super::row_model::{Expert, Outlook};
use crate::codec::entropy::model::{AdaptiveBit, Logistic, MAX_LOGIT, Mixer, to_units};
use crate::codec::entropy::normal::Normal;
use crate::codec::entropy::range_coder::BitCoder;

/// Sizes with contexts of their own; larger ones share the last.
const SIZES: usize = 20;
/// Sizes coded one by one, before what is left is coded by its number of bits.
const UNARY_SIZES: i32 = 24;
const NODES: usize = 2 + 2 * SIZES;
const BUCKETS: usize = 40;
const INPUTS: usize = 5;
const CONFIDENT: u16 = 4;
const LIMITS: [u16; 2] = [1000, 250];
/// How fast mixers learn in the end, and how much faster at first.
const RATE: (f32, f32) = (0.002, 0.02);
/// Symbols after which the additional rate has halved.
const RATE_HALVES: f32 = 10_000.0;
/// A constant input, so that the mixer can learn a bias.
const BIAS: f32 = 0.3;
const INITIAL_WEIGHTS: [f32; INPUTS] = [0.4, 0.2, 0.2, 0.2, 0.0];

/// The adaptive state of one stream.
#[derive(Debug)]
pub struct SymbolModel {
    normal: Normal,
    logistic: Logistic,
    by_scale: Vec<[AdaptiveBit; NODES]>,
    by_vicinity: Vec<[AdaptiveBit; NODES]>,
    mixers: Vec<[Mixer<INPUTS>; NODES]>,
    refinement: [Mixer<2>; 2],
    lengths: [AdaptiveBit; 32],
    symbols: u32,
    rate: f32,
}

/// An expert's view of the positions: the edge below position `p` is at `(p - 1/2 + offset)`.
#[derive(Clone, Copy)]
struct View {
    mean: f32,
    inverse: f32,
}

impl View {
    fn new(expert: Expert, offset: f32) -> Self {
        Self {
            mean: expert.mean - offset,
            inverse: 1.0 / expert.deviation,
        }
    }

    /// An edge in deviations from the mean.
    #[inline]
    fn edge(self, edge: f32) -> f32 {
        (edge - self.mean) * self.inverse
    }
}

/// The contexts of a position.
struct Contexts {
    scale: usize,
    vicinity: usize,
    mixer: usize,
}

impl SymbolModel {
    /// A model that has seen nothing.
    pub fn new() -> Self {
        Self {
            normal: Normal::new(),
            logistic: Logistic::new(),
            by_scale: vec![[AdaptiveBit::new(); NODES]; 2 * BUCKETS],
            by_vicinity: vec![[AdaptiveBit::new(); NODES]; 2 * BUCKETS],
            mixers: vec![[Mixer::new(INITIAL_WEIGHTS); NODES]; 4],
            refinement: [Mixer::new([0.6, 0.4]); 2],
            lengths: [AdaptiveBit::new(); 32],
            symbols: 0,
            rate: 0.0,
        }
    }

    /// Codes a position: the value is `position + offset` spacings, with an offset of one half for
    /// the odd multiples.
    pub fn code(
        &mut self,
        coder: &mut impl BitCoder,
        outlook: &Outlook,
        odd: bool,
        position: i32,
    ) -> i32 {
        self.rate = RATE.0 + RATE.1 / (1.0 + self.symbols as f32 / RATE_HALVES);
        self.symbols += 1;
        let offset = if odd { 0.5 } else { 0.0 };
        let views = both([outlook.predicted, outlook.scaled], |e| {
            View::new(e, offset)
        });
        let expected = round(views[0].mean);
        let shift = shift(outlook.predicted.deviation);
        let (half, width) = (1i32 << shift >> 1, 1i32 << shift);
        let distance = position.wrapping_sub(expected);
        let group = distance.wrapping_add(half) >> shift;
        let contexts = self.contexts(outlook, shift, odd);

        let edge = |group: i32| {
            // Positions of groups stay far below 2^31; where a damaged stream leads further,
            // any edge will do.
            let first = group.wrapping_mul(width).wrapping_sub(half);
            expected.wrapping_add(first) as f32 - 0.5
        };
        let group = self.code_group(coder, &views, &contexts, edge, group);
        let mut first = expected.wrapping_add(group.wrapping_mul(width).wrapping_sub(half));
        for level in (0..shift).rev() {
            let upper = self.code_half(
                coder,
                &views,
                first,
                1 << level,
                position.wrapping_sub(first) >= 1 << level,
                outlook.ready,
            );
            if upper {
                first = first.wrapping_add(1 << level);
            }
        }
        first
    }

    fn contexts(&self, outlook: &Outlook, shift: u32, odd: bool) -> Contexts {
        let scaled = |x: f32| x / (1u32 << shift) as f32;
        let bucket = |logarithm: f32, steps: f32, origin: f32| {
            // A cast saturates at 0.
            ((logarithm * (steps / std::f32::consts::LN_2) + origin) as usize).min(BUCKETS - 1)
        };
        let odd = usize::from(odd);
        let deviation = self.normal.ln(scaled(outlook.predicted.deviation));
        let vicinity = scaled(outlook.vicinity);
        let vicinity = self.normal.ln(vicinity * vicinity + 0.02);
        Contexts {
            scale: odd * BUCKETS + bucket(deviation, 8.0, 24.0),
            vicinity: odd * BUCKETS + bucket(vicinity, 3.0, 20.0),
            mixer: odd + 2 * usize::from(outlook.ready),
        }
    }

    fn code_group(
        &mut self,
        coder: &mut impl BitCoder,
        views: &[View; 2],
        contexts: &Contexts,
        edge: impl Fn(i32) -> f32,
        group: i32,
    ) -> i32 {
        let normal = self.normal;
        let [low, high] = [edge(0), edge(1)];
        let below = both(*views, |view| normal.below(view.edge(low)));
        let above = both(*views, |view| normal.above(view.edge(high)));
        let inside = both(*views, |view| {
            normal.between(view.edge(low), view.edge(high))
        });
        let logits = both([0, 1], |v| normal.logit(inside[v], below[v] + above[v]));
        if self.code_bit(coder, contexts, 0, logits, group == 0) {
            return 0;
        }
        let logits = both([0, 1], |v| normal.logit(above[v], below[v]));
        let positive = self.code_bit(coder, contexts, 1, logits, group > 0);
        let size = group.wrapping_abs();
        let mut reached = if positive { above } else { below };
        for candidate in 1..UNARY_SIZES {
            let beyond = both(*views, |view| {
                if positive {
                    normal.above(view.edge(edge(candidate + 1)))
                } else {
                    normal.below(view.edge(edge(-candidate)))
                }
            });
            let logits = both([0, 1], |v| normal.logit(beyond[v], reached[v] - beyond[v]));
            let node = 1 + (candidate as usize).min(SIZES) + if positive { SIZES } else { 0 };
            if !self.code_bit(coder, contexts, node, logits, size > candidate) {
                return if positive { candidate } else { -candidate };
            }
            reached = beyond;
        }
        let size = self.code_large(coder, size.wrapping_sub(UNARY_SIZES) as u32);
        let size = (size as i32).wrapping_add(UNARY_SIZES);
        if positive { size } else { size.wrapping_neg() }
    }

    #[inline]
    fn code_bit(
        &mut self,
        coder: &mut impl BitCoder,
        contexts: &Contexts,
        node: usize,
        logits: [f32; 2],
        bit: bool,
    ) -> bool {
        let logits = both(logits, |logit| logit.clamp(-MAX_LOGIT, MAX_LOGIT));
        let adaptive = [
            &mut self.by_scale[contexts.scale][node],
            &mut self.by_vicinity[contexts.vicinity][node],
        ];
        let learned = both([*adaptive[0], *adaptive[1]], |bit| {
            if bit.seen() < CONFIDENT {
                logits[0]
            } else {
                self.logistic.stretch(bit.one())
            }
        });
        let inputs = [logits[0], logits[1], learned[0], learned[1], BIAS];
        let mixer = &mut self.mixers[contexts.mixer][node];
        let one = self.logistic.squash(mixer.mix(&inputs));
        let bit = coder.code(bit, to_units(one));
        mixer.update(&inputs, one, bit, self.rate);
        for (adaptive, limit) in adaptive.into_iter().zip(LIMITS) {
            adaptive.update(bit, limit);
        }
        bit
    }

    /// Codes in which half of `2 * half` positions from `first` on the position lies.
    #[inline]
    fn code_half(
        &mut self,
        coder: &mut impl BitCoder,
        views: &[View; 2],
        first: i32,
        half: i32,
        upper: bool,
        ready: bool,
    ) -> bool {
        let start = first as f32 - 0.5;
        let [middle, end] = [start + half as f32, start + 2.0 * half as f32];
        let inputs = both(*views, |view| {
            let (start, middle, end) = (view.edge(start), view.edge(middle), view.edge(end));
            let lower = self.normal.between(start, middle);
            let upper = self.normal.between(middle, end);
            self.normal.logit(upper, lower).clamp(-MAX_LOGIT, MAX_LOGIT)
        });
        let mixer = &mut self.refinement[usize::from(ready)];
        let one = self.logistic.squash(mixer.mix(&inputs));
        let bit = coder.code(upper, to_units(one));
        mixer.update(&inputs, one, bit, self.rate);
        bit
    }

    /// Codes a number of any size: its number of bits one by one, then the bits (Elias, 1975).
    fn code_large(&mut self, coder: &mut impl BitCoder, value: u32) -> u32 {
        let value = value.wrapping_add(1);
        let length = 31 - value.max(1).leading_zeros();
        let mut coded = 0;
        while coded < 31 {
            let adaptive = &mut self.lengths[coded as usize];
            let more = coder.code(length > coded, adaptive.one());
            adaptive.update(more, 30);
            if !more {
                break;
            }
            coded += 1;
        }
        let high = coded.saturating_sub(16);
        let low = coded - high;
        let mantissa = value & ((1u64 << coded) - 1) as u32;
        let upper = coder.code_uniform(mantissa >> low, high);
        let lower = coder.code_uniform(mantissa & ((1u64 << low) - 1) as u32, low);
        (1u32 << coded | upper << low | lower).wrapping_sub(1)
    }
}

impl Default for SymbolModel {
    fn default() -> Self {
        Self::new()
    }
}

/// Applies a function to both elements; unlike `map`, always inlined.
#[inline(always)]
fn both<T, U>([a, b]: [T; 2], mut function: impl FnMut(T) -> U) -> [U; 2] {
    [function(a), function(b)]
}

/// The nearest integer, halves away from zero; saturating.
#[inline]
fn round(x: f32) -> i32 {
    (x + if x < 0.0 { -0.5 } else { 0.5 }) as i32
}

/// Bits of a position within its group, so that a deviation is at most four groups wide.
#[inline]
fn shift(deviation: f32) -> u32 {
    let exponent = (deviation.to_bits() >> 23) as i32 - 127;
    (exponent - 1).clamp(0, 24) as u32
}
