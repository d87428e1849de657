//! Where an error of the core becomes an exception of `flyball.errors`.

use pyo3::PyErr;

pyo3::import_exception!(flyball.errors, InputError);

/// What the core refuses, a caller passed in.
#[allow(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(crate) fn refused(error: flyball_core::Error) -> PyErr {
    InputError::new_err(error.to_string())
}

/// An argument that does not even convert.
pub(crate) fn invalid(message: String) -> PyErr {
    InputError::new_err(message)
}
