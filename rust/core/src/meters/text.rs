//! The loss of a language model over its tokens, for vocabularies of any size.
//!
//! [`Text`] reads rows of logits as [`super::Classification`] does, and keeps no confusion matrix: the
//! counts of tokens, ignored tokens and hits, and the exact sums of the loss and of its square.

use super::exact_sum::ExactSum;
use super::outcome::{NonFinite, outcomes};
use super::source::Rows;
use super::state::{MAX_SAMPLES, loss_sum};
use crate::Error;

/// The largest vocabulary.
pub const MAX_VOCABULARY: usize = 1 << 31;

/// An accumulator over rows of logits and the tokens that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    vocabulary: usize,
    /// Tokens, ignored tokens, tokens left out, hits.
    counts: [u64; 4],
    nll: ExactSum,
    nll_squared: ExactSum,
}

/// Some rows of others.
struct Selected<'a, R> {
    rows: &'a R,
    places: &'a [usize],
}

impl<R: Rows> Rows for Selected<'_, R> {
    type Value = R::Value;

    #[inline]
    fn len(&self) -> usize {
        self.places.len()
    }

    #[inline]
    fn columns(&self) -> usize {
        self.rows.columns()
    }

    #[inline]
    fn row<'a>(&'a self, index: usize, scratch: &'a mut Vec<Self::Value>) -> &'a [Self::Value] {
        self.rows.row(self.places[index], scratch)
    }
}

impl Text {
    /// An empty meter for a vocabulary.
    ///
    /// # Errors
    ///
    /// [`Error::Vocabulary`] unless it has 2 to [`MAX_VOCABULARY`] tokens.
    pub fn new(vocabulary: usize) -> Result<Self, Error> {
        if !(2..=MAX_VOCABULARY).contains(&vocabulary) {
            return Err(Error::Vocabulary {
                vocabulary,
                limit: MAX_VOCABULARY,
            });
        }
        Ok(Self {
            vocabulary,
            counts: [0; 4],
            nll: ExactSum::new(),
            nll_squared: ExactSum::new(),
        })
    }

    /// Adds a batch; rows whose target is `ignored` are counted and not looked at.
    ///
    /// # Errors
    ///
    /// As [`super::Classification::update_rows`]; rows are counted without those that are ignored.
    pub fn update<R: Rows>(
        &mut self,
        rows: &R,
        targets: &[i64],
        ignored: Option<i64>,
        policy: NonFinite,
    ) -> Result<(), Error> {
        if rows.len() != targets.len() {
            return Err(Error::Length {
                values: rows.len().saturating_mul(rows.columns()),
                rows: targets.len(),
                classes: self.vocabulary,
            });
        }
        let places: Vec<usize> = (0..targets.len())
            .filter(|&place| Some(targets[place]) != ignored)
            .collect();
        let kept: Vec<i64> = places.iter().map(|&place| targets[place]).collect();
        let selected = Selected {
            rows,
            places: &places,
        };
        let (read, left_out) = outcomes(&selected, &kept, self.vocabulary, policy)?;
        let hits = read
            .iter()
            .filter(|one| one.target == one.predicted)
            .count();
        let more = [
            read.len() as u64,
            (targets.len() - kept.len()) as u64,
            left_out,
            hits as u64,
        ];
        self.add_counts(more)?;
        for one in &read {
            self.nll.add_finite(one.nll);
            self.nll_squared.add_finite(one.nll * one.nll);
        }
        Ok(())
    }

    /// Adds everything that `other` has seen.
    ///
    /// # Errors
    ///
    /// [`Error::Unlike`] if the vocabularies differ, or [`Error::Full`]; the meter is then what it
    /// was before.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        if self.vocabulary != other.vocabulary {
            return Err(Error::Unlike {
                field: "vocabulary",
                this: self.vocabulary.to_string(),
                other: other.vocabulary.to_string(),
            });
        }
        self.add_counts(other.counts)?;
        self.nll.merge(&other.nll);
        self.nll_squared.merge(&other.nll_squared);
        Ok(())
    }

    /// The number of tokens of the vocabulary.
    #[must_use]
    pub const fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Tokens measured, ignored tokens, tokens left out, and hits among the measured.
    #[must_use]
    pub const fn counts(&self) -> [u64; 4] {
        self.counts
    }

    /// The exact sums of the loss and of its square.
    #[must_use]
    pub const fn losses(&self) -> (&ExactSum, &ExactSum) {
        (&self.nll, &self.nll_squared)
    }

    /// The meter with these counts and [`ExactSum::chunks`] of the sums.
    ///
    /// # Errors
    ///
    /// As [`Text::new`], or [`Error::State`] if no meter has such a state.
    pub fn from_state(
        vocabulary: usize,
        counts: [i64; 4],
        nll: &[i64],
        nll_squared: &[i64],
    ) -> Result<Self, Error> {
        let mut read = Self::new(vocabulary)?;
        let valid = counts.map(u64::try_from);
        let ([Ok(tokens), Ok(ignored), Ok(left_out), Ok(hits)], true) =
            (valid, counts[3] <= counts[0])
        else {
            return Err(Error::State {
                field: "counts",
                problem: format!("is {counts:?}"),
            });
        };
        read.add_counts([tokens, ignored, left_out, hits])?;
        read.nll = loss_sum("nll", nll, tokens)?;
        read.nll_squared = loss_sum("nll_squared", nll_squared, tokens)?;
        Ok(read)
    }

    fn add_counts(&mut self, more: [u64; 4]) -> Result<(), Error> {
        let mut counts = self.counts;
        for (count, more) in counts.iter_mut().zip(more) {
            *count = count
                .checked_add(more)
                .filter(|&count| count <= MAX_SAMPLES)
                .ok_or(Error::Full { limit: MAX_SAMPLES })?;
        }
        self.counts = counts;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_wrap, reason = "vocabularies are small")]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::source::Dense;
    use super::super::{Classification, NonFinite};
    use super::Text;

    fn measured(vocabulary: usize, logits: &[f32], targets: &[i64], ignored: Option<i64>) -> Text {
        let mut meter = Text::new(vocabulary).expect("a vocabulary");
        let rows = Dense::new(logits, vocabulary);
        meter
            .update(&rows, targets, ignored, NonFinite::Refuse)
            .expect("a valid batch");
        meter
    }

    proptest! {
        #[test]
        fn it_is_a_classification_of_the_rows_that_are_not_ignored(
            (vocabulary, logits, targets) in (2_usize..70).prop_flat_map(|vocabulary| {
                let target = prop_oneof![3 => 0..vocabulary as i64, 1 => Just(-100_i64)];
                (Just(vocabulary), vec(-20_f32..20.0, vocabulary * 6), vec(target, 6))
            }),
            cut in 0_usize..=6,
        ) {
            let whole = measured(vocabulary, &logits, &targets, Some(-100));
            let (left, right) = logits.split_at(cut * vocabulary);
            let mut merged = measured(vocabulary, right, &targets[cut..], Some(-100));
            merged.merge(&measured(vocabulary, left, &targets[..cut], Some(-100))).expect("alike");
            prop_assert_eq!(&merged, &whole);
            let mut plain = Classification::new(vocabulary, &[1]).expect("a shape");
            for (row, &target) in logits.chunks(vocabulary).zip(&targets) {
                if target >= 0 {
                    plain.update(row, &[target]).expect("a valid row");
                }
            }
            let kept = plain.samples();
            prop_assert_eq!(whole.counts(), [kept, 6 - kept, 0, plain.hits()[0]]);
            prop_assert_eq!(whole.losses(), (plain.nll(), plain.nll_squared()));
            let (nll, nll_squared) = (whole.losses().0.chunks(), whole.losses().1.chunks());
            let counts = whole.counts().map(u64::cast_signed);
            prop_assert_eq!(Text::from_state(vocabulary, counts, &nll, &nll_squared), Ok(whole));
        }

        #[test]
        fn a_bad_batch_changes_nothing(logits in vec(any::<f32>(), 0..12), targets in vec(-2_i64..4, 0..5)) {
            let mut meter = measured(3, &[0.0; 3], &[1], None);
            let before = meter.clone();
            if meter.update(&Dense::new(&logits, 3), &targets, Some(-1), NonFinite::Refuse).is_err() {
                prop_assert_eq!(meter, before);
            }
        }
    }
}
