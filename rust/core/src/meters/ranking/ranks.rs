//! What scores in their order say: AUROC and average precision.

use super::cells::Pair;

/// What the counts of one column say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The number of positives.
    pub positives: u64,
    /// The number of negatives.
    pub negatives: u64,
    /// The share of pairs in the right order; NaN without positives or negatives.
    pub auroc: f64,
    /// The largest error of that; 0 if scores were kept.
    pub auroc_bound: f64,
    /// `DeLong`'s variance of it; NaN with fewer than two positives or negatives.
    pub auroc_variance: f64,
    /// The mean precision at the scores of the positives; NaN without positives.
    pub average_precision: f64,
    /// The largest error of that; 0 if scores were kept.
    pub average_precision_bound: f64,
}

/// An integer that rises with a finite number; -0 is where +0 is.
#[inline]
pub(super) const fn key_of(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | 1 << 63
    }
}

pub(super) const fn value_of(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 {
        key & !(1 << 63)
    } else {
        !key
    })
}

/// Groups of equal keys, rising.
pub(super) fn ties(keys: &[Vec<u64>; 2]) -> Vec<Pair> {
    let [mut negatives, mut positives] = keys.clone();
    negatives.sort_unstable();
    positives.sort_unstable();
    let mut groups = Vec::new();
    let (mut negatives, mut positives) = (negatives.as_slice(), positives.as_slice());
    while let Some(&least) = [negatives.first(), positives.first()]
        .into_iter()
        .flatten()
        .min()
    {
        let take = |keys: &mut &[u64]| {
            let count = keys.partition_point(|&key| key == least);
            *keys = &keys[count..];
            u32::try_from(count).unwrap_or(u32::MAX) // at most EXACT_SCORES
        };
        groups.push([take(&mut negatives), take(&mut positives)]);
    }
    groups
}

/// What groups of ties say, by rising score, none of them empty; `exact` if the ties are real.
pub(super) fn rank(groups: &[Pair], exact: bool) -> Ranked {
    let (mut negatives, mut positives) = (0_u64, 0_u64);
    let (mut twice, mut tied) = (0_u128, 0_u128);
    for &[negative, positive] in groups {
        let (negative, positive) = (u64::from(negative), u64::from(positive));
        twice += u128::from(positive) * u128::from(2 * negatives + negative);
        tied += u128::from(positive * negative);
        negatives += negative;
        positives += positive;
    }
    let (n, p) = (negatives as f64, positives as f64);
    let pairs = 2.0 * n * p;
    let auroc = twice as f64 / pairs;
    // How many of the others are on the right side of a positive, or of a negative, on average.
    let (of_positive, of_negative) = (auroc * n, auroc * p);
    let (mut below, mut above) = (0.0, p);
    let (mut of_positives, mut of_negatives) = (0.0, 0.0);
    // From the top: true and false positives so far; the sum of precisions, and its ends.
    let (mut hits, mut alarms) = (p, n);
    let (mut precision, mut least, mut most) = (0.0, 0.0, 0.0);
    for &[negative, positive] in groups {
        let (negative, positive) = (f64::from(negative), f64::from(positive));
        above -= positive;
        let right_of_positive = below + negative / 2.0 - of_positive;
        let right_of_negative = above + positive / 2.0 - of_negative;
        of_positives += positive * right_of_positive * right_of_positive;
        of_negatives += negative * right_of_negative * right_of_negative;
        below += negative;
        let before = (hits - positive, alarms - negative);
        // Side by side, as a division takes long, and without a branch, which would be guessed wrong: without
        // positives all three add 0. The precision at the i-th positive is concave in i, so its mean is above
        // that of the ends.
        let parts = [hits, before.0 + 1.0, hits];
        let wholes = [hits + alarms, before.0 + 1.0 + alarms, hits + before.1];
        let [at, first, alone]: [f64; 3] = std::array::from_fn(|i| parts[i] / wholes[i].max(1.0));
        precision += positive * at;
        least += positive * (first + at) / 2.0;
        most += positive * alone;
        (hits, alarms) = before;
    }
    let average_precision = precision / p;
    let ends = (precision - least).max(most - precision) / p;
    Ranked {
        positives,
        negatives,
        auroc,
        auroc_bound: if exact { 0.0 } else { tied as f64 / pairs },
        auroc_variance: of_positives / (n * n) / (p - 1.0).max(0.0) / p
            + of_negatives / (p * p) / (n - 1.0).max(0.0) / n,
        average_precision,
        average_precision_bound: if exact { 0.0 } else { ends },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "keys are exact")]

    use proptest::prelude::*;

    use super::{key_of, value_of};

    proptest! {
        #[test]
        fn keys_rise_with_the_score(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(a.is_finite() && b.is_finite());
            let (low, high) = if a <= b { (a, b) } else { (b, a) };
            prop_assert!(key_of(low) <= key_of(high));
            prop_assert!(low < high || key_of(low) == key_of(high));
            prop_assert!(value_of(key_of(a)) == a);
        }
    }
}
