//! A hash table of rows that are told apart by their bits.

use std::ops::Range;

use crate::element::Element;

/// Which values count as the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equality {
    /// Equal bit patterns.
    Bits,
    /// Equal numbers: as bits, but 0 and -0 are one.
    Numbers,
}

/// Distinct rows of one array, numbered in the order of their first occurrence.
///
/// Rows are not copied: every call must be given the same array.
#[derive(Debug)]
pub struct RowSet {
    equality: Equality,
    row_len: usize,
    /// Index of each distinct row's first occurrence.
    first: Vec<usize>,
    /// Part of the hash, and one more than the number of the row; (0, 0) is free.
    slots: Vec<(u32, u32)>,
}

impl RowSet {
    /// An empty set of rows of `row_len` values.
    pub fn new(row_len: usize, equality: Equality) -> Self {
        Self {
            equality,
            row_len,
            first: Vec::new(),
            slots: vec![(0, 0); 1 << 10],
        }
    }

    /// Shares of rows, see [`share_of`](Self::share_of).
    pub const SHARES: usize = 16;

    /// A number below [`SHARES`](Self::SHARES) that equal rows share, spread evenly over different ones.
    pub fn share_of<T: Element>(row: &[T], equality: Equality) -> u8 {
        let hash = match equality {
            Equality::Bits => hash(row, T::bits),
            Equality::Numbers => hash(row, number_bits),
        };
        (hash >> 60) as u8
    }

    /// Index of each distinct row's first occurrence.
    pub fn first(&self) -> &[usize] {
        &self.first
    }

    /// Index of each distinct row's first occurrence.
    pub fn into_first(self) -> Vec<usize> {
        self.first
    }

    /// Appends the number of each of the rows in `range` to `numbers`, a new one for a row that is
    /// like none before; returns early, with fewer numbers, once there are more than `limit`.
    pub fn insert<T: Element>(
        &mut self,
        rows: &[T],
        range: Range<usize>,
        limit: usize,
        numbers: &mut Vec<u32>,
    ) {
        match self.equality {
            Equality::Bits => self.insert_by(rows, range, limit, numbers, T::bits),
            Equality::Numbers => self.insert_by(rows, range, limit, numbers, number_bits),
        }
    }

    fn insert_by<T: Element>(
        &mut self,
        rows: &[T],
        range: Range<usize>,
        limit: usize,
        numbers: &mut Vec<u32>,
        bits: impl Fn(T) -> u64 + Copy,
    ) {
        // The compiler unrolls what is done with rows of a known length.
        match self.row_len {
            1 => self.insert_rows(rows, 1, range, limit, numbers, bits),
            2 => self.insert_rows(rows, 2, range, limit, numbers, bits),
            4 => self.insert_rows(rows, 4, range, limit, numbers, bits),
            8 => self.insert_rows(rows, 8, range, limit, numbers, bits),
            len => self.insert_rows(rows, len, range, limit, numbers, bits),
        }
    }

    #[inline(always)]
    fn insert_rows<T: Element>(
        &mut self,
        rows: &[T],
        row_len: usize,
        range: Range<usize>,
        limit: usize,
        numbers: &mut Vec<u32>,
        bits: impl Fn(T) -> u64 + Copy,
    ) {
        for index in range {
            let row = &rows[index * row_len..][..row_len];
            let hash = hash(row, bits);
            let tag = (hash >> 32) as u32;
            let mask = self.slots.len() - 1;
            let mut slot = hash as usize & mask;
            let number = loop {
                let (slot_tag, number) = self.slots[slot];
                if number == 0 {
                    self.first.push(index);
                    let number = self.first.len() as u32;
                    self.slots[slot] = (tag, number);
                    if self.first.len() * 2 > self.slots.len() {
                        self.grow(rows, bits);
                    }
                    break number;
                }
                if slot_tag == tag {
                    let first = self.first[number as usize - 1];
                    let other = &rows[first * row_len..][..row_len];
                    // Without a branch per value.
                    let different = row
                        .iter()
                        .zip(other)
                        .fold(0, |different, (&a, &b)| different | (bits(a) ^ bits(b)));
                    if different == 0 {
                        break number;
                    }
                }
                slot = (slot + 1) & mask;
            };
            numbers.push(number - 1);
            if self.first.len() > limit {
                return;
            }
        }
    }

    #[cold]
    fn grow<T: Element>(&mut self, rows: &[T], bits: impl Fn(T) -> u64 + Copy) {
        let mask = self.slots.len() * 4 - 1;
        self.slots.clear();
        self.slots.resize(mask + 1, (0, 0));
        for (number, &first) in self.first.iter().enumerate() {
            let hash = hash(&rows[first * self.row_len..][..self.row_len], bits);
            let mut slot = hash as usize & mask;
            while self.slots[slot].1 != 0 {
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = ((hash >> 32) as u32, number as u32 + 1);
        }
    }
}

/// Bits that equal numbers share: adding 0 turns -0 into 0 and leaves all else as it is.
fn number_bits<T: Element>(value: T) -> u64 {
    T::from_f64(value.to_f64() + 0.0).bits()
}

/// Multiplies and folds word after word, as wyhash does; not meant to withstand an adversary.
#[inline(always)]
fn hash<T: Copy>(row: &[T], bits: impl Fn(T) -> u64) -> u64 {
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let mut hash = 0x9e37_79b9_7f4a_7c15;
    let (pairs, rest) = row.as_chunks::<2>();
    for &[a, b] in pairs {
        hash = fold(
            hash ^ bits(a) ^ bits(b).rotate_left(32),
            0xa076_1d64_78bd_642f,
        );
    }
    for &a in rest {
        hash = fold(hash ^ bits(a), 0xe703_7ed1_a0b4_28db);
    }
    fold(hash ^ 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_numbered_by_first_occurrence() {
        let rows = [
            1.0f32, 2.0, 3.0, 4.0, 1.0, 2.0, 0.0, 1.0, -0.0, 1.0, 3.0, 4.0,
        ];
        let numbers = |equality| {
            let mut numbers = Vec::new();
            RowSet::new(2, equality).insert(&rows, 0..6, 6, &mut numbers);
            numbers
        };
        assert_eq!(numbers(Equality::Bits), [0, 1, 0, 2, 3, 1]);
        assert_eq!(numbers(Equality::Numbers), [0, 1, 0, 2, 2, 1]);
    }

    #[test]
    fn many_rows_survive_growth() {
        let rows: Vec<f64> = (0..30_000).map(|i| f64::from(i % 10_000)).collect();
        let mut set = RowSet::new(1, Equality::Bits);
        let mut numbers = Vec::new();
        set.insert(&rows, 0..rows.len(), rows.len(), &mut numbers);
        assert!(numbers.into_iter().eq((0..30_000).map(|i| i % 10_000)));
        assert!(set.into_first().into_iter().eq(0..10_000));
    }

    #[test]
    fn the_limit_stops_early() {
        let rows: Vec<f32> = (0..100).map(|i| (i / 10) as f32).collect();
        let mut set = RowSet::new(1, Equality::Bits);
        let mut numbers = Vec::new();
        set.insert(&rows, 0..100, 3, &mut numbers);
        assert_eq!((set.first().len(), numbers.len()), (4, 31));
    }
}
