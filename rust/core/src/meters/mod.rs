//! One-pass accumulators whose merge is exact.
//!
//! A meter reads its batch once. Its state is integers and [`ExactSum`]s, never a rounded running
//! mean, so a partition of the data into batches, shards or ranks, in any order, gives the same
//! state to the last bit. Intervals and derived scores are computed from that state elsewhere.

mod classification;
mod confusion;
mod exact_sum;
mod exp;
mod few;
mod fixed;
mod multi_label;
mod outcome;
mod products;
mod ranking;
mod reliability;
mod rows;
mod source;
mod state;
mod text;

pub use classification::{Classification, DEFAULT_BINS, MAX_CLASSES, Scores};
pub use exact_sum::ExactSum;
pub use exp::{exp_nonpositive, exp_nonpositive_f64, ln_1p_nonnegative};
pub use fixed::FixedSum;
pub use multi_label::{Flags, LabelCounts, MAX_LABELS, MultiLabel, RowSums};
pub use outcome::{NonFinite, Outcome};
pub use products::{PRODUCT_LIMIT, add_products};
pub use ranking::{EXACT_SCORES, Labels, MAX_COLUMNS, MAX_ROWS, Ranked, Ranking, Scale};
pub use reliability::{Bin, MAX_BINS, Reliability};
pub use rows::{LANES, Logit, Sums};
pub use source::{Dense, Half, Halves, Rows};
pub use state::ClassificationState;
pub use text::{MAX_VOCABULARY, Text};
