//! Independent chunks within a stream: the byte lengths of all but the last (u32, little-endian),
//! then the chunks.

use std::ops::Range;

use crate::error::{Error, Result};

/// Blocks between two looks at the monitor and at the end of the bytes.
pub const BLOCKS_PER_CHECK: usize = 1 << 12;

/// Appends chunks, of less than 4 GiB each, with the lengths of all but the last.
pub fn join(stream: &mut Vec<u8>, chunks: &[Vec<u8>]) {
    if let Some((_, counted)) = chunks.split_last() {
        for chunk in counted {
            let length = u32::try_from(chunk.len()).expect("chunks hold few blocks");
            stream.extend_from_slice(&length.to_le_bytes());
        }
    }
    for chunk in chunks {
        stream.extend_from_slice(chunk);
    }
}

/// The `count` chunks of a payload.
///
/// # Errors
/// [`crate::ErrorKind::InsufficientData`] if it ends early, [`crate::ErrorKind::Corruption`] if
/// there are bytes but no chunk.
pub fn split(payload: &[u8], count: usize) -> Result<Vec<&[u8]>> {
    let counted = count.saturating_sub(1);
    let (table, mut rest) = counted
        .checked_mul(4)
        .and_then(|bytes| payload.split_at_checked(bytes))
        .ok_or_else(ends_early)?;
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

/// A part of the items of a stream, and the whole chunks that hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    wanted: Range<usize>,
    /// Numbers of the chunks.
    pub chunks: Range<usize>,
    /// The items in them.
    pub items: Range<usize>,
}

impl Part {
    /// Some of the items of a stream of `total` items in chunks of `per_chunk`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if they are not among them.
    pub fn new(wanted: Range<usize>, per_chunk: usize, total: usize) -> Result<Self> {
        if wanted.start > wanted.end || wanted.end > total {
            return Err(Error::invalid_argument(format!(
                "{} to {} is not a part of a stream of {total}",
                wanted.start, wanted.end
            )));
        }
        let chunks = wanted.start / per_chunk..wanted.end.div_ceil(per_chunk);
        let items = chunks.start * per_chunk..chunks.end.saturating_mul(per_chunk).min(total);
        Ok(Self {
            wanted,
            chunks,
            items,
        })
    }

    /// What is wanted of the items of the chunks.
    pub fn cut(&self, mut items: Vec<u32>) -> Vec<u32> {
        items.truncate(self.wanted.end - self.items.start);
        items.drain(..self.wanted.start - self.items.start);
        items
    }
}

/// Checks that a stream has the length it must have.
pub fn check_length(actual: usize, expected: usize) -> Result<()> {
    match actual.cmp(&expected) {
        std::cmp::Ordering::Less => Err(ends_early()),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Error::corruption(format!(
            "an index stream has {} bytes left over",
            actual - expected
        ))),
    }
}

/// The error of a stream that stops before its end.
pub fn ends_early() -> Error {
    Error::insufficient_data("an index stream ends early")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_part_is_cut_from_the_chunks_that_hold_it(
            total in 0usize..50,
            per_chunk in 1usize..9,
            ends in (0usize..60, 0usize..60),
        ) {
            let all: Vec<u32> = (0..total as u32).collect();
            let part = Part::new(ends.0..ends.1, per_chunk, total);
            prop_assert_eq!(part.is_ok(), ends.0 <= ends.1 && ends.1 <= total);
            if let Ok(part) = part {
                prop_assert!(part.chunks.end * per_chunk >= part.items.end);
                prop_assert_eq!(part.chunks.start * per_chunk, part.items.start.min(
                    part.chunks.start * per_chunk));
                let cut = part.cut(all[part.items.clone()].to_vec());
                prop_assert_eq!(&cut, &all[ends.0..ends.1]);
            }
        }

        #[test]
        fn splitting_inverts_joining(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
        ) {
            let mut stream = Vec::new();
            join(&mut stream, &chunks);
            prop_assert_eq!(split(&stream, chunks.len()).unwrap(), chunks);
        }

        #[test]
        fn any_bytes_split_or_err(
            payload in proptest::collection::vec(any::<u8>(), 0..40),
            count in prop_oneof![0usize..12, Just(usize::MAX)],
        ) {
            if let Ok(chunks) = split(&payload, count) {
                prop_assert_eq!(chunks.len(), count);
            }
        }
    }
}
