//! Bindings of what the core's `complexity` module tells of weights one by one.

use momos_core::complexity::floats::{self, Floats, WeightType};
use momos_core::complexity::quantile;
use momos_core::complexity::statistics::{self, Statistics};
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;

use crate::arrays::Bytes;
use crate::runtime::{invalid_argument, run, to_python_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<QuantileSearch>()?;
    module.add_function(wrap_pyfunction!(zero_non_finite, module)?)?;
    module.add_function(wrap_pyfunction!(weight_statistics, module)?)?;
    module.add_function(wrap_pyfunction!(finite_range, module)?)?;
    module.add_function(wrap_pyfunction!(quantiles, module)?)?;
    Ok(())
}

/// See `weight_statistics`.
type StatisticsTuple = (u64, u64, u64, u64, f64, f64, f64, f64);

/// Weights of the type of that name.
pub fn weights_in<'a>(data: &'a Bytes<'_>, dtype: &str) -> PyResult<Floats<'a>> {
    let dtype = WeightType::from_name(dtype).map_err(to_python_error)?;
    let bytes = data
        .as_slice()
        .map_err(|_| invalid_argument("the bytes of the weights must be contiguous"))?;
    Floats::new(bytes, dtype).map_err(to_python_error)
}

/// The weights with NaN and infinities replaced by zero: uint8 array of the same length.
#[pyfunction]
fn zero_non_finite<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    dtype: &str,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let weights = weights_in(&data, dtype)?;
    let cleaned = run(py, None, None, |_| Ok(floats::zero_non_finite(weights)))?;
    Ok(cleaned.into_pyarray(py))
}

/// `(n, zeros, nans, infinities, min, max, sum, sum_of_squares)` of the weights; range without
/// NaN, sums over the finite ones.
///
/// `before` is what a call gave for the weights before these: weights may come in pieces of a
/// multiple of 2^18, but for the last, without a change to the sums.
#[pyfunction]
#[pyo3(signature = (data, dtype, *, before=None, threads=None))]
fn weight_statistics(
    py: Python<'_>,
    data: Bytes<'_>,
    dtype: &str,
    before: Option<StatisticsTuple>,
    threads: Option<usize>,
) -> PyResult<StatisticsTuple> {
    let weights = weights_in(&data, dtype)?;
    let before = before.map_or(
        Statistics::EMPTY,
        |(n, zeros, nans, infinities, min, max, sum, sum_of_squares)| Statistics {
            n,
            zeros,
            nans,
            infinities,
            min,
            max,
            sum,
            sum_of_squares,
        },
    );
    let all = run(py, threads, None, |monitor| before.and(weights, monitor))?;
    Ok((
        all.n,
        all.zeros,
        all.nans,
        all.infinities,
        all.min,
        all.max,
        all.sum,
        all.sum_of_squares,
    ))
}

/// `(min, max)` of the weights, None if there are none or one is not finite.
#[pyfunction]
#[pyo3(signature = (data, dtype, *, threads=None))]
fn finite_range(
    py: Python<'_>,
    data: Bytes<'_>,
    dtype: &str,
    threads: Option<usize>,
) -> PyResult<Option<(f64, f64)>> {
    let weights = weights_in(&data, dtype)?;
    run(py, threads, None, |monitor| {
        statistics::finite_range(weights, monitor)
    })
}

/// Quantiles of the weights as float32, interpolated linearly as by torch.
#[pyfunction]
#[pyo3(signature = (data, dtype, qs, *, threads=None))]
fn quantiles(
    py: Python<'_>,
    data: Bytes<'_>,
    dtype: &str,
    qs: Vec<f32>,
    threads: Option<usize>,
) -> PyResult<Vec<f32>> {
    let weights = weights_in(&data, dtype)?;
    run(py, threads, None, |monitor| {
        quantile::quantiles(weights, &qs, monitor)
    })
}

/// As `quantiles`, of `n` weights that come in pieces: give all of them to `add`, `turn`, and give
/// them again.
#[pyclass(module = "momos_rs._core")]
struct QuantileSearch {
    search: quantile::QuantileSearch,
}

#[pymethods]
impl QuantileSearch {
    #[new]
    fn new(n: usize, qs: Vec<f32>) -> PyResult<Self> {
        let search = quantile::QuantileSearch::new(n, &qs).map_err(to_python_error)?;
        Ok(Self { search })
    }

    /// Takes weights in, little-endian bytes of the type `dtype`.
    #[pyo3(signature = (data, dtype, *, threads=None))]
    fn add(
        &mut self,
        py: Python<'_>,
        data: Bytes<'_>,
        dtype: &str,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let weights = weights_in(&data, dtype)?;
        let search = &mut self.search;
        run(py, threads, None, |monitor| search.add(weights, monitor))
    }

    /// Ends the first pass.
    fn turn(&mut self) -> PyResult<()> {
        self.search.turn().map_err(to_python_error)
    }

    /// The quantiles.
    fn values(&self) -> PyResult<Vec<f32>> {
        self.search.finish().map_err(to_python_error)
    }
}
