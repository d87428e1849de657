//! The golden cases that every backend of the classification meter must meet.

#![allow(
    clippy::cast_possible_truncation,
    reason = "the file holds values that f32 holds"
)]

use flyball_core::meters::{Classification, Logit};

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
