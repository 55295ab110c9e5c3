//! Elements cut into a leading field and bytes, and put together again.

use super::isa::{Available, Isa};

/// Most bytes below the leading field.
pub const MAX_LOWER: usize = 7;

/// What is done to an element, as an integer, before it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Change {
    /// Nothing.
    None = 0,
    /// It is rotated left by one bit: the sign of a float comes last, the exponent first.
    Rotate = 1,
    /// Integers with a sign are folded: 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
    Fold = 2,
}

impl Change {
    /// The one of a number.
    pub fn new(number: u8) -> Option<Self> {
        [Self::None, Self::Rotate, Self::Fold]
            .into_iter()
            .find(|change| *change as u8 == number)
    }
}

/// An element as an integer.
pub trait Element: Copy {
    /// Its bytes.
    const SIZE: usize;
    /// Its bits.
    const BITS: u32;

    /// Cuts elements; see [`split`].
    fn split(bytes: &[u8], change: Change, rest: u32, top: &mut [u16], lower: &mut [&mut [u8]]);

    /// Puts elements together; see [`join`].
    fn join(top: &[u16], lower: &[&[u8]], change: Change, rest: u32, out: &mut [u8]);
}

/// Cuts little-endian elements into all bits above the low `rest` ones and the bytes of those, the
/// least significant first; fewer planes of bytes than there are take only the lowest.
pub fn split<E: Element>(
    bytes: &[u8],
    change: Change,
    rest: u32,
    top: &mut [u16],
    lower: &mut [&mut [u8]],
) {
    E::split(bytes, change, rest, top, lower);
}

/// Inverts [`split`].
///
/// # Panics
/// If the lengths differ, or there are too few planes.
pub fn join<E: Element>(
    isa: Available,
    top: &[u16],
    lower: &[&[u8]],
    change: Change,
    rest: u32,
    out: &mut [u8],
) {
    assert!(
        lower.len() == rest.div_ceil(8) as usize
            && top.len() * E::SIZE == out.len()
            && lower.iter().all(|plane| plane.len() == top.len()),
        "fields of the same elements"
    );
    match isa.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX2, which comes with AVX-512.
        Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 => unsafe {
            join_avx2::<E>(top, lower, change, rest, out)
        },
        _ => E::join(top, lower, change, rest, out),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn join_avx2<E: Element>(top: &[u16], lower: &[&[u8]], change: Change, rest: u32, out: &mut [u8]) {
    E::join(top, lower, change, rest, out);
}

/// Elements of no plane or one.
macro_rules! join_narrow {
    ($type:ty, $elements:ident, $top:ident, $lower:ident, $rest:ident, $change:expr) => {{
        let change = $change;
        if let [plane] = $lower {
            for ((element, &top), &low) in $elements.iter_mut().zip($top).zip(*plane) {
                let value = (top as $type).wrapping_shl($rest) | <$type>::from(low);
                *element = change(value).to_le_bytes();
            }
        } else {
            for (element, &top) in $elements.iter_mut().zip($top) {
                *element = change(top as $type).to_le_bytes();
            }
        }
    }};
}

/// Elements of three planes, or of any number of them.
macro_rules! join_wide {
    ($type:ty, $elements:ident, $top:ident, $lower:ident, $rest:ident, $change:expr) => {{
        let change = $change;
        if let [low, middle, high] = $lower {
            let bytes = low.iter().zip(*middle).zip(*high);
            for ((element, &top), ((&a, &b), &c)) in $elements.iter_mut().zip($top).zip(bytes) {
                let low = <$type>::from(a) | <$type>::from(b) << 8 | <$type>::from(c) << 16;
                *element = change(<$type>::from(top) << $rest | low).to_le_bytes();
            }
        } else {
            for (index, element) in $elements.iter_mut().enumerate() {
                let mut value = <$type>::from($top[index]) << $rest;
                for (place, plane) in $lower.iter().enumerate() {
                    value |= <$type>::from(plane[index]) << (8 * place);
                }
                *element = change(value).to_le_bytes();
            }
        }
    }};
}

macro_rules! element {
    ($type:ty, $signed:ty, $join:ident) => {
        impl Element for $type {
            const SIZE: usize = size_of::<$type>();
            const BITS: u32 = <$type>::BITS;

            fn split(
                bytes: &[u8],
                change: Change,
                rest: u32,
                top: &mut [u16],
                lower: &mut [&mut [u8]],
            ) {
                let (elements, _) = bytes.as_chunks::<{ size_of::<$type>() }>();
                let changed = |element: &[u8; size_of::<$type>()]| {
                    let value = <$type>::from_le_bytes(*element);
                    match change {
                        Change::None => value,
                        Change::Rotate => value.rotate_left(1),
                        Change::Fold => {
                            value << 1 ^ (value as $signed >> (Self::BITS - 1)) as $type
                        }
                    }
                };
                for (top, element) in top.iter_mut().zip(elements) {
                    *top = changed(element).wrapping_shr(rest) as u16;
                }
                let mask = <$type>::MAX.checked_shr(Self::BITS - rest).unwrap_or(0);
                for (place, plane) in lower.iter_mut().enumerate() {
                    for (byte, element) in plane.iter_mut().zip(elements) {
                        *byte = ((changed(element) & mask) >> (8 * place)) as u8;
                    }
                }
            }

            #[inline(always)]
            fn join(top: &[u16], lower: &[&[u8]], change: Change, rest: u32, out: &mut [u8]) {
                let (elements, _) = out.as_chunks_mut::<{ size_of::<$type>() }>();
                match change {
                    Change::None => $join!($type, elements, top, lower, rest, |value| value),
                    Change::Rotate => {
                        $join!($type, elements, top, lower, rest, |value: $type| {
                            value.rotate_right(1)
                        });
                    }
                    Change::Fold => {
                        $join!($type, elements, top, lower, rest, |value: $type| {
                            value >> 1 ^ (value & 1).wrapping_neg()
                        });
                    }
                }
            }
        }
    };
}

element!(u8, i8, join_narrow);
element!(u16, i16, join_narrow);
element!(u32, i32, join_wide);
element!(u64, i64, join_wide);

#[cfg(test)]
mod tests {
    use super::*;

    fn check<E: Element>(bits: u32) {
        let bytes: Vec<u8> = (0..67 * E::SIZE as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 19) as u8)
            .collect();
        for change in [Change::None, Change::Rotate, Change::Fold] {
            let rest = E::BITS - bits;
            let mut top = vec![0; 67];
            let mut lower = vec![vec![0; 67]; rest.div_ceil(8) as usize];
            let mut slices: Vec<&mut [u8]> = lower.iter_mut().map(|p| &mut p[..]).collect();
            split::<E>(&bytes, change, rest, &mut top, &mut slices);
            let slices: Vec<&[u8]> = lower.iter().map(|plane| &plane[..]).collect();
            for &isa in Available::all() {
                let mut out = vec![0; bytes.len()];
                join::<E>(isa, &top, &slices, change, rest, &mut out);
                assert_eq!(out, bytes, "{change:?} {bits}");
            }
        }
    }

    #[test]
    fn joining_inverts_splitting() {
        check::<u8>(8);
        for bits in 8..=12 {
            check::<u16>(bits);
            check::<u32>(bits);
            check::<u64>(bits);
        }
    }

    #[test]
    fn changes_are_those_of_the_format() {
        let top_of = |value: i16, change| {
            let mut top = [0];
            split::<u16>(&value.to_le_bytes(), change, 0, &mut top, &mut []);
            top[0]
        };
        assert_eq!(top_of(-32768, Change::Rotate), 1);
        for (value, folded) in [(0, 0), (-1, 1), (1, 2), (-2, 3), (-32768, 65535)] {
            assert_eq!(top_of(value, Change::Fold), folded);
        }
        assert_eq!(Change::new(3), None);
    }
}
