//! The core of momos: the algorithmic simplicity of neural networks.
//!
//! A model's weights are cut into `m` *blocks* of `s` consecutive values; every block is replaced
//! by one of `k` shared *motifs*, and the *mosaic* is the index of each block's motif
//! (Mosaic-of-Motifs, arXiv 2602.14896). This crate holds what that needs and nothing else: it
//! knows neither Python, nor files, nor tensor names.
//!
//! | module | question it answers |
//! |---|---|
//! | [`layout`] | which values make up which block, and how does a tensor come back from motifs |
//! | [`motifs`] | which `k` motifs represent the blocks |
//! | [`nearest`] | which motif is nearest to each block, exactly |
//! | [`complexity`] | how complex are the weights (BDM, block entropy) |
//! | [`codec`] | how few bytes hold a mosaic or a tensor |
//! | [`simd`] | which instruction sets are there, and what is written in them |
#![deny(unsafe_code)]

pub mod codec;
pub mod complexity;
pub mod element;
pub mod error;
pub mod float;
pub mod layout;
pub mod limits;
mod memory;
pub mod monitor;
pub mod motifs;
pub mod nearest;
mod row_set;
pub mod simd;

pub use error::{Error, ErrorKind, Result};
pub use monitor::Monitor;
