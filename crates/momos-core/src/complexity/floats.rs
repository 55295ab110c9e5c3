//! Weights as they lie in files and tensors: little-endian bytes of a floating-point type.

use crate::{Error, Result};
use half::{bf16, f16};

/// A floating-point type of weights: those of a mosaic ([`crate::float::FloatType`]) and the
/// eight-bit ones, which can be measured though not packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// IEEE binary64.
    F64,
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// Eight bits, four of exponent, no infinity (OCP).
    F8E4m3,
    /// Eight bits, five of exponent (OCP).
    F8E5m2,
    /// Eight bits of exponent and nothing else (OCP scale).
    F8E8m0,
    /// As [`F8E4m3`](Self::F8E4m3) with the exponent bias 8 and a single zero and NaN.
    F8E4m3Fnuz,
    /// As [`F8E5m2`](Self::F8E5m2) with the exponent bias 16 and a single zero and NaN.
    F8E5m2Fnuz,
}

impl WeightType {
    /// All types.
    pub const ALL: [Self; 9] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::F8E4m3,
        Self::F8E5m2,
        Self::F8E8m0,
        Self::F8E4m3Fnuz,
        Self::F8E5m2Fnuz,
    ];

    /// Its name, safetensors' where that has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F8E4m3 => "F8_E4M3",
            Self::F8E5m2 => "F8_E5M2",
            Self::F8E8m0 => "F8_E8M0",
            Self::F8E4m3Fnuz => "F8_E4M3FNUZ",
            Self::F8E5m2Fnuz => "F8_E5M2FNUZ",
        }
    }

    /// The type of that name.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|dtype| dtype.name() == name)
            .ok_or_else(|| {
                Error::invalid_argument(format!("{name:?} is not a floating-point type"))
            })
    }

    /// Bytes per weight.
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            _ => 1,
        }
    }

    /// The bit patterns of the weights above zero, infinity included: `first..=last`.
    ///
    /// In every type they are one run: after the zero, before the NaNs and the negative half.
    pub fn positive_patterns(self) -> (u64, u64) {
        match self {
            Self::F64 => (1, 0x7ff0_0000_0000_0000),
            Self::F32 => (1, 0x7f80_0000),
            Self::F16 => (1, 0x7c00),
            Self::Bf16 => (1, 0x7f80),
            Self::F8E4m3 => (1, 0x7e),
            Self::F8E5m2 => (1, 0x7c),
            Self::F8E8m0 => (0, 0xfe),
            Self::F8E4m3Fnuz | Self::F8E5m2Fnuz => (1, 0x7f),
        }
    }
}

/// Weights of one type, little-endian, in no particular alignment.
#[derive(Clone, Copy, Debug)]
pub struct Floats<'a> {
    bytes: &'a [u8],
    dtype: WeightType,
}

impl<'a> Floats<'a> {
    /// The weights in `bytes`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if the bytes end inside a weight.
    pub fn new(bytes: &'a [u8], dtype: WeightType) -> Result<Self> {
        if !bytes.len().is_multiple_of(dtype.size()) {
            return Err(Error::invalid_argument(format!(
                "{} bytes are not a whole number of {} weights",
                bytes.len(),
                dtype.name()
            )));
        }
        Ok(Self { bytes, dtype })
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Their type.
    pub fn dtype(&self) -> WeightType {
        self.dtype
    }

    /// Their bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The weights `start..end`.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn slice(&self, start: usize, end: usize) -> Self {
        let size = self.dtype.size();
        Self {
            bytes: &self.bytes[start * size..end * size],
            dtype: self.dtype,
        }
    }

    /// Writes the weights as float64, exact for every type, to the front of `out`.
    ///
    /// # Panics
    /// If `out` is shorter than the weights.
    pub fn widen_to_f64(&self, out: &mut [f64]) {
        let out = &mut out[..self.len()];
        match self.dtype {
            WeightType::F64 => convert(self.bytes, out, f64::from_le_bytes),
            WeightType::F32 => convert(self.bytes, out, |b| f32::from_le_bytes(b).into()),
            WeightType::F16 => convert(self.bytes, out, |b| f16::from_le_bytes(b).into()),
            WeightType::Bf16 => convert(self.bytes, out, |b| bf16::from_le_bytes(b).into()),
            small => {
                let values = Self::values_of_byte(small);
                convert(self.bytes, out, |[b]: [u8; 1]| values[b as usize].into());
            }
        }
    }

    /// Writes the weights as float32 to the front of `out`; exact for every type but float64,
    /// which is rounded.
    ///
    /// # Panics
    /// If `out` is shorter than the weights.
    pub fn widen_to_f32(&self, out: &mut [f32]) {
        let out = &mut out[..self.len()];
        match self.dtype {
            WeightType::F64 => convert(self.bytes, out, |b| f64::from_le_bytes(b) as f32),
            WeightType::F32 => convert(self.bytes, out, f32::from_le_bytes),
            WeightType::F16 => convert(self.bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            WeightType::Bf16 => convert(self.bytes, out, |b| {
                f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)
            }),
            small => {
                let values = Self::values_of_byte(small);
                convert(self.bytes, out, |[b]: [u8; 1]| values[b as usize]);
            }
        }
    }

    fn values_of_byte(dtype: WeightType) -> [f32; 256] {
        std::array::from_fn(|byte| decode_f8(byte as u8, dtype))
    }
}

fn convert<const SIZE: usize, T>(bytes: &[u8], out: &mut [T], value: impl Fn([u8; SIZE]) -> T) {
    for (slot, chunk) in out.iter_mut().zip(bytes.as_chunks::<SIZE>().0) {
        *slot = value(*chunk);
    }
}

/// The value of an eight-bit float; all of them are exact in float32.
fn decode_f8(byte: u8, dtype: WeightType) -> f32 {
    let (mantissa_bits, bias) = match dtype {
        WeightType::F8E8m0 => {
            return match byte {
                0xff => f32::NAN,
                exponent => 2f32.powi(i32::from(exponent) - 127),
            };
        }
        WeightType::F8E4m3 => (3, 7),
        WeightType::F8E4m3Fnuz => (3, 8),
        WeightType::F8E5m2 => (2, 15),
        WeightType::F8E5m2Fnuz => (2, 16),
        wide => unreachable!("{} has more than eight bits", wide.name()),
    };
    let magnitude = byte & 0x7f;
    match dtype {
        WeightType::F8E4m3Fnuz | WeightType::F8E5m2Fnuz if byte == 0x80 => return f32::NAN,
        WeightType::F8E4m3 if magnitude == 0x7f => return f32::NAN,
        WeightType::F8E5m2 if magnitude > 0x7c => return f32::NAN,
        WeightType::F8E5m2 if byte == 0x7c => return f32::INFINITY,
        WeightType::F8E5m2 if byte == 0xfc => return f32::NEG_INFINITY,
        _ => {}
    }
    let exponent = i32::from(magnitude >> mantissa_bits);
    let mantissa = f32::from(magnitude & ((1 << mantissa_bits) - 1));
    let unit = 2f32.powi(exponent.max(1) - bias - mantissa_bits);
    let hidden = if exponent > 0 {
        f32::from(1u8 << mantissa_bits)
    } else {
        0.0
    };
    let value = (hidden + mantissa) * unit;
    if byte & 0x80 == 0 { value } else { -value }
}

/// The weights with NaN and infinities replaced by zero, as bytes of the same type.
pub fn zero_non_finite(weights: Floats<'_>) -> Vec<u8> {
    let size = weights.dtype.size();
    let mut bytes = weights.bytes.to_vec();
    let mut wide = [0f64; 1024];
    for (piece, chunk) in bytes.chunks_mut(wide.len() * size).enumerate() {
        let start = piece * wide.len();
        let values = weights.slice(start, start + chunk.len() / size);
        values.widen_to_f64(&mut wide);
        for (pattern, value) in chunk.chunks_exact_mut(size).zip(wide) {
            if !value.is_finite() {
                // In the one type without a zero this is its smallest value.
                pattern.fill(0);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_values() {
        let value = |byte, dtype| decode_f8(byte, dtype);
        assert_eq!(value(0x7e, WeightType::F8E4m3), 448.0);
        assert_eq!(value(0x01, WeightType::F8E4m3), 2f32.powi(-9));
        assert_eq!(value(0x7b, WeightType::F8E5m2), 57344.0);
        assert_eq!(value(0x81, WeightType::F8E5m2), -(2f32.powi(-16)));
        assert_eq!(value(0x7f, WeightType::F8E4m3Fnuz), 240.0);
        assert_eq!(value(0x7f, WeightType::F8E5m2Fnuz), 57344.0);
        assert_eq!(value(127, WeightType::F8E8m0), 1.0);
    }

    #[test]
    fn positive_patterns_are_those_of_positive_values() {
        for dtype in WeightType::ALL {
            let (first, last) = dtype.positive_patterns();
            let bits = 8 * dtype.size() as u32;
            // Every pattern of the small types; of the wide ones those around the borders.
            let patterns: Vec<u64> = if bits <= 16 {
                (0..1 << bits).collect()
            } else {
                let sign = 1u64 << (bits - 1);
                let mask = u64::MAX >> (64 - bits);
                [
                    0,
                    1,
                    2,
                    last - 1,
                    last,
                    last + 1,
                    sign - 1,
                    sign,
                    sign + 1,
                    mask,
                ]
                .into_iter()
                .collect()
            };
            for pattern in patterns {
                let bytes = pattern.to_le_bytes();
                let floats = Floats::new(&bytes[..dtype.size()], dtype).unwrap();
                let mut value = [0f64];
                floats.widen_to_f64(&mut value);
                assert_eq!(
                    (first..=last).contains(&pattern),
                    value[0] > 0.0,
                    "{} {pattern:#x}",
                    dtype.name()
                );
            }
        }
    }

    #[test]
    fn only_what_is_not_finite_becomes_zero() {
        let values = [
            1.5f32,
            f32::NAN,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            -2.0,
        ];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let cleaned = zero_non_finite(Floats::new(&bytes, WeightType::F32).unwrap());
        let expected: Vec<u8> = [1.5f32, 0.0, -0.0, 0.0, 0.0, -2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        assert_eq!(cleaned, expected);
    }

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for dtype in WeightType::ALL {
            assert_eq!(WeightType::from_name(dtype.name()).unwrap(), dtype);
        }
        assert!(WeightType::from_name("I64").is_err());
        assert!(Floats::new(&[0; 7], WeightType::F32).is_err());
    }
}
