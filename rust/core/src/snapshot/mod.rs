//! Bytes copied, checked and fingerprinted in one pass.
//!
//! A snapshot of a training run is a copy of its tensors into one arena. [`gather`] looks at every
//! block of 4 KiB for floating values that are not finite, adds it to a checksum, and copies it while
//! it is still in the first-level cache. [`inspect`] looks without copying, before a restore;
//! [`scatter`] copies back, and fingerprints what it copies.
//!
//! # What it costs
//!
//! The work is bound by memory, not by arithmetic: for a state much larger than the caches, the copy
//! with check and checksum takes as long as the same copy without them, on one core. For that,
//! memory is asked for four pages ahead, and written to past the cache. It loses against a bare
//! copy where the state fits the cache: there, arithmetic is what is left.
//!
//! # Chunks and threads
//!
//! The checksum is a sum over blocks whose terms know their own position, so the order in which
//! blocks are seen, and by which thread, does not change it. Threads take chunks from one queue.

mod checksum;
mod error;
mod lane;
mod pass;
mod stream;

pub use error::Error;
pub use lane::Lane;
pub use pass::{Seen, Source, Span, Target, gather, inspect, scatter};
