//! Bindings of the core's `complexity` module.

mod planes;
mod symbols;
mod weights;

use momos_core::complexity::entropy::BlockEntropy;
use momos_core::complexity::{bdm, ctm};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::arrays::slice_of;
use crate::runtime::{invalid_argument, to_python_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(bdm_of_counts, module)?)?;
    module.add_function(wrap_pyfunction!(block_entropy, module)?)?;
    module.add_function(wrap_pyfunction!(ctm_strings, module)?)?;
    module.add_function(wrap_pyfunction!(ctm_squares, module)?)?;
    planes::register(module)?;
    symbols::register(module)?;
    weights::register(module)?;
    Ok(())
}

/// Sum of `complexity + log2(count)` over the counts that are not 0.
#[pyfunction]
fn bdm_of_counts(
    counts: PyReadonlyArray1<'_, u64>,
    complexities: PyReadonlyArray1<'_, f64>,
) -> PyResult<f64> {
    bdm::bdm(slice_of(&counts)?, slice_of(&complexities)?).map_err(to_python_error)
}

/// `(blocks, distinct, plain, miller_madow)`: the entropy in bits of the counts.
#[pyfunction]
fn block_entropy(counts: PyReadonlyArray1<'_, u64>) -> PyResult<(u64, u64, f64, f64)> {
    let entropy = BlockEntropy::of(slice_of(&counts)?);
    Ok((
        entropy.blocks,
        entropy.distinct,
        entropy.plain,
        entropy.miller_madow(),
    ))
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
