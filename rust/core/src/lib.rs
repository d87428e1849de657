//! The parts of flyball that need neither Python nor torch.
//!
//! [`meters`] turn a stream of batches into numbers that can be believed: one pass over the data,
//! a state of integers and exact sums, and a merge that gives the same bits in any order.
//! [`norm`] takes the norm of all gradients in one read.
//! [`resample`] asks how sure a number is, by looking at resampled data a thousand times over.
//! [`scan`] finds the rules of a pack in texts.
//! [`snapshot`] copies the bytes of a training run, checks them and fingerprints them in one pass.
//! [`vitals`] judges each step of a training run by its loss and gradient norm.

mod error;
pub mod meters;
pub mod norm;
mod prefetch;
pub mod resample;
pub mod scan;
mod share;
pub mod snapshot;
pub mod vitals;

pub use error::Error;
