//! The Coding Theorem Method's complexities of binary strings and squares.
//!
//! The values are those of pybdm 0.1.0 (tables `CTM-B2-D12` and `CTM-B2-D4x4`), compiled in by
//! `scripts/generate_ctm_tables.py`, which also describes the layout of the file.

use std::sync::LazyLock;

/// Longest binary string with a tabulated complexity.
pub const MAX_STRING: usize = 12;

/// Widest binary square with a tabulated complexity.
pub const MAX_SQUARE: usize = 4;

static PACKED: &[u8] = include_bytes!("ctm_binary.bin");

struct Tables {
    strings: [Vec<f64>; MAX_STRING],
    squares: [Vec<f64>; MAX_SQUARE],
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let (count, rest) = PACKED.split_first_chunk::<4>().expect("compiled in");
    let (values, positions) = rest.split_at(8 * u32::from_le_bytes(*count) as usize);
    let values: Vec<f64> = values
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| f64::from_le_bytes(*bytes))
        .collect();
    let mut entries = positions
        .as_chunks::<2>()
        .0
        .iter()
        .map(|bytes| values[u16::from_le_bytes(*bytes) as usize]);
    Tables {
        strings: std::array::from_fn(|index| unfold(&mut entries, index + 1)),
        squares: std::array::from_fn(|index| unfold(&mut entries, (index + 1) * (index + 1))),
    }
});

/// The full table of blocks of `elements` bits from its first half: the keys that begin with 0.
fn unfold(entries: &mut impl Iterator<Item = f64>, elements: usize) -> Vec<f64> {
    let half: Vec<f64> = entries.take(1 << (elements - 1)).collect();
    let mask = (1 << elements) - 1;
    (0..1 << elements)
        .map(|key: usize| {
            let normal = if key & 1 == 0 { key } else { !key & mask };
            half[normal >> 1]
        })
        .collect()
}

/// Complexities of the binary strings of that length, by key; `None` unless `1..=MAX_STRING`.
pub fn strings(length: usize) -> Option<&'static [f64]> {
    Some(TABLES.strings.get(length.checked_sub(1)?)?)
}

/// Complexities of the binary squares of that width, by key; `None` unless `1..=MAX_SQUARE`.
pub fn squares(width: usize) -> Option<&'static [f64]> {
    Some(TABLES.squares.get(width.checked_sub(1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_the_file_is_used() {
        let entries: usize = (1..=MAX_STRING)
            .chain((1..=MAX_SQUARE).map(|width| width * width))
            .map(|elements| 1 << (elements - 1))
            .sum();
        let values = u32::from_le_bytes(PACKED[..4].try_into().unwrap()) as usize;
        assert_eq!(PACKED.len(), 4 + 8 * values + 2 * entries);
    }

    #[test]
    fn published_values() {
        // pybdm's documented examples.
        assert_eq!(strings(12).unwrap()[0xfff], 25.610413747641715);
        assert_eq!(strings(1).unwrap(), [2.5142767361233522; 2]);
        assert_eq!(
            squares(4).unwrap()[0xffff] + 9f64.log2(),
            25.176631293734488
        );
        // '0001110110000111', the most complex square.
        let key = 0b1110000110111000;
        assert_eq!(squares(4).unwrap()[key], 36.02279026553976);
    }

    #[test]
    fn complements_are_equally_complex() {
        for (table, elements) in (1..=MAX_STRING)
            .map(|length| (strings(length), length))
            .chain((1..=MAX_SQUARE).map(|width| (squares(width), width * width)))
        {
            let table = table.unwrap();
            assert_eq!(table.len(), 1 << elements);
            for key in 0..table.len() {
                assert_eq!(table[key], table[table.len() - 1 - key]);
            }
        }
    }

    #[test]
    fn sizes_without_a_table() {
        assert!(strings(0).is_none() && strings(13).is_none());
        assert!(squares(0).is_none() && squares(5).is_none());
    }
}
