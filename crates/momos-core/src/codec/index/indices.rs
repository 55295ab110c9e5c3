//! The index stream of one tensor in canonical numbers, by the prefix code of the whole model.
//!
//! The first byte names the codec, so that better ones can follow:
//!
//! | id | codec | what follows |
//! |---|---|---|
//! | 0 | [`fixed_width`] | every index in `ceil(log2 k)` bits |
//! | 1 | [`prefix_code`](crate::codec::entropy::prefix_code) | [`chunks`] |
//!
//! A chunk holds the codes of [`BLOCKS_PER_CHUNK`] indices (the last one what is left) and ends on
//! a whole byte. Codecs from 2 on code places in a tree of motifs: see [`super::paths`].

use std::ops::Range;

use rayon::prelude::*;

use super::chunks::{self, Part, ends_early};
use super::fixed_width;
use crate::codec::entropy::bits::{BitReader, BitWriter};
use crate::codec::entropy::prefix_code::PrefixCode;
use crate::error::{Error, Result};
use crate::limits::BLOCKS_PER_CHUNK;
use crate::memory::zeroed;
use crate::monitor::Monitor;

pub(super) const FIXED_WIDTH: u8 = 0;
const PREFIX_CODE: u8 = 1;

/// Largest size of the stream of `blocks` indices among `motifs`, in bytes.
///
/// One byte for the codec and the paper's bound, rounded up to a whole byte.
pub fn worst_case(blocks: usize, motifs: usize) -> usize {
    1 + fixed_width::size(blocks, motifs)
}

/// Encodes a tensor's indices by the codec that takes fewer bytes.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if an index names no motif of the code,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by indices.
pub fn encode(indices: &[u32], code: &PrefixCode, monitor: &Monitor) -> Result<Vec<u8>> {
    check_indices(indices, code.symbols())?;
    let costs: Vec<u64> = indices
        .par_chunks(BLOCKS_PER_CHUNK)
        .map(|chunk| code.cost(chunk).div_ceil(8))
        .collect();
    let table = 4 * costs.len().saturating_sub(1) as u64;
    if table + costs.iter().sum::<u64>() >= fixed_width::size(indices.len(), code.symbols()) as u64
    {
        return Ok(encode_fixed_width(indices, code.symbols()));
    }
    let mut stream = PREFIX_CODE_HEAD.to_vec();
    chunks::join(&mut stream, &encode_chunks(indices, code, monitor)?);
    Ok(stream)
}

/// What a stream of codec 1 begins with; it is used if it is shorter than the [`worst_case`].
pub const PREFIX_CODE_HEAD: [u8; 1] = [PREFIX_CODE];

/// The chunks of indices, [`BLOCKS_PER_CHUNK`] in each but the last; they may be made piece by
/// piece.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if an index names no motif of the code,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by indices.
pub fn encode_chunks(
    indices: &[u32],
    code: &PrefixCode,
    monitor: &Monitor,
) -> Result<Vec<Vec<u8>>> {
    check_indices(indices, code.symbols())?;
    indices
        .par_chunks(BLOCKS_PER_CHUNK)
        .map(|chunk| {
            monitor.check()?;
            let mut writer = BitWriter::new();
            code.encode(chunk, &mut writer);
            monitor.advance(chunk.len() as u64);
            Ok(writer.finish())
        })
        .collect()
}

/// The stream of indices in fixed width: one byte for the codec, then whole bytes for every
/// [`BLOCKS_PER_CHUNK`] indices.
pub fn encode_fixed_width(indices: &[u32], motifs: usize) -> Vec<u8> {
    let mut stream = vec![FIXED_WIDTH];
    stream.extend(fixed_width::encode(indices, motifs));
    stream
}

/// Checks that all indices are below `motifs`.
pub fn check_indices(indices: &[u32], motifs: usize) -> Result<()> {
    match indices.iter().find(|&&index| index as usize >= motifs) {
        None => Ok(()),
        Some(index) => Err(Error::invalid_argument(format!(
            "the mosaic names motif {index}, but there are {motifs}"
        ))),
    }
}

/// Decodes the stream of `blocks` indices.
///
/// Memory: four bytes per block, which the caller has checked against the size of the tensor that
/// the archive announces; a stream too short for its blocks is refused before that is allocated,
/// unless its code has a single symbol, which takes no bits.
///
/// # Errors
/// [`crate::ErrorKind::InsufficientData`] if the stream ends early,
/// [`crate::ErrorKind::Corruption`] if it names a motif that is not there or has bytes left over,
/// [`crate::ErrorKind::UnsupportedVersion`] for an unknown codec,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by indices.
pub fn decode(
    stream: &[u8],
    blocks: usize,
    code: &PrefixCode,
    monitor: &Monitor,
) -> Result<Vec<u32>> {
    decode_part(stream, blocks, 0..blocks, code, monitor)
}

/// Decodes a part of the stream of `blocks` indices: the chunks of [`BLOCKS_PER_CHUNK`] that hold
/// it.
///
/// # Errors
/// As [`decode`], and [`crate::ErrorKind::InvalidArgument`] if there is no such part.
pub fn decode_part(
    stream: &[u8],
    blocks: usize,
    part: Range<usize>,
    code: &PrefixCode,
    monitor: &Monitor,
) -> Result<Vec<u32>> {
    let (&codec, payload) = stream.split_first().ok_or_else(ends_early)?;
    if code.symbols() == 0 && blocks > 0 {
        return Err(Error::corruption("a mosaic without motifs has blocks"));
    }
    match codec {
        FIXED_WIDTH => fixed_width::decode(payload, blocks, part, code.symbols(), monitor),
        PREFIX_CODE => decode_prefix_code(payload, blocks, part, code, monitor),
        other => Err(unknown_codec(other)),
    }
}

fn decode_prefix_code(
    payload: &[u8],
    blocks: usize,
    part: Range<usize>,
    code: &PrefixCode,
    monitor: &Monitor,
) -> Result<Vec<u32>> {
    let chunks = chunks::split(payload, blocks.div_ceil(BLOCKS_PER_CHUNK))?;
    let shortest = usize::from(code.longest() > 0);
    let bytes: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    if bytes < blocks.saturating_mul(shortest).div_ceil(8) {
        return Err(ends_early());
    }
    let part = Part::new(part, BLOCKS_PER_CHUNK, blocks)?;
    let mut indices = zeroed::<u32>(part.items.len())?;
    indices
        .par_chunks_mut(BLOCKS_PER_CHUNK)
        .zip(&chunks[part.chunks.clone()])
        .try_for_each(|(slots, bytes)| {
            monitor.check()?;
            let mut reader = BitReader::new(bytes);
            code.decode(&mut reader, slots);
            if reader.overrun() {
                return Err(ends_early());
            }
            if !reader.is_finished() {
                return Err(Error::corruption("an index stream has bits left over"));
            }
            monitor.advance(slots.len() as u64);
            Ok(())
        })?;
    Ok(part.cut(indices))
}

/// The error of a codec that this version does not know.
pub(super) fn unknown_codec(codec: u8) -> Error {
    Error::unsupported_version(format!("index codec {codec} is not known to this version"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;
    use crate::codec::entropy::prefix_code::{code_lengths, length_counts};

    /// The code of `counts`, whose symbols must be sorted by code length: ascending counts give
    /// descending lengths, so they are given descending.
    fn code(mut counts: Vec<u64>) -> PrefixCode {
        counts.sort_unstable_by(|a, b| b.cmp(a));
        PrefixCode::from_length_counts(&length_counts(&code_lengths(&counts))).unwrap()
    }

    proptest! {
        #[test]
        fn decoding_inverts_encoding_within_the_worst_case(
            counts in proptest::collection::vec(1u64..1000, 1..300),
            picks in proptest::collection::vec(any::<proptest::sample::Index>(), 0..2000),
        ) {
            let code = code(counts);
            let indices: Vec<u32> =
                picks.iter().map(|pick| pick.index(code.symbols()) as u32).collect();
            let stream = encode(&indices, &code, &Monitor::new()).unwrap();
            prop_assert!(stream.len() <= worst_case(indices.len(), code.symbols()));
            prop_assert_eq!(
                decode(&stream, indices.len(), &code, &Monitor::new()).unwrap(), indices
            );
        }

        #[test]
        fn any_stream_decodes_or_errs(
            counts in proptest::collection::vec(1u64..50, 0..40),
            stream in proptest::collection::vec(any::<u8>(), 0..80),
            blocks in 0usize..200_000,
        ) {
            let code = code(counts);
            if let Ok(indices) = decode(&stream, blocks, &code, &Monitor::new()) {
                prop_assert!(indices.iter().all(|&index| (index as usize) < code.symbols()));
            }
        }
    }

    #[test]
    fn several_chunks_decode_and_every_truncation_is_seen() {
        let code = code(vec![1, 5, 9, 400]);
        let indices: Vec<u32> = (0..BLOCKS_PER_CHUNK as u32 * 2 + 77)
            .map(|i| if i % 50 == 0 { i % 4 } else { 0 })
            .collect();
        let stream = encode(&indices, &code, &Monitor::new()).unwrap();
        assert_eq!(stream[0], PREFIX_CODE);
        let decoded = decode(&stream, indices.len(), &code, &Monitor::new()).unwrap();
        assert_eq!(decoded, indices);
        for part in [0..0, 5..70_000, 65_536..131_149, 131_072..131_149] {
            let decoded = decode_part(&stream, indices.len(), part.clone(), &code, &Monitor::new());
            assert_eq!(decoded.unwrap(), indices[part]);
        }
        for length in (0..stream.len()).rev().step_by(97).chain([0, 1, 2, 8, 9]) {
            let error = decode(&stream[..length], indices.len(), &code, &Monitor::new());
            assert_eq!(
                error.unwrap_err().kind(),
                ErrorKind::InsufficientData,
                "{length}"
            );
        }
    }

    #[test]
    fn a_huge_announced_size_is_refused_without_allocating() {
        let code = code(vec![3, 4, 5]);
        for codec in [FIXED_WIDTH, PREFIX_CODE] {
            for blocks in [1 << 40, usize::MAX >> 1, usize::MAX] {
                let error = decode(&[codec, 1, 2, 3], blocks, &code, &Monitor::new());
                assert_eq!(error.unwrap_err().kind(), ErrorKind::InsufficientData);
            }
        }
    }

    #[test]
    fn an_unknown_codec_is_an_unsupported_version() {
        let error = decode(&[77], 0, &code(vec![1]), &Monitor::new());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::UnsupportedVersion);
    }
}
