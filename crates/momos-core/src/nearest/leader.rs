//! The nearest motif so far, and the rivals that float32 cannot tell from it.
//!
//! A leader holds the smallest float32 distance seen and its limit (see [`super::margin`]). A
//! motif whose distance exceeds the limit is out for good, since limits only fall. One whose own
//! limit is below the leader's distance beats it, and all before it, for certain. Anything in
//! between is a rival: both are written down, and the lane is contested until someone wins for
//! certain. What is contested in the end is settled in float64. So float64 work is done only for
//! ties and near-ties.

use crate::simd::{LANES, Simd};

/// Gives the squared distance that decides, by index of block and motif.
pub type ExactDistance<'a> = &'a (dyn Fn(usize, u32) -> f64 + Sync);

/// Motifs that may be as near as the leader of their lane, in no particular order and perhaps more
/// than once.
#[derive(Debug, Default)]
pub struct Rivals {
    entries: Vec<(u32, u32)>,
}

impl Rivals {
    /// Forgets all, for the next blocks.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    #[cold]
    fn add(&mut self, lane: u32, motif: u32) {
        self.entries.push((lane, motif));
    }

    /// The rivals of a lane.
    pub fn of(&self, lane: u32) -> impl Iterator<Item = u32> {
        let entries = self.entries.iter().filter(move |entry| entry.0 == lane);
        entries.map(|entry| entry.1)
    }

    /// The nearest of the leader and its rivals, the lowest index among equals.
    #[cold]
    pub fn settle(&self, lane: u32, block: usize, leader: u32, exact: ExactDistance<'_>) -> u32 {
        let mut nearest = (exact(block, leader), leader);
        for motif in self.of(lane) {
            let candidate = (exact(block, motif), motif);
            if candidate < nearest {
                nearest = candidate;
            }
        }
        nearest.1
    }
}

/// The leaders of sixteen blocks; a leader is a motif, or a set of motifs of which the bounds of
/// the distances are known.
#[derive(Clone, Copy)]
pub struct Leaders<V: Simd> {
    distance: V::Floats,
    motif: V::Words,
    limit: V::Floats,
    contested: u32,
}

impl<V: Simd> Leaders<V> {
    /// No motif seen yet.
    #[inline(always)]
    pub fn new(simd: V) -> Self {
        Self {
            distance: simd.splat(f32::MAX),
            motif: simd.splat_words(u32::MAX),
            limit: simd.splat(f32::MAX),
            contested: 0,
        }
    }

    /// No motif seen yet, but some are known to be within these limits.
    #[inline(always)]
    pub fn within(simd: V, limit: V::Floats) -> Self {
        Self {
            limit,
            ..Self::new(simd)
        }
    }

    /// Distances above it are out.
    #[inline(always)]
    pub fn limit(&self) -> V::Floats {
        self.limit
    }

    /// Whether any lane may have to take note of these distances.
    #[inline(always)]
    pub fn concerns(&self, simd: V, distance: V::Floats) -> bool {
        simd.bits(simd.le(distance, self.limit)) != 0
    }

    /// Shows the same motif to all lanes, with its distances and their limits. Rivals are noted
    /// under the number of their lane plus `first_lane`.
    #[inline(always)]
    pub fn offer(
        &mut self,
        simd: V,
        distance: V::Floats,
        limit: V::Floats,
        motif: u32,
        first_lane: u32,
        rivals: &mut Rivals,
    ) {
        let within = simd.bits(simd.le(distance, self.limit));
        if within == 0 {
            return;
        }
        let wins = simd.bits(simd.lt(limit, self.distance));
        let close = within & !wins;
        if close != 0 {
            if V::PLAIN_ARRAYS {
                self.note_rivals(simd, close, motif, first_lane, rivals);
            } else {
                let leaders = simd.words_to_array(self.motif);
                note_rivals(close, motif, &leaders, first_lane, rivals);
            }
        }
        self.contested = (self.contested & !wins) | close;
        let nearer = simd.lt(distance, self.distance);
        self.distance = simd.select(nearer, distance, self.distance);
        self.motif = simd.select_words(nearer, simd.splat_words(motif), self.motif);
        self.limit = simd.min(self.limit, limit);
    }

    /// As [`note_rivals`], by reference: vectors that are arrays then stay in memory, while the
    /// compiler would otherwise take them apart, and brute force took three times as long.
    #[cold]
    fn note_rivals(&self, simd: V, lanes: u32, motif: u32, first_lane: u32, rivals: &mut Rivals) {
        let leaders = simd.words_to_array(self.motif);
        note_rivals(lanes, motif, &leaders, first_lane, rivals);
    }

    /// Each lane's leader, and the lanes in which it is contested.
    #[inline(always)]
    pub fn finish(&self, simd: V) -> ([u32; LANES], u32) {
        (simd.words_to_array(self.motif), self.contested)
    }
}

/// Notes for the lanes whose bits are set that a motif and the lane's leader are rivals.
#[cold]
fn note_rivals(
    mut lanes: u32,
    motif: u32,
    leaders: &[u32; LANES],
    first_lane: u32,
    rivals: &mut Rivals,
) {
    while lanes != 0 {
        let lane = lanes.trailing_zeros();
        lanes &= lanes - 1;
        rivals.add(first_lane + lane, motif);
        rivals.add(first_lane + lane, leaders[lane as usize % LANES]);
    }
}

/// The leader of one block.
#[derive(Clone, Copy, Debug)]
pub struct Leader {
    distance: f32,
    motif: u32,
    limit: f32,
    contested: bool,
}

impl Leader {
    /// No motif seen yet.
    pub const NONE: Self = Self {
        distance: f32::MAX,
        motif: u32::MAX,
        limit: f32::MAX,
        contested: false,
    };

    /// No motif seen yet, but one is known to be within this limit.
    #[inline(always)]
    pub fn within(limit: f32) -> Self {
        Self {
            limit,
            ..Self::NONE
        }
    }

    /// Distances above it are out.
    #[inline(always)]
    pub fn limit(&self) -> f32 {
        self.limit
    }

    /// Shows a motif whose limit is `distance * relative + slack`; `lane` tells the blocks that
    /// share `rivals` apart.
    #[inline(always)]
    pub fn offer(
        &mut self,
        distance: f32,
        motif: u32,
        (relative, slack): (f32, f32),
        lane: u32,
        rivals: &mut Rivals,
    ) {
        if distance > self.limit {
            return;
        }
        let limit = distance * relative + slack;
        if limit < self.distance {
            self.contested = false;
        } else {
            self.contested = true;
            rivals.add(lane, motif);
            rivals.add(lane, self.motif);
        }
        if distance < self.distance {
            self.distance = distance;
            self.motif = motif;
        }
        self.limit = self.limit.min(limit);
    }

    /// The nearest motif of all that were offered.
    #[inline(always)]
    pub fn finish(
        &self,
        lane: u32,
        block: usize,
        rivals: &Rivals,
        exact: ExactDistance<'_>,
    ) -> u32 {
        if self.contested {
            rivals.settle(lane, block, self.motif, exact)
        } else {
            self.motif
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_ties_are_settled_exactly() {
        let mut rivals = Rivals::default();
        let mut leader = Leader::NONE;
        let margin = (1.001, 0.0);
        for (distance, motif) in [(5.0, 9), (2.0, 7), (2.0005, 3), (1.9995, 4), (8.0, 1)] {
            leader.offer(distance, motif, margin, 0, &mut rivals);
        }
        let exact = |_: usize, motif: u32| if motif == 4 { 3.0 } else { 2.0 };
        assert_eq!(leader.finish(0, 0, &rivals, &exact), 3);
        // A certain winner ends the contest without a look at exact distances.
        leader.offer(1.0, 6, margin, 0, &mut rivals);
        assert_eq!(leader.finish(0, 0, &rivals, &|_, _| unreachable!()), 6);
    }
}
