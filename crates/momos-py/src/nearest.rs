//! Bindings of the core's `nearest` and `motifs` modules.

use momos_core::motifs::{self, Refined};
use momos_core::nearest::{self, Element, Isa, Kernel, Options};
use momos_core::{Error, Monitor};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::layout::rows;
use crate::runtime::{invalid_argument, run};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(nearest_motifs, module)?)?;
    module.add_function(wrap_pyfunction!(search_plan, module)?)?;
    module.add_function(wrap_pyfunction!(select_blocks, module)?)?;
    module.add_function(wrap_pyfunction!(lloyd, module)?)?;
    module.add_function(wrap_pyfunction!(distinct_blocks, module)?)?;
    Ok(())
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

/// Blocks and motifs of one type and block size.
struct Pair<'a, T> {
    blocks: &'a [T],
    motifs: &'a [T],
    block_size: usize,
}

impl<'a, T: numpy::Element> Pair<'a, T> {
    fn new(
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

impl<T: Element> Pair<'_, T> {
    fn nearest(&self, options: Options, monitor: &Monitor) -> Result<Vec<u32>, Error> {
        let Self {
            blocks,
            motifs,
            block_size,
        } = *self;
        nearest::nearest_motifs_with(blocks, motifs, block_size, options, monitor)
    }

    fn lloyd(
        &self,
        iterations: usize,
        fixed_zero: bool,
        monitor: &Monitor,
    ) -> Result<Refined<T>, Error> {
        let Self {
            blocks,
            motifs,
            block_size,
        } = *self;
        motifs::lloyd(blocks, motifs, block_size, iterations, fixed_zero, monitor)
    }
}

/// The error for blocks and motifs of different types.
pub fn different_types() -> PyErr {
    invalid_argument("blocks and motifs must both be float32 or both be float64")
}

/// Index of the nearest motif of every block, (m,) uint32.
///
/// `blocks` (m, s) and `motifs` (k, s) are float32 or float64, both C-contiguous. `kernel` and
/// `isa` override the cost model's choice. Progress counts blocks.
#[pyfunction]
#[pyo3(signature = (blocks, motifs, *, kernel=None, isa=None, threads=None, progress=None))]
fn nearest_motifs<'py>(
    py: Python<'py>,
    blocks: &Bound<'py, PyAny>,
    motifs: &Bound<'py, PyAny>,
    kernel: Option<&str>,
    isa: Option<&str>,
    threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<u32>>> {
    let options = Options {
        kernel: kernel.map(kernel_named).transpose()?,
        isa: isa.map(isa_named).transpose()?,
    };
    let found = match (Rows::of("blocks", blocks)?, Rows::of("motifs", motifs)?) {
        (Rows::Narrow(blocks), Rows::Narrow(motifs)) => {
            let pair = Pair::new(&blocks, &motifs)?;
            run(py, threads, progress, |monitor| {
                pair.nearest(options, monitor)
            })?
        }
        (Rows::Wide(blocks), Rows::Wide(motifs)) => {
            let pair = Pair::new(&blocks, &motifs)?;
            run(py, threads, progress, |monitor| {
                pair.nearest(options, monitor)
            })?
        }
        _ => return Err(different_types()),
    };
    Ok(found.into_pyarray(py))
}

pub fn kernel_named(name: &str) -> PyResult<Kernel> {
    let names = || Kernel::ALL.map(Kernel::name).join(", ");
    let found = Kernel::ALL.into_iter().find(|kernel| kernel.name() == name);
    found.ok_or_else(|| invalid_argument(format!("kernel must be one of {}, not {name}", names())))
}

pub fn isa_named(name: &str) -> PyResult<Isa> {
    let names = || Isa::ALL.map(Isa::name).join(", ");
    let found = Isa::ALL.into_iter().find(|isa| isa.name() == name);
    found.ok_or_else(|| invalid_argument(format!("isa must be one of {}, not {name}", names())))
}

/// The kernel and the instruction set that a search of m blocks among k different motifs of s
/// values would use, by name.
#[pyfunction]
fn search_plan(m: usize, k: usize, s: usize) -> (&'static str, &'static str) {
    let plan = nearest::plan(m, k, s);
    (plan.kernel.name(), plan.isa.name())
}

/// Ascending indices of the blocks that become motifs, uint64: k of m, or k - 1 with `force_zero`.
#[pyfunction]
#[pyo3(signature = (m, k, seed, *, force_zero=false, threads=None, progress=None))]
fn select_blocks<'py>(
    py: Python<'py>,
    m: usize,
    k: usize,
    seed: u64,
    force_zero: bool,
    threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let select = |_: &Monitor| motifs::select(m, k, seed, force_zero);
    Ok(run(py, threads, progress, select)?.into_pyarray(py))
}

type LloydResult<'py> = (Bound<'py, PyAny>, Bound<'py, PyArray1<u32>>, Vec<f64>);

/// Motifs refined by at most `iterations` of Lloyd's algorithm, each block's nearest of them, and
/// the distortion before and after each iteration.
///
/// Arrays as in `nearest_motifs`. Progress counts blocks, m for each of `iterations + 1` searches.
#[pyfunction]
#[pyo3(signature = (blocks, motifs, iterations, *, fixed_zero=false, threads=None, progress=None))]
fn lloyd<'py>(
    py: Python<'py>,
    blocks: &Bound<'py, PyAny>,
    motifs: &Bound<'py, PyAny>,
    iterations: usize,
    fixed_zero: bool,
    threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<LloydResult<'py>> {
    let (moved, indices, distortions) =
        match (Rows::of("blocks", blocks)?, Rows::of("motifs", motifs)?) {
            (Rows::Narrow(blocks), Rows::Narrow(motifs)) => {
                let pair = Pair::new(&blocks, &motifs)?;
                let refine = |monitor: &Monitor| pair.lloyd(iterations, fixed_zero, monitor);
                let refined = run(py, threads, progress, refine)?;
                let moved = rows(py, refined.motifs, pair.block_size)?.into_bound_py_any(py)?;
                (moved, refined.indices, refined.distortions)
            }
            (Rows::Wide(blocks), Rows::Wide(motifs)) => {
                let pair = Pair::new(&blocks, &motifs)?;
                let refine = |monitor: &Monitor| pair.lloyd(iterations, fixed_zero, monitor);
                let refined = run(py, threads, progress, refine)?;
                let moved = rows(py, refined.motifs, pair.block_size)?.into_bound_py_any(py)?;
                (moved, refined.indices, refined.distortions)
            }
            _ => return Err(different_types()),
        };
    Ok((moved, indices.into_pyarray(py), distortions))
}

type DistinctResult<'py> = Option<(Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u32>>)>;

/// First occurrence of each different block (uint64, ascending) and which of them every block is
/// ((m,) uint32), or None if there are more than `limit`. Told apart by bit pattern.
#[pyfunction]
#[pyo3(signature = (blocks, limit, *, threads=None, progress=None))]
fn distinct_blocks<'py>(
    py: Python<'py>,
    blocks: &Bound<'py, PyAny>,
    limit: usize,
    threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<DistinctResult<'py>> {
    let found = match Rows::of("blocks", blocks)? {
        Rows::Narrow(blocks) => {
            let (size, blocks) = (blocks.shape()[1], values("blocks", &blocks)?);
            let find = |monitor: &Monitor| motifs::distinct(blocks, size, limit, monitor);
            run(py, threads, progress, find)?
        }
        Rows::Wide(blocks) => {
            let (size, blocks) = (blocks.shape()[1], values("blocks", &blocks)?);
            let find = |monitor: &Monitor| motifs::distinct(blocks, size, limit, monitor);
            run(py, threads, progress, find)?
        }
    };
    Ok(found.map(|found| {
        let first = found
            .first
            .into_iter()
            .map(|index| index as u64)
            .collect::<Vec<_>>();
        (first.into_pyarray(py), found.indices.into_pyarray(py))
    }))
}
