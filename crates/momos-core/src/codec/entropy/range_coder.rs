//! An adaptive binary range coder (Martin, 1979) with carries, 64 bits of state and probabilities
//! of 16 bits.
//!
//! A coded sequence is a number in [0, 1), in base 2^32. The encoder keeps the interval of numbers
//! that begin with the bits so far; each bit takes the share of its probability. Statistical models
//! talk to a [`BitCoder`], so one function both encodes and decodes.

use std::hint::select_unpredictable;
use std::sync::LazyLock;

use super::model::ln;
use crate::error::{Error, Result};

/// Bits of a probability.
pub const PROBABILITY_BITS: u32 = 16;

/// The interval is widened by 32 bits whenever it is shorter. That is seldom, so the branch is
/// predictable.
const SHORTEST_RANGE: u64 = 1 << 32;

/// Bytes of the decoder's state that lie beyond the encoder's last word, which are zero.
const IMPLIED_BYTES: usize = 4;

/// Codes bits by their probabilities: the encoder, the decoder, or something that only counts.
pub trait BitCoder {
    /// Codes one bit; `one` is the probability that it is set, in units of 2^-16, from 1 to 65535.
    ///
    /// An encoder takes `bit` and returns it; a decoder ignores `bit` and returns what it reads.
    fn code(&mut self, bit: bool, one: u16) -> bool;

    /// Codes a value below `count` (at most 2^16), all being equally probable.
    fn code_below(&mut self, value: u32, count: u32) -> u32;

    /// Codes the low `width` bits (at most 16) of `value`, all values being equally probable.
    #[inline]
    fn code_uniform(&mut self, value: u32, width: u32) -> u32 {
        self.code_below(value, 1 << width)
    }
}

/// Encodes bits into bytes.
#[derive(Debug)]
pub struct RangeEncoder {
    bytes: Vec<u8>,
    low: u64,
    range: u64,
}

impl Default for RangeEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl RangeEncoder {
    /// An encoder of nothing yet.
    pub fn new() -> Self {
        Self {
            bytes: Vec::new(),
            low: 0,
            range: u64::MAX,
        }
    }

    /// The bytes: as many as the decoder consumes, but for the last four, which would be zero.
    pub fn finish(mut self) -> Vec<u8> {
        // The interval is at least 2^32 long, so a multiple of 2^32 lies within it.
        self.raise(SHORTEST_RANGE - 1);
        self.shift();
        self.bytes
    }

    fn shift(&mut self) {
        self.bytes
            .extend_from_slice(&((self.low >> 32) as u32).to_be_bytes());
        self.low <<= 32;
    }

    #[inline]
    fn raise(&mut self, by: u64) {
        let (low, carry) = self.low.overflowing_add(by);
        self.low = low;
        if carry {
            self.carry();
        }
    }

    #[cold]
    fn carry(&mut self) {
        // The number stays below 1, so some byte before is not 255.
        for byte in self.bytes.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
    }

    #[inline]
    fn normalise(&mut self) {
        if self.range < SHORTEST_RANGE {
            self.shift();
            self.range <<= 32;
        }
    }
}

impl BitCoder for RangeEncoder {
    #[inline]
    fn code(&mut self, bit: bool, one: u16) -> bool {
        let share = share(self.range, one);
        if bit {
            self.range = share;
        } else {
            self.raise(share);
            self.range -= share;
        }
        self.normalise();
        bit
    }

    #[inline]
    fn code_below(&mut self, value: u32, count: u32) -> u32 {
        debug_assert!(count <= 1 << 16 && value < count);
        self.range /= u64::from(count);
        self.raise(self.range * u64::from(value));
        self.normalise();
        value
    }
}

/// Decodes what [`RangeEncoder`] wrote.
///
/// Any bytes decode to some bits. Beyond the end zeros are read; [`finish`](Self::finish) says
/// whether the bytes were exactly those of an encoder.
#[derive(Clone, Debug)]
pub struct RangeDecoder<'a> {
    bytes: &'a [u8],
    position: usize,
    /// The number's distance from the low end of the interval.
    code: u64,
    range: u64,
}

impl<'a> RangeDecoder<'a> {
    /// A decoder at the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self {
            bytes,
            position: 0,
            code: 0,
            range: u64::MAX,
        };
        decoder.shift();
        decoder.shift();
        decoder
    }

    #[inline]
    fn shift(&mut self) {
        let word = match self.bytes.get(self.position..self.position + 4) {
            Some(word) => u32::from_be_bytes(word.try_into().expect("four bytes")),
            None => self.last_word(),
        };
        self.code = self.code << 32 | u64::from(word);
        self.position += 4;
    }

    /// What is left of the bytes, and zeros.
    #[cold]
    fn last_word(&self) -> u32 {
        let mut word = [0; 4];
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        word[..rest.len()].copy_from_slice(rest);
        u32::from_be_bytes(word)
    }

    #[inline]
    fn normalise(&mut self) {
        if self.range < SHORTEST_RANGE {
            self.shift();
            self.range <<= 32;
        }
    }

    /// Whether more was decoded than the bytes hold, so that going on is in vain.
    #[inline]
    pub fn overrun(&self) -> bool {
        self.position > self.bytes.len() + IMPLIED_BYTES
    }

    /// Checks that all bytes were used, and no more.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InsufficientData`] if bytes were missing,
    /// [`crate::ErrorKind::Corruption`] if some are left over.
    pub fn finish(&self) -> Result<()> {
        if self.overrun() {
            return Err(Error::insufficient_data("a coded stream ends early"));
        }
        if self.position < self.bytes.len() + IMPLIED_BYTES {
            return Err(Error::corruption("a coded stream has bytes left over"));
        }
        Ok(())
    }
}

impl BitCoder for RangeDecoder<'_> {
    #[inline]
    fn code(&mut self, _bit: bool, one: u16) -> bool {
        let share = share(self.range, one);
        let bit = self.code < share;
        // Bits are close to random, so a branch would be mispredicted every other time.
        self.code = select_unpredictable(bit, self.code, self.code.wrapping_sub(share));
        self.range = select_unpredictable(bit, share, self.range - share);
        self.normalise();
        bit
    }

    #[inline]
    fn code_below(&mut self, _value: u32, count: u32) -> u32 {
        debug_assert!(count <= 1 << 16);
        self.range /= u64::from(count);
        // What is left over of the range belongs to no value; only damaged bytes lie there.
        let value = (self.code / self.range).min(u64::from(count) - 1);
        self.code = (self.code - value * self.range).min(self.range - 1);
        self.normalise();
        value as u32
    }
}

/// The part of the range that a set bit takes: at least 1, and less than the range.
#[inline]
fn share(range: u64, one: u16) -> u64 {
    debug_assert!(one > 0);
    (range >> PROBABILITY_BITS) * u64::from(one)
}

/// Counts the bits that coding would take, without coding.
///
/// Encoders choose by these costs, so they must be equal everywhere; see [`super::model`].
#[derive(Clone, Debug)]
pub struct CostCounter {
    /// Bits so far.
    pub bits: f64,
    costs: &'static [f32; COST_STEPS],
}

const COST_STEPS: usize = 4096;

/// Bits that a symbol takes, by steps of its probability.
static COSTS: LazyLock<[f32; COST_STEPS]> = LazyLock::new(|| {
    std::array::from_fn(|step| {
        let probability = (step as f64 + 0.5) / COST_STEPS as f64;
        (-ln(probability) / std::f64::consts::LN_2) as f32
    })
});

impl Default for CostCounter {
    fn default() -> Self {
        Self::new()
    }
}

impl CostCounter {
    /// A counter at 0.
    pub fn new() -> Self {
        Self {
            bits: 0.0,
            costs: &COSTS,
        }
    }
}

impl BitCoder for CostCounter {
    #[inline]
    fn code(&mut self, bit: bool, one: u16) -> bool {
        let probability = if bit { one } else { one.wrapping_neg() };
        self.bits += f64::from(self.costs[usize::from(probability) >> 4]);
        bit
    }

    #[inline]
    fn code_below(&mut self, value: u32, count: u32) -> u32 {
        self.bits += ln(f64::from(count)) / std::f64::consts::LN_2;
        value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    /// A bit with its probability, or a value of that many equally probable bits.
    #[derive(Clone, Debug)]
    enum Symbol {
        Bit(bool, u16),
        Uniform(u32, u32),
        Below(u32, u32),
    }

    fn symbols() -> impl Strategy<Value = Vec<Symbol>> {
        let bit = (
            any::<bool>(),
            prop_oneof![Just(1u16), Just(u16::MAX), 1..=u16::MAX],
        );
        let uniform = (any::<u32>(), 0u32..=16);
        let below = (any::<u32>(), 1u32..=1 << 16);
        proptest::collection::vec(
            prop_oneof![
                bit.prop_map(|(bit, one)| Symbol::Bit(bit, one)),
                below.prop_map(|(value, count)| Symbol::Below(value % count, count)),
                uniform
                    .prop_map(|(value, width)| Symbol::Uniform(value & ((1 << width) - 1), width)),
            ],
            0..400,
        )
    }

    fn code_all(coder: &mut impl BitCoder, symbols: &[Symbol]) -> Vec<u32> {
        symbols
            .iter()
            .map(|symbol| match *symbol {
                Symbol::Bit(bit, one) => u32::from(coder.code(bit, one)),
                Symbol::Uniform(value, width) => coder.code_uniform(value, width),
                Symbol::Below(value, count) => coder.code_below(value, count),
            })
            .collect()
    }

    fn cost(symbol: &Symbol) -> f64 {
        match *symbol {
            Symbol::Bit(true, one) => 16.0 - f64::from(one).log2(),
            Symbol::Bit(false, one) => 16.0 - (65536.0 - f64::from(one)).log2(),
            Symbol::Uniform(_, width) => f64::from(width),
            Symbol::Below(_, count) => f64::from(count).log2(),
        }
    }

    #[test]
    fn the_counter_is_near_the_cost() {
        let symbols = [
            Symbol::Bit(true, 9000),
            Symbol::Bit(false, 9000),
            Symbol::Below(3, 77),
        ];
        let mut counter = CostCounter::new();
        code_all(&mut counter, &symbols);
        let expected: f64 = symbols.iter().map(cost).sum();
        assert!((counter.bits - expected).abs() < 0.02, "{}", counter.bits);
    }

    proptest! {
        #[test]
        fn decoding_inverts_encoding_near_the_cost(symbols in symbols()) {
            let mut encoder = RangeEncoder::new();
            let sent = code_all(&mut encoder, &symbols);
            let bytes = encoder.finish();
            let cost: f64 = symbols.iter().map(cost).sum();
            prop_assert!(bytes.len() as f64 <= cost / 8.0 * 1.0001 + 8.0);
            let mut decoder = RangeDecoder::new(&bytes);
            prop_assert_eq!(code_all(&mut decoder, &symbols), sent);
            prop_assert!(decoder.finish().is_ok());
        }

        #[test]
        fn any_bytes_decode(
            symbols in symbols(),
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut decoder = RangeDecoder::new(&bytes);
            code_all(&mut decoder, &symbols);
            let _ = decoder.finish();
        }
    }

    #[test]
    fn carries_run_through_bytes_of_255() {
        // Bits of probability 2^-16 that are not set keep the number just below a carry.
        let symbols: Vec<Symbol> = (0..20_000)
            .map(|i| Symbol::Bit(i % 5000 == 4999, if i % 7 == 0 { 65535 } else { 1 }))
            .collect();
        let mut encoder = RangeEncoder::new();
        let sent = code_all(&mut encoder, &symbols);
        let bytes = encoder.finish();
        assert!(bytes.contains(&255));
        let mut decoder = RangeDecoder::new(&bytes);
        assert_eq!(code_all(&mut decoder, &symbols), sent);
    }

    #[test]
    fn missing_and_left_over_bytes_are_told_apart() {
        let symbols: Vec<Symbol> = (0..4000)
            .map(|i| Symbol::Uniform(i * 37 % 256, 8))
            .collect();
        let mut encoder = RangeEncoder::new();
        code_all(&mut encoder, &symbols);
        let mut bytes = encoder.finish();
        let finish = |bytes: &[u8]| {
            let mut decoder = RangeDecoder::new(bytes);
            code_all(&mut decoder, &symbols);
            decoder.finish().unwrap_err().kind()
        };
        assert_eq!(
            finish(&bytes[..bytes.len() - 1]),
            ErrorKind::InsufficientData
        );
        assert_eq!(finish(&[]), ErrorKind::InsufficientData);
        bytes.push(0);
        assert_eq!(finish(&bytes), ErrorKind::Corruption);
    }
}
