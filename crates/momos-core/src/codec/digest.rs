//! The digest of sections and headers.

/// The digest of sections and headers: XXH3 with 128 bits, as 32 lower-case hexadecimal digits.
///
/// It finds damage; it does not protect against forgery.
pub fn digest(bytes: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(bytes))
}

/// The [`digest`] of bytes that come one after another.
#[derive(Clone, Default)]
pub struct Digest {
    state: xxhash_rust::xxh3::Xxh3,
}

impl Digest {
    /// The digest of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes further bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
    }

    /// The digest of all bytes so far, as [`digest`] gives it.
    pub fn finish(&self) -> String {
        format!("{:032x}", self.state.digest128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_pieces_is_that_of_the_whole() {
        let bytes: Vec<u8> = (0..5000u32).map(|i| ((i * i) >> 3) as u8).collect();
        for step in [1, 7, 240, 1024, 5000] {
            let mut pieces = Digest::new();
            bytes.chunks(step).for_each(|piece| pieces.update(piece));
            assert_eq!(pieces.finish(), digest(&bytes));
        }
        assert_eq!(Digest::new().finish(), digest(&[]));
    }
}
