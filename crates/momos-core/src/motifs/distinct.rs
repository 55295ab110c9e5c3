//! The blocks that differ.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::limits::MAX_BLOCK_SIZE;
use crate::monitor::Monitor;
use crate::row_set::{Equality, RowSet};

/// Blocks between two looks at the monitor.
const BLOCKS_PER_CHECK: usize = 1 << 14;

/// The different blocks, and which of them each block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distinct {
    /// Index of each different block's first occurrence, ascending.
    pub first: Vec<usize>,
    /// For every block, which of them it is.
    pub indices: Vec<u32>,
}

/// Finds the different blocks, or `None` as soon as there are more than `limit`.
///
/// Blocks are told apart by their bits, so 0 and -0 differ, and NaN is like any other value.
/// `blocks` (m, s) are row-major with s = `block_size`. The monitor advances by m in all.
///
/// # Errors
/// `InvalidArgument` if s is not within 1 to 4096 or the length is not a multiple of s;
/// `Interrupted` if the monitor was cancelled.
pub fn distinct<T: Element>(
    blocks: &[T],
    block_size: usize,
    limit: usize,
    monitor: &Monitor,
) -> Result<Option<Distinct>> {
    if !(1..=MAX_BLOCK_SIZE).contains(&block_size) || !blocks.len().is_multiple_of(block_size) {
        return Err(Error::invalid_argument(format!(
            "{} values cannot be cut into blocks of {block_size} (at most {MAX_BLOCK_SIZE})",
            blocks.len()
        )));
    }
    let m = blocks.len() / block_size;
    let limit = limit.min(u32::MAX as usize - 1);
    let mut set = RowSet::new(block_size, Equality::Bits);
    let mut indices = Vec::new();
    for start in (0..m).step_by(BLOCKS_PER_CHECK) {
        monitor.check()?;
        let end = (start + BLOCKS_PER_CHECK).min(m);
        set.insert(blocks, start..end, limit, &mut indices);
        if set.first().len() > limit {
            return Ok(None);
        }
        monitor.advance((end - start) as u64);
    }
    Ok(Some(Distinct {
        first: set.into_first(),
        indices,
    }))
}

/// The different blocks among those that come one after another, each kept once.
///
/// Blocks are numbered by first occurrence and told apart as by [`distinct`]; memory is
/// proportional to the limit, not to the number of blocks.
#[derive(Debug)]
pub struct DistinctBlocks<T> {
    block_size: usize,
    limit: usize,
    rows: Vec<T>,
    set: RowSet,
}

impl<T: Element> DistinctBlocks<T> {
    /// None yet, and at most `limit`.
    ///
    /// # Errors
    /// `InvalidArgument` if s is not within 1 to 4096.
    pub fn new(block_size: usize, limit: usize) -> Result<Self> {
        if !(1..=MAX_BLOCK_SIZE).contains(&block_size) {
            return Err(Error::invalid_argument(format!(
                "block size must be between 1 and {MAX_BLOCK_SIZE}, not {block_size}"
            )));
        }
        Ok(Self {
            block_size,
            limit: limit.min(u32::MAX as usize - 1),
            rows: Vec::new(),
            set: RowSet::new(block_size, Equality::Bits),
        })
    }

    /// The number of each of the given blocks, or `None` once there are more than the limit.
    ///
    /// # Errors
    /// `InvalidArgument` if the length is not a multiple of s; `Interrupted` if the monitor was
    /// cancelled. The monitor advances by the blocks.
    pub fn add(&mut self, blocks: &[T], monitor: &Monitor) -> Result<Option<Vec<u32>>> {
        if !blocks.len().is_multiple_of(self.block_size) {
            return Err(Error::invalid_argument(format!(
                "{} values are not whole blocks of {}",
                blocks.len(),
                self.block_size
            )));
        }
        let mut numbers = Vec::new();
        for part in blocks.chunks(BLOCKS_PER_CHECK * self.block_size) {
            monitor.check()?;
            for block in part.chunks_exact(self.block_size) {
                // A row of the set if it is new, and taken back if not.
                let known = self.set.first().len();
                self.rows.extend_from_slice(block);
                self.set
                    .insert(&self.rows, known..known + 1, self.limit, &mut numbers);
                if self.set.first().len() > self.limit {
                    return Ok(None);
                }
                if self.set.first().len() == known {
                    self.rows.truncate(known * self.block_size);
                }
            }
            monitor.advance((part.len() / self.block_size) as u64);
        }
        Ok(Some(numbers))
    }

    /// The different blocks so far, row-major.
    pub fn rows(&self) -> &[T] {
        &self.rows[..self.set.first().len() * self.block_size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_the_same_as_the_whole() {
        let blocks: Vec<f32> = (0..60_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 % 37.0)
            .collect();
        for (size, limit) in [(1, 40), (2, 2000), (2, 30), (3, 100_000)] {
            let whole = distinct(&blocks, size, limit, &Monitor::new()).unwrap();
            let mut set = DistinctBlocks::new(size, limit).unwrap();
            let mut indices = Some(Vec::new());
            for piece in blocks.chunks(size * 777) {
                let numbers = set.add(piece, &Monitor::new()).unwrap();
                indices = indices.zip(numbers).map(|(mut all, numbers)| {
                    all.extend(numbers);
                    all
                });
                if indices.is_none() {
                    break;
                }
            }
            assert_eq!(indices, whole.as_ref().map(|found| found.indices.clone()));
            if let Some(found) = whole {
                let rows: Vec<f32> = found
                    .first
                    .iter()
                    .flat_map(|&first| blocks[first * size..][..size].iter().copied())
                    .collect();
                assert_eq!(set.rows(), rows);
            }
        }
        assert!(DistinctBlocks::<f32>::new(0, 1).is_err());
        assert!(
            DistinctBlocks::new(2, 9)
                .unwrap()
                .add(&[1.0f32], &Monitor::new())
                .is_err()
        );
    }

    #[test]
    fn blocks_are_told_apart_by_bits_and_numbered_by_first_occurrence() {
        let blocks = [
            1.0f64,
            0.0,
            f64::NAN,
            1.0,
            1.0,
            -0.0,
            1.0,
            0.0,
            f64::NAN,
            1.0,
        ];
        let found = distinct(&blocks, 2, 3, &Monitor::new()).unwrap().unwrap();
        assert_eq!(found.indices, [0, 1, 2, 0, 1]);
        assert_eq!(found.first, [0, 1, 2]);
        assert_eq!(distinct(&blocks[..8], 2, 2, &Monitor::new()).unwrap(), None);
    }

    #[test]
    fn limits_are_exact() {
        let blocks: Vec<f32> = (0..100_000).map(|i| (i % 5000) as f32).collect();
        assert!(
            distinct(&blocks, 1, 4999, &Monitor::new())
                .unwrap()
                .is_none()
        );
        let monitor = Monitor::new();
        let found = distinct(&blocks, 1, 5000, &monitor).unwrap().unwrap();
        assert_eq!(monitor.done(), 100_000);
        assert!(found.first.into_iter().eq(0..5000));
        assert!(
            found
                .indices
                .iter()
                .enumerate()
                .all(|(i, &index)| index as usize == i % 5000)
        );
    }

    #[test]
    fn nothing_has_no_distinct_blocks() {
        let found = distinct::<f32>(&[], 4, 0, &Monitor::new())
            .unwrap()
            .unwrap();
        assert!(found.first.is_empty() && found.indices.is_empty());
        assert!(
            distinct(&[1.0f32], 1, 0, &Monitor::new())
                .unwrap()
                .is_none()
        );
        assert!(distinct(&[1.0f32], 2, 9, &Monitor::new()).is_err());
        assert!(distinct(&[1.0f32], 0, 9, &Monitor::new()).is_err());
    }

    #[test]
    fn a_cancelled_search_stops() {
        let monitor = Monitor::new();
        monitor.cancel();
        assert!(distinct(&[1.0f32], 1, 9, &monitor).is_err());
    }
}
