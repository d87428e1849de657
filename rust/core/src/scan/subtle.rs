//! Words that are suspicious together: a score for each window of words, and the greatest of them.
//!
//! `s = min(1, 10 K / max(n, 30))` for a window of `n` words in which the weights of the different suspicious ones add
//! up to `K`. So one word never flags a text, however short, and a long text does not dilute what stands together in it.

/// The words of a window.
const WINDOW: usize = 64;
/// Windows overlap by what is left.
const STRIDE: usize = 32;
/// A shorter window counts as one of so many words.
const LEAST: usize = 30;

/// The score of a window of `words` words.
#[must_use]
pub(super) fn score(weight: f64, words: usize) -> f64 {
    (10.0 * weight / words.max(LEAST) as f64).min(1.0)
}

/// The most that these weights can come to, wherever the words stand.
#[must_use]
pub(super) fn bound(weight: f64) -> f64 {
    score(weight, 0)
}

/// Words between white space: the first byte of each.
pub(super) fn words(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let mut inside = false;
    text.iter().enumerate().filter_map(move |(at, byte)| {
        let blank = byte.is_ascii_whitespace() || *byte == 0x0B || (0x1C..=0x1F).contains(byte);
        let begins = !blank && !inside;
        inside = !blank;
        begins.then_some(at)
    })
}

/// Count the words of a text.
#[must_use]
pub fn count_words(text: &[u8]) -> usize {
    words(text).count()
}

/// The greatest score of a text of so many words; `found` are the places of suspicious words, which one and its weight.
#[must_use]
pub(super) fn greatest(total: usize, found: &[(usize, u16, f64)]) -> f64 {
    let mut best = 0.0_f64;
    let mut seen: Vec<u16> = Vec::new();
    for start in (0..total.max(1)).step_by(STRIDE) {
        let inside = found
            .iter()
            .filter(|(at, ..)| (start..start + WINDOW).contains(at));
        let mut weight = 0.0;
        seen.clear();
        for &(_, lemma, one) in inside {
            if !seen.contains(&lemma) {
                seen.push(lemma);
                weight += one;
            }
        }
        best = best.max(score(weight, (total - start.min(total)).min(WINDOW)));
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The score lies in [0, 1], grows with every hit, and is not raised by words behind.
        #[test]
        fn the_score_is_monotone_and_not_raised_by_neutral_words(
            total in 1_usize..400,
            places in prop::collection::vec((0_usize..400, 0_u16..9), 0..20),
            more in 0_usize..300,
        ) {
            let found: Vec<(usize, u16, f64)> =
                places.iter().map(|&(at, lemma)| (at % total, lemma, 0.2 + 0.1 * f64::from(lemma % 8))).collect();
            let all = greatest(total, &found);
            prop_assert!((0.0..=1.0).contains(&all));
            for count in 0..found.len() {
                prop_assert!(greatest(total, &found[..count]) <= all);
            }
            prop_assert!(greatest(total + more, &found) <= all);
        }

        /// What stands outside a full window does not change its score.
        #[test]
        fn a_full_window_is_not_diluted(before in 0_usize..20, behind in 0_usize..500) {
            let found: Vec<(usize, u16, f64)> = (0..5).map(|n| (before * STRIDE + usize::from(n), n, 1.0)).collect();
            let alone: Vec<(usize, u16, f64)> = (0..5).map(|n| (usize::from(n), n, 1.0)).collect();
            let whole = greatest(before * STRIDE + WINDOW + behind, &found);
            prop_assert!((whole - greatest(WINDOW, &alone)).abs() < 1e-12);
        }
    }

    #[test]
    fn a_single_word_never_reaches_the_threshold() {
        for total in 1..=14 {
            assert!(greatest(total, &[(0, 0, 1.0)]) <= 0.34);
        }
        assert_eq!(count_words(b"  two\twords \n"), 2);
    }
}
