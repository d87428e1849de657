//! Many patterns in one pass over a text, in time linear in it.
//!
//! A [`Pack`] holds rules: regular expressions and lists of words, each with an id, a category and a severity. A
//! [`Scanner`] says which of them match in a text, and where.
//!
//! # What it computes
//!
//! Exactly what Python's `re` computes with `IGNORECASE` on `str`, for the syntax that a pack accepts: `\w`, `\s`, `\d`
//! and `\b` are Python's, `s` equals `ſ`, `k` the Kelvin sign, `i` both dotless and dotted `I`, and a gap counts code
//! points. The tables are those of one version of Unicode, [`UNICODE_VERSION`].
//!
//! # Bounds
//!
//! Time is linear in the text for a fixed pack, whatever the text.

mod alphabet;
mod automaton;
pub mod batch;
mod bucket;
mod charset;
mod confusables;
mod decode;
mod engine;
mod english;
mod fold;
mod index;
mod kernel;
mod literal;
mod naive;
mod pack;
mod plan;
mod points;
mod program;
mod scanner;
mod syntax;
mod unicode;
mod window;

pub use decode::characters;
pub use fold::Normalise;
pub use kernel::Kernel;
pub use pack::{BYTES, Pack, PackError, RULES, Rule, Severity, Source, WORDS, read_flags};
pub use scanner::{FINDINGS, Finding, Hit, Options, Scanner, Scratch, Slow};
pub use unicode::UNICODE_VERSION;
pub use window::{Window, windows};
