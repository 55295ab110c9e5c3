//! Bindings of the core's `motifs` module that keep something between calls.

use momos_core::motifs::DistinctBlocks as Distinct;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::layout::rows;
use crate::runtime::{invalid_argument, run, to_python_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<DistinctBlocks>()
}

/// The different blocks among those that come one after another, told apart by bit pattern and
/// numbered by first occurrence; at most `limit`. Blocks are float64 if `wide`, else float32.
#[pyclass(module = "momos_rs._core")]
struct DistinctBlocks {
    block_size: usize,
    set: Set,
}

enum Set {
    Narrow(Distinct<f32>),
    Wide(Distinct<f64>),
}

#[pymethods]
impl DistinctBlocks {
    #[new]
    #[pyo3(signature = (block_size, limit, *, wide=false))]
    fn new(block_size: usize, limit: usize, wide: bool) -> PyResult<Self> {
        let set = if wide {
            Distinct::new(block_size, limit).map(Set::Wide)
        } else {
            Distinct::new(block_size, limit).map(Set::Narrow)
        };
        Ok(Self {
            block_size,
            set: set.map_err(to_python_error)?,
        })
    }

    /// Which of the different blocks each of the given ones is, (m,) uint32, or None once there
    /// are more than the limit.
    #[pyo3(signature = (blocks, *, threads=None, progress=None))]
    fn add<'py>(
        &mut self,
        py: Python<'py>,
        blocks: &Bound<'py, PyAny>,
        threads: Option<usize>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyArray1<u32>>>> {
        let size = self.block_size;
        let numbers = match &mut self.set {
            Set::Narrow(set) => {
                let blocks: PyReadonlyArray2<'py, f32> = blocks.extract()?;
                let values = values(&blocks, size)?;
                run(py, threads, progress, |monitor| set.add(values, monitor))?
            }
            Set::Wide(set) => {
                let blocks: PyReadonlyArray2<'py, f64> = blocks.extract()?;
                let values = values(&blocks, size)?;
                run(py, threads, progress, |monitor| set.add(values, monitor))?
            }
        };
        Ok(numbers.map(|numbers| numbers.into_pyarray(py)))
    }

    /// The different blocks so far, (rows, s).
    #[getter]
    fn rows<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &self.set {
            Set::Narrow(set) => {
                rows(py, set.rows().to_vec(), self.block_size)?.into_bound_py_any(py)
            }
            Set::Wide(set) => rows(py, set.rows().to_vec(), self.block_size)?.into_bound_py_any(py),
        }
    }
}

fn values<'a, T: numpy::Element>(
    blocks: &'a PyReadonlyArray2<'_, T>,
    block_size: usize,
) -> PyResult<&'a [T]> {
    if blocks.shape()[1] != block_size {
        return Err(invalid_argument(format!(
            "blocks have {} values each, not {block_size}",
            blocks.shape()[1]
        )));
    }
    blocks
        .as_slice()
        .map_err(|_| invalid_argument("blocks must be C-contiguous"))
}
