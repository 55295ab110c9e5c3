//! Numbers of fewer than eight bits packed into bytes, without a shift that depends on the place.
//!
//! A group of 256 numbers of `width` bits is eight rows of 32; a shorter last group has shorter
//! rows. The first `width` rows are the low bits of as many rows of bytes; the others are spread
//! over the bits above them, so that everything is done to whole rows.

/// Numbers of a whole group.
pub const GROUP: usize = 256;
const ROWS: usize = 8;
const ROW: usize = GROUP / ROWS;

/// Bytes that so many numbers of `width` bits take.
pub fn packed_bytes(count: usize, width: u32) -> usize {
    let rest = (count % GROUP).div_ceil(ROWS);
    (count / GROUP * ROW + rest) * width as usize
}

/// Appends numbers of `width` bits, at most 8.
pub fn pack(numbers: &[u8], width: u32, bytes: &mut Vec<u8>) {
    if width == 8 {
        bytes.extend_from_slice(numbers);
        return;
    }
    match width {
        1 => pack_width::<1>(numbers, bytes),
        2 => pack_width::<2>(numbers, bytes),
        3 => pack_width::<3>(numbers, bytes),
        4 => pack_width::<4>(numbers, bytes),
        5 => pack_width::<5>(numbers, bytes),
        6 => pack_width::<6>(numbers, bytes),
        7 => pack_width::<7>(numbers, bytes),
        _ => {}
    }
}

fn pack_width<const WIDTH: usize>(numbers: &[u8], bytes: &mut Vec<u8>) {
    let (groups, rest) = numbers.as_chunks::<GROUP>();
    for group in groups {
        let (rows, _) = group.as_chunks::<ROW>();
        for (bit, low) in rows[..WIDTH].iter().enumerate() {
            let mut out = *low;
            for (upper, row) in rows.iter().enumerate().skip(WIDTH) {
                for (byte, number) in out.iter_mut().zip(row) {
                    *byte |= (number >> bit & 1) << upper;
                }
            }
            bytes.extend_from_slice(&out);
        }
    }
    let row = rest.len().div_ceil(ROWS);
    let number = |place: usize| rest.get(place).copied().unwrap_or(0);
    for bit in 0..WIDTH {
        for column in 0..row {
            let upper = WIDTH..ROWS;
            let upper = upper.map(|upper| (number(upper * row + column) >> bit & 1) << upper);
            bytes.push(number(bit * row + column) | upper.sum::<u8>());
        }
    }
}

/// Inverts [`pack`]; there are [`packed_bytes`] bytes.
///
/// # Panics
/// If there are not.
pub fn unpack(bytes: &[u8], width: u32, numbers: &mut [u8]) {
    match width {
        0 => numbers.fill(0),
        1 => unpack_width::<1>(bytes, numbers),
        2 => unpack_width::<2>(bytes, numbers),
        3 => unpack_width::<3>(bytes, numbers),
        4 => unpack_width::<4>(bytes, numbers),
        5 => unpack_width::<5>(bytes, numbers),
        6 => unpack_width::<6>(bytes, numbers),
        7 => unpack_width::<7>(bytes, numbers),
        _ => numbers.copy_from_slice(bytes),
    }
}

fn unpack_width<const WIDTH: usize>(bytes: &[u8], numbers: &mut [u8]) {
    let (groups, rest) = numbers.as_chunks_mut::<GROUP>();
    let (whole, tail) = bytes.split_at(groups.len() * ROW * WIDTH);
    for (group, bytes) in groups.iter_mut().zip(whole.chunks_exact(ROW * WIDTH)) {
        let (rows, _) = bytes.as_chunks::<ROW>();
        let rows: &[[u8; ROW]; WIDTH] = rows.try_into().expect("a row for each bit");
        let (out, _) = group.as_chunks_mut::<ROW>();
        for (out, row) in out.iter_mut().zip(rows) {
            for (number, byte) in out.iter_mut().zip(row) {
                *number = byte & ((1 << WIDTH) - 1);
            }
        }
        for (upper, out) in out.iter_mut().enumerate().skip(WIDTH) {
            let mut numbers = [0u8; ROW];
            for (bit, row) in rows.iter().enumerate() {
                for (number, byte) in numbers.iter_mut().zip(row) {
                    *number |= (byte >> upper & 1) << bit;
                }
            }
            *out = numbers;
        }
    }
    let row = rest.len().div_ceil(ROWS);
    assert_eq!(tail.len(), row * WIDTH, "the bytes of the last group");
    for (place, number) in rest.iter_mut().enumerate() {
        let (upper, column) = (place / row, place % row);
        *number = if upper < WIDTH {
            tail[place] & ((1 << WIDTH) - 1)
        } else {
            let bits = (0..WIDTH).map(|bit| (tail[bit * row + column] >> upper & 1) << bit);
            bits.sum()
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unpacking_inverts_packing(
            numbers in proptest::collection::vec(any::<u8>(), 0..1200),
            width in 0u32..=8,
        ) {
            let mask = ((1u32 << width) - 1) as u8;
            let numbers: Vec<u8> = numbers.iter().map(|number| number & mask).collect();
            let mut bytes = Vec::new();
            pack(&numbers, width, &mut bytes);
            if width < 8 {
                prop_assert_eq!(bytes.len(), packed_bytes(numbers.len(), width));
            }
            let mut back = vec![255; numbers.len()];
            unpack(&bytes, width, &mut back);
            prop_assert_eq!(back, numbers);
        }
    }
}
