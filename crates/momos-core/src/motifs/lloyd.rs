//! Lloyd's iterations: motifs move to the mean of the blocks they represent.

use super::clusters::Clusters;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::nearest::{Expected, Kernel, MotifSearch, Options, Searchable, largest_block};

/// What [`lloyd`] arrived at.
#[derive(Clone, Debug, PartialEq)]
pub struct Refined<T> {
    /// The motifs (k, s), row-major.
    pub motifs: Vec<T>,
    /// The nearest of these motifs for every block (m).
    pub indices: Vec<u32>,
    /// Sum of squared differences between blocks and motifs: with the motifs given, then after
    /// every iteration that moved a motif.
    pub distortions: Vec<f64>,
}

/// Refines motifs by at most `iterations` of Lloyd's algorithm with the exact search.
///
/// Every iteration moves each motif to the mean of its blocks, rounded to `T`, and searches again.
/// A motif without blocks stays as it is, and so does motif 0 if `fixed_zero` says that it is the
/// zero block. It ends early once no motif moves. Sums are taken in float64 in the order of the
/// blocks, so the result does not depend on threads.
///
/// `blocks` (m, s) and `motifs` (k, s) are row-major with s = `block_size`. The monitor advances
/// by m for every search; there is one before the first iteration and one in each.
///
/// # Errors
/// As [`nearest_motifs`](crate::nearest::nearest_motifs); also `InvalidArgument` if `fixed_zero` is set and motif 0 is not zero.
pub fn lloyd<T: Searchable>(
    blocks: &[T],
    motifs: &[T],
    block_size: usize,
    iterations: usize,
    fixed_zero: bool,
    monitor: &Monitor,
) -> Result<Refined<T>> {
    let expected = Expected {
        blocks: blocks.len() / block_size.max(1),
        largest: largest_block(blocks, block_size)?,
    };
    let prepare = |motifs: &[T], kernel: Option<Kernel>| {
        let options = Options { kernel, isa: None };
        MotifSearch::<T>::new(motifs.to_vec(), block_size, expected, options, monitor)
    };
    let mut motifs = motifs.to_vec();
    let search = prepare(&motifs, None)?;
    let mut indices = search.nearest(blocks, monitor)?;
    // What was the fastest still is when motifs have moved a little.
    let kernel = Some(search.plan().kernel);
    drop(search);
    if fixed_zero
        && motifs[..block_size]
            .iter()
            .any(|value| value.to_f64() != 0.0)
    {
        return Err(Error::invalid_argument(
            "motif 0 must be the zero block if it is fixed",
        ));
    }
    let mut clusters = Clusters::new(motifs.len() / block_size, block_size, expected.largest)?;
    clusters.add(blocks, &indices, monitor)?;
    let mut distortions = Vec::new();
    for _ in 0..iterations {
        let (moved, before) = clusters.move_motifs(&mut motifs, usize::from(fixed_zero));
        distortions.push(before);
        if !moved.contains(&true) {
            return Ok(Refined {
                motifs,
                indices,
                distortions,
            });
        }
        indices = prepare(&motifs, kernel)?.nearest_again(blocks, &indices, &moved, monitor)?;
        clusters.add(blocks, &indices, monitor)?;
    }
    distortions.push(clusters.distortion(&motifs));
    Ok(Refined {
        motifs,
        indices,
        distortions,
    })
}
