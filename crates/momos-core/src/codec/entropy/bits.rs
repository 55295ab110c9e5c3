//! Bits in bytes, most significant first.

/// Collects bits into bytes.
#[derive(Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    /// The bits not yet in `bytes`, in the low `pending_bits` bits.
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the low `width` bits of `value`, at most 56.
    pub fn write(&mut self, value: u64, width: u32) {
        debug_assert!(width <= 56 && value >> width == 0);
        self.pending = self.pending << width | value;
        self.pending_bits += width;
        while self.pending_bits >= 8 {
            self.pending_bits -= 8;
            self.bytes.push((self.pending >> self.pending_bits) as u8);
        }
    }

    /// The bytes, the last one filled up with zero bits.
    pub fn finish(mut self) -> Vec<u8> {
        if self.pending_bits > 0 {
            self.bytes
                .push((self.pending << (8 - self.pending_bits)) as u8);
        }
        self.bytes
    }
}

/// Reads bits from bytes. Beyond the end it reads zeros; the caller checks
/// [`overrun`](Self::overrun) and [`is_finished`](Self::is_finished) at the end.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    /// Next byte to load.
    position: usize,
    /// Loaded bits, left-aligned; the `available` leading ones are valid, the rest are zero.
    window: u64,
    available: u32,
    consumed: u64,
}

impl<'a> BitReader<'a> {
    /// A reader at the first bit of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            window: 0,
            available: 0,
            consumed: 0,
        }
    }

    /// The next bits, left-aligned; at least 56 of them are valid.
    #[inline]
    pub fn peek(&mut self) -> u64 {
        if self.available < 56 {
            self.refill();
        }
        self.window
    }

    #[inline]
    fn refill(&mut self) {
        if let Some(next) = self.bytes.get(self.position..self.position + 8) {
            let word = u64::from_be_bytes(next.try_into().expect("eight bytes"));
            let whole_bytes = (64 - self.available) / 8;
            let kept_bits = whole_bytes * 8;
            // Bits beyond the whole bytes are cut off, to be loaded again by the next refill.
            let word = if kept_bits == 64 {
                word
            } else {
                word >> (64 - kept_bits) << (64 - kept_bits)
            };
            self.window |= word >> self.available;
            self.position += whole_bytes as usize;
            self.available += kept_bits;
        } else {
            while self.available <= 56 {
                let byte = self.bytes.get(self.position).copied().unwrap_or(0);
                self.window |= u64::from(byte) << (56 - self.available);
                self.position += 1;
                self.available += 8;
            }
        }
    }

    /// Moves on by `width` bits that [`peek`](Self::peek) has shown.
    #[inline]
    pub fn consume(&mut self, width: u32) {
        debug_assert!(width <= self.available && width < 64);
        self.window <<= width;
        self.available -= width;
        self.consumed += u64::from(width);
    }

    /// The next `width` bits, 1 to 56.
    #[inline]
    pub fn read(&mut self, width: u32) -> u64 {
        let value = self.peek() >> (64 - width);
        self.consume(width);
        value
    }

    /// Whether bits beyond the end were consumed.
    pub fn overrun(&self) -> bool {
        self.consumed > self.bytes.len() as u64 * 8
    }

    /// Whether only the zero bits that fill up the last byte are left.
    pub fn is_finished(&mut self) -> bool {
        let total = self.bytes.len() as u64 * 8;
        self.consumed <= total && total - self.consumed < 8 && self.peek() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reading_inverts_writing(
            fields in proptest::collection::vec((any::<u64>(), 1u32..=56), 0..300),
        ) {
            let mut writer = BitWriter::new();
            for &(value, width) in &fields {
                writer.write(value & (u64::MAX >> (64 - width)), width);
            }
            let bits: u64 = fields.iter().map(|&(_, width)| u64::from(width)).sum();
            let bytes = writer.finish();
            prop_assert_eq!(bytes.len() as u64, bits.div_ceil(8));
            let mut reader = BitReader::new(&bytes);
            for &(value, width) in &fields {
                prop_assert_eq!(reader.read(width), value & (u64::MAX >> (64 - width)));
            }
            prop_assert!(reader.is_finished());
            prop_assert!(!reader.overrun());
        }
    }

    #[test]
    fn reading_past_the_end_is_seen() {
        let mut reader = BitReader::new(&[0xff]);
        assert_eq!(reader.read(9), 0x1fe);
        assert!(reader.overrun());
        assert!(!reader.is_finished());
    }
}
