//! `ExactSum` against two independent exact sums, and the laws that exactness gives.

#![allow(clippy::float_cmp, reason = "the sums are exact")]

use flyball_core::Error;
use flyball_core::meters::ExactSum;
use proptest::collection::vec;
use proptest::prelude::*;

fn sum(values: &[f64]) -> ExactSum {
    let mut sum = ExactSum::new();
    for &value in values {
        sum.add(value).expect("finite");
    }
    sum
}

/// Shewchuk's partials, rounded once to even as Python's `math.fsum` does.
fn partials(values: &[f64]) -> f64 {
    let mut partials: Vec<f64> = Vec::new();
    for &value in values {
        let mut x = value;
        let mut kept = Vec::new();
        for &other in &partials {
            let (large, small) = if x.abs() < other.abs() {
                (other, x)
            } else {
                (x, other)
            };
            let high = large + small;
            let low = small - (high - large);
            if low != 0.0 {
                kept.push(low);
            }
            x = high;
        }
        kept.push(x);
        partials = kept;
    }
    let mut rest = partials.into_iter().rev();
    let mut high = rest.next().unwrap_or(0.0);
    while let Some(next) = rest.next() {
        let before = high;
        high = before + next;
        let low = next - (high - before);
        if low != 0.0 {
            // A tie is broken by the sign of what lies below it.
            if rest
                .next()
                .is_some_and(|below| (low < 0.0) == (below < 0.0))
            {
                let twice = low * 2.0;
                let moved = high + twice;
                if (moved - high).total_cmp(&twice).is_eq() {
                    high = moved;
                }
            }
            break;
        }
    }
    high
}

/// Finite doubles of all magnitudes whose sums stay finite, subnormal ones among them.
fn any_value() -> impl Strategy<Value = f64> {
    let spread = (any::<f64>(), 0_i32..900).prop_map(|(value, scale)| {
        let value = if value.is_finite() { value } else { 1.5 };
        value * 2_f64.powi(-scale) / 2_f64.powi(40)
    });
    prop_oneof![
        4 => spread,
        2 => -1e3..1e3,
        1 => (0_u64..1 << 52).prop_map(f64::from_bits),
        1 => (0_u64..1 << 53).prop_map(|bits| -f64::from_bits(bits)),
    ]
}

proptest! {
    #[test]
    fn equals_the_sum_by_partials(values in vec(any_value(), 0..40)) {
        prop_assert_eq!(sum(&values).value(), partials(&values));
    }

    #[test]
    fn equals_the_sum_in_fixed_point(units in vec(-(1_i64 << 53)..1 << 53, 0..40), scale in -1000_i32..900) {
        // Integers are exact in i128, and `as` rounds to nearest, ties to even.
        let total: i128 = units.iter().map(|&unit| i128::from(unit)).sum();
        let unit = 2_f64.powi(scale);
        let values: Vec<f64> = units.iter().map(|&count| count as f64 * unit).collect();
        prop_assert_eq!(sum(&values).value(), total as f64 * unit);
    }

    #[test]
    fn rounds_to_even_in_the_middle(odd in any::<bool>(), nudge in -1_i8..=1, scale in -400_i32..400) {
        let unit = 2_f64.powi(scale);
        let base = 2_f64.powi(52) + f64::from(u8::from(odd));
        let values = [base * unit, 0.5 * unit, f64::from(nudge) * unit * 2_f64.powi(-500)];
        let up = match nudge { 0 => odd, _ => nudge > 0 };
        prop_assert_eq!(sum(&values).value(), (base + f64::from(u8::from(up))) * unit);
        let negated = values.map(|value| -value);
        prop_assert_eq!(sum(&negated).value(), -sum(&values).value());
    }

    #[test]
    fn order_and_partition_leave_no_trace(
        values in vec(any_value(), 1..40),
        shuffled in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = sum(&values);
        let mut turned = values.clone();
        turned.rotate_left(shuffled.index(values.len()));
        turned.reverse();
        prop_assert_eq!(sum(&turned).chunks(), whole.chunks());
        let (left, right) = values.split_at(cut.index(values.len()));
        let mut merged = sum(right);
        merged.merge(&sum(left));
        prop_assert_eq!(merged.chunks(), whole.chunks());
    }

    #[test]
    fn a_sum_and_its_opposite_cancel_to_nothing(values in vec(any_value(), 0..40)) {
        let mut total = sum(&values);
        let negated: Vec<f64> = values.iter().map(|value| -value).collect();
        total.merge(&sum(&negated));
        prop_assert_eq!(total.chunks(), ExactSum::new().chunks());
        prop_assert_eq!(total.value().to_bits(), 0);
    }

    #[test]
    fn chunks_round_trip(values in vec(any_value(), 0..40)) {
        let total = sum(&values);
        let back = ExactSum::from_chunks(&total.chunks()).expect("own chunks");
        prop_assert_eq!(back.value().to_bits(), total.value().to_bits());
        prop_assert_eq!(back, total);
    }

    #[test]
    fn hostile_chunks_never_panic(chunks in vec(any::<i64>(), 60..70)) {
        if let Ok(sum) = ExactSum::from_chunks(&chunks) {
            prop_assert_eq!(sum.chunks(), chunks);
        }
    }
}

#[test]
fn one_value_comes_back_as_it_was() {
    let edges = [
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        -f64::from_bits((1 << 52) - 1),
        f64::from_bits((1 << 53) - 1),
        1.0,
        -0.1,
    ];
    for value in edges {
        assert_eq!(sum(&[value]).value().to_bits(), value.to_bits());
    }
}

#[test]
fn huge_and_tiny_do_not_disturb_each_other() {
    assert_eq!(sum(&[1e308, 1.0, -1e308, 1e-300]).value(), 1.0);
    assert_eq!(sum(&[f64::MAX, 5e-324, -f64::MAX]).value(), 5e-324);
}

#[test]
fn overflow_rounds_as_ieee_754_does_and_is_not_final() {
    let half_unit = 2_f64.powi(970);
    assert_eq!(sum(&[f64::MAX, half_unit]).value(), f64::INFINITY);
    assert_eq!(sum(&[f64::MAX, half_unit, -5e-324]).value(), f64::MAX);
    let mut total = sum(&vec![f64::MIN; 5000]);
    assert_eq!(total.value(), f64::NEG_INFINITY);
    total.merge(&sum(&vec![f64::MAX; 4999]));
    assert_eq!(total.value(), f64::MIN);
}

#[test]
fn carries_are_taken_in_time() {
    let worst = (2_f64.powi(53) - 1.0) * 2_f64.powi(31 - 1074 + 64);
    for sign in [1.0, -1.0] {
        let total = sum(&vec![sign * worst; 10_000]);
        assert_eq!(total.value(), sign * worst * 10_000.0);
    }
}

#[test]
fn what_is_not_finite_is_refused_and_leaves_no_trace() {
    let mut total = sum(&[0.5]);
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(matches!(total.add(value), Err(Error::NotFinite { .. })));
    }
    assert_eq!(total, sum(&[0.5]));
}
