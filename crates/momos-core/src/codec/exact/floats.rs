//! Floats kept exact: exponents and leading mantissa bits by adaptive models, the rest as it is.
//!
//! Every element, as an integer, is rotated left by one bit, which puts the sign last and the
//! exponent first. Its top byte is coded bit by bit in the context of the mean of those before; the
//! three bits below in the context of the top byte. All other bits are noise in most models; they
//! are spread into byte planes for a general compressor, which finds what is not.

use std::cmp::Ordering;

use crate::codec::entropy::model::AdaptiveBit;
use crate::codec::entropy::range_coder::{BitCoder, RangeDecoder, RangeEncoder};
use crate::error::{Error, Result};
use crate::monitor::Monitor;

/// Elements between two looks at the monitor and at the end of the bytes.
const ELEMENTS_PER_CHECK: usize = 1 << 12;

/// Bits below the top byte that are modelled.
const MODELLED_BITS: u32 = 3;

/// The mean of the top bytes is kept in this many parts of 1.
const MEAN_BITS: u32 = 8;
/// Top bytes that the mean looks back on, as a power of two.
const MEAN_SHIFT: u32 = 4;

const LIMIT: u16 = 1023;

/// The surest bit takes 0.0005 bits, and an element has at least eight.
const MAX_ELEMENTS_PER_BYTE: usize = 1 << 11;

/// Whether elements of that many bytes can be coded.
pub fn supports(size: usize) -> bool {
    matches!(size, 1 | 2 | 4 | 8)
}

/// Bits of an element that are not modelled.
fn plain_bits(size: usize) -> u32 {
    (8 * size as u32).saturating_sub(8 + MODELLED_BITS)
}

/// Byte planes of the bits that are not modelled.
pub fn planes(size: usize) -> usize {
    size - 1
}

struct Model {
    size: usize,
    /// By the mean of the top bytes before.
    top: Vec<[AdaptiveBit; 256]>,
    /// By the top byte.
    below: Vec<[AdaptiveBit; 1 << MODELLED_BITS]>,
    mean: u32,
}

impl Model {
    fn new(size: usize) -> Self {
        Self {
            size,
            top: vec![[AdaptiveBit::new(); 256]; 256],
            below: vec![[AdaptiveBit::new(); 1 << MODELLED_BITS]; 256],
            mean: 128 << MEAN_BITS,
        }
    }

    /// Codes the modelled bits of a rotated element, which are returned.
    #[inline]
    fn code(&mut self, coder: &mut impl BitCoder, leading: u32) -> u32 {
        let below_bits = if self.size == 1 { 0 } else { MODELLED_BITS };
        let context = (self.mean >> MEAN_BITS) as usize % 256;
        let top = code_tree(&mut self.top[context], coder, leading >> below_bits, 8);
        self.mean = self.mean + (top << MEAN_BITS >> MEAN_SHIFT) - (self.mean >> MEAN_SHIFT);
        let low = leading & ((1 << below_bits) - 1);
        let below = code_tree(&mut self.below[top as usize], coder, low, below_bits);
        top << below_bits | below
    }
}

#[inline]
fn code_tree(nodes: &mut [AdaptiveBit], coder: &mut impl BitCoder, value: u32, bits: u32) -> u32 {
    let mut node = 1;
    for level in (0..bits).rev() {
        let model = &mut nodes[node];
        let bit = coder.code(value >> level & 1 == 1, model.one());
        model.update(bit, LIMIT);
        node = node * 2 + usize::from(bit);
    }
    node as u32 - (1 << bits)
}

/// Encodes little-endian elements of `size` bytes.
///
/// Returns the modelled part and the [`planes`] of the other bits, each as many bytes as there are
/// elements, the most significant first.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if the size is not 1, 2, 4 or 8 or the bytes are not a whole
/// number of elements, or more than 2^28; [`crate::ErrorKind::Interrupted`] if cancelled.
pub fn encode(bytes: &[u8], size: usize, monitor: &Monitor) -> Result<(Vec<u8>, Vec<u8>)> {
    check(bytes.len(), size)?;
    let elements = bytes.len() / size;
    let mut model = Model::new(size);
    let mut encoder = RangeEncoder::new();
    let mut rest = vec![0u8; elements * planes(size)];
    let plain = plain_bits(size);
    for (index, element) in bytes.chunks_exact(size).enumerate() {
        if index % ELEMENTS_PER_CHECK == 0 {
            monitor.check()?;
        }
        let rotated = rotate_left(load(element), size);
        model.code(&mut encoder, (rotated >> plain) as u32);
        let low = rotated & ((1 << plain) - 1);
        for plane in 0..planes(size) {
            let shift = 8 * (planes(size) - 1 - plane);
            rest[plane * elements + index] = (low >> shift) as u8;
        }
    }
    Ok((encoder.finish(), rest))
}

/// Inverts [`encode`]; the planes say how many elements there are, but for elements of one byte.
///
/// # Errors
/// [`crate::ErrorKind::InsufficientData`] if bytes are missing, [`crate::ErrorKind::Corruption`] if
/// some are left over or the planes hold more bits than they should,
/// [`crate::ErrorKind::InvalidArgument`] and [`crate::ErrorKind::Interrupted`] as for [`encode`].
pub fn decode(
    modelled: &[u8],
    rest: &[u8],
    elements: usize,
    size: usize,
    monitor: &Monitor,
) -> Result<Vec<u8>> {
    let ends_early = || Error::insufficient_data("a stream of floats ends early");
    let nbytes = elements.checked_mul(size).ok_or_else(ends_early)?;
    check(nbytes, size)?;
    if elements >= (modelled.len() + 8).saturating_mul(MAX_ELEMENTS_PER_BYTE) {
        return Err(ends_early());
    }
    match rest.len().cmp(&(elements * planes(size))) {
        Ordering::Less => return Err(ends_early()),
        Ordering::Equal => {}
        Ordering::Greater => {
            return Err(Error::corruption("a stream of floats has bytes left over"));
        }
    }
    let plain = plain_bits(size);
    let mut model = Model::new(size);
    let mut decoder = RangeDecoder::new(modelled);
    let mut out = vec![0u8; nbytes];
    for (index, element) in out.chunks_exact_mut(size).enumerate() {
        if index % ELEMENTS_PER_CHECK == 0 {
            monitor.check()?;
            if decoder.overrun() {
                return Err(ends_early());
            }
        }
        let leading = model.code(&mut decoder, 0);
        let low = (0..planes(size)).fold(0u64, |low, plane| {
            low << 8 | u64::from(rest[plane * elements + index])
        });
        if low >> plain != 0 {
            return Err(Error::corruption("the planes of floats hold modelled bits"));
        }
        let value = rotate_right(u64::from(leading) << plain | low, size);
        element.copy_from_slice(&value.to_le_bytes()[..size]);
    }
    decoder.finish()?;
    Ok(out)
}

fn check(nbytes: usize, size: usize) -> Result<()> {
    if !supports(size) || !nbytes.is_multiple_of(size) || nbytes / size > 1 << 28 {
        return Err(Error::invalid_argument(format!(
            "{nbytes} bytes cannot be coded as floats of {size} bytes"
        )));
    }
    Ok(())
}

#[inline]
fn load(element: &[u8]) -> u64 {
    let mut bytes = [0u8; 8];
    bytes[..element.len()].copy_from_slice(element);
    u64::from_le_bytes(bytes)
}

#[inline]
fn rotate_left(value: u64, size: usize) -> u64 {
    let bits = 8 * size as u32;
    (value << 1 | value >> (bits - 1)) & u64::MAX >> (64 - bits)
}

#[inline]
fn rotate_right(value: u64, size: usize) -> u64 {
    let bits = 8 * size as u32;
    value >> 1 | (value & 1) << (bits - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decoding_inverts_encoding(
            data in proptest::collection::vec(any::<u8>(), 0..3000),
            log_size in 0u32..4,
            narrow in any::<bool>(),
        ) {
            let size = 1 << log_size;
            let mut data = data[..data.len() / size * size].to_vec();
            if narrow {
                data.chunks_exact_mut(size).for_each(|element| element[size - 1] = 60);
            }
            let (modelled, rest) = encode(&data, size, &Monitor::new()).unwrap();
            let elements = data.len() / size;
            let decoded = decode(&modelled, &rest, elements, size, &Monitor::new()).unwrap();
            prop_assert_eq!(decoded, data);
        }

        #[test]
        fn any_stream_decodes_or_errs(
            modelled in proptest::collection::vec(any::<u8>(), 0..200),
            rest in proptest::collection::vec(0u8..40, 0..2000),
            log_size in 0u32..4,
        ) {
            let size = 1 << log_size;
            let elements = rest.len() / planes(size).max(1);
            let rest = &rest[..elements * planes(size)];
            if let Ok(data) = decode(&modelled, rest, elements, size, &Monitor::new()) {
                prop_assert_eq!(data.len(), elements * size);
            }
        }
    }

    #[test]
    fn exponents_take_few_bits() {
        let values: Vec<u8> = (0..50_000u32)
            .flat_map(|i| {
                let noise = i.wrapping_mul(2654435761);
                f32::from_bits(0x3e00_0000 | (i & 1) << 23 | noise >> 9).to_le_bytes()
            })
            .collect();
        let (modelled, rest) = encode(&values, 4, &Monitor::new()).unwrap();
        // One bit of the exponent and three of the mantissa.
        assert!(modelled.len() * 8 < 50_000 * 9 / 2, "{}", modelled.len());
        assert_eq!(rest.len(), 150_000);
    }

    #[test]
    fn odd_sizes_and_huge_counts_are_refused() {
        assert!(encode(&[0; 6], 3, &Monitor::new()).is_err());
        assert!(encode(&[0; 6], 4, &Monitor::new()).is_err());
        for elements in [usize::MAX, 1 << 27, 2] {
            assert!(decode(&[0; 6], &[], elements, 4, &Monitor::new()).is_err());
        }
    }
}
