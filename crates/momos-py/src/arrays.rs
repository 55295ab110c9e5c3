//! Arrays and names from Python as the core's slices and types.

use momos_core::float::FloatType;
use momos_core::layout::Weights;
use numpy::{PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::runtime::{invalid_argument, to_python_error};

/// A tensor's bytes, borrowed from Python.
pub type Bytes<'py> = PyReadonlyArray1<'py, u8>;

/// The contiguous bytes of an array.
pub fn contiguous<'a>(bytes: &'a Bytes<'_>) -> PyResult<&'a [u8]> {
    bytes.as_slice().map_err(|_| {
        invalid_argument(format!(
            "an array of {} bytes is not contiguous",
            bytes.len()
        ))
    })
}

/// The float type of that name.
pub fn float_type(name: &str) -> PyResult<FloatType> {
    FloatType::from_name(name).map_err(to_python_error)
}

/// A tensor as the core sees it.
pub fn weights<'a>(bytes: &'a Bytes<'_>, dtype: &str) -> PyResult<Weights<'a>> {
    Weights::new(contiguous(bytes)?, float_type(dtype)?).map_err(to_python_error)
}
