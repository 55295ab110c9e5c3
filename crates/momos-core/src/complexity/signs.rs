//! The signs of weights as bits: packed, and counted in blocks of twelve.
//!
//! A weight's bit is `w > 0`, so NaN, both zeros and everything negative give 0. The bits of
//! several tensors form one stream (Mosaic-of-Motifs measures the concatenation of all trainable
//! parameters): blocks run on across the borders of tensors, and the last incomplete block of the
//! whole stream is ignored.

use super::floats::Floats;
use super::tasks;
use crate::simd::Available;
use crate::simd::bit_planes::{Patterns, pack_patterns};
use crate::{Monitor, Result};

/// Bits per block.
pub const BLOCK_BITS: usize = 12;

/// Number of distinct blocks.
pub const KEYS: usize = 1 << BLOCK_BITS;

/// Weights whose bits are packed before they are counted: a whole number of words and of blocks,
/// small enough that the words stay in the first-level cache.
const PIECE: usize = 64 * BLOCK_BITS * 4;

/// Weights counted at a time in 16-bit counters: a whole number of pieces, fewer blocks than such
/// a counter can hold.
const CHUNK: usize = (u16::MAX as usize * BLOCK_BITS) / PIECE * PIECE;

/// Packs the bits of the weights: weight `i` at bit `i % 64` of word `i / 64`, the rest of the
/// last word 0.
///
/// # Panics
/// Unless there is one word per 64 weights, including the last, partial one.
pub fn pack(weights: Floats<'_>, words: &mut [u64]) {
    let (first, last) = weights.dtype().positive_patterns();
    let size = weights.dtype().size();
    let patterns = Patterns { size, first, last };
    pack_patterns(Available::best(), weights.bytes(), patterns, words);
}

/// Counts the blocks of twelve in a stream of signs, given tensor by tensor.
#[derive(Clone, Debug)]
pub struct SignCounter {
    counts: Box<[u64; KEYS]>,
    carry: u16,
    carried: usize,
    bits: u64,
}

impl Default for SignCounter {
    fn default() -> Self {
        Self::new()
    }
}

impl SignCounter {
    /// A counter of an empty stream.
    pub fn new() -> Self {
        Self {
            counts: Box::new([0; KEYS]),
            carry: 0,
            carried: 0,
            bits: 0,
        }
    }

    /// Occurrences of every complete block, by key.
    pub fn counts(&self) -> &[u64; KEYS] {
        &self.counts
    }

    /// Bits given so far; the last `bits % 12` are in no block.
    pub fn bits(&self) -> u64 {
        self.bits
    }

    /// Appends the signs of the weights, using the threads of the current rayon pool. Reports
    /// weights to the monitor.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Interrupted`]; the counter is unusable after that.
    pub fn update(&mut self, weights: Floats<'_>, monitor: &Monitor) -> Result<()> {
        let length = weights.len();
        let head = match self.carried {
            0 => 0,
            carried => length.min(BLOCK_BITS - carried),
        };
        self.append_bits(weights.slice(0, head));
        let body = (length - head) / BLOCK_BITS * BLOCK_BITS;
        self.count_blocks(weights.slice(head, head + body), monitor)?;
        self.append_bits(weights.slice(head + body, length));
        self.bits += length as u64;
        monitor.advance((length - body) as u64);
        Ok(())
    }

    /// Appends fewer than twelve signs to the unfinished block.
    fn append_bits(&mut self, weights: Floats<'_>) {
        let mut word = [0];
        pack(weights, &mut word[..weights.len().div_ceil(64)]);
        self.carry |= (word[0] as u16) << self.carried;
        self.carried += weights.len();
        if self.carried == BLOCK_BITS {
            self.counts[self.carry as usize] += 1;
            (self.carry, self.carried) = (0, 0);
        }
    }

    /// Counts whole blocks.
    fn count_blocks(&mut self, weights: Floats<'_>, monitor: &Monitor) -> Result<()> {
        let counts = tasks::fold(
            weights.len().div_ceil(CHUNK),
            || Box::new([0; KEYS]),
            |counts, index| {
                let start = index * CHUNK;
                let chunk = weights.slice(start, weights.len().min(start + CHUNK));
                count_chunk(chunk, counts, monitor)
            },
            |_| (),
            |left, right| tasks::add(&mut left[..], &right[..]),
        )?;
        tasks::add(&mut self.counts[..], &counts[..]);
        Ok(())
    }
}

/// Counts the blocks of at most [`CHUNK`] weights, a multiple of twelve.
fn count_chunk(weights: Floats<'_>, counts: &mut [u64; KEYS], monitor: &Monitor) -> Result<()> {
    monitor.check()?;
    // Half the size of wider counters, so that they leave the first-level cache to the weights.
    let mut small = [0u16; KEYS];
    let mut words = [0u64; PIECE / 64];
    let pieces = weights.len() / PIECE;
    for piece in 0..pieces {
        let weights = weights.slice(piece * PIECE, (piece + 1) * PIECE);
        pack(weights, &mut words);
        count_words(&words, &mut small);
    }
    let rest = weights.slice(pieces * PIECE, weights.len());
    let words = &mut words[..rest.len().div_ceil(64)];
    pack(rest, words);
    for block in 0..rest.len() / BLOCK_BITS {
        small[key_at(words, block * BLOCK_BITS)] += 1;
    }
    tasks::add(&mut counts[..], &small);
    monitor.advance(weights.len() as u64);
    Ok(())
}

/// Counts the 16 blocks in every three words.
#[inline]
fn count_words(words: &[u64; PIECE / 64], counts: &mut [u16; KEYS]) {
    const MASK: u64 = KEYS as u64 - 1;
    for &[a, b, c] in words.as_chunks::<3>().0 {
        for shift in [0, 12, 24, 36, 48] {
            counts[(a >> shift & MASK) as usize] += 1;
        }
        counts[(a >> 60 | (b << 4 & MASK)) as usize] += 1;
        for shift in [8, 20, 32, 44] {
            counts[(b >> shift & MASK) as usize] += 1;
        }
        counts[(b >> 56 | (c << 8 & MASK)) as usize] += 1;
        for shift in [4, 16, 28, 40, 52] {
            counts[(c >> shift & MASK) as usize] += 1;
        }
    }
}

/// The block that begins at that bit.
fn key_at(words: &[u64], bit: usize) -> usize {
    let (word, shift) = (bit / 64, bit % 64);
    let low = words[word] >> shift;
    let high = match shift {
        0..=52 => 0,
        _ => words[word + 1] << (64 - shift),
    };
    (low | high) as usize & (KEYS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complexity::floats::WeightType;
    use proptest::prelude::*;

    /// Counts by the definition, bit by bit.
    fn reference(bits: &[bool]) -> Vec<u64> {
        let mut counts = vec![0; KEYS];
        for block in bits.chunks_exact(BLOCK_BITS) {
            let key = block
                .iter()
                .enumerate()
                .map(|(index, &bit)| usize::from(bit) << index)
                .sum::<usize>();
            counts[key] += 1;
        }
        counts
    }

    fn noise(length: usize) -> Vec<f32> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state as i32) as f32
            })
            .collect()
    }

    fn bytes(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    #[test]
    fn more_than_one_chunk_on_any_number_of_threads() {
        let values = noise(3 * CHUNK + PIECE + 1234);
        let bits: Vec<bool> = values.iter().map(|&value| value > 0.0).collect();
        let expected = reference(&bits);
        let bytes = bytes(&values);
        let weights = Floats::new(&bytes, WeightType::F32).unwrap();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let monitor = Monitor::new();
            let mut counter = SignCounter::new();
            pool.install(|| counter.update(weights, &monitor)).unwrap();
            assert_eq!(counter.counts()[..], expected);
            assert_eq!(counter.bits(), values.len() as u64);
            assert_eq!(monitor.done(), values.len() as u64);
        }
    }

    #[test]
    fn a_full_chunk_of_one_block_does_not_overflow() {
        let bytes = vec![0; 4 * 2 * CHUNK];
        let mut counter = SignCounter::new();
        counter
            .update(
                Floats::new(&bytes, WeightType::F32).unwrap(),
                &Monitor::new(),
            )
            .unwrap();
        assert_eq!(counter.counts()[0], (2 * CHUNK / BLOCK_BITS) as u64);
    }

    #[test]
    fn a_cancelled_count_stops() {
        let bytes = vec![0; 4 * BLOCK_BITS];
        let monitor = Monitor::new();
        monitor.cancel();
        let weights = Floats::new(&bytes, WeightType::F32).unwrap();
        assert!(SignCounter::new().update(weights, &monitor).is_err());
    }

    proptest! {
        #[test]
        fn tensors_form_one_stream(lengths in prop::collection::vec(0usize..2500, 0..8)) {
            let values = noise(lengths.iter().sum());
            let bits: Vec<bool> = values.iter().map(|&value| value > 0.0).collect();
            let bytes = bytes(&values);
            let weights = Floats::new(&bytes, WeightType::F32).unwrap();
            let mut counter = SignCounter::new();
            let mut start = 0;
            for length in lengths {
                let monitor = Monitor::new();
                counter.update(weights.slice(start, start + length), &monitor).unwrap();
                prop_assert_eq!(monitor.done(), length as u64);
                start += length;
            }
            prop_assert_eq!(&counter.counts()[..], reference(&bits));
        }

        #[test]
        fn packed_bits_are_the_signs_of_every_type(
            patterns in prop::collection::vec(any::<u64>(), 0..200),
            which in 0..WeightType::ALL.len(),
        ) {
            let dtype = WeightType::ALL[which];
            let bytes: Vec<u8> = patterns
                .iter()
                .flat_map(|pattern| pattern.to_le_bytes()[..dtype.size()].to_vec())
                .collect();
            let weights = Floats::new(&bytes, dtype).unwrap();
            let mut values = vec![0.0; weights.len()];
            weights.widen_to_f64(&mut values);
            let mut words = vec![0; weights.len().div_ceil(64)];
            pack(weights, &mut words);
            for index in 0..64 * words.len() {
                let bit = words[index / 64] >> (index % 64) & 1 == 1;
                prop_assert_eq!(bit, values.get(index).is_some_and(|&value| value > 0.0));
            }
        }
    }
}
