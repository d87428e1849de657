//! What one observation costs: a healthy step with full windows, a refused one, and the start.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flyball_core::vitals::{Config, Detector, Level, Observation, exp, ln};

/// Pairs of a loss and a norm with log-noise of 0.1, nearly Gaussian, from a fixed generator.
fn steps(count: usize) -> Vec<(f64, f64)> {
    let mut state = 1_u64;
    let mut uniform = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut gaussian = move || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
    let mut noisy = move |level: f64| level * (0.1 * gaussian()).exp();
    (0..count).map(|_| (noisy(2.3), noisy(0.8))).collect()
}

fn observation((loss, norm): (f64, f64)) -> Observation<'static> {
    Observation {
        loss,
        norm: Some(norm),
        ..Observation::default()
    }
}

fn warm(steps: &[(f64, f64)]) -> Detector {
    let mut detector = Detector::new(Config::default()).expect("valid defaults");
    for &step in steps {
        detector
            .observe(&observation(step))
            .expect("positive norms");
    }
    detector
}

fn observe(criterion: &mut Criterion) {
    let steps = steps(4096);
    let mut group = criterion.benchmark_group("vitals");
    group.throughput(Throughput::Elements(1));

    let mut detector = warm(&steps);
    let mut next = steps.iter().cycle();
    group.bench_function("healthy step", |bencher| {
        bencher.iter(|| {
            let step = *next.next().expect("a cycle");
            detector.observe(black_box(&observation(step)))
        });
    });

    let mut next = steps.iter().cycle();
    let mut detector = warm(&steps);
    group.bench_function("healthy step without a norm", |bencher| {
        bencher.iter(|| {
            let (loss, _) = *next.next().expect("a cycle");
            detector.observe(black_box(&Observation {
                loss,
                ..Observation::default()
            }))
        });
    });

    let warmed = warm(&steps);
    let verdict = warmed.clone().observe(&observation((50.0, 20.0)));
    assert_eq!(verdict.expect("a positive norm").level, Level::Anomaly);
    group.bench_function("refused step", |bencher| {
        bencher.iter_batched_ref(
            || warmed.clone(),
            |detector| detector.observe(black_box(&observation((50.0, 20.0)))),
            BatchSize::SmallInput,
        );
    });
    group.finish();

    let mut group = criterion.benchmark_group("vitals state");
    group.bench_function("save", |bencher| bencher.iter(|| warmed.state()));
    let state = warmed.state();
    group.bench_function("restore", |bencher| {
        bencher.iter(|| Detector::from_state(Config::default(), black_box(&state)));
    });
    group.finish();
}

fn arithmetic(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("arithmetic");
    group.bench_function("ln", |bencher| bencher.iter(|| ln(black_box(2.345))));
    group.bench_function("std ln", |bencher| {
        bencher.iter(|| black_box(2.345_f64).ln());
    });
    group.bench_function("exp", |bencher| bencher.iter(|| exp(black_box(2.345))));
    group.bench_function("std exp", |bencher| {
        bencher.iter(|| black_box(2.345_f64).exp());
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
    name = vitals;
    config = short();
    targets = observe, arithmetic
}
criterion_main!(vitals);
