//! Arrays and names from Python as the core's slices and types.

use momos_core::float::FloatType;
use momos_core::layout::Weights;
use numpy::{
    PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods, ndarray,
};
use pyo3::prelude::*;

use crate::runtime::{invalid_argument, to_python_error};

/// A tensor's bytes, borrowed from Python.
pub type Bytes<'py> = PyReadonlyArray1<'py, u8>;

/// Bytes made for Python.
pub type ByteArray<'py> = Bound<'py, PyArray1<u8>>;

/// The contiguous bytes of an array.
pub fn contiguous<'a>(bytes: &'a Bytes<'_>) -> PyResult<&'a [u8]> {
    bytes.as_slice().map_err(|_| {
        invalid_argument(format!(
            "an array of {} bytes is not contiguous",
            bytes.len()
        ))
    })
}

/// The values of an array.
pub fn slice_of<'a, T: numpy::Element>(array: &'a PyReadonlyArray1<'_, T>) -> PyResult<&'a [T]> {
    array
        .as_slice()
        .map_err(|_| invalid_argument("the array must be contiguous"))
}

/// The float type of that name.
pub fn float_type(name: &str) -> PyResult<FloatType> {
    FloatType::from_name(name).map_err(to_python_error)
}

/// A tensor as the core sees it.
pub fn weights<'a>(bytes: &'a Bytes<'_>, dtype: &str) -> PyResult<Weights<'a>> {
    Weights::new(contiguous(bytes)?, float_type(dtype)?).map_err(to_python_error)
}

/// Rows of `width` values as a 2-D array, without a copy.
pub fn rows<'py, T: numpy::Element>(
    py: Python<'py>,
    values: Vec<T>,
    width: usize,
) -> PyResult<Bound<'py, PyArray2<T>>> {
    let shape = (values.len() / width, width);
    let array = ndarray::Array2::from_shape_vec(shape, values)
        .map_err(|error| invalid_argument(error.to_string()))?;
    Ok(PyArray2::from_owned_array(py, array))
}

/// Rows of one of the two float types.
pub enum Rows<'py> {
    Narrow(PyReadonlyArray2<'py, f32>),
    Wide(PyReadonlyArray2<'py, f64>),
}

impl<'py> Rows<'py> {
    pub fn of(name: &str, array: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(array) = array.extract() {
            return Ok(Self::Narrow(array));
        }
        array.extract().map(Self::Wide).map_err(|_| {
            invalid_argument(format!(
                "{name} must be a (rows, s) array of float32 or float64"
            ))
        })
    }
}

/// All values of the rows.
pub fn values<'a, T: numpy::Element>(
    name: &str,
    rows: &'a PyReadonlyArray2<'_, T>,
) -> PyResult<&'a [T]> {
    rows.as_slice()
        .map_err(|_| invalid_argument(format!("{name} must be C-contiguous")))
}

/// All values of blocks, which must have that size.
pub fn sized<'a, T: numpy::Element>(
    blocks: &'a PyReadonlyArray2<'_, T>,
    block_size: usize,
) -> PyResult<&'a [T]> {
    let size = blocks.shape()[1];
    if size != block_size {
        return Err(invalid_argument(format!(
            "blocks have {size} values each, motifs {block_size}"
        )));
    }
    values("blocks", blocks)
}

/// Blocks and motifs of one type and block size.
pub struct Pair<'a, T> {
    pub blocks: &'a [T],
    pub motifs: &'a [T],
    pub block_size: usize,
}

impl<'a, T: numpy::Element> Pair<'a, T> {
    pub fn new(
        blocks: &'a PyReadonlyArray2<'_, T>,
        motifs: &'a PyReadonlyArray2<'_, T>,
    ) -> PyResult<Self> {
        let (block_size, motif_size) = (blocks.shape()[1], motifs.shape()[1]);
        if block_size != motif_size {
            return Err(invalid_argument(format!(
                "blocks have {block_size} values each, motifs {motif_size}"
            )));
        }
        let (blocks, motifs) = (values("blocks", blocks)?, values("motifs", motifs)?);
        Ok(Self {
            blocks,
            motifs,
            block_size,
        })
    }
}

/// The error for blocks and motifs of different types.
pub fn different_types() -> PyErr {
    invalid_argument("blocks and motifs must both be float32 or both be float64")
}
