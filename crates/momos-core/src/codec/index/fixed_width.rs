//! Indices of a fixed number of bits, as the paper counts them: the upper bound of every codec.

use std::ops::Range;

use rayon::prelude::*;

use super::chunks::{Part, check_length, ends_early};
use crate::codec::entropy::bits::{BitReader, BitWriter};
use crate::error::{Error, Result};
use crate::limits::BLOCKS_PER_CHUNK;
use crate::memory::zeroed;
use crate::monitor::Monitor;

/// Bits of an index among `motifs` in the paper's bound: `ceil(log2 k)`.
pub fn width(motifs: usize) -> u32 {
    motifs.max(1).next_power_of_two().trailing_zeros()
}

/// Bytes of `blocks` indices among `motifs`.
pub fn size(blocks: usize, motifs: usize) -> usize {
    (blocks * width(motifs) as usize).div_ceil(8)
}

/// Encodes indices, which must be below `motifs`.
pub fn encode(indices: &[u32], motifs: usize) -> Vec<u8> {
    let mut writer = BitWriter::new();
    let width = width(motifs);
    for &index in indices {
        writer.write(u64::from(index), width);
    }
    writer.finish()
}

/// Decodes a part of `blocks` indices.
///
/// # Errors
/// [`crate::ErrorKind::InsufficientData`] if bytes are missing, before anything is allocated;
/// [`crate::ErrorKind::Corruption`] if an index is not below `motifs` or something is left over;
/// [`crate::ErrorKind::InvalidArgument`] if there is no such part;
/// [`crate::ErrorKind::Interrupted`] if cancelled. Advances `monitor` by indices.
pub fn decode(
    bytes: &[u8],
    blocks: usize,
    part: Range<usize>,
    motifs: usize,
    monitor: &Monitor,
) -> Result<Vec<u32>> {
    let width = width(motifs);
    let expected = blocks
        .checked_mul(width as usize)
        .ok_or_else(ends_early)?
        .div_ceil(8);
    check_length(bytes.len(), expected)?;
    let part = Part::new(part, BLOCKS_PER_CHUNK, blocks)?;
    let mut indices = zeroed::<u32>(part.items.len())?;
    if width == 0 {
        return Ok(part.cut(indices));
    }
    // A full chunk is a whole number of bytes.
    let chunk_bytes = BLOCKS_PER_CHUNK * width as usize / 8;
    indices
        .par_chunks_mut(BLOCKS_PER_CHUNK)
        .zip(bytes[part.chunks.start * chunk_bytes..].par_chunks(chunk_bytes))
        .try_for_each(|(slots, bytes)| {
            monitor.check()?;
            let mut reader = BitReader::new(bytes);
            for slot in slots.iter_mut() {
                let index = reader.read(width);
                if index >= motifs as u64 {
                    return Err(Error::corruption(format!(
                        "the mosaic names motif {index}, but there are {motifs}"
                    )));
                }
                *slot = index as u32;
            }
            if !reader.is_finished() {
                return Err(Error::corruption("an index stream has bits left over"));
            }
            monitor.advance(slots.len() as u64);
            Ok(())
        })?;
    Ok(part.cut(indices))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decoding_inverts_encoding(
            motifs in 1usize..5000,
            picks in proptest::collection::vec(any::<proptest::sample::Index>(), 0..500),
        ) {
            let indices: Vec<u32> = picks.iter().map(|pick| pick.index(motifs) as u32).collect();
            let bytes = encode(&indices, motifs);
            prop_assert_eq!(bytes.len(), size(indices.len(), motifs));
            let monitor = Monitor::new();
            prop_assert_eq!(decode(&bytes, indices.len(), 0..indices.len(), motifs, &monitor).unwrap(), indices);
        }
    }

    #[test]
    fn indices_beyond_the_motifs_are_refused() {
        let bytes = encode(&[0, 1, 2], 4);
        assert!(decode(&bytes, 3, 0..3, 4, &Monitor::new()).is_ok());
        assert!(decode(&bytes, 3, 0..3, 3, &Monitor::new()).is_ok());
        let error = decode(&encode(&[3, 1, 2], 4), 3, 0..3, 3, &Monitor::new()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corruption);
    }

    #[test]
    fn several_chunks_join() {
        let indices: Vec<u32> = (0..BLOCKS_PER_CHUNK as u32 * 2 + 5)
            .map(|i| i % 1000)
            .collect();
        let bytes = encode(&indices, 1000);
        assert_eq!(
            decode(
                &bytes,
                indices.len(),
                0..indices.len(),
                1000,
                &Monitor::new()
            )
            .unwrap(),
            indices
        );
        for part in [0..0, 5..70_000, 65_536..131_077, 131_070..131_077] {
            assert_eq!(
                decode(&bytes, indices.len(), part.clone(), 1000, &Monitor::new()).unwrap(),
                indices[part]
            );
        }
    }
}
