//! Every limit of the core in one place, each with its reason.

/// Largest block size `s`. Beyond it a block is not a local pattern any more, and kernels may size
/// their buffers by it.
pub const MAX_BLOCK_SIZE: usize = 4096;

/// Largest number of motifs `k`: indices are 32-bit and the last value is kept free.
pub const MAX_MOTIFS: usize = u32::MAX as usize - 1;

/// Largest number of blocks `m` of one mosaic: counts and offsets of that size still fit a
/// 64-bit float exactly and leave a margin in every 64-bit product with [`MAX_BLOCK_SIZE`].
pub const MAX_BLOCKS: usize = 1 << 48;

/// Longest code of a motif index, in bits: what a 64-bit window that is refilled by whole bytes
/// always shows, and more than any mosaic of up to 2^33 blocks can ask for.
pub const MAX_CODE_LENGTH: u32 = 48;

/// Blocks per independently decodable chunk of an index stream: long enough that the chunk's
/// four-byte length costs nothing, short enough that many threads share one large tensor.
pub const BLOCKS_PER_CHUNK: usize = 1 << 16;

/// Blocks per chunk of an index stream of paths: more than above, since every chunk's model learns
/// anew.
pub const BLOCKS_PER_PATH_CHUNK: usize = 1 << 17;

/// Blocks per chunk of an index stream of mixed predictions, whose models learn much longer.
pub const BLOCKS_PER_MIXING_CHUNK: usize = 1 << 20;
