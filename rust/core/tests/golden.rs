//! The golden cases that every backend of the classification meter must meet.

#![allow(
    clippy::cast_possible_truncation,
    reason = "the file holds values that f32 holds"
)]

use flyball_core::meters::{
    Classification, Dense, Flags, LabelCounts, Labels, Logit, MultiLabel, NonFinite, Ranking,
    Reliability, Scale, Text,
};

#[derive(serde::Deserialize)]
struct Golden {
    case: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    classes: usize,
    topk: Vec<usize>,
    logits: Vec<Vec<f64>>,
    targets: Vec<i64>,
    confusion: Vec<[u64; 3]>,
    hits: Vec<u64>,
    nll: f64,
}

fn check<F: Logit>(case: &Case, logits: &[F], tolerance: f64) {
    let mut meter = Classification::new(case.classes, &case.topk).expect("valid shape");
    meter.update(logits, &case.targets).expect("valid batch");
    let mut cells = Vec::new();
    for (row, counts) in (0..).zip(meter.confusion().chunks_exact(case.classes)) {
        for (column, &count) in (0..).zip(counts).filter(|(_, count)| **count > 0) {
            cells.push([row, column, count]);
        }
    }
    assert_eq!(cells, case.confusion, "{}", case.name);
    assert_eq!(meter.hits(), case.hits, "{}", case.name);
    let error = (meter.nll().value() - case.nll).abs();
    assert!(
        error <= tolerance * (1.0 + case.nll),
        "{}: off by {error:e}",
        case.name
    );
}

#[test]
fn both_widths_meet_every_golden_case() {
    let text = include_str!("../../../tests/golden/classification.toml");
    let golden: Golden = toml::from_str(text).expect("valid file");
    assert!(!golden.case.is_empty());
    for case in &golden.case {
        let double: Vec<f64> = case.logits.concat();
        let single: Vec<f32> = double.iter().map(|&x| x as f32).collect();
        // 1e30 is allowed in f64, too, as its square is a number.
        check(case, &double, 1e-12);
        check(case, &single, 2e-6);
    }
}

#[derive(serde::Deserialize)]
struct Rankings {
    case: Vec<RankingCase>,
}

#[derive(serde::Deserialize)]
struct RankingCase {
    name: String,
    scale: String,
    scores: Vec<f64>,
    labels: Vec<u8>,
    auroc: Option<f64>,
    average_precision: Option<f64>,
}

#[test]
fn rankings_meet_every_golden_case() {
    let text = include_str!("../../../tests/golden/ranking.toml");
    let golden: Rankings = toml::from_str(text).expect("valid file");
    for case in &golden.case {
        let scale = match case.scale.as_str() {
            "logits" => Scale::Logits,
            _ => Scale::Probabilities,
        };
        let mut meter = Ranking::new(1, scale).expect("a column");
        let rows = Dense::new(&case.scores, 1);
        meter
            .update(&rows, Labels::Flags(&case.labels), NonFinite::Refuse)
            .expect("valid batch");
        let ranked = meter.ranked()[0];
        for (value, expected) in [
            (ranked.auroc, case.auroc),
            (ranked.average_precision, case.average_precision),
        ] {
            let close =
                expected.map_or(value.is_nan(), |expected| (value - expected).abs() <= 1e-15);
            assert!(close, "{}: {value}", case.name);
        }
    }
}

#[derive(serde::Deserialize)]
struct MultiLabels {
    case: Vec<MultiLabelCase>,
}

#[derive(serde::Deserialize)]
struct MultiLabelCase {
    name: String,
    labels: usize,
    #[serde(default)]
    threshold: f64,
    logits: Vec<f64>,
    targets: Vec<u8>,
    subset_accuracy: Option<f64>,
    samples_f1: Option<f64>,
    counts: Vec<u64>,
}

#[test]
fn labels_meet_every_golden_case() {
    let text = include_str!("../../../tests/golden/multi_label.toml");
    let golden: MultiLabels = toml::from_str(text).expect("valid file");
    for case in &golden.case {
        let mut double = MultiLabel::new(case.labels, case.threshold).expect("valid");
        let mut single = double.clone();
        let narrow: Vec<f32> = case.logits.iter().map(|&x| x as f32).collect();
        let flags = Flags::Narrow(&case.targets);
        double
            .update(
                &Dense::new(&case.logits, case.labels),
                flags,
                NonFinite::Refuse,
            )
            .expect("valid batch");
        single
            .update(&Dense::new(&narrow, case.labels), flags, NonFinite::Refuse)
            .expect("valid batch");
        assert_eq!(double, single, "{}", case.name);
        let column = |of: fn(&LabelCounts) -> u64| double.counts().iter().map(of);
        let counts: Vec<u64> = column(|one| one.positives)
            .chain(column(|one| one.predicted))
            .chain(column(|one| one.hits))
            .collect();
        assert_eq!(counts, case.counts, "{}", case.name);
        let samples = double.samples() as f64;
        for (sum, expected) in [
            (double.rows().exact as f64, case.subset_accuracy),
            (double.rows().shares[4].value(), case.samples_f1),
        ] {
            if let Some(expected) = expected {
                assert!((sum / samples - expected).abs() <= 1e-15, "{}", case.name);
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Texts {
    case: Vec<TextCase>,
}

#[derive(serde::Deserialize)]
struct TextCase {
    name: String,
    vocabulary: usize,
    logits: Vec<f64>,
    targets: Vec<i64>,
    loss: Option<f64>,
    hits: u64,
    counted: [u64; 2],
}

#[test]
fn texts_meet_every_golden_case() {
    let text = include_str!("../../../tests/golden/text.toml");
    let golden: Texts = toml::from_str(text).expect("valid file");
    for case in &golden.case {
        let mut meter = Text::new(case.vocabulary).expect("valid");
        let rows = Dense::new(&case.logits, case.vocabulary);
        meter
            .update(&rows, &case.targets, Some(-100), NonFinite::Refuse)
            .expect("valid batch");
        let [tokens, ignored, _, hits] = meter.counts();
        assert_eq!(
            ([tokens, ignored], hits),
            (case.counted, case.hits),
            "{}",
            case.name
        );
        if let Some(loss) = case.loss {
            let ours = meter.losses().0.value() / tokens as f64;
            assert!((ours - loss).abs() <= 1e-12, "{}: {ours}", case.name);
        }
    }
}

#[derive(serde::Deserialize)]
struct Calibrations {
    case: Vec<CalibrationCase>,
}

#[derive(serde::Deserialize)]
struct CalibrationCase {
    name: String,
    bins: usize,
    odds: Vec<f64>,
    right: Vec<u8>,
    ece: Option<f64>,
}

#[test]
fn calibrations_meet_every_golden_case() {
    let text = include_str!("../../../tests/golden/calibration.toml");
    let golden: Calibrations = toml::from_str(text).expect("valid file");
    for case in &golden.case {
        let mut reliability = Reliability::new(case.bins).expect("valid");
        for (&odds, &right) in case.odds.iter().zip(&case.right) {
            reliability.add(odds, right == 1);
        }
        let gap: f64 = reliability
            .bins()
            .iter()
            .map(|bin| (bin.confidence.value() - bin.hits as f64).abs())
            .sum();
        if let Some(ece) = case.ece {
            let ours = gap / case.odds.len() as f64;
            assert!((ours - ece).abs() <= 1e-12, "{}: {ours}", case.name);
        } else {
            assert!(case.odds.is_empty(), "{}", case.name);
        }
    }
}
