//! How the elements of a tensor become rows and columns.

use crate::error::{Error, Result};

/// Most columns for prediction within rows: its cost grows with their square.
pub const MAX_PREDICTED_COLUMNS: usize = 1024;
/// Most phases of rows.
pub const MAX_PERIOD: usize = 64;
/// Most rows from which a row is predicted.
pub const MAX_LAGS: usize = 12;
/// Values of one chunk; rows are whole. Chunks are independent, so that threads can share a large
/// tensor; shorter ones would learn too little.
pub const VALUES_PER_CHUNK: usize = 1 << 22;

/// The order in which the elements of a tensor are coded, and what is predicted from what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Number of elements.
    pub elements: usize,
    /// Values per row; the last row may be shorter.
    pub columns: usize,
    /// Whether element `(row, column)` lies at `column * rows + row` instead of
    /// `row * columns + column`.
    pub transposed: bool,
    /// Whether values are predicted from others of their row.
    pub within: bool,
    /// Distances to the rows from which a row is predicted.
    pub lags: Vec<usize>,
    /// Number of phases of rows, each with its own prediction.
    pub period: usize,
}

impl Geometry {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corruption`] if they do not: geometries come from streams.
    pub fn check(&self) -> Result<()> {
        let fail = |what: &str| Err(Error::corruption(format!("a grid stream {what}")));
        if self.columns == 0 || self.columns > self.elements.max(1) {
            return fail("has rows longer than its tensor");
        }
        if self.columns > VALUES_PER_CHUNK {
            return fail("has rows longer than a chunk");
        }
        if self.transposed && !self.elements.is_multiple_of(self.columns) {
            return fail("transposes rows of different lengths");
        }
        if self.within && self.columns > MAX_PREDICTED_COLUMNS {
            return fail("predicts within rows that are too long");
        }
        if self.period == 0 || self.period > MAX_PERIOD {
            return fail("has an impossible number of phases");
        }
        if self.lags.len() > MAX_LAGS || self.lags.iter().any(|&lag| lag == 0 || lag > self.rows())
        {
            return fail("predicts from rows that are not there");
        }
        Ok(())
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.elements.div_ceil(self.columns)
    }

    /// Rows per chunk.
    pub fn rows_per_chunk(&self) -> usize {
        (VALUES_PER_CHUNK / self.columns).max(1)
    }

    /// Number of chunks.
    pub fn chunks(&self) -> usize {
        self.rows().div_ceil(self.rows_per_chunk())
    }

    /// The coded positions of a chunk: the first and the number.
    pub fn chunk(&self, chunk: usize) -> (usize, usize) {
        let values = self.rows_per_chunk() * self.columns;
        let start = chunk * values;
        (start, values.min(self.elements - start))
    }

    /// Where the value at a coded position lies in the tensor.
    #[inline]
    pub fn place(&self, position: usize) -> usize {
        if self.transposed {
            position % self.columns * self.rows() + position / self.columns
        } else {
            position
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(elements: usize, columns: usize, transposed: bool) -> Geometry {
        Geometry {
            elements,
            columns,
            transposed,
            within: false,
            lags: Vec::new(),
            period: 1,
        }
    }

    #[test]
    fn every_element_has_one_place() {
        for (elements, columns, transposed) in [(12, 3, true), (12, 3, false), (13, 5, false)] {
            let geometry = geometry(elements, columns, transposed);
            geometry.check().unwrap();
            let mut places: Vec<usize> = (0..elements).map(|p| geometry.place(p)).collect();
            places.sort_unstable();
            assert_eq!(places, (0..elements).collect::<Vec<_>>());
        }
    }

    #[test]
    fn chunks_cover_the_tensor() {
        let geometry = geometry(3 * VALUES_PER_CHUNK + 17, 1000, false);
        let mut end = 0;
        for chunk in 0..geometry.chunks() {
            let (start, length) = geometry.chunk(chunk);
            assert_eq!(start, end);
            end += length;
        }
        assert_eq!(end, geometry.elements);
    }

    #[test]
    fn impossible_geometries_are_refused() {
        assert!(geometry(12, 0, false).check().is_err());
        assert!(geometry(12, 13, false).check().is_err());
        assert!(geometry(13, 5, true).check().is_err());
        let mut lagging = geometry(12, 3, false);
        lagging.lags = vec![5];
        assert!(lagging.check().is_err());
        let mut wide = geometry(4096, 2048, false);
        wide.within = true;
        assert!(wide.check().is_err());
    }
}
