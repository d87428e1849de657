//! Rules as data: what a pack holds, once it is read, checked and parsed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::charset::CharSet;
use super::check::Check;
use super::lists::{Lists, Speller, tidy};
use super::pack_hash::hash;
use super::pack_read;
use super::plan::Written;
use super::slots::Slots;
use super::syntax::{self, Node};

/// The most rules of a pack.
pub const RULES: usize = 16_384;
/// The most bytes of a pack's file.
pub const BYTES: usize = 16 << 20;
/// The most words of one rule.
pub const WORDS: usize = 4096;
/// The most parts of all rules together, repeats written out.
pub(super) const PARTS: usize = 1 << 21;
/// The most parts of a rule of slots, whose lists are trees of letters.
const SLOT_PARTS: usize = 1 << 16;
/// The words of a frame that are searched by one row of strings.
const CHUNK: usize = 128;
/// How near an excluded word stands, if a rule does not say.
pub(super) const USUAL_EXCLUSION: usize = 4;

/// The subtle score above which a text is flagged, if a pack does not say.
pub(super) const THRESHOLD: f64 = 0.7;

/// A pack that is refused: where, what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}{problem}")]
pub struct PackError {
    place: String,
    problem: String,
}

impl PackError {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self {
            place: String::new(),
            problem: problem.into(),
        }
    }

    pub(super) fn at(origin: &str, line: Option<usize>, problem: impl Into<String>) -> Self {
        let place = match line {
            Some(line) => format!("`{origin}`, line {line}: "),
            None => format!("`{origin}`: "),
        };
        Self {
            place,
            problem: problem.into(),
        }
    }
}

/// How bad it is if a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Mostly harmless.
    Low,
    /// Someone should look.
    #[default]
    Medium,
    /// Likely harmful.
    High,
    /// Never lowered by what stands around it.
    Critical,
}

impl Severity {
    /// Every severity, from the least.
    pub const ALL: [Self; 5] = [
        Self::Info,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Critical,
    ];

    /// Return the word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// Read the word for it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.name() == name)
    }

    /// Return what a finding of it counts, between 0 and 1.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::Info => 0.1,
            Self::Low => 0.25,
            Self::Medium => 0.5,
            Self::High => 0.75,
            Self::Critical => 1.0,
        }
    }

    /// Return the severity so many levels below, not below the least.
    #[must_use]
    pub fn lowered(self, levels: usize) -> Self {
        Self::ALL[(self as usize).saturating_sub(levels)]
    }
}

/// What a finding of a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It may flag a text.
    #[default]
    Harm,
    /// A weakness of the text, such as a claim without a source. It never flags.
    Concern,
    /// Someone seeks help. It never flags.
    Help,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Harm, Self::Concern, Self::Help];

    /// Return the word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Harm => "harm",
            Self::Concern => "concern",
            Self::Help => "help",
        }
    }

    /// Read the word for it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What a rule looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A regular expression.
    Pattern(String),
    /// Several of them.
    Patterns(Vec<String>),
    /// Words and phrases, bounded on both sides.
    Words(Vec<String>),
    /// Lists whose words follow each other.
    Slots(Slots),
}

impl Default for Source {
    fn default() -> Self {
        Self::Words(Vec::new())
    }
}

impl Source {
    /// Return the key by which a pack writes it.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Pattern(_) => "pattern",
            Self::Patterns(_) => "patterns",
            Self::Words(_) => "words",
            Self::Slots(_) => "slots",
        }
    }
}

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub origin: Arc<str>,
    /// The line, counted from 1.
    pub line: usize,
}

/// One rule as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What findings name it by; unique in its pack.
    pub id: String,
    /// What kind of thing it finds.
    pub category: String,
    /// A finer kind, or nothing.
    pub family: String,
    /// What the writer wants who is found by it.
    pub intent: String,
    /// How bad it is.
    pub severity: Severity,
    /// What a finding of it is.
    pub kind: Kind,
    /// The language of the texts that it is for, as in `en`; nothing for any.
    pub language: String,
    /// What it looks for.
    pub source: Source,
    /// `dotall`: whether `.` matches a newline too.
    pub dot_matches_newline: bool,
    /// Lists of words that, near a finding, take it back.
    pub exclude: Vec<String>,
    /// Patterns that do so.
    pub exclude_patterns: Vec<String>,
    /// How many words away these may stand.
    pub exclude_window: usize,
    /// What the text of a finding must pass.
    pub validate: Option<Check>,
    /// The frames that may lower it; all if none are named.
    pub frames: Option<Vec<String>>,
    /// What a finding counts, from 0 to 1.
    pub weight: f64,
    /// Texts in which it must find something.
    pub matches: Vec<String>,
    /// Texts in which it must find nothing.
    pub misses: Vec<String>,
    /// The version of the pack that had it first.
    pub since: String,
    /// For readers.
    pub notes: String,
    /// Where it is written, if it was read from a file.
    pub place: Option<Place>,
    /// Where what it looks for is written.
    pub source_place: Option<Place>,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            id: String::new(),
            category: String::new(),
            family: String::new(),
            intent: String::new(),
            severity: Severity::default(),
            kind: Kind::default(),
            language: String::new(),
            source: Source::default(),
            dot_matches_newline: false,
            exclude: Vec::new(),
            exclude_patterns: Vec::new(),
            exclude_window: USUAL_EXCLUSION,
            validate: None,
            frames: None,
            weight: 1.0,
            matches: Vec::new(),
            misses: Vec::new(),
            since: String::new(),
            notes: String::new(),
            place: None,
            source_place: None,
        }
    }
}

/// On which side of a finding a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// Before it.
    Before,
    /// Behind it.
    After,
    /// On either side, or within it.
    #[default]
    Around,
}

/// What lowers the severity of findings near it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What findings name it by.
    pub id: String,
    /// Its words and phrases.
    pub words: Vec<String>,
    /// Lists whose words it has too.
    pub lists: Vec<String>,
    /// Its patterns.
    pub patterns: Vec<String>,
    /// By how many levels it lowers.
    pub lowers: u8,
    /// How many words away a finding may stand.
    pub window: usize,
    /// Where it stands.
    pub side: Side,
    /// Whether it may stand anywhere in the text.
    pub anywhere: bool,
    /// For readers.
    pub notes: String,
    /// Where it is written.
    pub place: Option<Place>,
}

/// Words that are only suspicious together.
#[derive(Debug, Clone, PartialEq)]
pub struct Subtle {
    /// The score above which a text is flagged.
    pub threshold: f64,
    /// Each word with its weight and all its forms.
    pub lemmas: Vec<(String, f64, Vec<String>)>,
}

impl Default for Subtle {
    fn default() -> Self {
        Self {
            threshold: THRESHOLD,
            lemmas: Vec::new(),
        }
    }
}

/// What near a finding takes it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exclusion {
    pub(super) lists: Vec<String>,
    pub(super) patterns: Vec<String>,
}

/// Everything that a pack is made from.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) notes: String,
    pub(super) flag_at: Severity,
    pub(super) lists: Lists,
    pub(super) rules: Vec<Rule>,
    pub(super) frames: Vec<Frame>,
    pub(super) subtle: Subtle,
    /// Every file it was read from, by the name it was asked for.
    pub(super) sources: Vec<(String, String)>,
}

/// Rules that were read, checked and parsed.
#[derive(Debug, Clone)]
pub struct Pack {
    parts: Parts,
    /// The rules, and behind them the words that are suspicious together.
    nodes: Vec<Written>,
    /// The frames, and behind them the exclusions.
    contexts: Vec<Written>,
    /// For each rule the exclusion that it has, by its place behind the frames.
    exclusions: Vec<Option<usize>>,
    hash: String,
}

/// Read the flags of a rule, and return whether `.` matches a newline.
///
/// # Errors
/// A flag is unknown.
pub fn read_flags<'a>(flags: impl IntoIterator<Item = &'a str>) -> Result<bool, String> {
    let mut dot_matches_newline = false;
    for flag in flags {
        match flag {
            "dotall" => dot_matches_newline = true,
            "ignorecase" => {} // it always holds
            _ => {
                return Err(format!(
                    "`flags` holds `{flag}`: use `dotall`, or nothing (case never matters)"
                ));
            }
        }
    }
    Ok(dot_matches_newline)
}

impl Pack {
    /// Check and parse rules without lists and frames; any finding flags.
    ///
    /// # Errors
    /// A rule cannot be read, an id is missing or there twice, or a limit is exceeded.
    pub fn new(name: &str, version: &str, rules: Vec<Rule>) -> Result<Self, PackError> {
        Self::of(Parts {
            name: name.to_owned(),
            version: version.to_owned(),
            rules,
            flag_at: Severity::Info,
            ..Parts::default()
        })
    }

    /// Read a pack from a TOML file; packs that it extends are looked for beside it and in `shelf`.
    ///
    /// # Errors
    /// A file cannot be read, or [`Pack::from_toml`] refuses it.
    pub fn load(path: &Path, shelf: Option<&Path>) -> Result<Self, PackError> {
        Self::of(pack_read::load(path, shelf)?)
    }

    /// Read a pack from the text of a TOML file; messages call it by `origin`, and packs that it extends come from
    /// `shelf`.
    ///
    /// # Errors
    /// The text is not TOML, has an unknown key, a wrong type or a missing one, or [`Pack::new`] refuses the rules.
    pub fn from_toml(text: &str, origin: &str, shelf: Option<&Path>) -> Result<Self, PackError> {
        Self::of(pack_read::read(text, origin, shelf)?)
    }

    /// Read a pack from what [`Pack::sources`] returned.
    ///
    /// # Errors
    /// They are not what it returned.
    pub fn from_sources(sources: &[(String, String)]) -> Result<Self, PackError> {
        Self::of(pack_read::from_sources(sources)?)
    }

    fn of(parts: Parts) -> Result<Self, PackError> {
        for (key, value) in [("name", &parts.name), ("version", &parts.version)] {
            if value.trim().is_empty() {
                return Err(parts.refuse(format!("`{key}` of the pack is empty: give it one")));
            }
        }
        if parts.rules.is_empty() {
            return Err(parts.refuse("the pack has no `[[rule]]`: add one".to_owned()));
        }
        if parts.rules.len() > RULES {
            let problem = format!(
                "the pack has {} rules: keep it to {RULES}, or use two scanners",
                parts.rules.len()
            );
            return Err(parts.refuse(problem));
        }
        check_ids(&parts.rules)?;
        let mut speller = Speller::default();
        let mut nodes = rule_nodes(&parts, &mut speller)?;
        for (_, _, forms) in &parts.subtle.lemmas {
            let forms: Vec<&str> = forms.iter().map(String::as_str).collect();
            nodes.push(Written {
                node: speller.bounded(&forms),
                trees: true,
            });
        }
        let mut contexts = Vec::with_capacity(parts.frames.len());
        for frame in &parts.frames {
            let node = context(
                &parts.lists,
                &frame.words,
                &frame.lists,
                &frame.patterns,
                &mut speller,
            )
            .map_err(|problem| {
                refuse(
                    frame.place.as_ref(),
                    format!("frame `{}` {problem}", frame.id),
                )
            })?;
            contexts.push(node);
        }
        let exclusions = exclusions(&parts, &mut contexts, &mut speller)?;
        for rule in &parts.rules {
            for frame in rule.frames.iter().flatten() {
                if !parts.frames.iter().any(|known| known.id == *frame) {
                    let near =
                        super::lists::nearest(frame, parts.frames.iter().map(|frame| &frame.id));
                    let problem = format!(
                        "`frames` of rule `{}` names `{frame}`, which is no frame{near}",
                        rule.id
                    );
                    return Err(refuse(rule.place.as_ref(), problem));
                }
            }
        }
        let hash = hash(&parts);
        Ok(Self {
            parts,
            nodes,
            contexts,
            exclusions,
            hash,
        })
    }

    /// Return its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// Return its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.parts.version
    }

    /// Return what it says about itself.
    #[must_use]
    pub fn notes(&self) -> &str {
        &self.parts.notes
    }

    /// Return the severity from which on a finding flags.
    #[must_use]
    pub fn flag_at(&self) -> Severity {
        self.parts.flag_at
    }

    /// Return its rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.parts.rules
    }

    /// Return its lists.
    #[must_use]
    pub fn lists(&self) -> &Lists {
        &self.parts.lists
    }

    /// Return its frames.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.parts.frames
    }

    /// Return the words that are suspicious together.
    #[must_use]
    pub fn subtle(&self) -> &Subtle {
        &self.parts.subtle
    }

    /// Return the text of every file it was read from, the pack itself first; none if it was built from rules.
    #[must_use]
    pub fn sources(&self) -> &[(String, String)] {
        &self.parts.sources
    }

    /// Return a fingerprint of everything that it holds, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    pub(super) fn nodes(&self) -> &[Written] {
        &self.nodes
    }

    pub(super) fn contexts(&self) -> &[Written] {
        &self.contexts
    }

    /// The context that takes findings of a rule back.
    pub(super) fn exclusion(&self, rule: usize) -> Option<usize> {
        self.exclusions.get(rule).copied().flatten()
    }

    /// Name what a node is of, for a message.
    pub(super) fn describe(&self, node: usize) -> String {
        match self.parts.rules.get(node) {
            Some(rule) => format!("`{}` of rule `{}`", rule.source.key(), rule.id),
            None => match self.parts.subtle.lemmas.get(node - self.parts.rules.len()) {
                Some((lemma, _, _)) => format!("subtle word `{lemma}`"),
                None => "the pack".to_owned(),
            },
        }
    }
}

impl Parts {
    fn refuse(&self, problem: String) -> PackError {
        match self.sources.first() {
            Some((origin, _)) => PackError::at(origin, None, problem),
            None => PackError::new(problem),
        }
    }
}

pub(super) fn refuse(place: Option<&Place>, problem: impl Into<String>) -> PackError {
    match place {
        Some(place) => PackError::at(&place.origin, Some(place.line), problem),
        None => PackError::new(problem),
    }
}

fn check_ids(rules: &[Rule]) -> Result<(), PackError> {
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(rules.len());
    for (place, rule) in rules.iter().enumerate() {
        let Rule { id, category, .. } = rule;
        for (key, value) in [("id", id), ("category", category)] {
            if value.trim().is_empty() {
                let problem = format!("`{key}` of rule {} is empty: give it one", place + 1);
                return Err(refuse(rule.place.as_ref(), problem));
            }
        }
        if let Some(first) = seen.insert(id, place) {
            let other = rules[first].place.as_ref().map(|place| &place.origin);
            let problem = match (other, &rule.place) {
                (Some(other), Some(place)) if *other != place.origin => {
                    format!(
                        "`id` is `{id}`, as it is in `{other}`: give it its own, or change that one by `[override.\"{id}\"]`"
                    )
                }
                _ => format!(
                    "`id` is `{id}`, as it is in rule {}: give each rule its own",
                    first + 1
                ),
            };
            return Err(refuse(rule.place.as_ref(), problem));
        }
        if !(0.0..=1.0).contains(&rule.weight) {
            let problem = format!(
                "`weight` of rule `{id}` is {}: write a number from 0 to 1",
                rule.weight
            );
            return Err(refuse(rule.place.as_ref(), problem));
        }
    }
    Ok(())
}

fn rule_nodes(parts: &Parts, speller: &mut Speller) -> Result<Vec<Written>, PackError> {
    let mut nodes = Vec::with_capacity(parts.rules.len());
    let mut size = 0;
    for rule in &parts.rules {
        let at = rule.source_place.as_ref().or(rule.place.as_ref());
        let parsed = match &rule.source {
            Source::Pattern(pattern) => syntax::parse(pattern, rule.dot_matches_newline),
            Source::Patterns(patterns) => any_pattern(patterns, rule.dot_matches_newline),
            Source::Words(words) if words.is_empty() => {
                Err("holds no word: give it one".to_owned())
            }
            Source::Words(words) if words.len() > WORDS => Err(format!(
                "holds {} words: keep it to {WORDS}, or split the rule",
                words.len()
            )),
            Source::Words(words) => syntax::words(words),
            Source::Slots(slots) => slots.node(&parts.lists, speller).and_then(|node| match node.size() {
                size if size > SLOT_PARTS => Err(format!(
                    "has {size} parts when its lists are written out: keep it to {SLOT_PARTS}, or split it into two rules"
                )),
                _ => Ok(node),
            }),
        };
        let key = rule.source.key();
        let node = parsed
            .map_err(|problem| refuse(at, format!("`{key}` of rule `{}` {problem}", rule.id)))?;
        size += node.size();
        if size > PARTS {
            let problem = format!(
                "the rules up to `{}` have {size} parts: keep a pack to {PARTS}, or use two scanners",
                rule.id
            );
            return Err(refuse(at, problem));
        }
        let trees = matches!(rule.source, Source::Slots(_));
        nodes.push(Written { node, trees });
    }
    Ok(nodes)
}

fn any_pattern(patterns: &[String], dot_matches_newline: bool) -> Result<Node<CharSet>, String> {
    if patterns.is_empty() {
        return Err("holds no pattern: give it one".to_owned());
    }
    let nodes = patterns
        .iter()
        .map(|pattern| syntax::parse(pattern, dot_matches_newline));
    Ok(Node::Alternate(nodes.collect::<Result<_, _>>()?))
}

/// Words, lists and patterns, any of which is a context.
fn context(
    lists: &Lists,
    words: &[String],
    names: &[String],
    patterns: &[String],
    speller: &mut Speller,
) -> Result<Written, String> {
    let mut ways = Vec::new();
    let mut forms: Vec<String> = Vec::new();
    for name in names {
        forms.extend(lists.select(name)?.into_iter().map(str::to_owned));
    }
    // Words with signs at their ends are no words of a list, and are written out.
    let mut signed = Vec::new();
    for word in words {
        match tidy(word) {
            Ok(form) => forms.push(form),
            Err(_) => signed.push(word.clone()),
        }
    }
    forms.sort_unstable();
    forms.dedup();
    let forms: Vec<&str> = forms.iter().map(String::as_str).collect();
    ways.extend(forms.chunks(CHUNK).map(|forms| speller.bounded(forms)));
    let trees = signed.is_empty() && patterns.is_empty();
    if !signed.is_empty() {
        ways.push(syntax::words(&signed)?);
    }
    if !patterns.is_empty() {
        ways.push(any_pattern(patterns, false)?);
    }
    let node = match ways.len() {
        0 => return Err("has no words: give it `words`, `lists` or `patterns`".to_owned()),
        1 => ways.remove(0),
        _ => Node::Alternate(ways),
    };
    Ok(Written { node, trees })
}

/// Add what takes findings back to the contexts, each once, and say which rule has which.
fn exclusions(
    parts: &Parts,
    contexts: &mut Vec<Written>,
    speller: &mut Speller,
) -> Result<Vec<Option<usize>>, PackError> {
    let mut known: Vec<(Exclusion, usize)> = Vec::new();
    let mut found = Vec::with_capacity(parts.rules.len());
    for rule in &parts.rules {
        if rule.exclude.is_empty() && rule.exclude_patterns.is_empty() {
            found.push(None);
            continue;
        }
        let exclusion = Exclusion {
            lists: rule.exclude.clone(),
            patterns: rule.exclude_patterns.clone(),
        };
        let place = if let Some(&(_, place)) = known.iter().find(|(other, _)| *other == exclusion) {
            place
        } else {
            let node = context(
                &parts.lists,
                &[],
                &exclusion.lists,
                &exclusion.patterns,
                speller,
            )
            .map_err(|problem| {
                refuse(
                    rule.place.as_ref(),
                    format!("`exclude` of rule `{}` {problem}", rule.id),
                )
            })?;
            contexts.push(node);
            known.push((exclusion, contexts.len() - 1));
            contexts.len() - 1
        };
        found.push(Some(place));
    }
    Ok(found)
}
