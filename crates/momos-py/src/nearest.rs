//! Bindings of the core's `nearest` module.

use momos_core::nearest::{self, Expected, Isa, Kernel, Options};
use momos_core::{Error, Monitor};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::arrays::{Pair, Rows, different_types, sized, values};
use crate::runtime::{invalid_argument, run};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<MotifSearch>()?;
    module.add_function(wrap_pyfunction!(nearest_motifs, module)?)?;
    module.add_function(wrap_pyfunction!(search_plan, module)?)?;
    module.add_function(wrap_pyfunction!(largest_block, module)?)?;
    Ok(())
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
                nearest_of_pair(&pair, options, monitor)
            })?
        }
        (Rows::Wide(blocks), Rows::Wide(motifs)) => {
            let pair = Pair::new(&blocks, &motifs)?;
            run(py, threads, progress, |monitor| {
                nearest_of_pair(&pair, options, monitor)
            })?
        }
        _ => return Err(different_types()),
    };
    Ok(found.into_pyarray(py))
}

fn kernel_named(name: &str) -> PyResult<Kernel> {
    let names = || Kernel::ALL.map(Kernel::name).join(", ");
    let found = Kernel::ALL.into_iter().find(|kernel| kernel.name() == name);
    found.ok_or_else(|| invalid_argument(format!("kernel must be one of {}, not {name}", names())))
}

fn isa_named(name: &str) -> PyResult<Isa> {
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

fn nearest_of_pair<T: nearest::Searchable>(
    pair: &Pair<'_, T>,
    options: Options,
    monitor: &Monitor,
) -> Result<Vec<u32>, Error> {
    nearest::nearest_motifs_with(pair.blocks, pair.motifs, pair.block_size, options, monitor)
}

/// Largest magnitude of blocks, which must be finite.
#[pyfunction]
#[pyo3(signature = (blocks, *, threads=None, progress=None))]
fn largest_block(
    py: Python<'_>,
    blocks: &Bound<'_, PyAny>,
    threads: Option<usize>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<f64> {
    match Rows::of("blocks", blocks)? {
        Rows::Narrow(blocks) => {
            let (size, blocks) = (blocks.shape()[1], values("blocks", &blocks)?);
            let largest = |_: &Monitor| nearest::largest_block(blocks, size);
            run(py, threads, progress, largest)
        }
        Rows::Wide(blocks) => {
            let (size, blocks) = (blocks.shape()[1], values("blocks", &blocks)?);
            let largest = |_: &Monitor| nearest::largest_block(blocks, size);
            run(py, threads, progress, largest)
        }
    }
}

enum AnySearch {
    Narrow(nearest::MotifSearch<'static, f32>),
    Wide(nearest::MotifSearch<'static, f64>),
}

/// Motifs made ready to be searched any number of times.
///
/// `motifs` (k, s) float32 or float64, which are copied. `blocks` is the number of blocks that
/// will be searched in all, `largest` the largest magnitude among their values; for float64 the
/// answers are those of one search of all blocks only if it is exactly that.
#[pyclass(frozen, module = "momos_rs._core")]
struct MotifSearch(AnySearch);

#[pymethods]
impl MotifSearch {
    #[new]
    #[pyo3(signature = (motifs, *, blocks, largest, kernel=None, isa=None, threads=None))]
    fn new(
        py: Python<'_>,
        motifs: &Bound<'_, PyAny>,
        blocks: usize,
        largest: f64,
        kernel: Option<&str>,
        isa: Option<&str>,
        threads: Option<usize>,
    ) -> PyResult<Self> {
        let options = Options {
            kernel: kernel.map(kernel_named).transpose()?,
            isa: isa.map(isa_named).transpose()?,
        };
        let expected = Expected { blocks, largest };
        match Rows::of("motifs", motifs)? {
            Rows::Narrow(motifs) => {
                let (size, motifs) = (motifs.shape()[1], values("motifs", &motifs)?.to_vec());
                let prepare = |monitor: &Monitor| {
                    nearest::MotifSearch::new(motifs, size, expected, options, monitor)
                };
                Ok(Self(AnySearch::Narrow(run(py, threads, None, prepare)?)))
            }
            Rows::Wide(motifs) => {
                let (size, motifs) = (motifs.shape()[1], values("motifs", &motifs)?.to_vec());
                let prepare = |monitor: &Monitor| {
                    nearest::MotifSearch::new(motifs, size, expected, options, monitor)
                };
                Ok(Self(AnySearch::Wide(run(py, threads, None, prepare)?)))
            }
        }
    }

    /// The motifs from number `first` on made ready, to be compared with the nearest of those
    /// before them by `nearest_with_added`. Arguments as of the class.
    #[staticmethod]
    #[pyo3(signature = (motifs, first, *, blocks, largest, kernel=None, isa=None, threads=None))]
    #[expect(clippy::too_many_arguments, reason = "those of the class and one more")]
    fn of_added(
        py: Python<'_>,
        motifs: &Bound<'_, PyAny>,
        first: usize,
        blocks: usize,
        largest: f64,
        kernel: Option<&str>,
        isa: Option<&str>,
        threads: Option<usize>,
    ) -> PyResult<Self> {
        let options = Options {
            kernel: kernel.map(kernel_named).transpose()?,
            isa: isa.map(isa_named).transpose()?,
        };
        let expected = Expected { blocks, largest };
        match Rows::of("motifs", motifs)? {
            Rows::Narrow(motifs) => {
                let (size, motifs) = (motifs.shape()[1], values("motifs", &motifs)?.to_vec());
                let prepare = |monitor: &Monitor| {
                    nearest::MotifSearch::of_added(motifs, size, first, expected, options, monitor)
                };
                Ok(Self(AnySearch::Narrow(run(py, threads, None, prepare)?)))
            }
            Rows::Wide(motifs) => {
                let (size, motifs) = (motifs.shape()[1], values("motifs", &motifs)?.to_vec());
                let prepare = |monitor: &Monitor| {
                    nearest::MotifSearch::of_added(motifs, size, first, expected, options, monitor)
                };
                Ok(Self(AnySearch::Wide(run(py, threads, None, prepare)?)))
            }
        }
    }

    /// Index of the nearest motif of every block, (m,) uint32, and their squared distance, (m,)
    /// float64, scaled by a power of two that depends on `largest` alone.
    ///
    /// `previous` (m,) uint32 are the nearest of the motifs before those of `of_added`.
    #[pyo3(signature = (blocks, *, previous=None, threads=None, progress=None))]
    fn nearest_with_added<'py>(
        &self,
        py: Python<'py>,
        blocks: &Bound<'py, PyAny>,
        previous: Option<PyReadonlyArray1<'py, u32>>,
        threads: Option<usize>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<WithDistances<'py>> {
        let previous = previous.as_ref().map(|previous| {
            previous
                .as_slice()
                .map_err(|_| invalid_argument("previous must be C-contiguous"))
        });
        let previous = previous.transpose()?;
        let (nearest, distances) = match (Rows::of("blocks", blocks)?, &self.0) {
            (Rows::Narrow(blocks), AnySearch::Narrow(search)) => {
                let blocks = sized(&blocks, search.block_size())?;
                run(py, threads, progress, |monitor| {
                    search.nearest_with_added(blocks, previous, monitor)
                })?
            }
            (Rows::Wide(blocks), AnySearch::Wide(search)) => {
                let blocks = sized(&blocks, search.block_size())?;
                run(py, threads, progress, |monitor| {
                    search.nearest_with_added(blocks, previous, monitor)
                })?
            }
            _ => return Err(different_types()),
        };
        Ok((nearest.into_pyarray(py), distances.into_pyarray(py)))
    }

    /// Squared distances of blocks (m, s) to the motifs of the given indices (m,), (m,) float64,
    /// scaled as by `nearest_with_added`.
    #[pyo3(signature = (blocks, indices, *, threads=None))]
    fn distances<'py>(
        &self,
        py: Python<'py>,
        blocks: &Bound<'py, PyAny>,
        indices: PyReadonlyArray1<'py, u32>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let indices = indices
            .as_slice()
            .map_err(|_| invalid_argument("indices must be C-contiguous"))?;
        let distances = match (Rows::of("blocks", blocks)?, &self.0) {
            (Rows::Narrow(blocks), AnySearch::Narrow(search)) => {
                let blocks = sized(&blocks, search.block_size())?;
                run(py, threads, None, |_| search.distances(blocks, indices))?
            }
            (Rows::Wide(blocks), AnySearch::Wide(search)) => {
                let blocks = sized(&blocks, search.block_size())?;
                run(py, threads, None, |_| search.distances(blocks, indices))?
            }
            _ => return Err(different_types()),
        };
        Ok(distances.into_pyarray(py))
    }

    /// Name of the kernel: the cost model's choice or, once blocks were searched, what was faster
    /// in a trial.
    #[getter]
    fn kernel(&self) -> &'static str {
        self.plan().kernel.name()
    }

    /// Name of the instruction set.
    #[getter]
    fn isa(&self) -> &'static str {
        self.plan().isa.name()
    }

    /// Index of the nearest motif of every block, (m,) uint32.
    ///
    /// With `previous` (m,) uint32, the nearest motifs before those marked by `moved` (k,) bool
    /// moved, blocks whose motif did not move are compared only with motifs that did.
    #[pyo3(signature = (blocks, *, previous=None, moved=None, threads=None, progress=None))]
    fn nearest<'py>(
        &self,
        py: Python<'py>,
        blocks: &Bound<'py, PyAny>,
        previous: Option<PyReadonlyArray1<'py, u32>>,
        moved: Option<PyReadonlyArray1<'py, bool>>,
        threads: Option<usize>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let history = match (&previous, &moved) {
            (Some(previous), Some(moved)) => {
                let contiguous = |name| invalid_argument(format!("{name} must be C-contiguous"));
                Some((
                    previous.as_slice().map_err(|_| contiguous("previous"))?,
                    moved.as_slice().map_err(|_| contiguous("moved"))?,
                ))
            }
            (None, None) => None,
            _ => return Err(invalid_argument("previous and moved belong together")),
        };
        let found = match (Rows::of("blocks", blocks)?, &self.0) {
            (Rows::Narrow(blocks), AnySearch::Narrow(search)) => {
                let blocks = sized(&blocks, search.block_size())?;
                run(py, threads, progress, |monitor| {
                    find(search, blocks, history, monitor)
                })?
            }
            (Rows::Wide(blocks), AnySearch::Wide(search)) => {
                let blocks = sized(&blocks, search.block_size())?;
                run(py, threads, progress, |monitor| {
                    find(search, blocks, history, monitor)
                })?
            }
            _ => return Err(different_types()),
        };
        Ok(found.into_pyarray(py))
    }
}

/// Nearest motifs and their squared distances.
type WithDistances<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<f64>>);

impl MotifSearch {
    fn plan(&self) -> nearest::Plan {
        match &self.0 {
            AnySearch::Narrow(search) => search.plan(),
            AnySearch::Wide(search) => search.plan(),
        }
    }
}

fn find<T: nearest::Searchable>(
    search: &nearest::MotifSearch<'_, T>,
    blocks: &[T],
    history: Option<(&[u32], &[bool])>,
    monitor: &Monitor,
) -> Result<Vec<u32>, Error> {
    match history {
        Some((previous, moved)) => search.nearest_again(blocks, previous, moved, monitor),
        None => search.nearest(blocks, monitor),
    }
}
