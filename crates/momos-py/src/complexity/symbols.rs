//! Bindings of the measures of arrays of symbols.

use momos_core::complexity::entropy::BlockEntropy;
use momos_core::complexity::perturbation::{self, Metric};
use momos_core::complexity::symbols::{self, BlockCounts, Partition, Symbols};
use momos_core::complexity::tables;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;

use crate::arrays::{Bytes, slice_of};
use crate::runtime::{invalid_argument, run, to_python_error};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CtmTable>()?;
    module.add_class::<BlockTally>()?;
    module.add_class::<Perturbation>()?;
    module.add_function(wrap_pyfunction!(narrow_symbols, module)?)?;
    module.add_function(wrap_pyfunction!(count_blocks, module)?)?;
    module.add_function(wrap_pyfunction!(greatest_entropy, module)?)?;
    Ok(())
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
    let bytes = slice_of(&data)?;
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
    let values = slice_of(&values)?;
    let array = Symbols::new(values, &shape, alphabet).map_err(to_python_error)?;
    check_symbols(values, alphabet)?;
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

/// The core counts on symbols of the alphabet and indexes its tables by them.
fn check_symbols(values: &[u8], alphabet: usize) -> PyResult<()> {
    match values.iter().max() {
        Some(&largest) if usize::from(largest) >= alphabet => Err(invalid_argument(format!(
            "symbol {largest} is not one of an alphabet of {alphabet}"
        ))),
        _ => Ok(()),
    }
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
        let values = slice_of(&values)?.to_vec();
        check_symbols(&values, alphabet)?;
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
