//! From places where rules match to a verdict: what is taken back, what is lowered, and whether the text is flagged.
//!
//! Only a text in which a rule matches pays for any of it.

use super::fold::{Folded, every_reading};
use super::pack::{Kind, Pack, PackError, Severity, Source};
use super::scanner::{Hit, Options, Scanner, Scratch};
use super::slots::BEGIN;
use super::subtle;
use super::surround::{Reading, Span, Surroundings};

/// A place where a rule matches, and what it is there; places are counted in code points of the original text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The first code point.
    pub start: usize,
    /// The one behind the last.
    pub end: usize,
    /// The place of the rule in its pack.
    pub rule: u16,
    /// Whether only the normalised text has it.
    pub obfuscated: bool,
    /// How bad it is, lowered by its frames.
    pub severity: Severity,
    /// The frames around it, by their place in the pack.
    pub frames: Vec<u16>,
}

/// What a text comes to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// Whether it is flagged, by a finding or by its words together.
    pub flagged: bool,
    /// Whether a finding flags it.
    pub explicit: bool,
    /// The score of words that are only suspicious together.
    pub subtle: f64,
    /// What was found, in the order of their starts.
    pub found: Vec<Found>,
}

impl Verdict {
    /// Add the verdict on another piece of the same text.
    pub fn merge(&mut self, other: Self) {
        self.flagged |= other.flagged;
        self.explicit |= other.explicit;
        self.subtle = self.subtle.max(other.subtle);
        self.found.extend(other.found);
        settle(&mut self.found);
    }
}

/// Put findings in order, each once; of two that differ by their frames the worse stays.
fn settle(found: &mut Vec<Found>) {
    found.sort_unstable_by(|a, b| {
        let key = |one: &Found| (one.start, one.end, one.rule, one.obfuscated);
        key(a).cmp(&key(b)).then(b.severity.cmp(&a.severity))
    });
    found.dedup_by_key(|one| (one.start, one.end, one.rule, one.obfuscated));
}

/// What a rule needs behind a match.
#[derive(Debug)]
struct Needs {
    severity: Severity,
    kind: Kind,
    weight: f64,
    /// The frames that may stand around it.
    frames: Vec<u16>,
    exclusion: Option<usize>,
    exclude_window: usize,
    validate: Option<super::check::Check>,
    /// Whether its match may begin with the end of the sentence before.
    trimmed: bool,
    /// Whether a match is all there is to know.
    plain: bool,
}

/// A pack, ready to judge texts.
#[derive(Debug)]
pub struct Judge {
    scanner: Scanner,
    surroundings: Surroundings,
    needs: Vec<Needs>,
    weights: Vec<f64>,
    flag_value: f64,
}

impl Judge {
    /// Plan a pack.
    ///
    /// # Errors
    /// As for [`Scanner::new`].
    pub fn new(pack: Pack, options: Options) -> Result<Self, PackError> {
        let surroundings = Surroundings::new(&pack, options.kernel)?;
        let needs = pack.rules().iter().enumerate().map(|(place, rule)| {
            let frames: Vec<u16> = (0_u16..)
                .zip(pack.frames())
                .filter(|(_, frame)| {
                    rule.frames
                        .as_ref()
                        .is_none_or(|named| named.contains(&frame.id))
                })
                .map(|(number, _)| number)
                .collect();
            let begins = |order: &Vec<String>| order.first().is_some_and(|slot| slot == BEGIN);
            let trimmed =
                matches!(&rule.source, Source::Slots(slots) if slots.orders.iter().any(begins));
            let exclusion = pack.exclusion(place);
            Needs {
                severity: rule.severity,
                kind: rule.kind,
                weight: rule.weight,
                plain: frames.is_empty() && exclusion.is_none() && rule.validate.is_none(),
                frames,
                exclusion,
                exclude_window: rule.exclude_window,
                validate: rule.validate,
                trimmed,
            }
        });
        Ok(Self {
            surroundings,
            needs: needs.collect(),
            weights: pack
                .subtle()
                .lemmas
                .iter()
                .map(|&(_, weight, _)| weight)
                .collect(),
            flag_value: pack.flag_at().value(),
            scanner: Scanner::new(pack, options)?,
        })
    }

    /// Return the engine.
    #[must_use]
    pub fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    /// Return the pack.
    #[must_use]
    pub fn pack(&self) -> &Pack {
        self.scanner.pack()
    }

    /// Judge a text.
    #[must_use]
    pub fn verdict(&self, text: &[u8], scratch: &mut Scratch) -> Verdict {
        if self.scanner.hits(text, scratch).is_empty() {
            return Verdict::default();
        }
        let hits = std::mem::take(&mut scratch.hits);
        let verdict = self.weigh(text, &hits, scratch);
        scratch.hits = hits;
        verdict
    }

    /// Judge a text whose hits are known.
    fn weigh(&self, text: &[u8], hits: &[Hit], scratch: &mut Scratch) -> Verdict {
        let (rules, lemmas) =
            hits.split_at(hits.partition_point(|hit| usize::from(hit.rule) < self.needs.len()));
        let mut found = Vec::new();
        if !rules.is_empty() {
            let plain: Vec<u16> = rules
                .iter()
                .filter(|hit| !hit.obfuscated)
                .map(|hit| hit.rule)
                .collect();
            self.read(text, None, &plain, scratch, &mut found);
            // What was taken back where it is plain may stand hidden elsewhere.
            let lost = |hit: &&Hit| {
                hit.obfuscated || !found.iter().any(|one: &Found| one.rule == hit.rule)
            };
            let hidden: Vec<u16> = rules.iter().filter(lost).map(|hit| hit.rule).collect();
            if !hidden.is_empty() {
                for folded in every_reading(text, self.scanner.normalise()) {
                    self.read(&folded.text, Some(&folded), &hidden, scratch, &mut found);
                }
            }
            settle(&mut found);
        }
        let subtle = self.subtle(text, lemmas, scratch);
        let explicit = found.iter().any(|one| self.flags(one.rule, one.severity));
        Verdict {
            flagged: explicit || subtle > self.pack().subtle().threshold,
            explicit,
            subtle,
            found,
        }
    }

    /// Return the rules that match in a text whose hits are known, and whether it is flagged.
    pub fn row(&self, text: &[u8], hits: &[Hit], scratch: &mut Scratch) -> (Vec<u16>, bool) {
        let is_rule = |hit: &&Hit| usize::from(hit.rule) < self.needs.len();
        let plain = hits
            .iter()
            .filter(is_rule)
            .all(|hit| self.needs[usize::from(hit.rule)].plain);
        let weight: f64 = hits.iter().filter_map(|hit| self.weight(hit.rule)).sum();
        if plain && subtle::bound(weight) <= self.pack().subtle().threshold {
            let rules: Vec<u16> = hits.iter().filter(is_rule).map(|hit| hit.rule).collect();
            let flagged = rules
                .iter()
                .any(|&rule| self.flags(rule, self.needs[usize::from(rule)].severity));
            return (rules, flagged);
        }
        let verdict = self.weigh(text, hits, scratch);
        let mut rules: Vec<u16> = verdict.found.iter().map(|one| one.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        (rules, verdict.flagged)
    }

    /// The weight of a hit that is a word of the subtle score.
    fn weight(&self, id: u16) -> Option<f64> {
        self.weights
            .get(usize::from(id).checked_sub(self.needs.len())?)
            .copied()
    }

    /// Say whether a finding flags a text.
    #[must_use]
    pub fn flags(&self, rule: u16, severity: Severity) -> bool {
        let needs = &self.needs[usize::from(rule)];
        needs.kind == Kind::Harm
            && needs.weight > 0.0
            && needs.weight * severity.value() >= self.flag_value
    }

    /// Return one number to rank texts by, from 0 to 1: what counts for harm, and how near the words come to it.
    #[must_use]
    pub fn score(&self, verdict: &Verdict) -> f64 {
        let harmful = verdict.found.iter().map(|one| {
            let needs = &self.needs[usize::from(one.rule)];
            let counts = f64::from(u8::from(needs.kind == Kind::Harm));
            counts * needs.weight * one.severity.value()
        });
        let threshold = self.pack().subtle().threshold.max(f64::EPSILON);
        let together = self.flag_value * (verdict.subtle / threshold).min(1.0);
        harmful.fold(together, f64::max)
    }

    /// Add what rules find in a reading of the text.
    fn read(
        &self,
        text: &[u8],
        folded: Option<&Folded>,
        rules: &[u16],
        scratch: &mut Scratch,
        found: &mut Vec<Found>,
    ) {
        let mut spans = Vec::new();
        self.scanner.spans(text, rules, scratch, &mut spans);
        if spans.is_empty() {
            return;
        }
        let reading = Reading::new(text);
        let mut around: Option<Vec<Vec<Span>>> = None;
        for (rule, span) in spans {
            let needs = &self.needs[usize::from(rule)];
            let span = if needs.trimmed {
                reading.trimmed(span)
            } else {
                span
            };
            if needs
                .validate
                .is_some_and(|check| !check.passes(reading.text(span)))
            {
                continue;
            }
            let mut frames = Vec::new();
            let mut levels = 0;
            if !needs.frames.is_empty() || needs.exclusion.is_some() {
                let around = around.get_or_insert_with(|| self.surroundings.find(text, scratch));
                let excludes = |word: &Span| reading.excludes(*word, span, needs.exclude_window);
                if needs
                    .exclusion
                    .is_some_and(|place| around[place].iter().any(excludes))
                {
                    continue;
                }
                for &number in &needs.frames {
                    let frame = &self.pack().frames()[usize::from(number)];
                    if around[usize::from(number)]
                        .iter()
                        .any(|cue| reading.frames(*cue, span, frame))
                    {
                        frames.push(number);
                        levels += usize::from(frame.lowers);
                    }
                }
            }
            let severity = match needs.severity {
                Severity::Critical => Severity::Critical,
                severity => severity.lowered(levels),
            };
            let (start, end) = folded.map_or(span, |folded| folded.original(span.0, span.1));
            found.push(Found {
                start,
                end,
                rule,
                obfuscated: folded.is_some(),
                severity,
                frames,
            });
        }
    }

    /// The score of the words that are suspicious together.
    fn subtle(&self, text: &[u8], lemmas: &[Hit], scratch: &mut Scratch) -> f64 {
        if lemmas.is_empty() {
            return 0.0;
        }
        let weight: f64 = lemmas.iter().filter_map(|hit| self.weight(hit.rule)).sum();
        let starts: Vec<usize> = subtle::words(text).collect();
        // In one window, where they stand does not matter.
        if starts.len() <= 32 {
            return subtle::score(weight, starts.len());
        }
        let mut found = Vec::new();
        let plain: Vec<u16> = lemmas
            .iter()
            .filter(|hit| !hit.obfuscated)
            .map(|hit| hit.rule)
            .collect();
        let hidden: Vec<u16> = lemmas
            .iter()
            .filter(|hit| hit.obfuscated)
            .map(|hit| hit.rule)
            .collect();
        let reading = Reading::new(text);
        let mut add = |spans: &[(u16, Span)]| {
            for &(id, span) in spans {
                let at = reading.at(span.0);
                let word = starts
                    .partition_point(|&start| start <= at)
                    .saturating_sub(1);
                found.push((word, id, self.weight(id).unwrap_or(0.0)));
            }
        };
        let mut spans = Vec::new();
        self.scanner.spans(text, &plain, scratch, &mut spans);
        add(&spans);
        if !hidden.is_empty() {
            for folded in every_reading(text, self.scanner.normalise()) {
                spans.clear();
                self.scanner
                    .spans(&folded.text, &hidden, scratch, &mut spans);
                for (_, span) in &mut spans {
                    *span = folded.original(span.0, span.1);
                }
                add(&spans);
            }
        }
        subtle::greatest(starts.len(), &found)
    }
}
