//! The Euclidean norm of many slices of floats together, in one pass at the speed of memory.
//!
//! # What it computes
//!
//! A slice is read in blocks of 1024 values. Within a block, value `i` is squared and added to lane `i % 32`, and the
//! lanes are added pairwise; the sums of blocks are added in order in double precision. Single-precision values are
//! squared in single precision, unless the sum of their block is too large or too small for that: such a block is
//! summed again in double precision, where no square of a single can overflow or vanish.
//!
//! # Its bounds
//!
//! The relative error of the norm is at most 2^-19 for singles (at most 37 roundings of a sum, halved by the root) and
//! below 2^-45 for doubles. The bits of the result hang on the values alone: not on the number of threads, nor on what
//! vectors the processor has, because nothing is fused or reordered. It is NaN if a value is, else infinite if a value
//! is; and it is infinite where the squares of doubles overflow, above 1e154.
//!
//! # What it costs
//!
//! One read of the memory. Two blocks are read side by side, and further ones asked for ahead, which a plain loop (and
//! a vectorised one) leaves to the hardware, which stops at each page.

mod block;

use crate::share::{CHUNK, helpers, in_order};
use block::{doubles, singles};

/// A slice of one of the types that a norm is taken of.
#[derive(Debug, Clone, Copy)]
pub enum Floats<'a> {
    /// IEEE single precision.
    Single(&'a [f32]),
    /// IEEE double precision.
    Double(&'a [f64]),
}

impl Floats<'_> {
    /// The bytes that the values take.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Single(values) => size_of_val(values),
            Self::Double(values) => size_of_val(values),
        }
    }

    fn sum_of_squares(self) -> f64 {
        match self {
            Self::Single(values) => singles(values),
            Self::Double(values) => doubles(values),
        }
    }
}

/// Return the norm of all slices together, on up to `threads` threads, this one among them.
#[must_use]
pub fn norm(slices: &[Floats<'_>], threads: usize) -> f64 {
    let chunks = slices.iter().flat_map(|slice| {
        let (singles, doubles) = match *slice {
            Floats::Single(values) => (values, &[][..]),
            Floats::Double(values) => (&[][..], values),
        };
        let singles = singles.chunks(CHUNK / size_of::<f32>()).map(Floats::Single);
        singles.chain(doubles.chunks(CHUNK / size_of::<f64>()).map(Floats::Double))
    });
    let helpers = helpers(slices.iter().map(|slice| slice.bytes()).sum(), threads);
    let sum: f64 = if helpers == 0 {
        chunks
            .map(Floats::sum_of_squares)
            .fold(0.0, |sum, one| sum + one)
    } else {
        in_order(chunks.collect(), helpers, Floats::sum_of_squares)
            .into_iter()
            .fold(0.0, |sum, one| sum + one)
    };
    sum.sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// The norm as anybody would write it, in double precision.
    fn naive(values: impl IntoIterator<Item = f64>) -> f64 {
        values
            .into_iter()
            .map(|value| value * value)
            .sum::<f64>()
            .sqrt()
    }

    fn single() -> impl Strategy<Value = f32> {
        prop_oneof![
            8 => -1e3_f32..1e3,
            1 => Just(0.0),
            1 => -1e-30_f32..1e-30,
            1 => -3e38_f32..3e38,
            1 => any::<f32>().prop_filter("finite", |value| value.is_finite()),
        ]
    }

    proptest! {
        #[test]
        fn it_is_the_naive_norm_up_to_its_bound(slices in vec(vec(single(), 0..3000), 0..4), scale in -40_i32..40) {
            let factor = 2_f32.powi(scale);
            let scaled: Vec<Vec<f32>> = slices.iter().map(|slice| {
                slice.iter().map(|value| value * factor).filter(|value| value.is_finite()).collect()
            }).collect();
            let floats: Vec<_> = scaled.iter().map(|slice| Floats::Single(slice)).collect();
            let expected = naive(scaled.iter().flatten().map(|&value| f64::from(value)));
            let found = norm(&floats, 1);
            prop_assert!((found - expected).abs() <= expected * 2_f64.powi(-19), "{found} {expected}");
        }

        #[test]
        fn doubles_are_summed_in_double_precision(slices in vec(vec(-1e100..1e100, 0..2000), 0..4)) {
            let floats: Vec<_> = slices.iter().map(|slice| Floats::Double(slice)).collect();
            let expected = naive(slices.iter().flatten().copied());
            let found = norm(&floats, 1);
            prop_assert!((found - expected).abs() <= expected * 2_f64.powi(-40), "{found} {expected}");
        }

        #[test]
        fn one_bad_value_anywhere_makes_it_what_the_value_is(
            length in 1_usize..5000,
            at: prop::sample::Index,
            bad in prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
            double: bool,
        ) {
            let mut values = vec![1.0_f32; length];
            values[at.index(length)] = bad;
            let wide: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
            let found = norm(&[if double { Floats::Double(&wide) } else { Floats::Single(&values) }], 1);
            prop_assert_eq!(found.is_nan(), bad.is_nan());
            prop_assert!(!found.is_finite());
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let values: Vec<f32> = (0..(5 << 20))
            .map(|index: u32| index.wrapping_mul(2_654_435_761) as f32)
            .collect();
        let slices = [
            Floats::Single(&values[..3]),
            Floats::Single(&values),
            Floats::Single(&values[5..70_001]),
        ];
        let alone = norm(&slices, 1);
        for threads in [2, 3, 8] {
            assert_eq!(norm(&slices, threads).to_bits(), alone.to_bits());
        }
    }

    #[test]
    fn nothing_has_norm_zero_and_the_smallest_value_has_its_own() {
        assert!(norm(&[], 1).abs() < f64::MIN_POSITIVE);
        assert!(
            norm(&[Floats::Single(&[0.0; 70]), Floats::Double(&[])], 1).abs() < f64::MIN_POSITIVE
        );
        let smallest = f32::from_bits(1);
        assert!(
            (norm(&[Floats::Single(&[smallest])], 1) - f64::from(smallest)).abs()
                < f64::EPSILON * f64::from(smallest)
        );
    }
}
