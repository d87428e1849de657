//! What the detector promises, over generated losses and norms.

use flyball_core::vitals::{Config, Detector, Level, Observation, Reasons, State, Verdict};
use proptest::prelude::*;

/// The `SplitMix64` of Steele, Lea and Flood (2014): the same numbers on every machine.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((z >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Student's t with three degrees of freedom.
    fn student(&mut self) -> f64 {
        let squares: f64 = (0..3).map(|_| self.gaussian().powi(2)).sum();
        self.gaussian() / (squares / 3.0).sqrt()
    }

    fn log_gaussian(&mut self, sigma: f64) -> f64 {
        (sigma * self.gaussian()).exp()
    }
}

fn detector() -> Detector {
    Detector::new(Config::default()).expect("the defaults are valid")
}

fn see(detector: &mut Detector, loss: f64, norm: Option<f64>) -> Verdict {
    let observation = Observation {
        loss,
        norm,
        ..Observation::default()
    };
    detector.observe(&observation).expect("no negative norm")
}

/// Refused steps among so many draws of a loss and, where it is positive, of a norm like it.
fn alarms(draws: u32, mut draw: impl FnMut(&mut Noise) -> f64) -> u32 {
    let mut noise = Noise(7);
    let mut detector = detector();
    let mut refused = 0;
    for _ in 0..draws {
        let (loss, norm) = (draw(&mut noise), draw(&mut noise));
        let verdict = see(&mut detector, loss, (norm >= 0.0).then_some(norm));
        refused += u32::from(verdict.level >= Level::Anomaly);
    }
    refused
}

#[test]
fn property_09_false_alarms_stay_within_the_budget() {
    // Tails of the coordinate that are no heavier than exponential: the target is 0.1 in 10,000.
    assert!(alarms(300_000, |n| (2.0 + 0.3 * n.gaussian()).max(0.0)) <= 3);
    assert!(alarms(300_000, |n| 2.3 * n.log_gaussian(0.1)) <= 3);
    assert!(alarms(100_000, |n| n.log_gaussian(0.5)) <= 2);
    assert!(alarms(100_000, |n| n.log_gaussian(1.0)) <= 2);
    assert!(alarms(100_000, |n| -n.uniform().ln()) <= 2);
}

#[test]
fn property_09_heavier_tails_are_over_the_budget_by_so_much() {
    // No better is claimed: 10 seeds gave 96, 49 and 490 in 100,000 draws.
    assert!(alarms(100_000, |n| n.uniform().powf(-1.0 / 1.5)) <= 200);
    assert!(alarms(100_000, |n| (0.1 * n.student()).exp()) <= 100);
    assert!(alarms(100_000, Noise::student) <= 1500);
}

/// Steps from the start of a growth by this factor to the first alarm, after 200 clean steps.
fn steps_to_alarm(factor: f64, seed: u64) -> u32 {
    let mut noise = Noise(77 * seed);
    let mut detector = detector();
    for _ in 0..200 {
        see(&mut detector, 2.3 * noise.log_gaussian(0.1), None);
    }
    let mut level = 2.3;
    (1..=1000)
        .find(|_| {
            level *= factor;
            let verdict = see(&mut detector, level * noise.log_gaussian(0.1), None);
            verdict.level >= Level::Anomaly
        })
        .unwrap_or(u32::MAX)
}

#[test]
fn property_07_growth_is_found() {
    // The worst of 20 seeds, with a quarter to spare.
    for (factor, measured) in [
        (1.005, 246),
        (1.01, 137),
        (1.02, 80),
        (1.05, 42),
        (1.1, 8),
        (1.3, 4),
        (1.6, 3),
        (2.0, 2),
    ] {
        let worst = (0..20).map(|seed| steps_to_alarm(factor, seed)).max();
        let allowed = measured + measured / 4;
        assert!(worst <= Some(allowed), "x{factor}: {worst:?} steps");
    }
}

/// An explosion that lasts, after so many clean steps: what is said of its first five steps.
fn explosion(factor: f64, after: u32, with_norm: bool, seed: u64) -> Vec<Level> {
    let mut noise = Noise(991 * seed);
    let mut detector = detector();
    let mut step = |factor: f64| {
        let loss = factor * noise.log_gaussian(0.1);
        let norm = with_norm.then(|| factor * noise.log_gaussian(0.1));
        see(&mut detector, loss, norm).level
    };
    for _ in 0..after {
        assert_eq!(step(1.0), Level::Ok);
    }
    (0..5).map(|_| step(factor)).collect()
}

#[test]
fn the_second_step_already_has_a_ceiling() {
    let refused = [vec![Level::Anomaly; 4], vec![Level::Panic]].concat();
    for seed in 0..20 {
        for after in 1..20 {
            assert_eq!(explosion(20.0, after, false, seed), refused);
            assert_eq!(explosion(20.0, after, true, seed), refused);
        }
        // A smaller one needs the norm as a second witness, and a scale that is learnt in part.
        for after in 12..20 {
            assert_eq!(explosion(5.0, after, true, seed), refused);
        }
    }
}

#[test]
fn property_06_a_poisoned_start_still_finds_the_explosion() {
    // Nearly half poisoned, the median of the first eight values may be: 174 and 196 of 200.
    for (share, least) in [(0.45, 160), (0.30, 190)] {
        let found = (0..200)
            .filter(|&seed| {
                let mut noise = Noise(13 * seed + 5);
                let mut detector = detector();
                for step in 0..60 {
                    let poisoned = step < 20 && noise.uniform() < share;
                    let factor = if poisoned { 1e6 } else { 1.0 };
                    see(&mut detector, factor * noise.log_gaussian(0.1), None);
                }
                see(&mut detector, 1e3, None).level >= Level::Anomaly
            })
            .count();
        assert!(found >= least, "{found} of 200 with {share} poisoned");
    }
}

/// Observations of every kind, NaN, zeros and other signs among them.
fn losses() -> impl Strategy<Value = Vec<(f64, Option<f64>)>> {
    let kind = prop_oneof![
        8 => 0.5..4.0,
        1 => Just(0.0),
        1 => 1e3..1e9,
        1 => -3.0..3.0,
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::MAX)],
    ];
    let norm = prop_oneof![
        1 => Just(None),
        8 => (0.1..2.0).prop_map(Some),
        1 => prop_oneof![Just(0.0), Just(f64::NAN), Just(1e8)].prop_map(Some),
    ];
    prop::collection::vec((kind, norm), 1..150)
}

fn bits(verdict: &Verdict) -> String {
    format!("{verdict:?}")
}

fn arbitrary_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        Just(0.0),
        Just(f64::NAN),
        Just(f64::MAX),
        -2.0..2.0,
        Just(-1e150),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn property_10_saved_and_restored_goes_on_as_if_never_stopped(
        before in losses(),
        after in losses(),
        shift in 0_usize..20,
    ) {
        let mut one = detector();
        for &(loss, norm) in &before {
            see(&mut one, loss, norm);
        }
        if shift > 0 {
            one.expect_shift(shift).expect("within the window");
        }
        let state = one.state();
        let mut other = Detector::from_state(Config::default(), &state).expect("its own state");
        prop_assert_eq!(format!("{:?}", other.state()), format!("{state:?}"));
        for &(loss, norm) in &after {
            let (a, b) = (see(&mut one, loss, norm), see(&mut other, loss, norm));
            prop_assert_eq!(bits(&a), bits(&b));
        }
        prop_assert_eq!(one.state(), other.state());
    }

    #[test]
    fn a_state_is_finite_whatever_was_observed(steps in losses()) {
        let mut detector = detector();
        for &(loss, norm) in &steps {
            see(&mut detector, loss, norm);
            let text = format!("{:?}", detector.state());
            prop_assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }

    /// One part of a real state is replaced by anything: it is refused, or it works.
    #[test]
    fn a_hostile_state_never_panics(
        steps in losses(),
        part in 0_usize..16,
        number in arbitrary_number(),
        count in any::<u32>(),
        after in losses(),
    ) {
        let mut detector = detector();
        for &(loss, norm) in &steps {
            see(&mut detector, loss, norm);
        }
        let mut state: State = detector.state();
        match part {
            0 => state.loss.level = number,
            1 => state.loss.fast = number,
            2 => state.loss.first.push(number),
            3 => state.loss.lows = vec![number; (count % 5) as usize],
            4 => state.loss.accepted = u64::from(count).wrapping_mul(1 << 40),
            5 => state.norm.signed = true,
            6 => state.loss.signed = !state.loss.signed,
            7 => state.slow.mean = number,
            8 => state.slow.drawdown = count,
            9 => state.run = number,
            10 => state.windows = vec![vec![number; (count % 700) as usize]; (count % 6) as usize],
            11 => state.delay = vec![vec![Some(number); (count % 6) as usize]; (count % 9) as usize],
            12 => state.held = vec![vec![Some(number), None]; (count % 700) as usize],
            13 => state.refused = vec![count % 200, count >> 25],
            14 => (state.streak, state.expected, state.amp_skips) = (count, count, count),
            _ => (state.observed, state.hot, state.learning) = (u64::MAX, count, count % 80),
        }
        if let Ok(mut restored) = Detector::from_state(Config::default(), &state) {
            for &(loss, norm) in &after {
                let verdict = see(&mut restored, loss, norm);
                prop_assert!(!verdict.rho.is_nan());
            }
            let again = Detector::from_state(Config::default(), &restored.state());
            prop_assert!(again.is_ok(), "{:?}", again.err());
        }
    }
}

#[test]
fn a_negative_norm_or_ratio_is_an_error_and_changes_nothing() {
    let mut detector = detector();
    see(&mut detector, 1.0, Some(1.0));
    let before = detector.state();
    let wrong = [
        Observation {
            norm: Some(-1.0),
            ..Observation::default()
        },
        Observation {
            update_ratio: &[0.1, -0.1],
            ..Observation::default()
        },
    ];
    for observation in wrong {
        assert!(detector.observe(&observation).is_err());
    }
    assert!(detector.expect_shift(0).is_err() && detector.expect_shift(513).is_err());
    assert_eq!(detector.state(), before);
}

#[test]
fn a_verdict_without_a_reason_is_ok_and_holds_nothing() {
    let verdict = see(&mut detector(), 1.0, Some(1.0));
    assert_eq!(verdict.level, Level::Ok);
    assert_eq!(verdict.reasons, Reasons::NONE);
    assert!(verdict.apply && verdict.evidence.is_empty());
}
