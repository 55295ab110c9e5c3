//! The motifs by adaptive models of their values.
//!
//! | id | codec | what follows |
//! |---|---|---|
//! | 4 | floats | bits and class of the largest exponent (u16), then the coded rows |
//! | 5 | grid | a step (f64), then the coded rows of integers; a value is the step times its integer |
//!
//! Codecs below are those of any bytes, applied to [`super::table::regroup`]ed tables.
//!
//! Rows are sorted, so the values that a row shares with the one before say that the next value
//! does not descend: there a *gap* is coded, and `k` motifs take `log2 k!` bits less than `k` rows
//! in any order. Other values are coded by sign, class (bit length, or distance of the exponent
//! from the largest) and the bits below; the model of a class knows the largest value to the left.

use super::table::{check_table, load, mask, ordered, unordered};
use crate::codec::entropy::model::AdaptiveBit;
use crate::codec::entropy::range_coder::{BitCoder, RangeDecoder, RangeEncoder};
use crate::error::{Error, Result};
use crate::float::{FloatType, Working};
use crate::memory::zeroed;
use crate::monitor::Monitor;

const FLOATS: u8 = 4;
const GRID: u8 = 5;

/// Rows between two looks at the monitor and at the end of the bytes.
const ROWS_PER_CHECK: usize = 1 << 10;

/// Integers of a grid are smaller than 2^this: their bit lengths are classes, and differences fit.
const GRID_BITS: u32 = 62;

const CLASS_BITS: u32 = 6;
const CLASSES: usize = 1 << CLASS_BITS;
const GAP_BITS: u32 = 7;
const GAP_CLASSES: usize = 1 << GAP_BITS;
/// Columns from this one on share their models.
const COLUMNS: usize = 4;
/// Bits below the leading one that are modelled.
const MODELLED_BITS: u32 = 3;
const LIMIT: u16 = 500;

/// Encodes a table of `motifs` rows of `block_size` little-endian values, sorted as well as may be.
///
/// With a `step` all values must be integer multiples of it, rounded to the type.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if the bytes are not such a table or a value is off the grid,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by rows.
pub fn encode(
    table: &[u8],
    block_size: usize,
    float: FloatType,
    motifs: usize,
    step: Option<f64>,
    monitor: &Monitor,
) -> Result<Vec<u8>> {
    check_table(table, block_size, float, motifs)?;
    let bits = table.chunks_exact(float.size()).map(load);
    let (mut stream, numbers, kind) = match step {
        None => {
            let kind = Numbers::floats(float, bits.clone());
            let numbers = bits.map(|bits| ordered(bits, float.size())).collect();
            let mut stream = vec![FLOATS];
            stream.extend_from_slice(&kind.largest.to_le_bytes());
            (stream, numbers, kind)
        }
        Some(step) => {
            let mut stream = vec![GRID];
            stream.extend_from_slice(&step.to_le_bytes());
            (stream, on_grid(table, float, step)?, Numbers::integers())
        }
    };
    let mut encoder = RangeEncoder::new();
    let mut model = Model::new(kind, block_size);
    let rows: Vec<u64> = numbers;
    for (index, row) in rows.chunks_exact(block_size).enumerate() {
        if index % ROWS_PER_CHECK == 0 {
            monitor.check()?;
        }
        model.code(&mut encoder, row);
        monitor.advance(1);
    }
    stream.extend(encoder.finish());
    Ok(stream)
}

/// Decodes a table.
///
/// Memory: the table, which the caller has checked against the size of its archive.
///
/// # Errors
/// [`crate::ErrorKind::InsufficientData`] if the stream ends early,
/// [`crate::ErrorKind::Corruption`] if it contradicts itself,
/// [`crate::ErrorKind::UnsupportedVersion`] for an unknown codec,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by rows.
pub fn decode(
    stream: &[u8],
    block_size: usize,
    float: FloatType,
    motifs: usize,
    monitor: &Monitor,
) -> Result<Vec<u8>> {
    let ends_early = || Error::insufficient_data("the motifs end early");
    let (&codec, payload) = stream.split_first().ok_or_else(ends_early)?;
    let (kind, step, payload) = match codec {
        FLOATS => {
            let (largest, payload) = payload.split_first_chunk().ok_or_else(ends_early)?;
            let kind = Numbers {
                largest: u16::from_le_bytes(*largest),
                ..Numbers::floats(float, std::iter::empty())
            };
            (kind, None, payload)
        }
        GRID => {
            let (step, payload) = payload.split_first_chunk().ok_or_else(ends_early)?;
            let step = f64::from_le_bytes(*step);
            if !(step > 0.0 && step.is_finite()) {
                return Err(Error::corruption("the motifs lie on a grid without a step"));
            }
            (Numbers::integers(), Some(step), payload)
        }
        other => {
            return Err(Error::unsupported_version(format!(
                "motif codec {other} is not known to this version"
            )));
        }
    };
    let mut decoder = RangeDecoder::new(payload);
    let mut model = Model::new(kind, block_size);
    let row_bytes = block_size * float.size();
    let mut table = zeroed::<u8>(motifs.checked_mul(row_bytes).ok_or_else(ends_early)?)?;
    check_table(&table, block_size, float, motifs)?;
    let mut values = vec![0f64; block_size];
    for (index, row) in table.chunks_exact_mut(row_bytes).enumerate() {
        if index % ROWS_PER_CHECK == 0 {
            monitor.check()?;
            if decoder.overrun() {
                return Err(ends_early());
            }
        }
        let numbers = model.code(&mut decoder, &[]);
        match step {
            None => {
                for (element, &number) in row.chunks_exact_mut(float.size()).zip(numbers) {
                    let bits = unordered(number, float.size());
                    element.copy_from_slice(&bits.to_le_bytes()[..float.size()]);
                }
            }
            Some(step) => {
                for (value, &number) in values.iter_mut().zip(numbers) {
                    *value = from_ordered_integer(number) as f64 * step;
                }
                f64::write_bytes(&values, row, float);
            }
        }
        monitor.advance(1);
    }
    decoder.finish()?;
    Ok(table)
}

/// The integers of values on a grid, in an order-preserving form.
fn on_grid(table: &[u8], float: FloatType, step: f64) -> Result<Vec<u64>> {
    let mut values = vec![0f64; table.len() / float.size()];
    f64::read_bytes(&mut values, table, float);
    let bound = (1u64 << GRID_BITS) as f64;
    let off_grid =
        || Error::invalid_argument(format!("the motifs do not lie on a grid of step {step}"));
    let integers: Vec<i64> = values
        .iter()
        .map(|value| (value / step).round_ties_even())
        .map(|integer| (integer.abs() < bound).then_some(integer as i64))
        .collect::<Option<_>>()
        .ok_or_else(off_grid)?;
    let products: Vec<f64> = integers
        .iter()
        .map(|&integer| integer as f64 * step)
        .collect();
    let mut rebuilt = vec![0u8; table.len()];
    f64::write_bytes(&products, &mut rebuilt, float);
    if rebuilt != table {
        return Err(off_grid());
    }
    Ok(integers.into_iter().map(ordered_integer).collect())
}

fn ordered_integer(value: i64) -> u64 {
    (value as u64) ^ (1 << 63)
}

fn from_ordered_integer(number: u64) -> i64 {
    (number ^ (1 << 63)) as i64
}

/// How a value that is not a gap is split into sign, class and bits below.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    /// Bytes of a number; differences are taken modulo 2^(8 * this).
    size: usize,
    /// For floats, bits of the mantissa; for integers none.
    mantissa: Option<u32>,
    /// For floats, the largest exponent field: class 0.
    largest: u16,
}

/// The parts of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    negative: bool,
    class: usize,
    /// Value and number of the bits below.
    below: u64,
    below_bits: u32,
}

impl Numbers {
    fn floats(float: FloatType, bits: impl Iterator<Item = u64>) -> Self {
        let mantissa = match float {
            FloatType::Bf16 => 7,
            FloatType::F16 => 10,
            FloatType::F32 => 23,
            FloatType::F64 => 52,
        };
        let size = float.size();
        let exponent = |bits: u64| (bits & mask(size) >> 1) >> mantissa;
        Self {
            size,
            mantissa: Some(mantissa),
            largest: bits.map(exponent).max().unwrap_or(0) as u16,
        }
    }

    fn integers() -> Self {
        Self {
            size: 8,
            mantissa: None,
            largest: 0,
        }
    }

    /// Bits of an exponent that is too small for a class of its own.
    fn escape_bits(self) -> u32 {
        self.mantissa
            .map_or(0, |mantissa| 8 * self.size as u32 - 1 - mantissa)
    }

    fn split(self, number: u64) -> Parts {
        match self.mantissa {
            None => {
                let integer = from_ordered_integer(number);
                let magnitude = integer.unsigned_abs();
                let length = 64 - magnitude.leading_zeros();
                let below_bits = length.saturating_sub(1);
                Parts {
                    negative: integer < 0,
                    class: length as usize,
                    below: magnitude & ((1 << below_bits) - 1),
                    below_bits,
                }
            }
            Some(mantissa) => {
                let bits = unordered(number, self.size);
                let magnitude = bits & mask(self.size) >> 1;
                let distance = u64::from(self.largest).wrapping_sub(magnitude >> mantissa);
                let escaped = distance >= CLASSES as u64 - 1;
                let below_bits = if escaped {
                    mantissa + self.escape_bits()
                } else {
                    mantissa
                };
                Parts {
                    negative: bits != magnitude,
                    class: distance.min(CLASSES as u64 - 1) as usize,
                    below: magnitude & ((1 << below_bits) - 1),
                    below_bits,
                }
            }
        }
    }

    /// Bits below the class.
    fn below_bits(self, class: usize) -> u32 {
        match self.mantissa {
            None => (class as u32).saturating_sub(1),
            Some(mantissa) if class == CLASSES - 1 => mantissa + self.escape_bits(),
            Some(mantissa) => mantissa,
        }
    }

    fn join(self, parts: Parts) -> u64 {
        match self.mantissa {
            None => {
                let magnitude = match parts.class {
                    0 => 0,
                    _ => 1 << parts.below_bits | parts.below,
                } as i64;
                ordered_integer(if parts.negative {
                    -magnitude
                } else {
                    magnitude
                })
            }
            Some(mantissa) => {
                let magnitude = if parts.class == CLASSES - 1 {
                    parts.below
                } else {
                    let exponent = u64::from(self.largest).saturating_sub(parts.class as u64);
                    exponent << mantissa | parts.below
                };
                let sign = u64::from(parts.negative) << (8 * self.size - 1);
                ordered(magnitude & mask(self.size) >> 1 | sign, self.size)
            }
        }
    }

    /// A class as a size: larger for larger values.
    fn magnitude(self, class: usize) -> usize {
        match self.mantissa {
            // The gaps of a damaged stream lead to integers that no encoder writes.
            None => class.min(CLASSES - 1),
            Some(_) => CLASSES - 1 - class,
        }
    }
}

/// An adaptive model of values of that many bits, the leading ones first.
#[derive(Clone, Debug)]
struct BitTree<const SIZE: usize>([AdaptiveBit; SIZE]);

impl<const SIZE: usize> BitTree<SIZE> {
    fn new() -> Self {
        Self([AdaptiveBit::new(); SIZE])
    }

    fn code(&mut self, coder: &mut impl BitCoder, value: usize) -> usize {
        let mut node = 1;
        for level in (0..SIZE.trailing_zeros()).rev() {
            let model = &mut self.0[node];
            let bit = coder.code(value >> level & 1 == 1, model.one());
            model.update(bit, LIMIT);
            node = node * 2 + usize::from(bit);
        }
        node - SIZE
    }
}

/// The model of the rows of a table.
struct Model {
    kind: Numbers,
    row: Vec<u64>,
    /// By column, and class of the last gap there.
    gaps: Vec<BitTree<GAP_CLASSES>>,
    last_gap: [usize; COLUMNS],
    below_gap: Vec<BitTree<{ 1 << MODELLED_BITS }>>,
    /// By column, and the largest value to the left.
    classes: Vec<BitTree<CLASSES>>,
    below: Vec<BitTree<{ 1 << MODELLED_BITS }>>,
}

impl Model {
    fn new(kind: Numbers, block_size: usize) -> Self {
        Self {
            kind,
            row: vec![0; block_size],
            gaps: vec![BitTree::new(); COLUMNS * GAP_CLASSES],
            last_gap: [0; COLUMNS],
            below_gap: vec![BitTree::new(); COLUMNS * GAP_CLASSES],
            classes: vec![BitTree::new(); COLUMNS * CLASSES],
            below: vec![BitTree::new(); CLASSES],
        }
    }

    /// Codes a row, which a decoder leaves empty, and returns it.
    fn code(&mut self, coder: &mut impl BitCoder, row: &[u64]) -> &[u64] {
        let mut tied = true;
        let mut largest = 0;
        for column in 0..self.row.len() {
            let value = row.get(column).copied().unwrap_or(0);
            let before = self.row[column];
            let models = column.min(COLUMNS - 1);
            let value = if tied {
                self.code_gap(coder, models, before, value)
            } else {
                self.code_value(coder, models, largest, value)
            };
            tied &= value == before;
            self.row[column] = value;
            largest = largest.max(self.kind.magnitude(self.kind.split(value).class));
        }
        &self.row
    }

    fn code_gap(
        &mut self,
        coder: &mut impl BitCoder,
        column: usize,
        before: u64,
        value: u64,
    ) -> u64 {
        let gap = value.wrapping_sub(before) & mask(self.kind.size);
        let length = 64 - gap.leading_zeros();
        let context = column * GAP_CLASSES + self.last_gap[column];
        let length = self.gaps[context].code(coder, length as usize).min(64);
        self.last_gap[column] = length;
        let gap = if length < 2 {
            length as u64
        } else {
            let below_bits = length as u32 - 1;
            let tree = &mut self.below_gap[column * GAP_CLASSES + length];
            let low = gap & ((1 << below_bits) - 1);
            1 << below_bits | code_below(tree, coder, low, below_bits)
        };
        before.wrapping_add(gap) & mask(self.kind.size)
    }

    fn code_value(
        &mut self,
        coder: &mut impl BitCoder,
        column: usize,
        largest: usize,
        value: u64,
    ) -> u64 {
        let parts = self.kind.split(value);
        let class = self.classes[column * CLASSES + largest].code(coder, parts.class);
        let below_bits = self.kind.below_bits(class);
        let below = code_below(&mut self.below[class], coder, parts.below, below_bits);
        let zero = self.kind.mantissa.is_none() && class == 0;
        let negative = !zero && coder.code(parts.negative, 1 << 15);
        self.kind.join(Parts {
            negative,
            class,
            below,
            below_bits,
        })
    }
}

/// Codes the `bits` low bits of a value, the leading ones by a model.
fn code_below(
    tree: &mut BitTree<{ 1 << MODELLED_BITS }>,
    coder: &mut impl BitCoder,
    value: u64,
    bits: u32,
) -> u64 {
    let mut left = bits.saturating_sub(MODELLED_BITS);
    // Fewer bits than are modelled take a path whose last bits are always 0.
    let shift = MODELLED_BITS.saturating_sub(bits);
    let leading = tree.code(coder, ((value >> left) << shift) as usize);
    let mut result = leading as u64 >> shift;
    while left > 0 {
        let width = left.min(16);
        left -= width;
        let part = coder.code_uniform((value >> left & ((1 << width) - 1)) as u32, width);
        result = result << width | u64::from(part);
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn floats() -> impl Strategy<Value = FloatType> {
        prop_oneof![
            Just(FloatType::Bf16),
            Just(FloatType::F16),
            Just(FloatType::F32),
            Just(FloatType::F64)
        ]
    }

    proptest! {
        /// Any bits, in any order: NaN, infinities, zeros of both signs.
        #[test]
        fn decoding_inverts_encoding(
            data in proptest::collection::vec(any::<u8>(), 0..800),
            repeated in 0usize..3,
            block_size in 1usize..6,
            float in floats(),
        ) {
            let row = block_size * float.size();
            let mut table = data[..data.len() / row * row].to_vec();
            for _ in 0..repeated {
                table.extend_from_within(..);
            }
            let motifs = table.len() / row;
            let stream =
                encode(&table, block_size, float, motifs, None, &Monitor::new()).unwrap();
            let decoded = decode(&stream, block_size, float, motifs, &Monitor::new()).unwrap();
            prop_assert_eq!(decoded, table);
        }

        #[test]
        fn grids_decode(
            mut rows in proptest::collection::vec(any::<[i16; 3]>(), 0..200),
            step in 1e-6f64..1e6,
            spread in 0u32..16,
        ) {
            for row in &mut rows {
                row.iter_mut().for_each(|value| *value >>= spread);
            }
            rows.sort_unstable();
            let values: Vec<f64> =
                rows.iter().flatten().map(|&value| f64::from(value) * step).collect();
            let mut table = vec![0u8; values.len() * 4];
            f64::write_bytes(&values, &mut table, FloatType::F32);
            let stream =
                encode(&table, 3, FloatType::F32, rows.len(), Some(step), &Monitor::new()).unwrap();
            let decoded =
                decode(&stream, 3, FloatType::F32, rows.len(), &Monitor::new()).unwrap();
            prop_assert_eq!(decoded, table);
        }

        #[test]
        fn any_stream_decodes_or_errs(
            mut stream in proptest::collection::vec(any::<u8>(), 0..200),
            codec in 3u8..7,
            step in 0u8..4,
            motifs in 0usize..2000,
            block_size in 1usize..6,
            float in floats(),
        ) {
            if stream.len() > 9 {
                stream[0] = codec;
                if codec == GRID && step > 0 {
                    stream[1..9].copy_from_slice(&f64::from(step).to_le_bytes());
                }
            }
            if let Ok(table) = decode(&stream, block_size, float, motifs, &Monitor::new()) {
                prop_assert_eq!(table.len(), motifs * block_size * float.size());
            }
        }
    }

    #[test]
    fn integers_beyond_the_grid_are_survived() {
        let numbers = Numbers::integers();
        for integer in [i64::MIN, i64::MIN + 1, i64::MAX] {
            let parts = numbers.split(ordered_integer(integer));
            assert!(numbers.magnitude(parts.class) < CLASSES);
        }
    }

    #[test]
    fn an_order_costs_nothing() {
        // 4,096 points of a plane of 2^16: log2 (2^16 over 4096) = 22,104 bits.
        let mut rows: Vec<u32> = (0..1u32 << 16).collect();
        rows.sort_by_key(|&point| point.wrapping_mul(2654435761).rotate_left(15));
        rows.truncate(4096);
        rows.sort_unstable();
        let values: Vec<f64> = rows
            .iter()
            .flat_map(|&point| [f64::from(point >> 8) + 1.0, f64::from(point & 255) + 1.0])
            .collect();
        let mut table = vec![0u8; values.len() * 4];
        f64::write_bytes(&values, &mut table, FloatType::F32);
        let stream = encode(&table, 2, FloatType::F32, 4096, Some(1.0), &Monitor::new()).unwrap();
        assert!(stream.len() * 8 < 25_000, "{}", stream.len() * 8);
    }

    #[test]
    fn values_off_the_grid_are_refused() {
        let table: Vec<u8> = [0.5f32, 0.7].iter().flat_map(|v| v.to_le_bytes()).collect();
        let encode = |step| encode(&table, 1, FloatType::F32, 2, Some(step), &Monitor::new());
        assert!(encode(0.5).is_err());
        assert!(encode(1e-30).is_err());
        assert!(encode(f64::NAN).is_err());
    }
}
