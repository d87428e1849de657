//! Counts of scores in cells, and which cell a score belongs to.
//!
//! Cells lie in blocks that are made when a score falls into one, so a few scores, or scores that lie
//! close, take little memory. A batch is sorted by block before it is counted: a block fits the
//! innermost cache, all cells together do not.

use super::Scale;
use crate::meters::Logit;

/// Negatives and positives.
pub(super) type Pair = [u32; 2];

/// Cells of a doubling, as a power of two, of a column that does not share.
const MOST_FINE: u32 = 18;
/// The same of one column among so many that each has the least.
const LEAST_FINE: u32 = 7;
/// What columns share, as a power of two.
const ALL_FINE: u32 = 20;
/// Cells of a doubling outside, as a power of two, are so much fewer.
const COARSER: u32 = 9;
/// Doublings of 1 + |x| with fine cells: |x| up to 15.
const FINE_LOGITS: u64 = 4;
/// Doublings of p, or of 1 - p, with fine cells: down to 2⁻⁹. They are as many cells as those of logits.
const FINE_SHARES: u64 = 8;
/// Doublings with coarse cells.
const COARSE: u64 = 124;

const BLOCK_BITS: u32 = 12;
const BLOCK: usize = 1 << BLOCK_BITS;
const IN_BLOCK: usize = 2 * BLOCK - 1;
/// Fewer scores than this are counted as they come.
const WORTH_SORTING: usize = 1 << 14;

/// How many cells a column has, and which.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    scale: Scale,
    /// Cells of a fine doubling, as a power of two.
    fine: u32,
    /// Cells of a coarse doubling, as a power of two.
    coarse: u32,
    /// How many coarse cells there are on each side of the middle.
    outside: u64,
}

impl Shape {
    pub(super) fn of(columns: usize, scale: Scale) -> Self {
        let shared = ALL_FINE.saturating_sub(columns.next_power_of_two().ilog2());
        let fine = shared.clamp(LEAST_FINE, MOST_FINE);
        let coarse = fine.saturating_sub(COARSER);
        Self {
            scale,
            fine,
            coarse,
            outside: if coarse > 0 { COARSE << coarse } else { 0 },
        }
    }

    /// How many cells there are on each side of the middle.
    const fn half(self) -> u64 {
        (FINE_LOGITS << self.fine) + self.outside
    }

    #[allow(clippy::cast_possible_truncation, reason = "less than 2²³")]
    pub(super) const fn cells(self) -> usize {
        2 * self.half() as usize
    }

    /// The cell of a score that is on the scale; it rises with the score.
    pub(super) fn cell(self, score: f64) -> u32 {
        match self.scale {
            Scale::Logits => self.of_logit(score),
            Scale::Probabilities => self.of_share(score),
        }
    }

    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "what is not inlined is not compiled for the vector unit of the caller"
    )]
    #[allow(clippy::cast_possible_truncation, reason = "less than 2²³ after `min`")]
    fn of_logit(self, score: f64) -> u32 {
        // Rounding rises, too.
        let bits = (1.0 + score.abs()).to_bits();
        let half = self.half() as u32;
        let count = (FINE_LOGITS as u32) << self.fine;
        // Not below 1, so both have their exponent above these.
        let fine = ((bits >> (52 - self.fine)) - (1023 << self.fine)) as u32;
        let coarse = ((bits >> (52 - self.coarse)) - (1023 << self.coarse)) as u32;
        let coarse = coarse.wrapping_sub((FINE_LOGITS as u32) << self.coarse);
        let far = bits >> 52 >= 1023 + FINE_LOGITS;
        let away = if far { count + coarse } else { fine }.min(half - 1);
        // -0 is where +0 is.
        if score >= 0.0 {
            half + away
        } else {
            half - 1 - away
        }
    }

    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "what is not inlined is not compiled for the vector unit of the caller"
    )]
    #[allow(clippy::cast_possible_truncation, reason = "less than 2²³ after `min`")]
    fn of_share(self, score: f64) -> u32 {
        let upper = score >= 0.5;
        let near = if upper { 1.0 - score } else { score }; // both are exact
        let bits = near.to_bits();
        let (half, outside) = (self.half() as u32, self.outside as u32);
        let bits_of_fine = self.fine - 1;
        let least = 1023 - FINE_SHARES - 1;
        let fine = (bits >> (52 - bits_of_fine)).wrapping_sub(least << bits_of_fine) as u32;
        let coarse = (bits >> (52 - self.coarse)).saturating_sub((least - COARSE) << self.coarse);
        let coarse = (coarse as u32).min(outside.saturating_sub(1));
        let inward = if bits >> 52 >= least {
            outside + fine
        } else {
            coarse
        };
        let inward = inward.min(half - 1);
        if upper { 2 * half - 1 - inward } else { inward }
    }
}

impl Shape {
    /// Adds the cell of each value to its place; on processors with AVX2 the same source, compiled for them.
    pub(super) fn add_cells<F: Logit>(self, values: &[F], places: &mut [u32]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            #[allow(unsafe_code, reason = "the processor was asked")]
            // SAFETY: the function needs nothing but AVX2, which was just detected.
            return unsafe { wide::add_cells(self, values, places) };
        }
        add_cells(self, values, places);
    }
}

impl Scale {
    /// Whether all values are on the scale, as [`Shape::add_cells`].
    pub(super) fn holds_all<F: Logit>(self, values: &[F]) -> bool {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            #[allow(unsafe_code, reason = "the processor was asked")]
            // SAFETY: the function needs nothing but AVX2, which was just detected.
            return unsafe { wide::holds_all(self, values) };
        }
        holds_all(self, values)
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{Logit, Scale, Shape};

    #[target_feature(enable = "avx2")]
    pub(super) fn add_cells<F: Logit>(shape: Shape, values: &[F], places: &mut [u32]) {
        super::add_cells(shape, values, places);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn holds_all<F: Logit>(scale: Scale, values: &[F]) -> bool {
        super::holds_all(scale, values)
    }
}

#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the vector unit of the caller"
)]
fn add_cells<F: Logit>(shape: Shape, values: &[F], places: &mut [u32]) {
    // One loop for each scale, without a question in it.
    match shape.scale {
        Scale::Logits => {
            for (place, &value) in places.iter_mut().zip(values) {
                *place += 2 * shape.of_logit(value.into());
            }
        }
        Scale::Probabilities => {
            for (place, &value) in places.iter_mut().zip(values) {
                *place += 2 * shape.of_share(value.into());
            }
        }
    }
}

#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the vector unit of the caller"
)]
fn holds_all<F: Logit>(scale: Scale, values: &[F]) -> bool {
    let outside = values
        .iter()
        .fold(0, |any, &value| any | u32::from(!scale.holds(value.into())));
    outside == 0
}

/// Counts of the cells of all columns.
#[derive(Debug, Clone)]
pub(super) struct Cells {
    shape: Shape,
    columns: usize,
    /// A cell's negatives stand before its positives.
    blocks: Vec<Option<Box<[u32; 2 * BLOCK]>>>,
}

impl Cells {
    pub(super) fn new(columns: usize, scale: Scale) -> Self {
        let shape = Shape::of(columns, scale);
        let blocks = (columns * shape.cells()).div_ceil(BLOCK);
        Self {
            shape,
            columns,
            blocks: vec![None; blocks],
        }
    }

    pub(super) const fn shape(&self) -> Shape {
        self.shape
    }

    /// How many cells there are.
    pub(super) const fn len(&self) -> usize {
        self.columns * self.shape.cells()
    }

    /// The count of a cell, and of which label, as one number below 2³².
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "what is not inlined is not compiled for the vector unit of the caller"
    )]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "2¹⁴ columns of 2¹⁰ cells, and of fewer columns no more than 2²⁵"
    )]
    pub(super) fn place(shape: Shape, column: usize, cell: u32) -> u32 {
        ((column * shape.cells()) as u32 + cell) * 2
    }

    fn block(&mut self, index: usize) -> &mut [u32; 2 * BLOCK] {
        self.blocks[index].get_or_insert_with(|| {
            let zeros = vec![0; 2 * BLOCK].into_boxed_slice();
            zeros
                .try_into()
                .unwrap_or_else(|_| unreachable!("it has that length"))
        })
    }

    /// Counts one score for each place, which [`Cells::place`] gave, plus 1 if it is of a positive.
    pub(super) fn count(&mut self, places: &[u32]) {
        if places.len() < WORTH_SORTING {
            for &place in places {
                let place = place as usize;
                self.block(place >> (BLOCK_BITS + 1))[place & IN_BLOCK] += 1;
            }
            return;
        }
        let mut ends = vec![0_usize; self.blocks.len()];
        for &place in places {
            ends[place as usize >> (BLOCK_BITS + 1)] += 1;
        }
        let mut begin = 0;
        for end in &mut ends {
            begin += std::mem::replace(end, begin);
        }
        let mut sorted = vec![0_u16; places.len()];
        #[allow(clippy::cast_possible_truncation, reason = "13 bits are left")]
        for &place in places {
            let end = &mut ends[place as usize >> (BLOCK_BITS + 1)];
            sorted[*end] = (place as usize & IN_BLOCK) as u16;
            *end += 1;
        }
        let mut begin = 0;
        for (index, &end) in ends.iter().enumerate() {
            if begin < end {
                let block = self.block(index);
                for &place in &sorted[begin..end] {
                    block[usize::from(place) & IN_BLOCK] += 1;
                }
            }
            begin = end;
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (index, theirs) in other.blocks.iter().enumerate() {
            if let Some(theirs) = theirs {
                let mine = self.block(index);
                for (mine, theirs) in mine.iter_mut().zip(theirs.iter()) {
                    *mine += theirs;
                }
            }
        }
    }

    /// The cells that are not empty, with their places among all, rising.
    pub(super) fn seen(&self) -> impl Iterator<Item = (usize, Pair)> {
        self.within(0, self.len())
    }

    /// The cells of a column that are not empty, rising.
    pub(super) fn column(&self, column: usize) -> Vec<Pair> {
        let cells = self.shape.cells();
        let (begin, end) = (column * cells, (column + 1) * cells);
        let mut found = Vec::new();
        for index in begin / BLOCK..end.div_ceil(BLOCK) {
            let Some(block) = &self.blocks[index] else {
                continue;
            };
            let start = index * BLOCK;
            let pairs = block.as_chunks::<2>().0;
            let pairs = &pairs[begin.max(start) - start..end.min(start + BLOCK) - start];
            // Each is written, and kept if it is not empty: no branch to guess wrong.
            let mut count = found.len();
            found.resize(count + pairs.len(), [0, 0]);
            for &pair in pairs {
                found[count] = pair;
                count += usize::from(pair[0] | pair[1] > 0);
            }
            found.truncate(count);
        }
        found
    }

    fn within(&self, begin: usize, end: usize) -> impl Iterator<Item = (usize, Pair)> {
        (begin / BLOCK..end.div_ceil(BLOCK))
            .filter_map(|index| self.blocks[index].as_ref().map(|block| (index, block)))
            .flat_map(move |(index, block)| {
                let start = index * BLOCK;
                let (first, last) = (begin.max(start) - start, end.min(start + BLOCK) - start);
                let pairs = &block.as_chunks::<2>().0[first..last];
                (start + first..).zip(pairs.iter().copied())
            })
            .filter(|(_, pair)| pair[0] | pair[1] > 0)
    }

    /// Sets the counts of a cell that are not both 0; false if there is no such cell.
    pub(super) fn set(&mut self, place: usize, pair: Pair) -> bool {
        if place >= self.len() {
            return false;
        }
        let cell = place % BLOCK;
        self.block(place / BLOCK)[2 * cell..2 * cell + 2].copy_from_slice(&pair);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Cells, Scale, Shape, WORTH_SORTING};

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
                15.0,
                -15.0,
                255.0,
                -255.0,
                f64::MAX,
                f64::MIN
            ]),
        ]
    }

    fn probability() -> impl Strategy<Value = f64> {
        prop_oneof![
            0.0..=1.0_f64,
            (0.0..200.0_f64).prop_map(|power| (-power).exp2()),
            (0.0..60.0_f64).prop_map(|power| 1.0 - (-power).exp2()),
            prop::sample::select(vec![
                0.0,
                1.0,
                0.5,
                0.5_f64.next_down(),
                2.0_f64.powi(-9),
                5e-324
            ]),
        ]
    }

    proptest! {
        #[test]
        fn cells_rise_with_the_score(
            a in score(), b in score(), p in probability(), q in probability(), columns in 1_usize..5000,
        ) {
            for (scale, a, b) in [(Scale::Logits, a, b), (Scale::Probabilities, p, q)] {
                let shape = Shape::of(columns, scale);
                let (low, high) = if a <= b { (a, b) } else { (b, a) };
                prop_assert!(shape.cell(low) <= shape.cell(high));
                prop_assert!((shape.cell(high) as usize) < shape.cells());
                // Near 0 and 1 the cells of probabilities are finer than numbers, so some stay empty.
                let next = low.next_up();
                let edge = 2.0_f64.powi(-8);
                let whole = match scale {
                    Scale::Logits => next.is_finite(),
                    Scale::Probabilities => (edge..1.0 - edge).contains(&low),
                };
                if whole {
                    prop_assert!(shape.cell(next) - shape.cell(low) <= 1);
                }
            }
        }

        #[test]
        fn many_scores_are_counted_as_few_are(
            places in prop::collection::vec(0_u32..100_000, 1..50), columns in 1_usize..9,
        ) {
            let mut few = Cells::new(columns, Scale::Logits);
            let many = places.repeat(WORTH_SORTING.div_ceil(places.len()));
            for part in many.chunks(100) {
                few.count(part);
            }
            let mut all = Cells::new(columns, Scale::Logits);
            all.count(&many);
            let seen: Vec<_> = all.seen().collect();
            prop_assert_eq!(&few.seen().collect::<Vec<_>>(), &seen);
            let mut total = 0;
            for column in 0..columns {
                total += all.column(column).len();
            }
            prop_assert_eq!(total, seen.len());
            all.merge(&few);
            let doubled: Vec<_> = seen.iter().map(|&(place, [n, p])| (place, [2 * n, 2 * p])).collect();
            prop_assert_eq!(all.seen().collect::<Vec<_>>(), doubled);
        }
    }

    #[test]
    fn saturated_scores_stay_apart() {
        let cell = |p| Shape::of(1, Scale::Probabilities).cell(p);
        assert!(cell(1.0 - 1e-9) < cell(1.0 - 5e-10));
        assert!(cell(1e-9) > cell(5e-10));
        assert_eq!(cell(0.0), 0);
        assert_eq!(
            cell(1.0) as usize,
            Shape::of(1, Scale::Probabilities).cells() - 1
        );
        assert!(cell(0.5_f64.next_down()) < cell(0.5));
        let cell = |x| Shape::of(1, Scale::Logits).cell(x);
        assert!(cell(1e4) < cell(1.01e4) && cell(1e30) < cell(1.01e30));
        assert!(cell(-1e4) > cell(-1.01e4));
        assert_eq!(cell(0.0), cell(-0.0));
    }
}
