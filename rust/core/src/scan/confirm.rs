//! Whether a rule matches where one of its strings stands.
//!
//! Strings and programs that rules have in common are kept once: a string is compared once for all its rules, and what
//! a program said about a place is remembered while that place is looked at.
//!
//! Each rule may take a number of steps in a text that is linear in its length; one that needs more is left to its
//! automaton.

use std::collections::HashMap;

use super::alphabet::{Codes, PAD};
use super::literal::{Sub, Text, WINDOW};
use super::program::{Haystack, Program};

/// Steps that a rule may take in a text: so many, and some for each of its codes.
const STEPS: usize = 4096;
const STEPS_PER_CODE: usize = 4;

/// Strings, and the rules behind each.
#[derive(Debug, Default)]
pub(super) struct Confirm {
    strings: Vec<Searched>,
    uses: Vec<Use>,
    programs: Vec<Program>,
}

#[derive(Debug)]
struct Searched {
    text: Text,
    /// Where in `uses` its rules are.
    uses: (usize, usize),
}

/// A rule that has a string, with what must stand before and behind it.
#[derive(Debug, Clone, Copy)]
struct Use {
    /// The place of its rule in the plan.
    rule: u16,
    before: u32,
    after: u32,
}

/// A string, where its window begins in it and what that holds, and whether it stands where a word begins.
pub(super) type Key = (Text, usize, [Codes; WINDOW], bool);

/// What was found out, used again for text after text.
#[derive(Debug, Default)]
pub(super) struct State {
    stack: Vec<(u32, u32)>,
    /// For each rule: the text in which it last took steps, and how many.
    spent: Vec<(u64, usize)>,
    /// For each rule: the text in which it was last decided.
    decided: Vec<u64>,
    /// For each program: the place at which it last ran, and in the lowest bit whether it matched.
    known: Vec<u64>,
    place: u64,
    /// Rules that would have taken too many steps, for an automaton to decide.
    pub(super) open: Vec<u16>,
}

impl State {
    pub(super) fn begin(&mut self, rules: usize, confirm: &Confirm) {
        if self.spent.len() < rules {
            self.spent.resize(rules, (0, 0));
            self.decided.resize(rules, 0);
        }
        if self.known.len() < confirm.programs.len() {
            self.known.resize(confirm.programs.len(), 0);
        }
        self.open.clear();
    }
}

impl Confirm {
    /// Put together what rules are searched by: each a place in the plan, and a way to find it.
    ///
    /// The strings are numbered as they are returned.
    pub(super) fn new(found: Vec<(u16, Sub)>) -> (Self, Vec<Key>) {
        let mut confirm = Self::default();
        // The same steps before a string and behind it are two programs: what is known is of one place.
        let mut known: HashMap<(Program, bool), u32> = HashMap::new();
        let mut numbers: HashMap<Key, usize> = HashMap::new();
        let (mut keys, mut uses): (Vec<Key>, Vec<Vec<Use>>) = Default::default();
        for (rule, sub) in found {
            let mut number = |program: Program, before: bool| {
                *known
                    .entry((program, before))
                    .or_insert_with_key(|(program, _)| {
                        confirm.programs.push(program.clone());
                        u32::try_from(confirm.programs.len() - 1).unwrap_or(u32::MAX)
                    })
            };
            let one = Use {
                rule,
                before: number(sub.before, true),
                after: number(sub.after, false),
            };
            for (text, at, window) in sub.strings {
                let key = (text, at, window, sub.start);
                let place = *numbers.entry(key).or_insert_with_key(|key| {
                    keys.push(key.clone());
                    uses.push(Vec::new());
                    keys.len() - 1
                });
                uses[place].push(one);
            }
        }
        for (key, uses) in keys.iter().zip(uses) {
            let first = confirm.uses.len();
            confirm.uses.extend(uses);
            confirm.strings.push(Searched {
                text: key.0.clone(),
                uses: (first, confirm.uses.len()),
            });
        }
        (confirm, keys)
    }

    /// Say whether a string stands at a place of some codes.
    #[inline]
    pub(super) fn stands(&self, string: u32, codes: &[u8]) -> bool {
        let text = &self.strings[string as usize].text;
        codes.len() >= text.len()
            && text
                .iter()
                .zip(codes)
                .all(|(set, &code)| set >> (code & PAD) & 1 == 1)
    }

    /// Call `hit` for each rule that matches where a string stands; those that would take too long are left `open`.
    pub(super) fn each(
        &self,
        string: u32,
        text: Haystack<'_>,
        at: usize,
        stamp: u64,
        state: &mut State,
        mut hit: impl FnMut(u16),
    ) {
        let string = &self.strings[string as usize];
        let (first, last) = string.uses;
        let behind = at + string.text.len();
        let limit = STEPS + STEPS_PER_CODE * (text.end - text.begin);
        state.place += 1;
        for &Use {
            rule,
            before,
            after,
        } in &self.uses[first..last]
        {
            let number = usize::from(rule);
            if state.decided[number] == stamp {
                continue;
            }
            let (last, spent) = state.spent[number];
            let spent = if last == stamp { spent.min(limit) } else { 0 };
            let mut fuel = (limit - spent).saturating_sub(1);
            let fits = self.holds::<true>(before, text, at, state, &mut fuel)
                && self.holds::<false>(after, text, behind, state, &mut fuel);
            state.spent[number] = (stamp, limit - fuel);
            if fuel == 0 {
                state.decided[number] = stamp;
                state.open.push(rule);
            } else if fits {
                state.decided[number] = stamp;
                hit(rule);
            }
        }
    }

    /// Run a program at a place, or say what it said there before.
    #[inline]
    fn holds<const BACKWARD: bool>(
        &self,
        program: u32,
        text: Haystack<'_>,
        at: usize,
        state: &mut State,
        fuel: &mut usize,
    ) -> bool {
        let known = state.known[program as usize];
        if known >> 1 == state.place {
            return known & 1 == 1;
        }
        let holds =
            self.programs[program as usize].matches::<BACKWARD>(text, at, &mut state.stack, fuel);
        if *fuel > 0 {
            state.known[program as usize] = state.place << 1 | u64::from(holds);
        }
        holds
    }
}
