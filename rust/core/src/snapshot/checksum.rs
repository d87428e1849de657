//! A 64-bit checksum that does not depend on who computes which part of it.
//!
//! # What it computes
//!
//! Bytes are read in blocks of 4 KiB, the last one filled with zeros. A block is 512 words `w` of
//! 64 bits, and has a table of 512 random words `k`. Two sums are kept, modulo 2^64:
//!
//! ```text
//! products = sum of low32(w ^ k) * high32(w ^ k)
//! words    = sum of w
//! ```
//!
//! A block's term mixes both sums with the number of the block, and the checksum mixes the sum of
//! all terms with the length.
//!
//! # Why it suffices
//!
//! It is to find accidents: a flipped bit, a stray write, a truncated or half-written copy. A
//! change confined to one word always changes `words`, and the mixing is one-to-one, so it is
//! always found. Changes whose sums cancel (two words swapped, the same bit flipped in two words)
//! leave `products` alone with a probability of about 2^-32, and blocks that changed can cancel
//! each other with 2^-64. The table is no secret: somebody who wants to can forge a block.

use super::lane::Check;
use crate::prefetch::ahead;

/// The bytes that have one term. Part of the definition: another size gives other checksums.
pub(super) const BLOCK: usize = 4096;

/// What is worked on at once: wide enough that sums do not wait for each other.
const STRIPE: usize = 64;
const WORDS: usize = STRIPE / size_of::<u64>();
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The keys of a block, stripe by stripe: the sequence of splitmix64 from zero.
static KEYS: [[u64; WORDS]; BLOCK / STRIPE] = keys();

const fn keys() -> [[u64; WORDS]; BLOCK / STRIPE] {
    let mut keys = [[0; WORDS]; BLOCK / STRIPE];
    let mut state = 0_u64;
    let mut index = 0;
    while index < BLOCK / size_of::<u64>() {
        state = state.wrapping_add(ODD);
        keys[index / WORDS][index % WORDS] = mix(state);
        index += 1;
    }
    keys
}

/// A one-to-one map of 64 bits in which every bit of the result hangs on every bit of the argument.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Return the term of a block at `position`, and whether a value in it is not finite.
pub(super) fn term(block: &[u8; BLOCK], position: u64, check: Check) -> (u64, bool) {
    let mut products = [0_u64; WORDS];
    // Two sums, not eight: all accumulators together have to fit the sixteen registers of any x86-64.
    let mut words = [0_u64; 2];
    let mut carries = [0_u64; WORDS];
    let (stripes, _) = block.as_chunks::<STRIPE>();
    for (stripe, keys) in stripes.iter().zip(&KEYS) {
        ahead(stripe);
        let (chunks, _) = stripe.as_chunks::<{ size_of::<u64>() }>();
        for lane in 0..WORDS {
            let word = u64::from_le_bytes(chunks[lane]);
            let keyed = word ^ keys[lane];
            let product = (keyed & 0xffff_ffff) * (keyed >> 32);
            products[lane] = products[lane].wrapping_add(product);
            words[lane % 2] = words[lane % 2].wrapping_add(word);
            carries[lane] |= check.carries(word);
        }
    }
    let sum = |lanes: &[u64]| lanes.iter().copied().fold(0, u64::wrapping_add);
    let place = position.wrapping_add(1).wrapping_mul(ODD);
    let term = mix(sum(&products) ^ mix(sum(&words).wrapping_add(place)));
    let carries = carries.into_iter().fold(0, |all, one| all | one);
    (term, check.any(carries))
}

/// Return the checksum of `length` bytes whose terms have this sum.
pub(super) fn finish(terms: u64, length: usize) -> u64 {
    mix(terms.wrapping_add((length as u64).wrapping_mul(ODD)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The definition above, word by word.
    pub(in super::super) fn naive(bytes: &[u8]) -> u64 {
        let mut total = 0_u64;
        for (position, block) in bytes.chunks(BLOCK).enumerate() {
            let (mut products, mut words, mut state) = (0_u64, 0_u64, 0_u64);
            let mut filled = block.to_vec();
            filled.resize(BLOCK, 0);
            for eight in filled.chunks(8) {
                let word = eight
                    .iter()
                    .rev()
                    .fold(0_u64, |word, &byte| word << 8 | u64::from(byte));
                state = state.wrapping_add(ODD);
                let keyed = word ^ mix(state);
                products = products.wrapping_add((keyed % (1 << 32)) * (keyed / (1 << 32)));
                words = words.wrapping_add(word);
            }
            let place = (position as u64 + 1).wrapping_mul(ODD);
            total = total.wrapping_add(mix(products ^ mix(words.wrapping_add(place))));
        }
        mix(total.wrapping_add((bytes.len() as u64).wrapping_mul(ODD)))
    }
}
