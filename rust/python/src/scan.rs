//! The scanner as a Python class.

use std::borrow::Cow;
use std::cell::RefCell;

use std::time::Instant;

use flyball_core::scan::{
    Judge, Kernel, Normalise, Options, Scratch, Verdict, batch, characters, count_words, windows,
};
use numpy::{IntoPyArray as _, PyArray1, ToPyArray as _};
use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::error::{invalid, wrong_type};
use crate::scan_arrow;
use crate::scan_pack::Pack;
use crate::scan_report::Report;

/// From this many bytes on, other threads may run while a text is scanned.
const WORTH_DETACHING: usize = 16 << 10;

thread_local! {
    // Used again for text after text: a clean prompt allocates nothing.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Offsets, rules, whether a text is flagged, those with suspicious words alone, and those that are blank.
type Rows<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<u16>>,
    Bound<'py, PyArray1<bool>>,
    Vec<usize>,
    Vec<usize>,
);

/// Offsets, rules, whether a row is flagged, whether it is null, and the rows that are not UTF-8.
type Column<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<u16>>,
    Bound<'py, PyArray1<bool>>,
    Bound<'py, PyArray1<bool>>,
    Vec<usize>,
);

/// A pack ready to scan.
#[pyclass(subclass, frozen, module = "flyball._native")]
pub(crate) struct Scanner {
    judge: Judge,
    pack: Py<Pack>,
    max_chars: usize,
    window: bool,
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

    pub(crate) fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Judge a text in windows.
    fn windowed(&self, py: Python<'_>, text: &[u8]) -> PyResult<Verdict> {
        let mut scratch = Scratch::default();
        let mut verdict = Verdict::default();
        for (number, window) in windows(text, self.max_chars).into_iter().enumerate() {
            if number % 64 == 63 {
                py.check_signals()?;
            }
            py.detach(|| {
                let piece = &text[window.start..window.end];
                let mut here = self.judge.verdict(piece, &mut scratch);
                for found in &mut here.found {
                    found.start += window.characters;
                    found.end += window.characters;
                }
                verdict.merge(here);
            });
        }
        Ok(verdict)
    }

    /// Return what a row of a batch has of a text that is scanned in windows.
    fn windowed_row(&self, py: Python<'_>, text: &[u8]) -> PyResult<(Vec<u16>, bool, bool)> {
        let verdict = self.windowed(py, text)?;
        let mut rules: Vec<u16> = verdict.found.iter().map(|one| one.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        Ok((rules, verdict.flagged, verdict.subtle > 0.0))
    }

    /// Scan texts on some threads without Python's lock; a signal ends it.
    #[allow(
        clippy::redundant_closure_for_method_calls,
        reason = "a closure is general over lifetimes"
    )]
    fn together(&self, py: Python<'_>, texts: &[&[u8]], threads: usize) -> PyResult<batch::Rows> {
        let mut interrupted = None;
        let rows = py.detach(|| {
            batch::scan(&self.judge, texts, threads, || {
                interrupted = Python::attach(|py| py.check_signals()).err();
                interrupted.is_none()
            })
        });
        interrupted.map_or_else(|| Ok(rows.unwrap_or_default()), Err)
    }

    fn verdict(&self, py: Python<'_>, text: &[u8]) -> Verdict {
        let work = || SCRATCH.with_borrow_mut(|scratch| self.judge.verdict(text, scratch));
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
    #[pyo3(signature = (pack, max_chars, window, normalise, kernel = None))]
    fn new(
        pack: Bound<'_, Pack>,
        max_chars: usize,
        window: bool,
        normalise: &str,
        kernel: Option<&str>,
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
        let kernel = match kernel {
            None => Kernel::fastest(),
            Some("avx512") => Kernel::Avx512,
            Some("avx2") => Kernel::Avx2,
            Some("scalar") => Kernel::Scalar,
            Some(other) => {
                return Err(invalid(format!(
                    "`kernel` is `{other}`: use `avx512`, `avx2`, `scalar` or None for the fastest"
                )));
            }
        };
        let options = Options { kernel, normalise };
        let judge =
            Judge::new(pack.get().pack().clone(), options).map_err(crate::scan_pack::refused)?;
        Ok(Self {
            judge,
            pack: pack.unbind(),
            max_chars,
            window,
        })
    }

    /// The rules that every text is searched for by an automaton, with the character without which it is not.
    #[getter]
    fn slow_rules(&self) -> Vec<(String, Option<char>)> {
        let rules = self.judge.pack().rules();
        let slow = self.judge.scanner().slow().into_iter();
        slow.filter_map(|slow| Some((rules.get(usize::from(slow.rule))?.id.clone(), slow.unless)))
            .collect()
    }

    /// The pack.
    #[getter]
    fn pack(&self, py: Python<'_>) -> Py<Pack> {
        self.pack.clone_ref(py)
    }

    /// Return whether the text is flagged.
    #[pyo3(signature = (text, /))]
    fn flagged(&self, text: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = text.py();
        let text = read(text, None)?;
        let text = text.as_bytes();
        if let Cut::Windows = self.cut(text, None)? {
            return Ok(self.windowed(py, text)?.flagged);
        }
        Ok(self.verdict(py, text).flagged)
    }

    /// Return a report on the text: what was found, where, and how bad it is.
    #[pyo3(signature = (text, /))]
    fn scan(slf: &Bound<'_, Self>, text: &Bound<'_, PyAny>) -> PyResult<Report> {
        let py = slf.py();
        let this = slf.get();
        let began = Instant::now();
        let read = read(text, None)?;
        let bytes = read.as_bytes();
        let verdict = match this.cut(bytes, None)? {
            Cut::Whole => this.verdict(py, bytes),
            Cut::Windows => this.windowed(py, bytes)?,
        };
        let blank = verdict == Verdict::default() && is_blank(bytes);
        Ok(Report::new(
            slf,
            Some(text.clone().unbind()),
            verdict,
            blank,
            began.elapsed(),
        ))
    }

    /// Return the report of a text in which nothing was found, and which was not kept.
    #[pyo3(signature = (*, blank, words))]
    fn nothing(slf: &Bound<'_, Self>, blank: bool, words: usize) -> Report {
        Report::nothing(slf, blank, words)
    }

    /// Scan a list or tuple of texts: offsets and rules of each, whether it is flagged, which have suspicious words
    /// and no rule, and which of them are blank.
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
        let mut kept: Vec<Borrowed<'_, 'py, PyString>> = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter_borrowed().enumerate() {
            let text = match text.cast_exact::<PyString>() {
                Ok(text) => text, // a comparison; whether it is of a subclass takes a call
                Err(_) => text
                    .cast()
                    .map_err(|_| not_text(&text, Some(first + place)))?,
            };
            kept.push(text);
        }
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(kept.len());
        let (mut long, mut blank, mut made) = (Vec::new(), Vec::new(), Vec::new());
        for (place, text) in kept.iter().enumerate() {
            let text = match bytes_of(text)? {
                Text::Kept(text) => text.as_bytes(),
                Text::Made(bytes) => {
                    made.push((place, bytes));
                    b"x" // its turn comes below
                }
            };
            if is_blank(text) {
                blank.push(place);
            }
            if let Cut::Windows = self.cut(text, Some(first + place))? {
                long.push((place, text));
                pieces.push(b"");
            } else {
                pieces.push(text);
            }
        }
        for (place, text) in &made {
            pieces[*place] = text;
            if let Cut::Windows = self.cut(text, Some(first + place))? {
                long.push((*place, text));
                pieces[*place] = b"";
            }
        }
        let mut rows = self.together(py, &pieces, threads)?;
        for (place, text) in long {
            let (rules, flagged, subtle) = self.windowed_row(py, text)?;
            if rules.is_empty() && subtle {
                rows.subtle.push(place);
            }
            rows.insert(place, rules, flagged);
        }
        Ok((
            rows.offsets.into_pyarray(py),
            rows.rules.into_pyarray(py),
            rows.flagged.into_pyarray(py),
            rows.subtle,
            blank,
        ))
    }

    /// Scan a column of Arrow: offsets and rules of each row, whether it is flagged, which rows are null,
    /// and which are not UTF-8.
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
            ..batch::Rows::default()
        };
        let mut nulls = Vec::new();
        scan_arrow::chunks(data, column, |chunk| {
            let before = nulls.len();
            let first = first + before;
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
                let (rules, flagged, _) = self.windowed_row(py, text)?;
                rows.insert(place, rules, flagged);
                if std::str::from_utf8(text).is_err() {
                    let at = rows.malformed.partition_point(|&other| other < place);
                    rows.malformed.insert(at, place);
                }
            }
            match &chunk.rows {
                None => {
                    nulls.extend(chunk.texts.iter().map(Option::is_none));
                    all.append(&rows);
                }
                Some(indices) => {
                    for (row, index) in indices.iter().enumerate() {
                        let odd = |text| rows.malformed.binary_search(&text).is_ok();
                        if index.is_some_and(odd) {
                            all.malformed.push(before + row);
                        }
                        let text = index.and_then(|index| chunk.texts[index].map(|_| index));
                        nulls.push(text.is_none());
                        let flagged = text.is_some_and(|index| rows.flagged[index]);
                        all.push(text.map_or(&[], |index| rows.row(index)), flagged);
                    }
                }
            }
            Ok(())
        })?;
        Ok((
            all.offsets.to_pyarray(py),
            all.rules.to_pyarray(py),
            all.flagged.to_pyarray(py),
            nulls.to_pyarray(py),
            all.malformed.iter().map(|row| first + row).collect(),
        ))
    }
}

/// Count the words of texts, between white space.
#[pyfunction]
#[pyo3(signature = (texts, /))]
pub(crate) fn scan_words(texts: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let texts = texts.try_iter()?;
    texts
        .map(|text| Ok(count_words(read(&text?, None)?.as_bytes())))
        .collect()
}

/// The bytes of a text: Python's own UTF-8, or made for one with lone surrogates.
pub(crate) enum Text<'a> {
    Kept(&'a str),
    Made(Cow<'a, [u8]>),
}

impl Text<'_> {
    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Kept(text) => text.as_bytes(),
            Self::Made(bytes) => bytes,
        }
    }
}

#[inline]
pub(crate) fn read<'a>(text: &'a Bound<'_, PyAny>, place: Option<usize>) -> PyResult<Text<'a>> {
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
