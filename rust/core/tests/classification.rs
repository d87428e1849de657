//! The classification meter against a naive oracle, and the laws its docs promise.

#![allow(
    clippy::cast_possible_truncation,
    reason = "any f32 will do as a logit"
)]
#![allow(clippy::cast_possible_wrap, reason = "classes are few")]
#![allow(clippy::float_cmp, reason = "what is exact is compared exactly")]

use flyball_core::Error;
use flyball_core::meters::{Classification, ClassificationState, ExactSum, Logit, MAX_CLASSES};
use proptest::collection::vec;
use proptest::prelude::*;

/// A batch, and the shape it was made for.
#[derive(Debug, Clone)]
struct Batch {
    classes: usize,
    topk: Vec<usize>,
    rows: Vec<(Vec<f32>, i64)>,
}

impl Batch {
    fn measured(&self, rows: &[(Vec<f32>, i64)]) -> Classification {
        let mut meter = Classification::new(self.classes, &self.topk).expect("valid shape");
        let logits: Vec<f32> = rows.iter().flat_map(|(logits, _)| logits.clone()).collect();
        let targets: Vec<i64> = rows.iter().map(|&(_, target)| target).collect();
        meter.update(&logits, &targets).expect("valid batch");
        meter
    }
}

/// Logits of every magnitude, with many ties.
fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -20_f32..20.0,
        2 => (-2_i8..=2).prop_map(f32::from),
        1 => prop::sample::select(vec![1e4, -1e4, 1e30, -1e30, f32::MAX, f32::MIN, -0.0, 1e-40]),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    let shape = prop_oneof![2_usize..8, 14_usize..20, 60_usize..150];
    shape.prop_flat_map(|classes| {
        let row = (vec(logit(), classes), 0..classes as i64);
        let topk = prop::sample::subsequence((1..=classes).collect::<Vec<_>>(), 0..=classes.min(3));
        (topk, vec(row, 0..24)).prop_map(move |(topk, rows)| Batch {
            classes,
            topk,
            rows,
        })
    })
}

type Damage = fn(&mut ClassificationState);

struct Answer {
    predicted: usize,
    rank: usize,
    nll: f64,
}

/// Sorts, and sums in double precision from small to large.
fn oracle<F: Logit>(logits: &[F], target: usize) -> Answer {
    let logits: Vec<f64> = logits.iter().map(|&x| x.into()).collect();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    // total_cmp puts +0 before -0; to a meter they are equal.
    order.sort_by(|&a, &b| {
        logits[b]
            .partial_cmp(&logits[a])
            .expect("finite")
            .then(a.cmp(&b))
    });
    let max = logits[order[0]];
    let others: f64 = order[1..]
        .iter()
        .rev()
        .map(|&class| (logits[class] - max).exp())
        .sum();
    Answer {
        predicted: order[0],
        rank: order
            .iter()
            .position(|&class| class == target)
            .expect("a class"),
        nll: (max - logits[target]) + others.ln_1p(),
    }
}

fn agrees<F: Logit>(classes: usize, logits: &[F], target: usize, tolerance: f64) {
    let topk: Vec<usize> = (1..=classes).collect();
    let mut meter = Classification::new(classes, &topk).expect("valid shape");
    meter.update(logits, &[target as i64]).expect("valid batch");
    let answer = oracle(logits, target);
    assert_eq!(meter.confusion()[target * classes + answer.predicted], 1);
    for (&k, &hits) in topk.iter().zip(meter.hits()) {
        assert_eq!(hits, u64::from(answer.rank < k), "k = {k}");
    }
    let nll = meter.nll().value();
    assert!(nll >= 0.0 && nll.is_finite());
    assert!(
        (nll - answer.nll).abs() <= tolerance + 1e-14 * answer.nll,
        "{nll} {}",
        answer.nll
    );
    assert_eq!(meter.nll_squared().value(), nll * nll);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_row_gives_what_sorting_and_plain_loops_give(batch in batch()) {
        for (logits, target) in &batch.rows {
            let target = usize::try_from(*target).expect("a class");
            let tolerance = 5e-7 + 1.4e-7 * (batch.classes as f64).ln();
            agrees(batch.classes, logits, target, tolerance);
            let double: Vec<f64> = logits.iter().map(|&x| f64::from(x) * 1.1).collect();
            agrees(batch.classes, &double, target, 1e-13);
        }
    }

    #[test]
    fn a_batch_adds_what_its_rows_add_in_any_order(
        (batch, shuffled) in batch().prop_flat_map(|batch| {
            let rows = Just(batch.rows.clone()).prop_shuffle();
            (Just(batch), rows)
        })
    ) {
        let whole = batch.measured(&batch.rows).state();
        let mut by_row = batch.measured(&[]);
        for row in &shuffled {
            by_row.merge(&batch.measured(std::slice::from_ref(row))).expect("alike");
        }
        prop_assert_eq!(&by_row.state(), &whole);
        prop_assert_eq!(&batch.measured(&shuffled).state(), &whole);
    }

    #[test]
    fn merging_is_commutative_and_associative_with_an_empty_neutral(
        batch in batch(), cuts in any::<[prop::sample::Index; 2]>()
    ) {
        let mut cuts = cuts.map(|cut| cut.index(batch.rows.len() + 1));
        cuts.sort_unstable();
        let [a, b, c] = [&batch.rows[..cuts[0]], &batch.rows[cuts[0]..cuts[1]], &batch.rows[cuts[1]..]]
            .map(|rows| batch.measured(rows));
        let merged = |left: &Classification, right: &Classification| {
            let mut left = left.clone();
            left.merge(right).expect("alike");
            left
        };
        prop_assert_eq!(merged(&a, &b).state(), merged(&b, &a).state());
        prop_assert_eq!(merged(&merged(&a, &b), &c).state(), merged(&a, &merged(&b, &c)).state());
        prop_assert_eq!(merged(&a, &batch.measured(&[])).state(), a.state());
    }

    #[test]
    fn a_bad_batch_leaves_the_state_untouched(
        batch in batch().prop_filter("needs a row", |batch| !batch.rows.is_empty()),
        place in any::<prop::sample::Index>(),
        bad in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
    ) {
        let mut meter = batch.measured(&batch.rows);
        let before = meter.state();
        let logits: Vec<f32> = batch.rows.iter().flat_map(|(logits, _)| logits.clone()).collect();
        let targets: Vec<i64> = batch.rows.iter().map(|&(_, target)| target).collect();

        let cell = place.index(logits.len());
        let mut broken = logits.clone();
        broken[cell] = bad;
        let error = meter.update(&broken, &targets).expect_err("a bad logit");
        let at = (cell / batch.classes, cell % batch.classes);
        let is_there = matches!(error, Error::Logit { row, column, .. } if (row, column) == at);
        prop_assert!(is_there);

        let row = place.index(targets.len());
        for wrong in [-1, batch.classes as i64, i64::MIN, i64::MAX] {
            let mut broken = targets.clone();
            broken[row] = wrong;
            let error = meter.update(&logits, &broken).expect_err("a bad target");
            let expected = Error::Target { row, value: wrong, classes: batch.classes };
            prop_assert_eq!(error, expected);
        }
        let error = meter.update(&logits[1..], &targets).expect_err("a missing logit");
        let is_length = matches!(error, Error::Length { .. });
        prop_assert!(is_length);
        prop_assert_eq!(meter.state(), before);
    }

    #[test]
    fn the_state_round_trips(batch in batch()) {
        let meter = batch.measured(&batch.rows);
        prop_assert_eq!(Classification::from_state(&meter.state()), Ok(meter));
    }

    #[test]
    fn a_hostile_state_is_refused_without_a_panic(
        classes in 0_usize..5, topk in vec(0_usize..6, 0..3), samples in -2_i64..4,
        confusion in vec(-1_i64..3, 0..17), hits in vec(-1_i64..4, 0..3), top in any::<i64>(),
    ) {
        let mut nll = ExactSum::new().chunks();
        nll[66] = top;
        let nll_squared = ExactSum::new().chunks();
        let (scores, reliability) = (vec![0; 8], Vec::new());
        let state = ClassificationState {
            classes, topk, bins: 15, samples, left_out: 0, confusion, hits, nll, nll_squared, scores, reliability,
        };
        if let Ok(meter) = Classification::from_state(&state) {
            prop_assert_eq!(meter.state(), state);
        }
    }
}

#[test]
fn every_damage_to_a_state_is_named() {
    let mut meter = Classification::new(3, &[1, 3]).expect("valid shape");
    meter
        .update(&[0.0, 1.0, 2.0, 5.0, 1.0, 0.0], &[1, 0])
        .expect("valid batch");
    let damages: [(&str, Damage); 17] = [
        ("samples", |state| state.samples = -1),
        ("samples", |state| state.samples = i64::MAX),
        ("confusion", |state| state.samples = 3),
        ("confusion", |state| state.confusion.truncate(8)),
        ("confusion", |state| state.confusion[4] = -1),
        ("hits", |state| state.hits.push(1)),
        ("hits", |state| state.hits[0] = 2),
        ("hits", |state| state.hits[1] = 1),
        ("topk", |state| state.topk.reverse()),
        ("nll", |state| state.nll[0] = -1),
        ("nll", |state| state.nll[66] = -1),
        ("nll_squared", |state| state.nll_squared.truncate(3)),
        ("left_out", |state| state.left_out = -1),
        ("scores", |state| state.scores.truncate(7)),
        ("scores", |state| state.scores[0] = 5),
        ("reliability", |state| state.reliability.truncate(9)),
        ("reliability", |state| state.reliability[1] = 2),
    ];
    for (name, damage) in damages {
        let mut state = meter.state();
        damage(&mut state);
        let error = Classification::from_state(&state).expect_err(name);
        assert!(
            matches!(error, Error::State { field, .. } if field == name),
            "{name}: {error}"
        );
    }
}

#[test]
fn shapes_that_cannot_be_measured_are_refused() {
    for classes in [0, 1, MAX_CLASSES + 1, usize::MAX] {
        assert!(matches!(
            Classification::new(classes, &[1]),
            Err(Error::Classes { .. })
        ));
    }
    assert_eq!(
        Classification::new(3, &[4]),
        Err(Error::TopK { k: 4, classes: 3 })
    );
    assert_eq!(
        Classification::new(3, &[0]),
        Err(Error::TopK { k: 0, classes: 3 })
    );
    assert_eq!(
        Classification::new(3, &[2, 1, 2]),
        Err(Error::TopKRepeated { k: 2 })
    );
}

#[test]
fn only_meters_made_alike_merge() {
    let mut meter = Classification::new(3, &[1]).expect("valid shape");
    for other in [
        Classification::new(4, &[1]),
        Classification::new(3, &[1, 2]),
    ] {
        let error = meter
            .merge(&other.expect("valid shape"))
            .expect_err("unlike");
        assert!(matches!(error, Error::Unlike { .. }));
    }
}

#[test]
fn double_logits_up_to_the_limit_have_a_finite_squared_loss() {
    let mut meter = Classification::new(2, &[1]).expect("valid shape");
    meter.update(&[1e140, -1e140], &[1]).expect("valid batch");
    assert!(meter.nll_squared().value().is_finite());
    let error = meter
        .update(&[1e151, 0.0], &[0])
        .expect_err("beyond the limit");
    assert!(matches!(
        error,
        Error::Logit {
            row: 0,
            column: 0,
            ..
        }
    ));
}

#[test]
fn messages_name_the_place_the_value_and_the_remedy() {
    let mut meter = Classification::new(3, &[1]).expect("valid shape");
    let nan = meter
        .update(&[0.0, 0.0, f32::NAN], &[0])
        .expect_err("nan")
        .to_string();
    assert!(
        nan.starts_with("`logits` holds NaN in row 0, column 2"),
        "{nan}"
    );
    let target = meter
        .update(&[0.0_f32; 3], &[3])
        .expect_err("range")
        .to_string();
    assert!(
        target.starts_with("`targets` holds 3 in row 0: with 3 classes"),
        "{target}"
    );
}
