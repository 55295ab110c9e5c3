//! How complex are the weights: the Block Decomposition Method and block entropy.
