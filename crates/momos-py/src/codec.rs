//! Bindings of the core's `codec` module.

use std::sync::Arc;

use momos_core::codec::motif_tree::MotifTree as Tree;
use momos_core::codec::paths::{self, Effort};
use momos_core::codec::planes::Rotation;
use momos_core::codec::prefix_code::PrefixCode;
use momos_core::codec::{
    self, fixed_width, float_coder, indices, motif_coder, motif_table, planes, repeats,
};
use momos_core::limits::BLOCKS_PER_CHUNK;
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::arrays::{Bytes, contiguous, float_type};
use crate::runtime::{invalid_argument, run, to_python_error};

/// Bytes made for Python.
type ByteArray<'py> = Bound<'py, PyArray1<u8>>;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(digest, module)?)?;
    module.add_function(wrap_pyfunction!(canonical_order, module)?)?;
    module.add_function(wrap_pyfunction!(sorted_order, module)?)?;
    module.add_function(wrap_pyfunction!(encode_motifs, module)?)?;
    module.add_function(wrap_pyfunction!(decode_motifs, module)?)?;
    module.add_function(wrap_pyfunction!(regroup_motifs, module)?)?;
    module.add_function(wrap_pyfunction!(restore_motifs, module)?)?;
    module.add_function(wrap_pyfunction!(encode_floats, module)?)?;
    module.add_function(wrap_pyfunction!(decode_floats, module)?)?;
    module.add_function(wrap_pyfunction!(split_planes, module)?)?;
    module.add_function(wrap_pyfunction!(join_planes, module)?)?;
    module.add_function(wrap_pyfunction!(sample_repeats, module)?)?;
    module.add_function(wrap_pyfunction!(trial_blocks, module)?)?;
    module.add_class::<Digest>()?;
    module.add_class::<RepeatSampler>()?;
    module.add_class::<IndexEncoder>()?;
    module.add_class::<IndexCode>()?;
    module.add_class::<MotifTree>()?;
    Ok(())
}

/// The XXH3-128 digest of bytes (1-D uint8), as 32 hexadecimal digits.
#[pyfunction]
fn digest(py: Python<'_>, data: Bytes<'_>) -> PyResult<String> {
    let data = contiguous(&data)?;
    run(py, None, None, |_| Ok(codec::digest(data)))
}

/// The digest of bytes that come one after another, as `digest` gives it.
#[pyclass(module = "momos_rs._core")]
struct Digest {
    digest: codec::Digest,
}

#[pymethods]
impl Digest {
    #[new]
    fn new() -> Self {
        Self {
            digest: codec::Digest::new(),
        }
    }

    /// Takes further bytes (1-D uint8) in.
    fn update(&mut self, py: Python<'_>, data: Bytes<'_>) -> PyResult<()> {
        let data = contiguous(&data)?;
        let digest = &mut self.digest;
        run(py, None, None, |_| {
            digest.update(data);
            Ok(())
        })
    }

    /// The digest of all bytes so far, as 32 hexadecimal digits.
    fn hexdigest(&self) -> String {
        self.digest.finish()
    }
}

/// The order of a mosaic's motifs in an archive.
///
/// `table` holds the motifs' elements as bytes, `counts` (uint64) how many blocks each represents.
/// Returns the old numbers of the motifs in use in their new order (uint32), and the number of
/// motifs of each code length.
#[pyfunction]
fn canonical_order<'py>(
    py: Python<'py>,
    table: Bytes<'py>,
    block_size: usize,
    dtype: &str,
    counts: PyReadonlyArray1<'py, u64>,
) -> PyResult<(Bound<'py, PyArray1<u32>>, Vec<u64>)> {
    let float = float_type(dtype)?;
    let table = contiguous(&table)?;
    let counts = counts
        .as_slice()
        .map_err(|_| invalid_argument("counts must be contiguous"))?;
    let canonical = run(py, None, None, |_| {
        motif_table::canonical_order(table, block_size, float, counts)
    })?;
    Ok((
        PyArray1::from_vec(py, canonical.order),
        canonical.length_counts,
    ))
}

/// The old numbers (uint32) of the motifs in use, sorted by value.
///
/// Arguments as for `canonical_order`.
#[pyfunction]
fn sorted_order<'py>(
    py: Python<'py>,
    table: Bytes<'py>,
    block_size: usize,
    dtype: &str,
    counts: PyReadonlyArray1<'py, u64>,
) -> PyResult<Bound<'py, PyArray1<u32>>> {
    let (float, table) = (float_type(dtype)?, contiguous(&table)?);
    let counts = counts
        .as_slice()
        .map_err(|_| invalid_argument("counts must be contiguous"))?;
    let order = run(py, None, None, |_| {
        motif_table::sorted_order(table, block_size, float, counts)
    })?;
    Ok(PyArray1::from_vec(py, order))
}

/// The stream of a table of motifs (bytes), best sorted by value; all values are multiples of
/// `step` if there is one.
#[pyfunction]
#[pyo3(signature = (table, block_size, dtype, motifs, *, step=None))]
fn encode_motifs<'py>(
    py: Python<'py>,
    table: Bytes<'py>,
    block_size: usize,
    dtype: &str,
    motifs: usize,
    step: Option<f64>,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (float, table) = (float_type(dtype)?, contiguous(&table)?);
    let stream = run(py, None, None, |monitor| {
        motif_coder::encode(table, block_size, float, motifs, step, monitor)
    })?;
    Ok(PyArray1::from_vec(py, stream))
}

/// Inverts `encode_motifs`.
#[pyfunction]
fn decode_motifs<'py>(
    py: Python<'py>,
    stream: Bytes<'py>,
    block_size: usize,
    dtype: &str,
    motifs: usize,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (float, stream) = (float_type(dtype)?, contiguous(&stream)?);
    let table = run(py, None, None, |monitor| {
        motif_coder::decode(stream, block_size, float, motifs, monitor)
    })?;
    Ok(PyArray1::from_vec(py, table))
}

/// Regroups a table of motifs (bytes) for a general compressor.
#[pyfunction]
fn regroup_motifs<'py>(
    py: Python<'py>,
    table: Bytes<'py>,
    block_size: usize,
    dtype: &str,
    motifs: usize,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (float, table) = (float_type(dtype)?, contiguous(&table)?);
    let out = run(py, None, None, |_| {
        motif_table::regroup(table, block_size, float, motifs)
    })?;
    Ok(PyArray1::from_vec(py, out))
}

/// Inverts `regroup_motifs`.
#[pyfunction]
fn restore_motifs<'py>(
    py: Python<'py>,
    regrouped: Bytes<'py>,
    block_size: usize,
    dtype: &str,
    motifs: usize,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (float, regrouped) = (float_type(dtype)?, contiguous(&regrouped)?);
    let out = run(py, None, None, |_| {
        motif_table::restore(regrouped, block_size, float, motifs)
    })?;
    Ok(PyArray1::from_vec(py, out))
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
        float_coder::encode(data, size, monitor)
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
        float_coder::decode(modelled, planes, elements, size, monitor)
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
        planes::split(data, size, rotation(rotate))
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
        planes::join(data, size, rotation(rotate))
    })?;
    Ok(PyArray1::from_vec(py, out))
}

/// Samples the contents of the blocks of tensors (bytes and bytes per element): how many different
/// blocks are in the sample, and one in how many contents is.
#[pyfunction]
#[pyo3(signature = (tensors, block_size, *, threads=None))]
fn sample_repeats(
    py: Python<'_>,
    tensors: Vec<(Bytes<'_>, usize)>,
    block_size: usize,
    threads: Option<usize>,
) -> PyResult<(usize, usize)> {
    let tensors: Vec<(&[u8], usize)> = tensors
        .iter()
        .map(|(bytes, itemsize)| Ok((contiguous(bytes)?, (*itemsize).max(1))))
        .collect::<PyResult<_>>()?;
    let repeats = run(py, threads, None, |monitor| {
        repeats::sample(&tensors, block_size, monitor)
    })?;
    Ok((repeats.distinct, repeats.one_in))
}

/// As `sample_repeats`, of tensors that come one after another, in pieces of whole blocks;
/// `blocks` is the number of whole blocks in all.
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
            sampler.add(data, itemsize.max(1), monitor)
        })
    }

    /// How many different blocks are in the sample, and one in how many contents is.
    #[getter]
    fn repeats(&self) -> (usize, usize) {
        let repeats = self.sampler.repeats();
        (repeats.distinct, repeats.one_in)
    }
}

fn rotation(rotate: bool) -> Rotation {
    if rotate {
        Rotation::Left
    } else {
        Rotation::None
    }
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
    /// `row_blocks` is the number of blocks in a row of the tensor, 0 if rows are no whole blocks;
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
