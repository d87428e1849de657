//! Rule packs as a Python class.

use std::path::PathBuf;

use flyball_core::scan::{self, PackError, Rule, Severity, Source};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::error::bad_pack;

/// What rebuilds a pack, and from what.
type Reduced<'py> = (Bound<'py, PyAny>, (Bound<'py, PyList>, String, String));

/// The keys of a rule.
const KEYS: [&str; 10] = [
    "id", "category", "family", "severity", "language", "pattern", "words", "flags", "match",
    "no_match",
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
        py.detach(|| scan::Pack::load(&path))
            .map(Self)
            .map_err(refused)
    }

    /// Read a pack from the text of a TOML file; messages call it by `origin`.
    #[staticmethod]
    #[pyo3(signature = (text, /, origin = "pack"))]
    fn from_toml(py: Python<'_>, text: &str, origin: &str) -> PyResult<Self> {
        py.detach(|| scan::Pack::from_toml(text, origin))
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
        let rebuild = py
            .import("flyball.scan.pickling")?
            .getattr("rebuild_pack")?;
        Ok((
            rebuild,
            (
                this.rules(py)?,
                this.name().to_owned(),
                this.version().to_owned(),
            ),
        ))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn wrong(place: usize, problem: String) -> PyErr {
    bad_pack(format!("rule {}: {problem}", place + 1))
}

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
    let id = needed("id")?;
    let source = match (text("pattern")?, list("words")?) {
        (Some(pattern), None) => Source::Pattern(pattern),
        (None, Some(words)) => Source::Words(words),
        _ => {
            return Err(wrong(
                place,
                format!("rule `{id}` must have one of `pattern` and `words`: give one of them"),
            ));
        }
    };
    let flags = list("flags")?.unwrap_or_default();
    let dot_matches_newline = scan::read_flags(flags.iter().map(String::as_str))
        .map_err(|problem| wrong(place, problem))?;
    Ok(Rule {
        id,
        category: needed("category")?,
        family: text("family")?.unwrap_or_default(),
        severity,
        language: text("language")?.unwrap_or_default(),
        source,
        dot_matches_newline,
        matches: list("match")?.unwrap_or_default(),
        misses: list("no_match")?.unwrap_or_default(),
    })
}

fn write_rule<'py>(py: Python<'py>, rule: &Rule) -> PyResult<Bound<'py, PyDict>> {
    let written = PyDict::new(py);
    written.set_item("id", &rule.id)?;
    written.set_item("category", &rule.category)?;
    written.set_item("family", &rule.family)?;
    written.set_item("severity", rule.severity.name())?;
    written.set_item("language", &rule.language)?;
    match &rule.source {
        Source::Pattern(pattern) => written.set_item("pattern", pattern)?,
        Source::Words(words) => written.set_item("words", words)?,
    }
    if rule.dot_matches_newline {
        written.set_item("flags", ["dotall"])?;
    }
    written.set_item("match", &rule.matches)?;
    written.set_item("no_match", &rule.misses)?;
    Ok(written)
}
