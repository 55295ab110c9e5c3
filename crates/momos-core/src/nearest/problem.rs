//! A checked search problem: its data, its scale and the exact distance that decides.

use rayon::prelude::*;

use super::element::Element;
use crate::error::{Error, Result};
use crate::limits::{MAX_BLOCK_SIZE, MAX_BLOCKS, MAX_MOTIFS};

/// The largest magnitude is scaled into `[2^50, 2^51)`: sums of 4096 squared differences are then
/// far below the largest `f32`, and differences down to `2^-110` of it have normal squares.
const LARGEST_EXPONENT: i32 = 50;

/// Values per task where the data is scanned.
const SCAN_LEN: usize = 1 << 18;

/// Blocks and motifs that were found finite and of fitting shapes.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a, T> {
    blocks: &'a [T],
    motifs: &'a [T],
    block_size: usize,
    scale: f64,
    exact_in_f32: bool,
}

impl<'a, T: Element> Problem<'a, T> {
    /// Checks shapes and values.
    ///
    /// # Errors
    /// `InvalidArgument` if the block size or the number of motifs is out of range, if a length is
    /// no multiple of the block size, or if a value is NaN or infinite.
    pub fn new(blocks: &'a [T], motifs: &'a [T], block_size: usize) -> Result<Self> {
        check_shapes(blocks.len(), motifs.len(), block_size)?;
        let largest = largest_magnitude("motifs", motifs, block_size)?
            .max(largest_magnitude("blocks", blocks, block_size)?);
        let (lowest, highest) = T::SCALE_EXPONENTS;
        let exponent = (LARGEST_EXPONENT - exponent(largest)).clamp(lowest, highest);
        Ok(Self {
            blocks,
            motifs,
            block_size,
            scale: power_of_two(exponent),
            // Scaling down may push small float32 values into underflow.
            exact_in_f32: T::FITS_F32 && exponent >= 0,
        })
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.blocks.len() / self.block_size
    }

    /// Number of motifs.
    pub fn motif_count(&self) -> usize {
        self.motifs.len() / self.block_size
    }

    /// Values per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// All blocks, row after row.
    pub fn blocks(&self) -> &'a [T] {
        self.blocks
    }

    /// All motifs, row after row.
    pub fn motifs(&self) -> &'a [T] {
        self.motifs
    }

    /// Power of two that brings all values into the range the kernels count on.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Whether the scaled values are exact in float32.
    pub fn exact_in_f32(&self) -> bool {
        self.exact_in_f32
    }

    /// One block.
    #[inline(always)]
    pub fn block(&self, index: usize) -> &'a [T] {
        &self.blocks[index * self.block_size..][..self.block_size]
    }

    /// One motif.
    #[inline(always)]
    pub fn motif(&self, index: usize) -> &'a [T] {
        &self.motifs[index * self.block_size..][..self.block_size]
    }

    /// The squared distance that decides: float64, scaled, summed from the first value to the
    /// last with separate multiplications and additions.
    pub fn distance(&self, block: usize, motif: usize) -> f64 {
        let mut sum = 0.0;
        for (x, z) in self.block(block).iter().zip(self.motif(motif)) {
            let difference = x.to_f64() * self.scale - z.to_f64() * self.scale;
            sum += difference * difference;
        }
        sum
    }
}

fn check_shapes(blocks_len: usize, motifs_len: usize, block_size: usize) -> Result<()> {
    if !(1..=MAX_BLOCK_SIZE).contains(&block_size) {
        return Err(Error::invalid_argument(format!(
            "block size must be from 1 to {MAX_BLOCK_SIZE}, not {block_size}"
        )));
    }
    for (name, len) in [("blocks", blocks_len), ("motifs", motifs_len)] {
        if len % block_size != 0 {
            return Err(Error::invalid_argument(format!(
                "{name} have {len} values, which is no multiple of the block size {block_size}"
            )));
        }
    }
    if motifs_len == 0 {
        return Err(Error::invalid_argument("there must be at least one motif"));
    }
    if motifs_len / block_size > MAX_MOTIFS {
        return Err(Error::invalid_argument(format!(
            "{} motifs are more than {MAX_MOTIFS}",
            motifs_len / block_size
        )));
    }
    if blocks_len / block_size > MAX_BLOCKS {
        return Err(Error::invalid_argument(format!(
            "{} blocks are more than {MAX_BLOCKS}",
            blocks_len / block_size
        )));
    }
    Ok(())
}

/// Largest magnitude of the values.
///
/// # Errors
/// `InvalidArgument`, naming the row, if a value is NaN or infinite.
fn largest_magnitude<T: Element>(name: &str, values: &[T], block_size: usize) -> Result<f64> {
    values
        .par_chunks(SCAN_LEN)
        .map(T::largest_magnitude)
        .try_reduce(|| 0.0, |a, b| Some(a.max(b)))
        .ok_or_else(|| {
            let bad = values.iter().position(|value| !value.is_finite());
            let row = bad.unwrap_or_default() / block_size;
            Error::invalid_argument(format!(
                "{name} must be finite, but row {row} holds NaN or infinity"
            ))
        })
}

/// Exponent `e` with `2^e <= value < 2^(e+1)`, the smallest normal one for zero and subnormals.
fn exponent(value: f64) -> i32 {
    ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

/// `2^exponent` for the exponents of normal numbers.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_is_a_power_of_two_that_brings_the_largest_value_into_range() {
        let problem = Problem::new(&[3.0f64, -1e300], &[2.0, 1.0], 2).unwrap();
        assert!((2f64.powi(50)..2f64.powi(51)).contains(&(1e300 * problem.scale())));
        assert_eq!(problem.scale(), 2f64.powi(problem.scale().log2() as i32));
        assert!(!problem.exact_in_f32());
        assert!(Problem::new(&[1.0f32], &[1.0], 1).unwrap().exact_in_f32());
        assert!(!Problem::new(&[1e38f32], &[1.0], 1).unwrap().exact_in_f32());
        assert_eq!(
            Problem::new(&[0.0f32], &[0.0], 1).unwrap().distance(0, 0),
            0.0
        );
    }

    #[test]
    fn subnormal_differences_have_a_distance() {
        let (block, motif) = ([f64::from_bits(1)], [f64::from_bits(2)]);
        let problem = Problem::new(&block, &motif, 1).unwrap();
        assert!(problem.distance(0, 0) > 0.0);
    }

    #[test]
    fn bad_input_is_named() {
        let message = |blocks: &[f32], motifs: &[f32], size| {
            Problem::new(blocks, motifs, size)
                .unwrap_err()
                .message()
                .to_owned()
        };
        assert!(message(&[1.0], &[1.0], 0).contains("block size"));
        assert!(message(&[1.0], &[1.0], 4097).contains("4096"));
        assert!(message(&[1.0; 3], &[1.0; 2], 2).contains("blocks have 3 values"));
        assert!(message(&[1.0; 2], &[1.0; 3], 2).contains("motifs have 3 values"));
        assert!(message(&[1.0], &[], 1).contains("at least one motif"));
        let nan = [0.0, 0.0, 0.0, f32::NAN];
        assert!(message(&nan, &[1.0; 2], 2).contains("blocks must be finite, but row 1"));
        assert!(message(&[1.0; 2], &nan, 2).contains("motifs must be finite, but row 1"));
    }
}
