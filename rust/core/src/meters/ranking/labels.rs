//! Which scores are of positives.

use std::ops::Range;

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

impl Labels<'_> {
    /// How many rows they are of, if that is a whole number.
    pub(super) fn rows(self, columns: usize) -> Option<usize> {
        let whole = |values: usize| values.is_multiple_of(columns).then_some(values / columns);
        match self {
            Self::Classes(classes) => Some(classes.len()),
            Self::Flags(flags) => whole(flags.len()),
            Self::WideFlags(flags) => whole(flags.len()),
        }
    }

    /// Appends 1 for each of some rows of one column that is of a positive, and 0 for each other.
    pub(super) fn append(self, rows: Range<usize>, out: &mut Vec<u32>) {
        match self {
            Self::Classes(classes) => {
                out.extend(classes[rows].iter().map(|&class| u32::from(class == 0)));
            }
            Self::Flags(flags) => out.extend(flags[rows].iter().map(|&flag| u32::from(flag & 1))),
            Self::WideFlags(flags) => {
                out.extend(flags[rows].iter().map(|&flag| u32::from(flag & 1 == 1)));
            }
        }
    }

    /// Calls `each` with 1 for each score of a positive and 0 for each other of a row.
    #[inline]
    pub(super) fn of_row(self, row: usize, columns: usize, mut each: impl FnMut(usize, u32)) {
        let start = row * columns;
        match self {
            Self::Classes(classes) => {
                let class = classes[row];
                for column in 0..columns {
                    each(column, u32::from(class == column.cast_signed() as i64));
                }
            }
            Self::Flags(flags) => {
                for (column, &flag) in flags[start..start + columns].iter().enumerate() {
                    each(column, u32::from(flag & 1));
                }
            }
            Self::WideFlags(flags) => {
                for (column, &flag) in flags[start..start + columns].iter().enumerate() {
                    each(column, u32::from(flag & 1 == 1));
                }
            }
        }
    }

    /// The first label that is none.
    pub(super) fn wrong(self, columns: usize) -> Option<(usize, i64)> {
        match self {
            Self::Classes(classes) => {
                let outside = |class: i64| class.cast_unsigned() >= columns as u64; // negative ones, too
                let any = classes
                    .iter()
                    .fold(false, |any, &class| any | outside(class));
                let place = any.then(|| classes.iter().position(|&class| outside(class)))??;
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
