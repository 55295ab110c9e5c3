//! How far float32 arithmetic may be off, and therefore what it may rule out.
//!
//! Notation: `u = 2^-24` is the unit roundoff of float32 and `s` the block size. All coordinates
//! are scaled so that the largest has a magnitude in `[2^50, 2^51)`; sums of `s <= 4096` squares
//! then stay below `2^116`, far from overflow.
//!
//! **Direct distances.** The kernels compute `F`, the sum of `(x - z)^2` over float32 coordinates.
//! Each difference is off by a factor `1 + u`, each square and sum by another, so with `D'` the
//! true sum over these coordinates, `|F - D'| <= g D' + a` where `g = (s + 3) u` to first order,
//! and `a` stands for underflow, at most `s 2^-126` even where subnormals are flushed to zero.
//!
//! **Rounded coordinates.** For float64 sources the coordinates themselves are off by a factor
//! `1 + u`, so that with `D` the true distance, `|sqrt D' - sqrt D| <= h` where
//! `h = u (|x| + |z|)`.
//!
//! A motif with distance `F1` is certainly nearer than one with `F2` if
//! `sqrt(F1 (1 + g)) + h < sqrt(F2 (1 - g)) - h`. Since `(p + q)^2 <= p^2 (1 + t) + q^2 (1 + 1/t)`
//! for any `t > 0`, this follows from `F2 > F1 (1 + 4 g + 2 t) + 8 h^2 / t + 4 a`, the *limit* of
//! `F1`. The slack in it also covers that the limit is itself computed in float32, and the
//! rounding of the float64 distances that decide in the end, which is `2^29` times smaller.
//! For float32 sources `h = 0` up to underflow, and `t = 0`.
//!
//! **Expanded distances.** `E = |z|^2/2 - x.z` costs one operation a coordinate instead of two.
//! It equals `(D' - |x|^2)/2` up to `(s + 4) u (|x|^2 + |z|^2)`, from the rounding of `|z|^2/2`,
//! of the products (bounded by `(|x|^2 + |z|^2)/2` together) and of the sums. The margin has room
//! for the rounding of what is computed from it.
//!
//! **Boxes** need no margin: rounding is monotone, and the distance to a box is computed from gaps
//! no larger than the differences to any point in it, by the same operations in the same order.

/// Unit roundoff of float32.
const ROUNDOFF: f64 = 1.0 / (1u32 << 24) as f64;
/// The free parameter `t` for float64 sources.
const SPREAD: f64 = 1.0 / (1u32 << 17) as f64;

/// The margins for one block size and kind of source.
#[derive(Clone, Copy, Debug)]
pub struct Margin {
    /// Factor of a distance's limit.
    relative: f32,
    /// Slack of a distance's limit, whatever the block.
    absolute: f64,
    /// Slack of a distance's limit, in units of the sum of the squared norms.
    per_norm: f64,
    /// Slack of an expanded distance, in units of the sum of the squared norms.
    expanded: f64,
}

impl Margin {
    /// The margins for blocks of `block_size` values that are exact in float32, or not.
    pub fn new(block_size: usize, exact_in_f32: bool) -> Self {
        let terms = block_size as f64;
        let (spread, per_norm) = if exact_in_f32 {
            (0.0, 0.0)
        } else {
            // h^2 = u^2 (|x| + |z|)^2 <= 2 u^2 (|x|^2 + |z|^2)
            (SPREAD, 8.0 * 2.0 * ROUNDOFF * ROUNDOFF / SPREAD)
        };
        Self {
            relative: (1.0 + 4.0 * (terms + 6.0) * ROUNDOFF + 2.0 * spread) as f32,
            absolute: terms * f64::from(f32::from_bits(7 << 23)),
            per_norm,
            expanded: 1.01 * (terms + 8.0) * ROUNDOFF,
        }
    }

    /// Factor of a distance's limit: `limit = distance * relative + slack`.
    #[inline(always)]
    pub fn relative(&self) -> f32 {
        self.relative
    }

    /// Slack of the limits of a block, given the motifs' largest squared norm: the first term plus
    /// the second times the block's squared norm.
    #[inline(always)]
    pub fn slack_terms(&self, largest_motif_norm: f64) -> (f32, f32) {
        // The factors cover the rounding to float32, of the norms and of their use.
        let fixed = self.absolute + self.per_norm * largest_motif_norm * 1.001;
        ((fixed * 1.001) as f32, (self.per_norm * 1.001) as f32)
    }

    /// Error of the expanded distances of a block, or of a set of motifs, by squared norm; the
    /// error of a pair is at most the sum of both.
    #[inline(always)]
    pub fn expanded(&self, norm: f64) -> f32 {
        (self.expanded * norm * 1.001 + self.absolute) as f32
    }

    /// Slack of a block's expanded limits, given its squared norm and the slack of its direct ones.
    ///
    /// With `e` the error of the block and `f` of some motifs, `E - f` is a lower bound of their
    /// expanded distances up to `e`; its limit is `(E + f) * relative + expanded_slack`.
    #[inline(always)]
    pub fn expanded_slack(&self, norm: f64, slack: f32) -> f32 {
        let relative = f64::from(self.relative);
        // The limit of the distance `D' = 2 E + |x|^2`, expanded again, and both errors `e`.
        let limit = 0.5 * (norm * (relative - 1.0) + f64::from(slack));
        let error = f64::from(self.expanded(norm)) * (1.0 + relative);
        ((limit + error) * 1.001) as f32
    }

    /// By how much the norms of two points can differ whose distance is within `limit`; `norm` is
    /// the largest of one side.
    #[inline(always)]
    pub fn reach(&self, limit: f32, norm: f32) -> f32 {
        let limit = f64::from(limit) * f64::from(self.relative) + self.absolute;
        // Norms are rounded to float32. If they are alike, the second term covers that; if not,
        // their difference is of their order, and the factor does.
        (limit.sqrt() * 1.000_01) as f32 + norm * 1e-6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_exceed_the_distance_by_more_than_its_rounding() {
        for block_size in [1, 4, 4096] {
            let exact = Margin::new(block_size, true);
            let rounded = Margin::new(block_size, false);
            let error = (block_size as f64 + 3.0) * ROUNDOFF;
            assert!(f64::from(exact.relative()) > (1.0 + error) / (1.0 - error));
            assert!(rounded.relative() > exact.relative());
            assert!(exact.slack_terms(1.0).0 > 0.0);
            assert_eq!(exact.slack_terms(1.0).1, 0.0);
            let (fixed, per_norm) = rounded.slack_terms(1.0);
            assert!(f64::from(fixed + per_norm) > 8.0 * (2.0 * ROUNDOFF).powi(2));
        }
    }
}
