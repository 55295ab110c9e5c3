//! Tensors that are kept exactly.
//!
//! | module | what it does |
//! |---|---|
//! | [`floats`] | codes floats, their exponents by adaptive models |
//! | [`byte_planes`] | regroups the bytes of any tensor by significance |

pub mod byte_planes;
pub mod floats;
