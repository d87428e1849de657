//! The meters as Python classes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use flyball_core::meters::{self, ClassificationState, ExactSum, Logit};
use numpy::{
    PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::prelude::*;

use crate::error::{invalid, refused};

/// From this many logits on, other threads may run while a batch is read.
const WORTH_DETACHING: usize = 1 << 13;

/// The parts of a state, in the order in which `from_state` takes them.
type Parts = (
    usize,
    Vec<usize>,
    i64,
    Vec<i64>,
    Vec<i64>,
    Vec<i64>,
    Vec<i64>,
);

/// Counts and exact sums over rows of logits and their targets.
#[pyclass(frozen, module = "flyball._native")]
pub(crate) struct Classification {
    classes: usize,
    topk: Vec<usize>,
    // No code that holds the lock asks for the interpreter, so threads cannot wait in a circle.
    meter: Mutex<meters::Classification>,
}

impl Classification {
    fn wrap(meter: meters::Classification) -> Self {
        Self {
            classes: meter.classes(),
            topk: meter.topk().to_vec(),
            meter: Mutex::new(meter),
        }
    }

    fn lock(&self) -> MutexGuard<'_, meters::Classification> {
        // A batch that panicked was not counted yet: outcomes are computed before any is added.
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<F: Logit + numpy::Element>(
        &self,
        logits: &Bound<'_, PyArray2<F>>,
        targets: &Bound<'_, PyArray1<i64>>,
    ) -> PyResult<()> {
        let py = logits.py();
        let (rows, columns) = (logits.dims()[0], logits.dims()[1]);
        if columns != self.classes {
            return Err(invalid(format!(
                "`logits` has {columns} columns, but the meter has {classes} classes: pass one column for each class",
                classes = self.classes
            )));
        }
        if rows != targets.len() {
            return Err(invalid(format!(
                "`logits` has {rows} rows, but `targets` has {} values: pass one target for each row",
                targets.len()
            )));
        }
        let logits: PyReadonlyArray2<'_, F> = borrowed(logits.try_readonly(), "logits")?;
        let targets: PyReadonlyArray1<'_, i64> = borrowed(targets.try_readonly(), "targets")?;
        // A contiguous array in Fortran order would be a slice, too, but not of rows.
        if !logits.is_c_contiguous() || !targets.is_c_contiguous() {
            return Err(not_contiguous());
        }
        let logits = logits.as_slice().map_err(|_| not_contiguous())?;
        let targets = targets.as_slice().map_err(|_| not_contiguous())?;
        let update = || self.lock().update(logits, targets);
        let updated = match logits.len() {
            ..WORTH_DETACHING => update(),
            _ => py.detach(update),
        };
        updated.map_err(refused)
    }
}

#[pymethods]
impl Classification {
    #[new]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a sequence of Python ints is converted"
    )]
    fn new(classes: usize, topk: Vec<usize>) -> PyResult<Self> {
        let meter = meters::Classification::new(classes, &topk);
        meter.map(Self::wrap).map_err(refused)
    }

    /// Make the meter whose parts `state` returned.
    #[staticmethod]
    fn from_state(
        classes: usize,
        topk: Vec<usize>,
        samples: i64,
        confusion: Vec<i64>,
        hits: Vec<i64>,
        nll: Vec<i64>,
        nll_squared: Vec<i64>,
    ) -> PyResult<Self> {
        let meter = meters::Classification::from_state(&ClassificationState {
            classes,
            topk,
            samples,
            confusion,
            hits,
            nll,
            nll_squared,
        });
        meter.map(Self::wrap).map_err(refused)
    }

    /// Add a batch: float32 or float64 rows and int64 targets, both C-contiguous and aligned.
    fn update(&self, logits: &Bound<'_, PyAny>, targets: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(targets) = targets.cast::<PyArray1<i64>>() else {
            return Err(invalid(
                "`targets` is not a 1-D array of int64: convert it".to_owned(),
            ));
        };
        if let Ok(logits) = logits.cast::<PyArray2<f32>>() {
            self.read(logits, targets)
        } else if let Ok(logits) = logits.cast::<PyArray2<f64>>() {
            self.read(logits, targets)
        } else {
            Err(invalid(
                "`logits` is not a 2-D array of float32 or float64: convert it".to_owned(),
            ))
        }
    }

    /// Add everything that `other` has seen.
    fn merge(&self, py: Python<'_>, other: &Bound<'_, Self>) -> PyResult<()> {
        let other = other.get();
        py.detach(|| {
            // A copy: two locks at once could wait in a circle, and `other` may be `self`.
            let other = other.lock().clone();
            self.lock().merge(&other)
        })
        .map_err(refused)
    }

    #[getter]
    fn classes(&self) -> usize {
        self.classes
    }

    #[getter]
    fn topk(&self) -> Vec<usize> {
        self.topk.clone()
    }

    #[getter]
    fn samples(&self) -> u64 {
        self.lock().samples()
    }

    /// Return the parts: classes, topk, samples, confusion, hits and the sums of the loss.
    fn state(&self) -> Parts {
        let ClassificationState {
            classes,
            topk,
            samples,
            confusion,
            hits,
            nll,
            nll_squared,
        } = self.lock().state();
        (classes, topk, samples, confusion, hits, nll, nll_squared)
    }

    /// Return what a result is made of: samples, confusion, hits and the sums of the loss and of its
    /// square.
    fn totals<'py>(&self, py: Python<'py>) -> PyResult<Totals<'py>> {
        let meter = self.lock().clone();
        let confusion: Vec<i64> = meter
            .confusion()
            .iter()
            .map(|count| count.cast_signed())
            .collect();
        let confusion = PyArray1::from_vec(py, confusion).reshape([self.classes, self.classes])?;
        let value = ExactSum::value;
        let sums = (value(meter.nll()), value(meter.nll_squared()));
        Ok((
            meter.samples(),
            confusion,
            meter.hits().to_vec(),
            sums.0,
            sums.1,
        ))
    }
}

type Totals<'py> = (u64, Bound<'py, PyArray2<i64>>, Vec<u64>, f64, f64);

fn borrowed<T>(array: Result<T, numpy::BorrowError>, name: &str) -> PyResult<T> {
    array.map_err(|_| invalid(format!("`{name}` is being written to: pass a copy")))
}

fn not_contiguous() -> PyErr {
    invalid("`logits` and `targets` must be C-contiguous and aligned: pass a copy".to_owned())
}
