//! Linear prediction, learned from what is already decoded: of a value from those before it in its
//! row, and of a row from rows before it.

use crate::simd::Available;
use crate::simd::linear::{add_scaled, dot};

/// Prediction within a row, by the covariance of the columns over the rows so far.
///
/// With `S = L D L'` (L unit lower triangular), the value in column `j` is predicted from the
/// errors `e` of the columns before as the sum of `L[j][t] * e[t]`, which is the best linear
/// prediction, and `D[j]` is its variance as a share of the row's.
#[derive(Debug)]
pub struct WithinRow {
    columns: usize,
    isa: Available,
    /// Lower triangle of the sum of outer products of rows, column after column.
    moments: Vec<f32>,
    rows: f32,
    /// Rows at which the factors are renewed.
    renewal: f32,
    factors: Option<Factors>,
}

#[derive(Debug)]
struct Factors {
    /// Lower triangle of L with the diagonal of D in place of the ones, column after column.
    triangle: Vec<f32>,
}

/// Rows that the prior of the covariances, none, counts as.
const PRIOR_ROWS: f32 = 120.0;
/// Rows that the prior of the variances, 1, counts as.
const PRIOR_ROWS_OF_VARIANCE: f32 = 10.0;
/// The factors are renewed when the rows have grown by this factor and this number.
const GROWTH: (f32, f32) = (1.08, 3.0);

impl WithinRow {
    /// A predictor that has seen nothing.
    pub fn new(columns: usize, isa: Available) -> Self {
        Self {
            columns,
            isa,
            moments: vec![0.0; columns * (columns + 1) / 2],
            rows: 0.0,
            renewal: GROWTH.1,
            factors: None,
        }
    }

    /// Whether enough was seen to predict anything.
    pub fn is_ready(&self) -> bool {
        self.factors.is_some()
    }

    /// The variance of the error in a column, as a share of the row's.
    #[inline]
    pub fn share(&self, column: usize) -> f32 {
        match &self.factors {
            Some(factors) => factors.triangle[self.start(column)],
            None => 1.0,
        }
    }

    /// Takes the error in a column into account in the means of all columns after it.
    #[inline]
    pub fn spread(&self, column: usize, error: f32, means: &mut [f32]) {
        if let Some(factors) = &self.factors {
            let start = self.start(column);
            let below = &factors.triangle[start + 1..start + means.len() - column];
            add_scaled(self.isa, &mut means[column + 1..], below, error);
        }
    }

    /// Learns a row, scaled to a mean square near 1.
    pub fn learn(&mut self, row: &[f32]) {
        let mut rest = self.moments.as_mut_slice();
        for (column, &value) in row.iter().enumerate() {
            let (sums, tail) = rest.split_at_mut(self.columns - column);
            add_scaled(self.isa, sums, &row[column..], value);
            rest = tail;
        }
        self.rows += 1.0;
        if self.rows >= self.renewal {
            self.renewal = self.rows * GROWTH.0 + GROWTH.1;
            self.factorise();
        }
    }

    /// Position of the diagonal of a column in a triangle.
    #[inline]
    fn start(&self, column: usize) -> usize {
        column * (2 * self.columns - column + 1) / 2
    }

    /// Renews the factors of the moments, each drawn towards its prior.
    fn factorise(&mut self) {
        const LEAST: f32 = 1e-4;
        let mut triangle = match self.factors.take() {
            Some(factors) => factors.triangle,
            None => vec![0.0; self.moments.len()],
        };
        let scale = 1.0 / (self.rows + PRIOR_ROWS);
        let diagonal_scale = 1.0 / (self.rows + PRIOR_ROWS_OF_VARIANCE);
        for (factor, moment) in triangle.iter_mut().zip(&self.moments) {
            *factor = moment * scale;
        }
        for column in 0..self.columns {
            let start = self.start(column);
            let (before, here) = triangle.split_at_mut(start);
            let here = &mut here[..self.columns - column];
            here[0] = (self.moments[start] + PRIOR_ROWS_OF_VARIANCE) * diagonal_scale;
            for earlier in 0..column {
                let offset = self.start(earlier);
                let above = &before[offset..offset + self.columns - earlier];
                let factor = above[column - earlier] * above[0];
                add_scaled(self.isa, here, &above[column - earlier..], -factor);
            }
            let pivot = here[0].max(LEAST);
            here[0] = pivot;
            for value in &mut here[1..] {
                *value /= pivot;
            }
        }
        self.factors = Some(Factors { triangle });
    }
}

/// Prediction of a row as a weighted sum of rows before it, by least squares.
///
/// Rows come in phases: the taps of a convolution, say, in turn; each phase has its own weights.
#[derive(Debug)]
pub struct AcrossRows {
    lags: Vec<usize>,
    phases: Vec<NormalEquations>,
}

#[derive(Clone, Debug)]
struct NormalEquations {
    /// Products of lagged rows, row after row of a square matrix.
    matrix: Vec<f64>,
    /// Products of lagged rows and the row itself.
    vector: Vec<f64>,
}

impl AcrossRows {
    /// A predictor that has seen nothing.
    pub fn new(lags: &[usize], period: usize) -> Self {
        let equations = NormalEquations {
            matrix: vec![0.0; lags.len() * lags.len()],
            vector: vec![0.0; lags.len()],
        };
        Self {
            lags: lags.to_vec(),
            phases: vec![equations; period],
        }
    }

    /// The prediction of the row after `past`, which holds whole rows of `out.len()` values.
    pub fn predict(&self, past: &[f32], isa: Available, out: &mut [f32]) {
        out.fill(0.0);
        let columns = out.len();
        let rows = past.len() / columns;
        for (weight, &lag) in self.weights(rows).iter().zip(&self.lags) {
            if lag <= rows {
                let start = (rows - lag) * columns;
                add_scaled(isa, out, &past[start..start + columns], *weight as f32);
            }
        }
    }

    /// Learns from the last row of `past`, whose mean square is about `variance`.
    pub fn learn(&mut self, past: &[f32], columns: usize, variance: f32) {
        let rows = past.len() / columns - 1;
        let phase = rows % self.phases.len();
        let row = |lag: usize| {
            let start = (rows - lag) * columns;
            &past[start..start + columns]
        };
        let equations = &mut self.phases[phase];
        let scale = 1.0 / f64::from(variance);
        for (a, &lag) in self.lags.iter().enumerate() {
            if lag > rows {
                continue;
            }
            equations.vector[a] += scale * f64::from(dot(row(lag), row(0)));
            for (b, &other) in self.lags[..=a].iter().enumerate() {
                if other <= rows {
                    let product = scale * f64::from(dot(row(lag), row(other)));
                    equations.matrix[a * self.lags.len() + b] += product;
                }
            }
        }
    }

    /// The weights for a row, one per lag.
    fn weights(&self, row: usize) -> Vec<f64> {
        self.phases[row % self.phases.len()].solve()
    }
}

impl NormalEquations {
    /// Solves by Cholesky's method, with a little added to the diagonal.
    fn solve(&self) -> Vec<f64> {
        const RIDGE: f64 = 1e-2;
        let size = self.vector.len();
        let mut lower = self.matrix.clone();
        let mut weights = self.vector.clone();
        for i in 0..size {
            for j in 0..=i {
                let mut sum = lower[i * size + j];
                if i == j {
                    sum += RIDGE * sum + 1e-9;
                }
                for k in 0..j {
                    sum -= lower[i * size + k] * lower[j * size + k];
                }
                lower[i * size + j] = if i == j {
                    sum.max(1e-12).sqrt()
                } else {
                    sum / lower[j * size + j]
                };
            }
            let mut sum = weights[i];
            for k in 0..i {
                sum -= lower[i * size + k] * weights[k];
            }
            weights[i] = sum / lower[i * size + i];
        }
        for i in (0..size).rev() {
            let mut sum = weights[i];
            for k in i + 1..size {
                sum -= lower[k * size + i] * weights[k];
            }
            weights[i] = sum / lower[i * size + i];
        }
        weights
    }
}
