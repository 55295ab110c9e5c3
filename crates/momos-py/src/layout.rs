//! Bindings of the core's `layout` module.

use momos_core::layout::{self, Difference};
use numpy::{PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{Bytes, float_type, rows, weights};
use crate::runtime::{invalid_argument, run, to_python_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(block_count, module)?)?;
    module.add_function(wrap_pyfunction!(gather_blocks, module)?)?;
    module.add_function(wrap_pyfunction!(scatter_blocks, module)?)?;
    module.add_function(wrap_pyfunction!(survey_tensor, module)?)?;
    module.add_function(wrap_pyfunction!(compare_tensors, module)?)?;
    Ok(())
}

/// Number of blocks of `block_size` values that hold `elements` values.
#[pyfunction]
fn block_count(elements: usize, block_size: usize) -> PyResult<usize> {
    layout::block_count(elements, block_size).map_err(to_python_error)
}

/// The zero-padded blocks of all tensors in order.
///
/// `tensors` are pairs of bytes (1-D uint8, little-endian, C order) and element type (`"F32"`,
/// ...). Returns (m, s) float64 if `wide`, else float32.
#[pyfunction]
#[pyo3(signature = (tensors, block_size, *, wide=false, threads=None, progress=None))]
fn gather_blocks<'py>(
    py: Python<'py>,
    tensors: Vec<(Bytes<'py>, String)>,
    block_size: usize,
    wide: bool,
    threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let tensors = tensors
        .iter()
        .map(|(bytes, dtype)| weights(bytes, dtype))
        .collect::<PyResult<Vec<_>>>()?;
    if wide {
        let blocks = run(py, threads, progress, |monitor| {
            layout::gather::<f64>(&tensors, block_size, monitor)
        })?;
        Ok(rows(py, blocks, block_size)?.into_any())
    } else {
        let blocks = run(py, threads, progress, |monitor| {
            layout::gather::<f32>(&tensors, block_size, monitor)
        })?;
        Ok(rows(py, blocks, block_size)?.into_any())
    }
}

/// A tensor of `elements` values rebuilt from its blocks' motifs, as bytes.
///
/// `motifs` is (k, s) float32 or float64, `indices` (blocks,) uint32.
#[pyfunction]
#[pyo3(signature = (motifs, indices, elements, dtype, *, threads=None, progress=None))]
fn scatter_blocks<'py>(
    py: Python<'py>,
    motifs: &Bound<'py, PyAny>,
    indices: PyReadonlyArray1<'py, u32>,
    elements: usize,
    dtype: &str,
    threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let float = float_type(dtype)?;
    let not_contiguous = |_| invalid_argument("motifs and indices must be contiguous");
    let indices = indices.as_slice().map_err(not_contiguous)?;
    let bytes = if let Ok(motifs) = motifs.extract::<PyReadonlyArray2<'py, f32>>() {
        let width = motifs.shape()[1];
        let motifs = motifs.as_slice().map_err(not_contiguous)?;
        run(py, threads, progress, |monitor| {
            layout::scatter(motifs, indices, elements, width, float, monitor)
        })?
    } else if let Ok(motifs) = motifs.extract::<PyReadonlyArray2<'py, f64>>() {
        let width = motifs.shape()[1];
        let motifs = motifs.as_slice().map_err(not_contiguous)?;
        run(py, threads, progress, |monitor| {
            layout::scatter(motifs, indices, elements, width, float, monitor)
        })?
    } else {
        return Err(invalid_argument(
            "motifs must be a (k, s) array of float32 or float64",
        ));
    };
    Ok(PyArray1::from_vec(py, bytes))
}

/// What one pass over a tensor tells: `first_non_finite`, `sum_of_squares`, `zeros`.
#[pyfunction]
#[pyo3(signature = (tensor, dtype, *, threads=None, progress=None))]
fn survey_tensor<'py>(
    py: Python<'py>,
    tensor: Bytes<'py>,
    dtype: &str,
    threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let tensor = weights(&tensor, dtype)?;
    let survey = run(py, threads, progress, |monitor| {
        layout::survey(tensor, monitor)
    })?;
    let result = PyDict::new(py);
    result.set_item("first_non_finite", survey.first_non_finite)?;
    result.set_item("sum_of_squares", survey.sum_of_squares)?;
    result.set_item("zeros", survey.zeros)?;
    Ok(result)
}

/// How a tensor differs from the original: `distortion`, `sum_of_squares`, `largest`, `changed`.
///
/// `before` is what a call gave for the elements before these: tensors may be compared in pieces
/// of a multiple of 65,536 elements, the last one what is left.
#[pyfunction]
#[pyo3(signature = (original, other, dtype, *, before=None, threads=None, progress=None))]
fn compare_tensors<'py>(
    py: Python<'py>,
    original: Bytes<'py>,
    other: Bytes<'py>,
    dtype: &str,
    before: Option<&Bound<'py, PyDict>>,
    threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let before = before.map_or_else(|| Ok(Difference::default()), difference_of)?;
    let (original, other) = (weights(&original, dtype)?, weights(&other, dtype)?);
    let difference = run(py, threads, progress, |monitor| {
        layout::compare_more(before, original, other, monitor)
    })?;
    let result = PyDict::new(py);
    result.set_item("distortion", difference.distortion)?;
    result.set_item("sum_of_squares", difference.sum_of_squares)?;
    result.set_item("largest", difference.largest)?;
    result.set_item("changed", difference.changed)?;
    Ok(result)
}

fn difference_of(entries: &Bound<'_, PyDict>) -> PyResult<Difference> {
    let entry = |name: &str| {
        let entry = entries.get_item(name)?;
        entry.ok_or_else(|| invalid_argument(format!("a difference has no {name:?}")))
    };
    Ok(Difference {
        distortion: entry("distortion")?.extract()?,
        sum_of_squares: entry("sum_of_squares")?.extract()?,
        largest: entry("largest")?.extract()?,
        changed: entry("changed")?.extract()?,
    })
}
