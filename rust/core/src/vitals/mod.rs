//! A detector that watches the loss and the gradient norm of a training run.
//!
//! It is told of every step after the backward pass and before the update, and says whether to
//! trust it. It is a pure state machine: the same observations give the same verdicts, bit for bit
//! on every platform, and its [`State`] is plain data. It knows nothing of the task.
//!
//! # What it computes
//!
//! 1. A **coordinate**: x = ln(v + ref/20) for positive values, where `ref` is the median of the
//!    first ones. Nothing depends on the unit of the loss.
//! 2. A **score**: the distance of x from a fast robust level, over a recent robust scale. The
//!    shape of the scores hardly changes over a run, even where their size does.
//! 3. Four **channels** of scores: loss, norm, both together, and the losses of the last steps.
//! 4. A **threshold** for each, which continues the tail of its past scores to the probability
//!    e^-budget, with the uncertainty of the estimate priced in. The first steps, before there are
//!    16 scores, have a fixed one: a factor of about e^2.5 in loss or norm from the second
//!    observation on, so no step but the very first goes unjudged.
//! 5. A **slow watch** over the smoothed loss, for what creeps.
//!
//! # The order of one observation
//!
//! ```text
//! count down hot, span, sign
//! a parameter, buffer or optimizer state is not finite -> PANIC
//! the gradient scaler: its scale below the floor -> PANIC; it skips -> WATCH, eight in a row -> PANIC
//! loss or norm is not finite                        -> refused
//! the first negative loss after 64 positive ones    -> refused; if it is early, the second one, or
//!                                                      within the noise -> losses are signed
//! a step of an announced shift                      -> OK; after the last one, adopt
//! a score above its threshold                       -> refused (while learning: only far above)
//! otherwise                                         -> accepted; the slow watch may PANIC
//!
//! refused:  after a PANIC nobody acted on -> WATCH; at 16 held values adopt
//!           the fifth in a row            -> PANIC (the sixteenth, soon after a rollback)
//!           33 of the last 128            -> PANIC, and learn anew
//!           otherwise                     -> ANOMALY
//! adopt:    the median of the held values is the new level
//! ```
//!
//! A refused value enters no level, scale or threshold. A score waits for six accepted steps before it
//! enters one; if a strong anomaly comes meanwhile, one that was more than half its threshold is dropped.
//!
//! # What it costs
//!
//! Two logarithms, and for each channel two searches, one move inside 2 KiB and a dozen reads.
//! About 17 KiB with the default window.
//!
//! # When it loses
//!
//! Tails heavier than exponential in the coordinate (zero-inflated losses, Student's t with three
//! degrees of freedom) alarm above the budget. One bad batch of four or eight samples is hardly
//! evidence, and mostly missed. A damage below the noise of the loss is not seen by any channel.
//!
//! The predictive quantile of the tail follows from an exponential with Jeffreys' prior; the
//! choice of two tail starts, the delay and the constants is measured, not derived.

mod arithmetic;
mod channel;
mod config;
mod detector;
mod error;
mod groups;
mod numbers;
mod persist;
mod signal;
mod slow;
mod state;
mod steps;
mod verdict;
mod window;

pub use arithmetic::{exp, ln};
pub use config::Config;
pub use detector::{Detector, NonFinite, Observation};
pub use error::VitalsError;
pub use state::{SignalState, SlowState, State};
pub use verdict::{Evidence, Level, Reasons, Source, Verdict};
