//! Packed bits of weights and the keys of 4x4 blocks of bit-planes.
//!
//! Every function gives the same result with every instruction set; the scalar twin is the
//! definition, and tests compare the others to it.

mod kernels;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use kernels::{COLUMNS, pack_patterns, plane_keys};
pub use scalar::{Levels, Patterns, WIDTH, keys_of_levels};
