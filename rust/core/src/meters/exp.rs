//! Exponentials that compilers turn into vector code.
//!
//! The standard `exp` is a call, so a loop around it stays scalar. [`exp_nonpositive`] and
//! [`exp_nonpositive_f64`] are straight arithmetic: x / ln 2 = n + f with |f| <= 1/2, eˣ = 2ⁿ·2ᶠ,
//! and 2ᶠ a polynomial. They use no fused multiply-add, so every machine and every vector width
//! gives the same bits, and exp(0) is exactly 1.
//!
//! Bounds in single precision, against the exponential in double precision: relative error at most
//! 3e-7 + 7.5e-8·|x| for -87 <= x <= 0, the second part from rounding x / ln 2; absolute error at
//! most 2⁻¹²⁵ below. In a softmax x is itself a rounded difference, with an error of about the
//! second part. In double precision: relative error at most 6e-16 for -708 <= x <= 0, absolute error
//! at most 2⁻¹⁰²¹ below. Where the argument is exact, positive, or the last bit counts, `exp` of the
//! standard library is the better function.

use std::f32::consts::LOG2_E;

/// 2ⁿ for the n of this and of anything below is 0 instead of a subnormal number.
const LOWEST: f32 = -127.0;
/// Adding 1.5·2²³ leaves the nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;
const EXPONENT_BIAS: u32 = 127;
const FRACTION_BITS: u32 = 23;
/// 2ᶠ = 1 + f·(…) with the least relative error, 9.2e-8, found by Lawson's algorithm.
#[allow(clippy::approx_constant, reason = "close to ln 2, but fitted")]
const POLYNOMIAL: [f32; 5] = [
    0.693_147,
    0.240_222_41,
    0.055_507_343,
    0.009_671_566,
    0.001_326_465_9,
];

/// eˣ for x <= 0, minus infinity included; see the module for the error bound.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "it must become part of the caller's vector loop"
)]
#[must_use]
pub fn exp_nonpositive(x: f32) -> f32 {
    let quotient = x * LOG2_E;
    let quotient = if quotient > LOWEST { quotient } else { LOWEST };
    let rounded = quotient + ROUND;
    let f = quotient - (rounded - ROUND);
    let [c1, c2, c3, c4, c5] = POLYNOMIAL;
    // Pairs instead of a chain: three multiplications deep instead of five.
    let f2 = f * f;
    let exp2_f = (1.0 + c1 * f) + f2 * ((c2 + c3 * f) + f2 * (c4 + c5 * f));
    // The shift keeps the low nine bits, n + 127; for n = -127 the scale is 0.
    let scale = f32::from_bits(rounded.to_bits().wrapping_add(EXPONENT_BIAS) << FRACTION_BITS);
    exp2_f * scale
}

/// Below this, eˣ is taken for 0.
const LOWEST_F64: f64 = -708.5;
/// Adding 1.5·2⁵² leaves the nearest integer in the low bits.
const ROUND_F64: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts; the first has 33 bits, so that its product with n is exact.
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// 1/k! for k = 2 to 13: the rest of the series is below 4e-18 for |r| <= ln(2)/2.
const SERIES: [f64; 12] = [
    1.0 / 2.0,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5_040.0,
    1.0 / 40_320.0,
    1.0 / 362_880.0,
    1.0 / 3_628_800.0,
    1.0 / 39_916_800.0,
    1.0 / 479_001_600.0,
    1.0 / 6_227_020_800.0,
];

/// eˣ for x <= 0, minus infinity included; see the module for the error bound.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "it must become part of the caller's vector loop"
)]
#[must_use]
pub fn exp_nonpositive_f64(x: f64) -> f64 {
    let inside = if x > LOWEST_F64 { x } else { LOWEST_F64 };
    let rounded = inside * std::f64::consts::LOG2_E + ROUND_F64;
    let n = rounded - ROUND_F64;
    let r = (inside - n * LN_2_HIGH) - n * LN_2_LOW;
    let [c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13] = SERIES;
    let r2 = r * r;
    let r4 = r2 * r2;
    let low = (c2 + c3 * r) + r2 * (c4 + c5 * r);
    let middle = (c6 + c7 * r) + r2 * (c8 + c9 * r);
    let high = (c10 + c11 * r) + r2 * (c12 + c13 * r);
    let series = low + r4 * (middle + r4 * high);
    let exp_r = 1.0 + (r + r2 * series);
    let scale = f64::from_bits(rounded.to_bits().wrapping_add(1023) << 52);
    let value = exp_r * scale;
    if x > LOWEST_F64 { value } else { 0.0 }
}

/// Bits of sqrt(1/2), the lower end of the mantissas whose logarithm is computed.
const HALF_ROOT: u64 = 0x3fe6_a09e_667f_3bcd;
/// 1/(2k + 1) for k = 1 to 11: the rest of the series is below 1e-19 for |r| <= 0.1716.
const ODD: [f64; 11] = [
    1.0 / 3.0,
    1.0 / 5.0,
    1.0 / 7.0,
    1.0 / 9.0,
    1.0 / 11.0,
    1.0 / 13.0,
    1.0 / 15.0,
    1.0 / 17.0,
    1.0 / 19.0,
    1.0 / 21.0,
    1.0 / 23.0,
];

/// ln(1 + x) for x >= 0 up to the largest double, to a relative error of 6e-16.
///
/// 1 + x = 2ᵏ·m with m near 1, and ln m = 2 artanh(r) with r = (m - 1) / (m + 1), as a series. What
/// 1 + x rounds away is added again, to first order.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "it must become part of the caller's vector loop"
)]
#[allow(clippy::many_single_char_names, reason = "the letters of the formula")]
#[must_use]
pub fn ln_1p_nonnegative(x: f64) -> f64 {
    let u = 1.0 + x;
    let lost = (x - (u - 1.0)) / u;
    let bits = u.to_bits();
    let k = bits.wrapping_sub(HALF_ROOT) >> 52;
    let m = f64::from_bits(bits.wrapping_sub(k << 52));
    // An integer in the low bits of 2⁵² is that integer more.
    let k = f64::from_bits(k | 0x4330_0000_0000_0000) - 4_503_599_627_370_496.0;
    let f = m - 1.0;
    let r = f / (2.0 + f);
    let z = r * r;
    let z2 = z * z;
    let z4 = z2 * z2;
    let [c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11] = ODD;
    let low = (c1 + c2 * z) + z2 * (c3 + c4 * z);
    let middle = (c5 + c6 * z) + z2 * (c7 + c8 * z);
    let high = (c9 + c10 * z) + z2 * c11;
    let series = 2.0 * r * z * (low + z4 * (middle + z4 * high));
    // 2r = f - r·f, whose first part is exact.
    k * LN_2_HIGH + (f - (r * f - (series + (k * LN_2_LOW + lost))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{exp_nonpositive, exp_nonpositive_f64, ln_1p_nonnegative};

    fn relative_error(x: f32) -> f64 {
        let exact = f64::from(x).exp();
        (f64::from(exp_nonpositive(x)) - exact).abs() / exact
    }

    fn bound(x: f32) -> f64 {
        3e-7 + f64::from(x.abs()) * 7.5e-8
    }

    #[test]
    fn error_is_bounded_on_a_fine_grid() {
        for step in 0_u16..=u16::MAX {
            let x = f32::from(step) * (-87.0 / f32::from(u16::MAX));
            assert!(relative_error(x) <= bound(x), "exp({x})");
        }
    }

    #[test]
    fn zero_gives_exactly_one_and_the_far_end_exactly_nothing() {
        assert_eq!(exp_nonpositive(0.0).to_bits(), 1_f32.to_bits());
        assert_eq!(exp_nonpositive_f64(0.0).to_bits(), 1_f64.to_bits());
        assert_eq!(ln_1p_nonnegative(0.0).to_bits(), 0);
        for x in [-88.1, -1e4, -1e30, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp_nonpositive(x).to_bits(), 0);
        }
        for x in [-709.0, -1e4, -1e300, f64::MIN, f64::NEG_INFINITY] {
            assert_eq!(exp_nonpositive_f64(x).to_bits(), 0);
        }
    }

    proptest! {
        #[test]
        fn error_is_bounded_in_range(x in -87.0_f32..=0.0) {
            prop_assert!(relative_error(x) <= bound(x));
        }

        #[test]
        fn error_is_bounded_near_zero(x in -1e-3_f32..=0.0) {
            prop_assert!(relative_error(x) <= bound(x));
        }

        #[test]
        fn what_lies_below_the_range_is_negligible(x in -1e3_f32..=-87.0) {
            let error = (f64::from(exp_nonpositive(x)) - f64::from(x).exp()).abs();
            prop_assert!(error <= 2_f64.powi(-125));
        }

        #[test]
        fn double_precision_is_right_to_a_few_units_of_the_last_place(
            x in prop_oneof![-708.0..=0.0_f64, -2.0..=0.0_f64, -1e-9..=0.0_f64]
        ) {
            let exact = x.exp();
            prop_assert!((exp_nonpositive_f64(x) - exact).abs() <= 6e-16 * exact);
        }

        #[test]
        fn the_logarithm_is_right_to_a_few_units_of_the_last_place(
            x in prop_oneof![
                0.0..3.0_f64, 0.0..20_000.0_f64, (-1074.0..1024.0_f64).prop_map(f64::exp2),
            ]
        ) {
            let exact = x.ln_1p();
            let error = (ln_1p_nonnegative(x) - exact).abs();
            prop_assert!(error <= 6e-16 * exact, "{x} {exact} {error:e}");
        }

        #[test]
        fn what_lies_below_the_range_of_doubles_is_negligible(x in -1e3_f64..=-708.0) {
            prop_assert!((exp_nonpositive_f64(x) - x.exp()).abs() <= 2_f64.powi(-1021));
        }
    }
}
