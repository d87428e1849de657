//! The 64 codes of a set of rules.
//!
//! A text is scanned as one code for each code point. Code points that no rule tells apart share a code, so
//! folding, `\w`, `\s` and `\b` are decided once, by a table, and every later stage is exact on bytes below 64:
//!
//! | codes | what |
//! | --- | --- |
//! | 0 | everything that is neither a word character nor white space nor named by a rule; what stands between texts |
//! | 1 to 26, 27 to 36, 37 | letters (folded), digits, the underscore |
//! | 38, 39 | other word characters, other digits |
//! | 40 to `W` | word characters that rules name |
//! | behind `W` | newline, space, other white space, and the other characters that rules name |
//! | 63 | no character: what stands around a text |

use std::collections::BTreeMap;
use std::collections::HashSet;

use super::charset::CharSet;
use super::points::{
    self, ALTERED_FLAG, BLANK, KINDS, NEWLINE, OTHER, OTHER_SPACE, OTHER_WORD, Trie, is_word,
};

/// How many characters beyond letters, digits and white space one alphabet can tell apart.
pub(super) const ROOM: usize = PAD as usize - KINDS;

/// What stands around a text: no set holds it.
pub(super) const PAD: u8 = 63;

/// A set of codes, one bit each.
pub(super) type Codes = u64;

/// From code points to codes.
#[derive(Debug, Clone)]
pub(super) struct Alphabet {
    pub(super) ascii: [u8; 128],
    trie: Trie,
    /// The largest code of a word character.
    pub(super) last_word: u8,
    pub(super) newline: u8,
    pub(super) blank: u8,
    /// The codes of one ASCII character that is no letter.
    single: [Option<u8>; 64],
    /// For each code in use, a point that has it, and the kind of its points.
    witnesses: Vec<(u8, u32, u8)>,
}

type Ranges = Vec<(u32, u32)>;

/// Characters that some sets tell apart from others of their kind.
struct Atom {
    kind: u8,
    ranges: Ranges,
}

impl Alphabet {
    /// Build the alphabet that tells apart what these sets tell apart; `None` if 64 codes do not suffice.
    pub(super) fn new<'a>(sets: impl IntoIterator<Item = &'a CharSet>) -> Option<Self> {
        let distinct: HashSet<&CharSet> = sets
            .into_iter()
            .filter(|set| !set.points().is_empty())
            .collect();
        let distinct: Vec<&CharSet> = distinct.into_iter().collect();
        let mut atoms = atoms(&distinct, ROOM)?;
        // Word characters come first, so that `\w` is one comparison.
        atoms.sort_by_key(|atom| {
            (
                !is_word(atom.kind),
                points::is_digit(atom.kind),
                atom.ranges.clone(),
            )
        });
        let words = atoms.iter().filter(|atom| is_word(atom.kind)).count();
        let words = u8::try_from(words).ok()?;
        let last_word = NEWLINE - 1 + words;
        let recode = |kind: u8| if kind < NEWLINE { kind } else { kind + words };

        let mut trie = points::trie().clone();
        for (first, last) in [(0x0, 0x20), (0x80, 0xff)].into_iter().chain(wide_spaces()) {
            trie.change(first, last, |byte| {
                let kind = byte & !ALTERED_FLAG;
                (byte & ALTERED_FLAG) | recode(kind)
            });
        }
        let mut witnesses = Vec::new();
        let mut single = [None; 64];
        for kind in 0..u8::try_from(KINDS).unwrap_or(PAD) {
            if let Some(point) = witness(kind, &distinct) {
                witnesses.push((recode(kind), point, kind));
            }
        }
        for (place, atom) in (0_u8..).zip(&atoms) {
            let code = if place < words {
                NEWLINE + place
            } else {
                OTHER_SPACE + 1 + place // `words` codes moved up, `place - words` came before
            };
            for &(first, last) in &atom.ranges {
                trie.change(first, last, |byte| (byte & ALTERED_FLAG) | code);
            }
            witnesses.push((code, atom.ranges[0].0, atom.kind));
            if let [(first, last)] = atom.ranges[..]
                && first == last
            {
                single[usize::from(code)] = u8::try_from(first).ok().filter(u8::is_ascii);
            }
        }
        let mut ascii = [0; 128];
        for (point, code) in (0..).zip(&mut ascii) {
            *code = trie.get(point) & !ALTERED_FLAG;
        }
        Some(Self {
            ascii,
            trie,
            last_word,
            newline: recode(NEWLINE),
            blank: recode(BLANK),
            single,
            witnesses,
        })
    }

    /// Return the code of a code point, with [`ALTERED_FLAG`] where normalisation may change it.
    #[inline]
    pub(super) fn get(&self, point: u32) -> u8 {
        self.trie.get(point)
    }

    /// Return the codes of a set.
    pub(super) fn codes(&self, set: &CharSet) -> Codes {
        self.witnesses
            .iter()
            .filter(|&&(_, point, kind)| set.holds(point, kind))
            .fold(0, |codes, &(code, ..)| codes | 1 << code)
    }

    /// Return the one ASCII character that a set holds, if it is a sign that rules name.
    pub(super) fn sign(&self, codes: Codes) -> Option<u8> {
        codes
            .is_power_of_two()
            .then(|| self.single[codes.trailing_zeros() as usize & 63])?
    }

    /// Return the codes of word characters.
    pub(super) fn word(&self) -> Codes {
        (2 << self.last_word) - 2
    }
}

/// White space beyond Latin-1.
fn wide_spaces() -> impl Iterator<Item = (u32, u32)> {
    super::unicode::SPACE
        .iter()
        .copied()
        .filter(|&(first, _)| first > 0xff)
}

/// A point of a kind that no set lists; `None` if there is none, so that the code never occurs.
fn witness(kind: u8, sets: &[&CharSet]) -> Option<u32> {
    let single =
        kind != OTHER && kind != OTHER_WORD && kind < NEWLINE && kind != points::OTHER_DIGIT;
    if single || kind == NEWLINE || kind == BLANK {
        // All points of such a kind are equal under IGNORECASE, or there is one only: sets hold all or none.
        return KIND_POINTS[usize::from(kind)];
    }
    let listed = points::merged(
        sets.iter()
            .flat_map(|set| set.points().iter().copied())
            .collect(),
    );
    let mut from = 0;
    for (first, last) in listed
        .into_iter()
        .chain([(points::LAST + 1, points::LAST + 1)])
    {
        if from < first
            && let Some(run) = points::runs(from, first - 1)
                .into_iter()
                .find(|run| run.2 == kind)
        {
            return Some(run.0);
        }
        from = last + 1;
    }
    None
}

/// The ASCII character of each kind that has one of its own.
static KIND_POINTS: [Option<u32>; KINDS] = {
    let mut table = [None; KINDS];
    let mut at = 0;
    while at < 26 {
        table[1 + at as usize] = Some(b'a' as u32 + at);
        at += 1;
    }
    at = 0;
    while at < 10 {
        table[27 + at as usize] = Some(b'0' as u32 + at);
        at += 1;
    }
    table[points::UNDERSCORE as usize] = Some(b'_' as u32);
    table[NEWLINE as usize] = Some(b'\n' as u32);
    table[BLANK as usize] = Some(b' ' as u32);
    table
};

/// Cut what the sets list into parts that no set tells apart; `None` if there are more than `room`.
fn atoms(sets: &[&CharSet], room: usize) -> Option<Vec<Atom>> {
    let mut borders: Vec<u32> = Vec::new();
    for set in sets {
        for &(first, last) in set.points() {
            borders.extend([first, last + 1]);
        }
    }
    borders.sort_unstable();
    borders.dedup();
    // By kind and by the sets that list it.
    let mut found: BTreeMap<(u8, Vec<u32>), Ranges> = BTreeMap::new();
    for pair in borders.windows(2) {
        let (first, last) = (pair[0], pair[1] - 1);
        let members: Vec<u32> = (0..)
            .zip(sets)
            .filter(|(_, set)| {
                let at = set.points().partition_point(|&(_, end)| end < first);
                set.points()
                    .get(at)
                    .is_some_and(|&(start, _)| start <= first)
            })
            .map(|(number, _)| number)
            .collect();
        if members.is_empty() {
            continue;
        }
        for (first, last, kind) in points::runs(first, last) {
            if KIND_POINTS[usize::from(kind)].is_none() {
                found
                    .entry((kind, members.clone()))
                    .or_default()
                    .push((first, last));
                if found.len() > room {
                    return None;
                }
            }
        }
    }
    Some(
        found
            .into_iter()
            .map(|((kind, _), ranges)| Atom { kind, ranges })
            .collect(),
    )
}
