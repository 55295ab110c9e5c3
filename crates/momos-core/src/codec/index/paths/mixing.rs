//! Paths by mixing several predictions: fewest bytes, at a hundredth of the speed.
//!
//! Each bit is predicted by
//! - a normal distribution around what the values before it in its row let expect ([`WithinRow`]),
//! - a normal distribution around zero, as wide as its row and its column have been,
//! - how often a block went right at this node, and at this node where the weights had this energy,
//! - the shared contexts of [`super::contexts`],
//!
//! and the logits of all are mixed by weights that learn from every bit.

use std::hint::select_unpredictable;

use crate::codec::entropy::model::{AdaptiveBit, Logistic, Mixer, to_units};
use crate::codec::entropy::normal::Normal;
use crate::codec::entropy::prediction::WithinRow;
use crate::codec::entropy::range_coder::{BitCoder, RangeDecoder, RangeEncoder};
use crate::codec::index::chunks::{BLOCKS_PER_CHECK, ends_early};
use crate::codec::motifs::tree::{MotifTree, Slope, half_octaves};
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::Available;

/// Rows of more values are not predicted: the covariances would take too long.
const MOST_COLUMNS: usize = 1024;

/// Blocks of a row where rows are not known.
const BLOCKS_PER_PSEUDO_ROW: usize = 96;

/// Variance below which no scale is believed, relative to the mean of all motifs.
const LEAST_VARIANCE: f32 = 0.004;

/// Values that the scale before a row counts as.
const PRIOR_VALUES: f32 = 6.0;

const ENERGIES: usize = 32;
const LOWEST_ENERGY: i16 = -22;
const CONTEXTS_PER_LEVEL: usize = Slope::CLASSES * ENERGIES;

/// Levels whose nodes have probabilities by energy.
const SPLIT_LEVELS: u32 = 12;
const SPLIT_ENERGIES: usize = 16;

const SHARED_LIMIT: u16 = 1023;
const NODE_LIMIT: u16 = 1023;
const SPLIT_LIMIT: u16 = 500;

const INPUTS: usize = 6;
const CONFIDENCES: usize = 4;

/// What is learnt from an error: more at first.
const RATE: f32 = 0.0025;
const FIRST_RATE: f32 = 0.02;
const BITS_OF_FIRST_RATE: f32 = 3000.0;

/// Probability mass of a cell below which a distribution says nothing about its halves.
const LEAST_MASS: f32 = 1e-5;

/// What is expected of the values of a block.
#[derive(Clone, Debug)]
struct Expectation {
    means: Vec<f32>,
    /// Reciprocals of the standard deviations.
    sharpness: Vec<f32>,
    /// Probability below the low and the high end of the cell, by dimension.
    low: Vec<f32>,
    high: Vec<f32>,
}

impl Expectation {
    fn new(block_size: usize) -> Self {
        Self {
            means: vec![0.0; block_size],
            sharpness: vec![1.0; block_size],
            low: vec![0.0; block_size],
            high: vec![1.0; block_size],
        }
    }

    fn start(&mut self) {
        self.low.fill(0.0);
        self.high.fill(1.0);
    }

    /// The probability of lying above a cut, and the probability below it.
    #[inline]
    fn above(&self, normal: Normal, dimension: usize, cut: f32) -> (f32, f32) {
        let below = normal.below((cut - self.means[dimension]) * self.sharpness[dimension]);
        let (low, high) = (self.low[dimension], self.high[dimension]);
        let mass = high - low;
        if mass > LEAST_MASS {
            ((high - below) / mass, below)
        } else {
            (0.5, below)
        }
    }

    #[inline]
    fn narrow(&mut self, dimension: usize, cut: f32, right: bool) {
        if right {
            self.low[dimension] = cut;
        } else {
            self.high[dimension] = cut;
        }
    }
}

/// The values of the motifs at their places and the cuts, relative to their root mean square.
#[derive(Debug)]
pub struct Geometry {
    block_size: usize,
    values: Vec<f32>,
    cuts: Vec<f32>,
}

impl Geometry {
    /// That of a tree.
    pub fn new(tree: &MotifTree) -> Self {
        let block_size = tree.block_size();
        let values = tree.values();
        let squares = values.iter().fold(0f64, |sum, value| sum + value * value);
        let rms = (squares / values.len().max(1) as f64).sqrt();
        let scale = if rms > 0.0 && (1.0 / rms).is_finite() {
            1.0 / rms
        } else {
            1.0
        };
        // Damaged tables hold anything; numbers that are none would spoil every later one.
        let relative = |value: f64| {
            let value = (value * scale) as f32;
            if value.is_nan() {
                0.0
            } else {
                value.clamp(-1e6, 1e6)
            }
        };
        Self {
            block_size,
            values: tree
                .rows()
                .iter()
                .flat_map(|&row| &values[row as usize * block_size..][..block_size])
                .map(|&value| relative(value))
                .collect(),
            cuts: tree.cuts().iter().map(|cut| relative(cut.value)).collect(),
        }
    }

    fn motif(&self, place: u32) -> &[f32] {
        &self.values[place as usize * self.block_size..][..self.block_size]
    }
}

/// The row that is being coded, and what is known of rows.
#[derive(Debug)]
struct Rows {
    block_size: usize,
    columns: usize,
    /// Whether the columns of different rows have something to do with each other.
    aligned: bool,
    within: Option<WithinRow>,
    /// The position in the row.
    column: usize,
    row: Vec<f32>,
    means: Vec<f32>,
    column_variance: Vec<f32>,
    /// Weighted sums of squares and weights of the row so far: of errors, and of values.
    errors: (f32, f32),
    squares: (f32, f32),
    /// Mean square of the last rows.
    prior: f32,
    rows: f32,
}

impl Rows {
    fn new(block_size: usize, row_blocks: usize, isa: Available) -> Self {
        let aligned = row_blocks > 0;
        let blocks = if aligned {
            row_blocks
        } else {
            BLOCKS_PER_PSEUDO_ROW
        };
        let columns = blocks * block_size;
        let predicted = aligned && columns <= MOST_COLUMNS;
        let mut rows = Self {
            block_size,
            columns,
            aligned,
            within: predicted.then(|| WithinRow::new(columns, isa)),
            column: 0,
            row: vec![0.0; columns],
            means: vec![0.0; columns],
            column_variance: vec![1.0; columns],
            errors: (0.0, 0.0),
            squares: (0.0, 0.0),
            prior: 1.0,
            rows: 0.0,
        };
        rows.begin();
        rows
    }

    fn begin(&mut self) {
        self.column = 0;
        self.means.fill(0.0);
        self.errors = (self.prior * PRIOR_VALUES, PRIOR_VALUES);
        self.squares = self.errors;
    }

    /// Mean square of the values around.
    fn energy(&self) -> f32 {
        self.squares.0 / self.squares.1
    }

    fn expect(&self, predicted: &mut Expectation, plain: &mut Expectation) {
        let error = self.errors.0 / self.errors.1;
        let square = self.squares.0 / self.squares.1;
        for dimension in 0..self.block_size {
            let column = self.column + dimension;
            let share = self
                .within
                .as_ref()
                .map_or(1.0, |within| within.share(column));
            predicted.means[dimension] = self.means[column];
            predicted.sharpness[dimension] = 1.0 / (error * share + LEAST_VARIANCE).sqrt();
            plain.sharpness[dimension] =
                1.0 / (square * self.column_variance[column] + LEAST_VARIANCE).sqrt();
        }
    }

    fn learn(&mut self, motif: &[f32]) {
        for (&value, column) in motif.iter().zip(self.column..) {
            let error = value - self.means[column];
            let mut share = 1.0;
            if let Some(within) = &self.within {
                share = within.share(column);
                within.spread(column, error, &mut self.means);
            }
            self.row[column] = value;
            self.errors.0 += error * error / share;
            self.errors.1 += 1.0;
            self.squares.0 += value * value / self.column_variance[column];
            self.squares.1 += 1.0;
        }
        self.column += self.block_size;
        if self.column == self.columns {
            self.end();
        }
    }

    fn end(&mut self) {
        let mut sum = 0.0;
        for value in &self.row {
            sum += value * value;
        }
        let square = sum / self.columns as f32 + 1e-12;
        self.rows += 1.0;
        self.prior += (square - self.prior) / (self.rows + 0.5).min(12.0);
        if self.aligned {
            let scale = 1.0 / (square + 0.2 * LEAST_VARIANCE).sqrt();
            let rate = 1.0 / (self.rows + 24.0).min(2000.0);
            for (value, variance) in self.row.iter_mut().zip(&mut self.column_variance) {
                *value *= scale;
                *variance += (*value * *value - *variance) * rate;
            }
            if let Some(within) = &mut self.within {
                within.learn(&self.row);
            }
        }
        self.begin();
    }
}

/// The model of the paths of one chunk.
#[derive(Debug)]
pub struct MixingModel<'a> {
    tree: &'a MotifTree,
    geometry: &'a Geometry,
    normal: Normal,
    logistic: Logistic,
    rows: Rows,
    predicted: Expectation,
    plain: Expectation,
    shared: Vec<AdaptiveBit>,
    nodes: Vec<AdaptiveBit>,
    split: Vec<AdaptiveBit>,
    by_level: Vec<Mixer<INPUTS>>,
    by_slope: Vec<Mixer<INPUTS>>,
    bits: f32,
}

impl<'a> MixingModel<'a> {
    /// A model that has learnt nothing; a row of the tensor holds `row_blocks` blocks, 0 if that
    /// is not a whole number. The instruction set changes nothing but the speed.
    pub fn new(
        tree: &'a MotifTree,
        geometry: &'a Geometry,
        row_blocks: usize,
        isa: Available,
    ) -> Self {
        let levels = tree.depth() as usize;
        let first = Mixer::new([0.15, 0.15, 0.15, 0.1, 0.1, 0.0]);
        Self {
            tree,
            geometry,
            normal: Normal::new(),
            logistic: Logistic::new(),
            rows: Rows::new(geometry.block_size, row_blocks, isa),
            predicted: Expectation::new(geometry.block_size),
            plain: Expectation::new(geometry.block_size),
            shared: vec![AdaptiveBit::new(); levels * CONTEXTS_PER_LEVEL],
            nodes: vec![AdaptiveBit::new(); tree.motifs()],
            split: vec![AdaptiveBit::new(); SPLIT_ENERGIES << SPLIT_LEVELS.min(tree.depth())],
            by_level: vec![first; levels * CONFIDENCES],
            by_slope: vec![first; Slope::CLASSES],
            bits: 0.0,
        }
    }
}

/// How much a probability of that many bits says.
fn confidence(bit: AdaptiveBit) -> f32 {
    let seen = f32::from(bit.seen());
    seen / (seen + 2.0)
}

impl MixingModel<'_> {
    /// Encodes the places of one chunk.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by blocks.
    pub fn encode(mut self, places: &[u32], monitor: &Monitor) -> Result<Vec<u8>> {
        let mut encoder = RangeEncoder::new();
        for part in places.chunks(BLOCKS_PER_CHECK) {
            monitor.check()?;
            for &place in part {
                self.code(&mut encoder, place);
            }
            monitor.advance(part.len() as u64);
        }
        Ok(encoder.finish())
    }

    /// Decodes the places of one chunk.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InsufficientData`] if the bytes end early,
    /// [`crate::ErrorKind::Corruption`] if some are left over,
    /// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by blocks.
    pub fn decode(mut self, bytes: &[u8], places: &mut [u32], monitor: &Monitor) -> Result<()> {
        let mut decoder = RangeDecoder::new(bytes);
        for part in places.chunks_mut(BLOCKS_PER_CHECK) {
            monitor.check()?;
            for place in part.iter_mut() {
                *place = self.code(&mut decoder, 0);
            }
            if decoder.overrun() {
                return Err(ends_early());
            }
            monitor.advance(part.len() as u64);
        }
        decoder.finish()
    }

    /// Codes one place; an encoder gives it, a decoder gets it.
    fn code(&mut self, coder: &mut impl BitCoder, place: u32) -> u32 {
        let around = half_octaves(self.rows.energy());
        let energy = (around - LOWEST_ENERGY).clamp(0, ENERGIES as i16 - 1) as usize;
        self.rows.expect(&mut self.predicted, &mut self.plain);
        self.predicted.start();
        self.plain.start();
        let slopes = self.tree.slopes();
        let (mut low, mut high) = (0, slopes.len());
        let (mut level, mut heap) = (0usize, 1usize);
        while high - low > 1 {
            let middle = (low + high) / 2;
            let slope = slopes[middle].class();
            let dimension = usize::from(self.tree.cuts()[middle].dimension);
            let cut = self.geometry.cuts[middle];
            let (predicted, predicted_cut) = self.predicted.above(self.normal, dimension, cut);
            let (plain, plain_cut) = self.plain.above(self.normal, dimension, cut);
            let shared = &mut self.shared[(level * Slope::CLASSES + slope) * ENERGIES + energy];
            let node = &mut self.nodes[middle];
            let split = self
                .split
                .get_mut(heap * SPLIT_ENERGIES + energy * SPLIT_ENERGIES / ENERGIES);
            let node_logit = self.logistic.stretch(node.one()) * confidence(*node);
            let logits = [
                self.logistic.stretch_f32(predicted),
                self.logistic.stretch_f32(plain),
                self.logistic.stretch(shared.one()),
                node_logit,
                split.as_ref().map_or(node_logit, |split| {
                    self.logistic.stretch(split.one()) * confidence(**split)
                }),
                0.2,
            ];
            let seen = match node.seen() {
                0..2 => 0,
                2..8 => 1,
                8..64 => 2,
                _ => 3,
            };
            let by_level = &mut self.by_level[level * CONFIDENCES + seen];
            let by_slope = &mut self.by_slope[slope];
            let one = self
                .logistic
                .squash(by_level.mix(&logits) + by_slope.mix(&logits));
            let right = coder.code(place as usize >= middle, to_units(one));
            let rate = RATE + FIRST_RATE / (1.0 + self.bits / BITS_OF_FIRST_RATE);
            by_level.update(&logits, one, right, rate);
            by_slope.update(&logits, one, right, rate);
            self.bits += 1.0;
            shared.update(right, SHARED_LIMIT);
            node.update(right, NODE_LIMIT);
            if let Some(split) = split {
                split.update(right, SPLIT_LIMIT);
            }
            self.predicted.narrow(dimension, predicted_cut, right);
            self.plain.narrow(dimension, plain_cut, right);
            low = select_unpredictable(right, middle, low);
            high = select_unpredictable(right, high, middle);
            level += 1;
            heap = heap * 2 + usize::from(right);
        }
        self.rows.learn(self.geometry.motif(low as u32));
        low as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::FloatType;

    /// Rows in which every value resembles the one before.
    fn correlated() -> (MotifTree, Vec<u32>) {
        let table: Vec<u8> = (0..256u32)
            .flat_map(|i| [i % 16, i / 16])
            .flat_map(|v| (v as f32 - 7.5).to_le_bytes())
            .collect();
        let tree = MotifTree::new(&table, 2, FloatType::F32).unwrap();
        let mut place_of = vec![0; 256];
        for (&row, place) in tree.rows().iter().zip(0..) {
            place_of[row as usize] = place;
        }
        let mut noise = 1u32;
        let mut value = 8i32;
        let places = (0..40 * 600)
            .map(|_| {
                let pair = [(); 2].map(|()| {
                    noise = noise.wrapping_mul(1664525).wrapping_add(1013904223);
                    value = (value + (noise >> 16) as i32 % 3 - 1).clamp(0, 15);
                    value as u32
                });
                place_of[(pair[0] + 16 * pair[1]) as usize]
            })
            .collect();
        (tree, places)
    }

    fn encode(tree: &MotifTree, places: &[u32], row_blocks: usize, isa: Available) -> Vec<u8> {
        let geometry = Geometry::new(tree);
        MixingModel::new(tree, &geometry, row_blocks, isa)
            .encode(places, &Monitor::new())
            .unwrap()
    }

    #[test]
    fn every_set_of_instructions_gives_the_same_bytes() {
        let (tree, places) = correlated();
        let reference = encode(&tree, &places, 40, Available::PORTABLE);
        for &isa in Available::all() {
            assert_eq!(encode(&tree, &places, 40, isa), reference, "{isa:?}");
        }
    }

    #[test]
    fn rows_predict_themselves() {
        let (tree, places) = correlated();
        let isa = Available::best();
        let with_rows = encode(&tree, &places, 40, isa).len();
        let without = encode(&tree, &places, 0, isa).len();
        // Two steps of log2 3 bits each are all that is new in a block.
        assert!(with_rows * 8 < places.len() * 9 / 2, "{with_rows}");
        assert!(with_rows * 5 < without * 4, "{with_rows} {without}");
    }
}
