//! A checked search problem: its data, its scale and the exact distance that decides.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::element::Element;
use crate::error::{Error, Result};
use crate::limits::{MAX_BLOCK_SIZE, MAX_BLOCKS, MAX_MOTIFS};
use crate::simd::prefetch;

/// The largest magnitude is scaled into `[2^50, 2^51)`: sums of 4096 squared differences are then
/// far below the largest `f32`, and differences down to `2^-110` of it have normal squares.
const LARGEST_EXPONENT: i32 = 50;

/// Bytes that are asked for at once.
const LINE_BYTES: usize = 64;
/// Lines of a block that are asked for; what follows them comes by itself.
const LINES_AHEAD: usize = 4;

/// Values per task where the data is scanned.
const SCAN_LEN: usize = 1 << 18;

/// Motifs that were found finite and of a fitting shape, and how all data is scaled.
#[derive(Clone, Debug)]
pub struct MotifSet<'a, T: Clone> {
    values: Cow<'a, [T]>,
    block_size: usize,
    largest: f64,
    /// Power of two that brings all values into the range the kernels count on.
    scale: f64,
    exact_in_f32: bool,
}

impl<'a, T: Element> MotifSet<'a, T> {
    /// Checks the motifs, to be searched for blocks whose values are at most `largest_block`.
    ///
    /// # Errors
    /// `InvalidArgument` if the block size or the number of motifs is out of range, if the length
    /// is not a multiple of the block size, or if a value is NaN or infinite.
    pub fn new(values: Cow<'a, [T]>, block_size: usize, largest_block: f64) -> Result<Self> {
        check_motifs(values.len(), block_size)?;
        let largest = largest_magnitude("motifs", &values, block_size)?.max(largest_block);
        let (lowest, highest) = T::SCALE_EXPONENTS;
        let exponent = (LARGEST_EXPONENT - exponent(largest)).clamp(lowest, highest);
        Ok(Self {
            values,
            block_size,
            largest,
            scale: power_of_two(exponent),
            // Scaling down may push small float32 values into underflow.
            exact_in_f32: T::FITS_F32 && exponent >= 0,
        })
    }

    /// Number of motifs.
    pub fn len(&self) -> usize {
        self.values.len() / self.block_size
    }

    /// Values per motif.
    #[inline(always)]
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// All motifs, row after row.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// Whether the scaled values are exact in float32.
    pub fn exact_in_f32(&self) -> bool {
        self.exact_in_f32
    }

    /// One motif.
    #[inline(always)]
    pub fn motif(&self, index: u32) -> &[T] {
        &self.values[index as usize * self.block_size..][..self.block_size]
    }

    /// One motif, scaled and rounded to float32.
    #[inline(always)]
    pub fn scaled(&self, index: u32) -> impl Iterator<Item = f32> {
        let values = self.motif(index).iter();
        values.map(|value| value.scaled_to_f32(self.scale))
    }
}

/// Blocks that were found finite and of a fitting shape, and the motifs to search for them.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a, T: Clone> {
    blocks: &'a [T],
    motifs: &'a MotifSet<'a, T>,
    within: Option<&'a [f32]>,
}

impl<'a, T: Element> Problem<'a, T> {
    /// Checks shapes and values.
    ///
    /// # Errors
    /// `InvalidArgument` if the length is not a multiple of the block size, or if a value is NaN,
    /// infinite or larger than was announced.
    pub fn new(blocks: &'a [T], motifs: &'a MotifSet<'a, T>) -> Result<Self> {
        check_blocks(blocks.len(), motifs.block_size)?;
        let largest = largest_magnitude("blocks", blocks, motifs.block_size)?;
        if largest > motifs.largest {
            return Err(Error::invalid_argument(format!(
                "blocks hold a value of {largest:e}, but at most {:e} was announced",
                motifs.largest
            )));
        }
        Ok(Self {
            blocks,
            motifs,
            within: None,
        })
    }

    /// The same search for some of the blocks.
    pub fn with_blocks<'b>(&'b self, blocks: &'b [T]) -> Problem<'b, T> {
        Problem {
            blocks,
            motifs: self.motifs,
            within: None,
        }
    }

    /// The same search, given for every block the distance of some motif in scaled float32.
    pub fn with_distances<'b>(&'b self, within: &'b [f32]) -> Problem<'b, T> {
        Problem {
            blocks: self.blocks,
            motifs: self.motifs,
            within: Some(within),
        }
    }

    /// For every block a squared distance that some motif has, in scaled float32, if known.
    #[inline(always)]
    pub fn distances(&self) -> Option<&'a [f32]> {
        self.within
    }

    /// The squared distance between a block and a motif in scaled float32.
    #[inline(always)]
    pub fn float_distance(&self, block: usize, motif: u32) -> f32 {
        let scale = self.scale();
        let mut sum = 0.0;
        for (x, z) in self.block(block).iter().zip(self.motifs.scaled(motif)) {
            let difference = x.scaled_to_f32(scale) - z;
            sum += difference * difference;
        }
        sum
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.blocks.len() / self.motifs.block_size
    }

    /// Values per block.
    #[inline(always)]
    pub fn block_size(&self) -> usize {
        self.motifs.block_size
    }

    /// All blocks, row after row.
    pub fn blocks(&self) -> &'a [T] {
        self.blocks
    }

    /// Power of two that brings all values into the range the kernels count on.
    #[inline(always)]
    pub fn scale(&self) -> f64 {
        self.motifs.scale
    }

    /// One block.
    #[inline(always)]
    pub fn block(&self, index: usize) -> &'a [T] {
        &self.blocks[index * self.block_size()..][..self.block_size()]
    }

    /// Asks for a block, and what is known of it, that will be needed soon.
    #[inline(always)]
    pub fn ask_for(&self, index: usize) {
        let block = self.block(index);
        let lines = block.chunks(LINE_BYTES / size_of::<T>());
        lines.take(LINES_AHEAD).for_each(|line| prefetch(&line[0]));
        // The block may end in another line.
        prefetch(&block[block.len() - 1]);
        if let Some(distances) = self.within {
            prefetch(&distances[index]);
        }
    }

    /// The squared distance that decides: float64, scaled, summed from the first value to the
    /// last with separate multiplications and additions.
    pub fn distance(&self, block: usize, motif: u32) -> f64 {
        let scale = self.scale();
        let mut sum = 0.0;
        for (x, z) in self.block(block).iter().zip(self.motifs.motif(motif)) {
            let difference = x.to_f64() * scale - z.to_f64() * scale;
            sum += difference * difference;
        }
        sum
    }
}

/// Largest magnitude of blocks.
///
/// # Errors
/// `InvalidArgument`, naming the row, if a value is NaN or infinite.
pub fn largest_block<T: Element>(blocks: &[T], block_size: usize) -> Result<f64> {
    check_block_size(block_size)?;
    largest_magnitude("blocks", blocks, block_size)
}

fn check_block_size(block_size: usize) -> Result<()> {
    if (1..=MAX_BLOCK_SIZE).contains(&block_size) {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "block size must be from 1 to {MAX_BLOCK_SIZE}, not {block_size}"
    )))
}

fn check_multiple(name: &str, len: usize, block_size: usize) -> Result<()> {
    check_block_size(block_size)?;
    if len.is_multiple_of(block_size) {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "{name} have {len} values, which is not a multiple of the block size {block_size}"
    )))
}

fn check_motifs(len: usize, block_size: usize) -> Result<()> {
    check_multiple("motifs", len, block_size)?;
    match len / block_size {
        0 => Err(Error::invalid_argument("there must be at least one motif")),
        count if count > MAX_MOTIFS => Err(Error::invalid_argument(format!(
            "{count} motifs are more than {MAX_MOTIFS}"
        ))),
        _ => Ok(()),
    }
}

fn check_blocks(len: usize, block_size: usize) -> Result<()> {
    check_multiple("blocks", len, block_size)?;
    match len / block_size {
        count if count > MAX_BLOCKS => Err(Error::invalid_argument(format!(
            "{count} blocks are more than {MAX_BLOCKS}"
        ))),
        _ => Ok(()),
    }
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

    fn set<T: Element>(motifs: &[T], block_size: usize, largest: f64) -> MotifSet<'_, T> {
        MotifSet::new(Cow::Borrowed(motifs), block_size, largest).unwrap()
    }

    #[test]
    fn scaling_is_a_power_of_two_that_brings_the_largest_value_into_range() {
        let motifs = set(&[2.0f64, 1.0], 2, 1e300);
        assert!((2f64.powi(50)..2f64.powi(51)).contains(&(1e300 * motifs.scale)));
        assert_eq!(motifs.scale, 2f64.powi(motifs.scale.log2() as i32));
        assert!(!motifs.exact_in_f32());
        assert!(set(&[1.0f32], 1, 1.0).exact_in_f32());
        assert!(!set(&[1.0f32], 1, 1e38).exact_in_f32());
        let zero = set(&[0.0f32], 1, 0.0);
        assert_eq!(Problem::new(&[0.0], &zero).unwrap().distance(0, 0), 0.0);
    }

    #[test]
    fn subnormal_differences_have_a_distance() {
        let (block, motif) = ([f64::from_bits(1)], [f64::from_bits(2)]);
        let motifs = set(&motif, 1, block[0]);
        assert!(Problem::new(&block, &motifs).unwrap().distance(0, 0) > 0.0);
    }

    #[test]
    fn bad_input_is_named() {
        let message = |blocks: &[f32], motifs: &[f32], size| {
            let motifs = MotifSet::new(Cow::Borrowed(motifs), size, 1.0);
            let result = motifs.and_then(|motifs| Problem::new(blocks, &motifs).map(|_| ()));
            result.unwrap_err().message().to_owned()
        };
        assert!(message(&[1.0], &[1.0], 0).contains("block size"));
        assert!(message(&[1.0], &[1.0], 4097).contains("4096"));
        assert!(message(&[1.0; 3], &[1.0; 2], 2).contains("blocks have 3 values"));
        assert!(message(&[1.0; 2], &[1.0; 3], 2).contains("motifs have 3 values"));
        assert!(message(&[1.0], &[], 1).contains("at least one motif"));
        assert!(message(&[2.0], &[1.0], 1).contains("at most 1e0 was announced"));
        let nan = [0.0, 0.0, 0.0, f32::NAN];
        assert!(message(&nan, &[1.0; 2], 2).contains("blocks must be finite, but row 1"));
        assert!(message(&[1.0; 2], &nan, 2).contains("motifs must be finite, but row 1"));
        assert!(
            largest_block(&nan, 2)
                .unwrap_err()
                .message()
                .contains("row 1")
        );
        assert_eq!(largest_block(&[1.0, -3.0f32], 2).unwrap(), 3.0);
    }
}
