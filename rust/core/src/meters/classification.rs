//! Counts and exact sums from which every score of a classifier follows.
//!
//! [`Classification`] reads rows of logits with their targets and keeps the confusion matrix, the
//! hits of top-k accuracy, the [`Reliability`] of the predictions, and the exact sums of the negative
//! log-likelihood, of the Brier score and of its top-label variant, each with the sum of squares.
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
//! order and merges leave no trace in the state. A batch counts as a whole or not at all. A row with
//! NaN or an infinity refuses its batch, or, if [`NonFinite::LeaveOut`] says so, is counted and adds
//! nothing else.
//!
//! It loses where there are tens of thousands of classes: the confusion matrix takes 8·classes²
//! bytes. Language models over a vocabulary want a meter without one.

use super::confusion::Confusion;
use super::exact_sum::ExactSum;
use super::fixed::FixedSum;
use super::outcome::{NonFinite, Outcome, outcomes};
use super::reliability::Reliability;
use super::rows::Logit;
use super::source::{Dense, Rows};
use super::state::{ClassificationState, MAX_SAMPLES};
use crate::Error;

/// The largest number of classes: its confusion matrix takes 2 GiB.
pub const MAX_CLASSES: usize = 1 << 14;

/// The number of bins of equal width, unless another is asked for.
pub const DEFAULT_BINS: usize = 15;

/// An accumulator over rows of logits and their targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classification {
    classes: usize,
    /// Rising and distinct.
    topk: Vec<usize>,
    bins: usize,
    samples: u64,
    /// Rows that held NaN or an infinity and were left out.
    left_out: u64,
    /// Row = true class, column = predicted class.
    confusion: Confusion,
    /// For each k of `topk`.
    hits: Vec<u64>,
    nll: ExactSum,
    nll_squared: ExactSum,
    scores: Scores,
    reliability: Reliability,
}

/// Sums of quadratic scores, and of their squares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scores {
    /// The squared distance of the probabilities from those that put 1 on the target.
    pub brier: FixedSum,
    /// The square of that, halved, as it is at most 4.
    pub brier_squared: FixedSum,
    /// The squared distance of the confidence from 1 if the prediction is right, else from 0.
    pub top_label: FixedSum,
    /// The square of that.
    pub top_label_squared: FixedSum,
}

impl Scores {
    #[inline]
    fn add(&mut self, brier: f64, against: f64, confidence: f64, hit: bool) {
        self.brier.add(brier);
        self.brier_squared.add(brier * brier / 2.0);
        let gap = if hit {
            (against * confidence).min(1.0)
        } else {
            confidence
        };
        let square = gap * gap;
        self.top_label.add(square);
        self.top_label_squared.add(square * square);
    }

    fn merge(&mut self, other: &Self) {
        self.brier.merge(other.brier);
        self.brier_squared.merge(other.brier_squared);
        self.top_label.merge(other.top_label);
        self.top_label_squared.merge(other.top_label_squared);
    }
}

impl Classification {
    /// An empty meter for `classes` classes and the given k of top-k accuracy, kept sorted, with
    /// [`DEFAULT_BINS`] bins.
    ///
    /// # Errors
    ///
    /// As [`Classification::with_bins`].
    pub fn new(classes: usize, topk: &[usize]) -> Result<Self, Error> {
        Self::with_bins(classes, topk, DEFAULT_BINS)
    }

    /// An empty meter whose calibration has `bins` bins of equal width.
    ///
    /// # Errors
    ///
    /// [`Error::Classes`], [`Error::TopK`], [`Error::TopKRepeated`] or [`Error::Bins`].
    pub fn with_bins(classes: usize, topk: &[usize], bins: usize) -> Result<Self, Error> {
        let topk = check_shape(classes, topk)?;
        Ok(Self {
            classes,
            bins,
            samples: 0,
            left_out: 0,
            confusion: Confusion::new(classes),
            hits: vec![0; topk.len()],
            topk,
            nll: ExactSum::new(),
            nll_squared: ExactSum::new(),
            scores: Scores::default(),
            reliability: Reliability::new(bins)?,
        })
    }

    /// Adds a batch: `targets.len()` rows of `classes` logits each, one after the other.
    ///
    /// # Errors
    ///
    /// [`Error::Length`], [`Error::Target`], [`Error::Logit`] or [`Error::Full`]; the meter is then
    /// what it was before.
    pub fn update<F: Logit>(&mut self, logits: &[F], targets: &[i64]) -> Result<(), Error> {
        if targets.len().checked_mul(self.classes) != Some(logits.len()) {
            return Err(Error::Length {
                values: logits.len(),
                rows: targets.len(),
                classes: self.classes,
            });
        }
        let rows = Dense::new(logits, self.classes);
        self.update_rows(&rows, targets, NonFinite::Refuse)
    }

    /// Adds a batch from memory of any layout.
    ///
    /// # Errors
    ///
    /// As [`Classification::update`]; no [`Error::Logit`] if such rows are left out.
    pub fn update_rows<R: Rows>(
        &mut self,
        rows: &R,
        targets: &[i64],
        policy: NonFinite,
    ) -> Result<(), Error> {
        let (read, left_out) = outcomes(rows, targets, self.classes, policy)?;
        self.count(&read, left_out)
    }

    /// Adds rows that were read elsewhere, on another device say.
    ///
    /// # Errors
    ///
    /// [`Error::Outcome`] for one that no row of logits has, or [`Error::Full`]; the meter is then
    /// what it was before.
    pub fn update_outcomes(&mut self, read: &[Outcome], left_out: u64) -> Result<(), Error> {
        let possible = |outcome: &Outcome| {
            let classes = self.classes as u64;
            let inside = [outcome.target, outcome.predicted, outcome.rank]
                .iter()
                .all(|&class| u64::from(class) < classes);
            inside
                && (outcome.rank == 0) == (outcome.target == outcome.predicted)
                && (0.0..=2.0).contains(&outcome.brier)
                && outcome.against >= 0.0
                && outcome.nll >= 0.0
                && (outcome.nll * outcome.nll).is_finite()
        };
        match read.iter().position(|outcome| !possible(outcome)) {
            Some(row) => Err(Error::Outcome { row }),
            None => self.count(read, left_out),
        }
    }

    fn count(&mut self, read: &[Outcome], left_out: u64) -> Result<(), Error> {
        let samples = self.room_for(read.len() as u64)?;
        let all_left_out = room(self.left_out, left_out)?;
        self.confusion.expect(read.len());
        for outcome in read {
            let (target, predicted) = (outcome.target as usize, outcome.predicted as usize);
            let hit = target == predicted;
            self.confusion.add(target, predicted);
            for (hits, &k) in self.hits.iter_mut().zip(&self.topk) {
                *hits += u64::from((outcome.rank as usize) < k);
            }
            self.nll.add_finite(outcome.nll);
            self.nll_squared.add_finite(outcome.nll * outcome.nll);
            let confidence = 1.0 / (1.0 + outcome.against);
            self.scores
                .add(outcome.brier, outcome.against, confidence, hit);
            self.reliability.add_sure(outcome.against, confidence, hit);
        }
        self.samples = samples;
        self.left_out = all_left_out;
        Ok(())
    }

    /// Adds everything that `other` has seen.
    ///
    /// # Errors
    ///
    /// [`Error::Unlike`] if classes, topk or bins differ, or [`Error::Full`]; the meter is then what it
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
        if self.bins != other.bins {
            return Err(Error::Unlike {
                field: "bins",
                this: self.bins.to_string(),
                other: other.bins.to_string(),
            });
        }
        let samples = self.room_for(other.samples)?;
        self.left_out = room(self.left_out, other.left_out)?;
        self.samples = samples;
        // Every cell is at most the number of samples, which fits.
        self.confusion.merge(&other.confusion);
        for (mine, theirs) in self.hits.iter_mut().zip(&other.hits) {
            *mine += theirs;
        }
        self.nll.merge(&other.nll);
        self.nll_squared.merge(&other.nll_squared);
        self.scores.merge(&other.scores);
        self.reliability.merge(&other.reliability);
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

    /// The number of bins of equal width.
    #[must_use]
    pub const fn bins(&self) -> usize {
        self.bins
    }

    /// The number of rows measured.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// The number of rows left out, as they held NaN or an infinity.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The confusion matrix, row by row: the row is the true class, the column the predicted one.
    #[must_use]
    pub fn confusion(&self) -> Vec<u64> {
        self.confusion.counts()
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

    /// The sums of the quadratic scores.
    #[must_use]
    pub const fn scores(&self) -> &Scores {
        &self.scores
    }

    /// The predictions by confidence.
    #[must_use]
    pub const fn reliability(&self) -> &Reliability {
        &self.reliability
    }

    /// The state as plain data; equal meters give equal states.
    #[must_use]
    pub fn state(&self) -> ClassificationState {
        let signed = |counts: &[u64]| counts.iter().map(|count| count.cast_signed()).collect();
        ClassificationState {
            classes: self.classes,
            topk: self.topk.clone(),
            bins: self.bins,
            samples: self.samples.cast_signed(),
            left_out: self.left_out.cast_signed(),
            confusion: signed(&self.confusion.counts()),
            hits: signed(&self.hits),
            nll: self.nll.chunks(),
            nll_squared: self.nll_squared.chunks(),
            scores: [
                self.scores.brier,
                self.scores.brier_squared,
                self.scores.top_label,
                self.scores.top_label_squared,
            ]
            .map(FixedSum::parts)
            .concat(),
            reliability: self.reliability.state(),
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
            bins: state.bins,
            samples: checked.samples,
            left_out: checked.left_out,
            confusion: Confusion::from_counts(state.classes, checked.confusion),
            hits: checked.hits,
            nll: checked.nll,
            nll_squared: checked.nll_squared,
            scores: checked.scores,
            reliability: checked.reliability,
        })
    }

    fn room_for(&self, samples: u64) -> Result<u64, Error> {
        room(self.samples, samples)
    }
}

fn room(counted: u64, more: u64) -> Result<u64, Error> {
    let total = counted.checked_add(more);
    total
        .filter(|&total| total <= MAX_SAMPLES)
        .ok_or(Error::Full { limit: MAX_SAMPLES })
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
