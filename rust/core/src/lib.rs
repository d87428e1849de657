//! The parts of flyball that need neither Python nor torch.
//!
//! [`meters`] turn a stream of batches into numbers that can be believed: one pass over the data,
//! a state of integers and exact sums, and a merge that gives the same bits in any order.

mod error;
pub mod meters;

pub use error::Error;
