//! The index stream of one tensor as paths in the tree of motifs.
//!
//! | module | what it holds |
//! |---|---|
//! | `stream` | the stream, by any of the codecs |
//! | [`contexts`] | the codec of few shared contexts |
//! | [`mixing`] | the codec that mixes predictions |

pub mod contexts;
pub mod mixing;
mod stream;

pub use stream::{Coding, Effort, blocks_per_chunk, decode, decode_part, encode, trial};
