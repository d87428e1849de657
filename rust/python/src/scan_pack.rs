//! Rule packs as a Python class.

use std::path::PathBuf;

use flyball_core::scan::{self, Check, Kind, PackError, Rule, Severity, Side, Source};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::error::bad_pack;

/// What rebuilds a pack, and from what.
type Reduced<'py> = (Bound<'py, PyAny>, (Bound<'py, PyAny>, String, String));

/// The keys of a rule from Python: those of a `[[rule]]` that need no list and no frame.
const KEYS: [&str; 19] = [
    "id",
    "category",
    "family",
    "intent",
    "severity",
    "kind",
    "language",
    "pattern",
    "patterns",
    "words",
    "flags",
    "exclude_patterns",
    "exclude_window",
    "validate",
    "weight",
    "match",
    "no_match",
    "since",
    "notes",
];

#[allow(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(crate) fn refused(error: PackError) -> PyErr {
    bad_pack(error.to_string())
}

/// Rules as data: read from TOML or from dicts, checked, and never executed.
#[pyclass(frozen, module = "flyball._native")]
pub(crate) struct Pack(scan::Pack);

impl Pack {
    pub(crate) fn pack(&self) -> &scan::Pack {
        &self.0
    }
}

#[pymethods]
impl Pack {
    /// Read a pack from a TOML file.
    #[staticmethod]
    #[pyo3(signature = (path, /))]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a path of Python is converted"
    )]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let shelf = shelf(py)?;
        py.detach(|| scan::Pack::load(&path, Some(&shelf)))
            .map(Self)
            .map_err(refused)
    }

    /// Read a pack from the text of a TOML file; messages call it by `origin`.
    #[staticmethod]
    #[pyo3(signature = (text, /, origin = "pack"))]
    fn from_toml(py: Python<'_>, text: &str, origin: &str) -> PyResult<Self> {
        let shelf = shelf(py)?;
        py.detach(|| scan::Pack::from_toml(text, origin, Some(&shelf)))
            .map(Self)
            .map_err(refused)
    }

    /// Build a pack from what `sources` of another holds.
    #[staticmethod]
    #[pyo3(signature = (sources, /))]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a list of Python is converted"
    )]
    fn from_sources(py: Python<'_>, sources: Vec<(String, String)>) -> PyResult<Self> {
        py.detach(|| scan::Pack::from_sources(&sources))
            .map(Self)
            .map_err(refused)
    }

    /// Build a pack from dicts with the keys of a `[[rule]]`.
    #[staticmethod]
    #[pyo3(signature = (rules, /, *, name = "rules", version = "0"))]
    fn from_rules(
        py: Python<'_>,
        rules: &Bound<'_, PyAny>,
        name: &str,
        version: &str,
    ) -> PyResult<Self> {
        let rules = rules
            .try_iter()?
            .enumerate()
            .map(|(place, rule)| read_rule(place, &rule?))
            .collect::<PyResult<Vec<_>>>()?;
        py.detach(|| scan::Pack::new(name, version, rules))
            .map(Self)
            .map_err(refused)
    }

    /// The name of the pack.
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// The version of the pack.
    #[getter]
    fn version(&self) -> &str {
        self.0.version()
    }

    /// A fingerprint of everything that the pack holds.
    #[getter]
    fn hash(&self) -> &str {
        self.0.hash()
    }

    /// The rules as dicts, with the keys of a `[[rule]]`.
    #[getter]
    fn rules<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(
            py,
            self.0
                .rules()
                .iter()
                .map(|rule| write_rule(py, rule))
                .collect::<PyResult<Vec<_>>>()?,
        )
    }

    /// What the pack says about itself.
    #[getter]
    fn notes(&self) -> &str {
        self.0.notes()
    }

    /// The severity from which on a finding flags a text.
    #[getter]
    fn flag_at(&self) -> &'static str {
        self.0.flag_at().name()
    }

    /// The file and line of each rule; none if the pack was built from dicts.
    #[getter]
    fn places(&self) -> Vec<Option<(String, usize)>> {
        let place = |rule: &Rule| {
            rule.place
                .as_ref()
                .map(|place| (place.origin.to_string(), place.line))
        };
        self.0.rules().iter().map(place).collect()
    }

    /// The lists with all their forms, and which form each is.
    #[getter]
    fn lists<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let written = PyDict::new(py);
        for name in self.0.lists().names() {
            let forms = self.0.lists().get(name).unwrap_or_default().iter();
            let forms: Vec<(&str, &str)> = forms
                .map(|(form, kind)| (form.as_str(), kind.name()))
                .collect();
            written.set_item(name, forms)?;
        }
        Ok(written)
    }

    /// The frames as dicts, with the keys of a `[[frame]]`.
    #[getter]
    fn frames<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let frames = self.0.frames().iter().map(|frame| {
            let written = PyDict::new(py);
            written.set_item("id", &frame.id)?;
            written.set_item("words", &frame.words)?;
            written.set_item("lists", &frame.lists)?;
            written.set_item("patterns", &frame.patterns)?;
            written.set_item("lowers", frame.lowers)?;
            written.set_item("window", frame.window)?;
            let side = match frame.side {
                Side::Before => "before",
                Side::After => "after",
                Side::Around => "around",
            };
            written.set_item("side", side)?;
            written.set_item("scope", if frame.anywhere { "text" } else { "sentence" })?;
            written.set_item("notes", &frame.notes)?;
            Ok(written)
        });
        PyList::new(py, frames.collect::<PyResult<Vec<_>>>()?)
    }

    /// The threshold of the subtle score, and its words with their weights and forms.
    #[getter]
    fn subtle(&self) -> (f64, Vec<(String, f64, Vec<String>)>) {
        let subtle = self.0.subtle();
        (subtle.threshold, subtle.lemmas.clone())
    }

    /// The text of every file it was read from, the pack itself first; empty if it was built from dicts.
    #[getter]
    fn sources(&self) -> Vec<(String, String)> {
        self.0.sources().to_vec()
    }

    /// Return what is wrong with the pack beyond what it is refused for: file, line, and the problem.
    ///
    /// Every rule needs three examples of each kind, and has to find its own and leave the others alone; a rule that
    /// no text can reach, or that makes every scan slow, is named.
    fn check<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py()
            .import("flyball.scan.rules.lint")?
            .call_method1("check", (slf,))
    }

    fn __len__(&self) -> usize {
        self.0.rules().len()
    }

    fn __repr__(&self) -> String {
        let hash = self.0.hash().get(..12).unwrap_or_default();
        format!(
            "<Pack {} {}: {} rules, {hash}>",
            self.0.name(),
            self.0.version(),
            self.0.rules().len()
        )
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other
            .cast::<Self>()
            .is_ok_and(|other| other.get().0.hash() == self.0.hash())
    }

    fn __hash__(&self) -> u64 {
        self.0
            .hash()
            .get(..16)
            .and_then(|hash| u64::from_str_radix(hash, 16).ok())
            .unwrap_or(0)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let py = slf.py();
        let this = slf.get();
        let pickling = py.import("flyball.scan.pickling")?;
        let sources = this.0.sources();
        let rebuild = pickling.getattr(if sources.is_empty() {
            "rebuild_pack"
        } else {
            "reread_pack"
        })?;
        let made_of = if sources.is_empty() {
            this.rules(py)?.into_any()
        } else {
            sources.to_vec().into_pyobject(py)?.into_any()
        };
        Ok((
            rebuild,
            (made_of, this.name().to_owned(), this.version().to_owned()),
        ))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn wrong(place: usize, problem: String) -> PyErr {
    bad_pack(format!("rule {}: {problem}", place + 1))
}

#[allow(clippy::too_many_lines, reason = "one key of a rule after another")]
fn read_rule(place: usize, rule: &Bound<'_, PyAny>) -> PyResult<Rule> {
    let Ok(rule) = rule.cast::<PyDict>() else {
        let kind = rule.get_type().name()?;
        return Err(wrong(
            place,
            format!(
                "is of type `{kind}`: pass a dict with the keys {}",
                KEYS.join(", ")
            ),
        ));
    };
    for key in rule.keys() {
        if !KEYS
            .iter()
            .any(|known| key.cast::<PyString>().is_ok_and(|key| key == *known))
        {
            return Err(wrong(
                place,
                format!("unknown key `{key}`: the keys are {}", KEYS.join(", ")),
            ));
        }
    }
    let text = |key: &str| -> PyResult<Option<String>> {
        let Some(value) = rule.get_item(key)? else {
            return Ok(None);
        };
        value
            .extract()
            .map(Some)
            .map_err(|_| wrong(place, format!("`{key}` must be a str")))
    };
    let list = |key: &str| -> PyResult<Option<Vec<String>>> {
        let Some(value) = rule.get_item(key)? else {
            return Ok(None);
        };
        let texts: Option<Vec<String>> = if value.is_instance_of::<PyString>() {
            None
        } else {
            value.extract().ok()
        };
        texts
            .map(Some)
            .ok_or_else(|| wrong(place, format!("`{key}` must be a list of str")))
    };
    let needed = |key: &str| text(key)?.ok_or_else(|| wrong(place, format!("`{key}` is missing")));
    let severity = match text("severity")? {
        None => Severity::default(),
        Some(name) => Severity::from_name(&name).ok_or_else(|| {
            let known = Severity::ALL.map(Severity::name).join(", ");
            wrong(place, format!("`severity` is `{name}`: use one of {known}"))
        })?,
    };
    let kind = match text("kind")? {
        None => Kind::default(),
        Some(name) => Kind::from_name(&name).ok_or_else(|| {
            let known = Kind::ALL.map(Kind::name).join(", ");
            wrong(place, format!("`kind` is `{name}`: use one of {known}"))
        })?,
    };
    let validate = match text("validate")? {
        None => None,
        Some(name) => Some(Check::from_name(&name).ok_or_else(|| {
            wrong(
                place,
                format!("`validate` is `{name}`: use luhn, iban, ssn or entropy"),
            )
        })?),
    };
    let id = needed("id")?;
    let source = match (text("pattern")?, list("patterns")?, list("words")?) {
        (Some(pattern), None, None) => Source::Pattern(pattern),
        (None, Some(patterns), None) => Source::Patterns(patterns),
        (None, None, Some(words)) => Source::Words(words),
        _ => {
            return Err(wrong(
                place,
                format!(
                    "rule `{id}` must have one of `pattern` and `words` (or `patterns`): give one of them"
                ),
            ));
        }
    };
    let flags = list("flags")?.unwrap_or_default();
    let dot_matches_newline = scan::read_flags(flags.iter().map(String::as_str))
        .map_err(|problem| wrong(place, problem))?;
    let usual = Rule::default();
    let weight = match rule.get_item("weight")? {
        None => usual.weight,
        Some(value) => value
            .extract()
            .map_err(|_| wrong(place, "`weight` must be a number".to_owned()))?,
    };
    let exclude_window = match rule.get_item("exclude_window")? {
        None => usual.exclude_window,
        Some(value) => value.extract().map_err(|_| {
            wrong(
                place,
                "`exclude_window` must be a count of words".to_owned(),
            )
        })?,
    };
    Ok(Rule {
        id,
        category: needed("category")?,
        family: text("family")?.unwrap_or_default(),
        intent: text("intent")?.unwrap_or_default(),
        severity,
        kind,
        language: text("language")?.unwrap_or_default(),
        source,
        dot_matches_newline,
        exclude_patterns: list("exclude_patterns")?.unwrap_or_default(),
        exclude_window,
        validate,
        weight,
        matches: list("match")?.unwrap_or_default(),
        misses: list("no_match")?.unwrap_or_default(),
        since: text("since")?.unwrap_or_default(),
        notes: text("notes")?.unwrap_or_default(),
        ..usual
    })
}

fn write_rule<'py>(py: Python<'py>, rule: &Rule) -> PyResult<Bound<'py, PyDict>> {
    let usual = Rule::default();
    let written = PyDict::new(py);
    written.set_item("id", &rule.id)?;
    written.set_item("category", &rule.category)?;
    written.set_item("family", &rule.family)?;
    written.set_item("severity", rule.severity.name())?;
    written.set_item("language", &rule.language)?;
    match &rule.source {
        Source::Pattern(pattern) => written.set_item("pattern", pattern)?,
        Source::Patterns(patterns) => written.set_item("patterns", patterns)?,
        Source::Words(words) => written.set_item("words", words)?,
        Source::Slots(slots) => {
            written.set_item("slots", &slots.orders)?;
            written.set_item("gaps", &slots.gaps)?;
        }
    }
    if rule.dot_matches_newline {
        written.set_item("flags", ["dotall"])?;
    }
    // What says nothing beyond the usual is left out.
    for (key, value) in [
        ("intent", &rule.intent),
        ("since", &rule.since),
        ("notes", &rule.notes),
    ] {
        if !value.is_empty() {
            written.set_item(key, value)?;
        }
    }
    if rule.kind != usual.kind {
        written.set_item("kind", rule.kind.name())?;
    }
    for (key, value) in [
        ("exclude", &rule.exclude),
        ("exclude_patterns", &rule.exclude_patterns),
    ] {
        if !value.is_empty() {
            written.set_item(key, value)?;
        }
    }
    if rule.exclude_window != usual.exclude_window {
        written.set_item("exclude_window", rule.exclude_window)?;
    }
    if let Some(check) = rule.validate {
        written.set_item("validate", check.name())?;
    }
    if let Some(frames) = &rule.frames {
        written.set_item("frames", frames)?;
    }
    if rule.weight < usual.weight {
        written.set_item("weight", rule.weight)?;
    }
    written.set_item("match", &rule.matches)?;
    written.set_item("no_match", &rule.misses)?;
    Ok(written)
}

/// The folder of the packs that come with flyball.
fn shelf(py: Python<'_>) -> PyResult<PathBuf> {
    let file: PathBuf = py.import("flyball")?.getattr("__file__")?.extract()?;
    Ok(file.with_file_name("scan").join("packs"))
}
