//! Numbers that begin where a line of the cache does.

use std::ops::{Deref, DerefMut};

/// Bytes of a line of the cache.
pub const LINE_BYTES: usize = 64;

/// A fixed number of float64 values, the first of which begins a line of the cache.
///
/// A row of them whose size divides that of a line then never lies in two, which halves what has to
/// be fetched for it.
#[derive(Debug)]
pub struct Aligned {
    /// With room for those that are skipped.
    values: Vec<f64>,
    skipped: usize,
    len: usize,
}

impl Aligned {
    /// That many zeros.
    pub fn zeros(len: usize) -> Self {
        let spare = LINE_BYTES / size_of::<f64>() - 1;
        let values = vec![0.0; len + spare];
        // Where the offset is not known, which the standard library allows for, only speed is lost.
        let offset = values.as_ptr().align_offset(LINE_BYTES);
        Self {
            values,
            skipped: if offset <= spare { offset } else { 0 },
            len,
        }
    }
}

impl Deref for Aligned {
    type Target = [f64];

    fn deref(&self) -> &[f64] {
        &self.values[self.skipped..][..self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f64] {
        &mut self.values[self.skipped..][..self.len]
    }
}

impl Clone for Aligned {
    fn clone(&self) -> Self {
        let mut clone = Self::zeros(self.len);
        clone.copy_from_slice(self);
        clone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_a_line_and_stay_what_they_are() {
        for len in [0, 1, 7, 8, 1000] {
            let mut values = Aligned::zeros(len);
            assert_eq!(*values, vec![0.0; len]);
            for (number, value) in values.iter_mut().enumerate() {
                *value = number as f64;
            }
            let clone = values.clone();
            assert_eq!(*clone, *values);
            for values in [values, clone] {
                assert_eq!(values.as_ptr() as usize % LINE_BYTES, 0);
            }
        }
    }
}
