//! `momos_rs._core`: the Python face of `momos-core`.
//!
//! Nothing is computed here. Every function checks its arrays, leaves the interpreter, calls the
//! core and turns its errors into `momos_rs.errors`. One file, or directory, per module of
//! the core.

mod arrays;
mod codec;
mod complexity;
mod layout;
mod motifs;
mod nearest;
mod runtime;

use pyo3::prelude::*;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    codec::register(module)?;
    complexity::register(module)?;
    layout::register(module)?;
    motifs::register(module)?;
    nearest::register(module)?;
    Ok(())
}
