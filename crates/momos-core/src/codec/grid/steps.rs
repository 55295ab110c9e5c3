//! Steps of their own for rows and columns: the step of the tensor times powers of 2^(1/4).
//!
//! Where errors of some rows matter more than those of others, each gets a step in inverse
//! proportion to the square root of that, so all add as much to what the error costs. That takes
//! `log2(arithmetic mean / geometric mean) / 2` bits per value less than one step does at the same
//! cost, at high rates.

use crate::codec::entropy::model::AdaptiveBit;
use crate::codec::entropy::range_coder::BitCoder;

/// Number of codes.
pub const CODES: u8 = 64;
/// The code of the tensor's own step.
const UNIT: u8 = 32;
/// Bits that a code takes, about.
const BITS_PER_CODE: f64 = 4.0;
/// The gain, in bits per value, below which steps of their own are not worth their trouble.
const LEAST_GAIN: f64 = 0.005;
/// Adaptive bits of codes adapt at least so fast.
const LIMIT: u16 = 60;

/// 2^(1/4), 2^(1/2), 2^(3/4).
const QUARTERS: [f64; 4] = [
    1.0,
    1.189_207_115_002_721,
    std::f64::consts::SQRT_2,
    1.681_792_830_507_429,
];

/// The steps of a tensor's rows and columns, in coded order, beside its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// The code of each row; none if all have the tensor's step.
    pub rows: Vec<u8>,
    /// The code of each column; none if all have the tensor's step.
    pub columns: Vec<u8>,
}

impl Steps {
    /// Whether all values have the tensor's step.
    pub fn are_one(&self) -> bool {
        self.rows.is_empty() && self.columns.is_empty()
    }

    /// The step of every value: `step`, times that of its row, times that of its column.
    pub fn scale(&self, step: f64) -> Scale {
        Scale {
            step,
            rows: self.rows.iter().map(|&code| multiple(code)).collect(),
            columns: self.columns.iter().map(|&code| multiple(code)).collect(),
        }
    }

    /// Codes all of them.
    pub fn code(&mut self, coder: &mut impl BitCoder) {
        for codes in [&mut self.rows, &mut self.columns] {
            let mut model = CodeModel::new();
            for code in codes {
                *code = model.code(coder, *code);
            }
        }
    }
}

/// The step of every value of a tensor.
#[derive(Clone, Debug)]
pub struct Scale {
    step: f64,
    rows: Vec<f64>,
    columns: Vec<f64>,
}

impl Scale {
    /// The step of the value in a row and a column.
    #[inline]
    pub fn step(&self, row: usize, column: usize) -> f64 {
        self.step * self.row(row) * self.column(column)
    }

    /// The step of a row as a multiple of the tensor's.
    #[inline]
    pub fn row(&self, row: usize) -> f64 {
        self.rows.get(row).copied().unwrap_or(1.0)
    }

    /// The step of a column as a multiple of the tensor's.
    #[inline]
    pub fn column(&self, column: usize) -> f64 {
        self.columns.get(column).copied().unwrap_or(1.0)
    }
}

/// The multiple of the tensor's step that a code stands for.
fn multiple(code: u8) -> f64 {
    let quarters = i32::from(code) - i32::from(UNIT);
    let power = f64::from_bits(((1023 + quarters.div_euclid(4)) as u64) << 52);
    power * QUARTERS[quarters.rem_euclid(4) as usize]
}

/// The codes for squared errors that matter so much each, `per_code` values having each; none if
/// they would not pay.
pub fn codes(importance: &[f64], per_code: usize) -> Vec<u8> {
    if gain(importance) < LEAST_GAIN + BITS_PER_CODE / per_code as f64 {
        return Vec::new();
    }
    let mean = mean(importance);
    importance.iter().map(|&each| code(mean / each)).collect()
}

/// The arithmetic mean.
pub fn mean(importance: &[f64]) -> f64 {
    let mut sum = 0.0;
    for each in importance {
        sum += each;
    }
    sum / importance.len() as f64
}

/// About the bits per value that steps of their own save at high rates.
pub fn gain(importance: &[f64]) -> f64 {
    let mean = mean(importance);
    if !(mean.is_normal() && mean > 0.0) {
        return 0.0;
    }
    let mut sum = 0.0;
    for each in importance {
        // As far as codes reach.
        sum += log2((mean / each).clamp(1.0 / 65536.0, 65536.0));
    }
    0.5 * sum / importance.len() as f64
}

/// About the logarithm, linear between powers of two: the same on every machine.
fn log2(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | 1023 << 52);
    f64::from(exponent) + (mantissa - 1.0)
}

/// The code nearest to the square root of a ratio.
fn code(ratio: f64) -> u8 {
    if !ratio.is_normal() {
        return if ratio > 1.0 { CODES - 1 } else { 0 };
    }
    let bits = ratio.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | 1023 << 52);
    let quarters =
        2 * exponent + i32::from(mantissa >= QUARTERS[1]) + i32::from(mantissa >= QUARTERS[3]);
    (quarters + i32::from(UNIT)).clamp(0, i32::from(CODES) - 1) as u8
}

/// Codes of steps, coded one after another: the difference of each to the one before as six adaptive
/// bits, the highest first, each in the context of those before it.
#[derive(Debug)]
struct CodeModel {
    bits: Vec<AdaptiveBit>,
    before: u8,
}

impl CodeModel {
    fn new() -> Self {
        Self {
            bits: vec![AdaptiveBit::new(); usize::from(CODES)],
            before: UNIT,
        }
    }

    fn code(&mut self, coder: &mut impl BitCoder, code: u8) -> u8 {
        // The difference to the code before, modulo their number.
        let difference = code.wrapping_sub(self.before).wrapping_add(UNIT) % CODES;
        let mut node = 1usize;
        while node < usize::from(CODES) {
            let depth = node.ilog2();
            let adaptive = &mut self.bits[node];
            let bit = coder.code(difference >> (5 - depth) & 1 == 1, adaptive.one());
            adaptive.update(bit, LIMIT);
            node = 2 * node + usize::from(bit);
        }
        let difference = (node - usize::from(CODES)) as u8;
        self.before = difference.wrapping_add(self.before).wrapping_sub(UNIT) % CODES;
        self.before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::entropy::range_coder::{RangeDecoder, RangeEncoder};

    #[test]
    fn codes_are_the_nearest_quarter_octave() {
        for quarters in -32i32..32 {
            for off in [-0.45, 0.0, 0.45] {
                let ratio = 2f64.powf((f64::from(quarters) + off) / 2.0);
                let expected = (quarters + 32) as u8;
                assert_eq!(code(ratio), expected, "{quarters} {off}");
                assert!((multiple(expected).log2() * 4.0 - f64::from(quarters)).abs() < 1e-9);
            }
        }
        assert_eq!(code(1e-300), 0);
        assert_eq!(code(f64::INFINITY), CODES - 1);
    }

    #[test]
    fn steps_of_their_own_are_for_where_they_pay() {
        assert!(codes(&[1.0; 50], 1000).is_empty());
        let uneven: Vec<f64> = (0..50)
            .map(|i| if i % 2 == 0 { 1.0 } else { 64.0 })
            .collect();
        // (log2 of 32.5 over 8) / 2 is 1.01 bits per value.
        assert!((gain(&uneven) - 1.01).abs() < 0.05);
        assert!(codes(&uneven, 3).is_empty());
        let codes = codes(&uneven, 300);
        assert_eq!(codes[0] - codes[1], 12);
    }

    #[test]
    fn codes_survive_coding() {
        let mut steps = Steps {
            rows: (0..200).map(|i| (i * i % 64) as u8).collect(),
            columns: vec![31; 40],
        };
        let expected = steps.clone();
        let mut encoder = RangeEncoder::new();
        steps.code(&mut encoder);
        let bytes = encoder.finish();
        let mut decoded = Steps {
            rows: vec![0; 200],
            columns: vec![0; 40],
        };
        let mut decoder = RangeDecoder::new(&bytes);
        decoded.code(&mut decoder);
        decoder.finish().unwrap();
        assert_eq!(decoded, expected);
    }
}
