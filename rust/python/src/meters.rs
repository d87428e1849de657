//! The meters as Python classes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use flyball_core::meters::{self, Bin, ClassificationState, NonFinite, Outcome, Rows};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::arrays::{borrowed, integers, not_contiguous, policy, with_rows};
use crate::error::{invalid, refused};
use crate::two::merged;

/// From this many logits on, other threads may run while a batch is read.
const WORTH_DETACHING: usize = 1 << 13;

/// Count, hits and mean confidence of each bin.
type Bins<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<f64>>,
);

/// Counts and exact sums over rows of logits and their targets.
#[pyclass(frozen, module = "flyball._native")]
pub(crate) struct Classification {
    classes: usize,
    topk: Vec<usize>,
    bins: usize,
    // No code that holds the lock asks for the interpreter, so threads cannot wait in a circle.
    meter: Mutex<meters::Classification>,
}

impl Classification {
    fn wrap(meter: meters::Classification) -> Self {
        Self {
            classes: meter.classes(),
            topk: meter.topk().to_vec(),
            bins: meter.bins(),
            meter: Mutex::new(meter),
        }
    }

    fn lock(&self) -> MutexGuard<'_, meters::Classification> {
        // A batch that panicked was not counted yet: outcomes are computed before any is added.
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<R: Rows + Sync>(
        &self,
        py: Python<'_>,
        rows: &R,
        targets: &[i64],
        policy: NonFinite,
    ) -> PyResult<()> {
        if rows.columns() != self.classes {
            return Err(invalid(format!(
                "`logits` has {columns} columns, but the meter has {classes} classes: pass one column for each class",
                columns = rows.columns(),
                classes = self.classes
            )));
        }
        if rows.len() != targets.len() {
            return Err(invalid(format!(
                "`logits` has {} rows, but `targets` has {} values: pass one target for each row",
                rows.len(),
                targets.len()
            )));
        }
        let update = || self.lock().update_rows(rows, targets, policy);
        let updated = match targets.len().saturating_mul(self.classes) {
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
    fn new(classes: usize, topk: Vec<usize>, bins: usize) -> PyResult<Self> {
        let meter = meters::Classification::with_bins(classes, &topk, bins);
        meter.map(Self::wrap).map_err(refused)
    }

    /// Make the meter whose state `state` returned.
    #[staticmethod]
    fn from_state(state: State) -> PyResult<Self> {
        let meter = meters::Classification::from_state(&state.into());
        meter.map(Self::wrap).map_err(refused)
    }

    /// Add a batch: rows of float32, float64, or, as uint16, of the type that `half` names, and
    /// contiguous int64 targets. Rows with NaN or infinities are left out if `leave_out` says so.
    fn update(
        &self,
        logits: &Bound<'_, PyAny>,
        targets: &Bound<'_, PyAny>,
        half: Option<&str>,
        leave_out: bool,
    ) -> PyResult<()> {
        let py = logits.py();
        let targets = integers(targets, "targets")?;
        let targets = targets.as_slice().map_err(|_| not_contiguous("targets"))?;
        let policy = policy(leave_out);
        with_rows!(logits, half, "logits", |rows| self
            .read(py, rows, targets, policy))
    }

    /// Add rows that were read elsewhere: an int64 array with the columns target, prediction and
    /// rank, a float64 array with the columns loss, odds against and Brier score, both contiguous.
    fn update_outcomes(
        &self,
        classes: &Bound<'_, PyArray2<i64>>,
        scores: &Bound<'_, PyArray2<f64>>,
        left_out: u64,
    ) -> PyResult<()> {
        let classes: PyReadonlyArray2<'_, i64> = borrowed(classes.try_readonly(), "outcomes")?;
        let scores: PyReadonlyArray2<'_, f64> = borrowed(scores.try_readonly(), "outcomes")?;
        let classes = classes.as_slice().map_err(|_| not_contiguous("outcomes"))?;
        let scores = scores.as_slice().map_err(|_| not_contiguous("outcomes"))?;
        let (classes, rest) = classes.as_chunks::<3>();
        let (scores, more) = scores.as_chunks::<3>();
        if !rest.is_empty() || !more.is_empty() || classes.len() != scores.len() {
            return Err(invalid(
                "`outcomes` are not rows of three columns each".to_owned(),
            ));
        }
        let outcome =
            |(&[target, predicted, rank], &[nll, against, brier]): (&[i64; 3], &[f64; 3])| {
                // What does not fit is no class, either.
                let [target, predicted, rank] =
                    [target, predicted, rank].map(|class| u32::try_from(class).unwrap_or(u32::MAX));
                Outcome {
                    target,
                    predicted,
                    rank,
                    nll,
                    against,
                    brier,
                }
            };
        let outcomes: Vec<Outcome> = classes.iter().zip(scores).map(outcome).collect();
        self.lock()
            .update_outcomes(&outcomes, left_out)
            .map_err(refused)
    }

    /// Add everything that `other` has seen.
    fn merge(&self, py: Python<'_>, other: &Bound<'_, Self>) -> PyResult<()> {
        let (mine, theirs) = (&self.meter, &other.get().meter);
        py.detach(|| merged(mine, theirs, meters::Classification::merge))
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
    fn bins(&self) -> usize {
        self.bins
    }

    #[getter]
    fn samples(&self) -> u64 {
        self.lock().samples()
    }

    #[getter]
    fn left_out(&self) -> u64 {
        self.lock().left_out()
    }

    /// Return the state as plain data.
    fn state(&self) -> State {
        self.lock().state().into()
    }

    /// Return what a result is made of.
    fn totals<'py>(&self, py: Python<'py>) -> PyResult<Totals<'py>> {
        let meter = self.lock().clone();
        let confusion: Vec<i64> = meter
            .confusion()
            .into_iter()
            .map(u64::cast_signed)
            .collect();
        let scores = meter.scores();
        Ok(Totals {
            samples: meter.samples(),
            left_out: meter.left_out(),
            confusion: PyArray1::from_vec(py, confusion).reshape([self.classes, self.classes])?,
            hits: meter.hits().to_vec(),
            nll: (meter.nll().value(), meter.nll_squared().value()),
            brier: (scores.brier.value(), 2.0 * scores.brier_squared.value()),
            top_label: (scores.top_label.value(), scores.top_label_squared.value()),
            bins: bins(py, meter.reliability().bins()),
            groups: bins(py, &meter.reliability().groups()),
        })
    }
}

/// The state of a meter as a dictionary.
#[derive(FromPyObject, IntoPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct State {
    classes: usize,
    topk: Vec<usize>,
    bins: usize,
    samples: i64,
    left_out: i64,
    confusion: Vec<i64>,
    hits: Vec<i64>,
    nll: Vec<i64>,
    nll_squared: Vec<i64>,
    scores: Vec<i64>,
    reliability: Vec<i64>,
}

impl From<State> for ClassificationState {
    fn from(state: State) -> Self {
        let State {
            classes,
            topk,
            bins,
            samples,
            left_out,
            confusion,
            hits,
            nll,
            nll_squared,
            scores,
            reliability,
        } = state;
        Self {
            classes,
            topk,
            bins,
            samples,
            left_out,
            confusion,
            hits,
            nll,
            nll_squared,
            scores,
            reliability,
        }
    }
}

impl From<ClassificationState> for State {
    fn from(state: ClassificationState) -> Self {
        let ClassificationState {
            classes,
            topk,
            bins,
            samples,
            left_out,
            confusion,
            hits,
            nll,
            nll_squared,
            scores,
            reliability,
        } = state;
        Self {
            classes,
            topk,
            bins,
            samples,
            left_out,
            confusion,
            hits,
            nll,
            nll_squared,
            scores,
            reliability,
        }
    }
}

/// What a result is made of, as a dictionary; sums come in pairs with the sum of squares.
#[derive(IntoPyObject)]
pub(crate) struct Totals<'py> {
    samples: u64,
    left_out: u64,
    confusion: Bound<'py, PyArray2<i64>>,
    hits: Vec<u64>,
    nll: (f64, f64),
    brier: (f64, f64),
    top_label: (f64, f64),
    bins: Bins<'py>,
    groups: Bins<'py>,
}

fn bins<'py>(py: Python<'py>, bins: &[Bin]) -> Bins<'py> {
    let counts =
        |of: fn(&Bin) -> u64| PyArray1::from_iter(py, bins.iter().map(|bin| of(bin).cast_signed()));
    let confidence = bins.iter().map(|bin| bin.confidence.value());
    (
        counts(|bin| bin.count),
        counts(|bin| bin.hits),
        PyArray1::from_iter(py, confidence),
    )
}
