//! What becomes of a step once it is judged: taken in, refused, or one of an announced shift.

use super::channel::{CHANNELS, JOINT, LOSS, RUN};
use super::config::ADOPT;
use super::detector::{Coordinates, DELAY, Detector, LEARNING};
use super::signal::Reading;
use super::slow::SlowWatch;
use super::verdict::{Level, Reasons, Verdict};

/// More refusals than this among the last 128 steps are too many.
const MANY: u32 = 32;

impl Detector {
    pub(super) fn pass_expected(&mut self, held: Coordinates, verdict: &mut Verdict) {
        // What was announced may move the parameters as it moves the loss.
        verdict.level = verdict.level.min(Level::Watch);
        verdict.apply = true;
        verdict.raise(Level::Ok, Reasons::EXPECTED);
        self.hold(held);
        self.streak = 0;
        self.expected -= 1;
        if self.expected == 0 {
            self.adopt();
            verdict.raise(Level::Ok, Reasons::ADOPTED);
        }
    }

    fn hold(&mut self, coordinates: Coordinates) {
        if coordinates.iter().any(Option::is_some) {
            self.held.push(coordinates);
        }
    }

    /// What a refusal means depends on those before it.
    pub(super) fn refuse_step(
        &mut self,
        verdict: &mut Verdict,
        reasons: Reasons,
        held: Option<Coordinates>,
        nonfinite: bool,
    ) {
        self.run = 0.0;
        self.refused |= 1;
        self.streak = self.streak.saturating_add(1);
        if let Some(held) = held {
            self.hold(held);
        }
        // After a rollback a row of bad batches may go on; only a longer one says that the
        // restored state is damaged too.
        let limit = if self.refractory > 0 {
            ADOPT
        } else {
            self.config.sustained
        };
        let (level, decision) = if self.panicked {
            if nonfinite {
                (Level::Anomaly, Reasons::NONE)
            } else if self.held.len() >= ADOPT as usize {
                self.adopt();
                (Level::Watch, Reasons::ADOPTED)
            } else {
                (Level::Watch, Reasons::PENDING)
            }
        } else if self.streak >= limit {
            self.panicked = true;
            self.delay.clear();
            (Level::Panic, Reasons::SUSTAINED)
        } else if self.refused.count_ones() > MANY {
            self.refused = 0;
            self.learning = LEARNING;
            self.hot = 0;
            self.span = 0;
            (Level::Panic, Reasons::TOO_MANY)
        } else {
            (Level::Anomaly, Reasons::NONE)
        };
        // Not `raise`: after a PANIC that was ignored, an anomaly is no more than a WATCH.
        verdict.level = level;
        verdict.apply = level < Level::Anomaly;
        verdict.reasons |= decision | reasons;
    }

    /// The step enters every level, scale and threshold that it has a value for.
    pub(super) fn accept_step(
        &mut self,
        (loss, read_loss): (f64, Option<Reading>),
        (norm, read_norm): (Option<f64>, Option<Reading>),
        scores: [Option<f64>; CHANNELS],
        verdict: &mut Verdict,
    ) {
        self.streak = 0;
        self.held.clear();
        self.panicked = false;
        if let Some(run) = scores[RUN] {
            self.run = run;
        }
        if let (Some(norm), Some(reading)) = (norm, read_norm) {
            self.norm.accept(norm, &reading);
        }
        if let Some(reading) = read_loss {
            self.loss.accept(loss, &reading);
        }
        if self.delay.len() == DELAY
            && let Some(oldest) = self.delay.pop_front()
        {
            for (window, score) in self.windows.iter_mut().zip(oldest) {
                if let Some(score) = score {
                    window.push(score);
                }
            }
        }
        self.delay.push_back(scores);
        let muted = self.refractory > 0;
        self.refractory = self.refractory.saturating_sub(1);
        if read_loss.is_some() {
            let offset = (!self.loss.signed()).then(|| self.loss.offset());
            for (reason, evidence) in self.slow.observe(loss, offset, muted).into_iter().flatten() {
                verdict.raise(Level::Panic, reason);
                verdict.evidence.push(evidence);
            }
        }
    }

    /// The held values are the new level.
    pub(super) fn adopt(&mut self) {
        for (index, signal) in [&mut self.loss, &mut self.norm].into_iter().enumerate() {
            let mut held: Vec<f64> = self.held.iter().filter_map(|row| row[index]).collect();
            if !held.is_empty() {
                held.sort_unstable_by(f64::total_cmp);
                signal.set_level(held[held.len() / 2]);
            }
        }
        self.held.clear();
        self.streak = 0;
        self.hot = 0;
        self.span = 0;
        self.panicked = false;
        self.slow = SlowWatch::default();
    }

    pub(super) fn become_signed(&mut self) {
        self.loss.become_signed();
        for index in [LOSS, JOINT, RUN] {
            self.windows[index].clear();
        }
        self.run = 0.0;
        self.delay.clear();
        self.held.clear();
        self.sign = 0;
        self.slow = SlowWatch::default();
    }
}
