//! Elements cut into fields, each of which is coded by itself, at the speed of memory.
//!
//! The leading bits of a float, its exponent and perhaps a bit or two of the mantissa, are symbols
//! of a [static code](super::super::entropy::static_symbols). The bits below are bytes, most of
//! them noise, which is kept as it is; bits that never change are left out, and bytes that take few
//! values are symbols as well. So a float32 that was a bfloat16 or a float16 once takes what that
//! would.

use super::bit_rows;
use crate::codec::entropy::model::ln;
use crate::codec::entropy::static_symbols::{
    self, MAX_SYMBOL_BITS, PIECE, SymbolDecoder, histogram,
};
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::simd::Available;
use crate::simd::fields::{self, Change, Element, MAX_LOWER};

/// Leading bits at least, as many as the exponents of most floats.
const BYTE: u32 = 8;
/// More bits of a mantissa are noise.
const MANTISSA_BITS: u32 = 2;
/// The mode of a field of symbols; others are widths of packed bits.
const SYMBOLS: u8 = 255;

/// Elements between two that decide whether a field of bytes is symbols.
const SAMPLE: usize = 1 << 14;

/// What elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Floats; those of 8 bytes have an exponent of 11 bits, others of at most 8.
    Float,
    /// Integers, and anything else.
    Integer,
}

/// Whether elements of so many bytes can be coded.
pub fn supports(size: usize) -> bool {
    matches!(size, 1 | 2 | 4 | 8)
}

/// Encodes little-endian elements of `size` bytes, fewer than 2^28.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if the size is not 1, 2, 4 or 8 or the bytes are no whole
/// number of elements, or too many; [`crate::ErrorKind::Interrupted`] if cancelled.
pub fn encode(bytes: &[u8], size: usize, kind: Kind, monitor: &Monitor) -> Result<Vec<u8>> {
    check(bytes.len(), size)?;
    match size {
        1 => encode_elements::<u8>(bytes, kind, monitor),
        2 => encode_elements::<u16>(bytes, kind, monitor),
        4 => encode_elements::<u32>(bytes, kind, monitor),
        _ => encode_elements::<u64>(bytes, kind, monitor),
    }
}

/// Inverts [`encode`] into `out`, whose length says how many elements there are.
///
/// # Errors
/// [`crate::ErrorKind::InsufficientData`] if bytes are missing, [`crate::ErrorKind::Corruption`] if
/// they are damaged, [`crate::ErrorKind::InvalidArgument`] and [`crate::ErrorKind::Interrupted`] as
/// for [`encode`].
pub fn decode(
    isa: Available,
    bytes: &[u8],
    size: usize,
    out: &mut [u8],
    monitor: &Monitor,
) -> Result<()> {
    check(out.len(), size)?;
    match size {
        1 => decode_elements::<u8>(isa, bytes, out, monitor),
        2 => decode_elements::<u16>(isa, bytes, out, monitor),
        4 => decode_elements::<u32>(isa, bytes, out, monitor),
        _ => decode_elements::<u64>(isa, bytes, out, monitor),
    }
}

fn check(nbytes: usize, size: usize) -> Result<()> {
    if !supports(size) || !nbytes.is_multiple_of(size) || nbytes / size >= 1 << 28 {
        return Err(Error::invalid_argument(format!(
            "{nbytes} bytes are no elements of {size} bytes that can be coded"
        )));
    }
    Ok(())
}

fn encode_elements<E: Element>(bytes: &[u8], kind: Kind, monitor: &Monitor) -> Result<Vec<u8>> {
    let (change, least, most) = match kind {
        Kind::Float if E::BITS == u64::BITS => (Change::Rotate, 11, MAX_SYMBOL_BITS),
        Kind::Float => (Change::Rotate, BYTE, BYTE + MANTISSA_BITS),
        Kind::Integer => (integer_change::<E>(bytes), BYTE, BYTE),
    };
    let most = most.min(E::BITS);
    let count = bytes.len() / E::SIZE;
    let mut top = vec![0u16; count];
    fields::split::<E>(bytes, change, E::BITS - most, &mut top, &mut []);
    let leading = leading_bits(&top, least, most);
    if leading < most {
        top.iter_mut().for_each(|top| *top >>= most - leading);
    }
    monitor.check()?;
    let rest = E::BITS - leading;
    let mut lower = vec![0u8; count * rest.div_ceil(8) as usize];
    let mut slices: Vec<&mut [u8]> = lower.chunks_mut(count.max(1)).collect();
    fields::split::<E>(bytes, change, rest, &mut [], &mut slices);
    let mut stream = vec![change as u8, leading as u8];
    encode_top(&top, leading, &mut stream, monitor)?;
    for place in (0..rest.div_ceil(8) as usize).rev() {
        monitor.check()?;
        encode_plane(&lower[place * count..][..count], &mut stream, monitor)?;
    }
    Ok(stream)
}

/// Whether integers are better folded: those with a sign are, packed ones are not.
fn integer_change<E: Element>(bytes: &[u8]) -> Change {
    if E::BITS == BYTE {
        return Change::None;
    }
    let sample = &bytes[..bytes.len().min(SAMPLE * E::SIZE)];
    let count = sample.len() / E::SIZE;
    let cost = |change| {
        let mut planes = vec![vec![0u8; count]; E::SIZE - 1];
        let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|plane| &mut plane[..]).collect();
        let mut top = vec![0u16; count];
        fields::split::<E>(sample, change, E::BITS - BYTE, &mut top, &mut slices);
        let entropy =
            |counts: Vec<u32>| entropy_bits(&counts.into_iter().map(u64::from).collect::<Vec<_>>());
        let lower = planes.into_iter().map(|plane| {
            let plane: Vec<u16> = plane.into_iter().map(u16::from).collect();
            entropy(histogram(&plane, BYTE))
        });
        entropy(histogram(&top, BYTE)) + lower.sum::<u64>()
    };
    if cost(Change::Fold) < cost(Change::None) {
        Change::Fold
    } else {
        Change::None
    }
}

/// How many of the leading `most` bits are symbols: at least `least`, and what pays of the others.
fn leading_bits(top: &[u16], least: u32, most: u32) -> u32 {
    if least == most {
        return most;
    }
    let count = top.len() as u64;
    let mut counts: Vec<u64> = histogram(top, most).into_iter().map(u64::from).collect();
    let mut best = (u64::MAX, most);
    for bits in (least..=most).rev() {
        // A place in the tables takes about six bits in each of two classes.
        let listed = counts
            .iter()
            .filter(|&&n| n << 11 >= count && n > 0)
            .count();
        let plain = u64::from(most - bits) * count;
        best = best.min((entropy_bits(&counts) + plain + 12 * listed as u64, bits));
        counts = counts.chunks(2).map(|pair| pair.iter().sum()).collect();
    }
    best.1
}

fn encode_top(top: &[u16], leading: u32, stream: &mut Vec<u8>, monitor: &Monitor) -> Result<()> {
    if leading == BYTE {
        let bytes: Vec<u8> = top.iter().map(|&value| value as u8).collect();
        return encode_plane(&bytes, stream, monitor);
    }
    stream.push(SYMBOLS);
    stream.extend(static_symbols::encode(top, leading, monitor)?);
    Ok(())
}

/// A field of at most eight bits: packed without those that never change, or as symbols.
fn encode_plane(plane: &[u8], stream: &mut Vec<u8>, monitor: &Monitor) -> Result<()> {
    let first = plane.first().copied().unwrap_or(0);
    let varying = plane
        .iter()
        .fold(0, |varying, &byte| varying | (byte ^ first));
    let shift = varying.trailing_zeros().min(7);
    let width = 8 - varying.leading_zeros().min(8) - if varying == 0 { 0 } else { shift };
    if width > 0 && few_values(plane, width) {
        let symbols: Vec<u16> = plane.iter().map(|&byte| byte.into()).collect();
        let coded = static_symbols::encode(&symbols, BYTE, monitor)?;
        if coded.len() < bit_rows::packed_bytes(plane.len(), width) {
            stream.push(SYMBOLS);
            stream.extend(coded);
            return Ok(());
        }
    }
    let shift = if width == 0 { 0 } else { shift };
    let window = ((1u32 << width) - 1) as u8;
    stream.extend([width as u8, shift as u8, first & !(window << shift)]);
    if width == 8 {
        stream.extend_from_slice(plane);
    } else {
        let numbers: Vec<u8> = plane.iter().map(|byte| byte >> shift & window).collect();
        bit_rows::pack(&numbers, width, stream);
    }
    Ok(())
}

/// Whether the values of a sample look as if symbols paid.
fn few_values(plane: &[u8], width: u32) -> bool {
    let step = (plane.len() / SAMPLE).max(1);
    let mut counts = vec![0u64; 256];
    // Stretches of eight, so that the sample is not all of one column.
    let mut total = 0;
    for part in plane.chunks(8 * step) {
        for &byte in part.iter().take(8) {
            counts[usize::from(byte)] += 1;
            total += 1;
        }
    }
    // The entropy of a sample is too low by about half a bit per value and element.
    let seen = counts.iter().filter(|&&count| count > 0).count() as u64;
    let bits = entropy_bits(&counts) + seen;
    bits * 100 < u64::from(width) * total * 99
}

/// The bits of all symbols that occur so often.
fn entropy_bits(counts: &[u64]) -> u64 {
    let total: u64 = counts.iter().sum();
    let part = |count: u64| count as f64 * ln((count as f64).max(1.0));
    let bits = part(total) - counts.iter().map(|&count| part(count)).sum::<f64>();
    (bits / std::f64::consts::LN_2) as u64
}

/// A field as it is read.
enum Field<'a> {
    Symbols(Box<SymbolDecoder<'a>>),
    Packed {
        width: u32,
        shift: u32,
        constant: u8,
        bytes: &'a [u8],
    },
}

impl<'a> Field<'a> {
    fn new(isa: Available, bytes: &'a [u8], bits: u32, count: usize) -> Result<(Self, &'a [u8])> {
        let (&mode, rest) = bytes.split_first().ok_or_else(ends_early)?;
        if mode == SYMBOLS {
            let (decoder, rest) = SymbolDecoder::new(isa, rest, bits, count)?;
            return Ok((Self::Symbols(Box::new(decoder)), rest));
        }
        let (&[shift, constant], rest) = rest.split_first_chunk().ok_or_else(ends_early)?;
        let (width, shift) = (u32::from(mode), u32::from(shift));
        if bits > BYTE || width > 8 || shift > 8 - width {
            return Err(Error::corruption("a field of bits has no valid place"));
        }
        let size = bit_rows::packed_bytes(count, width);
        let size = if width == 8 { count } else { size };
        let (bytes, rest) = rest.split_at_checked(size).ok_or_else(ends_early)?;
        let field = Self::Packed {
            width,
            shift,
            constant,
            bytes,
        };
        Ok((field, rest))
    }

    /// The next piece as wide numbers.
    fn read_wide(&mut self, numbers: &mut [u16], buffer: &mut [u8]) -> Result<()> {
        match self {
            Self::Symbols(decoder) => decoder.decode(numbers),
            Self::Packed { .. } => {
                let bytes = self.read(buffer, &mut [])?;
                numbers
                    .iter_mut()
                    .zip(bytes)
                    .for_each(|(n, &byte)| *n = byte.into());
                Ok(())
            }
        }
    }

    /// The next piece as bytes, which may lie in the buffer.
    fn read<'b>(&mut self, buffer: &'b mut [u8], symbols: &mut [u16]) -> Result<&'b [u8]>
    where
        'a: 'b,
    {
        match self {
            Self::Symbols(decoder) => {
                decoder.decode(symbols)?;
                buffer
                    .iter_mut()
                    .zip(symbols)
                    .for_each(|(byte, &mut n)| *byte = n as u8);
                Ok(buffer)
            }
            Self::Packed {
                width,
                shift,
                constant,
                bytes,
            } => {
                let size = if *width == 8 {
                    buffer.len()
                } else {
                    bit_rows::packed_bytes(buffer.len(), *width)
                };
                let (part, rest) = bytes.split_at(size);
                *bytes = rest;
                if *width == 8 {
                    return Ok(part);
                }
                bit_rows::unpack(part, *width, buffer);
                if *shift > 0 || *constant > 0 {
                    buffer
                        .iter_mut()
                        .for_each(|byte| *byte = *byte << *shift | *constant);
                }
                Ok(buffer)
            }
        }
    }

    fn finish(&self) -> Result<()> {
        match self {
            Self::Symbols(decoder) => decoder.finish(),
            Self::Packed { .. } => Ok(()),
        }
    }
}

fn decode_elements<E: Element>(
    isa: Available,
    bytes: &[u8],
    out: &mut [u8],
    monitor: &Monitor,
) -> Result<()> {
    let (&[change, leading], mut bytes) = bytes.split_first_chunk().ok_or_else(ends_early)?;
    let change = Change::new(change).ok_or_else(|| Error::corruption("unknown fields"))?;
    let leading = u32::from(leading);
    if !(BYTE..=MAX_SYMBOL_BITS.min(E::BITS)).contains(&leading) {
        return Err(Error::corruption("elements are cut in no valid place"));
    }
    let count = out.len() / E::SIZE;
    let rest = E::BITS - leading;
    let mut all = Vec::new();
    for place in 0..=rest.div_ceil(8) {
        let bits = if place == 0 { leading } else { BYTE };
        let (field, after) = Field::new(isa, bytes, bits, count)?;
        all.push(field);
        bytes = after;
    }
    if !bytes.is_empty() {
        return Err(Error::corruption("coded elements have bytes left over"));
    }
    let (top, planes) = all.split_first_mut().expect("the leading bits");
    let (mut numbers, mut symbols) = (vec![0u16; PIECE], vec![0u16; PIECE]);
    let mut buffers = vec![[0u8; PIECE]; MAX_LOWER];
    for out in out.chunks_mut(PIECE * E::SIZE) {
        monitor.check()?;
        let count = out.len() / E::SIZE;
        top.read_wide(&mut numbers[..count], &mut buffers[0][..count])?;
        let mut lower: [&[u8]; MAX_LOWER] = [&[]; MAX_LOWER];
        // The most significant plane comes first in the stream.
        let slots = lower[..planes.len()].iter_mut().rev();
        for ((plane, slot), buffer) in planes.iter_mut().zip(slots).zip(&mut buffers) {
            *slot = plane.read(&mut buffer[..count], &mut symbols[..count])?;
        }
        fields::join::<E>(
            isa,
            &numbers[..count],
            &lower[..planes.len()],
            change,
            rest,
            out,
        );
    }
    all.iter().try_for_each(Field::finish)
}

fn ends_early() -> Error {
    Error::insufficient_data("coded elements end early")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(data: &[u8], size: usize, kind: Kind) -> usize {
        let stream = encode(data, size, kind, &Monitor::new()).unwrap();
        for &isa in Available::all() {
            let mut out = vec![0xAA; data.len()];
            decode(isa, &stream, size, &mut out, &Monitor::new()).unwrap();
            assert!(out == data, "{isa:?}");
        }
        stream.len()
    }

    /// Numbers that are about normally distributed, of a scale that changes every 1024.
    fn weights(count: u32) -> Vec<f32> {
        let noise = |i: u32| f64::from(i.wrapping_mul(2_654_435_761) ^ i >> 3) / 4_294_967_296.0;
        (0..count)
            .map(|i| {
                let sum: f64 = (0..12).map(|j| noise(i * 12 + j + 1)).sum();
                let scale = f64::from(1 << (i / 1024 % 3 * 2));
                ((sum - 6.0) * 0.013 / scale) as f32
            })
            .collect()
    }

    proptest! {
        #[test]
        fn any_elements_survive(
            data in proptest::collection::vec(any::<u8>(), 0..900),
            times in 1usize..20,
            log_size in 0u32..4,
            float in any::<bool>(),
        ) {
            let size = 1 << log_size;
            let data = data[..data.len() / size * size].repeat(times);
            round_trip(&data, size, if float { Kind::Float } else { Kind::Integer });
        }
    }

    #[test]
    fn floats_that_were_narrower_once_take_what_those_would() {
        let wide = weights(50_000);
        let brains: Vec<u32> = wide.iter().map(|w| w.to_bits() & !0xffff).collect();
        let halves: Vec<half::f16> = wide.iter().map(|&w| half::f16::from_f32(w)).collect();
        let bytes = |values: &[u32]| {
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>()
        };
        let widened: Vec<u32> = halves.iter().map(|h| h.to_f32().to_bits()).collect();
        let narrow = |half: &half::f16| half.to_le_bytes();
        let narrow_halves: Vec<u8> = halves.iter().flat_map(narrow).collect();
        let narrow_brains: Vec<u8> = brains
            .iter()
            .flat_map(|bits| ((bits >> 16) as u16).to_le_bytes())
            .collect();
        let of = |wide: &[u32], narrow: &[u8]| {
            let narrow = round_trip(narrow, 2, Kind::Float);
            (round_trip(&bytes(wide), 4, Kind::Float), narrow)
        };
        let (wide_bytes, narrow_bytes) = of(&brains, &narrow_brains);
        assert!(
            wide_bytes < narrow_bytes + 64,
            "{wide_bytes} {narrow_bytes}"
        );
        let (wide_bytes, narrow_bytes) = of(&widened, &narrow_halves);
        assert!(
            wide_bytes * 100 < narrow_bytes * 102,
            "{wide_bytes} {narrow_bytes}"
        );
    }

    #[test]
    fn classes_find_the_scales() {
        let data: Vec<u8> = weights(100_000)
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect();
        let bytes = round_trip(&data, 4, Kind::Float);
        // Sign and mantissa are 24 bits, the exponents of one scale about 2.5 more.
        assert!(bytes as f64 * 8.0 / 1e5 < 26.6, "{bytes}");
    }

    #[test]
    fn integers_with_a_sign_are_folded_and_packed_ones_are_not() {
        let small: Vec<u8> = (0..9000u32)
            .flat_map(|i| ((i.wrapping_mul(2_654_435_761) >> 26) as i32 - 32).to_le_bytes())
            .collect();
        assert!(round_trip(&small, 4, Kind::Integer) < 9000 * 65 / 80);
        let packed: Vec<u8> = (0..36_000u32)
            .map(|i| {
                let nibble = |i: u32| 5 + (i.wrapping_mul(2_654_435_761) >> 30);
                (nibble(2 * i) | nibble(2 * i + 1) << 4) as u8
            })
            .collect();
        assert!(round_trip(&packed, 4, Kind::Integer) < 36_000 * 53 / 100);
    }
}
