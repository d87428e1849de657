//! A logarithm and an exponential that give the same bits everywhere.
//!
//! The standard `ln` and `exp` come from the platform's library and differ in the last bit from
//! one to the next, so two ranks of one run could reach two verdicts. These use only `+ - * /` and
//! powers of two, in a written order and without fused multiply-add, so every machine, and a twin
//! in another language, computes the same bits. The error is below one unit in the last place for
//! a result that is a normal number.
//!
//! The reductions are those of fdlibm (Sun Microsystems, 1993); the polynomials are the plain
//! series of artanh and of x·coth(x/2), which at these lengths end below half a unit.

/// ln 2 in two parts: an integer of 11 bits times the first is exact.
const LN_2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
const LN_2_LOW: f64 = f64::from_bits(0x3DEA_39EF_3579_3C76);
const EXPONENT_BIAS: i64 = 1023;
const FRACTION_BITS: u32 = 52;
/// Above this e^x overflows, below the other it is zero.
const EXP_OVERFLOWS: f64 = 709.782_712_893_384;
const EXP_VANISHES: f64 = -745.133_219_101_941_2;

/// The natural logarithm: minus infinity at 0, NaN below and for NaN.
#[must_use]
#[allow(clippy::many_single_char_names, reason = "the names of the formulas")]
pub fn ln(x: f64) -> f64 {
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x == f64::INFINITY {
        return x;
    }
    let subnormal = x < f64::MIN_POSITIVE;
    let bits = if subnormal {
        (x * power_of_two(54)).to_bits()
    } else {
        x.to_bits()
    };
    let mut exponent = (bits >> FRACTION_BITS).cast_signed() - EXPONENT_BIAS;
    if subnormal {
        exponent -= 54;
    }
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    let mut mantissa = f64::from_bits(fraction | (1023 << FRACTION_BITS));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let k = exponent as f64;
    let f = mantissa - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    // Every second term for itself: two chains of operations, each half as long.
    let w = z * z;
    let (mut odd, mut even) = (2.0 / 19.0, 2.0 / 21.0);
    for (one, other) in [(15.0, 17.0), (11.0, 13.0), (7.0, 9.0), (3.0, 5.0)] {
        odd = odd * w + 2.0 / one;
        even = even * w + 2.0 / other;
    }
    let r = z * (odd + z * even);
    let half = 0.5 * f * f;
    k * LN_2_HIGH - ((half - (s * (half + r) + k * LN_2_LOW)) - f)
}

/// eˣ; a result below the normal numbers is rounded twice.
#[must_use]
#[allow(clippy::many_single_char_names, reason = "the names of the formulas")]
pub fn exp(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x > EXP_OVERFLOWS {
        return f64::INFINITY;
    }
    if x < EXP_VANISHES {
        return 0.0;
    }
    let rounded = (x * std::f64::consts::LOG2_E + 0.5).floor();
    let high = x - rounded * LN_2_HIGH;
    let low = rounded * LN_2_LOW;
    let r = high - low;
    let t = r * r;
    let mut series = -691.0 / 653_837_184_000.0;
    for coefficient in [
        1.0 / 23_950_080.0,
        -1.0 / 604_800.0,
        1.0 / 15_120.0,
        -1.0 / 360.0,
        1.0 / 6.0,
    ] {
        series = series * t + coefficient;
    }
    let c = r - t * series;
    let fraction = 1.0 - ((low - r * c / (2.0 - c)) - high);
    #[allow(clippy::cast_possible_truncation, reason = "between -1075 and 1024")]
    let n = rounded as i64;
    let first = n >> 1;
    fraction * power_of_two(first) * power_of_two(n - first)
}

/// The larger of two numbers, neither of them NaN: one instruction, where `f64::max` is six.
#[inline]
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

/// The smaller of two numbers, neither of them NaN.
#[inline]
pub(super) fn smaller(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

/// The number between -reach and reach that is nearest.
#[inline]
pub(super) fn clamp(value: f64, reach: f64) -> f64 {
    smaller(larger(value, -reach), reach)
}

fn power_of_two(n: i64) -> f64 {
    f64::from_bits(((n + EXPONENT_BIAS) << FRACTION_BITS).cast_unsigned())
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the same bits are the claim")]
mod tests {
    use proptest::prelude::*;

    use super::{exp, ln};

    /// How many doubles lie between two of the same sign.
    fn apart(a: f64, b: f64) -> u64 {
        a.to_bits().abs_diff(b.to_bits())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn ln_is_the_logarithm(x in proptest::num::f64::POSITIVE | proptest::num::f64::SUBNORMAL) {
            let x = x.abs();
            prop_assert!(apart(ln(x), x.ln()) <= 1, "{x}: {} is not {}", ln(x), x.ln());
        }

        #[test]
        fn ln_near_one(x in 0.7..1.5) {
            prop_assert!(apart(ln(x), x.ln()) <= 1, "{x}: {} is not {}", ln(x), x.ln());
        }

        #[test]
        fn exp_is_the_exponential(x in -708.0..709.7) {
            prop_assert!(apart(exp(x), x.exp()) <= 1, "{x}: {} is not {}", exp(x), x.exp());
        }

        #[test]
        fn exp_is_close_to_zero_below(x in -760.0..-708.0) {
            prop_assert!((exp(x) - x.exp()).abs() <= 1e-323);
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        assert!(ln(-1.0).is_nan() && ln(f64::NAN).is_nan() && exp(f64::NAN).is_nan());
        let (ends, infinity) = ([0.0, 1.0, f64::INFINITY], f64::INFINITY);
        assert_eq!(ends.map(ln), [-infinity, 0.0, infinity]);
        assert_eq!(
            [-infinity, 0.0, 1000.0, infinity].map(exp),
            [0.0, 1.0, infinity, infinity]
        );
        assert!(exp(709.782_7).is_finite());
        assert!((exp(1.0) - std::f64::consts::E).abs() < 5e-16);
    }
}
