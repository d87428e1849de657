//! A confusion matrix that costs what it holds: a list of cells while it is small, then a matrix.
//!
//! A shard of a thousand samples over a thousand classes fills a thousand cells of a million.
//! Merging such shards as matrices moves 8 MB for each; as lists, 4 KB. What the counts are does not
//! depend on the form that they have.

/// Matrices up to this many cells are never lists.
const SMALL: usize = 1 << 12;
/// A list may be this part of the matrix.
const SHARE: usize = 16;

/// Counts for each pair of a true and a predicted class.
#[derive(Debug, Clone)]
pub(super) struct Confusion {
    classes: usize,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// The cell of each sample, in no order.
    List(Vec<u32>),
    Matrix(Vec<u64>),
}

impl Confusion {
    pub(super) fn new(classes: usize) -> Self {
        let form = match classes * classes {
            cells if cells <= SMALL => Form::Matrix(vec![0; cells]),
            _ => Form::List(Vec::new()),
        };
        Self { classes, form }
    }

    pub(super) const fn from_counts(classes: usize, counts: Vec<u64>) -> Self {
        Self {
            classes,
            form: Form::Matrix(counts),
        }
    }

    /// Makes room for the samples of a batch.
    pub(super) fn expect(&mut self, samples: usize) {
        let most = self.classes * self.classes / SHARE;
        match &mut self.form {
            Form::List(list) if list.len() + samples <= most => list.reserve(samples),
            Form::List(_) => self.form = Form::Matrix(self.counts()),
            Form::Matrix(_) => {}
        }
    }

    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "MAX_CLASSES squared is 2²⁸"
    )]
    pub(super) fn add(&mut self, target: usize, predicted: usize) {
        let cell = target * self.classes + predicted;
        match &mut self.form {
            Form::List(list) => list.push(cell as u32),
            Form::Matrix(counts) => counts[cell] += 1,
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        match &other.form {
            Form::List(list) => {
                self.expect(list.len());
                match &mut self.form {
                    Form::List(mine) => mine.extend_from_slice(list),
                    Form::Matrix(counts) => {
                        for &cell in list {
                            counts[cell as usize] += 1;
                        }
                    }
                }
            }
            Form::Matrix(theirs) => {
                self.expect(usize::MAX / 2); // a matrix from here on
                if let Form::Matrix(counts) = &mut self.form {
                    for (mine, theirs) in counts.iter_mut().zip(theirs) {
                        *mine += theirs;
                    }
                }
            }
        }
    }

    /// The matrix, row by row.
    pub(super) fn counts(&self) -> Vec<u64> {
        match &self.form {
            Form::Matrix(counts) => counts.clone(),
            Form::List(list) => {
                let mut counts = vec![0; self.classes * self.classes];
                for &cell in list {
                    counts[cell as usize] += 1;
                }
                counts
            }
        }
    }
}

impl PartialEq for Confusion {
    fn eq(&self, other: &Self) -> bool {
        self.classes == other.classes && self.counts() == other.counts()
    }
}

impl Eq for Confusion {}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::{Confusion, Form};

    const CLASSES: usize = 70; // a list of up to 306 samples

    fn filled(cells: &[(usize, usize)]) -> Confusion {
        let mut confusion = Confusion::new(CLASSES);
        confusion.expect(cells.len());
        for &(target, predicted) in cells {
            confusion.add(target, predicted);
        }
        confusion
    }

    proptest! {
        #[test]
        fn list_and_matrix_count_alike(
            parts in vec(vec((0..CLASSES, 0..CLASSES), 0..160), 1..5)
        ) {
            let mut merged = Confusion::new(CLASSES);
            let mut naive = vec![0_u64; CLASSES * CLASSES];
            for part in &parts {
                merged.merge(&filled(part));
                for &(target, predicted) in part {
                    naive[target * CLASSES + predicted] += 1;
                }
            }
            prop_assert_eq!(merged.counts(), naive.clone());
            let total: u64 = naive.iter().sum();
            let dense = Confusion::from_counts(CLASSES, naive);
            prop_assert_eq!(&merged, &dense);
            let is_list = matches!(merged.form, Form::List(_));
            prop_assert_eq!(is_list, total <= 306);
            merged.merge(&dense);
            prop_assert!(matches!(merged.form, Form::Matrix(_)));
        }
    }
}
