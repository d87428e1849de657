//! How fast the meters read, in bytes of what they are given a second, beside a bare read of the memory (`memory`).

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flyball_core::meters::{
    Classification, Dense, ExactSum, Flags, Labels, Logit, MultiLabel, NonFinite, Ranking,
    Reliability, Scale, Text, add_products,
};

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

/// The rivals of all others: the sum of as many bytes, from the caches and from the memory.
fn memory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory");
    for (name, bytes) in [("4 MB", 4 << 20), ("256 MB", 256 << 20)] {
        let words: Vec<u64> = (0..bytes / 8).collect();
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(format!("bare read of {name}"), |bencher| {
            bencher.iter(|| {
                black_box(&words)
                    .iter()
                    .fold(0_u64, |sum, &word| sum.wrapping_add(word))
            });
        });
    }
    group.finish();
}

fn rankings(criterion: &mut Criterion) {
    const ROWS: usize = 1_000_000;
    let scores: Vec<f32> = values(ROWS).map(|x| single(x / 2.0)).collect();
    let flags: Vec<u8> = (0..ROWS).map(|row| u8::from(row % 3 == 0)).collect();
    let wide: Vec<i64> = flags.iter().map(|&flag| i64::from(flag)).collect();
    let rows = Dense::new(&scores, 1);
    let mut group = criterion.benchmark_group("ranking");
    for (name, labels, bytes) in [
        ("u8", Labels::Flags(&flags), 5),
        ("i64", Labels::WideFlags(&wide), 12),
    ] {
        group.throughput(Throughput::Bytes(bytes * ROWS as u64));
        let mut meter = Ranking::new(1, Scale::Logits).expect("a column");
        meter
            .update(&rows, labels, NonFinite::Refuse)
            .expect("valid batch");
        group.bench_function(format!("update 1M f32, labels {name}"), |bencher| {
            bencher.iter(|| {
                let updated = meter.update(black_box(&rows), labels, NonFinite::Refuse);
                updated.expect("valid batch");
            });
        });
        group.bench_function(format!("new meter, 1M f32, labels {name}"), |bencher| {
            bencher.iter(|| {
                let mut meter = Ranking::new(1, Scale::Logits).expect("a column");
                let updated = meter.update(black_box(&rows), labels, NonFinite::Refuse);
                updated.expect("valid batch");
                meter
            });
        });
    }
    let mut meter = Ranking::new(1, Scale::Logits).expect("a column");
    let updated = meter.update(&rows, Labels::Flags(&flags), NonFinite::Refuse);
    updated.expect("valid batch");
    group.bench_function("compute of 1M", |bencher| {
        bencher.iter(|| black_box(&meter).ranked());
    });
    group.finish();
}

fn others(criterion: &mut Criterion) {
    let logits: Vec<f32> = values(1024 * 1000).map(single).collect();
    let mut group = criterion.benchmark_group("other meters");
    group.throughput(Throughput::Bytes(size_of_val(logits.as_slice()) as u64));
    let flags: Vec<u8> = (0..logits.len()).map(|i| u8::from(i % 7 == 0)).collect();
    let rows = Dense::new(&logits, 1000);
    let mut labels = MultiLabel::new(1000, 0.0).expect("valid shape");
    group.bench_function("multi-label f32 1024x1000", |bencher| {
        bencher.iter(|| {
            let updated = labels.update(black_box(&rows), Flags::Narrow(&flags), NonFinite::Refuse);
            updated.expect("valid batch");
        });
    });
    let tokens: Vec<i64> = (0..1024).map(|row| row % 1000).collect();
    let mut text = Text::new(1000).expect("valid shape");
    group.bench_function("text f32 1024x1000", |bencher| {
        bencher.iter(|| {
            let updated = text.update(black_box(&rows), &tokens, None, NonFinite::Refuse);
            updated.expect("valid batch");
        });
    });
    let odds: Vec<f64> = values(1 << 16).map(f64::exp2).collect();
    group.throughput(Throughput::Bytes(size_of_val(odds.as_slice()) as u64));
    let mut reliability = Reliability::new(15).expect("valid bins");
    group.bench_function("reliability of 65536 predictions", |bencher| {
        bencher.iter(|| {
            for &against in black_box(&odds) {
                reliability.add(against, against < 1.0);
            }
        });
    });
    // What the meters of regression and spectra are made of: sums of products, exact.
    let pairs: Vec<(f64, f64)> = odds.iter().map(|&x| (x, 1.0 / x)).collect();
    group.throughput(Throughput::Bytes(size_of_val(pairs.as_slice()) as u64));
    group.bench_function("products of 65536 pairs", |bencher| {
        bencher.iter(|| {
            let mut sum = ExactSum::new();
            add_products(&mut sum, black_box(&pairs)).expect("finite");
            sum
        });
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
    targets = memory, updates, merge, sums, rankings, others
}
criterion_main!(meters);
