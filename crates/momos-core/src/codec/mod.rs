//! How few bytes hold a mosaic or a tensor.
//!
//! | module | what it holds |
//! |---|---|
//! | [`entropy`] | coders of bits and symbols, and models of what to expect |
//! | [`index`] | the index stream of a tensor |
//! | [`motifs`] | the motifs |
//! | [`exact`] | tensors kept exactly |
//! | [`grid`] | tensors whose values are multiples of a step, chosen for few bits |
//! | `digest` | the digest of sections and headers |
//!
//! The layout of every stream is written down in `docs/format.md`.

mod digest;
pub mod entropy;
pub mod exact;
pub mod grid;
pub mod index;
pub mod motifs;

pub use digest::{Digest, digest};
