//! The slow watch: a loss that creeps up so slowly that every step looks healthy.
//!
//! It compares a smoothed loss with the best one and with the start of the run; it knows neither
//! the task nor a number of classes.

use super::arithmetic::{larger, smaller};
use super::error::VitalsError;
use super::signal::LARGEST;
use super::state::{SlowState, all_within, refuse};
use super::verdict::{Evidence, Reasons, Source};

const RATE: f64 = 0.06;
/// The best and the top are taken when the means have seen so many losses.
const START: u64 = 16;
/// So many steps in a row are an alarm.
const ROW: u32 = 8;
/// A positive loss is read as at most this many times above the mean: without it one outlier, which
/// the other channels may rightly let pass, holds the mean up for as long as a row.
const REACH: f64 = 10.0;

#[derive(Debug, Clone, Default)]
pub(super) struct SlowWatch {
    seen: u64,
    mean: f64,
    deviation: f64,
    best: f64,
    best_deviation: f64,
    top: f64,
    drawdown: u32,
    collapse: u32,
}

impl SlowWatch {
    /// Takes in an accepted loss, and gives an alarm once for every time that one begins.
    ///
    /// `offset` is that of the loss signal, None when it is signed; a muted watch counts nothing.
    pub(super) fn observe(
        &mut self,
        loss: f64,
        offset: Option<f64>,
        muted: bool,
    ) -> [Option<(Reasons, Evidence)>; 2] {
        let loss = match offset {
            Some(offset) if self.seen > 0 => {
                smaller(loss, self.mean + REACH * (self.mean + offset))
            }
            _ => loss,
        };
        let rate = larger(1.0 / (self.seen as f64 + 1.0), RATE);
        let deviation = if self.seen == 0 {
            0.0
        } else {
            1.2533 * (loss - self.mean).abs()
        };
        self.mean += rate * (loss - self.mean);
        self.deviation += rate * (deviation - self.deviation);
        self.seen = self.seen.saturating_add(1);
        if self.seen < START {
            return [None, None];
        }
        if self.seen == START {
            self.top = self.mean;
        }
        if self.seen == START || self.mean < self.best {
            self.best = self.mean;
            self.best_deviation = self.deviation;
        }
        let rise = self.mean - self.best;
        let progress = self.top - self.best;
        // The deviation of an exponential mean of independent losses, six times.
        let noise = 6.0 * smaller(self.deviation, 8.0 * self.best_deviation) * (RATE / 1.94).sqrt();
        let offset_or = offset.unwrap_or(0.0);
        let tripled = self.mean + offset_or > 3.0 * (self.best + offset_or);
        let drawdown = offset.is_some() && tripled && rise > noise;
        let given_back =
            rise > 0.7 * progress && progress > larger(0.25 * self.top.abs(), 2.0 * noise);
        let collapse = given_back && rise > noise;
        let evidence = |source, scale: f64, z: f64, threshold: f64| Evidence {
            source,
            value: self.mean,
            baseline: Some(self.best),
            scale: Some(scale),
            threshold: Some(threshold),
            z: Some(z),
            count: u64::from(ROW),
        };
        let best = self.best + offset_or;
        let begun = [
            begins(&mut self.drawdown, drawdown, muted).then_some(best),
            begins(&mut self.collapse, collapse, muted).then_some(progress),
        ];
        [
            begun[0].map(|best| {
                let z = (self.mean + offset_or) / best;
                (Reasons::DRAWDOWN, evidence(Source::Drawdown, best, z, 3.0))
            }),
            begun[1].map(|progress| {
                let z = rise / progress;
                (
                    Reasons::COLLAPSE,
                    evidence(Source::Collapse, progress, z, 0.7),
                )
            }),
        ]
    }

    pub(super) fn state(&self) -> SlowState {
        SlowState {
            seen: self.seen,
            mean: self.mean,
            deviation: self.deviation,
            best: self.best,
            best_deviation: self.best_deviation,
            top: self.top,
            drawdown: self.drawdown,
            collapse: self.collapse,
        }
    }

    pub(super) fn from_state(state: &SlowState) -> Result<Self, VitalsError> {
        let values = [state.mean, state.best, state.top];
        let deviations = [state.deviation, state.best_deviation];
        all_within("slow", &values, 1.01 * LARGEST)?;
        all_within("slow", &deviations, 3.0 * LARGEST)?;
        if deviations.iter().any(|&deviation| deviation < 0.0) {
            return Err(refuse("slow", "has a negative deviation"));
        }
        if state.drawdown > ROW + 1 || state.collapse > ROW + 1 {
            return Err(refuse("slow", "counts a longer row than it can"));
        }
        Ok(Self {
            seen: state.seen,
            mean: state.mean,
            deviation: state.deviation,
            best: state.best,
            best_deviation: state.best_deviation,
            top: state.top,
            drawdown: state.drawdown,
            collapse: state.collapse,
        })
    }
}

/// Counts steps in a row; true at the one that completes it.
fn begins(row: &mut u32, condition: bool, muted: bool) -> bool {
    *row = if condition && !muted {
        (*row + 1).min(ROW + 1)
    } else {
        0
    };
    *row == ROW
}
