//! Symbols by static distributions: interleaved asymmetric numeral systems with a table for each
//! class of runs.
//!
//! Nothing is learnt while decoding, so 32 symbols are decoded at a time. Tables, the classes of
//! runs and the rare symbols that no table has are a few bytes of the adaptive
//! [range coder](super::range_coder).

use super::model::AdaptiveBit;
use super::range_coder::{BitCoder, RangeDecoder, RangeEncoder};
use super::run_classes::{self, Classes};
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::simd::Available;
use crate::simd::rans::{LEAST_STATE, STATES, Tables, Words, decode_runs, step};

/// Symbols have at most this many bits.
pub const MAX_SYMBOL_BITS: u32 = 12;

/// Symbols that are decoded together at most; a multiple of every length of runs.
pub const PIECE: usize = 4096;

/// Fewer symbols have [`FEW_STATES`]: states take four bytes each.
const MANY_SYMBOLS: usize = 4096;
const FEW_STATES: usize = 4;

/// Runs have `2^shift` symbols, with a shift in this range.
const RUN_SHIFTS: std::ops::RangeInclusive<u32> = 5..=12;
const RUN_SHIFT: u32 = 7;
const MAX_CLASSES: usize = 16;

/// Keys that decide the class of a run, at most.
const MAX_KEYS: usize = 48;

/// Bits of a bit length of a frequency.
const LENGTH_BITS: u32 = 4;
const LENGTH_LIMIT: u16 = 60;
const CLASS_LIMIT: u16 = 255;
const RARE_LIMIT: u16 = 255;

/// Bits of the frequencies of symbols of so many bits: both fit 32 bits with a distance.
pub fn frequency_bits(symbol_bits: u32) -> u32 {
    ((32 - symbol_bits) / 2).min(12)
}

/// The symbol that stands for all without a frequency.
fn rare(symbol_bits: u32) -> u16 {
    ((1u32 << symbol_bits) - 1) as u16
}

fn states_of(symbols: usize) -> usize {
    if symbols < MANY_SYMBOLS {
        FEW_STATES
    } else {
        STATES
    }
}

/// What the tables, classes and rare symbols are coded with; one function each both encodes and
/// decodes.
struct Side<C> {
    coder: C,
    symbol_bits: u32,
    lengths: Vec<[AdaptiveBit; 1 << LENGTH_BITS]>,
    classes: Vec<[AdaptiveBit; MAX_CLASSES]>,
    rare: Vec<AdaptiveBit>,
}

impl<C: BitCoder> Side<C> {
    fn new(coder: C, symbol_bits: u32) -> Self {
        Self {
            coder,
            symbol_bits,
            lengths: vec![[AdaptiveBit::new(); 1 << LENGTH_BITS]; 2 << LENGTH_BITS],
            classes: vec![[AdaptiveBit::new(); MAX_CLASSES]; MAX_CLASSES],
            rare: vec![AdaptiveBit::new(); 1 << symbol_bits],
        }
    }

    /// The first and the last symbol with a frequency.
    fn code_span(&mut self, span: (u16, u16)) -> (u16, u16) {
        let first = self.coder.code_uniform(span.0.into(), self.symbol_bits);
        let last = self.coder.code_uniform(span.1.into(), self.symbol_bits);
        (first as u16, last as u16)
    }

    /// The frequencies of a class, given those of the class before, if there is one.
    fn code_frequencies(&mut self, frequencies: &mut [u16], before: Option<&[u16]>) {
        let length = |frequency: u16| (16 - frequency.leading_zeros()) as usize;
        let mut last = 0;
        for (place, frequency) in frequencies.iter_mut().enumerate() {
            let context = match before {
                Some(before) => (1 << LENGTH_BITS) + length(before[place]),
                None => last,
            };
            let bits = code_tree(
                &mut self.lengths[context],
                &mut self.coder,
                length(*frequency) as u32,
                LENGTH_BITS,
                LENGTH_LIMIT,
            );
            last = bits as usize;
            if bits > 0 {
                let top = 1u32 << (bits - 1);
                let low = u32::from(*frequency) & (top - 1);
                *frequency = (top + self.coder.code_uniform(low, bits - 1)) as u16;
            } else {
                *frequency = 0;
            }
        }
    }

    fn code_class(&mut self, class: u8, before: u8, count: usize) -> u8 {
        let bits = count.next_power_of_two().trailing_zeros();
        let tree = &mut self.classes[usize::from(before)];
        code_tree(tree, &mut self.coder, class.into(), bits, CLASS_LIMIT) as u8
    }

    fn code_rare(&mut self, symbol: u16) -> u16 {
        let bits = self.symbol_bits;
        code_tree(
            &mut self.rare,
            &mut self.coder,
            symbol.into(),
            bits,
            RARE_LIMIT,
        ) as u16
    }
}

fn code_tree(
    nodes: &mut [AdaptiveBit],
    coder: &mut impl BitCoder,
    value: u32,
    bits: u32,
    limit: u16,
) -> u32 {
    let mut node = 1;
    for level in (0..bits).rev() {
        let model = &mut nodes[node];
        let bit = coder.code(value >> level & 1 == 1, model.one());
        model.update(bit, limit);
        node = node * 2 + usize::from(bit);
    }
    node as u32 - (1 << bits)
}

/// How often each symbol of `bits` bits occurs.
pub fn histogram(symbols: &[u16], bits: u32) -> Vec<u32> {
    let mask = (1usize << bits) - 1;
    // Equal neighbours would wait for each other in a single table.
    let mut tables = [0; 4].map(|_: i32| vec![0u32; mask + 1]);
    let (parts, rest) = symbols.as_chunks::<4>();
    for part in parts {
        for (table, &symbol) in tables.iter_mut().zip(part) {
            table[usize::from(symbol) & mask] += 1;
        }
    }
    for &symbol in rest {
        tables[0][usize::from(symbol) & mask] += 1;
    }
    let [mut sum, others @ ..] = tables;
    for table in others {
        sum.iter_mut().zip(table).for_each(|(sum, n)| *sum += n);
    }
    sum
}

/// Frequencies that sum up to `2^bits` with that of the rare symbol, the last one, which is at
/// least 1.
fn frequencies(counts: &[u32], kept: &[bool], bits: u32) -> Vec<u16> {
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let size = 1u64 << bits;
    let parts = |count: u64| (count * size + total / 2) / total.max(1);
    let last = counts.len() - 1;
    let mut frequencies: Vec<u16> = counts
        .iter()
        .zip(kept)
        .map(|(&count, &kept)| if kept { parts(count.into()) } else { 0 })
        .map(|parts| parts.min(size - 1) as u16)
        .collect();
    if frequencies.iter().all(|&frequency| frequency == 0) {
        // A table of nothing but the rare symbol would have a frequency of 2^bits.
        frequencies[0] = 1;
    }
    let missed = counts.iter().zip(&frequencies).filter(|pair| *pair.1 == 0);
    let missed = missed.map(|(&count, _)| u64::from(count)).sum();
    let listed: u64 = frequencies.iter().map(|&f| u64::from(f)).sum();
    // What rounding took too much or left over comes from or goes to the most frequent.
    let mut excess = (listed + parts(missed).clamp(1, size - 1)) as i64 - size as i64;
    while excess != 0 {
        let most = (0..last)
            .max_by_key(|&symbol| frequencies[symbol])
            .unwrap_or(0);
        let share = (i64::from(frequencies[most]) / 16).clamp(1, excess.abs());
        let change = if excess > 0 { -share } else { share };
        frequencies[most] = (i64::from(frequencies[most]) + change) as u16;
        excess += change;
    }
    let listed: u64 = frequencies[..last].iter().map(|&f| u64::from(f)).sum();
    frequencies[last] = (size - listed) as u16;
    frequencies
}

/// How a symbol changes a state.
#[derive(Clone, Copy, Default)]
struct Push {
    /// `2^64 / frequency`, rounded up.
    reciprocal: u64,
    /// States from here on give a word away first.
    limit: u32,
    /// `2^bits - frequency`.
    complement: u32,
    first: u32,
}

fn pushes(frequencies: &[u16], bits: u32) -> Vec<Push> {
    let mut first = 0;
    let push = |&frequency: &u16| {
        let f = u32::from(frequency);
        let mut push = Push {
            reciprocal: 0,
            limit: f << (32 - bits),
            complement: (1 << bits) - f,
            first,
        };
        if f == 1 {
            // 2^64 does not fit: the quotient is one less, which the start makes good.
            push.reciprocal = u64::MAX;
            push.first += (1 << bits) - 1;
        } else if f > 1 {
            push.reciprocal = u64::MAX / u64::from(f) + 1;
        }
        first += f;
        push
    };
    let mut pushes: Vec<Push> = frequencies.iter().map(push).collect();
    // The last one stands for all that have no frequency.
    let rare = pushes[frequencies.len() - 1];
    for (push, _) in pushes
        .iter_mut()
        .zip(frequencies)
        .filter(|pair| *pair.1 == 0)
    {
        *push = rare;
    }
    pushes
}

/// Encodes symbols of `symbol_bits` bits (at most [`MAX_SYMBOL_BITS`]), fewer than 2^32.
///
/// # Errors
/// [`crate::ErrorKind::Interrupted`] if cancelled.
pub fn encode(symbols: &[u16], symbol_bits: u32, monitor: &Monitor) -> Result<Vec<u8>> {
    let bits = frequency_bits(symbol_bits);
    let counts = histogram(symbols, symbol_bits);
    let kept = kept_symbols(&counts, symbols.len(), bits, rare(symbol_bits));
    let run = 1 << RUN_SHIFT;
    let classes = classes_of(symbols, symbol_bits, &counts, &kept, run);
    monitor.check()?;
    let tables: Vec<Vec<u16>> = class_counts(symbols, symbol_bits, &classes, run)
        .iter()
        .map(|counts| frequencies(counts, &kept, bits))
        .collect();
    let side = encode_side(symbols, symbol_bits, &classes, run, &tables);
    monitor.check()?;
    let pushes: Vec<Vec<Push>> = tables.iter().map(|table| pushes(table, bits)).collect();
    let (states, words) = push_all(symbols, &classes, run, &pushes);
    let mut bytes = Vec::with_capacity(10 + side.len() + 4 * states.len() + 2 * words.len());
    bytes.push((classes.count - 1) as u8 | (RUN_SHIFT as u8) << 4);
    bytes.extend_from_slice(&(side.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(words.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&side);
    states
        .iter()
        .for_each(|state| bytes.extend_from_slice(&state.to_le_bytes()));
    words
        .iter()
        .for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    Ok(bytes)
}

/// Which symbols are frequent enough for a place in tables.
fn kept_symbols(counts: &[u32], total: usize, bits: u32, rare: u16) -> Vec<bool> {
    let worth = |&count: &u32| u64::from(count) << (bits + 2) >= total as u64 && count > 0;
    let mut kept: Vec<bool> = counts.iter().map(worth).collect();
    kept[usize::from(rare)] = false;
    kept
}

fn classes_of(
    symbols: &[u16],
    symbol_bits: u32,
    counts: &[u32],
    kept: &[bool],
    run: usize,
) -> Classes {
    // The leading bits of a symbol decide, as many as make few keys of those that occur.
    let occur = |shift: u32| {
        let mut found: Vec<usize> = (0..counts.len())
            .filter(|&symbol| kept[symbol])
            .map(|symbol| symbol >> shift)
            .collect();
        found.dedup();
        found.len()
    };
    let mut shift = symbol_bits.saturating_sub(8);
    while occur(shift) > MAX_KEYS {
        shift += 1;
    }
    let mut keys = vec![0u8; counts.len()];
    let mut last = None;
    let mut count = 0;
    for symbol in (0..counts.len()).filter(|&symbol| kept[symbol]) {
        if last != Some(symbol >> shift) {
            last = Some(symbol >> shift);
            count += 1;
        }
        keys[symbol] = (count - 1) as u8;
    }
    let table_bits = 6 * kept.iter().filter(|&&kept| kept).count() as u64;
    run_classes::choose(symbols, run, count, table_bits, |symbol| {
        keys[usize::from(symbol)]
    })
}

fn class_counts(symbols: &[u16], symbol_bits: u32, classes: &Classes, run: usize) -> Vec<Vec<u32>> {
    let mut counts = vec![vec![0u32; 1 << symbol_bits]; classes.count];
    for (symbols, &class) in symbols.chunks(run).zip(&classes.of_runs) {
        let counts = &mut counts[usize::from(class)];
        for &symbol in symbols {
            counts[usize::from(symbol)] += 1;
        }
    }
    counts
}

/// The tables, the classes of runs and the rare symbols.
fn encode_side(
    symbols: &[u16],
    symbol_bits: u32,
    classes: &Classes,
    run: usize,
    tables: &[Vec<u16>],
) -> Vec<u8> {
    let rare = rare(symbol_bits);
    let mut side = Side::new(RangeEncoder::new(), symbol_bits);
    let listed: Vec<usize> = (0..usize::from(rare))
        .filter(|&symbol| tables.iter().any(|table| table[symbol] > 0))
        .collect();
    let span = match (listed.first(), listed.last()) {
        (Some(&first), Some(&last)) => (first as u16, last as u16),
        _ => (0, 0),
    };
    let (first, last) = side.code_span(span);
    let part = |table: &[u16]| table[usize::from(first)..=usize::from(last)].to_vec();
    let mut before: Option<Vec<u16>> = None;
    for table in tables {
        let mut frequencies = part(table);
        side.code_frequencies(&mut frequencies, before.as_deref());
        before = Some(frequencies);
    }
    let mut before = 0;
    for &class in &classes.of_runs {
        before = side.code_class(class, before, classes.count);
    }
    let is_rare = |symbol: u16, table: &[u16]| symbol == rare || table[usize::from(symbol)] == 0;
    for (symbols, &class) in symbols.chunks(run).zip(&classes.of_runs) {
        let table = &tables[usize::from(class)];
        // Most runs have none.
        let some = symbols
            .iter()
            .fold(false, |some, &symbol| some | is_rare(symbol, table));
        if some {
            for &symbol in symbols.iter().filter(|&&symbol| is_rare(symbol, table)) {
                side.code_rare(symbol);
            }
        }
    }
    side.coder.finish()
}

/// The states at the end, which the decoder begins with, and the words in its order.
fn push_all(
    symbols: &[u16],
    classes: &Classes,
    run: usize,
    pushes: &[Vec<Push>],
) -> (Vec<u32>, Vec<u16>) {
    let count = states_of(symbols.len());
    let mask = (count - 1) % STATES;
    let mut states = [LEAST_STATE; STATES];
    let mut words = vec![0u16; symbols.len() + 1];
    let mut free = words.len();
    for (number, symbols) in symbols.chunks(run).enumerate().rev() {
        let table = &pushes[usize::from(classes.of_runs[number])];
        for (place, &symbol) in symbols.iter().enumerate().rev() {
            let push = table[usize::from(symbol)];
            let state = &mut states[place & mask];
            let full = *state >= push.limit;
            words[free - 1] = *state as u16;
            free -= usize::from(full);
            let rest = if full { *state >> 16 } else { *state };
            let quotient = ((u128::from(rest) * u128::from(push.reciprocal)) >> 64) as u32;
            *state = rest
                .wrapping_add(push.first)
                .wrapping_add(quotient.wrapping_mul(push.complement));
        }
    }
    (states[..count].to_vec(), words[free..].to_vec())
}

/// Decodes what [`encode`] wrote, piece by piece.
pub struct SymbolDecoder<'a> {
    isa: Available,
    side: Side<RangeDecoder<'a>>,
    states: [u32; STATES],
    words: Vec<u16>,
    taken: usize,
    entries: Vec<u32>,
    bits: u32,
    classes: Vec<u8>,
    run: usize,
    /// Symbols decoded so far, and all.
    done: usize,
    total: usize,
}

impl<'a> SymbolDecoder<'a> {
    /// Reads the side information of `total` symbols of `symbol_bits` bits from the beginning of
    /// bytes; returns those that follow as well.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InsufficientData`] or [`crate::ErrorKind::Corruption`].
    pub fn new(
        isa: Available,
        bytes: &'a [u8],
        symbol_bits: u32,
        total: usize,
    ) -> Result<(Self, &'a [u8])> {
        let (&head, bytes) = bytes.split_first().ok_or_else(ends_early)?;
        let (side_bytes, bytes) = take_length(bytes)?;
        let (word_count, bytes) = take_length(bytes)?;
        let (side_part, bytes) = bytes.split_at_checked(side_bytes).ok_or_else(ends_early)?;
        let count = states_of(total);
        let (state_part, bytes) = bytes.split_at_checked(4 * count).ok_or_else(ends_early)?;
        let (word_part, rest) = bytes
            .split_at_checked(2 * word_count)
            .ok_or_else(ends_early)?;
        let (class_count, shift) = (usize::from(head & 15) + 1, u32::from(head >> 4));
        if !RUN_SHIFTS.contains(&shift) {
            return Err(Error::corruption("runs of symbols have no valid length"));
        }
        let mut states = [LEAST_STATE; STATES];
        for (state, bytes) in states.iter_mut().zip(state_part.as_chunks::<4>().0) {
            *state = u32::from_le_bytes(*bytes);
        }
        let mut words = Vec::with_capacity(word_count + STATES);
        words.extend(
            word_part
                .as_chunks::<2>()
                .0
                .iter()
                .copied()
                .map(u16::from_le_bytes),
        );
        words.resize(word_count + STATES, 0);
        let mut side = Side::new(RangeDecoder::new(side_part), symbol_bits);
        let bits = frequency_bits(symbol_bits);
        let entries = decode_tables(&mut side, class_count, bits)?;
        let run = 1usize << shift;
        let classes = decode_classes(&mut side, class_count, total.div_ceil(run))?;
        let decoder = Self {
            isa,
            side,
            states,
            words,
            taken: 0,
            entries,
            bits,
            classes,
            run,
            done: 0,
            total,
        };
        Ok((decoder, rest))
    }

    /// The next symbols: [`PIECE`], or all that are left if those are fewer.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InsufficientData`] if the words run out.
    ///
    /// # Panics
    /// If more or fewer symbols are asked for.
    pub fn decode(&mut self, symbols: &mut [u16]) -> Result<()> {
        assert_eq!(symbols.len(), PIECE.min(self.total - self.done), "a piece");
        let count = states_of(self.total);
        let first = self.done / self.run;
        let whole = if count == STATES {
            symbols.len() / self.run
        } else {
            0
        };
        let (runs, rest) = symbols.split_at_mut(whole * self.run);
        let mut words = Words {
            words: &self.words,
            taken: self.taken,
        };
        let tables = Tables {
            entries: &self.entries,
            bits: self.bits,
        };
        let classes = &self.classes[first..first + whole];
        if !decode_runs(
            self.isa,
            &mut self.states,
            tables,
            &mut words,
            classes,
            runs,
        ) {
            return Err(ends_early());
        }
        let size = 1 << self.bits;
        for (part, &class) in rest
            .chunks_mut(self.run)
            .zip(&self.classes[first + whole..])
        {
            let table = &self.entries[usize::from(class) * size..][..size];
            for symbols in part.chunks_mut(count) {
                let next = self.words[words.taken..]
                    .first_chunk()
                    .ok_or_else(ends_early)?;
                let states = &mut self.states[..symbols.len()];
                words.taken += step(states, table, self.bits, next, symbols);
            }
        }
        self.taken = words.taken;
        self.done += symbols.len();
        self.replace_rare(symbols);
        Ok(())
    }

    fn replace_rare(&mut self, symbols: &mut [u16]) {
        let rare = rare(self.side.symbol_bits);
        for part in symbols.chunks_mut(64) {
            if part
                .iter()
                .fold(false, |any, &symbol| any | (symbol == rare))
            {
                for symbol in part.iter_mut().filter(|symbol| **symbol == rare) {
                    *symbol = self.side.code_rare(0);
                }
            }
        }
    }

    /// Checks that everything was used.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InsufficientData`] or [`crate::ErrorKind::Corruption`].
    pub fn finish(&self) -> Result<()> {
        let words = self.words.len() - STATES;
        if self.taken > words {
            return Err(ends_early());
        }
        let states = &self.states[..states_of(self.total)];
        if self.taken < words || states.iter().any(|&state| state != LEAST_STATE) {
            return Err(Error::corruption("coded symbols do not end as they began"));
        }
        self.side.coder.finish()
    }
}

fn take_length(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(ends_early)?;
    Ok((u32::from_le_bytes(*length) as usize, rest))
}

fn decode_tables(side: &mut Side<RangeDecoder<'_>>, classes: usize, bits: u32) -> Result<Vec<u32>> {
    let rare = rare(side.symbol_bits);
    let (first, last) = side.code_span((0, 0));
    if first > last || last >= rare {
        return Err(Error::corruption("a table of symbols has no valid span"));
    }
    let mut entries = Vec::with_capacity(classes << bits);
    let mut before: Option<Vec<u16>> = None;
    for _ in 0..classes {
        let mut frequencies = vec![0; usize::from(last - first) + 1];
        side.code_frequencies(&mut frequencies, before.as_deref());
        let listed: u32 = frequencies.iter().map(|&f| u32::from(f)).sum();
        if !(1..1 << bits).contains(&listed) {
            return Err(Error::corruption(
                "frequencies of symbols have no valid sum",
            ));
        }
        let all = (first..)
            .zip(&frequencies)
            .map(|(symbol, &f)| (symbol, u32::from(f)));
        for (symbol, frequency) in all.chain([(rare, (1 << bits) - listed)]) {
            let entry = u32::from(symbol) << (2 * bits) | frequency << bits;
            entries.extend((0..frequency).map(|distance| entry | distance));
        }
        before = Some(frequencies);
    }
    Ok(entries)
}

fn decode_classes(side: &mut Side<RangeDecoder<'_>>, count: usize, runs: usize) -> Result<Vec<u8>> {
    let mut classes = Vec::with_capacity(runs);
    let mut before = 0;
    for _ in 0..runs {
        before = side.code_class(0, before, count);
        if usize::from(before) >= count {
            return Err(Error::corruption("a run of symbols has no valid class"));
        }
        classes.push(before);
    }
    Ok(classes)
}

fn ends_early() -> Error {
    Error::insufficient_data("coded symbols end early")
}
