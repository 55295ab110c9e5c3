//! Bindings of the core's `codec::motifs` module.

use momos_core::codec::motifs::{coder, table};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::arrays::{Bytes, contiguous, float_type};
use crate::runtime::{invalid_argument, run};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(canonical_order, module)?)?;
    module.add_function(wrap_pyfunction!(sorted_order, module)?)?;
    module.add_function(wrap_pyfunction!(encode_motifs, module)?)?;
    module.add_function(wrap_pyfunction!(decode_motifs, module)?)?;
    module.add_function(wrap_pyfunction!(regroup_motifs, module)?)?;
    module.add_function(wrap_pyfunction!(restore_motifs, module)?)?;
    Ok(())
}

/// The order of a mosaic's motifs in an archive.
///
/// `table` holds the motifs' elements as bytes, `counts` (uint64) how many blocks each represents.
/// Returns the old numbers of the motifs in use in their new order (uint32), and the number of
/// motifs of each code length.
#[pyfunction]
fn canonical_order<'py>(
    py: Python<'py>,
    table: Bytes<'py>,
    block_size: usize,
    dtype: &str,
    counts: PyReadonlyArray1<'py, u64>,
) -> PyResult<(Bound<'py, PyArray1<u32>>, Vec<u64>)> {
    let float = float_type(dtype)?;
    let table = contiguous(&table)?;
    let counts = counts
        .as_slice()
        .map_err(|_| invalid_argument("counts must be contiguous"))?;
    let canonical = run(py, None, None, |_| {
        table::canonical_order(table, block_size, float, counts)
    })?;
    Ok((
        PyArray1::from_vec(py, canonical.order),
        canonical.length_counts,
    ))
}

/// The old numbers (uint32) of the motifs in use, sorted by value.
///
/// Arguments as for `canonical_order`.
#[pyfunction]
fn sorted_order<'py>(
    py: Python<'py>,
    table: Bytes<'py>,
    block_size: usize,
    dtype: &str,
    counts: PyReadonlyArray1<'py, u64>,
) -> PyResult<Bound<'py, PyArray1<u32>>> {
    let (float, table) = (float_type(dtype)?, contiguous(&table)?);
    let counts = counts
        .as_slice()
        .map_err(|_| invalid_argument("counts must be contiguous"))?;
    let order = run(py, None, None, |_| {
        table::sorted_order(table, block_size, float, counts)
    })?;
    Ok(PyArray1::from_vec(py, order))
}

/// The stream of a table of motifs (bytes), best sorted by value; all values are multiples of
/// `step` if there is one.
#[pyfunction]
#[pyo3(signature = (table, block_size, dtype, motifs, *, step=None))]
fn encode_motifs<'py>(
    py: Python<'py>,
    table: Bytes<'py>,
    block_size: usize,
    dtype: &str,
    motifs: usize,
    step: Option<f64>,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (float, table) = (float_type(dtype)?, contiguous(&table)?);
    let stream = run(py, None, None, |monitor| {
        coder::encode(table, block_size, float, motifs, step, monitor)
    })?;
    Ok(PyArray1::from_vec(py, stream))
}

/// Inverts `encode_motifs`.
#[pyfunction]
fn decode_motifs<'py>(
    py: Python<'py>,
    stream: Bytes<'py>,
    block_size: usize,
    dtype: &str,
    motifs: usize,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (float, stream) = (float_type(dtype)?, contiguous(&stream)?);
    let table = run(py, None, None, |monitor| {
        coder::decode(stream, block_size, float, motifs, monitor)
    })?;
    Ok(PyArray1::from_vec(py, table))
}

/// Regroups a table of motifs (bytes) for a general compressor.
#[pyfunction]
fn regroup_motifs<'py>(
    py: Python<'py>,
    table: Bytes<'py>,
    block_size: usize,
    dtype: &str,
    motifs: usize,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (float, table) = (float_type(dtype)?, contiguous(&table)?);
    let out = run(py, None, None, |_| {
        table::regroup(table, block_size, float, motifs)
    })?;
    Ok(PyArray1::from_vec(py, out))
}

/// Inverts `regroup_motifs`.
#[pyfunction]
fn restore_motifs<'py>(
    py: Python<'py>,
    regrouped: Bytes<'py>,
    block_size: usize,
    dtype: &str,
    motifs: usize,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (float, regrouped) = (float_type(dtype)?, contiguous(&regrouped)?);
    let out = run(py, None, None, |_| {
        table::restore(regrouped, block_size, float, motifs)
    })?;
    Ok(PyArray1::from_vec(py, out))
}
