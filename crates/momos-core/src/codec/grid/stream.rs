//! The stream of a tensor on a grid; its layout is written down in `docs/format.md`.

use std::ops::Range;

use rayon::prelude::*;

use super::feedback::Feedback;
use super::geometry::{Geometry, MAX_LAGS, VALUES_PER_CHUNK};
use super::importance::{Importance, Weighing};
use super::quantise::{self, Job, RowByRow};
use super::row_model::{Outlook, RowModel, Source};
use super::steps::{Scale, Steps};
use super::symbols::SymbolModel;
use super::trellis::Trellis;
use crate::codec::entropy::range_coder::{BitCoder, RangeDecoder, RangeEncoder};
use crate::error::{Error, Result};
use crate::float::{FloatType, Working};
use crate::monitor::Monitor;
use crate::simd::Available;

/// The codec's number, the first byte of a stream.
const GRID: u8 = 0;

/// Multiples of a step stay within this, so that sums of a few of them fit 32 bits.
pub const MAX_MULTIPLE: i32 = 1 << 28;

const TRANSPOSED: u8 = 1;
const WITHIN: u8 = 2;
const ROW_STEPS: u8 = 4;
const COLUMN_STEPS: u8 = 8;

/// What a stream says of itself before its chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Order of the values, and what is predicted from what.
    pub geometry: Geometry,
    /// Bits of a state of the trellis; 0 for the plain grid.
    pub state_bits: u32,
    /// The step: every value is a multiple of it, or of those of its row and column.
    pub step: f32,
    /// Steps of rows and columns.
    pub steps: Steps,
}

impl Header {
    fn scale(&self) -> Scale {
        self.steps.scale(f64::from(self.step))
    }
}

/// Multiples of the step that stand for a tensor, in coded order, chunk after chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Multiples {
    /// How they are coded.
    pub header: Header,
    /// The multiples of each chunk.
    pub chunks: Vec<Vec<i32>>,
}

/// How to quantise a tensor.
#[derive(Clone, Debug)]
pub struct Options {
    /// Order of the values, and what is predicted from what.
    pub geometry: Geometry,
    /// Bits of a state of the trellis; 0 for the plain grid.
    pub state_bits: u32,
    /// The step, above 0.
    pub step: f32,
    /// How much bits count, as a multiple of the best trade-off at high rates.
    pub economy: f32,
    /// Whether rows and columns may have steps of their own, where errors count differently.
    pub own_steps: bool,
}

/// Quantises a tensor.
///
/// `weights`, in the order of the tensor's elements, say how much the squared error of each counts,
/// 1 by default. `importance` says it of rows and columns; its factors let every row make up for
/// the errors of rows before it. Where nothing can be made up for, it changes nothing but steps and
/// weights.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if a value is too many steps from zero or not finite,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by values.
pub fn quantise(
    values: &[f64],
    weights: Option<&[f32]>,
    importance: &Importance<'_>,
    options: &Options,
    monitor: &Monitor,
) -> Result<Multiples> {
    quantise_at(
        Available::best(),
        values,
        weights,
        importance,
        options,
        monitor,
    )
}

fn quantise_at(
    isa: Available,
    values: &[f64],
    weights: Option<&[f32]>,
    importance: &Importance<'_>,
    options: &Options,
    monitor: &Monitor,
) -> Result<Multiples> {
    let geometry = &options.geometry;
    let trellis = Trellis::new(options.state_bits)?;
    if values.len() != geometry.elements || weights.is_some_and(|w| w.len() != values.len()) {
        return Err(Error::invalid_argument(
            "a geometry and weights must be of the size of their tensor",
        ));
    }
    if !(options.step.is_normal() && options.step > 0.0) {
        return Err(Error::invalid_argument(format!(
            "a step must be a positive normal float32, not {}",
            options.step
        )));
    }
    let own_steps = options.own_steps && geometry.rows() <= VALUES_PER_CHUNK;
    let weighing = importance.weigh(geometry.rows(), geometry.columns, own_steps)?;
    let header = Header {
        geometry: geometry.clone(),
        state_bits: options.state_bits,
        step: options.step,
        steps: weighing.steps.clone(),
    };
    let tensor = Tensor {
        values,
        weights,
        weighing: &weighing,
        geometry,
        scale: header.scale(),
        trellis: &trellis,
        economy: options.economy,
        isa,
    };
    let chunks = match importance.factors {
        Some(factors) if !factors.is_diagonal() => {
            tensor.with_feedback(Feedback::new(factors, geometry.columns)?, monitor)?
        }
        _ => for_each_chunk(geometry.chunks(), |chunk| tensor.chunk(chunk, monitor))?,
    };
    Ok(Multiples { header, chunks })
}

/// A tensor to quantise, and all that says how.
struct Tensor<'a> {
    values: &'a [f64],
    weights: Option<&'a [f32]>,
    weighing: &'a Weighing,
    geometry: &'a Geometry,
    scale: Scale,
    trellis: &'a Trellis,
    economy: f32,
    isa: Available,
}

impl Tensor<'_> {
    /// The distance of the values that a state offers in a row and a column.
    #[inline]
    fn spacing(&self, row: usize, column: usize) -> f64 {
        self.scale.step(row, column) * f64::from(self.trellis.spacing())
    }

    /// A value in units of its spacing.
    fn scaled(&self, value: f64, row: usize, column: usize) -> Result<f32> {
        let scaled = value / self.spacing(row, column);
        if scaled.abs() < f64::from(MAX_MULTIPLE / 4) {
            Ok(scaled as f32)
        } else {
            Err(Error::invalid_argument(format!(
                "a step of {} is too short for a weight of {value}",
                self.scale.step(row, column)
            )))
        }
    }

    /// The weights of the squared errors of some coded positions; None if all are 1.
    fn weights(&self, start: usize, length: usize) -> Option<Vec<f32>> {
        if self.weights.is_none() && self.weighing.is_even() {
            return None;
        }
        let columns = self.geometry.columns;
        let weight = |position| {
            let given = self
                .weights
                .map_or(1.0, |weights| weights[self.geometry.place(position)]);
            given * self.weighing.weight(position / columns, position % columns)
        };
        Some((start..start + length).map(weight).collect())
    }

    fn chunk(&self, chunk: usize, monitor: &Monitor) -> Result<Vec<i32>> {
        let (start, length) = self.geometry.chunk(chunk);
        let columns = self.geometry.columns;
        let scaled = (start..start + length)
            .map(|position| {
                let value = self.values[self.geometry.place(position)];
                self.scaled(value, position / columns, position % columns)
            })
            .collect::<Result<Vec<f32>>>()?;
        let weights = self.weights(start, length);
        let job = Job {
            values: &scaled,
            weights: weights.as_deref(),
            economy: self.economy,
            isa: self.isa,
        };
        let first = scale_value(scale_code(&scaled, columns));
        let chosen = quantise::quantise(&job, self.geometry, first, self.trellis, monitor)?;
        monitor.advance(length as u64);
        Ok(chosen)
    }

    /// All chunks, row after row.
    fn with_feedback(
        &self,
        mut feedback: Feedback<'_>,
        monitor: &Monitor,
    ) -> Result<Vec<Vec<i32>>> {
        let geometry = self.geometry;
        let columns = geometry.columns;
        let value = |row: usize, column: usize| self.values[geometry.place(row * columns + column)];
        let (mut targets, mut errors) = (Vec::new(), Vec::new());
        let mut chunks = Vec::new();
        for chunk in 0..geometry.chunks() {
            let (start, length) = geometry.chunk(chunk);
            let mut rows: Option<RowByRow<'_>> = None;
            let mut chosen = Vec::with_capacity(length);
            for row in start / columns..(start + length) / columns {
                monitor.check()?;
                feedback.targets(value, &mut targets);
                let scaled = targets
                    .iter()
                    .enumerate()
                    .map(|(column, &target)| self.scaled(target, row, column))
                    .collect::<Result<Vec<f32>>>()?;
                let weights = self.weights(row * columns, columns);
                let job = Job {
                    values: &scaled,
                    weights: weights.as_deref(),
                    economy: self.economy,
                    isa: self.isa,
                };
                let rows = rows.get_or_insert_with(|| {
                    let first = scale_value(scale_code(&scaled, columns));
                    RowByRow::new(geometry, first, self.trellis, self.isa)
                });
                let multiples = rows.row(&job, monitor)?;
                errors.clear();
                errors.extend(multiples.iter().enumerate().map(|(column, &multiple)| {
                    value(row, column) - f64::from(multiple) * self.scale.step(row, column)
                }));
                feedback.take(&errors);
                chosen.extend(multiples);
            }
            monitor.advance(length as u64);
            chunks.push(chosen);
        }
        Ok(chunks)
    }
}

/// About the bytes that a tensor takes in an order on a plain grid, without choosing or coding any
/// multiples.
///
/// # Errors
/// As [`quantise()`].
pub fn estimate(values: &[f64], geometry: &Geometry, step: f32, monitor: &Monitor) -> Result<f64> {
    if values.len() != geometry.elements {
        return Err(Error::invalid_argument(
            "a geometry must be of the size of its tensor",
        ));
    }
    let bits = for_each_chunk(geometry.chunks(), |chunk| {
        let (start, length) = geometry.chunk(chunk);
        let scaled: Vec<f32> = (start..start + length)
            .map(|position| (values[geometry.place(position)] / f64::from(step)) as f32)
            .collect();
        let scale = scale_value(scale_code(&scaled, geometry.columns));
        quantise::estimate(&scaled, geometry, scale, monitor)
    })?;
    Ok(bits.iter().sum::<f64>() / 8.0)
}

/// The mean square of a first row in steps of a quarter octave, from 2^-16 on.
fn scale_code(values: &[f32], columns: usize) -> u8 {
    let row = &values[..columns.min(values.len())];
    let sum: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    let mean = sum / row.len().max(1) as f64;
    // The nearest code; what is nearest is the encoder's business alone.
    (4.0 * (mean + 1e-9).log2() + 64.5).clamp(0.0, 255.0) as u8
}

fn scale_value(code: u8) -> f32 {
    const QUARTERS: [f32; 4] = [1.0, 1.189_207_1, std::f32::consts::SQRT_2, 1.681_792_8];
    let whole = i32::from(code / 4) - 16;
    let power = f32::from_bits(((127 + whole) as u32) << 23);
    power * QUARTERS[usize::from(code % 4)]
}

/// Codes the multiples of one chunk as they come.
struct Coder<'a, C> {
    coder: &'a mut C,
    symbols: SymbolModel,
    trellis: &'a Trellis,
    state: u8,
    /// Those to encode; empty when decoding.
    known: &'a [i32],
    done: Vec<i32>,
    out_of_range: bool,
}

impl<C: BitCoder> Source for Coder<'_, C> {
    #[inline]
    fn next(&mut self, outlook: &Outlook) -> f32 {
        let multiple = self.known.get(self.done.len()).copied().unwrap_or(0);
        let odd = self.trellis.is_odd(self.state);
        let plain = self.trellis.is_plain();
        let position = if plain { multiple } else { multiple >> 1 };
        let position = self.symbols.code(self.coder, outlook, odd, position);
        self.state = self.trellis.next(self.state, position);
        // Only a damaged stream goes beyond.
        self.out_of_range |= position.unsigned_abs() > MAX_MULTIPLE as u32 / 2;
        let position = position.clamp(-MAX_MULTIPLE / 2, MAX_MULTIPLE / 2);
        if plain {
            self.done.push(position);
            position as f32
        } else {
            let multiple = 2 * position + i32::from(odd);
            self.done.push(multiple);
            0.5 * multiple as f32
        }
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one chunk and all that it depends on"
)]
fn code_chunk<C: BitCoder>(
    isa: Available,
    coder: &mut C,
    geometry: &Geometry,
    trellis: &Trellis,
    length: usize,
    scale: f32,
    known: &[i32],
    mut check: impl FnMut(&C) -> Result<()>,
) -> Result<Vec<i32>> {
    let mut model = RowModel::new(geometry, scale, isa);
    let mut source = Coder {
        coder,
        symbols: SymbolModel::new(),
        trellis,
        state: 0,
        known,
        // A damaged stream is found out row by row, before it has taken much.
        done: Vec::new(),
        out_of_range: false,
    };
    let mut past = Vec::new();
    while past.len() < length {
        let row = geometry.columns.min(length - past.len());
        model.row(&mut past, row, &mut source);
        check(source.coder)?;
        if source.out_of_range {
            return Err(Error::corruption(
                "a grid stream leaves the range of its values",
            ));
        }
    }
    Ok(source.done)
}

/// Encodes quantised values.
///
/// # Errors
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by values.
pub fn encode(multiples: &Multiples, monitor: &Monitor) -> Result<Vec<u8>> {
    encode_at(Available::best(), multiples, monitor)
}

fn encode_at(isa: Available, multiples: &Multiples, monitor: &Monitor) -> Result<Vec<u8>> {
    let header = &multiples.header;
    let trellis = Trellis::new(header.state_bits)?;
    let chunks = for_each_chunk(multiples.chunks.len(), |index| {
        let chunk = &multiples.chunks[index];
        let unit = 1.0 / trellis.spacing() as f32;
        let row = header.geometry.columns.min(chunk.len());
        let first: Vec<f32> = chunk[..row].iter().map(|&m| m as f32 * unit).collect();
        let code = scale_code(&first, row);
        let mut encoder = RangeEncoder::new();
        code_chunk(
            isa,
            &mut encoder,
            &header.geometry,
            &trellis,
            chunk.len(),
            scale_value(code),
            chunk,
            |_| monitor.check(),
        )?;
        monitor.advance(chunk.len() as u64);
        let mut bytes = vec![code];
        bytes.extend(encoder.finish());
        Ok(bytes)
    })?;

    let mut stream = encode_header(header);
    if let Some((_, counted)) = chunks.split_last() {
        for chunk in counted {
            write_number(&mut stream, chunk.len());
        }
    }
    for chunk in &chunks {
        stream.extend_from_slice(chunk);
    }
    Ok(stream)
}

fn encode_header(header: &Header) -> Vec<u8> {
    let Geometry {
        columns,
        transposed,
        within,
        lags,
        period,
        ..
    } = &header.geometry;
    let mut stream = vec![GRID, header.state_bits as u8];
    stream.extend_from_slice(&header.step.to_le_bytes());
    let flags = [
        (*transposed, TRANSPOSED),
        (*within, WITHIN),
        (!header.steps.rows.is_empty(), ROW_STEPS),
        (!header.steps.columns.is_empty(), COLUMN_STEPS),
    ];
    stream.push(flags.iter().map(|&(set, flag)| u8::from(set) * flag).sum());
    write_number(&mut stream, *columns);
    write_number(&mut stream, *period);
    write_number(&mut stream, lags.len());
    for &lag in lags {
        write_number(&mut stream, lag);
    }
    if !header.steps.are_one() {
        let mut encoder = RangeEncoder::new();
        header.steps.clone().code(&mut encoder);
        let codes = encoder.finish();
        write_number(&mut stream, codes.len());
        stream.extend(codes);
    }
    stream
}

/// Reads the header of a stream of `elements` values; returns what follows it as well.
///
/// # Errors
/// [`crate::ErrorKind::InsufficientData`] if the stream ends early,
/// [`crate::ErrorKind::Corruption`] if it contradicts itself,
/// [`crate::ErrorKind::UnsupportedVersion`] for an unknown codec.
pub fn decode_header(stream: &[u8], elements: usize) -> Result<(Header, &[u8])> {
    let mut rest = stream;
    match read_byte(&mut rest)? {
        GRID => {}
        other => {
            return Err(Error::unsupported_version(format!(
                "grid codec {other} is not known to this version"
            )));
        }
    }
    let state_bits = u32::from(read_byte(&mut rest)?);
    if let Err(error) = Trellis::new(state_bits) {
        return Err(Error::corruption(error.message().to_owned()));
    }
    let (step, tail) = rest.split_first_chunk::<4>().ok_or_else(ends_early)?;
    rest = tail;
    let step = f32::from_le_bytes(*step);
    if !(step.is_normal() && step > 0.0) {
        return Err(Error::corruption("a grid stream has an impossible step"));
    }
    let flags = read_byte(&mut rest)?;
    if flags > TRANSPOSED | WITHIN | ROW_STEPS | COLUMN_STEPS {
        return Err(Error::corruption("a grid stream has unknown flags"));
    }
    let columns = read_number(&mut rest)?;
    let period = read_number(&mut rest)?;
    let count = read_number(&mut rest)?;
    if count > MAX_LAGS {
        return Err(Error::corruption(
            "a grid stream predicts from too many rows",
        ));
    }
    let lags = (0..count)
        .map(|_| read_number(&mut rest))
        .collect::<Result<_>>()?;
    let geometry = Geometry {
        elements,
        columns,
        transposed: flags & TRANSPOSED != 0,
        within: flags & WITHIN != 0,
        lags,
        period,
    };
    geometry.check()?;
    let steps = decode_steps(&mut rest, &geometry, flags)?;
    Ok((
        Header {
            geometry,
            state_bits,
            step,
            steps,
        },
        rest,
    ))
}

fn decode_steps(rest: &mut &[u8], geometry: &Geometry, flags: u8) -> Result<Steps> {
    if flags & (ROW_STEPS | COLUMN_STEPS) == 0 {
        return Ok(Steps::default());
    }
    if geometry.rows() > VALUES_PER_CHUNK {
        return Err(Error::corruption(
            "a grid stream has steps of too many rows",
        ));
    }
    let count = |flag, count| vec![0; if flags & flag == 0 { 0 } else { count }];
    let mut steps = Steps {
        rows: count(ROW_STEPS, geometry.rows()),
        columns: count(COLUMN_STEPS, geometry.columns),
    };
    let length = read_number(rest)?;
    let (codes, tail) = rest.split_at_checked(length).ok_or_else(ends_early)?;
    *rest = tail;
    let mut decoder = RangeDecoder::new(codes);
    steps.code(&mut decoder);
    if decoder.overrun() {
        return Err(Error::corruption("a grid stream has too few steps"));
    }
    decoder.finish()?;
    Ok(steps)
}

/// Decodes a stream of `elements` values.
///
/// Memory: 4 bytes per value while it is decoded, as far as the stream's bytes last.
///
/// # Errors
/// As [`decode_header`], and [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by
/// values.
pub fn decode(stream: &[u8], elements: usize, monitor: &Monitor) -> Result<Multiples> {
    decode_chunks(stream, elements, 0..usize::MAX, monitor)
}

/// Decodes some of the chunks of a stream of `elements` values, as many as there are in the range.
///
/// # Errors
/// As [`decode`].
pub fn decode_chunks(
    stream: &[u8],
    elements: usize,
    range: Range<usize>,
    monitor: &Monitor,
) -> Result<Multiples> {
    let (header, mut rest) = decode_header(stream, elements)?;
    let geometry = &header.geometry;
    let trellis = Trellis::new(header.state_bits)?;
    let mut pieces = Vec::new();
    for _ in 1..geometry.chunks() {
        pieces.push(read_number(&mut rest)?);
    }
    let mut chunks = Vec::with_capacity(pieces.len() + 1);
    for length in pieces {
        let (chunk, tail) = rest.split_at_checked(length).ok_or_else(ends_early)?;
        chunks.push(chunk);
        rest = tail;
    }
    if geometry.chunks() > 0 {
        chunks.push(rest);
    } else if !rest.is_empty() {
        return Err(Error::corruption("a grid stream has bytes left over"));
    }
    let first = range.start.min(chunks.len());
    let chunks = for_each_chunk(range.end.min(chunks.len()).saturating_sub(first), |index| {
        let chunk = first + index;
        let (_, length) = geometry.chunk(chunk);
        let (&code, coded) = chunks[chunk].split_first().ok_or_else(ends_early)?;
        let mut decoder = RangeDecoder::new(coded);
        let values = code_chunk(
            Available::best(),
            &mut decoder,
            geometry,
            &trellis,
            length,
            scale_value(code),
            &[],
            |decoder| {
                monitor.check()?;
                if decoder.overrun() {
                    return Err(ends_early());
                }
                Ok(())
            },
        )?;
        decoder.finish()?;
        monitor.advance(length as u64);
        Ok(values)
    })?;
    Ok(Multiples { header, chunks })
}

impl Multiples {
    /// The multiples times their steps, rounded as by [`to_bytes`](Self::to_bytes), in coded order:
    /// all chunks there are, the first of which is that of number `first`.
    pub fn to_coded_bytes(&self, first: usize, float: FloatType) -> Vec<u8> {
        let values: Vec<f64> = self.values(first).map(|(_, value)| value).collect();
        let mut bytes = vec![0; values.len() * float.size()];
        f64::write_bytes(&values, &mut bytes, float);
        bytes
    }

    /// The tensor: the multiples times their steps, rounded to `float` (to nearest even), as
    /// little-endian bytes in the order of the elements.
    pub fn to_bytes(&self, float: FloatType) -> Vec<u8> {
        let geometry = &self.header.geometry;
        let mut values = vec![0f64; geometry.elements];
        for (position, value) in self.values(0) {
            values[geometry.place(position)] = value;
        }
        let mut bytes = vec![0; values.len() * float.size()];
        f64::write_bytes(&values, &mut bytes, float);
        bytes
    }

    /// Coded positions and values, from chunk number `first` on.
    fn values(&self, first: usize) -> impl Iterator<Item = (usize, f64)> {
        let geometry = &self.header.geometry;
        let columns = geometry.columns;
        let scale = self.header.scale();
        let start = first * geometry.rows_per_chunk() * columns;
        self.chunks
            .iter()
            .flatten()
            .zip(start..)
            .map(move |(&multiple, position)| {
                let step = scale.step(position / columns, position % columns);
                (position, f64::from(multiple) * step)
            })
    }
}

/// Applies a function to the number of every chunk, in parallel if there are several; a single one
/// needs no other thread.
fn for_each_chunk<T: Send>(
    chunks: usize,
    work: impl Fn(usize) -> Result<T> + Send + Sync,
) -> Result<Vec<T>> {
    if chunks <= 1 {
        (0..chunks).map(work).collect()
    } else {
        (0..chunks).into_par_iter().map(work).collect()
    }
}

fn ends_early() -> Error {
    Error::insufficient_data("a grid stream ends early")
}

fn read_byte(rest: &mut &[u8]) -> Result<u8> {
    let (&byte, tail) = rest.split_first().ok_or_else(ends_early)?;
    *rest = tail;
    Ok(byte)
}

/// Numbers are written in groups of seven bits, the lowest first, with the highest bit of a byte
/// set if more follow (LEB128).
fn write_number(stream: &mut Vec<u8>, mut number: usize) {
    while number >= 128 {
        stream.push(number as u8 | 128);
        number >>= 7;
    }
    stream.push(number as u8);
}

fn read_number(rest: &mut &[u8]) -> Result<usize> {
    let mut number = 0u64;
    for shift in (0..63).step_by(7) {
        let byte = read_byte(rest)?;
        number |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return usize::try_from(number)
                .map_err(|_| Error::corruption("a grid stream has an impossible number"));
        }
    }
    Err(Error::corruption("a grid stream has an impossible number"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::feedback::Factors;
    use super::*;
    use crate::ErrorKind;

    const EVEN: Importance<'_> = Importance {
        rows: None,
        columns: None,
        factors: None,
    };

    /// Weights of rows of different scales, each column and row correlated with the one before.
    fn tensor(rows: usize, columns: usize, seed: u64) -> Vec<f64> {
        let mut state = seed | 1;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as f64 / u64::MAX as f64 - 0.5
        };
        let mut values = Vec::new();
        for row in 0..rows {
            let scale = 1.0 + 0.5 * uniform();
            for column in 0..columns {
                let noise: f64 = (0..6).map(|_| uniform()).sum();
                let left = if column > 0 {
                    values[values.len() - 1]
                } else {
                    0.0
                };
                let up = if row > 0 {
                    values[values.len() - columns]
                } else {
                    0.0
                };
                values.push(scale * noise + 0.3 * left + 0.4 * up);
            }
        }
        values
    }

    fn geometry(elements: usize, columns: usize) -> Geometry {
        Geometry {
            elements,
            columns,
            transposed: false,
            within: columns >= 4,
            lags: Vec::new(),
            period: 1,
        }
    }

    fn options(geometry: Geometry, state_bits: u32, step: f32) -> Options {
        Options {
            geometry,
            state_bits,
            step,
            economy: 1.0,
            own_steps: true,
        }
    }

    fn any_geometry() -> impl Strategy<Value = Geometry> {
        (
            1usize..40,
            1usize..40,
            any::<bool>(),
            any::<bool>(),
            proptest::collection::btree_set(1usize..6, 0..4),
            1usize..4,
        )
            .prop_map(
                |(rows, columns, transposed, within, lags, period)| Geometry {
                    elements: rows * columns,
                    columns,
                    transposed,
                    within,
                    lags: lags.into_iter().filter(|&lag| lag <= rows).collect(),
                    period,
                },
            )
    }

    fn any_options() -> impl Strategy<Value = Options> {
        let bits = prop_oneof![Just(0u32), 2u32..=8];
        (any_geometry(), bits, -6i32..6, 0f32..2.0).prop_map(
            |(geometry, state_bits, exponent, economy)| Options {
                geometry,
                state_bits,
                step: 2f32.powi(exponent),
                economy,
                own_steps: true,
            },
        )
    }

    proptest! {
        #[test]
        fn decoding_inverts_encoding(options in any_options(), seed in any::<u64>()) {
            let Geometry { elements, columns, .. } = options.geometry;
            let values = tensor(elements / columns, columns, seed);
            let monitor = Monitor::new();
            let multiples = quantise(&values, None, &EVEN, &options, &monitor).unwrap();
            let stream = encode(&multiples, &monitor).unwrap();
            prop_assert_eq!(&decode(&stream, elements, &monitor).unwrap(), &multiples);
            for &isa in Available::all() {
                prop_assert_eq!(
                    &quantise_at(isa, &values, None, &EVEN, &options, &monitor).unwrap(), &multiples
                );
                prop_assert_eq!(&encode_at(isa, &multiples, &monitor).unwrap(), &stream);
            }
        }

        /// Whatever the multiples, also such as no quantiser would choose.
        #[test]
        fn any_multiples_survive(
            multiples in proptest::collection::vec(
                prop_oneof![-3i32..3, -70_000i32..70_000, -MAX_MULTIPLE / 2..MAX_MULTIPLE / 2],
                1..300,
            ),
            columns in 1usize..20,
        ) {
            let columns = columns.min(multiples.len());
            let all = Multiples {
                header: Header {
                    geometry: geometry(multiples.len(), columns),
                    state_bits: 0,
                    step: 0.25,
                    steps: Steps::default(),
                },
                chunks: vec![multiples],
            };
            let stream = encode(&all, &Monitor::new()).unwrap();
            let length = all.chunks[0].len();
            prop_assert_eq!(decode(&stream, length, &Monitor::new()).unwrap(), all);
        }

        #[test]
        fn damaged_streams_decode_or_err(
            options in any_options(),
            seed in any::<u64>(),
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<proptest::sample::Index>(),
        ) {
            let Geometry { elements, columns, .. } = options.geometry;
            let values = tensor(elements / columns, columns, seed);
            let monitor = Monitor::new();
            let multiples = quantise(&values, None, &EVEN, &options, &monitor).unwrap();
            let mut stream = encode(&multiples, &monitor).unwrap();
            let whole = stream.len();
            for (place, value) in damage {
                stream[place.index(whole)] ^= value;
            }
            if let Ok(decoded) = decode(&stream, elements, &monitor) {
                prop_assert_eq!(decoded.to_bytes(FloatType::F32).len(), 4 * elements);
            }
            let _ = decode(&stream[..cut.index(whole)], elements, &monitor);
        }

        #[test]
        fn any_bytes_decode_or_err(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            elements in 0usize..100_000,
        ) {
            let _ = decode(&bytes, elements, &Monitor::new());
            // Behind a header that is right, so that the coder itself is reached.
            let mut stream = encode_header(&Header {
                geometry: geometry(elements.max(1), 8.min(elements.max(1))),
                state_bits: 3,
                step: 1.0,
                steps: Steps::default(),
            });
            stream.extend(&bytes);
            let _ = decode(&stream, elements.max(1), &Monitor::new());
        }
    }

    #[test]
    fn truncation_is_seen() {
        let values = tensor(24, 16, 5);
        let options = options(geometry(values.len(), 16), 6, 0.1);
        let monitor = Monitor::new();
        let multiples = quantise(&values, None, &EVEN, &options, &monitor).unwrap();
        let stream = encode(&multiples, &monitor).unwrap();
        for length in 0..stream.len() {
            let error = decode(&stream[..length], values.len(), &monitor).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InsufficientData, "{length}");
        }
        let mut longer = stream;
        longer.push(0);
        let error = decode(&longer, values.len(), &monitor).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
    }

    #[test]
    fn chunks_do_not_depend_on_one_another_or_on_threads() {
        let columns = 1 << 12;
        let rows = crate::codec::grid::geometry::VALUES_PER_CHUNK / columns + 3;
        let values: Vec<f64> = (0..rows * columns)
            .map(|i| ((i * i) % 37) as f64 - 18.0)
            .collect();
        let options = options(
            Geometry {
                within: false,
                ..geometry(values.len(), columns)
            },
            0,
            4.0,
        );
        let monitor = Monitor::new();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let multiples = quantise(&values, None, &EVEN, &options, &monitor).unwrap();
                assert_eq!(multiples.chunks.len(), 2);
                let stream = encode(&multiples, &monitor).unwrap();
                assert_eq!(decode(&stream, values.len(), &monitor).unwrap(), multiples);
                let second = decode_chunks(&stream, values.len(), 1..2, &monitor).unwrap();
                assert_eq!(second.chunks, multiples.chunks[1..]);
                let bytes = multiples.to_bytes(FloatType::F32);
                let start = bytes.len() - 4 * multiples.chunks[1].len();
                assert_eq!(second.to_coded_bytes(1, FloatType::F32), bytes[start..]);
                stream
            })
        };
        assert_eq!(run(1), run(3));
    }

    /// At the same step, dependent choice leaves less error for about the same bits.
    #[test]
    fn a_trellis_pays() {
        let values = tensor(300, 40, 9);
        let monitor = Monitor::new();
        let measure = |state_bits, step| {
            let options = options(geometry(values.len(), 40), state_bits, step);
            let multiples = quantise(&values, None, &EVEN, &options, &monitor).unwrap();
            let bits = 8.0 * encode(&multiples, &monitor).unwrap().len() as f64;
            let decoded = multiples.to_bytes(FloatType::F64);
            let error: f64 = decoded
                .as_chunks::<8>()
                .0
                .iter()
                .zip(&values)
                .map(|(bytes, value)| (f64::from_le_bytes(*bytes) - value).powi(2))
                .sum();
            // Bits per value at an error of 1 by the slope of 6 dB per bit.
            bits / values.len() as f64 + 0.5 * (error / values.len() as f64).log2()
        };
        let (plain, small, large) = (measure(0, 0.5), measure(2, 0.25), measure(6, 0.25));
        assert!(small < plain - 0.08, "{small} {plain}");
        assert!(large < small - 0.04, "{large} {small}");
    }

    #[test]
    fn an_estimate_is_near_what_coding_takes() {
        let values = tensor(300, 40, 9);
        let monitor = Monitor::new();
        let options = options(geometry(values.len(), 40), 0, 0.3);
        let multiples = quantise(&values, None, &EVEN, &options, &monitor).unwrap();
        let bytes = encode(&multiples, &monitor).unwrap().len() as f64;
        let estimated = estimate(&values, &options.geometry, 0.3, &monitor).unwrap();
        assert!(
            (estimated / bytes - 1.0).abs() < 0.05,
            "{estimated} {bytes}"
        );
    }

    #[test]
    fn important_weights_are_kept_nearer() {
        let values = tensor(100, 32, 3);
        let weights: Vec<f32> = (0..values.len())
            .map(|i| if i % 4 == 0 { 8.0 } else { 0.2 })
            .collect();
        let options = options(geometry(values.len(), 32), 6, 0.5);
        let monitor = Monitor::new();
        let errors = |weights: Option<&[f32]>| {
            let multiples = quantise(&values, weights, &EVEN, &options, &monitor).unwrap();
            let decoded = multiples.to_bytes(FloatType::F64);
            let mut errors = [0.0; 2];
            for (index, (bytes, value)) in
                decoded.as_chunks::<8>().0.iter().zip(&values).enumerate()
            {
                errors[usize::from(index % 4 == 0)] += (f64::from_le_bytes(*bytes) - value).powi(2);
            }
            errors
        };
        let ([rest, important], [rest_weighted, important_weighted]) =
            (errors(None), errors(Some(&weights)));
        assert!(important_weighted < 0.8 * important);
        assert!(rest_weighted > rest);
    }

    #[test]
    fn weights_too_far_out_for_the_step_are_refused() {
        let options = options(geometry(2, 2), 0, 1e-6);
        for far in [1e9, f64::NAN, f64::INFINITY] {
            let error = quantise(&[far, 0.0], None, &EVEN, &options, &Monitor::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn unknown_codecs_and_impossible_headers_are_told_apart() {
        let error = decode(&[77], 4, &Monitor::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        let header = Header {
            geometry: geometry(8, 4),
            state_bits: 0,
            step: 1.0,
            steps: Steps::default(),
        };
        for change in [
            |h: &mut Header| h.state_bits = 1,
            |h: &mut Header| h.step = -1.0,
            |h: &mut Header| h.geometry.columns = 9,
            |h: &mut Header| h.geometry.period = 0,
            |h: &mut Header| h.geometry.lags = vec![3],
        ] {
            let mut header = header.clone();
            change(&mut header);
            let stream = encode_header(&header);
            let error = decode(&stream, 8, &Monitor::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{header:?}");
        }
    }

    /// A matrix of 48 outputs and 40 inputs, and second moments of these.
    fn layer(seed: u64) -> (Vec<f64>, Vec<f64>) {
        let width = 40;
        let rows = tensor(500, width, seed);
        let mut moments = vec![0.0; width * width];
        for row in rows.chunks(width) {
            for i in 0..width {
                for j in 0..width {
                    moments[i * width + j] += row[i] * row[j] * if i % 7 == 0 { 3.0 } else { 1.0 };
                }
            }
        }
        for i in 0..width {
            for j in 0..i {
                let mean = 0.5 * (moments[i * width + j] + moments[j * width + i]);
                moments[i * width + j] = mean;
                moments[j * width + i] = mean;
            }
        }
        let raise: f64 = (0..width).map(|i| moments[i * width + i]).sum::<f64>() / 20.0;
        for i in 0..width {
            moments[i * width + i] += raise / 20.0;
        }
        (tensor(48, width, seed + 1), moments)
    }

    /// The cost of a tensor's errors by moments of its inputs.
    fn cost(values: &[f64], multiples: &Multiples, moments: &[f64], width: usize) -> f64 {
        let decoded = multiples.to_bytes(FloatType::F64);
        let errors: Vec<f64> = decoded
            .as_chunks::<8>()
            .0
            .iter()
            .zip(values)
            .map(|(bytes, value)| f64::from_le_bytes(*bytes) - value)
            .collect();
        let mut cost = 0.0;
        for row in errors.chunks(width) {
            for i in 0..width {
                for j in 0..width {
                    cost += row[i] * moments[i * width + j] * row[j];
                }
            }
        }
        cost
    }

    fn by_inputs(elements: usize, outputs: usize, state_bits: u32, step: f32) -> Options {
        let geometry = Geometry {
            transposed: true,
            ..geometry(elements, outputs)
        };
        options(geometry, state_bits, step)
    }

    #[test]
    fn feedback_lowers_the_cost_at_the_same_step() {
        let monitor = Monitor::new();
        for (state_bits, economy) in [(0, 0.0), (0, 1.0), (6, 0.0), (6, 1.0)] {
            let mut totals = [0.0; 2];
            for seed in 1..9 {
                let (values, moments) = layer(seed);
                let factors = Factors::new(&moments, 1, 40, 500, &monitor).unwrap();
                let options = Options {
                    economy,
                    own_steps: false,
                    ..by_inputs(values.len(), 48, state_bits, 0.3)
                };
                let importance = Importance {
                    factors: Some(&factors),
                    ..EVEN
                };
                let plain = quantise(&values, None, &EVEN, &options, &monitor).unwrap();
                let fed = quantise(&values, None, &importance, &options, &monitor).unwrap();
                let costs = [plain, fed].map(|each| cost(&values, &each, &moments, 40));
                // A path through the trellis ends with every input, which costs a little.
                let noise = if state_bits == 0 { 1.0 } else { 1.03 };
                assert!(costs[1] < noise * costs[0], "{seed} {state_bits} {costs:?}");
                totals = [totals[0] + costs[0], totals[1] + costs[1]];
            }
            assert!(
                totals[1] < 0.95 * totals[0],
                "{state_bits} {economy} {totals:?}"
            );
        }
    }

    #[test]
    fn moments_that_are_the_identity_change_nothing() {
        let monitor = Monitor::new();
        let (values, _) = layer(3);
        let mut identity = vec![0.0; 1600];
        for i in 0..40 {
            identity[41 * i] = 7.0;
        }
        let factors = Factors::new(&identity, 1, 40, 7, &monitor).unwrap();
        let importance = Importance {
            factors: Some(&factors),
            ..EVEN
        };
        let options = by_inputs(values.len(), 48, 6, 0.2);
        let plain = quantise(&values, None, &EVEN, &options, &monitor).unwrap();
        let weighed = quantise(&values, None, &importance, &options, &monitor).unwrap();
        assert_eq!(
            encode(&plain, &monitor).unwrap(),
            encode(&weighed, &monitor).unwrap()
        );
    }

    #[test]
    fn calibrated_streams_decode_and_do_not_depend_on_threads_or_instructions() {
        let monitor = Monitor::new();
        let (values, moments) = layer(6);
        let factors = Factors::new(&moments, 1, 40, 500, &monitor).unwrap();
        let columns: Vec<f64> = (0..48).map(|i| 1.0 + f64::from(i % 9) * 4.0).collect();
        let importance = Importance {
            columns: Some(&columns),
            factors: Some(&factors),
            ..EVEN
        };
        for state_bits in [0, 6] {
            let options = by_inputs(values.len(), 48, state_bits, 0.2);
            let run = |threads, isa| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| {
                    let multiples =
                        quantise_at(isa, &values, None, &importance, &options, &monitor).unwrap();
                    let stream = encode_at(isa, &multiples, &monitor).unwrap();
                    assert_eq!(decode(&stream, values.len(), &monitor).unwrap(), multiples);
                    (multiples, stream)
                })
            };
            let (multiples, stream) = run(1, Available::best());
            assert!(!multiples.header.steps.columns.is_empty());
            for &isa in Available::all() {
                assert_eq!(run(3, isa).1, stream);
            }
            for length in 0..stream.len() {
                assert!(decode(&stream[..length], values.len(), &monitor).is_err());
            }
        }
    }

    #[test]
    fn rows_and_columns_with_steps_cost_alike() {
        let monitor = Monitor::new();
        let values = tensor(200, 32, 4);
        let rows: Vec<f64> = (0..200)
            .map(|i| if i % 2 == 0 { 1.0 } else { 100.0 })
            .collect();
        let importance = Importance {
            rows: Some(&rows),
            ..EVEN
        };
        let options = options(geometry(values.len(), 32), 6, 0.1);
        let multiples = quantise(&values, None, &importance, &options, &monitor).unwrap();
        let decoded = multiples.to_bytes(FloatType::F64);
        let mut costs = [0.0; 2];
        for (index, (bytes, value)) in decoded.as_chunks::<8>().0.iter().zip(&values).enumerate() {
            let row = index / 32;
            costs[row % 2] += rows[row] * (f64::from_le_bytes(*bytes) - value).powi(2);
        }
        assert!((costs[0] / costs[1]).ln().abs() < 0.3, "{costs:?}");
    }
}
