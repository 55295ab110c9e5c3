//! Which values make up which block, and how a tensor comes back from motifs.
//!
//! A tensor of `n` elements, flattened in C order, is cut into `ceil(n / s)` blocks of `s`
//! consecutive values; the last block is padded with zeros. Blocks of several tensors follow one
//! another in the order of the tensors, so block `i` of a tensor is block `offset + i` of the
//! model. Padding exists only inside blocks: it is never written back.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::float::{FloatType, Working};
use crate::limits::{MAX_BLOCK_SIZE, MAX_BLOCKS};
use crate::memory::zeroed;
use crate::monitor::Monitor;

/// Elements that one task converts at a time; also the unit in which sums are formed, so that
/// they do not depend on the number of threads.
pub const ELEMENTS_PER_TASK: usize = 1 << 16;

/// A tensor's elements as little-endian bytes in C order.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    bytes: &'a [u8],
    float: FloatType,
}

impl<'a> Weights<'a> {
    /// Bytes of a tensor.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if `bytes` is not a whole number of elements.
    pub fn new(bytes: &'a [u8], float: FloatType) -> Result<Self> {
        float.count(bytes)?;
        Ok(Self { bytes, float })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.float.size()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Number of blocks of `block_size` values that hold `elements` values.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] unless `1 <= block_size <= MAX_BLOCK_SIZE` and the blocks
/// number at most [`MAX_BLOCKS`].
pub fn block_count(elements: usize, block_size: usize) -> Result<usize> {
    check_block_size(block_size)?;
    let blocks = elements.div_ceil(block_size);
    if blocks > MAX_BLOCKS {
        return Err(Error::invalid_argument(format!(
            "{blocks} blocks are more than the {MAX_BLOCKS} a mosaic can have"
        )));
    }
    Ok(blocks)
}

/// Checks a block size.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] unless `1 <= block_size <= MAX_BLOCK_SIZE`.
pub fn check_block_size(block_size: usize) -> Result<()> {
    if block_size == 0 || block_size > MAX_BLOCK_SIZE {
        return Err(Error::invalid_argument(format!(
            "block size must be between 1 and {MAX_BLOCK_SIZE}, not {block_size}"
        )));
    }
    Ok(())
}

/// The blocks of all tensors in order: `m` rows of `block_size` values, zero-padded.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] for a block size out of range,
/// [`crate::ErrorKind::OutOfMemory`], [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by elements.
pub fn gather<T: Working>(
    tensors: &[Weights<'_>],
    block_size: usize,
    monitor: &Monitor,
) -> Result<Vec<T>> {
    check_block_size(block_size)?;
    let mut starts = Vec::with_capacity(tensors.len());
    let mut blocks = 0usize;
    for tensor in tensors {
        starts.push(blocks * block_size);
        blocks += block_count(tensor.len(), block_size)?;
    }
    let mut out = zeroed::<T>(blocks * block_size)?;
    let mut rest = out.as_mut_slice();
    let mut taken = 0;
    for (tensor, &start) in tensors.iter().zip(&starts) {
        let (_, tail) = std::mem::take(&mut rest).split_at_mut(start - taken);
        let (slot, tail) = tail.split_at_mut(tensor.len());
        rest = tail;
        taken = start + tensor.len();
        let size = tensor.float.size();
        slot.par_chunks_mut(ELEMENTS_PER_TASK)
            .zip(tensor.bytes.par_chunks(ELEMENTS_PER_TASK * size))
            .try_for_each(|(values, bytes)| {
                monitor.check()?;
                T::read_bytes(values, bytes, tensor.float);
                monitor.advance(values.len() as u64);
                Ok(())
            })?;
    }
    Ok(out)
}

/// A tensor of `elements` values rebuilt from its blocks' motifs, as little-endian bytes.
///
/// `motifs` holds rows of `block_size` values, `indices` one row number per block of the tensor.
/// Values are rounded to `float` (to nearest even) where it is narrower than `T`.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if the number of indices is not that of the tensor's
/// blocks, [`crate::ErrorKind::Corruption`] if an index names no motif,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by elements.
pub fn scatter<T: Working>(
    motifs: &[T],
    indices: &[u32],
    elements: usize,
    block_size: usize,
    float: FloatType,
    monitor: &Monitor,
) -> Result<Vec<u8>> {
    let blocks = block_count(elements, block_size)?;
    if indices.len() != blocks || !motifs.len().is_multiple_of(block_size) {
        return Err(Error::invalid_argument(format!(
            "{elements} elements need {blocks} indices into whole motifs, not {}",
            indices.len()
        )));
    }
    let block_bytes = block_size * float.size();
    let count = motifs.len() / block_size;

    let mut out = zeroed::<u8>(elements.saturating_mul(float.size()))?;
    let blocks_per_task = ELEMENTS_PER_TASK.div_ceil(block_size);
    out.par_chunks_mut(blocks_per_task * block_bytes)
        .zip(indices.par_chunks(blocks_per_task))
        .try_for_each(|(bytes, indices)| {
            monitor.check()?;
            match block_size {
                1 => write_rows::<T, 1>(motifs, indices, bytes, float),
                2 => write_rows::<T, 2>(motifs, indices, bytes, float),
                4 => write_rows::<T, 4>(motifs, indices, bytes, float),
                8 => write_rows::<T, 8>(motifs, indices, bytes, float),
                _ => write_blocks(motifs, indices, bytes, block_size, float),
            }
            .map_err(|index| {
                Error::corruption(format!(
                    "the mosaic names motif {index}, but there are {count}"
                ))
            })?;
            monitor.advance((bytes.len() / float.size()) as u64);
            Ok(())
        })?;
    Ok(out)
}

/// Writes the motifs of some blocks, the last of which may be cut off; returns an index that names
/// none.
fn write_blocks<T: Working>(
    motifs: &[T],
    indices: &[u32],
    out: &mut [u8],
    block_size: usize,
    float: FloatType,
) -> std::result::Result<(), u32> {
    for (slot, &index) in out.chunks_mut(block_size * float.size()).zip(indices) {
        let start = index as usize * block_size;
        let row = motifs.get(start..start + block_size).ok_or(index)?;
        T::write_bytes(row, slot, float);
    }
    Ok(())
}

/// [`write_blocks`] for blocks of a size that the compiler knows.
fn write_rows<T: Working, const S: usize>(
    motifs: &[T],
    indices: &[u32],
    out: &mut [u8],
    float: FloatType,
) -> std::result::Result<(), u32> {
    let rows = motifs.as_chunks::<S>().0;
    let mut slots = out.chunks_exact_mut(S * float.size());
    for (slot, &index) in (&mut slots).zip(indices) {
        T::write_row(rows.get(index as usize).ok_or(index)?, slot, float);
    }
    let cut_off = slots.into_remainder();
    if !cut_off.is_empty() {
        write_blocks(motifs, &indices[indices.len() - 1..], cut_off, S, float)?;
    }
    Ok(())
}

/// What one pass over a tensor tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Survey {
    /// Position of the first NaN or infinity in C order.
    pub first_non_finite: Option<usize>,
    /// Sum of the squares, in f64.
    pub sum_of_squares: f64,
    /// Elements equal to zero (of either sign).
    pub zeros: usize,
}

/// Surveys a tensor; the sum does not depend on the number of threads.
///
/// # Errors
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by elements.
pub fn survey(tensor: Weights<'_>, monitor: &Monitor) -> Result<Survey> {
    let parts = by_task(tensor, tensor, monitor, |offset, values, _| {
        let mut part = Survey::default();
        for (index, value) in values.iter().enumerate() {
            part.sum_of_squares += value * value;
            part.zeros += usize::from(*value == 0.0);
            if !value.is_finite() && part.first_non_finite.is_none() {
                part.first_non_finite = Some(offset + index);
            }
        }
        part
    })?;
    Ok(parts
        .into_iter()
        .fold(Survey::default(), |total, part| Survey {
            first_non_finite: total.first_non_finite.or(part.first_non_finite),
            sum_of_squares: total.sum_of_squares + part.sum_of_squares,
            zeros: total.zeros + part.zeros,
        }))
}

/// How one tensor differs from another of the same type and size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Sum of the squared differences, in f64.
    pub distortion: f64,
    /// Sum of the squares of the original, in f64.
    pub sum_of_squares: f64,
    /// Largest absolute difference.
    pub largest: f64,
    /// Elements whose bits differ.
    pub changed: usize,
}

/// Compares a tensor with the original; the sums do not depend on the number of threads.
///
/// Elements with equal bits differ by nothing, also where they are NaN or infinite.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if the tensors differ in type or size,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by elements.
pub fn compare(original: Weights<'_>, other: Weights<'_>, monitor: &Monitor) -> Result<Difference> {
    compare_more(Difference::default(), original, other, monitor)
}

/// Goes on comparing where `before` ended, as [`compare`] of everything at once would.
///
/// The sums are the same if all but the last of the pieces have a multiple of
/// [`ELEMENTS_PER_TASK`] elements.
///
/// # Errors
/// As [`compare`].
pub fn compare_more(
    before: Difference,
    original: Weights<'_>,
    other: Weights<'_>,
    monitor: &Monitor,
) -> Result<Difference> {
    if original.float != other.float || original.bytes.len() != other.bytes.len() {
        return Err(Error::invalid_argument(
            "only tensors of one type and size can be compared",
        ));
    }
    let parts = by_task(original, other, monitor, |_, a, b| {
        let mut part = Difference::default();
        for (a, b) in a.iter().zip(b) {
            part.sum_of_squares += a * a;
            if a.to_bits() != b.to_bits() {
                let difference = a - b;
                part.distortion += difference * difference;
                part.largest = part.largest.max(difference.abs());
                part.changed += 1;
            }
        }
        part
    })?;
    Ok(parts.into_iter().fold(before, |total, part| Difference {
        distortion: total.distortion + part.distortion,
        sum_of_squares: total.sum_of_squares + part.sum_of_squares,
        largest: total.largest.max(part.largest),
        changed: total.changed + part.changed,
    }))
}

/// Applies `work` to corresponding pieces of two tensors, widened to f64; results in order.
fn by_task<R: Send>(
    a: Weights<'_>,
    b: Weights<'_>,
    monitor: &Monitor,
    work: impl Fn(usize, &[f64], &[f64]) -> R + Sync,
) -> Result<Vec<R>> {
    let stride = ELEMENTS_PER_TASK * a.float.size();
    a.bytes
        .par_chunks(stride)
        .zip(b.bytes.par_chunks(stride))
        .enumerate()
        .map_init(
            || (vec![0f64; ELEMENTS_PER_TASK], vec![0f64; ELEMENTS_PER_TASK]),
            |(x, y), (task, (a_bytes, b_bytes))| {
                monitor.check()?;
                let count = a_bytes.len() / a.float.size();
                f64::read_bytes(&mut x[..count], a_bytes, a.float);
                f64::read_bytes(&mut y[..count], b_bytes, b.float);
                monitor.advance(count as u64);
                Ok(work(task * ELEMENTS_PER_TASK, &x[..count], &y[..count]))
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn blocks_of_two_tensors_follow_one_another_with_their_own_padding() {
        let (a, b) = (bytes(&[1.0, 2.0, 3.0]), bytes(&[4.0, 5.0]));
        let tensors = [&a, &b].map(|t| Weights::new(t, FloatType::F32).unwrap());
        let blocks: Vec<f32> = gather(&tensors, 2, &Monitor::new()).unwrap();
        assert_eq!(blocks, [1.0, 2.0, 3.0, 0.0, 4.0, 5.0]);
    }

    #[test]
    fn an_index_without_motif_is_corruption() {
        let error = scatter(&[0f32; 4], &[0, 2], 4, 2, FloatType::F32, &Monitor::new());
        assert_eq!(error.unwrap_err().kind(), crate::ErrorKind::Corruption);
    }

    #[test]
    fn a_survey_names_the_first_non_finite_element() {
        let mut values = vec![1f32; 3 * ELEMENTS_PER_TASK];
        values[5] = 0.0;
        values[70_000] = f32::NAN;
        values[140_000] = f32::INFINITY;
        let data = bytes(&values);
        let weights = Weights::new(&data, FloatType::F32).unwrap();
        let survey = survey(weights, &Monitor::new()).unwrap();
        assert_eq!(survey.first_non_finite, Some(70_000));
        assert_eq!(survey.zeros, 1);
    }

    #[test]
    fn pieces_compare_as_the_whole() {
        let values: Vec<f32> = (0..4 * ELEMENTS_PER_TASK + 99)
            .map(|i| (i % 1009) as f32 * 0.37)
            .collect();
        let shifted: Vec<f32> = values.iter().map(|value| value * 1.01 - 0.2).collect();
        let (a, b) = (bytes(&values), bytes(&shifted));
        let weights = |data| Weights::new(data, FloatType::F32).unwrap();
        let whole = compare(weights(&a), weights(&b), &Monitor::new()).unwrap();
        let mut total = Difference::default();
        let step = 2 * ELEMENTS_PER_TASK * 4;
        for (a, b) in a.chunks(step).zip(b.chunks(step)) {
            total = compare_more(total, weights(a), weights(b), &Monitor::new()).unwrap();
        }
        assert_eq!(total, whole);
    }

    #[test]
    fn equal_nans_do_not_differ_and_signed_zeros_do() {
        let a = bytes(&[f32::NAN, 0.0, 1.0]);
        let b = bytes(&[f32::NAN, -0.0, 3.0]);
        let [a, b] = [&a, &b].map(|t| Weights::new(t, FloatType::F32).unwrap());
        let difference = compare(a, b, &Monitor::new()).unwrap();
        assert_eq!(difference.changed, 2);
        assert_eq!(difference.distortion, 4.0);
        assert_eq!(difference.largest, 2.0);
    }

    proptest! {
        /// Every block as its own motif gives the tensor back, for any sizes.
        #[test]
        fn scatter_inverts_gather(
            values in proptest::collection::vec(any::<u32>(), 0..200),
            block_size in 1usize..9,
        ) {
            let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let weights = Weights::new(&data, FloatType::F32).unwrap();
            let blocks: Vec<f32> = gather(&[weights], block_size, &Monitor::new()).unwrap();
            prop_assert_eq!(blocks.len(), values.len().div_ceil(block_size) * block_size);
            let indices: Vec<u32> = (0..(blocks.len() / block_size) as u32).collect();
            let back = scatter(
                &blocks, &indices, values.len(), block_size, FloatType::F32, &Monitor::new(),
            ).unwrap();
            prop_assert_eq!(back, data);
        }
    }
}
