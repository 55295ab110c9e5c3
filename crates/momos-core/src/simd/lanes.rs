//! Sixteen `f32` lanes under one interface for every instruction set.
//!
//! Kernels are written once, generic over [`Simd`], and always see sixteen lanes: one register
//! with AVX-512, two with AVX2, four with NEON, an array that the compiler vectorises elsewhere.
//! A value of an implementing type is the proof that the processor has the instructions, since
//! only [`dispatch`](super::dispatch()) makes one, after asking the processor. That makes the
//! methods safe.
//!
//! Results may differ between instruction sets in the last bits (fused or separate rounding);
//! a search allows for that in its error bounds.

/// Number of `f32` in a vector.
pub const LANES: usize = 16;

/// A computation that is compiled once per instruction set.
///
/// [`run`](Self::run) and all it calls with the token must be `#[inline(always)]`, else it is
/// compiled without the instructions it is meant to use. That goes for closures, too: handed to a
/// function that is not inlined, such as `array::map`, they make every operation a call through
/// memory. `tests/inlining.rs` looks for them.
pub trait Work {
    /// What it returns.
    type Output;

    /// Computes it with the given vectors.
    fn run<V: Simd>(self, simd: V) -> Self::Output;
}

/// Operations on sixteen lanes.
pub trait Simd: Copy + Send + Sync {
    /// Sixteen `f32`.
    type Floats: Copy;
    /// Sixteen `u32`, which some operations read as `i32` or as 64 bytes.
    type Words: Copy;
    /// Sixteen booleans.
    type Mask: Copy;

    /// Whether vectors are arrays, which the compiler need not keep in vector registers.
    const PLAIN_ARRAYS: bool = false;

    /// The same value in every lane.
    fn splat(self, value: f32) -> Self::Floats;
    /// The lanes of an array.
    fn load(self, values: &[f32; LANES]) -> Self::Floats;
    /// The lanes as an array.
    fn to_array(self, a: Self::Floats) -> [f32; LANES];
    /// `a + b`.
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a - b`.
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b`.
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The smaller of both; no operand is NaN.
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The larger of both; no operand is NaN.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once or twice.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a * b`, rounded once or twice.
    fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Where `a <= b`.
    fn le(self, a: Self::Floats, b: Self::Floats) -> Self::Mask;
    /// Where `a < b`.
    fn lt(self, a: Self::Floats, b: Self::Floats) -> Self::Mask;
    /// The largest lane; no lane is NaN.
    fn reduce_max(self, a: Self::Floats) -> f32;
    /// The smallest lane; no lane is NaN.
    fn reduce_min(self, a: Self::Floats) -> f32;
    /// `a` where the mask is set, `b` elsewhere.
    fn select(self, mask: Self::Mask, a: Self::Floats, b: Self::Floats) -> Self::Floats;

    /// The mask as bits, lane 0 lowest.
    fn bits(self, mask: Self::Mask) -> u32;

    /// The same word in every lane.
    fn splat_words(self, value: u32) -> Self::Words;
    /// The words as an array.
    fn words_to_array(self, a: Self::Words) -> [u32; LANES];
    /// `a` where the mask is set, `b` elsewhere.
    fn select_words(self, mask: Self::Mask, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `2 * a`, plus one where the mask is set.
    fn double_plus(self, a: Self::Words, mask: Self::Mask) -> Self::Words;
    /// Where the given low bits of `a` equal `value`.
    fn low_bits_equal(self, a: Self::Words, low_bits: u32, value: u32) -> Self::Mask;
    /// `table[a]` per lane; an index past the end reads the last entry.
    ///
    /// # Panics
    /// If the table is empty or has more than `i32::MAX` entries.
    fn lookup(self, table: &[u32], a: Self::Words) -> Self::Words;
    /// The same bits read as floats.
    fn words_as_floats(self, a: Self::Words) -> Self::Floats;

    /// Largest magnitude of whole numbers that, with [`ZERO_BYTE`](Self::ZERO_BYTE) added, are the
    /// bytes of a first factor of [`dot_bytes`](Self::dot_bytes).
    const LARGEST_BYTE: i32;
    /// The byte that stands for zero in a first factor: 0 where it has signed bytes, else one that
    /// makes all of them positive.
    const ZERO_BYTE: i32 = Self::LARGEST_BYTE + 1;

    /// The square root; no lane is negative.
    fn sqrt(self, a: Self::Floats) -> Self::Floats;
    /// The words of an array.
    fn load_words(self, values: &[u32; LANES]) -> Self::Words;
    /// Adds to each lane of `sum` the products of its four bytes of `a`, signed or not as
    /// [`ZERO_BYTE`](Self::ZERO_BYTE) says, and of `b`, signed and not -128.
    fn dot_bytes(self, sum: Self::Words, a: Self::Words, b: Self::Words) -> Self::Words;
    /// Adds to each lane of `sum` the squares of the gaps between the intervals `a` and `b`, low
    /// and high, of which a lane holds two, of 16 bits without a sign. The gaps are below `2^14`.
    fn add_squared_gaps(
        self,
        sum: Self::Words,
        a: (Self::Words, Self::Words),
        b: (Self::Words, Self::Words),
    ) -> Self::Words;
    /// The larger of both, as `i32`.
    fn max_signed(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// Where `a >= b`, as `i32`.
    fn ge_signed(self, a: Self::Words, b: Self::Words) -> Self::Mask;
    /// The nearest `i32`; magnitudes are below `2^31`.
    fn round_to_signed(self, a: Self::Floats) -> Self::Words;
    /// The nearest float to an `i32`.
    fn signed_to_floats(self, a: Self::Words) -> Self::Floats;
}

/// The last index of a table, for clamping.
///
/// # Panics
/// If the table is empty or has more than `i32::MAX` entries.
pub(super) fn last_index(table: &[u32]) -> u32 {
    assert!(!table.is_empty() && table.len() <= i32::MAX as usize);
    (table.len() - 1) as u32
}
