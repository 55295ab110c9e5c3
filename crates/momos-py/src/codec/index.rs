//! Bindings of the core's `codec::index` module, and of the tree that paths go through.

use std::sync::Arc;

use momos_core::codec::entropy::prefix_code::PrefixCode;
use momos_core::codec::index::paths::{self, Effort};
use momos_core::codec::index::{fixed_width, indices};
use momos_core::codec::motifs::tree::MotifTree as Tree;
use momos_core::limits::BLOCKS_PER_CHUNK;
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::arrays::{ByteArray, Bytes, contiguous, float_type};
use crate::runtime::{invalid_argument, run, to_python_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<IndexEncoder>()?;
    module.add_class::<IndexCode>()?;
    module.add_class::<MotifTree>()?;
    module.add_function(wrap_pyfunction!(trial_blocks, module)?)?;
    Ok(())
}

/// Which of a tensor's blocks (first and one past the last) show how to code it.
#[pyfunction]
fn trial_blocks(blocks: usize) -> (usize, usize) {
    let trial = paths::trial(blocks);
    (trial.start, trial.end)
}

/// Codes the indices of one tensor piece by piece.
///
/// The stream is `head`, the lengths of all chunks but the last (u32, little-endian) and the
/// chunks; if that is not shorter than `worst_case`, it is `fixed_head` and what `encode_fixed`
/// gives. Pieces hold a multiple of `blocks_per_piece` indices, the last one what is left.
#[pyclass(frozen, module = "momos_rs._core")]
struct IndexEncoder {
    coding: Coding,
}

enum Coding {
    Prefix(Arc<PrefixCode>),
    Paths(paths::Coding, Arc<Tree>),
}

impl IndexEncoder {
    fn motifs(&self) -> usize {
        match &self.coding {
            Coding::Prefix(code) => code.symbols(),
            Coding::Paths(_, tree) => tree.motifs(),
        }
    }
}

#[pymethods]
impl IndexEncoder {
    /// What the stream begins with.
    #[getter]
    fn head<'py>(&self, py: Python<'py>) -> ByteArray<'py> {
        PyArray1::from_vec(
            py,
            match &self.coding {
                Coding::Prefix(_) => indices::PREFIX_CODE_HEAD.to_vec(),
                Coding::Paths(coding, _) => coding.head(),
            },
        )
    }

    /// Indices in a chunk.
    #[getter]
    fn blocks_per_piece(&self) -> usize {
        match &self.coding {
            Coding::Prefix(_) => BLOCKS_PER_CHUNK,
            Coding::Paths(coding, _) => coding.blocks_per_chunk(),
        }
    }

    /// The size from which on a stream of `blocks` indices has a fixed width instead.
    fn worst_case(&self, blocks: usize) -> usize {
        indices::worst_case(blocks, self.motifs())
    }

    /// The chunks of a piece (uint8), and the length of each (uint32).
    #[pyo3(signature = (indices, *, threads=None, progress=None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        indices: PyReadonlyArray1<'py, u32>,
        threads: Option<usize>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(ByteArray<'py>, Bound<'py, PyArray1<u32>>)> {
        let indices = indices
            .as_slice()
            .map_err(|_| invalid_argument("indices must be contiguous"))?;
        let (payload, lengths) = run(py, threads, progress, |monitor| {
            let chunks = match &self.coding {
                Coding::Prefix(code) => indices::encode_chunks(indices, code, monitor)?,
                Coding::Paths(coding, tree) => {
                    indices::check_indices(indices, tree.motifs())?;
                    coding.encode(indices, tree, monitor)?
                }
            };
            let lengths = chunks.iter().map(|chunk| chunk.len() as u32).collect();
            Ok((chunks.concat(), lengths))
        })?;
        Ok((
            PyArray1::from_vec(py, payload),
            PyArray1::from_vec(py, lengths),
        ))
    }

    /// A piece in fixed width, without the codec's byte; it holds a multiple of 8 indices, or is
    /// the last.
    #[pyo3(signature = (indices, *, threads=None))]
    fn encode_fixed<'py>(
        &self,
        py: Python<'py>,
        indices: PyReadonlyArray1<'py, u32>,
        threads: Option<usize>,
    ) -> PyResult<ByteArray<'py>> {
        let indices = indices
            .as_slice()
            .map_err(|_| invalid_argument("indices must be contiguous"))?;
        let motifs = self.motifs();
        let payload = run(py, threads, None, |_| {
            indices::check_indices(indices, motifs)?;
            Ok(fixed_width::encode(indices, motifs))
        })?;
        Ok(PyArray1::from_vec(py, payload))
    }

    /// What a stream in fixed width begins with.
    #[getter]
    fn fixed_head<'py>(&self, py: Python<'py>) -> ByteArray<'py> {
        PyArray1::from_vec(py, indices::encode_fixed_width(&[], 1))
    }
}

/// The prefix code of a mosaic's indices, known from the number of motifs of each code length.
#[pyclass(frozen, module = "momos_rs._core")]
struct IndexCode {
    code: Arc<PrefixCode>,
}

#[pymethods]
impl IndexCode {
    #[new]
    fn new(length_counts: Vec<u64>) -> PyResult<Self> {
        let code = PrefixCode::from_length_counts(&length_counts).map_err(to_python_error)?;
        Ok(Self {
            code: Arc::new(code),
        })
    }

    /// Codes the indices of one tensor (canonical numbers) piece by piece.
    fn encoder(&self) -> IndexEncoder {
        IndexEncoder {
            coding: Coding::Prefix(Arc::clone(&self.code)),
        }
    }

    /// Number of motifs.
    #[getter]
    fn motifs(&self) -> usize {
        self.code.symbols()
    }

    /// The stream of a tensor's indices (uint32, canonical numbers), as uint8.
    #[pyo3(signature = (indices, *, threads=None, progress=None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        indices: PyReadonlyArray1<'py, u32>,
        threads: Option<usize>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<u8>>> {
        let indices = indices
            .as_slice()
            .map_err(|_| invalid_argument("indices must be contiguous"))?;
        let stream = run(py, threads, progress, |monitor| {
            indices::encode(indices, &self.code, monitor)
        })?;
        Ok(PyArray1::from_vec(py, stream))
    }

    /// The `blocks` indices of a stream, as uint32, or those from the first number of `part` to
    /// before the second.
    #[pyo3(signature = (stream, blocks, *, part=None, threads=None, progress=None))]
    fn decode<'py>(
        &self,
        py: Python<'py>,
        stream: Bytes<'py>,
        blocks: usize,
        part: Option<(usize, usize)>,
        threads: Option<usize>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let stream = contiguous(&stream)?;
        let (start, stop) = part.unwrap_or((0, blocks));
        let out = run(py, threads, progress, |monitor| {
            indices::decode_part(stream, blocks, start..stop, &self.code, monitor)
        })?;
        Ok(PyArray1::from_vec(py, out))
    }

    /// Blocks that are decoded together, the same for every stream.
    #[expect(unused_variables, reason = "named as that of MotifTree")]
    fn blocks_per_chunk(&self, stream: Bytes<'_>) -> usize {
        BLOCKS_PER_CHUNK
    }

    /// Largest size in bytes of the stream of `blocks` indices.
    fn worst_case(&self, blocks: usize) -> usize {
        indices::worst_case(blocks, self.code.symbols())
    }

    fn __repr__(&self) -> String {
        format!(
            "IndexCode(motifs={}, longest={} bits)",
            self.code.symbols(),
            self.code.longest()
        )
    }
}

fn effort_named(name: &str) -> PyResult<Effort> {
    match name {
        "default" => Ok(Effort::Default),
        "best" => Ok(Effort::Best),
        _ => Err(invalid_argument(format!(
            "effort must be default or best, not {name}"
        ))),
    }
}

/// The tree over a table of motifs (bytes, row by row), in which indices are paths.
#[pyclass(frozen, module = "momos_rs._core")]
struct MotifTree {
    tree: Arc<Tree>,
}

#[pymethods]
impl MotifTree {
    #[new]
    fn new(py: Python<'_>, table: Bytes<'_>, block_size: usize, dtype: &str) -> PyResult<Self> {
        let (float, table) = (float_type(dtype)?, contiguous(&table)?);
        let tree = run(py, None, None, |_| Tree::new(table, block_size, float))?;
        Ok(Self {
            tree: Arc::new(tree),
        })
    }

    /// Codes the places of one tensor piece by piece; `trial` (uint32) are those of its
    /// `trial_blocks`, the other arguments are as for `encode`.
    #[pyo3(signature = (trial, *, row_blocks=0, effort="default"))]
    fn encoder(
        &self,
        py: Python<'_>,
        trial: PyReadonlyArray1<'_, u32>,
        row_blocks: usize,
        effort: &str,
    ) -> PyResult<IndexEncoder> {
        let trial = trial
            .as_slice()
            .map_err(|_| invalid_argument("places must be contiguous"))?;
        let effort = effort_named(effort)?;
        let coding = run(py, None, None, |_| {
            indices::check_indices(trial, self.tree.motifs())?;
            Ok(paths::Coding::new(trial, &self.tree, row_blocks, effort))
        })?;
        Ok(IndexEncoder {
            coding: Coding::Paths(coding, Arc::clone(&self.tree)),
        })
    }

    /// Number of motifs.
    #[getter]
    fn motifs(&self) -> usize {
        self.tree.motifs()
    }

    /// The row in the table of the motif at each place, as uint32.
    #[getter]
    fn rows<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        PyArray1::from_slice(py, self.tree.rows())
    }

    /// The stream of the places of a tensor's blocks (uint32), as uint8.
    ///
    /// `row_blocks` is the number of blocks in a row of the tensor, 0 if rows are not whole blocks;
    /// `effort` is "default" or "best".
    #[pyo3(signature = (places, *, row_blocks=0, effort="default", threads=None, progress=None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        places: PyReadonlyArray1<'py, u32>,
        row_blocks: usize,
        effort: &str,
        threads: Option<usize>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<u8>>> {
        let places = places
            .as_slice()
            .map_err(|_| invalid_argument("places must be contiguous"))?;
        let effort = effort_named(effort)?;
        let stream = run(py, threads, progress, |monitor| {
            paths::encode(places, &self.tree, row_blocks, effort, monitor)
        })?;
        Ok(PyArray1::from_vec(py, stream))
    }

    /// The places of the `blocks` blocks of a stream, as uint32, or those from the first number of `part` to
    /// before the second.
    #[pyo3(signature = (stream, blocks, *, part=None, threads=None, progress=None))]
    fn decode<'py>(
        &self,
        py: Python<'py>,
        stream: Bytes<'py>,
        blocks: usize,
        part: Option<(usize, usize)>,
        threads: Option<usize>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let stream = contiguous(&stream)?;
        let (start, stop) = part.unwrap_or((0, blocks));
        let places = run(py, threads, progress, |monitor| {
            paths::decode_part(stream, blocks, start..stop, &self.tree, monitor)
        })?;
        Ok(PyArray1::from_vec(py, places))
    }

    /// Blocks of a stream that are decoded together.
    fn blocks_per_chunk(&self, stream: Bytes<'_>) -> PyResult<usize> {
        paths::blocks_per_chunk(contiguous(&stream)?).map_err(to_python_error)
    }

    fn __repr__(&self) -> String {
        format!(
            "MotifTree(motifs={}, depth={})",
            self.tree.motifs(),
            self.tree.depth()
        )
    }
}
