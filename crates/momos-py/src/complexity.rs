//! Bindings of the core's `complexity` module.

use momos_core::complexity::bdm;
use momos_core::complexity::ctm;
use momos_core::complexity::entropy::BlockEntropy;
use momos_core::complexity::floats::{self, Floats, WeightType};
use momos_core::complexity::perturbation::{self, Metric};
use momos_core::complexity::planes::{self, Planes};
use momos_core::complexity::quantile;
use momos_core::complexity::quantiser::Quantiser;
use momos_core::complexity::signs;
use momos_core::complexity::statistics::{self, Statistics};
use momos_core::complexity::symbols::{self, BlockCounts, Partition, Symbols};
use momos_core::complexity::tables;
use momos_core::complexity::tiled;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;

use crate::runtime::{invalid_argument, run, to_python_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SignCounter>()?;
    module.add_class::<CtmTable>()?;
    module.add_class::<BlockTally>()?;
    module.add_class::<Perturbation>()?;
    module.add_function(wrap_pyfunction!(narrow_symbols, module)?)?;
    module.add_function(wrap_pyfunction!(count_blocks, module)?)?;
    module.add_function(wrap_pyfunction!(greatest_entropy, module)?)?;
    module.add_function(wrap_pyfunction!(pack_signs, module)?)?;
    module.add_function(wrap_pyfunction!(zero_non_finite, module)?)?;
    module.add_function(wrap_pyfunction!(weight_statistics, module)?)?;
    module.add_function(wrap_pyfunction!(finite_range, module)?)?;
    module.add_function(wrap_pyfunction!(sign_plane_counts, module)?)?;
    module.add_class::<QuantileSearch>()?;
    module.add_function(wrap_pyfunction!(level_plane_complexities, module)?)?;
    module.add_function(wrap_pyfunction!(level_plane_counts, module)?)?;
    module.add_function(wrap_pyfunction!(tiled_complexity, module)?)?;
    module.add_function(wrap_pyfunction!(quantiles, module)?)?;
    module.add_function(wrap_pyfunction!(bdm_of_counts, module)?)?;
    module.add_function(wrap_pyfunction!(block_entropy, module)?)?;
    module.add_function(wrap_pyfunction!(ctm_strings, module)?)?;
    module.add_function(wrap_pyfunction!(ctm_squares, module)?)?;
    Ok(())
}

/// See `weight_statistics`.
type StatisticsTuple = (u64, u64, u64, u64, f64, f64, f64, f64);

type Bytes<'py> = PyReadonlyArray1<'py, u8>;

fn weights_in<'a>(data: &'a Bytes<'_>, dtype: &str) -> PyResult<Floats<'a>> {
    let dtype = WeightType::from_name(dtype).map_err(to_python_error)?;
    let bytes = data
        .as_slice()
        .map_err(|_| invalid_argument("the bytes of the weights must be contiguous"))?;
    Floats::new(bytes, dtype).map_err(to_python_error)
}

/// Counts the 12-bit blocks in a stream of signs (bit = weight > 0), given tensor by tensor.
#[pyclass(module = "momos_rs._core")]
#[derive(Default)]
struct SignCounter {
    counter: signs::SignCounter,
}

#[pymethods]
impl SignCounter {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Appends the signs of the weights in `data`, little-endian bytes of the type `dtype`.
    #[pyo3(signature = (data, dtype, *, threads=None))]
    fn update(
        &mut self,
        py: Python<'_>,
        data: Bytes<'_>,
        dtype: &str,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let weights = weights_in(&data, dtype)?;
        let counter = &mut self.counter;
        run(py, threads, None, |monitor| {
            counter.update(weights, monitor)
        })
    }

    /// Occurrences of every complete block: uint64 array of 4096, the block's first bit lowest.
    fn counts<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        PyArray1::from_slice(py, self.counter.counts())
    }

    /// Bits given so far; the last `bits % 12` of them are in no block.
    #[getter]
    fn bits(&self) -> u64 {
        self.counter.bits()
    }
}

/// The bits `weight > 0`, eight to a byte, the first lowest; uint8 array of `ceil(n / 8)`.
#[pyfunction]
fn pack_signs<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    dtype: &str,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let weights = weights_in(&data, dtype)?;
    let packed = run(py, None, None, |_| {
        let mut words = vec![0; weights.len().div_ceil(64)];
        signs::pack(weights, &mut words);
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        bytes.truncate(weights.len().div_ceil(8));
        Ok(bytes)
    })?;
    Ok(packed.into_pyarray(py))
}

/// The weights with NaN and infinities replaced by zero: uint8 array of the same length.
#[pyfunction]
fn zero_non_finite<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    dtype: &str,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let weights = weights_in(&data, dtype)?;
    let cleaned = run(py, None, None, |_| Ok(floats::zero_non_finite(weights)))?;
    Ok(cleaned.into_pyarray(py))
}

/// `(n, zeros, nans, infinities, min, max, sum, sum_of_squares)` of the weights; range without
/// NaN, sums over the finite ones.
///
/// `before` is what a call gave for the weights before these: weights may come in pieces of a
/// multiple of 2^18, but for the last, without a change to the sums.
#[pyfunction]
#[pyo3(signature = (data, dtype, *, before=None, threads=None))]
fn weight_statistics(
    py: Python<'_>,
    data: Bytes<'_>,
    dtype: &str,
    before: Option<StatisticsTuple>,
    threads: Option<usize>,
) -> PyResult<StatisticsTuple> {
    let weights = weights_in(&data, dtype)?;
    let before = before.map_or(
        Statistics::EMPTY,
        |(n, zeros, nans, infinities, min, max, sum, sum_of_squares)| Statistics {
            n,
            zeros,
            nans,
            infinities,
            min,
            max,
            sum,
            sum_of_squares,
        },
    );
    let all = run(py, threads, None, |monitor| before.and(weights, monitor))?;
    Ok((
        all.n,
        all.zeros,
        all.nans,
        all.infinities,
        all.min,
        all.max,
        all.sum,
        all.sum_of_squares,
    ))
}

/// `(min, max)` of the weights, None if there are none or one is not finite.
#[pyfunction]
#[pyo3(signature = (data, dtype, *, threads=None))]
fn finite_range(
    py: Python<'_>,
    data: Bytes<'_>,
    dtype: &str,
    threads: Option<usize>,
) -> PyResult<Option<(f64, f64)>> {
    let weights = weights_in(&data, dtype)?;
    run(py, threads, None, |monitor| {
        statistics::finite_range(weights, monitor)
    })
}

/// Occurrences of every 4x4 block in the signs of a matrix of `columns` columns: uint64 array of
/// 65536, the block's first element (in C order) lowest.
#[pyfunction]
#[pyo3(signature = (data, dtype, columns, *, threads=None))]
fn sign_plane_counts<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    dtype: &str,
    columns: usize,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let weights = weights_in(&data, dtype)?;
    let mut counts = run(py, threads, None, |monitor| {
        planes::count(weights, columns, Planes::Signs, monitor)
    })?;
    let counts: Vec<u64> = counts.swap_remove(0).into_iter().map(u64::from).collect();
    Ok(counts.into_pyarray(py))
}

/// The 4x4 BDM of each bit-plane, least significant first, of a matrix of `columns` columns
/// quantised to `2**bits` levels from `low` to `high`.
#[pyfunction]
#[pyo3(signature = (data, dtype, columns, bits, low, high, *, threads=None))]
#[allow(clippy::too_many_arguments)]
fn level_plane_complexities(
    py: Python<'_>,
    data: Bytes<'_>,
    dtype: &str,
    columns: usize,
    bits: u32,
    low: f64,
    high: f64,
    threads: Option<usize>,
) -> PyResult<Vec<f64>> {
    let weights = weights_in(&data, dtype)?;
    run(py, threads, None, |monitor| {
        let quantiser = Quantiser::new(weights.dtype(), low, high, bits)?;
        let table = ctm::squares(planes::WIDTH).expect("4x4 is tabulated");
        planes::count(weights, columns, Planes::Levels(quantiser), monitor)?
            .iter()
            .map(|counts| bdm::bdm(counts, table))
            .collect()
    })
}

/// Occurrences of every 4x4 block in each bit-plane, least significant first: uint64 arrays of
/// 65536; arguments as of `level_plane_complexities`.
#[pyfunction]
#[pyo3(signature = (data, dtype, columns, bits, low, high, *, threads=None))]
#[allow(clippy::too_many_arguments)]
fn level_plane_counts<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    dtype: &str,
    columns: usize,
    bits: u32,
    low: f64,
    high: f64,
    threads: Option<usize>,
) -> PyResult<Vec<Bound<'py, PyArray1<u64>>>> {
    let weights = weights_in(&data, dtype)?;
    let counts = run(py, threads, None, |monitor| {
        let quantiser = Quantiser::new(weights.dtype(), low, high, bits)?;
        planes::count(weights, columns, Planes::Levels(quantiser), monitor)
    })?;
    let wide = |counts: Vec<u32>| counts.into_iter().map(u64::from).collect::<Vec<u64>>();
    Ok(counts
        .into_iter()
        .map(|plane| wide(plane).into_pyarray(py))
        .collect())
}

/// The 4x4 BDM of the tiled manifold of a matrix; arguments as of `level_plane_complexities`.
#[pyfunction]
#[pyo3(signature = (data, dtype, columns, bits, low, high, *, threads=None))]
#[allow(clippy::too_many_arguments)]
fn tiled_complexity(
    py: Python<'_>,
    data: Bytes<'_>,
    dtype: &str,
    columns: usize,
    bits: u32,
    low: f64,
    high: f64,
    threads: Option<usize>,
) -> PyResult<f64> {
    let weights = weights_in(&data, dtype)?;
    run(py, threads, None, |monitor| {
        let quantiser = Quantiser::new(weights.dtype(), low, high, bits)?;
        let table = ctm::squares(planes::WIDTH).expect("4x4 is tabulated");
        bdm::bdm(&tiled::count(weights, columns, quantiser, monitor)?, table)
    })
}

/// Quantiles of the weights as float32, interpolated linearly as by torch.
#[pyfunction]
#[pyo3(signature = (data, dtype, qs, *, threads=None))]
fn quantiles(
    py: Python<'_>,
    data: Bytes<'_>,
    dtype: &str,
    qs: Vec<f32>,
    threads: Option<usize>,
) -> PyResult<Vec<f32>> {
    let weights = weights_in(&data, dtype)?;
    run(py, threads, None, |monitor| {
        quantile::quantiles(weights, &qs, monitor)
    })
}

/// As `quantiles`, of `n` weights that come in pieces: give all of them to `add`, `turn`, and give
/// them again.
#[pyclass(module = "momos_rs._core")]
struct QuantileSearch {
    search: quantile::QuantileSearch,
}

#[pymethods]
impl QuantileSearch {
    #[new]
    fn new(n: usize, qs: Vec<f32>) -> PyResult<Self> {
        let search = quantile::QuantileSearch::new(n, &qs).map_err(to_python_error)?;
        Ok(Self { search })
    }

    /// Takes weights in, little-endian bytes of the type `dtype`.
    #[pyo3(signature = (data, dtype, *, threads=None))]
    fn add(
        &mut self,
        py: Python<'_>,
        data: Bytes<'_>,
        dtype: &str,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let weights = weights_in(&data, dtype)?;
        let search = &mut self.search;
        run(py, threads, None, |monitor| search.add(weights, monitor))
    }

    /// Ends the first pass.
    fn turn(&mut self) -> PyResult<()> {
        self.search.turn().map_err(to_python_error)
    }

    /// The quantiles.
    fn values(&self) -> PyResult<Vec<f32>> {
        self.search.finish().map_err(to_python_error)
    }
}

/// Sum of `complexity + log2(count)` over the counts that are not 0.
#[pyfunction]
fn bdm_of_counts(
    counts: PyReadonlyArray1<'_, u64>,
    complexities: PyReadonlyArray1<'_, f64>,
) -> PyResult<f64> {
    bdm::bdm(contiguous(&counts)?, contiguous(&complexities)?).map_err(to_python_error)
}

/// `(blocks, distinct, plain, miller_madow)`: the entropy in bits of the counts.
#[pyfunction]
fn block_entropy(counts: PyReadonlyArray1<'_, u64>) -> PyResult<(u64, u64, f64, f64)> {
    let entropy = BlockEntropy::of(contiguous(&counts)?);
    Ok((
        entropy.blocks,
        entropy.distinct,
        entropy.plain,
        entropy.miller_madow(),
    ))
}

fn contiguous<'a, T: numpy::Element>(array: &'a PyReadonlyArray1<'_, T>) -> PyResult<&'a [T]> {
    array
        .as_slice()
        .map_err(|_| invalid_argument("the array must be contiguous"))
}

/// CTM complexities of the binary strings of a length from 1 to 12: float64 array of `2**length`,
/// the string's first bit lowest.
#[pyfunction]
fn ctm_strings(py: Python<'_>, length: usize) -> PyResult<Bound<'_, PyArray1<f64>>> {
    let table = ctm::strings(length).ok_or_else(|| {
        invalid_argument(format!(
            "no CTM table of binary strings of {length}, only of 1 to {}",
            ctm::MAX_STRING
        ))
    })?;
    Ok(PyArray1::from_slice(py, table))
}

/// CTM complexities of the binary squares of a width from 1 to 4: float64 array of
/// `2**(width * width)`, the square's first element (in C order) lowest.
#[pyfunction]
fn ctm_squares(py: Python<'_>, width: usize) -> PyResult<Bound<'_, PyArray1<f64>>> {
    let table = ctm::squares(width).ok_or_else(|| {
        invalid_argument(format!(
            "no CTM table of binary squares of width {width}, only of 1 to {}",
            ctm::MAX_SQUARE
        ))
    })?;
    Ok(PyArray1::from_slice(py, table))
}

/// CTM complexities of the blocks of several widths over one alphabet.
#[pyclass(module = "momos_rs._core", frozen)]
struct CtmTable {
    table: Table,
    alphabet: usize,
}

enum Table {
    Static(&'static tables::CtmTable),
    Owned(tables::CtmTable),
}

impl CtmTable {
    fn get(&self) -> &tables::CtmTable {
        match &self.table {
            Table::Static(table) => table,
            Table::Owned(table) => table,
        }
    }

    fn blocks(&self, width: usize) -> PyResult<&tables::Blocks> {
        let blocks = self.get().width(width);
        blocks.ok_or_else(|| PyKeyError::new_err(width))
    }

    /// The key of a block given as digits; `None` if it is none of this alphabet.
    fn key(&self, digits: &str) -> Option<u64> {
        let bits = symbols::key_bits(self.alphabet);
        if digits.len() * bits > 64 {
            return None;
        }
        let digits = digits.bytes().enumerate().map(|(index, digit)| {
            let symbol = digit.checked_sub(b'0')?;
            ((symbol as usize) < self.alphabet).then(|| u64::from(symbol) << (index * bits))
        });
        digits.sum()
    }
}

#[pymethods]
impl CtmTable {
    /// Binary strings of 1 to 12 symbols.
    #[staticmethod]
    fn strings() -> Self {
        Self {
            table: Table::Static(tables::CtmTable::strings()),
            alphabet: 2,
        }
    }

    /// Binary squares of width 1 to 4.
    #[staticmethod]
    fn squares() -> Self {
        Self {
            table: Table::Static(tables::CtmTable::squares()),
            alphabet: 2,
        }
    }

    /// The table in an unpacked pickle of pybdm's, strings over `alphabet` symbols.
    #[staticmethod]
    fn from_pickle(py: Python<'_>, data: &[u8], alphabet: usize) -> PyResult<Self> {
        let table = run(py, None, None, |_| {
            tables::CtmTable::from_pickle(data, alphabet)
        })?;
        Ok(Self {
            table: Table::Owned(table),
            alphabet,
        })
    }

    fn __contains__(&self, width: usize) -> bool {
        self.get().width(width).is_some()
    }

    /// Complexity of the block of that width with these digits, None if the table lacks it.
    fn complexity(&self, width: usize, digits: &str) -> PyResult<Option<f64>> {
        let blocks = self.blocks(width)?;
        Ok(self.key(digits).and_then(|key| blocks.complexity(key)))
    }

    /// Complexity of the blocks of that width that the table lacks.
    fn missing(&self, width: usize) -> PyResult<f64> {
        Ok(self.blocks(width)?.missing())
    }

    /// Number of blocks of that width whose complexity is known.
    fn known(&self, width: usize) -> PyResult<u64> {
        Ok(self.blocks(width)?.known())
    }

    /// Least and greatest BDM of `blocks` blocks of that width.
    fn bdm_range(&self, width: usize, blocks: u64) -> PyResult<(f64, f64)> {
        let table = self.blocks(width)?;
        Ok((table.least_bdm(blocks), table.greatest_bdm(blocks)))
    }
}

/// How often each block of an array occurs, by width.
#[pyclass(module = "momos_rs._core", frozen)]
struct BlockTally {
    counts: Vec<BlockCounts>,
    alphabet: usize,
    dimensions: usize,
}

#[pymethods]
impl BlockTally {
    /// `(width, blocks)` for every width that occurs.
    fn blocks(&self) -> Vec<(usize, u64)> {
        let total = |each: &BlockCounts| (each.width, each.counts.iter().sum());
        self.counts.iter().map(total).collect()
    }

    /// `(bdm, missing, first)`: the complexity by a table, the number of distinct blocks it lacks,
    /// and width and digits of the first of them.
    #[allow(clippy::type_complexity)]
    fn bdm(
        &self,
        py: Python<'_>,
        table: &CtmTable,
    ) -> PyResult<(f64, usize, Option<(usize, String)>)> {
        let found = run(py, None, None, |_| Ok(table.get().complexity(&self.counts)))?;
        let Some(found) = found else {
            let lacks = |each: &&BlockCounts| table.get().width(each.width).is_none();
            let width = self.counts.iter().find(lacks).map_or(0, |each| each.width);
            return Err(PyKeyError::new_err(width));
        };
        let first = found.first_missing;
        let first = first.map(|(width, key)| (width, self.digits(width, key)));
        Ok((found.bdm, found.missing, first))
    }

    /// Entropy in bits of the blocks of all widths.
    fn entropy(&self) -> f64 {
        let counts: Vec<u64> = self
            .counts
            .iter()
            .flat_map(|each| each.counts.iter().copied())
            .collect();
        BlockEntropy::of(&counts).plain
    }

    /// `(width, digits, count)` of every block that occurs.
    fn items(&self) -> Vec<(usize, String, u64)> {
        let mut items = Vec::new();
        for each in &self.counts {
            let pairs = each.keys.iter().zip(&each.counts);
            items.extend(
                pairs.map(|(&key, &count)| (each.width, self.digits(each.width, key), count)),
            );
        }
        items
    }
}

impl BlockTally {
    fn digits(&self, width: usize, key: u64) -> String {
        let bits = symbols::key_bits(self.alphabet);
        let elements = width.pow(self.dimensions as u32);
        let mask = (1 << bits) - 1;
        let symbols = (0..elements).map(|index| (key >> (index * bits) & mask) as u32);
        symbols
            .map(|symbol| char::from_digit(symbol, 36).expect("at most four bits"))
            .collect()
    }
}

/// Integers as symbols of eight bits, None if one is negative or not below `alphabet`.
#[pyfunction]
fn narrow_symbols<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    size: usize,
    alphabet: usize,
) -> PyResult<Option<Bound<'py, PyArray1<u8>>>> {
    let bytes = contiguous(&data)?;
    let symbols = run(py, None, None, |_| symbols::narrow(bytes, size, alphabet))?;
    Ok(symbols.map(|symbols| symbols.into_pyarray(py)))
}

/// Cuts an array of symbols of that shape into blocks, and counts them.
///
/// `partition` is "ignore", "correlated" (`parameter`: the shift) or "recursive" (the least
/// width). None if the blocks are too large to be counted here.
#[pyfunction]
#[pyo3(signature = (values, shape, alphabet, width, partition, parameter, *, threads=None))]
#[allow(clippy::too_many_arguments)]
fn count_blocks(
    py: Python<'_>,
    values: Bytes<'_>,
    shape: Vec<usize>,
    alphabet: usize,
    width: usize,
    partition: &str,
    parameter: usize,
    threads: Option<usize>,
) -> PyResult<Option<BlockTally>> {
    let partition = partition_of(partition, parameter)?;
    let values = contiguous(&values)?;
    let array = Symbols::new(values, &shape, alphabet).map_err(to_python_error)?;
    if !array.fits(width) {
        return Ok(None);
    }
    let counts = run(py, threads, None, |monitor| {
        symbols::count(array, width, partition, monitor)
    })?;
    Ok(Some(BlockTally {
        counts,
        alphabet,
        dimensions: shape.len(),
    }))
}

/// Entropy of the most varied array that has, by width, these numbers of distinct blocks.
#[pyfunction]
fn greatest_entropy(distinct_by_width: Vec<u64>) -> f64 {
    tables::greatest_entropy(&distinct_by_width)
}

fn partition_of(name: &str, parameter: usize) -> PyResult<Partition> {
    match name {
        "ignore" => Ok(Partition::Ignore),
        "correlated" => Ok(Partition::Correlated { shift: parameter }),
        "recursive" => Ok(Partition::Recursive {
            min_length: parameter,
        }),
        other => Err(invalid_argument(format!("no partition {other:?}"))),
    }
}

/// An array of symbols that is changed element by element; arguments as of `count_blocks`.
///
/// With a table the changes are those of its BDM, without one those of block entropy.
#[pyclass(module = "momos_rs._core")]
struct Perturbation {
    experiment: perturbation::Perturbation,
    table: Option<Py<CtmTable>>,
}

#[pymethods]
impl Perturbation {
    #[new]
    #[pyo3(signature = (values, shape, alphabet, width, partition, parameter, table))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        values: Bytes<'_>,
        shape: Vec<usize>,
        alphabet: usize,
        width: usize,
        partition: &str,
        parameter: usize,
        table: Option<Py<CtmTable>>,
    ) -> PyResult<Self> {
        let partition = partition_of(partition, parameter)?;
        let values = contiguous(&values)?.to_vec();
        let experiment = run(py, None, None, |monitor| {
            perturbation::Perturbation::new(values, shape, alphabet, width, partition, monitor)
        })?;
        Ok(Self { experiment, table })
    }

    /// Changes of the metric for elements at (row after row of) `indices`, one after another. The
    /// new values are symbols, or negative to flip binary ones. `keep`: later changes see them.
    fn run<'py>(
        &mut self,
        py: Python<'py>,
        indices: PyReadonlyArray2<'py, i64>,
        values: PyReadonlyArray1<'py, i64>,
        keep: bool,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let indices = indices.as_array().to_owned();
        let values = values.as_array().to_owned();
        if indices.nrows() != values.len() {
            return Err(invalid_argument(format!(
                "{} elements with {} new values",
                indices.nrows(),
                values.len()
            )));
        }
        let table = self.table.as_ref().map(Py::get);
        let experiment = &mut self.experiment;
        let changes = run(py, None, None, |monitor| {
            let metric = table.map_or(Metric::Entropy, |table| Metric::Bdm(table.get()));
            let mut index = Vec::new();
            let mut changes = Vec::with_capacity(values.len());
            for (step, (row, &value)) in indices.rows().into_iter().zip(&values).enumerate() {
                if step % 1024 == 0 {
                    monitor.check()?;
                }
                index.clear();
                // What is negative or too large is no index and no symbol, as the core will say.
                index.extend(
                    row.iter()
                        .map(|&i| usize::try_from(i).unwrap_or(usize::MAX)),
                );
                let value = (value >= 0).then(|| u8::try_from(value).unwrap_or(u8::MAX));
                changes.push(experiment.change(&index, value, keep, metric)?);
                monitor.advance(1);
            }
            Ok(changes)
        })?;
        Ok(changes.into_pyarray(py))
    }
}
