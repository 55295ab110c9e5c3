//! Entropy coders, and the models that tell them what to expect.
//!
//! | module | what it does |
//! |---|---|
//! | [`bits`] | reads and writes single bits, most significant first |
//! | [`prefix_code`] | a canonical prefix code, shared by a whole model |
//! | [`range_coder`] | codes bits by their probabilities |
//! | [`model`] | adaptive probabilities of bits, and mixing of predictions |
//! | [`normal`] | the normal distribution in integers |
//! | [`prediction`] | linear prediction of values |

pub mod bits;
pub mod model;
pub mod normal;
pub mod prediction;
pub mod prefix_code;
pub mod range_coder;
mod run_classes;
pub mod static_symbols;
