//! Bindings of the core's `motifs` module.

use momos_core::motifs::{self, DistinctBlocks as Distinct, Refined, repeats};
use momos_core::nearest::Searchable;
use momos_core::{Error, Monitor};
use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::arrays::{Bytes, Pair, Rows, contiguous, different_types, rows, sized, values};
use crate::runtime::{invalid_argument, run, to_python_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<WeightedDraw>()?;
    module.add_class::<DistinctBlocks>()?;
    module.add_class::<Clusters>()?;
    module.add_class::<RepeatSampler>()?;
    module.add_function(wrap_pyfunction!(select_blocks, module)?)?;
    module.add_function(wrap_pyfunction!(lloyd, module)?)?;
    module.add_function(wrap_pyfunction!(distinct_blocks, module)?)?;
    Ok(())
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
                let refine =
                    |monitor: &Monitor| refine_pair(&pair, iterations, fixed_zero, monitor);
                let refined = run(py, threads, progress, refine)?;
                let moved = rows(py, refined.motifs, pair.block_size)?.into_bound_py_any(py)?;
                (moved, refined.indices, refined.distortions)
            }
            (Rows::Wide(blocks), Rows::Wide(motifs)) => {
                let pair = Pair::new(&blocks, &motifs)?;
                let refine =
                    |monitor: &Monitor| refine_pair(&pair, iterations, fixed_zero, monitor);
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

fn refine_pair<T: Searchable>(
    pair: &Pair<'_, T>,
    iterations: usize,
    fixed_zero: bool,
    monitor: &Monitor,
) -> Result<Refined<T>, Error> {
    let Pair {
        blocks,
        motifs,
        block_size,
    } = *pair;
    motifs::lloyd(blocks, motifs, block_size, iterations, fixed_zero, monitor)
}

/// Items drawn without replacement, with probabilities in proportion to their weights; at most
/// `wanted`. Those of weight 0 are never drawn.
///
/// Item i has the key `-ln(u) / weight`, where u in (0, 1) follows from i, `seed` and `round`
/// alone, and the smallest keys are drawn, the lowest index among equals.
#[pyclass(module = "momos_rs._core")]
struct WeightedDraw(motifs::WeightedDraw);

#[pymethods]
impl WeightedDraw {
    #[new]
    #[pyo3(signature = (wanted, seed, round))]
    fn new(wanted: usize, seed: u64, round: u64) -> Self {
        Self(motifs::WeightedDraw::new(wanted, seed, round))
    }

    /// Adds items, given the index of the first and the weight of each, (n,) float64.
    #[pyo3(signature = (first, weights, *, threads=None))]
    fn add(
        &mut self,
        py: Python<'_>,
        first: u64,
        weights: PyReadonlyArray1<'_, f64>,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let weights = weights
            .as_slice()
            .map_err(|_| invalid_argument("weights must be C-contiguous"))?;
        let draw = &mut self.0;
        run(py, threads, None, |monitor| {
            draw.add(first, weights, monitor)
        })
    }

    /// Keys (n,) float64 and indices (n,) uint64 of what is drawn, ascending by key and then by
    /// index. That of several draws together is the smallest `wanted` of theirs.
    #[getter]
    fn drawn<'py>(&self, py: Python<'py>) -> Drawn<'py> {
        let (keys, indices) = self.0.clone().finish();
        (keys.into_pyarray(py), indices.into_pyarray(py))
    }
}

type Drawn<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<u64>>);

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
                let values = values_of_size(&blocks, size)?;
                run(py, threads, progress, |monitor| set.add(values, monitor))?
            }
            Set::Wide(set) => {
                let blocks: PyReadonlyArray2<'py, f64> = blocks.extract()?;
                let values = values_of_size(&blocks, size)?;
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

fn values_of_size<'a, T: numpy::Element>(
    blocks: &'a PyReadonlyArray2<'_, T>,
    block_size: usize,
) -> PyResult<&'a [T]> {
    if blocks.shape()[1] != block_size {
        return Err(invalid_argument(format!(
            "blocks have {} values each, not {block_size}",
            blocks.shape()[1]
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

/// A sample of the contents of the blocks of tensors that come one after another, in pieces of
/// whole blocks; `blocks` is the number of whole blocks in all.
#[pyclass(module = "momos_rs._core")]
struct RepeatSampler {
    sampler: repeats::Sampler,
}

#[pymethods]
impl RepeatSampler {
    #[new]
    fn new(blocks: usize, block_size: usize) -> PyResult<Self> {
        let sampler = repeats::Sampler::new(blocks, block_size).map_err(to_python_error)?;
        Ok(Self { sampler })
    }

    /// Adds the blocks of elements of `itemsize` bytes (1-D uint8).
    #[pyo3(signature = (data, itemsize, *, threads=None))]
    fn add(
        &mut self,
        py: Python<'_>,
        data: Bytes<'_>,
        itemsize: usize,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let data = contiguous(&data)?;
        let sampler = &mut self.sampler;
        run(py, threads, None, |monitor| {
            sampler.add(data, itemsize, monitor)
        })
    }

    /// How many different blocks are in the sample, and one in how many contents is.
    #[getter]
    fn repeats(&self) -> (usize, usize) {
        let repeats = self.sampler.repeats();
        (repeats.distinct, repeats.one_in)
    }
}
