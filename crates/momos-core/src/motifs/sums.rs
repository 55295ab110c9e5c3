//! Adding blocks to the sums of their motifs, one after another.

use std::ops::Range;

use super::aligned::LINE_BYTES;
use crate::element::Element;
use crate::simd::{Isa, LANES, Simd, Work, dispatch, prefetch};

/// Bytes of sums that are asked for before they are needed: enough for what comes from memory, not
/// too much for a first-level cache.
const BYTES_AHEAD: usize = 3 << 9;
/// Indices that are looked at before the blocks of the own motifs among them are added.
const SCANNED: usize = 1 << 12;

/// The sums of some consecutive motifs.
pub struct Sums<'a> {
    /// Index of the first of them.
    pub first: usize,
    /// Values per block.
    pub size: usize,
    /// Power of two that keeps sums and squares of huge values finite.
    pub scale: f64,
    /// Per motif: the sums of its blocks' values, their number, and the sum of all their squares.
    pub rows: &'a mut [f64],
}

impl Sums<'_> {
    /// Most motifs there may be for [`add_own`](Self::add_own), which reads indices as signed.
    pub const MOST_MOTIFS: usize = i32::MAX as usize;

    /// Adds blocks, given the index of the motif of each, which is one of these.
    pub fn add_all<T: Element>(&mut self, blocks: &[T], indices: &[u32]) {
        self.add::<T, false>(blocks, indices);
    }

    /// Adds those of the blocks whose motifs are among these, given the index of the motif of each.
    pub fn add_own<T: Element>(&mut self, blocks: &[T], indices: &[u32]) {
        self.add::<T, true>(blocks, indices);
    }

    fn add<T: Element, const OWN: bool>(&mut self, blocks: &[T], indices: &[u32]) {
        let (isa, first) = (Isa::best(), self.first);
        macro_rules! add_to {
            ($rows:expr) => {
                dispatch(
                    isa,
                    Addition::<_, _, OWN> {
                        rows: $rows,
                        first,
                        blocks,
                        indices,
                    },
                )
            };
        }
        macro_rules! of_size {
            ($size:literal) => {
                add_to!(OfSize::<$size, { $size + 2 }>(self.rows.as_chunks_mut().0))
            };
        }
        match self.size {
            2 if self.scale == 1.0 => of_size!(2),
            4 if self.scale == 1.0 => of_size!(4),
            8 if self.scale == 1.0 => of_size!(8),
            _ => add_to!(OfAnySize(self)),
        }
    }
}

/// Rows of sums that blocks are added to, by place.
trait Rows {
    /// Values per block.
    fn size(&self) -> usize;
    /// How many rows there are.
    fn count(&self) -> usize;
    /// Asks for what will be needed to add to a row.
    fn ask_for(&self, place: usize);
    /// Adds a block.
    fn add<T: Element>(&mut self, place: usize, block: &[T]);
}

/// Sums of blocks of `S` values that are not huge, in rows of `ROW`, which is two more.
struct OfSize<'a, const S: usize, const ROW: usize>(&'a mut [[f64; ROW]]);

impl<const S: usize, const ROW: usize> Rows for OfSize<'_, S, ROW> {
    #[inline(always)]
    fn size(&self) -> usize {
        S
    }

    #[inline(always)]
    fn count(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn ask_for(&self, place: usize) {
        if let Some(row) = self.0.get(place) {
            prefetch(&row[0]);
            if !LINE_BYTES.is_multiple_of(size_of_val(row)) {
                prefetch(&row[ROW - 1]);
            }
        }
    }

    #[inline(always)]
    fn add<T: Element>(&mut self, place: usize, block: &[T]) {
        const { assert!(ROW == S + 2) };
        let Some(row) = self.0.get_mut(place) else {
            return;
        };
        let x: [f64; S] = std::array::from_fn(|d| block[d].to_f64());
        let squares = x.iter().map(|x| x * x).sum::<f64>();
        // All values of a row at a time.
        let more: [f64; ROW] = std::array::from_fn(|place| match place {
            place if place < S => x[place],
            place if place == S => 1.0,
            _ => squares,
        });
        for (sum, more) in row.iter_mut().zip(more) {
            *sum += more;
        }
    }
}

/// Sums of blocks of any size, huge ones too.
struct OfAnySize<'a, 'b>(&'a mut Sums<'b>);

impl Rows for OfAnySize<'_, '_> {
    #[inline(always)]
    fn size(&self) -> usize {
        self.0.size
    }

    #[inline(always)]
    fn count(&self) -> usize {
        self.0.rows.len() / (self.0.size + 2)
    }

    #[inline(always)]
    fn ask_for(&self, place: usize) {
        let size = self.0.size;
        if place < self.count() {
            let row = &self.0.rows[place * (size + 2)..][..size + 2];
            prefetch(&row[0]);
            prefetch(&row[size + 1]);
        }
    }

    #[inline(always)]
    fn add<T: Element>(&mut self, place: usize, block: &[T]) {
        if place >= self.count() {
            return;
        }
        let (size, scale) = (self.0.size, self.0.scale);
        let row = &mut self.0.rows[place * (size + 2)..][..size + 2];
        let (sums, totals) = row.split_at_mut(size);
        let mut squares = 0.0;
        for (sum, x) in sums.iter_mut().zip(block) {
            let x = x.to_f64() * scale;
            squares += x * x;
            *sum += x;
        }
        totals[0] += 1.0;
        totals[1] += squares;
    }
}

/// Adds blocks to rows, given the index of the motif of each: all, which must be among those of the
/// rows, or the rows' own.
struct Addition<'a, T, R, const OWN: bool> {
    rows: R,
    /// Index of the motif of the first row.
    first: usize,
    blocks: &'a [T],
    indices: &'a [u32],
}

impl<T: Element, R: Rows, const OWN: bool> Work for Addition<'_, T, R, OWN> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, simd: V) {
        if OWN {
            self.add_own(simd);
        } else {
            self.add_all();
        }
    }
}

impl<T: Element, R: Rows, const OWN: bool> Addition<'_, T, R, OWN> {
    /// Blocks after which a row is needed that is prefetched now, of that many.
    #[inline(always)]
    fn ahead(&self, count: usize) -> usize {
        let row_bytes = (self.rows.size() + 2) * size_of::<f64>();
        (BYTES_AHEAD / row_bytes).max(1).min(count)
    }

    #[inline(always)]
    fn add_all(mut self) {
        let (indices, size, first) = (self.indices, self.rows.size(), self.first);
        let place_of = |index: u32| (index as usize).wrapping_sub(first);
        let ahead = self.ahead(indices.len());
        let (most, last) = indices.split_at(indices.len() - ahead);
        let mut blocks = self.blocks.chunks_exact(size);
        for ((&index, &soon), block) in most.iter().zip(&indices[ahead..]).zip(&mut blocks) {
            self.rows.ask_for(place_of(soon));
            self.rows.add(place_of(index), block);
        }
        for (&index, block) in last.iter().zip(blocks) {
            self.rows.add(place_of(index), block);
        }
    }

    #[inline(always)]
    fn add_own<V: Simd>(mut self, simd: V) {
        let (size, first) = (self.rows.size(), self.first);
        let place_of = |index: u32| (index as usize).wrapping_sub(first);
        let range = first as u32..(first + self.rows.count()) as u32;
        let mut numbers = [0; SCANNED + LANES];
        let pieces = self.blocks.chunks(SCANNED * size);
        for (blocks, indices) in pieces.zip(self.indices.chunks(SCANNED)) {
            let count = find(simd, indices, &range, &mut numbers);
            let ahead = self.ahead(count);
            let (most, last) = numbers[..count].split_at(count - ahead);
            for (&number, &soon) in most.iter().zip(&numbers[ahead..count]) {
                self.rows.ask_for(place_of(indices[usize::from(soon)]));
                let number = usize::from(number);
                let block = &blocks[number * size..][..size];
                self.rows.add(place_of(indices[number]), block);
            }
            for &number in last {
                let number = usize::from(number);
                let block = &blocks[number * size..][..size];
                self.rows.add(place_of(indices[number]), block);
            }
        }
    }
}

/// Writes the numbers of those of at most [`SCANNED`] indices that are in the range, ascending, and
/// returns how many there are. Indices and range are below `2^31`.
///
/// Without branches: whose a block is cannot be foreseen.
#[inline(always)]
fn find<V: Simd>(
    simd: V,
    indices: &[u32],
    range: &Range<u32>,
    numbers: &mut [u16; SCANNED + LANES],
) -> usize {
    let (start, end) = (simd.splat_words(range.start), simd.splat_words(range.end));
    let mut count = 0;
    let (vectors, rest) = indices.as_chunks::<LANES>();
    for (number, vector) in vectors.iter().enumerate() {
        let vector = simd.load_words(vector);
        let before_end = !simd.bits(simd.ge_signed(vector, end));
        let bits = simd.bits(simd.ge_signed(vector, start)) & before_end;
        for half in 0..2 {
            let lanes = (bits >> (8 * half)) as u8;
            let before = (number * LANES + 8 * half) as u16;
            // What is past the set bits is overwritten by the next ones.
            numbers[count..][..8]
                .copy_from_slice(&SET_BITS[usize::from(lanes)].map(|lane| before + lane));
            count += lanes.count_ones() as usize;
        }
    }
    for (number, index) in (indices.len() - rest.len()..).zip(rest) {
        numbers[count] = number as u16;
        count += usize::from(range.contains(index));
    }
    count
}

/// For every byte the numbers of its set bits, ascending, and then zeros.
static SET_BITS: [[u16; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < table.len() {
        let (mut bit, mut count) = (0, 0);
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                table[byte][count] = bit;
                count += 1;
            }
            bit += 1;
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::motifs::SplitMix64;

    struct Find<'a>(&'a [u32], Range<u32>);

    impl Work for Find<'_> {
        type Output = Vec<u16>;

        #[inline(always)]
        fn run<V: Simd>(self, simd: V) -> Vec<u16> {
            let mut numbers = [7; SCANNED + LANES];
            let count = find(simd, self.0, &self.1, &mut numbers);
            numbers[..count].to_vec()
        }
    }

    #[test]
    fn own_blocks_are_found() {
        let mut random = SplitMix64::new(2);
        let most = Sums::MOST_MOTIFS as u32;
        for (len, end) in [
            (0, 5),
            (1, 5),
            (15, 5),
            (100, 70),
            (SCANNED, 3),
            (SCANNED, most),
        ] {
            let indices: Vec<u32> = (0..len).map(|_| random.below(end.into()) as u32).collect();
            for range in [0..end, 0..end / 2, end / 2..end, 1..2, end / 3..end / 3] {
                let expected: Vec<u16> = (0..len as u16)
                    .filter(|&number| range.contains(&indices[usize::from(number)]))
                    .collect();
                for isa in Isa::ALL {
                    let found = dispatch(isa, Find(&indices, range.clone()));
                    assert_eq!(found, expected, "{} {range:?}", isa.name());
                }
            }
        }
    }

    #[test]
    fn sums_of_a_size_are_those_of_any_size() {
        fn sums<const S: usize, const ROW: usize>() {
            let (m, k) = (1000, 40);
            let mut random = SplitMix64::new(S as u64);
            let mut value = || random.next_u64() as f32 / u64::MAX as f32 - 0.5;
            let blocks: Vec<f32> = (0..m * S).map(|_| value()).collect();
            let indices: Vec<u32> = (0..m).map(|_| random.below(k as u64) as u32).collect();
            let (mut rows, mut other) = (vec![0.0; k * ROW], vec![0.0; k * ROW]);
            let (first, blocks, indices) = (0, &blocks[..], &indices[..]);
            let of_size = Addition::<_, _, false> {
                rows: OfSize::<S, ROW>(rows.as_chunks_mut().0),
                first,
                blocks,
                indices,
            };
            let mut sums = Sums {
                first,
                size: S,
                scale: 1.0,
                rows: &mut other,
            };
            let of_any_size = Addition::<_, _, false> {
                rows: OfAnySize(&mut sums),
                first,
                blocks,
                indices,
            };
            dispatch(Isa::best(), of_size);
            dispatch(Isa::best(), of_any_size);
            assert_eq!(rows, other);
            assert_eq!(rows.iter().skip(S).step_by(ROW).sum::<f64>(), m as f64);
        }
        sums::<2, 4>();
        sums::<4, 6>();
        sums::<8, 10>();
    }
}
