//! How much the errors of a tensor's values count.

use super::feedback::Factors;
use super::steps::{self, Steps};
use crate::error::{Error, Result};

/// Weights of values stay within this factor of their mean: beyond it, a value would be left to
/// chance, or take the bits of many.
const WEIGHT_RANGE: f64 = 64.0;

/// How much squared errors count, as far as more is known than the values.
///
/// A value's error counts as much as its row, times its column, in coded order. With factors, the
/// rows are the inputs of a layer, and count as their pivots say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Importance<'a> {
    /// Of each row; all alike if None. Not beside factors.
    pub rows: Option<&'a [f64]>,
    /// Of each column; all alike if None.
    pub columns: Option<&'a [f64]>,
    /// Of the layer's inputs.
    pub factors: Option<&'a Factors>,
}

/// What follows from an importance for a matrix.
#[derive(Debug)]
pub struct Weighing {
    /// Steps of rows and columns.
    pub steps: Steps,
    rows: Vec<f64>,
    columns: Vec<f64>,
}

impl Importance<'_> {
    /// Whether there is anything to weigh.
    pub fn is_even(&self) -> bool {
        self.rows.is_none() && self.columns.is_none() && self.factors.is_none()
    }

    /// Steps, and the weights that are left beside them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if an importance is not of the matrix's size, or is
    /// not a positive number everywhere.
    pub fn weigh(&self, rows: usize, columns: usize, own_steps: bool) -> Result<Weighing> {
        let pivots = self.factors.map(Factors::importance);
        let of_rows = pivots.as_deref().or(self.rows);
        for (given, expected) in [(of_rows, rows), (self.columns, columns)] {
            if given.is_some_and(|given| {
                given.len() != expected
                    || given.iter().any(|&each| !(each.is_normal() && each > 0.0))
            }) {
                return Err(Error::invalid_argument(
                    "an importance must be a positive number for every row or column",
                ));
            }
        }
        let codes = |given: Option<&[f64]>, per_code| match given {
            Some(given) if own_steps => steps::codes(given, per_code),
            _ => Vec::new(),
        };
        let steps = Steps {
            rows: codes(of_rows, columns),
            columns: codes(self.columns, rows),
        };
        let unit = steps.scale(1.0);
        let left = |given: Option<&[f64]>, step: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let Some(given) = given else {
                return Vec::new();
            };
            let mean = steps::mean(given);
            given
                .iter()
                .enumerate()
                .map(|(place, each)| each / mean * step(place) * step(place))
                .collect()
        };
        let rows = left(of_rows, &|row| unit.row(row));
        let columns = left(self.columns, &|column| unit.column(column));
        Ok(Weighing {
            steps,
            rows,
            columns,
        })
    }
}

impl Weighing {
    /// The weight of the value in a row and a column, in units of its squared step.
    #[inline]
    pub fn weight(&self, row: usize, column: usize) -> f32 {
        let row = self.rows.get(row).copied().unwrap_or(1.0);
        let column = self.columns.get(column).copied().unwrap_or(1.0);
        (row * column).clamp(1.0 / WEIGHT_RANGE, WEIGHT_RANGE) as f32
    }

    /// Whether all weights are 1.
    pub fn is_even(&self) -> bool {
        self.rows.is_empty() && self.columns.is_empty()
    }
}
