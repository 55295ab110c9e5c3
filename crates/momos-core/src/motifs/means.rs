//! What the sums over a motif's blocks tell: their mean, and how far they are from the motif.

use crate::element::Element;
use crate::simd::{Simd, Work};

/// Moves motifs to the means of their blocks, and clears the sums of these; adds up what their
/// distortions were, as [`distortion_of`] does.
pub struct Move<'a, T> {
    /// Per motif: the sums of its blocks' values, their number, and the sum of all their squares.
    pub rows: &'a mut [f64],
    /// The motifs (k, s). One without blocks stays where it is.
    pub motifs: &'a mut [T],
    /// Which of the motifs changed: set where they did.
    pub moved: &'a mut [bool],
    /// How many of the motifs, the first ones, stay in any case.
    pub fixed: usize,
    /// Values per block.
    pub size: usize,
    /// What makes values scaled ones, a power of two.
    pub scale: f64,
}

impl<T: Element> Work for Move<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run<V: Simd>(self, _: V) -> f64 {
        let Self { fixed, scale, .. } = self;
        // The inverse of a power of two is exact.
        let unscale = 1.0 / scale;
        macro_rules! move_all {
            ($rows:expr, $motifs:expr) => {{
                let mut distortion = 0.0;
                let motifs = $motifs.zip(self.moved).enumerate();
                for (row, (number, (motif, moved))) in $rows.zip(motifs) {
                    distortion += distortion_of_one(row, motif, scale);
                    *moved |= move_one(row, motif, number < fixed, unscale);
                }
                distortion
            }};
        }
        macro_rules! of_size {
            ($size:literal) => {{
                let rows: &mut [[f64; $size + 2]] = self.rows.as_chunks_mut().0;
                let motifs: &mut [[T; $size]] = self.motifs.as_chunks_mut().0;
                move_all!(rows.iter_mut(), motifs.iter_mut())
            }};
        }
        match self.size {
            2 => of_size!(2),
            4 => of_size!(4),
            8 => of_size!(8),
            size => move_all!(
                self.rows.chunks_exact_mut(size + 2),
                self.motifs.chunks_exact_mut(size)
            ),
        }
    }
}

/// Whether the motif changed.
#[inline(always)]
fn move_one<T: Element>(row: &mut [f64], motif: &mut [T], fixed: bool, unscale: f64) -> bool {
    let count = row[motif.len()];
    let stays = fixed | (count == 0.0);
    let mut moved = false;
    for (value, sum) in motif.iter_mut().zip(&*row) {
        // Without a branch, which costs more than a division in vain.
        let mean = T::from_f64(sum / count * unscale);
        let next = if stays { *value } else { mean };
        moved |= next != *value;
        *value = next;
    }
    row.fill(0.0);
    moved
}

/// The distortions of motifs' blocks, added up and scaled like the sums, given the motifs (k, s)
/// and per motif the sums of its blocks' values, their number, and the sum of all their squares.
///
/// Of the n blocks x of a motif z it is `sum(x * x) - z * (2 * sum(x) - n * z)`. What is less than
/// the rounding of the sums may have made counts as none.
pub fn distortion_of<T: Element>(rows: &[f64], motifs: &[T], size: usize, scale: f64) -> f64 {
    let each = rows.chunks_exact(size + 2).zip(motifs.chunks_exact(size));
    each.map(|(row, motif)| distortion_of_one(row, motif, scale))
        .sum()
}

#[inline(always)]
fn distortion_of_one<T: Element>(row: &[f64], motif: &[T], scale: f64) -> f64 {
    let (count, squares) = (row[motif.len()], row[motif.len() + 1]);
    let mut distortion = squares;
    for (sum, value) in row.iter().zip(motif) {
        let value = value.to_f64() * scale;
        distortion -= value * (2.0 * sum - count * value);
    }
    let unknown = 2.0 * f64::EPSILON * (count + motif.len() as f64) * squares;
    if distortion > unknown {
        distortion
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::motifs::SplitMix64;
    use crate::simd::{Isa, dispatch};

    fn rows_of(blocks: &[f32], size: usize) -> Vec<f64> {
        let mut row = vec![0.0; size + 2];
        for block in blocks.chunks_exact(size) {
            for (sum, &x) in row.iter_mut().zip(block) {
                *sum += f64::from(x);
            }
            row[size] += 1.0;
            row[size + 1] += block
                .iter()
                .map(|&x| f64::from(x) * f64::from(x))
                .sum::<f64>();
        }
        row
    }

    #[test]
    fn distortions_are_those_of_the_blocks() {
        let mut random = SplitMix64::new(3);
        let mut value = |around: f32, spread: f32| {
            around + spread * (random.next_u64() as f32 / u64::MAX as f32 - 0.5)
        };
        for size in [1, 2, 3, 4, 8, 33] {
            for count in [1, 2, 17, 3000] {
                for spread in [1.0, 1e-3] {
                    let motif: Vec<f32> = (0..size).map(|_| value(0.5, 1.0)).collect();
                    let blocks: Vec<f32> = (0..count)
                        .flat_map(|_| motif.clone())
                        .map(|z| value(z, spread))
                        .collect();
                    let differences = blocks.chunks_exact(size).flat_map(|x| x.iter().zip(&motif));
                    let expected: f64 = differences
                        .map(|(&x, &z)| (f64::from(x) - f64::from(z)).powi(2))
                        .sum();
                    let rows = rows_of(&blocks, size);
                    let found = distortion_of(&rows, &motif, size, 1.0);
                    for isa in Isa::ALL {
                        let work = Move {
                            rows: &mut rows.clone(),
                            motifs: &mut motif.clone(),
                            moved: &mut [false],
                            fixed: 0,
                            size,
                            scale: 1.0,
                        };
                        assert_eq!(dispatch(isa, work), found);
                    }
                    // What rounding may have made of the sums.
                    let unknown = f64::EPSILON * (count + size) as f64 * rows[size + 1];
                    assert!(
                        (found - expected).abs() <= unknown,
                        "s={size}, n={count}: {found} for {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn blocks_that_are_their_motif_have_none() {
        let mut random = SplitMix64::new(4);
        for size in [1, 2, 4, 5, 8] {
            for count in [1, 3, 100, 40_000] {
                for huge in [1.0, 1e15] {
                    let mut value = || huge * (random.next_u64() as f32 / u64::MAX as f32 - 0.5);
                    let motif: Vec<f32> = (0..size).map(|_| value()).collect();
                    let rows = rows_of(&motif.repeat(count), size);
                    assert_eq!(distortion_of(&rows, &motif, size, 1.0), 0.0);
                }
            }
        }
        // Of the zero block it is exact.
        assert_eq!(distortion_of(&[1e-3, 1e9, 1e-20], &[0.0f32], 1, 1.0), 1e-20);
    }

    #[test]
    fn motifs_move_and_sums_are_cleared_at_any_size() {
        for size in [1, 2, 3, 4, 8] {
            for isa in Isa::ALL {
                let mut rows: Vec<f64> = [3.0, 0.0, 4.0]
                    .into_iter()
                    .flat_map(|count| {
                        let sums = (0..size).map(move |d| d as f64 * count);
                        sums.chain([count, 7.0])
                    })
                    .collect();
                let mut motifs = vec![9.0f32; 2 * size];
                motifs.extend((0..size).map(|d| d as f32));
                let before = distortion_of(&rows, &motifs, size, 1.0);
                let mut moved = [false; 3];
                let work = Move {
                    rows: &mut rows,
                    motifs: &mut motifs,
                    moved: &mut moved,
                    fixed: 0,
                    size,
                    scale: 1.0,
                };
                assert_eq!(dispatch(isa, work), before);
                let means: Vec<f32> = (0..size).map(|d| d as f32).collect();
                assert_eq!(motifs, [&means[..], &vec![9.0; size], &means].concat());
                assert_eq!(moved, [true, false, false]);
                assert!(rows.iter().all(|&sum| sum == 0.0));

                // Two that are fixed, of which one has no blocks.
                let (mut moved, mut rows) = ([false; 3], vec![1.0; 3 * (size + 2)]);
                rows[2 * size + 2] = 0.0;
                let before = motifs.clone();
                let work = Move {
                    rows: &mut rows,
                    motifs: &mut motifs,
                    moved: &mut moved,
                    fixed: 2,
                    size,
                    scale: 1.0,
                };
                dispatch(isa, work);
                assert_eq!(motifs[..2 * size], before[..2 * size]);
                assert_eq!(motifs[2 * size..], vec![1.0; size]);
                assert_eq!(moved, [false, false, true]);
            }
        }
    }
}
