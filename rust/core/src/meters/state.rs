//! The state of a classification meter as plain data, and what makes it believable.

use super::classification::Scores;
use super::exact_sum::ExactSum;
use super::fixed::FixedSum;
use super::reliability::Reliability;
use crate::Error;

/// Everything a [`super::Classification`] remembers, in types that every file format has.
///
/// The fields are public and may come from anywhere; [`super::Classification::from_state`] checks
/// them against each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassificationState {
    /// The number of classes.
    pub classes: usize,
    /// The k of top-k accuracy, rising.
    pub topk: Vec<usize>,
    /// The number of bins of equal width.
    pub bins: usize,
    /// The number of rows measured.
    pub samples: i64,
    /// The number of rows left out.
    pub left_out: i64,
    /// The confusion matrix, row by row.
    pub confusion: Vec<i64>,
    /// The hits for each k of `topk`.
    pub hits: Vec<i64>,
    /// The [`ExactSum::chunks`] of the loss.
    pub nll: Vec<i64>,
    /// The [`ExactSum::chunks`] of the squared loss.
    pub nll_squared: Vec<i64>,
    /// The [`FixedSum::parts`] of the Brier score, half its square, the top-label score, its square.
    pub scores: Vec<i64>,
    /// The [`Reliability::state`].
    pub reliability: Vec<i64>,
}

/// The largest count of samples: `f64` holds every count up to here, and nobody counts that far.
pub(super) const MAX_SAMPLES: u64 = 1 << 53;

pub(super) struct Checked {
    pub(super) samples: u64,
    pub(super) left_out: u64,
    pub(super) confusion: Vec<u64>,
    pub(super) hits: Vec<u64>,
    pub(super) nll: ExactSum,
    pub(super) nll_squared: ExactSum,
    pub(super) scores: Scores,
    pub(super) reliability: Reliability,
}

impl ClassificationState {
    /// Checks all that must hold between the parts; `classes` and `topk` are known to be valid.
    pub(super) fn check(&self) -> Result<Checked, Error> {
        let samples = sample_count("samples", self.samples)?;
        let confusion = counts(
            "confusion",
            &self.confusion,
            self.classes * self.classes,
            samples,
        )?;
        let total: u128 = confusion.iter().map(|&count| u128::from(count)).sum();
        if total != u128::from(samples) {
            return Err(refuse(
                "confusion",
                format!("sums to {total}, not to {samples} samples"),
            ));
        }
        let hits = counts("hits", &self.hits, self.topk.len(), samples)?;
        self.check_hits(&confusion, &hits, samples)?;
        let right = confusion.iter().step_by(self.classes + 1).sum();
        Ok(Checked {
            samples,
            left_out: sample_count("left_out", self.left_out)?,
            scores: scores(&self.scores, samples)?,
            reliability: Reliability::from_state(self.bins, &self.reliability, samples, right)?,
            confusion,
            hits,
            nll: loss_sum("nll", &self.nll, samples)?,
            nll_squared: loss_sum("nll_squared", &self.nll_squared, samples)?,
        })
    }

    /// Hits rise with k, from the trace of the confusion matrix at 1 to all samples at `classes`.
    fn check_hits(&self, confusion: &[u64], hits: &[u64], samples: u64) -> Result<(), Error> {
        let diagonal = confusion.iter().step_by(self.classes + 1);
        let right: u64 = diagonal.sum();
        let mut least = right;
        for (&k, &count) in self.topk.iter().zip(hits) {
            let most = match k {
                1 => right,
                _ => samples,
            };
            if k == self.classes {
                least = samples;
            }
            if !(least..=most).contains(&count) {
                let problem = format!("holds {count} for k = {k}, out of {least} to {most}");
                return Err(refuse("hits", problem));
            }
            least = count;
        }
        Ok(())
    }
}

fn sample_count(field: &'static str, value: i64) -> Result<u64, Error> {
    let count = u64::try_from(value).ok();
    count
        .filter(|&count| count <= MAX_SAMPLES)
        .ok_or_else(|| refuse(field, format!("is {value}, not a count")))
}

fn scores(parts: &[i64], samples: u64) -> Result<Scores, Error> {
    let (&[brier, brier_squared, top_label, top_label_squared], []) = parts.as_chunks::<2>() else {
        let problem = format!("has length {}, not 8", parts.len());
        return Err(refuse("scores", problem));
    };
    let sum = |parts, most| FixedSum::from_parts("scores", parts, samples, most);
    Ok(Scores {
        brier: sum(brier, 2)?,
        brier_squared: sum(brier_squared, 2)?,
        top_label: sum(top_label, 1)?,
        top_label_squared: sum(top_label_squared, 1)?,
    })
}

fn counts(
    field: &'static str,
    values: &[i64],
    length: usize,
    most: u64,
) -> Result<Vec<u64>, Error> {
    if values.len() != length {
        return Err(refuse(
            field,
            format!("has length {}, not {length}", values.len()),
        ));
    }
    let count = |&value: &i64| {
        let count = u64::try_from(value).ok().filter(|&count| count <= most);
        count.ok_or_else(|| refuse(field, format!("holds {value}, not a count up to {most}")))
    };
    values.iter().map(count).collect()
}

/// Sums of losses are finite and not negative, and 0 where there are no samples.
pub(super) fn loss_sum(
    field: &'static str,
    chunks: &[i64],
    samples: u64,
) -> Result<ExactSum, Error> {
    let sum = ExactSum::from_chunks(chunks).map_err(|error| match error {
        Error::State { problem, .. } => refuse(field, problem),
        other => other,
    })?;
    let value = sum.value();
    let believable = value >= 0.0 && value.is_finite() && (samples > 0 || value == 0.0);
    if believable {
        Ok(sum)
    } else {
        Err(refuse(field, format!("is {value:e} for {samples} samples")))
    }
}

fn refuse(field: &'static str, problem: String) -> Error {
    Error::State { field, problem }
}
