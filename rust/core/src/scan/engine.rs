//! The fast path of a plan: fill a tile with codes, filter it for windows, and confirm what is left.
//!
//! ```text
//! texts -> fill -> tile of codes -> filter -> positions -> bitmap -> slots -> string -> before and after -> hit
//! ```
//!
//! Texts stand in a tile one behind the other, between them a code that no set holds, so that nothing is found across
//! two; there they are confirmed too. A text that is longer than a tile goes on in the next, and is confirmed on a buffer
//! of its own. A rule for which that takes too many steps is decided by its automaton, once for a text, so a scan is
//! linear whatever the text.

use super::alphabet::PAD;
use super::bucket::Tables;
use super::confirm::{Confirm, State};
use super::english::Model;
use super::index::{Index, Indexed};
use super::kernel::{Kernel, Packed, SLACK};
use super::literal::{self, Shares};
use super::plan::Plan;
use super::program::{Haystack, MARGIN};

/// The codes of a tile: the filter's positions fit in 16 bits, and the codes in the first-level cache.
const TILE: usize = 8192;
/// Codes in front of a tile; in a long text, as many as a string may have before its window.
const FRONT: usize = 64;
/// How far one looks behind a place that is judged: as far as a string goes.
const AHEAD: usize = 72;
/// A power of two with room for a tile: a place masked by it needs no other check.
const ROOM: usize = 1 << 14;
const _: () = assert!(FRONT + TILE + SLACK <= ROOM);

/// Tables, strings and programs of a plan.
#[derive(Debug)]
pub(super) struct Engine {
    kernel: Kernel,
    tables: Tables,
    index: Index,
    confirm: Confirm,
    /// Rules that no string is necessary for, with the byte that they need, if there is one.
    rest: Vec<(u16, Option<u8>)>,
}

/// What the engine writes to, used again for text after text.
#[derive(Debug, Default)]
pub(super) struct Work {
    tile: Tile,
    whole: Whole,
    state: State,
    /// The stamp of text 0. No two texts have the same, so nothing has to be cleared between them.
    first: u64,
    next: u64,
    /// Text and rule of each hit, in the order in which they were found.
    pub(super) hits: Vec<(usize, u16)>,
    /// The texts that normalisation may change.
    pub(super) altered: Vec<usize>,
}

/// Texts one behind the other, or a piece of a long one.
#[derive(Debug, Default)]
struct Tile {
    /// [`ROOM`] codes, and some behind.
    codes: Vec<u8>,
    positions: Vec<u16>,
    /// Where each text begins.
    starts: Vec<u16>,
    /// Which of the texts the first one is.
    first: usize,
}

/// The codes of one text as a whole, with a margin that no set holds.
#[derive(Debug, Default)]
struct Whole {
    codes: Vec<u8>,
    /// How many of these are in use.
    length: usize,
    /// The texts that the codes and the spelling are of, by stamp.
    loaded: u64,
    written: u64,
    spelled: Vec<u8>,
}

impl Engine {
    pub(super) fn new(plan: &Plan, kernel: Kernel) -> Self {
        let model = Model::new(plan.alphabet.blank);
        let shares = Shares::default();
        let word = plan.alphabet.word();
        let (mut found, mut rest) = (Vec::new(), Vec::new());
        for (number, rule) in (0_u16..).zip(&plan.rules) {
            match literal::choose(&rule.node, word, &model, &shares, rule.trees) {
                Some(subs) => found.extend(subs.into_iter().map(|sub| (number, sub))),
                None => rest.push((number, plan.necessary(&rule.node))),
            }
        }
        let (confirm, strings) = Confirm::new(found);
        let windows: Vec<_> = strings
            .iter()
            .map(|&(_, _, window, start)| (window, start))
            .collect();
        let indexed: Vec<Indexed<'_>> = strings
            .iter()
            .map(|(string, at, window, _)| Indexed {
                string,
                at: *at,
                window: *window,
            })
            .collect();
        Self {
            kernel,
            tables: Tables::new(&windows, plan.alphabet.last_word, &model),
            index: Index::new(&indexed),
            confirm,
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
        work.begin(plan.rules.len(), texts.len(), &self.confirm);
        let mut next = 0;
        while next < texts.len() {
            let Work { tile, altered, .. } = work;
            tile.first = next;
            tile.starts.clear();
            let mut packed = Packed {
                out: &mut tile.codes[..FRONT + TILE + SLACK],
                end: FRONT,
                starts: &mut tile.starts,
                altered,
            };
            self.kernel.pack(&plan.alphabet, texts, next, &mut packed);
            let end = packed.end;
            if tile.starts.is_empty() {
                self.long(plan, texts, next, work);
                next += 1;
            } else {
                next += tile.starts.len();
                tile.codes[end..end + SLACK].fill(PAD);
                self.judge(plan, texts, work, end, None);
            }
        }
        if !self.rest.is_empty() {
            self.search(plan, texts, work);
        }
    }

    /// Run the rules that no string is necessary for.
    fn search(&self, plan: &Plan, texts: &[&[u8]], work: &mut Work) {
        for (number, text) in texts.iter().enumerate() {
            for &(rule, byte) in &self.rest {
                if byte.is_none_or(|byte| memchr::memchr(byte, text).is_some()) {
                    let stamp = work.first + number as u64;
                    work.whole.load(self.kernel, plan, text, stamp);
                    if work.whole.matches(plan, rule) {
                        work.hits.push((number, plan.rules[usize::from(rule)].id));
                    }
                }
            }
        }
    }

    /// Scan a text that does not fit into a tile: the last codes of each piece are the first of the next.
    fn long(&self, plan: &Plan, texts: &[&[u8]], number: usize, work: &mut Work) {
        let text = texts[number];
        let (mut at, mut end, mut before) = (0, FRONT, 0);
        let mut any = false;
        while at < text.len() {
            let tile = &mut work.tile.codes;
            let room = FRONT + TILE - end;
            let mut stop = text.len().min(at + room);
            // Not within a character, which has at most three bytes behind its first.
            for _ in 0..3 {
                if stop < text.len() && text[stop] & 0xC0 == 0x80 {
                    stop -= 1;
                }
            }
            let (count, altered) =
                self.kernel
                    .fill(&plan.alphabet, &text[at..stop], &mut tile[end..]);
            any |= altered;
            end += count;
            at = stop;
            if at == text.len() {
                tile[end..end + SLACK].fill(PAD);
                self.judge(plan, texts, work, end, Some(before));
            } else {
                let judged = end - AHEAD;
                self.judge(plan, texts, work, judged, Some(before));
                before += judged - FRONT;
                work.tile.codes.copy_within(judged - FRONT..end, 0);
                end = FRONT + AHEAD;
            }
        }
        if any {
            work.altered.push(number);
        }
        work.tile.codes[..FRONT].fill(PAD);
    }

    /// Look for rules in a tile up to `to`; of a long text, `before` codes came before the tile.
    fn judge(
        &self,
        plan: &Plan,
        texts: &[&[u8]],
        work: &mut Work,
        to: usize,
        before: Option<usize>,
    ) {
        let Work {
            tile,
            whole,
            state,
            hits,
            first,
            ..
        } = work;
        let first = *first;
        let Some(codes) = tile.codes.first_chunk::<{ ROOM + 8 }>() else {
            return;
        };
        let found = self
            .kernel
            .filter(&self.tables, codes, FRONT, to, &mut tile.positions);
        let kept = self.index.keep(codes, &mut tile.positions[..found]);
        let mut cursor = 0;
        for &at in &tile.positions[..kept] {
            let at = usize::from(at);
            for candidate in self.index.find(eight(codes, at)) {
                let Some(begin) = at.checked_sub(candidate.offset as usize) else {
                    continue;
                };
                if !self.confirm.stands(candidate.string, &codes[begin..]) {
                    continue;
                }
                while tile
                    .starts
                    .get(cursor + 1)
                    .is_some_and(|&next| usize::from(next) <= at)
                {
                    cursor += 1;
                }
                let number = tile.first + cursor;
                let stamp = first + number as u64;
                let (text, begin) = match before {
                    None => {
                        let end = tile.starts.get(cursor + 1).map_or(to, |&next| next.into());
                        let place = (usize::from(tile.starts[cursor]), end - 1);
                        (Haystack::new(plan, codes, place), begin)
                    }
                    Some(before) => {
                        whole.load(self.kernel, plan, texts[number], stamp);
                        (whole.haystack(plan), MARGIN + before + begin - FRONT)
                    }
                };
                self.confirm
                    .each(candidate.string, text, begin, stamp, state, |rule| {
                        hits.push((number, plan.rules[usize::from(rule)].id));
                    });
                while let Some(rule) = state.open.pop() {
                    whole.load(self.kernel, plan, texts[number], stamp);
                    if whole.matches(plan, rule) {
                        hits.push((number, plan.rules[usize::from(rule)].id));
                    }
                }
            }
        }
    }
}

impl Whole {
    /// Write the codes of a text, if they are not there yet.
    fn load(&mut self, kernel: Kernel, plan: &Plan, text: &[u8], stamp: u64) {
        if self.loaded == stamp {
            return;
        }
        self.loaded = stamp;
        let room = MARGIN + text.len() + SLACK;
        if self.codes.len() < room {
            self.codes.resize(room, PAD);
            self.codes[..MARGIN].fill(PAD);
        }
        let (count, _) = kernel.fill(&plan.alphabet, text, &mut self.codes[MARGIN..]);
        self.codes[MARGIN + count..MARGIN + count + MARGIN].fill(PAD);
        self.length = MARGIN + count + MARGIN;
    }

    fn haystack(&self, plan: &Plan) -> Haystack<'_> {
        let place = (MARGIN, self.length - MARGIN);
        Haystack::new(plan, &self.codes[..self.length], place)
    }

    /// Let the automaton say whether a rule matches in the text that is loaded.
    fn matches(&mut self, plan: &Plan, rule: u16) -> bool {
        if self.written != self.loaded {
            self.written = self.loaded;
            let codes = &self.codes[MARGIN..self.length - MARGIN];
            plan.spell(codes, &mut self.spelled);
        }
        let rule = &plan.rules[usize::from(rule)];
        plan.automaton(rule).matches(&self.spelled)
    }
}

impl Work {
    fn begin(&mut self, rules: usize, texts: usize, confirm: &Confirm) {
        if self.tile.codes.is_empty() {
            self.tile.codes.resize(ROOM + 8, PAD);
            self.tile.positions.resize(TILE + SLACK, 0);
        }
        self.hits.clear();
        self.altered.clear();
        self.state.begin(rules, confirm);
        self.first = self.next.max(1);
        self.next = self.first + texts as u64;
    }
}

/// Eight codes of a tile.
#[inline]
fn eight(codes: &[u8; ROOM + 8], at: usize) -> u64 {
    codes[at & (ROOM - 1)..]
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
