//! Bindings of the core's `codec` module, one file per directory of it.

mod exact;
mod grid;
mod index;
mod motifs;

use momos_core::codec;
use pyo3::prelude::*;

use crate::arrays::{Bytes, contiguous};
use crate::runtime::run;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Digest>()?;
    module.add_function(wrap_pyfunction!(digest, module)?)?;
    exact::register(module)?;
    grid::register(module)?;
    index::register(module)?;
    motifs::register(module)?;
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
