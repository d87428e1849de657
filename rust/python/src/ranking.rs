//! The ranking meter as a Python class.

use std::sync::{Mutex, MutexGuard, PoisonError};

use flyball_core::meters::{self, Labels, NonFinite, Ranked, Rows, Scale};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::arrays::{borrowed, not_contiguous, policy, with_rows};
use crate::error::{invalid, refused};
use crate::two::merged;

/// Positives, negatives, AUROC with its bound and variance, average precision with its bound.
type Numbers = (u64, u64, f64, f64, f64, f64, f64);

/// Scores by their labels, kept while they are few, then counted in cells.
#[pyclass(frozen, module = "flyball._native")]
pub(crate) struct Ranking {
    columns: usize,
    scale: Scale,
    meter: Mutex<meters::Ranking>,
}

impl Ranking {
    fn wrap(meter: meters::Ranking) -> Self {
        Self {
            columns: meter.columns(),
            scale: meter.scale(),
            meter: Mutex::new(meter),
        }
    }

    fn lock(&self) -> MutexGuard<'_, meters::Ranking> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<R: Rows + Sync>(
        &self,
        rows: &R,
        labels: &Bound<'_, PyAny>,
        policy: NonFinite,
    ) -> PyResult<()> {
        let py = labels.py();
        let update = |labels: Labels<'_>| {
            py.detach(|| self.lock().update(rows, labels, policy))
                .map_err(refused)
        };
        let contiguous = |_| not_contiguous("labels");
        if let Ok(classes) = labels.cast::<PyArray1<i64>>() {
            let classes = borrowed(classes.try_readonly(), "labels")?;
            update(Labels::Classes(classes.as_slice().map_err(contiguous)?))
        } else if let Ok(flags) = labels.cast::<PyArray2<u8>>() {
            let flags = borrowed(flags.try_readonly(), "labels")?;
            if !flags.is_c_contiguous() {
                return Err(not_contiguous("labels"));
            }
            update(Labels::Flags(flags.as_slice().map_err(contiguous)?))
        } else if let Ok(flags) = labels.cast::<PyArray2<i64>>() {
            let flags = borrowed(flags.try_readonly(), "labels")?;
            if !flags.is_c_contiguous() {
                return Err(not_contiguous("labels"));
            }
            update(Labels::WideFlags(flags.as_slice().map_err(contiguous)?))
        } else {
            Err(invalid(
                "`labels` is neither a 1-D array of int64 nor a 2-D array of uint8 or int64: convert it".to_owned(),
            ))
        }
    }
}

fn scale_of(probabilities: bool) -> Scale {
    if probabilities {
        Scale::Probabilities
    } else {
        Scale::Logits
    }
}

#[pymethods]
impl Ranking {
    #[new]
    fn new(columns: usize, probabilities: bool) -> PyResult<Self> {
        let meter = meters::Ranking::new(columns, scale_of(probabilities));
        meter.map(Self::wrap).map_err(refused)
    }

    /// Make the meter whose state `state` returned.
    #[staticmethod]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a sequence of Python ints is converted"
    )]
    fn from_state(columns: usize, probabilities: bool, state: Vec<i64>) -> PyResult<Self> {
        let meter = meters::Ranking::from_state(columns, scale_of(probabilities), &state);
        meter.map(Self::wrap).map_err(refused)
    }

    /// Add a batch: scores as `Classification.update` takes logits; a class for each row, or a flag
    /// for each score.
    fn update(
        &self,
        scores: &Bound<'_, PyAny>,
        labels: &Bound<'_, PyAny>,
        half: Option<&str>,
        leave_out: bool,
    ) -> PyResult<()> {
        let policy = policy(leave_out);
        with_rows!(scores, half, "scores", |rows| self
            .read(rows, labels, policy))
    }

    /// Add everything that `other` has seen.
    fn merge(&self, py: Python<'_>, other: &Bound<'_, Self>) -> PyResult<()> {
        let (mine, theirs) = (&self.meter, &other.get().meter);
        py.detach(|| merged(mine, theirs, meters::Ranking::merge))
            .map_err(refused)
    }

    #[getter]
    fn columns(&self) -> usize {
        self.columns
    }

    #[getter]
    fn probabilities(&self) -> bool {
        self.scale == Scale::Probabilities
    }

    #[getter]
    fn rows(&self) -> u64 {
        self.lock().rows()
    }

    #[getter]
    fn left_out(&self) -> u64 {
        self.lock().left_out()
    }

    /// Return the state as integers.
    fn state(&self) -> Vec<i64> {
        self.lock().state()
    }

    /// Return the negatives and positives of each score, or cell, of a column, by rising score.
    fn groups<'py>(&self, py: Python<'py>, column: usize) -> PyResult<Bound<'py, PyArray2<i64>>> {
        if column >= self.columns {
            return Err(invalid(format!(
                "`column` is {column}: the meter has {} columns",
                self.columns
            )));
        }
        let groups = py.detach(|| self.lock().groups(column));
        let counts: Vec<i64> = groups.into_iter().flatten().map(i64::from).collect();
        let rows = counts.len() / 2;
        PyArray1::from_vec(py, counts).reshape([rows, 2])
    }

    /// Return for each column positives, negatives, AUROC with its bound and variance, and average
    /// precision with its bound.
    fn ranked(&self, py: Python<'_>) -> Vec<Numbers> {
        let ranked = py.detach(|| self.lock().ranked());
        let numbers = |one: Ranked| {
            (
                one.positives,
                one.negatives,
                one.auroc,
                one.auroc_bound,
                one.auroc_variance,
                one.average_precision,
                one.average_precision_bound,
            )
        };
        ranked.into_iter().map(numbers).collect()
    }
}
