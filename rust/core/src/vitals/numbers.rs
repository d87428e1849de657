//! What needs no statistics: values that are not finite, and the gradient scaler.

use super::channel::{ALL, LOSS, NORM};
use super::detector::{Detector, Observation};
use super::verdict::{Evidence, Level, Reasons, Source, Verdict};

impl Detector {
    /// Whether values that are not finite, or the gradient scaler, decide the step.
    pub(super) fn look_at_numbers(
        &mut self,
        observation: &Observation<'_>,
        verdict: &mut Verdict,
    ) -> bool {
        let Observation { loss, norm, .. } = *observation;
        let found = observation.nonfinite;
        let norm_broken = norm.is_some_and(|norm| !norm.is_finite());
        let gradients_broken = norm_broken || found.gradients;
        let mut reasons = Reasons::NONE;
        for (is_found, reason) in [
            (!loss.is_finite() || norm_broken, Reasons::NONFINITE),
            (found.gradients, Reasons::NONFINITE_GRADIENTS),
            (found.parameters, Reasons::NONFINITE_PARAMETERS),
            (found.buffers, Reasons::NONFINITE_BUFFERS),
            (found.optimizer, Reasons::NONFINITE_OPTIMIZER),
        ] {
            if is_found {
                reasons |= reason;
            }
        }
        if found.parameters || found.buffers || found.optimizer {
            self.forbid(verdict, Level::Panic, reasons);
            self.show_nonfinite(observation, verdict);
            return true;
        }
        if let Some(scale) = observation.amp_scale
            && self.look_at_scaler(scale, loss.is_finite() && gradients_broken, verdict)
        {
            return true;
        }
        if reasons.is_empty() {
            return false;
        }
        verdict.rho = f64::INFINITY;
        self.show_nonfinite(observation, verdict);
        self.refuse_step(verdict, reasons, None, true);
        true
    }

    /// A step that the gradient scaler is made to skip is none of ours, unless it never ends.
    fn look_at_scaler(&mut self, scale: f64, skips: bool, verdict: &mut Verdict) -> bool {
        let low = !(scale >= self.config.amp_floor && scale.is_finite());
        let falls = low && !self.amp_low;
        self.amp_low = low;
        self.amp_skips = if skips { self.amp_skips + 1 } else { 0 };
        if falls {
            self.forbid(verdict, Level::Panic, Reasons::AMP_SCALE);
            verdict.evidence.push(Evidence {
                threshold: Some(self.config.amp_floor),
                ..Evidence::bare(Source::AmpScale, scale, 1)
            });
        }
        if skips {
            verdict.rho = f64::INFINITY;
            verdict.raise(Level::Watch, Reasons::AMP_SKIP);
            verdict.apply = false;
        }
        if self.amp_skips >= self.config.amp_skips {
            self.forbid(verdict, Level::Panic, Reasons::AMP_SKIPS);
            let count = u64::from(self.amp_skips);
            verdict.evidence.push(Evidence {
                threshold: Some(f64::from(self.config.amp_skips)),
                ..Evidence::bare(Source::AmpSkips, count as f64, count)
            });
            self.amp_skips = 0;
        }
        falls || skips
    }

    /// Refuses a step whatever the statistics say.
    fn forbid(&mut self, verdict: &mut Verdict, level: Level, reasons: Reasons) {
        verdict.raise(level, reasons);
        verdict.rho = f64::INFINITY;
        self.run = 0.0;
        self.refused |= 1;
    }

    fn show_nonfinite(&self, observation: &Observation<'_>, verdict: &mut Verdict) {
        let loss = Some(observation.loss);
        for (channel, value, signal) in [
            (LOSS, loss, &self.loss),
            (NORM, observation.norm, &self.norm),
        ] {
            if let Some(value) = value.filter(|value| !value.is_finite()) {
                let count = self.windows[channel].len() as u64;
                verdict.evidence.push(Evidence {
                    baseline: signal.baseline(),
                    ..Evidence::bare(ALL[channel].source, value, count)
                });
            }
        }
    }
}
