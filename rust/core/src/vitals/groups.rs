//! Relative updates of parameter groups: one that moves too far, one that no longer moves.

use super::config::Config;
use super::error::VitalsError;
use super::verdict::{Evidence, Level, Reasons, Source, Verdict};

/// For each group, how many updates in a row were exactly zero.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups {
    pub(super) still: Vec<u32>,
}

impl Groups {
    /// Reads |update| / |parameters| of each group, which must not be negative.
    ///
    /// A ratio that is not a number counts as too large. A group is called dead once, and again
    /// only after it has moved. With another number of groups the counts begin anew.
    pub(super) fn observe(&mut self, ratios: &[f64], config: &Config, verdict: &mut Verdict) {
        if ratios.is_empty() {
            return;
        }
        if self.still.len() != ratios.len() {
            self.still.clear();
            self.still.resize(ratios.len(), 0);
        }
        for (group, (&ratio, still)) in ratios.iter().zip(&mut self.still).enumerate() {
            let above = |limit: f64| ratio.is_nan() || ratio > limit;
            let too_large = config
                .update_ratio_anomaly
                .filter(|&limit| above(limit))
                .map(|limit| (Level::Anomaly, limit));
            let large = above(config.update_ratio_watch)
                .then_some((Level::Watch, config.update_ratio_watch));
            if let Some((level, limit)) = too_large.or(large) {
                verdict.raise(level, Reasons::UPDATE_RATIO);
                verdict.evidence.push(Evidence {
                    threshold: Some(limit),
                    ..Evidence::bare(Source::UpdateRatio(group), ratio, 1)
                });
            }
            *still = if ratio == 0.0 {
                still.saturating_add(1)
            } else {
                0
            };
            if *still == config.dead_steps {
                verdict.raise(Level::Watch, Reasons::DEAD_GROUP);
                let count = u64::from(*still);
                let evidence = Evidence::bare(Source::DeadGroup(group), ratio, count);
                verdict.evidence.push(evidence);
            }
        }
    }
}

/// Refuses ratios that no update can have.
pub(super) fn check(ratios: &[f64]) -> Result<(), VitalsError> {
    match ratios.iter().find(|&&ratio| ratio < 0.0) {
        Some(&value) => Err(VitalsError::Negative {
            field: "update_ratio",
            value,
        }),
        None => Ok(()),
    }
}
