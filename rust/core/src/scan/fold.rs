//! Texts as a reader sees them who is not fooled: look-alikes, invisible characters, leetspeak, spaced letters.
//!
//! A text that may hide a word is scanned once more in normalised form, with a map from its characters to those of the
//! text as it was written. A text in which nothing is suspicious is never normalised.

use unicode_normalization::UnicodeNormalization as _;

use super::confusables::latin;
use super::decode::decode;
use super::points::{is_invisible, is_word, kind};

/// What is undone before a text is scanned a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Normalise {
    /// Nothing: a text is what is written.
    None,
    /// Compatibility forms, full-width letters, look-alikes, invisible and combining characters.
    #[default]
    Unicode,
    /// These, and leetspeak and spaced letters.
    Full,
}

/// A normalised text, and where each of its characters comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Folded {
    pub(super) text: Vec<u8>,
    /// For each character the first character of the original that it stands for, and the one behind the last.
    places: Vec<(u32, u32)>,
}

impl Folded {
    fn push(&mut self, bytes: &[u8], place: (u32, u32)) {
        self.text.extend_from_slice(bytes);
        self.places.push(place);
    }

    fn push_char(&mut self, char: char, place: (u32, u32)) {
        self.push(char.encode_utf8(&mut [0; 4]).as_bytes(), place);
    }

    /// Return what a span of this text covers in the original one.
    pub(super) fn original(&self, start: usize, end: usize) -> (usize, usize) {
        let place = |at: usize| self.places.get(at).copied().unwrap_or_default();
        (
            place(start).0 as usize,
            place(end.saturating_sub(1)).1 as usize,
        )
    }
}

/// Return the other readings of a text. `altered` says that it has characters which Unicode's normalisation may change.
pub(super) fn readings(text: &[u8], altered: bool, normalise: Normalise) -> Vec<Folded> {
    let mut readings = Vec::new();
    if normalise == Normalise::None {
        return readings;
    }
    let plain = if altered {
        unicode(text)
    } else {
        identity(text)
    };
    if normalise == Normalise::Full {
        readings.extend(leet(&plain));
        readings.extend(spaced(&plain));
    }
    if plain.text != text {
        readings.push(plain);
    }
    readings
}

/// Return every reading in which a text may have been scanned: with its letters as what they look like, and as they are.
pub(super) fn every_reading(text: &[u8], normalise: Normalise) -> Vec<Folded> {
    let mut every = readings(text, true, normalise);
    for reading in readings(text, false, normalise) {
        if every.iter().all(|other| other.text != reading.text) {
            every.push(reading);
        }
    }
    every
}

/// Say whether leetspeak or spaced letters might be in a text.
pub(super) fn is_suspicious(text: &[u8]) -> bool {
    let letter = |at: usize| text.get(at).is_some_and(u8::is_ascii_alphabetic);
    let mut singles = 0;
    for (at, &byte) in text.iter().enumerate() {
        if digit(byte).is_some()
            && letter(at + 1)
            && ((at > 0 && letter(at - 1)) || (letter(at + 2) && letter(at + 3)))
        {
            return true;
        }
        if byte.is_ascii_alphabetic() && !letter(at + 1) && !(at > 0 && letter(at - 1)) {
            singles += 1;
            if singles >= 4 {
                return true;
            }
        } else if byte.is_ascii_alphanumeric() {
            singles = 0;
        }
    }
    // A digit at the end of a word counts where another one is within it, which was seen above.
    false
}

fn identity(text: &[u8]) -> Folded {
    let mut folded = Folded::default();
    let (mut at, mut place) = (0, 0);
    while at < text.len() {
        let (_, length) = decode(&text[at..]);
        folded.push(&text[at..at + length], (place, place + 1));
        at += length;
        place += 1;
    }
    folded
}

/// Undo what Unicode offers: one base character and what combines with it at a time.
fn unicode(text: &[u8]) -> Folded {
    let mut folded = Folded::default();
    let (mut at, mut place) = (0, 0);
    while at < text.len() {
        let (point, length) = decode(&text[at..]);
        let (first, begin) = (place, at);
        at += length;
        place += 1;
        let Some(base) = char::from_u32(point) else {
            folded.push(&text[begin..at], (first, place)); // a surrogate, or no character at all
            continue;
        };
        let mut cluster = String::from(base);
        while at < text.len() {
            let (next, length) = decode(&text[at..]);
            let combines = next >= 0x80 && is_invisible(next);
            let Some(char) = char::from_u32(next).filter(|_| combines) else {
                break;
            };
            cluster.push(char);
            at += length;
            place += 1;
        }
        if cluster.len() == 1 {
            folded.push(cluster.as_bytes(), (first, place));
            continue;
        }
        for char in cluster.nfkc() {
            if is_invisible(u32::from(char)) {
                continue;
            }
            match latin(u32::from(char)) {
                Some(letter) => folded.push(&[letter], (first, place)),
                None => folded.push_char(char, (first, place)),
            }
        }
    }
    folded
}

/// The letter that a digit or sign is written for.
fn digit(byte: u8) -> Option<u8> {
    Some(match byte {
        b'0' => b'o',
        b'1' | b'!' => b'i',
        b'3' => b'e',
        b'4' | b'@' => b'a',
        b'5' | b'$' => b's',
        b'7' => b't',
        _ => return None,
    })
}

/// Read digits and signs within words as letters; `None` if there are none.
fn leet(plain: &Folded) -> Option<Folded> {
    let mut folded = Folded::default();
    let mut changed = false;
    let characters: Vec<(&[u8], (u32, u32))> = characters(plain).collect();
    let part = |at: usize| {
        characters.get(at).is_some_and(|(bytes, _)| {
            bytes.len() == 1 && (bytes[0].is_ascii_alphabetic() || digit(bytes[0]).is_some())
        })
    };
    let mut at = 0;
    while at < characters.len() {
        if !part(at) {
            folded.push(characters[at].0, characters[at].1);
            at += 1;
            continue;
        }
        let first = at;
        while part(at) {
            at += 1;
        }
        let word = &characters[first..at];
        let letters = word.iter().any(|(bytes, _)| bytes[0].is_ascii_alphabetic());
        // A sign that ends a word ends the sentence.
        let signs = word
            .iter()
            .rev()
            .take_while(|(bytes, _)| bytes[0].is_ascii_punctuation())
            .count();
        for (number, (bytes, place)) in word.iter().enumerate() {
            match digit(bytes[0]) {
                Some(letter) if letters && number < word.len() - signs => {
                    folded.push(&[letter], *place);
                    changed = true;
                }
                _ => folded.push(bytes, *place),
            }
        }
    }
    changed.then_some(folded)
}

/// Join letters that stand alone, four or more in a row with one sign or blank between them; `None` if there are none.
fn spaced(plain: &Folded) -> Option<Folded> {
    let mut folded = Folded::default();
    let mut changed = false;
    let characters: Vec<(&[u8], (u32, u32))> = characters(plain).collect();
    let word = |at: usize| {
        characters
            .get(at)
            .is_some_and(|(bytes, _)| is_word(kind(decode(bytes).0.min(super::points::LAST))))
    };
    let alone = |at: usize| {
        word(at)
            && !word(at + 1)
            && !(at > 0 && word(at - 1))
            && characters[at].0[0].is_ascii_alphanumeric()
    };
    let between = |at: usize| {
        characters
            .get(at)
            .is_some_and(|(bytes, _)| matches!(bytes, [b' ' | b'.' | b'-' | b'_' | b'*' | b',']))
    };
    let mut at = 0;
    while at < characters.len() {
        let mut count = 0;
        while alone(at + 2 * count) {
            count += 1;
            if !between(at + 2 * count - 1) {
                break;
            }
        }
        if count >= 4 {
            for place in 0..count {
                let (bytes, place) = characters[at + 2 * place];
                folded.push(bytes, place);
            }
            at += 2 * count - 1;
            changed = true;
        } else {
            folded.push(characters[at].0, characters[at].1);
            at += 1;
        }
    }
    changed.then_some(folded)
}

fn characters(folded: &Folded) -> impl Iterator<Item = (&[u8], (u32, u32))> {
    let mut rest = &folded.text[..];
    folded.places.iter().map_while(move |&place| {
        let (_, length) = decode(rest);
        let (head, tail) = rest.split_at_checked(length)?;
        rest = tail;
        Some((head, place))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<String> {
        let readings = readings(text.as_bytes(), true, Normalise::Full);
        readings
            .into_iter()
            .map(|folded| String::from_utf8(folded.text).expect("text stays text"))
            .collect()
    }

    #[test]
    fn what_hides_a_word_is_undone() {
        for (text, wanted) in [
            ("k\u{200d}i\u{200b}ll", "kill"),
            ("ｋｉｌｌ", "kill"),
            ("кill", "kill"),
            ("k1ll", "kill"),
            ("k i l l", "kill"),
            ("k.i.l.l", "kill"),
            ("k̶i̶l̶l̶", "kill"),
            ("𝓴𝓲𝓵𝓵", "kill"),
            ("h4t3 him!", "hate him!"),
            ("\u{202e}kill", "kill"),
            ("so k i l l me", "so kill me"),
            ("p@$$word!", "password!"),
        ] {
            assert!(
                read(text).contains(&wanted.to_owned()),
                "{text:?} {:?}",
                read(text)
            );
        }
        for text in ["kill", "a b c", "résumé", "42", "!"] {
            assert_eq!(read(text), Vec::<String>::new(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn places_ascend_and_lie_in_the_text(text in "[a-z0-9 .!\u{200d}\u{301}éｋк\u{1F600}]{0,40}") {
            let count = u32::try_from(text.chars().count()).expect("short");
            for folded in readings(text.as_bytes(), true, Normalise::Full) {
                prop_assert_eq!(folded.places.len(), String::from_utf8_lossy(&folded.text).chars().count());
                prop_assert!(folded.places.iter().all(|&(start, end)| start < end && end <= count));
                prop_assert!(folded.places.is_sorted());
            }
        }
    }
}
