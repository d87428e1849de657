//! Sums of numbers between 0 and 4 as integers.
//!
//! A value is rounded down to a multiple of 2⁻⁶⁰ and added to a `u128`. So the sum of the rounded
//! values is exact in any order, at the cost of one integer addition, and each value is off by less
//! than 2⁻⁶⁰, which is less than the last bit of a double above 2⁻⁷. For sums of anything wider there
//! is [`super::ExactSum`].

use crate::Error;

/// 2⁶⁰: what 1 is in units of the sum.
const ONE: f64 = (1_u64 << 60) as f64;
/// The bits of the sum that its lower half holds when it is written down.
const HALF_BITS: u32 = 60;
const HALF_MASK: u128 = (1 << HALF_BITS) - 1;

/// A sum of values in 0..4, exact in units of 2⁻⁶⁰.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FixedSum(u128);

impl FixedSum {
    /// An empty sum; its value is 0.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds a value in 0..4; anything else counts as the nearest of those, NaN as 0.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, and what saturates is documented"
    )]
    pub fn add(&mut self, value: f64) {
        let units = (value * ONE) as i64; // signed, as that is one instruction
        self.0 += u128::from(units.clamp(0, (4 << HALF_BITS) - 1).cast_unsigned());
    }

    /// Adds everything that `other` holds.
    pub fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }

    /// The sum, rounded to the nearest double.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "the cast of an integer rounds to nearest"
    )]
    pub fn value(self) -> f64 {
        self.0 as f64 / ONE
    }

    /// The sum as two integers: multiples of 1, and the rest in units of 2⁻⁶⁰.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "2⁵³ samples below 4 leave 55 bits above the point"
    )]
    pub fn parts(self) -> [i64; 2] {
        [(self.0 >> HALF_BITS) as i64, (self.0 & HALF_MASK) as i64]
    }

    /// The sum that [`FixedSum::parts`] wrote, over `samples` values of at most `most` each.
    ///
    /// # Errors
    ///
    /// [`Error::State`] for `field` if no such sum writes such parts.
    pub fn from_parts(
        field: &'static str,
        parts: [i64; 2],
        samples: u64,
        most: u64,
    ) -> Result<Self, Error> {
        let refuse = || Error::State {
            field,
            problem: format!("holds the sum {parts:?} for {samples} samples"),
        };
        let [whole, rest] = parts.map(u64::try_from);
        let (Ok(whole), Ok(rest)) = (whole, rest) else {
            return Err(refuse());
        };
        let sum = u128::from(whole) << HALF_BITS | u128::from(rest);
        let limit = (u128::from(samples) * u128::from(most)) << HALF_BITS;
        if u128::from(rest) > HALF_MASK || sum > limit {
            return Err(refuse());
        }
        Ok(Self(sum))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "the sums are exact")]

    use proptest::prelude::*;

    use super::FixedSum;

    fn sum(values: &[f64]) -> FixedSum {
        let mut sum = FixedSum::new();
        for &value in values {
            sum.add(value);
        }
        sum
    }

    #[test]
    fn what_lies_outside_counts_as_the_nearest_end() {
        assert_eq!(sum(&[-1.0, f64::NAN]).value(), 0.0);
        assert_eq!(sum(&[1.0, 0.5, 2.0]).value(), 3.5);
        assert!(sum(&[1e300]).value() <= 4.0);
    }

    proptest! {
        #[test]
        fn order_and_partition_leave_no_trace(
            (values, shuffled) in prop::collection::vec(0.0..2.0_f64, 0..40)
                .prop_flat_map(|values| (Just(values.clone()), Just(values).prop_shuffle())),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = sum(&values);
            prop_assert_eq!(sum(&shuffled), whole);
            let (left, right) = values.split_at(cut.index(values.len() + 1));
            let mut merged = sum(right);
            merged.merge(sum(left));
            prop_assert_eq!(merged, whole);
            let naive: f64 = values.iter().sum();
            prop_assert!((whole.value() - naive).abs() <= 1e-13 * (1.0 + naive));
        }

        #[test]
        fn parts_round_trip(values in prop::collection::vec(0.0..2.0_f64, 0..40)) {
            let whole = sum(&values);
            let samples = values.len() as u64;
            prop_assert_eq!(FixedSum::from_parts("x", whole.parts(), samples, 2), Ok(whole));
        }

        #[test]
        fn hostile_parts_are_refused_without_a_panic(parts in any::<[i64; 2]>(), samples in 0_u64..9) {
            if let Ok(sum) = FixedSum::from_parts("x", parts, samples, 2) {
                prop_assert_eq!(sum.parts(), parts);
                prop_assert!(sum.value() <= samples as f64 * 2.0);
            }
        }
    }
}
