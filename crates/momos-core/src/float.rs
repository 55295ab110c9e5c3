//! The floating element types of weights, read from and written to little-endian bytes.
//!
//! Tensors come from mapped files at any address, so bytes are never reinterpreted in place; the
//! conversions below compile to plain (vectorised) loads.

use half::{bf16, f16};

use crate::error::{Error, Result};

/// A floating element type that can be part of a mosaic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FloatType {
    /// bfloat16.
    Bf16,
    /// IEEE 754 binary16.
    F16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl FloatType {
    /// The type of that name, spelled as in safetensors files: `BF16`, `F16`, `F32`, `F64`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] for any other name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "BF16" => Ok(Self::Bf16),
            "F16" => Ok(Self::F16),
            "F32" => Ok(Self::F32),
            "F64" => Ok(Self::F64),
            _ => Err(Error::invalid_argument(format!(
                "{name} tensors cannot be part of a mosaic"
            ))),
        }
    }

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Number of elements in `bytes`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if that is not a whole number.
    pub fn count(self, bytes: &[u8]) -> Result<usize> {
        if !bytes.len().is_multiple_of(self.size()) {
            return Err(Error::invalid_argument(format!(
                "{} bytes are not a whole number of {self:?} elements",
                bytes.len()
            )));
        }
        Ok(bytes.len() / self.size())
    }
}

/// The type that blocks and motifs are computed in: f32, or f64 where a source tensor is f64.
pub trait Working: Copy + Default + Send + Sync + PartialEq + PartialOrd + 'static {
    /// Reads the elements of `bytes`, converted; exact except from f64 to f32.
    fn read_bytes(out: &mut [Self], bytes: &[u8], from: FloatType);
    /// Writes the values as elements of another type, rounded to nearest even.
    fn write_bytes(values: &[Self], out: &mut [u8], to: FloatType);
    /// [`write_bytes`](Self::write_bytes) of a number of values that the compiler knows, for which
    /// it needs no loop.
    #[inline]
    fn write_row<const S: usize>(row: &[Self; S], out: &mut [u8], to: FloatType) {
        match to {
            FloatType::Bf16 => Self::write_bytes(row, &mut out[..2 * S], FloatType::Bf16),
            FloatType::F16 => Self::write_bytes(row, &mut out[..2 * S], FloatType::F16),
            FloatType::F32 => Self::write_bytes(row, &mut out[..4 * S], FloatType::F32),
            FloatType::F64 => Self::write_bytes(row, &mut out[..8 * S], FloatType::F64),
        }
    }
    /// The value as f64, exactly.
    fn to_f64(self) -> f64;
}

/// The f32 next to `value` towards zero, its last bit set if that loses anything.
///
/// Rounding that to a type of at most 22 bits of significand gives what rounding `value` itself to
/// nearest even would: the last bit tells values beside a tie from the tie (Boldo and Melquiond,
/// "Emulation of a FMA and correctly rounded sums", 2008). Rounding to the nearest f32 first would
/// round twice, and conversions of processors and of libraries do not agree on that.
#[inline]
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || value.is_nan() {
        return nearest;
    }
    let beyond = u32::from(back.abs() > value.abs()); // infinity becomes the largest number
    f32::from_bits((nearest.to_bits() - beyond) | 1)
}

macro_rules! convert_in {
    ($out:expr, $bytes:expr, $size:literal, $value:ident => $conversion:expr) => {
        for (slot, chunk) in $out.iter_mut().zip($bytes.chunks_exact($size)) {
            let $value: [u8; $size] = chunk.try_into().expect("chunks have this size");
            *slot = $conversion;
        }
    };
}

macro_rules! convert_out {
    ($values:expr, $out:expr, $size:literal, $value:ident => $conversion:expr) => {
        for (chunk, &$value) in $out.chunks_exact_mut($size).zip($values) {
            chunk.copy_from_slice(&$conversion.to_le_bytes());
        }
    };
}

impl Working for f32 {
    fn read_bytes(out: &mut [Self], bytes: &[u8], from: FloatType) {
        match from {
            FloatType::Bf16 => {
                convert_in!(out, bytes, 2, b => f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16));
            }
            FloatType::F16 => convert_in!(out, bytes, 2, b => f16::from_le_bytes(b).to_f32()),
            FloatType::F32 => convert_in!(out, bytes, 4, b => f32::from_le_bytes(b)),
            FloatType::F64 => convert_in!(out, bytes, 8, b => f64::from_le_bytes(b) as f32),
        }
    }

    #[inline]
    fn write_bytes(values: &[Self], out: &mut [u8], to: FloatType) {
        match to {
            FloatType::Bf16 => convert_out!(values, out, 2, v => bf16::from_f32(v)),
            FloatType::F16 => convert_out!(values, out, 2, v => f16::from_f32(v)),
            FloatType::F32 => convert_out!(values, out, 4, v => v),
            FloatType::F64 => convert_out!(values, out, 8, v => f64::from(v)),
        }
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Working for f64 {
    fn read_bytes(out: &mut [Self], bytes: &[u8], from: FloatType) {
        match from {
            FloatType::Bf16 => {
                convert_in!(out, bytes, 2, b => bf16::from_le_bytes(b).to_f64());
            }
            FloatType::F16 => convert_in!(out, bytes, 2, b => f16::from_le_bytes(b).to_f64()),
            FloatType::F32 => convert_in!(out, bytes, 4, b => f64::from(f32::from_le_bytes(b))),
            FloatType::F64 => convert_in!(out, bytes, 8, b => f64::from_le_bytes(b)),
        }
    }

    #[inline]
    fn write_bytes(values: &[Self], out: &mut [u8], to: FloatType) {
        match to {
            FloatType::Bf16 => {
                convert_out!(values, out, 2, v => bf16::from_f32(round_to_odd(v)));
            }
            FloatType::F16 => convert_out!(values, out, 2, v => f16::from_f32(round_to_odd(v))),
            FloatType::F32 => convert_out!(values, out, 4, v => (v as f32)),
            FloatType::F64 => convert_out!(values, out, 8, v => v),
        }
    }

    fn to_f64(self) -> f64 {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(value: f64, to: FloatType) -> f64 {
        let mut bytes = [0u8; 2];
        f64::write_bytes(&[value], &mut bytes, to);
        let mut back = [0f64];
        f64::read_bytes(&mut back, &bytes, to);
        back[0]
    }

    /// All finite values of a type, ascending.
    fn values(of: FloatType) -> Vec<f64> {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut all = vec![0f64; 1 << 16];
        f64::read_bytes(&mut all, &bytes, of);
        all.retain(|value| value.is_finite());
        all.sort_by(f64::total_cmp);
        all
    }

    /// Between all neighbours of a type: the tie itself, which f64 holds exactly, goes to the even
    /// one, and whatever is beside it, by one part in 2^53, to the nearer one.
    #[test]
    fn f64_is_rounded_once() {
        for to in [FloatType::Bf16, FloatType::F16] {
            for pair in values(to).windows(2) {
                let (low, high) = (pair[0], pair[1]);
                let tie = 0.5 * low + 0.5 * high;
                if low == 0.0 && high == 0.0 {
                    continue;
                }
                assert_eq!(rounded(tie.next_down(), to), low, "{to:?} below {tie:e}");
                assert_eq!(rounded(tie.next_up(), to), high, "{to:?} above {tie:e}");
                let mut bytes = [0u8; 2];
                f64::write_bytes(&[tie], &mut bytes, to);
                assert_eq!(bytes[0] & 1, 0, "{to:?} at {tie:e}");
                assert_eq!(rounded(low, to).to_bits(), low.to_bits());
            }
        }
    }

    #[test]
    fn f64_beyond_the_largest_value_becomes_infinite() {
        for (to, largest, spacing) in [
            (FloatType::F16, 65504.0, 32.0),
            (FloatType::Bf16, f64::from(bf16::MAX), 2f64.powi(120)),
        ] {
            let edge = largest + 0.5 * spacing;
            assert_eq!(rounded(edge.next_down(), to), largest);
            for value in [edge, f64::MAX, f64::INFINITY] {
                assert_eq!(rounded(value, to), f64::INFINITY);
                assert_eq!(rounded(-value, to), f64::NEG_INFINITY);
            }
            assert!(rounded(f64::NAN, to).is_nan());
            assert_eq!(rounded(5e-324, to).to_bits(), 0);
            assert_eq!(rounded(-5e-324, to).to_bits(), (-0f64).to_bits());
        }
    }

    #[test]
    fn every_half_survives_the_round_trip() {
        for from in [FloatType::Bf16, FloatType::F16] {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let mut single = vec![0f32; 1 << 16];
            f32::read_bytes(&mut single, &bytes, from);
            let mut back = vec![0u8; bytes.len()];
            f32::write_bytes(&single, &mut back, from);
            for (index, (a, b)) in bytes.chunks(2).zip(back.chunks(2)).enumerate() {
                // NaN payloads may be quietened; NaN tensors are never part of a mosaic.
                assert!(a == b || single[index].is_nan(), "{from:?} {index:#x}");
            }
        }
    }
}
