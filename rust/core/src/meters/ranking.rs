//! How well scores put positives above negatives: AUROC and average precision.
//!
//! [`Ranking`] keeps, for each column of scores, every score while there are at most
//! [`EXACT_SCORES`] of them; from then on it keeps counts in cells, and its size no longer grows.
//! Which of the two it is depends on the number of scores alone, so batches, their order and merges
//! leave no trace.
//!
//! *Cells.* A cell is a range of scores; cells rise with the score, and equal scores share one. For
//! logits they are equal in |x| up to 1, and from there on equal in ratio of 1 + |x|, up to 255. For
//! probabilities they are equal in ratio of p below 1/2, and of 1 - p above, down to 2⁻³³: scores
//! that saturate near 1 stay apart. One column has 2¹⁸ cells; many share 2²².
//!
//! *Bounds.* Scores in one cell count as ties. AUROC is the share of pairs of a positive and a
//! negative in the right order, ties counted half; so it is off by at most half the share of pairs
//! that lie in one cell, which is reported. Average precision is the mean over positives of the
//! precision at their score; within a cell that lies between all negatives first and none, which is
//! reported, too.
//!
//! *Interval.* `DeLong`'s variance (E. R. `DeLong` et al., Biometrics 44, 1988) from the same counts.

use super::outcome::NonFinite;
use super::source::Rows;
use crate::Error;

/// Up to this many scores, all columns together, are kept as they are.
pub const EXACT_SCORES: usize = 1 << 16;
/// The largest number of columns.
pub const MAX_COLUMNS: usize = 1 << 14;
/// The largest number of rows: a cell counts in 32 bits.
pub const MAX_ROWS: u64 = u32::MAX as u64;

const MOST_CELLS: u32 = 18;
const ALL_CELLS: u32 = 22;
const LEAST_CELLS: u32 = 10;

/// What scores are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Any finite number.
    Logits,
    /// Between 0 and 1.
    Probabilities,
}

/// Which rows are positive.
#[derive(Debug, Clone, Copy)]
pub enum Labels<'a> {
    /// For each row the column for which it is positive; for all others it is negative.
    Classes(&'a [i64]),
    /// For each score, row by row, 1 if positive and 0 if negative.
    Flags(&'a [u8]),
    /// The same in another type.
    WideFlags(&'a [i64]),
}

/// Negatives and positives.
type Pair = [u32; 2];

/// An accumulator over columns of scores with their labels.
#[derive(Debug, Clone)]
pub struct Ranking {
    columns: usize,
    scale: Scale,
    rows: u64,
    left_out: u64,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// For each column the keys of negatives and of positives, in no order.
    Exact(Vec<[Vec<u64>; 2]>),
    /// For each cell of each column.
    Cells(Vec<Pair>),
}

/// What the counts of one column say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The number of positives.
    pub positives: u64,
    /// The number of negatives.
    pub negatives: u64,
    /// The share of pairs in the right order; NaN without positives or negatives.
    pub auroc: f64,
    /// The largest error of that; 0 if scores were kept.
    pub auroc_bound: f64,
    /// `DeLong`'s variance of it; NaN with fewer than two positives or negatives.
    pub auroc_variance: f64,
    /// The mean precision at the scores of the positives; NaN without positives.
    pub average_precision: f64,
    /// The largest error of that; 0 if scores were kept.
    pub average_precision_bound: f64,
}

impl Ranking {
    /// An empty meter for `columns` columns of scores.
    ///
    /// # Errors
    ///
    /// [`Error::Columns`] unless there are 1 to [`MAX_COLUMNS`].
    pub fn new(columns: usize, scale: Scale) -> Result<Self, Error> {
        if !(1..=MAX_COLUMNS).contains(&columns) {
            return Err(Error::Columns {
                columns,
                limit: MAX_COLUMNS,
            });
        }
        Ok(Self {
            columns,
            scale,
            rows: 0,
            left_out: 0,
            form: Form::Exact(vec![[Vec::new(), Vec::new()]; columns]),
        })
    }

    /// Adds a batch.
    ///
    /// # Errors
    ///
    /// [`Error::Scores`] if scores and labels do not fit, [`Error::Label`], [`Error::Score`] or
    /// [`Error::Full`]; the meter is then what it was before.
    pub fn update<R: Rows>(
        &mut self,
        scores: &R,
        labels: Labels<'_>,
        policy: NonFinite,
    ) -> Result<(), Error> {
        let kept = self.check(scores, labels, policy)?;
        let count = kept.iter().filter(|&&kept| kept).count();
        let rows = self.room_for(count as u64)?;
        if !self.fits(rows) {
            self.fold();
        }
        self.rows = rows;
        self.left_out += (kept.len() - count) as u64;
        match &mut self.form {
            Form::Cells(counts) if self.columns == 1 => {
                count_column(counts, scores, labels, &kept, self.scale);
            }
            _ => self.add_rows(scores, labels, &kept),
        }
        Ok(())
    }

    fn add_rows<R: Rows>(&mut self, scores: &R, labels: Labels<'_>, kept: &[bool]) {
        let (columns, scale, shape) = (self.columns, self.scale, Shape::of(self.columns));
        let mut scratch = Vec::new();
        let mut cells = vec![0_u32; columns];
        for (row, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
            let values = scores.row(row, &mut scratch);
            match &mut self.form {
                Form::Exact(keys) => {
                    for (column, (keys, &value)) in keys.iter_mut().zip(values).enumerate() {
                        keys[labels.of(row, column, columns)].push(key_of(value.into()));
                    }
                }
                Form::Cells(counts) => {
                    for (cell, &value) in cells.iter_mut().zip(values) {
                        *cell = shape.cell(value.into(), scale);
                    }
                    for (column, &cell) in cells.iter().enumerate() {
                        counts[shape.place(column, cell)][labels.of(row, column, columns)] += 1;
                    }
                }
            }
        }
    }

    /// Adds everything that `other` has seen.
    ///
    /// # Errors
    ///
    /// [`Error::Unlike`] if columns or scales differ, or [`Error::Full`]; the meter is then what it
    /// was before.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        if (self.columns, self.scale) != (other.columns, other.scale) {
            let (field, this, other) = if self.columns == other.columns {
                (
                    "scale",
                    format!("{:?}", self.scale),
                    format!("{:?}", other.scale),
                )
            } else {
                (
                    "columns",
                    self.columns.to_string(),
                    other.columns.to_string(),
                )
            };
            return Err(Error::Unlike { field, this, other });
        }
        let rows = self.room_for(other.rows)?;
        if !self.fits(rows) {
            self.fold();
        }
        match (&mut self.form, &other.form) {
            (Form::Exact(mine), Form::Exact(theirs)) => {
                for (mine, theirs) in mine.iter_mut().flatten().zip(theirs.iter().flatten()) {
                    mine.extend_from_slice(theirs);
                }
            }
            (Form::Cells(mine), theirs) => {
                let folded;
                let theirs = match theirs {
                    Form::Cells(theirs) => theirs,
                    Form::Exact(keys) => {
                        folded = fold(keys, self.columns, self.scale);
                        &folded
                    }
                };
                for (mine, theirs) in mine.iter_mut().flatten().zip(theirs.iter().flatten()) {
                    *mine += theirs;
                }
            }
            // Cells have more scores than fit, and so has the sum.
            (Form::Exact(_), Form::Cells(_)) => {}
        }
        self.rows = rows;
        self.left_out += other.left_out;
        Ok(())
    }

    /// The number of columns.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// What scores are.
    #[must_use]
    pub const fn scale(&self) -> Scale {
        self.scale
    }

    /// The number of rows measured.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// The number of rows left out.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// What each column says.
    #[must_use]
    pub fn ranked(&self) -> Vec<Ranked> {
        match &self.form {
            Form::Exact(keys) => keys.iter().map(|keys| rank(&ties(keys), true)).collect(),
            Form::Cells(counts) => {
                let cells = Shape::of(self.columns).cells();
                counts
                    .chunks_exact(cells)
                    .map(|counts| rank(counts, false))
                    .collect()
            }
        }
    }

    /// The state as integers; equal meters give equal states.
    ///
    /// Rows, rows left out, then three for each group of scores that is not empty: place, negatives
    /// and positives. The place is the column, and the key of the score if scores are kept, which
    /// takes two integers, or else the cell.
    #[must_use]
    pub fn state(&self) -> Vec<i64> {
        let mut state = vec![self.rows.cast_signed(), self.left_out.cast_signed()];
        match &self.form {
            Form::Exact(keys) => {
                for (column, keys) in (0_i64..).zip(keys) {
                    for (label, keys) in (0_i64..).zip(keys) {
                        let mut keys = keys.clone();
                        keys.sort_unstable();
                        state.extend(
                            keys.iter()
                                .flat_map(|key| [column, label, key.cast_signed()]),
                        );
                    }
                }
            }
            Form::Cells(counts) => {
                let seen = (0_i64..)
                    .zip(counts)
                    .filter(|(_, pair)| pair[0] | pair[1] > 0);
                state.extend(
                    seen.flat_map(|(place, pair)| [place, i64::from(pair[0]), i64::from(pair[1])]),
                );
            }
        }
        state
    }

    /// The meter that wrote `state`.
    ///
    /// # Errors
    ///
    /// [`Error::Columns`], or [`Error::State`] if no meter writes such a state.
    pub fn from_state(columns: usize, scale: Scale, state: &[i64]) -> Result<Self, Error> {
        let refuse = |problem: &str| Error::State {
            field: "scores",
            problem: problem.to_owned(),
        };
        let mut read = Self::new(columns, scale)?;
        let (&[rows, left_out], groups) = state
            .split_first_chunk::<2>()
            .ok_or_else(|| refuse("is too short"))?;
        let (Ok(rows), Ok(left_out)) = (u64::try_from(rows), u64::try_from(left_out)) else {
            return Err(refuse("holds a negative count"));
        };
        let (groups, []) = groups.as_chunks::<3>() else {
            return Err(refuse("has a length that is no multiple of 3"));
        };
        read.rows = read.room_for(rows)?;
        read.left_out = room(0, left_out)?;
        if !read.fits(rows) {
            read.fold();
        }
        let mut totals = vec![0_u64; columns];
        let mut last = None;
        let shape = Shape::of(columns);
        for &[place, one, two] in groups {
            let place = usize::try_from(place).map_err(|_| refuse("holds a negative place"))?;
            let column;
            match &mut read.form {
                Form::Exact(keys) => {
                    column = place;
                    let label = usize::from(one != 0);
                    let keys = keys.get_mut(place).filter(|_| one == 0 || one == 1);
                    let keys = keys.ok_or_else(|| refuse("holds a wrong column or label"))?;
                    let key = two.cast_unsigned();
                    if !scale.holds(value_of(key)) || last > Some((place, label, key)) {
                        return Err(refuse("holds a wrong score, or is not sorted"));
                    }
                    last = Some((place, label, key));
                    keys[label].push(key);
                    totals[column] += 1;
                }
                Form::Cells(counts) => {
                    column = place / shape.cells();
                    let (Ok(negatives), Ok(positives), true) =
                        (u32::try_from(one), u32::try_from(two), one | two > 0)
                    else {
                        return Err(refuse("holds a wrong count"));
                    };
                    let pair = counts.get_mut(place).filter(|_| last < Some((place, 0, 0)));
                    *pair.ok_or_else(|| refuse("holds a wrong place"))? = [negatives, positives];
                    last = Some((place, 0, 0));
                    totals[column] += u64::from(negatives) + u64::from(positives);
                }
            }
        }
        if totals.iter().any(|&total| total != rows) {
            return Err(refuse("does not count every row once in every column"));
        }
        Ok(read)
    }

    /// Which rows count; an error if the batch is refused.
    fn check<R: Rows>(
        &self,
        scores: &R,
        labels: Labels<'_>,
        policy: NonFinite,
    ) -> Result<Vec<bool>, Error> {
        let rows = scores.len();
        let expected = match labels {
            Labels::Classes(classes) => Some(classes.len()),
            Labels::Flags(flags) => whole_rows(flags.len(), self.columns),
            Labels::WideFlags(flags) => whole_rows(flags.len(), self.columns),
        };
        if scores.columns() != self.columns || expected != Some(rows) {
            return Err(Error::Scores {
                rows,
                columns: scores.columns(),
                expected: self.columns,
            });
        }
        if let Some((place, value)) = labels.wrong(self.columns) {
            return Err(Error::Label {
                place,
                value,
                classes: match labels {
                    Labels::Classes(_) => self.columns,
                    Labels::Flags(_) | Labels::WideFlags(_) => 2,
                },
            });
        }
        let mut scratch = Vec::new();
        (0..rows)
            .map(|row| {
                let values = scores.row(row, &mut scratch);
                let bad = values
                    .iter()
                    .position(|&value| !self.scale.holds(value.into()));
                match bad {
                    None => Ok(true),
                    Some(column) => {
                        let value: f64 = values[column].into();
                        if policy == NonFinite::LeaveOut && !value.is_finite() {
                            return Ok(false);
                        }
                        Err(Error::Score {
                            row,
                            column,
                            value,
                            scale: match self.scale {
                                Scale::Logits => "finite",
                                Scale::Probabilities => {
                                    "between 0 and 1, as a probability is; declare logits as such"
                                }
                            },
                        })
                    }
                }
            })
            .collect()
    }

    fn room_for(&self, rows: u64) -> Result<u64, Error> {
        room(self.rows, rows)
    }

    fn fits(&self, rows: u64) -> bool {
        rows.saturating_mul(self.columns as u64) <= EXACT_SCORES as u64
    }

    fn fold(&mut self) {
        if let Form::Exact(keys) = &self.form {
            self.form = Form::Cells(fold(keys, self.columns, self.scale));
        }
    }
}

/// Counts one column in blocks, so that finding the cells does not wait for the memory that counts.
fn count_column<R: Rows>(
    counts: &mut [Pair],
    scores: &R,
    labels: Labels<'_>,
    kept: &[bool],
    scale: Scale,
) {
    const BLOCK: usize = 512;
    let shape = Shape::of(1);
    let mut scratch = Vec::new();
    let mut cells = [0_u32; BLOCK];
    for (start, kept) in (0..).step_by(BLOCK).zip(kept.chunks(BLOCK)) {
        for (row, cell) in (start..).zip(&mut cells[..kept.len()]) {
            *cell = shape.cell(scores.row(row, &mut scratch)[0].into(), scale);
        }
        for ((row, &cell), _) in (start..).zip(&cells).zip(kept).filter(|(_, kept)| **kept) {
            counts[cell as usize][labels.of(row, 0, 1)] += 1;
        }
    }
}

impl PartialEq for Ranking {
    fn eq(&self, other: &Self) -> bool {
        (self.columns, self.scale) == (other.columns, other.scale) && self.state() == other.state()
    }
}

impl Eq for Ranking {}

impl Scale {
    #[inline]
    fn holds(self, value: f64) -> bool {
        match self {
            Self::Logits => value.is_finite(),
            Self::Probabilities => (0.0..=1.0).contains(&value),
        }
    }
}

impl Labels<'_> {
    /// 1 if the score in this place is of a positive.
    #[inline]
    fn of(self, row: usize, column: usize, columns: usize) -> usize {
        match self {
            Self::Classes(classes) => usize::from(classes[row] == column.cast_signed() as i64),
            Self::Flags(flags) => usize::from(flags[row * columns + column] & 1),
            Self::WideFlags(flags) => usize::from(flags[row * columns + column] & 1 == 1),
        }
    }

    /// The first label that is none.
    fn wrong(self, columns: usize) -> Option<(usize, i64)> {
        match self {
            Self::Classes(classes) => {
                let inside =
                    |&class: &i64| usize::try_from(class).is_ok_and(|class| class < columns);
                let place = classes.iter().position(|class| !inside(class))?;
                Some((place, classes[place]))
            }
            Self::Flags(flags) => {
                let any = flags.iter().fold(0, |any, flag| any | flag);
                let place = (any > 1).then(|| flags.iter().position(|&flag| flag > 1))??;
                Some((place, i64::from(flags[place])))
            }
            Self::WideFlags(flags) => {
                let any = flags.iter().fold(0, |any, flag| any | (flag & !1));
                let place = (any != 0).then(|| flags.iter().position(|&flag| flag & !1 != 0))??;
                Some((place, flags[place]))
            }
        }
    }
}

fn whole_rows(values: usize, columns: usize) -> Option<usize> {
    values.is_multiple_of(columns).then_some(values / columns)
}

fn room(rows: u64, more: u64) -> Result<u64, Error> {
    let total = rows.checked_add(more).filter(|&total| total <= MAX_ROWS);
    total.ok_or(Error::Full { limit: MAX_ROWS })
}

/// How many cells a column has.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Cells on each side of the middle, as a power of two.
    half: u32,
}

impl Shape {
    fn of(columns: usize) -> Self {
        let shared = ALL_CELLS.saturating_sub(columns.next_power_of_two().ilog2());
        Self {
            half: shared.clamp(LEAST_CELLS, MOST_CELLS) - 1,
        }
    }

    const fn cells(self) -> usize {
        2 << self.half
    }

    #[inline]
    const fn place(self, column: usize, cell: u32) -> usize {
        column * self.cells() + cell as usize
    }

    /// The cell of a score; it rises with the score.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "less than 2¹⁷ after `min`")]
    fn cell(self, score: f64, scale: Scale) -> u32 {
        let half = 1_u64 << self.half;
        match scale {
            Scale::Logits => {
                // Eight doublings of 1 + |x|.
                let leading = (1.0 + score.abs()).to_bits() >> (52 + 3 - self.half);
                let away = (leading - (1023 << (self.half - 3))).min(half - 1) as u32;
                // -0 is where +0 is.
                if score >= 0.0 {
                    half as u32 + away
                } else {
                    half as u32 - 1 - away
                }
            }
            Scale::Probabilities => {
                // Thirty-two doublings of the smaller of p and 1 - p, from 2⁻³³; both are exact.
                let upper = score >= 0.5;
                let near = if upper { 1.0 - score } else { score };
                let leading = near.to_bits() >> (52 + 5 - self.half);
                let cell = leading
                    .saturating_sub((1023 - 33) << (self.half - 5))
                    .min(half - 1) as u32;
                if upper {
                    2 * half as u32 - 1 - cell
                } else {
                    cell
                }
            }
        }
    }
}

fn fold(keys: &[[Vec<u64>; 2]], columns: usize, scale: Scale) -> Vec<Pair> {
    let shape = Shape::of(columns);
    let mut counts = vec![[0, 0]; columns * shape.cells()];
    for (column, keys) in keys.iter().enumerate() {
        for (label, keys) in keys.iter().enumerate() {
            for &key in keys {
                counts[shape.place(column, shape.cell(value_of(key), scale))][label] += 1;
            }
        }
    }
    counts
}

/// An integer that rises with a finite number; -0 is where +0 is.
#[inline]
const fn key_of(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | 1 << 63
    }
}

const fn value_of(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 {
        key & !(1 << 63)
    } else {
        !key
    })
}

/// Groups of equal keys, rising.
fn ties(keys: &[Vec<u64>; 2]) -> Vec<Pair> {
    let [mut negatives, mut positives] = keys.clone();
    negatives.sort_unstable();
    positives.sort_unstable();
    let mut groups = Vec::new();
    let (mut negatives, mut positives) = (negatives.as_slice(), positives.as_slice());
    while let Some(&least) = [negatives.first(), positives.first()]
        .into_iter()
        .flatten()
        .min()
    {
        let take = |keys: &mut &[u64]| {
            let count = keys.partition_point(|&key| key == least);
            *keys = &keys[count..];
            u32::try_from(count).unwrap_or(u32::MAX) // at most EXACT_SCORES
        };
        groups.push([take(&mut negatives), take(&mut positives)]);
    }
    groups
}

/// What groups of ties say, by rising score; `exact` if the ties are real.
fn rank(groups: &[Pair], exact: bool) -> Ranked {
    let seen = || {
        groups
            .iter()
            .filter(|pair| pair[0] | pair[1] > 0)
            .map(|pair| pair.map(u64::from))
    };
    let (mut negatives, mut positives) = (0_u64, 0_u64);
    let (mut twice, mut tied) = (0_u128, 0_u128);
    for [negative, positive] in seen() {
        twice += u128::from(positive) * u128::from(2 * negatives + negative);
        tied += u128::from(positive) * u128::from(negative);
        negatives += negative;
        positives += positive;
    }
    let (n, p) = (negatives as f64, positives as f64);
    let pairs = 2.0 * n * p;
    let auroc = twice as f64 / pairs;
    let (mut below, mut above) = (0.0, p);
    let (mut of_positives, mut of_negatives) = (0.0, 0.0);
    // From the top: true and false positives so far; the sum of precisions, and its ends.
    let (mut hits, mut alarms) = (p, n);
    let (mut precision, mut least, mut most) = (0.0, 0.0, 0.0);
    for [negative, positive] in seen() {
        let (negative, positive) = (negative as f64, positive as f64);
        above -= positive;
        let right_of_positive = (below + negative / 2.0) / n - auroc;
        let right_of_negative = (above + positive / 2.0) / p - auroc;
        of_positives += positive * right_of_positive * right_of_positive;
        of_negatives += negative * right_of_negative * right_of_negative;
        below += negative;
        if positive > 0.0 {
            let before = (hits - positive, alarms - negative);
            let at = |hits: f64, alarms: f64| hits / (hits + alarms);
            precision += positive * at(hits, alarms);
            // The precision at the i-th positive is concave in i, so its mean is above that of the ends.
            least += positive * (at(before.0 + 1.0, alarms) + at(hits, alarms)) / 2.0;
            most += positive * at(hits, before.1);
        }
        hits -= positive;
        alarms -= negative;
    }
    let average_precision = precision / p;
    let ends = (precision - least).max(most - precision) / p;
    Ranked {
        positives,
        negatives,
        auroc,
        auroc_bound: if exact { 0.0 } else { tied as f64 / pairs },
        auroc_variance: of_positives / (p - 1.0).max(0.0) / p
            + of_negatives / (n - 1.0).max(0.0) / n,
        average_precision,
        average_precision_bound: if exact { 0.0 } else { ends },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "keys are exact")]

    use proptest::prelude::*;

    use super::{Scale, Shape, key_of, value_of};

    fn score() -> impl Strategy<Value = f64> {
        prop_oneof![
            -20.0..20.0_f64,
            -1e-3..1e-3_f64,
            prop::num::f64::NORMAL,
            prop::sample::select(vec![
                0.0,
                -0.0,
                0.5,
                1.0,
                1e-40,
                255.0,
                -255.0,
                f64::MAX,
                f64::MIN
            ]),
        ]
    }

    proptest! {
        #[test]
        fn cells_and_keys_rise_with_the_score(a in score(), b in score(), columns in 1_usize..5000) {
            let shape = Shape::of(columns);
            let (low, high) = if a <= b { (a, b) } else { (b, a) };
            prop_assert!(key_of(low) <= key_of(high));
            prop_assert!(low < high || key_of(low) == key_of(high));
            prop_assert!(value_of(key_of(a)) == a);
            let cell = |x| shape.cell(x, Scale::Logits);
            prop_assert!(cell(low) <= cell(high) && (cell(high) as usize) < shape.cells());
            let [p, q] = [low, high].map(|x| x / (1.0 + x.abs()) / 2.0 + 0.5);
            let cell = |x| shape.cell(x, Scale::Probabilities);
            prop_assert!(cell(p) <= cell(q) && (cell(q) as usize) < shape.cells());
        }
    }

    #[test]
    fn saturated_probabilities_stay_apart() {
        let shape = Shape::of(1);
        let cell = |p| shape.cell(p, Scale::Probabilities);
        assert!(cell(1.0 - 1e-9) < cell(1.0 - 5e-10));
        assert!(cell(1e-9) > cell(5e-10));
        assert_eq!((cell(0.0), cell(1.0) as usize), (0, shape.cells() - 1));
        assert!(cell(0.5_f64.next_down()) < cell(0.5));
    }
}
