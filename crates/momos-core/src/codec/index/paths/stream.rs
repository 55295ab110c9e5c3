//! The index stream of one tensor as paths in the tree of motifs.
//!
//! The first byte names the codec:
//!
//! | id | codec | what follows |
//! |---|---|---|
//! | 0 | [`fixed_width`] | every place in `ceil(log2 k)` bits |
//! | 2 | [`contexts`] | two bytes of choices, then chunks |
//! | 3 | [`mixing`](super::mixing) | blocks per row (u32), then chunks |
//!
//! Each of the [`chunks`] is coded by its own range coder and model, so any number of threads can
//! decode them.

use std::ops::Range;

use rayon::prelude::*;

use super::contexts::{self, Choice, TRIAL_BLOCKS};
use super::mixing::{Geometry, MixingModel};
use crate::codec::index::chunks::{self, Part, ends_early};
use crate::codec::index::fixed_width;
use crate::codec::index::indices::{
    FIXED_WIDTH, check_indices, encode_fixed_width, unknown_codec, worst_case,
};
use crate::codec::motifs::tree::MotifTree;
use crate::error::{Error, Result};
use crate::limits::{BLOCKS_PER_CHUNK, BLOCKS_PER_MIXING_CHUNK, BLOCKS_PER_PATH_CHUNK};
use crate::monitor::Monitor;
use crate::simd::Available;

const CONTEXTS: u8 = 2;
const MIXING: u8 = 3;

/// A chunk of `b` bytes codes fewer than this many times `b +` [`IMPLIED_BYTES`] blocks: the surest
/// bit of [`AdaptiveBit`](crate::codec::entropy::model::AdaptiveBit) takes 0.0005 bits.
const MAX_BLOCKS_PER_BYTE: usize = 1 << 14;

/// More bytes than those that range coders leave out at the ends of all lanes.
const IMPLIED_BYTES: usize = 8 * contexts::LANES;

/// How much time coding may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Decodes at hundreds of megabytes of weights a second.
    Default,
    /// Takes as few bytes as it can.
    Best,
}

/// Encodes the places in `tree` of a tensor's motifs; a row of the tensor holds `row_blocks` blocks,
/// 0 if that is not a whole number.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if there is no such place,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by blocks.
pub fn encode(
    places: &[u32],
    tree: &MotifTree,
    row_blocks: usize,
    effort: Effort,
    monitor: &Monitor,
) -> Result<Vec<u8>> {
    check_indices(places, tree.motifs())?;
    if fixed_width::size(places.len(), tree.motifs()) > 0 {
        let coding = Coding::new(&places[trial(places.len())], tree, row_blocks, effort);
        let mut stream = coding.head();
        chunks::join(&mut stream, &coding.encode(places, tree, monitor)?);
        if stream.len() < worst_case(places.len(), tree.motifs()) {
            return Ok(stream);
        }
    }
    Ok(encode_fixed_width(places, tree.motifs()))
}

/// Which of a tensor's blocks show how to code it.
pub fn trial(blocks: usize) -> Range<usize> {
    let start = (blocks - blocks.min(TRIAL_BLOCKS)) / 2;
    start..blocks.min(start + TRIAL_BLOCKS)
}

/// How the places of a tensor are coded, chosen once for all its chunks.
///
/// A stream is the [`head`](Self::head), the lengths of the chunks but the last, and the chunks,
/// each of [`blocks_per_chunk`](Self::blocks_per_chunk) blocks: they may be made piece by piece.
/// It is to be used if it is shorter than the [`worst_case`]; otherwise places have a fixed width.
#[derive(Clone, Copy, Debug)]
pub enum Coding {
    /// Codec 2.
    Contexts(Choice),
    /// Codec 3, with the blocks in a row.
    Mixing(u32),
}

impl Coding {
    /// A good choice for a tensor, by its blocks of [`trial`]; the other arguments are those of
    /// [`encode`].
    pub fn new(trial: &[u32], tree: &MotifTree, row_blocks: usize, effort: Effort) -> Self {
        match effort {
            Effort::Default => Self::Contexts(Choice::for_blocks(trial, tree)),
            Effort::Best => Self::Mixing(u32::try_from(row_blocks).unwrap_or(0)),
        }
    }

    /// What a stream begins with.
    pub fn head(self) -> Vec<u8> {
        match self {
            Self::Contexts(choice) => vec![CONTEXTS, choice.levels, choice.own_after],
            Self::Mixing(row_blocks) => {
                let mut head = vec![MIXING];
                head.extend_from_slice(&row_blocks.to_le_bytes());
                head
            }
        }
    }

    /// Blocks of every chunk but the last.
    pub fn blocks_per_chunk(self) -> usize {
        match self {
            Self::Contexts(_) => BLOCKS_PER_PATH_CHUNK,
            Self::Mixing(row_blocks) => blocks_per_mixing_chunk(row_blocks),
        }
    }

    /// The chunks of places, which must be below the number of motifs.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by blocks.
    pub fn encode(
        self,
        places: &[u32],
        tree: &MotifTree,
        monitor: &Monitor,
    ) -> Result<Vec<Vec<u8>>> {
        let chunks = places.par_chunks(self.blocks_per_chunk());
        match self {
            Self::Contexts(choice) => chunks
                .map(|places| contexts::encode_chunk(places, tree, choice, monitor))
                .collect(),
            Self::Mixing(row_blocks) => {
                let geometry = Geometry::new(tree);
                let row_blocks = row_blocks as usize;
                chunks
                    .map(|places| {
                        MixingModel::new(tree, &geometry, row_blocks, Available::best())
                            .encode(places, monitor)
                    })
                    .collect()
            }
        }
    }
}

/// Blocks of a chunk of [`mixing`](super::mixing): whole rows, if they are not too long.
fn blocks_per_mixing_chunk(row_blocks: u32) -> usize {
    let row = (row_blocks as usize).max(1);
    (BLOCKS_PER_MIXING_CHUNK / row).max(1) * row
}

/// Decodes the places of `blocks` blocks.
///
/// Memory: four bytes per block, and four per motif for each thread; a stream that is far too
/// short for its blocks is refused before that is allocated.
///
/// # Errors
/// [`crate::ErrorKind::InsufficientData`] if the stream ends early,
/// [`crate::ErrorKind::Corruption`] if it contradicts itself,
/// [`crate::ErrorKind::UnsupportedVersion`] for an unknown codec,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by blocks.
pub fn decode(
    stream: &[u8],
    blocks: usize,
    tree: &MotifTree,
    monitor: &Monitor,
) -> Result<Vec<u32>> {
    decode_part(stream, blocks, 0..blocks, tree, monitor)
}

/// Blocks of each chunk of a stream but the last, which are decoded together.
///
/// # Errors
/// [`crate::ErrorKind::InsufficientData`] if the stream ends early.
pub fn blocks_per_chunk(stream: &[u8]) -> Result<usize> {
    let (&codec, payload) = stream.split_first().ok_or_else(ends_early)?;
    Ok(match codec {
        CONTEXTS => BLOCKS_PER_PATH_CHUNK,
        MIXING => {
            let (&row_blocks, _) = payload.split_first_chunk().ok_or_else(ends_early)?;
            blocks_per_mixing_chunk(u32::from_le_bytes(row_blocks))
        }
        _ => BLOCKS_PER_CHUNK,
    })
}

/// Decodes the places of a part of `blocks` blocks: the chunks that hold it.
///
/// # Errors
/// As [`decode`], and [`crate::ErrorKind::InvalidArgument`] if there is no such part.
pub fn decode_part(
    stream: &[u8],
    blocks: usize,
    part: Range<usize>,
    tree: &MotifTree,
    monitor: &Monitor,
) -> Result<Vec<u32>> {
    let (&codec, payload) = stream.split_first().ok_or_else(ends_early)?;
    if tree.motifs() == 0 && blocks > 0 {
        return Err(Error::corruption("a mosaic without motifs has blocks"));
    }
    match codec {
        FIXED_WIDTH => fixed_width::decode(payload, blocks, part, tree.motifs(), monitor),
        CONTEXTS => {
            let (&[levels, own_after], payload) =
                payload.split_first_chunk().ok_or_else(ends_early)?;
            let choice = Choice { levels, own_after };
            if !choice.is_possible(tree.motifs()) {
                return Err(Error::corruption(format!(
                    "an index stream models {levels} levels of {} motifs",
                    tree.motifs()
                )));
            }
            let per_chunk = BLOCKS_PER_PATH_CHUNK;
            decode_chunks(payload, blocks, part, per_chunk, |bytes, places| {
                contexts::decode_chunk(bytes, places, tree, choice, monitor)
            })
        }
        MIXING => {
            let (&row_blocks, payload) = payload.split_first_chunk().ok_or_else(ends_early)?;
            let row_blocks = u32::from_le_bytes(row_blocks);
            if row_blocks as usize > blocks {
                return Err(Error::corruption("a row has more blocks than its tensor"));
            }
            let geometry = Geometry::new(tree);
            let per_chunk = blocks_per_mixing_chunk(row_blocks);
            decode_chunks(payload, blocks, part, per_chunk, |bytes, places| {
                MixingModel::new(tree, &geometry, row_blocks as usize, Available::best())
                    .decode(bytes, places, monitor)
            })
        }
        other => Err(unknown_codec(other)),
    }
}

fn decode_chunks(
    payload: &[u8],
    blocks: usize,
    part: Range<usize>,
    blocks_per_chunk: usize,
    decode: impl Fn(&[u8], &mut [u32]) -> Result<()> + Send + Sync,
) -> Result<Vec<u32>> {
    let chunks = chunks::split(payload, blocks.div_ceil(blocks_per_chunk))?;
    for (chunk, start) in chunks.iter().zip((0..).step_by(blocks_per_chunk)) {
        let blocks = blocks_per_chunk.min(blocks - start);
        if blocks >= (chunk.len() + IMPLIED_BYTES).saturating_mul(MAX_BLOCKS_PER_BYTE) {
            return Err(ends_early());
        }
    }
    let part = Part::new(part, blocks_per_chunk, blocks)?;
    let mut places = vec![0u32; part.items.len()];
    places
        .par_chunks_mut(blocks_per_chunk)
        .zip(&chunks[part.chunks.clone()])
        .try_for_each(|(slots, bytes)| decode(bytes, slots))?;
    Ok(part.cut(places))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;
    use crate::float::FloatType;

    fn tree(values: &[f32], block_size: usize) -> MotifTree {
        let values = &values[..values.len() / block_size * block_size];
        let table: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        MotifTree::new(&table, block_size, FloatType::F32).unwrap()
    }

    fn motifs() -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec((-300i16..300).prop_map(|v| f32::from(v) / 64.0), 2..400)
    }

    proptest! {
        #[test]
        fn decoding_inverts_encoding_within_the_worst_case(
            values in motifs(),
            block_size in 1usize..3,
            picks in proptest::collection::vec(any::<proptest::sample::Index>(), 0..3000),
            skew in 0usize..3,
        ) {
            let tree = tree(&values, block_size);
            let places: Vec<u32> = picks
                .iter()
                .map(|pick| (pick.index(tree.motifs()) >> (4 * skew)) as u32)
                .collect();
            for effort in [Effort::Default, Effort::Best] {
                let stream = encode(&places, &tree, 0, effort, &Monitor::new()).unwrap();
                prop_assert!(stream.len() <= worst_case(places.len(), tree.motifs()));
                let decoded = decode(&stream, places.len(), &tree, &Monitor::new()).unwrap();
                prop_assert_eq!(&decoded, &places);
            }
        }

        #[test]
        fn any_stream_decodes_or_errs(
            values in motifs(),
            codec in 0u8..5,
            mut stream in proptest::collection::vec(any::<u8>(), 0..120),
            levels in 0u8..12,
            blocks in 0usize..200_000,
        ) {
            if stream.len() > 1 {
                stream[0] = codec;
                stream[1] = levels;
            }
            let tree = tree(&values, 2);
            if let Ok(places) = decode(&stream, blocks, &tree, &Monitor::new()) {
                prop_assert!(places.iter().all(|&place| (place as usize) < tree.motifs()));
            }
        }
    }

    /// A tree and the places of enough blocks for several chunks, half of them of one motif.
    fn large() -> (MotifTree, Vec<u32>) {
        let values: Vec<f32> = (0..3000u32)
            .map(|i| (i.wrapping_mul(2654435761) >> 16) as f32 / 30000.0 - 1.0)
            .collect();
        let tree = tree(&values, 3);
        let places = (0..BLOCKS_PER_PATH_CHUNK as u32 * 2 + 777)
            .map(|i| match i.wrapping_mul(0x9E37_79B9) >> 12 {
                random if random % 2 == 0 => 500,
                random => random / 2 % 1000,
            })
            .collect();
        (tree, places)
    }

    #[test]
    fn pieces_of_whole_chunks_make_the_same_stream() {
        let (tree, places) = large();
        for effort in [Effort::Default, Effort::Best] {
            let coding = Coding::new(&places[trial(places.len())], &tree, 0, effort);
            let mut chunks = Vec::new();
            for piece in places.chunks(coding.blocks_per_chunk()) {
                chunks.extend(coding.encode(piece, &tree, &Monitor::new()).unwrap());
            }
            let mut stream = coding.head();
            chunks::join(&mut stream, &chunks);
            assert_eq!(
                stream,
                encode(&places, &tree, 0, effort, &Monitor::new()).unwrap()
            );
        }
        assert_eq!(trial(3), 0..3);
        assert_eq!(trial(TRIAL_BLOCKS + 9), 4..TRIAL_BLOCKS + 4);
    }

    #[test]
    fn several_chunks_decode_alike_at_any_number_of_threads() {
        let (tree, places) = large();
        let one = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let stream = encode(&places, &tree, 0, Effort::Default, &Monitor::new()).unwrap();
        assert_eq!(
            one.install(|| encode(&places, &tree, 0, Effort::Default, &Monitor::new()).unwrap()),
            stream
        );
        assert_eq!(stream[0], CONTEXTS);
        // Half a bit for the frequent motif, 11 bits for half of the blocks, one bit to tell.
        assert!(stream.len() as f64 * 8.0 < places.len() as f64 * 6.2);
        let decoded = decode(&stream, places.len(), &tree, &Monitor::new()).unwrap();
        assert_eq!(decoded, places);
        assert_eq!(blocks_per_chunk(&stream).unwrap(), BLOCKS_PER_PATH_CHUNK);
        let middle = BLOCKS_PER_PATH_CHUNK - 5..BLOCKS_PER_PATH_CHUNK * 2 + 9;
        for part in [0..0, 7..8, middle, BLOCKS_PER_PATH_CHUNK * 2..places.len()] {
            let decoded = decode_part(&stream, places.len(), part.clone(), &tree, &Monitor::new());
            assert_eq!(decoded.unwrap(), places[part]);
        }
        for length in (0..stream.len()).rev().step_by(9973).chain([0, 1, 2, 8, 9]) {
            let error = decode(&stream[..length], places.len(), &tree, &Monitor::new());
            assert_eq!(
                error.unwrap_err().kind(),
                ErrorKind::InsufficientData,
                "{length}"
            );
        }
    }

    #[test]
    fn a_huge_announced_size_is_refused_without_allocating() {
        let tree = tree(&[1.0, 2.0, 3.0], 1);
        for blocks in [1 << 40, usize::MAX >> 1, usize::MAX] {
            let error = decode(&[CONTEXTS, 2, 0, 1, 2, 3], blocks, &tree, &Monitor::new());
            assert_eq!(error.unwrap_err().kind(), ErrorKind::InsufficientData);
        }
    }

    #[test]
    fn an_unknown_codec_is_an_unsupported_version() {
        let error = decode(&[1, 2, 3], 1, &tree(&[1.0, 2.0], 1), &Monitor::new());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::UnsupportedVersion);
    }
}
