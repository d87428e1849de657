//! Every kernel finds what the automata find, for any rules and any bytes.
//!
//! The input is patterns, one a line, an empty line, and texts, with 0x1E between them.

#![no_main]

use std::fmt::Write as _;

use flyball_core::scan::{Hit, Kernel, Normalise, Options, Pack, Scanner, Scratch};
use libfuzzer_sys::fuzz_target;

/// A pack of one rule for each pattern; patterns that are refused are left out.
fn pack(patterns: &str) -> Option<Pack> {
    let head = "[pack]\nname = 'fuzz'\nversion = '1'\n";
    let mut whole = head.to_owned();
    for (place, pattern) in patterns.lines().take(8).enumerate() {
        let mut rule = format!("[[rule]]\nid = '{place}'\ncategory = 'c'\npattern = \"");
        for char in pattern.chars() {
            let _ = write!(rule, "\\U{:08X}", u32::from(char));
        }
        rule.push_str("\"\n");
        if Pack::from_toml(&format!("{head}{rule}"), "fuzz", None).is_ok() {
            whole.push_str(&rule);
        }
    }
    (whole.len() > head.len())
        .then(|| Pack::from_toml(&whole, "fuzz", None).expect("each is accepted"))
}

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.windows(2).position(|pair| pair == b"\n\n") else {
        return;
    };
    let Some(pack) = pack(&String::from_utf8_lossy(&data[..end])) else {
        return;
    };
    let texts: Vec<&[u8]> = data[end + 2..].split(|&byte| byte == 0x1e).collect();
    // Planning costs most, so an input is scanned by one kernel in one way; its length says which.
    let kernels: Vec<Kernel> = Kernel::ALL
        .into_iter()
        .filter(|kernel| kernel.is_here())
        .collect();
    let kernel = kernels[data.len() / 2 % kernels.len()];
    let normalise = [Normalise::None, Normalise::Full][data.len() % 2];
    let Ok(scanner) = Scanner::new(pack, Options { kernel, normalise }) else {
        return;
    };
    let mut scratch = Scratch::default();
    let mut found: Vec<Vec<Hit>> = vec![Vec::new(); texts.len()];
    for &(text, hit) in scanner.all(&texts, &mut scratch) {
        found[text].push(hit);
    }
    for (text, hits) in texts.iter().zip(&found) {
        let plain: Vec<Hit> = hits.iter().copied().filter(|hit| !hit.obfuscated).collect();
        assert_eq!(plain, scanner.hits_by_automata(text), "{kernel:?}");
        let findings = scanner.findings(text, hits, &mut scratch);
        let mut named: Vec<u16> = findings.iter().map(|finding| finding.rule).collect();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named, hits.iter().map(|hit| hit.rule).collect::<Vec<_>>());
    }
});
