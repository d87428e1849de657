//! The report on one text: what Rust knows of it, turned into objects of Python when it is asked for.

use std::time::Duration;

use flyball_core::scan::{Found, Judge, Verdict, count_words, reasoning};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::scan::{Scanner, read};

/// What was found in one text; reports of two equal texts by equal packs are equal.
#[pyclass(frozen, module = "flyball._native")]
pub(crate) struct Report {
    scanner: Py<Scanner>,
    /// Nothing if it was not kept, and nothing was found in it.
    text: Option<Py<PyAny>>,
    words: usize,
    verdict: Verdict,
    blank: bool,
    elapsed: Duration,
    findings: PyOnceLock<Py<PyTuple>>,
}

impl Report {
    pub(crate) fn new(
        scanner: &Bound<'_, Scanner>,
        text: Option<Py<PyAny>>,
        verdict: Verdict,
        blank: bool,
        elapsed: Duration,
    ) -> Self {
        Self {
            scanner: scanner.clone().unbind(),
            text,
            words: 0,
            verdict,
            blank,
            elapsed,
            findings: PyOnceLock::new(),
        }
    }

    pub(crate) fn nothing(scanner: &Bound<'_, Scanner>, blank: bool, words: usize) -> Self {
        let report = Self::new(scanner, None, Verdict::default(), blank, Duration::ZERO);
        Self { words, ..report }
    }

    fn judge(&self) -> &Judge {
        self.scanner.get().judge()
    }

    fn write_finding(
        &self,
        py: Python<'_>,
        class: &Bound<'_, PyAny>,
        text: &str,
        found: &Found,
    ) -> PyResult<Py<PyAny>> {
        let pack = self.judge().pack();
        let rule = &pack.rules()[usize::from(found.rule)];
        let frames = found
            .frames
            .iter()
            .map(|&frame| pack.frames()[usize::from(frame)].id.as_str());
        let values = PyDict::new(py);
        values.set_item("rule_id", &rule.id)?;
        values.set_item("category", &rule.category)?;
        values.set_item("family", &rule.family)?;
        values.set_item("severity", found.severity.name())?;
        values.set_item("start", found.start)?;
        values.set_item("end", found.end)?;
        values.set_item("text", text)?;
        values.set_item("obfuscated", found.obfuscated)?;
        values.set_item("frames", PyTuple::new(py, frames)?)?;
        values.set_item("kind", rule.kind.name())?;
        Ok(class.call((), Some(&values))?.unbind())
    }
}

#[pymethods]
impl Report {
    /// Whether the text is flagged: a finding of kind `harm` is bad enough, or its words are suspicious together.
    #[getter]
    fn flagged(&self) -> bool {
        self.verdict.flagged
    }

    /// Whether a finding flags it.
    #[getter]
    fn explicit(&self) -> bool {
        self.verdict.explicit
    }

    /// How suspicious its words are together, from 0 to 1.
    #[getter]
    fn subtle_score(&self) -> f64 {
        self.verdict.subtle
    }

    /// How bad it is, from 0 to 1: one number to rank texts by.
    #[getter]
    fn score(&self) -> f64 {
        self.judge().score(&self.verdict)
    }

    /// The worst severity found, None if nothing was.
    #[getter]
    fn severity(&self) -> Option<&'static str> {
        reasoning::worst(&self.verdict).map(flyball_core::scan::Severity::name)
    }

    /// The categories found, in alphabetical order.
    #[getter]
    fn categories<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(
            py,
            reasoning::categories(self.judge().pack(), &self.verdict),
        )
    }

    /// Every place where a rule matches, in the order of their starts.
    #[getter]
    fn findings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let findings = self.findings.get_or_try_init(py, || {
            let Some(text) = self
                .text
                .as_ref()
                .filter(|_| !self.verdict.found.is_empty())
            else {
                return Ok::<_, PyErr>(PyTuple::empty(py).unbind());
            };
            let class = py.import("flyball.scan.report")?.getattr("Finding")?;
            let text = text.bind(py);
            let findings = self.verdict.found.iter().map(|found| {
                // Python counts code points, as findings do; a slice of a text with lone surrogates stays one.
                let slice = pyo3::types::PySlice::new(py, index(found.start), index(found.end), 1);
                let part = text.get_item(slice)?;
                let plain = part
                    .cast::<PyString>()
                    .ok()
                    .and_then(|part| part.to_str().ok());
                if let Some(plain) = plain {
                    return self.write_finding(py, &class, plain, found);
                }
                let finding = self.write_finding(py, &class, "", found)?;
                let changed = PyDict::new(py);
                changed.set_item("text", part)?;
                Ok(py
                    .import("dataclasses")?
                    .call_method("replace", (finding,), Some(&changed))?
                    .unbind())
            });
            Ok(PyTuple::new(py, findings.collect::<PyResult<Vec<_>>>()?)?.unbind())
        })?;
        Ok(findings.bind(py).clone())
    }

    /// What was found, in a sentence.
    #[getter]
    fn reasoning(&self) -> String {
        if self.blank {
            "the text is empty".to_owned()
        } else {
            reasoning::reasoning(self.judge().pack(), &self.verdict)
        }
    }

    /// `rules`, or `validation` where the text is empty or white space and no rule was asked.
    #[getter]
    fn method(&self) -> &'static str {
        if self.blank { "validation" } else { "rules" }
    }

    /// Name, version and hash of the pack.
    #[getter]
    fn pack<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let pack = self.judge().pack();
        let class = py.import("flyball.scan.report")?.getattr("PackName")?;
        class.call1((pack.name(), pack.version(), pack.hash()))
    }

    /// How many words the text has, between white space.
    #[getter]
    fn n_words(&self, py: Python<'_>) -> PyResult<usize> {
        match &self.text {
            Some(text) => Ok(count_words(read(text.bind(py), None)?.as_bytes())),
            None => Ok(self.words),
        }
    }

    /// How long the scan took, in nanoseconds; 0 if the text was one of a batch and was not kept.
    #[getter]
    fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The text, None if it was one of a batch and was not kept.
    #[getter]
    fn text(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.text.as_ref().map(|text| text.clone_ref(py))
    }

    /// Return the report as plain data, as JSON holds it; `legacy` gives the five keys of older harm evaluators.
    #[pyo3(signature = (*, legacy = false))]
    fn to_dict<'py>(slf: &Bound<'py, Self>, legacy: bool) -> PyResult<Bound<'py, PyAny>> {
        let named = PyDict::new(slf.py());
        named.set_item("legacy", legacy)?;
        let module = slf.py().import("flyball.scan.report")?;
        module.call_method("to_dict", (slf,), Some(&named))
    }

    /// Return the text as HTML with its findings marked, escaped, and what was said of it.
    fn to_html<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py()
            .import("flyball.scan.view")?
            .call_method1("html", (slf,))
    }

    fn __rich__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py()
            .import("flyball.scan.view")?
            .call_method1("terminal", (slf,))
    }

    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::to_html(slf)
    }

    fn __repr__(&self) -> String {
        let flagged = if self.verdict.flagged {
            "flagged"
        } else {
            "not flagged"
        };
        format!(
            "<Report: {flagged}, {} findings; {}>",
            self.verdict.found.len(),
            self.reasoning()
        )
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(other) = other.cast::<Self>() else {
            return Ok(false);
        };
        let other = other.get();
        let same = self.verdict == other.verdict
            && self.blank == other.blank
            && self.judge().pack().hash() == other.judge().pack().hash();
        Ok(same && (self.verdict.found.is_empty() || self.findings(py)?.eq(other.findings(py)?)?))
    }

    fn __hash__(&self) -> u64 {
        let places = self
            .verdict
            .found
            .iter()
            .map(|found| found.start * 31 + found.end);
        places.fold(u64::from(self.verdict.flagged), |hash, place| {
            hash.wrapping_mul(0x9E37_79B9).wrapping_add(place as u64)
        })
    }

    /// A report is rebuilt by a scan of the same text.
    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let module = py.import("flyball.scan.pickling")?;
        let text = self.text(py);
        let words = (!self.blank).then_some(self.words);
        let of = (self.scanner.clone_ref(py), text, words);
        Ok((module.getattr("rebuild_report")?, of.into_pyobject(py)?))
    }
}

fn index(place: usize) -> isize {
    isize::try_from(place).unwrap_or(isize::MAX)
}
