//! Bindings of the core's `complexity` module.

use momos_core::complexity::bdm;
use momos_core::complexity::ctm;
use momos_core::complexity::entropy::BlockEntropy;
use momos_core::complexity::floats::{self, Floats, WeightType};
use momos_core::complexity::planes::{self, Planes, Quantiser};
use momos_core::complexity::signs;
use momos_core::complexity::statistics::{self, Statistics};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::runtime::{invalid_argument, run, to_python_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SignCounter>()?;
    module.add_function(wrap_pyfunction!(pack_signs, module)?)?;
    module.add_function(wrap_pyfunction!(zero_non_finite, module)?)?;
    module.add_function(wrap_pyfunction!(weight_statistics, module)?)?;
    module.add_function(wrap_pyfunction!(finite_range, module)?)?;
    module.add_function(wrap_pyfunction!(sign_plane_counts, module)?)?;
    module.add_function(wrap_pyfunction!(level_plane_complexities, module)?)?;
    module.add_function(wrap_pyfunction!(bdm_of_counts, module)?)?;
    module.add_function(wrap_pyfunction!(block_entropy, module)?)?;
    module.add_function(wrap_pyfunction!(ctm_strings, module)?)?;
    module.add_function(wrap_pyfunction!(ctm_squares, module)?)?;
    Ok(())
}

type Bytes<'py> = PyReadonlyArray1<'py, u8>;

fn weights_in<'a>(data: &'a Bytes<'_>, dtype: &str) -> PyResult<Floats<'a>> {
    let dtype = WeightType::from_name(dtype).map_err(to_python_error)?;
    let bytes = data
        .as_slice()
        .map_err(|_| invalid_argument("the bytes of the weights must be contiguous"))?;
    Floats::new(bytes, dtype).map_err(to_python_error)
}

/// Counts the 12-bit blocks in a stream of signs (bit = weight > 0), given tensor by tensor.
#[pyclass(module = "momos_rs._core")]
#[derive(Default)]
struct SignCounter {
    counter: signs::SignCounter,
}

#[pymethods]
impl SignCounter {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Appends the signs of the weights in `data`, little-endian bytes of the type `dtype`.
    #[pyo3(signature = (data, dtype, *, threads=None))]
    fn update(
        &mut self,
        py: Python<'_>,
        data: Bytes<'_>,
        dtype: &str,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let weights = weights_in(&data, dtype)?;
        let counter = &mut self.counter;
        run(py, threads, None, |monitor| {
            counter.update(weights, monitor)
        })
    }

    /// Occurrences of every complete block: uint64 array of 4096, the block's first bit lowest.
    fn counts<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        PyArray1::from_slice(py, self.counter.counts())
    }

    /// Bits given so far; the last `bits % 12` of them are in no block.
    #[getter]
    fn bits(&self) -> u64 {
        self.counter.bits()
    }
}

/// The bits `weight > 0`, eight to a byte, the first lowest; uint8 array of `ceil(n / 8)`.
#[pyfunction]
fn pack_signs<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    dtype: &str,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let weights = weights_in(&data, dtype)?;
    let packed = run(py, None, None, |_| {
        let mut words = vec![0; weights.len().div_ceil(64)];
        signs::pack(weights, &mut words);
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        bytes.truncate(weights.len().div_ceil(8));
        Ok(bytes)
    })?;
    Ok(packed.into_pyarray(py))
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
#[pyfunction]
#[pyo3(signature = (data, dtype, *, threads=None))]
#[allow(clippy::type_complexity)]
fn weight_statistics(
    py: Python<'_>,
    data: Bytes<'_>,
    dtype: &str,
    threads: Option<usize>,
) -> PyResult<(u64, u64, u64, u64, f64, f64, f64, f64)> {
    let weights = weights_in(&data, dtype)?;
    let all = run(py, threads, None, |monitor| {
        Statistics::of(weights, monitor)
    })?;
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

/// Occurrences of every 4x4 block in the signs of a matrix of `columns` columns: uint64 array of
/// 65536, the block's first element (in C order) lowest.
#[pyfunction]
#[pyo3(signature = (data, dtype, columns, *, threads=None))]
fn sign_plane_counts<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    dtype: &str,
    columns: usize,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let weights = weights_in(&data, dtype)?;
    let mut counts = run(py, threads, None, |monitor| {
        planes::count(weights, columns, Planes::Signs, monitor)
    })?;
    Ok(counts.swap_remove(0).into_pyarray(py))
}

/// The 4x4 BDM of each bit-plane, least significant first, of a matrix of `columns` columns
/// quantised to `2**bits` levels from `low` to `high`.
#[pyfunction]
#[pyo3(signature = (data, dtype, columns, bits, low, high, *, threads=None))]
#[allow(clippy::too_many_arguments)]
fn level_plane_complexities(
    py: Python<'_>,
    data: Bytes<'_>,
    dtype: &str,
    columns: usize,
    bits: u32,
    low: f64,
    high: f64,
    threads: Option<usize>,
) -> PyResult<Vec<f64>> {
    let weights = weights_in(&data, dtype)?;
    run(py, threads, None, |monitor| {
        let quantiser = Quantiser::new(weights.dtype(), low, high, bits)?;
        let table = ctm::squares(planes::WIDTH).expect("4x4 is tabulated");
        planes::count(weights, columns, Planes::Levels(quantiser), monitor)?
            .iter()
            .map(|counts| bdm::bdm(counts, table))
            .collect()
    })
}

/// Sum of `complexity + log2(count)` over the counts that are not 0.
#[pyfunction]
fn bdm_of_counts(
    counts: PyReadonlyArray1<'_, u64>,
    complexities: PyReadonlyArray1<'_, f64>,
) -> PyResult<f64> {
    bdm::bdm(contiguous(&counts)?, contiguous(&complexities)?).map_err(to_python_error)
}

/// `(blocks, distinct, plain, miller_madow)`: the entropy in bits of the counts.
#[pyfunction]
fn block_entropy(counts: PyReadonlyArray1<'_, u64>) -> PyResult<(u64, u64, f64, f64)> {
    let entropy = BlockEntropy::of(contiguous(&counts)?);
    Ok((
        entropy.blocks,
        entropy.distinct,
        entropy.plain,
        entropy.miller_madow(),
    ))
}

fn contiguous<'a, T: numpy::Element>(array: &'a PyReadonlyArray1<'_, T>) -> PyResult<&'a [T]> {
    array
        .as_slice()
        .map_err(|_| invalid_argument("the array must be contiguous"))
}

/// CTM complexities of the binary strings of a length from 1 to 12: float64 array of `2**length`,
/// the string's first bit lowest.
#[pyfunction]
fn ctm_strings(py: Python<'_>, length: usize) -> PyResult<Bound<'_, PyArray1<f64>>> {
    let table = ctm::strings(length).ok_or_else(|| {
        invalid_argument(format!(
            "no CTM table of binary strings of {length}, only of 1 to {}",
            ctm::MAX_STRING
        ))
    })?;
    Ok(PyArray1::from_slice(py, table))
}

/// CTM complexities of the binary squares of a width from 1 to 4: float64 array of
/// `2**(width * width)`, the square's first element (in C order) lowest.
#[pyfunction]
fn ctm_squares(py: Python<'_>, width: usize) -> PyResult<Bound<'_, PyArray1<f64>>> {
    let table = ctm::squares(width).ok_or_else(|| {
        invalid_argument(format!(
            "no CTM table of binary squares of width {width}, only of 1 to {}",
            ctm::MAX_SQUARE
        ))
    })?;
    Ok(PyArray1::from_slice(py, table))
}
