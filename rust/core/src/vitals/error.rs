//! What the detector refuses.

/// A configuration, an observation or a state that makes no sense; nothing was changed by it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VitalsError {
    /// A setting is out of its range.
    #[error("`{field}` is {value}: it must be {range}")]
    Config {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: String,
    },
    /// A norm or a ratio below zero.
    #[error("`{field}` is {value}: it is a length or a ratio of two, which is never negative")]
    Negative {
        /// The argument.
        field: &'static str,
        /// Its value.
        value: f64,
    },
    /// A state that no detector with this configuration can have written.
    #[error(
        "`{field}` of the state {problem}: the state is damaged, or was written by a detector with a longer window"
    )]
    State {
        /// The part of the state.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}
