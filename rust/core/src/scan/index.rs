//! From four codes to the strings that may stand there: a bitmap that rejects most, then slots that compare eight codes.

use std::collections::BTreeMap;

use super::alphabet::Codes;
use super::literal::WINDOW;

const BITS: u32 = 16;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u32,
    /// One more than the entry; zero where the slot is free.
    entry: u32,
    /// The codes in which all strings of the entry agree.
    mask: u64,
    value: u64,
}

/// A string to be looked for behind a window: its number, and how far into it the window begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) string: u32,
    pub(super) offset: u32,
}

/// Windows, and what each leads to.
#[derive(Debug)]
pub(super) struct Index {
    bitmap: Box<[u64; 1 << (BITS - 6)]>,
    slots: Vec<Slot>,
    entries: Vec<(u32, u32)>,
    candidates: Vec<Candidate>,
}

fn hash(key: u32) -> u32 {
    key.wrapping_mul(0x9E37_79B1)
}

/// A string as the index sees it.
pub(super) struct Indexed<'a> {
    pub(super) string: &'a [Codes],
    pub(super) at: usize,
    pub(super) window: [Codes; WINDOW],
}

impl Index {
    pub(super) fn new(strings: &[Indexed<'_>]) -> Self {
        let mut keys: BTreeMap<u32, Vec<Candidate>> = BTreeMap::new();
        for (number, one) in (0..).zip(strings) {
            let candidate = Candidate {
                string: number,
                offset: u32::try_from(one.at).unwrap_or(u32::MAX),
            };
            each_key(&one.window, &mut |key| {
                keys.entry(key).or_default().push(candidate);
            });
        }
        let size = (keys.len() * 3).next_power_of_two().max(64);
        let mut index = Self {
            bitmap: Box::new([0; 1 << (BITS - 6)]),
            slots: vec![Slot::default(); size],
            entries: Vec::new(),
            candidates: Vec::new(),
        };
        // Keys of one string lead to one entry.
        let mut known: BTreeMap<Vec<Candidate>, u32> = BTreeMap::new();
        for (key, candidates) in keys {
            let (mask, value) = agreement(key, &candidates, strings);
            let entry = *known.entry(candidates).or_insert_with_key(|candidates| {
                let first = u32::try_from(index.candidates.len()).unwrap_or(u32::MAX);
                index.candidates.extend(candidates);
                index
                    .entries
                    .push((first, first + u32::try_from(candidates.len()).unwrap_or(0)));
                u32::try_from(index.entries.len()).unwrap_or(u32::MAX)
            });
            let bit = hash(key) >> (32 - BITS);
            index.bitmap[(bit / 64) as usize] |= 1 << (bit % 64);
            let mut at = index.place(key);
            while index.slots[at].entry != 0 {
                at = (at + 1) & (index.slots.len() - 1);
            }
            index.slots[at] = Slot {
                key,
                entry,
                mask,
                value,
            };
        }
        index
    }

    fn place(&self, key: u32) -> usize {
        (hash(key) >> 7) as usize & (self.slots.len() - 1)
    }

    /// Keep those of some positions at which a string may begin, in front; return how many they are.
    pub(super) fn keep(&self, codes: &[u8], positions: &mut [u16]) -> usize {
        // Kept or not is written without a branch: mispredicted ones cost more than all the rest.
        let mut kept = 0;
        for place in 0..positions.len() {
            let at = positions[place];
            positions[kept] = at;
            let four = codes[usize::from(at)..].first_chunk();
            let bit = hash(four.map_or(0, |four| u32::from_le_bytes(*four))) >> (32 - BITS);
            kept += (self.bitmap[(bit / 64) as usize] >> (bit % 64) & 1) as usize;
        }
        kept
    }

    /// Return what stands under the first four of eight codes, if all eight fit.
    #[inline]
    pub(super) fn find(&self, eight: u64) -> &[Candidate] {
        #[allow(clippy::cast_possible_truncation, reason = "the first four codes")]
        let key = eight as u32;
        let mut at = self.place(key);
        loop {
            let slot = &self.slots[at];
            if slot.entry == 0 || (slot.key == key && eight & slot.mask != slot.value) {
                return &[];
            }
            if slot.key == key {
                let (first, last) = self.entries[slot.entry as usize - 1];
                return &self.candidates[first as usize..last as usize];
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

fn members(codes: Codes) -> impl Iterator<Item = u32> {
    (0..64).filter(move |code| codes >> code & 1 == 1)
}

fn each_key(window: &[Codes; WINDOW], each: &mut impl FnMut(u32)) {
    for a in members(window[0]) {
        for b in members(window[1]) {
            for c in members(window[2]) {
                for d in members(window[3]) {
                    each(a | b << 8 | c << 16 | d << 24);
                }
            }
        }
    }
}

/// The codes that all strings under a key have in common, as a mask and what it leaves.
fn agreement(key: u32, candidates: &[Candidate], strings: &[Indexed<'_>]) -> (u64, u64) {
    let (mut mask, mut value) = (u64::from(u32::MAX), u64::from(key));
    for place in WINDOW..8 {
        let mut codes = candidates.iter().map(|one| {
            strings[one.string as usize]
                .string
                .get(one.offset as usize + place)
                .copied()
                .unwrap_or(Codes::MAX)
        });
        let first = codes.next().unwrap_or(Codes::MAX);
        if first.is_power_of_two() && codes.all(|other| other == first) {
            mask |= 0xFF << (place * 8);
            value |= u64::from(first.trailing_zeros()) << (place * 8);
        }
    }
    (mask, value)
}
