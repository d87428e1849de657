//! AVX2: a table of 64 or 128 bytes is put together from shuffles of 16.

#![allow(
    unsafe_code,
    reason = "vector loads and stores; the scalar kernel is the twin"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "rows, lanes and places in a tile are small"
)]

use std::arch::x86_64::{
    __m256i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_adds_epu8, _mm256_and_si256,
    _mm256_blendv_epi8, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256,
    _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_storeu_si256, _mm256_sub_epi8, _mm256_xor_si256,
};

use super::super::alphabet::Alphabet;
use super::super::bucket::{Group, Tables};
use super::super::points::ALTERED_FLAG;
use super::Packed;

const WIDTH: usize = 32;
/// Codes above this share its table entry.
const FINEST: u8 = 31;

#[target_feature(enable = "avx2,bmi2")]
#[inline]
fn sixteen(table: &[u8], at: usize) -> __m256i {
    let bytes: &[u8; 16] = table[at..].first_chunk().unwrap_or(&[0; 16]);
    // SAFETY: 16 bytes.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// # Safety
/// The machine has the features, and `out` has room for a code for each byte of the text and `SLACK` more.
#[target_feature(enable = "avx2,bmi2")]
pub(super) unsafe fn fill(alphabet: &Alphabet, text: &[u8], out: &mut [u8]) -> (usize, bool) {
    // Written out: a closure in `map` is not inlined into code with other features.
    let table = &alphabet.ascii;
    let rows = [
        sixteen(table, 0),
        sixteen(table, 16),
        sixteen(table, 32),
        sixteen(table, 48),
        sixteen(table, 64),
        sixteen(table, 80),
        sixteen(table, 96),
        sixteen(table, 112),
    ];
    let (mut at, mut count, mut altered) = (0, 0, 0);
    while at < text.len() {
        let rest = text.len() - at;
        let mut tail = [0; WIDTH];
        let source = if rest >= WIDTH {
            &text[at..at + WIDTH]
        } else {
            tail[..rest].copy_from_slice(&text[at..]);
            &tail
        };
        // SAFETY: `source` has 32 bytes.
        let bytes = unsafe { _mm256_loadu_si256(source.as_ptr().cast()) };
        let wide = _mm256_movemask_epi8(bytes).cast_unsigned();
        let mut codes = _mm256_setzero_si256();
        for (row, table) in rows.iter().enumerate() {
            // A byte of this row becomes 0x70 to 0x7f, any other one 0x80 or more, for which a shuffle gives zero.
            let moved = _mm256_xor_si256(bytes, _mm256_set1_epi8(((row as u8) << 4).cast_signed()));
            let moved = _mm256_adds_epu8(moved, _mm256_set1_epi8(0x70));
            codes = _mm256_or_si256(codes, _mm256_shuffle_epi8(*table, moved));
        }
        // SAFETY: `count <= at < text.len()`, and `out` has 64 bytes more than the text.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(count).cast(), codes) };
        let ascii = (wide.trailing_zeros() as usize).min(rest).min(WIDTH);
        at += ascii;
        count += ascii;
        while at < text.len() && text[at] >= 0x80 {
            let (length, code) = super::other(alphabet, text, at);
            out[count] = code & !ALTERED_FLAG;
            altered |= code;
            count += 1;
            at += length;
        }
    }
    (count, altered & ALTERED_FLAG != 0)
}

/// The first 32 entries of each table, the last of them for all codes behind.
type Half = [(__m256i, __m256i); 4];

#[target_feature(enable = "avx2,bmi2")]
#[inline]
fn load(group: &Group) -> Half {
    [
        half(&group[0]),
        half(&group[1]),
        half(&group[2]),
        half(&group[3]),
    ]
}

#[target_feature(enable = "avx2,bmi2")]
#[inline]
fn half(table: &[u8; 64]) -> (__m256i, __m256i) {
    let mut coarse = [0; 32];
    coarse.copy_from_slice(&table[..32]);
    coarse[usize::from(FINEST)] = table[usize::from(FINEST)..]
        .iter()
        .fold(0, |all, buckets| all | buckets);
    (sixteen(&coarse, 0), sixteen(&coarse, 16))
}

#[target_feature(enable = "avx2,bmi2")]
#[inline]
fn buckets(group: &Half, windows: &[__m256i; 4]) -> __m256i {
    let mut all = _mm256_set1_epi8(-1);
    for ((low, high), window) in group.iter().zip(windows) {
        // Bit 4 of a code chooses the half: moved to the top, it is what a blend looks at.
        let half = _mm256_slli_epi16::<3>(*window);
        let found = _mm256_blendv_epi8(
            _mm256_shuffle_epi8(*low, *window),
            _mm256_shuffle_epi8(*high, *window),
            half,
        );
        all = _mm256_and_si256(all, found);
    }
    all
}

#[target_feature(enable = "avx2,bmi2")]
#[inline]
fn nonzero(bytes: __m256i) -> u32 {
    !_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256())).cast_unsigned()
}

/// # Safety
/// The machine has the features.
#[target_feature(enable = "avx2,bmi2")]
#[allow(
    unused_unsafe,
    reason = "the oldest compiler wants it around a prefetch"
)]
pub(super) unsafe fn pack(
    alphabet: &Alphabet,
    texts: &[&[u8]],
    first: usize,
    packed: &mut Packed<'_>,
) {
    super::pack!(
        alphabet,
        texts,
        first,
        packed,
        // SAFETY: `out` has room for the text and `SLACK` codes more, as the loop checks.
        |alphabet, text: &[u8], out: &mut [u8]| unsafe { fill(alphabet, text, out) },
        // SAFETY: asking for memory has no effect that a program could see.
        |soon: &&[u8]| unsafe { _mm_prefetch::<_MM_HINT_T0>(soon.as_ptr().cast()) }
    );
}

/// # Safety
/// The machine has the features; behind `to` stand `SLACK` codes, and `out` has room for `to - from + 64` positions.
#[target_feature(enable = "avx2,bmi2")]
pub(super) unsafe fn filter(
    tables: &Tables,
    codes: &[u8],
    from: usize,
    to: usize,
    out: &mut [u16],
) -> usize {
    let groups = [
        load(&tables.groups[0]),
        load(&tables.groups[1]),
        load(&tables.groups[2]),
    ];
    let [_, second, anywhere] = tables.used;
    let (one, last) = (
        _mm256_set1_epi8(1),
        _mm256_set1_epi8(tables.last_word.cast_signed().wrapping_sub(1)),
    );
    let finest = _mm256_set1_epi8(FINEST.cast_signed());
    let mut carry = u32::from(codes[from - 1].wrapping_sub(1) < tables.last_word);
    let (mut at, mut count) = (from, 0);
    while at < to {
        // SAFETY: `at < to`, and 128 codes stand behind `to`.
        let exact = unsafe {
            let here = codes.as_ptr().add(at);
            [
                _mm256_loadu_si256(here.cast()),
                _mm256_loadu_si256(here.add(1).cast()),
                _mm256_loadu_si256(here.add(2).cast()),
                _mm256_loadu_si256(here.add(3).cast()),
            ]
        };
        let windows = [
            _mm256_min_epu8(exact[0], finest),
            _mm256_min_epu8(exact[1], finest),
            _mm256_min_epu8(exact[2], finest),
            _mm256_min_epu8(exact[3], finest),
        ];
        let moved = _mm256_sub_epi8(exact[0], one);
        let word = _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(moved, last), moved))
            .cast_unsigned();
        let first = word & !(word << 1 | carry);
        carry = word >> 31;
        let mut allowed = buckets(&groups[0], &windows);
        if second {
            allowed = _mm256_or_si256(allowed, buckets(&groups[1], &windows));
        }
        let mut hit = nonzero(allowed) & first;
        if anywhere {
            hit |= nonzero(buckets(&groups[2], &windows));
        }
        if to - at < WIDTH {
            hit &= (1 << (to - at)) - 1;
        }
        let found = hit.count_ones() as usize;
        // Four at a time, whether there are as many or not: a loop of few lengths is predicted well.
        let mut written = 0;
        while written < found {
            for place in written..written + 4 {
                out[count + place] = (at + hit.trailing_zeros() as usize) as u16;
                hit &= hit.wrapping_sub(1);
            }
            written += 4;
        }
        count += found;
        at += WIDTH;
    }
    count
}
