//! Every number of a risk-coverage curve, over resampled samples.

use super::{Stream, on_threads};

/// The numbers that a curve always has: risk at full coverage, AURC, E-AURC, AUGRC.
const ALWAYS: usize = 4;

/// A risk-coverage curve, ready to be resampled.
///
/// Samples are in the order of falling confidence; those of equal confidence form a group, whose order is averaged
/// over, as no threshold can divide it.
#[derive(Debug, Clone)]
pub struct Curve<'a> {
    /// Whether each sample is wrong, 0 or 1.
    pub wrong: &'a [u8],
    /// Where each group ends, rising; the last is the number of samples.
    pub ends: &'a [u32],
    /// The coverages at which the risk is asked for, each above 0 and at most 1.
    pub coverages: &'a [f64],
    /// The risks at which the coverage is asked for.
    pub risks: &'a [f64],
}

impl Curve<'_> {
    /// How many numbers it has: risk, AURC, E-AURC and AUGRC, then one for each coverage, then one for each risk.
    #[must_use]
    pub fn width(&self) -> usize {
        ALWAYS + self.coverages.len() + self.risks.len()
    }

    /// The numbers, where each sample counts as often as `counts` says.
    ///
    /// `harmonic[k]` is 1 + 1/2 + ... + 1/k. The sum over k of errors among the first k over k has a closed form for
    /// each group, (E + e j / m) / (K + j) summed over j up to m, with E errors among K samples before it, and e among
    /// its own m: e + (E - e K / m) (harmonic(K + m) - harmonic(K)).
    fn read(&self, counts: &[u32], harmonic: &[f64], wanted: &[f64], out: &mut [f64]) {
        let total = (harmonic.len() - 1) as f64;
        let (mut seen, mut errors) = (0_usize, 0.0);
        let (mut area, mut general) = (0.0, 0.0);
        let (always, asked) = out.split_at_mut(ALWAYS);
        let (risk_at, coverage_at) = asked.split_at_mut(self.coverages.len());
        coverage_at.fill(0.0);
        let mut next = 0;
        let mut begin = 0;
        for &end in self.ends {
            let end = end as usize;
            let (mut size, mut bad) = (0_usize, 0_usize);
            for (&count, &wrong) in counts[begin..end].iter().zip(&self.wrong[begin..end]) {
                size += count as usize;
                bad += count as usize * usize::from(wrong);
            }
            begin = end;
            if size == 0 {
                continue;
            }
            let (m, e, before) = (size as f64, bad as f64, seen as f64);
            let rate = e / m;
            area += e + (errors - rate * before) * (harmonic[seen + size] - harmonic[seen]);
            general += m * errors + e * (m + 1.0) / 2.0;
            seen += size;
            while next < wanted.len() && wanted[next] <= seen as f64 {
                risk_at[next] = (errors + rate * (wanted[next] - before)) / wanted[next];
                next += 1;
            }
            errors += e;
            for (&risk, coverage) in self.risks.iter().zip(coverage_at.iter_mut()) {
                if keeps(errors, seen as f64, risk) {
                    *coverage = seen as f64 / total;
                }
            }
        }
        let right = (harmonic.len() - 1) - errors_as_count(errors);
        let best = errors - right as f64 * (harmonic[harmonic.len() - 1] - harmonic[right]);
        always.copy_from_slice(&[
            errors / total,
            area / total,
            (area - best) / total,
            general / (total * total),
        ]);
    }
}

/// Whether `errors / seen <= risk`, as one would write it: 3 of 10 keep 0.3, although 0.3 · 10 may round to less.
///
/// The division is left for the few counts that the last bits decide.
#[inline]
fn keeps(errors: f64, seen: f64, risk: f64) -> bool {
    let bound = risk * seen;
    if (errors - bound).abs() > 4.0 * f64::EPSILON * bound {
        errors < bound
    } else {
        errors / seen <= risk
    }
}

/// The least whole number k of at least one with `k / samples >= share`.
fn least_covering(share: f64, samples: f64) -> f64 {
    let near = (share * samples).round().clamp(1.0, samples);
    let covers = |k: f64| k / samples >= share;
    if covers(near) {
        let below = near - 1.0;
        if below >= 1.0 && covers(below) {
            below
        } else {
            near
        }
    } else {
        (near + 1.0).min(samples)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a sum of counts, exact in a double"
)]
fn errors_as_count(errors: f64) -> usize {
    errors as usize
}

/// The numbers of a curve over resampled samples, one row of [`Curve::width`] for each draw.
///
/// `draws` of `None` gives one row: the numbers of the samples themselves. The coverages must rise.
///
/// # Panics
///
/// If the groups do not end at the number of samples.
#[must_use]
pub fn selective(
    curve: &Curve<'_>,
    seed: u64,
    first: u64,
    draws: Option<usize>,
    threads: usize,
) -> Vec<f64> {
    let samples = curve.wrong.len();
    assert_eq!(
        curve.ends.last().copied().unwrap_or(0) as usize,
        samples,
        "the last group ends with the samples"
    );
    let mut out = vec![0.0; draws.unwrap_or(1) * curve.width()];
    let Ok(bound) = u32::try_from(samples) else {
        panic!("{samples} samples are more than a resample counts");
    };
    if samples == 0 {
        return out;
    }
    let harmonic: Vec<f64> = std::iter::once(0.0)
        .chain((1..=samples).scan(0.0, |sum, k| {
            *sum += 1.0 / k as f64;
            Some(*sum)
        }))
        .collect();
    let wanted: Vec<f64> = curve
        .coverages
        .iter()
        .map(|&share| least_covering(share, samples as f64))
        .collect();
    if draws.is_none() {
        curve.read(&vec![1; samples], &harmonic, &wanted, &mut out);
        return out;
    }
    on_threads(
        &mut out,
        curve.width(),
        first,
        threads,
        || vec![0_u32; samples],
        |draw, counts, row| {
            counts.fill(0);
            Stream::of(seed, draw).below(bound, samples, |index| counts[index] += 1);
            curve.read(counts, &harmonic, &wanted, row);
        },
    );
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definitions, one sample at a time: expand the counts, and average each group's errors over its order.
    fn oracle(curve: &Curve<'_>, counts: &[u32]) -> Vec<f64> {
        let mut expected = Vec::new();
        let mut boundary = Vec::new();
        let mut begin = 0;
        for &end in curve.ends {
            let group: Vec<f64> = (begin..end as usize)
                .flat_map(|i| vec![f64::from(curve.wrong[i]); counts[i] as usize])
                .collect();
            begin = end as usize;
            let mean = group.iter().sum::<f64>() / group.len() as f64;
            expected.extend(group.iter().map(|_| mean));
            boundary.extend((0..group.len()).map(|i| i + 1 == group.len()));
        }
        let n = expected.len();
        let upto = |k: usize| expected[..k].iter().sum::<f64>();
        let errors = upto(n);
        let right = n as f64 - errors.round();
        let sorted: Vec<f64> = (0..n)
            .map(|k| f64::from(u8::from(k as f64 >= right)))
            .collect();
        let area =
            |e: &dyn Fn(usize) -> f64| (1..=n).map(|k| e(k) / k as f64).sum::<f64>() / n as f64;
        let best = area(&|k| sorted[..k].iter().sum());
        let general = (1..=n).map(|k| upto(k) / n as f64).sum::<f64>() / n as f64;
        let mut out = vec![errors / n as f64, area(&upto), area(&upto) - best, general];
        for &share in curve.coverages {
            let covering = (1..=n).find(|&k| k as f64 / n as f64 >= share);
            let k = covering.unwrap_or(n);
            out.push(upto(k) / k as f64);
        }
        for &risk in curve.risks {
            let k = (1..=n)
                .filter(|&k| boundary[k - 1] && upto(k).round() / k as f64 <= risk)
                .max();
            out.push(k.unwrap_or(0) as f64 / n as f64);
        }
        out
    }

    proptest! {
        #[test]
        fn one_pass_over_counts_equals_the_definitions(
            groups in prop::collection::vec(prop::collection::vec(0_u8..2, 1..4), 1..12),
            seed in 0_u64..1000,
        ) {
            let wrong: Vec<u8> = groups.concat();
            let ends: Vec<u32> = groups
                .iter()
                .scan(0, |end, group| { *end += u32::try_from(group.len()).unwrap_or(0); Some(*end) })
                .collect();
            let curve = Curve { wrong: &wrong, ends: &ends, coverages: &[0.1, 0.29, 0.5, 0.7, 1.0], risks: &[0.0, 0.1, 0.3, 0.37, 0.7] };
            let ones = vec![1; wrong.len()];
            let whole = selective(&curve, seed, 0, None, 1);
            for (ours, theirs) in whole.iter().zip(oracle(&curve, &ones)) {
                prop_assert!((ours - theirs).abs() < 1e-12, "{whole:?}");
            }
            let drawn = selective(&curve, seed, 3, Some(2), 1);
            let mut counts = vec![0; wrong.len()];
            let bound = u32::try_from(wrong.len()).unwrap_or(0);
            Stream::of(seed, 4).below(bound, wrong.len(), |i| counts[i] += 1);
            for (ours, theirs) in drawn[curve.width()..].iter().zip(oracle(&curve, &counts)) {
                prop_assert!((ours - theirs).abs() < 1e-12);
            }
            prop_assert_eq!(selective(&curve, seed, 3, Some(2), 2), drawn);
        }
    }

    #[test]
    fn a_share_that_is_met_exactly_is_met() {
        for samples in 1..=400 {
            let n = f64::from(samples);
            for part in 1..=samples {
                let share = f64::from(part) / n;
                assert_eq!(
                    least_covering(share, n).to_bits(),
                    f64::from(part).to_bits()
                );
                assert!(keeps(f64::from(part), n, share));
                assert!(part == samples || !keeps(f64::from(part + 1), n, share));
            }
            for decimal in 1..100 {
                let share = f64::from(decimal) / 100.0;
                let least = (1..=samples).find(|&k| f64::from(k) / n >= share);
                assert_eq!(Some(least_covering(share, n)), least.map(f64::from));
                for errors in 0..=samples {
                    let rate = f64::from(errors) / n;
                    assert_eq!(keeps(f64::from(errors), n, share), rate <= share);
                }
            }
        }
    }

    #[test]
    fn a_constant_confidence_has_its_risk_as_area_and_no_samples_no_numbers() {
        let curve = Curve {
            wrong: &[1, 0, 0, 1, 0],
            ends: &[5],
            coverages: &[],
            risks: &[0.1],
        };
        let numbers = selective(&curve, 0, 0, None, 1);
        assert!(
            (numbers[1] - 0.4).abs() < 1e-15 && numbers[4].abs() < 1e-15,
            "{numbers:?}"
        );
        let nothing = Curve {
            wrong: &[],
            ends: &[],
            coverages: &[],
            risks: &[],
        };
        assert_eq!(selective(&nothing, 0, 0, Some(3), 1), [0.0; 12]);
    }
}
