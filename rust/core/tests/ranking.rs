//! The ranking meter against all pairs, and the laws its docs promise.

#![allow(clippy::float_cmp, reason = "what is exact is compared exactly")]

use flyball_core::Error;
use flyball_core::meters::{Dense, EXACT_SCORES, Labels, NonFinite, Ranking, Scale};
use proptest::collection::vec;
use proptest::prelude::*;

type Samples = Vec<(f64, u8)>;

fn measured(scale: Scale, samples: &[(f64, u8)]) -> Ranking {
    let mut meter = Ranking::new(1, scale).expect("a column");
    let (scores, flags): (Vec<f64>, Vec<u8>) = samples.iter().copied().unzip();
    let labels = Labels::Flags(&flags);
    meter
        .update(&Dense::new(&scores, 1), labels, NonFinite::Refuse)
        .expect("a valid batch");
    meter
}

/// AUROC by all pairs, and average precision by its definition at each positive.
fn oracle(samples: &[(f64, u8)]) -> (f64, f64) {
    let of = |label| {
        samples
            .iter()
            .filter(move |sample| sample.1 == label)
            .map(|sample| sample.0)
    };
    let pairs = of(1).flat_map(|p| of(0).map(move |n| (p, n)));
    let (sum, count) = pairs.fold((0.0, 0.0), |(sum, count), (p, n)| {
        let right = if p > n {
            1.0
        } else if p == n {
            0.5
        } else {
            0.0
        };
        (sum + right, count + 1.0)
    });
    let precision = |threshold: f64| {
        let above = samples.iter().filter(|sample| sample.0 >= threshold);
        let (hits, all) = above.fold((0.0, 0.0), |(h, a), s| (h + f64::from(s.1), a + 1.0));
        hits / all
    };
    let precisions: Vec<f64> = of(1).map(precision).collect();
    (
        sum / count,
        precisions.iter().sum::<f64>() / precisions.len() as f64,
    )
}

fn samples(most: usize) -> impl Strategy<Value = Samples> {
    let score = prop_oneof![
        3 => -6.0..6.0_f64,
        2 => (-3_i8..=3).prop_map(f64::from),
        1 => prop::sample::select(vec![1e4, -1e4, 0.0, -0.0, 1e-310, 1e300, -1e300]),
    ];
    vec((score, 0..2_u8), 0..most)
}

fn both(samples: &[(f64, u8)]) -> bool {
    samples.iter().any(|s| s.1 == 0) && samples.iter().any(|s| s.1 == 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn kept_scores_give_what_all_pairs_give(samples in samples(40)) {
        prop_assume!(both(&samples));
        let ranked = measured(Scale::Logits, &samples).ranked()[0];
        let (auroc, precision) = oracle(&samples);
        prop_assert!((ranked.auroc - auroc).abs() <= 1e-14);
        prop_assert!((ranked.average_precision - precision).abs() <= 1e-14);
        prop_assert_eq!((ranked.auroc_bound, ranked.average_precision_bound), (0.0, 0.0));
    }

    #[test]
    fn cells_are_off_by_no_more_than_they_say(samples in samples(60), copies in 1_u32..4) {
        prop_assume!(both(&samples));
        // As many copies as are too many to keep; that changes neither number.
        let mut meter = measured(Scale::Logits, &samples);
        while meter.rows() <= EXACT_SCORES as u64 * u64::from(copies) {
            let again = meter.clone();
            meter.merge(&again).expect("alike");
        }
        let ranked = meter.ranked()[0];
        let (auroc, precision) = oracle(&samples);
        prop_assert!((ranked.auroc - auroc).abs() <= ranked.auroc_bound + 1e-13);
        prop_assert!((ranked.average_precision - precision).abs() <= ranked.average_precision_bound + 1e-12);
    }

    #[test]
    fn order_partition_and_merges_leave_no_trace(
        (all, shuffled) in samples(50).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        cuts in any::<[prop::sample::Index; 2]>(), many in any::<bool>(),
    ) {
        let big = measured(Scale::Logits, &vec![(0.25, 1); EXACT_SCORES - 20]);
        let measured = |samples: &[(f64, u8)]| {
            let mut meter = measured(Scale::Logits, samples);
            if many {
                meter.merge(&big).expect("alike");
            }
            meter
        };
        let merged = |left: &Ranking, right: &Ranking| {
            let mut left = left.clone();
            left.merge(right).expect("alike");
            left
        };
        prop_assert_eq!(&measured(&shuffled), &measured(&all));
        let mut cuts = cuts.map(|cut| cut.index(all.len() + 1));
        cuts.sort_unstable();
        let [a, b, c] = [&all[..cuts[0]], &all[cuts[0]..cuts[1]], &all[cuts[1]..]].map(measured);
        prop_assert_eq!(&merged(&a, &b), &merged(&b, &a));
        prop_assert_eq!(&merged(&merged(&a, &b), &c), &merged(&a, &merged(&b, &c)));
        let again = Ranking::from_state(1, Scale::Logits, &c.state());
        prop_assert_eq!(again, Ok(c));
    }

    #[test]
    fn a_hostile_state_is_refused_without_a_panic(
        columns in 0_usize..3, probabilities in any::<bool>(),
        rows in prop_oneof![-1_i64..4, Just(1 << 17), any::<i64>()],
        rest in vec(prop_oneof![any::<i64>(), -1_i64..4], 0..10),
    ) {
        let scale = if probabilities { Scale::Probabilities } else { Scale::Logits };
        let state = [vec![rows, 0], rest].concat();
        if let Ok(meter) = Ranking::from_state(columns, scale, &state) {
            prop_assert_eq!(meter.state(), state);
        }
    }

    #[test]
    fn anything_at_all_is_counted_or_refused_whole(
        scores in vec(any::<f64>(), 0..12), columns in 1_usize..4,
        classes in vec(-1_i64..4, 0..6), flags in vec(0_u8..3, 0..12), by_class in any::<bool>(),
        leave_out in any::<bool>(), probabilities in any::<bool>(),
    ) {
        let scale = if probabilities { Scale::Probabilities } else { Scale::Logits };
        let mut meter = Ranking::new(columns, scale).expect("columns");
        let labels = if by_class { Labels::Classes(&classes) } else { Labels::Flags(&flags) };
        let policy = if leave_out { NonFinite::LeaveOut } else { NonFinite::Refuse };
        let before = meter.state();
        if meter.update(&Dense::new(&scores, columns), labels, policy).is_ok() {
            prop_assert_eq!((meter.rows() + meter.left_out()) * columns as u64, scores.len() as u64);
        } else {
            prop_assert_eq!(meter.state(), before);
        }
        prop_assert_eq!(meter.ranked().len(), columns);
    }
}

#[test]
fn one_against_the_rest_is_a_column_of_flags() {
    let scores: Vec<f64> = (0..30).map(|i| f64::from(i * 7 % 11)).collect();
    let classes: Vec<i64> = (0..10).map(|i| i % 3).collect();
    let flags: Vec<u8> = classes
        .iter()
        .flat_map(|&class| (0..3).map(move |c| u8::from(class == c)))
        .collect();
    let wide: Vec<i64> = flags.iter().copied().map(i64::from).collect();
    let all = [
        Labels::Classes(&classes),
        Labels::Flags(&flags),
        Labels::WideFlags(&wide),
    ];
    let [left, right, wide] = all.map(|labels| {
        let mut meter = Ranking::new(3, Scale::Logits).expect("columns");
        meter
            .update(&Dense::new(&scores, 3), labels, NonFinite::Refuse)
            .expect("a valid batch");
        meter
    });
    assert_eq!(left, right);
    assert_eq!(left, wide);
}

#[test]
fn errors_name_the_place() {
    let mut meter = Ranking::new(2, Scale::Probabilities).expect("columns");
    let scores = [0.5, 0.25, 1.5, 0.0];
    let rows = Dense::new(&scores, 2);
    let error = meter.update(&rows, Labels::Classes(&[0, 1]), NonFinite::LeaveOut);
    assert!(matches!(
        error,
        Err(Error::Score {
            row: 1,
            column: 0,
            ..
        })
    ));
    let error = meter.update(&rows, Labels::Classes(&[0, 2]), NonFinite::Refuse);
    assert!(matches!(
        error,
        Err(Error::Label {
            place: 1,
            value: 2,
            classes: 2
        })
    ));
    let error = meter.update(&rows, Labels::Flags(&[0, 1, 2, 0]), NonFinite::Refuse);
    assert!(matches!(
        error,
        Err(Error::Label {
            place: 2,
            value: 2,
            classes: 2
        })
    ));
    let error = meter.update(&rows, Labels::Classes(&[0]), NonFinite::Refuse);
    assert!(matches!(error, Err(Error::Scores { .. })));
    assert!(matches!(
        Ranking::new(0, Scale::Logits),
        Err(Error::Columns { .. })
    ));
    let other = Ranking::new(2, Scale::Logits).expect("columns");
    assert!(matches!(
        meter.merge(&other),
        Err(Error::Unlike { field: "scale", .. })
    ));
    assert_eq!(meter.rows(), 0);
}

#[test]
fn a_column_counted_at_once_is_the_sum_of_its_parts() {
    let score = |i: usize| ((i * 7919 % 10_007) as f64 - 5000.0) / 700.0;
    let samples: Samples = (0..EXACT_SCORES + 700)
        .map(|i| (score(i), u8::from(i % 3 == 0)))
        .collect();
    let mut merged = measured(Scale::Logits, &[]);
    for part in samples.chunks(5000) {
        merged.merge(&measured(Scale::Logits, part)).expect("alike");
    }
    assert_eq!(measured(Scale::Logits, &samples), merged);
    let scores = [0.5, f64::NAN, 1.0, f64::INFINITY];
    let labels = Labels::Flags(&[0, 1, 1, 0]);
    merged
        .update(&Dense::new(&scores, 1), labels, NonFinite::LeaveOut)
        .expect("rows are left out");
    assert_eq!(
        (merged.rows(), merged.left_out()),
        (samples.len() as u64 + 2, 2)
    );
    assert_eq!(
        merged.ranked()[0].positives,
        samples.iter().filter(|s| s.1 == 1).count() as u64 + 1
    );
}
