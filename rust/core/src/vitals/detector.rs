//! One stream of observations, judged one at a time.

use std::collections::VecDeque;

use super::arithmetic::{clamp, larger, smaller};
use super::channel::{self, ALL, CHANNELS, JOINT, LOSS, NORM, RUN, Thresholds};
use super::config::{ADOPT, Config};
use super::error::VitalsError;
use super::groups::{self, Groups};
use super::signal::{LARGEST, Reading, Signal};
use super::slow::SlowWatch;
use super::verdict::{Evidence, Level, Reasons, Source, Verdict};
use super::window::Window;

/// Thresholds are low for so many steps from a strong anomaly on, itself included.
pub(super) const HOT: u32 = 16;
/// Within so many, a weak anomaly keeps them low; without this limit heat would feed on itself.
pub(super) const SPAN: u32 = 32;
/// A second negative loss within so many steps, both included: losses are signed.
pub(super) const SIGN: u32 = 16;
/// After so many positive losses, one negative loss is more likely an error than a new kind of loss,
const POSITIVE: u64 = 64;
/// unless the usual noise carries the recent level so far, in this many scales.
const CARRIED: f64 = 3.0;
pub(super) const LEARNING: u32 = 64;
/// While learning, a score above so many thresholds is still refused.
const LEARNING_LIMIT: f64 = 4.0;
/// A score waits for so many accepted steps before it enters a window: a growth must not raise
/// the threshold it is about to meet.
pub(super) const DELAY: usize = 6;
/// Of those that wait at a strong anomaly, scores above this part of their threshold are dropped: they
/// may be of the same burst, and would hide the rest of it.
const NEAR_MISS: f64 = 0.5;
/// The least scale of the coordinate of a loss, and of a norm.
pub(super) const LOSS_FLOOR: f64 = 0.02;
pub(super) const NORM_FLOOR: f64 = 0.05;

/// Where a loss and a norm stand, as their signals read them.
pub(super) type Coordinates = [Option<f64>; 2];

/// What a caller found not to be finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "four independent findings")]
pub struct NonFinite {
    /// A gradient: the batch is refused.
    pub gradients: bool,
    /// A parameter: the state is damaged.
    pub parameters: bool,
    /// A buffer: the state is damaged.
    pub buffers: bool,
    /// Optimizer state: the state is damaged.
    pub optimizer: bool,
}

/// One step, after the backward pass and before the update.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Observation<'a> {
    /// The loss; it may be anything, NaN included.
    pub loss: f64,
    /// The global gradient norm before clipping, where there is one; NaN included.
    pub norm: Option<f64>,
    /// |update| / |parameters| for each parameter group; empty where unknown.
    pub update_ratio: &'a [f64],
    /// What the caller found not to be finite.
    pub nonfinite: NonFinite,
    /// The scale of the gradient scaler, where one is in use.
    pub amp_scale: Option<f64>,
}

/// A detector: it is told of every step and says whether to trust it. See the module.
#[derive(Debug, Clone)]
pub struct Detector {
    pub(super) config: Config,
    pub(super) thresholds: Thresholds,
    pub(super) observed: u64,
    pub(super) loss: Signal,
    pub(super) norm: Signal,
    pub(super) slow: SlowWatch,
    pub(super) run: f64,
    pub(super) windows: [Window; CHANNELS],
    pub(super) delay: VecDeque<[Option<f64>; CHANNELS]>,
    pub(super) held: Vec<Coordinates>,
    pub(super) refused: u128,
    pub(super) hot: u32,
    pub(super) span: u32,
    pub(super) sign: u32,
    pub(super) streak: u32,
    pub(super) panicked: bool,
    pub(super) learning: u32,
    pub(super) expected: u32,
    pub(super) refractory: u32,
    pub(super) amp_skips: u32,
    pub(super) amp_low: bool,
    pub(super) groups: Groups,
}

impl Detector {
    /// A detector that has seen nothing.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn new(config: Config) -> Result<Self, VitalsError> {
        config.check()?;
        let thresholds = Thresholds::new(&config);
        Ok(Self::fresh(config, thresholds))
    }

    fn fresh(config: Config, thresholds: Thresholds) -> Self {
        Self {
            observed: 0,
            loss: Signal::new(LOSS_FLOOR),
            norm: Signal::new(NORM_FLOOR),
            slow: SlowWatch::default(),
            run: 0.0,
            windows: std::array::from_fn(|_| Window::new(config.window)),
            delay: VecDeque::with_capacity(DELAY),
            held: Vec::new(),
            refused: 0,
            hot: 0,
            span: 0,
            sign: 0,
            streak: 0,
            panicked: false,
            learning: 0,
            expected: 0,
            refractory: 0,
            amp_skips: 0,
            amp_low: false,
            groups: Groups::default(),
            config,
            thresholds,
        }
    }

    /// How many observations there were.
    #[must_use]
    pub const fn observed(&self) -> u64 {
        self.observed
    }

    /// Judges one step, and takes it in unless it is refused.
    ///
    /// # Errors
    ///
    /// A negative norm or ratio; nothing is changed by it.
    pub fn observe(&mut self, observation: &Observation<'_>) -> Result<Verdict, VitalsError> {
        if let Some(value) = observation.norm.filter(|&norm| norm < 0.0) {
            return Err(VitalsError::Negative {
                field: "grad_norm",
                value,
            });
        }
        groups::check(observation.update_ratio)?;
        self.observed = self.observed.saturating_add(1);
        self.hot = self.hot.saturating_sub(1);
        self.span = self.span.saturating_sub(1);
        self.sign = self.sign.saturating_sub(1);
        self.refused <<= 1;
        let mut verdict = Verdict::quiet();
        let ratios = observation.update_ratio;
        self.groups.observe(ratios, &self.config, &mut verdict);
        if !self.look_at_numbers(observation, &mut verdict) {
            self.judge(observation, &mut verdict);
        }
        Ok(verdict)
    }

    /// What is left of the module's list, for finite values.
    fn judge(&mut self, observation: &Observation<'_>, verdict: &mut Verdict) {
        // Adding zero turns a negative zero into a positive one: what is sorted has one order.
        let loss = clamp(observation.loss, LARGEST) + 0.0;
        let norm = observation.norm.map(|norm| smaller(norm, LARGEST) + 0.0);
        let read_norm = norm.and_then(|norm| self.norm.read(norm));
        if loss < 0.0 && !self.loss.signed() {
            let early = self.loss.accepted() < POSITIVE;
            if !early && self.sign == 0 && self.expected == 0 && !self.crosses_zero(loss) {
                self.sign = SIGN;
                verdict.rho = f64::INFINITY;
                let count = self.windows[LOSS].len() as u64;
                verdict.evidence.push(Evidence {
                    baseline: self.loss.baseline(),
                    threshold: Some(0.0),
                    ..Evidence::bare(Source::Loss, loss, count)
                });
                let held = [None, read_norm.map(|norm| norm.x)];
                self.refuse_step(verdict, Reasons::SIGN, Some(held), false);
                return;
            }
            self.become_signed();
        }
        let read_loss = self.loss.read(loss);
        let held = [read_loss.map(|loss| loss.x), read_norm.map(|norm| norm.x)];
        if self.expected > 0 {
            self.pass_expected(held, verdict);
            return;
        }
        let score = |reading: Option<Reading>| reading.map(|reading| reading.score);
        let scores = channel::scores(score(read_loss), score(read_norm), self.run);
        let mut anomaly = verdict.level == Level::Anomaly;
        let mut reasons = Reasons::NONE;
        let (mut strong, mut far) = (false, anomaly);
        let heat = if self.hot > 0 { self.config.heat } else { 1.0 };
        let mut thresholds = [f64::INFINITY; CHANNELS];
        for (index, score) in scores.into_iter().enumerate() {
            let Some(score) = score else { continue };
            let full = self.thresholds.of(index, &self.windows[index]);
            thresholds[index] = full;
            verdict.rho = larger(verdict.rho, score / full);
            let threshold = full * heat;
            if score <= threshold {
                continue;
            }
            anomaly = true;
            strong |= score > full;
            far |= score > LEARNING_LIMIT * full;
            reasons |= if score > full {
                ALL[index].reason
            } else {
                ALL[index].hot_reason
            };
            let (value, signal, reading) = match index {
                LOSS => (loss, Some(&self.loss), read_loss),
                NORM => (norm.unwrap_or(0.0), Some(&self.norm), read_norm),
                JOINT | RUN => (score, None, None),
                _ => continue,
            };
            verdict.evidence.push(Evidence {
                source: ALL[index].source,
                value,
                baseline: signal.and_then(Signal::baseline),
                scale: reading.map(|reading| reading.scale),
                threshold: Some(threshold),
                z: Some(score),
                count: self.windows[index].len() as u64,
            });
        }
        let learning = self.learning > 0;
        self.learning = self.learning.saturating_sub(1);
        if anomaly && (far || !learning) {
            if strong {
                self.span = SPAN;
                self.drop_near_misses(&thresholds);
            }
            // An update ratio alone is no anomaly of loss or norm, and heats nothing.
            if strong || (!reasons.is_empty() && self.span > 0) {
                self.hot = HOT;
            }
            self.refuse_step(verdict, reasons, Some(held), false);
            return;
        }
        if anomaly {
            verdict.raise(Level::Watch, Reasons::LEARNING | reasons);
        }
        self.accept_step((loss, read_loss), (norm, read_norm), scores, verdict);
    }

    /// Whether the noise of a loss that has come down to zero may have carried it below.
    fn crosses_zero(&self, loss: f64) -> bool {
        let level = self.loss.baseline().unwrap_or(0.0);
        // A scale is one of ln(v + offset), so this is how far it reaches in units of v.
        let reach = self.loss.scale() * (level + self.loss.offset());
        level - loss <= CARRIED * reach
    }

    fn drop_near_misses(&mut self, thresholds: &[f64; CHANNELS]) {
        for row in &mut self.delay {
            for (score, threshold) in row.iter_mut().zip(thresholds) {
                if score.is_some_and(|score| score > NEAR_MISS * threshold) {
                    *score = None;
                }
            }
        }
    }

    /// Announces that the next `steps` finite steps belong to a new level, which they define.
    ///
    /// # Errors
    ///
    /// A number of steps that is zero or above the window.
    pub fn expect_shift(&mut self, steps: usize) -> Result<(), VitalsError> {
        let window = self.config.window;
        match u32::try_from(steps) {
            Ok(expected) if expected > 0 && steps <= window => self.expected = expected,
            _ => {
                return Err(VitalsError::Config {
                    field: "steps",
                    value: steps.to_string(),
                    range: format!("between 1 and the window, {window}"),
                });
            }
        }
        self.held.clear();
        Ok(())
    }

    /// Forgets everything but the number of observations: the loss means something else now.
    pub fn rebaseline(&mut self) {
        let fresh = Self::fresh(self.config.clone(), self.thresholds.clone());
        *self = Self {
            observed: self.observed,
            ..fresh
        };
    }

    /// How a loss is compared with this moment's: what is added before the logarithm, None where losses are signed
    /// and compared as they are; and the usual deviation. None before there is a level.
    #[must_use]
    pub fn loss_reference(&self) -> Option<(Option<f64>, f64)> {
        let scale = self.loss.scale();
        let known = self.loss.accepted() > 0 && scale.is_finite();
        known.then(|| ((!self.loss.signed()).then(|| self.loss.offset()), scale))
    }

    /// How many refused steps in a row are held with finite values.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// To be called when the state was asked after a refusal, and found sound: the data were bad.
    ///
    /// A row of bad batches is then no sign of damage, so no PANIC comes of it, and the thresholds stay low.
    pub fn found_sound(&mut self) {
        self.streak = 0;
        self.panicked = false;
        self.hot = HOT;
    }

    /// Takes the last refused values as the new level: the data have changed for good.
    pub fn adopt_held(&mut self) {
        let extra = self.held.len().saturating_sub(ADOPT as usize);
        self.held.drain(..extra);
        self.adopt();
    }

    /// To be called when a drawdown or a collapse was looked into, and the state found sound.
    pub fn watch_anew(&mut self) {
        self.slow = SlowWatch::default();
    }

    /// To be called when the state that is watched was rolled back.
    ///
    /// What was learnt stays: take this detector's own state back to the same snapshot first.
    pub fn rolled_back(&mut self) {
        self.streak = 0;
        self.hot = 0;
        self.span = 0;
        self.held.clear();
        self.refused = 0;
        self.panicked = false;
        self.sign = 0;
        self.amp_skips = 0;
        self.refractory = self.config.refractory;
    }
}
