//! Bindings of the core's `codec::grid` module.

use std::sync::Arc;

use momos_core::codec::grid::feedback::Factors;
use momos_core::codec::grid::geometry::Geometry;
use momos_core::codec::grid::importance::Importance;
use momos_core::codec::grid::steps;
use momos_core::codec::grid::stream::{self, Multiples, Options};
use momos_core::float::Working;
use numpy::{PyArray1, PyReadonlyArray1, PyReadonlyArray3, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::arrays::{Bytes, contiguous, float_type};
use crate::runtime::{invalid_argument, run, to_python_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<GridGeometry>()?;
    module.add_class::<GridTensor>()?;
    module.add_class::<FeedbackFactors>()?;
    module.add_function(wrap_pyfunction!(quantise_to_grid, module)?)?;
    module.add_function(wrap_pyfunction!(decode_grid, module)?)?;
    module.add_function(wrap_pyfunction!(decode_grid_chunks, module)?)?;
    module.add_function(wrap_pyfunction!(grid_order, module)?)?;
    module.add_function(wrap_pyfunction!(gain_of_own_steps, module)?)?;
    module.add_function(wrap_pyfunction!(estimate_grid, module)?)?;
    Ok(())
}

/// How the elements of a tensor become rows and columns, and what is predicted from what.
#[pyclass(frozen, module = "momos_rs._core")]
struct GridGeometry {
    geometry: Geometry,
}

#[pymethods]
impl GridGeometry {
    #[new]
    #[pyo3(signature = (elements, columns, *, transposed=false, within=false, lags=vec![], period=1))]
    fn new(
        elements: usize,
        columns: usize,
        transposed: bool,
        within: bool,
        lags: Vec<usize>,
        period: usize,
    ) -> PyResult<Self> {
        let geometry = Geometry {
            elements,
            columns,
            transposed,
            within,
            lags,
            period,
        };
        geometry
            .check()
            .map_err(|error| invalid_argument(error.message().to_owned()))?;
        Ok(Self { geometry })
    }

    /// Values per row.
    #[getter]
    fn columns(&self) -> usize {
        self.geometry.columns
    }

    /// Whether rows of the tensor are coded as columns.
    #[getter]
    fn transposed(&self) -> bool {
        self.geometry.transposed
    }

    /// Distances to the rows from which a row is predicted.
    #[getter]
    fn lags(&self) -> Vec<usize> {
        self.geometry.lags.clone()
    }

    fn __repr__(&self) -> String {
        let Geometry {
            columns,
            transposed,
            within,
            lags,
            period,
            ..
        } = &self.geometry;
        format!(
            "GridGeometry(rows={}, columns={columns}, transposed={transposed}, within={within}, \
             lags={lags:?}, period={period})",
            self.geometry.rows()
        )
    }
}

/// A tensor whose values are multiples of a step.
#[pyclass(frozen, module = "momos_rs._core")]
struct GridTensor {
    multiples: Multiples,
}

#[pymethods]
impl GridTensor {
    /// The step, of which every value is a multiple.
    #[getter]
    fn step(&self) -> f32 {
        self.multiples.header.step
    }

    /// Number of states of the trellis; 1 for the plain grid.
    #[getter]
    fn states(&self) -> usize {
        1 << self.multiples.header.state_bits
    }

    /// The coded stream, as uint8.
    #[pyo3(signature = (*, threads=None, progress=None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        threads: Option<usize>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<u8>>> {
        let stream = run(py, threads, progress, |monitor| {
            stream::encode(&self.multiples, monitor)
        })?;
        Ok(PyArray1::from_vec(py, stream))
    }

    /// The tensor's elements, rounded to a type, as bytes.
    fn to_bytes<'py>(&self, py: Python<'py>, dtype: &str) -> PyResult<Bound<'py, PyArray1<u8>>> {
        let float = float_type(dtype)?;
        let bytes = run(py, None, None, |_| Ok(self.multiples.to_bytes(float)))?;
        Ok(PyArray1::from_vec(py, bytes))
    }
}

/// Second moments of a layer's inputs in factors: how errors of some inputs' weights are made up for
/// by those of others.
#[pyclass(frozen, module = "momos_rs._core")]
struct FeedbackFactors {
    factors: Arc<Factors>,
}

#[pymethods]
impl FeedbackFactors {
    /// From sums of outer products over `count` inputs, shape (groups, width, width).
    #[new]
    #[pyo3(signature = (moments, count, *, threads=None))]
    fn new(
        py: Python<'_>,
        moments: PyReadonlyArray3<'_, f64>,
        count: u64,
        threads: Option<usize>,
    ) -> PyResult<Self> {
        let (groups, width) = match moments.shape() {
            &[groups, rows, columns] if rows == columns => (groups, rows),
            shape => {
                return Err(invalid_argument(format!(
                    "second moments are square matrices, not of shape {shape:?}"
                )));
            }
        };
        let values = moments
            .as_slice()
            .map_err(|_| invalid_argument("second moments must be contiguous"))?;
        let factors = run(py, threads, None, |monitor| {
            Factors::new(values, groups, width, count, monitor)
        })?;
        Ok(Self {
            factors: Arc::new(factors),
        })
    }

    /// Number of groups of outputs.
    #[getter]
    fn groups(&self) -> usize {
        self.factors.groups()
    }

    /// Number of inputs.
    #[getter]
    fn width(&self) -> usize {
        self.factors.width()
    }

    /// The share by which moments were drawn towards the identity.
    #[getter]
    fn damping(&self) -> f64 {
        self.factors.damping()
    }

    /// Whether no error of an input can be made up for by another.
    #[getter]
    fn diagonal(&self) -> bool {
        self.factors.is_diagonal()
    }

    /// By input, how much a squared error counts that is left after feedback.
    #[getter]
    fn importance<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        PyArray1::from_vec(py, self.factors.importance())
    }
}

/// About the bits per value that steps of their own save where errors count so differently.
#[pyfunction]
fn gain_of_own_steps(importance: PyReadonlyArray1<'_, f64>) -> PyResult<f64> {
    let importance = importance
        .as_slice()
        .map_err(|_| invalid_argument("an importance must be contiguous"))?;
    Ok(steps::gain(importance))
}

/// Quantises a tensor to a grid of `step`, along a trellis of `states` states (1 for none).
#[pyfunction]
#[pyo3(signature = (
    tensor, dtype, geometry, step, *, states=1, economy=1.0, weights=None, rows=None,
    columns=None, factors=None, own_steps=true, threads=None, progress=None
))]
#[expect(clippy::too_many_arguments, reason = "named arguments in Python")]
fn quantise_to_grid(
    py: Python<'_>,
    tensor: Bytes<'_>,
    dtype: &str,
    geometry: &GridGeometry,
    step: f32,
    states: usize,
    economy: f32,
    weights: Option<PyReadonlyArray1<'_, f32>>,
    rows: Option<PyReadonlyArray1<'_, f64>>,
    columns: Option<PyReadonlyArray1<'_, f64>>,
    factors: Option<&FeedbackFactors>,
    own_steps: bool,
    threads: Option<usize>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<GridTensor> {
    let (float, tensor) = (float_type(dtype)?, contiguous(&tensor)?);
    if !states.is_power_of_two() {
        return Err(invalid_argument(format!(
            "the number of states must be a power of two, not {states}"
        )));
    }
    let weights = slice(&weights)?;
    let importance = Importance {
        rows: slice(&rows)?,
        columns: slice(&columns)?,
        factors: factors.map(|factors| factors.factors.as_ref()),
    };
    let options = Options {
        geometry: geometry.geometry.clone(),
        state_bits: states.trailing_zeros(),
        step,
        economy,
        own_steps,
    };
    let multiples = run(py, threads, progress, |monitor| {
        let mut values = vec![0f64; float.count(tensor)?];
        f64::read_bytes(&mut values, tensor, float);
        stream::quantise(&values, weights, &importance, &options, monitor)
    })?;
    Ok(GridTensor { multiples })
}

fn slice<'a, T: numpy::Element>(
    array: &'a Option<PyReadonlyArray1<'_, T>>,
) -> PyResult<Option<&'a [T]>> {
    let contiguous = |array: &'a PyReadonlyArray1<'_, T>| {
        array
            .as_slice()
            .map_err(|_| invalid_argument("weights and importances must be contiguous"))
    };
    array.as_ref().map(contiguous).transpose()
}

/// About the bytes that a tensor takes on a plain grid of `step`, in the order of `geometry`.
#[pyfunction]
#[pyo3(signature = (tensor, dtype, geometry, step, *, threads=None))]
fn estimate_grid(
    py: Python<'_>,
    tensor: Bytes<'_>,
    dtype: &str,
    geometry: &GridGeometry,
    step: f32,
    threads: Option<usize>,
) -> PyResult<f64> {
    let (float, tensor) = (float_type(dtype)?, contiguous(&tensor)?);
    run(py, threads, None, |monitor| {
        let mut values = vec![0f64; float.count(tensor)?];
        f64::read_bytes(&mut values, tensor, float);
        stream::estimate(&values, &geometry.geometry, step, monitor)
    })
}

/// Decodes the stream of a tensor of `elements` elements.
#[pyfunction]
#[pyo3(signature = (stream, elements, *, threads=None, progress=None))]
fn decode_grid(
    py: Python<'_>,
    stream: Bytes<'_>,
    elements: usize,
    threads: Option<usize>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<GridTensor> {
    let stream = contiguous(&stream)?;
    let multiples = run(py, threads, progress, |monitor| {
        stream::decode(stream, elements, monitor)
    })?;
    Ok(GridTensor { multiples })
}

/// Decodes some chunks of a stream (from the first number of `chunks` to before the second, as
/// far as there are) to a type: bytes of their elements in coded order, see `grid_order`.
#[pyfunction]
#[pyo3(signature = (stream, elements, chunks, dtype, *, threads=None))]
fn decode_grid_chunks<'py>(
    py: Python<'py>,
    stream: Bytes<'py>,
    elements: usize,
    chunks: (usize, usize),
    dtype: &str,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (float, stream) = (float_type(dtype)?, contiguous(&stream)?);
    let bytes = run(py, threads, None, |monitor| {
        let range = chunks.0..chunks.1;
        let first = chunks.0;
        let multiples = stream::decode_chunks(stream, elements, range, monitor)?;
        Ok(multiples.to_coded_bytes(first, float))
    })?;
    Ok(PyArray1::from_vec(py, bytes))
}

/// `(rows, columns, transposed, chunk)` of a stream of `elements` elements, coded row by row.
///
/// Chunks hold `chunk` elements, the last one what is left. If `transposed`, element `(row,
/// column)` lies at `column * rows + row` of the tensor.
#[pyfunction]
fn grid_order(stream: Bytes<'_>, elements: usize) -> PyResult<(usize, usize, bool, usize)> {
    let (header, _) =
        stream::decode_header(contiguous(&stream)?, elements).map_err(to_python_error)?;
    let geometry = header.geometry;
    let chunk = geometry.rows_per_chunk() * geometry.columns;
    Ok((
        geometry.rows(),
        geometry.columns,
        geometry.transposed,
        chunk,
    ))
}
