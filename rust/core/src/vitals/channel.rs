//! Four views of a step, each with a threshold learnt from its own past.
//!
//! A threshold continues the upper tail of the accepted scores to a wanted probability e^-budget.
//! For an exponential tail whose mean b was estimated from k exceedances, the score that a next
//! one passes with that probability is not b·L but b·k·(e^(L/k) - 1): the uncertainty of b is priced in
//! (the predictive distribution of an exponential under Jeffreys' prior is a Pareto one). Two
//! starts of the tail are used, because the outer one sees tails heavier than exponential.

use super::arithmetic::{clamp, exp, larger, ln, smaller};
use super::config::Config;
use super::verdict::{Reasons, Source};
use super::window::{INNER, OUTER, Tail, Window};

pub(super) const CHANNELS: usize = 4;

/// A channel: what it is called, and the unit of its first thresholds.
pub(super) struct Channel {
    pub(super) source: Source,
    pub(super) reason: Reasons,
    pub(super) hot_reason: Reasons,
    unit: f64,
}

/// In the order of the arrays that hold one entry for each channel.
pub(super) const ALL: [Channel; CHANNELS] = [
    Channel {
        source: Source::Loss,
        reason: Reasons::LOSS,
        hot_reason: Reasons::LOSS_HOT,
        unit: 1.0,
    },
    Channel {
        source: Source::Norm,
        reason: Reasons::NORM,
        hot_reason: Reasons::NORM_HOT,
        unit: 1.0,
    },
    Channel {
        source: Source::Joint,
        reason: Reasons::JOINT,
        hot_reason: Reasons::JOINT_HOT,
        unit: 1.5,
    },
    Channel {
        source: Source::Run,
        reason: Reasons::RUN,
        hot_reason: Reasons::RUN_HOT,
        unit: 1.25,
    },
];
pub(super) const LOSS: usize = 0;
pub(super) const NORM: usize = 1;
pub(super) const JOINT: usize = 2;
pub(super) const RUN: usize = 3;

/// The largest part of a score that enters the joint and the run channel.
const CLAMP: f64 = 30.0;
/// How much of the run of the last step is kept.
const MEMORY: f64 = 0.6;

/// The scores of one step, where it has them; `run` is that of the last step.
pub(super) fn scores(loss: Option<f64>, norm: Option<f64>, run: f64) -> [Option<f64>; CHANNELS] {
    let clamped = |score: f64| clamp(score, CLAMP);
    let joint = loss.zip(norm).map(|(l, n)| clamped(l) + clamped(n) + 0.0);
    let run = loss.map(|l| clamped(l) + MEMORY * run + 0.0);
    [loss, norm, joint, run]
}

/// So few scores, and the threshold is the ceiling of the first steps.
const FEW: usize = 16;
/// Up to so many, a threshold is higher by up to a share: the scores of a start are not those of the
/// run, and the uncertainty of a tail that is priced in below takes them for the same.
const START: usize = 128;
const HIGHER: f64 = 0.3;

/// The factors of the two tails, which depend on how many exceedances there are.
#[derive(Debug, Clone)]
pub(super) struct Thresholds {
    inner: Vec<f64>,
    outer: Vec<f64>,
}

/// A tail is mixed with so many exceedances of a mean that was expected beforehand.
const INNER_PRIOR: f64 = 20.0;
const OUTER_PRIOR: f64 = 10.0;

impl Thresholds {
    pub(super) fn new(config: &Config) -> Self {
        let factors = |part: usize, prior: f64| {
            let reach = (config.budget + ln(1.0 / part as f64)).max(0.0);
            let factor = |m: usize| {
                let k = m as f64 + prior;
                k * (exp(reach / k) - 1.0)
            };
            (0..=(config.window / part).max(1)).map(factor).collect()
        };
        Self {
            inner: factors(INNER, INNER_PRIOR),
            outer: factors(OUTER, OUTER_PRIOR),
        }
    }

    /// The score that a healthy step hardly ever passes.
    pub(super) fn of(&self, channel: usize, window: &Window) -> f64 {
        let unit = ALL[channel].unit;
        let count = window.len();
        if count < FEW {
            return 5.0 * unit;
        }
        let middle = window.middle();
        let up = window.upper() - middle;
        let trust = smaller(count as f64 / 64.0, 1.0);
        let wide = larger(trust * up + (1.0 - trust) * larger(up, unit), 0.6);
        let threshold = 5.0 * wide + larger(middle, 0.0);
        let (mean, end) = end(&window.inner(), INNER_PRIOR, &self.inner, 0.45 * up);
        let mut threshold = larger(threshold, end);
        if count >= OUTER {
            let (_, further) = self::end(&window.outer(), OUTER_PRIOR, &self.outer, mean);
            threshold = larger(threshold, further);
        }
        if count < START {
            threshold *= 1.0 + HIGHER * (1.0 - count as f64 / START as f64);
        }
        threshold
    }
}

/// The mean exceedance of a tail, and where it ends.
fn end(tail: &Tail, prior: f64, factors: &[f64], expected: f64) -> (f64, f64) {
    let count = tail.count as f64;
    let mean = (tail.sum - count * tail.base + prior * expected) / (count + prior);
    (mean, tail.base + mean * factors[tail.count])
}
