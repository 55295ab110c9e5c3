//! Which values make up which block, and how a tensor comes back from motifs.
