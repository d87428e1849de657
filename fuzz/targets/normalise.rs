//! Whatever a text hides, normalising never loses a finding, and spans lie in the text as it was written.
//!
//! The input is the text; the rules are those of the pack that comes with flyball.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use flyball_core::scan::{Hit, Normalise, Options, Pack, Scanner, Scratch, characters, windows};
use libfuzzer_sys::fuzz_target;

static SCANNERS: LazyLock<[Scanner; 3]> = LazyLock::new(|| {
    let shelf = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../python/flyball/scan/packs"
    ));
    [Normalise::None, Normalise::Unicode, Normalise::Full].map(|normalise| {
        let pack = Pack::load(&shelf.join("default.toml"), Some(shelf)).expect("our own pack");
        let options = Options {
            normalise,
            ..Options::default()
        };
        Scanner::new(pack, options).expect("our own pack")
    })
});

fuzz_target!(|text: &[u8]| {
    let mut scratch = Scratch::default();
    let length = characters(text);
    for scanner in &*SCANNERS {
        let hits = scanner.hits(text, &mut scratch).to_vec();
        let plain: Vec<Hit> = hits.iter().copied().filter(|hit| !hit.obfuscated).collect();
        assert_eq!(plain, scanner.hits_by_automata(text));
        let findings = scanner.findings(text, &hits, &mut scratch);
        for finding in &findings {
            assert!(finding.start < finding.end && finding.end <= length);
        }
        let mut named: Vec<u16> = findings.iter().map(|finding| finding.rule).collect();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named, hits.iter().map(|hit| hit.rule).collect::<Vec<_>>());
    }
    let last = *windows(text, 16).last().expect("at least one");
    assert_eq!(last.end, text.len());
});
