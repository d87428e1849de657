//! How fast the meters read: bytes of logits, and values of an exact sum.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flyball_core::meters::{Classification, ExactSum, Logit};

/// Values in -8..8 from a fixed linear congruential generator.
fn values(count: usize) -> impl Iterator<Item = f64> {
    let mut state = 1_u64;
    (0..count).map(move |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 49) as f64 - 8.0
    })
}

#[allow(clippy::cast_possible_truncation, reason = "any f32 will do")]
fn single(value: f64) -> f32 {
    value as f32
}

fn update<F: Logit>(criterion: &mut Criterion, name: &str, classes: usize, logits: &[F]) {
    let rows = logits.len() / classes;
    let targets: Vec<i64> = (0_i64..)
        .step_by(7)
        .take(rows)
        .map(|t| t % classes.cast_signed() as i64)
        .collect();
    let mut meter = Classification::new(classes, &[1, 5]).expect("valid shape");
    let mut group = criterion.benchmark_group("classification");
    group.throughput(Throughput::Bytes(size_of_val(logits) as u64));
    group.bench_function(format!("update {name} {rows}x{classes}"), |bencher| {
        bencher.iter(|| {
            meter
                .update(black_box(logits), black_box(&targets))
                .expect("valid batch");
        });
    });
    group.finish();
}

fn updates(criterion: &mut Criterion) {
    for (rows, classes) in [(128, 10), (1024, 1000)] {
        let double: Vec<f64> = values(rows * classes).collect();
        let narrow: Vec<f32> = double.iter().copied().map(single).collect();
        update(criterion, "f32", classes, &narrow);
        update(criterion, "f64", classes, &double);
    }
}

fn merge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classification");
    for classes in [10, 1000] {
        let empty = Classification::new(classes, &[1, 5]).expect("valid shape");
        let mut other = empty.clone();
        let logits: Vec<f64> = values(classes).collect();
        other.update(&logits, &[3]).expect("valid batch");
        group.throughput(Throughput::Bytes(
            (classes * classes * size_of::<u64>()) as u64,
        ));
        group.bench_function(format!("merge {classes} classes"), |bencher| {
            bencher.iter_batched_ref(
                || empty.clone(),
                |meter| meter.merge(black_box(&other)).expect("alike"),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn sums(criterion: &mut Criterion) {
    let values: Vec<f64> = values(4096).collect();
    let mut group = criterion.benchmark_group("sum");
    group.throughput(Throughput::Bytes(size_of_val(values.as_slice()) as u64));
    group.bench_function("exact", |bencher| {
        bencher.iter(|| {
            let mut sum = ExactSum::new();
            for &value in black_box(&values) {
                sum.add(value).expect("finite");
            }
            sum.value()
        });
    });
    group.bench_function("rounded", |bencher| {
        bencher.iter(|| black_box(&values).iter().sum::<f64>());
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(30)
}

criterion_group! {
    name = meters;
    config = short();
    targets = updates, merge, sums
}
criterion_main!(meters);
