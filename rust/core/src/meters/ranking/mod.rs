//! How well scores put positives above negatives: AUROC and average precision.
//!
//! [`Ranking`] keeps, for each column of scores, every score while there are at most
//! [`EXACT_SCORES`] of them; from then on it keeps counts in cells, and its size no longer grows.
//! Which of the two it is depends on the number of scores alone, so batches, their order and merges
//! leave no trace.
//!
//! *Cells.* A cell is a range of scores; cells rise with the score, and equal scores share one. For
//! logits each doubling of 1 + |x| has as many cells; for probabilities each halving of p below 1/2,
//! and of 1 - p above, so that scores which saturate near 1 stay apart. Up to |x| = 15, and down to
//! 2⁻⁹, they are fine; beyond, five hundred times coarser. One column has 2²¹ fine cells; many share
//! 2²³. They take memory where scores are: 8 bytes each, in blocks of 4096.
//!
//! *Bounds.* Scores in one cell count as ties. AUROC is the share of pairs of a positive and a
//! negative in the right order, ties counted half; so it is off by at most half the share of pairs
//! that lie in one cell, which is reported. Average precision is the mean over positives of the
//! precision at their score; within a cell that lies between all negatives first and none, which is
//! reported, too.
//!
//! *Interval.* `DeLong`'s variance (E. R. `DeLong` et al., Biometrics 44, 1988) from the same counts.

mod cells;
mod labels;
mod ranks;

use super::outcome::NonFinite;
use super::source::Rows;
use crate::Error;
use cells::Cells;
pub use labels::Labels;
pub use ranks::Ranked;
use ranks::{key_of, rank, ties, value_of};

/// Up to this many scores, all columns together, are kept as they are.
pub const EXACT_SCORES: usize = 1 << 16;
/// The largest number of columns.
pub const MAX_COLUMNS: usize = 1 << 14;
/// The largest number of rows: a cell counts in 32 bits.
pub const MAX_ROWS: u64 = u32::MAX as u64;

/// What scores are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Any finite number.
    Logits,
    /// Between 0 and 1.
    Probabilities,
}

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
    Cells(Cells),
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
        let left_out = self.check(scores, labels, policy)?;
        let rows = self.room_for((scores.len() - left_out.len()) as u64)?;
        if !self.fits(rows) {
            self.fold();
        }
        self.rows = rows;
        self.left_out += left_out.len() as u64;
        match &mut self.form {
            Form::Exact(keys) => {
                let mut scratch = Vec::new();
                for row in others(scores.len(), &left_out) {
                    let values = scores.row(row, &mut scratch);
                    labels.of_row(row, self.columns, |column, label| {
                        keys[column][label as usize].push(key_of(values[column].into()));
                    });
                }
            }
            Form::Cells(cells) => count(cells, self.columns, scores, labels, &left_out),
        }
        Ok(())
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
            (Form::Cells(mine), Form::Cells(theirs)) => mine.merge(theirs),
            (Form::Cells(mine), Form::Exact(keys)) => count_keys(mine, keys),
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
        let exact = matches!(self.form, Form::Exact(_));
        let columns = 0..self.columns;
        columns
            .map(|column| rank(&self.groups(column), exact))
            .collect()
    }

    /// The negatives and positives of each score, or of each cell, of a column, by rising score.
    ///
    /// # Panics
    ///
    /// If there is no such column.
    #[must_use]
    pub fn groups(&self, column: usize) -> Vec<[u32; 2]> {
        match &self.form {
            Form::Exact(keys) => ties(&keys[column]),
            Form::Cells(cells) => cells.column(column),
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
            Form::Cells(cells) => {
                for (place, [negatives, positives]) in cells.seen() {
                    let place = place.cast_signed() as i64;
                    state.extend([place, i64::from(negatives), i64::from(positives)]);
                }
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
                Form::Cells(cells) => {
                    column = place / cells.shape().cells();
                    let (Ok(negatives), Ok(positives), true) =
                        (u32::try_from(one), u32::try_from(two), one | two > 0)
                    else {
                        return Err(refuse("holds a wrong count"));
                    };
                    if last >= Some((place, 0, 0)) || !cells.set(place, [negatives, positives]) {
                        return Err(refuse("holds a wrong place"));
                    }
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

    /// The rows that are left out; an error if the batch is refused.
    fn check<R: Rows>(
        &self,
        scores: &R,
        labels: Labels<'_>,
        policy: NonFinite,
    ) -> Result<Vec<usize>, Error> {
        let rows = scores.len();
        if scores.columns() != self.columns || labels.rows(self.columns) != Some(rows) {
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
        let mut left_out = Vec::new();
        for row in suspects(scores, self.scale) {
            let mut scratch = Vec::new();
            let values = scores.row(row, &mut scratch);
            let wrong = values.iter().position(|&x| !self.scale.holds(x.into()));
            let Some(column) = wrong else { continue };
            let value: f64 = values[column].into();
            if policy == NonFinite::LeaveOut && !value.is_finite() {
                left_out.push(row);
                continue;
            }
            return Err(Error::Score {
                row,
                column,
                value,
                scale: match self.scale {
                    Scale::Logits => "finite",
                    Scale::Probabilities => {
                        "between 0 and 1, as a probability is; declare logits as such"
                    }
                },
            });
        }
        Ok(left_out)
    }

    fn room_for(&self, rows: u64) -> Result<u64, Error> {
        room(self.rows, rows)
    }

    fn fits(&self, rows: u64) -> bool {
        rows.saturating_mul(self.columns as u64) <= EXACT_SCORES as u64
    }

    fn fold(&mut self) {
        if let Form::Exact(keys) = &self.form {
            let mut cells = Cells::new(self.columns, self.scale);
            count_keys(&mut cells, keys);
            self.form = Form::Cells(cells);
        }
    }
}

/// Scores that are looked at together.
const TOGETHER: usize = 512;
/// Scores that are counted together.
const AT_ONCE: usize = 1 << 20;

/// The rows that are not left out.
fn others(rows: usize, left_out: &[usize]) -> impl Iterator<Item = usize> {
    let mut left_out = left_out.iter().copied().peekable();
    (0..rows).filter(move |&row| left_out.next_if_eq(&row).is_none())
}

/// The rows among which are all that hold a value which is not on the scale.
fn suspects<R: Rows>(scores: &R, scale: Scale) -> Vec<usize> {
    let mut found = Vec::new();
    if scores.whole().is_some_and(|values| scale.holds_all(values)) {
        return found;
    }
    let rows = (TOGETHER / scores.columns().max(1)).max(1);
    let mut values = Vec::with_capacity(rows * scores.columns());
    let mut scratch = Vec::new();
    for start in (0..scores.len()).step_by(rows) {
        let end = (start + rows).min(scores.len());
        values.clear();
        for row in start..end {
            values.extend_from_slice(scores.row(row, &mut scratch));
        }
        if !scale.holds_all(&values) {
            found.extend(start..end);
        }
    }
    found
}

/// Counts a batch without the rows that are left out.
fn count<R: Rows>(
    cells: &mut Cells,
    columns: usize,
    scores: &R,
    labels: Labels<'_>,
    left_out: &[usize],
) {
    let shape = cells.shape();
    let mut places = Vec::with_capacity((scores.len() * columns).min(AT_ONCE + columns));
    let mut values = Vec::with_capacity(TOGETHER + columns);
    let mut scratch = Vec::new();
    if let (1, [], Some(values)) = (columns, left_out, scores.whole()) {
        for start in (0..values.len()).step_by(AT_ONCE) {
            let values = &values[start..values.len().min(start + AT_ONCE)];
            places.clear();
            labels.append(start..start + values.len(), &mut places);
            shape.add_cells(values, &mut places);
            cells.count(&places);
        }
        return;
    }
    let mut kept = others(scores.len(), left_out).peekable();
    while kept.peek().is_some() {
        // Cells first, which vectors do, then the labels, row by row.
        values.clear();
        let start = places.len();
        while values.len() < TOGETHER {
            let Some(row) = kept.next() else { break };
            labels.of_row(row, columns, |column, label| {
                places.push(Cells::place(shape, column, 0) + label);
            });
            values.extend_from_slice(scores.row(row, &mut scratch));
        }
        shape.add_cells(&values, &mut places[start..]);
        if places.len() >= AT_ONCE {
            cells.count(&places);
            places.clear();
        }
    }
    cells.count(&places);
}

fn count_keys(cells: &mut Cells, keys: &[[Vec<u64>; 2]]) {
    let shape = cells.shape();
    let mut places = Vec::new();
    for (column, keys) in keys.iter().enumerate() {
        for (label, keys) in (0_u32..).zip(keys) {
            let place = |&key: &u64| Cells::place(shape, column, shape.cell(value_of(key)));
            places.extend(keys.iter().map(|key| place(key) + label));
        }
    }
    cells.count(&places);
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

fn room(rows: u64, more: u64) -> Result<u64, Error> {
    let total = rows.checked_add(more).filter(|&total| total <= MAX_ROWS);
    total.ok_or(Error::Full { limit: MAX_ROWS })
}
