//! Sums of squares, a block at a time.

use crate::prefetch::{LINE, ahead};

/// The values whose squares are added up before the sum is looked at.
const BLOCK: usize = 1024;
/// Sums that do not wait for each other.
const LANES: usize = 32;

/// Between these, a sum of 1024 squares in single precision has lost nothing to the ends of the range: what vanished,
/// 1024 times less than 2^-126, is less than a rounding.
const SAFE: std::ops::Range<f32> = f32::from_bits((127 - 90) << 23)..f32::INFINITY;

/// Return the sum of the squares of single-precision values.
pub(super) fn singles(values: &[f32]) -> f64 {
    let (pairs, rest) = values.as_chunks::<{ 2 * BLOCK }>();
    let mut total = 0.0;
    for pair in pairs {
        let (one, other) = pair.split_at(BLOCK);
        let mut sums = [[0.0; LANES]; 2];
        let (ones, _) = one.as_chunks::<LANES>();
        let (others, _) = other.as_chunks::<LANES>();
        for (left, right) in ones.iter().zip(others) {
            for line in [&left[..], &left[LINE / 4..], &right[..], &right[LINE / 4..]] {
                ahead(&line[0]);
            }
            add(&mut sums[0], left);
            add(&mut sums[1], right);
        }
        for (sums, block) in sums.into_iter().zip([one, other]) {
            total += looked_at(folded(sums), block);
        }
    }
    for block in rest.chunks(BLOCK) {
        let mut sums = [0.0; LANES];
        let (whole, last) = block.as_chunks::<LANES>();
        for values in whole {
            add(&mut sums, values);
        }
        for (sum, value) in sums.iter_mut().zip(last) {
            *sum += value * value;
        }
        total += looked_at(folded(sums), block);
    }
    total
}

/// Return the sum of the squares of double-precision values.
pub(super) fn doubles(values: &[f64]) -> f64 {
    values
        .chunks(BLOCK)
        .map(|block| exactly(block.iter().copied()))
        .sum()
}

#[inline]
fn add(sums: &mut [f32; LANES], values: &[f32; LANES]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value * value;
    }
}

/// Add neighbours, then neighbours of neighbours.
fn folded(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        let (left, right) = sums.split_at_mut(width);
        for (sum, other) in left.iter_mut().zip(right) {
            *sum += *other;
        }
        width /= 2;
    }
    sums[0]
}

/// Return the sum of a block if single precision has held it, else sum the block again.
fn looked_at(sum: f32, block: &[f32]) -> f64 {
    if SAFE.contains(&sum) {
        f64::from(sum)
    } else {
        wide(block)
    }
}

#[cold]
fn wide(block: &[f32]) -> f64 {
    exactly(block.iter().map(|&value| f64::from(value)))
}

/// Sum squares in double precision: those of singles are exact in it.
#[inline]
fn exactly(values: impl Iterator<Item = f64>) -> f64 {
    let mut sums = [0.0; LANES];
    for (index, value) in values.enumerate() {
        sums[index % LANES] += value * value;
    }
    sums.iter().sum()
}
