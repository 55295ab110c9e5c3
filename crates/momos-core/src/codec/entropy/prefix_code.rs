//! Motif indices as a canonical prefix code shared by a whole model.
//!
//! Frequent motifs get short codes (Huffman, 1952). The order of motifs in an archive is free, so
//! they are sorted by code length; then the code is known from the *number* of motifs of each
//! length alone, a handful of integers whatever `k` is. A Huffman code is never longer than the
//! `ceil(log2 k)` bits per index of the paper's bound, and within a fraction of a bit of the
//! zero-order entropy.

use super::bits::{BitReader, BitWriter};
use crate::error::{Error, Result};
use crate::limits::{MAX_CODE_LENGTH, MAX_MOTIFS};

/// Leading bits of the window that are looked up at once.
const LOOKUP_BITS: u32 = 12;

/// A canonical prefix code over the symbols `0..k`, sorted by code length.
///
/// Codes of equal length are consecutive integers, and a longer code continues where the shorter
/// ones ended (as in RFC 1951, section 3.2.2). The code is complete: every sequence of bits is a
/// sequence of codes. With a single symbol its code has no bits.
#[derive(Clone, Debug)]
pub struct PrefixCode {
    symbols: usize,
    /// One entry per code length in use, ascending.
    classes: Vec<Class>,
    /// For each value of the leading bits, the first class that a code with those bits can have.
    lookup: Vec<u8>,
}

/// The codes of one length.
#[derive(Clone, Copy, Debug)]
struct Class {
    length: u32,
    first_symbol: u64,
    /// The first code, right-aligned.
    first_code: u64,
    /// The end of the codes, left-aligned in 64 bits; `None` where that is 2^64.
    end: Option<u64>,
}

impl PrefixCode {
    /// The code with `counts[l]` symbols of code length `l`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corruption`] if a length is over [`MAX_CODE_LENGTH`], the symbols are
    /// over [`MAX_MOTIFS`], or the code is not complete.
    pub fn from_length_counts(counts: &[u64]) -> Result<Self> {
        if counts.len() > MAX_CODE_LENGTH as usize + 1 {
            return Err(Error::corruption(format!(
                "a code length is over {MAX_CODE_LENGTH} bits"
            )));
        }
        let symbols = counts
            .iter()
            .try_fold(0u64, |total, &count| total.checked_add(count))
            .filter(|&total| total <= MAX_MOTIFS as u64)
            .ok_or_else(|| Error::corruption("the code has too many symbols"))?;
        let mut code = Self {
            symbols: symbols as usize,
            classes: Vec::new(),
            lookup: Vec::new(),
        };
        if symbols == 0 || (symbols == 1 && counts.first() == Some(&1)) {
            return Ok(code);
        }
        let incomplete = || Error::corruption("the lengths do not form a complete prefix code");
        if counts[0] != 0 {
            return Err(incomplete());
        }
        let (mut next_code, mut next_symbol) = (0u64, 0u64);
        for (length, &count) in (0u32..).zip(counts).skip(1) {
            // The next code stays within MAX_CODE_LENGTH + 1 bits, which the check below enforces.
            next_code <<= 1;
            if count == 0 {
                continue;
            }
            let end = next_code + count;
            if end > 1 << length {
                return Err(incomplete());
            }
            code.classes.push(Class {
                length,
                first_symbol: next_symbol,
                first_code: next_code,
                end: (end < 1 << length).then(|| end << (64 - length)),
            });
            next_code = end;
            next_symbol += count;
        }
        let complete = code.classes.last().is_some_and(|last| last.end.is_none());
        // Lengths after the one that completes the code would have found no code left.
        if !complete {
            return Err(incomplete());
        }
        code.lookup = (0..1u64 << LOOKUP_BITS)
            .map(|prefix| {
                let window = prefix << (64 - LOOKUP_BITS);
                code.classes
                    .iter()
                    .position(|class| class.end.is_none_or(|end| window < end))
                    .expect("the last class has no end") as u8
            })
            .collect();
        Ok(code)
    }

    /// Number of symbols.
    pub fn symbols(&self) -> usize {
        self.symbols
    }

    /// Bits of the longest code.
    pub fn longest(&self) -> u32 {
        self.classes.last().map_or(0, |class| class.length)
    }

    /// Bits of the code of `symbol`.
    fn class_of(&self, symbol: u32) -> &Class {
        let after = self
            .classes
            .partition_point(|class| class.first_symbol <= u64::from(symbol));
        &self.classes[after - 1]
    }

    /// Bits that all of `symbols` take; each must be below [`symbols`](Self::symbols).
    pub fn cost(&self, symbols: &[u32]) -> u64 {
        if self.classes.is_empty() {
            return 0;
        }
        symbols
            .iter()
            .map(|&symbol| u64::from(self.class_of(symbol).length))
            .sum()
    }

    /// Appends the codes of `symbols`; each must be below [`symbols`](Self::symbols).
    pub fn encode(&self, symbols: &[u32], writer: &mut BitWriter) {
        if self.classes.is_empty() {
            return;
        }
        for &symbol in symbols {
            let class = self.class_of(symbol);
            let code = class.first_code + (u64::from(symbol) - class.first_symbol);
            writer.write(code, class.length);
        }
    }

    /// Reads one symbol for every slot of `out`.
    pub fn decode(&self, reader: &mut BitReader<'_>, out: &mut [u32]) {
        if self.classes.is_empty() {
            out.fill(0);
            return;
        }
        for slot in out {
            let window = reader.peek();
            let mut at = self.lookup[(window >> (64 - LOOKUP_BITS)) as usize] as usize;
            while self.classes[at].end.is_some_and(|end| window >= end) {
                at += 1;
            }
            let class = &self.classes[at];
            let code = window >> (64 - class.length);
            *slot = (class.first_symbol + (code - class.first_code)) as u32;
            reader.consume(class.length);
        }
    }
}

/// Code lengths of an optimal prefix code for symbols that occur `counts[i]` times; all counts
/// must be positive. Symbols with equal counts may differ in length by one, the earlier being the
/// longer; the result depends on nothing else.
pub fn code_lengths(counts: &[u64]) -> Vec<u8> {
    if counts.len() <= 1 {
        return vec![0; counts.len()];
    }
    let mut lengths = huffman(counts);
    if lengths
        .iter()
        .any(|&length| u32::from(length) > MAX_CODE_LENGTH)
    {
        // A code of n bits needs a total of at least Fibonacci(n); raising the rarest symbols to
        // 2^-31 of it bounds the lengths at a cost that cannot be measured.
        let total: u64 = counts.iter().sum();
        let raised: Vec<u64> = counts.iter().map(|&c| c.max(total >> 31)).collect();
        lengths = huffman(&raised);
    }
    lengths
}

/// Huffman's algorithm with two queues: leaves ascending by count, and inner nodes, which arise in
/// ascending order.
fn huffman(counts: &[u64]) -> Vec<u8> {
    let leaves = counts.len();
    let mut order: Vec<u32> = (0..leaves as u32).collect();
    order.sort_by_key(|&symbol| counts[symbol as usize]);
    let mut weights = Vec::with_capacity(leaves - 1);
    // Parent of each node, as the number of an inner node; leaves come first, in `order`.
    let mut parents = vec![0u32; 2 * leaves - 1];
    let (mut leaf, mut inner) = (0, 0);
    for next in 0..leaves - 1 {
        let mut weight = 0u64;
        for _ in 0..2 {
            let take_leaf =
                leaf < leaves && (inner >= next || counts[order[leaf] as usize] <= weights[inner]);
            let node = if take_leaf {
                weight += counts[order[leaf] as usize];
                leaf += 1;
                leaf - 1
            } else {
                weight += weights[inner];
                inner += 1;
                leaves + inner - 1
            };
            parents[node] = next as u32;
        }
        weights.push(weight);
    }
    let mut depths = vec![0u8; leaves - 1];
    for node in (0..leaves - 2).rev() {
        depths[node] = depths[parents[leaves + node] as usize] + 1;
    }
    let mut lengths = vec![0u8; leaves];
    for (position, &symbol) in order.iter().enumerate() {
        lengths[symbol as usize] = depths[parents[position] as usize] + 1;
    }
    lengths
}

/// Number of symbols of each code length, from the lengths.
pub fn length_counts(lengths: &[u8]) -> Vec<u64> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut counts = vec![0u64; usize::from(longest) + 1];
    for &length in lengths {
        counts[usize::from(length)] += 1;
    }
    if lengths.is_empty() {
        Vec::new()
    } else {
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entropy(counts: &[u64]) -> f64 {
        let total: u64 = counts.iter().sum();
        counts
            .iter()
            .map(|&c| -(c as f64) * (c as f64 / total as f64).log2())
            .sum()
    }

    #[test]
    fn fibonacci_counts_stay_within_the_length_limit() {
        let mut counts = vec![1u64, 1];
        while counts.len() < 80 {
            counts.push(counts[counts.len() - 1] + counts[counts.len() - 2]);
        }
        let lengths = code_lengths(&counts);
        assert!(lengths.iter().all(|&l| u32::from(l) <= MAX_CODE_LENGTH));
        PrefixCode::from_length_counts(&length_counts(&lengths)).unwrap();
    }

    #[test]
    fn codes_that_are_not_complete_are_refused() {
        for counts in [
            &[0, 1][..],
            &[0, 3],
            &[2],
            &[1, 2],
            &[0, 1, 1],
            &[0, 2, 1],
            &[0, 0, 5],
        ] {
            let error = PrefixCode::from_length_counts(counts).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Corruption, "{counts:?}");
        }
        assert!(PrefixCode::from_length_counts(&vec![0; 64]).is_err());
        assert!(PrefixCode::from_length_counts(&[0, u64::MAX, 2]).is_err());
    }

    proptest! {
        #[test]
        fn decoding_inverts_encoding_near_the_entropy(
            counts in proptest::collection::vec(1u64..2000, 1..400),
            picks in proptest::collection::vec(any::<proptest::sample::Index>(), 0..500),
        ) {
            let mut lengths = code_lengths(&counts);
            let fixed = counts.len().next_power_of_two().trailing_zeros();
            let cost: u64 = lengths.iter().zip(&counts).map(|(&l, &c)| u64::from(l) * c).sum();
            let total: u64 = counts.iter().sum();
            prop_assert!(cost <= u64::from(fixed) * total);
            prop_assert!((cost as f64) < entropy(&counts) + total as f64);
            lengths.sort_unstable();
            let code = PrefixCode::from_length_counts(&length_counts(&lengths)).unwrap();
            prop_assert_eq!(code.symbols(), counts.len());
            let symbols: Vec<u32> =
                picks.iter().map(|pick| pick.index(counts.len()) as u32).collect();
            let mut writer = BitWriter::new();
            code.encode(&symbols, &mut writer);
            let bytes = writer.finish();
            prop_assert_eq!(bytes.len() as u64, code.cost(&symbols).div_ceil(8));
            let mut reader = BitReader::new(&bytes);
            let mut back = vec![0; symbols.len()];
            code.decode(&mut reader, &mut back);
            prop_assert_eq!(back, symbols);
            prop_assert!(reader.is_finished());
        }

        /// Any bytes decode to symbols of the code, without panic.
        #[test]
        fn any_bits_decode(
            counts in proptest::collection::vec(1u64..50, 1..100),
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut lengths = code_lengths(&counts);
            lengths.sort_unstable();
            let code = PrefixCode::from_length_counts(&length_counts(&lengths)).unwrap();
            let mut out = vec![u32::MAX; 50];
            code.decode(&mut BitReader::new(&bytes), &mut out);
            prop_assert!(out.iter().all(|&symbol| (symbol as usize) < counts.len()));
        }
    }
}
