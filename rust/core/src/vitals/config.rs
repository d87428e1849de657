//! The settings of a detector, checked when one is made.

use std::ops::RangeInclusive;

use super::error::VitalsError;

/// What a detector may be told; the defaults are the measured ones.
///
/// Everything else in the detector is a constant: halving or doubling any of them moved the finds
/// by a point or two, while `budget` is the one real knob.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// -ln of the nominal false-alarm probability per channel and step: 10 is sensitive, 13 calm.
    pub budget: f64,
    /// How many scores a threshold is learnt from.
    pub window: usize,
    /// The factor on every threshold for some steps after a strong anomaly; 1 is none.
    pub heat: f64,
    /// How many refusals in a row are a PANIC.
    pub sustained: u32,
    /// How many accepted steps after a rollback only a longer row is a PANIC; 0 is none.
    pub refractory: u32,
    /// A relative update of a parameter group above this is a WATCH.
    pub update_ratio_watch: f64,
    /// One above this is an ANOMALY; absent by default, because at birth it is often healthy.
    pub update_ratio_anomaly: Option<f64>,
    /// So many updates of exactly zero in a row, and a parameter group is called dead.
    pub dead_steps: u32,
    /// How many steps in a row a gradient scaler may skip.
    pub amp_skips: u32,
    /// A scale of the gradient scaler below this is a PANIC.
    pub amp_floor: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            budget: 13.0,
            window: 512,
            heat: 0.7,
            sustained: 5,
            refractory: 16,
            update_ratio_watch: 1e-2,
            update_ratio_anomaly: None,
            dead_steps: 16,
            amp_skips: 8,
            amp_floor: 1.0,
        }
    }
}

/// So many refused values in a row, and they are the new level.
pub(super) const ADOPT: u32 = 16;
/// The longest window: a step searches and moves it.
const MAX_WINDOW: usize = 4096;
/// The longest count that may be asked for.
pub(super) const MAX_COUNT: u32 = 1 << 20;

impl Config {
    /// Refuses what no detector could work with.
    ///
    /// # Errors
    ///
    /// The first setting that is NaN or out of its range.
    pub fn check(&self) -> Result<(), VitalsError> {
        within("budget", &self.budget, 5.0..=100.0)?;
        within("window", &self.window, 64..=MAX_WINDOW)?;
        if !(self.heat > 0.0 && self.heat <= 1.0) {
            return Err(refuse("heat", &self.heat, "above 0 and at most 1"));
        }
        within("sustained", &self.sustained, 1..=ADOPT - 1)?;
        within("refractory", &self.refractory, 0..=MAX_COUNT)?;
        positive("update_ratio_watch", self.update_ratio_watch)?;
        if let Some(limit) = self.update_ratio_anomaly {
            positive("update_ratio_anomaly", limit)?;
        }
        within("dead_steps", &self.dead_steps, 1..=MAX_COUNT)?;
        within("amp_skips", &self.amp_skips, 1..=MAX_COUNT)?;
        positive("amp_floor", self.amp_floor)
    }
}

fn within<T: PartialOrd + ToString>(
    field: &'static str,
    value: &T,
    range: RangeInclusive<T>,
) -> Result<(), VitalsError> {
    if range.contains(value) {
        return Ok(());
    }
    let (low, high) = (range.start().to_string(), range.end().to_string());
    Err(refuse(field, value, &format!("between {low} and {high}")))
}

fn positive(field: &'static str, value: f64) -> Result<(), VitalsError> {
    if value > 0.0 && value.is_finite() {
        Ok(())
    } else {
        Err(refuse(field, &value, "positive and finite"))
    }
}

fn refuse<T: ToString>(field: &'static str, value: &T, range: &str) -> VitalsError {
    VitalsError::Config {
        field,
        value: value.to_string(),
        range: range.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_defaults_are_valid_and_nonsense_is_not() {
        assert_eq!(Config::default().check(), Ok(()));
        let spoil: [fn(&mut Config); 15] = [
            |c| c.budget = f64::NAN,
            |c| c.budget = 4.9,
            |c| c.budget = f64::INFINITY,
            |c| c.window = 63,
            |c| c.window = 1 << 40,
            |c| c.heat = 0.0,
            |c| c.heat = f64::NAN,
            |c| c.heat = 1.1,
            |c| c.sustained = 0,
            |c| c.sustained = 16,
            |c| c.update_ratio_watch = f64::NAN,
            |c| c.update_ratio_anomaly = Some(0.0),
            |c| c.dead_steps = 0,
            |c| c.amp_skips = 0,
            |c| c.amp_floor = -1.0,
        ];
        for change in spoil {
            let mut config = Config::default();
            change(&mut config);
            assert!(config.check().is_err(), "{config:?}");
        }
    }
}
