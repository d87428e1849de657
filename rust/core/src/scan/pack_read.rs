//! From files to the parts of a pack: what a pack extends, what it adds, and what it takes away.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;

use super::check::Check;
use super::inflect::{noun, verb};
use super::lists::{List, Lists, nearest};
use super::pack::{
    BYTES, Frame, PackError, Parts, Place, Rule, Severity, Side, Source, Subtle, THRESHOLD,
    USUAL_EXCLUSION, WORDS, read_flags, refuse,
};
use super::pack_schema::{
    RawDisable, RawFile, RawFrame, RawList, RawOverride, RawRule, RawSlots, RawSubtle,
};
use super::slots::Slots;

/// How far from a finding a frame stands, if it does not say.
const WINDOW: usize = 8;

pub(super) fn load(path: &Path, shelf: Option<&Path>) -> Result<Parts, PackError> {
    let origin = path.display().to_string();
    let text = read_file(path, &origin)?;
    let folder = path.parent().map(Path::to_path_buf);
    let key = path.file_name().map_or_else(
        || origin.clone(),
        |name| name.to_string_lossy().into_owned(),
    );
    Merge::new(Library::Disk { shelf, folder }).finish(&key, &origin, &text)
}

pub(super) fn read(text: &str, origin: &str, shelf: Option<&Path>) -> Result<Parts, PackError> {
    Merge::new(Library::Disk {
        shelf,
        folder: None,
    })
    .finish(origin, origin, text)
}

pub(super) fn from_sources(sources: &[(String, String)]) -> Result<Parts, PackError> {
    let Some((origin, text)) = sources.first() else {
        return Err(PackError::new("there is no source: pass what a pack gave"));
    };
    Merge::new(Library::Kept(sources)).finish(origin, origin, text)
}

fn read_file(path: &Path, origin: &str) -> Result<String, PackError> {
    let size = std::fs::metadata(path)
        .map_err(|error| {
            PackError::at(
                origin,
                None,
                format!("cannot be read ({error}): check the path"),
            )
        })?
        .len();
    if size > BYTES as u64 {
        return Err(too_large(origin, size));
    }
    std::fs::read_to_string(path).map_err(|error| {
        PackError::at(
            origin,
            None,
            format!("cannot be read ({error}): a pack is a UTF-8 file"),
        )
    })
}

fn too_large(origin: &str, size: u64) -> PackError {
    PackError::at(
        origin,
        None,
        format!("has {size} bytes: a pack has at most {BYTES}"),
    )
}

/// Where a pack that another extends comes from.
enum Library<'a> {
    Disk {
        shelf: Option<&'a Path>,
        folder: Option<PathBuf>,
    },
    Kept(&'a [(String, String)]),
}

impl Library<'_> {
    /// Return how a pack is called in messages, and its text.
    fn get(&self, name: &str) -> Result<(String, String), String> {
        match self {
            Self::Kept(sources) => sources
                .iter()
                .find(|(key, _)| key == name)
                .map(|(key, text)| (key.clone(), text.clone()))
                .ok_or_else(|| format!("`extends` names `{name}`, which is not among the sources")),
            Self::Disk { shelf, folder } => {
                let plain = Path::new(name).components().collect::<Vec<_>>();
                if !matches!(plain[..], [Component::Normal(_)]) {
                    return Err(format!(
                        "`extends` names `{name}`: name a pack of ours, or a file in the same folder"
                    ));
                }
                let path = if Path::new(name).extension().is_some_and(|end| end == "toml") {
                    folder.as_ref().map(|folder| folder.join(name))
                } else {
                    shelf.map(|shelf| shelf.join(format!("{name}.toml")))
                };
                let path = path.filter(|path| path.is_file()).ok_or_else(|| {
                    format!("`extends` names `{name}`, which is not there: name a pack of ours, or a file beside this one, as in `{}.toml`", name.trim_end_matches(".toml"))
                })?;
                let origin = path.display().to_string();
                let text = read_file(&path, &origin).map_err(|error| error.to_string())?;
                Ok((origin, text))
            }
        }
    }
}

/// What was read so far, of a pack and of those that it extends.
struct Merge<'a> {
    library: Library<'a>,
    /// The packs that are being read, each extended by the one before it.
    open: Vec<String>,
    sources: Vec<(String, String)>,
    lists: BTreeMap<String, List>,
    list_places: BTreeMap<String, Place>,
    rules: Vec<Rule>,
    frames: Vec<Frame>,
    threshold: Option<f64>,
    lemmas: Vec<(String, f64, Vec<String>)>,
    flag_at: Option<Severity>,
}

/// A file that is being read.
struct File<'t> {
    origin: Arc<str>,
    text: &'t str,
}

impl File<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        Place {
            origin: Arc::clone(&self.origin),
            line: 1 + memchr::memchr_iter(b'\n', before).count(),
        }
    }

    fn refuse(&self, span: Range<usize>, problem: impl Into<String>) -> PackError {
        refuse(Some(&self.place(span)), problem)
    }
}

impl<'a> Merge<'a> {
    fn new(library: Library<'a>) -> Self {
        Self {
            library,
            open: Vec::new(),
            sources: Vec::new(),
            lists: BTreeMap::new(),
            list_places: BTreeMap::new(),
            rules: Vec::new(),
            frames: Vec::new(),
            threshold: None,
            lemmas: Vec::new(),
            flag_at: None,
        }
    }

    fn finish(mut self, key: &str, origin: &str, text: &str) -> Result<Parts, PackError> {
        let header = self.add(key, origin, text)?;
        let lists = Lists::new(&self.lists)
            .map_err(|(name, problem)| refuse(self.list_places.get(&name), problem))?;
        Ok(Parts {
            name: header.0,
            version: header.1,
            notes: header.2,
            flag_at: self.flag_at.unwrap_or(Severity::Info),
            lists,
            rules: self.rules,
            frames: self.frames,
            subtle: Subtle {
                threshold: self.threshold.unwrap_or(THRESHOLD),
                lemmas: self.lemmas,
            },
            sources: self.sources,
        })
    }

    /// Add a file, what it extends first; return its name, version and notes.
    fn add(
        &mut self,
        key: &str,
        origin: &str,
        text: &str,
    ) -> Result<(String, String, String), PackError> {
        if text.len() > BYTES {
            return Err(too_large(origin, text.len() as u64));
        }
        let file = File {
            origin: origin.into(),
            text,
        };
        let raw: RawFile = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| file.place(span).line);
            PackError::at(origin, line, error.message().to_owned())
        })?;
        // The pack itself stands first, so that it is what is read again.
        let called = if self.sources.is_empty() { origin } else { key };
        self.sources.push((called.to_owned(), text.to_owned()));
        self.open.push(key.to_owned());
        if let Some(extends) = raw.pack.extends {
            let span = extends.span();
            for name in extends.into_inner().into_vec() {
                if self.open.contains(&name) {
                    let circle = self.open.join("` extends `");
                    let problem = format!(
                        "`extends` goes in a circle, `{circle}` extends `{name}`: leave one out"
                    );
                    return Err(file.refuse(span, problem));
                }
                if self.sources.iter().skip(1).any(|(known, _)| *known == name) {
                    continue; // two packs extend it, and it is there once
                }
                let (origin, text) = self
                    .library
                    .get(&name)
                    .map_err(|problem| file.refuse(span.clone(), problem))?;
                self.add(&name, &origin, &text)?;
            }
        }
        self.open.pop();
        self.flag_at = raw.pack.flag_at.or(self.flag_at);
        self.lists(&file, raw.lists)?;
        for rule in raw.rule {
            let mut rule = read_rule(&file, rule)?;
            if rule.language.is_empty() {
                rule.language.clone_from(&raw.pack.language);
            }
            self.rules.push(rule);
        }
        for frame in raw.frame {
            let frame = read_frame(&file, frame)?;
            if self.frames.iter().any(|known| known.id == frame.id) {
                let problem = format!(
                    "`id` of a frame is `{}`, as it is of another: give each frame its own",
                    frame.id
                );
                return Err(refuse(frame.place.as_ref(), problem));
            }
            self.frames.push(frame);
        }
        if let Some(subtle) = raw.subtle {
            self.subtle(&file, subtle)?;
        }
        self.disable(&file, raw.disable)?;
        self.change(&file, raw.overrides)?;
        Ok((raw.pack.name, raw.pack.version, raw.pack.notes))
    }

    /// Take in the lists of a file.
    fn lists(
        &mut self,
        file: &File<'_>,
        lists: BTreeMap<Spanned<String>, RawList>,
    ) -> Result<(), PackError> {
        for (name, list) in lists {
            let span = name.span();
            let name = name.into_inner();
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
            {
                return Err(file.refuse(
                    span,
                    format!("`lists` has `{name}`: name a list by letters, digits, `_` and `-`"),
                ));
            }
            let known = self.lists.contains_key(&name);
            if known != list.add {
                let problem = if known {
                    format!(
                        "list `{name}` is there already, in a pack that is extended: give it another name, or write `add = true`"
                    )
                } else {
                    format!(
                        "list `{name}` has `add = true`, but there is none to add to{}",
                        nearest(&name, self.lists.keys())
                    )
                };
                return Err(file.refuse(span, problem));
            }
            self.list_places.insert(name.clone(), file.place(span));
            self.lists.entry(name).or_default().add(&List {
                words: list.words,
                verbs: list.verbs,
                nouns: list.nouns,
                include: list.include,
                without: list.without,
            });
        }
        Ok(())
    }

    /// Leave out what a file disables.
    fn disable(&mut self, file: &File<'_>, disable: RawDisable) -> Result<(), PackError> {
        for id in disable.rules {
            let before = self.rules.len();
            let name = id.get_ref();
            match name.strip_suffix('*') {
                Some(start) => self.rules.retain(|rule| !rule.id.starts_with(start)),
                None => self.rules.retain(|rule| rule.id != *name),
            }
            if self.rules.len() == before {
                let near = nearest(name, self.rules.iter().map(|rule| &rule.id));
                return Err(file.refuse(
                    id.span(),
                    format!("`disable` names the rule `{name}`, which is not there{near}"),
                ));
            }
        }
        for id in disable.frames {
            let name = id.get_ref();
            let before = self.frames.len();
            self.frames.retain(|frame| frame.id != *name);
            if self.frames.len() == before {
                let near = nearest(name, self.frames.iter().map(|frame| &frame.id));
                return Err(file.refuse(
                    id.span(),
                    format!("`disable` names the frame `{name}`, which is not there{near}"),
                ));
            }
            for rule in &mut self.rules {
                if let Some(frames) = &mut rule.frames {
                    frames.retain(|frame| frame != name);
                }
            }
        }
        Ok(())
    }

    /// Change what a file overrides.
    fn change(
        &mut self,
        file: &File<'_>,
        overrides: BTreeMap<Spanned<String>, RawOverride>,
    ) -> Result<(), PackError> {
        for (id, change) in overrides {
            let name = id.get_ref();
            let Some(rule) = self.rules.iter_mut().find(|rule| rule.id == *name) else {
                let near = nearest(name, self.rules.iter().map(|rule| &rule.id));
                return Err(file.refuse(
                    id.span(),
                    format!("`override` names the rule `{name}`, which is not there{near}"),
                ));
            };
            if let Some(severity) = change.severity {
                rule.severity = severity;
            }
            if let Some(weight) = change.weight {
                rule.weight = between(file, &weight, "weight")?;
            }
        }
        Ok(())
    }

    fn subtle(&mut self, file: &File<'_>, raw: RawSubtle) -> Result<(), PackError> {
        if let Some(threshold) = raw.threshold {
            self.threshold = Some(between(file, &threshold, "threshold")?);
        }
        let forms = |forms: Vec<(String, _)>| {
            let mut forms: Vec<String> = forms.into_iter().map(|(form, _)| form).collect();
            forms.sort();
            forms.dedup();
            forms
        };
        let verbs = raw
            .verbs
            .into_iter()
            .map(|(word, weight)| (forms(verb(word.get_ref())), word, weight));
        let nouns = raw
            .nouns
            .into_iter()
            .map(|(word, weight)| (forms(noun(word.get_ref())), word, weight));
        let words = raw
            .words
            .into_iter()
            .map(|(word, weight)| (vec![word.get_ref().clone()], word, weight));
        for (forms, word, weight) in verbs.chain(nouns).chain(words) {
            let span = word.span();
            let lemma = word.into_inner();
            if !(0.0..=1.0).contains(&weight) {
                return Err(file.refuse(
                    span,
                    format!("subtle word `{lemma}` weighs {weight}: write a number from 0 to 1"),
                ));
            }
            if lemma.trim() != lemma
                || !lemma.starts_with(char::is_alphanumeric)
                || !lemma.ends_with(char::is_alphanumeric)
            {
                return Err(file.refuse(
                    span,
                    format!("subtle word `{lemma}` must begin and end with a letter or a digit"),
                ));
            }
            // A pack that extends another gives a word another weight by writing it again.
            self.lemmas.retain(|(known, _, _)| *known != lemma);
            if weight > 0.0 {
                self.lemmas.push((
                    lemma,
                    weight,
                    forms.iter().map(|form| form.to_lowercase()).collect(),
                ));
            }
        }
        if self.lemmas.len() > WORDS {
            let problem = format!(
                "`subtle` has {} words: keep it to {WORDS}",
                self.lemmas.len()
            );
            return Err(PackError::at(&file.origin, None, problem));
        }
        Ok(())
    }
}

/// Read a share.
fn between(file: &File<'_>, number: &Spanned<f64>, key: &str) -> Result<f64, PackError> {
    let value = *number.get_ref();
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(file.refuse(
        number.span(),
        format!("`{key}` is {value}: write a number from 0 to 1"),
    ))
}

pub(super) fn one_source(id: &str) -> String {
    format!(
        "rule `{id}` must have one of `pattern` and `words` (or `patterns`, or `slots`): give one of them"
    )
}

fn read_rule(file: &File<'_>, raw: Spanned<RawRule>) -> Result<Rule, PackError> {
    let mut at = raw.span();
    let raw = raw.into_inner();
    let id = raw.id.get_ref().clone();
    for flag in &raw.flags {
        read_flags([flag.get_ref().as_str()])
            .map_err(|problem| file.refuse(flag.span(), problem))?;
    }
    let gaps_span = raw.gaps.as_ref().map(Spanned::span);
    let gaps = raw
        .gaps
        .map(|gaps| gaps.into_inner().into_vec())
        .unwrap_or_default();
    let is_slots = raw.slots.is_some();
    let source = match (raw.pattern, raw.patterns, raw.words, raw.slots) {
        (Some(pattern), None, None, None) => {
            at = pattern.span();
            Source::Pattern(pattern.into_inner())
        }
        (None, Some(patterns), None, None) => {
            at = patterns.span();
            Source::Patterns(patterns.into_inner())
        }
        (None, None, Some(words), None) => {
            at = words.span();
            Source::Words(words.into_inner())
        }
        (None, None, None, Some(slots)) => {
            at = slots.span();
            let orders = match slots.into_inner() {
                RawSlots::One(order) => vec![order],
                RawSlots::Many(orders) => orders,
            };
            Source::Slots(Slots { orders, gaps })
        }
        _ => return Err(file.refuse(at, one_source(&id))),
    };
    if let (false, Some(span)) = (is_slots, gaps_span) {
        return Err(file.refuse(
            span,
            format!("rule `{id}` has `gaps` without `slots`: leave them out"),
        ));
    }
    let validate = raw.validate.map(|name| {
        Check::from_name(name.get_ref()).ok_or_else(|| {
            file.refuse(
                name.span(),
                format!(
                    "`validate` is `{}`: use luhn, iban, ssn or entropy",
                    name.get_ref()
                ),
            )
        })
    });
    let weight = raw
        .weight
        .map_or(Ok(1.0), |weight| between(file, &weight, "weight"))?;
    let texts = |all: Vec<Spanned<String>>| all.into_iter().map(Spanned::into_inner).collect();
    Ok(Rule {
        category: raw.category,
        family: raw.family,
        intent: raw.intent,
        severity: raw.severity,
        kind: raw.kind,
        language: raw.language,
        source,
        dot_matches_newline: raw.flags.iter().any(|flag| flag.get_ref() == "dotall"),
        exclude: texts(raw.exclude),
        exclude_patterns: texts(raw.exclude_patterns),
        exclude_window: raw.exclude_window.unwrap_or(USUAL_EXCLUSION),
        validate: validate.transpose()?,
        frames: raw.frames.map(texts),
        weight,
        matches: raw.matches,
        misses: raw.misses,
        since: raw.since,
        notes: raw.notes,
        place: Some(file.place(raw.id.span())),
        source_place: Some(file.place(at)),
        id,
    })
}

fn read_frame(file: &File<'_>, raw: Spanned<RawFrame>) -> Result<Frame, PackError> {
    let raw = raw.into_inner();
    let place = file.place(raw.id.span());
    let side = match raw.side.as_ref().map(|side| side.get_ref().as_str()) {
        None | Some("around") => Side::Around,
        Some("before") => Side::Before,
        Some("after") => Side::After,
        Some(other) => {
            let span = raw.side.as_ref().map_or(0..0, Spanned::span);
            return Err(file.refuse(
                span,
                format!("`side` is `{other}`: use before, after or around"),
            ));
        }
    };
    let anywhere = match raw.scope.as_ref().map(|scope| scope.get_ref().as_str()) {
        None | Some("sentence") => false,
        Some("text") => true,
        Some(other) => {
            let span = raw.scope.as_ref().map_or(0..0, Spanned::span);
            return Err(file.refuse(span, format!("`scope` is `{other}`: use sentence or text")));
        }
    };
    let texts = |all: Vec<Spanned<String>>| all.into_iter().map(Spanned::into_inner).collect();
    Ok(Frame {
        id: raw.id.into_inner(),
        words: raw.words,
        lists: texts(raw.lists),
        patterns: texts(raw.patterns),
        lowers: raw.lowers.unwrap_or(1),
        window: raw.window.unwrap_or(WINDOW),
        side,
        anywhere,
        notes: raw.notes,
        place: Some(place),
    })
}
