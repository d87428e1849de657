//! Code points as Python's `re` sees them: kinds, and equality under IGNORECASE.

use std::sync::LazyLock;

use super::unicode::{ALTERED, DIGIT, FOLD, INVISIBLE, SPACE, WORD};

/// The last code point, surrogates included: Python's `str` may hold any of them.
pub(super) const LAST: u32 = 0x0010_FFFF;

/// The kinds that every alphabet tells apart. A code below [`NEWLINE`] keeps its number in every alphabet.
pub(super) const OTHER: u8 = 0;
pub(super) const LETTER: u8 = 1;
pub(super) const ZERO: u8 = 27;
pub(super) const UNDERSCORE: u8 = 37;
pub(super) const OTHER_WORD: u8 = 38;
pub(super) const OTHER_DIGIT: u8 = 39;
pub(super) const NEWLINE: u8 = 40;
pub(super) const BLANK: u8 = 41;
pub(super) const OTHER_SPACE: u8 = 42;
/// How many kinds there are.
pub(super) const KINDS: usize = 43;

/// Set in a trie's byte where normalisation may change the code point.
pub(super) const ALTERED_FLAG: u8 = 0x40;

pub(super) fn is_word(kind: u8) -> bool {
    (LETTER..=OTHER_DIGIT).contains(&kind)
}

pub(super) fn is_digit(kind: u8) -> bool {
    (ZERO..UNDERSCORE).contains(&kind) || kind == OTHER_DIGIT
}

pub(super) fn is_space(kind: u8) -> bool {
    (NEWLINE..=OTHER_SPACE).contains(&kind)
}

/// Which code points are equal under IGNORECASE.
struct Folds {
    /// Point and representative, by point.
    by_point: Vec<(u32, u32)>,
    /// Representative and point, by representative.
    by_representative: Vec<(u32, u32)>,
}

static FOLDS: LazyLock<Folds> = LazyLock::new(|| {
    let mut by_point = Vec::new();
    for &(first, last, step, start) in FOLD {
        for point in (first..=last).step_by(step as usize) {
            by_point.push((point, start + (point - first)));
        }
    }
    by_point.sort_unstable();
    let mut by_representative: Vec<_> = by_point.iter().map(|&(point, to)| (to, point)).collect();
    by_representative.sort_unstable();
    Folds {
        by_point,
        by_representative,
    }
});

/// Return the one point that stands for all that equal this one under IGNORECASE.
pub(super) fn fold(point: u32) -> u32 {
    if point < 0x80 {
        return if (0x41..0x5b).contains(&point) {
            point | 0x20
        } else {
            point
        };
    }
    let table = &FOLDS.by_point;
    table
        .binary_search_by_key(&point, |&(point, _)| point)
        .map_or(point, |at| table[at].1)
}

/// Call `each` with every point that equals `point` under IGNORECASE, itself included.
fn equals(point: u32, mut each: impl FnMut(u32)) {
    let representative = fold(point);
    each(representative);
    let table = &FOLDS.by_representative;
    let first = table.partition_point(|&(to, _)| to < representative);
    for &(_, member) in table[first..]
        .iter()
        .take_while(|&&(to, _)| to == representative)
    {
        each(member);
    }
}

/// Add to some ranges everything that equals one of their points under IGNORECASE; return them in order, merged.
pub(super) fn close(ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut all = ranges.to_vec();
    let table = &FOLDS.by_point;
    for &(first, last) in ranges {
        // Only points with a fold, and the representatives of some, equal another one.
        let from = table.partition_point(|&(point, _)| point < first);
        for &(point, _) in table[from..]
            .iter()
            .take_while(|&&(point, _)| point <= last)
        {
            equals(point, |member| all.push((member, member)));
        }
        let table = &FOLDS.by_representative;
        let from = table.partition_point(|&(to, _)| to < first);
        for &(_, point) in table[from..].iter().take_while(|&&(to, _)| to <= last) {
            all.push((point, point));
        }
    }
    merged(all)
}

/// Sort ranges and merge those that touch.
pub(super) fn merged(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut out: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

/// Two levels: a block's number for every 128 points, and the bytes of the blocks.
#[derive(Debug, Clone)]
pub(super) struct Trie {
    index: Vec<u16>,
    blocks: Vec<u8>,
}

impl Trie {
    const BITS: u32 = 7;
    const BLOCK: usize = 1 << Self::BITS;

    fn new(bytes: &[u8]) -> Self {
        let mut index = Vec::with_capacity(bytes.len() / Self::BLOCK);
        let mut blocks: Vec<u8> = Vec::new();
        for block in bytes.chunks(Self::BLOCK) {
            let known = blocks.chunks(Self::BLOCK).position(|other| other == block);
            let number = known.unwrap_or_else(|| {
                blocks.extend_from_slice(block);
                blocks.len() / Self::BLOCK - 1
            });
            index.push(u16::try_from(number).unwrap_or(u16::MAX));
        }
        Self { index, blocks }
    }

    /// Return the byte of a code point.
    #[inline]
    pub(super) fn get(&self, point: u32) -> u8 {
        let block = self
            .index
            .get((point >> Self::BITS) as usize)
            .copied()
            .unwrap_or(0);
        self.blocks[usize::from(block) * Self::BLOCK + point as usize % Self::BLOCK]
    }

    /// Change the bytes of a range by a function of what they are.
    pub(super) fn change(&mut self, first: u32, last: u32, to: impl Fn(u8) -> u8) {
        let (mut point, last) = (first as usize, last as usize);
        while point <= last {
            let end = last.min(point | (Self::BLOCK - 1));
            let slot = point / Self::BLOCK;
            let from = usize::from(self.index[slot]) * Self::BLOCK;
            // A block may be shared, so a changed one is new; the number of blocks is that of the index at most.
            let mut block = self.blocks[from..from + Self::BLOCK].to_vec();
            for byte in &mut block[point % Self::BLOCK..=end % Self::BLOCK] {
                *byte = to(*byte);
            }
            if block != self.blocks[from..from + Self::BLOCK] {
                let shared = self
                    .index
                    .iter()
                    .filter(|&&other| other == self.index[slot])
                    .count()
                    > 1;
                if shared {
                    self.index[slot] = u16::try_from(self.blocks.len() / Self::BLOCK).unwrap_or(0);
                    self.blocks.extend_from_slice(&block);
                } else {
                    self.blocks[from..from + Self::BLOCK].copy_from_slice(&block);
                }
            }
            point = end + 1;
        }
    }
}

/// The kind of every code point, with [`ALTERED_FLAG`].
static TRIE: LazyLock<Trie> = LazyLock::new(|| {
    let mut bytes = vec![OTHER; LAST as usize + 1];
    let mut fill = |ranges: &[(u32, u32)], kind: u8| {
        for &(first, last) in ranges {
            bytes[first as usize..=last as usize].fill(kind);
        }
    };
    fill(WORD, OTHER_WORD);
    fill(DIGIT, OTHER_DIGIT);
    fill(SPACE, OTHER_SPACE);
    bytes[usize::from(b'\n')] = NEWLINE;
    bytes[usize::from(b' ')] = BLANK;
    bytes[usize::from(b'_')] = UNDERSCORE;
    for (code, byte) in (ZERO..).zip(b'0'..=b'9') {
        bytes[usize::from(byte)] = code;
    }
    for (code, byte) in (LETTER..).zip(b'a'..=b'z') {
        equals(u32::from(byte), |point| bytes[point as usize] = code);
    }
    for &(first, last) in ALTERED {
        for byte in &mut bytes[first as usize..=last as usize] {
            *byte |= ALTERED_FLAG;
        }
    }
    for &(from, _) in super::confusables::CONFUSABLES {
        bytes[from as usize] |= ALTERED_FLAG;
    }
    Trie::new(&bytes)
});

/// The trie of the kinds, to be refined by an alphabet.
pub(super) fn trie() -> &'static Trie {
    &TRIE
}

/// Return the kind of a code point.
pub(super) fn kind(point: u32) -> u8 {
    TRIE.get(point) & !ALTERED_FLAG
}

/// Say whether normalisation removes a code point.
pub(super) fn is_invisible(point: u32) -> bool {
    let at = INVISIBLE.partition_point(|&(_, last)| last < point);
    INVISIBLE.get(at).is_some_and(|&(first, _)| first <= point)
}

/// Maximal ranges of one kind, in order, that lie in a range.
pub(super) fn runs(first: u32, last: u32) -> Vec<(u32, u32, u8)> {
    static RUNS: LazyLock<Vec<(u32, u32, u8)>> = LazyLock::new(|| {
        let mut runs: Vec<(u32, u32, u8)> = Vec::new();
        for point in 0..=LAST {
            let kind = kind(point);
            match runs.last_mut() {
                Some(run) if run.2 == kind => run.1 = point,
                _ => runs.push((point, point, kind)),
            }
        }
        runs
    });
    let from = RUNS.partition_point(|run| run.1 < first);
    RUNS[from..]
        .iter()
        .take_while(|run| run.0 <= last)
        .map(|run| (run.0.max(first), run.1.min(last), run.2))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_points_that_equal_an_ascii_letter_are_those_that_python_says() {
        for (letter, others) in [
            ('s', "sS\u{17f}"),
            ('k', "kK\u{212a}"),
            ('i', "iI\u{130}\u{131}"),
            ('a', "aA"),
        ] {
            let mut found = Vec::new();
            equals(u32::from(letter), |point| {
                found.extend(char::from_u32(point));
            });
            found.sort_unstable();
            found.dedup();
            let mut wanted: Vec<char> = others.chars().collect();
            wanted.sort_unstable();
            assert_eq!(found, wanted);
        }
        assert_eq!(fold(u32::from('İ')), u32::from('i'));
    }

    #[test]
    fn closing_a_range_adds_both_cases_and_keeps_order() {
        assert_eq!(close(&[(0x430, 0x430)]), [(0x410, 0x410), (0x430, 0x430)]);
        let closed = close(&[(0x61, 0x7a)]);
        assert_eq!(
            closed,
            [
                (0x41, 0x5a),
                (0x61, 0x7a),
                (0x130, 0x131),
                (0x17f, 0x17f),
                (0x212a, 0x212a)
            ]
        );
    }

    #[test]
    fn kinds_are_those_of_python() {
        for (text, wanted) in [
            ("e", 5),
            ("\u{301}", OTHER),
            ("²", OTHER_WORD),
            ("½", OTHER_WORD),
            ("\u{203f}", OTHER),
            ("\u{200d}", OTHER),
            ("\u{1c}", OTHER_SPACE),
            ("\u{85}", OTHER_SPACE),
            ("\u{a0}", OTHER_SPACE),
            ("\u{2028}", OTHER_SPACE),
            ("\u{feff}", OTHER),
            ("\0", OTHER),
            ("٣", OTHER_DIGIT),
            ("é", OTHER_WORD),
        ] {
            assert_eq!(
                kind(u32::from(text.chars().next().expect("one"))),
                wanted,
                "{text:?}"
            );
        }
        assert_eq!(kind(0xD800), OTHER);
    }
}
