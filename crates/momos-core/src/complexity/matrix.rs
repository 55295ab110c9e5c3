//! Weights as rows of a matrix.

use super::floats::Floats;
use crate::simd::bit_planes::WIDTH;
use crate::{Error, Result};

/// Weights as rows of a matrix.
pub(super) struct Matrix<'a> {
    weights: Floats<'a>,
    columns: usize,
}

impl<'a> Matrix<'a> {
    pub(super) fn new(weights: Floats<'a>, columns: usize) -> Result<Self> {
        let whole = match columns {
            0 => weights.is_empty(),
            _ => weights.len().is_multiple_of(columns),
        };
        if !whole {
            return Err(Error::invalid_argument(format!(
                "{} weights are not whole rows of {columns}",
                weights.len()
            )));
        }
        Ok(Self { weights, columns })
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn row(&self, row: usize) -> Floats<'a> {
        self.weights
            .slice(row * self.columns, (row + 1) * self.columns)
    }

    pub(super) fn rows(&self) -> usize {
        self.weights.len().checked_div(self.columns).unwrap_or(0)
    }

    /// The four rows of a strip, from one column to another.
    pub(super) fn strip(&self, row: usize, from: usize, to: usize) -> [Floats<'a>; WIDTH] {
        std::array::from_fn(|index| {
            let start = (row + index) * self.columns;
            self.weights.slice(start + from, start + to)
        })
    }
}
