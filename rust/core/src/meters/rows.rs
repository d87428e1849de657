//! What a meter needs to know of one row of logits.
//!
//! All functions sweep a row that the first sweep has brought into the nearest cache, in loops that
//! the compiler vectorises. Their result depends on the row alone, never on its neighbours, and on
//! no vector width: sums are taken over [`LANES`] lanes in one fixed order.

#![allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the vector unit of the caller"
)]

use super::exp::{exp_nonpositive, exp_nonpositive_f64};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A type that logits are computed in: `f32` or `f64`.
pub trait Logit: sealed::Sealed + Copy + PartialOrd + Into<f64> + Send + Sync {
    /// The largest magnitude whose squared loss is still finite, and its sums too.
    const LIMIT: Self;
    /// Minus infinity.
    const LOWEST: Self;
    /// Zero.
    const ZERO: Self;

    /// The largest value that is at most `value`, which is not NaN.
    #[must_use]
    fn floor(value: f64) -> Self;

    /// exp(`self` - `max`) for `self` <= `max`.
    #[must_use]
    fn exp_to_f64(self, max: Self) -> f64;

    /// The magnitude.
    #[must_use]
    fn magnitude(self) -> Self;

    /// Whether it is finite and within the limit.
    #[must_use]
    #[inline(always)]
    fn within(self) -> bool {
        self.magnitude() <= Self::LIMIT // false for NaN
    }

    /// Adds exp(x - `max`) and its square for each value of some blocks, lane by lane; for `f32`
    /// up to four terms in single precision before they are added in double.
    fn add_exp(sums: &mut Sums, blocks: &[[Self; LANES]], max: Self);
}

/// Terms that are computed side by side.
pub const LANES: usize = 16;
/// Values that are searched side by side.
const SEARCH: usize = 64;
/// Terms per lane that are added in `f32` before they are added in `f64`.
const SINGLES: usize = 4;

/// Sums of exponentials and of their squares, lane by lane.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    exp: [f64; LANES],
    square: [f64; LANES],
}

impl Logit for f32 {
    const LIMIT: Self = Self::MAX;
    const LOWEST: Self = Self::NEG_INFINITY;
    const ZERO: Self = 0.0;

    #[allow(clippy::cast_possible_truncation, reason = "rounded down after it")]
    fn floor(value: f64) -> Self {
        let near = value as Self;
        if f64::from(near) > value {
            near.next_down()
        } else {
            near
        }
    }

    #[inline(always)]
    fn exp_to_f64(self, max: Self) -> f64 {
        f64::from(exp_nonpositive(self - max))
    }

    #[inline(always)]
    fn magnitude(self) -> Self {
        self.abs()
    }

    #[inline(always)]
    fn add_exp(sums: &mut Sums, blocks: &[[Self; LANES]], max: Self) {
        for group in blocks.chunks(SINGLES) {
            let mut exp = [0.0_f32; LANES];
            let mut square = [0.0_f32; LANES];
            for block in group {
                for lane in 0..LANES {
                    let term = exp_nonpositive(block[lane] - max);
                    exp[lane] += term;
                    square[lane] += term * term;
                }
            }
            for lane in 0..LANES {
                sums.exp[lane] += f64::from(exp[lane]);
                sums.square[lane] += f64::from(square[lane]);
            }
        }
    }
}

impl Logit for f64 {
    const LIMIT: Self = 1e140;
    const LOWEST: Self = Self::NEG_INFINITY;
    const ZERO: Self = 0.0;

    fn floor(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn exp_to_f64(self, max: Self) -> f64 {
        exp_nonpositive_f64(self - max)
    }

    #[inline(always)]
    fn magnitude(self) -> Self {
        self.abs()
    }

    #[inline(always)]
    fn add_exp(sums: &mut Sums, blocks: &[[Self; LANES]], max: Self) {
        for block in blocks {
            for (lane, &x) in block.iter().enumerate() {
                let term = exp_nonpositive_f64(x - max);
                sums.exp[lane] += term;
                sums.square[lane] += term * term;
            }
        }
    }
}

/// The sums of exp(x - `max`) and of its square over a row, without its largest element, which is
/// at `place`.
///
/// For `f32` a term has a relative error below 3e-7 + 1.4e-7·(`max` - x), and up to four terms are
/// added in single precision; the rest is `f64`.
#[inline(always)]
pub(super) fn exp_sums_of_others<F: Logit>(row: &[F], max: F, place: usize) -> (f64, f64) {
    let mut sums = Sums {
        exp: [0.0; LANES],
        square: [0.0; LANES],
    };
    let (blocks, tail) = row.as_chunks::<LANES>();
    let (index, lane) = (place / LANES, place % LANES);
    if let Some(block) = blocks.get(index) {
        let mut block = *block;
        block[lane] = F::LOWEST; // adds nothing
        F::add_exp(&mut sums, &blocks[..index], max);
        F::add_exp(&mut sums, &[block], max);
        F::add_exp(&mut sums, &blocks[index + 1..], max);
    } else {
        F::add_exp(&mut sums, blocks, max);
    }
    if !tail.is_empty() {
        let mut block = [F::LOWEST; LANES];
        block[..tail.len()].copy_from_slice(tail);
        if index == blocks.len() {
            block[lane] = F::LOWEST;
        }
        F::add_exp(&mut sums, &[block], max);
    }
    (total(&sums.exp), total(&sums.square))
}

#[inline(always)]
fn total(lanes: &[f64; LANES]) -> f64 {
    let mut sums = [0.0; 4];
    for quarter in lanes.as_chunks::<4>().0 {
        for (sum, &lane) in sums.iter_mut().zip(quarter) {
            *sum += lane;
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// The largest value of a row; `None` if the row is empty or a value is NaN or beyond the limit.
#[inline(always)]
pub(super) fn largest<F: Logit>(row: &[F]) -> Option<F> {
    let (blocks, tail) = row.as_chunks::<LANES>();
    let mut best = [F::LOWEST; LANES];
    let mut outside = [0_u32; LANES];
    for block in blocks {
        for lane in 0..LANES {
            best[lane] = larger(best[lane], block[lane]);
            outside[lane] |= u32::from(!F::within(block[lane]));
        }
    }
    if let Some(&first) = tail.first() {
        // Filled up with a value that is there anyway.
        let mut block = [first; LANES];
        block[..tail.len()].copy_from_slice(tail);
        for lane in 0..LANES {
            best[lane] = larger(best[lane], block[lane]);
            outside[lane] |= u32::from(!F::within(block[lane]));
        }
    }
    let best = best.into_iter().fold(F::LOWEST, larger);
    let outside = outside.into_iter().fold(0, |any, flag| any | flag);
    (outside == 0 && best > F::LOWEST).then_some(best)
}

#[inline(always)]
fn larger<F: Logit>(best: F, x: F) -> F {
    if x > best { x } else { best }
}

/// Where a row holds its first value that is NaN or beyond the limit.
pub(super) fn first_outside<F: Logit>(row: &[F]) -> Option<usize> {
    row.iter().position(|&x| !F::within(x))
}

/// How many classes a stable sort by falling logit puts before `class`.
#[inline(always)]
pub(super) fn rank<F: Logit>(row: &[F], class: usize) -> u32 {
    let own = row[class];
    let (before, after) = row.split_at(class);
    let level = |part: &[F]| part.iter().map(|&x| u32::from(x >= own)).sum::<u32>();
    let above = |part: &[F]| part.iter().map(|&x| u32::from(x > own)).sum::<u32>();
    level(before) + above(after)
}

/// The first index that holds `value`.
#[inline(always)]
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
