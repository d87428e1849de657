//! One-pass accumulators whose merge is exact.
//!
//! A meter reads its batch once. Its state is integers and [`ExactSum`]s, never a rounded running
//! mean, so a partition of the data into batches, shards or ranks, in any order, gives the same
//! state to the last bit. Intervals and derived scores are computed from that state elsewhere.

mod classification;
mod exact_sum;
mod exp;
mod rows;
mod state;

pub use classification::{Classification, MAX_CLASSES};
pub use exact_sum::ExactSum;
pub use exp::exp_nonpositive;
pub use rows::Logit;
pub use state::ClassificationState;
