//! Exact sums and the meter of texts as Python classes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use flyball_core::meters::{self, NonFinite, Rows, add_products};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;

use crate::arrays::{borrowed, integers, not_contiguous, policy, with_rows};
use crate::error::refused;

/// A sum of float64 without rounding.
#[pyclass(frozen, module = "flyball._native")]
pub(crate) struct ExactSum(Mutex<meters::ExactSum>);

impl ExactSum {
    fn lock(&self) -> MutexGuard<'_, meters::ExactSum> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl ExactSum {
    #[new]
    fn new() -> Self {
        Self(Mutex::new(meters::ExactSum::new()))
    }

    /// Make the sum whose chunks `chunks` returned.
    #[staticmethod]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a sequence of Python ints is converted"
    )]
    fn from_chunks(chunks: Vec<i64>) -> PyResult<Self> {
        let sum = meters::ExactSum::from_chunks(&chunks).map_err(refused)?;
        Ok(Self(Mutex::new(sum)))
    }

    /// Add each value of a contiguous array; if one is not finite, none is added.
    fn add(&self, values: &Bound<'_, PyArray1<f64>>) -> PyResult<()> {
        let values = borrowed(values.try_readonly(), "values")?;
        let values = values.as_slice().map_err(|_| not_contiguous("values"))?;
        let mut sum = self.lock().clone();
        for &value in values {
            sum.add(value).map_err(refused)?;
        }
        *self.lock() = sum;
        Ok(())
    }

    /// Add each product of two contiguous arrays, also without rounding.
    fn add_products(
        &self,
        left: &Bound<'_, PyArray1<f64>>,
        right: &Bound<'_, PyArray1<f64>>,
    ) -> PyResult<()> {
        let left = borrowed(left.try_readonly(), "left")?;
        let right = borrowed(right.try_readonly(), "right")?;
        let left = left.as_slice().map_err(|_| not_contiguous("left"))?;
        let right = right.as_slice().map_err(|_| not_contiguous("right"))?;
        let pairs: Vec<(f64, f64)> = left.iter().copied().zip(right.iter().copied()).collect();
        add_products(&mut self.lock(), &pairs).map_err(refused)
    }

    /// Add everything that `other` holds.
    fn merge(&self, other: &Bound<'_, Self>) {
        let other = other.get().lock().clone();
        self.lock().merge(&other);
    }

    #[getter]
    fn value(&self) -> f64 {
        self.lock().value()
    }

    /// Return the sum as integers: the i-th counts units of 2**(32 * i - 1074).
    fn chunks(&self) -> Vec<i64> {
        self.lock().chunks()
    }
}

/// Counts and exact sums of the loss over the tokens of texts.
#[pyclass(frozen, module = "flyball._native")]
pub(crate) struct Text {
    vocabulary: usize,
    meter: Mutex<meters::Text>,
}

impl Text {
    fn wrap(meter: meters::Text) -> Self {
        Self {
            vocabulary: meter.vocabulary(),
            meter: Mutex::new(meter),
        }
    }

    fn lock(&self) -> MutexGuard<'_, meters::Text> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Text {
    #[new]
    fn new(vocabulary: usize) -> PyResult<Self> {
        let meter = meters::Text::new(vocabulary);
        meter.map(Self::wrap).map_err(refused)
    }

    /// Make the meter with the counts and chunks that `counts` and `chunks` returned.
    #[staticmethod]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a sequence of Python ints is converted"
    )]
    fn from_state(
        vocabulary: usize,
        counts: [i64; 4],
        nll: Vec<i64>,
        nll_squared: Vec<i64>,
    ) -> PyResult<Self> {
        let meter = meters::Text::from_state(vocabulary, counts, &nll, &nll_squared);
        meter.map(Self::wrap).map_err(refused)
    }

    /// Add a batch: logits as `Classification.update` takes them; rows whose target is `ignored` are
    /// counted and not looked at.
    fn update(
        &self,
        logits: &Bound<'_, PyAny>,
        targets: &Bound<'_, PyAny>,
        half: Option<&str>,
        ignored: Option<i64>,
        leave_out: bool,
    ) -> PyResult<()> {
        let policy = policy(leave_out);
        let targets = integers(targets, "targets")?;
        let targets = targets.as_slice().map_err(|_| not_contiguous("targets"))?;
        let py = logits.py();
        with_rows!(logits, half, "logits", |rows| self
            .read(py, rows, targets, ignored, policy))
    }

    /// Add everything that `other` has seen.
    fn merge(&self, other: &Bound<'_, Self>) -> PyResult<()> {
        let other = other.get().lock().clone();
        self.lock().merge(&other).map_err(refused)
    }

    #[getter]
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Return tokens measured, ignored, left out, and hits.
    fn counts(&self) -> [u64; 4] {
        self.lock().counts()
    }

    /// Return the sums of the loss and of its square.
    fn losses(&self) -> (f64, f64) {
        let meter = self.lock();
        let (nll, nll_squared) = meter.losses();
        (nll.value(), nll_squared.value())
    }

    /// Return the sums as chunks.
    fn chunks(&self) -> (Vec<i64>, Vec<i64>) {
        let meter = self.lock();
        let (nll, nll_squared) = meter.losses();
        (nll.chunks(), nll_squared.chunks())
    }
}

impl Text {
    fn read<R: Rows + Sync>(
        &self,
        py: Python<'_>,
        rows: &R,
        targets: &[i64],
        ignored: Option<i64>,
        policy: NonFinite,
    ) -> PyResult<()> {
        py.detach(|| self.lock().update(rows, targets, ignored, policy))
            .map_err(refused)
    }
}
