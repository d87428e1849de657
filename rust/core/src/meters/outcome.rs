//! What one row of logits says: predicted class, rank of the target, loss.
//!
//! [`outcomes`] is compiled twice on x86-64, once for the oldest processors and once for AVX2; the
//! second is the same source, so it does the same operations in the same order, and neither fuses
//! multiplications with additions. They agree to the bit, and a test holds them to that.

#![allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the vector unit of the caller"
)]

use super::exp::{exp_nonpositive_f64, ln_1p_nonnegative};
use super::few::{Block, FEW, squared_distance};
use super::rows::{LANES, Logit, exp_sums_of_others, first_index, first_outside, largest, rank};
use super::source::Rows;
use crate::Error;

/// What one row adds to a meter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// The true class.
    pub target: u32,
    /// The first class with the largest logit.
    pub predicted: u32,
    /// How many classes a stable sort by falling logit puts before the target.
    pub rank: u32,
    /// -ln of the probability of the target.
    pub nll: f64,
    /// The odds against the prediction, (1 - p) / p.
    pub against: f64,
    /// The squared distance of the probabilities from those that put 1 on the target.
    pub brier: f64,
}

/// What to do with a row that holds NaN or an infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonFinite {
    /// Refuse the batch that holds it.
    Refuse,
    /// Leave the row out.
    LeaveOut,
}

/// The outcomes of a batch, and how many rows are left out.
pub(super) fn outcomes<R: Rows>(
    rows: &R,
    targets: &[i64],
    classes: usize,
    policy: NonFinite,
) -> Result<(Vec<Outcome>, u64), Error> {
    if rows.columns() != classes || rows.len() != targets.len() {
        return Err(Error::Length {
            values: rows.len().saturating_mul(rows.columns()),
            rows: targets.len(),
            classes,
        });
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[allow(unsafe_code, reason = "the processor was asked")]
        // SAFETY: the function needs nothing but AVX2, which was just detected.
        return unsafe { wide::outcomes(rows, targets, classes, policy) };
    }
    generic(rows, targets, classes, policy)
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{Error, NonFinite, Outcome, Rows, generic};

    #[target_feature(enable = "avx2")]
    pub(super) fn outcomes<R: Rows>(
        rows: &R,
        targets: &[i64],
        classes: usize,
        policy: NonFinite,
    ) -> Result<(Vec<Outcome>, u64), Error> {
        generic(rows, targets, classes, policy)
    }
}

#[inline(always)]
fn generic<R: Rows>(
    rows: &R,
    targets: &[i64],
    classes: usize,
    policy: NonFinite,
) -> Result<(Vec<Outcome>, u64), Error> {
    if classes <= FEW {
        return few(rows, targets, classes, policy);
    }
    let mut read = Vec::with_capacity(targets.len());
    let mut left_out = 0;
    let mut scratch = Vec::new();
    for (row, &value) in targets.iter().enumerate() {
        let target = class_of(row, value, classes)?;
        let logits = rows.row(row, &mut scratch);
        match largest(logits) {
            Some(max) => read.push(outcome(logits, target, max)),
            None if policy == NonFinite::LeaveOut => left_out += 1,
            None => return Err(logit_error(row, logits)),
        }
    }
    Ok((read, left_out))
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "a class is below FEW")]
fn few<R: Rows>(
    rows: &R,
    targets: &[i64],
    classes: usize,
    policy: NonFinite,
) -> Result<(Vec<Outcome>, u64), Error> {
    let mut read = Vec::with_capacity(targets.len());
    let mut left_out = 0;
    let mut scratch = Vec::new();
    let mut block = Block::new(classes);
    for (start, targets) in (0..).step_by(LANES).zip(targets.chunks(LANES)) {
        let mut wrong = None;
        for (lane, &value) in targets.iter().enumerate() {
            match class_of(start + lane, value, classes) {
                Ok(target) => block.set(lane, rows.row(start + lane, &mut scratch), target as u32),
                Err(error) => {
                    wrong = Some((lane, error));
                    break;
                }
            }
        }
        let whole = wrong.as_ref().map_or(targets.len(), |&(lane, _)| lane);
        for (lane, outcome) in block.outcomes().into_iter().take(whole).enumerate() {
            match outcome {
                Some(outcome) => read.push(outcome),
                None if policy == NonFinite::LeaveOut => left_out += 1,
                None => {
                    return Err(logit_error(
                        start + lane,
                        rows.row(start + lane, &mut scratch),
                    ));
                }
            }
        }
        if let Some((_, error)) = wrong {
            return Err(error);
        }
    }
    Ok((read, left_out))
}

#[inline(always)]
fn class_of(row: usize, value: i64, classes: usize) -> Result<usize, Error> {
    let target = usize::try_from(value).ok();
    target
        .filter(|&target| target < classes)
        .ok_or(Error::Target {
            row,
            value,
            classes,
        })
}

#[inline(always)]
#[allow(
    clippy::cast_possible_truncation,
    reason = "a class is below MAX_CLASSES or, in a text, below 2³²"
)]
fn outcome<F: Logit>(logits: &[F], target: usize, max: F) -> Outcome {
    let rank = rank(logits, target);
    let predicted = match rank {
        0 => target,
        _ => first_index(logits, max),
    };
    let (own, top): (f64, f64) = (logits[target].into(), max.into());
    let (s, q) = exp_sums_of_others(logits, max, predicted);
    let hit = predicted == target;
    let t = if hit {
        0.0
    } else {
        exp_nonpositive_f64(own - top)
    };
    Outcome {
        target: target as u32,
        predicted: predicted as u32,
        rank,
        nll: (top - own) + ln_1p_nonnegative(s),
        against: s,
        brier: squared_distance(s, q, t, hit),
    }
}

#[cold]
fn logit_error<F: Logit>(row: usize, logits: &[F]) -> Error {
    let column = first_outside(logits).unwrap_or_default();
    Error::Logit {
        row,
        column,
        value: logits.get(column).map_or(f64::NAN, |&x| x.into()),
        limit: F::LIMIT.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::source::{Dense, Half, Halves};
    use super::{NonFinite, Rows, generic, outcomes};

    fn same<R: Rows>(rows: &R, targets: &[i64], classes: usize) -> Result<(), TestCaseError> {
        for policy in [NonFinite::Refuse, NonFinite::LeaveOut] {
            let fast = outcomes(rows, targets, classes, policy);
            let slow = generic(rows, targets, classes, policy);
            // NaN in an error is not equal to itself.
            prop_assert_eq!(format!("{fast:?}"), format!("{slow:?}"));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn every_vector_width_gives_the_same_bits(
            (classes, logits) in (1_usize..80).prop_flat_map(|classes| {
                let value = prop_oneof![20 => -30_f64..30.0, 1 => any::<f64>()];
                (Just(classes), vec(value, classes * 3))
            }),
            bits in any::<u16>(),
        ) {
            let targets = [0, classes.cast_signed() as i64 / 2, classes.cast_signed() as i64 - 1];
            same(&Dense::new(&logits, classes), &targets, classes)?;
            #[allow(clippy::cast_possible_truncation, reason = "any f32 will do")]
            let single: Vec<f32> = logits.iter().map(|&x| x as f32).collect();
            same(&Dense::new(&single, classes), &targets, classes)?;
            let halves: Vec<u16> = single.iter().map(|x| (x.to_bits() >> 16) as u16 ^ (bits & 7)).collect();
            for half in [Half::Binary16, Half::Brain] {
                same(&Halves::new(&halves, classes, half), &targets, classes)?;
            }
        }
    }
}
