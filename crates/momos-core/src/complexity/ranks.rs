//! Numbers the normal strings of one length in lexicographic order.
//!
//! A string is normal if its symbols first appear in the order 0, 1, 2, ...; every string has
//! exactly one normal form, which pybdm looks up in its stead.

use std::collections::HashMap;

use super::symbols::{MAX_SYMBOLS, key_bits};

/// Longest string whose keys fit 64 bits at four bits per symbol, those of ten symbols.
pub const MAX_LENGTH: usize = 16;

/// Numbers of distinct symbols that a key can have, from 0 to 16.
const ROOM: usize = MAX_SYMBOLS + 1;

/// Bits of a key whose symbols are looked up at once.
const HEAD_BITS: usize = 12;

/// Largest alphabet for which the states after some symbols are few enough to be numbered.
const MAX_NUMBERED: usize = 6;

/// Entries of the table of steps: 1,957 states and one more, of eight symbols each, fit.
const STEPS: usize = 1 << 14;

/// Keys that are ranked at a time.
const LANES: usize = 8;

/// The state of a string that the numbered states do not cover.
const STRAY: u32 = 0;

/// The numbers of all normal strings of one length over one alphabet.
#[derive(Clone, Debug)]
pub struct Ranks {
    length: usize,
    alphabet: usize,
    /// Bits of a symbol in a key.
    bits: usize,
    /// `completions[rest][used]`: ways to go on for `rest` symbols after `used` distinct ones.
    completions: [[u64; ROOM]; MAX_LENGTH + 1],
    /// Symbols that `heads` covers.
    head: usize,
    /// Where a string stands after its first symbols, by their part of the key.
    heads: Vec<Progress>,
    automaton: Option<Automaton>,
}

/// Where a string stands after some of its symbols.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Four bits per symbol: its place in the order of appearance, from the lowest.
    places: u64,
    /// A bit for each symbol that has appeared.
    seen: u64,
    /// Number of distinct symbols.
    used: u64,
    rank: u64,
}

impl Progress {
    #[inline]
    fn step(&mut self, symbol: u64, completions: &[u64; ROOM]) {
        // Without branches: whether a symbol is new is anyone's guess.
        let is_new = !(self.seen >> symbol) & 1;
        self.places |= (self.used & is_new.wrapping_neg()) << (4 * symbol);
        self.seen |= 1 << symbol;
        let place = self.places >> (4 * symbol) & 15;
        self.rank += place * completions[self.used as usize];
        self.used += is_new;
    }
}

/// The same steps with the states (which symbol has which place) numbered, so that a step is one
/// look into a table.
#[derive(Clone, Debug)]
struct Automaton {
    /// Rank and state after the first symbols, by their part of the key.
    heads: Vec<(u64, u32)>,
    /// By state and symbol: the next state in the low 16 bits, then four bits each for the place
    /// of the symbol and the number of distinct ones before. States are multiples of the number
    /// of symbols that fit a key.
    steps: Box<[u32; STEPS]>,
}

impl Automaton {
    fn new(alphabet: usize, bits: usize, heads: &[Progress]) -> Option<Self> {
        if alphabet > MAX_NUMBERED {
            return None;
        }
        let mut steps = Box::new([STRAY; STEPS]);
        let row = 1u32 << bits;
        let start = (0, 0);
        let mut numbers = HashMap::from([(start, row)]);
        let mut unvisited = vec![start];
        let mut next_number = 2 * row;
        while let Some((places, seen)) = unvisited.pop() {
            let number = numbers[&(places, seen)];
            let used = u64::from(u64::count_ones(seen));
            for symbol in 0..alphabet as u64 {
                let mut after = Progress {
                    places,
                    seen,
                    used,
                    rank: 0,
                };
                after.step(symbol, &[0; ROOM]);
                let next = *numbers
                    .entry((after.places, after.seen))
                    .or_insert_with(|| {
                        unvisited.push((after.places, after.seen));
                        next_number += row;
                        next_number - row
                    });
                let place = (after.places >> (4 * symbol) & 15) as u32;
                steps[number as usize + symbol as usize] = next | place << 16 | (used as u32) << 20;
            }
        }
        let heads = heads
            .iter()
            .map(|head| {
                let state = numbers.get(&(head.places, head.seen));
                (head.rank, state.copied().unwrap_or(STRAY))
            })
            .collect();
        Some(Self { heads, steps })
    }
}

impl Ranks {
    /// Numbers the strings of a length (at most [`MAX_LENGTH`]) over an alphabet.
    pub fn new(length: usize, alphabet: usize) -> Self {
        let mut completions = [[0; ROOM]; MAX_LENGTH + 1];
        completions[0] = [1; ROOM];
        for rest in 1..=length {
            let shorter = completions[rest - 1];
            for used in 0..=alphabet {
                let new = if used < alphabet {
                    shorter[used + 1]
                } else {
                    0
                };
                completions[rest][used] = used as u64 * shorter[used] + new;
            }
        }
        let bits = key_bits(alphabet);
        let head = length.min(HEAD_BITS / bits);
        let mut ranks = Self {
            length,
            alphabet,
            bits,
            completions,
            head,
            heads: Vec::new(),
            automaton: None,
        };
        ranks.heads = (0..1u64 << (head * bits))
            .map(|key| {
                let mut progress = Progress::default();
                for index in 0..head {
                    let symbol = key >> (index * bits) & ((1 << bits) - 1);
                    progress.step(symbol, &completions[length - 1 - index]);
                }
                progress
            })
            .collect();
        ranks.automaton = Automaton::new(alphabet, bits, &ranks.heads);
        ranks
    }

    /// Number of normal strings.
    pub fn count(&self) -> usize {
        self.completions[self.length][0] as usize
    }

    /// Rank and number of distinct symbols of a normal string of digits; `None` if it is not one.
    pub fn of_normal(&self, digits: &[u8]) -> Option<(usize, usize)> {
        let (mut rank, mut used) = (0, 0);
        for (index, digit) in digits.iter().enumerate() {
            let symbol = digit.checked_sub(b'0')? as usize;
            if symbol > used || symbol >= self.alphabet {
                return None;
            }
            rank += symbol as u64 * self.completions[self.length - 1 - index][used];
            used += usize::from(symbol == used);
        }
        Some((rank as usize, used))
    }

    /// Rank of the normal form of the string with that key; `None` if it has too many symbols.
    pub fn of_key(&self, key: u64) -> Option<usize> {
        let [rank] = self.of_lanes([key]);
        (rank != Self::NONE).then_some(rank as usize)
    }

    /// What [`of_keys`](Self::of_keys) says of a key with too many symbols.
    pub const NONE: u64 = u64::MAX;

    /// [`of_key`](Self::of_key) of every key, several at a time: a step of one waits for the step
    /// before, but not for those of others.
    pub fn of_keys(&self, keys: &[u64]) -> Vec<u64> {
        let (lanes, rest) = keys.as_chunks::<LANES>();
        lanes
            .iter()
            .flat_map(|&keys| self.of_lanes(keys))
            .chain(rest.iter().map(|&key| self.of_lanes([key])[0]))
            .collect()
    }

    #[inline]
    fn of_lanes<const N: usize>(&self, keys: [u64; N]) -> [u64; N] {
        let Some(automaton) = &self.automaton else {
            return self.by_steps(keys);
        };
        let ranks = self.by_automaton(automaton, keys);
        if ranks.contains(&Self::NONE) {
            return self.by_steps(keys);
        }
        ranks
    }

    #[inline]
    fn by_automaton<const N: usize>(&self, automaton: &Automaton, keys: [u64; N]) -> [u64; N] {
        let mask = (1u32 << self.bits) - 1;
        let starts = keys.map(|key| automaton.heads[key as usize & (automaton.heads.len() - 1)]);
        let mut ranks = starts.map(|(rank, _)| rank);
        let mut states = starts.map(|(_, state)| state);
        let mut rest = keys.map(|key| key >> (self.head * self.bits));
        for completions in self.completions[..self.length - self.head].iter().rev() {
            for lane in 0..N {
                let symbol = rest[lane] as u32 & mask;
                let step = automaton.steps[(states[lane] + symbol) as usize % STEPS];
                rest[lane] >>= self.bits;
                ranks[lane] += u64::from(step >> 16 & 15) * completions[(step >> 20) as usize & 15];
                states[lane] = step & 0xFFFF;
            }
        }
        std::array::from_fn(|lane| match states[lane] {
            STRAY => Self::NONE,
            _ => ranks[lane],
        })
    }

    #[inline]
    fn by_steps<const N: usize>(&self, keys: [u64; N]) -> [u64; N] {
        let mask = (1u64 << self.bits) - 1;
        let mut lanes = keys.map(|key| self.heads[key as usize & (self.heads.len() - 1)]);
        let mut rest = keys.map(|key| key >> (self.head * self.bits));
        for completions in self.completions[..self.length - self.head].iter().rev() {
            for (lane, rest) in lanes.iter_mut().zip(&mut rest) {
                lane.step(*rest & mask, completions);
                *rest >>= self.bits;
            }
        }
        lanes.map(|end| {
            if end.used as usize <= self.alphabet {
                end.rank
            } else {
                Self::NONE
            }
        })
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn key(symbols: &[u8], alphabet: usize) -> u64 {
        let bits = key_bits(alphabet);
        symbols.iter().enumerate().fold(0, |key, (index, &symbol)| {
            key | u64::from(symbol) << (bits * index)
        })
    }

    /// All normal strings in lexicographic order.
    fn normal_strings(length: usize, alphabet: usize) -> Vec<Vec<u8>> {
        let mut strings = vec![Vec::new()];
        for _ in 0..length {
            strings = strings
                .into_iter()
                .flat_map(|string: Vec<u8>| {
                    let used = string.iter().max().map_or(0, |&last| last as usize + 1);
                    (0..=used.min(alphabet - 1)).map(move |symbol| {
                        let mut longer = string.clone();
                        longer.push(symbol as u8);
                        longer
                    })
                })
                .collect();
        }
        strings
    }

    #[test]
    fn ranks_number_the_normal_strings_in_order() {
        for (length, alphabet) in [(1, 4), (4, 2), (6, 4), (7, 9), (5, 1), (8, 5), (7, 6)] {
            let ranks = Ranks::new(length, alphabet);
            let strings = normal_strings(length, alphabet);
            assert_eq!(ranks.count(), strings.len());
            for (rank, string) in strings.iter().enumerate() {
                let digits: Vec<u8> = string.iter().map(|symbol| symbol + b'0').collect();
                assert_eq!(ranks.of_normal(&digits).unwrap().0, rank);
                assert_eq!(ranks.of_key(key(string, alphabet)), Some(rank));
            }
        }
    }

    #[test]
    fn keys_with_too_many_symbols_have_no_rank_and_strange_ones_that_of_their_form() {
        let ranks = Ranks::new(7, 5);
        assert_eq!(ranks.of_key(key(&[0, 1, 2, 3, 4, 5, 0], 5)), None);
        let keys = [
            [0, 1, 1, 0, 2, 0, 0],
            [0, 1, 2, 3, 4, 5, 6],
            [1, 1, 0, 0, 0, 0, 0],
        ]
        .map(|symbols| key(&symbols, 5));
        for keys in [keys.repeat(5), keys.to_vec()] {
            let alone = keys.iter().map(|&key| ranks.of_key(key));
            let together = ranks.of_keys(&keys).into_iter();
            assert!(alone.eq(together.map(|rank| {
                usize::try_from(rank)
                    .ok()
                    .filter(|&rank| rank < ranks.count())
            })));
        }
        let same = ranks.of_key(key(&[0, 1, 1, 0, 2, 0, 0], 5));
        assert!(same.is_some());
        assert_eq!(ranks.of_key(key(&[7, 1, 1, 7, 6, 7, 7], 5)), same);
        assert_eq!(ranks.of_key(key(&[2, 1, 1, 2, 6, 2, 2], 5)), same);
    }

    proptest! {
        #[test]
        fn any_string_has_the_rank_of_its_normal_form(
            alphabet in 2usize..=10,
            symbols in prop::collection::vec(0u8..10, 12),
        ) {
            let symbols: Vec<u8> = symbols.iter().map(|symbol| symbol % alphabet as u8).collect();
            let mut order = Vec::new();
            let digits: Vec<u8> = symbols
                .iter()
                .map(|symbol| {
                    let known = order.iter().position(|seen| seen == symbol);
                    let place = known.unwrap_or_else(|| {
                        order.push(*symbol);
                        order.len() - 1
                    });
                    b'0' + place as u8
                })
                .collect();
            let ranks = Ranks::new(12, alphabet);
            let expected = ranks.of_normal(&digits).unwrap();
            prop_assert_eq!(ranks.of_key(key(&symbols, alphabet)), Some(expected.0));
            prop_assert_eq!(expected.1, order.len());
        }
    }
}
