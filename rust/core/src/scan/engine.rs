//! The fast path of a plan: fill a tile with codes, filter it for windows, and confirm what is left.
//!
//! ```text
//! texts -> fill -> tile of codes -> filter -> positions -> bitmap -> slots -> string -> before and after -> hit
//! ```
//!
//! Texts stand in a tile one behind the other with a zero between them; a text that is longer than a tile goes on in the
//! next. A candidate is confirmed on the codes of its whole text. Each rule may take a number of steps in a text that is
//! linear in its length; a rule that needs more is decided by its automaton, once, so a scan is linear whatever the text.

use super::alphabet::PAD;
use super::bucket::Tables;
use super::english::Model;
use super::index::{Candidate, Index, Indexed};
use super::kernel::{Kernel, SLACK};
use super::literal::{self, Sub, Text};
use super::plan::Plan;
use super::program::{Haystack, MARGIN};

/// The codes of a tile: the filter's positions fit in 16 bits, and the codes in the first-level cache.
const TILE: usize = 8192;
/// Codes in front of a tile: the last one of the tile before says whether a word goes on.
const FRONT: usize = 64;
/// What a window and the comparison behind it look at.
const AHEAD: usize = 8;

/// Steps that a rule may take in a text: so many, and some for each of its codes.
const STEPS: usize = 4096;
const STEPS_PER_CODE: usize = 4;

/// Tables, strings and programs of a plan.
#[derive(Debug)]
pub(super) struct Engine {
    kernel: Kernel,
    tables: Tables,
    index: Index,
    strings: Vec<Searched>,
    subs: Vec<Part>,
    /// Rules that no string is necessary for, with the byte that they need, if there is one.
    rest: Vec<(u16, Option<u8>)>,
}

#[derive(Debug)]
struct Searched {
    text: Text,
    sub: u32,
}

#[derive(Debug)]
struct Part {
    /// The place of its rule in the plan.
    rule: u16,
    sub: Sub,
}

/// What the engine writes to, used again for text after text.
#[derive(Debug, Default)]
pub(super) struct Work {
    tile: Vec<u8>,
    positions: Vec<u16>,
    /// The texts in the tile.
    inside: Vec<Inside>,
    /// The codes of the text that is being confirmed, with a margin.
    codes: Vec<u8>,
    /// How many of these are in use.
    length: usize,
    /// The texts that the codes and the spelling are of, by stamp.
    loaded: u64,
    written: u64,
    stack: Vec<(u32, u32)>,
    spelled: Vec<u8>,
    /// For each rule: the text in which it last took steps, and how many.
    spent: Vec<(u64, usize)>,
    /// For each rule: the text in which it was last decided.
    decided: Vec<u64>,
    /// The stamp of text 0. No two texts have the same, so nothing has to be cleared between them.
    first: u64,
    next: u64,
    /// Text and rule of each hit, in the order in which they were found.
    pub(super) hits: Vec<(usize, u16)>,
    /// The texts that normalisation may change.
    pub(super) altered: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Inside {
    /// Where in the tile its codes begin.
    at: usize,
    /// The place of the text among all.
    text: usize,
    /// How many of its codes stood in tiles before.
    before: usize,
}

impl Engine {
    pub(super) fn new(plan: &Plan, kernel: Kernel) -> Self {
        let model = Model::new(plan.alphabet.blank);
        let word = plan.alphabet.word();
        let (mut strings, mut subs, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        let mut windows = Vec::new();
        let mut places = Vec::new();
        for (number, rule) in (0_u16..).zip(&plan.rules) {
            let Some(found) = literal::choose(&rule.node, word, &model, rule.trees) else {
                rest.push((number, plan.necessary(&rule.node)));
                continue;
            };
            for mut sub in found {
                let start = sub.start;
                for (text, at, window) in std::mem::take(&mut sub.strings) {
                    windows.push((window, start));
                    places.push((at, window));
                    strings.push(Searched {
                        text,
                        sub: u32::try_from(subs.len()).unwrap_or(u32::MAX),
                    });
                }
                subs.push(Part { rule: number, sub });
            }
        }
        let indexed: Vec<Indexed<'_>> = strings
            .iter()
            .zip(&places)
            .map(|(string, &(at, window))| Indexed {
                string: &string.text,
                at,
                window,
            })
            .collect();
        Self {
            kernel,
            tables: Tables::new(&windows, plan.alphabet.last_word, &model),
            index: Index::new(&indexed),
            strings,
            subs,
            rest,
        }
    }

    /// The rules, by their place in the plan, that every text is run through an automaton for, and the byte without
    /// which it is not.
    pub(super) fn slow(&self) -> &[(u16, Option<u8>)] {
        &self.rest
    }

    /// Find the rules of the plan in texts.
    pub(super) fn scan(&self, plan: &Plan, texts: &[&[u8]], work: &mut Work) {
        work.begin(plan.rules.len(), texts.len());
        let mut end = FRONT;
        for (number, text) in texts.iter().enumerate() {
            if text.len() + SLACK > FRONT + TILE - end {
                self.flush(plan, texts, work, FRONT, end);
                work.tile[..FRONT].fill(0);
                work.inside.clear();
                end = FRONT;
            }
            if text.len() + SLACK <= TILE {
                work.inside.push(Inside {
                    at: end,
                    text: number,
                    before: 0,
                });
                let (count, altered) =
                    self.kernel
                        .fill(&plan.alphabet, text, &mut work.tile[end..]);
                end += count;
                if altered {
                    work.altered.push(number);
                }
                work.tile[end] = 0;
                end += 1;
            } else {
                self.long(plan, texts, number, work);
            }
        }
        self.flush(plan, texts, work, FRONT, end);
        work.inside.clear();
        for (number, text) in texts.iter().enumerate() {
            for &(rule, byte) in &self.rest {
                if byte.is_none_or(|byte| memchr::memchr(byte, text).is_some()) {
                    self.load(plan, text, number, work);
                    Self::decide(plan, usize::from(rule), number, work);
                }
            }
        }
    }

    /// Scan a text that does not fit into a tile: the last codes of each piece are the first of the next.
    fn long(&self, plan: &Plan, texts: &[&[u8]], number: usize, work: &mut Work) {
        let text = texts[number];
        let (mut at, mut end, mut before) = (0, FRONT, 0);
        let mut any = false;
        work.tile[..FRONT].fill(0);
        while at < text.len() {
            let room = FRONT + TILE - SLACK - end;
            let mut stop = text.len().min(at + room);
            // Not within a character, which has at most three bytes behind its first.
            for _ in 0..3 {
                if stop < text.len() && text[stop] & 0xC0 == 0x80 {
                    stop -= 1;
                }
            }
            let (count, altered) =
                self.kernel
                    .fill(&plan.alphabet, &text[at..stop], &mut work.tile[end..]);
            any |= altered;
            end += count;
            at = stop;
            work.inside.clear();
            work.inside.push(Inside {
                at: FRONT,
                text: number,
                before,
            });
            if at == text.len() {
                work.tile[end] = 0;
                self.flush(plan, texts, work, FRONT, end + 1);
            } else {
                let judged = end - AHEAD;
                self.judge(plan, texts, work, FRONT, judged);
                before += judged - FRONT;
                work.tile.copy_within(judged - 1..end, FRONT - 1);
                end = FRONT + AHEAD;
            }
        }
        if any {
            work.altered.push(number);
        }
        work.tile[..FRONT].fill(0);
        work.inside.clear();
    }

    /// Judge a tile to its end.
    fn flush(&self, plan: &Plan, texts: &[&[u8]], work: &mut Work, from: usize, end: usize) {
        if end > from {
            work.tile[end..end + SLACK].fill(0);
            self.judge(plan, texts, work, from, end);
        }
    }

    /// Look for rules among `tile[from..to]`.
    fn judge(&self, plan: &Plan, texts: &[&[u8]], work: &mut Work, from: usize, to: usize) {
        let found = self
            .kernel
            .filter(&self.tables, &work.tile, from, to, &mut work.positions);
        // Kept or not is written without a branch: mispredicted ones cost more than all the rest.
        let mut kept = 0;
        for place in 0..found {
            let at = work.positions[place];
            work.positions[kept] = at;
            kept += usize::from(self.index.may_hold(four(&work.tile, usize::from(at))));
        }
        let mut cursor = 0;
        for place in 0..kept {
            let at = usize::from(work.positions[place]);
            let Some(candidates) = self.index.find(eight(&work.tile, at)) else {
                continue;
            };
            while work
                .inside
                .get(cursor + 1)
                .is_some_and(|next| next.at <= at)
            {
                cursor += 1;
            }
            let Some(&inside) = work.inside.get(cursor) else {
                continue;
            };
            self.confirm(
                plan,
                texts[inside.text],
                inside.text,
                candidates,
                inside.before + at - inside.at,
                work,
            );
        }
    }

    /// Check what may stand at a place of a text.
    fn confirm(
        &self,
        plan: &Plan,
        text: &[u8],
        number: usize,
        candidates: &[Candidate],
        place: usize,
        work: &mut Work,
    ) {
        let stamp = work.stamp(number);
        for candidate in candidates {
            let string = &self.strings[candidate.string as usize];
            let Part { rule, sub } = &self.subs[string.sub as usize];
            let rule = usize::from(*rule);
            if work.decided[rule] == stamp {
                continue;
            }
            let Some(begin) = (place + MARGIN).checked_sub(candidate.offset as usize) else {
                continue;
            };
            self.load(plan, text, number, work);
            let haystack = Haystack {
                codes: &work.codes[..work.length],
                last_word: plan.alphabet.last_word,
                newline: plan.alphabet.newline,
            };
            let limit = STEPS + STEPS_PER_CODE * text.len();
            let (last, spent) = work.spent[rule];
            let mut fuel =
                (limit - if last == stamp { spent.min(limit) } else { 0 }).saturating_sub(1);
            let fits = begin >= MARGIN
                && string
                    .text
                    .iter()
                    .zip(&haystack.codes[begin..])
                    .all(|(set, &code)| set >> (code & PAD) & 1 == 1)
                && sub
                    .before
                    .matches::<true>(haystack, begin, &mut work.stack, &mut fuel)
                && sub.after.matches::<false>(
                    haystack,
                    begin + string.text.len(),
                    &mut work.stack,
                    &mut fuel,
                );
            work.spent[rule] = (stamp, limit - fuel);
            if fuel == 0 {
                Self::decide(plan, rule, number, work);
            } else if fits {
                work.decided[rule] = stamp;
                work.hits.push((number, plan.rules[rule].id));
            }
        }
    }

    /// Let the automaton say whether a rule matches in the text that is loaded.
    fn decide(plan: &Plan, rule: usize, number: usize, work: &mut Work) {
        let stamp = work.stamp(number);
        if work.written != stamp {
            work.written = stamp;
            plan.spell(&work.codes[MARGIN..work.length - MARGIN], &mut work.spelled);
        }
        work.decided[rule] = stamp;
        if plan.automaton(&plan.rules[rule]).matches(&work.spelled) {
            work.hits.push((number, plan.rules[rule].id));
        }
    }

    /// Write the codes of a whole text, with a margin that no set holds.
    fn load(&self, plan: &Plan, text: &[u8], number: usize, work: &mut Work) {
        let stamp = work.stamp(number);
        if work.loaded == stamp {
            return;
        }
        work.loaded = stamp;
        let room = MARGIN + text.len() + SLACK;
        if work.codes.len() < room {
            work.codes.resize(room, PAD);
            work.codes[..MARGIN].fill(PAD);
        }
        let (count, _) = self
            .kernel
            .fill(&plan.alphabet, text, &mut work.codes[MARGIN..]);
        work.codes[MARGIN + count..MARGIN + count + MARGIN].fill(PAD);
        work.length = MARGIN + count + MARGIN;
    }
}

impl Work {
    fn begin(&mut self, rules: usize, texts: usize) {
        if self.tile.is_empty() {
            self.tile.resize(FRONT + TILE + SLACK, 0);
            self.positions.resize(TILE + SLACK, 0);
        }
        self.tile[..FRONT].fill(0);
        self.inside.clear();
        self.hits.clear();
        self.altered.clear();
        if self.spent.len() < rules {
            self.spent.resize(rules, (0, 0));
            self.decided.resize(rules, 0);
        }
        self.first = self.next.max(1);
        self.next = self.first + texts as u64;
    }

    fn stamp(&self, number: usize) -> u64 {
        self.first + number as u64
    }
}

fn four(codes: &[u8], at: usize) -> u32 {
    codes[at..]
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn eight(codes: &[u8], at: usize) -> u64 {
    codes[at..]
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
