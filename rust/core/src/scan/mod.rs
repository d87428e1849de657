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
mod check;
mod confirm;
mod confusables;
mod decode;
mod engine;
mod english;
mod fold;
mod index;
mod inflect;
mod judge;
mod kernel;
mod lists;
mod literal;
mod naive;
mod pack;
mod pack_hash;
mod pack_read;
mod pack_schema;
mod plan;
mod points;
mod program;
pub mod reasoning;
mod scanner;
mod slots;
mod subtle;
mod surround;
mod syntax;
mod unicode;
mod window;

pub use check::Check;
pub use decode::characters;
pub use fold::Normalise;
pub use inflect::Form;
pub use judge::{Found, Judge, Verdict};
pub use kernel::Kernel;
pub use lists::{List, Lists};
pub use pack::{
    BYTES, Frame, Kind, Pack, PackError, Place, RULES, Rule, Severity, Side, Source, Subtle, WORDS,
    read_flags,
};
pub use scanner::{FINDINGS, Finding, Hit, Options, Scanner, Scratch, Slow};
pub use slots::Slots;
pub use subtle::count_words;
pub use unicode::UNICODE_VERSION;
pub use window::{Window, windows};
