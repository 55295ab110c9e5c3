//! Bindings of prepared searches and of Lloyd's update, for blocks that come in pieces.

use momos_core::motifs;
use momos_core::nearest::{self, Expected, Options};
use momos_core::{Error, Monitor};
use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::layout::rows;
use crate::nearest::{Rows, different_types, isa_named, kernel_named, values};
use crate::runtime::{invalid_argument, run, to_python_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<MotifSearch>()?;
    module.add_class::<Clusters>()?;
    module.add_function(wrap_pyfunction!(largest_block, module)?)?;
    Ok(())
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

impl MotifSearch {
    fn plan(&self) -> nearest::Plan {
        match &self.0 {
            AnySearch::Narrow(search) => search.plan(),
            AnySearch::Wide(search) => search.plan(),
        }
    }
}

fn find<T: nearest::Element>(
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

fn sized<'a, T: numpy::Element>(
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

/// Sums over the blocks of each motif, in float64 in the order of the blocks.
///
/// They depend neither on threads nor on how the blocks are divided into calls of `add`.
/// `largest` is the largest magnitude among the values of all blocks.
#[pyclass(module = "momos_rs._core")]
struct Clusters(motifs::Clusters);

#[pymethods]
impl Clusters {
    #[new]
    #[pyo3(signature = (motifs, block_size, *, largest))]
    fn new(motifs: usize, block_size: usize, largest: f64) -> PyResult<Self> {
        let clusters = motifs::Clusters::new(motifs, block_size, largest);
        clusters.map(Self).map_err(to_python_error)
    }

    /// Adds blocks (m, s) to the motifs they belong to, given the index (m,) of each.
    #[pyo3(signature = (blocks, indices, *, threads=None, progress=None))]
    fn add(
        &mut self,
        py: Python<'_>,
        blocks: &Bound<'_, PyAny>,
        indices: PyReadonlyArray1<'_, u32>,
        threads: Option<usize>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let indices = indices
            .as_slice()
            .map_err(|_| invalid_argument("indices must be C-contiguous"))?;
        let clusters = &mut self.0;
        match Rows::of("blocks", blocks)? {
            Rows::Narrow(blocks) => {
                let blocks = sized(&blocks, clusters.block_size())?;
                run(py, threads, progress, |monitor| {
                    clusters.add(blocks, indices, monitor)
                })
            }
            Rows::Wide(blocks) => {
                let blocks = sized(&blocks, clusters.block_size())?;
                run(py, threads, progress, |monitor| {
                    clusters.add(blocks, indices, monitor)
                })
            }
        }
    }

    /// Per motif the sums of its blocks' values, their number and the sum of all their squares,
    /// (k, s + 2) float64, a copy. May be set to the rows of clusters that were made alike.
    #[getter]
    fn rows<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        rows(py, self.0.rows().to_vec(), self.0.block_size() + 2)
    }

    #[setter]
    fn set_rows(&mut self, rows: PyReadonlyArray2<'_, f64>) -> PyResult<()> {
        let wanted = [self.0.motif_count(), self.0.block_size() + 2];
        if rows.shape() != wanted {
            return Err(invalid_argument(format!(
                "rows must be of shape {wanted:?}, not {:?}",
                rows.shape()
            )));
        }
        let rows = rows
            .as_slice()
            .map_err(|_| invalid_argument("rows must be C-contiguous"))?;
        self.0.rows_mut().copy_from_slice(rows);
        Ok(())
    }

    /// Forgets all blocks.
    fn clear(&mut self) {
        self.0.clear();
    }

    /// Sum of squared differences between the blocks and the motifs (k, s) they were added to.
    ///
    /// What is less than the rounding of float64 sums may have made of each motif's squares counts
    /// as none.
    #[pyo3(signature = (motifs, *, threads=None))]
    fn distortion(
        &self,
        py: Python<'_>,
        motifs: &Bound<'_, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<f64> {
        match Rows::of("motifs", motifs)? {
            Rows::Narrow(motifs) => {
                let motifs = self.checked(&motifs)?;
                run(py, threads, None, |_| Ok(self.0.distortion(motifs)))
            }
            Rows::Wide(motifs) => {
                let motifs = self.checked(&motifs)?;
                run(py, threads, None, |_| Ok(self.0.distortion(motifs)))
            }
        }
    }

    /// Forgets the blocks and returns the motifs at their means, which of them changed, (k,) bool,
    /// and the distortion there was.
    ///
    /// The first `fixed` motifs and those without blocks stay.
    #[pyo3(signature = (motifs, *, fixed=0, threads=None))]
    fn move_motifs<'py>(
        &mut self,
        py: Python<'py>,
        motifs: &Bound<'py, PyAny>,
        fixed: usize,
        threads: Option<usize>,
    ) -> PyResult<Moved<'py>> {
        let size = self.0.block_size();
        let (motifs, (moved, distortion)) = match Rows::of("motifs", motifs)? {
            Rows::Narrow(motifs) => {
                let mut motifs = self.checked(&motifs)?.to_vec();
                let moved = run(py, threads, None, |_| {
                    Ok(self.0.move_motifs(&mut motifs, fixed))
                })?;
                (rows(py, motifs, size)?.into_bound_py_any(py)?, moved)
            }
            Rows::Wide(motifs) => {
                let mut motifs = self.checked(&motifs)?.to_vec();
                let moved = run(py, threads, None, |_| {
                    Ok(self.0.move_motifs(&mut motifs, fixed))
                })?;
                (rows(py, motifs, size)?.into_bound_py_any(py)?, moved)
            }
        };
        Ok((motifs, moved.into_pyarray(py), distortion))
    }
}

/// Motifs, which of them changed, and the distortion there was.
type Moved<'py> = (Bound<'py, PyAny>, Bound<'py, PyArray1<bool>>, f64);

impl Clusters {
    fn checked<'a, T: numpy::Element>(
        &self,
        motifs: &'a PyReadonlyArray2<'_, T>,
    ) -> PyResult<&'a [T]> {
        let (count, wanted) = (motifs.shape()[0], self.0.motif_count());
        if count != wanted {
            return Err(invalid_argument(format!(
                "there are clusters of {wanted} motifs, not {count}"
            )));
        }
        sized(motifs, self.0.block_size())
    }
}
