//! The meter of several labels a row as a Python class.

use std::sync::{Mutex, MutexGuard, PoisonError};

use flyball_core::meters::{self, Flags, LabelCounts, NonFinite, Rows};
use numpy::{PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::arrays::{borrowed, not_contiguous, policy, with_rows};
use crate::error::{invalid, refused};
use crate::two::merged;

/// Counts of one label: true, predicted, both.
type Counts = (u64, u64, u64);
/// Exact rows, empty rows, six sums of products, and six sums of shares.
type RowNumbers = (u64, u64, [u128; 6], [f64; 6]);

/// Counts and exact sums over rows of logits with a flag for each label.
#[pyclass(frozen, module = "flyball._native")]
pub(crate) struct MultiLabel {
    labels: usize,
    threshold: f64,
    meter: Mutex<meters::MultiLabel>,
}

impl MultiLabel {
    fn wrap(meter: meters::MultiLabel) -> Self {
        Self {
            labels: meter.labels(),
            threshold: meter.threshold(),
            meter: Mutex::new(meter),
        }
    }

    fn lock(&self) -> MutexGuard<'_, meters::MultiLabel> {
        // A batch is read whole before any of it is counted.
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<R: Rows + Sync>(
        &self,
        rows: &R,
        targets: &Bound<'_, PyAny>,
        policy: NonFinite,
    ) -> PyResult<()> {
        let py = targets.py();
        let check = |shape: &[usize]| {
            if shape == [rows.len(), rows.columns()] && rows.columns() == self.labels {
                return Ok(());
            }
            Err(invalid(format!(
                "`logits` has shape ({}, {}) and `targets` {shape:?}, but the meter has {} labels: pass a row for each sample and a column for each label",
                rows.len(),
                rows.columns(),
                self.labels
            )))
        };
        let update = |flags: Flags<'_>| {
            py.detach(|| self.lock().update(rows, flags, policy))
                .map_err(refused)
        };
        let contiguous = |_| not_contiguous("targets");
        if let Ok(flags) = targets.cast::<PyArray2<u8>>() {
            check(flags.shape())?;
            let flags = borrowed(flags.try_readonly(), "targets")?;
            update(Flags::Narrow(flags.as_slice().map_err(contiguous)?))
        } else if let Ok(flags) = targets.cast::<PyArray2<i64>>() {
            check(flags.shape())?;
            let flags = borrowed(flags.try_readonly(), "targets")?;
            update(Flags::Wide(flags.as_slice().map_err(contiguous)?))
        } else {
            Err(invalid(
                "`targets` is no 2-D array of uint8 or int64: convert it".to_owned(),
            ))
        }
    }
}

#[pymethods]
impl MultiLabel {
    #[new]
    fn new(labels: usize, threshold: f64) -> PyResult<Self> {
        let meter = meters::MultiLabel::new(labels, threshold);
        meter.map(Self::wrap).map_err(refused)
    }

    /// Make the meter whose state `state` returned.
    #[staticmethod]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a sequence of Python ints is converted"
    )]
    fn from_state(labels: usize, threshold: f64, state: Vec<i64>) -> PyResult<Self> {
        let meter = meters::MultiLabel::from_state(labels, threshold, &state);
        meter.map(Self::wrap).map_err(refused)
    }

    /// Add a batch: logits as `Classification.update` takes them, and a flag for each, contiguous.
    fn update(
        &self,
        logits: &Bound<'_, PyAny>,
        targets: &Bound<'_, PyAny>,
        half: Option<&str>,
        leave_out: bool,
    ) -> PyResult<()> {
        let policy = policy(leave_out);
        with_rows!(logits, half, "logits", |rows| self
            .read(rows, targets, policy))
    }

    /// Add everything that `other` has seen.
    fn merge(&self, py: Python<'_>, other: &Bound<'_, Self>) -> PyResult<()> {
        let (mine, theirs) = (&self.meter, &other.get().meter);
        py.detach(|| merged(mine, theirs, meters::MultiLabel::merge))
            .map_err(refused)
    }

    #[getter]
    fn labels(&self) -> usize {
        self.labels
    }

    #[getter]
    fn threshold(&self) -> f64 {
        self.threshold
    }

    #[getter]
    fn samples(&self) -> u64 {
        self.lock().samples()
    }

    #[getter]
    fn left_out(&self) -> u64 {
        self.lock().left_out()
    }

    /// Return the state as integers.
    fn state(&self) -> Vec<i64> {
        self.lock().state()
    }

    /// Return for each label how often it is true, predicted, and both.
    fn counts(&self) -> Vec<Counts> {
        let count = |one: &LabelCounts| (one.positives, one.predicted, one.hits);
        self.lock().counts().iter().map(count).collect()
    }

    /// Return exact rows, empty rows, the sums of products of a row's true labels t, predicted labels
    /// p and hits h (tt, pp, hh, tp, th, ph), and those of its precision, recall and F1, each with the
    /// sum of squares.
    fn rows(&self) -> RowNumbers {
        let rows = *self.lock().rows();
        let shares = rows.shares.map(meters::FixedSum::value);
        (rows.exact, rows.empty, rows.products, shares)
    }
}
