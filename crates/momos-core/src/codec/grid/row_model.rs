//! What is known of a value before it is decoded: where it may lie, by two experts.
//!
//! A tensor is a sequence of rows. Rows differ in scale, and so do columns; columns are correlated
//! (prediction within the row), and so are rows near one another, such as the taps of a
//! convolution (prediction across rows). All of it is learned from values already decoded, on both
//! sides alike, so none of it is sent. Everything is in units of the spacing of the grid.

use super::geometry::Geometry;
use crate::codec::entropy::prediction::{AcrossRows, WithinRow};
use crate::simd::Available;

/// A normal distribution.
#[derive(Clone, Copy, Debug)]
pub struct Expert {
    /// Its mean.
    pub mean: f32,
    /// Its standard deviation, above 0.
    pub deviation: f32,
}

/// What is expected of the next value.
#[derive(Clone, Copy, Debug)]
pub struct Outlook {
    /// By linear prediction and the scale of the row.
    pub predicted: Expert,
    /// By the scales of the row and the column.
    pub scaled: Expert,
    /// Mean size of the values just before in the row.
    pub vicinity: f32,
    /// Whether there is a prediction within the row yet.
    pub ready: bool,
}

/// Where values come from: a decoder, or an encoder that knows them.
pub trait Source {
    /// The next value, in units of the spacing.
    fn next(&mut self, outlook: &Outlook) -> f32;
}

/// Values that the scale of the row before counts as.
const PRIOR_VALUES: f32 = 8.0;
/// Variance that rounding adds to every value.
const ROUNDING_VARIANCE: f32 = 0.02;

/// The model of one chunk of a tensor.
#[derive(Debug)]
pub struct RowModel {
    columns: usize,
    isa: Available,
    within: Option<WithinRow>,
    across: Option<AcrossRows>,
    column_scales: Vec<f32>,
    rows: usize,
    /// Expected mean square of a row, by phase.
    row_scales: Vec<Option<f32>>,
    latest_scale: f32,
    centres: Vec<f32>,
    means: Vec<f32>,
    residuals: Vec<f32>,
}

impl RowModel {
    /// A model that knows the mean square of the first row only.
    pub fn new(geometry: &Geometry, first_scale: f32, isa: Available) -> Self {
        let columns = geometry.columns;
        Self {
            columns,
            isa,
            within: geometry.within.then(|| WithinRow::new(columns, isa)),
            across: (!geometry.lags.is_empty())
                .then(|| AcrossRows::new(&geometry.lags, geometry.period)),
            column_scales: vec![1.0; columns],
            rows: 0,
            row_scales: vec![None; geometry.period],
            latest_scale: first_scale,
            centres: vec![0.0; columns],
            means: vec![0.0; columns],
            residuals: vec![0.0; columns],
        }
    }

    /// Takes one row from `source` and appends it to `values`, which holds the rows before; the
    /// last row may be shorter.
    pub fn row(&mut self, values: &mut Vec<f32>, length: usize, source: &mut impl Source) {
        let Self { centres, means, .. } = self;
        if let Some(across) = &self.across {
            across.predict(values, self.isa, centres);
        }
        means.copy_from_slice(centres);
        let phase = self.rows % self.row_scales.len();
        let prior = self.row_scales[phase].unwrap_or(self.latest_scale);

        let mut weight = PRIOR_VALUES;
        let mut predicted_sum = PRIOR_VALUES * prior;
        let mut scaled_sum = PRIOR_VALUES * prior;
        let mut vicinity = 0f32;
        let ready = self.within.as_ref().is_some_and(WithinRow::is_ready);
        for column in 0..length {
            let share = self
                .within
                .as_ref()
                .map_or(1.0, |within| within.share(column));
            let scale = self.column_scales[column];
            let centre = self.centres[column];
            let mean = self.means[column];
            let outlook = Outlook {
                predicted: Expert {
                    mean,
                    deviation: (predicted_sum / weight * share + ROUNDING_VARIANCE).sqrt(),
                },
                scaled: Expert {
                    mean: centre,
                    deviation: (scaled_sum / weight * scale + ROUNDING_VARIANCE).sqrt(),
                },
                vicinity,
                ready,
            };
            let value = source.next(&outlook);
            values.push(value);
            let error = value - mean;
            let residual = value - centre;
            if let Some(within) = &self.within {
                within.spread(column, error, &mut self.means[..length]);
            }
            self.residuals[column] = residual;
            predicted_sum += error * error / share;
            scaled_sum += residual * residual / scale;
            weight += 1.0;
            vicinity = vicinity * 0.75 + 0.25 * residual.abs();
        }
        self.learn(values, length, phase);
    }

    fn learn(&mut self, values: &[f32], length: usize, phase: usize) {
        let mut sum = 0.0;
        for residual in &self.residuals[..length] {
            sum += residual * residual;
        }
        let mean_square = sum / length as f32 + 1e-9;
        let seen = (self.rows / self.row_scales.len()) as f32;
        let rate = if seen < 10.0 {
            1.0 / (seen + 1.5)
        } else {
            0.08
        };
        let scale = self.row_scales[phase].get_or_insert(mean_square);
        *scale += (mean_square - *scale) * rate;
        self.latest_scale = mean_square;
        self.rows += 1;
        if length < self.columns {
            return;
        }
        let inverse = 1.0 / (mean_square + 0.05).sqrt();
        let rate = 1.0 / (self.rows as f32 + 5.0).min(2000.0);
        for (residual, scale) in self.residuals.iter_mut().zip(&mut self.column_scales) {
            *residual *= inverse;
            *scale += (*residual * *residual - *scale) * rate;
        }
        if let Some(within) = &mut self.within {
            within.learn(&self.residuals);
        }
        if let Some(across) = &mut self.across {
            across.learn(values, self.columns, mean_square + ROUNDING_VARIANCE);
        }
    }
}
