//! Tensors on a grid: every value is a multiple of the tensor's step.
//!
//! A block of such values is one of the motifs "step times integer vector", so a tensor on a grid
//! is a mosaic whose motifs need no table. Which multiples stand for the weights is decided one by
//! one (the plain grid) or by a path through a trellis, weighed against the bits they take; they
//! are coded by a model that learns the scales of rows and columns and predicts values from others,
//! on both sides alike.
//!
//! | module | what it does |
//! |---|---|
//! | [`geometry`] | rows, columns, chunks |
//! | [`trellis`] | which multiples may follow which |
//! | [`steps`] | steps of rows and columns |
//! | [`importance`] | how much errors count |
//! | [`feedback`] | errors made up for by what follows |
//! | [`quantise`] | chooses multiples |
//! | [`row_model`] | what is expected of a value |
//! | [`symbols`] | codes a value by what is expected of it |
//! | [`stream`] | the coded tensor |

pub mod feedback;
pub mod geometry;
pub mod importance;
pub mod quantise;
pub mod row_model;
pub mod steps;
pub mod stream;
pub mod symbols;
pub mod trellis;
