//! Bindings of the core's `codec::exact` module.

use momos_core::codec::exact::byte_planes::{self, Rotation};
use momos_core::codec::exact::floats;
use numpy::PyArray1;
use pyo3::prelude::*;

use crate::arrays::{ByteArray, Bytes, contiguous};
use crate::runtime::run;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(encode_floats, module)?)?;
    module.add_function(wrap_pyfunction!(decode_floats, module)?)?;
    module.add_function(wrap_pyfunction!(split_planes, module)?)?;
    module.add_function(wrap_pyfunction!(join_planes, module)?)?;
    Ok(())
}

/// Codes little-endian floats of `size` bytes (1, 2, 4 or 8): the modelled part and the byte planes
/// of the other bits, both uint8.
#[pyfunction]
fn encode_floats<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    size: usize,
) -> PyResult<(ByteArray<'py>, ByteArray<'py>)> {
    let data = contiguous(&data)?;
    let (modelled, planes) = run(py, None, None, |monitor| {
        floats::encode(data, size, monitor)
    })?;
    Ok((
        PyArray1::from_vec(py, modelled),
        PyArray1::from_vec(py, planes),
    ))
}

/// Inverts `encode_floats`, given the number of elements.
#[pyfunction]
fn decode_floats<'py>(
    py: Python<'py>,
    modelled: Bytes<'py>,
    planes: Bytes<'py>,
    elements: usize,
    size: usize,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (modelled, planes) = (contiguous(&modelled)?, contiguous(&planes)?);
    let out = run(py, None, None, |monitor| {
        floats::decode(modelled, planes, elements, size, monitor)
    })?;
    Ok(PyArray1::from_vec(py, out))
}

/// Spreads elements of `size` bytes into byte planes, each element rotated left by one bit first
/// if `rotate`.
#[pyfunction]
fn split_planes<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    size: usize,
    rotate: bool,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let data = contiguous(&data)?;
    let out = run(py, None, None, |_| {
        byte_planes::split(data, size, rotation(rotate))
    })?;
    Ok(PyArray1::from_vec(py, out))
}

/// Inverts `split_planes`.
#[pyfunction]
fn join_planes<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    size: usize,
    rotate: bool,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let data = contiguous(&data)?;
    let out = run(py, None, None, |_| {
        byte_planes::join(data, size, rotation(rotate))
    })?;
    Ok(PyArray1::from_vec(py, out))
}

fn rotation(rotate: bool) -> Rotation {
    if rotate {
        Rotation::Left
    } else {
        Rotation::None
    }
}
