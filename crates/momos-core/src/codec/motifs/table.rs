//! The motifs, in the one order that needs fewest bytes.
//!
//! A dictionary is a set, so its order is free. Motifs are sorted by the length of their index's
//! code (see [`crate::codec::entropy::prefix_code`]), and those of equal length by value. The first column then
//! ascends within each length and is stored as differences; every column is spread into byte
//! planes, so that a general compressor sees small differences and repeated exponents.

use rayon::prelude::*;

use crate::codec::entropy::prefix_code::{code_lengths, length_counts};
use crate::codec::exact::byte_planes::{self, Rotation};
use crate::error::{Error, Result};
use crate::float::FloatType;
use crate::layout::check_block_size;

/// The order of a mosaic's motifs in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalOrder {
    /// Old numbers of the motifs in use, in their new order.
    pub order: Vec<u32>,
    /// Number of motifs of each code length, for
    /// [`PrefixCode::from_length_counts`](crate::codec::entropy::prefix_code::PrefixCode::from_length_counts).
    pub length_counts: Vec<u64>,
}

/// Sorts the motifs that occur: by code length, then by value.
///
/// `table` holds the motifs' elements as little-endian bytes, `counts` how many blocks each motif
/// represents. The result depends only on the motifs and their counts, not on their old order.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if the table is not `counts.len()` rows.
pub fn canonical_order(
    table: &[u8],
    block_size: usize,
    float: FloatType,
    counts: &[u64],
) -> Result<CanonicalOrder> {
    let order = sorted_order(table, block_size, float, counts)?;
    let used: Vec<u64> = order.iter().map(|&motif| counts[motif as usize]).collect();
    let lengths = code_lengths(&used);
    let length_counts = length_counts(&lengths);
    let mut by_length: Vec<(u8, u32)> = lengths.into_iter().zip(order).collect();
    by_length.sort_by_key(|&(length, _)| length);
    Ok(CanonicalOrder {
        order: by_length.into_iter().map(|(_, motif)| motif).collect(),
        length_counts,
    })
}

/// Sorts the motifs that occur by value, in the order of the integers that order floats.
///
/// Arguments as for [`canonical_order`].
///
/// # Errors
/// As [`canonical_order`].
pub fn sorted_order(
    table: &[u8],
    block_size: usize,
    float: FloatType,
    counts: &[u64],
) -> Result<Vec<u32>> {
    check_table(table, block_size, float, counts.len())?;
    let keys: Vec<u64> = table
        .chunks_exact(float.size())
        .map(|element| ordered(load(element), float.size()))
        .collect();
    let key = |motif: u32| &keys[motif as usize * block_size..][..block_size];
    let mut order: Vec<u32> = (0..counts.len() as u32)
        .filter(|&motif| counts[motif as usize] > 0)
        .collect();
    order.par_sort_unstable_by(|&a, &b| key(a).cmp(key(b)).then(a.cmp(&b)));
    Ok(order)
}

/// Regroups a table of `motifs` rows for a general compressor; the number of bytes stays.
///
/// Column after column, each spread into byte planes: the first as differences (modulo 2^bits)
/// between consecutive rows of the integers whose order is that of the values, the others rotated
/// left by one bit.
///
/// # Errors
/// [`crate::ErrorKind::InvalidArgument`] if the table is not `motifs` rows.
pub fn regroup(
    table: &[u8],
    block_size: usize,
    float: FloatType,
    motifs: usize,
) -> Result<Vec<u8>> {
    check_table(table, block_size, float, motifs)?;
    let size = float.size();
    let mut out = Vec::with_capacity(table.len());
    for column in 0..block_size {
        let mut previous = 0u64;
        let mut bytes = Vec::with_capacity(motifs * size);
        for row in table.chunks_exact(block_size * size) {
            let element = &row[column * size..][..size];
            if column > 0 {
                bytes.extend_from_slice(element);
                continue;
            }
            let value = ordered(load(element), size);
            bytes.extend_from_slice(&value.wrapping_sub(previous).to_le_bytes()[..size]);
            previous = value;
        }
        out.extend(byte_planes::split(&bytes, size, rotation(column))?);
    }
    Ok(out)
}

/// Inverts [`regroup`].
///
/// # Errors
/// As [`regroup`].
pub fn restore(
    regrouped: &[u8],
    block_size: usize,
    float: FloatType,
    motifs: usize,
) -> Result<Vec<u8>> {
    check_table(regrouped, block_size, float, motifs)?;
    let size = float.size();
    let mut out = vec![0u8; regrouped.len()];
    for column in 0..block_size {
        let planes = &regrouped[column * motifs * size..][..motifs * size];
        let bytes = byte_planes::join(planes, size, rotation(column))?;
        let rows = out.chunks_exact_mut(block_size * size);
        let mut previous = 0u64;
        for (row, element) in rows.zip(bytes.chunks_exact(size)) {
            let slot = &mut row[column * size..][..size];
            if column > 0 {
                slot.copy_from_slice(element);
                continue;
            }
            previous = previous.wrapping_add(load(element));
            let bits = unordered(previous & mask(size), size);
            slot.copy_from_slice(&bits.to_le_bytes()[..size]);
        }
    }
    Ok(out)
}

pub(super) fn check_table(
    table: &[u8],
    block_size: usize,
    float: FloatType,
    motifs: usize,
) -> Result<()> {
    check_block_size(block_size)?;
    if motifs.checked_mul(block_size * float.size()) != Some(table.len()) {
        return Err(Error::invalid_argument(format!(
            "{} bytes are not a table of {motifs} motifs of {block_size} {float:?} values",
            table.len()
        )));
    }
    Ok(())
}

fn rotation(column: usize) -> Rotation {
    if column == 0 {
        Rotation::None
    } else {
        Rotation::Left
    }
}

pub(super) fn mask(size: usize) -> u64 {
    u64::MAX >> (64 - 8 * size)
}

pub(super) fn load(element: &[u8]) -> u64 {
    let mut bytes = [0u8; 8];
    bytes[..element.len()].copy_from_slice(element);
    u64::from_le_bytes(bytes)
}

/// The bits of a float of `size` bytes as an integer whose order is that of the values.
pub(super) fn ordered(bits: u64, size: usize) -> u64 {
    let sign = 1 << (8 * size - 1);
    if bits & sign == 0 {
        bits | sign
    } else {
        !bits & mask(size)
    }
}

pub(super) fn unordered(value: u64, size: usize) -> u64 {
    let sign = 1 << (8 * size - 1);
    if value & sign == 0 {
        !value & mask(size)
    } else {
        value & !sign
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::entropy::prefix_code::PrefixCode;

    proptest! {
        #[test]
        fn restoring_inverts_regrouping(
            data in proptest::collection::vec(any::<u8>(), 0..600),
            block_size in 1usize..6,
            float in prop_oneof![
                Just(FloatType::Bf16), Just(FloatType::F32), Just(FloatType::F64)
            ],
        ) {
            let row = block_size * float.size();
            let motifs = data.len() / row;
            let table = &data[..motifs * row];
            let regrouped = regroup(table, block_size, float, motifs).unwrap();
            prop_assert_eq!(restore(&regrouped, block_size, float, motifs).unwrap(), table);
        }

        #[test]
        fn the_order_does_not_depend_on_the_old_one(
            rows in proptest::collection::vec((any::<[u16; 2]>(), 0u64..6), 1..60),
        ) {
            let mut rows = rows;
            rows.sort_unstable();
            rows.dedup_by_key(|(row, _)| *row);
            let ordered_rows = |rows: &[([u16; 2], u64)]| {
                let table: Vec<u8> =
                    rows.iter().flat_map(|(r, _)| r.iter().flat_map(|v| v.to_le_bytes())).collect();
                let counts: Vec<u64> = rows.iter().map(|&(_, count)| count).collect();
                let canonical = canonical_order(&table, 2, FloatType::F16, &counts).unwrap();
                let rows: Vec<_> =
                    canonical.order.iter().map(|&motif| rows[motif as usize]).collect();
                (rows, canonical.length_counts)
            };
            let forwards = ordered_rows(&rows);
            rows.reverse();
            prop_assert_eq!(&forwards, &ordered_rows(&rows));
            prop_assert!(forwards.0.iter().all(|&(_, count)| count > 0));
            let code = PrefixCode::from_length_counts(&forwards.1).unwrap();
            prop_assert_eq!(code.symbols(), forwards.0.len());
        }
    }

    #[test]
    fn order_of_integers_is_order_of_values() {
        let values = [
            f32::NEG_INFINITY,
            -1.5,
            -f32::MIN_POSITIVE,
            -1e-45,
            -0.0,
            0.0,
            1e-45,
            2.0,
            f32::INFINITY,
        ];
        let keys = values.map(|value| ordered(u64::from(value.to_bits()), 4));
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:x?}");
        assert_eq!(
            keys.map(|key| unordered(key, 4) as u32),
            values.map(f32::to_bits)
        );
    }

    #[test]
    fn frequent_motifs_come_first_and_equals_ascend() {
        let table: Vec<u8> = [3.0f32, -1.0, 2.0, -5.0, 0.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let canonical = canonical_order(&table, 1, FloatType::F32, &[2, 2, 2, 2, 100]).unwrap();
        assert_eq!(canonical.order, [4, 3, 1, 2, 0]);
        assert_eq!(canonical.length_counts, [0, 1, 0, 4]);
    }
}
