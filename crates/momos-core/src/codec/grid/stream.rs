//! The stream of a tensor on a grid; its layout is written down in `docs/format.md`.

use std::ops::Range;

use rayon::prelude::*;

use super::geometry::{Geometry, MAX_LAGS};
use super::quantise::{self, Job};
use super::row_model::{Outlook, RowModel, Source};
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
    quantise_at(Available::best(), values, weights, options, monitor)
}

fn quantise_at(
    isa: Available,
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
    if let Some(value) = values
        .iter()
        .find(|value| value.is_nan() || value.abs() >= limit)
    {
        return Err(Error::invalid_argument(format!(
            "a step of {} is too short for a weight of {value}",
            options.step
        )));
    }
    let chunks = for_each_chunk(geometry.chunks(), |chunk| {
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
            isa,
        };
        let scale = scale_value(scale_code(&scaled, geometry.columns));
        let chosen = quantise::quantise(&job, geometry, scale, &trellis, monitor)?;
        monitor.advance(length as u64);
        Ok(chosen)
    })?;
    Ok(Multiples {
        header: Header {
            geometry: geometry.clone(),
            state_bits: options.state_bits,
            step: options.step,
        },
        chunks,
    })
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
    /// The multiples times the step, rounded as by [`to_bytes`](Self::to_bytes), in coded order.
    pub fn to_coded_bytes(&self, float: FloatType) -> Vec<u8> {
        let step = f64::from(self.header.step);
        let values: Vec<f64> = self
            .chunks
            .iter()
            .flatten()
            .map(|&multiple| f64::from(multiple) * step)
            .collect();
        let mut bytes = vec![0; values.len() * float.size()];
        f64::write_bytes(&values, &mut bytes, float);
        bytes
    }

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

    use super::*;
    use crate::ErrorKind;

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
            },
        )
    }

    proptest! {
        #[test]
        fn decoding_inverts_encoding(options in any_options(), seed in any::<u64>()) {
            let Geometry { elements, columns, .. } = options.geometry;
            let values = tensor(elements / columns, columns, seed);
            let monitor = Monitor::new();
            let multiples = quantise(&values, None, &options, &monitor).unwrap();
            let stream = encode(&multiples, &monitor).unwrap();
            prop_assert_eq!(&decode(&stream, elements, &monitor).unwrap(), &multiples);
            for &isa in Available::all() {
                prop_assert_eq!(
                    &quantise_at(isa, &values, None, &options, &monitor).unwrap(), &multiples
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
            let multiples = quantise(&values, None, &options, &monitor).unwrap();
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
        let multiples = quantise(&values, None, &options, &monitor).unwrap();
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
                let multiples = quantise(&values, None, &options, &monitor).unwrap();
                assert_eq!(multiples.chunks.len(), 2);
                let stream = encode(&multiples, &monitor).unwrap();
                assert_eq!(decode(&stream, values.len(), &monitor).unwrap(), multiples);
                let second = decode_chunks(&stream, values.len(), 1..2, &monitor).unwrap();
                assert_eq!(second.chunks, multiples.chunks[1..]);
                let bytes = multiples.to_bytes(FloatType::F32);
                let start = bytes.len() - 4 * multiples.chunks[1].len();
                assert_eq!(second.to_coded_bytes(FloatType::F32), bytes[start..]);
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
            let multiples = quantise(&values, None, &options, &monitor).unwrap();
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
        let multiples = quantise(&values, None, &options, &monitor).unwrap();
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
            let multiples = quantise(&values, weights, &options, &monitor).unwrap();
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
            let error = quantise(&[far, 0.0], None, &options, &Monitor::new()).unwrap_err();
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
}
