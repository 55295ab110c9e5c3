//! Every limit of the core in one place, each with its reason.

/// Largest block size `s`. Beyond it a block is no local pattern any more, and kernels may size
/// their buffers by it.
pub const MAX_BLOCK_SIZE: usize = 4096;

/// Largest number of motifs `k`: indices are 32-bit and the last value is kept free.
pub const MAX_MOTIFS: usize = u32::MAX as usize - 1;

/// Largest number of blocks `m` of one mosaic: counts and offsets of that size still fit a
/// 64-bit float exactly and leave a margin in every 64-bit product with [`MAX_BLOCK_SIZE`].
pub const MAX_BLOCKS: usize = 1 << 48;
