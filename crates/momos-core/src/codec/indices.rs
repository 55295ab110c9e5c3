//! The index stream of one tensor.
//!
//! The first byte names the codec, so that better ones can follow:
//!
//! | id | codec | what follows |
//! |---|---|---|
//! | 0 | fixed width | every index in `ceil(log2 k)` bits |
//! | 1 | prefix code | the byte lengths of all chunks but the last (u32, little-endian), then the chunks |
//!
//! A chunk holds the codes of [`BLOCKS_PER_CHUNK`] indices (the last one what is left) and ends on
//! a whole byte.

use rayon::prelude::*;

use super::bits::{BitReader, BitWriter};
use super::prefix_code::PrefixCode;
use crate::error::{Error, Result};
use crate::limits::BLOCKS_PER_CHUNK;
use crate::monitor::Monitor;

const FIXED_WIDTH: u8 = 0;
const PREFIX_CODE: u8 = 1;

/// Bits of an index among `motifs` in the paper's bound: `ceil(log2 k)`.
pub fn fixed_width(motifs: usize) -> u32 {
    motifs.max(1).next_power_of_two().trailing_zeros()
}

/// Largest size of the stream of `blocks` indices among `motifs`, in bytes.
///
/// One byte for the codec and the paper's bound, rounded up to a whole byte.
pub fn worst_case(blocks: usize, motifs: usize) -> usize {
    1 + (blocks * fixed_width(motifs) as usize).div_ceil(8)
}

/// Encodes a tensor's indices by the codec that takes fewer bytes.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if an index names no motif of the code,
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by indices.
pub fn encode(indices: &[u32], code: &PrefixCode, monitor: &Monitor) -> Result<Vec<u8>> {
    if let Some(index) = indices.iter().find(|&&i| i as usize >= code.symbols()) {
        return Err(Error::invalid_argument(format!(
            "the mosaic names motif {index}, but there are {}",
            code.symbols()
        )));
    }
    let width = fixed_width(code.symbols());
    let chunks: Vec<(u64, &[u32])> = indices
        .par_chunks(BLOCKS_PER_CHUNK)
        .map(|chunk| (code.cost(chunk).div_ceil(8), chunk))
        .collect();
    let table = 4 * chunks.len().saturating_sub(1) as u64;
    let coded = table + chunks.iter().map(|(bytes, _)| bytes).sum::<u64>();
    let fixed = (indices.len() as u64 * u64::from(width)).div_ceil(8);
    let by_prefix = coded < fixed;

    // A full chunk of fixed-width indices is a whole number of bytes, so pieces can be joined.
    let pieces: Vec<Vec<u8>> = chunks
        .par_iter()
        .map(|(_, chunk)| {
            monitor.check()?;
            let mut writer = BitWriter::new();
            if by_prefix {
                code.encode(chunk, &mut writer);
            } else {
                for &index in *chunk {
                    writer.write(u64::from(index), width);
                }
            }
            monitor.advance(chunk.len() as u64);
            Ok(writer.finish())
        })
        .collect::<Result<_>>()?;

    let mut stream = vec![if by_prefix { PREFIX_CODE } else { FIXED_WIDTH }];
    if by_prefix && let Some((_, counted)) = pieces.split_last() {
        for piece in counted {
            // 65,536 codes of at most 48 bits are far below 4 GiB.
            stream.extend_from_slice(&(piece.len() as u32).to_le_bytes());
        }
    }
    for piece in &pieces {
        stream.extend_from_slice(piece);
    }
    Ok(stream)
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
    let (&codec, payload) = stream.split_first().ok_or_else(ends_early)?;
    if code.symbols() == 0 && blocks > 0 {
        return Err(Error::corruption("a mosaic without motifs has blocks"));
    }
    let chunks = match codec {
        FIXED_WIDTH => fixed_width_chunks(payload, blocks, code)?,
        PREFIX_CODE => prefix_code_chunks(payload, blocks, code)?,
        other => {
            return Err(Error::unsupported_version(format!(
                "index codec {other} is not known to this version"
            )));
        }
    };
    let width = fixed_width(code.symbols());
    let mut indices = vec![0u32; blocks];
    indices
        .par_chunks_mut(BLOCKS_PER_CHUNK)
        .zip(chunks)
        .try_for_each(|(slots, bytes)| {
            monitor.check()?;
            let mut reader = BitReader::new(bytes);
            if codec == PREFIX_CODE {
                code.decode(&mut reader, slots);
            } else {
                decode_fixed_width(&mut reader, width, code.symbols(), slots)?;
            }
            if reader.overrun() {
                return Err(ends_early());
            }
            if !reader.is_finished() {
                return Err(Error::corruption("an index stream has bits left over"));
            }
            monitor.advance(slots.len() as u64);
            Ok(())
        })?;
    Ok(indices)
}

fn decode_fixed_width(
    reader: &mut BitReader<'_>,
    width: u32,
    motifs: usize,
    slots: &mut [u32],
) -> Result<()> {
    if width == 0 {
        return Ok(());
    }
    for slot in slots {
        let index = reader.read(width);
        if index >= motifs as u64 {
            return Err(Error::corruption(format!(
                "the mosaic names motif {index}, but there are {motifs}"
            )));
        }
        *slot = index as u32;
    }
    Ok(())
}

fn fixed_width_chunks<'a>(
    payload: &'a [u8],
    blocks: usize,
    code: &PrefixCode,
) -> Result<Vec<&'a [u8]>> {
    let width = fixed_width(code.symbols()) as usize;
    let expected = blocks
        .checked_mul(width)
        .ok_or_else(ends_early)?
        .div_ceil(8);
    check_length(payload.len(), expected)?;
    if width == 0 {
        return Ok(vec![payload; blocks.div_ceil(BLOCKS_PER_CHUNK)]);
    }
    Ok(payload.chunks(BLOCKS_PER_CHUNK * width / 8).collect())
}

fn prefix_code_chunks<'a>(
    payload: &'a [u8],
    blocks: usize,
    code: &PrefixCode,
) -> Result<Vec<&'a [u8]>> {
    let count = blocks.div_ceil(BLOCKS_PER_CHUNK);
    let counted = count.saturating_sub(1);
    let table_bytes = counted.checked_mul(4).ok_or_else(ends_early)?;
    let (table, mut rest) = payload
        .split_at_checked(table_bytes)
        .ok_or_else(ends_early)?;
    let shortest = usize::from(code.longest() > 0);
    if rest.len() < blocks.saturating_mul(shortest).div_ceil(8) {
        return Err(ends_early());
    }
    let mut chunks = Vec::with_capacity(count);
    for length in table.chunks_exact(4) {
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        let (chunk, tail) = rest.split_at_checked(length).ok_or_else(ends_early)?;
        chunks.push(chunk);
        rest = tail;
    }
    if count > 0 {
        chunks.push(rest);
    } else {
        check_length(rest.len(), 0)?;
    }
    Ok(chunks)
}

fn check_length(actual: usize, expected: usize) -> Result<()> {
    match actual.cmp(&expected) {
        std::cmp::Ordering::Less => Err(ends_early()),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Error::corruption(format!(
            "an index stream has {} bytes left over",
            actual - expected
        ))),
    }
}

fn ends_early() -> Error {
    Error::insufficient_data("an index stream ends early")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::prefix_code::{code_lengths, length_counts};
    use super::*;
    use crate::ErrorKind;

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
