//! Trellises for dependent quantisation (trellis-coded quantisation: Marcellin and Fischer, 1990).
//!
//! The grid of all multiples of a step is split into the even and the odd ones. The state decides
//! from which of the two the next value is taken, and the value's position among them, even or odd,
//! decides the next state. So every value has a spacing of two steps, but a path through the states
//! can come as near to the weights as a grid of one step in most places.

use crate::error::{Error, Result};

/// Ungerboeck's parity-check polynomials (1982, table I, one dimension) by the number of bits of the
/// state: the coefficients of `h0` and `h1`, the lowest bit that of the lowest power.
const PARITY_CHECKS: [(u32, u32); 7] = [
    (0o5, 0o2),
    (0o13, 0o4),
    (0o23, 0o4),
    (0o45, 0o10),
    (0o103, 0o24),
    (0o235, 0o126),
    (0o515, 0o362),
];

/// Most bits of a state.
pub const MAX_STATE_BITS: u32 = 8;

/// One way into a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The state before.
    pub from: u8,
    /// What the step between is: twice the half (0 even, 1 odd multiples) plus the parity of the
    /// position.
    pub branch: u8,
}

/// A trellis of `2^bits` states; with a single one, it is the plain grid.
#[derive(Clone, Debug)]
pub struct Trellis {
    bits: u32,
    /// By state and parity of the position.
    next: Vec<[u8; 2]>,
    /// By state: whether it takes the odd multiples.
    odd: Vec<bool>,
    /// By state: the two ways into it.
    arrivals: Vec<[Arrival; 2]>,
}

impl Trellis {
    /// A trellis of `2^bits` states: 0 for the plain grid, or 2 to [`MAX_STATE_BITS`].
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] for another number of states.
    pub fn new(bits: u32) -> Result<Self> {
        if bits == 0 {
            return Ok(Self {
                bits,
                next: vec![[0, 0]],
                odd: vec![false],
                arrivals: Vec::new(),
            });
        }
        if !(2..=MAX_STATE_BITS).contains(&bits) {
            return Err(Error::invalid_argument(format!(
                "a trellis has 1, 4, 8, ... or {} states, not 2^{bits}",
                1 << MAX_STATE_BITS
            )));
        }
        let (h0, h1) = PARITY_CHECKS[bits as usize - 2];
        let states = 1usize << bits;
        // Systematic feedback form: the highest bit of the state is the next output z0, and the
        // others move up by one, joined by z0 and the parity where the polynomials have a term.
        let next: Vec<[u8; 2]> = (0..states as u32)
            .map(|state| {
                let z0 = state >> (bits - 1) & 1;
                [0u32, 1].map(|parity| {
                    let mut following = z0 ^ (h1 >> bits & parity);
                    for j in 1..bits {
                        let term = (h0 >> (bits - j) & z0) ^ (h1 >> (bits - j) & parity);
                        following |= ((state >> (j - 1) & 1) ^ (term & 1)) << j;
                    }
                    following as u8
                })
            })
            .collect();
        let odd = (0..states).map(|state| state >> (bits - 1) == 1).collect();
        let mut trellis = Self {
            bits,
            next,
            odd,
            arrivals: vec![[Arrival::default(); 2]; states],
        };
        let mut found = vec![0; states];
        for state in 0..states {
            for parity in 0..2u8 {
                let to = usize::from(trellis.next[state][usize::from(parity)]);
                trellis.arrivals[to][found[to]] = Arrival {
                    from: state as u8,
                    branch: 2 * u8::from(trellis.odd[state]) + parity,
                };
                found[to] += 1;
            }
        }
        debug_assert!(found.iter().all(|&ways| ways == 2));
        Ok(trellis)
    }

    /// Bits of a state; 0 for the plain grid.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Whether it is the plain grid.
    pub fn is_plain(&self) -> bool {
        self.bits == 0
    }

    /// Number of states.
    pub fn states(&self) -> usize {
        1 << self.bits
    }

    /// Steps between neighbouring values that one state offers: 1 or 2.
    pub fn spacing(&self) -> i32 {
        if self.is_plain() { 1 } else { 2 }
    }

    /// The state after taking the value at `position` among those that `state` offers.
    #[inline]
    pub fn next(&self, state: u8, position: i32) -> u8 {
        self.next[usize::from(state)][(position & 1) as usize]
    }

    /// Whether a state offers the odd multiples of the step.
    #[inline]
    pub fn is_odd(&self, state: u8) -> bool {
        self.odd[usize::from(state)]
    }

    /// The two ways into each state; empty for the plain grid.
    pub fn arrivals(&self) -> &[[Arrival; 2]] {
        &self.arrivals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_reached_in_two_ways_that_differ() {
        for bits in 2..=MAX_STATE_BITS {
            let trellis = Trellis::new(bits).unwrap();
            for (state, ways) in trellis.arrivals().iter().enumerate() {
                assert_ne!(ways[0], ways[1]);
                for way in ways {
                    assert_eq!(
                        usize::from(trellis.next(way.from, i32::from(way.branch & 1))),
                        state
                    );
                    assert_eq!(trellis.is_odd(way.from), way.branch >> 1 == 1);
                }
            }
        }
    }

    /// The free distance of Ungerboeck's codes for one dimension, in units of the squared step.
    #[test]
    fn paths_that_part_differ_by_the_free_distance() {
        for (bits, expected) in [
            (2, 9.0),
            (3, 10.0),
            (4, 11.0),
            (5, 13.0),
            (6, 14.0),
            (7, 16.0),
        ] {
            let trellis = Trellis::new(bits).unwrap();
            assert_eq!(free_distance(&trellis), expected, "{} states", 1 << bits);
        }
    }

    /// Shortest squared distance between two paths that part in one state and meet again: a search
    /// over pairs of states (Dijkstra, by relaxing until nothing changes).
    fn free_distance(trellis: &Trellis) -> f64 {
        let states = trellis.states();
        // The four subsets are the multiples of four steps, moved by the branch's residue.
        let residue = |state: u8, parity: i32| 2 * parity + i32::from(trellis.is_odd(state));
        let distance = |a: i32, b: i32| {
            let apart = (a - b).rem_euclid(4);
            f64::from(apart.min(4 - apart).pow(2))
        };
        let mut best = vec![f64::INFINITY; states * states];
        for state in 0..states as u8 {
            let [a, b] = [0, 1].map(|parity| usize::from(trellis.next(state, parity)));
            let start = distance(residue(state, 0), residue(state, 1));
            best[a * states + b] = best[a * states + b].min(start);
        }
        // Parallel branches are four steps apart.
        let mut shortest: f64 = 16.0;
        loop {
            let mut changed = false;
            for a in 0..states {
                for b in 0..states {
                    let here = best[a * states + b];
                    if a == b || here >= shortest {
                        continue;
                    }
                    for (p, q) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        let there = here + distance(residue(a as u8, p), residue(b as u8, q));
                        let (x, y) = (trellis.next(a as u8, p), trellis.next(b as u8, q));
                        if x == y {
                            shortest = shortest.min(there);
                        } else {
                            let slot = &mut best[usize::from(x) * states + usize::from(y)];
                            if there < *slot {
                                *slot = there;
                                changed = true;
                            }
                        }
                    }
                }
            }
            if !changed {
                return shortest;
            }
        }
    }

    #[test]
    fn other_numbers_of_states_are_refused() {
        for bits in [1, 9, 40] {
            assert!(Trellis::new(bits).is_err());
        }
    }
}
