//! The kernel in plain Rust.

use super::super::alphabet::Alphabet;
use super::super::bucket::Tables;
use super::super::points::ALTERED_FLAG;
use super::Packed;

pub(super) fn fill(alphabet: &Alphabet, text: &[u8], out: &mut [u8]) -> (usize, bool) {
    let (mut at, mut count, mut altered) = (0, 0, 0);
    while let Some(&byte) = text.get(at) {
        if byte < 0x80 {
            out[count] = alphabet.ascii[usize::from(byte)];
            at += 1;
        } else {
            let (length, code) = super::other(alphabet, text, at);
            out[count] = code & !ALTERED_FLAG;
            altered |= code;
            at += length;
        }
        count += 1;
    }
    (count, altered & ALTERED_FLAG != 0)
}

pub(super) fn pack(alphabet: &Alphabet, texts: &[&[u8]], first: usize, packed: &mut Packed<'_>) {
    super::pack!(alphabet, texts, first, packed, fill, |_: &&[u8]| ());
}

/// Codes above `finest` share the table entry of `finest`, as in kernels with smaller tables.
pub(super) fn filter(
    tables: &Tables,
    codes: &[u8],
    from: usize,
    to: usize,
    out: &mut [u16],
    finest: u8,
) -> usize {
    let is_word = |code: u8| code.wrapping_sub(1) < tables.last_word;
    let mut before = is_word(codes[from - 1]);
    let mut count = 0;
    for (at, window) in (from..to).zip(codes[from..].windows(4)) {
        let word = is_word(window[0]);
        let first = word && !before;
        before = word;
        let allowed = |group: usize| {
            tables.used[group]
                && tables.groups[group]
                    .iter()
                    .zip(window)
                    .fold(u8::MAX, |buckets, (place, &code)| {
                        buckets & place[usize::from(code.min(finest) & 63)]
                    })
                    != 0
        };
        let hit = (first && (allowed(0) || allowed(1))) || allowed(2);
        // Written always and counted if it is one: no branch that depends on the text.
        out[count] = u16::try_from(at).unwrap_or(u16::MAX);
        count += usize::from(hit);
    }
    count
}
