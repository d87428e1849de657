//! What can go wrong, as one enum.

/// Any error of this crate. A message names the thing, the value it had, and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number of classes below two, or more than a confusion matrix can hold.
    #[error(
        "`classes` is {classes}: it must be between 2 and {limit}, as the confusion matrix has a cell for every pair"
    )]
    Classes {
        /// The number asked for.
        classes: usize,
        /// The largest number accepted.
        limit: usize,
    },
    /// A `k` of top-k accuracy that is not one of 1 to `classes`.
    #[error("`topk` holds {k}: with {classes} classes a k must be between 1 and {classes}")]
    TopK {
        /// The `k` asked for.
        k: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A `k` of top-k accuracy that was given twice.
    #[error("`topk` holds {k} more than once: give each k once")]
    TopKRepeated {
        /// The `k` that is repeated.
        k: usize,
    },
    /// A number of bins that is 0 or too large.
    #[error("`bins` is {bins}: it must be between 1 and {limit}; 15 is usual")]
    Bins {
        /// The number asked for.
        bins: usize,
        /// The largest number accepted.
        limit: usize,
    },
    /// An outcome that no row of logits has.
    #[error(
        "`outcomes` holds in row {row} what no row of finite logits gives: compute them as the meter's documentation says"
    )]
    Outcome {
        /// The row of the batch.
        row: usize,
    },
    /// A vocabulary that is too small or too large.
    #[error("`vocabulary` is {vocabulary}: it must be between 2 and {limit}")]
    Vocabulary {
        /// The number of tokens asked for.
        vocabulary: usize,
        /// The largest number accepted.
        limit: usize,
    },
    /// A number of columns that is 0 or too large.
    #[error("`classes` is {columns}: it must be between 1 and {limit}")]
    Columns {
        /// The number asked for.
        columns: usize,
        /// The largest number accepted.
        limit: usize,
    },
    /// Scores that do not fit the labels or the meter.
    #[error(
        "`scores` has {rows} rows and {columns} columns, which do not fit the labels and the {expected} of the meter: pass a row for each label and a column for each class"
    )]
    Scores {
        /// The rows.
        rows: usize,
        /// The columns.
        columns: usize,
        /// The columns of the meter.
        expected: usize,
    },
    /// A label that is none.
    #[error("`labels` holds {value} at place {place}: a label must be between 0 and {last}; leave out rows without one", last = classes - 1)]
    Label {
        /// The place, row by row.
        place: usize,
        /// What was found there.
        value: i64,
        /// The number of labels.
        classes: usize,
    },
    /// A score that is not finite, or not on the declared scale.
    #[error("`scores` holds {value} in row {row}, column {column}: a score must be {scale}")]
    Score {
        /// The row of the batch.
        row: usize,
        /// The column.
        column: usize,
        /// What was found there.
        value: f64,
        /// What a score must be.
        scale: &'static str,
    },
    /// The logits are not one row of `classes` values for each target.
    #[error(
        "`logits` holds {values} values, but {rows} `targets` and {classes} classes need {rows} x {classes}: pass one row of logits for each target"
    )]
    Length {
        /// The number of logits.
        values: usize,
        /// The number of targets.
        rows: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A logit that is NaN, infinite, or too large for its squared loss to be a number.
    #[error(
        "`logits` holds {value} in row {row}, column {column}: a logit must be finite and within ±{limit:e}; look for the step that made it, or leave the row out"
    )]
    Logit {
        /// The row of the batch.
        row: usize,
        /// The class.
        column: usize,
        /// What was found there.
        value: f64,
        /// The largest magnitude accepted.
        limit: f64,
    },
    /// A number of labels that is 0 or too large.
    #[error("`labels` is {labels}: it must be between 1 and {limit}")]
    Labels {
        /// The number asked for.
        labels: usize,
        /// The largest number accepted.
        limit: usize,
    },
    /// A threshold that is not finite.
    #[error(
        "`threshold` is {value}: it must be finite; a probability p is the logit ln(p / (1 - p))"
    )]
    Threshold {
        /// The threshold asked for.
        value: f64,
    },
    /// A flag that is neither 0 nor 1.
    #[error(
        "`targets` holds {value} in row {row}, column {column}: it must be 1 for a label that the row has, and 0 for one that it has not"
    )]
    Flag {
        /// The row of the batch.
        row: usize,
        /// The label.
        column: usize,
        /// What was found there.
        value: i64,
    },
    /// A target that is not a class.
    #[error("`targets` holds {value} in row {row}: with {classes} classes a target must be between 0 and {last}; leave out rows without a label", last = classes - 1)]
    Target {
        /// The row of the batch.
        row: usize,
        /// What was found there.
        value: i64,
        /// The number of classes.
        classes: usize,
    },
    /// Two meters that do not measure the same thing cannot be merged.
    #[error(
        "`other` has {field} {other}, but this meter has {this}: merge meters that were made alike"
    )]
    Unlike {
        /// What differs.
        field: &'static str,
        /// The value here.
        this: String,
        /// The value there.
        other: String,
    },
    /// More samples than the counters can hold.
    #[error("the meter would count more than {limit} samples: reset it, or merge less into it")]
    Full {
        /// The largest count.
        limit: u64,
    },
    /// A state that no meter can have written.
    #[error(
        "`{field}` of the state {problem}: the state is damaged or was not written by this meter"
    )]
    State {
        /// The part of the state.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A value that has no exact sum.
    #[error("`value` is {value}: only finite values have an exact sum")]
    NotFinite {
        /// The value.
        value: f64,
    },
}
