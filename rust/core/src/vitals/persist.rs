//! A detector's memory as plain data, and back.

use super::channel::CHANNELS;
use super::config::{Config, MAX_COUNT};
use super::detector::{DELAY, Detector, HOT, LEARNING, LOSS_FLOOR, NORM_FLOOR, SIGN, SPAN};
use super::error::VitalsError;
use super::signal::{LARGEST, LARGEST_SCORE, Signal};
use super::slow::SlowWatch;
use super::state::{self, State, refuse};
use super::window::Window;

impl Detector {
    /// Everything it remembers; the configuration is not part of it.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            observed: self.observed,
            loss: self.loss.state(),
            norm: self.norm.state(),
            slow: self.slow.state(),
            run: self.run,
            windows: self.windows.iter().map(Window::oldest_first).collect(),
            delay: self.delay.iter().map(|row| row.to_vec()).collect(),
            held: self.held.iter().map(|row| row.to_vec()).collect(),
            refused: state::refused_ages(self.refused),
            hot: self.hot,
            span: self.span,
            sign: self.sign,
            streak: self.streak,
            panicked: self.panicked,
            learning: self.learning,
            expected: self.expected,
            refractory: self.refractory,
            amp_skips: self.amp_skips,
            amp_low: self.amp_low,
            still: self.groups.still.clone(),
        }
    }

    /// A detector that goes on where the one that gave this state stood.
    ///
    /// # Errors
    ///
    /// A setting out of its range, or the part of the state that no detector with this
    /// configuration can have written.
    pub fn from_state(config: Config, state: &State) -> Result<Self, VitalsError> {
        let mut detector = Self::new(config)?;
        let window = detector.config.window;
        state.check_counters(&[
            ("hot", state.hot, HOT),
            ("span", state.span, SPAN),
            ("sign", state.sign, SIGN),
            ("learning", state.learning, LEARNING),
            (
                "expected",
                state.expected,
                u32::try_from(window).unwrap_or(u32::MAX),
            ),
            ("refractory", state.refractory, MAX_COUNT),
            ("amp_skips", state.amp_skips, MAX_COUNT),
        ])?;
        if state.windows.len() != CHANNELS {
            return Err(refuse("windows", "does not have four channels"));
        }
        for (own, scores) in detector.windows.iter_mut().zip(&state.windows) {
            if scores.len() > window {
                return Err(refuse("windows", "has more scores than the window"));
            }
            state::all_within("windows", scores, LARGEST_SCORE)?;
            let positive_zero: Vec<f64> = scores.iter().map(|score| score + 0.0).collect();
            *own = Window::from_oldest_first(&positive_zero, window);
        }
        state::all_within("run", &[state.run], LARGEST_SCORE)?;
        detector.delay = state::rows("delay", &state.delay, DELAY, LARGEST_SCORE)?.into();
        detector.held = state::rows("held", &state.held, state::most_held(window), LARGEST)?;
        detector.loss = Signal::from_state(&state.loss, LOSS_FLOOR, "loss")?;
        detector.norm = Signal::from_state(&state.norm, NORM_FLOOR, "norm")?;
        if state.norm.signed {
            return Err(refuse("norm", "is signed"));
        }
        detector.slow = SlowWatch::from_state(&state.slow)?;
        detector.refused = state.refused_bits()?;
        detector.observed = state.observed;
        detector.run = state.run;
        detector.hot = state.hot;
        detector.span = state.span;
        detector.sign = state.sign;
        detector.streak = state.streak;
        detector.panicked = state.panicked;
        detector.learning = state.learning;
        detector.expected = state.expected;
        detector.refractory = state.refractory;
        detector.amp_skips = state.amp_skips;
        detector.amp_low = state.amp_low;
        detector.groups.still.clone_from(&state.still);
        Ok(detector)
    }
}
