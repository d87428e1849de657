//! Where an error of the core becomes an exception of `flyball.errors`.

use pyo3::PyErr;

pyo3::import_exception!(flyball.errors, InputError);
pyo3::import_exception!(flyball.errors, InputTypeError);
pyo3::import_exception!(flyball.errors, PackError);

/// What the core refuses, a caller passed in.
#[allow(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(crate) fn refused(error: flyball_core::Error) -> PyErr {
    InputError::new_err(error.to_string())
}

/// An argument that does not even convert.
pub(crate) fn invalid(message: String) -> PyErr {
    InputError::new_err(message)
}

/// An argument of a type that cannot be read.
pub(crate) fn wrong_type(message: String) -> PyErr {
    InputTypeError::new_err(message)
}

/// A rule pack that is refused.
pub(crate) fn bad_pack(message: String) -> PyErr {
    PackError::new_err(message)
}
