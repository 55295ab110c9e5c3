//! CTM tables of any alphabet: look up blocks, and know the simplest and most complex ones.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::LazyLock;

use rayon::prelude::*;

use super::bdm::log2_count;
use super::ranks::{MAX_LENGTH, Ranks};
use super::symbols::BlockCounts;
use super::{ctm, ctm_pickle};
use crate::{Error, Result};

/// Largest alphabet of strings of digits.
const MAX_ALPHABET: usize = 10;

/// No entry: one more than the last position in a list of distinct values.
const ABSENT: u16 = u16::MAX;

/// Keys whose complexities are summed in one piece; the order of summation depends on nothing
/// else.
const KEYS_PER_TASK: usize = 1 << 12;

/// The CTM complexities of blocks of several widths over one alphabet.
#[derive(Debug)]
pub struct CtmTable {
    widths: HashMap<usize, Blocks>,
}

/// The complexities of the blocks of one width.
#[derive(Debug)]
pub struct Blocks {
    lookup: Lookup,
    missing: f64,
    ranking: Vec<(f64, u64)>,
}

// There are few tables, and none is moved after it was made.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum Lookup {
    /// By key.
    Full(&'static [f64]),
    /// By rank of the normalised block, through the positions of distinct values.
    Ranked {
        ranks: Ranks,
        positions: Vec<u16>,
        values: Vec<f64>,
    },
}

/// The complexity of counted blocks, and those the table lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct Complexity {
    /// Sum of `CTM(block) + log2(count)` in bits.
    pub bdm: f64,
    /// Distinct blocks that were given the complexity of a missing one.
    pub missing: usize,
    /// Width and key of the first of them.
    pub first_missing: Option<(usize, u64)>,
}

impl CtmTable {
    /// Binary strings of 1 to 12 symbols.
    pub fn strings() -> &'static Self {
        static TABLE: LazyLock<CtmTable> =
            LazyLock::new(|| CtmTable::binary((1..=ctm::MAX_STRING).map(|n| (n, ctm::strings(n)))));
        &TABLE
    }

    /// Binary squares of width 1 to 4.
    pub fn squares() -> &'static Self {
        static TABLE: LazyLock<CtmTable> =
            LazyLock::new(|| CtmTable::binary((1..=ctm::MAX_SQUARE).map(|n| (n, ctm::squares(n)))));
        &TABLE
    }

    fn binary(tables: impl Iterator<Item = (usize, Option<&'static [f64]>)>) -> Self {
        let widths = tables.map(|(width, table)| {
            let table = table.expect("tabulated");
            let half = table.iter().step_by(2).map(|&value| (value, 2));
            (width, Blocks::new(Lookup::Full(table), half.collect()))
        });
        Self {
            widths: widths.collect(),
        }
    }

    /// The tables of strings over an alphabet in a pickle of pybdm's (already unpacked).
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corruption`] or [`crate::ErrorKind::InsufficientData`] if it holds
    /// anything else.
    pub fn from_pickle(bytes: &[u8], alphabet: usize) -> Result<Self> {
        if !(1..=MAX_ALPHABET).contains(&alphabet) {
            return Err(Error::invalid_argument(format!(
                "an alphabet of {alphabet} symbols is not between 1 and {MAX_ALPHABET}"
            )));
        }
        let widths =
            ctm_pickle::read(bytes)?
                .into_par_iter()
                .map(|(shape, entries)| match *shape {
                    [length @ 1..=MAX_LENGTH] => {
                        Ok((length, Blocks::ranked(length, alphabet, &entries)?))
                    }
                    _ => Err(Error::corruption(format!(
                        "the CTM data holds blocks of shape {shape:?}, not strings"
                    ))),
                });
        Ok(Self {
            widths: widths.collect::<Result<_>>()?,
        })
    }

    /// The blocks of one width, if there are any.
    pub fn width(&self, width: usize) -> Option<&Blocks> {
        self.widths.get(&width)
    }

    /// The complexity of counted blocks (Zenil et al. 2018, equation 4); the blocks that the table
    /// lacks have one bit more than the most complex of their width. `None` if the table lacks
    /// a whole width.
    pub fn complexity(&self, counts: &[BlockCounts]) -> Option<Complexity> {
        let mut total = Complexity {
            bdm: 0.0,
            missing: 0,
            first_missing: None,
        };
        for each in counts {
            let blocks = self.width(each.width)?;
            let parts: Vec<(f64, usize, Option<u64>)> = each
                .keys
                .par_chunks(KEYS_PER_TASK)
                .zip(each.counts.par_chunks(KEYS_PER_TASK))
                .map(|(keys, counts)| blocks.sum(keys, counts))
                .collect();
            for (bdm, missing, first) in parts {
                total.bdm += bdm;
                total.missing += missing;
                let first = first.map(|key| (each.width, key));
                total.first_missing = total.first_missing.or(first);
            }
        }
        Some(total)
    }
}

impl Blocks {
    /// Blocks with these complexities, each with the number of blocks that have it.
    fn new(lookup: Lookup, complexities: Vec<(f64, u64)>) -> Self {
        let mut ranking = complexities;
        ranking.sort_by(|left, right| right.0.total_cmp(&left.0));
        ranking.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        Self {
            lookup,
            missing: ranking.first().map_or(0.0, |&(most, _)| most) + 1.0,
            ranking,
        }
    }

    fn ranked(length: usize, alphabet: usize, entries: &[(&[u8], f64)]) -> Result<Self> {
        let ranks = Ranks::new(length, alphabet);
        let mut positions = vec![ABSENT; ranks.count()];
        let mut values = Vec::new();
        let mut position_of = HashMap::new();
        let mut complexities = Vec::with_capacity(entries.len());
        for &(digits, complexity) in entries {
            let normal = (digits.len() == length)
                .then(|| ranks.of_normal(digits))
                .flatten();
            let (rank, distinct) = normal.ok_or_else(|| {
                Error::corruption(format!(
                    "the CTM data holds {:?}, no normal string of {length} over {alphabet} symbols",
                    String::from_utf8_lossy(digits)
                ))
            })?;
            let position = *position_of.entry(complexity.to_bits()).or_insert_with(|| {
                values.push(complexity);
                values.len() - 1
            });
            if position >= ABSENT as usize {
                return Err(Error::corruption(
                    "the CTM data holds too many distinct values",
                ));
            }
            positions[rank] = position as u16;
            // As many blocks normalise to this one as there are choices of its symbols.
            let choices = (alphabet - distinct + 1..=alphabet).product::<usize>();
            complexities.push((complexity, choices as u64));
        }
        let lookup = Lookup::Ranked {
            ranks,
            positions,
            values,
        };
        Ok(Self::new(lookup, complexities))
    }

    /// The complexity of the block with that key; `None` if the table lacks it.
    #[inline]
    pub fn complexity(&self, key: u64) -> Option<f64> {
        match &self.lookup {
            Lookup::Full(table) => table.get(key as usize).copied(),
            Lookup::Ranked {
                ranks,
                positions,
                values,
            } => {
                let position = *positions.get(ranks.of_key(key)?)?;
                values.get(position as usize).copied()
            }
        }
    }

    /// The complexity of blocks that the table lacks: one bit more than its most complex one.
    pub fn missing(&self) -> f64 {
        self.missing
    }

    /// Number of blocks whose complexity is known, those included that differ by their symbols
    /// only.
    pub fn known(&self) -> u64 {
        self.ranking.iter().map(|&(_, blocks)| blocks).sum()
    }

    /// The least BDM of `blocks` blocks: all are the simplest one.
    pub fn least_bdm(&self, blocks: u64) -> f64 {
        let least = self.ranking.last().map_or(0.0, |&(least, _)| least);
        least + log2_count(blocks)
    }

    /// The greatest BDM of `blocks` blocks as pybdm defines it: the blocks are all known ones in
    /// turn, beginning with the most complex.
    pub fn greatest_bdm(&self, blocks: u64) -> f64 {
        let known = self.known().max(1);
        let (rounds, mut extra) = (blocks / known, blocks % known);
        let mut bdm = 0.0;
        for &(complexity, alike) in &self.ranking {
            let once_more = alike.min(extra);
            extra -= once_more;
            bdm += once_more as f64 * (complexity + log2_count(rounds + 1));
            if rounds > 0 {
                bdm += (alike - once_more) as f64 * (complexity + log2_count(rounds));
            }
        }
        bdm
    }

    /// Sum over counted keys, the number of those that the table lacks, and the first of them.
    fn sum(&self, keys: &[u64], counts: &[u64]) -> (f64, usize, Option<u64>) {
        let complexities = self.complexities(keys);
        let (mut bdm, mut missing) = (0.0, 0);
        for (complexity, &count) in complexities.iter().zip(counts) {
            let lacks = complexity.is_nan();
            missing += usize::from(lacks);
            bdm += if lacks { self.missing } else { *complexity } + log2_count(count);
        }
        let first = complexities
            .iter()
            .position(|complexity| complexity.is_nan());
        (bdm, missing, first.map(|index| keys[index]))
    }

    /// The complexity of each key, NaN where the table lacks it.
    fn complexities(&self, keys: &[u64]) -> Vec<f64> {
        match &self.lookup {
            Lookup::Full(_) => keys
                .iter()
                .map(|&key| self.complexity(key).unwrap_or(f64::NAN))
                .collect(),
            // In passes, so that many reads of the large table are under way at a time.
            Lookup::Ranked {
                ranks,
                positions,
                values,
            } => {
                let found: Vec<u16> = ranks
                    .of_keys(keys)
                    .into_iter()
                    .map(|rank| positions.get(rank as usize).copied().unwrap_or(ABSENT))
                    .collect();
                found
                    .iter()
                    .map(|&position| values.get(position as usize).copied().unwrap_or(f64::NAN))
                    .collect()
            }
        }
    }
}

/// Entropy of the most varied array as pybdm defines it: of a collection that holds, once for
/// every width, each of as many known blocks as the array has of that width.
pub fn greatest_entropy(distinct_by_width: &[u64]) -> f64 {
    let mut sizes = distinct_by_width.to_vec();
    sizes.sort_unstable_by_key(|&size| Reverse(size));
    let total: u64 = sizes.iter().sum();
    // Blocks below the size of the `n`-th largest width, but not of the next, occur `n` times.
    let mut entropy = 0.0;
    for (index, &size) in sizes.iter().enumerate() {
        let next = sizes.get(index + 1).copied().unwrap_or(0);
        let probability = (index + 1) as f64 / total as f64;
        if size > next {
            entropy -= (size - next) as f64 * probability * probability.log2();
        }
    }
    entropy + 0.0
}

#[cfg(test)]
mod tests {
    use super::super::ranks::tests::key;
    use super::*;

    #[test]
    fn a_pickle_becomes_a_table() {
        let table = CtmTable::from_pickle(&ctm_pickle::tests::example(), 4).unwrap();
        let pairs = table.width(2).unwrap();
        assert_eq!(pairs.complexity(key(&[3, 3], 4)), Some(2.5));
        assert_eq!(pairs.complexity(key(&[3, 1], 4)), Some(3.5));
        assert_eq!(pairs.missing(), 4.5);
        // Four strings of equal, twelve of different symbols.
        assert_eq!(pairs.known(), 16);
        assert_eq!(pairs.least_bdm(4), 2.5 + 2.0);
        assert_eq!(pairs.greatest_bdm(13), 12.0 * 3.5 + 2.5);
        assert_eq!(pairs.greatest_bdm(17), 12.0 * 3.5 + 4.0 * 2.5 + 1.0);
        assert!(table.width(3).is_none());
        assert!(
            CtmTable::from_pickle(b"\x80\x04}.", 4)
                .unwrap()
                .width(1)
                .is_none()
        );
    }

    #[test]
    fn missing_blocks_are_named_and_missing_widths_refused() {
        let table = CtmTable::from_pickle(&ctm_pickle::tests::example(), 4).unwrap();
        let mut counts = vec![BlockCounts {
            width: 2,
            keys: vec![key(&[0, 0], 4), key(&[1, 2], 4)],
            counts: vec![2, 1],
        }];
        let found = table.complexity(&counts).unwrap();
        assert_eq!(found.bdm, 2.5 + 1.0 + 3.5);
        assert_eq!(found.missing, 0);
        counts[0].width = 3;
        assert!(table.complexity(&counts).is_none());
        let strings = CtmTable::strings();
        let beyond = BlockCounts {
            width: 2,
            keys: vec![9],
            counts: vec![1],
        };
        let found = strings.complexity(&[beyond]).unwrap();
        assert_eq!((found.missing, found.first_missing), (1, Some((2, 9))));
        assert_eq!(found.bdm, strings.width(2).unwrap().missing());
    }

    #[test]
    fn greatest_entropies() {
        assert_eq!(greatest_entropy(&[8]), 3.0);
        assert_eq!(greatest_entropy(&[1]), 0.0);
        // Blocks 0 and 1 of both widths, 2 and 3 of one: probabilities 2/6, 2/6, 1/6, 1/6.
        let expected = 2.0 / 3.0 * 3f64.log2() + 6f64.log2() / 3.0;
        assert!((greatest_entropy(&[2, 4]) - expected).abs() < 1e-15);
    }
}
