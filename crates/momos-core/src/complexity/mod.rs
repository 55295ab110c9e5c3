//! How complex are the weights: the Block Decomposition Method and block entropy.
//!
//! The Block Decomposition Method (Zenil et al. 2018, arXiv 1609.00110) cuts a binary object into
//! small blocks whose complexity the Coding Theorem Method has tabulated, and sums
//! `CTM(block) + log2(occurrences)` over the distinct blocks. So everything here is counting:
//! which block occurs how often, in exact integers, so that threads merge without changing the
//! result; the sum over the counts runs in a fixed order.
//!
//! A block's *key* has its element `i` (in C order) at bit `i`. Counters are indexed by key.
//!
//! | module | question it answers |
//! |---|---|
//! | [`floats`] | which bytes are which floating-point type |
//! | [`ctm`] | how complex is a binary block |
//! | [`signs`] | how often does each block of 12 signs occur |
//! | [`planes`] | how often does each 4x4 block occur in each bit-plane of a quantised matrix |
//! | [`tiled`] | how often does each 4x4 block occur in the planes interleaved |
//! | [`quantile`] | between which values does a robust quantiser work |
//! | [`quantiser`] | which level is a weight rounded to |
//! | [`statistics`] | what one pass tells about the values |
//! | [`symbols`] | how often does each block of an array of symbols occur |
//! | [`tables`], [`ctm_pickle`] | how complex is a block over any alphabet |
//! | [`perturbation`] | what does the change of one element change |
//! | [`bdm`] | what is the complexity of counted blocks |
//! | [`entropy`] | what is their entropy |

pub mod bdm;
pub mod ctm;
pub mod ctm_pickle;
pub mod entropy;
pub mod floats;
mod matrix;
pub mod perturbation;
pub mod planes;
pub mod quantile;
pub mod quantiser;
mod ranks;
pub mod signs;
pub mod statistics;
pub mod symbols;
pub mod tables;
mod tasks;
pub mod tiled;
