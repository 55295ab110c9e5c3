//! Tensors that are kept exactly.
//!
//! | module | what it does |
//! |---|---|
//! | [`floats`] | codes floats, their exponents by adaptive models |
//! | [`byte_planes`] | regroups the bytes of any tensor by significance |
//! | [`fields`] | codes floats and integers at the speed of memory |

mod bit_rows;
pub mod byte_planes;
pub mod fields;
pub mod floats;
