//! An estimate of how many different blocks there are, for any block size, in one pass.
//!
//! A sample of blocks cannot tell whether they occur elsewhere; a sample of *contents* can: of all
//! blocks, those whose hash falls into a fixed part of its range. All copies of a block are in such
//! a sample, or none is.

use std::collections::HashSet;

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::layout::check_block_size;
use crate::monitor::Monitor;

/// Blocks that a sample holds at least, if there are as many.
const SAMPLE: usize = 1 << 17;

/// Bytes of the widest element, a complex number of two f64.
const MAX_ITEMSIZE: usize = 16;

/// Blocks between two looks at the monitor.
const BLOCKS_PER_TASK: usize = 1 << 16;

/// The sampled blocks of some tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeats {
    /// Number of different blocks in the sample.
    pub distinct: usize,
    /// One in how many contents is in the sample.
    pub one_in: usize,
}

/// A sample of the blocks of tensors that come one after another, whole or in pieces.
#[derive(Clone, Debug)]
pub struct Sampler {
    block_size: usize,
    one_in: usize,
    hashes: HashSet<u64>,
}

impl Sampler {
    /// Samples of about `blocks` whole blocks in all.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if the block size is out of range.
    pub fn new(blocks: usize, block_size: usize) -> Result<Self> {
        check_block_size(block_size)?;
        Ok(Self {
            block_size,
            one_in: ((blocks / SAMPLE).next_power_of_two() / 2).max(1),
            hashes: HashSet::new(),
        })
    }

    /// Adds the whole blocks of little-endian elements of `itemsize` bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if no element has that size,
    /// [`crate::ErrorKind::Interrupted`] if cancelled.
    pub fn add(&mut self, bytes: &[u8], itemsize: usize, monitor: &Monitor) -> Result<()> {
        if !(1..=MAX_ITEMSIZE).contains(&itemsize) {
            return Err(Error::invalid_argument(format!(
                "elements of {itemsize} bytes are not between 1 and {MAX_ITEMSIZE}"
            )));
        }
        let size = itemsize * self.block_size;
        let mask = self.one_in as u64 - 1;
        let hashes: Vec<Vec<u64>> = bytes
            .par_chunks(size * BLOCKS_PER_TASK)
            .map(|task| {
                monitor.check()?;
                let hashes = task.chunks_exact(size).map(xxh3_64);
                Ok(hashes.filter(|hash| hash & mask == 0).collect())
            })
            .collect::<Result<_>>()?;
        self.hashes.extend(hashes.into_iter().flatten());
        Ok(())
    }

    /// What the sample tells.
    pub fn repeats(&self) -> Repeats {
        Repeats {
            distinct: self.hashes.len(),
            one_in: self.one_in,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_blocks_are_counted() {
        let values: Vec<u8> = (0..1_200_000u32)
            .flat_map(|i| ((i / 3 % 50_000) * 3 + i % 3).to_le_bytes())
            .collect();
        let sample = |piece_len: usize| {
            let mut sampler = Sampler::new(400_000, 3).unwrap();
            for piece in values.chunks(piece_len) {
                sampler.add(piece, 4, &Monitor::new()).unwrap();
            }
            sampler.repeats()
        };
        let three = sample(values.len());
        assert!(three.one_in > 1);
        let estimate = (three.distinct * three.one_in) as f64;
        assert!((estimate / 50_000.0 - 1.0).abs() < 0.05, "{estimate}");
        assert_eq!(sample(values.len() / 2), three);
        assert_eq!(sample(12 * 1001), three);
        assert!(Sampler::new(400_000, 0).is_err());
        let none = Repeats {
            distinct: 0,
            one_in: 1,
        };
        assert_eq!(Sampler::new(0, 3).unwrap().repeats(), none);
    }
}
