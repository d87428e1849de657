//! Every kernel finds what the automata find, however the texts are cut, packed and repeated.

use flyball_core::scan::{Hit, Kernel, Normalise, Options, Pack, Scanner, Scratch, batch};

fn pack() -> Pack {
    let text = include_str!("../../../python/flyball/scan/packs/default.toml");
    Pack::from_toml(text, "default.toml").expect("our own pack")
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
        let mut together = Vec::new();
        scanner.each(&bytes, &mut scratch, |hits| together.push(hits.to_vec()));
        assert_eq!(together, alone, "{:?}", scanner.kernel());
        let one = batch::scan(&scanner, &bytes, 1, || true).expect("not stopped");
        let three = batch::scan(&scanner, &bytes, 3, || true).expect("not stopped");
        assert_eq!(one, three);
        let rules: Vec<u16> = alone.iter().flatten().map(|hit| hit.rule).collect();
        assert_eq!(one.rules, rules);
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
