//! AVX-512 with VBMI and VBMI2: tables of 128 and 64 bytes in registers, positions by compression.

#![allow(
    unsafe_code,
    reason = "vector loads and stores; the scalar kernel is the twin"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "rows, lanes and places in a tile are small"
)]

use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _bzhi_u64, _mm_prefetch, _mm512_add_epi16, _mm512_and_si512,
    _mm512_castsi512_si256, _mm512_cmple_epu8_mask, _mm512_cvtepu8_epi16,
    _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_maskz_compress_epi8,
    _mm512_maskz_loadu_epi8, _mm512_movepi8_mask, _mm512_or_si512, _mm512_permutex2var_epi8,
    _mm512_permutexvar_epi8, _mm512_set1_epi8, _mm512_set1_epi16, _mm512_setzero_si512,
    _mm512_storeu_si512, _mm512_sub_epi8, _mm512_test_epi8_mask,
};

use super::super::alphabet::Alphabet;
use super::super::bucket::{Group, Tables};
use super::super::points::ALTERED_FLAG;
use super::Packed;

const WIDTH: usize = 64;

/// 0 to 63.
static PLACES: [u8; WIDTH] = {
    let mut places = [0; WIDTH];
    let mut at = 0;
    while at < WIDTH {
        places[at] = at as u8;
        at += 1;
    }
    places
};

/// # Safety
/// The machine has the features, and `out` has room for a code for each byte of the text and `SLACK` more.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
#[inline]
pub(super) unsafe fn fill(alphabet: &Alphabet, text: &[u8], out: &mut [u8]) -> (usize, bool) {
    let (low, high) = table(alphabet);
    let (mut at, mut wide) = (0, _mm512_setzero_si512());
    // SAFETY: each vector lies in the text as far as it is not masked out, and masked bytes are not read; `out` has 64
    // bytes more than the text.
    unsafe {
        while text.len() - at > WIDTH {
            let bytes = _mm512_loadu_si512(text.as_ptr().add(at).cast());
            let codes = _mm512_permutex2var_epi8(low, bytes, high);
            _mm512_storeu_si512(out.as_mut_ptr().add(at).cast(), codes);
            wide = _mm512_or_si512(wide, bytes);
            at += WIDTH;
        }
        let here = _bzhi_u64(u64::MAX, (text.len() - at) as u32);
        let bytes = _mm512_maskz_loadu_epi8(here, text.as_ptr().add(at).cast());
        let codes = _mm512_permutex2var_epi8(low, bytes, high);
        _mm512_storeu_si512(out.as_mut_ptr().add(at).cast(), codes);
        wide = _mm512_or_si512(wide, bytes);
    }
    // One branch for a text: where each vector begins must not wait for what the last one held.
    if _mm512_movepi8_mask(wide) == 0 {
        return (text.len(), false);
    }
    // SAFETY: as the caller says.
    unsafe { mixed(alphabet, text, out) }
}

/// Write the codes of a text that is not all ASCII.
///
/// # Safety
/// As for `fill`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
unsafe fn mixed(alphabet: &Alphabet, text: &[u8], out: &mut [u8]) -> (usize, bool) {
    let (low, high) = table(alphabet);
    let (mut at, mut count, mut altered) = (0, 0, 0);
    while at < text.len() {
        let rest = text.len() - at;
        let here = _bzhi_u64(u64::MAX, rest.min(WIDTH) as u32);
        // SAFETY: bytes behind the end of the text are masked out, and masked bytes are not read.
        let bytes = unsafe { _mm512_maskz_loadu_epi8(here, text.as_ptr().add(at).cast()) };
        let wide = _mm512_movepi8_mask(bytes);
        let codes = _mm512_permutex2var_epi8(low, bytes, high);
        // SAFETY: `count <= at < text.len()`, and `out` has 64 bytes more than the text.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(count).cast(), codes) };
        let ascii = (wide.trailing_zeros() as usize).min(rest).min(WIDTH);
        at += ascii;
        count += ascii;
        // Characters in a row that are not ASCII, then on with vectors.
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

/// The codes of ASCII, in two registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
#[inline]
fn table(alphabet: &Alphabet) -> (__m512i, __m512i) {
    // SAFETY: both halves of the table have 64 bytes.
    unsafe {
        let table = alphabet.ascii.as_ptr();
        (
            _mm512_loadu_si512(table.cast()),
            _mm512_loadu_si512(table.add(WIDTH).cast()),
        )
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
#[inline]
fn load(group: &Group) -> [__m512i; 4] {
    // Written out: a closure in `map` is not inlined into code with other features.
    let [a, b, c, d] = group;
    // SAFETY: each table has 64 bytes.
    unsafe {
        [
            _mm512_loadu_si512(a.as_ptr().cast()),
            _mm512_loadu_si512(b.as_ptr().cast()),
            _mm512_loadu_si512(c.as_ptr().cast()),
            _mm512_loadu_si512(d.as_ptr().cast()),
        ]
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
#[inline]
fn buckets(group: &[__m512i; 4], windows: &[__m512i; 4]) -> __m512i {
    let a = _mm512_permutexvar_epi8(windows[0], group[0]);
    let b = _mm512_permutexvar_epi8(windows[1], group[1]);
    let c = _mm512_permutexvar_epi8(windows[2], group[2]);
    let d = _mm512_permutexvar_epi8(windows[3], group[3]);
    _mm512_and_si512(_mm512_and_si512(a, b), _mm512_and_si512(c, d))
}

/// # Safety
/// The machine has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
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
    // SAFETY: 64 bytes.
    let places = unsafe { _mm512_loadu_si512(PLACES.as_ptr().cast()) };
    let (one, last_word) = (
        _mm512_set1_epi8(1),
        _mm512_set1_epi8(tables.last_word.cast_signed().wrapping_sub(1)),
    );
    let mut carry = u64::from(codes[from - 1].wrapping_sub(1) < tables.last_word);
    let (mut at, mut count) = (from, 0);
    while at < to {
        // SAFETY: `at < to`, and 128 codes stand behind `to`: the last load ends at `at + 67`.
        let windows = unsafe {
            let here = codes.as_ptr().add(at);
            [
                _mm512_loadu_si512(here.cast()),
                _mm512_loadu_si512(here.add(1).cast()),
                _mm512_loadu_si512(here.add(2).cast()),
                _mm512_loadu_si512(here.add(3).cast()),
            ]
        };
        let word = _mm512_cmple_epu8_mask(_mm512_sub_epi8(windows[0], one), last_word);
        let first = word & !(word << 1 | carry);
        carry = word >> 63;
        let mut allowed = buckets(&groups[0], &windows);
        if second {
            allowed = _mm512_or_si512(allowed, buckets(&groups[1], &windows));
        }
        let mut hit = _mm512_test_epi8_mask(allowed, allowed) & first;
        if anywhere {
            let allowed = buckets(&groups[2], &windows);
            hit |= _mm512_test_epi8_mask(allowed, allowed);
        }
        if to - at < WIDTH {
            hit &= (1 << (to - at)) - 1;
        }
        // Positions within 64 codes, packed, widened, and moved to where the codes stand. Most often there are few,
        // and the half that is always written holds them all.
        let packed = _mm512_maskz_compress_epi8(hit, places);
        let base = _mm512_set1_epi16((at as u16).cast_signed());
        let low = _mm512_add_epi16(_mm512_cvtepu8_epi16(_mm512_castsi512_si256(packed)), base);
        // SAFETY: at most `at - from` positions were counted, and `out` has 64 more than `to - from`.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(count).cast(), low) };
        let found = hit.count_ones() as usize;
        if found > 32 {
            let high = _mm512_add_epi16(
                _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64::<1>(packed)),
                base,
            );
            // SAFETY: as above; these are positions 32 to 63.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(count + 32).cast(), high) };
        }
        count += found;
        at += WIDTH;
    }
    count
}
