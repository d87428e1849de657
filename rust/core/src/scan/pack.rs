//! Rules as data: what a pack holds, how it is read, and what is refused.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use toml::Spanned;

use super::charset::CharSet;
use super::syntax::{self, Node};

/// The most rules of a pack.
pub const RULES: usize = 16_384;
/// The most bytes of a pack's file.
pub const BYTES: usize = 16 << 20;
/// The most words of one rule.
pub const WORDS: usize = 4096;
/// The most parts of all rules together, repeats written out.
pub(super) const PARTS: usize = 1 << 20;

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

    fn at(origin: &str, line: Option<usize>, problem: impl Into<String>) -> Self {
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
}

/// What a rule looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A regular expression.
    Pattern(String),
    /// Words and phrases, bounded on both sides.
    Words(Vec<String>),
}

/// One rule as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What findings name it by; unique in its pack.
    pub id: String,
    /// What kind of thing it finds.
    pub category: String,
    /// A finer kind, or nothing.
    pub family: String,
    /// How bad it is.
    pub severity: Severity,
    /// The language of the texts that it is for, as in `en`; nothing for any.
    pub language: String,
    /// What it looks for.
    pub source: Source,
    /// `dotall`: whether `.` matches a newline too.
    pub dot_matches_newline: bool,
    /// Texts in which it must find something.
    pub matches: Vec<String>,
    /// Texts in which it must find nothing.
    pub misses: Vec<String>,
}

/// Rules that were read, checked and parsed.
#[derive(Debug, Clone)]
pub struct Pack {
    name: String,
    version: String,
    rules: Vec<Rule>,
    nodes: Vec<Node<CharSet>>,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    pack: RawHeader,
    #[serde(default)]
    rule: Vec<Spanned<RawRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeader {
    name: String,
    version: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    id: Spanned<String>,
    category: String,
    #[serde(default)]
    family: String,
    #[serde(default)]
    severity: Severity,
    #[serde(default)]
    language: String,
    pattern: Option<Spanned<String>>,
    words: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    flags: Vec<Spanned<String>>,
    #[serde(default, rename = "match")]
    matches: Vec<String>,
    #[serde(default, rename = "no_match")]
    misses: Vec<String>,
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
    /// Check and parse rules.
    ///
    /// # Errors
    /// A rule cannot be read, an id is missing or there twice, or a limit is exceeded.
    pub fn new(name: &str, version: &str, rules: Vec<Rule>) -> Result<Self, PackError> {
        Self::checked(name, version, rules, &|_, problem| PackError::new(problem))
    }

    /// Read a pack from a TOML file.
    ///
    /// # Errors
    /// The file cannot be read, or [`Pack::from_toml`] refuses it.
    pub fn load(path: &Path) -> Result<Self, PackError> {
        let origin = path.display().to_string();
        let size = std::fs::metadata(path)
            .map_err(|error| {
                PackError::at(
                    &origin,
                    None,
                    format!("cannot be read ({error}): check the path"),
                )
            })?
            .len();
        if size > BYTES as u64 {
            return Err(too_large(&origin, size));
        }
        let text = std::fs::read_to_string(path).map_err(|error| {
            PackError::at(
                &origin,
                None,
                format!("cannot be read ({error}): a pack is a UTF-8 file"),
            )
        })?;
        Self::from_toml(&text, &origin)
    }

    /// Read a pack from the text of a TOML file; messages call it by `origin`.
    ///
    /// # Errors
    /// The text is not TOML, has an unknown key, a wrong type or a missing one, or [`Pack::new`] refuses the rules.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, PackError> {
        if text.len() > BYTES {
            return Err(too_large(origin, text.len() as u64));
        }
        let line =
            |span: Range<usize>| 1 + text[..span.start.min(text.len())].matches('\n').count();
        let raw: RawFile = toml::from_str(text).map_err(|error| {
            PackError::at(origin, error.span().map(line), error.message().to_owned())
        })?;
        let mut rules = Vec::with_capacity(raw.rule.len());
        let mut lines = Vec::with_capacity(raw.rule.len());
        for spanned in raw.rule {
            let mut at = spanned.span();
            let raw = spanned.into_inner();
            let refuse =
                |at: Range<usize>, problem: String| PackError::at(origin, Some(line(at)), problem);
            for flag in &raw.flags {
                read_flags([flag.get_ref().as_str()])
                    .map_err(|problem| refuse(flag.span(), problem))?;
            }
            let id = raw.id.get_ref().clone();
            let source = match (raw.pattern, raw.words) {
                (Some(pattern), None) => {
                    at = pattern.span();
                    Source::Pattern(pattern.into_inner())
                }
                (None, Some(words)) => {
                    at = words.span();
                    Source::Words(words.into_inner())
                }
                _ => return Err(refuse(at, one_source(&id))),
            };
            lines.push((line(raw.id.span()), line(at)));
            rules.push(Rule {
                id,
                category: raw.category,
                family: raw.family,
                severity: raw.severity,
                language: raw.language,
                source,
                dot_matches_newline: raw.flags.iter().any(|flag| flag.get_ref() == "dotall"),
                matches: raw.matches,
                misses: raw.misses,
            });
        }
        Self::checked(
            &raw.pack.name,
            &raw.pack.version,
            rules,
            &|place, problem| {
                let line = match place {
                    Place::Pack => None,
                    Place::Id(rule) => lines.get(rule).map(|&(id, _)| id),
                    Place::Source(rule) => lines.get(rule).map(|&(_, source)| source),
                };
                PackError::at(origin, line, problem)
            },
        )
    }

    fn checked(
        name: &str,
        version: &str,
        rules: Vec<Rule>,
        refuse: &dyn Fn(Place, String) -> PackError,
    ) -> Result<Self, PackError> {
        for (key, value) in [("name", name), ("version", version)] {
            if value.trim().is_empty() {
                return Err(refuse(
                    Place::Pack,
                    format!("`{key}` of the pack is empty: give it one"),
                ));
            }
        }
        if rules.is_empty() {
            return Err(refuse(
                Place::Pack,
                "the pack has no `[[rule]]`: add one".to_owned(),
            ));
        }
        if rules.len() > RULES {
            let problem = format!(
                "the pack has {} rules: keep it to {RULES}, or use two scanners",
                rules.len()
            );
            return Err(refuse(Place::Pack, problem));
        }
        let mut seen: HashMap<&str, usize> = HashMap::with_capacity(rules.len());
        let mut nodes = Vec::with_capacity(rules.len());
        let mut parts = 0;
        for (place, rule) in rules.iter().enumerate() {
            let Rule { id, category, .. } = rule;
            if id.trim().is_empty() || category.trim().is_empty() {
                let key = if id.trim().is_empty() {
                    "id"
                } else {
                    "category"
                };
                return Err(refuse(
                    Place::Id(place),
                    format!("`{key}` of rule {} is empty: give it one", place + 1),
                ));
            }
            if let Some(first) = seen.insert(id, place) {
                let problem = format!(
                    "`id` is `{id}`, as it is in rule {}: give each rule its own",
                    first + 1
                );
                return Err(refuse(Place::Id(place), problem));
            }
            let parsed = match &rule.source {
                Source::Pattern(pattern) => syntax::parse(pattern, rule.dot_matches_newline),
                Source::Words(words) if words.is_empty() => {
                    Err("holds no word: give it one".to_owned())
                }
                Source::Words(words) if words.len() > WORDS => Err(format!(
                    "holds {} words: keep it to {WORDS}, or split the rule",
                    words.len()
                )),
                Source::Words(words) => syntax::words(words),
            };
            let key = match rule.source {
                Source::Pattern(_) => "pattern",
                Source::Words(_) => "words",
            };
            let node = parsed.map_err(|problem| {
                refuse(
                    Place::Source(place),
                    format!("`{key}` of rule `{id}` {problem}"),
                )
            })?;
            parts += node.size();
            if parts > PARTS {
                let problem = format!(
                    "the rules up to `{id}` have {parts} parts: keep a pack to {PARTS}, or use two scanners"
                );
                return Err(refuse(Place::Source(place), problem));
            }
            nodes.push(node);
        }
        let hash = hash(name, version, &rules);
        Ok(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            rules,
            nodes,
            hash,
        })
    }

    /// Return its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Return its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Return its rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Return a fingerprint of everything that it holds, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    pub(super) fn nodes(&self) -> &[Node<CharSet>] {
        &self.nodes
    }
}

/// Where a pack is wrong.
#[derive(Clone, Copy)]
enum Place {
    Pack,
    Id(usize),
    Source(usize),
}

fn one_source(id: &str) -> String {
    format!("rule `{id}` must have one of `pattern` and `words`: give one of them")
}

fn too_large(origin: &str, size: u64) -> PackError {
    PackError::at(
        origin,
        None,
        format!("has {size} bytes: a pack has at most {BYTES}"),
    )
}

/// SHA-256 over every field, each with its length, so that no two packs write the same.
fn hash(name: &str, version: &str, rules: &[Rule]) -> String {
    let mut digest = Sha256::new();
    let mut add = |text: &str| {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    };
    add(name);
    add(version);
    for rule in rules {
        let Rule {
            id,
            category,
            family,
            severity,
            language,
            source,
            dot_matches_newline,
            matches,
            misses,
        } = rule;
        for field in [id, category, family, severity.name(), language] {
            add(field);
        }
        add(if *dot_matches_newline { "dotall" } else { "" });
        let lists: [&[String]; 3] = match source {
            Source::Pattern(pattern) => {
                add("pattern");
                [std::slice::from_ref(pattern), matches, misses]
            }
            Source::Words(words) => {
                add("words");
                [words, matches, misses]
            }
        };
        for list in lists {
            add(&list.len().to_string());
            for item in list {
                add(item);
            }
        }
    }
    digest
        .finalize()
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
