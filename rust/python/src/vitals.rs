//! The detector of one stream as a Python class.

use std::sync::{Mutex, MutexGuard, PoisonError};

use flyball_core::vitals::{
    self, Config, Evidence, NonFinite, Observation, SignalState, SlowState, State, VitalsError,
};
use pyo3::prelude::*;

use crate::error::invalid;

/// Source, parameter group, value, baseline, scale, threshold, z and count.
type EvidenceParts = (
    &'static str,
    Option<usize>,
    f64,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    u64,
);

/// The evidence and the reasons of a verdict, with its level and whether the update is applied.
type Finding = (u8, bool, Vec<&'static str>, Vec<EvidenceParts>);

#[derive(FromPyObject, IntoPyObject)]
#[pyo3(from_item_all)]
struct Signal {
    accepted: u64,
    level: f64,
    fast: f64,
    slow: f64,
    signed: bool,
    first: Vec<f64>,
    lows: Vec<f64>,
}

#[derive(FromPyObject, IntoPyObject)]
#[pyo3(from_item_all)]
struct Slow {
    seen: u64,
    mean: f64,
    deviation: f64,
    best: f64,
    best_deviation: f64,
    top: f64,
    drawdown: u32,
    collapse: u32,
}

/// A [`State`] as a dict.
#[derive(FromPyObject, IntoPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Parts {
    observed: u64,
    loss: Signal,
    norm: Signal,
    slow: Slow,
    run: f64,
    windows: Vec<Vec<f64>>,
    delay: Vec<Vec<Option<f64>>>,
    held: Vec<Vec<Option<f64>>>,
    refused: Vec<u32>,
    hot: u32,
    span: u32,
    sign: u32,
    streak: u32,
    panicked: bool,
    learning: u32,
    expected: u32,
    refractory: u32,
    amp_skips: u32,
    amp_low: bool,
    still: Vec<u32>,
}

/// Two structs with the same fields, one of them the core's.
macro_rules! same {
    ($ours:ident, $theirs:ident { $($field:ident $(as $with:ident)?),* $(,)? }) => {
        impl From<$theirs> for $ours {
            fn from(other: $theirs) -> Self {
                Self { $($field: same!(other.$field $($with)?)),* }
            }
        }

        impl From<$ours> for $theirs {
            fn from(other: $ours) -> Self {
                Self { $($field: same!(other.$field $($with)?)),* }
            }
        }
    };
    ($value:expr) => { $value };
    ($value:ident . $field:ident) => { $value.$field };
    ($value:ident . $field:ident into) => { $value.$field.into() };
}

same!(
    Signal,
    SignalState {
        accepted,
        level,
        fast,
        slow,
        signed,
        first,
        lows
    }
);
same!(
    Slow,
    SlowState {
        seen,
        mean,
        deviation,
        best,
        best_deviation,
        top,
        drawdown,
        collapse
    }
);
same!(Parts, State {
    observed, loss as into, norm as into, slow as into, run, windows, delay, held, refused, hot,
    span, sign, streak, panicked, learning, expected, refractory, amp_skips, amp_low, still,
});

#[allow(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn refused(error: VitalsError) -> PyErr {
    invalid(error.to_string())
}

fn parts(evidence: &Evidence) -> EvidenceParts {
    let (name, group) = evidence.source.name();
    let Evidence {
        value,
        baseline,
        scale,
        threshold,
        z,
        count,
        ..
    } = *evidence;
    (name, group, value, baseline, scale, threshold, z, count)
}

/// The bits of `nonfinite`, in the order of the fields.
fn found(bits: u8) -> NonFinite {
    NonFinite {
        gradients: bits & 1 != 0,
        parameters: bits & 2 != 0,
        buffers: bits & 4 != 0,
        optimizer: bits & 8 != 0,
    }
}

/// The detector of one stream of losses and gradient norms.
#[pyclass(frozen, module = "flyball._native")]
pub(crate) struct Detector {
    config: Config,
    // No code that holds the lock asks for the interpreter, so threads cannot wait in a circle.
    detector: Mutex<vitals::Detector>,
}

impl Detector {
    fn lock(&self) -> MutexGuard<'_, vitals::Detector> {
        self.detector.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Detector {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "the settings of a policy")]
    #[pyo3(signature = (*, budget, window, heat, sustained, refractory, update_ratio_watch, update_ratio_anomaly, dead_steps, amp_skips, amp_floor))]
    fn new(
        budget: f64,
        window: usize,
        heat: f64,
        sustained: u32,
        refractory: u32,
        update_ratio_watch: f64,
        update_ratio_anomaly: Option<f64>,
        dead_steps: u32,
        amp_skips: u32,
        amp_floor: f64,
    ) -> PyResult<Self> {
        let config = Config {
            budget,
            window,
            heat,
            sustained,
            refractory,
            update_ratio_watch,
            update_ratio_anomaly,
            dead_steps,
            amp_skips,
            amp_floor,
        };
        let detector = vitals::Detector::new(config.clone()).map_err(refused)?;
        Ok(Self {
            config,
            detector: Mutex::new(detector),
        })
    }

    /// Judge one step: the largest score ratio, how many observations came before, and what was
    /// found, which is None where there is nothing to say.
    #[pyo3(signature = (loss, norm, update_ratio=None, nonfinite=0, amp_scale=None, /))]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a sequence of floats is converted"
    )]
    fn observe(
        &self,
        loss: f64,
        norm: Option<f64>,
        update_ratio: Option<Vec<f64>>,
        nonfinite: u8,
        amp_scale: Option<f64>,
    ) -> PyResult<(f64, u64, Option<Finding>)> {
        let observation = Observation {
            loss,
            norm,
            update_ratio: update_ratio.as_deref().unwrap_or_default(),
            nonfinite: found(nonfinite),
            amp_scale,
        };
        let (verdict, observed) = {
            let mut detector = self.lock();
            (detector.observe(&observation), detector.observed())
        };
        let verdict = verdict.map_err(refused)?;
        let finding = (!verdict.reasons.is_empty()).then(|| {
            let evidence = verdict.evidence.iter().map(parts).collect();
            let reasons = verdict.reasons.codes().collect();
            (verdict.level as u8, verdict.apply, reasons, evidence)
        });
        Ok((verdict.rho, observed - 1, finding))
    }

    /// Announce that the next steps belong to a new level.
    #[pyo3(signature = (steps, /))]
    fn expect_shift(&self, steps: usize) -> PyResult<()> {
        self.lock().expect_shift(steps).map_err(refused)
    }

    /// Forget everything but the number of observations.
    fn rebaseline(&self) {
        self.lock().rebaseline();
    }

    /// Return what is added to a loss before its logarithm, None where it is signed, and its usual deviation.
    fn loss_reference(&self) -> Option<(Option<f64>, f64)> {
        self.lock().loss_reference()
    }

    /// Return how many refused steps in a row are held with finite values.
    fn held(&self) -> usize {
        self.lock().held()
    }

    /// Say that the state was asked after a refusal, and found sound.
    fn found_sound(&self) {
        self.lock().found_sound();
    }

    /// Take the last refused values as the new level.
    fn adopt_held(&self) {
        self.lock().adopt_held();
    }

    /// Say that a drawdown or a collapse was looked into, and the state found sound.
    fn watch_anew(&self) {
        self.lock().watch_anew();
    }

    /// Say that the watched state was rolled back.
    fn rolled_back(&self) {
        self.lock().rolled_back();
    }

    /// Return everything that is remembered as plain data.
    fn state(&self) -> Parts {
        self.lock().state().into()
    }

    /// Return a detector with the same settings that remembers this.
    #[pyo3(signature = (state, /))]
    fn restored(&self, state: Parts) -> PyResult<Self> {
        let detector = vitals::Detector::from_state(self.config.clone(), &state.into());
        Ok(Self {
            config: self.config.clone(),
            detector: Mutex::new(detector.map_err(refused)?),
        })
    }
}
