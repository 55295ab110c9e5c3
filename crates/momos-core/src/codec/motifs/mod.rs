//! The motifs themselves.
//!
//! | module | what it does |
//! |---|---|
//! | [`tree`] | a k-d tree over the motifs |
//! | [`coder`] | codes motifs by adaptive models of their values |
//! | [`table`] | sorts motifs so that a general compressor sees their structure |

pub mod coder;
pub mod table;
pub mod tree;
