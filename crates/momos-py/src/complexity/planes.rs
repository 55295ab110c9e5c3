//! Bindings of the counts of binary blocks in weights.

use momos_core::complexity::planes::{self, Planes};
use momos_core::complexity::quantiser::Quantiser;
use momos_core::complexity::{bdm, ctm, signs, tiled};
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;

use super::weights::weights_in;
use crate::arrays::Bytes;
use crate::runtime::run;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SignCounter>()?;
    module.add_function(wrap_pyfunction!(pack_signs, module)?)?;
    module.add_function(wrap_pyfunction!(sign_plane_counts, module)?)?;
    module.add_function(wrap_pyfunction!(level_plane_complexities, module)?)?;
    module.add_function(wrap_pyfunction!(level_plane_counts, module)?)?;
    module.add_function(wrap_pyfunction!(tiled_complexity, module)?)?;
    Ok(())
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
    let counts: Vec<u64> = counts.swap_remove(0).into_iter().map(u64::from).collect();
    Ok(counts.into_pyarray(py))
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

/// Occurrences of every 4x4 block in each bit-plane, least significant first: uint64 arrays of
/// 65536; arguments as of `level_plane_complexities`.
#[pyfunction]
#[pyo3(signature = (data, dtype, columns, bits, low, high, *, threads=None))]
#[allow(clippy::too_many_arguments)]
fn level_plane_counts<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    dtype: &str,
    columns: usize,
    bits: u32,
    low: f64,
    high: f64,
    threads: Option<usize>,
) -> PyResult<Vec<Bound<'py, PyArray1<u64>>>> {
    let weights = weights_in(&data, dtype)?;
    let counts = run(py, threads, None, |monitor| {
        let quantiser = Quantiser::new(weights.dtype(), low, high, bits)?;
        planes::count(weights, columns, Planes::Levels(quantiser), monitor)
    })?;
    let wide = |counts: Vec<u32>| counts.into_iter().map(u64::from).collect::<Vec<u64>>();
    Ok(counts
        .into_iter()
        .map(|plane| wide(plane).into_pyarray(py))
        .collect())
}

/// The 4x4 BDM of the tiled manifold of a matrix; arguments as of `level_plane_complexities`.
#[pyfunction]
#[pyo3(signature = (data, dtype, columns, bits, low, high, *, threads=None))]
#[allow(clippy::too_many_arguments)]
fn tiled_complexity(
    py: Python<'_>,
    data: Bytes<'_>,
    dtype: &str,
    columns: usize,
    bits: u32,
    low: f64,
    high: f64,
    threads: Option<usize>,
) -> PyResult<f64> {
    let weights = weights_in(&data, dtype)?;
    run(py, threads, None, |monitor| {
        let quantiser = Quantiser::new(weights.dtype(), low, high, bits)?;
        let table = ctm::squares(planes::WIDTH).expect("4x4 is tabulated");
        bdm::bdm(&tiled::count(weights, columns, quantiser, monitor)?, table)
    })
}
