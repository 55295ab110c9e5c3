//! Bindings of the core's `codec::exact` module.

use momos_core::codec::exact::byte_planes::{self, Rotation};
use momos_core::codec::exact::fields::{self, Kind};
use momos_core::codec::exact::floats;
use momos_core::simd::Available;
use numpy::{PyArray1, PyReadwriteArray1};
use pyo3::prelude::*;

use crate::arrays::{ByteArray, Bytes, contiguous};
use crate::runtime::{invalid_argument, run};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(encode_floats, module)?)?;
    module.add_function(wrap_pyfunction!(decode_floats, module)?)?;
    module.add_function(wrap_pyfunction!(encode_fields, module)?)?;
    module.add_function(wrap_pyfunction!(decode_fields, module)?)?;
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

/// Codes little-endian elements of `size` bytes (1, 2, 4 or 8), floats or not, by static codes of
/// their fields (uint8).
#[pyfunction]
fn encode_fields<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    size: usize,
    floating: bool,
) -> PyResult<ByteArray<'py>> {
    let data = contiguous(&data)?;
    let kind = if floating { Kind::Float } else { Kind::Integer };
    let stream = run(py, None, None, |monitor| {
        fields::encode(data, size, kind, monitor)
    })?;
    Ok(PyArray1::from_vec(py, stream))
}

/// Inverts `encode_fields` into `out` (1-D uint8), which has the size of the elements.
#[pyfunction]
fn decode_fields<'py>(
    py: Python<'py>,
    stream: Bytes<'py>,
    size: usize,
    mut out: PyReadwriteArray1<'py, u8>,
) -> PyResult<()> {
    let stream = contiguous(&stream)?;
    let out = out
        .as_slice_mut()
        .map_err(|_| invalid_argument("the bytes to decode into must be contiguous"))?;
    run(py, None, None, |monitor| {
        fields::decode(Available::best(), stream, size, out, monitor)
    })
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
