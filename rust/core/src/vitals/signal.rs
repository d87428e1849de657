//! The level and the scale of one signal: the loss, or the gradient norm.
//!
//! A positive signal is read as x = ln(v + ref/20), where `ref` is the median of its first values:
//! multiplicative noise becomes additive, the unit of the loss does not matter, and changes far
//! below the start are small. A signed one is read as it is. The score of a value is its distance
//! from a fast level, in units of a scale that both a fast and a slow average of the distance must
//! allow. The level follows by clamped steps, so that one value moves it little.

use super::arithmetic::{clamp, exp, larger, ln, smaller};
use super::error::VitalsError;
use super::state::{SignalState, all_within, refuse};

/// Larger values are read as this one: squares of differences stay finite.
pub(super) const LARGEST: f64 = 1e150;
/// Larger scores are read as this one.
pub(super) const LARGEST_SCORE: f64 = 1e9;
const FIRST: usize = 8;
const LOWS: usize = 4;
/// The logarithm of any double, with room to spare.
const LARGEST_LOGARITHM: f64 = 1e3;
/// The scale that a positive signal is given at birth: a factor of e^0.5.
const PRIOR_SCALE: f64 = 0.5;
/// E|r| of Gaussian noise is its deviation divided by this, sqrt(π/2).
const MEAN_TO_DEVIATION: f64 = 1.2533;

#[derive(Debug, Clone)]
pub(super) struct Signal {
    floor: f64,
    accepted: u64,
    level: f64,
    fast: f64,
    slow: f64,
    signed: bool,
    first: Vec<f64>,
    lows: Vec<f64>,
    /// The lower median of `first`; for a signed signal, its range.
    reference: f64,
}

/// One value as a signal reads it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) x: f64,
    residual: f64,
    pub(super) scale: f64,
    pub(super) score: f64,
}

impl Signal {
    /// `floor` is the least scale of a positive signal.
    pub(super) fn new(floor: f64) -> Self {
        Self {
            floor,
            accepted: 0,
            level: 0.0,
            fast: 0.0,
            slow: 0.0,
            signed: false,
            first: Vec::with_capacity(FIRST),
            lows: Vec::with_capacity(LOWS),
            reference: 0.0,
        }
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(super) fn signed(&self) -> bool {
        self.signed
    }

    /// A twentieth of the first values' median, which is added to every value; 0 when signed.
    pub(super) fn offset(&self) -> f64 {
        if self.signed {
            0.0
        } else {
            0.05 * self.reference
        }
    }

    /// Forgets everything; what follows may be negative.
    pub(super) fn become_signed(&mut self) {
        *self = Self::new(self.floor);
        self.signed = true;
    }

    pub(super) fn set_level(&mut self, level: f64) {
        self.level = level;
    }

    /// The level in the units of the value, once there is one.
    pub(super) fn baseline(&self) -> Option<f64> {
        let positive = || larger(exp(self.level) - self.offset(), 0.0);
        (self.accepted > 0).then(|| if self.signed { self.level } else { positive() })
    }

    /// Reads a finite value; None while a positive signal has been nothing but zero.
    pub(super) fn read(&self, value: f64) -> Option<Reading> {
        let x = if self.signed {
            value
        } else {
            let reference = if self.first.is_empty() {
                value
            } else {
                self.reference
            };
            if reference == 0.0 {
                return None;
            }
            ln(larger(value + 0.05 * reference, f64::MIN_POSITIVE))
        };
        let residual = if self.accepted == 0 {
            0.0
        } else {
            x - self.level
        };
        let scale = self.scale();
        // Adding zero turns a negative zero into a positive one.
        let score = clamp(residual / scale, LARGEST_SCORE) + 0.0;
        Some(Reading {
            x,
            residual,
            scale,
            score,
        })
    }

    pub(super) fn scale(&self) -> f64 {
        let n = self.accepted as f64;
        let weight = 144.0 / (144.0 + n * n);
        let (prior, floor) = if !self.signed {
            (PRIOR_SCALE, self.floor)
        } else if self.first.len() < 4 {
            return f64::INFINITY;
        } else {
            (self.reference, self.reference / 1000.0)
        };
        let recent = larger(self.fast, self.slow);
        let mixed = weight * (prior * prior) + (1.0 - weight) * (recent * recent);
        let scale = larger(mixed.sqrt(), floor);
        // A signed signal that never moved: nothing is known about its scale.
        if scale > 0.0 { scale } else { f64::INFINITY }
    }

    /// Takes in a value that was read by this signal as it is now.
    pub(super) fn accept(&mut self, value: f64, reading: &Reading) {
        let Reading {
            x, residual, scale, ..
        } = *reading;
        let share = 1.0 / (self.accepted as f64 + 1.0);
        let deviation = MEAN_TO_DEVIATION * smaller(residual.abs(), 3.0 * scale);
        self.fast += larger(share, 0.02) * (deviation - self.fast);
        self.slow += larger(share, 0.004) * (deviation - self.slow);
        if self.accepted == 0 {
            self.level = x;
        } else {
            let step = clamp(residual, 3.0 * scale);
            self.level += larger(share, 0.06) * step;
        }
        self.accepted = self.accepted.saturating_add(1);
        if self.first.len() < FIRST && value != 0.0 {
            self.first.push(value);
            self.reference = reference(&self.first, self.signed);
        }
        self.follow_a_drop(value, reading);
    }

    /// Four values far below the level are the new level; so early, the start was odd.
    fn follow_a_drop(&mut self, value: f64, reading: &Reading) {
        let early = self.accepted <= ADOPT_EARLY;
        if reading.residual < -4.0 * reading.scale {
            self.lows.push(reading.x);
        } else if !early {
            self.lows.clear();
        }
        if self.lows.len() < LOWS {
            return;
        }
        self.level = (((self.lows[0] + self.lows[1]) + self.lows[2]) + self.lows[3]) / 4.0;
        self.lows.clear();
        if early && !self.signed {
            *self = Self::new(self.floor);
            if let Some(reading) = self.read(value) {
                self.accept(value, &reading);
            }
        }
    }

    pub(super) fn state(&self) -> SignalState {
        SignalState {
            accepted: self.accepted,
            level: self.level,
            fast: self.fast,
            slow: self.slow,
            signed: self.signed,
            first: self.first.clone(),
            lows: self.lows.clone(),
        }
    }

    pub(super) fn from_state(
        state: &SignalState,
        floor: f64,
        field: &'static str,
    ) -> Result<Self, VitalsError> {
        let reach = if state.signed {
            LARGEST
        } else {
            LARGEST_LOGARITHM
        };
        // The level of a signed signal is a mean of its values: rounding may pass the largest.
        all_within(field, &[state.level], 1.01 * reach)?;
        all_within(field, &state.lows, reach)?;
        all_within(field, &[state.fast, state.slow], 3.0 * LARGEST)?;
        all_within(field, &state.first, LARGEST)?;
        let refused = if state.fast < 0.0 || state.slow < 0.0 {
            "has a negative scale"
        } else if state.first.len() > FIRST || state.lows.len() >= LOWS {
            "remembers too many values"
        } else if state.first.contains(&0.0) {
            "has a zero among the first values that are none"
        } else if !state.signed && state.first.iter().any(|&value| value < 0.0) {
            "has a negative value, but is not signed"
        } else if !state.signed && (state.accepted == 0) != state.first.is_empty() {
            "does not count its first values"
        } else if state.first.len() as u64 > state.accepted {
            "has more first values than it accepted"
        } else {
            return Ok(Self {
                floor,
                accepted: state.accepted,
                level: state.level,
                fast: state.fast,
                slow: state.slow,
                signed: state.signed,
                first: state.first.clone(),
                lows: state.lows.clone(),
                reference: reference(&state.first, state.signed),
            });
        };
        Err(refuse(field, refused))
    }
}

/// Up to so many accepted values, a drop says that the start was odd.
const ADOPT_EARLY: u64 = 16;

fn reference(first: &[f64], signed: bool) -> f64 {
    let mut sorted = [0.0; FIRST];
    let sorted = &mut sorted[..first.len()];
    sorted.copy_from_slice(first);
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted {
        [] => 0.0,
        [low, .., high] if signed => *high - *low,
        [_] if signed => 0.0,
        _ => sorted[(sorted.len() - 1) / 2],
    }
}
