//! Every kernel finds what the automata find, however the texts are cut, packed and repeated.

use flyball_core::scan::{
    Hit, Judge, Kernel, Normalise, Options, Pack, Rule, Scanner, Scratch, Severity, Source, batch,
};
use proptest::prelude::*;

fn pack() -> Pack {
    let shelf = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../python/flyball/scan/packs"
    );
    let path = std::path::Path::new(shelf).join("default.toml");
    Pack::load(&path, Some(shelf.as_ref())).expect("our own pack")
}

/// The examples of the pack, and what is hard about them.
fn texts() -> Vec<String> {
    let mut texts = vec![String::new(), " ".into(), "\n".into()];
    let pack = pack();
    let examples: Vec<&String> = pack
        .rules()
        .iter()
        .flat_map(|rule| rule.matches.iter().chain(&rule.misses))
        .collect();
    for (place, text) in examples.iter().enumerate() {
        texts.push((*text).clone());
        texts.push(text.to_uppercase());
        texts.push(text.replace('s', "ſ").replace('k', "\u{212a}"));
        texts.push(format!("é{text}é"));
        texts.push(format!("«{text}»\n"));
        texts.push(
            examples
                .iter()
                .cycle()
                .skip(place)
                .take(9)
                .map(|text| text.as_str())
                .collect::<Vec<_>>()
                .join(". "),
        );
    }
    // A text of every length around the borders of a vector and a tile, with a match at its end.
    for length in [
        0, 1, 31, 32, 33, 62, 63, 64, 65, 127, 128, 8100, 8126, 8127, 8128, 8190, 8191, 8192, 8193,
        20_000,
    ] {
        for filler in ["y", "é", " ", "kill "] {
            texts.push(format!("{} how to kill someone", filler.repeat(length)));
            texts.push(format!(
                "{}how to kill someone{}",
                filler.repeat(length),
                filler.repeat(length / 2)
            ));
        }
    }
    texts
}

/// The hits of each text.
fn lists(found: &[(usize, Hit)], texts: usize) -> Vec<Vec<Hit>> {
    let mut lists = vec![Vec::new(); texts];
    for &(text, hit) in found {
        lists[text].push(hit);
    }
    lists
}

fn kernels() -> impl Iterator<Item = Scanner> {
    let here = Kernel::ALL.into_iter().filter(|kernel| kernel.is_here());
    here.map(|kernel| {
        Scanner::new(
            pack(),
            Options {
                kernel,
                normalise: Normalise::None,
            },
        )
        .expect("our own pack")
    })
}

#[test]
fn every_kernel_finds_what_the_automata_find() {
    let texts = texts();
    for scanner in kernels() {
        let mut scratch = Scratch::default();
        for text in &texts {
            let wanted = scanner.hits_by_automata(text.as_bytes());
            let found = scanner.hits(text.as_bytes(), &mut scratch);
            assert_eq!(found, wanted, "{:?} {:.300}", scanner.kernel(), text);
        }
    }
}

#[test]
fn texts_scanned_together_are_texts_scanned_alone() {
    let texts = texts();
    let bytes: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
    for scanner in kernels() {
        let mut scratch = Scratch::default();
        let alone: Vec<Vec<Hit>> = bytes
            .iter()
            .map(|text| scanner.hits(text, &mut scratch).to_vec())
            .collect();
        let together = lists(scanner.all(&bytes, &mut scratch), bytes.len());
        assert_eq!(together, alone, "{:?}", scanner.kernel());
        let options = Options {
            kernel: scanner.kernel(),
            ..Options::default()
        };
        let judge = Judge::new(pack(), options).expect("our own pack");
        let one = batch::scan(&judge, &bytes, 1, || true).expect("not stopped");
        let three = batch::scan(&judge, &bytes, 3, || true).expect("not stopped");
        assert_eq!(one, three);
        for (place, text) in bytes.iter().enumerate() {
            let verdict = judge.verdict(text, &mut scratch);
            let mut rules: Vec<u16> = verdict.found.iter().map(|found| found.rule).collect();
            rules.sort_unstable();
            rules.dedup();
            assert_eq!(
                (one.row(place), one.flagged[place]),
                (&rules[..], verdict.flagged)
            );
        }
    }
}

#[test]
fn bytes_that_are_no_text_are_scanned_like_others() {
    let mut state = 7_u64;
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_le_bytes()[5]
    };
    for scanner in kernels() {
        let mut scratch = Scratch::default();
        for length in [1, 5, 64, 300, 9000, 20_000] {
            let mut text: Vec<u8> = (0..length)
                .map(|_| {
                    if next() < 60 {
                        next()
                    } else {
                        b'a' + next() % 26
                    }
                })
                .collect();
            text.extend(b" how to kill someone ");
            text.extend((0..length).map(|_| 0x80 | next()));
            let wanted = scanner.hits_by_automata(&text);
            assert_eq!(
                scanner.hits(&text, &mut scratch),
                wanted,
                "{:?}",
                scanner.kernel()
            );
            assert!(!wanted.is_empty());
        }
    }
}

#[test]
fn a_kernel_that_is_not_here_is_an_error() {
    for kernel in Kernel::ALL.into_iter().filter(|kernel| !kernel.is_here()) {
        assert!(
            Scanner::new(
                pack(),
                Options {
                    kernel,
                    normalise: Normalise::None
                }
            )
            .is_err()
        );
    }
}

/// `FLYBALL_FUZZ=1000000 cargo test --release -p flyball-core --test scan` runs for as long as one likes.
fn cases() -> ProptestConfig {
    let cases = std::env::var("FLYBALL_FUZZ")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(64);
    ProptestConfig {
        failure_persistence: None,
        max_global_rejects: 100_000_000, // of random pieces every second pattern is none
        ..ProptestConfig::with_cases(cases)
    }
}

/// Pieces of patterns; what they make together is often a pattern, and often refused.
fn pattern() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "kill", "steal", "a", "the", "(?:", ")", "|", "?", "*", "+", "{1,3}", "{0,40}", r"\b",
        r"\w", r"\s+", r"\d", ".", "[a-f]", "[^x]", "é", "к", "^", "$", r"\B", "-", "@", "(", "[",
        "]", "{", r"\", "&&", "(?i)", r"\x41", "(?=",
    ]);
    prop::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat())
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec!["kill", "steal", "the", "a", " ", "\n", "é", "к", "@", "-", "ſ", "x"]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
        1 => (any::<u8>(), 0_usize..9000).prop_map(|(byte, count)| vec![byte; count]),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_bytes_are_a_pack_or_are_refused(
        text in prop_oneof![
            any::<String>(),
            (any::<String>(), pattern()).prop_map(|(name, pattern)| {
                format!("[pack]\nname = {name:?}\nversion = '1'\n[[rule]]\nid = 'a'\ncategory = 'c'\npattern = '''{pattern}'''\n")
            }),
        ]
    ) {
        if let Ok(pack) = Pack::from_toml(&text, "fuzz", None) {
            prop_assert_eq!(pack.rules().len(), 1);
        }
    }

    #[test]
    fn every_kernel_finds_what_the_automata_find_for_any_rules(
        patterns in prop::collection::vec(pattern(), 1..6),
        texts in prop::collection::vec(text(), 1..4),
    ) {
        let rule = |(place, pattern): (usize, &String)| Rule {
            id: place.to_string(),
            category: "c".into(),
            severity: Severity::Low,
            source: Source::Pattern(pattern.clone()),
            ..Rule::default()
        };
        let alone = |one: &Rule| Pack::new("p", "1", vec![one.clone()]).is_ok();
        let rules: Vec<Rule> = patterns.iter().enumerate().map(rule).filter(alone).collect();
        prop_assume!(!rules.is_empty());
        let pack = Pack::new("p", "1", rules).expect("each is accepted");
        let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_here()) {
            for normalise in [Normalise::None, Normalise::Full] {
                let Ok(scanner) = Scanner::new(pack.clone(), Options { kernel, normalise }) else { continue };
                let mut scratch = Scratch::default();
                let found = lists(scanner.all(&texts, &mut scratch), texts.len());
                for (text, hits) in texts.iter().zip(&found) {
                    let plain: Vec<Hit> = hits.iter().copied().filter(|hit| !hit.obfuscated).collect();
                    prop_assert_eq!(&plain, &scanner.hits_by_automata(text), "{:?} {:?}", kernel, patterns);
                    let findings = scanner.findings(text, hits, &mut scratch);
                    let mut named: Vec<u16> = findings.iter().map(|finding| finding.rule).collect();
                    named.sort_unstable();
                    named.dedup();
                    prop_assert_eq!(named, hits.iter().map(|hit| hit.rule).collect::<Vec<_>>());
                }
            }
        }
    }
}

#[test]
fn what_holds_before_a_word_is_not_taken_to_hold_behind_it() {
    let toml = "[pack]\nname = 'p'\nversion = '1'\n[[rule]]\nid = 'task'\ncategory = 'c'\npattern = '\\btask\\b'";
    let pack = Pack::from_toml(toml, "p.toml", None).expect("a pattern");
    for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_here()) {
        let options = Options {
            kernel,
            normalise: Normalise::None,
        };
        let scanner = Scanner::new(pack.clone(), options).expect("a kernel that is here");
        let mut scratch = Scratch::default();
        for (text, wanted) in [
            ("TASKof", false),
            ("a task", true),
            ("atask", false),
            ("", false),
        ] {
            assert_eq!(
                !scanner.hits(text.as_bytes(), &mut scratch).is_empty(),
                wanted,
                "{kernel:?} {text}"
            );
        }
    }
}
