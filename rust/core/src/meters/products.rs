//! Exact sums of products.

use super::exact_sum::ExactSum;
use crate::Error;

/// The largest magnitude whose products neither overflow while they are split, nor in their sums.
pub const PRODUCT_LIMIT: f64 = 1e140;

/// 2²⁷ + 1: cuts a double into two halves of 26 bits.
const SPLIT: f64 = 134_217_729.0;

/// Adds each a·b without rounding, but for what lies below 2⁻¹⁰⁷⁴.
///
/// A product is two doubles, its rounded value and what rounding lost (T. J. Dekker, Numerische
/// Mathematik 18, 1971), and both are added.
///
/// # Errors
///
/// [`Error::NotFinite`] if a value is NaN or beyond [`PRODUCT_LIMIT`]; the sum is then what it was
/// before.
pub fn add_products(sum: &mut ExactSum, pairs: &[(f64, f64)]) -> Result<(), Error> {
    let inside = |x: f64| x.abs() <= PRODUCT_LIMIT; // false for NaN
    let bad = pairs
        .iter()
        .flat_map(|&(a, b)| [a, b])
        .find(|&x| !inside(x));
    if let Some(value) = bad {
        return Err(Error::NotFinite { value });
    }
    for &(a, b) in pairs {
        let product = a * b;
        let (a_high, a_low) = halves(a);
        let (b_high, b_low) = halves(b);
        let lost =
            a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low);
        sum.add_finite(product);
        sum.add_finite(lost);
    }
    Ok(())
}

fn halves(x: f64) -> (f64, f64) {
    let scaled = SPLIT * x;
    let high = scaled - (scaled - x);
    (high, x - high)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "the sums are exact")]

    use proptest::prelude::*;

    use super::{ExactSum, add_products};

    proptest! {
        #[test]
        fn a_product_and_its_rounded_negative_leave_what_rounding_lost(
            a in -1e100..1e100_f64, b in -1e3..1e3_f64,
        ) {
            let mut sum = ExactSum::new();
            add_products(&mut sum, &[(a, b)]).expect("finite");
            sum.add(-(a * b)).expect("finite");
            prop_assert_eq!(sum.value(), a.mul_add(b, -(a * b)));
        }

        #[test]
        fn what_is_not_finite_changes_nothing(a in any::<f64>(), b in any::<f64>()) {
            let mut sum = ExactSum::new();
            if add_products(&mut sum, &[(2.0, 2.0), (a, b)]).is_err() {
                prop_assert_eq!(sum.value(), 0.0);
            }
        }
    }
}
