//! The norm of tensors as a Python class.

use flyball_core::norm::norm;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyType};

use crate::dlpack::{Borrowed, Exchange};

/// Below so many bytes, letting go of the interpreter costs more than others gain by it.
const WORTH_LETTING_GO: usize = 1 << 20;

/// The norm of many tensors together, in one call.
#[pyclass(frozen, module = "flyball._native")]
pub(crate) struct Norm {
    /// None where the library is too old to lend its tensors in this way.
    exchange: Option<Exchange>,
}

#[pymethods]
impl Norm {
    /// Take norms of tensors of a type.
    #[new]
    fn new(tensor: &Bound<'_, PyType>) -> Self {
        Self {
            exchange: Exchange::of(tensor),
        }
    }

    /// Return the norm of all tensors together; `None` if one of them is not a dense `float32` or `float64` tensor in
    /// main memory.
    fn of(&self, tensors: &Bound<'_, PyList>, threads: usize) -> Option<f64> {
        let py = tensors.py();
        let held = tensors.iter().map(|tensor| self.borrow(&tensor));
        taken(py, &held.collect::<Option<Vec<_>>>()?, threads)
    }

    /// Return how many of the parameters have a gradient, and the norm of all gradients together; `None` as for `of`.
    fn of_gradients(
        &self,
        parameters: &Bound<'_, PyList>,
        threads: usize,
    ) -> PyResult<Option<(usize, f64)>> {
        let py = parameters.py();
        let mut held = Vec::with_capacity(parameters.len());
        for parameter in parameters.iter() {
            let gradient = parameter.getattr(intern!(py, "grad"))?;
            if gradient.is_none() {
                continue;
            }
            let Some(borrowed) = self.borrow(&gradient) else {
                return Ok(None);
            };
            held.push(borrowed);
        }
        Ok(taken(py, &held, threads).map(|norm| (held.len(), norm)))
    }
}

impl Norm {
    fn borrow(&self, tensor: &Bound<'_, PyAny>) -> Option<Borrowed> {
        self.exchange.as_ref()?.borrow(tensor)
    }
}

fn taken(py: Python<'_>, held: &[Borrowed], threads: usize) -> Option<f64> {
    let slices: Vec<_> = held.iter().map(Borrowed::floats).collect::<Option<_>>()?;
    let bytes: usize = slices.iter().map(|slice| slice.bytes()).sum();
    Some(if bytes < WORTH_LETTING_GO {
        norm(&slices, 1)
    } else {
        py.detach(|| norm(&slices, threads))
    })
}
