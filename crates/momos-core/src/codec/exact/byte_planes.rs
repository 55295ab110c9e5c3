//! A tensor's bytes regrouped by significance, so that a general compressor sees their structure.
//!
//! All first bytes of the elements, then all second bytes, and so on. The exponents of trained
//! weights take few values, while their low mantissa bits are noise; side by side the noise hides
//! the structure. Floats are rotated left by one bit first, which puts the exponent into bytes of
//! its own and the sign beside the mantissa.

use rayon::prelude::*;

use crate::error::{Error, Result};

/// What is done to an element before its bytes are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Nothing.
    None,
    /// The element, as an integer, is rotated left by one bit.
    Left,
}

/// Elements one task handles.
const ELEMENTS_PER_TASK: usize = 1 << 15;

/// Spreads the elements of `bytes` into `size` planes, least significant first.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if `size` is not 1, 2, 4, 8 or 16 or `bytes` is not a whole
/// number of elements.
pub fn split(bytes: &[u8], size: usize, rotation: Rotation) -> Result<Vec<u8>> {
    let task = match size {
        1 => <u8 as Element>::split,
        2 => <u16 as Element>::split,
        4 => <u32 as Element>::split,
        8 => <u64 as Element>::split,
        16 => <u128 as Element>::split,
        _ => return Err(bad_size(size)),
    };
    let elements = count(bytes.len(), size)?;
    let mut out = vec![0u8; bytes.len()];
    if elements == 0 {
        return Ok(out);
    }
    let mut planes: Vec<_> = out
        .chunks_mut(elements)
        .map(|plane| plane.chunks_mut(ELEMENTS_PER_TASK))
        .collect();
    let pieces: Vec<(Vec<&mut [u8]>, &[u8])> = bytes
        .chunks(ELEMENTS_PER_TASK * size)
        .map(|chunk| {
            let planes = planes.iter_mut().filter_map(Iterator::next).collect();
            (planes, chunk)
        })
        .collect();
    pieces
        .into_par_iter()
        .for_each(|(mut planes, chunk)| task(chunk, &mut planes, rotation));
    Ok(out)
}

/// Inverts [`split`].
///
/// # Errors
/// As [`split`].
pub fn join(planes: &[u8], size: usize, rotation: Rotation) -> Result<Vec<u8>> {
    let task = match size {
        1 => <u8 as Element>::join,
        2 => <u16 as Element>::join,
        4 => <u32 as Element>::join,
        8 => <u64 as Element>::join,
        16 => <u128 as Element>::join,
        _ => return Err(bad_size(size)),
    };
    let elements = count(planes.len(), size)?;
    let mut out = vec![0u8; planes.len()];
    out.par_chunks_mut(ELEMENTS_PER_TASK * size)
        .enumerate()
        .for_each(|(index, chunk)| {
            let range = index * ELEMENTS_PER_TASK..index * ELEMENTS_PER_TASK + chunk.len() / size;
            let planes: Vec<&[u8]> = planes
                .chunks(elements)
                .map(|plane| &plane[range.clone()])
                .collect();
            task(&planes, chunk, rotation);
        });
    Ok(out)
}

fn count(length: usize, size: usize) -> Result<usize> {
    if !length.is_multiple_of(size) {
        return Err(Error::invalid_argument(format!(
            "{length} bytes are not a whole number of elements of {size} bytes"
        )));
    }
    Ok(length / size)
}

fn bad_size(size: usize) -> Error {
    Error::invalid_argument(format!("elements of {size} bytes have no byte planes"))
}

/// An element as an integer: one task's share of the work, compiled for each size.
trait Element {
    fn split(bytes: &[u8], planes: &mut [&mut [u8]], rotation: Rotation);
    fn join(planes: &[&[u8]], bytes: &mut [u8], rotation: Rotation);
}

macro_rules! element {
    ($type:ty) => {
        impl Element for $type {
            fn split(bytes: &[u8], planes: &mut [&mut [u8]], rotation: Rotation) {
                const SIZE: usize = size_of::<$type>();
                for (byte, plane) in planes.iter_mut().enumerate() {
                    for (slot, element) in plane.iter_mut().zip(bytes.chunks_exact(SIZE)) {
                        let value =
                            <$type>::from_le_bytes(element.try_into().expect("one element"));
                        let value = match rotation {
                            Rotation::None => value,
                            Rotation::Left => value.rotate_left(1),
                        };
                        *slot = (value >> (8 * byte)) as u8;
                    }
                }
            }

            fn join(planes: &[&[u8]], bytes: &mut [u8], rotation: Rotation) {
                const SIZE: usize = size_of::<$type>();
                let planes: &[&[u8]; SIZE] = planes.try_into().expect("one plane per byte");
                for (index, element) in bytes.chunks_exact_mut(SIZE).enumerate() {
                    let spread: [u8; SIZE] = std::array::from_fn(|byte| planes[byte][index]);
                    let value = <$type>::from_le_bytes(spread);
                    let value = match rotation {
                        Rotation::None => value,
                        Rotation::Left => value.rotate_right(1),
                    };
                    element.copy_from_slice(&value.to_le_bytes());
                }
            }
        }
    };
}

element!(u8);
element!(u16);
element!(u32);
element!(u64);
element!(u128);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_exponent_of_a_float_fills_the_last_plane() {
        let bytes: Vec<u8> = [1.0f32, -1.5, 2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let planes = split(&bytes, 4, Rotation::Left).unwrap();
        assert_eq!(planes[9..], [127, 127, 128]);
        assert_eq!(planes[..3], [0, 1, 0], "the sign is the lowest bit");
    }

    proptest! {
        #[test]
        fn joining_inverts_splitting(
            data in proptest::collection::vec(any::<u8>(), 0..700),
            log_size in 0u32..5,
            rotate in any::<bool>(),
        ) {
            let size = 1 << log_size;
            let rotation = if rotate { Rotation::Left } else { Rotation::None };
            let data = &data[..data.len() / size * size];
            let planes = split(data, size, rotation).unwrap();
            prop_assert_eq!(join(&planes, size, rotation).unwrap(), data);
        }
    }

    #[test]
    fn several_tasks_agree_with_one_element_at_a_time() {
        let data: Vec<u8> = (0..ELEMENTS_PER_TASK * 8 + 12)
            .map(|i| (i * 7 % 251) as u8)
            .collect();
        let planes = split(&data, 4, Rotation::None).unwrap();
        let elements = data.len() / 4;
        for (index, element) in data.chunks(4).enumerate() {
            for byte in 0..4 {
                assert_eq!(planes[byte * elements + index], element[byte]);
            }
        }
        assert_eq!(join(&planes, 4, Rotation::None).unwrap(), data);
    }

    #[test]
    fn odd_sizes_are_refused() {
        assert!(split(&[0; 6], 3, Rotation::None).is_err());
        assert!(join(&[0; 6], 4, Rotation::None).is_err());
    }
}
