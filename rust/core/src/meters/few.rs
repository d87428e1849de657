//! Rows of few classes, sixteen at a time.
//!
//! A row of ten values does not fill a vector. So a block of rows is turned, and each vector holds
//! one class of sixteen rows. A row's sums run over its classes in their order, whatever stands
//! beside it.

#![allow(clippy::needless_bitwise_bool, reason = "a branch is not a vector")]
#![allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the vector unit of the caller"
)]

use super::exp::ln_1p_nonnegative;
use super::outcome::Outcome;
use super::rows::{LANES, Logit};

/// Up to this many classes are few.
pub(super) const FEW: usize = 32;

/// A block of rows, turned, with their targets.
pub(super) struct Block<F> {
    classes: usize,
    columns: [[F; LANES]; FEW],
    targets: [u32; LANES],
}

impl<F: Logit> Block<F> {
    /// A block of `classes` <= [`FEW`] classes whose rows are all 0, with target 0.
    pub(super) fn new(classes: usize) -> Self {
        Self {
            classes: classes.min(FEW),
            columns: [[F::ZERO; LANES]; FEW],
            targets: [0; LANES],
        }
    }

    #[inline(always)]
    pub(super) fn set(&mut self, lane: usize, row: &[F], target: u32) {
        for (column, &x) in self.columns.iter_mut().zip(row) {
            column[lane] = x;
        }
        self.targets[lane] = target;
    }

    /// What each row says; None where it holds NaN or a value beyond the limit.
    #[inline(always)]
    pub(super) fn outcomes(&self) -> [Option<Outcome>; LANES] {
        let columns = &self.columns[..self.classes];
        let mut max = [F::LOWEST; LANES];
        let mut own = [F::LOWEST; LANES];
        let mut predicted = [0_u32; LANES];
        let mut outside = [0_u32; LANES];
        for (class, column) in (0_u32..).zip(columns) {
            for lane in 0..LANES {
                let x = column[lane];
                let larger = x > max[lane];
                max[lane] = if larger { x } else { max[lane] };
                predicted[lane] = if larger { class } else { predicted[lane] };
                own[lane] = if class == self.targets[lane] {
                    x
                } else {
                    own[lane]
                };
                outside[lane] |= u32::from(!F::within(x));
            }
        }
        let mut rank = [0_u32; LANES];
        let mut exp = [0.0_f64; LANES];
        let mut square = [0.0_f64; LANES];
        let mut target_exp = [0.0_f64; LANES];
        for (class, column) in (0_u32..).zip(columns) {
            for lane in 0..LANES {
                let (x, target) = (column[lane], self.targets[lane]);
                rank[lane] += u32::from(x > own[lane]);
                rank[lane] += u32::from((x == own[lane]) & (class < target));
                let term = if class == predicted[lane] {
                    0.0
                } else {
                    F::exp_to_f64(x, max[lane])
                };
                exp[lane] += term;
                square[lane] += term * term;
                target_exp[lane] = if class == target {
                    term
                } else {
                    target_exp[lane]
                };
            }
        }
        let mut nll = [0.0; LANES];
        let mut brier = [0.0; LANES];
        for lane in 0..LANES {
            let (own, top): (f64, f64) = (own[lane].into(), max[lane].into());
            let (s, q, t) = (exp[lane], square[lane], target_exp[lane]);
            nll[lane] = (top - own) + ln_1p_nonnegative(s);
            brier[lane] = squared_distance(s, q, t, predicted[lane] == self.targets[lane]);
        }
        std::array::from_fn(|lane| {
            (outside[lane] == 0).then_some(Outcome {
                target: self.targets[lane],
                predicted: predicted[lane],
                rank: rank[lane],
                nll: nll[lane],
                against: exp[lane],
                brier: brier[lane],
            })
        })
    }
}

/// The squared distance of the probabilities from those that put 1 on the target.
///
/// With e the exponentials, 1 for the prediction, `s` their sum without it, `q` the same of their
/// squares, and `t` the target's if it is not the prediction: ((1 + s - t)² + the other squares) /
/// (1 + s)². No term is negative.
#[inline(always)]
pub(super) fn squared_distance(s: f64, q: f64, t: f64, hit: bool) -> f64 {
    let rest = 1.0 + larger(s - t);
    let missed = rest * rest + 1.0 + larger(q - t * t);
    let others = if hit { s * s + q } else { missed };
    let sum = 1.0 + s;
    let distance = others / (sum * sum);
    if distance < 2.0 { distance } else { 2.0 }
}

#[inline(always)]
fn larger(x: f64) -> f64 {
    if x > 0.0 { x } else { 0.0 }
}
