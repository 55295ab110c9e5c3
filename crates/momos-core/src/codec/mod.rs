//! How few bytes hold a mosaic or a tensor.
//!
//! | module | codes |
//! |---|---|
//! | [`bits`] | single bits, most significant first |
//! | [`prefix_code`] | motif indices as a canonical prefix code shared by a whole model |
//! | [`chunks`] | (independent chunks within a stream) |
//! | [`fixed_width`] | indices of a fixed number of bits |
//! | [`indices`] | the index stream of one tensor by that code |
//! | [`range_coder`] | single bits by their probabilities |
//! | [`model`] | (adaptive probabilities of bits, and mixing of predictions) |
//! | [`motif_tree`] | (a k-d tree over the motifs) |
//! | [`paths`] | the index stream of one tensor as paths in that tree |
//! | [`motif_coder`] | the motifs by adaptive models of their values |
//! | [`motif_table`] | the motifs, sorted, so that a general compressor sees their structure |
//! | [`repeats`] | (how many blocks differ) |
//! | [`grid`] | tensors whose values are multiples of a step, chosen for few bits |
//! | [`float_coder`] | floats, their exponents by adaptive models |
//! | [`planes`] | any tensor, its bytes regrouped by significance, likewise |
//!
//! The layout of every stream is written down in `docs/format.md`.

pub mod bits;
pub mod chunks;
pub mod fixed_width;
pub mod float_coder;
pub mod grid;
pub mod indices;
pub mod model;
pub mod motif_coder;
pub mod motif_table;
pub mod motif_tree;
pub mod paths;
pub mod planes;
pub mod prefix_code;
pub mod range_coder;
pub mod repeats;

/// The digest of sections and headers: XXH3 with 128 bits, as 32 lower-case hexadecimal digits.
///
/// It finds damage; it is no defence against forgery.
pub fn digest(bytes: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(bytes))
}

/// The [`digest`] of bytes that come one after another.
#[derive(Clone, Default)]
pub struct Digest {
    state: xxhash_rust::xxh3::Xxh3,
}

impl Digest {
    /// The digest of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes further bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
    }

    /// The digest of all bytes so far, as [`digest`] gives it.
    pub fn finish(&self) -> String {
        format!("{:032x}", self.state.digest128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_pieces_is_that_of_the_whole() {
        let bytes: Vec<u8> = (0..5000u32).map(|i| ((i * i) >> 3) as u8).collect();
        for step in [1, 7, 240, 1024, 5000] {
            let mut pieces = Digest::new();
            bytes.chunks(step).for_each(|piece| pieces.update(piece));
            assert_eq!(pieces.finish(), digest(&bytes));
        }
        assert_eq!(Digest::new().finish(), digest(&[]));
    }
}
