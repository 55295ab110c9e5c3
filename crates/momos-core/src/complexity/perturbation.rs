//! What a change of single elements does to the complexity of an array.
//!
//! Only the blocks that contain the element change, so a step costs as much as they do, not as
//! much as the array. The differences are exact also where one change moves several equal blocks
//! at once (overlapping or constant ones).

use std::collections::HashMap;
use std::ops::Range;

use super::bdm::log2_count;
use super::symbols::{Partition, Symbols, count};
use super::tables::CtmTable;
use crate::{Error, Monitor, Result};

/// Which complexity is watched.
#[derive(Clone, Copy, Debug)]
pub enum Metric<'a> {
    /// Block Decomposition Method by a table.
    Bdm(&'a CtmTable),
    /// Block entropy.
    Entropy,
}

/// An array that is changed element by element, and the counts of its blocks.
#[derive(Clone, Debug)]
pub struct Perturbation {
    values: Vec<u8>,
    shape: Vec<usize>,
    alphabet: usize,
    width: usize,
    partition: Partition,
    counts: HashMap<(usize, u64), u64>,
    blocks: u64,
}

impl Perturbation {
    /// An experiment with an array of symbols, cut as [`count`] does.
    ///
    /// # Errors
    /// As [`Symbols::new`] and [`count`].
    pub fn new(
        values: Vec<u8>,
        shape: Vec<usize>,
        alphabet: usize,
        width: usize,
        partition: Partition,
        monitor: &Monitor,
    ) -> Result<Self> {
        let symbols = Symbols::new(&values, &shape, alphabet)?;
        let mut counts = HashMap::new();
        for each in count(symbols, width, partition, monitor)? {
            for (key, count) in each.keys.into_iter().zip(each.counts) {
                counts.insert((each.width, key), count);
            }
        }
        Ok(Self {
            blocks: counts.values().sum(),
            values,
            shape,
            alphabet,
            width,
            partition,
            counts,
        })
    }

    /// The change of the metric, in bits, if the element at `index` became `value`; without a
    /// value, a binary element is flipped. Makes the change if it is to be kept.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if there is no such element or symbol, there is no
    /// value in an alphabet that is not binary, or the table lacks the blocks' width.
    pub fn change(
        &mut self,
        index: &[usize],
        value: Option<u8>,
        keep: bool,
        metric: Metric<'_>,
    ) -> Result<f64> {
        let position = self.position(index)?;
        let old = self.values[position];
        let new = match value {
            None if self.alphabet <= 2 => 1 - old,
            Some(value) if usize::from(value) < self.alphabet => value,
            _ => {
                return Err(Error::invalid_argument(format!(
                    "an element of {} symbols needs a new value among them",
                    self.alphabet
                )));
            }
        };
        if new == old {
            return Ok(0.0);
        }
        let places = self.blocks_with(index);
        let mut changes: Vec<((usize, u64), i64)> = Vec::with_capacity(2 * places.len());
        self.tally(&places, -1, &mut changes)?;
        self.values[position] = new;
        self.tally(&places, 1, &mut changes)?;
        let difference = self.difference(&changes, metric);
        match difference {
            Ok(_) if keep => self.apply(&changes),
            _ => self.values[position] = old,
        }
        difference
    }

    fn position(&self, index: &[usize]) -> Result<usize> {
        let inside = index.len() == self.shape.len()
            && index
                .iter()
                .zip(&self.shape)
                .all(|(index, size)| index < size);
        if !inside {
            return Err(Error::invalid_argument(format!(
                "there is no element {index:?} in an array of shape {:?}",
                self.shape
            )));
        }
        let place = index.iter().zip(&self.shape);
        Ok(place.fold(0, |position, (index, size)| position * size + index))
    }

    /// Row, column and width of every block that contains the element.
    fn blocks_with(&self, index: &[usize]) -> Vec<(usize, usize, usize)> {
        let line = self.shape.len() == 1;
        let (row, column) = if line {
            (0, index[0])
        } else {
            (index[0], index[1])
        };
        let (rows, columns) = if line {
            (1, self.shape[0])
        } else {
            (self.shape[0], self.shape[1])
        };
        let height = |width: usize| if line { 1 } else { width };
        match self.partition {
            Partition::Correlated { shift } => {
                let across = starts_around(column, columns, self.width, shift);
                let down = starts_around(row, rows, height(self.width), shift);
                down.flat_map(|row| across.clone().map(move |column| (row, column, self.width)))
                    .collect()
            }
            Partition::Ignore => {
                let height = height(self.width);
                let (top, left) = (row / height * height, column / self.width * self.width);
                let whole = top + height <= rows && left + self.width <= columns;
                whole
                    .then_some((top, left, self.width))
                    .into_iter()
                    .collect()
            }
            Partition::Recursive { min_length } => {
                let (mut down, mut across) = (0..rows, 0..columns);
                let mut width = self.width;
                loop {
                    down = cell(row, &down, height(width));
                    across = cell(column, &across, width);
                    if down.len() == height(width) && across.len() == width {
                        return vec![(down.start, across.start, width)];
                    }
                    width = if line {
                        across.len()
                    } else {
                        down.len().min(across.len())
                    };
                    if width < min_length.max(1) {
                        return Vec::new();
                    }
                }
            }
        }
    }

    fn tally(
        &self,
        places: &[(usize, usize, usize)],
        sign: i64,
        changes: &mut Vec<((usize, u64), i64)>,
    ) -> Result<()> {
        let symbols = Symbols::new(&self.values, &self.shape, self.alphabet)?;
        for &(row, column, width) in places {
            let block = (width, symbols.key(row, column, width));
            match changes.iter_mut().find(|(known, _)| *known == block) {
                Some((_, change)) => *change += sign,
                None => changes.push((block, sign)),
            }
        }
        Ok(())
    }

    fn difference(&self, changes: &[((usize, u64), i64)], metric: Metric<'_>) -> Result<f64> {
        let mut difference = 0.0;
        for (block, change) in changes {
            let before = self.counts.get(block).copied().unwrap_or(0);
            let after = before.saturating_add_signed(*change);
            difference += match metric {
                Metric::Entropy => self.surprise(after) - self.surprise(before),
                Metric::Bdm(table) => {
                    let (width, key) = *block;
                    let blocks = table.width(width).ok_or_else(|| {
                        Error::invalid_argument(format!("the table has no blocks of width {width}"))
                    })?;
                    let complexity = blocks.complexity(key).unwrap_or(blocks.missing());
                    let of = |count| match count {
                        0 => 0.0,
                        _ => complexity + log2_count(count),
                    };
                    of(after) - of(before)
                }
            };
        }
        Ok(difference)
    }

    /// What a block that occurs that often contributes to the entropy.
    fn surprise(&self, count: u64) -> f64 {
        if count == 0 {
            return 0.0;
        }
        let probability = count as f64 / self.blocks as f64;
        -probability * probability.log2()
    }

    fn apply(&mut self, changes: &[((usize, u64), i64)]) {
        for (block, change) in changes {
            let count = self.counts.entry(*block).or_insert(0);
            *count = count.saturating_add_signed(*change);
            if *count == 0 {
                self.counts.remove(block);
            }
        }
    }
}

/// Starts of the blocks on a grid that contain a position.
fn starts_around(
    position: usize,
    length: usize,
    size: usize,
    step: usize,
) -> impl Iterator<Item = usize> + Clone {
    let first = (position + 1).saturating_sub(size).next_multiple_of(step);
    let last = length.checked_sub(size).map(|last| last.min(position));
    (first..last.map_or(first, |last| last + 1)).step_by(step)
}

/// The part of a range, cut into pieces of that size, that contains a position.
fn cell(position: usize, range: &Range<usize>, size: usize) -> Range<usize> {
    let start = range.start + (position - range.start) / size * size;
    start..range.end.min(start + size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complexity::entropy::BlockEntropy;
    use proptest::prelude::*;

    fn whole(experiment: &Perturbation, metric: Metric<'_>) -> f64 {
        let symbols =
            Symbols::new(&experiment.values, &experiment.shape, experiment.alphabet).unwrap();
        let counts = count(
            symbols,
            experiment.width,
            experiment.partition,
            &Monitor::new(),
        )
        .unwrap();
        match metric {
            Metric::Bdm(table) => table.complexity(&counts).unwrap().bdm,
            Metric::Entropy => {
                let all: Vec<u64> = counts.iter().flat_map(|each| each.counts.clone()).collect();
                BlockEntropy::of(&all).plain
            }
        }
    }

    #[test]
    fn documented_examples_of_pybdm() {
        let table = CtmTable::strings();
        let new = || {
            Perturbation::new(
                vec![1; 30],
                vec![30],
                2,
                12,
                Partition::Ignore,
                &Monitor::new(),
            )
            .unwrap()
        };
        let mut experiment = new();
        let mut change = |index| {
            experiment
                .change(&[index], None, false, Metric::Bdm(table))
                .unwrap()
        };
        assert!((change(10) - 26.91763012739709).abs() < 1e-9);
        assert!((change(20) - 27.34823681).abs() < 1e-8);
        // In no block.
        assert_eq!(change(29), 0.0);
    }

    #[test]
    fn impossible_changes_are_refused() {
        let mut experiment = Perturbation::new(
            vec![0; 24],
            vec![24],
            4,
            12,
            Partition::Ignore,
            &Monitor::new(),
        )
        .unwrap();
        for (index, value) in [
            (&[24][..], Some(1)),
            (&[0, 0], Some(1)),
            (&[0], Some(4)),
            (&[0], None),
        ] {
            let result = experiment.change(index, value, true, Metric::Entropy);
            assert_eq!(
                result.unwrap_err().kind(),
                crate::ErrorKind::InvalidArgument
            );
        }
        assert_eq!(experiment.values, [0; 24]);
    }

    proptest! {
        #[test]
        fn differences_are_those_of_the_whole(
            seed in prop::collection::vec(0u8..2, 14 * 11),
            constant in any::<bool>(),
            line in any::<bool>(),
            partition in prop_oneof![
                Just(Partition::Ignore),
                (1usize..4).prop_map(|shift| Partition::Correlated { shift }),
                (1usize..3).prop_map(|min_length| Partition::Recursive { min_length }),
            ],
            steps in prop::collection::vec((0usize..14, 0usize..11, any::<bool>()), 1..8),
            entropy in any::<bool>(),
        ) {
            let values = if constant { vec![1; seed.len()] } else { seed };
            let (shape, width, table) = if line {
                (vec![values.len()], 12, CtmTable::strings())
            } else {
                (vec![14, 11], 4, CtmTable::squares())
            };
            let metric = if entropy { Metric::Entropy } else { Metric::Bdm(table) };
            let mut experiment =
                Perturbation::new(values, shape, 2, width, partition, &Monitor::new()).unwrap();
            for (row, column, keep) in steps {
                let index = if line { vec![row * 11 + column] } else { vec![row, column] };
                let before = whole(&experiment, metric);
                let old = experiment.values.clone();
                let change = experiment.change(&index, None, keep, metric).unwrap();
                if !keep {
                    prop_assert_eq!(&experiment.values, &old);
                    experiment.change(&index, None, true, metric).unwrap();
                }
                let after = whole(&experiment, metric);
                prop_assert!((after - before - change).abs() < 1e-8);
            }
        }
    }
}
