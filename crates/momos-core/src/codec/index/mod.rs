//! The index streams of tensors: which motif stands for each block.
//!
//! | module | what it does |
//! |---|---|
//! | [`chunks`] | independent chunks within a stream |
//! | [`fixed_width`] | codes indices in a fixed number of bits |
//! | [`indices`] | codes a tensor's indices by the prefix code of the model |
//! | [`paths`] | codes them as paths in a tree of motifs |

pub mod chunks;
pub mod fixed_width;
pub mod indices;
pub mod paths;
