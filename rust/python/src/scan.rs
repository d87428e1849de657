//! The scanner as a Python class.

use std::borrow::Cow;
use std::cell::RefCell;

use flyball_core::scan::{
    self, Finding, Hit, Normalise, Options, Scratch, batch, characters, windows,
};
use numpy::{PyArray1, ToPyArray as _};
use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::error::{invalid, wrong_type};
use crate::scan_arrow;
use crate::scan_pack::Pack;

/// From this many bytes on, other threads may run while a text is scanned.
const WORTH_DETACHING: usize = 16 << 10;

thread_local! {
    // Used again for text after text: a clean prompt allocates nothing.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Offsets, rules, and the places of texts that are empty or white space.
type Rows<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<u16>>,
    Vec<usize>,
);

/// Offsets, rules, whether a row is null, and the rows that are not UTF-8.
type Column<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<u16>>,
    Bound<'py, PyArray1<bool>>,
    Vec<usize>,
);

/// A pack ready to scan. `clean` and `blank` are returned for texts with nothing to say; `report` makes the others.
#[pyclass(subclass, frozen, module = "flyball._native")]
pub(crate) struct Scanner {
    engine: scan::Scanner,
    pack: Py<Pack>,
    max_chars: usize,
    window: bool,
    clean: Py<PyAny>,
    blank: Py<PyAny>,
    report: Py<PyAny>,
}

/// How a text is cut before it is scanned.
enum Cut {
    Whole,
    Windows,
}

impl Scanner {
    /// Say how a text is scanned, or refuse it; `place` names it in a batch.
    #[inline]
    fn cut(&self, text: &[u8], place: Option<usize>) -> PyResult<Cut> {
        if text.len() <= self.max_chars {
            return Ok(Cut::Whole); // a character has a byte at least
        }
        let count = characters(text);
        if count <= self.max_chars {
            return Ok(Cut::Whole);
        }
        if self.window {
            return Ok(Cut::Windows);
        }
        let name = named(place);
        Err(invalid(format!(
            "{name} has {count} characters, more than `max_chars` {}: cut it, raise `max_chars`, or pass `on_long=\"window\"`",
            self.max_chars
        )))
    }

    /// Find the rules of a text in windows, and where they match if that is asked for.
    fn windowed(
        &self,
        py: Python<'_>,
        text: &[u8],
        places: bool,
    ) -> PyResult<(Vec<Hit>, Vec<Finding>)> {
        let mut scratch = Scratch::default();
        let mut hits: Vec<Hit> = Vec::new();
        let mut found: Vec<Finding> = Vec::new();
        for (number, window) in windows(text, self.max_chars).into_iter().enumerate() {
            if number % 64 == 63 {
                py.check_signals()?;
            }
            py.detach(|| {
                let piece = &text[window.start..window.end];
                let here = self.engine.hits(piece, &mut scratch).to_vec();
                if places && !here.is_empty() {
                    found.extend(
                        self.engine
                            .findings(piece, &here, &mut scratch)
                            .into_iter()
                            .map(|finding| Finding {
                                start: finding.start + window.characters,
                                end: finding.end + window.characters,
                                ..finding
                            }),
                    );
                }
                hits.extend(here);
            });
        }
        hits.sort_unstable();
        hits.dedup_by_key(|hit| hit.rule); // plain sorts before obfuscated
        found.sort_unstable();
        found.dedup();
        Ok((hits, found))
    }

    /// Scan texts on some threads without Python's lock; a signal ends it.
    #[allow(
        clippy::redundant_closure_for_method_calls,
        reason = "a closure is general over lifetimes"
    )]
    fn together(&self, py: Python<'_>, texts: &[&[u8]], threads: usize) -> PyResult<batch::Rows> {
        let mut interrupted = None;
        let rows = py.detach(|| {
            batch::scan(&self.engine, texts, threads, || {
                interrupted = Python::attach(|py| py.check_signals()).err();
                interrupted.is_none()
            })
        });
        interrupted.map_or_else(|| Ok(rows.unwrap_or_default()), Err)
    }

    fn found(&self, py: Python<'_>, text: &[u8]) -> Vec<Finding> {
        let work = || {
            SCRATCH.with_borrow_mut(|scratch| {
                if self.engine.hits(text, scratch).is_empty() {
                    return Vec::new();
                }
                let hits = self.engine.hits(text, scratch).to_vec();
                self.engine.findings(text, &hits, scratch)
            })
        };
        if text.len() < WORTH_DETACHING {
            work()
        } else {
            py.detach(work)
        }
    }
}

#[pymethods]
impl Scanner {
    #[new]
    #[pyo3(signature = (pack, max_chars, window, normalise, clean, blank, report))]
    fn new(
        pack: Bound<'_, Pack>,
        max_chars: usize,
        window: bool,
        normalise: &str,
        clean: Py<PyAny>,
        blank: Py<PyAny>,
        report: Py<PyAny>,
    ) -> PyResult<Self> {
        let normalise = match normalise {
            "none" => Normalise::None,
            "unicode" => Normalise::Unicode,
            "full" => Normalise::Full,
            other => {
                return Err(invalid(format!(
                    "`normalise` is `{other}`: use `none`, `unicode` or `full`"
                )));
            }
        };
        let options = Options {
            normalise,
            ..Options::default()
        };
        let engine = scan::Scanner::new(pack.get().pack().clone(), options)
            .map_err(crate::scan_pack::refused)?;
        Ok(Self {
            engine,
            pack: pack.unbind(),
            max_chars,
            window,
            clean,
            blank,
            report,
        })
    }

    /// The rules that every text is searched for by an automaton, with the character without which it is not.
    #[getter]
    fn slow_rules(&self) -> Vec<(String, Option<char>)> {
        let id = |rule: u16| self.engine.pack().rules()[usize::from(rule)].id.clone();
        self.engine
            .slow()
            .iter()
            .map(|slow| (id(slow.rule), slow.unless))
            .collect()
    }

    /// The pack.
    #[getter]
    fn pack(&self, py: Python<'_>) -> Py<Pack> {
        self.pack.clone_ref(py)
    }

    /// Return whether any rule matches in the text.
    #[pyo3(signature = (text, /))]
    fn flagged(&self, text: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = text.py();
        let text = read(text, None)?;
        let text = text.as_bytes();
        if let Cut::Windows = self.cut(text, None)? {
            return Ok(!self.windowed(py, text, false)?.0.is_empty());
        }
        Ok(SCRATCH.with_borrow_mut(|scratch| !self.engine.hits(text, scratch).is_empty()))
    }

    /// Return a report on the text: which rules match, and where.
    #[pyo3(signature = (text, /))]
    fn scan(&self, text: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = text.py();
        let read = read(text, None)?;
        let bytes = read.as_bytes();
        let found = match self.cut(bytes, None)? {
            Cut::Whole => self.found(py, bytes),
            Cut::Windows => self.windowed(py, bytes, true)?.1,
        };
        if found.is_empty() {
            let report = if is_blank(bytes) {
                &self.blank
            } else {
                &self.clean
            };
            return Ok(report.clone_ref(py));
        }
        let rows: Vec<_> = found
            .iter()
            .map(|finding| (finding.rule, finding.start, finding.end, finding.obfuscated))
            .collect();
        self.report.call1(py, (text, rows))
    }

    /// Scan a list or tuple of texts: offsets and rules of each, and which of them are blank.
    ///
    /// Errors count the texts from `first`.
    #[pyo3(signature = (texts, /, *, first, threads))]
    fn rows<'py>(
        &self,
        texts: &Bound<'py, PyAny>,
        first: usize,
        threads: usize,
    ) -> PyResult<Rows<'py>> {
        let py = texts.py();
        // One call takes a reference to every text, as another thread may change the list.
        let texts: Bound<'py, PyTuple> = match texts.cast::<PyList>() {
            Ok(list) => list.to_tuple(),
            Err(_) => texts.cast::<PyTuple>()?.clone(),
        };
        let mut owned = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter_borrowed().enumerate() {
            owned.push(
                text.cast::<PyString>()
                    .map_err(|_| not_text(&text, Some(first + place)))?
                    .to_owned(),
            );
        }
        let read: Vec<Text<'_>> = owned
            .iter()
            .map(|text| bytes_of(text))
            .collect::<PyResult<_>>()?;
        let mut long = Vec::new();
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(read.len());
        let mut blank = Vec::new();
        for (place, text) in read.iter().enumerate() {
            let bytes = text.as_bytes();
            if is_blank(bytes) {
                blank.push(place);
            }
            match self.cut(bytes, Some(first + place))? {
                Cut::Whole => pieces.push(bytes),
                Cut::Windows => {
                    long.push(place);
                    pieces.push(b"");
                }
            }
        }
        let mut rows = self.together(py, &pieces, threads)?;
        for &place in &long {
            let (hits, _) = self.windowed(py, read[place].as_bytes(), false)?;
            rows.insert(place, hits.iter().map(|hit| hit.rule));
        }
        Ok((
            rows.offsets.to_pyarray(py),
            rows.rules.to_pyarray(py),
            blank,
        ))
    }

    /// Scan a column of Arrow: offsets and rules of each row, which rows are null, and which are not UTF-8.
    ///
    /// Rows, and errors, are counted from `first`.
    #[pyo3(signature = (data, /, *, column, threads, first = 0))]
    fn column<'py>(
        &self,
        data: &Bound<'py, PyAny>,
        column: Option<&str>,
        threads: usize,
        first: usize,
    ) -> PyResult<Column<'py>> {
        let py = data.py();
        let mut all = batch::Rows {
            offsets: vec![0],
            rules: Vec::new(),
        };
        let mut nulls = Vec::new();
        let mut malformed = Vec::new();
        scan_arrow::chunks(data, column, |chunk| {
            let first = first + nulls.len();
            let odd = py.detach(|| chunk.not_utf8());
            let (mut pieces, mut long) = (Vec::with_capacity(chunk.texts.len()), Vec::new());
            for (place, text) in chunk.texts.iter().enumerate() {
                let text = text.unwrap_or_default();
                match self.cut(text, Some(first + place))? {
                    Cut::Whole => pieces.push(text),
                    Cut::Windows => {
                        long.push((place, text));
                        pieces.push(b"");
                    }
                }
            }
            let mut rows = self.together(py, &pieces, threads)?;
            for (place, text) in long {
                rows.insert(
                    place,
                    self.windowed(py, text, false)?.0.iter().map(|hit| hit.rule),
                );
            }
            match &chunk.rows {
                None => {
                    malformed.extend(odd.iter().map(|place| first + place));
                    nulls.extend(chunk.texts.iter().map(Option::is_none));
                    all.append(&rows);
                }
                Some(indices) => {
                    for (row, index) in indices.iter().enumerate() {
                        if index.is_some_and(|index| odd.binary_search(&index).is_ok()) {
                            malformed.push(first + row);
                        }
                        let text = index.and_then(|index| chunk.texts[index].map(|_| index));
                        nulls.push(text.is_none());
                        all.push(text.map_or(&[], |index| rows.row(index)));
                    }
                }
            }
            Ok(())
        })?;
        Ok((
            all.offsets.to_pyarray(py),
            all.rules.to_pyarray(py),
            nulls.to_pyarray(py),
            malformed,
        ))
    }
}

/// The bytes of a text: Python's own UTF-8, or made for one with lone surrogates.
enum Text<'a> {
    Kept(&'a str),
    Made(Cow<'a, [u8]>),
}

impl Text<'_> {
    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Kept(text) => text.as_bytes(),
            Self::Made(bytes) => bytes,
        }
    }
}

#[inline]
fn read<'a>(text: &'a Bound<'_, PyAny>, place: Option<usize>) -> PyResult<Text<'a>> {
    bytes_of(text.cast::<PyString>().map_err(|_| not_text(text, place))?)
}

#[inline]
fn bytes_of<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Text<'a>> {
    match text.to_str() {
        Ok(text) => Ok(Text::Kept(text)),
        Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(text.py()) => {
            let bytes = text.call_method1("encode", ("utf-8", "surrogatepass"))?;
            let bytes = bytes.cast::<PyBytes>()?;
            Ok(Text::Made(Cow::Owned(bytes.as_bytes().to_vec())))
        }
        Err(error) => Err(error),
    }
}

fn named(place: Option<usize>) -> String {
    place.map_or_else(|| "`text`".to_owned(), |place| format!("`texts[{place}]`"))
}

fn not_text(text: &Bound<'_, PyAny>, place: Option<usize>) -> PyErr {
    let kind = text.get_type();
    let kind = kind
        .name()
        .map_or_else(|_| "object".to_owned(), |name| name.to_string());
    let remedy = if place.is_some() {
        "leave it out, or pass \"\""
    } else {
        "pass a str"
    };
    wrong_type(format!(
        "{} is of type `{kind}`, not `str`: {remedy}",
        named(place)
    ))
}

fn is_blank(text: &[u8]) -> bool {
    // The common text begins with something else, and costs one comparison.
    text.first()
        .is_none_or(|&byte| byte <= b' ' || byte >= 0x80)
        && String::from_utf8_lossy(text)
            .chars()
            .all(|char| char.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&char))
}
