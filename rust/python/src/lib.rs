//! The Python bindings of `flyball_core`: conversions and nothing else.

use pyo3::prelude::*;

/// The compiled half of flyball.
#[pymodule]
mod _native {
    use super::{Bound, PyModule, PyModuleMethods, PyResult, pymodule};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
