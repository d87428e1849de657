//! Sets of code points, as a pattern writes them.

use super::points::{close, is_digit, is_space, is_word};

/// Bits of [`CharSet::kinds`]: the escapes of a class.
pub(super) const WORD: u8 = 1;
pub(super) const NOT_WORD: u8 = 2;
pub(super) const DIGIT: u8 = 4;
pub(super) const NOT_DIGIT: u8 = 8;
pub(super) const SPACE: u8 = 16;
pub(super) const NOT_SPACE: u8 = 32;

/// Points and kinds, or everything but those.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct CharSet {
    /// Ranges, closed under folding, in order and apart.
    points: Vec<(u32, u32)>,
    kinds: u8,
    negated: bool,
}

impl CharSet {
    pub(super) fn new(ranges: &[(u32, u32)], kinds: u8, negated: bool) -> Self {
        Self {
            points: close(ranges),
            kinds,
            negated,
        }
    }

    /// One character, and all that equal it.
    pub(super) fn literal(point: u32) -> Self {
        Self::new(&[(point, point)], 0, false)
    }

    /// The ranges that are written out.
    pub(super) fn points(&self) -> &[(u32, u32)] {
        &self.points
    }

    /// Say whether a point of a kind belongs to the set.
    pub(super) fn holds(&self, point: u32, kind: u8) -> bool {
        let at = self.points.partition_point(|&(_, last)| last < point);
        let listed = self
            .points
            .get(at)
            .is_some_and(|&(first, _)| first <= point);
        let (word, digit, space) = (is_word(kind), is_digit(kind), is_space(kind));
        let has = |bit: u8| self.kinds & bit != 0;
        let found = listed
            || (has(WORD) && word)
            || (has(NOT_WORD) && !word)
            || (has(DIGIT) && digit)
            || (has(NOT_DIGIT) && !digit)
            || (has(SPACE) && space)
            || (has(NOT_SPACE) && !space);
        found != self.negated
    }
}
