//! The engine's front: a pack, planned once, and the texts that it is asked about.

use super::naive;
use super::pack::{Pack, PackError};
use super::plan::Plan;

/// The most findings of one rule in one text; what follows is not listed, and the rule counts as found all the same.
pub const FINDINGS: usize = 1000;

/// A rule that matches somewhere in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// The place of the rule in its pack.
    pub rule: u16,
    /// Whether only the normalised text has it.
    pub obfuscated: bool,
}

/// Where a rule matches; places are counted in code points of the original text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The first code point.
    pub start: usize,
    /// The one behind the last.
    pub end: usize,
    /// The place of the rule in its pack.
    pub rule: u16,
    /// Whether only the normalised text has it.
    pub obfuscated: bool,
}

/// What a scan writes to; one for each thread, used again for text after text.
#[derive(Debug, Default)]
pub struct Scratch {
    codes: Vec<u8>,
    spelled: Vec<u8>,
    hits: Vec<Hit>,
}

/// A pack, ready to scan.
#[derive(Debug)]
pub struct Scanner {
    pack: Pack,
    plans: Vec<Plan>,
}

impl Scanner {
    /// Plan a pack.
    ///
    /// # Errors
    /// A rule tells more characters apart than the engine has codes for.
    pub fn new(pack: Pack) -> Result<Self, PackError> {
        Ok(Self {
            plans: Plan::all(&pack)?,
            pack,
        })
    }

    /// Return the pack.
    #[must_use]
    pub fn pack(&self) -> &Pack {
        &self.pack
    }

    /// Return the rules that match anywhere in a text, by their place in the pack.
    ///
    /// A text is UTF-8, in which surrogates may stand as three bytes; any other byte is a character that no rule names.
    pub fn hits<'a>(&self, text: &[u8], scratch: &'a mut Scratch) -> &'a [Hit] {
        scratch.hits.clear();
        for plan in &self.plans {
            plan.encode(text, &mut scratch.codes);
            plan.spell(&scratch.codes, &mut scratch.spelled);
            naive::rules(plan, &scratch.spelled, |rule| {
                scratch.hits.push(Hit {
                    rule,
                    obfuscated: false,
                });
            });
        }
        scratch.hits.sort_unstable();
        &scratch.hits
    }

    /// Call `done` with the hits of each text, in order.
    pub fn each(&self, texts: &[&[u8]], scratch: &mut Scratch, mut done: impl FnMut(&[Hit])) {
        for text in texts {
            done(self.hits(text, scratch));
        }
    }

    /// Return where the rules match that [`Scanner::hits`] returned, in the order of their starts.
    ///
    /// For each rule these are the matches of `re.finditer`: leftmost, apart from each other, at most [`FINDINGS`].
    pub fn findings(&self, text: &[u8], hits: &[Hit], scratch: &mut Scratch) -> Vec<Finding> {
        let mut found = Vec::new();
        for plan in &self.plans {
            let asked = |id: u16| hits.binary_search_by_key(&id, |hit| hit.rule).is_ok();
            if !plan.rules.iter().any(|rule| asked(rule.id)) {
                continue;
            }
            plan.encode(text, &mut scratch.codes);
            plan.spell(&scratch.codes, &mut scratch.spelled);
            for rule in plan.rules.iter().filter(|rule| asked(rule.id)) {
                let automaton = plan.automaton(rule);
                let mut from = 0;
                for _ in 0..FINDINGS {
                    let Some((start, end)) = automaton.find(&scratch.spelled, from) else {
                        break;
                    };
                    found.push(Finding {
                        start,
                        end,
                        rule: rule.id,
                        obfuscated: false,
                    });
                    from = end;
                }
            }
        }
        found.sort_unstable();
        found
    }
}
