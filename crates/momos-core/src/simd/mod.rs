//! Instruction sets: the one place that detects them, and the crate's unsafe code.
//!
//! Every function is safe and gives the same bits with every instruction set, except the
//! operations of [`Simd`], whose last bits may differ (fused or separate rounding).
//!
//! | module | what it holds |
//! |---|---|
//! | [`isa`] | instruction sets, and which of them this processor has |
//! | [`lanes`] | sixteen `f32` lanes, the operations that search kernels are written in |
//! | [`mod@dispatch`] | runs a kernel with the lanes of an instruction set |
//! | `avx512`, `avx2`, `neon`, `portable` | the lanes of each |
//! | [`mod@prefetch`] | hints to the cache |
//! | [`bit_planes`] | packed bits of weights and the keys of 4x4 blocks |
//! | [`fields`] | elements cut into fields and put together |
//! | [`linear`] | sums of scaled vectors |
//! | [`rans`] | states of interleaved numeral systems |
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod bit_planes;
pub mod dispatch;
pub mod fields;
pub mod isa;
pub mod lanes;
pub mod linear;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
pub mod prefetch;
pub mod rans;

pub use dispatch::dispatch;
pub use isa::{Available, Isa};
pub use lanes::{LANES, Simd, Work};
pub use prefetch::prefetch;
