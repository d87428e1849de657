//! What a classification meter needs to know of one row of logits.
//!
//! All functions sweep a row that the first sweep has brought into the nearest cache, in loops that
//! the compiler vectorises. Their result depends on the row alone, never on its neighbours.

use super::exp::exp_nonpositive;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A type that logits come in: `f32` or `f64`.
pub trait Logit: sealed::Sealed + Copy + PartialOrd + Into<f64> + Send + Sync {
    /// The largest magnitude whose squared loss is still finite, and its sums too.
    const LIMIT: Self;
    /// Minus infinity.
    const LOWEST: Self;

    /// The magnitude.
    #[must_use]
    fn magnitude(self) -> Self;

    /// The sum of exp(x - `max`) over a row, without its largest element, which is at `place`.
    ///
    /// For `f32` a term has a relative error below 3e-7 + 1.4e-7·(`max` - x), and up to four terms
    /// are added in single precision; the rest is `f64`.
    #[must_use]
    fn exp_sum_of_others(row: &[Self], max: Self, place: usize) -> f64;
}

/// Terms that are computed side by side.
const LANES: usize = 16;
/// The same, for what is left of a row.
const NARROW: usize = 4;
/// Values that are searched side by side.
const SEARCH: usize = 64;
/// Terms per lane that are added in `f32` before they are added in `f64`.
const SINGLES: usize = 4;

impl Logit for f32 {
    const LIMIT: Self = Self::MAX;
    const LOWEST: Self = Self::NEG_INFINITY;

    #[inline]
    fn magnitude(self) -> Self {
        self.abs()
    }

    #[inline]
    fn exp_sum_of_others(row: &[Self], max: Self, place: usize) -> f64 {
        let (blocks, tail) = row.as_chunks::<LANES>();
        let left_out = place / LANES;
        let mut total = 0.0;
        let mut index = 0;
        for group in blocks.chunks(SINGLES) {
            let mut lanes = [0.0; LANES];
            for block in group {
                if index == left_out {
                    total += block_sum_without_one(block, max);
                } else {
                    add_exp(&mut lanes, block, max);
                }
                index += 1;
            }
            total += lane_sum(&lanes);
        }
        if !tail.is_empty() {
            let mut block = [Self::LOWEST; LANES]; // adds nothing
            block[..tail.len()].copy_from_slice(tail);
            if index == left_out {
                total += block_sum_without_one(&block, max);
            } else {
                let mut lanes = [0.0; LANES];
                add_exp(&mut lanes, &block, max);
                total += lane_sum(&lanes);
            }
        }
        total
    }
}

impl Logit for f64 {
    const LIMIT: Self = 1e140;
    const LOWEST: Self = Self::NEG_INFINITY;

    #[inline]
    fn magnitude(self) -> Self {
        self.abs()
    }

    #[inline]
    fn exp_sum_of_others(row: &[Self], max: Self, place: usize) -> f64 {
        let terms = |part: &[Self]| part.iter().map(|&x| (x - max).exp()).sum::<Self>();
        terms(&row[..place]) + terms(&row[place + 1..])
    }
}

#[inline]
fn add_exp(lanes: &mut [f32; LANES], block: &[f32; LANES], max: f32) {
    for (lane, &x) in lanes.iter_mut().zip(block) {
        *lane += exp_nonpositive(x - max);
    }
}

/// The sum over a block that holds the largest element: its term is exactly 1 and leaves again, as
/// nothing is added in `f32` here.
#[inline]
fn block_sum_without_one(block: &[f32; LANES], max: f32) -> f64 {
    let mut lanes = [0.0; LANES];
    add_exp(&mut lanes, block, max);
    lane_sum(&lanes) - 1.0
}

#[inline]
fn lane_sum(lanes: &[f32; LANES]) -> f64 {
    let mut sums = [0.0; 4];
    for quarter in lanes.as_chunks::<4>().0 {
        for (sum, &lane) in sums.iter_mut().zip(quarter) {
            *sum += f64::from(lane);
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// The largest value of a row; `None` if the row is empty or a value is NaN or beyond the limit.
#[inline]
pub(super) fn largest<F: Logit>(row: &[F]) -> Option<F> {
    let (wide, rest) = row.as_chunks::<LANES>();
    let (narrow, rest) = rest.as_chunks::<NARROW>();
    let mut best = F::LOWEST;
    let mut outside = false;
    for (max, flag) in [largest_of(wide), largest_of(narrow)] {
        best = larger(best, max);
        outside |= flag;
    }
    for &x in rest {
        best = larger(best, x);
        outside |= !within(x);
    }
    (!outside && best > F::LOWEST).then_some(best)
}

/// The largest value of some blocks, and whether one is NaN or beyond the limit.
#[inline]
fn largest_of<F: Logit, const N: usize>(blocks: &[[F; N]]) -> (F, bool) {
    if blocks.is_empty() {
        return (F::LOWEST, false);
    }
    let mut best = [F::LOWEST; N];
    let mut outside = [0_u32; N];
    for block in blocks {
        for lane in 0..N {
            best[lane] = larger(best[lane], block[lane]);
            outside[lane] |= u32::from(!within(block[lane]));
        }
    }
    let best = best.into_iter().fold(F::LOWEST, larger);
    (best, outside.iter().any(|&flag| flag != 0))
}

#[inline]
fn larger<F: Logit>(best: F, x: F) -> F {
    if x > best { x } else { best }
}

/// Where a row holds its first value that is NaN or beyond the limit.
pub(super) fn first_outside<F: Logit>(row: &[F]) -> Option<usize> {
    row.iter().position(|&x| !within(x))
}

#[inline]
fn within<F: Logit>(x: F) -> bool {
    x.magnitude() <= F::LIMIT // false for NaN
}

/// How many classes a stable sort by falling logit puts before `class`.
#[inline]
pub(super) fn rank<F: Logit>(row: &[F], class: usize) -> u32 {
    let own = row[class];
    let (before, after) = row.split_at(class);
    let level = |part: &[F]| part.iter().map(|&x| u32::from(x >= own)).sum::<u32>();
    let above = |part: &[F]| part.iter().map(|&x| u32::from(x > own)).sum::<u32>();
    level(before) + above(after)
}

/// The first index that holds `value`.
#[inline]
pub(super) fn first_index<F: Logit>(row: &[F], value: F) -> usize {
    let mut start = 0;
    // Whole blocks are compared without a branch per value.
    for block in row.as_chunks::<SEARCH>().0 {
        if block.iter().map(|&x| u32::from(x == value)).sum::<u32>() > 0 {
            break;
        }
        start += SEARCH;
    }
    let rest = row[start..].iter().position(|&x| x == value);
    start + rest.unwrap_or_default()
}
