//! Everything a detector remembers, as plain data.
//!
//! Numbers are finite, so that every file format can hold them. The fields are public and may come
//! from anywhere; [`super::Detector::from_state`] checks them.

use super::config::ADOPT;
use super::error::VitalsError;

/// What one signal remembers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SignalState {
    /// How many values it accepted.
    pub accepted: u64,
    /// Its recent level, in its coordinate.
    pub level: f64,
    /// The fast average of its deviation.
    pub fast: f64,
    /// The slow one.
    pub slow: f64,
    /// Whether it may be negative, and is read without a logarithm.
    pub signed: bool,
    /// Its first values other than zero, eight at most.
    pub first: Vec<f64>,
    /// Values far below its level, three at most.
    pub lows: Vec<f64>,
}

/// What the slow watch remembers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SlowState {
    /// How many losses it has seen.
    pub seen: u64,
    /// Their exponential mean.
    pub mean: f64,
    /// The exponential mean of their deviation.
    pub deviation: f64,
    /// The lowest mean.
    pub best: f64,
    /// The deviation at that time.
    pub best_deviation: f64,
    /// The mean at the start.
    pub top: f64,
    /// For how many steps the loss has been three times its best.
    pub drawdown: u32,
    /// For how many steps most of the progress has been lost.
    pub collapse: u32,
}

/// Everything a detector remembers; the four channels are loss, norm, joint and run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// How many observations there were.
    pub observed: u64,
    /// The loss.
    pub loss: SignalState,
    /// The gradient norm.
    pub norm: SignalState,
    /// The slow watch.
    pub slow: SlowState,
    /// The score of the run channel at the last step.
    pub run: f64,
    /// The accepted scores of each channel, the oldest first.
    pub windows: Vec<Vec<f64>>,
    /// Scores that wait to enter the windows, the oldest first: one for each channel that has one.
    pub delay: Vec<Vec<Option<f64>>>,
    /// Coordinates of loss and norm of the refused steps in a row, or of an announced shift.
    pub held: Vec<Vec<Option<f64>>>,
    /// How many steps ago a step was refused, among the last 128; rising.
    pub refused: Vec<u32>,
    /// How many steps the thresholds stay low, this one included.
    pub hot: u32,
    /// How many steps a weak anomaly may keep them low.
    pub span: u32,
    /// How many steps a second negative loss means that losses are signed.
    pub sign: u32,
    /// How many steps in a row were refused.
    pub streak: u32,
    /// Whether a PANIC was given that nobody acted on yet.
    pub panicked: bool,
    /// How many more steps are taken in as data.
    pub learning: u32,
    /// How many steps of an announced shift are left.
    pub expected: u32,
    /// How many accepted steps are left until a rollback is forgotten.
    pub refractory: u32,
    /// How many steps in a row the gradient scaler skipped.
    pub amp_skips: u32,
    /// Whether its scale is below the floor.
    pub amp_low: bool,
    /// For each parameter group, how many updates in a row were exactly zero.
    pub still: Vec<u32>,
}

/// How many steps the memory of refusals goes back.
const REFUSAL_MEMORY: u32 = u128::BITS;
/// Parameter groups beyond this are a mistake.
const MAX_GROUPS: usize = 1 << 20;

pub(super) fn refuse(field: &'static str, problem: &'static str) -> VitalsError {
    VitalsError::State { field, problem }
}

/// Whether all are numbers of at most this size.
pub(super) fn all_within(
    field: &'static str,
    values: &[f64],
    largest: f64,
) -> Result<(), VitalsError> {
    if values.iter().all(|value| value.abs() <= largest) {
        Ok(())
    } else {
        Err(refuse(
            field,
            "has a number that is not finite or too large",
        ))
    }
}

/// Rows that came as lists, as arrays of the length they must have.
pub(super) fn rows<const N: usize>(
    field: &'static str,
    rows: &[Vec<Option<f64>>],
    most: usize,
    largest: f64,
) -> Result<Vec<[Option<f64>; N]>, VitalsError> {
    if rows.len() > most {
        return Err(refuse(field, "has too many rows"));
    }
    let array = |row: &Vec<Option<f64>>| {
        let array: [Option<f64>; N] = row
            .as_slice()
            .try_into()
            .map_err(|_| refuse(field, "has a row of the wrong length"))?;
        for value in array.into_iter().flatten() {
            all_within(field, &[value], largest)?;
        }
        Ok(array.map(|value| value.map(|value| value + 0.0)))
    };
    rows.iter().map(array).collect()
}

impl State {
    /// The refusals as bits, the last step in the lowest one.
    pub(super) fn refused_bits(&self) -> Result<u128, VitalsError> {
        let rising = self.refused.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || self.refused.iter().any(|&age| age >= REFUSAL_MEMORY) {
            return Err(refuse("refused", "is not rising or not below 128"));
        }
        Ok(self.refused.iter().fold(0, |bits, &age| bits | 1 << age))
    }

    /// Checks the counters against what they count down from.
    pub(super) fn check_counters(
        &self,
        limits: &[(&'static str, u32, u32)],
    ) -> Result<(), VitalsError> {
        for &(field, value, limit) in limits {
            if value > limit {
                return Err(refuse(field, "is beyond what it counts down from"));
            }
        }
        if self.still.len() > MAX_GROUPS {
            return Err(refuse("still", "has too many parameter groups"));
        }
        Ok(())
    }
}

/// The ages of the refusals, as [`State::refused`] holds them.
pub(super) fn refused_ages(bits: u128) -> Vec<u32> {
    (0..REFUSAL_MEMORY)
        .filter(|&age| bits >> age & 1 == 1)
        .collect()
}

/// How many coordinates can be held: those of a shift, and those after a row that did not end.
pub(super) const fn most_held(window: usize) -> usize {
    window + 2 * ADOPT as usize
}
