//! Counts and exact sums from which every score of a classifier follows.
//!
//! [`Classification`] reads rows of logits with their targets and keeps the confusion matrix, the
//! hits of top-k accuracy, and the exact sums of the negative log-likelihood and of its square.
//!
//! *Ties.* The classes of a row are ordered by falling logit, equal logits by rising index, as a
//! stable sort does. The first is the prediction; a target is hit at k if it is among the first k.
//!
//! *Loss.* -ln softmax(logits)\[target\] = (max - logit\[target\]) + ln(1 + s) with s the sum of
//! exp(logit - max) over all classes but the first largest. No term can overflow and none cancels,
//! so the loss is never negative and never NaN. For `f32` logits its absolute error is at most
//! 5e-7 + 1.4e-7·ln(classes), as the terms that the exponential gets least exact weigh least in s;
//! for `f64` logits it is rounding error.
//!
//! *Exactness.* What a row adds depends on that row alone, and adding is exact; so batches, their
//! order and merges leave no trace in the state. A batch counts as a whole or not at all.
//!
//! It loses where there are tens of thousands of classes: the confusion matrix takes 8·classes²
//! bytes. Language models over a vocabulary want a meter without one.

use super::exact_sum::ExactSum;
use super::rows::{Logit, first_index, first_outside, largest, rank};
use super::state::{ClassificationState, MAX_SAMPLES};
use crate::Error;

/// The largest number of classes: its confusion matrix takes 2 GiB.
pub const MAX_CLASSES: usize = 1 << 14;

/// An accumulator over rows of logits and their targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classification {
    classes: usize,
    /// Rising and distinct.
    topk: Vec<usize>,
    samples: u64,
    /// Row = true class, column = predicted class.
    confusion: Vec<u64>,
    /// For each k of `topk`.
    hits: Vec<u64>,
    nll: ExactSum,
    nll_squared: ExactSum,
}

/// What one row adds.
struct Outcome {
    target: usize,
    predicted: usize,
    rank: usize,
    nll: f64,
}

impl Classification {
    /// An empty meter for `classes` classes and the given k of top-k accuracy, kept sorted.
    ///
    /// # Errors
    ///
    /// [`Error::Classes`], [`Error::TopK`] or [`Error::TopKRepeated`].
    pub fn new(classes: usize, topk: &[usize]) -> Result<Self, Error> {
        let topk = check_shape(classes, topk)?;
        Ok(Self {
            classes,
            samples: 0,
            confusion: vec![0; classes * classes],
            hits: vec![0; topk.len()],
            topk,
            nll: ExactSum::new(),
            nll_squared: ExactSum::new(),
        })
    }

    /// Adds a batch: `targets.len()` rows of `classes` logits each, one after the other.
    ///
    /// # Errors
    ///
    /// [`Error::Length`], [`Error::Target`], [`Error::Logit`] or [`Error::Full`]; the meter is then
    /// what it was before.
    pub fn update<F: Logit>(&mut self, logits: &[F], targets: &[i64]) -> Result<(), Error> {
        let outcomes = self.outcomes(logits, targets)?;
        let samples = self.room_for(outcomes.len() as u64)?;
        for outcome in &outcomes {
            self.confusion[outcome.target * self.classes + outcome.predicted] += 1;
            for (hits, &k) in self.hits.iter_mut().zip(&self.topk) {
                *hits += u64::from(outcome.rank < k);
            }
            self.nll.add_finite(outcome.nll);
            self.nll_squared.add_finite(outcome.nll * outcome.nll);
        }
        self.samples = samples;
        Ok(())
    }

    /// Adds everything that `other` has seen.
    ///
    /// # Errors
    ///
    /// [`Error::Unlike`] if classes or topk differ, or [`Error::Full`]; the meter is then what it
    /// was before.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        if self.classes != other.classes {
            return Err(Error::Unlike {
                field: "classes",
                this: self.classes.to_string(),
                other: other.classes.to_string(),
            });
        }
        if self.topk != other.topk {
            return Err(Error::Unlike {
                field: "topk",
                this: format!("{:?}", self.topk),
                other: format!("{:?}", other.topk),
            });
        }
        self.samples = self.room_for(other.samples)?;
        // Every cell is at most the number of samples, which fits.
        let counts = self.confusion.iter_mut().chain(&mut self.hits);
        for (mine, theirs) in counts.zip(other.confusion.iter().chain(&other.hits)) {
            *mine += theirs;
        }
        self.nll.merge(&other.nll);
        self.nll_squared.merge(&other.nll_squared);
        Ok(())
    }

    /// The number of classes.
    #[must_use]
    pub const fn classes(&self) -> usize {
        self.classes
    }

    /// The k of top-k accuracy, rising.
    #[must_use]
    pub fn topk(&self) -> &[usize] {
        &self.topk
    }

    /// The number of rows seen.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// The confusion matrix, row by row: the row is the true class, the column the predicted one.
    #[must_use]
    pub fn confusion(&self) -> &[u64] {
        &self.confusion
    }

    /// For each k of [`Classification::topk`], how many targets were among the first k classes.
    #[must_use]
    pub fn hits(&self) -> &[u64] {
        &self.hits
    }

    /// The exact sum of the negative log-likelihood.
    #[must_use]
    pub const fn nll(&self) -> &ExactSum {
        &self.nll
    }

    /// The exact sum of the square of the negative log-likelihood, each square rounded.
    #[must_use]
    pub const fn nll_squared(&self) -> &ExactSum {
        &self.nll_squared
    }

    /// The state as plain data; equal meters give equal states.
    #[must_use]
    pub fn state(&self) -> ClassificationState {
        let signed = |counts: &[u64]| counts.iter().map(|count| count.cast_signed()).collect();
        ClassificationState {
            classes: self.classes,
            topk: self.topk.clone(),
            samples: self.samples.cast_signed(),
            confusion: signed(&self.confusion),
            hits: signed(&self.hits),
            nll: self.nll.chunks(),
            nll_squared: self.nll_squared.chunks(),
        }
    }

    /// The meter that wrote `state`.
    ///
    /// # Errors
    ///
    /// As [`Classification::new`], or [`Error::State`] if no meter can have written it.
    pub fn from_state(state: &ClassificationState) -> Result<Self, Error> {
        let topk = check_shape(state.classes, &state.topk)?;
        if topk != state.topk {
            return Err(Error::State {
                field: "topk",
                problem: format!("is {:?}, not rising", state.topk),
            });
        }
        let checked = state.check()?;
        Ok(Self {
            classes: state.classes,
            topk,
            samples: checked.samples,
            confusion: checked.confusion,
            hits: checked.hits,
            nll: checked.nll,
            nll_squared: checked.nll_squared,
        })
    }

    fn outcomes<F: Logit>(&self, logits: &[F], targets: &[i64]) -> Result<Vec<Outcome>, Error> {
        let classes = self.classes;
        if targets.len().checked_mul(classes) != Some(logits.len()) {
            return Err(Error::Length {
                values: logits.len(),
                rows: targets.len(),
                classes,
            });
        }
        let rows = logits.chunks_exact(classes).zip(targets).enumerate();
        rows.map(|(row, (logits, &value))| {
            let target = usize::try_from(value)
                .ok()
                .filter(|&target| target < classes);
            let target = target.ok_or(Error::Target {
                row,
                value,
                classes,
            })?;
            let max = largest(logits).ok_or_else(|| logit_error(row, logits))?;
            Ok(outcome(logits, target, max))
        })
        .collect()
    }

    fn room_for(&self, samples: u64) -> Result<u64, Error> {
        let total = self.samples.checked_add(samples);
        total
            .filter(|&total| total <= MAX_SAMPLES)
            .ok_or(Error::Full { limit: MAX_SAMPLES })
    }
}

#[inline]
fn outcome<F: Logit>(logits: &[F], target: usize, max: F) -> Outcome {
    let rank = rank(logits, target) as usize;
    let predicted = match rank {
        0 => target,
        _ => first_index(logits, max),
    };
    let (own, top): (f64, f64) = (logits[target].into(), max.into());
    Outcome {
        target,
        predicted,
        rank,
        nll: (top - own) + F::exp_sum_of_others(logits, max, predicted).ln_1p(),
    }
}

#[cold]
fn logit_error<F: Logit>(row: usize, logits: &[F]) -> Error {
    let column = first_outside(logits).unwrap_or_default();
    Error::Logit {
        row,
        column,
        value: logits[column].into(),
        limit: F::LIMIT.into(),
    }
}

fn check_shape(classes: usize, topk: &[usize]) -> Result<Vec<usize>, Error> {
    if !(2..=MAX_CLASSES).contains(&classes) {
        return Err(Error::Classes {
            classes,
            limit: MAX_CLASSES,
        });
    }
    let mut sorted = topk.to_vec();
    sorted.sort_unstable();
    if let Some(&k) = sorted.iter().find(|&&k| k == 0 || k > classes) {
        return Err(Error::TopK { k, classes });
    }
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::TopKRepeated { k: pair[0] });
    }
    Ok(sorted)
}
