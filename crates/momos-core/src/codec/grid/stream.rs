//! The stream of a tensor on a grid; its layout is written down in `docs/format.md`.

use rayon::prelude::*;

use super::super::range_coder::{BitCoder, RangeDecoder, RangeEncoder};
use super::geometry::{Geometry, MAX_LAGS};
use super::quantise::{self, Job};
use super::row_model::{Outlook, RowModel, Source};
use super::simd::Level;
use super::symbols::SymbolModel;
use super::trellis::Trellis;
use crate::error::{Error, Result};
use crate::float::{FloatType, Working};
use crate::monitor::Monitor;

/// The codec's number, the first byte of a stream.
const GRID: u8 = 0;

/// Multiples of a step stay within this, so that sums of a few of them fit 32 bits.
pub const MAX_MULTIPLE: i32 = 1 << 28;

const TRANSPOSED: u8 = 1;
const WITHIN: u8 = 2;

/// What a stream says of itself before its chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Order of the values, and what is predicted from what.
    pub geometry: Geometry,
    /// Bits of a state of the trellis; 0 for the plain grid.
    pub state_bits: u32,
    /// The step: every value is a multiple of it.
    pub step: f32,
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
}

/// Quantises a tensor.
///
/// `weights`, in the order of the tensor's elements, say how much the squared error of each counts,
/// 1 by default.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if a value is too many steps from zero or not finite,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by values.
pub fn quantise(
    values: &[f64],
    weights: Option<&[f32]>,
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
    let spacing = f64::from(options.step) * f64::from(trellis.spacing());
    let limit = spacing * f64::from(MAX_MULTIPLE / 4);
    if let Some(value) = values.iter().find(|value| !(value.abs() < limit)) {
        return Err(Error::invalid_argument(format!(
            "a step of {} is too short for a weight of {value}",
            options.step
        )));
    }
    let chunks = (0..geometry.chunks())
        .into_par_iter()
        .map(|chunk| {
            let (start, length) = geometry.chunk(chunk);
            let places = || (start..start + length).map(|position| geometry.place(position));
            let scaled: Vec<f32> = places()
                .map(|place| (values[place] / spacing) as f32)
                .collect();
            let weights: Option<Vec<f32>> =
                weights.map(|weights| places().map(|place| weights[place]).collect());
            let job = Job {
                values: &scaled,
                weights: weights.as_deref(),
                economy: options.economy,
            };
            let scale = scale_value(scale_code(&scaled, geometry.columns));
            let chosen = quantise::quantise(&job, geometry, scale, &trellis, monitor)?;
            monitor.advance(length as u64);
            Ok(chosen)
        })
        .collect::<Result<_>>()?;
    Ok(Multiples {
        header: Header {
            geometry: geometry.clone(),
            state_bits: options.state_bits,
            step: options.step,
        },
        chunks,
    })
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

fn code_chunk<C: BitCoder>(
    coder: &mut C,
    geometry: &Geometry,
    trellis: &Trellis,
    length: usize,
    scale: f32,
    known: &[i32],
    mut check: impl FnMut(&C) -> Result<()>,
) -> Result<Vec<i32>> {
    let mut model = RowModel::new(geometry, scale, Level::best());
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
    let header = &multiples.header;
    let trellis = Trellis::new(header.state_bits)?;
    let chunks = multiples
        .chunks
        .par_iter()
        .map(|chunk| {
            let unit = 1.0 / trellis.spacing() as f32;
            let row = header.geometry.columns.min(chunk.len());
            let first: Vec<f32> = chunk[..row].iter().map(|&m| m as f32 * unit).collect();
            let code = scale_code(&first, row);
            let mut encoder = RangeEncoder::new();
            code_chunk(
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
        })
        .collect::<Result<Vec<_>>>()?;

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
    stream.push(if *transposed { TRANSPOSED } else { 0 } | if *within { WITHIN } else { 0 });
    write_number(&mut stream, *columns);
    write_number(&mut stream, *period);
    write_number(&mut stream, lags.len());
    for &lag in lags {
        write_number(&mut stream, lag);
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
    if flags > TRANSPOSED | WITHIN {
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
    Ok((
        Header {
            geometry,
            state_bits,
            step,
        },
        rest,
    ))
}

/// Decodes a stream of `elements` values.
///
/// Memory: 4 bytes per value while it is decoded, as far as the stream's bytes last.
///
/// # Errors
/// As [`decode_header`], and [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by
/// values.
pub fn decode(stream: &[u8], elements: usize, monitor: &Monitor) -> Result<Multiples> {
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
    let chunks = chunks
        .par_iter()
        .enumerate()
        .map(|(chunk, bytes)| {
            let (_, length) = geometry.chunk(chunk);
            let (&code, coded) = bytes.split_first().ok_or_else(ends_early)?;
            let mut decoder = RangeDecoder::new(coded);
            let values = code_chunk(
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
        })
        .collect::<Result<_>>()?;
    Ok(Multiples { header, chunks })
}

impl Multiples {
    /// The tensor: the multiples times the step, rounded to `float` (to nearest even), as
    /// little-endian bytes in the order of the elements.
    pub fn to_bytes(&self, float: FloatType) -> Vec<u8> {
        let geometry = &self.header.geometry;
        let step = f64::from(self.header.step);
        let mut values = vec![0f64; geometry.elements];
        let mut position = 0;
        for chunk in &self.chunks {
            for &multiple in chunk {
                values[geometry.place(position)] = f64::from(multiple) * step;
                position += 1;
            }
        }
        let mut bytes = vec![0; values.len() * float.size()];
        f64::write_bytes(&values, &mut bytes, float);
        bytes
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
