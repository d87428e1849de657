//! The engine's front: a pack, planned once, and the texts that it is asked about.

use super::engine::{Engine, Work};
use super::fold::{Normalise, every_reading, is_suspicious, readings};
use super::kernel::Kernel;
use super::naive;
use super::pack::{Pack, PackError};
use super::plan::{Plan, PlannedRule};

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
    pub(super) work: Work,
    pub(super) codes: Vec<u8>,
    pub(super) spelled: Vec<u8>,
    /// Text and hit, of all plans.
    found: Vec<(usize, Hit)>,
    pub(super) hits: Vec<Hit>,
    /// Texts that are scanned in other readings too.
    suspicious: Vec<(usize, bool)>,
    /// Texts with bytes that begin no character.
    malformed: Vec<usize>,
    /// How many texts were.
    second_looks: u64,
}

impl Scratch {
    /// Return how many texts were scanned in another reading too.
    #[must_use]
    pub fn second_looks(&self) -> u64 {
        self.second_looks
    }

    /// Return which of the texts that were scanned together are not UTF-8; a surrogate is not.
    #[must_use]
    pub fn malformed(&self) -> &[usize] {
        &self.malformed
    }
}

/// How texts are scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The instruction set.
    pub kernel: Kernel,
    /// What is undone before a suspicious text is scanned a second time.
    pub normalise: Normalise,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kernel: Kernel::fastest(),
            normalise: Normalise::default(),
        }
    }
}

/// A pack, ready to scan.
#[derive(Debug)]
pub struct Scanner {
    pack: Pack,
    plans: Vec<(Plan, Engine)>,
    options: Options,
}

/// A rule that every text is run through an automaton for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    /// The place of the rule in its pack.
    pub rule: u16,
    /// The character without which a text is left out.
    pub unless: Option<char>,
}

impl Scanner {
    /// Plan a pack.
    ///
    /// # Errors
    /// A rule tells more characters apart than the engine has codes for, or the machine does not have what the kernel
    /// needs.
    pub fn new(pack: Pack, options: Options) -> Result<Self, PackError> {
        let kernel = options.kernel;
        if !kernel.is_here() {
            return Err(PackError::new(format!(
                "`kernel` is {kernel:?}: this machine does not have it"
            )));
        }
        let plans = Plan::all(pack.nodes(), &|rule| pack.describe(rule))?
            .into_iter()
            .map(|plan| {
                let engine = Engine::new(&plan, kernel);
                (plan, engine)
            });
        Ok(Self {
            plans: plans.collect(),
            pack,
            options,
        })
    }

    /// Return the pack.
    #[must_use]
    pub fn pack(&self) -> &Pack {
        &self.pack
    }

    /// Return the instruction set that texts are scanned with.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.options.kernel
    }

    /// Return the rules that no rare string is part of: they are what a scan waits for.
    #[must_use]
    pub fn slow(&self) -> Vec<Slow> {
        let slow = |(plan, engine): &(Plan, Engine)| {
            let rules = engine.slow().iter().map(|&(rule, unless)| Slow {
                rule: plan.rules[usize::from(rule)].id,
                unless: unless.map(char::from),
            });
            rules.collect::<Vec<_>>()
        };
        self.plans.iter().flat_map(slow).collect()
    }

    /// Return the rules that match anywhere in a text, by their place in the pack.
    ///
    /// A text is UTF-8, in which surrogates may stand as three bytes; any other byte is a character that no rule names.
    pub fn hits<'a>(&self, text: &[u8], scratch: &'a mut Scratch) -> &'a [Hit] {
        self.find(&[text], scratch);
        scratch.hits.clear();
        scratch
            .hits
            .extend(scratch.found.iter().map(|&(_, hit)| hit));
        &scratch.hits
    }

    /// Return the hits of texts, in order: the place of a text, and what it has.
    pub fn all<'a>(&self, texts: &[&[u8]], scratch: &'a mut Scratch) -> &'a [(usize, Hit)] {
        self.find(texts, scratch);
        &scratch.found
    }

    fn find(&self, texts: &[&[u8]], scratch: &mut Scratch) {
        scratch.found.clear();
        scratch.suspicious.clear();
        scratch.malformed.clear();
        for (plan, engine) in &self.plans {
            engine.scan(plan, texts, &mut scratch.work);
            let hits = scratch.work.hits.iter().map(|&(text, rule)| {
                (
                    text,
                    Hit {
                        rule,
                        obfuscated: false,
                    },
                )
            });
            scratch.found.extend(hits);
            // All plans see the same characters; the first one says which may be changed.
            if scratch.suspicious.is_empty() {
                scratch
                    .suspicious
                    .extend(scratch.work.altered.iter().map(|&text| (text, true)));
            }
        }
        let altered = scratch.suspicious.iter().map(|&(text, _)| text);
        let odd = altered.filter(|&text| std::str::from_utf8(texts[text]).is_err());
        scratch.malformed.extend(odd);
        match self.options.normalise {
            Normalise::None => scratch.suspicious.clear(),
            Normalise::Unicode => {}
            Normalise::Full => {
                let more = texts
                    .iter()
                    .enumerate()
                    .filter(|(_, text)| is_suspicious(text));
                scratch
                    .suspicious
                    .extend(more.map(|(text, _)| (text, false)));
            }
        }
        for (text, altered) in std::mem::take(&mut scratch.suspicious) {
            self.look_again(texts[text], text, altered, scratch);
        }
        scratch.found.sort_unstable();
        // A rule that is found in what is written is not obfuscated, and sorts first.
        scratch.found.dedup_by_key(|(text, hit)| (*text, hit.rule));
    }

    /// Find the rules in the other readings of a text.
    #[cold]
    fn look_again(&self, text: &[u8], number: usize, altered: bool, scratch: &mut Scratch) {
        scratch.second_looks += 1;
        for folded in readings(text, altered, self.options.normalise) {
            for (plan, engine) in &self.plans {
                engine.scan(plan, &[&folded.text], &mut scratch.work);
                let hits = scratch.work.hits.iter().map(|&(_, rule)| {
                    (
                        number,
                        Hit {
                            rule,
                            obfuscated: true,
                        },
                    )
                });
                scratch.found.extend(hits);
            }
        }
    }

    /// Return what [`Scanner::hits`] returns, found by the oracle: every rule by its own automaton.
    #[must_use]
    pub fn hits_by_automata(&self, text: &[u8]) -> Vec<Hit> {
        let (mut codes, mut spelled, mut hits) = (Vec::new(), Vec::new(), Vec::new());
        for (plan, _) in &self.plans {
            plan.encode(Kernel::Scalar, text, &mut codes);
            plan.spell(&codes, &mut spelled);
            naive::rules(plan, &spelled, |rule| {
                hits.push(Hit {
                    rule,
                    obfuscated: false,
                });
            });
        }
        hits.sort_unstable();
        hits
    }

    /// Return what is undone before a suspicious text is scanned a second time.
    pub(super) fn normalise(&self) -> Normalise {
        self.options.normalise
    }

    /// Return where the rules match that [`Scanner::hits`] returned, in the order of their starts.
    ///
    /// For each rule these are the matches of `re.finditer`: leftmost, apart from each other, at most [`FINDINGS`].
    pub fn findings(&self, text: &[u8], hits: &[Hit], scratch: &mut Scratch) -> Vec<Finding> {
        let of = |obfuscated: bool| {
            let hits = hits.iter().filter(|hit| hit.obfuscated == obfuscated);
            hits.map(|hit| hit.rule).collect::<Vec<_>>()
        };
        let mut spans = Vec::new();
        self.spans(text, &of(false), scratch, &mut spans);
        let finding = |(rule, (start, end)), obfuscated| Finding {
            start,
            end,
            rule,
            obfuscated,
        };
        let mut found: Vec<Finding> = spans.drain(..).map(|one| finding(one, false)).collect();
        let hidden = of(true);
        if !hidden.is_empty() {
            for folded in every_reading(text, self.options.normalise) {
                self.spans(&folded.text, &hidden, scratch, &mut spans);
                found.extend(spans.drain(..).map(|(rule, (start, end))| {
                    finding((rule, folded.original(start, end)), true)
                }));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Add where rules, in ascending order, match in a reading of a text.
    pub(super) fn spans(
        &self,
        text: &[u8],
        rules: &[u16],
        scratch: &mut Scratch,
        found: &mut Vec<(u16, (usize, usize))>,
    ) {
        if rules.is_empty() {
            return;
        }
        for (plan, _) in &self.plans {
            let asked = |rule: &&PlannedRule| rules.binary_search(&rule.id).is_ok();
            if !plan.rules.iter().any(|rule| asked(&rule)) {
                continue;
            }
            plan.encode(self.options.kernel, text, &mut scratch.codes);
            plan.spell(&scratch.codes, &mut scratch.spelled);
            for rule in plan.rules.iter().filter(asked) {
                let automaton = plan.automaton(rule);
                let mut from = 0;
                for _ in 0..FINDINGS {
                    let Some((start, end)) = automaton.find(&scratch.spelled, from) else {
                        break;
                    };
                    from = end;
                    found.push((rule.id, (start, end)));
                }
            }
        }
    }
}
