//! Arrays of symbols: cut into blocks as pybdm's partitions do, and counted.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;

use super::tasks;
use crate::{Error, Monitor, Result};

/// Largest alphabet whose symbols fit the four bits that keys have for them at most.
pub const MAX_SYMBOLS: usize = 16;

/// Blocks that one task counts; fewer are not worth a second thread.
const BLOCKS_PER_TASK: usize = 1 << 14;

/// Keys up to this many bits index an array of counters.
const DENSE_BITS: usize = 16;

/// Bits that a key has for each symbol of an alphabet: as many as it takes, at least 1.
pub fn key_bits(alphabet: usize) -> usize {
    (alphabet.saturating_sub(1).max(1).ilog2() + 1) as usize
}

/// Narrows integers to symbols of eight bits; `None` if one is negative or not below `symbols`.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] unless `size` is 1, 2, 4 or 8 and divides the bytes.
pub fn narrow(bytes: &[u8], size: usize, symbols: usize) -> Result<Option<Vec<u8>>> {
    if !matches!(size, 1 | 2 | 4 | 8) || !bytes.len().is_multiple_of(size) {
        return Err(Error::invalid_argument(format!(
            "{} bytes are not integers of {size} bytes",
            bytes.len()
        )));
    }
    let limit = symbols as u64;
    Ok(match size {
        // Negative numbers are huge ones as unsigned.
        1 => narrow_patterns(bytes, |[b]: [u8; 1]| b.into(), limit),
        2 => narrow_patterns(bytes, |b| u16::from_le_bytes(b).into(), limit),
        4 => narrow_patterns(bytes, |b| u32::from_le_bytes(b).into(), limit),
        _ => narrow_patterns(bytes, u64::from_le_bytes, limit),
    })
}

fn narrow_patterns<const SIZE: usize>(
    bytes: &[u8],
    value: impl Fn([u8; SIZE]) -> u64 + Sync,
    limit: u64,
) -> Option<Vec<u8>> {
    const PIECE: usize = 1 << 14;
    let mut symbols = vec![0; bytes.len() / SIZE];
    symbols
        .par_chunks_mut(PIECE)
        .zip(bytes.par_chunks(PIECE * SIZE))
        .all(|(symbols, bytes)| {
            let mut largest = 0;
            for (symbol, pattern) in symbols.iter_mut().zip(bytes.as_chunks::<SIZE>().0) {
                let value = value(*pattern);
                largest = largest.max(value);
                *symbol = value as u8;
            }
            largest < limit
        })
        .then_some(symbols)
}

/// What to do at the borders of an array that are not covered by a whole block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// Leave out what is not covered by a whole block.
    Ignore,
    /// Take overlapping blocks that many elements apart.
    Correlated {
        /// Distance between blocks, at least 1.
        shift: usize,
    },
    /// Cut what is not covered by a whole block into smaller blocks.
    Recursive {
        /// Smallest width of a block.
        min_length: usize,
    },
}

/// A one- or two-dimensional array of symbols in C order; one dimension is a single row.
#[derive(Clone, Copy, Debug)]
pub struct Symbols<'a> {
    values: &'a [u8],
    shape: Shape,
    bits: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Line(usize),
    Matrix(usize, usize),
}

impl<'a> Symbols<'a> {
    /// An array of symbols below `alphabet`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if the alphabet is too large, the shape has neither
    /// one nor two dimensions, or does not have as many elements.
    pub fn new(values: &'a [u8], shape: &[usize], alphabet: usize) -> Result<Self> {
        if !(1..=MAX_SYMBOLS).contains(&alphabet) {
            return Err(Error::invalid_argument(format!(
                "an alphabet of {alphabet} symbols is not between 1 and {MAX_SYMBOLS}"
            )));
        }
        let found = match *shape {
            [length] => Some((Shape::Line(length), Some(length))),
            [rows, columns] => Some((Shape::Matrix(rows, columns), rows.checked_mul(columns))),
            _ => None,
        };
        match found {
            Some((shape, Some(elements))) if elements == values.len() => Ok(Self {
                values,
                shape,
                bits: key_bits(alphabet),
            }),
            _ => Err(Error::invalid_argument(format!(
                "{} symbols do not form an array of one or two dimensions {shape:?}",
                values.len()
            ))),
        }
    }

    /// Whether blocks of that width have a key of at most 64 bits.
    pub fn fits(&self, width: usize) -> bool {
        self.elements(width)
            .and_then(|elements| elements.checked_mul(self.bits))
            .is_some_and(|bits| bits <= 64)
    }

    fn elements(&self, width: usize) -> Option<usize> {
        match self.shape {
            Shape::Line(_) => Some(width),
            Shape::Matrix(..) => width.checked_mul(width),
        }
    }

    fn size(&self) -> (usize, usize) {
        match self.shape {
            Shape::Line(length) => (1, length),
            Shape::Matrix(rows, columns) => (rows, columns),
        }
    }

    /// Rows of a block of that width.
    fn height(&self, width: usize) -> usize {
        match self.shape {
            Shape::Line(_) => 1,
            Shape::Matrix(..) => width,
        }
    }

    /// The key of the block whose first element is there.
    #[inline]
    pub(super) fn key(&self, row: usize, column: usize, width: usize) -> u64 {
        let (_, columns) = self.size();
        let mut key = 0;
        for line in 0..self.height(width) {
            let start = (row + line) * columns + column;
            let symbols = &self.values[start..start + width];
            let part = match self.bits {
                1 => bits_of(symbols),
                bits => join(symbols, bits),
            };
            key |= part << (line * width * self.bits);
        }
        key
    }
}

/// The lowest bit of each of up to 64 bytes, the first lowest.
#[inline]
fn bits_of(symbols: &[u8]) -> u64 {
    // Multiplying gathers the lowest bits of eight bytes in the highest byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let (eights, rest) = symbols.as_chunks::<8>();
    let mut key = 0;
    for (index, eight) in eights.iter().enumerate() {
        key |= (u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56) << (8 * index);
    }
    let mut shift = 8 * eights.len();
    let (fours, rest) = rest.as_chunks::<4>();
    for four in fours {
        let four = u64::from(u32::from_le_bytes(*four));
        key |= (four.wrapping_mul(GATHER) >> 56) << shift;
        shift += 4;
    }
    for &symbol in rest {
        key |= u64::from(symbol) << shift;
        shift += 1;
    }
    key
}

/// The lowest `bits` (at most four) of each byte, the first lowest, 64 in all.
#[inline]
fn join(symbols: &[u8], bits: usize) -> u64 {
    let (fours, rest) = symbols.as_chunks::<4>();
    let pair_mask = 0x0001_0001 * ((1 << (2 * bits)) - 1);
    let four_mask = (1 << (4 * bits)) - 1;
    let mut key = 0;
    let mut shift = 0;
    for four in fours {
        let four = u32::from_le_bytes(*four);
        let pairs = (four | four >> (8 - bits)) & pair_mask;
        key |= u64::from((pairs | pairs >> (16 - 2 * bits)) & four_mask) << shift;
        shift += 4 * bits;
    }
    for &symbol in rest {
        key |= u64::from(symbol) << shift;
        shift += bits;
    }
    key
}

/// How often each block of one width occurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockCounts {
    /// Width of the blocks (and height, of a matrix).
    pub width: usize,
    /// Keys that occur, ascending.
    pub keys: Vec<u64>,
    /// How often each does.
    pub counts: Vec<u64>,
}

/// Cuts an array into blocks and counts them; one result per width that occurs, widest first.
/// Reports blocks to the monitor.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if the width is 0 or the keys of its blocks do not fit 64
/// bits, or a shift is 0; [`crate::ErrorKind::Interrupted`].
pub fn count(
    symbols: Symbols<'_>,
    width: usize,
    partition: Partition,
    monitor: &Monitor,
) -> Result<Vec<BlockCounts>> {
    if width == 0 || !symbols.fits(width) {
        return Err(Error::invalid_argument(format!(
            "blocks of width {width} cannot be counted"
        )));
    }
    let (rows, columns) = symbols.size();
    let step = match partition {
        Partition::Correlated { shift: 0 } => {
            return Err(Error::invalid_argument("the shift must be at least 1"));
        }
        Partition::Correlated { shift } => shift,
        _ => width,
    };
    let grid = Grid {
        height: symbols.height(width),
        width,
        step,
    };
    let mut by_width: HashMap<usize, Counter> = HashMap::new();
    let whole = grid.count(symbols, rows, columns, monitor)?;
    by_width.insert(width, whole);
    if let Partition::Recursive { min_length } = partition {
        let mut rest = Rest {
            symbols,
            min_length: min_length.max(1),
            by_width: &mut by_width,
            monitor,
        };
        rest.around(0..rows, 0..columns, width)?;
    }
    let mut counts: Vec<BlockCounts> = by_width
        .into_iter()
        .map(|(width, counter)| counter.into_counts(width))
        .filter(|counts| !counts.keys.is_empty())
        .collect();
    counts.sort_by_key(|counts| std::cmp::Reverse(counts.width));
    Ok(counts)
}

/// Whole blocks on a regular grid.
struct Grid {
    height: usize,
    width: usize,
    step: usize,
}

impl Grid {
    fn along(&self, length: usize, size: usize, step: usize) -> usize {
        match length.checked_sub(size) {
            Some(room) => room / step + 1,
            None => 0,
        }
    }

    fn count(
        &self,
        symbols: Symbols<'_>,
        rows: usize,
        columns: usize,
        monitor: &Monitor,
    ) -> Result<Counter> {
        // A line is a single row, whatever the step.
        let down = self.along(rows, self.height, self.step);
        let across = self.along(columns, self.width, self.step);
        let blocks = down * across;
        tasks::fold(
            blocks.div_ceil(BLOCKS_PER_TASK),
            || Counter::new(symbols, self.width),
            |counter, task| {
                monitor.check()?;
                let first = task * BLOCKS_PER_TASK;
                let last = blocks.min(first + BLOCKS_PER_TASK);
                let mut block = first;
                while block < last {
                    let (line, start) = (block / across, block % across);
                    let end = across.min(start + last - block);
                    for index in start..end {
                        let (row, column) = (line * self.step, index * self.step);
                        counter.add(symbols.key(row, column, self.width));
                    }
                    block += end - start;
                }
                monitor.advance((last - first) as u64);
                Ok(())
            },
            Counter::settle,
            Counter::join,
        )
    }
}

/// What whole blocks leave over, cut further.
struct Rest<'a> {
    symbols: Symbols<'a>,
    min_length: usize,
    by_width: &'a mut HashMap<usize, Counter>,
    monitor: &'a Monitor,
}

impl Rest<'_> {
    /// Cuts the parts of a region that its whole blocks do not cover.
    fn around(&mut self, rows: Range<usize>, columns: Range<usize>, width: usize) -> Result<()> {
        let height = self.symbols.height(width);
        let right = columns.end - columns.len() % width;
        let bottom = rows.end - rows.len() % height;
        for top in rows.clone().step_by(height) {
            let lines = top..rows.end.min(top + height);
            if top >= bottom {
                for left in columns.clone().step_by(width) {
                    self.part(lines.clone(), left..columns.end.min(left + width))?;
                }
            } else if right < columns.end {
                self.part(lines, right..columns.end)?;
            }
        }
        Ok(())
    }

    /// Cuts one part into blocks as wide as its smaller side.
    fn part(&mut self, rows: Range<usize>, columns: Range<usize>) -> Result<()> {
        self.monitor.check()?;
        let width = match self.symbols.shape {
            Shape::Line(_) => columns.len(),
            Shape::Matrix(..) => rows.len().min(columns.len()),
        };
        if width < self.min_length {
            return Ok(());
        }
        let height = self.symbols.height(width);
        let counter = self
            .by_width
            .entry(width)
            .or_insert_with(|| Counter::new(self.symbols, width));
        for row in (rows.start..=rows.end - height).step_by(height) {
            for column in (columns.start..=columns.end - width).step_by(width) {
                counter.add(self.symbols.key(row, column, width));
            }
        }
        self.around(rows, columns, width)
    }
}

/// Counters of keys: an array where keys are short, else the keys themselves, sorted in the end.
enum Counter {
    Dense(Vec<u64>),
    Sparse {
        /// Bits of a key.
        bits: usize,
        /// Keys not counted yet.
        keys: Vec<u64>,
        /// Counted keys.
        counted: Counted,
    },
}

/// Keys, of both lists together, that one task merges.
const KEYS_PER_RANGE: usize = 1 << 15;

/// Keys that are collected before they are counted; their number fits 32 bits.
const COLLECTED: usize = 1 << 20;

impl Counter {
    fn new(symbols: Symbols<'_>, width: usize) -> Self {
        let elements = symbols.elements(width).unwrap_or(usize::MAX);
        match elements.saturating_mul(symbols.bits) {
            bits if bits <= DENSE_BITS => Self::Dense(vec![0; 1 << bits]),
            bits => Self::Sparse {
                bits,
                keys: Vec::new(),
                counted: Counted::default(),
            },
        }
    }

    #[inline]
    fn add(&mut self, key: u64) {
        match self {
            Self::Dense(counts) => counts[key as usize] += 1,
            Self::Sparse { keys, .. } => {
                keys.push(key);
                if keys.len() == COLLECTED {
                    self.settle();
                }
            }
        }
    }

    /// Counts the keys collected.
    fn settle(&mut self) {
        if let Self::Sparse {
            bits,
            keys,
            counted,
        } = self
            && !keys.is_empty()
        {
            sort_keys(keys, *bits);
            let new = Counted::of_sorted(keys);
            *counted = std::mem::take(counted).merge(new);
            keys.clear();
        }
    }

    fn join(&mut self, mut other: Self) {
        self.settle();
        other.settle();
        match (self, other) {
            (Self::Dense(counts), Self::Dense(more)) => tasks::add(counts, &more),
            (Self::Sparse { counted, .. }, Self::Sparse { counted: more, .. }) => {
                *counted = std::mem::take(counted).merge(more);
            }
            _ => unreachable!("counters of one width are of one kind"),
        }
    }

    fn into_counts(mut self, width: usize) -> BlockCounts {
        self.settle();
        let (keys, counts) = match self {
            Self::Dense(counts) => counts
                .into_iter()
                .enumerate()
                .filter(|&(_, count)| count > 0)
                .map(|(key, count)| (key as u64, count))
                .unzip(),
            Self::Sparse { counted, .. } => (counted.keys, counted.counts),
        };
        BlockCounts {
            width,
            keys,
            counts,
        }
    }
}

/// Keys in ascending order, and how often each occurs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    keys: Vec<u64>,
    counts: Vec<u64>,
}

impl Counted {
    fn of_sorted(keys: &[u64]) -> Self {
        let mut counted = Self {
            keys: Vec::with_capacity(keys.len()),
            counts: Vec::with_capacity(keys.len()),
        };
        for run in keys.chunk_by(|left, right| left == right) {
            counted.push(run[0], run.len() as u64);
        }
        counted
    }

    fn push(&mut self, key: u64, count: u64) {
        self.keys.push(key);
        self.counts.push(count);
    }

    fn merge(self, other: Self) -> Self {
        if self.keys.is_empty() {
            return other;
        }
        let room = self.keys.len() + other.keys.len();
        let mut merged = Self {
            keys: vec![0; room],
            counts: vec![0; room],
        };
        // Ranges of keys are merged side by side, each into room for all of its keys.
        let ranges = room.div_ceil(KEYS_PER_RANGE);
        let mut parts = Vec::with_capacity(ranges);
        let (mut keys, mut counts) = (&mut merged.keys[..], &mut merged.counts[..]);
        let (mut left, mut right) = (0, 0);
        for range in 1..=ranges {
            let left_end = self.keys.len() * range / ranges;
            let right_end = match self.keys.get(left_end) {
                Some(&first) => other.keys.partition_point(|&key| key < first),
                None => other.keys.len(),
            };
            let room = left_end - left + right_end - right;
            let (these_keys, other_keys) = keys.split_at_mut(room);
            let (these_counts, other_counts) = counts.split_at_mut(room);
            parts.push((left..left_end, right..right_end, these_keys, these_counts));
            (left, right, keys, counts) = (left_end, right_end, other_keys, other_counts);
        }
        let written: Vec<(usize, usize)> = parts
            .into_par_iter()
            .map(|(left, right, keys, counts)| {
                (
                    keys.len(),
                    merge_into(self.part(left), other.part(right), keys, counts),
                )
            })
            .collect();
        let (mut start, mut end) = (0, 0);
        for (room, written) in written {
            if end < start {
                merged.keys.copy_within(start..start + written, end);
                merged.counts.copy_within(start..start + written, end);
            }
            start += room;
            end += written;
        }
        merged.keys.truncate(end);
        merged.counts.truncate(end);
        merged
    }

    fn part(&self, range: Range<usize>) -> (&[u64], &[u64]) {
        (&self.keys[range.clone()], &self.counts[range])
    }
}

/// Merges ascending keys with their counts, the counts of equal keys added; returns the number of
/// different keys.
fn merge_into(
    (left_keys, left_counts): (&[u64], &[u64]),
    (right_keys, right_counts): (&[u64], &[u64]),
    keys: &mut [u64],
    counts: &mut [u64],
) -> usize {
    let (mut left, mut right, mut written) = (0, 0, 0);
    // Without branches: which list has the next key is anyone's guess.
    while let (Some(&one), Some(&two)) = (left_keys.get(left), right_keys.get(right)) {
        let (from_left, from_right) = (one <= two, two <= one);
        keys[written] = one.min(two);
        counts[written] =
            u64::from(from_left) * left_counts[left] + u64::from(from_right) * right_counts[right];
        left += usize::from(from_left);
        right += usize::from(from_right);
        written += 1;
    }
    for (rest_keys, rest_counts) in [
        (&left_keys[left..], &left_counts[left..]),
        (&right_keys[right..], &right_counts[right..]),
    ] {
        let end = written + rest_keys.len();
        keys[written..end].copy_from_slice(rest_keys);
        counts[written..end].copy_from_slice(rest_counts);
        written = end;
    }
    written
}

/// Sorts keys of that many bits, digit by digit from the lowest.
fn sort_keys(keys: &mut Vec<u64>, bits: usize) {
    const DIGIT: usize = 12;
    // Fewer keys than a table of digits has entries are sorted faster by comparing them.
    if keys.len() < 1 << DIGIT {
        return keys.sort_unstable();
    }
    let mut sorted = vec![0; keys.len()];
    for shift in (0..bits).step_by(DIGIT) {
        let digit = |key: u64| (key >> shift) as usize & ((1 << DIGIT) - 1);
        let mut starts = [0u32; 1 << DIGIT];
        for &key in keys.iter() {
            starts[digit(key)] += 1;
        }
        let mut start = 0;
        for slot in &mut starts {
            start += std::mem::replace(slot, start);
        }
        for &key in keys.iter() {
            let slot = &mut starts[digit(key)];
            sorted[*slot as usize] = key;
            *slot += 1;
        }
        std::mem::swap(keys, &mut sorted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn long_lists_of_counted_keys_merge_by_ranges() {
        let list = |step: u64, count: u64| Counted {
            keys: (0..count).map(|index| index * step).collect(),
            counts: (0..count).map(|index| index % 3 + 1).collect(),
        };
        let length = 3 * KEYS_PER_RANGE as u64;
        for (one, two) in [(2, 3), (3, 2), (1, 1), (1, 1000)] {
            let mut expected = std::collections::BTreeMap::new();
            for each in [list(one, length), list(two, length / 2)] {
                for (key, count) in each.keys.into_iter().zip(each.counts) {
                    *expected.entry(key).or_insert(0) += count;
                }
            }
            let merged = list(one, length).merge(list(two, length / 2));
            let merged: Vec<_> = merged.keys.into_iter().zip(merged.counts).collect();
            assert!(merged.iter().copied().eq(expected), "{one} {two}");
        }
        assert_eq!(list(1, 9).merge(Counted::default()), list(1, 9));
        assert_eq!(Counted::default().merge(list(1, 9)), list(1, 9));
    }

    fn counted(
        values: &[u8],
        shape: &[usize],
        alphabet: usize,
        width: usize,
        partition: Partition,
    ) -> Vec<BlockCounts> {
        let symbols = Symbols::new(values, shape, alphabet).unwrap();
        count(symbols, width, partition, &Monitor::new()).unwrap()
    }

    fn total(counts: &[BlockCounts]) -> Vec<(usize, u64)> {
        counts
            .iter()
            .map(|each| (each.width, each.counts.iter().sum()))
            .collect()
    }

    #[test]
    fn partitions_of_pybdms_documentation() {
        let ones = [1; 25];
        assert_eq!(
            total(&counted(
                &ones,
                &[5, 5],
                2,
                3,
                Partition::Recursive { min_length: 2 }
            )),
            [(3, 1), (2, 3)]
        );
        assert_eq!(
            total(&counted(&ones, &[5, 5], 2, 2, Partition::Ignore)),
            [(2, 4)]
        );
        assert_eq!(
            total(&counted(
                &ones,
                &[5, 5],
                2,
                3,
                Partition::Correlated { shift: 1 }
            )),
            [(3, 9)]
        );
        assert_eq!(
            total(&counted(
                &ones,
                &[5, 5],
                2,
                3,
                Partition::Correlated { shift: 2 }
            )),
            [(3, 4)]
        );
        assert_eq!(
            total(&counted(
                &ones,
                &[25],
                2,
                12,
                Partition::Recursive { min_length: 1 }
            )),
            [(12, 2), (1, 1)]
        );
    }

    #[test]
    fn keys_have_the_first_element_lowest() {
        let line = [1, 0, 3, 2];
        let counts = counted(&line, &[4], 4, 4, Partition::Ignore);
        assert_eq!(counts[0].keys, [0b10_11_00_01]);
        let matrix = [1, 0, 0, 1, 1, 0];
        let counts = counted(&matrix, &[2, 3], 2, 2, Partition::Ignore);
        assert_eq!(counts[0].keys, [0b1101]);
    }

    #[test]
    fn symbols_out_of_range_are_noticed() {
        let fine: Vec<u8> = [0i64, 1, 1].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(narrow(&fine, 8, 2).unwrap(), Some(vec![0, 1, 1]));
        for bad in [-1i16, 2, 256] {
            let bytes: Vec<u8> = [0, bad].iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(narrow(&bytes, 2, 2).unwrap(), None);
        }
        assert!(narrow(&fine, 3, 2).is_err());
    }

    #[test]
    fn what_makes_no_blocks_is_refused() {
        assert!(Symbols::new(&[0; 6], &[2, 2], 2).is_err());
        assert!(Symbols::new(&[0; 8], &[2, 2, 2], 2).is_err());
        assert!(Symbols::new(&[0; 6], &[6], 17).is_err());
        let symbols = Symbols::new(&[0; 6], &[6], 2).unwrap();
        let monitor = Monitor::new();
        assert!(count(symbols, 0, Partition::Ignore, &monitor).is_err());
        assert!(count(symbols, 65, Partition::Ignore, &monitor).is_err());
        assert!(count(symbols, 2, Partition::Correlated { shift: 0 }, &monitor).is_err());
    }

    #[test]
    fn arrays_smaller_than_a_block_have_none() {
        assert!(counted(&[], &[0], 2, 12, Partition::Ignore).is_empty());
        assert!(counted(&[1; 3], &[3], 2, 12, Partition::Correlated { shift: 1 }).is_empty());
        assert!(counted(&[], &[0, 5], 2, 4, Partition::Recursive { min_length: 1 }).is_empty());
    }

    #[test]
    fn many_blocks_on_any_number_of_threads() {
        let values: Vec<u8> = (0..3_000_001u32)
            .map(|index| (index.wrapping_mul(2_654_435_761) >> 29) as u8 & 3)
            .collect();
        let on = |threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap()
                .install(|| counted(&values, &[values.len()], 4, 12, Partition::Ignore))
        };
        let one = on(1);
        assert_eq!(one, on(3));
        assert_eq!(total(&one), [(12, 250_000)]);
    }

    #[test]
    fn keys_have_the_bits_an_alphabet_takes() {
        let bits = [1, 2, 3, 4, 5, 6, 8, 9, 16].map(key_bits);
        assert_eq!(bits, [1, 1, 2, 2, 3, 3, 3, 4, 4]);
    }

    #[test]
    fn collected_keys_are_counted_over_again() {
        let values: Vec<u8> = (0..2 * COLLECTED as u32 + 100)
            .map(|index| (index % 7 % 3) as u8)
            .collect();
        let counts = counted(
            &values,
            &[values.len()],
            3,
            12,
            Partition::Correlated { shift: 1 },
        );
        assert_eq!(total(&counts), [(12, values.len() as u64 - 11)]);
        // One block for each phase of the period of seven.
        assert_eq!(counts[0].keys.len(), 7);
        assert!(counts[0].keys.is_sorted());
    }

    proptest! {
        #[test]
        fn sorted_keys_are_sorted(keys in prop::collection::vec(0u64..1 << 36, 0..6000)) {
            let mut sorted = keys.clone();
            sort_keys(&mut sorted, 36);
            let mut expected = keys;
            expected.sort_unstable();
            prop_assert_eq!(sorted, expected);
        }

        #[test]
        fn merged_counts_are_those_of_both(
            left in prop::collection::btree_map(0u64..20, 1u64..5, 0..10),
            right in prop::collection::btree_map(0u64..20, 1u64..5, 0..10),
        ) {
            let mut expected = left.clone();
            for (&key, &count) in &right {
                *expected.entry(key).or_insert(0) += count;
            }
            let counted = |map: std::collections::BTreeMap<u64, u64>| Counted {
                keys: map.keys().copied().collect(),
                counts: map.into_values().collect(),
            };
            prop_assert_eq!(counted(left).merge(counted(right)), counted(expected));
        }

        #[test]
        fn gathered_keys_are_those_of_the_definition(
            values in prop::collection::vec(0u8..2, 1..=64),
            wide in prop::collection::vec(0u8..16, 1..=16),
            bits in 1usize..=4,
        ) {
            let wide: Vec<u8> = wide.iter().map(|symbol| symbol >> (4 - bits)).collect();
            let expected = |values: &[u8], bits: usize| {
                values
                    .iter()
                    .enumerate()
                    .fold(0, |key, (index, &symbol)| key | u64::from(symbol) << (bits * index))
            };
            prop_assert_eq!(bits_of(&values), expected(&values, 1));
            prop_assert_eq!(join(&wide, bits), expected(&wide, bits));
        }

        #[test]
        fn recursion_covers_everything_down_to_single_elements(
            rows in 0usize..20,
            columns in 0usize..20,
            width in 1usize..5,
        ) {
            let values = vec![1; rows * columns];
            let counts = counted(
                &values,
                &[rows, columns],
                2,
                width,
                Partition::Recursive { min_length: 1 },
            );
            let covered: u64 = total(&counts)
                .iter()
                .map(|&(width, count)| (width * width) as u64 * count)
                .sum();
            prop_assert_eq!(covered, values.len() as u64);
        }
    }
}
